"""When a condition of the reference model holds, and what `andEvery` and `unless` do with it."""

from __future__ import annotations

import pytest

from tests.testing.modeling import fire_all, session, statuses, task
from triggers.testing.conformance.model import (
    holds,
    names_in,
)

# -- conditions ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "met", "unmet"),
    [
        (["a", "b"], ["ab", "abc"], ["", "a", "b", "c"]),
        ({"all": ["a", "b"]}, ["ab"], ["a", "b"]),
        ({"any": ["a", "b"]}, ["a", "b", "ab"], ["", "c"]),
        ({"atLeast": 2, "of": ["a", "b", "c"]}, ["ab", "bc", "abc"], ["", "a", "c"]),
        ({"atLeast": 2, "of": ["a", "a", "b"]}, ["ab"], ["a", "b"]),
        (["any", "b"], [["any", "b"]], ["b", ["any"]]),
        (["atLeast", "b"], [["atLeast", "b"]], ["b", ["atLeast"]]),
        ({"any": [{"all": ["a", "b"]}, "c"]}, ["ab", "c"], ["a", "b"]),
        ({"all": [{"any": ["a", "b"]}, {"atLeast": 1, "of": ["c"]}]}, ["ac", "bc"], ["ab", "c"]),
        (
            {"atLeast": 2, "of": ["a", {"all": ["b", "c"]}, {"any": ["c", "d"]}]},
            ["bc", "ad", "ac"],
            ["a", "b", "cd"],
        ),
    ],
)
def test_conditions_hold_as_they_read(condition, met, unmet):
    """Each form of a condition is met by exactly the sets of triggers that its words say."""
    assert [holds(condition, set(seen)) for seen in met] == [True] * len(met)
    assert [holds(condition, set(seen)) for seen in unmet] == [False] * len(unmet)


def test_the_names_of_a_condition_are_found_at_every_depth():
    """A trigger is heard wherever in a condition it stands."""
    assert names_in({"any": [{"all": ["a", {"atLeast": 1, "of": ["b"]}]}, "c"]}) == {"a", "b", "c"}


def test_a_nested_condition_schedules_when_it_is_met():
    """`any` starts at its first branch; what comes later neither changes nor creates anything."""
    model = session({"t": {"after": {"any": [{"all": ["a", "b"]}, "c"]}, "run": "r"}})
    model.fire("a")
    assert statuses(model) == {"t#0": "unstarted"}
    assert model.fire("c").scheduled == ("t#0",)
    assert model.fire("b").created == ()
    assert model.instances["t#0"].kwargs == {"a": {}, "c": {}}


# -- andEvery ------------------------------------------------------------------------------------------------


def test_a_storm_makes_one_instance_per_firing():
    """Each firing of `andEvery` is seen by exactly one instance, waiting or not."""
    model = session({"t": task("a", andEvery="b")})
    for n in range(5):
        model.fire("b", {"n": n})
    assert [i.kwargs for i in model.instances_of("t")] == [{"b": {"n": n}} for n in range(5)]
    assert model.fire("a").scheduled == ("t#0", "t#1", "t#2", "t#3", "t#4")
    assert model.fire("b", {"n": 5}).created == ("t#5",)


def test_and_every_goes_to_the_instance_that_lacks_it():
    """The instance made by another trigger takes the first firing of `andEvery`; the next makes a new one."""
    model = session({"t": task("a", andEvery="b")})
    model.fire("a")
    assert model.fire("b").created == ()
    assert model.fire("b").created == ("t#1",)
    assert model.fire("a").created == ()


def test_and_every_is_implied_in_after():
    """A task with nothing but `andEvery` starts at each of its firings, and with them alone."""
    model = session({"t": {"andEvery": "b", "run": "r"}, "u": {"after": [], "andEvery": "b", "run": "r"}})
    assert model.fire("b").scheduled == ("t#0", "u#0")
    assert model.fire("b").scheduled == ("t#1", "u#1")


def test_and_every_is_needed_beside_an_any():
    """A met `after` does not start an instance that lacks its `andEvery`."""
    model = session({"t": {"after": {"any": ["a", "b"]}, "andEvery": "c", "run": "r"}})
    fire_all(model, "a", "b")
    assert statuses(model) == {"t#0": "unstarted"}
    model.fire("c")
    assert statuses(model) == {"t#0": "scheduled"}


def test_and_every_that_also_stands_in_after_is_one_trigger():
    """Naming `andEvery` in `after` too changes nothing."""
    model = session({"t": task("b", "a", andEvery="b")})
    fire_all(model, "b", "b", "a")
    assert statuses(model) == {"t#0": "scheduled", "t#1": "scheduled"}


# -- unless --------------------------------------------------------------------------------------------------


def test_only_all_of_unless_abandons():
    """A part of a list of vetoes stops nothing."""
    model = session({"t": task("a", unless=["x", "y"])})
    model.fire("x")
    assert statuses(model) == {"t#0": "unstarted"}
    assert model.fire("y").abandoned == ("t#0",)
    assert model.fire("a").scheduled == ()
    assert model.instances["t#0"].kwargs == {}


@pytest.mark.parametrize(
    "unless", [{"any": ["x", "y"]}, {"atLeast": 1, "of": ["x", "y"]}, {"any": [{"all": ["y"]}]}]
)
def test_unless_is_a_condition_like_after(unless):
    """A veto may be nested, and abandons once it is met."""
    model = session({"t": task("a", unless=unless)})
    assert model.fire("y").abandoned == ("t#0",)


@pytest.mark.parametrize("unless", [[], {"all": []}])
def test_an_empty_unless_never_vetoes(unless):
    """Nothing is not a reason to abandon."""
    model = session({"t": task("a", "b", unless=unless)})
    fire_all(model, "a", "b")
    assert statuses(model) == {"t#0": "scheduled"}


def test_a_veto_gives_no_kwargs():
    """What stands only in `unless` is kept as a veto, and not shown to the task."""
    model = session({"t": task("a", unless=["x", "y"])})
    model.fire("x", {"n": 1})
    model.fire("a")
    instance = model.instances["t#0"]
    assert (instance.kwargs, instance.taken, instance.vetoes) == ({"a": {}}, {"a": 2}, {"x"})


def test_abandoning_wins_over_scheduling():
    """A firing that meets `after` and `unless` at once abandons."""
    model = session({"t": task("a", unless=["a"]), "u": task("a", "b", unless=["a", "b"])})
    result = model.fire("a")
    assert (result.created, result.abandoned, result.scheduled) == (("t#0", "u#0"), ("t#0",), ())
    assert model.instances["t#0"].run_at is None
    assert model.fire("b").abandoned == ("u#0",)
    assert model.instances["u#0"].kwargs == {"a": {}, "b": {}}


def test_a_past_veto_holds_for_every_new_instance():
    """A new instance starts with the vetoes that were fired, and with a met `unless` is abandoned at once."""
    model = session({"t": task("a", andEvery="b", unless=["x"])})
    fire_all(model, "a", "b", "x")
    assert statuses(model) == {"t#0": "scheduled"}
    result = model.fire("b")
    assert (result.created, result.abandoned) == (("t#1",), ("t#1",))


def test_a_veto_stops_every_waiting_instance():
    """One firing abandons all unstarted instances of a task."""
    model = session({"t": task("a", andEvery="b", unless=["x"])})
    fire_all(model, "b", "b", "b")
    assert model.fire("x").abandoned == ("t#0", "t#1", "t#2")
    assert model.fire("a").scheduled == ()
