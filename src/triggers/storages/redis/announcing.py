"""Announce work through a channel of Redis. In a cluster, every node forwards it to all others."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

from triggers.storages.redis.nodes import Command

if TYPE_CHECKING:
    from triggers.storages.redis.store import RedisStore


def channel_of(store: RedisStore) -> str:
    """The channel of a keyspace. Databases of one server share their channels, so it has their number."""
    return f"{store.url.prefix}:due:{store.url.db}"


def announce(store: RedisStore, until: float) -> None:
    """Publish an announcement; fail if that is not possible at once."""
    world = store.keyspace.partitions[0].world
    store.server.ask(Command(world, ("PUBLISH", channel_of(store), "")), min(until, time.monotonic()))


class SubscribedConnection:
    """A connection to any node that receives what is published in one channel.

    Args:
        connection: a connection that nothing else uses.
        channel: the channel.
    """

    def __init__(self, connection: Any, channel: str) -> None:
        self._connection = connection
        connection.send_command("SUBSCRIBE", channel)
        connection.read_response()

    def heard(self, seconds: float) -> bool:
        """Wait up to that time; return whether something was published."""
        heard = False
        while self._connection.can_read(0 if heard else seconds):
            self._connection.read_response()
            heard = True
        return heard

    def close(self) -> None:
        """Close the connection, which ends the subscription."""
        self._connection.disconnect()


def subscribe(store: RedisStore) -> SubscribedConnection:
    """Open a connection that is subscribed, to any master."""
    node = random.choice(store.server.masters())  # noqa: S311 - not a secret
    connection = node.connect()
    try:
        return SubscribedConnection(connection, channel_of(store))
    except BaseException:
        connection.disconnect()
        raise
