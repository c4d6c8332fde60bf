"""How a simulated world must end: what was acknowledged is stored, once, and nothing is left to run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.invariants import (
    FINALIZING,
    fired_numbers,
    problems_of_ends,
    problems_of_firings,
    problems_of_numbers,
    stored_sessions,
)
from triggers.session import SessionView

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.invariants import StoredSession
    from tests.simulation.world import World


def check(world: World) -> None:
    """Assert what must be true at the end of every simulation."""
    sessions = list(stored_sessions(world.lives[0].base))
    acknowledged = [
        (fire.uid, fire.identity, number)
        for fire, numbers in world.acknowledged.items()
        for number in numbers
    ]
    timed = {(fire.uid, fire.identity) for fire in world.timed}
    numbers = fired_numbers(sessions)
    assert {where for where in timed if len(numbers.get(where, ())) != 1} == set(), "each timer fires once"
    assert [timer for session in sessions for timer in session.steps.timers()] == []
    problems = list(problems_of_firings(sessions, acknowledged, {(f.uid, f.identity) for f in world.fires}))
    problems += [problem for session in sessions for problem in _problems(world, session)]
    assert problems == []
    assert set(world.ledger.ends.values()) <= {1}, "one end for each claim"


def _problems_of_logs(world: World, uid: str) -> Iterator[str]:
    """Each attempt's records are stored once, in the order in which it logged them."""
    numbers: dict[tuple[str, int], list[int]] = {}
    for record in SessionView(uid, world.lives[0].base).logs(limit=10_000):
        numbers.setdefault((record.name, record.fence), []).append(record.entry.seq)
    for where, given in numbers.items():
        if given != sorted(set(given)):
            yield f"{uid}: the records of {where} are stored as {given}"


def _problems(world: World, session: StoredSession) -> Iterator[str]:
    uid = session.uid
    yield from problems_of_numbers(session)
    yield from _problems_of_logs(world, uid)
    yield from problems_of_ends(session, lambda name, fence: world.starts[uid, name, fence])
    finalized = sum(firing.trigger == FINALIZING for firing in session.firings)
    if finalized != world.ledger.models[uid].finalized:
        yield f"{uid}: finalized {finalized} times"
