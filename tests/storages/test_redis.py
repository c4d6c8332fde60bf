"""Redis keeps the promises that every storage keeps: the original, Valkey, and a cluster."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from tests.storages.redis_sandboxes import cluster_places, server_places
from triggers.testing.conformance import StorageConformance
from triggers.testing.conformance.machine import SessionMachine


class TestValkey(StorageConformance):
    """The suite, on Valkey."""

    @pytest.fixture
    def make_place(self, valkey_url):
        return server_places(valkey_url)


class TestRedis(StorageConformance):
    """The suite, on the original."""

    @pytest.fixture
    def make_place(self, redis_url):
        return server_places(redis_url)


class TestCluster(StorageConformance):
    """The suite, on a cluster of three nodes."""

    @pytest.fixture
    def make_place(self, cluster_url):
        return cluster_places(cluster_url)

    def test_it_agrees_with_the_reference_model(self, make_place):
        """All promises: as on one server, of which Hypothesis has seen more."""

        class Machine(SessionMachine):
            def make_place(self):
                return make_place()

        run_state_machine_as_test(Machine, settings=settings(max_examples=settings().max_examples // 5))
