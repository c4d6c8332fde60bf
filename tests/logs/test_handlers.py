"""How records reach the application's handlers, and what happens if a handler fails."""

from __future__ import annotations

import logging
import logging.config

import pytest

from triggers.logs import current_logger


class Raising(logging.Handler):
    def emit(self, record):
        raise RuntimeError("disk on fire")


def test_a_raising_handler_is_reported_once(kit, application, capsys):
    """What a handler raises stays out of the task: it is said on stderr once, and every record is kept."""
    application.addHandler(Raising())
    with kit.log.block() as logger:
        for number in range(3):
            logger.info("number %s", number)
    assert len(kit.finish()) == 3
    assert capsys.readouterr().err.count("disk on fire") == 2  # the line of the source, and the error itself


def test_strict_raises_what_a_handler_raises(make, application):
    """In strict mode the handler's exception reaches the test; the record is kept before it."""
    kit = make(strict=True)
    application.addHandler(Raising())
    with pytest.raises(RuntimeError, match="disk on fire"), kit.log.block() as logger:
        logger.info("kept")
    assert kit.finish()[0].message == "kept"


def test_a_record_is_safe_before_a_handler_sees_it(kit, application):
    """While a handler hangs, the warning is stored already."""
    seen = []
    application.collector.emit = lambda record: seen.append([entry.message for entry in kit.entries])
    with kit.log.block() as logger:
        logger.warning("safe")
    assert seen == [["safe"]]


def test_a_handler_may_log(kit, application):
    """What a handler logs to the current logger is recorded, and handed to nobody again."""
    application.collector.emit = lambda record: current_logger().info("from the handler")
    with kit.log.block() as logger:
        logger.info("first")
    assert [entry.message for entry in kit.finish()] == ["first", "from the handler"]


def test_filters_and_handlers_of_the_block_itself(kit, application):
    """Filters, a level, handlers and `propagate` of the block's logger apply only to forwarding."""
    own = application.collector.__class__()
    with kit.log.block() as logger:
        logger.addHandler(own)
        logger.addFilter(lambda record: "secret" not in record.getMessage())
        logger.info("open")
        logger.info("secret")
        logger.setLevel(logging.ERROR)
        logger.info("quiet")
        logger.setLevel(logging.NOTSET)
        logger.propagate = False
        logger.info("own handler only")
    assert [entry.message for entry in kit.finish()] == ["open", "secret", "quiet", "own handler only"]
    assert [record.getMessage() for record in own.records] == ["open", "own handler only"]
    assert [record.getMessage() for record in application.collector.records] == ["open"]


def test_where_records_go(kit, application, name):
    """A block may be given a logger first, as of old, by keyword or by name; an adapter brings its context."""
    with kit.log.block(application, {"a": 1}) as logger:
        assert (logger.application, logger.bound.data) == (application, {"a": 1})
    with kit.log.block(application, context={"a": 1}) as logger:
        assert logger.bound.data == {"a": 1}
    with kit.log.block({"a": 1}, logger=application) as logger:
        assert (logger.application, logger.bound.data) == (application, {"a": 1})
    with kit.log.block(name=f"{name}.other") as logger:
        assert logger.name == f"{name}.other"
        assert logger.getChild("below").name == f"{name}.other.below"
    with kit.log.block(logging.LoggerAdapter(application, {"adapted": 1}), {"a": 1}) as logger:
        assert (logger.application, logger.bound.data) == (application, {"adapted": 1, "a": 1})
        with kit.log.block(logger) as inner:
            assert inner.application is application


def test_caplog_sees_the_records(kit, caplog):
    """The fixture of pytest works: records arrive at the root logger."""
    with caplog.at_level(logging.INFO), kit.log.block() as logger:
        logger.info("seen", context={"page": 1})
    assert [(record.getMessage(), record.context) for record in caplog.records] == [("seen", {"page": 1})]


def test_stack_info_reaches_the_handlers(kit, application):
    """`stack_info` works as in the standard library."""
    with kit.log.block() as logger:
        logger.info("where", stack_info=True)
    (record,) = application.collector.records
    assert record.stack_info.startswith("Stack (most recent call last):")
    assert "test_stack_info_reaches_the_handlers" in record.stack_info.splitlines()[-2]


def test_a_failing_record_factory_breaks_nothing(kit, application):
    """A LogRecord factory of the application that raises keeps nothing from being recorded."""
    factory = logging.getLogRecordFactory()
    logging.setLogRecordFactory(lambda *args: 1 / 0)
    try:
        with kit.log.block() as logger:
            logger.info("kept")
    finally:
        logging.setLogRecordFactory(factory)
    assert [entry.message for entry in kit.finish()] == ["kept"]
