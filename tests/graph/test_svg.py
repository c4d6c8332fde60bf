"""SVG: a picture in which nothing overlaps, every name is harmless, and what happened can be seen without color."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings

from tests.graph.drawings import (
    HOSTILE,
    IMPOSSIBLE,
    SVG,
    assert_can_be_read,
    drawing,
    hostile_configurations,
    hostile_graphs,
)
from triggers import Status
from triggers.core.names import visible
from triggers.exceptions import GraphTooLargeError
from triggers.graph import STYLE, Edge, EdgeKind, Graph, Node, NodeKind, rules_graph, to_svg
from triggers.graph.svg import MOST_EDGES, MOST_NODES

RULES = {
    "t_import": {"after": ["firstPage", "complete"], "run": "survey.ImportSubject", "retry": {"max": 1}},
    "t_each": {"after": ["t_import"], "andEvery": "page", "unless": ["test"], "run": "survey.Each"},
    "t_browser": {
        "after": ["t_import", "page"],
        "unless": {"any": ["embedded", "test"]},
        "run": "survey.Browser",
    },
    "t_alarm": {"after": {"any": ["t_import:failed", "t_each:failed"]}, "run": "ops.Alarm"},
    "t_two": {"after": {"atLeast": 2, "of": ["t_each", "t_browser", "late"]}, "run": "ops.Two"},
    "t_loop": {"after": {"any": ["t_loop", "t_two", "go"]}, "run": "ops.Loop"},
}


def test_the_picture_can_be_read():
    """Boxes and texts do not overlap, and lines begin and end at boxes and cross none, also where they lead back."""
    graph = rules_graph(RULES)
    drawn = drawing(to_svg(graph))
    assert_can_be_read(drawn)
    assert len(drawn.boxes) == len(graph.nodes)
    assert len(drawn.paths) == len(graph.edges)


def test_nodes_say_what_they_are():
    """A task shows its name, what it runs and its directives; the tooltip has everything."""
    drawn = drawing(to_svg(rules_graph(RULES)))
    assert ["t_import", "survey.ImportSubject", "1 retry"] in drawn.words()
    assert ["2 of 3"] in drawn.words()
    assert "task t_import, runs survey.ImportSubject, 1 retry" in drawn.titles
    assert {"trigger firstPage", "any of", "task t_loop, runs ops.Loop"} <= {*drawn.titles}


def test_edges_say_what_they_are():
    """`every`, `unless` and outcomes are labels; a veto is dashed and ends with a bar."""
    root = drawing(to_svg(rules_graph(RULES))).root
    edges = next(group for group in root.iter(f"{SVG}g") if group.get("class") == "edges")
    labels = sorted(text.text for text in edges.iter(f"{SVG}text"))
    assert labels == ["every", "failed", "failed", "unless", "unless"]
    classes = [path.get("class").split() for path in edges.iter(f"{SVG}path")]
    assert sum("bar" in found for found in classes) == 2
    assert sum({"edge", "unless"} <= {*found} for found in classes) == 4  # two of them to the part `any of`
    assert ".unless { stroke-dasharray:" in STYLE


def test_what_has_happened_can_be_seen():
    """Counts with a word and a shape, filled triggers with a count, thick lines."""
    nodes = (
        Node("a", NodeKind.TRIGGER, "paid", fired=3),
        Node("b", NodeKind.TRIGGER, "stop", fired=0),
        Node("c", NodeKind.TASK, "t_x", run="X", statuses=dict.fromkeys(Status, 1_000)),
        Node("d", NodeKind.TASK, "t_old", notes=("no longer configured",), statuses={Status.FINISHED: 1}),
    )
    edges = (Edge("a", "c", EdgeKind.AFTER, met=True), Edge("b", "c", EdgeKind.UNLESS, met=False))
    drawn = drawing(to_svg(Graph(nodes, edges, "Session 1")))
    assert_can_be_read(drawn)
    assert drawn.words()[:2] == [["paid", "\u00d73"], ["stop"]]
    assert sorted(drawn.words()[2][2:]) == sorted(f"1,000 {status}" for status in Status)
    assert drawn.titles[0] == "trigger paid, fired 3 times"
    assert drawn.classes == [
        {"node", "trigger", "fired"},
        {"node", "trigger", "unfired"},
        {"node", "task"},
        {"node", "task", "removed"},
    ]
    assert sorted(map(sorted, drawn.kinds)) == [["after", "edge", "met"], ["edge", "unless", "unmet"]]
    assert drawn.root.findtext(f"{SVG}title") == "Session 1"
    icons = re.findall(r'class="icon of-(\w+)"', to_svg(Graph(nodes, edges)))
    assert {*icons} == {"fired", *Status}


def test_a_single_task_and_none():
    """The smallest pictures are pictures, too."""
    drawn = drawing(to_svg(rules_graph({"t_x": {"after": ["a"], "run": "r"}})))
    assert_can_be_read(drawn)
    assert len(drawn.boxes) == 2
    empty = drawing(to_svg(rules_graph({})))
    assert [text.text for text in empty.root.iter(f"{SVG}text")] == ["There are no tasks."]


def test_sixty_tasks():
    """With many tasks, lines that pass columns still cross no box."""
    rules = {
        f"t_{n}": {
            "after": [*sorted({f"t_{m}" for m in (n // 2, n - 7) if 0 <= m < n}), f"e{n % 9}"],
            "run": "r",
        }
        for n in range(60)
    }
    drawn = drawing(to_svg(rules_graph(rules)))
    assert_can_be_read(drawn)
    assert len(drawn.boxes) == 69


@pytest.mark.parametrize("name", [*HOSTILE, *IMPOSSIBLE])
def test_a_name_is_only_text(name):
    """It is shown as it is, or cut with its whole length in the tooltip, and it becomes no element."""
    plain = Graph((Node("a", NodeKind.TASK, "plain", run="plain", notes=("plain",)),), (), "plain")
    graph = Graph((Node("a", NodeKind.TASK, name, run=name, notes=(name,)),), (), name)
    drawn = drawing(to_svg(graph))
    assert_can_be_read(drawn)
    whole = visible(name).replace("\ufffe", "\\ufffe").replace("\uffff", "\\uffff")
    assert whole in drawn.titles[0]
    (shown, *_) = drawn.words()[0] or [""]
    assert shown == whole or (shown.endswith("…") and whole.startswith(shown[:-1]))
    if name:  # texts that are empty are left out
        assert [element.tag for element in drawn.root.iter()] == [
            element.tag for element in drawing(to_svg(plain)).root.iter()
        ]


@given(hostile_configurations())
@settings(max_examples=settings().max_examples // 3)
def test_any_configuration_can_be_read(configuration):
    """Cycles, own outcomes, the same trigger in several places: nothing overlaps."""
    graph = rules_graph(configuration)
    drawn = drawing(to_svg(graph))
    assert_can_be_read(drawn)
    assert len(drawn.boxes) == len(graph.nodes)
    assert len(drawn.paths) == len(graph.edges)


@given(hostile_graphs())
@settings(max_examples=settings().max_examples // 2)
def test_any_graph_can_be_read(graph):
    """So are graphs that no rules have."""
    drawn = drawing(to_svg(graph))
    assert_can_be_read(drawn)
    assert len(drawn.paths) == len(graph.edges)


def test_the_picture_needs_nothing_from_outside():
    """No script, no image, no font, no address but that of the format; colors for light and dark."""
    svg = to_svg(rules_graph(RULES))
    tags = {element.tag.removeprefix(SVG) for element in drawing(svg).root.iter()}
    assert tags == {"svg", "title", "style", "rect", "g", "path", "text"}
    assert re.findall(r"\w+://[^\"' )]+", svg) == ["http://www.w3.org/2000/svg"]
    assert not re.search(r"@import|@font-face|url\(|\son\w+=|\sstyle=", svg)
    assert "prefers-color-scheme: dark" in svg


def test_every_rule_of_the_style_sheet_is_for_drawings_only():
    """A page that contains a drawing keeps its own look."""
    rules = re.sub(r"@media \(prefers-color-scheme: dark\) \{(.*)\}\n", r"\1\n", STYLE)
    selectors = [one.strip() for found in re.findall(r"([^{}]+)\{[^}]*\}", rules) for one in found.split(",")]
    assert len(selectors) > 20
    assert all(selector.startswith(".triggers-graph") for selector in selectors)
    assert {*re.findall(r"var\((--[\w-]+)\)", STYLE)} <= {*re.findall(r"(--[\w-]+):", STYLE)}


def test_a_page_can_bring_its_own_style():
    """Without its style sheet, a drawing has no styles at all, as a strict content security policy wants it."""
    assert "<style" not in to_svg(rules_graph(RULES), styled=False)


def test_nodes_can_be_links():
    """Those for which there is an address; it is escaped."""

    def link(node):
        return f'/x?a=1&b="{node.label}"' if node.kind is NodeKind.TASK else None

    root = drawing(to_svg(rules_graph({"t_<x>": {"after": ["a"], "run": "r"}}), link=link)).root
    assert [element.get("href") for element in root.iter(f"{SVG}a")] == ['/x?a=1&b="t_<x>"']


@pytest.mark.parametrize(
    ("nodes", "edges"),
    [(MOST_NODES + 1, 0), (2, MOST_EDGES + 1)],
    ids=["nodes", "edges"],
)
def test_what_is_too_large_is_refused(nodes, edges):
    """The error has the size and says what to do instead."""
    graph = Graph(
        tuple(Node(f"{n}", NodeKind.TASK, f"{n}") for n in range(nodes)),
        (Edge("0", "1", EdgeKind.AFTER),) * edges,
    )
    expected = f"a graph with {nodes:,} nodes and {edges:,} edges is too large for SVG: draw one task"
    with pytest.raises(GraphTooLargeError, match=expected):
        to_svg(graph)


def test_too_many_lines_beside_each_other_are_refused():
    """In a long chain in which each task also vetoes all that follow, a line passes nearly every column."""
    rules = {f"t_{n}": {"after": [f"t_{n - 1}" if n else "go"], "run": "r"} for n in range(150)}
    rules["t_last"] = {"after": [*rules], "run": "r"}
    with pytest.raises(GraphTooLargeError):
        to_svg(rules_graph(rules))
