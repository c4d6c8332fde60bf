"""Several decisions in one transaction of SQLite: each is in a savepoint, and together they cost one commit."""

from __future__ import annotations

import pytest

from tests.storages.scripts import DRIVERS, opened
from triggers.core import decisions
from triggers.core.configuration import check_configuration
from triggers.core.exchange import Changes, Decision, Need
from triggers.core.state import new_firing
from triggers.core.terms import Policy
from triggers.core.timers import FIRES, Timer
from triggers.exceptions import StorageBusyError, StorageError
from triggers.storages.base import ConflictError
from triggers.storages.sqlite import SqliteStorage
from triggers.storages.sqlite.url import load_driver
from triggers.testing.conformance.steps import Steps
from triggers.testing.faults import Faults, FaultyDriver, InjectedCrash

RULES = {"t_page": {"andEvery": "page", "run": "page"}}

#: What the trigger in :func:`bomb` does: only the statement fails, or SQLite rolls the whole transaction back.
FAILS, ROLLS_BACK = "ABORT", "ROLLBACK"


@pytest.fixture(params=DRIVERS)
def storage(request, tmp_path):
    storage = opened(f"sqlite:///{tmp_path}/s.db?driver={request.param}")
    yield storage
    storage.close()


def fire(trigger="page"):
    """Decide that a trigger fires."""
    return decisions.fire(Policy(), new_firing(trigger, {}))


def configure(rules):
    """Decide that a session has these rules."""
    return decisions.configure(Policy(), check_configuration(rules))


def setting(name):
    """Decide that a session has a timer with that name."""

    def begin(session):
        yield Need()
        session.next_timer_at = 5
        session.manager = "default"
        return Changes(session, timers={name: Timer(name, 5, 1, FIRES, 1)})

    return Decision("set", begin)


def bomb(storage, does):
    """Have SQLite refuse the timer with the name "bomb"."""
    with storage._file.transaction() as run:
        run(
            f"CREATE TRIGGER bomb BEFORE INSERT ON timers WHEN new.name = 'bomb'"
            f" BEGIN SELECT RAISE({does}, 'it went off'); END"
        )


def firings(storage):
    """UID → the number of its latest firing."""
    return {head.uid: head.firings for head in storage.reader.sessions()}


def test_many_decisions_cost_one_commit(tmp_path):
    """A transaction is begun and committed once, however many decisions it contains."""
    faults = Faults()
    storage = SqliteStorage(f"sqlite:///{tmp_path}/s.db", driver=FaultyDriver(load_driver("auto"), faults))
    faults.reached.clear()
    storage.commit_many([(f"s{n}", fire()) for n in range(20)])
    assert [point for point in faults.reached if "BEGIN" in point or "COMMIT" in point] == [
        "before BEGIN IMMEDIATE",
        "after BEGIN IMMEDIATE",
        "before COMMIT",
        "after COMMIT",
    ]
    assert firings(storage) == {f"s{n}": 1 for n in range(20)}


def test_no_decisions_begin_no_transaction(storage):
    """Not even if another process has locked the file."""
    with storage._file.transaction():
        assert storage.commit_many([]) == []


def test_a_session_that_sqlite_refuses_does_not_disturb_the_others(storage):
    """Its changes are undone, and the error is that of `commit`."""
    bomb(storage, FAILS)
    done = storage.commit_many([("a", fire()), ("b", setting("bomb")), ("a", fire()), ("c", setting("t"))])
    assert [type(one) for one in done] == [Changes, StorageError, Changes, Changes]
    assert "it went off; nothing was changed" in str(done[1])
    with pytest.raises(StorageError, match="it went off; nothing was changed"):
        storage.commit("b", setting("bomb"))
    assert firings(storage) == {"a": 2, "c": 0}
    assert storage.timed_sessions(9, ["default"]) == [("c", 5)]


def test_if_sqlite_rolls_the_transaction_back_nothing_is_stored(storage):
    """And nothing of what follows is committed by itself."""
    bomb(storage, ROLLS_BACK)
    with pytest.raises(StorageError, match="it went off; nothing was changed"):
        storage.commit_many([("a", fire()), ("b", setting("bomb")), ("c", fire())])
    assert firings(storage) == {}
    assert storage.commit_many([("a", fire())])[0].fired[0].number == 1


def test_rules_that_were_rolled_back_are_forgotten(storage):
    """Other rules get their number, and are not taken for them."""
    bomb(storage, ROLLS_BACK)
    for then in (storage.commit_many, storage.commit_many):
        with pytest.raises(StorageError):
            then([("a", configure(RULES)), ("a", fire()), ("b", setting("bomb"))])
    others = {"t_other": {"andEvery": "page", "run": "other"}}
    Steps(storage, "c").configure(others)
    Steps(storage, "c").fire("page")
    assert Steps(storage, "c").statuses() == {"t_other#0": "scheduled"}


def test_rules_that_were_committed_are_read_once(storage):
    """What a decision has read of another one in the same transaction is known afterwards."""
    storage.commit_many([("a", configure(RULES)), ("a", fire())])
    asked = []
    with storage._file.transaction() as run:
        run.connection.set_trace_callback(asked.append)
    Steps(storage, "a").fire("page")
    assert asked
    assert not [statement for statement in asked if "FROM rule_sets" in statement]


def test_a_file_that_stays_locked_is_an_error_of_all(storage, tmp_path):
    """It is raised, and nothing is stored."""
    other = opened(storage._file.url)
    with other._file.transaction(), pytest.raises(StorageBusyError, match="nothing was changed"):
        storage.commit_many([("a", fire()), ("b", fire())], timeout=0)
    other.close()
    assert firings(storage) == {}


def test_a_change_whose_guard_never_holds_is_a_conflict(storage):
    """As with `commit`: the message says how often it was tried."""
    Steps(storage, "a").configure(RULES)
    Steps(storage, "a").fire("page")

    def begin(session):
        found = yield Need(instances=(("t_page", 0),))
        return Changes(session, triggered=found.instances)  # it no longer is unstarted

    done = storage.commit_many([("a", Decision("wrong", begin)), ("b", fire())])
    with pytest.raises(ConflictError) as raised:
        storage.commit("a", Decision("wrong", begin))
    assert (type(done[0]), str(done[0])) == (ConflictError, str(raised.value))
    assert firings(storage) == {"a": 1, "b": 1}


def test_a_process_can_die_at_every_statement(tmp_path):
    """All decisions are stored, or none."""
    url, faults = f"sqlite:///{tmp_path}/s.db", Faults()
    storage = SqliteStorage(url)
    bomb(storage, FAILS)
    batch = [("a", fire()), ("b", setting("bomb")), ("c", setting("t"))]
    point, number = "", 0
    while point != "after COMMIT":
        assert firings(storage) == {}, point
        number += 1
        process = SqliteStorage(url, driver=FaultyDriver(load_driver("auto"), faults))
        faults.die_at(number)
        with pytest.raises(InjectedCrash):
            process.commit_many(batch)
        process.close()
        point = faults.dead
        faults.revive()
    assert firings(storage) == {"a": 1, "c": 0}
    assert number > 30


def test_a_joined_transaction_contains_them_all(storage, tmp_path):
    """One that fails is undone within the application's transaction, which is rolled back as a whole or not at all."""
    bomb(storage, FAILS)
    driver = storage._file.driver
    connection = driver.connect(f"{tmp_path}/s.db", isolation_level=None)
    for ends, expected in (("ROLLBACK", {}), ("COMMIT", {"a": 1})):
        connection.execute("BEGIN IMMEDIATE")
        joined = storage.joined(connection)
        done = joined.commit_many([("a", fire()), ("b", setting("bomb"))])
        assert [type(one) for one in done] == [Changes, StorageError]
        assert connection.in_transaction
        joined.close()
        connection.execute(ends)
        assert firings(storage) == expected
    connection.close()
