"""A commit whose answer was lost: find out from PostgreSQL whether it happened."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from triggers.storages.postgres.connection import LostError, ServerError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triggers.core.exchange import Changes
    from triggers.core.state import Instance
    from triggers.storages.postgres.connection import PipelineConnection
    from triggers.storages.postgres.decide import PlannedCommit

#: SQLSTATE if no transaction has that number yet: the server crashed before it had written anything of it.
_NOT_GIVEN: Final = "22023"


class InDoubtError(Exception):
    """The connection was lost during a commit, so it is unknown whether the commit happened.

    Attributes:
        incarnation: the mark of the server when the connection was opened.
        decided: what would have been committed.
    """

    def __init__(self, incarnation: str, decided: PlannedCommit) -> None:
        super().__init__(incarnation, decided)
        self.incarnation = incarnation
        self.decided = decided


def commit_outcome(wire: PipelineConnection, until: float, in_doubt: InDoubtError) -> bool | None:
    """Whether the commit happened; None if this cannot be found out.

    Raises:
        LostError: the commit is still in progress, or this connection was lost, too: ask again.
        ServerError: the server refused the query.
    """
    number = in_doubt.decided.transaction
    try:
        ((status,),) = wire([("transaction_status", (number,))], until)[0]
    except ServerError as error:
        if error.code == _NOT_GIVEN:
            return False
        raise
    if status == "in progress":
        wire([("terminate", (number,))], until)
        message = f"transaction {number} is still in progress"
        raise LostError(message)
    if status == "committed" and wire.incarnation != in_doubt.incarnation:
        return _is_stored(wire, until, in_doubt.decided)
    return None if status is None else bool(status == "committed")


# A server that crashed can have lost the transaction and assigned its number to another one.
def _is_stored(wire: PipelineConnection, until: float, decided: PlannedCommit) -> bool | None:
    """Whether the changes are stored; None if this cannot be found out.

    It is certain for changes with a firing, and for those that added a line to the history of an instance.
    All others can have been overwritten since.
    """
    changes = decided.changes
    touched = [*changes.created, *(moved for moved, _ in changes.transitioned)]
    given = (changes.session.ref, *_firing(changes), *_head(decided), *_instance(touched), *_timer(changes))
    ((fired, changed, noted, timed),) = wire([("evidence", given)], until)[0]
    if changes.fired:
        return bool(fired)
    if changed:
        return True
    has_new_line = touched and touched[0].history.splitlines()[-1].startswith(f"{touched[0].modified_at} ")
    outcome: bool | None = noted if has_new_line else timed
    return outcome


def _firing(changes: Changes) -> tuple[Any, ...]:
    return (changes.fired[0].number, changes.fired[0].at) if changes.fired else (None, None)


# The time of a session does not advance with every commit, for example if a clock was set back.
def _head(decided: PlannedCommit) -> tuple[Any, ...]:
    head = decided.changes.session
    is_evidence = decided.changes.writes_head and head.modified_at != decided.before
    return (head.uid, head.modified_at) if is_evidence else (None, None)


def _instance(touched: Sequence[Instance]) -> tuple[Any, ...]:
    if not touched:
        return (None, None, None, None)
    one = touched[0]
    return (one.task, one.number, one.modified_at, one.history)


def _timer(changes: Changes) -> tuple[Any, ...]:
    """The last timer that was set; its number is that of no earlier one."""
    timers = [timer for timer in changes.timers.values() if timer is not None]
    last = max(timers, key=lambda timer: timer.number, default=None)
    return (None, None, None) if last is None else (last.name, last.number, last.at)


def add_outcome(
    error: BaseException, was_committed: Callable[[InDoubtError, float], bool], in_doubt: InDoubtError
) -> None:
    """Add a note to an exception that interrupted a commit: whether the commit happened, if this is known."""
    uid = in_doubt.decided.changes.session.uid
    try:
        outcome = "" if was_committed(in_doubt, 0) else "not "
    except Exception:  # noqa: BLE001 - the interrupt is what is raised
        error.add_note(
            f"It is unknown whether the commit to session {uid!r} was stored: look at the session before you "
            f"repeat it."
        )
    else:
        error.add_note(f"The commit to session {uid!r} was {outcome}stored.")
