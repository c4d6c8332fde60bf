"""One life of a simulated process: the real application on a storage that is watched, faulty and shared."""

from __future__ import annotations

import dataclasses
import inspect
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from triggers.app import Triggers
from triggers.core import decisions
from triggers.core.exchange import Decision
from triggers.exceptions import StorageBusyError, StorageError
from triggers.manager import FinalizingTriggerManager
from triggers.testing.faults import Faults, FaultyStorage, InjectedCrash
from triggers.worker.attempt import RunningAttempt
from triggers.worker.heartbeat import Heartbeat
from triggers.worker.log_writer import ManualLogWriter

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Sequence

    from tests.simulation.world import World
    from triggers.core.exchange import Changes, DecisionRun
    from triggers.core.state import Session
    from triggers.storages.base import Expired, Lease, Reader, ReadyInstance, Storage, TimedSession
    from triggers.worker.heartbeat import HeldClaim

LEASE = timedelta(seconds=60)
GRACE = timedelta(seconds=30)

#: How likely others come in between, at each place where they can.
INTERLEAVED = 0.08

#: Runs that a process takes up at the same time.
ROOM = 3


class QuietHeartbeat(Heartbeat):
    """A heartbeat without threads: the simulation says when it beats, and a timeout is stored within the beat."""

    def _has_thread(self) -> bool:
        return True

    def _begin_to_expire(self, one: HeldClaim) -> None:
        one.overdue = True
        self._expire(one)

    @property
    def held(self) -> list[HeldClaim]:
        """What this process holds now, in an order that is the same in every run of the simulation."""
        return sorted(self._items, key=lambda held: held.lease)


class Names:
    """Names of claims that are the same in every run of the simulation."""

    def __init__(self, life: str) -> None:
        self._life = life
        self._count = 0

    def next(self) -> str:
        """A name for one claim."""
        self._count += 1
        return f"{self._life}:{self._count}"


class Post:
    """A runner that posts hints to a queue that all processes share, and that is as unreliable as the world."""

    def __init__(self, world: World) -> None:
        self._world = world

    def start(self, work: Any) -> None:
        """Learn what to call, which is not needed: the simulation takes what arrives."""

    def submit(self, due: ReadyInstance) -> None:
        """Post a hint."""
        self._world.post(due)

    def is_idle(self) -> bool:
        """It never runs anything itself."""
        return True

    def close(self, timeout: float | None) -> bool:
        """What runs goes on, and is not waited for."""
        return False


class WatchedStorage:
    """The storage as one process sees it: others come in between its calls, and what it commits is written down."""

    def __init__(self, world: World, faults: Faults, storage: Storage) -> None:
        self._world = world
        self._faults = faults
        self._storage = storage

    @property
    def reader(self) -> Reader:
        """The storage's own."""
        return self._storage.reader

    def now(self) -> int:
        """The storage's time."""
        return self._storage.now()

    def close(self) -> None:
        """Let go of the connections."""
        self._storage.close()

    def commit(self, uid: str, decision: Decision, timeout: float | None = None) -> Changes:
        """Commit, and note what was committed even where the process dies before it learns of it."""
        made: list[tuple[str, dict[str, Any], Changes]] = []
        given = _given(decision)
        if decision.prefetch and decision.prefetch.instances:
            ((given["task"], given["number"]),) = decision.prefetch.instances

        def watched(session: Session) -> DecisionRun:
            changes = yield from decision(session)
            made[:] = [(decision.name, given, changes)]
            return changes

        self._between(may_be_away=True)
        try:
            changes = self._storage.commit(uid, replace(decision, begin=watched), timeout)
        except InjectedCrash:
            if self._is_after_commit:
                self._note(*made[0])
            raise
        self._note(*made[0])
        self._between()
        return changes

    def _note(self, *made: Any) -> None:
        with self._world.watching():
            self._world.ledger.note(*made)

    @property
    def _is_after_commit(self) -> bool:
        """Whether the process died when all was stored already."""
        return self._faults.dead.startswith(("after commit", "after COMMIT", "after renew"))

    def commit_many(
        self, decisions: Sequence[tuple[str, Decision]], timeout: float | None = None
    ) -> list[Changes | Exception]:
        """Commit each by itself, so that it is known which of them are stored when the process dies."""
        done: list[Changes | Exception] = []
        for uid, decision in decisions:
            try:
                done.append(self.commit(uid, decision, timeout))
            except StorageError as error:
                done.append(error)
        return done

    def timed_sessions(self, limit: int, managers: Collection[str]) -> list[TimedSession]:
        """The sessions that have timers; by the time that they are looked at, others may have looked."""
        found = self._storage.timed_sessions(limit, managers)
        self._between(chance=0.3 if found else 0)
        return found

    def renew(self, leases: Collection[Lease], lease: int) -> set[Lease]:
        """Renew claims."""
        self._between(may_be_away=True)
        until = self._storage.now() + lease
        try:
            lost = self._storage.renew(leases, lease)
        except InjectedCrash:
            if self._is_after_commit:
                self._world.ledger.renew(leases, until)
            raise
        with self._world.watching():
            assert lost == set(leases) - self._world.ledger.renew(leases, until)
        self._between()
        return lost

    def due(self, limit: int, *, grace: int, include_recent: bool = False) -> list[ReadyInstance]:
        """Take what is due."""
        self._between(may_be_away=True)
        found = self._storage.due(limit, grace=grace, include_recent=include_recent)
        self._between()
        return found

    def expired(self, limit: int) -> list[Expired]:
        """The claims that ran out; by the time that they are looked at, others may have looked."""
        found = self._storage.expired(limit)
        self._between(chance=0.85 if found else 0)
        return found

    def _between(self, *, may_be_away: bool = False, chance: float = INTERLEAVED) -> None:
        self._world.interleave(chance)
        self._faults.check()
        if may_be_away and self._world.storage_is_away():
            message = "the storage is away, says the simulation"
            raise StorageBusyError(message)


def _given(decision: Decision) -> dict[str, Any]:
    """What the decision was made from, and as of when, if that is not when it is made."""
    given = dict(inspect.getclosurevars(decision.begin).nonlocals)
    if isinstance(given.get("self"), Decision):
        return _given(given["self"]) | {"called_at": given["at"]}
    return given


@dataclass(slots=True, eq=False)
class Job:
    """A run that is under way; each step takes it to the next place where others may come in between."""

    due: ReadyInstance
    steps: Generator[None, None, None]
    busy: bool = False


@dataclass(slots=True, eq=False)
class Life:
    """One life of a process, from its start until it dies or is stopped.

    Attributes:
        world: where it lives.
        name: of the process, with the number of its life.
        paused: whether it stands still, as under SIGSTOP.
        jobs: the runs that it has taken up.
    """

    world: World
    name: str
    paused: bool = False
    faults: Faults = field(init=False, default_factory=Faults)
    jobs: list[Job] = field(init=False, default_factory=list)
    base: Storage = field(init=False)
    triggers: Triggers = field(init=False)

    def __post_init__(self) -> None:
        self.base = self.world.open(self.faults)
        storage = WatchedStorage(self.world, self.faults, FaultyStorage(self.base, self.faults))
        self.triggers = Triggers(
            storage,
            runner=Post(self.world),
            registry=self.world.registry,
            manager=FinalizingTriggerManager,
            lease=LEASE,
            grace=GRACE,
        )
        executor = self.triggers._executor
        executor.heartbeat = QuietHeartbeat(storage)
        executor.log_writer = ManualLogWriter()
        executor._owner = Names(self.name)  # type: ignore[assignment]

    @property
    def heart(self) -> Heartbeat:
        """Its heartbeat."""
        return self.triggers._executor.heartbeat

    @property
    def has_room(self) -> bool:
        """Whether it can take up another run."""
        return len(self.jobs) < ROOM

    def take_up(self, due: ReadyInstance) -> None:
        """Begin to follow a hint."""
        self.jobs.append(Job(due, self._run(due)))

    def step(self, job: Job) -> None:
        """Take one of its runs one step on."""
        job.busy = True
        try:
            next(job.steps)
        except (StopIteration, StorageError):
            self.jobs.remove(job)
        finally:
            job.busy = False

    def _run(self, due: ReadyInstance) -> Generator[None, None, None]:
        """The same as `Executor.run`, with places to stand still in between."""
        executor = self.triggers._executor
        before = self.world.time.monotonic()
        claimed = executor._claim(due.uid, due.task, due.number)
        if (
            claimed.refused == decisions.MUST_RUN_ALONE
        ):  # what runs beside it here is no part of the simulation
            name = decisions.alone(executor._owner.next())
            claimed = executor._claim(due.uid, due.task, due.number, name)
        if claimed.claimed is None:
            return
        run = RunningAttempt(executor.context, claimed, claimed.claimed, before)
        self.heart.hold(run.held)
        yield
        ending = run._outcome()
        yield
        run._end(ending)
        self.heart.drop(run.held)
        run.log.close()

    def beat(self) -> int:
        """Send the heartbeats that are due; returns how many."""
        due = [held for held in self.heart.held if held.due_at <= self.world.time.monotonic()]
        self.heart.beat(due)
        return len(due)

    def write_logs(self) -> int:
        """Store what the running tasks have logged; returns in how many logs something waited."""
        writer = self.triggers._executor.log_writer
        logs = sorted(writer.items, key=lambda log: dataclasses.astuple(log.identity))
        writer.act(logs)
        return len(logs)

    def kill(self) -> None:
        """Let it die here and now."""
        if not self.faults.dead:
            self.faults.die_at(1)
            try:
                self.faults.reach("the middle of nothing")
            except InjectedCrash:
                return
