"""What a worker decides about an instance: it claims it, and its attempt ends or logs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triggers.core.decisions.unit_of_work import UnitOfWork, need_of_end, need_of_instance
from triggers.core.exchange import Changes, Decision, Need
from triggers.core.status import Status
from triggers.core.terms import SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

    from triggers.core.exchange import DecisionRun
    from triggers.core.rules import Rule, RuleSet
    from triggers.core.state import Instance, Session
    from triggers.core.terms import AttemptReport, Policy, PolicyOf, RetryTerms, Terms

#: Pauses before an instance is offered again that a worker without its task gave back, in microseconds.
GIVE_BACK_BACKOFF = tuple(min(2**step, 900) * SECOND for step in range(11))


def claim(
    policy: Policy | PolicyOf,
    task: str,
    number: int,
    owner: str,
    terms: Callable[[str, Rule | None], Terms | None],
) -> Decision:
    """A worker takes a scheduled instance, unless another did, it is not due, or the worker lacks the task.

    Args:
        policy: the manager's.
        task: the instance's task.
        number: the instance's number.
        owner: names this claim alone, so that a claim whose answer was lost counts as won when repeated.
        terms: gives the terms for the name of a manager and a rule, None where this worker cannot run it; the
            instance is then given back with a pause that grows.
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
            return work.refuse(f"it is {instance.status}, or not due")
        granted = terms(session.manager, session.rules.rules.get(task))
        if granted is None:
            _return_unrunnable(work, instance)
            return work.refuse("this worker lacks the task")
        _grant_claim(work, instance, owner, granted)
        return work.changes

    return Decision("claim", begin, exclusive=False, prefetch=need)


def finish(
    policy: Policy | PolicyOf, attempt: AttemptReport, result: str, rules: RuleSet | None = None
) -> Decision:
    """An attempt returned: its result is kept as a firing of the task's name, with all that follows from it.

    Args:
        policy: the manager's.
        attempt: which one.
        result: payload.
        rules: those that the session had when the caller last saw it; None if it never did.
    """

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        instance = yield from work.load_instance(attempt.task, attempt.number, cascade=True)
        if not work.is_held(instance, attempt):
            return _refuse_late(work, instance, attempt)
        work.end(instance, Status.FINISHED, attempt)
        work.cascade(instance, result)
        yield from work.finalize()
        return work.done()

    prefetch = None if rules is None else need_of_end(rules, attempt.task, attempt.number)
    return Decision("finish", begin, prefetch=prefetch)


def fail(
    policy: Policy | PolicyOf, attempt: AttemptReport, error: str, retry: RetryTerms | None = None
) -> Decision:
    """An attempt raised; where the task asked for it, it is replayed after a cooldown, in the same step.

    A task that is no longer configured cannot be replayed: its instance stays failed.

    Args:
        policy: the manager's.
        attempt: which one.
        error: payload.
        retry: the task's wish to run again, or None.
    """

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        instance = yield from work.load_instance(attempt.task, attempt.number)
        if not work.is_held(instance, attempt):
            return _refuse_late(work, instance, attempt)
        work.end(instance, Status.FAILED, attempt)
        instance.error = error
        if retry is not None and instance.retries >= retry.limit:
            instance.error = retry.exhausted
        elif retry is not None and instance.task in session.rules.rules:
            work.transition(instance, Status.REPLAYED, "by its own retry")
            run_at = session.now + retry.cooldown
            work.successor(instance, retry.kwargs, run_at=run_at, retries=instance.retries + 1)
        return work.done()

    return Decision("fail", begin, prefetch=need_of_instance(attempt.task, attempt.number))


def skip_running(policy: Policy | PolicyOf, attempt: AttemptReport) -> Decision:
    """An attempt asked to be skipped: nothing cascades."""

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        instance = yield from work.load_instance(attempt.task, attempt.number)
        if not work.is_held(instance, attempt):
            return _refuse_late(work, instance, attempt)
        work.end(instance, Status.SKIPPED, attempt)
        yield from work.finalize()
        return work.done()

    return Decision("skip_running", begin, prefetch=need_of_instance(attempt.task, attempt.number))


def release(policy: Policy | PolicyOf, attempt: AttemptReport) -> Decision:
    """A worker that stops lets an attempt go: due at once, no crash counted."""

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy, head=False)
        instance = yield from work.load_instance(attempt.task, attempt.number)
        if not work.is_held(instance, attempt):
            return _refuse_late(work, instance, attempt)
        work.end(instance, Status.SCHEDULED, attempt, "let go by its worker")
        instance.fence += 1
        instance.run_at = instance.dispatch_after = session.now
        return work.done()

    need = need_of_instance(attempt.task, attempt.number)
    return Decision("release", begin, exclusive=False, prefetch=need)


def keep_logs(policy: Policy | PolicyOf, attempt: AttemptReport) -> Decision:
    """An attempt has said something; the records of a ghost are kept, too, marked late."""

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy, head=False)
        instance = yield from work.load_instance(attempt.task, attempt.number)
        work.save_whole(instance)
        work.log(instance, attempt)
        return work.done()

    need = need_of_instance(attempt.task, attempt.number)
    return Decision("keep_logs", begin, exclusive=False, prefetch=need)


def _grant_claim(work: UnitOfWork, instance: Instance, owner: str, terms: Terms) -> None:
    """Give a scheduled instance to a worker."""
    work.transition(instance, Status.RUNNING, f"claimed by {owner}")
    instance.fence += 1
    instance.attempt += 1
    instance.owner = owner
    instance.lease_until = work.session.now + terms.lease
    instance.crash_budget = terms.crash_budget
    work.changes.claimed = instance


def _return_unrunnable(work: UnitOfWork, instance: Instance) -> None:
    """Offer an instance again, after a pause that grows, that a worker could not run."""
    work.save_whole(instance)
    pause = GIVE_BACK_BACKOFF[min(instance.given_back, len(GIVE_BACK_BACKOFF) - 1)]
    instance.given_back += 1
    instance.run_at = instance.dispatch_after = work.session.now + pause
    if instance.given_back == 1:
        instance.note(work.session.now, instance.status, "given back by a worker that lacks the task")


def _refuse_late(work: UnitOfWork, instance: Instance, attempt: AttemptReport) -> Changes:
    """Record that a ghost wanted to end an instance that it no longer holds, and keep its records."""
    work.save_whole(instance)
    instance.note(work.session.now, instance.status, f"refused a late end with fence {attempt.fence}")
    work.log(instance, attempt)
    work.changes.writes_head = False
    return work.refuse(
        f"fence {attempt.fence} is old: {instance.name} is {instance.status} with fence {instance.fence}"
    )
