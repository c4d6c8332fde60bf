"""Outcomes in a configuration: what is refused, what can start, what is exceptional, and how it is explained."""

from __future__ import annotations

from itertools import pairwise

import pytest

from triggers.core import decisions
from triggers.core.conditions import Condition, all_of
from triggers.core.configuration import check_configuration
from triggers.core.exchange import NeedsSession, Slice
from triggers.core.outcomes import exceptional_tasks
from triggers.core.rules import read_rules, rule_set
from triggers.core.state import Counter, Instance, Session, is_done
from triggers.core.status import Status
from triggers.core.terms import Policy
from triggers.core.values import encode
from triggers.exceptions import ConfigurationError
from triggers.testing.conformance.outcomes import rules


def problems(configuration):
    with pytest.raises(ConfigurationError) as error:
        check_configuration(configuration)
    return error.value.problems


def test_a_task_cannot_be_named_like_an_outcome():
    """The name would have two meanings. Without the other task, it has one."""
    both = rules(**{"t_x": ["go"], "t_x:failed": ["go"]})
    ((path, problem),) = problems(both)
    assert path == "t_x:failed"
    assert problem == "is the name of an outcome of the task 't_x': give this task another name"
    assert check_configuration(rules(**{"t_x:failed": ["go"]})).outcomes == frozenset()


@pytest.mark.parametrize("word", ["abandoned", "ended", "skipped"])
def test_outcomes_that_lead_back_without_a_run_are_refused(word):
    """One task, or two that abandon each other."""
    found = problems(rules(t_x={"andEvery": f"t_x:{word}", "unless": ["stop"], "after": {"any": ["go"]}}))
    assert [path for path, _ in found if "lead from this task back" in _] == ["t_x"]
    pair = rules(
        t_x={"after": ["go"], "unless": [f"t_y:{word}"]}, t_y={"after": ["go"], "unless": [f"t_x:{word}"]}
    )
    assert [path for path, _ in problems(pair)] == ["t_x", "t_y"]


def test_only_the_tasks_of_a_circle_are_refused():
    """Not those that lead to it, nor those that it leads to."""
    chain = ["t_0", "t_1", "t_2", "t_3"]
    found = rules(
        **{task: {"after": ["go"], "unless": [f"{before}:ended"]} for before, task in pairwise(chain)},
        t_0={"after": ["go"], "unless": ["stop"]},
    )
    check_configuration(found)
    found["t_1"]["unless"] = {"any": ["t_0:ended", "t_2:ended"]}
    assert [path for path, _ in problems(found)] == ["t_1", "t_2"]


@pytest.mark.parametrize("name", ["t_y", "t_y:failed"])
def test_a_run_in_between_makes_a_circle_harmless(name):
    """A task that runs again after each failure is a loop that somebody wanted."""
    check_configuration(
        rules(
            t_x={"after": {"any": ["go", name]}, "unless": ["stop"]},
            t_y={"andEvery": "t_x", "unless": ["stop"]},
        )
    )


def test_a_task_that_waits_for_an_outcome_that_cannot_happen_is_refused():
    """The other task cannot start, and nothing can abandon it."""
    circle = rules(t_a=["t_b"], t_b=["t_a"], t_clean=["t_a:failed"])
    assert ("t_clean.after", "can never start: it waits for t_a:failed, which can never start before it") in (
        problems(circle)
    )
    vetoed = rules(t_a={"after": ["t_b"], "unless": ["stop"]}, t_b=["t_a"], t_clean=["t_a:abandoned"])
    assert [path for path, _ in problems(vetoed)] == ["t_a.after", "t_b.after"]


def test_outcomes_are_not_expected_from_outside():
    """Those of other tasks are."""
    found = check_configuration(rules(t_x=["go"], t_y=["t_x:failed", "t_other:failed"]))
    assert found.external == ("go", "t_other:failed")


def test_only_rules_with_outcomes_are_stored_with_the_version():
    """So the text, and the digest, of all other rules stay the same."""
    plain = rules(t_x=["go"], t_y=["t_other:failed"])
    assert rule_set(plain).body == encode(plain, "")
    assert rule_set(rules(t_x=["go"], t_y=["t_x:failed"])).body.startswith('{"":{"language":2},')
    assert read_rules(encode(rules(t_x=["go"], t_y=["t_x:failed"]), "")).outcomes == frozenset()


def test_exceptional_tasks_are_found_through_others():
    """A task that has another way to start, or waits for `ended`, is a usual one."""
    found = rule_set(
        rules(
            t_x=["go"],
            t_clean=["t_x:failed"],
            t_told=["t_clean:ended", "go"],
            t_either={"after": {"any": ["t_x:failed", "go"]}},
            t_end=["t_x:ended"],
            t_two={"after": {"atLeast": 2, "of": ["go", "t_clean", "t_x"]}},
            t_all={"after": {"atLeast": 3, "of": ["go", "t_clean", "t_x"]}},
        )
    )
    assert found.exceptional == {"t_clean", "t_told", "t_all"}
    assert is_done(found, "t_clean", Counter())
    assert not is_done(found, "t_end", Counter())


def test_a_long_chain_of_exceptional_tasks_is_found_at_once(monkeypatch):
    """Each condition is asked about once for each name that it waits for, however long the chain is."""
    asked = []
    is_met = Condition.is_met
    monkeypatch.setattr(Condition, "is_met", lambda *given: asked.append(given) or is_met(*given))
    chain = [f"t_{number}" for number in range(100)]
    conditions = {task: all_of([before]) for before, task in pairwise(["t_x:failed", *chain])}
    assert exceptional_tasks(conditions, ["t_x:failed"]) == {*chain}
    assert len(asked) == len(chain)


def test_what_waits_for_the_finalizing_trigger_through_an_outcome_is_exempt():
    """The clean-up of a task that runs after the end."""
    found = rule_set(rules(t_x=["go"], t_report=["end"], t_clean=["t_report:failed"]))
    assert found.waiting_for("end") == {"t_report", "t_clean"}


def test_an_outcome_is_upstream():
    """A task waits for the task whose outcome it names."""
    found = rule_set(rules(t_x=["go"], t_clean=["t_x:failed"]))
    assert found.upstream("t_clean") == ("t_x",)
    assert found.source("t_x:failed") == "t_x"
    assert found.source("go") == ""


def test_a_recovery_that_fires_an_outcome_must_run_alone():
    """Other decisions about the session could be running, so the storage must begin again exclusively."""
    session = Session("s", 10, 1, rule_set(rules(t_x=["go"], t_clean=["t_x:failed"])))
    run = decisions.abort(Policy(), "t_x", 0, "message", encode({}, ""))(session)
    run.send(None)
    with pytest.raises(NeedsSession):
        run.send(Slice(instances=[Instance("t_x", 0, Status.SCHEDULED, 1, 1)]))
