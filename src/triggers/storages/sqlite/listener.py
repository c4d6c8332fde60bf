"""Announce work through the time at which a SQLite file was changed, and notice that it is another one."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import threading

#: How often the file is looked at, in seconds.
LOOK: Final = 0.02


def announce(path: str) -> None:
    """Set the time of change of the file to now. It is not opened, because closing it would drop its locks.

    A commit changes a file before it can be read: it then waits for the disk. So a listener that has seen the
    change can have looked too early.
    """
    os.utime(path)


class FileListener:
    """Hears of announcements, and of commits to a file.

    It asks the file system and not SQLite (``PRAGMA data_version``), which would need a connection of its
    own, with locks that a fork must wait for. A look takes some microseconds.

    Args:
        path: the file.
        woken: ends every wait.
    """

    def __init__(self, path: str, woken: threading.Event) -> None:
        # A commit changes the log in WAL mode, and the file itself in journal_mode=DELETE.
        self._paths = (f"{path}-wal", path)
        self._woken = woken
        self._seen: list[tuple[int, int]] | None = None

    def wait(self, timeout: float) -> bool:
        """Wait for a change by any process, up to that time in seconds; returns whether there was one."""
        until = time.monotonic() + timeout
        while (now := self._look()) == self._seen:
            left = until - time.monotonic()
            if left <= 0 or self._woken.wait(min(left, LOOK)):
                return False
        self._seen = now
        return True

    def close(self) -> None:
        """Do nothing: no file is open."""

    def _look(self) -> list[tuple[int, int]]:
        found = []
        for path in self._paths:
            try:
                state = os.stat(path)  # noqa: PTH116 - called 50 times a second; Path takes twice as long
            except OSError:  # a log that does not exist, or a deleted file, which the next sweep reports
                continue
            found.append((state.st_mtime_ns, state.st_size))
        return found
