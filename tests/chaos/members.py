"""Who lives in a storm: producers that fire, workers that run, sweeps, a reviewer; and who finishes when it is over."""

from __future__ import annotations

import logging
import os
import random
import signal
import time
import zlib
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

from tests.chaos.doom import Doom
from tests.crash.world import CONFIGURATION, Journal, World, plan, review
from triggers.core.decisions import rescue
from triggers.exceptions import StorageError
from triggers.runners.threads import ThreadsRunner
from triggers.testing.faults import FaultyStorage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from pathlib import Path

    from tests.chaos.queue import Queue
    from tests.invariants import Fire
    from triggers import Triggers
    from triggers.runners.base import Runner, RunnerHost
    from triggers.storages.base import ReadyInstance

_T = TypeVar("_T")

#: How long a claim lasts, in seconds.
LEASE: Final = 1.0

#: How many instances a worker runs at the same time.
AT_ONCE: Final = 2

#: Notes that are fired into each session; all but the first have no key, so nobody dares to repeat them.
NOTES: Final = 3

#: The pause after a crash, in microseconds, in place of one that grows to a minute.
BACKOFF: Final = 50_000

#: Nobody needs more crashes than this.
CRASHES: Final = 1_000_000

#: The pause before somebody tries again what a storage that is away has refused, in seconds.
PAUSE: Final = 0.1

#: What is not finished so long after the storm never will be, in seconds.
ENDLESS: Final = float(os.environ.get("TRIGGERS_CHAOS_ENDLESS", "600"))

#: How long every second producer waits for the storage, in seconds, so that firings are refused, too.
HASTE: Final = 0.3

#: How many processes fire.
PRODUCERS: Final = 4

_SETTINGS: Final[dict[str, Any]] = {
    "lease": timedelta(seconds=LEASE),
    "grace": timedelta(seconds=1),
    "sweep_interval": timedelta(seconds=0.25),
    "max_crashes": CRASHES,
}


def busy(instance: str, fence: int) -> float:
    """A run takes up to 10 ms; one of 29 takes longer than a heartbeat's pause, so that it is renewed."""
    chance = zlib.crc32(f"{instance} {fence}".encode())
    return 0.3 if chance % 29 == 0 else (chance % 10) / 1000


class Deaf:
    """A runner to which nobody listens: all its hints are lost."""

    def start(self, work: RunnerHost) -> None:
        """Nothing will be called."""

    def submit(self, due: ReadyInstance) -> None:
        """Lose it."""

    def is_idle(self) -> bool:
        """Always."""
        return True

    def close(self, timeout: float | None) -> bool:
        """There is nothing to wait for."""
        return True


@dataclass(frozen=True, slots=True)
class Members:
    """What each of them does, in a process of its own.

    Attributes:
        folder: what is written down.
        url: of the storage.
        network: its URL by way of a network that fails; that of the workers.
        broker: URL of a broker for Celery workers; "" for workers that are threads of a process.
        seed: decides who dies by himself, and where.
    """

    folder: Path
    url: str
    network: str = ""
    broker: str = ""
    seed: int = 0
    world: World = field(init=False)
    deaths: Journal = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "world", World(self.folder, busy, url=self.url, synchronous="full"))
        object.__setattr__(self, "deaths", Journal(self.folder / "deaths"))

    def app(self, role: str, runner: Runner | None, *, doomed: bool = True, life: int = 0) -> Triggers:
        """An application as each of the processes has it."""
        url = self.network if role == "worker" else self.url
        if role == "producer" and doomed and life % 2 and url:
            url = f"{url}{'&' if '?' in url else '?'}timeout={HASTE}"
        world = World(self.folder, busy, url=url) if url else self.world
        storage = self._insist(world.storage)
        if doomed:
            storage = FaultyStorage(storage, Doom(self.deaths, role, self.seed + life))
        return world.app(runner, storage=storage, **_SETTINGS)

    def _insist(self, act: Callable[[], _T]) -> _T:
        """Do it, again and again while the storage is away."""
        while True:
            try:
                return act()
            except StorageError:
                logging.getLogger(__name__).info("refused", exc_info=True)
                time.sleep(PAUSE)

    def queue(self, *, calm: bool = False) -> Queue | None:
        """The way to the Celery workers, which is calm when the storm is over; None where there are none."""
        if not self.broker:
            return None
        from tests.chaos.queue import Queue  # noqa: PLC0415 - only what the extra brings

        return Queue(self.broker, self.seed, calm=calm)

    def prepare(self) -> None:
        """Make what all of them find: an empty storage, with a schema."""
        self.world.storage().close()

    # -- what they do ---------------------------------------------------------------------------------------

    def left_to_fire(self, sessions: Iterable[int]) -> list[Fire]:
        """What was not acknowledged; where there is no key to repeat it with, what was not even intended."""
        acknowledged = {(said["uid"], said["id"]) for said in self.world.acks.read()}
        intended = {(said["uid"], said["id"]) for said in self.world.intents.read()}
        fires = [fire for number in sessions for fire in plan(f"s-{number}", notes=NOTES)]
        return [
            fire
            for fire in fires
            if (fire.uid, fire.identity) not in (acknowledged if fire.key is not None else intended)
        ]

    def produce(self, place: int, sessions: int, life: int) -> None:
        """Fire what is left of some of the sessions, in any order, until nothing is."""
        queue = self.queue()
        app = self.app("producer", queue.runner(life) if queue else None, life=life)
        own = range(place, sessions, PRODUCERS)
        dice = random.Random(life)
        while left := self.left_to_fire(own):
            dice.shuffle(left)
            configured: set[str] = set()
            for fire in left:
                self._try(partial(self._configure_and_fire, app, fire, configured))
                time.sleep(dice.uniform(0, 0.05))

    def _configure_and_fire(self, app: Triggers, fire: Fire, configured: set[str]) -> None:
        if fire.uid not in configured:
            app.session(fire.uid).update_configuration(CONFIGURATION)
            configured.add(fire.uid)
        self.world.fire(app, fire)

    def _try(self, act: Callable[[], object]) -> None:
        try:
            act()
        except StorageError:
            logging.getLogger(__name__).info("refused", exc_info=True)
            time.sleep(PAUSE)

    def work(self, life: int, *, doomed: bool = True) -> None:
        """Run what is to be run, until the end of days, or until told to stop."""
        queue = self.queue(calm=not doomed)
        if queue:
            at_once = AT_ONCE if doomed else 2 * AT_ONCE  # the last one does the work of two
            queue.work(lambda runner: self.app("worker", runner, doomed=doomed, life=life), at_once)
            return
        stopping: list[int] = []
        signal.signal(signal.SIGTERM, lambda number, _: stopping.append(number))
        with self.app("worker", ThreadsRunner(AT_ONCE), doomed=doomed, life=life) as app:
            while not stopping:
                signal.pause()
            app.close(timeout=0)
            os._exit(0)  # a run that was let go may take its time; its end would be refused

    def sweep(self, life: int) -> None:
        """Rescue and hand over."""
        queue = self.queue()
        with self.app("sweep", queue.runner(life) if queue else Deaf(), life=life):
            while True:
                signal.pause()

    def review(self, life: int) -> None:
        """Look at every session, and do what a person does about failed instances."""
        queue = self.queue()
        app = self.app("reviewer", queue.runner(life) if queue else None, life=life)
        while True:
            self._try(lambda: [review(app, session.uid) for session in app.sessions()])
            time.sleep(0.05)

    def finish(self, sessions: int) -> None:
        """Nobody is killed any more, and all messages are lost: have all done that is left."""
        queue = self.queue(calm=True)
        if queue:
            logging.getLogger(__name__).info("%d messages are lost", queue.purge())
        runner = queue.runner(0) if queue else ThreadsRunner(AT_ONCE)
        with self.app("producer", runner, doomed=False) as app:
            while left := self.left_to_fire(range(sessions)):
                for fire in left:
                    self._try(partial(self._configure_and_fire, app, fire, set()))
            until = time.monotonic() + ENDLESS
            while not self._is_at_rest(app):
                assert time.monotonic() < until, f"something never ends: {app.backlog()}"

    def _is_at_rest(self, app: Triggers) -> bool:
        """Whether nothing was left to run, and then nothing to review."""
        ended = app.join(0.5)
        return not sum([review(app, session.uid) for session in app.sessions()]) and ended


def shorten_backoff() -> None:
    """In this process, and all that it forks, the pause after a crash is short."""
    rescue.CRASH_BACKOFF = (BACKOFF,)  # type: ignore[assignment]
