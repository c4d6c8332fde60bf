"""`triggers import-v2`: sessions of version 2 go on where they were, and what cannot be read is refused."""

from __future__ import annotations

import json
import os
import pickle
import signal
import subprocess
import sys
import time
import zlib
from datetime import datetime

import pytest

from tests.version2 import hostile
from tests.version2.conftest import PREFIX, OldCache
from tests.version2.played import do, dump_of, expected, lines, shown, version2_tasks
from triggers import Triggers

SESSIONS = lines("version2_sessions.jsonl")

#: What version 2 showed of each session when it was stopped. All sessions are also among those of the law.
_LAW = {str(session["ops"]): session["after_each"] for session in lines("version2_law.jsonl")}
BEFORE = [_LAW[str(session["ops"])][session["half"] - 1] for session in SESSIONS]

#: For what the kind of session does not matter to.
SOME = range(0, len(SESSIONS), 8)


@pytest.fixture
def storage_url(request):
    """The URL of an empty storage of that kind."""
    return request.getfixturevalue(f"{request.param}_url")


def check_continuation(url, numbers):
    """The sessions are what they were in version 2, and end as they ended there, step by step."""
    with Triggers(url, runner="inline", registry=version2_tasks()) as app:
        for number in numbers:
            session, manager = SESSIONS[number], app.session(str(number))
            assert shown(manager.storage) == expected(BEFORE[number]), number
            for operation, after in zip(
                session["ops"][session["half"] :], session["after_each"], strict=True
            ):
                do(manager, operation)
                assert shown(manager.storage) == expected(after), (number, operation)


@pytest.mark.parametrize("storage_url", ["sqlite", "postgres", "redis"], indirect=True)
def test_half_played_sessions_go_on_as_in_version_2(cache, storage_url):
    """What was half-played ends with the same statuses, kwargs and results as there, step by step."""
    assert len(SESSIONS) == 80
    for number, session in enumerate(SESSIONS):
        cache.put(number, dump_of(session))
    report = cache.report(storage_url)
    assert report == {"dry_run": False, "imported": 80, "present": 0, "refused": [], "renamed": []}
    check_continuation(storage_url, range(80))


# -- shapes ---------------------------------------------------------------------------------------------------


def as_json(raw):
    """What the JSON serializer of a Django cache stores: times are text, in milliseconds."""

    def text(value):
        assert type(value) is datetime
        return value.isoformat(timespec="milliseconds")

    return json.dumps(pickle.loads(raw), default=text).encode()


SHAPES = {
    "compressed": zlib.compress,
    "JSON": as_json,
    "compressed JSON": lambda raw: zlib.compress(as_json(raw), 9),
    "protocol 5": lambda raw: pickle.dumps(pickle.loads(raw), 5),
    "protocol 3": lambda raw: pickle.dumps(pickle.loads(raw), 3),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_other_shapes_go_on_alike(cache, sqlite_url, shape):
    """However the cache stored a session, the same comes of it."""
    for number in SOME:
        cache.put(number, SHAPES[shape](dump_of(SESSIONS[number])))
    assert cache.report(sqlite_url)["imported"] == len(SOME)
    check_continuation(sqlite_url, SOME)


def test_keys_have_a_prefix_a_version_and_perhaps_a_lifetime(cache, sqlite_url):
    """Only keys of this cache are read; the UID is the whole rest of the key, and characters of patterns are just that."""
    raw = dump_of(SESSIONS[0])
    cache.redis.set("a*[pp]?:7:triggers.storages.cache:0", raw, ex=300)
    cache.redis.set("a*[pp]?:1:triggers.storages.cache:é: x:1", raw)
    for other in (
        "aapp]?:1:triggers.storages.cache:1",
        "a*[pp]?:x:triggers.storages.cache:2",
        "a*[pp]?:1:triggers.storages.cache",
        "lock:triggers:3:lock",
        "lock-signal:triggers:3:lock",
        ":1:triggers.storages.cache:4",
        "x:a*[pp]?:1:triggers.storages.cache:5",
    ):
        cache.redis.set(other, raw)
    assert cache.report(sqlite_url, "--prefix", "a*[pp]?")["imported"] == 2
    with Triggers(sqlite_url, runner=None) as app:
        assert [head.uid for head in app.storage.reader.sessions()] == ["0", "é: x:1"]


def test_a_version_of_the_keys_can_be_chosen(cache, sqlite_url):
    """It follows the prefix, as in the keys."""
    for version in (1, 2, 12):
        cache.redis.set(f"survey:{version}:triggers.storages.cache:{version}", dump_of(SESSIONS[0]))
    assert cache.report(sqlite_url, "--prefix", "survey:2")["imported"] == 1
    assert cache.report(sqlite_url, "--prefix", "survey")["imported"] == 2


def test_sessions_come_from_a_cluster(cluster_url, redis_cluster, sqlite_url):
    """The keys of every master are read, and those of a cluster's storage, too."""
    from redis import RedisCluster  # noqa: PLC0415 - the tests of one server do without

    client = RedisCluster.from_url(cluster_url.replace("redis+cluster://", "redis://"))
    for number in SOME:
        client.set(f"{PREFIX}{number}", dump_of(SESSIONS[number]))
    assert OldCache(cluster_url, client).report(sqlite_url)["imported"] == len(SOME)
    check_continuation(sqlite_url, SOME)


def test_all_pages_of_keys_are_read(cache, sqlite_url):
    """A cache has many other keys, of which a server looks at a thousand for each answer."""
    cache.redis.mset({f"lock:triggers:{number}:lock": "x" for number in range(5_000)})
    for number in SOME:
        cache.put(number, dump_of(SESSIONS[number]))
    assert cache.report(sqlite_url)["imported"] == len(SOME)


# -- repeating ------------------------------------------------------------------------------------------------


def test_a_second_import_finds_everything_done(cache, sqlite_url):
    """What has happened since the first one stays, and what is new is imported."""
    for number in SOME:
        cache.put(number, dump_of(SESSIONS[number]))
    cache.report(sqlite_url)
    check_continuation(sqlite_url, SOME)
    cache.put("later", dump_of(SESSIONS[1]))
    again = cache.report(sqlite_url)
    assert (again["imported"], again["present"], again["refused"]) == (1, len(SOME), [])
    with Triggers(sqlite_url, runner=None) as app:
        for number in SOME:
            assert shown(app.session(str(number)).storage) == expected(SESSIONS[number]["after_each"][-1])


def test_a_dry_run_stores_nothing(cache, sqlite_url):
    """It reports what an import would do."""
    cache.put("good", dump_of(SESSIONS[0]))
    cache.put("bad", b"")
    cache.put("worse", b"bad")
    report = cache.report(sqlite_url, "--dry-run", code=1)
    assert (report["dry_run"], report["imported"]) == (True, 1)
    reasons = {each["uid"]: each["problems"][0]["message"] for each in report["refused"]}
    assert reasons.keys() == {"bad", "worse"}
    assert reasons["bad"] == "it has expired, or was deleted, before it was read"
    assert (
        "would import 1 session; 0 were there already, 2 were refused"
        in cache.run(sqlite_url, "--dry-run", code=1).stdout
    )
    with Triggers(sqlite_url, runner=None) as app:
        assert app.storage.reader.sessions() == []


def test_a_limit_counts_what_is_imported(cache, sqlite_url):
    """So that a repeated command goes on with the next ones."""
    for number in range(5):
        cache.put(number, dump_of(SESSIONS[number]))
    imported = [cache.report(sqlite_url, "--limit", "2")["imported"] for _ in range(4)]
    assert imported == [2, 2, 1, 0]


def test_a_session_of_the_same_name_is_not_touched(cache, sqlite_url):
    """A session that was not imported from this key stays as it is, and the other one is refused."""
    with Triggers(sqlite_url, runner=None) as app:
        app.session("0").fire("a")
        app.session("1").update_session_metadata({"imported": "no mark"})
    cache.put(0, dump_of(SESSIONS[0]))
    cache.put(1, dump_of(SESSIONS[1]))
    cache.put(2, dump_of(SESSIONS[2]))
    cache.report(sqlite_url, code=1)
    cache.redis.rename(f"{PREFIX}2", ":2:triggers.storages.cache:2")
    report = cache.report(sqlite_url, code=1)
    assert sorted(each["uid"] for each in report["refused"]) == ["0", "1", "2"]
    assert {problem["path"] for each in report["refused"] for problem in each["problems"]} == {"uid"}
    with Triggers(sqlite_url, runner=None) as app:
        assert list(app.session("0").storage) == []


def kill_while_importing(cache, storage, stored, before):
    """Start an import in a process of its own, and kill it when it has stored something; it may have ended by then."""
    command = [sys.executable, "-m", "triggers", "import-v2", "--redis", cache.url, "--storage", storage]
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": "src"}
    ) as process:
        while stored() <= before and process.poll() is None:
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)


def check_kills(cache, url, count, kills):
    """All sessions are there once, however often the import was killed, and a further one finds them done."""
    for number in range(count):
        cache.put(f"s{number:05}", dump_of(SESSIONS[number % len(SESSIONS)]))
    with Triggers(url, runner=None) as app:

        def stored():
            return len(app.storage.reader.sessions(limit=count + 1))

        for kill in range(kills):
            kill_while_importing(cache, url, stored, kill * count // (kills + 1))
            assert stored() <= count
        present = stored()
        report = cache.report(url)
        assert (report["imported"], report["present"], report["refused"]) == (count - present, present, [])
        again = cache.report(url)
        assert (again["imported"], again["present"], again["refused"]) == (0, count, [])
        heads = app.storage.reader.sessions(limit=count + 1)
        assert [head.uid for head in heads] == [f"s{number:05}" for number in range(count)]
        for number, head in enumerate(heads):
            assert shown(app.session(head.uid).storage) == expected(BEFORE[number % len(SESSIONS)])
    return present


def test_an_import_can_be_killed_at_any_moment(cache, sqlite_url):
    """A session is stored as a whole or not at all; the next import stores the others."""
    check_kills(cache, sqlite_url, count=200, kills=1)


@pytest.mark.slow
@pytest.mark.parametrize("storage_url", ["sqlite", "postgres", "redis"], indirect=True)
def test_a_large_import_can_be_killed_three_times(cache, storage_url):
    """10,000 sessions, killed three times and run twice: all are there once."""
    began = time.monotonic()
    present = check_kills(cache, storage_url, count=10_000, kills=3)
    print(f"{present} before the last import; {time.monotonic() - began:.0f} s")  # noqa: T201 - a figure of the soak


# -- hostile values -------------------------------------------------------------------------------------------


def test_hostile_values_are_refused_and_the_rest_goes_on(cache, sqlite_url, tmp_path, monkeypatch):
    """Each is reported with its path, nothing is run, and every other session is imported."""
    monkeypatch.setattr("triggers.version2.pickles.MAX_STEPS", 300_000)
    monkeypatch.setattr("triggers.version2.stored.MAX_VALUES", 300_000)
    made = tmp_path / "made"
    values = {name: hostile.with_instructions(code) for name, code in hostile.calls(made).items()}
    values |= {name: hostile.with_instructions(code) for name, code in hostile.damaged().items()}
    values |= {name: pickle.dumps(hostile.session(value)) for name, value in hostile.objects().items()}
    for name, value in values.items():
        cache.put(name, value)
    cache.redis.hset(f"{PREFIX}another type", "k", "v")
    cache.put("", dump_of(SESSIONS[0]))
    cache.redis.set(PREFIX.encode() + b"\xff", dump_of(SESSIONS[0]))
    for number in SOME:
        cache.put(number, dump_of(SESSIONS[number]))
    report = cache.report(sqlite_url, code=1)
    assert report["imported"] == len(SOME)
    found = {each["uid"]: each["problems"] for each in report["refused"]}
    assert found.keys() == {*values, "another type", "", r"\xff"}
    assert not made.exists()
    assert found["a decimal"][0]["path"] == hostile.PLACE
    assert found["not a number"][0] == {"path": hostile.PLACE, "message": "JSON cannot represent nan"}
    for problems in found.values():
        assert all(problem["path"] and problem["message"] for problem in problems)
    check_continuation(sqlite_url, SOME)


def test_a_server_that_does_not_answer_is_an_error(cache, sqlite_url):
    """The message names the server, without its password."""
    cache.url = "redis://:secret@127.0.0.1:1/0"
    result = cache.run(sqlite_url, code=1)
    assert "@127.0.0.1:1/0 did not answer" in result.stderr
    assert "secret" not in result.stderr
    cache.url = "http://x"
    assert "is not a valid Redis URL" in cache.run(sqlite_url, code=1).stderr


def test_an_empty_cache_is_told(cache, sqlite_url):
    """A wrong prefix must not look like an import of everything."""
    assert "no key matches x:*triggers.storages.cache:*" in cache.run(sqlite_url, "--prefix", "x").stdout
