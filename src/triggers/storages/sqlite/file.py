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

*A file that cannot be written*, or whose URL has ``mode=ro``, can be read. Writing is refused before anything
is begun. :mod:`triggers.storages.sqlite.read_only` explains what SQLite needs for that.

*A file that is deleted or replaced* while it is open is detected by its device and inode, at the beginning of
each read and before each commit. The same is true for its write-ahead log. Nothing is confirmed until the
original file is back.
"""

from __future__ import annotations

import os
import threading
import time
import warnings
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

from triggers.exceptions import (
    SchemaVersionError,
    StorageBusyError,
    StorageCorruptError,
    StorageError,
    StorageFullError,
    TriggersError,
)
from triggers.fork import WAIT, close_before_fork
from triggers.storages.checkout import Checkouts, Reservation
from triggers.storages.sql import migrations
from triggers.storages.sqlite.creation import check_file_system, create_file
from triggers.storages.sqlite.inherited import (
    BarredConnection,
    barred,
    descriptors,
    identity,
    inherited,
    is_locked_here,
    never_close,
)
from triggers.storages.sqlite.read_only import CHANGING, can_write, is_unopened, mode_of, snapshot
from triggers.storages.sqlite.transaction import Link, Transaction
from triggers.storages.sqlite.url import BUSY_TIMEOUT, SqliteUrl, is_safe, load_driver

if TYPE_CHECKING:
    from collections.abc import Callable

    from triggers.storages.checkout import Checkout

_T = TypeVar("_T")

#: Marks a file of Triggers (PRAGMA application_id): "Trig".
APPLICATION_ID: Final = 0x54726967

#: The largest number of connections of a process to one file.
MAX_CONNECTIONS: Final = 16

#: How long SQLite waits for a lock before signals are handled and a fork can happen, in seconds.
SLICE: Final = 0.1

#: The longest path in a message, in characters.
MAX_SHOWN: Final = 300


class SqliteFile:
    """Connections to one file, which the threads of a process share.

    Args:
        url: the URL, for messages.
        parts: the parts of the URL.
        driver: a module with the interface of :mod:`sqlite3`.

    Attributes:
        path: the absolute path of the file.
        is_read_only: whether the file can only be read; :meth:`prepare` finds out.
    """

    def __init__(self, url: str, parts: SqliteUrl, driver: Any) -> None:
        self.url = url
        self.path: str = str(Path(parts.path).absolute())
        self._parts = parts
        self.is_read_only: bool = parts.mode == "ro"
        self.driver = driver
        self._safe = is_safe(driver.sqlite_version_info)
        self._version = len(migrations("sqlite"))
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

        A file that can only be read must exist, with the schema of this version.

        Raises:
            StorageError: the file cannot be used; it is unchanged.
        """
        try:
            check_file_system(self.path)
            self._find_or_create()
        except OSError as error:
            message = f"{self.path[:MAX_SHOWN]} cannot be opened: {error.strerror}"
            raise StorageError(message) from error
        if not self._safe and not self.is_read_only:
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

    def _find_or_create(self) -> None:
        exists = Path(self.path).exists()
        if self.is_read_only and not exists:
            raise StorageError(f"there is no file {self.path}, and mode=ro does not create one")
        if exists and not os.access(self.path, os.R_OK):
            raise StorageError(f"{self.path} cannot be read: let this process read the file")
        if exists and not can_write(self.path):
            self.is_read_only = True
        if not self.is_read_only:
            create_file(self.path)

    def transaction(self, timeout: float | None = None) -> Transaction:
        """A transaction that holds the write lock. Its changes are kept unless the block raises an exception.

        An exception that interrupts it gets a note that says whether the transaction was committed.

        Args:
            timeout: how long to wait for the lock, in seconds; None for the setting of the URL.

        Raises:
            SchemaVersionError: another version of Triggers has migrated the file; nothing was changed.
            StorageError: nothing was changed; for example, because the file is opened read-only.
        """
        return self._writing(timeout, checks=True)

    def check_schema_version(self, run: Callable[[str], Any]) -> None:
        """Check within a transaction that the schema has the version that this process requires.

        Raises:
            SchemaVersionError: the schema has another version.
        """
        known = self._version
        version: int = run("PRAGMA user_version").fetchone()[0]
        if version != known:
            message = (
                f"{self.path} no longer has schema version {known}, which this process requires: another "
                f"version of Triggers has migrated it; upgrade Triggers and restart this process; nothing "
                f"was changed"
            )
            raise SchemaVersionError(message)

    def _writing(self, timeout: float | None = None, *, checks: bool) -> Transaction:
        wait = self._parts.busy_timeout if timeout is None else timeout
        return Transaction(self._begin_writing, self._end_writing, self._fail_writing, wait, checks=checks)

    def _begin_writing(self, transaction: Transaction) -> Link:
        if self.is_read_only:
            raise StorageError(self._refused())
        pool = transaction.pool = self._pool
        user, until = transaction.user, transaction.until
        joined = self.joined_here
        if joined:
            self._check_joined(joined)
        link = pool.check_out_idle(user, _WRITE)
        if link is None:
            self._check_nesting(user)
            if not pool.lock(_WRITE, user, until):
                raise StorageBusyError(self._busy(transaction.wait))
        link = self._begun(pool, transaction, self._begin, link)
        if transaction.checks:
            self.check_schema_version(link.control())
        return link

    def _end_writing(self, transaction: Transaction) -> None:
        link = transaction.link
        assert link is not None  # noqa: S101 - for mypy: it has begun
        self._check_same(link, link.files)
        self._commit(link, transaction.until)

    def _fail_writing(self, transaction: Transaction, error: BaseException) -> None:
        link = transaction.link
        if isinstance(error, self.driver.Error):
            if link is not None:
                self._check_same(link, link.files)
            raise self.translated(error, transaction.wait) from error
        self._note(error, link)

    def _check_joined(self, joined_here: list[Any]) -> None:
        """Refuse a transaction that would wait for one that this thread has joined."""
        if any(joined.is_in_transaction for joined in joined_here):
            message = (
                f"this thread has joined a transaction that holds the lock of {self.path}, so it would wait "
                f"for itself: inside the block, use the manager that has joined; nothing was changed"
            )
            raise StorageBusyError(message)

    def _check_nesting(self, user: Checkout) -> None:
        """Refuse a transaction that would wait for another one of the same thread."""
        holder = self._pool.holder(_WRITE)
        if (
            holder is not None
            and holder is not user
            and holder.thread == user.thread
            and not holder.is_over()
        ):
            message = (
                f"this thread is in the middle of a commit to {self.path}, so it would wait for itself: do "
                f"not fire in a signal handler, or in code that a decision calls; nothing was changed"
            )
            raise StorageBusyError(message)

    def _begun(
        self,
        pool: Checkouts[Link],
        transaction: Transaction,
        begin: Callable[[Link, float], object],
        link: Link | None,
    ) -> Link:
        """A connection on which a transaction has begun. It is returned to the pool between two attempts."""
        user, until = transaction.user, transaction.until
        while True:
            link = link or pool.check_out(user, until, partial(self._open, until))
            if link is None:
                message = (
                    f"all {MAX_CONNECTIONS} connections of this process to {self.path} are in use; "
                    f"nothing was changed: try again"
                )
                raise StorageBusyError(message)
            try:
                begin(link, until)
            except self.driver.OperationalError as error:
                if not _is_locked(error) or time.monotonic() >= until:
                    raise
                pool.return_one(user, link)
                link = None
            else:
                return link

    def _begin(self, link: Link, until: float) -> None:
        """Acquire the write lock, within one slice of the time until that monotonic time."""
        connection = link.connection
        rest = until - time.monotonic()
        if rest >= SLICE:
            link.control()("BEGIN IMMEDIATE")
            return
        connection.execute(f"PRAGMA busy_timeout = {max(0, int(rest * 1000))}")
        try:
            connection.execute("BEGIN IMMEDIATE")
        finally:
            connection.execute(f"PRAGMA busy_timeout = {int(SLICE * 1000)}")

    def _commit(self, link: Link, until: float) -> None:
        """Commit, and retry while a reader prevents it, which happens only in journal_mode=DELETE."""
        connection, run = link.connection, link.control()
        link.is_committing = True
        while True:
            try:
                run("COMMIT")
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

    def reading(self) -> Transaction:
        """A transaction that reads one consistent state of the file, without waiting for a writer."""
        return self._reading(checks=True)

    def _reading(self, *, checks: bool) -> Transaction:
        begin, wait = self._begin_reading, self._parts.busy_timeout
        return Transaction(begin, self._end_reading, self._fail_reading, wait, checks=checks)

    def _begin_reading(self, transaction: Transaction) -> Link:
        pool = transaction.pool = self._pool
        begin = self._begin_checked if transaction.checks else self._begin_unchecked
        return self._begun(pool, transaction, begin, pool.check_out_idle(transaction.user))

    # The first statement acquires the lock for reading, so no later statement has to wait.
    def _begin_checked(self, link: Link, _: float) -> None:
        self._check_same(link, link.files[:1])
        run = link.control()
        run("BEGIN")
        self.check_schema_version(run)

    def _begin_unchecked(self, link: Link, _: float) -> None:
        link.connection.execute("BEGIN")
        link.connection.execute("PRAGMA user_version").fetchone()

    def _end_reading(self, transaction: Transaction) -> None:
        link = transaction.link
        if link is not None and link.snapshot is not None and link.snapshot != snapshot(self.path):
            message = f"{self.path} was changed while it was read as an immutable file: try again"
            raise StorageBusyError(message)

    def _fail_reading(self, _: Transaction, error: BaseException) -> None:
        if isinstance(error, self.driver.Error):
            raise self.translated(error) from error

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
        self._is_locked_by_others = self._identity is not None and is_locked_here(self._identity)

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
        theirs = self._is_locked_by_others or (shared is not None and bool(descriptors(shared)))
        if not (kept or users or theirs):
            return
        message = (
            f"this process was forked while {self.path} was in use, so what it writes to the file could "
            f"be lost: close the application's own connections to the file before the fork, do not fork "
            f"within a transaction, or start a new process (multiprocessing: the method 'spawn')"
        )
        barred[self._identity] = message
        if any(user.thread != threading.get_ident() for user in users):
            # That thread can have held a lock of SQLite that protects all files.
            barred[None] = message
        for link in kept:
            inherited.append(link.connection)
            never_close(link.connection)
            link.connection = BarredConnection(message)

    def _check_same(self, link: Link, files: tuple[tuple[str, int, int], ...]) -> None:
        """Raise a StorageError if a file at one of these paths is not the file that is open."""
        for path, device, inode in files:
            try:
                found = os.stat(path)  # noqa: PTH116 - called for each commit; Path takes twice as long
            except OSError:
                found = None
            if found is None or found.st_ino != inode or found.st_dev != device:
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
            before = snapshot(self.path) if self.is_read_only else None
            mode = mode_of(self.path, self.driver) if self.is_read_only else "mode=rw"
            # One call in C: no interrupt can occur between the opening and the list. Without mode=rwc, a
            # deleted file is not created again.
            made.extend(map(connect, (f"{Path(self.path).as_uri()}?{mode}",)))
            connection = made[0]
            link = Link(connection)
            link.snapshot = (before or CHANGING) if "immutable" in mode else None
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
        message = barred.get(now) or barred.get(None)
        if message:
            raise StorageError(message)

    def _opened_files(self, connection: Any, until: float) -> tuple[tuple[str, int, int], ...]:
        """The files that the connection has open: the database, and in WAL mode its log."""
        mode = self._with_retries(until, lambda: connection.execute("PRAGMA journal_mode").fetchone()[0])
        self._with_retries(
            until, lambda: connection.execute("SELECT 1 FROM sqlite_schema LIMIT 1").fetchone()
        )
        names = [self.path, f"{self.path}-wal"] if mode == "wal" else [self.path]
        return tuple((name, *found) for name in names if (found := identity(name)) is not None)

    # Only after the check that the file belongs to Triggers, because the journal mode is written into it.
    def _set_up(self, connection: Any, until: float) -> None:
        connection.execute("PRAGMA trusted_schema = OFF")
        connection.execute("PRAGMA mmap_size = 0")
        if self.is_read_only:
            return
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
        with self._reading(checks=False) as run:
            found = self._check_version(run)
        if self.is_read_only and found < len(steps):
            message = (
                f"{self.path} has schema version {found}, and this version of Triggers needs {len(steps)}: "
                f"open it for writing once, which migrates it"
            )
            raise StorageError(message)
        for version in range(found, len(steps)):
            with self._writing(checks=False) as run:
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

    def _refused(self) -> str:
        what_to_do = (
            "remove mode=ro from the URL"
            if self._parts.mode == "ro"
            else "let this process write to the file and to its folder, and start it again"
        )
        return f"{self.path} is opened read-only; nothing was changed: {what_to_do}"

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
        if self.is_read_only and is_unopened(error):
            return StorageError(
                f"{self.path} cannot be read where it is ({text}): its log {self.path}-wal has data, and "
                f"SQLite cannot create {self.path}-shm beside it; let this process write to the folder, or "
                f"copy both files to another one"
            )
        return StorageError(f"{self.path}: {text}; nothing was changed")


def _clean(driver: Any, link: Link) -> bool:
    """End an open transaction; returns whether the connection can be used again."""
    connection = link.connection
    link.is_committing = False
    try:
        if connection.in_transaction:
            link.control()("ROLLBACK")
            if connection.in_transaction:
                return False
    except driver.Error:  # for example, because it is closed
        return False
    return not link.is_stale and bool(link.files) and link.snapshot is None


def _close(driver: Any, link: Link) -> None:
    with suppress(driver.Error):
        link.connection.close()


#: The lock of the pool that a writer holds.
_WRITE: Final = "write"


def _is_locked(error: Exception) -> bool:
    name = getattr(error, "sqlite_errorname", "") or ""
    return name.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")) or "locked" in str(error)
