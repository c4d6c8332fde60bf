"""Decisions of a person at their limits: replays, skips, and statuses set by hand."""

from __future__ import annotations

import pytest

from tests.core.instances import in_status
from triggers.core import decisions
from triggers.core.exchange import Need, Slice
from triggers.core.state import Firing, Session
from triggers.core.status import Status
from triggers.core.terms import Policy, RetryTerms
from triggers.core.values import decode, encode
from triggers.exceptions import InvalidStatusError, UnknownInstanceError, UnknownTaskError

EVERY = {"t": {"andEvery": "a", "run": "r"}}


# -- decisions are pure ----------------------------------------------------------------------------------


def test_a_decision_can_be_made_without_any_storage():
    """It asks for what it must see, is told, and says what changes; the same answers give the same changes again."""

    def decided():
        run = decisions.fire(Policy(), Firing(0, "a", "{}", 0))(Session("s", 5))
        need = next(run)
        assert need == Need(tasks=frozenset(), waiting=(), latest=frozenset())
        with pytest.raises(StopIteration) as end:
            run.send(Slice())
        return end.value.value

    assert decided() == decided()
    assert decided().fired == [Firing(1, "a", "{}", 5)]
    assert decided().session == Session("s", 5, manager="default", firings=1, created_at=5, modified_at=5)


@pytest.mark.parametrize("status", list(Status))
def test_only_what_failed_can_be_replayed(steps, status):
    """Anything else is refused by name, with the status it is in; nothing changes."""
    name = in_status(steps, status)
    if status is Status.FAILED:
        assert steps.replay(name).name == "t#1"
        return
    before = steps.instances()
    with pytest.raises(InvalidStatusError, match=f"t#0 is {status}: only a failed instance can be replayed"):
        steps.replay(name)
    assert steps.instances() == before


@pytest.mark.parametrize("status", list(Status))
def test_only_what_failed_can_be_skipped(steps, status):
    """Anything else is refused with the status it is in; a running one, too: its own task decides that."""
    name = in_status(steps, status)
    if status is Status.FAILED:
        steps.skip(name)
        assert steps[name].status is Status.SKIPPED
        return
    before = steps.instances()
    with pytest.raises(InvalidStatusError, match=f"t#0 is {status}"):
        steps.skip(name, {"simulated": True})
    assert steps.instances() == before


@pytest.mark.parametrize("after", list(Status))
@pytest.mark.parametrize("before", list(Status))
def test_a_status_set_by_hand_obeys_the_table(steps, before, after):
    """Every pair: what the table lacks is refused, and so is running, which only a claim makes."""
    from triggers.core.status import can_move  # noqa: PLC0415 - for this test alone

    name = in_status(steps, before)
    fence = steps[name].fence
    if not can_move(before, after) or after is Status.RUNNING:
        with pytest.raises(InvalidStatusError, match=f"t#0 is {before}"):
            steps.set_status(name, after)
        assert (steps[name].status, steps[name].fence) == (before, fence)
        return
    steps.set_status(name, after)
    instance = steps[name]
    assert instance.status is after
    assert instance.fence == fence + (before is Status.RUNNING)
    assert (instance.owner, instance.lease_until) == ("", None)
    if after is Status.SCHEDULED:
        assert instance.run_at == steps.storage.now()
        assert steps.start(name)


def test_a_status_set_by_hand_cascades_on_request(steps):
    """With a result, the name of the task is fired with it, in the same commit; without one, nothing is fired."""
    steps.configure({**EVERY, "t_next": {"after": ["t"], "run": "r"}})
    steps.fire("a")
    steps.fire("a")
    steps.start("t#0")
    steps.start("t#1")
    assert steps.set_status("t#0", Status.FINISHED, {"by": "hand"}).fired == []
    assert decode(steps["t#0"].metadata) == {"by": "hand"}
    (fired,) = steps.set_status("t#1", Status.FINISHED, result={"n": 1}).fired
    assert (fired.trigger, fired.kwargs, steps["t#1"].result) == ("t", '{"n":1}', fired.number)
    assert steps["t_next#0"].status is Status.SCHEDULED


def test_a_replay_can_describe_what_it_replaces(steps):
    """The metadata is added to the failed instance, not to the new one."""
    steps.replay(in_status(steps, Status.FAILED), metadata={"because": "fixed"})
    assert [decode(steps[name].metadata) for name in ("t#0", "t#1")] == [{"because": "fixed"}, {}]


def test_an_instance_that_is_not_there_is_named(steps):
    """The message has session and name."""
    steps.fire("a")
    with pytest.raises(UnknownInstanceError, match="session 'session' has no instance t#7"):
        steps.skip("t#7")


# -- replays and retries ---------------------------------------------------------------------------------


def test_a_replay_names_its_ancestors(steps):
    """Parent, depth and root; replacement kwargs begin a new root; `retries` start anew by hand."""
    steps.configure(EVERY)
    steps.fire("a", {"n": 1})
    steps.fail(steps.start("t#0"), "x", RetryTerms(0, 3, "{}"))
    steps.fail(steps.start("t#1"), "x")
    steps.replay("t#1", {"a": {"n": 2}})
    steps.fail(steps.start("t#2"), "x", RetryTerms(0, 3, "{}", encode({"a": {"n": 3}}, "kwargs")))
    lines = [(each.parent, each.depth, each.root, each.retries) for each in steps.instances()]
    assert lines == [(None, 0, 0, 0), (0, 1, 0, 1), (1, 2, 2, 0), (2, 3, 3, 1)]
    assert [kwargs["a"]["n"] for kwargs in steps.kwargs_of(steps.instances())] == [1, 1, 2, 3]


def test_a_retry_too_many_fails_with_the_error_that_says_so(steps):
    """After as many retries in a row as it is allowed the instance stays failed."""
    steps.configure(EVERY)
    steps.fire("a")
    terms = RetryTerms(0, 1, encode("exhausted", "error"))
    steps.fail(steps.start("t#0"), "first", terms)
    steps.fail(steps.start("t#1"), "second", terms)
    assert steps.statuses() == {"t#0": "replayed", "t#1": "failed"}
    assert [decode(each.error) for each in steps.instances()] == ["first", "exhausted"]


def test_a_task_that_is_gone_cannot_be_replayed_nor_retried(steps):
    """Its failed instances stay, can be skipped, and say why they cannot run again."""
    steps.configure(EVERY)
    steps.fire("a")
    steps.fire("a")
    first, second = steps.start("t#0"), steps.start("t#1")
    steps.configure({})
    steps.fail(first, "x", RetryTerms(0, 5, "{}"))
    steps.fail(second, "x")
    assert steps.statuses() == {"t#0": "failed", "t#1": "failed"}
    with pytest.raises(
        UnknownTaskError, match="t: is no longer in the configuration, so it cannot be replayed"
    ):
        steps.replay("t#0")
    steps.skip("t#0")
    assert steps.statuses()["t#0"] == "skipped"


def test_a_skip_cascades_on_request_alone(steps):
    """With a simulated result the task's name fires as if it had finished."""
    steps.configure({**EVERY, "u": {"after": ["t"], "run": "r"}})
    for _ in range(2):
        steps.fire("a")
    for name in ("t#0", "t#1"):
        steps.fail(steps.start(name))
    assert steps.skip("t#0").fired == []
    assert [firing.trigger for firing in steps.skip("t#1", {"simulated": 1}).fired] == ["t"]
    assert steps.kwargs("u#0") == {"t": {"simulated": 1}}
