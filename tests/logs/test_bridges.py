from __future__ import annotations

import io
import json
import logging
import warnings
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path

import pytest

from triggers.exceptions import with_context
from triggers.logs import mask_secret
from triggers.logs.bridges import loguru_sink, structlog_processor

CONTEXT = {
    "page_data": {"page": 3},
    "at": datetime(2026, 11, 22, tzinfo=UTC),
    "price": Decimal("1.5"),
    "password": "hunter22",
}


# -- structlog --


@pytest.fixture
def structured():
    """Structlog as an application has it, rendering to a list, with our processor among its own."""
    structlog = pytest.importorskip("structlog")
    output = io.StringIO()
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog_processor,
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(default=str),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        logger_factory=structlog.WriteLoggerFactory(file=output),
        cache_logger_on_first_use=False,
    )
    yield structlog, output
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def test_events_of_structlog_are_kept(kit, structured):
    """In a block an event is a record with what was bound as its context; its own output stays as it was."""
    structlog, output = structured
    logger = structlog.get_logger().bind(page=3, name="clashes", password="hunter22")  # noqa: S106 - to be hidden
    logger.info("before")
    with kit.log.block({"app_version": "1.2"}):
        structlog.contextvars.bind_contextvars(request="r1")
        logger.warning("Missing 100% of it", field="givenNames")
        logger.debug("filtered out")
        try:
            raise with_context(ValueError("spam"), {"score": 0.9})
        except ValueError:
            logger.exception("failed")
    logger.info("after")
    first, second = kit.finish()
    assert (first.message, first.level) == ("Missing 100% of it", logging.WARNING)
    assert first.context == {
        "app_version": "1.2", "page": 3, "name": "clashes", "password": "[redacted]", "request": "r1", "field": "givenNames",
    }  # fmt: skip
    assert (first.pathname, first.function) == (__file__, "test_events_of_structlog_are_kept")
    assert (second.level, second.exception["type"], second.exception["context"]) == (
        40,
        "ValueError",
        {"score": 0.9},
    )
    assert kit.log.current_log_level == logging.ERROR
    assert kit.counts == {30: 1, 40: 1}
    lines = [json.loads(line)["event"] for line in output.getvalue().splitlines()]
    assert lines == ["before", "Missing 100% of it", "failed", "after"]


def test_the_blocks_logger_wrapped_by_structlog(kit, application):
    """Structlog may also wrap the logger of a block; then its events are ordinary records of it."""
    structlog = pytest.importorskip("structlog")
    with kit.log.block({"app_version": "1.2"}) as logger:
        wrapped = structlog.wrap_logger(
            logger,
            processors=[structlog.stdlib.render_to_log_kwargs],
            wrapper_class=structlog.stdlib.BoundLogger,
        ).bind(page=3)
        wrapped.warning("Missing", field="givenNames")
    (entry,) = kit.finish()
    assert (entry.message, entry.level) == ("Missing", logging.WARNING)
    assert entry.context == {"app_version": "1.2", "page": 3, "field": "givenNames"}
    assert application.collector.records[0].context == entry.context


def test_our_records_in_structlogs_formatter(kit, application):
    """Structlog's ProcessorFormatter renders a record of a task with its context and identifiers, once kept."""
    structlog = pytest.importorskip("structlog")
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.stdlib.add_log_level,
                structlog.stdlib.ExtraAdder(allow=["context", "triggers.uid", "triggers.instance"]),
                structlog_processor,
            ],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.JSONRenderer(default=str),
            ],
        )
    )
    application.addHandler(handler)
    with kit.log.block(CONTEXT) as logger:
        logger.warning("Missing %s", "givenNames")
    made = json.loads(stream.getvalue())
    assert (made["event"], made["level"]) == ("Missing givenNames", "warning")
    assert made["triggers.instance"] == "t_importSubject#0"
    assert made["context"] == {
        "page_data": {"page": 3}, "at": "2026-11-22 00:00:00+00:00", "price": "1.5", "password": "[redacted]",
    }  # fmt: skip
    assert len(kit.finish()) == 1


# -- loguru --


@pytest.fixture
def loguru():
    logger = pytest.importorskip("loguru").logger
    logger.remove()
    number = logger.add(loguru_sink, format="{message}", level="INFO", catch=False)
    yield logger
    logger.remove(number)


def test_messages_of_loguru_are_kept(kit, loguru):
    """In a block a message is a record with what was bound as its context, at loguru's own level."""
    loguru.info("before")
    with kit.log.block({"app_version": "1.2"}):
        loguru.bind(page=3, api_key="hunter22").warning("Missing {}", "givenNames")
        loguru.success("done")
        loguru.debug("filtered out")
        try:
            raise with_context(ValueError("spam"), {"score": 0.9})
        except ValueError:
            loguru.exception("failed")
    first, second, third = kit.finish()
    assert (first.message, first.level, first.logger) == ("Missing givenNames", 30, __name__)
    assert first.context == {"app_version": "1.2", "page": 3, "api_key": "[redacted]"}
    assert (first.pathname, first.function) == (__file__, "test_messages_of_loguru_are_kept")
    assert (second.message, second.level) == ("done", 25)
    assert (third.exception["type"], third.exception["context"]) == ("ValueError", {"score": 0.9})
    assert kit.log.current_log_level == logging.ERROR


@pytest.fixture
def to_loguru():
    """The handler that the documentation shows."""
    loguru = pytest.importorskip("loguru")
    text = Path("docs/how-to/send-logs-elsewhere.md").read_text("utf-8")
    code = text[text.index("class ToLoguru") :].partition("\n\n\n")[0]
    names = {"logging": logging, "loguru": loguru}
    exec(code, names)  # noqa: S102 - our own document
    return names["ToLoguru"]()


def test_our_records_in_loguru(kit, application, loguru, to_loguru):
    """Handed to loguru by a handler, a record is rendered and kept only once."""
    rendered = []
    number = loguru.add(rendered.append, format="{level} {message} {extra}", diagnose=False, catch=False)
    application.addHandler(to_loguru)
    with pytest.raises(ValueError, match="spam"), kit.log.block(CONTEXT) as logger:  # noqa: PT012 - one story
        logger.warning("Missing {} %s", "givenNames")
        raise ValueError("spam")
    loguru.remove(number)
    assert [entry.message for entry in kit.finish()] == ["Missing {} givenNames", "ValueError: spam"]
    assert rendered[0].startswith("WARNING Missing {} givenNames {'page_data': {'page': 3}")
    assert "hunter22" not in "".join(rendered)
    assert "ValueError: spam" in rendered[1]


@pytest.fixture
def rendered(application, loguru, to_loguru):
    """What loguru renders of the application's records, of every level."""
    lines = []
    sink = loguru.add(lines.append, format="{level.no} {level} {message}", level=0, catch=False)
    application.setLevel(1)
    application.addHandler(to_loguru)
    yield lines
    loguru.remove(sink)


@pytest.mark.parametrize(
    ("number", "name", "shown"),
    [
        (27, "NOTICE", "27 Level 27"),
        (15, "Level 15", "15 Level 15"),
        (1, "Level 1", "1 Level 1"),
        (25, "SUCCESS", "25 SUCCESS"),
        (35, "SUCCESS", "35 Level 35"),
        (31, "WARNING", "31 Level 31"),
        (50, "CRITICAL", "50 CRITICAL"),
    ],
)
def test_own_levels_in_loguru(kit, rendered, number, name, shown):
    """A level that loguru does not know, or that has another number there, is passed as its number."""
    before = logging.getLevelName(number)
    logging.addLevelName(number, name)
    with kit.log.block() as logger:
        logger.log(number, "Missing {} <b> %s", "givenNames")
    logging.addLevelName(number, before)
    assert rendered == [f"{shown} Missing {{}} <b> givenNames\n"]


# -- Sentry --


@pytest.fixture
def events():
    """Sentry with a transport that keeps what would be sent."""
    sentry = pytest.importorskip("sentry_sdk")
    from sentry_sdk.integrations.logging import LoggingIntegration  # noqa: PLC0415 - where it is installed
    from sentry_sdk.transport import Transport  # noqa: PLC0415 - as above

    sent = []

    class Kept(Transport):
        def capture_envelope(self, envelope):
            sent.extend(item.payload.json for item in envelope.items if item.type == "event")

    sentry.init(
        dsn="https://public@sentry.invalid/1",
        transport=Kept,
        default_integrations=False,
        integrations=[LoggingIntegration(event_level=logging.ERROR)],
        include_local_variables=False,
    )
    sentry.get_isolation_scope().clear_breadcrumbs()  # of tests before, in this process
    yield sent
    sentry.get_global_scope().set_client(None)


def test_sentry_gets_our_records(kit, application, events):
    """A warning is a breadcrumb, an error an event with context and identifiers, and no secret is in either."""
    with pytest.raises(ValueError, match="spam"), kit.log.block(CONTEXT) as logger:  # noqa: PT012 - one story
        logger.warning("Missing %s", "givenNames")
        logger.error("Odd %s", "page", extra={"message": "clashes"})  # noqa: G101 - as it may happen
        raise with_context(ValueError("spam"), {"score": 0.9})
    assert len(kit.finish()) == 3
    odd, spam = events
    assert odd["logentry"]["message"] == "Odd %s"
    assert odd["logentry"]["params"] == ["page"]
    assert odd["extra"]["triggers.instance"] == "t_importSubject#0"
    assert odd["extra"]["context"]["page_data"] == {"page": 3}
    assert odd["extra"]["extra_message"] == "clashes"
    assert odd["breadcrumbs"]["values"][0]["message"] == "Missing givenNames"
    assert spam["exception"]["values"][0]["type"] == "ValueError"
    assert spam["extra"]["context"]["score"] == 0.9
    assert "hunter22" not in json.dumps(events)


def test_a_masked_secret_does_not_reach_sentry(kit, application, events):
    """An exception whose text holds a masked value is sent as the text that was cleaned, not as itself."""
    with pytest.raises(ValueError, match="sesame"), kit.log.block():  # noqa: PT012 - one story
        mask_secret("open-sesame")
        raise ValueError("wrong: open-sesame")
    assert "sesame" not in json.dumps(events)
    assert "[redacted]" in json.dumps(events)


# -- OpenTelemetry --


@pytest.fixture
def exporter():
    logs = pytest.importorskip("opentelemetry.sdk._logs")
    from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor  # noqa: PLC0415

    kept = InMemoryLogRecordExporter()
    provider = logs.LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(kept))
    with warnings.catch_warnings():
        # The handler is about to move into a package of its own.
        warnings.simplefilter("ignore", DeprecationWarning)
        kept.handler = logs.LoggingHandler(logger_provider=provider)
    yield kept
    provider.shutdown()


def test_opentelemetry_gets_our_records(kit, application, exporter):
    """The handler of OpenTelemetry's SDK exports every record with identifiers and context, secrets hidden."""
    application.addHandler(exporter.handler)
    context = {"page_data": {"page": 3}, "password": "hunter22"}
    with pytest.raises(ValueError, match="spam"), kit.log.block(context) as logger:  # noqa: PT012 - one story
        logger.warning("Missing %s", "givenNames")
        raise with_context(ValueError("spam"), {"score": 0.9})
    first, second = (data.log_record for data in exporter.get_finished_logs())
    assert (first.body, first.severity_text) == ("Missing givenNames", "WARN")
    assert first.severity_number.value == 13
    assert first.attributes["triggers.instance"] == "t_importSubject#0"
    assert first.attributes["triggers.attempt"] == 2
    assert first.attributes["context"] == {"page_data": {"page": 3}, "password": "[redacted]"}
    assert second.attributes["exception.type"] == "ValueError"
    assert second.attributes["context"]["score"] == 0.9
    assert len(kit.finish()) == 2


def test_opentelemetry_gets_values_of_every_kind(kit, application, exporter):
    """Values that its attributes do not know do not cost it the record."""
    application.addHandler(exporter.handler)
    with kit.log.block(CONTEXT) as logger:
        logger.warning("Missing")
    (data,) = exporter.get_finished_logs()
    assert data.log_record.body == "Missing"
    assert data.log_record.attributes["triggers.instance"] == "t_importSubject#0"
    assert "hunter22" not in repr(data)
