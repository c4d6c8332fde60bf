"""Connections to Redis: to one server, or to the masters of a cluster; no two threads or processes share one.

The only module that imports the client. Of it the connections are used, their protocol, TLS and errors, and
its knowledge of a cluster; not its commands, which cost more than the server takes to answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

import redis
from redis.backoff import NoBackoff
from redis.exceptions import (
    AskError,
    AuthenticationError,
    ClusterError,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from triggers.storages.lua import Script
    from triggers.storages.redis_url import RedisUrl

__all__ = [
    "AWAY",
    "AskError",
    "AuthenticationError",
    "Cluster",
    "Command",
    "MovedError",
    "NoPermissionError",
    "NoScriptError",
    "Node",
    "OutOfMemoryError",
    "Part",
    "Single",
    "call",
    "is_unanswered",
    "packed",
]

Part = bytes | str | int

#: Errors of the client that a later try may not meet.
AWAY: Final = (
    redis.ConnectionError,
    redis.TimeoutError,
    RedisClusterException,
    ClusterError,
    ReadOnlyError,
    TryAgainError,
    AskError,
    OSError,
)

#: Marks an error after which what was asked may have been done, or not.
_UNANSWERED: Final = "__triggers_unanswered__"


class Command(NamedTuple):
    """A command for the server that has a key.

    Attributes:
        key: one of its keys, or whatever leads to its node.
        words: the command itself.
        script: what it runs, if it is a script.
    """

    key: bytes
    words: tuple[Part, ...]
    script: Script | None = None


def call(script: Script, keys: Sequence[bytes], words: Iterable[Part]) -> Command:
    """The command that runs a script."""
    return Command(keys[0], ("EVALSHA", script.sha, len(keys), *keys, *words), script)


def packed(words: Sequence[Part]) -> bytes:
    """A command as it is sent."""
    out = [b"*%d\r\n" % len(words)]
    for word in words:
        part = word if type(word) is bytes else str(word).encode()
        out.append(b"$%d\r\n%b\r\n" % (len(part), part))
    return b"".join(out)


class Node:
    """One server, and the connections to it that nobody uses now."""

    def __init__(self, pool: Any) -> None:
        self.free: list[Any] = []
        self._kind = pool.connection_class
        self._settings = dict(pool.connection_kwargs)

    def connection(self) -> Any:
        """One for the caller alone."""
        try:
            return self.free.pop()
        except IndexError:
            connection = self._kind(**self._settings)
            connection.connect()  # what fails up to here has not been asked for
            return connection

    def ask(self, commands: Sequence[Command], *, asking: bool = False) -> list[Any]:
        """The answers to some commands, in one round trip; an error of the server's is an answer, too."""
        free = self.free
        connection = self.connection()
        try:
            words = [command.words for command in commands]
            if asking:
                words = [each for one in words for each in (("ASKING",), one)]
            connection.send_packed_command([b"".join(map(packed, words))])
            answers = [_answer(connection) for _ in words]
        except BaseException as error:
            connection.disconnect()  # half an answer may be on its way
            error.__dict__[_UNANSWERED] = True
            raise
        free.append(connection)
        return answers[1::2] if asking else answers

    def close(self) -> None:
        """Close the connections that nobody uses; the others close when they are done with."""
        free, self.free = self.free, []
        for connection in free:
            connection.disconnect()

    def __del__(self) -> None:
        """A storage that nobody has any more leaves no socket open."""
        self.close()


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


class Single:
    """One server for all keys."""

    def __init__(self, url: RedisUrl) -> None:
        settings = _settings(url) | {"db": url.db}
        if url.socket:
            kind: Any = redis.UnixDomainSocketConnection
            settings |= {"path": url.socket}
        else:
            kind = redis.SSLConnection if url.tls else redis.Connection
            settings |= {"host": url.hosts[0][0], "port": url.hosts[0][1], "socket_keepalive": True}
        self._node = Node(redis.ConnectionPool(connection_class=kind, **settings))

    def node_of(self, _: bytes) -> Node:
        """The server."""
        return self._node

    def masters(self) -> list[Node]:
        """The server."""
        return [self._node]

    def at(self, _: str, __: int) -> Node:
        """The server."""
        return self._node

    def renew(self) -> None:
        """There are no slots."""

    def close(self) -> None:
        """Close the connections that nobody uses; the next ones may lead to another server of that name."""
        self._node.close()


class Cluster:
    """The masters of a cluster, each for the slots of its own."""

    def __init__(self, url: RedisUrl) -> None:
        settings = _settings(url) | {"socket_keepalive": True}
        nodes = [redis.cluster.ClusterNode(host, port) for host, port in url.hosts]
        if url.tls:
            settings["ssl"] = True
        self._client: Any = redis.RedisCluster(startup_nodes=nodes, **settings)
        self._nodes: dict[str, Node] = {}

    def _known(self, found: Any) -> Node:
        node = self._nodes.get(found.name)
        if node is None:
            pool = self._client.get_redis_connection(found).connection_pool
            node = self._nodes.setdefault(found.name, Node(pool))
        return node

    def node_of(self, key: bytes) -> Node:
        """The master that has the key's slot, as far as is known."""
        return self._known(self._client.get_node_from_key(key))

    def masters(self) -> list[Node]:
        """Every master that is known."""
        return [self._known(node) for node in self._client.get_primaries()]

    def at(self, host: str, port: int) -> Node:
        """The node of that address, to which another one has sent us."""
        found = self._client.get_node(host, port)
        if found is None:
            self.renew()
            found = self._client.get_node(host, port)
        if found is None:
            raise redis.ConnectionError(f"the cluster has no node {host}:{port}")
        return self._known(found)

    def renew(self) -> None:
        """Ask the cluster anew which node has which slots."""
        self._client.nodes_manager.initialize()

    def close(self) -> None:
        """Close the connections that nobody uses."""
        for node in list(self._nodes.values()):
            node.close()
        self._client.close()


def _settings(url: RedisUrl) -> dict[str, Any]:
    return {
        "username": url.username,
        "password": url.password,
        "protocol": 2,
        "socket_timeout": url.socket_timeout,
        "socket_connect_timeout": url.socket_timeout,
        "health_check_interval": 30,
        # What is tried again, and for how long, is decided here.
        "retry": Retry(NoBackoff(), 0),
        **dict(url.files),
    }


def is_unanswered(error: Exception) -> bool:
    """Whether what was asked when the error came may have been done, or not."""
    return _UNANSWERED in error.__dict__
