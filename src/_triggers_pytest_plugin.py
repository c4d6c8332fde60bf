"""Fixtures for pytest.

pytest imports this module at every start, so it is outside the package, and imports the package only when a
test uses a fixture.
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
    """The virtual clock of `triggers_harness`, which changes only when a test moves it."""
    from triggers.testing.clock import VirtualClock  # noqa: PLC0415 - as the module says

    return VirtualClock()


@pytest.fixture
def triggers_faults() -> Faults:
    """The faults of `triggers_harness`: none, until a test adds one."""
    from triggers.testing.faults import Faults  # noqa: PLC0415 - as the module says

    return Faults()


@pytest.fixture
def triggers_harness_options() -> Mapping[str, Any]:
    """Options of `triggers_harness`. Override this fixture to set a registry, a manager and so on."""
    return {}


@pytest.fixture
def triggers_harness(
    triggers_clock: VirtualClock, triggers_faults: Faults, triggers_harness_options: Mapping[str, Any]
) -> Iterator[TriggersHarness]:
    """A :class:`~triggers.testing.TriggersHarness`, which is closed after the test.

    The test fails if an instance has failed that the test neither asserted nor allowed to fail.
    """
    from triggers.testing.harness import TriggersHarness  # noqa: PLC0415 - as the module says

    options = {"clock": triggers_clock, "faults": triggers_faults, **triggers_harness_options}
    harness = TriggersHarness(**options)
    yield harness
    harness.close()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Check the failures of `triggers_harness` as the last step of a test that has passed so far."""
    yield
    harness = getattr(item, "funcargs", {}).get("triggers_harness")
    if harness is not None:
        harness.check_failures()
