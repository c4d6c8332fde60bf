"""Redis, Valkey or a cluster of either: many machines, one memory with a file behind it.

A decision is made from what was loaded, and stored by one script that first checks that all of it still is as
it was seen; where it is not, the decision is made anew. So nobody ever holds a lock that others need, and a
process that dies between loading and storing has done nothing. A session and what is due in its partition
have their keys in one slot, so they change together on a cluster, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NoReturn

from triggers.core.exchange import NeedsSession
from triggers.core.values import type_name
from triggers.exceptions import StorageError
from triggers.storages.base import MAX_CONFLICTS, ConflictError
from triggers.storages.redis.changes import GuardError
from triggers.storages.redis.commit import CommitAttempt, QueueTicket
from triggers.storages.redis.lua import SERVER_CLOCK
from triggers.storages.redis.purge import purge_records
from triggers.storages.redis.reader import RedisReader
from triggers.storages.redis.server import Pauses
from triggers.storages.redis.store import RedisStore
from triggers.storages.redis.sweep import RedisSweep
from triggers.storages.redis.url import RedisUrl

if TYPE_CHECKING:
    from collections.abc import Collection

    from triggers.core.exchange import Changes, Decision
    from triggers.storages.base import Expired, Lease, Purge, Purged, ReadyInstance

#: After so many conflicts in a row the others are asked to wait for a moment.
CONFLICTS: Final = 2

#: The first and the longest pause after a conflict, in seconds.
CONFLICT_PAUSE: Final = 0.001
LONGEST_CONFLICT_PAUSE: Final = 0.05


class RedisStorage:
    """Sessions in Redis or Valkey, shared by processes on many machines.

    Args:
        url: ``redis://user:password@host:port/db``, ``rediss://`` for TLS, ``redis+unix:///path?db=0``,
            ``redis+cluster://host:port`` or ``rediss+cluster://``; with the options ``prefix=trg`` (what
            every key begins with), ``partitions=64`` (counts at the first use only), ``timeout=30`` (seconds
            to go on trying), ``socket_timeout=5``, ``expire_finalized=30d`` (finalised sessions with nothing
            open go after so long) and ``unsafe=1`` (warn, where a server that may forget would be refused).
        clock: a Lua expression that gives the time in microseconds since the Unix epoch; the server's
            by default.

    Raises:
        StorageError: the server does not answer, may forget what it has acknowledged, or is not ours.
    """

    def __init__(self, url: str, *, clock: str = SERVER_CLOCK) -> None:
        self._store = RedisStore(RedisUrl.parse(url), clock)
        self._sweep = RedisSweep(self._store)
        self._reader = RedisReader(self._store, self._sweep)

    @classmethod
    def from_url(cls, url: str) -> RedisStorage:
        """Open what the URL names."""
        return cls(url)

    def __repr__(self) -> str:
        return f"RedisStorage({self._store.url.shown!r})"

    @property
    def reader(self) -> RedisReader:
        """The plug for reading."""
        return self._reader

    def now(self) -> int:
        """The server's time; of a cluster, that of one of its masters."""
        world = self._store.world.partitions[0].world
        return int(self._store.run("time", (world,), (), self._store.until()))

    def close(self) -> None:
        """Close every connection that nobody uses; what is called later opens new ones."""
        self._store.server.close()

    def joined(self, connection: object) -> NoReturn:
        """Raise StorageError: Redis has no transactions that others could take part in."""
        message = (
            f"{self._store.url.shown} cannot join a transaction on {type_name(type(connection))}: use "
            f"sqlite:/// or postgresql://, in the application's own database"
        )
        raise StorageError(message)

    def commit(self, uid: str, decision: Decision, timeout: float | None = None) -> Changes:
        """Let a decision be made about a session and apply it, by one script."""
        until = self._store.until(timeout)
        exclusive = decision.exclusive
        pauses = Pauses(until, CONFLICT_PAUSE, LONGEST_CONFLICT_PAUSE)
        ticket, conflicts, refused = QueueTicket(), 0, 0
        while refused < MAX_CONFLICTS:
            try:
                return CommitAttempt(self._store, uid, until, ticket, exclusive=exclusive).make(decision)
            except NeedsSession:  # nothing was stored
                exclusive = True
            except GuardError:
                refused += 1
            except ConflictError:
                conflicts += 1
                if exclusive and conflicts >= CONFLICTS:
                    ticket.ask()
                if not pauses.wait():
                    break
        raise ConflictError.too_often(uid, conflicts + refused)

    def renew(self, leases: Collection[Lease], lease: int) -> set[Lease]:
        """Extend the claims that still hold."""
        return self._sweep.renew(leases, lease)

    def due(self, limit: int, *, grace: int, include_recent: bool = False) -> list[ReadyInstance]:
        """Take what is to be handed over, from all partitions alike."""
        return self._sweep.due(limit, grace, include_recent=include_recent)

    def expired(self, limit: int) -> list[Expired]:
        """The claims that ran out."""
        return self._sweep.expired(limit)

    def purge_logs(self, purge: Purge, *, after: int = 0, limit: int = 500) -> Purged:
        """Remove a batch of old records, or their contexts."""
        return purge_records(self._store, purge, after, limit)
