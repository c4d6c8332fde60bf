"""What is special about joining a transaction on PostgreSQL."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.scenarios.applications import without_schema
from triggers import Registry, Triggers
from triggers.core import decisions
from triggers.core.state import new_firing
from triggers.core.terms import Policy
from triggers.exceptions import IdempotencyConflictError, StorageBusyError, StorageError
from triggers.plugins import storage_from_url
from triggers.task import task

psycopg = pytest.importorskip("psycopg")

POLICY = Policy()
RULES = {"t_page": {"andEvery": "pageReceived", "run": "page"}}


@pytest.fixture
def url(postgres_url):
    return postgres_url


@pytest.fixture
def triggers(url):
    registry = Registry()

    @task(name="page", registry=registry)
    def page(context):
        return {}

    made = Triggers(url, runner=None, registry=registry)
    yield made
    made.close()


@pytest.fixture
def manager(triggers):
    made = triggers.session("respondent-17")
    made.update_configuration(RULES)
    return made


@pytest.fixture
def connect(url):
    """Opens connections of the application's."""
    opened = []

    def connect(**options):
        connection = psycopg.connect(**{**without_schema(url), **options})
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.close()


def fire(storage, **options):
    """Fire at the storage itself, with options that a manager does not set."""
    firing = new_firing("pageReceived", None, None, limits=POLICY.limits)
    return storage.commit("respondent-17", decisions.fire(POLICY, firing), **options)


def firings(manager):
    return manager.storage.head.firings


def test_a_transaction_is_begun_where_the_driver_would_begin_one(connect, manager):
    """Outside of a transaction the block begins the driver's own, with its settings, which the application commits."""
    connection = connect()
    connection.isolation_level = psycopg.IsolationLevel.SERIALIZABLE
    with manager.joined(connection):
        manager.fire("pageReceived")
    assert firings(manager) == 0
    assert connection.execute("SHOW transaction_isolation").fetchone() == ("serializable",)
    connection.commit()
    assert firings(manager) == 1


def test_a_connection_that_commits_each_statement_is_refused(connect, manager):
    """It is said how to begin a transaction; one that was begun by hand will do."""
    connection = connect(autocommit=True)
    with pytest.raises(StorageError, match=r"connection\.transaction\(\)"), manager.joined(connection):
        raise AssertionError
    connection.execute("BEGIN")
    with manager.joined(connection):
        manager.fire("pageReceived")
    connection.execute("COMMIT")
    assert firings(manager) == 1


def test_another_database_is_refused(connect, manager):
    """One commit cannot cover two databases."""
    connection = connect(dbname="template1")
    with pytest.raises(StorageError, match="another database"), manager.joined(connection):
        raise AssertionError


def test_another_driver_is_refused(manager):
    """It is said which one is needed."""
    with pytest.raises(StorageError, match="psycopg 3"), manager.joined(object()):
        raise AssertionError


def test_a_connection_in_pipeline_mode_is_refused(connect, manager):
    """Its answers are not there yet; after that it can be joined."""
    connection = connect()
    connection.execute("SELECT 1")
    if not psycopg.Pipeline.is_supported():
        pytest.skip("this libpq has no pipelines")
    with connection.pipeline(), pytest.raises(StorageError, match="pipeline"), manager.joined(connection):
        raise AssertionError
    with manager.joined(connection):
        manager.fire("pageReceived")
    connection.commit()
    assert firings(manager) == 1


def test_a_transaction_that_has_failed_is_refused(connect, manager):
    """Until the application has rolled back what has failed."""
    connection = connect()
    with manager.joined(connection):
        manager.fire("pageReceived")
        connection.execute("SAVEPOINT mine")
        with pytest.raises(psycopg.errors.UndefinedTable):
            connection.execute("SELECT * FROM no_such_table")
        with pytest.raises(StorageError, match="a statement has failed in your transaction"):
            manager.fire("pageReceived")
        connection.execute("ROLLBACK TO mine")
        manager.fire("pageReceived")
    connection.commit()
    assert firings(manager) == 2


def test_another_encoding_is_refused(connect, manager):
    """Text would be stored as something else."""
    connection = connect(client_encoding="LATIN1")
    with pytest.raises(StorageError, match="client_encoding is LATIN1"), manager.joined(connection):
        raise AssertionError


def test_what_rows_and_values_are_to_the_application_does_not_matter(connect, manager):
    """Its row factory, its cursors and its loaders are left as they are, and not used."""

    class Words(psycopg.adapt.Loader):
        def load(self, data):
            return "something else"

    connection = connect(row_factory=psycopg.rows.dict_row, cursor_factory=psycopg.ClientCursor)
    connection.adapters.register_loader("text", Words)
    connection.adapters.register_loader("int8", Words)
    with manager.joined(connection):
        manager.fire("pageReceived", {"number": 1}, key="k")
        assert manager.fire("pageReceived", {"number": 1}, key="k").duplicate
        assert manager.storage["t_page#0"].kwargs == {"pageReceived": {"number": 1}}
    connection.commit()


def test_a_connection_through_pgbouncer_can_be_joined(pgbouncer_url, triggers):
    """The application's connection may be one that PgBouncer lends for a transaction, and so may be ours."""
    own = Triggers(pgbouncer_url, runner=None)
    manager = own.session("respondent-17")
    for _ in range(3):
        with psycopg.connect(**without_schema(pgbouncer_url)) as connection, manager.joined(connection):
            manager.fire("pageReceived")
        connection.close()
    assert firings(manager) == 3
    own.close()


def test_no_savepoint_is_left_behind(connect, manager):
    """Whether a call worked or raised, its savepoint is gone."""
    connection = connect()
    with manager.joined(connection):
        manager.fire("pageReceived", {"number": 1}, key="k")
        with pytest.raises(IdempotencyConflictError):
            manager.fire("pageReceived", {"number": 2}, key="k")
        assert manager.storage.head.firings == 1
        with pytest.raises(psycopg.errors.InvalidSavepointSpecification):
            connection.execute("RELEASE SAVEPOINT triggers")
    connection.rollback()


@pytest.mark.parametrize("level", ["REPEATABLE READ", "SERIALIZABLE"])
def test_a_stricter_isolation_is_told_to_begin_again(connect, manager, level):
    """Whoever has an older view of a session than the latest firing cannot fire into it; it is said what to do."""
    connection = connect()
    connection.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
    connection.execute("SELECT 1")
    manager.fire("pageReceived")
    again = pytest.raises(StorageBusyError, match="roll your transaction back and run it again")
    with manager.joined(connection), again:
        manager.fire("pageReceived")
    assert connection.execute("SELECT 7").fetchone() == (7,)  # and yet the transaction is usable
    connection.rollback()
    connection.execute(f"SET TRANSACTION ISOLATION LEVEL {level}")
    with manager.joined(connection):
        manager.fire("pageReceived")
    connection.commit()
    assert firings(manager) == 2


def test_others_wait_for_the_commit_and_then_see_it(connect, triggers, manager):
    """A firing into the session, by whomever, waits until the transaction ends, and gets the next number."""
    connection = connect()
    with manager.joined(connection), ThreadPoolExecutor(1) as pool:
        assert manager.fire("pageReceived").number == 1
        other = pool.submit(triggers.session("respondent-17").fire, "pageReceived")
        while not connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND pg_backend_pid() = ANY(pg_blocking_pids(pid))"
        ).fetchone()[0]:
            assert not other.done()
        assert manager.fire("pageReceived").number == 2
        connection.commit()
        assert other.result().number == 3


def test_a_deadlock_is_told_and_leaves_one_of_the_two(connect, triggers):
    """Two transactions that fire into two sessions in opposite order: one is told to begin again, the other goes on."""
    here = [triggers.session(uid) for uid in ("a", "b")]
    for session in here:
        session.fire("begun")
    barrier = threading.Barrier(2)

    def work(order):
        connection = connect()
        connection.execute("SET LOCAL deadlock_timeout = '50ms'")
        first, second = (triggers.session(uid) for uid in order)
        with first.joined(connection), second.joined(connection):
            first.fire("one")
            barrier.wait()
            try:
                second.fire("two")
            except StorageBusyError as error:
                connection.rollback()
                return str(error)
        connection.commit()
        return "done"

    with ThreadPoolExecutor(2) as pool:
        told = sorted(pool.map(work, ["ab", "ba"]), key="done".__eq__)
    assert "deadlock" in told[0]
    assert told[1] == "done"
    assert [firings(session) for session in here] == [2, 2]


def test_a_connection_that_is_lost_takes_the_transaction_along(connect, manager):
    """It is said, and nothing was stored."""
    connection, other = connect(), connect(autocommit=True)
    with manager.joined(connection):
        manager.fire("pageReceived")
        other.execute("SELECT pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])
        with pytest.raises(StorageError, match="your transaction with it"):
            manager.fire("pageReceived")
        with pytest.raises(StorageError, match="closed"):
            manager.fire("pageReceived")
    assert firings(manager) == 0


def test_a_text_that_postgres_cannot_keep_leaves_the_transaction_usable(connect, manager):
    """Whatever becomes of a NUL, the transaction goes on."""
    connection = connect()
    with manager.joined(connection):
        try:
            manager.fire("pageReceived", {"text": "a\0b"})
        except StorageError:
            expected = 1
        else:
            expected = 2
        manager.fire("pageReceived", {"text": "a"})
    connection.commit()
    assert firings(manager) == expected


def test_who_may_not_use_the_schema_is_told(connect, manager):
    """A role without rights is told which ones it needs, and its transaction goes on."""
    connection = connect()
    connection.execute("CREATE ROLE nobody_17")
    connection.execute("SET LOCAL ROLE nobody_17")
    connection.execute("SAVEPOINT mine")
    with pytest.raises(StorageError, match="permission denied"), manager.joined(connection):
        raise AssertionError
    connection.execute("SELECT 1")
    connection.rollback()


def test_the_settings_of_the_connection_stay_as_they_are(url, connect, manager):
    """No setting of the application's connection is changed for the rest of its transaction."""
    connection, storage = connect(), storage_from_url(url)

    def settings():
        return dict(connection.execute("SELECT name, setting FROM pg_settings").fetchall())

    before = settings()
    with manager.joined(connection):
        manager.fire("pageReceived")
        joined = storage.joined(connection)
        joined.due(10, grace=1)
        joined.expired(10)
        fire(joined, timeout=5)
    # PostgreSQL lists the settings of PL/pgSQL only after the connection has used it.
    assert settings().items() >= before.items()
    connection.commit()
    storage.close()


def test_a_commit_with_a_timeout_is_stored(url, connect, manager):
    """The timeout of the connection counts, and the head and the rows that were loaded with it are not mixed up."""
    connection, storage = connect(), storage_from_url(url)
    joined = storage.joined(connection)
    assert [fire(joined, timeout=5).fired[0].number for _ in range(2)] == [1, 2]
    connection.commit()
    assert firings(manager) == 2
    assert set(manager.storage.instances) == {"t_page#0", "t_page#1"}
    storage.close()
