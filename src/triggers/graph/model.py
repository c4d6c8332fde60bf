"""The graph of a rule set, as data: nodes for triggers, tasks and conditions, and the edges between them.

Nothing is read or drawn here. With the state of a session, nodes and edges also say what has happened.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Final

from triggers.core.configuration import check_configuration
from triggers.core.durations import micros
from triggers.core.outcomes import outcome_of
from triggers.core.rules import Rule, RuleSet
from triggers.core.similar_names import did_you_mean
from triggers.core.timing_in_words import length
from triggers.exceptions import UnknownInstanceError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from triggers.core.conditions import Condition
    from triggers.core.retries import RetryPolicy
    from triggers.core.status import Status


class NodeKind(StrEnum):
    """What a node stands for: a trigger that no task fires, a task, or a part of a condition."""

    TRIGGER = "trigger"
    TASK = "task"
    CONDITION = "condition"


class EdgeKind(StrEnum):
    """The directive that an edge comes from. A part of a condition has the kind of the whole condition."""

    AFTER = "after"
    AND_EVERY = "andEvery"
    UNLESS = "unless"


@dataclass(frozen=True, slots=True)
class Node:
    """A trigger, a task or a part of a condition.

    Attributes:
        key: identifies the node in its graph. Edges refer to it.
        kind: what it stands for.
        label: the name of the trigger or task, or the condition in words, such as ``any of``.
        run: the name of the registered task to run; "" if it is not a configured task.
        notes: short remarks, such as ``5 retries``.
        fired: how often the trigger has fired; None without a session, or if it is not a trigger.
        statuses: status → how many instances of the task have it. Statuses without instances are missing.
        met: whether the condition is met; None without a session, or if it is not a condition.
    """

    key: str
    kind: NodeKind
    label: str
    run: str = ""
    notes: tuple[str, ...] = ()
    fired: int | None = None
    statuses: Mapping[Status, int] = field(default_factory=dict)
    met: bool | None = None


@dataclass(frozen=True, slots=True)
class Edge:
    """What a task, or a part of its condition, waits for.

    Attributes:
        source: the key of the node at which it begins.
        target: the key of the node at which it ends.
        kind: the directive that it comes from.
        outcome: the outcome of the source task that it waits for, such as ``failed``; "" for its name.
        met: whether the latest instance that waits has received it, or the latest of all if none waits; None
            without a session. Before the task has an instance: whether it has happened.
    """

    source: str
    target: str
    kind: EdgeKind
    outcome: str = ""
    met: bool | None = None


@dataclass(frozen=True, slots=True)
class Graph:
    """A rule set, or a session with its rules, as nodes and edges.

    Attributes:
        nodes: external triggers first, in alphabetical order, then the tasks in the order of the
            configuration, each after the parts of its conditions, then tasks that were removed.
        edges: the edges, in the order of their targets.
        title: what is drawn, such as ``Session order-17``; "" for nothing.
    """

    nodes: tuple[Node, ...]
    edges: tuple[Edge, ...]
    title: str = ""

    def around(self, task: str) -> Graph:
        """Return one task, what it waits for, and the tasks that wait for it.

        Raises:
            UnknownInstanceError: the graph has no task with this name.
        """
        center = task_key(task)
        names = {node.key: node.label for node in self.nodes if node.kind is NodeKind.TASK}
        if center not in names:
            message = f"there is no task {task!r} to draw{did_you_mean(task, list(names.values()))}"
            raise UnknownInstanceError(message)
        kept = {center, *self._beside(center, forward=False), *self._beside(center, forward=True)}
        return Graph(
            tuple(node for node in self.nodes if node.key in kept),
            tuple(edge for edge in self.edges if edge.source in kept and edge.target in kept),
            self.title,
        )

    def _beside(self, center: str, *, forward: bool) -> set[str]:
        """Return the nodes next to one, in one direction; those beyond a condition count as next to it."""
        ends = [(edge.source, edge.target) if forward else (edge.target, edge.source) for edge in self.edges]
        conditions = {node.key for node in self.nodes if node.kind is NodeKind.CONDITION}
        after: dict[str, list[str]] = {}
        for begin, end in ends:
            after.setdefault(begin, []).append(end)
        found: set[str] = set()
        heads = [center]
        for head in heads:  # grows meanwhile
            fresh = [key for key in after.get(head, ()) if key not in found]
            found.update(fresh)
            heads += [key for key in fresh if key in conditions]
        return found


@dataclass(frozen=True, slots=True)
class TaskState:
    """What has become of one task in a session.

    Attributes:
        statuses: status → how many instances have it.
        taken: the triggers that the latest waiting instance has received, or the latest of all if none waits.
        vetoes: the triggers of `unless` that have fired for the same instance.
    """

    statuses: Mapping[Status, int]
    taken: Collection[str] = ()
    vetoes: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class State:
    """What has happened in a session.

    Attributes:
        fired: trigger → how often it has fired.
        tasks: task → its state, for every task that has an instance.
    """

    fired: Mapping[str, int]
    tasks: Mapping[str, TaskState]


def trigger_key(name: str) -> str:
    """Return the key of the node of a trigger that no task fires."""
    return f"trigger {name}"


def task_key(name: str) -> str:
    """Return the key of the node of a task that is, or was, configured."""
    return f"task {name}"


def rules_graph(
    configuration: object,
    *,
    state: State | None = None,
    finalize_trigger: str | None = None,
    title: str = "",
) -> Graph:
    """Return the graph of a configuration.

    Args:
        configuration: the configuration, or the rule set that :meth:`triggers.Triggers.check` returns.
        state: what has happened in a session that has this configuration, or None.
        finalize_trigger: the trigger that the session's manager fires when the session is complete. It gets a
            node even if no task waits for it.
        title: the title of the graph.

    Raises:
        ConfigurationError: the configuration has problems.
    """
    rules = configuration if isinstance(configuration, RuleSet) else check_configuration(configuration)
    return _Builder(rules, state, finalize_trigger).graph(title)


#: How many retries an instance has, in words, if the rule has a `retry`.
_RETRIES: Final = {0: "no retries", 1: "1 retry"}


def notes_of(rule: Rule) -> Iterator[str]:
    """Yield a short remark for each directive of a rule that has no node or edge."""
    if rule.retry is not None:
        yield _retries(rule.retry)
    if rule.delay is not None:
        since = " after the last firing" if rule.delay.since_last else " later"
        yield f"starts {length(micros(rule.delay.pause))}{since}"
    if rule.deadline is not None:
        within, start = length(micros(rule.deadline.within)), rule.deadline.start
        yield f"late {within} after {start}" if start else f"late after {within}"
    if rule.using is not None:
        yield f"using {rule.using}"


def _retries(policy: RetryPolicy) -> str:
    return _RETRIES.get(policy.limit, f"{policy.limit:,} retries")


#: The note of the trigger that finalizes a session.
FINALIZING: Final = "when the session is complete"

#: The note of a task that has instances and no rule any more.
REMOVED: Final = "no longer configured"


#: The note of a task whose stored rule only a newer version understands. Its edges are what this one reads.
NEWER: Final = "written by a newer version"


class _Builder:
    """Builds one graph.

    Args:
        rules: the rules.
        state: the state of the session, or None.
        finalize_trigger: the trigger that finalizes the session, or None.
    """

    def __init__(self, rules: RuleSet, state: State | None, finalize_trigger: str | None) -> None:
        self._rules = rules
        self._state = state
        self._finalize_trigger = finalize_trigger
        # "" stands for all tasks: the version of the language has no task before a dot.
        self._newer = {path.rpartition(".")[0] for path in rules.unsupported}
        self._nodes: list[Node] = []
        self._edges: list[Edge] = []

    def graph(self, title: str) -> Graph:
        own = set() if self._finalize_trigger is None else {self._finalize_trigger} - self._rules.rules.keys()
        self._nodes += [self._trigger(name) for name in sorted({*self._rules.external, *own})]
        for rule in self._rules.rules.values():
            self._task(rule)
        self._nodes += self._removed()
        return Graph(tuple(self._nodes), tuple(self._edges), title)

    def _trigger(self, name: str) -> Node:
        notes = (FINALIZING,) if name == self._finalize_trigger else ()
        fired = None if self._state is None else self._state.fired.get(name, 0)
        return Node(trigger_key(name), NodeKind.TRIGGER, name, notes=notes, fired=fired)

    def _removed(self) -> Iterator[Node]:
        """Yield a node for each task that has instances and is no longer configured."""
        for name, task in self._state.tasks.items() if self._state else ():
            if name not in self._rules.rules:
                yield Node(task_key(name), NodeKind.TASK, name, notes=(REMOVED,), statuses=task.statuses)

    def _task(self, rule: Rule) -> None:
        key = task_key(rule.task)
        taken, vetoes = self._happened(rule)
        parts = _Parts(key, self)
        parts.after(rule, taken)
        parts.unless(rule, vetoes)
        found = self._state.tasks.get(rule.task) if self._state else None
        statuses = found.statuses if found else {}
        notes = (*notes_of(rule), *([NEWER] if {"", rule.task} & self._newer else ()))
        self._nodes.append(Node(key, NodeKind.TASK, rule.task, run=rule.run, notes=notes, statuses=statuses))

    def _happened(self, rule: Rule) -> tuple[Collection[str] | None, Collection[str] | None]:
        """Return the triggers of `after` and of `unless` that count as met; None without a session."""
        if self._state is None:
            return None, None
        found = self._state.tasks.get(rule.task)
        return (found.taken, found.vetoes) if found else (self._state.fired.keys(), self._state.fired.keys())

    def source(self, trigger: str) -> tuple[str, str]:
        """Return the key of the node that a trigger comes from, and the outcome, if it is one."""
        task = self._rules.source(trigger)
        if not task:
            return trigger_key(trigger), ""
        outcome = outcome_of(trigger, self._rules.rules) if trigger not in self._rules.rules else None
        return task_key(task), outcome.word if outcome else ""

    def add(self, part: Node | Edge) -> None:
        """Add a node or an edge to the graph."""
        if isinstance(part, Node):
            self._nodes.append(part)
        else:
            self._edges.append(part)


class _Parts:
    """Adds the conditions of one task to a graph.

    Args:
        task: the key of the task's node.
        builder: the graph's builder.
    """

    def __init__(self, task: str, builder: _Builder) -> None:
        self._task = task
        self._builder = builder
        self._count = 0

    def after(self, rule: Rule, happened: Collection[str] | None) -> None:
        """Add an edge for each term that the task needs; a condition of another form gets a node."""
        condition = rule.after
        terms = condition.of if condition.at_least == len(condition.of) else (condition,)
        for term in terms:
            kind = EdgeKind.AND_EVERY if term == rule.and_every else EdgeKind.AFTER
            self._term(term, self._task, kind, happened)

    def unless(self, rule: Rule, happened: Collection[str] | None) -> None:
        """Add one edge for the whole veto, because only all of it together abandons an instance."""
        if rule.unless.of:
            self._term(rule.unless, self._task, EdgeKind.UNLESS, happened)

    def _term(
        self, term: str | Condition, target: str, kind: EdgeKind, happened: Collection[str] | None
    ) -> None:
        while not isinstance(term, str) and len(term.of) == 1:
            term = term.of[0]
        if isinstance(term, str):
            source, outcome = self._builder.source(term)
            met = None if happened is None else term in happened
            self._builder.add(Edge(source, target, kind, outcome, met))
        else:
            self._condition(term, target, kind, happened)

    def _condition(
        self, condition: Condition, target: str, kind: EdgeKind, happened: Collection[str] | None
    ) -> None:
        self._count += 1
        key = f"condition {self._count} {self._task}"
        met = None if happened is None else condition.is_met(happened)
        for term in condition.of:
            self._term(term, key, kind, happened)
        self._builder.add(Node(key, NodeKind.CONDITION, _in_words(condition), met=met))
        self._builder.add(Edge(key, target, kind, met=met))


def _in_words(condition: Condition) -> str:
    if condition.at_least == len(condition.of):
        return "all of"
    return "any of" if condition.at_least == 1 else f"{condition.at_least:,} of {len(condition.of):,}"
