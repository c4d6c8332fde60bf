"""What SQLite needs to read a file that it cannot write: because of its permissions, or its file system.

In WAL mode, reading needs two more files beside the database: its log (``-wal``) and shared memory
(``-shm``). If a process has the file open for writing, both exist. Otherwise SQLite creates them. Where it
cannot do that, and there is no log, the database itself is complete. Then it is opened as *immutable*: SQLite
reads it without locks. Another process may have write access all the same. So such a connection serves one
transaction, and what was read counts only if the file has not changed.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

#: Size, and time of the last change in nanoseconds, of a file without a log.
Snapshot = tuple[int, int]

#: Stands for the state of a file that was being written. It equals no other.
CHANGING: Final[Snapshot] = (-1, -1)


#: How the names of SQLite's errors begin if it cannot create a file beside the database: on a read-only
#: file system, and in a folder of another user.
_UNOPENED: Final = ("SQLITE_CANTOPEN", "SQLITE_READONLY")


def can_write(path: str) -> bool:
    """Whether this process can write to the file, and create what SQLite needs beside it."""
    return os.access(path, os.W_OK) and (_can_create_beside(path) or _has_log(path))


def mode_of(path: str, driver: Any) -> str:
    """The options with which SQLite can read the file.

    The file is not opened except by SQLite: closing it would release every lock that this process has on it.
    """
    if _can_create_beside(path) or _has_log(path):
        return "mode=ro"
    probe = driver.connect(f"{Path(path).as_uri()}?mode=ro", uri=True)
    try:
        probe.execute("PRAGMA user_version").fetchone()
    except driver.OperationalError as error:
        return "mode=ro&immutable=1" if is_unopened(error) else "mode=ro"
    else:
        return "mode=ro"
    finally:
        probe.close()


def is_unopened(error: Exception) -> bool:
    """Whether SQLite could not open or create a file that it needs to read."""
    return (getattr(error, "sqlite_errorname", "") or "").startswith(_UNOPENED)


def snapshot(path: str) -> Snapshot | None:
    """The state of a file, to be compared later; None if a process writes to it."""
    if _has_log(path):
        return None
    found = Path(path).stat()
    return found.st_size, found.st_mtime_ns


def _has_log(path: str) -> bool:
    return Path(f"{path}-wal").exists()


def _can_create_beside(path: str) -> bool:
    return os.access(Path(path).parent, os.W_OK)
