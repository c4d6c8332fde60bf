"""The reference model keeps time: timers, delays and deadlines count as of their own time."""

from __future__ import annotations

import pytest

from tests.testing.modeling import fire_all, run, session, statuses, task
from triggers.testing.conformance.model import SECOND, ModelStatusError, duration


def times(model):
    return [(firing.trigger, firing.at // SECOND) for firing in model.firings]


def waits(model, seconds):
    model.advance(seconds * SECOND)


@pytest.mark.parametrize(
    ("written", "seconds"),
    [("PT1S", 1), ("PT0.5S", 0.5), ("PT1H30M", 5_400), ("P3D", 259_200), ("P1WT1M", 604_860)],
)
def test_durations_are_read(written, seconds):
    """Weeks, days, hours, minutes and seconds."""
    assert duration(written) == seconds * SECOND


def test_a_timer_fires_as_of_its_time_before_the_next_step():
    """However late the next step is. A second timer with the same name replaces the first one."""
    model = session({})
    model.fire_later("never", 5 * SECOND, "x")
    model.fire_later("due", 10 * SECOND, "x")
    waits(model, 60)
    model.fire("own")
    assert times(model) == [("due", 10), ("own", 60)]
    assert [each.number for each in model.last_step] == [2]


def test_a_step_that_raises_lets_timers_elapse():
    """They have elapsed before it."""
    model = session({"t_x": task("due")})
    model.fire_later("due", SECOND, "x")
    waits(model, 2)
    with pytest.raises(KeyError):
        model.replay("t_y#0")
    with pytest.raises(ModelStatusError):
        model.replay("t_x#0")
    assert statuses(model) == {"t_x#0": "scheduled"}


def test_time_never_goes_back():
    """A timer in the past fires as of the latest step, and so does what is fired on a clock that was set back."""
    model = session({})
    waits(model, 10)
    model.fire("a")
    model.fire_later("past", -9 * SECOND, "x")
    model.now -= 5 * SECOND
    model.fire("b")
    assert times(model) == [("a", 10), ("past", 10), ("b", 10)]


def test_a_canceled_timer_does_not_fire():
    """One that has fired cannot be canceled."""
    model = session({})
    model.fire_later("a", SECOND, "x")
    model.fire_later("b", SECOND, "y")
    assert model.cancel("x")
    waits(model, 1)
    assert not model.cancel("y")
    assert times(model) == [("b", 1)]


def test_a_used_key_fires_nothing():
    """Neither a timer nor, once a timer has used it, a firing."""
    model = session({})
    model.fire_later("a", SECOND, "x", {"n": 1}, "k")
    model.fire_later("a", 2 * SECOND, "y", {"n": 2}, "k")
    waits(model, 5)
    assert model.fire("a", {"n": 1}, "k").duplicate
    assert times(model) == [("a", 1)]


@pytest.mark.parametrize("sweeps", [(60,), (11, 5, 44), (10, 5, 45), (1, 59)])
def test_when_somebody_looks_changes_nothing(sweeps):
    """A timer fires, a delay ends, and a deadline that it began is missed."""
    model = session(
        {
            "t_x": task("a", delay="PT5S"),
            "t_y": task("a", "z", deadline={"in": "PT20S", "from": "a", "late": "abandon"}),
            "t_z": task("t_y:missed", "t_y:abandoned"),
        }
    )
    model.fire_later("a", 10 * SECOND, "x")
    for pause in sweeps:
        waits(model, pause)
        model.elapse()
    assert times(model) == [("a", 10), ("t_y:missed", 30), ("t_y:abandoned", 30)]
    assert statuses(model) == {"t_x#0": "scheduled", "t_y#0": "abandoned", "t_z#0": "scheduled"}
    assert model.firings[1].kwargs["lacks"] == ["z"]


def test_a_burst_leads_to_one_run():
    """Each firing begins the delay again and replaces the kwargs, up to the limit."""
    model = session(
        {"t_b": {"andEvery": "e", "run": "r", "delay": {"for": "PT10S", "since": "last", "atMost": "PT25S"}}}
    )
    for n in range(4):
        model.fire("e", {"n": n})
        waits(model, 8)
    model.elapse()
    assert statuses(model) == {"t_b#0": "scheduled"}
    assert model.instances["t_b#0"].kwargs == {"e": {"n": 3}}
    waits(model, 1)
    model.fire("e")
    assert statuses(model) == {"t_b#0": "scheduled", "t_b#1": "unstarted"}


def test_a_veto_ends_a_delay():
    """A moment later it would be too late."""
    model = session(
        {"t_x": task("a", delay="PT5S", unless=["c"]), "t_y": task("a", delay="PT4S", unless=["c"])}
    )
    model.fire("a")
    model.advance(5 * SECOND - 1)
    model.fire("c")
    assert statuses(model) == {"t_x#0": "abandoned", "t_y#0": "scheduled"}
    assert model.timers == {}


def test_the_session_is_finalized_as_of_a_timer():
    """What follows from a timer is as of its time, too."""
    model = session(
        {"t_x": task("a"), "t_y": task("a", "b", deadline={"in": "PT5S", "late": "abandon"})},
        finalizing_trigger="f",
    )
    model.fire("a")
    run(model, "t_x#0")
    waits(model, 60)
    model.elapse()
    assert times(model)[-1] == ("f", 5)


def test_new_rules_count_from_the_same_moment():
    """A changed delay or deadline is due at once if its time has passed; a removed one is gone."""
    rules = {"t_x": task("a", delay="P1D"), "t_y": task("a", "b", deadline="P1D"), "t_z": task("t_y:missed")}
    model = session(rules)
    model.fire("a")
    waits(model, 60)
    model.configure({**rules, "t_x": task("a", delay="PT5S"), "t_y": task("a", "b", deadline="PT90S")})
    assert [timer.at // SECOND for timer in model.timers.values()] == [5, 90]
    model.configure({"t_z": task("t_y:missed")})
    assert statuses(model)["t_x#0"] == "scheduled"
    assert model.timers == {}


def test_a_deadline_is_missed_once():
    """Whatever the rules are afterwards, and however often the trigger comes from which it counts."""
    rules = {
        "t_x": task("b", andEvery="a", deadline={"in": "PT5S", "from": "a"}),
        "t_z": {"andEvery": "t_x:missed", "run": "r"},
    }
    model = session(rules)
    model.fire("a")
    waits(model, 6)
    model.configure({**rules, "t_x": task("b", andEvery="a", deadline="PT7S")})
    waits(model, 6)
    fire_all(model, "b")
    assert [name for name, _ in times(model)] == ["a", "t_x:missed", "b"]
