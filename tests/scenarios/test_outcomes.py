"""What follows from a failure, through an application: hooks, workers that die, chains that are too long, explanations."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

import pytest

from triggers import Registry, TriggerManager, Triggers, task
from triggers.core import decisions
from triggers.core.rules import rule_set
from triggers.core.values import Limits
from triggers.testing import TriggersHarness

registry = Registry()


@task(name="Fail", registry=registry)
def fail(context):
    raise ValueError("No.")


@task(name="Note", registry=registry)
def note(context):
    return dict(context.trigger_kwargs)


@task(name="Hang", registry=registry, lease=timedelta(seconds=5), on_lost="fail")
def hang(context):
    raise AssertionError("it is claimed by a worker that is dead")


CLEANUP = {
    "t_x": {"after": ["go"], "run": "Fail"},
    "t_clean": {"after": ["t_x:failed"], "run": "Note"},
}


@pytest.fixture(params=["sqlite", "postgres_url", "valkey_url"])
def url(request, tmp_path):
    """A storage that processes share."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/a.db"
    return request.getfixturevalue(request.param)


def test_a_clean_up_runs_after_a_failure():
    """It gets the error. The test asserts the failure, so the harness does not complain."""
    with TriggersHarness(registry=registry) as harness:
        session = harness.session("s")
        session.update_configuration(CLEANUP)
        session.fire("go")
        harness.check(session).assert_instance_failed("t_x#0")
        result = session.storage["t_clean#0"].result["t_x:failed"]
        assert result["error"] == {"type": "ValueError", "message": "No."}


def test_the_recovery_of_a_dead_worker_dispatches_the_clean_up_and_calls_the_hooks(url):
    """The sweep that fails the instance also releases what waited for that; nobody has to wait for the grace."""
    heard = []

    class Listening(TriggerManager):
        name = "listening"

        def _post_fire(self, trigger_name, instances):
            heard.append((trigger_name, [instance.name for instance in instances]))

    rules = {**CLEANUP, "t_x": {"after": ["go"], "run": "Hang"}}
    away = Triggers(url, runner=None, manager=Listening, registry=registry)
    session = away.session("s")
    session.update_configuration(rules)
    session.fire("go")
    terms = decisions.Terms(1, crash_budget=0)
    claim = decisions.claim(session.policy, "t_x", 0, "dead", lambda *_: terms)
    assert away.storage.commit("s", claim).claimed  # before another process can run it
    app = Triggers(url, runner="inline", manager=Listening, registry=registry, grace=3600)
    app._sweep.trial = 1
    heard.clear()
    for _ in range(1_000):
        if app.sweep().failed:
            break
        time.sleep(0.01)
    assert session.storage["t_x#0"].status == "failed"
    assert session.storage["t_clean#0"].status == "finished"
    assert heard[0] == ("t_x:failed", ["t_clean#0"])
    app.close()
    away.close()


def test_an_outcome_that_is_too_deep_is_logged(caplog):
    """It is recorded, reaches no task, and an ERROR says so."""
    app = Triggers("memory://", runner=None, registry=registry, limits=Limits(cascade_depth=2))
    session = app.session("s")
    loop = {"t_x": {"andEvery": "t_x:abandoned", "unless": ["stop"], "run": "Note"}}
    first = {"t_x": {"after": ["go", "never"], "unless": ["stop"], "run": "Note"}}
    other = {"t_y": {"after": ["t_x:abandoned"], "run": "Note"}}
    session.apply(decisions.configure(session.policy, rule_set({**first, **other})))
    session.fire("go")
    session.apply(decisions.configure(session.policy, rule_set({**loop, **other})))
    with caplog.at_level(logging.ERROR, "triggers.manager"):
        session.fire("stop")
    said = (
        "session 's': t_x:abandoned was recorded as firing 5 and reached no task, because 3 firings led to it, "
        "more than the limit of 2"
    )
    assert caplog.messages == [said]


@pytest.mark.parametrize(
    ("trigger", "event"),
    [
        ("t_x:failed", "fails"),
        ("t_x:abandoned", "is abandoned"),
        ("t_x:skipped", "is skipped"),
        ("t_x:ended", "ends, in whatever way"),
        ("t_x", "finishes"),
    ],
)
def test_an_explanation_says_which_end_is_awaited(trigger, event):
    """And how the instances of that task are."""
    app = Triggers("memory://", runner=None, registry=registry)
    session = app.session("s")
    session.update_configuration({**CLEANUP, "t_clean": {"after": ["go", trigger], "run": "Note"}})
    sentence = session.storage.explain("t_clean").sentence
    assert f"The trigger {trigger} fires when the task t_x {event}; t_x has no instance yet" in sentence
    session.fire("go")
    assert (
        f"fires when the task t_x {event}; t_x#0 is scheduled" in session.storage.explain("t_clean").sentence
    )


def test_exceptional_tasks_are_not_unresolved_tasks():
    """A clean-up that is not needed does not keep the session open, so it is not in the list of what does."""
    app = Triggers("memory://", runner="inline", registry=registry)
    session = app.session("s")
    session.update_configuration({**CLEANUP, "t_x": {"after": ["go"], "run": "Note"}})
    session.fire("go")
    assert session.storage.get_unresolved_tasks() == []
