"""The threads runner keeps the promises of every runner, and those of a pool."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from triggers import Registry, Triggers
from triggers.runners.threads import WORKERS as DEFAULT_WORKERS
from triggers.runners.threads import ThreadsRunner
from triggers.storages.base import ReadyInstance
from triggers.storages.memory import MemoryStorage
from triggers.task import task
from triggers.testing.conformance.runners import WORKERS, RunnerConformance


class TestThreadsRunner(RunnerConformance):
    @pytest.fixture
    def runner(self):
        return ThreadsRunner(workers=WORKERS)


class TestOneThread(RunnerConformance):
    """The smallest pool, that keeps the fewest hints."""

    many = 30

    @pytest.fixture
    def runner(self):
        return ThreadsRunner(workers=1, hints=1)


class RunnerHost:
    """Work that says when it is begun and waits until it may end."""

    def __init__(self, pulls=()):
        self.begun = threading.Semaphore(0)
        self.go = threading.Event()
        self.ran = []
        self.pulls = list(pulls)
        self.pulled = threading.Event()
        self.most = 0
        self._now = 0
        self._lock = threading.Lock()

    def run(self, uid, name, number):
        with self._lock:
            self._now += 1
            self.most = max(self.most, self._now)
        self.begun.release()
        assert self.go.wait(60)
        with self._lock:
            self._now -= 1
            self.ran.append(number)
        return True

    def pull(self, limit):
        self.pulled.set()
        found = self.pulls.pop(0) if self.pulls else []
        if isinstance(found, Exception):
            raise found
        return found[:limit]


def hint(number):
    return ReadyInstance("s", "t", number, None)


@pytest.fixture
def pool():
    made = []

    def pool(work, **settings):
        runner = ThreadsRunner(**settings)
        runner.start(work)
        made.append((runner, work))
        return runner

    yield pool
    for runner, work in made:
        work.go.set()
        assert runner.close(60)


def test_a_pool_has_at_least_one_thread():
    """A size below one is refused; the default is more."""
    with pytest.raises(ValueError, match="at least 1, not 0"):
        ThreadsRunner(workers=0)
    assert DEFAULT_WORKERS >= 1


def test_no_thread_is_started_before_the_first_hint(pool):
    """Starting a runner starts nothing, so that an application can be made before a fork."""
    before = set(threading.enumerate())
    runner = pool(RunnerHost(), workers=2)
    assert set(threading.enumerate()) <= before
    runner.submit(hint(0))
    assert len(set(threading.enumerate()) - before) == 2


def test_as_many_run_at_a_time_as_there_are_threads(pool):
    """A pool of three runs three at a time, and never more."""
    work = RunnerHost()
    runner = pool(work, workers=3)
    for number in range(9):
        runner.submit(hint(number))
    for _ in range(3):
        assert work.begun.acquire(timeout=60)
    assert not runner.is_idle()
    work.go.set()
    assert _until(lambda: len(work.ran) == 9)
    assert work.most == 3
    assert sorted(work.ran) == list(range(9))


def test_hints_beyond_its_room_are_dropped_and_pulled_later(pool):
    """A full pool keeps no more hints, and when it has nothing left to do it asks the storage."""
    work = RunnerHost(pulls=[[hint(100), hint(101)]])
    runner = pool(work, workers=1, hints=2)
    runner.submit(hint(0))
    assert work.begun.acquire(timeout=60)
    for number in range(1, 6):
        runner.submit(hint(number))
    work.go.set()
    assert _until(lambda: len(work.ran) == 5)
    assert set(work.ran) == {0, 1, 2, 100, 101}


def test_a_first_pull_finds_what_was_there_before(pool):
    """A new pool asks the storage once, for what was ready before it began."""
    work = RunnerHost(pulls=[[hint(7)]])
    work.go.set()
    pool(work, workers=1).submit(hint(0))
    assert _until(lambda: sorted(work.ran) == [0, 7])


def test_a_pull_that_fails_is_tried_again(pool, caplog, monkeypatch):
    """A storage that is away while it is asked for work is asked again; hints are followed meanwhile."""
    monkeypatch.setattr("triggers.runners.threads.PULL_PAUSE", 0.01)
    work = RunnerHost(pulls=[OSError("away"), [hint(7)]])
    work.go.set()
    pool(work, workers=1).submit(hint(0))
    assert _until(lambda: sorted(work.ran) == [0, 7])
    assert "due instances could not be read" in caplog.text


def test_work_that_raises_does_not_end_a_thread(pool, caplog):
    """Whatever comes out of running an instance is logged, and the thread takes the next hint."""
    work = RunnerHost()
    work.go.set()
    run = work.run

    def raising(uid, name, number):
        run(uid, name, number)
        if number == 0:
            raise SystemExit

    work.run = raising
    runner = pool(work, workers=1)
    runner.submit(hint(0))
    runner.submit(hint(1))
    assert _until(lambda: work.ran == [0, 1])
    assert "t#0 of session 's' could not be run, or its outcome not stored" in caplog.text


def test_hints_that_wait_are_dropped_at_close(pool):
    """Closing waits for what runs and begins nothing more."""
    work = RunnerHost()
    runner = pool(work, workers=1)
    for number in range(3):
        runner.submit(hint(number))
    assert work.begun.acquire(timeout=60)
    assert not runner.close(0.01)
    work.go.set()
    assert runner.close(60)
    assert work.ran == [0]
    runner.submit(hint(9))
    assert work.ran == [0]
    assert runner.is_idle()


def test_closing_from_within_a_task_does_not_wait_for_itself():
    """A task may close the application that runs it; the other threads are waited for."""
    tasks = Registry()
    closed = threading.Event()

    @task(name="close", registry=tasks)
    def close(context):
        triggers.close(timedelta(seconds=10))
        closed.set()

    triggers = Triggers("memory://", runner=ThreadsRunner(workers=2), registry=tasks)
    session = triggers.session("s")
    session.update_configuration({"t_x": {"after": ["a"], "run": "close"}})
    session.fire("a")
    assert closed.wait(60)


def test_two_pools_share_the_work():
    """Two applications on one storage run each instance once, whoever gets it."""
    tasks = Registry()
    runs = []
    task(name="count", registry=tasks)(lambda context: runs.append(context.task_instance.name))
    storage = MemoryStorage()
    with Triggers(storage, registry=tasks) as one, Triggers(storage, registry=tasks) as two:
        one.session("s").update_configuration({"t_x": {"andEvery": "a", "run": "count"}})
        for _ in range(50):
            one.session("s").fire("a")
            two.session("s").fire("a")
        assert one.join(60)
    assert sorted(runs) == sorted(f"t_x#{number}" for number in range(100))


def test_one_that_waits_for_the_end_takes_no_hint_away(pool):
    """A hint wakes a thread of the pool, not the one that waits until everything has ended."""
    work = RunnerHost()
    work.join = lambda _: True
    runner = pool(work, workers=2)
    runner.submit(hint(0))
    assert work.begun.acquire(timeout=60)
    # It waits from now on, because the first hint does not end. It must not stand in the pool's queue.
    waits = threading.Thread(target=runner._join, args=(60,))
    waits.start()
    work.run = lambda *_: work.begun.release()
    for number in range(1, 200):
        runner.submit(hint(number))
        assert work.begun.acquire(timeout=60), f"hint {number} woke nobody"
    work.go.set()
    waits.join(60)
    assert not waits.is_alive()


def _until(holds):
    """Wait for what another thread does and tells nobody about."""
    waiting = threading.Event()
    for _ in range(6_000):
        if holds():
            return True
        waiting.wait(0.01)
    return False
