"""Find the sessions of version 2 in the Redis server, or cluster, of its Django cache."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from triggers.exceptions import StorageCorruptError
from triggers.storages.redis.server import RedisServer
from triggers.storages.redis.url import RedisUrl
from triggers.version2.refused import RefusedError
from triggers.version2.stored import MAX_STORED

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggers.storages.redis.nodes import Node

#: What is between the version of a key and the UID.
_INFIX: Final = b"triggers.storages.cache"

#: How many keys the server looks at for one answer.
PAGE: Final = 1_000

#: Characters with a meaning in the patterns of Redis.
_SPECIAL: Final = re.compile(rb"([*?\[\]\\^])")


class CachedSession(NamedTuple):
    """A session in the cache.

    Attributes:
        key: its key.
        uid: its UID, as it is in the key.
        node: the server that has it.
    """

    key: bytes
    uid: bytes
    node: Node


class Version2Cache:
    """The cache of version 2.

    Args:
        url: the URL of the server or cluster, with the forms of a Redis storage.
        prefix: the `KEY_PREFIX` of Django's cache. With ``:`` and the version of the keys after it, other
            versions are not read.

    Raises:
        StorageError: the URL is not valid.
    """

    def __init__(self, url: str, prefix: str = "") -> None:
        self._server = RedisServer(RedisUrl.parse(url))
        given = prefix.encode()
        self.pattern: bytes = b"%b:*%b:*" % (_SPECIAL.sub(rb"\\\1", given), _INFIX)
        self._key = re.compile(rb"%b:(?:\d+:)?%b:(.*)" % (re.escape(given), re.escape(_INFIX)), re.DOTALL)

    def sessions(self) -> Iterator[CachedSession]:
        """Yield every session, some perhaps twice. Those that are stored meanwhile may be missing.

        Raises:
            StorageError: the server does not answer.
        """
        for node, key in self._server.scan(self.pattern, PAGE):
            found = self._key.fullmatch(key)
            if found:
                yield CachedSession(key, found[1], node)

    def read(self, session: CachedSession) -> bytes:
        """Return the stored value of a session, or one byte more than the limit of it.

        Raises:
            RefusedError: there is no value, or it is not a string.
            StorageError: the server does not answer.
        """
        try:
            value: bytes = self._server.ask_node(session.node, "GETRANGE", session.key, 0, MAX_STORED)
        except StorageCorruptError as error:
            raise RefusedError(("", f"it is not a string: {error}")) from None
        if not value:
            raise RefusedError(("", "it has expired, or was deleted, before it was read"))
        return value

    def close(self) -> None:
        """Close the connections to the server or cluster."""
        self._server.close()
