"""A thread of a process that acts on items when they are due, such as claims that must be renewed."""

from __future__ import annotations

import logging
import threading
import time
from typing import TYPE_CHECKING, ClassVar, Generic, Protocol, TypeVar

from triggers.fork import reset_after_fork
from triggers.health import Problems

if TYPE_CHECKING:
    from triggers.health import Vital

#: The thread ends after this time without an item, in seconds.
IDLE = 10.0

#: The pause after an unexpected error, or if a thread cannot be started, in seconds.
ERROR_PAUSE = 0.1


class Item(Protocol):
    """What the thread acts on when it is due."""

    @property
    def due_at(self) -> float:
        """When it is due: a monotonic time of this process, in seconds."""
        ...


ItemT = TypeVar("ItemT", bound=Item)


class DueThread(Generic[ItemT]):
    """Acts on items when they are due, in a thread that starts with the first item.

    The thread ends after a while without an item, and starts again with the next one. It survives every
    exception. If it dies anyway, another thread replaces it. A forked process starts without items.

    Args:
        problems: where problems are reported.
    """

    #: The name of the thread, and its place among the problems.
    name: ClassVar[str]
    place: ClassVar[str]
    #: The place of unexpected errors.
    work: ClassVar[str]
    #: What it means that the thread cannot start, and the level at which that is logged.
    without: ClassVar[str]
    without_level: ClassVar[int] = logging.ERROR

    def __init__(self, problems: Problems | None = None) -> None:
        self._problems = Problems() if problems is None else problems
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Forget the items, which belong to the parent process."""
        self._wake = threading.Condition()
        self._items: set[ItemT] = set()
        self._thread: threading.Thread | None = None
        self._idle = IDLE
        self._looks_at = 0.0

    def act(self, due: list[ItemT]) -> None:
        """Do what these items are due for, in the thread. Each must be due later afterwards, or dropped."""
        raise NotImplementedError

    def open(self) -> None:
        """Let the thread wait for further items, also again after a :meth:`close`."""
        with self._wake:
            self._idle = IDLE

    def is_ready(self) -> bool:
        """Start the thread if it does not run; return whether it runs."""
        with self._wake:
            return self._has_thread()

    def add(self, item: ItemT) -> bool:
        """Act on this item when it is due, until :meth:`drop`.

        Returns:
            Whether the item was added. It was not if no thread can be started.
        """
        with self._wake:
            self._items.add(item)
            if not self._has_thread():
                self._items.discard(item)
                return False
            if item.due_at < self._looks_at:
                self._wake.notify()
            return True

    def drop(self, item: ItemT) -> None:
        """Forget this item. A second call does nothing."""
        with self._wake:
            self._items.discard(item)

    @property
    def items(self) -> list[ItemT]:
        """The items that were added and not dropped."""
        with self._wake:
            return list(self._items)

    @property
    def vital(self) -> Vital:
        """Whether the thread runs, waits for an item to start, or has died."""
        with self._wake:
            if self._thread is not None and self._thread.is_alive():
                return "alive"
            return "dead" if self._items else "idle"

    def tend(self) -> None:
        """Start the thread again if it has died and there are items."""
        with self._wake:
            if self._items:
                self._has_thread()

    def close(self) -> None:
        """Let the thread end as soon as there is no item."""
        with self._wake:
            self._idle = 0.0
            self._wake.notify()

    # the thread

    def _has_thread(self) -> bool:
        """Start the thread if it does not run; return whether it runs. The caller holds the lock."""
        if self._thread is not None and self._thread.is_alive():
            return True
        thread = threading.Thread(target=self._loop, name=self.name, daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system cannot start more threads
            self._thread = None
            self._problems.report("thread", self.place, error, self.without, self.without_level)
            return False
        self._thread = thread
        self._problems.resolve(self.place)
        return True

    def _loop(self) -> None:
        try:
            while self._is_needed():
                pass
        finally:
            with self._wake:
                if self._thread is threading.current_thread():  # it died
                    self._thread = None
                    self._has_thread()

    def _is_needed(self) -> bool:
        """Wait for due items and act on them; return whether the thread must continue."""
        try:
            due = self._wait()
            if due is not None:
                self.act(due)
        except BaseException as error:  # noqa: BLE001 - whatever the error is, the other items must be acted on
            self._problems.report("thread", self.work, error, "trying again")
            time.sleep(ERROR_PAUSE)
            return True
        return due is not None

    def _wait(self) -> list[ItemT] | None:
        """Wait until an item may be due; return the due items, or None if the thread must end."""
        with self._wake:
            now = time.monotonic()
            self._looks_at = min((one.due_at for one in self._items), default=now + self._idle)
            woken = self._wake.wait(max(self._looks_at - now, 0.0))
            if not self._items and not (woken and self._idle):
                self._thread = None
                return None
            return [one for one in self._items if one.due_at <= time.monotonic()]
