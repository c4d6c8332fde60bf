"""What a task may do, and what becomes of it, from end to end: through a manager, a runner and a storage."""

from __future__ import annotations

import abc
import asyncio
import math
import threading
from collections import OrderedDict
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from types import MappingProxyType

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from triggers import (
    FinalizingTriggerManager,
    Limits,
    Registry,
    TriggerManager,
    Triggers,
    TriggerTask,
    with_context,
)
from triggers.exceptions import (
    DuplicateTaskError,
    IdempotencyConflictError,
    InvalidKwargsError,
    InvalidStatusError,
    ManagerMismatchError,
    UnknownTaskError,
)
from triggers.worker.heartbeat import Heartbeat
from triggers.runners.inline import InlineRunner
from triggers.storages.memory import MemoryStorage
from triggers.storages.sqlite import SqliteStorage
from triggers.task import task
from triggers.testing import Faults, InjectedCrash, TriggersHarness
from triggers.testing.clock import START
from triggers.testing.conformance.model import same

MINUTE = timedelta(minutes=1)


@pytest.fixture
def tasks():
    return Registry()


@pytest.fixture
def faults():
    return Faults()


@pytest.fixture(params=["memory", "sqlite"])
def harness(request, tasks, faults, tmp_path):
    def storage(clock):
        if request.param == "memory":
            return MemoryStorage(clock=clock)
        return SqliteStorage(f"sqlite:///{tmp_path}/s.db?synchronous=normal", clock=clock)

    with TriggersHarness(registry=tasks, storage=storage, faults=faults, runners=["elsewhere"]) as harness:
        yield harness


@pytest.fixture
def session(harness):
    return harness.session("s")


@pytest.fixture
def check(harness):
    return harness.check("s")


def runs(name, after="go", **more):
    """A configuration of one task, ``t_<name>``, that runs the task of that name."""
    return {f"t_{name}": {"after": [after], "run": name, **more}}


# -- asking to run again --------------------------------------------------------------------------------


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
    assert first.error["type"] == first.metadata["exceptionType"] == "ConnectionError"
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
    task(name="retry", registry=tasks, max_retries=0)(lambda context: _raise(context.retry()))
    session.update_configuration(runs("retry"))
    session.fire("go")
    check.assert_instance_failed("t_retry#0", "MaxRetriesExceeded")


def test_a_replay_by_hand_starts_the_count_anew(tasks, session, check):
    """After a replay by hand the task has all its retries again; the depth goes on counting."""
    task(name="retry", registry=tasks, max_retries=1)(lambda context: _raise(context.retry()))
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
    task(name="retry", registry=tasks)(lambda context: _raise(context.retry(**given)))
    session.update_configuration(runs("retry"))
    session.fire("go")
    check.assert_instance_failed("t_retry#0", "InvalidValueError", match=r"\.x")


# -- asking to be skipped -------------------------------------------------------------------------------


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


# -- coroutines and timeouts ----------------------------------------------------------------------------


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


def caught_and_returned(context):
    return {"late": True}


def caught_and_raised(context):
    message = "while cleaning up"
    raise ValueError(message)


def caught_and_skipped(context):
    raise context.skip()


def caught_and_retried(context):
    raise context.retry()


@pytest.fixture(params=[True, False], ids=["with heartbeat", "without heartbeat"])
def _watched(request, monkeypatch):
    """Once with the heartbeat, which fails the instance itself at its deadline, and once without."""
    if not request.param:
        monkeypatch.setattr(Heartbeat, "hold", lambda heartbeat, held: None)


@pytest.mark.usefixtures("_watched")
@pytest.mark.parametrize(
    "end", [caught_and_returned, caught_and_raised, caught_and_skipped, caught_and_retried]
)
def test_a_coroutine_that_catches_its_cancellation_is_failed(tasks, session, check, end):
    """Whatever it does then, and whether or not the heartbeat has noticed its timeout first."""

    @task(name="stubborn", registry=tasks, timeout=0.02)
    async def stubborn(context):
        try:
            await asyncio.sleep(3600)
        except asyncio.CancelledError:
            return end(context)

    session.update_configuration(runs("stubborn"))
    session.fire("go")
    failed = check.assert_instance_failed("t_stubborn#0", "TaskTimeoutError", match="longer than its timeout")
    assert failed.result is None
    check.assert_instance_missing("t_stubborn#1")


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
        assert _until(lambda: session.storage["t_slow#0"].status == "failed")
        lost.append(context.lease_lost)
        return {"late": True}

    session.update_configuration(runs("slow"))
    session.fire("go")
    failed = check.assert_instance_failed("t_slow#0", "TaskTimeoutError")
    assert (failed.result, lost) == (None, [True])
    assert [remark for _, _, remark in failed.history if remark.startswith("refused a late end")]


# -- bad ends -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [SystemExit(3), MemoryError(), GeneratorExit(), RecursionError("deep"), StopIteration()]
)
def test_no_exception_ends_more_than_its_instance(tasks, session, check, error):
    """Whatever a task raises fails its instance, and the next one runs."""
    task(name="bad", registry=tasks)(lambda context: _raise(error))
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
        ([1, 2], "result: a mapping or None is needed, not a list"),
        ("text", "a mapping or None is needed, not a str"),
        (7, "a mapping or None is needed, not a int"),
        ({"a": {"b": object()}}, r"result\.a\.b"),
        ({"n": math.nan}, r"result\.n"),
        ({1: {2j}}, r"result\[1\]\[2j\]"),
        ({"big": "x" * 2_000_000}, "result"),
    ],
)
def test_a_result_that_cannot_be_stored_is_a_failure(tasks, session, check, result, message):
    """What is no mapping, or cannot be kept, fails the instance with the path of the value; nothing cascades."""
    task(name="bad", registry=tasks)(lambda context: result)
    session.update_configuration({**runs("bad"), "t_next": {"after": ["t_bad"], "run": "bad"}})
    session.fire("go")
    check.assert_instance_failed("t_bad#0", "InvalidValueError", match=message)
    check.assert_instance_missing("t_next#0")


class Answer(BaseModel):
    """What a task may return."""

    text: str
    by: frozenset[int]


@dataclass
class Score:
    """What a task may return."""

    points: OrderedDict[int, Decimal]


@pytest.mark.parametrize(
    ("result", "kept"),
    [
        ({1: (2, {3}), None: OrderedDict(a=Answer(text="x", by=[1]))}, None),
        (Answer(text="x", by=[1, 2]), {"text": "x", "by": frozenset({1, 2})}),
        (Score(OrderedDict({7: Decimal("0.5")})), {"points": {7: Decimal("0.5")}}),
        (MappingProxyType({(1, 2): range(3)}), {(1, 2): [0, 1, 2]}),
    ],
)
def test_a_result_of_ordinary_values_is_passed_on(tasks, session, check, result, kept):
    """Containers that JSON lacks, models and dataclasses reach the next task as the documentation says."""
    seen = []
    task(name="good", registry=tasks)(lambda context: result)
    task(name="next", registry=tasks)(lambda context: seen.append(context.trigger_kwargs["t_good"]))
    session.update_configuration({**runs("good"), **runs("next", "t_good")})
    session.fire("go")
    kept = {1: (2, {3}), None: {"a": {"text": "x", "by": frozenset({1})}}} if kept is None else kept
    assert check.assert_instance_finished("t_good#0").result == kept
    assert [same(one, kept) for one in seen] == [True]


@pytest.mark.parametrize("signal", ["retry", "skip"])
def test_metadata_that_is_no_mapping_is_a_failure(tasks, session, check, signal):
    """A signal with metadata that cannot be read ends its run as failed; it does not stay running."""
    task(name="bad", registry=tasks)(lambda context: _raise(getattr(context, signal)(metadata="text")))
    session.update_configuration(runs("bad"))
    session.fire("go")
    check.assert_instance_failed(
        "t_bad#0", "InvalidValueError", match="metadata: a mapping or None is needed"
    )


def test_a_firing_with_the_same_values_in_another_order_is_a_repeat(session):
    """Sets have no order, and that of a mapping's keys is no data, whatever the keys are."""
    words = [f"word {number}" for number in range(50)]
    backwards = words[::-1]
    session.fire("go", {"ids": set(words), "by": {1: {2: "a", None: "b"}, "x": "c"}}, key="k")
    again = session.fire("go", {"by": {"x": "c", 1: {None: "b", 2: "a"}}, "ids": set(backwards)}, key="k")
    assert again.duplicate
    with pytest.raises(IdempotencyConflictError):
        session.fire("go", {"by": {"x": "c", 1: {None: "b", 2: "c"}}, "ids": set(words)}, key="k")


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
    assert (failed.metadata["exceptionType"], failed.metadata["exceptionInfo"]) == ("ValueError", "spam")
    assert failed.error["cause"]["type"] == "KeyError"
    assert "in bad" in failed.error["traceback"]


# -- firing from within ---------------------------------------------------------------------------------


def test_a_task_fires_through_its_own_manager(tasks, session, check):
    """What a task fires is stored at once, counts as fired by its instance, and runs when the task has ended."""
    seen = []

    @task(name="outer", registry=tasks)
    def outer(context):
        result = context.manager.fire("inner", {"n": 1}, key="once")
        seen.append((result.scheduled, context.manager.storage["t_inner#0"].status, context.manager.uid))
        return {}

    task(name="inner", registry=tasks)(lambda context: dict(context.trigger_kwargs))
    session.update_configuration({**runs("outer"), **runs("inner", "inner")})
    session.fire("go")
    assert seen == [(("t_inner#0",), "scheduled", "s")]
    check.assert_instance_finished("t_inner#0", {"inner": {"n": 1}})
    (firing,) = session.storage._reader.latest("s", ["inner"]).values()
    assert (firing.source, firing.depth) == ("t_outer#0", 1)


def test_tasks_that_fire_each_other_without_end_are_stopped(tasks):
    """A chain of firings longer than the limit fails with CascadeDepthError; it does not go on for ever."""
    task(name="again", registry=tasks)(lambda context: context.manager.fire("go") and None)
    with TriggersHarness(registry=tasks, limits=Limits(cascade_depth=10)) as harness:
        session = harness.session("s")
        session.update_configuration({"t_again": {"andEvery": "go", "run": "again"}})
        session.fire("go")
        harness.check("s").assert_instance_finished("t_again#10")
        harness.check("s").assert_instance_failed("t_again#11", "CascadeDepthError", match="limit of 10")
        harness.check("s").assert_instance_missing("t_again#12")


# -- once, or more often --------------------------------------------------------------------------------


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
    """After as many lost workers as allowed the instance fails with WorkerLost, and can be replayed."""
    task(name="work", registry=tasks)(lambda context: None)
    session.update_configuration(runs("work"))
    _crash_at_work(faults, lambda: session.fire("go"), harness)
    for _ in range(2):
        _crash_at_work(faults, harness.run_until_idle, harness)
    harness.run_until_idle()
    assert check.assert_instance_failed("t_work#0", "WorkerLost", match="lost 3 times").crashes == 3
    harness.session("s").replay_failed_instance("t_work#0")
    check.assert_instance_finished("t_work#1")


@pytest.mark.parametrize("option", [{"on_lost": "fail"}, {"max_crashes": 1}])
def test_a_task_may_refuse_to_be_begun_twice(tasks, faults, harness, check, option):
    """With `on_lost="fail"`, or one crash allowed, the first lost worker fails the instance."""
    session = harness.session("s")
    task(name="work", registry=tasks, **option)(lambda context: None)
    session.update_configuration(runs("work"))
    _crash_at_work(faults, lambda: session.fire("go"), harness)
    harness.run_until_idle()
    assert check.assert_instance_failed("t_work#0", "WorkerLost").attempt == 1


def test_a_task_may_have_a_lease_of_its_own(tasks, faults, harness, session, check):
    """A lost worker is noticed after the task's lease, not after the application's."""
    task(name="work", registry=tasks, lease=timedelta(hours=2))(lambda context: None)
    session.update_configuration(runs("work"))
    _crash_at_work(faults, lambda: session.fire("go"), harness)
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


# -- what a task is given -------------------------------------------------------------------------------


def test_params_lie_under_the_kwargs(tasks, session):
    """`withParams` are merged mapping by mapping under what was fired; the firing wins, and lists are replaced."""
    seen = []
    task(name="work", registry=tasks)(lambda context: seen.append(context.trigger_kwargs))
    params = {"go": {"a": {"x": 1, "y": 2}, "list": [1, 2, 3], "only": True}, "api": {"timeout": 5}}
    session.update_configuration(runs("work", withParams=params))
    session.fire("go", {"a": {"y": 3, "z": 4}, "list": [9], "other": None})
    assert seen == [
        {
            "go": {"a": {"x": 1, "y": 3, "z": 4}, "list": [9], "only": True, "other": None},
            "api": {"timeout": 5},
        }
    ]
    assert session.storage["t_work#0"].kwargs == {"go": {"a": {"y": 3, "z": 4}, "list": [9], "other": None}}


def test_what_a_task_changes_stays_its_own(tasks, session, check):
    """Kwargs and parameters are a run's own copies: what it does to them no other run sees."""

    @task(name="work", registry=tasks)
    def work(context):
        found = [len(context.trigger_kwargs["go"]["list"]), len(context.trigger_kwargs["api"]["list"])]
        context.trigger_kwargs["go"]["list"].append(1)
        context.trigger_kwargs["api"]["list"].append(1)
        return {"found": found}

    session.update_configuration(
        {"t_work": {"andEvery": "go", "run": "work", "withParams": {"api": {"list": []}}}}
    )
    for number in range(2):
        session.fire("go", {"list": []})
        check.assert_instance_finished(f"t_work#{number}", {"found": [0, 0]})
    assert check.assert_instance_finished("t_work#0").kwargs == {"go": {"list": []}}


class Page(BaseModel):
    number: int
    title: str = "untitled"


class StorageSandbox(TypedDict):
    city: str


def test_kwargs_are_checked(tasks, session, check):
    """A pydantic model, a TypedDict and filters make of the kwargs of each trigger what they say."""
    import filters as f

    made = {}

    @task(name="work", registry=tasks)
    def work(context):
        made.update(
            context.filter_kwargs(
                {"page": Page, "place": StorageSandbox, "person": {"name": f.Required | f.Unicode | f.Strip}}
            )
        )

    session.update_configuration({"t_work": {"after": ["page", "place", "person"], "run": "work"}})
    session.fire("page", {"number": "7"})
    session.fire("place", {"city": "Oslo"})
    session.fire("person", {"name": " Ann "})
    check.assert_instance_finished("t_work#0")
    assert made == {"page": Page(number=7), "place": {"city": "Oslo"}, "person": {"name": "Ann"}}


def test_every_problem_of_the_kwargs_is_told(tasks, session, check):
    """Kwargs that are refused fail with InvalidKwargsError, whose context has each problem by its path."""
    import filters as f

    @task(name="work", registry=tasks)
    def work(context):
        context.filter_kwargs({"page": Page, "person": {"name": f.Required}, "never": StorageSandbox})

    session.update_configuration({"t_work": {"after": ["page", "person"], "run": "work"}})
    session.fire("page", {"number": "seven", "title": 1})
    session.fire("person", {"name": ""})
    failed = check.assert_instance_failed("t_work#0", InvalidKwargsError)
    assert set(failed.error["context"]["problems"]) == {
        "page.number",
        "page.title",
        "person.name",
        "never.city",
    }


# -- the configuration changes --------------------------------------------------------------------------


def test_a_removed_task(tasks, session, check):
    """A failed instance of a removed task can be skipped, not replayed; its finished ones stay to be seen."""
    task(name="work", registry=tasks)(lambda context: _raise(ValueError()))
    session.update_configuration(runs("work"))
    session.fire("go")
    session.update_configuration({})
    with pytest.raises(UnknownTaskError, match="t_work: is no longer in the configuration"):
        session.replay_failed_instance("t_work#0")
    assert not check.assert_instance_failed("t_work#0").can_replay
    session.skip_failed_instance("t_work#0")
    check.assert_instance_skipped("t_work#0")


def test_a_scheduled_instance_of_a_removed_task_fails(tasks, harness, session, check):
    """An instance that waits for its time when its task is removed fails by name."""
    task(name="work", registry=tasks)(lambda context: _raise(context.retry(cooldown=60)))
    session.update_configuration(runs("work"))
    session.fire("go")
    session.update_configuration({})
    harness.advance(MINUTE)
    check.assert_instance_failed(
        "t_work#1", UnknownTaskError, match="t_work: is no longer in the configuration"
    )


def test_a_replay_runs_what_is_configured_now(tasks, session, check):
    """Rules are not copied into instances: mend the configuration, then replay."""
    task(name="broken", registry=tasks)(lambda context: _raise(ValueError()))
    task(name="mended", registry=tasks)(lambda context: dict(context.trigger_kwargs))
    session.update_configuration({"t_x": {"after": ["go"], "run": "broken"}})
    session.fire("go", {"n": 1})
    session.update_configuration({"t_x": {"after": ["go"], "run": "mended", "withParams": {"go": {"m": 2}}}})
    new = session.replay_failed_instance("t_x#0")
    assert (new.name, new.parent) == ("t_x#1", "t_x#0")
    check.assert_instance_finished("t_x#1", {"go": {"n": 1, "m": 2}})
    with pytest.raises(InvalidStatusError, match="t_x#0 is replayed"):
        session.replay_failed_instance("t_x#0")


def test_a_replay_may_replace_the_kwargs(tasks, session, check):
    """The new instance gets exactly the replacement."""
    task(name="work", registry=tasks)(lambda context: {}[context.trigger_kwargs["go"]["key"]])
    session.update_configuration(runs("work"))
    session.fire("go", {"key": 1, "more": 2})
    session.replay_failed_instance("t_work#0", {"go": {"key": 3}})
    assert check.assert_instance_failed("t_work#1", KeyError, match="3").kwargs == {"go": {"key": 3}}


def test_a_skip_may_cascade(tasks, session, check):
    """A person gives an instance up, and may fire its task's name with a result, as if it had finished."""
    task(name="work", registry=tasks)(lambda context: _raise(ValueError()))
    session.update_configuration(
        {**runs("work"), "t_next": {"after": ["t_work"], "run": "triggers.testing.PassThrough"}}
    )
    session.fire("go")
    with pytest.raises(ValueError, match="has no effect without cascade=True"):
        session.skip_failed_instance("t_work#0", result={"n": 1})
    session.skip_failed_instance("t_work#0", cascade=True, result={"n": 1})
    check.assert_instance_skipped("t_work#0")
    check.assert_instance_finished("t_next#0", {"t_work": {"n": 1}})


# -- processes that differ ------------------------------------------------------------------------------


def test_a_worker_without_the_task_gives_it_back(tasks):
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


class Other(TriggerManager):
    name = "other"


def test_a_session_belongs_to_its_manager(tasks):
    """A process with another manager may read the session; changing it is an error that names both."""
    storage = MemoryStorage()
    with Triggers(storage, runner="inline", manager=Other, registry=tasks) as triggers:
        triggers.session("s").fire("go")
    with Triggers(storage, runner="inline", registry=tasks) as triggers:
        session = triggers.session("s")
        assert session.storage.latest_kwargs("go") == {}
        for change in (
            lambda: session.fire("go"),
            lambda: session.update_configuration({}),
            lambda: session.update_session_metadata({}),
        ):
            with pytest.raises(
                ManagerMismatchError, match="belongs to manager 'other', and this is 'default'"
            ):
                change()
        with pytest.raises(ManagerMismatchError, match="which this process lacks"):
            triggers.existing_session("s")
    with Triggers(storage, runner="inline", managers=[Other], registry=tasks) as triggers:
        assert type(triggers.existing_session("s")) is Other


# -- hooks ----------------------------------------------------------------------------------------------


class Hooked(TriggerManager):
    name = "hooked"
    calls: list = []  # noqa: RUF012 - shared by the managers of one test
    raises = ""

    def _post_fire(self, name, tasks_scheduled):
        self.calls.append(("fire", name, [instance.name for instance in tasks_scheduled]))
        if self.raises == name:
            raise LookupError("a hook")

    def _post_replay(self, instance):
        self.calls.append(("replay", instance.name, instance.metadata["parent"]))

    def _post_skip(self, instance, cascade):
        self.calls.append(("skip", instance.name, cascade))
        if self.raises == "skip":
            raise LookupError("a hook")


@pytest.fixture
def hooked(tasks, monkeypatch):
    monkeypatch.setattr(Hooked, "calls", [])
    with TriggersHarness(registry=tasks, manager=Hooked) as harness:
        yield harness


def test_hooks_are_called_in_order(tasks, hooked):
    """After each firing, cascades too, with what it released; after a replay with the new one; after a skip."""
    task(name="bad", registry=tasks)(lambda context: _raise(ValueError()))
    task(name="good", registry=tasks)(lambda context: None)
    session = hooked.session("s")
    session.update_configuration(
        {
            **runs("good"),
            **runs("bad"),
            "t_next": {"after": ["t_good"], "run": "good"},
            "t_last": {"after": ["t_bad"], "run": "good"},
        }
    )
    session.fire("go")
    assert Hooked.calls == [
        ("fire", "go", ["t_good#0", "t_bad#0"]),
        ("fire", "t_good", ["t_next#0"]),
        ("fire", "t_next", []),
    ]
    Hooked.calls.clear()
    session.replay_failed_instance("t_bad#0")
    assert Hooked.calls == [("replay", "t_bad#1", "t_bad#0")]
    Hooked.calls.clear()
    session.skip_failed_instance("t_bad#1", cascade=True)
    assert Hooked.calls == [
        ("fire", "t_bad", ["t_last#0"]),
        ("skip", "t_bad#1", True),
        ("fire", "t_last", []),
    ]


def test_a_repeat_calls_no_hook(tasks, hooked):
    """A firing that was a repeat did nothing, so no hook hears of it."""
    session = hooked.session("s")
    session.fire("go", key="k")
    session.fire("go", key="k")
    assert Hooked.calls == [("fire", "go", [])]


def test_a_hook_that_raises_harms_nothing(tasks, hooked, monkeypatch, caplog):
    """Its exception reaches the caller, or the log where a worker called it; what was committed is committed and runs."""
    task(name="good", registry=tasks)(lambda context: None)
    session = hooked.session("s")
    session.update_configuration({**runs("good"), "t_next": {"after": ["t_good"], "run": "good"}})
    monkeypatch.setattr(Hooked, "raises", "go")
    with pytest.raises(LookupError, match="a hook"):
        session.fire("go")
    hooked.check("s").assert_instance_finished("t_next#0")
    monkeypatch.setattr(Hooked, "raises", "t_good")
    session = hooked.session("other")
    session.update_configuration({**runs("good"), "t_next": {"after": ["t_good"], "run": "good"}})
    session.fire("go")
    hooked.check("other").assert_instance_finished("t_good#0")
    hooked.check("other").assert_instance_finished("t_next#0")
    assert "a hook of session 'other' raised after t_good#0 had ended" in caplog.text


# -- finalising -----------------------------------------------------------------------------------------


class Careful(FinalizingTriggerManager):
    name = "careful"
    finalize_max_level = 30


def test_a_session_is_finalised_once(tasks):
    """The last task's end fires `sessionFinalized`, which releases the tasks that wait for it, once."""
    task(name="work", registry=tasks)(lambda context: None)
    with TriggersHarness(registry=tasks, manager=FinalizingTriggerManager) as harness:
        session, check = harness.session("s"), harness.check("s")
        session.update_configuration(
            {
                **runs("work", "a"),
                "t_b": {"andEvery": "b", "run": "work"},
                "t_end": {"after": ["sessionFinalized"], "run": "work"},
            }
        )
        assert not session.fire("a").finalized
        check.assert_not_finalized()
        check.assert_instance_missing("t_end#0")
        session.fire("b")
        check.assert_finalized()
        check.assert_instance_finished("t_end#0")
        assert session.fire("b").finalized
        check.assert_instance_finished("t_b#1")
        check.assert_instance_missing("t_end#1")


def test_warnings_hold_a_session_open_until_they_are_resolved(tasks):
    """With `finalize_max_level` a finished instance with a warning holds the session; resolving it lets it go."""

    @task(name="warn", registry=tasks)
    def warn(context):
        with context.get_logger_context() as logger:
            logger.warning("odd")

    task(name="work", registry=tasks)(lambda context: None)
    with TriggersHarness(registry=tasks, manager=Careful) as harness:
        session, check = harness.session("s"), harness.check("s")
        session.update_configuration(
            {**runs("warn"), **runs("work"), "t_end": {"after": ["sessionFinalized"], "run": "work"}}
        )
        session.fire("go")
        check.assert_unresolved_tasks(["t_end"])
        check.assert_unresolved_logs(["t_warn#0"])
        check.assert_not_finalized()
        session.mark_instance_logs_resolved("t_warn#0", by="Ann")
        check.assert_no_unresolved_logs()
        check.assert_finalized()
        check.assert_instance_finished("t_end#0")


# -- async applications ---------------------------------------------------------------------------------


def test_async_applications_await_the_same(tasks):
    """Each method that changes a session has a sibling to be awaited, which does the same."""
    fail = [True]
    task(name="work", registry=tasks)(lambda context: _raise(ValueError()) if fail else None)

    async def application(session):
        await session.aupdate_configuration({"t_work": {"andEvery": "go", "run": "work"}})
        fired = await asyncio.gather(*(session.afire("go", {"n": 1}, key="once") for _ in range(5)))
        assert sorted(result.duplicate for result in fired) == [False, True, True, True, True]
        new = await session.areplay_failed_instance("t_work#0", {"go": {"n": 2}})
        await session.askip_failed_instance(new)
        await session.amark_instance_logs_resolved("t_work#0", by="Ann")
        return new

    with TriggersHarness(registry=tasks) as harness:
        new = asyncio.run(application(harness.session("s")))
        skipped = harness.check("s").assert_instance_skipped(new.name)
        assert skipped.kwargs == {"go": {"n": 2}}
        assert harness.check("s").assert_instance_replayed("t_work#0").log_reviews[0]["by"] == "Ann"


# -- how tasks are written ------------------------------------------------------------------------------


def test_tasks_are_found_by_name(tasks):
    """A task is named after its module and class or function unless it has a name of its own."""

    class Plain(TriggerTask):
        registry = tasks

        def _run(self, context):
            return None

    @task(registry=tasks)
    def function(context):
        return None

    @task(name="a name", registry=tasks)
    def other(context):
        return {"n": 1}

    assert set(tasks) == {f"{__name__}.Plain", f"{__name__}.function", "a name"}
    assert other(None) == {"n": 1}


def test_bases_are_no_tasks(tasks):
    """A class without a body, or an abstract one, is not registered; those made from it are."""

    class Base(TriggerTask):
        registry = tasks
        max_retries = 7

    class Abstract(Base, abc.ABC):
        @abc.abstractmethod
        def _run(self, context): ...

    class Real(Abstract):
        def _run(self, context):
            return None

    assert set(tasks) == {f"{__name__}.Real"}
    assert tasks.get(f"{__name__}.Real").max_retries == 7


def test_a_family_of_tasks_has_something_around_every_run(tasks, session, check):
    """What overrides `run` lies around the `_run` of every task of the family."""

    class Around(TriggerTask):
        registry = tasks

        def run(self, context):
            return {**super().run(context), "around": True}

    class Inside(Around):
        name = "inside"

        def _run(self, context):
            return {"inside": True}

    session.update_configuration(runs("inside"))
    session.fire("go")
    check.assert_instance_finished("t_inside#0", {"inside": True, "around": True})


def test_two_tasks_of_one_name_are_an_error(tasks):
    """A second task under a name that is taken is refused, and the first one stays."""

    class First(TriggerTask):
        name = "same"
        registry = tasks

        def _run(self, context):
            return None

    with pytest.raises(DuplicateTaskError, match="'same'"):

        class Second(TriggerTask):
            name = "same"
            registry = tasks

            def _run(self, context):
                return None

    assert type(tasks.get("same")) is First


def _raise(error):
    raise error


def _crash_at_work(faults, step, harness):
    """Let the process die in the midst of a task."""
    faults.die_at("before commit of finish")
    with pytest.raises(InjectedCrash):
        step()
    harness.restart()


def _until(holds):
    """Wait for what another thread does and tells nobody about."""
    waiting = threading.Event()
    for _ in range(3_000):
        if holds():
            return True
        waiting.wait(0.01)
    return False
