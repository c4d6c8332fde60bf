"""The promises of every runner, kept by Celery with real workers over each broker."""

from __future__ import annotations

import secrets
import threading
from datetime import timedelta

import celery
import pytest

from tests.runners.celery_app import make_app, make_runner, queues, registry, url_of
from triggers.runners.celery import CeleryRunner
from triggers.storages.sqlite import SqliteStorage
from triggers.testing.conformance.runners import WORKERS, RunnerConformance, Stage


class CeleryConformance(RunnerConformance):
    """A worker in processes of its own, which does not sweep: what the tests want swept, they sweep."""

    in_process = False
    many = 30  # the runner keeps thousands of hints
    grace = timedelta(seconds=1)

    @pytest.fixture
    def broker(self):
        raise NotImplementedError

    @pytest.fixture
    def worker(self, make_worker, broker):
        return make_worker(broker, sweep=False)

    @pytest.fixture
    def app(self, worker):
        app = worker.app()
        yield app
        with app.connection_for_write() as connection:
            for queue in queues(worker.prefix):
                connection.default_channel.queue_purge(queue)

    @pytest.fixture
    def runner(self, app):
        return make_runner(app)

    @pytest.fixture
    def storage(self, tmp_path, worker):
        worker.point_to(tmp_path / "runner.db")
        return SqliteStorage(url_of(tmp_path / "runner.db"))

    @pytest.fixture
    def stage(self):
        stage = Stage()
        stage.registry = registry
        return stage


class TestCeleryOverRedis(CeleryConformance):
    @pytest.fixture
    def broker(self, redis_server):
        return redis_server.url


class TestCeleryOverValkey(CeleryConformance):
    @pytest.fixture
    def broker(self, valkey_server):
        return valkey_server.url


class TestCeleryOverRabbit(CeleryConformance):
    @pytest.fixture
    def broker(self, rabbit_server):
        return rabbit_server.url


@pytest.fixture(scope="module")
def leaving():
    """Workers that were told to stop: each takes up to two seconds, all of them together no more."""
    threads = []
    yield threads
    for thread in threads:
        thread.join()


class TestCeleryInThisProcess(RunnerConformance):
    """A worker on threads of the test's own process, for tests whose tasks have to meet the test itself."""

    many = 30  # the runner keeps thousands of hints

    @pytest.fixture
    def app(self):
        app = make_app("memory://", f"t{secrets.token_hex(4)}")
        app.conf.update(broker_transport_options={"polling_interval": 0.01}, worker_prefetch_multiplier=1)
        return app

    @pytest.fixture
    def runner(self, app):
        return CeleryRunner(app, sweep=False)

    @pytest.fixture(autouse=True)
    def worker(self, app, triggers, stage, leaving, monkeypatch):
        monkeypatch.setattr(celery._state, "default_app", app)  # a worker's program sets it for its process
        options = {"without_gossip": True, "without_mingle": True, "without_heartbeat": True}
        worker = app.WorkController(pool="threads", concurrency=WORKERS, loglevel="INFO", **options)
        thread = threading.Thread(target=worker.start)
        thread.start()
        yield
        stage.gate.set()
        worker.stop()
        leaving.append(thread)

    def test_a_forked_process_has_a_runner(self):
        """There are no workers in the child, and what is in this process's memory is no broker for it."""
