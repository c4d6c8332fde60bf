"""A simulated world: processes that die, hints that get lost, and a seeded scheduler, in one thread and virtual time.

Wherever a process calls its storage, others may come in between, and others between those. All chance comes
from one seed, so the same seed makes the same world again, step by step.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter, defaultdict
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, NamedTuple

from tests.invariants import Fire
from tests.simulation.ledger import Ledger
from tests.simulation.process import INTERLEAVED, Life
from tests.simulation.tasks import TRIGGERS, configuration, make_registry
from triggers.core.status import Status
from triggers.exceptions import (
    IdempotencyConflictError,
    InvalidStatusError,
    StorageBusyError,
    StorageError,
    UnknownTaskError,
)
from triggers.fired_by import firing_as
from triggers.testing.clock import VirtualClock
from triggers.testing.faults import InjectedCrash

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from triggers.storages.base import ReadyInstance, Storage
    from triggers.testing.faults import Faults

PROCESSES = 3
SESSIONS = ("one", "two")

#: Actions of the scheduler before everything is brought to rest.
ACTIONS = 280

#: How deep others may come in between.
DEPTH = 3

#: Rounds in which everything must have come to rest.
ROUNDS = 400

#: What happens next, and how likely: name of the method → weight.
WEIGHTS = {
    "fire": 9,
    "fire_later": 4,
    "deliver": 16,
    "step": 36,
    "beat": 8,
    "write_logs": 4,
    "sweep": 9,
    "pull": 2,
    "advance": 10,
    "kill": 1,
    "doom": 2,
    "restart": 6,
    "stall": 2,
    "wake": 3,
    "stop": 2,
    "configure": 1,
    "review": 10,
    "take_away": 1,
    "forge": 1,
    "compare": 1,
}

FATES = {"deliver": 6, "drop": 2, "twice": 2, "late": 2}


class Ground(NamedTuple):
    """What a world stands on.

    Attributes:
        open: opens another handle on its one storage, given the time and the faults of the process that uses it.
        points: a process that is doomed dies within so many points.
    """

    open: Callable[[Callable[[], int], Faults], Storage]
    points: int


class Time:
    """What the library knows as `time`: it goes by the simulation's clock, and sleeping lets others go on."""

    def __init__(self, world: World) -> None:
        self._world = world

    def monotonic(self) -> float:
        """The time in seconds, which no jump of the storage's clock changes."""
        return self._world.clock() / 1e6

    def sleep(self, seconds: float) -> None:
        """Let so much time pass, and others go on."""
        self._world.clock.advance(timedelta(seconds=seconds))
        self._world.interleave()


class World:
    """One simulation.

    Args:
        seed: decides everything.
        ground: where its storage is.
        jumps: whether the storage's clock jumps.
    """

    def __init__(self, seed: int, ground: Ground, *, jumps: bool = False) -> None:
        self.seed = seed
        self.dice = random.Random(seed)
        self.clock = VirtualClock()
        self.time = Time(self)
        self.offset = 0
        self.jumps = jumps
        self.ledger = Ledger(self._lost)
        self.registry = make_registry(self)
        self.trace: list[str] = []
        self.hints: list[tuple[int, ReadyInstance]] = []
        self.lives: list[Life] = []
        self.starts: Counter[tuple[str, str, int]] = Counter()
        self.fires = self._plan()
        self.waiting = list(self.fires)
        self.acknowledged: defaultdict[Fire, list[int]] = defaultdict(list)
        self.tries: Counter[Fire] = Counter()
        self.timed: set[Fire] = set()
        self._ground = ground
        self._births = 0
        self.broken: AssertionError | None = None
        self._depth = 0
        self._resting = True

    # -- what processes and tasks ask of the world -------------------------------------------------------------

    def now(self) -> int:
        """The storage's time."""
        return self.clock() + self.offset

    def open(self, faults: Faults) -> Storage:
        """A handle on the storage for a process."""
        return self._ground.open(self.now, faults)

    def post(self, due: ReadyInstance) -> None:
        """A hint is sent: it may get lost, come twice, or late, and overtake others."""
        fate = "deliver" if self._resting else self.dice.choices([*FATES], [*FATES.values()])[0]
        self.ledger.seen[f"hint: {fate}"] += 1
        late = self.dice.randrange(100_000_000) if fate == "late" else 0
        for _ in range({"drop": 0, "twice": 2}.get(fate, 1)):
            self.hints.append((self.clock() + late, due))

    def storage_is_away(self) -> bool:
        """Whether this call finds the storage locked."""
        return not self._resting and self.dice.random() < 0.02

    def interleave(self, chance: float = INTERLEAVED) -> None:
        """Others may come in between here. They are not part of the interrupted task."""
        while not self._resting and self._depth < DEPTH and self.dice.random() < chance:
            self._depth += 1
            try:
                with firing_as(None):
                    self.act()
            finally:
                self._depth -= 1

    def _lost(self, uid: str, task: str, number: int, fence: int) -> None:
        """A claim was taken away: whoever held it must have stopped to count on it by then."""
        for life in [] if self.jumps else self.lives:
            for held in life.heart.held:
                if held.lease == (uid, task, number, fence):
                    assert held.is_lost(), f"{life.name} still counts on {held} at {self.time.monotonic()}"

    # -- the scheduler -----------------------------------------------------------------------------------------

    def run(self) -> str:
        """Simulate, bring everything to rest, check; returns the hash of all that happened."""
        for _ in range(PROCESSES):
            self._start()
        for uid in SESSIONS:
            self.lives[0].triggers.session(uid).update_configuration(configuration(self.dice))
        self._resting = False
        for _ in range(ACTIONS):
            self.act()
        self._resting = True
        self.rest()
        self.trace.append(repr(self.ledger.compare(self.lives[0].base)))
        return hashlib.sha256("\n".join(self.trace).encode()).hexdigest()

    def act(self) -> None:
        """Let one thing happen."""
        name = self.dice.choices([*WEIGHTS], [*WEIGHTS.values()])[0]
        self.note(name)
        try:
            with self.watching():
                said = getattr(self, name)()
        except InjectedCrash as crash:
            said = f"died: {crash}"
        except StorageError as error:
            said = f"failed: {error}"
        self.note(f"{name}: {said}")
        if self.broken is not None:
            raise self.broken
        self._bury()

    @contextmanager
    def watching(self) -> Iterator[None]:
        """Remember that an invariant is broken, also where the library survives the error that says so."""
        try:
            yield
        except AssertionError as error:
            self.broken = self.broken or error
            raise

    def note(self, what: str) -> None:
        """Add a line to the trace."""
        self.trace.append(f"{self.clock()} {'  ' * self._depth}{what}")

    def _start(self) -> Life:
        self._births += 1
        life = Life(self, f"p{self._births}")
        self.lives.append(life)
        return life

    def _bury(self) -> None:
        for life in [life for life in self.lives if life.faults.dead]:
            self.ledger.seen["died"] += 1
            self.lives.remove(life)
            life.base.close()

    def _awake(self) -> list[Life]:
        return [life for life in self.lives if not life.paused]

    def _any(self) -> Life | None:
        awake = self._awake()
        return self.dice.choice(awake) if awake else None

    # -- what happens ------------------------------------------------------------------------------------------

    def _plan(self) -> list[Fire]:
        fires = []
        for what in range(self.dice.randrange(12, 32)):
            trigger = self.dice.choice(TRIGGERS)
            key = self.dice.choice([None, f"key {what}", f"key {what}"])
            fires.append(Fire(self.dice.choice(SESSIONS), trigger, what, key))
        return fires

    def fire(self) -> str | None:
        """Something in the outside world is fired, again if need be."""
        life = self._any()
        if life is None or not self.waiting:
            return None
        fire = self.dice.choice(self.waiting)
        self.send(life, fire)
        return f"{life.name} {fire.identity} as {self.acknowledged[fire][-1]}"

    def send(self, life: Life, fire: Fire) -> None:
        """Fire it; what is not known to be stored is tried again only where it has a key."""
        self.tries[fire] += 1
        known = bool(self.acknowledged[fire])
        if fire.key is None:
            self.waiting.remove(fire)
        try:
            done = life.triggers.session(fire.uid).fire(fire.trigger, fire.kwargs, key=fire.key)
        except StorageBusyError:
            if fire.key is None:
                self.waiting.append(fire)
                self.tries[fire] -= 1
            raise
        assert done.duplicate or not known, f"{fire} was stored once more"
        self.acknowledged[fire].append(done.number)
        if fire in self.waiting and self.dice.random() < 0.7:
            self.waiting.remove(fire)

    def fire_later(self) -> str | None:
        """Something in the outside world will be fired by a timer, which is set again if need be."""
        life = self._any()
        fresh = [fire for fire in self.waiting if not self.tries[fire]]
        if life is None or not fresh:
            return None
        fire, seconds = self.dice.choice(fresh), self.dice.choice([1, 5, 20, 90])
        self.waiting.remove(fire)
        for _ in range(2):
            try:
                name = f"timer {fire.identity}"
                given = {"after": seconds, "name": name, "key": fire.key}
                life.triggers.session(fire.uid).fire_later(fire.trigger, fire.kwargs, **given)
            except StorageBusyError:
                continue
            self.timed.add(fire)
            return f"{life.name} {fire.identity} in {seconds} s"
        return f"{life.name} could not set {name}"

    def forge(self) -> str | None:
        """A key is used again for something else."""
        life, known = self._any(), [fire for fire in self.fires if fire.key and self.acknowledged[fire]]
        if life is None or not known:
            return None
        fire = self.dice.choice(known)
        try:
            life.triggers.session(fire.uid).fire(fire.trigger, {"id": -1}, key=fire.key)
        except IdempotencyConflictError:
            return "refused"
        message = f"{fire.key} was taken for another firing"
        raise AssertionError(message)

    def deliver(self) -> str | None:
        """Any of the hints that are under way arrives anywhere."""
        life = self._any()
        arrived = [place for place, (at, _) in enumerate(self.hints) if at <= self.clock()]
        if life is None or not arrived:
            return None
        due = self.hints.pop(self.dice.choice(arrived))[1]
        if not life.has_room:
            return f"{life.name} has no room for it"
        if self.dice.random() < 0.2:
            return f"{life.name} {due} in one go: {life.triggers.run(due.uid, due.task, due.number)}"
        life.take_up(due)
        return f"{life.name} {due}"

    def step(self) -> str | None:
        """A run goes on."""
        ready = [(life, job) for life in self._awake() for job in life.jobs if not job.busy]
        if not ready:
            return None
        life, job = self.dice.choice(ready)
        life.step(job)
        return f"{life.name} {job.due}"

    def beat(self) -> str | None:
        """A process sends its heartbeats."""
        life = self._any()
        return life and f"{life.name} {life.beat()}"

    def write_logs(self) -> str | None:
        """A process stores what its running tasks have logged."""
        life = self._any()
        return life and f"{life.name} {life.write_logs()}"

    def sweep(self) -> str | None:
        """A process sweeps."""
        life = self._any()
        return life and f"{life.name} {life.triggers.sweep(include_recent=self.dice.random() < 0.2)}"

    def pull(self) -> str | None:
        """A process with nothing to do asks for work."""
        life = self._any()
        if life is None or not life.has_room:
            return None
        found = life.triggers.pull(2)
        for due in found:
            life.take_up(due)
        return f"{life.name} {found}"

    def advance(self) -> str:
        """Time passes; at times the storage's clock jumps."""
        span = self.dice.choice([0, 1, 1_000_000, 5_000_000, 10_000_000, 16_000_000, 61_000_000])
        self.clock.advance(timedelta(microseconds=span))
        if self.jumps and self.dice.random() < 0.3:
            self.offset = self.dice.choice([-3600, 0, 3600]) * 1_000_000
        return f"{span} {self.offset}"

    def kill(self) -> str | None:
        """A process dies."""
        life = self.dice.choice(self.lives) if self.lives else None
        if life is not None:
            life.kill()
        return life and life.name

    def doom(self) -> str | None:
        """A process will die at one of the next points that it passes."""
        life = self._any()
        if life is None:
            return None
        places = self.dice.randrange(1, self._ground.points)
        life.faults.die_at(places)
        return f"{life.name} {places}"

    def restart(self) -> str | None:
        """A process is started where one died."""
        return self._start().name if len(self.lives) < PROCESSES else None

    def stall(self) -> str | None:
        """A process stands still."""
        life = self._any()
        if life is not None:
            life.paused = True
        return life and life.name

    def wake(self) -> str | None:
        """A process goes on that stood still, and knows nothing of it."""
        paused = [life for life in self.lives if life.paused]
        if not paused:
            return None
        life = self.dice.choice(paused)
        life.paused = False
        return life.name

    def stop(self) -> str | None:
        """A process lets its runs go; they end all the same, and too late."""
        life = self._any()
        if life is not None:
            life.triggers.close(timeout=0)
        return life and life.name

    def configure(self) -> str | None:
        """A session gets other rules."""
        life = self._any()
        if life is None:
            return None
        uid, catch_up = self.dice.choice(SESSIONS), self.dice.random() < 0.5
        life.triggers.session(uid).replace_configuration(configuration(self.dice), catch_up=catch_up)
        return f"{life.name} {uid}"

    def review(self) -> str | None:
        """A person, who saw a failed instance, replays or skips it; by then somebody else may have done so."""
        return self._by_hand({Status.FAILED}, self._review)

    def _review(self, life: Life, uid: str, name: str) -> str:
        manager = life.triggers.session(uid)
        choice = self.dice.randrange(3)
        if choice == 0:
            return f"replayed as {manager.replay_failed_instance(name).name}"
        manager.skip_failed_instance(name, cascade=choice == 1)
        return f"skipped {name}"

    def take_away(self) -> str | None:
        """A person takes an instance away from whoever runs it."""

        def take(life: Life, uid: str, name: str) -> str:
            life.triggers.session(uid).update_instance_status(name, Status.SCHEDULED)
            return f"took {name}"

        return self._by_hand({Status.RUNNING}, take)

    def _by_hand(self, statuses: set[Status], act: Callable[[Life, str, str], str]) -> str | None:
        life, uid = self._any(), self.dice.choice(SESSIONS)
        found = sorted(i.name for i in life.base.reader.instances(uid, statuses=statuses)) if life else []
        if life is None or not found:
            return None
        try:
            return act(life, uid, self.dice.choice(found))
        except (InvalidStatusError, UnknownTaskError) as error:
            return f"refused: {error}"

    def compare(self) -> None:
        """Every session is what the model says, also in the middle of it all."""
        if self.lives:
            self.ledger.compare(self.lives[0].base)

    # -- at rest -----------------------------------------------------------------------------------------------

    def rest(self) -> None:
        """Let everything that lives go on until there is nothing left to do.

        Raises:
            AssertionError: something is stuck.
        """
        for life in self.lives:
            life.faults.revive()
            life.paused = False
        life = self._start()
        for _ in range(ROUNDS):
            for fire in [fire for fire in self.waiting if fire.key or not self.tries[fire]]:
                self.send(life, fire)
            self.waiting = []
            life.triggers.sweep()
            self._run_all(life)
            backlog = life.base.reader.backlog()
            timer_at = life.triggers._sweep.timekeeper.next_at()
            if not (self.hints or backlog.ready or backlog.later or backlog.running or timer_at):
                return
            next_at = min(filter(None, (life.base.reader.next_at(), timer_at)), default=None)
            span = 1_000_000 if next_at is None else max(next_at - self.now(), 0) + 1
            self.clock.advance(timedelta(microseconds=span))
        message = f"stuck: {life.base.reader.backlog()}, {len(self.hints)} hints"
        raise AssertionError(message)

    def _run_all(self, life: Life) -> None:
        for other in self.lives:
            while other.jobs:
                other.step(other.jobs[0])
        while arrived := [hint for hint in self.hints if hint[0] <= self.clock()]:
            for hint in arrived:
                self.hints.remove(hint)
                life.triggers.run(*hint[1][:3])
