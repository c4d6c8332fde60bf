"""Old records go: partition by partition, session by session, in the order in which they were stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from pydantic_core import from_json

from triggers.storages.base import Purged
from triggers.storages.redis import rows
from triggers.storages.redis.keys import CURSOR_DIGITS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggers.storages.base import Purge
    from triggers.storages.redis.keys import PartitionKeys
    from triggers.storages.redis.nodes import Part
    from triggers.storages.redis.store import RedisStore

#: So many records, or sessions, are looked at a time.
BATCH: Final = 500

#: A place is partition, number of the session among those with records, cursor: the latter two of so many
#: bits.
_BITS: Final = 64
_MASK: Final = (1 << _BITS) - 1


class _Found(NamedTuple):
    """A record that may go.

    Attributes:
        place: where it stands among all records of the storage.
        member: its member of the session's log.
        state: that of its instance.
        payload: what is to be kept of it, b"" for nothing.
    """

    place: int
    member: bytes
    state: bytes
    payload: bytes


def purge_records(store: RedisStore, purge: Purge, after: int, limit: int) -> Purged:
    """Remove up to `limit` records beyond a place, or their contexts; of one session at a time."""
    until = store.until()
    taken, last = 0, None
    for world, session, number in _sessions(store, after, until):
        keys = world.session_keys(session)
        begin = after & _MASK if number == after >> _BITS else 0
        for found in _records(store, world, session, purge, number, begin, limit - taken, until):
            if not purge.dry_run:
                parts = [part for one in found for part in _going(one)]
                taken += store.run("purge", (world.world, keys.s, keys.x), parts, until)
            else:
                taken += len(found)
            last = found[-1].place
            if taken >= limit:
                return Purged(taken, last)
    return Purged(taken, None)


def _sessions(store: RedisStore, after: int, until: float) -> Iterator[tuple[PartitionKeys, bytes, int]]:
    """The sessions with records, from that of a place on: partition, member, number over all partitions."""
    first, begin = after >> (2 * _BITS), (after >> _BITS) & _MASK
    worlds = store.world.partitions
    for partition in range(first, len(worlds)):
        world = worlds[partition]
        lowest: Part = begin if partition == first else 0
        while True:
            query = (lowest, "+inf", "BYSCORE", "LIMIT", 0, BATCH, "WITHSCORES")
            page = store.ask(until, "ZRANGE", world.logged, *query)
            for member, score in zip(page[::2], page[1::2], strict=True):
                yield world, member, (partition << _BITS) | int(float(score))
            if len(page) < 2 * BATCH:
                break
            lowest = f"({int(float(page[-1]))}"


def _records(  # noqa: PLR0917 - where, which, and how many
    store: RedisStore,
    world: PartitionKeys,
    session: bytes,
    purge: Purge,
    number: int,
    begin: int,
    limit: int,
    until: float,
) -> Iterator[list[_Found]]:
    """Those of a session that may go, in batches, up to `limit`."""
    keys = world.session_keys(session)
    first = b"[o%0*d" % (CURSOR_DIGITS, begin + 1)
    while limit > 0:
        query = (BATCH, BATCH, first, b"(p", 0, -(2**53), "", "", 1)
        page = store.run("logs", (world.world, keys.s, keys.x), query, until)
        found = [
            _Found((number << _BITS) | rows.place_of_record(page[n])[0], page[n], page[n + 3], left)
            for n in range(1, len(page), 4)
            if (left := _left(purge, *page[n : n + 4])) is not None
        ][:limit]
        if found:
            yield found
            limit -= len(found)
        if not page[0]:
            return
        first = b"(" + page[0]


def _left(purge: Purge, _: bytes, payload: bytes, resolved: int, state: bytes) -> bytes | None:
    """What is to be kept of a record that may go, b"" for nothing; None for one that has to stay."""
    at, level = rows.at_and_level(from_json(payload))
    if at >= purge.before or level > purge.max_level:
        return None
    seen = rows.seen_from(state)
    if seen.flagged and not resolved and level >= min(purge.threshold, seen.log_unresolved):
        return None
    return rows.without_context(payload) if purge.contexts_only else b""


def _going(found: _Found) -> tuple[Part, ...]:
    cursor, instance = rows.place_of_record(found.member)
    place = b"%0*d" % (CURSOR_DIGITS, cursor)
    kind = found.member.rpartition(b"\0")[2]
    own = b"q%b\0%b\0%b" % (instance, place, kind)
    return place, instance, found.state, found.member, own, found.payload
