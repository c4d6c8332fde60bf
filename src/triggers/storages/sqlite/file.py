"""A SQLite file that several threads and processes use: connections, transactions, and errors.

**The life of a connection.** Each :class:`SqliteFile` has a pool of at most :data:`MAX_CONNECTIONS`
connections, for any number of threads and greenlets. The process therefore has at most ``2 * MAX_CONNECTIONS
+ 1`` descriptors for the file.

*Opening.* A transaction, or a read, uses the first free connection of the pool, and opens one if none is
free. It owns the connection until it ends. Between two transactions a connection has no owner. Nothing
depends on whether a thread is alive, so an ``atexit`` handler, and a thread that outlives the main thread,
work like any other code.

*Closing.* :meth:`SqliteFile.close` and a fork close the idle connections. A connection in use is closed by
its user, when the transaction ends. No connection is closed while it is in use.

*Writing.* One transaction at a time in each process has the lock ``"write"`` of the pool. It then waits for
SQLite's own lock, in slices of :data:`SLICE` seconds. Between two slices, signals are handled and a fork can
happen.

*An interrupt* is an exception that a signal handler, or another thread, raises at any line. The transaction
is rolled back unless it was already committed, the locks are released, and a note on the exception says which
of the two happened. :mod:`triggers.storages.checkout` explains why nothing is lost. The exception itself is
not changed. To be certain, fire with a `key`: a repeated firing changes nothing if the first one was stored.

*A fork.* SQLite records in the memory of the process which locks the process has. A child inherits that
memory but not the locks. If the child used the file, it would lose what it has committed, or damage the file.
So every connection is closed before the fork, and both processes open new ones. A fork waits for the
transactions of other threads, for at most :data:`triggers.fork.WAIT` seconds. The child then checks whether
it has inherited anything: a connection of Triggers that could not be closed, or the application's own
connection to the file that is in WAL mode or has a lock. A connection of Triggers cannot be closed if the
process was forked within a transaction, or by a C library that runs no hooks. If the child has inherited
anything, it refuses to use the file, and the error says what to do. What it has inherited is neither used nor
closed, not even when the child ends.

Triggers does not know the application's own connections to the same file. The application must close them
before it forks.

*A file that is deleted or replaced* while it is open is detected by its device and inode, at the beginning of
each read and before each commit. The same is true for its write-ahead log. Nothing is confirmed until the
original file is back.
"""

from __future__ import annotations

import ctypes
import os
import re
import threading
import time
import warnings
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, TypeVar

from triggers.exceptions import (
    SchemaVersionError,
    StorageBusyError,
    StorageCorruptError,
    StorageError,
    StorageFullError,
    TriggersError,
)
from triggers.fork import WAIT, close_before_fork, unforked
from triggers.storages.base import ConflictError
from triggers.storages.checkout import Checkout, Checkouts, Reservation
from triggers.storages.sql import migrations
from triggers.storages.sqlite.url import BUSY_TIMEOUT, SqliteUrl, is_safe, load_driver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

_T = TypeVar("_T")

#: Marks a file of Triggers (PRAGMA application_id): "Trig".
APPLICATION_ID: Final = 0x54726967

#: The largest number of connections of a process to one file.
MAX_CONNECTIONS: Final = 16

#: How long SQLite waits for a lock before signals are handled and a fork can happen, in seconds.
SLICE: Final = 0.1

#: The longest path in a message, in characters.
MAX_SHOWN: Final = 300

#: File systems on which SQLite's locks, or the shared memory of WAL, are not reliable.
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


class Link:
    """One connection.

    Attributes:
        connection: the connection of the driver; in a forked child, an object that refuses every statement.
        files: path → device and inode of each file that it has open.
        is_committing: whether the commit of its transaction has begun.
        is_stale: whether a file that it has open was deleted or replaced.
    """

    __slots__ = ("connection", "files", "is_committing", "is_stale")

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.files: dict[str, tuple[int, int]] = {}
        self.is_committing = False
        self.is_stale = False


class Run:
    """Runs statements on one connection, in its current transaction."""

    __slots__ = ("_link",)

    def __init__(self, link: Any) -> None:
        self._link = link

    def __call__(self, statement: str, given: Sequence[Any] = ()) -> Any:
        """Run one statement; returns its cursor."""
        return self._link.connection.execute(statement, given)

    def many(self, statement: str, given: Iterable[Sequence[Any]], expected: int | None = None) -> None:
        """Run one statement for each row; raises ConflictError if not exactly `expected` rows changed."""
        changed = self._link.connection.executemany(statement, given).rowcount
        if expected is not None and changed != expected:
            raise ConflictError(statement)

    def one(self, statement: str, given: Sequence[Any]) -> None:
        """Run a statement; raises ConflictError if it does not change exactly one row."""
        if self._link.connection.execute(statement, given).rowcount != 1:
            raise ConflictError(statement)


class SqliteFile:
    """Connections to one file, which the threads of a process share.

    Args:
        url: the URL, for messages.
        parts: the parts of the URL.
        driver: a module with the interface of :mod:`sqlite3`.

    Attributes:
        path: the absolute path of the file.
    """

    def __init__(self, url: str, parts: SqliteUrl, driver: Any) -> None:
        self.url = url
        self.path = str(Path(parts.path).absolute())
        self._parts = parts
        self.driver = driver
        self._safe = is_safe(driver.sqlite_version_info)
        self._identity: tuple[int, int] | None = None
        self._is_locked_by_others = False
        self._pool = self._new_pool()
        self._joined = threading.local()
        close_before_fork(self)

    def _new_pool(self) -> Checkouts[Link]:
        return Checkouts(MAX_CONNECTIONS, partial(_clean, self.driver), partial(_close, self.driver))

    @classmethod
    def from_url(cls, url: str, driver: Any = None) -> SqliteFile:
        """The file at this URL, with the URL's driver unless another is given. Nothing is opened yet."""
        parts = SqliteUrl.parse(url)
        return cls(url, parts, driver or load_driver(parts.driver))

    def prepare(self) -> None:
        """Create the file if it does not exist, check that it belongs to Triggers, and migrate its schema.

        Raises:
            StorageError: the file cannot be used; it is unchanged.
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
        self._identity = identity(self.path)
        try:
            self._migrate()
        except self.driver.Error as error:
            raise self.translated(error) from error

    @contextmanager
    def transaction(self, timeout: float | None = None) -> Iterator[Run]:
        """A transaction that holds the write lock. Its changes are kept unless the block raises an exception.

        An exception that interrupts it gets a note that says whether the transaction was committed.

        Args:
            timeout: how long to wait for the lock, in seconds; None for the setting of the URL.

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
        unforked.look()
        user, pool = Checkout(), self._pool
        link: Link | None = None
        try:
            try:
                until = time.monotonic() + wait
                self._check_nesting(user)
                self._lock(user, until, wait)
                link = self._begun(user, until, lambda kept: self._begin(kept.connection, until))
                yield Run(link)
                self._check_same(link, *link.files)
                self._commit(link, until)
            except self.driver.Error as error:
                if link is not None:
                    self._check_same(link, *link.files)
                raise self.translated(error, wait) from error
            except BaseException as error:
                self._note(error, link)
                raise
            finally:
                pool.check_in(user)
        finally:
            pool.check_in(user)  # again: an interrupt can have ended the first call

    def _check_nesting(self, user: Checkout) -> None:
        """Refuse a transaction that would wait for another one of the same thread."""
        joined_here = self.joined_here
        if joined_here and any(joined.is_in_transaction for joined in joined_here):
            message = (
                f"this thread has joined a transaction that holds the lock of {self.path}, so it would wait "
                f"for itself: inside the block, use the manager that has joined; nothing was changed"
            )
            raise StorageBusyError(message)
        holder = self._pool.holder(_WRITE)
        if holder is not None and holder.thread == user.thread and not holder.is_over():
            message = (
                f"this thread is in the middle of a commit to {self.path}, so it would wait for itself: do "
                f"not fire in a signal handler, or in code that a decision calls; nothing was changed"
            )
            raise StorageBusyError(message)

    def _lock(self, user: Checkout, until: float, wait: float) -> None:
        if not self._pool.lock(_WRITE, user, until):
            raise StorageBusyError(self._busy(wait))

    def _begun(self, user: Checkout, until: float, begin: Callable[[Link], object]) -> Link:
        """A connection on which a transaction has begun. It is returned to the pool between two attempts."""
        while True:
            link = self._pool.check_out(user, until, partial(self._open, until))
            if link is None:
                message = (
                    f"all {MAX_CONNECTIONS} connections of this process to {self.path} are in use; "
                    f"nothing was changed: try again"
                )
                raise StorageBusyError(message)
            try:
                begin(link)
            except self.driver.OperationalError as error:
                if not _is_locked(error) or time.monotonic() >= until:
                    raise
                self._pool.return_one(user, link)
            else:
                return link

    def _begin(self, connection: Any, until: float) -> None:
        """Acquire the write lock, within one slice of the time until that monotonic time."""
        rest = until - time.monotonic()
        if rest >= SLICE:
            connection.execute("BEGIN IMMEDIATE")
            return
        connection.execute(f"PRAGMA busy_timeout = {max(0, int(rest * 1000))}")
        try:
            connection.execute("BEGIN IMMEDIATE")
        finally:
            connection.execute(f"PRAGMA busy_timeout = {int(SLICE * 1000)}")

    def _commit(self, link: Link, until: float) -> None:
        """Commit, and retry while a reader prevents it, which happens only in journal_mode=DELETE."""
        connection = link.connection
        link.is_committing = True
        while True:
            try:
                connection.execute("COMMIT")
            except self.driver.OperationalError as error:
                if _is_locked(error) and connection.in_transaction and time.monotonic() < until:
                    continue
                raise
            return

    def _note(self, error: BaseException, link: Link | None) -> None:
        """Add a note to an interrupt that says whether the transaction was committed."""
        if isinstance(error, TriggersError | GeneratorExit):
            return
        if link is not None and link.is_committing and not link.connection.in_transaction:
            error.add_note(f"The transaction on {self.path} was committed before this was raised.")
        else:
            error.add_note(f"The transaction on {self.path} is rolled back; nothing was changed.")

    @contextmanager
    def reading(self) -> Iterator[Run]:
        """A transaction that reads one consistent state of the file, without waiting for a writer."""
        with self._reading() as run:
            self.check_schema_version(run)
            yield run

    @contextmanager
    def _reading(self) -> Iterator[Run]:
        unforked.look()
        user, pool = Checkout(), self._pool
        try:
            try:
                until = time.monotonic() + self._parts.busy_timeout
                link = self._begun(user, until, self._begin_reading)
                yield Run(link)
            except self.driver.Error as error:
                raise self.translated(error) from error
            finally:
                pool.check_in(user)
        finally:
            pool.check_in(user)

    # The first statement acquires the lock for reading, so no later statement has to wait.
    def _begin_reading(self, link: Link) -> None:
        self._check_same(link, self.path)
        connection = link.connection
        connection.execute("BEGIN")
        try:
            connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
        except BaseException:
            connection.execute("ROLLBACK")
            raise

    @property
    def root(self) -> SqliteFile:
        """The file outside of joined transactions: this object."""
        return self

    @property
    def joined_here(self) -> list[Any]:
        """The transactions that this thread has joined. `is_in_transaction` tells which hold the lock."""
        try:
            joined: list[Any] = self._joined.connections
        except AttributeError:
            joined = self._joined.connections = []
        return joined

    def close(self) -> None:
        """Close all connections, those in use after their use. A later call opens new ones."""
        self._pool.close()

    def before_fork(self, until: float) -> None:
        """Close all connections, so that a child process inherits none."""
        self._pool.reserve(until, WAIT)
        self._is_locked_by_others = self._identity is not None and _is_locked_here(self._identity)

    def after_fork_in_parent(self) -> None:
        """Allow new connections again."""
        self._pool.unreserve()

    def after_fork(self) -> None:
        """Use a new pool in a child process, or refuse the file if the child has inherited a connection."""
        kept = self._pool.connections
        users = [user for user in self._pool.users if not isinstance(user, Reservation)]
        self._pool = self._new_pool()
        if self._identity is None:
            return
        shared = identity(f"{self.path}-shm")
        theirs = self._is_locked_by_others or (shared is not None and bool(_open_here(shared)))
        if not (kept or users or theirs):
            return
        message = (
            f"this process was forked while {self.path} was in use, so what it writes to the file could "
            f"be lost: close the application's own connections to the file before the fork, do not fork "
            f"within a transaction, or start a new process (multiprocessing: the method 'spawn')"
        )
        _barred[self._identity] = message
        if any(user.thread != threading.get_ident() for user in users):
            # That thread can have held a lock of SQLite that protects all files.
            _barred[None] = message
        for link in kept:
            inherited.append(link.connection)
            _never_close(link.connection)
            link.connection = _Barred(message)

    def _check_same(self, link: Link, *paths: str) -> None:
        """Raise a StorageError if a file at one of these paths is not the file that is open."""
        for path in paths:
            if identity(path) != link.files[path]:
                link.is_stale = True
                raise StorageError(self._replaced(path))

    def _replaced(self, path: str) -> str:
        return (
            f"{path} was deleted or replaced while it was in use; nothing was changed: put it back, or stop "
            f"every process that uses it and start them again"
        )

    def _open(self, until: float, keep: Callable[[Link], None]) -> None:
        """Open a connection and pass it to `keep`; a connection that fails or is interrupted is closed."""
        self._check_usable()
        connect = partial(
            self.driver.connect,
            uri=True,
            timeout=SLICE,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=256,
        )
        made: list[Any] = []
        try:
            # One call in C: no interrupt can occur between the opening and the list. With mode=rw, a deleted
            # file is not created again.
            made.extend(map(connect, (f"{Path(self.path).as_uri()}?mode=rw",)))
            connection = made[0]
            link = Link(connection)
            keep(link)
            self._with_retries(until, lambda: self._check_version(connection.execute))
            self._set_up(connection, until)
            link.files = self._opened_files(connection, until)
        except BaseException:
            for connection in made:
                connection.close()
            raise

    def _check_usable(self) -> None:
        """Raise a StorageError if the file was replaced, or this process must not use it."""
        now = identity(self.path)
        if self._identity is not None and now != self._identity:
            raise StorageError(self._replaced(self.path))
        message = _barred.get(now) or _barred.get(None)
        if message:
            raise StorageError(message)

    def _opened_files(self, connection: Any, until: float) -> dict[str, tuple[int, int]]:
        """The files that the connection has open: the database, and in WAL mode its log."""
        mode = self._with_retries(until, lambda: connection.execute("PRAGMA journal_mode").fetchone()[0])
        self._with_retries(
            until, lambda: connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
        )
        names = [self.path, f"{self.path}-wal"] if mode == "wal" else [self.path]
        return {name: found for name in names if (found := identity(name)) is not None}

    # Only after the check that the file belongs to Triggers, because the journal mode is written into it.
    def _set_up(self, connection: Any, until: float) -> None:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA mmap_size = 0")
        mode, durable = ("WAL", self._parts.synchronous) if self._safe else ("DELETE", "EXTRA")
        self._with_retries(until, lambda: connection.execute(f"PRAGMA journal_mode = {mode}"))
        connection.execute(f"PRAGMA synchronous = {durable}")

    # When SQLite changes the journal mode it does not wait for other connections, whatever the timeout is.
    def _with_retries(self, until: float, act: Callable[[], _T]) -> _T:
        while True:
            try:
                return act()
            except self.driver.OperationalError as error:
                if not _is_locked(error) or time.monotonic() >= until:
                    raise
                time.sleep(0.005)

    def _migrate(self) -> None:
        steps = migrations("sqlite")
        with self._reading() as run:
            found = self._check_version(run)
        for version in range(found, len(steps)):
            with self._writing() as run:
                if self._check_version(run) != version:
                    continue  # another process was faster
                for statement in steps[version]:
                    run(statement)
                run(f"PRAGMA user_version = {version + 1}")
                run(f"PRAGMA application_id = {APPLICATION_ID}")

    def _check_version(self, run: Any) -> int:
        known = len(migrations("sqlite"))
        # In this order, so that tables that another process creates now are not taken for foreign ones.
        occupied = run("SELECT 1 FROM sqlite_schema").fetchone()
        application = run("PRAGMA application_id").fetchone()[0]
        version: int = run("PRAGMA user_version").fetchone()[0]
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
                f"{self.path} belongs to another application: choose another path, or add ?shared=yes if it "
                f"is your own application; nothing was changed"
            )
            raise StorageCorruptError(message)
        if application or version:
            message = (
                f"{self.path} cannot be shared: its application uses PRAGMA application_id or user_version, "
                f"which Triggers needs; nothing was changed"
            )
            raise StorageCorruptError(message)

    def _busy(self, wait: float) -> str:
        return f"{self.path} stayed locked by another writer for {wait:g} s; nothing was changed: try again"

    def translated(self, error: Exception, wait: float = BUSY_TIMEOUT) -> StorageError:
        """The exception of Triggers for an error of the driver."""
        name = getattr(error, "sqlite_errorname", "") or ""
        text = str(error)
        if name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or "locked" in text:
            return StorageBusyError(self._busy(wait))
        if name.startswith("SQLITE_FULL") or "disk is full" in text:
            return StorageFullError(
                f"no space left for {self.path}; nothing was changed: free some disk space and try again"
            )
        if (
            name.startswith(("SQLITE_CORRUPT", "SQLITE_NOTADB"))
            or "malformed" in text
            or "not a database" in text
        ):
            return StorageCorruptError(
                f"{self.path} is damaged or not a SQLite file ({text}): restore a backup"
            )
        return StorageError(f"{self.path}: {text}; nothing was changed")


def _clean(driver: Any, link: Link) -> bool:
    """End an open transaction; returns whether the connection can be used again."""
    connection = link.connection
    link.is_committing = False
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        is_ready = not connection.in_transaction
    except driver.Error:  # for example, because it is closed
        return False
    return is_ready and not link.is_stale and bool(link.files)


def _close(driver: Any, link: Link) -> None:
    with suppress(driver.Error):
        link.connection.close()


#: The lock of the pool that a writer holds.
_WRITE: Final = "write"

#: Device and inode → why this process must not use that file; None for all files.
_barred: dict[tuple[int, int] | None, str] = {}

#: Connections that child processes have inherited and must neither use nor close.
inherited: list[Any] = []


class _Barred:
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


def _never_close(connection: Any) -> None:
    """Keep a reference, so that the connection is not closed at the end of this process either."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def identity(path: str) -> tuple[int, int] | None:
    """Device and inode of the file at this path, None if there is no file."""
    try:
        found = os.stat(path)  # noqa: PTH116 - called for each commit; Path takes twice as long
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _open_here(wanted: tuple[int, int]) -> list[str]:
    """The descriptors of this process for a file, where the system lists them (on Linux and macOS)."""
    folder = next(filter(os.path.isdir, ("/proc/self/fd", "/dev/fd")), None)
    found = Path(folder).iterdir() if folder else ()
    return [entry.name for entry in found if identity(str(entry)) == wanted]


def _is_locked_here(wanted: tuple[int, int]) -> bool:
    """Whether this process has a lock on the file, where the system lists locks (on Linux)."""
    for number in _open_here(wanted):
        with suppress(OSError):
            if "lock:" in Path(f"/proc/self/fdinfo/{number}").read_text():
                return True
    return False


def _is_locked(error: Exception) -> bool:
    name = getattr(error, "sqlite_errorname", "") or ""
    return name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or "locked" in str(error)


def _create(path: str) -> None:
    """Create an empty file that only its owner can read. A file that exists is not opened.

    Closing an existing file would release every lock that this process has on it.

    Raises:
        StorageError: the file cannot be created, or an existing file cannot be a SQLite file.
    """
    folder = Path(path).parent
    if not folder.is_dir():
        message = f"{folder} is not a folder: create it first, for the file {Path(path).name}"
        raise StorageError(message)
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    try:
        os.close(os.open(path, flags, 0o600))
    except FileExistsError as error:
        if not Path(path).exists():
            message = f"{path} is a link to a file that does not exist: create the file, or remove the link"
            raise StorageError(message) from error
        if 0 < Path(path).stat().st_size < SMALLEST_FILE:
            message = f"{path} is too small to be a SQLite file: choose another path; nothing was changed"
            raise StorageCorruptError(message) from error
    except OSError as error:
        message = f"{path} cannot be created: {error.strerror}"
        raise StorageError(message) from error


#: The size of the smallest SQLite file in bytes. SQLite itself would overwrite a smaller file.
SMALLEST_FILE: Final = 512

#: How a list of mounts writes spaces and similar characters in the name of a folder.
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")


def check_file_system(path: str, mounts: str = "/proc/self/mounts") -> None:
    """Refuse a network file system, where the type of file systems is known (on Linux).

    Raises:
        StorageError: the path is on a network file system.
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
