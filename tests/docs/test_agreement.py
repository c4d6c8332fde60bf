"""What a document says about the code, or another document says too, is compared with the code."""

from __future__ import annotations

import importlib
import logging
import re
from collections import Counter

import pytest

from tests.docs.test_documents import DOCUMENTS, ROOT, links

DOCS = ROOT / "docs"

#: A line that tells from which logger something comes, and a name in it.
SAYS_LOGGER = re.compile(r"^.*(?:[Ll]ogger `triggers\.|warnings of `).*$", re.MULTILINE)
NAME = re.compile(r"`(triggers\.[\w.]+)`")


def loggers(document):
    """The names of the library's loggers that a document mentions."""
    lines = SAYS_LOGGER.findall(document.read_text("utf-8"))
    return {name for line in lines for name in NAME.findall(line)}


def test_the_index_lists_every_page_once():
    """Who looks for a page finds it in one place."""
    listed = Counter(
        path
        for path in links((DOCS / "index.md").read_text("utf-8"))
        if path.startswith(("how-to", "ref", "exp", "tut", "glo"))
    )
    pages = {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")} - {"index.md"}
    assert listed == Counter(pages)


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_loggers_that_are_named_exist(document):
    """Each is a module that has a logger of its own."""
    for name in loggers(document):
        assert isinstance(vars(importlib.import_module(name)).get("_log"), logging.Logger), name


def test_a_page_names_loggers():
    """The pattern finds those in the table on monitoring."""
    found = loggers(DOCS / "how-to/run-on-many-machines.md")
    assert {"triggers.worker.sweep", "triggers.health", "triggers.runners.sender"} <= found


def test_no_page_installs_a_package_that_is_not_published():
    """Until it is published, every page installs a checkout."""
    for document in DOCUMENTS:
        text = document.read_text("utf-8")
        assert re.findall(r"pip install [^\n]*session-triggers", text) == [], document
