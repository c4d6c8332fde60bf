"""Read from Redis. A long read consists of several steps, and each step reads one consistent state."""

from __future__ import annotations

from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from triggers.core.exchange import Need
from triggers.core.timers import BEFORE_ALL
from triggers.storages.base import MAX_CONFLICTS, ConflictError
from triggers.storages.redis import rows
from triggers.storages.redis.changes import ANY
from triggers.storages.redis.commit import CommitAttempt, QueueTicket, load_head, read_head
from triggers.storages.redis.keys import CURSOR_DIGITS, instance_of_place, instance_place
from triggers.storages.redis.slice import parts_of, timer_parts
from triggers.storages.redis.store import Call

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from triggers.core.exchange import Changes, Decision
    from triggers.core.state import Counter, Firing, Instance, Session
    from triggers.core.status import Status
    from triggers.core.timers import Timer
    from triggers.storages.base import Backlog, StoredRecord
    from triggers.storages.redis.nodes import Part
    from triggers.storages.redis.store import RedisStore
    from triggers.storages.redis.sweep import RedisSweep

#: How many instances or records a script examines at most, so that other commands do not wait long.
BUDGET: Final = 2_000

#: How many firings are read at a time.
FIRINGS: Final = 1_000

#: What slice.lua is asked for besides timers.
NOTHING: Final = tuple(parts_of(Need()))


class RedisReader:
    """The plug for reading of a :class:`~triggers.storages.redis.storage.RedisStorage`."""

    def __init__(self, store: RedisStore, sweep: RedisSweep) -> None:
        self._store = store
        self._sweep = sweep

    def preview(self, uid: str, decision: Decision) -> Changes:
        """Run a decision about a session and store nothing.

        It starts over if the session has changed between two steps of reading.
        """
        until = self._store.until()
        for _ in range(MAX_CONFLICTS):
            try:
                return CommitAttempt(self._store, uid, until, QueueTicket(), exclusive=True).preview(decision)
            except ConflictError:
                continue
        raise ConflictError.too_often(uid)

    def sessions(self, after: str = "", limit: int = 100) -> list[Session]:
        """A page of heads in the order of their UIDs, merged from all partitions."""
        until = self._store.until()
        begin = b"(" + after.encode() if after else b"-"
        partitions = self._store.keyspace.partitions
        query = (begin, "+", "LIMIT", 0, limit)
        queries = [("ZRANGEBYLEX", partition.uids, *query) for partition in partitions]
        pages = self._store.ask_each(queries, until)
        uids = [uid.decode() for uid in islice(iter(sorted(uid for page in pages for uid in page)), limit)]
        calls = []
        for uid in uids:
            partition, keys = self._store.keys_of(uid)
            calls.append(Call("head", (partition.world, keys.s, keys.q)))
        found = self._store.run_all(calls, until) if calls else []
        heads = [read_head(self._store, uid, head, until) for uid, head in zip(uids, found, strict=True)]
        return [head.session for head in heads if head.version is not None]

    def session(self, uid: str) -> Session | None:
        """The head of a session; None if it is not stored."""
        head = load_head(self._store, uid, self._store.until())
        return head.session if head.version is not None else None

    def counters(self, uid: str) -> dict[str, Counter]:
        """How many instances each task has."""
        keys = self._store.keys_of(uid)[1]
        return rows.counters_from(self._store.ask(self._store.until(), "HGETALL", keys.c))

    def instance(self, uid: str, task: str, number: int) -> Instance | None:
        """One instance by task and number; None if it is not stored."""
        place = instance_place(task, number)
        keys = self._store.keys_of(uid)[1]
        fields = (b"H" + place, b"B" + place)
        state, rest = self._store.ask(self._store.until(), "HMGET", keys.s, *fields)
        return None if state is None else rows.instance_from(place, state, rest)

    def instances(
        self,
        uid: str,
        *,
        task: str | None = None,
        statuses: Collection[Status] | None = None,
        flagged: int | None = None,
        after: tuple[str, int] = ("", -1),
        limit: int = 100,
    ) -> list[Instance]:
        """A page of instances in the order of task and number, which has no gaps within a task."""
        if statuses is not None and not statuses:
            return []
        wanted = "" if statuses is None else f" {' '.join(status.value for status in statuses)} "
        found: list[Instance] = []
        begin: bytes | None = instance_place(*after) if after[0] else b""
        while begin is not None and len(found) < limit:
            head: tuple[Part, ...] = (limit - len(found), BUDGET, wanted)
            if flagged is None:
                ranges = self._ranges(uid, task, begin)
                page = self._look(uid, (*head, "", *ranges)) if ranges else [b""]
            else:
                page = self._look(uid, (*head, max(flagged, 1), *_flagged_range(task, begin)))
            found += (rows.instance_from(*page[n : n + 3]) for n in range(1, len(page), 3))
            begin = page[0] or None
        return found

    def _look(self, uid: str, parts: tuple[Part, ...]) -> list[bytes]:
        partition, keys = self._store.keys_of(uid)
        page: list[bytes] = self._store.run(
            "instances", (partition.world, keys.s, keys.x), parts, self._store.until()
        )
        return page

    def _ranges(self, uid: str, task: str | None, begin: bytes) -> list[Part]:
        """For each task with instances after `begin`: its name, the first number, and one after the last."""
        last = instance_of_place(begin) if begin else ("", -1)
        ranges: list[Part] = []
        for name, counter in sorted(self.counters(uid).items()):
            first = last[1] + 1 if name == last[0] else 0
            if (task is None or name == task) and name >= last[0] and first < counter.created:
                ranges += (name, first, counter.created)
        return ranges

    def firings(
        self, uid: str, *, numbers: Collection[int] | None = None, after: int = 0, limit: int = 100
    ) -> list[Firing]:
        """A page of firings in their order, which has no gaps, or those with the given numbers."""
        if numbers is not None:
            return list(self._firings(uid, sorted({number for number in numbers if number > 0})))
        found: list[Firing] = []
        while len(found) < limit:
            size = min(FIRINGS, limit - len(found))
            page = list(self._firings(uid, range(after + 1, after + 1 + size)))
            found += page
            after += size
            if len(page) < size:
                break
        return found

    def _firings(self, uid: str, numbers: Collection[int]) -> Iterator[Firing]:
        keys, until = self._store.keys_of(uid)[1], self._store.until()
        ordered = list(numbers)
        for first in range(0, len(ordered), FIRINGS):
            batch = ordered[first : first + FIRINGS]
            fields = [part for number in batch for part in (b"f%d" % number, b"p%d" % number)]
            texts = self._store.ask(until, "HMGET", keys.s, *fields)
            for number, text, kwargs in zip(batch, texts[::2], texts[1::2], strict=True):
                if text is not None:
                    yield rows.firing_from(number, text, kwargs)

    def timers(
        self,
        uid: str,
        *,
        names: Collection[str] | None = None,
        after: tuple[int, int] = BEFORE_ALL,
        limit: int = 100,
    ) -> list[Timer]:
        """A page of timers by their time and number, or those with the given names."""
        if names is not None:
            return sorted(self._timers(uid, 1, timer_parts(0, names)), key=attrgetter("order"))
        found: list[Timer] = []
        while len(found) < limit:
            size = min(BUDGET, limit - len(found))
            page = self._timers(uid, 0, timer_parts(size, begin=rows.timers_after(*after)))
            found += page
            if len(page) < size:
                break
            after = page[-1].order
        return found

    def _timers(self, uid: str, which: int, parts: list[Part]) -> list[Timer]:
        """The timers of the range (0), or those with names (1), which slice.lua finds."""
        partition, keys = self._store.keys_of(uid)
        places = (partition.world, keys.s, keys.c, keys.x)
        found = self._store.run("slice", places, (ANY, *NOTHING, *parts), self._store.until())
        return rows.timers_from(found[-2:][which], keys.s)

    def latest(self, uid: str, triggers: Collection[str]) -> dict[str, Firing]:
        """The latest firing of each of these triggers that has ever fired."""
        if not triggers:
            return {}
        keys = self._store.keys_of(uid)[1]
        fields = [b"t" + trigger.encode() for trigger in triggers]
        texts = self._store.ask(self._store.until(), "HMGET", keys.s, *fields)
        numbers = [rows.latest_from(text).number for text in texts if text is not None]
        return {firing.trigger: firing for firing in self.firings(uid, numbers=numbers)}

    def logs(
        self,
        uid: str,
        *,
        instance: tuple[str, int] | None = None,
        min_level: int = 0,
        text: str = "",
        unresolved: bool | None = None,
        fingerprint: str | None = None,
        after: int = 0,
        limit: int = 100,
        latest: bool = False,
    ) -> list[StoredRecord]:
        """A page of records in the order in which they were stored."""
        if fingerprint is not None and not fingerprint:
            return []
        wanted = text.encode().lower()  # in bytes, only ASCII letters have a lower case
        filters = (min_level, "" if unresolved is None else int(unresolved), fingerprint or "", 0)
        first, last = _log_range(instance, after)
        found: list[StoredRecord] = []
        while len(found) < limit:
            ends = (last, first, 1) if latest else (first, last, 0)
            most = limit - len(found) if not text else BUDGET
            page = self._page(uid, (most, BUDGET, *ends, *filters))
            for n in range(1, len(page), 3):
                record = rows.record_from(*page[n : n + 3])
                if wanted in record.entry.message.encode().lower() and len(found) < limit:
                    found.append(record)
            if not page[0]:
                break
            first, last = (first, b"(" + page[0]) if latest else (b"(" + page[0], last)
        return found[::-1] if latest else found

    def _page(self, uid: str, parts: tuple[Part, ...]) -> list[Any]:
        partition, keys = self._store.keys_of(uid)
        page: list[Any] = self._store.run(
            "logs", (partition.world, keys.s, keys.x), parts, self._store.until()
        )
        return page

    def backlog(self) -> Backlog:
        """Count the instances that are scheduled or running."""
        return self._sweep.backlog()

    def next_at(self) -> int | None:
        """When the next instance has to be dispatched or rescued; None if there is none."""
        return self._sweep.next_at()


def _flagged_range(task: str | None, begin: bytes) -> tuple[bytes, bytes]:
    """The range of members of the session's sorted set for instances that need a review."""
    first, last = b"[g", b"(h"
    if task is not None:
        own = task.encode()
        first, last = b"[g%b\0" % own, b"(g%b\1" % own
    if begin:
        first = max(first, b"(g" + begin, key=lambda end: (end[1:], end[:1] == b"("))
    return first, last


def _log_range(instance: tuple[str, int] | None, after: int) -> tuple[bytes, bytes]:
    """The range of members of the session's sorted set for records after a cursor."""
    place = b"%0*d" % (CURSOR_DIGITS, after + 1)
    if instance is None:
        return b"[o" + place, b"(p"
    own = instance_place(*instance)
    return b"[q%b\0%b" % (own, place), b"(q%b\1" % own
