"""Playing firings in every order and with a crash at every point finds what makes a difference, and nothing else."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triggers import FinalizingTriggerManager, Registry
from triggers.storages.memory import MemoryStorage
from triggers.storages.sqlite import SqliteStorage
from triggers.storages.sqlite.url import load_driver
from triggers.task import task
from triggers.testing import FaultyDriver, PlayDifference, end_state, play
from triggers.testing.conformance.strategies import configurations

PASSING = "triggers.testing.PassThrough"
SURVEY = {
    "t_subject": {"after": ["first", "complete"], "run": PASSING},
    "t_responses": {"after": ["t_subject"], "andEvery": "page", "run": PASSING},
    "t_score": {"after": ["t_subject", "page"], "run": "triggers.testing.SelfSkipping"},
}


def test_neither_order_nor_crash_makes_a_difference():
    """A configuration without `unless` ends the same in all orders, crashed at each point of each."""
    report = play(SURVEY, [("first", {"n": 1}), "complete", ("page", {"n": 2})])
    assert report.orders == 6
    assert report.crashes == sum(report.points.values()) > 6 * 10
    steps = ("fire", "claim", "finish", "skip_running")
    assert {f"{when} commit of {step}" for step in steps for when in ("before", "after")} <= set(
        report.points
    )


def test_a_crash_counts_however_the_session_ends():
    """Retries, failures and finalising survive a crash at every point, too."""
    configuration = {
        "t_retry": {
            "after": ["a"],
            "run": "triggers.testing.SelfRetrying",
            "withParams": {"retrying": {"times": 2, "cooldown": 5}},
        },
        "t_done": {"after": ["t_retry"], "andEvery": "b", "run": PASSING},
        "t_last": {"after": ["sessionFinalized"], "run": PASSING},
    }
    report = play(configuration, ["a", "b", ("b", {"n": 2})], manager=FinalizingTriggerManager, sample=3)
    assert report.orders == 3
    assert report.points["before commit of fail"] == 3 * 2


def test_the_first_difference_of_order_is_reported():
    """A task whose result hangs on the order is found, with the order, both ends and what differs in them."""
    tasks = Registry()
    task(name="order", registry=tasks)(lambda context: {"took": sorted(context.trigger_kwargs)})
    configuration = {"t_x": {"after": {"any": ["a", "b"]}, "run": "order"}}
    with pytest.raises(PlayDifference) as found:
        play(configuration, ["a", "b"], registry=tasks)
    difference = found.value
    assert (difference.order, difference.crash, difference.number) == (("b", "a"), None, 0)
    assert difference.expected["instances"] == {"t_x": [("finished", {"took": ["a"]}, None)]}
    message = str(difference)
    assert message.startswith("the order b, a, without a crash ends in another state (- expected, + found):")
    assert "-  'instances': {'t_x': [('finished', {'took': ['a']}, None)]}," in message
    assert "+  'instances': {'t_x': [('finished', {'took': ['b']}, None)]}," in message


def test_the_first_difference_of_a_crash_is_reported():
    """A task that is not idempotent is found by what it did elsewhere, with the point of the crash."""
    tasks = Registry()
    letters = []
    task(name="send", registry=tasks)(lambda context: letters.append(context.idempotency_key))

    def sent(manager):
        end = sorted(letters)
        letters.clear()
        return end

    configuration = {"t_send": {"after": ["a"], "run": "send"}}
    with pytest.raises(PlayDifference) as found:
        play(configuration, ["a"], registry=tasks, snapshot=sent)
    assert found.value.crash == "before commit of finish"
    assert "with a crash at point 5, 'before commit of finish', ends in another state" in str(found.value)
    letters.clear()
    once = play(configuration, ["a"], registry=tasks, snapshot=lambda manager: sorted(set(sent(manager))))
    assert once.crashes == once.points.total() == 12


def test_what_is_the_same_can_be_said_otherwise():
    """A comparer of one's own decides."""
    tasks = Registry()
    task(name="order", registry=tasks)(lambda context: {"took": sorted(context.trigger_kwargs)})
    configuration = {"t_x": {"after": {"any": ["a", "b"]}, "run": "order"}}
    report = play(
        configuration, ["a", "b"], registry=tasks, same=lambda one, other: one.keys() == other.keys()
    )
    assert report.orders == 2


def test_orders_may_differ_with_unless():
    """With `unless` orders end differently; each by itself still survives a crash at every point."""
    configuration = {
        "t_first": {"after": ["a"], "run": PASSING},
        "t_browser": {"after": ["t_first", "b"], "unless": ["embedded"], "run": PASSING},
    }
    firings = ["a", "b", "embedded"]
    with pytest.raises(PlayDifference):
        play(configuration, firings, crashes=0)
    report = play(configuration, firings, orders_differ=True)
    assert report.orders == 6
    assert report.crashes > 60


def test_samples_are_seeded():
    """Orders and crash points are chosen by the seed, no more of them than asked for."""
    reports = [
        play(SURVEY, ["first", "complete", "page", "page"], sample=4, crashes=3, seed=seed)
        for seed in (1, 1, 2)
    ]
    assert [(report.orders, report.crashes) for report in reports] == [(4, 12)] * 3
    assert reports[0].points == reports[1].points != reports[2].points
    assert play(SURVEY, ["first"], crashes=0).crashes == 0


def test_firings_have_keys():
    """A firing that a crash interrupted is fired again with its key, its own if it has one, and counts once."""
    ends = []

    def numbers(manager):
        ends.append([firing.key for firing in manager.storage._reader.firings("play") if not firing.source])
        return len(ends[-1])

    play({}, ["a", ("a", {"n": 1}), ("a", {"n": 2}, "mine")], snapshot=numbers, sample=1)
    assert ends
    assert all(end == ["play-0", "play-1", "mine"] for end in ends)


def test_the_end_of_a_session():
    """The default snapshot has status, result and error of the instances of each task, and what is open."""
    configuration = {
        "t_fail": {"after": ["a"], "run": "triggers.testing.Failing"},
        "t_wait": {"after": ["b"], "run": PASSING},
    }
    ends = []
    play(configuration, ["a"], snapshot=lambda manager: ends.append(end_state(manager)), crashes=0)
    assert ends == [
        {
            "instances": {"t_fail": [("failed", None, "FailingError")], "t_wait": []},
            "unresolved tasks": ["t_fail", "t_wait"],
            "finalized": False,
        }
    ]


def test_every_statement_of_sqlite(tmp_path):
    """On a file, each statement of each commit is a point besides, and none of them makes a difference."""
    files = iter(range(10_000))

    def storage(clock, faults):
        url = f"sqlite:///{tmp_path}/{next(files)}.db?synchronous=normal"
        return SqliteStorage(url, clock=clock, driver=FaultyDriver(load_driver("auto"), faults))

    configuration = {
        "t_one": {"after": ["a", "b"], "run": PASSING},
        "t_two": {"after": ["t_one"], "run": PASSING},
    }
    report = play(configuration, ["a", "b"], storage=storage, crashes=40, sample=2)
    assert report.crashes == 80
    assert len(report.points) > 25


class Forgetful(MemoryStorage):
    """A storage that never says what is due, as if nobody swept."""

    def due(self, limit, *, grace, include_recent=False):
        return []


def test_a_run_that_does_not_end_is_reported():
    """Where a crash leaves something that nobody finishes, the error names it, the order and the crash."""
    configuration = {"t_x": {"after": ["a", "b"], "run": PASSING}}
    assert (
        play(configuration, ["a", "b"], storage=lambda clock, _: Forgetful(clock=clock), crashes=0).orders
        == 2
    )
    with pytest.raises(
        AssertionError, match="still scheduled or running:\nsession 'play': t_x has 1 scheduled instance"
    ) as found:
        play(configuration, ["a", "b"], storage=lambda clock, _: Forgetful(clock=clock))
    assert found.value.__notes__ == ["in the order a, b, crashed at 'after commit of fire'"]


NOTHING = Registry()
task(name="nothing", registry=NOTHING)(lambda context: None)
FIRED = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=4)


@settings(max_examples=25)
@given(configurations(unless=False, run="nothing"), FIRED, st.integers(0, 1_000))
def test_no_configuration_without_unless_knows_a_difference(configuration, fired, seed):
    """Whatever waits for whatever, a sample of orders and crashes ends the same."""
    play(configuration, fired, registry=NOTHING, sample=3, crashes=5, seed=seed)


@settings(max_examples=25)
@given(configurations(run="nothing"), FIRED, st.integers(0, 1_000))
def test_no_configuration_knows_a_difference_of_crashes(configuration, fired, seed):
    """With `unless`, too, and with a session that finalises, a crash in an order ends as that order does without."""
    play(
        configuration,
        fired,
        registry=NOTHING,
        manager=FinalizingTriggerManager,
        orders_differ=True,
        sample=2,
        crashes=5,
        seed=seed,
    )


def test_time_is_an_event():
    """A veto comes before or after the end of a delay. No crash makes a difference, also while timers elapse."""
    configuration = {
        "t_remind": {"after": ["a"], "delay": "P1D", "unless": ["c"], "run": PASSING},
        "t_late": {"after": ["t_remind"], "deadline": "P1D", "andEvery": "a", "run": PASSING},
        "t_missed": {"after": ["t_late:missed"], "run": PASSING},
    }
    ends = set()

    def fired(manager):
        firings = manager.storage._reader.firings("play")
        ends.add(tuple(sorted(firing.trigger for firing in firings)))
        return end_state(manager), sorted((firing.trigger, firing.kwargs) for firing in firings)

    events = ["a", "c", timedelta(days=2)]
    report = play(configuration, events, snapshot=fired, orders_differ=True)
    assert report.orders == 6
    assert report.points["before commit of elapse"] + report.points["after commit of many"] > 6
    assert {names.count("t_remind") for names in ends} == {0, 1}
    assert all(names.count("t_late:missed") == 1 for names in ends if "t_remind" not in names)
    with pytest.raises(PlayDifference, match=r"the order .*\+2 days, 0:00:00"):
        play(configuration, events, crashes=0)
