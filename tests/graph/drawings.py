"""Reads drawings back: SVG with a parser for XML, and Mermaid line by line, with no more syntax than is written."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, NamedTuple
from xml.etree import ElementTree as ET

from hypothesis import strategies as st

from triggers.core.names import is_name
from triggers.graph import Edge, EdgeKind, Graph, Node, NodeKind
from triggers.graph.texts import NAME, RUN, TITLE, WORD, width
from triggers.testing.conformance.strategies import TASKS, TRIGGERS, configurations

SVG = "{http://www.w3.org/2000/svg}"
FONTS = {font.name: font for font in (NAME, RUN, WORD, TITLE)}

#: Names that mean something to HTML, XML, Markdown, Mermaid or a terminal, or that are hard to draw.
HOSTILE = [
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</svg>", "]]>", "<!--", "&amp;", "&lt;b&gt;",
    "a\"b'c`d", "`md`", "`**b**`", "**bold**", "_x_", "__init__", "1. one", "- one", "# one", "> one", "~~~", "$$x$$",
    "https://www.example.com/x", "www.example.com", "me@example.com", "fa:fa-ban", "fab:fa-x", "javascript:alert(1)",
    "end", "graph", "subgraph", "flowchart", "click", "style", "class", "default", "o", "x", "n0",
    "style a:b#c;d", "classDef x:y#z;", "%%{init: {}}%%", "%% x", "#quot;", "#35;", "a;b", "a|b", "[x]", "{{x}}", "((x))",
    "x-->y", "A---oB", "@{ shape: rect }", "a\\nb", "\\", "\ufb02\xb0\xb035\xb6\xdf", "<br/>",
    "日本語", "שלום עולם", "مرحبا", "e\u0301\u0301", "👩‍👩‍👧", "﷽", "  two  spaces ", "x" * 240, "日" * 240,
    "\ufffe", "\uffff", "\u200b", "t_1:failed",
]  # fmt: skip
#: Names that no rule can have. A drawing does not rely on that.
IMPOSSIBLE = ["", "a\nb", "\t", "\x00", "\x1b[31m", "\u202eabc", "\r\n  n9 --> n9", "x" * 1000, "\ud800"]


def hostile_configurations() -> st.SearchStrategy[dict[str, object]]:
    """Valid configurations whose triggers and tasks have hostile names."""
    names = [name for name in HOSTILE if is_name(name)]
    count = len(TRIGGERS) + len(TASKS)
    chosen = st.lists(st.sampled_from(names), min_size=count, max_size=count, unique=True)
    return st.builds(_renamed, configurations(), chosen)


def _renamed(value: Any, names: list[str]) -> Any:
    """The same configuration with other names for its triggers and tasks."""
    if isinstance(value, dict):
        return {_renamed(key, names): _renamed(item, names) for key, item in value.items()}
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    known = dict(zip((*TRIGGERS, *TASKS), names, strict=True))
    task, mark, word = value.partition(":") if isinstance(value, str) else (value, "", "")
    return known[task] + mark + word if task in known else value


def hostile_graphs() -> st.SearchStrategy[Graph]:
    """Graphs of any shape, with names that no rule can have."""
    name = st.sampled_from(HOSTILE + IMPOSSIBLE) | st.text(max_size=30)
    node = st.builds(
        Node,
        st.just(""),
        st.sampled_from(NodeKind),
        name,
        run=name,
        notes=st.lists(name, max_size=2).map(tuple),
        fired=st.none() | st.integers(0, 10**6),
        met=st.none() | st.booleans(),
    )
    end = st.integers(0, 5)
    words = st.sampled_from(["", "failed", "ended"])
    edge = st.tuples(end, end, st.sampled_from(EdgeKind), words, st.none() | st.booleans())
    return st.builds(_graph, st.lists(node, max_size=6), st.lists(edge, max_size=8), name)


def _graph(nodes: list[Node], edges: list[tuple[int, int, EdgeKind, str, bool | None]], title: str) -> Graph:
    keyed = tuple(replace(node, key=f"k{number}") for number, node in enumerate(nodes))
    keys = [node.key for node in keyed]
    made = [Edge(keys[a % len(keys)], keys[b % len(keys)], *rest) for a, b, *rest in edges if keys]
    return Graph(keyed, tuple(made), title)


# -- SVG ------------------------------------------------------------------------------------------------


class Rectangle(NamedTuple):
    """A box of a drawing."""

    x: float
    y: float
    width: float
    height: float

    def overlaps(self, other: Rectangle) -> bool:
        return (
            self.x < other.x + other.width
            and other.x < self.x + self.width
            and self.y < other.y + other.height
            and other.y < self.y + self.height
        )


class Text(NamedTuple):
    """A text of a drawing, and between which distances from the left side of its box it is."""

    text: str
    begin: float
    end: float
    y: float


@dataclass
class Drawing:
    """What a reader sees.

    Attributes:
        root: the document.
        size: of the picture.
        boxes: the nodes, in their order.
        texts: for each node, its texts.
        titles: for each node, its tooltip.
        classes: for each node, its classes.
        paths: for each edge, its points, in pairs that a straight part connects.
        kinds: for each edge, its classes.
    """

    root: ET.Element
    size: Rectangle
    boxes: list[Rectangle]
    texts: list[list[Text]]
    titles: list[str]
    classes: list[set[str]]
    paths: list[list[tuple[float, float]]]
    kinds: list[set[str]]

    def words(self) -> list[list[str]]:
        return [[text.text for text in texts] for texts in self.texts]


def drawing(svg: str) -> Drawing:
    """Parse a drawing, which must be well-formed."""
    root = ET.fromstring(svg)  # noqa: S314 - the library wrote it
    nodes = [group for group in root.iter(f"{SVG}g") if "node" in group.get("class", "").split()]
    edges = [path for path in root.iter(f"{SVG}path") if "edge" in path.get("class", "").split()]
    return Drawing(
        root,
        Rectangle(0, 0, float(root.get("width")), float(root.get("height"))),
        [_rectangle(node) for node in nodes],
        [[_text(text) for text in node.iter(f"{SVG}text")] for node in nodes],
        [node.findtext(f"{SVG}title") for node in nodes],
        [{*node.get("class").split()} for node in nodes],
        [_points(path.get("d")) for path in edges],
        [{*path.get("class").split()} for path in edges],
    )


def _rectangle(node: ET.Element) -> Rectangle:
    """The box of a node, which clips its texts."""
    x, y = re.fullmatch(r"translate\((\S+) (\S+)\)", node.get("transform")).groups()
    shape, content = node.find(f"{SVG}rect"), node.find(f"{SVG}svg")
    assert [content.get("width"), content.get("height")] == [shape.get("width"), shape.get("height")]
    assert {*content.iter(f"{SVG}text")} == {*node.iter(f"{SVG}text")}
    return Rectangle(float(x), float(y), float(shape.get("width")), float(shape.get("height")))


def _text(text: ET.Element) -> Text:
    classes = text.get("class").split()
    wide = width(text.text or "", FONTS[classes[0]])
    x = float(text.get("x")) - (wide / 2 if "middle" in classes else 0)
    return Text(text.text or "", x, x + wide, float(text.get("y")))


def _points(path: str) -> list[tuple[float, float]]:
    """The points of a path: M x y, H x, and curves, of which only the ends count."""
    points: list[tuple[float, float]] = []
    for command, numbers in re.findall(r"([MHC])([^MHC]*)", path):
        values = [float(number) for number in numbers.split()]
        points.append((values[0], points[-1][1]) if command == "H" else (values[-2], values[-1]))
    return points


def assert_can_be_read(drawn: Drawing) -> None:
    """Nothing overlaps, everything is inside of the picture, and lines begin and end at boxes and cross none."""
    for number, box in enumerate(drawn.boxes):
        assert box.x >= 0
        assert box.y >= 0
        assert box.x + box.width <= drawn.size.width
        assert box.y + box.height <= drawn.size.height
        assert not any(box.overlaps(other) for other in drawn.boxes[:number])
        for text in drawn.texts[number]:
            assert text.begin >= 0
            assert text.end <= box.width + 0.1
            assert 0 < text.y < box.height
    for points in drawn.paths:
        (begin_x, begin_y), (end_x, end_y) = points[0], points[-1]
        assert any(abs(b.x + b.width - begin_x) < 0.2 and b.y < begin_y < b.y + b.height for b in drawn.boxes)
        assert any(abs(b.x - end_x) < 0.2 and b.y < end_y < b.y + b.height for b in drawn.boxes)
        for (x, y), (other, _) in zip(points[::2], points[1::2], strict=True):
            line = Rectangle(min(x, other) + 0.2, y - 0.1, abs(other - x) - 0.4, 0.2)
            assert line.width <= 0 or not any(line.overlaps(box) for box in drawn.boxes)


# -- Mermaid --------------------------------------------------------------------------------------------

#: A label: entity codes, line breaks, and characters without a meaning.
_LABEL = r"(?:#\d+;|<br/>|[^\x00-\x1f\x7f-\xa0\"#;<>&`\\*{}\[\]()|@%$~=+:!?'/^])*"
_NODE = re.compile(rf"    (n\d+)(\(\[|\[|\{{\{{)\"({_LABEL})\"(\]\)|\]|\}}\}})(?::::(\w+))?")
_EDGE = re.compile(rf"    (n\d+) (-->|==>|-\.-x|-\.->)(?:\|\"({_LABEL})\"\|)? (n\d+)")
_OTHER = re.compile(rf"    (accTitle: {_LABEL}|classDef \w+ [\w:#,\- ]+)")


@dataclass
class Chart:
    """A flowchart.

    Attributes:
        nodes: id → (mark before the label, lines of the label, class).
        edges: (id, arrow, label, id).
        rest: other lines.
    """

    nodes: dict[str, tuple[str, list[str], str]]
    edges: list[tuple[str, str, str, str]]
    rest: list[str]


def chart(mermaid: str) -> Chart:
    """Parse a flowchart; every line must be of a known form."""
    first, *lines = mermaid.removesuffix("\n").split("\n")
    assert first == "flowchart LR"
    found = Chart({}, [], [])
    for line in lines:
        if node := _NODE.fullmatch(line):
            assert node[1] not in found.nodes
            found.nodes[node[1]] = (
                node[2],
                [_decoded(part) for part in node[3].split("<br/>")],
                node[5] or "",
            )
        elif edge := _EDGE.fullmatch(line):
            found.edges.append((edge[1], edge[2], edge[3] or "", edge[4]))
        else:
            assert _OTHER.fullmatch(line), line
            found.rest.append(line.strip())
    assert {end for edge in found.edges for end in (edge[0], edge[3])} <= found.nodes.keys()
    return found


def _decoded(text: str) -> str:
    plain = re.sub(r"#(\d+);", lambda code: chr(int(code[1])), text)
    return plain.replace("\u200b", "").replace("\xa0", " ")
