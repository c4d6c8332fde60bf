"""What runs in this process at the same time: several instances, or one suspect that may kill its process.

A crash is not charged to an instance that ran beside others, because any of them may have caused it. An
instance that was lost :data:`SUSPECTED_AT <triggers.core.decisions.SUSPECTED_AT>` times is a suspect. It runs
alone, so that another crash is its own.
"""

from __future__ import annotations

import math
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from triggers.fork import reset_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

#: How long a suspect waits for the running instances to end, in seconds. New ones do not start meanwhile.
#: Each time that this is not enough, the limit doubles, up to this multiple.
DRAIN = 10.0
LONGEST_DRAIN = 64

#: How often a waiting thread checks whether it must still wait, in seconds.
LOOK = 0.5

#: How many suspects are remembered while another one runs. The sweep dispatches further ones again.
POSTPONED = 1_000


class Ticket:
    """One run in this process. If `is_over` returns True, its claim is lost, but its code may still run."""

    def __init__(self) -> None:
        self.is_over: Callable[[], bool] = lambda: False


class Isolation:
    """Decides which runs may start now in this process."""

    def __init__(self) -> None:
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Forget the runs of the parent process."""
        self._changed = threading.Condition()
        self._here = threading.local()
        self._running: set[Ticket] = set()
        self._waiting = 0
        self._alone: Ticket | None = None
        self._is_draining = False
        self._tries: dict[Hashable, int] = {}
        self._postponed: dict[Hashable, Callable[[], None]] = {}

    @contextmanager
    def together(self, is_canceled: Callable[[], bool]) -> Iterator[Ticket | None]:
        """Wait until no suspect runs, then run beside others. The ticket is None if the run was canceled.

        A run inside another run of the same thread is part of that one, and does not wait.

        Args:
            is_canceled: returns whether the run must not start any more.
        """
        outer: Ticket | None = getattr(self._here, "ticket", None)
        if outer is not None:
            yield Ticket()
            return
        ticket = Ticket()
        with self._changed:
            self._waiting += 1
            try:
                entered = self._wait(self._is_open, is_canceled, None)
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
        self, key: Hashable, again: Callable[[], None], is_canceled: Callable[[], bool]
    ) -> Iterator[Ticket | None]:
        """Wait until nothing runs, then run alone. New runs wait until it has ended.

        The ticket is None if another suspect runs, if the running instances do not end in time, or if the run
        was canceled.

        Args:
            key: identifies the suspect.
            again: called when the other suspect has ended.
            is_canceled: returns whether the run must not start any more.
        """
        ticket = self._enter_alone(key, again, is_canceled)
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
        self, key: Hashable, again: Callable[[], None], is_canceled: Callable[[], bool]
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
                if not self._wait(self._is_empty, is_canceled, limit):
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
        """Dispatch the next postponed suspect again, if it could run now."""
        with self._changed:
            following = next(iter(self._postponed), None)
            if following is None or not self._is_open():
                return
            again = self._postponed.pop(following)
        again()

    def _is_open(self) -> bool:
        """Return whether runs may start."""
        return not self._is_draining and (self._alone is None or self._alone.is_over())

    def _is_empty(self) -> bool:
        """Return whether nothing runs whose claim still holds."""
        return all(ticket.is_over() for ticket in self._running)

    def _wait(
        self, condition: Callable[[], bool], is_canceled: Callable[[], bool], limit: float | None
    ) -> bool:
        until = math.inf if limit is None else time.monotonic() + limit
        while not is_canceled():
            if condition():
                return True
            left = min(LOOK, until - time.monotonic())
            if left <= 0:
                return False
            self._changed.wait(left)
        return False


#: The only instance: what runs at the same time concerns the whole process.
isolation: Isolation = Isolation()
