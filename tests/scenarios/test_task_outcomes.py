"""How a task can end: a result, a retry, a skip, a timeout, an error."""

from __future__ import annotations

import asyncio
import math
from datetime import timedelta

import pytest

from tests.scenarios.steps import raise_, runs, until
from triggers import (
    TriggerTask,
    with_context,
)
from triggers.task import task
from triggers.testing.clock import START

MINUTE = timedelta(minutes=1)


# -- asking to run again -------------------------------------------------------------------------------------


def test_a_task_asks_to_run_again(tasks, harness, session, check):
    """Each retry is an instance of its own, runs after its cooldown, and names the one before it as its parent."""
    times = []

    @task(name="retry", registry=tasks)
    def retry(context):
        times.append(harness.clock.time - START)
        if len(times) < 3:
            raise context.retry(ConnectionError("away"), cooldown=MINUTE, metadata={"try": len(times)})
        return {"tries": len(times)}

    session.update_configuration(
        {**runs("retry"), "t_next": {"after": ["t_retry"], "run": "triggers.testing.PassThrough"}}
    )
    session.fire("go")
    harness.run_until_idle()
    assert times == [timedelta(), MINUTE, 2 * MINUTE]
    first = check.assert_instance_replayed("t_retry#0")
    assert first.error["qualified_type"] == first.metadata["exceptionType"] == "builtins.ConnectionError"
    assert first.metadata["try"] == 1
    last = check.assert_instance_finished("t_retry#2", {"tries": 3})
    assert (last.parent, last.depth, last.cooldown) == ("t_retry#1", 2, MINUTE)
    check.assert_instance_finished("t_next#0", {"t_retry": {"tries": 3}})
    check.assert_instance_missing("t_next#1")


@pytest.mark.parametrize(
    ("cooldown", "wait"),
    [(90, 90), (0.5, 0.5), (timedelta(hours=1), 3600), (0, 0), (-5, 0), (timedelta(-1), 0)],
)
def test_a_cooldown_is_seconds_or_a_timedelta(tasks, harness, session, cooldown, wait):
    """A cooldown may be given either way; a negative one is none."""

    @task(name="retry", registry=tasks, max_retries=1)
    def retry(context):
        if context.task_instance.depth:
            return
        raise context.retry(cooldown=cooldown)

    session.update_configuration(runs("retry"))
    session.fire("go")
    assert harness.run_until_idle() == timedelta(seconds=wait)


def test_retries_come_to_an_end(tasks, harness, session, check):
    """One retry more than allowed fails with MaxRetriesExceeded, because of what the task gave as its reason."""

    class Retry(TriggerTask):
        name = "retry"
        max_retries = 2
        registry = tasks

        def _run(self, context):
            raise self.retry(with_context(ConnectionError("away"), {"host": "a.example"}))

    session.update_configuration(runs("retry"))
    session.fire("go")
    failed = check.assert_instance_failed("t_retry#2", "MaxRetriesExceeded", match="after 2 retries")
    assert failed.error["cause"]["type"] == "ConnectionError"
    assert failed.error["cause"]["context"] == {"host": "a.example"}
    check.assert_instance_missing("t_retry#3")
    check.assert_unresolved_instances(["t_retry#2"])


def test_no_retry_may_be_allowed(tasks, session, check):
    """With `max_retries` 0 the first wish fails."""
    task(name="retry", registry=tasks, max_retries=0)(lambda context: raise_(context.retry()))
    session.update_configuration(runs("retry"))
    session.fire("go")
    check.assert_instance_failed("t_retry#0", "MaxRetriesExceeded")


def test_a_replay_by_hand_starts_the_count_anew(tasks, session, check):
    """After a replay by hand the task has all its retries again; the depth goes on counting."""
    task(name="retry", registry=tasks, max_retries=1)(lambda context: raise_(context.retry()))
    session.update_configuration(runs("retry"))
    session.fire("go")
    check.assert_instance_failed("t_retry#1", "MaxRetriesExceeded")
    session.replay_failed_instance("t_retry#1")
    check.assert_instance_replayed("t_retry#2")
    assert check.assert_instance_failed("t_retry#3", "MaxRetriesExceeded").depth == 3


def test_a_retry_may_replace_the_kwargs(tasks, session, check):
    """The next run gets exactly the replacement, over its `withParams`, and so does the one after it."""
    seen = []

    @task(name="retry", registry=tasks)
    def retry(context):
        seen.append((context.trigger_kwargs, context.idempotency_key))
        if len(seen) == 1:
            raise context.retry(replacement_kwargs={"go": {"page": 2}})
        if len(seen) == 2:
            raise context.retry()

    session.update_configuration(runs("retry", withParams={"go": {"page": 0, "size": 9}, "api": {"v": 1}}))
    session.fire("go", {"page": 1, "more": True})
    kwargs = [given for given, _ in seen]
    assert kwargs[0] == {"go": {"page": 1, "size": 9, "more": True}, "api": {"v": 1}}
    assert kwargs[1] == kwargs[2] == {"go": {"page": 2, "size": 9}, "api": {"v": 1}}
    assert check.assert_instance_finished("t_retry#2").kwargs == {"go": {"page": 2}}
    keys = [key for _, key in seen]
    assert keys[0] != keys[1] == keys[2]


@pytest.mark.parametrize(
    "given", [{"replacement_kwargs": {"go": {"x": math.nan}}}, {"metadata": {"x": object()}}]
)
def test_a_retry_with_what_cannot_be_stored_is_a_failure(tasks, session, check, given):
    """Replacement kwargs or metadata that cannot be stored fail the run with the path of the value."""
    task(name="retry", registry=tasks)(lambda context: raise_(context.retry(**given)))
    session.update_configuration(runs("retry"))
    session.fire("go")
    check.assert_instance_failed("t_retry#0", "InvalidValueError", match=r"\.x")


# -- asking to be skipped ------------------------------------------------------------------------------------


def test_a_task_asks_to_be_skipped(tasks, session, check):
    """It ends as skipped, with its metadata and log, and nothing cascades."""

    class Skip(TriggerTask):
        name = "skip"
        registry = tasks

        def _run(self, context):
            with context.get_logger_context() as logger:
                logger.warning("Nothing to do.")
                raise self.skip({"reason": "no need"})

    session.update_configuration({**runs("skip"), "t_next": {"after": ["t_skip"], "run": "skip"}})
    session.fire("go")
    skipped = check.assert_instance_skipped("t_skip#0")
    assert (skipped.metadata["reason"], skipped.result, skipped.error) == ("no need", None, None)
    assert skipped.log_level_name == "WARNING"
    check.assert_instance_missing("t_next#0")
    check.assert_unresolved_tasks(["t_next"])


# -- coroutines and timeouts ---------------------------------------------------------------------------------


def test_a_task_may_be_a_coroutine(tasks, session, check):
    """A class, or a function, whose body is `async` runs to its end, whether or not a loop runs around it."""

    class Async(TriggerTask):
        name = "class"
        registry = tasks

        async def _run(self, context):
            await asyncio.sleep(0)
            return {"n": 1}

    @task(name="function", registry=tasks)
    async def function(context):
        await asyncio.sleep(0)
        raise context.skip()

    session.update_configuration({**runs("class"), **runs("function"), **runs("class", "again")})
    session.fire("go")
    check.assert_instance_skipped("t_function#0")

    async def application():
        session.fire("again")

    asyncio.run(application())
    check.assert_instance_finished("t_class#0", {"n": 1})


def test_a_coroutine_that_takes_too_long_is_cancelled(tasks, session, check):
    """After its timeout a coroutine gets a CancelledError, and its instance fails with TaskTimeoutError."""
    cancelled = []

    @task(name="slow", registry=tasks, timeout=timedelta(milliseconds=20))
    async def slow(context):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            cancelled.append(True)
            raise

    session.update_configuration(runs("slow"))
    session.fire("go")
    check.assert_instance_failed(
        "t_slow#0", "TaskTimeoutError", match="longer than its timeout of 0:00:00.02"
    )
    assert cancelled == [True]


def test_a_timeout_of_ones_own_is_an_error_like_any_other(tasks, session, check):
    """A TimeoutError that the task raises itself stays what it is."""

    @task(name="own", registry=tasks, timeout=timedelta(hours=1))
    async def own(context):
        async with asyncio.timeout(0.001):
            await asyncio.sleep(3600)

    session.update_configuration(runs("own"))
    session.fire("go")
    check.assert_instance_failed("t_own#0", TimeoutError)


def test_a_function_that_takes_too_long_is_failed(tasks, session, check):
    """After its timeout the instance of a plain function is failed; what the function returns later is refused."""
    lost = []

    @task(name="slow", registry=tasks, timeout=timedelta(milliseconds=20))
    def slow(context):
        assert until(lambda: session.storage["t_slow#0"].status == "failed")
        lost.append(context.lease_lost)
        return {"late": True}

    session.update_configuration(runs("slow"))
    session.fire("go")
    failed = check.assert_instance_failed("t_slow#0", "TaskTimeoutError")
    assert (failed.result, lost) == (None, [True])
    assert [remark for _, _, remark in failed.history if remark.startswith("refused a late end")]


# -- bad ends ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [SystemExit(3), MemoryError(), GeneratorExit(), RecursionError("deep"), StopIteration()]
)
def test_no_exception_ends_more_than_its_instance(tasks, session, check, error):
    """Whatever a task raises fails its instance, and the next one runs."""
    task(name="bad", registry=tasks)(lambda context: raise_(error))
    session.update_configuration(
        {**runs("bad"), "t_good": {"after": ["go"], "run": "triggers.testing.PassThrough"}}
    )
    session.fire("go")
    check.assert_instance_failed("t_bad#0", type(error))
    check.assert_instance_finished("t_good#0")


def test_endless_recursion_is_a_failure(tasks, session, check):
    """A task that runs into Python's recursion limit fails like any other."""

    @task(name="deep", registry=tasks)
    def deep(context):
        return deep(context)

    session.update_configuration(runs("deep"))
    session.fire("go")
    check.assert_instance_failed("t_deep#0", RecursionError)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([1, 2], "result: must be a mapping, not a list"),
        ("text", "must be a mapping, not a str"),
        (7, "must be a mapping, not a int"),
        ({"a": {"b": object()}}, r"result\.a\.b"),
        ({"n": math.nan}, r"result\.n"),
        ({1: {2j}}, r"result\[1\]\[2j\]"),
        ({"big": "x" * 2_000_000}, "result"),
    ],
)
def test_a_result_that_cannot_be_stored_is_a_failure(tasks, session, check, result, message):
    """A result that is not a mapping, or cannot be stored, fails the instance with the path of the value; nothing cascades."""
    task(name="bad", registry=tasks)(lambda context: result)
    session.update_configuration({**runs("bad"), "t_next": {"after": ["t_bad"], "run": "bad"}})
    session.fire("go")
    check.assert_instance_failed("t_bad#0", "InvalidValueError", match=message)
    check.assert_instance_missing("t_next#0")


def test_an_error_outside_of_any_block_is_kept_with_its_context(tasks, session, check):
    """The instance has the error's type, message, context, cause and traceback, with or without a logger."""

    @task(name="bad", registry=tasks)
    def bad(context):
        try:
            {}["missing"]
        except KeyError as error:
            raise with_context(ValueError("spam"), {"score": 9}) from error

    session.update_configuration(runs("bad"))
    session.fire("go")
    failed = check.assert_instance_failed("t_bad#0", ValueError)
    assert failed.error["context"] == failed.metadata["exceptionContext"] == {"score": 9}
    assert failed.metadata["exceptionType"] == "builtins.ValueError"
    assert failed.metadata["exceptionInfo"].endswith("ValueError: spam\n")
    assert failed.error["cause"]["type"] == "KeyError"
    assert "in bad" in failed.error["traceback"]
