"""Checkouts: who uses which connection of a pool, in a form that an interrupt cannot lose.

A signal handler can raise an exception between any two instructions of the main thread: KeyboardInterrupt, a
soft time limit, a test's timeout. Another thread can raise one anywhere, too. ``with lock:`` and ``try`` do
not cover every such place: there is one between a lock's acquisition and the ``try``, one at the start of
every ``__exit__``, and some within every ``finally``. Three rules make up for that:

1. What is in use is recorded by one operation on a dictionary, which names the user. Between "not taken" and
   "taken by this checkout" there is no third state.
2. Users check in in a ``finally`` within a ``finally``. Checking in twice does nothing, so one interrupt
   cannot prevent it.
3. What an interrupt leaves behind nevertheless is found by the next user. A checkout is over when the frame
   of the function that made it has ended. Its connection is then closed, which also ends its transaction.

The third rule depends neither on the death of a thread nor on garbage collection, so it also works in an
``except KeyboardInterrupt:`` block, whose traceback keeps everything alive, and for greenlets.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
import time
from collections import defaultdict, deque
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType

T = TypeVar("T")

#: Who waits looks again after so many seconds, even if nobody woke it.
RECHECK: Final = 0.05

#: Who waits to close connections looks as often, in seconds.
LOOK: Final = 0.001

#: Frames of these files, and of generators, end before the block that they guard does.
_GUARDS: Final = contextlib.__file__


class Checkout:
    """One use of a pool, by the function that made this object.

    Attributes:
        thread: the identifier of its thread, or of its greenlet.
        heir: who cleans up after it, if it was interrupted.
    """

    def __init__(self) -> None:
        self.thread = threading.get_ident()
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - a documented function
        while frame and (frame.f_code.co_flags & inspect.CO_GENERATOR or frame.f_code.co_filename == _GUARDS):
            frame = frame.f_back
        self._frame = frame

    def end(self) -> None:
        """Nothing is in use any more."""
        self._frame = None

    def is_over(self) -> bool:
        """Whether its function has ended. If it has, and was interrupted, the frame loses its variables."""
        frame = self._frame
        if frame is None:
            return True
        try:
            frame.clear()  # a frame that runs, or is suspended in a greenlet, refuses
        except RuntimeError:
            return False
        return True

    def inherits_from(self, other: Checkout) -> bool:
        """Whether it is up to this one to clean up after one that is over; true for exactly one at a time."""
        while True:
            heir = vars(other).setdefault("heir", self)
            if heir is self:
                return True
            if not heir.is_over():
                return False
            other = heir  # interrupted, too


class Reservation(Checkout):
    """Every place of a pool, for the time of a fork: it ends by itself where nobody ends it.

    Args:
        until: the monotonic time at which it ends.
    """

    def __init__(self, until: float) -> None:
        super().__init__()
        self.until = until

    def is_over(self) -> bool:
        """Whether its time is up, or its thread is done with the fork, as it uses the pool again."""
        return time.monotonic() > self.until or self.thread == threading.get_ident()


class Checkouts(Generic[T]):
    """At most `size` connections, each of them used by one checkout at a time.

    Args:
        size: how many connections may be open.
        clean: makes a connection ready for the next user; returns whether it is. Called before it is kept.
        close: closes a connection; raises nothing.
    """

    def __init__(self, size: int, clean: Callable[[T], bool], close: Callable[[T], None]) -> None:
        self._places = range(size)
        self._clean = clean
        self._close = close
        self._held: dict[Any, Checkout] = {}
        self._open: dict[int, tuple[object, T]] = {}
        self._waiting: defaultdict[type, deque[Any]] = defaultdict(deque)
        self._generation = object()
        self._reservation: Reservation | None = None

    @property
    def connections(self) -> list[T]:
        """All that are open."""
        return [connection for _, connection in list(self._open.values())]

    @property
    def idle(self) -> list[T]:
        """Those that are open and not in use."""
        return [kept for place, (_, kept) in list(self._open.items()) if place not in self._held]

    @property
    def users(self) -> list[Checkout]:
        """Who uses a connection now, or opens one."""
        return [user for place, user in list(self._held.items()) if place in self._places]

    def holder(self, name: str) -> Checkout | None:
        """Who has the lock of that name."""
        return self._held.get(name)

    def lock(self, name: str, user: Checkout, until: float) -> bool:
        """Take the lock of that name; returns whether it was free by that monotonic time."""
        return self._take((name,), user, until) is not None

    def check_out(
        self, user: Checkout, until: float, connect: Callable[[Callable[[T], None]], object]
    ) -> T | None:
        """A connection, opened if need be; None if all stay in use until that monotonic time.

        Args:
            user: who uses it.
            until: how long to wait.
            connect: opens one; gives it to the function that it gets as soon as there is something to close.
        """
        place = self._take(self._places, user, until)
        if place is None:
            return None
        generation, connection = self._open.get(place, (None, None))
        if connection is not None and generation is self._generation:
            return connection
        self._discard(place)
        began_in = self._generation
        connect(lambda made: self._open.__setitem__(place, (began_in, made)))
        return self._open[place][1]

    def return_one(self, user: Checkout, connection: T) -> None:
        """Release this connection, and keep what else the user has."""
        for place, (_, kept) in list(self._open.items()):
            if kept is connection and self._held.get(place) is user:
                self._release(place)

    def check_in(self, user: Checkout) -> None:
        """Release all that the user has; a second call does nothing."""
        if self._held:
            for key in [key for key, holder in reversed(list(self._held.items())) if holder is user]:
                self._release(key)

    def _release(self, key: Any) -> None:
        kept = self._open.get(key)
        if kept is not None and not (kept[0] is self._generation and self._clean(kept[1])):
            self._discard(key)
        self._held.pop(key, None)
        self._wake(key)

    def close(self) -> None:
        """Close the idle connections now, and those in use when they are checked in."""
        self._generation = object()
        self.drain(0)

    def drain(self, until: float, user: Checkout | None = None) -> None:
        """Close every connection, waiting for those that other threads use until that monotonic time."""
        drains = user or Checkout()
        try:
            for place in self._places:
                if user or place in self._open or place in self._held:
                    self._drain(place, drains, until)
        finally:
            if user is None:
                self.check_in(drains)
                drains.end()

    def _drain(self, place: int, user: Checkout, until: float) -> None:
        while (holder := self._held.setdefault(place, user)) is not user:
            self._heal(user)
            if holder.thread == user.thread or time.monotonic() >= until:
                return  # it would wait for itself
            time.sleep(LOOK)
        self._discard(place)

    def reserve(self, until: float, lasts: float) -> None:
        """Close every connection, and let none be opened for so many seconds, or until :meth:`unreserve`."""
        previous, self._reservation = self._reservation, Reservation(until + lasts)
        if previous is not None:
            self.check_in(previous)
        self.drain(until, self._reservation)

    def unreserve(self) -> None:
        """Go on as before :meth:`reserve`."""
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            self.check_in(reservation)

    def _discard(self, place: Any) -> None:
        kept = self._open.get(place)
        if kept is not None:
            self._close(kept[1])  # first: an interrupt after it finds a closed one, which nobody is given
            self._open.pop(place, None)

    def _take(self, keys: Sequence[Any], user: Checkout, until: float) -> Any:
        """The first free one of the keys; None if there was none by that time."""
        key = self._try(keys, user)
        if key is not None:
            return key
        waiting = self._waiting[type(keys[0])]
        while key is None:
            waiter = threading.Lock()
            waiter.acquire()
            waiting.append(waiter)
            try:
                key = self._try(keys, user)  # it may have become free before anybody knew whom to wake
                rest = until - time.monotonic()
                if key is not None or rest <= 0:
                    return key
                waiter.acquire(timeout=min(rest, RECHECK))
            finally:
                with contextlib.suppress(ValueError):
                    waiting.remove(waiter)
            key = self._try(keys, user)
        return key

    def _try(self, keys: Sequence[Any], user: Checkout) -> Any:
        if self._held:
            self._heal(user)
        reservation = self._reservation
        if reservation is not None and keys is self._places and not reservation.is_over():
            return None
        for key in keys:
            if self._held.setdefault(key, user) is user:
                return key
        return None

    def _heal(self, user: Checkout) -> None:
        """Release what interrupted users have left behind."""
        for key, holder in list(self._held.items()):
            if holder is user or not (holder.is_over() and user.inherits_from(holder)):
                continue
            if self._held.get(key) is holder:  # else it was checked in meanwhile, and may be in use again
                self._discard(key)
                self._held.pop(key, None)
                self._wake(key)

    def _wake(self, key: Any) -> None:
        waiting = self._waiting[type(key)]
        if waiting:
            with contextlib.suppress(IndexError):  # another thread was faster
                waiting.popleft().release()
