"""Many processes in one session: what each of them is told is what one after the other would have been told."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from functools import partial

import pytest

from tests.chaos.together import Ready, together
from tests.history.checker import check
from tests.history.clients import open_storage, play
from tests.history.test_history import overlapping
from triggers.testing.conformance.steps import Steps

PROCESSES = 16

JOIN = {
    "t_join": {"after": ["a", "b", "c"], "run": "x"},
    "t_every": {"after": ["a"], "andEvery": "b", "run": "x"},
}


@pytest.mark.parametrize("acts", [12, pytest.param(120, marks=pytest.mark.slow)])
def test_sixteen_processes_in_one_session_are_told_what_can_be_true(url, tmp_path, acts):
    """Sixteen processes fire, claim and end in one session: some order of it all explains every answer."""
    calls = play(tmp_path / "notes", 5, url=url, processes=PROCESSES, threads=1, acts=acts, sessions=("one",))
    with closing(open_storage(url)) as storage:
        assert check(calls, storage, one_lock=False) == []
    kinds = Counter(call.op for call in calls)
    assert kinds["fire"] > acts, kinds
    assert kinds["claim"] > 0, kinds
    assert overlapping(calls) > 0, "they came in between each other"
    print(f"{len(calls)} calls, {overlapping(calls)} of them overlapping: {dict(kinds)}")  # noqa: T201


@pytest.mark.parametrize("fires", [8, pytest.param(200, marks=pytest.mark.slow)])
def test_sixteen_processes_fire_into_one_session_without_a_gap(url, fires):
    """Every firing is stored once, under the number that was answered; numbers have no gaps; instances are the law's."""
    with closing(open_storage(url)) as storage:
        Steps(storage, "one").configure(JOIN)

    def fire(place: int, ready: Ready) -> list[int]:
        with closing(open_storage(url)) as storage:
            ready()
            steps = Steps(storage, "one")
            trigger = "abcd"[place % 4]
            return [steps.fire(trigger, {"by": place, "n": n}).fired[0].number for n in range(fires)]

    answered = together([partial(fire, place) for place in range(PROCESSES)])
    with closing(open_storage(url)) as storage:
        steps = Steps(storage, "one")
        stored = steps.firings(page=1_000)
        statuses = steps.statuses()
    everything = [*range(1, PROCESSES * fires + 1)]
    assert sorted(number for numbers in answered for number in numbers) == everything
    assert [firing.number for firing in stored] == everything
    by = Counter(firing.trigger for firing in stored)
    assert by == dict.fromkeys("abcd", PROCESSES // 4 * fires)
    every = {f"t_every#{number}": "scheduled" for number in range(by["b"])}
    assert statuses == {"t_join#0": "scheduled", **every}
