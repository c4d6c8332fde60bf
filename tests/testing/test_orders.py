from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggers.testing.orders import orders


@pytest.mark.parametrize("size", range(6))
def test_all_orders_are_those_of_the_standard_library(size):
    """Without a sample, every permutation comes once, in the order of itertools."""
    assert list(orders(range(size))) == [list(each) for each in itertools.permutations(range(size))]


@given(size=st.integers(0, 6), sample=st.integers(1, 800), seed=st.integers())
def test_a_sample_has_different_orders_of_the_same_firings(size, sample, seed):
    """As many as asked for, or all there are, each once, the given one first."""
    found = list(orders(range(size), sample, seed))
    assert len({tuple(order) for order in found}) == len(found) == min(sample, math.factorial(size))
    assert all(sorted(order) == list(range(size)) for order in found)
    assert found[0] == list(range(size))


def test_the_seed_decides_the_sample():
    """The same seed gives the same orders again; another one others, spread over all positions."""
    once, again, other = (list(orders(range(40), 30, seed)) for seed in (1, 1, 2))
    assert once == again != other
    assert len({order[0] for order in once}) > 10
    assert len({order[-1] for order in once}) > 10


def test_equal_firings_count_by_position():
    """Firings need be neither different nor hashable."""
    assert list(orders([{"a": 1}, {"a": 1}])) == [[{"a": 1}, {"a": 1}]] * 2


def test_each_order_is_a_list_of_its_own():
    """Emptying one order leaves the given list and the next order alone."""
    given_list = [1, 2]
    for order in orders(given_list):
        order.clear()
    assert given_list == [1, 2]
    assert [len(order) for order in orders(iter(given_list))] == [2, 2]


def test_a_sample_needs_an_order():
    """A sample of nothing would prove nothing."""
    with pytest.raises(ValueError, match="sample must be at least 1, not 0"):
        next(orders([1, 2], sample=0))
