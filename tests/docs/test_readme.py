"""What the README and the tutorial show as printed is what their examples print."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
README = ROOT / "README.md"
BLOCK = re.compile(r"^```(?P<mark>python|text)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)


def blocks(document, mark):
    """The text of all blocks of a kind, one after the other."""
    found = [block["text"] for block in BLOCK.finditer(document.read_text("utf-8")) if block["mark"] == mark]
    assert found
    return "\n".join(found) if mark == "python" else "".join(found)


def run(document, folder):
    """Run the examples of a document in a folder; returns what they printed."""
    command = [sys.executable, "-W", "error", "-c", blocks(document, "python")]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("document", [README, ROOT / "docs" / "tutorial.md"], ids=["readme", "tutorial"])
def test_the_examples_print_what_is_shown(document, tmp_path):
    """Line by line, the examples print what the document shows below them."""
    assert run(document, tmp_path) == blocks(document, "text")


def test_the_example_runs_again_on_its_file(tmp_path):
    """A second run of the README's example finds everything done: the same instances with the same results."""
    run(README, tmp_path)
    assert run(README, tmp_path).splitlines()[1:] == blocks(README, "text").splitlines()[1:]


TUTORIAL = ROOT / "docs" / "tutorial.md"


@pytest.mark.parametrize("before", [README, TUTORIAL], ids=["readme first", "tutorial first"])
def test_the_examples_do_not_disturb_each_other(before, tmp_path):
    """In one folder, in both orders, each prints what is shown; the tutorial also when it runs again."""
    after = TUTORIAL if before is README else README
    for document in (before, after, TUTORIAL):
        assert run(document, tmp_path) == blocks(document, "text")


def test_the_readme_is_short():
    """The README has at most 200 lines, so that people read it."""
    assert len(README.read_text("utf-8").splitlines()) <= 200
