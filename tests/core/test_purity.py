"""The core is told the time and every identifier.

What it may import, the layers in pyproject.toml say. What it could still do with datetime and uuid, whose types
its codec needs, and with the builtins, is refused here.
"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import triggers.core

#: What of datetime and uuid is a clock, or dice.
CLOCK_AND_DICE = {"now", "utcnow", "today", "uuid1", "uuid4", "uuid6", "uuid7", "uuid8", "getnode"}
#: Builtins that reach the disk, the terminal, or code that no import statement shows.
OUTSIDE = {"open", "print", "input", "breakpoint", "exec", "eval", "compile", "__import__"}

MODULES = sorted(Path(triggers.core.__file__).parent.rglob("*.py"))


def impurities(source: str) -> list[str]:
    """Every name in the source that reaches outside, with its line."""
    return [f"line {node.lineno}: {name}" for node in ast.walk(ast.parse(source)) for name in _outside(node)]


def _outside(node: ast.AST) -> list[str]:
    match node:
        case ast.Name(id=name, ctx=ast.Load()) if name in OUTSIDE:
            return [name]
        case ast.Attribute(value=ast.Name(id=owner) | ast.Attribute(attr=owner), attr=name) if (
            owner in {"datetime", "date", "uuid"} and name in CLOCK_AND_DICE
        ):
            return [f"{owner}.{name}"]
        case ast.ImportFrom(names=names):
            return [alias.name for alias in names if alias.name in CLOCK_AND_DICE]
    return []


@pytest.mark.parametrize("module", MODULES, ids=lambda path: path.stem)
def test_the_core_asks_no_clock_and_throws_no_dice(module):
    """No module of the core reads a clock, makes an identifier, or touches disk or terminal."""
    assert impurities(module.read_text("utf-8")) == [], f"{module}: take it as an argument instead"


@pytest.mark.parametrize(
    "source",
    [
        "from datetime import datetime, UTC\nx = datetime.now(UTC)",
        "import datetime as dt\nx = dt.datetime.utcnow()",
        "from datetime import date\nread = date.today",
        "import uuid\nx = uuid.uuid4()",
        "from uuid import uuid4 as new",
        "x = open('file')",
        "x = __import__('time').time()",
    ],
)
def test_what_reaches_outside_is_found(source):
    """Each way to a clock, dice, disk or hidden import that the rule is about is seen by it."""
    assert len(impurities(source)) == 1


def test_what_was_given_may_be_read():
    """Reading a `now` that came in as an argument is pure."""
    assert impurities("def decide(given): return given.now") == []
