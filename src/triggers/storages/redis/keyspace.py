"""What a Redis must be before sessions are trusted to it, and the keys that say what is kept there.

A world begins with its first use: a random name, the version of the layout and the number of partitions, in a
key of its own and once more in each partition, where every script looks for it. If a partition's key is not
there any more, or is another world's, nothing is written: data that was flushed, evicted or restored in part
is never gone on with as if it were whole.
"""

from __future__ import annotations

import logging
import secrets
import time
import warnings
from typing import TYPE_CHECKING, Any, Final

from triggers.exceptions import SchemaVersionError, StorageCorruptError, StorageError
from triggers.storages.redis.keys import Keyspace
from triggers.storages.redis.nodes import Command

if TYPE_CHECKING:
    from triggers.storages.redis.server import RedisServer
    from triggers.storages.redis.url import RedisUrl

_log = logging.getLogger(__name__)

#: The version of the layout of the keys that this module knows.
LAYOUT: Final = 1

#: The oldest server whose scripts can say that they do not write.
OLDEST: Final = (7, 0)


def check_server(server: RedisServer) -> None:
    """Refuse a server that may forget what it has acknowledged; with ``unsafe=1`` warn.

    Raises:
        StorageError: it may, and what to set.
    """
    url = server.url
    if url.is_exposed:
        _warn(f"{url.shown} is reached over a network without a password: set one, and use TLS")
    for said in server.ask_masters("INFO"):
        if isinstance(said, Exception):
            _log.info("%s does not let us ask what it keeps (INFO): %s", url.shown, said)
            continue
        info = _fields(said)
        _check_kind(url, info)
        problems = _problems(info)
        problems += _sync_problems(server) if not problems else []
        if problems and not url.unsafe:
            message = f"{url.shown} may forget: {'; '.join(problems)}; or accept that: unsafe=1"
            raise StorageError(message)
        if problems:
            _warn(f"{url.shown} may forget: {'; '.join(problems)}")


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
        raise StorageError(f"{url.shown} is a replica: name the master")


def _problems(info: dict[str, str]) -> list[str]:
    found = []
    policy = info.get("maxmemory_policy", "noeviction")
    if policy != "noeviction":
        found.append(f"maxmemory-policy is {policy}: set it to noeviction")
    if info.get("aof_enabled") == "0":
        found.append("it keeps no append-only file: set appendonly yes")
    if "aof_enabled" not in info or "maxmemory_policy" not in info:
        _log.info("the server does not say whether it keeps an append-only file, and what it evicts")
    return found


def _sync_problems(server: RedisServer) -> list[str]:
    for said in server.ask_masters("CONFIG", "GET", "appendfsync"):
        if isinstance(said, Exception):
            _log.info(
                "%s does not let us ask how it writes its file (CONFIG GET): %s", server.url.shown, said
            )
        elif said and said[1] == b"no":
            return ["appendfsync is no: set it to everysec or always"]
    return []


def _warn(message: str) -> None:
    warnings.warn(message, RuntimeWarning, stacklevel=5)


def open_keyspace(server: RedisServer) -> tuple[Keyspace, bytes]:
    """Find the world of this prefix, or begin one; returns its keys, and what every script must find there.

    Raises:
        SchemaVersionError: a newer version of Triggers wrote it.
        StorageCorruptError: a part of it is missing.
    """
    url, until = server.url, time.monotonic() + server.url.timeout
    key = f"{{{url.prefix}}}:meta".encode()

    def ask(*words: Any) -> Any:
        return server.ask(Command(words[1], words), until)

    told = ask("GET", key)
    if told is None:
        _check_nothing_is_there(server, until)
        fresh = b"%d %d %b new" % (LAYOUT, url.partitions, secrets.token_hex(8).encode())
        ask("SET", key, fresh, "NX")
        told = ask("GET", key)
    layout, partitions, _, state = _read(url, told)
    if layout > LAYOUT:
        raise SchemaVersionError(
            f"{url.shown} has layout {layout}, and this version of Triggers knows {LAYOUT}: upgrade "
            f"Triggers; nothing was changed"
        )
    world, token = Keyspace(url.prefix, partitions), told.rpartition(b" ")[0]
    if state == "new":
        each = [Command(keys.world, ("SET", keys.world, token, "NX")) for keys in world.partitions]
        server.ask_all(each, until)
        ask("SET", key, token + b" ready")
    return world, token


def _read(url: RedisUrl, told: bytes | None) -> tuple[int, int, str, str]:
    try:
        layout, partitions, name, state = (told or b"").decode().split(" ")
        return int(layout), int(partitions), name, state
    except ValueError:
        message = (
            f"{url.shown}: {{{url.prefix}}}:meta is not ours: choose another prefix; nothing was changed"
        )
        raise StorageCorruptError(message) from None


def _check_nothing_is_there(server: RedisServer, until: float) -> None:
    """Refuse to begin a world where another one's partitions are, whose own key is gone."""
    url = server.url
    keys = [partition.world for partition in Keyspace(url.prefix, url.partitions).partitions]
    found = server.ask_all([Command(key, ("GET", key)) for key in keys], until)
    if any(said is not None for said in found):
        message = (
            f"{url.shown}: {{{url.prefix}}}:meta is gone, and partitions are still there: something has "
            f"deleted or evicted keys; restore a backup, or delete every key that begins with {{{url.prefix} "
            f"to begin anew"
        )
        raise StorageCorruptError(message)


def keyspace_lost(url: RedisUrl) -> StorageCorruptError:
    """The error for a world that has disappeared while it was in use."""
    return StorageCorruptError(
        f"{url.shown}: what was kept under the prefix {url.prefix!r} is gone, or was begun anew by somebody "
        f"else (FLUSHDB, eviction, or a restart without its append-only file); nothing was written: restore "
        f"a backup, or restart this process to begin anew"
    )
