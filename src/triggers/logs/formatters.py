"""Formatters for `logging`: a readable line for people, and JSON lines in the shapes of three log systems.

They format any LogRecord. That of a task also has its context and the identifiers of its instance. In
``logging.config.dictConfig``: ``{"()": "triggers.logs.formatters.JsonFormatter", "shape": "ecs"}``.
"""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, get_args

from triggers.logs.extra import STANDARD
from triggers.logs.sanitizing.exceptions import describe
from triggers.logs.sanitizing.messages import text_of
from triggers.logs.sanitizing.sanitizer import sanitizer
from triggers.logs.sanitizing.shapes import type_name
from triggers.logs.sanitizing.texts import ELLIPSIS, fit_text
from triggers.logs.settings import MAX_DEPTH, LogSettings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

#: The beginning of each continuation line.
MARGIN = "  | "
#: Characters of a value that are shown on a line for people.
MAX_SHOWN = 200
#: The attributes that a record of a task has, see :class:`triggers.logs.TriggersLogger`.
IDENTIFIERS = ("triggers.uid", "triggers.task", "triggers.instance", "triggers.attempt", "triggers.seq")
#: The version of the Elastic Common Schema that defines the fields.
ECS_VERSION = "1.6.0"

_SETTINGS = LogSettings()
_PLENTY = 4 * 1024 * 1024
#: A sanitized context is within the limits of its log; these limits only stop what was added since.
_ROOMY = LogSettings(
    max_depth=MAX_DEPTH,
    max_items=_PLENTY,
    max_nodes=_PLENTY,
    max_string=_PLENTY,
    max_context=_PLENTY,
    redact=(),
)

#: Names of the shapes of JSON lines.
Shape = Literal["otel", "ecs", "google"]


@dataclass(slots=True)
class Facts:
    """The contents of a LogRecord, sanitized so that they can always be written.

    Attributes:
        at: when it was logged.
        level: its number.
        level_name: the name of its level.
        logger: the name of its logger.
        message: the text with its arguments.
        place: file, line and function of the call.
        thread: the name of the thread.
        process: the process id.
        identifiers: the identifiers of the instance; empty outside of tasks.
        context: the context of a record of a task; of any other, what was given as `extra`.
        truncated: paths of what was cut in the context.
        error: type and message of the exception; None if there is none, or if it must not be shown.
        trace: the traceback and the stack as text.
    """

    at: datetime
    level: int
    level_name: str
    logger: str
    message: str
    place: tuple[str, int, str]
    thread: str
    process: int
    identifiers: dict[str, Any]
    context: dict[str, Any]
    truncated: list[str]
    error: tuple[str, str] | None
    trace: str


def facts_of(record: logging.LogRecord) -> Facts:
    """Read a LogRecord of any logger. It is not changed, and none of its values is evaluated twice."""
    state = record.__dict__
    identifiers = (
        sanitizer(_SETTINGS).context({name: state[name] for name in IDENTIFIERS if name in state}).data
    )
    context = state.get("context")
    if identifiers and type(context) is dict:
        plain = sanitizer(_ROOMY).context(context)
    else:
        plain = sanitizer(_SETTINGS).context(
            {key: item for key, item in state.items() if key not in STANDARD and key not in IDENTIFIERS}
        )
    error, trace = _exception(record)
    line, level, process = (
        value if type(value) is int else 0 for value in (record.lineno, record.levelno, record.process)
    )
    return Facts(
        datetime.fromtimestamp(record.created, UTC),
        level,
        text_of(record.levelname),
        text_of(record.name),
        _message(record),
        (text_of(record.pathname), line, text_of(record.funcName or "")),
        text_of(record.threadName or ""),
        process,
        identifiers,
        plain.data,
        [*map(text_of, state.get("truncated") or ()), *plain.truncated],
        error,
        trace,
    )


def _message(record: logging.LogRecord) -> str:
    try:
        text = record.getMessage()
    except Exception as problem:  # noqa: BLE001 - wrong arguments, or their own code
        text = f"{text_of(record.msg)} <{type_name(type(problem))} while filling in the arguments>"
    return fit_text(str.__str__(text), _SETTINGS.max_string)[0]


def _exception(record: logging.LogRecord) -> tuple[tuple[str, str] | None, str]:
    exc = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    error, parts = None, []
    if exc is not None:
        described = describe(exc, _SETTINGS).record
        error = (described["qualified_type"].removeprefix("builtins."), described["message"])
        parts.append(record.exc_text or described["traceback"])
    elif record.exc_text:
        parts.append(record.exc_text)
    parts += [record.stack_info] if record.stack_info else []
    return error, "\n".join(fit_text(part.rstrip("\n"), _SETTINGS.max_traceback)[0] for part in parts)


def span_ids() -> tuple[str, str, bool] | None:
    """Return trace id, span id and whether the trace is sampled, from the current span of OpenTelemetry.

    None if there is no span, or if the application has not imported OpenTelemetry; this module never imports
    it.
    """
    trace = sys.modules.get("opentelemetry.trace")
    if trace is None:
        return None
    try:
        span = trace.get_current_span().get_span_context()
        if not span.is_valid:
            return None
        return f"{span.trace_id:032x}", f"{span.span_id:016x}", bool(span.trace_flags.sampled)
    except Exception:  # noqa: BLE001 - a log line must not depend on the state of another library
        return None


# -- for people --


class ConsoleFormatter(logging.Formatter):
    """Formats a record as one line: time, level, logger, message, context as ``key=value``, identifiers.

    Keys of nested mappings are joined by dots. Control and format characters, also line breaks, are escaped,
    so that no logged text can forge a line, hide a part of one, or control the terminal. A traceback follows
    on continuation lines.

    Args:
        identifiers: whether the line of a task ends with instance, session and attempt.
        max_shown: characters of a value that are shown; a mark shows that the rest was cut.
    """

    def __init__(self, *, identifiers: bool = True, max_shown: int = MAX_SHOWN) -> None:
        super().__init__()
        self._identifiers = identifiers
        self._max_shown = max_shown

    def format(self, record: logging.LogRecord) -> str:
        """Return the line of a record, and its continuation lines."""
        facts = facts_of(record)
        parts = [
            facts.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            f"{escaped(facts.level_name):8}",
            f"{escaped(facts.logger)}:",
            escaped(facts.message),
            *(f"{escaped(key)}={self._shown(value)}" for key, value in _folded(facts.context)),
        ]
        if self._identifiers and facts.identifiers:
            parts.append(self._whose(facts.identifiers))
        lines = [" ".join(parts)]
        lines += [MARGIN + escaped(line) for line in facts.trace.splitlines()]
        return "\n".join(lines)

    def _whose(self, identifiers: Mapping[str, Any]) -> str:
        instance, uid = identifiers.get("triggers.instance"), identifiers.get("triggers.uid")
        return escaped(f"[{instance} of {uid}, attempt {identifiers.get('triggers.attempt')}]")

    def _shown(self, value: Any) -> str:
        text = value if type(value) is str else json.dumps(value, ensure_ascii=False, default=_written)
        if len(text) > self._max_shown:
            text = f"{text[: self._max_shown]}{ELLIPSIS}[truncated {len(text) - self._max_shown} chars]"
        if type(value) is str and (not text or any(mark in text for mark in ' "=')):
            text = json.dumps(text, ensure_ascii=False)
        return escaped(text)


def escaped(text: str) -> str:
    r"""Return the text with an escape for each character that is not printable (``\n``, ``\u202e``)."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def _folded(context: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in context.items():
        if type(value) is dict and value:
            yield from _folded(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _written(value: Any) -> Any:
    """Convert what JSON lacks: times to ISO 8601, durations to seconds, anything else to text."""
    if isinstance(value, timedelta):
        return value.total_seconds()
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return value.isoformat() if hasattr(value, "isoformat") else text_of(value)


_encode = json.JSONEncoder(default=_written, separators=(",", ":")).encode

# -- for log systems --


class JsonFormatter(logging.Formatter):
    """Formats a record as one line of JSON, in ASCII, in the shape that a log system reads.

    Args:
        shape: ``otel`` for the data model of OpenTelemetry, ``ecs`` for the Elastic Common Schema,
            ``google`` for structured logging of Google Cloud.
        fields: further fields of every line: attributes of the resource (``service.name``) for ``otel``,
            fields of the top level for the others. None of them replaces a field of the record.
        project: the Google Cloud project, for the full name of a trace.

    Raises:
        ValueError: the shape is not one of these.
    """

    def __init__(
        self,
        shape: Shape = "otel",
        *,
        fields: Mapping[str, Any] | None = None,
        project: str | None = None,
    ) -> None:
        super().__init__()
        if shape not in SHAPES:
            message = f"shape={shape!r}; it must be one of {', '.join(get_args(Shape))}"
            raise ValueError(message)
        self._make = SHAPES[shape]
        self._fields = dict(fields or {})
        self._project = project

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as a line of JSON, without a line break."""
        line = self._make(facts_of(record), self._fields, self._project)
        return _encode(line)


def _otel(facts: Facts, fields: dict[str, Any], _project: str | None) -> dict[str, Any]:
    path, number, function = facts.place
    attributes = {
        **facts.identifiers,
        "code.file.path": path,
        "code.line.number": number,
        "code.function.name": function,
        "thread.name": facts.thread,
        **_present(context=facts.context, truncated=facts.truncated),
        **_error(facts, "exception.type", "exception.message", "exception.stacktrace"),
    }
    line = {
        "Timestamp": str(_microseconds(facts.at) * 1_000),
        "SeverityText": facts.level_name,
        "SeverityNumber": severity_number(facts.level),
        "Body": facts.message,
        "InstrumentationScope": {"Name": facts.logger},
        "Resource": {"process.pid": facts.process, **fields},
        "Attributes": attributes,
    }
    span = span_ids()
    if span is not None:
        line |= {"TraceId": span[0], "SpanId": span[1], "TraceFlags": int(span[2])}
    return line


def _ecs(facts: Facts, fields: dict[str, Any], _project: str | None) -> dict[str, Any]:
    path, number, function = facts.place
    # The specification of ECS logging requires these three first, in this order.
    line = {
        "@timestamp": facts.at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
        "log.level": facts.level_name.lower(),
        "message": facts.message,
        "ecs.version": ECS_VERSION,
        **facts.identifiers,
        "log.logger": facts.logger,
        "log.origin.file.name": path,
        "log.origin.file.line": number,
        "log.origin.function": function,
        "process.pid": facts.process,
        "process.thread.name": facts.thread,
        **_error(facts, "error.type", "error.message", "error.stack_trace"),
    }
    line = {**line, **{name: item for name, item in fields.items() if name not in line}}
    line |= _present(**{"triggers.context": facts.context, "triggers.truncated": facts.truncated})
    span = span_ids()
    return line if span is None else {**line, "trace.id": span[0], "span.id": span[1]}


def _google(facts: Facts, fields: dict[str, Any], project: str | None) -> dict[str, Any]:
    path, number, function = facts.place
    line = {
        **fields,
        "severity": severity_name(facts.level),
        "message": facts.message,
        "time": facts.at.isoformat(timespec="microseconds").replace("+00:00", "Z"),
        "logging.googleapis.com/sourceLocation": {"file": path, "line": str(number), "function": function},
        "logging.googleapis.com/labels": {
            "logger": facts.logger,
            **{name: str(value) for name, value in facts.identifiers.items()},
        },
        **_error(facts, "error_type", "error_message", "stack_trace"),
        **_present(context=facts.context, truncated=facts.truncated),
    }
    span = span_ids()
    if span is not None:
        trace = f"projects/{project}/traces/{span[0]}" if project else span[0]
        line["logging.googleapis.com/trace"] = trace
        line["logging.googleapis.com/spanId"] = span[1]
        line["logging.googleapis.com/trace_sampled"] = span[2]
    return line


SHAPES: dict[str, Callable[[Facts, dict[str, Any], str | None], dict[str, Any]]] = {
    "otel": _otel,
    "ecs": _ecs,
    "google": _google,
}


def _present(**items: Any) -> dict[str, Any]:
    return {name: item for name, item in items.items() if item}


def _error(facts: Facts, kind: str, message: str, trace: str) -> dict[str, Any]:
    known = {} if facts.error is None else {kind: facts.error[0], message: facts.error[1]}
    return known | ({trace: facts.trace} if facts.trace else {})


def _microseconds(at: datetime) -> int:
    return (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def severity_number(level: int) -> int:
    """Return the severity number of OpenTelemetry: TRACE 1, DEBUG 5, INFO 9, WARN 13, ERROR 17, FATAL 21."""
    tens = min(max(level, 0) // 10, 5)
    return 1 if tens == 0 else 4 * tens + 1 + min(level - 10 * tens, 3)


def severity_name(level: int) -> str:
    """Return the level as a severity of Google Cloud, such as ``WARNING``."""
    return next((name for least, name in _SEVERITIES if level >= least), "DEFAULT")


_SEVERITIES = (
    (logging.CRITICAL, "CRITICAL"),
    (logging.ERROR, "ERROR"),
    (logging.WARNING, "WARNING"),
    # Between INFO and WARNING: applications use such levels for events that are normal but significant.
    (logging.INFO + 5, "NOTICE"),
    (logging.INFO, "INFO"),
    (1, "DEBUG"),
)
