"""The eight statuses of a task instance, and the table of moves between them.

Decisions check each move against the table. The diagram in the documentation is generated from it.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from triggers.exceptions import InvalidStatusError


class Status(StrEnum):
    """The status of an instance. Storages store these values, and users see them."""

    UNSTARTED = "unstarted"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    SKIPPED = "skipped"
    REPLAYED = "replayed"
    ABANDONED = "abandoned"


#: An instance in one of these will not change any more. A session is complete when all of them are resolved.
RESOLVED = frozenset({Status.FINISHED, Status.SKIPPED, Status.REPLAYED, Status.ABANDONED})

#: An instance in one of these was settled without a finish, so its log records no longer need a review.
SETTLED = (Status.REPLAYED, Status.SKIPPED, Status.ABANDONED)


class Move(NamedTuple):
    """One allowed change of status, and its cause."""

    before: Status
    after: Status
    because: str


MOVES = (
    Move(Status.UNSTARTED, Status.SCHEDULED, "its condition is met"),
    Move(Status.UNSTARTED, Status.ABANDONED, "its veto is met"),
    Move(Status.SCHEDULED, Status.RUNNING, "a worker claims it"),
    Move(Status.RUNNING, Status.FINISHED, "the task returns"),
    Move(Status.RUNNING, Status.FAILED, "the task raises, or its worker is lost too often"),
    Move(Status.RUNNING, Status.SKIPPED, "the task requests to be skipped"),
    Move(Status.RUNNING, Status.SCHEDULED, "its worker releases it or loses the lease"),
    Move(Status.FAILED, Status.REPLAYED, "replay, or the task's own retry"),
    Move(Status.FAILED, Status.SKIPPED, "skip"),
)

_ALLOWED = frozenset((move.before, move.after) for move in MOVES)


def can_move(before: Status, after: Status) -> bool:
    """Return whether an instance can change from one status to the other."""
    return (before, after) in _ALLOWED


def check_move(name: str, before: Status, after: Status) -> None:
    """Check that the table has a move.

    Raises:
        InvalidStatusError: it does not. The message contains the current status and the possible next ones.
    """
    if (before, after) not in _ALLOWED:
        targets = ", ".join(move.after for move in MOVES if move.before is before) or "none"
        message = f"{name} is {before}: it cannot become {after} (possible next statuses: {targets})"
        raise InvalidStatusError(message)
