"""Delete old records: by partition, by session, and in the order in which they were stored."""

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

#: How many records or sessions are read at a time.
BATCH: Final = 500

#: A position consists of the partition, the number of the session among those with records, and the cursor.
#: The latter two have this many bits.
_BITS: Final = 64
_MASK: Final = (1 << _BITS) - 1


class _Found(NamedTuple):
    """A record that may be deleted.

    Attributes:
        place: its position among all records of the storage.
        member: its member in the session's log.
        state: the state of its instance.
        payload: the part of it to keep, b"" for nothing.
    """

    place: int
    member: bytes
    state: bytes
    payload: bytes


def purge_records(store: RedisStore, purge: Purge, after: int, limit: int) -> Purged:
    """Delete up to `limit` records after a position, or only their contexts, one session at a time."""
    until = store.until()
    taken, last = 0, None
    for partition, session, number in _sessions(store, after, until):
        keys = partition.session_keys(session)
        begin = after & _MASK if number == after >> _BITS else 0
        for found in _records(store, partition, session, purge, number, begin, limit - taken, until):
            if not purge.dry_run:
                parts = [part for one in found for part in _arguments_for(one)]
                taken += store.run("purge", (partition.world, keys.s, keys.x), parts, until)
            else:
                taken += len(found)
            last = found[-1].place
            if taken >= limit:
                return Purged(taken, last)
    return Purged(taken, None)


def _sessions(store: RedisStore, after: int, until: float) -> Iterator[tuple[PartitionKeys, bytes, int]]:
    """The sessions with records, from a position on: partition, member, and number across all partitions."""
    first, begin = after >> (2 * _BITS), (after >> _BITS) & _MASK
    partitions = store.keyspace.partitions
    for index in range(first, len(partitions)):
        partition = partitions[index]
        lowest: Part = begin if index == first else 0
        while True:
            query = (lowest, "+inf", "BYSCORE", "LIMIT", 0, BATCH, "WITHSCORES")
            page = store.ask(until, "ZRANGE", partition.logged, *query)
            for member, score in zip(page[::2], page[1::2], strict=True):
                yield partition, member, (index << _BITS) | int(float(score))
            if len(page) < 2 * BATCH:
                break
            lowest = f"({int(float(page[-1]))}"


def _records(  # noqa: PLR0917 - the position, the filter, and the limits
    store: RedisStore,
    partition: PartitionKeys,
    session: bytes,
    purge: Purge,
    number: int,
    begin: int,
    limit: int,
    until: float,
) -> Iterator[list[_Found]]:
    """The records of a session that may be deleted, in batches, up to `limit`."""
    keys = partition.session_keys(session)
    first = b"[o%0*d" % (CURSOR_DIGITS, begin + 1)
    while limit > 0:
        query = (BATCH, BATCH, first, b"(p", 0, -(2**53), "", "", 1)
        page = store.run("logs", (partition.world, keys.s, keys.x), query, until)
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
    """The part of a record to keep, b"" for nothing; None if the record must not be deleted."""
    at, level = rows.at_and_level(from_json(payload))
    if at >= purge.before or level > purge.max_level:
        return None
    seen = rows.seen_from(state)
    if seen.flagged and not resolved and level >= min(purge.threshold, seen.log_unresolved):
        return None
    return rows.without_context(payload) if purge.contexts_only else b""


def _arguments_for(found: _Found) -> tuple[Part, ...]:
    cursor, instance = rows.place_of_record(found.member)
    place = b"%0*d" % (CURSOR_DIGITS, cursor)
    kind = found.member.rpartition(b"\0")[2]
    own = b"q%b\0%b\0%b" % (instance, place, kind)
    return place, instance, found.state, found.member, own, found.payload
