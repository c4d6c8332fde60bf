"""Where the records of a logger go."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triggers.logs.sanitizing.plain import NOTHING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from triggers.core.records import LogEntry
    from triggers.logs.sanitizing.redact import Secrets
    from triggers.logs.sanitizing.sanitizer import Sanitizer


class Sink:
    """Where the records of a logger go, and under which rules; this one keeps none, outside of any task.

    Attributes:
        attributes: what every LogRecord is given.
        base: the context that every record has.
        closed: whether the attempt has ended, so that what comes now is late.
        keeps: whether it takes records.
        sanitizer: makes what comes in fit to be kept.
        strict: whether what goes wrong is raised.
    """

    __slots__ = ("attributes", "base", "closed", "keeps", "sanitizer", "strict")

    def __init__(self, sanitizer: Sanitizer, attributes: Mapping[str, Any] | None = None) -> None:
        self.sanitizer = sanitizer
        self.strict = sanitizer.settings.strict
        self.attributes = dict(attributes or {})
        self.base = NOTHING
        self.closed = False
        self.keeps = False

    def secrets(self) -> tuple[str, ...]:
        """Return the values to hide."""
        return ()

    def own_secrets(self) -> Secrets | None:
        """Return where values to hide are added; None: nowhere of its own."""
        return None

    def now(self) -> int:
        """Return the time, in microseconds since the Unix epoch."""
        return 0

    def record(self, entry: LogEntry, size: int) -> None:
        """Take a record and give it its number."""

    def first_sight(self, _exc: BaseException) -> bool:
        """Whether this very exception has not left a block yet; a sink that keeps nothing forgets it."""
        return True

    def is_writing(self) -> bool:
        """Whether the calling thread is just writing its records."""
        return False


class Scope:
    """One block: how long its loggers' records are in time, and what else of the application it listens to.

    Attributes:
        ended: whether the block has.
        outer: the block of the same log that it is in.
        captures: names of other loggers whose records it takes.
        capture_counts: whether those count towards the level of the instance.
    """

    __slots__ = ("capture_counts", "captures", "ended", "outer")

    def __init__(
        self, outer: Scope | None = None, captures: tuple[str, ...] = (), *, capture_counts: bool = False
    ) -> None:
        self.ended = False
        self.outer = outer
        self.captures = captures
        self.capture_counts = capture_counts


class CapturedSink(Sink):
    """Takes records that go their own way through the application into the log of a block.

    Args:
        sink: where the records of the block go.
        counts: whether these count towards the level of the instance, too.
    """

    __slots__ = ("_counts", "_sink")

    def __init__(self, sink: Sink, *, counts: bool) -> None:
        super().__init__(sink.sanitizer)
        self.closed, self.keeps = sink.closed, sink.keeps
        self._sink = sink
        self._counts = counts

    def secrets(self) -> tuple[str, ...]:
        """Return the values that are hidden in the log."""
        return self._sink.secrets()

    def now(self) -> int:
        """Return the time of the log."""
        return self._sink.now()

    def record(self, entry: LogEntry, size: int) -> None:
        """Hand a record on, as one that counts or does not."""
        entry.counts = self._counts
        self._sink.record(entry, size)


def captured_by(scope: Scope | None, name: str) -> Scope | None:
    """Return the innermost of the nested blocks that captures the logger of this name; None if none does."""
    while scope is not None:
        if any(not wanted or name == wanted or name.startswith(f"{wanted}.") for wanted in scope.captures):
            return scope
        scope = scope.outer
    return None
