"""The unit of work: what a decision knows so far, what it changes, and the steps that decisions share."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from triggers.core.decisions.needs import need_for, need_of_end, need_of_instance
from triggers.core.exchange import Changes, Guard, Need, Record, Slice, TimersDue
from triggers.core.names import instance_name
from triggers.core.outcomes import OF_STATUS
from triggers.core.state import Counter, Firing, Instance, Latest, Session, is_done, keeps_open
from triggers.core.status import RESOLVED, Status, check_move
from triggers.core.terms import AttemptReport, Policy, PolicyOf
from triggers.core.timers import DEADLINE, DELAY, Timer, timer_of
from triggers.core.values import decode, encode
from triggers.exceptions import ManagerMismatchError, UnknownInstanceError, UnknownSessionError

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable, Mapping

    from triggers.core.rules import Rule
    from triggers.core.timing import Delay

NOTHING: frozenset[str] = frozenset()


class End(NamedTuple):
    """The end of an instance in this decision.

    Attributes:
        instance: the instance.
        status: the status with which it ended.
        is_first: whether it had not ended before. A failed instance ends again when it is skipped.
        led_by: the depth of the firing that ended it, 0 if none did.
    """

    instance: Instance
    status: Status
    is_first: bool
    led_by: int


class UnitOfWork:
    """One run of a decision: what it knows so far, and what it changes.

    Args:
        session: the head of the session.
        policy: the manager's policy, or a function that returns it for the manager's name. If that returns
            None, the default policy applies.
        head: whether the head of the session is stored.

    Raises:
        ManagerMismatchError: the session belongs to a manager other than the policy's.
    """

    __slots__ = (
        "at",
        "before",
        "by_task",
        "changes",
        "counters",
        "ends",
        "exempt",
        "instances",
        "knows_manager",
        "latest",
        "led_by",
        "policy",
        "reasons",
        "session",
        "something_resolved",
    )

    def __init__(self, session: Session, policy: Policy | PolicyOf, *, head: bool = True) -> None:
        found = policy if isinstance(policy, Policy) else policy(session.manager)
        self.knows_manager = found is not None
        policy = found or Policy(session.manager)
        if session.manager and session.manager != policy.manager:
            message = (
                f"session {session.uid!r} belongs to manager {session.manager!r}, and this is "
                f"{policy.manager!r}: only the former can change it; "
                "give it to Triggers, as manager= or managers="
            )
            raise ManagerMismatchError(message)
        self.at: int = session.time or max(session.now, session.modified_at)
        if session.ref is None:
            session.manager = policy.manager
            session.created_at = self.at
        session.modified_at = self.at
        self.session: Session = session
        self.policy: Policy = policy
        self.changes: Changes = Changes(session, writes_head=head)
        self.counters: dict[str, Counter] = {}
        self.instances: dict[tuple[str, int], Instance] = {}
        self.by_task: dict[str, list[Instance]] = {}
        self.latest: dict[str, Latest] = {}
        self.before: dict[tuple[str, int], frozenset[str]] = {}
        self.exempt: frozenset[str] = NOTHING
        if policy.finalizing is not None:
            self.exempt = session.rules.waiting_for(policy.finalizing.trigger)
        self.something_resolved: bool = False
        self.ends: list[End] = []
        self.led_by: int = 0
        self.reasons: dict[str, bool] = {}

    # loading

    def need_for(self, trigger: str, key: tuple[str, str] | None = None) -> Need:
        """Return the need for all that a firing of the trigger can change in this session."""
        return need_for(self.session.rules, trigger, key=key)

    def load_instance(
        self, task: str, number: int, end: Status | None = None, *, cascade: bool | None = None
    ) -> Generator[Need, Slice, Instance]:
        """Load one instance and, if it may end with a status, all that this can change.

        Args:
            task: its task.
            number: its number.
            end: the status.
            cascade: whether the name of its task fires, None if it does when the instance finishes.

        Raises:
            UnknownSessionError: the session does not exist.
            UnknownInstanceError: the session does not have the instance.
        """
        if self.session.ref is None:
            message = f"there is no session {self.session.uid!r}"
            raise UnknownSessionError(message)
        rules = self.session.rules
        need = (
            need_of_end(rules, task, number, end, cascade=cascade) if end else need_of_instance(task, number)
        )
        self.absorb((yield need))
        try:
            return self.instances[task, number]
        except KeyError:
            message = f"session {self.session.uid!r} has no instance {instance_name(task, number)}"
            raise UnknownInstanceError(message) from None

    def absorb(self, found: Slice) -> None:
        """Add what a storage found. What is known already, and perhaps changed, is not replaced."""
        for instance in found.instances:
            if (instance.task, instance.number) not in self.instances:
                self.know(instance)
        for task, counter in found.counters.items():
            self.counters.setdefault(task, counter)
        for name, latest in found.latest.items():
            self.latest.setdefault(name, latest)

    def know(self, instance: Instance) -> None:
        """Add an instance that was found or is new."""
        self.instances[instance.task, instance.number] = instance
        self.by_task.setdefault(instance.task, []).append(instance)

    def counter(self, task: str) -> Counter:
        """Return the task's counter; it is zero if the task has no instance yet."""
        counter = self.counters.get(task)
        if counter is None:
            counter = self.counters[task] = Counter()
        return counter

    # firing

    def fire(self, firing: Firing) -> int:
        """Record the firing, deliver it to every task that names the trigger, and return its number."""
        recorded = self.record(firing)
        self.deliver(recorded, self.session.rules.listeners.get(firing.trigger, ()))
        return recorded.number

    def record(self, firing: Firing) -> Firing:
        """Record the firing, and return it with its number and time."""
        session = self.session
        session.firings += 1
        recorded = Firing(
            session.firings,
            firing.trigger,
            firing.kwargs,
            self.at,
            firing.depth,
            firing.source,
            firing.key,
            firing.fingerprint,
        )
        self.changes.fired.append(recorded)
        self.changes.scheduled_by.append([])
        return recorded

    def deliver(self, firing: Firing, rules: Iterable[Rule]) -> None:
        """Offer the firing to waiting instances of these rules, and create those that they require."""
        trigger = firing.trigger
        self.led_by = firing.depth
        self.latest[trigger] = Latest(firing.number, firing.depth)
        for rule in rules:
            took = False
            for instance in self.by_task.get(rule.task, ()):
                if instance.status is Status.UNSTARTED:
                    took = self.offer(instance, rule, trigger) or took
            counter = self.counter(rule.task)
            if counter.created == 0 or (not took and rule.and_every == trigger):
                self.create(rule, counter.created)

    def offer(self, instance: Instance, rule: Rule, trigger: str) -> bool:
        """Record the trigger in an unstarted instance that lacks it; return whether it got the kwargs."""
        lacks = rule.lacks(instance.taken, instance.vetoes)
        if trigger not in lacks:
            return False
        self.save_triggers(instance, lacks)
        took = trigger in rule.after.names and (rule.is_debounced or trigger not in instance.taken)
        waits = rule.delay is not None and rule.after.is_met(instance.taken)
        self.record_trigger(instance, rule, trigger)
        self.decide(instance, rule, delays=not waits or (took and rule.is_debounced))
        if took and rule.deadline is not None and rule.deadline.start == trigger:
            self.set_deadline(instance, rule)
        return took

    def record_trigger(self, instance: Instance, rule: Rule, trigger: str) -> None:
        """Add the latest firing of the trigger to what an instance has received, to its vetoes, or both."""
        latest = self.latest[trigger]
        rules = self.session.rules
        if trigger in rule.after.names:
            if trigger in rules.exceptional_names and not keeps_open(rules, instance):
                self.count(instance.task, unresolved=1)
            if trigger not in instance.taken or rule.is_debounced:
                instance.taken[trigger] = latest.number
            instance.cascade_depth = max(instance.cascade_depth, latest.depth, self.policy.cascade_depth)
        if trigger in rule.unless.names and trigger not in instance.vetoes:
            instance.vetoes += (trigger,)

    def create(self, rule: Rule, number: int) -> None:
        """Create the instance with that number; it receives the latest firing of each of its triggers."""
        now = self.session.now
        instance = Instance(rule.task, number, Status.UNSTARTED, self.at, now, root=number)
        instance.note(now, Status.UNSTARTED)
        self.add(instance)
        for trigger in sorted(rule.named & self.latest.keys()):
            self.record_trigger(instance, rule, trigger)
        self.decide(instance, rule)
        if rule.deadline is not None and (
            rule.deadline.start is None or rule.deadline.start in instance.taken
        ):
            self.set_deadline(instance, rule)

    def decide(self, instance: Instance, rule: Rule, *, delays: bool = True) -> None:
        """Abandon an unstarted instance if its veto is met; otherwise schedule it if its condition is met.

        Args:
            instance: the instance.
            rule: the rule of its task.
            delays: whether a delay begins, if the rule has one. Otherwise, it has begun before.
        """
        if rule.unless and rule.unless.is_met(instance.vetoes):
            self.set_status(instance, Status.ABANDONED)
        elif rule.after.is_met(instance.taken):
            if rule.delay is None:
                self.schedule(instance)
                if self.changes.scheduled_by:
                    self.changes.scheduled_by[-1].append(instance)
            elif delays:
                self.set_delay(instance, rule.delay, self.at)

    def schedule(self, instance: Instance) -> None:
        """Schedule an unstarted instance, so that it is due now."""
        instance.run_at = self.session.now
        instance.dispatch_after = self.session.now + self.policy.grace
        self.set_status(instance, Status.SCHEDULED)

    # timers

    def look_at_timers(self) -> None:
        """Let the timers elapse first that are due, if there are any.

        Raises:
            TimersDue: there may be some.
        """
        due = self.session.next_timer_at
        if due is not None and due <= self.at:
            raise TimersDue(self.at)

    def set_timer(self, timer: Timer) -> None:
        """Have a timer stored, instead of one with the same name, and give it the next number."""
        session = self.session
        session.timer_count += 1
        self.changes.timers[timer.name] = timer._replace(number=session.timer_count)
        self.changes.writes_head = True
        if session.next_timer_at is None or timer.at < session.next_timer_at:
            session.next_timer_at = timer.at

    def set_delay(self, instance: Instance, delay: Delay, since: int) -> None:
        """Begin the delay of an instance whose condition is met, or begin it again."""
        instance.run_at = instance.run_at or since
        ends = delay.ends(instance.run_at, since)
        self.set_timer(Timer(timer_of(instance.name), ends, 0, DELAY, since))

    def set_deadline(self, instance: Instance, rule: Rule, since: int | None = None) -> None:
        """Set the deadline of an instance that waits for its condition. It is missed once at most."""
        waits = instance.status is Status.UNSTARTED and not rule.after.is_met(instance.taken)
        if rule.deadline and waits and not instance.has_missed:
            since = self.at if since is None else since
            self.set_timer(Timer(timer_of(instance.name), rule.deadline.ends(since), 0, DEADLINE, since))

    def remove_timer(self, instance: Instance) -> None:
        """Have the timer of an instance removed, if it has one."""
        name = timer_of(instance.name)
        if instance.ref is None:  # it is new, so nothing is stored
            self.changes.timers.pop(name, None)
        else:
            self.changes.timers[name] = None

    # instances

    def add(self, instance: Instance) -> None:
        """Have a new instance stored, and count it."""
        self.know(instance)
        self.changes.created.append(instance)
        self.count(instance.task, created=1, unresolved=int(keeps_open(self.session.rules, instance)))

    def save_triggers(self, instance: Instance, lacks: Iterable[str]) -> None:
        """Have the triggers of an unstarted instance stored, and keep which of them it lacked before."""
        where = (instance.task, instance.number)
        if instance.ref is not None and where not in self.before:
            self.before[where] = frozenset(lacks)
            self.changes.triggered.append(instance)
        instance.modified_at = self.session.now

    def set_status(self, instance: Instance, status: Status, remark: str = "") -> None:
        """Change a status that the caller has checked and has stored."""
        kept_open, was = keeps_open(self.session.rules, instance), instance.status
        instance.status = status
        self.recount(instance, kept_open=kept_open)
        self.something_resolved = self.something_resolved or status in RESOLVED
        if was is Status.UNSTARTED and instance.task in self.session.rules.timed:
            self.remove_timer(instance)
            instance.run_at = instance.run_at if status is Status.SCHEDULED else 0
        if self.session.rules.outcomes and (status in OF_STATUS or status is Status.FINISHED):
            self.ends.append(End(instance, status, is_first=was is not Status.FAILED, led_by=self.led_by))
        instance.modified_at = self.session.now
        instance.note(self.session.now, status, remark)

    def save_whole(self, instance: Instance, lease: int | None = None) -> None:
        """Have the whole instance stored, under a guard with the status and fence that it was loaded with."""
        if all(kept is not instance for kept, _ in self.changes.transitioned):
            self.changes.transitioned.append((instance, Guard(instance.status, instance.fence, lease)))
        instance.modified_at = self.session.now

    def transition(self, instance: Instance, status: Status, remark: str = "") -> None:
        """Make a move of the table of moves. An instance that is no longer running loses its claim.

        Raises:
            InvalidStatusError: the table does not have the move.
        """
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
        """End the attempt that holds the instance: store its records and metadata, and change the status."""
        self.log(instance, attempt)
        if attempt.metadata:
            self.describe(instance, attempt.metadata)
        self.transition(instance, status, remark)

    def successor(self, failed: Instance, kwargs: str | None, run_at: int, retries: int, depth: int) -> None:
        """Create the instance that replays a failed one, with its kwargs if `kwargs` is None."""
        now = self.session.now
        number = self.counter(failed.task).created
        instance = Instance(
            failed.task,
            number,
            Status.SCHEDULED,
            self.at,
            now,
            run_at=run_at,
            dispatch_after=run_at if run_at > now else run_at + self.policy.grace,
            parent=failed.number,
            root=failed.root if kwargs is None else number,
            depth=failed.depth + 1,
            retries=retries,
            cascade_depth=max(failed.cascade_depth, depth),
            taken=dict(failed.taken),
            vetoes=failed.vetoes,
            kwargs=failed.kwargs if kwargs is None else kwargs,
        )
        instance.note(now, Status.SCHEDULED, f"replays {failed.name}")
        self.add(instance)

    def cascade(self, instance: Instance, result: str) -> None:
        """Fire the name of the instance's task, with the encoded result as kwargs."""
        depth = max(instance.cascade_depth + 1, self.policy.cascade_depth)
        instance.result = self.fire(Firing(0, instance.task, result, 0, depth, instance.name))

    def describe(self, instance: Instance, metadata: Mapping[str, Any]) -> None:
        """Add keys to the metadata of an instance that the caller has stored."""
        merged = decode(instance.metadata) | dict(metadata)
        instance.metadata = encode(merged, "metadata", self.policy.limits)

    # claims

    def is_held(self, instance: Instance, attempt: AttemptReport) -> bool:
        """Return whether the attempt still has the claim of the instance."""
        return instance.status is Status.RUNNING and instance.fence == attempt.fence

    def refuse(self, why: str) -> Changes:
        """Return the changes, marked as refused for the reason given."""
        self.changes.refused = why
        return self.changes

    # records

    def log(self, instance: Instance, attempt: AttemptReport) -> None:
        """Have the log records of an attempt stored, and update the counts and levels of its instance."""
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

    # counting

    def count(self, task: str, created: int = 0, unresolved: int = 0) -> None:
        """Change the counter of a task and with it the number of pending tasks."""
        counter, rules = self.counter(task), self.session.rules
        was = is_done(rules, task, counter)
        counter.created += created
        counter.unresolved += unresolved
        self.changes.counters[task] = counter
        if task in rules.rules and task not in self.exempt:
            self.session.pending += was - is_done(rules, task, counter)

    def recount(self, instance: Instance, *, kept_open: bool) -> None:
        """Count an instance again whose change can decide whether it keeps the session open."""
        change = keeps_open(self.session.rules, instance) - kept_open
        if change:
            self.count(instance.task, unresolved=change)

    def done(self) -> Changes:
        """Return the changes, with the updates to the index of which instance lacks which trigger."""
        rules = self.session.rules.rules
        for instance in self.changes.created:
            if instance.status is Status.UNSTARTED and instance.task in rules:
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
