"""What the context of a record is: merged layers, `extra`, and values that are hostile."""

from __future__ import annotations

import collections.abc
import logging
import logging.config

from triggers.exceptions import with_context
from triggers.logs import current_logger


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
