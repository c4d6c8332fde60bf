"""The suite that every storage must pass: ours, and yours.

Write a class whose name begins with ``Test``, and give it the one fixture that the suite asks for::

    import pytest
    from triggers.testing.conformance import StorageConformance
    from triggers.testing.conformance.sandbox import Place


    class TestMyStorage(StorageConformance):
        @pytest.fixture
        def make_place(self, tmp_path):
            numbers = itertools.count()

            def make():
                path = tmp_path / f"{next(numbers)}.db"
                return Place(lambda clock: MyStorage(path, clock=clock))

            return make

The fixture gives a function, since some tests need many fresh places. A storage with a clock of its own
gives a subclass of :class:`~triggers.testing.conformance.sandbox.StorageSandbox` whose `advance` moves that
clock.

What the tests prove are the numbered promises of :mod:`triggers.storages.base`; each names its own. How hard
Hypothesis looks is decided by its active profile. The suite needs pytest and Hypothesis.
"""

from __future__ import annotations

from triggers.testing.conformance.claims import Claims
from triggers.testing.conformance.commits import Commits
from triggers.testing.conformance.purges import Purges
from triggers.testing.conformance.reads import Logs, Reads
from triggers.testing.conformance.reviews import Reviews
from triggers.testing.conformance.values import Values

__all__ = ["StorageConformance"]


class StorageConformance(Commits, Claims, Reads, Logs, Reviews, Purges, Values):
    """Every promise, as tests. A subclass supplies the fixture `make_place`."""
