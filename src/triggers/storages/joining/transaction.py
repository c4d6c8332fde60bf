"""The application's own transaction: on which connection it is, whether it is still open, what follows it.

An application hands over what it has: a driver's connection, or what SQLAlchemy or Django wraps around
one. Neither is imported here: whoever has such an object has imported them.

A :class:`JoinedBlock` is the stretch of code in which one manager works within such a transaction.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from collections.abc import Callable, Coroutine
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from triggers.core.values import type_name
from triggers.exceptions import StorageError
from triggers.storages.joining.after_commit import pending_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggers.storages.base import Storage

_log = logging.getLogger(__name__)

Call = Callable[[], None]


def _nothing() -> None:
    pass


@dataclass(frozen=True, slots=True)
class AsyncConnection:
    """A driver's asynchronous connection that synchronous code works with.

    Attributes:
        connection: the driver's own.
        wait: gives the result of a coroutine; others run meanwhile.
    """

    connection: Any
    wait: Callable[[Coroutine[Any, Any, None]], None]


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """A transaction of the application's.

    Attributes:
        connection: the driver's own connection, or :class:`AsyncConnection`.
        check: raises a :class:`~triggers.exceptions.StorageError` where the transaction has ended.
        after_commit: takes what is to be called after the outermost commit, and not at all if what was done
            by then is rolled back; None where nobody can tell when that is.
    """

    connection: Any
    check: Call = _nothing
    after_commit: Callable[[Call], None] | None = None


def joining(connection: object) -> OpenTransaction:
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
    return OpenTransaction(connection)


# -- a block --------------------------------------------------------------------------------------------


def _place() -> tuple[int, int]:
    return os.getpid(), threading.get_ident()


@dataclass(slots=True, eq=False)
class JoinedBlock:
    """The stretch of code in which `owner` works within a transaction of the application's.

    Attributes:
        owner: whose block it is.
        joining: the transaction.
        storage: the view of the storage that takes part in it.
        is_open: whether its end has not come; tasks of asyncio that began in it may outlive it.
    """

    owner: object
    joining: OpenTransaction
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


_blocks: ContextVar[tuple[JoinedBlock, ...]] = ContextVar("triggers_joined", default=())


class TransactionScope:
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
    def block(self) -> JoinedBlock | None:
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
        block = JoinedBlock(self, found, self._storage.joined(found.connection))
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


def _of_django(given: Any) -> OpenTransaction | None:
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
    return OpenTransaction(given.connection, check, given.on_commit)


# -- SQLAlchemy -----------------------------------------------------------------------------------------


def _of_sqlalchemy(given: Any) -> OpenTransaction | None:
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
        connection.exec_driver_sql("SELECT 1")  # with the first statement SQLAlchemy, and its driver, begin
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
        driver = AsyncConnection(driver, sys.modules["sqlalchemy.util"].await_only)
    return OpenTransaction(driver, check, pending_of(connection).note)


def _refuse_async(given: Any) -> None:
    module = sys.modules.get("sqlalchemy.ext.asyncio")
    kinds = (module.AsyncSession, module.AsyncConnection, module.async_scoped_session) if module else ()
    if isinstance(given, kinds):
        name = type_name(type(given))
        message = f"open the block in a function that gets what is in the {name}: await it.run_sync(function)"
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
