"""The log of one attempt of one task instance: numbers its records, counts their levels, gets them stored."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any

from triggers.fork import reset_after_fork
from triggers.logs.block import LogBlock
from triggers.logs.buffer import RecordBuffer
from triggers.logs.current import PROCESS_SECRETS
from triggers.logs.logger import TriggersLogger
from triggers.logs.report import report_once
from triggers.logs.sanitizing.redact import Secrets
from triggers.logs.sanitizing.sanitizer import sanitizer
from triggers.logs.settings import LogIdentity, LogSettings, level_number, names_of
from triggers.logs.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from triggers.core.records import LogBatch, LogEntry

#: The first record to reach each of these is written at once: no crash may make a warned instance look clean.
STEPS = (logging.WARNING, logging.ERROR, logging.CRITICAL)
#: Microseconds to wait after a write that failed, doubled each time up to the second figure.
FIRST_DELAY, LONGEST_DELAY = 500_000, 30_000_000
#: Seconds that a thread waits for another one that is writing.
PATIENCE = 2.0
#: Exceptions that are remembered as logged while they pass through blocks.
MAX_SEEN = 8

_DEFAULT_SETTINGS = LogSettings()


class InstanceLog(Sink):
    """What one attempt of a task instance says, from its first record until after its end.

    Records gather here; the caller's own logging call writes them when enough of them have gathered, or when
    one is the first to reach WARNING, ERROR or CRITICAL. There is no thread. The rest is for the commit that
    ends the instance (:meth:`drain`). A storage that is down or slow never raises into the task: records stay
    here, within bounds, and the write is tried again later. Safe for threads.

    Args:
        identity: whose log it is.
        write: stores a batch, durably, or raises; called while no lock is held that another record needs.
        settings: limits.
        now: gives the time, in microseconds since the Unix epoch.
        context: of the manager; every record has it.
        task_context: of the task, merged over it.
        logger_name: the application's logger where a block names none; the task's module is the best.
    """

    __slots__ = (
        "__weakref__",
        "_at",
        "_buffer",
        "_delay",
        "_flush_at",
        "_highest",
        "_lock",
        "_next_step",
        "_now",
        "_retry_at",
        "_secrets",
        "_seen",
        "_seq",
        "_write",
        "_writer",
        "_writing",
        "identity",
        "logger_name",
        "settings",
    )

    def __init__(
        self,
        identity: LogIdentity,
        *,
        write: Callable[[LogBatch], None],
        now: Callable[[], int],
        settings: LogSettings = _DEFAULT_SETTINGS,
        context: Mapping[str, Any] | None = None,
        task_context: Mapping[str, Any] | None = None,
        logger_name: str = "triggers.tasks",
    ) -> None:
        super().__init__(sanitizer(settings), _attributes(identity))
        self.identity = identity
        self.settings = settings
        self.logger_name = logger_name
        self.keeps = True
        layers = [self.sanitizer.context(layer) for layer in (context, task_context) if layer]
        for layer in layers:
            self.base = self.sanitizer.merge(self.base, layer)
        self._write = write
        self._now = now
        self._flush_at = (
            settings.flush_records,
            settings.flush_bytes,
            settings.flush_interval.total_seconds() * 1e6,
        )
        self._secrets = Secrets(PROCESS_SECRETS)
        self._buffer = RecordBuffer(settings)
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._writer = 0
        self._seq = 0
        self._highest = logging.NOTSET
        self._next_step: float = STEPS[0]
        self._retry_at = 0
        self._at = 0
        self._delay = 0
        self._seen: list[BaseException] = []
        reset_after_fork(self)

    @property
    def current_log_level(self) -> int:
        """The highest level so far, of records that were kept or left out; NOTSET if there was none."""
        return self._highest

    def block(
        self,
        *args: Mapping[str, Any] | logging.Logger | None,
        context: Mapping[str, Any] | None = None,
        logger: logging.Logger | None = None,
        name: str | None = None,
        record_level: int | str | None = None,
        capture: Iterable[str] = (),
        capture_counts: bool | None = None,
    ) -> LogBlock:
        """Make a block with a logger; ``with log.block({"page": 1}) as logger:``.

        Args:
            args: the context, the application's logger, or both, in any order.
            context: what every record of the block has.
            logger: the application's logger that records are handed to.
            name: its name, if it is not at hand; by default the task's module.
            record_level: in place of the settings' own, for this block.
            capture: names of other loggers to listen to, besides those of the settings.
            capture_counts: in place of the settings' own, for this block.
        """
        loggers = [arg for arg in args if isinstance(arg, _LOGGERS)]
        application, layers = _application(logger if logger is not None else next(iter(loggers), None))
        layers += [arg for arg in args if not isinstance(arg, _LOGGERS)]
        layers.append(context)
        if application is None:
            application = logging.getLogger(name or self.logger_name)
        least = self.settings.record_level if record_level is None else record_level
        captures = tuple(dict.fromkeys((*self.settings.capture, *names_of(capture))))
        counts = self.settings.capture_counts if capture_counts is None else capture_counts
        return LogBlock(self, application, layers, level_number(least), captures, capture_counts=counts)

    def drain(self) -> LogBatch:
        """Hand over all that was not written yet, for the commit that ends the instance; forget it here.

        A second call gives an empty batch, or what came in between. It waits for a write that is under way,
        since what that one fails to store is handed over too.
        """
        mine = self._writer == threading.get_ident()
        waited = not mine and self._writing.acquire(timeout=PATIENCE)
        try:
            with self._lock:
                return self._buffer.take(everything=True)[0]
        finally:
            if waited:
                self._writing.release()

    def close(self) -> None:
        """End the attempt: what has not been drained is written, and every later record is late.

        A late record is written at once; if that fails, it is tried again with the next one. Closing twice
        changes nothing.
        """
        with self._lock:
            self.closed = True
            self._seen.clear()
        self.flush()

    def flush(self) -> None:
        """Write what is ready to be written, unless a write has just failed; it never raises."""
        with self._lock:
            nothing = self._buffer.is_empty
        # Asking the time costs a round trip where the clock is a server's.
        if not nothing or self._writing.locked():
            self._store(self.now(), urgent=True)

    # What loggers and blocks ask of it.

    def secrets(self) -> tuple[str, ...]:
        """Return the values that are hidden in this log."""
        return self._secrets.values()

    def own_secrets(self) -> Secrets:
        """Return where :func:`triggers.logs.mask_secret` adds a value."""
        return self._secrets

    def now(self) -> int:
        """Return the time, in microseconds since the Unix epoch; without a clock, the last one."""
        try:
            self._at = self._now()
        except Exception as problem:  # noqa: BLE001 - the clock may be the storage's, and the storage away
            report_once("the clock of a log failed; the last time that it gave is used", problem)
        return self._at

    def first_sight(self, exc: BaseException) -> bool:
        """Whether this very exception has not left a block yet; from now on it has."""
        with self._lock:
            if any(seen is exc for seen in self._seen):
                return False
            self._seen = [*self._seen[1 - MAX_SEEN :], exc]
        return True

    def is_writing(self) -> bool:
        """Whether the calling thread is just writing the records of this log."""
        return self._writer == threading.get_ident()

    def record(self, entry: LogEntry, size: int) -> None:
        """Number, count and keep a record; write if it is time to.

        Args:
            entry: without its number, which it gets here.
            size: of it, in bytes, roughly.
        """
        buffer, level = self._buffer, entry.level if entry.counts else logging.NOTSET
        with self._lock:
            self._seq = entry.seq = self._seq + 1
            buffer.add(entry, size, late=self.closed)
            self._highest = max(self._highest, level)
            urgent = self.closed or level >= self._next_step
            if level >= self._next_step:
                self._next_step = next((step for step in STEPS if step > level), float("inf"))
            ready = buffer.ready
            due = urgent or (bool(ready) and self._gathered_enough(len(ready), entry.at))
        if due:
            self._store(entry.at, urgent=urgent)
        for told in _listeners:
            told(self.identity, entry)

    def after_fork(self) -> None:
        """Go on in a forked process: what waits is the parent's to write, what comes is written at once."""
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._writer = 0
        self._buffer = RecordBuffer(self.settings)
        self._seq += CHILD_NUMBERS * os.getpid()
        self.closed = True

    def _gathered_enough(self, ready: int, at: int) -> bool:
        records, size, interval = self._flush_at
        buffer = self._buffer
        # A clock that was set back must not keep records waiting.
        return ready >= records or buffer.ready_bytes >= size or not 0 <= at - buffer.ready_since < interval

    def _store(self, at: int, *, urgent: bool) -> None:
        """Write what is ready; while another thread writes, only an urgent record waits for it."""
        me = threading.get_ident()
        if self._writer == me or at < self._retry_at:
            return
        if not self._writing.acquire(timeout=PATIENCE if urgent else 0.0):
            return
        try:
            self._writer = me
            with self._lock:
                batch, rows = self._buffer.take(everything=self.closed)
            if batch:
                self._try_write(batch, rows, at)
        finally:
            self._writer = 0
            self._writing.release()

    def _try_write(self, batch: LogBatch, rows: list[Any], at: int) -> None:
        try:
            self._write(batch)
        except BaseException as problem:
            with self._lock:
                self._buffer.put_back(batch, rows)
                self._delay = min(max(self._delay * 2, FIRST_DELAY), LONGEST_DELAY)
                self._retry_at = at + self._delay
            if not isinstance(problem, Exception):
                raise
            report_once("a log could not be written; it is kept in memory and tried again", problem)
        else:
            self._delay = 0


#: Who is told of every record of this process.
_listeners: tuple[Callable[[LogIdentity, LogEntry], None], ...] = ()


def listen(told: Callable[[LogIdentity, LogEntry], None]) -> None:
    """Tell somebody of every record of this process, from now on; the caller's task waits for him."""
    global _listeners  # noqa: PLW0603 - replaced as a whole, so that no lock is needed to read it
    _listeners = (*_listeners, told)


def unlisten(told: Callable[[LogIdentity, LogEntry], None]) -> None:
    """Tell him no longer."""
    global _listeners  # noqa: PLW0603 - as above
    _listeners = tuple(other for other in _listeners if other != told)


#: Records of a forked process have numbers of their own: beyond this many times its process id.
CHILD_NUMBERS = 1_000_000


def _attributes(identity: LogIdentity) -> dict[str, Any]:
    return {
        "triggers.uid": identity.uid,
        "triggers.task": identity.task,
        "triggers.instance": identity.instance,
        "triggers.attempt": identity.attempt,
    }


_LOGGERS = (logging.Logger, logging.LoggerAdapter)


def _application(logger: Any) -> tuple[logging.Logger | None, list[Any]]:
    """Find the application's own logger behind adapters and blocks; adapters bring context."""
    layers: list[Any] = []
    while isinstance(logger, logging.LoggerAdapter):
        layers.insert(0, logger.extra)
        logger = logger.logger
    return (logger.application if isinstance(logger, TriggersLogger) else logger), layers
