"""Output for programs: the document of each command, with the keys that the reference documents."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import click

from triggers.core.status import Status
from triggers.core.values import Limits, encode, to_datetime
from triggers.session import level_name

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from triggers.core.rules import Rule
    from triggers.core.state import Instance, Session
    from triggers.session import TaskInstance
    from triggers.storages.base import StoredRecord
    from triggers.timers import Timer

#: Stored values were checked against the limits when they were stored.
_ANY_SIZE: Final = Limits(payload=2**62, nesting=500)


def emit(document: Any) -> None:
    """Print a document as one line of JSON."""
    click.echo(json.dumps(document))


def tagged(value: Any) -> Any:
    """Return a value of the application as it is stored: JSON, with objects for the types that JSON lacks."""
    return json.loads(encode(value, "the value", _ANY_SIZE))


def moment(at: int | datetime | None) -> str | None:
    """Format a datetime, or microseconds since the epoch, in ISO 8601, UTC; None if there is no time."""
    if not at:
        return None
    found = at if isinstance(at, datetime) else to_datetime(at)
    return found.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


def level(number: int) -> str | None:
    """Return the name of a level; None if there is none (0)."""
    return level_name(number) if number else None


def session_document(head: Session) -> dict[str, Any]:
    """Return a session as `sessions` lists it; `show` adds its instances."""
    return {
        "uid": head.uid,
        "manager": head.manager,
        "tasks": len(head.rules.rules),
        "pending": head.pending,
        "firings": head.firings,
        "finalized": head.finalized,
        "metadata": json.loads(head.metadata),
        "created_at": moment(head.created_at),
        "modified_at": moment(head.modified_at),
    }


def waits_for(instance: Instance, rules: Mapping[str, Rule]) -> tuple[str, ...]:
    """Return the triggers that an unstarted instance lacks; an instance with another status lacks none."""
    rule = rules.get(instance.task)
    if rule is None or instance.status is not Status.UNSTARTED:
        return ()
    return rule.after.lacking(instance.taken)


def error_of(instance: Instance) -> dict[str, Any] | None:
    """Return the complete tree of the exception that failed the instance; None if it has no error."""
    return None if instance.error is None else json.loads(instance.error)


def parent_of(instance: Instance) -> str | None:
    """Return the name of the instance that this one replays; None if it replays none."""
    return None if instance.parent is None else f"{instance.task}#{instance.parent}"


def instance_document(instance: Instance, rules: Mapping[str, Rule]) -> dict[str, Any]:
    """Return an instance as `show` lists it."""
    error = error_of(instance)
    return {
        "name": instance.name,
        "task": instance.task,
        "number": instance.number,
        "status": instance.status.value,
        "waits_for": list(waits_for(instance, rules)),
        "abandoned_by": list(instance.vetoes) if instance.status is Status.ABANDONED else [],
        "attempt": instance.attempt,
        "crashes": instance.crashes,
        "given_back": instance.given_back,
        "parent": parent_of(instance),
        "depth": instance.depth,
        "created_at": moment(instance.created_at),
        "modified_at": moment(instance.modified_at),
        "run_at": moment(instance.run_at) if instance.status is not Status.UNSTARTED else None,
        "owner": instance.owner or None,
        "lease_until": moment(instance.lease_until),
        "error": error and {"type": error.get("type"), "message": error.get("message")},
        "log": {
            "level": level(instance.log_level),
            "unresolved": level(instance.unreviewed_level),
            "counts": {level_name(number): count for number, count in sorted(instance.log_counts.items())},
            "dropped": instance.log_dropped,
        },
    }


def whole_document(instance: TaskInstance, rules: Mapping[str, Rule]) -> dict[str, Any]:
    """Return an instance with everything that is stored about it, as `show` prints a single one."""
    reviews = [{**review, "at": moment(review["at"])} for review in instance.log_reviews]
    history = [
        {"at": moment(at), "status": status, "remark": remark} for at, status, remark in instance.history
    ]
    return {
        **instance_document(instance.stored, rules),
        "kwargs": tagged(dict(instance.kwargs)),
        "result": None if instance.result is None else tagged(dict(instance.result)),
        "metadata": json.loads(instance.stored.metadata),
        "error": error_of(instance.stored),
        "history": history,
        "reviews": reviews,
    }


def timer_document(timer: Timer) -> dict[str, Any]:
    """Return what is set: when it is due, what it does, and for which instance."""
    return {
        "name": timer.name,
        "at": moment(timer.at),
        "kind": timer.kind,
        "trigger": timer.trigger,
        "kwargs": tagged(dict(timer.kwargs)),
        "key": timer.key,
        "instance": timer.instance,
        "problem": timer.problem or None,
    }


def record_document(record: StoredRecord) -> dict[str, Any]:
    """Return a record as `logs` prints it."""
    entry = record.entry
    return {
        "cursor": record.cursor,
        "instance": f"{record.task}#{record.instance}",
        "number": record.number,
        "attempt": record.attempt,
        "at": moment(entry.at),
        "level": level_name(entry.level),
        "level_number": entry.level,
        "logger": entry.logger,
        "message": entry.message,
        "template": entry.template,
        "context": tagged(dict(entry.context)),
        "exception": None if entry.exception is None else tagged(dict(entry.exception)),
        "pathname": entry.pathname,
        "lineno": entry.lineno,
        "function": entry.function,
        "fingerprint": record.fingerprint,
        "truncated": list(entry.truncated),
        "late": entry.late,
        "counts": entry.counts,
        "resolved": record.resolved,
    }


def problems_document(
    tasks: int,
    problems: Sequence[tuple[str, str]],
    external: Sequence[str],
    similar: Sequence[tuple[str, str]],
    warnings: Sequence[tuple[str, str]],
) -> dict[str, Any]:
    """Return the result of `check`: whether the configuration is valid, and each problem with its path.

    Args:
        tasks: how many tasks it has.
        problems: its problems, as (path, message).
        external: the triggers that it expects from outside.
        similar: pairs of names that may be meant to be the same.
        warnings: what is probably not meant, as (path, message).
    """
    return {
        "valid": not problems,
        "tasks": tasks,
        "problems": [{"path": path, "message": message} for path, message in problems],
        "warnings": [{"path": path, "message": message} for path, message in warnings],
        "external_triggers": list(external),
        "similar_names": [list(pair) for pair in similar],
    }
