"""The decisions of a person: replay, skip, set a status, add metadata, and review log records."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triggers.core.decisions.needs import need_of_instance
from triggers.core.decisions.settling import settle
from triggers.core.decisions.unit_of_work import UnitOfWork
from triggers.core.exchange import Changes, Decision, Need
from triggers.core.outcomes import OF_STATUS
from triggers.core.status import Status, check_move
from triggers.core.values import Limits, decode, encode
from triggers.exceptions import InvalidStatusError, UnknownTaskError

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Mapping

    from triggers.core.exchange import DecisionRun, Slice
    from triggers.core.state import Instance, Session
    from triggers.core.terms import Policy, PolicyOf

#: How many reviews of an instance are stored at most: the first ones and the latest ones.
MAX_AUDITS = 100

#: The maximum size of all reviews of an instance together.
AUDITS = Limits(payload=16 * 1024 * 1024)


def replay(
    policy: Policy | PolicyOf,
    task: str,
    number: int,
    kwargs: str | None = None,
    metadata: Mapping[str, Any] | None = None,
) -> Decision:
    """Run a failed instance again, as a new instance; the failed one becomes replayed.

    Args:
        policy: the manager's policy.
        task: the instance's task.
        number: the instance's number.
        kwargs: the encoded kwargs of the new instance, None for those of the failed one.
        metadata: keys that are added to the metadata of the failed instance.

    Raises:
        InvalidStatusError: the instance is not failed.
        UnknownTaskError: the task is no longer configured.
    """

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        work.look_at_timers()
        instance = yield from work.load_instance(task, number)
        _must_be_failed(instance, "replayed")
        if task not in session.rules.rules:
            raise UnknownTaskError([(task, "is no longer in the configuration, so it cannot be replayed")])
        work.transition(instance, Status.REPLAYED)
        if metadata:
            work.describe(instance, metadata)
        depth = work.policy.cascade_depth
        work.successor(instance, kwargs, run_at=session.now, retries=0, depth=depth)
        return work.done()

    return Decision("replay", begin, prefetch=need_of_instance(task, number))


def skip(policy: Policy | PolicyOf, task: str, number: int, *, result: str | None = None) -> Decision:
    """Skip a failed instance: it will not run again.

    Args:
        policy: the manager's policy.
        task: the instance's task.
        number: the instance's number.
        result: the encoded result to cascade with, as if the instance had finished; None for no cascade.

    Raises:
        InvalidStatusError: the instance is not failed.
    """

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        work.look_at_timers()
        instance = yield from work.load_instance(task, number, Status.SKIPPED, cascade=result is not None)
        _must_be_failed(instance, "skipped")
        work.transition(instance, Status.SKIPPED)
        if result is not None:
            work.cascade(instance, result)
        yield from settle(work)
        return work.done()

    return Decision("skip", begin, prefetch=need_of_instance(task, number) if result is None else None)


def set_status(  # noqa: PLR0917 - the policy, the instance, and the parts of the change
    policy: Policy | PolicyOf,
    task: str,
    number: int,
    status: Status,
    metadata: Mapping[str, Any] | None = None,
    result: str | None = None,
) -> Decision:
    """Change the status of an instance by hand. The attempt of a running instance loses its claim.

    :func:`replay` is a decision of its own.

    Args:
        policy: the manager's policy.
        task: the instance's task.
        number: the instance's number.
        status: the new status, but not replayed.
        metadata: keys that are added to the metadata of the instance.
        result: the encoded result to cascade with, as if the instance had finished; None for no cascade.

    Raises:
        InvalidStatusError: the table of moves does not allow the change, or only a claim can make it.
    """
    end = status if status in {*OF_STATUS, Status.FINISHED} else None
    cascades = result is not None

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        work.look_at_timers()
        instance = yield from work.load_instance(task, number, end, cascade=cascades)
        check_move(instance.name, instance.status, status)
        if status is Status.RUNNING:
            message = f"{instance.name} is {instance.status}: only a worker's claim makes it running"
            raise InvalidStatusError(message)
        if status is Status.SCHEDULED:
            instance.run_at = session.now
            instance.dispatch_after = session.now + work.policy.grace
        work.save_whole(instance)
        if instance.status is Status.RUNNING:
            instance.fence += 1
        work.transition(instance, status, "by hand")
        if metadata:
            work.describe(instance, metadata)
        if result is not None:
            work.cascade(instance, result)
        yield from settle(work)
        return work.done()

    return Decision("set_status", begin, prefetch=None if end else need_of_instance(task, number))


def add_metadata(policy: Policy | PolicyOf, task: str, number: int, metadata: Mapping[str, Any]) -> Decision:
    """Add keys to the metadata of an instance. The new value of an existing key replaces the old one."""

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        work.look_at_timers()
        instance = yield from work.load_instance(task, number)
        work.save_whole(instance)
        work.describe(instance, metadata)
        return work.done()

    return Decision("add_metadata", begin, prefetch=need_of_instance(task, number))


def add_session_metadata(policy: Policy | PolicyOf, metadata: Mapping[str, Any]) -> Decision:
    """Add keys to the metadata of a session. The new value of an existing key replaces the old one."""

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        work.look_at_timers()
        yield Need()
        merged = decode(session.metadata) | dict(metadata)
        session.metadata = encode(merged, "metadata", work.policy.limits)
        return work.done()

    return Decision("add_session_metadata", begin)


def resolve_logs(  # noqa: PLR0917 - the policy, the instance, and the parts of a review
    policy: Policy | PolicyOf,
    task: str,
    number: int,
    audit: Mapping[str, Any],
    through: int | None = None,
    records: Collection[int] | None = None,
) -> Decision:
    """Record that a person reviewed log records of an instance: all, those up to a number, or chosen ones.

    Args:
        policy: the manager's policy.
        task: the instance's task.
        number: the instance's number.
        audit: who reviewed them and why. It is stored with the time.
        through: the number of the last reviewed record, None for all.
        records: the numbers of the reviewed records, if they are chosen one by one.
    """

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        work.look_at_timers()
        instance = yield from work.load_instance(task, number)
        scope: dict[str, Any]
        if records is None:
            last = instance.log_count if through is None else min(through, instance.log_count)
            instance.log_resolved = max(instance.log_resolved, last)
            scope = {"through": last}
        else:
            scope = {"records": sorted(records)}
        chosen = {*instance.log_chosen, *(records or ())}
        instance.log_chosen = tuple(
            sorted(one for one in chosen if instance.log_resolved < one <= instance.log_count)
        )
        return (yield from _review(work, instance, {**audit, **scope}))

    return Decision("resolve_logs", begin, prefetch=need_of_instance(task, number))


def reopen_logs(policy: Policy | PolicyOf, task: str, number: int, audit: Mapping[str, Any]) -> Decision:
    """Revoke all reviews of an instance's log records. A finalized session stays finalized."""

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        work.look_at_timers()
        instance = yield from work.load_instance(task, number)
        instance.log_resolved, instance.log_chosen = 0, ()
        return (yield from _review(work, instance, {**audit, "outcome": "reopened"}))

    return Decision("reopen_logs", begin, prefetch=need_of_instance(task, number))


def _must_be_failed(instance: Instance, what: str) -> None:
    if instance.status is not Status.FAILED:
        message = f"{instance.name} is {instance.status}: only a failed instance can be {what}"
        raise InvalidStatusError(message)


def _review(
    work: UnitOfWork, instance: Instance, audit: Mapping[str, Any]
) -> Generator[Need, Slice, Changes]:
    """Store who reviewed records and why, and find the highest level that still needs a review."""
    work.save_whole(instance)
    level, instance.log_unresolved = instance.log_unresolved, 0
    if instance.log_resolved == 0 and not instance.log_chosen:
        levels = (level for level in instance.log_counts if level >= work.policy.threshold)
        instance.log_unresolved = max(levels, default=0)
    elif instance.log_resolved < instance.log_count:
        beyond = (instance.log_resolved, work.policy.threshold, instance.log_chosen)
        found = yield Need(instances=((instance.task, instance.number),), levels=beyond)
        instance.log_unresolved = found.level
    entry = {"outcome": "resolved", **audit, "at": work.session.now, "level": level}
    audits = [*decode(instance.log_audit), entry]
    if len(audits) > MAX_AUDITS:
        del audits[MAX_AUDITS // 2]
    instance.log_audit = encode(audits, "the audit", AUDITS)
    work.something_resolved = True
    yield from settle(work)
    return work.done()
