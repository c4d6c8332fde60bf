"""The parts of the package, and the texts in its files that people read."""

from __future__ import annotations

import ast
import re
import tokenize
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "src" / "triggers"

#: Every package and every module that is directly in the library. A style test can require each of them separately.
PARTS = sorted(
    path.name
    for path in PACKAGE.iterdir()
    if path.name != "__pycache__" and (path.is_dir() or path.suffix == ".py")
)


class Text(NamedTuple):
    """A text that people read, and the line on which it begins."""

    line: int
    text: str


def files(part: str, *suffixes: str) -> list[Path]:
    """The files of a part of the package that have one of these suffixes."""
    path = PACKAGE / part
    if path.is_file():
        return [path]
    return sorted(
        file for file in path.rglob("*") if file.suffix in suffixes and "__pycache__" not in file.parts
    )


def texts(path: Path) -> list[Text]:
    """The string literals, docstrings and comments of a Python file; the comments of a SQL or Lua file."""
    source = path.read_text("utf-8")
    if path.suffix != ".py":
        return _joined(
            (number, found[1])
            for number, line in enumerate(source.splitlines(), 1)
            if (found := re.search(r"--+(.*)", line))
        )
    return python_texts(source)


def python_texts(source: str) -> list[Text]:
    """The string literals, docstrings and comments of a Python program."""
    strings = [
        Text(node.lineno, node.value)
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    ]
    comments = _joined(
        (token.start[0], token.string.lstrip("#:"))
        for token in tokenize.generate_tokens(StringIO(source).readline)
        if token.type == tokenize.COMMENT
    )
    return strings + comments


def _joined(comments: Iterable[tuple[int, str]]) -> list[Text]:
    """Comments on adjacent lines, as one text, so that a phrase is found across them."""
    found: list[Text] = []
    for line, text in comments:
        if found and found[-1].line + found[-1].text.count("\n") + 1 == line:
            found[-1] = Text(found[-1].line, f"{found[-1].text}\n{text}")
        else:
            found.append(Text(line, text))
    return found
