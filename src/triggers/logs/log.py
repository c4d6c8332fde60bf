"""The log of one attempt of a task instance: it numbers, counts, buffers and writes the records."""

from __future__ import annotations

import logging
import os
import threading
from typing import TYPE_CHECKING, Any, Protocol

from triggers.fork import reset_after_fork
from triggers.logs.block import LOGGERS, LogBlock, application_of
from triggers.logs.buffer import RecordBuffer
from triggers.logs.current import PROCESS_SECRETS
from triggers.logs.listeners import tell
from triggers.logs.logger import MAX_LEVEL, TriggersLogger
from triggers.logs.report import report_once
from triggers.logs.sanitizing.exceptions import entry_of
from triggers.logs.sanitizing.sanitizer import sanitizer
from triggers.logs.settings import LogIdentity, LogSettings, level_number, names_of
from triggers.logs.sink import Sink
from triggers.redaction import Secrets

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from triggers.core.records import LogBatch, LogEntry
    from triggers.exceptions import Retry
    from triggers.logs.sanitizing.plain import SanitizedContext

#: The first record to reach each of these levels is written at once, so that a crash cannot hide a warning.
STEPS = (logging.WARNING, logging.ERROR, logging.CRITICAL)
#: Microseconds to wait after a write that failed, doubled each time up to the second figure.
FIRST_DELAY, LONGEST_DELAY = 500_000, 30_000_000
#: Seconds that a thread waits for another thread that is writing.
WRITE_TIMEOUT = 2.0
#: Seconds that the end of an attempt waits for a write. A write takes less, so records stay in order.
DRAIN_TIMEOUT = 2 * WRITE_TIMEOUT
#: Exceptions that are remembered as logged, so that each is logged once for all the blocks that it leaves.
MAX_SEEN = 8

_DEFAULT_SETTINGS = LogSettings()


class Writer(Protocol):
    """Calls :meth:`InstanceLog.write_waiting` of logs in which records wait."""

    def watch(self, log: InstanceLog) -> bool:
        """Call it once, after a while; return whether that will happen."""
        ...

    def drop(self, log: InstanceLog) -> None:
        """Do not call it any more. A second call does nothing."""
        ...


class InstanceLog(Sink):
    """The log of one attempt of a task instance, also for records that come after its end.

    Records are buffered. A logging call writes them when the buffer is full enough, or when its record is the
    first to reach WARNING, ERROR or CRITICAL. The writer writes them when they have waited. The commit that
    ends the instance writes the rest (:meth:`drain`). A storage that is unavailable or slow never raises into
    the task: records stay in the buffer, within its limits, and are written later. Safe for threads.

    Args:
        identity: the instance and the attempt.
        write: stores a batch durably, or raises; called without a lock that another record needs.
        settings: the limits.
        now: returns the time, in microseconds since the Unix epoch.
        context: the context of the manager, which every record has.
        task_context: the context of the task, merged over it.
        logger_name: the application's logger for blocks that name none, usually the task's module.
        writer: told when records wait; None if only calls write them.

    Attributes:
        due_at: when the writer writes what waits: a monotonic time of this process, in seconds.
    """

    __slots__ = (
        "__weakref__",
        "_at",
        "_buffer",
        "_delay",
        "_draining",
        "_ending",
        "_failed",
        "_flush_at",
        "_highest",
        "_is_watched",
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
        "_writing_thread",
        "due_at",
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
        writer: Writer | None = None,
    ) -> None:
        super().__init__(sanitizer(settings), identity.attributes)
        self.identity: LogIdentity = identity
        self.settings: LogSettings = settings
        self.logger_name: str = logger_name
        self.keeps = True
        layers = [self.sanitizer.context(layer) for layer in (context, task_context) if layer]
        for layer in layers:
            self.base: SanitizedContext = self.sanitizer.merge(self.base, layer)
        self._write = write
        self._writer = writer
        self._is_watched = False
        self.due_at: float = 0.0
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
        self._writing_thread = 0
        self._seq = 0
        self._highest = logging.NOTSET
        self._next_step: float = STEPS[0]
        self._retry_at = 0
        self._at = 0
        self._delay = 0
        self._seen: list[tuple[BaseException, int]] = []
        self._ending = self._draining = False
        self._failed = False
        reset_after_fork(self)

    @property
    def current_log_level(self) -> int:
        """The highest level so far, also of records that were dropped; NOTSET before the first record."""
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
        """Create a block with a logger, for ``with log.block({"page": 1}) as logger:``.

        Args:
            args: the context, the application's logger, or both, in any order.
            context: the context of every record of the block.
            logger: the application's logger that receives the records.
            name: the name of that logger; by default, the task's module.
            record_level: replaces that of the settings for this block.
            capture: names of other loggers to capture, in addition to those of the settings.
            capture_counts: replaces that of the settings for this block.
        """
        loggers = [arg for arg in args if isinstance(arg, LOGGERS)]
        application, layers = application_of(logger if logger is not None else next(iter(loggers), None))
        layers += [arg for arg in args if not isinstance(arg, LOGGERS)]
        layers.append(context)
        if application is None:
            application = logging.getLogger(name or self.logger_name)
        least = self.settings.record_level if record_level is None else record_level
        captures = tuple(dict.fromkeys((*self.settings.capture, *names_of(capture))))
        counts = self.settings.capture_counts if capture_counts is None else capture_counts
        return LogBlock(self, application, layers, level_number(least), captures, capture_counts=counts)

    def log_failure(self, exc: BaseException, logger: logging.Logger | None = None) -> None:
        """Log the exception with which the attempt fails, at ERROR, unless a block has logged it at ERROR.

        The commit that ends the instance writes the record, see :meth:`drain`. `record_level` does not apply.
        An attempt fails once: what it raises after a first failure is logged at WARNING. An exception of a
        handler is reported on standard error and never raised, even if the log is strict, because the failure
        must still be stored.

        Args:
            exc: the exception, raised or not.
            logger: the application's logger that receives the record; by default, that of the task's module.
        """
        level = logging.WARNING if self._failed else logging.ERROR
        self._failed = True
        if self.first_sight(exc, level):
            self._log_end(logger, lambda last: last.leave(exc, level, entry_of(exc)), level)

    def log_retry(self, signal: Retry, attempt: int, attempts: int) -> None:
        """Log at WARNING that the attempt ends and is repeated. Its commit writes the record.

        Args:
            signal: the retry that the task has raised.
            attempt: the number of the attempt among the retries, from 1.
            attempts: how many attempts the task may make.
        """
        self._log_end(None, lambda last: last.leave_for_retry(signal, attempt, attempts, entry_of(signal)))

    def _log_end(
        self, logger: logging.Logger | None, say: Callable[[TriggersLogger], None], least: int = MAX_LEVEL
    ) -> None:
        """Log a record that the commit of the end writes."""
        self._ending = True
        application = logger if logger is not None else logging.getLogger(self.logger_name)
        record_level = min(level_number(self.settings.record_level), least)
        try:
            say(TriggersLogger(application, self, self.base, record_level=record_level))
        except Exception as problem:  # noqa: BLE001 - of a strict log
            report_once("a handler failed with the record of a task's end; the end is stored", problem)

    def drain(self) -> LogBatch:
        """Remove and return all records that are not written yet, for the commit that ends the instance.

        A second call returns an empty batch, or the records that came in between. A running write is awaited
        first, because the records that it fails to store are returned, too. Until :meth:`resume`, the writer
        leaves later records alone, because they would be stored before these.
        """
        mine = self._writing_thread == threading.get_ident()
        waited = not mine and self._writing.acquire(timeout=DRAIN_TIMEOUT)
        try:
            with self._lock:
                self._ending, self._draining = False, True
                return self._buffer.take(everything=True)[0]
        finally:
            if waited:
                self._writing.release()

    def resume(self) -> None:
        """Let records be written again, after the end of the instance was stored while its task continues."""
        with self._lock:
            self._ending = self._draining = False

    def close(self) -> None:
        """End the attempt: write the records that were not drained, and mark every later record as late.

        A late record is written at once. If that fails, the next one writes both. Closing twice changes
        nothing.
        """
        with self._lock:
            self.closed: bool = True
            self._seen.clear()
        self.flush()
        if self._writer is not None and self._is_watched:
            self._writer.drop(self)

    def flush(self) -> None:
        """Write the records that can be written, unless a write has just failed; it never raises."""
        with self._lock:
            nothing = self._buffer.is_empty
        # If the clock is that of a server, reading it is a round trip.
        if not nothing or self._writing.locked():
            self._store(self.now(), urgent=True)

    def write_waiting(self) -> None:
        """Write what waits, for the writer. What cannot be written now is watched by the writer again."""
        self._is_watched = False
        try:
            self._store(self.now(), by_writer=True)
        finally:
            self._have_watched()

    def _have_watched(self) -> None:
        """Have the writer write what waits, unless it will anyway. What comes after the end does not wait."""
        if self._writer is None or self._is_watched or self.closed or not self._buffer.is_counting:
            return
        is_added, self._is_watched = False, True  # before `watch`, because the writer can be faster
        try:
            is_added = self._writer.watch(self)
        finally:
            if not is_added:
                self._is_watched = False

    # What loggers and blocks use.

    def secrets(self) -> tuple[str, ...]:
        """Return the secret values that are hidden in this log."""
        return self._secrets.values()

    def own_secrets(self) -> Secrets:
        """Return the secrets of this log, to which :func:`triggers.logs.mask_secret` adds."""
        return self._secrets

    def now(self) -> int:
        """Return the time in microseconds since the Unix epoch; if the clock fails, its last time."""
        try:
            self._at = self._now()
        except Exception as problem:  # noqa: BLE001 - it may be the clock of an unavailable storage
            report_once("the clock of a log failed; its last time is used", problem)
        return self._at

    def first_sight(self, exc: BaseException, level: int) -> bool:
        """Return whether no record at this level or above has this exception, and remember it."""
        with self._lock:
            if any(seen is exc and level <= known for seen, known in self._seen):
                return False
            self._seen = [*self._seen[1 - MAX_SEEN :], (exc, level)]
        return True

    def is_writing(self) -> bool:
        """Whether the calling thread is writing the records of this log."""
        return self._writing_thread == threading.get_ident()

    def record(self, entry: LogEntry, size: int) -> None:
        """Number, count and buffer a record; write the buffer if it is full enough.

        Args:
            entry: the record; its number is set here.
            size: its approximate size, in bytes.
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
            due = due and not self._ending
        try:
            if due:
                self._store(entry.at, urgent=urgent)
        finally:
            self._have_watched()
        tell(self.identity, entry)

    def after_fork(self) -> None:
        """Leave what is buffered to the parent process; from now on, each record is written at once."""
        self._lock = threading.Lock()
        self._writing = threading.Lock()
        self._writing_thread = 0
        self._is_watched = False
        self._buffer = RecordBuffer(self.settings)
        self._seq += CHILD_NUMBERS * os.getpid()
        self.closed = True

    def _gathered_enough(self, ready: int, at: int) -> bool:
        records, size, interval = self._flush_at
        buffer = self._buffer
        # A clock that was set back must not delay records.
        return ready >= records or buffer.ready_bytes >= size or not 0 <= at - buffer.ready_since < interval

    def _store(self, at: int, *, urgent: bool = False, by_writer: bool = False) -> None:
        """Write what can be written; while another thread writes, only an urgent record waits."""
        me = threading.get_ident()
        if self._writing_thread == me or at < self._retry_at:
            return
        if not self._writing.acquire(timeout=WRITE_TIMEOUT if urgent else 0.0):
            return
        try:
            self._writing_thread = me
            with self._lock:
                if by_writer and (self._ending or self._draining):
                    return
                batch, rows = self._buffer.take(everything=self.closed)
            if batch:
                self._try_write(batch, rows, at)
        finally:
            self._writing_thread = 0
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
            report_once(
                "a log could not be written; its records stay in memory and are written later", problem
            )
        else:
            self._delay = 0


#: Records of a forked process are numbered from this many times its process id.
CHILD_NUMBERS = 1_000_000
