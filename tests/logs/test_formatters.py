from __future__ import annotations

import io
import json
import logging
import logging.config
import logging.handlers
import queue
import re
import subprocess
import sys
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggers.exceptions import with_context
from triggers.logs.formatters import ConsoleFormatter, JsonFormatter, escaped, severity_name, severity_number

SHAPES = ["otel", "ecs", "google"]

# The names of fields as the three formats publish them.
OTEL = {
    "Timestamp", "ObservedTimestamp", "TraceId", "SpanId", "TraceFlags", "SeverityText", "SeverityNumber",
    "Body", "Resource", "InstrumentationScope", "Attributes", "EventName",
}  # fmt: skip
ECS = {
    "@timestamp", "log.level", "message", "ecs.version", "labels", "trace.id", "span.id", "transaction.id",
    "service.name", "event.dataset", "log.logger", "log.origin.file.name", "log.origin.file.line",
    "log.origin.function", "process.pid", "process.thread.name", "process.thread.id", "error.type",
    "error.message", "error.stack_trace",
}  # fmt: skip
GOOGLE = {
    "severity", "message", "time", "httpRequest", "stack_trace", "logging.googleapis.com/insertId",
    "logging.googleapis.com/labels", "logging.googleapis.com/operation",
    "logging.googleapis.com/sourceLocation", "logging.googleapis.com/spanId", "logging.googleapis.com/trace",
    "logging.googleapis.com/trace_sampled",
}  # fmt: skip
GOOGLE_SEVERITIES = {
    "DEFAULT",
    "DEBUG",
    "INFO",
    "NOTICE",
    "WARNING",
    "ERROR",
    "CRITICAL",
    "ALERT",
    "EMERGENCY",
}


@pytest.fixture
def said(kit, application):
    """The record of a task with a context of many types, and one of an exception that left the block."""
    context = {
        "page_data": {"page": 3, "answers": ["a", None]},
        "born": date(1996, 11, 5),
        "at": datetime(2026, 11, 22, 14, tzinfo=UTC),
        "took": timedelta(seconds=1.5),
        "price": Decimal("1.50"),
        "id": UUID(int=5),
        "raw": b"\xff\x00",
        "password": "hunter22",
    }
    with pytest.raises(ValueError, match="spam"), kit.log.block(context) as logger:  # noqa: PT012 - one story
        logger.warning("Missing %s", "givenNames")
        raise with_context(ValueError("spam"), {"score": 0.9})
    return application.collector.records


def foreign(message="Sent %s", args=("x",), level=logging.INFO, exc_info=None, **extra):
    """A record of any other logger."""
    record = logging.LogRecord("other.library", level, "/srv/app.py", 7, message, args, exc_info, "send")
    record.__dict__.update(extra)
    return record


def line(shape, record, **settings):
    text = JsonFormatter(shape, **settings).format(record)
    assert "\n" not in text
    assert text.isascii()
    return json.loads(text, parse_constant=pytest.fail)


def test_opentelemetry(said):
    """Top level fields are those of the data model; a task's are attributes, and codes and errors are named by convention."""
    first, second = (line("otel", record, fields={"service.name": "survey"}) for record in said)
    assert set(first) | set(second) <= OTEL
    assert (first["SeverityText"], first["SeverityNumber"], first["Body"]) == (
        "WARNING",
        13,
        "Missing givenNames",
    )
    since = datetime.fromtimestamp(said[0].created, UTC) - datetime.fromtimestamp(0, UTC)
    assert first["Timestamp"] == f"{since // timedelta(microseconds=1)}000"
    assert first["InstrumentationScope"] == {"Name": said[0].name}
    assert first["Resource"]["service.name"] == "survey"
    attributes = first["Attributes"]
    assert attributes["triggers.instance"] == "t_importSubject#0"
    assert (attributes["triggers.uid"], attributes["triggers.attempt"]) == ("respondent-17", 2)
    assert (attributes["code.file.path"], attributes["code.function.name"]) == (__file__, "said")
    assert second["SeverityNumber"] == 17
    assert second["Attributes"]["exception.type"] == "ValueError"
    assert second["Attributes"]["exception.message"] == "spam"
    assert second["Attributes"]["exception.stacktrace"].startswith("Traceback")
    assert second["Attributes"]["context"]["score"] == 0.9


def test_elastic_common_schema(said):
    """Fields are those of the schema, the required three first; what is ours has a name space of its own."""
    first, second = (
        line("ecs", record, fields={"service.name": "survey", "message": "no"}) for record in said
    )
    assert {name for name in {*first, *second} if not name.startswith("triggers.")} <= ECS
    assert list(first)[:3] == ["@timestamp", "log.level", "message"]
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", first["@timestamp"])
    assert (first["log.level"], first["message"], first["ecs.version"]) == (
        "warning",
        "Missing givenNames",
        "1.6.0",
    )
    assert first["service.name"] == "survey"
    assert first["triggers.uid"] == "respondent-17"
    assert first["triggers.context"]["page_data"] == {"page": 3, "answers": ["a", None]}
    assert (second["error.type"], second["error.message"]) == ("ValueError", "spam")
    assert "ValueError: spam" in second["error.stack_trace"]


def test_google_cloud(said):
    """Special fields are those of the service, labels are strings, and other fields are ours."""
    first, second = (line("google", record) for record in said)
    assert {name for name in {*first, *second} if name not in GOOGLE} == {
        "context",
        "error_type",
        "error_message",
    }
    assert (first["severity"], first["message"]) == ("WARNING", "Missing givenNames")
    assert first["logging.googleapis.com/sourceLocation"]["line"] == str(said[0].lineno)
    assert first["logging.googleapis.com/labels"]["triggers.attempt"] == "2"
    assert first["time"].endswith("Z")
    assert "ValueError: spam" in second["stack_trace"]


@pytest.mark.parametrize("shape", SHAPES)
def test_values_that_json_does_not_have(said, shape):
    """Moments, durations, numbers, bytes: each is written in one way, and a secret in none."""
    made = line(shape, said[0])
    context = made.get("context") or made.get("triggers.context") or made["Attributes"]["context"]
    assert context == {
        "page_data": {"page": 3, "answers": ["a", None]},
        "born": "1996-11-05",
        "at": "2026-11-22T14:00:00+00:00",
        "took": 1.5,
        "price": "1.50",
        "id": "00000000-0000-0000-0000-000000000005",
        "raw": "\\xff\x00",
        "password": "[redacted]",
    }


def test_for_people(said):
    """Time, level, logger, message, folded context and whose it is on one line; a traceback behind a margin."""
    text = ConsoleFormatter().format(said[0])
    assert re.sub(r"^\S+Z", "TIME", text) == (
        f"TIME WARNING  {said[0].name}: Missing givenNames page_data.page=3 "
        'page_data.answers=["a", null] born="1996-11-05" at="2026-11-22T14:00:00+00:00" took=1.5 price="1.50" '
        'id="00000000-0000-0000-0000-000000000005" raw="\\\\xff\\u0000" password=[redacted] '
        "[t_importSubject#0 of respondent-17, attempt 2]"
    )
    first, *rest = ConsoleFormatter(identifiers=False).format(said[1]).splitlines()
    assert first.endswith("password=[redacted] score=0.9")
    assert rest[0] == "  | Traceback (most recent call last):"
    assert rest[-1] == "  | ValueError: spam"


def test_nothing_forges_a_line():
    """Line breaks, escapes of the terminal, and characters that change the direction of text are written out."""
    record = foreign(
        "a\r\nERROR root: forged \x1b[31m\u202e\u2028\x85\ud800 %s",
        ("\n",),
        **{"k\ney": "v\nalue", "two": "a b"},
    )
    text = ConsoleFormatter().format(record)
    assert text.isprintable()
    assert r"a\r\nERROR root: forged \x1b[31m\u202e\u2028\x85\ud800 \n" in text
    assert r"k\ney=v\nalue" in text
    assert text.endswith('two="a b"')


def test_a_traceback_forges_no_line_either():
    """Every line of it stands behind the margin."""
    try:
        raise ValueError("x\nERROR root: forged\x1b[0m")  # noqa: TRY301 - to have a traceback
    except ValueError:
        record = foreign(exc_info=sys.exc_info())
    _first, *rest = ConsoleFormatter().format(record).splitlines()
    assert rest[-1] == r"  | ERROR root: forged\x1b[0m"
    assert all(each.startswith("  | ") and each.isprintable() for each in rest)


@given(st.text(st.characters(codec=None)))
def test_escaped_text_is_printable(text):
    """Whatever the text; and printable text is unchanged."""
    assert escaped(text).isprintable()
    assert not text.isprintable() or escaped(text) == text


def test_a_long_value_is_cut_for_people_only():
    """A line for people stays readable; one for machines has all that was kept."""
    record = foreign(text="x" * 300)
    assert ConsoleFormatter(max_shown=10).format(record).endswith('text="xxxxxxxxxx…[truncated 290 chars]"')
    assert line("google", record)["context"] == {"text": "x" * 300}


@pytest.mark.parametrize("shape", SHAPES)
def test_records_of_other_loggers(shape):
    """Their `extra` is their context, made fit as a task's is; no identifiers are invented."""
    record = foreign(rows=7, api_key="hunter22", odd=object(), nan=float("nan"))
    text = JsonFormatter(shape).format(record)
    assert "hunter22" not in text
    assert '{"rows":7,"api_key":"[redacted]","odd":"<object>","nan":"<nan>"}' in text
    assert "triggers.uid" not in text
    assert "Sent x" in text
    assert "/srv/app.py" in text


@pytest.mark.parametrize("formatter", [ConsoleFormatter(), *map(JsonFormatter, SHAPES)])
def test_hostile_records(formatter):
    """Wrong arguments, names that are no names, missing facts: a line comes out, and nothing is raised."""

    class Refusing:
        def __repr__(self):
            raise OSError

        __str__ = __repr__

    records = [
        foreign("%d", ("x",)),
        foreign(Refusing(), ()),
        foreign("%s", (Refusing(),)),
        foreign(bad=Refusing()),
    ]
    odd = foreign(context=Refusing(), truncated=None, **{"triggers.uid": Refusing()})
    odd.lineno = odd.funcName = odd.threadName = odd.process = None
    odd.name = odd.levelname = Refusing()
    odd.exc_info = (None, None, None)
    for record in [*records, odd]:
        assert formatter.format(record)


def test_a_record_is_not_changed(said):
    """Formatters that come after see what the first one saw."""
    before = [dict(vars(record)) for record in said]
    for formatter in [ConsoleFormatter(), *map(JsonFormatter, SHAPES)]:
        for record in said:
            formatter.format(record)
    assert [vars(record) for record in said] == before


def test_the_stack_is_shown():
    """`stack_info` follows the record as a traceback does."""
    record = foreign()
    record.stack_info = "Stack (most recent call last):\n  File x"
    assert ConsoleFormatter().format(record).splitlines()[1:] == [
        "  | Stack (most recent call last):",
        "  |   File x",
    ]
    assert line("ecs", record)["error.stack_trace"] == record.stack_info


@pytest.mark.parametrize(
    ("level", "number", "name"),
    [
        (0, 1, "DEFAULT"),
        (5, 1, "DEBUG"),
        (10, 5, "DEBUG"),
        (12, 7, "DEBUG"),
        (19, 8, "DEBUG"),
        (20, 9, "INFO"),
        (25, 12, "NOTICE"),
        (30, 13, "WARNING"),
        (40, 17, "ERROR"),
        (50, 21, "CRITICAL"),
        (1_000, 24, "CRITICAL"),
    ],
)
def test_levels_in_other_systems(level, number, name):
    """A level of one's own falls into the range of the one below it."""
    assert (severity_number(level), severity_name(level)) == (number, name)
    assert name in GOOGLE_SEVERITIES


def test_an_unknown_shape_is_refused():
    """The message names those that there are."""
    with pytest.raises(ValueError, match="otel, ecs, google"):
        JsonFormatter("gelf")


def test_the_span_of_opentelemetry(said):
    """Inside of a span its ids are on the line, as each system spells them."""
    trace = pytest.importorskip("opentelemetry.sdk.trace")
    from opentelemetry.trace import use_span  # noqa: PLC0415 - with the one above

    span = trace.TracerProvider(shutdown_on_exit=False).get_tracer("t").start_span("s")
    assert "TraceId" not in line("otel", said[0])
    with use_span(span):
        ids = (f"{span.get_span_context().trace_id:032x}", f"{span.get_span_context().span_id:016x}")
        otel, ecs = line("otel", said[0]), line("ecs", said[0])
        google = line("google", said[0], project="survey-1")
    assert (otel["TraceId"], otel["SpanId"], otel["TraceFlags"]) == (*ids, 1)
    assert (ecs["trace.id"], ecs["span.id"]) == ids
    assert google["logging.googleapis.com/trace"] == f"projects/survey-1/traces/{ids[0]}"
    assert google["logging.googleapis.com/spanId"] == ids[1]
    assert google["logging.googleapis.com/trace_sampled"] is True
    assert set(otel) <= OTEL
    assert {name for name in ecs if not name.startswith("triggers.")} <= ECS


def test_opentelemetry_is_not_imported_for_it():
    """A process that does not use it does not pay for it."""
    program = (
        "import logging, sys; from triggers.logs.formatters import JsonFormatter;"
        "JsonFormatter().format(logging.LogRecord('a', 20, 'b', 1, 'c', (), None));"
        "sys.exit(any(name.startswith('opentelemetry') for name in sys.modules))"
    )
    assert subprocess.run([sys.executable, "-c", program], timeout=60, check=False).returncode == 0


def test_by_class_path_in_a_configuration(kit, name):
    """`dictConfig` finds both formatters by their paths; through a queue a line stays one line."""
    streams = [io.StringIO(), io.StringIO()]
    logging.config.dictConfig(
        {
            "version": 1,
            "disable_existing_loggers": False,
            "formatters": {
                "console": {"()": "triggers.logs.formatters.ConsoleFormatter"},
                "ecs": {"()": "triggers.logs.formatters.JsonFormatter", "shape": "ecs"},
            },
            "handlers": {
                "console": {"class": "logging.StreamHandler", "formatter": "console", "stream": streams[0]},
                "ecs": {"class": "logging.StreamHandler", "formatter": "ecs", "stream": streams[1]},
            },
            "loggers": {name: {"level": "INFO", "handlers": ["console", "ecs"], "propagate": False}},
        }
    )
    with kit.log.block({"page": 3}) as logger:
        logger.warning("Two\nlines")
    console, ecs = (stream.getvalue().splitlines() for stream in streams)
    assert r"Two\nlines page=3" in console[0]
    assert json.loads(ecs[0])["triggers.context"] == {"page": 3}
    logging.getLogger(name).handlers.clear()


def test_through_a_queue(kit, application, collector_of_a_queue):
    """A record that a QueueHandler has prepared still has its context and identifiers."""
    listener, handler, target = collector_of_a_queue
    application.addHandler(handler)
    with kit.log.block({"page": 3}) as logger:
        logger.warning("Missing %s", "x")
    listener.stop()
    made = line("otel", target.records[0])
    assert (made["Body"], made["Attributes"]["context"]) == ("Missing x", {"page": 3})
    assert made["Attributes"]["triggers.uid"] == "respondent-17"


@pytest.fixture
def collector_of_a_queue(application):
    waiting = queue.SimpleQueue()
    target = type(application.collector)()
    listener = logging.handlers.QueueListener(waiting, target)
    listener.start()
    yield listener, logging.handlers.QueueHandler(waiting), target
    if listener._thread is not None:
        listener.stop()


def test_a_context_is_not_cut_or_hidden_a_second_time(make, application):
    """What the settings of a manager let through, a formatter writes."""
    kit = make(max_string=10_000, max_items=500, redact=())
    with kit.log.block({"text": "x" * 9_000, "password": "not hidden here"}) as logger:
        logger.warning("Long", context={"items": [0] * 300})
    assert line("google", application.collector.records[0])["context"] == {
        "text": "x" * 9_000,
        "password": "not hidden here",
        "items": [0] * 300,
    }
