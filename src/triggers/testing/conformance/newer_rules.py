# ruff: noqa: E501, S101 - as in tests: docstrings have one line, assert is used
"""Rules of a newer version: they are never run, and other sessions do not notice."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest

from triggers.core import decisions
from triggers.core.rules import rule_set
from triggers.core.state import new_firing
from triggers.core.terms import AttemptReport, Terms
from triggers.exceptions import UnsupportedRulesError
from triggers.testing.conformance.fixtures import StorageFixtures, batch, entry
from triggers.testing.conformance.steps import LEASE, SECOND, Steps

if TYPE_CHECKING:
    from triggers.storages.base import Storage
    from triggers.testing.conformance.sandbox import StorageSandbox

#: Rules that this version accepts.
NOW: Final[dict[str, Any]] = {"t_ship": {"after": ["paid"], "run": "shop.Ship"}}

#: The same for a version that knows more words.
NEWER: Final[dict[str, Any]] = {
    "t_ship": {"after": [{"trigger": "paid", "where": {"line": 8}}], "forEach": "line", "run": "shop.Ship"}
}

UNDERSTOOD: Final = (
    "newer version of Triggers, which this one does not understand: t_ship.forEach, t_ship.after"
)


def store_newer_rules(steps: Steps) -> None:
    """Store rules as a newer version does, without a check by this one."""
    steps.commit(decisions.configure(steps.policy, rule_set(NEWER)))


class NewerRules(StorageFixtures):
    """Tests of promise 13: what an older process does with the rules of a newer one."""

    def test_rules_of_a_newer_version_decide_nothing(self, storage: Storage, place: StorageSandbox) -> None:
        """Promise 13: a firing, a claim, a recovery and an end are refused, and change nothing."""
        steps, writer = Steps(storage), Steps(place.open())
        writer.configure(NOW)
        writer.fire("paid")
        writer.start("t_ship#0")
        store_newer_rules(writer)
        place.advance(timedelta(microseconds=LEASE + SECOND))
        (lost,) = storage.expired(10)
        before = steps.storage.reader.instances(steps.uid)
        attempt = AttemptReport("t_ship", 0, fence=1, attempt=1)
        policy, terms = steps.policy, Terms(LEASE)
        for refused in (
            decisions.fire(policy, new_firing("paid", None, None)),
            decisions.fire(policy, new_firing("unrelated", None, None)),
            decisions.claim(policy, "t_ship", 0, "worker", lambda *_: terms),
            decisions.recover(policy, *lost[1:4], lambda _: "{}"),
            decisions.finish(policy, attempt, "{}"),
        ):
            with pytest.raises(UnsupportedRulesError, match=UNDERSTOOD):
                steps.commit(refused)
        assert steps.storage.reader.instances(steps.uid) == before
        assert steps.head.firings == 1

    def test_rules_of_a_newer_version_can_be_read(self, steps: Steps, place: StorageSandbox) -> None:
        """Promise 13: the session, its rules and instances can be read, and records of a running task are stored."""
        steps.configure(NOW)
        steps.fire("paid")
        steps.start("t_ship#0")
        store_newer_rules(steps)
        reader = place.open().reader
        head = reader.session(steps.uid)
        assert head is not None
        assert head.rules.unsupported == ("t_ship.forEach", "t_ship.after")
        assert head.rules.rules["t_ship"].extras == {"forEach": "line"}
        assert head.rules.rules["t_ship"].after.names == {"paid"}
        assert [instance.name for instance in reader.instances(steps.uid)] == ["t_ship#0"]
        said = batch(entry("Packed."))
        attempt = AttemptReport("t_ship", 0, fence=1, attempt=1, logs=said)
        steps.commit(decisions.keep_logs(steps.policy, attempt))
        assert [record.message for record in reader.logs(steps.uid)] == ["Packed."]

    def test_rules_of_a_newer_version_can_be_replaced(self, steps: Steps, place: StorageSandbox) -> None:
        """Promise 13: after a configuration that this version understands, the session works again."""
        store_newer_rules(steps)
        other = Steps(place.open())
        with pytest.raises(UnsupportedRulesError):
            other.fire("paid")
        other.configure(NOW)
        assert [instance.name for instance in steps.fire("paid").created] == ["t_ship#0"]
        assert other.claim("t_ship#0").claimed is not None

    def test_other_sessions_do_not_notice(self, storage: Storage) -> None:
        """Promise 13: other sessions of the storage are decided as always."""
        store_newer_rules(Steps(storage, "newer"))
        steps = Steps(storage, "other")
        steps.configure(NOW)
        steps.fire("paid")
        found = storage.due(10, grace=SECOND, include_recent=True)
        assert [(due.uid, due.task) for due in found] == [("other", "t_ship")]
        assert steps.claim("t_ship#0").claimed is not None
