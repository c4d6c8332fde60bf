"""Machines whose clocks are minutes apart: the storage's clock counts, and theirs change nothing."""

from __future__ import annotations

import datetime as dt
import os
import random
import signal
import sys
import time
from collections import Counter
from contextlib import closing
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.chaos.together import Ready, together
from tests.crash.checker import check
from tests.crash.processes import KILLED, begin, end
from tests.crash.world import CONFIGURATION, COOLDOWN, World, plan, review, wait_for
from triggers.runners.threads import ThreadsRunner
from triggers.testing.conformance.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from triggers.core.state import Instance

#: How far the clocks are from the truth, in seconds.
SHIFTS = (-300, 300)

MICROSECOND = dt.timedelta(microseconds=1)


def shift_clock(seconds: float) -> None:
    """Set the clock of this process, for all that Python code can see of it; the monotonic clock stays."""
    real, real_ns = time.time, time.time_ns
    true = dt.datetime

    class Shifted(true):
        @classmethod
        def now(cls, tz=None):
            return true.fromtimestamp(time.time(), tz)

        @classmethod
        def utcnow(cls):
            return true.fromtimestamp(time.time(), dt.UTC).replace(tzinfo=None)

        @classmethod
        def today(cls):
            return cls.now()

    replaced = {
        id(real): lambda: real() + seconds,
        id(real_ns): lambda: real_ns() + round(seconds * 1e9),
        id(true): Shifted,
    }
    for module in list(sys.modules.values()):
        for name, value in list(vars(module).items()):
            if id(value) in replaced:
                setattr(module, name, replaced[id(value)])


def test_the_clock_of_a_process_can_be_shifted():
    """What the tests below rely on: every way to ask for the time of the day shows another one."""

    def ask(ready: Ready) -> list[float]:
        shift_clock(300)
        ready()
        zone = dt.UTC
        return [time.time(), time.time_ns() / 1e9, dt.datetime.now(zone).timestamp(), time.monotonic()]

    before = [time.time()] * 3
    (shifted,) = together([ask])
    assert all(300 <= later - sooner < 400 for sooner, later in zip(before, shifted, strict=False))
    assert shifted[3] - time.monotonic() < 100


def times(instance: Instance, what: str) -> list[int]:
    """When, by the storage's clock, something became of the instance."""
    lines = (line.split(" ", 2) for line in instance.history.splitlines())
    return [int(at) for at, *rest in lines if " ".join(rest).startswith(what)]


def application(world: World, *, works: bool, lease: float):
    """What each of the machines runs."""
    return world.app(
        ThreadsRunner(2) if works else None,
        lease=dt.timedelta(seconds=lease),
        grace=dt.timedelta(seconds=0.5),
        sweep_interval=dt.timedelta(seconds=0.1),
        max_crashes=1_000,
    )


def test_clocks_five_minutes_apart_change_nothing(url, tmp_path):
    """Those who fire, run, sweep and review have clocks ten minutes apart: all runs once, nothing early, nothing late."""
    world = World(tmp_path, lambda *_: 0.01, url=url)
    uids = [f"s-{number}" for number in range(6)]
    with closing(world.storage()):
        pass  # the schema is there

    def machine(shift: int, place: int, ready: Ready) -> str:
        shift_clock(shift)
        with application(world, works=True, lease=30) as app:
            ready()
            fires = [fire for uid in uids[place::2] for fire in plan(uid)]
            random.Random(place).shuffle(fires)
            for uid in uids[place::2]:
                app.session(uid).update_configuration(CONFIGURATION)
            for fire in fires:
                world.fire(app, fire)
            while True:
                assert app.join(100), app.backlog()
                if not sum([review(app, uid) for uid in uids]):
                    return str(dt.datetime.now(dt.UTC))

    told = together([partial(machine, shift, place) for place, shift in enumerate(SHIFTS)])
    assert told[0] < told[1]
    report = check(world)
    assert report.problems == []
    assert (report.crashes, report.late, report.wasted) == (0, 0, 0)
    assert report.sessions == len(uids)
    with closing(world.storage()) as storage:
        retried = [
            (each, old)
            for uid in uids
            for by_name in [{each.name: each for each in Steps(storage, uid).instances()}]
            for each in by_name.values()
            if each.task == "t_flaky" and each.parent is not None
            for old in [by_name[f"{each.task}#{each.parent}"]]
        ]
    waits = [times(new, "running")[0] - times(old, "failed")[0] for new, old in retried]
    assert len(waits) == 2 * len(uids)
    assert min(waits) >= COOLDOWN // MICROSECOND, "nobody ran before its time"


@pytest.mark.parametrize("shift", [SHIFTS[0], pytest.param(SHIFTS[1], marks=pytest.mark.slow)])
def test_a_claim_of_a_dead_worker_runs_out_by_the_storages_clock(url, tmp_path, shift):
    """The worker dies, and whoever looks has another clock, minutes away: rescued after its lease, and not before."""
    lease = 1.0
    world = World(tmp_path, lambda _, fence: 1_000 if fence == 1 else 0, url=url)

    def elsewhere(seconds: int, act: Callable[[], object]) -> None:
        shift_clock(seconds)
        act()

    def work() -> None:
        with application(world, works=True, lease=lease) as app:
            app.session("s-1").update_configuration({"t_notes": CONFIGURATION["t_notes"]})
            app.session("s-1").fire("note", {"id": "note-0"})
            signal.pause()

    def rescue() -> None:
        with application(world, works=True, lease=lease) as app:
            assert app.join(100), app.backlog()

    doomed = begin(partial(elsewhere, shift, work))
    wait_for("the run", lambda: world.starts("t_notes#0"))
    rescuer = begin(partial(elsewhere, -shift, rescue))
    with closing(world.storage()) as storage:
        instance = Steps(storage, "s-1")["t_notes#0"]
        time.sleep(1.5 * lease)  # the rescuer, whose clock is ten minutes away, looks all the time
        renewed = Steps(storage, "s-1")["t_notes#0"]
        assert (renewed.crashes, renewed.fence) == (0, 1), "a claim that is renewed is left alone"
        assert (renewed.lease_until or 0) > (instance.lease_until or 0)
        os.kill(doomed, signal.SIGKILL)
        assert end(doomed) == KILLED
        left = Steps(storage, "s-1")["t_notes#0"]
        assert end(rescuer) == 0
        after = Steps(storage, "s-1")["t_notes#0"]
    assert Counter(each["what"] for each in world.runs.read()) == {"start": 2, "end": 1}
    assert (after.status, after.crashes, after.attempt) == ("finished", 1, 2)
    (lost,) = times(after, "scheduled lease lost")
    assert lost > (left.lease_until or 0), "not before its lease had run out"
    assert lost - (left.lease_until or 0) < 60_000_000, "and not minutes later"
