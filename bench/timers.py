"""What timers cost: a firing in a session that has many of them, and a sweep in which many are due."""

from __future__ import annotations

import statistics
import tempfile
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

from bench.rounds import in_turns
from triggers import Triggers
from triggers.core.decisions.unit_of_work import UnitOfWork
from triggers.core.exchange import Decision, Need
from triggers.core.terms import Policy
from triggers.core.timers import FIRES, Timer
from triggers.testing.servers import PostgresServer, RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from triggers.core.exchange import DecisionRun
    from triggers.core.state import Session

CONFIGURATION = {"t_import": {"after": ["ready"], "andEvery": "pageReceived", "run": "bench.NoOp"}}

#: Timers in the session whose firings are measured, firings in a round, and rounds.
TIMERS, FIRINGS, ROUNDS = 50_000, 5, 200

#: Sessions with due timers, due timers in each, and how often the sweep is measured.
SESSIONS, DUE, SWEEPS = 200, 20, 3

#: One hour, in microseconds.
HOUR = 3_600_000_000


def run() -> Iterator[tuple[str, float, str]]:
    """Measure SQLite and private servers, one after the other."""
    with ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        yield from _measure("SQLite", f"sqlite:///{folder}/s.db?synchronous=normal")
        yield from _measure("PostgreSQL", stack.enter_context(PostgresServer(private=True)).url)
        yield from _measure("Valkey", stack.enter_context(RedisServer(private=True)).url)


def _measure(name: str, url: str) -> Iterator[tuple[str, float, str]]:
    with Triggers(url, runner=None) as triggers:
        times = in_turns({"none": _firing(triggers, 0), "many": _firing(triggers, TIMERS)}, ROUNDS)
        yield f"{name}: one firing without timers", times["none"] / FIRINGS * 1e6, "µs"
        ratio = times["many"] / times["none"]
        yield f"{name}: in a session with {TIMERS:,} timers to none", ratio, "at most 1.2"
        rates = [SESSIONS * DUE / _sweep(triggers, turn) for turn in range(SWEEPS)]
        goal = "at least 5,000" if name == "SQLite" else ""
        yield f"{name}: timers that elapse in a second of a sweep", statistics.median(rates), goal


def _firing(triggers: Triggers, timers: int) -> Callable[[], None]:
    manager = triggers.session(f"respondent-{timers}")
    manager.update_configuration(CONFIGURATION)
    manager.fire("ready")
    for first in range(0, timers, 1_000):
        triggers.storage.commit(manager.uid, _setting(HOUR, range(first, first + 1_000)))

    def fire() -> None:
        for number in range(FIRINGS):
            manager.fire("pageReceived", {"page": number})

    return fire


def _sweep(triggers: Triggers, turn: int) -> float:
    """Return how long a sweep takes in which timers of many sessions are due, in seconds."""
    for number in range(SESSIONS):
        triggers.storage.commit(f"due-{turn}-{number}", _setting(-HOUR, range(DUE)))
    before = time.perf_counter()
    triggers.sweep()
    return time.perf_counter() - before


def _setting(after: int, numbers: range) -> Decision:
    """Set one timer for each number, due so many microseconds from now."""

    def begin(session: Session) -> DecisionRun:
        yield Need()
        work = UnitOfWork(session, Policy())
        for number in numbers:
            at = session.now + after + number
            work.set_timer(Timer(str(number), at, 0, FIRES, session.now, trigger="due", kwargs='{"n":1}'))
        return work.done()

    return Decision("set timers", begin)
