"""Connections to one Redis server or to the masters of a cluster. One thread at a time uses a connection.

This is the only module that imports the client, redis-py. It uses the client's connections, with their
protocol, TLS and errors, but not its commands, which take longer than the server needs to answer.
"""

from __future__ import annotations

from binascii import crc_hqx
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
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from triggers.storages.redis.lua import Script
    from triggers.storages.redis.url import RedisUrl

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

#: Errors after which a retry can succeed.
AWAY: Final = (
    redis.ConnectionError,
    redis.TimeoutError,
    ClusterError,
    ReadOnlyError,
    TryAgainError,
    AskError,
    OSError,
)

#: A message with more bytes than this, for thousands of instances, is sent over a connection of its own, with
#: this longer timeout for the answer, in seconds.
LARGE: Final = 1 << 20
LARGE_TIMEOUT: Final = 30.0

#: The number of slots of a cluster.
SLOTS: Final = 16_384

#: Marks an error after which it is unknown whether the commands were executed.
_UNANSWERED: Final = "__triggers_unanswered__"


class Command(NamedTuple):
    """A command for the server that has a certain key.

    Attributes:
        key: one of its keys, or a key in the slot of its node.
        words: the command and its arguments.
        script: the script that it runs, if any.
    """

    key: bytes
    words: tuple[Part, ...]
    script: Script | None = None

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The key of a plain command; all keys of a script."""
        if self.script is None:
            return (self.key,)
        count = int(self.words[2])
        return tuple(word for word in self.words[3 : 3 + count] if isinstance(word, bytes))


def call(script: Script, keys: Sequence[bytes], words: Iterable[Part]) -> Command:
    """The command that runs a script with these keys and arguments."""
    return Command(keys[0], ("EVALSHA", script.sha, len(keys), *keys, *words), script)


def packed(words: Sequence[Part]) -> bytes:
    """A command as bytes of the Redis protocol."""
    parts = [word if type(word) is bytes else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


class Exchange(NamedTuple):
    """Commands that were sent and are not answered yet.

    Attributes:
        connection: the connection over which they were sent.
        expected: the number of answers.
        free: the list to which the connection is added afterwards, None to close it.
        asking: whether an ASKING command was sent before each command.
    """

    connection: Any
    expected: int
    free: list[Any] | None
    asking: bool


class Node:
    """One server, and the connections to it that are not in use.

    Args:
        kind: the class of its connections.
        settings: the arguments for that class.
    """

    def __init__(self, kind: Any, settings: dict[str, Any]) -> None:
        self.free: list[Any] = []
        self._kind = kind
        self._settings = settings

    def _connection(self, size: int) -> Any:
        """A connection for the caller alone, with a longer timeout for a large message."""
        if size <= LARGE and self.free:
            try:
                return self.free.pop()
            except IndexError:  # another thread was faster
                pass
        timeout = self._settings["socket_timeout"]
        return self.connect(max(timeout, LARGE_TIMEOUT) if size > LARGE else timeout)

    def connect(self, socket_timeout: float | None = None) -> Any:
        """Open a connection that belongs to the caller."""
        settings = dict(self._settings)
        if socket_timeout is not None:
            settings["socket_timeout"] = socket_timeout
        connection = self._kind(**settings)
        connection.connect()  # if this fails, nothing was sent
        return connection

    def ask(self, commands: Sequence[Command], *, asking: bool = False) -> list[Any]:
        """Run commands in one round trip; returns the answers, which can be errors of the server."""
        return self.end(self.begin(commands, asking=asking))

    def begin(self, commands: Sequence[Command], *, asking: bool = False) -> Exchange:
        """Send commands. :meth:`end` returns the answers, and without it the connection is lost."""
        words = [command.words for command in commands]
        if asking:
            words = [each for one in words for each in (("ASKING",), one)]
        message = b"".join(map(packed, words))
        connection = self._connection(len(message))
        free = self.free if len(message) <= LARGE else None
        try:
            connection.send_packed_command([message])
        except BaseException as error:
            _discard(connection, error)
            raise
        return Exchange(connection, len(words), free, asking)

    @staticmethod
    def end(begun: Exchange) -> list[Any]:
        """Read the answers to the commands that :meth:`begin` has sent."""
        connection = begun.connection
        try:
            answers = [_answer(connection) for _ in range(begun.expected)]
        except BaseException as error:
            _discard(connection, error)
            raise
        if begun.free is None:
            connection.disconnect()
        else:
            begun.free.append(connection)
        return answers[1::2] if begun.asking else answers

    def close(self) -> None:
        """Close the connections that are not in use; the others close after their use."""
        free, self.free = self.free, []
        for connection in free:
            connection.disconnect()


def _discard(connection: Any, error: BaseException) -> None:
    connection.disconnect()  # a part of an answer can be unread
    error.__dict__[_UNANSWERED] = True


def _answer(connection: Any) -> Any:
    try:
        return connection.read_response()
    except ResponseError as error:
        return error


class Single:
    """One server that has all keys, with the interface of a :class:`Cluster`."""

    def __init__(self, url: RedisUrl) -> None:
        settings = _settings(url) | {"db": url.db}
        if url.socket:
            self._node = Node(redis.UnixDomainSocketConnection, settings | {"path": url.socket})
        else:
            self._node = _tcp(url, settings, *url.hosts[0])

    def node_of(self, _: bytes) -> Node:
        """The only server, for every key."""
        return self._node

    def masters(self) -> list[Node]:
        """The only server, as a list."""
        return [self._node]

    def at(self, _: str, __: int) -> Node:
        """The only server, for every address."""
        return self._node

    def renew(self) -> None:
        """Do nothing: there are no slots to ask for."""

    def close(self) -> None:
        """Close the connections that are not in use; later ones can be to another server of this name."""
        self._node.close()


class Cluster:
    """The masters of a cluster, each with its slots.

    Args:
        url: some nodes of the cluster, which are asked for the others.
    """

    def __init__(self, url: RedisUrl) -> None:
        self._url = url
        self._nodes: dict[tuple[str, int], Node] = {}
        self._slots: list[Node | None] = []
        self.renew()

    def node_of(self, key: bytes) -> Node:
        """The master that has the slot of the key, by the latest information."""
        tag = key[1 : key.index(b"}")]
        node = self._slots[crc_hqx(tag, 0) % SLOTS]
        if node is None:
            raise redis.ConnectionError(f"no node has the slot of {tag.decode()}")
        return node

    def masters(self) -> list[Node]:
        """Every master that has a slot, by the latest information."""
        return list(dict.fromkeys(node for node in self._slots if node is not None))

    def at(self, host: str, port: int) -> Node:
        """The node at this host and port; created if it is not known yet."""
        node = self._nodes.get((host, port))
        if node is None:
            node = self._nodes.setdefault((host, port), _tcp(self._url, _settings(self._url), host, port))
        return node

    def renew(self) -> None:
        """Ask which node has which slots: first the known nodes, then those in the URL."""
        problem: Exception | None = None
        for host, port in dict.fromkeys([*self._nodes, *self._url.hosts]):
            try:
                (ranges,) = self.at(host, port).ask([Command(b"", ("CLUSTER", "SLOTS"))])
            except AuthenticationError:
                raise
            except AWAY as error:
                problem = error
                continue
            if isinstance(ranges, Exception):
                raise ranges
            self._learn(host, ranges)
            return
        raise problem or redis.ConnectionError("the cluster has no nodes")

    def _learn(self, asked: str, ranges: list[Any]) -> None:
        slots: list[Node | None] = [None] * SLOTS
        for first, last, (host, port, *_), *_ in ranges:
            # A node that does not know its own address sends none: then it is the node that was asked.
            node = self.at(host.decode() if host else asked, port)
            slots[first : last + 1] = [node] * (last + 1 - first)
        self._slots = slots

    def close(self) -> None:
        """Close all connections that are not in use."""
        for node in list(self._nodes.values()):
            node.close()


def _tcp(url: RedisUrl, settings: dict[str, Any], host: str, port: int) -> Node:
    kind = redis.SSLConnection if url.tls else redis.Connection
    return Node(kind, settings | {"host": host, "port": port, "socket_keepalive": True})


def _settings(url: RedisUrl) -> dict[str, Any]:
    return {
        "username": url.username,
        "password": url.password,
        "protocol": 2,
        "socket_timeout": url.socket_timeout,
        "socket_connect_timeout": url.socket_timeout,
        "health_check_interval": 30,
        # Retries are made by RedisServer.
        "retry": Retry(NoBackoff(), 0),
        **dict(url.files),
    }


def is_unanswered(error: Exception) -> bool:
    """Whether it is unknown, after this error, if the commands were executed."""
    return _UNANSWERED in error.__dict__
