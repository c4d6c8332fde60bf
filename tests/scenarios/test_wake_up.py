"""A process without a runner fires, and a worker in another process runs the task without waiting for its sweep.

The workers here sweep once an hour, so only an announcement can be the reason why they run something.
"""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from contextlib import closing
from datetime import timedelta

import pytest
from redis import Redis
from sqlalchemy import create_engine

from tests.crash.processes import in_child
from tests.crash.world import wait_for
from tests.scenarios.applications import without_schema
from tests.storages.postgres_sandbox import connect
from tests.style.sources import ROOT
from triggers import Registry, Triggers
from triggers.storages import announcements
from triggers.storages.memory import MemoryStorage
from triggers.task import task
from triggers.testing.servers import PostgresServer, RedisServer

CONFIGURATION = {"t_note": {"andEvery": "go", "run": "wake.Note"}}
HOUR = timedelta(hours=1)

#: A worker: it prints the number of each firing whose task it runs.
WORKER = r"""
import os, sys, warnings
warnings.simplefilter("ignore")
from triggers import Registry, Triggers
from triggers.task import task

tasks = Registry()

@task(name="wake.Note", registry=tasks)
def note(context):
    os.write(1, b"%d\n" % context.trigger_kwargs["go"]["n"])

with Triggers(sys.argv[1], registry=tasks, sweep_interval=3600) as triggers:
    print("ready", flush=True)
    sys.stdin.read()
"""

SHARED = ["sqlite", "postgres", "redis", "valkey", "cluster"]

#: Storages whose workers hear only of what is announced, and not of every commit.
SERVERS = ["postgres", "valkey"]


@pytest.fixture
def url(request, tmp_path):
    """An empty storage of the kind that the test asks for."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/a.db?synchronous=normal"
    return request.getfixturevalue(f"{request.param}_url")


def on(*kinds):
    return pytest.mark.parametrize("url", kinds, indirect=True)


@pytest.fixture
def runs():
    """The numbers of the firings whose tasks have run in this process."""
    return []


@pytest.fixture
def tasks(runs):
    registry = Registry()

    @task(name="wake.Note", registry=registry, max_retries=5)
    def note(context):
        given = context.trigger_kwargs["go"]
        runs.append(given["n"])
        if context.attempt + context.task_instance.depth < given.get("until", 0):
            raise context.retry(cooldown=0.05)

    return registry


@pytest.fixture
def worker(url, tasks):
    """A worker in this process."""
    with Triggers(url, registry=tasks, sweep_interval=HOUR) as worker:
        yield worker


@pytest.fixture
def web(url):
    """An application that only fires, and its session."""
    web = Triggers(url, runner=None)
    session = web.session("s")
    session.update_configuration(CONFIGURATION)
    yield session
    web.close()


def heard(session, runs, numbers):
    """Fire, one after the other; each must have run before the next one is fired."""
    for n in numbers:
        session.fire("go", {"n": n})
        wait_for(f"the run of {n}", lambda n=n: n in runs)


@on(*SHARED)
def test_a_worker_in_another_process_runs_what_was_fired(url, web):
    """Single firings, each after the previous task has run; then many at once, most of which are not announced."""
    command = [sys.executable, "-c", WORKER, url]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdout.readline() == "ready\n"
        for n in range(6):
            web.fire("go", {"n": n})
            assert worker.stdout.readline() == f"{n}\n"
        for n in range(6, 36):
            web.fire("go", {"n": n})
        assert {int(worker.stdout.readline()) for _ in range(30)} == set(range(6, 36))
        worker.stdin.close()
        assert worker.wait(60) == 0


def test_memory_wakes_a_worker_directly(tasks, runs):
    """Two applications on one storage in memory: each firing wakes the worker."""
    storage = MemoryStorage()
    web = Triggers(storage, runner=None)
    session = web.session("s")
    session.update_configuration(CONFIGURATION)
    with Triggers(storage, registry=tasks, sweep_interval=HOUR):
        heard(session, runs, range(6))


@on(*SERVERS)
def test_a_retry_is_announced_by_a_process_that_does_not_sweep(url, web, worker, runs, tasks):
    """The worker then looks when the retry is due, which nobody else does."""
    heard(web, runs, range(3))
    other = Triggers(url, runner="inline", registry=tasks)
    other.session("s").fire("go", {"n": 7, "until": 4})
    wait_for("the last retry", lambda: runs.count(7) == 4)
    other.close()


@on("postgres")
def test_a_joined_firing_is_announced_after_the_applications_commit(url, web, worker, runs):
    """SQLAlchemy tells when it has committed."""
    heard(web, runs, range(3))
    engine = create_engine("postgresql+psycopg://", connect_args=without_schema(url))
    with engine.begin() as connection, web.joined(connection):
        web.fire("go", {"n": "joined"})
    wait_for("the run", lambda: "joined" in runs)
    engine.dispose()


@on(*SERVERS)
def test_what_a_stopping_worker_releases_runs_elsewhere_at_once(url, web, worker, runs):
    """The release of a running instance is announced."""
    heard(web, runs, range(3))
    registry, began, end = Registry(), threading.Event(), threading.Event()

    @task(name="wake.Other", registry=registry)
    def other(context):
        began.set()
        end.wait(60)

    stopping = Triggers(url, registry=registry)
    session = stopping.session("other")
    session.update_configuration({"t_other": {"andEvery": "go", "run": "wake.Other"}})
    session.fire("go", {"n": "released"})
    assert began.wait(60)
    session.update_configuration(CONFIGURATION | {"t_other": {"andEvery": "go", "run": "wake.Note"}})
    stopping.close(timeout=0)
    wait_for("the second run", lambda: "released" in runs)
    end.set()


@on("sqlite", *SERVERS)
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_fork_takes_no_announcement_away(url, web, worker, runs):
    """A child that fires wakes the worker of its parent, and its end leaves the worker's connection open."""
    heard(web, runs, range(3))

    def child():
        web.fire("go", {"n": "child"})

    assert in_child(child) == 0
    wait_for("the run for the child", lambda: "child" in runs)
    heard(web, runs, range(3, 6))


@on(*SERVERS)
def test_many_announcements_are_sent_as_one(url, web, monkeypatch):
    """A process is silent for a moment after an announcement, so that a burst of firings costs no more than one."""
    monkeypatch.setattr(announcements, "SILENCE", 3600.0)
    storage = web._services.storage
    with closing(storage.listen(threading.Event())) as listener:
        while listener.wait(0.2):
            pass
        storage._announcer._silent_until = 0.0
        web.fire("go", {"n": 0})
        assert listener.wait(60)
        for n in range(1, 20):
            web.fire("go", {"n": n})
        assert not listener.wait(0.2)


@pytest.mark.parametrize(
    ("url", "change"), [("postgres", "{}x"), ("valkey", "{}?prefix=x")], indirect=["url"]
)
def test_work_of_others_on_the_same_server_is_not_heard(url, change, web):
    """Each schema of a database, and each prefix of a Redis, has announcements of its own."""
    neighbor = Triggers(change.format(url), runner=None)
    with closing(web._services.storage.listen(threading.Event())) as listener:
        while listener.wait(0.2):
            pass
        neighbor.storage.announce()
        assert not listener.wait(0.2)
        web.fire("go", {"n": 0})
        assert listener.wait(60)
    neighbor.close()


@on("sqlite", *SERVERS)
def test_a_process_that_only_fires_starts_no_thread(url, web):
    """Not even for its announcements."""
    before = set(threading.enumerate())
    for n in range(3):
        web.fire("go", {"n": n})
    assert set(threading.enumerate()) <= before


def listening(url):
    with connect(url) as connection:
        found = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE query = 'LISTEN triggers'"
        ).fetchall()
    return {pid for (pid,) in found}


@on("postgres")
def test_a_closed_worker_listens_no_more_on_postgresql(url, web, runs, tasks):
    """Its connection is closed, and opened again by a start."""
    before = listening(url)
    worker = Triggers(url, registry=tasks, sweep_interval=HOUR)
    for turn in range(2):
        worker.start()
        heard(web, runs, range(3 * turn, 3 * turn + 3))
        assert len(listening(url) - before) == 1
        worker.close()
        wait_for("the end of the connection", lambda: not listening(url) - before)


@on("valkey")
def test_a_closed_worker_listens_no_more_on_redis(url, web, runs, tasks):
    """Its connection is closed, and opened again by a start."""
    client, channel = Redis.from_url(url), f"trg:due:{url.rpartition('/')[2]}"
    worker = Triggers(url, registry=tasks, sweep_interval=HOUR)
    for turn in range(2):
        worker.start()
        heard(web, runs, range(3 * turn, 3 * turn + 3))
        assert client.pubsub_numsub(channel)[0][1] == 1
        worker.close()
        wait_for(
            "the end of the connection",
            lambda: client.pubsub_numsub(channel)[0][1] == 0,
        )


@pytest.mark.parametrize("kind", ["postgres", "valkey"])
def test_a_worker_listens_again_after_its_server_was_restarted(kind, tasks, runs, caplog, monkeypatch):
    """What was fired in the meantime is found, too. The loss and the end of it are logged once each."""
    monkeypatch.setattr(announcements, "FIRST_PAUSE", 0.05)
    caplog.set_level(logging.INFO, announcements.__name__)
    server = PostgresServer(private=True) if kind == "postgres" else RedisServer(kind="valkey", private=True)
    with server:
        web = Triggers(server.url, runner=None)
        session = web.session("s")
        session.update_configuration(CONFIGURATION)
        with Triggers(server.url, registry=tasks, sweep_interval=HOUR):
            heard(session, runs, range(3))
            server.stop()
            server.start()
            heard(session, runs, range(3, 6))
        web.close()
    said = [record.getMessage() for record in caplog.records if record.name == announcements.__name__]
    assert sum("cannot be received" in message for message in said) == 1
    assert sum("received again" in message for message in said) == 1


@on(*SERVERS)
def test_an_announcement_that_fails_is_logged_once_and_raises_nothing(url, web, caplog, monkeypatch):
    """A firing is stored before it is announced. While announcing fails, it is tried only now and then."""
    tried = []

    def fail(*_):
        tried.append(1)
        raise OSError("no route")

    module = type(web._services.storage).__module__.rpartition(".")[0]
    monkeypatch.setattr(f"{module}.announcing.announce", fail)
    triggers = Triggers(url, runner=None)
    session = triggers.session("s")
    for n in range(5):
        assert session.fire("go", {"n": n}).scheduled
    assert len(tried) == 1
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert "no route" in caplog.text
    triggers.close()


def test_behind_a_pooler_a_worker_only_sweeps(pgbouncer_url, tasks, runs):
    """PgBouncer forwards no notifications, so none of its connections is used to listen."""
    before = listening(pgbouncer_url.replace("pgbouncer", "postgres"))
    web = Triggers(pgbouncer_url, runner=None)
    session = web.session("s")
    session.update_configuration(CONFIGURATION)
    with Triggers(pgbouncer_url, registry=tasks, sweep_interval=0.05) as worker:
        heard(session, runs, range(3))
        assert not worker.storage.listen(threading.Event()).wait(0)
        assert listening(pgbouncer_url) <= before
    web.close()


@on("postgres")
def test_what_is_announced_through_a_pooler_is_heard(url, worker, runs, web, pgbouncer):
    """A process that fires through PgBouncer wakes a worker with a direct connection."""
    heard(web, runs, range(3))
    pooled = Triggers(
        f"{pgbouncer.url}{'&' if '?' in pgbouncer.url else '?'}{url.rpartition('&')[2]}", runner=None
    )
    heard(pooled.session("s"), runs, range(3, 6))
    pooled.close()


class Plain:
    """A storage of somebody else, which has only what every storage must have."""

    def __init__(self, storage):
        for name in (
            "now",
            "commit",
            "commit_many",
            "timed_sessions",
            "renew",
            "due",
            "expired",
            "purge_logs",
            "joined",
            "close",
            "reader",
        ):
            setattr(self, name, getattr(storage, name))


def test_a_storage_that_announces_nothing_is_swept(tasks, runs):
    """The methods are optional: without them, the sweep finds the work."""
    storage = Plain(MemoryStorage())
    session = Triggers(storage, runner=None).session("s")
    session.update_configuration(CONFIGURATION)
    with Triggers(storage, registry=tasks, sweep_interval=0.02):
        heard(session, runs, range(3))


def test_the_permissions_in_the_guide_suffice(tasks, runs, caplog):
    """With the ACL of the guide, a user of Redis can announce and listen."""
    guide = (ROOT / "docs/how-to/run-on-many-machines.md").read_text("utf-8")
    (line,) = [line for line in guide.splitlines() if line.startswith("ACL SETUSER survey")]
    with RedisServer(kind="valkey", private=True) as server:
        with Redis.from_url(server.url) as client:
            client.execute_command(*line.split())
        url = f"redis://survey:secret@{server.url.rpartition('@')[2]}"
        web = Triggers(url, runner=None)
        session = web.session("s")
        session.update_configuration(CONFIGURATION)
        with Triggers(url, registry=tasks, sweep_interval=HOUR):
            heard(session, runs, range(6))
        web.close()
    assert caplog.records == []
