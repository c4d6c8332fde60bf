"""Convert sessions, instances, firings and records to fields of a hash in Redis and back.

What scripts read is text with a space between its parts. Everything else is JSON, which no script reads. The
JSON of an instance, its rest, has the columns of :data:`triggers.core.columns.INSTANCE` that are not in its
state.
"""

from __future__ import annotations

from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic_core import from_json, to_json

from triggers.core.columns import ENTRY, INSTANCE, RECORD, codecs_of, names_of
from triggers.core.state import Counter, Firing, Instance, Latest
from triggers.core.status import SETTLED, Status
from triggers.core.timers import Timer
from triggers.exceptions import StorageCorruptError
from triggers.storages.redis.keys import instance_of_place, order_of_timer
from triggers.storages.sql import rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from triggers.core.exchange import Record
    from triggers.core.state import Session
    from triggers.storages.base import StoredRecord

_STATUS: Final = {str(status).encode(): status for status in Status}


#: The text for a missing value in a state.
NOTHING: Final = b"-"


class SeenState(NamedTuple):
    """The state of an instance when it was loaded, as text and as the values that guards compare.

    Attributes:
        text: the whole state, which must still be stored when a change is applied.
        version: is increased by every commit that changes the instance.
        status: its status.
        fence: its fence.
        lease_until: when its lease expires, None without a lease.
        log_unresolved: the highest level of its records that need a review, 0 for none.
        flagged: whether it needs a review.
    """

    text: bytes
    version: int
    status: Status
    fence: int
    lease_until: int | None
    log_unresolved: int
    flagged: bool


# -- instances ------------------------------------------------------------------------------------------

#: The columns that are in the name of an instance, and in its state. All others are in its rest.
_PLACE: Final = ("task", "number")
_STATE: Final = (
    "status",
    "fence",
    "lease_until",
    "run_at",
    "dispatch_after",
    "handovers",
    "log_unresolved",
    "log_resolved",
    "log_chosen",
)
_REST: Final = tuple(column for column in INSTANCE if column.name not in {*_PLACE, *_STATE})
_REST_CODECS: Final = tuple((place, codec.empty, codec.restore) for place, codec in codecs_of(_REST))
_rest_values: Final = rows.Writer(column._replace(codec=None) for column in _REST).write

#: The values of columns that are missing in a rest, because it was stored by an older version.
_DEFAULTS: Final = _rest_values(Instance("", 0, Status.UNSTARTED, 0, 0))

_in_order: Final = itemgetter(*map((*_PLACE, *_STATE, *names_of(_REST)).index, names_of(INSTANCE)))


def state_of(instance: Instance, version: int) -> bytes:
    """The part of an instance that scripts read and change; slice.lua describes it."""
    lease, dispatches = "-" if instance.lease_until is None else instance.lease_until, instance.handovers
    chosen = ",".join(map(str, instance.log_chosen)) or "-"
    taken = ",".join(map(str, instance.taken.values())) or "-"
    return (
        f"{version} {instance.status.value} {instance.fence} {lease} {instance.run_at} "
        f"{instance.dispatch_after} {dispatches} {instance.log_unresolved} "
        f"{instance.log_resolved} {chosen} {taken}"
    ).encode()


def rest_of(instance: Instance) -> bytes:
    """The part of an instance that no script reads, as JSON."""
    return to_json(_rest_values(instance))


def seen_from(text: bytes) -> SeenState:
    """Read the part of a state that guards compare."""
    version, status, fence, lease, _, _, _, unresolved, _ = text.split(b" ", 8)
    known, level = _STATUS[status], int(unresolved)
    until = None if lease == NOTHING else int(lease)
    return SeenState(text, int(version), known, int(fence), until, level, level > 0 and known not in SETTLED)


def instance_from(place: bytes, state: bytes, rest: bytes) -> Instance:
    """Create an instance from its name, state and rest."""
    _, status, fence, lease, run_at, dispatch_after, handovers, unresolved, resolved, chosen, _ = state.split(
        b" "
    )
    kept = from_json(rest)
    kept += _DEFAULTS[len(kept) :]
    for at, empty, restore in _REST_CODECS:
        value = kept[at]
        kept[at] = restore(value) if value else empty()
    values = (
        *instance_of_place(place),
        _STATUS[status],
        int(fence),
        None if lease == NOTHING else int(lease),
        int(run_at),
        int(dispatch_after),
        int(handovers),
        int(unresolved),
        int(resolved),
        () if chosen == NOTHING else tuple(map(int, chosen.split(b","))),
        *kept,
    )
    return Instance(*_in_order(values))


# -- sessions -------------------------------------------------------------------------------------------


def numbers_of(session: Session, made: int) -> bytes:
    """The part of a head that every firing changes, and how many instances the session has created.

    A session that never had a timer stores nothing about timers.
    """
    times = (session.created_at, session.modified_at)
    timers = (session.next_timer_at, session.timer_count)
    kept = timers if any(timers) else ()
    return to_json((session.firings, session.pending, session.finalized, *times, made, *kept))


def counter_of(counter: Counter) -> bytes:
    """The counter of a task as text that scripts read."""
    return b"%d %d" % (counter.created, counter.unresolved)


def counters_from(found: Sequence[bytes]) -> dict[str, Counter]:
    """Create counters from a list of tasks, each followed by its counter."""
    return {
        task.decode(): Counter(*map(int, counter.split(b" ")))
        for task, counter in zip(found[::2], found[1::2], strict=True)
    }


def latest_of(firing: Firing) -> bytes:
    """The number and depth of a trigger's latest firing, as text."""
    return b"%d %d" % (firing.number, firing.depth)


def latest_from(text: bytes) -> Latest:
    """Create what :func:`latest_of` has encoded."""
    number, _, depth = text.partition(b" ")
    return Latest(int(number), int(depth))


# -- firings --------------------------------------------------------------------------------------------

#: The number and the payload of a firing have fields of their own.
_firing_values: Final = attrgetter(*(name for name in Firing._fields if name not in {"number", "kwargs"}))


def firing_of(firing: Firing) -> bytes:
    """A firing without its number and payload, as JSON."""
    return to_json(_firing_values(firing))


def firing_from(number: int, text: bytes, kwargs: bytes) -> Firing:
    """Create a firing from its number, JSON and payload."""
    trigger, *rest = from_json(text)
    return Firing(number, trigger, kwargs.decode(), *rest)


# -- timers ---------------------------------------------------------------------------------------------

#: The range of all timers in a session's sorted set begins here.
FIRST_TIMER: Final = b"[z"


def timer_of(timer: Timer) -> bytes:
    """A timer without its name: its time and number, by which scripts find it, and the rest as JSON."""
    return order_of_timer(timer.at, timer.number) + to_json(timer.body)


def member_of_timer(timer: Timer) -> bytes:
    """The name of a timer in the sorted set of its session, which has timers in their order."""
    return b"z%b%b" % (order_of_timer(timer.at, timer.number), timer.name.encode())


def timers_after(at: int, number: int) -> bytes:
    """Where the range of the timers after this time and number begins."""
    return b"(z%b\xff" % order_of_timer(at, number)


def timers_from(found: Sequence[bytes], key: bytes) -> list[Timer]:
    """Create timers from a list of names, each followed by its timer, of the hash with this key.

    Raises:
        StorageCorruptError: one cannot be read.
    """
    return [_timer_from(name, text, key) for name, text in zip(found[::2], found[1::2], strict=True)]


def _timer_from(name: bytes, text: bytes | None, key: bytes) -> Timer:
    try:
        at, number, body = (text or b"").split(b" ", 2)
        return Timer.stored(name.decode(), int(at), int(number), from_json(body))
    except (ValueError, TypeError) as error:
        raise damaged_timer(name, key) from error


def damaged_timer(name: bytes, key: bytes) -> StorageCorruptError:
    """The error for a timer that cannot be read."""
    field = "T" + name.decode(errors="replace")
    return StorageCorruptError(
        f"key {key.decode()}: the timer in the field {field!r} is missing or cannot be read; nothing was "
        f"changed: find the program that has written it, and restore a backup"
    )


# -- records --------------------------------------------------------------------------------------------

_RECORD: Final = rows.Writer(RECORD)
_record_place: Final = names_of(RECORD).index


def _parts_of_record(names: Iterable[str]) -> itemgetter[Any]:
    return itemgetter(*map(_record_place, names))


_CONTEXT: Final = _record_place("context")
_EXCEPTION: Final = _record_place("exception")
_kind_of: Final = _parts_of_record(("number", "level", "counts", "fingerprint"))
_said_by: Final = _parts_of_record(("number", "fence", "attempt"))
_said: Final = _parts_of_record(names_of(ENTRY))

#: When a stored record was logged, and its level.
at_and_level: Final = _parts_of_record(("at", "level"))


def record_of(record: Record) -> tuple[bytes, bytes]:
    """A record as JSON, and its sort key: number, level, whether it counts, and fingerprint.

    Raises:
        InvalidValueError: something in it cannot be stored.
    """
    values = _RECORD.write(record)
    number, level, counts, kind = _kind_of(values)
    return to_json(values), b"%d %d %d %b" % (number, level, counts, kind.encode())


def record_from(member: bytes, payload: bytes, resolved: int) -> StoredRecord:
    """Create a record from its member in the log of the session or instance, and its JSON."""
    cursor, place = place_of_record(member)
    kept = from_json(payload)
    return rows.record_from_row((cursor, *instance_of_place(place), *_said_by(kept), resolved, *_said(kept)))


def place_of_record(member: bytes) -> tuple[int, bytes]:
    """The cursor and the instance in a member of a log."""
    head, second, third, _ = member.rsplit(b"\0", 3)
    if member[:1] == b"o":
        return int(head[1:]), second + b"\0" + third
    return int(third), head[1:] + b"\0" + second


def without_context(payload: bytes) -> bytes | None:
    """The same record without contexts; None if it has none."""
    kept = from_json(payload)
    context, tree = kept[_CONTEXT], kept[_EXCEPTION]
    bare = rows.without_context(tree)
    if context == "{}" and bare == tree:
        return None
    kept[_CONTEXT], kept[_EXCEPTION] = "{}", bare
    return to_json(kept)
