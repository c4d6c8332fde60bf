"""Connections to one PostgreSQL server: a pool, retries, and the translation of errors."""

from __future__ import annotations

import random
import time
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from triggers.exceptions import StorageBusyError, StorageCorruptError, StorageError, StorageFullError
from triggers.fork import reset_after_fork
from triggers.storages.base import ConflictError
from triggers.storages.checkout import Checkout, Checkouts
from triggers.storages.postgres.connection import LostError, PipelineConnection, ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from triggers.storages.postgres.url import PostgresUrl

T = TypeVar("T")

#: The pause before the first retry, in seconds. It doubles up to the longest, and each is shortened at
#: random.
PAUSE: Final = 0.01
LONGEST_PAUSE: Final = 1.0

#: SQLSTATEs after which a retry can succeed at once: deadlock, serialization failure.
_CROSSED: Final = frozenset({"40P01", "40001"})

#: SQLSTATEs after which another connection can succeed: the server shuts down, starts, is a replica, has too
#: many clients, or has ended an idle transaction; prepared statements are outdated or were prepared by
#: another client.
_PASSING: Final = frozenset(
    {
        "57P01",
        "57P02",
        "57P03",
        "57P05",
        "25P03",
        "25006",
        "53300",
        "0A000",
        "26000",
        "42P05",
        "08006",
        "08P01",
    }
)

_FULL: Final = frozenset({"53100"})
_BUSY: Final = frozenset({"55P03", "57014", "53200"})

#: Errors of a connection attempt that a retry cannot change, in the words of PostgreSQL.
_REFUSALS: Final = (
    "password authentication failed",
    "no password supplied",
    "does not exist",
    "no pg_hba.conf entry",
    "permission denied for database",
    "certificate",
    "invalid ",
    "unsupported startup parameter",
    "Servname not supported",
)


class Pool:
    """Connections that the threads of a process share. Each is used by one thread at a time.

    Args:
        url: the server, and the size of the pool.
        texts: name → statement.
        initialize: prepares each new connection.
    """

    def __init__(
        self,
        url: PostgresUrl,
        texts: dict[str, bytes],
        initialize: Callable[[PipelineConnection, float], None],
    ) -> None:
        self.url = url
        self._texts = texts
        self._initialize = initialize
        self._begin()
        reset_after_fork(self)

    def _begin(self) -> None:
        self._checkouts: Checkouts[PipelineConnection] = Checkouts(
            self.url.pool_size, partial(_clean, self.url.timeout), PipelineConnection.close
        )

    # A child process must not close inherited connections: that would end those of its parent.
    def after_fork(self) -> None:
        """Forget the inherited connections in a child process, which opens its own when needed."""
        inherited.append(self._checkouts.connections)
        self._begin()

    @property
    def _idle(self) -> list[PipelineConnection]:
        return self._checkouts.idle

    # An interrupt at any line leaves no connection in use: see triggers.storages.checkout.
    @contextmanager
    def wire(self, until: float) -> Iterator[PipelineConnection]:
        """A connection outside of a transaction. A transaction that the block leaves open is rolled back.

        Raises:
            StorageBusyError: all connections were in use until then.
            LostError: a new connection cannot be opened.
        """
        user, checkouts = Checkout(), self._checkouts
        try:
            try:
                wire = checkouts.check_out(user, until, partial(self._open_initialized, until))
                if wire is None:
                    message = (
                        f"all {self.url.pool_size} connections to {self.url.shown} are in use; nothing "
                        f"was changed: raise pool_size in the URL, or use fewer threads"
                    )
                    raise StorageBusyError(message)
                yield wire
            finally:
                checkouts.check_in(user)
        finally:
            checkouts.check_in(user)  # again: an interrupt can have ended the first call

    def open(self, until: float) -> PipelineConnection:
        """Open a new connection that is not initialized and does not belong to the pool."""
        url = self.url
        return PipelineConnection(url.conninfo, self._texts, prepare=url.prepare, until=until)

    def forget(self) -> None:
        """Close the idle connections now, and those in use when they are returned."""
        self._checkouts.close()

    def _open_initialized(self, until: float, keep: Callable[[PipelineConnection], None]) -> None:
        wire = self.open(until)
        keep(wire)
        try:
            self._initialize(wire, until)
        except BaseException:
            wire.close()
            raise

    def with_retries(self, work: Callable[[PipelineConnection, float], T], timeout: float | None = None) -> T:
        """Do the work on a connection, and retry it after errors that can be temporary.

        Args:
            work: receives the connection and the monotonic time at which it times out. If it raises an
                exception, nothing was changed.
            timeout: for how long in total, in seconds; None for the setting of the URL.

        Raises:
            StorageError: the server refused the work, or could not be reached for this time.
        """
        wait = self.url.timeout if timeout is None else timeout
        until = time.monotonic() + wait
        pause = PAUSE
        while True:
            try:
                with self.wire(until) as wire:
                    return work(wire, until)
            except (LostError, ServerError) as error:
                if isinstance(error, LostError) or error.code in _PASSING:
                    self.forget()
                left = until - time.monotonic()
                if left <= 0 or not is_passing(error):
                    raise translated(error, self.url, wait) from None
                time.sleep(min(left, pause * random.uniform(0.5, 1)))  # noqa: S311 - not a secret
                pause = min(2 * pause, LONGEST_PAUSE)


def _clean(timeout: float, wire: PipelineConnection) -> bool:
    """End an open transaction; returns whether the connection can be used again."""
    if wire.is_in_transaction:
        with suppress(LostError, ServerError):
            wire([("rollback", ())], time.monotonic() + timeout)
    return wire.is_idle and bool(wire.incarnation)


#: Connections that child processes have inherited and must neither use nor close.
inherited: list[list[PipelineConnection]] = []


def is_passing(error: LostError | ServerError) -> bool:
    """Whether a retry can succeed after this error."""
    if isinstance(error, ServerError):
        return error.code in _PASSING or error.code in _CROSSED
    return not any(refusal in str(error) for refusal in _REFUSALS)


def translated(error: LostError | ServerError, url: PostgresUrl, wait: float) -> StorageError:
    """The exception of Triggers for an error, with what happened, where, and what to do."""
    if isinstance(error, LostError):
        tried = f" for {wait:g} s" if is_passing(error) else ""
        why = " ".join(str(error).split())  # libpq's texts have several lines
        return StorageError(f"{url.shown} could not be used{tried} ({why}); nothing was changed")
    if error.code.startswith("22"):
        return StorageCorruptError(
            f"{url.shown} has a value that cannot be read ({error.text}): repair the row"
        )
    if error.code == "TR001" or error.constraint == "sessions_uid":
        return ConflictError(error.text)
    kind, what_to_do = _meaning(error.code, url.schema)
    return kind(f"{url.shown}: {error.text} ({error.code}); nothing was changed{what_to_do}")


def _meaning(code: str, schema: str) -> tuple[type[StorageError], str]:
    if code in _BUSY:
        return StorageBusyError, ": it was busy for too long, try again"
    if code in _FULL:
        return StorageFullError, ": free some disk space and try again"
    if code.startswith("XX"):
        return StorageCorruptError, ": it is damaged, restore a backup"
    if code == "42501":
        return StorageError, (
            f": let the owner of schema {schema!r} grant USAGE on it, SELECT, INSERT, UPDATE and DELETE on "
            f"its tables, and USAGE on its sequences"
        )
    return StorageError, ""
