"""Who reviewed what a task said, what that changes, and what a task hears of a storage in trouble: nothing."""

from __future__ import annotations

import asyncio
import logging
import threading
from datetime import timedelta
from typing import ClassVar

import pytest

from triggers import FinalizingTriggerManager, Registry, TriggerManager, Triggers
from triggers.exceptions import ManagerMismatchError, StorageError, UnknownInstanceError
from triggers.storages.memory import MemoryStorage
from triggers.storages.sqlite import SqliteStorage
from triggers.task import task
from triggers.testing import TriggersHarness

DAY = timedelta(days=1)
RULES = {"t_say": {"andEvery": "go", "run": "say"}}


class Reviewed(FinalizingTriggerManager):
    name = "tests.reviewed"
    finalize_max_level = logging.WARNING
    told: ClassVar = []

    def _post_resolve_logs(self, instance):
        stored = self.storage[instance.name]
        self.told.append((instance.name, stored.unresolved_log_level, self.storage.finalized))


@pytest.fixture(autouse=True)
def told(monkeypatch):
    """What the hook was told, and what was stored by then: (instance, level that is left, whether finalised)."""
    found = []
    monkeypatch.setattr(Reviewed, "told", found)
    return found


@pytest.fixture
def tasks():
    """One task, that says what it is given: a list of (level, message), and then does as it is told."""
    registry = Registry()

    @task(name="say", registry=registry)
    def say(context):
        given = context.trigger_kwargs["go"]
        with context.get_logger_context({"n": context.task_instance.number}) as logger:
            for level, text in given.get("say", ()):
                logger.log(level, "Missing %s", text, context={"text": text})
        if given.get("fail"):
            raise ValueError("failed")
        return {}

    return registry


@pytest.fixture(params=["memory", "sqlite"])
def harness(request, tasks, tmp_path):
    def storage(clock):
        if request.param == "memory":
            return MemoryStorage(clock=clock)
        return SqliteStorage(f"sqlite:///{tmp_path}/s.db?synchronous=normal", clock=clock)

    with TriggersHarness(registry=tasks, storage=storage, manager=Reviewed) as harness:
        yield harness


@pytest.fixture
def session(harness):
    manager = harness.session("s")
    manager.update_configuration(
        {**RULES, "t_last": {"after": ["last"], "run": "triggers.testing.PassThrough"}}
    )
    return manager


def said(manager, *levels, **more):
    """Fire, so that an instance says something at each of these levels; returns the instance's name."""
    fired = manager.fire("go", {"say": [[level, f"{level}"] for level in levels], **more})
    return fired.created[0]


def open_numbers(manager, name):
    return [record.number for record in manager.storage.logs(name, unresolved=True)]


# -- what is kept of a review -----------------------------------------------------------------------------------


def test_a_review_says_who_when_why_and_of_what(harness, session):
    """Each is kept in order, reopenings too, with the level that asked for it."""
    name = said(session, 30, 40, 20)
    times = []
    for review in (
        lambda: session.mark_instance_logs_resolved(name, by="ada", reason="a joke", records=[2]),
        lambda: session.mark_instance_logs_resolved(session.storage[name], by="bob", through=1),
        lambda: session.reopen_instance_logs(name, by="eve", reason="no joke"),
        lambda: session.mark_instance_logs_resolved(name),
    ):
        times.append(harness.clock.time)
        review()
        harness.clock.advance(DAY)
    assert session.storage[name].log_reviews == [
        {"outcome": "resolved", "by": "ada", "reason": "a joke", "records": [2], "at": times[0], "level": 40},
        {"outcome": "resolved", "by": "bob", "reason": None, "through": 1, "at": times[1], "level": 30},
        {"outcome": "reopened", "by": "eve", "reason": "no joke", "at": times[2], "level": 0},
        {"outcome": "resolved", "by": None, "reason": None, "through": 3, "at": times[3], "level": 40},
    ]
    assert session.storage[name].log_level == logging.ERROR, "what was said stays said"


def test_a_review_says_either_a_mark_or_records(session):
    """Both at once are refused, and so is an instance that does not exist; nothing is kept."""
    name = said(session, 30)
    with pytest.raises(ValueError, match="not both"):
        session.mark_instance_logs_resolved(name, through=1, records=[1])
    with pytest.raises(UnknownInstanceError):
        session.mark_instance_logs_resolved("t_say#7")
    with pytest.raises(UnknownInstanceError):
        session.reopen_instance_logs("t_say#7")
    assert session.storage[name].log_reviews == []


def test_unresolved_instances_are_found_and_let_go(session):
    """One whose records are covered is no longer among them, until it is reopened."""
    first, second, _ = said(session, 30), said(session, 40, 30), said(session, 20)

    def unresolved(level=logging.WARNING):
        return [each.name for each in session.storage.get_instances_with_unresolved_logs(level)]

    assert unresolved() == [first, second]
    assert unresolved(logging.ERROR) == [second]
    session.mark_instance_logs_resolved(second, records=[1])
    assert (unresolved(), unresolved(logging.ERROR)) == ([first, second], [])
    session.mark_instance_logs_resolved(first)
    assert unresolved() == [second]
    session.reopen_instance_logs(first)
    assert unresolved() == [first, second]


# -- the hook, and the end of the session -----------------------------------------------------------------------


def test_the_hook_hears_of_what_is_stored(session, told):
    """After each review and each reopening, once, when all of it can be read."""
    session.fire("last")
    name = said(session, 30, 40)
    session.mark_instance_logs_resolved(name, records=[2])
    session.mark_instance_logs_resolved(name)
    session.reopen_instance_logs(name)
    assert told == [(name, 30, False), (name, 0, True), (name, 40, True)]


def test_a_hook_that_raises_comes_after_the_review(tasks):
    """The exception is the hook's; the review stands."""

    class Raising(TriggerManager):
        def _post_resolve_logs(self, instance):
            raise LookupError(instance.name)

    with TriggersHarness(registry=tasks, manager=Raising) as harness:
        session = harness.session("s")
        session.update_configuration(RULES)
        name = said(session, 30)
        with pytest.raises(LookupError, match=name):
            session.mark_instance_logs_resolved(name)
        assert session.storage[name].logs_resolved


@pytest.mark.parametrize("review", ["all", "through", "records", "kind"])
def test_the_last_review_finalises_the_session(harness, session, review):
    """In the commit of the review, whichever way it is given; and once."""
    session.fire("last")
    name = said(session, 30)
    harness.check("s").assert_not_finalized()
    kind = session.storage.logs(name)[0].fingerprint
    {
        "all": lambda: session.mark_instance_logs_resolved(name),
        "through": lambda: session.mark_instance_logs_resolved(name, through=1),
        "records": lambda: session.mark_instance_logs_resolved(name, records=[1]),
        "kind": lambda: session.mark_logs_resolved(kind),
    }[review]()
    harness.check("s").assert_finalized()
    number = session.storage.head.finalized
    session.reopen_instance_logs(name)
    session.mark_instance_logs_resolved(name)
    assert session.storage.head.finalized == number


def test_a_review_in_part_holds_the_session_open(harness, session):
    """As long as one record at WARNING is left, of any instance."""
    session.fire("last")
    first, second = said(session, 30, 40), said(session, 30)
    session.mark_instance_logs_resolved(first, records=[2])
    session.mark_instance_logs_resolved(second)
    harness.check("s").assert_not_finalized()
    session.mark_instance_logs_resolved(first, records=[1])
    harness.check("s").assert_finalized()


def test_what_was_given_up_never_holds_the_session(harness, session):
    """Replayed and skipped instances need no review, and every reader says so; abandoned ones said nothing."""
    session.fire("last")
    replayed, skipped = said(session, 40, fail=True), said(session, 40, fail=True)
    session.replay_failed_instance(replayed, {"go": {}})
    harness.check("s").assert_not_finalized()
    session.skip_failed_instance(skipped)
    harness.check("s").assert_finalized()
    settled = [session.storage[name] for name in (replayed, skipped)]
    assert [each.logs_resolved for each in settled] == [True, True]
    assert [each.unresolved_log_level for each in settled] == [0, 0]
    assert [each.log_level for each in settled] == [40, 40]
    assert session.storage.get_instances_with_unresolved_logs() == []


# -- kinds of records -------------------------------------------------------------------------------------------


def test_a_kind_is_reviewed_over_a_session(session):
    """Every open record of the kind, of every instance, each instance with its audit; other kinds stay open."""
    first, second = said(session, 30, 40, 30), said(session, 30)
    kind = session.storage.logs(first)[0].fingerprint
    session.mark_instance_logs_resolved(first, by="bob", records=[3])
    assert session.mark_logs_resolved(kind, by="ada", reason="known") == 2
    assert (open_numbers(session, first), open_numbers(session, second)) == ([2], [])
    assert session.storage[first].unresolved_log_level == 40
    assert [(each["by"], each["records"]) for each in session.storage[first].log_reviews] == [
        ("bob", [3]),
        ("ada", [1]),
    ]
    assert session.mark_logs_resolved(kind) == 0
    assert len(session.storage[second].log_reviews) == 1, "a second call finds nothing, and keeps nothing"
    third = said(session, 30)
    assert open_numbers(session, third) == [1], "what comes later asks anew"


def test_a_kind_of_many_records_is_reviewed_page_by_page(session, monkeypatch):
    """However many there are."""
    monkeypatch.setattr("triggers.manager.REVIEWED", 2)
    names = [said(session, 30, 30, 30), said(session, 30, 30)]
    kind = session.storage.logs(names[0])[0].fingerprint
    assert session.mark_logs_resolved(kind) == 5
    assert [session.storage[name].logs_resolved for name in names] == [True, True]


def test_a_kind_is_reviewed_over_many_sessions(tasks, tmp_path):
    """Over all whose manager is here; a session of a manager that is not is left alone."""

    class Foreign(TriggerManager):
        name = "tests.foreign"

    url = f"sqlite:///{tmp_path}/s.db?synchronous=normal"
    for manager, uids in ((Foreign, ("f",)), (TriggerManager, ("a", "b")), (Reviewed, ("c",))):
        with Triggers(url, runner="inline", registry=tasks, manager=manager) as app:
            for uid in uids:
                app.session(uid).update_configuration(RULES)
                said(app.session(uid), 30, 40)
    with Triggers(url, runner=None, managers=[Reviewed]) as app:
        kind = app.session("a").storage.logs(limit=1)[0].fingerprint
        assert app.mark_logs_resolved(kind, by="ada") == 3
        levels = {view.uid: view["t_say#0"].unresolved_log_level for view in app.sessions()}
        assert levels == {"a": 40, "b": 40, "c": 40, "f": 40}
        numbers = {view.uid: open_numbers(app.session(view.uid), "t_say#0") for view in app.sessions()}
        assert numbers == {"a": [2], "b": [2], "c": [2], "f": [1, 2]}
        with pytest.raises(ManagerMismatchError):
            app.existing_session("f")


def test_reviews_can_be_awaited(tasks):
    """Each way to review has a sibling that does the same on a thread."""

    async def application(session):
        await session.amark_instance_logs_resolved("t_say#0", by="ada", records=[1])
        await session.areopen_instance_logs("t_say#0", by="bob", reason="why?")
        kind = session.storage.logs()[0].fingerprint
        return await session.amark_logs_resolved(kind, by="eve")

    with TriggersHarness(registry=tasks) as harness:
        session = harness.session("s")
        session.update_configuration(RULES)
        said(session, 30)
        assert asyncio.run(application(session)) == 1
        assert [each["by"] for each in session.storage["t_say#0"].log_reviews] == ["ada", "bob", "eve"]


# -- purging ----------------------------------------------------------------------------------------------------


def test_old_records_are_purged_from_every_session(harness, session):
    """Those that ask for a review stay, the levels and counts of instances too; counting first changes nothing."""
    name = said(session, 20, 30, 20)
    other = harness.session("other")
    other.update_configuration(RULES)
    said(other, 30, 20)
    other.mark_instance_logs_resolved("t_say#0")
    harness.clock.advance(DAY)
    said(session, 20)
    purge = harness.triggers.purge_logs
    assert purge(2 * DAY) == 0
    assert purge(DAY / 2, dry_run=True) == 4
    assert purge(DAY / 2, max_level=logging.INFO, dry_run=True) == 3
    assert purge(DAY / 2, contexts_only=True) == 4
    assert [dict(each.context) for each in session.storage.logs(name)] == [{}, {"n": 0, "text": "30"}, {}]
    assert purge(DAY / 2) == 4
    assert [each.level for each in session.storage.logs()] == [30, 20]
    assert other.storage.logs() == []
    assert (other.storage["t_say#0"].log_level, other.storage["t_say#0"].log_counts) == (30, {30: 1, 20: 1})


def test_a_purge_heeds_the_strictest_manager(tasks, tmp_path):
    """What asks for a review by the rules of any manager that is here stays."""

    class Strict(TriggerManager):
        name = "tests.strict"
        review_level = logging.INFO

    with TriggersHarness(registry=tasks, managers=[Strict]) as harness:
        strict = Strict("strict", harness.session("s")._services)
        strict.update_configuration(RULES)
        name = said(strict, 20, 40)
        harness.clock.advance(DAY)
        assert harness.triggers.purge_logs(DAY / 2) == 0
        strict.mark_instance_logs_resolved(name, records=[1])
        assert harness.triggers.purge_logs(DAY / 2) == 1


def test_a_long_purge_goes_on_from_batch_to_batch(harness, session):
    """More records than one transaction takes are all counted and all go."""
    for _ in range(6):
        said(session, *[20] * 100)
    harness.clock.advance(DAY)
    assert harness.triggers.purge_logs(DAY / 2, dry_run=True) == 600
    told = []
    assert harness.triggers.purge_logs(DAY / 2, progress=told.append) == 600
    assert session.storage.logs() == []
    assert told == sorted(told)
    assert (len(told) > 1, told[-1]) == (True, 600)


# -- a storage in trouble while a task logs ---------------------------------------------------------------------


def shown(view, name):
    instance = view[name]
    return instance.status, dict(instance.log_counts), [record.message for record in view.logs(name)]


def test_a_locked_storage_holds_a_logging_task_up_only_for_a_while(tmp_path):
    """The calls return while another connection still holds the file; nothing is lost, and nothing is raised."""
    url = f"sqlite:///{tmp_path}/s.db?synchronous=normal"
    registry = Registry()
    locked, go_on, done = (threading.Event() for _ in range(3))
    held = []

    def hold():
        other = SqliteStorage(url)
        with other._file.transaction():
            locked.set()
            go_on.wait(60)
        done.set()
        other.close()

    @task(name="say", registry=registry)
    def say(context):
        with context.get_logger_context() as logger:
            logger.info("before")
            holder = threading.Thread(target=hold)
            holder.start()
            locked.wait(60)
            logger.warning("locked")
            logger.error("still locked")
            held.append(not done.is_set())
            go_on.set()
            holder.join()

    with Triggers(url, runner="inline", registry=registry) as app:
        app.session("s").update_configuration(RULES)
        app.session("s").fire("go")
        assert held == [True]
        assert shown(app.session("s").storage, "t_say#0") == (
            "finished",
            {20: 1, 30: 1, 40: 1},
            ["before", "locked", "still locked"],
        )


@pytest.mark.parametrize("level", [logging.INFO, logging.WARNING, logging.CRITICAL])
def test_a_storage_that_became_read_only_never_reaches_the_task(tmp_path, level):
    """What could not be written waits, and is stored with the end, once the storage can be written again."""
    registry = Registry()

    @task(name="say", registry=registry)
    def say(context):
        with context.get_logger_context() as logger:
            writable(no=True)
            for n in range(200):
                logger.log(level, "%d", n)
            writable(no=False)

    def writable(*, no):
        with storage._file.reading() as run:
            run(f"PRAGMA query_only = {no:d}")

    storage = SqliteStorage(f"sqlite:///{tmp_path}/s.db?synchronous=normal")
    with Triggers(storage, runner="inline", registry=registry) as app:
        app.session("s").update_configuration(RULES)
        app.session("s").fire("go")
        view = app.session("s").storage
        assert (view["t_say#0"].status, view["t_say#0"].log_counts) == ("finished", {level: 200})
        assert [record.message for record in view.logs(limit=1000)] == [str(n) for n in range(200)]


class Away(MemoryStorage):
    """A storage that can be away."""

    away = False
    tries = 0

    def commit(self, uid, decision, timeout=None):
        if self.away:
            self.tries += 1
            raise StorageError("the storage is away")
        return super().commit(uid, decision, timeout)


def test_a_storage_that_is_away_is_asked_now_and_then(tasks):
    """Not for each record; when it is back all of them are there, in their order, and the counts are right."""
    registry = Registry()

    @task(name="say", registry=registry)
    def say(context):
        with context.get_logger_context() as logger:
            logger.warning("before")
            storage.away = True
            for n in range(300):
                logger.warning("%d", n)
            storage.away = False

    def opened(clock):
        made.append(Away(clock=clock))
        return made[0]

    made = []
    with TriggersHarness(registry=registry, storage=opened, strict_logs=False) as harness:
        (storage,) = made
        harness.session("s").update_configuration(RULES)
        harness.session("s").fire("go")
        instance = harness.check("s").assert_instance_finished("t_say#0")
        assert instance.log_counts == {30: 301}
        records = harness.session("s").storage.logs(limit=1000)
        assert [record.message for record in records] == ["before", *map(str, range(300))]
        assert [record.entry.seq for record in records] == list(range(1, 302))
        assert 0 < storage.tries < 10
