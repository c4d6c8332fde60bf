"""Timers in Redis: their damage, their cost, and what keeps a session from being deleted."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest

from tests.storages.redis_sandboxes import RedisPlace, client_at
from tests.storages.test_redis_between import Between
from triggers.core.exchange import Changes, Decision, Need
from triggers.core.terms import Finalizing, Policy
from triggers.core.timers import AWAY
from triggers.exceptions import StorageCorruptError
from triggers.storages.redis.keys import member_of_timed, member_of_uid
from triggers.testing.conformance.steps import SECOND, Steps
from triggers.testing.conformance.stored_timers import fires, setting

#: A time that does not come in these tests.
LATE = 9 * 10**15

RULES = {"t_page": {"andEvery": "page", "run": "shop.Page"}}


@pytest.fixture
def place(valkey_url):
    place = RedisPlace(valkey_url, client_at(valkey_url))
    yield place
    place.close()


@pytest.fixture
def storage(place):
    return place.open()


def with_timers(storage, uid, *ats, **options):
    """Steps on a session with the timers 1, 2, … at these times."""
    steps = Steps(storage, uid)
    timers = {str(n): fires(str(n), at, n) for n, at in enumerate(ats, 1)}
    steps.commit(setting(timers, min(ats), **options))
    return steps


def of_one_partition(storage, count):
    """The UIDs of some sessions in the partition of the session `0`."""
    number_of = storage._store.keyspace.number_of
    uids = filter(lambda uid: number_of(uid) == number_of("0"), map(str, itertools.count()))
    return list(itertools.islice(uids, count))


def elapse(session):
    """Decide that the first timer fires."""
    due = (yield Need(timers=1)).timers
    session.next_timer_at = None
    return Changes(session, timers={timer.name: None for timer in due})


# -- two processes ------------------------------------------------------------------------------------------


def test_a_timer_elapses_once_in_two_processes(place):
    """The second one decides again, from what is stored then."""
    one, two = (with_timers(place.open(), "session", 5) for _ in range(2))
    between = Between(Decision("elapse", elapse), lambda: two.commit(Decision("elapse", elapse)))
    assert one.commit(between.decision).timers == {}
    assert between.tries == 2


def test_a_slice_with_timers_is_of_one_version(place):
    """A decision that looks twice never sees timers of two states."""
    one, two = (with_timers(place.open(), "session", 5) for _ in range(2))
    seen, begun = [], []

    def begin(session):
        first = (yield Need(timers=9)).timers
        if not begun:
            begun.append(two.commit(setting({"1": fires("1", 7, 2)}, 7)))
        second = (yield Need(timers=9, timer_names=("1",))).timers
        seen.append((first, second))
        return Changes(session)

    one.commit(Decision("look", begin))
    ((first, second),) = seen
    assert first == second == [fires("1", 7, 2)]


# -- damage -------------------------------------------------------------------------------------------------

#: What another program has made of the value of a timer, None if it has deleted it.
UNORDERED = {
    "no text": lambda _: b"",
    "other text": lambda _: b"garbage",
    "another time": lambda value: value.replace(b"0", b"8", 1),
    "deleted": None,
}
DAMAGE = {
    "no JSON": lambda value: value[:-1],
    "too many values": lambda value: value[:-1] + b",1,2]",
    "no list": lambda value: value[: value.index(b"[")] + b"7",
    **UNORDERED,
}


class Damaged:
    """Two sessions with two timers each. Another program has written the first timer of the session `bad`."""

    def __init__(self, place, damage):
        self.storage = place.open()
        self.bad, self.good = (with_timers(self.storage, uid, LATE, LATE + 1) for uid in ("bad", "good"))
        self.client = place.client
        partition, self.keys = self.storage._store.keys_of("bad")
        self.timed = partition.timed
        value = self.client.hget(self.keys.s, "T1")
        if damage is None:
            self.client.hdel(self.keys.s, "T1")
        else:
            self.client.hset(self.keys.s, "T1", damage(value))

    def values(self):
        """Everything that is stored about the timers of the bad session."""
        index = [self.client.zrange(key, 0, -1) for key in (self.keys.x, self.timed)]
        return self.client.hgetall(self.keys.s), index

    def refuse(self, call):
        """The call raises an error that names the key and the field, and changes nothing."""
        before = self.values()
        said = f"key {self.keys.s.decode()}: the timer in the field 'T1' .* restore a backup"
        with pytest.raises(StorageCorruptError, match=said):
            call()
        assert self.values() == before


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_timer_is_named_and_stops_no_other_session(place, damage):
    """Whoever needs it gets an error, and nothing is changed. All others continue, in the same session, too."""
    shop = Damaged(place, damage)
    storage, elapsing = shop.storage, Decision("elapse", elapse)
    shop.refuse(lambda: shop.bad.commit(elapsing))
    shop.refuse(lambda: storage.reader.timers("bad"))
    if damage is not None:
        shop.refuse(lambda: storage.reader.timers("bad", names=["1"]))
        shop.refuse(lambda: shop.bad.look(Need(timer_names=("1",))))
    assert storage.timed_sessions(9, ["default"]) == [("bad", LATE), ("good", LATE)]
    done = storage.commit_many([("bad", elapsing), ("good", elapsing)])
    assert isinstance(done[0], StorageCorruptError)
    assert storage.reader.timers("good") == [fires("2", LATE + 1, 2)]
    assert storage.reader.timers("bad", names=["2"]) == [fires("2", LATE + 1, 2)]
    assert shop.bad.fire("page").fired[0].number == 1


@pytest.mark.parametrize("damage", [UNORDERED[how] for how in UNORDERED if how != "deleted"])
@pytest.mark.parametrize("timer", [None, fires("1", 9, 3)], ids=["removed", "set"])
def test_a_timer_whose_place_is_unknown_is_not_changed(place, damage, timer):
    """Otherwise its place in the order would stay, without a timer."""
    shop = Damaged(place, damage)
    shop.refuse(lambda: shop.bad.commit(setting({"2": None, "1": timer}, 6)))


def test_a_damaged_timer_can_be_replaced_if_its_place_is_known(place):
    """Or removed. Then the session has no damage any more."""
    shop = Damaged(place, DAMAGE["no JSON"])
    shop.bad.commit(setting({"1": fires("1", LATE + 2, 3)}, LATE))
    assert shop.storage.reader.timers("bad") == [fires("2", LATE + 1, 2), fires("1", LATE + 2, 3)]


def test_a_damaged_entry_is_reported_and_hides_no_session(place, storage):
    """What is no session in the set of sessions with timers is shown as a problem. It takes no place of a session."""
    bad, good = of_one_partition(storage, 2)
    with_timers(storage, good, 5)
    with_timers(storage, bad, 4)
    deleted = storage._store.keys_of(bad)[1]
    saved = place.client.dump(deleted.s)
    for spoil in (place.client.delete, lambda key: place.client.set(key, "somebody else's")):
        spoil(deleted.s)
        assert storage.timed_sessions(1, ["default"]) == [(good, 5)]
        (problem,) = storage.problems.list()
        assert problem.place == f"index entry '{4:019d} {member_of_uid(bad).decode()}'"
        assert f"session '{bad}' is missing or cannot be read" in problem.error
    place.client.restore(deleted.s, 0, saved, replace=True)
    assert storage.timed_sessions(9, ["default"]) == [(bad, 4), (good, 5)]
    assert not storage.problems


def test_what_is_no_entry_is_reported(place, storage):
    """Another program has written it; all others are found."""
    with_timers(storage, "good", 5)
    partition = storage._store.keys_of("good")[0]
    place.client.zadd(partition.timed, {member_of_timed("default", 1, b"_w"): 0, b"default\0garbage": 0})
    assert storage.timed_sessions(9, ["default"]) == [("good", 5)]
    entries = {problem.place for problem in storage.problems.list()}
    assert entries == {f"index entry '{1:019d} _w'", "index entry 'garbage'"}


def test_a_wrong_type_in_one_partition_hides_no_session_of_others(place, storage):
    """It is reported, and the other partitions are asked."""
    uids = [f"session {n}" for n in range(9)]
    for uid in uids:
        with_timers(storage, uid, 5)
    broken = storage._store.keys_of(uids[0])[0].timed
    place.client.delete(broken)
    place.client.set(broken, "somebody else's")
    found = {timed.uid for timed in storage.timed_sessions(9, ["default"])}
    assert found == {uid for uid in uids if storage._store.keys_of(uid)[0].timed != broken} != set()
    (problem,) = storage.problems.list()
    assert f"key {broken.decode()} is a string and must be a zset" in problem.error


# -- sessions with timers ------------------------------------------------------------------------------------


def test_a_partition_with_more_than_its_share_is_asked_again(storage):
    """Each partition is asked for a part of the limit first, but the sessions may all be in one."""
    uids = of_one_partition(storage, 40)
    for at, uid in enumerate(uids):
        with_timers(storage, uid, at)
    assert storage.timed_sessions(30, ["default"]) == [(uid, at) for at, uid in enumerate(uids[:30])]


def test_a_manager_whose_name_begins_like_another_is_another(storage):
    """Its sessions are in the same set, and are not even looked at."""
    own, *others = of_one_partition(storage, 6)
    for manager, uid in zip(
        ("a ", "ab", "a\N{LATIN SMALL LETTER Y WITH DIAERESIS}", "A", ""), others, strict=True
    ):
        with_timers(storage, uid, 5, manager=manager)
    with_timers(storage, own, 6, manager="a")
    assert storage.timed_sessions(9, ["a"]) == [(own, 6)]
    assert not storage.problems


# -- what it costs ------------------------------------------------------------------------------------------


def commands(client, act, *args):
    """Command → how often the server has run it during the act, those within scripts, too."""

    def calls():
        return {name: one["calls"] for name, one in client.info("commandstats").items()}

    before = calls()
    act(*args)
    return {
        name.removeprefix("cmdstat_"): count - before.get(name, 0)
        for name, count in calls().items()
        if count > before.get(name, 0) and name != "cmdstat_info"
    }


def test_a_session_without_timers_pays_nothing(place, storage, monkeypatch):
    """A firing sends no key, no list and no count for timers, and stores nothing about them."""
    sent = []
    real = storage._store.server.ask_all
    monkeypatch.setattr(
        storage._store.server,
        "ask_all",
        lambda calls, *rest, **more: sent.extend(calls) or real(calls, *rest, **more),
    )
    steps = Steps(storage)
    steps.configure(RULES)
    steps.fire("page")  # now the rules are cached
    sent.clear()
    steps.fire("page")
    assert [len(command.keys) for command in sent] == [3, 4, 13]
    _, loaded, commit = (command.words for command in sent)
    assert loaded[-1] == 0  # no level
    assert commit[-2:] == (b"", b"")  # neither a new session nor a finalized one
    partition, keys = storage._store.keys_of(steps.uid)
    assert not place.client.exists(partition.timed)
    assert place.client.hget(keys.s, "h").count(b",") == 5


def test_a_firing_costs_the_same_however_many_timers_there_are(place, storage):
    """And so do setting, moving and removing one."""
    first, few, many = (Steps(storage, uid) for uid in ("first", "few", "many"))
    for steps, size in ((first, 2), (few, 2), (many, 3_000)):
        steps.configure(RULES)
        steps.commit(setting({str(n): fires(str(n), LATE + n, n) for n in range(size)}, LATE))
    acts = {
        "fire": lambda steps: steps.fire("page"),
        "set": lambda steps: steps.commit(setting({"new": fires("new", LATE - 2, 3_000)}, LATE - 2)),
        "move": lambda steps: steps.commit(setting({"new": fires("new", LATE - 1, 3_001)}, LATE - 1)),
        "find": lambda steps: steps.storage.timed_sessions(5, ["default"]),
        "elapse": lambda steps: steps.commit(Decision("elapse", elapse)),
    }
    for name, act in acts.items():
        act(first)  # now the server has the scripts
        costs = [commands(place.client, act, steps) for steps in (few, many)]
        assert costs[0] == costs[1], name


# -- expiry -------------------------------------------------------------------------------------------------

#: Finalized sessions are deleted after this many hours.
KEPT = timedelta(hours=1)


@pytest.fixture
def expiring(valkey_url, monkeypatch):
    """A place whose finalized sessions are deleted after an hour."""
    monkeypatch.setattr("triggers.storages.redis.sweep.EXPIRE_EVERY", 0.0)
    place = RedisPlace(f"{valkey_url}?expire_finalized=1h", client_at(valkey_url))
    yield place
    place.close()


@pytest.fixture
def over(expiring):
    """Steps on a session that is finalized and has nothing left to do."""
    steps = Steps(expiring.open(), "over", Policy(finalizing=Finalizing("over")))
    steps.configure(RULES)
    steps.fire("page")
    steps.run("t_page#0")
    assert steps.head.finalized is not None
    return steps


def passes(place, storage, duration=KEPT):
    """Let a time pass; returns the UIDs of the sessions that are left."""
    place.advance(duration + timedelta(microseconds=1))
    storage.due(10, grace=SECOND)
    return [session.uid for session in storage.reader.sessions()]


@pytest.mark.parametrize("at", [10**18, AWAY], ids=["set", "put aside"])
def test_a_finalized_session_with_a_timer_is_kept(expiring, over, at):
    """Until nothing is left of its timers. One that was put aside waits for a person."""
    over.commit(setting({"a": fires("a", at, 1)}, None if at == AWAY else at))
    for _ in range(3):
        assert passes(expiring, over.storage) == ["over"]
    over.commit(setting({"a": None}))
    assert passes(expiring, over.storage) == []
    assert not [key for key in expiring.client.keys("*") if key.endswith(member_of_uid("over"))]


def test_a_session_is_kept_while_it_is_found_by_its_timers(expiring, over):
    """The time of the first timer can be too early. A session that is found by it must exist."""
    over.commit(setting({"a": fires("a", 10, 1)}, 10))
    over.commit(setting({"a": None}, 10))
    assert passes(expiring, over.storage) == ["over"]
    assert over.storage.timed_sessions(9, ["default"]) == [("over", 10)]
    over.commit(setting({}))
    assert passes(expiring, over.storage) == []
    assert over.storage.timed_sessions(9, ["default"]) == []


def test_a_change_as_of_an_earlier_time_is_a_change_now(expiring, over):
    """A timer that elapses late changes the session as of its own time. The session is kept from now on."""
    started = over.head.modified_at
    over.commit(setting({"a": fires("a", 10, 1)}, 10))
    assert passes(expiring, over.storage) == ["over"]

    def begin(session):
        yield Need()
        session.modified_at = started
        session.next_timer_at = None
        return Changes(session, timers={"a": None})

    over.commit(Decision("elapse", begin))
    assert passes(expiring, over.storage, KEPT / 2) == ["over"]
    assert passes(expiring, over.storage, KEPT / 2) == []


# -- decisions ----------------------------------------------------------------------------------------------


def test_a_decision_on_a_session_that_is_not_stored_sets_no_timer(place, storage):
    """If it does not store the session, nothing is written."""

    def begin(session):
        yield Need()
        return Changes(session, writes_head=False, timers={"a": fires("a", 10, 1), "b": None})

    before = {*place.client.keys("*")}
    Steps(storage).commit(Decision("set", begin))
    assert {*place.client.keys("*")} == before


def test_a_session_that_gets_a_manager_is_found_by_it(place, storage):
    """It is no longer found by the manager that it had."""
    with_timers(storage, "session", 5, manager="")
    assert storage.timed_sessions(9, [""]) == [("session", 5)]
    storage.commit("session", setting({}, 5, manager="default"))
    assert storage.timed_sessions(9, [""]) == []
    assert place.open().timed_sessions(9, ["default"]) == [("session", 5)]
    assert Steps(storage).head.manager == "default"
