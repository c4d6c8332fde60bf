"""Where a storage under test keeps its data, and the time that it goes by."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triggers.testing.clock import VirtualClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import timedelta

    from triggers.storages.base import Storage


class StorageSandbox:
    """Fresh, empty room for the data of one storage, with any number of handles on it.

    Time stands still here until :meth:`advance` is called. A storage that takes a clock gets this one; one
    with a clock of its own, a server's, needs a subclass in which `advance` moves what that clock shows.

    Args:
        open_with: opens a handle that goes by the given clock. Each call opens another handle on the same
            data; a storage that can have only one handle gives the same one each time.
    """

    def __init__(self, open_with: Callable[[VirtualClock], Storage]) -> None:
        self.clock = VirtualClock()
        self._open_with = open_with
        self._handles: list[Storage] = []

    def open(self) -> Storage:
        """Another handle, to be used like that of another process."""
        handle = self._open_with(self.clock)
        self._handles.append(handle)
        return handle

    def advance(self, duration: timedelta) -> None:
        """Let so much time pass."""
        self.clock.advance(duration)

    def close(self) -> None:
        """Close every handle that was opened; a subclass removes the data, too, where nobody else does."""
        while self._handles:
            self._handles.pop().close()
