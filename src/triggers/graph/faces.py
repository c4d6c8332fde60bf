"""What each node shows, and how large it is for that."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

from triggers.core.status import Status
from triggers.graph.layout import PORT_GAP
from triggers.graph.model import Node, NodeKind
from triggers.graph.texts import NAME, RUN, WORD, Font, fitting, width

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

#: The widest text in a node, in pixels.
WIDEST: Final = 264.0
#: The space between a text and the frame on its left and right, and above and below.
SIDE: Final = 13.0
ABOVE: Final = 9.0
#: The size of an icon, and the space behind it.
ICON: Final = 12.0
ICON_GAP: Final = 5.0
#: The space between two counts in one row.
COUNT_GAP: Final = 12.0

#: The sign before the number of firings.
TIMES: Final = "\u00d7"

#: Font → the height of a row.
_ROWS: Final = {NAME: 19.0, RUN: 16.0, WORD: 17.0}

#: The statuses, those first that need a person or that change soon.
STATUSES: Final = (
    Status.FAILED,
    Status.RUNNING,
    Status.SCHEDULED,
    Status.UNSTARTED,
    Status.FINISHED,
    Status.SKIPPED,
    Status.REPLAYED,
    Status.ABANDONED,
)


class Word(NamedTuple):
    """A text with its place in a node.

    Attributes:
        text: what is written; it fits.
        font: its font.
        x: the distance of its left end from the left side of the node's content.
        y: the distance of its baseline from the top of the node.
        icon: the name of the icon before it, "" without one.
        color: the name of the color of icon and text, "" for that of the font.
    """

    text: str
    font: Font
    x: float
    y: float
    icon: str = ""
    color: str = ""

    @property
    def end(self) -> float:
        """The estimated distance of its right end from the left side of the node's content."""
        return self.x + width(self.text, self.font)


@dataclass(frozen=True, slots=True)
class Face:
    """What a node shows.

    Attributes:
        words: its texts.
        width: how wide it is at least.
        height: its height.
    """

    words: tuple[Word, ...]
    width: float
    height: float


def face_of(node: Node, ports: int) -> Face:
    """Return what a node shows.

    Args:
        node: the node.
        ports: how many ports the side with the most of them has.
    """
    words = []
    y = ABOVE
    for row in _rows(node):
        height = max(_ROWS[word.font] for word in row)
        words += [word._replace(y=y + height / 2 + word.font.size * 0.35) for word in row]
        y += height
    least = PORT_GAP * (ports + 0.5) if ports > 1 else 0.0
    shift = max(least - y - ABOVE, 0.0) / 2
    placed = tuple(word._replace(y=word.y + shift) for word in words)
    return Face(placed, max(word.end for word in placed) + 2 * SIDE, max(y + ABOVE, least))


def _rows(node: Node) -> Iterator[Sequence[Word]]:
    if node.kind is NodeKind.CONDITION:
        yield [Word(fitting(node.label, WORD, WIDEST), WORD, 0.0, 0.0)]
        return
    yield from _joined([_name(node), *_times(node)])
    if node.run:
        yield [Word(fitting(node.run, RUN, WIDEST), RUN, 0.0, 0.0)]
    if node.notes:
        yield [Word(fitting(" · ".join(node.notes), WORD, WIDEST), WORD, 0.0, 0.0)]
    yield from _joined(_counts(node))


def _name(node: Node) -> Word:
    icon = "fired" if node.fired else ""
    return Word(fitting(node.label, NAME, WIDEST), NAME, 0.0, 0.0, icon)


def _times(node: Node) -> Iterator[Word]:
    if node.fired is not None and node.fired > 1:
        yield Word(f"{TIMES}{node.fired:,}", WORD, 0.0, 0.0, color="fired")


def _counts(node: Node) -> Iterator[Word]:
    for status in STATUSES:
        if count := node.statuses.get(status):
            yield Word(f"{count:,} {status}", WORD, 0.0, 0.0, icon=status.value, color=status.value)


def _joined(words: Iterable[Word]) -> Iterator[list[Word]]:
    """Yield rows of words, each as long as it may be."""
    row: list[Word] = []
    x = 0.0
    for word in words:
        begin = x + (ICON + ICON_GAP if word.icon else 0.0)
        if row and begin + width(word.text, word.font) > WIDEST:
            yield row
            row, begin = [], begin - x
        row.append(word._replace(x=begin))
        x = row[-1].end + COUNT_GAP
    if row:
        yield row


def worst(node: Node) -> Status | None:
    """Return the first status of the table that an instance of the task has; None if it has no instance."""
    return next((status for status in STATUSES if node.statuses.get(status)), None)


def sentence(node: Node) -> str:
    """Return what a node says, in words."""
    if node.kind is NodeKind.CONDITION:
        return node.label + ("" if node.met is None else " (met)" if node.met else " (not met yet)")
    said = [f"{node.kind} {node.label}", *([f"runs {node.run}"] if node.run else ()), *node.notes]
    if node.fired is not None:
        said.append(f"fired {node.fired:,} time{'s'[: node.fired != 1]}")
    said += [f"{count:,} {status}" for status in STATUSES if (count := node.statuses.get(status))]
    return ", ".join(said)
