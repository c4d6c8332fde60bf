"""How often a task runs, which worker runs it, and what a worker that lost its claim can still do."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.scenarios.steps import crash_at_work, runs
from triggers import Triggers
from triggers.runners.inline import InlineRunner
from triggers.task import task
from triggers.testing import InjectedCrash, TriggersHarness

MINUTE = timedelta(minutes=1)


# -- once, or more often -------------------------------------------------------------------------------------


def test_the_idempotency_key_outlives_crash_retry_and_replay(tasks, faults, harness, session, check):
    """It is the same for every try at the same work, and another one for replaced kwargs and other instances."""
    seen = []

    @task(name="work", registry=tasks)
    def work(context):
        seen.append((context.task_instance.name, context.attempt, context.idempotency_key))
        if context.task_instance.number == 0:
            raise context.retry()
        if context.task_instance.number < 3:
            raise ValueError

    session.update_configuration({"t_work": {"andEvery": "go", "run": "work"}})
    faults.die_at("before commit of fail")
    with pytest.raises(InjectedCrash):
        session.fire("go")
    harness.restart()
    harness.run_until_idle()
    session = harness.session("s")
    session.replay_failed_instance("t_work#1")
    session.replay_failed_instance("t_work#2", {"go": {"other": True}})
    session.fire("go")
    runs_of = [(name, attempt) for name, attempt, _ in seen]
    assert runs_of == [("t_work#0", 1), ("t_work#0", 2), *((f"t_work#{n}", 1) for n in range(1, 5))]
    keys = [key for _, _, key in seen]
    assert len(set(keys[:4])) == 1
    assert len({keys[0], keys[4], keys[5]}) == 3


def test_idempotency_keys_of_different_sessions_differ(tasks, harness):
    """Sessions and tasks whose names run together the same way have different keys."""
    keys = []
    task(name="work", registry=tasks)(lambda context: keys.append(context.idempotency_key))
    for uid, name in (("a", "b/t"), ("a/b", "t"), ("a%2Fb", "t")):
        session = harness.session(uid)
        session.update_configuration({name: {"after": ["go"], "run": "work"}})
        session.fire("go")
    assert len(set(keys)) == 3


def test_attempts_and_fencing_tokens_grow(tasks, faults, harness, session, check):
    """Each claim of an instance is one attempt more and has a higher token."""
    seen = []
    task(name="work", registry=tasks)(lambda context: seen.append((context.attempt, context.fencing_token)))
    session.update_configuration(runs("work"))
    for hit in (1, 2):
        faults.die_at("before commit of finish")
        with pytest.raises(InjectedCrash):
            session.fire("go") if hit == 1 else harness.run_until_idle()
        harness.restart()
    harness.run_until_idle()
    attempts, tokens = zip(*seen, strict=True)
    assert attempts == (1, 2, 3)
    assert tokens[0] < tokens[1] < tokens[2]
    assert check.assert_instance_finished("t_work#0").crashes == 2


def test_a_worker_that_is_lost_too_often_is_given_up(tasks, faults, harness, session, check):
    """Two crashes are not charged; after the allowed ones it fails with WorkerLost, and can be replayed."""
    task(name="work", registry=tasks)(lambda context: None)
    session.update_configuration(runs("work"))
    crash_at_work(faults, lambda: session.fire("go"), harness)
    for _ in range(4):
        crash_at_work(faults, harness.run_until_idle, harness)
    harness.run_until_idle()
    assert check.assert_instance_failed("t_work#0", "WorkerLost", match="lost 5 times").crashes == 5
    harness.session("s").replay_failed_instance("t_work#0")
    check.assert_instance_finished("t_work#1")


def test_a_task_may_refuse_to_be_begun_twice(tasks, faults, harness, check):
    """With `on_lost="fail"` the first lost worker fails the instance, whatever ran beside it."""
    session = harness.session("s")
    task(name="work", registry=tasks, on_lost="fail")(lambda context: None)
    session.update_configuration(runs("work"))
    crash_at_work(faults, lambda: session.fire("go"), harness)
    harness.run_until_idle()
    assert check.assert_instance_failed("t_work#0", "WorkerLost").attempt == 1


def test_a_task_may_have_a_lease_of_its_own(tasks, faults, harness, session, check):
    """A lost worker is noticed after the task's lease, not after the application's."""
    task(name="work", registry=tasks, lease=timedelta(hours=2))(lambda context: None)
    session.update_configuration(runs("work"))
    crash_at_work(faults, lambda: session.fire("go"), harness)
    harness.advance(timedelta(hours=2))
    check.assert_instance_running("t_work#0")
    harness.advance(timedelta(seconds=2))
    check.assert_instance_finished("t_work#0")


def test_a_ghost_is_told_and_refused(tasks, harness, session, check):
    """A run whose claim was taken away learns it, and neither its result nor its error counts."""
    lost = []

    @task(name="ghost", registry=tasks)
    def ghost(context):
        if context.attempt < 3:
            harness.advance(2 * MINUTE)
        lost.append(context.lease_lost)
        if context.attempt == 2:
            raise ValueError("too late")
        return {"attempt": context.attempt}

    session.update_configuration(
        {**runs("ghost"), "t_next": {"andEvery": "t_ghost", "run": "triggers.testing.PassThrough"}}
    )
    session.fire("go")
    harness.run_until_idle()
    assert lost == [True, True, False]
    assert check.assert_instance_finished("t_ghost#0", {"attempt": 3}).error is None
    check.assert_instance_finished("t_next#0", {"t_ghost": {"attempt": 3}})
    check.assert_instance_missing("t_next#1")


def test_a_status_set_by_hand_shuts_the_worker_out(tasks, session, check):
    """An instance that a person fails while it runs stays failed, whatever its task returns."""

    @task(name="work", registry=tasks)
    def work(context):
        context.manager.update_instance_status(context.task_instance, "failed")
        return {"n": 1}

    session.update_configuration(runs("work"))
    session.fire("go")
    assert check.assert_instance_failed("t_work#0").result is None


# -- processes that differ -----------------------------------------------------------------------------------


def test_a_worker_without_the_task_returns_the_instance(tasks):
    """It is offered again with growing pauses, no crash is counted, and it runs once a worker has the task."""
    with TriggersHarness(registry=tasks, complete_registry=False) as harness:
        session = harness.session("s")
        session.update_configuration(runs("later"))
        session.fire("go")
        instance = harness.check("s").assert_instance_scheduled("t_later#0")
        assert (instance.given_back, instance.attempt) == (1, 0)
        times = []
        for _ in range(4):
            times.append(instance.run_at - harness.clock.time)
            harness.advance(times[-1])
            instance = harness.check("s").assert_instance_scheduled("t_later#0")
        assert times == sorted(times)
        assert times[-1] > times[0]
        assert instance.given_back == 5
        task(name="later", registry=tasks)(lambda context: {"attempt": context.attempt})
        harness.run_until_idle()
        assert harness.check("s").assert_instance_finished("t_later#0", {"attempt": 1}).crashes == 0


def test_a_task_chooses_its_runner(tasks):
    """`using` names the runner that gets the instance; the others get the rest."""
    ran_by = {}

    class Named(InlineRunner):
        def submit(self, due):
            ran_by[f"{due.task}#{due.number}"] = self
            super().submit(due)

    task(name="work", registry=tasks)(lambda context: None)
    default, other = Named(), Named()
    with Triggers("memory://", runner=default, runners={"other": other}, registry=tasks) as triggers:
        session = triggers.session("s")
        session.update_configuration(
            {**runs("work"), "t_b": {"after": ["go"], "run": "work", "using": "other"}}
        )
        session.fire("go")
        assert {instance.name: instance.status for instance in session.storage} == {
            "t_b#0": "finished",
            "t_work#0": "finished",
        }
    assert ran_by == {"t_work#0": default, "t_b#0": other}
