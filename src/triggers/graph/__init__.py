"""Draws rules, and sessions with their rules, as Mermaid and as SVG.

:func:`rules_graph` and :func:`session_graph` return a :class:`Graph`, which is plain data. :func:`to_mermaid`
and :func:`to_svg` return it as text.
"""

from triggers.graph.live import session_graph
from triggers.graph.mermaid import to_mermaid
from triggers.graph.model import Edge, EdgeKind, Graph, Node, NodeKind, State, TaskState, rules_graph
from triggers.graph.style import STYLE
from triggers.graph.svg import to_svg

__all__ = [
    "STYLE",
    "Edge",
    "EdgeKind",
    "Graph",
    "Node",
    "NodeKind",
    "State",
    "TaskState",
    "rules_graph",
    "session_graph",
    "to_mermaid",
    "to_svg",
]
