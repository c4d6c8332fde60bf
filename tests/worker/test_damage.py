"""One row, rule set or plugin that cannot be read: it is skipped, shown and tried again, and the rest goes on."""

from __future__ import annotations

import importlib.metadata
import logging
import time
from datetime import timedelta

import psycopg
import pytest
import redis

from tests.crash.world import wait_for
from triggers import Registry, TriggerManager, Triggers, health, plugins
from triggers.runners.threads import ThreadsRunner
from triggers.storages.sqlite.url import load_driver
from triggers.task import task

GOOD = [f"good-{number}" for number in range(5)]
UIDS = ["bad", *GOOD]
#: Two libraries of SQLite in one process would take each other's locks away.
DRIVER = load_driver("auto")

QUICK = {
    "lease": timedelta(milliseconds=300),
    "grace": timedelta(milliseconds=50),
    "sweep_interval": timedelta(milliseconds=50),
}


@pytest.fixture
def tasks():
    found = Registry()
    task(name="plain", registry=found)(lambda context: None)
    return found


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """What failed is tried again soon."""
    monkeypatch.setattr(health, "FIRST_PAUSE", 0.05)
    monkeypatch.setattr(health, "LONGEST_PAUSE", 0.2)


def filled_in(statement, schema):
    """The statement for the bad session, in that schema."""
    bad = f"FROM {schema}sessions WHERE uid = 'bad'"
    of_bad, rules_of_bad = f"WHERE session = (SELECT id {bad})", f"WHERE id = (SELECT rules {bad})"
    return statement.format(schema=schema, of_bad=of_bad, rules_of_bad=rules_of_bad)


def sqlite(path, statement):
    with DRIVER.connect(path) as connection:
        connection.execute("PRAGMA foreign_keys = off")
        assert connection.execute(filled_in(statement, "")).rowcount == 1


def postgres(url, statement):
    url, _, schema = url.partition("&schema=")
    with psycopg.connect(url) as connection:
        assert connection.execute(filled_in(statement, f"{schema}.")).rowcount == 1


#: What is done to the row of the bad session, or of its instance; {schema} is where the tables are.
ROWS = {
    "an instance": "UPDATE {schema}instances SET taken = '{{' {of_bad}",
    "what an instance has logged": "UPDATE {schema}instances SET log_counts = '[1' {of_bad}",
    "a rule set": "UPDATE {schema}rule_sets SET body = '{{' {rules_of_bad}",
    "a rule set of another kind": "UPDATE {schema}rule_sets SET body = '[7]' {rules_of_bad}",
}
ONLY_SQLITE = {
    "a rule set that is not there": "UPDATE sessions SET rules = 4711 WHERE uid = 'bad'",
    "a count of hand-overs": "UPDATE instances SET handovers = 'x', taken = '7' {of_bad}",
}


def keys_of(url):
    """Keys of the bad session, and of its partition, by kind."""
    app = Triggers(url, runner=None)
    world, session = app.storage._store.keys_of("bad")
    app.close()
    return {
        "s": session.s,
        **{kind: getattr(world, kind) for kind in ("out", "lease", "cool", "timed", "rules")},
    }


def in_hash(field, value):
    def damage(server, keys):
        (name,) = [name for name in server.hkeys(keys["s"]) if name.startswith(field)]
        server.hset(keys["s"], name, value)

    return damage


def replaced(kind):
    def damage(server, keys):
        server.delete(keys[kind])
        server.set(keys[kind], "of another type")

    return damage


def rules(server, keys):
    digest = server.hget(keys["s"], "r")
    server.hset(keys["rules"], digest, "{")


KEYS = {
    "the state of an instance": in_hash(b"H", "garbage"),
    "the rest of an instance": in_hash(b"B", "{"),
    "a rule set": rules,
    "a session of another type": replaced("s"),
    "the index of what is due": replaced("out"),
    "the index of leases": replaced("lease"),
    "the index of cooldowns": replaced("cool"),
    "the index of timers": replaced("timed"),
}

#: What is done to a timer, or to what finds it, and what the problem says.
TIMERS = {
    "a timer": (in_hash(b"T", "garbage"), "key {s}: the timer in the field 'Tt'"),
    "a session": (replaced("s"), "session 'bad' is missing or cannot be read"),
    "the index of timers": (replaced("timed"), "key {timed} is a string and must be a zset"),
}

CASES = [
    *((("sqlite", statement), name) for name, statement in {**ROWS, **ONLY_SQLITE}.items()),
    *((("postgres", statement), name) for name, statement in ROWS.items()),
    *((("valkey", act), name) for name, act in KEYS.items()),
]


@pytest.fixture(params=[case for case, _ in CASES], ids=[f"{case[0]}: {name}" for case, name in CASES])
def place(request, tmp_path):
    """The URL of a storage, and what damages it."""
    kind, how = request.param
    if kind == "sqlite":
        path = tmp_path / "file.db"
        return f"sqlite:///{path}", lambda: sqlite(path, how)
    url = request.getfixturevalue(f"{kind}_url")
    if kind == "postgres":
        return url, lambda: postgres(url, how)

    def damage():
        with redis.Redis.from_url(url) as server:
            how(server, keys_of(url))

    return url, damage


def uids_apart(url):
    """The bad session and good ones, on Redis in other partitions than the bad one."""
    if not url.startswith("redis"):
        return UIDS
    app = Triggers(url, runner=None)
    tag = app.storage._store.keys_of("bad")[0].tag
    good = [f"good-{n}" for n in range(50) if app.storage._store.keys_of(f"good-{n}")[0].tag != tag]
    app.close()
    return ["bad", *good[:5]]


@pytest.mark.parametrize("was", ["scheduled", "running"])
def test_what_cannot_be_read_stops_nobody_else(place, tasks, caplog, was):
    """The others are rescued and run; it is reported once, with its place, and tried again and again."""
    url, damage = place
    uids = uids_apart(url)
    before = Triggers(url, runner=None, registry=tasks, **QUICK)
    for uid in uids:
        session = before.session(uid)
        session.update_configuration({"t": {"after": ["go"], "run": "plain", "note": uid}})
        session.fire("go")
        if was == "running":
            before._executor._claim(uid, "t", 0)
    before.close()
    if was == "running":
        time.sleep(0.4)
    damage()
    with Triggers(url, runner=ThreadsRunner(2), registry=tasks, **QUICK) as app:
        for uid in uids[1:]:
            view = app.session(uid).storage
            wait_for(f"the end of {uid}", lambda view=view: view["t#0"].status == "finished")
        if app.health().problems:  # an index that nothing is looked for in is not missed
            if not app.health().problems[0].place.startswith("partition"):  # it is looked at when it must be
                wait_for("another try", lambda: any(one.count > 1 for one in app.health().problems))
            shown = app.health().problems
            assert {one.kind for one in shown} == {"unreadable"}, shown
            assert any(word in shown[0].place for word in ("'bad'", "rule set", "partition", "sessions"))
            assert app.health().unreadable == shown
    said = [
        record.getMessage().partition(": ")[0]
        for record in caplog.records
        if record.levelno >= logging.WARNING
    ]
    said = [place for place in said if not place.startswith("session 'good")]
    assert len(said) == len(set(said))


@pytest.mark.parametrize(("damage", "said"), TIMERS.values(), ids=TIMERS)
def test_a_timer_that_cannot_be_read_stops_nobody_else(valkey_url, tasks, damage, said):
    """The timers of other sessions elapse. The problem is shown, and says where it is."""
    app = Triggers(valkey_url, runner=None, registry=tasks)
    uids = uids_apart(valkey_url)
    for uid in uids:
        app.session(uid).fire_later("due", after=0.001, name="t")
    keys = keys_of(valkey_url)
    with redis.Redis.from_url(valkey_url) as server:
        damage(server, keys)
    wait_for("the timers", lambda: app.sweep() and all(elapsed(app, uid) for uid in uids[1:]))
    (problem,) = app.health().problems
    for kind, key in keys.items():
        said = said.replace(f"{{{kind}}}", key.decode())
    assert said in problem.error
    app.close()


def elapsed(app, uid):
    return [firing.trigger for firing in app.storage.reader.firings(uid)] == ["due"]


def test_more_damaged_rows_than_a_batch_hide_nobody(tmp_path, tasks, monkeypatch):
    """Those that cannot be read do not count towards what a sweep looks at: the others come behind them."""
    monkeypatch.setattr("triggers.worker.sweep.BATCH", 3)
    path = tmp_path / "file.db"
    app = Triggers(f"sqlite:///{path}", runner=None, registry=tasks, **QUICK)
    for number in range(20):
        session = app.session(f"s-{number:02}")
        session.update_configuration({"t": {"after": ["go"], "run": "plain"}})
        session.fire("go")
        app._executor._claim(session.uid, "t", 0)
    time.sleep(0.4)
    with DRIVER.connect(path) as connection:
        connection.execute("UPDATE instances SET taken = '{' WHERE session <= 15")
    assert app.sweep().recovered == 5
    assert len(app.health().unreadable) == 15
    assert app.sweep().recovered == 0


def test_what_was_repaired_is_no_problem_any_more(tmp_path, tasks):
    """A row that can be read again is run, and health forgets it."""
    path = tmp_path / "file.db"
    with Triggers(f"sqlite:///{path}", runner=None, registry=tasks, **QUICK) as app:
        session = app.session("bad")
        session.update_configuration({"t": {"after": ["go"], "run": "plain"}})
        session.fire("go")
    sqlite(path, "UPDATE instances SET log_counts = '[1' {of_bad}")
    with Triggers(f"sqlite:///{path}", runner=ThreadsRunner(1), registry=tasks, **QUICK) as app:
        wait_for("the problem", lambda: app.health().unreadable)
        assert app.health().problems[0].place == "session 'bad', instance t#0"
        sqlite(path, "UPDATE instances SET log_counts = '{{}}' {of_bad}")
        wait_for("the end", lambda: app.session("bad").storage["t#0"].status == "finished")
        wait_for("its health", lambda: app.health().is_ok)


class _Entry:
    def __init__(self, group, name, error):
        self.group, self.name, self.error = group, name, error
        self.value = f"{name}:Plugin"

    def load(self):
        raise self.error


@pytest.mark.parametrize("error", [RuntimeError("broken"), SyntaxError("broken"), SystemExit(3)])
def test_a_manager_whose_import_raises_stops_nobody_else(tmp_path, tasks, monkeypatch, caplog, error):
    """Its sessions are rescued all the same, and left to processes that have it; all others run."""

    class Strange(TriggerManager):
        name = "strange"

    url = f"sqlite:///{tmp_path / 'file.db'}"
    before = Triggers(url, runner=None, registry=tasks, managers=[Strange], manager=Strange, **QUICK)
    usual = Triggers(url, runner=None, registry=tasks, **QUICK)
    for app, uid in ((before, "bad"), (usual, "good")):
        session = app.session(uid)
        session.update_configuration({"t": {"after": ["go"], "run": "plain"}})
        session.fire("go")
        app._executor._claim(uid, "t", 0)
    time.sleep(0.4)
    entry = _Entry(plugins.MANAGERS, "strange", error)
    real = importlib.metadata.entry_points
    monkeypatch.setattr(
        importlib.metadata,
        "entry_points",
        lambda group: [*real(group=group), *[entry] * (group == entry.group)],
    )
    plugins.names.cache_clear()
    with Triggers(url, runner=ThreadsRunner(1), registry=tasks, plugins=["strange"], **QUICK) as app:
        wait_for("the good one", lambda: usual.session("good").storage["t#0"].status == "finished")
        wait_for("the rescue", lambda: before.session("bad").storage["t#0"].status == "scheduled")
        wait_for("another try", lambda: any(one.count > 1 for one in app.health().problems))
        (problem,) = app.health().problems
        assert (problem.kind, problem.place) == ("plugin", "manager 'strange'")
    plugins.names.cache_clear()
    assert sum("manager 'strange'" in record.getMessage() for record in caplog.records) == 1


def test_a_runner_that_cannot_be_loaded_stops_nobody_else(tasks, monkeypatch, caplog):
    """What wants it stays scheduled, and that is said once; what other runners run goes on."""
    entry = _Entry(plugins.RUNNERS, "strange", RuntimeError("broken"))
    real = importlib.metadata.entry_points
    monkeypatch.setattr(
        importlib.metadata,
        "entry_points",
        lambda group: [*real(group=group), *[entry] * (group == entry.group)],
    )
    plugins.names.cache_clear()
    with Triggers("memory://", runner=ThreadsRunner(1), registry=tasks, plugins=["strange"], **QUICK) as app:
        session = app.session("s")
        session.update_configuration(
            {
                "t_bad": {"after": ["go"], "run": "plain", "using": "strange"},
                "t_good": {"after": ["go"], "run": "plain"},
            }
        )
        session.fire("go")
        wait_for("the good one", lambda: session.storage["t_good#0"].status == "finished")
        wait_for("another try", lambda: any(one.count > 1 for one in app.health().problems))
        assert [one.place for one in app.health().problems] == ["runner 'strange'"]
        assert session.storage["t_bad#0"].status == "scheduled"
    plugins.names.cache_clear()
    assert sum("runner 'strange'" in record.getMessage() for record in caplog.records) == 1
