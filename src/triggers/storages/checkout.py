"""Checkouts: which code uses which connection of a pool, recorded so that an interrupt cannot lose it.

A signal handler can raise an exception between any two instructions of the main thread: KeyboardInterrupt, a
soft time limit, the timeout of a test. Another thread can raise one in any thread. ``with lock:`` and ``try``
do not cover every instruction: one lies between the acquisition of a lock and the ``try``, one at the start
of every ``__exit__``, and some within every ``finally``. Three rules cover them:

1. Use is recorded by one operation on a dictionary, which names the user. There is no third state between
   "free" and "used by this checkout".
2. Users check in in a ``finally`` within a ``finally``. Checking in twice does nothing, so one interrupt
   cannot prevent it.
3. If an interrupt still leaves a checkout behind, the next user finds it. A checkout is over when the frame
   of the function that made it has ended. Its connection is then closed, which also ends its transaction.

The third rule depends neither on the end of a thread nor on garbage collection. So it also works in an
``except KeyboardInterrupt:`` block, whose traceback keeps all objects alive, and with greenlets.
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

#: A waiting user checks again after this time, even without a notification, in seconds.
RECHECK: Final = 0.05

#: The pause between two attempts to close a connection that is in use, in seconds.
LOOK: Final = 0.001

#: Frames of this file, and of generators, end before the block that they guard ends.
_GUARDS: Final = contextlib.__file__


class Checkout:
    """One use of a pool, by the function that made this object.

    Args:
        depth: how many calls lie between that function and this object.

    Attributes:
        thread: the identifier of its thread, or of its greenlet.
        is_checked_in: whether everything that it used has been released.
        heir: the checkout that cleans up after it, if it was interrupted.
    """

    is_checked_in = False

    def __init__(self, depth: int = 0) -> None:
        self.thread: int = threading.get_ident()
        frame: FrameType | None = sys._getframe(depth + 1)  # noqa: SLF001 - a documented function
        while frame and (frame.f_code.co_flags & inspect.CO_GENERATOR or frame.f_code.co_filename == _GUARDS):
            frame = frame.f_back
        self._frame = frame

    def end(self) -> None:
        """Mark the checkout as over: it uses nothing any longer."""
        self._frame = None

    def is_over(self) -> bool:
        """Whether its function has ended. After an interrupt, this also clears the variables of its frame."""
        frame = self._frame
        if frame is None:
            return True
        try:
            frame.clear()  # raises for a frame that runs, or is suspended in a greenlet
        except RuntimeError:
            return False
        return True

    def inherits_from(self, other: Checkout) -> bool:
        """Whether this checkout cleans up after one that is over; true for exactly one at a time."""
        while True:
            heir = vars(other).setdefault("heir", self)
            if heir is self:
                return True
            if not heir.is_over():
                return False
            other = heir  # it was interrupted, too


class Reservation(Checkout):
    """All places of a pool, during a fork. It ends by itself if it is not ended before.

    Args:
        until: the monotonic time at which it ends.
    """

    def __init__(self, until: float) -> None:
        super().__init__()
        self.until = until

    def is_over(self) -> bool:
        """Whether its time is over, or its thread uses the pool again, which means that the fork is over."""
        return time.monotonic() > self.until or self.thread == threading.get_ident()


class Checkouts(Generic[T]):
    """At most `size` connections, each of them used by one checkout at a time.

    Args:
        size: the largest number of open connections.
        clean: prepares a connection for the next user; returns whether this succeeded.
        close: closes a connection; raises no exception.
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
        """All open connections, idle or in use."""
        return [connection for _, connection in list(self._open.values())]

    @property
    def idle(self) -> list[T]:
        """The open connections that are not in use."""
        return [kept for place, (_, kept) in list(self._open.items()) if place not in self._held]

    @property
    def users(self) -> list[Checkout]:
        """The checkouts that use a connection now, or open one."""
        return [user for place, user in list(self._held.items()) if place in self._places]

    def holder(self, name: str) -> Checkout | None:
        """The checkout that holds the lock of this name, None if it is free."""
        return self._held.get(name)

    def lock(self, name: str, user: Checkout, until: float) -> bool:
        """Acquire the lock of this name; returns whether this succeeded by that monotonic time."""
        return self._take((name,), user, until) is not None

    def check_out(
        self, user: Checkout, until: float, connect: Callable[[Callable[[T], None]], object]
    ) -> T | None:
        """A connection, opened if necessary; None if all stay in use until that monotonic time.

        Args:
            user: the checkout that will use it.
            until: the monotonic time at which waiting times out.
            connect: opens a connection, and passes it to its argument as soon as it must be closed later.
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

    def check_out_idle(self, user: Checkout, lock: str | None = None) -> T | None:
        """A connection, and the lock of this name, in the usual case that the pool is not used at all.

        Otherwise it returns None. The user can then have the lock already, which :meth:`lock` accepts.
        """
        held, place = self._held, 0
        kept = self._open.get(place)
        if held or kept is None or kept[0] is not self._generation or self._reservation is not None:
            return None
        if lock is not None and held.setdefault(lock, user) is not user:
            return None
        if held.setdefault(place, user) is not user:
            return None
        if self._open.get(place) is kept:
            return kept[1]
        self._release(place)  # another thread was faster, and has closed the connection
        return None

    def return_one(self, user: Checkout, connection: T) -> None:
        """Release this connection of the user, and nothing else that the user has."""
        for place, (_, kept) in list(self._open.items()):
            if kept is connection and self._held.get(place) is user:
                self._release(place)

    def check_in(self, user: Checkout) -> None:
        """Release everything that the user has; a second call does nothing."""
        held = self._held
        for key in reversed(list(held)):
            if held.get(key) is user:
                self._release(key)
        user.is_checked_in = True

    def _release(self, key: Any) -> None:
        kept = self._open.get(key)
        if kept is not None and not (kept[0] is self._generation and self._clean(kept[1])):
            self._discard(key)
        self._held.pop(key, None)
        if self._waiting:
            self._wake(key)

    def close(self) -> None:
        """Close the idle connections now, and those in use when they are checked in."""
        self._generation = object()
        self.drain(0)

    def drain(self, until: float, user: Checkout | None = None) -> None:
        """Close every connection; wait for those in use by other threads until that monotonic time."""
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
                return  # this thread would wait for itself
            time.sleep(LOOK)
        self._discard(place)

    def reserve(self, until: float, lasts: float) -> None:
        """Close every connection, and refuse new ones for `lasts` seconds, or until :meth:`unreserve`."""
        previous, self._reservation = self._reservation, Reservation(until + lasts)
        if previous is not None:
            self.check_in(previous)
        self.drain(until, self._reservation)

    def unreserve(self) -> None:
        """Allow connections again, as before :meth:`reserve`."""
        reservation, self._reservation = self._reservation, None
        if reservation is not None:
            self.check_in(reservation)

    def _discard(self, place: Any) -> None:
        kept = self._open.get(place)
        if kept is not None:
            self._close(
                kept[1]
            )  # first: after an interrupt here, the connection is closed and is not used again
            self._open.pop(place, None)

    def _take(self, keys: Sequence[Any], user: Checkout, until: float) -> Any:
        """Acquire the first free one of the keys; None if none was free by that time."""
        key = self._try(keys, user)
        if key is not None:
            return key
        waiting = self._waiting[type(keys[0])]
        while key is None:
            waiter = threading.Lock()
            waiter.acquire()
            waiting.append(waiter)
            try:
                key = self._try(keys, user)  # it can have become free before this waiter was registered
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
        """Release what interrupted users still hold."""
        for key, holder in list(self._held.items()):
            if holder is user or not (holder.is_over() and user.inherits_from(holder)):
                continue
            if (
                self._held.get(key) is holder
            ):  # otherwise it was checked in meanwhile, and can be in use again
                self._discard(key)
                self._held.pop(key, None)
                self._wake(key)

    def _wake(self, key: Any) -> None:
        waiting = self._waiting[type(key)]
        if waiting:
            with contextlib.suppress(IndexError):  # another thread was faster
                waiting.popleft().release()
