"""Mermaid: the nodes and edges of a graph, and no others, whatever the names are."""

from __future__ import annotations

import pytest
from hypothesis import given, settings

from tests.graph.drawings import HOSTILE, IMPOSSIBLE, chart, hostile_configurations, hostile_graphs
from triggers import Status
from triggers.core.names import visible
from triggers.graph import Edge, EdgeKind, Graph, Node, NodeKind, rules_graph, to_mermaid

RULES = {
    "t_import": {"after": ["page", "complete"], "run": "ImportSubject", "retry": {"max": 5}},
    "t_each": {
        "after": ["t_import"],
        "andEvery": "page",
        "unless": ["test"],
        "run": "Each",
        "using": "inline",
    },
    "t_alarm": {"after": {"any": ["t_import:failed", "t_each:failed"]}, "run": "Alarm"},
}


def test_every_kind_of_node_and_edge_has_its_own_form():
    """Triggers are rounded, tasks are boxes, parts of conditions are hexagons; edges say what they are."""
    found = chart(to_mermaid(rules_graph(RULES)))
    assert found.nodes == {
        "n0": ("([", ["complete"], ""),
        "n1": ("([", ["page"], ""),
        "n2": ("([", ["test"], ""),
        "n3": ("[", ["t_import", "5 retries"], ""),
        "n4": ("[", ["t_each", "using inline"], ""),
        "n5": ("{{", ["any of"], ""),
        "n6": ("[", ["t_alarm"], ""),
    }
    assert found.edges == [
        ("n1", "-->", "", "n3"),
        ("n0", "-->", "", "n3"),
        ("n3", "-->", "", "n4"),
        ("n1", "-->", "every", "n4"),
        ("n2", "-.-x", "unless", "n4"),
        ("n3", "-->", "failed", "n5"),
        ("n4", "-->", "failed", "n5"),
        ("n5", "-->", "", "n6"),
    ]
    assert found.rest == []


def test_what_has_happened_is_told():
    """Met edges are thick, a veto says that it has fired, and nodes have counts and the class of their state."""
    nodes = (
        Node("a", NodeKind.TRIGGER, "paid", fired=3),
        Node("b", NodeKind.TRIGGER, "stop", fired=0),
        Node("c", NodeKind.TASK, "t_x", run="X", statuses={Status.FINISHED: 1200, Status.FAILED: 1}),
        Node("d", NodeKind.CONDITION, "all of", met=True),
    )
    edges = (
        Edge("a", "c", EdgeKind.AND_EVERY, met=True),
        Edge("a", "d", EdgeKind.UNLESS, met=True),
        Edge("d", "c", EdgeKind.UNLESS, met=True),
        Edge("b", "c", EdgeKind.AFTER, met=False),
    )
    found = chart(to_mermaid(Graph(nodes, edges, "Session 1")))
    assert list(found.nodes.values()) == [
        ("([", ["paid \u00d73"], "fired"),
        ("([", ["stop"], "unfired"),
        ("[", ["t_x", "1 failed, 1,200 finished"], "failed"),
        ("{{", ["all of"], "fired"),
    ]
    assert [edge[1:3] for edge in found.edges] == [
        ("==>", "every"),
        ("-.->", ""),
        ("-.-x", "unless, fired"),
        ("-->", ""),
    ]
    assert found.rest[0] == "accTitle: Session 1"
    assert {line.split()[1] for line in found.rest[1:]} == {"fired", "unfired", "failed"}


def test_without_tasks_it_says_so():
    """An empty flowchart is no picture at all."""
    assert chart(to_mermaid(rules_graph({}))).nodes == {"n0": ("[", ["There are no tasks."], "")}


@pytest.mark.parametrize("name", [*HOSTILE, *IMPOSSIBLE])
def test_a_name_is_shown_as_it_is(name):
    """Every character that Mermaid, Markdown or HTML would understand is a code, and comes back as it was."""
    graph = Graph((Node("a", NodeKind.TASK, name, notes=(name,)), Node("b", NodeKind.TRIGGER, name)), ())
    shown = visible(name if len(name) <= 60 else f"{name[:59]}…").replace("\u200b", "").replace("\xa0", " ")
    found = chart(to_mermaid(graph))
    assert [label for _, label, _ in found.nodes.values()] == [[shown, shown], [shown]]


@pytest.mark.parametrize(
    ("name", "written"),
    [
        ("t_importSubject", "t_importSubject"),
        ("survey.Import-Subject 2", "survey.Import-Subject 2"),
        ("日本語", "日本語"),
        ("_x", "#95;x"),
        ("a  b", "a#160;#160;b"),
        ("a\\nb", "a#92;#8203;nb"),
        ("fa:fa-ban", "fa#58;#8203;fa-ban"),
        ("www.a.b", "www#46;a.b"),
    ],
)
def test_usual_names_can_be_read_in_the_source(name, written):
    """Only what could have a meaning is a code. A space without a width parts what has one even as codes."""
    assert f'n0["{written}"]' in to_mermaid(Graph((Node("a", NodeKind.TASK, name),), ()))


@given(hostile_configurations())
@settings(max_examples=settings().max_examples // 3)
def test_any_configuration_has_a_valid_flowchart(configuration):
    """It has a node for each node of the graph, and an edge for each edge."""
    graph = rules_graph(configuration)
    found = chart(to_mermaid(graph))
    ids = {node.key: f"n{number}" for number, node in enumerate(graph.nodes)}
    assert [(edge[0], edge[3]) for edge in found.edges] == [
        (ids[e.source], ids[e.target]) for e in graph.edges
    ]
    assert len(found.nodes) == len(graph.nodes)


@given(hostile_graphs())
@settings(max_examples=settings().max_examples // 2)
def test_any_graph_has_a_valid_flowchart(graph):
    """Names that no rule can have, and titles, change nothing about its form."""
    found = chart(to_mermaid(graph))
    assert len(found.nodes) == max(len(graph.nodes), 1)
    assert len(found.edges) == len(graph.edges)


@pytest.mark.slow
def test_the_largest_configuration_has_a_flowchart():
    """A configuration may have 10,000 tasks."""
    rules = {f"t_{n}": {"after": [f"t_{n // 2}" if n else "go", f"e{n}"], "run": "r"} for n in range(10_000)}
    assert len(chart(to_mermaid(rules_graph(rules))).nodes) == 20_001
