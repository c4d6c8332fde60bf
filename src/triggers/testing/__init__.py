"""Tools to test an application that uses Triggers, or a storage or runner of your own.

Nothing in this module needs a test framework. The conformance suites for storages and runners, and the
strategies for Hypothesis, need pytest and Hypothesis, so they are separate modules:
:mod:`triggers.testing.conformance`, :mod:`triggers.testing.conformance.runners` and
:mod:`triggers.testing.conformance.strategies`.
"""

from triggers.runners.threads import ThreadsRunner as ThreadingTaskRunner
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
from triggers.testing.version2 import (
    DevNullTask,
    FailingTask,
    PassThruTask,
    SelfRetryingTask,
    SelfSkippingTask,
    TriggerManagerTestCaseMixin,
)

__all__ = [
    "CapturedLogs",
    "DevNullTask",
    "FailingError",
    "FailingTask",
    "Faults",
    "FaultyDriver",
    "FaultyRunner",
    "FaultyStorage",
    "InjectedCrash",
    "PassThruTask",
    "PlayDifference",
    "PlayReport",
    "SelfRetryingTask",
    "SelfSkippingTask",
    "SessionAssertions",
    "ThreadingTaskRunner",
    "TriggerManagerTestCaseMixin",
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
