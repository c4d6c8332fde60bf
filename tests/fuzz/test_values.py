"""Whatever is given as kwargs: refused with an InvalidValueError, or kept, and then it comes back as it was."""

from __future__ import annotations

import tracemalloc
from datetime import UTC
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import junk
from triggers import Triggers
from triggers.core.values import decode, encode
from triggers.exceptions import InvalidValueError
from triggers.testing.conformance import strategies

#: Longest message about a value, in characters.
LONGEST = 2_000


def alike(one: Any, other: Any) -> bool:
    """Whether two values are the same data of the same types."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(alike, one, other))
    return repr(one) == repr(other)


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
    assert not written or alike(decode(written), value)
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
            assert alike(dict(manager.storage.latest_kwargs("a")), {"value": make()}), what
            assert alike(dict(manager.storage.metadata), {"value": make()}), what
