"""Sessions, instances, firings and records as fields of a hash in Redis, and back.

What a script must read is text of parts with a space between them; all else is JSON that no script looks
into.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic_core import from_json, to_json

from triggers.core.records import without_contexts
from triggers.core.state import Counter, Firing, Instance, Latest
from triggers.core.status import Status
from triggers.core.values import decode, encode
from triggers.storages import rows
from triggers.storages.redis_keys import instance_of_place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triggers.core.state import Guard, Record, Session
    from triggers.storages.base import StoredRecord

_STATUS: Final = {str(status).encode(): status for status in Status}

#: Whoever is in one of these asks for no review, whatever was said.
SETTLED: Final = frozenset({Status.REPLAYED, Status.SKIPPED, Status.ABANDONED})

#: What stands where there is nothing.
NOTHING: Final = b"-"


class Seen(NamedTuple):
    """An instance's state as a decision saw it: what guards look at, and the text that must still be there.

    Attributes:
        text: all of it.
        version: raised by every commit that changes the instance.
        status: its status.
        fence: its fence.
        lease_until: its lease, None without.
        flagged: whether it asks for a review.
    """

    text: bytes
    version: int
    status: Status
    fence: int
    lease_until: int | None
    flagged: bool

    def holds(self, guard: Guard) -> bool:
        """Whether a change under this guard may be applied to the instance as it was seen."""
        lease = self.lease_until if guard.lease_until is None else guard.lease_until
        return (self.status, self.fence, self.lease_until) == (guard.status, guard.fence, lease)


# -- instances ------------------------------------------------------------------------------------------


def state_of(instance: Instance, version: int) -> bytes:
    """What scripts read and change of an instance; the map is in slice.lua."""
    lease = "-" if instance.lease_until is None else instance.lease_until
    chosen = ",".join(map(str, instance.log_chosen)) or "-"
    taken = ",".join(map(str, instance.taken.values())) or "-"
    return (
        f"{version} {instance.status.value} {instance.fence} {lease} {instance.run_at} "
        f"{instance.dispatch_after} {instance.handovers} {instance.log_unresolved} "
        f"{instance.log_resolved} {chosen} {taken}"
    ).encode()


def rest_of(instance: Instance) -> bytes:
    """All else of an instance."""
    return to_json(
        (
            instance.created_at,
            instance.modified_at,
            instance.ref,
            instance.attempt,
            instance.crashes,
            instance.crash_budget,
            instance.given_back,
            instance.owner,
            instance.parent,
            instance.root,
            instance.depth,
            instance.retries,
            instance.cascade_depth,
            instance.taken,
            instance.vetoes,
            instance.kwargs,
            instance.result,
            instance.error,
            instance.metadata,
            instance.history,
            instance.log_count,
            instance.log_level,
            instance.log_counts,
            instance.log_dropped,
            instance.log_audit,
        )
    )


def seen_from(text: bytes) -> Seen:
    """Read the part of a state that guards look at."""
    version, status, fence, lease, _, _, _, unresolved, _ = text.split(b" ", 8)
    known = _STATUS[status]
    until = None if lease == NOTHING else int(lease)
    return Seen(text, int(version), known, int(fence), until, unresolved != b"0" and known not in SETTLED)


def instance_from(place: bytes, state: bytes, rest: bytes) -> Instance:
    """Read an instance."""
    task, number = instance_of_place(place)
    _, status, fence, lease, run_at, dispatch_after, handovers, unresolved, resolved, chosen, _ = state.split(
        b" "
    )
    more = from_json(rest)
    counts = more[22]
    fields: tuple[Any, ...] = (  # in the order of the class
        task,
        number,
        _STATUS[status],
        more[0],
        more[1],
        more[2],
        int(fence),
        *more[3:7],
        int(run_at),
        int(dispatch_after),
        int(handovers),
        None if lease == NOTHING else int(lease),
        *more[7:14],
        tuple(more[14]),
        *more[15:22],
        int(unresolved),
        {int(level): count for level, count in counts.items()} if counts else {},
        more[23],
        int(resolved),
        () if chosen == NOTHING else tuple(map(int, chosen.split(b","))),
        more[24],
    )
    return Instance(*fields)


# -- sessions -------------------------------------------------------------------------------------------


def numbers_of(session: Session, made: int) -> bytes:
    """What changes with every firing of a session's head, and how many instances it has made."""
    return to_json(
        (session.firings, session.pending, session.finalized, session.created_at, session.modified_at, made)
    )


def counter_of(counter: Counter) -> bytes:
    """A task's counter."""
    return b"%d %d" % (counter.created, counter.unresolved)


def counters_from(found: Sequence[bytes]) -> dict[str, Counter]:
    """Read tasks, each followed by its counter."""
    return {
        task.decode(): Counter(*map(int, counter.split(b" ")))
        for task, counter in zip(found[::2], found[1::2], strict=True)
    }


def latest_of(firing: Firing) -> bytes:
    """The latest firing of a trigger."""
    return b"%d %d" % (firing.number, firing.depth)


def latest_from(text: bytes) -> Latest:
    """Read it."""
    number, _, depth = text.partition(b" ")
    return Latest(int(number), int(depth))


# -- firings --------------------------------------------------------------------------------------------


def firing_of(firing: Firing) -> bytes:
    """A firing without its number and its payload."""
    return to_json((firing.trigger, firing.at, firing.depth, firing.source, firing.key, firing.fingerprint))


def firing_from(number: int, text: bytes, kwargs: bytes) -> Firing:
    """Read a firing."""
    trigger, *rest = from_json(text)
    return Firing(number, trigger, kwargs.decode(), *rest)


# -- records --------------------------------------------------------------------------------------------


def record_of(record: Record) -> tuple[bytes, bytes]:
    """A record, and its number, level, whether it counts, and its kind.

    Raises:
        InvalidValueError: something in it cannot be stored.
    """
    row = rows.new_record(0, record)[2:]
    kind = b"%d %d %d %b" % (record.number, record.entry.level, record.entry.counts, row[15].encode())
    return to_json(row), kind


def record_from(member: bytes, payload: bytes, resolved: int) -> StoredRecord:
    """Read a record that stands under that member of the log, or of an instance's log."""
    cursor, place = place_of_record(member)
    said = from_json(payload)
    where = (cursor, *instance_of_place(place))
    return rows.record_from_row((*where, *said[:3], resolved, *said[3:15], *said[16:]))


def place_of_record(member: bytes) -> tuple[int, bytes]:
    """The cursor and the instance of a record."""
    head, second, third, _ = member.rsplit(b"\0", 3)
    if member[:1] == b"o":
        return int(head[1:]), second + b"\0" + third
    return int(third), head[1:] + b"\0" + second


def without_context(payload: bytes) -> bytes | None:
    """The same record without any context, None if it has none."""
    said = from_json(payload)
    context, tree = said[9], said[10]
    bare = None if tree is None else encode(without_contexts(decode(tree)), "exception")
    if context == "{}" and bare == tree:
        return None
    said[9], said[10] = "{}", bare
    return to_json(said)
