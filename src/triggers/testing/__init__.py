"""Everything that the tests of an application need, and of a storage or runner that somebody else wrote.

The suites for storages and runners, and the strategies for Hypothesis, are in modules of their own
(:mod:`triggers.testing.conformance`, :mod:`triggers.testing.conformance.runners`,
:mod:`triggers.testing.conformance.strategies`), since they need pytest and Hypothesis. What is here needs
neither.
"""

from triggers.testing.assertions import SessionAssertions
from triggers.testing.captured import CapturedLogs, captured_logs
from triggers.testing.clock import VirtualClock
from triggers.testing.faults import (
    Faults,
    FaultyDriver,
    FaultyRunner,
    FaultyStorage,
    InjectedCrash,
    by_chance,
    kill_process,
)
from triggers.testing.harness import TriggersHarness
from triggers.testing.orders import orders
from triggers.testing.play import PlayDifference, PlayReport, end_state, play
from triggers.testing.tasks import FailingError, ready_made

__all__ = [
    "CapturedLogs",
    "FailingError",
    "Faults",
    "FaultyDriver",
    "FaultyRunner",
    "FaultyStorage",
    "InjectedCrash",
    "PlayDifference",
    "PlayReport",
    "SessionAssertions",
    "TriggersHarness",
    "VirtualClock",
    "by_chance",
    "captured_logs",
    "end_state",
    "kill_process",
    "orders",
    "play",
    "ready_made",
]
