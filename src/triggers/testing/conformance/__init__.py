"""The conformance suite for storages: the storages of the library pass it, and yours must pass it too.

Write a class whose name begins with ``Test``, and give it the one fixture that the suite needs::

    import itertools

    import pytest
    from triggers.testing.conformance import StorageConformance
    from triggers.testing.conformance.sandbox import StorageSandbox


    class TestMyStorage(StorageConformance):
        @pytest.fixture
        def make_place(self, tmp_path):
            numbers = itertools.count()

            def make():
                path = tmp_path / f"{next(numbers)}.db"
                return StorageSandbox(lambda clock: MyStorage(path, clock=clock))

            return make

The fixture returns a function, because some tests need many empty sandboxes. If your storage has a clock of
its own, return a subclass of :class:`~triggers.testing.conformance.sandbox.StorageSandbox` whose `advance`
moves that clock.

If previews and commits wait for each other in your storage, override the fixtures `committing` and
`overtaking` of :class:`~triggers.testing.conformance.previews.Previews`, and call `pytest.skip` in them.

The tests check the numbered promises of :mod:`triggers.storages.base`. The docstring of each test names the
promise. The active Hypothesis profile decides how many examples are tried. The suite needs pytest and
Hypothesis.
"""

from __future__ import annotations

from triggers.testing.conformance.announcing import Announcements
from triggers.testing.conformance.claims import Claims
from triggers.testing.conformance.commits import Commits
from triggers.testing.conformance.imports import Imports
from triggers.testing.conformance.newer_rules import NewerRules
from triggers.testing.conformance.outcomes import Outcomes
from triggers.testing.conformance.previews import Previews
from triggers.testing.conformance.purges import Purges
from triggers.testing.conformance.reads import Logs, Reads
from triggers.testing.conformance.reviews import Reviews
from triggers.testing.conformance.stored_timers import StoredTimers
from triggers.testing.conformance.timing import Timing
from triggers.testing.conformance.values import Values

__all__ = ["StorageConformance"]


class StorageConformance(
    Commits,
    Imports,
    Claims,
    Announcements,
    Reads,
    Logs,
    Reviews,
    Purges,
    Values,
    NewerRules,
    Outcomes,
    Previews,
    StoredTimers,
    Timing,
):
    """A test for every promise of a storage. A subclass supplies the fixture `make_place`."""
