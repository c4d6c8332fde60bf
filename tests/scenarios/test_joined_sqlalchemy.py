"""What is special about joining a transaction of SQLAlchemy's."""

from __future__ import annotations

import asyncio
import gc
from contextlib import suppress
from typing import ClassVar

import pytest

from tests.scenarios.applications import RolledBackError, application_of, without_schema
from triggers import Registry, TriggerManager, Triggers
from triggers.exceptions import StorageError
from triggers.storages.joining.transaction import AsyncConnection
from triggers.task import task

sqlalchemy = pytest.importorskip("sqlalchemy")
orm = pytest.importorskip("sqlalchemy.orm")

RULES = {"t_page": {"andEvery": "pageReceived", "run": "page"}}


class Told(TriggerManager):
    name = "tests.alchemy"
    heard: ClassVar = []

    def _post_fire(self, name, tasks_scheduled):
        self.heard.append(name)


@pytest.fixture(autouse=True)
def heard(monkeypatch):
    found = []
    monkeypatch.setattr(Told, "heard", found)
    return found


@pytest.fixture(params=["sqlite, sqlalchemy", "postgres, sqlalchemy"])
def application(request, tmp_path):
    with application_of(request.param, request, tmp_path) as made:
        yield made


@pytest.fixture
def manager(application, heard):
    registry = Registry()

    @task(name="page", registry=registry)
    def page(context):
        return {}

    triggers = Triggers(application.url, runner=None, registry=registry, manager=Told)
    made = triggers.session("respondent-17")
    made.update_configuration(RULES)
    heard.clear()
    yield made
    triggers.close()


def firings(manager):
    return manager.storage.head.firings


def test_a_connection_that_stays_open_tells_with_its_next_transaction(application, manager, heard):
    """After a commit, hooks come when the connection begins another transaction, or is closed."""
    with application.engine.connect() as connection:
        with manager.joined(connection):
            manager.fire("one")
        connection.commit()
        connection.execute(sqlalchemy.text("SELECT 1"))
        assert heard == ["one"]
        connection.rollback()
        with manager.joined(connection):
            manager.fire("two")
        connection.rollback()
        with manager.joined(connection):
            manager.fire("three")
        connection.commit()
        assert heard == ["one"]
    assert heard == ["one", "three"]
    assert firings(manager) == 2


def test_a_connection_that_is_closed_without_a_commit_tells_nothing(application, manager, heard):
    """Closing rolls back; nor does the next one that gets the same place in the pool tell of it."""
    with application.engine.connect() as connection, manager.joined(connection):
        manager.fire("one")
    with application.engine.begin() as connection:
        connection.execute(sqlalchemy.text("SELECT 1"))
    assert (heard, firings(manager)) == ([], 0)


def test_a_commit_that_fails_tells_nothing(application, manager, heard, monkeypatch):
    """Neither when it fails, nor when the connection is closed, nor when it begins again."""
    error = application.engine.dialect.dbapi.OperationalError

    def refuse(_):
        raise error("the disk is full")

    connection = application.engine.connect()
    with manager.joined(connection):
        manager.fire("one")
    with monkeypatch.context() as patch:
        patch.setattr(application.engine.dialect, "do_commit", refuse)
        with pytest.raises(sqlalchemy.exc.OperationalError):
            connection.commit()
    connection.rollback()
    connection.execute(sqlalchemy.text("SELECT 1"))
    assert heard == []
    connection.close()
    application.engine.dispose()
    assert (heard, firings(manager)) == ([], 0)


def test_a_commit_that_the_database_refuses_tells_nothing(application, manager, heard):
    """A constraint that is looked at in the commit takes the firing back, too."""
    with application.engine.begin() as connection:
        prefix = f"{application.schema}." if hasattr(application, "schema") else ""
        connection.exec_driver_sql(f"CREATE TABLE {prefix}people (id INTEGER PRIMARY KEY)")
        connection.exec_driver_sql(
            f"CREATE TABLE {prefix}answers (person INTEGER REFERENCES {prefix}people"
            f" DEFERRABLE INITIALLY DEFERRED)"
        )
    with application.engine.connect() as connection:
        if not prefix:
            connection.exec_driver_sql("PRAGMA foreign_keys = ON")
            connection.rollback()
        with manager.joined(connection):
            manager.fire("one")
        connection.exec_driver_sql(f"INSERT INTO {prefix}answers VALUES (7)")  # noqa: S608 - a table of its own
        with pytest.raises(sqlalchemy.exc.IntegrityError):
            connection.commit()
    assert (heard, firings(manager)) == ([], 0)


def test_savepoints_in_savepoints_and_those_of_the_application(application, manager, heard):
    """An outer savepoint takes an inner one along, whoever made them, in whatever way they are written."""
    with application.engine.begin() as connection, manager.joined(connection):
        manager.fire("kept")
        with suppress(RolledBackError), connection.begin_nested():
            with connection.begin_nested():
                manager.fire("lost with the outer one")
            raise RolledBackError
        outer = connection.begin_nested()
        connection.begin_nested()
        manager.fire("lost, too")
        with pytest.warns(sqlalchemy.exc.SAWarning):  # SQLAlchemy finds that odd, too
            outer.rollback()
        connection.exec_driver_sql("savepoint mine")
        manager.fire("lost by hand")
        connection.exec_driver_sql("ROLLBACK TO Mine;")
        manager.fire("kept after all")
        connection.exec_driver_sql("RELEASE mine")
    assert heard == ["kept", "kept after all"]
    assert firings(manager) == 2


def test_a_session_in_a_transaction_of_somebody_else_tells_nothing(application, manager, heard):
    """A test suite's session, on a connection that is rolled back in the end, may commit as it likes."""
    with application.engine.connect() as connection:
        connection.begin()
        if not hasattr(application, "schema"):  # else the savepoint would be the whole transaction
            connection.exec_driver_sql("BEGIN IMMEDIATE")
        with orm.Session(connection, join_transaction_mode="create_savepoint") as session:
            with manager.joined(session):
                manager.fire("one")
            session.commit()
        assert heard == []
        connection.rollback()
    assert (heard, firings(manager)) == ([], 0)


def test_a_scoped_session_can_be_joined(application, manager, heard):
    """The session of the thread, by its registry."""
    sessions = orm.scoped_session(orm.sessionmaker(application.engine))
    with manager.joined(sessions):
        manager.fire("one")
    sessions.commit()
    sessions.remove()
    assert (heard, firings(manager)) == (["one"], 1)


def test_a_session_tells_with_each_of_its_transactions(application, manager, heard):
    """A session that goes on is joined again for each transaction, and refused in a block of an earlier one."""
    with orm.Session(application.engine) as session:
        with manager.joined(session):
            manager.fire("one")
            session.commit()
            assert heard == ["one"]
            with pytest.raises(StorageError, match="open a block for each transaction"):
                manager.fire("two")
        with manager.joined(session):
            manager.fire("three")
        session.commit()
    assert heard == ["one", "three"]


def test_a_connection_that_is_forgotten_harms_nobody(application, manager, heard):
    """Left to the collector of garbage after its commit, it calls nothing, and the sweep is there for the rest."""
    connection = application.engine.connect()
    with manager.joined(connection):
        manager.fire("one")
    connection.commit()
    del connection
    gc.collect()
    assert (heard, firings(manager)) == ([], 1)


def test_an_autocommit_connection_is_refused(application, manager):
    """Its transactions are none."""
    with (
        application.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection,
        pytest.raises(StorageError, match="each statement is committed separately"),
        manager.joined(connection),
    ):
        raise AssertionError


def test_what_is_asynchronous_is_refused(manager):
    """It is said how to get at what is synchronous."""
    asyncs = pytest.importorskip("sqlalchemy.ext.asyncio")

    async def main():
        async with asyncs.AsyncSession() as session:
            with pytest.raises(StorageError, match=r"run_sync"), manager.joined(session):
                raise AssertionError

    asyncio.run(main())


@pytest.fixture
def async_application(request, tmp_path):
    asyncs = pytest.importorskip("sqlalchemy.ext.asyncio")
    with application_of("postgres, sqlalchemy", request, tmp_path) as made:
        options = {"connect_args": without_schema(made.url), "poolclass": sqlalchemy.pool.NullPool}
        made.async_engine = asyncs.create_async_engine("postgresql+psycopg://", **options)
        made.sessions = asyncs.async_sessionmaker(made.async_engine)
        yield made


@pytest.fixture
def async_manager(async_application, heard):
    triggers = Triggers(async_application.url, runner=None, manager=Told)
    yield triggers.session("respondent-17")
    triggers.close()


def fire(session, manager, name):
    with manager.joined(session):
        manager.fire(name)


def test_an_async_session_is_joined_by_run_sync(async_application, async_manager, heard):
    """In the function that `run_sync` calls, the session is an ordinary one, and hooks come after its commit."""

    async def main():
        async with async_application.sessions() as session:
            await session.run_sync(fire, async_manager, "one")
            assert heard == []
            await session.commit()
            assert heard == ["one"]
            await session.run_sync(fire, async_manager, "two")
            await session.rollback()

    asyncio.run(main())
    assert (heard, firings(async_manager)) == (["one"], 1)


def test_others_run_while_an_async_session_waits(async_application, async_manager, heard):
    """Who waits for a session's lock on the event loop does not keep its holder, on the same loop, from committing."""

    async def second(begun):
        async with async_application.sessions() as session:
            await session.connection()
            begun.set()
            await session.run_sync(fire, async_manager, "two")
            await session.commit()

    async def main():
        begun = asyncio.Event()
        async with async_application.sessions() as session:
            await session.run_sync(fire, async_manager, "one")
            waiting = asyncio.create_task(second(begun))
            await begun.wait()
            await session.execute(sqlalchemy.text("SELECT pg_sleep(0.2)"))
            assert not waiting.done()
            await session.commit()
        await waiting

    asyncio.run(main())
    assert (heard, firings(async_manager)) == (["one", "two"], 2)


def test_another_asynchronous_driver_is_refused(manager):
    """It is said which one is needed."""
    given = AsyncConnection(object(), lambda _: None)
    with pytest.raises(StorageError, match=r"psycopg 3|ordinary engine"):
        manager._services.storage.joined(given)
