"""Instances, firings and records as rows of a table, and back: the same for every SQL storage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic_core import from_json, to_json

from triggers.core.records import LogEntry, fingerprint, without_contexts
from triggers.core.state import Firing, Instance
from triggers.core.status import Status
from triggers.core.values import decode, encode
from triggers.storages.base import StoredRecord

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triggers.core.state import Guard, Record

Row = tuple[Any, ...]

#: The columns of an instance, in the order of the fields of :class:`triggers.core.state.Instance`.
INSTANCE = ", ".join(
    f"instances.{column}"
    for column in (
        "task",
        "number",
        "status",
        "created_at",
        "modified_at",
        "id",
        "fence",
        "attempt",
        "crashes",
        "crash_budget",
        "given_back",
        "run_at",
        "dispatch_after",
        "handovers",
        "lease_until",
        "owner",
        "parent",
        "root",
        "depth",
        "retries",
        "cascade_depth",
        "taken",
        "vetoes",
        "kwargs",
        "result",
        "error",
        "metadata",
        "history",
        "log_count",
        "log_level",
        "log_unresolved",
        "log_counts",
        "log_dropped",
        "log_resolved",
        "log_chosen",
        "log_audit",
    )
)

#: A record that no review covers.
OPEN = (
    "(logs.counts AND logs.number > instances.log_resolved"
    " AND logs.number NOT IN (SELECT value FROM json_each(instances.log_chosen)))"
)

#: A record said before ?1, at most at level ?2, that does not ask for a review by the threshold ?3 or by that
#: of its instance; with ?4 only one that has a context, or whose exception, its causes and members among it,
#: has one: as a key, "context" never has a backslash before its end.
PURGEABLE = (
    "logs.at < ?1 AND logs.level <= ?2"
    f" AND NOT (instances.log_unresolved > 0 AND logs.level >= min(?3, instances.log_unresolved) AND {OPEN}"
    " AND instances.status NOT IN ('replayed', 'skipped', 'abandoned'))"
    " AND (?4 = 0 OR logs.context <> '{}'"
    """ OR instr(replace(coalesce(logs.exception, ''), '"context":{}', ''), '"context":') > 0)"""
)

#: The columns of a record, in the order in which :func:`record_from_row` reads them.
LOG = (
    "logs.id, instances.task, instances.number, logs.number, logs.fence, logs.attempt, "
    f"NOT {OPEN}, logs.seq, logs.at, logs.level, logs.logger, logs.message, logs.template, logs.context, "
    "logs.exception, logs.pathname, logs.lineno, logs.function, logs.truncated, logs.late, logs.counts"
)

_STATUS = {str(status): status for status in Status}


def dump(names: Any) -> str:
    """A list or mapping of names and numbers as JSON."""
    return to_json(names).decode()


def instance_from_row(row: Row) -> Instance:
    """Read the columns of :data:`INSTANCE`."""
    instance = Instance(*row)
    instance.status = _STATUS[row[2]]
    instance.taken = from_json(row[21])
    instance.vetoes = tuple(from_json(row[22])) if row[22] != "[]" else ()
    if row[34] != "[]":
        instance.log_chosen = tuple(from_json(row[34]))
    else:
        instance.log_chosen = ()
    counts = row[31]
    instance.log_counts = (
        {} if counts == "{}" else {int(level): count for level, count in from_json(counts).items()}
    )
    return instance


def new_instance(session: int, made: Instance) -> Row:
    """What `instance_insert` takes."""
    return (
        session,
        made.task,
        made.number,
        made.status.value,
        made.created_at,
        made.modified_at,
        made.run_at,
        made.dispatch_after,
        made.parent,
        made.root,
        made.depth,
        made.retries,
        made.cascade_depth,
        dump(made.taken),
        dump(made.vetoes) if made.vetoes else "[]",
        made.kwargs,
        made.history,
    )


def taken_instance(touched: Instance) -> Row:
    """What `instance_take` takes."""
    return (
        touched.status.value,
        touched.modified_at,
        touched.run_at,
        touched.dispatch_after,
        touched.cascade_depth,
        dump(touched.taken),
        dump(touched.vetoes) if touched.vetoes else "[]",
        touched.history,
        touched.ref,
    )


def moved_instance(moved: Instance, guard: Guard) -> Row:
    """What `instance_move` takes."""
    return (
        moved.status.value,
        moved.modified_at,
        moved.fence,
        moved.attempt,
        moved.crashes,
        moved.crash_budget,
        moved.given_back,
        moved.run_at,
        moved.dispatch_after,
        moved.handovers,
        moved.lease_until,
        moved.owner,
        moved.result,
        moved.error,
        moved.metadata,
        moved.history,
        moved.log_count,
        moved.log_level,
        moved.log_unresolved,
        dump(moved.log_counts),
        moved.log_dropped,
        moved.log_resolved,
        dump(moved.log_chosen) if moved.log_chosen else "[]",
        moved.log_audit,
        moved.ref,
        guard.status.value,
        guard.fence,
        guard.lease_until,
    )


def firing_from_row(row: Row) -> Firing:
    """Read number, trigger, kwargs, at, depth, source, key, fingerprint."""
    return Firing(*row)


def new_firing(session: int, firing: Firing) -> Row:
    """What `firing_insert` takes."""
    return (
        session,
        firing.number,
        firing.trigger,
        firing.kwargs,
        firing.at,
        firing.depth,
        firing.source,
        firing.key,
        firing.fingerprint,
    )


def new_record(session: int, record: Record) -> Row:
    """What `log_insert` takes."""
    entry = record.entry
    return (
        session,
        record.instance.ref,
        record.number,
        record.fence,
        record.attempt,
        entry.seq,
        entry.at,
        entry.level,
        entry.logger,
        entry.message,
        entry.template,
        encode(entry.context, "context"),
        None if entry.exception is None else encode(entry.exception, "exception"),
        entry.pathname,
        entry.lineno,
        entry.function,
        dump(entry.truncated) if entry.truncated else "[]",
        fingerprint(entry),
        entry.late,
        entry.counts,
    )


def without_context(tree: str | None) -> str | None:
    """The stored tree of an exception without any context."""
    return None if tree is None else encode(without_contexts(decode(tree)), "exception")


def record_from_row(row: Sequence[Any]) -> StoredRecord:
    """Read what `logs` selects."""
    cursor, task, instance, number, fence, attempt, resolved, *said = row
    (
        seq,
        at,
        level,
        logger,
        message,
        template,
        context,
        exception,
        pathname,
        lineno,
        function,
        truncated,
        late,
        counts,
    ) = said
    tree = None if exception is None else decode(exception)
    place = (pathname, lineno, function, tuple(from_json(truncated)), bool(late), bool(counts))
    entry = LogEntry(seq, at, level, logger, message, template, decode(context), tree, *place)
    return StoredRecord(cursor, task, instance, number, fence, attempt, bool(resolved), entry)
