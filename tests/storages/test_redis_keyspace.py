"""What a Redis must be before sessions are trusted to it; and when what was there is gone, nothing is written."""

from __future__ import annotations

import logging
import re
import warnings
from datetime import timedelta

import pytest
from redis import Redis

from tests.storages.redis_sandboxes import RedisPlace, client_at
from triggers.core.terms import Finalizing, Policy
from triggers.exceptions import SchemaVersionError, StorageCorruptError, StorageError
from triggers.storages.redis import RedisStorage
from triggers.storages.redis.keys import member_of_uid, uid_of_member
from triggers.testing.conformance.fixtures import NAMES, batch, entry, page_attempt, start_pages
from triggers.testing.conformance.steps import Steps
from triggers.testing.servers import MissingServerError, RedisServer


@pytest.fixture(params=["valkey", "redis"])
def server(request):
    """A server of this test's own, of either kind."""
    try:
        with RedisServer(kind=request.param, private=True) as server:
            yield server
    except MissingServerError as error:
        pytest.skip(str(error))


def client_of(server):
    return Redis.from_url(server.url)


# -- the check at the start ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setting", "value", "said"),
    [
        ("maxmemory-policy", "allkeys-lru", "maxmemory-policy is allkeys-lru: set it to noeviction"),
        ("maxmemory-policy", "volatile-ttl", "maxmemory-policy is volatile-ttl: set it to noeviction"),
        ("appendonly", "no", "it does not write an append-only file: set appendonly yes"),
        ("appendfsync", "no", "appendfsync is no: set it to everysec or always"),
    ],
)
def test_a_server_that_may_forget_is_refused(server, setting, value, said):
    """The message says what to set; with unsafe=1 it is a warning."""
    RedisStorage(server.url).close()
    client_of(server).config_set(setting, value)
    with pytest.raises(StorageError, match=f"can lose data: {said}"):
        RedisStorage(server.url)
    with pytest.warns(RuntimeWarning, match=said):
        storage = RedisStorage(f"{server.url}?unsafe=1")
    assert Steps(storage).fire("a").fired[0].number == 1


def test_who_may_not_ask_is_told_what_was_not_looked_at(server, caplog):
    """Where CONFIG or INFO is forbidden, as managed services do, the storage works, and says what it has not seen."""
    client = client_of(server)
    client.execute_command("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-config", "-info")
    url = server.url.replace(f"//:{server.password}@", "//app:secret@")
    caplog.set_level(logging.INFO, "triggers")
    storage = RedisStorage(url)
    assert "does not permit INFO" in caplog.text
    assert Steps(storage).fire("a").fired[0].number == 1
    client.execute_command("ACL", "SETUSER", "app", "+info")
    RedisStorage(url)
    assert "does not permit CONFIG GET" in caplog.text
    assert "secret" not in caplog.text


def test_the_rights_that_are_needed_are_few(server):
    """A user with scripts and plain commands on keys of the prefix alone can do everything."""
    client = client_of(server)
    rights = ("+@read", "+@write", "+@scripting", "+@connection", "+time", "-@dangerous", "+info")
    client.execute_command(
        "ACL", "SETUSER", "app", "on", ">secret", "resetkeys", "~{trg:*", "~{trg}:*", *rights
    )
    storage = RedisStorage(server.url.replace(f"//:{server.password}@", "//app:secret@"))
    steps = Steps(storage)
    start_pages(steps, 2)
    steps.keep_logs(page_attempt(0), batch(entry()))
    steps.finish(page_attempt(0))
    assert storage.renew([steps.held(page_attempt(1))], 5) == set()
    assert storage.due(5, grace=1, include_recent=True) == []
    assert storage.expired(5) is not None
    assert len(storage.reader.logs(steps.uid)) == 1
    assert storage.now() > 1_767_225_600_000_000


def test_a_wrong_password_is_said_at_once(server):
    """It is no use to try again; and no message shows it."""
    url = server.url.replace(server.password, "guess")
    with pytest.raises(StorageError, match="does not accept the user or the password") as caught:
        RedisStorage(url)
    assert "guess" not in str(caught.value)
    assert f"redis://***@127.0.0.1:{server.port}/0" in str(caught.value)


def test_a_server_that_is_not_there_is_said_after_the_patience():
    """Nothing was changed, and the message says so."""
    with pytest.raises(StorageError, match=r"did not answer for too long .* nothing was changed: try again"):
        RedisStorage("redis://127.0.0.1:1/0?timeout=0.1")


def test_a_cluster_and_a_single_server_are_told_apart(redis_cluster, valkey_url):
    """The message says which URL to write."""
    with pytest.raises(StorageError, match=r"is a cluster: write redis\+cluster://"):
        RedisStorage(redis_cluster.url.replace("redis+cluster", "redis"))


def test_a_password_is_never_shown(valkey_url, valkey_server):
    """Neither by the storage itself nor by what it stands on."""
    storage = RedisStorage(valkey_url)
    assert valkey_server.password not in repr(storage)
    assert valkey_server.password not in repr(storage._store.url)
    assert repr(storage).startswith("RedisStorage('redis://***@127.0.0.1:")


# -- the world ----------------------------------------------------------------------------------------------


def test_the_number_of_partitions_is_that_of_the_first_use(valkey_url):
    """Whoever asks for another number later gets the one that there is."""
    first = RedisStorage(f"{valkey_url}?partitions=3")
    Steps(first).fire("a")
    later = RedisStorage(f"{valkey_url}?partitions=64")
    assert Steps(later).fire("a").fired[0].number == 2
    assert len(later._store.keyspace.partitions) == 3


def test_prefixes_are_worlds_of_their_own(valkey_url):
    """Two of them in one database share nothing."""
    one, two = RedisStorage(f"{valkey_url}?prefix=one"), RedisStorage(f"{valkey_url}?prefix=two")
    Steps(one).fire("a")
    assert two.reader.sessions() == []
    assert Steps(two).fire("a").fired[0].number == 1


def test_what_a_newer_version_wrote_is_refused(valkey_url):
    """Nothing is changed."""
    RedisStorage(valkey_url)
    client = Redis.from_url(valkey_url)
    client.set("{trg}:meta", b"3 64 name ready")
    with pytest.raises(SchemaVersionError, match=r"has layout 3, .* knows 2: upgrade Triggers"):
        RedisStorage(valkey_url)


def test_what_is_not_ours_is_refused(valkey_url):
    """Another application's key in the place of ours is left alone."""
    client = Redis.from_url(valkey_url)
    client.set("{trg}:meta", b"something else")
    with pytest.raises(StorageCorruptError, match="belongs to another program: choose another prefix"):
        RedisStorage(valkey_url)
    assert client.get("{trg}:meta") == b"something else"


def test_a_world_that_was_begun_by_half_is_completed(valkey_url):
    """Who died between the first key and the last has left nothing that could not be gone on with."""
    client = Redis.from_url(valkey_url)
    client.set("{trg}:meta", b"2 4 abc new")
    client.set("{trg:p1}:world", b"2 4 abc")
    storage = RedisStorage(valkey_url)
    for number in range(20):
        Steps(storage, f"session {number}").fire("a")
    assert client.get("{trg}:meta") == b"2 4 abc ready"


def whatever_writes(storage):
    steps = Steps(storage, "session 1")
    return {
        "fire": lambda: steps.fire("a"),
        "claim": lambda: steps.claim("t_page#0"),
        "renew": lambda: storage.renew([steps.held(page_attempt(0))], 5),
        "due": lambda: storage.due(10, grace=5),
        "expired": lambda: storage.expired(10),
        "logs": lambda: storage.reader.logs("session 1"),
        "session": lambda: storage.reader.session("session 1"),
        "backlog": storage.reader.backlog,
        "next": storage.reader.next_at,
    }


def test_after_a_flush_nothing_is_written(valkey_url):
    """What was flushed is not gone on with as if it were whole: every operation says that the data are gone."""
    storage = RedisStorage(valkey_url)
    start_pages(Steps(storage, "session 1"), 1)
    client = Redis.from_url(valkey_url)
    client.flushdb()
    for operation in whatever_writes(storage).values():
        with pytest.raises(StorageCorruptError, match=r"was deleted or replaced .* nothing was written"):
            operation()
    assert client.dbsize() == 0
    fresh = RedisStorage(valkey_url)
    assert Steps(fresh, "session 1").fire("a").fired[0].number == 1
    with pytest.raises(StorageCorruptError, match="was deleted or replaced"):
        Steps(storage, "session 1").fire("a")
    assert Steps(fresh, "session 1").head.firings == 1


def test_a_partition_that_lost_its_key_is_not_written_to(valkey_url):
    """As eviction would leave it; the other partitions go on."""
    storage = RedisStorage(f"{valkey_url}?partitions=2")
    uids = {storage._store.keyspace.number_of(f"session {n}"): f"session {n}" for n in range(20)}
    for uid in uids.values():
        Steps(storage, uid).fire("a")
    Redis.from_url(valkey_url).delete("{trg:p0}:world")
    with pytest.raises(StorageCorruptError, match="was deleted or replaced"):
        Steps(storage, uids[0]).fire("a")
    assert Steps(storage, uids[1]).fire("a").fired[0].number == 2


def test_a_lost_first_key_is_not_made_anew(valkey_url):
    """Partitions without the key that counts them are a damaged world, not a fresh one."""
    RedisStorage(valkey_url)
    client = Redis.from_url(valkey_url)
    client.delete("{trg}:meta")
    with pytest.raises(StorageCorruptError, match="is missing, but partitions exist"):
        RedisStorage(valkey_url)
    assert client.get("{trg}:meta") is None


# -- names --------------------------------------------------------------------------------------------------


def test_keys_have_nothing_raw_in_them(valkey_url):
    """Whatever a UID, a trigger or a task looks like, keys are plain, and lead to the slot of their partition."""
    storage = RedisStorage(f"{valkey_url}?partitions=4")
    for uid in NAMES:
        steps = Steps(storage, uid)
        trigger = f"{uid[:254]}!"
        steps.configure({name: {"andEvery": trigger, "run": uid} for name in ("}", "{a}", uid[:200])})
        steps.fire(trigger, key=uid)
        steps.start(f"{uid[:200]}#0", owner=uid)
    for key in Redis.from_url(valkey_url).keys("*"):
        assert re.fullmatch(rb"\{trg(:p[0-3])?\}:[a-z]+(:[A-Za-z0-9_-]+)?", key), key


@pytest.mark.parametrize("uid", NAMES)
def test_a_uid_comes_back_from_its_key(uid):
    """Without padding, without a bar, and however long it is."""
    place = member_of_uid(uid)
    assert re.fullmatch(rb"[A-Za-z0-9_-]+", place)
    assert uid_of_member(place) == uid


def test_nothing_expires_but_the_notes_of_commits(valkey_url):
    """No key of a session, or of what is due, has a time to live."""
    storage = RedisStorage(f"{valkey_url}?partitions=2")
    start_pages(Steps(storage), 2)
    Steps(storage).keep_logs(page_attempt(0), batch(entry()))
    client = Redis.from_url(valkey_url)
    mortal = {key for key in client.keys("*") if client.ttl(key) != -1}
    assert mortal
    assert all(b":done:" in key for key in mortal)
    assert all(client.ttl(key) > 600 for key in mortal)


# -- expiry -------------------------------------------------------------------------------------------------


@pytest.fixture
def expiring(valkey_url):
    """A place whose finalised sessions are kept for an hour."""
    place = RedisPlace(f"{valkey_url}?expire_finalized=1h", client_at(valkey_url))
    yield place
    place.close()


def test_finalised_sessions_go_after_their_time(expiring, finalizing, monkeypatch):
    """With all that they have; neither sooner, nor while something is open, nor what is not finalised."""
    monkeypatch.setattr("triggers.storages.redis.sweep.EXPIRE_EVERY", 0.0)
    storage = expiring.open()
    over, open_logs, failed, running = (
        Steps(storage, uid, finalizing) for uid in ("over", "open logs", "failed", "running")
    )
    for steps in (over, open_logs, failed, running):
        steps.configure({"t": {"after": ["a"], "run": "r"}, "t_end": {"andEvery": "over", "run": "r"}})
        steps.fire("a", {"n": 1})
        attempt = steps.start("t#0")
        steps.keep_logs(attempt, batch(entry(level=40)))
        steps.finish(attempt)
        assert steps.head.finalized is not None
        if steps is not open_logs:
            steps.resolve_logs("t#0", {"by": "a person"})
    for steps in (over, open_logs):
        steps.run("t_end#0")
    failed.fail(failed.start("t_end#0"))
    running.start("t_end#0", lease=10**15)
    client = expiring.client
    storage.due(10, grace=1)
    assert len(storage.reader.sessions()) == 4
    expiring.advance(timedelta(hours=1))
    storage.due(10, grace=1)
    assert len(storage.reader.sessions()) == 4, "not before its time"
    expiring.advance(timedelta(microseconds=1))
    storage.due(10, grace=1)
    assert [session.uid for session in storage.reader.sessions()] == ["failed", "open logs", "running"]
    assert not [key for key in client.keys("*") if key.endswith(member_of_uid("over"))]
    assert storage.reader.logs("over") == []
    assert over.fire("a").fired[0].number == 1, "a firing into it begins a session anew"
    open_logs.resolve_logs("t#0", {"by": "a person"})
    failed.skip("t_end#0")
    for _ in range(3):
        expiring.advance(timedelta(hours=1, microseconds=1))
        storage.due(10, grace=1)
    assert {session.uid for session in storage.reader.sessions()} == {"over", "running"}


def test_a_session_that_is_fired_into_again_is_kept_anew(expiring, finalizing, monkeypatch):
    """The time counts from the last change, and a session goes whole or not at all."""
    monkeypatch.setattr("triggers.storages.redis.sweep.EXPIRE_EVERY", 0.0)
    storage = expiring.open()
    steps = Steps(storage, "again", finalizing)
    steps.configure({"t": {"andEvery": "a", "run": "r"}})
    steps.fire("a")
    steps.run("t#0")
    expiring.advance(timedelta(minutes=59))
    steps.fire("a")
    expiring.advance(timedelta(hours=2))
    storage.due(10, grace=1)
    assert steps.statuses() == {"t#0": "finished", "t#1": "scheduled"}
    steps.run("t#1")
    expiring.advance(timedelta(minutes=59))
    storage.due(10, grace=1)
    assert steps.head.firings == 5
    expiring.advance(timedelta(minutes=2))
    storage.due(10, grace=1)
    assert storage.reader.sessions() == []


def test_without_the_option_nothing_goes(valkey_url, finalizing):
    """A finalised session is kept for ever."""
    place = RedisPlace(valkey_url, client_at(valkey_url))
    storage = place.open()
    steps = Steps(storage, "kept", finalizing)
    steps.configure({"t": {"andEvery": "a", "run": "r"}})
    steps.fire("a")
    steps.run("t#0")
    place.advance(timedelta(days=10_000))
    storage.due(10, grace=1)
    assert [session.uid for session in storage.reader.sessions()] == ["kept"]
    place.close()


@pytest.fixture
def finalizing():
    """A policy whose sessions end."""
    return Policy(finalizing=Finalizing("over"))


def test_nothing_warns_at_a_safe_start(valkey_url):
    """A server that keeps what it has said is opened without a word."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        RedisStorage(valkey_url).close()
