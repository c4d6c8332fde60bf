"""How a decision is made: what is known so far, what it changes, and the steps that decisions share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from triggers.core.exchange import Changes, Guard, Need, Record, Slice
from triggers.core.names import instance_name
from triggers.core.state import Counter, Firing, Instance, Latest, Session
from triggers.core.status import RESOLVED, Status, check_move
from triggers.core.terms import AttemptReport, Policy, PolicyOf
from triggers.core.values import decode, encode
from triggers.exceptions import ManagerMismatchError, UnknownInstanceError, UnknownSessionError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

    from triggers.core.rules import Rule, RuleSet

NOTHING: frozenset[str] = frozenset()


def need_for(
    rules: RuleSet,
    trigger: str,
    key: tuple[str, str] | None = None,
    instances: tuple[tuple[str, int], ...] = (),
) -> Need:
    """All that a firing of the trigger can touch, with these instances and the firing of that key."""
    reach = rules.reach(trigger)
    tasks = reach.tasks.union(task for task, _ in instances) if instances else reach.tasks
    waiting = (trigger,) if reach.rules else ()
    return Need(key=key, tasks=tasks, waiting=waiting, latest=reach.others, instances=instances)


def need_of_instance(task: str, number: int) -> Need:
    """One instance, and its task's counter."""
    return Need(tasks=frozenset({task}), instances=((task, number),))


def need_of_end(rules: RuleSet, task: str, number: int) -> Need:
    """One instance, and all that the firing of its task's name can touch."""
    return need_for(rules, task, instances=((task, number),))


class UnitOfWork:
    """One run of a decision in the making: what is known so far, and what it changes.

    Args:
        session: the head of the session.
        policy: its manager's, or how to find that; where this process lacks the manager, the default one.
        head: whether the session's head is to be stored.

    Raises:
        ManagerMismatchError: the session belongs to another manager than the policy.
    """

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

    def __init__(self, session: Session, policy: Policy | PolicyOf, *, head: bool = True) -> None:
        if not isinstance(policy, Policy):
            policy = policy(session.manager) or Policy(session.manager)
        if session.manager and session.manager != policy.manager:
            message = (
                f"session {session.uid!r} belongs to manager {session.manager!r}, and this is "
                f"{policy.manager!r}: use that one to change it"
            )
            raise ManagerMismatchError(message)
        if session.ref is None:
            session.manager = policy.manager
            session.created_at = session.now
        session.modified_at = session.now
        self.session = session
        self.policy = policy
        self.changes = Changes(session, writes_head=head)
        self.counters: dict[str, Counter] = {}
        self.instances: dict[tuple[str, int], Instance] = {}
        self.latest: dict[str, Latest] = {}
        self.before: dict[tuple[str, int], frozenset[str]] = {}
        self.exempt = NOTHING
        if policy.finalizing is not None:
            self.exempt = session.rules.waiting_for(policy.finalizing.trigger)
        self.something_resolved = False

    # what it must know

    def need_for(
        self, trigger: str, key: tuple[str, str] | None = None, instances: tuple[tuple[str, int], ...] = ()
    ) -> Need:
        """All that a firing of the trigger can touch."""
        return need_for(self.session.rules, trigger, key, instances)

    def load_instance(
        self, task: str, number: int, *, cascade: bool = False
    ) -> Generator[Need, Slice, Instance]:
        """Ask for one instance, and with `cascade` for all that the firing of its task's name can touch."""
        if self.session.ref is None:
            message = f"there is no session {self.session.uid!r}"
            raise UnknownSessionError(message)
        rules = self.session.rules
        self.absorb((yield need_of_end(rules, task, number) if cascade else need_of_instance(task, number)))
        try:
            return self.instances[task, number]
        except KeyError:
            message = f"session {self.session.uid!r} has no instance {instance_name(task, number)}"
            raise UnknownInstanceError(message) from None

    def absorb(self, found: Slice) -> None:
        """Add what a storage found; what was changed here already stays as it is."""
        for instance in found.instances:
            self.instances.setdefault((instance.task, instance.number), instance)
        for task, counter in found.counters.items():
            self.counters.setdefault(task, counter)
        for name, latest in found.latest.items():
            self.latest.setdefault(name, latest)

    def counter(self, task: str) -> Counter:
        """The task's counter, zero where it has no instance yet."""
        counter = self.counters.get(task)
        if counter is None:
            counter = self.counters[task] = Counter()
        return counter

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
        self.changes.scheduled_by.append([])
        self.deliver(recorded, session.rules.reach(firing.trigger).rules)
        return session.firings

    def deliver(self, firing: Firing, rules: Iterable[Rule]) -> None:
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
                took = self.offer(instance, rule, trigger) or took
            counter = self.counter(rule.task)
            if counter.created == 0 or (not took and rule.and_every == trigger):
                self.create(rule, counter.created)

    def offer(self, instance: Instance, rule: Rule, trigger: str) -> bool:
        """Let an unstarted instance take the trigger, if it lacks it; returns whether it got the kwargs."""
        lacks = rule.lacks(instance.taken, instance.vetoes)
        if trigger not in lacks:
            return False
        self.save_triggers(instance, lacks)
        took = trigger in rule.after.names and trigger not in instance.taken
        self.record_trigger(instance, rule, trigger)
        self.decide(instance, rule)
        return took

    def record_trigger(self, instance: Instance, rule: Rule, trigger: str) -> None:
        """Add the trigger's latest firing to what an instance took, or saw as a veto, or both."""
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
            self.record_trigger(instance, rule, trigger)
        self.decide(instance, rule)

    def decide(self, instance: Instance, rule: Rule) -> None:
        """Abandon an unstarted instance, or schedule it, if it is time; abandon wins."""
        if rule.unless and rule.unless.is_met(instance.vetoes):
            self.set_status(instance, Status.ABANDONED)
        elif rule.after.is_met(instance.taken):
            instance.run_at = self.session.now
            instance.dispatch_after = self.session.now + self.policy.grace
            self.set_status(instance, Status.SCHEDULED)
            if self.changes.scheduled_by:
                self.changes.scheduled_by[-1].append(instance)

    # instances

    def add(self, instance: Instance) -> None:
        """Add a new instance."""
        self.instances[instance.task, instance.number] = instance
        self.changes.created.append(instance)
        self.count(instance.task, created=1, unresolved=1)

    def save_triggers(self, instance: Instance, lacks: Iterable[str]) -> None:
        """Remember what a stored unstarted instance lacked before this decision."""
        where = (instance.task, instance.number)
        if instance.ref is not None and where not in self.before:
            self.before[where] = frozenset(lacks)
            self.changes.triggered.append(instance)
        instance.modified_at = self.session.now

    def set_status(self, instance: Instance, status: Status, remark: str = "") -> None:
        """Change a status, whoever stores it; the caller has checked the move."""
        if status in RESOLVED:
            self.something_resolved = True
            self.count(instance.task, unresolved=-1)
        instance.status = status
        instance.modified_at = self.session.now
        instance.note(self.session.now, status, remark)

    def save_whole(self, instance: Instance, lease: int | None = None) -> None:
        """Have the whole instance stored, if it still is as it was loaded."""
        if all(kept is not instance for kept, _ in self.changes.transitioned):
            self.changes.transitioned.append((instance, Guard(instance.status, instance.fence, lease)))
        instance.modified_at = self.session.now

    def transition(self, instance: Instance, status: Status, remark: str = "") -> None:
        """Make one move of the table; leaving running takes the claim away."""
        check_move(instance.name, instance.status, status)
        self.save_whole(instance)
        if instance.status is Status.UNSTARTED:
            rule = self.session.rules.rules.get(instance.task)
            lacks = rule.lacks(instance.taken, instance.vetoes) if rule else ()
            self.before[instance.task, instance.number] = frozenset(lacks)
        if instance.status is Status.RUNNING:
            instance.lease_until = None
            instance.owner = ""
        self.set_status(instance, status, remark)

    def end(self, instance: Instance, status: Status, attempt: AttemptReport, remark: str = "") -> None:
        """The attempt that holds the instance ends it."""
        self.log(instance, attempt)
        if attempt.metadata:
            self.describe(instance, attempt.metadata)
        self.transition(instance, status, remark)

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
        """Add keys to the metadata of an instance."""
        merged = decode(instance.metadata) | dict(metadata)
        instance.metadata = encode(merged, "metadata", self.policy.limits)

    # claims

    def is_held(self, instance: Instance, attempt: AttemptReport) -> bool:
        """Whether the attempt still holds the instance."""
        return instance.status is Status.RUNNING and instance.fence == attempt.fence

    def refuse(self, why: str) -> Changes:
        """Decide nothing, and say why."""
        self.changes.refused = why
        return self.changes

    # records

    def log(self, instance: Instance, attempt: AttemptReport) -> None:
        """Number and count the records of an attempt, and raise the levels of its instance."""
        batch = attempt.logs
        if batch is None:
            return
        late = not self.is_held(instance, attempt)
        for entry in batch.entries:
            instance.log_count += 1
            kept = replace(entry, late=True) if late else entry
            self.changes.logs.append(
                Record(instance, instance.log_count, attempt.fence, attempt.attempt, kept)
            )
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
        self.absorb((yield self.need_for(end.trigger)))
        session.finalized = self.fire(Firing(0, end.trigger, "{}", 0))

    def is_flagged(self, level: int) -> Generator[Need, Slice, bool]:
        """Whether a finished instance has unresolved records at or above the level."""
        level = max(level, 1)
        own = [instance for instance, _ in self.changes.transitioned]
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
            after = frozenset(rule.lacks(instance.taken, instance.vetoes)) if waits and rule else NOTHING
            if before - after:
                self.changes.gained.append((instance, before - after))
            if after - before:
                self.changes.lacks.append((instance, after - before))
        return self.changes
