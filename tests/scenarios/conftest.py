"""An application with a fresh storage, for tests of tasks from end to end."""

from __future__ import annotations

import pytest

from triggers import Registry
from triggers.storages.memory import MemoryStorage
from triggers.storages.sqlite import SqliteStorage
from triggers.testing import Faults, TriggersHarness


@pytest.fixture
def tasks():
    return Registry()


@pytest.fixture
def faults():
    return Faults()


@pytest.fixture(params=["memory", "sqlite"])
def harness(request, tasks, faults, tmp_path):
    def storage(clock):
        if request.param == "memory":
            return MemoryStorage(clock=clock)
        return SqliteStorage(f"sqlite:///{tmp_path}/s.db?synchronous=normal", clock=clock)

    with TriggersHarness(registry=tasks, storage=storage, faults=faults, runners=["elsewhere"]) as harness:
        yield harness


@pytest.fixture
def session(harness):
    return harness.session("s")


@pytest.fixture
def check(harness):
    return harness.check("s")
