"""Decisions about timers, where the conformance suite of storages does not reach."""

from __future__ import annotations

from datetime import timedelta

import pytest

from triggers.core import decisions
from triggers.core.exchange import TimersDue
from triggers.core.timers import DELAY, Timer, timer_of
from triggers.exceptions import UnknownSessionError
from triggers.testing import TriggersHarness

RUN = {"run": "triggers.testing.PassThrough"}
HOUR = timedelta(hours=1)


@pytest.fixture
def harness():
    """An application on a virtual clock."""
    with TriggersHarness() as made:
        yield made


def configured(harness, **rules):
    """A session with these rules."""
    session = harness.session("s")
    session.update_configuration({task: {**RUN, **rule} for task, rule in rules.items()})
    return session


def fired(session) -> list[str]:
    """All triggers that have fired, in order."""
    found, after = [], 0
    while page := session.storage._reader.firings(session.uid, after=after):
        found += [firing.trigger for firing in page]
        after = page[-1].number
    return found


def test_a_timer_is_stored_in_parts():
    """What a storage keeps as one value is everything but the name, the time and the number."""
    timer = Timer("n", 5, 2, DELAY, 1, key="k", problem="p", was_at=4)
    assert Timer.stored(timer.name, timer.at, timer.number, timer.body) == timer


def test_canceling_needs_a_session(harness):
    """It makes none."""
    with pytest.raises(UnknownSessionError, match="there is no session 's'"):
        harness.session("s").cancel_timer("n")
    assert not harness.session("s").storage.exists


def test_a_full_page_whose_timers_are_removed_meanwhile_is_followed_by_the_next(harness):
    """The veto of the first timer removes the second one, so all that was loaded has elapsed."""
    session = configured(
        harness,
        t={"after": ["go"], "delay": "PT10H", "unless": ["stop"]},
        **{f"t_{number}": {"after": [f"x{number}"]} for number in range(10)},
    )
    session.fire("go")
    session.fire_later("stop", after=HOUR)
    for number in range(decisions.AT_ONCE + 20):
        session.fire_later(f"x{number}", after=11 * HOUR + number * timedelta(seconds=1))
    harness.clock.advance(20 * HOUR)
    assert len(session.apply(decisions.elapse(session.policy)).fired) == decisions.AT_ONCE
    assert session.storage["t#0"].status == "abandoned"
    session.fire("end")
    later = [f"x{number}" for number in range(decisions.AT_ONCE + 20)]
    assert [name for name in fired(session) if not name.startswith("t_")] == ["go", "stop", *later, "end"]
    assert list(session.timers()) == []


def test_all_timers_elapse_in_one_commit_or_none(harness):
    """Where only one commit is allowed, as in a joined transaction."""
    session = configured(harness)
    for number in range(decisions.AT_ONCE + 1):
        session.fire_later(f"x{number}", after=HOUR)
    harness.clock.advance(2 * HOUR)
    with pytest.raises(TimersDue):
        harness.triggers.storage.commit("s", decisions.elapse(session.policy, only_all=True))
    assert session.storage.head.firings == 0


@pytest.mark.parametrize("instance", ["t_none#0", "t#0"])
def test_a_timer_without_a_use_elapses_without_effect(harness, instance):
    """Of an instance that does not exist, or that does not wait for the end of a delay."""
    session = configured(harness, t={"after": ["a", "b"]})
    session.fire("a")
    at = harness.clock() + 1
    session.apply(decisions.set_timer(session.policy, Timer(timer_of(instance), at, 0, DELAY, at)))
    harness.advance(HOUR)
    assert list(session.timers()) == []
    assert session.storage["t#0"].status == "unstarted"


def test_a_short_delay_carries_on_the_depth(harness):
    """An instance that waits for a second begins a new chain of firings."""
    session = configured(
        harness,
        t_a={"after": ["go"]},
        t_short={"after": ["t_a"], "delay": "PT0.5S"},
        t_long={"after": ["t_a"], "delay": "PT1S"},
    )
    session.fire("go")
    harness.advance(HOUR)
    depths = {one.task: one.stored.cascade_depth for one in session.storage}
    assert depths["t_long"] == 0 < depths["t_short"]


def test_a_deadline_that_begins_with_the_last_trigger_is_met_at_once(harness):
    """Its timer is never set."""
    session = configured(harness, t={"after": ["a", "b"], "deadline": {"in": "PT1H", "from": "b"}})
    session.fire("a")
    session.fire("b")
    assert session.storage["t#0"].status == "finished"
    assert list(session.timers()) == []
