"""A program of a server, under the keeper that ends it with this process."""

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

#: Seconds that a server may take to start, or to stop before it is killed.
PATIENCE = 90.0


class Process:
    """A program under a keeper that ends it with this process.

    Args:
        command: the program and its arguments.
        folder: where it runs, with what it prints; removed if this process is killed.
        user: the ids of the user and the group that it runs as.
        env: variables on top of this process's own.

    Attributes:
        pid: of its first process.
        log: the file with what it printed.
    """

    def __init__(
        self, command: Sequence[str | Path], folder: Path, *, user: tuple[int, int], env: Mapping[str, str]
    ) -> None:
        self.log = folder / f"{Path(command[0]).name}.log"
        head = [sys.executable, "-I", "-S", watchdog.__file__, str(os.getpid()), *map(str, user), str(folder)]
        with self.log.open("ab") as log:
            self._keeper = subprocess.Popen(  # noqa: S603 - programs that were found on this machine
                [*head, *map(str, command)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=log,
                cwd=folder,
                env={**os.environ, **env},
                start_new_session=True,  # Ctrl-C is for the tests, which then stop their servers
            )
        with self._keeper.stdout or contextlib.nullcontext() as answer:  # it is a pipe
            self.pid = int((answer.readline() if answer else b"") or 0)

    @property
    def runs(self) -> bool:
        """Whether it has not ended yet, paused or not."""
        return self._keeper.poll() is None

    def signal(self, number: int) -> None:
        """To the first process alone."""
        if self.runs:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def signal_all(self, number: int) -> None:
        """To the first process and all of its descendants."""
        if self.runs:
            watchdog.signal_family(self.pid, number)

    def wait(self) -> None:
        """Until it has ended; one that does not end is killed."""
        try:
            self._keeper.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self._keeper.terminate()
            self._keeper.wait()

    def end_of_log(self) -> str:
        """The last of what it printed."""
        return self.log.read_text("utf-8", "replace")[-2_000:].strip()
