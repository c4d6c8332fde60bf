"""Two versions of the library use one storage: once the newer one has migrated it, the older one refuses every call."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

import pytest
from redis import Redis

import triggers
from tests.storages.postgres_sandbox import connect, in_schema
from triggers.core import decisions
from triggers.core.state import new_firing
from triggers.core.terms import Policy
from triggers.exceptions import SchemaVersionError, StorageBusyError
from triggers.plugins import storage_from_url
from triggers.storages.base import Purge
from triggers.storages.postgres import PostgresStorage
from triggers.storages.postgres.statements import texts
from triggers.storages.redis import RedisStorage
from triggers.storages.redis.nodes import Command
from triggers.storages.sql import migrations
from triggers.storages.sqlite.file import SqliteFile
from triggers.testing.conformance.fixtures import batch, entry
from triggers.testing.conformance.steps import SECOND, Steps

RULES = {"t_page": {"andEvery": "page", "run": "shop.Page"}}
TOO_OLD = r"this process requires.*; upgrade Triggers and restart this process; nothing was changed"

MIGRATIONS = {
    "sqlite": "ALTER TABLE instances DROP COLUMN metadata;\n",
    "postgres": "ALTER TABLE {schema}.instances DROP COLUMN metadata;\n",
}

#: Opens a storage, which migrates it.
OPEN = "import sys; from triggers.plugins import storage_from_url; storage_from_url(sys.argv[1]).close()"


@pytest.fixture(scope="module")
def library(tmp_path_factory):
    """A copy of the library that is one version newer."""
    folder = tmp_path_factory.mktemp("library")
    package = folder / "triggers"
    shutil.copytree(Path(triggers.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__"))
    for dialect, text in MIGRATIONS.items():
        (package / f"storages/{dialect}/migrations/9999_throw_away.sql").write_text(text, "utf-8")
    keyspace = package / "storages/redis/keyspace.py"
    text = keyspace.read_text("utf-8")
    assert text.count("LAYOUT: Final = 2\n") == 1
    keyspace.write_text(text.replace("LAYOUT: Final = 2\n", "LAYOUT: Final = 3\n"), "utf-8")
    return folder


@pytest.fixture
def migrate(library):
    """Lets the newer version open a storage in another process."""

    def migrate(url):
        environment = {**os.environ, "PYTHONPATH": str(library)}
        command = [sys.executable, "-W", "ignore", "-c", OPEN, url]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr

    return migrate


@pytest.fixture(params=["sqlite", "postgres", "redis", "valkey"])
def url(request, tmp_path):
    """The URL of an empty storage."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/t.db"
    return request.getfixturevalue(f"{request.param}_url")


def used(storage):
    """Steps on a session with a running instance, a due one and a record; and the attempt of the running one."""
    steps = Steps(storage)
    steps.configure(RULES)
    steps.fire("page")
    steps.fire("page")
    attempt = steps.start("t_page#0")
    steps.keep_logs(attempt, batch(entry()))
    return steps, attempt


WRITES = {
    "fire": lambda steps, _: steps.fire("page"),
    "first firing": lambda steps, _: Steps(steps.storage, "new session").fire("page"),
    "claim": lambda steps, _: steps.start("t_page#1"),
    "finish": lambda steps, attempt: steps.finish(attempt),
    "records": lambda steps, attempt: steps.keep_logs(attempt, batch(entry())),
    "heartbeat": lambda steps, attempt: steps.renew(attempt),
    "due": lambda steps, _: steps.storage.due(10, grace=SECOND, include_recent=True),
    "purge": lambda steps, _: steps.storage.purge_logs(
        Purge(2**60, 50, 60, contexts_only=False, dry_run=False)
    ),
}

READS = {
    "session": lambda reader: reader.session("session"),
    "preview": lambda reader: reader.preview("session", decisions.fire(Policy(), new_firing("page"))),
    "sessions": lambda reader: reader.sessions(),
    "counters": lambda reader: reader.counters("session"),
    "instance": lambda reader: reader.instance("session", "t_page", 0),
    "instances": lambda reader: reader.instances("session"),
    "firings": lambda reader: reader.firings("session"),
    "some firings": lambda reader: reader.firings("session", numbers=[1]),
    "latest": lambda reader: reader.latest("session", ["page"]),
    "logs": lambda reader: reader.logs("session"),
    "logs of an instance": lambda reader: reader.logs("session", instance=("t_page", 0)),
    "timers": lambda reader: reader.timers("session"),
    "some timers": lambda reader: reader.timers("session", names=["a"]),
    "backlog": lambda reader: reader.backlog(),
    "next_at": lambda reader: reader.next_at(),
}


def stored(url):
    """All that is stored."""
    if url.startswith("sqlite"):
        connection = sqlite3.connect(url.removeprefix("sqlite:///"))
        found = list(connection.iterdump())
        connection.close()
        return found
    if url.startswith("postgres"):
        with connect(url) as connection:
            schema = dict(parse_qsl(urlsplit(url).query))["schema"]
            return connection.execute("SELECT schema_to_xml(%s, true, false, '')", (schema,)).fetchone()
    client = Redis.from_url(url)
    return {key: client.dump(key) for key in client.keys("*")}


def test_a_process_that_is_too_old_changes_nothing(url, migrate):
    """Every kind of change is refused with a message that says what to do. The storage cannot be opened again either."""
    storage = storage_from_url(url)
    steps, attempt = used(storage)
    migrate(url)
    before = stored(url)
    for name, write in WRITES.items():
        with pytest.raises(SchemaVersionError, match=TOO_OLD):
            write(steps, attempt)
        assert stored(url) == before, name
    with pytest.raises(SchemaVersionError, match="upgrade"):
        storage_from_url(url)
    assert stored(url) == before


def test_a_process_that_is_too_old_reads_nothing(url, migrate):
    """Every read is refused with a message that says what to do."""
    storage = storage_from_url(url)
    used(storage)
    migrate(url)
    for read in READS.values():
        with pytest.raises(SchemaVersionError, match=TOO_OLD):
            read(storage.reader)
    with pytest.raises(SchemaVersionError, match=TOO_OLD):
        storage.timed_sessions(9, ["default"])


def test_the_newer_version_opens_the_storage_again(url, migrate):
    """The newer version opens what the older one has stored, and opening it again changes nothing."""
    storage = storage_from_url(url)
    used(storage)
    storage.close()
    migrate(url)
    before = stored(url)
    migrate(url)
    assert stored(url) == before


# -- mutants ------------------------------------------------------------------------------------------------


def test_without_the_check_sqlite_writes_on(tmp_path, migrate, monkeypatch):
    """Without the check, a heartbeat is stored: it does not use the column that the migration has dropped."""
    url = f"sqlite:///{tmp_path}/t.db"
    steps, attempt = used(storage_from_url(url))
    migrate(url)
    monkeypatch.setattr(SqliteFile, "check_schema_version", lambda *_: None)
    assert steps.renew(attempt) == set()


def test_without_the_check_postgres_writes_on(postgres_url, migrate, monkeypatch):
    """Without the check, a heartbeat is stored on PostgreSQL, too."""
    steps, attempt = used(PostgresStorage(postgres_url))
    migrate(postgres_url)
    monkeypatch.setattr("triggers.storages.postgres.storage.VERSION_CHECK", ("clock", ()))
    assert steps.renew(attempt) == set()


def test_without_the_new_layout_redis_is_written_on(valkey_url, migrate):
    """If the partitions had the old token, every script of the older version would run."""
    steps, attempt = used(RedisStorage(valkey_url))
    migrate(valkey_url)
    token = steps.storage._store.token
    for keys in steps.storage._store.keyspace.partitions:
        steps.storage._store.server.ask(Command(keys.world, ("SET", keys.world, token)), 2**40)
    assert steps.renew(attempt) == set()


# -- while a migration is running ----------------------------------------------------------------------------


class Waiting:
    """A firing in another thread, which waits for a migration."""

    def __init__(self, steps):
        self.outcome = None
        self._steps = steps
        self._thread = threading.Thread(target=self._fire)
        self._thread.start()

    def _fire(self):
        try:
            self.outcome = self._steps.fire("page").fired[0].number
        except SchemaVersionError as error:
            self.outcome = error

    def end(self):
        """The number of the firing, or the error."""
        self._thread.join(60)
        return self.outcome


def blocked(connection):
    """Wait until a connection waits for a lock."""
    asked = "SELECT count(*) FROM pg_locks WHERE NOT granted"
    until = time.monotonic() + 60
    while connection.execute(asked).fetchone() == (0,):
        assert time.monotonic() < until


@pytest.mark.parametrize("commits", [True, False])
def test_a_firing_waits_for_a_migration_of_postgres(postgres_url, commits):
    """The firing is refused after the migration was committed, and stored after it was rolled back."""
    steps, _ = used(PostgresStorage(postgres_url))
    with connect(postgres_url) as migrating, connect(postgres_url) as watching:
        migrating.execute("BEGIN")
        migrating.execute(in_schema(postgres_url, "LOCK TABLE {schema}.version IN ACCESS EXCLUSIVE MODE"))
        migrating.execute(in_schema(postgres_url, "UPDATE {schema}.version SET number = number + 1"))
        waiting = Waiting(steps)
        blocked(watching)
        migrating.execute("COMMIT" if commits else "ROLLBACK")
    outcome = waiting.end()
    assert isinstance(outcome, SchemaVersionError) if commits else outcome == 3


def test_a_migration_of_postgres_waits_for_a_commit(postgres_url, monkeypatch):
    """Tables never change between the reads and the writes of one transaction of an older process."""
    steps, _ = used(PostgresStorage(postgres_url))
    newer = (*migrations("postgres"), ("SELECT 1",))
    with connect(postgres_url, options="-c lock_timeout=0") as connection, connection.transaction():
        joined = Steps(steps.storage.joined(connection))
        joined.fire("page")
        monkeypatch.setattr("triggers.storages.postgres.schema.migrations", lambda _: newer)
        with pytest.raises(StorageBusyError):
            PostgresStorage(f"{postgres_url}&timeout=1")
        joined.fire("page")
    PostgresStorage(postgres_url).close()
    with pytest.raises(SchemaVersionError, match=TOO_OLD):
        steps.fire("page")
    with connect(postgres_url) as connection:
        assert connection.execute(
            in_schema(postgres_url, "SELECT count(*) FROM {schema}.firings")
        ).fetchone() == (4,)


def test_without_the_lock_a_migration_of_postgres_does_not_wait(postgres_url, monkeypatch):
    """The lock on the version makes the migration wait."""
    steps, _ = used(PostgresStorage(postgres_url))
    newer = (*migrations("postgres"), ("SELECT 1",))
    with connect(postgres_url) as connection, connection.transaction():
        joined = Steps(steps.storage.joined(connection))
        joined.fire("page")
        monkeypatch.setattr("triggers.storages.postgres.schema.migrations", lambda _: newer)
        monkeypatch.setattr("triggers.storages.postgres.storage.texts", texts_without_lock)
        PostgresStorage(f"{postgres_url}&timeout=20").close()
        with pytest.raises(SchemaVersionError):
            joined.fire("page")


def texts_without_lock(schema):
    """A mutant: migrations take no lock."""
    return {**texts(schema), "version_lock": "SELECT 1"}


@pytest.mark.parametrize("commits", [True, False])
def test_a_firing_waits_for_a_migration_of_sqlite(tmp_path, commits):
    """The firing is refused after the migration was committed, and stored after it was rolled back."""
    steps, _ = used(storage_from_url(f"sqlite:///{tmp_path}/t.db"))
    driver = steps.storage._file.driver
    migrating = driver.connect(f"{tmp_path}/t.db", isolation_level=None)
    migrating.execute("BEGIN IMMEDIATE")
    migrating.execute(f"PRAGMA user_version = {len(migrations('sqlite')) + 1}")
    waiting = Waiting(steps)
    migrating.execute("COMMIT" if commits else "ROLLBACK")
    outcome = waiting.end()
    assert isinstance(outcome, SchemaVersionError) if commits else outcome == 3
    migrating.close()


def test_a_transaction_that_was_joined_is_refused(tmp_path, postgres_url, migrate):
    """A commit in a transaction of the application checks the version, too."""
    file = f"{tmp_path}/t.db"
    steps, _ = used(storage_from_url(f"sqlite:///{file}?shared=no"))
    migrate(f"sqlite:///{file}")
    connection = steps.storage._file.driver.connect(file, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    with pytest.raises(SchemaVersionError, match=TOO_OLD):
        Steps(steps.storage.joined(connection)).fire("page")
    connection.close()
    steps, _ = used(PostgresStorage(postgres_url))
    migrate(postgres_url)
    with connect(postgres_url) as connection, connection.transaction():
        joined = steps.storage.joined
        with pytest.raises(SchemaVersionError, match=TOO_OLD):
            Steps(joined(connection)).fire("page")
