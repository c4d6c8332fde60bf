"""Many processes and threads at once: joins meet, numbers have no gaps, work is shared, hints do not matter."""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
from collections import Counter
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.crash.checker import check
from tests.crash.healing import Ticking, heal, rest
from tests.crash.processes import begin, end, in_child
from tests.crash.world import CONFIGURATION, World, plan, wait_for
from triggers.runners.inline import InlineRunner
from triggers.runners.threads import ThreadsRunner
from triggers.task import task
from triggers.testing.faults import FaultyRunner, by_chance

if TYPE_CHECKING:
    from collections.abc import Callable

fork = multiprocessing.get_context("fork")


def together(crowd: str, acts: list[Callable[[], object]]) -> None:
    """Do all of these at once, each in a thread or a process of its own; none of them may raise."""
    if crowd == "processes":
        assert [end(child) for child in [begin(act) for act in acts]] == [0] * len(acts)
        return
    raised: list[BaseException] = []

    def shielded(act: Callable[[], object]) -> None:
        try:
            act()
        except BaseException as error:  # noqa: BLE001 - shown by the assertion
            raised.append(error)

    threads = [threading.Thread(target=shielded, args=(act,)) for act in acts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert raised == []


# -- the last triggers of a join at once --------------------------------------------------------------------


def meet(world: World, crowd: str, firers: int, sessions: int) -> None:
    """So many fire the triggers of a join at the same moment, one each, in one session after the other."""
    triggers = [f"part{place}" for place in range(firers)]
    barrier = fork.Barrier(firers) if crowd == "processes" else threading.Barrier(firers)
    app = world.app(None)
    for number in range(sessions):
        app.session(f"s-{number}").update_configuration({"t_join": {"after": triggers, "run": "plain"}})
    app.storage.close()

    def fire(trigger: str) -> None:
        own = world.app(None) if crowd == "processes" else app
        for number in range(sessions):
            barrier.wait(60)
            own.session(f"s-{number}").fire(trigger, {"id": trigger})

    together(crowd, [partial(fire, trigger) for trigger in triggers])


def joined(world: World) -> Counter[tuple[str, str]]:
    """How often each (instance, status) is there."""
    app = world.app(None)
    return Counter((each.name, each.status.value) for session in app.sessions() for each in session)


@pytest.mark.parametrize("crowd", ["threads", "processes"])
@pytest.mark.parametrize("firers", [2, 3, 8])
@pytest.mark.parametrize(
    "sessions", [25, pytest.param(3000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_triggers_that_meet_at_the_same_moment_make_one_instance(world, crowd, firers, sessions):
    """However many fire the last triggers of a join at once, its instance is made once, and released."""
    assert in_child(lambda: meet(world, crowd, firers, sessions)) == 0
    assert joined(world) == {("t_join#0", "scheduled"): sessions}


@pytest.mark.parametrize("crowd", ["threads", "processes"])
@pytest.mark.parametrize(
    "fires", [40, pytest.param(2000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])]
)
def test_many_who_fire_into_one_session_all_get_a_number_of_their_own(world, crowd, fires):
    """Six at once fire into one hot session: each is acknowledged, and the numbers have no gap."""
    crew = 6
    app = world.app(None)
    app.session("s-0").update_configuration({"t_each": {"after": ["go"], "andEvery": "go", "run": "plain"}})
    app.storage.close()

    def fire(place: int) -> None:
        own = world.app(None) if crowd == "processes" else app
        for number in range(fires):
            identity = f"{place}-{number}"
            result = own.session("s-0").fire("go", {"id": identity}, key=identity)
            world.acks.write(id=identity, number=result.number)

    assert in_child(lambda: together(crowd, [partial(fire, place) for place in range(crew)])) == 0
    acks = {ack["id"]: ack["number"] for ack in world.acks.read()}
    stored = {}
    while page := app.storage.reader.firings("s-0", after=len(stored)):
        stored |= {firing.key: firing.number for firing in page}
    assert sorted(acks.values()) == [*range(1, crew * fires + 1)]
    assert stored == acks
    assert app.storage.reader.counters("s-0")["t_each"].created == crew * fires
    app.storage.close()


@pytest.mark.parametrize("crowd", ["threads", "processes"])
def test_a_firing_sees_one_configuration_or_the_other_and_never_half_of_each(world, crowd):
    """While a configuration is changed to and fro, each firing makes the instances of exactly one version."""
    versions = {
        version: {
            f"t_{version}{place}": {"after": ["go"], "andEvery": "go", "run": "plain"} for place in range(3)
        }
        for version in "ab"
    }
    app = world.app(None)
    app.session("s-0").update_configuration(versions["a"])
    app.storage.close()

    def change() -> None:
        own = world.app(None) if crowd == "processes" else app
        for number in range(30):
            own.session("s-0").replace_configuration(versions["ab"[number % 2]])

    def fire(place: int) -> None:
        own = world.app(None) if crowd == "processes" else app
        for number in range(30):
            made = own.session("s-0").fire("go", {"id": f"{place}-{number}"}).scheduled
            version = made[0][2]
            assert {name.partition("#")[0] for name in made} == versions[version].keys(), made

    assert in_child(lambda: together(crowd, [change, partial(fire, 0), partial(fire, 1)])) == 0
    counters = app.storage.reader.counters("s-0")
    for version, tasks in versions.items():
        assert len({counters[task].created for task in tasks if task in counters}) <= 1, version
    assert sum(counter.created for counter in counters.values()) == 3 * 60
    app.storage.close()


# -- who runs what ----------------------------------------------------------------------------------------


def test_two_processes_share_the_work(world):
    """Of two processes on one file both run something, and everything runs exactly once."""
    count = 40

    @task(name="meet", registry=world.registry)
    def meet_each_other(context):
        world.begin(context)
        wait_for("a run in the other process", lambda: len({run["pid"] for run in world.runs.read()}) == 2)

    def work() -> None:
        with world.app(ThreadsRunner(2), grace=timedelta(seconds=60)) as app:
            assert app.join(100)

    def prepare() -> None:
        manager = world.app(None).session("s-0")
        manager.update_configuration({"t_each": {"after": ["go"], "andEvery": "go", "run": "meet"}})
        for number in range(count):
            manager.fire("go", {"id": str(number)})

    assert in_child(prepare) == 0
    assert [end(child) for child in [begin(work), begin(work)]] == [0, 0]
    starts = Counter(run["instance"] for run in world.runs.read())
    assert starts == {f"t_each#{number}": 1 for number in range(count)}
    assert len({run["pid"] for run in world.runs.read()}) == 2


@pytest.mark.parametrize("crowd", ["threads", "processes"])
def test_of_many_copies_of_a_hint_one_is_followed(world, crowd):
    """Eight workers are given the same hints five times over: each instance runs once."""
    count, copies, crew = 15, 5, 8
    app = world.app(None)
    manager = app.session("s-0")
    manager.update_configuration({"t_each": {"after": ["go"], "andEvery": "go", "run": "plain"}})
    for number in range(count):
        manager.fire("go", {"id": str(number)})
    app.storage.close()

    def work(place: int) -> None:
        own = world.app(None) if crowd == "processes" else app
        hints = [number for number in range(count) for _ in range(copies)]
        random.Random(place).shuffle(hints)
        for number in hints:
            own.run("s-0", "t_each", number)

    assert in_child(lambda: together(crowd, [partial(work, place) for place in range(crew)])) == 0
    assert Counter(run["instance"] for run in world.runs.read() if run["what"] == "start") == {
        f"t_each#{number}": 1 for number in range(count)
    }
    assert joined(world) == {(f"t_each#{number}", "finished"): 1 for number in range(count)}


def play_with_hints(world: World, runner: FaultyRunner, *, sessions: int = 2) -> None:
    """Whole sessions, with a runner that does with its hints what it likes, in virtual time."""
    clock = Ticking()
    uids = [f"s-{number}" for number in range(sessions)]
    fires = [fire for uid in uids for fire in plan(uid)]
    random.Random(1).shuffle(fires)
    app = world.app(runner, clock=clock)
    for uid in uids:
        app.session(uid).update_configuration(CONFIGURATION)
    for fire in fires:
        world.fire(app, fire)
        clock.advance(1)
        if fire.trigger == "page":
            runner.deliver_late()
    rest(app, clock, uids)
    runner.deliver_late()
    rest(app, clock, uids)
    app.close()


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    "chances",
    [{"drop": 1.0}, {"drop": 0.5}, {"twice": 1.0}, {"late": 0.6}, {"drop": 0.3, "twice": 0.3, "late": 0.3}],
    ids=["none arrives", "half are lost", "all come twice", "many come late", "all of it"],
)
def test_hints_that_are_lost_repeated_or_late_change_nothing(world, chances, seed):
    """Whatever becomes of the hints, each instance runs exactly once and every session comes to its planned end."""
    if chances.get("drop") == 1.0:
        # A runner that gets no hint at all runs nothing: the work is pulled, as another process would do it.
        def live() -> None:
            play_with_hints(world, FaultyRunner(InlineRunner(), by_chance(seed, **chances)))
            heal(world, Ticking(), [fire for uid in ("s-0", "s-1") for fire in plan(uid)])

    else:

        def live() -> None:
            play_with_hints(world, FaultyRunner(InlineRunner(), by_chance(seed, **chances)))

    assert in_child(live) == 0
    assert check(world, allowance=0).problems == []


def test_an_end_that_meets_a_locked_file_is_stored_once_the_lock_is_gone(world):
    """While another writer holds the file, the end of a run is tried again and again: the task runs once."""
    locked = threading.Event()

    @task(name="lock", registry=world.registry)
    def lock(context):
        world.begin(context)
        other = threading.Thread(target=hold)
        other.start()
        locked.wait()
        holders.append(other)

    holders: list[threading.Thread] = []
    tries: list[int] = []

    def hold() -> None:
        storage = World(world.folder).storage()
        with storage._file.transaction():
            locked.set()
            wait_for("two tries", lambda: len(tries) >= 2)
        storage.close()

    def live() -> None:
        world.url += "&busy_timeout=0.05"
        storage = world.storage()
        commit = storage.commit

        def counted(*args, **kwargs):
            try:
                return commit(*args, **kwargs)
            except Exception:
                tries.append(1)
                raise

        storage.commit = counted
        app = world.app("inline", storage=storage)
        manager = app.session("s-0")
        manager.update_configuration({"t_lock": {"after": ["go"], "run": "lock"}})
        manager.fire("go")
        holders[0].join()
        assert manager.storage["t_lock#0"].status == "finished"
        assert manager.storage["t_lock#0"].attempt == 1
        app.close()

    assert in_child(live) == 0
    assert len(world.starts("t_lock#0")) == 1
    assert len([pid for pid in {run["pid"] for run in world.runs.read()} if pid != os.getpid()]) == 1


@pytest.mark.parametrize("seed", range(4))
def test_a_clock_that_jumps_changes_when_things_happen_and_never_whether(world, seed):
    """The storage's clock is set an hour on or back while tasks run and others sweep: each end is accepted once."""
    clock, dice = Ticking(), random.Random(seed)
    settings = {"clock": clock, "max_crashes": 1000}

    def jump(_: str, fence: int) -> float:
        clock.advance(dice.choice([-3600, -60, 0, 60, 3600]) if fence < 20 else 0)
        world.app(None, **settings).sweep()
        return 0

    def live() -> None:
        world.busy = jump
        heal(world, clock, plan("s-1"), max_crashes=1000)
        rest(world.app("inline", **settings), clock, ["s-1"], rounds=400)

    assert in_child(live) == 0
    report = check(world, modelled=False)
    assert report.problems == []
