"""The testing toolkit as a type checker sees it: mypy reads this file, nothing runs it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, assert_type

from triggers import FinalizingTriggerManager, Registry, TaskInstance, TriggerManager, Triggers
from triggers.storages.memory import MemoryStorage
from triggers.storages.sqlite import SqliteStorage
from triggers.testing import (
    Faults,
    FaultyDriver,
    FaultyRunner,
    FaultyStorage,
    PlayReport,
    SessionAssertions,
    TriggersHarness,
    VirtualClock,
    by_chance,
    kill_process,
    play,
)

if TYPE_CHECKING:
    import types

    from triggers.runners.base import Runner
    from triggers.storages.base import Storage


def the_harness(tasks: Registry) -> None:
    """What a harness gives is known without a cast."""
    with TriggersHarness(registry=tasks, manager=FinalizingTriggerManager, lease=timedelta(5)) as harness:
        assert_type(harness.session("s"), TriggerManager)
        assert_type(harness.triggers, Triggers)
        assert_type(harness.run_until_idle(), timedelta)
        check = harness.check("s")
        assert_type(check, SessionAssertions)
        assert_type(check.assert_instance_finished("t_x#0", {"n": 1}), TaskInstance)
        assert_type(check.assert_instance_failed("t_x#0", ValueError, match="spam"), TaskInstance)
        check.assert_unresolved_tasks(["t_x"])
    SessionAssertions(harness.session("s").storage).assert_finalized()


def faulty(module: types.ModuleType, runner: Runner) -> None:
    """What is wrapped is what it was."""
    faults = Faults(die=kill_process)
    storage: Storage = FaultyStorage(MemoryStorage(clock=VirtualClock()), faults)
    other: Storage = SqliteStorage("sqlite:///s.db", driver=FaultyDriver(module, faults))
    wrapped: Runner = FaultyRunner(runner, by_chance(7, drop=0.5), faults)
    for each in (storage, other):
        Triggers(each, runner=wrapped)


def the_same(one: Any, other: Any) -> bool:
    """Compare ends."""
    return bool(one == other)


def played(tasks: Registry) -> None:
    """Firings are names, pairs or triples."""
    report = play({}, ["a", ("b", {"n": 1}), ("c", {}, "key")], registry=tasks, sample=3, same=the_same)
    assert_type(report, PlayReport)
