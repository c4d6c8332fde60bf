"""Reads the arguments of a log call: combines `extra` and `context`, and finds the exception."""

from __future__ import annotations

import logging
import sys
from collections.abc import Mapping
from itertools import islice
from typing import Any

from triggers.logs.sanitizing.shapes import type_name

#: Attributes of every LogRecord; any other attribute was given as `extra`.
STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


def as_mapping(value: Any, name: str) -> Mapping[Any, Any]:
    """Return a mapping as it is, and any other value but None under the given name."""
    return value if isinstance(value, Mapping) else {} if value is None else {name: value}


def joined_extra(extra: Any, extras: Any, more: dict[str, Any]) -> dict[Any, Any]:
    """Return `extra`, `extras` and the other keywords of a call as one dict; it never raises."""
    try:
        return {**as_mapping(extra, "extra"), **as_mapping(extras, "extras"), **more}
    except Exception as problem:  # noqa: BLE001 - a mapping may be the application's own code
        return {"extra": f"<could not be recorded: {type_name(type(problem))}>", **more}


def split_extra(extra: Any, context: Any) -> tuple[dict[Any, Any], Any]:
    """Split `extra`: its key ``context`` is context, its other keys are also attributes of the LogRecord."""
    given = dict(as_mapping(extra, "extra"))
    inner = given.pop("context", None)
    if inner is not None and context is not None:
        context = {**as_mapping(inner, "context"), **as_mapping(context, "context")}
    return given, inner if context is None else context


def set_renamed(state: dict[str, Any], attributes: dict[str, Any]) -> None:
    """Set attributes of a LogRecord; a name that it has already gets the prefix ``extra_``."""
    for key, item in attributes.items():
        name = key
        while name in state or name in STANDARD:
            name = f"extra_{name}"
        state[name] = item


def exception_of(exc_info: Any) -> BaseException | None:
    """Return the exception that `exc_info` means: itself, that of a triple, or the current one, if any."""
    if isinstance(exc_info, BaseException):
        return exc_info
    if not exc_info:
        return None
    found = exc_info if isinstance(exc_info, tuple) else sys.exc_info()
    exc = next(islice(found, 1, 2), None)
    return exc if isinstance(exc, BaseException) else None
