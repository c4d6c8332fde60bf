"""The memory of a process that runs 100,000 instances: it is to be flat after the first 1,000."""

from __future__ import annotations

import gc
import resource
import tempfile
from pathlib import Path

from bench.running import CONFIGURATION, registry
from triggers import Triggers

INSTANCES, FIRST = 100_000, 1_000


def run() -> list[tuple[str, float, str]]:
    """Run them in batches through the threads runner, and look at the resident memory."""
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/memory.db?synchronous=normal"
        with Triggers(url, registry=registry) as triggers:
            manager = triggers.session("respondent-17")
            manager.update_configuration(CONFIGURATION)
            manager.fire("ready")
            marks = {}
            for number in range(1, INSTANCES + 1):
                manager.fire("pageReceived", {"page": number})
                if number % FIRST == 0:
                    triggers.join()
                    marks[number] = _resident()
    return [
        (f"resident after {FIRST:,} instances", marks[FIRST], "MiB"),
        (f"resident after {INSTANCES // 2:,} instances", marks[INSTANCES // 2], "MiB"),
        (f"resident after {INSTANCES:,} instances", marks[INSTANCES], "MiB"),
        ("growth from the first to the last", marks[INSTANCES] / marks[FIRST], "flat: about 1.0"),
    ]


def _resident() -> float:
    gc.collect()
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text("ascii").splitlines() if line.startswith("VmRSS"))
        return int(line.split()[1]) / 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
