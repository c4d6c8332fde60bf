"""Places boxes in columns from left to right, and lines between them.

A line that passes a column gets a place there, like a box without a height, so that no line crosses a box.
The lines that begin at one port share these places: they look like one line that branches. A line that leads
back turns around beside its two boxes.

All lengths are pixels.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

from triggers.graph.heights import Heights, Link
from triggers.graph.layers import Order, columns_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence

#: The distance between two ports of the same side.
PORT_GAP: Final = 18.0
#: The space between two columns, in which lines turn.
TURN: Final = 56.0
#: The space between two parts that are not connected.
PART_GAP: Final = 30.0

#: How many times wider than high a drawing of several parts may become.
_ASPECT: Final = 1.8


@dataclass(frozen=True, slots=True)
class Box:
    """A box to place.

    Attributes:
        key: identifies it.
        width: its width.
        height: its height.
        outs: the ports on the right side.
        ins: the ports on the left side. The order of the ports of a side is chosen so that few lines cross.
        before: the space for labels that lines to it need.
        behind: the space for labels that lines from it need.
        stretches: whether it becomes as wide as the widest such box of its column.
    """

    key: str
    width: float
    height: float
    outs: tuple[str, ...] = ()
    ins: tuple[str, ...] = ()
    before: float = 0.0
    behind: float = 0.0
    stretches: bool = False


class Line(NamedTuple):
    """A line from a port of a box to a port of another box, or of the same one."""

    source: str
    out: str
    target: str
    into: str


class Point(NamedTuple):
    """A point of a drawing, from its top left corner."""

    x: float
    y: float


class Placed(NamedTuple):
    """A box with its place: the top left corner, and how wide it has become."""

    box: Box
    x: float
    y: float
    width: float


@dataclass(slots=True)
class Layout:
    """Boxes and lines with their places.

    Attributes:
        boxes: key → box.
        lines: line → its points. A straight part connects the first and the second point, a curve the second
            and the third, and so on in turns. The last part is straight.
        width: the width of everything.
        height: the height of everything.
    """

    boxes: dict[str, Placed] = field(default_factory=dict)
    lines: dict[Line, tuple[Point, ...]] = field(default_factory=dict)
    width: float = 0.0
    height: float = 0.0

    def take(self, part: Layout, x: float, y: float) -> None:
        """Add another layout, moved to a place."""
        for key, placed in part.boxes.items():
            self.boxes[key] = placed._replace(x=placed.x + x, y=placed.y + y)
        for line, points in part.lines.items():
            self.lines[line] = tuple(Point(point.x + x, point.y + y) for point in points)
        self.width = max(self.width, x + part.width)
        self.height = max(self.height, y + part.height)


class TooManyPlacesError(Exception):
    """The drawing would have more places than allowed."""


def layout(boxes: Sequence[Box], lines: Sequence[Line], most: int) -> Layout:
    """Place all boxes and lines.

    Args:
        boxes: the boxes. Where nothing else decides, they keep their order.
        lines: the lines.
        most: how many places there may be, for boxes, and for lines that pass a column.

    Raises:
        TooManyPlacesError: there would be more.
    """
    parts = [_Part(found, own) for found, own in _connected(boxes, lines)]
    if sum(part.places for part in parts) > most:
        raise TooManyPlacesError
    return _packed([part.layout() for part in parts])


def _connected(boxes: Sequence[Box], lines: Sequence[Line]) -> Collection[tuple[list[Box], list[Line]]]:
    """Return the boxes and lines of each connected part."""
    beside: dict[str, list[str]] = defaultdict(list)
    for line in lines:
        beside[line.source].append(line.target)
        beside[line.target].append(line.source)
    part_of: dict[str, str] = {}
    for box in boxes:
        heads = [] if box.key in part_of else [box.key]
        for head in heads:  # grows meanwhile
            if head not in part_of:
                part_of[head] = box.key
                heads += beside[head]
    found: dict[str, tuple[list[Box], list[Line]]] = defaultdict(lambda: ([], []))
    for box in boxes:
        found[part_of[box.key]][0].append(box)
    for line in lines:
        found[part_of[line.source]][1].append(line)
    return found.values()


def _packed(parts: Sequence[Layout]) -> Layout:
    """Return one layout with all parts, in rows from left to right."""
    area = sum((part.width + PART_GAP) * (part.height + PART_GAP) for part in parts)
    most = max([(area * _ASPECT) ** 0.5, *(part.width for part in parts)])
    packed = Layout()
    x = y = below = 0.0
    for part in parts:
        if x and x + part.width > most:
            x, y = 0.0, below + PART_GAP
        packed.take(part, x, y)
        x += part.width + PART_GAP
        below = max(below, y + part.height)
    return packed


class _Trunk(NamedTuple):
    """What the lines from one port have in common: the port, and whether they lead back."""

    source: str
    out: str
    back: bool


class _Part:
    """Places the boxes of one connected part.

    A place is a number: first the boxes in their order, then the columns that lines pass.
    """

    def __init__(self, boxes: Sequence[Box], lines: Sequence[Line]) -> None:
        self._boxes = {box.key: box for box in boxes}
        self._number = {box.key: number for number, box in enumerate(boxes)}
        self._lines = lines
        self._outs = {(box.key, port): dy for box in boxes for port, dy in _spread(box.outs)}
        self._ins = {(box.key, port): dy for box in boxes for port, dy in _spread(box.ins)}
        self._column = columns_of(tuple(self._boxes), ((line.source, line.target) for line in lines))
        self._passed = {trunk: self._passes(trunk, targets) for trunk, targets in self._trunks().items()}
        self.places = len(boxes) + sum(map(len, self._passed.values()))

    def _trunk(self, line: Line) -> _Trunk:
        back = self._column[line.target] <= self._column[line.source]
        return _Trunk(line.source, line.out, back)

    def _trunks(self) -> dict[_Trunk, list[int]]:
        """Return trunk → the columns of its targets."""
        found: dict[_Trunk, list[int]] = {}
        for line in self._lines:
            found.setdefault(self._trunk(line), []).append(self._column[line.target])
        return found

    def _passes(self, trunk: _Trunk, targets: Sequence[int]) -> range:
        """Return the columns that a trunk passes, in its direction."""
        begin = self._column[trunk.source]
        return range(begin, min(targets) - 1, -1) if trunk.back else range(begin + 1, max(targets))

    def layout(self) -> Layout:
        """Return the boxes and lines with their places."""
        self._number_passes()
        self._column_of = dict(self._columns_of_places())
        columns = self._ordered()
        sizes = [box.height for box in self._boxes.values()] + [0.0] * (self.places - len(self._boxes))
        heights = Heights(columns, sizes, len(self._boxes))
        self._sort_ports(heights.centers(self._links()))
        return self._drawn(heights.centers(self._links()))

    def _number_passes(self) -> None:
        """Give each trunk a place in each column that it passes."""
        self._place: dict[tuple[_Trunk, int], int] = {}
        for trunk, columns in self._passed.items():
            for column in columns:
                self._place[trunk, column] = len(self._boxes) + len(self._place)

    def _links(self) -> list[Link]:
        """Return the links of all lines, each from left to right, or within a column."""
        found = {}
        for line in self._lines:
            for one, other in pairwise(self._stations(line)):
                link = Link(one[0], other[0], one[1], other[1])
                leads_back = self._column_of[link.one] > self._column_of[link.other]
                found[one, other] = link.flipped() if leads_back else link
        return list(found.values())

    def _stations(self, line: Line) -> list[tuple[int, float]]:
        """Return the places of a line in its direction, each with how far below its center the line is."""
        passed = [(self._place[self._trunk(line), column], 0.0) for column in self._columns_passed(line)]
        begin = (self._number[line.source], self._outs[line.source, line.out])
        end = (self._number[line.target], self._ins[line.target, line.into])
        return [begin, *passed, end]

    def _sort_ports(self, centers: Sequence[float]) -> None:
        """Give the ports of each side the order of what they are connected to, from top to bottom."""
        outs: dict[str, dict[str, list[float]]] = {}
        ins: dict[str, dict[str, list[float]]] = {}
        for line in self._lines:
            stations = self._stations(line)
            (second, _), (last, _) = stations[1], stations[-2]
            outs.setdefault(line.source, {}).setdefault(line.out, []).append(centers[second])
            ins.setdefault(line.target, {}).setdefault(line.into, []).append(centers[last])
        for side, found in ((self._outs, outs), (self._ins, ins)):
            for key, ports in found.items():
                means = {port: sum(heights) / len(heights) for port, heights in ports.items()}
                order = sorted(means, key=means.__getitem__)
                side.update({(key, port): dy for port, dy in _spread(order)})

    def _columns_passed(self, line: Line) -> list[int]:
        """Return the columns that a line passes, in its direction."""
        trunk = self._trunk(line)
        end = self._column[line.target]
        return [column for column in self._passed[trunk] if (column >= end if trunk.back else column < end)]

    def _columns_of_places(self) -> Iterator[tuple[int, int]]:
        """Yield each place with its column."""
        yield from ((self._number[key], column) for key, column in self._column.items())
        yield from ((place, column) for (_, column), place in self._place.items())

    def _ordered(self) -> list[list[int]]:
        """Return the places of each column, from top to bottom."""
        columns: list[list[int]] = [[] for _ in range(max(self._column.values()) + 1)]
        for place, column in self._column_of.items():
            columns[column].append(place)
        pairs = [(link.one, link.other) for link in self._links()]
        links = [(one, other) for one, other in pairs if self._column_of[one] < self._column_of[other]]
        anchors = {max(pair): min(pair) for pair in {*pairs} - {*links}}  # a line that turns, and its box
        return Order(columns, links, anchors).best()

    def _boxes_of_columns(self) -> list[list[Box]]:
        """Return the boxes of each column."""
        found: list[list[Box]] = [[] for _ in range(max(self._column.values()) + 1)]
        for key, column in self._column.items():
            found[column].append(self._boxes[key])
        return found

    def _spans(self) -> list[_Span]:
        """Return where each column is."""
        spans = []
        x = 0.0
        for own in self._boxes_of_columns():
            before, behind = max(box.before for box in own), max(box.behind for box in own)
            left = x + before
            right = left + max(box.width for box in own)
            stretched = max((box.width for box in own if box.stretches), default=0.0)
            spans.append(_Span(x, left, right, right + behind, stretched))
            x = right + behind + TURN
        return spans

    def _drawn(self, centers: Sequence[float]) -> Layout:
        """Return the layout for the heights of the centers of all places."""
        spans = self._spans()
        made = Layout(width=spans[-1].end)
        for key, box in self._boxes.items():
            span = spans[self._column[key]]
            width = span.stretched if box.stretches else box.width
            x = span.left if box.stretches else span.right - width
            made.boxes[key] = Placed(box, x, centers[self._number[key]] - box.height / 2, width)
        for line in self._lines:
            made.lines[line] = tuple(self._points(line, made, centers, spans))
        bottoms = [placed.y + placed.box.height for placed in made.boxes.values()]
        made.height = max(*bottoms, *(point.y for points in made.lines.values() for point in points), 0.0)
        return made

    def _points(
        self, line: Line, made: Layout, centers: Sequence[float], spans: Sequence[_Span]
    ) -> Iterator[Point]:
        """Yield the points of a line: two in each column."""
        source, target = made.boxes[line.source], made.boxes[line.target]
        trunk = self._trunk(line)
        y = centers[self._number[line.source]] + self._outs[line.source, line.out]
        yield Point(source.x + source.width, y)
        yield Point(spans[self._column[line.source]].end, y)
        for column in self._columns_passed(line):
            y = centers[self._place[trunk, column]]
            ends = (Point(spans[column].begin, y), Point(spans[column].end, y))
            yield from reversed(ends) if trunk.back else ends
        y = centers[self._number[line.target]] + self._ins[line.target, line.into]
        yield Point(spans[self._column[line.target]].begin, y)
        yield Point(target.x, y)


class _Span(NamedTuple):
    """Where a column is.

    Attributes:
        begin: where the labels before its boxes begin.
        left: where its boxes begin.
        right: where its boxes end.
        end: where the labels behind its boxes end.
        stretched: how wide the boxes are that stretch.
    """

    begin: float
    left: float
    right: float
    end: float
    stretched: float


def _spread(ports: Sequence[str]) -> Iterator[tuple[str, float]]:
    """Yield each port of a side with its distance from the center of the side."""
    yield from ((port, PORT_GAP * (number - (len(ports) - 1) / 2)) for number, port in enumerate(ports))
