"""Conditions: what meets them, what they lack, how they are written and said."""

from __future__ import annotations

from itertools import combinations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggers.core.conditions import Condition, all_of, condition_from_json
from triggers.testing.conformance import strategies
from triggers.testing.conformance.model import holds, names_in

NAMES = ("a", "b", "c", "d")


def subsets(names):
    return [set(chosen) for size in range(len(names) + 1) for chosen in combinations(sorted(names), size)]


@given(strategies.conditions(NAMES, depth=3))
def test_a_condition_is_met_by_what_the_reference_model_says(written):
    """For every set of names that may have happened, the condition and the model agree."""
    condition = condition_from_json(written)
    assert condition.names == names_in(written)
    for happened in subsets(NAMES):
        assert condition.is_met(happened) == holds(written, happened)


@given(strategies.conditions(NAMES, depth=3))
def test_more_never_unmeets_a_condition(written):
    """What is met stays met, whatever else happens."""
    condition = condition_from_json(written)
    for happened in subsets(NAMES):
        if condition.is_met(happened):
            assert all(condition.is_met(happened | {name}) for name in NAMES)


@given(strategies.conditions(NAMES, depth=3))
def test_a_condition_lacks_what_could_help_it(written):
    """It lacks nothing once it is met; until then it lacks names that have not happened, and all of them meet it."""
    condition = condition_from_json(written)
    for happened in subsets(NAMES):
        lacking = condition.lacking(happened)
        assert bool(lacking) != condition.is_met(happened)
        assert not set(lacking) & happened
        assert len(set(lacking)) == len(lacking)
        assert condition.is_met(happened | set(lacking))


@given(strategies.conditions(NAMES, depth=3))
def test_a_condition_can_be_written_and_read(written):
    """Its form in the rule language is read as an equal condition, and is itself one that is accepted."""
    from triggers.core.configuration import check_configuration  # noqa: PLC0415 - for this test alone

    condition = condition_from_json(written)
    form = condition.to_json()
    assert condition_from_json(form) == condition
    accepted = check_configuration({"t": {"after": form, "run": "r"}})
    assert accepted.rules["t"].after == condition


@pytest.mark.parametrize(
    ("written", "form", "sentence"),
    [
        (["a"], ["a"], "a"),
        (["a", "b"], ["a", "b"], "a and b"),
        ({"all": ["a", "b"]}, ["a", "b"], "a and b"),
        ({"any": ["a", "b"]}, {"any": ["a", "b"]}, "a or b"),
        ({"any": ["a"]}, ["a"], "a"),
        ({"any": ["a", "a"]}, ["a"], "a"),
        ({"atLeast": 1, "of": ["a", "b"]}, {"any": ["a", "b"]}, "a or b"),
        ({"atLeast": 2, "of": ["a", "b"]}, ["a", "b"], "a and b"),
        (
            {"atLeast": 2, "of": ["a", "b", "c"]},
            {"atLeast": 2, "of": ["a", "b", "c"]},
            "at least 2 of a, b, c",
        ),
        (
            [{"any": ["a", "b"]}, "c"],
            {"all": [{"any": ["a", "b"]}, "c"]},
            "(a or b) and c",
        ),
        (
            {"any": [{"all": ["a", "b"]}, {"atLeast": 2, "of": ["a", "c", "d"]}]},
            {"any": [{"all": ["a", "b"]}, {"atLeast": 2, "of": ["a", "c", "d"]}]},
            "(a and b) or (at least 2 of a, c, d)",
        ),
        ([], [], "nothing"),
    ],
)
def test_a_condition_has_one_form_and_one_sentence(written, form, sentence):
    """The list where every name is needed; else the word that says it; and the same in words."""
    condition = condition_from_json(written)
    assert condition.to_json() == form
    assert condition.sentence() == sentence


def test_a_name_twice_in_nested_terms_counts_for_each():
    """Happening once, it meets every term in which it stands."""
    condition = condition_from_json({"atLeast": 2, "of": [{"any": ["a", "b"]}, {"any": ["a", "c"]}]})
    assert condition.is_met({"a"})
    assert not condition.is_met({"b"})
    assert condition.lacking({"b"}) == ("a", "c")


def test_nothing_is_needed_for_nothing():
    """The empty condition is met from the start and names nothing."""
    nothing = all_of([])
    assert nothing == Condition(0, ())
    assert nothing.is_met(())
    assert nothing.names == frozenset()
    assert nothing.lacking(()) == ()


@given(st.lists(st.sampled_from(NAMES)))
def test_repeated_terms_are_one(names):
    """A list with repeats says the same as one without."""
    assert all_of(names) == all_of(dict.fromkeys(names))


def test_equal_conditions_have_equal_hashes():
    """Conditions are values: they can stand in sets."""
    assert len({all_of(["a", "b"]), all_of(["a", "b"]), all_of(["b", "a"])}) == 2
