"""Reads values of types that JSON lacks, without running the code of the object.

The ``repr``, ``bool`` or attributes of an object may query a database, raise, or never return. So only the
known contents of a type are read, without overridden methods. Of an unknown type, only the name is recorded.
"""

from __future__ import annotations

import sys
from collections import UserString, deque
from collections.abc import Callable, ItemsView, Iterable, Mapping, Sequence, ValuesView
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from enum import Enum
from pathlib import PurePath
from types import (
    BuiltinFunctionType,
    FunctionType,
    MemberDescriptorType,
    MethodType,
    ModuleType,
)
from typing import Any
from uuid import UUID

from triggers.core import values
from triggers.logs.sanitizing.sensitive import Sensitive
from triggers.logs.sanitizing.texts import storable
from triggers.redaction import REDACTED

#: How many characters of the module of a type, and of its name, are recorded.
MAX_TYPE_NAME = 200

#: Takes a value and how much of it is needed (items, bytes); returns exact plain data, a Pairs or an Items.
Shape = Callable[[Any, int], Any]


@dataclass(slots=True)
class Pairs:
    """A value that becomes a JSON object: its keys and values, and their number."""

    pairs: Iterable[tuple[Any, Any]]
    total: int


@dataclass(slots=True)
class Items:
    """A value that becomes a JSON array: its items, and their number."""

    items: Iterable[Any]
    total: int


def type_name(kind: type) -> str:
    """Return module and name of a type, as a database can store them."""
    return storable(values.type_name(kind, MAX_TYPE_NAME))


def marker(value: object) -> str:
    """Return the text that replaces a value of which only the type may be recorded."""
    return f"<{type_name(type(value))}>"


def message_of(exc: BaseException) -> str:
    """Return the exception's own text, or a marker if its ``__str__`` raises."""
    try:
        text = str(exc)
    except Exception as problem:  # noqa: BLE001 - the text of an exception is its class's own code
        return f"<no text: __str__ raised {type_name(type(problem))}>"
    return str.__str__(text)


def shape_of(kind: type) -> Shape:
    """Return the function that reads values of this type; it is remembered for the type."""
    found = _known.get(kind)
    if found is None:
        found = next((shape for base, shape in _BASES if issubclass(kind, base)), None) or _by_protocol(kind)
        if len(_known) >= MAX_KNOWN:
            _known.clear()
        _known[kind] = found
    return found


#: Types that are remembered; then all are forgotten, so that types made at run time are not kept alive.
MAX_KNOWN = 1_000
_known: dict[type, Shape] = {}


def _by_protocol(kind: type) -> Shape:
    if hasattr(kind, "get_secret_value"):
        return lambda _value, _limit: REDACTED
    for find in (_pydantic_names, _dataclass_names, _attrs_names):
        names = find(kind)
        if names is not None:
            return _Stored(kind, names)
    for abstract, shape in _ABSTRACT:
        if issubclass(kind, abstract):
            return shape
    numpy = sys.modules.get("numpy")
    if numpy is not None and issubclass(kind, numpy.generic):
        return lambda value, _limit: value.item()
    return lambda value, _limit: marker(value)


def _dataclass_names(kind: type) -> list[str] | None:
    found = getattr(kind, "__dataclass_fields__", None)
    return [name for name, field in found.items() if field.repr] if type(found) is dict else None


def _attrs_names(kind: type) -> list[str] | None:
    found = getattr(kind, "__attrs_attrs__", None)
    return [field.name for field in found if field.repr] if isinstance(found, tuple) else None


def _pydantic_names(kind: type) -> list[str] | None:
    for attribute, proof in _PYDANTIC:
        found = getattr(kind, attribute, None)
        if type(found) is dict and hasattr(kind, proof):
            return [name for name, field in found.items() if getattr(field, "repr", True)]
    return None


#: The attribute with the fields of a model in each version of pydantic, and one that only models have.
_PYDANTIC = (
    ("__pydantic_fields__", "__pydantic_validator__"),
    ("model_fields", "__pydantic_validator__"),
    ("__fields__", "__validators__"),
)


class _Stored:
    """Reads fields where they are stored, without properties and lazy loaders; hidden fields stay hidden."""

    __slots__ = ("_names", "_slots")

    def __init__(self, kind: type, names: list[str]) -> None:
        self._names = names
        self._slots = {
            name: slot
            for base in reversed(kind.__mro__)
            for name, slot in base.__dict__.items()
            if type(slot) is MemberDescriptorType
        }

    def __call__(self, value: Any, _limit: int) -> Pairs:
        own = object.__getattribute__(value, "__dict__") if type(value).__dictoffset__ else {}
        found = [(name, own[name]) for name in self._names if name in own]
        found += [(name, self._slot(value, name)) for name in self._names if name in self._slots]
        extra = self._slot(value, "__pydantic_extra__")
        found += extra.items() if type(extra) is dict else ()
        return Pairs(found, len(found))

    def _slot(self, value: Any, name: str) -> Any:
        try:
            return self._slots[name].__get__(value)
        except (AttributeError, KeyError):
            return None


def exact_moment(value: datetime) -> datetime:
    """Return the same time as an exact `datetime` whose time zone, if any, is a fixed offset."""
    offset = value.utcoffset()
    parts = (value.year, value.month, value.day, value.hour, value.minute, value.second, value.microsecond)
    return datetime(*parts, tzinfo=None if offset is None else timezone(offset))


def exact_time(value: time) -> time:
    """Return the same time as an exact `time` whose time zone, if any, is a fixed offset."""
    offset = value.utcoffset()
    zone = None if offset is None else timezone(offset)
    return time(value.hour, value.minute, value.second, value.microsecond, tzinfo=zone)


def _enum(value: Any, _limit: int) -> Any:
    return object.__getattribute__(value, "_value_")


def _bytes(value: Any, limit: int) -> Any:
    view = memoryview(value)
    if view.nbytes > limit:
        return f"<{view.nbytes} bytes: {bytes(view.cast('B')[:16]).hex(' ')}…>"
    return bytes(view)


def _tuple(value: Any, _limit: int) -> Any:
    names = getattr(type(value), "_fields", None)
    total = tuple.__len__(value)
    if isinstance(names, tuple) and len(names) == total:
        return Pairs(zip(names, tuple.__iter__(value), strict=True), total)
    return Items(tuple.__iter__(value), total)


def _set(value: Any, limit: int) -> Items:
    items = list(value) if len(value) <= limit else value
    if type(items) is list and all(type(item) is str for item in items):
        items.sort()
    return Items(items, len(value))


def _exception(value: BaseException, _limit: int) -> str:
    return f"{type_name(type(value))}: {message_of(value)}"


def _named(what: str) -> Shape:
    def shape(value: Any, _limit: int) -> str:
        module = getattr(value, "__module__", None) or "?"
        return f"<{what} {module}.{getattr(value, '__qualname__', '?')}>"

    return shape


#: The first of these that is a base of a type decides how its values are read. An Enum may be a str.
_BASES: tuple[tuple[type, Shape], ...] = (
    (Enum, _enum),
    (Sensitive, lambda _value, _limit: REDACTED),
    (str, lambda value, _limit: str.__str__(value)),
    (int, lambda value, _limit: int.__int__(value)),
    (float, lambda value, _limit: float.__float__(value)),
    (PurePath, lambda value, _limit: str(value)),
    (datetime, lambda value, _limit: exact_moment(value)),
    (date, lambda value, _limit: date(value.year, value.month, value.day)),
    (time, lambda value, _limit: exact_time(value)),
    (timedelta, lambda value, _limit: timedelta(value.days, value.seconds, value.microseconds)),
    (Decimal, lambda value, _limit: Decimal(value)),
    (UUID, lambda value, _limit: UUID(int=value.int)),
    (bytes, _bytes),
    (bytearray, _bytes),
    (memoryview, _bytes),
    (dict, lambda value, _limit: Pairs(dict.items(value), dict.__len__(value))),
    (tuple, _tuple),
    (list, lambda value, _limit: Items(list.__iter__(value), list.__len__(value))),
    (set, _set),
    (frozenset, _set),
    (deque, lambda value, _limit: Items(deque.__iter__(value), deque.__len__(value))),
    (BaseException, _exception),
    (type, lambda value, _limit: f"<class {type_name(value)}>"),
    (FunctionType, _named("function")),
    (BuiltinFunctionType, _named("function")),
    (MethodType, _named("method")),
    (ModuleType, lambda value, _limit: f"<module {value.__name__}>"),
    (UserString, lambda value, _limit: value.data),
)
#: Containers of the application; their methods are called, because reading is their purpose.
_ABSTRACT: tuple[tuple[type, Shape], ...] = (
    (Mapping, lambda value, _limit: Pairs(value.items(), len(value))),
    (Sequence, lambda value, _limit: Items(value, len(value))),
    (ItemsView, lambda value, _limit: Items(value, len(value))),
    (ValuesView, lambda value, _limit: Items(value, len(value))),
    (AbstractSet, _set),
)
