# ruff: noqa: E501, S101, PLR2004 - as in tests: docstrings have one line, assert is used, numbers are expected values
"""Reads: pages, filters and order; and the log of a session."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

from triggers.core.status import RESOLVED, Status
from triggers.core.terms import AttemptReport, Policy
from triggers.core.values import decode
from triggers.testing.conformance.fixtures import NAMES, StorageFixtures, batch, entry
from triggers.testing.conformance.steps import LEASE, Steps

if TYPE_CHECKING:
    from triggers.core.state import Instance
    from triggers.storages.base import Reader, Storage, StoredRecord
    from triggers.testing.conformance.sandbox import StorageSandbox

#: With this configuration a task gets twelve instances, so that #10 must come after #9, and other tasks get one each.
MANY: dict[str, Any] = {
    "t_page": {"andEvery": "page", "run": "page"},
    "t_Page": {"andEvery": "other", "run": "page"},
    "t_wait": {"after": ["page", "never"], "run": "wait"},
    "t_veto": {"after": ["never"], "unless": ["page"], "run": "veto"},
}


class Reads(StorageFixtures):
    """Tests of promise 6 for reads. Every read that can be long is paged."""

    @pytest.fixture
    def many(self, steps: Steps) -> Steps:
        """Steps on a session with an instance in every status."""
        steps.configure(MANY)
        for n in range(12):
            steps.fire("page", {"n": n})
        steps.fire("other")
        steps.run("t_page#0", {"ok": True})
        steps.fail(steps.start("t_page#1"))
        steps.fail(steps.start("t_page#2"))
        steps.replay("t_page#2")
        steps.skip_running(steps.start("t_page#3"))
        steps.start("t_page#4")
        return steps

    def test_a_session_that_does_not_exist_reads_as_empty(self, storage: Storage) -> None:
        """Promise 6: every read of an unknown session returns nothing, and creates nothing."""
        reader = storage.reader
        assert reader.sessions() == []
        assert reader.session("x") is None
        assert reader.instance("x", "t", 0) is None
        empty = [
            reader.instances("x"),
            reader.firings("x"),
            reader.logs("x"),
            reader.firings("x", numbers=[1]),
        ]
        assert empty == [[], [], [], []]
        assert [reader.counters("x"), reader.latest("x", ["a"])] == [{}, {}]
        assert reader.sessions() == []

    def test_sessions_are_paged_in_the_order_of_their_uids(self, storage: Storage) -> None:
        """Promise 6: UIDs are ordered by code point, regardless of case and language. Each page continues where the last one ended."""
        for uid in NAMES:
            Steps(storage, uid).fire("a")
        found: list[str] = []
        while page := storage.reader.sessions(found[-1] if found else "", limit=7):
            assert len(page) <= 7
            found += [session.uid for session in page]
        assert found == sorted(NAMES)

    def test_a_page_of_sessions_shows_their_heads(self, many: Steps, storage: Storage) -> None:
        """Promise 6: a page of sessions shows the same heads as reading each session alone."""
        Steps(storage, "another", Policy(manager="m")).fire("a")
        heads = storage.reader.sessions()
        assert [(head.uid, head.manager, head.firings) for head in heads] == [
            ("another", "m", 1),
            ("session", "default", 14),
        ]
        assert heads[1].rules == many.head.rules
        assert heads[1].rules.rules.keys() == MANY.keys()
        assert heads[1].pending == many.head.pending == 3

    def test_instances_are_paged_in_the_order_of_task_and_number(self, many: Steps) -> None:
        """Promise 6: every instance is on exactly one page, and number 10 comes after 9, for every page size."""
        expected = [("t_Page", 0), *(("t_page", n) for n in range(13)), ("t_veto", 0), ("t_wait", 0)]
        for size in (1, 3, 16, 100):
            assert [(each.task, each.number) for each in many.instances(page=size)] == expected

    def test_instances_are_found_by_task_and_status(self, many: Steps, storage: Storage) -> None:
        """Promise 6: only instances of the task and in one of the statuses are returned, page by page."""
        everything = many.instances()
        for task in (None, "t_page", "t_Page", "t_nobody"):
            for statuses in (
                None,
                *({status} for status in Status),
                RESOLVED,
                {Status.FAILED, Status.FINISHED},
                set(),
            ):
                expected = [
                    each
                    for each in everything
                    if (task is None or each.task == task) and (statuses is None or each.status in statuses)
                ]
                found: list[Instance] = []
                while page := storage.reader.instances(
                    many.uid,
                    task=task,
                    statuses=statuses,
                    after=(found[-1].task, found[-1].number) if found else ("", -1),
                    limit=4,
                ):
                    assert len(page) <= 4
                    found += page
                assert found == expected
        assert {each.status for each in everything} == set(Status)

    def test_counters_count_instances(self, many: Steps, storage: Storage) -> None:
        """Promise 6: for each task, the counters say how many instances were created and how many are not resolved."""
        counters = storage.reader.counters(many.uid)
        found = {task: (counter.created, counter.unresolved) for task, counter in counters.items()}
        assert found == {"t_page": (13, 10), "t_Page": (1, 1), "t_wait": (1, 1), "t_veto": (1, 0)}

    def test_firings_are_paged_in_order(self, many: Steps, storage: Storage) -> None:
        """Promise 6: the firings after a number, or those with the given numbers, are returned once each. Unknown numbers are ignored."""
        everything = many.firings()
        assert [firing.number for firing in everything] == list(range(1, 15))
        for size in (1, 4, 14, 100):
            assert many.firings(page=size) == everything
        reader = storage.reader
        assert reader.firings(many.uid, numbers=[9, 2, 2, 99, 0, -1]) == [everything[1], everything[8]]
        assert reader.firings(many.uid, numbers=[]) == []
        assert reader.firings(many.uid, after=14) == []
        assert len(reader.firings(many.uid, numbers=range(1, 15), limit=3)) == 14, "numbers are not paged"

    def test_firings_keep_their_source(self, many: Steps) -> None:
        """Promise 6: a cascade has the instance that ended and its depth. A firing keeps its key."""
        many.fire("page", {"n": 99}, key="k")
        *_, cascade, keyed = many.firings()
        assert (cascade.trigger, cascade.source, cascade.depth) == ("t_page", "t_page#0", 1)
        assert (keyed.trigger, keyed.source, keyed.depth, keyed.key) == ("page", "", 0, "k")
        assert decode(cascade.kwargs) == {"ok": True}
        assert many["t_page#0"].result == cascade.number

    def test_the_latest_firing_of_each_trigger_is_found(self, many: Steps, storage: Storage) -> None:
        """Promise 6: the latest firing of each requested trigger that has fired is returned."""
        latest = storage.reader.latest(many.uid, ["page", "t_page", "never", "other"])
        assert {trigger: firing.number for trigger, firing in latest.items()} == {
            "page": 12,
            "other": 13,
            "t_page": 14,
        }
        assert decode(latest["page"].kwargs) == {"n": 11}
        assert storage.reader.latest(many.uid, []) == {}

    def test_changing_an_object_that_was_read_changes_nothing(self, many: Steps, storage: Storage) -> None:
        """Promise 1: only commits change what is stored, not changes to objects that were read."""
        before = many["t_page#0"]
        read = many["t_page#0"]
        read.status = Status.FAILED
        read.taken["page"] = 99
        read.log_counts[50] = 1
        head = many.head
        head.firings = 0
        storage.reader.counters(many.uid)["t_page"].created = 0
        assert many["t_page#0"] == before
        assert many.head.firings == 14
        assert storage.reader.counters(many.uid)["t_page"].created == 13

    def test_a_history_has_each_change_of_status(self, many: Steps) -> None:
        """Promise 6: each change of status is a line of the history, with its time."""
        lines = many["t_page#0"].history.splitlines()
        assert [line.split()[1] for line in lines] == ["unstarted", "scheduled", "running", "finished"]
        assert {int(line.split()[0]) for line in lines} == {many.storage.now()}
        assert many["t_page#12"].history.split(maxsplit=1)[1].strip() == "scheduled replays t_page#2"


class Logs(StorageFixtures):
    """Tests of promise 6 for log records and their reviews."""

    @pytest.fixture
    def running(self, steps: Steps) -> Steps:
        """Steps on a session with two running instances, t_page#0 and t_page#1."""
        steps.configure({"t_page": {"andEvery": "page", "run": "page"}})
        steps.fire("page")
        steps.fire("page")
        steps.start("t_page#0")
        steps.start("t_page#1")
        return steps

    def test_a_record_is_read_as_it_was_stored(self, running: Steps, storage: Storage) -> None:
        """Promise 6: every field is read as it was stored, with values of all types in the context and the exception."""
        said = entry(
            "It\N{RIGHT SINGLE QUOTATION MARK}s 100 % \x00\x1b[31m; \N{PILE OF POO}",
            level=35,
            seq=4,
            when=datetime(2026, 1, 2, tzinfo=UTC),
            raw=b"\x00\xff",
            deep={"$date": [None, 1.5]},
        )
        said = replace(
            said,
            exception={"type": "ValueError", "message": "bad", "cause": {"type": "KeyError", "members": []}},
            truncated=("context.page", "message"),
            late=True,
        )
        running.keep_logs(_attempt(0), batch(said))
        (record,) = storage.reader.logs(running.uid)
        assert record.entry == said
        assert (record.task, record.instance, record.number) == ("t_page", 0, 1)
        assert (record.fence, record.attempt, record.resolved) == (1, 1, False)

    def test_records_are_paged_in_the_order_in_which_they_were_stored(
        self, running: Steps, storage: Storage
    ) -> None:
        """Promise 6: each record is on exactly one page, in the order of the commits, with numbers that count for each instance."""
        for n in range(5):
            running.keep_logs(
                _attempt(n % 2), batch(entry(f"{n}a", seq=2 * n + 1), entry(f"{n}b", seq=2 * n + 2))
            )
        expected = [f"{n}{letter}" for n in range(5) for letter in "ab"]
        for size in (1, 3, 10, 100):
            found = _pages(storage.reader, running.uid, size)
            assert [record.entry.message for record in found] == expected
            assert [record.cursor for record in found] == sorted({record.cursor for record in found})
        own = _pages(storage.reader, running.uid, 2, instance=("t_page", 1))
        assert [record.entry.message for record in own] == ["1a", "1b", "3a", "3b"]
        assert [record.number for record in own] == [1, 2, 3, 4]
        assert _pages(storage.reader, running.uid, 2, instance=("t_page", 9)) == []

    def test_records_are_found_by_level_text_and_review(self, running: Steps, storage: Storage) -> None:
        """Promise 6: filters can be combined, and cursors work with every filter."""
        texts = [
            "Page missing",
            "page MISSING",
            "100 %",
            "a_b",
            "\N{LATIN CAPITAL LETTER A WITH DIAERESIS}rger",
            "x' OR 1=1",
        ]
        for n, text in enumerate(texts):
            running.keep_logs(_attempt(n % 2), batch(entry(text, level=10 * (n + 1))))
        running.resolve_logs("t_page#0", {"by": "a person"})
        reader, uid = storage.reader, running.uid

        def found(**query: Any) -> list[int]:
            return [texts.index(record.entry.message) for record in _pages(reader, uid, 1, **query)]

        assert found(min_level=30) == [2, 3, 4, 5]
        assert found(text="missing") == [0, 1]
        assert found(text="MISSING", min_level=15) == [1]
        assert found(text="%") == [2]
        assert found(text="_") == [3]
        assert found(text="' OR") == [5]
        assert found(text="\N{LATIN CAPITAL LETTER A WITH DIAERESIS}RGER") == [4]
        assert found(text="\N{LATIN SMALL LETTER A WITH DIAERESIS}rger") == [], (
            "only ASCII letters match regardless of case"
        )
        assert found(unresolved=True) == [1, 3, 5]
        assert found(unresolved=False) == [0, 2, 4]
        assert found(unresolved=False, text="missing") == [0]
        assert found(instance=("t_page", 1), min_level=50) == [5]

    def test_an_instance_counts_its_records(self, running: Steps) -> None:
        """Promise 6: counts by level and dropped records add up over batches. Records below the threshold need no review."""
        running.keep_logs(_attempt(0), batch(entry(level=20), entry(level=20)))
        instance = running["t_page#0"]
        assert (instance.log_level, instance.log_unresolved) == (20, 0)
        running.keep_logs(_attempt(0), batch(entry(level=40), dropped=3, counts={40: 1, 10: 3}))
        running.keep_logs(_attempt(0), batch(entry(level=30)))
        instance = running["t_page#0"]
        assert (instance.log_count, instance.log_dropped) == (4, 3)
        assert instance.log_counts == {20: 2, 40: 1, 10: 3, 30: 1}
        assert (instance.log_level, instance.log_unresolved) == (40, 40)
        assert running["t_page#1"].log_count == 0

    def test_records_are_stored_in_the_commit_of_the_end(self, running: Steps, storage: Storage) -> None:
        """Promise 1: an end and the last records of its attempt are stored together. If the end is refused, the records are marked as late."""
        running.finish(replace(_attempt(0), logs=batch(entry("The end."))))
        assert running.statuses()["t_page#0"] == "finished"
        running.finish(replace(_attempt(0), logs=batch(entry("Too late."))))
        assert [(each.entry.message, each.entry.late) for each in storage.reader.logs(running.uid)] == [
            ("The end.", False),
            ("Too late.", True),
        ]

    def test_records_of_a_stale_worker_are_stored_and_marked(
        self, place: StorageSandbox, running: Steps, storage: Storage
    ) -> None:
        """Promise 4: records of a worker that has lost its lease are stored as late, with the fence of that worker."""
        place.advance(timedelta(microseconds=LEASE + 1))
        running.recover("t_page#0", 1)
        running.keep_logs(_attempt(0), batch(entry("Still here.", level=50)))
        (record,) = storage.reader.logs(running.uid)
        assert (record.entry.late, record.fence, record.attempt) == (True, 1, 1)
        assert running["t_page#0"].log_unresolved == 50

    def test_a_review_covers_the_records_so_far(self, running: Steps, storage: Storage) -> None:
        """Promise 2: a review up to a record does not cover later ones. `log_unresolved` is the highest level that is left."""
        for level in (50, 30, 40, 20):
            running.keep_logs(_attempt(0), batch(entry(level=level)))
        running.resolve_logs("t_page#0", {"by": "a person", "reason": "seen"}, through=1)
        assert running["t_page#0"].log_unresolved == 40
        assert [each.resolved for each in storage.reader.logs(running.uid)] == [True, False, False, False]
        running.resolve_logs("t_page#0", {"by": "a person"}, through=3)
        assert running["t_page#0"].log_unresolved == 0
        running.keep_logs(_attempt(0), batch(entry(level=30)))
        assert running["t_page#0"].log_unresolved == 30
        running.resolve_logs("t_page#0", {"by": "another"}, through=1)
        assert running["t_page#0"].log_unresolved == 30, "an earlier mark does not undo a later one"
        running.resolve_logs("t_page#0", {"by": "another"})
        instance = running["t_page#0"]
        assert (instance.log_unresolved, instance.log_resolved, instance.log_level) == (0, 5, 50)
        audit = decode(instance.log_audit)
        assert [(each["by"], each["through"], each["level"]) for each in audit] == [
            ("a person", 1, 50),
            ("a person", 3, 40),
            ("another", 1, 30),
            ("another", 5, 30),
        ]
        assert {each["at"] for each in audit} == {storage.now()}

    def test_flagged_instances_are_found(self, running: Steps, storage: Storage) -> None:
        """Promise 6: instances with unresolved records at or above a level are found, unless they were replayed or skipped."""
        for _ in range(3):
            running.fire("page")
        for n in range(2, 5):
            running.start(f"t_page#{n}")
        for n, level in enumerate((30, 40, 50, 20, 40)):
            running.keep_logs(_attempt(n), batch(entry(level=level)))

        def flagged(level: int, **query: Any) -> list[int]:
            found: list[Instance] = []
            while page := storage.reader.instances(
                running.uid,
                flagged=level,
                after=("t_page", found[-1].number) if found else ("", -1),
                limit=1,
                **query,
            ):
                found += page
            return [instance.number for instance in found]

        assert flagged(30) == [0, 1, 2, 4]
        assert flagged(0) == [0, 1, 2, 4], "an instance that needs no review is never flagged"
        assert flagged(41) == [2]
        running.finish(_attempt(1))
        running.skip_running(_attempt(2))
        running.fail(_attempt(4))
        assert flagged(30) == [0, 1, 4]
        assert flagged(30, statuses=[Status.FINISHED]) == [1]
        assert flagged(30, statuses=[Status.RUNNING, Status.FAILED]) == [0, 4]
        assert flagged(30, task="t_other") == []
        running.replay("t_page#4")
        running.resolve_logs("t_page#1", {"by": "a person"})
        assert flagged(30) == [0]

    def test_logs_of_sessions_are_separate(self, running: Steps, storage: Storage) -> None:
        """Promise 2: records of another session are not shown, even if its tasks have the same names."""
        other = Steps(storage, "other")
        other.configure({"t_page": {"andEvery": "page", "run": "page"}})
        other.fire("page")
        other.start("t_page#0")
        other.keep_logs(_attempt(0), batch(entry("Theirs.")))
        running.keep_logs(_attempt(0), batch(entry("Ours.")))
        other.keep_logs(_attempt(0), batch(entry("Theirs again.")))
        assert [each.entry.message for each in storage.reader.logs(running.uid)] == ["Ours."]
        theirs = _pages(storage.reader, "other", 1)
        assert [(each.entry.message, each.number) for each in theirs] == [
            ("Theirs.", 1),
            ("Theirs again.", 2),
        ]


def _attempt(number: int) -> AttemptReport:
    return AttemptReport("t_page", number, fence=1, attempt=1)


def _pages(reader: Reader, uid: str, size: int, **query: Any) -> list[StoredRecord]:
    found: list[StoredRecord] = []
    while page := reader.logs(uid, after=found[-1].cursor if found else 0, limit=size, **query):
        assert len(page) <= size
        found += page
    return found
