"""Read a value that version 2 has stored in its cache: a pickle or JSON, perhaps compressed."""

from __future__ import annotations

import json
import zlib
from datetime import datetime
from itertools import chain
from typing import TYPE_CHECKING, Any, Final, NoReturn

from triggers.core.names import MAX_NAME
from triggers.core.values import DEFAULT_LIMITS, shown, type_name
from triggers.version2.pickles import MAX_STEPS, Foreign, read_pickle
from triggers.version2.refused import RefusedError

if TYPE_CHECKING:
    from collections.abc import Iterable

#: The greatest size of a value as it is stored, in bytes.
MAX_STORED: Final = 16 * 1024 * 1024

#: The greatest size of a value without its compression, in bytes, and of all its texts together, in
#: characters.
MAX_VALUE: Final = 64 * 1024 * 1024

#: How many values a session may have. One that is in several places counts in each of them.
MAX_VALUES: Final = MAX_STEPS

#: How deep containers may be nested.
MAX_DEPTH: Final = DEFAULT_LIMITS.nesting

#: The first byte of a pickle, of JSON, and of what zlib has compressed.
_PICKLE: Final = b"\x80"
_JSON: Final = b"{"
_ZLIB: Final = b"x"

_PLAIN: Final = frozenset({str, int, float, bool, bytes, datetime, type(None)})


def read_session(raw: bytes) -> dict[str, Any]:
    """Return the session in a value of the cache, as plain data.

    Raises:
        RefusedError: the value is too large or damaged, or has something else than plain data in it.
    """
    if len(raw) > MAX_STORED:
        raise RefusedError(("", f"it has more than {MAX_STORED:,} bytes"))
    if raw.startswith(_ZLIB):
        raw = _inflated(raw)
    foreign = None
    if raw.startswith(_PICKLE):
        value, foreign = read_pickle(raw)
    elif raw.startswith(_JSON):
        value = _read_json(raw)
    else:
        raise RefusedError(("", f"it is neither a pickle nor JSON, nor that by zlib: {shown(raw[:8])}"))
    _Walk().check(value, MAX_DEPTH)
    if foreign is not None:  # it was replaced or thrown away
        raise RefusedError(("", foreign.what))
    if type(value) is not dict:
        raise RefusedError(("", f"a session is a mapping, not a {type_name(type(value))}"))
    return value


def _inflated(raw: bytes) -> bytes:
    inflater = zlib.decompressobj()
    try:
        found = inflater.decompress(raw, MAX_VALUE + 1)
    except zlib.error as error:
        raise RefusedError(("", f"the compression by zlib is damaged: {error}")) from None
    if len(found) > MAX_VALUE:
        raise RefusedError(("", f"it has more than {MAX_VALUE:,} bytes without its compression"))
    if not inflater.eof or inflater.unused_data:
        raise RefusedError(("", "the compression by zlib does not end where the value ends"))
    return found


def _read_json(raw: bytes) -> Any:
    """Read JSON that has a limited number of values: each but the first follows one of these characters."""
    if sum(map(raw.count, (b",", b"[", b":", b"{"))) > MAX_VALUES:
        raise RefusedError(("", f"it has more than {MAX_VALUES:,} values"))
    try:
        return json.loads(raw, parse_constant=_no_number)
    except (ValueError, RecursionError) as error:
        raise RefusedError(("", f"the JSON is damaged: {error}")) from None


def _no_number(name: str) -> NoReturn:
    message = f"{name} is not a number"
    raise ValueError(message)


class _Walk:
    """Visits every value, in each place where it is, and counts."""

    def __init__(self) -> None:
        self.values = 0
        self.text = 0

    def check(self, value: Any, room: int) -> None:
        """Check that a value is plain data within the limits.

        Raises:
            RefusedError: it is not; the error has the path.
        """
        self._count(value)
        kind = type(value)
        if kind in _PLAIN:
            return
        if isinstance(value, Foreign):
            raise RefusedError(("", value.what))
        if room == 0:
            raise RefusedError(("", f"it is nested deeper than {MAX_DEPTH} containers, or contains itself"))
        for part, item in _items(value):
            try:
                self.check(item, room - 1)
            except RefusedError as refused:
                raise refused.inside(part) from None

    def _count(self, value: Any) -> None:
        self.values += 1
        if type(value) in {str, bytes}:
            self.text += len(value)
        if self.values > MAX_VALUES or self.text > MAX_VALUE:
            message = f"it has more than {MAX_VALUES:,} values, or {MAX_VALUE:,} characters of text"
            raise RefusedError(("", message))


def _items(value: Any) -> Iterable[tuple[str, Any]]:
    """Return the parts of a container, each with its part of a path."""
    if type(value) is dict:
        return chain(((_part(key), item) for key, item in value.items()), (("", key) for key in value))
    if type(value) in {list, tuple}:
        return ((f"[{index}]", item) for index, item in enumerate(value))
    return (("", Foreign(f"a {type_name(type(value))} is not read")),)


def _part(key: Any) -> str:
    plain = type(key) is str and len(key) <= MAX_NAME and key.isprintable()
    return str(key) if plain else f"[{shown(key)}]"
