"""A process that dies before or after any step of the protocol, on a server: others finish its work, and nothing is doubled."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from datetime import timedelta
from functools import partial

import pytest

from tests.chaos.doom import POINTS
from tests.crash.checker import check
from tests.crash.processes import KILLED, begin, end, in_child
from tests.crash.world import CONFIGURATION, Journal, World, plan, review
from triggers import FinalizingTriggerManager
from triggers.core.decisions import rescue
from triggers.core.values import DEFAULT_LIMITS
from triggers.runners.threads import ThreadsRunner
from triggers.testing.conformance.steps import Steps
from triggers.testing.faults import Faults, FaultyStorage, kill_process

EVERY_POINT = sorted({point for points in POINTS.values() for point in points})
POLICY = FinalizingTriggerManager.policy_for(0, DEFAULT_LIMITS)
CRASHES = 1_000_000


def settings(**more):
    """Of every application here."""
    return {"lease": timedelta(seconds=1), "grace": timedelta(seconds=0.2), "max_crashes": CRASHES, **more}


def prepare(world: World, uid: str) -> None:
    """The session has rules, its note was fired, and whoever ran what follows from it has lost his lease."""
    app = world.app(None, **settings())
    app.session(uid).update_configuration(CONFIGURATION)
    world.fire(app, plan(uid)[-1])
    Steps(app.storage, uid, POLICY).start("t_notes#0", lease=1)
    app.close()


def live(world: World, uid: str, faults: Faults) -> None:
    """Do all that can be done in a session: rescue, fire, run, renew, review."""
    app = world.app("inline", storage=FaultyStorage(world.storage(), faults), **settings())

    def busy(*_: object) -> float:
        heart = app._executor.heartbeat
        heart.beat(heart.held)
        return 0

    world.busy = busy
    app.sweep()
    app.session(uid).update_configuration(dict(reversed(CONFIGURATION.items())))
    for fire in plan(uid):
        world.fire(app, fire)
    while not app.join(0.1) or review(app, uid):
        pass


def heal(world: World, uids: list[str]) -> None:
    """What others do after those deaths."""
    with world.app(ThreadsRunner(4), sweep_interval=timedelta(seconds=0.1), **settings()) as app:
        for uid in uids:
            app.session(uid).update_configuration(CONFIGURATION)
            for fire in plan(uid):
                world.fire(app, fire)
        while not app.join(0.5) or sum([review(app, uid) for uid in uids]):
            pass


@pytest.mark.parametrize("hits", [(1,), pytest.param((2, 3, 5, 8), marks=pytest.mark.slow)])
def test_killed_at_every_step_of_the_protocol_nothing_is_lost(url, tmp_path, monkeypatch, hits):
    """Before and after each step a process is killed, each in a session of its own; all come to their planned end."""
    monkeypatch.setattr(rescue, "CRASH_BACKOFF", (1,))
    world, deaths = World(tmp_path, url=url), Journal(tmp_path / "deaths")
    world.storage().close()
    doomed = [(point, hit) for hit in hits for point in EVERY_POINT]
    uids = [f"s-{2 * number + 1}" for number in range(len(doomed))]  # in all of them somebody skips

    def die(point: str) -> None:
        deaths.write(point=point)
        kill_process(point)

    for (point, hit), uid in zip(doomed, uids, strict=True):
        assert in_child(partial(prepare, world, uid)) == 0
        faults = Faults(die)
        faults.die_at(point, hit)
        assert end(begin(partial(live, world, uid, faults))) in ({KILLED} if hit == 1 else {KILLED, 0})
    reached = Counter(each["point"] for each in deaths.read())
    assert reached.keys() == {*EVERY_POINT} or hits != (1,)
    assert in_child(partial(heal, world, uids)) == 0
    report = check(world, backoff=(1,), max_crashes=CRASHES)
    assert report.problems == []
    assert report.sessions == len(uids)
    with closing(world.storage()) as storage:
        backlog = storage.reader.backlog()
    print(f"{reached.total()} kills at {len(reached)} points: {report.crashes} claims rescued; {backlog}")  # noqa: T201
