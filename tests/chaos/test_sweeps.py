"""Sweeps in several places at once: what is due is handed over once, and what is lost is rescued once."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from functools import partial

import pytest

from tests.chaos.together import Ready, together
from tests.history.clients import open_storage
from triggers import Triggers
from triggers.core.terms import Policy
from triggers.testing.conformance.steps import SECOND, Steps

PLACES = 4
EVERY = {"t_every": {"andEvery": "go", "run": "x"}}

#: Longer than any test: nothing that was handed over is due again.
HOUR = 3600 * SECOND


def released(url: str, count: int, first: int) -> set[str]:
    """Some instances in each of ten sessions, due at once; their names."""
    found = set()
    with closing(open_storage(url)) as storage:
        for number in range(first, first + 10):
            steps = Steps(storage, f"s-{number}", Policy(grace=0))  # due at once: nobody else hands it over
            steps.configure(EVERY)
            for _ in range(count):
                (made,) = steps.fire("go").created
                found.add(f"{steps.uid} {made.name}")
    return found


def dispatch(url: str, ready: Ready) -> list[str]:
    """What one of the sweeps takes, in small steps, until nothing is due. All have taken something before the second step."""
    found = []
    with closing(open_storage(url)) as storage:
        taken = storage.due(3, grace=HOUR)
        ready()
        while taken:
            found += [f"{due.uid} {due.task}#{due.number}" for due in taken]
            taken = storage.due(3, grace=HOUR)
    return found


@pytest.mark.parametrize("count", [10, pytest.param(300, marks=pytest.mark.slow)])
def test_sweeps_in_four_places_hand_each_instance_over_once_per_round(url, count):
    """In every round each due instance goes to just one of four sweeps, and all of them go."""
    everything: set[str] = set()
    for round_ in range(2):
        fresh = released(url, count, first=10 * round_)
        taken = together([partial(dispatch, url)] * PLACES)
        assert Counter(name for part in taken for name in part) == Counter(fresh)
        assert all(taken), "each of them had a part in it"
        everything |= fresh
    assert len(everything) == 2 * 10 * count


@pytest.mark.parametrize("count", [10, pytest.param(300, marks=pytest.mark.slow)])
def test_sweeps_in_four_places_rescue_each_lost_claim_once(url, count):
    """A claim that ran out costs one crash, however many sweeps find it at the same time."""
    released(url, count, first=0)
    with closing(open_storage(url)) as storage:
        for number in range(10):
            steps = Steps(storage, f"s-{number}")
            for name in steps.statuses():
                steps.start(name, lease=1)

    def sweep(ready: Ready) -> int:
        with closing(Triggers(url, runner=None)) as application:
            ready()
            return application.sweep().recovered

    assert sum(together([sweep] * PLACES)) == 10 * count
    with closing(open_storage(url)) as storage:
        for number in range(10):
            instances = Steps(storage, f"s-{number}").instances()
            assert {(each.status.value, each.crashes, each.fence) for each in instances} == {
                ("scheduled", 1, 2)
            }
