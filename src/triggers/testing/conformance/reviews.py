# ruff: noqa: E501, S101, PLR2004 - as in tests: docstrings have one line, assert is used, numbers are expected values
"""Reviews of log records: of all, of chosen ones, and reviews that are undone."""

from __future__ import annotations

import itertools
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggers.core.records import fingerprint
from triggers.core.terms import Finalizing, Policy
from triggers.core.values import decode
from triggers.testing.conformance.fixtures import (
    StorageFixtures,
    at_once,
    batch,
    entries,
    entry,
    page_attempt,
    start_pages,
)
from triggers.testing.conformance.steps import Steps

if TYPE_CHECKING:
    from triggers.storages.base import Storage, StoredRecord
    from triggers.testing.conformance.sandbox import StorageSandbox

#: One step: log records at these levels, review records up to one or chosen ones, or undo all reviews.
TURNS = st.one_of(
    st.tuples(st.just("say"), st.lists(st.sampled_from([10, 20, 29, 30, 40, 50]), min_size=1, max_size=4)),
    st.tuples(st.just("through"), st.none() | st.integers(0, 12)),
    st.tuples(st.just("records"), st.frozensets(st.integers(-1, 12), max_size=4)),
    st.tuples(st.just("reopen"), st.none()),
)

ME = {"by": "a person", "reason": "seen"}


class Reviews(StorageFixtures):
    """Tests of promises 2 and 6 for reviews: which records a review covers, and which are left."""

    @pytest.fixture
    def said(self, steps: Steps) -> Steps:
        """Steps on a session whose running instance t_page#0 has records of these levels, in this order."""
        start_pages(steps, 1)
        steps.keep_logs(page_attempt(0), batch(*(entry(f"at {n}", level=n) for n in (50, 30, 20, 40, 30))))
        return steps

    def test_a_review_covers_chosen_records_only(self, said: Steps, storage: Storage) -> None:
        """Promise 6: `log_unresolved` is the highest level that is left, at or above the threshold. Each record shows whether it is resolved."""
        said.resolve_logs("t_page#0", ME, records=[1, 3])
        assert _resolved(storage, said) == [1, 3]
        assert said["t_page#0"].log_unresolved == 40
        said.resolve_logs("t_page#0", ME, records=[4])
        assert said["t_page#0"].log_unresolved == 30
        said.resolve_logs("t_page#0", ME, records={5, 2})
        assert said["t_page#0"].log_unresolved == 0
        assert _resolved(storage, said) == [1, 2, 3, 4, 5]
        assert said["t_page#0"].log_level == 50, "the highest level does not change"

    def test_reviews_of_chosen_records_and_up_to_a_record_add_up(self, said: Steps, storage: Storage) -> None:
        """Promise 6: they add up in either order. A record may be covered twice, and a number that does not exist is ignored."""
        said.resolve_logs("t_page#0", ME, records=[4, 99, 0, -1])
        said.resolve_logs("t_page#0", ME, through=2)
        assert _resolved(storage, said) == [1, 2, 4]
        assert said["t_page#0"].log_unresolved == 30
        said.resolve_logs("t_page#0", ME, records=[1, 5])
        assert _resolved(storage, said) == [1, 2, 4, 5]
        assert said["t_page#0"].log_unresolved == 0
        said.keep_logs(page_attempt(0), batch(*(entry() for _ in range(6))))
        assert _resolved(storage, said) == [1, 2, 4, 5], "a record that comes later was not chosen before"

    def test_a_later_record_needs_another_review(self, said: Steps, storage: Storage) -> None:
        """Promise 6: that is so after a review of all records and after one of chosen records. Records below the threshold need none."""
        said.resolve_logs("t_page#0", ME)
        said.keep_logs(page_attempt(0), batch(entry(level=20)))
        assert said["t_page#0"].log_unresolved == 0
        said.keep_logs(page_attempt(0), batch(entry(level=30)))
        assert said["t_page#0"].log_unresolved == 30
        said.resolve_logs("t_page#0", ME, records=[7])
        assert said["t_page#0"].log_unresolved == 0
        said.keep_logs(page_attempt(0), batch(entry(level=40)))
        assert said["t_page#0"].log_unresolved == 40
        assert _numbers(_all(storage, said, unresolved=True)) == [6, 8]
        assert [each.number for each in storage.reader.instances(said.uid, flagged=30)] == [0]

    def test_a_record_that_does_not_count_needs_no_review(self, steps: Steps, storage: Storage) -> None:
        """Promise 6: that is so at any level, after a partial review, and after reopening."""
        start_pages(steps, 1)
        captured = replace(entry(level=50), counts=False)
        said = [captured, entry(level=30), captured, entry(level=40)]
        steps.keep_logs(page_attempt(0), batch(*said, counts={30: 1, 40: 1}))
        assert entries(storage, steps) == said
        assert _numbers(_all(storage, steps, unresolved=True)) == [2, 4]
        steps.resolve_logs("t_page#0", ME, records=[4])
        assert steps["t_page#0"].log_unresolved == 30
        steps.reopen_logs("t_page#0", ME)
        assert steps["t_page#0"].log_unresolved == 40
        steps.resolve_logs("t_page#0", ME, through=1)
        assert steps["t_page#0"].log_unresolved == 40

    def test_reviews_can_be_undone(self, said: Steps, storage: Storage) -> None:
        """Promise 6: reopening undoes all reviews of the instance, and its highest level is unresolved again."""
        said.resolve_logs("t_page#0", ME, through=3)
        said.resolve_logs("t_page#0", ME, records=[5])
        said.reopen_logs("t_page#0", {"by": "another", "reason": "look again"})
        assert _resolved(storage, said) == []
        instance = said["t_page#0"]
        assert (instance.log_unresolved, instance.log_resolved, instance.log_chosen) == (50, 0, ())
        said.resolve_logs("t_page#0", ME)
        assert said["t_page#0"].log_unresolved == 0

    def test_the_audit_has_every_review_in_order(self, said: Steps, storage: Storage) -> None:
        """Promise 6: each entry says who, why, when, with which outcome, which records, and the level before."""
        said.resolve_logs("t_page#0", ME, records=[4, 1])
        said.resolve_logs("t_page#0", ME, through=99)
        said.reopen_logs("t_page#0", {"by": None, "reason": None})
        at = storage.now()
        assert decode(said["t_page#0"].log_audit) == [
            {"outcome": "resolved", **ME, "records": [1, 4], "at": at, "level": 50},
            {"outcome": "resolved", **ME, "through": 5, "at": at, "level": 30},
            {"outcome": "reopened", "by": None, "reason": None, "at": at, "level": 0},
        ]

    def test_records_are_found_by_their_fingerprint(self, steps: Steps, storage: Storage) -> None:
        """Promise 6: records with the same logger, level, template and type of exception have one fingerprint. Arguments and contexts do not matter."""
        start_pages(steps, 2)
        missing = replace(entry("Missing a", context={"n": 1}), template="Missing %s")
        failed = {"type": "E", "qualified_type": "app.E", "message": "1"}
        kinds = [
            missing,
            replace(missing, level=40),
            replace(missing, logger="other"),
            replace(missing, template="Missing %r"),
            replace(missing, exception=failed),
            replace(missing, exception={**failed, "qualified_type": "lib.E"}),
        ]
        steps.keep_logs(page_attempt(0), batch(*kinds))
        again = [replace(missing, message="Missing b", context={}, at=missing.at + 5, lineno=99, late=True)]
        again.append(replace(kinds[4], exception={**failed, "message": "2"}))
        steps.keep_logs(page_attempt(1), batch(*again))
        assert len({fingerprint(kind) for kind in kinds}) == len(kinds)
        reader, uid = storage.reader, steps.uid
        found = [
            [(each.instance, each.number) for each in reader.logs(uid, fingerprint=fingerprint(kind))]
            for kind in kinds
        ]
        assert found == [[(0, 1), (1, 1)], [(0, 2)], [(0, 3)], [(0, 4)], [(0, 5), (1, 2)], [(0, 6)]]
        assert {each.fingerprint for each in reader.logs(uid, fingerprint=fingerprint(missing))} == {
            fingerprint(missing)
        }
        assert reader.logs(uid, fingerprint="") == []
        assert len(_all(storage, steps, fingerprint=fingerprint(missing), instance=("t_page", 1))) == 1
        steps.resolve_logs("t_page#0", ME, records=[1])
        left = reader.logs(uid, fingerprint=fingerprint(missing), unresolved=True)
        assert [each.instance for each in left] == [1]

    def test_the_latest_records_are_returned_in_order(self, said: Steps, storage: Storage) -> None:
        """Promise 6: with `latest`, the last records that match the filters and come after the cursor are returned, up to the limit."""

        def latest(limit: int, **query: Any) -> list[int]:
            found = storage.reader.logs(said.uid, latest=True, limit=limit, **query)
            return [record.number for record in found]

        assert latest(2) == [4, 5]
        assert latest(5) == latest(100) == [1, 2, 3, 4, 5]
        assert latest(2, min_level=40) == [1, 4]
        assert latest(1, text="AT 30") == [5]
        first = storage.reader.logs(said.uid, limit=1)[0]
        assert latest(100, after=first.cursor) == [2, 3, 4, 5]
        assert latest(100, instance=("t_page", 7)) == []
        assert storage.reader.logs("nobody", latest=True) == []
        last = storage.reader.logs(said.uid, latest=True, limit=1)[0]
        assert storage.reader.logs(said.uid, after=last.cursor) == []
        said.keep_logs(page_attempt(0), batch(entry("next")))
        assert [each.message for each in storage.reader.logs(said.uid, after=last.cursor)] == ["next"]

    def test_concurrent_reviews_add_up(self, place: StorageSandbox) -> None:
        """Promise 2: if many people review one instance, all records that they chose are covered, and the audit has each review."""
        handles = [place.open() for _ in range(6)]
        steps = Steps(handles[0])
        start_pages(steps, 1)
        steps.keep_logs(page_attempt(0), batch(*(entry() for _ in handles)))

        def review(number: int, handle: Storage) -> None:
            Steps(handle).resolve_logs("t_page#0", {"by": str(number)}, records=[number])

        at_once([partial(review, number, handle) for number, handle in enumerate(handles, 1)])
        assert _resolved(handles[0], steps) == [1, 2, 3, 4, 5, 6]
        assert steps["t_page#0"].log_unresolved == 0
        assert sorted(each["by"] for each in decode(steps["t_page#0"].log_audit)) == list("123456")

    def test_a_record_during_a_review_is_covered_or_unresolved(self, place: StorageSandbox) -> None:
        """Promise 2: an instance needs a review if and only if one of its records does."""
        saying, reviewing = place.open(), place.open()
        steps = Steps(saying)
        start_pages(steps, 1)

        def say() -> None:
            for _ in range(20):
                steps.keep_logs(page_attempt(0), batch(entry()))

        def review() -> None:
            for _ in range(10):
                other = Steps(reviewing)
                other.resolve_logs("t_page#0", ME)
                instance = other["t_page#0"]
                opened = instance.log_count > instance.log_resolved
                assert instance.log_unresolved == (30 if opened else 0)

        at_once([say, review])
        instance = steps["t_page#0"]
        assert _resolved(saying, steps) == list(range(1, instance.log_resolved + 1))
        assert instance.log_count == 20

    def test_the_last_of_concurrent_reviews_finalizes_the_session_once(self, place: StorageSandbox) -> None:
        """Promise 2: if many instances are reviewed at the same time, exactly one review fires the finalizing trigger, in its own commit."""
        policy = Policy(finalizing=Finalizing("end", max_level=30))
        handles = [place.open() for _ in range(5)]
        steps = Steps(handles[0], policy=policy)
        start_pages(steps, len(handles))
        for n in range(len(handles)):
            steps.finish(replace(page_attempt(n), logs=batch(entry())))
        assert steps.head.finalized is None

        def review(number: int, handle: Storage) -> list[str]:
            changes = Steps(handle, policy=policy).resolve_logs(f"t_page#{number}", ME)
            return [firing.trigger for firing in changes.fired]

        fired = at_once([partial(review, number, handle) for number, handle in enumerate(handles)])
        assert sorted(fired) == [[], [], [], [], ["end"]]
        assert steps.firings()[-1].number == steps.head.finalized

    def test_any_sequence_of_reviews_adds_up(self, storage: Storage) -> None:
        """Promise 6: after any sequence of records, reviews and reopenings, exactly the records that no review covers are unresolved."""
        uids = itertools.count()

        @given(turns=st.lists(TURNS, max_size=12))
        def check(turns: list[tuple[str, Any]]) -> None:
            steps = Steps(storage, f"session {next(uids)}")
            start_pages(steps, 1)
            said: list[int] = []
            covered: set[int] = set()
            for what, told in turns:
                _take_turn(steps, said, covered, what, told)
                everything = range(1, len(said) + 1)
                assert _resolved(storage, steps) == [n for n in everything if n in covered]
                left = [said[n - 1] for n in everything if n not in covered and said[n - 1] >= 30]
                assert steps["t_page#0"].log_unresolved == max(left, default=0)
                assert steps["t_page#0"].log_level == max(said, default=0)

        check()


def _take_turn(steps: Steps, said: list[int], covered: set[int], what: str, given: Any) -> None:
    """Take the step, and note which records exist and which of them are covered."""
    if what == "say":
        steps.keep_logs(page_attempt(0), batch(*(entry(level=level) for level in given)))
        said += given
    elif what == "through":
        steps.resolve_logs("t_page#0", ME, through=given)
        covered |= set(range(1, (len(said) if given is None else min(given, len(said))) + 1))
    elif what == "records":
        steps.resolve_logs("t_page#0", ME, records=given)
        covered |= given & set(range(1, len(said) + 1))
    else:
        steps.reopen_logs("t_page#0", ME)
        covered.clear()


def _all(storage: Storage, steps: Steps, **query: Any) -> list[StoredRecord]:
    """All records that match, read in pages of one record."""
    found: list[StoredRecord] = []
    while page := storage.reader.logs(steps.uid, after=found[-1].cursor if found else 0, limit=1, **query):
        found += page
    return found


def _numbers(records: list[StoredRecord]) -> list[int]:
    return [record.number for record in records]


def _resolved(storage: Storage, steps: Steps) -> list[int]:
    """The numbers of the resolved records. Assert that the filter and the records agree on them."""
    found = [record.number for record in storage.reader.logs(steps.uid) if record.resolved]
    assert _numbers(_all(storage, steps, unresolved=False)) == found
    return found
