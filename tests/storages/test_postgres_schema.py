"""The schema: any name, many processes at once, little rights, servers that cannot be trusted."""

from __future__ import annotations

import warnings
from urllib.parse import quote

import psycopg
import pytest

from tests.storages.postgres_sandbox import connect, forked, in_schema
from triggers.exceptions import SchemaVersionError, StorageError
from triggers.storages.postgres import PostgresStorage
from triggers.storages.postgres.schema import prepare
from triggers.storages.sql import migrations
from triggers.testing.conformance.fixtures import SURVEY, batch, entry
from triggers.testing.conformance.steps import SECOND, Steps

#: Names that have to be quoted, or look like something else.
NAMES = (
    'we"ird Schema-ü',
    "o'brien",
    "back\\slash",
    "{order} {instance} %s $1",
    "UPPER",
    "select",
    "a.b",
    " ",
    "ü" * 31 + "x",
    "-- comment",
    "; DROP SCHEMA public",
)


@pytest.fixture
def execute(postgres_server):
    """Runs SQL as the superuser; schemas and roles made by `owned` are gone at the end."""
    with connect(postgres_server.url) as connection:
        yield connection.execute


def everything(storage, uid="session"):
    """Do what uses most of the statements; returns what came of it."""
    steps = Steps(storage, uid)
    steps.configure(SURVEY)
    steps.fire("first", {"n": 1}, key="k")
    steps.fire("complete")
    attempt = steps.start("t_subject#0")
    steps.keep_logs(attempt, batch(entry("Said.", level=40)))
    assert steps.renew(attempt) == set()
    steps.finish(attempt, {"id": 7})
    steps.fire("page")
    steps.resolve_logs("t_subject#0", {"by": "me"})
    assert [each.task for each in storage.due(10, grace=30 * SECOND, include_recent=True)] == [
        "t_browser",
        "t_page",
    ]
    assert storage.expired(10) == []
    assert storage.backlog().ready == 2
    assert len(storage.reader.logs(uid, instance=("t_subject", 0), text="said")) == 1
    return steps.statuses()


EXPECTED = {"t_browser#0": "scheduled", "t_page#0": "scheduled", "t_subject#0": "finished"}


@pytest.mark.parametrize("name", NAMES)
def test_a_schema_can_have_any_name(postgres_server, execute, name):
    """It is created under exactly that name, and everything goes on in it."""
    url = f"{postgres_server.url}&schema={quote(name, safe='')}"
    storage = PostgresStorage(url)
    try:
        assert everything(storage) == EXPECTED
        there = execute(
            "SELECT count(*) FROM pg_tables WHERE schemaname = %s AND tablename = 'sessions'", (name,)
        )
        assert there.fetchone() == (1,)
    finally:
        storage.close()
        execute(in_schema(url, "DROP SCHEMA {schema} CASCADE"))


def test_schemas_do_not_see_each_other(postgres_server, postgres_url):
    """Two schemas of one database are two worlds."""
    one, two = PostgresStorage(postgres_url), PostgresStorage(f"{postgres_url}_2")
    everything(one)
    assert two.reader.sessions() == []
    assert everything(two) == EXPECTED


@pytest.mark.parametrize("through", ["postgres_url", "pgbouncer_url"])
def test_it_does_not_matter_where_others_search_their_tables(request, postgres_server, through, execute):
    """Roles and databases with a search_path, and tables, functions and operators of the same names in it, change nothing."""
    url = request.getfixturevalue(through)
    name = url.rpartition("=")[2]
    execute(f"CREATE SCHEMA {name}_trap")
    execute(f"CREATE TABLE {name}_trap.sessions (nothing integer)")
    execute(f"CREATE FUNCTION {name}_trap.lower(text) RETURNS text LANGUAGE sql AS 'SELECT ''trapped'''")
    execute(f"CREATE ROLE {name} LOGIN SUPERUSER")
    execute(f"ALTER ROLE {name} SET search_path = {name}_trap, pg_catalog")
    storage = PostgresStorage(url.replace("postgres@", f"{name}@"))
    try:
        assert everything(storage) == EXPECTED
    finally:
        storage.close()
        execute(f"DROP SCHEMA {name}, {name}_trap CASCADE")
        execute(f"DROP ROLE {name}")


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_many_processes_may_create_it_at_once(postgres_url):
    """Eight processes that begin at the same moment all find it made, once."""

    def begin():
        storage = PostgresStorage(postgres_url)
        return Steps(storage).fire("page").fired[0].number

    assert sorted(forked(*[begin] * 8)) == list("12345678")
    with connect(postgres_url) as connection:
        found = connection.execute(in_schema(postgres_url, "SELECT number FROM {schema}.version")).fetchall()
    assert found == [(len(migrations("postgres")),)]


def test_a_newer_schema_is_refused(postgres_url):
    """Nothing is written into what a newer version of Triggers has made; the message says what to do."""
    PostgresStorage(postgres_url).close()
    with connect(postgres_url) as connection:
        connection.execute(in_schema(postgres_url, "UPDATE {schema}.version SET number = number + 1"))
    with pytest.raises(SchemaVersionError, match=r"has version \d+, .* knows \d+: upgrade Triggers"):
        PostgresStorage(postgres_url)


def test_a_failed_migration_leaves_nothing(postgres_url):
    """What stands in the way is named, and everything made before it is gone again."""
    with connect(postgres_url) as connection:
        connection.execute(in_schema(postgres_url, "CREATE SCHEMA {schema}"))
        connection.execute(in_schema(postgres_url, "CREATE TABLE {schema}.waiting (somebody_elses integer)"))
        with pytest.raises(StorageError, match=r'relation "waiting" already exists .*; nothing was changed'):
            PostgresStorage(postgres_url)
        name = postgres_url.rpartition("=")[2]
        found = connection.execute(
            "SELECT tablename FROM pg_tables WHERE schemaname = %s", (name,)
        ).fetchall()
        assert found == [("waiting",)]


@pytest.fixture
def poor_url(postgres_url, execute):
    """The URL with a role that may not create anything, and its name."""
    name = postgres_url.rpartition("=")[2]
    execute(f"CREATE ROLE {name} LOGIN")
    yield postgres_url.replace("postgres@", f"{name}@"), name
    execute(f"DROP OWNED BY {name}")
    execute(f"DROP ROLE {name}")


def test_a_role_that_may_not_create_it_is_told(poor_url):
    """Who lacks the right to make the schema is told who has to."""
    url, name = poor_url
    with pytest.raises(
        StorageError, match=rf"permission denied .*schema '{name}' must be created .* with a role that has it"
    ):
        PostgresStorage(url)


def test_a_role_without_grants_is_told_which(poor_url, postgres_url):
    """Where the schema is there, but not for this role, the message says what is to be granted."""
    PostgresStorage(postgres_url).close()
    with pytest.raises(
        StorageError, match=r"permission denied .*grant USAGE on it, SELECT, INSERT, UPDATE and DELETE"
    ):
        PostgresStorage(poor_url[0])


def test_with_those_grants_everything_works(poor_url, postgres_url, execute):
    """A role that may read and write the tables needs no right to change the schema."""
    PostgresStorage(postgres_url).close()
    url, name = poor_url
    execute(f"GRANT USAGE ON SCHEMA {name} TO {name}")
    execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {name} TO {name}")
    execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {name} TO {name}")
    storage = PostgresStorage(url)
    assert everything(storage) == EXPECTED
    storage.close()
    with psycopg.connect(url.partition("&schema")[0]) as connection, pytest.raises(psycopg.Error):
        connection.execute(f"CREATE TABLE {name}.more (n integer)")


def test_a_database_that_cannot_keep_every_text_is_refused(postgres_server, execute):
    """Only UTF-8 has all characters; the message says how to make such a database."""
    execute("DROP DATABASE IF EXISTS latin")
    execute("CREATE DATABASE latin ENCODING 'LATIN1' LOCALE 'C' TEMPLATE template0")
    try:
        with pytest.raises(StorageError, match=r"is a database in LATIN1, .* ENCODING 'UTF8'"):
            PostgresStorage(postgres_server.url.replace("/postgres?", "/latin?"))
    finally:
        execute("DROP DATABASE latin")


class OldServer:
    """Answers like a server of some version."""

    def __init__(self, *said):
        self.said = said

    def __call__(self, steps, until=None):
        return [[self.said]]


@pytest.mark.parametrize("major", [9, 12])
def test_an_old_server_is_refused(major):
    """Before PostgreSQL 13 a server cannot say what became of a transaction."""
    url = type("Url", (), {"shown": "postgresql://h/app", "schema": "s"})()
    with pytest.raises(StorageError, match=rf"is PostgreSQL {major}: Triggers needs 13 or newer"):
        prepare(OldServer(major, "UTF8", "on", "on"), url, 0)


def test_a_server_that_forgets_is_warned_of(postgres_server, postgres_url, execute):
    """fsync=off and synchronous_commit=off lose what was confirmed: each is a warning that says so."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        name = postgres_url.rpartition("=")[2]
        execute(f"CREATE ROLE {name} LOGIN SUPERUSER")
        execute(f"ALTER ROLE {name} SET synchronous_commit = off")
        PostgresStorage(postgres_url.replace("postgres@", f"{name}@")).close()
    said = [str(warning.message) for warning in caught if "=off" in str(warning.message)]
    assert any("synchronous_commit=off: confirmed commits can be lost" in text for text in said)
    assert any("fsync=off: confirmed commits can be lost" in text for text in said)
    execute(f"DROP OWNED BY {name} CASCADE")
    execute(f"DROP ROLE {name}")
