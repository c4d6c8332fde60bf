"""A task that kills its processes is failed for it, and no task that ran beside it."""

from __future__ import annotations

import os
import signal
import threading
import time
from datetime import timedelta

import pytest

from tests.crash.processes import KILLED, begin
from tests.crash.world import World
from triggers.core import decisions
from triggers.core.decisions import attempt, rescue
from triggers.runners.threads import ThreadsRunner
from triggers.task import task
from triggers.worker.isolation import Isolation

MAX_CRASHES = 3

#: So many processes a poisonous task can end, however many innocent ones run beside it.
BOUND = decisions.SUSPECTED_AT + MAX_CRASHES

#: Long enough for a machine under load. What ran alone is waited for a moment longer, before it is charged.
LEASE, TRIAL = timedelta(seconds=1), 200_000


class Scene:
    """Worker processes, restarted whenever one dies, with one poisonous task among innocent ones that take long.

    Args:
        world: where, and what was written down.
        innocents: how many.
        poisons: how many.
        together: so many deaths wait until every innocent task runs in the process, and is hit by them.
    """

    def __init__(self, world, innocents, poisons=1, together=0):
        self.world, self.innocents, self.poisons, self.together = world, innocents, poisons, together
        self.company = threading.Semaphore(0)
        self.deaths_file = (
            world.folder / "deaths"
        )  # a byte for each, because many threads ask for them all the time
        self.deaths_file.touch()
        registry = world.registry

        @task(name="innocent", registry=registry)
        def innocent(context):
            world.begin(context)
            self.company.release()
            while self.deaths() < (
                together or decisions.SUSPECTED_AT
            ):  # it is still running when the process dies, twice
                time.sleep(0.02)
            time.sleep(0.01)

        @task(name="poison", registry=registry, max_crashes=MAX_CRASHES)
        def poison(context):
            world.begin(context)
            if self.deaths() < together:
                for _ in range(innocents):
                    assert self.company.acquire(timeout=30)
            time.sleep(0.3 if self.deaths() < decisions.SUSPECTED_AT else 0.03)
            with self.deaths_file.open("ab") as file:
                file.write(b"x")
            os.kill(os.getpid(), signal.SIGKILL)

    def deaths(self):
        return self.deaths_file.stat().st_size

    def app(self, runner=None):
        beat = timedelta(seconds=0.1)
        app = self.world.app(runner, lease=LEASE, grace=4 * beat, sweep_interval=beat)
        app._sweep.trial = TRIAL
        return app

    def work(self):
        """What one worker process does."""
        app = self.app(ThreadsRunner(self.innocents + self.poisons))
        app.start()
        assert app.join(120)
        app.close()

    def play(self, workers):
        """Restart dead workers until everything is done; returns how many have died."""
        app = self.app()
        for number in range(self.innocents):
            self.release(app, f"innocent-{number}", "innocent")
        for number in range(self.poisons):
            self.release(app, f"poison-{number}", "poison")
        app.close()
        lives, killed, until = {begin(self.work) for _ in range(workers)}, 0, time.monotonic() + 200
        while lives:
            assert time.monotonic() < until, "it does not come to an end"
            for pid in list(lives):
                ended, status = os.waitpid(pid, os.WNOHANG)
                if ended:
                    lives.discard(pid)
                    code = os.waitstatus_to_exitcode(status)
                    killed += code == KILLED
                    if code:
                        lives.add(begin(self.work))
            time.sleep(0.02)
        return killed

    def release(self, app, uid, run):
        session = app.session(uid)
        session.update_configuration({"t": {"after": ["go"], "run": run}})
        session.fire("go")

    def problems(self):
        """Innocents that are not finished, and poisons that are not failed as lost."""
        app = self.app()
        ends = {view.uid: view["t#0"] for view in app.sessions()}
        wrong = []
        for uid, end in ends.items():
            guilty = uid.startswith("poison")
            if end.status != ("failed" if guilty else "finished"):
                wrong.append(f"{uid} is {end.status}: {end.error}")
            if guilty and (end.error or {}).get("type") != "WorkerLost":
                wrong.append(f"{uid}: {end.error}")
            if not guilty and end.crashes > decisions.SUSPECTED_AT:
                wrong.append(f"{uid} was lost {end.crashes} times")
        app.close()
        return wrong


@pytest.fixture(autouse=True)
def hurried(monkeypatch):
    """Pauses after crashes that a test can wait for."""
    monkeypatch.setattr(rescue, "CRASH_BACKOFF", (50_000,))


@pytest.mark.parametrize(
    ("storage", "workers"),
    [
        pytest.param("sqlite", 1, marks=pytest.mark.slow),
        ("sqlite", 2),
        ("postgres_url", 2),
        ("valkey_url", 2),
    ],
)
def test_fifty_innocent_tasks_beside_a_poisonous_one_all_finish(request, tmp_path, storage, workers):
    """The poison is failed after two deaths in company and its budget of deaths alone; all others finish."""
    url = request.getfixturevalue(storage) if storage.endswith("url") else ""
    scene = Scene(World(tmp_path, url=url), innocents=50)
    assert scene.play(workers) == BOUND
    assert scene.problems() == []


def test_several_poisonous_tasks_end_no_more_processes_than_each_of_them_may(tmp_path):
    """Each of three ends at most its own share of processes, and is failed; the innocent ones finish."""
    scene = Scene(World(tmp_path), innocents=5, poisons=3)
    assert scene.play(1) <= 3 * BOUND
    assert scene.problems() == []


def everybody_is_charged(patch):
    for module in (attempt, rescue):
        patch.setattr(module, "is_alone", lambda _: True)


def suspects_run_beside_others(patch):
    patch.setattr(Isolation, "_is_open", lambda _: True)
    patch.setattr(Isolation, "_is_empty", lambda _: True)


@pytest.mark.parametrize(
    ("mutant", "together"), [(everybody_is_charged, MAX_CRASHES), (suspects_run_beside_others, BOUND)]
)
def test_without_isolation_or_with_charges_for_all_an_innocent_task_is_failed(
    tmp_path, monkeypatch, mutant, together
):
    """The library without one of its two halves does what it must not."""
    scene = Scene(World(tmp_path), innocents=4, together=together)
    mutant(monkeypatch)
    scene.play(1)
    assert any("innocent" in problem for problem in scene.problems())


# -- who runs beside whom -------------------------------------------------------------------------------


def never():
    return False


def test_what_runs_alone_waits_for_the_others_and_they_for_it():
    """Nobody runs beside a suspect; whoever comes meanwhile runs after it."""
    isolation, inside = Isolation(), threading.Event()
    order, go = [], threading.Event()

    def together(name, until):
        with isolation.together(never) as ticket:
            assert ticket
            inside.set()
            assert until.wait(60)
            order.append(name)

    first = threading.Thread(target=together, args=("first", go))
    first.start()
    assert inside.wait(60)

    def alone():
        with isolation.alone("s", lambda: None, never) as ticket:
            assert ticket
            order.append("alone")

    suspect = threading.Thread(target=alone)
    suspect.start()
    while not isolation._is_draining:
        time.sleep(0.001)
    later = threading.Thread(target=together, args=("later", go))
    later.start()
    go.set()
    for thread in (first, suspect, later):
        thread.join(60)
    assert order == ["first", "alone", "later"]


def test_a_second_suspect_comes_again_when_the_first_one_has_ended():
    """It is not waited for by a thread; what brings it again is called once."""
    isolation, again = Isolation(), []
    with isolation.alone("one", lambda: None, never) as first:
        assert first

        def other():
            for _ in range(2):
                with isolation.alone("two", lambda: again.append("two"), never) as second:
                    assert second is None

        thread = threading.Thread(target=other)
        thread.start()
        thread.join(60)
        assert again == []
    assert again == ["two"]


def test_what_never_ends_does_not_hold_new_work_up_for_ever(monkeypatch):
    """A suspect gives up after a while, and longer each time, where others do not end; new ones run meanwhile."""
    monkeypatch.setattr("triggers.worker.isolation.DRAIN", 0.01)
    isolation, inside, go = Isolation(), threading.Event(), threading.Event()

    def endless():
        with isolation.together(never):
            inside.set()
            assert go.wait(60)

    thread = threading.Thread(target=endless)
    thread.start()
    assert inside.wait(60)
    for _ in range(3):
        with isolation.alone("s", lambda: None, never) as ticket:
            assert ticket is None
        with isolation.together(never) as ticket:
            assert ticket
    assert isolation._tries == {"s": 3}
    go.set()
    thread.join(60)
    with isolation.alone("s", lambda: None, never) as ticket:
        assert ticket
    assert isolation._tries == {}


def test_what_lost_its_claim_keeps_nobody_waiting():
    """A task that was failed at its timeout, or released, may still run: it is no longer waited for."""
    isolation, inside, go = Isolation(), threading.Event(), threading.Event()

    def zombie(enter):
        with enter() as ticket:
            ticket.is_over = lambda: True
            inside.set()
            assert go.wait(60)

    enters = (lambda: isolation.together(never), lambda: isolation.alone("s", lambda: None, never))
    threads = []
    for enter in enters:
        inside.clear()
        threads.append(threading.Thread(target=zombie, args=(enter,)))
        threads[-1].start()
        assert inside.wait(60)
    with isolation.alone("other", lambda: None, never) as ticket:
        assert ticket
    with isolation.together(never) as ticket:
        assert ticket
    go.set()
    for thread in threads:
        thread.join(60)


def test_a_run_within_a_run_of_the_same_thread_waits_for_nobody():
    """What a task runs inline is a part of it; a suspect that would run so is refused."""
    isolation = Isolation()
    with isolation.alone("s", lambda: None, never), isolation.together(never) as inner:
        assert inner
    with (
        isolation.together(never) as outer,
        isolation.alone("s", lambda: None, never) as ticket,
    ):
        assert outer
        assert ticket is None


def test_a_closed_application_stops_waiting():
    """Whoever waits to run beside a suspect goes away empty when the application is closed."""
    isolation, closed = Isolation(), threading.Event()
    with isolation.alone("s", lambda: None, never):
        found = []

        def wait():
            with isolation.together(closed.is_set) as ticket:
                found.append(ticket)

        thread = threading.Thread(target=wait)
        thread.start()
        closed.set()
        thread.join(60)
        assert found == [None]
