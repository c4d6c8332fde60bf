"""A commit whose answer was lost: what PostgreSQL says became of it, and when its word is not enough."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from triggers.storages.postgres.connection import LostError, ServerError

if TYPE_CHECKING:
    from triggers.core.exchange import Changes
    from triggers.storages.postgres.connection import PipelineConnection
    from triggers.storages.postgres.decide import PlannedCommit

#: No transaction has that number yet: the server fell before it had written anything of it.
_NOT_GIVEN: Final = "22023"


class InDoubtError(Exception):
    """The connection was lost while the server was told to commit.

    Attributes:
        incarnation: what the server was marked with when the connection was made.
        decided: what was to be committed.
    """

    def __init__(self, incarnation: str, decided: PlannedCommit) -> None:
        super().__init__(incarnation, decided)
        self.incarnation = incarnation
        self.decided = decided


def commit_outcome(wire: PipelineConnection, until: float, in_doubt: InDoubtError) -> bool | None:
    """Whether it was committed; None if nobody can tell.

    Raises:
        LostError: it is still under way, or this connection is gone, too: ask again.
        ServerError: the server refused.
    """
    number = in_doubt.decided.transaction
    try:
        ((status,),) = wire([("fate", (number,))], until)[0]
    except ServerError as error:
        if error.code == _NOT_GIVEN:
            return False
        raise
    if status == "in progress":
        wire([("stop", (number,))], until)
        message = f"transaction {number} is still in progress"
        raise LostError(message)
    if status == "committed" and wire.incarnation != in_doubt.incarnation:
        return _is_there(wire, until, in_doubt.decided.changes)
    return None if status is None else bool(status == "committed")


# A server that fell may have lost the transaction, and have given its number to another one since.
def _is_there(wire: PipelineConnection, until: float, changes: Changes) -> bool | None:
    """Whether what was to be written is there: a firing for certain, all else unless it has changed since."""
    head = changes.session
    first = changes.fired[0].number if changes.fired else None
    touched = [*changes.created, *(moved for moved, _ in changes.transitioned)]
    task, number = (touched[0].task, touched[0].number) if touched else (None, None)
    asked = (head.ref, first, head.uid if changes.writes_head else None, head.modified_at, task, number)
    ((fired, changed),) = wire([("evidence", asked)], until)[0]
    return bool(fired) if first is not None else changed or None
