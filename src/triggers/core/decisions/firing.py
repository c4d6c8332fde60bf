"""The decisions of an application: fire a trigger, and configure the tasks of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triggers.core.configuration import merged
from triggers.core.decisions.unit_of_work import UnitOfWork, need_for
from triggers.core.exchange import Changes, Decision, Need
from triggers.exceptions import IdempotencyConflictError

if TYPE_CHECKING:
    from triggers.core.exchange import DecisionRun
    from triggers.core.rules import RuleSet
    from triggers.core.state import Firing, Instance, Session
    from triggers.core.terms import Policy, PolicyOf


def fire(policy: Policy | PolicyOf, firing: Firing, rules: RuleSet | None = None) -> Decision:
    """Record a firing, and schedule or abandon the instances that it concerns.

    A repeat, with the same key and the same kwargs, changes nothing.

    Args:
        policy: the manager's policy.
        firing: the firing. Its number and time are set when it is recorded.
        rules: the session's rules when the caller last read them, None if it never did.

    Raises:
        IdempotencyConflictError: the key was used for another firing, with other kwargs.
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


def configure(
    policy: Policy | PolicyOf, rules: RuleSet, *, catch_up: bool = False, merge: bool = False
) -> Decision:
    """Change the rules of a session, and decide again about unstarted instances whose rule changed.

    If the session has these rules already, nothing is stored.

    Args:
        policy: the manager's policy.
        rules: the new rules.
        catch_up: apply the recorded firings, in order, to the new tasks.
        merge: keep the session's other tasks. Otherwise, these are all rules from now on.

    Raises:
        ConfigurationError: together with the session's other tasks, the rules have problems.
    """

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        before = session.rules
        after = session.rules = merged(before, rules, work.policy.limits) if merge else rules
        pending = session.pending
        changed = frozenset(
            task
            for task in before.rules.keys() | after.rules.keys()
            if before.rules.get(task) != after.rules.get(task)
        )
        added = [rule for task, rule in after.rules.items() if task not in before.rules] if catch_up else []
        past = frozenset(name for rule in added for name in rule.named)
        found = yield Need(tasks=None, unstarted=changed, history=past)
        work.absorb(found)
        work.changes.new_rules = after.digest != before.digest
        count_pending(work)
        for instance in found.instances:
            _reconsider(work, instance, before)
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

    return Decision("configure", begin, by_rules=merge)


def _repeat(work: UnitOfWork, earlier: Firing, firing: Firing) -> Changes:
    if earlier.fingerprint != firing.fingerprint:
        message = (
            f"key {firing.key!r} of trigger {firing.trigger!r} in session {work.session.uid!r} was used for "
            f"firing {earlier.number}, with other kwargs; nothing was changed: use another key"
        )
        raise IdempotencyConflictError(message)
    work.changes.writes_head = False
    work.changes.duplicate_of = earlier
    return work.changes


def _reconsider(work: UnitOfWork, instance: Instance, before: RuleSet) -> None:
    """Decide about an unstarted instance by the new rules."""
    old, new = before.rules.get(instance.task), work.session.rules.rules.get(instance.task)
    work.save_triggers(instance, old.lacks(instance.taken, instance.vetoes) if old else ())
    if new is not None:
        work.decide(instance, new)


def count_pending(work: UnitOfWork) -> None:
    """Count the pending tasks again, after the rules have changed."""
    rules = work.session.rules
    if work.policy.finalizing is not None:
        work.exempt = rules.waiting_for(work.policy.finalizing.trigger)
    counted = rules.rules.keys() - work.exempt
    work.session.pending = sum(not work.counter(task).is_resolved for task in counted)
