"""What a forked process has inherited of SQLite files: find it, and neither use nor close it."""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NoReturn

from triggers.exceptions import StorageError

#: Device and inode → why this process must not use that file; None for all files.
barred: dict[tuple[int, int] | None, str] = {}

#: Connections that child processes have inherited and must neither use nor close.
inherited: list[Any] = []


class BarredConnection:
    """Replaces a connection in a child process that has inherited it."""

    in_transaction: Final = False

    def __init__(self, message: str) -> None:
        self._message = message

    def execute(self, *_: object) -> NoReturn:
        """Raise a StorageError that says what to do."""
        raise StorageError(self._message)

    executemany = execute

    def close(self) -> None:
        """Do nothing: closing it would release the locks of the parent, or delete its log."""


def never_close(connection: Any) -> None:
    """Keep a reference, so that the connection is not closed at the end of this process either."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def identity(path: str) -> tuple[int, int] | None:
    """Device and inode of the file at this path, None if there is no file."""
    try:
        found = os.stat(path)  # noqa: PTH116 - called for each commit; Path takes twice as long
    except OSError:
        return None
    return found.st_dev, found.st_ino


def descriptors(wanted: tuple[int, int]) -> list[str]:
    """The descriptors of this process for a file, where the system lists them (on Linux and macOS)."""
    folder = next(filter(os.path.isdir, ("/proc/self/fd", "/dev/fd")), None)
    found = Path(folder).iterdir() if folder else ()
    return [entry.name for entry in found if identity(str(entry)) == wanted]


def is_locked_here(wanted: tuple[int, int]) -> bool:
    """Whether this process has a lock on the file, where the system lists locks (on Linux)."""
    for number in descriptors(wanted):
        with suppress(OSError):
            if "lock:" in Path(f"/proc/self/fdinfo/{number}").read_text():
                return True
    return False
