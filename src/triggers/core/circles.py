"""Tasks that wait for each other: those that can never start, and those that would start again forever."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

from triggers.core.durations import micros
from triggers.core.outcomes import MISSED, OUTCOMES, WITHOUT_RUN, outcome_of
from triggers.core.timers import NEW_CHAIN

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from triggers.core.rules import Rule, RuleSet

#: How many names a problem lists at most.
LISTED: Final = 10


def never_starting(rules: RuleSet) -> Iterator[tuple[str, str]]:
    """Find the tasks that can never start, whatever the application fires, because they wait for each other.

    Any trigger that is neither the name of a task nor an outcome can fire. Each task that can start can then
    fire its own name and its outcomes. A veto can abandon a task that cannot start. An instance that waits
    can miss its deadline.
    """
    possible = {name for rule in rules.rules.values() for name in rule.named}
    possible -= rules.rules.keys() | rules.outcomes
    possible |= {name for rule in rules.rules.values() for name in _without_run(rule)}
    heads = list(rules.rules)
    while heads:
        fired = list(_fired(rules.rules[heads.pop()], possible))
        possible.update(fired)
        heads += [listener.task for name in fired for listener in rules.listeners.get(name, ())]
    for rule in rules.rules.values():
        if rule.task not in possible:
            names = list(rule.after.lacking(possible))
            more = f" and {len(names) - LISTED:,} more" if len(names) > LISTED else ""
            missing = ", ".join(names[:LISTED]) + more
            why = next((why for name in names if (why := never_missed(name, rules))), "")
            yield (
                f"{rule.task}.after",
                f"can never start: it waits for {missing}, " + (why or "which can never start before it"),
            )


def _fired(rule: Rule, possible: Collection[str]) -> Iterator[str]:
    """Yield what a task fires if these names are possible, as far as it is not among them."""
    if rule.task not in possible and rule.after.is_met(possible):
        yield from (rule.task, *(f"{rule.task}:{word}" for word in OUTCOMES - {MISSED}))
    missed = f"{rule.task}:{MISSED}"
    if rule.deadline and missed not in possible:
        begins = {rule.deadline.start} if rule.deadline.start else rule.named
        if not begins.isdisjoint(possible):
            yield missed


def never_missed(trigger: str, rules: RuleSet) -> str:
    """Return why nothing fires a trigger that is the `missed` of a task without a deadline; otherwise ""."""
    outcome = outcome_of(trigger, rules.rules)
    never = outcome is not None and outcome.word == MISSED and rules.rules[outcome.task].deadline is None
    return f"but {outcome.task} has no deadline that it could miss" if outcome and never else ""


def _without_run(rule: Rule) -> set[str]:
    """Return the outcomes that an instance of a rule can end with before it has run."""
    abandons = rule.unless or (rule.deadline and rule.deadline.abandons)
    return {f"{rule.task}:{word}" for word in WITHOUT_RUN} if abandons else set()


def endless(rules: RuleSet) -> Iterator[tuple[str, str]]:
    """Find the tasks that outcomes could create and abandon again and again, in one commit.

    A task that is abandoned fires its outcomes without a run. If another task is abandoned by them, and so on
    back to the first one, nothing would stop them.
    """
    fired = {task: names for task, rule in rules.rules.items() if (names := _at_once(rule))}
    leads_to = {
        task: {rule.task for name in names for rule in rules.listeners.get(name, ())} & fired.keys()
        for task, names in fired.items()
    }
    free = _after_no_circle(leads_to)
    for task in [task for task in leads_to if task not in free]:
        reached: set[str] = set()
        heads = {task}
        while heads:
            heads = {other for head in heads for other in leads_to.get(head, ())} - reached
            reached |= heads
        if task in reached:
            problem = (
                "outcomes lead from this task back to itself without a run between them, so abandoned "
                "instances could create each other forever: wait for the name of a task, or for NAME:failed"
            )
            yield task, problem


def _after_no_circle(leads_to: Mapping[str, Collection[str]]) -> Collection[str]:
    """Return the tasks to which no circle leads, in a time that is linear in the number of tasks."""
    incoming = Counter(other for others in leads_to.values() for other in others)
    free = [task for task in leads_to if not incoming[task]]
    for task in free:  # grows meanwhile
        incoming.subtract(leads_to[task])
        free += [other for other in leads_to[task] if not incoming[other]]
    return frozenset(free)


def _at_once(rule: Rule) -> set[str]:
    """Return the outcomes that an instance of a rule can fire without a run, and within a second."""
    is_quick = rule.deadline is not None and micros(rule.deadline.within) < NEW_CHAIN
    abandons = rule.unless or (is_quick and rule.deadline and rule.deadline.abandons)
    words = OUTCOMES - {"failed", MISSED} if abandons else frozenset()
    return {f"{rule.task}:{word}" for word in (words | {MISSED} if is_quick else words)}
