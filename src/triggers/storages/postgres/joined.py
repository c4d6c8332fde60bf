"""A transaction of the application on PostgreSQL, in which each commit of a session is a savepoint."""

from __future__ import annotations

import asyncio
import math
import os
import select
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer

from triggers.core.values import type_name
from triggers.exceptions import StorageBusyError, StorageError
from triggers.storages.joining.transaction import AsyncConnection
from triggers.storages.postgres.connection import LostError, PipelineConnection, ServerError
from triggers.storages.postgres.pool import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triggers.storages.postgres.decide import Step
    from triggers.storages.postgres.url import PostgresUrl
    from triggers.storages.sql.rows import Row

T = TypeVar("T")

AnyConnection = psycopg.Connection[Any] | psycopg.AsyncConnection[Any]

_SAVEPOINTS: Final = {
    "savepoint": b"SAVEPOINT triggers",
    "release": b"RELEASE SAVEPOINT triggers",
    "back": b"ROLLBACK TO SAVEPOINT triggers",
}

_BEGIN: Final[list[Step]] = [("savepoint", ())]
_COMMIT: Final[list[Step]] = [("release", ())]
_ROLLBACK: Final[list[Step]] = [("back", ()), ("release", ())]

#: What replaces the statements that begin and end transactions, and those that change settings: the settings
#: of the connection are those of the application.
_INSTEAD: Final[dict[str, list[Step]]] = {
    "begin": _BEGIN,
    "begin_reading": _BEGIN,
    "commit": _COMMIT,
    "rollback": _ROLLBACK,
    "session_settings": [],
    "lock_timeout": [],
    "index_order": [],
    "no_statement_timeout": [],
}

_BEGINNINGS: Final = frozenset({"begin", "begin_reading"})

_STATUS: Final = pq.TransactionStatus

_ENDED: Final = {
    _STATUS.ACTIVE: "another statement is running on the connection: wait for its end",
    _STATUS.IDLE: "the transaction that was joined has ended: open a block for each transaction",
    _STATUS.INERROR: "a statement has failed in your transaction: roll it back, or a savepoint in it, first",
    _STATUS.UNKNOWN: "the connection is closed",
}

#: Errors after which the whole transaction must be run again: a deadlock, a row that changed since its
#: snapshot.
_AGAIN: Final = frozenset({"40001", "40P01"})

#: SQLSTATEs for a table, schema or function that does not exist.
_MISSING: Final = frozenset({"42P01", "3F000", "42883"})


class JoinedWire(PipelineConnection):
    """The application's connection, with a savepoint for each transaction of the storage.

    Args:
        connection: a connection of psycopg.
        texts: name → statement.
        wait: waits for a coroutine; needed for an asynchronous connection.
    """

    __slots__ = ("_begun", "_lock", "_waits")

    def __init__(
        self, connection: AnyConnection, texts: dict[str, bytes], wait: Callable[[Any], None] | None = None
    ) -> None:
        self._begun = False
        self._lock = connection.lock if isinstance(connection, psycopg.Connection) else nullcontext()
        self._waits = wait
        self._pg = connection.pgconn
        self._pid = os.getpid()
        self._texts = texts | _SAVEPOINTS
        self._known = {}
        self._types = Transformer()  # not the connection's, which the application can change
        self._poll = select.poll() if hasattr(select, "poll") else None
        self._prepares = False
        self.exchanges = 0
        self.incarnation = ""
        self.is_pooled = False

    def __call__(self, steps: Sequence[Step], until: float | None = None) -> list[list[Row]]:  # noqa: ARG002
        """Run the named statements in one round trip, in a savepoint, with the timeouts of the connection.

        Returns:
            The rows of each statement; none for a statement that is not run here.

        Raises:
            ServerError: a statement was refused; the savepoint is rolled back.
            StorageError: the transaction has ended, has failed, or was lost with its connection.
        """
        self.check()
        names = [name for name, _ in steps]
        replaced = [_INSTEAD.get(name, [(name, given)]) for name, given in steps]
        wanted = [step for each in replaced for step in each]
        if not self._begun and _BEGINNINGS.isdisjoint(names):
            return _answers_to(replaced, self._savely([*_BEGIN, *wanted, *_COMMIT])[1:-1])
        self._begun = True
        answers = self._savely(wanted)
        self._begun = not {"commit", "rollback"}.intersection(names)
        return _answers_to(replaced, answers)

    def undo(self) -> None:
        """Roll back the savepoint, if one is open."""
        if self._begun:
            self._begun = False
            self._exchange(_ROLLBACK)

    def check(self) -> None:
        """Check that the transaction is open and can be used.

        Raises:
            StorageError: it is not, and why.
        """
        status = self._pg.transaction_status
        if status != _STATUS.INTRANS or self._pg.pipeline_status:
            raise StorageError(_ENDED.get(status, "the connection is in pipeline mode: leave that first"))

    def _savely(self, steps: Sequence[Step]) -> list[list[Row]]:
        try:
            return self._exchange(steps)
        except ServerError:
            self._begun = True
            self.undo()
            raise

    def _exchange(self, steps: Sequence[Step]) -> list[list[Row]]:
        with self._lock:
            self._pg.enter_pipeline_mode()
            try:
                return super().__call__(steps)
            except LostError as error:
                message = f"the connection was lost, and your transaction with it ({error}): run it again"
                raise StorageError(message) from error
            except (ServerError, StorageError, UnicodeError):  # all answers were read, or nothing was sent
                raise
            except BaseException:  # unread answers would be taken for answers to later statements
                self._pg.finish()
                raise
            finally:
                with suppress(psycopg.Error):
                    self._pg.exit_pipeline_mode()

    def _is_ready(self, seconds: float | None, *, writing: bool) -> bool:
        if self._waits is None:
            return super()._is_ready(seconds, writing=writing)
        self._waits(_ready(self._pg.socket, writing=writing))
        return True


def _answers_to(replaced: list[list[Step]], answers: list[list[Row]]) -> list[list[Row]]:
    """The rows of each statement, from the answers to the statements that have replaced it."""
    left = iter(answers)
    return [[row for _ in each for row in next(left)] for each in replaced]


async def _ready(socket: int, *, writing: bool) -> None:
    """Wait until the socket can be read from or, if asked, written to; other tasks run meanwhile."""
    loop, ready = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(socket, ready.set)
    if writing:
        loop.add_writer(socket, ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(socket)
        loop.remove_writer(socket)


class JoinedPool:
    """The application's connection, with the interface of a :class:`~triggers.storages.postgres.pool.Pool`.

    Args:
        url: the URL of the storage.
        connection: the connection of the application.
        texts: name → statement.

    Raises:
        StorageError: the connection cannot be used, or is not in a transaction.
    """

    def __init__(self, url: PostgresUrl, connection: Any, texts: dict[str, bytes]) -> None:
        self.url = url
        wait = None
        if isinstance(connection, AsyncConnection):
            connection, wait = connection.connection, connection.wait
        if not isinstance(connection, psycopg.AsyncConnection if wait else psycopg.Connection):
            kind = type_name(type(connection))
            message = f"a connection of psycopg 3 to {url.shown} is needed, not a {kind}"
            raise StorageError(message)
        _begin(connection)
        self._wire = JoinedWire(connection, texts, wait)
        self._wire.check()
        encoding = self._wire.setting("client_encoding")
        if encoding != "UTF8":
            message = f"the connection's client_encoding is {encoding}, and must be UTF8"
            raise StorageError(message)

    def mark(self) -> str:
        """The mark of the schema in the connection's database; "" if there is no schema."""
        try:
            found = self._wire([("incarnation", ())])[0]
        except ServerError as error:
            if error.code in _MISSING:
                return ""
            raise translated(error, self.url, 0) from None
        return found[0][0] if found else ""

    def with_retries(self, work: Callable[[PipelineConnection, float], T], timeout: float | None = None) -> T:  # noqa: ARG002
        """Do the work once, in a savepoint, with the lock timeout of the connection.

        Raises:
            StorageError: nothing was done. The transaction can continue unless the message says otherwise.
        """
        try:
            return work(self._wire, math.inf)
        except ServerError as error:
            if error.code in _AGAIN:
                message = f"{error.text}; roll your transaction back and run it again"
                raise StorageBusyError(message) from None
            raise translated(error, self.url, 0) from None
        except BaseException:
            self._wire.undo()
            raise

    def forget(self) -> None:
        """Do nothing: the application closes its connection."""


def _begin(connection: AnyConnection) -> None:
    """Begin the transaction that psycopg would begin with the next statement."""
    if connection.pgconn.transaction_status != _STATUS.IDLE:
        return
    if connection.autocommit:
        message = (
            "the connection is not in a transaction, so each statement is committed separately: "
            "write `with connection.transaction():` around the block"
        )
        raise StorageError(message)
    if isinstance(connection, psycopg.Connection):
        psycopg.Cursor(connection).execute("SELECT 1")
