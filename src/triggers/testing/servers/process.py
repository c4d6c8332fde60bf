"""The process of a server, under a watchdog that ends it with this process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from triggers.testing.servers import watchdog

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

#: How many seconds a server may take to start, or to stop before it is killed.
TIMEOUT = 90.0


class Process:
    """A program under a watchdog, which ends it when this process ends.

    Args:
        command: the program and its arguments.
        folder: the working folder, which also has the log. It is removed if this process is killed.
        user: the ids of the user and the group that the program runs as.
        env: environment variables in addition to those of this process.

    Attributes:
        pid: the id of the program's first process.
        log: the file with what the program printed.
    """

    def __init__(
        self, command: Sequence[str | Path], folder: Path, *, user: tuple[int, int], env: Mapping[str, str]
    ) -> None:
        self.log: Path = folder / f"{Path(command[0]).name}.log"
        head = [sys.executable, "-I", "-S", watchdog.__file__, str(os.getpid()), *map(str, user), str(folder)]
        with self.log.open("ab") as log:
            self._watchdog = subprocess.Popen(  # noqa: S603 - programs that were found on this machine
                [*head, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                env={**os.environ, **env},
                start_new_session=True,  # Ctrl-C interrupts the tests, which then stop their servers
            )
        with self._watchdog.stdout or contextlib.nullcontext() as answer:  # it is always a pipe
            self.pid: int = int((answer.readline() if answer else b"") or 0)

    @property
    def runs(self) -> bool:
        """Whether the program has not ended yet, paused or not."""
        return self._watchdog.poll() is None

    @property
    def processes(self) -> list[int]:
        """The ids of the watchdog, the program and all of its descendants that exist now."""
        return watchdog.family(self._watchdog.pid)

    def signal(self, number: int) -> None:
        """Send a signal to the first process alone."""
        if self.runs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def signal_all(self, number: int) -> None:
        """Send a signal to the first process and all of its descendants."""
        if self.runs:
            watchdog.signal_family(self.pid, number)

    def wait(self) -> None:
        """Wait until the program has ended. Kill it if it does not end in time."""
        try:
            self._watchdog.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self._watchdog.terminate()
            self._watchdog.wait()

    def end_of_log(self) -> str:
        """Return the last 2,000 characters that the program printed."""
        return self.log.read_text("utf-8", "replace")[-2_000:].strip()
