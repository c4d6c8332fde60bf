"""The graph of a rule set: which nodes there are, which edges, and which of them are met."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from triggers import ConfigurationError, Registry, Status, Triggers, task
from triggers.core.rules import read_rules, rule_set
from triggers.exceptions import UnknownInstanceError
from triggers.graph import EdgeKind, NodeKind, State, TaskState, rules_graph
from triggers.testing.conformance.strategies import configurations


def rule(**directives):
    return {"run": "r", **directives}


def edges(graph):
    """Each edge as (label of the source, label of the target, directive, outcome)."""
    labels = {node.key: node.label for node in graph.nodes}
    return [(labels[edge.source], labels[edge.target], edge.kind.value, edge.outcome) for edge in graph.edges]


def met(graph):
    """The edges that are met, as (label of the source, label of the target)."""
    labels = {node.key: node.label for node in graph.nodes}
    return [(labels[edge.source], labels[edge.target]) for edge in graph.edges if edge.met]


def test_when_a_task_starts_is_noted():
    """Its delay and its deadline, in words."""
    graph = rules_graph(
        {
            "t_a": rule(after=["a"], delay="P3D"),
            "t_b": rule(andEvery="a", delay={"for": "PT90S", "since": "last"}),
            "t_c": rule(after=["a", "b"], deadline="P14D"),
            "t_d": rule(after=["a", "b"], deadline={"in": "PT1H", "from": "b"}),
        }
    )
    notes = {node.label: node.notes for node in graph.nodes}
    assert [notes[f"t_{name}"] for name in "abcd"] == [
        ("starts 3 d later",),
        ("starts 1 min 30 s after the last firing",),
        ("late after 14 d",),
        ("late 1 h after b",),
    ]


def test_external_triggers_come_first_and_tasks_follow_in_their_order():
    """A trigger that a task fires has no node: its edges begin at the task."""
    graph = rules_graph({"t_b": rule(after=["b", "a"]), "t_a": rule(after=["t_b"], andEvery="a")})
    assert [(node.kind.value, node.label) for node in graph.nodes] == [
        ("trigger", "a"),
        ("trigger", "b"),
        ("task", "t_b"),
        ("task", "t_a"),
    ]
    assert edges(graph) == [
        ("b", "t_b", "after", ""),
        ("a", "t_b", "after", ""),
        ("t_b", "t_a", "after", ""),
        ("a", "t_a", "andEvery", ""),
    ]


def test_an_outcome_is_an_edge_from_its_task():
    """Only outcomes of configured tasks are; what merely looks like one is an external trigger."""
    graph = rules_graph({"t_a": rule(after=["a"]), "t_b": rule(after={"any": ["t_a:failed", "t_c:failed"]})})
    assert edges(graph)[1:] == [
        ("t_a", "any of", "after", "failed"),
        ("t_c:failed", "any of", "after", ""),
        ("any of", "t_b", "after", ""),
    ]


@pytest.mark.parametrize(
    ("after", "expected"),
    [
        (["a", "b"], [("a", "t"), ("b", "t")]),
        ({"all": ["a", "b"]}, [("a", "t"), ("b", "t")]),
        ({"any": ["a"]}, [("a", "t")]),
        ({"any": ["a", "b"]}, [("a", "any of"), ("b", "any of"), ("any of", "t")]),
        ({"atLeast": 2, "of": ["a", "b"]}, [("a", "t"), ("b", "t")]),
        (
            {"atLeast": 2, "of": ["a", "b", "c"]},
            [("a", "2 of 3"), ("b", "2 of 3"), ("c", "2 of 3"), ("2 of 3", "t")],
        ),
        (
            ["a", {"any": ["b", {"all": ["c", "d"]}]}],
            [
                ("a", "t"),
                ("b", "any of"),
                ("c", "all of"),
                ("d", "all of"),
                ("all of", "any of"),
                ("any of", "t"),
            ],
        ),
        ({"all": [{"any": [{"all": ["a"]}]}]}, [("a", "t")]),
    ],
)
def test_conditions_that_are_not_a_list_have_nodes(after, expected):
    """What needs everything is several edges to the task; every other form is a node of its own."""
    assert [edge[:2] for edge in edges(rules_graph({"t": rule(after=after)}))] == expected


def test_a_veto_is_one_edge_because_all_of_it_is_needed():
    """One name is an edge, several are a node `all of`, and an empty veto is nothing."""
    graph = rules_graph(
        {
            "t_1": rule(after=["a"], unless=["x"]),
            "t_2": rule(after=["a"], unless=["x", "y"]),
            "t_3": rule(after=["a"], unless=[]),
        }
    )
    assert [edge for edge in edges(graph) if edge[2] == "unless"] == [
        ("x", "t_1", "unless", ""),
        ("x", "all of", "unless", ""),
        ("y", "all of", "unless", ""),
        ("all of", "t_2", "unless", ""),
    ]


def test_directives_without_an_edge_are_notes():
    """How often a task is retried, and by which runner it is run."""
    graph = rules_graph(
        {f"t_{most}": rule(after=["a"], retry={"max": most}, using="inline") for most in (1, 5_000)}
    )
    assert [node.notes for node in graph.nodes[1:]] == [
        ("1 retry", "using inline"),
        ("5,000 retries", "using inline"),
    ]
    assert {node.run for node in graph.nodes[1:]} == {"r"}


def test_the_finalizing_trigger_has_a_node():
    """It is marked, whether a task waits for it or not."""
    for rules in ({"t": rule(after=["a"])}, {"t": rule(after=["a", "done"])}):
        graph = rules_graph(rules, finalize_trigger="done")
        (node,) = (node for node in graph.nodes if node.label == "done")
        assert (node.kind, node.notes) == (NodeKind.TRIGGER, ("when the session is complete",))


def test_a_waiting_instance_says_which_edges_are_met():
    """Those of the triggers that it has received; for `unless`, those that have fired for it."""
    rules = {"t": rule(after=["a", {"any": ["b", "c"]}, "d"], unless=["x", "y"])}
    state = State(
        {"a": 2, "b": 1, "d": 1, "x": 1}, {"t": TaskState({Status.UNSTARTED: 1}, {"a", "b"}, ("x",))}
    )
    graph = rules_graph(rules, state=state)
    assert met(graph) == [("a", "t"), ("b", "any of"), ("any of", "t"), ("x", "all of")]
    assert {node.label: node.fired for node in graph.nodes if node.kind is NodeKind.TRIGGER} == {
        "a": 2,
        "b": 1,
        "c": 0,
        "d": 1,
        "x": 1,
        "y": 0,
    }
    assert [node.met for node in graph.nodes if node.kind is NodeKind.CONDITION] == [True, False]
    assert graph.nodes[-1].statuses == {Status.UNSTARTED: 1}


def test_before_the_first_instance_the_firings_say_it():
    """A task that was configured late has none, though its triggers have fired."""
    state = State({"a": 1, "t_0": 1}, {})
    graph = rules_graph({"t_0": rule(after=["a"]), "t": rule(after=["t_0", "b"])}, state=state)
    assert met(graph) == [("a", "t_0"), ("t_0", "t")]


def test_a_removed_task_is_shown_if_it_has_instances():
    """Its instances are part of the session, and somebody may have to skip them."""
    state = State({}, {"t_old": TaskState({Status.FAILED: 1})})
    node = rules_graph({"t": rule(after=["a"])}, state=state).nodes[-1]
    assert (node.label, node.run, node.notes) == ("t_old", "", ("no longer configured",))
    assert node.statuses == {Status.FAILED: 1}


def test_without_a_session_nothing_is_met_or_unmet():
    """A rule set has no state."""
    graph = rules_graph({"t": rule(after={"any": ["a", "b"]}, unless=["c"])})
    assert {edge.met for edge in graph.edges} | {node.met for node in graph.nodes} == {None}
    assert {node.fired for node in graph.nodes} == {None}


def test_rules_that_only_a_newer_version_understands_are_marked():
    """The picture shows what this version can read of them, and says that there is more."""
    rules = read_rules(
        '{"t_1": {"after": ["a"], "run": "r", "delay": 60}, "t_2": {"after": ["a"], "run": "r"}}'
    )
    assert [node.notes for node in rules_graph(rules).nodes[1:]] == [("written by a newer version",), ()]
    newest = read_rules('{"": {"language": 99}, "t_1": {"after": ["a"], "run": "r"}}')
    assert rules_graph(newest).nodes[1].notes == ("written by a newer version",)


def test_a_configuration_is_checked_and_a_rule_set_is_taken():
    """Both give the same graph; problems are reported as everywhere."""
    rules = {"t": rule(after=["a"])}
    registry = Registry()
    task(name="r", registry=registry)(lambda _context: {})
    with Triggers("memory://", registry=registry) as triggers:
        assert rules_graph(triggers.check(rules)) == rules_graph(rules) == rules_graph(rule_set(rules))
    with pytest.raises(ConfigurationError, match="unknown directive 'afer'"):
        rules_graph({"t": rule(afer=["a"])})


RULES = {
    "t_1": rule(after=["a"]),
    "t_2": rule(after={"any": ["t_1", {"all": ["b", "t_1:failed"]}]}),
    "t_3": rule(after={"atLeast": 2, "of": ["t_2", "c", "d"]}, unless=["stop"]),
    "t_4": rule(after=["t_3"]),
}


def test_a_part_is_a_task_with_what_is_next_to_it():
    """What it waits for, through conditions too, and the tasks that wait for it, but nothing further."""
    part = rules_graph(RULES, title="all").around("t_2")
    assert [node.label for node in part.nodes] == ["b", "t_1", "all of", "any of", "t_2", "2 of 3", "t_3"]
    keys = {node.key for node in part.nodes}
    assert {end for edge in part.edges for end in (edge.source, edge.target)} <= keys
    assert part.title == "all"


def test_a_part_needs_a_task():
    """The error names the one that was probably meant."""
    with pytest.raises(UnknownInstanceError, match=r"there is no task 't2' to draw; did you mean 't_2'\?"):
        rules_graph(RULES).around("t2")
    with pytest.raises(UnknownInstanceError, match="there is no task 'a' to draw"):
        rules_graph(RULES).around("a")


@given(configurations())
@settings(max_examples=settings().max_examples // 4)
def test_every_graph_is_whole(configuration):
    """Keys are unique, edges connect nodes, and each trigger that a rule names is the source of an edge of its task."""
    graph = rules_graph(configuration)
    keys = [node.key for node in graph.nodes]
    assert len({*keys}) == len(keys)
    assert {end for edge in graph.edges for end in (edge.source, edge.target)} <= {*keys}
    rules = rule_set(configuration).rules
    assert [node.label for node in graph.nodes if node.kind is NodeKind.TASK] == list(rules)
    for name, found in rules.items():
        part = graph.around(name)
        into = {edge.target for edge in part.edges}
        assert not found.and_every or EdgeKind.AND_EVERY in {edge.kind for edge in part.edges}
        assert f"task {name}" in into
