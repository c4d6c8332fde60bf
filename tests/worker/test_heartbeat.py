"""The heartbeat keeps claims alive, whatever happens to one of them, to the storage or to its own thread."""

from __future__ import annotations

import logging
import threading
import time
from datetime import timedelta
from types import SimpleNamespace

import psycopg
import pytest

from tests.crash.world import wait_for
from tests.worker.threads import Shortage, named
from triggers import Registry, Triggers
from triggers.runners.threads import ThreadsRunner
from triggers.storages.base import Lease
from triggers.storages.clock import wall_clock
from triggers.storages.memory import MemoryStorage
from triggers.task import task
from triggers.testing.clock import VirtualClock
from triggers.testing.conformance.steps import Steps
from triggers.worker import heartbeat
from triggers.worker.heartbeat import RENEWAL, THREAD, Heartbeat, HeldClaim

#: Long, so that no claim is lost to a slow machine. Where a claim must not be lost, time passes with the renewals.
LEASE = timedelta(seconds=20)


class Storage(MemoryStorage):
    """Sessions in memory, of which one can be locked, and heartbeats that can hang or fail.

    Each renewal of the healthy task takes a quarter of a lease, by the clock of the storage.
    """

    def __init__(self, clock=wall_clock):
        self.passed = 0
        super().__init__(clock=lambda: clock() + self.passed)
        self.unlocked = threading.Event()
        self.unlocked.set()
        self.waiting = threading.Event()
        self.renewals = threading.Semaphore(0)
        self.on_renew = lambda: None

    def commit(self, uid, decide, **how):
        if uid == "locked" and not self.unlocked.is_set():
            self.waiting.set()
            assert self.unlocked.wait(60)
        return super().commit(uid, decide, **how)

    def renew(self, leases, lease):
        self.on_renew()
        lost = super().renew(leases, lease)
        if any(held.uid == "healthy" for held in leases):
            self.passed += lease // 4
            self.renewals.release()
        return lost


@pytest.fixture
def go():
    return threading.Event()


@pytest.fixture
def begun():
    return threading.Semaphore(0)


@pytest.fixture
def tasks(go, begun):
    found = Registry()

    @task(name="healthy", registry=found)
    def healthy(context):
        begun.release()
        assert go.wait(60)
        return {"lost": context.lease_lost}

    @task(name="late", registry=found, timeout=timedelta(milliseconds=100))
    def late(context):
        begun.release()
        assert go.wait(60)

    return found


@pytest.fixture
def storage():
    return Storage()


@pytest.fixture
def hurried(monkeypatch):
    """Claims are renewed 200 times in a lease."""
    monkeypatch.setattr(heartbeat, "BEATS", 200)


@pytest.fixture
def app(storage, tasks, go, hurried):
    made = Triggers(
        storage,
        runner=ThreadsRunner(4),
        registry=tasks,
        lease=LEASE,
        grace=timedelta(milliseconds=50),
        sweep_interval=timedelta(milliseconds=50),
    )
    with made:
        yield made
        go.set()


def release(app, uid, run):
    session = app.session(uid)
    session.update_configuration({"t": {"after": ["go"], "run": run}})
    session.fire("go")
    return lambda: session.storage["t#0"]


def renewed(storage, times=6):
    """Wait for so many more heartbeats of the healthy task: six are one and a half leases."""
    for _ in range(times):
        assert storage.renewals.acquire(timeout=60)


def test_a_timeout_that_waits_for_a_lock_holds_no_heartbeat_up(app, storage, begun, go):
    """A session is locked while one of its tasks reaches its timeout: the claims of all others are renewed."""
    healthy, late = release(app, "healthy", "healthy"), release(app, "locked", "late")
    assert begun.acquire(timeout=60)
    assert begun.acquire(timeout=60)
    storage.unlocked.clear()
    assert storage.waiting.wait(60)
    renewed(storage)
    assert storage.expired(10) == []
    assert (late().status, late().crashes) == ("running", 0)
    storage.unlocked.set()
    wait_for("the end of the late task", lambda: late().status == "failed")
    assert late().error["type"] == "TaskTimeoutError"
    go.set()
    wait_for("the end of the healthy task", lambda: healthy().status == "finished")
    assert (healthy().attempt, healthy().result) == (1, {"lost": False})


@pytest.mark.parametrize(
    "row",
    ["sessions WHERE uid = 'locked'", "instances WHERE session = (SELECT min(id) FROM {}.sessions)"],
    ids=["the session's", "the instance's"],
)
@pytest.mark.usefixtures("hurried")
def test_a_row_that_is_locked_in_postgresql_costs_no_other_claim(postgres_url, tasks, begun, go, row):
    """An application holds a row for more than a lease, and the task whose row it is reaches its timeout."""
    lease = timedelta(seconds=2)
    with Triggers(
        postgres_url,
        runner=ThreadsRunner(4),
        registry=tasks,
        lease=lease,
        grace=timedelta(seconds=1),
        sweep_interval=timedelta(milliseconds=50),
    ) as app:
        late, healthy = release(app, "locked", "late"), release(app, "healthy", "healthy")
        url, _, schema = postgres_url.partition("&schema=")
        try:
            assert begun.acquire(timeout=60)
            assert begun.acquire(timeout=60)
            with psycopg.connect(url) as connection:
                connection.execute(f"SELECT FROM {schema}.{row.format(schema)} FOR UPDATE")
                time.sleep(1.2 * lease.total_seconds())
                assert (healthy().status, healthy().attempt) == ("running", 1)
                connection.rollback()
            wait_for("the end of the late task", lambda: late().status in {"failed", "scheduled"})
        finally:
            go.set()
        wait_for("the end of the healthy task", lambda: healthy().status == "finished")
        assert (healthy().crashes, healthy().attempt) == (0, 1)


@pytest.mark.parametrize("error", [KeyError("what"), SystemExit(1), MemoryError()])
def test_whatever_failing_a_late_task_raises_the_others_are_renewed(app, storage, begun, monkeypatch, error):
    """An error that nobody expects ends the attempt to fail that task, is seen, and nothing else."""

    def fail(_):
        raise error

    release(app, "healthy", "healthy")
    assert begun.acquire(timeout=60)
    monkeypatch.setattr("triggers.worker.attempt.RunningAttempt._time_out", fail)
    release(app, "s", "late")
    wait_for("the error", lambda: any("timeout" not in one.place for one in app.health().problems))
    (problem,) = app.health().problems
    assert problem.place == "session 's', instance t#0"
    assert type(error).__name__ in problem.error
    renewed(storage)


@pytest.mark.parametrize("error", [OSError("away"), KeyError("what"), SystemExit(1)])
def test_whatever_a_renewal_raises_the_next_one_is_tried(app, storage, begun, go, error):
    """The heartbeat survives every exception, says so once, and tries again; no claim is lost."""
    failures = iter([error] * 3)

    def fail():
        for one in failures:
            raise one

    healthy = release(app, "healthy", "healthy")
    assert begun.acquire(timeout=60)
    storage.on_renew = fail
    renewed(storage)
    assert app.health().heartbeat == "alive"
    assert type(error).__name__ in app.health().last_error
    assert app.health().problems == ()
    go.set()
    wait_for("the end", lambda: healthy().status == "finished")
    assert healthy().attempt == 1


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_heartbeat_whose_thread_dies_is_started_again(app, storage, begun, go):
    """Even where reporting an error kills the thread, another one takes its place and renews what is held."""

    class Deadly(logging.Handler):
        def emit(self, record):
            deadly.append(threading.current_thread())
            raise SystemExit

    deadly = []
    handler = Deadly()
    healthy = release(app, "healthy", "healthy")
    assert begun.acquire(timeout=60)
    log = logging.getLogger("triggers.health")
    log.setLevel(logging.DEBUG)
    log.addHandler(handler)
    try:
        storage.on_renew = lambda: (_ for _ in ()).throw(OSError("away"))
        wait_for("the death of the second thread", lambda: len(set(deadly)) >= 2)
        storage.on_renew = lambda: None
        log.removeHandler(handler)
        for thread in set(deadly):
            thread.join(60)
        renewed(storage)
    finally:
        log.removeHandler(handler)
    assert app.health().heartbeat == "alive"
    go.set()
    wait_for("the end", lambda: healthy().status == "finished")
    assert healthy().attempt == 1


def test_nothing_is_claimed_that_no_thread_would_renew(app, begun, go, monkeypatch, caplog):
    """While the heartbeat cannot start, instances stay scheduled; then they run. It is said once, not per hint."""
    shortage = Shortage(monkeypatch, named("triggers-heartbeat"))
    healthy = release(app, "healthy", "healthy")
    wait_for("a repeated hint", lambda: shortage.failures >= 3)
    assert (healthy().status, healthy().attempt) == ("scheduled", 0)
    assert [problem.place for problem in app.health().problems] == [THREAD]
    said = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.exc_info[0] for record in said] == [RuntimeError]
    shortage.over = True
    assert begun.acquire(timeout=60)
    go.set()
    wait_for("the end", lambda: healthy().status == "finished")
    assert healthy().attempt == 1
    assert app.health().is_ok


def test_a_claim_that_nobody_can_renew_is_released(app, begun, go, monkeypatch):
    """The thread ended between the claim and the task, and cannot start: the instance is scheduled again at once."""
    shortage = Shortage(monkeypatch, named("triggers-heartbeat"))
    ready = monkeypatch.setattr(app._executor.heartbeat, "is_ready", lambda: True)
    assert ready is None
    healthy = release(app, "healthy", "healthy")
    wait_for("a release", lambda: any(remark == "released by its worker" for *_, remark in healthy().history))
    shortage.over = True
    assert begun.acquire(timeout=60)
    go.set()
    wait_for("the end", lambda: healthy().status == "finished")
    assert healthy().crashes == 0


def test_a_storage_that_hangs_for_half_a_lease_costs_no_claim(monkeypatch):
    """Renewals come four times in a lease: one of them may hang for half of it."""
    clock, lease = VirtualClock(), LEASE.total_seconds()
    monkeypatch.setattr(heartbeat, "time", SimpleNamespace(monotonic=lambda: clock() / 1e6))
    storage = Storage(clock)
    steps = Steps(storage)
    steps.configure({"t": {"after": ["go"], "run": "x"}})
    steps.fire("go")
    claimed = steps.claim("t#0", lease=round(lease * 1e6)).claimed
    held = HeldClaim.since(clock() / 1e6, Lease(steps.uid, "t", 0, claimed.fence), lease)

    def hang():
        clock.advance(LEASE / 2)
        assert storage.expired(10) == []
        assert not held.is_lost()

    for hangs in (hang, lambda: None):
        storage.on_renew = hangs
        clock.advance(timedelta(seconds=max(held.due_at - clock() / 1e6, 0)))
        Heartbeat(storage).beat([held])
        assert not held.is_lost()


def test_health_says_what_the_heartbeat_does(app, storage, begun, go):
    """Idle without a claim, alive with one; a renewal that keeps failing is a problem with a beginning."""
    assert app.health().heartbeat == "idle"
    release(app, "healthy", "healthy")
    assert begun.acquire(timeout=60)
    assert app.health().heartbeat == "alive"
    storage.on_renew = lambda: (_ for _ in ()).throw(OSError("away"))
    wait_for("two failures", lambda: any(one.count >= 2 for one in app.health().problems))
    (problem,) = app.health().problems
    assert (problem.kind, problem.place, problem.error) == ("storage", RENEWAL, "OSError: away")
    assert problem.since < problem.latest
    assert not app.health().is_ok
    storage.on_renew = lambda: None
    wait_for("its end", lambda: app.health().is_ok)
