from __future__ import annotations

import collections
import enum
import functools
import io
import json
import math
import pathlib
import threading
import types
import uuid
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field, SecretStr

from triggers.core.values import encode
from triggers.logs import LogSettings
from triggers.logs.sanitizing.plain import NOTHING, SanitizedContext, merged
from triggers.logs.sanitizing.sanitizer import Sanitizer
from triggers.logs.sanitizing.texts import storable

SECRET = "hunter22"  # noqa: S105 - what must not be kept
SETTINGS = LogSettings()
clean = Sanitizer(SETTINGS)


def data(value, **settings):
    """The value as it would be kept."""
    fit = (
        Sanitizer(LogSettings(**settings)).context({"value": value})
        if settings
        else clean.context({"value": value})
    )
    encode(fit.data, "context")
    return fit.data["value"]


class Color(enum.Enum):
    RED = "red"


class Number(enum.IntEnum):
    ONE = 1


class Text(str):
    __slots__ = ()

    def __str__(self):
        raise RuntimeError


class Whole(int):
    pass


class Moment(datetime):
    pass


Point = collections.namedtuple("Point", "x password")  # noqa: PYI024 - the kind without types


@dataclass
class Subject:
    name: str
    password: str = SECRET
    born: date = date(1996, 11, 5)
    raw: bytes = field(default=b"", repr=False)

    @property
    def expensive(self):
        raise AssertionError


@dataclass(slots=True)
class Slotted:
    name: str
    inner: object = None


class Model(BaseModel):
    name: str
    key: SecretStr = SecretStr("hunter22")
    api_key: str = "hunter22"


class Broken(tzinfo):
    def utcoffset(self, moment):
        raise RuntimeError


EAST = timezone(timedelta(hours=2))


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (None, None),
        (True, True),
        (2**64 - 1, 2**64 - 1),
        (2**64, "18446744073709551616"),
        (-(2**63) - 1, "-9223372036854775809"),
        (10**400, "<integer of 1329 bits>"),
        (0.1, 0.1),
        (math.nan, "<nan>"),
        (-math.inf, "<-inf>"),
        ("text", "text"),
        ("a\ud800b", "a\\ud800b"),
        ("a\0b", "a\\x00b"),
        ("line\nline\x1b[31m", "line\nline\x1b[31m"),
        (b"bytes", b"bytes"),
        (bytearray(b"bytes"), b"bytes"),
        (memoryview(b"bytes"), b"bytes"),
        (b"\x00\x01" * 5_000, "<10000 bytes: 00 01 00 01 00 01 00 01 00 01 00 01 00 01 00 01…>"),
        (date(1996, 11, 5), date(1996, 11, 5)),
        (datetime(1996, 11, 5, tzinfo=UTC), datetime(1996, 11, 5, tzinfo=UTC)),
        (Moment(1996, 11, 5, tzinfo=EAST), datetime(1996, 11, 5, tzinfo=EAST)),
        (datetime(1996, 11, 5, tzinfo=Broken()), "<datetime.datetime: unreadable, RuntimeError>"),
        (time(1, 2, 3, 4), time(1, 2, 3, 4)),
        (timedelta(days=1, microseconds=1), timedelta(days=1, microseconds=1)),
        (Decimal("1.50"), Decimal("1.50")),
        (Decimal("NaN"), "<NaN>"),
        (Decimal(10) ** 1000 + 1, Decimal("1.000000000000000000000000000E+1000")),
        (Decimal("1" * 2_000), "<decimal.Decimal of very many digits>"),
        (uuid.UUID(int=5), uuid.UUID(int=5)),
        (Color.RED, "red"),
        (Number.ONE, 1),
        (Text("text"), "text"),
        (Whole(3), 3),
        (pathlib.PurePosixPath("/srv/x"), "/srv/x"),
        ((1, "a"), [1, "a"]),
        ({"b", "a"}, ["a", "b"]),
        (frozenset({1}), [1]),
        (collections.deque([1, 2]), [1, 2]),
        (collections.OrderedDict(a=1), {"a": 1}),
        (collections.defaultdict(list, a=[1]), {"a": [1]}),
        (types.MappingProxyType({"a": 1}), {"a": 1}),
        (collections.UserDict(a=1), {"a": 1}),
        (collections.UserList([1]), [1]),
        (collections.UserString("text"), "text"),
        ({"a": 1}.keys(), ["a"]),
        ({"a": 1}.values(), [1]),
        ({"a": 1}.items(), [["a", 1]]),
        (range(3), [0, 1, 2]),
        (Point(1, "hunter22"), {"x": 1, "password": "[redacted]"}),
        (Subject("Ann"), {"name": "Ann", "password": "[redacted]", "born": date(1996, 11, 5)}),
        (Slotted("Ann", Slotted("Bob")), {"name": "Ann", "inner": {"name": "Bob", "inner": None}}),
        (Model(name="Ann"), {"name": "Ann", "key": "[redacted]", "api_key": "[redacted]"}),
        (SecretStr("hunter22"), "[redacted]"),
        (ValueError("bad"), "ValueError: bad"),
        (int, "<class int>"),
        (Subject, f"<class {__name__}.Subject>"),
        (json.dumps, "<function json.dumps>"),
        (len, "<function builtins.len>"),
        (json, "<module json>"),
        (functools.partial(int), "<functools.partial>"),
        (object(), "<object>"),
        (io.StringIO("x"), "<_io.StringIO>"),
        (threading.Lock(), "<_thread.lock>"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_kept_of_a_value(value, kept):
    """Each type has its plain form, of exact types that the codec accepts."""
    found = data([value])[0]
    assert found == kept
    assert type(found) is type(kept)


def test_named_values_of_a_header_list_are_hidden():
    """Headers written as pairs, or as objects with name and value, hide what their names say."""
    assert data([("Authorization", "Bearer x"), ("Accept", "*/*"), (b"cookie", b"x")]) == [
        ["Authorization", "[redacted]"],
        ["Accept", "*/*"],
        [b"cookie", "[redacted]"],
    ]
    assert data([{"name": "Cookie", "value": "x"}, {"name": "Accept", "value": "x"}]) == [
        {"name": "Cookie", "value": "[redacted]"},
        {"name": "Accept", "value": "x"},
    ]
    assert clean.context({"name": "Cookie", "value": "x"}).data["value"] == "[redacted]"


class Hostile:
    """Raises, or recurses, wherever it is touched."""

    def _refuse(self, *args):
        raise RecursionError

    __repr__ = __str__ = __eq__ = __hash__ = __bool__ = __len__ = __iter__ = __getattr__ = (
        __getattribute__
    ) = _refuse
    __class__ = __dict__ = property(_refuse)


class HostileList(list):
    __iter__ = __len__ = __getitem__ = __repr__ = __eq__ = Hostile._refuse


class HostileMapping(collections.abc.Mapping):
    __iter__ = __getitem__ = Hostile._refuse

    def __len__(self):
        return 3


class HostileMeta(type):
    def __getattribute__(cls, name):
        raise RuntimeError

    __hash__ = __eq__ = __instancecheck__ = __subclasscheck__ = Hostile._refuse


class HostileClass(metaclass=HostileMeta):
    pass


@dataclass
class HostileData:
    x: int = 1
    __getattribute__ = Hostile._refuse


def test_hostile_objects_are_recorded_by_their_types():
    """An object that raises or recurses at every touch costs its own place and nothing else."""
    values = [
        Hostile(),
        HostileMapping(),
        HostileClass(),
        HostileClass,
        HostileData(),
        HostileList([1]),
        "last",
    ]
    found = data(values)
    assert found[0] == f"<{__name__}.Hostile>"
    assert found[1] == {"…": "<unreadable, RecursionError>"}
    assert all(type(part) is str for part in found[2:4])
    assert found[4:] == [{"x": 1}, [1], "last"]


def test_a_lazily_evaluated_object_is_never_evaluated():
    """Nothing of an unknown object is called: no query is sent, no generator is advanced, no proxy is opened."""

    class Lazy:
        evaluations: ClassVar = []

        def _evaluate(self, *args):
            self.evaluations.append(args)
            return iter(())

        __iter__ = __len__ = __bool__ = __str__ = __repr__ = __getitem__ = __eq__ = __contains__ = _evaluate
        __class__ = property(_evaluate)

    generator = (number for number in range(3))
    found = data([Lazy(), generator, map(print, [1])])
    assert Lazy.evaluations == []
    assert list(generator) == [0, 1, 2]
    assert found[1:] == ["<generator>", "<map>"]


def test_cycles_end():
    """A container that holds itself, whatever its kind, ends in a mark."""
    ring = {"name": "ring"}
    ring["self"] = ring
    row = [1]
    row.append(row)
    slotted = Slotted("a")
    slotted.inner = [slotted]
    assert data([ring, row, slotted]) == [
        {"name": "ring", "self": "<cycle>"},
        [1, "<cycle>"],
        {"name": "a", "inner": ["<cycle>"]},
    ]
    twice = ["same"]
    assert data([twice, twice]) == [["same"], ["same"]]


def test_three_thousand_levels():
    """Deep nesting is cut where it is too deep, without a RecursionError."""
    deep = []
    for _ in range(3_000):
        deep = [deep, {"deep": deep}]
    fit = clean.context({"deep": deep})
    encode(fit.data, "context")
    assert "truncated at depth 8" in json.dumps(fit.data, ensure_ascii=False)
    assert fit.truncated


def test_colliding_keys_are_all_kept():
    """Keys that are the same as text get numbers; what is secret stays secret under every one of them."""
    assert data({1: "a", "1": "b", 1.0j: "c", (1, "x"): "d", None: "e", True: "f", "null": "g"}) == {  # noqa: F601 - they collide
        "1": "f",
        "1 (2)": "b",
        "<complex>": "c",
        "(1, x)": "d",
        "null": "e",
        "null (2)": "g",
    }
    assert data({"password": 1, b"password": 2}) == {"password": "[redacted]", "password (2)": "[redacted]"}


def test_every_limit_is_visible_where_it_cut():
    """Strings, items, depth and nodes that are too many leave a mark and a path."""
    fit = clean.context(
        {"long": "x" * 1_000_000, "many": list(range(100_000)), "wide": dict.fromkeys(range(200), 1)}
    )
    assert fit.data["long"] == "x" * 4_096 + "…[truncated 995904 chars]"
    assert fit.data["many"] == [*range(100), "…[truncated 99900 items]"]
    assert fit.data["wide"]["…"] == "[truncated 100 items]"
    assert fit.truncated == ("context.long", "context.many.…", "context.wide.…")


def test_limits_can_be_set():
    """Every limit is a setting."""
    assert data("abcdef", max_string=3) == "abc…[truncated 3 chars]"
    assert data([1, 2, 3], max_items=2) == [1, 2, "…[truncated 1 items]"]
    assert data([[1]], max_depth=2) == ["…[truncated at depth 2]"]
    assert len(data(list(range(90)), max_nodes=10)) == 9
    assert len(encode(data(["x" * 100] * 90, max_context=1_000), "")) <= 1_000
    assert data(Color.RED, converters=((Color, lambda color: {"name": color.name}),)) == {"name": "RED"}
    assert data(Color.RED, converters=((Color, lambda color: 1 / 0),)).endswith(
        "unreadable, ZeroDivisionError>"
    )
    assert data(Slotted("a"), converters=((Slotted, lambda value: [value]),)) == ["<cycle>"]


@pytest.mark.parametrize(
    "wrong", [{"max_string": 0}, {"max_depth": 99}, {"record_level": "LOUD"}, {"max_items": 0}]
)
def test_impossible_limits_are_refused(wrong):
    """A limit of nothing, and a level that does not exist, are refused with the name of the setting or level."""
    with pytest.raises(ValueError, match="|".join(map(str, (*wrong, *wrong.values())))):
        LogSettings(**wrong)


def test_contexts_that_are_no_mappings():
    """What is no mapping stands under `context`; what is like one is taken apart."""
    assert clean.context([1]).data == {"context": [1]}
    assert clean.context(None).data == {"context": None}
    assert clean.context(Slotted("a")).data == {"name": "a", "inner": None}


def test_a_merged_context_keeps_to_the_limits_of_one():
    """Two contexts that are too large together are cut to one's limits, each to half if both are large."""
    under = clean.context({f"under {number}": "x" * 300 for number in range(50)})
    over = clean.context({f"over {number}": "y" * 300 for number in range(30)})
    both = clean.merge(under, over)
    assert len(encode(both.data, "")) <= SETTINGS.max_context
    kept = [sum(key.startswith(side) for key in both.data) for side in ("under", "over")]
    assert min(kept) >= 20
    assert both.truncated
    many = clean.merge(
        clean.context({f"a{number}": 1 for number in range(90)}),
        clean.context({f"b{number}": 1 for number in range(90)}),
    )
    assert len(many.data) == SETTINGS.max_items - 1
    assert many.data["…"] == "[truncated items]"
    assert [sum(key.startswith(side) for key in many.data) for side in "ab"] == [49, 49]
    assert clean.merge(NOTHING, over) is over
    assert clean.merge(under, NOTHING) is under


def test_merging_changes_neither():
    """Objects are merged at every level into new ones; lists are replaced."""
    under, over = {"a": {"x": [1], "y": 1}, "b": 1}, {"a": {"x": [2]}, "c": 2}
    assert merged(under, over) == {"a": {"x": [2], "y": 1}, "b": 1, "c": 2}
    assert under == {"a": {"x": [1], "y": 1}, "b": 1}
    plain = SanitizedContext(under, 50, 50, 4, flat=False)
    plain.copy()["a"]["x"].append(3)
    assert under["a"]["x"] == [1]


class Trap(enum.Enum):
    """Stands for a hostile object until Hypothesis has looked at everything that it generated."""

    OBJECT = "Hostile"
    MAPPING = "HostileMapping"
    CLASS = "HostileClass"
    DATA = "HostileData"


def armed(value):
    """The value with every trap in lists, tuples and dicts set."""
    if type(value) is Trap:
        return globals()[value.value]()
    if type(value) is dict:
        return {key: armed(item) for key, item in value.items()}
    return type(value)(armed(item) for item in value) if type(value) in (list, tuple) else value


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(codec=None))
    | st.binary()
    | st.datetimes(timezones=st.none() | st.timezones())
    | st.times(timezones=st.none() | st.timezones())
    | st.dates()
    | st.timedeltas()
    | st.decimals()
    | st.uuids()
    | st.complex_numbers()
    | st.fractions()
    | st.sampled_from(Trap)
    | st.sampled_from([object, print, Color.RED, Moment.min])
    | st.builds(Slotted, st.text())
    | st.builds(ValueError, st.text()),
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(
            st.text(st.characters(codec=None)) | st.integers() | st.none() | st.tuples(st.text()), inner
        )
        | st.builds(Slotted, st.text(), inner)
        | st.builds(collections.deque, st.lists(inner))
    ),
    max_leaves=40,
)


@given(anything)
def test_anything_becomes_bounded_data_that_can_be_stored(value):
    """Whatever it is, the codec of values accepts what is kept of it, and it keeps to its size."""
    fit = clean.context(armed(value))
    assert type(fit.data) is dict
    text = encode(fit.data, "context")
    assert len(text.encode()) <= SETTINGS.max_context


small = LogSettings(max_string=10, max_items=3, max_nodes=12, max_depth=3, max_context=1_000)


@given(anything, anything)
def test_small_limits_hold_for_anything_and_for_any_merge(one, other):
    """The size is kept to under the smallest of limits too, and after merging."""
    tight = Sanitizer(small)
    both = tight.merge(tight.context({"one": armed(one)}), tight.context({"other": armed(other)}))
    assert len(encode(both.data, "context").encode()) <= small.max_context
    assert both.flat == (not any(type(item) in (dict, list) for item in both.data.values()))


@given(st.text(st.characters(codec=None)))
def test_text_can_be_stored_afterwards(text):
    """Any text is encodable and free of NUL once it is storable; text that was so before is unchanged."""
    fit = storable(text)
    fit.encode()
    assert "\0" not in fit
    if "\0" not in text and text.encode("utf-8", "ignore").decode() == text:
        assert fit == text


def test_attrs_classes():
    """A class of attrs gives its fields, without those that it hides from its own repr."""
    attrs = pytest.importorskip("attrs")

    @attrs.define
    class Answer:
        page: int
        password: str = SECRET
        raw: str = attrs.field(default=SECRET, repr=False)

    assert data(Answer(3)) == {"page": 3, "password": "[redacted]"}


def test_numpy_values():
    """A number of numpy is a number; an array is named, not read."""
    numpy = pytest.importorskip("numpy")
    values = [numpy.float64(0.5), numpy.int64(3), numpy.bool_(1), numpy.str_("x"), numpy.float32("nan")]
    assert data([*values, numpy.zeros(9)]) == [0.5, 3, True, "x", "<nan>", "<numpy.ndarray>"]


def test_pydantic_extras_and_hidden_fields():
    """What a model takes beyond its fields is kept by the same rules; fields hidden from its repr are not."""

    class Open(BaseModel, extra="allow"):
        name: str
        raw: str = Field(default=SECRET, repr=False)

    assert data(Open(name="Ann", page=1, password=SECRET)) == {
        "name": "Ann",
        "page": 1,
        "password": "[redacted]",
    }


class Money:
    def __init__(self, amount):
        self.amount = amount


class Tip(Money):
    pass


def test_types_of_ones_own_have_converters():
    """A converter is asked for a type and its subclasses, at any depth; what it gives is made fit in its turn."""
    settings = {"converters": ((Money, lambda money: {"amount": money.amount, "password": SECRET}),)}
    assert data([Tip(Decimal("1.5"))], **settings) == [{"amount": Decimal("1.5"), "password": "[redacted]"}]
    assert data(Money(Money(1)), **settings)["amount"]["amount"] == 1
    broken = {"converters": ((Money, lambda money: money.missing),)}
    assert data(Money(1), **broken) == f"<{__name__}.Money: unreadable, AttributeError>"
    assert data(Money(1)) == f"<{__name__}.Money>"


@pytest.mark.parametrize(
    "wrong",
    [
        {"redact": "password"},
        {"redact": ["password"]},
        {"redact": (1,)},
        {"converters": ((Money, None),)},
        {"converters": (("Money", str),)},
        {"converters": ((Money,),)},
    ],
)
def test_registries_that_are_none_are_refused(wrong):
    """A single word would be taken for its letters, and hide nearly everything."""
    with pytest.raises(ValueError, match="LogSettings"):
        LogSettings(**wrong)
