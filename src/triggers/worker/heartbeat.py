"""The heartbeat: keeps a process's claims alive while their tasks run, and ends those that run too long.

Renewing waits for nothing but the storage's own `renew`. A task that ran too long is failed by a thread of
its own, since that takes a commit, which may have to wait for a session that somebody has locked.
"""

from __future__ import annotations

import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triggers.fork import reset_after_fork
from triggers.health import Problems, place_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from triggers.health import Vital
    from triggers.storages.base import Lease, Storage

#: A heartbeat is sent so many times in the length of a lease.
BEATS = 4

#: The heartbeat's thread ends when it has had nothing to renew for so long, in seconds.
IDLE = 10.0

#: This part of a lease before its end, the worker stops trusting it.
MARGIN = 0.1

#: After an error that it does not expect, and where no thread can be started, it waits so long, in seconds.
ERROR_PAUSE = 0.1

#: What the heartbeat's problems are called.
THREAD = "the heartbeat's thread"
RENEWAL = "renewing claims"


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
        overdue: whether the task ran too long, and is being failed; the claim is ours until that is stored.
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
        """A claim that was asked for at that time."""
        return cls(lease, lasts, claimed_at + lasts * (1 - MARGIN), claimed_at + lasts / BEATS)

    @property
    def due_at(self) -> float:
        """When it needs attention."""
        return self.beat_at if self.overdue else min(self.beat_at, self.deadline)

    def is_lost(self) -> bool:
        """Whether the claim can no longer be counted on."""
        return self.lost or time.monotonic() > self.trusted_until

    def is_over(self) -> bool:
        """Whether the task works for nothing: the claim is lost, or its time was up."""
        return self.overdue or self.is_lost()


class Heartbeat:
    """Renews the claims of a process, from a thread of its own that starts with the first claim.

    The thread ends when nothing has been claimed for a while, and starts again with the next claim. It
    survives every exception. If it dies all the same it starts another one in its place.
    """

    def __init__(self, storage: Storage, problems: Problems | None = None) -> None:
        self._storage = storage
        self._problems = Problems() if problems is None else problems
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Hold nothing: the claims are the parent's."""
        self._wake = threading.Condition()
        self._held: set[HeldClaim] = set()
        self._thread: threading.Thread | None = None
        self._idle = IDLE
        self._looks_at = 0.0

    def open(self) -> None:
        """Keep the thread for a while where nothing is held; again after a :meth:`close`."""
        with self._wake:
            self._idle = IDLE

    def is_ready(self) -> bool:
        """Whether there is a thread that would renew a claim; it is started if there is none."""
        with self._wake:
            return self._has_thread()

    def hold(self, held: HeldClaim) -> bool:
        """Renew this claim until :meth:`drop`.

        Returns:
            False, and the claim is not held, if no thread can be started that would renew it.
        """
        with self._wake:
            self._held.add(held)
            if not self._has_thread():
                self._held.discard(held)
                return False
            if held.due_at < self._looks_at:
                self._wake.notify()
            return True

    def drop(self, held: HeldClaim) -> None:
        """Renew it no longer."""
        with self._wake:
            self._held.discard(held)

    @property
    def held(self) -> list[HeldClaim]:
        """What this process holds now."""
        with self._wake:
            return list(self._held)

    @property
    def vital(self) -> Vital:
        """Whether what is held is renewed."""
        with self._wake:
            if self._thread is not None and self._thread.is_alive():
                return "alive"
            return "dead" if self._held else "idle"

    def tend(self) -> None:
        """Start the thread again if it has died and claims are held."""
        with self._wake:
            if self._held:
                self._has_thread()

    def close(self) -> None:
        """Let the thread end as soon as nothing is held."""
        with self._wake:
            self._idle = 0.0
            self._wake.notify()

    # -- the thread -------------------------------------------------------------------------------------

    def _has_thread(self) -> bool:
        """Whether the thread runs, which is started if it does not; the lock is held."""
        if self._thread is not None and self._thread.is_alive():
            return True
        thread = threading.Thread(target=self._loop, name="triggers-heartbeat", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system has no thread left
            self._thread = None
            self._problems.report("thread", THREAD, error, "what is claimed here is not renewed")
            return False
        self._thread = thread
        self._problems.resolve(THREAD)
        return True

    def _loop(self) -> None:
        try:
            while self._is_needed():
                pass
        finally:
            with self._wake:
                if self._thread is threading.current_thread():  # it did not end as it should
                    self._thread = None
                    self._has_thread()

    def _is_needed(self) -> bool:
        """Wait for what is due and see to it; returns whether the thread is to go on."""
        try:
            due = self._wait()
            if due is not None:
                self.beat(due)
        except BaseException as error:  # noqa: BLE001 - whatever it is, other claims are still to be renewed
            self._problems.report("thread", RENEWAL, error, "it is tried again")
            time.sleep(ERROR_PAUSE)
            return True
        return due is not None

    def _wait(self) -> list[HeldClaim] | None:
        """What is due, once something is or may be; None if the thread is to end."""
        with self._wake:
            now = time.monotonic()
            self._looks_at = min((one.due_at for one in self._held), default=now + self._idle)
            woken = self._wake.wait(max(self._looks_at - now, 0.0))
            if not self._held and not (woken and self._idle):
                self._thread = None
                return None
            return [one for one in self._held if one.due_at <= time.monotonic()]

    # -- a beat -----------------------------------------------------------------------------------------

    def beat(self, due: list[HeldClaim]) -> None:
        """Renew these claims once, and begin to fail those that are past their deadline."""
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
            self._problems.report(
                "storage", RENEWAL, error, "a heartbeat could not be stored; it is tried again"
            )
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
        except RuntimeError as error:  # the system has no thread left
            one.overdue, one.deadline = False, time.monotonic() + ERROR_PAUSE
            self._problems.report("thread", "failing a task that ran too long", error, "it is tried again")

    def _expire(self, one: HeldClaim) -> None:
        """Fail the instance; until that is stored, its claim is renewed."""
        try:
            one.expire()
        except BaseException as error:  # noqa: BLE001 - of whatever kind, it is for this instance alone
            place = place_of(one.lease.uid, one.lease.task, one.lease.number)
            what = "its timeout could not be stored; its lease runs out"
            self._problems.report("storage", place, error, what)
        finally:
            one.lost = True
            self.drop(one)
