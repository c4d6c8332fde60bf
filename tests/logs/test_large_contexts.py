"""A large context never removes from a record what identifies it.

The layers are those of manager, task, block, bind, exception, `extra` and call. Whichever of them is large is
cut, whether it has large values, many values, or many keys, and the record says what is missing.
"""

from __future__ import annotations

import json

import pytest

from triggers.exceptions import with_context
from triggers.logs import LogSettings
from triggers.logs.sanitizing.plain import merged
from triggers.logs.sanitizing.sanitizer import Sanitizer, sanitizer
from triggers.logs.sanitizing.walk import RESERVE

SETTINGS = LogSettings()
PAYLOADS = {
    "texts": {f"text_{number}": "x" * 5_000 for number in range(9)},
    "one tree": {"payload": [{"row": [f"cell {number}" * 9 for number in range(20)]} for _ in range(20)]},
    "nodes": {"payload": [[0] * 40 for _ in range(60)]},
    "keys": {f"key_{number}": number for number in range(5_000)},
    "middling": {f"value_{number}": "y" * 170 for number in range(99)},
}
IDENTIFYING = {"app_version": "3.1.4", "note": "n" * 300, "respondent": {"id": 17, "survey": 96}}
TASK, BLOCK = {"task_kind": "import"}, {"page": 3}
IDENTITY = {**IDENTIFYING, **TASK, **BLOCK}


def in_call(kit, payload):
    with kit.log.block(BLOCK) as logger:
        logger.info("said", context=payload)


def in_extra(kit, payload):
    with kit.log.block(BLOCK) as logger:
        logger.info("said", extra=payload)


def in_bind(kit, payload):
    with kit.log.block(BLOCK) as logger:
        logger.bind(payload).info("said")


def in_outer_block(kit, payload):
    with kit.log.block(payload), kit.log.block() as logger:
        logger.info("said", context=BLOCK)


def in_exception(kit, payload):
    with kit.log.block(BLOCK) as logger:
        logger.warning("said", exc_info=with_context(ValueError("bad"), payload))


def everywhere(kit, payload):
    with kit.log.block(payload), kit.log.block(BLOCK) as logger:
        logger.bind({f"bound_{key}": value for key, value in payload.items()}).info("said", context=payload)


def said(make, say, payload):
    """The record of a call, one of whose contexts is the payload."""
    kit = make(context=IDENTIFYING, task_context=TASK)
    say(kit, payload)
    (entry,) = kit.finish()
    return entry


WAYS = [in_call, in_extra, in_bind, in_outer_block, in_exception]


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
@pytest.mark.parametrize("say", WAYS)
def test_what_identifies_the_record_stays_whole(make, application, say, payload):
    """The small contexts are complete, for the storage and for handlers, and the record keeps to its size."""
    entry = said(make, say, payload)
    assert {key: entry.context.get(key) for key in IDENTITY} == IDENTITY
    assert len(json.dumps(entry.context).encode()) <= SETTINGS.max_context
    assert len(entry.context) <= SETTINGS.max_items
    (record,) = application.collector.records
    assert (record.context, record.truncated) == (entry.context, entry.truncated)


@pytest.mark.parametrize("kind", ["texts", "one tree", "nodes", "keys"])
def test_several_large_contexts_leave_room_for_the_small_ones(make, kind):
    """A payload in a block, in a bind and in the call at once: the small contexts are complete."""
    entry = said(make, everywhere, PAYLOADS[kind])
    assert {key: entry.context.get(key) for key in IDENTITY} == IDENTITY
    assert len(json.dumps(entry.context).encode()) <= SETTINGS.max_context


@pytest.mark.parametrize("payload", [PAYLOADS["texts"], PAYLOADS["one tree"]], ids=["texts", "one tree"])
def test_a_large_value_does_not_remove_a_small_one_of_its_own_block(make, payload):
    """What is small stays, whether it comes before or after what is large, if another context needs room."""
    kit = make()
    with kit.log.block(payload), kit.log.block({"page": 3}) as logger:
        logger.info("said", context={"call": "c" * 2_000})
    (entry,) = kit.finish()
    assert entry.context["page"] == 3
    assert entry.context["call"] == "c" * 2_000


def test_the_record_says_what_went(make):
    """`truncated` has the path of each item that is missing, and of each value that is cut."""
    payload = {f"text_{number}": "x" * 4_000 for number in range(4)}
    entry = said(make, in_call, payload)
    missing = {f"context.{key}" for key in payload.keys() - entry.context.keys()}
    cut = {f"context.{key}" for key in payload if len(entry.context.get(key, "")) != 4_000}
    assert missing | cut == set(entry.truncated)
    assert cut
    payload = {f"value_{number}": "y" * 165 for number in range(86)}
    entry = said(make, in_call, payload)
    assert payload.keys() - entry.context.keys()
    assert {f"context.{key}" for key in payload if entry.context.get(key) != payload[key]} == set(
        entry.truncated
    )
    assert entry.context["…"] == "[truncated items]"


def test_what_fits_is_not_cut(make):
    """Contexts that fill the room together are stored whole."""
    payload = {f"text_{number}": "x" * 4_000 for number in range(3)}
    entry = said(make, in_call, payload)
    assert (entry.context, entry.truncated) == ({**IDENTITY, **payload}, ())


def lower_first(self, under, over):
    """Cut the lower context to what the upper one leaves."""
    budget = self.settings.max_context - self.measure(over.data) - RESERVE
    walk = self._second_walk((), budget, self.settings.max_nodes - over.nodes)
    walk.top_items = max(self.settings.max_items - len(over.data) - 1, 0)
    rest = walk.result(walk.value(under.data, 0))
    return walk.result(merged(rest.data, over.data))


def test_without_the_order_of_cuts_the_identity_is_lost(make, monkeypatch):
    """A mutant: if the lower context is always cut, a payload of the call removes what identifies the record."""
    monkeypatch.setattr(Sanitizer, "_squeezed", lower_first)
    sanitizer.cache_clear()
    entry = said(make, in_call, PAYLOADS["middling"])
    assert {key: entry.context.get(key) for key in IDENTITY} != IDENTITY
