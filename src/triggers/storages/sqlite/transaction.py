"""Transactions on a SQLite file as context managers, and the statements that run in them.

They are classes, because a generator with :func:`contextlib.contextmanager` takes twice as long.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from triggers.fork import unforked
from triggers.storages.base import ConflictError
from triggers.storages.checkout import Checkout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from triggers.storages.checkout import Checkouts
    from triggers.storages.sqlite.read_only import Snapshot


class Run:
    """Runs statements on one connection, in its current transaction.

    Args:
        connection: the connection, of any driver.
    """

    __slots__ = ("connection",)

    def __init__(self, connection: Any) -> None:
        self.connection: Any = connection

    def __call__(self, statement: str, given: Sequence[Any] = ()) -> Any:
        """Run one statement; returns its cursor."""
        return self.connection.execute(statement, given)

    def many(self, statement: str, given: Iterable[Sequence[Any]], expected: int | None = None) -> None:
        """Run one statement for each row; raises ConflictError if not exactly `expected` rows changed."""
        changed = self.connection.executemany(statement, given).rowcount
        if expected is not None and changed != expected:
            raise ConflictError(statement)

    def one(self, statement: str, given: Sequence[Any]) -> None:
        """Run a statement; raises ConflictError if it does not change exactly one row."""
        if self.connection.execute(statement, given).rowcount != 1:
            raise ConflictError(statement)


class Link(Run):
    """One connection of the pool, which runs statements.

    Attributes:
        connection: the connection of the driver; in a forked child, an object that refuses every statement.
        files: path, device and inode of each file that it has open: the database, then its log.
        is_committing: whether the commit of its transaction has begun.
        is_stale: whether a file that it has open was deleted or replaced.
        snapshot: the state of the file when it was opened as immutable, else None.
    """

    __slots__ = ("_control", "_controlled", "files", "is_committing", "is_stale", "snapshot")

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._controlled: Any = None
        self._control: Any = None
        self.files: tuple[tuple[str, int, int], ...] = ()
        self.is_committing: bool = False
        self.is_stale: bool = False
        self.snapshot: Snapshot | None = None

    def control(self) -> Any:
        """Runs statements that begin and end transactions, on one cursor, which is faster than a new one."""
        connection = self.connection
        if connection is not self._controlled:
            is_plain = type(connection).__module__.partition(".")[0] in {"sqlite3", "pysqlite3"}
            self._control = connection.cursor().execute if is_plain else connection.execute
            self._controlled = connection
        return self._control


class Transaction:
    """A transaction on a connection of the pool: its steps, and what happens whatever ends them.

    Args:
        begin: begins it on a connection, which it returns; sets `pool` first.
        end: called if the block ends without an exception.
        fail: called with the exception that ended a step or the block; it can raise another one instead.
        wait: how long to wait for locks, in seconds.
        checks: whether the version of the schema is checked.

    Attributes:
        user: its checkout of the pool.
        until: the monotonic time at which waiting for locks times out.
        link: its connection, None until it has begun.
    """

    __slots__ = ("_begin", "_end", "_fail", "checks", "link", "pool", "until", "user", "wait")

    def __init__(
        self,
        begin: Callable[[Transaction], Link],
        end: Callable[[Transaction], None] | None,
        fail: Callable[[Transaction, BaseException], None],
        wait: float,
        *,
        checks: bool,
    ) -> None:
        self._begin = begin
        self._end = end
        self._fail = fail
        self.wait: float = wait
        self.checks: bool = checks
        self.link: Link | None = None
        self.pool: Checkouts[Link] | None = None

    def __enter__(self) -> Run:
        unforked.look()
        self.until: float = time.monotonic() + self.wait
        self.user: Checkout = Checkout(1)
        try:
            try:
                link = self.link = self._begin(self)
            except BaseException as error:
                self._fail(self, error)
                raise
        except BaseException:
            self._check_in_twice()
            raise
        return link

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            try:
                if error is not None:
                    self._fail(self, error)
                elif self._end is not None:
                    self._commit(self._end)
            finally:
                self.pool.check_in(self.user)  # type: ignore[union-attr]  # `begin` has set it
        finally:
            if not self.user.is_checked_in:  # an interrupt ended the first call
                self._check_in()

    def _commit(self, end: Callable[[Transaction], None]) -> None:
        try:
            end(self)
        except BaseException as error:
            self._fail(self, error)
            raise

    def _check_in(self) -> None:
        if self.pool is not None:
            self.pool.check_in(self.user)

    def _check_in_twice(self) -> None:
        try:
            self._check_in()
        finally:
            self._check_in()
