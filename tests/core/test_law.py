"""The law at its edges; what it does in general is compared with the reference model by every storage's suite."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from triggers.core import decisions
from triggers.core.decisions.attempt import GIVE_BACK_BACKOFF
from triggers.core.decisions.rescue import CRASH_BACKOFF
from triggers.core.exchange import Changes, Need, Slice
from triggers.core.names import split_instance_name
from triggers.core.state import MAX_HISTORY, Counter, Firing, Instance, Session, copy_of
from triggers.core.status import Status
from triggers.core.terms import AttemptReport, Finalizing, Policy, RetryTerms
from triggers.core.values import decode, encode
from triggers.exceptions import InvalidStatusError, UnknownInstanceError, UnknownTaskError
from triggers.storages.memory import MemoryStorage
from triggers.testing.clock import VirtualClock
from triggers.testing.conformance.fixtures import batch, entry
from triggers.testing.conformance.steps import SECOND, Steps

EVERY = {"t": {"andEvery": "a", "run": "r"}}


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def steps(clock):
    return Steps(MemoryStorage(clock=clock))


def in_status(steps, status):
    """The name of an instance in that status."""
    steps.configure({"t": {"after": ["a", "b"], "unless": ["c"], "run": "r"}})
    steps.fire("a")
    if status is Status.ABANDONED:
        steps.fire("c")
    elif status is not Status.UNSTARTED:
        steps.fire("b")
    if status in {Status.UNSTARTED, Status.ABANDONED, Status.SCHEDULED}:
        return "t#0"
    attempt = steps.start("t#0")
    if status is Status.FINISHED:
        steps.finish(attempt)
    elif status is Status.SKIPPED:
        steps.skip_running(attempt)
    elif status is not Status.RUNNING:
        steps.fail(attempt)
    if status is Status.REPLAYED:
        steps.replay("t#0")
    return "t#0"


# -- decisions are pure -----------------------------------------------------------------------------------------


def test_a_decision_can_be_made_without_any_storage():
    """It asks for what it must see, is told, and says what changes; the same answers give the same changes again."""

    def decided():
        run = decisions.fire(Policy(), Firing(0, "a", "{}", 0))(Session("s", 5))
        need = next(run)
        assert need == Need(tasks=frozenset(), waiting=(), latest=frozenset())
        with pytest.raises(StopIteration) as end:
            run.send(Slice())
        return end.value.value

    assert decided() == decided()
    assert decided().fired == [Firing(1, "a", "{}", 5)]
    assert decided().session == Session("s", 5, manager="default", firings=1, created_at=5, modified_at=5)


@pytest.mark.parametrize("status", list(Status))
def test_only_what_failed_can_be_replayed(steps, status):
    """Anything else is refused by name, with the status it is in; nothing changes."""
    name = in_status(steps, status)
    if status is Status.FAILED:
        assert steps.replay(name).name == "t#1"
        return
    before = steps.instances()
    with pytest.raises(InvalidStatusError, match=f"t#0 is {status}: only a failed instance can be replayed"):
        steps.replay(name)
    assert steps.instances() == before


@pytest.mark.parametrize("status", list(Status))
def test_only_what_failed_can_be_skipped(steps, status):
    """Anything else is refused with the status it is in; a running one, too: its own task decides that."""
    name = in_status(steps, status)
    if status is Status.FAILED:
        steps.skip(name)
        assert steps[name].status is Status.SKIPPED
        return
    before = steps.instances()
    with pytest.raises(InvalidStatusError, match=f"t#0 is {status}"):
        steps.skip(name, {"simulated": True})
    assert steps.instances() == before


@pytest.mark.parametrize("after", list(Status))
@pytest.mark.parametrize("before", list(Status))
def test_a_status_set_by_hand_obeys_the_table(steps, before, after):
    """Every pair: what the table lacks is refused, and so is running, which only a claim makes."""
    from triggers.core.status import can_move  # noqa: PLC0415 - for this test alone

    name = in_status(steps, before)
    fence = steps[name].fence
    if not can_move(before, after) or after is Status.RUNNING:
        with pytest.raises(InvalidStatusError, match=f"t#0 is {before}"):
            steps.set_status(name, after)
        assert (steps[name].status, steps[name].fence) == (before, fence)
        return
    steps.set_status(name, after)
    instance = steps[name]
    assert instance.status is after
    assert instance.fence == fence + (before is Status.RUNNING)
    assert (instance.owner, instance.lease_until) == ("", None)
    if after is Status.SCHEDULED:
        assert instance.run_at == steps.storage.now()
        assert steps.start(name)


def test_an_instance_that_is_not_there_is_named(steps):
    """The message has session and name."""
    steps.fire("a")
    with pytest.raises(UnknownInstanceError, match="session 'session' has no instance t#7"):
        steps.skip("t#7")


# -- taking triggers --------------------------------------------------------------------------------------------


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


# -- replays and retries ------------------------------------------------------------------------------------------


def test_a_replay_names_its_ancestors(steps):
    """Parent, depth and root; replacement kwargs begin a new root; `retries` start anew by hand."""
    steps.configure(EVERY)
    steps.fire("a", {"n": 1})
    steps.fail(steps.start("t#0"), "x", RetryTerms(0, 3, "{}"))
    steps.fail(steps.start("t#1"), "x")
    steps.replay("t#1", {"a": {"n": 2}})
    steps.fail(steps.start("t#2"), "x", RetryTerms(0, 3, "{}", encode({"a": {"n": 3}}, "kwargs")))
    lines = [(each.parent, each.depth, each.root, each.retries) for each in steps.instances()]
    assert lines == [(None, 0, 0, 0), (0, 1, 0, 1), (1, 2, 2, 0), (2, 3, 3, 1)]
    assert [kwargs["a"]["n"] for kwargs in steps.kwargs_of(steps.instances())] == [1, 1, 2, 3]


def test_a_retry_too_many_fails_with_the_error_that_says_so(steps):
    """After as many retries in a row as it is allowed the instance stays failed."""
    steps.configure(EVERY)
    steps.fire("a")
    terms = RetryTerms(0, 1, encode("exhausted", "error"))
    steps.fail(steps.start("t#0"), "first", terms)
    steps.fail(steps.start("t#1"), "second", terms)
    assert steps.statuses() == {"t#0": "replayed", "t#1": "failed"}
    assert [decode(each.error) for each in steps.instances()] == ["first", "exhausted"]


def test_a_task_that_is_gone_cannot_be_replayed_nor_retried(steps):
    """Its failed instances stay, can be skipped, and say why they cannot run again."""
    steps.configure(EVERY)
    steps.fire("a")
    steps.fire("a")
    first, second = steps.start("t#0"), steps.start("t#1")
    steps.configure({})
    steps.fail(first, "x", RetryTerms(0, 5, "{}"))
    steps.fail(second, "x")
    assert steps.statuses() == {"t#0": "failed", "t#1": "failed"}
    with pytest.raises(
        UnknownTaskError, match="t: is no longer in the configuration, so it cannot be replayed"
    ):
        steps.replay("t#0")
    steps.skip("t#0")
    assert steps.statuses()["t#0"] == "skipped"


def test_a_skip_cascades_on_request_alone(steps):
    """With a simulated result the task's name fires as if it had finished."""
    steps.configure({**EVERY, "u": {"after": ["t"], "run": "r"}})
    for _ in range(2):
        steps.fire("a")
    for name in ("t#0", "t#1"):
        steps.fail(steps.start(name))
    assert steps.skip("t#0").fired == []
    assert [firing.trigger for firing in steps.skip("t#1", {"simulated": 1}).fired] == ["t"]
    assert steps.kwargs("u#0") == {"t": {"simulated": 1}}


# -- rules that change ------------------------------------------------------------------------------------------


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


# -- finalising ---------------------------------------------------------------------------------------------------


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


# -- claims, crashes, ghosts ----------------------------------------------------------------------------------------


def test_pauses_grow_to_a_limit():
    """After a crash 1, 10, 60 seconds; after a worker without the task from one second to fifteen minutes."""
    assert [pause // SECOND for pause in CRASH_BACKOFF] == [1, 10, 60]
    assert [pause // SECOND for pause in GIVE_BACK_BACKOFF] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 900]


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


def test_a_recovery_of_what_is_gone_is_refused(steps):
    """A sweep that comes late does nothing."""
    steps.configure(EVERY)
    steps.fire("a")
    assert steps.recover("t#0", 0).refused == "it no longer is as it was seen"


def abort(steps, name="t#0", label="m1"):
    """Fail what the message of that label was to run."""
    task, number = split_instance_name(name)
    error = encode("taken back", "error")
    return steps.commit(decisions.abort(Policy(), task, number, label, error))


def test_a_runner_fails_what_runs_under_its_label(steps):
    """The claim is gone, the late end of its worker is refused, and the history says who lost it."""
    steps.configure(EVERY)
    steps.fire("a")
    held = steps.start("t#0", owner=decisions.labelled("worker", "m1"))
    assert not abort(steps).refused
    instance = steps["t#0"]
    assert (instance.status, decode(instance.error)) == (Status.FAILED, "taken back")
    assert (instance.owner, instance.lease_until, instance.fence) == ("", None, held.fence + 1)
    assert "failed taken from worker@m1" in instance.history
    assert steps.finish(held).refused


def test_a_runner_fails_what_nobody_has_claimed(steps):
    """From scheduled it is one claim and one failure, in one commit, as the table of moves has it."""
    steps.configure(EVERY)
    steps.fire("a")
    assert abort(steps).claimed is None
    instance = steps["t#0"]
    assert (instance.status, decode(instance.error)) == (Status.FAILED, "taken back")
    assert (instance.attempt, instance.fence, instance.owner) == (1, 1, "")
    said = [line.split(" ", 1)[1] for line in instance.history.splitlines()]
    assert said[-2:] == ["running claimed by nobody@m1", "failed taken from nobody@m1"]
    steps.replay("t#0")
    assert steps.run("t#1").claimed is None


@pytest.mark.parametrize("status", [status for status in Status if status is not Status.SCHEDULED])
def test_a_runner_fails_nothing_else(steps, status):
    """What runs under another label, or none, or is over, is left alone; so is what is not there."""
    name = in_status(steps, status)
    before = steps.instances()
    assert abort(steps, name, "m1").refused == f"t#0 is {status}, and not by this message"
    assert abort(steps, name, "").refused
    assert abort(steps, "t#7").refused == "there is no such instance"
    assert abort(Steps(steps.storage, "nobody")).refused == "there is no such instance"
    assert steps.instances() == before


def lose(steps, name="t#0", label="m1"):
    """The worker that the message of that label led to is dead."""
    task, number = split_instance_name(name)
    error = encode("lost", "error")
    return steps.commit(decisions.lose(Policy(), task, number, label, lambda _: error))


def test_a_worker_that_is_known_to_be_dead_is_not_waited_for(steps, clock):
    """A crash is counted and its pause begins, though its lease has not run out; at the last one it is failed."""
    steps.configure(EVERY)
    steps.fire("a")
    for crash in range(1, 4):
        held = steps.start("t#0", owner=decisions.labelled("worker", "m1"))
        assert not lose(steps).refused
        instance = steps["t#0"]
        assert (instance.crashes, instance.fence, instance.owner) == (crash, held.fence + 1, "")
        assert "worker lost: worker@m1" in instance.history
        assert steps.finish(held).refused
        assert instance.status is (Status.SCHEDULED if crash < 3 else Status.FAILED)
        clock.advance(timedelta(microseconds=CRASH_BACKOFF[crash - 1]))
    assert decode(instance.error) == "lost"


@pytest.mark.parametrize("status", list(Status))
def test_nothing_else_is_lost(steps, status):
    """What no worker runs by that message is left alone; so is what is not there."""
    name = in_status(steps, status)
    before = steps.instances()
    assert lose(steps, name).refused == "no worker runs it by this message"
    assert lose(steps, "t#7").refused
    assert steps.instances() == before


def test_labels_are_told_apart():
    """A label is found at the end of a claim's name, whole; an empty one never is."""
    assert decisions.labelled("worker", "") == "worker"
    assert decisions.is_labelled(decisions.labelled("worker", "m1"), "m1")
    assert not decisions.is_labelled(decisions.labelled("worker", "m11"), "m1")
    assert not decisions.is_labelled(decisions.labelled("worker", "m1"), "1")
    assert not decisions.is_labelled("worker", "")


def test_an_attempt_ends_with_metadata_and_without_records(steps):
    """What a task says of itself is added to the instance in the commit of its end."""
    steps.configure(EVERY)
    steps.fire("a")
    held = steps.start("t#0")
    steps.skip_running(AttemptReport("t", 0, held.fence, held.attempt, None, {"why": "nothing to do"}))
    assert decode(steps["t#0"].metadata) == {"why": "nothing to do"}


# -- state -----------------------------------------------------------------------------------------------------------


def test_a_history_is_bounded():
    """A remark too many is left out; the rest stays."""
    instance = Instance("t", 0, Status.RUNNING, 0, 0)
    for n in range(10_000):
        instance.note(n, "running", "again")
    assert MAX_HISTORY <= len(instance.history) < MAX_HISTORY + 100
    assert instance.history.startswith("0 running again\n")


def test_a_copy_can_be_changed():
    """Nothing that can change is shared with the original."""
    instance = Instance("t", 0, Status.RUNNING, 0, 0, taken={"a": 1}, log_counts={30: 1})
    copy = copy_of(instance)
    copy.taken["b"] = 2
    copy.log_counts[40] = 1
    assert (instance.taken, instance.log_counts) == ({"a": 1}, {30: 1})
    assert instance.name == "t#0"
    assert not instance.is_resolved


def test_a_task_is_resolved_once_it_ran_and_nothing_is_open():
    """A task without any instance is not."""
    assert not Counter(0, 0).is_resolved
    assert not Counter(2, 1).is_resolved
    assert Counter(2, 0).is_resolved


def test_an_empty_batch_needs_no_commit():
    """Records, counts or what was left out: any of them is something to store."""
    assert not batch()
    assert batch(entry())
    assert batch(dropped=1, counts={})


def test_changes_without_anything_schedule_nothing():
    """They begin empty."""
    assert Changes(Session("s", 0)).scheduled() == []
