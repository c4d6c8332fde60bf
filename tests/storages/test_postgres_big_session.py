"""A statement costs what it touches in a session of any size, whenever its plan was made and whatever PostgreSQL knows of the tables."""

from __future__ import annotations

import re

import pytest

from tests.storages.postgres_sandbox import connect, in_schema
from triggers.storages.postgres import PostgresStorage
from triggers.storages.postgres.statements import texts
from triggers.storages.postgres.storage import SETTINGS

#: Rows of one session in each table. Its indexes alone have hundreds of blocks.
SIZE = 20_000

#: No statement looks at more blocks than this: a few index entries for each of a few rows.
FEW = 60

#: A table that has no statistics, and never gets any by itself.
WITHOUT_STATISTICS = "ALTER TABLE {{schema}}.{} SET (autovacuum_enabled = false)"
TABLES = ("rule_sets", "sessions", "firings", "names", "instances", "waiting", "timers", "logs")

FILL = """
INSERT INTO {schema}.rule_sets (digest, body) SELECT 'digest ' || n, '{{}}' FROM generate_series(1, SIZE) AS n;
INSERT INTO {schema}.sessions
    SELECT n, CASE n WHEN 1 THEN 'big' ELSE 'session ' || n END, 1, 'manager ' || n % 3, SIZE, 1, NULL, '{{}}', 1, 1, n
    FROM generate_series(1, SIZE) AS n;
INSERT INTO {schema}.firings
    SELECT 1, n, 'trigger ' || n, '{{}}', n, 0, '', 'key ' || n, '' FROM generate_series(1, SIZE) AS n;
INSERT INTO {schema}.names
    SELECT 1, 'trigger ' || n, n, 1, n, 0 FROM generate_series(1, SIZE) AS n;
INSERT INTO {schema}.instances (session, task, number, status, created_at, modified_at, fence, run_at,
        dispatch_after, lease_until, log_unresolved, root, depth, retries, cascade_depth, taken, vetoes, history)
    SELECT 1, 'task ' || n % 1000, n / 1000, CASE WHEN n = 7 THEN 'finished'
            ELSE (ARRAY['unstarted', 'scheduled', 'running', 'finished'])[n % 4 + 1] END,
        n, n, 1, n, n, CASE n % 4 WHEN 2 THEN n END, CASE n WHEN 7 THEN 40 ELSE 0 END,
        0, 0, 0, 0, '{{"trigger 1":' || n || ',"trigger 2":7}}', '[]', ''
    FROM generate_series(1, SIZE) AS n;
INSERT INTO {schema}.waiting
    SELECT 1, 'trigger ' || n % 5000, 'task ' || n % 1000, n / 1000 FROM generate_series(1, SIZE) AS n;
INSERT INTO {schema}.timers
    SELECT 1, 'timer ' || n, n * 7919 % 100003, n, '[]' FROM generate_series(1, SIZE) AS n;
INSERT INTO {schema}.logs (session, task, instance, number, fence, attempt, seq, at, level, logger, message,
        template, context, pathname, lineno, function, truncated, fingerprint, late, counts)
    SELECT 1, 'task ' || n % 1000, n / 1000, 1, 1, 1, 1, n, 20, '', 'said', '', '{{}}', '', 1, '', '', '', false, true
    FROM generate_series(1, SIZE) AS n;
""".replace("SIZE", str(SIZE))

NUMBERS = "ARRAY[1, 500, 19999]"
NAMES = "ARRAY['trigger 1', 'trigger 500', 'nothing']"

#: Statement → its parameters.
GIVEN = {
    "head": "'big'",
    "head_locked": "'big'",
    "head_unlocked": "'big'",
    "session": "'big'",
    "sessions": "'session 5', 10",
    "session_update": "'m', 1, 1, NULL, '{}', 1, 1, 1, 1",
    "session_rules": "'digest 5', 1",
    "rules": NUMBERS,
    "rules_insert": "'digest 5', '{}'",
    "keyed": "1, 'trigger 5', 'key 5'",
    "names": f"1, {NAMES}",
    "counter_upsert": "1, 'trigger 5', 1, 1",
    "latest_upsert": "1, 'trigger 5', 1, 1",
    "waiting": "1, 'trigger 5'",
    "waiting_insert": f"1, 'task 3', 5, {NAMES}",
    "waiting_delete": "1, 'task 5', 5, 'trigger 5'",
    "payloads": "1, 'task 5', 5",
    "instance_locked": "1, 'task 5', 5",
    "unstarted": "1, ARRAY['task 4', 'task 8']",
    "flagged": "1, 10, 5",
    "log_level": "1, 'task 5', 5, 0, 10, ARRAY[3, 4]",
    "timers": "1, 500, 0, 5",
    "timers_named": "1, ARRAY['timer 1', 'timer 500', 'nothing']",
    "timer_upsert": "1, 'timer 5', 6, 7, '[]'",
    "timer_delete": "1, 'timer 5'",
    "timed_sessions": "ARRAY['manager 0', 'manager 2', 'nobody'], 5",
    "renew": "ARRAY['big', 'big', 'session 6'], ARRAY['task 6', 'task 10', 'x'], ARRAY[5, 6, 1], ARRAY[1, 1, 1], 100",
    "due": "0, 3, 10, 16",
    "expired": "3",
    "next_at": "",
    "instance": "1, 'task 5', 5",
    "instances": "'big', 'task 5', 5, NULL, NULL, 5",
    "instances_flagged": "'big', '', -1, NULL, NULL, 5, 10",
    "firings": "'big', 500, 5",
    "firings_numbered": f"'big', {NUMBERS}",
    "latest": f"'big', {NAMES}",
    "logs": "'big', 500, 0, '', NULL, NULL, 5",
    "logs_latest": "'big', 0, 0, '', NULL, NULL, 5",
    "logs_of_instance": "'big', 0, 0, '', NULL, NULL, 5, 'task 5', 5",
    "logs_of_instance_latest": "'big', 0, 0, '', NULL, NULL, 5, 'task 5', 5",
    "purge_find": "1000000, 50, 30, false, 500, 5",
    "purge_check": f"1000000, 50, 30, false, {NUMBERS}",
    "purge_records": NUMBERS,
    "purge_context": "500, NULL",
    "evidence": "1, 5, 5, 'big', 5, 'task 5', 5, 5, '5 unstarted', 'timer 5', 5, 5",
}

#: They have no plan, read no table of ours, or one of a single row.
TRIVIAL = {
    *(
        "begin",
        "begin_reading",
        "commit",
        "rollback",
        "lock_timeout",
        "session_settings",
        "index_order",
        "server",
        "no_statement_timeout",
        "migration_lock",
    ),
    *("has_schema", "has_version", "version", "version_set", "incarnation", "incarnate"),
    *("transaction_status", "terminate", "announce"),
    *("clock", "log_lock", "version_check", "version_lock"),
}

#: They only insert.
INSERTS = {"session_insert", "firing_insert", "instance_insert", "log_insert"}

#: What they look at grows with the session or with all of them, as it has to.
COUNTING = {"counters", "counters_all", "history", "backlog"}

#: They change one instance by its whole key.
CHANGES = {"instance_take", "instance_move"}


def test_every_statement_has_its_place():
    """A new statement is tested here, or is said to be of a kind that needs no test."""
    known = {*GIVEN, *TRIVIAL, *INSERTS, *COUNTING, *CHANGES}
    named = {name.removesuffix("_of") for name in texts("s")} | {
        "logs_of_instance",
        "logs_of_instance_latest",
    }
    assert named - known == set()


class Planned:
    """Statements that were prepared in one connection, in one of PostgreSQL's ways to plan.

    Args:
        url: of the schema.
        mode: the way to plan.
        without: what is left out of every statement.
        settings: statement → its settings.
    """

    def __init__(self, url, mode, without="", settings=SETTINGS):
        self.connection = connect(url)
        self.texts = {name: text.replace(without, "") for name, text in texts(url.rpartition("=")[2]).items()}
        self._settings = settings
        self.connection.execute(f"PREPARE session_settings AS {self.texts['session_settings']}")
        self.connection.execute(f"EXECUTE session_settings ('0', '0', '0', '{mode}', false)")
        for name in GIVEN:
            self.connection.execute(f"PREPARE {name}_plan AS {self.texts[name]}")

    def explained(self, name, options):
        """The lines of the statement's plan, with its settings; nothing is changed."""
        call = f"EXECUTE {name}_plan" + (f" ({GIVEN[name]})" if GIVEN[name] else "")
        with self.connection.transaction(force_rollback=True):
            for setting, _ in self._settings.get(name, ()):
                self.connection.execute(self.texts[setting])
            return [row[0] for row in self.connection.execute(f"EXPLAIN ({options}) {call}")]

    def blocks(self):
        """Statement → how many blocks it looks at."""
        return {
            name: _blocks(self.explained(name, "ANALYZE, BUFFERS, COSTS off, TIMING off")) for name in GIVEN
        }


def _blocks(lines):
    found = next((line for line in lines if "Buffers:" in line), "")
    return sum(int(number) for number in re.findall(r"(?:hit|read)=(\d+)", found))


#: Plans that were made while the tables were empty; and two mutants.
EMPTY, WITHOUT_FENCE, WITHOUT_SETTINGS = "empty", "without OFFSET 0", "without settings"


@pytest.fixture(scope="module")
def big(postgres_server):
    """A schema with a session of many rows, and connections by what was known when they made their plans."""
    url = f"{postgres_server.url}&schema=big_session"
    PostgresStorage(url).close()
    with connect(url) as connection:
        for table in TABLES:
            connection.execute(in_schema(url, WITHOUT_STATISTICS.format(table)))
        generic, custom = "force_generic_plan", "force_custom_plan"
        planned = {
            EMPTY: Planned(url, generic),
            WITHOUT_FENCE: Planned(url, generic, without="OFFSET 0"),
        }
        for each in planned.values():
            for name in GIVEN:
                each.explained(name, "COSTS off")
        connection.execute(in_schema(url, FILL).as_string())
        planned |= {mode: Planned(url, mode) for mode in (generic, custom)}
        planned[WITHOUT_SETTINGS] = Planned(url, generic, settings={})
        blocks = {f"{how}, without statistics": each.blocks() for how, each in planned.items()}
        unknown = connection.execute(
            "SELECT count(*) FROM pg_stats WHERE schemaname = %s AND tablename = ANY(%s)",
            ("big_session", [*TABLES]),
        ).fetchone()
        assert unknown == (0,)
        for table in TABLES:
            connection.execute(in_schema(url, f"ANALYZE {{schema}}.{table}"))
        planned |= {f"{mode}, new": Planned(url, mode) for mode in (generic, custom)}
        blocks |= {f"{how}, with statistics": each.blocks() for how, each in planned.items()}
        yield blocks
        for each in planned.values():
            each.connection.close()
        connection.execute(in_schema(url, "DROP SCHEMA {schema} CASCADE"))


@pytest.mark.parametrize("name", GIVEN)
def test_a_statement_looks_at_few_blocks_of_a_big_session(big, name):
    """By generic and custom plans, without statistics and with them, and by a plan that was made while the tables were empty."""
    assert {
        how: found[name]
        for how, found in big.items()
        if found[name] > FEW and "without " not in how.split(",")[0]
    } == {}


def test_without_the_fence_the_planner_reads_the_session(big):
    """What keeps LATERAL from becoming a join is needed."""
    found = big[f"{WITHOUT_FENCE}, without statistics"]
    assert {name for name in GIVEN if found[name] > FEW} >= {"payloads", "waiting", "latest", "renew"}


def test_without_the_settings_the_planner_reads_what_it_only_has_to_begin(big):
    """What keeps a page from being sorted is needed."""
    found = big[f"{WITHOUT_SETTINGS}, without statistics"]
    assert {name for name in GIVEN if found[name] > FEW} >= {"instances", "logs", "logs_latest"}


@pytest.mark.parametrize("name", sorted(CHANGES))
def test_a_change_finds_its_instance_by_the_whole_key(postgres_url, name):
    """Its plan has the session, the task and the number in the condition of the index."""
    PostgresStorage(postgres_url).close()
    text = texts(postgres_url.rpartition("=")[2])[name]
    count = max(map(int, re.findall(r"\$(\d+)", text)))
    with connect(postgres_url) as connection:
        connection.execute("SET enable_seqscan = off")
        connection.execute("SET plan_cache_mode = force_generic_plan")
        connection.execute(f"PREPARE change AS {text}")
        given = ", ".join(["NULL"] * count)
        lines = [row[0] for row in connection.execute(f"EXPLAIN (COSTS off) EXECUTE change ({given})")]
    (condition,) = [line for line in lines if "Index Cond:" in line]
    assert all(f"({column} = $" in condition for column in ("session", "task", "number"))
