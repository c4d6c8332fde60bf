"""What an earlier version has stored is migrated: every row is as before, and every session continues."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import time
import warnings

import pytest
from redis import Redis

from tests.storages import earlier, earlier_redis
from tests.storages.postgres_sandbox import connect, forked, in_schema
from triggers.core.exchange import Changes, Decision, Need
from triggers.core.status import Status
from triggers.core.timers import FIRES, Timer
from triggers.exceptions import StorageError
from triggers.plugins import storage_from_url
from triggers.storages.postgres import PostgresStorage
from triggers.storages.sql import migrations
from triggers.storages.sqlite import SqliteStorage
from triggers.storages.sqlite.url import load_driver
from triggers.testing.conformance.fixtures import batch, entry
from triggers.testing.conformance.steps import SECOND, Steps, attempt_at
from triggers.testing.faults import Faults, FaultyDriver, InjectedCrash, kill_process

#: The earlier versions of the schema of which there are data.
VERSIONS = (1,)

NEWEST = len(migrations("sqlite"))


class Place:
    """A storage that an earlier version has filled: where it is, and what its reader has said."""

    def __init__(self, url, said):
        self.url = url
        self.said = said

    def open(self):
        """The storage, opened and so migrated."""
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "SQLite .* can corrupt", RuntimeWarning)
            return storage_from_url(self.url)

    def version(self):
        """The version of the schema that is stored."""
        if self.url.startswith("sqlite"):
            connection = sqlite3.connect(self.url.partition("///")[2].partition("?")[0])
            ((version,),) = connection.execute("PRAGMA user_version").fetchall()
            connection.close()
            return version
        if self.url.startswith("redis"):
            return int(Redis.from_url(self.url).get("{trg}:meta").split(b" ")[0])
        with connect(self.url) as connection:
            asked = in_schema(self.url, "SELECT number FROM {schema}.version")
            return connection.execute(asked).fetchone()[0]


@pytest.fixture(params=VERSIONS)
def version(request):
    return request.param


@pytest.fixture(params=["pysqlite3", "sqlite3", "postgres", "redis", "valkey"])
def place(request, version, tmp_path):
    if request.param == "postgres":
        url = request.getfixturevalue("postgres_url")
        return Place(url, earlier.postgres_schema(url, version))
    if request.param in {"redis", "valkey"}:
        url = request.getfixturevalue(f"{request.param}_url")
        return Place(url, earlier_redis.redis_keys(url, version))
    url = f"sqlite:///{tmp_path}/s.db?driver={request.param}"
    return Place(url, earlier.sqlite_file(tmp_path / "s.db", version))


@pytest.fixture
def postgres(version, postgres_url):
    return Place(postgres_url, earlier.postgres_schema(postgres_url, version))


@pytest.fixture
def sqlite(version, tmp_path):
    return Place(f"sqlite:///{tmp_path}/s.db", earlier.sqlite_file(tmp_path / "s.db", version))


def added(now, before, path="") -> dict:
    """What the reader says now and did not say before. Everything else must be as it was."""
    if isinstance(before, list) and isinstance(now, list) and len(now) == len(before):
        now, before = dict(enumerate(now)), dict(enumerate(before))
    if not (isinstance(before, dict) and isinstance(now, dict)):
        assert now == before, path
        return {}
    assert now.keys() >= before.keys(), path
    new = {f"{path}.{key}": now[key] for key in now.keys() - before.keys()}
    for key, value in before.items():
        new |= added(now[key], value, f"{path}.{key}")
    return new


def test_every_row_is_as_before(place):
    """Everything that the earlier version has read is read; a field that it did not have has its default."""
    found = added(earlier.read(place.open()), place.said)
    fields = {path.rpartition(".")[2]: value for path, value in found.items()}
    assert fields == {"next_timer_at": None, "timer_count": 0}
    assert len(found) == 2 * len(place.said)
    assert place.version() == NEWEST
    assert earlier.read(place.open()) == earlier.read(place.open())


def test_all_statuses_are_in_the_data(version):
    """The data have an instance in every status, claims, keys, records of a review, and sessions without rules."""
    for dialect in ("sqlite", "postgres", "redis"):
        sessions = earlier.said(dialect, version)
        instances = [instance for session in sessions.values() for instance in session["instances"]]
        assert {instance["status"] for instance in instances} == {status.value for status in Status}
        assert {instance["fence"] for instance in instances if instance["lease_until"]} == {1}
        assert [instance for instance in instances if instance["log_chosen"]]
        assert [firing for session in sessions.values() for firing in session["firings"] if firing["key"]]
        assert any(session["head"]["finalized"] for session in sessions.values())
        assert sessions["without rules"]["head"]["rules"] == "{}"


def test_sessions_continue_after_a_migration(place):
    """Firing, claiming, finishing, failing, replaying, skipping, reviewing and configuring."""
    storage = place.open()
    steps = Steps(storage, "survey")
    before = steps.head.firings
    assert steps.fire("first", {"responses": {"age": 36}}, key="page 1").duplicate_of.number == 1
    steps.finish(attempt_at(steps["t_page#4"]), {"page": 4})
    steps.keep_logs(attempt_at(steps["t_page#5"]), batch(entry("More.", level=40, seq=2)))
    steps.run("t_page#6", {"page": 6})
    steps.fail(steps.start("t_page#8"), "again")
    assert steps.replay("t_page#1").name == "t_page#10"
    steps.skip("t_page#8")
    steps.fire("page", {"page": 11})
    assert steps.head.firings == before + 4  # two pages, a failure, and the new page
    assert steps.kwargs("t_page#11") == {"t_subject": {"id": 7}, "page": {"page": 11}}
    assert steps.statuses() == {
        "t_alarm#0": "scheduled",
        "t_browser#0": "scheduled",
        **dict.fromkeys(["t_page#0", "t_page#4", "t_page#6", "t_subject#0"], "finished"),
        **dict.fromkeys(["t_page#1", "t_page#2", "t_page#7"], "replayed"),
        **dict.fromkeys(["t_page#3", "t_page#8"], "skipped"),
        **dict.fromkeys(["t_page#9", "t_page#10", "t_page#11"], "scheduled"),
        "t_page#5": "running",
    }
    steps.resolve_logs("t_page#5", {"by": "eve"})
    assert storage.reader.instances("survey", flagged=30) == []
    assert [record.entry.message for record in storage.reader.logs("survey", latest=True, limit=1)] == [
        "More."
    ]


def test_what_was_lost_and_what_is_due_is_found_after_a_migration(place):
    """A claim of the earlier version is renewed or recovered, and its outbox is handed out."""
    storage = place.open()
    steps = Steps(storage, "survey")
    assert steps.renew(attempt_at(steps["t_page#4"])) == set()
    (lost,) = storage.expired(10)
    assert (lost.uid, lost.task, lost.number, lost.fence) == ("survey", "t_page", 5, 1)
    steps.recover("t_page#5", lost.fence)
    assert steps["t_page#5"].status == Status.SCHEDULED
    due = [(each.uid, f"{each.task}#{each.number}") for each in storage.due(50, grace=30 * SECOND)]
    assert set(due) >= {("survey", "t_page#9"), ("survey", "t_alarm#0"), ("final", "t_last#0")}
    assert storage.reader.backlog().running == 1


def test_other_sessions_continue_after_a_migration(place):
    """Instances that lack triggers get them, in a finalized session and in one without rules, too."""
    storage = place.open()
    waiting = Steps(storage, "unstarted")
    waiting.fire("complete")
    assert waiting.statuses() == {"t_browser#0": "scheduled", "t_subject#0": "scheduled"}
    final = Steps(storage, "final", earlier.FINALIZING)
    final.run("t_last#0")
    assert final.fire("go").session.finalized == 3
    bare = Steps(storage, "without rules")
    assert bare.fire("page", key="k").duplicate_of.number == 1
    bare.configure(earlier.RULES)
    bare.fire("first")
    assert bare.statuses() == {"t_browser#0": "scheduled", "t_subject#0": "unstarted"}


def set_timer(session):
    """Decide that a timer is set."""
    yield Need(timers=1)
    session.next_timer_at, session.timer_count = 5, session.timer_count + 1
    return Changes(session, timers={"a": Timer("a", 5, session.timer_count, FIRES, 1)})


def test_a_timer_is_set_in_a_session_of_an_earlier_version(place):
    """It is stored, and found."""
    storage = place.open()
    for uid in ("survey", "final"):
        storage.commit(uid, Decision("set", set_timer))
    assert storage.timed_sessions(9, ["default"]) == [("survey", 5)]
    assert storage.timed_sessions(9, ["closing"]) == [("final", 5)]
    assert storage.reader.timers("final") == [Timer("a", 5, 1, FIRES, 1)]


# -- several processes, and processes that die --------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_many_processes_may_migrate_at_once(place):
    """Eight processes that begin at the same moment find what they need; it is migrated once."""

    def begin():
        storage = place.open()
        return Steps(storage, "survey").fire("page").fired[0].number

    first = place.said["survey"]["head"]["firings"] + 1
    assert sorted(map(int, forked(*[begin] * 8))) == list(range(first, first + 8))
    assert place.version() == NEWEST


def test_a_migration_of_sqlite_can_be_interrupted_at_every_statement(sqlite, tmp_path):
    """The file is as before, or migrated; the next process that opens it finds every row."""
    points, faults = 0, Faults()
    while not points or faults.dead:
        points += 1
        shutil.copy(tmp_path / "s.db", tmp_path / "copy.db")
        copy = Place(f"sqlite:///{tmp_path}/copy.db", sqlite.said)
        faults = Faults()
        faults.die_at(points)
        try:
            SqliteStorage(copy.url, driver=FaultyDriver(load_driver("auto"), faults)).close()
        except InjectedCrash:
            assert copy.version() in (1, NEWEST)
        if points % 10 == 0 or "COMMIT" in faults.dead:
            storage = copy.open()
            added(earlier.read(storage), copy.said)
            storage.close()
            assert copy.version() == NEWEST
    assert points > 2 * len(migrations("sqlite")[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("point", ["before CREATE TABLE timers", "before COMMIT", "after COMMIT"])
def test_a_process_that_migrates_sqlite_can_be_killed(sqlite, point):
    """With SIGKILL, before or after the migration is committed."""

    def migrate():
        faults = Faults(kill_process)
        faults.die_at(point)
        SqliteStorage(sqlite.url, driver=FaultyDriver(load_driver("auto"), faults))

    assert forked(migrate) == [""]
    assert sqlite.version() == (NEWEST if point == "after COMMIT" else 1)
    added(earlier.read(sqlite.open()), sqlite.said)
    assert sqlite.version() == NEWEST


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_process_that_migrates_postgres_can_be_killed(postgres):
    """With SIGKILL, in the middle: it has changed some tables and waits for another one."""
    child = 0
    with connect(postgres.url) as holding, connect(postgres.url) as watching:
        holding.execute("BEGIN")
        holding.execute(in_schema(postgres.url, "SELECT count(*) FROM {schema}.instances"))
        child = os.fork()
        if not child:
            PostgresStorage(postgres.url)
            os._exit(1)
        until = time.monotonic() + 60
        while not (waiting := watching.execute(WAITING).fetchall()):
            assert time.monotonic() < until
        os.kill(child, signal.SIGKILL)
        assert os.waitpid(child, 0)[1] == signal.SIGKILL
        watching.execute(
            "SELECT pg_terminate_backend(%s)", waiting[0]
        )  # as the server does when it finds out
        holding.execute("ROLLBACK")
    assert postgres.version() == 1
    added(earlier.read(postgres.open()), postgres.said)
    assert postgres.version() == NEWEST


#: The process of the server that waits for a lock.
WAITING = "SELECT pid FROM pg_locks WHERE NOT granted AND relation IS NOT NULL"


# -- processes that may not migrate --------------------------------------------------------------------------


def test_a_file_of_an_earlier_version_is_not_read_only_opened(sqlite, tmp_path):
    """A reader may not migrate. The message says what to do, and the file is unchanged."""
    before = (tmp_path / "s.db").read_bytes()
    with pytest.raises(
        StorageError,
        match=rf"has schema version 1, .* needs {NEWEST}: open it for writing once, which migrates it",
    ):
        SqliteStorage(f"{sqlite.url}?mode=ro")
    assert (tmp_path / "s.db").read_bytes() == before
    sqlite.open().close()
    reader = SqliteStorage(f"{sqlite.url}?mode=ro")
    assert earlier.read(reader).keys() == sqlite.said.keys()
    reader.close()


def test_a_role_that_may_not_migrate_is_told(postgres):
    """The owner of the schema has to open it once; then the role needs the grants for the new tables."""
    name = postgres.url.rpartition("=")[2]
    poor = Place(postgres.url.replace("postgres@", f"{name}@"), postgres.said)
    with connect(postgres.url) as connection:
        connection.execute(f"CREATE ROLE {name} LOGIN")
        try:
            grant(connection, name)
            with pytest.raises(
                StorageError,
                match=r"must be owner .* created or migrated, .* open the storage once with a role that",
            ):
                poor.open()
            assert postgres.version() == 1
            postgres.open().close()
            with pytest.raises(StorageError, match=r"permission denied for table timers .*grant USAGE"):
                poor.open().commit("survey", Decision("set", set_timer))
            grant(connection, name)
            poor.open().commit("survey", Decision("set", set_timer))
        finally:
            connection.execute(f"DROP OWNED BY {name}")
            connection.execute(f"DROP ROLE {name}")


def grant(connection, name):
    """Grant a role what the documentation says."""
    connection.execute(f"GRANT USAGE ON SCHEMA {name} TO {name}")
    connection.execute(f"GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA {name} TO {name}")
    connection.execute(f"GRANT USAGE ON ALL SEQUENCES IN SCHEMA {name} TO {name}")
