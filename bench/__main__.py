"""Run the parts named on the command line, or all of them, and print their figures."""

from __future__ import annotations

import importlib
import sys

#: The parts, in the order in which they run.
PARTS = (
    "firing",
    "growth",
    "cycle",
    "gate",
    "running",
    "memory",
    "storing",
    "previewing",
    "timers",
    "wakeup",
    "logging_bench",
    "postgres",
    "redis_bench",
    "celery_bench",
)


def main(names: list[str]) -> None:
    """Print name, value, and unit with target, one line for each figure."""
    for name in names or PARTS:
        print(f"-- {name}", flush=True)
        for figure, value, unit in importlib.import_module(f"bench.{name}").run():
            print(f"{figure:<62} {value:>12,.3f}  {unit}", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
