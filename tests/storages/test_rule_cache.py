"""The rule sets that a storage has read are read once, and only committed ones are kept."""

from __future__ import annotations

import pytest

from triggers.core.rules import NO_RULES
from triggers.health import Problems
from triggers.storages import rule_cache
from triggers.storages.rule_cache import RuleCache


class Stored:
    """Texts of rule sets, which counts how often they are read."""

    def __init__(self):
        self.reads = []

    def one(self, ref):
        self.reads.append(ref)
        return NO_RULES.body

    def many(self, refs):
        return {ref: self.one(ref) for ref in refs}


@pytest.fixture
def stored():
    return Stored()


def test_a_rule_set_is_read_once(stored):
    """What was read for one reference is found by both methods, and its digest is known."""
    cache = RuleCache(Problems())
    assert not cache.has_digest(NO_RULES.digest)
    first = cache.one(1, stored.one)
    again, second, _ = cache.many([1, 2, 1], stored.many)
    assert again is first
    assert cache.one(2, stored.one) is second
    assert first.digest == second.digest == NO_RULES.digest
    assert stored.reads == [1, 2]
    assert cache.has_digest(NO_RULES.digest)


def test_a_read_only_view_finds_and_adds_nothing(stored):
    """A view for a transaction that can be rolled back finds what is in the cache and keeps nothing that it reads."""
    cache = RuleCache(Problems())
    cache.one(1, stored.one)
    view = cache.read_only()
    view.one(1, stored.one)
    view.many([2], stored.many)
    cache.one(2, stored.one)
    assert stored.reads == [1, 2, 2]


def test_a_full_cache_is_emptied(stored, monkeypatch):
    """One rule set more than the limit empties the cache, so that it never grows without bound."""
    monkeypatch.setattr(rule_cache, "MAX_RULE_SETS", 2)
    cache = RuleCache(Problems())
    for ref in (1, 2, 3, 3, 1):
        cache.one(ref, stored.one)
    assert stored.reads == [1, 2, 3, 1]


def test_a_damaged_rule_set_is_left_out_and_reported_until_it_can_be_read(stored):
    """The others are returned, the damaged one is read again each time, and its problem is over once that works."""
    problems = Problems()
    cache = RuleCache(problems)
    found = cache.readable([1, 2, 3], lambda refs: {**stored.many(refs), 2: "damaged"})
    assert set(found) == {1, 3}
    assert [problem.place for problem in problems.list()] == ["rule set 2"]
    cache.one(2, stored.one)
    assert problems.list() == ()
    assert set(cache.readable([1, 2, 3], stored.many)) == {1, 2, 3}
    assert stored.reads == [1, 2, 3, 2]
