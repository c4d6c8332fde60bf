"""The heartbeat: keeps a process's claims alive while their tasks run, and ends those that run too long."""

from __future__ import annotations

import logging
import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triggers.exceptions import StorageError
from triggers.fork import reset_after_fork

if TYPE_CHECKING:
    from collections.abc import Callable

    from triggers.storages.base import Lease, Storage

_log = logging.getLogger(__name__)

#: A heartbeat is sent so many times in the length of a lease.
BEATS = 4

#: The heartbeat's thread ends when it has had nothing to renew for so long, in seconds.
IDLE = 10.0

#: This part of a lease before its end, the worker stops trusting it.
MARGIN = 0.1


@dataclass(slots=True, eq=False)
class HeldClaim:
    """A claim that this process holds. Times are the process's monotonic ones, in seconds.

    Attributes:
        lease: which instance, with which fence.
        lasts: the length of its lease.
        trusted_until: until then it is surely ours.
        beat_at: when it is to be renewed.
        deadline: when the task is failed.
        lost: whether it is known that it is no longer ours.
        expire: fails the instance at its deadline.
    """

    lease: Lease
    lasts: float
    trusted_until: float
    beat_at: float
    deadline: float = math.inf
    lost: bool = False
    expire: Callable[[], None] = lambda: None

    @classmethod
    def since(cls, claimed_at: float, lease: Lease, lasts: float) -> HeldClaim:
        """A claim that was asked for at that time."""
        return cls(lease, lasts, claimed_at + lasts * (1 - MARGIN), claimed_at + lasts / BEATS)

    @property
    def due_at(self) -> float:
        """When it needs attention."""
        return min(self.beat_at, self.deadline)

    def is_lost(self) -> bool:
        """Whether the claim can no longer be counted on."""
        return self.lost or time.monotonic() > self.trusted_until


class Heartbeat:
    """Renews the claims of a process, from a thread of its own that starts with the first claim.

    The thread ends when nothing has been claimed for a while, and starts again with the next claim.
    """

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Hold nothing: the claims are the parent's."""
        self._wake = threading.Condition()
        self._held: set[HeldClaim] = set()
        self._thread: threading.Thread | None = None
        self._idle = IDLE
        self._looks_at = 0.0

    def hold(self, held: HeldClaim) -> None:
        """Renew this claim until :meth:`drop`."""
        with self._wake:
            self._held.add(held)
            if self._thread is None:
                self._thread = threading.Thread(target=self._loop, name="triggers-heartbeat", daemon=True)
                self._thread.start()
            elif held.due_at < self._looks_at:
                self._wake.notify()

    def drop(self, held: HeldClaim) -> None:
        """Renew it no longer."""
        with self._wake:
            self._held.discard(held)

    @property
    def held(self) -> list[HeldClaim]:
        """What this process holds now."""
        with self._wake:
            return list(self._held)

    def close(self) -> None:
        """Let the thread end as soon as nothing is held."""
        with self._wake:
            self._idle = 0.0
            self._wake.notify()

    def _loop(self) -> None:
        while True:
            with self._wake:
                now = time.monotonic()
                self._looks_at = min((one.due_at for one in self._held), default=now + self._idle)
                woken = self._wake.wait(max(self._looks_at - now, 0.0))
                if not self._held and not (woken and self._idle):
                    self._thread = None
                    return
                due = [one for one in self._held if one.due_at <= time.monotonic()]
            self.beat(due)

    def beat(self, due: list[HeldClaim]) -> None:
        """Renew these claims once, and fail those that are past their deadline."""
        for lasts in {one.lasts for one in due}:
            self._renew([one for one in due if one.lasts == lasts], lasts)
        for one in due:
            if one.deadline <= time.monotonic():
                one.lost = True
                one.expire()
            if one.lost:
                self.drop(one)

    def _renew(self, held: list[HeldClaim], lasts: float) -> None:
        before = time.monotonic()
        try:
            lost = self._storage.renew([one.lease for one in held], round(lasts * 1e6))
        except StorageError:
            _log.warning("a heartbeat could not be stored; it is tried again", exc_info=True)
            for one in held:
                one.beat_at = before + lasts / BEATS / BEATS
            return
        for one in held:
            one.lost = one.lost or one.lease in lost
            one.beat_at = before + lasts / BEATS
            one.trusted_until = before + lasts * (1 - MARGIN)
