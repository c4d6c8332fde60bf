"""The decisions about an instance whose worker was lost, or that its runner cannot run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triggers.core.decisions.needs import need_of_end, need_of_instance
from triggers.core.decisions.settling import settle
from triggers.core.decisions.unit_of_work import UnitOfWork
from triggers.core.exchange import Changes, Decision, Need, NeedsSession
from triggers.core.outcomes import outcomes_of
from triggers.core.state import SPARED
from triggers.core.status import Status
from triggers.core.terms import SECOND, AttemptReport

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from triggers.core.exchange import DecisionRun, Slice
    from triggers.core.records import LogBatch
    from triggers.core.state import Instance, Session
    from triggers.core.terms import Policy, PolicyOf

    #: Returns the log records of a failure, given the session and the instance with its error.
    FailureLog = Callable[[Session, Instance], LogBatch]

#: Pauses, in microseconds, before an instance runs again after its first, second and every further crash.
CRASH_BACKOFF = (1 * SECOND, 10 * SECOND, 60 * SECOND)

#: An instance that was lost this often may be what kills its processes. From then on it runs alone in one.
SUSPECTED_AT = 2

#: Why a claim is refused whose name does not say that its process runs nothing else.
MUST_RUN_ALONE = "it may be what killed its processes, so it must run alone in one"

#: Why a process does not fail an instance whose failure fires an outcome.
NO_MANAGER = "its failure fires a trigger, and this process does not have the manager of the session"

#: Pauses, in microseconds, before such an instance is recovered again, so that other processes see it first.
POSTPONE_BACKOFF = tuple(min(2**step, 600) * SECOND for step in range(11))

#: How long, in microseconds, a worker has to renew an expired claim before a crash is charged. After an
#: outage of the storage, leases have expired although no process has died.
TRIAL = 60 * SECOND

#: The end of the name of a claim whose process runs nothing else, before its label.
_ALONE = "/alone"


def recover(  # noqa: PLR0917 - the arguments identify the instance and the claim
    policy: Policy | PolicyOf,
    task: str,
    number: int,
    fence: int,
    lost: Callable[[str], str],
    trial: int = TRIAL,
    *,
    log: FailureLog | None = None,
) -> Decision:
    """Recover an instance whose lease has expired.

    It is scheduled again after a pause. If its crash budget is used up, it is failed instead.

    The crash is charged to an instance that ran alone. A crash of one that ran beside others is not charged,
    because any of them may have killed the process. Before a crash is charged, or fails an instance that must
    not run again, the worker gets some time to renew its claim, and the instance stays running until then.

    Args:
        policy: the manager's policy.
        task: the instance's task.
        number: the instance's number.
        fence: the fence that the caller saw. If it has changed, the instance is not recovered.
        lost: returns the encoded error for a sentence that says what happened.
        trial: how long the worker has to renew its claim, in microseconds.
        log: returns the log records of a failure; None for none.
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
        charged = is_alone(instance.owner)
        if (charged or not instance.budget) and instance.dispatch_after != lease:
            # Nothing else uses `dispatch_after` while it runs. It tells this lease from that of a heartbeat.
            instance.lease_until = instance.dispatch_after = session.now + trial
            return work.done()
        if _lacks_manager(work, task):
            return _postpone(work, instance)
        remark = f"lease lost by {instance.owner}"
        return (yield from _crashed(work, instance, remark, lost, log, charged=charged))

    return Decision("recover", begin, exclusive=False, prefetch=need_of_instance(task, number))


def lose(
    policy: Policy | PolicyOf,
    task: str,
    number: int,
    label: str,
    lost: Callable[[str], str],
    *,
    log: FailureLog | None = None,
) -> Decision:
    """Recover an instance whose worker is known to be dead, without waiting until the lease expires.

    The crash is charged.

    Args:
        policy: the manager's policy.
        task: the instance's task.
        number: the instance's number.
        label: the label of the message that the worker got. The claim is :func:`labelled <labelled>` with it.
        lost: returns the encoded error for a sentence that says what happened.
        log: returns the log records of a failure; None for none.
    """
    need = Need(instances=((task, number),))

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy, head=False)
        found = yield need
        instance = found.instances[0] if found.instances else None
        if instance is None or not _is_run_by(instance, label):
            return work.refuse("no worker runs it because of this message")
        if _lacks_manager(work, task):
            return work.refuse(NO_MANAGER)
        work.save_whole(instance)
        remark = f"worker lost: {instance.owner}"
        return (yield from _crashed(work, instance, remark, lost, log, charged=True))

    return Decision("lose", begin, exclusive=False, prefetch=need)


def abort(
    policy: Policy | PolicyOf,
    task: str,
    number: int,
    label: str,
    error: str,
    *,
    log: FailureLog | None = None,
) -> Decision:
    """Fail the instance that a message was sent for, because its runner cannot run it.

    A running instance fails if its claim has the label of the message; its worker loses the claim. A
    scheduled instance fails as if the message had led to a claim. Any other instance stays as it is.

    Args:
        policy: the manager's policy.
        task: the instance's task.
        number: the instance's number.
        label: the label of the message. A claim that it led to is :func:`labelled <labelled>` with it.
        error: the encoded error.
        log: returns the log records of the failure; None for none.
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
        if _lacks_manager(work, task):
            return work.refuse(NO_MANAGER)
        owner = labelled("nobody", label) if waits else instance.owner
        work.save_whole(instance)
        instance.fence += 1
        if waits:
            instance.attempt += 1
            work.transition(instance, Status.RUNNING, f"claimed by {owner}")
        return (yield from _fail(work, instance, f"taken from {owner}", error, log))

    return Decision("abort", begin, exclusive=False, prefetch=need)


def alone(owner: str) -> str:
    """Return the name of a claim whose process runs nothing else."""
    name, at, label = owner.partition("@")
    return f"{name}{_ALONE}{at}{label}"


def is_alone(owner: str) -> bool:
    """Return whether the process of the claim with this name runs nothing else."""
    return owner.partition("@")[0].endswith(_ALONE)


def labelled(owner: str, label: str) -> str:
    """Return the name of a claim that the message with this label led to."""
    return f"{owner}@{label}" if label else owner


def is_labelled(owner: str, label: str) -> bool:
    """Return whether the message with this label led to the claim with this name."""
    return bool(label) and owner.endswith(f"@{label}")


def _is_run_by(instance: Instance, label: str) -> bool:
    return instance.status is Status.RUNNING and is_labelled(instance.owner, label)


def _postpone(work: UnitOfWork, instance: Instance) -> Changes:
    """Leave an expired instance to a process that has its manager. The pause grows each time."""
    pause = POSTPONE_BACKOFF[min(instance.handovers, len(POSTPONE_BACKOFF) - 1)]
    instance.handovers += 1
    instance.lease_until = instance.dispatch_after = work.session.now + pause
    return work.refuse(NO_MANAGER)


def _is_heard(work: UnitOfWork, task: str) -> bool:
    """Return whether a rule names an outcome of a failed instance of the task."""
    return not work.session.rules.outcomes.isdisjoint(outcomes_of(task, Status.FAILED))


def _lacks_manager(work: UnitOfWork, task: str) -> bool:
    """Return whether a failure would fire an outcome and this process lacks the session's manager."""
    return not work.knows_manager and _is_heard(work, task)


def _fail(
    work: UnitOfWork, instance: Instance, remark: str, error: str, log: FailureLog | None
) -> Generator[Need, Slice, Changes]:
    """Fail a running instance after its fence has grown, with the records of the failure.

    Raises:
        NeedsSession: a rule names an outcome of the failure, and other decisions may be running.
    """
    if _is_heard(work, instance.task):
        if not work.session.exclusive:
            raise NeedsSession
        work.look_at_timers()
        work.absorb((yield need_of_end(work.session.rules, instance.task, instance.number, Status.FAILED)))
    instance.error = error
    if log is not None:
        records = log(work.session, instance)
        report = AttemptReport(instance.task, instance.number, instance.fence, instance.attempt, records)
        work.log(instance, report)
    work.transition(instance, Status.FAILED, remark)
    yield from settle(work)
    return work.done()


def _crashed(
    work: UnitOfWork,
    instance: Instance,
    remark: str,
    lost: Callable[[str], str],
    log: FailureLog | None,
    *,
    charged: bool,
) -> Generator[Need, Slice, Changes]:
    """Count a crash: schedule the instance again after a pause, or fail it. The caller has it stored."""
    owner, instance.crashes = instance.owner, instance.crashes + 1
    instance.fence += 1
    if not charged:
        instance.crash_budget += SPARED
    if not instance.budget or (charged and instance.charged >= instance.budget):
        work.reasons["lost"] = True
        error = lost(f"lost {instance.crashes} times, the last time by {owner}")
        return (yield from _fail(work, instance, remark, error, log))
    work.transition(instance, Status.SCHEDULED, remark)
    pause = CRASH_BACKOFF[min(instance.crashes, len(CRASH_BACKOFF)) - 1]
    instance.run_at = instance.dispatch_after = work.session.now + pause
    return work.done()
