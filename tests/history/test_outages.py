"""A locked, full or damaged SQLite file in the middle of it all: a clear error, nothing changed, and then it goes on."""

from __future__ import annotations

import re
import threading
from collections import Counter
from datetime import timedelta

import pytest

from tests.history.outages import Locker, SmallDisk, SmallFile, listening, small_disk
from triggers import Triggers, health
from triggers.exceptions import StorageBusyError, StorageCorruptError, StorageError, StorageFullError
from triggers.runners.threads import ThreadsRunner
from triggers.storages.sqlite import SqliteStorage
from triggers.task import Registry, task
from triggers.testing.conformance.machine import shown
from triggers.testing.conformance.steps import Steps
from triggers.worker import attempt

#: How long a commit waits for the lock in these tests, in seconds.
BUSY = 0.05

RULES = {"t_work": {"after": ["go"], "run": "work"}, "t_next": {"after": ["t_work"], "run": "plain"}}


class Work:
    """A task that begins, tells so, and goes on when it is told to."""

    def __init__(self) -> None:
        self.began = threading.Semaphore(0)
        self.go_on = threading.Event()
        self.runs: Counter[str] = Counter()
        self.registry = Registry()
        task(name="work", registry=self.registry)(self.work)
        task(name="plain", registry=self.registry)(lambda context: {"large": "y" * 1_000})

    def work(self, context):
        """Do it."""
        self.runs[context.manager.uid] += 1
        self.began.release()
        assert self.go_on.wait(60)
        with context.get_logger_context() as logger:
            logger.warning("It was long.")
        return {"attempt": context.attempt, "large": "z" * 5_000}


def application(path, work, **settings):
    """An application with one thread, that sweeps often, on a file that it waits for only shortly."""
    return Triggers(
        f"sqlite:///{path}?synchronous=normal&busy_timeout={BUSY}",
        runner=ThreadsRunner(workers=1),
        registry=work.registry,
        sweep_interval=timedelta(seconds=0.05),
        **settings,
    )


@pytest.fixture
def path(tmp_path):
    """A file of ours with one session, which has rules."""
    path = tmp_path / "a.db"
    with Triggers(f"sqlite:///{path}", runner=None) as triggers:
        triggers.session("one").update_configuration(RULES)
    return path


@pytest.fixture
def locker(path):
    """Another process that can lock the file."""
    made = Locker(path)
    yield made
    made.close()


def test_while_another_process_holds_the_lock_a_firing_is_refused_and_nothing_changes(path, locker):
    """Fire, configure, replay and skip say that the file is busy; reading goes on; afterwards the same firing works."""
    storage = SqliteStorage(f"sqlite:///{path}?busy_timeout={BUSY}")
    with Triggers(storage, runner=None) as triggers:
        manager = triggers.session("one")
        before = shown(Steps(storage, "one"))
        locker.lock()
        with pytest.raises(
            StorageBusyError, match=r"a\.db stayed locked by another writer for 0\.05 s; nothing was changed"
        ):
            manager.fire("go", key="k")
        with pytest.raises(StorageBusyError):
            manager.update_configuration({})
        with pytest.raises(StorageBusyError):
            triggers.session("two").fire("go")
        assert shown(Steps(storage, "one")) == before
        assert not triggers.session("two").storage.exists
        locker.unlock()
        assert manager.fire("go", key="k").number == 1
        assert manager.fire("go", key="k").duplicate


def test_the_end_of_a_run_waits_for_the_lock_and_is_stored_once(path, locker, monkeypatch):
    """While its lease is trusted, the end of a run is tried again until the lock is free, with all that it said."""
    monkeypatch.setattr(attempt, "LOG_TIMEOUT", BUSY)
    work = Work()
    with listening() as heard, application(path, work) as triggers:
        manager = triggers.session("one")
        manager.fire("go")
        assert work.began.acquire(timeout=30)
        locker.lock()
        work.go_on.set()
        heard.wait("the outcome of t_work#0 could not be stored; trying again")
        assert manager.storage["t_work#0"].status == "running"
        locker.unlock()
        assert triggers.join(30)
        done = manager.storage["t_work#0"]
        assert (done.status, done.attempt, done.result["attempt"]) == ("finished", 1, 1)
        assert [record.entry.message for record in manager.storage.logs("t_work#0")] == ["It was long."]
        assert manager.storage["t_next#0"].status == "finished"
        assert len(manager.storage.instances) == 2
    assert work.runs == {"one": 1}


def test_a_lock_that_outlasts_the_lease_costs_a_run_and_nothing_else(path, locker, monkeypatch):
    """Its lease gone, the end is given up; the sweep survives, and once the lock is free has the work done again."""
    monkeypatch.setattr(attempt, "LOG_TIMEOUT", BUSY)
    monkeypatch.setattr(health, "FIRST_PAUSE", BUSY)
    work = Work()
    with listening() as heard, application(path, work, lease=timedelta(seconds=1.5)) as triggers:
        manager = triggers.session("one")
        manager.fire("go")
        assert work.began.acquire(timeout=30)
        locker.lock()
        work.go_on.set()
        heard.wait("a heartbeat could not be stored; trying again")
        heard.wait("the outcome of t_work#0 was not stored before its lease expired")
        heard.wait("it is skipped and tried again later; the others are recovered")
        assert manager.storage["t_work#0"].status == "running"
        locker.unlock()
        assert triggers.join(30)
        done = manager.storage["t_work#0"]
        assert (done.status, done.attempt, done.crashes) == ("finished", 2, 1)
        assert [each.status for each in manager.storage] == ["finished", "finished"]
        cascades = [firing for firing in triggers.storage.reader.firings("one") if firing.trigger == "t_work"]
        assert len(cascades) == 1
    assert work.runs == {"one": 2}


def test_an_application_that_begins_while_the_file_is_locked_does_its_work_later(path, locker):
    """It starts, its sweep survives, a claim says that the file is busy; once the lock is free it does what is due."""
    work = Work()
    work.go_on.set()
    with Triggers(f"sqlite:///{path}", runner=None) as elsewhere:
        elsewhere.session("one").fire("go")
    locker.lock()
    with listening() as heard, application(path, work) as triggers:
        heard.wait("a sweep failed; trying again in the next one")
        with pytest.raises(StorageBusyError):
            triggers.run("one", "t_work", 0)
        assert triggers.session("one").storage["t_work#0"].status == "scheduled"
        locker.unlock()
        assert triggers.join(30)
        assert [each.status for each in triggers.session("one").storage] == ["finished", "finished"]
    assert work.runs == {"one": 1}


@pytest.fixture(params=["disk", "file"])
def small(request, tmp_path):
    """Something that is soon full: a small disk, where one can be mounted, and a file that must not grow."""
    if request.param == "file":
        yield SmallFile(tmp_path)
        return
    folder = tmp_path / "disk"
    folder.mkdir()
    with small_disk(folder) as disk:
        if disk is None:
            pytest.skip("only root on Linux can mount a small disk")
        yield disk


def test_a_disk_that_fills_up_in_the_middle_loses_nothing_that_was_acknowledged(small: SmallDisk | SmallFile):
    """Firings are refused until there is room; what was acknowledged is stored once, and all of it is done in the end."""
    work = Work()
    storage = SqliteStorage(f"sqlite:///{small.path}?synchronous=normal", driver=small.driver())
    acknowledged: dict[str, int] = {}
    settings = {
        "runner": ThreadsRunner(workers=1),
        "registry": work.registry,
        "sweep_interval": timedelta(seconds=0.05),
    }
    with listening() as heard, Triggers(storage, **settings) as triggers:
        for number in range(3):
            _begin(triggers, f"session {number}", acknowledged)
        assert work.began.acquire(timeout=30)
        small.fill(room=60_000)
        refused = _fire_until_full(triggers, acknowledged)
        small.fill(room=0)
        work.go_on.set()
        if isinstance(small, SmallFile):  # on the disk, SQLite's log may have room of its own left
            heard.wait("could not be stored; trying again")
        small.make_room()
        _begin(triggers, refused, acknowledged)
        assert triggers.join(60)
        for uid, number in acknowledged.items():
            fired = [firing.number for firing in storage.firings(uid) if firing.key == "k"]
            assert fired == [number], uid
            assert [each.status for each in triggers.session(uid).storage] == ["finished", "finished"], uid
        assert {view.uid for view in triggers.sessions()} == acknowledged.keys()
    assert work.runs == dict.fromkeys(acknowledged, 1)


def _begin(triggers, uid, acknowledged):
    """Configure a session and fire into it; what was acknowledged is written down."""
    manager = triggers.session(uid)
    manager.fire("go", {"large": "x" * 20_000}, key="k")
    acknowledged[uid] = 1
    manager.update_configuration(RULES, catch_up=True)


def _fire_until_full(triggers, acknowledged):
    """Fire until there is no room; returns the session that was refused."""
    for number in range(3, 200):
        try:
            _begin(triggers, f"session {number}", acknowledged)
        except StorageFullError as error:
            said = str(error)
            break
    else:
        pytest.fail("it is never full")
    assert re.search(r"no space left for .*a\.db; nothing was changed", said)
    return f"session {number}"


def test_a_file_that_is_damaged_while_it_is_used_says_so(path):
    """Firing, reading and sweeping say what is wrong with which file, at once; nothing hangs."""
    with Triggers(f"sqlite:///{path}", runner=None) as triggers:
        manager = triggers.session("one")
        manager.update_configuration({"t_each": {"andEvery": "said", "run": "plain"}})
        for number in range(200):
            manager.fire("said", {"n": number, "large": "x" * 500})
    content = bytearray(path.read_bytes())
    middle = slice(len(content) // 2, len(content) - 4_096)  # what says that the file is ours stays
    content[middle] = b"\xa5" * len(content[middle])
    path.write_bytes(content)
    damaged = r"a\.db is damaged or not a SQLite file .*: restore a backup"
    with listening() as heard, application(path, Work()) as triggers:
        heard.wait("a sweep failed; trying again in the next one")
        with pytest.raises(StorageCorruptError, match=damaged):
            triggers.session("one").fire("said")
        with pytest.raises(StorageCorruptError, match=damaged):
            triggers.session("one").storage.latest_kwargs["said"]
        with pytest.raises(StorageError):
            triggers.join(5)
    assert path.read_bytes()[middle] == bytes(content[middle]), "nobody wrote into what was there"
