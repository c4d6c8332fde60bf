"""A courier: delivers things from a thread of its own, so that nobody waits for a broker or a storage.

It is a convenience and no promise. What is dropped here, or lost with the process, is found by the sweep.
"""

from __future__ import annotations

import atexit
import itertools
import logging
import threading
import time
from typing import TYPE_CHECKING, Generic, TypeVar
from weakref import WeakMethod

from triggers.fork import reset_after_fork
from triggers.health import Problems

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable
    from contextlib import AbstractContextManager

_log = logging.getLogger(__name__)

_Thing = TypeVar("_Thing", bound="Hashable")

#: Things kept, unless told otherwise; further ones are dropped.
ROOM = 10_000

#: Pauses before a delivery that failed is tried again, in seconds; then the last one, again and again.
BACKOFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

#: A delivery that takes longer is given up, with its thread and its connection, in seconds.
DEADLINE = 10.0

#: So many threads that were given up may hang at the same time; then nothing goes until one of them ends.
GIVEN_UP = 3

#: At the end of a process, deliveries are waited for so long, in seconds.
AT_EXIT = 1.0

#: The thread, and its connection, ends when there was nothing to deliver for so long, in seconds.
IDLE = 60.0


class _Round:
    """One thread: since when it has been busy with its present thing, and whether it is over with it."""

    __slots__ = ("over", "since")

    def __init__(self) -> None:
        self.since: float | None = None
        self.over = False


class BackgroundSender(Generic[_Thing]):
    """Keeps things, each once, and delivers them in their order.

    Args:
        what: what it delivers, and to whom, as in "hints to the broker".
        connect: makes a context of one connection, which gives a function that delivers one thing. Both raise
            if the other side is away, and the thing is delivered later; both may hang. What can never be
            delivered the function drops itself.
        room: how many things are kept.
        deadline: how long a delivery may take, in seconds.

    Attributes:
        problems: where it is noted that no thread can be started.
    """

    def __init__(
        self,
        what: str,
        connect: Callable[[], AbstractContextManager[Callable[[_Thing], object]]],
        room: int = ROOM,
        deadline: float = DEADLINE,
    ) -> None:
        self._what = what
        self._connect = connect
        self._room = room
        self._deadline = deadline
        self.problems = Problems()
        self.after_fork()
        reset_after_fork(self)
        _flush_at_exit(self)

    def after_fork(self) -> None:
        """Begin without a thread: what there is to deliver is the parent's, and so is its connection."""
        self._changed = threading.Condition()
        self._things: dict[_Thing, None] = {}
        self._round: _Round | None = None
        self._hanging: list[_Round] = []
        self._closed = False
        self._dropped = 0

    def submit(self, thing: _Thing) -> None:
        """Keep the thing until it is delivered, or drop it if there are enough, or it is here already."""
        with self._changed:
            if self._closed:
                return
            self._see_to_thread()
            if thing in self._things:
                return
            if len(self._things) >= self._room:
                self._drop()
                return
            self._things[thing] = None
            self._changed.notify_all()

    def open(self) -> None:
        """Take things again after a :meth:`close`."""
        with self._changed:
            self._closed = False

    def is_idle(self) -> bool:
        """Whether everything was delivered."""
        with self._changed:
            return not self._things

    def flush(self, timeout: float | None) -> bool:
        """Wait until everything was delivered; returns whether it was in time."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._things, timeout)

    def close(self, timeout: float | None) -> bool:
        """Take nothing more, and drop what is not delivered in time; returns whether nothing was."""
        delivered = self.flush(timeout)
        with self._changed:
            self._closed = True
            self._things.clear()
            self._changed.notify_all()
        return delivered

    def _drop(self) -> None:
        """Drop something, and say so, less and less often."""
        self._dropped += 1
        if self._dropped.bit_count() == 1:
            what = "so far, %d %s were dropped: there is no room for more; the sweep finds what is not done"
            _log.warning(what, self._dropped, self._what)

    def _see_to_thread(self) -> None:
        """Begin a thread if there is none, or if it hangs; the lock is held."""
        now, current = time.monotonic(), self._round
        if current is not None and current.since is not None and now - current.since > self._deadline:
            self._hanging = [one for one in self._hanging if one.since is not None]
            if len(self._hanging) >= GIVEN_UP:
                return
            _log.warning("the delivery of %s hangs for %s s: it is given up", self._what, self._deadline)
            current.over = True
            self._hanging.append(current)
            current = None
        if current is None:
            fresh = _Round()
            name = f"triggers-{self._what.partition(' ')[0]}"
            try:
                threading.Thread(target=self._loop, args=(fresh,), name=name, daemon=True).start()
            except RuntimeError as error:  # the system has no thread left
                self.problems.report("thread", f"the thread for {self._what}", error, "a later one starts it")
            else:
                self._round = fresh
                self.problems.resolve(f"the thread for {self._what}")

    # In the thread. Its connection is a variable of its own: a forked child, where the thread is not, never
    # closes what is the parent's.

    def _loop(self, mine: _Round) -> None:
        try:
            self._deliver_all(mine)
        finally:
            with self._changed:
                self._end(mine)

    def _deliver_all(self, mine: _Round) -> None:
        pauses = _pauses()
        while self._next(mine) is not None:
            mine.since = time.monotonic()
            try:
                with self._connect() as deliver:
                    while (thing := self._next(mine)) is not None:
                        mine.since = time.monotonic()
                        deliver(thing)
                        self._delivered(mine, thing)
                        pauses = _pauses()
            except Exception as error:  # noqa: BLE001 - whatever it is, it is tried again
                if not mine.over:
                    self._rest(mine, next(pauses), error)

    def _next(self, mine: _Round) -> _Thing | None:
        """The next thing, which stays where it is until it is delivered; None if this thread is to end."""
        with self._changed:
            mine.since = None
            if not (self._things or self._closed or mine.over):
                self._changed.wait(IDLE)
            if self._things and not (self._closed or mine.over):
                return next(iter(self._things))
            self._end(mine)
            return None

    def _end(self, mine: _Round) -> None:
        """What is submitted from now on needs another thread; the lock is held."""
        mine.over, mine.since = True, None
        if self._round is mine:
            self._round = None

    def _delivered(self, mine: _Round, thing: _Thing) -> None:
        with self._changed:
            if not mine.over:
                self._things.pop(thing, None)
            if not self._things:
                self._changed.notify_all()

    def _rest(self, mine: _Round, pause: float, error: Exception) -> None:
        """Wait after a failure, though not once it is closed."""
        _log.warning("%s could not be delivered; it is tried again in %s s: %r", self._what, pause, error)
        with self._changed:
            mine.since = None
            self._changed.wait_for(lambda: self._closed, pause)


def _pauses() -> itertools.chain[float]:
    return itertools.chain(BACKOFF, itertools.repeat(BACKOFF[-1]))


def _flush_at_exit(courier: BackgroundSender[_Thing]) -> None:
    """Give it a moment at the end of the process, if it lives until then."""
    weak = WeakMethod(courier.flush)

    def last() -> None:
        flush = weak()
        if flush is not None:
            flush(AT_EXIT)

    atexit.register(last)
