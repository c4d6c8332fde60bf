"""A statement costs what it touches: PostgreSQL finds its rows by an index, however many there are."""

from __future__ import annotations

import re
import time

import pytest

from tests.storages.postgres_sandbox import connect, in_schema
from triggers.core.exchange import Changes, Decision, Need
from triggers.core.timers import FIRES, Timer
from triggers.storages.postgres import PostgresStorage
from triggers.storages.postgres.statements import texts
from triggers.storages.postgres.storage import SETTINGS
from triggers.testing.conformance.fixtures import SURVEY
from triggers.testing.conformance.steps import SECOND, Steps

#: One row, or the server's own tables; and what counts what is to be done.
SMALL = {"version", "version_check", "version_set", "incarnation", "has_version", "has_schema", "terminate"}

#: Statements that have no plan.
UTILITY = {"begin", "begin_reading", "commit", "rollback", "version_lock"}

#: A task of which every session has instances.
RULES = {"t_page": {"andEvery": "page", "run": "page"}}

GRACE = 30 * SECOND


class Plans:
    """Plans of the storage's statements, made once for all parameters, as the storage has them made."""

    def __init__(self, url):
        self.connection = connect(url)
        self.texts = texts(url.rpartition("=")[2])
        self._prepared = set()
        self.connection.execute(f"PREPARE manners AS {self.texts['session_settings']}")
        self.connection.execute("EXECUTE manners ('0', '0', '0', 'force_generic_plan', false)")

    def of(self, name, *given, options=""):
        """The lines of the plan; with values for its parameters, or NULLs."""
        if name not in self._prepared:
            self.connection.execute(f"PREPARE {name}_plan AS {self.texts[name]}")
            self._prepared.add(name)
        count = max(map(int, re.findall(r"\$(\d+)", self.texts[name])), default=0)
        values = ", ".join(map(str, given or ("NULL",) * count))
        with self.connection.transaction():
            for setting, _ in SETTINGS.get(name, ()):
                self.connection.execute(self.texts[setting])
            call = f"EXECUTE {name}_plan ({values})" if values else f"EXECUTE {name}_plan"
            return [row[0] for row in self.connection.execute(f"EXPLAIN ({options or 'COSTS off'}) {call}")]


@pytest.fixture
def plans(postgres_url):
    PostgresStorage(postgres_url).close()
    plans = Plans(postgres_url)
    yield plans
    plans.connection.close()


@pytest.mark.parametrize("name", sorted(set(texts("s")) - SMALL - UTILITY))
def test_no_statement_reads_a_whole_table(plans, name):
    """Every statement finds its rows through an index, even where nothing is known of the tables yet."""
    found = plans.of(name)
    assert not [line for line in found if "Seq Scan" in line]


@pytest.fixture(scope="module")
def crowds(postgres_server):
    """Two schemas: one with 1,000,000 sessions of which 100,000 have something due, one with 1,000 and 100."""
    urls = {size: f"{postgres_server.url}&schema=crowd_{size}" for size in (1_000, 1_000_000)}
    for size, url in urls.items():
        storage = PostgresStorage(url)
        Steps(storage, "s").configure(RULES)
        storage.close()
        with connect(url) as connection:
            connection.execute(in_schema(url, CROWD).as_string().replace("SIZE", str(size)))
    yield urls
    for url in urls.values():
        with connect(url) as connection:
            connection.execute(in_schema(url, "DROP SCHEMA {schema} CASCADE"))


#: Every tenth session has an instance that is due, every tenth one that runs out of its lease, every tenth a timer.
CROWD = """
INSERT INTO {schema}.sessions
    SELECT n + 1, 'session ' || n, 1, 'default', 1, 1, NULL, '{{}}', 1, 1, CASE WHEN n % 10 = 3 THEN n END
    FROM generate_series(1, SIZE) AS n;
INSERT INTO {schema}.instances (session, task, number, status, created_at, modified_at, run_at, dispatch_after,
        lease_until, root, depth, retries, cascade_depth, taken, vetoes, history)
    SELECT n + 1, 't_page', 0, (ARRAY['scheduled', 'running', 'finished'])[n % 10 + 1], 1, 1, n, n,
        CASE WHEN n % 10 = 1 THEN n END, 0, 0, 0, 0, '{{"page":1}}', '[]', ''
    FROM generate_series(1, SIZE) AS n WHERE n % 10 < 3
"""


def blocks(lines):
    """How many blocks the whole statement has looked at."""
    found = next(line for line in lines if "Buffers:" in line)
    return sum(int(number) for number in re.findall(r"(?:hit|read)=(\d+)", found))


@pytest.mark.parametrize("analyzed", [False, True])
def test_a_sweep_among_a_million_sessions_costs_what_it_takes(crowds, analyzed):
    """What is due, what is lost and what has a timer is found by its index, in the order of the index, and at the same cost among a thousand."""
    cost = {}
    for size, url in crowds.items():
        plans = Plans(url)
        if analyzed:
            for table in ("sessions", "instances"):
                plans.connection.execute(in_schema(url, f"ANALYZE {{schema}}.{table}"))
        due = plans.of("due", 0, 50, GRACE, 16, options="ANALYZE, BUFFERS, COSTS off, TIMING off")
        lost = plans.of("expired", 50, options="ANALYZE, BUFFERS, COSTS off, TIMING off")
        timed = plans.of(
            "timed_sessions", "ARRAY['default']", 50, options="ANALYZE, BUFFERS, COSTS off, TIMING off"
        )
        indexes = "instances_due", "instances_leased", "sessions_timed"
        for found, index in zip((due, lost, timed), indexes, strict=True):
            assert [line for line in found if f"Index Scan using {index}" in line], found
            assert not [line for line in found if "Seq Scan" in line or "Bitmap" in line], found
            assert [line for line in found if "rows=50 " in line and index in line], "no more than are wanted"
        cost[size] = blocks(due), blocks(lost), blocks(timed)
        plans.connection.close()
    assert all(large < 2 * small for small, large in zip(*cost.values(), strict=True)), cost


def test_four_sweeps_share_a_million_sessions(crowds):
    """Each of them takes others; those that waited longest come first; nothing is handed over twice."""
    storages = [PostgresStorage(crowds[1_000_000]) for _ in range(4)]
    taken = [storages[turn % 4].due(500, grace=GRACE) for turn in range(12)]
    uids = [each.uid for part in taken for each in part]
    assert len(set(uids)) == len(uids) == 6_000
    numbers = [int(uid.split()[1]) for uid in uids]
    assert numbers == sorted(numbers)
    assert {(each.task, each.run, each.using) for part in taken for each in part} == {
        ("t_page", "page", None)
    }
    for storage in storages:
        storage.close()


def test_other_statements_find_one_session_among_a_million(crowds):
    """Firing, claiming and reading look at a handful of blocks, wherever the session is."""
    plans = Plans(crowds[1_000_000])
    options = "ANALYZE, BUFFERS, COSTS off, TIMING off"
    for name, given in (
        ("head_locked", ("'session 500000'",)),
        ("session", ("'session 999999'",)),
        ("sessions", ("'session 7'", 10)),
        ("names", (500_001, "ARRAY['t_page', 'page']")),
        ("waiting", (500_001, "'page'")),
        ("instance_locked", (500_001, "'t_page'", 0)),
        ("instances", ("'session 500000'", "''", -1, "NULL", "NULL", 10)),
        ("logs", ("'session 500000'", 0, 0, "''", "NULL", "NULL", 10)),
    ):
        assert blocks(plans.of(name, *given, options=options)) < 30, name
    plans.connection.close()


def test_a_head_is_replaced_in_its_own_page(postgres_url):
    """Firings into one session leave no entry in an index of the heads or the names."""
    storage = PostgresStorage(postgres_url)
    steps = Steps(storage)
    steps.configure(RULES)
    for n in range(50):
        steps.fire("page", {"n": n})
    storage.close()
    assert cold_updates(postgres_url, 50) == {"sessions": 0, "names": 0}


def set_timer(session):
    """Decide that a timer is set that is later than the first one."""
    yield Need()
    session.next_timer_at = 2**60
    session.timer_count += 1
    number = session.timer_count
    return Changes(
        session, timers={f"timer {number}": Timer(f"timer {number}", 2**60 + number, number, FIRES, 1)}
    )


def test_a_head_with_timers_is_replaced_in_its_own_page(postgres_url):
    """As long as the first timer is the same, nothing of a session with timers is written into an index of the heads."""
    storage = PostgresStorage(postgres_url)
    steps = Steps(storage)
    steps.configure(RULES)
    for n in range(25):
        steps.fire("page", {"n": n})
        steps.commit(Decision("set", set_timer))
    storage.close()
    assert cold_updates(postgres_url, 50) == {"sessions": 1, "names": 0}  # for the first timer


def cold_updates(url, updates):
    """Table → how many updates had to change its indexes, once the server has counted so many updates of heads."""
    asked = """SELECT relname, n_tup_upd - n_tup_hot_upd, n_tup_upd FROM pg_stat_user_tables
        WHERE schemaname = %s AND relname IN ('sessions', 'names') ORDER BY relname DESC"""
    until = time.monotonic() + 60
    with connect(url) as connection:
        while (found := connection.execute(asked, (url.rpartition("=")[2],)).fetchall())[0][2] < updates:
            assert time.monotonic() < until
        return {table: cold for table, cold, _ in found}


def test_payloads_and_rule_sets_are_stored_once(postgres_url):
    """However many instances see a firing, and however many sessions share their rules."""
    storage = PostgresStorage(postgres_url)
    many = {f"t_{n}": {"after": ["page"], "run": "page"} for n in range(20)}
    for uid in ("one", "two", "three"):
        steps = Steps(storage, uid)
        steps.configure(many)
        steps.fire("page", {"marked": "z" * 1_000})
        assert len(steps.instances()) == 20
    storage.close()

    with connect(postgres_url) as connection:
        for text, expected in (
            ("SELECT count(*) FROM {schema}.rule_sets WHERE body LIKE '%t_19%'", 1),
            ("SELECT count(*) FROM {schema}.firings WHERE kwargs LIKE '%zzz%'", 3),
            ("SELECT count(*) FROM {schema}.instances WHERE kwargs IS NOT NULL", 0),
        ):
            assert connection.execute(in_schema(postgres_url, text)).fetchone() == (expected,)


def test_the_index_keeps_nothing_of_instances_that_no_longer_wait(postgres_url):
    """Once an instance has started or was abandoned, no row says that it lacks anything."""
    storage = PostgresStorage(postgres_url)
    steps = Steps(storage)
    steps.configure(SURVEY)
    for trigger in ("first", "embedded", "complete", "page"):
        steps.fire(trigger)
    steps.run("t_subject#0")
    assert set(steps.statuses().values()) == {"finished", "scheduled"}
    storage.close()
    with connect(postgres_url) as connection:
        assert connection.execute(in_schema(postgres_url, "SELECT * FROM {schema}.waiting")).fetchall() == []
