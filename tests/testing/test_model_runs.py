"""How an instance runs, fails and runs again in the reference model."""

from __future__ import annotations

import pytest

from tests.testing.modeling import crash, failed, fire_all, retried, run, session, statuses, task
from triggers.testing.conformance.model import (
    SECOND,
    Model,
    ModelStatusError,
)

# -- running -------------------------------------------------------------------------------------------------


def test_a_claim_needs_a_scheduled_instance_that_is_due():
    """Only what is scheduled and due can be claimed, and only once."""
    model = session({"t": task("a", "b")}, now=100)
    model.fire("a")
    assert model.claim("t#0") is None
    model.advance(11)
    model.fire("b")
    assert model.instances["t#0"].run_at == 111
    assert model.claim("t#0") == 1
    assert model.claim("t#0") is None
    assert (model.instances["t#0"].status, model.instances["t#0"].attempt) == ("running", 1)


def test_finishing_cascades_in_the_same_step():
    """A finished instance fires its task's name, with its result as kwargs."""
    model = session({"t": task("a"), "u": task("t")})
    model.fire("a")
    run(model, "t#0", {"id": 7})
    assert (model.instances["t#0"].status, model.instances["t#0"].result) == ("finished", {"id": 7})
    assert model.instances["u#0"].kwargs == {"t": {"id": 7}}
    assert [(f.trigger, f.cause) for f in model.firings] == [("a", None), ("t", "t#0")]
    assert model.last_step[0].scheduled == ("u#0",)


def test_no_result_cascades_as_empty_kwargs():
    """None is recorded as the result, and the cascade carries nothing."""
    model = session({"t": task("a"), "u": task("t")})
    model.fire("a")
    run(model, "t#0")
    assert (model.instances["t#0"].result, model.instances["u#0"].kwargs) == (None, {"t": {}})


def test_a_task_can_listen_to_each_finish_of_another():
    """A cascade is a firing like any other, also for `andEvery` and `unless`."""
    model = session(
        {"t": {"andEvery": "a", "run": "r"}, "u": {"andEvery": "t", "run": "r"}, "v": task("z", unless=["t"])}
    )
    fire_all(model, "a", "a")
    run(model, "t#0")
    run(model, "t#1")
    assert statuses(model) == {
        "t#0": "finished",
        "t#1": "finished",
        "u#0": "scheduled",
        "u#1": "scheduled",
        "v#0": "abandoned",
    }


@pytest.mark.parametrize("end", [Model.fail, Model.skip_running])
def test_failing_and_skipping_do_not_cascade(end):
    """Only a finish fires the task's name by itself."""
    model = session({"t": task("a"), "u": task("t")})
    model.fire("a")
    fence = model.claim("t#0")
    assert end(model, "t#0", fence, "boom") if end is Model.fail else end(model, "t#0", fence)
    assert len(model.firings) == 1
    assert statuses(model) == {"t#0": "failed" if end is Model.fail else "skipped"}
    assert model.instances["t#0"].error == ("boom" if end is Model.fail else None)


GHOSTS = {
    "finish": lambda model, fence: model.finish("t#0", fence, {}),
    "fail": lambda model, fence: model.fail("t#0", fence, "boom"),
    "retry": lambda model, fence: model.retry("t#0", fence, 0, 9),
    "skip": lambda model, fence: model.skip_running("t#0", fence),
    "release": lambda model, fence: model.release("t#0", fence),
}


@pytest.mark.parametrize("step", GHOSTS.values(), ids=GHOSTS)
def test_a_ghost_is_refused(step):
    """Whoever lost the lease changes nothing: not while the instance waits, runs elsewhere, or is done."""
    model = session({"t": task("a"), "u": task("t")})
    model.fire("a")
    stale = model.claim("t#0")
    model.expire("t#0")
    waiting = model.snapshot()
    assert not step(model, stale)
    assert not step(model, stale + 1)
    assert model.snapshot() == waiting
    model.advance(SECOND)
    fence = model.claim("t#0")
    assert fence == 3
    running = model.snapshot()
    assert not step(model, stale)
    assert not step(model, fence + 1)
    assert model.snapshot() == running
    assert model.finish("t#0", fence)
    done = model.snapshot()
    assert not step(model, fence)
    assert model.snapshot() == done


def test_a_release_counts_no_crash():
    """A given back instance is due at once, or after the delay asked for, under a new fence."""
    model = session({"t": task("a")}, now=10)
    model.fire("a")
    model.advance(5)
    assert model.release("t#0", model.claim("t#0"))
    instance = model.instances["t#0"]
    assert (instance.status, instance.fence, instance.attempt, instance.crashes, instance.run_at) == (
        "scheduled",
        2,
        1,
        0,
        15,
    )
    model.release("t#0", model.claim("t#0"), delay=7)
    assert (instance.fence, instance.attempt, instance.run_at) == (4, 2, 22)
    assert model.claim("t#0") is None
    model.advance(7)
    assert model.claim("t#0") == 5


def test_crashes_back_off_and_then_fail():
    """Each crash waits longer; two are not charged, and the one that uses up the budget fails it as lost."""
    model = session({"t": task("a")})
    model.fire("a")
    instance = model.instances["t#0"]
    for crashes, backoff in ((1, 1_000_000), (2, 10_000_000)):
        crash(model, "t#0")
        assert (instance.status, instance.crashes, instance.run_at) == (
            "scheduled",
            crashes,
            model.now + backoff,
        )
        assert instance.fence == 2 * crashes
    for _ in range(3):
        crash(model, "t#0")
    assert (instance.status, instance.crashes, instance.attempt, instance.fence) == ("failed", 5, 5, 10)
    assert instance.charged == 3
    assert instance.error == "WorkerLost"
    assert not model.expire("t#0")


def test_the_last_back_off_holds_for_all_later_crashes():
    """Where the budget is larger than the list of back-offs, its last entry is used again."""
    short, usual = (
        session({"t": task("a")}, max_crashes=9, crash_backoff=(1, 2)),
        session({"t": task("a")}, max_crashes=9),
    )
    for model, backoffs in (short, (1, 2, 2, 2)), (usual, (1_000_000, 10_000_000, 60_000_000, 60_000_000)):
        model.fire("a")
        for backoff in backoffs:
            crash(model, "t#0")
            assert model.instances["t#0"].run_at == model.now + backoff


def test_a_task_may_fail_at_its_first_crash():
    """Where a lost run must not be repeated, the first crash fails it."""
    model = session({"t": task("a")})
    model.fire("a")
    model.claim("t#0")
    assert model.expire("t#0", fail_at_once=True)
    assert (model.instances["t#0"].status, model.instances["t#0"].fence) == ("failed", 2)


def test_the_clock_does_not_go_back():
    """Time only moves forward."""
    model = Model(now=5)
    with pytest.raises(ValueError, match="back by 1"):
        model.advance(-1)
    model.advance(0)
    assert model.now == 5


# -- replay, skip, retry -------------------------------------------------------------------------------------


def test_a_replay_is_a_new_instance_with_the_same_kwargs():
    """The old instance is replayed; the new one has the next number and knows where it comes from."""
    model = session({"t": {"andEvery": "a", "run": "r"}, "u": task("t")}, now=10)
    model.fire("a", {"n": 1})
    model.fire("a", {"n": 2})
    failed(model, "t#0")
    model.advance(5)
    assert model.replay("t#0") == "t#2"
    new = model.instances["t#2"]
    assert statuses(model) == {"t#0": "replayed", "t#1": "scheduled", "t#2": "scheduled"}
    assert (new.kwargs, new.taken, new.run_at) == ({"a": {"n": 1}}, {"a": 1}, 15)
    assert (new.parent, new.root, new.depth, new.retries, new.fence, new.attempt) == (
        "t#0",
        "t#0",
        1,
        0,
        0,
        0,
    )
    failed(model, "t#2")
    assert model.replay("t#2") == "t#3"
    again = model.instances["t#3"]
    assert (again.parent, again.root, again.depth) == ("t#2", "t#0", 2)
    run(model, "t#3", {"ok": True})
    assert model.instances["u#0"].kwargs == {"t": {"ok": True}}


@pytest.mark.parametrize("replacement", [{"a": {"n": 2}}, {"other": {}}, {}])
def test_replacement_kwargs_are_exactly_the_kwargs(replacement):
    """A replay with other kwargs is another piece of work: it becomes the root of those that follow."""
    model = session({"t": task("a", "b")})
    model.fire("a", {"n": 1})
    model.fire("b")
    failed(model, "t#0")
    model.replay("t#0", replacement)
    new = model.instances["t#1"]
    assert (new.kwargs, new.taken) == (replacement, {"a": 1, "b": 2})
    assert (new.parent, new.root, new.depth) == ("t#0", "t#1", 1)
    failed(model, "t#1")
    model.replay("t#1")
    assert (model.instances["t#2"].kwargs, model.instances["t#2"].root) == (replacement, "t#1")


def test_a_replay_counts_as_an_instance_of_its_task():
    """After a replay, the task's other triggers make no first instance again, and `andEvery` the next number."""
    model = session({"t": task("a"), "u": {"andEvery": "a", "run": "r"}})
    model.fire("a")
    for name in ("t#0", "u#0"):
        failed(model, name)
        model.replay(name)
    assert model.fire("a").created == ("u#2",)


@pytest.mark.parametrize("step", [Model.replay, Model.skip])
def test_only_what_failed_can_be_replayed_or_skipped(step):
    """In every other status it is an error that names the status, and changes nothing."""
    model = session({"t": {"andEvery": "a", "run": "r"}, "u": task("a", "z"), "v": task("z", unless=["a"])})
    fire_all(model, "a", "a", "a", "a", "a", "a")
    run(model, "t#0")
    model.claim("t#1")
    model.skip_running("t#2", model.claim("t#2"))
    failed(model, "t#3")
    model.replay("t#3")
    seen = set()
    for name, status in statuses(model).items():
        before = model.snapshot()
        with pytest.raises(ModelStatusError, match=status):
            step(model, name)
        assert model.snapshot() == before
        seen.add(status)
    assert seen == {"finished", "running", "skipped", "replayed", "scheduled", "unstarted", "abandoned"}


def test_a_skip_cascades_only_on_request():
    """Without it nothing is fired; with it the task's name is, with the simulated result."""
    model = session({"t": {"andEvery": "a", "run": "r"}, "u": {"andEvery": "t", "run": "r"}})
    fire_all(model, "a", "a", "a")
    for name in ("t#0", "t#1", "t#2"):
        failed(model, name)
    model.skip("t#0", result={"id": 1})
    assert len(model.firings) == 3
    model.skip("t#1", cascade=True, result={"id": 2})
    model.skip("t#2", cascade=True)
    assert [(f.trigger, f.kwargs, f.cause) for f in model.firings[3:]] == [
        ("t", {"id": 2}, "t#1"),
        ("t", {}, "t#2"),
    ]
    assert {status for name, status in statuses(model).items() if name[0] == "t"} == {"skipped"}
    assert [model.instances[f"u#{n}"].kwargs for n in (0, 1)] == [{"t": {"id": 2}}, {"t": {}}]


def test_self_retries_wait_and_end():
    """Each retry is due after its cooldown; the task fails when it has used up its retries."""
    model = session({"t": task("a")}, now=10)
    model.fire("a")
    assert retried(model, "t#0") == "t#1"
    first = model.instances["t#1"]
    assert (first.status, first.run_at, first.retries, first.depth, first.root) == (
        "scheduled",
        15,
        1,
        1,
        "t#0",
    )
    assert model.claim("t#1") is None
    model.advance(5)
    assert retried(model, "t#1", replacement_kwargs={"n": 1}) == "t#2"
    assert (model.instances["t#2"].kwargs, model.instances["t#2"].root) == ({"n": 1}, "t#2")
    model.advance(5)
    assert retried(model, "t#2") == "t#2"
    assert statuses(model) == {"t#0": "replayed", "t#1": "replayed", "t#2": "failed"}
    assert model.instances["t#2"].error == "MaxRetriesExceeded"
    assert model.instances["t#2"].retries == 2


def test_a_replay_by_hand_starts_the_retries_anew():
    """`retries` counts retries in a row, `depth` all ancestors."""
    model = session({"t": task("a")})
    model.fire("a")
    assert retried(model, "t#0", cooldown=0, max_retries=1) == "t#1"
    assert retried(model, "t#1", cooldown=0, max_retries=1) == "t#1"
    assert model.replay("t#1") == "t#2"
    assert (model.instances["t#2"].retries, model.instances["t#2"].depth) == (0, 2)
    assert retried(model, "t#2", cooldown=0, max_retries=1) == "t#3"
    assert (model.instances["t#3"].retries, model.instances["t#3"].depth) == (1, 3)


def test_without_retries_a_retry_fails():
    """A task that allows no retries fails at the first."""
    model = session({"t": task("a")})
    model.fire("a")
    assert retried(model, "t#0", max_retries=0) == "t#0"
    assert statuses(model) == {"t#0": "failed"}
