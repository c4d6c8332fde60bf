"""What a firing costs in a session that holds 10 to 100,000 instances, or many that wait for others."""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING, Any

from bench.rounds import in_turns
from triggers import Triggers

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIGURATION = {
    "t_import": {"after": ["ready"], "andEvery": "pageReceived", "run": "bench.NoOp"},
    "t_check": {"after": ["never", "checked"], "andEvery": "checkReceived", "run": "bench.NoOp"},
}

#: Instances in the session before it is measured.
SIZES = (10, 1_000, 100_000)

#: Unstarted instances of one task, all waiting for a trigger that does not fire.
WAITING = 10_000

FIRINGS, ROUNDS = 5, 400


def run() -> list[tuple[str, float, str]]:
    """Measure sessions of all sizes, each in a file of its own, in turns."""
    with tempfile.TemporaryDirectory() as folder:
        parts = {str(size): _session(folder, size) for size in SIZES}
        parts["waiting"] = _session(folder, 10, WAITING)
        times = in_turns(parts, ROUNDS)
    figures = [(f"{size:,} instances: one firing", times[str(size)] / FIRINGS * 1e6, "µs") for size in SIZES]
    figures.append((f"{WAITING:,} waiting: one firing", times["waiting"] / FIRINGS * 1e6, "µs"))
    first, last = (times[str(size)] for size in (SIZES[0], SIZES[-1]))
    figures.append((f"{SIZES[-1]:,} instances to {SIZES[0]}", last / first, "at most 1.2"))
    figures.append((f"{WAITING:,} waiting instances to none", times["waiting"] / first, "at most 1.2"))
    return figures


def _session(folder: str, size: int, waiting: int = 0) -> Callable[[], None]:
    triggers = Triggers(f"sqlite:///{folder}/{size}-{waiting}.db?synchronous=normal", runner=None)
    manager = triggers.session("respondent-17")
    manager.update_configuration(CONFIGURATION)
    manager.fire("ready")
    _fire(manager, "pageReceived", size)
    _fire(manager, "checkReceived", waiting)

    def fire() -> None:
        # With instances waiting, this releases one of the very task that the others wait in.
        _fire(manager, "pageReceived", FIRINGS)

    return fire


def _fire(manager: Any, trigger: str, times: int) -> None:
    for number in range(times):
        manager.fire(trigger, {"page": number})
