"""Feed the sanitiser with whatever bytes can be made into, and check what it promises.

``python -m bench.fuzz_sanitizer 30`` runs for that many minutes: guided by coverage where Atheris is there,
else on random and on mutated bytes. What breaks a promise is printed as the hexadecimal bytes that make it
again: ``python -m bench.fuzz_sanitizer - HEX``.
"""

from __future__ import annotations

import collections
import importlib
import json
import logging
import os
import random
import sys
import time
import traceback
import types
from contextlib import suppress
from dataclasses import make_dataclass
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any
from uuid import UUID

from pydantic import SecretStr

from triggers.core.values import encode
from triggers.exceptions import with_context
from triggers.logs import LogSettings, Sensitive
from triggers.logs.formatters import ConsoleFormatter, JsonFormatter
from triggers.logs.sanitizing.exceptions import describe
from triggers.logs.sanitizing.messages import format_message
from triggers.logs.sanitizing.sanitizer import Sanitizer

if TYPE_CHECKING:
    from collections.abc import Callable

#: What must never come out, in whole or in part.
CANARY = "q7Xv9ZkW3mPt8RbNf5Yd"
#: So many characters of it in a row are a part.
PART = 8
#: Keys under which it is hidden.
SECRET_KEYS = ("password", "dbPassword", "X-Api-Key", "clientSecrets", "token", "PRIVATE-KEY", "set_cookie")
#: Seconds beyond which an input is reported as slow.
SLOW = 1.0
#: Containers within containers that are made.
DEPTH = 12

SETTINGS = (
    LogSettings(),
    LogSettings(max_string=10, max_items=3, max_nodes=12, max_depth=3, max_context=1_000),
    LogSettings(max_string=40, max_items=200, max_nodes=30, max_depth=40, max_context=4_000),
    LogSettings(context_policy="keys", max_context=2_000),
    LogSettings(context_policy="allowed", allowed_keys=("a", "page")),
    LogSettings(converters=((Fraction, lambda value: value), (complex, lambda value: [value]))),
)


FORMATTERS = (ConsoleFormatter(), JsonFormatter("otel"), JsonFormatter("ecs"), JsonFormatter("google"))


class Bytes:
    """Hands out bytes until there are none; then zeros."""

    def __init__(self, data: bytes) -> None:
        self.data = data
        self.at = 0

    def one(self) -> int:
        """Return the next byte."""
        self.at += 1
        return self.data[self.at - 1] if self.at <= len(self.data) else 0

    def some(self, most: int) -> bytes:
        """Return so many of the next bytes as the first of them says."""
        count = self.one() % (most + 1)
        taken = self.data[self.at : self.at + count]
        self.at += count
        return taken

    def text(self) -> str:
        """Return any text, lone surrogates and control characters included, at times a very long one."""
        how = self.one()
        raw = self.some(40)
        text = raw[: len(raw) & ~1].decode("utf-16-le", "surrogatepass") if how & 2 else raw.decode("latin-1")
        if how & 4:
            text *= (how >> 3) * 97 + 1
        return text


class Refusing:
    """Raises wherever it is touched."""

    def _refuse(self, *_: Any) -> Any:
        raise RecursionError

    __repr__ = __str__ = __eq__ = __hash__ = __bool__ = __len__ = __iter__ = __getattr__ = _refuse
    __getattribute__ = _refuse


class RefusingMapping(collections.abc.Mapping[str, Any]):
    """A mapping that gives some of its keys and then raises."""

    def __init__(self, inner: dict[Any, Any]) -> None:
        self.inner = inner

    def __getitem__(self, key: Any) -> Any:
        return self.inner[key]

    def __iter__(self) -> Any:
        yield from self.inner
        raise OSError

    def __len__(self) -> int:
        return len(self.inner) + 3


class Zone(tzinfo):
    """A time zone that has no offset to give."""

    def utcoffset(self, _moment: datetime | None) -> timedelta:
        """Raise."""
        raise RuntimeError

    dst = utcoffset
    tzname = utcoffset  # type: ignore[assignment]  # it has no name either


class Text(str):
    """A str that refuses to be one."""

    __slots__ = ()

    def __str__(self) -> str:
        raise RuntimeError


def _leaf(source: Bytes) -> Any:  # noqa: C901, PLR0911, PLR0912 - one kind each
    match source.one() % 24:
        case 0:
            return None
        case 1:
            return bool(source.one() & 1)
        case 2:
            return int.from_bytes(source.some(60), "little", signed=True)
        case 3:
            return float(int.from_bytes(source.some(8), "little")) * 10.0 ** (source.one() - 128)
        case 4:
            return (float("nan"), float("inf"), -0.0)[source.one() % 3]
        case 5:
            return source.some(200) * (source.one() + 1)
        case 6:
            return datetime(
                1996, 1, 1, tzinfo=(None, UTC, Zone(), timezone(timedelta(hours=5)))[source.one() % 4]
            )
        case 7:
            return Decimal(int.from_bytes(source.some(200), "little")).scaleb(source.one() - 128)
        case 8:
            return (
                UUID(int=7),
                date(1996, 1, 1),
                timedelta(source.one()),
                Decimal("sNaN"),
                1j,
                Fraction(1, 3),
            )[source.one() % 6]
        case 9:
            return Refusing()
        case 10:
            return (object, len, lambda: None, sys, types.SimpleNamespace(a=1), (n for n in "ab"))[
                source.one() % 6
            ]
        case 11:
            return Enum("Kind", {"ONE": source.text()}).ONE  # type: ignore[attr-defined]  # made here
        case 12:
            return PurePosixPath(source.text().replace("\0", ""))
        case 13:
            return f"{source.text()}://{source.some(40).hex()}:{CANARY}@{source.text()}"
        case 14:
            return (Sensitive(CANARY), SecretStr(CANARY))[source.one() & 1]
        case 15:
            return Text(source.text())
        case 16:
            return collections.UserString(source.text())
        case 17:
            return memoryview(source.some(200))
        case _:
            return source.text()


def _key(source: Bytes) -> Any:
    kind = source.one() % 12
    if kind < 8:  # noqa: PLR2004 - most keys are texts
        return ("a", "page", "value", "name", source.text())[min(kind, 4)]
    return (None, True, source.one(), (source.text(), 1), source.some(20), 2**400, UUID(int=source.one()))[
        source.one() % 7
    ]


def _value(source: Bytes, depth: int, made: list[Any]) -> Any:  # noqa: C901, PLR0911, PLR0912 - one kind each
    kind = source.one() % 24
    if depth >= DEPTH or kind < 8:  # noqa: PLR2004 - a third are leaves
        return _leaf(source)
    count = source.one() % 6 if kind & 1 else source.one() % 130
    if kind in (8, 9, 10, 11):
        out: dict[Any, Any] = {}
        made.append(out)
        for _ in range(count):
            out[_key(source)] = _value(source, depth + 1, made)
        if source.one() & 1:
            name = SECRET_KEYS[source.one() % len(SECRET_KEYS)]
            out[name] = (CANARY, [CANARY], {"deep": CANARY})[source.one() % 3]
        return out
    if kind in (12, 13):
        items: list[Any] = []
        made.append(items)
        items.extend(_value(source, depth + 1, made) for _ in range(count))
        return items
    if kind == 14 and made:  # noqa: PLR2004 - a cycle
        return made[source.one() % len(made)]
    inner = _value(source, depth + 1, made)
    match kind:
        case 15:
            return (inner, source.text())
        case 16:
            return collections.deque([inner] * count)
        case 17:
            return ("Authorization", CANARY) if source.one() & 1 else [b"cookie", CANARY]
        case 18:
            return {"name": "X-Api-Key", "value": CANARY, "other": inner}
        case 19:
            return make_dataclass("Made", ["field", "password"])(inner, CANARY)
        case 20:
            return RefusingMapping({"inner": inner})
        case 21:
            return ValueError(source.text())
        case 22:
            shape: Any = collections.namedtuple("shape", "x secret")  # noqa: PYI024 - a shape of its own
            return shape(inner, CANARY)
        case _:
            return types.MappingProxyType({"inner": inner, source.text(): inner})


def _intact(what: object) -> None:
    text = repr(what)
    for start in range(len(CANARY) - PART + 1):
        if CANARY[start : start + PART] in text:
            message = f"a part of the secret came out: {text[:500]}"
            raise AssertionError(message)


def _bounded(sanitizer: Sanitizer, plain: Any) -> None:
    limit = sanitizer.settings.max_context
    size = len(encode(plain.data, "context").encode())
    if type(plain.data) is not dict or size > limit:
        message = f"a context of {size} bytes where {limit} are allowed"
        raise AssertionError(message)
    if plain.flat and any(type(item) in (dict, list) for item in plain.data.values()):
        message = "a context with containers says that it has none"
        raise AssertionError(message)
    _intact((plain.data, plain.truncated))


def check(data: bytes) -> None:
    """Raise AssertionError, or whatever comes, if these bytes make something that breaks a promise."""
    source = Bytes(data)
    sanitizer = Sanitizer(SETTINGS[source.one() % len(SETTINGS)])
    one, other = _value(source, 0, []), _value(source, 0, [])
    plain, over = sanitizer.context(one), sanitizer.context(other)
    both = sanitizer.merge(plain, over)
    for each in (plain, over, both):
        _bounded(sanitizer, each)
    masked = (CANARY,)
    open_text = f"{source.text()}{CANARY}{source.text()}"
    with_secret = sanitizer.context({"open": open_text, "value": one, open_text: 1}, masked)
    for each in (with_secret, sanitizer.again(both, masked)):
        _bounded(sanitizer, each)
    _message(source, sanitizer, one, open_text)
    _lines(source, one, plain.data)
    error = with_context(ValueError(open_text), {"value": one, "open": open_text})
    error.__cause__ = with_context(KeyError(open_text), {"value": other})
    error.add_note(open_text)
    described = describe(error, sanitizer.settings, masked)
    encode(described.record, "the error")
    _intact(described.record)


def _message(source: Bytes, sanitizer: Sanitizer, value: Any, open_text: str) -> None:
    template = source.text() + ("%s", "%r", "%d", "%(a)s", "%", "%s %s", "")[source.one() % 7]
    args = ((value,), (open_text, value), ({"a": open_text},), ())[source.one() % 4]
    message, kept, send, send_args, _ = format_message(template, args, sanitizer, (CANARY,))
    encode([message, kept], "message")
    _intact((message, kept, send % send_args if send_args else send))


def _lines(source: Bytes, value: Any, context: dict[str, Any]) -> None:
    """Format a record of another logger and one of a task."""
    said = {"msg": source.text(), "name": source.text(), "levelname": "INFO", "levelno": 20}
    for extra in ({"any": value}, {"triggers.uid": source.text(), "context": context}):
        record = logging.makeLogRecord({**said, **extra})
        lines = [*(formatter.format(record) for formatter in FORMATTERS)]
        _intact(lines)
        for line in lines[1:]:
            json.loads(line, parse_constant=_no_json)
        if (
            len(lines[0].splitlines()) > 1
            or not lines[0].isprintable()
            or any("\n" in line for line in lines)
        ):
            message = "a record took more than one line"
            raise AssertionError(message)


def _no_json(constant: str) -> None:
    message = f"{constant} is not JSON"
    raise AssertionError(message)


def _random(until: float, seed: int) -> None:
    dice = random.Random(seed)
    corpus: list[bytes] = [b""]
    runs = found = 0
    while time.monotonic() < until:
        fresh = dice.random() < 0.5  # noqa: PLR2004 - half of them
        data = dice.randbytes(dice.randrange(400)) if fresh else _mutated(dice, dice.choice(corpus))
        runs += 1
        if len(corpus) < 1_000 or dice.random() < 0.01:  # noqa: PLR2004 - a pool that slowly changes
            corpus[dice.randrange(1_000) % len(corpus) : 0] = [data]
            del corpus[1_000:]
        began = time.monotonic()
        try:
            check(data)
        except BaseException:  # noqa: BLE001 - whatever it is, it is what was looked for
            found += 1
            print(f"FOUND {data.hex()}\n{traceback.format_exc(limit=-6)}", flush=True)
        took = time.monotonic() - began
        if took > SLOW:
            print(f"SLOW {took:.2f} s {data.hex()}", flush=True)
        if runs % 10_000 == 0:
            print(f"{runs} runs, {found} found", flush=True)
    print(f"done: {runs} runs, {found} found", flush=True)


def _mutated(dice: random.Random, data: bytes) -> bytes:
    out = bytearray(data)
    for _ in range(dice.randrange(1, 6)):
        place = dice.randrange(len(out) + 1)
        match dice.randrange(4):
            case 0:
                out[place:place] = dice.randbytes(dice.randrange(1, 30))
            case 1:
                del out[place : place + dice.randrange(1, 30)]
            case 2 if out:
                out[place % len(out)] = dice.randrange(256)
            case _:
                out += out[: dice.randrange(100)]
    return bytes(out[:4_000])


def _guided(minutes: float) -> None:
    import atheris  # noqa: PLC0415 - only if it is there

    for name in [name for name in sys.modules if name.startswith(("triggers", "bench.fuzz"))]:
        del sys.modules[name]
    # Imported anew, with every branch reporting itself.
    with atheris.instrument_imports(include=["triggers.logs"]):
        module = importlib.import_module("bench.fuzz_sanitizer")
    arguments = [sys.argv[0], f"-max_total_time={round(minutes * 60)}", "-max_len=2000", "-timeout=30"]
    atheris.Setup(arguments, module.check)
    atheris.Fuzz()


def main(arguments: list[str]) -> None:
    """Run for the given minutes, or once on the given bytes."""
    if len(arguments) > 1:
        check(bytes.fromhex(arguments[1]))
        return
    minutes = float(arguments[0]) if arguments else 1.0
    with suppress(ImportError):
        _guided(minutes)
        return
    seed = int.from_bytes(os.urandom(4), "big")
    print(f"random bytes, seed {seed}", flush=True)
    _random(time.monotonic() + minutes * 60, seed)


if __name__ == "__main__":
    run: Callable[[list[str]], None] = main
    run(sys.argv[1:])
