"""Connections to Redis: to one server, or to the masters of a cluster; no two threads or processes share one.

The only module that imports the client. Of it the connections are used, with their protocol, TLS and errors;
not its commands, which cost more than the server takes to answer.
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

#: Errors of the client that a later try may not meet.
AWAY: Final = (
    redis.ConnectionError,
    redis.TimeoutError,
    ClusterError,
    ReadOnlyError,
    TryAgainError,
    AskError,
    OSError,
)

#: A message of more bytes than this, about thousands of instances, is worth a longer wait for the answer, in
#: seconds; it travels over a connection of its own.
LARGE: Final = 1 << 20
LARGE_TIMEOUT: Final = 30.0

#: So many slots a cluster has.
SLOTS: Final = 16_384

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

    @property
    def keys(self) -> tuple[bytes, ...]:
        """The key of a plain command; all keys of a script."""
        if self.script is None:
            return (self.key,)
        count = int(self.words[2])
        return tuple(word for word in self.words[3 : 3 + count] if isinstance(word, bytes))


def call(script: Script, keys: Sequence[bytes], words: Iterable[Part]) -> Command:
    """The command that runs a script."""
    return Command(keys[0], ("EVALSHA", script.sha, len(keys), *keys, *words), script)


def packed(words: Sequence[Part]) -> bytes:
    """A command as it is sent."""
    parts = [word if type(word) is bytes else str(word).encode() for word in words]
    return b"*%d\r\n" % len(parts) + b"".join([b"$%d\r\n%b\r\n" % (len(part), part) for part in parts])


class Exchange(NamedTuple):
    """Commands that were sent, and not answered yet.

    Attributes:
        connection: over which they were sent.
        expected: how many answers there will be.
        free: where the connection goes then, None for nowhere.
        asking: whether before each command a node was asked to answer for a slot that is not its own yet.
    """

    connection: Any
    expected: int
    free: list[Any] | None
    asking: bool


class Node:
    """One server, and the connections to it that nobody uses now.

    Args:
        kind: a class of connections.
        settings: what it takes.
    """

    def __init__(self, kind: Any, settings: dict[str, Any]) -> None:
        self.free: list[Any] = []
        self._kind = kind
        self._settings = settings

    def _connection(self, size: int) -> Any:
        """One for the caller alone, of which the server may take its time over what is large."""
        if size <= LARGE and self.free:
            try:
                return self.free.pop()
            except IndexError:  # another thread was faster
                pass
        settings = dict(self._settings)
        if size > LARGE:
            settings["socket_timeout"] = max(settings["socket_timeout"], LARGE_TIMEOUT)
        connection = self._kind(**settings)
        connection.connect()  # what fails up to here has not been asked for
        return connection

    def ask(self, commands: Sequence[Command], *, asking: bool = False) -> list[Any]:
        """The answers to some commands, in one round trip; an error of the server's is an answer, too."""
        return self.end(self.begin(commands, asking=asking))

    def begin(self, commands: Sequence[Command], *, asking: bool = False) -> Exchange:
        """Send some commands; :meth:`end` gives the answers. One that is not ended costs a connection."""
        words = [command.words for command in commands]
        if asking:
            words = [each for one in words for each in (("ASKING",), one)]
        message = b"".join(map(packed, words))
        connection = self._connection(len(message))
        free = self.free if len(message) <= LARGE else None
        try:
            connection.send_packed_command([message])
        except BaseException as error:
            _give_up(connection, error)
            raise
        return Exchange(connection, len(words), free, asking)

    @staticmethod
    def end(begun: Exchange) -> list[Any]:
        """The answers to what was sent."""
        connection = begun.connection
        try:
            answers = [_answer(connection) for _ in range(begun.expected)]
        except BaseException as error:
            _give_up(connection, error)
            raise
        if begun.free is None:
            connection.disconnect()
        else:
            begun.free.append(connection)
        return answers[1::2] if begun.asking else answers

    def close(self) -> None:
        """Close the connections that nobody uses; the others close when they are done with."""
        free, self.free = self.free, []
        for connection in free:
            connection.disconnect()


def _give_up(connection: Any, error: BaseException) -> None:
    connection.disconnect()  # half an answer may be on its way
    error.__dict__[_UNANSWERED] = True


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
            self._node = Node(redis.UnixDomainSocketConnection, settings | {"path": url.socket})
        else:
            self._node = _tcp(url, settings, *url.hosts[0])

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
    """The masters of a cluster, each for the slots of its own.

    Args:
        url: where some of its nodes are; the others are asked for.
    """

    def __init__(self, url: RedisUrl) -> None:
        self._url = url
        self._nodes: dict[tuple[str, int], Node] = {}
        self._slots: list[Node | None] = []
        self.renew()

    def node_of(self, key: bytes) -> Node:
        """The master that has the key's slot, as far as is known."""
        tag = key[1 : key.index(b"}")]
        node = self._slots[crc_hqx(tag, 0) % SLOTS]
        if node is None:
            raise redis.ConnectionError(f"no node has the slot of {tag.decode()}")
        return node

    def masters(self) -> list[Node]:
        """Every master that is known."""
        return list(dict.fromkeys(node for node in self._slots if node is not None))

    def at(self, host: str, port: int) -> Node:
        """The node of that address."""
        node = self._nodes.get((host, port))
        if node is None:
            node = self._nodes.setdefault((host, port), _tcp(self._url, _settings(self._url), host, port))
        return node

    def renew(self) -> None:
        """Ask anew which node has which slots: those that are known, then those that the URL names."""
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
            # A node may not know by which name it is reached: it is the one that was asked.
            node = self.at(host.decode() if host else asked, port)
            slots[first : last + 1] = [node] * (last + 1 - first)
        self._slots = slots

    def close(self) -> None:
        """Close the connections that nobody uses."""
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
        # What is tried again, and for how long, is decided here.
        "retry": Retry(NoBackoff(), 0),
        **dict(url.files),
    }


def is_unanswered(error: Exception) -> bool:
    """Whether what was asked when the error came may have been done, or not."""
    return _UNANSWERED in error.__dict__
