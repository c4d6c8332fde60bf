"""Every order of a set of firings, or a fair sample where there are too many.

The promises about order ("for ``after`` alone, it doesn't matter") are tested by playing the same firings in
all orders and comparing the ends.
"""

from __future__ import annotations

import math
import random
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")


def orders(firings: Iterable[T], sample: int | None = None, seed: int = 0) -> Iterator[list[T]]:
    """Yield the orders of some firings, each once, as lists of their own, the given order first.

    Firings count as different by their position, equal ones too: n of them have n! orders.

    Args:
        firings: what to put in order; anything at all, never looked into.
        sample: at most so many orders: the given one, and others chosen by chance. None means all of them.
        seed: decides the choice; the same number of firings, sample and seed give the same orders again.

    Raises:
        ValueError: the sample is smaller than 1; raised at the first order asked for.
    """
    if sample is not None and sample < 1:
        raise ValueError(f"a sample needs at least 1 order, not {sample}")
    given = list(firings)
    total = math.factorial(len(given))
    ranks: Iterable[int] = range(total) if sample is None or sample >= total else _ranks(total, sample, seed)
    for rank in ranks:
        yield _ordered(given, rank)


def _ranks(total: int, sample: int, seed: int) -> list[int]:
    """So many different numbers below the total, 0 first.

    Drawing again what was drawn before stays rare, since either the chosen or the others are drawn.
    """
    chance = random.Random(seed)  # noqa: S311 - a sample to test with, no secret
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
