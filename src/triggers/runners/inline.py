"""Runs everything in the calling thread, cascades too, before `fire` returns: for tests and scripts."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING

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
        self._here = _Thread()
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
        try:
            while here.hints:
                self._follow(here.hints.popleft())
        finally:
            here.hints.clear()
            here.draining = False

    def _follow(self, due: ReadyInstance) -> None:
        self._host.run(due.uid, due.task, due.number)

    def is_idle(self) -> bool:
        """Whether this thread has nothing to run."""
        return not self._here.draining

    def close(self, timeout: float | None) -> bool:  # noqa: ARG002 - nothing runs that could be waited for
        """Run nothing more."""
        self._closed = True
        return True
