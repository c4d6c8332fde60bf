"""Timers of instances when the rules change: each counts from the moment from which it should have counted."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from triggers.testing import TriggersHarness

RUN = {"run": "triggers.testing.PassThrough"}
START = datetime(2026, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@pytest.fixture
def harness():
    """An application whose clock stands at the beginning of 2026."""
    with TriggersHarness() as made:
        yield made


@pytest.fixture
def session(harness):
    """A session whose instance has received a at the first hour, and b at the second; now is the third."""
    session = harness.session("s")
    session.update_configuration({"t": {**RUN, "after": ["a", "b", "c"]}})
    for trigger in ("a", "b"):
        harness.advance(HOUR)
        session.fire(trigger)
    harness.advance(HOUR)
    return session


def hours(session) -> list[float]:
    """When the timers of a session are due, in hours after the start."""
    return [(timer.at - START) / HOUR for timer in session.timers()]


def configure(session, **written):
    session.update_configuration({"t": {**RUN, "after": ["a", "b", "c"], **written}})


@pytest.mark.parametrize(
    ("begins", "at"), [({}, 11), ({"from": "a"}, 11), ({"from": "b"}, 12), ({"from": "c"}, None)]
)
def test_a_new_deadline_counts_from_what_has_happened(session, begins, at):
    """From the creation of the instance, or from when it received the trigger, if it has."""
    configure(session, deadline={"in": "PT10H", **begins})
    assert hours(session) == ([] if at is None else [at])


def test_a_longer_deadline_counts_from_the_same_trigger(session):
    """And one with another trigger from that."""
    configure(session, deadline={"in": "PT10H", "from": "b"})
    configure(session, deadline={"in": "PT20H", "from": "b"})
    assert hours(session) == [22]
    configure(session, deadline={"in": "PT20H", "from": "a"})
    assert hours(session) == [21]
    configure(session)
    assert hours(session) == []


def test_a_delay_begins_when_new_rules_meet_the_condition(harness, session):
    """Before that, there was none; after that, a changed one counts from the same moment."""
    configure(session, after=["a", "b"], delay="PT10H")
    assert hours(session) == [13]
    harness.advance(HOUR)
    configure(session, after=["a", "b"], delay="PT5H")
    assert hours(session) == [8]
    configure(session, after=["a", "b"])
    assert hours(session) == []
    assert session.storage["t#0"].status == "finished"
