"""What all private servers can do, and how it goes wrong."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from abc import ABC, abstractmethod
from pathlib import Path
from typing import TYPE_CHECKING, Self

from triggers.exceptions import TriggersError
from triggers.testing.servers.process import PATIENCE, Process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Setting = str | int


class MissingServerError(TriggersError, LookupError):
    """This machine has no such server; the message says what to install."""


class ServerError(TriggersError, RuntimeError):
    """The server did not start, or is not ours to stop; the message has the end of what it printed."""


class Server(ABC):
    """What all private servers can do; see the module.

    Args:
        settings: lines of the server's configuration, on top of and before those that are set here.
        private: start one even if the environment names a server.
    """

    #: What it is called in messages.
    name: str
    #: The environment's variable that names a running server; "" if there is none.
    variable: str = ""

    def __init__(self, *, settings: Mapping[str, Setting] | None = None, private: bool = False) -> None:
        self.settings = dict(settings or {})
        self._variable = "" if private else self.variable
        #: The URL in the environment, if this is a server that is only connected to.
        self.foreign_url = os.environ.get(self._variable, "") if self._variable else ""
        self.paused = False
        self._folder: Path | None = None
        self._process: Process | None = None
        self._owner = os.getpid()

    @property
    @abstractmethod
    def url(self) -> str:
        """The address, the same for the whole life of the server. It has one from the first start on."""

    @property
    def private(self) -> bool:
        """Whether the server is ours to stop: not one that the environment names."""
        return not self.foreign_url

    @property
    def running(self) -> bool:
        """Whether the server's process is there, paused or not."""
        return self._process is not None and self._process.runs

    @property
    def folder(self) -> Path:
        """The folder of this server alone, with its data and what it printed."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="triggers-"))
            os.chown(self._folder, *self._user())
        return self._folder

    def start(self) -> Self:
        """Start the server, or start it again; it answers afterwards. A running one is left alone.

        Raises:
            MissingServerError: there is none on this machine.
            ServerError: it ended at once, or did not answer in time.
        """
        if self.private and not self.running:
            self._program()  # before anything is made: there may be none
            first = self._process is None
            for attempt in range(3):
                if first:
                    self._choose_address()
                    self._prepare()
                problem = self._launch()
                if not problem:
                    break
                self.stop(immediate=True)
                # The port was taken between choice and start. Later the address may not change any more.
                if not first or attempt == 2 or "in use" not in problem:  # noqa: PLR2004 - the third time
                    raise ServerError(f"{self.name} did not start:\n{problem}")
        return self

    def stop(self, *, immediate: bool = False) -> None:
        """End the server and wait for that; its data stay. One that does not run is left alone.

        Args:
            immediate: like a loss of power: nothing is written or said any more.

        Raises:
            ServerError: the server is one that the environment names.
        """
        process = self._ours()
        if process is None or not process.runs:
            return
        if immediate:
            self._end_at_once(process)
        else:
            process.signal(self._gentle)
        process.signal_all(signal.SIGCONT)
        process.wait()
        self.paused = False

    def pause(self) -> None:
        """Stop every process of the server where it stands (SIGSTOP): connections stay, nobody answers."""
        if process := self._ours():
            process.signal_all(signal.SIGSTOP)
            self.paused = True

    def resume(self) -> None:
        """Let the paused processes go on."""
        if process := self._ours():
            process.signal_all(signal.SIGCONT)
            self.paused = False

    def close(self) -> None:
        """Stop the server and remove its folder. In a forked process nothing happens: it is its parent's."""
        if os.getpid() != self._owner or not self.private:
            return
        self.stop(immediate=True)
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = self._process = None

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def version(self) -> str:
        """What the program says about its version, such as `15.14`."""
        said = subprocess.run([self._program(), "--version"], capture_output=True, text=True, check=True)  # noqa: S603 - found on this machine
        match = re.search(r"\d+\.\d+(\.\d+)?", said.stdout)
        return match[0] if match else said.stdout.strip()

    _gentle: signal.Signals = signal.SIGTERM

    def _missing(self, install: str, scheme: str = "") -> MissingServerError:
        """That it is not on this machine, and what to do; one that may be named, also how."""
        other = f", or name one that runs: {self._variable}={scheme}://…" if self._variable else ""
        return MissingServerError(f"no {self.name} on this machine: {install}{other}")

    def _ours(self) -> Process | None:
        if not self.private:
            raise ServerError(
                f"this {self.name} is named by {self.variable}, so it is not stopped or paused; "
                "one that is: private=True"
            )
        return self._process

    def _end_at_once(self, process: Process) -> None:
        process.signal_all(signal.SIGKILL)

    def _launch(self) -> str:
        """Start the process; "" once it answers, or else what went wrong."""
        process = Process(self._command(), self.folder, user=self._user(), env=self._environment())
        self._process = process
        deadline = time.monotonic() + PATIENCE
        while process.runs:
            with contextlib.suppress(OSError):
                if self._answers(process):
                    return ""
            if time.monotonic() > deadline:
                return f"no answer within {PATIENCE:g} s\n{process.end_of_log()}"
            time.sleep(0.01)
        return process.end_of_log() or "it ended without a word"

    def _user(self) -> tuple[int, int]:
        return os.geteuid(), os.getegid()

    def _environment(self) -> Mapping[str, str]:
        return {}

    @abstractmethod
    def _choose_address(self) -> None: ...

    @abstractmethod
    def _program(self) -> Path: ...

    @abstractmethod
    def _prepare(self) -> None:
        """What is done once, before the first start."""

    @abstractmethod
    def _command(self) -> Sequence[str | Path]: ...

    @abstractmethod
    def _answers(self, process: Process) -> bool: ...
