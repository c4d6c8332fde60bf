"""The sweep: finds what nobody is looking after, from what is stored, again and again.

It rescues claims whose lease ran out and hands over what is due: instances whose hint was lost, retries
whose cooldown is over, work that came back. It keeps no list of its own, so it can die anywhere, and
any number of sweeps may run at once.
"""

from __future__ import annotations

import logging
import random
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from triggers.core import decisions
from triggers.fork import reset_after_fork
from triggers.worker.executor import worker_lost

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triggers.storages.base import Expired, ReadyInstance, Storage

_log = logging.getLogger(__name__)

#: Rows that one statement of the sweep looks at.
BATCH = 200

#: The shortest pause between two sweeps, in seconds.
SHORTEST = 0.02

#: The pause between two sweeps varies by this part, so that many sweeps do not march in step.
JITTER = 0.25


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
    """

    storage: Storage
    dispatch: Callable[[Sequence[ReadyInstance]], None] | None
    policy_of: decisions.PolicyOf
    grace: int

    def once(self, *, include_recent: bool = False) -> SweepReport:
        """Sweep until nothing is left to do now.

        Args:
            include_recent: dispatch a batch also of what another process may just have dispatched before it
                died.

        Raises:
            StorageError: the storage is away; what was done so far is stored.
        """
        recovered = failed = 0
        while expired := self.storage.expired(BATCH):
            ends = [self._recover(lost) for lost in expired]
            recovered, failed = recovered + ends.count("scheduled"), failed + ends.count("failed")
            if len(expired) < BATCH or not any(ends):
                break
        return SweepReport(recovered, failed, self._dispatch(include_recent=include_recent))

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
        recovery = decisions.recover(self.policy_of, lost.task, lost.number, lost.fence, worker_lost)
        changes = self.storage.commit(lost.uid, recovery)
        if changes.refused:
            return ""
        instance = changes.transitioned[0][0]
        _log.warning("session %r: %s lost its worker and is %s", lost.uid, instance.name, instance.status)
        return instance.status.value


class Sweeper:
    """Sweeps from a thread of its own.

    Args:
        sweep: what to do.
        interval: the pause between two sweeps, in seconds; shorter where something is known to be due sooner.
    """

    def __init__(self, sweep: Sweep, interval: float) -> None:
        self._sweep = sweep
        self._interval = interval
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Be as before :meth:`start`."""
        self._thread: threading.Thread | None = None
        self._look = threading.Event()
        self._closed = False

    def start(self) -> None:
        """Sweep once for what an earlier process released and did not run, then begin.

        A second call in the same process does nothing.
        """
        if self._thread is not None:
            return
        self._closed = False
        self._try(include_recent=True)
        self._thread = threading.Thread(target=self._loop, name="triggers-sweep", daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Look now when the next thing is due: it may be sooner than it was."""
        self._look.set()

    def close(self) -> None:
        """End, after the sweep that is under way."""
        self._closed = True
        self._look.set()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()
        self._thread = None

    def _loop(self) -> None:
        while not self._closed:
            self._look.wait(self._try())
            self._look.clear()

    def run_once(self) -> None:
        """Sweep here and now; what goes wrong is logged."""
        self._try()

    def _try(self, *, include_recent: bool = False) -> float:
        """Sweep, and say how long the pause is until the next time, in seconds."""
        full = self._interval * (1 + random.uniform(-JITTER, JITTER))  # noqa: S311 - nothing secret hangs on it
        storage = self._sweep.storage
        try:
            self._sweep.once(include_recent=include_recent)
            next_at = storage.reader.next_at()
        except Exception:  # noqa: BLE001 - whatever it is, the next sweep starts from what is stored
            _log.warning("a sweep failed; the next one tries again", exc_info=True)
            return full
        return full if next_at is None else min(full, max((next_at - storage.now()) / 1e6, SHORTEST))
