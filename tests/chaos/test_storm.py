"""Whatever is killed, restarted, paused or cut off, and whenever: no firing is lost, nothing is stuck, nothing ends twice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos.campaign import ROOT
from tests.chaos.doom import POINTS
from tests.chaos.members import PRODUCERS

if TYPE_CHECKING:
    from pathlib import Path

#: What happens to servers and the network where there are such.
TO_STORAGE = {"restart storage", "pause storage", "lose network", "cut network"}
TO_BROKER = {"restart broker", "pause broker", "send garbage"}

#: Of the long form, by the environment.
KILLS = int(os.environ.get("TRIGGERS_CHAOS_KILLS", "1000"))
STORAGES = os.environ.get("TRIGGERS_CHAOS_STORAGES", "sqlite,postgresql,redis,valkey").split(",")
BROKERS = os.environ.get("TRIGGERS_CHAOS_BROKERS", "redis,rabbitmq").split(",")


def storm(folder: Path, *, seconds: float, **options: object) -> dict[str, Any]:
    """Go through a campaign in a process of its own; what was done and found."""
    given = [part for name, value in options.items() for part in (f"--{name}", str(value))]
    command = [sys.executable, "-m", "tests.chaos.campaign", "--folder", str(folder), *given]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == 0, done.stderr[-4000:]
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    if "missing" in found:
        if os.environ.get("CI") == "true":
            pytest.fail(found["missing"])
        pytest.skip(found["missing"])
    print(json.dumps(found))  # noqa: T201 - the figures of a storm are asked for with -s
    return found


def judge(done: dict[str, Any], kills: int) -> None:
    """What is true after every storm, short or long."""
    found = done["found"]
    assert found["problems"] == []
    assert done["kills"] >= kills
    assert {"producer", "sweep"} <= done["by role"].keys()
    assert found["sessions"] == done["opened"]
    assert found["acknowledged"] > 0
    assert found["wasted"] <= found["crashes"] + done["stops"] * PRODUCERS, "each lost run is a lost claim"
    wanted = (TO_STORAGE if done["storage"] != "sqlite" else set()) | (
        TO_BROKER if done["broker"] != "threads" else set()
    )
    assert wanted <= done["events"].keys()


@pytest.mark.timeout(300)
@pytest.mark.parametrize("storage", ["postgresql", "valkey"])
def test_a_short_storm_loses_nothing(tmp_path, storage):
    """Celery workers and all others are killed, servers and network fail, and every session comes to its planned end."""
    done = storm(tmp_path, storage=storage, broker="redis", kills=20, sessions=16, misfortunes=7, seconds=280)
    judge(done, kills=20)


@pytest.mark.slow
@pytest.mark.parametrize("broker", BROKERS)
@pytest.mark.parametrize("storage", STORAGES)
def test_a_long_storm_loses_nothing(tmp_path, storage, broker):
    """A thousand kills, at every step of the protocol and at random: nothing is lost or doubled; ghosts were refused."""
    broker = "" if storage == "sqlite" else broker
    limit = 300 + 5 * KILLS
    done = storm(
        tmp_path,
        storage=storage,
        broker=broker,
        kills=KILLS,
        sessions=KILLS // 2,
        misfortunes=max(KILLS // 25, 7),
        seconds=limit,
    )
    judge(done, kills=KILLS)
    if KILLS >= 1000:
        reached = done["at a point"].keys()
        assert {*POINTS["producer"], *POINTS["sweep"], *POINTS["reviewer"]} <= reached
        assert done["by role"]["worker"] > 0
        assert done["found"]["late"] > 0, "some ghost came too late, and was refused"
