"""PostgreSQL keeps the promises that every storage keeps, with and without PgBouncer."""

from __future__ import annotations

import itertools

import pytest

from tests.storages.examples import FewExamples, HalfTheExamples
from tests.storages.postgres_sandbox import PostgresPlace
from triggers.testing.conformance import StorageConformance

_numbers = itertools.count()

#: Seconds for one test: a machine under load takes minutes for the thousands of commits of the reference model's.
PATIENCE = 600


def postgres_places(url, direct_url=""):
    """Gives the function that the suite asks for: each place is a schema of its own."""
    places = []

    def make():
        place = PostgresPlace(f"{url}_{next(_numbers)}", direct_url)
        places.append(place)
        return place

    yield make
    for place in places:
        place.close()


@pytest.mark.timeout(PATIENCE)
class TestPostgres(HalfTheExamples, StorageConformance):
    """The suite, as PostgreSQL is used by default."""

    @pytest.fixture
    def make_place(self, postgres_url):
        yield from postgres_places(postgres_url)


@pytest.mark.timeout(PATIENCE)
class TestPostgresThroughPgBouncer(FewExamples, StorageConformance):
    """The suite, through a PgBouncer that lends a connection for the length of a transaction."""

    @pytest.fixture
    def make_place(self, pgbouncer_url, postgres_server):
        options = pgbouncer_url.partition("schema=")[2]
        yield from postgres_places(pgbouncer_url, f"{postgres_server.url}&schema={options}")

    @pytest.fixture
    def listener(self):
        pytest.skip(
            "a pooler forwards no notifications; tests/scenarios/test_wake_up.py tests what happens instead"
        )
