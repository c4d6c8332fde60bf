"""What is to follow the commit of a SQLAlchemy connection, and what a rollback takes back of it.

SQLAlchemy is imported when there is a connection of its own, never before.
"""

from __future__ import annotations

import re
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

Call = Callable[[], None]

#: Where a SQLAlchemy connection keeps what is to follow its commit, as long as it is not in the pool.
PENDING: Final = "triggers.pending"

_SAVEPOINT: Final = re.compile(
    r"\s*(?:(?P<made>savepoint)|(?P<back>rollback(?:\s+(?:work|transaction))?\s+to(?:\s+savepoint)?)"
    r"|release(?:\s+savepoint)?)\s+(?P<name>[^\s;]+)\s*;?\s*",
    re.IGNORECASE,
)


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


def pending_of(connection: Any) -> Pending:
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


def _reset(_: object, record: Any, __: object) -> None:
    pending = record.info.pop(PENDING, None) if record is not None else None
    if pending is not None:
        pending.ended()


def _failed(context: Any) -> None:
    connection = context.connection
    if context.statement is not None or connection is None or connection.closed or connection.invalidated:
        return
    pending = connection.info.get(PENDING)
    if pending is not None:
        pending.failed()
