"""The docstring of every public name is a sentence that says more than the name."""

from __future__ import annotations

import ast
import re
from typing import TYPE_CHECKING, NamedTuple

import pytest

from tests.style.sources import PARTS, ROOT, files

if TYPE_CHECKING:
    from collections.abc import Iterator

#: A docstring with fewer characters does not say what is true after a call.
SHORTEST = 25

#: Words that add nothing to a name.
FILLER = frozenset(
    "a all an and are as at by does for from gets gives has if in into is it its make makes of on or return"  # noqa: SIM905 - one word a line is no easier to read
    " returns sets that the their this to was what where whether which with".split()
)


class Documented(NamedTuple):
    """A public name with its docstring."""

    name: str
    line: int
    docstring: str


def documented(module: ast.Module, name: str) -> Iterator[Documented]:
    """The public names of a module that have a docstring, the module's own included; ruff finds those without."""
    if ast.get_docstring(module):
        yield Documented(name, 1, ast.get_docstring(module) or "")
    yield from _members(module, name)


def _members(owner: ast.Module | ast.ClassDef, prefix: str) -> Iterator[Documented]:
    for node in owner.body:
        if not isinstance(
            node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
        ) or node.name.startswith("_"):
            continue
        if docstring := ast.get_docstring(node):
            yield Documented(f"{prefix}.{node.name}", node.lineno, docstring)
        if isinstance(node, ast.ClassDef):
            yield from _members(node, f"{prefix}.{node.name}")


def words(text: str) -> set[str]:
    """The words of a name or sentence, without endings, so that `stored` and `stores` are one word."""
    apart = re.sub(r"([a-z])([A-Z])", r"\1 \2", text).replace("_", " ")
    return {
        re.sub(r"(ing|ed|es|s|e)$", "", word)
        for word in re.findall(r"[a-z]+", apart.lower())
        if word not in FILLER
    }


def problem(entry: Documented) -> str | None:
    """What is wrong with a docstring; None if nothing is."""
    summary = entry.docstring.partition("\n\n")[0].strip()
    if len(entry.docstring) < SHORTEST:
        return f"has {len(entry.docstring)} characters; say what is true afterwards"
    if not summary.endswith("." if summary == entry.docstring.strip() else (".", ":")):
        return "does not begin with a sentence that ends with a full stop"
    if len(words(entry.docstring) - words(entry.name)) < 2:
        return "only repeats its name"
    return None


def problems(part: str) -> list[str]:
    """A line for each docstring of a part of the package that says too little."""
    return [
        f"{path.relative_to(ROOT)}:{entry.line}: {entry.name} {found}: {entry.docstring.splitlines()[0]!r}"
        for path in files(part, ".py")
        for entry in documented(ast.parse(path.read_text("utf-8")), path.stem)
        if (found := problem(entry))
    ]


@pytest.mark.parametrize("part", sorted(PARTS))
def test_docstrings_say_something(part):
    """Each docstring of the package is a sentence that says more than the name."""
    assert problems(part) == []


@pytest.mark.parametrize(
    ("docstring", "expected"),
    [
        ("Read it.", "has 8 characters"),
        ("Read the stored records of a session", "does not begin with a sentence"),
        ("Read the stored records:", "has 24 characters"),
        ("Return the stored record and the records.", "only repeats its name"),
        ("Read the records of one session, oldest first.", None),
        ("Read the records, oldest first:\n\n- the number\n- the text", None),
    ],
)
def test_each_problem_is_found(docstring, expected):
    """A docstring that is too short, not a sentence, or a paraphrase of the name is a problem."""
    found = problem(Documented("storage.Reader.stored_records", 1, docstring))
    assert found is None if expected is None else found.startswith(expected)


def test_public_names_are_found():
    """Modules, classes, functions and methods are found, except those whose name begins with an underscore."""
    source = '''
"""M."""
class A:
    """A."""
    def b(self):
        """B."""
    def _c(self):
        """C."""
class _D:
    """D."""
    def e(self):
        """E."""
async def f():
    """F."""
    def g():
        """G."""
'''
    assert [entry.name for entry in documented(ast.parse(source), "m")] == ["m", "m.A", "m.A.b", "m.f"]
