"""Redis keeps the promises that every storage keeps: the original, Valkey, and a cluster."""

from __future__ import annotations

import pytest

from tests.storages.examples import FewExamples, HalfTheExamples
from tests.storages.redis_sandboxes import cluster_places, server_places
from triggers.testing.conformance import StorageConformance


class TestValkey(HalfTheExamples, StorageConformance):
    """The suite, on Valkey."""

    @pytest.fixture
    def make_place(self, valkey_url):
        return server_places(valkey_url)


class TestRedis(FewExamples, StorageConformance):
    """The suite, on the original."""

    @pytest.fixture
    def make_place(self, redis_url):
        return server_places(redis_url)


class TestCluster(FewExamples, StorageConformance):
    """The suite, on a cluster of three nodes."""

    @pytest.fixture
    def make_place(self, cluster_url):
        return cluster_places(cluster_url)
