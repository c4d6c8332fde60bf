"""An application object is closed and started again: a second life is like the first."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from datetime import timedelta

import pytest

from tests.crash.world import wait_for
from triggers import Registry, Triggers
from triggers.runners.inline import InlineRunner
from triggers.runners.threads import ThreadsRunner
from triggers.storages.memory import MemoryStorage
from triggers.task import task
from triggers.worker.isolation import isolation

QUICK = {"grace": timedelta(milliseconds=50), "sweep_interval": timedelta(milliseconds=50)}
EVERY = {"t": {"andEvery": "go", "run": "plain"}}


@pytest.fixture
def tasks():
    found = Registry()
    task(name="plain", registry=found)(lambda context: None)
    return found


@pytest.mark.parametrize("runner", [ThreadsRunner, InlineRunner])
def test_close_start_fire_runs(any_url, tasks, runner):
    """On every storage, what is fired after `close` and `start` runs, and so does what was fired in between."""
    app = Triggers(any_url, runner=runner(), registry=tasks, lease=timedelta(seconds=1), **QUICK)
    session = app.session("s")
    session.update_configuration(EVERY)
    for _ in range(3):
        with app:
            session.fire("go")
            assert app.join(60)
            assert app.health().sweep == "alive"
        session.fire("go")
        assert app.health().sweep == "stopped"
    app.start()
    session.fire("go")
    assert app.join(60)
    app.close()
    assert [instance.status for instance in session.storage] == ["finished"] * 7


def test_a_second_lifespan_of_a_web_application_works(tasks):
    """What every test client does: enter and leave the application's lifespan, again and again."""
    triggers = Triggers("memory://", registry=tasks, **QUICK)
    session = triggers.session("s")
    session.update_configuration(EVERY)

    @contextmanager
    def lifespan():
        triggers.start()
        yield
        triggers.close()

    for life in range(1, 4):
        with lifespan():
            session.fire("go")
            name = f"t#{life - 1}"
            wait_for("its end", lambda name=name: session.storage[name].status == "finished")


def test_what_outlives_a_close_goes_on_in_the_next_life():
    """A task that did not end in time is released; the pool that runs it still works after a start."""
    tasks, begun, go = Registry(), threading.Semaphore(0), threading.Event()

    @task(name="slow", registry=tasks)
    def slow(context):
        begun.release()
        assert go.wait(60)

    # With the usual grace, nothing else dispatches the instance while it is being claimed.
    app = Triggers("memory://", runner=ThreadsRunner(2), registry=tasks)
    session = app.session("s")
    session.update_configuration({"t": {"after": ["go"], "run": "slow"}})
    with app:
        session.fire("go")
        assert begun.acquire(timeout=60)
        app.close(timeout=0)
        assert session.storage["t#0"].status == "scheduled"
        app.start()
        assert begun.acquire(timeout=60)
        go.set()
        assert app.join(60)
    done = session.storage["t#0"]
    assert (done.status, done.attempt, done.crashes) == ("finished", 2, 0)


class SlowClaims(MemoryStorage):
    """The answer to a claim waits until it may continue."""

    def __init__(self):
        super().__init__()
        self.claimed, self.go = threading.Event(), threading.Event()

    def commit(self, uid, decision, **given):
        changes = super().commit(uid, decision, **given)
        if decision.name == "claim":
            self.claimed.set()
            assert self.go.wait(60)
        return changes


@pytest.mark.parametrize("runner", [ThreadsRunner, InlineRunner])
def test_nothing_begins_after_a_close(runner):
    """An instance that was about to begin is returned to the queue, and runs in the next life."""
    tasks, ran, storage = Registry(), [], SlowClaims()
    task(name="plain", registry=tasks)(lambda context: ran.append(context.attempt))
    app = Triggers(storage, runner=runner(), registry=tasks)
    session = app.session("s")
    session.update_configuration(EVERY)
    app.start()
    firing = threading.Thread(target=session.fire, args=("go",))
    firing.start()
    assert storage.claimed.wait(60)
    app.close(timeout=0)
    storage.go.set()
    firing.join(60)
    wait_for("its return", lambda: session.storage["t#0"].status == "scheduled")
    assert ran == []
    with app:
        assert app.join(60)
    assert ran == [2]


def test_what_waits_for_a_claim_does_not_begin_after_a_close():
    """A run that a closed process would begin is refused before it claims anything."""
    with isolation.together(lambda: True) as ticket:
        assert ticket is None


def test_a_closed_application_says_once_that_it_runs_nothing(tasks, caplog):
    """What is fired after a close is stored; a warning says what becomes of it, once for each close."""
    app = Triggers("memory://", registry=tasks)
    session = app.session("s")
    session.update_configuration(EVERY)
    for _ in range(2):
        app.start()
        app.close()
        for _ in range(3):
            session.fire("go")
    assert caplog.text.count("is closed: released instances are stored") == 2


def test_closing_waits_for_what_runs_inline_in_another_thread():
    """Inline runs are waited for like all others, and released if they do not end in time."""
    tasks, begun, go = Registry(), threading.Event(), threading.Event()

    @task(name="slow", registry=tasks)
    def slow(context):
        begun.set()
        assert go.wait(60)

    app = Triggers("memory://", runner="inline", registry=tasks)
    session = app.session("s")
    session.update_configuration({"t": {"andEvery": "go", "run": "slow"}})
    firing = threading.Thread(target=session.fire, args=("go",))
    firing.start()
    assert begun.wait(60)
    app.close(timeout=0)
    assert session.storage["t#0"].status == "scheduled"
    go.set()
    firing.join(60)
    assert session.storage["t#0"].status == "scheduled"
