"""The heartbeat: renew the claims of a process while their tasks run, and fail tasks that run too long.

Renewing waits only for the storage's `renew`. Failing a task needs a commit, which can wait for a locked
session, so it has a thread of its own.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triggers.health import place_of
from triggers.options import duration
from triggers.worker.due_thread import ERROR_PAUSE, DueThread

if TYPE_CHECKING:
    from collections.abc import Callable

    from triggers.health import Problems
    from triggers.storages.base import Lease, Storage
    from triggers.task import TriggerTask

#: How many heartbeats are sent in the length of a lease.
BEATS = 4

#: The part of a lease, at its end, in which the worker no longer relies on the claim.
MARGIN = 0.1

#: The places of the heartbeat's problems.
THREAD = "the heartbeat's thread"
RENEWAL = "renewing claims"


@dataclass(slots=True, eq=False)
class HeldClaim:
    """A claim that this process holds. Times are monotonic times of this process, in seconds.

    Attributes:
        lease: the instance and its fence.
        lasts: the length of the lease.
        trusted_until: until when the claim certainly holds.
        beat_at: when it must be renewed.
        deadline: when the task is failed.
        lost: whether the claim is known to be lost.
        overdue: whether the task ran too long and is being failed. The claim holds until that is stored.
        expire: fails the instance at its deadline.
    """

    lease: Lease
    lasts: float
    trusted_until: float
    beat_at: float
    deadline: float = math.inf
    lost: bool = False
    overdue: bool = False
    expire: Callable[[], None] = lambda: None

    @classmethod
    def since(cls, claimed_at: float, lease: Lease, lasts: float) -> HeldClaim:
        """Create the claim that was requested at that time."""
        return cls(lease, lasts, claimed_at + lasts * (1 - MARGIN), claimed_at + lasts / BEATS)

    @property
    def due_at(self) -> float:
        """When it must be renewed or failed."""
        return self.beat_at if self.overdue else min(self.beat_at, self.deadline)

    def is_lost(self) -> bool:
        """Return whether the claim may have been lost."""
        return self.lost or time.monotonic() > self.trusted_until

    def is_over(self) -> bool:
        """Return whether the task can no longer succeed: its claim is lost, or its timeout is over."""
        return self.overdue or self.is_lost()


class Heartbeat(DueThread[HeldClaim]):
    """Renews the claims of a process.

    Args:
        storage: the storage of the claims.
        problems: where problems are reported.
    """

    name = "triggers-heartbeat"
    place = THREAD
    work = RENEWAL
    without = "claims of this process are not renewed"

    def __init__(self, storage: Storage, problems: Problems | None = None) -> None:
        super().__init__(problems)
        self._storage = storage

    def hold(self, held: HeldClaim) -> bool:
        """Renew this claim until :meth:`drop`.

        Returns:
            Whether the claim is renewed. It is not if no thread can be started.
        """
        return self.add(held)

    @property
    def held(self) -> list[HeldClaim]:
        """The claims that are renewed now."""
        return self.items

    def act(self, due: list[HeldClaim]) -> None:
        """Renew the claims that are due."""
        self.beat(due)

    # a heartbeat

    def beat(self, due: list[HeldClaim]) -> None:
        """Renew these claims once. Start to fail those whose deadline is over."""
        for lasts in {one.lasts for one in due}:
            self._renew([one for one in due if one.lasts == lasts], lasts)
        for one in due:
            if one.deadline <= time.monotonic() and not (one.overdue or one.lost):
                self._begin_to_expire(one)
            if one.lost:
                self.drop(one)

    def _renew(self, held: list[HeldClaim], lasts: float) -> None:
        before = time.monotonic()
        try:
            lost = self._storage.renew([one.lease for one in held], round(lasts * 1e6))
        except BaseException as error:
            for one in held:
                one.beat_at = before + lasts / BEATS / BEATS
            if not isinstance(error, Exception):
                raise
            self._problems.report("storage", RENEWAL, error, "a heartbeat could not be stored; trying again")
            return
        for one in held:
            one.lost = one.lost or one.lease in lost
            one.beat_at = before + lasts / BEATS
            one.trusted_until = before + lasts * (1 - MARGIN)
        self._problems.resolve(RENEWAL)

    def _begin_to_expire(self, one: HeldClaim) -> None:
        name = f"triggers-timeout-{one.lease.task}#{one.lease.number}"
        one.overdue = True
        try:
            threading.Thread(target=self._expire, args=(one,), name=name, daemon=True).start()
        except RuntimeError as error:  # the system cannot start more threads
            one.overdue, one.deadline = False, time.monotonic() + ERROR_PAUSE
            self._problems.report("thread", "failing a task that ran too long", error, "trying again")

    def _expire(self, one: HeldClaim) -> None:
        """Fail the instance. Its claim is renewed until that is stored."""
        try:
            one.expire()
        except BaseException as error:  # noqa: BLE001 - whatever the error is, it concerns only this instance
            place = place_of(one.lease.uid, one.lease.task, one.lease.number)
            what = "its timeout could not be stored; its lease will expire"
            self._problems.report("storage", place, error, what)
        finally:
            one.lost = True
            self.drop(one)


def lease_of(task: TriggerTask | None, default: float) -> float:
    """Return how long a claim of the task lasts without a heartbeat, in seconds."""
    return default if task is None or task.lease is None else duration(task.lease).total_seconds()
