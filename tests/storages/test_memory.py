"""Memory keeps the promises that every storage keeps."""

from __future__ import annotations

import threading

import pytest

from triggers.core.exchange import Changes, Decision, Need
from triggers.exceptions import StorageBusyError
from triggers.storages.memory import MemoryStorage
from triggers.testing.conformance import StorageConformance
from triggers.testing.conformance.sandbox import StorageSandbox
from triggers.testing.conformance.steps import Steps


def memory_place() -> StorageSandbox:
    """A storage that can have only one handle."""
    made = []

    def open_with(clock):
        if not made:
            made.append(MemoryStorage(clock=clock))
        return made[0]

    return StorageSandbox(open_with)


class TestMemoryStorage(StorageConformance):
    """The suite, on memory."""

    @pytest.fixture
    def make_place(self):
        return memory_place

    @pytest.fixture
    def committing(self):
        pytest.skip("one lock makes commits and previews wait for each other")

    overtaking = committing


def test_each_storage_in_memory_is_a_world_of_its_own():
    """Two storages of the same URL share nothing."""
    one, two = MemoryStorage.from_url("memory://"), MemoryStorage.from_url("memory://")
    Steps(one).fire("a")
    assert two.reader.sessions() == []
    assert repr(one) == "MemoryStorage('memory://')"


def test_its_clock_is_the_systems():
    """Without a clock of one's own it is the year that it is."""
    assert MemoryStorage().now() > 1_767_225_600_000_000


def test_patience_ends():
    """A commit that may not wait longer says so, and changes nothing."""
    storage = MemoryStorage()
    inside, leave = threading.Event(), threading.Event()

    def hold(session):
        yield Need()
        inside.set()
        leave.wait(60)
        return Changes(session, writes_head=False)

    holder = threading.Thread(target=storage.commit, args=("held", Decision("hold", hold)))
    holder.start()
    try:
        assert inside.wait(60)
        with pytest.raises(StorageBusyError, match=r"0\.05 s; nothing was changed"):
            storage.commit("session", Decision("never", _never), timeout=0.05)
    finally:
        leave.set()
        holder.join()
    assert storage.sessions() == []


def _never(session):
    raise AssertionError("nothing is decided while somebody else decides")
    yield Need()
