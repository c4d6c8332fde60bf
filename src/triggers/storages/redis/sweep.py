"""What goes round all partitions: who is due, who has lost a lease, heartbeats, and what is still to do.

On one server each look is one round trip for all partitions, on a cluster one to each node. Those that waited
longest come first over all of them: first it is asked when they are due, then each partition gives its part.
Where a node of a cluster is away, those of the others are looked after.
"""

from __future__ import annotations

import time
from heapq import merge
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from triggers.storages.base import MAX_PAUSE, Backlog, Expired, Lease, ReadyInstance
from triggers.storages.redis.keys import instance_of_member, instance_place, member_of_instance
from triggers.storages.redis.store import Call

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from triggers.storages.redis.keys import PartitionKeys
    from triggers.storages.redis.nodes import Part
    from triggers.storages.redis.store import RedisStore

#: At first each partition is asked for so many times its share of the limit, and for so many at least.
AHEAD: Final = 4
FEWEST: Final = 8

#: How often finalised sessions are looked for that may go, in seconds, and how many of a partition at a time.
EXPIRE_EVERY: Final = 60.0
EXPIRE_AT_ONCE: Final = 20


class RedisSweep:
    """Rounds over the partitions of a store."""

    def __init__(self, store: RedisStore) -> None:
        self._store = store
        self._expires_at = 0.0

    def due(self, limit: int, grace: int, *, include_recent: bool) -> list[ReadyInstance]:
        """Take what is to be handed over."""
        until = self._store.until()
        self._expire(until)
        ahead = MAX_PAUSE * grace if include_recent else 0
        shares = self._shares("out", ahead, limit, until)
        rest = (ahead, grace, MAX_PAUSE)
        calls = [
            Call("take", (world.world, world.out, world.cool), (share, *rest, world.tag + b"s:"))
            for world, share in shares
        ]
        answers = self._store.run_all(calls, until) if calls else []
        found = [
            (float(when), world, member, digest)
            for (world, _), answer in zip(shares, answers, strict=True)
            for when, member, digest in _groups(answer, 3)
        ]
        found.sort(key=lambda one: one[0])
        return [
            ReadyInstance.by(self._store.rules(world, digest, until), *instance_of_member(member))
            for _, world, member, digest in found
        ]

    def expired(self, limit: int) -> list[Expired]:
        """The claims that ran out."""
        until = self._store.until()
        shares = self._shares("lease", 0, limit, until)
        calls = [
            Call("lost", (world.world, world.lease), (share, world.tag + b"s:")) for world, share in shares
        ]
        answers = self._store.run_all(calls, until) if calls else []
        found = [one for answer in answers for one in _groups(answer, 4)]
        found.sort(key=lambda one: float(one[0]))
        return [
            Expired(*instance_of_member(member), int(fence), manager.decode())
            for _, member, fence, manager in found
        ]

    def _shares(self, kind: str, ahead: int, limit: int, until: float) -> list[tuple[PartitionKeys, int]]:
        """How many of those that waited longest each partition has, where it has any."""
        worlds = self._store.world.partitions
        most = min(limit, max(FEWEST, AHEAD * limit // len(worlds)))
        asked = dict.fromkeys(range(len(worlds)), most)
        times: dict[int, list[float]] = {}
        while asked:
            calls = [Call("peek", _index(worlds[n], kind), (kind, ahead, most)) for n, most in asked.items()]
            answers = self._store.run_all(calls, until, partly=True)
            times |= {n: list(map(float, answer or ())) for n, answer in zip(asked, answers, strict=True)}
            first = islice(merge(*([(when, n) for when in found] for n, found in times.items())), limit)
            counts = dict.fromkeys(times, 0)
            for _, n in first:
                counts[n] += 1
            # Of a partition that was asked for few, and gave all of them, there may be more to come first.
            asked = {n: limit for n in asked if asked[n] < limit and counts[n] == asked[n]}
        return [(worlds[n], count) for n, count in counts.items() if count] if limit > 0 else []

    def backlog(self) -> Backlog:
        """What is still to do, counted."""
        calls = [
            Call("backlog", (world.world, world.out, world.cool, world.lease))
            for world in self._store.world.partitions
        ]
        answers = self._store.run_all(calls, self._store.until())
        scheduled, later, running = (sum(answer[part] for answer in answers) for part in range(3))
        return Backlog(scheduled - later, later, running)

    def next_at(self) -> int | None:
        """When the next one wants attention."""
        calls = [
            Call("next", (world.world, world.out, world.lease)) for world in self._store.world.partitions
        ]
        answers = self._store.run_all(calls, self._store.until(), partly=True)
        return min((int(float(when)) for answer in answers for when in answer or () if when), default=None)

    def renew(self, leases: Collection[Lease], lease: int) -> set[Lease]:
        """Extend the claims that still hold."""
        of_world: dict[PartitionKeys, list[Lease]] = {}
        for held in leases:
            of_world.setdefault(self._store.keys_of(held.uid)[0], []).append(held)
        if not of_world:
            return set()
        calls = [self._renewal(world, held, lease) for world, held in of_world.items()]
        answers = self._store.run_all(calls, self._store.until())
        return {held[n - 1] for held, lost in zip(of_world.values(), answers, strict=True) for n in lost}

    def _renewal(self, world: PartitionKeys, leases: list[Lease], lease: int) -> Call:
        sessions: dict[bytes, int] = {}
        parts: list[Part] = [lease]
        for held in leases:
            keys = self._store.keys_of(held.uid)[1]
            place = instance_place(held.task, held.number)
            number = sessions.setdefault(keys.s, len(sessions) + 1)
            parts += (number, member_of_instance(keys.place, place), place, held.fence)
        return Call("renew", (world.world, world.lease, *sessions), parts)

    def _expire(self, until: float) -> None:
        """Let finalised sessions go that have been kept for long enough, a few at a time."""
        after = self._store.url.expire_finalized
        if after is None or time.monotonic() < self._expires_at:
            return
        self._expires_at = time.monotonic() + EXPIRE_EVERY
        if self.expire(after, until):
            self._expires_at = 0.0  # there is more

    def expire(self, after: int, until: float) -> bool:
        """Let some finalised sessions go that did not change for so long; whether there may be more."""
        calls = [
            Call(
                "expire",
                (world.world, world.ended, world.uids, world.logged),
                (after, EXPIRE_AT_ONCE, *(world.tag + kind for kind in (b"s:", b"c:", b"x:"))),
            )
            for world in self._store.world.partitions
        ]
        answers = self._store.run_all(calls, until)
        return any(looked == EXPIRE_AT_ONCE for looked, _ in answers)


def _index(world: PartitionKeys, kind: str) -> tuple[bytes, bytes, bytes]:
    return world.world, world.out if kind == "out" else world.lease, world.cool


def _groups(answer: list[Any], size: int) -> Iterator[tuple[Any, ...]]:
    return zip(*[iter(answer)] * size, strict=True)
