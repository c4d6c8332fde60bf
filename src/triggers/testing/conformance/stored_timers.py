# ruff: noqa: E501, S101, PLR2004 - as in tests: docstrings have one line, assert is used, numbers are expected values
"""Stored timers: set, moved, removed and found again; and several decisions in one commit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from triggers.core.exchange import Changes, Decision, Need
from triggers.core.timers import AWAY, DEADLINE, DELAY, FIRES, Timer, timer_of
from triggers.testing.conformance.fixtures import NAMES, StorageFixtures

if TYPE_CHECKING:
    from triggers.core.exchange import DecisionRun, Slice
    from triggers.core.state import Session
    from triggers.storages.base import Storage
    from triggers.testing.conformance.steps import Steps

#: A time in the year 2200, later than what a storage could confuse with a number of seconds.
_LATE = 7_258_118_400_000_000


def setting(
    timers: dict[str, Timer | None],
    next_at: int | None = None,
    *,
    fails: bool = False,
    manager: str = "default",
) -> Decision:
    """A decision that stores these timers, and the time of the first one in the head."""

    def begin(session: Session) -> DecisionRun:
        yield Need()
        session.manager = manager
        session.next_timer_at = next_at
        session.timer_count += len(timers)
        if fails:
            raise ZeroDivisionError
        return Changes(session, timers=timers)

    return Decision("set timers", begin)


def found(steps: Steps, need: Need) -> Slice:
    """Return the slice that a decision gets for a need. Nothing is changed."""
    got: list[Slice] = []

    def begin(session: Session) -> DecisionRun:
        got[:] = [(yield need)]
        return Changes(session, writes_head=False)

    steps.commit(Decision("look", begin))
    return got[0]


def fires(name: str, at: int, number: int) -> Timer:
    """A timer of the usual kind."""
    return Timer(name, at, number, FIRES, at - 5, trigger="due")


class StoredTimers(StorageFixtures):
    """Tests of promise 17, and of what finds timers."""

    def test_a_timer_comes_back_as_it_was_stored(self, steps: Steps) -> None:
        """Promises 6 and 17: every value of a timer, whatever its name is."""
        kwargs = '{"text":"\\u0000 \\ud83d\\ude00 \' \\" {}","none":null}'
        full = Timer("full", _LATE, 1, DEADLINE, 3, 4, "t", kwargs, "k", "f", "t_x#1", "why", 7)
        names = [*NAMES, timer_of("t_x#0"), timer_of("t_x#00")]
        timers = [full, *(fires(name, 50, number) for number, name in enumerate(names, 2))]
        steps.commit(setting({timer.name: timer for timer in timers}, 50))
        assert found(steps, Need(timers=500)).timers == [*timers[1:], full]
        read = [*steps.storage.reader.timers(steps.uid, limit=500)]
        assert read == [*timers[1:], full]
        wanted = found(steps, Need(timer_names=("full", timer_of("t_x#0"), "nobody"))).named_timers
        assert wanted == {"full": full, timer_of("t_x#0"): timers[-2]}
        assert steps.storage.reader.timers(steps.uid, names=["full", "nobody"]) == [full]
        assert steps.storage.reader.timers("another session") == []

    def test_timers_are_found_in_the_order_of_time_and_number(self, steps: Steps) -> None:
        """Promise 17: the first so many, and in pages. Those that were put aside come last."""
        by_hand = [
            ("a", 30, 1),
            ("b", 10, 2),
            ("c", 20, 3),
            ("d", 10, 4),
            ("away", AWAY, 5),
            ("e", 10, 12),
            ("f", 9, 100),
        ]
        steps.commit(setting({name: fires(name, at, number) for name, at, number in by_hand}, 9))
        assert [timer.name for timer in found(steps, Need(timers=3)).timers] == ["f", "b", "d"]
        assert found(steps, Need()).timers == []
        first = steps.storage.reader.timers(steps.uid, limit=4)
        rest = steps.storage.reader.timers(steps.uid, after=(first[-1].at, first[-1].number))
        assert [timer.name for timer in (*first, *rest)] == ["f", "b", "d", "e", "c", "a", "away"]
        assert rest[-1].at == AWAY

    def test_a_timer_is_moved_and_removed_by_its_name(self, steps: Steps) -> None:
        """Promise 17: a name has one timer. Removing one that does not exist changes nothing."""
        steps.commit(setting({"a": fires("a", 10, 1), "b": fires("b", 20, 2)}, 10))
        steps.commit(setting({"a": fires("a", 30, 3)}, 10))
        assert [(timer.name, timer.at) for timer in found(steps, Need(timers=9)).timers] == [
            ("b", 20),
            ("a", 30),
        ]
        steps.commit(setting({"b": None, "nobody": None}, 10))
        steps.commit(setting({"a": Timer("a", 15, 4, DELAY, 1)}, 10))
        assert found(steps, Need(timers=9)).timers == [Timer("a", 15, 4, DELAY, 1)]
        steps.commit(setting({"a": None}))
        assert found(steps, Need(timers=9, timer_names=("a",))).timers == []
        assert steps.storage.reader.timers(steps.uid) == []

    def test_the_head_keeps_the_time_of_the_first_timer(self, steps: Steps) -> None:
        """Promise 6: and how many were set."""
        steps.commit(setting({"a": fires("a", _LATE, 1)}, _LATE))
        assert (steps.head.next_timer_at, steps.head.timer_count) == (_LATE, 1)
        assert steps.storage.reader.sessions()[0].next_timer_at == _LATE
        steps.commit(setting({"a": None}))
        assert (steps.head.next_timer_at, steps.head.timer_count) == (None, 2)

    def test_a_decision_that_raises_sets_no_timer(self, steps: Steps) -> None:
        """Promise 1: nothing of it is stored."""
        steps.commit(setting({"a": fires("a", 10, 1)}, 10))
        with pytest.raises(ZeroDivisionError):
            steps.commit(setting({"a": None, "b": fires("b", 5, 2)}, 5, fails=True))
        assert [timer.name for timer in found(steps, Need(timers=9)).timers] == ["a"]
        assert steps.head.next_timer_at == 10

    def test_a_decision_that_sets_a_timer_runs_exclusively(self, steps: Steps) -> None:
        """Promise 2: a timer is a change of the session."""
        steps.commit(setting({}))
        runs: list[bool] = []

        def begin(session: Session) -> DecisionRun:
            runs.append(session.exclusive)
            yield Need()
            return Changes(session, writes_head=False, timers={"a": fires("a", 10, 1)})

        steps.commit(Decision("set", begin, exclusive=False))
        assert runs[-1]
        assert steps.storage.reader.timers(steps.uid) == [fires("a", 10, 1)]

    def test_sessions_with_timers_are_found_by_their_time(self, storage: Storage) -> None:
        """Promise 17: the earliest first, only those of some managers, and none without a timer."""
        for uid, at, manager in (("x", 30, "m"), ("y", 10, "m"), ("z", 20, "n"), ("none", None, "m")):
            timers: dict[str, Timer | None] = {} if at is None else {"a": fires("a", at, 1)}
            storage.commit(uid, setting(timers, at, manager=manager))
        assert storage.timed_sessions(9, ["m", "n"]) == [("y", 10), ("z", 20), ("x", 30)]
        assert storage.timed_sessions(1, {"m"}) == [("y", 10)]
        assert storage.timed_sessions(2, ["n", "m"]) == [("y", 10), ("z", 20)]
        assert storage.timed_sessions(9, ["n", "other", "n"]) == [("z", 20)]
        assert storage.timed_sessions(9, []) == []
        storage.commit("y", setting({"a": fires("a", 40, 2)}, 40, manager="m"))
        storage.commit("x", setting({"a": None}, manager="m"))
        assert storage.timed_sessions(9, ["m"]) == [("y", 40)]

    def test_times_are_exact_however_late_they_are(self, storage: Storage) -> None:
        """Promise 6: a time that a floating-point number cannot represent is stored, and has its place in the order."""
        late = 2**53
        for uid, ats in (("x", (late + 3, late + 1)), ("y", (late, late + 2))):
            timers: dict[str, Timer | None] = {f"{at}": fires(f"{at}", at, n) for n, at in enumerate(ats, 1)}
            storage.commit(uid, setting(timers, min(ats)))
        assert storage.timed_sessions(9, ["default"]) == [("y", late), ("x", late + 1)]
        assert [timer.at for timer in storage.reader.timers("x")] == [late + 1, late + 3]
        assert [timer.at for timer in storage.reader.timers("x", after=(late + 1, 2))] == [late + 3]
        head = storage.reader.session("y")
        assert head is not None
        assert head.next_timer_at == late

    def test_sessions_of_other_managers_fill_no_page(self, storage: Storage) -> None:
        """Promise 17: however many they are, how much earlier they are due, and how their managers are named."""
        for number in range(30):
            uid, manager = f"foreign {number}", ("a b", "a ", "ab", "A", "'", "")[number % 6]
            storage.commit(uid, setting({"t": fires("t", number, 1)}, number, manager=manager))
        for number in range(5):
            storage.commit(f"own {number}", setting({"t": fires("t", 90, 1)}, 90 - number, manager="a"))
        own = [(f"own {number}", 90 - number) for number in range(4, -1, -1)]
        assert storage.timed_sessions(3, ["a"]) == own[:3]
        assert storage.timed_sessions(30, ["a", "c"]) == own
        assert storage.timed_sessions(0, ["a"]) == []

    def test_all_sessions_with_timers_are_found_at_once(self, storage: Storage) -> None:
        """Promise 17: also if there are many, and all of them are needed."""
        for number in range(60):
            storage.commit(f"{number}", setting({"t": fires("t", number, 1)}, number))
        assert storage.timed_sessions(60, ["default"]) == [(f"{number}", number) for number in range(60)]
        assert storage.timed_sessions(25, ["default"]) == [(f"{number}", number) for number in range(25)]

    def test_a_timer_is_replaced_in_its_place(self, steps: Steps) -> None:
        """Promise 17: one with the same time and number, but something else to do."""
        steps.commit(setting({"a": fires("a", 10, 1), "b": fires("b", 10, 2)}, 10))
        other = fires("a", 10, 1)._replace(problem="why", was_at=5)
        steps.commit(setting({"a": other}, 10))
        assert found(steps, Need(timers=9, timer_names=("a", "b"))).timers == [other, fires("b", 10, 2)]
        assert steps.storage.reader.timers(steps.uid, names=["b", "a"]) == [other, fires("b", 10, 2)]
        assert steps.storage.reader.timers(steps.uid, names=[]) == []

    def test_several_decisions_are_committed_each_by_itself(self, storage: Storage) -> None:
        """Promises 1 and 2: one that raises changes nothing and does not disturb the others, which see one another."""
        seen: list[int] = []

        def count(session: Session) -> DecisionRun:
            yield Need()
            seen.append(session.timer_count)
            session.timer_count += 1
            return Changes(session)

        done = storage.commit_many(
            [
                ("x", Decision("count", count)),
                ("y", setting({"b": fires("b", 5, 2)}, 5, fails=True)),
                ("x", Decision("count", count)),
                ("z", setting({"c": fires("c", 7, 1)}, 7)),
            ]
        )
        assert isinstance(done[1], ZeroDivisionError)
        assert [isinstance(one, Changes) for one in done] == [True, False, True, True]
        assert seen[-2:] == [0, 1]
        assert storage.reader.session("y") is None
        assert storage.timed_sessions(9, ["default"]) == [("z", 7)]
        head = storage.reader.session("x")
        assert head is not None
        assert head.timer_count == 2
        assert storage.commit_many([]) == []
