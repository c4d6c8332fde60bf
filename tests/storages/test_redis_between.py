"""What others do between the moment at which a decision sees a session and the one at which it is stored."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from redis import Redis

from tests.storages.redis_sandboxes import RedisPlace, client_at
from triggers.core import decisions
from triggers.core.configuration import check_configuration
from triggers.core.exchange import Changes, Decision, Need
from triggers.core.state import Counter, Firing
from triggers.core.status import Status
from triggers.core.terms import AttemptReport, Finalizing, Policy, Terms
from triggers.exceptions import StorageCorruptError
from triggers.storages.base import MAX_CONFLICTS, ConflictError
from triggers.storages.redis import RedisStorage
from triggers.testing.conformance.fixtures import batch, entry, page_attempt, start_pages
from triggers.testing.conformance.steps import LEASE, SECOND, Steps

PAGES = {"t_page": {"andEvery": "page", "run": "page"}}


@pytest.fixture
def place(valkey_url):
    place = RedisPlace(valkey_url, client_at(valkey_url))
    yield place
    place.close()


@pytest.fixture
def steps(place):
    """Steps on a session with one scheduled instance, t_page#0."""
    steps = Steps(place.open())
    steps.configure(PAGES)
    steps.fire("page")
    return steps


@pytest.fixture
def other(place, steps):
    """The same from another process."""
    return Steps(place.open())


class Between:
    """Lets an act happen after a decision was made for the first time, before it is stored."""

    def __init__(self, decision, act):
        self.inner = decision
        self.act = act
        self.tries = 0
        self.decision = replace(decision, begin=self.begin)

    def begin(self, session):
        changes = yield from self.inner(session)
        self.tries += 1
        if self.tries == 1:
            self.act()
        return changes


def firing(steps, trigger="page"):
    return decisions.fire(steps.policy, Firing(0, trigger, "{}", 0))


def claiming(steps, owner):
    return decisions.claim(steps.policy, "t_page", 0, owner, lambda *_: Terms(60 * SECOND, 3))


def saying(steps, *entries):
    said = AttemptReport("t_page", 0, 1, 1, batch(*entries))
    return decisions.keep_logs(steps.policy, said)


def test_two_firings_at_once_get_two_numbers(steps, other):
    """The later one is decided anew, and makes an instance of its own."""
    between = Between(firing(steps), lambda: other.fire("page"))
    assert steps.commit(between.decision).fired[0].number == 3
    assert between.tries == 2
    assert list(steps.statuses()) == ["t_page#0", "t_page#1", "t_page#2"]


def test_two_first_firings_make_one_session(place):
    """The later one sees the session that the other has made."""
    one, two = (Steps(place.open(), "new") for _ in range(2))
    between = Between(firing(one, "a"), lambda: two.fire("b"))
    assert one.commit(between.decision).fired[0].number == 2
    assert [one.trigger for one in two.firings()] == ["b", "a"]


def test_a_firing_is_decided_by_the_rules_that_came_meanwhile(steps, other):
    """It is stored with the rules that the session has, never with those that it had."""
    rules = {"t_other": {"andEvery": "page", "run": "other"}}
    between = Between(firing(steps), lambda: other.configure(rules))
    assert [made.task for made in steps.commit(between.decision).created] == ["t_other"]


def test_a_claim_that_another_was_faster_with_is_refused(steps, other):
    """One of two workers has the instance, with one fence, and the other one is told."""
    between = Between(claiming(steps, "slow"), lambda: other.claim("t_page#0", "fast"))
    changes = steps.commit(between.decision)
    assert changes.claimed is None
    assert (steps["t_page#0"].owner, steps["t_page#0"].fence) == ("fast", 1)


def test_a_claim_does_not_wait_for_firings(steps, other):
    """A decision about one instance is stored although somebody has fired into its session meanwhile."""
    between = Between(claiming(steps, "me"), lambda: other.fire("page"))
    assert steps.commit(between.decision).claimed is not None
    assert between.tries == 1


def test_a_hand_over_meanwhile_does_not_disturb_a_claim(steps, other, place):
    """What was just marked as handed over is claimed, and not due again."""
    place.advance(timedelta(seconds=30))
    between = Between(claiming(steps, "me"), lambda: other.storage.due(10, grace=SECOND))
    assert steps.commit(between.decision).claimed is not None
    place.advance(timedelta(seconds=59))
    assert other.storage.due(10, grace=SECOND, include_recent=True) == []


def test_records_do_not_take_a_heartbeat_back(steps, other, place):
    """The lease that was extended while records were stored is as long as the heartbeat made it."""
    attempt = steps.start("t_page#0")
    place.advance(timedelta(seconds=30))
    between = Between(saying(steps, entry("Still here.")), lambda: other.renew(attempt))
    steps.commit(between.decision)
    assert steps["t_page#0"].lease_until == steps.storage.now() + LEASE
    place.advance(timedelta(seconds=45))
    assert steps.storage.expired(10) == []
    assert [record.message for record in steps.storage.reader.logs("session")] == ["Still here."]


def test_records_that_are_stored_at_once_get_two_numbers(steps, other):
    """Each record has a number of its own, and none is counted twice."""
    steps.start("t_page#0")
    other_said = AttemptReport("t_page", 0, 1, 1)
    between = Between(
        saying(steps, entry("second")), lambda: other.keep_logs(other_said, batch(entry("first")))
    )
    steps.commit(between.decision)
    records = steps.storage.reader.logs("session")
    assert [(record.number, record.message) for record in records] == [(1, "first"), (2, "second")]
    assert steps["t_page#0"].log_counts == {30: 2}


def test_an_end_and_a_rescue_do_not_both_happen(steps, other, place):
    """Whichever is stored first counts: the other one sees that, and is refused."""
    attempt = steps.start("t_page#0")
    place.advance(timedelta(microseconds=LEASE + 1))
    between = Between(
        decisions.finish(steps.policy, attempt, "{}"),
        lambda: other.recover("t_page#0", attempt.fence),
    )
    assert steps.commit(between.decision).refused
    assert (steps["t_page#0"].status, steps["t_page#0"].crashes) == (Status.SCHEDULED, 1)
    assert [one.trigger for one in steps.firings()] == ["page"]


def test_a_rescue_that_a_heartbeat_was_faster_than_is_refused(steps, other, place):
    """A lease that was extended at the last moment is not taken away."""
    attempt = steps.start("t_page#0")
    place.advance(timedelta(microseconds=LEASE + 1))
    between = Between(
        decisions.recover(steps.policy, "t_page", 0, attempt.fence, str),
        lambda: other.renew(attempt),
    )
    assert steps.commit(between.decision).refused
    assert steps["t_page#0"].status is Status.RUNNING


def test_a_second_look_sees_the_same_session_or_begins_anew(steps, other):
    """A decision that asks twice is never shown two different sessions."""
    seen = []
    fired = []

    def begin(session):
        first = yield Need(tasks=None)
        if not fired:
            fired.append(other.fire("page"))
        second = yield Need(tasks=None)
        seen.append((session.firings, first.counters, second.counters))
        return Changes(session, writes_head=False)

    steps.commit(Decision("look", begin))
    ((firings, first, second),) = seen
    assert firings == 2
    assert first == second == {"t_page": Counter(2, 2)}


def test_nothing_is_written_into_a_world_that_was_flushed_meanwhile(valkey_url):
    """Not even a new session, which nothing else would stand in the way of."""
    steps = Steps(RedisStorage(valkey_url))
    client = Redis.from_url(valkey_url)
    with pytest.raises(StorageCorruptError, match="nothing was written"):
        steps.commit(Between(firing(steps), client.flushdb).decision)
    assert client.dbsize() == 0


def test_a_session_that_expired_meanwhile_is_begun_anew(place):
    """A firing is stored in a whole session: in the old one, or in a new one."""
    storage = place.open()
    policy = Policy(finalizing=Finalizing("over"))
    steps = Steps(storage, "session", policy)
    start_pages(steps, 1)
    steps.finish(page_attempt(0))
    place.advance(timedelta(hours=2))
    sweep = storage._sweep

    def expire():
        assert not sweep.expire(3600 * SECOND, storage._store.until())
        assert storage.reader.session("session") is None

    assert steps.commit(Between(firing(steps, "a"), expire).decision).fired[0].number == 1
    assert steps.head.rules.rules == {}
    assert [session.uid for session in storage.reader.sessions()] == ["session"]


def test_rules_that_are_stored_at_once_are_stored_once(valkey_url):
    """However many sessions of a partition share them; and each partition has a copy."""
    storage = RedisStorage(f"{valkey_url}?partitions=2")
    rules = check_configuration(PAGES)
    for number in range(20):
        Steps(storage, f"session {number}").configure(PAGES)
        Steps(RedisStorage(valkey_url), f"session {number}").fire("page")
    client = Redis.from_url(valkey_url)
    for number in range(2):
        assert client.hkeys(f"{{trg:p{number}}}:rules") == [rules.digest.encode()]


def previewed(act):
    """A decision with two loads, between which something happens; and how often it was begun."""
    begun = []

    def look(session):
        begun.append(session.firings)
        first = yield Need(tasks=None)
        act()
        second = yield Need(tasks=None)
        assert (first.counters, session.firings) == (second.counters, begun[-1])
        return Changes(session, writes_head=False)

    return Decision("look", look), begun


def test_a_preview_starts_over_if_the_session_has_changed(steps, other):
    """What it sees at the end is one version, the newest; a claim is no change of the session."""
    acts = [lambda: other.claim("t_page#0"), lambda: other.fire("page"), lambda: other.fire("page")]
    decision, begun = previewed(lambda: acts and acts.pop()())
    steps.preview(decision)
    assert begun == [1, 2, 3]
    assert acts == []


def test_a_preview_of_a_session_that_never_rests_gives_up(steps, other):
    """After so many tries, the error says what to do."""
    decision, begun = previewed(lambda: other.fire("page"))
    with pytest.raises(
        ConflictError, match=f"changed {MAX_CONFLICTS} times .* nothing was stored: try again"
    ):
        steps.preview(decision)
    assert len(begun) == MAX_CONFLICTS


def test_a_firing_between_the_head_and_the_guess_is_noticed(steps, other):
    """They are two scripts of one message, so what was guessed carries the version that it belongs to."""
    store = steps.storage.reader._store
    run_all, calls = store.run_all, []

    def overtaken(commands, until, **options):
        calls.append([one.name for one in commands])
        if calls[-1] != ["head", "slice"] or len(calls) > 1:
            return run_all(commands, until, **options)
        (head,) = run_all(commands[:1], until, **options)
        other.fire("page")
        return [head, *run_all(commands[1:], until, **options)]

    store.run_all = overtaken
    firing = decisions.fire(steps.policy, Firing(0, "page", "{}", 0), steps.head.rules)
    calls.clear()
    changes = steps.preview(firing)
    assert calls == [["head", "slice"]] * 2
    assert ([each.name for each in changes.created], changes.fired[0].number) == (["t_page#2"], 3)
