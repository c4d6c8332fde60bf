"""One firing that releases 10,000 instances that waited for it: how long it holds the write lock."""

from __future__ import annotations

import tempfile
import time

from triggers import Triggers

CONFIGURATION = {"t_import": {"after": ["gateOpened"], "andEvery": "pageReceived", "run": "bench.NoOp"}}
WAITING = 10_000


def run() -> list[tuple[str, float, str]]:
    """Let them gather, and open the gate."""
    with tempfile.TemporaryDirectory() as folder:
        triggers = Triggers(f"sqlite:///{folder}/gate.db", runner=None)
        manager = triggers.session("respondent-17")
        manager.update_configuration(CONFIGURATION)
        faster = Triggers(f"sqlite:///{folder}/gate.db?synchronous=normal", runner=None)
        normal = faster.session("respondent-17")
        for number in range(WAITING):
            normal.fire("pageReceived", {"page": number})
        before = time.perf_counter()
        result = manager.fire("gateOpened")
        seconds = time.perf_counter() - before
    if len(result.scheduled) != WAITING:
        message = f"{len(result.scheduled)} were released"
        raise AssertionError(message)
    return [(f"a gate for {WAITING:,}: under the write lock", seconds * 1000, "ms")]
