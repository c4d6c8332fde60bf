"""Walks over any value and returns bounded plain data."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from itertools import islice
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any
from uuid import UUID

from triggers.logs.sanitizing.plain import SanitizedContext
from triggers.logs.sanitizing.shapes import (
    Items,
    Pairs,
    exact_moment,
    exact_time,
    marker,
    shape_of,
    type_name,
)
from triggers.logs.sanitizing.texts import ELLIPSIS, fit_text, storable
from triggers.redaction import REDACTED, SecretKeys

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from triggers.logs.settings import LogSettings

#: Characters of a key, and of a path in the list of cuts.
MAX_KEY = 256
#: Paths of cuts that are listed.
MAX_CUTS = 20
#: Integers outside of these are written as text, because many readers of JSON would round them.
SMALLEST, LARGEST = -(2**63), 2**64 - 1
#: Bytes of the mark of a cut.
MARK = 48
#: Bytes of a context that are reserved for the marks of cuts.
RESERVE = 512
#: Keys for which it is remembered whether they name a secret.
MAX_KNOWN_KEYS = 4_096
_DICT_ITEMS: type = type({}.items())
#: Keys of a dict up to which each is examined on its own.
FEW_KEYS = 4
#: Times that a value may be converted to another type (an Enum of Paths) before only its type is recorded.
MAX_TURNS = 4
#: Bytes of a control character in JSON, at most.
WIDEST = 6
#: Characters of a string up to which it is taken without searching for cuts.
SHORT = 1_024


@dataclass(slots=True)
class Keys:
    """Decides which keys name a secret, and remembers the answers."""

    is_secret: SecretKeys
    known: dict[str, bool] = field(default_factory=dict)


class Walk:
    """One walk over one value, with the rest of its budget of bytes and nodes."""

    __slots__ = (
        "budget",
        "cuts",
        "hidden",
        "is_secret",
        "known_keys",
        "limits",
        "max_items",
        "max_key",
        "max_string",
        "nodes",
        "open",
        "path",
        "secrets",
        "start",
        "top_items",
    )

    def __init__(  # noqa: PLR0917 - made in two places, in the same order
        self,
        limits: LogSettings,
        keys: Keys,
        secrets: tuple[str, ...],
        budget: int,
        nodes: int,
        max_string: int,
    ) -> None:
        self.limits: LogSettings = limits
        self.secrets: tuple[str, ...] = secrets
        self.budget: int = budget
        self.nodes: int = nodes
        self.start: tuple[int, int] = (budget, nodes)
        self.max_string: int = max_string
        self.max_key: int = MAX_KEY
        self.max_items: int = limits.max_items
        self.top_items: int = limits.max_items
        self.is_secret: SecretKeys = keys.is_secret
        # A key that was harmless before may have become a secret value since.
        self.known_keys: dict[str, bool] = {} if secrets else keys.known
        self.open: set[int] = set()
        self.path: list[str] = []
        self.cuts: list[str] = []
        self.hidden: int = 0

    def result(self, data: dict[str, Any]) -> SanitizedContext:
        """Return the walked data as a context, with its size and its cuts."""
        budget, nodes = self.start
        flat = not any(type(item) in (dict, list) for item in data.values())
        size = min(max(budget - self.budget, 2) + RESERVE, self.limits.max_context)
        return SanitizedContext(
            data, size, max(budget - self.budget, 2), nodes - self.nodes, flat, tuple(self.cuts)
        )

    def _cut(self, where: str | None = None) -> None:
        if len(self.cuts) < MAX_CUTS:
            parts = ["context", *self.path] if where is None else ["context", *self.path, where]
            path = ".".join(parts)
            self.cuts.append(path if len(path) <= MAX_KEY else path[:MAX_KEY] + ELLIPSIS)

    def value(self, value: Any, depth: int) -> Any:  # noqa: PLR0911 - one type each, the frequent ones first
        """Return the plain data of a value at this depth."""
        self.nodes -= 1
        kind = type(value)
        if kind is str:
            return self._string(value)
        if value is None or kind is bool:
            self.budget -= 6
            return value
        if kind is int:
            return self._integer(value)
        if kind is float and math.isfinite(value):
            self.budget -= len(float.__repr__(value)) + 1
            return value
        if kind is dict:
            return self._opened(value, self._mapping, value.items(), len(value), depth)
        if kind is list or kind is tuple:
            return self._opened(value, self._sequence, value, len(value), depth)
        try:
            return self._other(value, depth)
        except Exception:  # noqa: BLE001 - a metaclass may refuse even to be looked up
            return self._string(marker(value))

    def _other(self, value: Any, depth: int) -> Any:
        """Convert a value of any other type to its contents."""
        turned = value
        for _ in range(MAX_TURNS):
            exact = _EXACT.get(type(turned))
            if exact is not None:
                return self._exact(exact, turned)
            turned = self._shaped(turned)
            kind = type(turned)
            if kind is Pairs:
                return self._opened(value, self._mapping, turned.pairs, turned.total, depth)
            if kind is Items:
                return self._opened(value, self._sequence, turned.items, turned.total, depth)
            if kind in _JSON:
                self.nodes += 1
                return self._within(value, turned, depth)
        return self._string(marker(value))

    def _within(self, value: Any, turned: Any, depth: int) -> Any:
        """Walk over a converted value, and detect a converter that returns its own argument again."""
        if id(value) in self.open:
            return self._string("<cycle>")
        self.open.add(id(value))
        try:
            return self.value(turned, depth)
        finally:
            self.open.discard(id(value))

    def _shaped(self, value: Any) -> Any:
        kind = type(value)
        try:
            for base, convert in self.limits.converters:
                if issubclass(kind, base):
                    return convert(value)
            return shape_of(kind)(value, self.limits.max_string)
        except Exception as problem:  # noqa: BLE001 - the type's own code may raise anything
            return f"<{type_name(kind)}: unreadable, {type_name(type(problem))}>"

    def _exact(self, check: Callable[[Any], Any], value: Any) -> Any:
        try:
            fit = check(value)
        except Exception as problem:  # noqa: BLE001 - a time zone is the application's own code
            fit = f"<{type_name(type(value))}: unreadable, {type_name(type(problem))}>"
        kind = type(fit)
        if kind is str:
            return self._string(fit)
        if kind is bytes:
            return self._binary(fit)
        self.budget -= 60 if kind is not Decimal else 40 + len(str(fit))
        return fit

    def _binary(self, value: bytes) -> Any:
        shape = shape_of(bytes)(value, min(self.limits.max_string, max(self.budget // 2, 0)))
        if type(shape) is str:
            self._cut()
            return self._string(shape)
        if any(secret.encode() in value for secret in self.secrets):
            return self._string(REDACTED)
        self.budget -= 24 + len(value) * 4 // 3
        return shape

    def _string(self, text: str) -> str:
        if len(text) <= SHORT and not self.secrets and "=" not in text and "://" not in text:
            if not text.isprintable():
                text = storable(text)
            size = _size(text)
            if size <= self.budget and len(text) <= self.max_string:
                self.budget -= size
                return text
        fit, was_cut = fit_text(text, self.max_string, self.secrets)
        size = _size(fit)
        if size > self.budget:
            fit, was_cut = fit_text(fit, max(self.budget // WIDEST, 0), self.secrets)[0], True
            size = _size(fit)
        if was_cut:
            self._cut()
        self.budget -= size
        return fit

    def _integer(self, value: int) -> Any:
        if SMALLEST <= value <= LARGEST:
            self.budget -= value.bit_length() // 3 + 4
            return value
        bits = value.bit_length()
        return self._string(str(value) if bits <= MAX_KEY * 3 else f"<integer of {bits} bits>")

    def _opened(
        self,
        value: object,
        fill: Callable[[Any, int, int, int], Any],
        parts: Iterable[Any],
        total: int,
        depth: int,
    ) -> Any:
        if depth >= self.limits.max_depth:
            self._cut()
            return self._string(f"{ELLIPSIS}[truncated at depth {depth}]")
        if id(value) in self.open:
            return self._string("<cycle>")
        self.open.add(id(value))
        self.budget -= 3
        try:
            return fill(parts, total, depth + 1, self.max_items if depth else self.top_items)
        finally:
            self.open.discard(id(value))

    def _mapping(  # noqa: C901 - one loop without calls: a thousand values take a millisecond
        self, pairs: Iterable[tuple[Any, Any]], total: int, depth: int, limit: int
    ) -> dict[str, Any]:
        out: dict[str, Any] = {}
        path, known = self.path, self.known_keys
        taken = 0
        try:
            if total > FEW_KEYS and not self.secrets:
                self._learn(pairs, limit)
            for key, item in islice(pairs, limit):
                if self.budget <= 0 or self.nodes <= 0:
                    break
                taken += 1
                secret = known.get(key) if type(key) is str else None
                name = key
                if secret is None:
                    name, secret = self._key(key)
                if name in out:
                    name = free_name(name, out)
                # An identifier needs no escapes; the size of any other key must be measured.
                need = 4 + (len(name) if name.isascii() and name.isidentifier() else _size(name))
                if need > self.budget:
                    self.budget, taken = 0, taken - 1
                    break
                self.budget -= need
                if secret:
                    self.nodes -= 1
                    self.budget -= 14
                    out[name] = REDACTED
                    self.hidden += 1
                    continue
                path.append(name)
                out[name] = self.value(item, depth)
                path.pop()
        except Exception as problem:  # noqa: BLE001 - iterating a mapping may be its own code
            del path[depth - 1 :]
            out[ELLIPSIS] = self._string(f"<unreadable, {type_name(type(problem))}>")
            self.budget -= 7
            self._cut(ELLIPSIS)
        else:
            if taken < total:
                out[ELLIPSIS] = f"[truncated {total - taken} items]"
                self.budget -= MARK
                self._cut(ELLIPSIS)
        if "value" in out:
            self._hide_named(out)
        return out

    def _learn(self, pairs: Iterable[tuple[Any, Any]], limit: int) -> None:
        """Examine the new keys of a dict together: one search costs little more than that of a single key."""
        if type(pairs) is not _DICT_ITEMS:
            return
        fresh = [key for key, _ in islice(pairs, limit) if type(key) is str and key not in self.known_keys]
        if not fresh or max(map(len, fresh)) > MAX_KEY or len(self.known_keys) + limit > MAX_KNOWN_KEYS:
            return
        together = " ".join(fresh)
        if together.isprintable() and not self.is_secret.may_be(together):
            self.known_keys.update(dict.fromkeys(fresh, False))

    def _hide_named(self, out: dict[str, Any]) -> None:
        """Hide the value of ``{"name": "Authorization", "value": …}``, a usual form of HTTP headers."""
        for label in ("name", "key", "header"):
            name = out.get(label)
            # A name that was cut may have named a secret.
            if type(name) is str and (self.is_secret(name) or f"{ELLIPSIS}[truncated" in name):
                out["value"] = REDACTED
                self.budget -= 14
                self.hidden += 1

    def _sequence(self, items: Iterable[Any], total: int, depth: int, limit: int) -> list[Any]:
        out: list[Any] = []
        path = self.path
        taken = 0
        pair = total == 2  # noqa: PLR2004 - a pair has two items
        first = None
        try:
            for item in islice(items, limit):
                if self.budget <= 0 or self.nodes <= 0:
                    break
                taken += 1
                if pair and taken == total and self.is_secret(_name(first, out[0])):
                    self.nodes -= 1
                    self.budget -= 14
                    out.append(REDACTED)
                    self.hidden += 1
                    continue
                if taken == 1:
                    first = item
                path.append(str(taken - 1))
                out.append(self.value(item, depth))
                path.pop()
        except Exception as problem:  # noqa: BLE001 - iterating a sequence may be its own code
            del path[depth - 1 :]
            out.append(self._string(f"<unreadable, {type_name(type(problem))}>"))
            self._cut(ELLIPSIS)
        else:
            if taken < total:
                out.append(f"{ELLIPSIS}[truncated {total - taken} items]")
                self.budget -= MARK
                self._cut(ELLIPSIS)
        return out

    def _key(self, key: Any) -> tuple[str, bool]:
        """Return the key as a string, and whether it names a secret."""
        text = key if type(key) is str else self._key_text(key)
        secret = self.is_secret(text)
        if len(text) > self.max_key or not text.isprintable() or self.secrets:
            text = fit_text(text, self.max_key, self.secrets)[0]
        if len(self.known_keys) >= MAX_KNOWN_KEYS:
            self.known_keys.clear()
        if text.isprintable():
            self.known_keys[text] = secret
        return text, secret

    def _key_text(self, key: Any) -> str:  # noqa: PLR0911 - one type each
        for _ in range(MAX_TURNS):
            kind = type(key)
            if kind is str:
                return key  # type: ignore[no-any-return]
            if key is None or kind is bool:
                return {None: "null", True: "true", False: "false"}[key]
            if kind is tuple and len(key) <= MAX_TUPLE_KEY:
                return f"({', '.join(self._key_text(item) for item in key)})"
            if kind is bytes:
                return _text(key)
            if kind is int and key.bit_length() > MAX_KEY * 3:
                return f"<integer of {key.bit_length()} bits>"
            if kind in _KEYS:
                return str(key)
            key = self._shaped(key)
        return marker(key)


#: Items of a tuple that is a key, up to which they are written out.
MAX_TUPLE_KEY = 8
_KEYS = frozenset({int, float, date, timedelta, Decimal, UUID})
_JSON = frozenset({str, bool, int, type(None), dict, list, tuple})


def _name(raw: Any, plain: Any) -> str:
    """Return the first item of a pair as a name, uncut if possible."""
    return raw if type(raw) is str else plain if type(plain) is str else _text(raw)


def _text(value: Any) -> str:
    """Return a key of type bytes, such as a header of a request, as text."""
    return value[:MAX_KEY].decode("latin-1") if type(value) is bytes else ""


def free_name(name: str, taken: Mapping[str, Any]) -> str:
    """Return the name with the first number that makes it unique, so that no colliding key is lost."""
    number = 2
    while f"{name} ({number})" in taken:
        number += 1
    return f"{name} ({number})"


def _size(text: str) -> int:
    """Return the bytes of a string in JSON, including its quotes and a comma."""
    written = encode_basestring(text)
    return 1 + (len(written) if written.isascii() else len(written.encode()))


def _float(value: float) -> Any:
    return value if math.isfinite(value) else f"<{value}>"


def _decimal(value: Decimal) -> Any:
    if value.__sizeof__() > MAX_DECIMAL:
        return "<decimal.Decimal of very many digits>"
    return value if value.is_finite() else f"<{value}>"


#: Bytes of memory of a Decimal with about 600 digits.
MAX_DECIMAL = 400


def _fixed(value: Any, exact: Callable[[Any], Any]) -> Any:
    return value if value.tzinfo is None or type(value.tzinfo) is timezone else exact(value)


def _same(value: Any) -> Any:
    return value


#: Types that storages store unchanged, and the check of each.
_EXACT: dict[type, Callable[[Any], Any]] = {
    float: _float,
    Decimal: _decimal,
    datetime: lambda value: _fixed(value, exact_moment),
    time: lambda value: _fixed(value, exact_time),
    date: _same,
    timedelta: _same,
    UUID: _same,
    bytes: _same,
}
