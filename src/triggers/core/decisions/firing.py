"""The decisions of an application: fire a trigger, and configure the tasks of a session."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triggers.core.configuration import merged
from triggers.core.decisions.needs import need_for
from triggers.core.decisions.retiming import load_earlier, set_again
from triggers.core.decisions.settling import settle
from triggers.core.decisions.unit_of_work import UnitOfWork
from triggers.core.exchange import Changes, Decision, Need
from triggers.core.outcomes import WITHOUT_RUN, outcome_of
from triggers.core.state import is_done, keeps_open
from triggers.exceptions import IdempotencyConflictError, InvalidNameError

if TYPE_CHECKING:
    from collections.abc import Collection

    from triggers.core.decisions.retiming import Earlier
    from triggers.core.exchange import DecisionRun
    from triggers.core.rules import Reach, RuleSet
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
        InvalidNameError: the trigger is an outcome of a task, which only the end of an instance fires.
    """
    key = None if firing.key is None else (firing.trigger, firing.key)

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        _check_not_outcome(session.rules, firing.trigger)
        found = yield work.need_for(firing.trigger, key=key)
        if found.keyed is not None:
            return _repeat(work, found.keyed, firing)
        work.look_at_timers()
        work.absorb(found)
        work.fire(firing)
        yield from settle(work)
        return work.done()

    prefetch = None if rules is None else need_for(rules, firing.trigger, key=key)
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
        if not before.unsupported:
            work.look_at_timers()
        after = session.rules = merged(before, rules, work.policy.limits) if merge else rules
        pending = session.pending
        changed = _changed(before, after)
        new = sorted(after.rules.keys() - before.rules.keys()) if catch_up else []
        added = [after.rules[task] for task in new]
        past = frozenset(name for rule in added for name in rule.named)
        reach = _reach_of_changes(after, changed)
        found = yield Need(None, None, reach.heard, reach.others, unstarted=changed, history=past)
        # A task that catches up must not see a firing before its turn.
        latest, found.latest = found.latest, {}
        work.absorb(found)
        work.changes.new_rules = after.digest != before.digest
        count_pending(work)
        earlier = yield from load_earlier(work, before, changed)
        for instance in sorted(work.instances.values(), key=lambda one: (one.task, one.number)):
            if instance.task in changed:
                _reconsider(work, instance, earlier)
        fresh = [rule for rule in added if work.counter(rule.task).created == 0]
        for firing in found.history:
            work.deliver(firing, [rule for rule in fresh if firing.trigger in rule.named])
        work.latest = {**latest, **work.latest}
        work.something_resolved = True
        yield from settle(work)
        changes = work.done()
        touched = changes.fired or changes.timers
        changes.writes_head = (
            changes.new_rules or session.ref is None or session.pending != pending or bool(touched)
        )
        return changes

    return Decision("configure", begin, by_rules=merge)


def _check_not_outcome(rules: RuleSet, trigger: str) -> None:
    outcome = outcome_of(trigger, rules.rules) if rules.outcomes else None
    if outcome:
        message = (
            f"{trigger!r} is an outcome of the task {outcome.task!r}: only the end of an instance fires it; "
            f"nothing was changed"
        )
        raise InvalidNameError(message)


def _changed(before: RuleSet, after: RuleSet) -> frozenset[str]:
    """Return the tasks whose unstarted instances are decided again, or count in another way."""
    return frozenset(
        task
        for task in before.rules.keys() | after.rules.keys()
        if before.rules.get(task) != after.rules.get(task) or before.rare(task) != after.rare(task)
    )


def _reach_of_changes(rules: RuleSet, changed: Collection[str]) -> Reach:
    """Return what the outcomes can change that are fired when unstarted instances are decided again."""
    names = {f"{task}:{word}" for task in changed for word in WITHOUT_RUN}
    return rules.reach(*sorted(names & rules.outcomes))


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


def _reconsider(work: UnitOfWork, instance: Instance, earlier: Earlier) -> None:
    """Decide about an unstarted instance by the new rules."""
    before = earlier.rules
    old, new = before.rules.get(instance.task), work.session.rules.rules.get(instance.task)
    work.recount(instance, kept_open=keeps_open(before, instance))
    work.save_triggers(instance, old.lacks(instance.taken, instance.vetoes) if old else ())
    if new is not None:
        work.decide(instance, new, delays=False)
    set_again(work, instance, earlier)


def count_pending(work: UnitOfWork) -> None:
    """Count the pending tasks again, after the rules have changed."""
    rules = work.session.rules
    if work.policy.finalizing is not None:
        work.exempt = rules.waiting_for(work.policy.finalizing.trigger)
    counted = rules.rules.keys() - work.exempt
    work.session.pending = sum(not is_done(rules, task, work.counter(task)) for task in counted)
