"""What the documents say about the code is so: generated parts, names of errors, names of tests."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

import triggers
from triggers import exceptions
from triggers.core.rules import DIRECTIVES
from triggers.core.status import MOVES, Status

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
REFERENCE = DOCS / "reference"
GENERATED = [
    document for document in sorted(DOCS.rglob("*.md")) if "<!-- generated: " in document.read_text("utf-8")
]

CODE = re.compile(r"`([^`\n]+)`")


@pytest.fixture(scope="module")
def generate():
    """The tool that writes the generated parts."""
    spec = importlib.util.spec_from_file_location("generate", DOCS / "generate.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("document", GENERATED, ids=lambda document: document.name)
def test_generated_parts_are_as_the_code_is(document, generate):
    """Nothing changes in a document when `python docs/generate.py` is run again."""
    text = document.read_text("utf-8")
    assert generate.written(text) == text


def test_some_documents_have_generated_parts():
    """The marks were found."""
    assert {document.name for document in GENERATED} >= {"api.md", "errors.md", "settings.md", "statuses.md"}


def test_the_diagram_has_every_move(generate):
    """The diagram and the table of moves say the same, and show every status."""
    text = generate.written(
        "<!-- generated: moves -->\n<!-- end -->\n<!-- generated: diagram -->\n<!-- end -->\n"
    )
    for move in MOVES:
        assert f"    {move.before} --> {move.after}: {move.because}\n" in text
        assert f"| {move.before} | {move.after} | {move.because} |\n" in text
    assert all(re.search(rf"\b{status}\b", text) for status in Status)


def test_text_between_other_marks_stays(generate):
    """What stands outside of the marks is left alone."""
    text = "a\n<!-- end -->\nb <!-- generated: --> c\n"
    assert generate.written(text) == text


def test_every_name_of_the_front_door_is_explained():
    """The reference names everything that can be imported from `triggers`."""
    text = (REFERENCE / "api.md").read_text("utf-8")
    missing = [name for name in triggers.__all__ if not re.search(rf"\b{name}\b", text)]
    assert missing == []


def test_every_error_is_explained():
    """The page of errors has a row, or a sentence, for each error that there is, and for no other."""
    text = (REFERENCE / "errors.md").read_text("utf-8").partition("<!-- end -->")[2]
    there = {
        name
        for name, value in vars(exceptions).items()
        if isinstance(value, type) and issubclass(value, Exception)
    }
    explained = set(CODE.findall(text))
    assert there - explained == set()
    assert {name for name in explained if name.endswith(("Error", "Lost", "Exceeded"))} - there == set()


def test_every_directive_is_explained():
    """The reference of the rule language has a heading for each directive."""
    text = (REFERENCE / "rule-language.md").read_text("utf-8")
    assert [name for name in DIRECTIVES if f"### `{name}`" not in text] == []


@pytest.mark.parametrize("document", ["explanation/guarantees.md", "explanation/logging.md"])
def test_the_tests_that_are_named_exist(document):
    """A test that a document calls as a witness is there."""
    named = set(re.findall(r"`(test_\w+)`", (DOCS / document).read_text("utf-8")))
    there = {
        name
        for path in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text("utf-8"))
    }
    there |= {
        name
        for path in (ROOT / "src").rglob("*.py")
        for name in re.findall(r"def (test_\w+)", path.read_text("utf-8"))
    }
    assert named
    assert named - there == set()


def anchors(document):
    """What a link into the document may end with."""
    headings = re.findall(r"^#+ (.+)$", document.read_text("utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize(
    "document", sorted([ROOT / "README.md", *DOCS.rglob("*.md")]), ids=lambda document: document.name
)
def test_links_to_headings_lead_to_a_heading(document):
    """A link with an anchor names a heading of the document that it leads to."""
    links = re.findall(r"\]\((?!\w+:)([^)#\s]*)#([^)\s]+)\)", document.read_text("utf-8"))
    targets = [(document.parent / path if path else document, anchor) for path, anchor in links]
    assert [(target.name, anchor) for target, anchor in targets if anchor not in anchors(target)] == []
