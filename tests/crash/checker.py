"""What must be true of a storage once everything has come to rest, whatever was done to the processes that wrote it.

Everything is read through a connection of the checker's own, by the plug for reading. What a session holds is compared
with the reference model, which is taken through the stored firings and moves in their order; counters and indexes are
computed again.

As a program: ``python -m tests.crash.checker FOLDER NOTES ALLOWANCE BACKOFF [URL]`` prints the report as a line of JSON.
"""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.crash.world import CONFIGURATION, COOLDOWN, World, expected_statuses
from tests.invariants import (
    FINALIZING,
    StoredSession,
    differences,
    fired_numbers,
    problems_of_ends,
    problems_of_firings,
    problems_of_numbers,
    snapshot,
    stored_sessions,
)
from triggers.core.decisions import rescue
from triggers.core.exchange import Changes, Decision, Need
from triggers.core.state import Firing, Instance, Session
from triggers.core.values import decode
from triggers.storages.sqlite.url import load_driver
from triggers.testing.conformance.model import RESOLVED, RUNNING, UNSTARTED, Model, awaited, vetoing

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from triggers.core.exchange import DecisionRun

#: Remarks in a history that tell of no move.
_REMARKS = ("refused a late end", "returned by")

#: What the error of a firing says of which nobody knows whether it is stored.
_UNCLEAR = re.compile("look at the session before")

#: Remarks of moves that are a commit of their own, and change one instance and nothing else.
_SINGLE = ("claimed by", "lease lost", "worker lost", "released by")


@dataclass(slots=True)
class Report:
    """What was found.

    Attributes:
        problems: each violation, in words; none if all is well.
        sessions: how many there are.
        firings: how many are stored.
        instances: how many there are.
        acknowledged: how many firings were confirmed to whoever fired.
        runs: how many runs of tasks began.
        wasted: how many of them did not end the attempt that they were.
        crashes: how many claims were taken from lost workers.
        late: how many late ends were refused.
    """

    problems: list[str] = field(default_factory=list)
    sessions: int = 0
    firings: int = 0
    instances: int = 0
    acknowledged: int = 0
    runs: int = 0
    wasted: int = 0
    crashes: int = 0
    late: int = 0

    def require(self, holds: object, problem: str) -> None:
        """Note the problem unless it holds."""
        if not holds:
            self.problems.append(problem)


def check(
    world: World,
    *,
    notes: int = 1,
    allowance: int | None = None,
    expect: bool = True,
    modelled: bool = True,
    purged: bool = False,
    backoff: Iterable[int] = rescue.CRASH_BACKOFF,
    max_crashes: int = 3,
) -> Report:
    """Check everything.

    Args:
        world: the storage and what was written down outside of it.
        notes: how many notes were fired into each session, at most; those without a key may be missing.
        allowance: how many runs may have been wasted, None for any number.
        expect: whether each session had all that the plan has, so that it must have come to its planned end.
        modelled: whether the stored history tells all that was done, so that the model can follow it.
        purged: whether records may have been removed since.
        backoff: the pauses after crashes, in microseconds.
        max_crashes: at so many crashes an instance is failed.
    """
    report = Report()
    with closing(world.storage()) as storage:
        sessions = list(stored_sessions(storage))
        _check_acknowledged(world, sessions, report)
        for session in sessions:
            _check_counters(session, report)
            _check_waiting(session, report)
            if not purged:
                report.problems += problems_of_numbers(session)
            if modelled:
                model = Model(FINALIZING, max_crashes, backoff, now=session.head.created_at)
                _check_history(session, model, report)
            if expect:
                _check_expected(session, notes, report)
        _check_ends(world, sessions, report)
        backlog = storage.reader.backlog()
        report.require(not (backlog.ready or backlog.later or backlog.running), f"left to do: {backlog}")
    if world.is_file:
        _check_file(world.path, sessions, report)
    report.require(
        allowance is None or report.wasted <= (allowance or 0),
        f"{report.wasted} runs wasted, {allowance} allowed",
    )
    report.sessions = len(sessions)
    report.firings = sum(len(session.firings) for session in sessions)
    report.instances = sum(len(session.instances) for session in sessions)
    return report


def _check_file(path: Path, sessions: list[StoredSession], report: Report) -> None:
    """What only SQLite has: a file that may be torn, and an index whose dead entries no reader would see."""
    with closing(load_driver("auto").connect(str(path))) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchall()
        report.require(found == [("ok",)], f"integrity_check: {found}")
        found = connection.execute("PRAGMA foreign_key_check").fetchall()
        report.require(found == [], f"foreign_key_check: {found}")
        (count,) = connection.execute("SELECT count(*) FROM waiting").fetchone()
    expected = sum(len(_waiting(session)) for session in sessions)
    report.require(count == expected, f"waiting: {count} rows, should be {expected}")


# -- what was acknowledged is there, once ---------------------------------------------------------------------


def _check_acknowledged(world: World, sessions: list[StoredSession], report: Report) -> None:
    acks = world.acks.read()
    report.acknowledged = len(acks)
    intended = {(said["uid"], said["id"]) for said in world.intents.read()}
    report.problems += problems_of_firings(
        sessions, [(ack["uid"], ack["id"], ack["number"]) for ack in acks], intended
    )
    stored = fired_numbers(sessions)
    for said in world.refusals.read():
        if said["key"] is None and not _UNCLEAR.search(said["error"]):  # nobody fired it again
            numbers = stored.get((said["uid"], said["id"]))
            report.require(not numbers, f"{said['uid']}: {said['id']} was refused, stored as {numbers}")


# -- what can be computed is what is stored -------------------------------------------------------------------


def _check_counters(session: StoredSession, report: Report) -> None:
    uid, head = session.uid, session.head
    counted = Counter(each.task for each in session.instances)
    unresolved = Counter(each.task for each in session.instances if each.status not in RESOLVED)
    stored = {
        task: (counter.created, counter.unresolved)
        for task, counter in session.steps.storage.reader.counters(uid).items()
    }
    expected = {task: (count, unresolved[task]) for task, count in counted.items()}
    report.require(stored == expected, f"{uid}: counters are {stored}, should be {expected}")
    newest = {firing.trigger: firing.number for firing in session.firings}
    latest = session.steps.storage.reader.latest(uid, newest.keys())
    found = {trigger: firing.number for trigger, firing in latest.items()}
    report.require(found == newest, f"{uid}: the latest firings are {found}, should be {newest}")
    model = Model(FINALIZING)
    model.configure(session.configuration)
    open_tasks = {
        task
        for task in session.configuration.keys() - model.waiting_for_finalizing()
        if not counted[task] or unresolved[task]
    }
    report.require(head.pending == len(open_tasks), f"{uid}: pending {head.pending}, should be {open_tasks}")


def _waiting(session: StoredSession) -> set[tuple[str, str]]:
    """Which unstarted instance lacks which trigger."""
    rules = session.configuration
    return {
        (trigger, each.name)
        for each in session.instances
        if each.status == UNSTARTED and each.task in rules
        for trigger in (awaited(rules[each.task]) - each.taken.keys())
        | (vetoing(rules[each.task]) - {*each.vetoes})
    }


def _check_waiting(session: StoredSession, report: Report) -> None:
    named = {name for rule in session.configuration.values() for name in awaited(rule) | vetoing(rule)}
    stored: set[tuple[str, str]] = set()

    def look(head: Session) -> DecisionRun:
        for trigger in sorted(named):
            found = yield Need(waiting=(trigger,))
            stored.update((trigger, each.name) for each in found.instances)
        return Changes(head, writes_head=False)

    if named:
        session.steps.commit(Decision("look", look))
    expected = _waiting(session)
    report.require(
        stored == expected,
        f"{session.uid}: waiting: {stored - expected} too much, {expected - stored} missing",
    )


# -- every end was accepted once, with what follows from it ---------------------------------------------------


def _check_ends(world: World, sessions: list[StoredSession], report: Report) -> None:
    runs = world.runs.read()
    starts = Counter((run["uid"], run["instance"], run["fence"]) for run in runs if run["what"] == "start")
    report.runs = sum(starts.values())
    for claim, count in starts.items():
        report.require(count == 1, f"claim {claim} ran {count} times")
    ended = sum(_check_ends_of(session, starts, report) for session in sessions)
    report.wasted = report.runs - ended


def _check_ends_of(session: StoredSession, starts: Counter[tuple[str, str, int]], report: Report) -> int:
    """Check the ends of one session's instances; how many runs ended their attempt."""
    report.problems += problems_of_ends(session, lambda name, fence: starts[session.uid, name, fence])
    ended = 0
    for each in session.instances:
        moves = [what for _, what, remark in _history(each) if not remark.startswith(_REMARKS)]
        finished = moves.count("finished")
        report.require(finished <= 1, f"{session.uid}: {each.name} finished {finished} times")
        ended += sum(move in ("finished", "failed", "skipped") for move in moves) - (
            "failed" in moves and "skipped" in moves
        )
        report.crashes += each.crashes
        report.late += sum(remark.startswith(_REMARKS[0]) for _, _, remark in _history(each))
    return ended


def _history(instance: Instance) -> list[tuple[int, str, str]]:
    lines = (line.split(" ", 2) for line in instance.history.splitlines())
    return [(int(line[0]), line[1], line[2] if line[2:] else "") for line in lines]


# -- a session is what the model says -------------------------------------------------------------------------


def _check_history(session: StoredSession, model: Model, report: Report) -> None:
    """Take the model through all that happened and compare."""
    try:
        model.configure(session.configuration)
        for at, moves, fired in _commits(session):
            model.advance(at - model.now)
            _step(model, moves, fired)
        different = differences(snapshot(session.steps), snapshot(model))
    except Exception as error:  # noqa: BLE001 - a history that cannot be is a finding, not an accident
        report.problems.append(f"{session.uid}: impossible history: {type(error).__name__}: {error}")
        return
    for part, (found, expected) in different.items():
        report.problems.append(f"{session.uid}: {part}: {_difference(found, expected)}")


Moved = tuple[Instance, str, str]


def _commits(session: StoredSession) -> Iterator[tuple[int, list[Moved], list[Firing]]]:
    """Moves and firings by commit.

    No two commits that were made alone in a session have the same time. Others change one instance each, which
    nothing else changes at that time, so they may be taken first.
    """
    moves: dict[int, list[Moved]] = defaultdict(list)
    fired: dict[int, list[Firing]] = defaultdict(list)
    for each in sorted(session.instances, key=lambda each: (each.created_at, each.task, each.number)):
        for at, what, remark in _history(each):
            if not remark.startswith(_REMARKS):
                moves[at].append((each, what, remark))
    for firing in session.firings:
        fired[firing.at].append(firing)
    for at in sorted(moves.keys() | fired.keys()):
        single = [move for move in moves[at] if move[2].startswith(_SINGLE)]
        for move in single:
            yield at, [move], []
        rest = [move for move in moves[at] if move not in single]
        if rest or fired[at]:
            yield at, rest, fired[at]


def _step(model: Model, moves: list[Moved], fired: list[Firing]) -> None:
    """Do on the model what one commit did: its one cause; all else in it follows."""
    retried = {each.name for each, _, remark in moves if remark == "by its own retry"}
    for each, what, remark in moves:
        if each.name in retried:
            fence = model.instances[each.name].fence
            assert model.retry(each.name, fence, COOLDOWN // timedelta(microseconds=1), RETRY_LIMIT), moves
            return
        if _by_worker(model, each, what, remark, fired) or _by_person(model, each, what, fired):
            return
    if fired:
        model.fire(fired[0].trigger, decode(fired[0].kwargs), fired[0].key)


def _by_worker(model: Model, instance: Instance, what: str, remark: str, fired: list[Firing]) -> bool:
    """Whether a worker, or the sweep in its place, made this move; it is done, and the model allows it."""
    name = instance.name
    held = model.instances.get(name)
    fence = held.fence if held else 0
    if what == RUNNING:
        done: object = model.claim(name) is not None
    elif what == "finished":
        done = model.finish(name, fence, decode(fired[0].kwargs))
    elif remark.startswith(("lease lost", "worker lost")):
        known = remark.startswith("worker lost")
        done = model.expire(name, fail_at_once=what == "failed" and not instance.budget, known=known)
    elif remark.startswith("released by"):
        done = model.release(name, fence)
    elif what == "failed":
        done = model.fail(name, fence, "error")
    elif what == "skipped" and held and held.status == RUNNING:
        done = model.skip_running(name, fence)
    else:
        return False
    assert done, f"{name} cannot become {what} {remark}"
    return True


def _by_person(model: Model, instance: Instance, what: str, fired: list[Firing]) -> bool:
    """Whether a person made this move; it is done."""
    if what == "replayed":
        model.replay(instance.name)
    elif what == "skipped":
        cascade = instance.result is not None
        model.skip(instance.name, cascade=cascade, result=decode(fired[0].kwargs) if cascade else None)
    else:
        return False
    return True


RETRY_LIMIT = 3


def _difference(found: Any, expected: Any) -> str:
    if isinstance(found, dict):
        keys = [key for key in {**found, **expected} if found.get(key) != expected.get(key)]
        return "; ".join(f"{key}: {_difference(found.get(key), expected.get(key))}" for key in keys[:4])
    if isinstance(found, list) and isinstance(expected, list):
        return f"{[each for each in found if each not in expected]} instead of {[each for each in expected if each not in found]}"
    return f"{found!r} instead of {expected!r}"


def _check_expected(session: StoredSession, notes: int, report: Report) -> None:
    uid = session.uid
    statuses: dict[str, list[str]] = defaultdict(list)
    for each in session.instances:
        statuses[each.task].append(each.status.value)
    found = {task: sorted(each) for task, each in statuses.items()}
    fired = len({decode(firing.kwargs)["id"] for firing in session.firings if firing.trigger == "note"})
    report.require(fired <= notes, f"{uid}: {fired} notes")
    for task, wanted in expected_statuses(uid, notes=fired).items():
        report.require(
            found.get(task) == wanted, f"{uid}: {task} is {found.get(task)} at the end, should be {wanted}"
        )
    report.require(
        found.keys() == CONFIGURATION.keys(), f"{uid}: no instance of {CONFIGURATION.keys() - found.keys()}"
    )


def main(folder: str, notes: str, allowance: str, backoff: str, url: str = "") -> None:
    """Print the report."""
    found = check(
        World(Path(folder), url=url),
        notes=int(notes),
        allowance=int(allowance) if allowance else None,
        backoff=[int(backoff)],
        max_crashes=1_000_000,
    )
    print(json.dumps(asdict(found)))  # noqa: T201 - a program


if __name__ == "__main__":
    main(*sys.argv[1:])
