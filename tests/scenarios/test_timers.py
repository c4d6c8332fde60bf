"""Timers of an application: set through the manager, and elapsed by its sweeps, on every storage."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from tests.crash.world import wait_for
from triggers import Registry, TriggerManager, Triggers
from triggers.core import decisions
from triggers.exceptions import (
    InvalidNameError,
    InvalidValueError,
    StorageCorruptError,
    StorageError,
    UnknownSessionError,
)
from triggers.storages.memory import MemoryStorage
from triggers.storages.sqlite.storage import SqliteStorage
from triggers.storages.sqlite.url import load_driver
from triggers.task import task
from triggers.testing.clock import VirtualClock

DRIVER = load_driver("auto")
SOON = timedelta(milliseconds=100)
RULES = {"t_due": {"andEvery": "due", "run": "note"}}


def moment_of(micros):
    """A stored time as a datetime."""
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=micros)


@pytest.fixture
def ran():
    return []


@pytest.fixture
def tasks(ran):
    found = Registry()

    @task(name="note", registry=found)
    def note(context):
        ran.append(dict(context.trigger_kwargs))

    return found


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def app(tasks, clock):
    with Triggers(MemoryStorage(clock=clock), runner="inline", registry=tasks) as app:
        yield app


def test_the_sweep_wakes_for_a_timer(any_url, tasks, ran):
    """It does not wait for its next turn, which is an hour away, and the instance runs once."""
    with Triggers(any_url, registry=tasks, sweep_interval=timedelta(hours=1)) as app:
        session = app.session("s")
        session.update_configuration(RULES)
        name = session.fire_later("due", {"n": 1}, after=SOON)
        assert [timer.name for timer in session.timers()] == [name]
        assert app.join(60, timers=True)
        assert ran == [{"due": {"n": 1}}]
        assert list(session.timers()) == []
        assert not session.cancel_timer(name)


def test_a_timer_of_another_process_elapses_in_the_worker(any_url, tasks, ran):
    """What a process without a runner sets, a worker lets elapse in time."""
    if any_url == "memory://":
        pytest.skip("memory is not shared by processes")
    with Triggers(any_url, registry=tasks, sweep_interval=timedelta(seconds=30)):
        web = Triggers(any_url, runner=None, registry=tasks)
        session = web.session("s")
        session.update_configuration(RULES)
        session.fire_later("due", {"n": 2}, after=SOON)
        wait_for("its run", lambda: ran == [{"due": {"n": 2}}])
        web.close()


def test_a_timer_outlives_its_process(tmp_path, tasks, ran):
    """A week without any process changes only when the task starts."""
    url, clock = f"sqlite:///{tmp_path / 'file.db'}", datetime.now(UTC)
    with Triggers(url, runner=None, registry=tasks) as app:
        app.session("s").update_configuration(RULES)
        app.session("s").fire_later("due", at=clock - timedelta(days=7))
    with Triggers(url, registry=tasks) as app:
        assert app.join(60)
        wait_for("its run", lambda: len(ran) == 1)
        assert [instance.status for instance in app.session("s").storage] == ["finished"]


def test_a_timer_in_the_past_is_due_at_once(any_url, tasks, ran):
    """However long ago it is."""
    with Triggers(any_url, registry=tasks) as app:
        session = app.session("s")
        session.update_configuration(RULES)
        session.fire_later("due", at=datetime(1912, 6, 23, tzinfo=UTC))
        assert app.join(60, timers=True)
        assert len(ran) == 1


@pytest.mark.parametrize("happens", ["it elapses", "one is set"])
def test_joining_overlooks_no_timer(tasks, clock, happens):
    """Neither one that elapses while the instances are counted, nor one that is set then."""

    class Meanwhile(MemoryStorage):
        def backlog(self):
            found = super().backlog()
            if happens == "it elapses":
                self.commit("s", decisions.elapse(app._policy_of))
            else:
                app.session("s").fire_later("due", after=3600, name="a")
            return found

    storage = Meanwhile(clock=clock)
    app = Triggers(storage, runner=None, registry=tasks)
    session = app.session("s")
    session.update_configuration(RULES)
    if happens == "it elapses":
        session.fire_later("due", after=10)
        clock.advance(timedelta(minutes=1))
    assert app.join(0, timers=True) is False
    app.close()


def test_what_a_timer_shows(app):
    """Its time, what it does, and its key."""
    session = app.session("s")
    session.update_configuration({"t_r": {"after": ["a"], "delay": "PT1H", "run": "note"}})
    moment = datetime(2040, 1, 31, 12, 30, 0, 5, tzinfo=UTC)
    session.fire_later("due", {"n": 1}, at=moment, name="mine", key="k")
    session.fire("a")
    delay, mine = session.timers()
    assert (mine.name, mine.at, mine.kind, mine.trigger) == ("mine", moment, "fires", "due")
    assert (mine.kwargs, mine.key, mine.instance, mine.problem) == ({"n": 1}, "k", None, "")
    assert (delay.name, delay.kind, delay.trigger, delay.instance) == (None, "delay", None, "t_r#0")
    assert delay.at - moment_of(app.storage.reader.firings("s")[0].at) == timedelta(hours=1)


@pytest.mark.parametrize(
    "after", [timedelta(seconds=90), 90, 90.0, "PT1M30S"], ids=["timedelta", "int", "float", "iso"]
)
def test_forms_of_a_duration(app, clock, after):
    """A timedelta, seconds, or ISO 8601."""
    session = app.session("s")
    session.fire_later("due", after=after)
    [timer] = session.timers()
    assert timer.at == moment_of(clock()) + timedelta(seconds=90)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({}, TypeError, "either after= or at="),
        ({"after": 1, "at": datetime.now(UTC)}, TypeError, "either after= or at="),
        ({"after": 0}, InvalidValueError, "longer than zero"),
        ({"after": True}, InvalidValueError, "ISO 8601"),
        ({"after": "P1Y"}, InvalidValueError, "ISO 8601"),
        ({"after": float("inf")}, InvalidValueError, "ISO 8601"),
        ({"after": float("nan")}, InvalidValueError, "ISO 8601"),
        ({"after": timedelta(days=99_999)}, InvalidValueError, "100 years"),
        ({"at": datetime(2030, 1, 1)}, InvalidValueError, "aware datetime"),  # noqa: DTZ001 - this is the test
        ({"at": "tomorrow"}, InvalidValueError, "aware datetime"),
        ({"after": 1, "name": "a\x1fb"}, InvalidNameError, "name of a timer"),
        ({"after": 1, "key": ""}, InvalidNameError, "key"),
        ({"after": 1, "trigger_kwargs": {"a": object()}}, InvalidValueError, "kwargs"),
    ],
)
def test_everything_is_checked_when_a_timer_is_set(app, given, error, message):
    """The error says what is wrong, and nothing is stored."""
    session = app.session("s")
    with pytest.raises(error, match=message):
        session.fire_later("due", **given)
    assert app.storage.reader.session("s") is None


def test_canceling_in_a_session_that_does_not_exist(app):
    """It is an error, as for everything else about such a session."""
    with pytest.raises(UnknownSessionError):
        app.session("nobody").cancel_timer("x")


def test_hooks_of_elapsed_timers_follow_the_call(tasks, clock):
    """First the call is stored; then the hooks are called, those of the timers first. They may raise."""
    seen = []

    class Noting(TriggerManager):
        name = "noting"

        def _post_fire(self, trigger_name, tasks_scheduled):
            seen.append((trigger_name, [one.name for one in tasks_scheduled], storage.session("s").firings))
            if trigger_name == "due":
                raise ZeroDivisionError

    storage = MemoryStorage(clock=clock)
    with Triggers(storage, manager=Noting, runner=None, registry=tasks) as app:
        session = app.session("s")
        session.update_configuration(RULES)
        session.fire_later("due", after=10)
        clock.advance(timedelta(seconds=60))
        session.fire("own")
    assert seen == [("due", ["t_due#0"], 2), ("own", [], 2)]


@pytest.fixture
def joinable(tmp_path, tasks, clock):
    """A session in a file with a virtual clock, and a connection of the application."""
    path = tmp_path / "file.db"
    app = Triggers(SqliteStorage(f"sqlite:///{path}", clock=clock), runner=None, registry=tasks)
    session = app.session("s")
    session.update_configuration(RULES)
    connection = DRIVER.connect(path, isolation_level=None)
    yield session, connection
    connection.close()
    app.close()


def test_a_joined_transaction_lets_timers_elapse_in_it(joinable, clock):
    """They are part of it, and are rolled back with it."""
    session, connection = joinable
    for number in range(decisions.AT_ONCE):
        session.fire_later("due", after=60, name=str(number))
    clock.advance(timedelta(hours=1))
    connection.execute("BEGIN IMMEDIATE")
    with session.joined(connection):
        session.fire("own")
        assert list(session.timers()) == []
    connection.execute("ROLLBACK")
    assert len(list(session.timers())) == decisions.AT_ONCE


def test_too_many_timers_for_a_joined_transaction(joinable, clock):
    """The error says what to do. Nothing of the call has changed."""
    session, connection = joinable
    for number in range(decisions.AT_ONCE + 1):
        session.fire_later("due", after=60, name=str(number))
    clock.advance(timedelta(hours=1))
    connection.execute("BEGIN IMMEDIATE")
    with session.joined(connection):
        with pytest.raises(StorageError, match="triggers sweep"):
            session.fire("own")
        assert len(list(session.timers())) == decisions.AT_ONCE + 1
    connection.execute("COMMIT")
    assert session.fire("own").number == decisions.AT_ONCE + 2


def test_timers_of_foreign_and_broken_sessions_do_not_stop_the_others(tasks, clock, ran, caplog):
    """A sweep asks for sessions of its own managers. One that cannot elapse is reported, and tried later."""

    class Broken(MemoryStorage):
        def commit(self, uid, decision, timeout=None):
            if uid == "broken" and decision.name == "elapse":
                raise StorageCorruptError("out of order")
            return super().commit(uid, decision, timeout)

    storage = Broken(clock=clock)

    class Other(TriggerManager):
        name = "other"

    with Triggers(storage, manager=Other, runner="inline", registry=tasks) as others:
        for number in range(60):
            others.session(f"foreign{number}").fire_later("due", after=1)
    with Triggers(storage, runner="inline", registry=tasks) as app:
        app.session("broken").fire_later("due", after=1)
        session = app.session("good")
        session.update_configuration(RULES)
        session.fire_later("due", after=5)
        clock.advance(timedelta(minutes=1))
        app.sweep()
        assert len(ran) == 1
        assert [problem.place for problem in app.health().problems] == ["timers of session 'broken'"]
    assert all(storage.session(f"foreign{number}").firings == 0 for number in range(60))


def test_async_methods(app):
    """They do the same on a thread."""

    async def use():
        session = app.session("s")
        name = await session.afire_later("due", {"n": 1}, after=60)
        return await session.acancel_timer(name), await session.acancel_timer(name)

    assert asyncio.run(use()) == (True, False)


def test_a_timer_inside_of_a_task_has_its_source(app, tasks, clock):
    """A short one carries on its depth, so that no loop of them is endless; a longer one begins anew."""

    @task(name="set", registry=tasks)
    def setting(context):
        manager = context.manager
        manager.fire_later("short", after=0.5, name="short")
        manager.fire_later("long", after=2, name="long")

    session = app.session("s")
    session.update_configuration({"t_set": {"after": ["go"], "run": "set"}})
    session.fire("go")
    clock.advance(timedelta(seconds=10))
    app.sweep()
    depths = {firing.trigger: (firing.depth, firing.source) for firing in app.storage.reader.firings("s")}
    assert depths["short"] == (1, "t_set#0")
    assert depths["long"] == (0, "t_set#0")


def test_timers_that_elapse_when_a_task_fires_are_not_its_own(app, tasks, clock):
    """They begin a chain of firings of their own, whoever happens to call."""

    @task(name="late", registry=tasks)
    def late(context):
        clock.advance(timedelta(minutes=1))
        context.manager.fire("own")

    session = app.session("s")
    session.update_configuration({**RULES, "t_late": {"after": ["go"], "run": "late"}})
    session.fire_later("due", after=30)
    session.fire("go")
    assert [(firing.trigger, firing.depth) for firing in app.storage.reader.firings("s")][:3] == [
        ("go", 0),
        ("due", 0),
        ("own", 1),
    ]
    assert app.storage.reader.instance("s", "t_due", 0).cascade_depth == 0
