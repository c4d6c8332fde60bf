"""The changes of a decision as arguments of the script that stores them."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from triggers.core.status import Status
from triggers.exceptions import StorageError
from triggers.storages.base import ConflictError
from triggers.storages.redis import rows
from triggers.storages.redis.keys import instance_place, keyed_field, member_of_instance, member_of_timed

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggers.core.exchange import Changes, Guard
    from triggers.core.state import Firing, Instance
    from triggers.storages.redis.nodes import Part
    from triggers.storages.redis.rows import SeenState
    from triggers.storages.redis.slice import Head

#: The expected version if it is not checked, and if the session must not exist.
ANY: Final = b"-"
NONE: Final = b""

#: Neither a member to remove from the sessions with timers, nor one to add.
NOT_TIMED: Final = (NONE, NONE)


class GuardError(ConflictError):
    """A guard of a decision does not hold for the instance that the decision has seen."""


@dataclass(slots=True)
class Parts:
    """The lists of commit.lua, in the order in which the script takes them.

    Attributes:
        checks: fields of the session's hash, each with the value that it must have.
        fields: fields of the session's hash, each with its new value.
        counters: tasks, each with its counter.
        removed: members to remove from the session's sorted set.
        added: members to add to the session's sorted set, each after a 0.
        not_out: members of instances that must no longer be dispatched.
        not_leased: members of instances that no longer have a lease.
        out: times and members of instances to dispatch.
        cool: times and members of instances that must not start before a time.
        leased: times and members of instances with a lease.
        rules: digests, each with its rule set.
        logs: records, each as payload, instance, and sort key.
    """

    checks: list[Part] = field(default_factory=list)
    fields: list[Part] = field(default_factory=list)
    counters: list[Part] = field(default_factory=list)
    removed: list[Part] = field(default_factory=list)
    added: list[Part] = field(default_factory=list)
    not_out: list[Part] = field(default_factory=list)
    not_leased: list[Part] = field(default_factory=list)
    out: list[Part] = field(default_factory=list)
    cool: list[Part] = field(default_factory=list)
    leased: list[Part] = field(default_factory=list)
    rules: list[Part] = field(default_factory=list)
    logs: list[Part] = field(default_factory=list)


#: Returns the lists in this order.
_in_order: Final = attrgetter(*(each.name for each in fields(Parts)))


class CommitArguments:
    """The arguments of commit.lua for one try of a commit.

    Args:
        changes: the changes to store.
        place: the name of the session in the sets of its partition.
        loaded: the head that was loaded for the decision.
        seen: the instances that were loaded for the decision.
        exclusive: whether no other decision may have been stored in the meantime.
    """

    def __init__(
        self,
        changes: Changes,
        place: bytes,
        loaded: Head,
        seen: dict[tuple[str, int], SeenState],
        *,
        exclusive: bool,
    ) -> None:
        self._changes = changes
        self._place = place
        self._loaded = loaded
        self._version = loaded.version
        self._made = loaded.made
        self._seen = seen
        self._new = loaded.version is None
        self._parts = Parts()
        self._timers: list[str] = []
        self._timed: tuple[bytes, bytes] = NOT_TIMED
        self._exclusive = exclusive
        self._collect()

    def __bool__(self) -> bool:
        """Whether there is anything to store."""
        parts = self._parts
        written = parts.fields or parts.counters or parts.added or parts.removed or parts.logs
        return bool(written or self._timers)

    @property
    def changes_timers(self) -> bool:
        """Whether timers change, or the time of the first one."""
        return bool(self._timers) or self._timed != NOT_TIMED

    def parts(self, identity: bytes, token: bytes, rules: list[Part]) -> list[Part]:
        """The arguments of commit.lua after the first; the script describes them."""
        expected: Part = ANY
        if self._exclusive:
            expected = NONE if self._version is None else self._version
        parts: list[Part] = [identity, expected, self._place, token]
        self._parts.rules = rules
        for each in _in_order(self._parts):
            parts.append(len(each))
            parts += each
        head = self._changes.session
        parts.append(head.uid.encode() if self._new else b"")
        # What is decided as of an earlier time is a change now.
        changed_at = max(head.now, head.modified_at)
        parts.append(b"" if head.finalized is None or not self._exclusive else changed_at)
        if self.changes_timers:
            parts += (*self._timed, *self._timers)
        return parts

    def _collect(self) -> None:
        changes = self._changes
        if changes.session.ref is None and not changes.writes_head:
            return
        for firing in changes.fired:
            self._fire(firing)
        self._collect_instances()
        for task, counter in changes.counters.items():
            self._parts.counters += (task.encode(), rows.counter_of(counter))
        self._parts.removed += (_waiting(*pair) for pair in _pairs(changes.gained))
        for pair in _pairs(changes.lacks):
            self._parts.added += (0, _waiting(*pair))
        for record in changes.logs:
            payload, kind = rows.record_of(record)
            self._parts.logs += (payload, instance_place(record.instance.task, record.instance.number), kind)
        self._timers += changes.timers
        for timer in filter(None, changes.timers.values()):
            self._parts.fields += (b"T" + timer.name.encode(), rows.timer_of(timer))
            self._parts.added += (0, rows.member_of_timer(timer))
        if self._exclusive and (changes.writes_head or self):
            self._head()

    def _head(self) -> None:
        head, changes = self._changes.session, self._changes
        stored = self._parts.fields
        stored += (b"v", 1 if self._version is None else self._version + 1)
        if not changes.writes_head and not changes.created:
            return
        head.ref = 1
        stored += (b"h", rows.numbers_of(head, self._made))
        if self._new or head.metadata != self._loaded.metadata:
            stored += (b"m", head.metadata)
        if self._new or changes.new_rules:
            stored += (b"r", head.rules.digest)
        if self._new or head.manager != self._loaded.manager:
            stored += (b"g", head.manager)
        if self._new:
            stored += (b"u", head.uid)
        before = self._member_of_timed(self._loaded.manager, self._loaded.next_timer_at)
        after = self._member_of_timed(head.manager, head.next_timer_at)
        self._timed = NOT_TIMED if before == after else (before, after)

    def _member_of_timed(self, manager: str, at: int | None) -> bytes:
        return NONE if at is None else member_of_timed(manager, at, self._place)

    def _fire(self, firing: Firing) -> None:
        number = firing.number
        self._parts.fields += (b"f%d" % number, rows.firing_of(firing), b"p%d" % number, firing.kwargs)
        self._parts.fields += (b"t" + firing.trigger.encode(), rows.latest_of(firing))
        if firing.key is not None:
            self._parts.fields += (keyed_field(firing.trigger, firing.key), number)

    def _collect_instances(self) -> None:
        changes = self._changes
        kept: dict[tuple[str, int], Instance] = {}
        for made in changes.created:
            self._made += 1
            made.ref = self._made
            kept[made.task, made.number] = made
        for taken in changes.triggered:
            self._check(taken, None)
            kept[taken.task, taken.number] = taken
        for moved, guard in changes.transitioned:
            self._check(moved, guard)
            kept[moved.task, moved.number] = moved
        for where, instance in kept.items():
            self._keep(instance, self._seen.get(where))

    def _check(self, instance: Instance, guard: Guard | None) -> None:
        seen = self._seen.get((instance.task, instance.number))
        if seen is None:
            message = f"a decision changed {instance.name} without having loaded it; nothing was stored"
            raise StorageError(message)
        if not (seen.status is Status.UNSTARTED if guard is None else guard.holds(seen)):
            raise GuardError(instance.name)

    def _keep(self, instance: Instance, seen: SeenState | None) -> None:
        place = instance_place(instance.task, instance.number)
        self._parts.checks += (b"H" + place, seen.text if seen else NONE)
        state = rows.state_of(instance, seen.version + 1 if seen else 1)
        self._parts.fields += (b"H" + place, state, b"B" + place, rows.rest_of(instance))
        self._index(place, b"g", flagged=bool(seen and seen.flagged), now=_is_flagged(instance))
        unstarted = instance.status is Status.UNSTARTED
        self._index(place, b"u", flagged=bool(seen and seen.status is Status.UNSTARTED), now=unstarted)
        self._plan(instance, member_of_instance(self._place, place), seen)

    def _index(self, place: bytes, kind: bytes, *, flagged: bool, now: bool) -> None:
        if now and not flagged:
            self._parts.added += (0, kind + place)
        elif flagged and not now:
            self._parts.removed.append(kind + place)

    def _plan(self, instance: Instance, member: bytes, seen: SeenState | None) -> None:
        """Update the sorted sets in which a sweep finds instances to dispatch or to rescue."""
        status, before = instance.status, seen.status if seen else None
        if status is Status.SCHEDULED:
            self._parts.out += (instance.dispatch_after, member)
            if instance.run_at > self._changes.session.now:
                self._parts.cool += (instance.run_at, member)
        elif before is Status.SCHEDULED:
            self._parts.not_out.append(member)
        if status is Status.RUNNING and instance.lease_until is not None:
            self._parts.leased += (instance.lease_until, member)
        elif before is Status.RUNNING:
            self._parts.not_leased.append(member)


def _waiting(instance: Instance, trigger: str) -> bytes:
    return b"w%b\0%b" % (trigger.encode(), instance_place(instance.task, instance.number))


def _pairs(entries: list[tuple[Instance, Any]]) -> Iterator[tuple[Instance, str]]:
    return ((instance, trigger) for instance, triggers in entries for trigger in triggers)


def _is_flagged(instance: Instance) -> bool:
    return instance.unreviewed_level > 0
