# ruff: noqa: S608 - the statements contain nothing but names of this file
"""A migration rewrites no table, and other processes do not wait long for it."""

from __future__ import annotations

import sqlite3
import threading

from tests.storages import earlier
from tests.storages.postgres_sandbox import connect, in_schema
from tests.storages.test_versions import RULES, blocked
from triggers.storages.postgres import PostgresStorage
from triggers.storages.sql import migrations
from triggers.testing.conformance.steps import Steps

#: The first version of the schema of which there are data.
VERSION = 1


def test_a_migration_of_postgres_rewrites_no_table(postgres_url):
    """Each table and each index keeps its file."""
    earlier.postgres_schema(postgres_url, VERSION)
    asked = "SELECT relname, relfilenode FROM pg_class WHERE relnamespace = %s::regnamespace AND relkind IN ('r', 'i')"
    with connect(postgres_url) as connection:
        schema = postgres_url.rpartition("=")[2]
        before = dict(connection.execute(asked, (schema,)).fetchall())
        PostgresStorage(postgres_url).close()
        after = dict(connection.execute(asked, (schema,)).fetchall())
    assert {name: after[name] for name in before} == before


def test_a_migration_of_sqlite_rewrites_no_table(tmp_path):
    """Every step takes as long in a file with ten times the rows, but for the making of an index, which reads them."""
    costs = [steps_of_a_migration(tmp_path / f"{size}.db", size) for size in (50, 500)]
    growing = {statement for statement, few in costs[0].items() if costs[1][statement] > few + 100}
    assert {statement.split()[2] for statement in growing} == {"sessions_timed", "instances_parked"}
    assert sum(costs[1].values()) > sum(costs[0].values())


def steps_of_a_migration(path, size):
    """Statement → how many instructions of SQLite's machine it takes in a file with so many sessions."""
    earlier.sqlite_file(path, VERSION)
    connection = sqlite3.connect(path, isolation_level=None)
    numbers = f"WITH RECURSIVE n (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM n WHERE n < {size})"
    for table, key in (("sessions", "id"), ("firings", "session"), ("names", "session"), ("instances", "id")):
        columns = [row[1] for row in connection.execute(f"PRAGMA table_info({table})")]
        copied = {**{name: name for name in columns}, key: f"{key} + 1000 * n"}
        copied |= {"uid": "uid || n"} if table == "sessions" else {}
        copied |= {"number": "number + 1000 * n"} if table == "instances" else {}
        copies = ", ".join(copied[name] for name in columns)
        connection.execute(
            f"INSERT INTO {table} ({', '.join(columns)}) {numbers} SELECT {copies} FROM {table}, n"
        )
    counted = []
    connection.set_progress_handler(lambda: counted.append(None), 1)
    costs = {}
    for statements in migrations("sqlite")[VERSION:]:
        for statement in statements:
            counted.clear()
            connection.execute(statement)
            costs[statement] = len(counted)
    connection.close()
    return costs


def test_others_continue_while_a_migration_waits_for_a_lock(postgres_url, monkeypatch):
    """A backup has locked a table for hours: the migration waits, and gives way to commits again and again."""
    steps = Steps(PostgresStorage(postgres_url))
    steps.configure(RULES)
    newer = (*migrations("postgres"), ("ALTER TABLE {schema}.instances ADD COLUMN new text",))
    monkeypatch.setattr("triggers.storages.postgres.schema.migrations", lambda _: newer)
    monkeypatch.setattr("triggers.storages.postgres.schema.SLICE", 0.2)
    newest = threading.Thread(target=lambda: PostgresStorage(f"{postgres_url}&timeout=10").close())
    with connect(postgres_url) as backup, connect(postgres_url) as watching:
        backup.execute("BEGIN")
        backup.execute(in_schema(postgres_url, "SELECT count(*) FROM {schema}.instances"))
        newest.start()
        for number in (1, 2):
            blocked(watching)
            assert steps.fire("page").fired[0].number == number
            assert newest.is_alive()
        backup.execute("ROLLBACK")
        newest.join()
        found = watching.execute(in_schema(postgres_url, "SELECT number FROM {schema}.version")).fetchall()
    assert found == [(len(newer),)]
