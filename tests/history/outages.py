"""What takes a SQLite file away for a while: another writer that keeps its lock, and a disk without room."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tests.crash.processes import begin, end
from triggers.storages.sqlite.url import load_driver

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Locker:
    """Another process, which takes the write lock of a file, and lets it go, when it is told to.

    It is forked at once, so make it before any thread begins.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        asked, self._ask = os.pipe()
        self._answers, answer = os.pipe()
        self._child = begin(lambda: self._obey(path, asked, answer))
        os.close(asked)
        os.close(answer)

    def lock(self) -> None:
        """Take the write lock; when this returns, it is taken."""
        self._tell(b"L")

    def unlock(self) -> None:
        """Let it go."""
        self._tell(b"U")

    def close(self) -> None:
        """End the process, and with it its lock."""
        os.close(self._ask)
        os.close(self._answers)
        assert end(self._child) == 0

    def _tell(self, what: bytes) -> None:
        os.write(self._ask, what)
        assert os.read(self._answers, 1) == what

    def _obey(self, path: Path, asked: int, answer: int) -> None:
        os.close(self._ask)
        os.close(self._answers)
        connection = load_driver("auto").connect(str(path), timeout=30, isolation_level=None)
        while what := os.read(asked, 1):
            connection.execute("BEGIN IMMEDIATE" if what == b"L" else "ROLLBACK")
            os.write(answer, what)


class Heard(logging.Handler):
    """Waits for what the library says."""

    def __init__(self) -> None:
        super().__init__()
        self._said: list[str] = []
        self._changed = threading.Condition()

    def emit(self, record: logging.LogRecord) -> None:
        """Remember it."""
        with self._changed:
            self._said.append(record.getMessage())
            self._changed.notify_all()

    def wait(self, words: str, seconds: float = 30) -> None:
        """Wait until it has said these words."""
        with self._changed:
            heard = self._changed.wait_for(lambda: any(words in said for said in self._said), seconds)
        assert heard, f"it never said {words!r}, but {self._said}"


@contextmanager
def listening() -> Iterator[Heard]:
    """Hear what the library says while the block lasts."""
    heard, logger = Heard(), logging.getLogger("triggers")
    logger.addHandler(heard)
    try:
        yield heard
    finally:
        logger.removeHandler(heard)


class SmallDisk:
    """A file system of two megabytes, mounted for a test; only root on Linux can do that.

    Args:
        folder: where it is mounted.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "a.db"
        self._ballast = folder / "ballast"

    def fill(self, room: int) -> None:
        """Leave so many bytes of room, a page more or less."""
        stat = os.statvfs(self.path.parent)
        free = stat.f_bavail * stat.f_frsize
        self._ballast.write_bytes(b"\0" * max(free - room, 0))

    def make_room(self) -> None:
        """Give back what was taken."""
        self._ballast.unlink()

    def driver(self) -> Any:
        """The driver is the real one."""
        return None


class SmallFile:
    """A file that is not allowed to grow: what SQLite does then is what it does on a full disk.

    Args:
        folder: where it is.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / "a.db"
        self._driver = load_driver("auto")
        self._connections: list[Any] = []
        self._most = 1_000_000

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def connect(self, *args: Any, **kwargs: Any) -> Any:
        """Open a connection that obeys."""
        connection = self._driver.connect(*args, **kwargs)
        connection.execute(f"PRAGMA max_page_count = {self._most}")
        self._connections.append(connection)
        return connection

    def fill(self, room: int) -> None:
        """Let it grow by so many bytes and no more."""
        pages = max(c.execute("PRAGMA page_count").fetchone()[0] for c in self._connections)
        self._limit(pages + room // 2_048)

    def make_room(self) -> None:
        """Let it grow again."""
        self._limit(1_000_000)

    def driver(self) -> Any:
        """It is the driver itself."""
        return self

    def _limit(self, pages: int) -> None:
        self._most = pages
        for connection in self._connections:
            connection.execute(f"PRAGMA max_page_count = {pages}")


@contextmanager
def small_disk(folder: Path) -> Iterator[SmallDisk | None]:
    """A small disk while the block lasts, None where this process may not mount one."""
    mounted = (
        sys.platform == "linux"
        and os.geteuid() == 0
        and _run("mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder)
    )
    try:
        yield SmallDisk(folder) if mounted else None
    finally:
        if mounted:
            _run("umount", "--lazy", folder)


def _run(*command: Any) -> bool:
    return subprocess.run([str(part) for part in command], capture_output=True, check=False).returncode == 0
