"""Faults: a process dies where it was told, and what was wrapped works like the original until then."""

from __future__ import annotations

import collections
import itertools
import signal
import sqlite3
import subprocess
import sys
from datetime import timedelta

import pytest

from triggers import Registry, Triggers
from triggers.core import decisions
from triggers.core.state import new_firing
from triggers.core.terms import Policy
from triggers.runners.inline import InlineRunner
from triggers.storages.base import ReadyInstance
from triggers.storages.memory import MemoryStorage
from triggers.storages.sqlite import SqliteStorage
from triggers.storages.sqlite.url import load_driver
from triggers.task import task
from triggers.testing import (
    Faults,
    FaultyDriver,
    FaultyRunner,
    FaultyStorage,
    InjectedCrash,
    TriggersHarness,
    VirtualClock,
    by_chance,
)
from triggers.testing.conformance import StorageConformance
from triggers.testing.conformance.sandbox import StorageSandbox

PASSING = "triggers.testing.PassThrough"
CHAIN = {"t_one": {"after": ["begun"], "run": PASSING}, "t_two": {"after": ["t_one"], "run": PASSING}}
MINUTES = timedelta(minutes=5)


def played(faults, storage=None):
    """A harness in which a chain of two tasks is configured."""
    harness = TriggersHarness(faults=faults, storage=storage)
    harness.session("s").update_configuration(CHAIN)
    return harness


class TestFaultyStorage(StorageConformance):
    """A storage that is wrapped keeps every promise that it keeps without."""

    @pytest.fixture
    def make_place(self):
        def make():
            made = []

            def open_with(clock):
                if not made:
                    made.append(FaultyStorage(MemoryStorage(clock=clock), Faults()))
                return made[0]

            return StorageSandbox(open_with)

        return make

    @pytest.fixture
    def committing(self):
        pytest.skip("the wrapped storage has one lock")

    overtaking = committing


class TestFaultyDriver(StorageConformance):
    """A file that is used through a wrapped driver keeps every promise that it keeps without."""

    #: The driver knows nothing of sessions: the suite's single steps are enough.
    test_it_agrees_with_the_reference_model = None

    @pytest.fixture
    def make_place(self, tmp_path):
        numbers = itertools.count()

        def make():
            url = f"sqlite:///{tmp_path}/{next(numbers)}.db?synchronous=normal"
            driver = FaultyDriver(load_driver("auto"), Faults())
            return StorageSandbox(lambda clock: SqliteStorage(url, clock=clock, driver=driver))

        return make


# -- the points -------------------------------------------------------------------------------------------


def test_the_points_of_one_firing():
    """Every commit on the way from a firing to the end of its cascade is a point before and after, in order."""
    faults = Faults()
    with played(faults) as harness:
        faults.reached.clear()
        harness.session("s").fire("begun")
    steps = ["fire", "claim", "finish", "claim", "finish"]
    before_hand_over = [f"{when} commit of {step}" for step in steps for when in ("before", "after")]
    assert faults.reached == before_hand_over
    assert not faults.dead


def test_the_points_of_a_sweep():
    """A sweep looks for timers, for lost claims and for what is due, each a point before and after."""
    faults = Faults()
    with played(faults) as harness:
        faults.reached.clear()
        harness.triggers.sweep()
    steps = ["timed_sessions", "expired", "due"]
    assert faults.reached == [f"{when} {step}" for step in steps for when in ("before", "after")]


def test_the_points_of_several_decisions():
    """Each decision is a point, and the end of all is one. A process that dies in the middle has stored what came before."""
    faults = Faults()
    storage = FaultyStorage(MemoryStorage(), faults)
    batch = [(uid, decisions.fire(Policy(), new_firing("go", {}))) for uid in ("a", "b")]
    storage.commit_many(batch)
    assert faults.reached == ["before commit of fire", "before commit of fire", "after commit of many"]
    faults.die_at(2)
    with pytest.raises(InjectedCrash):
        storage.commit_many(batch)
    faults.revive()
    assert [head.firings for head in storage.reader.sessions()] == [2, 1]
    assert storage.timed_sessions(9, ["default"]) == []


def test_a_point_is_named_by_its_beginning():
    """A beginning of a name and how often to pass it choose a point; the ones before it are passed."""
    faults = Faults()
    with played(faults) as harness:
        faults.die_at("before commit", hit=3)
        with pytest.raises(InjectedCrash, match=r"^before commit of finish$"):
            harness.session("s").fire("begun")
        assert faults.dead == faults.reached[-1] == "before commit of finish"


def test_a_point_is_counted_from_now():
    """A number chooses the point that is so many ahead; the last choice counts."""
    faults = Faults()
    with played(faults) as harness:
        faults.die_at(1)
        faults.die_at(4)
        with pytest.raises(InjectedCrash, match=r"^after commit of claim$"):
            harness.session("s").fire("begun")


def test_nothing_is_stored_before_a_commit_and_all_of_it_after():
    """A firing that died before its commit has left nothing; one that died after it has left everything."""
    faults = Faults()
    with played(faults) as harness:
        faults.die_at("before commit of fire")
        with pytest.raises(InjectedCrash):
            harness.session("s").fire("begun")
        faults.revive()
        harness.check("s").assert_instance_missing("t_one#0")
        faults.die_at("after commit of fire")
        with pytest.raises(InjectedCrash):
            harness.session("s").fire("begun")
        faults.revive()
        harness.check("s").assert_instance_scheduled("t_one#0")


def test_the_dead_stay_dead():
    """Whatever a dead process touches raises, handlers of errors do not see it, and nothing more is stored."""
    faults = Faults()
    with played(faults) as harness:
        faults.die_at("before commit of claim")
        with pytest.raises(InjectedCrash):
            harness.session("s").fire("begun")
        for call in (
            lambda: harness.session("s").fire("begun"),
            harness.triggers.sweep,
            lambda: harness.triggers.storage.reader,
        ):
            with pytest.raises(InjectedCrash, match="the process died at 'before commit of claim'"):
                call()
        reached = len(faults.reached)
        harness.restart()
        assert len(faults.reached) == reached
        assert [firing.trigger for firing in harness.triggers.storage.reader.firings("s")] == ["begun"]
    assert not issubclass(InjectedCrash, Exception)


def test_every_point_can_be_died_at():
    """Dying at each point in turn, by its number, hits each of them, and the session ends the same each time."""
    faults = Faults()
    with played(faults) as harness:
        faults.reached.clear()
        harness.session("s").fire("begun")
        names = list(faults.reached)
    hit = []
    for number in range(1, len(names) + 1):
        faults = Faults()
        with played(faults) as harness:
            faults.die_at(number)
            with pytest.raises(InjectedCrash) as crash:
                harness.session("s").fire("begun", key="k")
            hit.append(str(crash.value))
            harness.restart()
            harness.session("s").fire("begun", key="k")
            harness.run_until_idle()
            harness.check("s").assert_instance_finished("t_two#0")
            harness.check("s").assert_unresolved_tasks([])
    assert hit == names


def test_renewing_is_a_point():
    """A heartbeat that dies has, or has not, renewed the claim."""
    faults = Faults()
    storage = FaultyStorage(MemoryStorage(), faults)
    faults.die_at("after renew")
    with pytest.raises(InjectedCrash):
        storage.renew([], 1)
    assert faults.reached == ["before renew", "after renew"]


# -- SQLite -----------------------------------------------------------------------------------------------


@pytest.fixture
def open_file(tmp_path):
    """Opens a file through a faulty driver."""

    def open_file(faults, clock=None, name="s.db"):
        driver = FaultyDriver(load_driver("auto"), faults)
        return SqliteStorage(
            f"sqlite:///{tmp_path}/{name}?synchronous=normal", clock=clock or VirtualClock(), driver=driver
        )

    return open_file


def test_every_statement_of_a_commit_is_a_point(open_file):
    """Between BEGIN and COMMIT, both included, there is a point before and after each statement and before each row."""
    faults = Faults()
    with played(Faults(), lambda clock: open_file(faults, clock)) as harness:
        faults.reached.clear()
        harness.session("s").fire("nothing")
        reached = faults.reached.copy()
    assert reached[0] == "before BEGIN IMMEDIATE"
    assert any(point.startswith("after INSERT INTO firings (session, number") for point in reached)
    assert reached[-2:] == ["before COMMIT", "after COMMIT"]


@pytest.mark.parametrize("where", ["BEGIN", "INSERT INTO firings", "INSERT INTO instances", "COMMIT"])
def test_a_transaction_that_died_is_gone(open_file, where):
    """Died before a statement, the commit included, nothing of the transaction is kept, and nothing stays locked."""
    faults = Faults()
    with played(faults, lambda clock: open_file(faults, clock)) as harness:
        faults.die_at(f"before {where}")
        with pytest.raises(InjectedCrash):
            harness.session("s").fire("begun")
        other = open_file(Faults())
        assert other.firings("s") == []
        assert other.instances("s") == []
        Triggers(other, runner=None).session("other").fire("x")
        harness.restart()
        harness.session("s").fire("begun")
        harness.check("s").assert_instance_finished("t_two#0")


def test_a_commit_that_died_afterwards_is_kept(open_file):
    """Died after the commit, all of it is kept."""
    faults = Faults()
    with played(faults, lambda clock: open_file(faults, clock)) as harness:
        faults.die_at("after COMMIT")
        with pytest.raises(InjectedCrash):
            harness.session("s").fire("begun")
        assert [instance.name for instance in open_file(Faults()).instances("s")] == ["t_one#0"]


def test_rows_of_one_statement_are_points(open_file):
    """A statement that is run for many rows can die before each of them."""
    faults = Faults()
    connection = FaultyDriver(sqlite3, faults).connect(":memory:", isolation_level=None)
    connection.execute("CREATE TABLE t (n)")
    faults.reached.clear()
    connection.executemany("INSERT INTO t VALUES (?)", [(1,), (2,)])
    statement = "INSERT INTO t VALUES (?)"
    assert faults.reached == [
        f"before {statement}",
        *[f"before a row of {statement}"] * 2,
        f"after {statement}",
    ]
    connection.execute("BEGIN")
    faults.die_at("before a row", hit=2)
    with pytest.raises(InjectedCrash):
        connection.executemany("INSERT INTO t VALUES (?)", [(3,), (4,)])
    assert not connection.in_transaction
    connection.close()


def test_the_schema_can_be_died_in(open_file):
    """A migration that dies at any statement leaves a file that the next one completes."""
    faults = Faults()
    open_file(faults).close()
    points = len(faults.reached)
    assert points > 20
    for number in range(1, points + 1):
        faults = Faults()
        faults.die_at(number)
        with pytest.raises(InjectedCrash):
            open_file(faults, name=f"{number}.db")
        assert open_file(Faults(), name=f"{number}.db").session("s") is None


# -- dying for real ---------------------------------------------------------------------------------------

KILLED = """
import sys
from triggers.testing import Faults, FaultyStorage, TriggersHarness, kill_process
from triggers.storages.sqlite import SqliteStorage
faults = Faults(die=kill_process)
with TriggersHarness(storage=lambda clock: SqliteStorage(sys.argv[1], clock=clock), faults=faults) as harness:
    session = harness.session("s")
    session.update_configuration({"t_one": {"after": ["begun"], "run": "triggers.testing.PassThrough"}})
    faults.die_at(sys.argv[2])
    try:
        session.fire("begun")
    finally:
        print("cleaned up")
"""


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="this system has no SIGKILL")
def test_a_process_can_be_killed(tmp_path):
    """SIGKILL ends the process at the point, without any cleaning up."""
    url = f"sqlite:///{tmp_path}/s.db"
    done = subprocess.run(
        [sys.executable, "-c", KILLED, url, "after commit of claim"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, "")
    assert SqliteStorage(url).instance("s", "t_one", 0).status == "running"


# -- hints ------------------------------------------------------------------------------------------------


class Heard:
    """A runner that only listens."""

    def __init__(self):
        self.hints = []
        self.closed = False

    def start(self, work):
        self.work = work

    def submit(self, due):
        self.hints.append(due.number)

    def is_idle(self):
        return True

    def close(self, timeout):
        self.closed = True
        return True


def hint(number):
    return ReadyInstance("s", "t_x", number, None)


def test_hints_have_their_fate():
    """A hint is delivered, lost, repeated, or held back until it is asked for, the latest first."""
    deliveries = ["deliver", "drop", "twice", "late", "late"]
    runner = FaultyRunner(heard := Heard(), lambda due: deliveries[due.number])
    runner.start(None)
    for number in range(5):
        runner.submit(hint(number))
    assert heard.hints == [0, 2, 2]
    assert runner.deliver_late() == 2
    assert heard.hints == [0, 2, 2, 4, 3]
    assert runner.deliver_late() == 0
    assert runner.is_idle()
    assert runner.close(None)
    assert heard.closed


def test_chance_is_seeded():
    """The same seed makes the same choices, in about the given fractions; fractions above 1 in all are refused."""
    chosen, again = (by_chance(7, drop=0.5, late=0.25) for _ in range(2))
    drawn = [chosen(hint(n)) for n in range(1_000)]
    assert drawn == [again(hint(n)) for n in range(1_000)]
    counted = collections.Counter(drawn)
    assert set(counted) == {"drop", "late", "deliver"}
    assert 400 < counted["drop"] < 600
    with pytest.raises(ValueError, match="must be fractions"):
        by_chance(1, drop=0.9, twice=0.2)
    with pytest.raises(ValueError, match="must be fractions"):
        by_chance(1, drop=-0.1)


@pytest.mark.parametrize("seed", range(5))
def test_no_fate_of_hints_makes_a_difference(seed):
    """Whatever becomes of the hints, every instance runs in the end, and once."""
    tasks = Registry()
    runs = collections.Counter()

    @task(name="count", registry=tasks)
    def count(context):
        runs[context.task_instance.name] += 1
        return {}

    clock = VirtualClock()
    runner = FaultyRunner(InlineRunner(), by_chance(seed, drop=0.3, twice=0.2, late=0.2))
    with Triggers(MemoryStorage(clock=clock), runner=runner, registry=tasks) as triggers:
        session = triggers.session("s")
        session.update_configuration(
            {
                "t_one": {"andEvery": "page", "run": "count"},
                "t_two": {"andEvery": "t_one", "run": "count"},
            }
        )
        for _ in range(10):
            session.fire("page")
        runner.deliver_late()
        while not triggers.join(0):
            clock.advance(timedelta(minutes=10))
            triggers.sweep()
        assert runs == {f"t_{task}#{number}": 1 for task in ("one", "two") for number in range(10)}


def test_dying_around_a_hint():
    """A hint is a point before and after."""
    faults = Faults()
    runner = FaultyRunner(heard := Heard(), faults=faults)
    faults.die_at("before submit")
    with pytest.raises(InjectedCrash):
        runner.submit(hint(1))
    faults.revive()
    faults.die_at("after submit")
    with pytest.raises(InjectedCrash):
        runner.submit(hint(2))
    assert heard.hints == [2]


def test_points_of_ones_own():
    """Whatever else a test wants to die at calls `reach` with a name."""
    faults = Faults()
    faults.die_at("before the letter is sent")
    with pytest.raises(InjectedCrash):
        faults.reach("before the letter is sent")
    assert repr(faults) == "<Faults: 1 points reached, dead at 'before the letter is sent'>"
