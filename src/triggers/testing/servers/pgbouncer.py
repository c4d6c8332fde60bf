"""A private PgBouncer in front of a private PostgreSQL."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, quote, unquote, urlsplit

from triggers.testing.servers.address import free_port, nobody
from triggers.testing.servers.base import Server

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from triggers.testing.servers.base import Setting
    from triggers.testing.servers.postgres import PostgresServer
    from triggers.testing.servers.process import Process


class PgBouncer(Server):
    """A private PgBouncer in front of a PostgreSQL, in transaction pooling mode, on a Unix socket.

    Args:
        server: the PostgreSQL that it connects to; it must be running.
        settings: settings of pgbouncer.ini, such as `{"pool_mode": "session", "default_pool_size": 5}`.
    """

    name = "PgBouncer"

    def __init__(self, server: PostgresServer, *, settings: Mapping[str, Setting] | None = None) -> None:
        super().__init__(settings=settings, private=True)
        self.server = server
        self._port = 0

    @property
    def url(self) -> str:
        """The URL over the Unix socket, for the database in the URL of the PostgreSQL server."""
        database = urlsplit(self.server.url).path[1:] or "postgres"
        host = quote(str(self.folder), safe="")
        return f"postgresql://postgres@/{database}?host={host}&port={self._port}"

    def _user(self) -> tuple[int, int]:
        return nobody() if os.geteuid() == 0 else super()._user()  # PgBouncer refuses to run as root

    def _choose_address(self) -> None:
        self._port = free_port()

    def _program(self) -> Path:
        found = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin")
        if not found:
            raise self._missing("install it (on Debian: apt-get install pgbouncer)")
        return Path(found)

    def _prepare(self) -> None:
        address = urlsplit(self.server.url)
        options = parse_qs(address.query)
        behind: dict[str, Setting] = {
            "host": options.get("host", [address.hostname or "127.0.0.1"])[0],
            "port": options.get("port", [str(address.port or 5432)])[0],
            "user": unquote(address.username or "postgres"),
        }
        if address.password:
            behind["password"] = unquote(address.password)
        settings: dict[str, Setting] = {
            "unix_socket_dir": str(self.folder),
            "listen_port": self._port,
            "auth_type": "any",
            "pool_mode": "transaction",
            "max_client_conn": 500,
            "default_pool_size": 10,
            **self.settings,
        }
        lines = ["[databases]", "* = " + " ".join(f"{name}={value}" for name, value in behind.items())]
        lines += ["[pgbouncer]", *(f"{name} = {value}" for name, value in settings.items()), ""]
        path = self.folder / "pgbouncer.ini"
        path.write_text("\n".join(lines), "utf-8")
        path.chmod(0o600)
        os.chown(path, *self._user())

    def _command(self) -> Sequence[str | Path]:
        return [self._program(), self.folder / "pgbouncer.ini"]

    def _answers(self, _: Process) -> bool:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.connect(str(self.folder / f".s.PGSQL.{self._port}"))
        return True
