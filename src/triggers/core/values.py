"""Values: what kwargs, results and metadata may hold, and how it is written.

JSON, dates, times, durations, decimals, UUIDs, bytes, tuples, sets, frozensets and mappings with any of these
as keys come back as they went in. A type that JSON lacks is stored as an object with one key, such as
``{"$date": "2026-11-22"}`` or ``{"$tuple": [1, 2]}``. A user's key that begins with ``$`` is stored with one
more.

Values of other types are stored as plain data, and come back as that: subclasses as their base, other
mappings as dicts, other sequences as lists, other sets as sets, enums as their value, and dataclasses and
pydantic models as dicts. Everything else is refused with its path. Nothing is pickled.
"""

from __future__ import annotations

import base64
import dataclasses
import json
from collections import UserString
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum
from functools import cache
from itertools import islice
from typing import TYPE_CHECKING, Any
from uuid import UUID

from triggers.exceptions import InvalidOptionError, InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


@dataclass(frozen=True, slots=True)
class Limits:
    """The limits for what is stored. Each is checked before anything is written.

    Attributes:
        payload: maximum size of the kwargs of a firing or of a result, as stored, in bytes of UTF-8.
        nesting: maximum depth of nested containers.
        tasks: maximum number of tasks in a configuration.
        cascade_depth: maximum number of firings that lead to one another. It stops tasks that fire each other
            forever.
    """

    payload: int = 1024 * 1024
    nesting: int = 100
    tasks: int = 10_000
    cascade_depth: int = 100

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            given = getattr(self, field.name)
            if type(given) is not int or given < 0:
                message = f"Limits: {field.name} must be a whole number, 0 or more, not {shown(given)}"
                raise InvalidOptionError(message)


DEFAULT_LIMITS = Limits()

#: Integers outside of this range are refused because many JSON parsers would round them.
INTEGER_RANGE = (-(2**63), 2**64 - 1)

#: Maximum length of a path in a message, in characters.
MAX_PATH = 300

#: Items that are read of what is not a plain list, tuple, dict or set: such a one may have no end.
MAX_ITEMS = 1_000_000

_ENCODE: dict[type, tuple[str, Callable[[Any], Any]]] = {
    datetime: ("$datetime", datetime.isoformat),
    date: ("$date", date.isoformat),
    time: ("$time", time.isoformat),
    timedelta: ("$timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    Decimal: ("$decimal", lambda value: Decimal.__str__(value) if value.is_finite() else None),
    UUID: ("$uuid", UUID.__str__),
    bytes: ("$bytes", lambda value: base64.b64encode(value).decode("ascii")),
}


def _of_list(make: Callable[[list[Any]], Any]) -> Callable[[Any], Any]:
    def read(parts: Any) -> Any:
        if type(parts) is not list:
            message = "a list is needed"
            raise TypeError(message)
        return make(parts)

    return read


_DECODE: dict[str, Callable[[Any], Any]] = {
    "$datetime": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$time": time.fromisoformat,
    "$timedelta": lambda parts: timedelta(*parts),
    "$decimal": Decimal,
    "$uuid": UUID,
    "$bytes": base64.b64decode,
    "$tuple": _of_list(tuple),
    "$set": _of_list(set),
    "$frozenset": _of_list(frozenset),
    "$dict": _of_list(lambda flat: dict(zip(flat[::2], flat[1::2], strict=True))),
}
_PLAIN = frozenset({str, bool, type(None)})


def encode(value: object, what: str, limits: Limits = DEFAULT_LIMITS) -> str:
    """Encode a value as the text that storages keep.

    Args:
        value: a value of the types in the module's docstring.
        what: what the value is, such as "kwargs". Paths in messages begin with it.
        limits: the limits for its size and nesting.

    Raises:
        InvalidValueError: a part of it cannot be stored. The message has its path and says what to do.
    """
    plain = None
    try:
        plain = _plain(value, limits.nesting)
        written: bytes = _pydantic().to_json(plain)
    except _Refused as refused:
        path = "".join(reversed(refused.path))
        message = f"{what}{_cut(path)}: {refused.why}"
        raise InvalidValueError(message) from None
    except RecursionError:
        message = f"{what}: {_TOO_DEEP}"
        raise InvalidValueError(message) from None
    except _pydantic().PydanticSerializationError:
        found = _surrogate_path(plain)
        why = _TOO_DEEP if found is None else "the text has a lone surrogate, which no encoding can carry"
        message = f"{what}{_cut(found or '')}: {why}"
        raise InvalidValueError(message) from None
    except Exception as error:  # noqa: BLE001 - a type may be anybody's code, down to its hash
        message = f"{what}: it cannot be read: {shown(error)}"
        raise InvalidValueError(message) from None
    if len(written) > limits.payload:
        message = f"{what}: {len(written):,} bytes are more than the limit of {limits.payload:,}"
        raise InvalidValueError(message)
    return written.decode()


def encode_mapping(value: object, what: str, limits: Limits = DEFAULT_LIMITS) -> str:
    """Write kwargs, a result or metadata: a mapping, a dataclass, a pydantic model, or None for no keys.

    Args:
        value: what was given.
        what: what it is, the beginning of the path in messages ("kwargs").
        limits: sizes that it must keep to.

    Raises:
        InvalidValueError: it is something else, or something in it cannot be stored.
    """
    kind = type(value)
    if value is None:
        return "{}"
    if kind is not dict and not _is_mapping(kind):
        message = f"{what}: must be a mapping, not a {type_name(kind)}"
        raise InvalidValueError(message)
    return encode(value, what, limits)


def _is_mapping(kind: type) -> bool:
    try:
        return issubclass(kind, Mapping) or _is_record(kind)
    except Exception:  # noqa: BLE001 - a metaclass may be anybody's code
        return False


def is_tagged(found: dict[str, Any]) -> bool:
    """Whether an object of JSON stands for a value of a type that JSON lacks."""
    return len(found) == 1 and found.keys() <= _DECODE.keys()


def canonical(text: str) -> str:
    """Return what :func:`encode` wrote with the keys of every mapping in order: the same for equal values."""
    return json.dumps(json.loads(text, object_hook=_ordered), sort_keys=True)


def _ordered(found: dict[str, Any]) -> dict[str, Any]:
    if found.keys() != {"$dict"}:
        return found
    flat = found["$dict"]
    pairs = sorted(zip(flat[::2], flat[1::2], strict=True), key=lambda pair: json.dumps(pair, sort_keys=True))
    return {"$dict": pairs}


def to_datetime(at: int) -> datetime:
    """Return the aware UTC datetime for microseconds since the Unix epoch."""
    return datetime.fromtimestamp(at // 1_000_000, UTC) + timedelta(microseconds=at % 1_000_000)


def decode(text: str) -> Any:
    """Return the value that :func:`encode` encoded, with the same types."""
    return json.loads(text, object_hook=_revive) if '"$' in text else _pydantic().from_json(text)


def to_json_text(value: Any) -> str:
    """Return plain JSON data as text, without the checks and the extra types of :func:`encode`."""
    text: bytes = _pydantic().to_json(value)
    return text.decode()


def from_json_text(text: str) -> Any:
    """Return the data that :func:`to_json_text` wrote as text."""
    return _pydantic().from_json(text)


@cache
def _pydantic() -> Any:
    """Return pydantic_core, which is imported at the first use because that takes long."""
    import pydantic_core  # noqa: PLC0415 - see above

    return pydantic_core


class _Refused(Exception):  # noqa: N818 - it never leaves this module
    """A value cannot be stored. Each container that contains it adds its part to the path."""

    def __init__(self, why: str) -> None:
        self.why = why
        self.path: list[str] = []


_TOO_DEEP = "nested too deep, or a container that holds itself"


def _plain(value: Any, room: int) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is int or kind is float:
        return _number(value)
    if kind is dict:
        return _plain_dict(value, _less(room))
    if kind is list:
        return _plain_list(value, _less(room))
    return _tagged(value, kind, room)


def _other(value: Any, kind: type, room: int) -> Any:
    if kind is tuple:
        return {"$tuple": _plain_list(value, _less(room))}
    if kind is set or kind is frozenset:
        return {f"${kind.__name__}": _plain_set(value, _less(room))}
    return _plain(_base(value), room)


def _less(room: int) -> int:
    if room <= 0:
        raise _Refused(_TOO_DEEP)
    return room - 1


def _plain_dict(value: dict[Any, Any], room: int) -> dict[str, Any]:
    plain = {}
    for key, item in value.items():
        if type(key) is not str:
            return _plain_pairs(value, room)
        try:
            kept = item if type(item) in _PLAIN else _plain(item, room)
        except _Refused as refused:
            refused.path.append(f".{key}")
            raise
        plain["$" + key if key.startswith("$") else key] = kept
    return plain


def _plain_pairs(value: dict[Any, Any], room: int) -> dict[str, Any]:
    """Write a mapping whose keys are not all plain strings; as an object if all are taken as strings."""
    pairs = []
    for key, item in value.items():
        try:
            pairs.append((_plain_key(key, room), _plain(item, room)))
        except _Refused as refused:
            refused.path.append(f"[{shown(key)}]")
            raise
    keys = {json.dumps(key, sort_keys=True) for key, _ in pairs}
    if len(keys) < len(pairs):
        raise _Refused("two of its keys would be the same when they come back")
    if all(type(key) is str for key, _ in pairs):
        return {"$" + key if key.startswith("$") else key: item for key, item in pairs}
    return {"$dict": [part for pair in pairs for part in pair]}


def _plain_key(value: Any, room: int) -> Any:
    plain = _plain(value, room)
    if not _is_hashable(plain):
        why = "it would come back as a list, dict or set"
        raise _Refused(f"a {type_name(type(value))} cannot be stored as a key or in a set: {why}")
    return plain


def _is_hashable(plain: Any) -> bool:
    """Whether what comes back of a plain value can be a key."""
    if type(plain) is not dict:
        return type(plain) is not list
    if not is_tagged(plain):
        return False
    ((tag, parts),) = plain.items()
    if tag in {"$tuple", "$frozenset"}:
        return all(map(_is_hashable, parts))
    return tag not in {"$set", "$dict"}


def _cut(text: str) -> str:
    return text if len(text) <= MAX_PATH else f"{text[:MAX_PATH]}…"


def shown(value: object) -> str:
    """Return the repr of any value for a message, shortened. The repr may raise or be very long."""
    try:
        return _cut(str.__str__(repr(value)))
    except Exception:  # noqa: BLE001 - the caller reports an error; a failing repr must not replace it
        return "<value without a repr>"


def type_name(kind: type, most: int = MAX_PATH) -> str:
    """Return the name of a type, with its module unless built in, without running code of its metaclass.

    Args:
        kind: the type.
        most: how many characters of the module, and of the name, are returned.
    """
    parts = []
    for attribute in ("__module__", "__qualname__"):
        try:
            part = type.__getattribute__(kind, attribute)
        except Exception:  # noqa: BLE001 - a property instead of the name may do anything
            part = "?"
        parts.append(part[:most] if type(part) is str else "?")
    return parts[1] if parts[0] == "builtins" else ".".join(parts)


def _plain_list(value: Iterable[Any], room: int) -> list[Any]:
    plain = []
    for index, item in enumerate(value):
        try:
            plain.append(_plain(item, room))
        except _Refused as refused:
            refused.path.append(f"[{index}]")
            raise
    return plain


def _plain_set(value: Iterable[Any], room: int) -> list[Any]:
    """Write the items in an order that depends on nothing but the items: equal sets are the same text."""
    plain = []
    for item in value:
        try:
            plain.append(_plain_key(item, room))
        except _Refused as refused:
            refused.path.append(f"[{shown(item)}]")
            raise
    return sorted(plain, key=json.dumps)


def _number(value: float) -> float:
    if value - value != 0:
        raise _Refused(f"JSON cannot represent {value!r}")
    if type(value) is int and not INTEGER_RANGE[0] <= value <= INTEGER_RANGE[1]:
        raise _Refused("an integer of more than 64 bits; send it as a string")
    return value


def _tagged(value: object, kind: type, room: int = 0) -> Any:
    if kind not in _ENCODE:
        return _other(value, kind, room)
    tag, write = _ENCODE[kind]
    try:
        written = write(value)
    except Exception as error:  # noqa: BLE001 - a time calls its time zone, which can be any code
        raise _Refused(f"this {type_name(type(value))} cannot be written: {shown(error)}") from None
    if written is None:
        raise _Refused(f"{shown(value)} is not a number")
    return {tag: written}


def _is_record(kind: type) -> bool:
    """Whether its instances are dataclasses or pydantic models."""
    try:
        return dataclasses.is_dataclass(kind) or callable(getattr(kind, "model_dump", None))
    except Exception:  # noqa: BLE001 - a metaclass may be anybody's code
        return False


def _base(value: Any) -> Any:
    """What a value is made of that is none of the types which come back as they are."""
    kind = type(value)
    try:
        if issubclass(kind, Enum):
            return value.value
        if _is_record(kind):
            return _fields(value) if dataclasses.is_dataclass(kind) else value.model_dump()
        for base, take in _BASES:
            if issubclass(kind, base):
                return take(value)
    except (_Refused, RecursionError):
        raise
    except Exception as error:  # noqa: BLE001 - the type may be anybody's code
        raise _Refused(f"this {type_name(kind)} cannot be read: {shown(error)}") from None
    raise _Refused(f"cannot store a {type_name(kind)}; {_STORABLE}")


_STORABLE = (
    "JSON values, dates, times, Decimal, UUID, bytes, tuples, sets, mappings, enums, dataclasses and "
    "pydantic models can be stored"
)


def _fields(value: Any) -> dict[str, Any]:
    return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}


def _exact(base: type) -> Callable[[Any], Any]:
    """Makes a value of the base of one of its subclass, if that is all that there is to it."""

    def take(value: Any) -> Any:
        ((tag, written),) = _tagged(value, base).items()
        exact = _DECODE[tag](written)
        equal = exact == value
        if not equal:
            raise _Refused(f"a {type_name(type(value))} that would come back as something else, {exact!r}")
        return exact

    return take


def _items(value: Iterable[Any]) -> Iterable[Any]:
    found = list(islice(value, MAX_ITEMS + 1))
    if len(found) > MAX_ITEMS:
        raise _Refused(f"a {type_name(type(value))} of more than {MAX_ITEMS:,} items")
    return found


#: Type → what a value of a subclass is taken as; the first that fits counts.
_BASES: tuple[tuple[type, Callable[[Any], Any]], ...] = (
    (str, str.__str__),
    (int, int.__int__),
    (float, float.__float__),
    *((base, _exact(base)) for base in (datetime, date, time, timedelta, Decimal, UUID)),
    *((base, lambda value: bytes(memoryview(value))) for base in (bytes, bytearray, memoryview)),
    (UserString, lambda value: value.data),
    (Mapping, lambda value: dict(_items(value.items()))),
    (tuple, lambda value: tuple(_items(value))),
    (Sequence, lambda value: list(_items(value))),
    (frozenset, lambda value: frozenset(_items(value))),
    (AbstractSet, lambda value: set(_items(value))),
)


def _revive(found: dict[str, Any]) -> Any:
    if len(found) == 1:
        ((key, item),) = found.items()
        if key in _DECODE:
            return _DECODE[key](item)
    if any(key.startswith("$") for key in found):
        return {key.removeprefix("$"): item for key, item in found.items()}
    return found


def _surrogate_path(plain: Any) -> str | None:
    """Where the lone surrogate is in a plain value, None if it is not in it."""
    if isinstance(plain, str):
        return None if _encodable(plain) else ""
    parts: Iterable[tuple[str, Any]] = ()
    if isinstance(plain, dict):
        parts = [(f".{key!r}", part) for key, item in plain.items() for part in (key, item)]
        if is_tagged(plain):
            parts = [("", item) for item in plain.values()]
    elif isinstance(plain, list):
        parts = [(f"[{index}]", item) for index, item in enumerate(plain)]
    found = ((place, _surrogate_path(part)) for place, part in parts)
    return next((place + path for place, path in found if path is not None), None)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
