# ruff: noqa: E501, S101, PLR2004 - as in tests: docstrings have one line, assert is used, numbers are expected values
"""Claims: which worker holds an instance, for how long, and how an instance without a worker is found."""

from __future__ import annotations

import random
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest

from triggers.core.decisions import SUSPECTED_AT, TRIAL
from triggers.core.decisions.attempt import RETURN_PAUSES
from triggers.core.decisions.rescue import CRASH_BACKOFF
from triggers.core.status import Status
from triggers.core.terms import RetryTerms
from triggers.core.values import decode
from triggers.storages.base import Backlog, Expired, Lease, ReadyInstance
from triggers.testing.conformance.fixtures import StorageFixtures, at_once
from triggers.testing.conformance.steps import LEASE, SECOND, Steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from triggers.storages.base import Storage
    from triggers.testing.conformance.sandbox import StorageSandbox

PAGES: dict[str, Any] = {"t_page": {"andEvery": "page", "run": "page"}}

GRACE = 30 * SECOND


class Claims(StorageFixtures):
    """Tests of promises 4, 7, 9 and 10: claims, leases, recovery and dispatch."""

    @pytest.fixture
    def pages(self, steps: Steps) -> Steps:
        """Steps on a session with one scheduled instance, t_page#0."""
        steps.configure(PAGES)
        steps.fire("page", {"n": 0})
        return steps

    # -- claiming --------------------------------------------------------------------------------------------

    def test_exactly_one_of_many_wins_a_claim(self, place: StorageSandbox) -> None:
        """Promise 4: eight workers, each with copies of twelve messages, start each instance exactly once."""
        hands = [Steps(place.open()) for _ in range(8)]
        hands[0].configure(PAGES)
        for n in range(12):
            hands[0].fire("page", {"n": n})

        def work(hand: Steps, worker: int) -> Callable[[], list[str]]:
            names = [f"t_page#{n}" for n in range(12)] * 2
            random.Random(worker).shuffle(names)  # noqa: S311 - an order, no secret
            return lambda: [
                name
                for copy, name in enumerate(names)
                if hand.claim(name, f"{worker}:{copy}").claimed is not None
            ]

        won = at_once([work(hand, worker) for worker, hand in enumerate(hands)])
        assert sorted(name for own in won for name in own) == sorted(f"t_page#{n}" for n in range(12))
        assert {(each.fence, each.attempt) for each in hands[0].instances()} == {(1, 1)}

    def test_the_lease_of_a_claim_begins_at_the_storages_time(self, pages: Steps, storage: Storage) -> None:
        """Promise 7: the lease begins at the storage's time. The claim raises the fence and counts the attempt."""
        claimed = pages.claim("t_page#0", "me", lease=7 * SECOND, crash_budget=5).claimed
        assert claimed is not None
        stored = pages["t_page#0"]
        assert (stored.status.value, stored.owner, stored.fence, stored.attempt) == ("running", "me", 1, 1)
        assert (stored.lease_until, stored.crash_budget) == (storage.now() + 7 * SECOND, 5)
        assert (claimed.fence, claimed.attempt) == (1, 1)

    def test_a_claim_returns_the_kwargs(self, pages: Steps) -> None:
        """Promise 6: a claim returns the payloads of the firings that the instance has taken."""
        changes = pages.claim("t_page#0")
        assert {number: decode(text) for number, text in changes.payloads.items()} == {1: {"n": 0}}

    def test_a_claim_whose_answer_was_lost_can_be_repeated(self, pages: Steps) -> None:
        """Promise 4: a second claim by the same owner returns the first claim. Another owner is refused."""
        first = pages.claim("t_page#0", "me").claimed
        again = pages.claim("t_page#0", "me")
        assert first is not None
        assert again.claimed is not None
        assert (again.claimed.fence, again.claimed.attempt) == (first.fence, first.attempt)
        assert again.payloads.keys() == {1}
        assert pages.claim("t_page#0", "you").claimed is None

    def test_an_instance_that_is_not_due_is_not_claimed(self, place: StorageSandbox, pages: Steps) -> None:
        """Promise 7: an instance cannot be claimed before its cooldown is over."""
        pages.fail(pages.start("t_page#0"), "boom", RetryTerms(10 * SECOND, 3, "{}"))
        assert pages.statuses() == {"t_page#0": "replayed", "t_page#1": "scheduled"}
        place.advance(timedelta(seconds=10, microseconds=-1))
        assert pages.claim("t_page#1").claimed is None
        place.advance(timedelta(microseconds=1))
        assert pages.claim("t_page#1").claimed is not None

    @pytest.mark.parametrize("end", ["finish", "fail", "skip_running"])
    def test_an_instance_that_has_ended_is_not_claimed(self, pages: Steps, end: str) -> None:
        """Promise 4: a late copy of a message does not change an instance that has ended."""
        getattr(pages, end)(pages.start("t_page#0"))
        before = pages["t_page#0"]
        assert pages.claim("t_page#0", "late").claimed is None
        assert pages.claim("t_page#17", "lost").claimed is None
        assert pages["t_page#0"] == before

    def test_a_worker_without_the_task_returns_the_instance(
        self, place: StorageSandbox, pages: Steps, storage: Storage
    ) -> None:
        """Promise 9: the instance waits longer each time, up to a limit. No crash and no attempt is counted."""
        for pause in (*RETURN_PAUSES, RETURN_PAUSES[-1]):
            assert pages.claim("t_page#0", able=False).claimed is None
            assert pages["t_page#0"].run_at == storage.now() + pause
            assert storage.due(10, grace=GRACE, include_recent=True) == []
            place.advance(timedelta(microseconds=pause))
            assert len(storage.due(10, grace=GRACE)) == 1
        instance = pages["t_page#0"]
        assert (instance.given_back, instance.attempt, instance.crashes) == (len(RETURN_PAUSES) + 1, 0, 0)
        assert pages.claim("t_page#0").claimed is not None

    # -- ends and fences ---------------------------------------------------------------------------------------

    def test_one_end_of_many_is_accepted(self, place: StorageSandbox) -> None:
        """Promise 4: if one attempt is ended eight times at once, one end is accepted, and it cascades once."""
        hands = [Steps(place.open()) for _ in range(8)]
        hands[0].configure(PAGES)
        hands[0].fire("page")
        attempt = hands[0].start("t_page#0")
        answers = at_once([partial(hand.finish, attempt, {"ok": True}) for hand in hands])
        assert sum(not answer.refused for answer in answers) == 1
        assert [firing.trigger for firing in hands[0].firings()] == ["page", "t_page"]

    def test_a_stale_worker_is_refused_and_recorded(self, place: StorageSandbox, pages: Steps) -> None:
        """Promise 4: an attempt that lost its lease cannot end the instance, whether or not another worker holds it."""
        stale = pages.start("t_page#0", "stale")
        place.advance(timedelta(microseconds=LEASE + 1))
        pages.recover("t_page#0", stale.fence)
        place.advance(timedelta(microseconds=CRASH_BACKOFF[0]))
        current = pages.start("t_page#0", "current")
        for end in (pages.finish, pages.fail, pages.skip_running, pages.release):
            assert f"fence {stale.fence} is old" in end(stale).refused
        instance = pages["t_page#0"]
        assert (instance.status.value, instance.owner, instance.fence) == (
            "running",
            "current",
            current.fence,
        )
        assert instance.history.count("refused a late end") == 4
        assert not pages.finish(current).refused
        assert f"fence {stale.fence} is old" in pages.finish(stale).refused
        assert [firing.trigger for firing in pages.firings()] == ["page", "t_page"]

    def test_an_end_and_a_recovery_at_once_cannot_both_happen(self, place: StorageSandbox) -> None:
        """Promise 4: if an attempt is ended and recovered at the same moment, exactly one of the two is refused."""
        worker, sweep = Steps(place.open()), Steps(place.open())
        worker.configure(PAGES)
        for n in range(10):
            worker.fire("page")
            attempt = worker.start(f"t_page#{n}")
            place.advance(timedelta(microseconds=LEASE + 1))
            name = f"t_page#{n}"
            ended, recovered = at_once(
                [partial(worker.finish, attempt), partial(sweep.recover, name, attempt.fence)]
            )
            assert bool(ended.refused) != bool(recovered.refused)
            expected = ("scheduled", 1) if ended.refused else ("finished", 0)
            assert (worker[f"t_page#{n}"].status.value, worker[f"t_page#{n}"].crashes) == expected

    def test_a_released_instance_is_due_at_once(self, pages: Steps, storage: Storage) -> None:
        """Promise 9: a released instance is due now, with a new fence. No crash is counted."""
        attempt = pages.start("t_page#0")
        pages.release(attempt)
        instance = pages["t_page#0"]
        assert (instance.status.value, instance.owner, instance.lease_until) == ("scheduled", "", None)
        assert (instance.crashes, instance.fence) == (0, attempt.fence + 1)
        assert storage.due(10, grace=GRACE) == [ReadyInstance("session", "t_page", 0, None, "page")]
        assert pages.start("t_page#0").attempt == 2

    # -- leases --------------------------------------------------------------------------------------------------

    def test_a_heartbeat_extends_held_claims_and_returns_lost_ones(
        self, place: StorageSandbox, pages: Steps
    ) -> None:
        """Promise 4: one heartbeat for many claims extends those that are still held, and returns the others."""
        for n in range(1, 4):
            pages.fire("page", {"n": n})
        held, ended, released, reclaimed = (pages.start(f"t_page#{n}") for n in range(4))
        pages.finish(ended)
        pages.release(released)
        pages.release(reclaimed)
        current = pages.start("t_page#3", "current")
        unknown = [
            Lease("elsewhere", "t_page", 0, 1),
            Lease("session", "t_else", 0, 1),
            Lease("session", "t_page", 9, 1),
        ]
        place.advance(timedelta(seconds=20))
        everything = [*map(pages.held, (held, ended, released, reclaimed)), *unknown]
        lost = pages.storage.renew(everything, 100 * SECOND)
        assert lost == {*map(pages.held, (ended, released, reclaimed)), *unknown}
        assert pages["t_page#0"].lease_until == pages.storage.now() + 100 * SECOND
        assert pages["t_page#3"].lease_until == pages.storage.now() - 20 * SECOND + LEASE
        assert pages.renew(current) == set()
        assert pages.renew() == set()

    def test_an_expired_lease_is_found(self, place: StorageSandbox, pages: Steps, storage: Storage) -> None:
        """Promise 10: it is found from the moment at which it expires until its claim is recovered."""
        attempt = pages.start("t_page#0")
        place.advance(timedelta(microseconds=LEASE))
        assert storage.expired(10) == []
        place.advance(timedelta(microseconds=1))
        assert storage.expired(10) == [Expired("session", "t_page", 0, attempt.fence, "default")]
        assert storage.expired(10) == [Expired("session", "t_page", 0, attempt.fence, "default")], (
            "reading changes nothing"
        )
        pages.recover("t_page#0", attempt.fence)
        assert storage.expired(10) == []

    def test_a_heartbeat_in_time_keeps_the_lease(
        self, place: StorageSandbox, pages: Steps, storage: Storage
    ) -> None:
        """Promise 10: an extended claim is not found, and a sweep that found it before cannot recover it."""
        attempt = pages.start("t_page#0")
        place.advance(timedelta(microseconds=LEASE + 1))
        assert len(storage.expired(10)) == 1
        assert pages.renew(attempt) == set()
        assert storage.expired(10) == []
        assert pages.recover("t_page#0", attempt.fence).refused
        assert not pages.finish(attempt).refused

    def test_expired_claims_are_limited(self, place: StorageSandbox, pages: Steps, storage: Storage) -> None:
        """Promise 10: each call returns at most its limit, and the next call returns the others."""
        for _ in range(4):
            pages.fire("page")
        attempts = [pages.start(f"t_page#{n}") for n in range(5)]
        place.advance(timedelta(microseconds=LEASE + 1))
        seen = set()
        for expected in (2, 2, 1, 0):
            found = storage.expired(2)
            assert len(found) == expected
            for each in found:
                seen.add(each.number)
                pages.recover(f"{each.task}#{each.number}", each.fence)
        assert seen == {attempt.number for attempt in attempts}

    def test_crashes_are_counted_up_to_the_budget(
        self, place: StorageSandbox, pages: Steps, storage: Storage
    ) -> None:
        """Promise 10: a lost instance runs again after a growing pause. It fails when its budget is used up.

        The first crashes may be caused by a neighbor and are not charged. Then the instance runs alone, and gets a
        trial first.
        """
        budget = 3
        last = SUSPECTED_AT + budget
        for crash in range(1, last + 1):
            attempt = pages.start("t_page#0", crash_budget=budget)
            assert attempt.attempt == crash
            place.advance(timedelta(microseconds=LEASE + 1))
            if crash > SUSPECTED_AT:
                assert pages.recover("t_page#0", attempt.fence).claimed is None
                assert pages["t_page#0"].lease_until == storage.now() + TRIAL
                assert storage.expired(10) == []
                place.advance(timedelta(microseconds=TRIAL + 1))
            assert not pages.recover("t_page#0", attempt.fence).refused
            assert pages.recover("t_page#0", attempt.fence).refused, "a second sweep is too late"
            instance = pages["t_page#0"]
            assert (instance.crashes, instance.fence) == (crash, 2 * crash)
            assert instance.charged == max(crash - SUSPECTED_AT, 0)
            if crash < last:
                pause = CRASH_BACKOFF[min(crash, len(CRASH_BACKOFF)) - 1]
                assert (instance.status.value, instance.run_at) == ("scheduled", storage.now() + pause)
                assert pages.claim("t_page#0").claimed is None
                place.advance(timedelta(microseconds=pause))
        assert (pages["t_page#0"].status.value, decode(pages["t_page#0"].error or "")) == ("failed", "lost")
        assert storage.expired(10) == []
        assert storage.due(10, grace=GRACE, include_recent=True) == []
        assert pages.replay("t_page#0").name == "t_page#1"

    def test_an_outage_that_outlasts_a_lease_is_not_charged(
        self, place: StorageSandbox, pages: Steps
    ) -> None:
        """Promise 10: an instance that runs alone is not charged if its worker shows in time that it is alive."""
        for _ in range(SUSPECTED_AT):
            lost = pages.start("t_page#0")
            place.advance(timedelta(microseconds=LEASE + 1))
            assert not pages.recover("t_page#0", lost.fence).refused
            place.advance(timedelta(microseconds=CRASH_BACKOFF[-1]))
        attempt = pages.start("t_page#0", crash_budget=1)
        for _ in range(3):
            place.advance(timedelta(microseconds=LEASE + 1))
            assert not pages.recover("t_page#0", attempt.fence).refused
            place.advance(timedelta(seconds=1))
            assert pages.renew(attempt) == set()
        assert not pages.finish(attempt).refused
        instance = pages["t_page#0"]
        assert (instance.status.value, instance.crashes, instance.charged) == ("finished", SUSPECTED_AT, 0)

    def test_a_sweep_that_found_an_earlier_claim_does_not_recover_this_one(
        self, place: StorageSandbox, pages: Steps
    ) -> None:
        """Promise 4: a recovery applies only to the claim that was found, even if the next claim has expired too."""
        first = pages.start("t_page#0")
        pages.release(first)
        second = pages.start("t_page#0", "another")
        place.advance(timedelta(microseconds=LEASE + 1))
        assert pages.recover("t_page#0", first.fence).refused
        assert (pages["t_page#0"].status.value, pages["t_page#0"].crashes) == ("running", 0)
        assert not pages.recover("t_page#0", second.fence).refused

    # -- dispatch ----------------------------------------------------------------------------------------------

    def test_a_scheduled_instance_is_dispatched_again_after_its_grace(
        self, place: StorageSandbox, pages: Steps, storage: Storage
    ) -> None:
        """Promise 9: the process that fired has the grace period for the first dispatch. Then the pauses double, up to 64 times the grace period."""
        assert storage.due(10, grace=GRACE) == []
        for pause in (1, 1, 2, 4, 8, 16, 32, 64, 64, 64):
            place.advance(timedelta(microseconds=pause * GRACE - 1))
            assert storage.due(10, grace=GRACE) == []
            place.advance(timedelta(microseconds=1))
            assert storage.due(10, grace=GRACE) == [ReadyInstance("session", "t_page", 0, None, "page")]
            assert storage.due(10, grace=GRACE) == [], "it was just dispatched"
        assert pages["t_page#0"].status.value == "scheduled"

    def test_due_instances_may_include_those_that_were_just_dispatched(
        self, place: StorageSandbox, pages: Steps, storage: Storage
    ) -> None:
        """Promise 9: with `include_recent`, every call returns all instances that may run now, and none that is due later."""
        pages.fire("page")
        pages.fail(pages.start("t_page#1"), "boom", RetryTerms(3600 * SECOND, 3, "{}"))
        for _ in range(8):
            assert [due.number for due in storage.due(10, grace=GRACE, include_recent=True)] == [0]
        place.advance(timedelta(hours=1))
        assert {due.number for due in storage.due(10, grace=GRACE, include_recent=True)} == {0, 2}

    def test_an_instance_is_due_at_the_end_of_its_cooldown(
        self, place: StorageSandbox, pages: Steps, storage: Storage
    ) -> None:
        """Promise 9: after its cooldown an instance is due at once, without a grace period, because only the sweep dispatches it."""
        pages.fail(pages.start("t_page#0"), "boom", RetryTerms(3600 * SECOND, 3, "{}"))
        place.advance(timedelta(hours=1, microseconds=-1))
        assert storage.due(10, grace=GRACE) == []
        place.advance(timedelta(microseconds=1))
        assert storage.due(10, grace=GRACE) == [ReadyInstance("session", "t_page", 1, None, "page")]

    def test_instances_that_waited_longest_come_first(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 9: instances of all sessions are returned in the order of their times, up to the limit."""
        for n in range(6):
            steps = Steps(storage, f"session {n * 5 % 6}")
            steps.configure(PAGES)
            steps.fire("page")
            place.advance(timedelta(seconds=1))
        place.advance(timedelta(microseconds=GRACE))
        expected = [f"session {n * 5 % 6}" for n in range(6)]
        assert [due.uid for due in storage.due(4, grace=GRACE)] == expected[:4]
        assert [due.uid for due in storage.due(4, grace=GRACE)] == expected[4:]
        assert storage.due(4, grace=GRACE) == []

    def test_a_claimed_instance_is_not_due(
        self, place: StorageSandbox, pages: Steps, storage: Storage
    ) -> None:
        """Promise 9: a claim removes the instance from the outbox, and a release returns it."""
        attempt = pages.start("t_page#0", lease=3600 * SECOND)
        place.advance(timedelta(seconds=600))
        assert storage.due(10, grace=GRACE, include_recent=True) == []
        pages.release(attempt)
        assert len(storage.due(10, grace=GRACE)) == 1

    def test_a_due_instance_names_its_runner_and_task_by_the_current_rules(
        self, pages: Steps, storage: Storage
    ) -> None:
        """Promise 9: `using` and `run` are read when the instance is dispatched. A removed task has neither."""
        for using in ("celery", None, "threads"):
            pages.configure(
                {"t_page": {"andEvery": "page", "run": "page", **({"using": using} if using else {})}}
            )
            assert storage.due(10, grace=GRACE, include_recent=True) == [
                ReadyInstance("session", "t_page", 0, using, "page")
            ]
        pages.configure({})
        assert storage.due(10, grace=GRACE, include_recent=True) == [ReadyInstance("session", "t_page", 0)]

    def test_sweeps_at_once_share_the_work(self, place: StorageSandbox) -> None:
        """Promise 9: if four sweeps run at the same moment, each due instance is returned to exactly one of them."""
        hands = [Steps(place.open()) for _ in range(4)]
        hands[0].configure(PAGES)
        for n in range(20):
            hands[0].fire("page", {"n": n})
        place.advance(timedelta(microseconds=GRACE))
        found = at_once([partial(hand.storage.due, 20, grace=GRACE) for hand in hands])
        assert sorted(due.number for own in found for due in own) == list(range(20))

    def test_the_backlog_counts_due_later_and_running_instances(
        self, place: StorageSandbox, pages: Steps, storage: Storage
    ) -> None:
        """Promise 7: the backlog counts instances that are due, due later, and running. `next_at` is the time of the next one."""
        now = storage.now()
        assert storage.reader.backlog() == Backlog(1, 0, 0)
        assert storage.reader.next_at() == now + pages.policy.grace
        for _ in range(3):
            pages.fire("page")
        pages.start("t_page#0", lease=7 * SECOND)
        assert storage.reader.backlog() == Backlog(3, 0, 1)
        assert storage.reader.next_at() == now + 7 * SECOND
        pages.fail(pages.start("t_page#1"), "boom", RetryTerms(5 * SECOND, 3, "{}"))
        assert storage.reader.backlog() == Backlog(2, 1, 1)
        assert storage.reader.next_at() == now + 5 * SECOND
        place.advance(timedelta(seconds=5))
        assert storage.reader.backlog() == Backlog(3, 0, 1)
        assert storage.reader.next_at() == now + 5 * SECOND

    def test_an_empty_storage_has_no_backlog(self, storage: Storage) -> None:
        """Promise 7: without instances, nothing is due, and there is no next time."""
        assert storage.reader.backlog() == Backlog(0, 0, 0)
        assert storage.reader.next_at() is None
        assert storage.due(10, grace=GRACE, include_recent=True) == []
        assert storage.expired(10) == []

    def test_a_person_can_end_a_running_instance(self, pages: Steps) -> None:
        """Promise 4: setting a status by hand raises the fence, so the worker that held the instance is refused."""
        attempt = pages.start("t_page#0")
        instance = pages.set_status("t_page#0", Status.FAILED).transitioned[0][0]
        assert (instance.status.value, instance.fence) == ("failed", attempt.fence + 1)
        assert pages.finish(attempt).refused
        assert pages.renew(attempt) == {pages.held(attempt)}
        assert pages.replay("t_page#0").name == "t_page#1"
