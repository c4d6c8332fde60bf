"""The base class of all private servers, and their errors."""

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
from triggers.testing.servers.process import TIMEOUT, Process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

Setting = str | int


class MissingServerError(TriggersError, LookupError):
    """This machine does not have the server. The message says what to install."""


class ServerError(TriggersError, RuntimeError):
    """The server did not start, or must not be stopped.

    The message has the end of what the server printed, if any.
    """


class Server(ABC):
    """A server for tests; see the package.

    Args:
        settings: settings of the server's configuration. They override those that are set here.
        private: whether to start a server even if the environment names one.
    """

    #: The name of the server in messages.
    name: str
    #: The environment variable that may name a running server, or "".
    variable: str = ""

    def __init__(self, *, settings: Mapping[str, Setting] | None = None, private: bool = False) -> None:
        self.settings: dict[str, Setting] = dict(settings or {})
        self._variable = "" if private else self.variable
        #: The URL in the environment, if this is a running server that tests connect to; else "".
        self.foreign_url: str = os.environ.get(self._variable, "") if self._variable else ""
        self.paused: bool = False
        self._folder: Path | None = None
        self._process: Process | None = None
        self._owner = os.getpid()

    @property
    @abstractmethod
    def url(self) -> str:
        """The address of the server. It is chosen at the first start, and does not change after that."""

    @property
    def private(self) -> bool:
        """Whether the server may be stopped and paused; false if the environment names it."""
        return not self.foreign_url

    @property
    def running(self) -> bool:
        """Whether the process of the server exists, paused or not."""
        return self._process is not None and self._process.runs

    @property
    def processes(self) -> list[int]:
        """The ids of all processes of the server, with those that watch it; empty if it does not run here."""
        return self._process.processes if self._process else []

    @property
    def folder(self) -> Path:
        """The folder of this server, with its data and its log. It is created on first use."""
        if self._folder is None:
            self._folder = Path(tempfile.mkdtemp(prefix="triggers-"))
            os.chown(self._folder, *self._user())
        return self._folder

    def start(self) -> Self:
        """Start the server, or start it again. It accepts connections when this returns.

        A second call does nothing.

        Raises:
            MissingServerError: this machine does not have the server.
            ServerError: the server ended at once, or did not accept connections in time.
        """
        if self.private and not self.running:
            self._program()  # first, because it may be missing
            first = self._process is None
            for attempt in range(3):
                if first:
                    self._choose_address()
                    self._prepare()
                problem = self._launch()
                if not problem:
                    break
                self.stop(immediate=True)
                # Another program took the port between choice and start. After the first start the address
                # must not change.
                if not first or attempt == 2 or "in use" not in problem:  # noqa: PLR2004 - the third attempt
                    raise ServerError(f"{self.name} did not start:\n{problem}")
        return self

    def stop(self, *, immediate: bool = False) -> None:
        """Stop the server and wait until it has ended. Its data are kept. A second call does nothing.

        Args:
            immediate: whether to stop it like a loss of power, so that it writes and sends nothing more.

        Raises:
            ServerError: the environment names the server, so it must not be stopped.
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
        """Suspend every process of the server (SIGSTOP).

        Connections stay open, and no request is answered.
        """
        if process := self._ours():
            process.signal_all(signal.SIGSTOP)
            self.paused = True

    def resume(self) -> None:
        """Continue the suspended processes of the server."""
        if process := self._ours():
            process.signal_all(signal.SIGCONT)
            self.paused = False

    def close(self) -> None:
        """Stop the server and remove its folder.

        In a forked process this does nothing: the parent owns the server.
        """
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
        """The version that the program prints, such as `15.14`."""
        said = subprocess.run([self._program(), "--version"], capture_output=True, text=True, check=True)  # noqa: S603 - a program that was found on this machine
        match = re.search(r"\d+\.\d+(\.\d+)?", said.stdout)
        return match[0] if match else said.stdout.strip()

    _gentle: signal.Signals = signal.SIGTERM

    def _missing(self, install: str, scheme: str = "") -> MissingServerError:
        """The error that the server is missing: how to install it, or how to name a running one."""
        other = f", or name a running server: {self._variable}={scheme}://…" if self._variable else ""
        return MissingServerError(f"this machine has no {self.name}: {install}{other}")

    def _ours(self) -> Process | None:
        if not self.private:
            raise ServerError(
                f"{self.name} is named by {self.variable}, so it must not be stopped or paused; "
                "use private=True to start a server of your own"
            )
        return self._process

    def _end_at_once(self, process: Process) -> None:
        process.signal_all(signal.SIGKILL)

    def _launch(self) -> str:
        """Start the process. Return "" when it accepts connections, or else what went wrong."""
        process = Process(self._command(), self.folder, user=self._user(), env=self._environment())
        self._process = process
        deadline = time.monotonic() + TIMEOUT
        while process.runs:
            with contextlib.suppress(OSError):
                if self._answers(process):
                    return ""
            if time.monotonic() > deadline:
                return f"it did not accept connections within {TIMEOUT:g} s\n{process.end_of_log()}"
            time.sleep(0.01)
        return process.end_of_log() or "it ended and printed nothing"

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
        """Create the files of the server, before its first start."""

    @abstractmethod
    def _command(self) -> Sequence[str | Path]: ...

    @abstractmethod
    def _answers(self, process: Process) -> bool: ...
