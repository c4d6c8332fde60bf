"""Redis away, slow, full, killed and restarted; answers lost; many processes at once: nothing lost, nothing twice."""

from __future__ import annotations

import os
import threading
import time
import traceback
from datetime import timedelta

import pytest
from redis import Redis
from redis.exceptions import ResponseError

from tests.storages.redis_sandboxes import RedisPlace, client_at
from triggers.core.exchange import Changes, Decision, Need
from triggers.exceptions import StorageError, StorageFullError
from triggers.storages.redis import RedisStorage
from triggers.storages.redis.lua import script
from triggers.testing.conformance.fixtures import at_once, batch, entry, page_attempt, start_pages
from triggers.testing.conformance.steps import SECOND, Steps
from triggers.testing.conformance.stored_timers import fires, setting
from triggers.testing.servers import MissingServerError, RedisCluster, RedisServer
from triggers.testing.servers.proxy import Proxy

PAGES = {"t_page": {"andEvery": "page", "run": "page"}}

GRACE = 30 * SECOND

#: What a commit is answered with.
STORED = b"$2\r\nOK\r\n"

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

#: Threads that fork are warned of since Python 3.12; these tests fork from the main thread and hold no lock.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def server():
    """A server of this test's own."""
    with RedisServer(private=True) as server:
        yield server


@pytest.fixture
def network(valkey_server):
    """A network between the storage and a server."""
    with Proxy(valkey_server.url) as network:
        yield network


def numbers(steps):
    return [firing.number for firing in steps.firings()]


# -- answers that are lost ----------------------------------------------------------------------------------


def test_a_commit_whose_answer_was_lost_is_made_once(network):
    """Promise 11: it is stored, the connection ends before the answer, and the repeat is told that it is done."""
    steps = Steps(RedisStorage(f"{network.url}?prefix=lost&timeout=60"))
    steps.configure(PAGES)
    for n in range(20):
        cut = network.cut_after(STORED, direction="server", deliver=False)
        assert steps.fire("page", {"n": n}).fired[0].number == n + 1
        assert cut.made == 1
    assert numbers(steps) == list(range(1, 21))
    assert len(steps.instances()) == 20


def test_a_commit_that_did_not_arrive_is_made_once(network):
    """Promise 11: the connection ends before the server has the command; the repeat does it."""
    steps = Steps(RedisStorage(f"{network.url}?prefix=cut&timeout=60"))
    steps.configure(PAGES)
    storing = script("commit").sha.encode()
    for n in range(20):
        cut = network.cut_after(storing, deliver=False)
        assert steps.fire("page", {"n": n}).fired[0].number == n + 1
        assert cut.made == 1
    assert numbers(steps) == list(range(1, 21))


def test_every_kind_of_commit_is_made_once(network):
    """Promise 11: claims, records, ends, recoveries, reviews and timers, each with its answer lost."""
    steps = Steps(RedisStorage(f"{network.url}?prefix=kinds&timeout=60"))
    steps.configure(PAGES)

    def losing(step, *given):
        cut = network.cut_after(STORED, direction="server", deliver=False)
        answer = step(*given)
        assert cut.made == 1
        return answer

    losing(steps.fire, "page")
    attempt = losing(steps.start, "t_page#0")
    losing(steps.keep_logs, attempt, batch(entry("Said once.")))
    losing(steps.release, attempt)
    attempt = losing(steps.start, "t_page#0")
    assert (attempt.fence, attempt.attempt) == (3, 2)
    losing(steps.finish, attempt)
    losing(steps.resolve_logs, "t_page#0", {"by": "a person"})
    assert [record.message for record in steps.storage.reader.logs(steps.uid)] == ["Said once."]
    assert [firing.trigger for firing in steps.firings()] == ["page", "t_page"]
    for at in (9 * 10**15, 8 * 10**15):
        losing(steps.commit, setting({"a": fires("a", at, 1)}, at))
    assert steps.storage.reader.timers(steps.uid) == [fires("a", at, 1)]
    assert steps.storage.timed_sessions(9, ["default"]) == [(steps.uid, at)]
    assert steps.head.timer_count == 2


def test_a_note_is_kept_for_longer_than_a_commit_is_repeated(network):
    """Promise 11: between a commit and its repeat others may have decided; it still counts as made."""
    url = f"{network.url}?prefix=between&timeout=60"
    steps, other = Steps(RedisStorage(url)), Steps(RedisStorage(url))
    steps.fire("a")
    store = steps.storage._store
    sent = []
    run = store.run

    def twice(name, keys, parts, until):
        answer = run(name, keys, parts, until)
        if name == "commit":
            other.fire("b")
            sent.append(run(name, keys, parts, until))
        return answer

    store.run = twice
    assert steps.fire("a").fired[0].number == 2
    assert sent == [b"OK"]
    assert [firing.trigger for firing in steps.firings()] == ["a", "a", "b"]


def test_an_unknown_end_is_said_to_be_unknown(network):
    """Promise 8: where the answer never comes, the error does not claim that nothing was changed."""
    steps = Steps(RedisStorage(f"{network.url}?prefix=unknown&timeout=1.5&socket_timeout=0.1"))
    steps.fire("a")
    network.hold()
    with pytest.raises(StorageError, match="it is not known whether the last command was executed"):
        steps.fire("a")
    network.release()
    assert steps.head.firings in {1, 2}


def test_scripts_that_the_server_forgot_are_sent_again(valkey_url):
    """After SCRIPT FLUSH, a restart or a failover, each script is sent whole, in whatever company it travels."""
    storage = RedisStorage(valkey_url)
    steps = Steps(storage)
    client = Redis.from_url(valkey_url)
    for step in (
        lambda: steps.configure(PAGES),
        lambda: steps.fire("page"),
        lambda: storage.due(1, grace=GRACE, include_recent=True) or None,
        lambda: steps.start("t_page#0"),
        lambda: steps.renew(page_attempt(0)),
        lambda: steps.keep_logs(page_attempt(0), batch(entry())),
        lambda: steps.finish(page_attempt(0)),
        lambda: storage.reader.logs("session"),
        storage.reader.backlog,
        storage.reader.sessions,
    ):
        client.script_flush()
        assert step() is not None
    assert steps.statuses() == {"t_page#0": "finished"}
    assert numbers(steps) == [1, 2]


# -- servers that end ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["valkey", "redis"])
def test_a_killed_server_has_kept_what_it_acknowledged(kind):
    """Promise 3: kill -9 again and again while four threads fire: what returned is there, numbers have no gaps."""
    try:
        server = RedisServer(kind=kind, private=True).start()
    except MissingServerError as error:
        pytest.skip(str(error))
    with server:
        handles = [RedisStorage(f"{server.url}?timeout=60&socket_timeout=2") for _ in range(4)]
        hands = [Steps(handle, "hot") for handle in handles]
        hands[0].configure(PAGES)
        ending = threading.Event()
        told = [[] for _ in hands]

        def fire(which):
            while not ending.is_set():
                told[which].append(hands[which].fire("page", {"w": which}).fired[0].number)

        def kill():
            for _ in range(5):
                time.sleep(0.3)
                server.stop(immediate=True)
                server.start()
            ending.set()

        at_once([kill, *(lambda which=which: fire(which) for which in range(4))])
        said = sorted(number for own in told for number in own)
        assert numbers(hands[0]) == list(range(1, len(said) + 1)) == said
        assert len(hands[0].instances()) == len(said)


def test_a_paused_server_is_waited_for(server):
    """It stands still for longer than an answer may take; then everything goes on, and nothing was done twice."""
    steps = Steps(RedisStorage(f"{server.url}?timeout=60&socket_timeout=0.3"))
    steps.fire("a")
    server.pause()
    timer = threading.Timer(1.0, server.resume)
    timer.start()
    assert steps.fire("a").fired[0].number == 2
    timer.join()
    assert numbers(steps) == [1, 2]


def test_a_server_that_is_away_for_too_long_is_an_error(server):
    """After the patience of the call, or of the URL."""
    steps = Steps(RedisStorage(f"{server.url}?timeout=1.5"))
    steps.fire("a")
    server.stop()
    with pytest.raises(StorageError, match="did not answer for too long"):
        steps.fire("a")
    before = time.monotonic()
    with pytest.raises(StorageError, match="did not answer for too long"):
        steps.storage.commit("session", Decision("never", lambda _: None), timeout=0.0)
    assert time.monotonic() - before < 30
    server.start()
    assert steps.fire("a").fired[0].number == 2


def test_a_server_without_memory_refuses_whole_commits(server):
    """Up to its limit, and beyond: each commit is stored whole or refused whole, by a StorageFullError."""
    client = Redis.from_url(server.url)
    storage = RedisStorage(f"{server.url}?partitions=2")
    steps = [Steps(storage, f"session {n}") for n in range(4)]
    for each in steps:
        each.configure(PAGES)
    made = dict.fromkeys(range(4), 0)
    refused = []
    for ramp in range(30):
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 4_096 * (ramp % 5))
        for n, each in enumerate(steps):
            try:
                each.fire("page", {"n": "x" * 500 * (ramp % 7)})
            except StorageFullError as error:
                refused.append(str(error))
            else:
                made[n] += 1
    client.config_set("maxmemory", 0)
    assert refused
    assert all("has no memory left (maxmemory); nothing was changed" in said for said in refused)
    assert sum(made.values())
    for n, each in enumerate(steps):
        assert numbers(each) == list(range(1, made[n] + 1))
        assert each.head.firings == made[n]
        assert [instance.status.value for instance in each.instances()] == ["scheduled"] * made[n]
        each.fire("page")
    due = storage.due(1_000, grace=GRACE, include_recent=True)
    assert len(due) == sum(made.values()) + len(steps)


# -- many at once -------------------------------------------------------------------------------------------


def forked(job):
    """Begin the job in a forked process; returns its id and where what the job returns can be read, as text."""
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            os.write(writing, str(job()).encode())
            status = 0
        except BaseException:  # noqa: BLE001 - whatever it is, the parent must hear of it
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writing)
    return pid, reading


def ended(pid, reading):
    """What the job returned, as text."""
    with os.fdopen(reading) as stream:
        said = stream.read()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    return said


@needs_fork
def test_sixteen_processes_fire_into_one_session(valkey_url):
    """Promise 2: every firing is recorded once, none fails, numbers have no gaps, one instance comes of each."""
    url = f"{valkey_url}?timeout=100"
    steps = Steps(RedisStorage(url), "hot")
    steps.configure(PAGES)

    def fire(which):
        own = Steps(RedisStorage(url), "hot")
        return " ".join(str(own.fire("page", {"which": which, "n": n}).fired[0].number) for n in range(15))

    processes = [forked(lambda which=which: fire(which)) for which in range(16)]
    told = [[int(number) for number in ended(*process).split()] for process in processes]
    assert sorted(number for own in told for number in own) == list(range(1, 241))
    assert all(own == sorted(own) for own in told), "what one process fires stays in its order"
    assert numbers(steps) == list(range(1, 241))
    said = {(kwargs["page"]["which"], kwargs["page"]["n"]) for kwargs in steps.kwargs_of(steps.instances())}
    assert said == {(which, n) for which in range(16) for n in range(15)}


def test_who_waits_for_a_moment_alone_does_not_wait_for_ever(valkey_url):
    """A process that has asked the others to wait, and died, holds them up for a moment only."""
    storage = RedisStorage(valkey_url)
    steps = Steps(storage)
    steps.fire("a")
    key = storage._store.keys_of("session")[1].q
    client = Redis.from_url(valkey_url)
    client.set(key, b"somebody else")  # for ever, as no process would
    assert steps.fire("a").fired[0].number == 2
    assert client.get(key) == b"somebody else"
    client.delete(key)
    assert steps.fire("a").fired[0].number == 3


def test_conflicts_are_decided_anew_for_as_long_as_the_patience_lasts(valkey_url):
    """Far more often than a storage with locks would try; then it is an error, and nothing was changed."""
    storage = RedisStorage(valkey_url)
    other = Steps(storage)
    tries = []

    def begin(session):
        yield Need()
        tries.append(session.firings)
        other.fire("b")
        session.metadata = '{"late": true}'
        return Changes(session)

    with pytest.raises(StorageError, match=r"session 'session' changed \d+ times in a row"):
        storage.commit("session", Decision("describe", begin), timeout=3.0)
    assert tries == list(range(len(tries)))
    assert len(tries) > 2
    assert other.head.metadata == "{}"


@needs_fork
def test_a_forked_process_opens_connections_of_its_own(valkey_url):
    """Parent and children fire through the one storage at the same time, and answers go to whom they belong."""
    storage = RedisStorage(valkey_url)
    steps = Steps(storage, "shared")
    steps.configure(PAGES)
    used = storage._store.server._link

    def fire(which):
        assert which is None or storage._store.server._link is None
        return [steps.fire("page", {"child": which, "n": n}).fired[0].number for n in range(25)]

    children = [forked(lambda child=child: fire(child)) for child in range(3)]
    fire(None)
    for child in children:
        ended(*child)
    assert storage._store.server._link is used
    assert numbers(steps) == list(range(1, 101))


def test_threads_share_no_connection(valkey_url):
    """Eight threads read and write through one handle, and each sees its own answers."""
    storage = RedisStorage(valkey_url)

    def work(which):
        steps = Steps(storage, f"session {which}")
        for n in range(20):
            assert steps.fire("a", {"which": which}).fired[0].number == n + 1
            assert steps.head.uid == f"session {which}"
        assert numbers(steps) == list(range(1, 21))

    at_once([lambda which=which: work(which) for which in range(8)])
    storage.close()
    assert storage.reader.session("session 1").firings == 20


# -- partitions ---------------------------------------------------------------------------------------------


def test_those_that_waited_longest_come_first_over_all_partitions(valkey_url):
    """Promise 9: also where one partition has far more to do than the others."""
    place = RedisPlace(valkey_url, client_at(valkey_url))
    storage = place.open()
    for n in range(60):
        steps = Steps(storage, f"session {n}" if n % 6 == 0 else "busy")
        steps.configure(PAGES)
        steps.fire("page")
        place.advance(timedelta(seconds=1))
    place.advance(timedelta(minutes=1))
    expected = [f"session {n}" if n % 6 == 0 else "busy" for n in range(60)]
    found = []
    while some := storage.due(7, grace=3600 * SECOND):
        assert len(some) <= 7
        found += [due.uid for due in some]
    assert found == expected
    place.close()


@pytest.mark.parametrize("limit", [1, 3, 50, 1_000])
def test_expired_leases_are_found_over_all_partitions(valkey_url, limit):
    """Promise 10: as many as were asked for, those first that ran out first."""
    place = RedisPlace(valkey_url, client_at(valkey_url))
    storage = place.open()
    for n in range(30):
        start_pages(Steps(storage, f"session {n % 3}-{n}"), 1)
        place.advance(timedelta(seconds=1))
    place.advance(timedelta(minutes=10))
    found = storage.expired(limit)
    assert [lost.uid for lost in found] == [f"session {n % 3}-{n}" for n in range(30)][:limit]
    place.close()


def test_a_cluster_whose_node_restarts_goes_on():
    """One of three nodes is killed and comes back: what lies there waits for it, and nothing is lost."""
    try:
        cluster = RedisCluster().start()
    except MissingServerError as error:
        pytest.skip(str(error))
    with cluster:
        storage = RedisStorage(f"{cluster.url}?timeout=60&socket_timeout=2&partitions=12")
        every = [Steps(storage, f"session {n}") for n in range(24)]
        for steps in every:
            steps.configure(PAGES)
            steps.fire("page")
        cluster.nodes[1].stop(immediate=True)
        found = storage.due(100, grace=GRACE, include_recent=True)
        assert 0 < len(found) < 24, "the sweep goes on with what lies elsewhere"
        timer = threading.Timer(0.5, cluster.nodes[1].start)
        timer.start()
        for steps in every:
            steps.fire("page")
        timer.join()
        assert all(numbers(steps) == [1, 2] for steps in every)
        assert len(storage.due(100, grace=GRACE, include_recent=True)) == 48
        assert storage.reader.backlog() == (48, 0, 0)


def test_a_slot_that_moves_while_it_is_used_loses_nothing():
    """Its keys go from node to node while three threads fire and a sweep looks: all of it goes on, and is whole."""
    try:
        cluster = RedisCluster().start()
    except MissingServerError as error:
        pytest.skip(str(error))
    with cluster:
        url = f"{cluster.url}?timeout=60&partitions=1"
        hands = [Steps(RedisStorage(url), f"session {n}") for n in range(3)]
        sweeping = RedisStorage(url)
        for hand in hands:
            hand.configure(PAGES)
        ending = threading.Event()
        told = [[] for _ in hands]

        def fire(which):
            while not ending.is_set():
                told[which].append(hands[which].fire("page").fired[0].number)
                Steps(hands[which].storage, f"new {which} {len(told[which])}").fire("a")

        def sweep():
            while not ending.is_set():
                sweeping.due(10, grace=GRACE, include_recent=True)
                sweeping.reader.next_at()

        def move():
            try:
                for _ in range(4):
                    move_slot(cluster, b"{trg:p0}:world")
                    time.sleep(0.1)
            finally:
                ending.set()

        at_once([move, sweep, *(lambda which=which: fire(which) for which in range(3))])
        for hand, said in zip(hands, told, strict=True):
            assert numbers(hand) == said == list(range(1, len(said) + 1))
            assert len(hand.instances()) == len(said)
        total = sum(map(len, told))
        assert len(hands[0].storage.reader.sessions(limit=10_000)) == total + 3
        assert hands[0].storage.reader.backlog() == (total, 0, 0)
        assert len(sweeping.due(10_000, grace=GRACE, include_recent=True)) == total


def move_slot(cluster, key):
    """Move the slot of the key, with all of its keys, to the next node."""
    clients = [Redis.from_url(node.url) for node in cluster.nodes]
    names = [client.execute_command("CLUSTER", "MYID").decode() for client in clients]
    slot = clients[0].execute_command("CLUSTER", "KEYSLOT", key)
    owner = next(n for n, client in enumerate(clients) if has(client, key))
    heir = (owner + 1) % len(clients)
    clients[heir].execute_command("CLUSTER", "SETSLOT", slot, "IMPORTING", names[owner])
    clients[owner].execute_command("CLUSTER", "SETSLOT", slot, "MIGRATING", names[heir])
    to = ("127.0.0.1", cluster.nodes[heir].port, "", 0, 5_000, "AUTH", cluster.nodes[heir].password, "KEYS")
    while keys := clients[owner].execute_command("CLUSTER", "GETKEYSINSLOT", slot, 3):
        clients[owner].execute_command("MIGRATE", *to, *keys)
    for n in (heir, owner, *set(range(len(clients))) - {heir, owner}):
        clients[n].execute_command("CLUSTER", "SETSLOT", slot, "NODE", names[heir])


def has(client, key):
    """Whether the node has the key's slot."""
    try:
        return client.exists(key)
    except ResponseError:
        return False
