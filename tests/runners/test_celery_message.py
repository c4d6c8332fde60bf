"""Messages of every version are understood, and what is none is told apart."""

from __future__ import annotations

import pytest

from triggers.runners.celery.message import Hint, arguments, understood
from triggers.storages.base import ReadyInstance


def test_what_is_sent_is_understood():
    """UID and name come back, whatever characters they have."""
    for due in (ReadyInstance("s", "t", 0), ReadyInstance("a#1/ü", "t#x", 12)):
        assert understood(arguments(due), {}) == (due.uid, due.task, due.number)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        (("s", "t#0"), {}),
        (["s", "t#0"], {}),
        (("s", "t#0", "something new"), {"v": 99, "priority": "high"}),
        (("s", "t#0"), None),
        (("s",), {"instance": "t#0"}),
        ((), {"uid": "s", "instance": "t#0"}),
        ((), {"instance": "t#0", "uid": "s", "v": 0}),
    ],
)
def test_other_versions_are_understood(args, kwargs):
    """The first two arguments say it all, by place or by name; whatever else there is does not matter."""
    assert understood(args, kwargs) == Hint("s", "t", 0)


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((), {}),
        (("s",), {}),
        (("s", "t"), {}),
        (("s", "t#-1"), {}),
        (("s", "#0"), {}),
        (("s", 0), {}),
        (("s", None), {}),
        ((None, "t#0"), {}),
        (("", "t#0"), {}),
        (("s\x00", "t#0"), {}),
        (("s" * 256, "t#0"), {}),
        ((["s"], {"t": 0}), {}),
        (("s", "t#" + "9" * 5000), {}),
        ("s", "t#0"),
        (None, None),
        (17, "x"),
    ],
)
def test_garbage_is_none(args, kwargs):
    """It never raises, since it would be delivered again for ever."""
    assert understood(args, kwargs) is None
