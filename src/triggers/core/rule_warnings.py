"""Warnings about rules that are valid and probably not meant. They never prevent anything."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triggers.core.circles import never_missed
from triggers.core.outcomes import OUTCOMES, misnamed_outcome
from triggers.core.similar_names import nearest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggers.core.rules import Rule, RuleSet


def rule_warnings(rules: RuleSet) -> list[tuple[str, str]]:
    """Return the warnings about a set of rules, as pairs of path and message.

    Args:
        rules: the rules, as :meth:`Triggers.check` or :func:`check_configuration` returns them.
    """
    return [warning for rule in rules.rules.values() for warning in _warnings(rule, rules)]


def _warnings(rule: Rule, rules: RuleSet) -> Iterator[tuple[str, str]]:
    if rule.is_debounced and rule.and_every is None:
        problem = (
            "without andEvery, the task runs once in the life of the session, after the first burst of "
            "firings: write the trigger in 'andEvery' instead of 'after'"
        )
        yield f"{rule.task}.delay.since", problem
    for name in sorted(rule.named):
        if why := _never_fired(name, rules):
            yield _place(rule, name), why


def _place(rule: Rule, name: str) -> str:
    if name == rule.and_every:
        return f"{rule.task}.andEvery"
    return f"{rule.task}.after" if name in rule.after.names else f"{rule.task}.unless"


def _never_fired(name: str, rules: RuleSet) -> str:
    """Return why a name that looks like an outcome is not one that can fire; "" if all is well."""
    if why := misnamed_outcome(name, rules.rules):
        return why
    if why := never_missed(name, rules):
        return f"{name} never fires, {why}"
    task, _, word = name.rpartition(":")
    if word not in OUTCOMES or task in rules.rules or not task:
        return ""
    meant = nearest(task, rules.rules)
    hint = f"; did you mean {f'{meant}:{word}'!r}?" if meant else ""
    why = f"there is no task {task!r}, so only the application can fire it"
    return f"{name} is not an outcome, because {why}{hint}"
