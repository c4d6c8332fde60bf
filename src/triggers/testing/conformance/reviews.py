# ruff: noqa: E501, S101, PLR2004 - as in tests: sentences stand on one line, tests assert, numbers are what the test says
"""Reviews: of records, of kinds of records, and their being taken back."""

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

#: Something is said, at these levels; or reviewed, up to a record or some of them; or reviews are taken back.
TURNS = st.one_of(
    st.tuples(st.just("say"), st.lists(st.sampled_from([10, 20, 29, 30, 40, 50]), min_size=1, max_size=4)),
    st.tuples(st.just("through"), st.none() | st.integers(0, 12)),
    st.tuples(st.just("records"), st.frozensets(st.integers(-1, 12), max_size=4)),
    st.tuples(st.just("reopen"), st.none()),
)

ME = {"by": "a person", "reason": "seen"}


class Reviews(StorageFixtures):
    """Promises 2 and 6, for what a person has reviewed, and what is left."""

    @pytest.fixture
    def said(self, steps: Steps) -> Steps:
        """Steps on a session whose t_page#0 runs and has said, in this order, records of these levels."""
        start_pages(steps, 1)
        steps.keep_logs(page_attempt(0), batch(*(entry(f"at {n}", level=n) for n in (50, 30, 20, 40, 30))))
        return steps

    def test_chosen_records_are_covered_and_the_rest_asks_on(self, said: Steps, storage: Storage) -> None:
        """Promise 6: the level is that of what is left, from the threshold on, and each record knows its state."""
        said.resolve_logs("t_page#0", ME, records=[1, 3])
        assert _resolved(storage, said) == [1, 3]
        assert said["t_page#0"].log_unresolved == 40
        said.resolve_logs("t_page#0", ME, records=[4])
        assert said["t_page#0"].log_unresolved == 30
        said.resolve_logs("t_page#0", ME, records={5, 2})
        assert said["t_page#0"].log_unresolved == 0
        assert _resolved(storage, said) == [1, 2, 3, 4, 5]
        assert said["t_page#0"].log_level == 50, "what was said stays said"

    def test_what_is_chosen_and_what_lies_below_the_mark_add_up(self, said: Steps, storage: Storage) -> None:
        """Promise 6: in either order; a record may be covered twice, and one that does not exist changes nothing."""
        said.resolve_logs("t_page#0", ME, records=[4, 99, 0, -1])
        said.resolve_logs("t_page#0", ME, through=2)
        assert _resolved(storage, said) == [1, 2, 4]
        assert said["t_page#0"].log_unresolved == 30
        said.resolve_logs("t_page#0", ME, records=[1, 5])
        assert _resolved(storage, said) == [1, 2, 4, 5]
        assert said["t_page#0"].log_unresolved == 0
        said.keep_logs(page_attempt(0), batch(*(entry() for _ in range(6))))
        assert _resolved(storage, said) == [1, 2, 4, 5], "nothing that comes later was chosen before"

    def test_a_record_that_comes_later_asks_anew(self, said: Steps, storage: Storage) -> None:
        """Promise 6: after a whole review and after one of chosen records; small talk asks for nothing."""
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

    def test_a_record_that_does_not_count_asks_for_nothing(self, steps: Steps, storage: Storage) -> None:
        """Promise 6: whatever its level; after a review of a part and after reopening, too."""
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

    def test_a_review_can_be_taken_back(self, said: Steps, storage: Storage) -> None:
        """Promise 6: all reviews of the instance are, and it asks with the highest level that it ever had."""
        said.resolve_logs("t_page#0", ME, through=3)
        said.resolve_logs("t_page#0", ME, records=[5])
        said.reopen_logs("t_page#0", {"by": "another", "reason": "look again"})
        assert _resolved(storage, said) == []
        instance = said["t_page#0"]
        assert (instance.log_unresolved, instance.log_resolved, instance.log_chosen) == (50, 0, ())
        said.resolve_logs("t_page#0", ME)
        assert said["t_page#0"].log_unresolved == 0

    def test_the_audit_tells_every_review_in_order(self, said: Steps, storage: Storage) -> None:
        """Promise 6: who, why, when, what came of it, of which records, and from which level."""
        said.resolve_logs("t_page#0", ME, records=[4, 1])
        said.resolve_logs("t_page#0", ME, through=99)
        said.reopen_logs("t_page#0", {"by": None, "reason": None})
        at = storage.now()
        assert decode(said["t_page#0"].log_audit) == [
            {"outcome": "resolved", **ME, "records": [1, 4], "at": at, "level": 50},
            {"outcome": "resolved", **ME, "through": 5, "at": at, "level": 30},
            {"outcome": "reopened", "by": None, "reason": None, "at": at, "level": 0},
        ]

    def test_records_are_found_by_their_kind(self, steps: Steps, storage: Storage) -> None:
        """Promise 6: same logger, level, template and type of exception; arguments and contexts do not count."""
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

    def test_the_latest_records_come_in_their_order(self, said: Steps, storage: Storage) -> None:
        """Promise 6: the last ones that the filters let through, up to the limit, beyond the cursor."""

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

    def test_reviews_at_the_same_time_add_up(self, place: StorageSandbox) -> None:
        """Promise 2: of one instance, by many people: all that they have chosen is covered, and each is in the audit."""
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

    def test_a_warning_beside_a_review_is_covered_or_open(self, place: StorageSandbox) -> None:
        """Promise 2: never neither: the instance asks for a review just if one of its records does."""
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

    def test_the_last_of_many_reviews_ends_the_session_once(self, place: StorageSandbox) -> None:
        """Promise 2: of many instances, at the same time: one of the reviews fires the end, in its own commit."""
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
        """Promise 6: whatever is said, reviewed and taken back, in any order, exactly what no review covers is open."""
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
    """Do it, and keep what the records are, and which of them reviews cover."""
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
    """Page by page, each of one record."""
    found: list[StoredRecord] = []
    while page := storage.reader.logs(steps.uid, after=found[-1].cursor if found else 0, limit=1, **query):
        found += page
    return found


def _numbers(records: list[StoredRecord]) -> list[int]:
    return [record.number for record in records]


def _resolved(storage: Storage, steps: Steps) -> list[int]:
    """The numbers of the records that a review covers; a filter and the records themselves agree on them."""
    found = [record.number for record in storage.reader.logs(steps.uid) if record.resolved]
    assert _numbers(_all(storage, steps, unresolved=False)) == found
    return found
