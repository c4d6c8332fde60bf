"""Values of ordinary Python code as results and kwargs, and coroutines that do not stop at their timeout."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from dataclasses import dataclass
from decimal import Decimal
from types import MappingProxyType

import pytest
from pydantic import BaseModel

from tests.scenarios.steps import raise_, runs
from triggers.exceptions import IdempotencyConflictError
from triggers.task import task
from triggers.testing.conformance.model import same
from triggers.worker.heartbeat import Heartbeat


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
    task(name="bad", registry=tasks)(lambda context: raise_(getattr(context, signal)(metadata="text")))
    session.update_configuration(runs("bad"))
    session.fire("go")
    check.assert_instance_failed("t_bad#0", "InvalidValueError", match="metadata: must be a mapping")


def test_a_firing_with_the_same_values_in_another_order_is_a_repeat(session):
    """Sets have no order, and that of a mapping's keys is no data, whatever the keys are."""
    words = [f"word {number}" for number in range(50)]
    backwards = words[::-1]
    session.fire("go", {"ids": set(words), "by": {1: {2: "a", None: "b"}, "x": "c"}}, key="k")
    again = session.fire("go", {"by": {"x": "c", 1: {None: "b", 2: "a"}}, "ids": set(backwards)}, key="k")
    assert again.duplicate
    with pytest.raises(IdempotencyConflictError):
        session.fire("go", {"by": {"x": "c", 1: {None: "b", 2: "c"}}, "ids": set(words)}, key="k")


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
        monkeypatch.setattr(Heartbeat, "hold", lambda heartbeat, held: True)


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
