# ruff: noqa: E501, S101, PLR2004 - as in tests: docstrings have one line, assert is used, numbers are expected values
"""Imports: a session that another system has begun is stored in one commit, with all that has happened in it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from triggers.core import decisions
from triggers.core.configuration import check_configuration
from triggers.core.decisions import ImportedSession
from triggers.core.state import Counter, Firing, Instance
from triggers.core.status import Status
from triggers.testing.conformance.fixtures import StorageFixtures
from triggers.testing.conformance.machine import shown
from triggers.testing.conformance.steps import SECOND, Steps

if TYPE_CHECKING:
    from triggers.storages.base import Storage

_RULES = check_configuration(
    {
        "t": {"after": ["a"], "andEvery": "b", "unless": ["c"], "run": "r"},
        "u": {"after": ["t"], "run": "r", "note": 1},
    }
)

#: An instance in which no column has the value that a new instance has.
_FULL = Instance(
    task="t",
    number=0,
    status=Status.REPLAYED,
    created_at=11,
    modified_at=12,
    fence=13,
    attempt=14,
    crashes=15,
    crash_budget=16,
    given_back=17,
    run_at=18,
    dispatch_after=19,
    handovers=20,
    lease_until=21,
    owner="w",
    parent=22,
    root=23,
    depth=24,
    retries=25,
    cascade_depth=26,
    taken={"a": 1, "b": 2},
    vetoes=("c",),
    kwargs='{"a":{"x":1}}',
    result=3,
    error='{"type":"E"}',
    metadata='{"why":1}',
    history="11 unstarted imported\n12 replayed\n",
    log_count=27,
    log_level=40,
    log_unresolved=40,
    log_counts={40: 1},
    log_dropped=28,
    log_resolved=29,
    log_chosen=(31,),
    log_audit='[{"at":1}]',
)

_SESSION = ImportedSession(
    rules=_RULES,
    firings=(
        Firing(1, "a", '{"n":1}', 5),
        Firing(2, "b", '{"n":2}', 6),
        Firing(3, "t", "{}", 7, 1, "t#0"),
    ),
    instances=(
        _FULL,
        Instance("t", 1, Status.SCHEDULED, 1, 2, run_at=3, taken={"a": 1, "b": 2}, attempt=1, fence=1),
        Instance("t", 2, Status.UNSTARTED, 1, 2, taken={"b": 2}),
    ),
    metadata='{"origin":"elsewhere"}',
    created_at=5,
)


class Imports(StorageFixtures):
    """Tests of the promises for what an import stores."""

    def test_an_imported_instance_is_stored_as_a_whole(self, steps: Steps, storage: Storage) -> None:
        """Promise 6: a new instance can have any values, and every one of them comes back."""
        steps.commit(decisions.import_session(steps.policy, _SESSION))
        found = storage.reader.instance(steps.uid, "t", 0)
        assert found is not None
        assert replace(found, ref=None) == _FULL

    def test_an_imported_session_shows_what_has_happened(self, steps: Steps, storage: Storage) -> None:
        """Promise 6: its rules, firings, counters and metadata are those that were imported."""
        steps.commit(decisions.import_session(steps.policy, _SESSION))
        head = steps.head
        assert (head.rules.body, head.metadata, head.created_at) == (_RULES.body, _SESSION.metadata, 5)
        assert (head.firings, head.pending, head.manager) == (3, 2, steps.policy.manager)
        assert storage.reader.firings(steps.uid) == list(_SESSION.firings)
        assert storage.reader.latest(steps.uid, ["t"])["t"].number == 3
        assert storage.reader.counters(steps.uid) == {"t": Counter(3, 2)}

    def test_an_imported_session_continues(self, steps: Steps, storage: Storage) -> None:
        """Promises 5 and 9: what waits gets its trigger, what is scheduled is due, and numbers continue."""
        steps.commit(decisions.import_session(steps.policy, _SESSION))
        assert [(due.task, due.number) for due in storage.due(10, grace=SECOND)] == [("t", 1)]
        assert steps.waiting("a") == {"t#2"}
        fired = steps.fire("a")
        assert fired.fired[0].number == 4
        assert [each.name for each in fired.scheduled()] == ["t#2"]
        assert [each.name for each in steps.fire("b").created] == ["t#3"]

    def test_a_session_is_imported_once(self, steps: Steps) -> None:
        """Promise 2: an import into a session that exists is refused, and changes nothing."""
        steps.commit(decisions.import_session(steps.policy, _SESSION))
        before = (steps.head, shown(steps))
        again = replace(_SESSION, metadata="{}", firings=(), instances=())
        assert "already" in steps.commit(decisions.import_session(steps.policy, again)).refused
        assert (replace(steps.head, now=before[0].now), shown(steps)) == before
