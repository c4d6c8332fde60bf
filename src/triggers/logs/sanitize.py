"""Make bounded plain data of whatever a program hands to its logger, without ever raising or evaluating it.

The result has only the exact types that a storage can keep. What was cut says so where it was cut, and its
path is listed. Secrets are hidden before anything is cut, so that no cut can leave half of one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from functools import lru_cache
from itertools import islice
from json.encoder import encode_basestring
from typing import TYPE_CHECKING, Any
from uuid import UUID

from triggers.logs.redact import REDACTED, SecretKeys, hide, reach
from triggers.logs.shapes import Items, Pairs, exact_moment, exact_time, marker, shape_of, type_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from triggers.logs.settings import LogSettings

#: Stands for whatever was left out.
ELLIPSIS = "…"
#: Characters of a key, and of a path in the list of cuts.
MAX_KEY = 256
#: Paths that are listed; whoever finds this many knows enough.
MAX_CUTS = 20
#: Integers beyond these are written as text: many a reader of JSON would round them.
SMALLEST, LARGEST = -(2**63), 2**64 - 1
#: Part of the size that is kept for the marks of what was cut.
RESERVE = 512
#: Keys whose verdict, secret or not, is remembered.
MAX_KNOWN_KEYS = 4_096
#: Templates of messages that are remembered.
MAX_TEMPLATES = 256
#: Times that a value may turn out to be of yet another type (an Enum of Paths), before it is given up.
MAX_TURNS = 4
#: A control character of a string takes at most this many bytes in JSON.
WIDEST = 6
#: Characters of a string up to which a string of a simple context is taken as it is.
SHORT = 1_024


@dataclass(slots=True)
class Plain:
    """Bounded plain data that is never changed again, and so can be shared.

    Attributes:
        data: the context.
        size: of it as JSON, in bytes; at most, not exactly.
        weight: its size as it probably is, in bytes.
        nodes: how many values stand in it.
        flat: whether no value of it is a container.
        truncated: paths of what was cut.
    """

    data: dict[str, Any]
    size: int
    weight: int
    nodes: int
    flat: bool
    truncated: tuple[str, ...] = ()

    def copy(self) -> dict[str, Any]:
        """Return the data in containers of its own, for a reader who may change them."""
        return self.data.copy() if self.flat else copied(self.data)


#: The context of who has none.
NOTHING = Plain({}, 2, 2, 0, flat=True)


def copied(value: Any) -> Any:
    """Return plain data in containers of its own."""
    if type(value) is dict:
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if type(value) is list else value


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return one mapping over another: objects are merged at every level, all else is replaced."""
    out = dict(under)
    for key, item in over.items():
        before = out.get(key)
        out[key] = merged(before, item) if type(before) is dict and type(item) is dict else item
    return out


@lru_cache(maxsize=32)
def sanitizer(settings: LogSettings) -> Sanitizer:
    """Return the one sanitiser of these settings."""
    return Sanitizer(settings)


class Sanitizer:
    """Makes contexts and texts fit to be kept, under one set of limits; safe for threads."""

    def __init__(self, settings: LogSettings) -> None:
        self.settings = settings
        self.is_secret = SecretKeys(settings.redact)
        self.known_keys: dict[str, bool] = {}
        self._templates: dict[str, str] = {}
        self._short = min(SHORT, settings.max_string)

    def context(self, value: Any, secrets: tuple[str, ...] = ()) -> Plain:
        """Make a context of any value.

        Args:
            value: usually a mapping; what is none stands under the key ``context``.
            secrets: values to hide wherever they stand.

        Returns:
            Bounded plain data that shares no container with `value`. It never raises.
        """
        try:
            if type(value) is dict and not secrets:
                simple = self._simple(value)
                if simple is not None:
                    return simple
            return self._walked(value, secrets)
        except Exception as problem:  # noqa: BLE001 - logging never breaks the task
            lost = f"<could not be recorded: {type_name(type(problem))}>"
            return Plain({"context": lost}, RESERVE, RESERVE, 1, flat=True, truncated=("context",))

    def _simple(self, value: dict[Any, Any]) -> Plain | None:
        """Take a small flat context as it is; None when there is anything about it to be looked at twice."""
        if len(value) > self.settings.max_items:
            return None
        out: dict[str, Any] = {}
        size = 30 * len(value)
        known, short = self.known_keys, self._short
        for key, item in value.items():
            if type(key) is not str:
                return None
            secret = known.get(key)
            if secret is None:
                return None
            if secret:
                out[key] = REDACTED
                continue
            kind = type(item)
            if kind is str:
                length = len(item)
                if length > short or not item.isprintable() or "://" in item:
                    return None
                size += 2 * length if item.isascii() else 4 * length
            elif kind is int:
                if not SMALLEST <= item <= LARGEST:
                    return None
            elif kind is float:
                if not math.isfinite(item):
                    return None
            elif item is not None and kind is not bool:
                return None
            size += 2 * len(key)
            out[key] = item
        if size > self.settings.max_context - RESERVE or len(out) > self.settings.max_nodes or "value" in out:
            return None
        return Plain(out, size, size // 2, len(out), flat=True)

    def _walked(self, value: Any, secrets: tuple[str, ...]) -> Plain:
        limits = self.settings
        walk = _Walk(self, secrets, limits.max_context - RESERVE, limits.max_nodes, limits.max_string)
        data = walk.value(value, 0)
        if type(data) is not dict:
            data = {"context": data}
        return walk.result(data, limits)

    def fits(self, plain: Plain) -> bool:
        """Whether this context, merged of several, keeps to the limits of one."""
        limits = self.settings
        return (
            plain.size <= limits.max_context
            and plain.nodes <= limits.max_nodes
            and len(plain.data) <= limits.max_items
        )

    def merge(self, under: Plain, over: Plain) -> Plain:
        """Return one context over another; if both together are too large, the one below is cut."""
        if not over.data:
            return under if not over.truncated else self._labelled(under, over)
        if not under.data:
            return over if not under.truncated else self._labelled(over, under)
        flat = under.flat and over.flat
        data = {**under.data, **over.data} if flat else merged(under.data, over.data)
        truncated = under.truncated + over.truncated if under.truncated or over.truncated else ()
        size, weight = under.size + over.size, under.weight + over.weight
        both = Plain(data, size, weight, under.nodes + over.nodes, flat, truncated)
        return both if self.fits(both) else self._squeezed(under, over)

    @staticmethod
    def _labelled(plain: Plain, other: Plain) -> Plain:
        return replace(plain, truncated=plain.truncated + other.truncated)

    def _squeezed(self, under: Plain, over: Plain) -> Plain:
        limits = self.settings
        room = limits.max_context - self.measure(over.data) - RESERVE
        walk = _Walk(self, (), room, limits.max_nodes - over.nodes, limits.max_context)
        walk.top_items = max(limits.max_items - len(over.data) - 1, 0)
        rest = walk.result(walk.value(under.data, 0), limits)
        data = merged(rest.data, over.data)
        size, truncated = self.measure(data), under.truncated + rest.truncated + over.truncated
        flat = under.flat and over.flat
        return Plain(data, size, size, rest.nodes + over.nodes, flat, truncated[:MAX_CUTS])

    def measure(self, data: Any) -> int:
        """Return the size of plain data as JSON, in bytes; at most, not exactly."""
        walk = _Walk(self, (), 2**40, 2**40, 2**40)
        walk.top_items = walk.max_items = 2**40
        walk.value(data, 0)
        return 2**40 - walk.room

    def again(self, plain: Plain, secrets: tuple[str, ...]) -> Plain:
        """Return the context with values hidden that nobody knew to be secret when it was made."""
        again = self.context(plain.data, secrets)
        return replace(again, truncated=plain.truncated + again.truncated)

    def template(self, template: str) -> str:
        """Make a template fit to be kept; it is mostly one that was seen before."""
        known = self._templates.get(template)
        if known is None:
            known = self.text(template, self.settings.max_string, ())[0]
            if len(self._templates) >= MAX_TEMPLATES:
                self._templates.clear()
            self._templates[template] = known
        return known

    def text(self, text: str, limit: int, secrets: tuple[str, ...]) -> tuple[str, bool]:
        """Make an exact str fit to be kept; tell whether it was cut.

        Args:
            text: of any length.
            limit: characters that may stay; the mark of the cut comes on top.
            secrets: values to hide.
        """
        length = len(text)
        if length <= limit:
            if text.isprintable() and "://" not in text and not secrets:
                return text, False
            return storable(hide(text, secrets)), False
        beyond = reach(secrets)
        seen = hide(text[: limit + beyond], secrets)
        # The last characters seen may be the first half of a secret.
        kept = storable(seen[: max(len(seen) - beyond, 0) if length > limit + beyond else None][:limit])
        return f"{kept}{ELLIPSIS}[truncated {max(length - limit, 1)} chars]", True


def storable(text: str) -> str:
    """Return the text with whatever a database refuses written out: NUL, and surrogates without a partner."""
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-8", "backslashreplace").decode()
    return text


class _Walk:
    """One walk over one value, with what is left of its budget."""

    __slots__ = (
        "cuts",
        "is_secret",
        "known_keys",
        "limits",
        "max_items",
        "max_string",
        "nodes",
        "open",
        "owner",
        "path",
        "room",
        "secrets",
        "start",
        "top_items",
    )

    def __init__(
        self, owner: Sanitizer, secrets: tuple[str, ...], room: int, nodes: int, max_string: int
    ) -> None:
        self.owner = owner
        self.limits = owner.settings
        self.secrets = secrets
        self.room = room
        self.nodes = nodes
        self.start = (room, nodes)
        self.max_string = max_string
        self.max_items = self.top_items = owner.settings.max_items
        self.is_secret = owner.is_secret
        # A key that was harmless before may hold a value that has been declared secret since.
        self.known_keys = {} if secrets else owner.known_keys
        self.open: set[int] = set()
        self.path: list[str] = []
        self.cuts: list[str] = []

    def result(self, data: dict[str, Any], limits: LogSettings) -> Plain:
        room, nodes = self.start
        flat = not any(type(item) in (dict, list) for item in data.values())
        size = min(max(room - self.room, 2) + RESERVE, limits.max_context)
        return Plain(data, size, max(room - self.room, 2), nodes - self.nodes, flat, tuple(self.cuts))

    def cut(self, where: str | None = None) -> None:
        if len(self.cuts) < MAX_CUTS:
            parts = ["context", *self.path] if where is None else ["context", *self.path, where]
            path = ".".join(parts)
            self.cuts.append(path if len(path) <= MAX_KEY else path[:MAX_KEY] + ELLIPSIS)

    def value(self, value: Any, depth: int) -> Any:
        self.nodes -= 1
        kind = type(value)
        if kind is str:
            return self.string(value)
        if value is None or kind is bool:
            self.room -= 6
            return value
        if kind is int:
            return self.integer(value)
        if kind is float and math.isfinite(value):
            self.room -= len(float.__repr__(value)) + 1
            return value
        if kind is dict:
            return self.opened(value, self.mapping, value.items(), len(value), depth)
        if kind is list or kind is tuple:
            return self.opened(value, self.sequence, value, len(value), depth)
        try:
            return self.other(value, depth)
        except Exception:  # noqa: BLE001 - a metaclass may refuse even to be looked up
            return self.string(marker(value))

    def other(self, value: Any, depth: int) -> Any:
        """Turn a value of any other type into what it is made of."""
        turned = value
        for _ in range(MAX_TURNS):
            exact = _EXACT.get(type(turned))
            if exact is not None:
                return self.exact(exact, turned)
            turned = self.shaped(turned)
            kind = type(turned)
            if kind is Pairs:
                return self.opened(value, self.mapping, turned.pairs, turned.total, depth)
            if kind is Items:
                return self.opened(value, self.sequence, turned.items, turned.total, depth)
            if kind in _JSON:
                self.nodes += 1
                return self.within(value, turned, depth)
        return self.string(marker(value))

    def within(self, value: Any, turned: Any, depth: int) -> Any:
        """Walk what a value turned into, so that a converter that goes round in circles is found."""
        if id(value) in self.open:
            return self.string("<cycle>")
        self.open.add(id(value))
        try:
            return self.value(turned, depth)
        finally:
            self.open.discard(id(value))

    def shaped(self, value: Any) -> Any:
        kind = type(value)
        try:
            for base, convert in self.limits.converters:
                if issubclass(kind, base):
                    return convert(value)
            return shape_of(kind)(value, self.limits.max_string)
        except Exception as problem:  # noqa: BLE001 - the type's own code may raise anything
            return f"<{type_name(kind)}: unreadable, {type_name(type(problem))}>"

    def exact(self, check: Callable[[Any], Any], value: Any) -> Any:
        try:
            fit = check(value)
        except Exception as problem:  # noqa: BLE001 - a time zone is the application's own code
            fit = f"<{type_name(type(value))}: unreadable, {type_name(type(problem))}>"
        if type(fit) is str:
            return self.string(fit)
        if type(fit) is bytes:
            return self.binary(fit)
        self.room -= 60
        return fit

    def binary(self, value: bytes) -> Any:
        shape = shape_of(bytes)(value, min(self.limits.max_string, max(self.room // 2, 0)))
        if type(shape) is str:
            self.cut()
            return self.string(shape)
        if any(secret.encode() in value for secret in self.secrets):
            return self.string(REDACTED)
        self.room -= 24 + len(value) * 4 // 3
        return shape

    def string(self, text: str) -> str:
        if len(text) <= SHORT and not self.secrets and "://" not in text:
            if not text.isprintable():
                text = storable(text)
            size = _size(text)
            if size <= self.room and len(text) <= self.max_string:
                self.room -= size
                return text
        fit, was_cut = self.owner.text(text, self.max_string, self.secrets)
        size = _size(fit)
        if size > self.room:
            fit, was_cut = self.owner.text(fit, max(self.room // WIDEST, 0), self.secrets)[0], True
            size = _size(fit)
        if was_cut:
            self.cut()
        self.room -= size
        return fit

    def integer(self, value: int) -> Any:
        if SMALLEST <= value <= LARGEST:
            self.room -= value.bit_length() // 3 + 4
            return value
        bits = value.bit_length()
        return self.string(str(value) if bits <= MAX_KEY * 3 else f"<integer of {bits} bits>")

    def opened(
        self,
        value: object,
        fill: Callable[[Any, int, int, int], Any],
        parts: Iterable[Any],
        total: int,
        depth: int,
    ) -> Any:
        if depth >= self.limits.max_depth:
            self.cut()
            return self.string(f"{ELLIPSIS}[truncated at depth {depth}]")
        if id(value) in self.open:
            return self.string("<cycle>")
        self.open.add(id(value))
        self.room -= 3
        try:
            return fill(parts, total, depth + 1, self.max_items if depth else self.top_items)
        finally:
            self.open.discard(id(value))

    def mapping(self, pairs: Iterable[tuple[Any, Any]], total: int, depth: int, limit: int) -> dict[str, Any]:
        out: dict[str, Any] = {}
        path, known = self.path, self.known_keys
        taken = 0
        try:
            for key, item in islice(pairs, limit):
                if self.room <= 0 or self.nodes <= 0:
                    break
                taken += 1
                secret = known.get(key) if type(key) is str else None
                name = key
                if secret is None:
                    name, secret = self.key(key)
                if name in out:
                    name = free_name(name, out)
                self.room -= len(name) + 4 if name.isascii() else len(name) * WIDEST + 4
                if secret:
                    self.nodes -= 1
                    self.room -= 14
                    out[name] = REDACTED
                    continue
                path.append(name)
                out[name] = self.value(item, depth)
                path.pop()
        except Exception as problem:  # noqa: BLE001 - iterating a mapping may be its own code
            del path[depth - 1 :]
            out[ELLIPSIS] = f"<unreadable, {type_name(type(problem))}>"
            self.cut(ELLIPSIS)
        else:
            if taken < total:
                out[ELLIPSIS] = f"[truncated {total - taken} items]"
                self.cut(ELLIPSIS)
        if "value" in out:
            self.hide_named(out)
        return out

    def hide_named(self, out: dict[str, Any]) -> None:
        """Hide the value of ``{"name": "Authorization", "value": …}``, as recorders of HTTP write headers."""
        for label in ("name", "key", "header"):
            name = out.get(label)
            if type(name) is str and self.is_secret(name):
                out["value"] = REDACTED

    def sequence(self, items: Iterable[Any], total: int, depth: int, limit: int) -> list[Any]:
        out: list[Any] = []
        path = self.path
        taken = 0
        pair = total == 2  # noqa: PLR2004 - a pair has two items
        try:
            for item in islice(items, limit):
                if self.room <= 0 or self.nodes <= 0:
                    break
                taken += 1
                if (
                    pair
                    and taken == total
                    and self.is_secret(out[0] if type(out[0]) is str else _text(out[0]))
                ):
                    out.append(REDACTED)
                    continue
                path.append(str(taken - 1))
                out.append(self.value(item, depth))
                path.pop()
        except Exception as problem:  # noqa: BLE001 - iterating a sequence may be its own code
            del path[depth - 1 :]
            out.append(f"<unreadable, {type_name(type(problem))}>")
            self.cut(ELLIPSIS)
        else:
            if taken < total:
                out.append(f"{ELLIPSIS}[truncated {total - taken} items]")
                self.cut(ELLIPSIS)
        return out

    def key(self, key: Any) -> tuple[str, bool]:
        """Return the key as a string, and whether it names a secret."""
        text = key if type(key) is str else self.key_text(key)
        secret = self.is_secret(text)
        if len(text) > MAX_KEY or not text.isprintable() or self.secrets:
            text = self.owner.text(text, MAX_KEY, self.secrets)[0]
        if len(self.known_keys) >= MAX_KNOWN_KEYS:
            self.known_keys.clear()
        self.known_keys[text] = secret
        return text, secret

    def key_text(self, key: Any) -> str:
        for _ in range(MAX_TURNS):
            kind = type(key)
            if kind is str:
                return key  # type: ignore[no-any-return]
            if key is None or kind is bool:
                return {None: "null", True: "true", False: "false"}[key]
            if kind is tuple and len(key) <= MAX_TUPLE_KEY:
                return f"({', '.join(self.key_text(item) for item in key)})"
            if kind is bytes:
                return _text(key)
            if kind is int and key.bit_length() > MAX_KEY * 3:
                return f"<integer of {key.bit_length()} bits>"
            if kind in _KEYS:
                return str(key)
            key = self.shaped(key)
        return marker(key)


#: Items of a tuple that is a key, up to which they are written out.
MAX_TUPLE_KEY = 8
_KEYS = frozenset({int, float, date, timedelta, Decimal, UUID})
_JSON = frozenset({str, bool, int, type(None), dict, list, tuple})


def _text(value: Any) -> str:
    """Return a key that came as bytes (as servers hand on the headers of a request) as text."""
    return value[:MAX_KEY].decode("latin-1") if type(value) is bytes else ""


def free_name(name: str, taken: Mapping[str, Any]) -> str:
    """Return the name with the first number that makes it a new one; no colliding key is lost."""
    number = 2
    while f"{name} ({number})" in taken:
        number += 1
    return f"{name} ({number})"


def _size(text: str) -> int:
    """Return the bytes that a string takes in JSON, its quotes and a comma included."""
    written = encode_basestring(text)
    return 1 + (len(written) if written.isascii() else len(written.encode()))


def _float(value: float) -> Any:
    return value if math.isfinite(value) else f"<{value}>"


def _decimal(value: Decimal) -> Any:
    if value.__sizeof__() > MAX_DECIMAL:
        return "<decimal.Decimal of very many digits>"
    return value if value.is_finite() else f"<{value}>"


#: Bytes of memory of a Decimal of some 600 digits.
MAX_DECIMAL = 400


def _fixed(value: Any, exact: Callable[[Any], Any]) -> Any:
    return value if value.tzinfo is None or type(value.tzinfo) is timezone else exact(value)


def _same(value: Any) -> Any:
    return value


#: Types that the storage keeps as they are, and what to look at first.
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
