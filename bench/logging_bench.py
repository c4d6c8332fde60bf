"""What a record costs, as ratios to the standard library's own in the same run.

Every figure of ours includes what comes after the call too: opening the block, keeping the records, writing
them out in batches (to a list) and the hand-over at the end, spread over the records of a full attempt.
``python -m bench.logging_bench`` prints them.
"""

from __future__ import annotations

import functools
import io
import json
import logging
import sys
import time
from typing import TYPE_CHECKING, Any

from triggers.logs import InstanceLog, LogIdentity, LogSettings
from triggers.logs.formatters import JsonFormatter
from triggers.logs.sanitizing.sanitizer import sanitizer

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from triggers.core.records import LogBatch

#: Records of one attempt: as many as are all kept.
RECORDS = 450
ROUNDS = 60
#: Blocks without a record, of one measurement.
BLOCKS = 50
NAME = "bench.application"
BOUND = {"app_version": "3.1.4", "survey": 96, "embedded": False}
CALL = {"page": 3, "field": "givenNames", "score": 0.25}
FIFTY = {f"key_{number}": f"value {number}" if number % 2 else number for number in range(50)}


def run() -> list[tuple[str, float, str]]:
    """Measure; return name, value, and unit with target, the base of the ratios first."""
    application = _application()
    best = _best(
        {
            "standard": lambda: _standard(application, logging.INFO),
            "filtered standard": lambda: _standard(application, logging.DEBUG),
            "filtered": lambda: _ours(None, level=logging.DEBUG),
            "bound": lambda: _ours(None),
            "three": lambda: _ours(CALL),
            "fifty": lambda: _ours(FIFTY),
            "empty": _empty_block,
        }
    )
    standard = best["standard"]
    worst, size = _worst()
    return [*_own(best, standard, worst, size), *beside(standard)]


def _own(best: dict[str, float], standard: float, worst: float, size: int) -> list[tuple[str, float, str]]:
    return [
        ("stdlib info into NullHandler", standard * 1e6, "us"),
        ("stdlib filtered call", best["filtered standard"] * 1e6, "us"),
        ("filtered call", best["filtered"] / best["filtered standard"], "x stdlib filtered, <= 1.5"),
        ("bound context", best["bound"] / standard, "x stdlib, <= 2.0"),
        ("plus three keys of the call", best["three"] / standard, "x stdlib, <= 3.0"),
        ("50 keys of the call", best["fifty"] * 1e6, "us, <= 40"),
        ("block without a record", best["empty"] * 1e6, "us"),
        ("worst context, time", worst * 1e3, "ms, <= 1"),
        ("worst context, size", size / 1024, "KiB of JSON, <= 16"),
    ]


def beside(standard: float) -> list[tuple[str, float, str]]:
    """Measure the same work in several ways: a bound context, one of the call, merged, as a line of JSON.

    Ours writes that line by way of the application's logger, and keeps the record besides; none of the others
    keeps anything. Those that are not installed are left out.
    """
    makers = {
        "triggers, kept and as JSON": _by_triggers,
        "triggers, JSON of the formatter alone": _by_formatter,
        "LoggerAdapter with json.dumps": _by_adapter,
        "python-json-logger": _by_json_logger,
        "structlog, JSONRenderer": _by_structlog,
        "loguru, serialize": _by_loguru,
    }
    works = {}
    for name, make in makers.items():
        try:
            works[name] = functools.partial(_timed, make())
        except ImportError:
            print(f"{name}: not installed", file=sys.stderr)
    best = _best(works)
    figures = [(name, best[name] / standard, "x stdlib into NullHandler") for name in works]
    return [*figures, ("bytes of JSON of such a record, otel shape", float(_line_size()), "bytes")]


def _timed(call: Callable[[], None]) -> float:
    began = time.perf_counter()
    for _ in range(RECORDS):
        call()
    return (time.perf_counter() - began) / RECORDS


def _stream_of(name: str, formatter: logging.Formatter) -> tuple[logging.Logger, io.StringIO]:
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    logger = logging.getLogger(name)
    logger.propagate = False
    logger.setLevel(logging.INFO)
    logger.handlers[:] = [handler]
    return logger, stream


def _fresh(stream: io.StringIO) -> None:
    """Keep the stream from growing, so that no measurement is about memory."""
    stream.seek(0)


def _by_triggers() -> Callable[[], None]:
    application, stream = _stream_of("bench.beside.triggers", JsonFormatter("otel"))
    log = _log([])
    block = log.block(BOUND, logger=application)
    logger = block.__enter__()  # it stays open for as long as the process measures

    def call() -> None:
        _fresh(stream)
        logger.info("Missing %s", "givenNames", context=CALL)

    return call


def _by_formatter() -> Callable[[], None]:
    logger, stream = _stream_of("bench.beside.formatter", JsonFormatter("otel"))

    def call() -> None:
        _fresh(stream)
        logger.info("Missing %s", "givenNames", extra={**BOUND, **CALL})

    return call


class _Json(logging.Formatter):
    """What one writes by hand."""

    def format(self, record: logging.LogRecord) -> str:
        line = {"time": record.created, "level": record.levelname, "logger": record.name}
        line |= {"message": record.getMessage(), "line": record.lineno, "function": record.funcName}
        return json.dumps(line | record.__dict__["context"])


class _Adapter(logging.LoggerAdapter[logging.Logger]):
    def process(self, msg: Any, kwargs: Any) -> tuple[Any, Any]:
        kwargs["extra"] = {"context": {**(self.extra or {}), **kwargs.pop("context", {})}}
        return msg, kwargs


def _by_adapter() -> Callable[[], None]:
    plain, stream = _stream_of("bench.beside.adapter", _Json())
    logger = _Adapter(plain, BOUND)

    def call() -> None:
        _fresh(stream)
        logger.info("Missing %s", "givenNames", context=CALL)

    return call


def _by_json_logger() -> Callable[[], None]:
    from pythonjsonlogger.json import JsonFormatter as Other  # noqa: PLC0415 - if it is installed

    fields = "%(asctime)s %(levelname)s %(name)s %(message)s %(lineno)d %(funcName)s"
    logger, stream = _stream_of("bench.beside.jsonlogger", Other(fields))

    def call() -> None:
        _fresh(stream)
        logger.info("Missing %s", "givenNames", extra={**BOUND, **CALL})

    return call


def _by_structlog() -> Callable[[], None]:
    import structlog  # noqa: PLC0415 - if it is installed

    stream = io.StringIO()
    callsite = structlog.processors.CallsiteParameter
    logger = structlog.wrap_logger(
        structlog.WriteLogger(stream),
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.CallsiteParameterAdder([callsite.LINENO, callsite.FUNC_NAME]),
            structlog.processors.JSONRenderer(),
        ],
    ).bind(**BOUND)

    def call() -> None:
        _fresh(stream)
        logger.info("Missing %s", "givenNames", **CALL)

    return call


def _by_loguru() -> Callable[[], None]:
    import loguru  # noqa: PLC0415 - if it is installed

    stream = io.StringIO()
    loguru.logger.remove()
    loguru.logger.add(stream, serialize=True, level="INFO")
    logger = loguru.logger.bind(**BOUND)

    def call() -> None:
        _fresh(stream)
        logger.bind(**CALL).info("Missing {}", "givenNames")

    return call


def _line_size() -> int:
    application, stream = _stream_of("bench.beside.size", JsonFormatter("otel"))
    with _log([]).block(BOUND, logger=application) as logger:
        logger.info("Missing %s", "givenNames", context=CALL)
    return len(stream.getvalue().encode())


def _application() -> logging.Logger:
    application = logging.getLogger(NAME)
    application.propagate = False
    application.setLevel(logging.INFO)
    application.handlers[:] = [logging.NullHandler()]
    return application


def _best(works: Mapping[str, Callable[[], float]]) -> dict[str, float]:
    """Measure in turns, so that what slows the machine for a while slows them all; keep the best of each."""
    taken = [{name: work() for name, work in works.items()} for _ in range(ROUNDS)]
    return {name: min(each[name] for each in taken) for name in works}


def _standard(application: logging.Logger, level: int) -> float:
    call = application.info if level == logging.INFO else application.debug
    began = time.perf_counter()
    for _ in range(RECORDS):
        call("Missing %s", "givenNames")
    return (time.perf_counter() - began) / RECORDS


def _ours(context: dict[str, Any] | None, *, level: int = logging.INFO) -> float:
    stored: list[LogBatch] = []
    began = time.perf_counter()
    log = _log(stored)
    with log.block(BOUND) as logger:
        call = logger.info if level == logging.INFO else logger.debug
        if level == logging.DEBUG:
            began = time.perf_counter()
        if context is None:
            for _ in range(RECORDS):
                call("Missing %s", "givenNames")
        else:
            for _ in range(RECORDS):
                call("Missing %s", "givenNames", context=context)
        if level == logging.DEBUG:
            return (time.perf_counter() - began) / RECORDS
    stored.append(log.drain())
    took = time.perf_counter() - began
    if sum(len(batch.entries) for batch in stored) != RECORDS:
        message = "records were lost; the figure would be worth nothing"
        raise RuntimeError(message)
    return took / RECORDS


def _log(stored: list[LogBatch]) -> InstanceLog:
    settings = LogSettings(max_important=1, max_bytes=8 * 1024 * 1024)
    identity = LogIdentity("respondent-17", "t_importSubject", "t_importSubject#0")
    return InstanceLog(
        identity, write=stored.append, settings=settings, now=lambda: time.time_ns() // 1000, logger_name=NAME
    )


def _empty_block() -> float:
    began = time.perf_counter()
    for _ in range(BLOCKS):
        log = _log([])
        with log.block(BOUND):
            pass
        log.drain()
    return (time.perf_counter() - began) / BLOCKS


def worst_contexts() -> dict[str, Any]:
    """Return contexts that are meant to take long or to become large."""
    nested: Any = {"end": 1}
    for _ in range(3_000):
        nested = {"deeper": nested, "beside": [nested] * 3}
    return {
        "wide": {
            f"key {number}": {f"{number}.{inner}": "ä\n" for inner in range(99)} for number in range(99)
        },
        "long list": {"items": [f"item {number}" for number in range(100_000)]},
        "numbers": {f"k{number}": [number + 0.5 for number in range(100)] for number in range(100)},
        "long texts": {f"text {number}": "x" * 1_000_000 for number in range(100)},
        "odd text": {f"text {number}": '"\\\x01\ud800' * 1_000 for number in range(100)},
        "nested": nested,
        "objects": {"objects": [LogIdentity("u", "t", "t#0") for _ in range(100_000)]},
        "pairs": [{str(number): object(), (1, number): {1, 2, 3}} for number in range(1_000)],
    }


def _worst() -> tuple[float, int]:
    worst, largest = 0.0, 0
    for value in worst_contexts().values():
        best = 1e9
        for number in range(15):
            fresh = sanitizer(LogSettings(max_records=1_000 + number))
            began = time.perf_counter()
            plain = fresh.context(value)
            best = min(best, time.perf_counter() - began)
        worst = max(worst, best)
        largest = max(largest, len(json.dumps(plain.data, ensure_ascii=False, default=str).encode()))
    return worst, largest


def main() -> None:
    """Print the figures."""
    for name, value, unit in run():
        print(f"{name:32} {value:9.2f} {unit}")


if __name__ == "__main__":
    main()
