from __future__ import annotations

import asyncio
import logging
import logging.config
import threading

import pytest

from triggers import Registry, Triggers, task
from triggers.exceptions import with_context
from triggers.logs import LogSettings, mask_secret, propagate
from triggers.logs.capture import CAPTURER


@pytest.fixture
def library(name):
    """Another logger of the process, at DEBUG, that nobody else listens to."""
    logger = logging.getLogger(f"library_{name}.engine")
    logger.setLevel(logging.DEBUG)
    logger.propagate = False
    yield logger
    assert CAPTURER not in logger.handlers


def messages(kit):
    return [entry.message for entry in kit.finish()]


def test_what_a_chosen_logger_says_in_the_block_is_kept(kit, library):
    """With its own name, place and level and the block's context, and no longer when the block has ended."""
    with kit.log.block({"page": 3}, capture=[library.name]):
        library.info("SELECT %s", 1, extra={"rows": 7})
        library.getChild("Engine").warning("slow")
    library.info("after")
    first, second = kit.finish()
    assert (first.message, first.template, first.level) == ("SELECT 1", "SELECT %s", logging.INFO)
    assert (first.logger, first.context) == (library.name, {"page": 3, "rows": 7})
    assert (first.pathname, first.function) == (
        __file__,
        "test_what_a_chosen_logger_says_in_the_block_is_kept",
    )
    assert (second.logger, second.message) == (f"{library.name}.Engine", "slow")


def test_it_does_not_count(kit, library):
    """Neither level nor counts nor a review come from it, however bad it is, and it is not written at once."""
    with kit.log.block(capture=[library.name]) as logger:
        library.critical("broken")
        assert kit.batches == []
        logger.info("fine")
    assert messages(kit) == ["broken", "fine"]
    assert kit.log.current_log_level == logging.INFO
    assert kit.counts == {logging.NOTSET: 1, logging.INFO: 1}
    assert [entry.counts for entry in kit.entries] == [False, True]


def test_it_counts_if_asked_to(make, library):
    """For a block, or by the settings of a manager."""
    kit = make(capture=(library.name,), capture_counts=True)
    with kit.log.block(capture_counts=False):
        library.warning("not this one")
    with kit.log.block():
        library.warning("this one")
    assert kit.counts == {logging.NOTSET: 1, logging.WARNING: 1}
    assert kit.log.current_log_level == logging.WARNING


def test_a_flood_of_it_takes_no_room_from_warnings_of_the_task(make, library):
    """Captured warnings are kept among the first and the latest records; the rest is counted as left out."""
    kit = make(max_records=20, max_important=10)
    with kit.log.block(capture=[library.name]) as logger:
        for number in range(50):
            library.warning("noise %s", number)
        for number in range(10):
            logger.warning("mine %s", number)
    said = messages(kit)
    assert [text for text in said if "mine" in text] == [f"mine {number}" for number in range(10)]
    assert len(said) == 20
    assert kit.dropped == 40


def test_a_storage_asks_for_no_review_of_it(library):
    """Stored, it keeps its level, and neither the instance nor the record waits for anybody."""
    registry = Registry()

    @task(name="work", registry=registry)
    def work(context):
        with context.get_logger_context(capture=[library.name]) as logger:
            library.error("broken")
            logger.info("fine")

    with Triggers("memory://", runner="inline", registry=registry) as triggers:
        session = triggers.session("s")
        session.update_configuration({"t_work": {"after": ["go"], "run": "work"}})
        session.fire("go")
        view = session.storage
        assert view["t_work#0"].log_level_name == "INFO"
        assert view.get_instances_with_unresolved_logs() == []
        assert [record.entry.message for record in view.logs(min_level=logging.ERROR)] == ["broken"]
        assert view.logs(min_level=logging.ERROR, unresolved=True) == []


def test_nothing_is_kept_twice(kit, application, library):
    """A logger and one above it, nested blocks that both capture, and the block's own logger: once each."""
    above = library.parent.name
    library.propagate = True
    with kit.log.block(capture=[library.name, above, "root"]) as logger:
        with kit.log.block({"inner": 1}, capture=[library.name, application.name]) as inner:
            library.info("captured")
            inner.info("own")
        library.info("still captured")
        logger.info("own too")
    library.propagate = False
    assert [(entry.message, "inner" in entry.context) for entry in kit.finish()] == [
        ("captured", True),
        ("own", True),
        ("still captured", False),
        ("own too", False),
    ]


def test_the_flag_of_the_innermost_block_that_captures_it_decides(kit, library):
    """An outer block may let it count while an inner one does not."""
    with kit.log.block(capture=[library.name], capture_counts=True):
        with kit.log.block():
            library.warning("counts")
        with kit.log.block(capture=[library.name]):
            library.error("does not")
    assert len(kit.finish()) == 2
    assert kit.counts == {logging.NOTSET: 1, logging.WARNING: 1}


def test_only_the_context_of_the_block_is_heard(make, library):
    """Other threads and tasks are not, unless the block was propagated to them; each block hears its own."""
    one, other = make(), make()
    ready, done = threading.Event(), threading.Event()

    def elsewhere():
        ready.wait(10)
        library.info("from a thread")
        done.set()

    async def block(kit, text):
        with kit.log.block(capture=[library.name]):
            await asyncio.sleep(0)
            library.info(text)
            await asyncio.sleep(0)

    async def both():
        await asyncio.gather(block(one, "one"), block(other, "other"))
        library.info("outside")

    thread = threading.Thread(target=elsewhere)
    thread.start()
    with one.log.block(capture=[library.name]):
        ready.set()
        done.wait(10)
        thread.join()
        carried = threading.Thread(target=propagate(lambda: library.info("propagated")))
        carried.start()
        carried.join()
    asyncio.run(both())
    assert messages(one) == ["propagated", "one"]
    assert messages(other) == ["other"]


def test_what_recording_itself_says_is_not_captured(make, library):
    """A storage, a clock, and a handler of the application that log while a record is taken: no recursion."""

    def write(batch):
        library.info("writing")

    kit = make(write=write)
    with kit.log.block(capture=[library.name]) as logger:
        logger.warning("one")
        library.warning("two")
    assert messages(kit) == ["two"]


def test_a_handler_that_logs_there_is_not_captured(kit, application, library):
    """What a handler says about a record of the task belongs to the handler."""
    application.collector.emit = lambda record: library.info("handled")
    with kit.log.block(capture=[library.name]) as logger:
        logger.info("one")
    assert messages(kit) == ["one"]


def test_it_is_sanitised_like_any_other(kit, library):
    """Secrets, hostile values and exceptions of a library are treated as the task's own."""
    with kit.log.block(capture=[library.name]):
        mask_secret("hunter22")
        library.info("with hunter22", extra={"password": "x"})
        try:
            raise with_context(ValueError("bad hunter22"), {"page": 3})
        except ValueError:
            library.exception("failed")
    first, second = kit.finish()
    assert "hunter22" not in repr((first, second))
    assert first.context == {"password": "[redacted]"}
    assert (second.exception["type"], second.context) == ("ValueError", {"page": 3})


def test_only_what_the_logger_emits_is_kept(kit, library):
    """Capturing changes no level of the application and no handler of it but its own."""
    library.setLevel(logging.ERROR)
    with kit.log.block(capture=[library.name]):
        library.warning("not emitted")
        assert CAPTURER in library.handlers
    assert messages(kit) == []
    assert library.level == logging.ERROR


def test_blocks_that_overlap_end_one_by_one(make, library):
    """The end of one block does not stop another one from hearing."""
    one, other = make(), make()
    outer = one.log.block(capture=[library.name])
    outer.__enter__()
    with other.log.block(capture=[library.name]):
        pass
    library.info("heard")
    outer.__exit__(None, None, None)
    assert messages(one) == ["heard"]


def test_records_of_a_class_of_the_applications_own(kit, library):
    """Records that can be neither compared nor hashed are kept, too, and nothing is raised into their logger."""

    class Odd(logging.LogRecord):
        __hash__ = None

        def __eq__(self, other):
            raise OSError

    factory = logging.getLogRecordFactory()
    logging.setLogRecordFactory(Odd)
    try:
        with kit.log.block(capture=[library.name]):
            library.info("odd")
    finally:
        logging.setLogRecordFactory(factory)
    assert messages(kit) == ["odd"]


def test_a_configuration_in_the_middle_of_a_block(kit, library):
    """`dictConfig` closes and removes handlers; what comes then is no error, and later blocks hear again."""
    with kit.log.block(capture=[library.name]):
        logging.config.dictConfig({"version": 1, "disable_existing_loggers": False})
        library.info("one")
    with kit.log.block(capture=[library.name]):
        library.info("two")
    assert messages(kit) == ["one", "two"]


def test_a_policy_holds_for_it(make, library):
    """What the settings of the manager say about contexts, they say about captured records."""
    kit = make(context_policy="keys")
    with kit.log.block(capture=[library.name]):
        library.info("SELECT", extra={"who": "Eve"})
    assert kit.finish()[0].context == {"who": "<str>"}


@pytest.mark.parametrize("wrong", ["sqlalchemy", [logging.getLogger("x")], [1]])
def test_what_is_no_list_of_names_is_refused(kit, wrong):
    """A single name would be taken for its letters."""
    with pytest.raises(TypeError, match="list of logger names"):
        kit.log.block(capture=wrong)
    with pytest.raises(TypeError, match="list of logger names"):
        LogSettings(capture=wrong)
