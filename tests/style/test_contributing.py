"""CONTRIBUTING.md names every module of the package and no others; the page on architecture names no others."""

from __future__ import annotations

import re

import pytest

from tests.style.sources import PACKAGE, ROOT

_, _, _TABLE = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("## Where does my line go?\n\n")
_ROWS = [line for line in _TABLE.partition("\n## ")[0].splitlines() if line.startswith("| ")][2:]

#: The files and folders in the last column.
NAMED = sorted({name for row in _ROWS for name in re.findall(r"`([\w./]+)`", row.rsplit("|", 2)[1])})


@pytest.mark.parametrize("name", NAMED or [None])
def test_every_row_names_a_file_or_folder(name):
    """A module that was moved or deleted must leave the table."""
    assert (PACKAGE / name).exists() or (PACKAGE.parent / name).exists()


def test_every_module_has_a_row():
    """Each module is named by a row or is in a folder that is. The `__init__.py` of a package inside needs no row."""
    modules = {path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py")}
    folders = tuple(name for name in NAMED if name.endswith("/"))
    assert {
        module
        for module in modules - {*NAMED}
        if not module.startswith(folders) and not module.endswith("/__init__.py")
    } == set()


def test_the_page_on_architecture_names_existing_files():
    """A file that was moved or deleted must leave the page that follows a firing, file by file."""
    page = (ROOT / "docs/explanation/architecture.md").read_text("utf-8")
    named = set(re.findall(r"`([a-z_]+(?:/[a-z_]+)*(?:\.py|\.sql|\.lua|/))`", page))
    assert len(named) > 30
    assert {name for name in named if not (PACKAGE / name).exists()} == set()
