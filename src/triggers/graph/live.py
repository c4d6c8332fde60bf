"""Reads what has happened in a session, for its graph."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from triggers.core.status import Status
from triggers.graph.model import Graph, State, TaskState, rules_graph

if TYPE_CHECKING:
    from triggers.core.state import Instance
    from triggers.manager import TriggerManager
    from triggers.session import SessionView


def session_graph(session: TriggerManager) -> Graph:
    """Return the graph of a session: its rules, and what has happened so far.

    It reads every instance and every firing of the session once, page by page.

    Args:
        session: the manager of the session, such as ``triggers.session("order-17")``. If the session belongs
            to another class of managers, its finalizing trigger is not known.
    """
    view = session.storage
    head = view.head
    own = head.manager in {"", session.name}
    return rules_graph(
        head.rules,
        state=state_of(view),
        finalize_trigger=session.finalize_trigger if own else None,
        title=f"Session {session.uid}",
    )


def state_of(view: SessionView) -> State:
    """Return what has happened in a session; see :func:`session_graph` for the cost."""
    statuses: dict[str, Counter[Status]] = {}
    shown: dict[str, Instance] = {}
    for instance in (found.stored for found in view.find()):
        statuses.setdefault(instance.task, Counter())[instance.status] += 1
        before = shown.get(instance.task)
        if before is None or _waits(instance) or not _waits(before):
            shown[instance.task] = instance
    tasks = {
        task: TaskState(dict(statuses[task]), frozenset(instance.taken), instance.vetoes)
        for task, instance in shown.items()
    }
    return State(view.firing_counts(), tasks)


def _waits(instance: Instance) -> bool:
    return instance.status is Status.UNSTARTED
