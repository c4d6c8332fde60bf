"""A key of a wrong type: an operation that uses it changes nothing, and its error names the key."""

from __future__ import annotations

import hashlib
import re
from datetime import timedelta

import pytest

from tests.storages.redis_sandboxes import RedisPlace, client_at
from triggers.core import decisions
from triggers.core.exchange import Need
from triggers.core.state import new_firing
from triggers.core.terms import Finalizing, Policy, RetryTerms
from triggers.exceptions import StorageCorruptError
from triggers.storages.base import Purge
from triggers.storages.redis import RedisStorage, server
from triggers.storages.redis.commit import CommitAttempt, QueueTicket
from triggers.storages.redis.lua import Script, script
from triggers.testing.conformance.fixtures import batch, entry
from triggers.testing.conformance.steps import SECOND, Steps
from triggers.testing.conformance.stored_timers import fires, setting

RETRY = RetryTerms(SECOND, 3, '"too often"')
PURGE = Purge(2**60, 50, 60, contexts_only=False, dry_run=False)
POLICY = Policy(finalizing=Finalizing("over"))
RULES = {
    "t_page": {"andEvery": "page", "run": "shop.Page"},
    "t_wait": {"after": ["first", "second"], "run": "shop.Wait"},
    "t_last": {"after": ["last"], "run": "shop.Last"},
    "t_end": {"andEvery": "over", "run": "shop.End"},
}


#: A time that does not come in these tests.
LATE = 9 * 10**15


def set_a_timer(at):
    """A decision that sets a timer."""
    return setting({"a": fires("a", LATE + at, 1)}, LATE + at)


class Shop:
    """Sessions with instances in several states, with a clock of the test. Their data can be restored."""

    def __init__(self, url):
        self.place = RedisPlace(f"{url}?expire_finalized=1h", client_at(url))
        self.client = self.place.client
        self.steps = Steps(self.place.open(), "shop", POLICY)
        self.steps.configure(RULES)
        for trigger in ("first", "page", "page", "page"):
            self.steps.fire(trigger)
        self.attempt = self.steps.start("t_page#0", lease=1)
        self.steps.keep_logs(self.attempt, batch(entry(level=40)))
        self.steps.fail(self.steps.start("t_page#1"))
        over = Steps(self.steps.storage, "over", POLICY)
        over.configure({"t_end": RULES["t_end"], "t_page": RULES["t_page"]})
        over.fire("page")
        attempt = over.start("t_page#0")
        over.keep_logs(attempt, batch(entry(level=10)))
        over.finish(attempt)
        over.run("t_end#0")
        self.steps.commit(set_a_timer(3))
        self.place.advance(timedelta(seconds=1))
        self._saved = self.dumps()

    def keys(self):
        """All keys except the clocks, and the key that is only read when a storage is opened."""
        found = self.client.keys(f"{{{self.place.prefix}*")
        return {key for key in found if not key.endswith((b":clock", b":meta"))}

    def dumps(self):
        """Key → its value."""
        return {key: self.client.dump(key) for key in self.keys()}

    def partition_of(self, key):
        """Key → its value in one partition, without the requests to wait, which expire."""
        tag = key.partition(b"}")[0] + b"}:"
        found = (other for other in self.keys() if other.startswith(tag))
        return {other: self.value(other) for other in found if not other.startswith(tag + b"q:")}

    def value(self, key):
        """The value of a key. Its dump is not compared, because the order of a hash in it can change by itself."""
        read = {
            b"hash": self.client.hgetall,
            b"set": self.client.smembers,
            b"zset": lambda key: self.client.zrange(key, 0, -1, withscores=True),
            b"list": lambda key: self.client.lrange(key, 0, -1),
            b"string": self.client.get,
        }
        return read[self.client.type(key)](key)

    def put_back(self):
        """Restore the data."""
        for key in self.keys() - set(self._saved):
            self.client.delete(key)
        for key, text in self._saved.items():
            self.client.restore(key, 0, text, replace=True)

    def spoil(self, key):
        """Let another program write the key."""
        self.client.delete(key)
        self.client.rpush(key, "somebody else's")


@pytest.fixture(scope="module", params=["valkey", "redis"])
def shop(request):
    """A shop on either server."""
    shop = Shop(request.getfixturevalue(f"{request.param}_server").url)
    yield shop
    shop.place.close()


def on(change, uid="shop"):
    """The change, made by a new storage that has cached nothing.

    A sweep reports what it cannot read, and skips it; here that is raised as an error, too.
    """

    def change_with(shop):
        storage = RedisStorage(shop.place.url, clock=shop.steps.storage._store._clock)
        try:
            change(Steps(storage, uid, POLICY), shop)
            if problems := storage.problems.list():
                raise StorageCorruptError("\n".join(problem.error for problem in problems))
        finally:
            storage.close()

    return change_with


def queued(steps, _):
    """A firing that has asked other commits to wait."""
    ticket = QueueTicket()
    ticket.ask()
    store = steps.storage._store
    firing = new_firing("page", None, None, limits=POLICY.limits)
    CommitAttempt(store, steps.uid, store.until(), ticket, exclusive=True).make(
        decisions.fire(POLICY, firing)
    )


def expire(steps, shop):
    """Finalized sessions are deleted."""
    steps.storage._sweep.expire(-1, steps.storage._store.until())


#: The operation, and the kinds of keys for which it reports a wrong type.
CHANGES = {
    "a first firing": (on(lambda steps, _: steps.fire("page"), "new"), "world done s q uids rules"),
    "a firing": (on(lambda steps, _: steps.fire("page")), "world done s c x q out rules"),
    "a firing that releases": (on(lambda steps, _: steps.fire("second")), "world done s c x q out rules"),
    "a claim": (on(lambda steps, _: steps.start("t_page#2")), "world done s q out cool lease rules"),
    "an end": (on(lambda steps, shop: steps.finish(shop.attempt)), "world done s q lease c rules"),
    "a failure": (on(lambda steps, shop: steps.fail(shop.attempt)), "world done s q lease c rules"),
    "a retry": (
        on(lambda steps, shop: steps.fail(shop.attempt, retry=RETRY)),
        "world done s q out cool lease c x rules",
    ),
    "records": (
        on(lambda steps, shop: steps.keep_logs(shop.attempt, batch(entry()))),
        "world done s c x q lease logged rules",
    ),
    "a review": (on(lambda steps, _: steps.resolve_logs("t_page#0", {})), "world done s c x q lease rules"),
    "a configuration": (on(lambda steps, _: steps.configure({})), "world done s c x q rules"),
    "an end that finalizes": (
        on(lambda steps, _: steps.fire("page"), "over"),
        "world done s c x q ended out rules",
    ),
    "a firing that other commits wait for": (on(queued), "world done s c x q out rules"),
    "a timer": (
        on(lambda steps, _: steps.commit(set_a_timer(7)), "over"),
        "world done s x q ended timed rules",
    ),
    "a timer that is moved": (
        on(lambda steps, _: steps.commit(set_a_timer(5))),
        "world done s x q timed rules",
    ),
    "timers that are needed": (on(lambda steps, _: steps.look(Need(timers=1))), "world s x q rules"),
    "sessions with timers": (
        on(lambda steps, _: steps.storage.timed_sessions(9, ["default", "other"])),
        "world s timed",
    ),
    "heartbeats": (on(lambda steps, shop: steps.renew(shop.attempt)), "world s lease"),
    "what is due": (
        on(lambda steps, _: steps.storage.due(9, grace=SECOND, include_recent=True)),
        "world s out cool ended uids logged rules",
    ),
    "lost claims": (on(lambda steps, _: steps.storage.expired(9)), "world s cool lease"),
    "a purge": (
        on(
            lambda steps, _: steps.storage.purge_logs(
                Purge(2**60, 50, 60, contexts_only=False, dry_run=False)
            )
        ),
        "world s x logged",
    ),
    "expiry": (on(expire), "world s c x ended uids logged"),
}


#: The kinds of keys that only the deletion of expired sessions writes.
EXPIRY = {"ended", "uids", "logged"}


def touched(shop, change):
    """All keys that exist, and those that the change uses."""
    asked = set()
    real = server.RedisServer.ask_all

    def ask_all(self, commands, until, **options):
        asked.update(key for command in commands for key in command.keys)
        return real(self, commands, until, **options)

    shop.put_back()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server.RedisServer, "ask_all", ask_all)
        change(shop)
    shop.put_back()
    return sorted(key for key in asked | shop.keys() if not key.endswith(b":meta"))


def refusal(shop, change):
    """The message of the change's error, or None."""
    try:
        change(shop)
    except StorageCorruptError as error:
        return str(error)
    return None


@pytest.mark.parametrize("name", CHANGES)
def test_a_key_of_a_wrong_type_is_named_and_nothing_is_changed(shop, name):
    """For every key that the change uses, all keys are unchanged, and the message says what to do."""
    change, expected = CHANGES[name]
    named = set()
    for key in touched(shop, change):
        shop.put_back()
        shop.spoil(key)
        before = shop.partition_of(key)
        kind = key.partition(b"}:")[2].partition(b":")[0].decode()
        error = refusal(shop, change)
        if error is None:
            assert shop.client.lrange(key, 0, -1) == [b"somebody else's"], kind
            continue
        named.add(kind)
        if re.search(r"session.* is missing or cannot be read", error):
            continue  # a sweep skips it, and tries it again after a pause
        said = f"key {re.escape(key.decode())} is a list and must be a (string|hash|set|zset)"
        assert re.search(f"{said}; .*nothing was changed in its partition: find that program", error)
        # A sweep also deletes expired sessions. If it cannot, it goes on with what is due.
        assert (name == "what is due" and kind in EXPIRY) or shop.partition_of(key) == before, kind
    shop.put_back()
    assert named == set(expected.split())


def test_a_wrong_type_in_one_partition_costs_the_others_no_instance(shop):
    """A sweep returns what is due in all other partitions, also if it has to change something to find it."""
    shop.put_back()
    storage = RedisStorage(shop.place.url, clock=shop.steps.storage._store._clock)
    broken = storage._store.keys_of("shop")[0]
    uids = [f"other-{n}" for n in range(20) if storage._store.keys_of(f"other-{n}")[0].tag != broken.tag]
    for uid in uids:
        steps = Steps(storage, uid, POLICY)
        steps.configure(RULES)
        steps.fire("page")
    shop.spoil(broken.rules)
    due = storage.due(100, grace=SECOND, include_recent=True)
    (problem,) = storage.problems.list()
    storage.close()
    shop.put_back()
    assert uids
    assert {one.uid for one in due} >= {*uids}
    assert problem.place == f"partition index {broken.out.decode()}, script take"


# -- mutants ------------------------------------------------------------------------------------------------

#: Script → the code that only checks types; a change; the kind of key that has a wrong type.
MUTANTS = {
    "commit": ("for key, read in pairs(written) do redis.call(read, key) end", "a firing", "out"),
    "renew": ("redis.call('ZCARD', KEYS[2])", "heartbeats", "lease"),
    "expire": ("for n = 3, 4 do redis.call('ZCARD', KEYS[n]) end", "expiry", "logged"),
    "take": ("redis.call('HLEN', KEYS[4])", "what is due", "rules"),
}


def mutant_of(name, read):
    """Loads scripts, one of them without this code."""

    def found(wanted, clock):
        text = script(wanted, clock).text
        if wanted == name:
            assert text.count(read) == 1
            text = text.replace(read, "")
        return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())

    return found


@pytest.mark.parametrize("name", MUTANTS)
def test_without_the_read_something_is_changed(shop, name, monkeypatch):
    """Without the check, a script fails after it has changed other keys."""
    read, change, kind = MUTANTS[name]

    monkeypatch.setattr("triggers.storages.redis.store.script", mutant_of(name, read))
    shop.put_back()
    (key,) = (key for key in sorted(shop.keys()) if key.endswith(f"}}:{kind}".encode()))
    shop.spoil(key)
    before = shop.partition_of(key)
    refusal(shop, CHANGES[change][0])  # none if a sweep tries again, and finds nothing left to do
    assert shop.partition_of(key) != before


@pytest.mark.parametrize("is_mutant", [False, True])
def test_a_purge_checks_its_keys_again(shop, is_mutant, monkeypatch):
    """A purge fails before it changes anything if another program writes a key after the search."""
    shop.put_back()
    if is_mutant:
        read = "redis.call('ZCARD', KEYS[3])"
        monkeypatch.setattr("triggers.storages.redis.store.script", mutant_of("purge", read))
    before = {}

    def purge(steps, _):
        store = steps.storage._store
        run = store.run

        def run_late(name, keys, *rest):
            if name == "purge":
                shop.spoil(keys[2])
                before.update(shop.partition_of(keys[2]))
            return run(name, keys, *rest)

        store.run = run_late
        steps.storage.purge_logs(PURGE)

    assert refusal(shop, on(purge)) is not None
    assert (shop.partition_of(min(before)) != before) == is_mutant
