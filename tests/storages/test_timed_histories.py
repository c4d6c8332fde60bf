"""When somebody looks at a session changes nothing: any schedule of sweeps gives the same firings and instances."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.storages.test_memory import memory_place
from tests.storages.test_sqlite import sqlite_places
from tests.storages.timed_histories import each_second, histories, moves, never, played, seen, sometimes
from triggers.core.terms import Finalizing
from triggers.core.timers import AWAY

RUN = "tests.Generated"

#: What each mistake about times breaks: delays, deadlines and timers that lead to each other, and a gate.
CHAIN = (
    {
        "t_1": {"after": ["a"], "delay": "PT5S", "run": RUN},
        "t_2": {"andEvery": "a", "after": ["b"], "deadline": {"in": "PT3S", "late": "abandon"}, "run": RUN},
        "t_3": {
            "andEvery": "t_2:missed",
            "delay": {"for": "PT2S", "since": "last"},
            "unless": ["c"],
            "run": RUN,
        },
    },
    Finalizing("d", 30),
    [
        (0, ("fire_later", (("a", {"n": 2}, None), 4, "y"))),
        (0, ("fire_later", (("a", {"n": 1}, "k1"), 2, "x"))),
        (30, ("fire", ("c", {}, None))),
        (0, ("run", (0, "warn"))),
        (0, ("run", (0, "finish"))),
        (0, ("run", (0, "finish"))),
        (2, ("resolve", None)),
    ],
)


def on_each_schedule(make_place, history, seed):
    """Play the history three times, and compare what is seen at the end."""
    ends = []
    for schedule in (never, each_second, sometimes(seed)):
        place = make_place()
        try:
            ends.append(seen(played(place, history, schedule, look_at_head)))
        finally:
            place.close()
    assert ends[1] == ends[0]
    assert ends[2] == ends[0]


def look_at_head(steps):
    """No timer is earlier than the time in the head, and after a sweep none is due."""
    times = [timer.at for timer in steps.timers() if timer.at != AWAY]
    assert not times or steps.head.next_timer_at <= min(times)
    found = steps.storage.timed_sessions(9, [steps.policy.manager])
    assert {one.uid for one in found} >= ({steps.uid} if times else set())


@example(CHAIN, 1)
@given(histories(), st.integers(0, 99))
def test_the_schedule_of_sweeps_changes_nothing(history, seed):
    """Firings with their times and kwargs, instances, timers and the end of the session are the same."""
    on_each_schedule(memory_place, history, seed)


@pytest.mark.slow
@settings(max_examples=1_000)
@given(histories(), st.integers(0, 99))
def test_the_schedule_of_sweeps_changes_nothing_at_length(history, seed):
    """The same, with many more histories."""
    on_each_schedule(memory_place, history, seed)


@settings(max_examples=8)
@example(CHAIN, 1)
@given(histories(), st.integers(0, 99))
def test_the_schedule_of_sweeps_changes_nothing_in_a_file(sqlite_place, history, seed):
    """The same on SQLite."""
    on_each_schedule(sqlite_place, history, seed)


@pytest.mark.slow
@settings(max_examples=100)
@given(histories(), st.integers(0, 99))
def test_the_schedule_of_sweeps_changes_nothing_in_a_file_at_length(sqlite_place, history, seed):
    """The same on SQLite, with many more histories."""
    on_each_schedule(sqlite_place, history, seed)


@pytest.fixture(scope="module")
def sqlite_place(tmp_path_factory):
    """Make empty files."""
    return sqlite_places(tmp_path_factory.mktemp("timed"), "driver=auto&synchronous=normal")


@example(CHAIN)
@given(histories())
def test_after_a_sweep_no_timer_is_due(history):
    """Whatever has happened, a sweep leaves only timers of the future, and the head knows the first of them."""
    place = memory_place()

    def look(steps):
        look_at_head(steps)
        while steps.elapse().timers:
            look_at_head(steps)
        assert all(timer.at > steps.storage.now() for timer in steps.timers())
        assert [
            one
            for one in steps.storage.timed_sessions(9, [steps.policy.manager])
            if one.at <= steps.storage.now()
        ] == []

    steps = played(place, history, never, look)
    assert [timer for timer in steps.timers() if timer.at != AWAY] == []
    assert steps.head.next_timer_at is None
    place.close()


@example(CHAIN)
@given(histories(configures=False))
def test_an_outcome_is_fired_as_often_as_its_move_happens(history):
    """`missed`, too; and an outcome that no rule names is never fired."""
    place = memory_place()
    steps = played(place, history, each_second)
    named, made = steps.head.rules.outcomes, moves(steps)
    fired = [firing.trigger for firing in steps.firings() if ":" in firing.trigger]
    assert set(fired) <= named
    assert {name: fired.count(name) for name in named} == {name: made.get(name, 0) for name in named}
    place.close()


@settings(max_examples=5)
@given(st.lists(st.sampled_from("abcd"), min_size=1, max_size=4))
def test_a_session_without_times_stores_nothing_about_them(sqlite_place, fired):
    """Not in the head either: it is stored as if there were no timers."""
    place = sqlite_place()
    rules = {"t_1": {"after": ["a"], "run": RUN}, "t_2": {"andEvery": "b", "unless": ["c"], "run": RUN}}
    steps = played(
        place, (rules, Finalizing("d"), [(1, ("fire", (name, {}, None))) for name in fired]), each_second
    )
    with steps.storage._file.reading() as run:
        assert run("SELECT next_timer_at, timer_count FROM sessions").fetchall() == [(None, 0)]
        assert run("SELECT count(*) FROM timers").fetchone() == (0,)
        waiting = run("SELECT count(*) FROM instances WHERE status = 'unstarted' AND run_at != 0").fetchone()
    assert waiting == (0,)
    place.close()
