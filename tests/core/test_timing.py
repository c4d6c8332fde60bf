"""Delays, deadlines and timers, as the core reads and decides them."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.storages.test_memory import memory_place
from triggers.core import decisions
from triggers.core.configuration import check_configuration
from triggers.core.durations import micros
from triggers.core.exchange import TimersDue
from triggers.core.state import new_firing
from triggers.core.terms import Policy
from triggers.core.timers import DELAY, FIRES, Timer, timer_of
from triggers.core.timing import Deadline, Delay, read_deadline, read_delay
from triggers.exceptions import ConfigurationError, UnknownSessionError
from triggers.testing.conformance.steps import SECOND, Steps

MINUTE = timedelta(minutes=1)


@pytest.fixture
def place():
    place = memory_place()
    yield place
    place.close()


@pytest.fixture
def steps(place):
    return Steps(place.open())


def passes(place, seconds):
    place.advance(timedelta(seconds=seconds))


def rule(*after, **more):
    return {"after": list(after), "run": "r", **more}


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("PT1M", Delay(MINUTE)),
        ({"for": "PT1M"}, Delay(MINUTE)),
        ({"for": "PT1M", "since": "last"}, Delay(MINUTE, since_last=True)),
        (
            {"for": "PT1M", "since": "last", "atMost": "PT2M"},
            Delay(MINUTE, since_last=True, at_most=2 * MINUTE),
        ),
    ],
)
def test_a_delay_is_read_and_written(written, read):
    """Written again, it is read as the same."""
    assert read_delay(written) == read
    assert read_delay(read.to_json()) == read


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("PT1M", Deadline(MINUTE)),
        ({"in": "PT1M"}, Deadline(MINUTE)),
        ({"in": "PT1M", "from": "a"}, Deadline(MINUTE, "a")),
        ({"in": "PT1M", "late": "abandon"}, Deadline(MINUTE, abandons=True)),
        ({"in": "PT1M", "from": "a", "late": "abandon"}, Deadline(MINUTE, "a", abandons=True)),
    ],
)
def test_a_deadline_is_read_and_written(written, read):
    """Written again, it is read as the same."""
    assert read_deadline(written) == read
    assert read_deadline(read.to_json()) == read


@pytest.mark.parametrize(
    "written", [7, "soon", {}, {"for": "PT1M", "in": "PT1M", "x": 1}, {"in": 7, "for": 7}, []]
)
def test_what_a_newer_version_may_understand_is_not_read(written):
    """It is None, so that the rules count as unsupported."""
    assert read_delay(written) is read_deadline(written) is None


def test_words_of_a_newer_version_are_not_read():
    """`since` and `late` are read with known words only."""
    assert read_delay({"for": "PT1M", "since": "often"}) is None
    assert read_deadline({"in": "PT1M", "late": "shout"}) is None


@pytest.mark.parametrize(
    ("timing", "problem"),
    [
        ({"delay": {"for": "PT1M", "atMost": "PT2M"}}, 'only useful with "since": "last"'),
        ({"delay": {"for": "PT2M", "since": "last", "atMost": "PT1M"}}, "shorter than its for"),
        ({"delay": {"for": "PT2M", "during": 1}}, "delay has the keys for, since and atMost"),
        ({"delay": {"for": "PT2M", "since": "often"}}, "must be 'first' or 'last'"),
        ({"deadline": {"in": "PT2M", "from": "z"}}, "'z' is not in after"),
        ({"deadline": "PT2M", "unless": ["t_x:missed"]}, "would also stop every later instance"),
    ],
)
def test_problems_of_times(timing, problem):
    """The error says what is wrong, and what to write."""
    with pytest.raises(ConfigurationError, match=problem):
        check_configuration({"t_x": rule("a", "b", **timing)})


def test_a_stored_timer_is_the_same_timer():
    """Its name, time, number and body are all that a storage has to keep."""
    timer = Timer("x", 7, 3, FIRES, 1, 2, "a", "{}", "k", "f", "t#0", "why", 5)
    assert Timer.stored(timer.name, timer.at, timer.number, timer.body) == timer
    assert timer.instance is None
    assert timer._replace(name=timer_of("t#x#12")).instance == ("t#x", 12)
    assert timer.is_like(timer._replace(number=9))
    assert not timer.is_like(timer._replace(at=8))


def test_a_timer_of_an_unknown_session_cannot_be_canceled(steps):
    """Nothing is stored for it."""
    with pytest.raises(UnknownSessionError):
        steps.cancel("x")
    assert steps.storage.reader.session("session") is None


def test_a_process_without_the_session_lets_nothing_elapse(steps):
    """A session that is not stored has no timers."""
    assert steps.elapse().refused


def test_many_triggers_elapse_in_one_commit(place, steps):
    """With all that they change."""
    names = [f"e{number}" for number in range(7)]
    steps.configure({f"t_{name}": rule(name) for name in names})
    for name in names:
        steps.fire_later(name, MINUTE, name=name)
    passes(place, 60)
    assert [each.task for each in steps.elapse().scheduled()] == [f"t_{name}" for name in names]


def test_a_commit_with_more_timers_than_at_once_knows_when_the_next_is_due(place, steps):
    """Also if the timers that it has loaded are done, and others are set by them."""
    steps.configure({"t_x": {"andEvery": "e", "run": "r", "delay": "PT1S"}})
    for number in range(decisions.AT_ONCE + 50):
        steps.fire_later("e", timedelta(microseconds=number + 1), name=str(number))
    passes(place, 60)
    for _ in range(10):
        steps.elapse()
        times = [timer.at for timer in steps.timers()]
        assert not times or steps.head.next_timer_at <= min(times)
    assert times == []
    assert set(steps.statuses().values()) == {"scheduled"}


def test_a_short_wait_does_not_begin_a_new_chain(place, steps):
    """A timer, a delay and a deadline of less than a second carry on the depth of what has set them."""
    deep = Steps(steps.storage, policy=Policy(cascade_depth=5))
    rules = {
        "t_x": rule("a", delay="PT0.5S"),
        "t_y": rule("a", "z", deadline="PT0.5S"),
        "t_z": rule("t_y:missed"),
    }
    deep.configure(rules)
    deep.fire_later("b", timedelta(seconds=0.5), name="short")
    deep.fire_later("c", timedelta(seconds=2), name="long")
    deep.commit(decisions.fire(deep.policy, new_firing("a", depth=5)))
    passes(place, 10)
    steps.elapse()
    depths = {firing.trigger: firing.depth for firing in steps.firings()}
    assert depths == {"a": 5, "b": 5, "c": 0, "t_y:missed": 6}
    assert {each.name: each.cascade_depth for each in steps.instances()}["t_x#0"] == 5


def test_the_moment_from_which_a_new_deadline_counts(place, steps):
    """It is when the trigger was received, or the creation, if that was later."""
    steps.configure({"t_x": rule("a", "b", "c")})
    steps.fire("a")
    passes(place, 5)
    steps.fire("b")
    since = steps.firings()[-1].at
    passes(place, 5)
    for start, expected in (("b", since), ("c", None), (None, since - 5 * SECOND)):
        deadline = {"in": "PT1H", **({"from": start} if start else {})}
        steps.configure({"t_x": rule("a", "b", "c", deadline=deadline)})
        assert [timer.since for timer in steps.timers()] == ([] if expected is None else [expected])
    assert steps.timers()[0].at == since - 5 * SECOND + micros(timedelta(hours=1))


def test_the_head_can_be_early_if_the_last_loaded_timer_is_removed(place, steps):
    """A veto removes the timer after those that elapse in one commit; what follows was not loaded."""
    steps.configure({"t_x": rule("a", delay="PT50S", unless=["c"])})
    steps.fire("a")
    for number in range(decisions.AT_ONCE):
        steps.fire_later("c", timedelta(seconds=10), name=str(number))
    steps.fire_later("d", timedelta(seconds=55), name="last")
    passes(place, 60)
    removed = steps.timers()[decisions.AT_ONCE]
    steps.elapse()
    assert [timer.name for timer in steps.timers()] == ["last"]
    assert steps.head.next_timer_at == removed.at
    assert [firing.trigger for firing in steps.elapse().fired] == ["d"]


def test_all_due_timers_elapse_or_none(place, steps):
    """A transaction of the application asks for that: with more of them than at once, nothing is changed."""
    steps.configure({})
    for number in range(decisions.AT_ONCE + 1):
        steps.fire_later("c", timedelta(seconds=10), name=str(number))
    passes(place, 60)
    with pytest.raises(TimersDue):
        steps.storage.commit(steps.uid, decisions.elapse(steps.policy, steps.storage.now(), only_all=True))
    assert steps.firings() == []


@pytest.mark.parametrize("name", ["t_x#0", "t_x#7", "t_y#0"])
def test_a_timer_that_its_instance_does_not_wait_for_has_no_effect(place, steps, name):
    """Its condition is not met, or it does not exist. The timer is removed."""
    steps.configure({"t_x": rule("a", "b")})
    steps.fire("a")
    wrong = Timer(timer_of(name), steps.storage.now() + SECOND, 0, DELAY, 0)
    steps.commit(decisions.set_timer(steps.policy, wrong))
    passes(place, 5)
    assert steps.elapse().scheduled() == []
    assert steps.timers() == []
    assert steps.statuses() == {"t_x#0": "unstarted"}
