"""The test kit, used as version 2's documentation shows it, and the messages of its assertions."""

from __future__ import annotations

import threading
import unittest
from weakref import WeakSet

import pytest

from triggers import TriggerManager, Triggers
from triggers.runners import threads
from triggers.task import MaxRetriesExceeded, TriggerTask
from triggers.testing import (
    DevNullTask,
    FailingTask,
    PassThruTask,
    SelfRetryingTask,
    SelfSkippingTask,
    ThreadingTaskRunner,
    TriggerManagerTestCaseMixin,
    ready_made,
)


@pytest.fixture(autouse=True)
def _no_other_pools(monkeypatch):
    """`join_all` finds the pools of this test, and none that another test has left open."""
    monkeypatch.setattr(threads, "_OPEN", WeakSet())


class KitTestCase(TriggerManagerTestCaseMixin, unittest.TestCase):
    """The documented structure: configure, fire, wait, assert."""

    def setUp(self):
        super().setUp()
        triggers = Triggers("memory://", registry=ready_made())
        self.addCleanup(triggers.close)
        self.manager = triggers.session(self._testMethodName)

    def run_task(self, task, **params):
        """Run a ready-made task as `t_x`, with parameters for the trigger `retries`."""
        self.manager.update_configuration(
            {"t_x": {"after": ["start"], "run": task.name, "withParams": params}}
        )
        self.manager.fire("start", {"n": 1})
        ThreadingTaskRunner.join_all()

    def test_pass_thru(self):
        """The trigger kwargs are the result, under a key."""
        self.run_task(PassThruTask)
        self.assertInstanceFinished("t_x#0")
        self.assertInstanceFinished(instance_name="t_x#0", expected_result={"kwargs": {"start": {"n": 1}}})
        self.assertUnresolvedTasks([])
        self.assertUnresolvedInstances([])

    def test_dev_null(self):
        """The result is empty."""
        self.run_task(DevNullTask)
        self.assertInstanceFinished("t_x#0", {})

    def test_failing(self):
        """The failure is a RuntimeError."""
        self.run_task(FailingTask)
        self.assertInstanceFailed(instance_name="t_x#0", exc_type=RuntimeError)
        self.assertUnresolvedTasks(["t_x"])
        self.assertUnresolvedInstances(["t_x#0"])

    def test_self_skipping(self):
        """The trigger kwargs are in the metadata."""
        self.run_task(SelfSkippingTask)
        self.assertInstanceSkipped("t_x#0")
        assert self.manager.storage["t_x#0"].metadata["kwargs"] == {"start": {"n": 1}}

    def test_self_retrying(self):
        """Each retry is a new instance."""
        self.run_task(SelfRetryingTask, retries={"max": 2})
        self.assertInstanceReplayed("t_x#0")
        self.assertInstanceReplayed("t_x#1")
        self.assertInstanceFinished("t_x#2", {"count": 2})

    def test_self_retrying_too_often(self):
        """After `max_retries`, the task fails."""
        self.run_task(SelfRetryingTask, retries={"max": 4})
        self.assertInstanceReplayed("t_x#2")
        self.assertInstanceFailed("t_x#3", MaxRetriesExceeded)

    def test_waiting(self):
        """An instance that waits, one that was abandoned, and one that does not exist."""
        self.manager.update_configuration(
            {
                "t_wait": {"after": ["start", "never"], "run": DevNullTask.name},
                "t_veto": {"after": ["never"], "unless": ["start"], "run": DevNullTask.name},
                "t_none": {"after": ["never"], "run": DevNullTask.name},
            }
        )
        self.manager.fire("start")
        self.assertInstanceUnstarted("t_wait#0")
        self.assertInstanceStatus("t_wait#0", "unstarted")
        self.assertInstanceAbandoned("t_veto#0")
        self.assertInstanceMissing("t_none#0")
        self.assertUnresolvedTasks(["t_none", "t_wait"])
        self.assertUnresolvedInstances(["t_wait#0"])


# -- what fails ------------------------------------------------------------------------------------------


@pytest.fixture
def kit(tasks):
    """A test case about a session with one failed instance."""
    with Triggers("memory://", runner="inline", registry=tasks) as triggers:
        kit = KitTestCase()
        kit.manager = triggers.session("s")
        kit.manager.update_configuration({"t_x": {"after": ["start"], "run": FailingTask.name}})
        kit.manager.fire("start")
        yield kit


@pytest.mark.parametrize(
    ("claim", "message"),
    [
        (
            lambda kit: kit.assertInstanceFinished("t_x#0"),
            "t_x#0 of session 's' is failed, but should be finished",
        ),
        (lambda kit: kit.assertInstanceStatus("t_x#0", "running"), "is failed, but should be running"),
        (
            lambda kit: kit.assertInstanceFailed("t_x#0", ValueError),
            "but should have failed with builtins.ValueError",
        ),
        (lambda kit: kit.assertInstanceMissing("t_x#0"), "is failed, but should not exist"),
        (
            lambda kit: kit.assertInstanceSkipped("t_x#1"),
            "session 's' has no instance 't_x#1', which should be skipped",
        ),
        (lambda kit: kit.assertInstanceReplayed("t_x#0"), "should be replayed"),
        (lambda kit: kit.assertInstanceAbandoned("t_x#0"), "should be abandoned"),
        (lambda kit: kit.assertInstanceUnstarted("t_x#0"), "should be unstarted"),
        (lambda kit: kit.assertUnresolvedTasks([]), "unresolved tasks of session 's'"),
        (lambda kit: kit.assertUnresolvedInstances(["t_y#0"]), "unresolved instances of session 's'"),
    ],
)
def test_a_wrong_claim_fails_and_says_what_is_stored(kit, claim, message):
    """The message has the status and the traceback of the instance."""
    with pytest.raises(kit.failureException) as failed:
        claim(kit)
    assert message in str(failed.value)
    if "exist" not in message and "no instance" not in message and "tasks" not in message:
        assert "RuntimeError: t_x#0 always fails" in str(failed.value)


def test_a_result_that_differs_fails(kit):
    """Both results are shown."""
    kit.manager.update_configuration({"t_x": {"after": ["start"], "run": PassThruTask.name}})
    kit.manager.replay_failed_instance("t_x#0")
    with pytest.raises(AssertionError, match="should have finished with"):
        kit.assertInstanceFinished("t_x#1", {"kwargs": {}})


# -- waiting ---------------------------------------------------------------------------------------------


def test_join_all_waits_for_every_pool_and_for_cascades(tasks):
    """Two applications, each with a chain of tasks: afterwards nothing runs."""
    gate = threading.Event()
    body = {"name": "app.Wait", "registry": tasks, "_run": lambda self, context: gate.wait(60) and None}
    type("Wait", (TriggerTask,), body)
    rules = {
        "t_1": {"after": ["start"], "run": "app.Wait"},
        "t_2": {"after": ["t_1"], "run": DevNullTask.name},
    }
    with Triggers("memory://", registry=tasks) as one, Triggers("memory://", registry=tasks) as other:
        for triggers in (one, other):
            triggers.session("s").update_configuration(rules)
            triggers.session("s").fire("start")
        assert not ThreadingTaskRunner.join_all(timeout=0)
        gate.set()
        assert ThreadingTaskRunner.join_all()
        for triggers in (one, other):
            assert [instance.status for instance in triggers.session("s").storage] == ["finished"] * 2


def test_join_all_waits_for_hooks(tasks):
    """A hook that still runs, after its task has finished, is waited for; and what it fires, too."""
    finished, gate = threading.Event(), threading.Event()

    class Slow(TriggerManager):
        name = "slow"

        def _post_fire(self, trigger_name, tasks_scheduled):
            if trigger_name == "t_1":
                finished.set()
                assert gate.wait(60)
                self.fire("late")

    rules = {
        "t_1": {"after": ["start"], "run": DevNullTask.name},
        "t_2": {"after": ["late"], "run": DevNullTask.name},
    }
    with Triggers("memory://", manager=Slow, registry=tasks) as triggers:
        session = triggers.session("s")
        session.update_configuration(rules)
        session.fire("start")
        assert finished.wait(60)
        assert not ThreadingTaskRunner.join_all(timeout=0.01)
        gate.set()
        assert ThreadingTaskRunner.join_all()
        assert session.storage["t_2#0"].status == "finished"


def test_a_task_cannot_join_all(tasks):
    """It would wait for itself: an error says so."""
    body = {
        "name": "app.Join",
        "registry": tasks,
        "_run": lambda self, context: ThreadingTaskRunner.join_all(),
    }
    type("Join", (TriggerTask,), body)
    with Triggers("memory://", registry=tasks) as triggers:
        session = triggers.session("s")
        session.update_configuration({"t": {"after": ["start"], "run": "app.Join"}})
        session.fire("start")
        assert triggers.join(60)
        assert session.storage["t#0"].error["message"].startswith("join_all() was called by a task")
