# ruff: noqa: E501, S101, PLR2004 - as in tests: docstrings have one line, assert is used, numbers are expected values
"""Time: timers, delays and deadlines, which count as of their own time, however late that is noticed."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from triggers.core import decisions
from triggers.core.durations import micros
from triggers.core.exchange import TimersDue
from triggers.core.state import new_firing
from triggers.core.status import Status
from triggers.core.terms import Finalizing, Policy
from triggers.core.timers import AWAY, DEADLINE, DELAY, FIRES
from triggers.core.values import decode
from triggers.testing.conformance.fixtures import StorageFixtures
from triggers.testing.conformance.outcomes import fired, rules
from triggers.testing.conformance.steps import SECOND, Steps

if TYPE_CHECKING:
    from triggers.core.exchange import Changes
    from triggers.storages.base import Storage
    from triggers.testing.conformance.sandbox import StorageSandbox

#: A reminder three days after the first page, unless the questionnaire is complete by then.
REMINDER = rules(t_remind={"after": ["firstPage"], "delay": "P3D", "unless": ["complete"]})

#: A deadline of ten seconds, and a task that runs if it is missed.
CHASED = rules(t_x={"after": ["a", "b"], "deadline": "PT10S"}, t_chase=["t_x:missed"])

#: One run for each burst of firings: a minute after the last one, at most five minutes after the first.
BURST = rules(t_b={"andEvery": "e", "delay": {"for": "PT1M", "since": "last", "atMost": "PT5M"}})


def seconds(count: float) -> timedelta:
    """Return the duration of this many seconds."""
    return timedelta(seconds=count)


def after_first(steps: Steps) -> list[tuple[str, float]]:
    """Return each firing with the time since the first one, in seconds."""
    firings = steps.firings()
    return [(each.trigger, (each.at - firings[0].at) / SECOND) for each in firings]


def changes_without_times(changes: Changes) -> tuple[Any, ...]:
    """Return what a decision has changed, so that two of them can be compared."""
    return (
        [(firing.number, firing.trigger, firing.kwargs) for firing in changes.fired],
        [(instance.name, instance.status, instance.taken) for instance in changes.created],
        [(instance.name, instance.status, instance.taken) for instance in changes.triggered],
        [(instance.name, instance.status) for instance, _ in changes.transitioned],
        {task: (counter.created, counter.unresolved) for task, counter in changes.counters.items()},
        changes.session.finalized,
        changes.session.pending,
    )


class Timing(StorageFixtures):
    """Tests of promise 17: what happens at a time happens once, and as of that time."""

    # -- timers that fire ----------------------------------------------------------------------------------

    def test_a_timer_fires_as_of_its_time(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 17: with its kwargs, exactly at its time, although it is noticed later; and once."""
        steps = Steps(storage)
        steps.configure(rules(t_x=["due"]))
        steps.fire("start")
        steps.fire_later("due", seconds(10), {"n": 1})
        set_at = steps.timers()[0].since
        place.advance(seconds(60))
        changes = steps.elapse()
        assert [firing.trigger for firing in changes.fired] == ["due"]
        due = steps.firings()[-1]
        assert (due.at - set_at, decode(due.kwargs), due.depth) == (10 * SECOND, {"n": 1}, 0)
        assert [instance.name for instance in changes.scheduled()] == ["t_x#0"]
        assert steps.timers() == []
        assert steps.head.next_timer_at is None
        assert steps.elapse().fired == []
        steps.start("t_x#0")

    def test_a_decision_lets_timers_elapse_first(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 17: what was due before a firing has happened before it. Its changes speak of it alone."""
        steps = Steps(storage)
        steps.configure({})
        steps.fire("start")
        steps.fire_later("second", seconds(20), name="b")
        steps.fire_later("first", seconds(10), name="a")
        steps.fire_later("later", seconds(90), name="c")
        place.advance(seconds(60))
        changes = steps.fire("own")
        assert [firing.trigger for firing in changes.fired] == ["own"]
        assert fired(steps) == ["start", "first", "second", "own"]
        times = [at for _, at in after_first(steps)]
        assert times == sorted(times)
        assert times[3] >= 60

    def test_a_repeat_does_not_look_at_timers(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 17: nor does a claim, a log or a heartbeat."""
        steps = Steps(storage)
        steps.configure(rules(t_x=["go"]))
        steps.fire("go", key="k")
        steps.fire_later("due", seconds(10))
        place.advance(seconds(60))
        assert steps.fire("go", key="k").duplicate_of is not None
        steps.start("t_x#0")
        assert fired(steps) == ["go"]

    def test_a_name_has_one_timer(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 17: setting it again replaces it, and canceling it is final."""
        steps = Steps(storage)
        steps.configure({})
        steps.fire_later("a", seconds(10), {"n": 1})
        steps.fire_later("b", seconds(30), {"n": 2})
        place.advance(seconds(20))
        assert steps.elapse().fired == []
        assert steps.cancel("timer")
        assert not steps.cancel("timer")
        place.advance(seconds(20))
        assert steps.elapse().fired == []
        assert fired(steps) == []

    def test_a_used_key_fires_nothing(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 17: the timer is removed, and the changes say why."""
        steps = Steps(storage)
        steps.configure({})
        steps.fire_later("a", seconds(10), {"n": 1}, name="x", key="k")
        steps.fire_later("a", seconds(11), {"n": 1}, name="y", key="free")
        steps.fire_later("a", seconds(12), {"n": 1}, name="z", key="free")
        steps.fire("a", {"n": 2}, key="k")
        place.advance(seconds(60))
        changes = steps.elapse()
        assert [firing.key for firing in changes.fired] == ["free"]
        assert [(timer.name, "was used" in timer.problem) for timer in changes.unfired] == [
            ("x", True),
            ("z", True),
        ]
        assert steps.timers() == []

    def test_a_timer_that_cannot_elapse_is_put_aside(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 17: it says why, raises nowhere, and does not keep the others from elapsing."""
        steps = Steps(storage)
        steps.configure({})
        steps.fire_later("t_x:failed", seconds(10), name="bad")
        steps.fire_later("good", seconds(20), name="good")
        steps.configure(rules(t_x=["a"], t_y=["t_x:failed"]))
        place.advance(seconds(60))
        steps.fire("a")
        assert fired(steps) == ["good", "a"]
        [aside] = steps.timers()
        assert (aside.name, aside.at, "outcome" in aside.problem) == ("bad", AWAY, True)
        assert steps.head.next_timer_at is None
        assert steps.cancel("bad")

    def test_at_most_so_many_elapse_in_one_commit(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 17: the others follow, in their order, before the decision."""
        steps = Steps(storage)
        steps.configure({})
        count = decisions.AT_ONCE + 20
        for number in range(count):
            steps.fire_later(f"x{number:03}", seconds(10 + (number * 7) % count), name=str(number))
        place.advance(seconds(500))
        assert len(steps.elapse().fired) == decisions.AT_ONCE
        steps.fire("own")
        expected = sorted(range(count), key=lambda number: (number * 7) % count)
        assert fired(steps) == [*(f"x{number:03}" for number in expected), "own"]
        assert steps.timers() == []

    def test_the_time_of_a_session_never_goes_back(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 17: a timer in the past fires as of the session's latest time."""
        steps = Steps(storage)
        steps.configure({})
        place.advance(seconds(100))
        steps.fire("late")
        timer = steps.fire_later("past", seconds(5)).timers["timer"]
        assert timer is not None
        steps.commit(decisions.set_timer(steps.policy, timer._replace(at=timer.at - 90 * SECOND)))
        steps.fire("end")
        assert fired(steps) == ["late", "past", "end"]
        times = [firing.at for firing in steps.firings()]
        assert times == sorted(times)

    def test_timers_of_a_finalized_session_elapse(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 17: and finalizing does not wait for them."""
        steps = Steps(storage, policy=Policy(finalizing=Finalizing("done")))
        steps.configure(rules(t_x=["go"]))
        steps.fire("go")
        steps.fire_later("due", seconds(10))
        steps.run("t_x#0")
        assert fired(steps)[-1] == "done"
        place.advance(seconds(60))
        steps.elapse()
        assert fired(steps) == ["go", "t_x", "done", "due"]

    def test_a_process_without_the_manager_leaves_timers_alone(
        self, place: StorageSandbox, storage: Storage
    ) -> None:
        """Promise 17: it is refused, and nothing has changed."""
        steps = Steps(storage, policy=Policy("other"))
        steps.configure({})
        steps.fire_later("due", seconds(10))
        place.advance(seconds(60))
        assert storage.commit(steps.uid, decisions.elapse(lambda _: None)).refused
        assert fired(steps) == []
        assert [timer.trigger for timer in steps.timers()] == ["due"]

    # -- delays --------------------------------------------------------------------------------------------

    def test_a_reminder_comes_after_its_delay(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 17: what completes it a moment too late comes too late, although the sweep was later still."""
        steps = Steps(storage)
        steps.configure(REMINDER)
        steps.fire("firstPage")
        assert steps.statuses() == {"t_remind#0": "unstarted"}
        assert [(timer.kind, timer.instance) for timer in steps.timers()] == [(DELAY, ("t_remind", 0))]
        place.advance(timedelta(days=3, minutes=5))
        steps.fire("complete")
        assert steps.statuses() == {"t_remind#0": "scheduled"}
        assert steps.timers() == []
        assert [each.task for each in storage.due(9, grace=SECOND, include_recent=True)] == ["t_remind"]

    def test_a_veto_during_the_delay_stops_the_reminder(
        self, place: StorageSandbox, storage: Storage
    ) -> None:
        """Promise 17: and its timer is removed."""
        steps = Steps(storage)
        steps.configure(REMINDER)
        steps.fire("firstPage")
        place.advance(timedelta(days=2))
        steps.fire("complete")
        assert steps.statuses() == {"t_remind#0": "abandoned"}
        assert steps.timers() == []
        place.advance(timedelta(days=2))
        assert steps.elapse().scheduled() == []

    def test_a_delay_begins_once(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 17: further firings do not move its end."""
        steps = Steps(storage)
        steps.configure(
            rules(t_x={"after": {"any": ["a", "b"]}, "delay": "PT1M", "unless": {"all": ["c", "d"]}})
        )
        steps.fire("a")
        ends = steps.timers()[0].at
        place.advance(seconds(30))
        steps.fire("b")
        steps.fire("c")
        assert [timer.at for timer in steps.timers()] == [ends]
        assert steps.instances()[0].taken.keys() == {"a", "b"}

    def test_a_burst_of_firings_leads_to_one_run(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 17: each firing starts the delay again and replaces what was received, up to the limit."""
        steps = Steps(storage)
        steps.configure(BURST)
        for number in range(8):
            steps.fire("e", {"n": number})
            place.advance(seconds(50))
        assert steps.statuses() == {"t_b#0": "scheduled", "t_b#1": "unstarted"}
        firings = {firing.number: decode(firing.kwargs)["n"] for firing in steps.firings()}
        taken = [firings[instance.taken["e"]] for instance in steps.instances()]
        assert taken == [5, 7], "six firings came within five minutes of the first"
        [timer] = steps.timers()
        assert timer.at == steps.firings()[-1].at + 60 * SECOND

    # -- deadlines -----------------------------------------------------------------------------------------

    def test_a_missed_deadline_fires_as_of_its_time(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 17: the instance continues to wait, and starts when the rest arrives."""
        steps = Steps(storage)
        steps.configure(CHASED)
        steps.fire("a")
        assert [timer.kind for timer in steps.timers()] == [DEADLINE]
        place.advance(seconds(60))
        changes = steps.elapse()
        assert [instance.name for instance in changes.scheduled()] == ["t_chase#0"]
        [missed] = [firing for firing in steps.firings() if firing.trigger == "t_x:missed"]
        assert after_first(steps)[-1] == ("t_x:missed", 10.0)
        kwargs = decode(missed.kwargs)
        assert (kwargs["instance"], kwargs["lacks"], missed.source) == ("t_x#0", ["b"], "t_x#0")
        assert micros(kwargs["due"] - type(kwargs["due"]).fromtimestamp(0, kwargs["due"].tzinfo)) == missed.at
        place.advance(seconds(30))
        steps.fire("b")
        assert steps.statuses() == {"t_x#0": "scheduled", "t_chase#0": "scheduled"}

    def test_a_deadline_that_is_met_is_not_missed(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 17: its timer is removed."""
        steps = Steps(storage)
        steps.configure(CHASED)
        steps.fire("a")
        steps.fire("b")
        assert steps.timers() == []
        place.advance(seconds(60))
        steps.elapse()
        assert fired(steps) == ["a", "b"]

    def test_what_comes_after_its_deadline_can_be_abandoned(
        self, place: StorageSandbox, storage: Storage
    ) -> None:
        """Promise 17: the outcome of the deadline comes first, then the abandonment and its outcomes."""
        steps = Steps(storage)
        late = {"in": "PT10S", "late": "abandon"}
        steps.configure(
            rules(
                t_x={"after": ["a", "b"], "deadline": late}, t_chase=["t_x:missed"], t_left=["t_x:abandoned"]
            )
        )
        steps.fire("a")
        place.advance(seconds(60))
        steps.fire("b")
        assert fired(steps) == ["a", "t_x:missed", "t_x:abandoned", "b"]
        assert steps.statuses() == {"t_x#0": "abandoned", "t_chase#0": "scheduled", "t_left#0": "scheduled"}
        times = dict(after_first(steps))
        assert times["t_x:missed"] == times["t_x:abandoned"] == 10

    def test_a_deadline_can_count_from_a_trigger(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 17: from when the instance received it; without it there is no deadline."""
        steps = Steps(storage)
        steps.configure(
            rules(
                t_x={"after": ["a", "b", "c"], "deadline": {"in": "PT10S", "from": "b"}},
                t_chase=["t_x:missed"],
            )
        )
        steps.fire("a")
        place.advance(seconds(60))
        assert steps.timers() == []
        steps.fire("b")
        begun = steps.firings()[-1].at
        assert [timer.at - begun for timer in steps.timers()] == [10 * SECOND]
        place.advance(seconds(60))
        steps.fire("b")
        assert fired(steps) == ["a", "b", "t_x:missed", "b"]

    def test_a_missed_deadline_is_missed_once(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 17: also if the rules change after it."""
        steps = Steps(storage)
        steps.configure(CHASED)
        steps.fire("a")
        place.advance(seconds(60))
        steps.elapse()
        steps.configure(
            rules(t_x={"after": ["a", "b"], "deadline": "PT20S"}, t_chase={"andEvery": "t_x:missed"})
        )
        place.advance(seconds(60))
        steps.elapse()
        assert fired(steps).count("t_x:missed") == 1

    def test_a_deadline_that_begins_again_is_missed_once(
        self, place: StorageSandbox, storage: Storage
    ) -> None:
        """Promise 16: also if the trigger from which it counts is received again."""
        steps = Steps(storage)
        burst = {"for": "PT1S", "since": "last"}
        steps.configure(
            rules(
                t_x={
                    "andEvery": "a",
                    "after": ["b"],
                    "delay": burst,
                    "deadline": {"in": "PT5S", "from": "a"},
                },
                t_chase={"andEvery": "t_x:missed"},
            )
        )
        steps.fire("a")
        place.advance(seconds(3))
        steps.fire("a")
        place.advance(seconds(3))
        assert steps.elapse().fired == [], "it began again"
        for _ in range(2):
            place.advance(seconds(10))
            steps.fire("a")
        assert fired(steps) == ["a", "a", "t_x:missed", "a", "a"]

    # -- one after the other -------------------------------------------------------------------------------

    def test_timers_that_set_timers_elapse_in_order(self, make_place: Any) -> None:
        """Promise 17: it makes no difference how often somebody looks."""
        ends = []
        for sweeps in ((60,), (11, 5, 44), (10, 50), (1, 59)):
            place = make_place()
            steps = Steps(place.open())
            steps.configure(
                rules(
                    t_x={"after": ["a"], "delay": "PT5S"},
                    t_y={"after": ["a", "z"], "deadline": "PT20S"},
                    t_z=["t_y:missed"],
                )
            )
            steps.fire("start")
            steps.fire_later("a", seconds(10))
            origin = steps.timers()[0].since
            for pause in sweeps:
                place.advance(seconds(pause))
                steps.elapse()
            shown = [(firing.trigger, firing.number) for firing in steps.firings()]
            times = [firing.at - origin for firing in steps.firings()[1:]]
            ends.append((shown, times, steps.statuses()))
            place.close()
        assert ends[0][1] == [10 * SECOND, 30 * SECOND]
        assert ends[0][2] == {"t_x#0": "scheduled", "t_y#0": "unstarted", "t_z#0": "scheduled"}
        assert all(end == ends[0] for end in ends)

    def test_a_deadline_can_begin_and_pass_before_anybody_looks(
        self, place: StorageSandbox, storage: Storage
    ) -> None:
        """Promise 16: its outcome reaches the instance that waits for it."""
        steps = Steps(storage)
        steps.configure(
            rules(t_y={"after": ["a", "z"], "deadline": "PT20S"}, t_z={"after": ["b", "t_y:missed"]})
        )
        steps.fire("b")
        steps.fire_later("a", seconds(10))
        place.advance(seconds(60))
        steps.elapse()
        assert fired(steps) == ["b", "a", "t_y:missed"]
        assert steps.statuses() == {"t_y#0": "unstarted", "t_z#0": "scheduled"}

    def test_timers_of_the_same_time_elapse_in_the_order_of_tasks(
        self, place: StorageSandbox, storage: Storage
    ) -> None:
        """Promise 16: if one firing has set them, whatever the order of the rules is."""
        steps = Steps(storage)
        late = {"andEvery": "a", "after": ["z"], "deadline": "PT5S"}
        for names in (("t_2", "t_1"), ("t_1", "t_2")):
            heard = {f"t_c{name}": {"andEvery": f"{name}:missed"} for name in names}
            steps.configure(rules(**dict.fromkeys(names, late), **heard))
            steps.fire("a")
            place.advance(seconds(10))
            steps.elapse()
        assert fired(steps) == ["a", "t_1:missed", "t_2:missed"] * 2

    def test_a_recovery_lets_timers_elapse_first(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 17: where the failure of the lost instance fires an outcome."""
        steps = Steps(storage)
        steps.configure(rules(t_x=["go"], t_clean=["t_x:failed"]))
        steps.fire("go")
        attempt = steps.start("t_x#0", crash_budget=0)
        steps.fire_later("due", seconds(1))
        place.advance(timedelta(hours=1))
        for _ in range(3):
            steps.recover("t_x#0", attempt.fence)
            place.advance(timedelta(hours=1))
        assert fired(steps) == ["go", "due", "t_x:failed"]
        assert steps.statuses()["t_clean#0"] == "scheduled"

    def test_a_decision_says_when_it_must_wait(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 17: a decision that finds due timers raises a request, and nothing has changed."""
        steps = Steps(storage)
        steps.configure({})
        steps.fire_later("due", seconds(1))
        place.advance(seconds(5))
        before = steps.head
        with pytest.raises(TimersDue) as due:
            storage.commit(steps.uid, decisions.add_session_metadata(steps.policy, {"a": 1}))
        assert due.value.at >= before.now
        assert steps.head.metadata == before.metadata

    def test_a_preview_lets_timers_elapse_in_its_picture(
        self, place: StorageSandbox, storage: Storage
    ) -> None:
        """Promises 16 and 17: it equals the commit that follows it, and changes nothing."""
        steps = Steps(storage, policy=Policy(finalizing=Finalizing("done")))
        steps.configure(
            {
                **REMINDER,
                **rules(
                    t_x={"after": ["a", "b"], "deadline": {"in": "PT10S", "late": "abandon"}},
                    t_chase=["t_x:missed"],
                    t_all={"andEvery": "own", "after": ["firstPage", "k0"]},
                ),
            }
        )
        steps.fire("firstPage")
        steps.fire("a")
        for number in range(decisions.AT_ONCE + 5):
            steps.fire_later(f"k{number}", seconds(20), {"n": number}, name=str(number), key=f"k{number}")
        place.advance(timedelta(days=4))
        before = (steps.timers(), fired(steps), steps.statuses())
        for firing in (new_firing("k3", {"n": 3}, "k3"), new_firing("own", {"n": 1}), new_firing("complete")):
            decision = decisions.fire(steps.policy, firing)
            preview = steps.preview(decision)
            assert (steps.timers(), fired(steps), steps.statuses()) == before
            changes = steps.commit(decision)
            for one in (preview, changes):
                assert one.duplicate_of is None or one.duplicate_of.number == changes.duplicate_of.number  # type: ignore[union-attr]
            for one, other in zip(
                changes_without_times(preview), changes_without_times(changes), strict=True
            ):
                assert one == other, (one, other)
            before = (steps.timers(), fired(steps), steps.statuses())
        assert fired(steps)[2:4] == ["t_x:missed", "k0"]

    # -- new rules -----------------------------------------------------------------------------------------

    def test_new_rules_count_from_the_same_moment(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 17: a changed delay or deadline counts from where the old one counted."""
        steps = Steps(storage)
        steps.configure(REMINDER | CHASED)
        steps.fire("firstPage")
        steps.fire("a")
        before = {timer.instance: timer for timer in steps.timers()}
        place.advance(seconds(5))
        steps.configure(
            rules(
                t_remind={"after": ["firstPage"], "delay": "P1D"},
                t_x={"after": ["a", "b"], "deadline": "PT1H"},
                t_chase=["t_x:missed"],
            )
        )
        moved = {timer.instance: timer.at - before[timer.instance].since for timer in steps.timers()}
        assert moved == {("t_remind", 0): 86_400 * SECOND, ("t_x", 0): 3_600 * SECOND}

    def test_new_rules_count_from_the_last_firing(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 16: if each firing begins the delay again, and also if the delay had a limit."""
        steps = Steps(storage)
        steps.configure(BURST)
        for _ in range(6):
            place.advance(seconds(50))
            steps.fire("e")
        steps.configure(rules(t_b={"andEvery": "e", "delay": {"for": "PT2M", "since": "last"}}))
        assert [timer.at for timer in steps.timers()] == [steps.firings()[-1].at + 120 * SECOND]

    def test_new_rules_can_end_a_delay(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 16: when their condition is met later, it begins again, with its limit."""
        steps = Steps(storage)
        steps.configure(BURST)
        steps.fire("e")
        longest = {"for": "PT1M", "since": "last", "atMost": "PT1M"}
        steps.configure(rules(t_b={"andEvery": "e", "after": ["f"], "delay": longest}))
        assert steps.timers() == []
        place.advance(seconds(600))
        steps.fire("f")
        assert [timer.at for timer in steps.timers()] == [steps.firings()[-1].at + 60 * SECOND]
        steps.configure({})
        assert steps.timers() == []
        place.advance(seconds(600))
        steps.configure(rules(t_b={"andEvery": "e", "after": ["f"], "delay": longest}))
        assert [timer.at for timer in steps.timers()] == [steps.head.now + 60 * SECOND]

    def test_new_rules_keep_the_order_of_timers(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 16: those that they do not change keep their places."""
        steps = Steps(storage)
        steps.configure(CHASED)
        steps.fire("a")
        steps.fire_later("due", seconds(10))
        steps.configure(CHASED | rules(t_x={**CHASED["t_x"], "using": "others"}))
        assert [timer.kind for timer in steps.timers()] == [DEADLINE, FIRES]
        place.advance(seconds(10))
        steps.elapse()
        assert fired(steps) == ["a", "t_x:missed", "due"]

    def test_new_rules_can_make_a_timer_due(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 17: one whose end is in the past elapses with the next look."""
        steps = Steps(storage)
        steps.configure(REMINDER)
        steps.fire("firstPage")
        place.advance(timedelta(days=2))
        steps.configure(rules(t_remind={"after": ["firstPage"], "delay": "P1D"}))
        assert steps.statuses() == {"t_remind#0": "unstarted"}
        assert [instance.name for instance in steps.elapse().scheduled()] == ["t_remind#0"]

    def test_timers_of_removed_rules_are_removed(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 17: a rule without a delay starts what waited; a named timer outlives any rules."""
        steps = Steps(storage)
        steps.configure(REMINDER | CHASED)
        steps.fire("firstPage")
        steps.fire("a")
        steps.fire_later("due", seconds(10))
        steps.configure(rules(t_remind=["firstPage"], other=["q"]))
        assert [timer.name for timer in steps.timers()] == ["timer"]
        assert steps.statuses()["t_remind#0"] == "scheduled"
        steps.configure(REMINDER | CHASED)
        place.advance(timedelta(days=9))
        steps.elapse()
        assert "due" in fired(steps)

    def test_a_change_by_hand_removes_the_timer(self, storage: Storage) -> None:
        """Promise 17: an instance that no longer waits has no timer."""
        steps = Steps(storage)
        steps.configure(REMINDER)
        steps.fire("firstPage")
        steps.set_status("t_remind#0", Status.SCHEDULED)
        assert steps.timers() == []
