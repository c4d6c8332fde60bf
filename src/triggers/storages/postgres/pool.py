"""Connections to one PostgreSQL, and patience with it: lending, retries, errors in our words."""

from __future__ import annotations

import random
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Final, TypeVar

from triggers.exceptions import StorageBusyError, StorageCorruptError, StorageError, StorageFullError
from triggers.fork import reset_after_fork
from triggers.storages.base import ConflictError
from triggers.storages.postgres.connection import LostError, PipelineConnection, ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from triggers.storages.postgres.url import PostgresUrl

T = TypeVar("T")

#: The pause before the first new try, in seconds; it doubles up to the longest. Chance makes each shorter.
PAUSE: Final = 0.01
LONGEST_PAUSE: Final = 1.0

#: Another try may succeed at once: deadlock, serialization failure.
_CROSSED: Final = frozenset({"40P01", "40001"})

#: Another connection may: a server that shuts down, starts, is a replica, or has too many clients; a silence
#: that it did not bear; statements that were prepared for other tables, or by somebody else.
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

#: What no other try cures, as PostgreSQL says it when somebody connects.
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
    """Connections that the threads of a process share, each used by one of them at a time.

    Args:
        url: where to, and how many.
        texts: name → statement.
        greet: does what is to be done once with a new connection.
    """

    def __init__(
        self, url: PostgresUrl, texts: dict[str, bytes], greet: Callable[[PipelineConnection, float], None]
    ) -> None:
        self.url = url
        self._texts = texts
        self._initialize = greet
        self._begin()
        reset_after_fork(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._room = threading.Semaphore(self.url.pool_size)
        self._idle: list[PipelineConnection] = []
        self._generation = object()

    # A child must leave its parent's connections alone: to say good-bye on one would end the parent's.
    def after_fork(self) -> None:
        """Open connections of its own when they are needed."""
        inherited.append(self._idle)
        self._begin()

    @contextmanager
    def wire(self, until: float) -> Iterator[PipelineConnection]:
        """A connection, in no transaction; whatever was left open in it is rolled back.

        Raises:
            StorageBusyError: all are in use until then.
            LostError: a new one cannot be made.
        """
        room, generation = self._room, self._generation
        if not room.acquire(timeout=max(until - time.monotonic(), 0)):
            message = (
                f"all {self.url.pool_size} connections to {self.url.shown} stayed in use; nothing was "
                f"changed: raise pool_size in the URL, or use fewer threads"
            )
            raise StorageBusyError(message)
        try:
            wire = self._take(until)
            try:
                yield wire
            finally:
                self._give_back(wire, generation)
        finally:
            room.release()

    def open(self, until: float) -> PipelineConnection:
        """A new connection that nobody has greeted, and which is not lent to others."""
        url = self.url
        return PipelineConnection(url.conninfo, self._texts, prepare=url.prepare, until=until)

    def forget(self) -> None:
        """Close those that nobody uses; those in use are closed when they come back."""
        with self._lock:
            idle, self._idle, self._generation = self._idle, [], object()
        for wire in idle:
            wire.close()

    def _take(self, until: float) -> PipelineConnection:
        with self._lock:
            if self._idle:
                return self._idle.pop()
        wire = self.open(until)
        try:
            self._initialize(wire, until)
        except BaseException:
            wire.close()
            raise
        return wire

    def _give_back(self, wire: PipelineConnection, generation: object) -> None:
        if wire.is_in_transaction:
            with suppress(LostError, ServerError):
                wire([("rollback", ())], time.monotonic() + self.url.timeout)
        with self._lock:
            if wire.is_idle and generation is self._generation:
                self._idle.append(wire)
                return
        wire.close()

    def with_retries(self, work: Callable[[PipelineConnection, float], T], timeout: float | None = None) -> T:
        """Do the work on a connection; once more, and again, after what another try may cure.

        Args:
            work: is given the connection and the monotonic time until which it may take; if it raises,
                nothing was changed.
            timeout: how long in all, in seconds; None for the URL's own setting.

        Raises:
            StorageError: the server refused, or could not be reached for so long.
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
                time.sleep(min(left, pause * random.uniform(0.5, 1)))  # noqa: S311 - no secret
                pause = min(2 * pause, LONGEST_PAUSE)


#: What processes inherited and must neither use nor close.
inherited: list[list[PipelineConnection]] = []


def is_passing(error: LostError | ServerError) -> bool:
    """Whether another try may succeed."""
    if isinstance(error, ServerError):
        return error.code in _PASSING or error.code in _CROSSED
    return not any(refusal in str(error) for refusal in _REFUSALS)


def translated(error: LostError | ServerError, url: PostgresUrl, wait: float) -> StorageError:
    """The error in our words: what, where, and what to do."""
    if isinstance(error, LostError):
        tried = f" for {wait:g} s" if is_passing(error) else ""
        return StorageError(f"{url.shown} could not be used{tried} ({error}); nothing was changed")
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
        return StorageBusyError, ": it stayed busy, try again"
    if code in _FULL:
        return StorageFullError, ": make room and try again"
    if code.startswith("XX"):
        return StorageCorruptError, ": it is damaged, restore it from a copy"
    if code == "42501":
        return StorageError, (
            f": let the owner of schema {schema!r} grant USAGE on it, SELECT, INSERT, UPDATE and DELETE on "
            f"its tables, and USAGE on its sequences"
        )
    return StorageError, ""
