"""Take a safeguard away, and the check that passes with it fails: what proves the safeguards can see them missing.

Each mutant is made in a process of its own, by replacing one thing in it; nothing in the library is switched.
"""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.crash.checker import check
from tests.crash.healing import Ticking, rest
from tests.crash.processes import in_child
from tests.crash.steps import POLICY, STEPS, Scene
from tests.crash.test_points import killed_everywhere
from tests.crash.world import World
from triggers.core import decisions
from triggers.core.decisions.unit_of_work import UnitOfWork
from triggers.core.exchange import Decision
from triggers.core.state import Firing
from triggers.core.status import Status
from triggers.core.values import encode
from triggers.exceptions import InvalidValueError, StorageBusyError, StorageError
from triggers.storages.base import run_decision
from triggers.storages.clock import wall_clock
from triggers.storages.sqlite import SqliteStorage
from triggers.storages.sqlite import file as sqlite_file
from triggers.storages.sqlite.storage import SQL
from triggers.task import task
from triggers.testing.clock import VirtualClock
from triggers.testing.conformance.steps import Steps
from triggers.worker import attempt, executor
from triggers.worker.sweep import Sweep, SweepReport

if TYPE_CHECKING:
    from pathlib import Path

Examine = Callable[[World], list[str]]


def put(place: Any, name: str, value: object) -> None:
    """Replace something that is there, for the rest of this process's life."""
    assert hasattr(place, name), f"{place} has no {name} to be replaced"
    setattr(place, name, value)


# -- what is examined: each of these finds nothing wrong with the library as it is ----------------------------


def killed_at(step: str) -> Examine:
    """Whether anything is wrong after a death right after a commit of this step."""

    def examine(world: World) -> list[str]:
        _, problems = killed_everywhere(
            STEPS[step], world.folder / "points", heal_all=False, only="after COMMIT"
        )
        return [f"{point}: {problem}" for point, found in problems.items() for problem in found]

    _DEATHS.append(examine)
    return examine


_DEATHS: list[Examine] = []


def scene_of(world: World) -> Scene:
    """A session in which all has happened, in the hands of this process."""
    clock = Ticking()
    scene = Scene(world, world.storage(clock), clock, "s-1")
    scene.fire_all()
    return scene


def a_ghost_ends(world: World) -> list[str]:
    """An attempt that lost its lease ends while another one runs."""
    scene = scene_of(world)
    ghost = scene.start("t_subject#0")
    scene.clock.advance(61)
    scene.app.sweep()
    scene.clock.advance(2)
    rightful = scene.start("t_subject#0")
    scene.steps.finish(ghost, {"fence": ghost.fence})
    scene.steps.finish(rightful, {"fence": rightful.fence})
    return at_rest(scene)


def a_slow_sweep_recovers(world: World) -> list[str]:
    """A sweep acts on what it saw a minute ago; another one was faster, and the instance runs again."""
    scene = scene_of(world)
    scene.start("t_subject#0")
    scene.clock.advance(61)
    (seen,) = scene.storage.expired(10)
    scene.app.sweep()
    scene.clock.advance(2)
    alive = scene.start("t_subject#0")
    scene.app._sweep._recover(seen)
    refused = scene.steps.finish(alive, {"fence": alive.fence}).refused
    return [f"a live attempt was refused: {refused}"] if refused else at_rest(scene)


def at_rest(scene: Scene) -> list[str]:
    """What is wrong when everything has come to rest."""
    rest(scene.world.app("inline", storage=scene.storage), scene.clock, [scene.uid])
    return check(scene.world, expect=False).problems


def two_fire_at_once(world: World) -> list[str]:
    """While one process decides what a firing does, another one fires the last other trigger of the same join."""
    clock = Ticking()
    one, other = (
        Scene(world, world.storage(clock), clock, "s-1"),
        Scene(world, world.storage(clock), clock, "s-1"),
    )
    one.app.session("s-1").update_configuration({"t_join": {"after": ["x", "y", "z"], "run": "plain"}})
    one.steps.fire("z")
    refused: list[bool] = []

    def fire_y(timeout: float | None) -> None:
        other.storage.commit("s-1", decisions.fire(POLICY, Firing(0, "y", "{}", 0)), timeout=timeout)

    def meanwhile() -> None:
        if refused:
            return  # it was done already, on an earlier try of the same firing
        try:
            fire_y(0.05)
            refused.append(False)
        except StorageBusyError:
            refused.append(True)

    fire_x = decisions.fire(POLICY, Firing(0, "x", "{}", 0))

    def begin(session):
        run = fire_x(session)
        found = yield next(run)
        meanwhile()
        while True:
            try:
                need = run.send(found)
            except StopIteration as end:
                return end.value
            found = yield need

    try:
        one.storage.commit("s-1", replace(fire_x, begin=begin))
    except StorageError as error:
        return [f"a firing failed: {type(error).__name__}: {error}"]
    if refused == [True]:
        fire_y(None)
    joined = one.steps["t_join#0"]
    wrong = joined.status != "scheduled" or joined.taken.keys() != {"x", "y", "z"}
    return [f"the join is {joined.status} with {sorted(joined.taken)}"] if wrong else []


def two_claim_one(world: World) -> list[str]:
    """While a task runs, another process of the same machine is told to run it, too."""

    @task(name="once", registry=world.registry)
    def once(context):
        world.begin(context)
        if len(world.starts("t_once#0")) == 1:
            world.app(None).run("s-1", "t_once", 0)

    app = world.app("inline")
    app.session("s-1").update_configuration({"t_once": {"after": ["go"], "run": "once"}})
    app.session("s-1").fire("go")
    count = len(world.starts("t_once#0"))
    return [f"it ran {count} times"] if count != 1 else []


def a_renewed_claim_is_lost(world: World) -> list[str]:
    """A worker dies after a heartbeat: by the storage's clock its claim runs out one lease later."""
    clock = VirtualClock()
    storage = world.storage(clock)
    app = world.app(None, storage=storage)
    steps = Steps(storage, "s-1", POLICY)
    app.session("s-1").update_configuration({"t_plain": {"after": ["go"], "run": "plain"}})
    app.session("s-1").fire("go")
    attempt = steps.start("t_plain#0", lease=60_000_000)
    steps.renew(attempt, lease=60_000_000)
    early = app.sweep().recovered
    clock.advance(timedelta(seconds=61))
    found = (early, app.sweep().recovered)
    return [] if found == (0, 1) else [f"the sweeps recovered {found}, should be (0, 1)"]


def a_result_cannot_be_stored(world: World) -> list[str]:
    """A task returns what cannot be stored."""

    @task(name="bad", registry=world.registry)
    def bad(context):
        world.begin(context)
        return {"an object": object()}

    app = world.app("inline")
    manager = app.session("s-1")
    manager.update_configuration({"t_bad": {"after": ["go"], "run": "bad"}})
    manager.fire("go")
    ended = manager.storage["t_bad#0"]
    is_right = ended.status == "failed" and (ended.error or {}).get("type") == "InvalidValueError"
    return [] if is_right else [f"it is {ended.status}, because of {ended.error}"]


# -- what is taken away -----------------------------------------------------------------------------------------


def no_fence() -> None:
    """Who ends an instance is not asked for the fence of its claim."""
    put(UnitOfWork, "is_held", lambda _, instance, __: instance.status is Status.RUNNING)
    unguarded = re.sub(r"AND fence = (\?\d+)", r"AND \1 IS NOT NULL", SQL["instance_move"])
    assert unguarded != SQL["instance_move"]
    SQL["instance_move"] = unguarded


def cascade_apart() -> None:
    """An instance is finished in one commit, and its cascade fired in a second one."""
    cascade = UnitOfWork.cascade

    def finish(steps: Steps, attempt, result):
        put(UnitOfWork, "cascade", lambda *_: None)
        changes = steps.commit(decisions.finish(steps.policy, attempt, "{}"))
        put(UnitOfWork, "cascade", cascade)

        def fire_it(session):
            work = UnitOfWork(session, steps.policy)
            instance = yield from work.load_instance(attempt.task, attempt.number, Status.FINISHED)
            work.save_whole(instance)
            work.cascade(instance, json.dumps(result))
            return work.done()

        steps.commit(Decision("cascade", fire_it))
        return changes

    put(Steps, "finish", finish)


def no_sweep() -> None:
    """Nobody sweeps."""
    put(Sweep, "once", lambda _, **__: SweepReport())


def publish_without_outbox() -> None:
    """A released instance is only ever named by the hint that follows the commit."""
    put(SqliteStorage, "due", lambda *_, **__: [])


def delete_outbox_on_publish() -> None:
    """An instance leaves the outbox when it is handed over, not when it is claimed."""
    never = "dispatch_after = max(?, 9000000000000000000)"
    marked = SQL["dispatched"].replace("dispatch_after = ?", never)
    assert marked != SQL["dispatched"]
    SQL["dispatched"] = marked


def no_dedupe() -> None:
    """Keys of firings are ignored."""
    fire = decisions.fire
    put(decisions, "fire", lambda policy, firing, rules=None: fire(policy, firing._replace(key=None), rules))


def deferred_begin() -> None:
    """Transactions take the write lock at their first write, after they have read."""

    class Connection:
        def __init__(self, connection):
            self._connection = connection

        def __getattr__(self, name):
            return getattr(self._connection, name)

        def execute(self, statement, given=()):
            return self._connection.execute(statement.replace("BEGIN IMMEDIATE", "BEGIN DEFERRED"), given)

    class Driver:
        def __init__(self, module):
            self._module = module

        def __getattr__(self, name):
            return getattr(self._module, name)

        def connect(self, *args, **kwargs):
            return Connection(self._module.connect(*args, **kwargs))

    load = sqlite_file.load_driver
    put(sqlite_file, "load_driver", lambda name: Driver(load(name)))


def no_session_lock() -> None:
    """A decision is made from what was read before the lock is taken."""

    def commit(storage, uid, decision, timeout=None):
        with storage._file.reading() as run:
            session = storage._load_session(run, uid)
            changes = run_decision(decision, session, partial(storage._load, run, session), exclusive=True)
        with storage._file.transaction(timeout) as run:
            storage._apply(run, changes)
        return changes

    put(SqliteStorage, "commit", commit)


def recover_without_fence_check() -> None:
    """A sweep takes an instance away whatever has become of it since it was seen."""

    def recover(policy, task, number, *_, **__):
        def begin(session):
            work = UnitOfWork(session, policy, head=False)
            instance = yield from work.load_instance(task, number)
            instance.crashes += 1
            work.save_whole(instance)
            instance.fence += 1
            work.transition(instance, Status.SCHEDULED, "lease lost by somebody")
            instance.run_at = instance.dispatch_after = session.now + 1
            return work.done()

        return Decision("recover", begin, exclusive=False)

    put(decisions, "recover", recover)


def client_clock_lease() -> None:
    """A heartbeat counts its lease from the worker's own clock."""
    renew = SqliteStorage.renew

    def renew_by_own_clock(storage, leases, lease):
        clock, storage._clock = storage._clock, wall_clock
        try:
            return renew(storage, leases, lease)
        finally:
            storage._clock = clock

    put(SqliteStorage, "renew", renew_by_own_clock)


def reuse_owner_id() -> None:
    """Claims of different processes have the same name."""
    put(executor.ClaimIds, "next", lambda _: "worker-1")


def finish_before_validate() -> None:
    """The instance is moved first; whether its result can be stored is found out after that."""

    def finish(policy, attempt, result, rules):
        def begin(session):
            work = UnitOfWork(session, policy)
            instance = yield from work.load_instance(attempt.task, attempt.number, Status.FINISHED)
            work.end(instance, Status.FINISHED, attempt)
            with contextlib.suppress(InvalidValueError):
                work.cascade(instance, encode(result, "result"))
            return work.done()

        return Decision("finish", begin)

    put(attempt.RunningAttempt, "_result", lambda _, returned: returned)
    put(decisions, "finish", finish)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A safeguard that is missing.

    Attributes:
        make: takes it away from this process.
        examine: what finds nothing wrong otherwise.
        symptom: what it finds, as a regular expression.
    """

    make: Callable[[], None]
    examine: Examine
    symptom: str


MUTANTS = [
    Mutant(no_fence, a_ghost_ends, r"has fence 3, the accepted end was of 1"),
    Mutant(
        cascade_apart, killed_at("finish, with a cascade"), r"t_subject#0 is finished and cascaded 0 times"
    ),
    Mutant(no_sweep, killed_at("claim"), r"t_subject#0 is still running"),
    Mutant(
        publish_without_outbox,
        killed_at("fire, which completes joins"),
        r"after COMMIT: .* is still scheduled",
    ),
    Mutant(delete_outbox_on_publish, killed_at("dispatch"), r"after COMMIT: .* is still scheduled"),
    Mutant(
        no_dedupe,
        killed_at("fire, which makes an instance"),
        r"after COMMIT: .*'first-0'\) was fired 2 times",
    ),
    Mutant(deferred_begin, two_fire_at_once, r"a firing failed: StorageBusyError"),
    Mutant(no_session_lock, two_fire_at_once, r"a firing failed|the join is unstarted"),
    Mutant(recover_without_fence_check, a_slow_sweep_recovers, r"a live attempt was refused"),
    Mutant(client_clock_lease, a_renewed_claim_is_lost, r"recovered \(0, 0\)"),
    Mutant(reuse_owner_id, two_claim_one, r"it ran 2 times"),
    Mutant(finish_before_validate, a_result_cannot_be_stored, r"it is finished, because of None"),
]


def examined(folder: Path, examine: Examine, make: Callable[[], None] = lambda: None) -> list[str]:
    """What an examination finds in a process of its own, in which something may have been taken away."""
    report = folder / "problems"

    def act() -> None:
        make()
        report.write_text(json.dumps(examine(World(folder))), "utf-8")

    assert in_child(act) == 0
    found: list[str] = json.loads(report.read_text("utf-8"))
    return found


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.make.__name__)
def test_a_missing_safeguard_is_seen(mutant, tmp_path):
    """Without the safeguard the examination finds the very harm that the safeguard is there to prevent."""
    found = examined(tmp_path, mutant.examine, mutant.make)
    assert [problem for problem in found if re.search(mutant.symptom, problem)], found


#: Deaths at every point of every step are examined, with all safeguards in place, beside the steps.
_EXAMINATIONS = {
    mutant.examine: mutant.make.__name__ for mutant in reversed(MUTANTS) if mutant.examine not in _DEATHS
}


@pytest.mark.parametrize("examine", _EXAMINATIONS, ids=_EXAMINATIONS.values())
def test_with_all_safeguards_in_place_nothing_is_found(examine, tmp_path):
    """The same examination of the library as it is finds nothing, so what it finds in a mutant is the mutant's."""
    assert examined(tmp_path, examine) == []
