"""What a call of the logger records: message, level, place and identifiers."""

from __future__ import annotations

import logging
import logging.config
from inspect import currentframe

import pytest

from triggers.logs import TriggersLogger


def here():
    """The line that calls this."""
    return currentframe().f_back.f_lineno


def test_the_documented_example(kit, application):
    """A record has the block's context and its own, in the storage and at the application's handlers."""
    with kit.log.block({"app_version": "1.2"}) as logger:
        logger.warning("Missing givenNames in response data.", extra={"context": {"page_data": {"page": 1}}})
        logger.warning("Missing %s", "givenNames", context={"page": 1})
    first, second = kit.finish()
    assert first.context == {"app_version": "1.2", "page_data": {"page": 1}}
    assert (second.message, second.template) == ("Missing givenNames", "Missing %s")
    assert second.context == {"app_version": "1.2", "page": 1}
    assert [record.getMessage() for record in application.collector.records] == [
        first.message,
        second.message,
    ]
    assert [record.context for record in application.collector.records] == [first.context, second.context]
    assert kit.log.current_log_level == logging.WARNING
    assert kit.counts == {logging.WARNING: 2}


def test_it_is_a_logger_of_the_application(kit, application):
    """The block's logger is a `logging.Logger` below the application's own, with its name and its handlers."""
    with kit.log.block() as logger:
        assert isinstance(logger, logging.Logger)
        assert isinstance(logger, TriggersLogger)
        assert (logger.name, logger.parent) == (application.name, application)
        assert logger.hasHandlers()
        assert logger.getEffectiveLevel() == logging.INFO


def test_every_record_says_whose_it_is(kit, application):
    """A LogRecord carries the identifiers as flat attributes, numbered within the attempt."""
    with kit.log.block() as logger:
        logger.info("one")
        logger.info("two")
    state = vars(application.collector.records[1])
    assert state["triggers.uid"] == "respondent-17"
    assert state["triggers.task"] == "t_importSubject"
    assert state["triggers.instance"] == "t_importSubject#0"
    assert (state["triggers.attempt"], state["triggers.seq"]) == (2, 2)
    assert (state["context"], state["truncated"]) == ({}, ())
    assert [entry.seq for entry in kit.finish()] == [1, 2]


@pytest.mark.parametrize(
    "mute",
    [
        lambda logger: logging.disable(logging.CRITICAL),
        lambda logger: logger.setLevel(logging.ERROR),
        lambda logger: setattr(logger, "disabled", True),
        lambda logger: logging.config.dictConfig({"version": 1, "disable_existing_loggers": True}),
        lambda logger: logger.addFilter(lambda record: False),
        lambda logger: logging.getLogger().manager.__setattr__("disable", logging.CRITICAL),
    ],
    ids=["logging.disable", "level", "disabled", "dictConfig", "filter", "manager.disable"],
)
@pytest.mark.parametrize("when", ["before", "after"])
def test_no_configuration_hides_a_record(kit, application, mute, when):
    """Whatever the application's logging is set to, and whenever, a warning is recorded; only handlers miss it."""
    try:
        if when == "before":
            mute(application)
        with kit.log.block() as logger:
            if when == "after":
                logger.debug("fills the cache of levels")
                logger.setLevel(logging.NOTSET)
                mute(application)
            assert logger.isEnabledFor(logging.WARNING)
            logger.warning("Odd answer")
            logger.info("Read")
    finally:
        logging.disable(logging.NOTSET)
        application.disabled = False
    assert [entry.message for entry in kit.finish()] == ["Odd answer", "Read"]
    assert kit.log.current_log_level == logging.WARNING
    assert application.collector.records == []


def test_below_the_record_level_the_application_decides(make, application):
    """A record below the record level counts exactly if the application's logger takes it."""
    kit = make(record_level="WARNING")
    application.setLevel(logging.WARNING)
    with kit.log.block() as logger:
        logger.info("nobody wants this")
        assert not logger.isEnabledFor(logging.INFO)
        application.setLevel(logging.DEBUG)
        logger.debug("the application wants this")
    with kit.log.block(record_level=logging.DEBUG) as logger:
        application.setLevel(logging.ERROR)
        logger.debug("the block wants this")
    assert [entry.message for entry in kit.finish()] == ["the application wants this", "the block wants this"]
    assert [record.getMessage() for record in application.collector.records] == ["the application wants this"]


def test_a_logger_that_decides_in_its_own_way_is_asked(make, name):
    """A logger class of the application that overrides isEnabledFor is asked every time."""

    class Moody(logging.Logger):
        mood = False

        def isEnabledFor(self, level):  # noqa: N802 - the standard library's name
            return self.mood

    moody = Moody(name)
    kit = make(record_level=logging.CRITICAL)
    with kit.log.block(moody) as logger:
        logger.info("bad mood")
        moody.mood = True
        logger.info("good mood")
    assert [entry.message for entry in kit.finish()] == ["good mood"]


def wrapper(logger, message):
    logger.warning(message, stacklevel=2)


def test_the_caller_is_the_caller(kit, application):
    """File, line and function are those of the call: direct, through a wrapper, an adapter, `exception`, `log`."""
    with kit.log.block() as logger:
        lines = [here() + 1]
        logger.info("direct")
        lines.append(here() + 1)
        wrapper(logger, "wrapped")
        lines.append(here() + 1)
        logging.LoggerAdapter(logger, {}).info("adapted")
        lines.append(here() + 1)
        logger.exception("no exception at hand")  # noqa: LOG004 - as it is meant
        lines.append(here() + 1)
        logger.log(logging.INFO, "log")
        lines.append(here() + 1)
        logger.bind(page=1).info("bound")
    entries = kit.finish()
    assert [entry.lineno for entry in entries] == lines
    assert {entry.function for entry in entries} == {"test_the_caller_is_the_caller"}
    assert {entry.pathname for entry in entries} == {__file__}
    shown = application.collector.records
    assert [(record.lineno, record.funcName) for record in shown] == [(e.lineno, e.function) for e in entries]


class Unwritable:
    def __str__(self):
        raise RuntimeError

    __repr__ = __str__


@pytest.mark.parametrize(
    ("message", "args"),
    [
        ("%s %s", ("one",)),
        ("%d", ("one",)),
        ("no place", ("one",)),
        ("%(a)s", ({"b": 1},)),
        ("%", (1,)),
        ("%s", (Unwritable(),)),
        (Unwritable(), ()),
        (None, ()),
        (b"bytes", ()),
        ("100%", ()),
        (ValueError("as a message"), ()),
    ],
)
def test_a_wrong_message_is_recorded_anyway(kit, application, message, args):
    """Wrong arguments, and messages that are no text, are neither raised nor lost."""
    with kit.log.block() as logger:
        logger.warning(message, *args)
    (entry,) = kit.finish()
    (record,) = application.collector.records
    assert entry.message
    assert record.getMessage() == entry.message


def test_arguments_are_asked_for_their_text_once(kit, application):
    """An object that is filled into a message is asked once, and handlers still see the template."""

    class Counting:
        asked = 0

        def __str__(self):
            self.asked += 1
            return "text"

    counting = Counting()
    with kit.log.block() as logger:
        logger.info("It is %s", counting)
        logger.info("It is %r", [1])
        logger.info("%(a)s and %(a)s", {"a": 1})
    (first, *others) = application.collector.records
    assert counting.asked == 1
    assert (first.msg, first.args) == ("It is %s", ("text",))
    assert [record.getMessage() for record in others] == ["It is [1]", "1 and 1"]
    assert [entry.template for entry in kit.finish()] == ["It is %s", "It is %r", "%(a)s and %(a)s"]


def test_levels_by_name_and_of_ones_own(kit):
    """`log` takes a level's name too; an unknown one counts as WARNING, a number of one's own as it is."""
    with kit.log.block() as logger:
        logger.log("error", "by name")
        logger.log("nonsense", "unknown")
        logger.log(25, "own")
    assert [entry.level for entry in kit.finish()] == [40, 30, 25]


def test_a_record_made_elsewhere(kit, application):
    """A LogRecord that is handed to the logger is recorded and handed on as if it had been logged there."""
    record = logging.LogRecord(
        "elsewhere", logging.WARNING, "file.py", 7, "made %s", ("there",), None, "function"
    )
    record.context = {"page": 1}
    record.request_id = "r1"
    with kit.log.block({"block": 1}) as logger:
        logger.handle(record)
    (entry,) = kit.finish()
    assert (entry.message, entry.pathname, entry.lineno, entry.function) == (
        "made there",
        "file.py",
        7,
        "function",
    )
    assert entry.context == {"block": 1, "request_id": "r1", "page": 1}
    assert application.collector.records[0].request_id == "r1"


def test_records_after_the_block_are_late(kit):
    """A logger that outlives its block goes on recording, and says so."""
    with kit.log.block() as logger:
        logger.info("in time")
    logger.info("too late")
    assert [(entry.message, entry.late) for entry in kit.finish()] == [("in time", False), ("too late", True)]


def test_odd_names_and_places_can_be_stored(kit):
    """Names, files and levels that no database would take are made fit."""
    record = logging.makeLogRecord({"levelno": 10**30, "pathname": None, "lineno": "x", "msg": "made"})
    logging.getLogger("odd \ud800 name").propagate = False  # what pytest captures has to be text
    with kit.log.block(name="odd \ud800 name") as logger:
        logger.handle(record)
        logger.log(10**30, "high")
        logger.log(-5, "low")
        record.pathname = "file \ud800.py"
        logger.handle(record)
    made, high, there = kit.finish()
    assert (made.level, made.lineno, high.level) == (1_000_000, 0, 1_000_000)
    assert (there.logger, there.pathname) == ("odd \\ud800 name", "file \\ud800.py")


def test_a_clock_that_fails(make, capsys):
    """Without a clock, records get the last time that it gave."""
    kit = make()
    with kit.log.block() as logger:
        logger.info("in time")
        time = kit.clock.pop()
        logger.info("without a clock")
    assert [(entry.message, entry.at) for entry in kit.finish()] == [
        ("in time", time),
        ("without a clock", time),
    ]
    assert "IndexError" in capsys.readouterr().err
