"""An application with a fresh storage, for tests of tasks from end to end."""

from __future__ import annotations

import pytest

from tests.storages.postgres_sandbox import PostgresPlace
from tests.storages.redis_sandboxes import RedisPlace, client_at
from triggers import Registry
from triggers.storages.memory import MemoryStorage
from triggers.storages.sqlite import SqliteStorage
from triggers.testing import Faults, TriggersHarness, VirtualClock


@pytest.fixture
def tasks():
    return Registry()


@pytest.fixture
def faults():
    return Faults()


class ServerClock(VirtualClock):
    """A clock that takes along the clock of a server's storage.

    Args:
        place: where the storage is.
    """

    def __init__(self, place):
        super().__init__()
        self._place = place

    def advance(self, duration):
        super().advance(duration)
        self._place.advance(duration)


def embedded(kind, folder):
    """Make the function that makes a storage within this process, given its clock."""
    if kind == "memory":
        return lambda clock: MemoryStorage(clock=clock)
    return lambda clock: SqliteStorage(f"sqlite:///{folder}/s.db?synchronous=normal", clock=clock)


@pytest.fixture(params=["memory", "sqlite"])
def harness(request, tasks, faults, tmp_path):
    storage = embedded(request.param, tmp_path)
    with TriggersHarness(registry=tasks, storage=storage, faults=faults, runners=["elsewhere"]) as harness:
        yield harness


@pytest.fixture(params=["memory", "sqlite", "postgresql", "valkey"])
def everywhere(request, tmp_path):
    """The storage and the clock of a harness, for each storage."""
    if request.param in {"memory", "sqlite"}:
        yield {"storage": embedded(request.param, tmp_path)}
        return
    if request.param == "postgresql":
        place = PostgresPlace(request.getfixturevalue("postgres_url"))
    else:
        url = request.getfixturevalue("valkey_url")
        place = RedisPlace(url, client_at(url))
    yield {"storage": lambda _: place.open(), "clock": ServerClock(place)}
    place.close()


@pytest.fixture
def session(harness):
    return harness.session("s")


@pytest.fixture
def check(harness):
    return harness.check("s")
