"""One connection to PostgreSQL that sends several statements together and reads their answers together.

It uses psycopg's wrapper of libpq, not its cursors: several prepared statements are sent in one message, and
one wait returns all their answers. Only this module, and the one that joins an application's transaction,
import psycopg.
"""

from __future__ import annotations

import itertools
import os
import re
import select
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import psycopg
from psycopg import pq
from psycopg.adapt import Transformer
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from triggers.exceptions import StorageError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triggers.storages.postgres.decide import Step
    from triggers.storages.sql.rows import Row

#: How much longer than the server the client waits for an answer, in seconds.
GRACE: Final = 2.0

_GOOD: Final = frozenset({pq.ExecStatus.TUPLES_OK, pq.ExecStatus.COMMAND_OK})
_SYNC: Final = pq.ExecStatus.PIPELINE_SYNC
#: SQLSTATEs for a prepared statement that is missing or outdated. All statements are then prepared again.
_STALE: Final = frozenset({"0A000", "26000", "42P05"})

#: For the names of prepared statements.
_numbers: Final = itertools.count()

_IDLE: Final = pq.TransactionStatus.IDLE
_IN_TRANSACTION: Final = frozenset({pq.TransactionStatus.INTRANS, pq.TransactionStatus.INERROR})


class ServerError(Exception):
    """The server refused a statement; the transaction can only be rolled back.

    Attributes:
        code: the SQLSTATE.
        text: the message of the server, in the server's language.
        constraint: the name of the violated constraint, "" for none.
    """

    def __init__(self, code: str, text: str, constraint: str = "") -> None:
        super().__init__(f"{text} ({code})" if code else text)
        self.code = code
        self.text = text
        self.constraint = constraint


class LostError(Exception):
    """The connection was lost, or could not be opened.

    Attributes:
        answered: how many of the statements that were sent together were answered.
    """

    def __init__(self, text: str, answered: int = 0) -> None:
        super().__init__(text)
        self.answered = answered


class PipelineConnection:
    """A connection that one thread at a time can use.

    Args:
        conninfo: the connection string for libpq.
        texts: name → statement, with parameters $1, $2 and so on.
        prepare: whether to prepare statements; None to prepare them unless a pooler is between here and the
            server.
        until: the monotonic time at which connecting times out.

    Raises:
        LostError: the connection cannot be opened.

    Attributes:
        exchanges: the number of round trips.
        incarnation: the mark of the server when the connection was opened.
        is_pooled: whether a pooler, such as PgBouncer, is between here and the server.
    """

    __slots__ = (
        "_known",
        "_pg",
        "_pid",
        "_poll",
        "_prepares",
        "_texts",
        "_types",
        "exchanges",
        "incarnation",
        "is_pooled",
    )

    def __init__(
        self,
        conninfo: str,
        texts: dict[str, bytes],
        *,
        prepare: bool | None = None,
        until: float | None = None,
    ) -> None:
        self._pg = _connect(conninfo, until)
        self._pid = os.getpid()
        self._texts = texts
        self._known: dict[str, bytes] = {}
        self._types = Transformer()
        self._poll = select.poll() if hasattr(select, "poll") else None
        self.exchanges: int = 0
        self.incarnation: str = ""
        self._pg.enter_pipeline_mode()
        ((row,),) = self.ask("SELECT pg_backend_pid()", until=until)
        self.is_pooled: Any = row[0] != self._pg.backend_pid
        self._prepares = not self.is_pooled if prepare is None else prepare

    @property
    def is_idle(self) -> bool:
        """Whether it is outside of a transaction and all answers have been read."""
        return bool(self._pg.status == pq.ConnStatus.OK and self._pg.transaction_status == _IDLE)

    @property
    def is_in_transaction(self) -> bool:
        """Whether it is in a transaction and all answers have been read."""
        return self._pg.status == pq.ConnStatus.OK and self._pg.transaction_status in _IN_TRANSACTION

    def setting(self, name: str) -> str:
        """A setting that the server reports by itself, such as `server_version`."""
        return (self._pg.parameter_status(name.encode()) or b"").decode()

    def close(self) -> None:
        """Close the connection; after a fork, do nothing, because the parent still uses it."""
        if self._pid == os.getpid():
            with suppress(psycopg.Error):
                self._pg.finish()

    def __call__(self, steps: Sequence[Step], until: float | None = None) -> list[list[Row]]:
        """Run the named statements in one round trip.

        Args:
            steps: the statements.
            until: the monotonic time at which waiting for the answer times out; None to wait without limit.

        Returns:
            The rows of each statement.

        Raises:
            ServerError: a statement was refused; the statements after it were not run.
            LostError: the connection was lost, or the answer did not arrive in time.
            StorageError: a text contains a character that PostgreSQL cannot store; nothing was sent.
        """
        given = [(name, [dump(value) for value in values]) for name, values in steps]
        try:
            sent: list[str] = []
            for name, values in given:
                self._send(name, values, sent)
            return self._answers(sent, until)
        except psycopg.Error as error:
            raise LostError(str(error)) from None

    def ask(self, *texts: str, until: float | None = None) -> list[list[Row]]:
        """Run statements without parameters, and without preparing them, in one round trip."""
        try:
            for text in texts:
                self._pg.send_query_params(text.encode(), None)
            return self._answers([""] * len(texts), until)
        except psycopg.Error as error:
            raise LostError(str(error)) from None

    def notifications(self, seconds: float) -> list[str]:
        """Wait up to that time for notifications; returns the payloads of those that have arrived.

        Raises:
            LostError: the connection was lost.
        """
        found = []
        try:
            if self._is_ready(seconds, writing=False):
                self._pg.consume_input()
            while (notification := self._pg.notifies()) is not None:
                found.append(notification.extra.decode("utf-8", "replace"))
        except psycopg.Error as error:
            raise LostError(str(error).strip()) from None
        if self._pg.status != pq.ConnStatus.OK:
            raise LostError("the connection was closed")
        return found

    def _send(self, name: str, values: list[bytes | None], sent: list[str]) -> None:
        """Send a statement; adds its name to `sent` if it is prepared first, and "" for its run."""
        if not self._prepares:
            self._pg.send_query_params(self._texts[name], values)
        else:
            known = self._known.get(name)
            if known is None:
                known = self._known[name] = b"triggers %d" % next(_numbers)
                self._pg.send_prepare(known, self._texts[name])
                sent.append(name)
            self._pg.send_query_prepared(known, values)
        sent.append("")

    def _answers(self, sent: list[str], until: float | None) -> list[list[Row]]:
        pg = self._pg
        pg.pipeline_sync()
        self.exchanges += 1
        while pg.flush():
            self._wait(until, 0, writing=True)
            pg.consume_input()
        rows: list[list[Row]] = []
        error: ServerError | None = None
        waiting = iter(sent)
        while (result := self._next(until, len(rows), error)).status != _SYNC:
            prepared = next(waiting, "")
            if result.status not in _GOOD:
                error = error or _refused(result)
                self._known.pop(prepared, None)
            elif not prepared and error is None:
                rows.append(self._rows(result))
        if error is None:
            return rows
        if error.code in _STALE:
            self._known.clear()
        raise error

    def _next(self, until: float | None, answered: int, error: ServerError | None) -> Any:
        """The next result of the current round trip."""
        pg = self._pg
        while True:
            try:
                while pg.is_busy():
                    self._wait(until, answered)
                    pg.consume_input()
            except psycopg.Error as lost:
                raise LostError(str(error or lost).strip(), answered) from None
            result = pg.get_result()
            if result is not None:
                return result
            if pg.status != pq.ConnStatus.OK:
                raise LostError(str(error or "the connection was closed"), answered)

    def _rows(self, result: Any) -> list[Row]:
        if not result.ntuples:
            return []
        self._types.set_pgresult(result)
        return self._types.load_rows(0, result.ntuples, tuple)

    def _wait(self, until: float | None, answered: int, *, writing: bool = False) -> None:
        rest = None if until is None else max(until + GRACE - time.monotonic(), 0)
        if not self._is_ready(rest, writing=writing):
            self.close()
            raise LostError("the server did not answer in time", answered)

    def _is_ready(self, seconds: float | None, *, writing: bool) -> bool:
        if self._poll is None:
            ready = select.select([self._pg.socket], [self._pg.socket] if writing else [], [], seconds)
            return any(ready)
        self._poll.register(self._pg.socket, select.POLLIN | select.POLLOUT if writing else select.POLLIN)
        return bool(self._poll.poll(None if seconds is None else seconds * 1000))


def dump(value: Any) -> bytes | None:
    """Encode a parameter for libpq.

    Raises:
        StorageError: a text contains a NUL or a lone surrogate.
    """
    kind = type(value)
    if kind is str:
        return _text(value)
    if kind is int:
        return b"%d" % value
    if value is None:
        return None
    if kind is bool:
        return b"true" if value else b"false"
    if isinstance(value, str):
        return dump(str(value))
    return b"{" + b",".join(map(_element, value)) + b"}"


def _text(value: str) -> bytes:
    try:
        text = value.encode()
    except UnicodeEncodeError:
        text = b"\0"
    if 0 in text:
        message = (
            "a text contains a NUL or a lone surrogate, which PostgreSQL cannot store; nothing was changed"
        )
        raise StorageError(message)
    return text


def _element(value: Any) -> bytes:
    text = dump(value)
    if text is None:
        return b"NULL"
    return b'"' + text.replace(b"\\", b"\\\\").replace(b'"', b'\\"') + b'"'


def read_conninfo(url: str) -> dict[str, str] | None:
    """Option → value of a URL as libpq reads it; None if libpq rejects the URL."""
    try:
        return {key: str(value) for key, value in conninfo_to_dict(url).items() if value is not None}
    except (psycopg.Error, UnicodeError):  # such as %FF
        return None


def write_conninfo(options: dict[str, str]) -> str:
    """A connection string for libpq with these options."""
    return make_conninfo("", **{**options, "client_encoding": "utf8"})


class _Connection(psycopg.Connection[Any]):
    """A connection that is closed without a warning when it is no longer referenced."""

    def __del__(self, *_: Any) -> None:
        pass


def _connect(conninfo: str, until: float | None) -> Any:
    options: dict[str, Any] = {}
    given = conninfo_to_dict(conninfo)
    if until is not None:
        rest = max(until - time.monotonic(), 0)
        usual = int(given.get("connect_timeout") or 0) or rest
        options["connect_timeout"] = max(2, round(min(rest, float(usual))))  # the shortest timeout of libpq
    try:
        return _Connection.connect(conninfo, autocommit=True, **options).pgconn
    except psycopg.Error as error:
        problem = str(error).strip()
    # Outside of the handler, so that the driver's exception is not in the chain.
    raise LostError(_without_credentials(problem, given))


def _without_credentials(problem: str, given: dict[str, Any]) -> str:
    """The driver's message without the user and the password; the user can be a part of a password."""
    for secret in filter(None, (given.get("password"), given.get("user"))):
        problem = re.sub(rf"(?<!\w){re.escape(secret)}(?!\w)", "***", problem)
    return problem


def _refused(result: Any) -> ServerError:
    def field(which: pq.DiagnosticField) -> str:
        return (result.error_field(which) or b"").decode("utf-8", "replace")

    code = field(pq.DiagnosticField.SQLSTATE)
    text = field(pq.DiagnosticField.MESSAGE_PRIMARY) or result.get_error_message()
    return ServerError(code, text, field(pq.DiagnosticField.CONSTRAINT_NAME))
