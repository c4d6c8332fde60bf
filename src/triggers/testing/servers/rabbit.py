"""A private RabbitMQ node for tests."""

from __future__ import annotations

import os
import re
import secrets
import shutil
import signal
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from triggers.testing.servers.address import free_port
from triggers.testing.servers.base import MissingServerError, Server
from triggers.testing.servers.process import TIMEOUT, Process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from triggers.testing.servers.base import Setting


class RabbitServer(Server):
    """A private RabbitMQ node, with its own Erlang port mapper and cookie. It takes seconds to start.

    Args:
        settings: settings of rabbitmq.conf, such as `{"consumer_timeout": 60000}`.
        private: whether to start a server even if `TRIGGERS_TEST_RABBITMQ` names one.
    """

    name = "RabbitMQ"
    variable = "TRIGGERS_TEST_RABBITMQ"

    def __init__(self, *, settings: Mapping[str, Setting] | None = None, private: bool = False) -> None:
        super().__init__(settings=settings, private=private)
        self._password = secrets.token_hex(16)
        self._port = self._mapper_port = self._node_port = 0
        self._mapper: Process | None = None

    @property
    def url(self) -> str:
        """The URL over TCP on the loopback interface, with the password and the virtual host `/`."""
        return self.foreign_url or f"amqp://triggers:{self._password}@127.0.0.1:{self._port}//"

    @property
    def processes(self) -> list[int]:
        """The ids of all processes of the node and its port mapper, with those that watch them."""
        return super().processes + (self._mapper.processes if self._mapper else [])

    def close(self) -> None:
        """Stop the node and its port mapper, and remove the folder."""
        if self._mapper is not None and os.getpid() == self._owner:
            self._mapper.signal_all(signal.SIGKILL)
            self._mapper.wait()
            self._mapper = None
        super().close()

    def _choose_address(self) -> None:
        self._port, self._mapper_port, self._node_port = free_port(), free_port(), free_port()

    def _program(self) -> Path:
        # Debian's script on PATH changes the user, which requires root and the folders of the service.
        debian = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
        on_path = shutil.which("rabbitmq-server")
        if not debian.exists() and not on_path:
            raise self._missing("install it (on Debian: apt-get install rabbitmq-server)", "amqp")
        return debian if debian.exists() else Path(str(on_path))

    @property
    def version(self) -> str:
        """The version that the running node reports, such as `3.10.8`."""
        match = re.search(rb"\x07versionS...(.\d[\d.]+)", self._greeting(), re.DOTALL)
        return match[1][1:].decode() if match else ""

    def _greeting(self) -> bytes:
        address = urlsplit(self.url)
        with socket.create_connection((address.hostname, address.port or 5672), TIMEOUT) as connection:
            connection.sendall(b"AMQP\x00\x00\x09\x01")
            return connection.recv(4096)

    def _prepare(self) -> None:
        (self.folder / "env.conf").touch()
        (self.folder / "plugins").write_text("[].\n", "utf-8")
        settings: dict[str, Setting] = {
            "listeners.tcp.local": f"127.0.0.1:{self._port}",
            "default_user": "triggers",
            "default_pass": self._password,
            "disk_free_limit.absolute": "50MB",
            **self.settings,
        }
        lines = "".join(f"{name} = {value}\n" for name, value in settings.items())
        (self.folder / "rabbitmq.conf").write_text(lines, "utf-8")

    def _environment(self) -> Mapping[str, str]:
        folder = str(self.folder)
        return {
            "HOME": folder,  # the folder of the Erlang cookie
            "ERL_EPMD_PORT": str(self._mapper_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODENAME": f"triggers{self._port}@localhost",
            "RABBITMQ_DIST_PORT": str(self._node_port),
            "RABBITMQ_CONF_ENV_FILE": f"{folder}/env.conf",
            "RABBITMQ_CONFIG_FILE": f"{folder}/rabbitmq.conf",
            "RABBITMQ_ADVANCED_CONFIG_FILE": f"{folder}/advanced.config",
            "RABBITMQ_ENABLED_PLUGINS_FILE": f"{folder}/plugins",
            "RABBITMQ_MNESIA_BASE": f"{folder}/data",
            "RABBITMQ_LOG_BASE": f"{folder}/log",
            "RABBITMQ_LOGS": "-",
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "RUNNING_UNDER_SYSTEMD": "true",  # the script becomes the node, instead of waiting for it
        }

    def _launch(self) -> str:
        # Unless a node finds a port mapper, it starts one that outlives it.
        if self._mapper is None or not self._mapper.runs:
            mapper = shutil.which("epmd")
            if not mapper:
                raise MissingServerError("RabbitMQ is installed, but Erlang's epmd is not on PATH: add it")
            self._mapper = Process([mapper], self.folder, user=self._user(), env=self._environment())
        return super()._launch()

    def _command(self) -> Sequence[str | Path]:
        return [self._program()]

    def _answers(self, _: Process) -> bool:
        return self._greeting()[:1] == b"\x01"  # a method frame: connection.start
