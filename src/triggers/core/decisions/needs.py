"""What decisions about firings and about the ends of instances need to know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triggers.core.exchange import Need
from triggers.core.outcomes import outcomes_of
from triggers.core.status import Status

if TYPE_CHECKING:
    from triggers.core.rules import RuleSet


def need_for(
    rules: RuleSet,
    *triggers: str,
    key: tuple[str, str] | None = None,
    instances: tuple[tuple[str, int], ...] = (),
) -> Need:
    """Return the need for all that firings of the triggers can change.

    Args:
        rules: the session's rules.
        triggers: the triggers.
        key: the (trigger, idempotency key) whose firing is needed, too.
        instances: instances, as (task, number), that are needed, too.
    """
    reach = rules.reach(*triggers)
    tasks = reach.tasks.union(task for task, _ in instances) if instances else reach.tasks
    return Need(key=key, tasks=tasks, waiting=reach.heard, latest=reach.others, instances=instances)


def need_of_instance(task: str, number: int) -> Need:
    """Return the need for one instance and the counter of its task."""
    return Need(tasks=frozenset({task}), instances=((task, number),))


def need_of_end(
    rules: RuleSet, task: str, number: int, status: Status, *, cascade: bool | None = None
) -> Need:
    """Return the need for one instance and all that its end with that status can change.

    Args:
        rules: the session's rules.
        task: the instance's task.
        number: the instance's number.
        status: the status.
        cascade: whether the name of the task fires, None if it does when the instance finishes.
    """
    fires_name = status is Status.FINISHED if cascade is None else cascade
    triggers: tuple[str, ...] = (task,) if fires_name else ()
    if rules.outcomes:
        triggers += tuple(name for name in outcomes_of(task, status) if name in rules.outcomes)
    return need_for(rules, *triggers, instances=((task, number),))
