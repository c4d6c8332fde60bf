"""The sweep at the scale of a billion sessions, simulated: many due indexes, many sweepers, seeded chance.

``python -m bench.sweep_simulation`` prints a table in less than a minute. The sweepers do what
`triggers.worker.sweep` does: take up to 200 of what is due, again while there are as many; then look when
the next is due, and pause until then, but for `sweep_interval` at most, a quarter more or less. What things
take was measured, or is assumed: docs/explanation/scaling.md says which.

Of what comes due, a part is foreseen: the end of a cooldown, which a sweeper knows when it begins its pause.
The rest is due at the moment at which it appears, as when a process that only fires releases an instance.

A delay is from the moment at which something is due until its message has been sent to the broker.
"""

from __future__ import annotations

import heapq
import itertools
import random
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Generator, Iterable

    #: What a sweeper does: it yields for how long it is busy, or None until somebody wakes it.
    Steps = Generator[float | None, None, None]

SEED = 1996

#: What a sweeper takes at once, the pauses between two sweeps in seconds, and how much they vary.
BATCH, INTERVAL, SHORTEST, JITTER = 200, 5.0, 0.02, 0.25

#: Hints that a process keeps for the broker; further ones are dropped, and due again after the grace.
ROOM = 10_000

#: So many seconds are simulated; delays count from the first time that every sweeper has been round.
SECONDS, WARM_UP = 24.0, 6.0


@dataclass(frozen=True, slots=True)
class Costs:
    """What things take, in seconds.

    Attributes:
        call: of the server, for a call that finds nothing.
        row: of the server, for each row that is taken.
        skip: of the server, for each row that another call has locked.
        trip: there and back in the network of a machine room.
        publish: to send one message to the broker, by the one thread of a process that does.
    """

    call: float = 0.000_25
    row: float = 0.000_05
    skip: float = 0.000_002
    trip: float = 0.000_5
    publish: float = 0.000_8


@dataclass(frozen=True, slots=True)
class Keyspace:
    """What is simulated.

    Attributes:
        name: of the line.
        rate: how much comes due in all, per second.
        indexes: how many due indexes there are, each on a server of its own.
        sweepers: how many processes sweep.
        sees: how many of the indexes each of them looks after, one after the other.
        foreseen: the part of what comes due that was known before.
        taking: what a call does where another one is taking rows: skip them, wait for it and find them gone,
            or (a server that does one thing at a time) come after it.
        cores: how many calls an index's server works on at the same time.
        outage: at first nobody sweeps for so long, in seconds.
        hot: the part of everything that the first index gets, beyond its share.
        costs: what things take.
    """

    name: str
    rate: float
    indexes: int = 1
    sweepers: int = 8
    sees: int = 1
    foreseen: float = 0.5
    taking: Literal["skip", "wait", "turns"] = "skip"
    cores: int = 4
    outage: float = 0.0
    hot: float = 0.0
    costs: Costs = Costs()


ONE = Keyspace("one index: half of it unforeseen", 50)
ALL = replace(ONE, name="one index: everything", rate=13_500, sweepers=16)
MANY = Keyspace("64 indexes, 8 for each sweeper", 13_500, indexes=64, sweepers=64, sees=8)

WORLDS = (
    replace(ONE, name="one index: nothing foreseen", foreseen=0.0),
    replace(ONE, name="one index: all foreseen", foreseen=1.0),
    ONE,
    replace(ONE, sweepers=200),
    replace(ONE, name="one index: more", rate=1_000),
    ALL,
    replace(ALL, sweepers=8),
    replace(ALL, name="one index: calls wait for each other", taking="wait"),
    replace(ALL, name="one index: one call at a time", taking="turns"),
    MANY,
    replace(MANY, name="64 indexes, 64 for each sweeper", sees=64),
    replace(MANY, name="1,024 indexes, 128 for each sweeper", indexes=1_024, sees=128),
    replace(MANY, name="64 indexes, a fifth of it in one", hot=0.2),
    replace(MANY, name="64 indexes, nobody swept for 10 s", outage=10.0),
)


@dataclass(slots=True, eq=False)
class Index:
    """A due index: what comes due in it, in order, and how far it was taken."""

    due: list[float]
    foreseen: list[float]
    taken: int = 0
    working: int = 0
    locked: int = 0
    waiting: deque[Steps] = field(default_factory=deque)
    calls: int = 0
    busy: float = 0.0

    def has_next_after(self, now: float) -> float | None:
        """When the next one is due that can be known now; `now` if something is waiting."""
        if self.taken < len(self.due) and self.due[self.taken] <= now:
            return now
        place = bisect_right(self.foreseen, now)
        return self.foreseen[place] if place < len(self.foreseen) else None


class Simulation:
    """One world, from its beginning to its end."""

    def __init__(self, world: Keyspace) -> None:
        self.world = world
        self.random = random.Random(f"{SEED} {world.name}")
        self.now = 0.0
        self.delays: list[float] = []
        self.dropped = 0
        self._agenda: list[tuple[float, int, Steps]] = []
        self._running: Steps
        self._order = itertools.count()
        self.indexes = [self._index(number) for number in range(world.indexes)]

    def run(self) -> None:
        """Let the time pass."""
        world = self.world
        for number in range(world.sweepers):
            first = number * world.indexes // world.sweepers
            seen = [self.indexes[(first + n) % world.indexes] for n in range(world.sees)]
            self._later(world.outage + self.random.uniform(0, INTERVAL), self._sweeper(seen))
        while self._agenda and self._agenda[0][0] < SECONDS:
            self.now, _, self._running = heapq.heappop(self._agenda)
            pause = next(self._running)
            if pause is not None:
                self._later(pause, self._running)

    def _later(self, pause: float, steps: Steps) -> None:
        heapq.heappush(self._agenda, (self.now + pause, next(self._order), steps))

    def _index(self, number: int) -> Index:
        world = self.world
        rate = world.rate * ((1 - world.hot) / world.indexes + (world.hot if number == 0 else 0))
        due, when = [], self.random.expovariate(rate)
        while when < SECONDS:
            due.append(when)
            when += self.random.expovariate(rate)
        return Index(due, [when for when in due if self.random.random() < world.foreseen])

    def _sweeper(self, seen: list[Index]) -> Steps:
        """Take what is due from each index; then pause."""
        world, free = self.world, 0.0
        while True:
            known = []
            for index in seen:
                while True:
                    rows: list[float] = []
                    yield from self._call(index, rows)
                    free = self._send(rows, free)
                    if len(rows) < BATCH:
                        break
                yield world.costs.trip + world.costs.call  # when is the next one due?
                known.append(index.has_next_after(self.now))
            full = INTERVAL * self.random.uniform(1 - JITTER, 1 + JITTER)
            first = min((when for when in known if when is not None), default=self.now + full)
            yield min(full, max(first - self.now, SHORTEST))

    def _call(self, index: Index, rows: list[float]) -> Steps:
        """Take rows from an index, once its server gets round to it."""
        world, costs = self.world, self.world.costs
        yield costs.trip / 2
        at_once = {"skip": world.cores, "wait": 1, "turns": 1}[world.taking]
        waited = index.working >= at_once
        if waited:
            index.waiting.append(self._running)
            yield None
        else:
            index.working += 1
        till = bisect_right(index.due, self.now, index.taken, min(index.taken + BATCH, len(index.due)))
        if not (waited and world.taking == "wait"):  # what it had seen is taken when it gets the locks
            rows += index.due[index.taken : till]
            index.taken = till
        took = costs.call + costs.row * len(rows) + costs.skip * index.locked
        index.locked += len(rows)
        index.calls += 1
        index.busy += took
        yield took
        index.locked -= len(rows)
        if index.waiting:
            self._later(0.0, index.waiting.popleft())
        else:
            index.working -= 1
        yield costs.trip / 2

    def _send(self, rows: Iterable[float], free: float) -> float:
        """Give hints to the thread that sends them; returns when it will be free."""
        publish = self.world.costs.publish
        for due in rows:
            begins = max(free, self.now)
            if (begins - self.now) / publish > ROOM:
                self.dropped += 1
                continue
            free = begins + publish
            if due >= WARM_UP:
                self.delays.append(free - due)
        return free


def report(world: Keyspace) -> list[str]:
    """The line of a world."""
    simulation = Simulation(world)
    simulation.run()
    delays = sorted(simulation.delays) or [0.0]
    indexes = simulation.indexes
    swept = SECONDS - world.outage
    late = sum(bisect_right(index.due, SECONDS) - index.taken for index in indexes)
    calls = sum(index.calls for index in indexes)
    taken = sum(index.taken for index in indexes)
    return [
        world.name,
        f"{world.rate:,.0f}",
        str(world.sweepers),
        *(f"{delays[min(int(len(delays) * part), len(delays) - 1)]:,.2f}" for part in (0.5, 0.95, 0.99)),
        f"{delays[-1]:,.2f}",
        f"{calls / swept / world.indexes:,.1f}",
        f"{taken / max(calls, 1):,.1f}",
        f"{max(index.busy for index in indexes) / swept:.0%}",
        f"{late + simulation.dropped:,}",
    ]


HEAD = ["", "due/s", "sweepers", "50%", "95%", "99%", "longest", "calls/s", "rows/call", "busy", "left"]


def main() -> None:
    """Print a line for each world."""
    lines = [HEAD, *map(report, WORLDS)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(HEAD))]
    for line in lines:
        cells = (cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True))
        print(line[0].ljust(widths[0]), *cells, sep="  ")


if __name__ == "__main__":
    main()
