"""A transaction of the application on a SQLite file, in which each commit of a session is a savepoint."""

from __future__ import annotations

from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from triggers.core.values import type_name
from triggers.exceptions import StorageBusyError, StorageError
from triggers.storages.joining.transaction import AsyncConnection
from triggers.storages.sqlite.transaction import Run

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from triggers.storages.sqlite.file import SqliteFile

#: Acquires the write lock and changes nothing. SQLite refuses the lock if what this transaction has read
#: before is no longer what is stored.
LOCK: Final = "UPDATE rule_sets SET id = id WHERE 0"


class JoinedFile:
    """A :class:`SqliteFile` as an open transaction of the application sees it.

    It acquires the write lock immediately. If no transaction is open, and the driver would begin one with the
    first write, it begins the transaction.

    Args:
        file: the file.
        connection: the connection of the application, of the same driver as the file's.

    Raises:
        StorageError: the transaction cannot be joined; it is unchanged.
    """

    def __init__(self, file: SqliteFile, connection: Any) -> None:
        self.url: str = file.url
        self._file = file
        self._connection = connection
        self._check_module()
        with self._errors(), self._plain() as run:
            self._check_file(run)
            try:
                self._begin(run)
                run(LOCK)
            except file.driver.OperationalError as error:
                if isinstance(file.translated(error), StorageBusyError):
                    raise StorageBusyError(self._late()) from error
                raise
        file.joined_here.append(self)

    @contextmanager
    def transaction(self, timeout: float | None = None) -> Iterator[Run]:  # noqa: ARG002 - the timeout of the connection counts
        """A savepoint that holds the write lock. Its changes are kept unless the block raises an exception.

        Args:
            timeout: is not used; the timeout of the application's connection counts.

        Raises:
            StorageError: nothing was changed. The transaction can continue unless the message says otherwise.
        """
        with self._errors(), self._open() as run:
            try:
                run("SAVEPOINT triggers")  # within the `try`: an interrupt may come right after it
                run(LOCK)  # this can be another transaction than the one at the beginning of the block
                self._file.check_schema_version(run)
                yield run
            except BaseException as error:
                if not self.is_in_transaction and isinstance(error, Exception):
                    message = f"{error}: SQLite has rolled your whole transaction back; run it again"
                    raise StorageError(message) from error
                self._undo(run)
                raise
            run("RELEASE triggers")

    def _undo(self, run: Run) -> None:
        with suppress(self._file.driver.OperationalError):  # there may be no savepoint yet
            run("ROLLBACK TO triggers")
            run("RELEASE triggers")

    @contextmanager
    def reading(self) -> Iterator[Run]:
        """Read what the transaction sees."""
        with self._errors(), self._open() as run:
            self._file.check_schema_version(run)
            yield run

    @property
    def root(self) -> SqliteFile:
        """The file, as it is outside of the transaction."""
        return self._file

    @property
    def is_in_transaction(self) -> bool:
        """Whether the application's transaction is open."""
        try:
            return bool(self._connection.in_transaction)
        except self._file.driver.Error:  # closed
            return False

    def close(self) -> None:
        """Stop using the connection, which the application will close."""
        if self in self._file.joined_here:
            self._file.joined_here.remove(self)

    @contextmanager
    def _open(self) -> Iterator[Run]:
        if not self.is_in_transaction:
            message = "the transaction that was joined has ended: open a block for each transaction"
            raise StorageError(message)
        with self._plain() as run:
            yield run

    @contextmanager
    def _plain(self) -> Iterator[Run]:
        """Read tuples and strings, whatever row and text factories the application has set."""
        given = self._connection.text_factory
        self._connection.text_factory = str
        try:
            yield Run(_Plain(self._connection, self._file.driver))
        finally:
            self._connection.text_factory = given

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except self._file.driver.Error as error:
            raise self._file.translated(error) from error

    # -- what can be joined -----------------------------------------------------------------------------

    def _check_module(self) -> None:
        driver, given = self._file.driver, self._connection
        if isinstance(given, driver.Connection):
            return
        if isinstance(given, AsyncConnection):
            message = (
                "an asynchronous connection to SQLite cannot be joined: use an ordinary engine, on a thread "
                "(await asyncio.to_thread(function))"
            )
            raise StorageError(message)
        ours = driver.__name__.partition(".")[0]
        kind = type_name(type(given))
        theirs = kind.partition(".")[0]
        if not (hasattr(given, "in_transaction") and hasattr(given, "text_factory")):
            message = f"a connection to {self._file.path} is needed, not a {kind}"
            raise StorageError(message)
        message = (
            f"the connection is of the module {theirs}, and the storage uses {ours}: two copies of SQLite in "
            f"one process break each other's locks; use {ours} for both, or put driver={theirs} into the "
            f"storage's URL (sqlite:///…?driver={theirs})"
        )
        raise StorageError(message)

    def _check_file(self, run: Run) -> None:
        path = next((row[2] for row in run("PRAGMA database_list") if row[1] == "main"), "")
        try:
            same = bool(path) and Path(path).samefile(self._file.path)
        except OSError:
            same = False
        if not same:
            message = (
                f"the connection is to {path or 'a database in memory'}, and the storage is "
                f"{self._file.path}: one commit cannot change two files, so keep both in the same one"
            )
            raise StorageError(message)

    def _begin(self, run: Run) -> None:
        """Begin as the driver would before the next write, but acquire the write lock immediately."""
        if self.is_in_transaction:
            return
        autocommit = getattr(self._connection, "autocommit", None)
        if self._connection.isolation_level is None or autocommit is True:
            message = (
                "the connection is not in a transaction, so each statement is committed separately: "
                "execute BEGIN IMMEDIATE first"
            )
            raise StorageError(message)
        run("BEGIN IMMEDIATE")

    def _late(self) -> str:
        return (
            f"the transaction cannot acquire the write lock of {self._file.path}: another writer has it, or "
            f"has written since this transaction began to read; nothing was changed: roll back, and begin "
            f"with BEGIN IMMEDIATE (Django: OPTIONS = {{'transaction_mode': 'IMMEDIATE'}})"
        )


class _Plain:
    """A connection whose cursors return tuples, whatever its row factory is."""

    __slots__ = ("_connection", "_cursor")

    def __init__(self, connection: Any, driver: Any) -> None:
        self._connection = connection
        self._cursor = driver.Cursor

    @property
    def in_transaction(self) -> bool:
        return bool(self._connection.in_transaction)

    def execute(self, statement: str, given: tuple[Any, ...] = ()) -> Any:
        return self._fresh().execute(statement, given)

    def executemany(self, statement: str, given: Iterable[tuple[Any, ...]]) -> Any:
        return self._fresh().executemany(statement, given)

    def _fresh(self) -> Any:
        cursor = self._cursor(self._connection)
        cursor.row_factory = None
        return cursor
