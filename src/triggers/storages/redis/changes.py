"""What a decision changes, as the arguments of the script that stores it."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Final

from triggers.core.status import SETTLED, Status
from triggers.exceptions import StorageError
from triggers.storages.base import ConflictError
from triggers.storages.redis import rows
from triggers.storages.redis.keys import instance_place, member_of_instance

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggers.core.exchange import Changes, Guard
    from triggers.core.state import Firing, Instance
    from triggers.storages.redis.nodes import Part
    from triggers.storages.redis.rows import SeenState

#: What stands where a version is not checked, or a session must not be there.
ANY: Final = b"-"
NONE: Final = b""


class GuardError(ConflictError):
    """A guard is not that of the instance as the decision itself has seen it."""


@dataclass(slots=True)
class Parts:
    """The lists of commit.lua, in the order in which it takes them.

    Attributes:
        checks: fields of the session, each with what it must be.
        fields: fields of the session, each with its new value.
        counters: tasks, each with its counter.
        removed: members of the session's order that go.
        added: a 0 and a member of the session's order, for each that comes.
        not_out: members that are no longer to be dispatched.
        not_leased: members that no longer have a lease.
        out: times and members, of what is to be dispatched.
        cool: times and members, of what may not run before a time.
        leased: times and members, of what has a lease.
        rules: digests, each with its rule set.
        logs: records, each as payload, instance, and what it is found by.
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


#: The lists in that order.
_in_order: Final = attrgetter(*(each.name for each in fields(Parts)))


class CommitArguments:
    """One commit in the making.

    Args:
        changes: what was decided.
        place: what the session is called in the sets of its partition.
        version: the session's as it was seen, None where there was no session.
        made: how many instances it has made.
        metadata: the session's as it was seen.
        seen: the instances that the decision was shown.
        exclusive: whether no other decision may have been made meanwhile.
    """

    def __init__(  # noqa: PLR0917 - what was decided, and what was seen
        self,
        changes: Changes,
        place: bytes,
        version: int | None,
        made: int,
        metadata: str,
        seen: dict[tuple[str, int], SeenState],
        *,
        exclusive: bool,
    ) -> None:
        self._changes = changes
        self._place = place
        self._version = version
        self._made = made
        self._metadata = metadata
        self._seen = seen
        self._new = version is None
        self._parts = Parts()
        self._exclusive = exclusive
        self._collect()

    def __bool__(self) -> bool:
        """Whether anything is to be stored."""
        parts = self._parts
        return bool(parts.fields or parts.counters or parts.added or parts.removed or parts.logs)

    def parts(self, identity: bytes, token: bytes, rules: list[Part]) -> list[Part]:
        """The arguments of commit.lua after the world; the map is there."""
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
        parts.append(b"" if head.finalized is None or not self._exclusive else head.modified_at)
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
        if self._new or head.metadata != self._metadata:
            stored += (b"m", head.metadata)
        if self._new or changes.new_rules:
            stored += (b"r", head.rules.digest)
        if self._new:
            stored += (b"g", head.manager, b"u", head.uid)

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
            message = f"a decision changed {instance.name} without having asked for it; nothing was changed"
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
        """Put the instance where those look for it that hand over, or rescue."""
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


def keyed_field(trigger: str, key: str) -> bytes:
    """Where the number of the firing stands that used an idempotency key."""
    return b"k%b\0%b" % (trigger.encode(), key.encode())


def _waiting(instance: Instance, trigger: str) -> bytes:
    return b"w%b\0%b" % (trigger.encode(), instance_place(instance.task, instance.number))


def _pairs(entries: list[tuple[Instance, Any]]) -> Iterator[tuple[Instance, str]]:
    return ((instance, trigger) for instance, triggers in entries for trigger in triggers)


def _is_flagged(instance: Instance) -> bool:
    return instance.log_unresolved > 0 and instance.status not in SETTLED
