"""The time of the system, in microseconds."""

from __future__ import annotations

import time


def wall_clock() -> int:
    """Microseconds since the Unix epoch, UTC."""
    return time.time_ns() // 1000
