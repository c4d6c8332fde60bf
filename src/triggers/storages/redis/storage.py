"""Redis, Valkey, or a cluster of either, for sessions that are shared by many machines.

A decision is run on what was loaded, and one script stores its changes. The script first checks that nothing
of what was loaded has changed. If something has, the decision is run again. So no process holds a lock that
others need, and a process that dies between loading and storing has changed nothing. The keys of a session
and the due instances of its partition are in one slot, so they change together in a cluster, too.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Final, NoReturn

from triggers.core.exchange import NeedsSession
from triggers.core.values import type_name
from triggers.exceptions import StorageError
from triggers.storages.announcements import Announcer, ConnectedListener
from triggers.storages.base import MAX_CONFLICTS, ConflictError, commit_each
from triggers.storages.redis import announcing
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
    import threading
    from collections.abc import Collection, Sequence

    from triggers.core.exchange import Changes, Decision
    from triggers.health import Problems
    from triggers.storages.base import Expired, Lease, Purge, Purged, ReadyInstance, TimedSession

#: After this many conflicts in a row, a commit asks the others to wait.
CONFLICTS: Final = 2

#: The first and the longest pause after a conflict, in seconds.
CONFLICT_PAUSE: Final = 0.001
LONGEST_CONFLICT_PAUSE: Final = 0.05


class RedisStorage:
    """Sessions in Redis or Valkey, shared by processes on many machines.

    Args:
        url: ``redis://user:password@host:port/db``, ``rediss://`` for TLS, ``redis+unix:///path?db=0``,
            ``redis+cluster://host:port`` or ``rediss+cluster://``; with the options ``prefix=trg`` (of
            every key), ``partitions=64`` (used only when the keyspace is created), ``timeout=30`` (seconds
            during which a call is retried), ``socket_timeout=5``, ``expire_finalized=30d`` (when finalized
            sessions with nothing left to do are deleted) and ``unsafe=1`` (warn about a server that can lose
            acknowledged data, instead of refusing it).
        clock: a Lua expression for the time in microseconds since the Unix epoch; the server's time by
            default.

    Raises:
        StorageError: the server does not answer, can lose acknowledged data, or contains other data under
            this prefix.
    """

    def __init__(self, url: str, *, clock: str = SERVER_CLOCK) -> None:
        self._store = RedisStore(RedisUrl.parse(url), clock)
        self.problems: Problems = self._store.problems
        self._sweep = RedisSweep(self._store)
        self._reader = RedisReader(self._store, self._sweep)
        self._announcer = Announcer(self._store.url.shown, partial(announcing.announce, self._store))

    @classmethod
    def from_url(cls, url: str) -> RedisStorage:
        """Open the server or cluster at this URL."""
        return cls(url)

    def __repr__(self) -> str:
        return f"RedisStorage({self._store.url.shown!r})"

    @property
    def reader(self) -> RedisReader:
        """The plug for reading from this storage."""
        return self._reader

    def now(self) -> int:
        """The time by the server's clock, in microseconds; in a cluster, that of one of its masters."""
        world = self._store.keyspace.partitions[0].world
        return int(self._store.run("time", (world,), (), self._store.until()))

    def close(self) -> None:
        """Close all connections that are not in use. A later call opens new ones."""
        self._store.server.close()

    def announce(self) -> None:
        """Publish that work is due, in the channel of the keyspace."""
        self._announcer.announce()

    def listen(self, woken: threading.Event) -> ConnectedListener:
        """Subscribe to the channel of the keyspace."""
        return ConnectedListener(self._store.url.shown, partial(announcing.subscribe, self._store), woken)

    def joined(self, connection: object) -> NoReturn:
        """Raise StorageError: Redis has no transactions that an application could share.

        Raises:
            StorageError: always.
        """
        message = (
            f"{self._store.url.shown} cannot join a transaction on {type_name(type(connection))}: use "
            f"sqlite:/// or postgresql://, in the application's own database"
        )
        raise StorageError(message)

    def commit(self, uid: str, decision: Decision, timeout: float | None = None) -> Changes:
        """Run a decision about a session and apply its changes, by one script."""
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

    def commit_many(
        self, decisions: Sequence[tuple[str, Decision]], timeout: float | None = None
    ) -> list[Changes | Exception]:
        """Commit decisions about several sessions, each by a script of its own."""
        return commit_each(self, decisions, timeout)

    def timed_sessions(self, limit: int, managers: Collection[str]) -> list[TimedSession]:
        """Sessions of these managers that have timers, those whose first timer is due earliest first."""
        return self._sweep.timed_sessions(limit, managers)

    def renew(self, leases: Collection[Lease], lease: int) -> set[Lease]:
        """Extend the leases of claims that still hold; returns the others."""
        return self._sweep.renew(leases, lease)

    def due(self, limit: int, *, grace: int, include_recent: bool = False) -> list[ReadyInstance]:
        """Take instances to dispatch from all partitions, those that have waited longest first."""
        return self._sweep.due(limit, grace, include_recent=include_recent)

    def expired(self, limit: int) -> list[Expired]:
        """Running instances whose lease has expired."""
        return self._sweep.expired(limit)

    def purge_logs(self, purge: Purge, *, after: int = 0, limit: int = 500) -> Purged:
        """Delete a batch of old records, or only their contexts."""
        return purge_records(self._store, purge, after, limit)
