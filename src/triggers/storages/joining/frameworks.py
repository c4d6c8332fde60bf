"""The open transaction of a Django or SQLAlchemy connection.

Neither framework is imported here: an application that passes one of their objects has imported the framework
already.
"""

from __future__ import annotations

import sys
from typing import Any

from triggers.exceptions import StorageError
from triggers.storages.joining.after_commit import pending_of
from triggers.storages.joining.transaction import AsyncConnection, OpenTransaction


def open_transaction_of(connection: object) -> OpenTransaction:
    """Find the transaction that is open on a connection.

    Args:
        connection: a driver's connection, SQLAlchemy's `Connection` or `Session`, or Django's connection. An
            object of any other type is returned as a driver's connection, for the storage to check.

    Raises:
        StorageError: there is no open transaction, or it cannot be joined.
    """
    return _of_django(connection) or _of_sqlalchemy(connection) or OpenTransaction(connection)


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
                f"Django's connection {given.alias!r} is not inside atomic(), so each statement is committed "
                f"separately: write `with transaction.atomic():` around the block"
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
        connection.exec_driver_sql("SELECT 1")  # SQLAlchemy and its driver begin with the first statement
    transaction = connection.get_transaction()

    def check() -> None:
        # Asked each time: a session creates a savepoint when its connection is next requested.
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
    return OpenTransaction(driver, check, pending_of(connection).add)


def _refuse_async(given: Any) -> None:
    module = sys.modules.get("sqlalchemy.ext.asyncio")
    kinds = (module.AsyncSession, module.AsyncConnection, module.async_scoped_session) if module else ()
    if isinstance(given, kinds):
        name = type(given).__name__
        message = (
            f"an {name} cannot be joined: open the block in a synchronous function and call it by "
            f"`await connection.run_sync(function)`"
        )
        raise StorageError(message)


def _connection_of(given: Any) -> Any:
    """The SQLAlchemy connection of an object; None if it is not an object of SQLAlchemy."""
    from sqlalchemy.engine import Connection  # noqa: PLC0415 - it is imported already, with the object

    if isinstance(given, Connection):
        return given
    orm = sys.modules.get("sqlalchemy.orm")
    if orm is not None and isinstance(given, orm.Session):
        return given.connection()
    return None
