"""Every order of a list of firings, or a random sample if there are too many.

A test of the promises about order (for a task with `after` alone, the order does not matter) fires the same
triggers in all orders and compares the results.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")


def orders(firings: Iterable[T], sample: int | None = None, seed: int = 0) -> Iterator[list[T]]:
    """Yield each order of the firings once, as a new list, starting with the given order.

    Equal firings count as different: n firings have n! orders.

    Args:
        firings: the objects to put in order, of any type.
        sample: how many orders to yield at most: the given one, and others chosen at random. None means all
            of them.
        seed: the seed of the choice. The same number of firings, sample and seed yield the same orders.

    Raises:
        ValueError: the sample is smaller than 1. The error is raised when the first order is requested.
    """
    if sample is not None and sample < 1:
        raise ValueError(f"sample must be at least 1, not {sample}")
    given = list(firings)
    total = math.factorial(len(given))
    ranks: Iterable[int] = range(total) if sample is None or sample >= total else _ranks(total, sample, seed)
    for rank in ranks:
        yield _ordered(given, rank)


def _ranks(total: int, sample: int, seed: int) -> list[int]:
    """Different numbers below the total, as many as the sample, 0 first.

    The smaller set is drawn, the chosen numbers or the others, so that few draws repeat an earlier one.
    """
    chance = random.Random(seed)  # noqa: S311 - a sample for a test, not a secret
    wanted = sample - 1
    rare = min(wanted, total - 1 - wanted)
    drawn: dict[int, None] = {}
    while len(drawn) < rare:
        drawn[chance.randrange(1, total)] = None
    others = drawn if rare == wanted else (rank for rank in range(1, total) if rank not in drawn)
    return [0, *others]


def _ordered(given: list[T], rank: int) -> list[T]:
    """The order of that rank in the sequence of :func:`itertools.permutations`."""
    left = list(given)
    order = []
    while left:
        place, rank = divmod(rank, math.factorial(len(left) - 1))
        order.append(left.pop(place))
    return order
