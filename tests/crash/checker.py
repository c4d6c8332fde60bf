"""What must be true of a file once everything has come to rest, whatever was done to the processes that wrote it.

Everything is read through a connection of the checker's own. What a session holds is compared with the reference
model, which is taken through the stored firings and moves in their order; counters and indexes are computed again.

As a program: ``python -m tests.crash.checker FOLDER NOTES ALLOWANCE BACKOFF`` prints the report as a line of JSON.
"""

from __future__ import annotations

import json
import sys
from collections import Counter, defaultdict
from contextlib import closing
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.crash.world import CONFIGURATION, COOLDOWN, World, expected_statuses
from triggers.core import law
from triggers.core.values import decode
from triggers.storages.sqlite_url import load_driver
from triggers.testing.machine import shown
from triggers.testing.model import RESOLVED, RUNNING, UNSTARTED, Model, awaited, vetoing
from triggers.testing.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

FINALIZING = "sessionFinalized"

#: Remarks in a history that tell of no move.
_REMARKS = ("refused a late end", "given back")


@dataclass(slots=True)
class Report:
    """What was found.

    Attributes:
        problems: each violation, in words; none if all is well.
        sessions: how many there are.
        firings: how many are stored.
        instances: how many there are.
        runs: how many runs of tasks began.
        wasted: how many of them did not end the attempt that they were.
        crashes: how many claims were taken from lost workers.
        late: how many late ends were refused.
    """

    problems: list[str] = field(default_factory=list)
    sessions: int = 0
    firings: int = 0
    instances: int = 0
    runs: int = 0
    wasted: int = 0
    crashes: int = 0
    late: int = 0

    def require(self, holds: object, problem: str) -> None:
        """Note the problem unless it holds."""
        if not holds:
            self.problems.append(problem)


Row = dict[str, Any]


def check(
    world: World,
    *,
    notes: int = 1,
    allowance: int | None = None,
    expect: bool = True,
    modelled: bool = True,
    purged: bool = False,
    backoff: Iterable[int] = law.CRASH_BACKOFF,
    max_crashes: int = 3,
) -> Report:
    """Check everything.

    Args:
        world: the file and what was written down outside of it.
        notes: how many notes were fired into each session, at most; those without a key may be missing.
        allowance: how many runs may have been wasted, None for any number.
        expect: whether each session had all that the plan has, so that it must have come to its planned end.
        modelled: whether the stored history tells all that was done, so that the model can follow it.
        purged: whether records may have been removed since.
        backoff: the pauses after crashes, in microseconds.
        max_crashes: at so many crashes an instance is failed.
    """
    report = Report()
    tables = _tables(world.path, report)
    sessions = {row["id"]: row["uid"] for row in tables["sessions"]}
    uids = sorted(sessions.values())
    _check_acknowledged(world, tables, sessions, report)
    _check_counters(tables, report)
    _check_waiting(tables, report)
    if not purged:
        _check_logs(tables, report)
    _check_ends(world, tables, sessions, report)
    storage = world.storage()
    try:
        for row in tables["sessions"] if modelled else ():
            model = Model(FINALIZING, max_crashes, backoff, now=row["created_at"])
            _check_history(Steps(storage, row["uid"]), model, _of(tables, row["id"]), report)
    finally:
        storage.close()
    if expect:
        for row in tables["sessions"]:
            _check_expected(row["uid"], notes, _of(tables, row["id"]), report)
    report.require(
        allowance is None or report.wasted <= (allowance or 0),
        f"{report.wasted} runs wasted, {allowance} allowed",
    )
    report.sessions, report.firings, report.instances = (
        len(uids),
        len(tables["firings"]),
        len(tables["instances"]),
    )
    return report


def _tables(path: Path, report: Report) -> dict[str, list[Row]]:
    with closing(load_driver("auto").connect(str(path))) as connection:
        found = connection.execute("PRAGMA integrity_check").fetchall()
        report.require(found == [("ok",)], f"integrity_check: {found}")
        found = connection.execute("PRAGMA foreign_key_check").fetchall()
        report.require(found == [], f"foreign_key_check: {found}")
        names = [
            row[0]
            for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        ]
        tables: dict[str, list[Row]] = {}
        for name in names:
            cursor = connection.execute(f"SELECT * FROM {name}")  # noqa: S608 - names from the schema
            columns = [column[0] for column in cursor.description]
            tables[name] = [dict(zip(columns, row, strict=True)) for row in cursor]
    return tables


def _of(tables: Mapping[str, list[Row]], session: int) -> dict[str, list[Row]]:
    return {
        name: [row for row in tables[name] if row["session"] == session]
        for name in ("firings", "instances", "logs")
    }


# -- what was acknowledged is there, once ---------------------------------------------------------------------


def _check_acknowledged(
    world: World, tables: Mapping[str, list[Row]], sessions: Mapping[int, str], report: Report
) -> None:
    stored: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row in tables["firings"]:
        if row["source"] == "" and row["trigger"] != FINALIZING:
            stored[sessions[row["session"]], decode(row["kwargs"]).get("id")].append(row["number"])
    acks = world.acks.read()
    for ack in acks:
        numbers = stored[ack["uid"], ack["id"]]
        report.require(
            numbers == [ack["number"]],
            f"{ack['uid']}: {ack['id']} was acknowledged as {ack['number']}, stored as {numbers}",
        )
    intended = {(said["uid"], said["id"]) for said in world.intents.read()}
    for what, numbers in stored.items():
        report.require(len(numbers) <= 1, f"{what} was fired {len(numbers)} times")
        report.require(what in intended or not numbers, f"{what} was fired by nobody")


# -- what can be computed is what is stored -------------------------------------------------------------------


def _check_counters(tables: Mapping[str, list[Row]], report: Report) -> None:
    counted: Counter[tuple[int, str]] = Counter()
    unresolved: Counter[tuple[int, str]] = Counter()
    rules = {row["id"]: decode(row["body"]) for row in tables["rule_sets"]}
    for row in tables["instances"]:
        counted[row["session"], row["task"]] += 1
        unresolved[row["session"], row["task"]] += row["status"] not in RESOLVED
    stored = {
        (row["session"], row["name"]): (row["created"], row["unresolved"])
        for row in tables["names"]
        if row["created"]
    }
    expected = {key: (count, unresolved[key]) for key, count in counted.items()}
    report.require(
        stored == expected, f"counters are {stored}, should be {expected}" if stored != expected else ""
    )
    latest = {
        (row["session"], row["name"]): (row["latest"], row["depth"])
        for row in tables["names"]
        if row["latest"]
    }
    fired = sorted(tables["firings"], key=lambda row: row["number"])
    newest = {(row["session"], row["trigger"]): (row["number"], row["depth"]) for row in fired}
    report.require(
        latest == newest, f"the latest firings are {latest}, should be {newest}" if latest != newest else ""
    )
    firings: dict[int, list[int]] = defaultdict(list)
    for row in tables["firings"]:
        firings[row["session"]].append(row["number"])
    for row in tables["sessions"]:
        numbers = sorted(firings[row["id"]])
        report.require(
            numbers == [*range(1, row["firings"] + 1)],
            f"{row['uid']}: firings {numbers}, head says {row['firings']}",
        )
        configuration = rules[row["rules"]]
        model = Model(FINALIZING)
        model.configure(configuration)
        open_tasks = {
            task
            for task in configuration.keys() - model.waiting_for_finalizing()
            if not counted[row["id"], task] or unresolved[row["id"], task]
        }
        report.require(
            row["pending"] == len(open_tasks),
            f"{row['uid']}: pending {row['pending']}, should be {open_tasks}",
        )


def _check_waiting(tables: Mapping[str, list[Row]], report: Report) -> None:
    rules = {row["id"]: decode(row["body"]) for row in tables["rule_sets"]}
    of_session = {row["id"]: rules[row["rules"]] for row in tables["sessions"]}
    expected = set()
    for row in tables["instances"]:
        rule = of_session[row["session"]].get(row["task"])
        if row["status"] == UNSTARTED and rule is not None:
            lacks = awaited(rule) - json.loads(row["taken"]).keys() | vetoing(rule) - set(
                json.loads(row["vetoes"])
            )
            expected |= {(row["session"], trigger, row["id"]) for trigger in lacks}
    stored = {(row["session"], row["trigger"], row["instance"]) for row in tables["waiting"]}
    report.require(stored == expected, f"waiting: {stored - expected} too much, {expected - stored} missing")


def _check_logs(tables: Mapping[str, list[Row]], report: Report) -> None:
    logs: dict[int, list[Row]] = defaultdict(list)
    for row in tables["logs"]:
        logs[row["instance"]].append(row)
    for row in tables["instances"]:
        said = logs[row["id"]]
        report.require(
            len(said) + row["log_dropped"] == row["log_count"],
            f"{_name(row)}: {len(said)} records of {row['log_count']}",
        )
        report.require(
            row["log_level"] == max((each["level"] for each in said), default=0),
            f"{_name(row)}: log level {row['log_level']}",
        )


# -- every end was accepted once, with what follows from it ---------------------------------------------------


def _check_ends(
    world: World, tables: Mapping[str, list[Row]], sessions: Mapping[int, str], report: Report
) -> None:
    runs = world.runs.read()
    starts = Counter((run["uid"], run["instance"], run["fence"]) for run in runs if run["what"] == "start")
    report.runs = sum(starts.values())
    for claim, count in starts.items():
        report.require(count == 1, f"claim {claim} ran {count} times")
    cascades: dict[tuple[int, str], list[Row]] = defaultdict(list)
    for row in tables["firings"]:
        if row["trigger"] == row["source"].rpartition("#")[0]:
            cascades[row["session"], row["source"]].append(row)
    ended = 0
    for row in tables["instances"]:
        name, status = _name(row), row["status"]
        where = f"{sessions[row['session']]}: {name}"
        moves = [what for _, what, remark in _history(row) if not remark.startswith(_REMARKS)]
        report.require(status not in ("scheduled", RUNNING), f"{where} is still {status}")
        report.require(moves.count("finished") <= 1, f"{where} finished {moves.count('finished')} times")
        own = cascades.pop((row["session"], name), [])
        cascaded = status == "finished" or (status == "skipped" and row["result"] is not None)
        report.require(len(own) == cascaded, f"{where} is {status} and cascaded {len(own)} times")
        ended += sum(move in ("finished", "failed", "skipped") for move in moves) - (
            "failed" in moves and "skipped" in moves
        )
        if status == "finished" and own:
            fence = decode(own[0]["kwargs"]).get("fence")
            report.require(row["result"] == own[0]["number"], f"{where} has another result than its cascade")
            report.require(
                fence == row["fence"], f"{where} has fence {row['fence']}, the accepted end was of {fence}"
            )
            report.require(
                starts[sessions[row["session"]], name, row["fence"]], f"{where} finished and never ran"
            )
        report.crashes += row["crashes"]
        report.late += sum(remark.startswith(_REMARKS[0]) for _, _, remark in _history(row))
    report.require(not cascades, f"cascades of what never finished: {list(cascades)}")
    report.wasted = report.runs - ended


def _name(row: Row) -> str:
    return f"{row['task']}#{row['number']}"


def _history(row: Row) -> list[tuple[int, str, str]]:
    lines = (line.split(" ", 2) for line in row["history"].splitlines())
    return [(int(line[0]), line[1], line[2] if line[2:] else "") for line in lines]


# -- a session is what the model says -------------------------------------------------------------------------


def _check_history(steps: Steps, model: Model, rows: Mapping[str, list[Row]], report: Report) -> None:
    """Take the model through all that happened and compare."""
    try:
        model.configure(CONFIGURATION)
        for at, moves, fired in _commits(rows):
            model.advance(at - model.now)
            _step(model, moves, fired)
        found, expected = _comparable(shown(steps)), _comparable(model.snapshot())
    except Exception as error:  # noqa: BLE001 - a history that cannot be is a finding, not an accident
        report.problems.append(f"{steps.uid}: impossible history: {type(error).__name__}: {error}")
        return
    for part in expected:
        if found[part] != expected[part]:
            report.problems.append(f"{steps.uid}: {part}: {_difference(found[part], expected[part])}")


def _commits(rows: Mapping[str, list[Row]]) -> list[tuple[int, list[tuple[Row, str, str]], list[Row]]]:
    """Moves and firings by commit: no two commits of a session have the same time."""
    moves: dict[int, list[tuple[Row, str, str]]] = defaultdict(list)
    fired: dict[int, list[Row]] = defaultdict(list)
    for row in sorted(rows["instances"], key=lambda row: row["id"]):
        for at, what, remark in _history(row):
            if not remark.startswith(_REMARKS):
                moves[at].append((row, what, remark))
    for row in sorted(rows["firings"], key=lambda row: row["number"]):
        fired[row["at"]].append(row)
    return [(at, moves[at], fired[at]) for at in sorted(moves.keys() | fired.keys())]


def _step(model: Model, moves: list[tuple[Row, str, str]], fired: list[Row]) -> None:
    """Do on the model what one commit did: its one cause; all else in it follows."""
    retried = {_name(row) for row, _, remark in moves if remark == "by its own retry"}
    for row, what, remark in moves:
        if _name(row) in retried:
            fence = model.instances[_name(row)].fence
            assert model.retry(_name(row), fence, COOLDOWN // timedelta(microseconds=1), RETRY_LIMIT), moves
            return
        if _by_worker(model, row, what, remark, fired) or _by_person(model, row, what, fired):
            return
    if fired:
        model.fire(fired[0]["trigger"], decode(fired[0]["kwargs"]), fired[0]["key"])


def _by_worker(model: Model, row: Row, what: str, remark: str, fired: list[Row]) -> bool:
    """Whether a worker, or the sweep in its place, made this move; it is done, and the model allows it."""
    name = _name(row)
    held = model.instances.get(name)
    fence = held.fence if held else 0
    if what == RUNNING:
        done: object = model.claim(name) is not None
    elif what == "finished":
        done = model.finish(name, fence, decode(fired[0]["kwargs"]))
    elif remark.startswith("lease lost"):
        done = model.expire(name, fail_at_once=what == "failed" and row["crash_budget"] == 1)
    elif remark.startswith("let go"):
        done = model.release(name, fence)
    elif what == "failed":
        done = model.fail(name, fence, "error")
    elif what == "skipped" and held and held.status == RUNNING:
        done = model.skip_running(name, fence)
    else:
        return False
    assert done, f"{name} cannot become {what} {remark}"
    return True


def _by_person(model: Model, row: Row, what: str, fired: list[Row]) -> bool:
    """Whether a person made this move; it is done."""
    if what == "replayed":
        model.replay(_name(row))
    elif what == "skipped":
        cascade = row["result"] is not None
        model.skip(_name(row), cascade=cascade, result=decode(fired[0]["kwargs"]) if cascade else None)
    else:
        return False
    return True


RETRY_LIMIT = 3


def _comparable(snapshot: dict[str, Any]) -> dict[str, Any]:
    for instance in snapshot["instances"].values():
        instance["error"] = instance["status"] == "failed"
    return snapshot


def _difference(found: Any, expected: Any) -> str:
    if isinstance(found, dict):
        keys = [key for key in {**found, **expected} if found.get(key) != expected.get(key)]
        return "; ".join(f"{key}: {_difference(found.get(key), expected.get(key))}" for key in keys[:4])
    if isinstance(found, list) and isinstance(expected, list):
        return f"{[each for each in found if each not in expected]} instead of {[each for each in expected if each not in found]}"
    return f"{found!r} instead of {expected!r}"


def _check_expected(uid: str, notes: int, rows: Mapping[str, list[Row]], report: Report) -> None:
    found: dict[str, list[str]] = defaultdict(list)
    for row in rows["instances"]:
        found[row["task"]].append(row["status"])
    found = {task: sorted(statuses) for task, statuses in found.items()}
    fired = len({decode(row["kwargs"])["id"] for row in rows["firings"] if row["trigger"] == "note"})
    report.require(fired <= notes, f"{uid}: {fired} notes")
    for task, statuses in expected_statuses(uid, notes=fired).items():
        report.require(
            found.get(task) == statuses,
            f"{uid}: {task} is {found.get(task)} at the end, should be {statuses}",
        )
    report.require(
        found.keys() == CONFIGURATION.keys(), f"{uid}: no instance of {CONFIGURATION.keys() - found.keys()}"
    )


def main(folder: str, notes: str, allowance: str, backoff: str) -> None:
    """Print the report."""
    found = check(
        World(Path(folder)),
        notes=int(notes),
        allowance=int(allowance),
        backoff=[int(backoff)],
        max_crashes=1_000_000,
    )
    print(json.dumps(asdict(found)))  # noqa: T201 - a program


if __name__ == "__main__":
    main(*sys.argv[1:])
