"""A clock that stands still until a test moves it."""

from __future__ import annotations

import threading
from datetime import UTC, datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

#: What a virtual clock shows at first.
START: Final = datetime(2026, 1, 1, tzinfo=UTC)


class VirtualClock:
    """A clock for storages, in microseconds since the Unix epoch, UTC; safe to use from any thread.

    Args:
        start: what it shows until it is moved, aware.
    """

    def __init__(self, start: datetime = START) -> None:
        self._now = (start - _EPOCH) // timedelta(microseconds=1)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"VirtualClock({self.time.isoformat()})"

    def __call__(self) -> int:
        """The time, in microseconds since the Unix epoch."""
        with self._lock:
            return self._now

    @property
    def time(self) -> datetime:
        """The time, aware, UTC."""
        return _EPOCH + timedelta(microseconds=self())

    def advance(self, duration: timedelta) -> None:
        """Move it; by a negative duration it is set back, as clocks sometimes are."""
        with self._lock:
            self._now += duration // timedelta(microseconds=1)
