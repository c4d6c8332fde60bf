"""Measuring in turns."""

from __future__ import annotations

import gc
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def in_turns(parts: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Run each part once a round, and return the best time of each, in seconds.

    The best, of many short rounds: what else the machine does only ever adds time, and adds more to a longer
    part, so a mean or median would favour the shorter one.
    """
    times: dict[str, list[float]] = {name: [] for name in parts}
    gc.collect()
    gc.disable()
    try:
        for _ in range(rounds):
            for name, part in parts.items():
                before = time.perf_counter()
                part()
                times[name].append(time.perf_counter() - before)
    finally:
        gc.enable()
    return {name: min(found) for name, found in times.items()}
