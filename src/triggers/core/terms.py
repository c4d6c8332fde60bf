"""What a decision gets besides stored data: a manager's policy, a worker's terms, an attempt's report.

Durations are microseconds.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from triggers.core.values import DEFAULT_LIMITS, Limits

if TYPE_CHECKING:
    from collections.abc import Mapping

    from triggers.core.records import LogBatch

SECOND = 1_000_000


@dataclass(frozen=True, slots=True)
class Finalizing:
    """How a session is finalized.

    Attributes:
        trigger: the trigger that is fired once, when all tasks are resolved except those that wait for it.
        max_level: do not fire it while a finished instance has unresolved records at or above this level;
            None to ignore log records.
    """

    trigger: str
    max_level: int | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """The settings of a manager for its sessions.

    Attributes:
        manager: the manager's name.
        grace: how long the sweep waits before it dispatches an unclaimed instance again, in microseconds.
        finalizing: how its sessions are finalized, or None if they are not.
        threshold: records at or above this level need a review.
        limits: the limits for kwargs, results and metadata.
        cascade_depth: how many firings lead to what the manager changes, 0 outside of any task.
    """

    manager: str = "default"
    grace: int = 30 * SECOND
    finalizing: Finalizing | None = None
    threshold: int = 30
    limits: Limits = DEFAULT_LIMITS
    cascade_depth: int = 0


#: Returns the policy for the name of a manager, or None if this process does not have that manager.
PolicyOf = Callable[[str], Policy | None]


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms on which a worker claims an instance.

    Attributes:
        lease: how long the claim lasts without a heartbeat, in microseconds.
        crash_budget: how many crashes that no other instance can have caused make the instance failed. With
            0, any crash does.
    """

    lease: int
    crash_budget: int = 3


@dataclass(frozen=True, slots=True)
class RetryTerms:
    """A retry that a task requests.

    Attributes:
        cooldown: how long to wait, in microseconds.
        limit: how many retries in a row are allowed.
        exhausted: the encoded error if the limit is exceeded.
        kwargs: encoded kwargs that replace the current ones, or None.
    """

    cooldown: int
    limit: int
    exhausted: str
    kwargs: str | None = None


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """What a running attempt reports when it writes: which attempt it is, and its log records.

    Attributes:
        task: the instance's task.
        number: the instance's number.
        fence: the fencing token of its claim.
        attempt: the number of the attempt, from 1.
        logs: log records for the same commit.
        metadata: keys that are added to the instance's metadata.
    """

    task: str
    number: int
    fence: int
    attempt: int = 1
    logs: LogBatch | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
