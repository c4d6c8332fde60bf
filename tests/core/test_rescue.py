"""Decisions about an instance whose worker was lost, at their limits."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.core.instances import in_status
from triggers.core import decisions
from triggers.core.decisions.rescue import CRASH_BACKOFF
from triggers.core.names import split_instance_name
from triggers.core.status import Status
from triggers.core.terms import Policy
from triggers.core.values import decode, encode
from triggers.testing.conformance.steps import Steps

EVERY = {"t": {"andEvery": "a", "run": "r"}}


def test_a_recovery_of_what_is_gone_is_refused(steps):
    """A sweep that comes late does nothing."""
    steps.configure(EVERY)
    steps.fire("a")
    assert steps.recover("t#0", 0).refused == "its status, fence or lease has changed"


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
    assert abort(steps, name, "m1").refused == f"t#0 is {status}, and not because of this message"
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
    assert lose(steps, name).refused == "no worker runs it because of this message"
    assert lose(steps, "t#7").refused
    assert steps.instances() == before


def test_labels_are_told_apart():
    """A label is found at the end of a claim's name, whole; an empty one never is."""
    assert decisions.labelled("worker", "") == "worker"
    assert decisions.is_labelled(decisions.labelled("worker", "m1"), "m1")
    assert not decisions.is_labelled(decisions.labelled("worker", "m11"), "m1")
    assert not decisions.is_labelled(decisions.labelled("worker", "m1"), "1")
    assert not decisions.is_labelled("worker", "")
