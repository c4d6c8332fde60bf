"""Sessions in the memory of one process: for tests, and for trying things out.

It keeps the same promises as the others as long as the process lives, and it encodes like them: what
it holds is text and numbers, never an object of the caller's.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NoReturn

from triggers.core.exchange import Changes, Need, Slice
from triggers.core.records import without_contexts
from triggers.core.state import Counter, Firing, Instance, Latest, Session, copy_of
from triggers.core.status import SETTLED, Status
from triggers.core.values import decode, encode, type_name
from triggers.exceptions import StorageBusyError, StorageError
from triggers.fork import reset_after_fork
from triggers.storages.base import (
    MAX_CONFLICTS,
    MAX_PAUSE,
    Backlog,
    ConflictError,
    Expired,
    Lease,
    Purge,
    Purged,
    ReadyInstance,
    StoredRecord,
    run_decision,
)
from triggers.storages.clock import wall_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator

    from triggers.core.exchange import Decision, Record
    from triggers.core.records import LogEntry


@dataclass(slots=True)
class _Kept:
    """One session."""

    head: Session
    firings: list[Firing] = field(default_factory=list)
    latest: dict[str, Firing] = field(default_factory=dict)
    keys: dict[tuple[str, str], Firing] = field(default_factory=dict)
    counters: dict[str, Counter] = field(default_factory=dict)
    instances: dict[tuple[str, int], Instance] = field(default_factory=dict)
    waiting: dict[str, dict[tuple[str, int], None]] = field(default_factory=dict)
    logs: list[StoredRecord] = field(default_factory=list)


class MemoryStorage:
    """Sessions in memory.

    Args:
        url: ``memory://``; each storage is a world of its own.
        clock: gives the time, in microseconds since the Unix epoch; the system's by default.
    """

    def __init__(self, url: str = "memory://", *, clock: Callable[[], int] = wall_clock) -> None:
        self.url = url
        self._clock = clock
        self._lock = threading.RLock()
        self._sessions: dict[str, _Kept] = {}
        self._scheduled: dict[tuple[str, str, int], None] = {}
        self._running: dict[tuple[str, str, int], None] = {}
        self._made = 0
        self._said = 0
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Go on with a copy of what the parent held, that nobody else has locked."""
        self._lock = threading.RLock()

    @classmethod
    def from_url(cls, url: str) -> MemoryStorage:
        """A new, empty storage."""
        return cls(url)

    def __repr__(self) -> str:
        return f"MemoryStorage({self.url!r})"

    @property
    def reader(self) -> MemoryStorage:
        """Itself: it reads, too."""
        return self

    def now(self) -> int:
        """The time of its clock."""
        return self._clock()

    def close(self) -> None:
        """Nothing is held that must be let go; what is kept stays."""

    def joined(self, connection: object) -> NoReturn:
        """Raise StorageError: memory has no transactions that others could take part in."""
        message = (
            f"memory:// cannot join a transaction on {type_name(type(connection))}: use sqlite:/// or "
            f"postgresql://, in the application's own database"
        )
        raise StorageError(message)

    # -- writing ----------------------------------------------------------------------------------------

    def commit(self, uid: str, decision: Decision, timeout: float | None = None) -> Changes:
        """Let a decision be made about a session and apply it; one lock makes every decision exclusive."""
        if not self._lock.acquire(timeout=-1 if timeout is None else timeout):
            message = f"the storage stayed locked for {timeout:g} s; nothing was changed"
            raise StorageBusyError(message)
        try:
            for _ in range(MAX_CONFLICTS):
                changes = self._decide(uid, decision)
                if self._holds_all(changes):
                    self._apply(changes)
                    return changes
        finally:
            self._lock.release()
        raise ConflictError.too_often(uid)

    def _decide(self, uid: str, decision: Decision) -> Changes:
        kept = self._sessions.get(uid)
        head = replace(kept.head, now=self._clock()) if kept else Session(uid, self._clock())
        return run_decision(
            decision, head, lambda need: _load(kept, need) if kept else Slice(), exclusive=True
        )

    def _holds_all(self, changes: Changes) -> bool:
        """Whether every guard still holds; the lock makes it so, whoever made the changes."""
        stored = self._of(changes.session.uid).instances
        guards = [(stored.get((moved.task, moved.number)), guard) for moved, guard in changes.transitioned]
        taking = [stored.get((taken.task, taken.number)) for taken in changes.triggered]
        return all(now is not None and guard.holds(now) for now, guard in guards) and all(
            now is not None and now.status is Status.UNSTARTED for now in taking
        )

    def renew(self, leases: Collection[Lease], lease: int) -> set[Lease]:
        """Extend the claims that still hold."""
        with self._lock:
            lost = {held for held in leases if not self._holds(held)}
            for held in set(leases) - lost:
                self._sessions[held.uid].instances[held.task, held.number].lease_until = self._clock() + lease
            return lost

    def _holds(self, held: Lease) -> bool:
        instance = self.instance(held.uid, held.task, held.number)
        return instance is not None and instance.status is Status.RUNNING and instance.fence == held.fence

    def due(self, limit: int, *, grace: int, include_recent: bool = False) -> list[ReadyInstance]:
        """Take what is to be handed over."""
        with self._lock:
            now = self._clock()
            horizon = now + MAX_PAUSE * grace if include_recent else now
            ready = [
                (uid, i)
                for uid, i in self._all(self._scheduled)
                if i.run_at <= now and i.dispatch_after <= horizon
            ]
            ready.sort(key=lambda found: found[1].dispatch_after)
            for _, instance in ready[:limit]:
                instance.dispatch_after = now + grace * min(2**instance.handovers, MAX_PAUSE)
                instance.handovers += 1
            heads = (self._sessions[uid].head for uid, _ in ready)
            return [
                ReadyInstance.by(head.rules, uid, i.task, i.number)
                for head, (uid, i) in zip(heads, ready[:limit], strict=False)
            ]

    def purge_logs(self, purge: Purge, *, after: int = 0, limit: int = 500) -> Purged:
        """Remove a batch of old records, or their contexts."""
        with self._lock:
            every = ((kept, record) for kept in self._sessions.values() for record in kept.logs)
            found = [
                (kept, record)
                for kept, record in every
                if record.cursor > after and _may_go(kept, record, purge)
            ]
            found.sort(key=lambda pair: pair[1].cursor)
            for kept, record in () if purge.dry_run else found[:limit]:
                place = kept.logs.index(record)
                kept.logs[place : place + 1] = [_bare(record)] if purge.contexts_only else []
        last = found[limit - 1][1].cursor if len(found) >= limit else None
        return Purged(len(found[:limit]), last)

    def expired(self, limit: int) -> list[Expired]:
        """The claims that ran out."""
        with self._lock:
            now = self._clock()
            found = [
                (uid, i)
                for uid, i in self._all(self._running)
                if i.lease_until is not None and i.lease_until < now
            ]
            return [
                Expired(uid, i.task, i.number, i.fence, self._sessions[uid].head.manager)
                for uid, i in found[:limit]
            ]

    def _all(self, index: dict[tuple[str, str, int], None]) -> Iterator[tuple[str, Instance]]:
        return ((uid, self._sessions[uid].instances[task, number]) for uid, task, number in index)

    # -- changes ----------------------------------------------------------------------------------------

    def _apply(self, changes: Changes) -> None:
        # First what can be refused, so that all is kept or nothing.
        said = [(record, _through_text(record.entry)) for record in changes.logs]
        head = changes.session
        if changes.writes_head:
            if head.ref is None:
                head.ref = len(self._sessions) + 1
                self._sessions[head.uid] = _Kept(head)
            self._sessions[head.uid].head = replace(head, exclusive=False)
        if head.ref is None:
            return
        kept = self._sessions[head.uid]
        for firing in changes.fired:
            kept.firings.append(firing)
            kept.latest[firing.trigger] = firing
            if firing.key is not None:
                kept.keys[firing.trigger, firing.key] = firing
        self._apply_instances(kept, changes)
        kept.counters.update({task: replace(counter) for task, counter in changes.counters.items()})
        for record, entry in said:
            self._said += 1
            kept.logs.append(_stored(self._said, record, entry))

    def _apply_instances(self, kept: _Kept, changes: Changes) -> None:
        for made in changes.created:
            self._made += 1
            made.ref = self._made
        for instance in (*changes.created, *changes.triggered, *(moved for moved, _ in changes.transitioned)):
            self._put(kept, instance)
        for instance, triggers in changes.gained:
            for trigger in triggers:
                kept.waiting[trigger].pop((instance.task, instance.number), None)
        for instance, triggers in changes.lacks:
            for trigger in triggers:
                kept.waiting.setdefault(trigger, {})[instance.task, instance.number] = None

    def _put(self, kept: _Kept, instance: Instance) -> None:
        where = (kept.head.uid, instance.task, instance.number)
        kept.instances[instance.task, instance.number] = copy_of(instance)
        for index, status in ((self._scheduled, Status.SCHEDULED), (self._running, Status.RUNNING)):
            if instance.status is status:
                index[where] = None
            else:
                index.pop(where, None)

    # -- reading ----------------------------------------------------------------------------------------

    def sessions(self, after: str = "", limit: int = 100) -> list[Session]:
        """Sessions in the order of their UIDs."""
        with self._lock:
            uids = sorted(uid for uid in self._sessions if uid > after)[:limit]
            return [replace(self._sessions[uid].head) for uid in uids]

    def session(self, uid: str) -> Session | None:
        """The head of a session."""
        with self._lock:
            kept = self._sessions.get(uid)
            return replace(kept.head, now=self._clock()) if kept else None

    def counters(self, uid: str) -> dict[str, Counter]:
        """Task → counter."""
        with self._lock:
            return {task: replace(counter) for task, counter in self._of(uid).counters.items()}

    def instance(self, uid: str, task: str, number: int) -> Instance | None:
        """One instance."""
        with self._lock:
            found = self._of(uid).instances.get((task, number))
            return copy_of(found) if found else None

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
        """A page of instances."""
        with self._lock:
            found = [
                copy_of(instance)
                for where, instance in sorted(self._of(uid).instances.items())
                if where > after
                and (task is None or instance.task == task)
                and (statuses is None or instance.status in statuses)
                and (flagged is None or _is_flagged(instance, flagged))
            ]
            return found[:limit]

    def firings(
        self, uid: str, *, numbers: Collection[int] | None = None, after: int = 0, limit: int = 100
    ) -> list[Firing]:
        """Firings in their order."""
        with self._lock:
            firings = self._of(uid).firings
            if numbers is None:
                return firings[after : after + limit]
            return [firings[number - 1] for number in sorted(set(numbers)) if 0 < number <= len(firings)]

    def latest(self, uid: str, triggers: Collection[str]) -> dict[str, Firing]:
        """Trigger → its latest firing."""
        with self._lock:
            latest = self._of(uid).latest
            return {trigger: latest[trigger] for trigger in triggers if trigger in latest}

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
        """A page of records."""
        wanted = text.encode().lower()  # as bytes only ASCII letters have a lower case
        with self._lock:
            kept = self._of(uid)
            found = [
                replace(record, resolved=not _is_open(kept, record))
                for record in kept.logs
                if record.cursor > after
                and (instance is None or (record.task, record.instance) == instance)
                and record.entry.level >= min_level
                and wanted in record.entry.message.encode().lower()
                and (unresolved is None or _is_open(kept, record) is unresolved)
                and (fingerprint is None or record.fingerprint == fingerprint)
            ]
        return found[-limit:] if latest else found[:limit]

    def backlog(self) -> Backlog:
        """What is still to do."""
        with self._lock:
            now = self._clock()
            scheduled = [instance for _, instance in self._all(self._scheduled)]
            ready = sum(instance.run_at <= now for instance in scheduled)
            return Backlog(ready, len(scheduled) - ready, len(self._running))

    def next_at(self) -> int | None:
        """When the next one wants attention."""
        with self._lock:
            times = [instance.dispatch_after for _, instance in self._all(self._scheduled)]
            leases = [instance.lease_until for _, instance in self._all(self._running)]
            return min([*times, *filter(None, leases)], default=None)

    def _of(self, uid: str) -> _Kept:
        return self._sessions.get(uid) or _Kept(Session(uid, 0))


def _load(kept: _Kept, need: Need) -> Slice:
    found = Slice()
    found.keyed = kept.keys.get(need.key) if need.key else None
    counted = kept.counters if need.tasks is None else need.tasks & kept.counters.keys()
    found.counters = {task: replace(kept.counters[task]) for task in counted}
    latest = {trigger: kept.latest[trigger] for trigger in need.latest if trigger in kept.latest}
    found.latest = {trigger: Latest(firing.number, firing.depth) for trigger, firing in latest.items()}
    wanted = [where for trigger in need.waiting for where in kept.waiting.get(trigger, ())]
    wanted += [where for where in need.instances if where in kept.instances]
    found.instances = [copy_of(kept.instances[where]) for where in wanted]
    everything = kept.instances.values() if need.unstarted else ()
    unstarted = [i for i in everything if i.task in need.unstarted and i.status is Status.UNSTARTED]
    found.instances += map(copy_of, unstarted)
    found.history = (
        [firing for firing in kept.firings if firing.trigger in need.history] if need.history else []
    )
    if need.payloads:
        numbers = {number for instance in found.instances for number in instance.taken.values()}
        found.payloads = {number: kept.firings[number - 1].kwargs for number in numbers}
    if need.flagged is not None:
        finished = [
            i for i in kept.instances.values() if i.status is Status.FINISHED and _is_flagged(i, need.flagged)
        ]
        found.flagged = [(instance.task, instance.number) for instance in finished[: need.flagged_limit]]
    if need.levels is not None:
        found.level = _level(kept, need.instances[0], *need.levels)
    return found


def _level(kept: _Kept, where: tuple[str, int], number: int, threshold: int, chosen: tuple[int, ...]) -> int:
    own = (r for r in kept.logs if (r.task, r.instance) == where and r.entry.counts)
    beyond = (record.entry.level for record in own if record.number > number and record.number not in chosen)
    return max((level for level in beyond if level >= threshold), default=0)


def _is_open(kept: _Kept, record: StoredRecord) -> bool:
    """Whether no review covers the record."""
    instance = kept.instances[record.task, record.instance]
    beyond = record.number > instance.log_resolved and record.number not in instance.log_chosen
    return record.entry.counts and beyond


def _may_go(kept: _Kept, record: StoredRecord, purge: Purge) -> bool:
    entry = record.entry
    if entry.at >= purge.before or entry.level > purge.max_level:
        return False
    if purge.contexts_only and _bare(record).entry == entry:
        return False
    instance = kept.instances[record.task, record.instance]
    if not instance.log_unresolved or instance.status in SETTLED:
        return True
    return entry.level < min(purge.threshold, instance.log_unresolved) or not _is_open(kept, record)


def _is_flagged(instance: Instance, level: int) -> bool:
    return instance.log_unresolved >= max(level, 1) and instance.status not in SETTLED


def _stored(cursor: int, record: Record, entry: LogEntry) -> StoredRecord:
    whose = (record.instance.task, record.instance.number, record.number, record.fence, record.attempt)
    return StoredRecord(cursor, *whose, False, entry)  # noqa: FBT003 - not reviewed yet


def _bare(record: StoredRecord) -> StoredRecord:
    entry = record.entry
    return replace(record, entry=replace(entry, context={}, exception=without_contexts(entry.exception)))


def _through_text(entry: LogEntry) -> LogEntry:
    exception = None if entry.exception is None else decode(encode(entry.exception, "exception"))
    return replace(entry, context=decode(encode(entry.context, "context")), exception=exception)
