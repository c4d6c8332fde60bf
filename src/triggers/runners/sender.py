"""Send items from a background thread, so that the caller never waits for a broker or a storage.

There is no guarantee: if an item is dropped here, or lost with the process, the sweep finds what it was for.
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

_Item = TypeVar("_Item", bound="Hashable")

#: The default number of items that are kept. Further ones are dropped.
ROOM = 10_000

#: The pauses before an item is sent again after a failure, in seconds. The last one is repeated.
BACKOFF = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0)

#: The time after which a send counts as hanging, in seconds. Another thread and connection replace its own.
DEADLINE = 10.0

#: How many replaced threads may hang at the same time. After that, nothing is sent until one of them ends.
MAX_HANGING = 3

#: How long a process waits for its last items at its end, in seconds.
AT_EXIT = 1.0

#: The thread and its connection end after this time without an item, in seconds.
IDLE = 60.0


class _Round:
    """One thread: since when it has been sending its current item, and whether it must end."""

    __slots__ = ("over", "since")

    def __init__(self) -> None:
        self.since: float | None = None
        self.over = False


class BackgroundSender(Generic[_Item]):
    """Keeps items, each once, and sends them in order.

    Args:
        what: what it sends and where, such as "hints to the broker", for messages.
        connect: makes a context manager for one connection. It returns a function that sends one item. Both
            may hang, and raise if the other side is unavailable; the item is then sent later. The function
            drops items that can never be sent.
        room: how many items are kept.
        deadline: how long sending an item may take, in seconds.

    Attributes:
        problems: where it is reported if no thread can be started.
    """

    def __init__(
        self,
        what: str,
        connect: Callable[[], AbstractContextManager[Callable[[_Item], object]]],
        room: int = ROOM,
        deadline: float = DEADLINE,
    ) -> None:
        self._what = what
        self._connect = connect
        self._room = room
        self._deadline = deadline
        self.problems: Problems = Problems()
        self.after_fork()
        reset_after_fork(self)
        _flush_at_exit(self)

    def after_fork(self) -> None:
        """Forget the items, the thread and the connection of the parent process."""
        self._changed = threading.Condition()
        self._items: dict[_Item, None] = {}
        self._round: _Round | None = None
        self._hanging: list[_Round] = []
        self._closed = False
        self._dropped = 0

    def submit(self, item: _Item) -> None:
        """Keep the item until it is sent. Drop it if it is kept already or there are too many."""
        with self._changed:
            if self._closed:
                return
            self._see_to_thread()
            if item in self._items:
                return
            if len(self._items) >= self._room:
                self._drop()
                return
            self._items[item] = None
            self._changed.notify_all()

    def open(self) -> None:
        """Accept items again after a :meth:`close`."""
        with self._changed:
            self._closed = False

    def is_idle(self) -> bool:
        """Return whether no item is waiting."""
        with self._changed:
            return not self._items

    def flush(self, timeout: float | None) -> bool:
        """Wait until everything is sent; return whether it was within the timeout."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._items, timeout)

    def close(self, timeout: float | None) -> bool:
        """Accept no more items; drop those not sent within the timeout. Return whether none was dropped."""
        delivered = self.flush(timeout)
        with self._changed:
            self._closed = True
            self._items.clear()
            self._changed.notify_all()
        return delivered

    def _drop(self) -> None:
        """Count a dropped item. Log it at the first, second, fourth, eighth … one."""
        self._dropped += 1
        if self._dropped.bit_count() == 1:
            what = "%d %s were dropped so far, because too many are waiting; the sweep finds their instances"
            _log.warning(what, self._dropped, self._what)

    def _see_to_thread(self) -> None:
        """Start a thread if there is none, or if it hangs. The caller holds the lock."""
        now, current = time.monotonic(), self._round
        if current is not None and current.since is not None and now - current.since > self._deadline:
            self._hanging = [one for one in self._hanging if one.since is not None]
            if len(self._hanging) >= MAX_HANGING:
                return
            what = "sending %s has taken more than %s s; another thread continues"
            _log.warning(what, self._what, self._deadline)
            current.over = True
            self._hanging.append(current)
            current = None
        if current is None:
            fresh = _Round()
            name = f"triggers-{self._what.partition(' ')[0]}"
            try:
                threading.Thread(target=self._loop, args=(fresh,), name=name, daemon=True).start()
            except RuntimeError as error:  # the system cannot start more threads
                self.problems.report("thread", f"the thread for {self._what}", error, "trying again later")
            else:
                self._round = fresh
                self.problems.resolve(f"the thread for {self._what}")

    # In the thread. Only its stack refers to the connection, so a forked child, which does not have the
    # thread, never closes the connection of its parent.

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
                    while (item := self._next(mine)) is not None:
                        mine.since = time.monotonic()
                        deliver(item)
                        self._delivered(mine, item)
                        pauses = _pauses()
            except Exception as error:  # noqa: BLE001 - whatever the error is, the item is sent again
                if not mine.over:
                    self._rest(mine, next(pauses), error)

    def _next(self, mine: _Round) -> _Item | None:
        """Wait for the next item, which is kept until it is sent; return None if this thread must end."""
        with self._changed:
            mine.since = None
            if not (self._items or self._closed or mine.over):
                self._changed.wait(IDLE)
            if self._items and not (self._closed or mine.over):
                return next(iter(self._items))
            self._end(mine)
            return None

    def _end(self, mine: _Round) -> None:
        """Let the next item start another thread. The caller holds the lock."""
        mine.over, mine.since = True, None
        if self._round is mine:
            self._round = None

    def _delivered(self, mine: _Round, item: _Item) -> None:
        with self._changed:
            if not mine.over:
                self._items.pop(item, None)
            if not self._items:
                self._changed.notify_all()

    def _rest(self, mine: _Round, pause: float, error: Exception) -> None:
        """Wait after a failure, but not after a `close`."""
        _log.warning("%s could not be sent; trying again in %s s: %r", self._what, pause, error)
        with self._changed:
            mine.since = None
            self._changed.wait_for(lambda: self._closed, pause)


def _pauses() -> itertools.chain[float]:
    return itertools.chain(BACKOFF, itertools.repeat(BACKOFF[-1]))


def _flush_at_exit(sender: BackgroundSender[_Item]) -> None:
    """Send the last items at the end of the process, if the sender still exists then."""
    weak = WeakMethod(sender.flush)

    def last() -> None:
        flush = weak()
        if flush is not None:
            flush(AT_EXIT)

    atexit.register(last)
