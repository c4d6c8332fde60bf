"""What is stored of a session, and the changes that a decision returns."""

from __future__ import annotations

import pytest

from triggers.core.exchange import Changes, Guard
from triggers.core.state import MAX_HISTORY, Counter, Instance, Session, copy_of
from triggers.core.status import Status
from triggers.testing.conformance.fixtures import batch, entry


def test_a_history_is_bounded():
    """A remark too many is left out; the rest stays."""
    instance = Instance("t", 0, Status.RUNNING, 0, 0)
    for n in range(10_000):
        instance.note(n, "running", "again")
    assert MAX_HISTORY <= len(instance.history) < MAX_HISTORY + 100
    assert instance.history.startswith("0 running again\n")


def test_a_copy_can_be_changed():
    """Nothing that can change is shared with the original."""
    instance = Instance("t", 0, Status.RUNNING, 0, 0, taken={"a": 1}, log_counts={30: 1})
    copy = copy_of(instance)
    copy.taken["b"] = 2
    copy.log_counts[40] = 1
    assert (instance.taken, instance.log_counts) == ({"a": 1}, {30: 1})
    assert instance.name == "t#0"
    assert not instance.is_resolved


def test_a_task_is_resolved_once_it_ran_and_nothing_is_open():
    """A task without any instance is not."""
    assert not Counter(0, 0).is_resolved
    assert not Counter(2, 1).is_resolved
    assert Counter(2, 0).is_resolved


def test_an_empty_batch_needs_no_commit():
    """Records, counts or what was left out: any of them is something to store."""
    assert not batch()
    assert batch(entry())
    assert batch(dropped=1, counts={})


def test_changes_without_anything_schedule_nothing():
    """They begin empty."""
    assert Changes(Session("s", 0)).scheduled() == []


@pytest.mark.parametrize(
    ("guard", "holds"),
    [
        (Guard(Status.RUNNING, 2), True),
        (Guard(Status.RUNNING, 2, 50), True),
        (Guard(Status.FAILED, 2), False),
        (Guard(Status.RUNNING, 1), False),
        (Guard(Status.RUNNING, 2, 49), False),
    ],
)
def test_a_guard_holds_while_nothing_that_it_compares_has_changed(guard, holds):
    """It compares the status and the fence, and the lease only if it has one."""
    stored = Instance("t", 0, Status.RUNNING, 1, 1, fence=2, lease_until=50)
    assert guard.holds(stored) is holds
