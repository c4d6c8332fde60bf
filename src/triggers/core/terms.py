"""What the law is told besides what is stored: a manager's policy, a worker's terms, an attempt's words.

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
    """How a session ends.

    Attributes:
        trigger: fired once, when every task but those that wait for it is resolved.
        max_level: hold it back while a finished instance has unresolved records at or above this level;
            None never does.
    """

    trigger: str
    max_level: int | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What a manager lays down for the sessions that are its own.

    Attributes:
        manager: its name.
        grace: how long a hand-over has until the sweep repeats it, in microseconds.
        finalizing: how a session ends, or None if it never does.
        threshold: records from this level on ask for a review.
        limits: sizes of what is accepted.
    """

    manager: str = "default"
    grace: int = 30 * SECOND
    finalizing: Finalizing | None = None
    threshold: int = 30
    limits: Limits = DEFAULT_LIMITS


#: Name of a manager → its policy, None where this process lacks that manager.
PolicyOf = Callable[[str], Policy | None]


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a worker claims an instance.

    Attributes:
        lease: how long the claim lasts without a heartbeat, in microseconds.
        crash_budget: at so many crashes the instance is failed.
    """

    lease: int
    crash_budget: int = 3


@dataclass(frozen=True, slots=True)
class RetryTerms:
    """A task's wish to run again.

    Attributes:
        cooldown: how long to wait, in microseconds.
        limit: how many retries in a row it is allowed.
        exhausted: the error, if this is one too many.
        kwargs: payload in place of the present kwargs, or None.
    """

    cooldown: int
    limit: int
    exhausted: str
    kwargs: str | None = None


@dataclass(frozen=True, slots=True)
class AttemptReport:
    """A running attempt that wants to write: which, with which fence, and what it said.

    Attributes:
        task: the instance's task.
        number: the instance's number.
        fence: the fence that its claim got.
        attempt: how often the instance had been claimed by then.
        logs: the records that ride in the same commit.
        metadata: added to the instance's metadata.
    """

    task: str
    number: int
    fence: int
    attempt: int = 1
    logs: LogBatch | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
