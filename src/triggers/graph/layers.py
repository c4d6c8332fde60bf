"""In which column each box belongs, and in which order the columns have their places.

This is the first half of Sugiyama's method for layered drawings: break cycles, take the longest paths, and
then sort each column by the places beside it, forward and backward.
"""

from __future__ import annotations

from bisect import bisect_right, insort
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: How often the order is improved at most.
_SWEEPS: Final = 16


def columns_of(keys: Sequence[str], edges: Iterable[tuple[str, str]]) -> dict[str, int]:
    """Return key → column, counted from 0. An edge leads to a later column unless it closes a cycle.

    What has no edge to it is in the column before the first one that it leads to.

    Args:
        keys: the keys. Where a cycle can be broken at several edges, their order decides.
        edges: pairs of keys.
    """
    after: dict[str, dict[str, None]] = {key: {} for key in keys}
    for source, target in edges:
        after[source][target] = None
    order, forward = _without_cycles(keys, after)
    columns = dict.fromkeys(keys, 0)
    for key in order:
        for target in forward[key]:
            columns[target] = max(columns[target], columns[key] + 1)
    ends = {target for targets in forward.values() for target in targets}
    for key in keys:
        if forward[key] and key not in ends:
            columns[key] = min(columns[target] for target in forward[key]) - 1
    return columns


def _without_cycles(
    keys: Sequence[str], after: Mapping[str, Iterable[str]]
) -> tuple[list[str], dict[str, list[str]]]:
    """Return the keys in an order in which every remaining edge leads forward, and these edges."""
    ends = {target for targets in after.values() for target in targets}
    forward: dict[str, list[str]] = {key: [] for key in keys}
    is_open: dict[str, bool] = {}
    closed: list[str] = []
    for root in sorted(keys, key=ends.__contains__):
        stack = [] if root in is_open else [(root, iter(after[root]))]
        is_open.setdefault(root, True)
        while stack:
            key, targets = stack[-1]
            target = next((target for target in targets if not is_open.get(target)), None)
            if target is None:
                stack.pop()
                is_open[key] = False
                closed.append(key)
                continue
            forward[key].append(target)
            if target not in is_open:
                is_open[target] = True
                stack.append((target, iter(after[target])))
    return closed[::-1], forward


class Order:
    """Sorts the places of each column so that few links cross.

    Args:
        columns: for each column, its places in their first order.
        links: pairs of places, each in two adjacent columns, from left to right.
        anchors: place → another place of the same column that it should be beside.
    """

    def __init__(
        self, columns: list[list[int]], links: Sequence[tuple[int, int]], anchors: Mapping[int, int]
    ) -> None:
        self._columns = columns
        self._anchors = anchors
        self._left: dict[int, list[int]] = {}
        self._right: dict[int, list[int]] = {}
        for one, other in links:
            self._right.setdefault(one, []).append(other)
            self._left.setdefault(other, []).append(one)
        self._rank: dict[int, float] = {}
        for column in columns:
            self._number(column)

    def best(self) -> list[list[int]]:
        """Return the columns in the best order that was found."""
        best, least = [*map(list, self._columns)], self._crossings()
        for sweep in range(_SWEEPS):
            if not least:
                break
            self._sweep(to_right=sweep % 2 == 0)
            crossings = self._crossings()
            if crossings < least:
                best, least = [*map(list, self._columns)], crossings
        return best

    def _number(self, column: Sequence[int]) -> None:
        """Set the rank of each place: its position in the column, from 0 to 1."""
        for position, place in enumerate(column):
            self._rank[place] = (position + 0.5) / len(column)

    def _sweep(self, *, to_right: bool) -> None:
        beside = self._left if to_right else self._right
        for column in self._columns if to_right else reversed(self._columns):
            wished = {place: self._wish(place, beside) for place in column}
            column.sort(key=wished.__getitem__)
            self._number(column)

    def _wish(self, place: int, beside: Mapping[int, list[int]]) -> float:
        """Return where a place wants to be: in the middle of those beside it, or where it is."""
        found = beside.get(place) or ([self._anchors[place]] if place in self._anchors else [place])
        return sum(self._rank[other] for other in found) / len(found)

    def _crossings(self) -> int:
        """Count how often two links cross."""
        count = 0
        for column in self._columns:
            ends: list[float] = []
            for place in column:
                targets = sorted(self._rank[target] for target in self._right.get(place, ()))
                count += sum(len(ends) - bisect_right(ends, target) for target in targets)
                for target in targets:
                    insort(ends, target)
        return count
