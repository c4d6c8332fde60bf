"""What every test stands on: how hard Hypothesis looks, logging as it was before the test, and private servers.

`HYPOTHESIS_PROFILE=thorough make test ARGS="-k storage"` looks harder for one run.

A server is started when the first test asks for it, one for each process of the tests, and serves them all. A test
that stops or pauses a server starts one of its own. Where a server is missing, its tests are skipped at home and fail
where `CI=true`, but for those that come by apt, which .ci/run installs if it can.
"""

from __future__ import annotations

import itertools
import logging
import os
import secrets
import signal
from urllib.parse import urlsplit

import pytest
from hypothesis import HealthCheck, settings

from triggers.testing.servers import (
    MissingServerError,
    PgBouncer,
    PostgresServer,
    RabbitServer,
    RedisCluster,
    RedisServer,
)

# A shell that runs the tests in the background has them ignore interrupts, and what they start would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)

# No deadline in any of them: a machine under load is slow, not wrong.
settings.register_profile("dev", max_examples=100, deadline=None, print_blob=True)
# A fresh clone has no database of earlier failures; the blob that is printed repeats one.
settings.register_profile(
    "ci",
    settings.get_profile("dev"),
    database=None,
    derandomize=False,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", settings.get_profile("dev"), max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    """A test that turns logging off, or configures it, does so for itself alone."""
    root, disabled = logging.root, logging.root.manager.disable
    loggers = [item for item in root.manager.loggerDict.values() if isinstance(item, logging.Logger)]
    before = [(logger, logger.level, logger.disabled) for logger in (root, *loggers)]
    yield
    root.manager.disable = disabled
    for logger, level, was_disabled in before:
        logger.setLevel(level)
        logger.disabled = was_disabled


#: No package for pip has them.
BY_APT = ("Redis", "RabbitMQ", "PgBouncer")


def running(server):
    """The server, started until the fixture ends; where it is missing, the reason."""
    try:
        server.start()
    except MissingServerError as error:
        if os.environ.get("CI") != "true" or server.name in BY_APT:
            pytest.skip(str(error))
        pytest.fail(str(error), pytrace=False)
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def postgres_server():
    """A PostgreSQL for all tests: not to be stopped or paused."""
    yield from running(PostgresServer(settings={"max_connections": 300}))


@pytest.fixture(scope="session")
def redis_server():
    """A Redis, the original, for all tests: not to be stopped or paused."""
    yield from running(RedisServer(kind="redis"))


@pytest.fixture(scope="session")
def valkey_server():
    """A Valkey for all tests: not to be stopped or paused."""
    yield from running(RedisServer(kind="valkey"))


@pytest.fixture(scope="session")
def redis_cluster():
    """A cluster of three nodes of Valkey for all tests: not to be stopped or paused."""
    yield from running(RedisCluster(kind="valkey"))


@pytest.fixture(scope="session")
def rabbit_server():
    """A RabbitMQ for all tests: not to be stopped or paused."""
    yield from running(RabbitServer())


@pytest.fixture(scope="session")
def pgbouncer(postgres_server):
    """A PgBouncer that pools by transaction, before `postgres_server`."""
    yield from running(PgBouncer(postgres_server))


def with_fresh_schema(url):
    """The URL with the name of a schema that is not there yet."""
    return f"{url}{'&' if urlsplit(url).query else '?'}schema=t_{secrets.token_hex(6)}"


@pytest.fixture
def postgres_url(postgres_server):
    """The URL of a PostgreSQL with a schema of this test's own, which is not there yet."""
    return with_fresh_schema(postgres_server.url)


@pytest.fixture
def pgbouncer_url(pgbouncer):
    """The same through PgBouncer."""
    return with_fresh_schema(pgbouncer.url)


_databases = itertools.count(1)


def with_empty_database(server):
    """The URL with a database in which nothing is; on a server from the environment, the one that is named there."""
    url = server.url
    if server.private:
        url = f"{url.rpartition('/')[0]}/{next(_databases) % 1024}"
    server.ask("FLUSHDB", url=url)
    return url


@pytest.fixture
def redis_url(redis_server):
    """The URL of an empty database of the original Redis."""
    return with_empty_database(redis_server)


@pytest.fixture
def valkey_url(valkey_server):
    """The URL of an empty database of a Valkey."""
    return with_empty_database(valkey_server)


@pytest.fixture(params=["memory", "sqlite", "postgres_url", "valkey_url"])
def any_url(request, tmp_path):
    """The URL of an empty storage, of each kind."""
    if request.param.endswith("url"):
        return request.getfixturevalue(request.param)
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'file.db'}"


@pytest.fixture
def cluster_url(redis_cluster):
    """The URL of an empty cluster."""
    for node in redis_cluster.nodes:
        node.ask("FLUSHALL")
    return redis_cluster.url


@pytest.fixture
def rabbit_url(rabbit_server):
    """The URL of a RabbitMQ; a test gives its queues names of their own."""
    return rabbit_server.url
