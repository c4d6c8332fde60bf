"""What concurrent clients of one file are told is what one client after the other would have been told."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest

from tests.history.checker import check, explained, incomplete, miscounted, out_of_order, replayed
from tests.history.clients import Call, open_storage, play
from triggers.storages.sqlite.file import SqliteFile
from triggers.testing.conformance.steps import Steps


@pytest.mark.parametrize("seed", range(3))
def test_concurrent_clients_are_told_what_can_be_true(seed, tmp_path):
    """Threads and processes fire, claim and end in few sessions: some order of it all explains every answer."""
    calls = play(tmp_path / "a.db", seed=seed)
    storage = open_storage(tmp_path / "a.db")
    assert check(calls, storage) == []
    storage.close()
    kinds = [call.op for call in calls]
    assert min(map(kinds.count, ("fire", "claim", "finish", "fail", "release", "read", "count"))) > 0
    assert any(call.op == "fire" and call.result["duplicate"] for call in calls)
    assert any(call.op == "claim" and call.result is None for call in calls)
    assert any(call.op == "finish" and not call.result["accepted"] for call in calls)
    assert overlapping(calls) > 0, "they did not come in between each other"


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 150))
def test_many_more_histories(seed, tmp_path):
    """Fifty more histories, with more clients, are no different."""
    calls = play(tmp_path / "a.db", seed=seed, processes=3, threads=4)
    storage = open_storage(tmp_path / "a.db")
    assert check(calls, storage) == []
    storage.close()


def overlapping(calls: list[Call]) -> int:
    """How many calls were asked before the one before them was answered."""
    ordered = sorted(calls, key=lambda call: call.invoked)
    return sum(later.invoked < earlier.returned for earlier, later in pairwise(ordered))


# -- a checker that finds nothing proves nothing -------------------------------------------------------------------


@pytest.fixture
def history(tmp_path):
    """A short history of one session, and its storage: fired twice, claimed, read, let go, claimed, finished."""
    storage = open_storage(tmp_path / "a.db")
    calls = play(tmp_path / "a.db", seed=7, processes=1, threads=1, acts=120)
    yield [call for call in calls if call.uid == "one"], Steps(storage, "one")
    storage.close()


def first(calls: list[Call], op: str) -> int:
    """The place of the first call of that kind that did something."""
    done = (call.op == op and call.result and (op != "finish" or call.result["accepted"]) for call in calls)
    return next(place for place, did in enumerate(done) if did)


def forged(calls: list[Call], place: int, **changes: object) -> list[Call]:
    """The same history with one call told otherwise."""
    return [*calls[:place], replace(calls[place], **changes), *calls[place + 1 :]]


def test_a_true_history_is_believed(history):
    """None of the checks finds anything in what really happened."""
    calls, steps = history
    assert replayed(calls, steps) + out_of_order(calls) + incomplete(calls, steps) + miscounted(calls) == []


def test_a_lost_firing_is_found(history):
    """What was acknowledged and is not stored, and what is stored and was acknowledged to nobody."""
    calls, steps = history
    place = first(calls, "fire")
    result = {**calls[place].result, "number": 10_000}
    assert incomplete(forged(calls, place, result=result), steps)
    assert incomplete(calls[:place] + calls[place + 1 :], steps)
    assert replayed(calls[:place] + calls[place + 1 :], steps)


def test_another_answer_is_found(history):
    """Another fence, another number, an end that was accepted twice: the model would not have said that."""
    calls, steps = history
    claim, finish = first(calls, "claim"), first(calls, "finish")
    assert replayed(forged(calls, claim, result=calls[claim].result + 1), steps)
    assert replayed(forged(calls, claim, result=None), steps)
    refused = {"accepted": False, "number": None, "scheduled": []}
    assert replayed(forged(calls, finish, result=refused), steps)


def test_a_commit_out_of_its_time_is_found(history):
    """A commit before it was asked for, or after it was answered."""
    calls, steps = history
    place = first(calls, "fire")
    assert replayed(forged(calls, place, invoked=calls[place].at + 1), steps)
    assert replayed(forged(calls, place, returned=calls[place].at - 1), steps)


def fired(number: int, invoked: int, returned: int) -> Call:
    """A firing of that number."""
    return Call(
        "c", "fire", "one", {}, invoked, returned, 0, {"number": number, "duplicate": False, "scheduled": []}
    )


def test_numbers_against_real_time_are_found():
    """A firing that was answered before another was asked has the lower number; of two at a time, either has."""
    assert out_of_order([fired(2, 0, 10), fired(1, 20, 30)])
    assert out_of_order([fired(3, 0, 10), fired(1, 20, 30), fired(2, 5, 25)])
    assert not out_of_order([fired(1, 0, 10), fired(2, 20, 30)])
    assert not out_of_order([fired(2, 0, 25), fired(1, 20, 30)])


def test_a_count_that_cannot_be_is_found():
    """A reader sees all that was acknowledged before it asked, and nothing that was asked after it was answered."""
    fires = [fired(1, 0, 10), fired(2, 20, 30), fired(3, 50, 60)]
    counted = Call("c", "count", "one", {}, 35, 45)
    assert miscounted([*fires, replace(counted, result=1)])
    assert miscounted([*fires, replace(counted, result=3)])
    assert not miscounted([*fires, replace(counted, result=2)])


def said(op: str, result: object, invoked: int, returned: int, fence: int = 0) -> Call:
    """A call about the instance."""
    return Call("c", op, "one", {"name": "t#0", "fence": fence}, invoked, returned, 0, result)


RELEASED = replace(fired(1, 0, 1), result={"number": 1, "duplicate": False, "scheduled": ["t#0"]})
YES, NO = (
    {"accepted": True, "number": None, "scheduled": []},
    {"accepted": False, "number": None, "scheduled": []},
)


@pytest.mark.parametrize(
    ("calls", "possible"),
    [
        ([said("claim", 1, 2, 3), said("finish", YES, 4, 5, 1)], True),
        ([said("claim", 1, 2, 3), said("claim", 1, 2, 3)], False),
        ([said("claim", 1, 2, 3), said("claim", None, 2, 3)], True),
        ([said("claim", None, 2, 3)], False),
        ([said("claim", 2, 2, 3)], False),
        ([said("claim", 1, 2, 3), said("finish", YES, 4, 5, 1), said("finish", YES, 6, 7, 1)], False),
        ([said("claim", 1, 2, 3), said("finish", YES, 4, 9, 1), said("finish", NO, 4, 9, 1)], True),
        ([said("claim", 1, 2, 3), said("release", YES, 4, 5, 1), said("claim", 3, 6, 7)], True),
        ([said("claim", 1, 2, 3), said("release", YES, 4, 5, 1), said("claim", 2, 6, 7)], False),
        ([said("claim", 1, 2, 3), said("release", YES, 4, 5, 1), said("finish", YES, 6, 7, 1)], False),
        ([said("claim", 1, 2, 3), said("read", ["scheduled", 0], 4, 5)], False),
        ([said("claim", 1, 2, 5), said("read", ["scheduled", 0], 3, 4)], True),
        (
            [
                said("claim", 1, 2, 9),
                said("read", ["running", 1], 3, 4),
                said("read", ["scheduled", 0], 5, 6),
            ],
            False,
        ),
        ([said("claim", 1, 2, 3), said("fail", YES, 4, 5, 1), said("read", ["failed", 1], 6, 7)], True),
    ],
)
def test_what_was_said_of_one_instance_is_explained_or_not(calls, possible):
    """Two claims of one fence, an end accepted twice, a read of the past: no order explains them."""
    assert explained("t#0", [RELEASED, *calls]) == possible


def test_a_transaction_that_takes_its_lock_too_late_is_found(tmp_path, monkeypatch):
    """Where transactions begin by reading and lock only when they write, clients get errors that the check finds."""
    monkeypatch.setattr(SqliteFile, "_begin", lambda file, link, until: link.connection.execute("BEGIN"))
    calls = play(tmp_path / "a.db", seed=2, acts=60)
    storage = open_storage(tmp_path / "a.db")
    assert any("StorageBusyError" in problem for problem in check(calls, storage))
    storage.close()
