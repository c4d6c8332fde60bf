"""Processes that die, stall and come too late, over one storage, in thousands of interleavings: nothing is lost.

`TRIGGERS_SEED=1234` plays one world alone, the one that a failure names.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from tests.simulation.ending import check
from tests.simulation.world import Ground, World
from triggers import health
from triggers.core import decisions
from triggers.core.decisions.unit_of_work import UnitOfWork
from triggers.core.state import SPARED
from triggers.core.status import Status
from triggers.storages.memory import MemoryStorage
from triggers.storages.sqlite import SqliteStorage
from triggers.storages.sqlite.url import load_driver
from triggers.testing.faults import FaultyDriver
from triggers.worker import attempt, executor, heartbeat, log_writer
from triggers.worker.sweep import Sweep

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path
#: Worlds of a batch in memory, and those on files, which cost more.
BATCH, FILES = 60, 20

#: What has to happen in every batch, or the simulation does not try what it is there for.
EXPECTED = (
    "died",
    "fire repeated",
    "finish",
    "finish refused",
    "fail",
    "claim refused",
    "recover",
    "recover refused",
    "release",
    "keep_logs",
    "replay",
    "skip",
    "set_timer",
    "elapse",
    "timer elapsed",
    "ghost that knows",
    "timed out",
    "hint: drop",
    "hint: twice",
    "hint: late",
)


@pytest.fixture(autouse=True)
def quiet() -> Iterator[None]:
    """The library speaks of every lost worker, which here are thousands."""
    loggers = [logging.getLogger(name) for name in ("triggers", "tests.simulation")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL + 1)
    yield
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


def in_memory() -> Ground:
    """One storage in memory, which all processes share."""
    made: list[MemoryStorage] = []

    def open_storage(now, faults):
        if not made:
            made.append(MemoryStorage(clock=now))
        return made[0]

    return Ground(open_storage, points=12)


def in_file(path: Path) -> Ground:
    """One file, on which each process has a handle of its own and may die at any statement."""

    def open_storage(now, faults):
        url = f"sqlite:///{path}?synchronous=normal"
        return SqliteStorage(url, clock=now, driver=FaultyDriver(load_driver("auto"), faults))

    return Ground(open_storage, points=150)


def simulate(seed: int, ground: Ground, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Counter[str]]:
    """Play one world; returns the hash of its trace, and what happened in it."""
    world = World(seed, ground, jumps=seed % 5 == 4)
    for module in (attempt, executor, health, heartbeat, log_writer):
        monkeypatch.setattr(module, "time", world.time)
    try:
        trace = world.run()
        check(world)
    except Exception as error:
        last = "\n".join(world.trace[-15:])
        message = f"TRIGGERS_SEED={seed} plays it again; the last that happened:\n{last}"
        raise AssertionError(message) from error
    finally:
        for life in world.lives:
            life.base.close()
    return trace, world.ledger.seen


def seeds(batch: int, size: int = BATCH) -> Iterable[int]:
    """The seeds of a batch, or the only one that the environment names."""
    if alone := os.environ.get("TRIGGERS_SEED"):
        return [int(alone)]
    return range(batch * size, (batch + 1) * size)


def play_all(chosen: Iterable[int], opens, monkeypatch) -> Counter[str]:
    """Play worlds one after the other; returns all that happened."""
    seen: Counter[str] = Counter()
    for seed in chosen:
        seen += simulate(seed, opens(seed), monkeypatch)[1]
    return seen


def check_seen(seen: Counter[str], expected: Iterable[str] = EXPECTED) -> None:
    """Assert that the worlds were as bad as they are meant to be."""
    if not os.environ.get("TRIGGERS_SEED"):
        assert [what for what in expected if not seen[what]] == []


@pytest.mark.parametrize("batch", range(5))
def test_whatever_dies_or_stalls_nothing_is_lost_and_nothing_ends_twice(batch, monkeypatch):
    """In memory, every commit does what the model says, and at the end nothing is stuck, lost or doubled."""
    check_seen(play_all(seeds(batch), lambda _: in_memory(), monkeypatch))


def test_on_one_file_with_a_handle_for_each_process_it_is_the_same(tmp_path, monkeypatch):
    """On one SQLite file, with deaths between any two statements, it is no different."""
    seen = play_all(seeds(0, FILES), lambda seed: in_file(tmp_path / f"{seed}.db"), monkeypatch)
    check_seen(seen, ("died", "fire repeated", "finish refused", "claim refused", "recover"))


@pytest.mark.slow
@pytest.mark.parametrize("batch", range(100, 150))
def test_many_more_worlds(batch, tmp_path, monkeypatch):
    """Three thousand more worlds in memory, and a few hundred more on files, are no different either."""
    play_all(seeds(batch), lambda _: in_memory(), monkeypatch)
    play_all(list(seeds(batch))[:3], lambda seed: in_file(tmp_path / f"{seed}.db"), monkeypatch)


def test_the_same_seed_makes_the_same_world(tmp_path, monkeypatch):
    """Played again, in another process with another order of sets, a world has the same trace, on both storages."""
    first = [simulate(seed, in_memory(), monkeypatch)[0] for seed in (3, 4)]
    first += [simulate(3, in_file(tmp_path / "here.db"), monkeypatch)[0]]
    play = (
        "import sys; from pathlib import Path; import pytest; from tests.simulation.test_simulation import *\n"
        "logging.disable()\n"
        "with pytest.MonkeyPatch.context() as patch:\n"
        "    for seed in (3, 4): print(simulate(seed, in_memory(), patch)[0])\n"
        "    print(simulate(3, in_file(Path(sys.argv[1])), patch)[0])\n"
    )
    command = [sys.executable, "-c", play, str(tmp_path / "there.db")]
    environment = {
        **os.environ,
        "PYTHONHASHSEED": "42",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
    }
    again = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert again.stdout.split() == first
    assert len(set(first)) == len(first)


# -- a test that cannot see a fault proves nothing ----------------------------------------------------------------


def _without_fence(work, instance, attempt):
    return instance.status is Status.RUNNING


def _without_cascade(work, instance, result):
    instance.result = None


MUTANTS = {
    "no fence": lambda patch: patch.setattr(UnitOfWork, "is_held", _without_fence),
    "no cascade": lambda patch: patch.setattr(UnitOfWork, "cascade", _without_cascade),
    "no keys": lambda patch: patch.setattr(MemoryStorage, "commit", _without_keys(MemoryStorage.commit)),
    "no sweep": lambda patch: patch.setattr(Sweep, "once", lambda sweep, include_recent=False: None),
    "no dispatch by the sweep": lambda patch: patch.setattr(
        Sweep, "_dispatch", lambda sweep, include_recent: 0
    ),
    "recovery of what is not late": lambda patch: patch.setattr(
        decisions, "recover", _eager(decisions.recover)
    ),
    "leases that are trusted for too long": lambda patch: patch.setattr(heartbeat, "MARGIN", -0.5),
}


def _without_keys(commit):
    """A storage that forgets under which keys was fired."""

    def commit_without(storage, uid, decision, timeout=None):
        for kept in storage._sessions.values():
            kept.keys.clear()
        return commit(storage, uid, decision, timeout)

    return commit_without


def _eager(recover):
    """A recovery that does not look whether the claim still is as the sweep saw it."""

    def recover_anyway(policy, task, number, fence, lost, trial, *, log=None):  # noqa: PLR0917 - as what it replaces
        def begin(session):
            work = UnitOfWork(session, policy, head=False)
            instance = yield from work.load_instance(task, number)
            if instance.status is not Status.RUNNING:
                return work.refuse("it does not run")
            instance.crashes += 1
            instance.crash_budget += SPARED
            work.save_whole(instance)
            instance.fence = max(instance.fence, fence) + 1
            work.transition(instance, Status.SCHEDULED, "lease lost")
            instance.run_at = instance.dispatch_after = session.now
            return work.done()

        return replace(recover(policy, task, number, fence, lost, trial, log=log), begin=begin)

    return recover_anyway


@pytest.mark.parametrize("mutant", MUTANTS)
def test_each_of_these_faults_is_seen(mutant, monkeypatch):
    """Each of these faults, put into the library, breaks one of the first worlds."""
    MUTANTS[mutant](monkeypatch)
    with pytest.raises(AssertionError, match="TRIGGERS_SEED") as caught:
        play_all(range(BATCH), lambda _: in_memory(), monkeypatch)
    assert isinstance(caught.value.__cause__, AssertionError), "no accident, but something that must not be"
