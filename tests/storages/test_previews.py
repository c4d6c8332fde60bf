"""Previews take no lock and need no right but to read: in SQLite files, on PostgreSQL, and in joined transactions."""

from __future__ import annotations

import importlib

import pytest

from tests.scenarios.applications import without_schema
from tests.storages.postgres_sandbox import connect, in_schema
from triggers import Triggers
from triggers.exceptions import InvalidStatusError, StorageError
from triggers.testing.servers import PostgresServer

pytestmark = pytest.mark.filterwarnings("ignore:SQLite .* can corrupt:RuntimeWarning")

RULES = {
    "t_ship": {"after": ["paid", "packed"], "unless": ["cancelled"], "run": "shop.Ship"},
    "t_tell": {"after": ["t_ship"], "run": "shop.Tell"},
}


@pytest.fixture(params=["pysqlite3", "sqlite3"])
def file(request, tmp_path):
    """The path of a file with one session, and the options of its URL."""
    pytest.importorskip(request.param)
    path, options = tmp_path / "s.db", f"driver={request.param}&busy_timeout=0.1"
    with Triggers(f"sqlite:///{path}?{options}", runner=None) as app:
        app.session("order").update_configuration(RULES)
    return path, options, importlib.import_module(request.param)


class TestSqlite:
    """Previews on a file."""

    def test_a_writer_does_not_keep_it_waiting(self, file):
        """BEGIN IMMEDIATE is held all the time; a commit would not get the lock."""
        path, options, driver = file
        with Triggers(f"sqlite:///{path}?{options}", runner=None) as app:
            order = app.session("order")
            holder = driver.connect(path)
            holder.execute("BEGIN IMMEDIATE")
            assert order.preview.fire("paid").created == ("t_ship#0",)
            with pytest.raises(StorageError, match="stayed locked"):
                order.fire("paid")
            holder.rollback()
            holder.close()
            assert order.fire("paid").created == ("t_ship#0",)

    def test_a_file_that_can_only_be_read_is_enough(self, file):
        """Not one byte of it changes, and the real call is refused."""
        path, options, _ = file
        before = path.read_bytes()
        with Triggers(f"sqlite:///{path}?{options}&mode=ro", runner=None) as app:
            order = app.session("order")
            assert order.preview.fire("paid").created == ("t_ship#0",)
            assert order.preview.update_configuration({"t_new": RULES["t_tell"]}).configured
            with pytest.raises(StorageError, match="is opened read-only"):
                order.fire("paid")
        assert path.read_bytes() == before

    def test_it_sees_a_joined_transaction_and_writes_nothing_into_it(self, file):
        """Not even a savepoint; rules that may still be rolled back are not kept."""
        path, options, driver = file
        connection = driver.connect(path, isolation_level=None)
        with Triggers(f"sqlite:///{path}?{options}", runner=None) as app:
            order = app.session("order")
            connection.execute("BEGIN IMMEDIATE")
            with order.joined(connection):
                order.fire("paid")
                statements = []
                connection.set_trace_callback(statements.append)
                assert order.preview.fire("packed").scheduled == ("t_ship#0",)
                connection.set_trace_callback(None)
                assert {text.split()[0] for text in statements} <= {"SELECT", "PRAGMA"}, statements
                order.preview.replace_configuration({"t_new": RULES["t_tell"]})
            connection.rollback()
            assert order.preview.fire("packed").waiting == ("t_ship#0",)
        connection.close()


class TestPostgres:
    """Previews on a server."""

    @pytest.fixture
    def order(self, postgres_url):
        with Triggers(postgres_url, runner=None) as app:
            order = app.session("order")
            order.update_configuration(RULES)
            order.fire("packed")
            yield order

    def test_a_lock_on_the_session_does_not_keep_it_waiting(self, order, postgres_url):
        """The row is locked all the time; a commit would not get the lock."""
        with connect(postgres_url) as holder, holder.transaction():
            holder.execute(in_schema(postgres_url, "SELECT FROM {schema}.sessions FOR UPDATE"))
            holder.execute(in_schema(postgres_url, "SELECT FROM {schema}.instances FOR UPDATE"))
            assert order.preview.fire("paid").scheduled == ("t_ship#0",)
            assert order.preview.update_instance_status("t_ship#0", "scheduled").scheduled == ("t_ship#0",)
            assert order.preview.update_instance_status("t_ship#0", "abandoned").abandoned == ("t_ship#0",)
            with pytest.raises(StorageError, match="busy"):
                order._services.storage.commit("order", order._decisions.fire("paid", None, None), 0.1)

    def test_the_right_to_read_is_enough(self, order, postgres_url):
        """A role with SELECT alone, in sessions that are read-only as on a replica, which have no transaction numbers."""
        with connect(postgres_url) as admin:
            for text in (
                "DROP ROLE IF EXISTS looker",
                "CREATE ROLE looker LOGIN PASSWORD 'looker'",
                "ALTER ROLE looker SET default_transaction_read_only = on",
            ):
                admin.execute(text)
            admin.execute(in_schema(postgres_url, "GRANT USAGE ON SCHEMA {schema} TO looker"))
            admin.execute(in_schema(postgres_url, "GRANT SELECT ON ALL TABLES IN SCHEMA {schema} TO looker"))
        parts = postgres_url.partition("://")
        url = f"{parts[0]}://looker:looker@{parts[2].rpartition('@')[2]}"
        try:
            with Triggers(url, runner=None) as app:
                tried = app.session("order").preview
                assert tried.fire("paid").scheduled == ("t_ship#0",)
                assert tried.replace_configuration({"t_new": RULES["t_tell"]}, catch_up=True).configured
                assert tried.update_instance_status("t_ship#0", "scheduled").scheduled == ("t_ship#0",)
                assert tried.update_instance_status("t_ship#0", "abandoned").abandoned == ("t_ship#0",)
                assert app.session("new").preview.fire("paid").new_session
                with pytest.raises(StorageError):
                    app._services.storage.commit("order", order._decisions.fire("paid", None, None), 0.1)
        finally:
            with connect(postgres_url) as admin:
                admin.execute("DROP OWNED BY looker; DROP ROLE looker")

    def test_a_standby_is_enough(self):
        """A server in recovery assigns no numbers to transactions, and locks no rows."""
        with PostgresServer() as server:
            with Triggers(server.url, runner=None) as app:
                app.session("order").update_configuration(RULES)
                app.session("order").fire("packed")
            server.stop()
            (server.folder / "data" / "standby.signal").touch()
            server.start()
            with Triggers(f"{server.url}&timeout=1", runner=None) as app:
                order = app.session("order")
                assert order.preview.fire("paid").scheduled == ("t_ship#0",)
                assert order.preview.update_instance_status("t_ship#0", "abandoned").abandoned == (
                    "t_ship#0",
                )
                with pytest.raises(StorageError, match=r"in a read-only transaction|during recovery"):
                    order.fire("paid")

    def test_it_sees_a_joined_transaction_and_writes_nothing_into_it(self, order, postgres_url):
        """The transaction gets no number by previews alone, so it has written nothing; and it can go on."""
        import psycopg  # noqa: PLC0415 - the server's fixture has checked that it is installed

        with psycopg.connect(**without_schema(postgres_url)) as connection:
            assigned = "SELECT pg_current_xact_id_if_assigned()"
            with order.joined(connection):
                assert order.preview.fire("paid").scheduled == ("t_ship#0",)
                with pytest.raises(InvalidStatusError):
                    order.preview.skip("t_ship#0")
                assert connection.execute(assigned).fetchone() == (None,)
                with pytest.raises(psycopg.Error, match="does not exist"), connection.transaction():
                    connection.execute("RELEASE SAVEPOINT triggers")
                order.fire("paid")
                assert order.preview.fire("cancelled").abandoned == ()
                assert connection.execute(assigned).fetchone() != (None,)
            connection.rollback()
        assert order.preview.fire("cancelled").abandoned == ("t_ship#0",)
