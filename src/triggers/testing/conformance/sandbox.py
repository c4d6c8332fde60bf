"""The data and the clock of a storage under test."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triggers.testing.clock import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from triggers.storages.base import Storage


class StorageSandbox:
    """An empty storage with a virtual clock, on which any number of handles can be opened.

    Time passes only when :meth:`advance` is called. A storage that takes a clock gets the clock of the
    sandbox. A storage with a clock of its own, such as that of a server, needs a subclass whose `advance`
    moves that clock.

    Args:
        open_with: opens a handle that uses the given clock. Each call opens another handle on the same data.
            If a storage can have only one handle, return the same one each time.
    """

    def __init__(self, open_with: Callable[[VirtualClock], Storage]) -> None:
        self.clock: VirtualClock = VirtualClock()
        self._open_with = open_with
        self._handles: list[Storage] = []

    def open(self) -> Storage:
        """Open another handle on the same data, as another process would."""
        handle = self._open_with(self.clock)
        self._handles.append(handle)
        return handle

    def advance(self, duration: timedelta) -> None:
        """Let this much time pass for the storage."""
        self.clock.advance(duration)

    def close(self) -> None:
        """Close every handle. A subclass also removes the data, unless something else does."""
        while self._handles:
            self._handles.pop().close()
