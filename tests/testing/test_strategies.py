from __future__ import annotations

import math
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from uuid import UUID

import pytest
from hypothesis import Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample

from triggers.core.configuration import check_configuration
from triggers.core.values import decode, encode
from triggers.testing.conformance import strategies as made
from triggers.testing.conformance.model import holds, names_in, same

# What is looked for need only be found, not made small.
QUICKLY = settings(max_examples=2000, database=None, phases=[Phase.generate])


def depth_of(condition):
    if isinstance(condition, str):
        return 0
    if isinstance(condition, list):
        return 0
    members = next(condition[word] for word in ("all", "any", "of") if word in condition)
    return 1 + max(depth_of(member) for member in members)


@given(configuration=st.one_of(made.configurations(), made.configurations(times=True)))
def test_every_configuration_is_valid(configuration):
    """The library accepts whatever is drawn."""
    check_configuration(configuration)


@given(payload=made.kwargs())
def test_all_kwargs_come_back_as_they_went_in(payload):
    """The library stores whatever is drawn, and reads the same data again."""
    assert same(decode(encode(payload, "kwargs")), payload)


@given(depth=st.integers(0, 3), data=st.data())
def test_conditions_are_as_deep_as_asked_for(depth, data):
    """No condition is deeper than asked, names another trigger, or can't be met; none is met by nothing."""
    condition = data.draw(made.conditions(["a", "b", "c"], depth))
    assert depth_of(condition) <= depth
    assert names_in(condition) <= {"a", "b", "c"}
    assert holds(condition, {"a", "b", "c"})
    assert not holds(condition, set())


@pytest.mark.parametrize("word", ["all", "any", "atLeast"])
def test_each_form_of_condition_occurs_at_the_bottom(word):
    """`all`, `any` and `atLeast` are found inside other conditions."""

    def nested(condition):
        if not isinstance(condition, dict):
            return False
        members = next(condition[key] for key in ("all", "any", "of") if key in condition)
        return any(isinstance(member, dict) and word in member for member in members)

    assert find(made.conditions(["a", "b", "c"]), nested, settings=QUICKLY)


@pytest.mark.parametrize(
    "occurs",
    [
        lambda c: any("andEvery" in rule and "after" not in rule for rule in c.values()),
        lambda c: any("andEvery" in rule and rule.get("after") == [] for rule in c.values()),
        lambda c: any(rule.get("unless") == [] for rule in c.values()),
        lambda c: any(
            names_in(rule.get("unless", [])) & names_in(rule.get("after", [])) for rule in c.values()
        ),
        lambda c: any(names_in(rule.get("after", [])) & set(c) for rule in c.values()),
        lambda c: any(rule.get("andEvery") in c for rule in c.values()),
        lambda c: any(task in names_in(rule.get("after", [])) for task, rule in c.items()),
        lambda c: any(task in names_in(rule.get("unless", [])) for task, rule in c.items()),
        lambda c: len(c) == 3,
    ],
)
def test_what_breaks_implementations_occurs(occurs):
    """Each rare shape of a configuration is found within a few thousand."""
    assert find(made.configurations(), occurs, settings=QUICKLY)


@pytest.mark.parametrize(
    ("without", "found"),
    [
        ({"and_every": False}, lambda c: any("andEvery" in rule for rule in c.values())),
        ({"unless": False}, lambda c: any("unless" in rule for rule in c.values())),
        (
            {"listening": False},
            lambda c: "t_" in repr([names_in(rule.get("after", [])) for rule in c.values()]),
        ),
        (
            {"listening": False},
            lambda c: "t_" in repr([names_in(rule.get("unless", [])) for rule in c.values()]),
        ),
        (
            {"depth": 0, "listening": False},
            lambda c: any(isinstance(rule.get("after"), dict) for rule in c.values()),
        ),
        ({"min_tasks": 2}, lambda c: len(c) < 2),
    ],
)
def test_what_is_left_out_does_not_occur(without, found):
    """Each switch of a configuration keeps out what it says."""
    assert find(made.configurations(), found, settings=QUICKLY) is not None
    with pytest.raises(NoSuchExample):
        find(made.configurations(**without), found, settings=settings(QUICKLY, max_examples=200))


@pytest.mark.parametrize(
    "kind", [type(None), bool, int, float, str, datetime, date, time, timedelta, Decimal, UUID, bytes]
)
def test_each_type_of_value_occurs(kind):
    """Every type that can be stored is drawn as a scalar."""
    assert type(find(made.scalars(), lambda value: type(value) is kind, settings=QUICKLY)) is kind


@given(value=made.scalars())
def test_no_scalar_is_beyond_what_can_be_stored(value):
    """Numbers are finite and fit; times have no fold."""
    if isinstance(value, (float, Decimal)):
        assert math.isfinite(value)
    if isinstance(value, int):
        assert -(2**63) <= value < 2**63
    if isinstance(value, (datetime, time)):
        assert value.fold == 0


@given(firing=made.firings(["x"], keys=["k"]), row=made.sequences(max_size=2))
def test_firings_are_ready_to_be_fired(firing, row):
    """A firing is a trigger, kwargs, and a key or None, from what was given."""
    trigger, payload, key = firing
    assert trigger == "x"
    assert payload["n"] in {0, 1, 2}
    assert key in {None, "k"}
    assert len(row) <= 2
    assert all(name in made.TRIGGERS and key is None for name, _, key in row)
