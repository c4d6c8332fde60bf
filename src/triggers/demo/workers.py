"""Celery workers as separate processes: starts them, restarts them, and kills them if requested."""

from __future__ import annotations

import os
import random
import select
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING, Self

from triggers.demo.celery_worker import BROKER, STORAGE, celery_app
from triggers.exceptions import TriggersError
from triggers.runners.celery import CeleryRunner
from triggers.testing.servers.watchdog import family

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from triggers.demo.main import Progress

#: How many workers there are; each has child processes that run tasks.
WORKERS = 2

#: Seconds between two checks of the workers.
LOOK = 0.1

#: Average number of seconds between two kills.
KILL_PAUSE = 1.0

#: The age from which a sweep dispatches a scheduled instance again: its message may wait in the queue.
GRACE = timedelta(seconds=10)
GRACE_AMONG_KILLS = timedelta(seconds=5)

#: If so many workers have ended by themselves before they were ready, the run fails.
ENDS = 3


class WorkersError(TriggersError, RuntimeError):
    """The workers end by themselves; the message has the last lines of their output."""


class Workers:
    """The workers, as a context manager. They end with it, and with this process in any case.

    Args:
        storage_url: the storage of the sessions.
        broker_url: the broker of Celery.
        log: the file to which their output is appended.
        processes: how many processes run tasks, in all workers together.
        kill: whether to kill a random process when the first worker is ready, and then each time that all
            workers have been ready for about a second.

    Attributes:
        runner: dispatches instances to them.
        grace: the age from which a sweep dispatches a scheduled instance again.
        killed: how many processes were killed so far.
    """

    def __init__(
        self, storage_url: str, broker_url: str, log: Path, *, processes: int, kill: bool = False
    ) -> None:
        self._environment = {**os.environ, STORAGE: storage_url, BROKER: broker_url}
        self._log = log
        self._each = max(processes // WORKERS, 1)
        self._kill = kill
        self._over = threading.Event()
        self._workers: list[WorkerProcess] = []
        self._keeper = threading.Thread(target=self._keep, name="demo-workers", daemon=True)
        self._ends = 0
        self.killed: int = 0
        self.grace: timedelta = GRACE_AMONG_KILLS if kill else GRACE
        self.runner: CeleryRunner = CeleryRunner(celery_app(broker_url))

    def __enter__(self) -> Self:
        self._workers = [self._begin(number) for number in range(WORKERS)]
        self._keeper.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._keeper.join()
        for worker in self._workers:
            worker.end()

    def watched(self, progress: Progress) -> Progress:
        """Return a progress function that also raises :class:`WorkersError` if workers end by themselves."""

        def watched(what: str, done: int, total: int) -> None:
            self._check()
            progress(what, done, total)

        return watched

    def _check(self) -> None:
        if self._ends >= ENDS:
            said = self._log.read_text("utf-8", "replace").strip().splitlines()[-10:]
            problem = f"the Celery workers end by themselves; the end of {self._log}:"
            raise WorkersError("\n".join([problem, *said]))

    def _begin(self, number: int) -> WorkerProcess:
        command = [sys.executable, "-m", "triggers.demo.celery_worker", f"demo{number}", str(self._each)]
        return WorkerProcess([*command, str(self.grace.total_seconds())], self._log, self._environment)

    def _keep(self) -> None:
        """In a thread: restart workers that have ended, and kill processes.

        The first one is killed as soon as one worker is ready, because that worker can do all the work before
        the others are. Before each further kill, all are ready. Otherwise, on a slow machine, none would
        ever be ready.
        """
        kill_at = 0.0
        while not self._over.wait(LOOK):
            for number, worker in enumerate(self._workers):
                if worker.has_ended and self._ends < ENDS:
                    self._ends += worker.failed_to_start
                    worker.end()
                    self._workers[number] = self._begin(number)
            ready = [worker for worker in self._workers if worker.is_ready]
            if kill_at and len(ready) < len(self._workers):
                kill_at = _soon()
            elif self._kill and ready and time.monotonic() >= kill_at:
                self._kill_one(ready)
                kill_at = _soon()

    def _kill_one(self, workers: list[WorkerProcess]) -> None:
        processes = [pid for worker in workers for pid in family(worker.process.pid)]
        with suppress(ProcessLookupError):
            os.kill(random.choice(processes), signal.SIGKILL)  # noqa: S311 - no secret
            self.killed += 1


def _soon() -> float:
    return time.monotonic() + KILL_PAUSE * random.uniform(0.5, 1.5)  # noqa: S311 - no secret


class WorkerProcess:
    """One worker: its main process, which leads a process group."""

    def __init__(self, command: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
        with log.open("ab") as file:
            self.process: subprocess.Popen[bytes] = subprocess.Popen(  # noqa: S603 - our own program
                command,
                stdin=subprocess.PIPE,  # its lifeline
                stdout=subprocess.PIPE,
                stderr=file,
                env=environment,
                start_new_session=True,
            )
        self._ready = False

    @property
    def is_ready(self) -> bool:
        """Whether the worker takes messages: it has printed that line."""
        output = self.process.stdout
        if not self._ready and output is not None and select.select([output], [], [], 0)[0]:
            self._ready = bool(os.read(output.fileno(), 64))
        return self._ready

    @property
    def has_ended(self) -> bool:
        """Whether the main process has ended, in any way."""
        return self.process.poll() is not None

    @property
    def failed_to_start(self) -> bool:
        """Whether the worker has ended by itself before it was ready."""
        return self.has_ended and self.process.returncode != -signal.SIGKILL and not self.is_ready

    def end(self) -> None:
        """Kill all processes of the worker that are left; the tasks that they run are recovered."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.communicate()
