from __future__ import annotations

import asyncio
import collections.abc
import contextvars
import logging
import logging.config
import threading
from concurrent.futures import ThreadPoolExecutor
from inspect import currentframe

import pytest

from triggers.exceptions import with_context
from triggers.logs import TriggersLogger, bind, current_logger, detached, propagate


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


def test_contexts_are_merged_deep_and_the_later_wins(make):
    """Manager, task, block, bind, call: each level is merged over the one before, objects within objects too."""
    layers = [{"deep": {str(level): level, "last": level}, "list": [level]} for level in range(5)]
    before = str(layers)
    kit = make(context=layers[0], task_context=layers[1])
    with kit.log.block(layers[2]) as logger:
        logger.bind(layers[3]).info("all", context=layers[4])
        logger.info("block")
    full, block = kit.finish()
    assert full.context == {"deep": {**{str(level): level for level in range(5)}, "last": 4}, "list": [4]}
    assert block.context == {"deep": {"0": 0, "1": 1, "2": 2, "last": 2}, "list": [2]}
    assert str(layers) == before


def test_context_is_copied_when_it_is_logged(kit, application):
    """Neither the caller nor a handler can change what was recorded afterwards."""
    page = {"answers": [1], "page": {"number": 1}}
    with kit.log.block({"block": {"x": 1}}) as logger:
        logger.info("first", context=page)
        page["answers"].append(2)
        page["page"]["number"] = 2
        application.collector.records[0].context["block"]["x"] = 2
        application.collector.records[0].context["answers"].append(3)
        logger.info("second")
    first, second = kit.finish()
    assert first.context == {"block": {"x": 1}, "answers": [1], "page": {"number": 1}}
    assert second.context == {"block": {"x": 1}}


def test_ways_to_give_context(kit):
    """`context=`, `extra["context"]`, `extras=`, other keys of `extra` and unknown keywords all become context."""
    with kit.log.block() as logger:
        logger.info("a", extra={"page": 1, "context": {"x": 1}}, context={"y": 2})
        logger.info("b", extras={"context": {"x": 1}})
        logger.info("c", page=3)
        logger.info("d", extra={"context": {"x": 1, "y": 1}}, context={"y": 2})
        logger.info("e", extra="not a mapping", context="neither")
    assert [entry.context for entry in kit.finish()] == [
        {"page": 1, "x": 1, "y": 2},
        {"x": 1},
        {"page": 3},
        {"x": 1, "y": 2},
        {"extra": "not a mapping", "context": "neither"},
    ]


def test_extra_that_clashes_is_renamed(kit, application):
    """A key of `extra` that every LogRecord has keeps its name in the context and gets another on the record."""
    clashing = [*vars(logging.makeLogRecord({})), "message", "asctime", "truncated", "triggers.uid"]
    with kit.log.block() as logger:
        logger.info("said", extra=dict.fromkeys(clashing, "mine"))
    (entry,) = kit.finish()
    (record,) = application.collector.records
    assert entry.context == dict.fromkeys(clashing, "mine")
    assert (record.getMessage(), record.name, record.lineno) == ("said", application.name, entry.lineno)
    assert all(vars(record)[f"extra_{key}"] == "mine" for key in clashing)


def test_extra_is_an_attribute_for_the_applications_formats(kit, application):
    """A format of the application may use a key of `extra`, and gets it sanitised."""
    with kit.log.block() as logger:
        logger.info("said", extra={"request_id": "r1", "password": "hunter22"})
    (record,) = application.collector.records
    assert logging.Formatter("%(request_id)s %(password)s %(message)s").format(record) == "r1 [redacted] said"


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
    """Filters, a level, handlers and `propagate` of the block's logger concern the handing over only."""
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


def test_nested_blocks_share_context(kit):
    """An inner block has the context of the outer one too; after it the outer one is as before."""
    with kit.log.block({"outer": 1}) as outer:
        with kit.log.block({"inner": 2}) as inner:
            assert current_logger() is inner
            inner.info("inner")
        assert current_logger() is outer
        outer.info("outer")
    with kit.log.block() as other:
        other.info("other")
    assert [entry.context for entry in kit.finish()] == [{"outer": 1, "inner": 2}, {"outer": 1}, {}]


def test_the_current_logger(kit, name):
    """Below a block the current logger is the block's; outside it hands on and records nothing."""

    def helper():
        current_logger().info("helper")
        current_logger(f"{name}.module").info("module")
        bind(step=2).info("bound")

    with kit.log.block({"block": 1}):
        helper()
    assert [(entry.logger, entry.context) for entry in kit.finish()] == [
        (name, {"block": 1}),
        (f"{name}.module", {"block": 1}),
        (name, {"block": 1, "step": 2}),
    ]


def test_outside_of_a_block_it_is_a_plain_logger(caplog):
    """Outside, the calling module's logger gets everything, with its context."""
    with caplog.at_level(logging.INFO):
        current_logger().info("plain %s", 1, context={"password": "hunter22"})
        bind(page=1).warning("bound")
    assert [(record.name, record.getMessage()) for record in caplog.records] == [
        (__name__, "plain 1"),
        (__name__, "bound"),
    ]
    assert caplog.records[0].context == {"password": "[redacted]"}


def test_caplog_sees_the_records(kit, caplog):
    """The fixture of pytest works: records arrive at the root logger."""
    with caplog.at_level(logging.INFO), kit.log.block() as logger:
        logger.info("seen", context={"page": 1})
    assert [(record.getMessage(), record.context) for record in caplog.records] == [("seen", {"page": 1})]


def test_threads_get_the_logger_by_propagate(kit):
    """A thread has no current logger of its own; `propagate` carries the block's, as often as it is called."""

    def work(number):
        current_logger().info("work", context={"number": number})

    with kit.log.block({"block": 1}), ThreadPoolExecutor(4) as pool:
        list(pool.map(propagate(work), range(20)))
        pool.submit(work, 99).result()
    assert sorted(entry.context["number"] for entry in kit.finish()) == list(range(20))


def test_asyncio_tasks_have_their_own_blocks(kit):
    """A plain `with` works in coroutines: tasks inherit the block they are begun in, and do not see each other's."""

    async def work(number, gate):
        with kit.log.block({"number": number}) as logger:
            gate.set() if number else await gate.wait()
            assert current_logger() is logger
            current_logger().info("work")

    async def main():
        gate = asyncio.Event()
        with kit.log.block({"outer": 1}):
            await asyncio.gather(work(0, gate), work(1, gate))
            current_logger().info("main")

    asyncio.run(main())
    assert [entry.context for entry in kit.finish()] == [
        {"outer": 1, "number": 1},
        {"outer": 1, "number": 0},
        {"outer": 1},
    ]


def test_propagate_keeps_coroutine_functions(kit):
    """A coroutine function stays one, and has the logger while it runs."""

    async def work():
        await asyncio.sleep(0)
        current_logger().info("work")

    with kit.log.block():
        carried = propagate(work)
    contextvars.Context().run(asyncio.run, carried())
    (entry,) = kit.finish()
    assert entry.late


def test_a_block_of_an_asynchronous_generator_may_end_elsewhere(kit):
    """A block that is left in another context than it was entered in is no error."""

    async def generate():
        with kit.log.block() as logger:
            logger.info("begun")
            yield 1

    async def main():
        generator = generate()
        await asyncio.create_task(anext(generator))
        await generator.aclose()

    asyncio.run(main())
    assert [entry.message for entry in kit.finish()] == ["begun"]


def test_sixteen_threads_on_one_logger(kit, application):
    """No record of 16 threads is lost, counted twice or given another's number."""
    start = threading.Barrier(16)

    def work(logger, thread):
        start.wait()
        for number in range(40):
            logger.info("%s of %s", number, thread)
            if number == 20:
                logger.warning("odd")

    with kit.log.block() as logger:
        threads = [threading.Thread(target=work, args=(logger, thread)) for thread in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    entries = kit.finish()
    assert kit.counts == {logging.INFO: 640, logging.WARNING: 16}
    assert len(entries) + kit.dropped == 656
    assert len({entry.seq for entry in entries}) == len(entries)
    assert len(application.collector.records) == 656


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


def test_the_exceptions_context_lies_between_the_blocks_and_the_calls(kit):
    """In the record of a logged exception its context goes over the block's, and the call's over both."""
    with kit.log.block({"a": "block", "b": "block", "c": "block"}) as logger:
        try:
            raise with_context(ValueError("x"), {"b": "exception", "c": "exception"})
        except ValueError:
            logger.exception("failed", context={"c": "call"})
    (entry,) = kit.finish()
    assert entry.context == {"a": "block", "b": "exception", "c": "call"}
    assert entry.exception["context"] == {"b": "exception", "c": "exception"}


class HostileMapping(dict):
    """Cannot be read at all."""

    def __iter__(self):
        raise RuntimeError

    keys = items = get = pop = __getitem__ = __iter__


def test_hostile_extra_costs_the_context_not_the_record(kit):
    """An `extra` that raises when it is read leaves a mark; the record and its level are kept."""

    class Unreadable(collections.abc.Mapping):
        __iter__ = __getitem__ = __len__ = HostileMapping.__iter__

    with kit.log.block() as logger:
        logger.warning("said", extra=Unreadable())
        logger.warning("said", extra=HostileMapping(page=1), context=HostileMapping(page=1))
    first, second = kit.finish()
    assert first.context == {"context": "<could not be recorded: RuntimeError>"}
    assert second.context
    assert kit.counts == {logging.WARNING: 2}


def test_hostile_context_of_a_block(kit):
    """Contexts of blocks and of `bind` that cannot be read, or are no mappings, do not stop the task."""

    class Unreadable(collections.abc.Mapping):
        __iter__ = __getitem__ = __len__ = __bool__ = HostileMapping.__iter__

    with kit.log.block(Unreadable(), context=HostileMapping(page=1)) as logger:
        logger.bind(Unreadable(), page=2).info("said", extras=Unreadable(), page=3)
        logger.bind("odd").info("said")
    first, second = kit.finish()
    assert first.context["page"] == 3
    assert second.context["context"] == "odd"


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


def test_what_runs_detached_is_outside(kit):
    """Inside `detached` there is no current logger; after it there is again."""
    with kit.log.block() as logger:
        with detached():
            current_logger().warning("outside")
        assert current_logger() is logger
    assert kit.finish() == []
