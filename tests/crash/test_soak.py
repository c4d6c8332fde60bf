"""Whatever is killed or paused, and whenever: no firing is lost, nothing is stuck, nothing ends twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.crash.driver import BACKOFF, NOTES, THREADS

ROOT = Path(__file__).parents[2]


def program(module: str, *arguments: object, seconds: float) -> dict[str, Any]:
    """Run a program of these tests in a process of its own; what it prints last is a line of JSON."""
    command = [sys.executable, "-m", f"tests.crash.{module}", *map(str, arguments)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def soak(folder: Path, kills: int, seed: int, *, seconds: float) -> tuple[dict[str, Any], dict[str, Any]]:
    """Kill so many processes, and have another one check what is left; returns both reports."""
    done = program("driver", folder, kills, seed, seconds=seconds)
    allowance = THREADS * (sum(done["kills"].values()) + done["pauses"])
    found = program("checker", folder, NOTES, allowance, BACKOFF, seconds=seconds)
    print(json.dumps(done), json.dumps(found))  # noqa: T201 - the figures of a soak are asked for with -s
    return done, found


def test_a_short_soak_of_random_kills_loses_nothing(tmp_path):
    """Producers, workers and reviewers are killed at random moments, and every session comes to its planned end."""
    done, found = soak(tmp_path, kills=40, seed=1, seconds=100)
    assert found["problems"] == []
    assert sum(done["kills"].values()) >= 40
    assert done["kills"]["worker"] > 0
    assert done["kills"]["producer"] > 0
    assert found["sessions"] == done["opened"]


@pytest.mark.slow
def test_a_long_soak_of_random_kills_and_pauses_loses_nothing(tmp_path):
    """After a thousand kills nothing is lost or doubled, and the ends of ghosts were refused."""
    kills = int(os.environ.get("TRIGGERS_SOAK_KILLS", "1000"))
    done, found = soak(tmp_path, kills=kills, seed=2, seconds=60 + kills)
    assert found["problems"] == []
    assert sum(done["kills"].values()) >= kills
    assert found["crashes"] > 0
    assert found["late"] > 0, "some ghost came too late, and was refused"
