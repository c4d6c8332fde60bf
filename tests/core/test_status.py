"""The table of moves: every pair of statuses, one by one."""

from __future__ import annotations

from itertools import product

import pytest

from triggers.core.status import MOVES, RESOLVED, SETTLED, Status, can_move, check_move
from triggers.exceptions import InvalidStatusError

#: Written out once more, so that no change of the table goes unseen.
ALLOWED = {
    ("unstarted", "scheduled"),
    ("unstarted", "abandoned"),
    ("scheduled", "running"),
    ("running", "finished"),
    ("running", "failed"),
    ("running", "skipped"),
    ("running", "scheduled"),
    ("failed", "replayed"),
    ("failed", "skipped"),
}


def test_there_are_eight_statuses():
    """Their values are what storages keep and users see."""
    assert [str(status) for status in Status] == [
        "unstarted",
        "scheduled",
        "running",
        "finished",
        "failed",
        "skipped",
        "replayed",
        "abandoned",
    ]
    assert {str(status) for status in RESOLVED} == {"finished", "skipped", "replayed", "abandoned"}


@pytest.mark.parametrize(("before", "after"), list(product(Status, Status)))
def test_a_move_is_allowed_or_refused(before, after):
    """Each of the sixty-four pairs is what the table says; a refusal says where it stands and where it can go."""
    assert can_move(before, after) is ((before, after) in ALLOWED)
    if (before, after) in ALLOWED:
        assert check_move("t#0", before, after) is None
        return
    with pytest.raises(InvalidStatusError) as error:
        check_move("t#0", before, after)
    targets = ", ".join(end for start, end in sorted(ALLOWED) if start == before)
    assert f"t#0 is {before}: it cannot become {after}" in str(error.value)
    for target in targets.split(", ") if targets else ["none"]:
        assert target in str(error.value)


def test_every_move_has_a_reason_and_stands_there_once():
    """The diagram in the documentation is drawn from it."""
    assert all(move.because for move in MOVES)
    assert len({(move.before, move.after) for move in MOVES}) == len(MOVES) == len(ALLOWED)


def test_nothing_leaves_what_is_resolved():
    """No move begins in a resolved status, and every other status has one."""
    assert {move.before for move in MOVES} == set(Status) - RESOLVED


def test_what_is_settled_was_resolved_without_a_finish():
    """Log records need no review after that, whatever their level."""
    assert set(SETTLED) == RESOLVED - {Status.FINISHED}
