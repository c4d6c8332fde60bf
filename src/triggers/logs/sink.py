"""Sinks, to which loggers write their records, and the scopes of blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triggers.logs.sanitizing.plain import NOTHING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from triggers.core.records import LogEntry
    from triggers.logs.sanitizing.plain import SanitizedContext
    from triggers.logs.sanitizing.sanitizer import Sanitizer
    from triggers.redaction import Secrets


class Sink:
    """Receives the records of loggers; this base class, for code outside of any task, stores none.

    Attributes:
        attributes: attributes that every LogRecord gets.
        base: the context that every record has.
        closed: whether the attempt has ended, so that later records are late.
        keeps: whether it stores records.
        sanitizer: sanitizes contexts and texts before they are stored.
        strict: whether exceptions within logging are raised.
    """

    __slots__ = ("attributes", "base", "closed", "keeps", "sanitizer", "strict")

    def __init__(self, sanitizer: Sanitizer, attributes: Mapping[str, Any] | None = None) -> None:
        self.sanitizer: Sanitizer = sanitizer
        self.strict: bool = sanitizer.settings.strict
        self.attributes: dict[str, Any] = dict(attributes or {})
        self.base: SanitizedContext = NOTHING
        self.closed: bool = False
        self.keeps: bool = False

    def secrets(self) -> tuple[str, ...]:
        """Return the secret values to hide in all texts."""
        return ()

    def own_secrets(self) -> Secrets | None:
        """Return the secrets of this sink alone; None if it has none of its own."""
        return None

    def now(self) -> int:
        """Return the time in microseconds since the Unix epoch; 0 if nothing is stored."""
        return 0

    def record(self, entry: LogEntry, size: int) -> None:
        """Store a record and set its number; this class ignores it."""

    def first_sight(self, _exc: BaseException, _level: int) -> bool:
        """Return whether no record at this level or above has this exception; this class remembers none."""
        return True

    def is_writing(self) -> bool:
        """Whether the calling thread is writing the records of this sink."""
        return False


class Scope:
    """The scope of one block: whether it has ended, and which loggers of the application it captures.

    Attributes:
        ended: whether the block has ended, so that later records are late.
        outer: the enclosing block of the same log.
        captures: names of other loggers whose records it stores.
        capture_counts: whether those count towards the level of the instance.
    """

    __slots__ = ("capture_counts", "captures", "ended", "outer")

    def __init__(
        self, outer: Scope | None = None, captures: tuple[str, ...] = (), *, capture_counts: bool = False
    ) -> None:
        self.ended: bool = False
        self.outer: Scope | None = outer
        self.captures: tuple[str, ...] = captures
        self.capture_counts: bool = capture_counts


class CapturedSink(Sink):
    """Stores captured records, which the application's logging handles itself, in the log of a block.

    Args:
        sink: the sink of the block.
        counts: whether captured records count towards the level of the instance.
    """

    __slots__ = ("_counts", "_sink")

    def __init__(self, sink: Sink, *, counts: bool) -> None:
        super().__init__(sink.sanitizer)
        self.closed: bool = sink.closed
        self.keeps: bool = sink.keeps
        self._sink = sink
        self._counts = counts

    def secrets(self) -> tuple[str, ...]:
        """Return the secret values of the block's log."""
        return self._sink.secrets()

    def now(self) -> int:
        """Return the time of the block's log, in microseconds since the Unix epoch."""
        return self._sink.now()

    def record(self, entry: LogEntry, size: int) -> None:
        """Store a record in the block's log, marked as one that counts or does not."""
        entry.counts = self._counts
        self._sink.record(entry, size)


def captured_by(scope: Scope | None, name: str) -> Scope | None:
    """Return the innermost block that captures the logger of this name; None if no block does."""
    while scope is not None:
        if any(not wanted or name == wanted or name.startswith(f"{wanted}.") for wanted in scope.captures):
            return scope
        scope = scope.outer
    return None
