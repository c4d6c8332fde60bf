"""The sweep: let due timers elapse, recover lost claims, and dispatch due instances, from what is stored.

Instances are due if their hint was lost, if the cooldown of a retry is over, or if they were returned to the
queue. The sweep keeps no list of its own, so it can stop at any point, and any number of sweeps can run at
once.
"""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from triggers.core import decisions
from triggers.core.status import Status
from triggers.exceptions import StorageBusyError, StorageError
from triggers.fork import reset_after_fork
from triggers.health import Problems, place_of
from triggers.storages.in_time import commit_in_time
from triggers.task import registry
from triggers.worker.failures import forward_failure, lost_failure, publish_failure, worker_lost
from triggers.worker.pause import SweepPause
from triggers.worker.timers import OF_ONE, Timekeeper, publish_elapsed

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence

    from triggers.core.exchange import Changes
    from triggers.fired_by import FiredBy
    from triggers.health import Kind, Vital
    from triggers.manager import TriggerManager
    from triggers.storages.base import Expired, ReadyInstance, Storage
    from triggers.task import Registry

_log = logging.getLogger(__name__)

#: How many instances the sweep takes from the storage at a time.
BATCH = 200

#: The shortest pause between two sweeps, in seconds.
SHORTEST = 0.02

#: The pause between two sweeps varies by this part, so that many processes do not sweep at the same time.
JITTER = 0.25

#: How long the recovery of one instance waits for other decisions about its session, in seconds.
RECOVERY_TIMEOUT = 1.0

#: The places of the sweep's problems, and what is done about them.
THREAD = "the sweep's thread"
SWEEP = "the sweep"
NEXT = "a sweep failed; trying again in the next one"
SKIPPED = "it is skipped and tried again later; the others are recovered"


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What one sweep did.

    Attributes:
        recovered: how many instances were scheduled again because their lease had expired.
        failed: how many were failed because their crash budget was used up.
        dispatched: how many were dispatched to their runners.
    """

    recovered: int = 0
    failed: int = 0
    dispatched: int = 0


@dataclass(slots=True)
class Sweep:
    """Sweeps one storage.

    Attributes:
        storage: the storage.
        dispatch: gives instances to their runners; None if the process has no runner.
        policy_of: name of a manager → its policy, or None if this process does not have the manager.
        manager_of: makes the manager of a session, from the manager's name, the UID, and what fires.
        grace: the first pause before an instance is dispatched again, in microseconds.
        problems: where problems are reported.
        trial: how long a worker has to send a heartbeat before a crash is charged, in microseconds.
        tasks: the tasks of this process. The failures of their instances are logged on their loggers.
        managers: returns the names of the managers of this process. Timers of other sessions do not elapse.
        timekeeper: lets the timers elapse.
    """

    storage: Storage
    dispatch: Callable[[Sequence[ReadyInstance]], None] | None
    policy_of: decisions.PolicyOf
    manager_of: Callable[[str, str, FiredBy], TriggerManager]
    grace: int
    problems: Problems = field(default_factory=Problems)
    trial: int = decisions.TRIAL
    tasks: Registry = registry
    managers: Callable[[], Collection[str]] = lambda: ()
    timekeeper: Timekeeper = field(init=False)

    def __post_init__(self) -> None:
        self.timekeeper = Timekeeper(
            self.storage, self.managers, self.policy_of, self.manager_of, self.problems
        )

    def once(self, *, include_recent: bool = False) -> SweepReport:
        """Sweep until there is nothing more to do now.

        Args:
            include_recent: also dispatch a batch of instances that another process dispatched recently; it
                may have died.

        Raises:
            StorageError: the storage is unavailable; what was done so far is stored.
        """
        self.timekeeper.elapse()
        ends = self._recover_all()
        dispatched = self._dispatch(include_recent=include_recent)
        return SweepReport(ends.count("scheduled"), ends.count("failed"), dispatched)

    def dispatch_due(self) -> None:
        """Dispatch due instances, without looking for lost workers.

        Raises:
            StorageError: the storage is unavailable.
        """
        self._dispatch(include_recent=False)

    def _recover_all(self) -> list[str]:
        """Recover instances whose lease has expired; return their new statuses.

        Instances that cannot be read are skipped for a while, and do not count towards the batch.
        """
        ends: list[str] = []
        while True:
            known = len(self.problems)
            limit = BATCH + known
            expired = self.storage.expired(limit)
            found = [self._try_to_recover(lost) for lost in expired]
            ends += found
            if len(expired) < limit or not (any(found) or len(self.problems) > known):
                return ends

    def _try_to_recover(self, lost: Expired) -> str:
        """Recover one instance; return its new status, or "" if it was skipped or needs no recovery.

        Raises:
            StorageError: the storage is unavailable.
        """
        place = place_of(lost.uid, lost.task, lost.number)
        if self.problems.is_paused(place):
            return ""
        try:
            end = self._recover(lost)
        except StorageError as error:
            if not isinstance(error, OF_ONE):
                raise
            kind: Kind = "storage" if isinstance(error, StorageBusyError) else "unreadable"
            self.problems.report(kind, place, error, SKIPPED)
        except Exception as error:  # noqa: BLE001 - whatever the error is, the other instances must be recovered
            self.problems.report("unreadable", place, error, SKIPPED)
        else:
            self.problems.resolve(place)
            return end
        return ""

    def _dispatch(self, *, include_recent: bool) -> int:
        count = 0
        while self.dispatch and (
            due := self.storage.due(BATCH, grace=self.grace, include_recent=include_recent)
        ):
            self.dispatch(due)
            count += len(due)
            if include_recent or len(due) < BATCH:
                break
        return count

    def _recover(self, lost: Expired) -> str:
        """Recover one instance; return its new status, or "" if it needs no recovery."""
        failure = lost_failure(self.tasks)
        recovery = decisions.recover(
            self.policy_of, lost.task, lost.number, lost.fence, worker_lost, self.trial, log=failure.record
        )
        elapsed: list[Changes] = []
        try:
            changes = commit_in_time(
                self.storage, lost.uid, recovery, self.policy_of, elapsed, timeout=RECOVERY_TIMEOUT
            )
        finally:
            publish_elapsed(elapsed, self.manager_of)
        if changes.refused:
            return ""
        instance = changes.transitioned[0][0]
        if instance.status is Status.RUNNING:
            what = "session %r: the lease of %s has expired; its worker has %s s to send a heartbeat"
            _log.warning(what, lost.uid, instance.name, self.trial / 1e6)
        else:
            what = "session %r: %s has lost its worker and is %s"
            _log.warning(what, lost.uid, instance.name, instance.status)
        forward_failure(failure, changes)
        publish_failure(changes, self.manager_of)
        return instance.status.value


class Sweeper:
    """Sweeps in a thread of its own, and starts the other threads of the process again if they have died.

    The thread survives every exception. If it cannot start, a later :meth:`wake` or :meth:`start` tries it
    again.

    Args:
        sweep: the sweep.
        interval: the pause between two sweeps, in seconds. It is shorter if something is due earlier.
        tend: starts other threads that have died; called after each sweep.
        has_room: returns whether this process would run another instance at once.
    """

    def __init__(
        self,
        sweep: Sweep,
        interval: float,
        tend: Callable[[], None] = lambda: None,
        has_room: Callable[[], bool] = lambda: True,
    ) -> None:
        self._sweep = sweep
        self._problems = sweep.problems
        self._interval = interval
        self._tend = tend
        self._has_room = has_room
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Forget the thread of the parent process, as before :meth:`start`."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._look = threading.Event()
        self._stop = threading.Event()
        self._wanted = False

    def start(self) -> None:
        """Sweep once, also for instances of an earlier process, and start the thread.

        A second call in the same process does nothing, unless the thread has died, could not start, or was
        closed.
        """
        if self._is_alive():
            return
        self._wanted = True
        self._try(include_recent=True)
        self._begin()

    def wake(self) -> bool:
        """Check when the next instance is due. It can be earlier than before.

        Returns:
            Whether this process sweeps.
        """
        self._look.set()
        if self._wanted and not self._is_alive() and not self._problems.is_paused(THREAD):
            self._begin()
        return self._wanted

    def close(self, timeout: float | None = None) -> bool:
        """Stop after the current sweep; return whether the thread has ended.

        Args:
            timeout: how long to wait for that, in seconds; None for no limit.
        """
        with self._lock:
            thread, self._thread, self._wanted = self._thread, None, False
            self._stop.set()
            self._look.set()
        if thread is None or thread is threading.current_thread():
            return True
        thread.join(timeout)
        return not thread.is_alive()

    @property
    def vital(self) -> Vital:
        """Whether the sweep's thread is running, was stopped, or has died."""
        return "alive" if self._is_alive() else "dead" if self._wanted else "stopped"

    def run_once(self) -> None:
        """Sweep in this thread, now. Errors are logged."""
        self._try()

    def _is_alive(self) -> bool:
        thread = self._thread
        return thread is not None and thread.is_alive()

    def _begin(self) -> None:
        with self._lock:
            if self._is_alive() or not self._wanted:
                return
            stop = threading.Event()
            thread = threading.Thread(target=self._loop, args=(stop,), name="triggers-sweep", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:  # the system cannot start more threads
                self._problems.report("thread", THREAD, error, "trying again later")
                return
            self._thread, self._stop = thread, stop
        self._problems.resolve(THREAD)

    def _loop(self, stop: threading.Event) -> None:
        pause = SweepPause(
            self._sweep.storage, self._sweep.dispatch_due, self._has_room, self._look, self._problems
        )
        try:
            while not stop.is_set():
                pause.last(self._sweep_and_tend())
        finally:
            pause.close()

    def _sweep_and_tend(self) -> float:
        """Sweep, start threads that have died, and return the pause until the next sweep, in seconds."""
        try:
            pause = self._try()
            self._tend()
        except BaseException as error:  # noqa: BLE001 - for example a plugin that exits; the sweep must continue
            self._problems.report("thread", SWEEP, error, NEXT)
            return self._interval
        return pause

    def _try(self, *, include_recent: bool = False) -> float:
        """Sweep, and return the pause until the next sweep, in seconds."""
        full = self._interval * (1 + random.uniform(-JITTER, JITTER))  # noqa: S311 - it protects no secret
        storage = self._sweep.storage
        try:
            self._sweep.once(include_recent=include_recent)
            times = (storage.reader.next_at(), self._sweep.timekeeper.next_at())
            next_at = min((at for at in times if at is not None), default=None)
            now = storage.now()
        except Exception as error:  # noqa: BLE001 - whatever the error is, the next sweep must run
            self._problems.report("storage", SWEEP, error, NEXT)
            return full
        self._problems.resolve(SWEEP)
        if next_at is None or (next_at <= now and self._problems):  # overdue instances cannot be read
            return full
        return min(full, max((next_at - now) / 1e6, SHORTEST))
