"""Take what other loggers of the application say within a block into the log of the instance, too."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import Counter
from typing import TYPE_CHECKING

from triggers.fork import renew_after_fork
from triggers.logs.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Iterable

    from triggers.core.records import LogEntry
    from triggers.logs.sink import Scope


class _Capturer(logging.Handler):
    """Hands each record to the block that the code which logged it runs in, if that block asked for it.

    There is one for all blocks of the process. It stands at a logger while some block captures that one, and
    takes no lock, so that a record which is captured while another one is cannot wait for itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self._wanted: Counter[str] = Counter()
        self._changing = threading.Lock()
        # A record passes by several times where a logger and one above it are both captured.
        self._seen: weakref.WeakSet[logging.LogRecord] = weakref.WeakSet()
        self._busy = threading.local()

    def createLock(self) -> None:  # noqa: N802 - the standard library's name
        """Have none."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Record it, unless it came from recording."""
        if getattr(self._busy, "yes", False):
            return True
        self._busy.yes = True
        try:
            self._take(record)
        finally:
            self._busy.yes = False
        return True

    def _take(self, record: logging.LogRecord) -> None:
        from triggers.logs.block import CURRENT  # noqa: PLC0415 - blocks need this module

        logger = CURRENT.get()
        if logger is not None and self._is_new(record):
            logger.capture(record)

    def _is_new(self, record: logging.LogRecord) -> bool:
        try:
            if record in self._seen:
                return False
            self._seen.add(record)
        except TypeError:
            # A class of the application's own whose records cannot be remembered; then one may be kept twice.
            return True
        return True

    def begin(self, names: Iterable[str]) -> None:
        """Listen to these loggers; as often as this was asked for, `end` ends it."""
        with self._changing:
            for name in names:
                self._wanted[name] += 1
                logging.getLogger(name).addHandler(self)

    def end(self, names: Iterable[str]) -> None:
        """Listen to these loggers no longer, unless somebody else wants to."""
        with self._changing:
            for name in names:
                self._wanted[name] -= 1
                if self._wanted[name] <= 0:
                    del self._wanted[name]
                    logging.getLogger(name).removeHandler(self)

    def after_fork(self) -> None:
        """Have a lock of its own."""
        self._changing = threading.Lock()


CAPTURER = _Capturer()
renew_after_fork(CAPTURER)


class Ear(Sink):
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


def names_of(capture: Iterable[str]) -> tuple[str, ...]:
    """Return the names of loggers to capture; that of the root logger is empty.

    Raises:
        TypeError: it is a single name, which would be taken for its letters, or no names.
    """
    names = () if isinstance(capture, str) else tuple(capture)
    if isinstance(capture, str) or not all(isinstance(name, str) for name in names):
        message = f"capture={capture!r} must be a list of names of loggers"
        raise TypeError(message)
    return tuple("" if name == "root" else name for name in dict.fromkeys(names))
