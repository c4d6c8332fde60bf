"""Generates the parts of the documents that describe the code: diagrams, settings and methods.

``python docs/generate.py`` rewrites the text between ``<!-- generated: name -->`` and ``<!-- end -->``
in every document. A test fails if a document does not match the code.
"""

# ruff: noqa: INP001 - a tool of this repository, not shipped

from __future__ import annotations

import dataclasses
import inspect
import re
import tomllib
from datetime import timedelta
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import triggers
from triggers import exceptions, graph, logs
from triggers.core.status import MOVES, RESOLVED, Status
from triggers.core.values import Limits
from triggers.demo.rules import survey_rules
from triggers.graph import rules_graph, to_mermaid
from triggers.logs import LogSettings
from triggers.runners.celery import CeleryRunner
from triggers.runners.threads import ThreadsRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

DOCS = Path(__file__).parent

#: The marks and the text between them.
PART = re.compile(r"(?P<begin><!-- generated: (?P<what>[\w. ]+) -->\n).*?(?P<end><!-- end -->)", re.DOTALL)

#: Methods without an underscore that are for the library's own use, or are data of the stored form.
INTERNAL = {
    "SessionView": {"head", "page", "payloads"},
    "TaskInstance": {"stored"},
    "Timer": {"of"},
    "TriggerManager": {"apply", "policy", "policy_for", "publish", "store"},
    "Triggers": {"abort", "is_idle", "lose", "pull", "pause_sweeping", "run", "task_options", "watch_tasks"},
}


def written(text: str) -> str:
    """Return the text of a document with its generated parts updated from the code."""
    return PART.sub(lambda part: f"{part['begin']}{_part(part['what'])}{part['end']}", text)


def _part(what: str) -> str:
    kind, _, name = what.partition(" ")
    return "\n".join(PARTS[kind](name)) + "\n"


def _moves(_: str) -> Iterator[str]:
    yield from ("| from | to | when |", "| --- | --- | --- |")
    yield from (f"| {move.before} | {move.after} | {move.because} |" for move in MOVES)


def _diagram(_: str) -> Iterator[str]:
    yield from ("```mermaid", "stateDiagram-v2")
    yield from (f"    [*] --> {Status.UNSTARTED}", f"    [*] --> {Status.SCHEDULED}: replay")
    yield from (f"    {move.before} --> {move.after}: {move.because}" for move in MOVES)
    yield from (f"    {status} --> [*]" for status in Status if status in RESOLVED)
    yield "```"


def _error_tree(_: str) -> Iterator[str]:
    tree = (exceptions.__doc__ or "").partition("::\n\n")[2]
    yield from ("```text", *inspect.cleandoc(tree).splitlines(), "```")


def _settings(name: str) -> Iterator[str]:
    """Yield a table of name, default and meaning, from the signature or the fields, and the docstring."""
    owner = _named(name)
    meanings = _described(owner)
    yield from ("| setting | default | meaning |", "| --- | --- | --- |")
    for setting, default in _defaults(owner, meanings):
        yield f"| `{setting}` | {WORDED.get(setting, default)} | {_cell(meanings[setting])} |"


#: Defaults that depend on the machine, or are too long for a cell.
WORDED = {
    "hints": "64 for each thread",
    "limits": "`Limits()`",
    "log_settings": "`LogSettings()`",
    "redact": "`SECRET_WORDS`",
    "registry": "`triggers.task.registry`",
    "workers": "number of CPUs + 4, 32 at most",
}


def _defaults(owner: Any, meanings: dict[str, str]) -> Iterator[tuple[str, str]]:
    if owner in {Limits, LogSettings}:
        yield from ((field.name, _value(getattr(owner(), field.name))) for field in dataclasses.fields(owner))
    elif owner in {triggers.Triggers, ThreadsRunner, CeleryRunner}:
        for name, parameter in inspect.signature(owner).parameters.items():
            yield name, "" if parameter.default is parameter.empty else _value(parameter.default)
    else:
        # An attribute that only instances have is not a setting.
        names = [name for name in meanings if name == "name" or hasattr(owner, name)]
        yield from ((name, _value(getattr(owner, name, ""))) for name in names)


def _value(value: object) -> str:
    if value == "":
        return ""
    if isinstance(value, type):
        return f"`{value.__name__}`"
    return f"`{value}`" if isinstance(value, timedelta) else f"`{value!r}`"


def _api(name: str) -> Iterator[str]:
    """Yield a table of the public members of a class, with the first sentence of each docstring."""
    owner = _named(name)
    yield from (f"| `{name}` | |", "| --- | --- |")
    members = dict(_members(owner, name))
    for member, meaning in _described(owner, "Attributes:").items():
        if member not in members and member not in INTERNAL.get(name, ()):
            yield f"| `{member}` | {_cell(_first(meaning))} |"
    for member, value in members.items():
        meaning = SPOKEN.get(member, ("", ""))[1] or inspect.getdoc(value) or ""
        yield f"| `{_signature(member, value)}` | {_cell(_first(meaning))} |"


def _members(owner: type, name: str) -> Iterator[tuple[str, Any]]:
    for member, value in vars(owner).items():
        spoken = member in SPOKEN or member == "_run" or member.startswith("_post_")
        hidden = member.startswith("_") and not spoken
        is_ours = callable(value) or isinstance(value, (property, cached_property, classmethod, staticmethod))
        if is_ours and not hidden and member not in INTERNAL.get(name, ()):
            yield member, value


#: Magic methods, as users write them, with their meaning if it is always the same.
SPOKEN = {
    "__contains__": ("name in …", "Whether an item of that name exists."),
    "__getitem__": ("…[name]", ""),
    "__iter__": ("for … in …", "Iterates over all items."),
}


def _signature(member: str, value: Any) -> str:
    if member in SPOKEN:
        return SPOKEN[member][0]
    function = getattr(value, "__func__", value)
    if isinstance(value, (property, cached_property)) or not callable(function):
        return member
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for name, parameter in inspect.signature(function).parameters.items()
        if name not in {"self", "cls"}
    ]
    return f"{member}{inspect.Signature(parameters)}"


def _functions(names: str) -> Iterator[str]:
    """Yield a table of functions, with the first sentence of each docstring."""
    yield from ("| function | |", "| --- | --- |")
    for name in names.split():
        value = _named(name)
        yield f"| `{_signature(name, value)}` | {_cell(_first(inspect.getdoc(value) or ''))} |"


def _described(owner: Any, *sections: str) -> dict[str, str]:
    """Return the entries of these sections of a docstring, by default of both known ones, as name → text."""
    found: dict[str, str] = {}
    wanted = sections or ("Attributes:", "Args:")
    section = name = ""
    for line in (inspect.getdoc(owner) or "").splitlines():
        if re.fullmatch(r"\w+:", line):
            section = line
        elif section in wanted and (entry := re.fullmatch(r"    (\w+): (.*)", line)):
            name = entry[1]
            found[name] = entry[2]
        elif name and line.startswith("     "):
            found[name] += f" {line.strip()}"
    return found


def _named(name: str) -> Any:
    for module in (triggers, logs, exceptions, graph):
        if hasattr(module, name):
            return getattr(module, name)
    more = {kind.__name__: kind for kind in (CeleryRunner, Limits, LogSettings, ThreadsRunner)}
    return more[name]


def _first(text: str) -> str:
    """Return the first sentence."""
    paragraph = " ".join(text.partition("\n\n")[0].split())
    return re.split(r"(?<=[.:]) (?=[A-Z`])", paragraph)[0]


def _cell(text: str) -> str:
    plain = re.sub(r":\w+:`(?:~[\w.]+\.)?([\w.]+)`", r"`\1`", text).replace("``", "`")
    return plain.replace("|", "\\|").rstrip(":")


def _layers(_: str) -> Iterator[str]:
    """The layers of the import-linter contract as a diagram: an arrow means "may import"."""
    contract = tomllib.loads((DOCS.parent / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ][0]
    rows = [_modules(layer) for layer in contract["layers"]]
    yield from ("```mermaid", "flowchart TB")
    yield from (f'    layer{number}["{" · ".join(row)}"]' for number, row in enumerate(rows))
    yield f"    {' --> '.join(f'layer{number}' for number in range(len(rows)))}"
    yield "```"


def _modules(layer: str) -> list[str]:
    """The modules of one layer that exist; those in parentheses may be missing."""
    return [
        name
        for name in (part.strip().strip("()") for part in layer.split("|"))
        if find_spec(f"triggers.{name}") is not None
    ]


def _graph(_: str) -> Iterator[str]:
    """Yield the graph of the demo's rules."""
    yield from ("```mermaid", *to_mermaid(rules_graph(survey_rules(Path()))).splitlines(), "```")


PARTS: dict[str, Callable[[str], Iterable[str]]] = {
    "api": _api,
    "diagram": _diagram,
    "errors": _error_tree,
    "functions": _functions,
    "graph": _graph,
    "layers": _layers,
    "moves": _moves,
    "settings": _settings,
}


def main() -> None:
    """Rewrite every document."""
    for document in sorted(DOCS.rglob("*.md")):
        before = document.read_text("utf-8")
        after = written(before)
        if after != before:
            document.write_text(after, "utf-8")


if __name__ == "__main__":
    main()
