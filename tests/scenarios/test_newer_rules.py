"""An application of this version beside a newer one, whose rules it must not run.

The same cause, a word that is taken for another thing than it means, was looked for in: directives and terms of
configurations (tests/core/test_configuration.py), every decision of the core
(triggers.testing.conformance.newer_rules, for each storage), the sweep and the runners (here), options of tasks
(tests/test_options.py, which refuses unknown ones).
"""

from __future__ import annotations

from datetime import timedelta

import pytest

from triggers import Triggers, task
from triggers.core import decisions
from triggers.core.exchange import Decision
from triggers.core.rules import rule_set
from triggers.exceptions import UnsupportedRulesError
from triggers.testing import TriggersHarness

NOW = {"t_ship": {"after": ["paid"], "run": "shop.Ship"}}
NEWER = {"t_ship": {"after": ["paid"], "throttle": {"seconds": 5}, "run": "shop.Ship"}}

HOUR = timedelta(hours=1)


@pytest.fixture
def harness(tasks, everywhere):
    with TriggersHarness(registry=tasks, **everywhere) as harness:
        yield harness


@pytest.fixture
def ran(tasks):
    """The sessions in which the task ran."""
    found = []

    @task(name="shop.Ship", registry=tasks)
    def ship(context):
        found.append(context.manager.uid)

    return found


def newer(session):
    """Store rules in a session as a newer version does."""
    session.apply(decisions.configure(session.policy, rule_set(NEWER)))


def scheduled(harness, uid):
    """Schedule an instance from a process without a runner, so that a sweep dispatches it."""
    session = harness.session(uid)
    session.update_configuration(NOW)
    Triggers(harness.triggers.storage, runner=None).session(uid).fire("paid")
    return session


def test_a_sweep_skips_rules_of_a_newer_version(harness, ran, caplog):
    """Their instances are not run, the log says why, and the instances of other sessions run."""
    old, other = scheduled(harness, "a"), scheduled(harness, "b")
    newer(old)
    harness.advance(HOUR)
    assert ran == ["b"]
    assert other.storage["t_ship#0"].status == "finished"
    assert old.storage["t_ship#0"].status == "scheduled"
    assert "session 'a' has rules of a newer version of Triggers" in caplog.text
    old.replace_configuration(NOW)
    harness.advance(HOUR)
    assert ran == ["b", "a"]


def test_a_sweep_recovers_the_others(harness, ran, caplog):
    """A lost claim of a session with newer rules stays as it is, and one of another session is recovered."""
    sessions = [scheduled(harness, uid) for uid in ("a", "b")]
    for session in sessions:
        claim = decisions.claim(session.policy, "t_ship", 0, "dead", lambda *_: decisions.Terms(1_000_000))
        session.store(claim)
    newer(sessions[0])
    harness.advance(HOUR)
    assert ran == ["b"]
    assert sessions[0].storage["t_ship#0"].status == "running"
    assert "session 'a' has rules of a newer version of Triggers" in caplog.text


def test_a_manager_says_what_it_does_not_understand(harness, ran):
    """A firing is refused with the path of the word; the session can be read."""
    session = harness.session("a")
    newer(session)
    with pytest.raises(UnsupportedRulesError, match=r"t_ship\.throttle; nothing was changed"):
        session.fire("paid")
    assert session.storage.tasks["t_ship"].extras == {"throttle": {"seconds": 5}}
    assert "t_ship waits for paid" in session.storage.explain("t_ship").sentence
    assert ran == []


def test_without_the_refusal_rules_of_a_newer_version_are_run(harness, ran, monkeypatch):
    """A mutant: a decision that does not look whether it understands the rules runs their instance."""
    newer(scheduled(harness, "a"))
    monkeypatch.setattr(Decision, "__call__", lambda decision, session: decision.begin(session))
    harness.advance(HOUR)
    assert ran == ["a"]
