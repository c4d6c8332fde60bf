"""The application's own transaction: on which connection it is, whether it is still open, what follows it.

An application hands over what it has: a driver's connection, or what SQLAlchemy or Django wraps around
one. Neither is imported here: whoever has such an object has imported them.

A :class:`Block` is the stretch of code in which one manager works within such a transaction.
"""

from __future__ import annotations

import logging
import os
import re
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from triggers.exceptions import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggers.storages.base import Storage

_log = logging.getLogger(__name__)

Call = Callable[[], None]

#: Where a SQLAlchemy connection keeps what is to follow its commit, as long as it is not in the pool.
PENDING: Final = "triggers.pending"

_SAVEPOINT: Final = re.compile(
    r"\s*(?:(?P<made>savepoint)|(?P<back>rollback(?:\s+(?:work|transaction))?\s+to(?:\s+savepoint)?)"
    r"|release(?:\s+savepoint)?)\s+(?P<name>[^\s;]+)\s*;?\s*",
    re.IGNORECASE,
)


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class Awaited:
    """A driver's asynchronous connection that synchronous code works with.

    Attributes:
        connection: the driver's own.
        wait: gives the result of a coroutine; others run meanwhile.
    """

    connection: Any
    wait: Callable[[Coroutine[Any, Any, None]], None]


@dataclass(frozen=True, slots=True)
class Joining:
    """A transaction of the application's.

    Attributes:
        connection: the driver's own connection, or :class:`Awaited`.
        check: raises a :class:`~triggers.exceptions.StorageError` where the transaction has ended.
        after_commit: takes what is to be called after the outermost commit, and not at all if what was done
            by then is rolled back; None where nobody can tell when that is.
    """

    connection: Any
    check: Call = _nothing
    after_commit: Callable[[Call], None] | None = None


def joining(connection: object) -> Joining:
    """The transaction that is open on what an application calls its connection.

    Args:
        connection: a driver's connection; SQLAlchemy's `Connection` or `Session`; Django's connection.

    Raises:
        StorageError: there is no open transaction, or it cannot be joined.
    """
    for recognise in (_of_django, _of_sqlalchemy):
        found = recognise(connection)
        if found is not None:
            return found
    return Joining(connection)


# -- a block --------------------------------------------------------------------------------------------


def _place() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


@dataclass(slots=True, eq=False)
class Block:
    """The stretch of code in which `owner` works within a transaction of the application's.

    Attributes:
        owner: whose block it is.
        joining: the transaction.
        storage: the view of the storage that takes part in it.
        is_open: whether its end has not come; tasks of asyncio that began in it may outlive it.
    """

    owner: object
    joining: Joining
    storage: Storage
    is_open: bool = True
    _opened_in: tuple[int, int] = field(default_factory=_place)

    def check(self) -> None:
        """Raise a :class:`~triggers.exceptions.StorageError` where it cannot be used here and now."""
        if self._opened_in != _place():
            message = (
                "a joined transaction belongs to the thread that joined it, and this is another one, "
                "where afire() and its friends work, too: inside the block call fire() and the like"
            )
            raise StorageError(message)
        self.joining.check()

    @property
    def is_told(self) -> bool:
        """Whether somebody will say when the transaction has been committed."""
        return self.joining.after_commit is not None

    def after_commit(self, call: Call) -> None:
        """Call this after the commit, where somebody will say when that is."""
        if self.joining.after_commit is not None:
            self.joining.after_commit(lambda: _outside(call))


_blocks: ContextVar[tuple[Block, ...]] = ContextVar("triggers_joined", default=())


class Here:
    """Where one manager works: within a transaction that it has joined, else in the storage by itself.

    It can be used as a reader, which reads there.

    Args:
        storage: the storage.
    """

    __slots__ = ("_storage",)

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        return getattr(self.storage.reader, name)

    @property
    def storage(self) -> Storage:
        """The storage, or the view of it that takes part in the transaction."""
        block = self.block
        return self._storage if block is None else block.storage

    @property
    def block(self) -> Block | None:
        """The innermost block that it is in, None outside of any.

        Raises:
            StorageError: it is in one that cannot be used here and now.
        """
        for block in reversed(_blocks.get()):
            if block.owner is self and block.is_open:
                block.check()
                return block
        return None

    @contextmanager
    def joined(self, connection: object) -> Iterator[None]:
        """Work within the application's transaction, in this context of this thread.

        Args:
            connection: as :func:`joining` takes it.

        Raises:
            StorageError: it cannot be joined; the transaction is as it was.
        """
        found = joining(connection)
        block = Block(self, found, self._storage.joined(found.connection))
        before = _blocks.get()
        _blocks.set((*before, block))
        try:
            yield
        finally:
            _blocks.set(before)
            block.is_open = False
            block.storage.close()


def _outside(call: Call) -> None:
    """Call it as if outside of every block, after the commit, where nobody is left to catch anything."""
    token = _blocks.set(())
    try:
        call()
    except Exception:  # noqa: BLE001 - the application has committed; this must not look as if it had not
        _log.exception("what follows a commit went wrong; what was committed stays")
    finally:
        _blocks.reset(token)


# -- Django ---------------------------------------------------------------------------------------------


def _of_django(given: Any) -> Joining | None:
    django = sys.modules.get("django.db")
    base = sys.modules.get("django.db.backends.base.base")
    if django is None or base is None:
        return None
    if type(given) is type(django.connection):
        given = django.connections[given.alias]
    if not isinstance(given, base.BaseDatabaseWrapper):
        return None

    def check() -> None:
        given.validate_thread_sharing()
        given.validate_no_broken_transaction()
        if not given.in_atomic_block:
            message = (
                f"Django's connection {given.alias!r} is not inside of atomic(), where each statement is "
                f"committed by itself: write `with transaction.atomic():` around the block"
            )
            raise StorageError(message)

    check()
    given.ensure_connection()
    return Joining(given.connection, check, given.on_commit)


# -- SQLAlchemy -----------------------------------------------------------------------------------------


def _of_sqlalchemy(given: Any) -> Joining | None:
    if "sqlalchemy" not in sys.modules:
        return None
    _refuse_async(given)
    orm = sys.modules.get("sqlalchemy.orm")
    if orm is not None and isinstance(given, orm.scoped_session):
        given = given()
    connection = _connection_of(given)
    if connection is None:
        return None
    if not connection.in_transaction() or connection.dialect.is_async:
        connection.exec_driver_sql("SELECT 1")  # SQLAlchemy, and then the driver, begin with a first statement
    transaction = connection.get_transaction()

    def check() -> None:
        # Asked anew each time: a session makes a savepoint of its own when its connection is next asked for.
        now = _connection_of(given) if given.in_transaction() else None
        if now is not connection or now.get_transaction() is not transaction or not transaction.is_active:
            message = (
                "the transaction of SQLAlchemy's connection that this block has joined has ended: "
                "open a block for each transaction"
            )
            raise StorageError(message)

    check()
    driver = connection.connection.driver_connection
    if connection.dialect.is_async:
        driver = Awaited(driver, sys.modules["sqlalchemy.util"].await_only)
    return Joining(driver, check, _pending_of(connection).note)


def _refuse_async(given: Any) -> None:
    module = sys.modules.get("sqlalchemy.ext.asyncio")
    kinds = (module.AsyncSession, module.AsyncConnection, module.async_scoped_session) if module else ()
    if isinstance(given, kinds):
        name = type(given).__name__
        message = (
            f"open the block in a function that gets what is in the {name}: await it.run_sync(function)"
        )
        raise StorageError(message)


def _connection_of(given: Any) -> Any:
    """The connection that SQLAlchemy works on; None where the object is none of its own."""
    from sqlalchemy.engine import Connection  # noqa: PLC0415 - it is imported already, with the object

    if isinstance(given, Connection):
        return given
    orm = sys.modules.get("sqlalchemy.orm")
    if orm is not None and isinstance(given, orm.Session):
        return given.connection()
    return None


class Pending:
    """What is to follow the commit of a SQLAlchemy connection, with its savepoints.

    There is an event before a commit, and none after it. That one has happened is known when the connection
    goes back to its pool without having been rolled back, or begins another transaction.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = weakref.ref(connection)
        self._thread = threading.get_ident()
        self._notes: list[Call] = []
        self._savepoints: list[tuple[str, int]] = []
        self._committing = False

    def note(self, call: Call) -> None:
        """Call this after the commit."""
        self._notes.append(call)

    def begun(self, *_: object) -> None:
        """Another transaction begins: the one before has ended."""
        self.ended()

    def executed(self, _: object, __: object, statement: str, *___: object) -> None:
        """A statement was executed; it may have been about a savepoint, SQLAlchemy's or the application's."""
        found = _SAVEPOINT.fullmatch(statement)
        if found is None:
            return
        name = found["name"].lower()
        if found["made"]:
            self._savepoints.append((name, len(self._notes)))
            return
        noted = self._back_to(name)
        if found["back"]:
            del self._notes[noted:]
            self._savepoints.append((name, noted))  # it is still there

    def _back_to(self, name: str) -> int:
        """Forget a savepoint and those within it; returns how many notes there were when it was made."""
        while self._savepoints:
            known, noted = self._savepoints.pop()
            if known == name:
                return noted
        return 0  # made before anything was noted

    def commits(self, *_: object) -> None:
        """A commit is about to be tried."""
        self._committing = True

    def rolled_back(self, *_: object) -> None:
        """Nothing of it has happened."""
        self._committing = False
        self._notes.clear()
        self._savepoints.clear()

    def failed(self) -> None:
        """What was tried last has failed."""
        if self._committing:
            self.rolled_back()

    def ended(self) -> None:
        """The transaction has ended; it was committed if that was tried and did not fail.

        The collector of garbage, which closes a connection that was forgotten, is no place to call anything.
        """
        here = threading.get_ident() == self._thread and self._connection() is not None
        notes = self._notes if self._committing and here else []
        self._notes = []
        self.rolled_back()
        for call in notes:
            call()


def _pending_of(connection: Any) -> Pending:
    """What is to follow this connection's commit; it begins to listen the first time."""
    pending: Pending | None = connection.info.get(PENDING)
    if pending is None:
        from sqlalchemy import event  # noqa: PLC0415 - it is imported already, with the connection

        _listen_to_all()
        pending = connection.info[PENDING] = Pending(connection)
        for name, listener in (
            ("begin", pending.begun),
            ("begin_twophase", pending.begun),
            ("after_cursor_execute", pending.executed),
            ("commit", pending.commits),
            ("commit_twophase", pending.commits),
            ("rollback", pending.rolled_back),
            ("rollback_twophase", pending.rolled_back),
        ):
            event.listen(connection, name, listener)
    return pending


_listening = threading.Lock()


def _listen_to_all() -> None:
    """Hear when any connection goes back to its pool, and when a statement or a commit has failed."""
    from sqlalchemy import event  # noqa: PLC0415 - it is imported already, with the connection
    from sqlalchemy.engine import Engine  # noqa: PLC0415 - as above
    from sqlalchemy.pool import Pool  # noqa: PLC0415 - as above

    with _listening:
        if not event.contains(Pool, "reset", _reset):
            event.listen(Engine, "handle_error", _failed)
            event.listen(Pool, "reset", _reset)


def _reset(_: object, record: Any, state: Any) -> None:
    pending = record.info.pop(PENDING, None) if record is not None else None
    if pending is None:
        return
    if state.transaction_was_reset:  # it was still open: it was rolled back
        pending.rolled_back()
    pending.ended()


def _failed(context: Any) -> None:
    connection = context.connection
    if context.statement is not None or connection is None or connection.closed or connection.invalidated:
        return
    pending = connection.info.get(PENDING)
    if pending is not None:
        pending.failed()
