"""Outcomes: the ends of instances as triggers, such as ``t_check:failed``.

An outcome is fired by the commit that ends the instance, and only if a rule of the session names it. One is
fired without an end: ``missed``, by the commit in which the deadline of an instance passes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from triggers.core.status import Status

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from triggers.core.conditions import Condition

#: The outcome that is fired at every end of an instance, after the one for its status.
ENDED: Final = "ended"

#: The outcome that is fired when the deadline of an unstarted instance passes. The instance does not end.
MISSED: Final = "missed"

#: Status → its outcome. The end of a finished instance fires the name of its task.
OF_STATUS: Final = {Status.FAILED: "failed", Status.SKIPPED: "skipped", Status.ABANDONED: "abandoned"}

#: The word after the colon of every outcome.
OUTCOMES: Final = frozenset({*OF_STATUS.values(), ENDED, MISSED})

#: The outcomes that an instance can fire without having run.
WITHOUT_RUN: Final = frozenset({"abandoned", ENDED})


def outcomes_of(task: str, status: Status, *, is_first: bool = True) -> tuple[str, ...]:
    """Return the outcomes that the end of an instance fires, in order.

    Args:
        task: the instance's task.
        status: the status with which it ends.
        is_first: whether it has not ended before. A failed instance that is skipped has.
    """
    words = (OF_STATUS.get(status), ENDED if is_first else None)
    return tuple(f"{task}:{word}" for word in words if word)


class Outcome(NamedTuple):
    """The parts of an outcome's name: the task, and the word after the colon."""

    task: str
    word: str


def outcome_of(trigger: str, tasks: Collection[str]) -> Outcome | None:
    """Return the parts of a trigger that is an outcome of one of these tasks; otherwise None."""
    task, _, word = trigger.rpartition(":")
    return Outcome(task, word) if word in OUTCOMES and task in tasks else None


def misnamed_outcome(trigger: str, tasks: Collection[str]) -> str:
    """Return why a trigger that begins like an outcome of one of these tasks is none; otherwise ""."""
    task, _, word = trigger.rpartition(":")
    if task not in tasks or word in OUTCOMES:
        return ""
    *most, last = (f"{task}:{known}" for known in sorted(OUTCOMES))
    return f"{trigger} is not an outcome of {task}: its outcomes are {', '.join(most)} and {last}"


def outcomes_named(named: Iterable[str], tasks: Collection[str]) -> frozenset[str]:
    """Return the outcomes of these tasks among the named triggers."""
    return frozenset(name for name in named if outcome_of(name, tasks) is not None)


def exceptional_tasks(conditions: Mapping[str, Condition], outcomes: Collection[str]) -> frozenset[str]:
    """Return the tasks that run only after an outcome other than ``ended``, directly or through others.

    Their conditions could not be met if everything happened except these outcomes. Such a task keeps a
    session open only through instances that have received an outcome, or that are no longer unstarted.

    Args:
        conditions: task → its `after`.
        outcomes: the outcomes that rules name.
    """
    waiting: dict[str, list[str]] = {}
    for task, after in conditions.items():
        for name in after.names:
            waiting.setdefault(name, []).append(task)
    found: set[str] = set()
    rare = set(exceptional_names((), outcomes))
    heads = {task for name in rare for task in waiting.get(name, ())}
    while heads:  # only what waits for one that was found last can be the next
        more = {task for task in heads if not conditions[task].is_met(conditions[task].names - rare)}
        names = exceptional_names(more - found, ())
        found |= more
        rare |= names
        heads = {task for name in names for task in waiting.get(name, ())}
    return frozenset(found)


def exceptional_names(tasks: Iterable[str], outcomes: Collection[str]) -> frozenset[str]:
    """Return the triggers of exceptional cases: outcomes, and the ends of exceptional tasks."""
    ends = frozenset(name for task in tasks for name in (task, f"{task}:{ENDED}"))
    return ends | frozenset(name for name in outcomes if not name.endswith(f":{ENDED}"))
