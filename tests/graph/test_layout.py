"""Columns, orders and heights: the parts of a drawing that can be checked without one."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from triggers.graph.heights import rising
from triggers.graph.layers import Order, columns_of
from triggers.graph.layout import Box, Line, TooManyPlacesError, layout
from triggers.graph.texts import ELLIPSIS, NAME, fitting, width

KEYS = "abcdef"
EDGES = st.lists(st.tuples(st.sampled_from(KEYS), st.sampled_from(KEYS)), max_size=14)


def box(key, outs=("",), ins=("",)):
    return Box(key, 100, 40, outs, ins)


def test_edges_lead_to_later_columns():
    """The longest way decides, and what nothing leads to is beside what it leads to."""
    edges = [("a", "b"), ("b", "c"), ("a", "c"), ("d", "c")]
    assert columns_of("abcd", edges) == {"a": 0, "b": 1, "c": 2, "d": 1}


def test_cycles_are_broken():
    """One edge of a cycle leads back, and none is needed to begin it from outside."""
    assert columns_of("abc", [("a", "b"), ("b", "c"), ("c", "a"), ("b", "b")]) == {"a": 0, "b": 1, "c": 2}
    assert columns_of("abc", [("b", "c"), ("c", "b"), ("a", "c")]) == {"a": 0, "b": 2, "c": 1}


@given(EDGES)
def test_columns_are_in_use_and_few_edges_lead_back(edges):
    """Every column has something in it; without a cycle, every edge leads forward."""
    columns = columns_of(KEYS, edges)
    assert {*columns.values()} == {*range(max(columns.values()) + 1)}
    ordered = [(min(edge), max(edge)) for edge in edges if edge[0] != edge[1]]
    columns = columns_of(KEYS, ordered)
    assert all(columns[one] < columns[other] for one, other in ordered)


def test_the_order_has_few_crossings():
    """Two links that cross are untangled."""
    assert Order([[0, 1], [2, 3]], [(0, 3), (1, 2)], {}).best() in ([[0, 1], [3, 2]], [[1, 0], [2, 3]])


def test_an_order_that_is_best_stays():
    """Where nothing crosses, the order of the configuration is kept."""
    assert Order([[0, 1], [2, 3]], [(0, 2), (1, 3)], {}).best() == [[0, 1], [2, 3]]


@given(st.lists(st.tuples(st.floats(-100, 100), st.floats(0.1, 10)), min_size=1, max_size=20))
def test_rising_values_are_the_nearest(wishes):
    """They rise; values that rise already stay; and their weighted mean stays the same."""
    found = rising(wishes)
    assert all(one <= other + 1e-9 for one, other in pairwise(found))
    assert rising([(value, 1) for value in sorted(found)]) == pytest.approx(sorted(found))
    weights = [weight for _, weight in wishes]
    wished = sum(value * weight for value, weight in wishes)
    assert sum(map(float.__mul__, found, weights)) == pytest.approx(wished, abs=1e-6)


def test_a_line_that_leads_back_turns_around_beside_its_boxes():
    """It leaves to the right, passes all columns in between, and arrives from the left."""
    lines = [Line("a", "", "b", ""), Line("b", "", "a", "")]
    points = layout([box("a"), box("b")], lines, 100).lines[lines[1]]
    xs = [point.x for point in points]
    assert len(points) == 8
    assert xs[1] == xs[2] > xs[3] > xs[4] > xs[5] == xs[6]
    assert points[2].y == points[3].y != points[1].y


def test_lines_of_one_port_share_their_way():
    """They pass a column at the same place, so that they look like one line that branches."""
    lines = [
        Line("a", "", "b", ""),
        Line("b", "", "c", ""),
        Line("c", "", "d", ""),
        Line("a", "", "c", ""),
        Line("a", "", "d", ""),
    ]
    found = layout([box(key) for key in "abcd"], lines, 100).lines
    short, long = found[lines[3]], found[lines[4]]
    assert long[:4] == short[:4]


def test_a_line_that_passes_columns_is_straight():
    """Where nothing is in its way, it changes its height once, before its end."""
    lines = [Line(one, "", other, "") for one, other in ("ab", "bc", "cd", "de", "ae")]
    points = layout([box(key) for key in "abcde"], lines, 100).lines[lines[4]]
    assert len(points) == 10
    assert len({round(point.y) for point in points[2:-2]}) == 1


def test_ports_have_the_order_of_what_they_lead_to():
    """So lines from one box do not cross right behind it."""
    boxes = [box("a", outs=("down", "up")), box("b"), box("c")]
    made = layout(boxes, [Line("a", "up", "b", ""), Line("a", "down", "c", "")], 100)
    ends = {line.out: points[0].y for line, points in made.lines.items()}
    assert ends["up"] < ends["down"]


def test_parts_that_are_not_connected_stand_beside_each_other():
    """They do not make the drawing a narrow tower."""
    made = layout([box(f"{n}") for n in range(40)], [], 100)
    assert made.width > made.height
    assert len({(placed.x, placed.y) for placed in made.boxes.values()}) == 40


@given(EDGES)
@example([(one, other) for one, other in pairwise("abcd")] + [("a", "d"), ("a", "c"), ("d", "a")])
def test_everything_is_inside_of_the_drawing(edges):
    """Lines, too, but for the turns of those that lead back, for which there is a margin."""
    lines = [Line(one, "", other, "") for one, other in dict.fromkeys(edges)]
    made = layout([box(key) for key in KEYS], lines, 1_000)
    points = [point for found in made.lines.values() for point in found]
    assert all(0 <= point.x <= made.width and 0 <= point.y <= made.height for point in points)
    boxes = made.boxes.values()
    assert all(placed.x + placed.width <= made.width for placed in boxes)
    assert all(placed.y + placed.box.height <= made.height for placed in boxes)


def test_too_many_places_are_refused():
    """Each column that a line passes needs one, too."""
    boxes = [box(key) for key in "abc"]
    lines = [Line("a", "", "b", ""), Line("b", "", "c", ""), Line("a", "", "c", "")]
    assert layout(boxes, lines, 4).boxes.keys() == {*"abc"}
    with pytest.raises(TooManyPlacesError):
        layout(boxes, lines, 3)


@given(st.text(max_size=80), st.integers(20, 300))
def test_a_text_that_fits_is_whole_and_one_that_does_not_is_cut(text, most):
    """It is never wider than it may be, and the dots say that something is missing."""
    shown = fitting(text, NAME, most)
    assert width(shown, NAME) <= most
    assert shown.isprintable() or text.isprintable() or not shown.isascii()
    if shown == text:
        return
    assert shown.endswith(ELLIPSIS) or "\\" in shown
