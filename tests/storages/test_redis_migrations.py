"""A migration of Redis: what it writes, what an interrupted one leaves, and who is refused after it."""

from __future__ import annotations

import pytest
from redis import Redis

from tests.storages import earlier, earlier_redis
from tests.storages.test_migrations import NEWEST, VERSIONS, Place, added
from triggers.exceptions import SchemaVersionError
from triggers.testing.conformance.steps import Steps

pytestmark = pytest.mark.parametrize("version", VERSIONS)


@pytest.fixture(params=["redis", "valkey"])
def place(request, version):
    url = request.getfixturevalue(f"{request.param}_url")
    return Place(url, earlier_redis.redis_keys(url, version))


def test_a_migration_of_redis_writes_the_version_only(place):
    """Every other key is as before."""
    client = Redis.from_url(place.url)
    before = earlier_redis.keys_of(client)
    place.open().close()
    after = earlier_redis.keys_of(client)
    changed = {key for key in before | after if before.get(key) != after.get(key)}
    assert changed == {key for key in before if key.endswith((":meta", ":world"))}
    assert {client.get(key).split(b" ")[0] for key in changed} == {b"%d" % NEWEST}


@pytest.mark.parametrize("migrated", range(earlier_redis.PARTITIONS + 1))
def test_a_migration_of_redis_can_be_interrupted_at_every_partition(valkey_url, version, migrated):
    """The next process completes it, also if some partitions have the new version and some the old one."""
    said = earlier_redis.redis_keys(valkey_url, version)
    client = Redis.from_url(valkey_url)
    token = client.get("{trg:p0}:world").replace(b"%d " % version, b"%d " % NEWEST, 1)
    client.set("{trg}:meta", token + b" from-%d" % version)
    for number in range(migrated):
        client.set(f"{{trg:p{number}}}:world", token)
    added(earlier.read(Place(valkey_url, said).open()), said)
    assert client.get("{trg}:meta") == token + b" ready"


def test_a_process_with_the_layout_before_is_refused(valkey_url, version, monkeypatch):
    """It has opened the storage before the migration; afterwards it neither reads nor writes."""
    place = Place(valkey_url, earlier_redis.redis_keys(valkey_url, version))
    monkeypatch.setattr("triggers.storages.redis.keyspace.LAYOUT", version)
    old = Steps(place.open(), "survey")
    before = old.fire("page").fired[0].number
    monkeypatch.undo()
    assert Steps(place.open(), "survey").fire("page").fired[0].number == before + 1
    monkeypatch.setattr("triggers.storages.redis.keyspace.LAYOUT", version)
    for call in (lambda: old.fire("page"), lambda: old.head, place.open):
        with pytest.raises(SchemaVersionError, match="upgrade Triggers"):
            call()
