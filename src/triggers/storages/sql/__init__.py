"""SQL by name: each statement is in a `.sql` file, under a line ``-- name: …`` and its description."""

from __future__ import annotations

import re
from functools import cache
from importlib.resources import files


@cache
def statements(dialect: str) -> dict[str, str]:
    """Name → statement, from the file `<dialect>/statements.sql` beside this package."""
    text = (files("triggers.storages") / dialect / "statements.sql").read_text("utf-8")
    parts = re.split(r"^-- name: (\w+)$", text, flags=re.MULTILINE)[1:]
    return {name: _bare(body) for name, body in zip(parts[::2], parts[1::2], strict=True)}


@cache
def migrations(dialect: str) -> tuple[tuple[str, ...], ...]:
    """The statements of each numbered file in `<dialect>/migrations`. The first file makes version 1."""
    folder = files("triggers.storages") / dialect / "migrations"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    return tuple(
        tuple(filter(None, (_bare(part) for part in (folder / name).read_text("utf-8").split(";\n"))))
        for name in names
    )


def _bare(text: str) -> str:
    lines = (line.partition("--")[0].rstrip() for line in text.splitlines())
    return "\n".join(line for line in lines if line).strip().rstrip(";")
