"""A SQLite file that several threads and processes write to: drivers, connections, transactions, errors.

**The life of a connection.** Each :class:`SqliteFile` has a pool of at most :data:`MAX_CONNECTIONS`
connections, whatever number of threads and greenlets use it, so it has at most ``2 * MAX_CONNECTIONS + 1``
descriptors.

*Who opens.* A transaction, or a read, takes the first free connection of the pool, and opens one if there
is none. The connection belongs to it until it ends, and to nobody between two of them. So nothing depends
on whether a thread is alive: in an ``atexit`` handler, and in a thread that outlives the main one, all
works as elsewhere.

*Who closes.* :meth:`SqliteFile.close` and a fork close what is idle. What is in use is closed by its user,
when it ends. No connection is closed while it is in use.

*Who writes.* One transaction at a time in each process has the lock ``"write"`` of the pool, and then waits
for SQLite's own lock, in slices of :data:`SLICE` seconds, between which signals are handled and a fork may
happen.

*An interrupt* is an exception that a signal handler, or another thread, raises anywhere. The transaction is
rolled back unless it was committed already, the locks are released, and a note on the exception says which
of the two it is (:mod:`triggers.storages.checkout` says how nothing can be lost). The exception itself is
not changed. For certainty beyond that, fire with a `key`: repeating such a firing does nothing if it was
stored.

*A fork.* SQLite keeps in the process's memory which locks the process has, and a child inherits that memory
but not the locks. A child that used the file then would lose what it has committed, or damage the file. So
every connection is closed before the fork, and both sides open new ones. A fork waits for transactions of
other threads, for at most :data:`triggers.fork.WAIT` seconds. The child then looks whether it has inherited
anything: a connection of ours that could not be closed (also because the process was forked from within a
transaction, or by a C library that runs no hooks), or the application's own connection to the file in WAL
mode, or with a lock. If so, it refuses to use the file, and says what to do. What it inherits is neither
used nor closed, not even when the child ends.

The application's own connections to the same file, of the same module, are not ours: an application must
close them before it forks.

*A file that is deleted or replaced* while it is open is noticed by its device and inode, at the beginning
of each read and before each commit, and so is its write-ahead log. Nothing is confirmed then, for as long
as the file of the beginning is not there again.
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

#: Marks a file as ours (PRAGMA application_id): "Trig".
APPLICATION_ID: Final = 0x54726967

#: So many connections of a process to one file are open at most.
MAX_CONNECTIONS: Final = 16

#: How long SQLite waits for a lock without letting signals, and forks, have their turn, in seconds.
SLICE: Final = 0.1

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


class Link:
    """One connection.

    Attributes:
        connection: the driver's; in a forked child, something that refuses.
        files: path → device and inode of what it has open.
        is_committing: whether its transaction was told to commit.
        is_stale: whether something that it has open was deleted or replaced.
    """

    __slots__ = ("connection", "files", "is_committing", "is_stale")

    def __init__(self, connection: Any) -> None:
        self.connection = connection
        self.files: dict[str, tuple[int, int]] = {}
        self.is_committing = False
        self.is_stale = False


class Run:
    """Runs statements on one connection, inside of whatever transaction it is in."""

    __slots__ = ("_link",)

    def __init__(self, link: Any) -> None:
        self._link = link

    def __call__(self, statement: str, given: Sequence[Any] = ()) -> Any:
        """Run one statement; returns its cursor."""
        return self._link.connection.execute(statement, given)

    def many(self, statement: str, given: Iterable[Sequence[Any]], expected: int | None = None) -> None:
        """Run one statement for each row; with `expected`, for so many changed rows or not at all."""
        changed = self._link.connection.executemany(statement, given).rowcount
        if expected is not None and changed != expected:
            raise ConflictError(statement)

    def one(self, statement: str, given: Sequence[Any]) -> None:
        """Run a statement that must change exactly one row."""
        if self._link.connection.execute(statement, given).rowcount != 1:
            raise ConflictError(statement)


class SqliteFile:
    """Connections to one file, used by the threads of a process.

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
        self._identity: tuple[int, int] | None = None
        self._is_locked_by_others = False
        self._pool = self._new_pool()
        self._joined = threading.local()
        close_before_fork(self)

    def _new_pool(self) -> Checkouts[Link]:
        return Checkouts(MAX_CONNECTIONS, partial(_clean, self.driver), partial(_close, self.driver))

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
        self._identity = identity(self.path)
        try:
            self._migrate()
        except self.driver.Error as error:
            raise self.translated(error) from error

    @contextmanager
    def transaction(self, timeout: float | None = None) -> Iterator[Run]:
        """A transaction that holds the only write lock; what it did is kept unless the block raises.

        An exception that interrupts it has a note that says whether it was committed.

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
            pool.check_in(user)  # once more: an interrupt may have struck within the first

    def _check_nesting(self, user: Checkout) -> None:
        """Refuse what would wait for itself."""
        joined_here = self.joined_here
        if joined_here and any(joined.is_in_transaction for joined in joined_here):
            message = (
                f"this thread has joined a transaction that holds the lock of {self.path}, and would wait "
                f"for itself: inside the block use the manager that has joined; nothing was changed"
            )
            raise StorageBusyError(message)
        holder = self._pool.holder(_WRITE)
        if holder is not None and holder.thread == user.thread and not holder.is_over():
            message = (
                f"this thread is in the middle of a commit to {self.path}, and would wait for itself: do not "
                f"fire in a signal handler, or in what a decision calls; nothing was changed"
            )
            raise StorageBusyError(message)

    def _lock(self, user: Checkout, until: float, wait: float) -> None:
        if not self._pool.lock(_WRITE, user, until):
            raise StorageBusyError(self._busy(wait))

    def _begun(self, user: Checkout, until: float, begin: Callable[[Link], object]) -> Link:
        """A connection on which a transaction has begun; between two tries it is nobody's."""
        while True:
            link = self._pool.check_out(user, until, partial(self._open, until))
            if link is None:
                message = (
                    f"all {MAX_CONNECTIONS} connections of this process to {self.path} stayed in use; "
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
        """Take the write lock, waiting for at most a slice of the time until that monotonic time."""
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
        """Commit; where a reader holds it up (journal_mode=DELETE only) it stays open: try again."""
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
        """Say on an exception that is not ours what has become of the transaction."""
        if isinstance(error, TriggersError | GeneratorExit):
            return
        if link is not None and link.is_committing and not link.connection.in_transaction:
            error.add_note(f"The transaction on {self.path} was committed before this was raised.")
        else:
            error.add_note(f"The transaction on {self.path} is rolled back; nothing was changed.")

    @contextmanager
    def reading(self) -> Iterator[Run]:
        """A transaction that sees one moment of the file and waits for no writer."""
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

    # What is read first takes the lock for reading, if there is one, so that nothing after it has to wait.
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

    def close(self) -> None:
        """Close every connection, those in use when they no longer are; a later call opens new ones."""
        self._pool.close()

    def before_fork(self, until: float) -> None:
        """Close every connection, so that a child inherits nothing."""
        self._pool.reserve(until, WAIT)
        self._is_locked_by_others = self._identity is not None and _is_locked_here(self._identity)

    def after_fork_in_parent(self) -> None:
        """Open connections again when they are needed."""
        self._pool.unreserve()

    def after_fork(self) -> None:
        """Open connections of its own when they are needed, unless the child has inherited something."""
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
            f"this process was forked while {self.path} was in use, and what it would write to it could be "
            f"lost: close the application's own connections to the file before the fork, do not fork within "
            f"a transaction, or start the process anew (multiprocessing: the method 'spawn')"
        )
        _barred[self._identity] = message
        if any(user.thread != threading.get_ident() for user in users):
            _barred[None] = (
                message  # it may have been within SQLite, and have had a lock that is for all files
            )
        for link in kept:
            inherited.append(link.connection)
            _keep_for_ever(link.connection)
            link.connection = _Barred(message)

    def _check_same(self, link: Link, *paths: str) -> None:
        """Raise a StorageError unless the files that are open are those that have these names."""
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
        """Open a connection, and keep it first: what fails, or is interrupted, is closed."""
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
            # One step for the interpreter: no interrupt comes between the opening and the list. A file that
            # was deleted is not made anew.
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
        """Raise a StorageError where the file is another one, or this process must not use it."""
        now = identity(self.path)
        if self._identity is not None and now != self._identity:
            raise StorageError(self._replaced(self.path))
        message = _barred.get(now) or _barred.get(None)
        if message:
            raise StorageError(message)

    def _opened_files(self, connection: Any, until: float) -> dict[str, tuple[int, int]]:
        """What the connection has open now: the file, and in WAL mode its log."""
        mode = self._with_retries(until, lambda: connection.execute("PRAGMA journal_mode").fetchone()[0])
        self._with_retries(
            until, lambda: connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
        )
        names = [self.path, f"{self.path}-wal"] if mode == "wal" else [self.path]
        return {name: found for name in names if (found := identity(name)) is not None}

    # Not before the file is known to be ours: the journal's mode is written into it.
    def _set_up(self, connection: Any, until: float) -> None:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA mmap_size = 0")
        mode, durable = ("WAL", self._parts.synchronous) if self._safe else ("DELETE", "EXTRA")
        self._with_retries(until, lambda: connection.execute(f"PRAGMA journal_mode = {mode}"))
        connection.execute(f"PRAGMA synchronous = {durable}")

    # SQLite does not wait for others when it changes the journal's mode, whatever its timeout is.
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
        # In this order: tables that another process makes in between are never taken for somebody else's.
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


def _clean(driver: Any, link: Link) -> bool:
    """End whatever was left open; returns whether the connection can be used again."""
    connection = link.connection
    link.is_committing = False
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        is_ready = not connection.in_transaction
    except driver.Error:  # also of one that is closed
        return False
    return is_ready and not link.is_stale and bool(link.files)


def _close(driver: Any, link: Link) -> None:
    with suppress(driver.Error):
        link.connection.close()


#: The lock of the pool that a writer has.
_WRITE: Final = "write"

#: Device and inode → why this process must not use that file; None for all files.
_barred: dict[tuple[int, int] | None, str] = {}

#: What processes inherited and must neither use nor close.
inherited: list[Any] = []


class _Barred:
    """Takes the place of a connection in a child that has inherited it."""

    in_transaction: Final = False

    def __init__(self, message: str) -> None:
        self._message = message

    def execute(self, *_: object) -> NoReturn:
        """Raise a StorageError."""
        raise StorageError(self._message)

    executemany = execute

    def close(self) -> None:
        """Leave it open: to close it would end the parent's locks, or delete the parent's log."""


def _keep_for_ever(connection: Any) -> None:
    """Let the end of this process not close it either."""
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(connection))


def identity(path: str) -> tuple[int, int] | None:
    """Device and inode of the file of that name, None if there is none."""
    try:
        found = os.stat(path)  # noqa: PTH116 - for each commit: Path costs twice as much
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _open_here(wanted: tuple[int, int]) -> list[str]:
    """The descriptors of this process for a file, as far as the system tells (Linux and macOS do)."""
    folder = next(filter(os.path.isdir, ("/proc/self/fd", "/dev/fd")), None)
    found = Path(folder).iterdir() if folder else ()
    return [entry.name for entry in found if identity(str(entry)) == wanted]


def _is_locked_here(wanted: tuple[int, int]) -> bool:
    """Whether this process has a lock on the file (Linux tells)."""
    for number in _open_here(wanted):
        with suppress(OSError):
            if "lock:" in Path(f"/proc/self/fdinfo/{number}").read_text():
                return True
    return False


def _is_locked(error: Exception) -> bool:
    name = getattr(error, "sqlite_errorname", "") or ""
    return name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or "locked" in str(error)


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
