"""Whatever is given as kwargs: refused with an InvalidValueError, or kept, and then it comes back as it was."""

from __future__ import annotations

import tracemalloc
from collections import UserString
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from tests.fuzz import junk
from triggers import Triggers
from triggers.core.values import decode, encode
from triggers.exceptions import InvalidValueError
from triggers.testing.conformance import strategies
from triggers.testing.conformance.model import same

#: Longest message about a value, in characters.
LONGEST = 2_000


def taken(value: Any) -> Any:
    """What must come back of a value that is kept."""
    if isinstance(value, Enum):
        return taken(value.value)
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: taken(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, BaseModel):
        return taken(value.model_dump())
    if isinstance(value, str | UserString):
        return "".join(str(value))
    for kind in (
        bool,
        int,
        float,
        tuple,
        frozenset,
        AbstractSet,
        Mapping,
        bytes | bytearray | memoryview,
        Sequence,
    ):
        if isinstance(value, kind):
            return BACK[kind](value)
    return BACK.get(next((kind for kind in NEARLY if isinstance(value, kind)), None), lambda same: same)(
        value
    )


NEARLY = (UUID, Decimal, datetime)
BACK: dict[Any, Any] = {
    bool: bool,
    int: int.__int__,
    float: float.__float__,
    tuple: lambda value: tuple(map(taken, value)),
    frozenset: lambda value: frozenset(map(taken, value)),
    AbstractSet: lambda value: set(map(taken, value)),
    Mapping: lambda value: {taken(key): taken(item) for key, item in value.items()},
    bytes | bytearray | memoryview: bytes,
    Sequence: lambda value: [taken(item) for item in value],
    UUID: lambda value: UUID(int=value.int),
    Decimal: lambda value: Decimal(value.as_tuple()),
    datetime: lambda value: datetime.fromisoformat(value.isoformat()),
}


def kept(value: Any) -> bool:
    """Whether a value is kept, and then comes back; whatever else happens but a refusal fails the test."""
    refusal, written = "kwargs", ""
    try:
        written = encode(value, "kwargs")
    except InvalidValueError as error:
        refusal = str(error)
    assert refusal.startswith("kwargs")
    assert len(refusal) < LONGEST
    written.encode()
    assert not written or same(decode(written), taken(value))
    return bool(written)


@given(junk.anything())
def test_anything_at_all_is_refused_by_name_or_comes_back(value):
    """Only InvalidValueError is ever raised, and what is kept comes back equal, in type, too."""
    kept(value)


@given(strategies.values() | junk.anything())
@settings(max_examples=50)
def test_what_is_kept_is_kept_the_same_twice(value):
    """Writing what came back gives the same text."""
    if kept(value):
        written = encode(value, "kwargs")
        assert encode(decode(written), "kwargs") == written


PLACES = {
    "as the value": lambda value: value,
    "in a dict": lambda value: {"a": value},
    "in a list": lambda value: [1, value],
    "deep within": lambda value: {"a": [{"b": [1, {"c": value}]}]},
}


@pytest.mark.parametrize("what", junk.REFUSED)
@pytest.mark.parametrize("place", PLACES)
def test_what_cannot_come_back_is_refused(place, what):
    """Whatever would come back as something else, or not at all, is refused wherever it stands."""
    assert not kept(PLACES[place](junk.REFUSED[what]()))


@pytest.mark.parametrize("what", junk.KEPT)
@pytest.mark.parametrize("place", PLACES)
def test_what_can_come_back_is_kept(place, what):
    """Odd values that JSON, or the library's own marks, can carry come back as they were."""
    assert kept(PLACES[place](junk.KEPT[what]()))


@pytest.mark.parametrize("what", junk.TAKEN)
@pytest.mark.parametrize("place", PLACES)
def test_what_is_nearly_a_value_comes_back_as_its_plain_data(place, what):
    """Subclasses, other mappings and sequences, enums, dataclasses and models are kept as what they are made of."""
    make, back = junk.TAKEN[what]
    value = PLACES[place](make())
    assert kept(value)
    assert same(decode(encode(value, "kwargs")), PLACES[place](back))


@pytest.mark.parametrize("what", junk.EITHER)
def test_a_time_in_a_named_zone_comes_back_as_the_same_moment_with_its_offset(what):
    """The zone's name has no place in what is stored; the moment, the clock's face and the offset have."""
    value = junk.EITHER[what]()
    again = decode(encode(value, "kwargs"))
    assert again.astimezone(UTC) == value.astimezone(UTC)
    assert again.utcoffset() == value.utcoffset()
    assert again.replace(tzinfo=None) == value.replace(tzinfo=None)


@pytest.mark.parametrize("depth", [1, 99, 100, 101, 1_000, 100_000])
def test_a_hundred_levels_are_kept_and_no_more(depth):
    """The limit is exact, and the message says what is wrong."""
    assert kept(junk.nested(depth)) == (depth <= 100)


@pytest.mark.parametrize("depth", [1, 99, 100, 101, 1_000, 100_000])
def test_containers_that_json_lacks_nest_as_deep_as_others(depth):
    """A hundred tuples are kept, though each of them takes two levels as stored."""
    assert kept(junk.nested_tuples(depth)) == (depth <= 100)


@given(st.integers(0, 3), st.sampled_from(["x", "é", "\U0001f600", "\\", "\0", '"']))
@settings(max_examples=30)
def test_the_limit_of_size_counts_bytes_as_stored(more, letter):
    """A text of exactly the limit is kept; one of a byte more is refused."""
    width = len(encode(letter, "kwargs").encode()) - 2
    count = (1024 * 1024 - 2) // width
    assert kept(letter * count)
    assert not kept(letter * (count + 1 + more))


def test_memory_stays_bounded_by_what_is_given():
    """Refusing 64 MB of text takes less than four times its size."""
    value = {"text": "x" * 64_000_000}
    tracemalloc.start()
    assert not kept(value)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4 * 64_000_000


@pytest.mark.parametrize("url", ["memory://", "sqlite"])
def test_a_refused_firing_changes_nothing_and_a_kept_one_comes_back(url, tmp_path):
    """Through fire, replay, skip and metadata: refused kwargs leave no trace, kept ones are read as they were."""
    with Triggers(f"sqlite:///{tmp_path}/a.db" if url == "sqlite" else url, runner=None) as triggers:
        manager = triggers.session("one")
        for what, make in junk.REFUSED.items():
            with pytest.raises(InvalidValueError):
                manager.fire("a", {"a": make()})
            with pytest.raises(InvalidValueError):
                manager.update_session_metadata({"a": make()})
            assert not manager.storage.exists, what
        for make in junk.NO_MAPPINGS.values():
            with pytest.raises(InvalidValueError):
                manager.fire("a", make())
        assert not manager.storage.exists
        for what, make in junk.KEPT.items():
            manager.fire("a", {"value": make()})
            manager.update_session_metadata({"value": make()})
            assert same(manager.storage.latest_kwargs["a"], {"value": make()}), what
            assert same(manager.storage.metadata, {"value": make()}), what
