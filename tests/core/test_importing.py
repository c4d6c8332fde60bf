"""A session that another system has begun: what its import decides."""

from __future__ import annotations

import pytest

from triggers.core import decisions
from triggers.core.configuration import check_configuration
from triggers.core.decisions import Finalizing, ImportedSession
from triggers.core.state import Counter, Firing, Instance
from triggers.core.status import Status
from triggers.core.terms import Policy
from triggers.storages.memory import MemoryStorage
from triggers.testing.conformance.steps import Steps

RULES = check_configuration(
    {
        "t": {"after": ["a"], "unless": ["c"], "run": "r"},
        "end": {"after": ["sessionFinalized"], "run": "r"},
    }
)
FIRINGS = (Firing(1, "a", "{}", 5), Firing(2, "sessionFinalized", "{}", 6))


def imported(*instances, firings=FIRINGS):
    return ImportedSession(RULES, firings, instances, "{}", 5)


def test_an_instance_whose_condition_is_met_is_scheduled(steps, clock):
    """It would wait forever, because no firing of the future meets its condition. It is due at once."""
    waits = Instance("t", 0, Status.UNSTARTED, 1, 1, taken={"a": 1})
    changes = steps.commit(decisions.import_session(steps.policy, imported(waits)))
    (found,) = steps.instances()
    assert (found.status, found.run_at, found.dispatch_after) == (Status.SCHEDULED, clock(), clock())
    assert changes.scheduled_by == [[], []]
    assert waits.status is Status.UNSTARTED, "a repeated run of the decision begins with the same"


def test_an_instance_whose_veto_is_met_is_abandoned(steps):
    """Abandon wins, as in a firing."""
    waits = Instance("t", 0, Status.UNSTARTED, 1, 1, taken={"a": 1}, vetoes=("c",))
    steps.commit(decisions.import_session(steps.policy, imported(waits)))
    assert steps.instances()[0].status is Status.ABANDONED
    assert steps.storage.reader.counters("session") == {"t": Counter(1, 0)}
    assert steps.head.pending == 1


def test_an_instance_of_a_task_that_is_no_longer_configured_stays(steps):
    """It is visible and waits for nothing."""
    waits = Instance("gone", 0, Status.UNSTARTED, 1, 1, taken={"a": 1})
    changes = steps.commit(decisions.import_session(steps.policy, imported(waits)))
    assert [each.name for each in steps.instances()] == ["gone#0"]
    assert changes.lacks == []


def test_numbers_continue_after_a_gap(steps):
    """The next instance of a task has a number that none has."""
    done = [Instance("t", number, Status.FINISHED, 1, 1) for number in (1, 3)]
    steps.commit(decisions.import_session(steps.policy, imported(*done)))
    assert steps.storage.reader.counters("session") == {"t": Counter(4, 0)}


@pytest.mark.parametrize(
    ("finalizing", "finalized", "pending"), [(None, None, 2), ("sessionFinalized", 2, 1)]
)
def test_a_finalized_session_stays_finalized(finalizing, finalized, pending):
    """If the manager finalizes, the firing of its trigger counts, and tasks that wait for it do not."""
    policy = Policy(finalizing=None if finalizing is None else Finalizing(finalizing))
    steps = Steps(MemoryStorage(), policy=policy)
    steps.commit(decisions.import_session(policy, imported()))
    assert (steps.head.finalized, steps.head.pending) == (finalized, pending)
    assert steps.head.manager == policy.manager
