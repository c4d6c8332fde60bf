"""Operations on all partitions: instances that are due or lost, timers, heartbeats, and counts.

Each operation needs one round trip to a server, or one to each node of a cluster. Instances that have waited
longest come first across all partitions: first the partitions are asked for times, then each returns its
share. If a node of a cluster is unavailable, the instances on the other nodes are still found.
"""

from __future__ import annotations

import time
from collections import Counter
from contextlib import suppress
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from triggers.exceptions import StorageCorruptError
from triggers.health import DAMAGE, place_of, readable
from triggers.storages.base import MAX_PAUSE, Backlog, Expired, Lease, ReadyInstance, TimedSession
from triggers.storages.redis.keys import (
    instance_of_member,
    instance_place,
    member_of_instance,
    uid_of_member,
)
from triggers.storages.redis.server import WrongTypeError
from triggers.storages.redis.store import Call
from triggers.storages.rule_cache import place_of_rules

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence

    from triggers.storages.redis.keys import PartitionKeys
    from triggers.storages.redis.nodes import Part
    from triggers.storages.redis.store import RedisStore

#: At first each partition is asked for this many times its share of the limit, and at least for this many
#: instances.
AHEAD: Final = 4
FEWEST: Final = 8

#: How often finalized sessions to delete are searched for, in seconds, and how many of a partition at a time.
EXPIRE_EVERY: Final = 60.0
EXPIRE_AT_ONCE: Final = 20

#: What a script returns instead of a digest or a fence if the session or the instance cannot be read.
DAMAGED: Final = b"!"

#: What a sweep does about a problem.
SKIPPED: Final = "it is skipped and tried again later"


class RedisSweep:
    """Finds what a sweep has to do, in all partitions of a store."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._expires_at = 0.0

    def due(self, limit: int, grace: int, *, include_recent: bool) -> list[ReadyInstance]:
        """Take instances to dispatch, those that have waited longest first."""
        until = self._store.until()
        with readable(self._store.problems, "deletion of expired sessions"):
            self._expire(until)
        ahead = MAX_PAUSE * grace if include_recent else 0
        shares = self._shares("out", ahead, limit, until)
        rest = (ahead, grace, MAX_PAUSE)
        calls = [
            Call(
                "take",
                (partition.world, partition.out, partition.cool, partition.rules),
                (share, *rest, partition.tag + b"s:"),
            )
            for partition, share in shares
        ]
        found = [
            (float(when), partition, member, digest)
            for (partition, _), answer in zip(shares, self._each(calls, until), strict=True)
            for when, member, digest in _groups(answer or [], 3)
            if not self._is_damaged(member, digest)
        ]
        found.sort(key=lambda one: one[0])
        return [due for _, *where in found for due in self._due(until, *where)]

    def _due(
        self, until: float, partition: PartitionKeys, member: bytes, digest: bytes
    ) -> list[ReadyInstance]:
        """An instance to dispatch; none if the rules that name its runner cannot be read."""
        found: list[ReadyInstance] = []
        with readable(self._store.problems, place_of_rules(digest)):
            rules = self._store.rules(partition, digest, until)
            found.append(ReadyInstance.by(rules, *instance_of_member(member)))
        return found

    def _is_damaged(self, member: bytes, mark: bytes) -> bool:
        """Whether a script could not read what an entry of an index names. Reports it."""
        if mark != DAMAGED:
            return False
        place = f"index entry {member.decode(errors='replace')!r}"
        with suppress(*DAMAGE):
            place = place_of(*instance_of_member(member))
        error = StorageCorruptError("its session, or its state, is missing or cannot be read")
        self._store.problems.report("unreadable", place, error, SKIPPED)
        return True

    def _each(self, calls: Sequence[Call], until: float, *, partly: bool = False) -> list[Any]:
        """The answers of scripts for several partitions, None for one with a key of a wrong type."""
        if not calls:
            return []
        answers = self._store.run_all(calls, until, partly=partly, damaged=True)
        return [self._checked(one, answer) for one, answer in zip(calls, answers, strict=True)]

    def _checked(self, one: Call, answer: Any) -> Any:
        """The answer, or None if the script found a key of a wrong type. Reports it, or resolves it."""
        problems = self._store.problems
        place = f"partition index {one.keys[1].decode(errors='replace')}, script {one.name}"
        if isinstance(answer, WrongTypeError):
            problems.report("unreadable", place, answer, SKIPPED)
            return None
        problems.resolve(place)
        return answer

    def expired(self, limit: int) -> list[Expired]:
        """Running instances whose lease has expired."""
        until = self._store.until()
        shares = self._shares("lease", 0, limit, until)
        calls = [
            Call("lost", (partition.world, partition.lease), (share, partition.tag + b"s:"))
            for partition, share in shares
        ]
        found = [
            one
            for answer in self._each(calls, until)
            for one in _groups(answer or [], 4)
            if not self._is_damaged(one[1], one[2])
        ]
        found.sort(key=lambda one: float(one[0]))
        return [
            Expired(*instance_of_member(member), int(fence), manager.decode())
            for _, member, fence, manager in found
        ]

    def _shares(self, kind: str, ahead: int, limit: int, until: float) -> list[tuple[PartitionKeys, int]]:
        """How many of the instances that have waited longest each partition has, if any."""

        def peek(partition: PartitionKeys, most: int) -> Call:
            return Call("peek", _index(partition, kind), (kind, ahead, most))

        partitions = self._store.keyspace.partitions
        counts = Counter(n for _, n in self._first(limit, peek, _times, until))
        return [(partitions[n], count) for n, count in sorted(counts.items())]

    def _first(
        self,
        limit: int,
        ask: Callable[[PartitionKeys, int], Call],
        read: Callable[[list[bytes]], list[Any]],
        until: float,
    ) -> list[tuple[Any, int]]:
        """The first entries of an index over all partitions, each with the number of its partition.

        Args:
            limit: the greatest number of entries.
            ask: the call that returns up to so many of the first entries of a partition.
            read: converts the answer to sorted values, which are compared.
            until: the monotonic time at which the operation times out.
        """
        partitions = self._store.keyspace.partitions
        most = min(limit, max(FEWEST, AHEAD * limit // len(partitions)))
        asked = dict.fromkeys(range(len(partitions)), most)
        found: dict[int, list[Any]] = {}
        first: list[tuple[Any, int]] = []
        while asked and limit > 0:
            calls = [ask(partitions[n], most) for n, most in asked.items()]
            answers = self._each(calls, until, partly=True)
            found |= {n: read(answer or []) for n, answer in zip(asked, answers, strict=True)}
            first = list(islice(merge(*([(one, n) for one in each] for n, each in found.items())), limit))
            counts = Counter(n for _, n in first)
            # If all entries of a short answer are among the first, the partition can have more of them.
            asked = {n: limit for n in asked if asked[n] < limit and counts[n] == asked[n]}
        return first

    def timed_sessions(self, limit: int, managers: Collection[str]) -> list[TimedSession]:
        """Sessions of these managers that have timers, those whose first timer is due earliest first."""
        names = sorted({*managers})

        def ask(partition: PartitionKeys, most: int) -> Call:
            return Call("timed", (partition.world, partition.timed), (most, partition.tag + b"s:", *names))

        def read(answer: list[bytes]) -> list[tuple[int, str]]:
            return sorted(timed for entry in answer for timed in self._timed(entry))

        found = self._first(limit, ask, read, self._store.until()) if names else []
        return [TimedSession(uid, at) for (at, uid), _ in found]

    def _timed(self, entry: bytes) -> list[tuple[int, str]]:
        """When the first timer of a session is due, and its UID; nothing if there is no such session."""
        found: list[tuple[int, str]] = []
        text = entry.removeprefix(DAMAGED)
        with readable(self._store.problems, f"index entry {text.decode(errors='replace')!r}"):
            at, _, place = text.partition(b" ")
            when, uid = int(at), uid_of_member(place)
            if text != entry:
                message = (
                    f"session {uid!r} is missing or cannot be read: restore a backup, or remove the entry"
                )
                raise StorageCorruptError(message)
            found.append((when, uid))
        return found

    def backlog(self) -> Backlog:
        """Count the instances that are scheduled or running."""
        calls = [
            Call("backlog", (partition.world, partition.out, partition.cool, partition.lease))
            for partition in self._store.keyspace.partitions
        ]
        answers = self._store.run_all(calls, self._store.until())
        scheduled, later, running = (sum(answer[part] for answer in answers) for part in range(3))
        return Backlog(scheduled - later, later, running)

    def next_at(self) -> int | None:
        """When the next instance has to be dispatched or rescued; None if there is none."""
        calls = [
            Call("next", (partition.world, partition.out, partition.lease))
            for partition in self._store.keyspace.partitions
        ]
        answers = self._each(calls, self._store.until(), partly=True)
        return min((int(float(when)) for answer in answers for when in answer or () if when), default=None)

    def renew(self, leases: Collection[Lease], lease: int) -> set[Lease]:
        """Extend the leases of claims that still hold; returns the others."""
        of_partition: dict[PartitionKeys, list[Lease]] = {}
        for held in leases:
            of_partition.setdefault(self._store.keys_of(held.uid)[0], []).append(held)
        if not of_partition:
            return set()
        calls = [self._renewal(partition, held, lease) for partition, held in of_partition.items()]
        answers = self._store.run_all(calls, self._store.until())
        return {held[n - 1] for held, lost in zip(of_partition.values(), answers, strict=True) for n in lost}

    def _renewal(self, partition: PartitionKeys, leases: list[Lease], lease: int) -> Call:
        sessions: dict[bytes, int] = {}
        parts: list[Part] = [lease]
        for held in leases:
            keys = self._store.keys_of(held.uid)[1]
            place = instance_place(held.task, held.number)
            number = sessions.setdefault(keys.s, len(sessions) + 1)
            parts += (number, member_of_instance(keys.place, place), place, held.fence)
        return Call("renew", (partition.world, partition.lease, *sessions), parts)

    def _expire(self, until: float) -> None:
        """Delete some finalized sessions that have been kept for long enough, at most once in a while."""
        after = self._store.url.expire_finalized
        if after is None or time.monotonic() < self._expires_at:
            return
        self._expires_at = time.monotonic() + EXPIRE_EVERY
        if self.expire(after, until):
            self._expires_at = 0.0  # there is more

    def expire(self, after: int, until: float) -> bool:
        """Delete some finalized sessions without changes for this time; returns whether there can be more."""
        calls = [
            Call(
                "expire",
                (partition.world, partition.ended, partition.uids, partition.logged),
                (after, EXPIRE_AT_ONCE, *(partition.tag + kind for kind in (b"s:", b"c:", b"x:"))),
            )
            for partition in self._store.keyspace.partitions
        ]
        answers = filter(None, self._each(calls, until))
        return any(looked == EXPIRE_AT_ONCE for looked, _ in answers)


def _index(partition: PartitionKeys, kind: str) -> tuple[bytes, bytes, bytes]:
    return partition.world, partition.out if kind == "out" else partition.lease, partition.cool


def _times(answer: list[bytes]) -> list[float]:
    return list(map(float, answer))


def _groups(answer: list[Any], size: int) -> Iterator[tuple[Any, ...]]:
    return zip(*[iter(answer)] * size, strict=True)
