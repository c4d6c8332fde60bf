"""The decisions about an instance whose worker was lost, or that its runner cannot run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triggers.core.decisions.unit_of_work import UnitOfWork, need_of_instance
from triggers.core.exchange import Changes, Decision, Need
from triggers.core.status import Status
from triggers.core.terms import SECOND

if TYPE_CHECKING:
    from collections.abc import Callable

    from triggers.core.exchange import DecisionRun
    from triggers.core.state import Instance, Session
    from triggers.core.terms import Policy, PolicyOf

#: Pauses, in microseconds, before an instance runs again after its first, second and every further crash.
CRASH_BACKOFF = (1 * SECOND, 10 * SECOND, 60 * SECOND)


def recover(
    policy: Policy | PolicyOf, task: str, number: int, fence: int, lost: Callable[[str], str]
) -> Decision:
    """Recover an instance whose lease has expired.

    It is scheduled again after a pause. If its crash budget is used up, it is failed instead.

    Args:
        policy: the manager's policy.
        task: the instance's task.
        number: the instance's number.
        fence: the fence that the caller saw. If it has changed, the instance is not recovered.
        lost: returns the encoded error for a sentence that says what happened.
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
            return work.refuse("its status, fence or lease has changed")
        work.save_whole(instance, lease)
        return _crashed(work, instance, f"lease lost by {instance.owner}", lost)

    return Decision("recover", begin, exclusive=False, prefetch=need_of_instance(task, number))


def lose(
    policy: Policy | PolicyOf, task: str, number: int, label: str, lost: Callable[[str], str]
) -> Decision:
    """Recover an instance whose worker is known to be dead, without waiting until the lease expires.

    Args:
        policy: the manager's policy.
        task: the instance's task.
        number: the instance's number.
        label: the label of the message that the worker got. The claim is :func:`labelled <labelled>` with it.
        lost: returns the encoded error for a sentence that says what happened.
    """
    need = Need(instances=((task, number),))

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy, head=False)
        found = yield need
        instance = found.instances[0] if found.instances else None
        if instance is None or not _is_run_by(instance, label):
            return work.refuse("no worker runs it because of this message")
        work.save_whole(instance)
        return _crashed(work, instance, f"worker lost: {instance.owner}", lost)

    return Decision("lose", begin, exclusive=False, prefetch=need)


def abort(policy: Policy | PolicyOf, task: str, number: int, label: str, error: str) -> Decision:
    """Fail the instance that a message was sent for, because its runner cannot run it.

    A running instance fails if its claim has the label of the message; its worker loses the claim. A
    scheduled instance fails as if the message had led to a claim. Any other instance stays as it is.

    Args:
        policy: the manager's policy.
        task: the instance's task.
        number: the instance's number.
        label: the label of the message. A claim that it led to is :func:`labelled <labelled>` with it.
        error: the encoded error.
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
            return work.refuse(f"{instance.name} is {instance.status}, and not because of this message")
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
    """Return the name of a claim that the message with this label led to."""
    return f"{owner}@{label}" if label else owner


def is_labelled(owner: str, label: str) -> bool:
    """Return whether the message with this label led to the claim with this name."""
    return bool(label) and owner.endswith(f"@{label}")


def _is_run_by(instance: Instance, label: str) -> bool:
    return instance.status is Status.RUNNING and is_labelled(instance.owner, label)


def _crashed(work: UnitOfWork, instance: Instance, remark: str, lost: Callable[[str], str]) -> Changes:
    """Count a crash: schedule the instance again after a pause, or fail it. The caller has it stored."""
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
