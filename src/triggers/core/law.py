"""The law: what one firing, one end of a run, one decision of a person changes in a session.

Each function here is a *decision*: a generator that is given the head of a session, yields what it
:class:`needs <triggers.core.state.Need>` to see and returns the
:class:`changes <triggers.core.state.Changes>`. It does no input or output, so a storage can run it
inside its transaction, a second time after a conflict, and a test without any storage at all.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from triggers.core.names import instance_name
from triggers.core.state import Changes, Counter, Firing, Guard, Instance, Latest, Need, Record, Session, Slice
from triggers.core.status import RESOLVED, Status, check_move
from triggers.core.values import DEFAULT_LIMITS, Limits, decode, encode
from triggers.exceptions import (
    IdempotencyConflictError,
    InvalidStatusError,
    ManagerMismatchError,
    UnknownInstanceError,
    UnknownSessionError,
    UnknownTaskError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Mapping

    from triggers.core.records import LogBatch
    from triggers.core.rules import Rule, RuleSet
    from triggers.core.state import Decision

SECOND = 1_000_000

#: Pause before an instance runs again after its first, second and every further crash, in microseconds.
CRASH_BACKOFF = (1 * SECOND, 10 * SECOND, 60 * SECOND)

#: Pauses before an instance is offered again that a worker without its task gave back, in microseconds.
GIVE_BACK_BACKOFF = tuple(min(2**step, 900) * SECOND for step in range(11))


@dataclass(frozen=True, slots=True)
class Finalizing:
    """How a session ends.

    Attributes:
        trigger: fired once, when every task but those that wait for it is resolved.
        max_level: hold it back while a finished instance has unresolved records at or above this level;
            None never does.
    """

    trigger: str
    max_level: int | None = None


@dataclass(frozen=True, slots=True)
class Policy:
    """What a manager lays down for the sessions that are its own.

    Attributes:
        manager: its name.
        grace: how long a hand-over has until the sweep repeats it, in microseconds.
        finalizing: how a session ends, or None if it never does.
        threshold: records from this level on ask for a review.
        limits: sizes of what is accepted.
    """

    manager: str = "default"
    grace: int = 30 * SECOND
    finalizing: Finalizing | None = None
    threshold: int = 30
    limits: Limits = DEFAULT_LIMITS


@dataclass(frozen=True, slots=True)
class Terms:
    """On what terms a worker claims an instance.

    Attributes:
        lease: how long the claim lasts without a heartbeat, in microseconds.
        crash_budget: at so many crashes the instance is failed.
    """

    lease: int
    crash_budget: int = 3


@dataclass(frozen=True, slots=True)
class RetryTerms:
    """A task's wish to run again.

    Attributes:
        cooldown: how long to wait, in microseconds.
        limit: how many retries in a row it is allowed.
        exhausted: the error, if this is one too many.
        kwargs: payload in place of the present kwargs, or None.
    """

    cooldown: int
    limit: int
    exhausted: str
    kwargs: str | None = None


@dataclass(frozen=True, slots=True)
class Attempt:
    """A running attempt that wants to write: which, with which fence, and what it said.

    Attributes:
        task: the instance's task.
        number: the instance's number.
        fence: the fence that its claim got.
        attempt: how often the instance had been claimed by then.
        logs: the records that ride in the same commit.
        metadata: added to the instance's metadata.
    """

    task: str
    number: int
    fence: int
    attempt: int = 1
    logs: LogBatch | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


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
    work = _Work(session, policy)
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

    Args:
        session: the head of the session.
        policy: the manager's.
        rules: all that it has from now on.
        catch_up: apply the recorded firings, in their order, to the tasks that are new.
    """
    work = _Work(session, policy)
    before, session.rules = session.rules, rules
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
    return work.done()


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
    work = _Work(session, policy)
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
    work = _Work(session, policy)
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
    work = _Work(session, policy)
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
    work = _Work(session, policy)
    instance = yield from work.one(task, number)
    work.keep(instance)
    work.describe(instance, metadata)
    return work.done()


def add_session_metadata(session: Session, policy: Policy, metadata: Mapping[str, Any]) -> Decision:
    """Keys are added to the metadata of the session; a key that is there gets the new value."""
    work = _Work(session, policy)
    yield Need()
    session.metadata = encode(decode(session.metadata) | dict(metadata), "metadata", policy.limits)
    return work.done()


def resolve_logs(
    session: Session,
    policy: Policy,
    task: str,
    number: int,
    audit: Mapping[str, Any],
    through: int | None = None,
) -> Decision:
    """A person has reviewed the records of an instance.

    Args:
        session: the head of the session.
        policy: the manager's.
        task: the instance's task.
        number: the instance's number.
        audit: who and why; kept with the time.
        through: number of the last record that was reviewed, None for all that there are.
    """
    work = _Work(session, policy)
    instance = yield from work.one(task, number)
    work.keep(instance)
    through = instance.log_count if through is None else min(through, instance.log_count)
    instance.log_resolved = max(instance.log_resolved, through)
    level = instance.log_unresolved
    instance.log_unresolved = 0
    if instance.log_resolved < instance.log_count:
        found = yield Need(instances=((task, number),), levels=(instance.log_resolved, policy.threshold))
        instance.log_unresolved = found.level
    entry = {**audit, "at": session.now, "through": through, "level": level}
    instance.log_audit = encode([*decode(instance.log_audit), entry], "the audit", policy.limits)
    work.something_resolved = True
    yield from work.finalize()
    return work.done()


# -- the worker -----------------------------------------------------------------------------------------


def claim(
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
    work = _Work(session, policy, head=False)
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
    work = _Work(session, policy)
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
    work = _Work(session, policy)
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
    work = _Work(session, policy)
    instance = yield from work.one(attempt.task, attempt.number)
    if not work.is_held(instance, attempt):
        return work.refuse_late(instance, attempt)
    work.end(instance, Status.SKIPPED, attempt)
    yield from work.finalize()
    return work.done()


def release(session: Session, policy: Policy, attempt: Attempt) -> Decision:
    """A worker that stops lets an attempt go: due at once, no crash counted."""
    work = _Work(session, policy, head=False)
    instance = yield from work.one(attempt.task, attempt.number)
    if not work.is_held(instance, attempt):
        return work.refuse_late(instance, attempt)
    work.end(instance, Status.SCHEDULED, attempt, "let go by its worker")
    instance.fence += 1
    instance.run_at = instance.dispatch_after = session.now
    return work.done()


def keep_logs(session: Session, policy: Policy, attempt: Attempt) -> Decision:
    """An attempt has said something; the records of a ghost are kept, too, marked late."""
    work = _Work(session, policy, head=False)
    instance = yield from work.one(attempt.task, attempt.number)
    work.keep(instance)
    work.log(instance, attempt)
    return work.done()


def recover(
    session: Session, policy: Policy, task: str, number: int, fence: int, lost: Callable[[str], str]
) -> Decision:
    """A lease ran out: the instance is scheduled again after a pause, or failed once its crash budget is spent.

    Args:
        session: the head of the session.
        policy: the manager's.
        task: the instance's task.
        number: the instance's number.
        fence: the fence with which it was seen; with another one it is left alone.
        lost: gives the payload of the error from a sentence that says what happened.
    """
    work = _Work(session, policy, head=False)
    instance = yield from work.one(task, number)
    lease = instance.lease_until
    if (
        instance.status is not Status.RUNNING
        or instance.fence != fence
        or lease is None
        or lease >= session.now
    ):
        return work.refuse("it no longer is as it was seen")
    owner, instance.crashes = instance.owner, instance.crashes + 1
    work.keep(instance, lease)
    instance.fence += 1
    if instance.crashes >= instance.crash_budget:
        work.move(instance, Status.FAILED, f"lease lost by {owner}")
        instance.error = lost(f"lost {instance.crashes} times, the last time by {owner}")
    else:
        work.move(instance, Status.SCHEDULED, f"lease lost by {owner}")
        pause = CRASH_BACKOFF[min(instance.crashes, len(CRASH_BACKOFF)) - 1]
        instance.run_at = instance.dispatch_after = session.now + pause
    return work.done()


# -- how it is done -------------------------------------------------------------------------------------


def _must_be_failed(instance: Instance, what: str) -> None:
    if instance.status is not Status.FAILED:
        message = f"{instance.name} is {instance.status}: only a failed instance can be {what}"
        raise InvalidStatusError(message)


def _repeat(work: _Work, earlier: Firing, firing: Firing) -> Changes:
    if earlier.fingerprint != firing.fingerprint:
        message = (
            f"key {firing.key!r} of trigger {firing.trigger!r} in session {work.session.uid!r} was used for firing "
            f"{earlier.number}, with other kwargs; nothing was changed: use another key for another firing"
        )
        raise IdempotencyConflictError(message)
    work.changes.head = False
    work.changes.keyed = earlier
    return work.changes


class _Work:
    """One decision in the making: what is known so far, and what it changes."""

    __slots__ = (
        "before",
        "changes",
        "counters",
        "exempt",
        "instances",
        "latest",
        "policy",
        "session",
        "something_resolved",
    )

    def __init__(self, session: Session, policy: Policy, *, head: bool = True) -> None:
        if session.manager and session.manager != policy.manager:
            message = (
                f"session {session.uid!r} belongs to manager {session.manager!r}, and this is {policy.manager!r}: "
                f"use that one to change it"
            )
            raise ManagerMismatchError(message)
        if session.ref is None:
            session.manager = policy.manager
            session.created_at = session.now
        session.modified_at = session.now
        self.session = session
        self.policy = policy
        self.changes = Changes(session, head=head)
        self.counters: dict[str, Counter] = {}
        self.instances: dict[tuple[str, int], Instance] = {}
        self.latest: dict[str, Latest] = {}
        self.before: dict[tuple[str, int], frozenset[str]] = {}
        self.exempt = frozenset[str]()
        if policy.finalizing is not None:
            self.exempt = session.rules.waiting_for(policy.finalizing.trigger)
        self.something_resolved = False

    # what it must know

    def need(
        self, trigger: str, key: tuple[str, str] | None = None, instances: tuple[tuple[str, int], ...] = ()
    ) -> Need:
        """All that a firing of the trigger can touch."""
        reach = self.session.rules.reach(trigger)
        tasks = reach.tasks.union(task for task, _ in instances) if instances else reach.tasks
        waiting = (trigger,) if reach.rules else ()
        return Need(key=key, tasks=tasks, waiting=waiting, latest=reach.others, instances=instances)

    def one(self, task: str, number: int, cascade: bool = False) -> Generator[Need, Slice, Instance]:  # noqa: FBT001, FBT002
        """Ask for one instance, and with `cascade` for all that the firing of its task's name can touch."""
        if self.session.ref is None:
            message = f"there is no session {self.session.uid!r}"
            raise UnknownSessionError(message)
        wanted = ((task, number),)
        self.learn(
            (
                yield self.need(task, instances=wanted)
                if cascade
                else Need(tasks=frozenset({task}), instances=wanted)
            )
        )
        try:
            return self.instances[task, number]
        except KeyError:
            message = f"session {self.session.uid!r} has no instance {instance_name(task, number)}"
            raise UnknownInstanceError(message) from None

    def learn(self, found: Slice) -> None:
        """Add what a storage found; what was changed here already stays as it is."""
        for instance in found.instances:
            self.instances.setdefault((instance.task, instance.number), instance)
        for task, counter in found.counters.items():
            self.counters.setdefault(task, counter)
        for name, latest in found.latest.items():
            self.latest.setdefault(name, latest)

    def counter(self, task: str) -> Counter:
        """The task's counter, zero where it has no instance yet."""
        return self.counters.setdefault(task, Counter())

    # firing

    def fire(self, firing: Firing) -> int:
        """Record the firing and pass it on to every task that names it; returns its number."""
        session = self.session
        session.firings += 1
        recorded = Firing(
            session.firings,
            firing.trigger,
            firing.kwargs,
            session.now,
            firing.depth,
            firing.source,
            firing.key,
            firing.fingerprint,
        )
        self.changes.fired.append(recorded)
        self.changes.released.append([])
        self.pass_on(recorded, session.rules.reach(firing.trigger).rules)
        return session.firings

    def pass_on(self, firing: Firing, rules: Iterable[Rule]) -> None:
        """Give the firing to the instances that lack it, and make the new one that it may call for."""
        trigger = firing.trigger
        self.latest[trigger] = Latest(firing.number, firing.depth)
        waiting: dict[str, list[Instance]] = {}
        for instance in self.instances.values():
            if instance.status is Status.UNSTARTED:
                waiting.setdefault(instance.task, []).append(instance)
        for rule in rules:
            took = False
            for instance in waiting.get(rule.task, ()):
                took = self.give(instance, rule, trigger) or took
            counter = self.counter(rule.task)
            if counter.created == 0 or (not took and rule.and_every == trigger):
                self.create(rule, counter.created)

    def give(self, instance: Instance, rule: Rule, trigger: str) -> bool:
        """Let an unstarted instance that lacks the trigger take its latest firing; says whether the kwargs went to it."""
        lacks = rule.lacks(instance.taken, instance.vetoes)
        if trigger not in lacks:
            return False
        self.touch(instance, lacks)
        took = trigger in rule.after.names and trigger not in instance.taken
        self.take(instance, rule, trigger)
        self.decide(instance, rule)
        return took

    def take(self, instance: Instance, rule: Rule, trigger: str) -> None:
        latest = self.latest[trigger]
        if trigger in rule.after.names:
            instance.taken.setdefault(trigger, latest.number)
            instance.cascade_depth = max(instance.cascade_depth, latest.depth)
        if rule.unless and trigger in rule.unless.names and trigger not in instance.vetoes:
            instance.vetoes += (trigger,)

    def create(self, rule: Rule, number: int) -> None:
        """Make the instance of that number, with the latest firing of each trigger that has fired."""
        now = self.session.now
        instance = Instance(rule.task, number, Status.UNSTARTED, now, now, root=number)
        instance.note(now, Status.UNSTARTED)
        self.add(instance)
        for trigger in sorted(rule.named & self.latest.keys()):
            self.take(instance, rule, trigger)
        self.decide(instance, rule)

    def decide(self, instance: Instance, rule: Rule) -> None:
        """Abandon an unstarted instance, or schedule it, if it is time; abandon wins."""
        if rule.unless and rule.unless.is_met(instance.vetoes):
            self.become(instance, Status.ABANDONED)
        elif rule.after.is_met(instance.taken):
            instance.run_at = self.session.now
            instance.dispatch_after = self.session.now + self.policy.grace
            self.become(instance, Status.SCHEDULED)
            if self.changes.released:
                self.changes.released[-1].append(instance)

    # instances

    def add(self, instance: Instance) -> None:
        self.instances[instance.task, instance.number] = instance
        self.changes.created.append(instance)
        self.count(instance.task, created=1, unresolved=1)

    def touch(self, instance: Instance, lacks: Iterable[str]) -> None:
        """Remember what a stored unstarted instance lacked before this decision."""
        where = (instance.task, instance.number)
        if instance.ref is not None and where not in self.before:
            self.before[where] = frozenset(lacks)
            self.changes.taken.append(instance)
        instance.modified_at = self.session.now

    def become(self, instance: Instance, status: Status, remark: str = "") -> None:
        """Change a status, whoever stores it; the caller has checked the move."""
        if status in RESOLVED:
            self.something_resolved = True
            self.count(instance.task, unresolved=-1)
        instance.status = status
        instance.modified_at = self.session.now
        instance.note(self.session.now, status, remark)

    def keep(self, instance: Instance, lease: int | None = None) -> None:
        """Have the whole instance stored, if it still is as it was loaded."""
        if all(kept is not instance for kept, _ in self.changes.moved):
            self.changes.moved.append((instance, Guard(instance.status, instance.fence, lease)))
        instance.modified_at = self.session.now

    def move(self, instance: Instance, status: Status, remark: str = "") -> None:
        """Make one move of the table; leaving running takes the claim away."""
        check_move(instance.name, instance.status, status)
        self.keep(instance)
        if instance.status is Status.UNSTARTED:
            rule = self.session.rules.rules.get(instance.task)
            lacks = rule.lacks(instance.taken, instance.vetoes) if rule else ()
            self.before[instance.task, instance.number] = frozenset(lacks)
        if instance.status is Status.RUNNING:
            instance.lease_until = None
            instance.owner = ""
        self.become(instance, status, remark)

    def end(self, instance: Instance, status: Status, attempt: Attempt, remark: str = "") -> None:
        """The attempt that holds the instance ends it."""
        self.log(instance, attempt)
        if attempt.metadata:
            self.describe(instance, attempt.metadata)
        self.move(instance, status, remark)

    def successor(self, failed: Instance, kwargs: str | None, *, run_at: int, retries: int) -> None:
        """Make the instance that replays a failed one."""
        now = self.session.now
        number = self.counter(failed.task).created
        instance = Instance(
            failed.task,
            number,
            Status.SCHEDULED,
            now,
            now,
            run_at=run_at,
            dispatch_after=run_at if run_at > now else run_at + self.policy.grace,
            parent=failed.number,
            root=failed.root if kwargs is None else number,
            depth=failed.depth + 1,
            retries=retries,
            cascade_depth=failed.cascade_depth,
            taken=dict(failed.taken),
            vetoes=failed.vetoes,
            kwargs=failed.kwargs if kwargs is None else kwargs,
        )
        instance.note(now, Status.SCHEDULED, f"replays {failed.name}")
        self.add(instance)

    def cascade(self, instance: Instance, result: str) -> None:
        """Fire the task's name with the result."""
        depth = instance.cascade_depth + 1
        instance.result = self.fire(Firing(0, instance.task, result, 0, depth, instance.name))

    def describe(self, instance: Instance, metadata: Mapping[str, Any]) -> None:
        merged = decode(instance.metadata) | dict(metadata)
        instance.metadata = encode(merged, "metadata", self.policy.limits)

    def reconsider(self, instance: Instance, before: RuleSet) -> None:
        """Decide an unstarted instance by the rules as they are now."""
        old, new = before.rules.get(instance.task), self.session.rules.rules.get(instance.task)
        self.touch(instance, old.lacks(instance.taken, instance.vetoes) if old else ())
        if new is not None:
            self.decide(instance, new)

    # claims

    def take_up(self, instance: Instance, owner: str, terms: Terms) -> None:
        self.move(instance, Status.RUNNING, f"claimed by {owner}")
        instance.fence += 1
        instance.attempt += 1
        instance.owner = owner
        instance.lease_until = self.session.now + terms.lease
        instance.crash_budget = terms.crash_budget
        self.changes.claimed = instance

    def give_back(self, instance: Instance) -> None:
        self.keep(instance)
        pause = GIVE_BACK_BACKOFF[min(instance.given_back, len(GIVE_BACK_BACKOFF) - 1)]
        instance.given_back += 1
        instance.run_at = instance.dispatch_after = self.session.now + pause
        if instance.given_back == 1:
            instance.note(self.session.now, instance.status, "given back by a worker that lacks the task")

    def is_held(self, instance: Instance, attempt: Attempt) -> bool:
        """Whether the attempt still holds the instance."""
        return instance.status is Status.RUNNING and instance.fence == attempt.fence

    def refuse(self, why: str) -> Changes:
        self.changes.refused = why
        return self.changes

    def refuse_late(self, instance: Instance, attempt: Attempt) -> Changes:
        """Record that a ghost wanted to end an instance that it no longer holds, and keep its records."""
        self.keep(instance)
        instance.note(self.session.now, instance.status, f"refused a late end with fence {attempt.fence}")
        self.log(instance, attempt)
        self.changes.head = False
        return self.refuse(
            f"fence {attempt.fence} is old: {instance.name} is {instance.status} with fence {instance.fence}"
        )

    # records

    def log(self, instance: Instance, attempt: Attempt) -> None:
        """Number and count the records of an attempt, and raise the levels of its instance."""
        batch = attempt.logs
        if batch is None:
            return
        late = not self.is_held(instance, attempt)
        for entry in batch.entries:
            instance.log_count += 1
            kept = replace(entry, late=True) if late else entry
            self.changes.logs.append(Record(instance, instance.log_count, attempt.fence, attempt.attempt, kept))
        for level, count in batch.counts.items():
            instance.log_counts[level] = instance.log_counts.get(level, 0) + count
        instance.log_dropped += batch.dropped
        level = max(batch.counts, default=0)
        instance.log_level = max(instance.log_level, level)
        if level >= self.policy.threshold:
            instance.log_unresolved = max(instance.log_unresolved, level)

    # counting and finalising

    def count(self, task: str, created: int = 0, unresolved: int = 0) -> None:
        """Change a task's counter, and with it how many tasks are still pending."""
        counter = self.counter(task)
        was = counter.is_resolved
        counter.created += created
        counter.unresolved += unresolved
        self.changes.counters[task] = counter
        if task in self.session.rules.rules and task not in self.exempt:
            self.session.pending += was - counter.is_resolved

    def count_pending(self) -> None:
        """Count anew, after the rules have changed, how many tasks are pending."""
        if self.policy.finalizing is not None:
            self.exempt = self.session.rules.waiting_for(self.policy.finalizing.trigger)
        counted = self.session.rules.rules.keys() - self.exempt
        self.session.pending = sum(not self.counter(task).is_resolved for task in counted)

    def finalize(self) -> Generator[Need, Slice, None]:
        """Fire the finalising trigger if this decision has completed the session."""
        end, session = self.policy.finalizing, self.session
        if end is None or not self.something_resolved or session.pending or session.finalized is not None:
            return
        if not session.rules.rules.keys() - self.exempt:
            return
        if end.max_level is not None and (yield from self.is_flagged(end.max_level)):
            return
        self.learn((yield self.need(end.trigger)))
        session.finalized = self.fire(Firing(0, end.trigger, "{}", 0))

    def is_flagged(self, level: int) -> Generator[Need, Slice, bool]:
        """Whether a finished instance has unresolved records at or above the level."""
        level = max(level, 1)
        own = [instance for instance, _ in self.changes.moved]
        if any(instance.status is Status.FINISHED and instance.log_unresolved >= level for instance in own):
            return True
        found = yield Need(flagged=level, flagged_limit=len(own) + 1)
        known = {(instance.task, instance.number) for instance in own}
        return any(flagged not in known for flagged in found.flagged)

    def done(self) -> Changes:
        """The changes, with the index of what lacks what brought up to date."""
        rules = self.session.rules.rules
        for instance in self.changes.created:
            if instance.status is Status.UNSTARTED:
                lacks = rules[instance.task].lacks(instance.taken, instance.vetoes)
                self.changes.lacks.append((instance, frozenset(lacks)))
        for where, before in self.before.items():
            instance = self.instances[where]
            rule = rules.get(instance.task)
            waits = instance.status is Status.UNSTARTED and rule is not None
            after = (
                frozenset(rule.lacks(instance.taken, instance.vetoes)) if waits and rule else frozenset[str]()
            )
            if before - after:
                self.changes.gained.append((instance, before - after))
            if after - before:
                self.changes.lacks.append((instance, after - before))
        return self.changes
