"""Parses what users write: JSON with the types that it lacks. Input is never reinterpreted silently."""

from __future__ import annotations

import json
import re
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from triggers.core.durations import read_duration
from triggers.core.values import decode, is_tagged

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import IO


class NotJsonError(ValueError):
    """The text is not JSON, or is ambiguous."""


def parse(text: str | bytes) -> Any:
    """Parse JSON strictly.

    Raises:
        NotJsonError: it is not JSON, a key appears twice in an object, or it has NaN or Infinity.
    """
    try:
        read = text.decode("utf-8-sig") if isinstance(text, bytes) else text
        return json.loads(read, object_pairs_hook=_once, parse_constant=_no_number)
    except RecursionError:
        message = "the JSON is nested too deep"
    except NotJsonError:
        raise
    except ValueError as error:
        message = f"not JSON: {error}"
    raise NotJsonError(message)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        message = f"the key {twice!r} appears twice in one object"
        raise NotJsonError(message)
    return found


def _no_number(name: str) -> None:
    message = f"{name} is not a number in JSON"
    raise NotJsonError(message)


def typed(value: Any, what: str) -> Any:
    """Return the value with each object that stands for another type replaced by a value of that type.

    Args:
        value: parsed JSON.
        what: the beginning of the path in messages.

    Raises:
        NotJsonError: a key begins with ``$`` and does not name a type, or its value is not of that type.
    """
    _check(value, what)
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode()
    except UnicodeEncodeError:
        message = f"{what}: a text in it has a lone surrogate, which cannot be stored"
        raise NotJsonError(message) from None
    return decode(text)


def _check(value: Any, path: str) -> None:
    if isinstance(value, list):
        for index, item in enumerate(value):
            _check(item, f"{path}[{index}]")
    elif isinstance(value, dict):
        for key, item in value.items():
            if key.startswith("$") and not key.startswith("$$"):
                _check_type(value, key, path)
            else:
                _check(item, f"{path}.{key}")


def _check_type(value: dict[str, Any], key: str, path: str) -> None:
    _check(value[key], path)
    try:
        decode(json.dumps(value))
    except (ValueError, TypeError, ArithmeticError) as error:
        message = f"{path}: {json.dumps(value[key])} is not a valid {key.removeprefix('$')}: {error}"
        raise NotJsonError(message) from None
    if not is_tagged(value):
        message = f"{path}: {key!r} is not a type; write {'$' + key!r} for a key of that name"
        raise NotJsonError(message)


def json_object(text: str | bytes, what: str = "value") -> dict[str, Any]:
    """Parse the JSON object of an option.

    Raises:
        click.BadParameter: it is not a JSON object.
    """
    try:
        found = typed(parse(text), what)
    except NotJsonError as error:
        raise click.BadParameter(str(error)) from None
    if not isinstance(found, dict):
        message = f'expected a JSON object such as {{"page": 3}}, not {text!r:.50}'
        raise click.BadParameter(message)
    return found


def pair(text: str) -> tuple[str, Any]:
    """Split ``key=value``; the value is JSON if it parses as JSON, and text otherwise.

    Raises:
        click.BadParameter: the key is missing, or the value has a type that is not known.
    """
    key, mark, written = text.partition("=")
    if not (mark and key):
        message = f"{text!r:.50} is not of the form key=value"
        raise click.BadParameter(message)
    try:
        read = parse(written)
    except NotJsonError:
        return key, written
    try:
        return key, typed(read, key)
    except NotJsonError as error:
        raise click.BadParameter(str(error)) from None


_UNITS: Final = {"w": 7 * 86_400, "d": 86_400, "h": 3_600, "m": 60, "s": 1}


def duration(text: str) -> timedelta:
    """Parse a duration of weeks, days, hours, minutes and seconds, such as ``30d``, ``90m`` or ``1d12h``.

    Raises:
        click.BadParameter: it is not a duration, or it is too long.
    """
    if not re.fullmatch(r"([0-9]+[wdhms])+", text):
        message = f"{text!r:.50} is not a valid duration: write numbers with units, such as 30d, 90m or 1d12h"
        raise click.BadParameter(message)
    seconds = sum(int(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9]+)([wdhms])", text))
    try:
        return timedelta(seconds=seconds)
    except OverflowError:
        message = f"{text!r:.50} is too long a duration"
        raise click.BadParameter(message) from None


def pause(text: str) -> timedelta:
    """Parse a duration in ISO 8601, such as ``P3D``, or with units, such as ``3d``.

    Raises:
        click.BadParameter: it is neither, or is zero or too long.
    """
    try:
        found: object = text if text.startswith("P") else duration(text)
        return read_duration(found)
    except ValueError as error:
        message = f"{text!r:.50} {error}"
    raise click.BadParameter(message)


def moment(text: str) -> datetime:
    """Parse a time in ISO 8601 with its offset, such as ``2030-01-31T12:00:00Z``.

    Raises:
        click.BadParameter: it is not a time, or has no offset.
    """
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        found = datetime.min  # noqa: DTZ901 - it has no offset, like other texts that are refused
    if found.utcoffset() is None:
        examples = "2030-01-31T12:00:00Z or 2030-01-31T12:00+01:00"
        message = f"{text!r:.50} is not a time with an offset, such as {examples}"
        raise click.BadParameter(message)
    return found


_Command = TypeVar("_Command", bound="Callable[..., Any]")


def kwargs_options(command: _Command) -> _Command:
    """Give a command ``--kwargs`` and ``--kwargs-file``; see :func:`kwargs_of`."""
    given = click.option("--kwargs", type=json_object, metavar="JSON", help="The kwargs, as a JSON object.")
    file = click.option(
        "--kwargs-file",
        type=click.File("rb"),
        help="A file with this object; - is standard input.",
    )
    return given(file(command))


def kwargs_of(kwargs: dict[str, Any] | None, kwargs_file: IO[bytes] | None) -> dict[str, Any] | None:
    """Return the kwargs of ``--kwargs`` or ``--kwargs-file``; None if neither was used.

    Raises:
        click.UsageError: both were used, or the file does not have a JSON object.
    """
    if kwargs is not None and kwargs_file is not None:
        message = "--kwargs and --kwargs-file exclude each other"
        raise click.UsageError(message)
    if kwargs_file is None:
        return kwargs
    try:
        return json_object(kwargs_file.read(), "kwargs")
    except click.BadParameter as error:
        message = f"{kwargs_file.name}: {error.message}"
        raise click.UsageError(message) from None
