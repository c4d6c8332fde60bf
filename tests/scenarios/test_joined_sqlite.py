"""What is special about joining a transaction on a SQLite file."""

from __future__ import annotations

import sqlite3
import sys

import pytest

from triggers import Registry, Triggers
from triggers.exceptions import StorageBusyError, StorageCorruptError, StorageError
from triggers.storages.sqlite import SqliteStorage
from triggers.storages.sqlite.url import load_driver
from triggers.task import task

DRIVER = load_driver("auto")
RULES = {"t_page": {"andEvery": "pageReceived", "run": "page"}}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "survey.db"


@pytest.fixture
def triggers(path):
    registry = Registry()

    @task(name="page", registry=registry)
    def page(context):
        return {}

    made = Triggers(f"sqlite:///{path}?busy_timeout=1", runner=None, registry=registry)
    yield made
    made.close()


@pytest.fixture
def manager(triggers):
    made = triggers.session("respondent-17")
    made.update_configuration(RULES)
    return made


@pytest.fixture
def connect(path):
    """Opens connections of the application's."""
    opened = []

    def connect(driver=DRIVER, place=path, **options):
        connection = driver.connect(str(place), **{"timeout": 0.1, **options})
        opened.append(connection)
        return connection

    yield connect
    for connection in opened:
        connection.close()


def test_a_transaction_is_begun_where_the_driver_would_begin_one(connect, manager):
    """Outside of a transaction the block begins one, which the application commits as if its own writing had."""
    connection = connect()
    with manager.joined(connection):
        assert connection.in_transaction
        manager.fire("pageReceived")
    assert connection.in_transaction
    assert manager.storage.head.firings == 0
    connection.commit()
    assert manager.storage.head.firings == 1


def test_a_connection_that_commits_each_statement_is_refused(connect, manager):
    """It is said to begin a transaction first."""
    connection = connect(isolation_level=None)
    with pytest.raises(StorageError, match="execute BEGIN IMMEDIATE first"), manager.joined(connection):
        raise AssertionError
    assert not connection.in_transaction


@pytest.mark.skipif(sys.version_info < (3, 12), reason="from Python 3.12 on")
@pytest.mark.parametrize("autocommit", [True, False])
def test_the_autocommit_of_newer_pythons(path, connect, autocommit):
    """With autocommit=False the driver has always begun; with True it has not, and is refused."""
    if not hasattr(connect(), "autocommit"):
        pytest.skip("this driver has no autocommit")
    connection = connect(autocommit=autocommit)
    manager = Triggers(f"sqlite:///{path}", runner=None).session("s")
    if autocommit:
        with pytest.raises(StorageError, match="BEGIN IMMEDIATE"), manager.joined(connection):
            raise AssertionError
    else:
        with manager.joined(connection):
            manager.fire("pageReceived")
        connection.commit()
        assert manager.storage.head.firings == 1


def test_a_deferred_transaction_gets_the_lock_when_it_can(connect, manager):
    """A transaction that began by reading takes part if nobody has written since."""
    connection = connect(isolation_level=None)
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM sessions").fetchall()
    with manager.joined(connection):
        manager.fire("pageReceived")
    connection.execute("COMMIT")
    assert manager.storage.head.firings == 1


def test_a_deferred_transaction_that_is_too_late_is_told_what_to_do(connect, manager):
    """If somebody has written since it began to read, it cannot write any more."""
    connection = connect(isolation_level=None)
    connection.execute("BEGIN")
    connection.execute("SELECT count(*) FROM sessions").fetchall()
    manager.fire("pageReceived")
    with pytest.raises(StorageBusyError, match=r"begin with BEGIN IMMEDIATE"), manager.joined(connection):
        raise AssertionError
    connection.execute("ROLLBACK")
    connection.execute("BEGIN IMMEDIATE")
    with manager.joined(connection):
        manager.fire("pageReceived")
    connection.execute("COMMIT")
    assert manager.storage.head.firings == 2


def test_another_writer_is_waited_for_as_long_as_the_connection_says(connect, manager):
    """Then it is said that the file is locked."""
    other = connect(isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    connection = connect()
    with pytest.raises(StorageBusyError, match="another writer has it"), manager.joined(connection):
        raise AssertionError
    other.execute("ROLLBACK")
    with manager.joined(connection):
        manager.fire("pageReceived")
    connection.commit()
    assert manager.storage.head.firings == 1


def test_another_file_is_refused(tmp_path, connect, manager):
    """One commit cannot cover two files; a database in memory is another one, too."""
    for place in (tmp_path / "other.db", ":memory:"):
        connection = connect(place=place)
        with pytest.raises(StorageError, match="keep both in the same one"), manager.joined(connection):
            raise AssertionError
        assert not connection.in_transaction


def test_a_link_to_the_file_is_the_file(tmp_path, path, connect, manager):
    """The file counts, not its name."""
    (tmp_path / "link.db").symlink_to(path)
    connection = connect(place=tmp_path / "link.db")
    with manager.joined(connection):
        manager.fire("pageReceived")
    connection.commit()
    assert manager.storage.head.firings == 1


@pytest.mark.skipif(DRIVER is sqlite3, reason="there is one module only")
def test_another_module_is_refused(connect, manager):
    """A connection of the other copy of SQLite is refused, and it is said how to use one for both."""
    connection = connect(sqlite3)
    with pytest.raises(StorageError, match=r"driver=sqlite3"), manager.joined(connection):
        raise AssertionError


def test_what_rows_and_texts_are_to_the_application_does_not_matter(connect, manager):
    """Its row factory, its text factory and its own class of connection are left as they are, and not used."""

    class Own(DRIVER.Connection):
        def execute(self, *args):
            raise AssertionError

        def cursor(self, *args):
            raise AssertionError

    connection = connect(factory=Own)
    connection.row_factory, connection.text_factory = DRIVER.Row, bytes
    with manager.joined(connection):
        manager.fire("pageReceived", {"number": 1}, key="k")
        assert manager.fire("pageReceived", {"number": 1}, key="k").duplicate
        assert manager.storage["t_page#0"].kwargs == {"pageReceived": {"number": 1}}
    assert (connection.row_factory, connection.text_factory) == (DRIVER.Row, bytes)
    connection.commit()


def test_a_connection_that_is_closed_inside_the_block_is_of_no_use(connect, triggers, manager):
    """The manager says so; others are not hindered."""
    connection = connect()
    with manager.joined(connection):
        manager.fire("pageReceived")
        connection.close()
        with pytest.raises(StorageError, match="has ended"):
            manager.fire("pageReceived")
        triggers.session("respondent-18").fire("pageReceived")
    assert manager.storage.head.firings == 0


def test_a_full_disk_is_told_and_the_transaction_goes_on(connect, manager):
    """What did not fit is undone, and what did can be committed."""
    connection = connect()
    connection.execute("CREATE TABLE pages (number INTEGER)")
    connection.commit()
    connection.execute("INSERT INTO pages VALUES (1)")
    with manager.joined(connection):
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(StorageError):
            manager.fire("pageReceived", {"text": "x" * 500_000})
        still_open = connection.in_transaction
    if still_open:  # SQLite may roll everything back by itself
        connection.commit()
    found = connection.execute("SELECT count(*) FROM pages").fetchone()
    assert found == (int(still_open),)
    assert manager.storage.head.firings == 0


# -- a file that was the application's first --------------------------------------------------------------


def test_a_file_with_tables_of_the_application_can_be_shared(path, connect):
    """With ?shared=yes the tables are made beside those that are there; afterwards the option is not needed."""
    connection = connect()
    connection.execute("CREATE TABLE pages (number INTEGER)")
    connection.commit()
    with pytest.raises(StorageCorruptError, match=r"\?shared=yes"):
        SqliteStorage(f"sqlite:///{path}")
    SqliteStorage(f"sqlite:///{path}?shared=yes").close()
    manager = Triggers(f"sqlite:///{path}", runner=None).session("s")
    with connection, manager.joined(connection):
        connection.execute("INSERT INTO pages VALUES (1)")
        manager.fire("pageReceived")
    assert manager.storage.head.firings == 1
    assert connection.execute("SELECT number FROM pages").fetchall() == [(1,)]


@pytest.mark.parametrize("mark", ["user_version", "application_id"])
def test_a_file_whose_marks_are_in_use_cannot_be_shared(path, connect, mark):
    """What the application keeps in the head of its file is never overwritten."""
    connection = connect()
    connection.execute("CREATE TABLE pages (number INTEGER)")
    connection.execute(f"PRAGMA {mark} = 7")
    connection.commit()
    with pytest.raises(StorageCorruptError, match="cannot be shared"):
        SqliteStorage(f"sqlite:///{path}?shared=yes")
    assert connection.execute(f"PRAGMA {mark}").fetchone() == (7,)
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("pages",)]


def test_a_file_with_a_table_of_the_same_name_cannot_be_shared(path, connect):
    """It is left as it is."""
    connection = connect()
    connection.execute("CREATE TABLE sessions (number INTEGER)")
    connection.commit()
    with pytest.raises(StorageError, match="sessions already exists"):
        SqliteStorage(f"sqlite:///{path}?shared=yes")
    assert connection.execute("SELECT name FROM sqlite_schema").fetchall() == [("sessions",)]
