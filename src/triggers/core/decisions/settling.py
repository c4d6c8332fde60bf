"""What follows at the end of a decision: outcomes of the instances that ended, and the finalizing trigger."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from triggers.core.exchange import Need
from triggers.core.outcomes import ENDED, outcomes_of
from triggers.core.state import Firing
from triggers.core.status import Status
from triggers.core.values import decode, encode

if TYPE_CHECKING:
    from collections.abc import Generator, Mapping

    from triggers.core.decisions.unit_of_work import End, UnitOfWork
    from triggers.core.exchange import Slice
    from triggers.core.state import Instance

#: The maximum length of the type and the message of the error that ``failed`` passes on.
MAX_MESSAGE: Final = 10_000


def settle(work: UnitOfWork) -> Generator[Need, Slice, None]:
    """Fire the outcomes of the instances that ended, and then the finalizing trigger if it is time."""
    _fire_outcomes(work)
    yield from _finalize(work)
    _fire_outcomes(work)


def _fire_outcomes(work: UnitOfWork) -> None:
    """Fire the outcomes of the instances that ended, by task and number, then of those that this ends."""
    while work.ends:
        ends = sorted(work.ends, key=lambda end: (end.instance.task, end.instance.number))
        work.ends = []
        for end in ends:
            _fire_outcomes_of(work, end)


def _fire_outcomes_of(work: UnitOfWork, end: End) -> None:
    """Fire the outcomes of one instance that rules name; none if its retry has replaced it."""
    instance, outcomes = end.instance, work.session.rules.outcomes
    if instance.status is not end.status:
        return
    depth = max(instance.cascade_depth + 1, end.led_by + 1, work.policy.cascade_depth)
    for name in outcomes_of(instance.task, end.status, is_first=end.is_first):
        if name in outcomes:
            kwargs = outcome_kwargs(instance, name, work.reasons)
            fire_outcome(work, Firing(0, name, kwargs, 0, depth, instance.name))


def fire_outcome(work: UnitOfWork, firing: Firing) -> None:
    """Fire an outcome. One that is too deep in a chain of firings is recorded and reaches no task."""
    work.changes.writes_head = True
    if firing.depth <= work.policy.limits.cascade_depth:
        work.fire(firing)
    else:
        work.changes.too_deep.append(work.record(firing))


def outcome_kwargs(instance: Instance, name: str, reasons: Mapping[str, bool]) -> str:
    """Return the encoded kwargs of an outcome.

    All outcomes have ``instance``, the name of the instance. ``ended`` has ``outcome``, the status.
    ``failed`` has ``error``, with its type and message, ``exhausted``, which is true if the limit of retries
    prevented another one, and ``lost``, which is true if the worker was lost.
    """
    kwargs: dict[str, Any] = {"instance": instance.name}
    if name.endswith(f":{ENDED}"):
        kwargs["outcome"] = instance.status.value
    elif instance.status is Status.FAILED:
        error = decode(instance.error) if instance.error else None
        kwargs["error"] = _summary(error) if isinstance(error, dict) else None
        kwargs |= {reason: reasons.get(reason, False) for reason in ("exhausted", "lost")}
    return encode(kwargs, "kwargs")


def _summary(error: Mapping[str, Any]) -> dict[str, str]:
    return {key: str(error.get(key))[:MAX_MESSAGE] for key in ("type", "message")}


def _finalize(work: UnitOfWork) -> Generator[Need, Slice, None]:
    """Fire the finalizing trigger if this decision has completed the session."""
    end, session = work.policy.finalizing, work.session
    if end is None or not work.something_resolved or session.pending or session.finalized is not None:
        return
    if not session.rules.rules.keys() - work.exempt - session.rules.exceptional:
        return
    if end.max_level is not None and (yield from _is_flagged(work, end.max_level)):
        return
    work.absorb((yield work.need_for(end.trigger)))
    session.finalized = work.fire(Firing(0, end.trigger, "{}", 0, work.policy.cascade_depth))


def _is_flagged(work: UnitOfWork, level: int) -> Generator[Need, Slice, bool]:
    """Return whether a finished instance has unresolved log records at or above the level."""
    level = max(level, 1)
    own = [instance for instance, _ in work.changes.transitioned]
    if any(instance.status is Status.FINISHED and instance.log_unresolved >= level for instance in own):
        return True
    found = yield Need(flagged=level, flagged_limit=len(own) + 1)
    known = {(instance.task, instance.number) for instance in own}
    return any(flagged not in known for flagged in found.flagged)
