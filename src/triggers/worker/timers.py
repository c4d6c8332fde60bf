"""The timers of all sessions: those that are due elapse, as part of a sweep."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triggers.core import decisions
from triggers.exceptions import StorageBusyError, StorageCorruptError, StorageError
from triggers.fired_by import FiredBy
from triggers.storages.base import ConflictError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from triggers.core.exchange import Changes
    from triggers.health import Kind, Problems
    from triggers.manager import TriggerManager
    from triggers.storages.base import Storage

_log = logging.getLogger(__name__)

#: In how many sessions timers elapse at a time.
SESSIONS = 50

#: The errors of a storage that concern only one session or one row.
OF_ONE = (ConflictError, StorageBusyError, StorageCorruptError)

#: What is done about a session whose timers cannot elapse.
SKIPPED = "its timers are tried again later; those of other sessions elapse"


@dataclass(frozen=True, slots=True)
class Timekeeper:
    """Lets due timers elapse.

    Attributes:
        storage: the storage.
        managers: returns the names of the managers of this process. It leaves sessions of others alone.
        policy_of: name of a manager → its policy, or None if this process does not have the manager.
        manager_of: makes the manager of a session, from the manager's name, the UID, and what fires.
        problems: where problems are reported.
    """

    storage: Storage
    managers: Callable[[], Collection[str]]
    policy_of: decisions.PolicyOf
    manager_of: Callable[[str, str, FiredBy], TriggerManager]
    problems: Problems

    def elapse(self) -> int:
        """Let all timers elapse that are due now; return in how many commits something has elapsed.

        Raises:
            StorageError: the storage is unavailable; what has elapsed so far is stored.
        """
        count = 0
        while uids := self._due():
            batch = [(uid, decisions.elapse(self.policy_of)) for uid in uids]
            done = self.storage.commit_many(batch)
            finished = [self._finish(uid, changes) for uid, changes in zip(uids, done, strict=True)]
            count += sum(finished)
            if not any(finished):
                break
        return count

    def next_at(self) -> int | None:
        """Return when the next timer is due, or a time before that; None if no session has timers.

        Sessions whose timers cannot elapse do not count.
        """
        timed = self.storage.timed_sessions(1 + len(self.problems), self.managers())
        return next((one.at for one in timed if not self.problems.is_paused(_place(one.uid))), None)

    def _due(self) -> list[str]:
        """Return the next sessions with due timers. Those that failed do not count towards the batch."""
        timed = self.storage.timed_sessions(SESSIONS + len(self.problems), self.managers())
        now = self.storage.now()
        return [one.uid for one in timed if one.at <= now and not self.problems.is_paused(_place(one.uid))]

    def _finish(self, uid: str, changes: Changes | Exception) -> bool:
        """Dispatch and call the hooks after a commit; return whether there was one.

        Raises:
            StorageError: the storage is unavailable.
        """
        if isinstance(changes, StorageError) and not isinstance(changes, OF_ONE):
            raise changes
        if isinstance(changes, Exception):
            kind: Kind = "storage" if isinstance(changes, StorageBusyError) else "unreadable"
            self.problems.report(kind, _place(uid), changes, SKIPPED)
            return False
        if self.problems:
            self.problems.resolve(_place(uid))
        if changes.refused:
            return False
        publish_elapsed([changes], self.manager_of)
        return True


def publish_elapsed(
    elapsed: Sequence[Changes], manager_of: Callable[[str, str, FiredBy], TriggerManager]
) -> None:
    """Dispatch what elapsed timers have scheduled, and call the hooks of the manager.

    An exception is logged, because what has elapsed is stored.
    """
    for changes in elapsed:
        uid = changes.session.uid
        try:
            manager_of(changes.session.manager, uid, FiredBy()).publish(changes)
        except Exception:  # noqa: BLE001 - a hook can raise anything
            _log.exception("a hook of session %r raised an exception after its timers had elapsed", uid)


def _place(uid: str) -> str:
    return f"timers of session {uid!r}"
