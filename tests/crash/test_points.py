"""A process that is killed before or after any statement has done a step, or has not: nothing is lost or doubled."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from contextlib import closing
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.crash.checker import Report, check
from tests.crash.healing import Ticking, heal
from tests.crash.points import KILLED, Probe, in_child
from tests.crash.steps import STEPS, Scene, Step, fires
from tests.crash.world import World
from triggers.storages.sql import statements
from triggers.storages.sqlite_file import load_driver

#: The name of a claim holds a process id and a random part.
_OWNER = re.compile(r"[\w.-]+:\d+:[0-9a-f]{12}:\d+")


def fingerprint(path: Path) -> str:
    """All that is in the file, as one short text."""
    with closing(load_driver("auto").connect(str(path))) as connection:
        tables = [row[0] for row in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table' ORDER BY name")]
        rows = [[table, connection.execute(f"SELECT * FROM {table}").fetchall()] for table in tables]  # noqa: S608
        rows.append(connection.execute("PRAGMA user_version").fetchall())
    return hashlib.sha256(_OWNER.sub("owner", json.dumps(rows)).encode()).hexdigest()


class Rehearsal:
    """One step, done once from its beginning to its end: its points, and what the file holds after each commit."""

    def __init__(self, step: Step, folder: Path) -> None:
        self.step = step
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

    def act(self, world: World, probe: Probe) -> None:
        """Do the step, in this process, which has nothing open yet."""
        probe.install()
        clock = Ticking(int((world.folder / "clock").read_text("utf-8")))
        scene = Scene(world, world.storage(clock), clock, self.step.uid)
        scene.storage.reader.backlog()
        probe.armed = True
        self.step.act(scene)
        probe.armed = False

    def _rehearse(self, world: World) -> None:
        states = [fingerprint(world.path)]
        probe = Probe(after_commit=lambda: states.append(fingerprint(world.path)))
        self.act(world, probe)
        self.notes.write_text(json.dumps([probe.seen, states]), "utf-8")

    def die(self, world: World, place: int) -> str:
        """Do the step in a child that is killed at this point; returns the point's name as the child knew it."""
        words = world.folder / "last words"
        probe = Probe(place, lambda point: words.write_text(point, "utf-8"))
        assert in_child(lambda: self.act(world, probe)) == KILLED
        return words.read_text("utf-8")

    def commits(self, place: int) -> int:
        """How many commits had returned at this point."""
        return self.points[:place].count("after COMMIT")


def healed(world: World, step: Step, **options: Any) -> Report:
    """Have another process finish everything, and check."""
    found = world.folder / "report.json"

    def finish() -> None:
        heal(world, Ticking(), fires(step.uid))
        report = check(world, expect=step.planned, modelled=step.modelled, **options)
        found.write_text(json.dumps(report.problems), "utf-8")

    assert in_child(finish) == 0
    return Report(problems=json.loads(found.read_text("utf-8")))


@cache
def _folder(base: Path) -> Path:
    return base


@pytest.mark.parametrize("name", STEPS)
def test_killed_at_any_point_of_a_step_it_is_done_or_not_done(name, tmp_path):
    """Whatever point a process is killed at, the file holds what its commits left, and others finish the work."""
    step = STEPS[name]
    rehearsal = Rehearsal(step, tmp_path)
    problems: dict[str, list[str]] = {}
    reached = []
    for place, point in enumerate(rehearsal.points, start=1):
        world = rehearsal.stage(tmp_path / str(place))
        reached.append(rehearsal.die(world, place))
        left = fingerprint(world.path)
        assert left == rehearsal.states[rehearsal.commits(place)], f"half a step was stored {point}"
        found = healed(world, step, allowance=1).problems
        if found:
            problems[f"{place} {point}"] = found
        shutil.rmtree(world.folder)
    assert reached == rehearsal.points
    assert "before COMMIT" in reached
    assert "after COMMIT" in reached
    assert problems == {}
