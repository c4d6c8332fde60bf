"""Draws a graph as SVG: a pure text, without scripts, fonts or anything else from outside."""

from __future__ import annotations

from collections import defaultdict
from html import escape
from itertools import pairwise
from typing import TYPE_CHECKING, Final

from triggers.exceptions import GraphTooLargeError
from triggers.graph.faces import ICON, ICON_GAP, SIDE, Face, Word, face_of, sentence, worst
from triggers.graph.layout import TURN, Box, Line, Placed, Point, TooManyPlacesError, layout
from triggers.graph.model import Edge, EdgeKind, Graph, Node, NodeKind
from triggers.graph.style import STYLE
from triggers.graph.texts import TITLE, WORD, displayable, fitting, width

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence

    from triggers.graph.layout import Layout

#: How many nodes are drawn at most.
MOST_NODES: Final = 1_000
#: How many edges are drawn at most.
MOST_EDGES: Final = 5_000
#: How many places the nodes, and the lines beside them, have at most in all columns.
MOST_PLACES: Final = 5_000

#: The space around the drawing.
MARGIN: Final = 28.0
#: The space for the title.
_TITLE_HEIGHT: Final = 34.0
#: The widest title.
_WIDEST_TITLE: Final = 700.0
#: The length of the end of a line, for an arrowhead or a bar, and of its beginning.
_HEAD: Final = 16.0
_BEGIN: Final = 6.0
#: The space beside the label of a line.
_LABEL_GAP: Final = 6.0

#: Directive → the label of its edges.
_LABELS: Final = {EdgeKind.AFTER: "", EdgeKind.AND_EVERY: "every", EdgeKind.UNLESS: "unless"}


def to_svg(graph: Graph, *, styled: bool = True, link: Callable[[Node], str | None] | None = None) -> str:
    """Return a graph as an SVG document.

    It can stand alone, or be part of a page. All names are escaped, and those that are too long are cut; the
    tooltip has the whole name.

    Args:
        graph: the graph.
        styled: whether it contains its style sheet. If not, the page has to contain
            :data:`triggers.graph.STYLE`.
        link: returns the address that a node links to, or None. Addresses are escaped and not checked.

    Raises:
        GraphTooLargeError: it has more than 1,000 nodes or 5,000 edges, or too many lines that pass columns.
    """
    _check_size(graph)
    nodes = {node.key: node for node in graph.nodes}
    faces, boxes = _boxes(graph.nodes, graph.edges)
    lines = list(dict.fromkeys(_line(edge, nodes) for edge in graph.edges))
    try:
        found = layout(boxes, lines, MOST_PLACES)
    except TooManyPlacesError:
        raise _too_large(graph) from None
    parts = [*_edges(graph.edges, nodes, found), *_nodes(nodes, faces, found, link)]
    return _document(graph, found, parts, styled=styled)


def _check_size(graph: Graph) -> None:
    if len(graph.nodes) > MOST_NODES or len(graph.edges) > MOST_EDGES:
        raise _too_large(graph)


def _too_large(graph: Graph) -> GraphTooLargeError:
    message = (
        f"a graph with {len(graph.nodes):,} nodes and {len(graph.edges):,} edges is too large for SVG: "
        f"draw one task and what is next to it, or use Mermaid"
    )
    return GraphTooLargeError(message)


# -- sizes ----------------------------------------------------------------------------------------------


def _boxes(nodes: Iterable[Node], edges: Iterable[Edge]) -> tuple[dict[str, Face], list[Box]]:
    """Return what each node shows, and its box with the ports of its edges."""
    outs: dict[str, set[str]] = defaultdict(set)
    ins: dict[str, set[str]] = defaultdict(set)
    for edge in edges:
        outs[edge.source].add(edge.outcome)
        ins[edge.target].add(edge.kind.value)
    faces: dict[str, Face] = {}
    boxes = []
    for node in nodes:
        own_outs, own_ins = outs[node.key], ins[node.key] if node.kind is NodeKind.TASK else {""}
        faces[node.key] = face = face_of(node, max(len(own_outs), len(own_ins)))
        boxes.append(_box(node, face, own_outs, own_ins))
    return faces, boxes


def _box(node: Node, face: Face, outs: Collection[str], ins: Collection[str]) -> Box:
    is_task = node.kind is NodeKind.TASK
    labels = [_LABELS[kind] for kind in EdgeKind if kind.value in ins] if is_task else []
    return Box(
        node.key,
        face.width,
        face.height,
        outs=tuple(sorted(outs)),
        ins=tuple(sorted(ins)),
        before=max((_run(label) for label in labels), default=0.0) + _HEAD,
        behind=max((_run(label) for label in outs), default=0.0) + _BEGIN,
        stretches=is_task,
    )


def _run(label: str) -> float:
    """Return how long a line has to be straight for a label."""
    return width(label, WORD) + 2 * _LABEL_GAP if label else 0.0


def _line(edge: Edge, nodes: Mapping[str, Node]) -> Line:
    is_task = nodes[edge.target].kind is NodeKind.TASK
    return Line(edge.source, edge.outcome, edge.target, edge.kind.value if is_task else "")


# -- the document ---------------------------------------------------------------------------------------


def _document(graph: Graph, found: Layout, parts: Iterable[str], *, styled: bool) -> str:
    title = fitting(graph.title, TITLE, _WIDEST_TITLE) if graph.title else ""
    above = MARGIN + (_TITLE_HEIGHT if title else 0.0)
    empty = [] if graph.nodes else [_text(0, 11, "There are no tasks.", "word")]
    wide = max(found.width, width(title, TITLE), 0.0 if graph.nodes else 140.0) + 2 * MARGIN
    high = max(found.height, 0.0 if graph.nodes else 16.0) + above + MARGIN
    size = f'viewBox="0 0 {_n(wide)} {_n(high)}" width="{_n(wide)}" height="{_n(high)}"'
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="triggers-graph" role="group" {size}>',
        f"<title>{_escaped(graph.title or 'Triggers and tasks')}</title>",
        *([f"<style>{STYLE}</style>"] if styled else ()),
        f'<rect class="paper" width="{_n(wide)}" height="{_n(high)}"/>',
        *([_text(MARGIN, MARGIN + TITLE.size, title, "title")] if title else ()),
        f'<g transform="translate({_n(MARGIN)} {_n(above)})">',
        *parts,
        *empty,
        "</g>",
        "</svg>",
    ]
    return "\n".join(lines) + "\n"


def _text(x: float, y: float, text: str, classes: str) -> str:
    return f'<text class="{classes}" x="{_n(x)}" y="{_n(y)}">{_escaped(text)}</text>'


def _n(value: float) -> str:
    """Return a length with at most one decimal."""
    return f"{value:.1f}".removesuffix(".0")


def _escaped(text: str) -> str:
    return escape(displayable(text))


# -- edges ----------------------------------------------------------------------------------------------


def _edges(edges: Sequence[Edge], nodes: Mapping[str, Node], found: Layout) -> Iterator[str]:
    """Yield all edges: those that are met lie above the others, and labels above all."""
    yield '<g class="edges">'
    drawn = sorted(edges, key=lambda edge: (bool(edge.met), edge.kind is not EdgeKind.UNLESS))
    ends: dict[tuple[str, str], str] = {}
    labels: dict[str, None] = {}
    for edge in drawn:
        line = _line(edge, nodes)
        points = found.lines[line]
        yield f'<path class="edge {_classes(edge)}" d="{_path(points)}"/>'
        ends[line.target, line.into] = _end(edge, points[-1], nodes[edge.target])
        labels |= dict.fromkeys(_edge_labels(edge, points, nodes[edge.target]))
    yield from ends.values()
    yield from labels
    yield "</g>"


def _classes(edge: Edge) -> str:
    return _CLASSES[edge.kind] + {None: "", True: " met", False: " unmet"}[edge.met]


_CLASSES: Final = {EdgeKind.AFTER: "after", EdgeKind.AND_EVERY: "every", EdgeKind.UNLESS: "unless"}


def _path(points: Sequence[Point]) -> str:
    """Return the path through points that straight parts and curves connect in turns."""
    path = [f"M{_n(points[0].x)} {_n(points[0].y)}"]
    for number, (one, other) in enumerate(pairwise(points)):
        if number % 2 == 0:
            path.append(f"H{_n(other.x)}")
        elif one.x == other.x:  # it turns around, on the right at its beginning, on the left at its end
            bulge = one.x + (TURN / 2 if number == 1 else -TURN / 2)
            path.append(_curve(bulge, one.y, bulge, other))
        else:
            middle = (one.x + other.x) / 2
            path.append(_curve(middle, one.y, middle, other))
    return "".join(path)


def _curve(x: float, y: float, other_x: float, end: Point) -> str:
    return f"C{_n(x)} {_n(y)} {_n(other_x)} {_n(end.y)} {_n(end.x)} {_n(end.y)}"


def _end(edge: Edge, at: Point, target: Node) -> str:
    """Return the arrowhead, or the bar of a veto, at the end of an edge."""
    met = " met" if edge.met else ""
    if edge.kind is EdgeKind.UNLESS and target.kind is NodeKind.TASK:
        return f'<path class="bar{met}" d="M{_n(at.x - 4)} {_n(at.y - 7)}v14"/>'
    return f'<path class="head{met}" d="M{_n(at.x - 8)} {_n(at.y - 4)}l7 4l-7 4z"/>'


def _edge_labels(edge: Edge, points: Sequence[Point], target: Node) -> Iterator[str]:
    """Yield the outcome, beside the source, and the directive, beside the target."""
    if edge.outcome:
        yield _text(points[0].x + _LABEL_GAP, points[0].y + 4, edge.outcome, "outcome")
    label = _LABELS[edge.kind] if target.kind is NodeKind.TASK else ""
    if label:
        x = points[-1].x - _HEAD - width(label, WORD) + _LABEL_GAP / 2
        yield _text(x, points[-1].y + 4, label, "directive")


# -- nodes ----------------------------------------------------------------------------------------------


def _nodes(
    nodes: Mapping[str, Node],
    faces: Mapping[str, Face],
    found: Layout,
    link: Callable[[Node], str | None] | None,
) -> Iterator[str]:
    yield '<g class="nodes">'
    for key, node in nodes.items():
        drawn = "".join(_node(node, faces[key], found.boxes[key]))
        address = link(node) if link else None
        yield drawn if address is None else f'<a href="{_escaped(address)}">{drawn}</a>'
    yield "</g>"


def _node(node: Node, face: Face, placed: Placed) -> Iterator[str]:
    high, wide = placed.box.height, placed.width
    radius = 7.0 if node.kind is NodeKind.TASK else min(high / 2, 18.0)
    yield f'<g class="node {_states(node)}" transform="translate({_n(placed.x)} {_n(placed.y)})">'
    yield f"<title>{_escaped(sentence(node))}</title>"
    yield f'<rect class="shape" width="{_n(wide)}" height="{_n(high)}" rx="{_n(radius)}"/>'
    if status := worst(node):
        side = f"M4.5 0.6A7 7 0 0 0 0 7V{_n(high - 7)}A7 7 0 0 0 4.5 {_n(high - 0.6)}z"
        yield f'<path class="stripe of-{status}" d="{side}"/>'
    # The inner svg element clips: some characters are wider or higher than estimated.
    yield f'<svg width="{_n(wide)}" height="{_n(high)}">'
    if node.kind is NodeKind.CONDITION:
        yield from (_text(wide / 2, word.y, word.text, "word middle") for word in face.words)
    else:
        yield from (part for word in face.words for part in _word(word))
    yield "</svg></g>"


def _states(node: Node) -> str:
    states: dict[str, object] = {
        "fired": node.fired,
        "unfired": node.fired == 0,
        "met": node.met,
        "removed": node.kind is NodeKind.TASK and not node.run,
    }
    return " ".join([node.kind.value, *(name for name, holds in states.items() if holds)])


def _word(word: Word) -> Iterator[str]:
    color = f" of-{word.color}" if word.color else ""
    if word.icon:
        place = f"translate({_n(SIDE + word.x - ICON - ICON_GAP)} {_n(word.y - ICON + 2)})"
        yield f'<g class="icon of-{word.icon}" transform="{place}">{ICONS[word.icon]}</g>'
    yield _text(SIDE + word.x, word.y, word.text, word.font.name + (f" count{color}" if color else ""))


#: Name → the shapes of an icon, in a square of 12 pixels. A ring is on its way; filled means done or failed.
ICONS: Final = {
    "fired": '<path class="solid" d="M6 1l5 5l-5 5l-5 -5z"/>',
    "failed": '<path class="solid" d="M3.9 1h4.2l2.9 2.9v4.2l-2.9 2.9h-4.2l-2.9 -2.9v-4.2z"/>'
    '<path class="mark" d="M4.3 4.3l3.4 3.4m0 -3.4l-3.4 3.4"/>',
    "running": '<circle cx="6" cy="6" r="5"/><path class="solid" d="M5 4l3 2l-3 2z" stroke-width="0.5"/>',
    "scheduled": '<circle cx="6" cy="6" r="5"/><path d="M6 3.2v2.8l2 1.4"/>',
    "unstarted": '<circle cx="6" cy="6" r="5" stroke-dasharray="2 2"/>',
    "finished": '<circle class="solid" cx="6" cy="6" r="5"/><path class="mark" d="M3.8 6.2l1.6 1.6l3 -3.2"/>',
    "skipped": '<path d="M2 2.5l3.5 3.5l-3.5 3.5m4.5 -7l3.5 3.5l-3.5 3.5"/>',
    "replayed": '<path d="M10.4 4.2a4.8 4.8 0 1 0 0.3 3"/><path d="M10.8 1.4v3h-3"/>',
    "abandoned": '<circle cx="6" cy="6" r="5"/><path d="M2.6 9.4l6.8 -6.8"/>',
}
