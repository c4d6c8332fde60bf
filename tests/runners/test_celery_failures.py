"""What Celery learns of an instance that failed: that its task failed, and nothing that it could act on.

Looked at: every way in which Celery acts on an exception of a task (retrying, rejecting, ignoring, ending the worker,
delivering again, raising to the caller where it is eager).
"""

from __future__ import annotations

import pickle  # noqa: TID251 - as the pool of a worker does
import secrets
from contextlib import contextmanager

import pytest
from celery import signals
from celery.exceptions import Ignore, Reject, Retry

from tests.runners.celery_app import make_app
from triggers import Registry, Triggers, task
from triggers.exceptions import InstanceFailedError
from triggers.runners.celery import CeleryRunner
from triggers.storages.memory import MemoryStorage

RULES = {f"t_{run}": {"andEvery": run, "run": run} for run in ("bad", "fine", "again", "skip")}
RAISED = [ValueError("spam"), Reject("no", requeue=True), Ignore(), Retry(), SystemExit(3), MemoryError()]


@pytest.fixture
def app():
    app = make_app("memory://", f"t{secrets.token_hex(4)}")
    app.conf.task_always_eager = True
    return app


@pytest.fixture
def registry():
    return Registry()


@pytest.fixture
def raised(registry):
    """What the task raises; a test may replace it."""
    raised = [ValueError("spam")]

    @task(name="bad", registry=registry)
    def bad(context):
        raise raised[0]

    @task(name="fine", registry=registry)
    def fine(context):
        return {}

    @task(name="again", registry=registry)
    def again(context):
        if not context.task_instance.depth:
            raise context.retry(ValueError("no answer"))
        return {}

    @task(name="skip", registry=registry)
    def skip(context):
        raise context.skip()

    return raised


@pytest.fixture
def make(app, registry, raised):
    """Makes a session whose tasks run through Celery, in the calling thread."""
    made = []

    def make(**settings):
        triggers = Triggers(MemoryStorage(), runner=CeleryRunner(app, **settings), registry=registry)
        made.append(triggers)
        session = triggers.session("s")
        session.update_configuration(RULES)
        return session

    yield make
    for triggers in made:
        triggers.close(0)


@contextmanager
def told():
    """The signals about tasks that Celery sends."""
    seen = []

    def failed(sender, exception, **_):
        seen.append((sender.name, exception))

    def succeeded(sender, **_):
        seen.append((sender.name, None))

    def acted(sender, **_):
        seen.append((sender.name, "acted"))

    signals.task_failure.connect(failed)
    signals.task_success.connect(succeeded)
    for signal in (signals.task_retry, signals.task_rejected, signals.task_revoked):
        signal.connect(acted)
    try:
        yield seen
    finally:
        for signal, receiver in (
            (signals.task_failure, failed),
            (signals.task_success, succeeded),
            (signals.task_retry, acted),
            (signals.task_rejected, acted),
            (signals.task_revoked, acted),
        ):
            signal.disconnect(receiver)


@pytest.mark.parametrize("error", RAISED, ids=lambda error: type(error).__name__)
def test_a_failed_instance_is_a_failed_celery_task(make, raised, error):
    """With an error that names both; whatever the task has raised, it is nothing that Celery acts on."""
    raised[0] = error
    session = make()
    with told() as seen:
        session.fire("bad")
    ((name, exception),) = seen
    assert (name, exception.uid, exception.instance) == ("bad", "s", "t_bad#0")
    assert exception.kind == type(error).__name__
    assert str(exception).startswith(f"t_bad#0 of session 's' failed: {exception.kind}")
    assert session.storage["t_bad#0"].status == "failed"


@pytest.mark.parametrize(("run", "times"), [("fine", 1), ("again", 2), ("skip", 1)])
def test_other_ends_are_successes(make, run, times):
    """A result, a retry and a skip: the message was processed."""
    session = make()
    with told() as seen:
        session.fire(run)
    assert seen == [(run, None)] * times


def test_it_can_be_switched_off(make):
    """Then every message that was processed is a success."""
    session = make(report_failures=False)
    with told() as seen:
        session.fire("bad")
    assert seen == [("bad", None)]
    assert session.storage["t_bad#0"].status == "failed"


def test_celery_does_not_retry_it(app, make):
    """Though `autoretry_for` names every exception: there is one message and one run."""
    session = make()
    app.tasks["bad"].carrier.bind("bad", autoretry_for=(Exception,), retry_kwargs={"max_retries": 3})
    with told() as seen:
        session.fire("bad")
    assert [(name, type(error)) for name, error in seen] == [("bad", InstanceFailedError)]
    assert session.storage["t_bad#0"].stored.attempt == 1


def test_fire_does_not_raise_it(app, make, caplog):
    """Where Celery is eager and propagates: what was fired is stored, and its failure logged once."""
    app.conf.task_eager_propagates = True
    session = make()
    assert session.fire("bad").scheduled == ("t_bad#0",)
    assert session.storage["t_bad#0"].status == "failed"
    assert [record.getMessage() for record in caplog.records if record.levelname == "ERROR"] == [
        "ValueError: spam"
    ]


def test_the_error_can_be_pickled():
    """A child of the pool sends it to the worker's main process."""
    error = pickle.loads(pickle.dumps(InstanceFailedError("s", "t#0", "ValueError", "")))  # noqa: S301 - our own
    assert (error.uid, error.instance, error.kind, error.text) == ("s", "t#0", "ValueError", "")
    assert str(error) == "t#0 of session 's' failed: ValueError"
