"""The documents keep their word: their examples run, their links lead somewhere.

In each Markdown file the blocks marked `python` are one script, top to bottom, run in an empty folder by an
interpreter of its own. A block that is not meant to run says so: ```` ```python no-run ````.
"""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])

BLOCK = re.compile(r"^```(?P<mark>.*)\n(?P<code>(?:.*\n)*?)^```$", re.MULTILINE)
LINK = re.compile(r"\]\((?!\w+:|#)(?P<path>[^)#\s]+)[^)]*\)")


def script(text: str) -> str:
    """The blocks that are meant to run, each on the lines where it stands, so that a traceback names them."""
    lines = [""] * text.count("\n")
    for block in BLOCK.finditer(text):
        if block["mark"].split() == ["python"]:
            first = text.count("\n", 0, block.start("code"))
            code = block["code"].splitlines()
            lines[first : first + len(code)] = code
    return "\n".join(lines).rstrip() + "\n"


def links(text: str) -> list[str]:
    """The paths that the prose links to; web addresses and anchors are left out."""
    return [link["path"] for link in LINK.finditer(BLOCK.sub("", text))]


def named(paths: list[Path]) -> list[object]:
    return [pytest.param(path, id=path.relative_to(ROOT).as_posix()) for path in paths]


@pytest.mark.parametrize("document", named([d for d in DOCUMENTS if script(d.read_text("utf-8")).strip()]))
def test_the_examples_run(document, tmp_path):
    """The examples of a document, taken together, run to their end without an error or a warning of Python's."""
    program = tmp_path / f"{document.stem}-example.py"  # never the name of a module
    program.write_text(script(document.read_text("utf-8")), encoding="utf-8")
    folder = tmp_path / "empty"
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "error", str(program)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("document", named(DOCUMENTS))
def test_the_links_lead_somewhere(document):
    """Every relative link leads to a file or folder of this repository."""
    missing = [path for path in links(document.read_text("utf-8")) if not (document.parent / path).exists()]
    assert missing == []


def test_only_blocks_that_say_python_alone_run():
    """Blocks of other languages, and Python that says `no-run`, are left out; the others keep their lines."""
    text = "# T\n\n```python\na = 1\n```\n\n```sh\nls\n```\n\n```python no-run\nb\n```\n\n```python\nprint(a)\n```\n"
    assert script(text) == "\n\n\na = 1" + "\n" * 12 + "print(a)\n"


def test_links_are_found_in_the_prose_alone():
    """Paths are found with or without an anchor; addresses, anchors and code are not links to files."""
    text = "[a](b.md#c) [d](https://e.org) [f](#g) ![h](i.svg)\n```json\n[j](k)\n```\n"
    assert links(text) == ["b.md", "i.svg"]
