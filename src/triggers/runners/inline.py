"""Run everything in the calling thread before `fire` returns, also cascades. For tests and scripts."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

from triggers.fork import reset_after_fork

if TYPE_CHECKING:
    from triggers.runners.base import RunnerHost
    from triggers.storages.base import ReadyInstance


class _Thread(threading.local):
    """The hints that a thread must still follow."""

    def __init__(self) -> None:
        self.hints: deque[ReadyInstance] = deque()
        self.draining = False


class InlineRunner:
    """A runner without threads: each thread runs what it releases."""

    def __init__(self) -> None:
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Forget what the threads of the parent process run."""
        self._here = _Thread()
        self._changed = threading.Condition()
        self._active = 0
        self._closed = False

    def start(self, host: RunnerHost) -> None:
        """Accept hints from now on, also again after a `close`."""
        self._host = host
        self._closed = False

    def submit(self, due: ReadyInstance) -> None:
        """Run the instance now. Inside a task, run it after that task, so that cascades do not nest."""
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
        """Return whether this thread runs nothing."""
        return not self._here.draining

    def close(self, timeout: float | None) -> bool:
        """Accept no more hints, and wait for what other threads run."""
        self._closed = True
        own = self._here.draining
        with self._changed:
            return self._changed.wait_for(lambda: self._active <= own, timeout)
