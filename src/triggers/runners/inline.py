"""Runs everything in the calling thread, cascades too, before `fire` returns: for tests and scripts."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from triggers.fork import reset_after_fork

if TYPE_CHECKING:
    from triggers.runners.base import RunnerHost
    from triggers.storages.base import ReadyInstance


class _Thread(threading.local):
    """What one thread has still to run; empty where nothing runs."""

    def __init__(self) -> None:
        self.hints: deque[ReadyInstance] = deque()
        self.draining = False


class InlineRunner:
    """A runner without any thread of its own."""

    def __init__(self) -> None:
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Run nothing: what other threads ran is the parent's."""
        self._here = _Thread()
        self._changed = threading.Condition()
        self._active = 0
        self._closed = False

    def start(self, host: RunnerHost) -> None:
        """Learn what to call; after a `close`, run again."""
        self._host = host
        self._closed = False

    def submit(self, due: ReadyInstance) -> None:
        """Run it now; from within a task, as soon as that task has ended, so that no cascade nests calls."""
        here = self._here
        if self._closed:
            return
        here.hints.append(due)
        if here.draining:
            return
        here.draining = True
        self._count(1)
        try:
            while here.hints and not self._closed:
                self._follow(here.hints.popleft())
        finally:
            here.hints.clear()
            here.draining = False
            self._count(-1)

    def _count(self, more: int) -> None:
        with self._changed:
            self._active += more
            self._changed.notify_all()

    def _follow(self, due: ReadyInstance) -> None:
        self._host.run(due.uid, due.task, due.number)

    def is_idle(self) -> bool:
        """Whether this thread has nothing to run."""
        return not self._here.draining

    def close(self, timeout: float | None) -> bool:
        """Run nothing more, and wait for what other threads run."""
        self._closed = True
        own = self._here.draining
        with self._changed:
            return self._changed.wait_for(lambda: self._active <= own, timeout)
