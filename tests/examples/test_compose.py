"""The example for Docker Compose, by hand: its own commands and variables, with private servers in place of containers.

Containers are not started: what is tested is the application, and that the files agree with each other.
"""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import ExitStack
from pathlib import Path

import pytest

from triggers.testing.servers import MissingServerError, PostgresServer, RedisServer
from triggers.testing.servers.address import free_port

EXAMPLE = Path(__file__).parents[2] / "examples" / "compose"
COMPOSE = (EXAMPLE / "compose.yaml").read_text("utf-8")

PATIENCE = 60.0


def services():
    """Name → the lines of each service: all that is indented further below it."""
    body = COMPOSE.partition("\nservices:\n")[2].partition("\nvolumes:\n")[0]
    parts = re.split(r"^  (\w+):\n", body, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def command(service):
    """The command of a service, as a list."""
    return json.loads(re.search(r"^    command: (\[.*\])$", services()[service], re.MULTILINE)[1])


def environment():
    """The variables that web, worker and sweep share."""
    block = re.search(r"^    environment: &where\n((?:      .*\n)+)", COMPOSE, re.MULTILINE)[1]
    pairs = (line.strip().partition(": ") for line in block.splitlines())
    return {name: value.strip('"') for name, _, value in pairs}


def read_variables(module):
    """What a module reads from `os.environ`."""
    return set(re.findall(r'os\.environ(?:\.get\(|\[)"(\w+)"', (EXAMPLE / module).read_text("utf-8")))


@pytest.fixture
def run(tmp_path):
    """Starts the commands of services with the example's variables, on private servers; ends them all."""
    try:
        servers = PostgresServer(private=True), RedisServer(private=True, settings={"appendonly": "no"})
    except MissingServerError as error:
        pytest.skip(str(error))
    with ExitStack() as stack:
        storage, broker = (stack.enter_context(server) for server in servers)
        given = {
            "STORAGE_URL": storage.url,
            "BROKER_URL": broker.url,
            "HOST": "127.0.0.1",
            "PORT": str(free_port()),
        }
        variables = {**environment(), **given}
        assert set(given) <= set(environment())

        def start(service, *more):
            program, *arguments = command(service)
            path = Path(sys.executable).parent / program
            log = stack.enter_context((tmp_path / f"{service}.log").open("ab"))
            process = subprocess.Popen(
                [path, *arguments, *more],
                cwd=EXAMPLE,
                env={**os.environ, **variables, "PYTHONDONTWRITEBYTECODE": "1"},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
            stack.callback(kill, process)
            return process

        start.url = f"http://127.0.0.1:{variables['PORT']}"
        start.broker = broker
        start.log = tmp_path / "worker.log"
        yield start


def kill(process):
    """With its children, which are in its group."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def ask(url, method="GET", body=None, key=None):
    """The status and the document that the web process answers; waits until it is there."""
    headers = {} if key is None else {"Idempotency-Key": key}
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method, headers=headers)  # noqa: S310 - ours
    until = time.monotonic() + PATIENCE
    while True:
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310 - ours
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except urllib.error.URLError:
            assert time.monotonic() < until
            time.sleep(0.1)


def eventually(condition):
    """Wait until it is true: the time limit of the test is the limit."""
    while not condition():
        time.sleep(0.1)


def wait_for(url, expected):
    """Until the session's instances have these statuses."""
    until = time.monotonic() + PATIENCE
    while True:
        _, found = ask(url)
        statuses = {name: one["status"] for name, one in found.items()}
        if statuses == expected:
            return found
        assert time.monotonic() < until, statuses
        time.sleep(0.1)


@pytest.mark.timeout(300)
def test_a_questionnaire_goes_through_the_processes_of_the_example(run):
    """What is fired at the web process is run by the workers, also when the broker lost every message on the way."""
    web, workers = run("web"), [run("worker", "--hostname=one@%h")]
    session = f"{run.url}/sessions/respondent-17"
    assert ask(session)[0] == 404
    page = {"number": 1, "answers": {"age": 36}}
    assert ask(f"{session}/pageReceived", "POST", page, "page 1") == (200, {"number": 1, "duplicate": False})
    assert ask(f"{session}/pageReceived", "POST", page, "page 1") == (200, {"number": 1, "duplicate": True})
    assert ask(f"{session}/pageReceived", "POST", {"number": 2}, "page 1")[0] == 409
    assert ask(f"{session}/pageReceived", "POST", [])[0] == 400
    wait_for(session, {"t_importPage#0": "finished", "t_score#0": "unstarted"})

    kill(workers.pop())
    assert ask(f"{session}/questionnaireComplete", "POST")[0] == 200
    run.broker.stop(immediate=True)  # with the message in it
    run.broker.start()
    workers = [run("worker", f"--hostname={name}@%h", "--loglevel=INFO") for name in ("two", "three")]
    sweep = run("sweep")
    found = wait_for(session, {"t_importPage#0": "finished", "t_score#0": "finished"})
    assert found["t_score#0"]["result"] == {"score": 10}

    # One worker can do everything before the other one knows what the signal means.
    eventually(lambda: run.log.read_text("utf-8").count(" ready.") == len(workers))
    for process in (web, sweep, *workers):
        process.send_signal(signal.SIGTERM)
    assert [process.wait(PATIENCE) for process in (web, sweep)] == [0, 0]
    assert [process.wait(PATIENCE) for process in workers] == [0, 0]


def test_the_variables_of_the_example_are_those_that_its_code_reads():
    """Nothing is set that nobody reads, and nothing is read that is not set."""
    assert set(environment()) == read_variables("survey.py") | read_variables("web.py")


def test_what_the_image_is_built_from_is_there():
    """Every path that the Dockerfile copies exists."""
    lines = (EXAMPLE / "Dockerfile").read_text("utf-8").splitlines()
    copied = [path for line in lines if line.startswith("COPY ") for path in line.split()[1:-1]]
    assert copied
    assert [path for path in copied if not (EXAMPLE.parents[1] / path).exists()] == []
