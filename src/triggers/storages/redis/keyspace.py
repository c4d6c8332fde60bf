"""Check a Redis server before it is used, and find or create the keyspace of a storage in it.

A keyspace is created at its first use: a random name, the version of the layout and the number of partitions,
in a key of its own and again in each partition, where every script checks it. If the key of a partition is
missing, or is that of another keyspace, nothing is written. So data that was flushed, evicted or partly
restored is never used as if it were complete.
"""

from __future__ import annotations

import logging
import secrets
import time
import warnings
from typing import TYPE_CHECKING, Any, Final

from triggers.exceptions import SchemaVersionError, StorageCorruptError, StorageError
from triggers.storages.redis.keys import Keyspace
from triggers.storages.redis.lua import script
from triggers.storages.redis.nodes import Command, call

if TYPE_CHECKING:
    from triggers.storages.redis.server import RedisServer
    from triggers.storages.redis.url import RedisUrl

_log = logging.getLogger(__name__)

#: The version of the layout that this version of Triggers uses.
LAYOUT: Final = 2

#: The oldest server that supports read-only flags in scripts.
OLDEST: Final = (7, 0)


def check_server(server: RedisServer) -> None:
    """Refuse a server that can lose acknowledged data; with ``unsafe=1``, warn instead.

    Raises:
        StorageError: the server can lose data; the message says what to set.
    """
    url = server.url
    if url.is_exposed:
        _warn(f"{url.shown} is used over a network without a password: set a password, and use TLS")
    for said in server.ask_masters("INFO"):
        if isinstance(said, Exception):
            _log.info("%s does not permit INFO, so its settings were not checked: %s", url.shown, said)
            continue
        info = _fields(said)
        _check_kind(url, info)
        problems = _problems(info)
        problems += _sync_problems(server) if not problems else []
        if problems and not url.unsafe:
            message = f"{url.shown} can lose data: {'; '.join(problems)}; or accept this with unsafe=1"
            raise StorageError(message)
        if problems:
            _warn(f"{url.shown} can lose data: {'; '.join(problems)}")


def _fields(said: bytes) -> dict[str, str]:
    lines = (line.partition(":") for line in said.decode("utf-8", "replace").splitlines())
    return {name: text.strip() for name, _, text in lines}


def _check_kind(url: RedisUrl, info: dict[str, str]) -> None:
    version = tuple(map(int, info.get("redis_version", "0").split(".")[:2]))
    if version < OLDEST and info.get("redis_version"):
        raise StorageError(f"{url.shown} is Redis {info['redis_version']}: 7.0 or newer is needed, or Valkey")
    clustered = info.get("cluster_enabled") == "1"
    if clustered != url.cluster and "cluster_enabled" in info:
        wanted = "redis+cluster:// or rediss+cluster://" if clustered else "redis:// or rediss://"
        raise StorageError(f"{url.shown} is {'' if clustered else 'not '}a cluster: write {wanted}")
    if info.get("role") == "slave":
        raise StorageError(f"{url.shown} is a replica: use the URL of the master")


def _problems(info: dict[str, str]) -> list[str]:
    found = []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(f"maxmemory-policy is {policy}: set it to noeviction")
    if info.get("aof_enabled") == "0":
        found.append("it does not write an append-only file: set appendonly yes")
    if "aof_enabled" not in info or "maxmemory_policy" not in info:
        _log.info("the server does not tell whether it writes an append-only file, and what it evicts")
    return found


def _sync_problems(server: RedisServer) -> list[str]:
    for said in server.ask_masters("CONFIG", "GET", "appendfsync"):
        if isinstance(said, Exception):
            _log.info(
                "%s does not permit CONFIG GET, so appendfsync was not checked: %s", server.url.shown, said
            )
        elif said and said[1] == b"no":
            return ["appendfsync is no: set it to everysec or always"]
    return []


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=5)


def open_keyspace(server: RedisServer) -> tuple[Keyspace, bytes]:
    """Find or create the keyspace of this prefix; returns its keys, and the token that every script checks.

    Raises:
        SchemaVersionError: a newer version of Triggers wrote the keyspace.
        StorageCorruptError: a part of the keyspace is missing.
    """
    url, until = server.url, time.monotonic() + server.url.timeout
    key = f"{{{url.prefix}}}:meta".encode()

    def ask(*words: Any) -> Any:
        return server.ask(Command(words[1], words), until)

    told = ask("GET", key)
    if told is None:
        _check_empty(server, until)
        fresh = b"%d %d %b new" % (LAYOUT, url.partitions, secrets.token_hex(8).encode())
        ask("SET", key, fresh, "NX")
        told = ask("GET", key)
    layout, partitions, name, state = _read(url, told)
    if layout > LAYOUT:
        raise SchemaVersionError(
            f"{url.shown} has layout {layout}, and this version of Triggers knows {LAYOUT}: upgrade "
            f"Triggers; nothing was changed"
        )
    keyspace, token = Keyspace(url.prefix, partitions), _token(LAYOUT, partitions, name)
    if state == "new":
        first = _token(layout, partitions, name)
        each = [Command(keys.world, ("SET", keys.world, first, "NX")) for keys in keyspace.partitions]
        server.ask_all(each, until)
    if layout < LAYOUT:  # from here on, a process with the old layout cannot open the keyspace
        state = f"from-{layout}"
        ask("SET", key, token + b" " + state.encode())
    if state.startswith("from-"):
        words = (_token(int(state.removeprefix("from-")), partitions, name), token)
        server.ask_all([call(script("layout"), (keys.world,), words) for keys in keyspace.partitions], until)
    if state != "ready":
        ask("SET", key, token + b" ready")
    return keyspace, token


def _token(layout: int, partitions: int, name: str) -> bytes:
    """The value of the key `world` in every partition."""
    return f"{layout} {partitions} {name}".encode()


def _read(url: RedisUrl, told: bytes | None) -> tuple[int, int, str, str]:
    try:
        layout, partitions, name, state = (told or b"").decode().split(" ")
        return int(layout), int(partitions), name, state
    except ValueError:
        message = (
            f"{url.shown}: {{{url.prefix}}}:meta belongs to another program: choose another prefix; nothing "
            f"was changed"
        )
        raise StorageCorruptError(message) from None


def _check_empty(server: RedisServer, until: float) -> None:
    """Refuse to create a keyspace if partitions of another one exist, whose own key is missing."""
    url = server.url
    keys = [partition.world for partition in Keyspace(url.prefix, url.partitions).partitions]
    found = server.ask_all([Command(key, ("GET", key)) for key in keys], until)
    if any(said is not None for said in found):
        message = (
            f"{url.shown}: the key {{{url.prefix}}}:meta is missing, but partitions exist: keys were deleted "
            f"or evicted; restore a backup, or delete every key that begins with {{{url.prefix} to start "
            f"with an empty storage"
        )
        raise StorageCorruptError(message)


def keyspace_lost(server: RedisServer) -> StorageError:
    """The error for a keyspace that was deleted or migrated to a newer layout while it was in use."""
    url = server.url
    key = f"{{{url.prefix}}}:meta".encode()
    told = server.ask(Command(key, ("GET", key)), time.monotonic() + url.timeout)
    if told is not None and _read(url, told)[0] > LAYOUT:
        return SchemaVersionError(
            f"{url.shown} no longer has layout {LAYOUT}, which this process requires: another version of "
            f"Triggers has migrated it; upgrade Triggers and restart this process; nothing was changed"
        )
    return StorageCorruptError(
        f"{url.shown}: the data under the prefix {url.prefix!r} was deleted or replaced (by FLUSHDB, "
        f"eviction, or a restart without the append-only file); nothing was written: restore a backup, or "
        f"restart this process to start with an empty storage"
    )
