"""Decisions of a worker at their limits: claims, ends, and returned instances."""

from __future__ import annotations

from triggers.core import decisions
from triggers.core.decisions.attempt import RETURN_PAUSES
from triggers.core.decisions.rescue import CRASH_BACKOFF
from triggers.core.terms import AttemptReport, Policy
from triggers.core.values import decode
from triggers.testing.conformance.steps import SECOND

EVERY = {"t": {"andEvery": "a", "run": "r"}}


def test_pauses_grow_to_a_limit():
    """After a crash 1, 10, 60 seconds; after a worker without the task from one second to fifteen minutes."""
    assert [pause // SECOND for pause in CRASH_BACKOFF] == [1, 10, 60]
    assert [pause // SECOND for pause in RETURN_PAUSES] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900]


def test_terms_are_asked_for_with_the_present_rule(steps):
    """A worker decides by the session's manager and the rule as it is now, and hears of a task that is gone."""
    steps.configure(EVERY)
    steps.fire("a")
    asked = []

    claim = decisions.claim(Policy(), "t", 0, "me", lambda *asked_for: asked.append(asked_for))
    steps.commit(claim)
    steps.configure({})
    steps.storage._sessions["session"].instances["t", 0].run_at = 0
    steps.commit(claim)
    assert [(manager, rule and rule.task) for manager, rule in asked] == [("default", "t"), ("default", None)]


def test_what_is_only_kept_is_not_handed_over(steps):
    """Changes name those instances that they make scheduled, not those that were."""
    steps.configure(EVERY)
    assert [each.name for each in steps.fire("a").scheduled()] == ["t#0"]
    assert steps.add_metadata("t#0", {"x": 1}).scheduled() == []
    assert steps.claim("t#0", able=False).scheduled() == []


def test_an_attempt_ends_with_metadata_and_without_records(steps):
    """What a task says of itself is added to the instance in the commit of its end."""
    steps.configure(EVERY)
    steps.fire("a")
    held = steps.start("t#0")
    steps.skip_running(AttemptReport("t", 0, held.fence, held.attempt, None, {"why": "nothing to do"}))
    assert decode(steps["t#0"].metadata) == {"why": "nothing to do"}


def test_a_budget_larger_than_any_number_of_crashes_charges_nothing_by_itself(steps):
    """However large `max_crashes` is, an instance that never crashed has no crash, charged or not."""
    steps.configure({"t_a": {"after": ["go"], "run": "x"}})
    steps.fire("go")
    steps.claim("t_a#0", crash_budget=5_000_000)
    assert (steps["t_a#0"].crashes, steps["t_a#0"].charged) == (0, 0)
