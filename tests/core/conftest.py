"""A session in memory, with a clock that only tests advance."""

from __future__ import annotations

import pytest

from triggers.storages.memory import MemoryStorage
from triggers.testing.clock import VirtualClock
from triggers.testing.conformance.steps import Steps


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def steps(clock):
    return Steps(MemoryStorage(clock=clock))
