"""A timer's firing exists exactly once, whatever point of the protocol the process dies at."""

from __future__ import annotations

import itertools
import random
from datetime import timedelta

import pytest

from triggers.storages.memory import MemoryStorage
from triggers.storages.sqlite import SqliteStorage
from triggers.storages.sqlite.url import load_driver
from triggers.testing import Faults, FaultyDriver, InjectedCrash, TriggersHarness
from triggers.testing.clock import START

PASSING = "triggers.testing.PassThrough"
HOUR = timedelta(hours=1)

#: Timers of all kinds, which lead to each other.
CONFIGURATION = {
    "t_slow": {"after": ["due"], "delay": "PT5H", "run": PASSING},
    "t_late": {"after": ["due", "never"], "deadline": {"in": "PT3H", "late": "abandon"}, "run": PASSING},
    "t_missed": {"after": ["t_late:missed", "t_late:abandoned"], "run": PASSING},
}

#: What fires, and how many hours after the start. Nobody looks between the sixth and the ninth hour.
EXPECTED = [("due", 2), ("t_late:abandoned", 5), ("t_late:missed", 5), ("t_missed", 5), ("t_slow", 9)]


def scenario(harness):
    """The steps. Each one can be taken again after a crash, and sets or lets elapse what it has not yet."""
    until = START + 9 * HOUR
    yield lambda: harness.session("s").fire_later("due", after=2 * HOUR, name="once")
    yield lambda: harness.advance(max(START + 2 * HOUR - harness.clock.time, timedelta()))
    yield lambda: harness.advance(max(START + 6 * HOUR - harness.clock.time, timedelta()))
    yield lambda: harness.clock.advance(max(until - harness.clock.time, timedelta()))
    yield lambda: harness.session("s").update_session_metadata({"seen": True})
    yield harness.run_until_idle


def lived(make_storage, die_at):
    """Live through the scenario, and die at a point; return the firings, and the points that were passed."""
    faults = Faults()
    with TriggersHarness(
        storage=lambda clock: make_storage(clock, faults), faults=faults, allow_failures=True
    ) as harness:
        harness.session("s").update_configuration(CONFIGURATION)
        faults.reached.clear()
        begun = harness.clock()
        if die_at:
            faults.die_at(die_at)
        for step in scenario(harness):
            try:
                step()
            except InjectedCrash:
                harness.restart()
                step()
        passed = faults.reached.copy()
        faults.revive()
        firings = harness.session("s").storage._reader.firings("s")
        harness.check("s").assert_no_timers()
        return sorted((each.trigger, (each.at - begun) // 3_600_000_000) for each in firings), passed


def on_memory(clock, _):
    """A storage in memory."""
    return MemoryStorage(clock=clock)


@pytest.fixture
def on_sqlite(tmp_path):
    """Make storages in files of their own, with a point before and after each statement."""
    files = itertools.count()

    def make(clock, faults):
        url = f"sqlite:///{tmp_path}/{next(files)}.db?synchronous=normal"
        return SqliteStorage(url, clock=clock, driver=FaultyDriver(load_driver("auto"), faults))

    return make


def check_each(make_storage, chosen=lambda points: points):
    """Die at each of the chosen points."""
    found, passed = lived(make_storage, 0)
    assert found == EXPECTED
    assert {"before commit of set_timer", "after commit of many", "before commit of elapse"} <= set(passed)
    for number in chosen(range(1, len(passed) + 1)):
        assert lived(make_storage, number)[0] == EXPECTED, (
            f"after a crash at {number}, {passed[number - 1]!r}"
        )


def test_a_timer_fires_once_whatever_commit_is_interrupted():
    """Each timer has elapsed once in the end, as of its time."""
    check_each(on_memory)


def test_a_timer_fires_once_whatever_statement_is_interrupted(on_sqlite):
    """The same in a file, at some of its statements."""
    check_each(on_sqlite, lambda points: random.Random(1).sample(points, 40))


@pytest.mark.slow
def test_a_timer_fires_once_whichever_of_all_statements_is_interrupted(on_sqlite):
    """The same in a file, at all of its statements."""
    check_each(on_sqlite)
