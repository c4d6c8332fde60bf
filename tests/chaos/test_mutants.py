"""Take a safeguard of a server's storage away, and the check that passes with it fails.

Each mutant is made in a process of its own, by replacing one thing in it; nothing in the library is switched.
"""

from __future__ import annotations

import hashlib
import json
import re
import time
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from tests.chaos.network import Network
from tests.chaos.test_clocks import shift_clock
from tests.chaos.test_lost_answers import cuts_of, readable
from tests.crash.processes import in_child
from tests.crash.test_mutants import no_fence, put, recover_without_fence_check, two_fire_at_once
from tests.crash.world import World, wait_for
from tests.history.clients import open_storage
from triggers import plugins
from triggers.core.decisions import rescue
from triggers.core.terms import Policy
from triggers.storages.postgres import PostgresStorage
from triggers.storages.postgres import storage as postgres
from triggers.storages.redis import store as redis_store
from triggers.storages.redis.lua import Script, script
from triggers.testing.conformance.steps import SECOND, Steps

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

# -- what is examined: each of these finds nothing wrong with the library as it is ----------------------------


def a_join(url: str, folder: Path) -> list[str]:
    """While one process decides what a firing does, another one fires the last other trigger of the same join."""
    return two_fire_at_once(World(folder, url=url))


def again(steps: Steps, name: str) -> None:
    """Wait until an instance that was rescued may run."""
    wait_for(f"{name} is due", lambda: steps[name].run_at <= steps.storage.now())


def a_slow_sweep(url: str, folder: Path) -> list[str]:
    """A sweep acts on what it saw before another one was faster, and the instance runs again."""
    world = World(folder, url=url)
    with closing(world.app(None)) as app:
        steps = Steps(app.storage, "s-1")
        steps.configure({"t_plain": {"after": ["go"], "run": "plain"}})
        steps.fire("go")
        steps.start("t_plain#0", lease=1)
        (seen,) = app.storage.expired(10)
        app.sweep()
        again(steps, "t_plain#0")
        alive = steps.start("t_plain#0")
        app._sweep._recover(seen)
        refused = steps.finish(alive).refused
    return [f"a live attempt was refused: {refused}"] if refused else []


def a_ghost(url: str, _: Path) -> list[str]:
    """An attempt that lost its lease ends while another one runs."""
    with closing(open_storage(url)) as storage:
        steps = Steps(storage, "s-1")
        steps.configure({"t_plain": {"after": ["go"], "run": "plain"}})
        steps.fire("go")
        ghost = steps.start("t_plain#0", lease=1)
        steps.recover("t_plain#0", ghost.fence)
        again(steps, "t_plain#0")
        alive = steps.start("t_plain#0")
        late, rightful = steps.finish(ghost, {"by": "ghost"}), steps.finish(alive, {"by": "alive"})
    return [] if late.refused and not rightful.refused else ["the end of a ghost was accepted"]


def a_lost_answer(url: str, _: Path) -> list[str]:
    """A firing without a key is stored, and the answer gets lost."""
    with (
        Network(readable(url)) as network,
        closing(plugins.storage_from_url(network.url)) as storage,
        closing(open_storage(url)) as beside,
    ):
        steps = Steps(storage, "s-1")
        steps.fire("begin")
        pattern, who, arrives = cuts_of(url)[0]
        network.cut_after(pattern, who, deliver=arrives)
        steps.fire("go")
        assert network.made() == 1
        count = len(Steps(beside, "s-1").firings()) - 1
    return [] if count == 1 else [f"it was fired {count} times"]


def two_clocks(url: str, folder: Path) -> list[str]:
    """A machine whose clock is behind claims an instance for an hour; one whose clock is ahead looks for lost claims."""

    def claim() -> None:
        shift_clock(-3_600)
        with closing(open_storage(url)) as storage:
            steps = Steps(storage, "s-1", Policy(grace=0))
            steps.configure({"t_plain": {"after": ["go"], "run": "plain"}})
            steps.fire("go")
            steps.start("t_plain#0", lease=3_600 * SECOND)

    def look() -> None:
        shift_clock(3_600)
        with closing(open_storage(url)) as storage:
            (folder / "found").write_text(json.dumps(storage.expired(10)), "utf-8")

    assert [in_child(claim), in_child(look)] == [0, 0]
    return [
        f"a live claim counts as lost: {lost}" for lost in json.loads((folder / "found").read_text("utf-8"))
    ]


# -- what is taken away ---------------------------------------------------------------------------------------


def no_session_lock() -> None:
    """A decision is stored whatever has become of the session meanwhile: no lock, no check of its version."""
    with_lock = postgres.texts

    def without_lock(schema: str) -> dict[str, str]:
        found = with_lock(schema)
        assert "FOR UPDATE" in found["head_locked"] or "FOR NO KEY UPDATE" in found["head_locked"]
        return {**found, "head_locked": re.sub(r"FOR (NO KEY )?UPDATE", "", found["head_locked"])}

    put(postgres, "texts", without_lock)
    change_scripts("return 'CHANGED'", {"commit", "slice"})


def commit_again() -> None:
    """Where the answer to a commit was lost, the decision is made and stored once more."""
    put(PostgresStorage, "_was_committed", lambda *_: False)
    change_scripts("if redis.call('SISMEMBER', KEYS[2], ARGV[2]) == 1 then return 'OK' end", {"commit"})


def clock_of_the_client() -> None:
    """What has a lease, and what is due, is found by the clock of the machine that asks."""
    by_server = postgres.texts

    def now() -> str:
        return str(time.time_ns() // 1_000)

    def texts(schema: str) -> dict[str, str]:
        found = by_server(schema)
        assert re.search(CLOCK, found["clock"])
        return {name: re.sub(CLOCK, f"{now()}::bigint", text) for name, text in found.items()}

    put(postgres, "texts", texts)
    put(redis_store, "script", lambda name, _: script(name, now()))


#: How statements ask for the time.
CLOCK = r"\S+\.clock\(\)"


def change_scripts(part: str, names: set[str]) -> None:
    """Leave a part out of the scripts of these names."""

    def changed(name: str, clock: str) -> Script:
        found = script(name, clock)
        if name not in names:
            return found
        assert part in found.text
        text = found.text.replace(part, "")
        return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())

    put(redis_store, "script", changed)


@dataclass(frozen=True, slots=True)
class Mutant:
    """A safeguard that is missing.

    Attributes:
        make: takes it away from this process.
        examine: what finds nothing wrong otherwise.
        symptom: what it finds, as a regular expression.
    """

    make: Callable[[], None]
    examine: Callable[[str, Path], list[str]]
    symptom: str


MUTANTS = [
    Mutant(no_session_lock, a_join, r"a firing failed|the join is unstarted"),
    Mutant(recover_without_fence_check, a_slow_sweep, r"a live attempt was refused"),
    Mutant(no_fence, a_ghost, r"the end of a ghost was accepted"),
    Mutant(clock_of_the_client, two_clocks, r"a live claim counts as lost"),
    Mutant(commit_again, a_lost_answer, r"it was fired 2 times"),
]


def examined(
    url: str, folder: Path, examine: Callable[[str, Path], list[str]], make: Any = None
) -> list[str]:
    """What an examination finds in a process of its own, in which something may have been taken away."""
    report = folder / "problems"

    def act() -> None:
        rescue.CRASH_BACKOFF = (1,)  # type: ignore[assignment]
        if make:
            make()
        report.write_text(json.dumps(examine(url, folder)), "utf-8")

    assert in_child(partial(act)) == 0
    found: list[str] = json.loads(report.read_text("utf-8"))
    return found


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.make.__name__)
def test_a_missing_safeguard_is_seen(mutant, url, tmp_path):
    """Without the safeguard the examination finds the very harm that the safeguard is there to prevent."""
    found = examined(url, tmp_path, mutant.examine, mutant.make)
    assert [problem for problem in found if re.search(mutant.symptom, problem)], found


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda mutant: mutant.examine.__name__)
def test_with_all_safeguards_in_place_nothing_is_found(mutant, url, tmp_path):
    """The same examination of the library as it is finds nothing, so what it finds in a mutant is the mutant's."""
    assert examined(url, tmp_path, mutant.examine) == []
