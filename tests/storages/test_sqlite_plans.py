"""A statement costs what it touches: SQLite finds its rows by an index, and nothing is kept twice."""

from __future__ import annotations

import re
import warnings

import pytest

from triggers.storages.sqlite import SqliteStorage
from triggers.storages.sqlite.storage import SQL
from triggers.testing.conformance.fixtures import SURVEY
from triggers.testing.conformance.steps import Steps

#: Counts over the two small indexes of what is open; the only statement that walks through an index.
COUNTING = {"backlog"}

#: How single rows are found.
FIRING = "SEARCH firings USING PRIMARY KEY (session=? AND number=?)"
INSTANCE = "(session=? AND task=? AND number=?)"
BY_ID = "SEARCH instances USING INTEGER PRIMARY KEY (rowid=?)"


@pytest.fixture(params=["auto", "sqlite3"])
def storage(request, tmp_path):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "SQLite .* can corrupt", RuntimeWarning)
        yield SqliteStorage(f"sqlite:///{tmp_path}/survey.db?driver={request.param}")


def plan(run, statement):
    """The steps of SQLite's plan for a statement."""
    numbered = [int(number) for number in re.findall(r"\?(\d+)", statement)]
    given = (None,) * max([statement.count("?"), *numbered])
    for count in range(len(given), -1, -1):  # a parameter that is named twice counts once
        try:
            return [row[3] for row in run(f"EXPLAIN QUERY PLAN {statement}", given[:count])]
        except Exception as error:
            if "binding" not in str(error):
                raise
    raise AssertionError(statement)


@pytest.mark.parametrize("name", sorted(SQL))
def test_no_statement_reads_a_whole_table(storage, name):
    """Every statement finds its rows through an index, whatever the table holds."""
    with storage._file.reading() as run:
        scans = [step for step in plan(run, SQL[name]) if "SCAN" in step and "json_each" not in step]
    scans = [step for step in scans if step != "SCAN CONSTANT ROW"]
    if name in COUNTING:
        assert all("USING" in step for step in scans)
    else:
        assert scans == []


#: The rows of a big session, of which one statement wants a few.
BIG = """
INSERT INTO rule_sets VALUES (1, 'digest', '{}');
INSERT INTO sessions (id, uid, rules, manager, firings, pending, metadata, created_at, modified_at)
    VALUES (1, 'big', 1, 'default', 0, 0, '{}', 1, 1);
INSERT INTO firings (session, number, trigger, kwargs, at, depth, source, key, fingerprint)
    SELECT 1, value, 'trigger ' || value, '{}', value, 0, '', 'key ' || value, '' FROM n;
INSERT INTO names (session, name, created, unresolved, latest, depth)
    SELECT 1, 'trigger ' || value, value, 1, value, 0 FROM n;
INSERT INTO instances (id, session, task, number, status, created_at, modified_at, log_unresolved,
        root, depth, retries, cascade_depth, taken, vetoes, history)
    SELECT value, 1, 'task ' || (value % 100), value / 100, 'unstarted', 1, 1, value % 2, 0, 0, 0, 0, '{}', '[]', '' FROM n;
INSERT INTO waiting SELECT 1, 'trigger ' || (value % 100), value FROM n;
INSERT INTO sessions (uid, rules, manager, firings, pending, metadata, created_at, modified_at, next_timer_at)
    SELECT 'session ' || value, 1, 'manager ' || (value % 3), 0, 0, '{}', 1, 1, value FROM n;
INSERT INTO timers SELECT 1, 'timer ' || value, (value * 7919) % 100003, value, '[]' FROM n;
INSERT INTO logs SELECT value, 1, value, 1, 1, 1, 1, value, 20, '', '', '', '{}', NULL, '', 1, '', '', '', 0, 1 FROM n;
"""


def fill(storage):
    """Let there be a big session."""
    n = "WITH RECURSIVE n (value) AS (SELECT 1 UNION ALL SELECT value + 1 FROM n WHERE value < 20000) "
    with storage._file.transaction() as run:
        for statement in filter(str.strip, BIG.split(";")):
            run(n + statement if "FROM n" in statement else statement)


@pytest.mark.parametrize("analyzed", [False, True])
@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("names", ["SEARCH names USING PRIMARY KEY (session=? AND name=?)"]),
        ("latest", ["SEARCH names USING PRIMARY KEY (session=? AND name=?)", FIRING]),
        ("payloads", [FIRING]),
        ("firings_numbered", [FIRING]),
        ("keyed", ["SEARCH firings USING INDEX firings_key (session=? AND trigger=? AND key=?)"]),
        ("unstarted", ["SEARCH instances USING INDEX instances_name (session=? AND task=?)"]),
        ("instance", [f"SEARCH instances USING INDEX instances_name {INSTANCE}"]),
        ("flagged", ["SEARCH instances USING INDEX instances_flagged (session=? AND log_unresolved>?)"]),
        ("waiting", ["SEARCH waiting USING PRIMARY KEY (session=? AND trigger=?)", BY_ID]),
        ("waiting_delete", ["SEARCH waiting USING PRIMARY KEY (session=? AND trigger=? AND instance=?)"]),
        ("timers", ["SEARCH timers USING INDEX timers_order (session=? AND (at,number)>(?,?))"]),
        ("timers_named", ["SEARCH timers USING PRIMARY KEY (session=? AND name=?)"]),
        ("timer_delete", ["SEARCH timers USING PRIMARY KEY (session=? AND name=?)"]),
        (
            "timed_sessions",
            ["SEARCH sessions USING INDEX sessions_timed (manager=? AND next_timer_at>?)"],
        ),
        ("log_level", ["SEARCH logs USING INDEX logs_number (instance=? AND number>?)"]),
        ("purge_check", ["SEARCH logs USING INTEGER PRIMARY KEY (rowid=?)", BY_ID]),
    ],
)
def test_a_list_is_looked_up_by_the_whole_key(storage, name, steps, analyzed):
    """Also in a big session, whether ANALYZE was run in the file or not."""
    if analyzed:
        fill(storage)
        with storage._file.transaction() as run:
            run("ANALYZE")
    again = SqliteStorage(storage._file.url)
    with again._file.reading() as run:
        found = plan(run, SQL[name])
    again.close()
    assert [step for step in found if step.startswith("SEARCH")] == steps


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("due", "instances_due"),
        ("expired", "instances_leased"),
        ("instance", "instances_name"),
        ("keyed", "firings_key"),
        ("flagged", "instances_flagged"),
        ("waiting", "PRIMARY KEY"),
        ("timers", "timers_order"),
        ("timed_sessions", "sessions_timed"),
    ],
)
def test_the_hot_statements_use_their_indexes(storage, name, index):
    """Each of them begins at the index that was made for it, and sorts nothing."""
    with storage._file.reading() as run:
        steps = plan(run, SQL[name])
    assert steps[0].startswith("SEARCH")
    assert index in steps[0]
    assert not [step for step in steps if "TEMP B-TREE" in step]


def test_a_payload_and_a_rule_set_are_stored_once(storage):
    """However many instances see a firing, and however many sessions share their rules."""
    many = {f"t_{n}": {"after": ["page"], "run": "page"} for n in range(20)}
    for uid in ("one", "two", "three"):
        steps = Steps(storage, uid)
        steps.configure(many)
        steps.fire("page", {"marked": "z" * 1_000})
        assert len(steps.instances()) == 20
    with storage._file.reading() as run:
        assert run("SELECT count(*) FROM rule_sets").fetchone() == (1,)
        size = run("SELECT count(*) FROM firings WHERE kwargs LIKE '%zzz%'").fetchone()
        assert size == (3,)
        assert run("SELECT count(*) FROM instances WHERE kwargs IS NOT NULL").fetchone() == (0,)


def test_the_index_keeps_nothing_of_instances_that_no_longer_wait(storage):
    """Once an instance has started or was abandoned, no row says that it lacks anything."""
    steps = Steps(storage)
    steps.configure(SURVEY)
    for trigger in ("first", "embedded", "complete", "page"):
        steps.fire(trigger)
    steps.run("t_subject#0")
    assert set(steps.statuses().values()) == {"finished", "scheduled"}
    with storage._file.reading() as run:
        assert run("SELECT count(*) FROM waiting").fetchone() == (0,)
