"""A worker that is away for longer than its lease, and comes back: its work was done by others, and its end is refused."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from contextlib import closing
from datetime import timedelta
from functools import partial

import pytest

from tests.chaos.network import Network
from tests.chaos.queue import Queue
from tests.conftest import with_empty_database
from tests.crash.checker import check
from tests.crash.processes import begin, end, in_child
from tests.crash.world import CONFIGURATION, World, wait_for
from tests.invariants import Fire
from triggers.core.decisions import rescue
from triggers.runners.threads import ThreadsRunner
from triggers.testing.conformance.steps import Steps
from triggers.testing.servers.watchdog import family

LEASE = timedelta(seconds=1)
GHOSTS = ("t_notes#0", "t_notes#1")


@pytest.fixture
def broker(valkey_server):
    """The URL of a broker with nothing in it."""
    return with_empty_database(valkey_server)


@pytest.fixture
def worker():
    """Starts a Celery worker; it is killed at the end, with its children."""
    pids: list[int] = []

    def start(act):
        pids.append(begin(act))
        return pids[-1]

    yield start
    for pid in pids:
        for each in reversed(family(pid)):
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, signal.SIGCONT)
                os.kill(each, signal.SIGKILL)
        end(pid)


def settings(**more):
    """Of every application here."""
    return {"lease": LEASE, "sweep_interval": timedelta(seconds=0.1), "grace": timedelta(seconds=0.5), **more}


def test_ghosts_of_celery_workers_are_refused(url, broker, worker, tmp_path, monkeypatch):
    """One child of a Celery worker is paused, the other cut off, for longer than a lease: both come back too late."""
    monkeypatch.setattr(rescue, "CRASH_BACKOFF", (1,))
    go_on = tmp_path / "go on"

    def busy(_: str, fence: int) -> float:
        while fence == 1 and not go_on.exists():
            time.sleep(0.01)
        return 0

    world = World(tmp_path, busy, url=url)
    with closing(world.storage()), Network(url) as network:
        beyond = World(tmp_path, busy, url=network.url)
        queue = Queue(broker, 0, calm=True)
        worker(partial(queue.work, lambda runner: beyond.app(runner, **settings()), 2))

        def fire() -> None:
            with closing(world.app(queue.runner(0), **settings())) as app:
                app.session("s-1").update_configuration({"t_notes": CONFIGURATION["t_notes"]})
                for number in range(len(GHOSTS)):
                    world.fire(app, Fire("s-1", "note", f"note-{number}", f"n{number}"))
                assert app.join(0) is False

        assert in_child(fire) == 0
        wait_for("both runs", lambda: len(world.runs.read()) == len(GHOSTS))
        pids = {run["instance"]: run["pid"] for run in world.runs.read()}
        assert len(set(pids.values())) == len(GHOSTS)
        os.kill(pids[GHOSTS[0]], signal.SIGSTOP)
        network.hold()

        def recover_all() -> None:
            with world.app(ThreadsRunner(1), **settings()) as app:
                assert app.join(60), app.backlog()

        assert in_child(recover_all) == 0
        go_on.touch()
        network.release()
        os.kill(pids[GHOSTS[0]], signal.SIGCONT)
        with closing(world.storage()) as storage:
            steps = Steps(storage, "s-1")
            for ghost in GHOSTS:
                refused = lambda ghost=ghost: "refused a late end" in steps[ghost].history  # noqa: E731
                wait_for(f"the end of {ghost}", refused)
    report = check(world, expect=False, backoff=(1,))
    assert report.problems == []
    assert (report.late, report.crashes, report.wasted) == (2, 2, 2)
    assert all(run["attempt"] in {1, 2} for run in world.runs.read())
