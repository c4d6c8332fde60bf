"""Records and exceptions as lines for people."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from triggers.cli.render import level_text, pairs, visible
from triggers.core.values import to_datetime

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rich.text import Text

    from triggers.storages.base import StoredRecord


def record_lines(record: StoredRecord, *, traceback: bool) -> Iterable[Text]:
    """Yield the lines of a record: its message, then its context and its exception, indented."""
    from rich.text import Text  # noqa: PLC0415 - it takes long

    entry = record.entry
    first, *more = entry.message.split("\n")
    marks = "" if entry.counts else " (captured)"
    marks += " (reviewed)" if record.resolved and entry.counts else ""
    marks += " (late)" if entry.late else ""
    marks += f" kind {record.fingerprint}" if entry.level >= logging.WARNING and not record.resolved else ""
    line = Text().append(to_datetime(entry.at).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " ", "dim")
    line.append_text(level_text(entry.level))
    line.append(f" {visible(record.task)}#{record.instance} [{record.number}] ", "bold")
    yield line.append(visible(first)).append(marks, "dim")
    yield from (Text(f"  | {visible(rest)}") for rest in more)
    if entry.context:
        yield Text(f"    {pairs(entry.context)}")
    if entry.exception:
        yield from exception_lines(entry.exception, traceback=traceback, margin="    ")


def exception_lines(error: Mapping[str, Any], *, traceback: bool, margin: str = "") -> Iterator[Text]:
    """Yield the lines of an exception: each exception of its tree with its context, then the traceback.

    Args:
        error: the exception as it is stored.
        traceback: whether the traceback follows; it has no contexts, so it never replaces the tree.
        margin: the beginning of each line.
    """
    from rich.text import Text  # noqa: PLC0415 - it takes long

    yield from (Text(margin + line, "red") for line in _tree_lines(error))
    if traceback and error.get("traceback"):
        lines = str(error["traceback"]).rstrip("\n").split("\n")
        yield from (Text(f"{margin}{visible(line)}") for line in lines)


def _tree_lines(error: Mapping[str, Any]) -> Iterable[str]:
    yield headline(error)
    for note in error.get("notes") or ():
        yield f"  {visible(note)}"
    for word, earlier in (
        ("caused by", error.get("cause")),
        ("while handling", error.get("context_exception")),
    ):
        if earlier:
            first, *rest = _tree_lines(earlier)
            yield from (f"  {word} {first}", *(f"  {line}" for line in rest))
    for member in error.get("members") or ():
        yield from (f"  {line}" for line in _tree_lines(member))


def headline(error: Mapping[str, Any]) -> str:
    """Return an exception in one line: type, message, context, file and line."""
    message = visible(str(error.get("message") or ""))
    context = f" ({pairs(error['context'])})" if error.get("context") else ""
    place = f" at {visible(error['pathname'])}:{error['lineno']}" if error.get("pathname") else ""
    return f"{error.get('type')}: {message}{context}{place}"
