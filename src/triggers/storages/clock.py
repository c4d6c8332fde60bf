"""The system's time, in the unit of this project."""

from __future__ import annotations

import time


def wall_clock() -> int:
    """Microseconds since the Unix epoch, UTC."""
    return time.time_ns() // 1000
