"""A process that is killed before or after any statement has done a step, or has not: nothing is lost or doubled."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from contextlib import closing
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from tests.crash.checker import Report, check
from tests.crash.healing import Ticking, heal
from tests.crash.processes import KILLED, in_child
from tests.crash.steps import STEPS, Scene, Step, fires
from tests.crash.world import World
from triggers.storages.sql import migrations
from triggers.storages.sqlite.storage import SQL
from triggers.storages.sqlite.url import load_driver
from triggers.testing.faults import STATEMENT, Faults, FaultyDriver, kill_process

if TYPE_CHECKING:
    from pathlib import Path

#: The name of a claim holds a process id and a random part.
_OWNER = re.compile(r"[\w.-]+:\d+:[0-9a-f]{12}:\d+")


def fingerprint(path: Path) -> str:
    """All that is in the file, as one short text."""
    with closing(load_driver("auto").connect(str(path))) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        tables = [
            row[0]
            for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")
        ]
        rows = [[table, connection.execute(f"SELECT * FROM {table}").fetchall()] for table in tables]  # noqa: S608
        rows.append(connection.execute("PRAGMA user_version").fetchall())
    return hashlib.sha256(_OWNER.sub("owner", json.dumps(rows)).encode()).hexdigest()


class _Watched(Faults):
    """Nobody dies; after each commit what the file holds is noted."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self.states = [fingerprint(path)]

    def reach(self, point: str) -> None:
        """Pass a point."""
        super().reach(point)
        if point == "after COMMIT":
            self.states.append(fingerprint(self._path))


class Rehearsal:
    """One step, done once from its beginning to its end: its points, and what the file holds after each commit."""

    def __init__(self, step: Step, folder: Path) -> None:
        self.step = step
        migrations("sqlite")  # read once here, not in each of a thousand children
        self.before = folder / "before"
        self.before.mkdir(parents=True)
        assert in_child(self._prepare) == 0
        self.notes = folder / "notes.json"
        stage = self.stage(folder / "rehearsal")
        assert in_child(lambda: self._rehearse(stage)) == 0
        self.points, self.states = json.loads(self.notes.read_text("utf-8"))

    def _prepare(self) -> None:
        world, clock = World(self.before), Ticking()
        scene = Scene(world, world.storage(clock), clock, self.step.uid)
        self.step.prepare(scene)
        scene.storage.close()
        (self.before / "clock").write_text(str(clock.at), "utf-8")

    def stage(self, folder: Path) -> World:
        """A copy of the world as it is before the step."""
        shutil.copytree(self.before, folder)
        return World(folder)

    def act(self, world: World, faults: Faults, die_at: int | None = None) -> None:
        """Do the step, in this process, which has nothing open yet."""
        clock = Ticking(int((world.folder / "clock").read_text("utf-8")))
        storage = world.storage(clock, FaultyDriver(load_driver("auto"), faults))
        storage.reader.backlog()
        faults.reached.clear()
        if die_at is not None:
            faults.die_at(die_at)
        self.step.act(Scene(world, storage, clock, self.step.uid))

    def _rehearse(self, world: World) -> None:
        faults = _Watched(world.path)
        self.act(world, faults)
        self.notes.write_text(json.dumps([faults.reached, faults.states]), "utf-8")

    def die(self, world: World, place: int) -> str:
        """Do the step in a child that is killed at this point; returns the point's name as the child knew it."""
        words = world.folder / "last words"

        def die(point: str) -> NoReturn:
            words.write_text(point, "utf-8")
            kill_process(point)

        assert in_child(lambda: self.act(world, Faults(die), place)) == KILLED
        return words.read_text("utf-8")

    def commits(self, place: int) -> int:
        """How many commits had returned at this point."""
        return self.points[:place].count("after COMMIT")


def healed(world: World, step: Step, **options: Any) -> Report:
    """Have another process finish everything, and check."""
    found = world.folder / "report.json"

    def finish() -> None:
        heal(world, Ticking(), fires(step.uid))
        report = check(world, expect=step.planned, modelled=step.modelled, purged=step.purged, **options)
        found.write_text(json.dumps(report.problems), "utf-8")

    assert in_child(finish) == 0
    return Report(problems=json.loads(found.read_text("utf-8")))


def killed_everywhere(
    step: Step, folder: Path, *, heal_all: bool, only: str = ""
) -> tuple[list[str], dict[str, list[str]]]:
    """Kill a process at every point of the step.

    Args:
        step: which.
        folder: for the files.
        heal_all: finish the work after each of them; else only where the file, or what was said outside of it,
            differs from that of an earlier point: what comes after depends on nothing else.
        only: leave out the points whose names begin otherwise.

    Returns:
        The points, and point → what was wrong afterwards.
    """
    rehearsal = Rehearsal(step, folder)
    problems: dict[str, list[str]] = {}
    reached: list[str] = []
    healed_from: set[tuple[str, str]] = set()
    for place, point in enumerate(rehearsal.points, start=1):
        if not point.startswith(only):
            continue
        world = rehearsal.stage(folder / str(place))
        reached.append(rehearsal.die(world, place))
        left, said = (
            fingerprint(world.path),
            repr([world.acks.read(), [{**run, "pid": 0} for run in world.runs.read()]]),
        )
        found = [] if left == rehearsal.states[rehearsal.commits(place)] else ["half a step was stored"]
        if heal_all or (left, said) not in healed_from:
            healed_from.add((left, said))
            found += healed(world, step, allowance=step.lost).problems
        if found:
            problems[f"{place} {point}"] = found
        shutil.rmtree(world.folder)
    assert reached == [point for point in rehearsal.points if point.startswith(only)], (
        "every point was reached"
    )
    return reached, problems


@pytest.mark.parametrize("name", STEPS)
def test_killed_at_any_point_of_a_step_it_is_done_or_not_done(name, tmp_path):
    """Whatever point a process is killed at, the file holds what its commits left, and others finish the work."""
    reached, problems = killed_everywhere(STEPS[name], tmp_path, heal_all=False)
    assert problems == {}
    assert "before COMMIT" in reached
    assert "after COMMIT" in reached


@pytest.mark.slow
@pytest.mark.parametrize("name", STEPS)
def test_after_a_death_at_any_point_everything_comes_to_its_end(name, tmp_path):
    """After each of these deaths, one by one, the session comes to the end that it would have come to."""
    assert killed_everywhere(STEPS[name], tmp_path, heal_all=True)[1] == {}


def test_the_steps_pass_every_statement_that_changes_anything(tmp_path):
    """There is no statement by which the storage writes that no step passes: each one is died before and after."""
    reached = {point for name, step in STEPS.items() for point in Rehearsal(step, tmp_path / name).points}
    writing = {" ".join(text.split())[:STATEMENT] for text in SQL.values() if not text.startswith("SELECT")}
    assert {point for text in writing for point in (f"before {text}", f"after {text}")} <= reached
    assert {"before COMMIT", "after COMMIT", "before BEGIN IMMEDIATE", "after BEGIN IMMEDIATE"} <= reached
