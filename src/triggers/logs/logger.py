"""The logger of one block: a `logging.Logger` that records regardless of the application's configuration."""

from __future__ import annotations

import logging
import sys
import traceback
from typing import TYPE_CHECKING, Any

from triggers.core.records import LogEntry
from triggers.exceptions import context_of
from triggers.logs.extra import STANDARD, exception_of, joined_extra, split_extra
from triggers.logs.forwarding import FORWARDING, NO_DETAILS, Details, forward
from triggers.logs.report import report_once
from triggers.logs.sanitizing.exceptions import describe, traceback_of
from triggers.logs.sanitizing.messages import format_message, text_of
from triggers.logs.sanitizing.plain import NOTHING, SanitizedContext
from triggers.logs.sanitizing.shapes import type_name
from triggers.logs.sanitizing.texts import fit_text, storable
from triggers.logs.settings import level_number
from triggers.logs.sink import CapturedSink, Scope, Sink, captured_by

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from types import FrameType, TracebackType
    from typing import TypedDict, Unpack

    from triggers.exceptions import Retry
    from triggers.redaction import Secrets

    ExcInfo = (
        bool
        | tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None]
        | BaseException
        | None
    )

    class LogCall(TypedDict, total=False):
        """The keywords of a call that records."""

        exc_info: ExcInfo
        stack_info: bool
        stacklevel: int
        extra: Mapping[str, object] | None
        context: Mapping[str, Any] | None
        extras: Mapping[str, object] | None


#: Frames of these files are never the caller: those of the standard library's logging, and our own.
_INTERNAL = frozenset(
    code.co_filename for code in (logging.addLevelName.__code__, forward.__code__, (lambda: None).__code__)
)
#: The place of a call without a frame.
_NOWHERE = ("(unknown file)", 0, "(unknown function)")
#: Bytes that a record takes in addition to its texts.
_OVERHEAD = 200
#: The highest level: higher ones are lowered to it, because the stored counters have no space for more.
MAX_LEVEL = 1_000_000
#: Characters of the name of a logger that are stored.
MAX_NAME = 255
_NO_CACHE: dict[int, bool] = {}


class TriggersLogger(logging.Logger):
    """The logger of a block of a task; use it like any other `logging.Logger`.

    In addition to the arguments of the standard library, every call takes `context=`, a mapping that is
    merged over the context of the block. ``extra={"context": …}`` means the same. Other keys of `extra` are
    both attributes of the LogRecord and part of the context, and so are unknown keywords.

    A record is stored, and its level counted, before it is forwarded. Then it is forwarded to the
    application's logger of the same name if that one is enabled for its level. The filters and handlers of
    that logger and of its parents apply. Filters and a level of this logger only affect forwarding. A call
    never raises into the task.

    Attributes:
        application: the application's own logger.
        bound: the context that every record has.
        scope: the block.
    """

    application: logging.Logger

    def __init__(
        self,
        application: logging.Logger,
        sink: Sink,
        bound: SanitizedContext = NOTHING,
        scope: Scope | None = None,
        record_level: int = sys.maxsize,
    ) -> None:
        super().__init__(application.name)
        self.application = application
        self.parent: logging.Logger | None = application
        self.bound = bound
        self._sink = sink
        self.scope: Scope = scope or Scope()
        self._record_level = record_level
        self._sanitizer = sink.sanitizer
        self._label = storable(self.name[:MAX_NAME])
        self._hidden: tuple[tuple[str, ...], SanitizedContext] = ((), bound)
        # The standard library clears this dict when a level changes or logging is disabled, so its answers
        # can be read directly. A logger with its own `isEnabledFor` is called every time.
        plain = type(application).isEnabledFor is logging.Logger.isEnabledFor
        self._answers: dict[int, bool] = getattr(application, "_cache", _NO_CACHE) if plain else _NO_CACHE

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the standard library's name
        """Whether a call of this level is recorded, or forwarded to the application's logger."""
        if level >= self._record_level:
            return True
        application = self.application
        if application.disabled:
            return False
        try:
            return self._answers[level]
        except KeyError:
            return application.isEnabledFor(level)

    def getEffectiveLevel(self) -> int:  # noqa: N802 - the standard library's name
        """Return the lowest level that is recorded or forwarded."""
        return min(self._record_level, self.application.getEffectiveLevel())

    def bind(self, context: Mapping[str, Any] | None = None, /, **more: Any) -> TriggersLogger:
        """Return a logger with more context; this one does not change.

        Args:
            context: merged over the context of this logger.
            more: the same, for keys that are names.
        """
        return self._like(self.application, self.with_layers(self.bound, (context, more or None)))

    def with_layers(self, plain: SanitizedContext, layers: Iterable[Any]) -> SanitizedContext:
        """Return a context with others merged over it in their order; layers that are None are ignored."""
        for layer in layers:
            if layer is not None:
                over = self._sanitizer.context(layer, self._sink.secrets())
                plain = self._sanitizer.merge(plain, over)
        return plain

    def named(self, name: str) -> TriggersLogger:
        """Return a logger of the same block that forwards to another logger of the application."""
        return self._like(logging.getLogger(name), self.bound)

    def getChild(self, suffix: str) -> TriggersLogger:  # noqa: N802 - the standard library's name
        """Return a logger of the same block for the application's logger ``<name>.<suffix>``."""
        return self._like(self.application.getChild(suffix), self.bound)

    def _like(self, application: logging.Logger, bound: SanitizedContext) -> TriggersLogger:
        return TriggersLogger(application, self._sink, bound, self.scope, self._record_level)

    def belongs_to(self, sink: Sink) -> bool:
        """Whether its records go to this sink."""
        return self._sink is sink

    def own_secrets(self) -> Secrets | None:
        """Return the secrets of this log alone; None if the log stores nothing."""
        return self._sink.own_secrets()

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickle it as the application's logger: another process does not have the block."""
        return logging.getLogger, (self.name,)

    def log(self, level: int | str, msg: object, *args: object, **kwargs: Any) -> None:
        """Log at any level, which may be given by name; an unknown name counts as WARNING."""
        try:
            number = level_number(level)
        except (AttributeError, ValueError):
            number = logging.WARNING
        number = min(max(number, logging.NOTSET), MAX_LEVEL)
        if self.isEnabledFor(number):
            self._log(number, msg, args, **kwargs)

    def handle(self, record: logging.LogRecord) -> None:
        """Log a LogRecord that was made elsewhere as if it had been logged here."""
        if self.isEnabledFor(_level_of(record)):
            self._take_made(record)

    def capture(self, record: logging.LogRecord) -> None:
        """Store a record of another logger of the application, if this block captures that logger."""
        scope = captured_by(self.scope, record.name)
        if scope is not None:
            self.keep(record, counts=scope.capture_counts)

    def keep(self, record: logging.LogRecord, *, counts: bool = True) -> None:
        """Store a LogRecord that the application's logging handles itself, without forwarding it again.

        Records that handlers of the application log while they handle a record of this log, and records that
        are logged while this log is written, are not stored.

        Args:
            record: of any logger.
            counts: whether it counts towards the level of the instance.
        """
        if FORWARDING.active or self._sink.is_writing():
            return
        mute = logging.Logger(record.name)  # noqa: LOG001 - the application's own logger already has the record
        mute.disabled = True
        sink = CapturedSink(self._sink, counts=counts)
        TriggersLogger(mute, sink, self.bound, self.scope)._take_made(record)  # noqa: SLF001 - one of these

    def _take_made(self, record: logging.LogRecord) -> None:
        try:
            extra = {key: item for key, item in record.__dict__.items() if key not in STANDARD}
            args = record.args if isinstance(record.args, tuple) else (record.args,) if record.args else ()
            line = record.lineno if type(record.lineno) is int else 0
            place = (text_of(record.pathname), line, text_of(record.funcName or ""))
            level = _level_of(record)
            self._take(level, record.msg, args, place, None, extra, record.exc_info)
        except Exception as problem:  # noqa: BLE001 - as every other record
            self._failed(problem)

    def _log(  # noqa: PLR0917 - the standard library's signature, with more keywords
        self,
        level: int,
        msg: object,
        args: Any,
        exc_info: ExcInfo = None,
        extra: Any = None,
        stack_info: bool = False,  # noqa: FBT001, FBT002 - the standard library's signature
        stacklevel: int = 1,
        context: Any = None,
        extras: Any = None,
        **more: Any,
    ) -> None:
        frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as the standard library finds it
        while frame is not None and frame.f_code.co_filename in _INTERNAL:
            frame = frame.f_back
        if stacklevel != 1:
            frame = _further(frame, stacklevel)
        if frame is None:
            place = _NOWHERE
        else:
            code = frame.f_code
            place = (code.co_filename, frame.f_lineno, code.co_name)
        try:
            if extras is not None or more:
                extra = joined_extra(extra, extras, more)
            stack = self._stack_text(frame) if stack_info else None
            self._take(level, msg, args, place, context, extra, exc_info, stack)
        except Exception as problem:  # noqa: BLE001 - logging never breaks the task
            self._failed(problem)

    def _stack_text(self, frame: FrameType | None) -> str:
        text = "Stack (most recent call last):\n" + "".join(traceback.format_stack(frame)).rstrip("\n")
        return fit_text(text, self._sanitizer.settings.max_traceback, self._sink.secrets())[0]

    def _failed(self, problem: Exception) -> None:
        if self._sink.strict:
            raise problem
        report_once("a record could not be logged; the task continues without it", problem)

    def _take(  # noqa: PLR0917 - called for every record; keywords are slower
        self,
        level: int,
        msg: object,
        args: tuple[Any, ...],
        place: tuple[str, int, str],
        context: Any = None,
        extra: Any = None,
        exc_info: Any = None,
        stack: str | None = None,
    ) -> None:
        """Make the record, store it, and then forward it, so that it is stored if a handler hangs."""
        sink, sanitizer = self._sink, self._sanitizer
        secrets = sink.secrets()
        details = NO_DETAILS
        if secrets or exc_info is not None or extra is not None:
            plain, details = self._guarded(context, extra, exc_info, secrets)
        elif context is None:
            plain = self.bound
        else:
            plain = sanitizer.merge(self.bound, sanitizer.context(context))
        message, template, send, send_args, was_cut = format_message(msg, args, sanitizer, secrets)
        truncated = plain.truncated
        if was_cut or details.described is not None:
            truncated = details.cuts(truncated, was_cut=was_cut)
        number = 0
        if sink.keeps:
            described = details.described
            tree = None if described is None else described.record
            late = self.scope.ended or sink.closed
            path, line, function = place
            entry = LogEntry(
                0,
                sink.now(),
                level,
                self._label,
                message,
                template,
                plain.data,
                tree,
                path if path.isascii() else storable(path),
                line,
                function,
                truncated,
                late,
            )
            size = _OVERHEAD + len(message) + plain.weight
            sink.record(entry, size if described is None else size + described.size)
            number = entry.seq
        application = self.application
        if (
            level >= self.level
            and not application.disabled
            and (self._answers.get(level) or application.isEnabledFor(level))
            and not FORWARDING.active
        ):
            forward(
                self,
                application,
                sink,
                level,
                send,
                send_args,
                place,
                number,
                plain,
                truncated,
                details,
                stack,
            )

    def _guarded(
        self, context: Any, extra: Any, exc_info: Any, secrets: tuple[str, ...]
    ) -> tuple[SanitizedContext, Details]:
        try:
            return self._gathered(context, extra, exc_info, secrets)
        except Exception as problem:
            if self._sink.strict:
                raise
            return self._sanitizer.lost(problem), NO_DETAILS

    def _gathered(
        self, context: Any, extra: Any, exc_info: Any, secrets: tuple[str, ...]
    ) -> tuple[SanitizedContext, Details]:
        """Combine the contexts of a call with an exception, with `extra`, or while secrets are known."""
        sanitizer = self._sanitizer
        plain = self._bound_without(secrets) if secrets else self.bound
        described = attributes = None
        exc = None if exc_info is None else exception_of(exc_info)
        if exc is not None:
            described = describe(exc, sanitizer.settings, secrets)
            plain = sanitizer.merge(plain, sanitizer.context(context_of(exc), secrets))
        if extra is not None:
            others, context = split_extra(extra, context)
            fit = sanitizer.context(others, secrets)
            attributes = fit.copy()
            plain = sanitizer.merge(plain, fit)
        if context is not None:
            plain = sanitizer.merge(plain, sanitizer.context(context, secrets))
        return plain, Details(exc, described, attributes)

    def _bound_without(self, secrets: tuple[str, ...]) -> SanitizedContext:
        known, plain = self._hidden
        if known is not secrets:
            plain = self._sanitizer.again(self.bound, secrets)
            self._hidden = (secrets, plain)
        return plain

    def leave(self, exc: BaseException, level: int, entry: TracebackType | None = None) -> None:
        """Log an exception that leaves the block or the task.

        Args:
            exc: the exception.
            level: the level.
            entry: the part of its traceback with the line to record; by default, the first part, which is the
                line of the block.
        """
        try:
            if self.isEnabledFor(level):
                template, args = _described(exc)
                self._take(level, template, args, _place(entry or traceback_of(exc)), exc_info=exc)
        except Exception as problem:  # noqa: BLE001 - as every other record
            self._failed(problem)

    def leave_for_retry(
        self, signal: Retry, attempt: int, attempts: int, entry: TracebackType | None
    ) -> None:
        """Log at WARNING that the task asks to run again, with the context of the cause.

        Args:
            signal: the retry.
            attempt: the number of the attempt, from 1.
            attempts: how many attempts there may be.
            entry: the part of the traceback with the line to record.
        """
        cause = signal.cause
        try:
            template, args, context = "Attempt %s of %s is repeated in %s", (attempt, attempts), None
            how, more = ("", ()) if cause is None else _described(cause)
            if cause is not None:
                template, context = f"{template} because of {how}", context_of(cause)
            if self.isEnabledFor(logging.WARNING):
                self._take(
                    logging.WARNING, template, (*args, str(signal.cooldown), *more), _place(entry), context
                )
        except Exception as problem:  # noqa: BLE001 - as every other record
            self._failed(problem)

    if TYPE_CHECKING:
        # The standard library's methods, with the keywords that `_log` adds.
        def debug(self, msg: object, *args: object, **call: Unpack[LogCall]) -> None: ...  # noqa: D102
        def info(self, msg: object, *args: object, **call: Unpack[LogCall]) -> None: ...  # noqa: D102
        def warning(self, msg: object, *args: object, **call: Unpack[LogCall]) -> None: ...  # noqa: D102
        def error(self, msg: object, *args: object, **call: Unpack[LogCall]) -> None: ...  # noqa: D102
        def critical(self, msg: object, *args: object, **call: Unpack[LogCall]) -> None: ...  # noqa: D102
        def fatal(self, msg: object, *args: object, **call: Unpack[LogCall]) -> None: ...  # noqa: D102
        def exception(self, msg: object, *args: object, **call: Unpack[LogCall]) -> None: ...  # noqa: D102


def _described(exc: BaseException) -> tuple[str, tuple[str, ...]]:
    """Return the type and text of an exception as a template and its arguments."""
    kind, text = type_name(type(exc)).rpartition(".")[2], text_of(exc)
    return (f"{kind}: %s", (text,)) if text else (kind, ())


def _place(trace: TracebackType | None) -> tuple[str, int, str]:
    if trace is None:
        return _NOWHERE
    code = trace.tb_frame.f_code
    return code.co_filename, trace.tb_lineno, code.co_name


def _level_of(record: logging.LogRecord) -> int:
    """The level of a record that anybody may have made; of one that has none, WARNING."""
    try:
        return min(max(int(record.levelno), logging.NOTSET), MAX_LEVEL)
    except Exception:  # noqa: BLE001 - the level may be any object
        return logging.WARNING


def _further(frame: FrameType | None, stacklevel: int) -> FrameType | None:
    """Go up the number of callers that a wrapper passes, at most to the outermost one."""
    while stacklevel > 1 and frame is not None and frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename not in _INTERNAL:
            stacklevel -= 1
    return frame
