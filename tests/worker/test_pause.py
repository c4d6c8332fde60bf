"""The pause between two sweeps: what a worker does with the announcements of other processes."""

from __future__ import annotations

import threading

from triggers import Registry, Triggers
from triggers.exceptions import StorageError
from triggers.health import Problems
from triggers.runners.threads import ThreadsRunner
from triggers.storages.announcements import DeafListener
from triggers.storages.memory import MemoryStorage
from triggers.task import task
from triggers.worker.pause import SPACING, SweepPause


class Script(DeafListener):
    """A listener that hears what a list says, once for each wait; after that, it ends the pause."""

    def __init__(self, woken, *heard):
        super().__init__(woken)
        self.heard = list(heard)

    def wait(self, timeout):
        if not self.heard:
            self._woken.set()
            return False
        said = self.heard.pop(0)
        if isinstance(said, Exception):
            raise said
        return said


def paused(has_room, *heard):
    """In which turns a pause has dispatched, and how many waits were left when it ended."""
    woken, dispatched, turns = threading.Event(), [], []

    def room():
        turns.append(1)
        return has_room(len(turns))

    storage = MemoryStorage()
    script = Script(woken, *heard)
    storage.listen = lambda _: script
    SweepPause(storage, lambda: dispatched.append(len(turns)), room, woken, Problems()).last(60)
    assert not woken.is_set()
    return dispatched, len(script.heard)


def test_a_pause_ends_after_the_last_announcement():
    """What was released shortly after it was not announced, so the sweep looks again."""
    assert paused(lambda _: True, True, False, False) == ([1], 1)
    assert paused(lambda _: True, True, True, True, False, False) == ([1, 2, 3], 1)


class VirtualTime:
    """A clock that goes on only where a test says so."""

    now = 0.0

    def monotonic(self):
        return self.now


def test_a_pause_cut_short_after_an_announcement_is_followed_by_a_second_look(monkeypatch):
    """What was released in the silence of that announcement can be missed by a sweep that comes too soon."""
    woken, timeouts, clock = threading.Event(), [], VirtualTime()
    monkeypatch.setattr("triggers.worker.pause.time", clock)

    class Heard(DeafListener):
        def wait(self, timeout):
            timeouts.append(timeout)
            if len(timeouts) == 1:
                return True
            clock.now += timeout
            return False

    storage = MemoryStorage()
    storage.listen = Heard
    pause = SweepPause(storage, woken.set, lambda: True, woken, Problems())
    pause.last(60)  # dispatching wakes it, as an instance does that is due early
    assert timeouts[0] == 60
    timeouts[1:] = []
    pause.last(60)
    assert timeouts.pop() == SPACING, "the sweep was too soon; the next one comes at the end of the silence"
    pause.last(60)
    assert timeouts[1:] == [60], "once is enough"


def test_a_process_without_a_free_thread_leaves_announced_work_to_others():
    """It takes it as soon as a thread is free."""
    assert paused(lambda turn: turn > 3, True, False, False, False, False, False) == ([4], 1)
    assert paused(lambda _: False, True, True, False) == ([], 0)


def after_an_error(error):
    """The problems in the pause in which a listener raises this, and in the next one."""
    woken, problems = threading.Event(), Problems()
    storage = MemoryStorage()
    script = Script(woken, error)
    storage.listen = lambda _: script
    pause = SweepPause(storage, lambda: None, lambda: True, woken, problems)
    found = []
    for _ in range(2):
        timer = threading.Timer(0.05, woken.set)
        timer.start()
        pause.last(60)
        timer.join()
        found.append([problem.place for problem in problems.list()])
        woken.clear()
    return found


def test_a_listener_that_raises_is_a_problem_until_it_works():
    """The sweep continues in any case."""
    assert after_an_error(OSError("broken")) == [["listening for announced work"], []]


def test_a_storage_that_is_unavailable_is_reported_by_the_sweep():
    """The pause continues, and does not report it a second time."""
    assert after_an_error(StorageError("away")) == [[], []]


def test_a_pool_has_room_while_a_thread_is_free():
    """Running instances and kept hints count."""
    began, end, registry = threading.Semaphore(0), threading.Event(), Registry()

    @task(name="wake.Note", registry=registry)
    def block(context):
        began.release()
        end.wait(60)

    pool = ThreadsRunner(workers=2)
    with Triggers("memory://", runner=pool, registry=registry) as triggers:
        session = triggers.session("s")
        session.update_configuration({"t_note": {"andEvery": "go", "run": "wake.Note"}})
        assert pool.has_room()
        for _ in range(2):
            session.fire("go")
            assert began.acquire(timeout=60)
        assert not pool.has_room()
        assert not triggers._dispatcher.has_room()
        end.set()
