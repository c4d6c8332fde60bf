"""A SQLite file that several threads and processes write to: drivers, connections, transactions, errors."""

from __future__ import annotations

import os
import re
import threading
import time
import warnings
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from triggers.exceptions import (
    SchemaVersionError,
    StorageBusyError,
    StorageCorruptError,
    StorageError,
    StorageFullError,
)
from triggers.fork import reset_after_fork, unforked
from triggers.storages.base import ConflictError
from triggers.storages.sql import migrations
from triggers.storages.sqlite.url import BUSY_TIMEOUT, SqliteUrl, is_safe, load_driver

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: Marks a file as ours (PRAGMA application_id): "Trig".
APPLICATION_ID: Final = 0x54726967

#: Longest path in a message, in characters.
MAX_SHOWN: Final = 300

#: File systems on which SQLite's locks, or the shared memory of WAL, cannot be relied on.
NETWORK_FILE_SYSTEMS: Final = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "afs",
        "9p",
        "fuse.sshfs",
        "fuse.s3fs",
        "glusterfs",
        "ceph",
        "lustre",
    }
)


class Run:
    """Runs statements on one connection, inside of whatever transaction it is in."""

    __slots__ = ("_connection",)

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __call__(self, statement: str, given: Sequence[Any] = ()) -> Any:
        """Run one statement; returns its cursor."""
        return self._connection.execute(statement, given)

    def many(self, statement: str, given: Iterable[Sequence[Any]], expected: int | None = None) -> None:
        """Run one statement for each row; with `expected`, for so many changed rows or not at all."""
        changed = self._connection.executemany(statement, given).rowcount
        if expected is not None and changed != expected:
            raise ConflictError(statement)

    def one(self, statement: str, given: Sequence[Any]) -> None:
        """Run a statement that must change exactly one row."""
        if self._connection.execute(statement, given).rowcount != 1:
            raise ConflictError(statement)


class SqliteFile:
    """Connections to one file, one for each thread of each process.

    Args:
        url: as :class:`SqliteStorage` takes it, for messages.
        parts: the same, taken apart.
        driver: a module of the form of :mod:`sqlite3`.

    Attributes:
        path: of the file, absolute.
    """

    def __init__(self, url: str, parts: SqliteUrl, driver: Any) -> None:
        self.url = url
        self.path = str(Path(parts.path).absolute())
        self._parts = parts
        self.driver = driver
        self._safe = is_safe(driver.sqlite_version_info)
        self._mine = ProcessConnections()
        self._joined = threading.local()
        reset_after_fork(self)

    @classmethod
    def from_url(cls, url: str, driver: Any = None) -> SqliteFile:
        """The file that the URL names, with its driver unless one is given; nothing is opened yet."""
        parts = SqliteUrl.parse(url)
        return cls(url, parts, driver or load_driver(parts.driver))

    def prepare(self) -> None:
        """Create the file if there is none, check that it is ours, and bring its schema up to date.

        Raises:
            StorageError: it cannot be used; the file is as it was.
        """
        try:
            check_file_system(self.path)
            _create(self.path)
        except OSError as error:
            message = f"{self.path[:MAX_SHOWN]} cannot be opened: {error.strerror}"
            raise StorageError(message) from error
        if not self._safe:
            message = (
                f"SQLite {self.driver.sqlite_version} can corrupt a file in WAL mode, so {self.path} is "
                f"used in journal_mode=DELETE, which is slower: install pysqlite3, or a newer Python"
            )
            warnings.warn(message, RuntimeWarning, stacklevel=4)
        try:
            self._migrate()
        except self.driver.Error as error:
            raise self.translated(error) from error

    @contextmanager
    def transaction(self, timeout: float | None = None) -> Iterator[Run]:
        """A transaction that holds the only write lock; what it did is kept unless the block raises.

        Args:
            timeout: how long to wait for the lock, in seconds, None for the file's own setting.

        Raises:
            SchemaVersionError: another version of Triggers has migrated the file; nothing was changed.
            StorageError: nothing was changed.
        """
        with self._writing(timeout) as run:
            self.check_schema_version(run)
            yield run

    def check_schema_version(self, run: Run) -> None:
        """Check within a transaction that the schema has the version that this process requires.

        Raises:
            SchemaVersionError: the schema has another version.
        """
        known = len(migrations("sqlite"))
        version: int = run("PRAGMA user_version").fetchone()[0]
        if version != known:
            message = (
                f"{self.path} no longer has schema version {known}, which this process requires: another "
                f"version of Triggers has migrated it; upgrade Triggers and restart this process; nothing "
                f"was changed"
            )
            raise SchemaVersionError(message)

    @contextmanager
    def _writing(self, timeout: float | None = None) -> Iterator[Run]:
        wait = self._parts.busy_timeout if timeout is None else timeout
        until = time.monotonic() + wait
        mine = self._mine
        if any(joined.is_in_transaction for joined in self.joined_here):
            message = (
                f"this thread has joined a transaction that holds the lock of {self.path}, and would wait "
                f"for itself: inside the block use the manager that has joined; nothing was changed"
            )
            raise StorageBusyError(message)
        if not mine.lock.acquire(timeout=wait):
            raise StorageBusyError(self._busy(wait))
        try:
            with unforked:
                connection = self._connection(mine)
                self._begin(connection, until if timeout is not None else None)
                try:
                    yield Run(connection)
                except BaseException:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
                    raise
                self._commit(connection, until)
        except self.driver.Error as error:
            raise self.translated(error, wait) from error
        finally:
            mine.lock.release()

    def _begin(self, connection: Any, until: float | None) -> None:
        """Take the write lock, waiting until that monotonic time, or as long as the file's setting says."""
        if until is None:
            connection.execute("BEGIN IMMEDIATE")
            return
        rest = max(0, int((until - time.monotonic()) * 1000))
        connection.execute(f"PRAGMA busy_timeout = {rest}")
        try:
            connection.execute("BEGIN IMMEDIATE")
        finally:
            connection.execute(f"PRAGMA busy_timeout = {int(self._parts.busy_timeout * 1000)}")

    def _commit(self, connection: Any, until: float) -> None:
        """Commit; where a reader holds it up (journal_mode=DELETE only) it stays open: try again."""
        while True:
            try:
                connection.execute("COMMIT")
            except self.driver.OperationalError as error:
                if "locked" in str(error) and connection.in_transaction and time.monotonic() < until:
                    continue
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return

    @contextmanager
    def reading(self) -> Iterator[Run]:
        """A transaction that sees one moment of the file and waits for no writer."""
        try:
            with unforked:
                connection = self._connection(self._mine)
                connection.execute("BEGIN")
                try:
                    run = Run(connection)
                    self.check_schema_version(run)
                    yield run
                finally:
                    connection.execute("ROLLBACK")
        except self.driver.Error as error:
            raise self.translated(error) from error

    @property
    def root(self) -> SqliteFile:
        """The file itself."""
        return self

    @property
    def joined_here(self) -> list[Any]:
        """What this thread has joined: objects that say by `is_in_transaction` whether they hold the lock."""
        try:
            joined: list[Any] = self._joined.connections
        except AttributeError:
            joined = self._joined.connections = []
        return joined

    # To close a connection while another thread uses it would crash the process: the others are let go of,
    # and close when their threads have done with them.
    def close(self) -> None:
        """Close this thread's connection, and let go of the others; a later call opens new ones."""
        mine, self._mine = self._mine, ProcessConnections()
        own = getattr(mine.local, "connection", None)
        if own is not None:
            own.close()

    # A connection must not be used in a process that was forked from the one that opened it, not even
    # to be closed there: closing would release the parent's locks. What a child inherits is left alone.
    def after_fork(self) -> None:
        """Open connections of its own when they are needed."""
        inherited.append(self._mine)
        self._mine = ProcessConnections()

    def _connection(self, mine: ProcessConnections) -> Any:
        connection = getattr(mine.local, "connection", None)
        if connection is None:
            connection = self._open()
            mine.local.connection = connection
            mine.forget_ended(connection)
        return connection

    def _open(self) -> Any:
        connection = self.driver.connect(
            self.path,
            timeout=self._parts.busy_timeout,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        try:
            self._check_version(connection)
            self._set_up(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    # Not before the file is known to be ours: the journal's mode is written into it.
    def _set_up(self, connection: Any) -> None:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA mmap_size = 0")
        if self._safe:
            self._patiently(connection, "PRAGMA journal_mode = WAL")
            connection.execute(f"PRAGMA synchronous = {self._parts.synchronous}")
        else:
            self._patiently(connection, "PRAGMA journal_mode = DELETE")
            connection.execute("PRAGMA synchronous = EXTRA")

    # SQLite does not wait for others when it changes the journal's mode, whatever its timeout is.
    def _patiently(self, connection: Any, statement: str) -> None:
        until = time.monotonic() + self._parts.busy_timeout
        while True:
            try:
                connection.execute(statement)
            except self.driver.OperationalError as error:
                if "locked" not in str(error) or time.monotonic() >= until:
                    raise
                time.sleep(0.005)
            else:
                return

    def _migrate(self) -> None:
        steps = migrations("sqlite")
        connection = self._connection(self._mine)
        for version in range(self._check_version(connection), len(steps)):
            with self._writing() as run:
                if self._check_version(connection) != version:
                    continue  # another process was faster
                for statement in steps[version]:
                    run(statement)
                run(f"PRAGMA user_version = {version + 1}")
                run(f"PRAGMA application_id = {APPLICATION_ID}")

    def _check_version(self, connection: Any) -> int:
        known = len(migrations("sqlite"))
        # In this order: tables that another process makes in between are never taken for somebody else's.
        occupied = connection.execute("SELECT 1 FROM sqlite_schema").fetchone()
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version: int = connection.execute("PRAGMA user_version").fetchone()[0]
        if occupied and application != APPLICATION_ID:
            self._check_shared(application, version)
        if version > known:
            message = (
                f"{self.path} has schema version {version}, and this version of Triggers knows {known}: "
                f"upgrade Triggers; nothing was changed"
            )
            raise SchemaVersionError(message)
        return version

    def _check_shared(self, application: int, version: int) -> None:
        if self._parts.shared != "yes":
            message = (
                f"{self.path} is a file of another application: choose another path, or say ?shared=yes if "
                f"the application is yours; nothing was changed"
            )
            raise StorageCorruptError(message)
        if application or version:
            message = (
                f"{self.path} cannot be shared: its application uses PRAGMA application_id or user_version, "
                f"which Triggers needs for itself; nothing was changed"
            )
            raise StorageCorruptError(message)

    def _busy(self, wait: float) -> str:
        return f"{self.path} stayed locked by another writer for {wait:g} s; nothing was changed: try again"

    def translated(self, error: Exception, wait: float = BUSY_TIMEOUT) -> StorageError:
        """Our error for one of the driver's."""
        name = getattr(error, "sqlite_errorname", "") or ""
        text = str(error)
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or "locked" in text:
            return StorageBusyError(self._busy(wait))
        if name.startswith("SQLITE_FULL") or "disk is full" in text:
            return StorageFullError(
                f"no space left for {self.path}; nothing was changed: make room and try again"
            )
        if (
            name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))
            or "malformed" in text
            or "not a database" in text
        ):
            return StorageCorruptError(
                f"{self.path} is damaged or no SQLite file ({text}): restore it from a copy"
            )
        return StorageError(f"{self.path}: {text}; nothing was changed")


class ProcessConnections:
    """What one process has open."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.local = threading.local()
        self.connections: list[Any] = []
        self._threads: list[threading.Thread] = []
        self._guard = threading.Lock()

    def forget_ended(self, connection: Any) -> None:
        """Add the connection of this thread, and close those of threads that have ended."""
        with self._guard:
            pairs = list(zip(self._threads, self.connections, strict=True))
            for thread, ended in pairs:
                if not thread.is_alive():
                    ended.close()
            alive = [(thread, kept) for thread, kept in pairs if thread.is_alive()]
            alive.append((threading.current_thread(), connection))
            self._threads = [thread for thread, _ in alive]
            self.connections = [kept for _, kept in alive]


#: What processes inherited and must neither use nor close.
inherited: list[ProcessConnections] = []


def _create(path: str) -> None:
    """Make an empty file that only its owner can read, unless there is a file, which is not opened.

    Closing it again would end every lock that this process has on it.

    Raises:
        StorageError: it cannot be made, or what is there can be no SQLite file.
    """
    folder = Path(path).parent
    if not folder.is_dir():
        message = f"{folder} is not a folder: make it first, the file {Path(path).name} goes there"
        raise StorageError(message)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    try:
        os.close(os.open(path, flags, 0o600))
    except FileExistsError as error:
        if not Path(path).exists():
            message = f"{path} is a link to a file that is not there: make the file, or take the link away"
            raise StorageError(message) from error
        if 0 < Path(path).stat().st_size < SMALLEST_FILE:
            message = (
                f"{path} is no SQLite file, and too small to be one: choose another path; nothing was changed"
            )
            raise StorageCorruptError(message) from error
    except OSError as error:
        message = f"{path} cannot be created: {error.strerror}"
        raise StorageError(message) from error


#: No SQLite file is smaller, in bytes; SQLite itself would overwrite what is.
SMALLEST_FILE: Final = 512

#: How a list of mounts writes spaces and the like in the name of a folder.
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


def check_file_system(path: str, mounts: str = "/proc/self/mounts") -> None:
    """Refuse a network file system, as far as the system tells (Linux does).

    Raises:
        StorageError: it is one.
    """
    try:
        lines = Path(mounts).read_text("utf-8", "replace").splitlines()
    except OSError:
        return
    found = [line.split()[1:3] for line in lines if line.count(" ") >= 2]  # noqa: PLR2004 - device, folder, kind
    folders = [(_ESCAPE.sub(lambda escaped: chr(int(escaped[1], 8)), folder), kind) for folder, kind in found]
    holding = [(folder, kind) for folder, kind in folders if Path(path).resolve().is_relative_to(folder)]
    folder, kind = max(holding, key=lambda mount: len(mount[0]), default=("", ""))
    if kind in NETWORK_FILE_SYSTEMS:
        message = (
            f"{path} is on {folder}, a network file system ({kind}), which can lose data: use a local disk"
        )
        raise StorageError(message)
