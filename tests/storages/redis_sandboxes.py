"""Places in Redis whose time is a key that a test sets: each place is a prefix of its own."""

from __future__ import annotations

import secrets
from datetime import timedelta

from redis import Redis, RedisCluster

from triggers.storages.redis import RedisStorage
from triggers.testing.conformance.sandbox import StorageSandbox

#: The time is beside the data of each partition, so that a script finds it on a cluster, too.
CLOCK = "tonumber(redis.call('GET', string.match(KEYS[1], '^{[^}]*}') .. ':clock'))"

#: Few, so that sessions meet in them.
PARTITIONS = 5

#: How long a client of a test waits for an answer, in seconds. By itself, redis-py waits forever.
ANSWER = 20


def client_at(url):
    """A client that does not wait forever for a server that does not answer, and says so."""
    return Redis.from_url(url, socket_timeout=ANSWER, retry=None)


class RedisPlace(StorageSandbox):
    """A prefix of its own, and a clock for each of its partitions."""

    def __init__(self, url, client):
        self.prefix = f"t{secrets.token_hex(4)}"
        self.client = client
        options = f"prefix={self.prefix}&partitions={PARTITIONS}&timeout=60"
        self.url = f"{url}{'&' if '?' in url else '?'}{options}"
        super().__init__(lambda _: RedisStorage(self.url, clock=CLOCK))
        self.advance(timedelta())

    def advance(self, duration):
        super().advance(duration)
        for number in range(PARTITIONS):
            self.client.set(f"{{{self.prefix}:p{number}}}:clock", self.clock())


def server_places(url):
    """Gives the function that the suite asks for, for one server."""
    client = client_at(url)
    return lambda: RedisPlace(url, client)


def cluster_places(url):
    """The same for a cluster."""
    client = RedisCluster.from_url(url.replace("redis+cluster://", "redis://"), socket_timeout=ANSWER)
    return lambda: RedisPlace(url, client)
