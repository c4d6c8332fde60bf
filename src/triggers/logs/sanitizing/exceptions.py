"""Turns an exception into data: its tree of causes and members, with contexts; never local variables."""

from __future__ import annotations

import traceback
from dataclasses import dataclass, field
from itertools import islice
from typing import TYPE_CHECKING, Any

from triggers.exceptions import context_of
from triggers.logs.sanitizing.plain import NOTHING
from triggers.logs.sanitizing.sanitizer import sanitizer
from triggers.logs.sanitizing.shapes import message_of, type_name
from triggers.logs.sanitizing.texts import ELLIPSIS, fit_text, storable
from triggers.redaction import hide_in_code

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from triggers.logs.settings import LogSettings

#: Exceptions of one tree; further ones are cut.
MAX_NODES = 50
#: Length of a chain of causes.
MAX_CHAIN = 20
#: Frames of one traceback: half of them the outermost, half the innermost.
MAX_FRAMES = 100
#: Characters of a message, once the others have used up the limit.
SHORT_MESSAGE = 100
#: Notes and members of one exception.
MAX_NOTES = 20

#: Messages of exceptions that are not repeated, or that exceed a limit.
ABOVE, LEFT_OUT = "<shown above>", f"{ELLIPSIS}[truncated]"
CAUSE = "\nThe above exception was the direct cause of the following exception:\n\n"
CONTEXT = "\nDuring handling of the above exception, another exception occurred:\n\n"


def exception_record(
    exc: BaseException, settings: LogSettings, secrets: tuple[str, ...] = ()
) -> Mapping[str, Any]:
    """Describe an exception as bounded plain data.

    Args:
        exc: any exception, raised or not; it is not changed.
        settings: limits, and keys to hide.
        secrets: values to hide in messages, contexts, notes and the traceback.

    Returns:
        The tree that :class:`triggers.core.records.LogEntry` describes; its root has the complete
        traceback as text, with chain and members, without local variables. It never raises.
    """
    return describe(exc, settings, secrets).record


#: What Python keeps of an exception, read past the attributes that its class may put in their place.
_KEPT = {name: vars(BaseException)[name].__get__ for name in ("__traceback__", "__cause__", "__context__")}
_SUPPRESSED = vars(BaseException)["__suppress_context__"].__get__
_MEMBERS = vars(BaseExceptionGroup)["exceptions"].__get__


def traceback_of(exc: BaseException) -> TracebackType | None:
    """Return where an exception was raised, whatever its class makes of the attribute."""
    trace: TracebackType | None = _KEPT["__traceback__"](exc)
    return trace


def entry_of(exc: BaseException) -> TracebackType | None:
    """Return the part of a traceback where the task's own code begins: the first frame outside the library.

    If every frame is the library's, it is the last part; None without a traceback.
    """
    trace = traceback_of(exc)
    while trace is not None and trace.tb_next is not None:
        package = str(trace.tb_frame.f_globals.get("__name__", "")).partition(".")[0]
        if package not in _RUNNING:
            break
        trace = trace.tb_next
    return trace


#: The packages whose frames lie between a worker and the code of a task.
_RUNNING = frozenset({"triggers", "asyncio"})


def _members(exc: BaseException) -> tuple[BaseException, ...]:
    return _MEMBERS(exc) if issubclass(type(exc), BaseExceptionGroup) else ()


@dataclass(slots=True)
class Described:
    """An exception as data.

    Attributes:
        record: the tree.
        truncated: the paths of what was cut.
        hidden: whether a text had a secret, so that the exception itself must not be forwarded.
        size: the approximate size of the tree, in bytes.
    """

    record: dict[str, Any]
    truncated: tuple[str, ...] = ()
    hidden: bool = False
    size: int = 0


def describe(exc: BaseException, settings: LogSettings, secrets: tuple[str, ...] = ()) -> Described:
    """Describe an exception as :func:`exception_record` does; also return what was cut or hidden."""
    try:
        tree = _Tree(settings, secrets)
        record = tree.node(exc, 0)
        raw = "".join(tree.lines(exc, record))
        text = hide_in_code(raw, secrets)
        record["traceback"], was_cut = _middle_cut(storable(text), settings.max_traceback)
    except Exception as problem:  # noqa: BLE001 - logging never breaks the task
        name = qualified(type(exc))
        lost = f"<could not be recorded: {type_name(type(problem))}>"
        record = {**bare(name, lost), "traceback": f"{name}: {lost}\n"}
        return Described(record, ("exception",), hidden=True, size=len(name))
    cuts = (*tree.cuts, "exception.traceback") if was_cut else tuple(tree.cuts)
    return Described(record, cuts, tree.hidden or text != raw, len(record["traceback"]) + tree.size)


def bare(name: str, message: str) -> dict[str, Any]:
    """Return the tree of an exception of which only the qualified type and the message are known."""
    return {
        "type": name.rpartition(".")[2],
        "qualified_type": name,
        "message": message,
        "context": {},
        "notes": [],
        "pathname": "",
        "lineno": 0,
        "function": "",
        "cause": None,
        "context_exception": None,
        "members": [],
    }


def _middle_cut(text: str, limit: int) -> tuple[str, bool]:
    """Cut the middle of a traceback: its beginning and its end are the most useful parts."""
    if len(text) <= limit:
        return text, False
    half = limit // 2
    left_out = len(text) - 2 * half
    return f"{text[:half]}\n{ELLIPSIS}[truncated {left_out} chars]\n{text[-half:]}", True


@dataclass(slots=True)
class _Tree:
    """One exception with its causes and members; each exception appears once."""

    settings: LogSettings
    secrets: tuple[str, ...]
    seen: set[int] = field(default_factory=set)
    cuts: list[str] = field(default_factory=list)
    hidden: bool = False
    size: int = 0

    def node(self, exc: BaseException, depth: int) -> dict[str, Any]:
        self.seen.add(id(exc))
        where = place(traceback_of(exc))
        record: dict[str, Any] = {
            "type": type_name(type(exc)).rpartition(".")[2],
            "qualified_type": qualified(type(exc)),
            "message": self.text(message_of(exc)),
            "context": self.context(exc),
            "notes": self.notes(exc),
            "pathname": storable(where[0]),
            "lineno": where[1],
            "function": where[2],
            "cause": None,
            "context_exception": None,
            "members": [],
        }
        behind, link = _behind(exc)
        if behind is not None:
            record[link] = self.branch(behind, depth)
        record["members"] = self.members(exc, depth)
        return record

    def branch(self, exc: BaseException, depth: int) -> dict[str, Any]:
        if id(exc) in self.seen:
            return bare(qualified(type(exc)), ABOVE)
        if depth >= MAX_CHAIN or len(self.seen) >= MAX_NODES:
            self.cuts.append("exception.cause")
            return bare(qualified(type(exc)), LEFT_OUT)
        return self.node(exc, depth + 1)

    def members(self, exc: BaseException, depth: int) -> list[dict[str, Any]]:
        members = _members(exc)
        nodes = [self.branch(member, depth) for member in islice(members, MAX_NOTES)]
        if len(members) > MAX_NOTES:
            self.cuts.append("exception.members")
        return nodes

    def context(self, exc: BaseException) -> dict[str, Any]:
        found = context_of(exc)
        if not found or self.size >= self.settings.max_traceback:
            self.cuts += ["exception.context"] if found else []
            return {}
        plain = sanitizer(self.settings).context(found, self.secrets) if found else NOTHING
        self.size += plain.size
        self.cuts += [f"exception.{path}" for path in plain.truncated]
        return plain.data

    def notes(self, exc: BaseException) -> list[str]:
        notes = notes_of(exc)
        if notes and self.size >= self.settings.max_traceback:
            self.cuts.append("exception.notes")
            return []
        return [self.text(note) for note in notes]

    def text(self, text: str) -> str:
        # All texts together must be no larger than one traceback, or the error could not be stored.
        limit = self.settings.max_string if self.size < self.settings.max_traceback else SHORT_MESSAGE
        fit, was_cut = fit_text(text, limit, self.secrets)
        self.size += len(fit.encode())
        if was_cut:
            self.cuts.append("exception.message")
        elif fit != text:
            self.hidden = True
        return fit

    def lines(self, exc: BaseException, record: dict[str, Any], margin: str = "") -> list[str]:
        """Format the traceback as Python does, from the sanitized data."""
        if record["message"] in (ABOVE, LEFT_OUT):
            return _indented(
                f"{record['qualified_type'].removeprefix('builtins.')}: {record['message']}\n", margin
            )
        behind, link = _behind(exc)
        shown: list[str] = []
        if behind is not None:
            shown += self.lines(behind, record[link], margin)
            shown += _indented(CAUSE if link == "cause" else CONTEXT, margin)
        shown += _indented(_stack(traceback_of(exc)) + self.headline(exc, record), margin)
        members = _members(exc)
        for number, (member, node) in enumerate(zip(members, record["members"], strict=False), 1):
            shown += _indented(f"+---------------- {number} ----------------\n", margin)
            shown += self.lines(member, node, margin + "| ")
        return shown

    def headline(self, exc: BaseException, record: dict[str, Any]) -> str:
        name, message = record["qualified_type"].removeprefix("builtins."), record["message"]
        if issubclass(type(exc), SyntaxError):
            first = "".join(traceback.format_exception_only(exc))
        else:
            first = f"{name}: {message}\n" if message else f"{name}\n"
        return first + "".join(f"{note}\n" for note in record["notes"])


def _indented(text: str, margin: str) -> list[str]:
    return [margin + line for line in text.splitlines(keepends=True)] if margin else [text]


def _behind(exc: BaseException) -> tuple[BaseException | None, str]:
    cause = _KEPT["__cause__"](exc)
    if cause is not None:
        return cause, "cause"
    return (None if _SUPPRESSED(exc) else _KEPT["__context__"](exc)), "context_exception"


def notes_of(exc: BaseException) -> list[str]:
    """Return the exception's notes (PEP 678) that are strings; anything else is ignored."""
    try:
        notes = getattr(exc, "__notes__", None)
    except Exception:  # noqa: BLE001 - the class's own code
        return []
    return (
        [str.__str__(note) for note in islice(notes, MAX_NOTES) if isinstance(note, str)]
        if type(notes) is list
        else []
    )


def qualified(kind: type) -> str:
    """Return a type's name with its module, such as ``builtins.ValueError``."""
    name = type_name(kind)
    return name if "." in name else f"builtins.{name}"


def place(trace: TracebackType | None) -> tuple[str, int, str]:
    """Return file, line and function of the innermost frame, which raised the exception."""
    if trace is None:
        return "", 0, ""
    while trace.tb_next is not None:
        trace = trace.tb_next
    code = trace.tb_frame.f_code
    return code.co_filename, trace.tb_lineno, code.co_name


def _stack(trace: TracebackType | None) -> str:
    if trace is None:
        return ""
    depth, half = _depth(trace), MAX_FRAMES // 2
    if depth <= MAX_FRAMES:
        lines = traceback.extract_tb(trace).format()
    else:
        lines = traceback.extract_tb(trace, limit=half).format()
        lines.append(f"  {ELLIPSIS}[truncated {depth - MAX_FRAMES} frames]\n")
        lines += traceback.extract_tb(trace, limit=-half).format()
    return "Traceback (most recent call last):\n" + "".join(lines)


def _depth(trace: TracebackType | None) -> int:
    depth = 0
    while trace is not None:
        depth += 1
        trace = trace.tb_next
    return depth
