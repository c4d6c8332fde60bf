"""The log writer: store what running tasks have logged, while they run."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING

from triggers.worker.due_thread import DueThread

if TYPE_CHECKING:
    from triggers.logs import InstanceLog

#: The places of the log writer's problems.
THREAD = "the log writer's thread"
WRITING = "storing logs of running tasks"


class LogWriter(DueThread["InstanceLog"]):
    """Stores the waiting records of running attempts, each within the `flush_interval` of its log.

    A log is due when its first waiting record has that age. If the storage is unavailable, the log is due
    again and again. Without the thread, the next record of the task stores the waiting ones, or its end.
    """

    name = "triggers-log-writer"
    place = THREAD
    work = WRITING
    without = "what a task has logged is stored when it logs again, or when it ends"
    without_level = logging.WARNING

    def watch(self, log: InstanceLog) -> bool:
        """Write what waits in this log after its interval.

        Returns:
            Whether it will be written. It will not if no thread can be started.
        """
        if self._problems.is_paused(THREAD):
            return False
        log.due_at = time.monotonic() + log.settings.flush_interval.total_seconds()
        return self.add(log)

    def act(self, due: list[InstanceLog]) -> None:
        """Write these logs. A log that still has waiting records adds itself again."""
        for log in due:
            self.drop(log)
            log.write_waiting()
        self._problems.resolve(WRITING)


class ManualLogWriter(LogWriter):
    """A log writer without a thread, for tests with a virtual clock. They call :meth:`act`."""

    def _has_thread(self) -> bool:
        return True
