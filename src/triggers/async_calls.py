"""Runs blocking methods for coroutines, on threads that are not those of asyncio's default executor.

The default executor belongs to the application: whatever blocks it would delay a firing, and the other way
round.
"""

from __future__ import annotations

import contextvars
import logging
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from triggers.fork import reset_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future, ThreadPoolExecutor

R = TypeVar("R")

_log = logging.getLogger(__name__)

#: The greatest number of threads of one depth.
THREADS: Final = 16

#: How many calls, each running because of the one before, the current code is inside of.
_depth: contextvars.ContextVar[int] = contextvars.ContextVar("triggers_async_depth", default=0)


class AsyncCalls:
    """The threads of one application. They start when they are needed, also in a forked process.

    A call can wait for another one that it has caused: a task that runs inline fires from a coroutine. So
    that all threads cannot wait for one another, calls of each depth have their own threads.
    """

    def __init__(self) -> None:
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Forget the threads of the parent process."""
        self._lock = threading.Lock()
        self._pools: dict[int, ThreadPoolExecutor] = {}

    async def run(self, what: str, call: Callable[[], R]) -> R:
        """Run the call on a thread, in a copy of the current context, and return what it returns.

        If this is cancelled before the call has begun, it never begins. Otherwise the call continues, and the
        log says how it has ended. A note on the CancelledError says which of the two happened.

        Args:
            what: what the call does, as the beginning of a sentence.
            call: what to run.

        Raises:
            RuntimeError: no thread can be started, or the interpreter shuts down. The call never begins.
        """
        import asyncio  # noqa: PLC0415 - its import is slow, and a process with an event loop has imported it

        future = self._submit(what, call)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError as cancelled:
            if future.cancel():
                cancelled.add_note(f"{what} had not begun; nothing was changed.")
            else:
                cancelled.add_note(f"{what} had begun and continues; the log says how it ends.")
                future.add_done_callback(partial(_log_end, what))
            raise

    def _submit(self, what: str, call: Callable[[], R]) -> Future[R]:
        from concurrent.futures import Future, ThreadPoolExecutor  # noqa: PLC0415 - most processes do not need it

        depth, context = _depth.get(), contextvars.copy_context()
        context.run(_depth.set, depth + 1)
        future: Future[R] = Future()
        with self._lock:
            pool = self._pools.get(depth)
            if pool is None:
                pool = self._pools[depth] = ThreadPoolExecutor(THREADS, f"triggers-async-{depth}")
            try:
                pool.submit(_run, future, partial(context.run, call))
            except RuntimeError as error:  # the pool can have the call in its queue all the same
                if future.cancel():
                    error.add_note(f"{what} had not begun, and never begins; nothing was changed.")
                    raise
        return future

    def close(self) -> None:
        """End the threads, after what they run or will run. Later calls start new ones."""
        with self._lock:
            pools, self._pools = self._pools, {}
        for pool in pools.values():
            pool.shutdown(wait=False)


def _run(future: Future[R], call: Callable[[], R]) -> None:
    """Run the call unless its future was cancelled, and give its future what it returns or raises."""
    if not future.set_running_or_notify_cancel():
        return
    try:
        future.set_result(call())
    except BaseException as error:  # noqa: BLE001 - raised again where the result is awaited
        future.set_exception(error)
        del future  # the traceback of the error refers to this frame


def _log_end(what: str, future: Future[Any]) -> None:
    error = future.exception()
    if error is None:
        _log.warning("%s was cancelled after it had begun; it has ended, and its change is stored", what)
    else:
        _log.error("%s was cancelled after it had begun, and has failed", what, exc_info=error)
