# ruff: noqa: E501, S101, PLR2004 - as in tests: sentences stand on one line, tests assert, numbers are what the test says
"""Reviews of records, kinds of records, and what a purge takes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggers.core.records import fingerprint
from triggers.core.terms import Attempt, RetryTerms
from triggers.core.values import decode
from triggers.storages.base import Purge
from triggers.testing.conformance.fixtures import StorageFixtures, at_once, batch, entry
from triggers.testing.steps import Steps

if TYPE_CHECKING:
    from triggers.core.records import LogEntry
    from triggers.storages.base import Storage, StoredRecord
    from triggers.testing.place import Place

#: Something is said, at these levels; or reviewed, up to a record or some of them; or reviews are taken back.
TURNS = st.one_of(
    st.tuples(st.just("say"), st.lists(st.sampled_from([10, 20, 29, 30, 40, 50]), min_size=1, max_size=4)),
    st.tuples(st.just("through"), st.none() | st.integers(0, 12)),
    st.tuples(st.just("records"), st.frozensets(st.integers(-1, 12), max_size=4)),
    st.tuples(st.just("reopen"), st.none()),
)

#: When the records of these tests were said, unless it matters.
SAID = entry().at

#: Every record may go, of whatever level, that no longer asks for a review.
EVERYTHING = Purge(SAID + 1, max_level=100, threshold=30, contexts_only=False, dry_run=False)
CONTEXTS = EVERYTHING._replace(contexts_only=True)

ME = {"by": "a person", "reason": "seen"}


class Reviews(StorageFixtures):
    """Promises 2 and 6, for what a person has reviewed, and what is left."""

    @pytest.fixture
    def said(self, steps: Steps) -> Steps:
        """Steps on a session whose t_page#0 runs and has said, in this order, records of these levels."""
        _start(steps, 1)
        steps.keep_logs(_attempt(0), batch(*(entry(f"at {n}", level=n) for n in (50, 30, 20, 40, 30))))
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
        said.keep_logs(_attempt(0), batch(*(entry() for _ in range(6))))
        assert _resolved(storage, said) == [1, 2, 4, 5], "nothing that comes later was chosen before"

    def test_a_record_that_comes_later_asks_anew(self, said: Steps, storage: Storage) -> None:
        """Promise 6: after a whole review and after one of chosen records; small talk asks for nothing."""
        said.resolve_logs("t_page#0", ME)
        said.keep_logs(_attempt(0), batch(entry(level=20)))
        assert said["t_page#0"].log_unresolved == 0
        said.keep_logs(_attempt(0), batch(entry(level=30)))
        assert said["t_page#0"].log_unresolved == 30
        said.resolve_logs("t_page#0", ME, records=[7])
        assert said["t_page#0"].log_unresolved == 0
        said.keep_logs(_attempt(0), batch(entry(level=40)))
        assert said["t_page#0"].log_unresolved == 40
        assert _numbers(_all(storage, said, unresolved=True)) == [6, 8]
        assert [each.number for each in storage.reader.instances(said.uid, flagged=30)] == [0]

    def test_a_record_that_does_not_count_asks_for_nothing(self, steps: Steps, storage: Storage) -> None:
        """Promise 6: whatever its level; after a review of a part and after reopening, too; and it may be purged."""
        _start(steps, 1)
        captured = replace(entry(level=50), counts=False)
        said = [captured, entry(level=30), captured, entry(level=40)]
        steps.keep_logs(_attempt(0), batch(*said, counts={30: 1, 40: 1}))
        assert _entries(storage, steps) == said
        assert _numbers(_all(storage, steps, unresolved=True)) == [2, 4]
        steps.resolve_logs("t_page#0", ME, records=[4])
        assert steps["t_page#0"].log_unresolved == 30
        steps.reopen_logs("t_page#0", ME)
        assert steps["t_page#0"].log_unresolved == 40
        steps.resolve_logs("t_page#0", ME, through=1)
        assert steps["t_page#0"].log_unresolved == 40
        assert storage.purge_logs(EVERYTHING).taken == 2
        assert _entries(storage, steps) == [said[1], said[3]]

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
        _start(steps, 2)
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
        steps.keep_logs(_attempt(0), batch(*kinds))
        again = [replace(missing, message="Missing b", context={}, at=SAID + 5, lineno=99, late=True)]
        again.append(replace(kinds[4], exception={**failed, "message": "2"}))
        steps.keep_logs(_attempt(1), batch(*again))
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
        said.keep_logs(_attempt(0), batch(entry("next")))
        assert [each.message for each in storage.reader.logs(said.uid, after=last.cursor)] == ["next"]

    def test_any_sequence_of_reviews_adds_up(self, storage: Storage) -> None:
        """Promise 6: whatever is said, reviewed and taken back, in any order, exactly what no review covers is open."""
        uids = itertools.count()

        @given(turns=st.lists(TURNS, max_size=12))
        def check(turns: list[tuple[str, Any]]) -> None:
            steps = Steps(storage, f"session {next(uids)}")
            _start(steps, 1)
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
        steps.keep_logs(_attempt(0), batch(*(entry(level=level) for level in given)))
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


class Purges(StorageFixtures):
    """What is old may go; what asks for a review never does."""

    def test_what_is_old_goes(self, steps: Steps, storage: Storage) -> None:
        """Promise 6: only what was said before the time, up to the level; counts and levels stay as they were."""
        _start(steps, 1)
        ages = [replace(entry(str(n), level=n), at=SAID + n) for n in (10, 20, 25, 20)]
        steps.keep_logs(_attempt(0), batch(*ages))
        before = steps["t_page#0"]
        purge = EVERYTHING._replace(before=SAID + 25, max_level=15)
        assert storage.purge_logs(purge) == (1, None)
        assert _texts(storage, steps) == ["20", "25", "20"]
        assert storage.purge_logs(purge._replace(max_level=20)) == (2, None)
        assert storage.purge_logs(purge._replace(before=SAID + 25, max_level=100)) == (0, None), "not before"
        assert _texts(storage, steps) == ["25"]
        assert steps["t_page#0"] == before

    def test_what_asks_for_a_review_stays(self, steps: Steps, storage: Storage) -> None:
        """Promise 6: whether below the mark or chosen, what was reviewed goes, and nothing else from the threshold on."""
        _start(steps, 1)
        steps.keep_logs(_attempt(0), batch(*(entry(str(n), level=n) for n in (30, 31, 20, 40, 50))))
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

    def test_a_lower_threshold_of_the_sessions_own_counts(self, storage: Storage) -> None:
        """Promise 6: an instance asks for a review as its own manager says, whatever the purge takes for usual."""
        strict = Steps(storage, "strict", replace(Steps(storage).policy, threshold=20))
        easy = Steps(storage, "easy", replace(strict.policy, threshold=40))
        for steps in (strict, easy):
            _start(steps, 1)
        strict.keep_logs(_attempt(0), batch(entry("asks", level=20), entry("small talk", level=10)))
        easy.keep_logs(_attempt(0), batch(entry("asks for nothing", level=30)))
        assert storage.purge_logs(EVERYTHING).taken == 2
        assert (_texts(storage, strict), _texts(storage, easy)) == (["asks"], [])

    def test_what_nobody_need_review_goes(self, steps: Steps, storage: Storage) -> None:
        """Promise 6: what was replayed or skipped holds nothing; what failed, finished or runs does."""
        _start(steps, 6)
        for n in range(6):
            steps.keep_logs(_attempt(n), batch(entry(str(n), level=40)))
        steps.fail(_attempt(0))
        steps.replay("t_page#0")
        steps.fail(_attempt(1), retry=RetryTerms(cooldown=0, limit=9, exhausted="{}"))
        steps.fail(_attempt(2))
        steps.skip("t_page#2")
        steps.fail(_attempt(3))
        steps.finish(_attempt(4))
        assert storage.purge_logs(EVERYTHING._replace(dry_run=True)).taken == 3
        assert storage.purge_logs(EVERYTHING).taken == 3
        assert _texts(storage, steps) == ["3", "4", "5"]

    def test_contexts_may_go_before_messages(self, steps: Steps, storage: Storage) -> None:
        """Promise 6: that of the record and those of its exception, causes and members; all else stays as it was."""
        _start(steps, 1)
        kept = entry("kept", level=20, page=7)
        cause = {"type": "K", "message": "k", "context": {"a": 1}, "notes": ['"context": x'], "members": []}
        own = {"type": "E", "message": "e", "context": {"deep": {"context": 1}}}
        tree = {**own, "traceback": "...", "cause": cause, "members": [cause]}
        inner = {"type": "E", "context": {}, "cause": cause, "context_exception": None}
        bare = entry("bare", level=20)
        said = [replace(kept, exception=tree), kept, replace(bare, exception=inner), bare]
        steps.keep_logs(_attempt(0), batch(*said))
        assert storage.purge_logs(CONTEXTS._replace(dry_run=True)).taken == 3
        assert storage.purge_logs(CONTEXTS).taken == 3
        less = {**cause, "context": {}}
        assert _entries(storage, steps) == [
            replace(kept, context={}, exception={**tree, "context": {}, "cause": less, "members": [less]}),
            replace(kept, context={}),
            replace(bare, exception={**inner, "cause": less}),
            bare,
        ]
        assert storage.purge_logs(CONTEXTS).taken == 0, "there are none left"

    def test_contexts_of_what_asks_for_a_review_stay(self, steps: Steps, storage: Storage) -> None:
        """Promise 6: who is to review a record needs its context."""
        _start(steps, 1)
        steps.keep_logs(_attempt(0), batch(entry("asks", page=1), entry("talks", level=20, page=2)))
        assert storage.purge_logs(CONTEXTS).taken == 1
        assert [dict(each.context) for each in _entries(storage, steps)] == [{"page": 1}, {}]

    def test_a_purge_without_harm_only_counts(self, steps: Steps, storage: Storage) -> None:
        """Promise 1: the same number as the purge that follows, and nothing has changed."""
        _start(steps, 1)
        steps.keep_logs(_attempt(0), batch(*(entry(level=20, n=n) for n in range(5))))
        before = storage.reader.logs(steps.uid)
        for purge in (EVERYTHING, CONTEXTS):
            assert storage.purge_logs(purge._replace(dry_run=True)) == (5, None)
        assert storage.reader.logs(steps.uid) == before

    def test_a_purge_goes_by_batches_over_all_sessions(self, storage: Storage) -> None:
        """Promise 5: each takes up to its limit, and says where the next one begins; each record is taken once."""
        for uid in ("one", "two", "three"):
            steps = Steps(storage, uid)
            _start(steps, 1)
            steps.keep_logs(_attempt(0), batch(*(entry(level=n, n=1) for n in (20, 30, 20))))
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

    def test_whoever_follows_misses_nothing(self, place: Place) -> None:
        """Promise 6: while others write, and purge behind, each record is seen once, in the order of the cursors."""
        first, second, reading = place.open(), place.open(), place.open()
        _start(Steps(first), 2)
        running = [0, 1]
        seen: list[StoredRecord] = []

        def write(number: int, handle: Storage) -> None:
            for n in range(15):
                steps = Steps(handle)
                steps.keep_logs(_attempt(number), batch(entry(f"{n}", level=20), entry(f"{n}", level=30)))
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

    def test_a_cursor_outlives_what_it_names(self, steps: Steps, storage: Storage) -> None:
        """Promise 6: whoever follows a log misses nothing and sees nothing twice, also where all of it was purged."""
        _start(steps, 1)
        steps.keep_logs(_attempt(0), batch(*(entry(str(n), level=20) for n in range(3))))
        middle = storage.reader.logs(steps.uid)[1].cursor
        last = storage.reader.logs(steps.uid)[2].cursor
        assert storage.purge_logs(EVERYTHING).taken == 3
        steps.keep_logs(_attempt(0), batch(entry("next", level=20)))
        for cursor in (middle, last):
            assert [each.message for each in storage.reader.logs(steps.uid, after=cursor)] == ["next"]
        (record,) = storage.reader.logs(steps.uid)
        assert record.cursor > last
        assert record.number == 4, "numbers of an instance go on, too"


def _start(steps: Steps, count: int) -> None:
    steps.configure({"t_page": {"andEvery": "page", "run": "page"}})
    for n in range(count):
        steps.fire("page")
        steps.start(f"t_page#{n}")


def _attempt(number: int) -> Attempt:
    return Attempt("t_page", number, fence=1, attempt=1)


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


def _entries(storage: Storage, steps: Steps) -> list[LogEntry]:
    return [record.entry for record in storage.reader.logs(steps.uid)]


def _texts(storage: Storage, steps: Steps) -> list[str]:
    return [each.message for each in _entries(storage, steps)]
