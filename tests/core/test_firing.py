"""Decisions of the application at their limits: firings, changes of the rules, finalizing.

The suite of every storage compares the usual cases with the reference model.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from triggers.core.terms import Finalizing, Policy
from triggers.core.values import Limits, decode
from triggers.exceptions import ConfigurationError
from triggers.testing.conformance.fixtures import batch, entry
from triggers.testing.conformance.steps import Steps

EVERY = {"t": {"andEvery": "a", "run": "r"}}


# -- taking triggers -------------------------------------------------------------------------------------


def test_the_first_firing_that_an_instance_saw_stays_with_it(steps):
    """A later firing of the trigger never changes its kwargs."""
    steps.configure({"t": {"after": ["a", "b"], "run": "r"}})
    steps.fire("a", {"n": 1})
    steps.fire("a", {"n": 2})
    steps.fire("b")
    assert steps.kwargs("t#0") == {"a": {"n": 1}, "b": {}}


def test_a_new_instance_starts_with_the_latest_firings(steps):
    """Of each of its other triggers the latest that has fired, and the one that made it."""
    steps.configure({"t": {"after": ["a"], "andEvery": "e", "run": "r"}})
    for n in range(3):
        steps.fire("a", {"n": n})
    steps.fire("e", {"n": 7})
    steps.fire("e", {"n": 8})
    assert steps.kwargs("t#0") == {"a": {"n": 0}, "e": {"n": 7}}
    assert steps.kwargs("t#1") == {"a": {"n": 2}, "e": {"n": 8}}


def test_a_firing_that_only_vetoes_still_makes_an_instance_of_its_own(steps):
    """Where the trigger of `andEvery` is new in `unless`, each firing's kwargs still reach exactly one instance."""
    steps.configure({"t": {"after": ["b"], "andEvery": "a", "run": "r"}})
    steps.fire("a", {"n": 1})
    steps.configure({"t": {"after": ["b"], "andEvery": "a", "unless": ["a", "x"], "run": "r"}})
    steps.fire("a", {"n": 2})
    assert [decode(firing.kwargs) for firing in steps.firings()] == [{"n": 1}, {"n": 2}]
    assert [kwargs["a"]["n"] for kwargs in steps.kwargs_of(steps.instances())] == [1, 2]
    assert [instance.vetoes for instance in steps.instances()] == [("a",), ("a",)]


def test_abandon_wins(steps):
    """A firing that meets both conditions abandons; one that has scheduled it cannot be taken back by a veto."""
    steps.configure(
        {
            "t": {"after": ["a"], "unless": ["a"], "run": "r"},
            "u": {"after": ["a"], "unless": ["v"], "run": "r"},
        }
    )
    steps.fire("a")
    steps.fire("v")
    assert steps.statuses() == {"t#0": "abandoned", "u#0": "scheduled"}


def test_an_instance_whose_any_is_met_takes_no_more(steps):
    """Once it is scheduled nothing changes what it is given."""
    steps.configure({"t": {"after": {"any": ["a", "b"]}, "run": "r"}})
    steps.fire("a", {"n": 1})
    steps.fire("b", {"n": 2})
    assert steps.kwargs("t#0") == {"a": {"n": 1}}


def test_what_a_firing_took_does_not_depend_on_hash_seeds(steps):
    """Triggers are taken in the order of their names where their order is nobody's choice."""
    names = [f"n{n:02}" for n in range(20)]
    steps.configure({"t": {"after": [*names, "z"], "unless": [*reversed(names), "never"], "run": "r"}})
    steps.configure({})
    for name in reversed(names):
        steps.fire(name)
    steps.configure({"t": {"after": [*names, "z"], "unless": [*reversed(names), "never"], "run": "r"}})
    steps.fire("z")
    assert list(steps["t#0"].taken) == [*names, "z"]
    assert list(steps["t#0"].vetoes) == names


def test_cascades_count_their_depth(steps):
    """The firing of an end is one deeper than the deepest that its instance took."""
    steps.configure(
        {
            "t": {"after": ["a"], "run": "r"},
            "u": {"after": ["t", "a"], "run": "r"},
            "v": {"after": ["u"], "run": "r"},
        }
    )
    steps.fire("a")
    for name in ("t#0", "u#0", "v#0"):
        steps.run(name)
    assert [(firing.trigger, firing.depth) for firing in steps.firings()] == [
        ("a", 0),
        ("t", 1),
        ("u", 2),
        ("v", 3),
    ]
    assert steps["v#0"].cascade_depth == 2


# -- rules that change -----------------------------------------------------------------------------------


def test_a_task_that_comes_back_is_not_caught_up(steps):
    """A catch-up is for tasks that are new: one that has instances would take the same firings twice."""
    steps.configure(EVERY)
    steps.fire("a")
    steps.run("t#0")
    steps.configure({})
    steps.configure({**EVERY, "new": {"andEvery": "a", "run": "r"}}, catch_up=True)
    assert steps.statuses() == {"t#0": "finished", "new#0": "scheduled"}


def test_catching_up_is_as_if_the_task_had_been_there(steps):
    """The new task's one instance takes the first firing of each trigger, in their order, and waits for the rest."""
    configuration = {"t": {"after": ["a", "b", "c"], "run": "r"}}
    late = Steps(steps.storage, "late")
    steps.configure(configuration)
    for each in (steps, late):
        for trigger, n in [("a", 1), ("a", 2), ("b", 3), ("x", 4), ("a", 5)]:
            each.fire(trigger, {"n": n})
    late.configure(configuration, catch_up=True)
    assert late.instances() == [replace(steps["t#0"], ref=late["t#0"].ref)]
    assert late["t#0"].taken == {"a": 1, "b": 3}
    assert late.waiting("c") == {"t#0"}
    assert late.waiting("a") == late.waiting("b") == set()


def test_unchanged_rules_are_not_stored_again(steps):
    """The same rules again change no instance and no rules."""
    assert steps.configure(EVERY).new_rules
    assert not steps.configure(EVERY).new_rules


def test_merged_rules_keep_the_other_tasks(steps):
    """Only tasks of the same name are replaced; the same rules again are not stored."""
    steps.configure({"t_one": {"after": ["a"], "run": "r"}, "t_two": {"after": ["b"], "run": "r"}})
    merged = {"t_two": {"after": ["c"], "run": "r"}, "t_three": {"after": ["t_two"], "run": "r"}}
    assert steps.configure(merged, merge=True).new_rules
    found = steps.head.rules.rules
    assert {task: rule.after.names for task, rule in found.items()} == {
        "t_one": {"a"},
        "t_two": {"c"},
        "t_three": {"t_two"},
    }
    assert not steps.configure(merged, merge=True).new_rules
    assert not steps.configure({}, merge=True).new_rules


def test_merged_rules_are_checked_together(steps):
    """Tasks that wait for each other, and more tasks than the limit, are refused; nothing changes."""
    steps.configure({"t_one": {"after": ["t_two"], "run": "r"}})
    with pytest.raises(ConfigurationError, match=r"t_two\.after: can never start"):
        steps.configure({"t_two": {"after": ["t_one"], "run": "r"}}, merge=True)
    small = Steps(steps.storage, policy=Policy(limits=Limits(tasks=2)))
    with pytest.raises(ConfigurationError, match="3 tasks are more than the limit of 2"):
        small.configure({f"t_{n}": {"after": ["a"], "run": "r"} for n in range(2)}, merge=True)
    assert list(steps.head.rules.rules) == ["t_one"]


# -- finalising ------------------------------------------------------------------------------------------


def test_a_session_without_other_tasks_never_finalises(steps):
    """Tasks that wait for the end do not make one."""
    ending = Steps(steps.storage, "s", Policy(finalizing=Finalizing("end")))
    ending.configure({"t": {"after": ["end"], "run": "r"}})
    ending.fire("a")
    assert ending.head.finalized is None
    ending.configure({})
    ending.fire("a")
    assert ending.head.finalized is None


def test_a_change_of_rules_can_complete_a_session(steps):
    """Where the only task that was open is taken away."""
    ending = Steps(steps.storage, "s", Policy(finalizing=Finalizing("end")))
    ending.configure({"t": {"after": ["a"], "run": "r"}, "u": {"after": ["b"], "run": "r"}})
    ending.fire("a")
    ending.run("t#0")
    assert ending.head.finalized is None
    assert [firing.trigger for firing in ending.configure({"t": {"after": ["a"], "run": "r"}}).fired] == [
        "end"
    ]


def test_the_application_may_fire_the_end_itself(steps):
    """That is a firing like any other; the session still ends when it is complete."""
    ending = Steps(steps.storage, "s", Policy(finalizing=Finalizing("end")))
    ending.configure(EVERY)
    ending.fire("end")
    assert ending.head.finalized is None
    ending.fire("a")
    ending.run("t#0")
    assert ending.head.finalized == 4


@pytest.mark.parametrize("level", [0, 30])
def test_small_talk_does_not_hold_the_end_back(steps, level):
    """Without unresolved records a session ends, whatever its highest level, zero included."""
    ending = Steps(steps.storage, "s", Policy(finalizing=Finalizing("end", max_level=level)))
    ending.configure(EVERY)
    ending.fire("a")
    attempt = ending.start("t#0")
    ending.keep_logs(attempt, batch(entry(level=20)))
    ending.finish(attempt)
    assert ending.head.finalized == 3
