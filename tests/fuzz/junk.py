"""What nobody should ever give to a library, and somebody will."""

from __future__ import annotations

import math
import re
import sys
import threading
from array import array
from collections import ChainMap, Counter, OrderedDict, UserDict, UserString, defaultdict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType, SimpleNamespace
from typing import Any, NamedTuple
from uuid import UUID
from zoneinfo import ZoneInfo

from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr


class Hostile:
    """Raises whatever is asked of it."""

    def __repr__(self) -> str:
        message = "no repr"
        raise RuntimeError(message)

    def __eq__(self, other: object) -> bool:
        message = "no eq"
        raise RuntimeError(message)

    def __hash__(self) -> int:
        message = "no hash"
        raise RuntimeError(message)

    def __bool__(self) -> bool:
        message = "no truth"
        raise RuntimeError(message)

    def __len__(self) -> int:
        message = "no length"
        raise RuntimeError(message)

    def __iter__(self) -> Any:
        message = "no iteration"
        raise RuntimeError(message)


class Unprintable:
    """Can be a key, but not shown."""

    def __repr__(self) -> str:
        message = "no repr"
        raise RuntimeError(message)


class Wordy:
    """Has a very long repr."""

    def __repr__(self) -> str:
        return "w" * 1_000_000


class Impostor:
    """Says that it is something else.

    Args:
        kind: what.
    """

    def __init__(self, kind: type = str) -> None:
        self._kind = kind

    @property  # type: ignore[misc]
    def __class__(self) -> type:
        return self._kind


class HostileDict(dict[str, Any]):
    """A dict that does not want to be read."""

    def items(self) -> Any:
        message = "no items"
        raise RuntimeError(message)

    def __iter__(self) -> Any:
        message = "no iteration"
        raise RuntimeError(message)


class HostileMapping(Mapping[str, Any]):
    """A mapping that does not want to be read."""

    def __getitem__(self, key: str) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Any:
        yield "a"

    def __len__(self) -> int:
        return 1


class Text(str):
    """A string, nearly."""

    __slots__ = ()


class List(list[Any]):
    """A list, nearly."""


class Whole(int):
    """An integer, nearly."""


class Colour(Enum):
    """Not a value of JSON."""

    RED = "red"


class Size(IntEnum):
    """An integer, nearly."""

    SMALL = 1


class Word(StrEnum):
    """A string, nearly."""

    HELLO = "hello"


@dataclass
class Record:
    """Not a mapping."""

    a: int = 1


@dataclass(frozen=True)
class Frozen:
    """Can be a key, but would come back as a dict."""

    a: int


class Hidden(BaseModel):
    """Holds what nobody may write."""

    secret: SecretStr


class Array:
    """What an array library gives: no truth, elementwise equality, an item method."""

    shape = (2,)
    dtype = "float64"

    def __array__(self) -> Any:
        return [1.0, 2.0]

    def __eq__(self, other: object) -> Any:
        return [True, False]

    __hash__ = None  # type: ignore[assignment]

    def __bool__(self) -> bool:
        message = "the truth value of an array is ambiguous"
        raise ValueError(message)

    def __len__(self) -> int:
        return 2

    def __getitem__(self, index: int) -> float:
        return (1.0, 2.0)[index]

    def tolist(self) -> list[float]:
        """A list of it."""
        return [1.0, 2.0]


class Pair(NamedTuple):
    """A tuple, nearly."""

    one: int
    other: tuple[int]


class Marks(set[int]):
    """A set, nearly."""


class Marked(UUID):
    """A UUID, nearly."""


class Money(Decimal):
    """A Decimal, nearly, that shows itself in its own way."""

    def __str__(self) -> str:
        return f"EUR {super().__str__()}"


class Place(Enum):
    """An enum of tuples."""

    HERE = (1, 2)


class Model(BaseModel):
    """A model of pydantic's."""

    name: Word
    of: Model | None = None


#: What comes back of a model in a model.
NESTED = {"name": "hello", "of": {"name": "hello", "of": None}}


class Nothing(datetime):
    """A datetime that equals nothing, itself neither, as array libraries have it."""

    def __eq__(self, other: object) -> bool:
        return False

    __hash__ = datetime.__hash__


class Endless(Sequence[int]):
    """A sequence without an end."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: Any) -> Any:
        return index


class Loop(Enum):
    """An enum whose value is itself."""

    AGAIN = 1

    @property
    def value(self) -> Any:
        """Itself."""
        return self


class Scalar(float):
    """A float, nearly, as array libraries have it."""


class NoOffset(tzinfo):
    """A time zone that does not know its offset."""

    def utcoffset(self, dt: datetime | None) -> timedelta | None:
        message = "no offset"
        raise RuntimeError(message)


class Half(datetime):
    """A datetime, nearly."""


def cycle_of_dicts() -> dict[str, Any]:
    """A dict that holds itself."""
    one: dict[str, Any] = {}
    one["again"] = one
    return one


def cycle_of_lists() -> list[Any]:
    """A list that holds itself."""
    one: list[Any] = []
    one.append(one)
    return one


def nested(depth: int, leaf: Any = 1) -> Any:
    """Lists and dicts in each other, so many of them."""
    value = leaf
    for level in range(depth):
        value = [value] if level % 2 else {"in": value}
    return value


def nested_tuples(depth: int) -> Any:
    """Tuples in each other, so many of them."""
    value: Any = ()
    for _ in range(depth - 1):
        value = (value,)
    return value


def numbers() -> Any:
    """Yields numbers."""
    yield from (1, 2, 3)


def twice() -> list[list[int]]:
    """A list that stands in two places."""
    one = [1]
    return [one, one]


#: Name → makes a value that cannot be kept, so that kwargs with it anywhere inside are refused.
REFUSED: dict[str, Any] = {
    "a hostile object": Hostile,
    "an object without a repr": Unprintable,
    "an object with a long repr": Wordy,
    "an object that says that it is a str": Impostor,
    "an object that says that it is a list": lambda: Impostor(list),
    "an object that says that it is an int": lambda: Impostor(int),
    "an object that says that it is a dict": lambda: Impostor(dict),
    "object()": object,
    "a hostile dict": lambda: HostileDict(a=1),
    "a hostile mapping": HostileMapping,
    "a dict that holds itself": cycle_of_dicts,
    "a list that holds itself": cycle_of_lists,
    "lists within lists, without end nearly": lambda: nested(100_000),
    "an unprintable key": lambda: {Unprintable(): 1},
    "a wordy key": lambda: {Wordy(): 1},
    "NaN": lambda: math.nan,
    "infinity": lambda: math.inf,
    "minus infinity": lambda: -math.inf,
    "NaN as a Decimal": lambda: Decimal("NaN"),
    "a signalling NaN": lambda: Decimal("sNaN"),
    "infinity as a Decimal": lambda: Decimal("-Infinity"),
    "10 ** 400": lambda: 10**400,
    "-10 ** 5000": lambda: -(10**5000),
    "2 ** 64": lambda: 2**64,
    "-2 ** 63 - 1": lambda: -(2**63) - 1,
    "a lone surrogate": lambda: "a\ud800b",
    "half a pair": lambda: "\udc00",
    "a lone surrogate in a key": lambda: {"a\udfff": 1},
    "a generator": numbers,
    "an iterator": lambda: iter([1]),
    "a lambda": lambda: lambda: None,
    "a class": lambda: dict,
    "a module": lambda: sys,
    "a lock": threading.Lock,
    "an open file": lambda: sys.stdout,
    "a compiled pattern": lambda: re.compile("a"),
    "an exception": lambda: ValueError("a"),
    "Ellipsis": lambda: ...,
    "NotImplemented": lambda: NotImplemented,
    "a complex number": lambda: 1j,
    "a Fraction": lambda: Fraction(1, 3),
    "a Path": lambda: Path("a"),
    "a namespace": lambda: SimpleNamespace(a=1),
    "an array": Array,
    "a datetime that equals nothing": lambda: Nothing(2026, 1, 1),
    "a sequence without an end": Endless,
    "an enum whose value is itself": lambda: Loop.AGAIN,
    "a model of a type that cannot be kept": lambda: Hidden(secret=SecretStr("a")),
    "a dataclass as key": lambda: {Frozen(1): 1},
    "a dataclass in a tuple as key": lambda: {(Frozen(1),): 1},
    "a dataclass in a set": lambda: {Frozen(1)},
    "two keys that become one": lambda: {Colour.RED: 1, "red": 2},
    "a complex number as key": lambda: {1j: 1},
    "NaN as key": lambda: {math.nan: 1},
    "tuples within tuples, without end nearly": lambda: nested_tuples(100_000),
    "a time zone": lambda: UTC,
    "a datetime without an offset": lambda: datetime(2026, 1, 1, tzinfo=NoOffset()),
    "5 MB of text": lambda: "x" * 5_000_000,
    "5 MB of bytes": lambda: b"x" * 5_000_000,
    "a list of a million numbers": lambda: [0] * 1_000_000,
    "text of a byte too much": lambda: "é" * 524_288,
}

#: Name → makes a value that is kept, and comes back equal and of the same types.
KEPT: dict[str, Any] = {
    "nothing": lambda: None,
    "True": lambda: True,
    "0": lambda: 0,
    "-0.0": lambda: -0.0,
    "the largest integer": lambda: 2**64 - 1,
    "the smallest integer": lambda: -(2**63),
    "the largest float": lambda: sys.float_info.max,
    "the smallest float": lambda: 5e-324,
    "1.0": lambda: 1.0,
    "no text": str,
    "NUL": lambda: "a\0b",
    "control characters": lambda: "".join(map(chr, range(32))) + "\x7f\x85\u2028\u2029",
    "an emoji of many parts": lambda: "\U0001f469\u200d\U0001f4bb\U0001f3fd",
    "the last character": lambda: "\U0010ffff",
    "non-characters": lambda: "\ufffe\uffff",
    "a byte order mark": lambda: "\ufeff",
    "backslashes and quotes": lambda: "\\\"'\\u0041\\ud800",
    "SQL": lambda: "'; DROP TABLE sessions; --",
    "a number as text": lambda: "1e999",
    "NaN as text": lambda: "NaN",
    "the library's own marks": lambda: {"$date": "2026-01-01"},
    "its own marks twice": lambda: {"$$date": {"$bytes": "!!"}, "$": 1, "$$": 2},
    "names of Python's": lambda: {"__proto__": 1, "__class__": 2, "constructor": 3, "": 4},
    "keys that look alike": lambda: {"é": 1, "e\u0301": 2, "E": 3, "e": 4, "e ": 5, "\u200be": 6},
    "an empty list": list,
    "an empty dict": dict,
    "a datetime": lambda: datetime(2026, 1, 1, 12, 30, 15, 123456, tzinfo=UTC),
    "a naive datetime": lambda: datetime(1, 1, 1),  # noqa: DTZ001 - it is what is meant
    "a datetime with seconds of offset": lambda: datetime(
        9999, 12, 31, tzinfo=timezone(timedelta(seconds=-1))
    ),
    "a date": lambda: date(1, 1, 1),
    "a time": lambda: time(23, 59, 59, 999999),
    "the longest duration": lambda: timedelta.max,
    "the shortest duration": lambda: timedelta.min,
    "a Decimal of many digits": lambda: Decimal("1." + "0" * 1000 + "1E+999"),
    "minus zero as a Decimal": lambda: Decimal("-0.00"),
    "a UUID": lambda: UUID(int=0),
    "bytes": lambda: bytes(range(256)),
    "a list that stands in two places": twice,
    "a tuple": lambda: (1, 2),
    "an empty tuple": tuple,
    "a set": lambda: {1, 2},
    "a frozenset": lambda: frozenset({1}),
    "a tuple as key": lambda: {(1, 2): 1},
    "a number as key": lambda: {1: "a"},
    "None as key": lambda: {None: "a"},
    "True as key": lambda: {True: "a"},
    "bytes as key": lambda: {b"a": 1},
}

#: Name → makes a value that is kept, and what comes back in its place.
TAKEN: dict[str, Any] = {
    "a string, nearly, as key": (lambda: {Text("a"): 1}, {"a": 1}),
    "an enum's word as key": (lambda: {Word.HELLO: 1}, {"hello": 1}),
    "a range": (lambda: range(3), [0, 1, 2]),
    "a bytearray": (lambda: bytearray(b"a"), b"a"),
    "a memoryview": (lambda: memoryview(b"a"), b"a"),
    "an OrderedDict": (lambda: OrderedDict(a=1), {"a": 1}),
    "a defaultdict": (lambda: defaultdict(list), {}),
    "a Counter": (lambda: Counter("a"), {"a": 1}),
    "a ChainMap": (lambda: ChainMap({"a": 1}), {"a": 1}),
    "a UserDict": (lambda: UserDict(a=1), {"a": 1}),
    "a UserString": (lambda: UserString("a"), "a"),
    "a mapping proxy": (lambda: MappingProxyType({"a": 1}), {"a": 1}),
    "a deque": (deque, []),
    "a dataclass": (Record, {"a": 1}),
    "a str, nearly": (lambda: Text("a"), "a"),
    "a list, nearly": (lambda: List([1]), [1]),
    "an int, nearly": (lambda: Whole(1), 1),
    "a float, nearly": (lambda: Scalar(1.0), 1.0),
    "a datetime, nearly": (lambda: Half(2026, 1, 1), datetime(2026, 1, 1)),  # noqa: DTZ001 - it is what is meant
    "an enum": (lambda: Colour.RED, "red"),
    "an int enum": (lambda: Size.SMALL, 1),
    "a str enum": (lambda: Word.HELLO, "hello"),
    "a named tuple": (lambda: Pair(1, (2,)), (1, (2,))),
    "a set, nearly": (lambda: Marks({1}), {1}),
    "the keys of a dict": ({"a": 1}.keys, {"a"}),
    "an array of numbers": (lambda: array("i", [1, 2]), [1, 2]),
    "a model": (lambda: Model(name=Word.HELLO), {"name": "hello", "of": None}),
    "a model in a model": (lambda: Model(name=Word.HELLO, of=Model(name=Word.HELLO)), NESTED),
    "a UUID, nearly": (lambda: Marked(int=0), UUID(int=0)),
    "a Decimal, nearly": (lambda: Money("1.10"), Decimal("1.10")),
    "an enum of a tuple": (lambda: Place.HERE, (1, 2)),
    "an enum as key": (lambda: {Colour.RED: Colour.RED}, {"red": "red"}),
    "a mark of the library's, nearly, as key": (lambda: {Text("$date"): 1}, {"$date": 1}),
}

#: Times in named zones, of which only the offset can come back.
EITHER = {
    "a datetime in a named zone": lambda: datetime(2026, 7, 1, tzinfo=ZoneInfo("Europe/Berlin")),
    "a datetime of a fold": lambda: datetime(2026, 10, 25, 2, 30, tzinfo=ZoneInfo("Europe/Berlin"), fold=1),
}

#: What is no mapping, or none that can be read, and so cannot be the kwargs of a firing.
NO_MAPPINGS = {
    what: REFUSED[what]
    for what in (
        *("a hostile object", "a hostile mapping", "an object that says that it is a list"),
        *(
            "an object that says that it is a dict",
            "a generator",
            "a lambda",
            "a class",
        ),
        *(
            "NaN",
            "an array",
            "5 MB of text",
            "an unprintable key",
        ),
    )
} | {
    "a tuple": KEPT["a tuple"],
    "a set": KEPT["a set"],
    "a list, nearly": lambda: List([1]),
    "a str, nearly": lambda: Text("a"),
    "an enum": lambda: Colour.RED,
}

#: Words that mean something to the rule language, and some that nearly do.
WORDS = (
    *("after", "run", "andEvery", "unless", "withParams", "using", "all", "any", "atLeast", "of", "priority"),
    *("t_a", "t_b", "a", "b", "afer", "andevery", "$date", "__proto__", "", " ", "\0", "\ud800", "x" * 256),
)


def scalars() -> st.SearchStrategy[Any]:
    """Anything that holds nothing else."""
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.sampled_from(WORDS),
        st.text(max_size=4),
        st.binary(max_size=4),
        st.sampled_from([*REFUSED]).filter(lambda name: "MB" not in name).map(lambda name: REFUSED[name]()),
        st.sampled_from([*TAKEN]).map(lambda name: TAKEN[name][0]()),
    )


def keys() -> st.SearchStrategy[Any]:
    """Anything that can be a key."""
    return st.one_of(
        st.sampled_from(WORDS),
        st.sampled_from(WORDS),
        st.text(max_size=3),
        st.integers(),
        st.none(),
        st.binary(max_size=2),
        st.tuples(st.integers()),
        st.builds(Text, st.sampled_from(WORDS)),
    )


def anything(max_leaves: int = 12) -> st.SearchStrategy[Any]:
    """Anything at all, nested."""
    return st.recursive(
        scalars(),
        lambda inner: st.one_of(
            st.lists(inner, max_size=4),
            st.dictionaries(keys(), inner, max_size=4),
            st.tuples(inner),
            st.sets(st.sampled_from(WORDS), max_size=3),
        ),
        max_leaves=max_leaves,
    )
