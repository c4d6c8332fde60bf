"""At which height each place of a drawing is: without overlaps, and so that lines are short and straight."""

from __future__ import annotations

from collections import defaultdict
from itertools import pairwise
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: The space between two boxes, one below the other, in pixels.
BOX_GAP: Final = 18.0
#: The space between a line and its neighbor above or below, in pixels.
LINE_GAP: Final = 12.0

#: How often the heights are improved. It is odd, so that the last time is from left to right.
_SWEEPS: Final = 13
#: How much it matters that a line that passes a column is straight, at first and in the last sweep. The link
#: of a box has the weight 1.
_NEARLY_STRAIGHT: Final = 3
_STRAIGHT: Final = 1_000
#: How much it matters that a place without lines stays where it is.
_STAYS: Final = 0.01


class Link(NamedTuple):
    """A line between two places.

    Attributes:
        one: a place.
        other: the other place.
        dy_one: how far below the center of `one` the line ends there, in pixels.
        dy_other: the same for `other`.
    """

    one: int
    other: int
    dy_one: float
    dy_other: float

    def flipped(self) -> Link:
        """Return the same line, seen from the other place."""
        return Link(self.other, self.one, self.dy_other, self.dy_one)


class Heights:
    """Finds the heights of the places.

    Args:
        columns: for each column, its places from top to bottom.
        heights: the height of each place.
        boxes: how many places are boxes. They have the lowest numbers; the others are lines passing columns.
    """

    def __init__(self, columns: Sequence[Sequence[int]], heights: Sequence[float], boxes: int) -> None:
        self._columns = columns
        self._heights = heights
        self._boxes = boxes
        self._column_of = {place: number for number, column in enumerate(columns) for place in column}
        self._centers = [0.0] * len(heights)

    def centers(self, links: Iterable[Link]) -> list[float]:
        """Return the height of the center of each place. The highest place begins at 0."""
        beside: dict[int, list[Link]] = defaultdict(list)
        for link in links:
            beside[link.one].append(link)
            beside[link.other].append(link.flipped())
        for sweep in range(_SWEEPS):
            side = 1 if sweep % 2 else -1  # where the columns are that have their heights already
            followed = {place: self._followed(place, found, side) for place, found in beside.items()}
            for column in self._columns[::-side]:
                self._settle(column, followed, _STRAIGHT if sweep == _SWEEPS - 1 else _NEARLY_STRAIGHT)
        both = zip(self._centers, self._heights, strict=True)
        top = min(center - height / 2 for center, height in both)
        return [center - top for center in self._centers]

    def _followed(self, place: int, links: list[Link], side: int) -> list[Link]:
        """Return the links that matter for a place. A line that passes a column stays straight if it can."""
        if place < self._boxes:
            return links
        column = self._column_of[place]
        return [link for link in links if (self._column_of[link.other] - column) * side > 0] or links

    def _settle(self, column: Sequence[int], followed: Mapping[int, list[Link]], straight: int) -> None:
        """Move the places of a column to where their links are short, and those of lines have this weight."""
        offsets = [0.0]
        for above, below in pairwise(column):
            offsets.append(offsets[-1] + self._distance(above, below))
        wishes = []
        for place, offset in zip(column, offsets, strict=True):
            links = followed.get(place, ())
            wished = [self._centers[link.other] + link.dy_other - link.dy_one for link in links]
            wish = sum(wished) / len(wished) if wished else self._centers[place]
            weight = len(wished) * (1 if place < self._boxes else straight)
            wishes.append((wish - offset, weight or _STAYS))
        for place, offset, settled in zip(column, offsets, rising(wishes), strict=True):
            self._centers[place] = settled + offset

    def _distance(self, above: int, below: int) -> float:
        """Return how far apart the centers of two neighbors of a column have to be."""
        gap = LINE_GAP if max(above, below) >= self._boxes else BOX_GAP
        return (self._heights[above] + self._heights[below]) / 2 + gap


def rising(wishes: Sequence[tuple[float, float]]) -> list[float]:
    """Return the values that are nearest to the wished ones, and of which none is below the one before.

    Neighbors in the wrong order get their common mean (isotonic regression).

    Args:
        wishes: the wished values, each with its weight.
    """
    blocks: list[tuple[float, float, int]] = []
    for value, weight in wishes:
        block = (value, weight, 1)
        while blocks and blocks[-1][0] > block[0]:
            last = blocks.pop()
            both = last[1] + block[1]
            block = ((last[0] * last[1] + block[0] * block[1]) / both, both, last[2] + block[2])
        blocks.append(block)
    return [value for value, _, count in blocks for _ in range(count)]
