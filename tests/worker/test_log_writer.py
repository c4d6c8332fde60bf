"""The log writer stores what a running task has logged, whatever happens to its thread, the storage or the process."""

from __future__ import annotations

import contextlib
import logging
import threading
from datetime import timedelta

import pytest

from tests.crash.processes import begin, end
from tests.crash.world import wait_for
from tests.worker.threads import Shortage, named
from triggers import LogSettings, Registry, TriggerManager, Triggers
from triggers.exceptions import StorageError
from triggers.storages.memory import MemoryStorage
from triggers.storages.sqlite import SqliteStorage
from triggers.storages.sqlite.url import load_driver
from triggers.task import task
from triggers.worker import attempt
from triggers.worker.log_writer import THREAD, LogWriter, ManualLogWriter

URLS = {"postgresql": "postgres_url", "valkey": "valkey_url"}


class Hasty(TriggerManager):
    """Records wait for a short time, so that a test does."""

    name = "hasty"
    log_settings = LogSettings(flush_interval=timedelta(milliseconds=10))


class Patient(TriggerManager):
    """Records wait for longer than a test takes."""

    name = "patient"
    log_settings = LogSettings(flush_interval=timedelta(hours=1))


class Conversation:
    """A task that logs what the test tells it to, and runs until the test ends it."""

    def __init__(self):
        self.registry = Registry()
        self._told = threading.Semaphore(0)
        self._said = threading.Semaphore(0)
        self._acts = []
        task(name="talk", registry=self.registry)(self._talk)

    def _talk(self, context):
        with context.get_logger_context(logger=logging.getLogger("tests.talk")) as logger:
            self._said.release()
            while self._told.acquire(timeout=60) and (act := self._acts.pop(0)):
                act(context, logger)
                self._said.release()

    @contextlib.contextmanager
    def application(self, url, manager):
        """An application that has the task; the task ends before it is closed."""
        with Triggers(url, manager=manager, registry=self.registry) as app:
            try:
                yield app
            finally:
                self.end()

    def begin(self, app, uid="s"):
        """Release the task, and wait until it runs; return the view of its session."""
        session = app.session(uid)
        session.update_configuration({"t_talk": {"after": ["go"], "run": "talk"}})
        session.fire("go")
        assert self._said.acquire(timeout=60)
        return session.storage

    def do(self, act):
        """Let the task do something."""
        self._acts.append(act)
        self._told.release()
        assert self._said.acquire(timeout=60)

    def say(self, message, level=logging.INFO):
        """Let the task log a message."""
        self.do(lambda _, logger: logger.log(level, message))

    def end(self):
        """Let the task end."""
        self._acts.append(None)
        self._told.release()


@pytest.fixture
def talk():
    return Conversation()


@pytest.fixture(params=["memory", "sqlite", "postgresql", "valkey"])
def url(request, tmp_path):
    if request.param in URLS:
        return request.getfixturevalue(URLS[request.param])
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/s.db?synchronous=normal"


def messages(view):
    return [record.entry.message for record in view.logs()]


def stored(view, *expected):
    """Wait until exactly these messages are stored; for less time than the task waits for the test."""
    wait_for("their storing", lambda: messages(view) == [*expected], 30)


def writers():
    return [thread for thread in threading.enumerate() if thread.name == LogWriter.name]


def test_what_a_running_task_has_logged_is_stored(url, talk):
    """Its level and its records are there while it runs, in their order, and the end stores the rest, each once."""
    with talk.application(url, Hasty) as app:
        view = talk.begin(app)
        talk.say("one")
        stored(view, "one")
        assert (view["t_talk#0"].status, view["t_talk#0"].current_log_level) == ("running", logging.INFO)
        assert view["t_talk#0"].log_level == logging.NOTSET
        talk.say("two")
        talk.say("three")
        stored(view, "one", "two", "three")
        talk.do(lambda _, logger: logger.info("four"))
        talk.end()
        assert app.join(60)
        assert messages(view) == ["one", "two", "three", "four"]
        assert [record.entry.seq for record in view.logs()] == [1, 2, 3, 4]
        assert view["t_talk#0"].log_counts == {logging.INFO: 4}
        assert not any(record.entry.late for record in view.logs())


def test_there_is_no_thread_without_a_record_that_waits(talk):
    """Not for a task that logs nothing, nor for one whose records are written at once."""
    with talk.application("memory://", Patient) as app:
        view = talk.begin(app)
        talk.say("written at once", logging.WARNING)
        assert messages(view) == ["written at once"]
        assert app._executor.log_writer.vital == "idle"
        talk.say("waits")
        assert app._executor.log_writer.vital == "alive"
        assert [log.identity.instance for log in app._executor.log_writer.items] == ["t_talk#0"]
        talk.end()
        assert app.join(60)
        wait_for("the end of the attempt", lambda: app._executor.log_writer.items == [])


def test_without_its_thread_the_next_record_stores_what_waits(talk, monkeypatch, caplog):
    """One WARNING says so. As soon as the thread can start, it does."""
    shortage = Shortage(monkeypatch, named(LogWriter.name))
    monkeypatch.setattr("triggers.health.FIRST_PAUSE", 0.0)
    with talk.application("memory://", Hasty) as app:
        view = talk.begin(app)
        talk.say("waits")
        talk.say("waits, too")
        assert shortage.failures >= 1
        (problem,) = app.health().problems
        assert problem.place == THREAD
        (said,) = [record for record in caplog.records if record.name == "triggers.health"]
        assert (said.levelno, said.exc_info[0]) == (logging.WARNING, RuntimeError)
        assert "stored when it logs again" in said.getMessage()
        wait_for("a record that takes the others along", lambda: talk.say("more") or messages(view))
        shortage.over = True
        talk.say("the last one")
        wait_for("all", lambda: "the last one" in messages(view), 30)
        assert app.health().is_ok


class Unreliable(MemoryStorage):
    """Sessions in memory; while it is away, no log can be stored."""

    def __init__(self):
        super().__init__()
        self.error = None
        self.refused = threading.Semaphore(0)

    def commit(self, uid, decision, timeout=None):
        if decision.name == "keep_logs" and self.error is not None:
            self.refused.release()
            raise self.error
        return super().commit(uid, decision, timeout)


@pytest.mark.parametrize("error", [StorageError("away"), OSError("away"), SystemExit(), KeyboardInterrupt()])
def test_whatever_storing_a_log_raises_it_is_tried_again(talk, monkeypatch, error):
    """The records stay, in their order and counted once, and the log writer goes on."""
    monkeypatch.setattr("triggers.logs.log.FIRST_DELAY", 1_000)
    monkeypatch.setattr("triggers.logs.log.LONGEST_DELAY", 1_000)
    storage = Unreliable()
    storage.error = error
    with talk.application(storage, Hasty) as app:
        view = talk.begin(app)
        talk.do(lambda context, logger: context and logger.info("one"))
        for _ in range(3):
            assert storage.refused.acquire(timeout=60)
        assert messages(view) == []
        storage.error = None
        stored(view, "one")
        talk.end()
        assert app.join(60)
        assert messages(view) == ["one"]
        assert view["t_talk#0"].log_counts == {logging.INFO: 1}
        wait_for("health", lambda: app.health().is_ok)


def test_a_task_that_has_timed_out_is_heard(talk):
    """Its instance has failed, and it goes on: what it logs then is stored while it does, as late."""
    talk.registry.get("talk").timeout = 0.05
    with talk.application("memory://", Hasty) as app:
        view = talk.begin(app)
        wait_for("its failure", lambda: view["t_talk#0"].status == "failed")
        before = messages(view)
        talk.say("still here")
        stored(view, *before, "still here")
        (late,) = view.logs(text="still here")
        assert late.entry.late


class Counting(SqliteStorage):
    """A file that tells each attempt to store a log in it."""

    tries = threading.Semaphore(0)

    def commit(self, uid, decision, timeout=None):
        try:
            return super().commit(uid, decision, timeout)
        finally:
            if decision.name == "keep_logs":
                self.tries.release()


def test_a_joined_transaction_neither_takes_records_along_nor_loses_them(tmp_path, talk, monkeypatch):
    """While the task holds the file's lock, its records wait. They are stored though it rolls back."""
    monkeypatch.setattr(attempt, "LOG_TIMEOUT", 0.02)
    monkeypatch.setattr("triggers.logs.log.LONGEST_DELAY", 1_000)
    path = tmp_path / "s.db"
    storage = Counting(f"sqlite:///{path}?synchronous=normal")

    def work(context, logger):
        connection = load_driver("auto").connect(path)
        with context.manager.joined(connection):
            context.manager.fire("other")
            logger.info("inside")
            for _ in range(2):
                assert storage.tries.acquire(timeout=60)
        connection.rollback()
        connection.close()

    with talk.application(storage, Hasty) as app:
        view = talk.begin(app)
        talk.do(work)
        stored(view, "inside")
        assert view.head.firings == 1
        talk.end()
        assert app.join(60)
        assert messages(view) == ["inside"]


def test_a_forked_process_stores_its_own_records(tmp_path, talk):
    """What waits in the parent is the parent's. The child has a thread of its own, as soon as it needs one."""
    others = Conversation()
    app = Triggers(f"sqlite:///{tmp_path}/s.db?synchronous=normal", manager=Hasty, registry=others.registry)

    def child():
        assert (writers(), parent._executor.log_writer.items) == ([], [])
        view = others.begin(app, "child")
        others.say("the child's")
        stored(view, "the child's")
        others.end()
        wait_for("the end", lambda: view["t_talk#0"].status == "finished")

    with talk.application(app.storage, Patient) as parent:
        view = talk.begin(parent, "parent")
        talk.say("the parent's")
        assert len(parent._executor.log_writer.items) == 1
        wait_for("the end of other tests' threads", lambda: len(writers()) == 1)
        assert end(begin(child)) == 0
        talk.end()
        wait_for("the end", lambda: view["t_talk#0"].status == "finished")
        assert messages(view) == ["the parent's"]
    app.close()


# one log, without a thread


class Prompt(ManualLogWriter):
    """A log writer that has written what waits before `watch` returns."""

    def watch(self, log):
        added = super().watch(log)
        self.act(self.items)
        return added


def test_a_writer_that_is_faster_than_the_task_gets_the_next_record_too():
    """The log does not take what has just been written for something that still waits."""
    batches = []
    identity = attempt.LogIdentity("s", "t", "t#0")
    log = attempt.InstanceLog(identity, write=batches.append, now=lambda: 0, writer=Prompt())
    with log.block() as logger:
        logger.info("one")
        logger.info("two")
    assert [[entry.message for entry in batch.entries] for batch in batches] == [["one"], ["two"]]


def test_the_failure_of_an_attempt_is_left_to_its_commit():
    """From the failure on, nothing is written until its commit is made: what came later must not be stored first."""
    batches, writer = [], ManualLogWriter()
    identity = attempt.LogIdentity("s", "t", "t#0")
    log = attempt.InstanceLog(identity, write=batches.append, now=lambda: 0, writer=writer)
    with log.block() as logger:
        logger.info("before")
        log.log_failure(ValueError("the end"))
        writer.act(writer.items)
        assert batches == []
        assert [entry.level for entry in log.drain().entries] == [logging.INFO, logging.ERROR]
        logger.info("after")
        writer.act(writer.items)
        assert batches == []
        log.resume()
        writer.act(writer.items)
        assert [entry.message for batch in batches for entry in batch.entries] == ["after"]
        assert writer.items == []
        logger.info("the last one")
        log.close()
        assert writer.items == []
        logger.info("too late")
        assert writer.items == []
    assert [entry.seq for batch in batches for entry in batch.entries] == [3, 4, 5]
