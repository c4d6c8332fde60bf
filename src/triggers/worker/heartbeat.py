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

from triggers.fork import reset_after_fork
from triggers.health import Problems, place_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from triggers.health import Vital
    from triggers.storages.base import Lease, Storage

#: How many heartbeats are sent in the length of a lease.
BEATS = 4

#: The heartbeat's thread ends after this time without a claim, in seconds.
IDLE = 10.0

#: The part of a lease, at its end, in which the worker no longer relies on the claim.
MARGIN = 0.1

#: The pause after an unexpected error, or if a thread cannot be started, in seconds.
ERROR_PAUSE = 0.1

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


class Heartbeat:
    """Renews the claims of a process in a thread that starts with the first claim.

    The thread ends after a while without a claim, and starts again with the next one. It survives every
    exception. If it dies anyway, another thread replaces it.

    Args:
        storage: the storage of the claims.
        problems: where problems are reported.
    """

    def __init__(self, storage: Storage, problems: Problems | None = None) -> None:
        self._storage = storage
        self._problems = Problems() if problems is None else problems
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Forget the claims, which belong to the parent process."""
        self._wake = threading.Condition()
        self._held: set[HeldClaim] = set()
        self._thread: threading.Thread | None = None
        self._idle = IDLE
        self._looks_at = 0.0

    def open(self) -> None:
        """Let the thread wait for further claims, also again after a :meth:`close`."""
        with self._wake:
            self._idle = IDLE

    def is_ready(self) -> bool:
        """Start the thread if it does not run; return whether it runs."""
        with self._wake:
            return self._has_thread()

    def hold(self, held: HeldClaim) -> bool:
        """Renew this claim until :meth:`drop`.

        Returns:
            Whether the claim is renewed. It is not if no thread can be started.
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
        """Stop renewing this claim. A second call does nothing."""
        with self._wake:
            self._held.discard(held)

    @property
    def held(self) -> list[HeldClaim]:
        """The claims that are renewed now."""
        with self._wake:
            return list(self._held)

    @property
    def vital(self) -> Vital:
        """Whether the claims are renewed."""
        with self._wake:
            if self._thread is not None and self._thread.is_alive():
                return "alive"
            return "dead" if self._held else "idle"

    def tend(self) -> None:
        """Start the thread again if it has died and there are claims."""
        with self._wake:
            if self._held:
                self._has_thread()

    def close(self) -> None:
        """Let the thread end as soon as there is no claim."""
        with self._wake:
            self._idle = 0.0
            self._wake.notify()

    # the thread

    def _has_thread(self) -> bool:
        """Start the thread if it does not run; return whether it runs. The caller holds the lock."""
        if self._thread is not None and self._thread.is_alive():
            return True
        thread = threading.Thread(target=self._loop, name="triggers-heartbeat", daemon=True)
        try:
            thread.start()
        except RuntimeError as error:  # the system cannot start more threads
            self._thread = None
            self._problems.report("thread", THREAD, error, "claims of this process are not renewed")
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
                if self._thread is threading.current_thread():  # it died
                    self._thread = None
                    self._has_thread()

    def _is_needed(self) -> bool:
        """Wait for due claims and renew them; return whether the thread must continue."""
        try:
            due = self._wait()
            if due is not None:
                self.beat(due)
        except BaseException as error:  # noqa: BLE001 - whatever the error is, the other claims must be renewed
            self._problems.report("thread", RENEWAL, error, "trying again")
            time.sleep(ERROR_PAUSE)
            return True
        return due is not None

    def _wait(self) -> list[HeldClaim] | None:
        """Wait until a claim may be due; return the due claims, or None if the thread must end."""
        with self._wake:
            now = time.monotonic()
            self._looks_at = min((one.due_at for one in self._held), default=now + self._idle)
            woken = self._wake.wait(max(self._looks_at - now, 0.0))
            if not self._held and not (woken and self._idle):
                self._thread = None
                return None
            return [one for one in self._held if one.due_at <= time.monotonic()]

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
