"""What a task can do, written as version 2 documents it."""

from __future__ import annotations

import pickle
import socket
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from triggers.exceptions import context_of, with_context
from triggers.task import MaxRetriesExceeded, TaskRequest, TriggerTask, task
from triggers.testing import TriggersHarness


@pytest.fixture
def harness(tasks):
    with TriggersHarness(registry=tasks, allow_failures=True) as harness:
        yield harness


@pytest.fixture
def run(harness):
    """Run the task `app.Task` until nothing is left to do, and return the session's view."""

    def run_(kwargs=None):
        session = harness.session("s")
        session.update_configuration({"t_x": {"after": ["go"], "run": "app.Task"}})
        session.fire("go", kwargs)
        harness.run_until_idle()
        return session.storage

    return run_


# -- retries ---------------------------------------------------------------------------------------------


def test_retry_takes_exc_metadata_replacement_kwargs_and_cooldown(run, tasks):
    """In that order, and by name; the cooldown is in seconds."""

    class Task(TriggerTask):
        name = "app.Task"
        registry = tasks

        def _run(self, context):
            if self.request.retries == 0:
                raise self.retry(ValueError("away"), {"host": "a.example"}, {"go": {"try": 1}}, 10)
            if self.request.retries == 1:
                raise self.retry(exc=ValueError("gone"), cooldown=20)
            return context.trigger_kwargs

    storage = run({"try": 0})
    assert [instance.status for instance in storage] == ["replayed", "replayed", "finished"]
    first, second, third = storage
    assert (first.metadata["host"], first.metadata["exceptionType"]) == ("a.example", "builtins.ValueError")
    assert [instance.metadata.get("cooldown") for instance in storage] == [None, 10, 20]
    assert second.metadata["actualKwargs"] == third.result == {"go": {"try": 1}}


def test_a_retry_without_a_cooldown_is_due_at_once(run, tasks, harness):
    """The default is None."""

    @task(name="app.Task", registry=tasks, max_retries=1)
    def again(context):
        if context.request.retries:
            return {"retries": context.request.retries}
        raise context.retry(cooldown=None)

    before = harness.clock.time
    assert run()["t_x#1"].result == {"retries": 1}
    assert harness.clock.time == before


@pytest.mark.parametrize("kind", ["class", "function"])
def test_too_many_retries_are_raised_by_retry_itself(run, tasks, kind):
    """The task can catch that, and give up in its own way."""

    def give_up(self, context):
        try:
            raise self.retry(exc=ConnectionError("away"))
        except MaxRetriesExceeded as exceeded:
            return {"gaveUp": str(exceeded), "because": str(exceeded.__cause__)}

    if kind == "class":
        type(
            "Task", (TriggerTask,), {"name": "app.Task", "registry": tasks, "max_retries": 2, "_run": give_up}
        )
    else:
        task(name="app.Task", registry=tasks, max_retries=2)(lambda context: give_up(context, context))
    storage = run()
    assert [instance.status for instance in storage] == ["replayed", "replayed", "finished"]
    assert storage["t_x#2"].result == {
        "gaveUp": "another retry was requested after 2 retries; max_retries is 2",
        "because": "away",
    }


def test_too_many_retries_fail_the_instance(run, tasks):
    """As MaxRetriesExceeded, because of the last reason, with the metadata of the refused retry."""

    @task(name="app.Task", registry=tasks, max_retries=1)
    def always(context):
        raise context.retry(ConnectionError("away"), {"host": "a.example"})

    failed = run()["t_x#1"]
    assert failed.status == "failed"
    assert failed.metadata["exceptionType"] == "triggers.exceptions.MaxRetriesExceeded"
    assert failed.metadata["exceptionContext"] == {"replay_metadata": {"host": "a.example"}}
    assert "ConnectionError: away" in failed.metadata["exceptionInfo"]


def test_a_retry_from_another_thread_is_counted_too(run, tasks):
    """There, `self.retry` does not know the run; the instance fails all the same after the last retry."""

    @task(name="app.Task", registry=tasks, max_retries=1)
    def outside(context):
        with ThreadPoolExecutor(1) as pool:
            raise pool.submit(TriggerTask().retry, ValueError("away")).result()

    failed = run()["t_x#1"]
    assert (failed.status, failed.error["type"]) == ("failed", "MaxRetriesExceeded")


# -- the request -----------------------------------------------------------------------------------------


def test_a_task_has_a_request(run, tasks):
    """`retries`, `id` and `hostname`; each run has an id of its own."""
    seen = []

    class Task(TriggerTask):
        name = "app.Task"
        registry = tasks

        def _run(self, context):
            seen.append(self.request)
            if self.request.retries < 2:
                raise self.retry()

    run()
    assert [request.retries for request in seen] == [0, 1, 2]
    assert {request.hostname for request in seen} == {socket.gethostname()}
    assert len({request.id for request in seen} - {None, ""}) == 3


def test_a_coroutine_has_a_request(run, tasks):
    """It is the same as that of the context."""

    class Task(TriggerTask):
        name = "app.Task"
        registry = tasks

        async def _run(self, context):
            return {"same": self.request == context.request, "retries": self.request.retries}

    assert run()["t_x#0"].result == {"same": True, "retries": 0}


def test_a_request_belongs_to_its_run(run, tasks, harness):
    """A task that runs within another one has its own; the outer one has its own again afterwards."""

    class Task(TriggerTask):
        name = "app.Task"
        registry = tasks

        def _run(self, context):
            if context.task_instance.task == "t_inner":
                return {"id": self.request.id}
            before = self.request
            inner = harness.session("inner")
            inner.update_configuration({"t_inner": {"after": ["go"], "run": "app.Task"}})
            inner.fire("go")
            return {"same": self.request == before, "id": before.id}

    result = run()["t_x#0"].result
    assert result["same"]
    assert harness.session("inner").storage["t_inner#0"].result["id"] != result["id"]


def test_without_a_run_the_request_is_empty():
    """As with a Celery task that is called directly."""
    assert TriggerTask().request == TaskRequest(retries=0, id=None, hostname=None)


# -- a cooldown -----------------------------------------------------------------------------------------


def test_a_cooldown_can_be_a_timedelta(run, tasks, harness):
    """Beside the documented seconds."""

    @task(name="app.Task", registry=tasks, max_retries=1)
    def once(context):
        if not context.request.retries:
            raise context.retry(cooldown=timedelta(minutes=1))

    before = harness.clock.time
    run()
    assert harness.clock.time - before >= timedelta(minutes=1)


# -- the context of an exception -------------------------------------------------------------------------


def test_an_exception_with_context_has_it_as_an_attribute():
    """`context` is the mapping, merged over several calls; it survives a pickle."""
    error = with_context(exc=ValueError("spam"), context={"spam_score": 3})
    assert error.context == {"spam_score": 3}
    assert with_context(error, {"threshold": 5}) is error
    assert error.context == {"spam_score": 3, "threshold": 5}
    again = pickle.loads(pickle.dumps(error))
    assert again.context == error.context
    assert with_context(again, {"more": 1}).context == {"spam_score": 3, "threshold": 5, "more": 1}


class OwnContextError(Exception):
    """An exception whose class has a `context` of its own, as jsonschema's."""

    context = ()


def test_an_exception_keeps_a_context_of_its_own():
    """Of its class, or of the exception itself; ours is stored all the same."""
    assert with_context(OwnContextError(), {"a": 1}).context == ()
    own = ValueError("spam")
    own.context = "mine"
    assert with_context(with_context(own, {"a": 1}), {"b": 2}).context == "mine"
    assert context_of(own) == {"a": 1, "b": 2}
