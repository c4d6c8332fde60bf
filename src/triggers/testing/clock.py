"""A clock that a test moves."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

#: The time that a virtual clock shows at first.
START: Final = datetime(2026, 1, 1, tzinfo=UTC)


class VirtualClock:
    """A clock for storages that changes only when a test moves it. It is safe to use from any thread.

    Args:
        start: the time that it shows until it is moved; an aware datetime.
    """

    def __init__(self, start: datetime = START) -> None:
        self._now = (start - _EPOCH) // timedelta(microseconds=1)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"VirtualClock({self.time.isoformat()})"

    def __call__(self) -> int:
        """Return the time in microseconds since the Unix epoch."""
        with self._lock:
            return self._now

    @property
    def time(self) -> datetime:
        """The time as an aware datetime in UTC."""
        return _EPOCH + timedelta(microseconds=self())

    def advance(self, duration: timedelta) -> None:
        """Move the clock forward, or back if the duration is negative, as happens to real clocks."""
        with self._lock:
            self._now += duration // timedelta(microseconds=1)
