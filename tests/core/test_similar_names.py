"""Which names are similar enough to be mistaken for each other."""

from __future__ import annotations

import pytest

from triggers.core.similar_names import are_similar, did_you_mean, similar_pairs, spellings


@pytest.mark.parametrize(
    ("one", "other", "similar"),
    [
        ("pageReceived", "page_received", True),
        ("pageReceived", "PAGE-RECEIVED", True),
        ("pageReceived", "pageRecieved", True),
        ("pageReceived", "pageReceive", True),
        ("pageReceived", "pageReceeved", True),
        ("t_import", "timport", True),
        ("pageReceived", "pageReceived", False),
        ("page1", "page2", False),
        ("page1", "page12", False),
        ("page", "pageReceived", False),
        ("go", "no", False),
        ("a", "b", False),
        ("", "a", False),
    ],
)
def test_similar_names(one, other, similar):
    """They differ in spelling or in one letter; names with other numbers, and very short names, are different."""
    assert are_similar(one, other) is are_similar(other, one) is similar
    assert list(similar_pairs([one, other])) == ([(one, other)] if similar else [])


def test_spellings():
    """The usual spellings of a name are found from each of them."""
    usual = {
        "pageReceived",
        "PageReceived",
        "page_received",
        "page-received",
        "pagereceived",
        "PAGE_RECEIVED",
    }
    for name in usual - {"pagereceived"}:
        assert usual - {name} <= spellings(name)
    assert spellings("") == frozenset()


def test_a_hint_has_the_probable_name():
    """Another spelling comes before a name that only looks alike; without either, there is no hint."""
    assert did_you_mean("page_received", ["page_receive", "pageReceived"]) == "; did you mean 'pageReceived'?"
    assert did_you_mean("pageReceivd", ["go", "pageReceived"]) == "; did you mean 'pageReceived'?"
    assert did_you_mean("zzz", ["go"]) == ""
