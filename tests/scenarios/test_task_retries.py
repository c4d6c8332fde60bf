"""Retries as data, through an application: on the rule and on the task, with pauses, until they are used up."""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from triggers import Registry, task
from triggers.exceptions import InvalidOptionError
from triggers.testing import TriggersHarness

registry = Registry()


class Flaky:
    """How often the task below still fails, and with what."""

    error: type[BaseException] = ConnectionResetError
    times = 0


def _flaky(context):
    if Flaky.times:
        Flaky.times -= 1
        raise Flaky.error("Try again.")
    return {}


@task(name="Flaky", registry=registry)
def flaky(context):
    return _flaky(context)


@task(name="OwnPolicy", registry=registry, retry_policy={"max": 1, "first": "PT1M", "jitter": False})
def own_policy(context):
    return _flaky(context)


@task(name="Asks", registry=registry)
def asks(context):
    if Flaky.times:
        Flaky.times -= 1
        raise context.retry(cooldown=timedelta(seconds=7))
    raise ConnectionResetError("Try again.")


RETRY = {
    "max": 3,
    "first": "PT10S",
    "factor": 2,
    "jitter": False,
    "on": ["OSError"],
    "not": ["BlockingIOError"],
}


@pytest.fixture
def harness():
    with TriggersHarness(registry=registry) as found:
        found.allow_failures()
        yield found


def started(harness, run="Flaky", times=0, error=ConnectionResetError, **directives):
    Flaky.times, Flaky.error = times, error
    session = harness.session("s")
    rules = {
        "t_x": {"after": ["go"], "run": run, **directives},
        "t_f": {"after": ["t_x:failed"], "run": "Flaky"},
    }
    session.update_configuration(rules)
    session.fire("go")
    return session


def statuses(session):
    return {instance.name: instance.status.value for instance in session.storage}


def test_it_runs_again_after_each_pause(harness):
    """The pauses grow; every retry is a new instance, and no outcome is fired in between."""
    session = started(harness, times=2, retry=RETRY)
    assert statuses(session) == {"t_x#0": "replayed", "t_x#1": "scheduled"}
    harness.advance(timedelta(seconds=9))
    assert statuses(session)["t_x#1"] == "scheduled"
    harness.advance(timedelta(seconds=1))
    assert statuses(session) == {"t_x#0": "replayed", "t_x#1": "replayed", "t_x#2": "scheduled"}
    harness.advance(timedelta(seconds=20))
    assert statuses(session)["t_x#2"] == "finished"
    assert session.storage["t_x#2"].stored.root == 0


def test_when_they_are_used_up_it_fails_with_the_last_error(harness, caplog):
    """The outcome is exhausted, the explanation counts the retries, each failure is logged once."""
    with caplog.at_level(logging.WARNING):
        session = started(harness, times=9, retry={**RETRY, "max": 2})
        harness.advance(timedelta(hours=1))
    assert statuses(session) == {
        "t_x#0": "replayed",
        "t_x#1": "replayed",
        "t_x#2": "failed",
        "t_f#0": "failed",
    }
    failed = session.storage.latest_kwargs["t_x:failed"]
    assert (failed["exhausted"], failed["lost"]) == (True, False)
    assert failed["error"]["message"] == "Try again."
    assert "t_x#2 failed after 2 retries with" in session.storage.explain("t_x").sentence
    own = [record for record in caplog.records if record.name.endswith("test_task_retries")]
    levels = [record.levelname for record in own if "Attempt" in record.getMessage() or record.exc_info]
    assert levels[:3] == ["WARNING", "WARNING", "ERROR"]


@pytest.mark.parametrize("error", [ValueError, BlockingIOError])
def test_other_exceptions_fail_at_once(harness, error):
    """One that `on` does not name, and one that `not` names although `on` names its ancestor."""
    session = started(harness, times=1, error=error, retry=RETRY)
    assert statuses(session)["t_x#0"] == "failed"
    assert session.storage.latest_kwargs["t_x:failed"]["exhausted"] is False


def test_the_policy_of_the_task_and_that_of_the_rule(harness):
    """The task's own policy applies; a `retry` in the rule wins."""
    session = started(harness, run="OwnPolicy", times=1)
    harness.advance(timedelta(seconds=59))
    assert statuses(session)["t_x#1"] == "scheduled"
    harness.advance(timedelta(seconds=1))
    assert statuses(session)["t_x#1"] == "finished"
    other = harness.session("other")
    Flaky.times = 1
    other.update_configuration({"t_x": {"after": ["go"], "run": "OwnPolicy", "retry": RETRY}})
    other.fire("go")
    harness.advance(timedelta(seconds=10))
    assert statuses(other)["t_x#1"] == "finished"


def test_both_kinds_of_retry_share_one_counter(harness):
    """Two that the task asks for, and then none is left of the two that the rule allows."""
    session = started(harness, run="Asks", times=2, retry={**RETRY, "max": 2})
    harness.advance(timedelta(hours=1))
    assert statuses(session) == {
        "t_x#0": "replayed",
        "t_x#1": "replayed",
        "t_x#2": "failed",
        "t_f#0": "finished",
    }
    assert session.storage.latest_kwargs["t_x:failed"]["exhausted"] is True


def test_a_wrong_policy_of_a_task_is_refused():
    """When the task is defined."""
    with pytest.raises(InvalidOptionError, match="retry_policy must be a mapping as for `retry` in a rule"):
        task(name="Wrong", registry=Registry(), retry_policy={"tries": 3})(lambda context: None)
