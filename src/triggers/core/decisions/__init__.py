"""The law: what one firing, one end of a run, one decision of a person changes in a session.

Each function here makes a :class:`~triggers.core.state.Decision`. A run of it is a generator that is given
the head of a session, yields what it :class:`needs <triggers.core.state.Need>` to see and returns the
:class:`changes <triggers.core.state.Changes>`. It does no input or output, so a storage can run it
inside its transaction, a second time after a conflict, and a test without any storage at all.

Each takes the manager's policy first, or a function that finds it by the manager's name. In a process that
lacks the manager, that function returns None, and the default policy counts. What a function is said to
raise, the run raises.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triggers.core.decisions.unit_of_work import UnitOfWork, need_for, need_of_end, need_of_instance
from triggers.core.state import Changes, Decision, Firing, Instance, Need, Session
from triggers.core.status import Status, check_move
from triggers.core.terms import SECOND, AttemptReport, Finalizing, Policy, PolicyOf, RetryTerms, Terms
from triggers.core.values import decode, encode
from triggers.exceptions import IdempotencyConflictError, InvalidStatusError, UnknownTaskError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from triggers.core.rules import Rule, RuleSet
    from triggers.core.state import DecisionRun

__all__ = [
    "AttemptReport",
    "Finalizing",
    "Policy",
    "PolicyOf",
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


def fire(policy: Policy | PolicyOf, firing: Firing, rules: RuleSet | None = None) -> Decision:
    """A trigger fires.

    Args:
        policy: the manager's.
        firing: what was fired; its number and time are given here.
        rules: those that the session had when the caller last saw it; None if it never did.

    Raises:
        IdempotencyConflictError: its key was used for a firing that differs from it.
    """
    key = None if firing.key is None else (firing.trigger, firing.key)

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        found = yield work.need_for(firing.trigger, key=key)
        if found.keyed is not None:
            return _repeat(work, found.keyed, firing)
        work.absorb(found)
        work.fire(firing)
        yield from work.finalize()
        return work.done()

    prefetch = None if rules is None else need_for(rules, firing.trigger, key)
    return Decision("fire", begin, prefetch=prefetch)


def configure(policy: Policy | PolicyOf, rules: RuleSet, *, catch_up: bool = False) -> Decision:
    """A session gets new rules; its unstarted instances are decided again by those that changed.

    With the rules that it has, nothing is stored.

    Args:
        policy: the manager's.
        rules: all that it has from now on.
        catch_up: apply the recorded firings, in their order, to the tasks that are new.
    """

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
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
        work.absorb(found)
        work.changes.new_rules = rules.digest != before.digest
        work.count_pending()
        for instance in found.instances:
            work.reconsider(instance, before)
        fresh = [rule for rule in added if work.counter(rule.task).created == 0]
        for firing in found.history:
            work.deliver(firing, [rule for rule in fresh if firing.trigger in rule.named])
        work.something_resolved = True
        yield from work.finalize()
        changes = work.done()
        changes.writes_head = (
            changes.new_rules or session.ref is None or session.pending != pending or bool(changes.fired)
        )
        return changes

    return Decision("configure", begin)


def replay(policy: Policy | PolicyOf, task: str, number: int, kwargs: str | None = None) -> Decision:
    """A person lets a failed instance run again, as a new instance.

    Args:
        policy: the manager's.
        task: the instance's task.
        number: the instance's number.
        kwargs: payload in place of the present kwargs, or None for the same.

    Raises:
        InvalidStatusError: it is not failed.
        UnknownTaskError: the task is no longer configured.
    """

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        instance = yield from work.load_instance(task, number)
        _must_be_failed(instance, "replayed")
        if task not in session.rules.rules:
            raise UnknownTaskError([(task, "is no longer in the configuration, so it cannot be replayed")])
        work.transition(instance, Status.REPLAYED)
        work.successor(instance, kwargs, run_at=session.now, retries=0)
        return work.done()

    return Decision("replay", begin, prefetch=need_of_instance(task, number))


def skip(policy: Policy | PolicyOf, task: str, number: int, *, result: str | None = None) -> Decision:
    """A person gives a failed instance up.

    Args:
        policy: the manager's.
        task: the instance's task.
        number: the instance's number.
        result: payload to cascade with, as if it had finished; None for no cascade.

    Raises:
        InvalidStatusError: it is not failed.
    """

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        instance = yield from work.load_instance(task, number, cascade=result is not None)
        if instance.status is not Status.FAILED:
            check_move(
                instance.name,
                instance.status,
                Status.SKIPPED if instance.status is not Status.RUNNING else Status.REPLAYED,
            )
        work.transition(instance, Status.SKIPPED)
        if result is not None:
            work.cascade(instance, result)
        yield from work.finalize()
        return work.done()

    return Decision("skip", begin, prefetch=need_of_instance(task, number) if result is None else None)


def set_status(policy: Policy | PolicyOf, task: str, number: int, status: Status) -> Decision:
    """A person moves an unstarted or running instance by hand; from running the fence is raised.

    A finish by hand cascades with an empty result. Replaying and skipping have decisions of their own.

    Raises:
        InvalidStatusError: the table of moves does not have it, or only a claim can do it.
    """
    finishes = status is Status.FINISHED

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        instance = yield from work.load_instance(task, number, cascade=finishes)
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
        if finishes:
            work.cascade(instance, "{}")
        yield from work.finalize()
        return work.done()

    return Decision("set_status", begin, prefetch=None if finishes else need_of_instance(task, number))


def add_metadata(policy: Policy | PolicyOf, task: str, number: int, metadata: Mapping[str, Any]) -> Decision:
    """Keys are added to the metadata of an instance; a key that is there gets the new value."""

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        instance = yield from work.load_instance(task, number)
        work.save_whole(instance)
        work.describe(instance, metadata)
        return work.done()

    return Decision("add_metadata", begin, prefetch=need_of_instance(task, number))


def add_session_metadata(policy: Policy | PolicyOf, metadata: Mapping[str, Any]) -> Decision:
    """Keys are added to the metadata of the session; a key that is there gets the new value."""

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        yield Need()
        merged = decode(session.metadata) | dict(metadata)
        session.metadata = encode(merged, "metadata", work.policy.limits)
        return work.done()

    return Decision("add_session_metadata", begin)


def resolve_logs(  # noqa: PLR0917 - policy and instance, and what is wanted
    policy: Policy | PolicyOf,
    task: str,
    number: int,
    audit: Mapping[str, Any],
    through: int | None = None,
    records: Collection[int] | None = None,
) -> Decision:
    """A person has reviewed records of an instance: all of them, those up to one, or chosen ones.

    Args:
        policy: the manager's.
        task: the instance's task.
        number: the instance's number.
        audit: who and why; kept with the time.
        through: number of the last record that was reviewed, None for all that there are.
        records: numbers of just those that were reviewed.
    """

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
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
        return (yield from work.review(instance, {**audit, **scope}))

    return Decision("resolve_logs", begin, prefetch=need_of_instance(task, number))


def reopen_logs(policy: Policy | PolicyOf, task: str, number: int, audit: Mapping[str, Any]) -> Decision:
    """A person takes every review of an instance's records back; a session that was finalised stays so."""

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        instance = yield from work.load_instance(task, number)
        instance.log_resolved, instance.log_chosen = 0, ()
        return (yield from work.review(instance, {**audit, "outcome": "reopened"}))

    return Decision("reopen_logs", begin, prefetch=need_of_instance(task, number))


# -- the worker -----------------------------------------------------------------------------------------


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
            work.return_unrunnable(instance)
            return work.refuse("this worker lacks the task")
        work.grant_claim(instance, owner, granted)
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
            return work.refuse_late(instance, attempt)
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
            return work.refuse_late(instance, attempt)
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
            return work.refuse_late(instance, attempt)
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
            return work.refuse_late(instance, attempt)
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


def recover(
    policy: Policy | PolicyOf, task: str, number: int, fence: int, lost: Callable[[str], str]
) -> Decision:
    """A lease ran out: the instance is scheduled again after a pause, or failed if its crash budget is spent.

    Args:
        policy: the manager's.
        task: the instance's task.
        number: the instance's number.
        fence: the fence with which it was seen; with another one it is left alone.
        lost: gives the payload of the error from a sentence that says what happened.
    """

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy, head=False)
        instance = yield from work.load_instance(task, number)
        lease = instance.lease_until
        if (
            instance.status is not Status.RUNNING
            or instance.fence != fence
            or lease is None
            or lease >= session.now
        ):
            return work.refuse("it no longer is as it was seen")
        work.save_whole(instance, lease)
        return _crashed(work, instance, f"lease lost by {instance.owner}", lost)

    return Decision("recover", begin, exclusive=False, prefetch=need_of_instance(task, number))


def lose(
    policy: Policy | PolicyOf, task: str, number: int, label: str, lost: Callable[[str], str]
) -> Decision:
    """The worker that a message led to is dead: as :func:`recover`, without waiting for the lease.

    Args:
        policy: the manager's.
        task: the instance's task.
        number: the instance's number.
        label: of the message; a claim made for it is :func:`labelled <labelled>` with it.
        lost: gives the payload of the error from a sentence that says what happened.
    """
    need = Need(instances=((task, number),))

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy, head=False)
        found = yield need
        instance = found.instances[0] if found.instances else None
        if instance is None or not _is_run_by(instance, label):
            return work.refuse("no worker runs it by this message")
        work.save_whole(instance)
        return _crashed(work, instance, f"worker lost: {instance.owner}", lost)

    return Decision("lose", begin, exclusive=False, prefetch=need)


def abort(policy: Policy | PolicyOf, task: str, number: int, label: str, error: str) -> Decision:
    """A runner fails what a message was to run: the claim made under its label, or what nobody has claimed.

    From scheduled it is as if the message had claimed the instance and failed at once. An instance that
    another message runs, or that needs no run any more, is left alone. The worker is shut out.

    Args:
        policy: the manager's.
        task: the instance's task.
        number: the instance's number.
        label: of the message; a claim made for it is :func:`labelled <labelled>` with it.
        error: payload.
    """
    need = Need(instances=((task, number),))

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy, head=False)
        found = yield need
        if not found.instances:
            return work.refuse("there is no such instance")
        instance = found.instances[0]
        waits = instance.status is Status.SCHEDULED
        if not waits and not _is_run_by(instance, label):
            return work.refuse(f"{instance.name} is {instance.status}, and not by this message")
        owner = labelled("nobody", label) if waits else instance.owner
        work.save_whole(instance)
        instance.fence += 1
        if waits:
            instance.attempt += 1
            work.transition(instance, Status.RUNNING, f"claimed by {owner}")
        work.transition(instance, Status.FAILED, f"taken from {owner}")
        instance.error = error
        return work.done()

    return Decision("abort", begin, exclusive=False, prefetch=need)


def labelled(owner: str, label: str) -> str:
    """The name of a claim that a message led to; without a label, the name as it is."""
    return f"{owner}@{label}" if label else owner


def is_labelled(owner: str, label: str) -> bool:
    """Whether a message of that label led to the claim of that name."""
    return bool(label) and owner.endswith(f"@{label}")


def _is_run_by(instance: Instance, label: str) -> bool:
    return instance.status is Status.RUNNING and is_labelled(instance.owner, label)


def _crashed(work: UnitOfWork, instance: Instance, remark: str, lost: Callable[[str], str]) -> Changes:
    """Count a crash of an instance that is to be kept: scheduled again after a pause, or failed."""
    owner, instance.crashes = instance.owner, instance.crashes + 1
    instance.fence += 1
    if instance.crashes >= instance.crash_budget:
        work.transition(instance, Status.FAILED, remark)
        instance.error = lost(f"lost {instance.crashes} times, the last time by {owner}")
    else:
        work.transition(instance, Status.SCHEDULED, remark)
        pause = CRASH_BACKOFF[min(instance.crashes, len(CRASH_BACKOFF)) - 1]
        instance.run_at = instance.dispatch_after = work.session.now + pause
    return work.done()


def _must_be_failed(instance: Instance, what: str) -> None:
    if instance.status is not Status.FAILED:
        message = f"{instance.name} is {instance.status}: only a failed instance can be {what}"
        raise InvalidStatusError(message)


def _repeat(work: UnitOfWork, earlier: Firing, firing: Firing) -> Changes:
    if earlier.fingerprint != firing.fingerprint:
        message = (
            f"key {firing.key!r} of trigger {firing.trigger!r} in session {work.session.uid!r} was used for "
            f"firing {earlier.number}, with other kwargs; nothing was changed: use another key for this one"
        )
        raise IdempotencyConflictError(message)
    work.changes.writes_head = False
    work.changes.duplicate_of = earlier
    return work.changes
