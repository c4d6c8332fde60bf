"""Commit a decision after the timers that are due before it."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from triggers.core import decisions
from triggers.core.exchange import TimersDue
from triggers.exceptions import StorageError

if TYPE_CHECKING:
    from triggers.core.exchange import Changes, Decision
    from triggers.core.terms import Policy, PolicyOf
    from triggers.storages.base import Storage


def commit_in_time(  # noqa: PLR0917 - as `commit`, and what it needs for timers
    storage: Storage,
    uid: str,
    decision: Decision,
    policy: Policy | PolicyOf,
    elapsed: list[Changes],
    timeout: float | None = None,
    *,
    joined: bool = False,
) -> Changes:
    """Commit a decision about a session. If timers are due, they elapse before, in commits of their own.

    The time of the decision is that of the first try. Timers that become due later do not concern it.

    Args:
        storage: the storage.
        uid: the session.
        decision: the decision.
        policy: the policy of the session's manager.
        elapsed: gets the changes of the timers that have elapsed, in order, also if the decision fails.
        timeout: how long to wait for the storage, in seconds, for everything together; None for the storage's
            own setting.
        joined: whether this is a transaction of the application. All due timers elapse in it at once, or none
            if they are too many.

    Raises:
        StorageError: nothing of the decision is stored.
    """
    until = None if timeout is None else time.monotonic() + timeout
    at: int | None = None
    while True:
        try:
            return storage.commit(uid, decision if at is None else decision.as_of(at), timeout=_left(until))
        except TimersDue as due:
            at = due.at if at is None else at
        try:
            changes = storage.commit(uid, decisions.elapse(policy, at, only_all=joined), timeout=_left(until))
        except TimersDue:
            message = (
                f"session {uid!r} has more than {decisions.AT_ONCE} timers that are due, too many for this "
                f"transaction; nothing was changed: let them elapse first, with `triggers sweep`"
            )
            raise StorageError(message) from None
        if changes.refused:
            message = f"session {uid!r} has due timers: {changes.refused}; nothing was changed"
            raise StorageError(message)
        elapsed.append(changes)


def _left(until: float | None) -> float | None:
    return None if until is None else max(until - time.monotonic(), 0.0)
