"""The law: what one firing, one end of a run, one decision of a person changes in a session.

Each function here is a *decision*: a generator that is given the head of a session, yields what it
:class:`needs <triggers.core.state.Need>` to see and returns the
:class:`changes <triggers.core.state.Changes>`. It does no input or output, so a storage can run it
inside its transaction, a second time after a conflict, and a test without any storage at all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triggers.core.state import Changes, Firing, Instance, Need, Session
from triggers.core.status import Status, check_move
from triggers.core.terms import SECOND, Attempt, Finalizing, Policy, RetryTerms, Terms
from triggers.core.values import decode, encode
from triggers.core.work import Work
from triggers.exceptions import IdempotencyConflictError, InvalidStatusError, UnknownTaskError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from triggers.core.rules import Rule, RuleSet
    from triggers.core.state import Decision

__all__ = [
    "Attempt",
    "Finalizing",
    "Policy",
    "RetryTerms",
    "Terms",
    "abort",
    "add_metadata",
    "add_session_metadata",
    "claim",
    "configure",
    "fail",
    "finish",
    "fire",
    "is_labelled",
    "keep_logs",
    "labelled",
    "lose",
    "recover",
    "release",
    "reopen_logs",
    "replay",
    "resolve_logs",
    "set_status",
    "skip",
    "skip_running",
]

#: Pause before an instance runs again after its first, second and every further crash, in microseconds.
CRASH_BACKOFF = (1 * SECOND, 10 * SECOND, 60 * SECOND)

# -- the application ------------------------------------------------------------------------------------


def fire(session: Session, policy: Policy, firing: Firing) -> Decision:
    """A trigger fires.

    Args:
        session: the head of the session.
        policy: the manager's.
        firing: what was fired; its number and time are given here.

    Raises:
        IdempotencyConflictError: its key was used for a firing that differs from it.
    """
    work = Work(session, policy)
    key = None if firing.key is None else (firing.trigger, firing.key)
    found = yield work.need(firing.trigger, key=key)
    if found.keyed is not None:
        return _repeat(work, found.keyed, firing)
    work.learn(found)
    work.fire(firing)
    yield from work.finalize()
    return work.done()


def configure(session: Session, policy: Policy, rules: RuleSet, *, catch_up: bool = False) -> Decision:
    """A session gets new rules; its unstarted instances are decided again by those that changed.

    With the rules that it has, nothing is stored.

    Args:
        session: the head of the session.
        policy: the manager's.
        rules: all that it has from now on.
        catch_up: apply the recorded firings, in their order, to the tasks that are new.
    """
    work = Work(session, policy)
    before, session.rules = session.rules, rules
    pending = session.pending
    changed = frozenset(
        task
        for task in before.rules.keys() | rules.rules.keys()
        if before.rules.get(task) != rules.rules.get(task)
    )
    added = [rule for task, rule in rules.rules.items() if task not in before.rules] if catch_up else []
    past = frozenset(name for rule in added for name in rule.named)
    found = yield Need(tasks=None, unstarted=changed, history=past)
    work.learn(found)
    work.changes.new_rules = rules.digest != before.digest
    work.count_pending()
    for instance in found.instances:
        work.reconsider(instance, before)
    fresh = [rule for rule in added if work.counter(rule.task).created == 0]
    for firing in found.history:
        work.pass_on(firing, [rule for rule in fresh if firing.trigger in rule.named])
    work.something_resolved = True
    yield from work.finalize()
    changes = work.done()
    changes.head = (
        changes.new_rules or session.ref is None or session.pending != pending or bool(changes.fired)
    )
    return changes


def replay(session: Session, policy: Policy, task: str, number: int, kwargs: str | None = None) -> Decision:
    """A person lets a failed instance run again, as a new instance.

    Args:
        session: the head of the session.
        policy: the manager's.
        task: the instance's task.
        number: the instance's number.
        kwargs: payload in place of the present kwargs, or None for the same.

    Raises:
        InvalidStatusError: it is not failed.
        UnknownTaskError: the task is no longer configured.
    """
    work = Work(session, policy)
    instance = yield from work.one(task, number)
    _must_be_failed(instance, "replayed")
    if task not in session.rules.rules:
        raise UnknownTaskError([(task, "is no longer in the configuration, so it cannot be replayed")])
    work.move(instance, Status.REPLAYED)
    work.successor(instance, kwargs, run_at=session.now, retries=0)
    return work.done()


def skip(session: Session, policy: Policy, task: str, number: int, *, result: str | None = None) -> Decision:
    """A person gives a failed instance up.

    Args:
        session: the head of the session.
        policy: the manager's.
        task: the instance's task.
        number: the instance's number.
        result: payload to cascade with, as if it had finished; None for no cascade.

    Raises:
        InvalidStatusError: it is not failed.
    """
    work = Work(session, policy)
    instance = yield from work.one(task, number, result is not None)
    if instance.status is not Status.FAILED:
        check_move(
            instance.name,
            instance.status,
            Status.SKIPPED if instance.status is not Status.RUNNING else Status.REPLAYED,
        )
    work.move(instance, Status.SKIPPED)
    if result is not None:
        work.cascade(instance, result)
    yield from work.finalize()
    return work.done()


def set_status(session: Session, policy: Policy, task: str, number: int, status: Status) -> Decision:
    """A person moves an unstarted or running instance by hand; from running the fence is raised.

    A finish by hand cascades with an empty result. Replaying and skipping have decisions of their own.

    Raises:
        InvalidStatusError: the table of moves does not have it, or only a claim can do it.
    """
    work = Work(session, policy)
    instance = yield from work.one(task, number, cascade=status is Status.FINISHED)
    check_move(instance.name, instance.status, status)
    if status is Status.RUNNING:
        message = f"{instance.name} is {instance.status}: only a worker's claim makes it running"
        raise InvalidStatusError(message)
    if status is Status.SCHEDULED:
        instance.run_at = session.now
        instance.dispatch_after = session.now + policy.grace
    work.keep(instance)
    if instance.status is Status.RUNNING:
        instance.fence += 1
    work.move(instance, status, "by hand")
    if status is Status.FINISHED:
        work.cascade(instance, "{}")
    yield from work.finalize()
    return work.done()


def add_metadata(
    session: Session, policy: Policy, task: str, number: int, metadata: Mapping[str, Any]
) -> Decision:
    """Keys are added to the metadata of an instance; a key that is there gets the new value."""
    work = Work(session, policy)
    instance = yield from work.one(task, number)
    work.keep(instance)
    work.describe(instance, metadata)
    return work.done()


def add_session_metadata(session: Session, policy: Policy, metadata: Mapping[str, Any]) -> Decision:
    """Keys are added to the metadata of the session; a key that is there gets the new value."""
    work = Work(session, policy)
    yield Need()
    session.metadata = encode(decode(session.metadata) | dict(metadata), "metadata", policy.limits)
    return work.done()


def resolve_logs(  # noqa: PLR0917 - session, policy and instance, and what is wanted
    session: Session,
    policy: Policy,
    task: str,
    number: int,
    audit: Mapping[str, Any],
    through: int | None = None,
    records: Collection[int] | None = None,
) -> Decision:
    """A person has reviewed records of an instance: all of them, those up to one, or chosen ones.

    Args:
        session: the head of the session.
        policy: the manager's.
        task: the instance's task.
        number: the instance's number.
        audit: who and why; kept with the time.
        through: number of the last record that was reviewed, None for all that there are.
        records: numbers of just those that were reviewed.
    """
    work = Work(session, policy)
    instance = yield from work.one(task, number)
    if records is None:
        through = instance.log_count if through is None else min(through, instance.log_count)
        instance.log_resolved = max(instance.log_resolved, through)
    chosen = {*instance.log_chosen, *(records or ())}
    instance.log_chosen = tuple(
        sorted(one for one in chosen if instance.log_resolved < one <= instance.log_count)
    )
    scope = {"through": through} if records is None else {"records": sorted(records)}
    return (yield from work.review(instance, {**audit, **scope}))


def reopen_logs(
    session: Session, policy: Policy, task: str, number: int, audit: Mapping[str, Any]
) -> Decision:
    """A person takes every review of an instance's records back; a session that was finalised stays so."""
    work = Work(session, policy)
    instance = yield from work.one(task, number)
    instance.log_resolved, instance.log_chosen = 0, ()
    return (yield from work.review(instance, {**audit, "outcome": "reopened"}))


# -- the worker -----------------------------------------------------------------------------------------


def claim(  # noqa: PLR0917 - session, policy and instance, and what is wanted
    session: Session,
    policy: Policy,
    task: str,
    number: int,
    owner: str,
    terms: Callable[[Rule | None], Terms | None],
) -> Decision:
    """A worker takes a scheduled instance, unless another did, it is not due, or the worker lacks the task.

    Args:
        session: the head of the session.
        policy: the manager's.
        task: the instance's task.
        number: the instance's number.
        owner: names this claim alone, so that a claim whose answer was lost counts as won when repeated.
        terms: gives the terms for a rule, None where this worker cannot run it; the instance is then
            given back with a pause that grows.
    """
    work = Work(session, policy, head=False)
    found = yield Need(instances=((task, number),), payloads=True)
    if not found.instances:
        return work.refuse("there is no such instance")
    instance = found.instances[0]
    work.changes.payloads = found.payloads
    if instance.status is Status.RUNNING and instance.owner == owner:
        work.changes.claimed = instance
        return work.changes
    if instance.status is not Status.SCHEDULED or instance.run_at > session.now:
        return work.refuse(f"it is {instance.status}, or not due")
    granted = terms(session.rules.rules.get(task))
    if granted is None:
        work.give_back(instance)
        return work.refuse("this worker lacks the task")
    work.take_up(instance, owner, granted)
    return work.changes


def finish(session: Session, policy: Policy, attempt: Attempt, result: str) -> Decision:
    """An attempt returned: its result is kept as a firing of the task's name, with all that follows from it.

    Args:
        session: the head of the session.
        policy: the manager's.
        attempt: which one.
        result: payload.
    """
    work = Work(session, policy)
    instance = yield from work.one(attempt.task, attempt.number, cascade=True)
    if not work.is_held(instance, attempt):
        return work.refuse_late(instance, attempt)
    work.end(instance, Status.FINISHED, attempt)
    work.cascade(instance, result)
    yield from work.finalize()
    return work.done()


def fail(
    session: Session, policy: Policy, attempt: Attempt, error: str, retry: RetryTerms | None = None
) -> Decision:
    """An attempt raised; where the task asked for it, it is replayed after a cooldown, in the same step.

    A task that is no longer configured cannot be replayed: its instance stays failed.

    Args:
        session: the head of the session.
        policy: the manager's.
        attempt: which one.
        error: payload.
        retry: the task's wish to run again, or None.
    """
    work = Work(session, policy)
    instance = yield from work.one(attempt.task, attempt.number)
    if not work.is_held(instance, attempt):
        return work.refuse_late(instance, attempt)
    work.end(instance, Status.FAILED, attempt)
    instance.error = error
    if retry is not None and instance.retries >= retry.limit:
        instance.error = retry.exhausted
    elif retry is not None and instance.task in session.rules.rules:
        work.move(instance, Status.REPLAYED, "by its own retry")
        run_at = session.now + retry.cooldown
        work.successor(instance, retry.kwargs, run_at=run_at, retries=instance.retries + 1)
    return work.done()


def skip_running(session: Session, policy: Policy, attempt: Attempt) -> Decision:
    """An attempt asked to be skipped: nothing cascades."""
    work = Work(session, policy)
    instance = yield from work.one(attempt.task, attempt.number)
    if not work.is_held(instance, attempt):
        return work.refuse_late(instance, attempt)
    work.end(instance, Status.SKIPPED, attempt)
    yield from work.finalize()
    return work.done()


def release(session: Session, policy: Policy, attempt: Attempt) -> Decision:
    """A worker that stops lets an attempt go: due at once, no crash counted."""
    work = Work(session, policy, head=False)
    instance = yield from work.one(attempt.task, attempt.number)
    if not work.is_held(instance, attempt):
        return work.refuse_late(instance, attempt)
    work.end(instance, Status.SCHEDULED, attempt, "let go by its worker")
    instance.fence += 1
    instance.run_at = instance.dispatch_after = session.now
    return work.done()


def keep_logs(session: Session, policy: Policy, attempt: Attempt) -> Decision:
    """An attempt has said something; the records of a ghost are kept, too, marked late."""
    work = Work(session, policy, head=False)
    instance = yield from work.one(attempt.task, attempt.number)
    work.keep(instance)
    work.log(instance, attempt)
    return work.done()


def recover(  # noqa: PLR0917 - session, policy and instance, and what is wanted
    session: Session, policy: Policy, task: str, number: int, fence: int, lost: Callable[[str], str]
) -> Decision:
    """A lease ran out: the instance is scheduled again after a pause, or failed if its crash budget is spent.

    Args:
        session: the head of the session.
        policy: the manager's.
        task: the instance's task.
        number: the instance's number.
        fence: the fence with which it was seen; with another one it is left alone.
        lost: gives the payload of the error from a sentence that says what happened.
    """
    work = Work(session, policy, head=False)
    instance = yield from work.one(task, number)
    lease = instance.lease_until
    if (
        instance.status is not Status.RUNNING
        or instance.fence != fence
        or lease is None
        or lease >= session.now
    ):
        return work.refuse("it no longer is as it was seen")
    work.keep(instance, lease)
    return _crashed(work, instance, f"lease lost by {instance.owner}", lost)


def lose(  # noqa: PLR0917 - session, policy and instance, and what is wanted
    session: Session, policy: Policy, task: str, number: int, label: str, lost: Callable[[str], str]
) -> Decision:
    """The worker that a message led to is dead: as :func:`recover`, without waiting for the lease.

    Args:
        session: the head of the session.
        policy: the manager's.
        task: the instance's task.
        number: the instance's number.
        label: of the message; a claim made for it is :func:`labelled <labelled>` with it.
        lost: gives the payload of the error from a sentence that says what happened.
    """
    work = Work(session, policy, head=False)
    found = yield Need(instances=((task, number),))
    instance = found.instances[0] if found.instances else None
    if instance is None or not _is_run_by(instance, label):
        return work.refuse("no worker runs it by this message")
    work.keep(instance)
    return _crashed(work, instance, f"worker lost: {instance.owner}", lost)


def abort(  # noqa: PLR0917 - session, policy and instance, and what is wanted
    session: Session, policy: Policy, task: str, number: int, label: str, error: str
) -> Decision:
    """A runner fails what a message was to run: the claim made under its label, or what nobody has claimed.

    From scheduled it is as if the message had claimed the instance and failed at once. An instance that
    another message runs, or that needs no run any more, is left alone. The worker is shut out.

    Args:
        session: the head of the session.
        policy: the manager's.
        task: the instance's task.
        number: the instance's number.
        label: of the message; a claim made for it is :func:`labelled <labelled>` with it.
        error: payload.
    """
    work = Work(session, policy, head=False)
    found = yield Need(instances=((task, number),))
    if not found.instances:
        return work.refuse("there is no such instance")
    instance = found.instances[0]
    waits = instance.status is Status.SCHEDULED
    if not waits and not _is_run_by(instance, label):
        return work.refuse(f"{instance.name} is {instance.status}, and not by this message")
    owner = labelled("nobody", label) if waits else instance.owner
    work.keep(instance)
    instance.fence += 1
    if waits:
        instance.attempt += 1
        work.move(instance, Status.RUNNING, f"claimed by {owner}")
    work.move(instance, Status.FAILED, f"taken from {owner}")
    instance.error = error
    return work.done()


def labelled(owner: str, label: str) -> str:
    """The name of a claim that a message led to; without a label, the name as it is."""
    return f"{owner}@{label}" if label else owner


def is_labelled(owner: str, label: str) -> bool:
    """Whether a message of that label led to the claim of that name."""
    return bool(label) and owner.endswith(f"@{label}")


def _is_run_by(instance: Instance, label: str) -> bool:
    return instance.status is Status.RUNNING and is_labelled(instance.owner, label)


def _crashed(work: Work, instance: Instance, remark: str, lost: Callable[[str], str]) -> Changes:
    """Count a crash of an instance that is to be kept: scheduled again after a pause, or failed."""
    owner, instance.crashes = instance.owner, instance.crashes + 1
    instance.fence += 1
    if instance.crashes >= instance.crash_budget:
        work.move(instance, Status.FAILED, remark)
        instance.error = lost(f"lost {instance.crashes} times, the last time by {owner}")
    else:
        work.move(instance, Status.SCHEDULED, remark)
        pause = CRASH_BACKOFF[min(instance.crashes, len(CRASH_BACKOFF)) - 1]
        instance.run_at = instance.dispatch_after = work.session.now + pause
    return work.done()


def _must_be_failed(instance: Instance, what: str) -> None:
    if instance.status is not Status.FAILED:
        message = f"{instance.name} is {instance.status}: only a failed instance can be {what}"
        raise InvalidStatusError(message)


def _repeat(work: Work, earlier: Firing, firing: Firing) -> Changes:
    if earlier.fingerprint != firing.fingerprint:
        message = (
            f"key {firing.key!r} of trigger {firing.trigger!r} in session {work.session.uid!r} was used for "
            f"firing {earlier.number}, with other kwargs; nothing was changed: use another key for this one"
        )
        raise IdempotencyConflictError(message)
    work.changes.head = False
    work.changes.keyed = earlier
    return work.changes
