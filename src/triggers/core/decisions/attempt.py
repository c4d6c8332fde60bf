"""The decisions of a worker: claim an instance, end the attempt, and store its log records."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triggers.core.decisions.needs import need_of_end, need_of_instance
from triggers.core.decisions.rescue import MUST_RUN_ALONE, SUSPECTED_AT, is_alone
from triggers.core.decisions.settling import settle
from triggers.core.decisions.unit_of_work import UnitOfWork
from triggers.core.exchange import Changes, Decision, Need
from triggers.core.rules import NO_RULES
from triggers.core.state import SPARED
from triggers.core.status import Status
from triggers.core.terms import SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

    from triggers.core.exchange import DecisionRun
    from triggers.core.rules import Rule, RuleSet
    from triggers.core.state import Instance, Session
    from triggers.core.terms import AttemptReport, Policy, PolicyOf, RetryTerms, Terms

#: Pauses before an instance that a worker without its task has returned is dispatched again, in microseconds.
RETURN_PAUSES = tuple(min(2**step, 900) * SECOND for step in range(11))


def claim(
    policy: Policy | PolicyOf,
    task: str,
    number: int,
    owner: str,
    terms: Callable[[str, Rule | None], Terms | None],
) -> Decision:
    """Claim a scheduled instance for a worker.

    The claim is refused if the instance is not scheduled, is not due, or if the worker does not have its
    task. In the last case the instance returns to the queue, after a pause that grows each time. An instance
    that was lost :data:`SUSPECTED_AT` times is granted only to a claim that runs :func:`alone`.

    Args:
        policy: the manager's policy.
        task: the instance's task.
        number: the instance's number.
        owner: the unique name of this claim. If the answer to a claim is lost, its repetition succeeds.
        terms: returns the terms for the name of a manager and a rule, None if the worker cannot run the task.
    """
    need = Need(instances=((task, number),), payloads=True)

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy, head=False)
        found = yield need
        if not found.instances:
            return work.refuse("there is no such instance")
        instance = found.instances[0]
        work.changes.payloads = found.payloads
        if instance.status is Status.RUNNING and instance.owner == owner:
            work.changes.claimed = instance
            return work.changes
        if instance.status is not Status.SCHEDULED or instance.run_at > session.now:
            return work.refuse(f"it is {instance.status}, or it is not due yet")
        granted = terms(session.manager, session.rules.rules.get(task))
        if granted is None:
            _return_unrunnable(work, instance)
            return work.refuse("this worker does not have the task")
        if instance.crashes >= SUSPECTED_AT and not is_alone(owner):
            return work.refuse(MUST_RUN_ALONE)
        _grant_claim(work, instance, owner, granted)
        return work.changes

    return Decision("claim", begin, exclusive=False, prefetch=need)


def finish(
    policy: Policy | PolicyOf, attempt: AttemptReport, result: str, rules: RuleSet | None = None
) -> Decision:
    """Finish an attempt: store its result and fire the name of the task with it.

    Args:
        policy: the manager's policy.
        attempt: the attempt.
        result: the encoded result.
        rules: the session's rules when the caller last read them, None if it never did.
    """

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        work.look_at_timers()
        instance = yield from work.load_instance(attempt.task, attempt.number, Status.FINISHED)
        if not work.is_held(instance, attempt):
            return _refuse_late(work, instance, attempt)
        work.end(instance, Status.FINISHED, attempt)
        work.cascade(instance, result)
        yield from settle(work)
        return work.done()

    prefetch = need_of_end(rules, attempt.task, attempt.number, Status.FINISHED) if rules else None
    return Decision("finish", begin, prefetch=prefetch)


def fail(
    policy: Policy | PolicyOf,
    attempt: AttemptReport,
    error: str,
    retry: RetryTerms | None = None,
    rules: RuleSet | None = None,
) -> Decision:
    """Fail an attempt. If the task requested a retry, the same commit replays the instance after a cooldown.

    A task that is no longer configured cannot be replayed, so its instance stays failed.

    Args:
        policy: the manager's policy.
        attempt: the attempt.
        error: the encoded error.
        retry: the retry that the task requested, or None.
        rules: the session's rules when the caller last read them, None if it never did.
    """

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        work.look_at_timers()
        instance = yield from work.load_instance(attempt.task, attempt.number, Status.FAILED)
        if not work.is_held(instance, attempt):
            return _refuse_late(work, instance, attempt)
        work.end(instance, Status.FAILED, attempt)
        instance.error = error
        if retry is not None and instance.retries >= retry.limit:
            instance.error = retry.exhausted
            work.reasons["exhausted"] = True
        elif retry is not None and instance.task in session.rules.rules:
            work.transition(instance, Status.REPLAYED, "by its own retry")
            run_at = session.now + retry.cooldown
            # A retry is bounded by its own limit and does not make the chain of firings longer.
            depth, retries = instance.cascade_depth, instance.retries + 1
            work.successor(instance, retry.kwargs, run_at=run_at, retries=retries, depth=depth)
        yield from settle(work)
        return work.done()

    prefetch = need_of_end(rules or NO_RULES, attempt.task, attempt.number, Status.FAILED)
    return Decision("fail", begin, prefetch=prefetch)


def skip_running(policy: Policy | PolicyOf, attempt: AttemptReport, rules: RuleSet | None = None) -> Decision:
    """End an attempt that requested to be skipped. Nothing cascades.

    Args:
        policy: the manager's policy.
        attempt: the attempt.
        rules: the session's rules when the caller last read them, None if it never did.
    """

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        work.look_at_timers()
        instance = yield from work.load_instance(attempt.task, attempt.number, Status.SKIPPED)
        if not work.is_held(instance, attempt):
            return _refuse_late(work, instance, attempt)
        work.end(instance, Status.SKIPPED, attempt)
        yield from settle(work)
        return work.done()

    prefetch = need_of_end(rules or NO_RULES, attempt.task, attempt.number, Status.SKIPPED)
    return Decision("skip_running", begin, prefetch=prefetch)


def release(policy: Policy | PolicyOf, attempt: AttemptReport) -> Decision:
    """Return the instance of a worker that stops to the queue. It is due at once, and no crash is counted."""

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy, head=False)
        instance = yield from work.load_instance(attempt.task, attempt.number)
        if not work.is_held(instance, attempt):
            return _refuse_late(work, instance, attempt)
        work.end(instance, Status.SCHEDULED, attempt, "released by its worker")
        instance.fence += 1
        instance.run_at = instance.dispatch_after = session.now
        return work.done()

    need = need_of_instance(attempt.task, attempt.number)
    return Decision("release", begin, exclusive=False, prefetch=need)


def keep_logs(policy: Policy | PolicyOf, attempt: AttemptReport) -> Decision:
    """Store log records of an attempt. Those of a stale worker are stored, too, and marked as late."""

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy, head=False)
        instance = yield from work.load_instance(attempt.task, attempt.number)
        work.save_whole(instance)
        work.log(instance, attempt)
        return work.done()

    need = need_of_instance(attempt.task, attempt.number)
    return Decision("keep_logs", begin, exclusive=False, prefetch=need, by_rules=False)


def _grant_claim(work: UnitOfWork, instance: Instance, owner: str, terms: Terms) -> None:
    """Make a scheduled instance running, with a new fence and lease."""
    work.transition(instance, Status.RUNNING, f"claimed by {owner}")
    instance.fence += 1
    instance.attempt += 1
    instance.owner = owner
    instance.lease_until = work.session.now + terms.lease
    # A larger budget would be read as crashes that are not charged.
    instance.crash_budget += min(terms.crash_budget, SPARED - 1) - instance.budget
    work.changes.claimed = instance


def _return_unrunnable(work: UnitOfWork, instance: Instance) -> None:
    """Return an instance to the queue because this worker cannot run it. The pause grows each time."""
    work.save_whole(instance)
    pause = RETURN_PAUSES[min(instance.given_back, len(RETURN_PAUSES) - 1)]
    instance.given_back += 1
    instance.run_at = instance.dispatch_after = work.session.now + pause
    if instance.given_back == 1:
        instance.note(work.session.now, instance.status, "returned by a worker without the task")


def _refuse_late(work: UnitOfWork, instance: Instance, attempt: AttemptReport) -> Changes:
    """Record that a stale worker tried to end an instance, and store its log records."""
    work.save_whole(instance)
    instance.note(work.session.now, instance.status, f"refused a late end with fence {attempt.fence}")
    work.log(instance, attempt)
    work.changes.writes_head = False
    return work.refuse(
        f"fence {attempt.fence} is old: {instance.name} is {instance.status} with fence {instance.fence}"
    )
