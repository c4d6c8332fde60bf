"""What a log must withstand: no value raises into a task, loses a record, or is evaluated."""

from __future__ import annotations

import dataclasses
import io
import json
import logging
import sys
import threading
import tracemalloc
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from urllib.parse import SplitResult

import pytest
from pydantic import BaseModel, SecretStr

from triggers import Registry, Triggers, task, with_context
from triggers.core.values import encode
from triggers.logs import LogSettings, Sensitive
from triggers.logs.extra import STANDARD
from triggers.logs.formatters import ConsoleFormatter, JsonFormatter

SECRET = "hunter22-correct-horse"  # noqa: S105 - what must not be kept


class Lazy:
    """Counts how often it is evaluated, in whichever way."""

    evaluations = 0

    def _evaluate(self, *_):
        Lazy.evaluations += 1
        return self

    def __len__(self):
        Lazy.evaluations += 1
        return 3

    def __str__(self):
        Lazy.evaluations += 1
        return "evaluated"

    __repr__ = __str__
    __iter__ = __getitem__ = __bool__ = __getattr__ = _evaluate


class Raising:
    """Raises from every method that an object is asked for its looks by."""

    def _refuse(self, *_):
        raise OSError

    __repr__ = __str__ = __eq__ = __hash__ = __len__ = __iter__ = __bool__ = __getattr__ = _refuse
    __dict__ = property(_refuse)


class Recursing:
    """Recurses in its looks."""

    def __repr__(self):
        return repr(self)

    def __str__(self):
        return str(self)

    def __eq__(self, other):
        return self == other

    def __hash__(self):
        return hash(self)


class Subject(BaseModel):
    name: str = "Eve"
    password: str = SECRET
    key: SecretStr = SecretStr(SECRET)


@dataclasses.dataclass
class Account:
    name: str = "Eve"
    api_key: str = SECRET


def self_referencing_dict():
    value = {"a": 1}
    value["self"] = value
    value["twice"] = {"again": value, "list": [value]}
    return value


def self_referencing_list():
    value = [1]
    value += [value, [value]]
    return value


def nested():
    value = {"end": 1}
    for _ in range(3_000):
        value = {"deeper": value}
    return value


def numpy_values():
    numpy = pytest.importorskip("numpy")
    return [
        numpy.zeros(9),
        numpy.float64("nan"),
        numpy.int8(3),
        numpy.datetime64("2026-11-22"),
        numpy.str_("x"),
    ]


def pandas_values():
    pandas = pytest.importorskip("pandas")
    return [pandas.DataFrame({"a": [1]}), pandas.NaT, pandas.Timestamp("2026-11-22")]


def query_set():
    """A query of Django on a table that does not exist: whoever evaluates it is told so."""
    pytest.importorskip("django")
    import django  # noqa: PLC0415 - where it is installed
    from django.conf import settings  # noqa: PLC0415 - as above

    if not settings.configured:
        database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
        settings.configure(DATABASES={"default": database}, INSTALLED_APPS=[], LOGGING_CONFIG=None)
        django.setup()
    from django.db import models  # noqa: PLC0415 - needs the settings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # the model is made once for each test
        meta = type("Meta", (), {"app_label": "survey"})
        body = {"__module__": __name__, "Meta": meta, "name": models.TextField()}
        return type("Person", (models.Model,), body).objects.filter(name="Eve")


VALUES = {
    "self-referencing dict": self_referencing_dict,
    "self-referencing list": self_referencing_list,
    "3,000 levels": nested,
    "colliding keys": lambda: {1: "int", "1": "str", (1,): "tuple", "(1)": "str", None: "none", "null": "str", b"1": 1},
    "NaN and infinities": lambda: [float("nan"), float("inf"), -float("inf")],
    "lone surrogates": lambda: {"\ud800": "\udfff a \ud800"},
    "NUL": lambda: {"a\0b": "a\0b"},
    "bytes": lambda: [b"\x00\xff", bytearray(b"x"), memoryview(b"y"), b"z" * 1_000_000],
    "1 MB string": lambda: "x" * 1_000_000,
    "100,000 items": lambda: list(range(100_000)),
    "generator": lambda: (number for number in range(3)),
    "raising object": Raising,
    "recursing object": Recursing,
    "lazy object": Lazy,
    "lock": threading.Lock,
    "open file": lambda: io.TextIOWrapper(io.BytesIO(b"x")),
    "class": lambda: Raising,
    "lambda": lambda: lambda: None,
    "numpy": numpy_values,
    "pandas": pandas_values,
    "QuerySet": query_set,
    "model with secrets": Subject,
    "dataclass with a secret": Account,
    "header list": lambda: [("Authorization", SECRET), {"name": "X-Api-Key", "value": SECRET}, [b"cookie", SECRET]],
    "URL with a password": lambda: f"postgres://eve:{SECRET}@db.example.org/survey",
    "parts of a URL": lambda: {"url": [f"https://eve:{SECRET}@example.org"], "deep": [[{"clientSecret": SECRET}]]},
    "declared secret": lambda: [Sensitive(SECRET), {"x": Sensitive({"y": SECRET})}],
}  # fmt: skip


class Strict(logging.StreamHandler):
    """A handler that does not pass over what goes wrong in its formatter."""

    def __init__(self, formatter):
        super().__init__(io.StringIO())
        self.setFormatter(formatter)

    def handleError(self, record):  # noqa: N802 - the standard library's name
        raise  # noqa: PLE0704 - called where one is handled


def structlog_handler():
    structlog = pytest.importorskip("structlog")
    allowed = structlog.stdlib.ExtraAdder(allow=["context", "triggers.uid"])
    render = structlog.processors.JSONRenderer(default=str)
    return Strict(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, allowed],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                render,
            ],
        )
    )


def json_logger_handler():
    jsonlogger = pytest.importorskip("pythonjsonlogger.json")
    return Strict(jsonlogger.JsonFormatter("%(message)s"))


@pytest.fixture
def outputs(application):
    """Every formatter and bridge at once; gives a function that returns what each of them has got, as text."""
    handlers = {"console": Strict(ConsoleFormatter())}
    handlers |= {shape: Strict(JsonFormatter(shape)) for shape in ("otel", "ecs", "google")}
    handlers |= {"structlog": structlog_handler(), "python-json-logger": json_logger_handler()}
    for handler in handlers.values():
        application.addHandler(handler)
    with _loguru(application) as loguru, _sentry() as sentry, _opentelemetry(application) as exporter:

        def got():
            texts = {name: handler.stream.getvalue() for name, handler in handlers.items()}
            said = [data.log_record for data in exporter.get_finished_logs()]
            exported = [(record.body, dict(record.attributes)) for record in said]
            others = {
                "loguru": "".join(loguru),
                "sentry": json.dumps(sentry),
                "opentelemetry": repr(exported),
            }
            return {**texts, **others}

        yield got


class _Loguru(logging.Handler):
    def emit(self, record):
        from loguru import logger  # noqa: PLC0415 - where it is installed

        logger.bind(context=record.context).opt(exception=record.exc_info).log(
            record.levelname, record.getMessage()
        )


class _loguru:  # noqa: N801 - used as a function
    def __init__(self, application):
        self.logger = pytest.importorskip("loguru").logger
        application.addHandler(_Loguru())

    def __enter__(self):
        texts = []
        self.logger.remove()
        # Its own way to show variables in tracebacks is for development: it shows secrets.
        self.logger.add(texts.append, format="{message} {extra}", diagnose=False, catch=False)
        return texts

    def __exit__(self, *_):
        self.logger.remove()


class _sentry:  # noqa: N801 - used as a function
    def __enter__(self):
        sentry = pytest.importorskip("sentry_sdk")
        from sentry_sdk.integrations.logging import LoggingIntegration  # noqa: PLC0415 - where it is installed
        from sentry_sdk.transport import Transport  # noqa: PLC0415 - as above

        sent = []

        class Kept(Transport):
            def capture_envelope(self, envelope):
                sent.extend(item.payload.json for item in envelope.items if item.type == "event")

        self.sdk = sentry
        sentry.init(
            dsn="https://public@sentry.invalid/1",
            transport=Kept,
            default_integrations=False,
            integrations=[LoggingIntegration(event_level=logging.WARNING)],
            include_local_variables=False,
        )
        return sent

    def __exit__(self, *_):
        self.sdk.get_global_scope().set_client(None)


class _opentelemetry:  # noqa: N801 - used as a function
    def __init__(self, application):
        self.application = application

    def __enter__(self):
        logs = pytest.importorskip("opentelemetry.sdk._logs")
        from opentelemetry.sdk._logs.export import (  # noqa: PLC0415 - where it is installed
            InMemoryLogRecordExporter,
            SimpleLogRecordProcessor,
        )

        kept = InMemoryLogRecordExporter()
        self.provider = logs.LoggerProvider(shutdown_on_exit=False)
        self.provider.add_log_record_processor(SimpleLogRecordProcessor(kept))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # it moves into a package of its own
            self.application.addHandler(logs.LoggingHandler(logger_provider=self.provider))
        return kept

    def __exit__(self, *_):
        self.provider.shutdown()


def said_by_call(log, value):
    with log.block() as logger:
        logger.warning("said-4711 %s", "here", context={"value": value})
        logger.warning("said-4712", extra={"attribute": value, "context": {"value": value}})


def said_by_block(log, value):
    with log.block({"value": value}) as logger:
        logger.warning("said-4711")
        logger.bind({"value": {"bound": value}}).warning("said-4712")


def said_by_exception(log, value):
    with suppress(ValueError), log.block():
        try:
            raise with_context(KeyError("said-4712"), {"value": value})
        except KeyError as error:
            raise with_context(ValueError("said-4711"), {"value": value, "other": [value]}) from error


PLACES = [said_by_call, said_by_block, said_by_exception]


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", VALUES)
def test_every_value_in_every_place_through_everything(make, outputs, name, place):
    """It is kept as data that a storage takes, reaches every formatter and bridge, and no secret comes out."""
    value = VALUES[name]()
    Lazy.evaluations = 0
    kit = make(strict=True)
    place(kit.log, value)
    entries = kit.finish()
    assert "said-4711" in entries[0].message
    for entry in entries:
        assert "value" in entry.context
        assert len(encode(dict(entry.context), "context").encode()) <= LogSettings().max_context
        encode(entry.exception, "the exception")
    got = outputs()
    assert {
        output: "said-4711" in text and "said-4712" in text for output, text in got.items()
    } == dict.fromkeys(got, True)
    assert "hunter22" not in repr(entries) + "".join(got.values())
    assert Lazy.evaluations == 0
    if name == "QuerySet":
        assert value._result_cache is None


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{folder}/withstand.db"])
def test_every_value_through_every_storage(tmp_path, url):
    """A task that logs each value in each place finishes, and its records can be read again."""
    made = {name: make() for name, make in VALUES.items() if name != "pandas"}
    registry = Registry()

    @task(name="withstand", registry=registry)
    def withstand(context):
        for name, value in made.items():
            with context.get_logger_context({"block": value}) as logger:
                logger.info("%s", name, context={"call": value})
                try:
                    raise with_context(ValueError(name), {"error": value})
                except ValueError:
                    logger.exception("%s", name)

    Lazy.evaluations = 0
    with Triggers(url.format(folder=tmp_path), runner="inline", registry=registry) as triggers:
        session = triggers.session("s")
        session.update_configuration({"t_withstand": {"after": ["go"], "run": "withstand"}})
        session.fire("go")
        instance = session.storage["t_withstand#0"]
        records = session.storage.logs("t_withstand#0", limit=1_000)
    assert (instance.status, instance.log_level_name) == ("finished", "ERROR")
    assert instance.log_counts == {logging.INFO: len(made), logging.ERROR: len(made)}
    assert [record.entry.message for record in records] == [name for name in made for _ in range(2)]
    assert all({"block", "call"} <= set(record.entry.context) for record in records[::2])
    assert all("error" in record.entry.exception["context"] for record in records[1::2])
    assert "hunter22" not in repr(records)
    assert Lazy.evaluations == 0


@pytest.mark.parametrize(
    "key", sorted(STANDARD | {"context", "truncated", "triggers.uid", "triggers.seq", "extra_name"})
)
def test_extra_that_clashes_with_any_attribute(make, outputs, key):
    """It is context, and an attribute of another name, at every output; the record's own attribute stays."""
    kit = make(strict=True)
    with kit.log.block() as logger:
        logger.warning("said-4711", extra={key: "clash-815"})
    (entry,) = kit.finish()
    assert "clash-815" in json.dumps(entry.context)
    assert all("said-4711" in text for text in outputs().values())


@pytest.mark.parametrize(
    ("message", "args"),
    [
        ("said-4711 a\r\nb", ()),
        ("said-4711 \x1b[31mred\x1b[0m", ()),
        ("said-4711 \u202eright to left\u2066\u200b\u2028\x85", ()),
        ("said-4711 %s %s", ("one",)),
        ("said-4711", ("one", "too many")),
        ("said-4711 %d", ("x",)),
        ("said-4711 100%", ("x",)),
        ("said-4711 %(missing)s", ({"a": 1},)),
        ("said-4711 %s", (Raising(),)),
        ("said-4711 {0} {x.__class__}", ()),
        ("said-4711 \ud800", ("\udfff",)),
    ],
)
def test_messages_of_every_kind(make, outputs, message, args):
    """Line breaks, escapes, format characters and wrong arguments: one record, one line, everywhere."""
    kit = make(strict=True)
    with kit.log.block() as logger:
        logger.warning(message, *args)
    (entry,) = kit.finish()
    assert "said-4711" in entry.message
    got = outputs()
    assert all("said-4711" in text for text in got.values())
    lines = {name: got[name].splitlines() for name in ("console", "otel", "ecs", "google")}
    assert {name: len(found) for name, found in lines.items()} == dict.fromkeys(lines, 1)
    assert lines["console"][0].isprintable()


def test_a_record_is_safe_while_a_handler_hangs(kit, application):
    """A warning is written before the handler that hangs is asked; its caller hangs with it, as ever."""
    hangs, go_on = threading.Event(), threading.Event()

    def emit(record):
        hangs.set()
        go_on.wait(10)

    def work():
        with kit.log.block() as logger:
            logger.warning("Odd answer")

    application.collector.emit = emit
    thread = threading.Thread(target=work)
    thread.start()
    assert hangs.wait(10)
    assert [entry.message for entry in kit.entries] == ["Odd answer"]
    assert thread.is_alive()
    go_on.set()
    thread.join(10)


def test_a_handler_that_logs_through_the_block(kit, application):
    """A handler of the application that logs again, to the very logger that called it, does not recurse."""
    application.collector.emit = lambda record: logger.warning("again")
    with kit.log.block(capture=[application.name]) as logger:
        logger.warning("first")
    assert [entry.message for entry in kit.finish()] == ["first", "again"]


def test_sixteen_threads_and_every_output(make, outputs):
    """Records of sixteen threads on one logger are all kept, numbered without a gap, and reach every output."""
    kit = make(max_records=4_000, max_important=4_000, max_bytes=8 * 1024 * 1024)
    with kit.log.block() as logger, ThreadPoolExecutor(16) as pool:
        for _ in pool.map(
            lambda number: logger.warning("said-%s-", number, context={"n": number}), range(320)
        ):
            pass
    entries = kit.finish()
    assert [entry.seq for entry in entries] == list(range(1, 321))
    assert {entry.context["n"] for entry in entries} == set(range(320))
    for text in outputs().values():
        assert all(f"said-{number}-" in text for number in range(320))


def test_forty_thousand_records_take_bounded_memory(kit, application):
    """What cannot be kept is counted, and memory does not grow with it."""
    application.setLevel(logging.ERROR)
    tracemalloc.start()
    try:
        with kit.log.block({"page": 3}) as logger:
            for number in range(40_000):
                logger.info("Read %s", number, context={"n": number})
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    entries = kit.finish()
    assert len(entries) + kit.dropped == 40_000
    assert peak < 16 * 1024 * 1024
    assert sys.getrecursionlimit() > 0


def test_secrets_under_every_word(make, outputs):
    """Each word that names a secret, in each way to write it, at depth, in every kind of thing."""
    kit = make(strict=True)
    words = [
        "password",
        "secret",
        "authorization",
        "cookie",
        "credential",
        "api key",
        "access token",
        "private key",
    ]
    spelled = [spell(word) for word in words for spell in (_snake, _camel, _header, str.upper)]
    with kit.log.block({"env": dict.fromkeys(spelled, SECRET)}) as logger:
        logger.warning("said-4711", context={"headers": [(key, SECRET) for key in spelled]})
        made = dataclasses.make_dataclass("Made", [_snake(word) for word in words])(*[SECRET] * len(words))
        logger.warning(
            "said-4712 %s",
            made,
            context={"made": [made], "url": SplitResult("https", f"u:{SECRET}@h", "", "", "").geturl()},
        )
    assert "hunter22" not in repr(kit.finish()) + "".join(outputs().values())


def _snake(word):
    return "my_" + word.replace(" ", "_")


def _camel(word):
    return "my" + word.title().replace(" ", "")


def _header(word):
    return "X-" + word.title().replace(" ", "-")
