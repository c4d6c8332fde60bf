"""Values: JSON plus dates, times, decimals, UUIDs and bytes, which come back as they went in.

On paper each of the extra types is an object with one key, such as ``{"$date": "2026-11-22"}``; a key
of the user's that begins with ``$`` gets one more. Only exact types pass: whatever would come back as
something else, a tuple or a subclass of str, is refused at the door with its path. Nothing is pickled.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from functools import cache
from typing import TYPE_CHECKING, Any
from uuid import UUID

from triggers.exceptions import InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of anything is accepted; every limit is checked before anything is written.

    Attributes:
        payload: size of the kwargs of a firing, or of a result, as stored, in bytes of UTF-8.
        nesting: how deep containers may stand in each other.
        tasks: how many tasks a configuration may have.
        cascade_depth: how many firings in a row may come out of one another, so that tasks that fire
            each other without end are stopped.
    """

    payload: int = 1024 * 1024
    nesting: int = 100
    tasks: int = 10_000
    cascade_depth: int = 100


DEFAULT_LIMITS = Limits()

#: Integers outside of these are refused: many a reader of JSON would round them.
INTEGER_RANGE = (-(2**63), 2**64 - 1)

#: Longest path in a message, in characters.
MAX_PATH = 300

_ENCODE: dict[type, tuple[str, Callable[[Any], Any]]] = {
    datetime: ("$datetime", datetime.isoformat),
    date: ("$date", date.isoformat),
    time: ("$time", time.isoformat),
    timedelta: ("$timedelta", lambda value: [value.days, value.seconds, value.microseconds]),
    Decimal: ("$decimal", lambda value: str(value) if value.is_finite() else None),
    UUID: ("$uuid", str),
    bytes: ("$bytes", lambda value: base64.b64encode(value).decode("ascii")),
}
_DECODE: dict[str, Callable[[Any], Any]] = {
    "$datetime": datetime.fromisoformat,
    "$date": date.fromisoformat,
    "$time": time.fromisoformat,
    "$timedelta": lambda parts: timedelta(*parts),
    "$decimal": Decimal,
    "$uuid": UUID,
    "$bytes": base64.b64decode,
}
_PLAIN = frozenset({str, bool, type(None)})
_HINTS: dict[type, str] = {
    tuple: "a tuple would come back as a list: make it a list",
    set: "a set has no order to keep: make it a sorted list",
    frozenset: "a set has no order to keep: make it a sorted list",
}


def encode(value: object, what: str, limits: Limits = DEFAULT_LIMITS) -> str:
    """Write a value as the text that storages keep.

    Args:
        value: any value of the types named above.
        what: what it is, the beginning of the path in messages ("kwargs").
        limits: sizes that it must keep to.

    Raises:
        InvalidValueError: something in it cannot be stored; the message has its path and the way out.
    """
    try:
        written: bytes = _pydantic().to_json(_plain(value, limits.nesting))
    except _Refused as refused:
        path = "".join(reversed(refused.path))
        shown = path if len(path) <= MAX_PATH else f"{path[:MAX_PATH]}…"
        message = f"{what}{shown}: {refused.why}"
        raise InvalidValueError(message) from None
    except _pydantic().PydanticSerializationError:
        message = (
            f"{what}{_surrogate_path(value)}: the text has a lone surrogate, which no encoding can carry"
        )
        raise InvalidValueError(message) from None
    if len(written) > limits.payload:
        message = f"{what}: {len(written):,} bytes are more than the limit of {limits.payload:,}"
        raise InvalidValueError(message)
    return written.decode()


def mapping_of(value: object, what: str) -> dict[Any, Any]:
    """A mapping, None being the empty one, as a dictionary that can be encoded; an exact one is not copied.

    Raises:
        InvalidValueError: it is not a mapping, or one that cannot be read.
    """
    if type(value) is dict:
        return value
    if value is not None and not isinstance(value, Mapping):
        message = f"{what}: a mapping is needed, not a {type(value).__name__}"
        raise InvalidValueError(message)
    try:
        return {} if value is None else dict(value)
    except Exception as error:
        message = f"{what}: the mapping cannot be read: {shown(error)}"
        raise InvalidValueError(message) from error


def to_datetime(at: int) -> datetime:
    """An aware UTC datetime from microseconds since the Unix epoch."""
    return datetime.fromtimestamp(at // 1_000_000, UTC) + timedelta(microseconds=at % 1_000_000)


def decode(text: str) -> Any:
    """Read what :func:`encode` wrote; an equal value of the same types comes back."""
    return json.loads(text, object_hook=_revive) if '"$' in text else _pydantic().from_json(text)


def to_json_text(value: Any) -> str:
    """Plain JSON data as text, without the checks and the extra types of :func:`encode`."""
    text: bytes = _pydantic().to_json(value)
    return text.decode()


def from_json_text(text: str) -> Any:
    """Read what :func:`to_json_text` wrote."""
    return _pydantic().from_json(text)


@cache
def _pydantic() -> Any:
    """Return what reads and writes JSON; it takes long to import, so that the first value does it."""
    import pydantic_core  # noqa: PLC0415 - see above

    return pydantic_core


class _Refused(Exception):  # noqa: N818 - never leaves this page
    """A value that cannot be stored; each container that it stands in adds its part to the path."""

    def __init__(self, why: str) -> None:
        self.why = why
        self.path: list[str] = []


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
    return _tagged(value)


def _less(room: int) -> int:
    if room <= 0:
        raise _Refused("nested too deep, or a container that holds itself")
    return room - 1


def _plain_dict(value: dict[Any, Any], room: int) -> dict[str, Any]:
    plain = {}
    for key, item in value.items():
        if type(key) is not str:
            raise _Refused(f"the key {shown(key)} is of type {type(key).__name__}; keys must be strings")
        try:
            kept = item if type(item) in _PLAIN else _plain(item, room)
        except _Refused as refused:
            refused.path.append(f".{key}")
            raise
        plain["$" + key if key.startswith("$") else key] = kept
    return plain


def shown(value: object) -> str:
    """A few words for a value that may be anybody's, whose repr may fail or have no end."""
    try:
        shown = repr(value)
    except Exception:  # noqa: BLE001 - on the way to say what is wrong, whatever its repr raises
        return "without a repr"
    return shown if len(shown) <= MAX_PATH else f"{shown[:MAX_PATH]}…"


def _plain_list(value: list[Any], room: int) -> list[Any]:
    plain = []
    for index, item in enumerate(value):
        try:
            plain.append(_plain(item, room))
        except _Refused as refused:
            refused.path.append(f"[{index}]")
            raise
    return plain


def _number(value: float) -> float:
    if value - value != 0:
        raise _Refused(f"{value!r} is not a number that JSON has")
    if type(value) is int and not INTEGER_RANGE[0] <= value <= INTEGER_RANGE[1]:
        raise _Refused("an integer of more than 64 bits; send it as a string")
    return value


def _tagged(value: object) -> dict[str, Any]:
    kind = type(value)
    if kind not in _ENCODE:
        hint = _HINTS.get(kind, "JSON values, dates, times, Decimal, UUID and bytes can be stored")
        raise _Refused(f"cannot store a {kind.__module__}.{kind.__qualname__}; {hint}")
    tag, write = _ENCODE[kind]
    try:
        written = write(value)
    except Exception as error:  # noqa: BLE001 - a time asks its time zone, which may be anybody's code
        raise _Refused(f"this {kind.__name__} cannot be written: {shown(error)}") from None
    if written is None:
        raise _Refused(f"{value!r} is not a number")
    return {tag: written}


def _revive(found: dict[str, Any]) -> Any:
    if len(found) == 1:
        ((key, item),) = found.items()
        if key in _DECODE:
            return _DECODE[key](item)
    if any(key.startswith("$") for key in found):
        return {key.removeprefix("$"): item for key, item in found.items()}
    return found


def _surrogate_path(value: object) -> str | None:
    """Where the lone surrogate is, None if it is not in this value."""
    if isinstance(value, str):
        return None if _encodable(value) else ""
    parts: list[tuple[str, object]] = []
    if isinstance(value, dict):
        parts = [(f".{key!r}", part) for key, item in value.items() for part in (key, item)]
    elif isinstance(value, list):
        parts = [(f"[{index}]", item) for index, item in enumerate(value)]
    found = ((place, _surrogate_path(part)) for place, part in parts)
    return next((place + path for place, path in found if path is not None), None)


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
