"""Writes a graph as a Mermaid flowchart.

Node ids are numbers, never names, and every character of a name that could have a meaning for Mermaid, for
Markdown or for HTML is an entity code, so that no name can change the diagram.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from triggers.core.names import visible
from triggers.graph.faces import STATUSES, TIMES, worst
from triggers.graph.model import Edge, EdgeKind, Graph, Node, NodeKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: How many characters of a name are written.
LONGEST: Final = 60

#: The characters that are not written as they are. Others are letters, digits, single spaces between them,
#: and what connects the parts of most names.
_SPECIAL: Final = re.compile(
    r"""
    # The beginning of a line break (\n), of an icon (fa:fa-ban), and of the marks that Mermaid uses.
    (?P<parted> \\ | (?<=fa): | (?<=fa[a-z]): | [\ufb02\xb6] )
    | (?<=www)\.                                   # the beginning of an address, which would become a link
    | (?<![A-Za-z0-9])[_.-] | [_.-](?![A-Za-z0-9]) # those that connect nothing
    | (?<!\S)\x20 | \x20(?!\S)                     # spaces that a browser would drop
    | [\x21-\x2c\x2f\x3a-\x40\x5b-\x5e\x60\x7b-\xa0]
    """,
    re.VERBOSE | re.IGNORECASE,
)

#: Shape of a node → the marks around its label.
_SHAPES: Final = {
    NodeKind.TRIGGER: ('(["', '"])'),
    NodeKind.TASK: ('["', '"]'),
    NodeKind.CONDITION: ('{{"', '"}}'),
}

#: (directive, whether it is met) → the arrow.
_ARROWS: Final = {
    (EdgeKind.AFTER, False): "-->",
    (EdgeKind.AFTER, True): "==>",
    (EdgeKind.AND_EVERY, False): "-->",
    (EdgeKind.AND_EVERY, True): "==>",
    (EdgeKind.UNLESS, False): "-.-x",
    (EdgeKind.UNLESS, True): "-.-x",
}

#: The classes of nodes, with colors that can be read on white and on black.
_CLASSES: Final = (
    "classDef fired stroke:#5b78e0,stroke-width:3px",
    "classDef unfired stroke-dasharray:4 3",
    "classDef failed stroke:#d9483f,stroke-width:3px",
    "classDef running stroke:#3b8be0,stroke-width:3px",
    "classDef scheduled stroke:#8a76e0,stroke-width:3px",
    "classDef finished stroke:#1fa07a,stroke-width:3px",
)
_NAMED: Final = frozenset(line.split()[1] for line in _CLASSES)


def to_mermaid(graph: Graph) -> str:
    """Return a graph as a Mermaid flowchart.

    Names are cut after 60 characters. The size of the graph is not limited, but programs that draw Mermaid
    have limits of their own: by default, 500 edges and 50,000 characters.
    """
    return "\n".join(_lines(graph)) + "\n"


def _lines(graph: Graph) -> Iterator[str]:
    yield "flowchart LR"
    if graph.title:
        yield f"    accTitle: {escaped(graph.title)}"
    if not graph.nodes:
        yield '    n0["There are no tasks."]'
    ids = {node.key: f"n{number}" for number, node in enumerate(graph.nodes)}
    kinds = {node.key: node.kind for node in graph.nodes}
    used = {_class(node) for node in graph.nodes}
    for node in graph.nodes:
        yield f"    {_node(node, ids[node.key])}"
    for edge in graph.edges:
        yield f"    {_edge(edge, ids, kinds)}"
    yield from (f"    {line}" for line in _CLASSES if line.split()[1] in used)


def _node(node: Node, name: str) -> str:
    begin, end = _SHAPES[node.kind]
    label = "<br/>".join(map(escaped, _label(node)))
    style = _class(node)
    return f"{name}{begin}{label}{end}" + (f":::{style}" if style else "")


def _label(node: Node) -> Iterator[str]:
    times = f" {TIMES}{node.fired:,}" if node.fired and node.fired > 1 else ""
    yield _cut(node.label) + times
    if node.notes:
        yield ", ".join(map(_cut, node.notes))
    counts = [f"{count:,} {status}" for status in STATUSES if (count := node.statuses.get(status))]
    if counts:
        yield ", ".join(counts)


def _cut(text: str) -> str:
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _class(node: Node) -> str:
    status = worst(node)
    if status is not None:
        return status if status in _NAMED else ""
    if node.fired is None:
        return "fired" if node.met else ""
    return "fired" if node.fired else "unfired"


def _edge(edge: Edge, ids: Mapping[str, str], kinds: Mapping[str, NodeKind]) -> str:
    arrow = _ARROWS[edge.kind, bool(edge.met)]
    words = [edge.outcome] if edge.outcome else []
    if kinds[edge.target] is NodeKind.TASK:
        words += _words(edge)
    elif edge.kind is EdgeKind.UNLESS:
        arrow = "-.->"
    label = f'|"{", ".join(words)}"|' if words else ""
    return f"{ids[edge.source]} {arrow}{label} {ids[edge.target]}"


def _words(edge: Edge) -> Iterator[str]:
    if edge.kind is EdgeKind.AND_EVERY:
        yield "every"
    if edge.kind is EdgeKind.UNLESS:
        yield "unless, fired" if edge.met else "unless"


#: A space without a width. It parts two characters that have a meaning together even if they are codes.
_NOTHING: Final = "#8203;"


def escaped(text: str) -> str:
    """Return a text for a label, with an entity code for every character that could have a meaning."""
    return _SPECIAL.sub(_code, visible(text))


def _code(found: re.Match[str]) -> str:
    if found[0] == " ":
        return "#160;"
    return f"#{ord(found[0])};" + (_NOTHING if found["parted"] else "")
