"""Functions to call after the commit of a SQLAlchemy connection, which a rollback discards.

SQLAlchemy is imported only when one of its connections is passed.
"""

from __future__ import annotations

import re
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from triggers.storages.joining.transaction import Call

#: The key in a SQLAlchemy connection's `info` under which its pending calls are, until it returns to the
#: pool.
PENDING: Final = "triggers.pending"

_SAVEPOINT: Final = re.compile(
    r"\s*(?:(?P<create>savepoint)|(?P<rollback>rollback(?:\s+(?:work|transaction))?\s+to(?:\s+savepoint)?)"
    r"|release(?:\s+savepoint)?)\s+(?P<name>[^\s;]+)\s*;?\s*",
    re.IGNORECASE,
)


class PendingCalls:
    """The functions to call after the commit of a SQLAlchemy connection, and the savepoints they belong to.

    SQLAlchemy has an event before a commit and none after it. A commit has happened if the connection returns
    to its pool without a rollback, or begins another transaction.

    The methods below `add` are called by SQLAlchemy's events.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = weakref.ref(connection)
        self._thread = threading.get_ident()
        self._calls: list[Call] = []
        self._savepoints: list[tuple[str, int]] = []  # name, and how many calls had been added before it
        self._is_committing = False

    def add(self, call: Call) -> None:
        """Call this function after the commit, unless the current savepoint is rolled back."""
        self._calls.append(call)

    def on_begin(self, *_: object) -> None:
        """Another transaction begins, so the previous one has ended."""
        self.on_end()

    def on_statement(self, _: object, __: object, statement: str, *___: object) -> None:
        """A statement was executed: follow the savepoints of SQLAlchemy and of the application."""
        found = _SAVEPOINT.fullmatch(statement)
        if found is None:
            return
        name = found["name"].lower()
        if found["create"]:
            self._savepoints.append((name, len(self._calls)))
            return
        added = self._remove_savepoint(name)
        if found["rollback"]:
            del self._calls[added:]
            self._savepoints.append((name, added))  # a rollback to a savepoint does not remove it

    def _remove_savepoint(self, name: str) -> int:
        """Remove a savepoint and those within it; returns how many calls had been added before it."""
        while self._savepoints:
            known, added = self._savepoints.pop()
            if known == name:
                return added
        return 0  # created before this object

    def on_commit(self, *_: object) -> None:
        """A commit is about to be tried."""
        self._is_committing = True

    def on_rollback(self, *_: object) -> None:
        """The transaction was rolled back: discard all calls."""
        self._is_committing = False
        self._calls.clear()
        self._savepoints.clear()

    def on_error(self) -> None:
        """A statement failed. If it was the commit, discard all calls."""
        if self._is_committing:
            self.on_rollback()

    def on_end(self) -> None:
        """The transaction has ended: make the calls if a commit was tried and did not fail.

        The garbage collector, which closes a forgotten connection at any time and in any thread, must not
        call anything.
        """
        is_ours = threading.get_ident() == self._thread and self._connection() is not None
        calls = self._calls if self._is_committing and is_ours else []
        self._calls = []
        self.on_rollback()
        for call in calls:
            call()


def pending_of(connection: Any) -> PendingCalls:
    """The pending calls of a SQLAlchemy connection; the first time, register the event listeners."""
    pending: PendingCalls | None = connection.info.get(PENDING)
    if pending is None:
        from sqlalchemy import event  # noqa: PLC0415 - it is imported already, with the connection

        _listen_to_all()
        pending = connection.info[PENDING] = PendingCalls(connection)
        for name, listener in (
            ("begin", pending.on_begin),
            ("begin_twophase", pending.on_begin),
            ("after_cursor_execute", pending.on_statement),
            ("commit", pending.on_commit),
            ("commit_twophase", pending.on_commit),
            ("rollback", pending.on_rollback),
            ("rollback_twophase", pending.on_rollback),
        ):
            event.listen(connection, name, listener)
    return pending


_listening = threading.Lock()


def _listen_to_all() -> None:
    """Register, once, for the events that SQLAlchemy has only for all connections together."""
    from sqlalchemy import event  # noqa: PLC0415 - it is imported already, with the connection
    from sqlalchemy.engine import Engine  # noqa: PLC0415 - as above
    from sqlalchemy.pool import Pool  # noqa: PLC0415 - as above

    with _listening:
        if not event.contains(Pool, "reset", _on_pool_reset):
            event.listen(Engine, "handle_error", _on_error)
            event.listen(Pool, "reset", _on_pool_reset)


def _on_pool_reset(_: object, record: Any, __: object) -> None:
    pending = record.info.pop(PENDING, None) if record is not None else None
    if pending is not None:
        pending.on_end()


def _on_error(context: Any) -> None:
    connection = context.connection
    if context.statement is not None or connection is None or connection.closed or connection.invalidated:
        return
    pending = connection.info.get(PENDING)
    if pending is not None:
        pending.on_error()
