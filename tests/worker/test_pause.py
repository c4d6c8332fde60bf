"""The pause between two sweeps: what a worker does with the announcements of other processes."""

from __future__ import annotations

import threading

from triggers import Registry, Triggers
from triggers.runners.threads import ThreadsRunner
from triggers.storages.announcements import DeafListener
from triggers.storages.memory import MemoryStorage
from triggers.task import task
from triggers.worker.pause import SweepPause


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
    SweepPause(storage, lambda: dispatched.append(len(turns)), room, woken).last(60)
    assert not woken.is_set()
    return dispatched, len(script.heard)


def test_a_pause_ends_after_the_last_announcement():
    """What was released shortly after it was not announced, so the sweep looks again."""
    assert paused(lambda _: True, True, False, False) == ([1], 1)
    assert paused(lambda _: True, True, True, True, False, False) == ([1, 2, 3], 1)


def test_a_process_without_a_free_thread_leaves_announced_work_to_others():
    """It takes it as soon as a thread is free."""
    assert paused(lambda turn: turn > 3, True, False, False, False, False, False) == ([4], 1)
    assert paused(lambda _: False, True, True, False) == ([], 0)


def test_a_listener_that_raises_does_not_end_the_sweep():
    """The pause continues without it."""
    woken = threading.Event()
    storage = MemoryStorage()
    storage.listen = lambda _: Script(woken, OSError("broken"))
    threading.Timer(0.05, woken.set).start()
    SweepPause(storage, lambda: None, lambda: True, woken).last(60)
    assert not woken.is_set()


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
