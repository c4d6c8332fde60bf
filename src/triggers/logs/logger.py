"""The logger of one block: a `logging.Logger` that records, whatever the application's logging is set to."""

from __future__ import annotations

import logging
import sys
import threading
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

from triggers.core.records import LogEntry
from triggers.exceptions import StatusChange, context_of
from triggers.logs.report import report_once
from triggers.logs.sanitizing.exceptions import describe, traceback_of
from triggers.logs.sanitizing.messages import format_message, text_of
from triggers.logs.sanitizing.plain import NOTHING, SanitizedContext
from triggers.logs.sanitizing.shapes import type_name
from triggers.logs.sanitizing.texts import fit_text, storable
from triggers.logs.settings import level_number
from triggers.logs.sink import CapturedSink, Scope, Sink, captured_by

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import FrameType, TracebackType

    from triggers.logs.sanitizing.exceptions import Described
    from triggers.logs.sanitizing.redact import Secrets

    ExcInfo = (
        bool
        | tuple[type[BaseException], BaseException, TracebackType | None]
        | tuple[None, None, None]
        | BaseException
        | None
    )

#: Frames of these files are never the caller: the standard library's logging, and this one.
_INTERNAL = frozenset({logging.addLevelName.__code__.co_filename, (lambda: None).__code__.co_filename})
#: Bytes that a record takes besides its texts.
_OVERHEAD = 200
#: Attributes of every LogRecord; what else stands on one was given as `extra`.
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
#: Levels above are taken for this one: what counts them has room for no more.
MAX_LEVEL = 1_000_000
#: Characters of the name of a logger, as it is stored.
MAX_NAME = 255
_NO_CACHE: dict[int, bool] = {}


def is_signal(exc: BaseException | None) -> bool:
    """Whether it ends a task without a failure: the framework's own retry and skip, and being cancelled."""
    # Importing asyncio takes long. Until another module has imported all of it, it has cancelled nothing.
    cancelled = getattr(sys.modules.get("asyncio"), "CancelledError", ())
    return issubclass(type(exc), (StatusChange, cancelled))


class _Forwarding(threading.local):
    """Whether this thread is inside a handler of the application."""

    active = False


_forwarding = _Forwarding()


@dataclass(slots=True)
class _Facts:
    """What few records have: an exception, and attributes for the LogRecord."""

    exc: BaseException | None = None
    described: Described | None = None
    attributes: dict[str, Any] | None = None

    def is_signal(self, level: int) -> bool:
        """Whether it is a way to end rather than a failure, of which nobody wants to see the traceback."""
        return level < logging.WARNING and is_signal(self.exc)

    def triple(self, level: int) -> Any:
        """Return the exception as handlers expect it; not a signal, nor one whose text holds a secret."""
        if self.exc is None or self.described is None or self.described.hidden or self.is_signal(level):
            return None
        return type(self.exc), self.exc, traceback_of(self.exc)


_NO_FACTS = _Facts()


class TriggersLogger(logging.Logger):
    """The logger that a block of a task gives; it is used like any other `logging.Logger`.

    Every call takes `context=`, a mapping that is merged over the context of the block, besides what the
    standard library knows; ``extra={"context": …}`` means the same, and other keys of `extra` are both
    attributes of the LogRecord and part of the context. A keyword that nobody knows becomes context too.

    A record is kept, and its level counted, before anybody else sees it. Then it is handed to the
    application's logger of the same name, if that one is enabled for its level: that logger's filters, its
    handlers and those above it apply. Filters and a level that are set on this very logger only concern that
    handing over. It never raises into the task.

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
        self.application = self.parent = application
        self.bound = bound
        self._sink = sink
        self.scope = scope or Scope()
        self._record_level = record_level
        self._sanitizer = sink.sanitizer
        self._label = storable(self.name[:MAX_NAME])
        self._hidden: tuple[tuple[str, ...], SanitizedContext] = ((), bound)
        # The very dict that the standard library clears when a level changes or logging is disabled, so that
        # its answers can be used without asking. A logger that decides in its own way is asked every time.
        plain = type(application).isEnabledFor is logging.Logger.isEnabledFor
        self._answers: dict[int, bool] = getattr(application, "_cache", _NO_CACHE) if plain else _NO_CACHE

    def isEnabledFor(self, level: int) -> bool:  # noqa: N802 - the standard library's name
        """Whether a call of this level does anything: is recorded, or taken by the application's logger."""
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
        """Return the lowest level that does anything."""
        return min(self._record_level, self.application.getEffectiveLevel())

    def bind(self, context: Mapping[str, Any] | None = None, /, **more: Any) -> TriggersLogger:
        """Return a logger with more context; this one stays as it is.

        Args:
            context: merged over the context of this logger.
            more: the same, for keys that are names.
        """
        return self._like(self.application, self.with_layers(self.bound, (context, more or None)))

    def with_layers(self, plain: SanitizedContext, layers: Iterable[Any]) -> SanitizedContext:
        """Return a context with others merged over it, each over the one before; None is no context."""
        for layer in layers:
            if layer is not None:
                over = self._sanitizer.context(layer, self._sink.secrets())
                plain = self._sanitizer.merge(plain, over)
        return plain

    def named(self, name: str) -> TriggersLogger:
        """Return a logger of the same block that hands its records to another logger of the application."""
        return self._like(logging.getLogger(name), self.bound)

    def getChild(self, suffix: str) -> TriggersLogger:  # noqa: N802 - the standard library's name
        """Return a logger of the same block for the application's logger ``<name>.<suffix>``."""
        return self._like(self.application.getChild(suffix), self.bound)

    def _like(self, application: logging.Logger, bound: SanitizedContext) -> TriggersLogger:
        return TriggersLogger(application, self._sink, bound, self.scope, self._record_level)

    def belongs_to(self, sink: Sink) -> bool:
        """Whether its records go there."""
        return self._sink is sink

    def own_secrets(self) -> Secrets | None:
        """Return where values are added that only this log hides; None if it keeps none."""
        return self._sink.own_secrets()

    def __reduce__(self) -> tuple[Any, ...]:
        """In another process, what is left of it is the application's logger."""
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
        """Take a LogRecord that was made elsewhere as if it had been logged here."""
        if self.isEnabledFor(_level_of(record)):
            self._take_made(record)

    def capture(self, record: logging.LogRecord) -> None:
        """Keep what another logger of the application said, if this block listens to it."""
        scope = captured_by(self.scope, record.name)
        if scope is not None:
            self.keep(record, counts=scope.capture_counts)

    def keep(self, record: logging.LogRecord, *, counts: bool = True) -> None:
        """Keep a LogRecord that goes its own way through the application: it is not handed over once more.

        What a handler of the application says about a record of this log, and what is said while this log is
        written, is not kept.

        Args:
            record: of any logger.
            counts: whether it counts towards the level of the instance.
        """
        if _forwarding.active or self._sink.is_writing():
            return
        mute = logging.Logger(record.name)  # noqa: LOG001 - the application's own has the record already
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
                extra = _together(extra, extras, more)
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
        report_once("a record could not be logged; the task goes on without it", problem)

    def _take(  # noqa: PLR0917 - called for every record, which keywords would make dearer
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
        """Make the record, keep it, forward it: in this order, so that it is safe when a handler hangs."""
        sink, sanitizer = self._sink, self._sanitizer
        secrets = sink.secrets()
        facts = _NO_FACTS
        if secrets or exc_info is not None or extra is not None:
            plain, facts = self._guarded(context, extra, exc_info, secrets)
        elif context is None:
            plain = self.bound
        else:
            plain = sanitizer.merge(self.bound, sanitizer.context(context))
        message, template, send, send_args, was_cut = format_message(msg, args, sanitizer, secrets)
        truncated = plain.truncated
        if was_cut or facts.described is not None:
            truncated = _cuts(truncated, facts.described, was_cut=was_cut)
        number = 0
        if sink.keeps:
            described = facts.described
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
            and not _forwarding.active
        ):
            self._forward(level, send, send_args, place, number, plain, truncated, facts, stack)

    def _guarded(
        self, context: Any, extra: Any, exc_info: Any, secrets: tuple[str, ...]
    ) -> tuple[SanitizedContext, _Facts]:
        try:
            return self._gathered(context, extra, exc_info, secrets)
        except Exception as problem:
            if self._sink.strict:
                raise
            return self._sanitizer.lost(problem), _NO_FACTS

    def _gathered(
        self, context: Any, extra: Any, exc_info: Any, secrets: tuple[str, ...]
    ) -> tuple[SanitizedContext, _Facts]:
        """Put together the context of a call that has more than a context of its own."""
        sanitizer = self._sanitizer
        plain = self._bound_without(secrets) if secrets else self.bound
        described = attributes = None
        exc = None if exc_info is None else _exception(exc_info)
        if exc is not None:
            described = describe(exc, sanitizer.settings, secrets)
            plain = sanitizer.merge(plain, sanitizer.context(context_of(exc), secrets))
        if extra is not None:
            others, context = _parted(extra, context)
            fit = sanitizer.context(others, secrets)
            attributes = fit.copy()
            plain = sanitizer.merge(plain, fit)
        if context is not None:
            plain = sanitizer.merge(plain, sanitizer.context(context, secrets))
        return plain, _Facts(exc, described, attributes)

    def _forward(  # noqa: PLR0917 - as _take
        self,
        level: int,
        send: str,
        args: tuple[Any, ...],
        place: tuple[str, int, str],
        number: int,
        plain: SanitizedContext,
        truncated: tuple[str, ...],
        facts: _Facts,
        stack: str | None,
    ) -> None:
        """Hand the record to the application; what it is handed has its containers to itself."""
        _forwarding.active = True
        try:
            path, line, function = place
            record = logging.getLogRecordFactory()(
                self.name, level, path, line, send, args, facts.triple(level), function, stack
            )
            state = record.__dict__
            ours = self._sink.attributes.copy()
            ours["triggers.seq"] = number
            ours["context"] = plain.data.copy() if plain.flat else plain.copy()
            ours["truncated"] = truncated
            # All at once: the dict of a LogRecord is full, and each time that it grows is felt.
            state.update(ours)
            if facts.described is not None and not facts.is_signal(level):
                state["exc_text"] = facts.described.record["traceback"].rstrip("\n")
            if facts.attributes:
                _set_renamed(state, facts.attributes)
            if self.filters or self.handlers or not self.propagate:
                self._dispatch(record)
            else:
                self.application.handle(record)
        except Exception as problem:
            if self._sink.strict:
                raise
            report_once(f"a handler of logger {self.name!r} failed; the record is kept", problem)
        finally:
            _forwarding.active = False

    def _dispatch(self, record: logging.LogRecord) -> None:
        if self.filters and not self.filter(record):
            return
        for handler in self.handlers:
            if record.levelno >= handler.level:
                handler.handle(record)
        if self.propagate:
            self.application.handle(record)

    def _bound_without(self, secrets: tuple[str, ...]) -> SanitizedContext:
        known, plain = self._hidden
        if known is not secrets:
            plain = self._sanitizer.again(self.bound, secrets)
            self._hidden = (secrets, plain)
        return plain

    def leave(self, exc: BaseException, level: int) -> None:
        """Log an exception that leaves the block, at the place where it was raised inside of it."""
        try:
            if not self.isEnabledFor(level):
                return
            kind, trace = type_name(type(exc)).rpartition(".")[2], traceback_of(exc)
            place = _NOWHERE
            if trace is not None:
                code = trace.tb_frame.f_code
                place = (code.co_filename, trace.tb_lineno, code.co_name)
            text = text_of(exc)
            self._take(level, f"{kind}: %s" if text else kind, (text,) if text else (), place, exc_info=exc)
        except Exception as problem:  # noqa: BLE001 - as every other record
            self._failed(problem)

    if TYPE_CHECKING:
        # The standard library's methods, with the one keyword that they gain. `_log` understands it.
        def debug(  # noqa: D102 - as in the standard library
            self,
            msg: object,
            *args: object,
            exc_info: ExcInfo = None,
            stack_info: bool = False,
            stacklevel: int = 1,
            extra: Mapping[str, object] | None = None,
            context: Mapping[str, Any] | None = None,
            extras: Mapping[str, object] | None = None,
        ) -> None: ...

        info = warning = error = critical = fatal = debug

        def exception(  # noqa: D102 - as in the standard library
            self,
            msg: object,
            *args: object,
            exc_info: ExcInfo = True,
            stack_info: bool = False,
            stacklevel: int = 1,
            extra: Mapping[str, object] | None = None,
            context: Mapping[str, Any] | None = None,
            extras: Mapping[str, object] | None = None,
        ) -> None: ...


def _level_of(record: logging.LogRecord) -> int:
    """The level of a record that anybody may have made; of one that has none, WARNING."""
    try:
        return min(max(int(record.levelno), logging.NOTSET), MAX_LEVEL)
    except Exception:  # noqa: BLE001 - what stands there may be any object
        return logging.WARNING


def _further(frame: FrameType | None, stacklevel: int) -> FrameType | None:
    """Go as many callers up as a wrapper asks, without leaving the stack."""
    while stacklevel > 1 and frame is not None and frame.f_back is not None:
        frame = frame.f_back
        if frame.f_code.co_filename not in _INTERNAL:
            stacklevel -= 1
    return frame


def _mapping(value: Any, name: str) -> Mapping[Any, Any]:
    return value if isinstance(value, Mapping) else {} if value is None else {name: value}


def _together(extra: Any, extras: Any, more: dict[str, Any]) -> dict[Any, Any]:
    try:
        return {**_mapping(extra, "extra"), **_mapping(extras, "extras"), **more}
    except Exception as problem:  # noqa: BLE001 - a mapping may be the application's own code
        return {"extra": f"<could not be recorded: {type_name(type(problem))}>", **more}


def _parted(extra: Any, context: Any) -> tuple[dict[Any, Any], Any]:
    """Part what was given as `extra`: its key ``context`` is context, the others are attributes as well."""
    given = dict(_mapping(extra, "extra"))
    inner = given.pop("context", None)
    if inner is not None and context is not None:
        context = {**_mapping(inner, "context"), **_mapping(context, "context")}
    return given, inner if context is None else context


def _set_renamed(state: dict[str, Any], attributes: dict[str, Any]) -> None:
    """Put attributes on a LogRecord; one that would overwrite an attribute of its own gets another name."""
    for key, item in attributes.items():
        name = key
        while name in state or name in STANDARD:
            name = f"extra_{name}"
        state[name] = item


def _exception(exc_info: Any) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if not exc_info:
        return None
    found = exc_info if isinstance(exc_info, tuple) else sys.exc_info()
    exc = next(islice(found, 1, 2), None)
    return exc if isinstance(exc, BaseException) else None


def _cuts(truncated: tuple[str, ...], described: Described | None, *, was_cut: bool) -> tuple[str, ...]:
    message = ("message",) if was_cut else ()
    return (*truncated, *message, *(described.truncated if described is not None else ()))


#: The place of a call that has no frame.
_NOWHERE = ("(unknown file)", 0, "(unknown function)")
