"""The eight statuses of a task instance and the table of moves between them.

The table is data: the law consults it, the diagram in the documentation is drawn from it, and a test
walks through every pair.
"""

from __future__ import annotations

from enum import StrEnum
from typing import NamedTuple

from triggers.exceptions import InvalidStatusError


class Status(StrEnum):
    """Where an instance stands; the values are what storages keep and users see."""

    UNSTARTED = "unstarted"
    SCHEDULED = "scheduled"
    RUNNING = "running"
    FINISHED = "finished"
    FAILED = "failed"
    SKIPPED = "skipped"
    REPLAYED = "replayed"
    ABANDONED = "abandoned"


#: Nothing more will come of an instance in one of these; they alone count as done when a session finalises.
RESOLVED = frozenset({Status.FINISHED, Status.SKIPPED, Status.REPLAYED, Status.ABANDONED})

#: An instance in one of these was settled without a finish, so its log records no longer need a review.
SETTLED = (Status.REPLAYED, Status.SKIPPED, Status.ABANDONED)


class Move(NamedTuple):
    """One allowed change of status and what brings it about."""

    before: Status
    after: Status
    because: str


MOVES = (
    Move(Status.UNSTARTED, Status.SCHEDULED, "its condition is met"),
    Move(Status.UNSTARTED, Status.ABANDONED, "its veto is met"),
    Move(Status.SCHEDULED, Status.RUNNING, "a worker claims it"),
    Move(Status.RUNNING, Status.FINISHED, "the task returns"),
    Move(Status.RUNNING, Status.FAILED, "the task raises, or is lost too often"),
    Move(Status.RUNNING, Status.SKIPPED, "the task asks to be skipped"),
    Move(Status.RUNNING, Status.SCHEDULED, "its worker lets go or loses the lease"),
    Move(Status.FAILED, Status.REPLAYED, "replay, or the task's own retry"),
    Move(Status.FAILED, Status.SKIPPED, "skip"),
)

_ALLOWED = frozenset((move.before, move.after) for move in MOVES)


def can_move(before: Status, after: Status) -> bool:
    """Whether the table has that move."""
    return (before, after) in _ALLOWED


def check_move(name: str, before: Status, after: Status) -> None:
    """Let the move pass if the table has it.

    Raises:
        InvalidStatusError: it does not; the message says the status the instance is in, and where it
            can go from there.
    """
    if (before, after) not in _ALLOWED:
        targets = ", ".join(move.after for move in MOVES if move.before is before) or "nowhere"
        message = f"{name} is {before}: it cannot become {after} (from {before} it can go to: {targets})"
        raise InvalidStatusError(message)
