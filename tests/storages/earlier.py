# ruff: noqa: S608 - the statements contain nothing but names of this file
"""What an earlier version of the library has stored: sessions in every state, kept as SQL in `tests/storages/data`.

Before the schema changes, run this module with the version that has the old schema. It writes the stored rows as SQL,
and what the reader of that version says about them as JSON:

    PYTHONPATH=<that version>/src python -m tests.storages.earlier
"""

from __future__ import annotations

import itertools
import json
import sqlite3
import tempfile
from dataclasses import asdict, fields
from pathlib import Path

from psycopg import sql

from tests.storages.postgres_sandbox import connect, in_schema
from triggers.core.terms import Finalizing, Policy, RetryTerms
from triggers.core.values import encode
from triggers.storages.postgres import PostgresStorage
from triggers.storages.postgres.statements import in_schema as filled_in
from triggers.storages.sql import migrations
from triggers.storages.sqlite import SqliteStorage
from triggers.testing.conformance.fixtures import NAMES, batch, entry
from triggers.testing.conformance.steps import SECOND, Steps
from triggers.testing.servers import PostgresServer

DATA = Path(__file__).parent / "data"

#: The schema in the SQL for PostgreSQL, which a test replaces by its own.
SCHEMA = "earlier_version"

#: 2024-01-01, so that every lease and every pause is over when a test runs.
BEGINNING = 1_704_067_200_000_000

#: How much time passes between two looks at the clock, in microseconds.
TICK = 1_000

RULES = {
    "t_subject": {"after": ["first", "complete"], "run": "survey.Subject"},
    "t_page": {
        "after": ["t_subject"],
        "andEvery": "page",
        "run": "survey.Page",
        "withParams": {"api": {"timeout": 5}},
        "retry": {"max": 2, "first": "PT10S"},
    },
    "t_browser": {"after": ["first"], "unless": ["embedded"], "run": "survey.Browser", "using": "others"},
    "t_alarm": {"after": ["t_page:failed"], "run": "survey.Alarm"},
    "t_close": {
        "after": [{"any": ["withdrawn", {"atLeast": 2, "of": ["a", "b", "c"]}]}],
        "run": "survey.Close",
    },
}

FINALIZING = Policy(manager="closing", finalizing=Finalizing("over"))

#: The tables of PostgreSQL in the order in which they are filled, without `version` and `incarnation`.
TABLES = ("rule_sets", "sessions", "firings", "names", "instances", "waiting", "logs")


def play(storage):
    """Store sessions in every state."""
    _survey(Steps(storage, "survey"))
    others = Steps(storage, "unstarted"), Steps(storage, NAMES[-1]), Steps(storage, "abandoned")
    for steps in others:
        steps.configure(RULES)
    others[0].fire("first", {"n": 1})
    others[1].fire("page", {"text": "'\0\U0001f4a9"})
    others[2].fire("embedded")
    others[2].fire("first")
    final = Steps(storage, "final", FINALIZING)
    final.configure({"t_one": {"after": ["go"], "run": "one"}})
    final.configure({"t_one": {"after": ["go"], "run": "two"}, "t_last": {"after": ["over"], "run": "last"}})
    final.fire("go")
    final.run("t_one#0", {"n": 1})
    Steps(storage, "without rules").fire("page", key="k")


def _survey(steps):
    """Store a session with an instance in each status, records of each kind, and reviews."""
    steps.configure(RULES)
    steps.describe({"study": "1996"})
    steps.fire("first", {"responses": {"age": 36}}, key="page 1")
    steps.fire("complete")
    attempt = steps.start("t_subject#0")
    steps.keep_logs(attempt, batch(entry("Seen.", level=20), entry("Odd.", level=40, seq=2, age=36)))
    steps.finish(attempt, {"id": 7})
    for n in range(8):
        steps.fire("page", {"page": n})
    steps.run("t_page#0", {"page": 0})
    for n in (1, 2, 3):
        attempt = steps.start(f"t_page#{n}")
        steps.keep_logs(attempt, batch(entry(f"Page {n}.", level=40), entry("Again.", level=30, seq=2)))
        steps.fail(attempt, {"type": "ValueError", "message": f"page {n}"})
    steps.replay("t_page#2", metadata={"by": "ada"})
    steps.skip("t_page#3", {"page": 3})
    steps.start("t_page#4")
    steps.keep_logs(steps.start("t_page#5", "another"), batch(entry("Running.", level=30, page=5)))
    steps.fail(steps.start("t_page#7"), "later", RetryTerms(3600 * SECOND, 3, encode("used up", "")))
    steps.resolve_logs("t_subject#0", {"by": "ada", "note": "seen"})
    steps.resolve_logs("t_page#1", {"by": "bob"}, records=[1])
    steps.resolve_logs("t_page#3", {"by": "bob"})
    steps.reopen_logs("t_page#3", {"by": "ada"})
    steps.add_metadata("t_page#1", {"ticket": 4})


def read(storage):
    """All that the reader says, as plain JSON data: UID → head, counters, firings, instances and records."""
    reader = storage.reader
    found = {}
    for head in reader.sessions():
        steps = Steps(storage, head.uid)
        fired = steps.firings()
        found[head.uid] = {
            "head": _head(head),
            "counters": {task: asdict(counter) for task, counter in reader.counters(head.uid).items()},
            "firings": [firing._asdict() for firing in fired],
            "latest": sorted(
                firing.number for firing in reader.latest(head.uid, {each.trigger for each in fired}).values()
            ),
            "instances": [asdict(instance) for instance in steps.instances()],
            "flagged": [each.name for each in reader.instances(head.uid, flagged=30)],
            "logs": [asdict(record) for record in reader.logs(head.uid)],
        }
    return json.loads(json.dumps(found))


def _head(head):
    kept = {field.name: getattr(head, field.name) for field in fields(head)}
    for name in ("now", "exclusive", "time"):  # what is not stored
        kept.pop(name, None)
    return kept | {"rules": head.rules.body}


# -- as SQL -------------------------------------------------------------------------------------------------


def sqlite_text(path):
    """The file as SQL."""
    connection = sqlite3.connect(path)
    marks = [
        f"PRAGMA {name} = {connection.execute(f'PRAGMA {name}').fetchone()[0]};"
        for name in ("application_id", "user_version")
    ]
    lines = [*connection.iterdump(), *marks]
    connection.close()
    return "\n".join(lines) + "\n"


def postgres_text(url):
    """The schema as SQL: its migrations, and every row."""
    lines = [f"CREATE SCHEMA {SCHEMA}"]
    lines += [
        filled_in(step, SCHEMA).replace(f'"{SCHEMA}"', SCHEMA)
        for steps in migrations("postgres")
        for step in steps
    ]
    lines += [f"INSERT INTO {SCHEMA}.version (number) VALUES ({len(migrations('postgres'))})"]
    with connect(url) as connection:
        for table in TABLES:
            found = connection.execute(in_schema(url, f"SELECT * FROM {{schema}}.{table} ORDER BY 1, 2"))
            names = ", ".join(column.name for column in found.description)
            lines += [
                f"INSERT INTO {SCHEMA}.{table} ({names}) OVERRIDING SYSTEM VALUE VALUES ({_values(row)})"
                for row in found
            ]
    sequences = {"rule_sets": f"pg_get_serial_sequence('{SCHEMA}.rule_sets', 'id')"}
    sequences |= {"sessions": f"'{SCHEMA}.session_numbers'"}
    sequences |= {"logs": f"pg_get_serial_sequence('{SCHEMA}.logs', 'id')"}
    lines += [
        f"SELECT setval({name}, (SELECT max(id) FROM {SCHEMA}.{table}))" for table, name in sequences.items()
    ]
    return ";\n".join(lines) + ";\n"


def _values(row):
    return ", ".join(sql.Literal(value).as_string(None) for value in row)


# -- from SQL -----------------------------------------------------------------------------------------------


def sqlite_file(path, version):
    """Make the file that a version has stored; returns what its reader has said."""
    connection = sqlite3.connect(path)
    connection.executescript((DATA / f"sqlite_{version}.sql").read_text("utf-8"))
    connection.close()
    return said("sqlite", version)


def postgres_schema(url, version):
    """Make the schema that a version has stored; returns what its reader has said."""
    text = (DATA / f"postgres_{version}.sql").read_text("utf-8")
    with connect(url) as connection:
        connection.execute(text.replace(SCHEMA, in_schema(url, "{schema}").as_string()))
    return said("postgres", version)


def said(dialect, version):
    """What the reader of a version has said of what it had stored."""
    return json.loads((DATA / f"{dialect}_{version}.json").read_text("utf-8"))


# -- by an earlier version ----------------------------------------------------------------------------------


def main():
    """Write the data of the version of the library that runs this."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/s.db"
        ticks = itertools.count(BEGINNING, TICK)
        storage = SqliteStorage(f"sqlite:///{path}", clock=lambda: next(ticks))
        play(storage)
        _write("sqlite", read(storage), lambda: sqlite_text(path), storage)
    with PostgresServer() as server:
        url = f"{server.url}&schema={SCHEMA}"
        storage = PostgresStorage(url)
        with connect(url) as connection:
            connection.execute("CREATE SEQUENCE ticks")
            clock = f"SELECT {BEGINNING} + nextval('public.ticks') * {TICK}"
            connection.execute(
                f"CREATE OR REPLACE FUNCTION {SCHEMA}.clock() RETURNS bigint LANGUAGE sql VOLATILE AS $${clock}$$"
            )
        play(storage)
        _write("postgres", read(storage), lambda: postgres_text(url), storage)


def _write(dialect, found, text, storage):
    storage.close()
    version = len(migrations(dialect))
    DATA.mkdir(exist_ok=True)
    (DATA / f"{dialect}_{version}.sql").write_text(text(), "utf-8")
    shown = json.dumps(found, indent=1, ensure_ascii=False) + "\n"
    (DATA / f"{dialect}_{version}.json").write_text(shown, "utf-8")


if __name__ == "__main__":
    main()
