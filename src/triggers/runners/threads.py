"""Runs instances on a few threads of this process: the default."""

from __future__ import annotations

import logging
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING

from triggers.fork import reset_after_fork
from triggers.health import Problems

if TYPE_CHECKING:
    from triggers.runners.base import RunnerHost
    from triggers.storages.base import ReadyInstance

_log = logging.getLogger(__name__)

#: Threads, unless told otherwise.
WORKERS = min(32, (os.cpu_count() or 1) + 4)

#: Hints kept for each thread; more are dropped, and what they named is taken from the storage later.
HINTS = 64

#: Pause before a pull that failed is tried again, and after a thread could not start, in seconds.
PULL_PAUSE = 1.0

#: What the pool's problems are called.
THREADS = "the threads of the pool"
PULL = "asking the storage for work"


class ThreadsRunner:
    """A pool of threads, started by the first hint, and started anew in a process that was forked.

    A thread that could not start, or has died, is started again with a later hint, and by the sweep. `submit`
    never blocks. With all the hints that it keeps, the pool drops further ones, and once it
    has nothing left to do it takes what is ready straight from the storage.

    Args:
        workers: how many threads.
        hints: how many hints are kept.
    """

    def __init__(self, workers: int = WORKERS, hints: int | None = None) -> None:
        if workers < 1:
            message = f"workers must be at least 1, not {workers}"
            raise ValueError(message)
        self._size = workers
        self._problems = Problems()
        self._room = hints if hints is not None else workers * HINTS
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Begin with neither threads nor hints."""
        self._changed = threading.Condition()
        self._hints: deque[ReadyInstance] = deque()
        self._threads: set[threading.Thread] = set()
        self._begin_at = 0.0
        self._active = 0
        self._dropped = True  # what was ready before this process began is in the storage, too
        self._pulling = False
        self._pull_at = 0.0
        self._closed = False

    def start(self, host: RunnerHost) -> None:
        """Learn what to call; after a `close`, take hints again, and whatever was released meanwhile."""
        with self._changed:
            self._host = host
            self._problems = getattr(host, "problems", self._problems)
            self._closed, self._dropped, self._begin_at = False, True, 0.0

    @property
    def threads(self) -> int:
        """How many threads there are now."""
        with self._changed:
            return len(self._threads)

    def submit(self, due: ReadyInstance) -> None:
        """Keep the hint, or drop it if there are enough."""
        with self._changed:
            if self._closed:
                return
            if len(self._hints) < self._room:
                self._hints.append(due)
            else:
                self._dropped = True
            self._begin()
            self._changed.notify()

    def tend(self) -> None:
        """Start the threads that are missing, if there is anything to do."""
        with self._changed:
            if self._hints and not self._closed:
                self._begin()

    def is_idle(self) -> bool:
        """Whether no thread runs anything and no hint waits."""
        with self._changed:
            return not (self._active or self._hints or self._pulling)

    def close(self, timeout: float | None) -> bool:
        """Wait for what runs; hints are dropped. A task that closes its own pool is not waited for."""
        own = threading.current_thread() in self._threads
        with self._changed:
            self._closed = True
            self._hints.clear()
            self._changed.notify_all()
            return self._changed.wait_for(lambda: self._active <= own, timeout)

    def _begin(self) -> None:
        """Start the threads that are missing, unless that failed a moment ago; the lock is held."""
        if len(self._threads) == self._size and all(map(threading.Thread.is_alive, self._threads)):
            return
        self._threads = {thread for thread in self._threads if thread.is_alive()}
        if time.monotonic() < self._begin_at:
            return
        try:
            while len(self._threads) < self._size:
                thread = threading.Thread(
                    target=self._loop, name=f"triggers-{len(self._threads)}", daemon=True
                )
                thread.start()
                self._threads.add(thread)
        except RuntimeError as error:  # the system has no thread left
            self._begin_at = time.monotonic() + PULL_PAUSE
            there = f"there are {len(self._threads)} of {self._size}; the rest is started later"
            self._problems.report("thread", THREADS, error, there)
        else:
            self._problems.resolve(THREADS)

    def _loop(self) -> None:
        try:
            while (hint := self._next()) is not None:
                self._follow(hint)
        finally:
            with self._changed:
                self._threads.discard(threading.current_thread())

    def _follow(self, hint: ReadyInstance) -> None:
        try:
            self._host.run(hint.uid, hint.task, hint.number)
        except BaseException:  # noqa: BLE001 - whatever it is, the other instances go on
            what = "%s#%d of session %r could not be run or stored; the sweep finds it again"
            _log.exception(what, hint.task, hint.number, hint.uid)
        finally:
            with self._changed:
                self._active -= 1
                if self._closed or not self._active:
                    self._changed.notify_all()

    def _next(self) -> ReadyInstance | None:
        """The next hint, waited for if need be; None once the pool is closed."""
        with self._changed:
            while not self._closed:
                if self._hints:
                    self._active += 1
                    return self._hints.popleft()
                wait = self._pull_at - time.monotonic()
                if self._dropped and not self._pulling and wait <= 0:
                    self._pull()
                else:
                    self._changed.wait(wait if self._dropped and not self._pulling else None)
            self._threads.discard(threading.current_thread())  # a `start` from now on needs another one
        return None

    def _pull(self) -> None:
        """Take hints from the storage; the lock is held before and after, and not while the storage works."""
        self._pulling, self._dropped = True, False
        self._changed.release()
        found: list[ReadyInstance] = []
        failed = False
        try:
            found = self._host.pull(self._room)
        except BaseException as error:  # noqa: BLE001 - whatever it is, the storage is asked again
            failed = True
            self._problems.report(
                "storage", PULL, error, "the storage could not be asked for work; it is asked again"
            )
        else:
            self._problems.resolve(PULL)
        finally:
            self._changed.acquire()
            self._pulling = False
            if failed:
                self._dropped, self._pull_at = True, time.monotonic() + PULL_PAUSE
            elif len(found) >= self._room:
                self._dropped = True
            self._hints.extend(found)
            self._changed.notify_all()
