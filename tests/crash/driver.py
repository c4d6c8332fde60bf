"""The kill soak: producers, workers and a reviewer on one file, killed and paused at random moments, again and again.

As a program: ``python -m tests.crash.driver FOLDER KILLS SEED``. One process, which has no thread and nothing open,
forks all others and kills them; it prints what it did as a line of JSON.
"""

from __future__ import annotations

import json
import logging
import os
import random
import signal
import sys
import time
import zlib
from collections import Counter
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tests.crash.processes import begin, end
from tests.crash.world import CONFIGURATION, World, plan, review
from triggers.core.decisions import rescue
from triggers.runners.threads import ThreadsRunner

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.invariants import Fire
    from triggers import Triggers

#: How long a claim lasts, in seconds.
LEASE = 0.6

#: Threads of a worker: so many runs are lost with it at most.
THREADS = 2

#: Notes that are fired into each session; all but the first have no key, so nobody dares to repeat them.
NOTES = 3

#: The pause after a crash, in microseconds, in place of one that grows to a minute.
BACKOFF = 50_000

#: More sessions are begun, so many at a time, as long as processes are still to be killed.
STRIDE = 8

#: This part of the victims, if they have a run in hand, is paused for longer than a lease instead of being killed.
PAUSES = 0.4

#: Nobody needs more crashes than this.
CRASHES = 1_000_000


def busy(instance: str, fence: int) -> float:
    """A run takes up to 20 ms, and now and then ten times as long, so that those who are paused have work in hand."""
    chance = zlib.crc32(f"{instance} {fence}".encode())
    return (chance % 20) / (100 if chance % 7 == 0 else 1000)


class Soak:
    """All of it.

    Args:
        folder: for the files.
        kills: how many processes are killed.
        seed: decides who is killed and when.
    """

    def __init__(self, folder: Path, kills: int, seed: int) -> None:
        self.world = World(folder, busy, synchronous="full")
        self.wanted = kills
        self.dice = random.Random(seed)
        self.opened = STRIDE
        self.kills = {"producer": 0, "worker": 0, "reviewer": 0}
        self.pauses = 0
        self.lives = 0
        self.living: dict[int, str] = {}
        self.paused: dict[int, float] = {}

    # -- who lives here -----------------------------------------------------------------------------------

    def app(self, *, works: bool) -> Triggers:
        """An application as each of the processes has it."""
        return self.world.app(
            ThreadsRunner(THREADS) if works else None,
            lease=timedelta(seconds=LEASE),
            grace=timedelta(seconds=0.3),
            sweep_interval=timedelta(seconds=0.15),
            max_crashes=CRASHES,
        )

    def left_to_fire(self) -> list[Fire]:
        """What was not acknowledged; where there is no key to repeat it with, what was not even intended."""
        acknowledged = {(said["uid"], said["id"]) for said in self.world.acks.read()}
        intended = {(said["uid"], said["id"]) for said in self.world.intents.read()}
        fires = [fire for number in range(self.opened) for fire in plan(f"s-{number}", notes=NOTES)]
        return [
            fire
            for fire in fires
            if (fire.uid, fire.identity) not in (acknowledged if fire.key is not None else intended)
        ]

    def produce(self, place: int) -> None:
        """Fire what is left of every other session, in any order."""
        app = self.app(works=False)
        left = [fire for fire in self.left_to_fire() if int(fire.uid[2:]) % 2 == place]
        random.Random(self.lives).shuffle(left)
        configured = set()
        for fire in left:
            if fire.uid not in configured:
                configured.add(fire.uid)
                app.session(fire.uid).update_configuration(CONFIGURATION)
            self.world.fire(app, fire)

    def work(self) -> None:
        """Run what is to be run, until the end of days."""
        with self.app(works=True):
            signal.pause()

    def review(self) -> None:
        """Look at every session, and do what a person does about failed instances."""
        app = self.app(works=False)
        while True:
            for session in app.sessions():
                review(app, session.uid)
            time.sleep(0.05)

    def finish(self) -> None:
        """Nobody is killed any more: do all that is left."""
        with self.app(works=True) as app:
            for fire in self.left_to_fire():
                app.session(fire.uid).update_configuration(CONFIGURATION)
                self.world.fire(app, fire)
            while True:
                assert app.join(120), f"something never ends: {app.storage.reader.backlog()}"
                if not sum(review(app, session.uid) for session in app.sessions()):
                    return

    # -- who kills them ------------------------------------------------------------------------------------

    def bear(self, role: str) -> None:
        """Let a process of that role begin to live."""
        self.lives += 1
        roles: dict[str, Callable[[], None]] = {
            "producer 0": partial(self.produce, 0),
            "producer 1": partial(self.produce, 1),
            "reviewer": self.review,
        }
        self.living[begin(roles.get(role, self.work))] = role

    def kill(self, pid: int) -> None:
        """Kill one, paused or not."""
        os.kill(pid, signal.SIGKILL)
        self.paused.pop(pid, None)
        if end(pid) == -signal.SIGKILL:
            self.kills[self.living[pid].partition(" ")[0]] += 1
        del self.living[pid]

    def bury(self) -> None:
        """A producer that has fired everything ends by itself; nobody else does."""
        for pid, role in list(self.living.items()):
            found, status = os.waitpid(pid, os.WNOHANG)
            if found:
                del self.living[pid]
                self.paused.pop(pid, None)
                code = os.waitstatus_to_exitcode(status)
                assert (role.partition(" ")[0], code) == ("producer", 0), f"{role} ended with {code}"

    def resume(self, now: float) -> None:
        """Wake those who were paused for long enough."""
        for pid in [pid for pid, until in self.paused.items() if until <= now]:
            del self.paused[pid]
            os.kill(pid, signal.SIGCONT)

    def at_work(self) -> set[int]:
        """Those who have a run in hand."""
        runs: Counter[int] = Counter()
        for run in self.world.runs.read():
            runs[run["pid"]] += 1 if run["what"] == "start" else -1
        return {pid for pid, count in runs.items() if count > 0}

    def strike(self) -> None:
        """Kill or pause somebody."""
        pid = self.dice.choice(list(self.living))
        if pid not in self.paused and self.dice.random() < PAUSES and pid in self.at_work():
            os.kill(pid, signal.SIGSTOP)
            self.paused[pid] = time.monotonic() + LEASE * self.dice.uniform(1.4, 2)
            self.pauses += 1
        elif pid not in self.paused:
            self.kill(pid)

    def run(self) -> dict[str, object]:
        """Kill as many as wanted, let the others finish; what was done, in numbers."""
        began = time.monotonic()
        logging.basicConfig(filename=self.world.folder / "errors.log", level=logging.ERROR)
        rescue.CRASH_BACKOFF = (BACKOFF,)  # type: ignore[assignment]
        roles = ["producer 0", "producer 1", "worker 0", "worker 1", "worker 2", "reviewer"]
        while sum(self.kills.values()) < self.wanted:
            self.bury()
            missing = [role for role in roles if role not in self.living.values()]
            if {"producer 0", "producer 1"} <= {*missing}:
                self.opened += STRIDE
            for role in missing:
                self.bear(role)
            time.sleep(self.dice.uniform(0.002, 0.03))
            self.resume(time.monotonic())
            self.strike()
        for pid in list(self.living):
            self.kill(pid)
        seconds = time.monotonic() - began
        assert end(begin(self.finish)) == 0, "what was left could not be finished"
        return {
            "kills": self.kills,
            "pauses": self.pauses,
            "opened": self.opened,
            "seconds": round(seconds, 1),
            "with the rest": round(time.monotonic() - began, 1),
        }


if __name__ == "__main__":
    _folder, _kills, _seed = sys.argv[1:]
    print(json.dumps(Soak(Path(_folder), int(_kills), int(_seed)).run()))  # noqa: T201
