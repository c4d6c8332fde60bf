"""Sessions in the memory of one process, for tests and for trying things out.

Read this storage first: it keeps every promise of :mod:`triggers.storages.base` with plain Python objects and
one lock. From top to bottom:

1. :class:`StoredSession` is everything that is kept of one session.
2. :class:`MemoryStorage` is the two plugs of a storage: it commits decisions, finds instances to dispatch or
to rescue,
   and reads.
3. :func:`_load` finds what a decision asks to see.

Nothing that is kept is an object of the caller: instances are copied on the way in and on the way out, and
payloads are encoded text, as in every other storage.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass, field, replace
from itertools import islice
from operator import attrgetter
from typing import TYPE_CHECKING, NoReturn
from weakref import WeakSet

from triggers.core.exchange import Changes, Need, Slice
from triggers.core.records import without_contexts
from triggers.core.state import Counter, Firing, Instance, Latest, Session, copy_of
from triggers.core.status import Status
from triggers.core.timers import BEFORE_ALL
from triggers.core.values import decode, encode, type_name
from triggers.exceptions import StorageBusyError, StorageError
from triggers.fork import reset_after_fork
from triggers.redaction import shown_url
from triggers.storages.announcements import DeafListener
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
    TimedSession,
    commit_each,
    run_decision,
)
from triggers.storages.clock import wall_clock

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from triggers.core.exchange import Decision, Record
    from triggers.core.records import LogEntry
    from triggers.core.timers import Timer

#: The task and number of an instance.
Key = tuple[str, int]

#: The session, task and number of an instance.
GlobalKey = tuple[str, str, int]


@dataclass(slots=True)
class StoredSession:
    """Everything that is kept of one session.

    Attributes:
        head: the session itself.
        firings: all firings; the firing with number `n` is at `n - 1`.
        latest: trigger → its latest firing.
        keys: (trigger, idempotency key) → the firing that used it.
        counters: task → how many instances it has.
        instances: all instances.
        waiting: trigger → the unstarted instances that lack it. A dictionary is a set that keeps its order.
            With this index, a firing costs what it touches and not what the session holds.
        logs: all records, in the order in which they were stored.
        timers: name → timer.
    """

    head: Session
    firings: list[Firing] = field(default_factory=list)
    latest: dict[str, Firing] = field(default_factory=dict)
    keys: dict[tuple[str, str], Firing] = field(default_factory=dict)
    counters: dict[str, Counter] = field(default_factory=dict)
    instances: dict[Key, Instance] = field(default_factory=dict)
    waiting: dict[str, dict[Key, None]] = field(default_factory=dict)
    logs: list[StoredRecord] = field(default_factory=list)
    timers: dict[str, Timer] = field(default_factory=dict)


class MemoryStorage:
    """Sessions in memory.

    Args:
        url: ``memory://``. Two storages never share anything.
        clock: returns the time in microseconds since the Unix epoch; the system's time by default.
    """

    def __init__(self, url: str = "memory://", *, clock: Callable[[], int] = wall_clock) -> None:
        self.url = url
        self._clock = clock
        self._lock = threading.RLock()
        self._sessions: dict[str, StoredSession] = {}
        self._scheduled: dict[GlobalKey, None] = {}  # the outbox: what a sweep looks through
        self._running: dict[GlobalKey, None] = {}
        self._instance_count = 0
        self._record_count = 0
        self._woken: WeakSet[threading.Event] = WeakSet()  # set when work is announced
        reset_after_fork(self)

    @classmethod
    def from_url(cls, url: str) -> MemoryStorage:
        """Create a storage that is empty."""
        return cls(url)

    def __repr__(self) -> str:
        return f"MemoryStorage({shown_url(self.url)!r})"

    @property
    def reader(self) -> MemoryStorage:
        """The storage itself, which is also the plug for reading."""
        return self

    def now(self) -> int:
        """The time by the clock of this storage, in microseconds."""
        return self._clock()

    def close(self) -> None:
        """Do nothing: there is no connection, and the sessions stay."""

    def after_fork(self) -> None:
        """Replace the lock in a child process, where no thread will ever release the inherited one."""
        self._lock = threading.RLock()

    def announce(self) -> None:
        """Set the event of every listener."""
        with self._lock:
            for woken in self._woken:
                woken.set()

    def listen(self, woken: threading.Event) -> DeafListener:
        """Let each announcement set this event."""
        with self._lock:
            self._woken.add(woken)
        return DeafListener(woken, is_late=True)

    # -- committing -------------------------------------------------------------------------------------

    def commit(self, uid: str, decision: Decision, timeout: float | None = None) -> Changes:
        """Run a decision about a session and apply its changes. One lock makes every run exclusive."""
        if not self._lock.acquire(timeout=-1 if timeout is None else timeout):
            message = f"the storage stayed locked for {timeout:g} s; nothing was changed"
            raise StorageBusyError(message)
        try:
            for _ in range(MAX_CONFLICTS):
                changes = self._run(uid, decision)
                if self._guards_hold(changes):
                    self._apply(changes)
                    return changes
        finally:
            self._lock.release()
        raise ConflictError.too_often(uid)

    def commit_many(
        self, decisions: Sequence[tuple[str, Decision]], timeout: float | None = None
    ) -> list[Changes | Exception]:
        """Commit decisions about several sessions, one after another."""
        return commit_each(self, decisions, timeout)

    def _run(self, uid: str, decision: Decision) -> Changes:
        stored = self._sessions.get(uid)
        if stored is None:
            return run_decision(decision, Session(uid, self._clock()), lambda _: Slice(), exclusive=True)
        head = replace(stored.head, now=self._clock())
        return run_decision(decision, head, lambda need: _load(stored, need), exclusive=True)

    def _guards_hold(self, changes: Changes) -> bool:
        """Check every guard, although the lock excludes other changes: a decision can be wrong by itself."""
        instances = self._stored(changes.session.uid).instances
        return all(
            (now := instances.get(_key(changed))) is not None and guard.holds(now)
            for changed, guard in changes.transitioned
        ) and all(
            (now := instances.get(_key(changed))) is not None and now.status is Status.UNSTARTED
            for changed in changes.triggered
        )

    def _apply(self, changes: Changes) -> None:
        """Apply all changes. What can be refused comes first, so that a refusal leaves nothing half done."""
        entries = [_as_stored(record.entry) for record in changes.logs]
        head = changes.session
        if changes.writes_head:
            self._store_head(head)
        if head.ref is None:
            return
        stored = self._sessions[head.uid]
        self._store_firings(stored, changes.fired)
        self._store_instances(stored, changes)
        stored.counters |= {task: replace(counter) for task, counter in changes.counters.items()}
        self._store_records(stored, zip(changes.logs, entries, strict=True))
        for name, timer in changes.timers.items():
            if timer is None:
                stored.timers.pop(name, None)
            else:
                stored.timers[name] = timer

    def _store_head(self, head: Session) -> None:
        if head.ref is None:
            head.ref = len(self._sessions) + 1
            self._sessions[head.uid] = StoredSession(head)
        self._sessions[head.uid].head = replace(head, exclusive=False, time=0)

    def _store_firings(self, stored: StoredSession, firings: list[Firing]) -> None:
        for firing in firings:
            stored.firings.append(firing)
            stored.latest[firing.trigger] = firing
            if firing.key is not None:
                stored.keys[firing.trigger, firing.key] = firing

    def _store_instances(self, stored: StoredSession, changes: Changes) -> None:
        for created in changes.created:
            self._instance_count += 1
            created.ref = self._instance_count
        for changed in (*changes.created, *changes.triggered, *(one for one, _ in changes.transitioned)):
            self._store_instance(stored, changed)
        for instance, triggers in changes.gained:
            for trigger in triggers:
                stored.waiting[trigger].pop(_key(instance), None)
        for instance, triggers in changes.lacks:
            for trigger in triggers:
                stored.waiting.setdefault(trigger, {})[_key(instance)] = None

    def _store_instance(self, stored: StoredSession, instance: Instance) -> None:
        stored.instances[_key(instance)] = copy_of(instance)
        for index, status in ((self._scheduled, Status.SCHEDULED), (self._running, Status.RUNNING)):
            if instance.status is status:
                index[stored.head.uid, instance.task, instance.number] = None
            else:
                index.pop((stored.head.uid, instance.task, instance.number), None)

    def _store_records(self, stored: StoredSession, records: Iterator[tuple[Record, LogEntry]]) -> None:
        for record, entry in records:
            self._record_count += 1
            stored.logs.append(_stored_record(self._record_count, record, entry))

    # -- claims and the outbox --------------------------------------------------------------------------

    def renew(self, leases: Collection[Lease], lease: int) -> set[Lease]:
        """Extend the leases of claims that still hold; returns the others."""
        with self._lock:
            lost = {held for held in leases if not self._is_held(held)}
            for held in set(leases) - lost:
                instance = self._sessions[held.uid].instances[held.task, held.number]
                instance.lease_until = self._clock() + lease
            return lost

    def _is_held(self, held: Lease) -> bool:
        instance = self._stored(held.uid).instances.get((held.task, held.number))
        return instance is not None and instance.status is Status.RUNNING and instance.fence == held.fence

    def due(self, limit: int, *, grace: int, include_recent: bool = False) -> list[ReadyInstance]:
        """Take instances to dispatch, those that have waited longest first."""
        with self._lock:
            now = self._clock()
            horizon = now + MAX_PAUSE * grace if include_recent else now
            found = [
                (uid, instance)
                for uid, instance in self._all(self._scheduled)
                if instance.run_at <= now and instance.dispatch_after <= horizon
            ]
            found.sort(key=lambda pair: pair[1].dispatch_after)
            return [self._dispatched(uid, instance, now, grace) for uid, instance in found[:limit]]

    def _dispatched(self, uid: str, instance: Instance, now: int, grace: int) -> ReadyInstance:
        """Mark an instance, so that it is not dispatched again before a pause that doubles each time."""
        instance.dispatch_after = now + grace * min(2**instance.handovers, MAX_PAUSE)
        instance.handovers += 1
        return ReadyInstance.by(self._sessions[uid].head.rules, uid, instance.task, instance.number)

    def expired(self, limit: int) -> list[Expired]:
        """Running instances whose lease has expired."""
        with self._lock:
            now = self._clock()
            found = [
                Expired(uid, one.task, one.number, one.fence, self._sessions[uid].head.manager)
                for uid, one in self._all(self._running)
                if one.lease_until is not None and one.lease_until < now
            ]
            return found[:limit]

    def timed_sessions(self, limit: int, managers: Collection[str]) -> list[TimedSession]:
        """Sessions that have timers, those whose first timer is due earliest first."""
        with self._lock:
            heads = (stored.head for stored in self._sessions.values())
            found = [
                TimedSession(head.uid, head.next_timer_at)
                for head in heads
                if head.next_timer_at is not None and head.manager in managers
            ]
        found.sort(key=lambda timed: (timed.at, timed.uid))
        return found[:limit]

    def backlog(self) -> Backlog:
        """Count the instances that are scheduled or running."""
        with self._lock:
            now = self._clock()
            ready = sum(instance.run_at <= now for _, instance in self._all(self._scheduled))
            return Backlog(ready, len(self._scheduled) - ready, len(self._running))

    def next_at(self) -> int | None:
        """When the next instance has to be dispatched or rescued; None if there is none."""
        with self._lock:
            times = [instance.dispatch_after for _, instance in self._all(self._scheduled)]
            leases = [instance.lease_until for _, instance in self._all(self._running)]
            return min([*times, *filter(None, leases)], default=None)

    def _all(self, index: dict[GlobalKey, None]) -> Iterator[tuple[str, Instance]]:
        return ((uid, self._sessions[uid].instances[task, number]) for uid, task, number in index)

    # -- purging and joining ----------------------------------------------------------------------------

    def purge_logs(self, purge: Purge, *, after: int = 0, limit: int = 500) -> Purged:
        """Delete a batch of old records, or only their contexts."""
        with self._lock:
            every = ((stored, record) for stored in self._sessions.values() for record in stored.logs)
            found = [
                (stored, record)
                for stored, record in every
                if record.cursor > after and _is_purgeable(stored, record, purge)
            ]
            found.sort(key=lambda pair: pair[1].cursor)
            for stored, record in () if purge.dry_run else found[:limit]:
                place = stored.logs.index(record)
                stored.logs[place : place + 1] = [_without_context(record)] if purge.contexts_only else []
        last = found[limit - 1][1].cursor if len(found) >= limit else None
        return Purged(len(found[:limit]), last)

    def joined(self, connection: object) -> NoReturn:
        """Raise StorageError: memory has no transactions that an application could share.

        Raises:
            StorageError: always.
        """
        message = (
            f"memory:// cannot join a transaction on {type_name(type(connection))}: use sqlite:/// or "
            f"postgresql://, in the application's own database"
        )
        raise StorageError(message)

    # -- reading ----------------------------------------------------------------------------------------

    def preview(self, uid: str, decision: Decision) -> Changes:
        """Run a decision about a session and store nothing. It gets copies, as in a commit.

        A preview waits for the commit of another thread, because there is only one lock.
        """
        with self._lock:
            return self._run(uid, decision)

    def sessions(self, after: str = "", limit: int = 100) -> list[Session]:
        """A page of heads in the order of their UIDs."""
        with self._lock:
            uids = sorted(uid for uid in self._sessions if uid > after)[:limit]
            return [replace(self._sessions[uid].head) for uid in uids]

    def session(self, uid: str) -> Session | None:
        """The head of a session; None if it is not stored."""
        with self._lock:
            stored = self._sessions.get(uid)
            return replace(stored.head, now=self._clock()) if stored else None

    def counters(self, uid: str) -> dict[str, Counter]:
        """How many instances each task has."""
        with self._lock:
            return {task: replace(counter) for task, counter in self._stored(uid).counters.items()}

    def instance(self, uid: str, task: str, number: int) -> Instance | None:
        """One instance by task and number; None if it is not stored."""
        with self._lock:
            found = self._stored(uid).instances.get((task, number))
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
        """A page of instances in the order of task and number."""
        with self._lock:
            found = (
                copy_of(instance)
                for key, instance in sorted(self._stored(uid).instances.items())
                if key > after
                and (task is None or instance.task == task)
                and (statuses is None or instance.status in statuses)
                and (flagged is None or _needs_review(instance, flagged))
            )
            return list(islice(found, limit))

    def firings(
        self, uid: str, *, numbers: Collection[int] | None = None, after: int = 0, limit: int = 100
    ) -> list[Firing]:
        """A page of firings in their order, or those with the given numbers."""
        with self._lock:
            firings = self._stored(uid).firings
            if numbers is None:
                return firings[after : after + limit]
            return [firings[number - 1] for number in sorted(set(numbers)) if 0 < number <= len(firings)]

    def timers(
        self,
        uid: str,
        *,
        names: Collection[str] | None = None,
        after: tuple[int, int] = BEFORE_ALL,
        limit: int = 100,
    ) -> list[Timer]:
        """A page of timers by their time and number, or those with the given names."""
        with self._lock:
            timers = _in_order(self._stored(uid).timers.values())
        if names is not None:
            return [timer for timer in timers if timer.name in names]
        return [timer for timer in timers if timer.order > after][:limit]

    def latest(self, uid: str, triggers: Collection[str]) -> dict[str, Firing]:
        """The latest firing of each of these triggers that has ever fired."""
        with self._lock:
            latest = self._stored(uid).latest
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
        """A page of records in the order in which they were stored."""
        wanted = text.encode().lower()  # in bytes, only ASCII letters have a lower case
        with self._lock:
            stored = self._stored(uid)
            found = [
                replace(record, resolved=not _is_open(stored, record))
                for record in stored.logs
                if record.cursor > after
                and (instance is None or (record.task, record.instance) == instance)
                and record.entry.level >= min_level
                and wanted in record.entry.message.encode().lower()
                and (unresolved is None or _is_open(stored, record) is unresolved)
                and (fingerprint is None or record.fingerprint == fingerprint)
            ]
        return found[-limit:] if latest else found[:limit]

    def _stored(self, uid: str) -> StoredSession:
        return self._sessions.get(uid) or StoredSession(Session(uid, 0))


# -- what a decision sees: one function for each part of a need ---------------------------------------------


def _load(stored: StoredSession, need: Need) -> Slice:
    """Find everything that a decision asks to see, and nothing else."""
    instances = _load_instances(stored, need)
    return Slice(
        keyed=_load_keyed(stored, need),
        counters=_load_counters(stored, need),
        instances=instances,
        latest=_load_latest(stored, need),
        history=_load_history(stored, need),
        payloads=_load_payloads(stored, need, instances),
        flagged=_load_flagged(stored, need),
        level=_load_level(stored, need),
        timers=_load_timers(stored, need),
        named_timers={name: stored.timers[name] for name in need.timer_names if name in stored.timers},
    )


def _load_keyed(stored: StoredSession, need: Need) -> Firing | None:
    return stored.keys.get(need.key) if need.key else None


def _load_counters(stored: StoredSession, need: Need) -> dict[str, Counter]:
    tasks = stored.counters.keys() if need.tasks is None else need.tasks & stored.counters.keys()
    return {task: replace(stored.counters[task]) for task in tasks}


def _load_instances(stored: StoredSession, need: Need) -> list[Instance]:
    """Copies that the decision can change: the waiting instances, then the named, then the unstarted."""
    keys = [key for trigger in need.waiting for key in stored.waiting.get(trigger, ())]
    keys += [key for key in need.instances if key in stored.instances]
    if need.unstarted:
        keys += [
            key
            for key, instance in stored.instances.items()
            if instance.task in need.unstarted and instance.status is Status.UNSTARTED
        ]
    return [copy_of(stored.instances[key]) for key in keys]


def _load_latest(stored: StoredSession, need: Need) -> dict[str, Latest]:
    found = {trigger: stored.latest[trigger] for trigger in need.latest if trigger in stored.latest}
    return {trigger: Latest(firing.number, firing.depth) for trigger, firing in found.items()}


def _load_history(stored: StoredSession, need: Need) -> list[Firing]:
    if not need.history:
        return []
    return [firing for firing in stored.firings if firing.trigger in need.history]


def _load_payloads(stored: StoredSession, need: Need, instances: list[Instance]) -> dict[int, str]:
    if not need.payloads:
        return {}
    numbers = {number for instance in instances for number in instance.taken.values()}
    return {number: stored.firings[number - 1].kwargs for number in numbers}


def _load_flagged(stored: StoredSession, need: Need) -> list[Key]:
    if need.flagged is None:
        return []
    found = [
        key
        for key, instance in stored.instances.items()
        if instance.status is Status.FINISHED and _needs_review(instance, need.flagged)
    ]
    return found[: need.flagged_limit]


def _load_level(stored: StoredSession, need: Need) -> int:
    """The highest level, from a threshold on, among the records that a review of one instance leaves open."""
    if need.levels is None:
        return 0
    through, threshold, chosen = need.levels
    open_levels = (
        record.entry.level
        for record in stored.logs
        if (record.task, record.instance) == need.instances[0]
        and record.entry.counts
        and record.number > through
        and record.number not in chosen
    )
    return max((level for level in open_levels if level >= threshold), default=0)


def _load_timers(stored: StoredSession, need: Need) -> list[Timer]:
    """The first timers. Those that were put aside are the last ones."""
    return _in_order(stored.timers.values())[: need.timers] if need.timers else []


def _in_order(timers: Iterable[Timer]) -> list[Timer]:
    return sorted(timers, key=attrgetter("order"))


# -- instances and records ----------------------------------------------------------------------------------


def _key(instance: Instance) -> Key:
    return instance.task, instance.number


def _needs_review(instance: Instance, level: int) -> bool:
    """Whether an instance has unresolved records at or above this level that still need a review."""
    return instance.unreviewed_level >= max(level, 1)


def _is_open(stored: StoredSession, record: StoredRecord) -> bool:
    """Whether no review covers the record."""
    instance = stored.instances[record.task, record.instance]
    beyond = record.number > instance.log_resolved and record.number not in instance.log_chosen
    return record.entry.counts and beyond


def _is_purgeable(stored: StoredSession, record: StoredRecord, purge: Purge) -> bool:
    """Whether a record is old enough, and does not need a review."""
    entry = record.entry
    if entry.at >= purge.before or entry.level > purge.max_level:
        return False
    if purge.contexts_only and _without_context(record).entry == entry:
        return False
    instance = stored.instances[record.task, record.instance]
    if not instance.unreviewed_level:
        return True
    return entry.level < min(purge.threshold, instance.log_unresolved) or not _is_open(stored, record)


def _stored_record(cursor: int, record: Record, entry: LogEntry) -> StoredRecord:
    return StoredRecord(
        cursor,
        record.instance.task,
        record.instance.number,
        record.number,
        record.fence,
        record.attempt,
        resolved=False,
        entry=entry,
    )


def _without_context(record: StoredRecord) -> StoredRecord:
    entry = record.entry
    return replace(record, entry=replace(entry, context={}, exception=without_contexts(entry.exception)))


def _as_stored(entry: LogEntry) -> LogEntry:
    """Encode and decode an entry, so that it is read as from any other storage.

    Raises:
        InvalidValueError: something in it cannot be stored.
    """
    exception = None if entry.exception is None else decode(encode(entry.exception, "exception"))
    return replace(entry, context=decode(encode(entry.context, "context")), exception=exception)
