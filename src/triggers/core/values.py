"""Values: JSON plus dates, times, decimals, UUIDs and bytes, which come back as they went in.

On paper each of the extra types is an object with one key, such as ``{"$date": "2026-11-22"}``; a key
of the user's that begins with ``$`` gets one more. Only exact types pass: whatever would come back as
something else, a tuple or a subclass of str, is refused at the door with its path. Nothing is pickled.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
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
_HINTS = {
    tuple: "a tuple would come back as a list: make it a list",
    set: "a set has no order to keep: make it a sorted list",
    frozenset: "a set has no order to keep: make it a sorted list",
}
_dump = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=False, separators=(",", ":")
).encode


def encode(value: object, what: str, limits: Limits = DEFAULT_LIMITS) -> str:
    """Write a value as the text that storages keep.

    Args:
        value: any value of the types named above.
        what: what it is, the beginning of the path in messages ("kwargs").
        limits: sizes that it must keep to.

    Raises:
        InvalidValueError: something in it cannot be stored; the message has its path and the way out.
    """
    text = _dump(_plain(value, what, limits.nesting))
    try:
        size = len(text) if text.isascii() else len(text.encode())
    except UnicodeEncodeError as error:
        message = (
            f"{_surrogate_path(value, what)}: the text has a lone surrogate ({error.object[error.start]!r})"
        )
        raise InvalidValueError(message) from None
    if size > limits.payload:
        message = f"{what}: {size:,} bytes are more than the limit of {limits.payload:,}"
        raise InvalidValueError(message)
    return text


def decode(text: str) -> Any:
    """Read what :func:`encode` wrote; an equal value of the same types comes back."""
    return json.loads(text, object_hook=_revive) if '"$' in text else json.loads(text)


def _plain(value: object, path: str, room: int) -> Any:
    kind = type(value)
    if kind in _PLAIN:
        return value
    if kind is int:
        return _integer(value, path)
    if kind is float:
        return _finite(value, path)
    if room <= 0 and kind in (dict, list):
        message = f"{path}: nested too deep, or a container that holds itself"
        raise InvalidValueError(message)
    if kind is dict:
        return {_key(key, path): _plain(item, f"{path}.{key}", room - 1) for key, item in value.items()}  # type: ignore[attr-defined]
    if kind is list:
        return [_plain(item, f"{path}[{index}]", room - 1) for index, item in enumerate(value)]  # type: ignore[arg-type]
    return _tagged(value, path)


def _integer(value: Any, path: str) -> int:
    if INTEGER_RANGE[0] <= value <= INTEGER_RANGE[1]:
        return int(value)
    message = f"{path}: an integer of more than 64 bits; send it as a string"
    raise InvalidValueError(message)


def _finite(value: Any, path: str) -> float:
    if value - value == 0:
        return float(value)
    message = f"{path}: {value!r} is not a number that JSON has"
    raise InvalidValueError(message)


def _key(key: object, path: str) -> str:
    if type(key) is not str:
        message = f"{path}: the key {key!r} is of type {type(key).__name__}; keys must be strings"
        raise InvalidValueError(message)
    return "$" + key if key.startswith("$") else key


def _tagged(value: object, path: str) -> dict[str, Any]:
    try:
        tag, write = _ENCODE[type(value)]
    except KeyError:
        kind = type(value)
        hint = _HINTS.get(kind, "JSON values, dates, times, Decimal, UUID and bytes can be stored")
        message = f"{path}: cannot store a {kind.__module__}.{kind.__qualname__}; {hint}"
        raise InvalidValueError(message) from None
    written = write(value)
    if written is None:
        message = f"{path}: {value!r} is not a number"
        raise InvalidValueError(message)
    return {tag: written}


def _revive(found: dict[str, Any]) -> Any:
    if len(found) == 1:
        ((key, item),) = found.items()
        if key in _DECODE:
            return _DECODE[key](item)
    if any(key.startswith("$") for key in found):
        return {key.removeprefix("$"): item for key, item in found.items()}
    return found


def _surrogate_path(value: object, path: str) -> str:
    if isinstance(value, dict):
        parts = [(item, f"{path}.{key}") for key, item in value.items()]
        parts += [(key, f"the keys of {path}") for key in value]
    elif isinstance(value, list):
        parts = [(item, f"{path}[{index}]") for index, item in enumerate(value)]
    else:
        return path if isinstance(value, str) and not _encodable(value) else ""
    return next(filter(None, (_surrogate_path(*part) for part in parts)), "")


def _encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
