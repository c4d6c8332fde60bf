"""What an earlier layout of Redis has stored: sessions in every state, kept as JSON in `tests/storages/data`.

Before the layout changes, run this module with the version that has the old one:

    PYTHONPATH=<that version>/src python -m tests.storages.earlier_redis
"""

from __future__ import annotations

import json
import time
from base64 import b64decode, b64encode

from redis import Redis

from tests.storages import earlier
from triggers.storages.redis import RedisStorage
from triggers.storages.redis.keyspace import LAYOUT
from triggers.storages.redis.lua import SERVER_CLOCK
from triggers.testing.servers import RedisServer

#: The number of partitions.
PARTITIONS = 3

#: The type of a key → the command that writes it, and how its value is read as words of that command.
KINDS = {
    "string": ("SET", lambda client, key: [client.get(key)]),
    "hash": ("HSET", lambda client, key: [word for pair in client.hgetall(key).items() for word in pair]),
    "set": ("SADD", lambda client, key: client.smembers(key)),
    "zset": (
        "ZADD",
        lambda client, key: [
            word
            for member, score in client.zrange(key, 0, -1, withscores=True)
            for word in (b"%.0f" % score, member)
        ],
    ),
}


def keys_of(client):
    """Key → its type and the words of its value, for every key but the ids of commits, which expire."""
    found = {}
    for key in sorted(client.keys("*")):
        if b":done:" not in key:
            kind = client.type(key).decode()
            found[key.decode()] = kind, [b64encode(word).decode() for word in KINDS[kind][1](client, key)]
    return found


def redis_keys(url, layout):
    """Make the keys that a layout has stored; returns what its reader has said."""
    client = Redis.from_url(url)
    for key, (kind, words) in json.loads(
        (earlier.DATA / f"redis_{layout}_keys.json").read_text("utf-8")
    ).items():
        client.execute_command(KINDS[kind][0], key, *map(b64decode, words))
    return earlier.said("redis", layout)


def main():
    """Write the data of the version of the library that runs this."""
    with RedisServer() as server:
        client = Redis.from_url(server.url)
        clock = f"{earlier.BEGINNING - time.time_ns() // 1000} + {SERVER_CLOCK}"
        storage = RedisStorage(f"{server.url}?partitions={PARTITIONS}", clock=clock)
        earlier.play(storage)
        for name, found in (
            (f"redis_{LAYOUT}", earlier.read(storage)),
            (f"redis_{LAYOUT}_keys", keys_of(client)),
        ):
            shown = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
            (earlier.DATA / f"{name}.json").write_text(shown, "utf-8")


if __name__ == "__main__":
    main()
