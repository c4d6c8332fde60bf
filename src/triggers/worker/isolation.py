"""What runs in this process at the same time: several instances, or one suspect that may kill its process.

A crash is not charged to an instance that ran beside others, because any of them may have caused it. An
instance that was lost :data:`SUSPECTED_AT <triggers.core.decisions.SUSPECTED_AT>` times is a suspect. It runs
alone, so that another crash is its own.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from triggers.fork import reset_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

#: New work waits at most so long for what runs to end, so that a suspect can run, in seconds; it doubles each
#: time that this was not enough, up to so many times.
DRAIN = 10.0
LONGEST_DRAIN = 64

#: Whoever waits looks so often whether it is still to wait, in seconds.
LOOK = 0.5

#: So many suspects wait here for another one to end; the sweep brings further ones again.
POSTPONED = 1_000


class Ticket:
    """One run in this process; `is_over` says that its claim is lost, though the code may still run."""

    def __init__(self) -> None:
        self.is_over: Callable[[], bool] = lambda: False


class Isolation:
    """Lets runs into this process."""

    def __init__(self) -> None:
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Nothing runs: what ran is the parent's."""
        self._changed = threading.Condition()
        self._here = threading.local()
        self._running: set[Ticket] = set()
        self._waiting = 0
        self._alone: Ticket | None = None
        self._is_draining = False
        self._tries: dict[Hashable, int] = {}
        self._postponed: dict[Hashable, Callable[[], None]] = {}

    @contextmanager
    def together(self, is_cancelled: Callable[[], bool]) -> Iterator[Ticket | None]:
        """Run beside others, once nobody runs alone here; None if that was cancelled.

        Within another run of the same thread it is part of that one.
        """
        outer: Ticket | None = getattr(self._here, "ticket", None)
        if outer is not None:
            yield Ticket()
            return
        ticket = Ticket()
        with self._changed:
            self._waiting += 1
            try:
                entered = self._wait(self._is_open, is_cancelled, None)
            finally:
                self._waiting -= 1
                self._changed.notify_all()
            if entered:
                self._running.add(ticket)
        if not entered:
            yield None
            return
        try:
            self._here.ticket = ticket
            yield ticket
        finally:
            self._here.ticket = None
            with self._changed:
                self._running.discard(ticket)
                self._changed.notify_all()

    @contextmanager
    def alone(
        self, key: Hashable, again: Callable[[], None], is_cancelled: Callable[[], bool]
    ) -> Iterator[Ticket | None]:
        """Run with nobody beside; None if another suspect does or what runs does not end soon enough.

        Meanwhile new runs wait.

        Args:
            key: names what is to run.
            again: called when another suspect was in the way, and has ended.
            is_cancelled: whether it is to be given up.
        """
        ticket = self._enter_alone(key, again, is_cancelled)
        if ticket is None:
            yield None
            return
        try:
            self._here.ticket = ticket
            yield ticket
        finally:
            self._here.ticket = None
            self._leave_alone(ticket)

    def _enter_alone(
        self, key: Hashable, again: Callable[[], None], is_cancelled: Callable[[], bool]
    ) -> Ticket | None:
        with self._changed:
            if getattr(self._here, "ticket", None) is not None:
                return None
            if not self._is_open():
                if len(self._postponed) < POSTPONED:
                    self._postponed[key] = again
                return None
            self._is_draining = True
            tries = self._tries.get(key, 0)
            limit = DRAIN * min(2**tries, LONGEST_DRAIN)
            try:
                if not self._wait(self._is_empty, is_cancelled, limit):
                    self._tries[key] = tries + 1
                    return None
                self._tries.pop(key, None)
                self._alone = Ticket()
                return self._alone
            finally:
                self._is_draining = False
                self._changed.notify_all()

    def _leave_alone(self, ticket: Ticket) -> None:
        with self._changed:
            if self._alone is ticket:
                self._alone = None
            self._changed.notify_all()
        self.bring_next()

    def bring_next(self) -> None:
        """Have the next suspect that was postponed brought again, if nothing is in its way."""
        with self._changed:
            following = next(iter(self._postponed), None)
            if following is None or not self._is_open():
                return
            again = self._postponed.pop(following)
        again()

    def _is_open(self) -> bool:
        """Whether runs may begin."""
        return not self._is_draining and (self._alone is None or self._alone.is_over())

    def _is_empty(self) -> bool:
        """Whether nothing runs here whose claim still holds."""
        return all(ticket.is_over() for ticket in self._running)

    def _wait(
        self, condition: Callable[[], bool], is_cancelled: Callable[[], bool], limit: float | None
    ) -> bool:
        until = None if limit is None else time.monotonic() + limit
        while not condition():
            left = LOOK if until is None else min(LOOK, until - time.monotonic())
            if left <= 0 or is_cancelled():
                return False
            self._changed.wait(left)
        return True


#: What holds for the whole process.
isolation = Isolation()
