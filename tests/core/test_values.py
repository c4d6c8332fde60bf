"""Values: what goes in comes back equal and of the same type, or is refused with its place."""

from __future__ import annotations

import json
import math
from collections import OrderedDict, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given

from triggers.core.values import DEFAULT_LIMITS, INTEGER_RANGE, Limits, decode, encode, to_datetime
from triggers.exceptions import InvalidValueError
from triggers.testing.conformance import strategies
from triggers.testing.conformance.model import same
from triggers.testing.conformance.values import VALUES


@given(strategies.values())
def test_any_value_comes_back_as_it_went_in(value):
    """Equal, and of the same type at every depth."""
    assert same(decode(encode(value, "kwargs")), value)


@given(strategies.kwargs())
def test_what_is_written_is_json(value):
    """Any reader of JSON can read it: no NaN, no Infinity, no surrogates."""
    text = encode(value, "kwargs")
    assert isinstance(json.loads(text, parse_constant=pytest.fail), dict)
    assert text.encode()


@pytest.mark.parametrize("kind", VALUES)
def test_each_type_comes_back_at_its_edges(kind):
    """The table of every type, one by one."""
    assert same(decode(encode(VALUES[kind], "kwargs")), VALUES[kind])


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (datetime(2026, 1, 2, tzinfo=UTC), '{"$datetime":"2026-01-02T00:00:00+00:00"}'),
        (timedelta(days=-1, microseconds=5), '{"$timedelta":[-1,0,5]}'),
        (Decimal("1.10"), '{"$decimal":"1.10"}'),
        (UUID(int=1), '{"$uuid":"00000000-0000-0000-0000-000000000001"}'),
        (b"\x00", '{"$bytes":"AA=="}'),
        ((1, ("a",)), '{"$tuple":[1,{"$tuple":["a"]}]}'),
        ({2, "b", 1}, '{"$set":["b",1,2]}'),
        (frozenset({None}), '{"$frozenset":[null]}'),
        ({1: "a", "b": {None: 2}}, '{"$dict":[1,"a","b",{"$dict":[null,2]}]}'),
        ({"$date": "x"}, '{"$$date":"x"}'),
        ({"$$": {"$": 1}}, '{"$$$":{"$$":1}}'),
        ({"price": "$5"}, '{"price":"$5"}'),
        ("\N{PILE OF POO}", '"\N{PILE OF POO}"'),
    ],
)
def test_the_form_on_paper_stays_as_it_is(value, text):
    """What earlier versions stored must be read by later ones: the text of each type is fixed."""
    assert encode(value, "kwargs") == text
    assert same(decode(text), value)


def test_a_datetime_with_a_named_zone_comes_back_at_its_offset():
    """It is the same instant with the same offset; the zone's name has no place in it."""
    value = datetime(2026, 7, 1, 12, tzinfo=ZoneInfo("UTC"))
    again = decode(encode(value, "kwargs"))
    assert (again, again.utcoffset()) == (value, value.utcoffset())


class Colour(StrEnum):
    RED = "red"


class Level(IntEnum):
    HIGH = 3


class Tag(Enum):
    PAIR = (1, 2)


class Text(str):
    __slots__ = ()


@dataclass(frozen=True)
class Point:
    x: Any


class Endless(Sequence):
    def __len__(self):
        return 1

    def __getitem__(self, index):
        return index


@pytest.mark.parametrize(
    ("value", "back"),
    [
        (Colour.RED, "red"),
        (Level.HIGH, 3),
        (Tag.PAIR, (1, 2)),
        (Text("x"), "x"),
        (OrderedDict(b=1, a=2), {"b": 1, "a": 2}),
        (defaultdict(list, a=[]), {"a": []}),
        (Point(Point(1)), {"x": {"x": 1}}),
        (bytearray(b"x"), b"x"),
        (range(2), [0, 1]),
        ({Colour.RED: 1, 2: Level.HIGH}, {"red": 1, 2: 3}),
        ({Text("$k"): 2}, {"$k": 2}),
        ({Level.HIGH, Text("x"), Tag.PAIR}, {3, "x", (1, 2)}),
    ],
)
def test_what_is_made_of_other_values_comes_back_as_those(value, back):
    """Subclasses as their base, other mappings and sequences as dict and list, the rest as its plain data."""
    assert same(decode(encode({"v": value}, "kwargs")), {"v": back})


def test_a_mapping_keeps_the_order_of_its_keys():
    """Whatever the keys are."""
    value = {3: 1, "b": 2, None: 3, "a": 4, (2, 1): 5, 1: 6}
    assert list(decode(encode(value, "kwargs"))) == list(value)


def test_equal_sets_are_the_same_text():
    """The order in which a set happens to be read is no data."""
    words = [f"word {number}" for number in range(100)]
    backwards = words[::-1]
    assert encode(set(words), "kwargs") == encode(set(backwards), "kwargs")


def test_what_an_earlier_version_stored_is_read_as_it_was():
    """Its keys were escaped already, so that no object of a user's is taken for one of the later types."""
    stored = (
        '{"a":{"$$tuple":[1]},"b":{"$$set":[1]},"c":{"$$dict":[1,2]},"d":{"$date":"2026-01-02"},"e":{"$$":1}}'
    )
    assert decode(stored) == {
        "a": {"$tuple": [1]},
        "b": {"$set": [1]},
        "c": {"$dict": [1, 2]},
        "d": date(2026, 1, 2),
        "e": {"$": 1},
    }


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (1j, "kwargs.v: cannot store a complex; JSON values, dates, times, Decimal, UUID, bytes, tuples, "),
        (object, "kwargs.v: cannot store a type; "),
        (math.nan, "kwargs.v: JSON cannot represent nan"),
        (math.inf, "kwargs.v: JSON cannot represent inf"),
        (-math.inf, "kwargs.v: JSON cannot represent -inf"),
        (Decimal("NaN"), "kwargs.v: Decimal('NaN') is not a number"),
        (Decimal("sNaN"), "is not a number"),
        (Decimal("-Infinity"), "is not a number"),
        (INTEGER_RANGE[0] - 1, "kwargs.v: an integer of more than 64 bits; send it as a string"),
        (INTEGER_RANGE[1] + 1, "kwargs.v: an integer of more than 64 bits; send it as a string"),
        (10**400, "kwargs.v: an integer of more than 64 bits"),
        (Path("a"), "kwargs.v: cannot store a pathlib.PosixPath"),
        ({1: 1j}, "kwargs.v[1]: cannot store a complex"),
        ({1j: 1}, "kwargs.v[1j]: cannot store a complex"),
        ((1, {2: {"deep": (object,)}}), "kwargs.v[1][2].deep[0]: cannot store a type"),
        ({"a", 1j}, "kwargs.v[1j]: cannot store a complex"),
        ({(1, Point(1))}, "a tuple cannot be stored as a key or in a set: it would come back as a list"),
        ({Tag.PAIR: 1, (1, 2): 2}, "kwargs.v: two of its keys would be the same when they come back"),
        (OrderedDict(a=math.nan), "kwargs.v.a: JSON cannot represent nan"),
        (Point(Point(math.nan)), "kwargs.v.x.x: JSON cannot represent nan"),
        (Endless(), "kwargs.v: a tests.core.test_values.Endless of more than 1,000,000 items"),
        ((1, {"b": "\udfff"}), "kwargs.'v'[1].'b': the text has a lone surrogate"),
        ([0, {"deep": [math.nan]}], "kwargs.v[1].deep[0]: JSON cannot represent nan"),
        ("a\ud800", "surrogate"),
        ([1, {"deep": ["ok", "\udfff"]}], "surrogate"),
        ({"\ud800": 1}, "surrogate"),
    ],
)
def test_what_cannot_come_back_is_refused_with_its_place(value, message):
    """Every refusal is an error of ours that names the path of the value, and nothing else happens."""
    with pytest.raises(InvalidValueError) as error:
        encode({"v": value}, "kwargs")
    assert message in str(error.value)
    assert str(error.value).encode("utf-8", "replace")


class Wordless:
    """Can be a key, but not shown."""

    def __repr__(self):
        message = "no words"
        raise RuntimeError(message)


class Wordy:
    """Has a lot to say."""

    def __repr__(self):
        return "w" * 1_000_000


class NowhereZone(tzinfo):
    """A time zone that cannot be asked."""

    def utcoffset(self, moment):
        message = f"no offset on {moment:%A}"
        raise LookupError(message)


def refusal(value):
    with pytest.raises(InvalidValueError) as error:
        encode({"v": value}, "kwargs")
    return str(error.value)


def test_a_key_that_cannot_be_shown_is_refused_all_the_same():
    """What its repr raises is no concern of the caller's, and a repr without end is cut."""
    assert refusal({Wordless(): 1}) == (
        "kwargs.v[<value without a repr>]: cannot store a tests.core.test_values.Wordless; JSON values, dates, times, "
        "Decimal, UUID, bytes, tuples, sets, mappings, enums, dataclasses and pydantic models can be stored"
    )
    assert len(refusal({Wordy(): 1})) < 1_000


@pytest.mark.parametrize("value", [datetime(2026, 11, 22, tzinfo=NowhereZone()), time(tzinfo=NowhereZone())])
def test_a_time_whose_zone_fails_is_refused_with_its_place(value):
    """A time zone may be anybody's code; what it raises is told, and never comes through as it is."""
    kind = type(value).__name__
    assert refusal([value]).startswith(f"kwargs.v[0]: this datetime.{kind} cannot be written: ")


def test_containers_nest_up_to_the_limit():
    """So deep and no deeper; a container that holds itself is refused the same way."""
    value = []
    for _ in range(DEFAULT_LIMITS.nesting - 1):
        value = [value]
    assert decode(encode(value, "kwargs")) == value
    with pytest.raises(InvalidValueError, match="nested too deep, or a container that holds itself"):
        encode([value], "kwargs")
    loop = {}
    loop["again"] = loop
    with pytest.raises(InvalidValueError, match="holds itself"):
        encode(loop, "kwargs")
    assert encode([[1]], "kwargs", Limits(nesting=2)) == "[[1]]"
    with pytest.raises(InvalidValueError):
        encode([[[]]], "kwargs", Limits(nesting=2))


@pytest.mark.parametrize("character", ["x", "\N{LATIN SMALL LETTER E WITH ACUTE}"])
def test_the_size_is_counted_in_bytes(character):
    """As UTF-8, the marks around the value included."""
    exact = encode(character * 4, "kwargs")
    size = len(exact.encode())
    assert encode(character * 4, "kwargs", Limits(payload=size)) == exact
    with pytest.raises(
        InvalidValueError, match=rf"^kwargs: {size} bytes are more than the limit of {size - 1}$"
    ):
        encode(character * 4, "kwargs", Limits(payload=size - 1))


def test_a_date_is_not_a_datetime_and_true_is_not_one():
    """Types that Python takes for each other stay apart."""
    values = [True, 1, 1.0, False, 0, 0.0, -0.0, datetime(2026, 1, 2).date(), datetime(2026, 1, 2), time()]  # noqa: DTZ001
    again = decode(encode(values, "kwargs"))
    assert [type(value) for value in again] == [type(value) for value in values]
    assert math.copysign(1, again[6]) == -1


def test_offsets_of_seconds_come_back():
    """Offsets are kept to the microsecond."""
    value = datetime(2026, 1, 1, tzinfo=timezone(timedelta(hours=1, seconds=7, microseconds=1)))
    assert same(decode(encode(value, "kwargs")), value)


@pytest.mark.parametrize("at", [0, 1, -1, 1_767_225_600_123_456, 253_402_300_799_999_999])
def test_a_stored_time_is_exact(at):
    """The aware datetime of a stored time has each of its microseconds, which a float would round."""
    found = to_datetime(at)
    assert found.tzinfo is UTC
    assert (found - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1) == at
