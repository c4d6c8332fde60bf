"""The sweep: finds what nobody is looking after, from what is stored, again and again.

It rescues claims whose lease ran out and hands over what is due: instances whose hint was lost, retries
whose cooldown is over, work that came back. It keeps no list of its own, so it can die anywhere, and
any number of sweeps may run at once.
"""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from triggers.core import decisions
from triggers.core.status import Status
from triggers.exceptions import StorageCorruptError, StorageError
from triggers.fork import reset_after_fork
from triggers.health import Problems, place_of
from triggers.storages.base import ConflictError
from triggers.worker.executor import worker_lost

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triggers.health import Vital
    from triggers.storages.base import Expired, ReadyInstance, Storage

_log = logging.getLogger(__name__)

#: Rows that one statement of the sweep looks at.
BATCH = 200

#: The shortest pause between two sweeps, in seconds.
SHORTEST = 0.02

#: The pause between two sweeps varies by this part, so that many sweeps do not march in step.
JITTER = 0.25

#: What the sweep's problems are called.
THREAD = "the sweep's thread"
SWEEP = "the sweep"
NEXT = "a sweep failed; the next one tries again"
SKIPPED = "it is skipped, and tried again later; all others go on"

#: Errors of a storage that concern one session, or one row, alone.
OF_ONE = (ConflictError, StorageCorruptError)


@dataclass(frozen=True, slots=True)
class SweepReport:
    """What one sweep did.

    Attributes:
        recovered: instances scheduled again because their lease ran out.
        failed: instances failed because it ran out too often.
        dispatched: instances handed over to their runners.
    """

    recovered: int = 0
    failed: int = 0
    dispatched: int = 0


@dataclass(slots=True)
class Sweep:
    """Sweeps one storage.

    Attributes:
        storage: which.
        dispatch: offers instances to their runners; None where there are none.
        policy_of: name of a manager → its policy, None where this process lacks it.
        grace: the first pause before an instance is handed over again, in microseconds.
        problems: where it is noted what does not work.
        trial: how long a worker gets to show that it lives before a crash is charged, in microseconds.
    """

    storage: Storage
    dispatch: Callable[[Sequence[ReadyInstance]], None] | None
    policy_of: decisions.PolicyOf
    grace: int
    problems: Problems = field(default_factory=Problems)
    trial: int = decisions.TRIAL

    def once(self, *, include_recent: bool = False) -> SweepReport:
        """Sweep until nothing is left to do now.

        Args:
            include_recent: dispatch a batch also of what another process may just have dispatched before it
                died.

        Raises:
            StorageError: the storage is away; what was done so far is stored.
        """
        ends = self._recover_all()
        dispatched = self._dispatch(include_recent=include_recent)
        return SweepReport(ends.count("scheduled"), ends.count("failed"), dispatched)

    def _recover_all(self) -> list[str]:
        """Rescue what has lost its worker; returns the status of each instance then.

        What cannot be read is skipped for a while, and does not count towards the batch.
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
        """Rescue one claim, whatever is wrong with it; returns the status that it has then, "" for none.

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
            self.problems.report("unreadable", place, error, SKIPPED)
        except Exception as error:  # noqa: BLE001 - whatever is wrong with this one, the others are rescued
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
        """Rescue one claim; returns the status that it has then, "" if it was not to be rescued."""
        recovery = decisions.recover(
            self.policy_of, lost.task, lost.number, lost.fence, worker_lost, self.trial
        )
        changes = self.storage.commit(lost.uid, recovery)
        if changes.refused:
            return ""
        instance = changes.transitioned[0][0]
        if instance.status is Status.RUNNING:
            what = "session %r: %s has missed its heartbeats; its worker gets %s s to send another one"
            _log.warning(what, lost.uid, instance.name, self.trial / 1e6)
        else:
            _log.warning("session %r: %s lost its worker and is %s", lost.uid, instance.name, instance.status)
        return instance.status.value


class Sweeper:
    """Sweeps from a thread of its own, and sees to it that the other threads of the process live.

    It survives every exception. A thread that could not start is started by a later :meth:`wake`, or `start`.

    Args:
        sweep: what to do.
        interval: the pause between two sweeps, in seconds; shorter where something is known to be due sooner.
        tend: starts other threads that have died; called after each sweep.
    """

    def __init__(self, sweep: Sweep, interval: float, tend: Callable[[], None] = lambda: None) -> None:
        self._sweep = sweep
        self._problems = sweep.problems
        self._interval = interval
        self._tend = tend
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Be as before :meth:`start`."""
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._look = threading.Event()
        self._stop = threading.Event()
        self._wanted = False

    def start(self) -> None:
        """Sweep once for what an earlier process released and did not run, then begin; again after a `close`.

        A second call in the same process does nothing, unless the thread has died or could not start.
        """
        if self._is_alive():
            return
        self._wanted = True
        self._try(include_recent=True)
        self._begin()

    def wake(self) -> None:
        """Look now when the next thing is due: it may be sooner than it was."""
        self._look.set()
        if self._wanted and not self._is_alive() and not self._problems.is_paused(THREAD):
            self._begin()

    def close(self, timeout: float | None = None) -> bool:
        """End, after the sweep that is under way; returns whether it has ended.

        Args:
            timeout: how long to wait for that, in seconds; None until it has ended.
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
        """Whether it sweeps."""
        return "alive" if self._is_alive() else "dead" if self._wanted else "stopped"

    def run_once(self) -> None:
        """Sweep here and now; what goes wrong is logged."""
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
            except RuntimeError as error:  # the system has no thread left
                self._problems.report("thread", THREAD, error, "it is started later")
                return
            self._thread, self._stop = thread, stop
        self._problems.resolve(THREAD)

    def _loop(self, stop: threading.Event) -> None:
        while not stop.is_set():
            try:
                pause = self._try()
                self._tend()
            except BaseException as error:  # noqa: BLE001 - a plugin that exits, say: the sweep goes on
                self._problems.report("thread", SWEEP, error, NEXT)
                pause = self._interval
            self._look.wait(pause)
            self._look.clear()

    def _try(self, *, include_recent: bool = False) -> float:
        """Sweep, and say how long the pause is until the next time, in seconds."""
        full = self._interval * (1 + random.uniform(-JITTER, JITTER))  # noqa: S311 - nothing secret hangs on it
        storage = self._sweep.storage
        try:
            self._sweep.once(include_recent=include_recent)
            next_at = storage.reader.next_at()
            now = storage.now()
        except Exception as error:  # noqa: BLE001 - whatever it is, the next sweep starts from what is stored
            self._problems.report("storage", SWEEP, error, NEXT)
            return full
        self._problems.resolve(SWEEP)
        if next_at is None or (next_at <= now and self._problems):  # what is late is what cannot be read
            return full
        return min(full, max((next_at - now) / 1e6, SHORTEST))
