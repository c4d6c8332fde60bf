"""Where a manager works: in a transaction that it has joined, or in the storage directly.

A manager asks :attr:`ManagerScopes.current` once for each call and uses that :class:`Scope`, whichever it is.
"""

from __future__ import annotations

import logging
import os
import threading
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from triggers.exceptions import StorageError
from triggers.storages.joining.frameworks import open_transaction_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggers.storages.base import Reader, Storage
    from triggers.storages.joining.transaction import Call, OpenTransaction

_log = logging.getLogger(__name__)


class Scope(Protocol):
    """Where one call of a manager reads and writes."""

    @property
    def storage(self) -> Storage:
        """The storage, or its view that takes part in the joined transaction."""
        ...

    @property
    def reader(self) -> Reader:
        """The plug for reading of that storage."""
        ...

    @property
    def is_joined(self) -> bool:
        """Whether its commits are part of a transaction of the application."""
        ...

    @property
    def notifies_commit(self) -> bool:
        """Whether functions passed to `after_commit` are called."""
        ...

    def after_commit(self, call: Call) -> None:
        """Call a function after the commit; do nothing if nothing tells when that happens."""
        ...


class DirectScope:
    """The scope outside of every joined transaction: each commit of the storage is a commit of its own.

    Args:
        storage: the storage.
    """

    __slots__ = ("storage",)

    is_joined = False
    notifies_commit = True

    def __init__(self, storage: Storage) -> None:
        self.storage: Storage = storage

    @property
    def reader(self) -> Reader:
        """The plug for reading of the storage."""
        return self.storage.reader

    def after_commit(self, call: Call) -> None:
        """Call the function now: the storage has committed already. Its exceptions reach the caller."""
        call()


class JoinedScope:
    """The scope of a `with` block in which a manager works in a transaction of the application.

    Args:
        transaction: the application's transaction.
        storage: the view of the storage that takes part in it.

    Attributes:
        is_open: False after the end of the block. Tasks of asyncio that began in the block can outlive it.
    """

    __slots__ = ("_process", "_thread", "_transaction", "is_open", "storage")

    is_joined = True

    def __init__(self, transaction: OpenTransaction, storage: Storage) -> None:
        self.storage: Storage = storage
        self.is_open: bool = True
        self._transaction = transaction
        self._process, self._thread = os.getpid(), threading.get_ident()

    @property
    def reader(self) -> Reader:
        """The reader that sees what the transaction sees."""
        return self.storage.reader

    @property
    def notifies_commit(self) -> bool:
        """Whether the application's framework tells when the transaction has been committed."""
        return self._transaction.after_commit is not None

    def after_commit(self, call: Call) -> None:
        """Call the function after the application's commit, if the framework tells when that is.

        The function runs outside of every block. Its exceptions are logged, because the application has
        committed.
        """
        if self._transaction.after_commit is not None:
            self._transaction.after_commit(lambda: _call_outside(call))

    def check(self) -> None:
        """Check that the scope can be used now.

        Raises:
            StorageError: this is another thread, or the transaction has ended.
        """
        if (self._process, self._thread) != (os.getpid(), threading.get_ident()):
            message = (
                "a joined transaction belongs to the thread that joined it, and this is another thread, "
                "where afire() and the other async methods work, too: inside the block, call fire() and the "
                "other synchronous methods"
            )
            raise StorageError(message)
        self._transaction.check()

    def close(self) -> None:
        """End the block. The transaction stays open."""
        self.is_open = False
        self.storage.close()


#: The blocks that are open in this context, each with the scopes of its manager, the innermost one last.
_open_blocks: ContextVar[tuple[tuple[ManagerScopes, JoinedScope], ...]] = ContextVar(
    "triggers_joined", default=()
)


class ManagerScopes:
    """The scopes of one manager.

    Args:
        storage: where the manager works outside of joined transactions.
    """

    __slots__ = ("_direct",)

    def __init__(self, storage: Storage) -> None:
        self._direct = DirectScope(storage)

    @property
    def current(self) -> Scope:
        """The scope of the innermost open block of this manager; outside of its blocks, the storage's own.

        Raises:
            StorageError: the block cannot be used in this thread, or its transaction has ended.
        """
        for manager, scope in reversed(_open_blocks.get()):
            if manager is self and scope.is_open:
                scope.check()
                return scope
        return self._direct

    @property
    def reader(self) -> Reader:
        """The plug for reading of the current scope."""
        return self.current.reader

    @contextmanager
    def join(self, connection: object) -> Iterator[None]:
        """Work in the application's transaction, in this context of this thread.

        Args:
            connection: a driver's connection, SQLAlchemy's `Connection` or `Session`, or Django's connection.

        Raises:
            StorageError: the transaction cannot be joined; it is unchanged.
        """
        transaction = open_transaction_of(connection)
        scope = JoinedScope(transaction, self._direct.storage.joined(transaction.connection))
        before = _open_blocks.get()
        _open_blocks.set((*before, (self, scope)))
        try:
            yield
        finally:
            _open_blocks.set(before)
            scope.close()


def _call_outside(call: Call) -> None:
    """Call a function outside of every block, after the application's commit, and log what it raises."""
    token = _open_blocks.set(())
    try:
        call()
    except Exception:  # noqa: BLE001 - the application has committed; this must not look as if it had not
        _log.exception("A function that was called after a commit failed. The commit itself is not affected.")
    finally:
        _open_blocks.reset(token)
