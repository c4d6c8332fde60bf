"""Fixtures for pytest, which imports this module at every start, whatever the tests are about.

So it is outside the package, and imports that when a test asks for a fixture.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from triggers.testing.clock import VirtualClock
    from triggers.testing.faults import Faults
    from triggers.testing.harness import TriggersHarness


@pytest.fixture
def triggers_clock() -> VirtualClock:
    """A clock that stands still until it is told otherwise; that of `triggers_harness`."""
    from triggers.testing.clock import VirtualClock  # noqa: PLC0415 - as the module says

    return VirtualClock()


@pytest.fixture
def triggers_faults() -> Faults:
    """Where the process of `triggers_harness` is to die: nowhere, until it is told."""
    from triggers.testing.faults import Faults  # noqa: PLC0415 - as the module says

    return Faults()


@pytest.fixture
def triggers_harness_options() -> Mapping[str, Any]:
    """Options of `triggers_harness`; define a fixture of this name to give it a registry, a manager."""
    return {}


@pytest.fixture
def triggers_harness(
    triggers_clock: VirtualClock, triggers_faults: Faults, triggers_harness_options: Mapping[str, Any]
) -> Iterator[TriggersHarness]:
    """A :class:`~triggers.testing.TriggersHarness`, closed after the test."""
    from triggers.testing.harness import TriggersHarness  # noqa: PLC0415 - as the module says

    options = {"clock": triggers_clock, "faults": triggers_faults, **triggers_harness_options}
    with TriggersHarness(**options) as harness:
        yield harness
