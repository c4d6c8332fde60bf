"""Run instances in a pool of threads of this process. This is the default runner."""

from __future__ import annotations

import logging
import math
import os
import threading
import time
from collections import deque
from typing import TYPE_CHECKING
from weakref import WeakSet

from triggers.fork import reset_after_fork
from triggers.health import Problems

if TYPE_CHECKING:
    from triggers.runners.base import RunnerHost
    from triggers.storages.base import ReadyInstance

_log = logging.getLogger(__name__)

#: The default number of threads.
WORKERS = min(32, (os.cpu_count() or 1) + 4)

#: How many hints are kept for each thread. Further ones are dropped, and taken from the storage later.
HINTS = 64

#: The pause after the storage could not be asked, or a thread could not start, in seconds.
PULL_PAUSE = 1.0

#: The places of the pool's problems.
THREADS = "the threads of the pool"
PULL = "asking the storage for work"

#: The pools of this process that were started and are not closed.
_OPEN: WeakSet[ThreadsRunner] = WeakSet()
_OPEN_LOCK = threading.Lock()


def _left(until: float) -> float | None:
    """Return the time until that monotonic time, in seconds; None if it never comes."""
    return None if until == math.inf else max(until - time.monotonic(), 0.0)


class ThreadsRunner:
    """A pool of threads. It starts with the first hint, also in a forked process.

    A thread that could not start, or has died, is started again with a later hint, or by the sweep. `submit`
    never blocks: if the pool has as many hints as it keeps, it drops further ones. When it has no hints left,
    it takes due instances from the storage.

    Args:
        workers: the number of threads.
        hints: the greatest number of hints that are kept; 64 for each thread by default.
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
        """Forget the threads and hints of the parent process."""
        lock = threading.RLock()
        self._changed = threading.Condition(lock)  # what the pool's threads wait for
        self._ended = threading.Condition(lock)  # what others wait for: that nothing runs any more
        self._hints: deque[ReadyInstance] = deque()
        self._threads: set[threading.Thread] = set()
        self._begin_at = 0.0
        self._active: set[threading.Thread] = set()  # those that run an instance or pull
        self._dropped = True  # instances can be due since before this process started
        self._pulling = False
        self._pull_at = 0.0
        self._closed = False

    def start(self, host: RunnerHost) -> None:
        """Accept hints from now on. After a `close`, also run what was released meanwhile."""
        with self._changed:
            self._host = host
            self._problems = getattr(host, "problems", self._problems)
            self._closed, self._dropped, self._begin_at = False, True, 0.0

        with _OPEN_LOCK:
            _OPEN.add(self)

    @classmethod
    def join_all(cls, timeout: float | None = None) -> bool:
        """Wait until nothing is scheduled or running in the storages of all open pools of this process.

        Instances that cascades release count, too, and so do retries that wait for their cooldown, and hooks
        of managers that still run in a pool.

        Args:
            timeout: how long to wait for each pool, in seconds; None for no limit.

        Returns:
            Whether nothing is left.

        Raises:
            ValueError: a thread of a pool calls this, so that it would wait for itself.
        """
        with _OPEN_LOCK:
            pools = list(_OPEN)
        joined = [pool._join(timeout) for pool in pools]  # noqa: SLF001 - of this class
        return all(joined)

    def _join(self, timeout: float | None) -> bool:
        if threading.current_thread() in self._threads:
            message = "join_all() was called by a task: it would wait for that task itself"
            raise ValueError(message)
        until = math.inf if timeout is None else time.monotonic() + timeout
        while self._host.join(_left(until)):
            if self.is_idle():
                return True
            with self._changed:
                if not self._ended.wait_for(self.is_idle, _left(until)):
                    break
        return False

    @property
    def threads(self) -> int:
        """The number of threads now."""
        with self._changed:
            return len(self._threads)

    def submit(self, due: ReadyInstance) -> None:
        """Keep the hint, or drop it if there are too many."""
        with self._changed:
            if self._closed:
                return
            if len(self._hints) < self._room:
                self._hints.append(due)
            else:
                self._dropped = True
            self._begin()
            self._changed.notify()

    def has_room(self) -> bool:
        """Return whether a thread is free for another hint."""
        with self._changed:
            return len(self._active) + len(self._hints) < self._size

    def tend(self) -> None:
        """Start missing threads if there is something to run."""
        with self._changed:
            if self._hints and not self._closed:
                self._begin()

    def is_idle(self) -> bool:
        """Return whether no thread runs anything or asks the storage, and no hint is waiting."""
        with self._changed:
            return not (self._active or self._hints)

    def close(self, timeout: float | None) -> bool:
        """Drop all hints and wait for what runs and for calls of the storage.

        A task that closes its own pool is not waited for.
        """
        own = {threading.current_thread()}
        with _OPEN_LOCK:
            _OPEN.discard(self)
        with self._changed:
            self._closed = True
            self._hints.clear()
            self._changed.notify_all()
            self._ended.notify_all()
            return self._ended.wait_for(lambda: self._active <= own, timeout)

    def _begin(self) -> None:
        """Start missing threads, unless that failed just before. The caller holds the lock."""
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
        except RuntimeError as error:  # the system cannot start more threads
            self._begin_at = time.monotonic() + PULL_PAUSE
            there = f"{len(self._threads)} of {self._size} threads run; the others are started later"
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
        except BaseException:  # noqa: BLE001 - whatever the error is, the other instances must run
            what = "%s#%d of session %r could not be run, or its outcome not stored; the sweep recovers it"
            _log.exception(what, hint.task, hint.number, hint.uid)
        finally:
            with self._changed:
                self._active.discard(threading.current_thread())
                if self._closed or not self._active:
                    self._ended.notify_all()

    def _next(self) -> ReadyInstance | None:
        """Wait for the next hint and return it; None if the pool is closed."""
        with self._changed:
            while not self._closed:
                if self._hints:
                    self._active.add(threading.current_thread())
                    return self._hints.popleft()
                wait = self._pull_at - time.monotonic()
                if self._dropped and not self._pulling and wait <= 0:
                    self._pull()
                else:
                    self._changed.wait(wait if self._dropped and not self._pulling else None)
            self._threads.discard(threading.current_thread())  # a later `start` needs another thread
        return None

    def _pull(self) -> None:
        """Take hints from the storage. The lock is held before and after, but not during the call."""
        self._pulling, self._dropped = True, False
        self._active.add(threading.current_thread())
        self._changed.release()
        found: list[ReadyInstance] = []
        failed = False
        try:
            found = self._host.pull(self._room)
        except BaseException as error:  # noqa: BLE001 - whatever the error is, the storage is asked again
            failed = True
            self._problems.report("storage", PULL, error, "due instances could not be read; trying again")
        else:
            self._problems.resolve(PULL)
        finally:
            self._changed.acquire()
            self._pulling = False
            self._active.discard(threading.current_thread())
            if failed:
                self._dropped, self._pull_at = True, time.monotonic() + PULL_PAUSE
            elif len(found) >= self._room:
                self._dropped = True
            if not self._closed:  # after a `start`, they are found again
                self._hints.extend(found)
            self._changed.notify_all()
            self._ended.notify_all()
