"""Sessions, instances, firings and records as fields of a hash in Redis, and back.

What a script must read is text of parts with a space between them; all else is JSON that no script looks
into. An instance's JSON has the columns of :data:`triggers.core.columns.INSTANCE` that are not in its state.
"""

from __future__ import annotations

from operator import attrgetter, itemgetter
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic_core import from_json, to_json

from triggers.core.columns import ENTRY, INSTANCE, RECORD, codecs_of, names_of
from triggers.core.state import Counter, Firing, Instance, Latest
from triggers.core.status import SETTLED, Status
from triggers.storages.redis.keys import instance_of_place
from triggers.storages.sql import rows

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from triggers.core.exchange import Record
    from triggers.core.state import Session
    from triggers.storages.base import StoredRecord

_STATUS: Final = {str(status).encode(): status for status in Status}

#: Whoever is in one of these asks for no review, whatever was said.

#: What stands where there is nothing.
NOTHING: Final = b"-"


class SeenState(NamedTuple):
    """An instance's state as a decision saw it: what guards look at, and the text that must still be there.

    Attributes:
        text: all of it.
        version: raised by every commit that changes the instance.
        status: its status.
        fence: its fence.
        lease_until: its lease, None without.
        log_unresolved: the highest level that asks for a review, 0 for none.
        flagged: whether it asks for a review.
    """

    text: bytes
    version: int
    status: Status
    fence: int
    lease_until: int | None
    log_unresolved: int
    flagged: bool


# -- instances ------------------------------------------------------------------------------------------

#: What an instance's place tells, and its state, as far as it is read from there; all else is in its rest.
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

#: What a rest has where it was stored before there was the column.
_DEFAULTS: Final = _rest_values(Instance("", 0, Status.UNSTARTED, 0, 0))

_in_order: Final = itemgetter(*map((*_PLACE, *_STATE, *names_of(_REST)).index, names_of(INSTANCE)))


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
    return to_json(_rest_values(instance))


def seen_from(text: bytes) -> SeenState:
    """Read the part of a state that guards look at."""
    version, status, fence, lease, _, _, _, unresolved, _ = text.split(b" ", 8)
    known, level = _STATUS[status], int(unresolved)
    until = None if lease == NOTHING else int(lease)
    return SeenState(text, int(version), known, int(fence), until, level, level > 0 and known not in SETTLED)


def instance_from(place: bytes, state: bytes, rest: bytes) -> Instance:
    """Read an instance."""
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

#: A firing's number and payload have fields of their own.
_firing_values: Final = attrgetter(*(name for name in Firing._fields if name not in {"number", "kwargs"}))


def firing_of(firing: Firing) -> bytes:
    """A firing without its number and its payload."""
    return to_json(_firing_values(firing))


def firing_from(number: int, text: bytes, kwargs: bytes) -> Firing:
    """Read a firing."""
    trigger, *rest = from_json(text)
    return Firing(number, trigger, kwargs.decode(), *rest)


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

#: When a stored record was said, and its level.
at_and_level: Final = _parts_of_record(("at", "level"))


def record_of(record: Record) -> tuple[bytes, bytes]:
    """A record, and its number, level, whether it counts, and its kind.

    Raises:
        InvalidValueError: something in it cannot be stored.
    """
    values = _RECORD.write(record)
    number, level, counts, kind = _kind_of(values)
    return to_json(values), b"%d %d %d %b" % (number, level, counts, kind.encode())


def record_from(member: bytes, payload: bytes, resolved: int) -> StoredRecord:
    """Read a record that stands under that member of the log, or of an instance's log."""
    cursor, place = place_of_record(member)
    kept = from_json(payload)
    return rows.record_from_row((cursor, *instance_of_place(place), *_said_by(kept), resolved, *_said(kept)))


def place_of_record(member: bytes) -> tuple[int, bytes]:
    """The cursor and the instance of a record."""
    head, second, third, _ = member.rsplit(b"\0", 3)
    if member[:1] == b"o":
        return int(head[1:]), second + b"\0" + third
    return int(third), head[1:] + b"\0" + second


def without_context(payload: bytes) -> bytes | None:
    """The same record without any context, None if it has none."""
    kept = from_json(payload)
    context, tree = kept[_CONTEXT], kept[_EXCEPTION]
    bare = rows.without_context(tree)
    if context == "{}" and bare == tree:
        return None
    kept[_CONTEXT], kept[_EXCEPTION] = "{}", bare
    return to_json(kept)
