# ruff: noqa: E501, S101, PLR2004 - as in tests: docstrings have one line, assert is used, numbers are expected values
"""Purges: old records are removed, except those that need a review."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from triggers.core.terms import RetryTerms
from triggers.storages.base import Purge
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

#: The time of the records in these tests, unless it matters.
SAID = entry().at

#: Removes records of every level, except those that need a review.
EVERYTHING = Purge(SAID + 1, max_level=100, threshold=30, contexts_only=False, dry_run=False)
CONTEXTS = EVERYTHING._replace(contexts_only=True)

ME = {"by": "a person", "reason": "seen"}


class Purges(StorageFixtures):
    """Tests of promise 6 for purges: old records are removed, except those that need a review."""

    def test_old_records_are_removed(self, steps: Steps, storage: Storage) -> None:
        """Promise 6: only records before the time and up to the level are removed. Counts and levels do not change."""
        start_pages(steps, 1)
        ages = [replace(entry(str(n), level=n), at=SAID + n) for n in (10, 20, 25, 20)]
        steps.keep_logs(page_attempt(0), batch(*ages))
        before = steps["t_page#0"]
        purge = EVERYTHING._replace(before=SAID + 25, max_level=15)
        assert storage.purge_logs(purge) == (1, None)
        assert _texts(storage, steps) == ["20", "25", "20"]
        assert storage.purge_logs(purge._replace(max_level=20)) == (2, None)
        assert storage.purge_logs(purge._replace(before=SAID + 25, max_level=100)) == (0, None), "not before"
        assert _texts(storage, steps) == ["25"]
        assert steps["t_page#0"] == before

    def test_records_that_need_a_review_are_kept(self, steps: Steps, storage: Storage) -> None:
        """Promise 6: at or above the threshold only reviewed records are removed, whether a review covered all up to a record or chosen ones."""
        start_pages(steps, 1)
        steps.keep_logs(page_attempt(0), batch(*(entry(str(n), level=n) for n in (30, 31, 20, 40, 50))))
        steps.resolve_logs("t_page#0", ME, through=1)
        steps.resolve_logs("t_page#0", ME, records=[4])
        assert storage.purge_logs(CONTEXTS).taken == 0, "there are no contexts"
        assert storage.purge_logs(EVERYTHING).taken == 3
        assert _texts(storage, steps) == ["31", "50"]
        assert steps["t_page#0"].log_unresolved == 50
        steps.resolve_logs("t_page#0", ME, records=[5])
        assert steps["t_page#0"].log_unresolved == 31
        steps.resolve_logs("t_page#0", ME)
        assert storage.purge_logs(EVERYTHING).taken == 2
        assert storage.reader.logs(steps.uid) == []

    def test_the_threshold_of_the_session_counts(self, storage: Storage) -> None:
        """Promise 6: whether a record needs a review depends on the threshold of its own manager, not on that of the purge."""
        strict = Steps(storage, "strict", replace(Steps(storage).policy, threshold=20))
        easy = Steps(storage, "easy", replace(strict.policy, threshold=40))
        for steps in (strict, easy):
            start_pages(steps, 1)
        strict.keep_logs(page_attempt(0), batch(entry("open", level=20), entry("debug", level=10)))
        easy.keep_logs(page_attempt(0), batch(entry("below", level=30)))
        assert storage.purge_logs(EVERYTHING).taken == 2
        assert (_texts(storage, strict), _texts(storage, easy)) == (["open"], [])

    def test_records_of_replayed_and_skipped_instances_are_removed(
        self, steps: Steps, storage: Storage
    ) -> None:
        """Promise 6: records of instances that were replayed or skipped need no review; those of failed, finished and running instances do."""
        start_pages(steps, 6)
        for n in range(6):
            steps.keep_logs(page_attempt(n), batch(entry(str(n), level=40)))
        steps.fail(page_attempt(0))
        steps.replay("t_page#0")
        steps.fail(page_attempt(1), retry=RetryTerms(cooldown=0, limit=9, exhausted="{}"))
        steps.fail(page_attempt(2))
        steps.skip("t_page#2")
        steps.fail(page_attempt(3))
        steps.finish(page_attempt(4))
        assert storage.purge_logs(EVERYTHING._replace(dry_run=True)).taken == 3
        assert storage.purge_logs(EVERYTHING).taken == 3
        assert _texts(storage, steps) == ["3", "4", "5"]

    def test_records_that_do_not_count_are_removed(self, steps: Steps, storage: Storage) -> None:
        """Promise 6: a record that does not count is removed at any level, and records that need a review are kept."""
        start_pages(steps, 1)
        said = [replace(entry("captured", level=50), counts=False), entry("open")]
        steps.keep_logs(page_attempt(0), batch(*said, counts={30: 1}))
        assert storage.purge_logs(EVERYTHING).taken == 1
        assert _texts(storage, steps) == ["open"]

    def test_contexts_can_be_removed_before_messages(self, steps: Steps, storage: Storage) -> None:
        """Promise 6: the contexts of records and of their exceptions, causes and members are removed, and nothing else."""
        start_pages(steps, 1)
        kept = entry("kept", level=20, page=7)
        cause = {"type": "K", "message": "k", "context": {"a": 1}, "notes": ['"context": x'], "members": []}
        own = {"type": "E", "message": "e", "context": {"deep": {"context": 1}}}
        tree = {**own, "traceback": "...", "cause": cause, "members": [cause]}
        inner = {"type": "E", "context": {}, "cause": cause, "context_exception": None}
        bare = entry("bare", level=20)
        said = [replace(kept, exception=tree), kept, replace(bare, exception=inner), bare]
        steps.keep_logs(page_attempt(0), batch(*said))
        assert storage.purge_logs(CONTEXTS._replace(dry_run=True)).taken == 3
        assert storage.purge_logs(CONTEXTS).taken == 3
        less = {**cause, "context": {}}
        assert entries(storage, steps) == [
            replace(kept, context={}, exception={**tree, "context": {}, "cause": less, "members": [less]}),
            replace(kept, context={}),
            replace(bare, exception={**inner, "cause": less}),
            bare,
        ]
        assert storage.purge_logs(CONTEXTS).taken == 0, "no contexts are left"

    def test_contexts_of_records_that_need_a_review_are_kept(self, steps: Steps, storage: Storage) -> None:
        """Promise 6: a person who reviews a record needs its context."""
        start_pages(steps, 1)
        steps.keep_logs(page_attempt(0), batch(entry("open", page=1), entry("debug", level=20, page=2)))
        assert storage.purge_logs(CONTEXTS).taken == 1
        assert [dict(each.context) for each in entries(storage, steps)] == [{"page": 1}, {}]

    def test_a_dry_run_only_counts(self, steps: Steps, storage: Storage) -> None:
        """Promise 1: a dry run returns how many records the purge would change, and changes nothing."""
        start_pages(steps, 1)
        steps.keep_logs(page_attempt(0), batch(*(entry(level=20, n=n) for n in range(5))))
        before = storage.reader.logs(steps.uid)
        for purge in (EVERYTHING, CONTEXTS):
            assert storage.purge_logs(purge._replace(dry_run=True)) == (5, None)
        assert storage.reader.logs(steps.uid) == before

    def test_a_purge_covers_all_sessions_in_batches(self, storage: Storage) -> None:
        """Promise 5: each call handles up to its limit of records and returns where the next call begins. Each record is handled once."""
        for uid in ("one", "two", "three"):
            steps = Steps(storage, uid)
            start_pages(steps, 1)
            steps.keep_logs(page_attempt(0), batch(*(entry(level=n, n=1) for n in (20, 30, 20))))
        for purge in (EVERYTHING._replace(dry_run=True), CONTEXTS, EVERYTHING):
            taken, after = [], 0
            while True:
                done = storage.purge_logs(purge, after=after, limit=2)
                taken.append(done.taken)
                if done.after is None:
                    break
                assert done.after > after
                after = done.after
            assert taken == [2, 2, 2, 0]
        for uid in ("one", "two", "three"):
            assert [each.level for each in storage.reader.logs(uid)] == [30]

    def test_a_reader_that_follows_a_log_misses_nothing(self, place: StorageSandbox) -> None:
        """Promise 6: while others write and purge, a reader gets each record once, in the order of the cursors."""
        first, second, reading = place.open(), place.open(), place.open()
        start_pages(Steps(first), 2)
        running = [0, 1]
        seen: list[StoredRecord] = []

        def write(number: int, handle: Storage) -> None:
            for n in range(15):
                steps = Steps(handle)
                steps.keep_logs(page_attempt(number), batch(entry(f"{n}", level=20), entry(f"{n}", level=30)))
            running.remove(number)

        def follow() -> None:
            more = True
            while more or running:
                more = bool(running)
                while page := reading.reader.logs(
                    "session", min_level=30, after=seen[-1].cursor if seen else 0, limit=4
                ):
                    seen.extend(page)
                reading.purge_logs(EVERYTHING)

        at_once([lambda: write(0, first), lambda: write(1, second), follow])
        for number in (0, 1):
            assert [each.message for each in seen if each.instance == number] == [str(n) for n in range(15)]
        assert [each.cursor for each in seen] == sorted({each.cursor for each in seen})
        assert {each.level for each in reading.reader.logs("session", limit=1_000)} == {30}

    def test_a_cursor_outlives_its_record(self, steps: Steps, storage: Storage) -> None:
        """Promise 6: a reader that follows a log misses nothing and gets nothing twice, even if the whole log was purged."""
        start_pages(steps, 1)
        steps.keep_logs(page_attempt(0), batch(*(entry(str(n), level=20) for n in range(3))))
        middle = storage.reader.logs(steps.uid)[1].cursor
        last = storage.reader.logs(steps.uid)[2].cursor
        assert storage.purge_logs(EVERYTHING).taken == 3
        steps.keep_logs(page_attempt(0), batch(entry("next", level=20)))
        for cursor in (middle, last):
            assert [each.message for each in storage.reader.logs(steps.uid, after=cursor)] == ["next"]
        (record,) = storage.reader.logs(steps.uid)
        assert record.cursor > last
        assert record.number == 4, "the numbers of an instance continue as well"


def _texts(storage: Storage, steps: Steps) -> list[str]:
    return [each.message for each in entries(storage, steps)]
