"""A pool of threads recovers from threads that cannot start, and from threads that die."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta

import pytest

from tests.crash.world import wait_for
from tests.worker.threads import Shortage, named
from triggers import Registry, Triggers
from triggers.runners.threads import THREADS, ThreadsRunner
from triggers.storages.base import ReadyInstance
from triggers.storages.memory import MemoryStorage
from triggers.task import task

QUICK = {"grace": timedelta(milliseconds=50), "sweep_interval": timedelta(milliseconds=50)}
EVERY = {"t": {"andEvery": "go", "run": "plain"}}


@pytest.fixture
def tasks():
    found = Registry()
    task(name="plain", registry=found)(lambda context: None)
    return found


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """A pool that soon tries again what failed."""
    monkeypatch.setattr("triggers.runners.threads.PULL_PAUSE", 0.01)


@pytest.fixture(params=["memory", "sqlite"])
def url(request, tmp_path):
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'file.db'}"


@pytest.mark.parametrize("nth", [2, 3])
def test_where_every_so_many_threads_cannot_start_everything_runs(url, tasks, monkeypatch, nth):
    """Every third thread of the process, or every second one, cannot start: all instances finish nevertheless."""
    shortage = Shortage(monkeypatch, lambda _, start: start % nth == 1)
    with Triggers(url, runner=ThreadsRunner(3), registry=tasks, **QUICK) as app:
        session = app.session("s")
        session.update_configuration(EVERY)
        for _ in range(40):
            session.fire("go")
        assert app.join(60)
        assert {instance.status for instance in session.storage} == {"finished"}
    assert shortage.failures > 1


def test_a_pool_whose_first_thread_cannot_start_begins_later(url, tasks, monkeypatch, caplog):
    """What waits meanwhile runs once a thread can start; the failure is logged once, and health shows it."""
    shortage = Shortage(monkeypatch, named("triggers-0"))
    with Triggers(url, runner=ThreadsRunner(2), registry=tasks, **QUICK) as app:
        session = app.session("s")
        session.update_configuration(EVERY)
        for _ in range(20):
            session.fire("go")
        wait_for("further tries", lambda: shortage.failures > 3)
        health = app.health()
        assert [(one.kind, one.place) for one in health.problems] == [("thread", THREADS)]
        assert (health.is_ok, health.pool_threads) == (False, {"default": 0})
        assert {instance.status for instance in session.storage} == {"scheduled"}
        shortage.over = True
        assert app.join(60)
        assert (app.health().is_ok, app.health().pool_threads) == (True, {"default": 2})
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert len(said) == 1


def test_a_pool_that_is_too_small_grows_when_it_can(tasks, monkeypatch):
    """With one of four threads it works, and becomes four with later hints."""
    shortage = Shortage(monkeypatch, lambda thread, _: thread.name in {"triggers-1", "triggers-2"})
    with Triggers("memory://", runner=ThreadsRunner(4), registry=tasks, **QUICK) as app:
        session = app.session("s")
        session.update_configuration(EVERY)
        session.fire("go")
        assert app.join(60)
        assert app.health().pool_threads == {"default": 1}
        shortage.over = True

        def has_grown():
            session.fire("go")
            return app.health().pool_threads == {"default": 4}

        wait_for("four threads", has_grown)


def test_the_sweep_starts_later_if_its_thread_cannot(tasks, monkeypatch):
    """Health says that the sweep is dead; it begins with something to sweep for, once a thread can start."""
    shortage = Shortage(monkeypatch, named("triggers-sweep"))
    with Triggers("memory://", runner=ThreadsRunner(1), registry=tasks, **QUICK) as app:
        assert app.health().sweep == "dead"
        shortage.over = True
        app.start()
        assert app.health().sweep == "alive"
        assert app.health().is_ok
    assert app.health().sweep == "stopped"


class Dying:
    """Work whose pulls end the thread that makes them, whatever it catches."""

    def __init__(self):
        self.ran = threading.Semaphore(0)

    def run(self, *_):
        self.ran.release()

    def pull(self, _):
        return []


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_thread_that_dies_is_replaced(monkeypatch):
    """A thread that ends in a way that nothing can catch is missed at the next hint."""
    work = Dying()
    pool = ThreadsRunner(1)
    pool.start(work)
    follow = pool._follow

    dead = []

    def die(hint):
        dead.append(threading.current_thread())
        follow(hint)
        raise SystemExit

    monkeypatch.setattr(pool, "_follow", die)
    for number in range(3):
        pool.submit(ReadyInstance("s", "t", number))
        assert work.ran.acquire(timeout=60)
        dead[-1].join(60)
        assert not pool.threads
    assert pool.close(60)


class Slow(MemoryStorage):
    """Sessions in memory; a test can hold up whoever asks for due instances."""

    def __init__(self):
        super().__init__()
        self.asked, self.answer = threading.Event(), threading.Event()

    def due(self, limit, **how):
        found = super().due(limit, **how)
        self.asked.set()
        assert self.answer.wait(60)
        return found


def test_a_pool_that_asks_the_storage_is_not_closed(tasks):
    """`close` waits for the answer, because the storage is closed next; nothing that was found runs any more."""
    storage, runner = Slow(), ThreadsRunner(1)
    elsewhere = Triggers(storage, runner=None, registry=tasks).session("s")
    elsewhere.update_configuration(EVERY)
    elsewhere.fire("go")
    app = Triggers(storage, runner=runner, registry=tasks)
    app.session("s").fire("go")
    assert storage.asked.wait(60)
    assert not runner.is_idle()
    assert not runner.close(0)
    storage.answer.set()
    assert runner.close(60)
    assert runner.is_idle()
    assert app.session("s").storage["t#0"].status == "scheduled"
    app.close()
    with app:
        assert app.join(60)
    assert app.session("s").storage["t#0"].status == "finished"
