# ruff: noqa: E501, S101, PLR2004 - as in tests: docstrings have one line, assert is used, numbers are expected values
"""Commits: they are atomic, serialized and guarded; and what a session keeps between them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from triggers.core import decisions
from triggers.core.decisions.needs import need_for
from triggers.core.exchange import Changes, Decision, Guard, Need, NeedsSession, Record
from triggers.core.state import Firing, Session
from triggers.core.status import Status
from triggers.core.terms import AttemptReport, Finalizing, Policy
from triggers.core.values import decode, encode
from triggers.exceptions import (
    IdempotencyConflictError,
    InvalidValueError,
    ManagerMismatchError,
    StorageError,
    UnknownSessionError,
)
from triggers.testing.conformance.fixtures import SURVEY, StorageFixtures, at_once, batch, entry
from triggers.testing.conformance.machine import shown
from triggers.testing.conformance.steps import SECOND, Steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from triggers.core.exchange import DecisionRun
    from triggers.storages.base import Storage
    from triggers.testing.conformance.sandbox import StorageSandbox


class Commits(StorageFixtures):
    """Tests of promises 1 to 4 and 8: commits, keys, rules, sessions and finalizing."""

    def test_a_prefetch_is_only_a_guess(self, steps: Steps) -> None:
        """Promise 2: a decision gets what it needs, whether its prefetch is right, wrong, empty or None."""
        steps.configure(SURVEY)
        steps.fire("first", {"n": 0})
        rules = steps.head.rules
        guesses = (
            need_for(rules, "page"),
            need_for(rules, "first"),
            Need(instances=(("nobody", 7),)),
            Need(),
            None,
        )
        for number, guess in enumerate(guesses):
            page = Firing(0, "page", encode({"n": number}, "kwargs"), 0)
            fired = steps.commit(replace(decisions.fire(steps.policy, page), prefetch=guess))
            assert [instance.name for instance in fired.created] == [f"t_page#{number}"]
        taken = [
            kwargs["page"]
            for kwargs in steps.kwargs_of(steps.storage.reader.instances(steps.uid, task="t_page"))
        ]
        assert taken == [{"n": number} for number in range(len(guesses))]

    # -- atomic --------------------------------------------------------------------------------------------

    def test_a_decision_that_raises_changes_nothing(self, steps: Steps) -> None:
        """Promises 1 and 8: if a decision raises after it has received its slice, nothing is stored."""
        steps.configure(SURVEY)
        before = shown(steps)

        def begin(session: Session) -> DecisionRun:
            yield Need(waiting=("first",))
            session.firings += 1
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            steps.commit(Decision("test", begin))
        assert shown(steps) == before
        assert steps.fire("first").fired[0].number == 1

    def test_a_decision_that_raises_creates_no_session(self, steps: Steps, storage: Storage) -> None:
        """Promise 1: if the first decision of a session raises, the session does not exist."""

        def begin(_: Session) -> DecisionRun:
            yield Need()
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            steps.commit(Decision("test", begin))
        assert storage.reader.session(steps.uid) is None
        assert storage.reader.sessions() == []

    def test_all_changes_are_stored_or_none(self, steps: Steps, storage: Storage) -> None:
        """Promise 1: if the last of many changes cannot be stored, none of them is."""
        steps.configure(SURVEY)
        before = shown(steps)

        def begin(session: Session) -> DecisionRun:
            changes = yield from decisions.fire(Policy(), Firing(0, "first", "{}", 0))(session)
            unstorable = entry(unstorable=object())
            changes.logs.append(Record(changes.created[0], 1, 0, 0, unstorable))
            return changes

        with pytest.raises((StorageError, InvalidValueError)):
            steps.commit(Decision("test", begin))
        assert shown(steps) == before
        assert steps.waiting("complete") == set()
        assert storage.due(10, grace=SECOND, include_recent=True) == []
        assert len(steps.fire("first").created) == 2

    def test_a_decision_that_stores_no_head_creates_no_session(self, steps: Steps, storage: Storage) -> None:
        """Promise 1: a claim in a session that does not exist finds nothing and creates nothing."""
        assert steps.claim("t_subject#0").claimed is None
        assert steps.look(Need(tasks=None, waiting=("a",), instances=(("a", 0),))).instances == []
        assert storage.reader.session(steps.uid) is None

    def test_a_session_that_does_not_exist_is_an_error(self, steps: Steps) -> None:
        """Promise 8: a decision that needs a session raises an error if the session does not exist."""
        with pytest.raises(UnknownSessionError, match="no session 'session'"):
            steps.skip("t_subject#0")

    # -- serialized ---------------------------------------------------------------------------------------

    @pytest.mark.parametrize("firers", [2, 3, 8])
    def test_a_join_creates_exactly_one_instance(self, place: StorageSandbox, firers: int) -> None:
        """Promise 2: if all triggers of a task fire at once, from different handles, one instance is created."""
        names = [f"part{number}" for number in range(firers)]
        rules = {"t_join": {"after": names, "run": "join"}}
        handles = [place.open() for _ in names]
        for attempt in range(15):
            hands = [Steps(handle, f"session {attempt}") for handle in handles]
            hands[0].configure(rules)
            at_once([_firing(hand, name) for hand, name in zip(hands, names, strict=True)])
            assert hands[0].statuses() == {"t_join#0": "scheduled"}
            assert hands[0]["t_join#0"].taken.keys() == set(names)

    def test_firing_numbers_have_no_gaps(self, place: StorageSandbox) -> None:
        """Promise 2: firings of eight threads over three handles get the numbers 1, 2, 3 and so on, each once."""
        handles = [place.open() for _ in range(3)]
        hands = [Steps(handles[thread % 3], "hot") for thread in range(8)]

        def many(hand: Steps, thread: int) -> Callable[[], list[int]]:
            return lambda: [hand.fire("page", {"thread": thread, "n": n}).fired[0].number for n in range(15)]

        numbers = at_once([many(hand, thread) for thread, hand in enumerate(hands)])
        assert sorted(number for own in numbers for number in own) == list(range(1, 121))
        assert all(own == sorted(own) for own in numbers), "the firings of one thread keep their order"
        assert [firing.number for firing in hands[0].firings()] == list(range(1, 121))
        said = {
            (decode(firing.kwargs)["thread"], decode(firing.kwargs)["n"]) for firing in hands[0].firings()
        }
        assert len(said) == 120

    def test_every_firing_of_andevery_creates_one_instance(self, place: StorageSandbox) -> None:
        """Promise 2: concurrent firings create one instance each, numbered without gaps, with its own kwargs."""
        hands = [Steps(place.open(), "hot") for _ in range(4)]
        hands[0].configure({"t_page": {"andEvery": "page", "run": "page"}})

        def many(hand: Steps, thread: int) -> Callable[[], list[Changes]]:
            return lambda: [hand.fire("page", {"which": 10 * thread + n}) for n in range(10)]

        at_once([many(hand, thread) for thread, hand in enumerate(hands)])
        instances = hands[0].instances()
        assert [instance.number for instance in instances] == list(range(40))
        seen = {kwargs["page"]["which"] for kwargs in hands[0].kwargs_of(instances)}
        assert seen == set(range(40))

    def test_concurrent_first_firings_create_one_session(
        self, place: StorageSandbox, storage: Storage
    ) -> None:
        """Promise 2: eight concurrent first firings create one session with eight firings."""
        hands = [Steps(place.open(), "new") for _ in range(8)]
        at_once([_firing(hand, "page") for hand in hands])
        assert [session.uid for session in storage.reader.sessions()] == ["new"]
        assert hands[0].head.firings == 8

    # -- exclusive runs ------------------------------------------------------------------------------------

    def test_a_run_that_needs_the_session_is_repeated_exclusively(
        self, steps: Steps, place: StorageSandbox
    ) -> None:
        """Promise 2: the second run gets its own head and slice, and sees everything that was committed before it."""
        steps.configure({"t_page": {"andEvery": "page", "run": "page"}})
        steps.fire("page")
        other = Steps(place.open(), steps.uid)
        seen: list[tuple[bool, int, str, int]] = []

        def begin(session: Session) -> DecisionRun:
            found = yield Need(instances=(("t_page", 0),))
            instance = found.instances[0]
            seen.append((session.exclusive, session.firings, session.metadata, instance.log_count))
            if not session.exclusive:
                session.metadata, session.firings = '{"first":"run"}', 99
                instance.log_count = 99
                other.fire("page")
                raise NeedsSession
            return (yield from decisions.fire(steps.policy, Firing(0, "page", "{}", 0))(session))

        fired = steps.commit(Decision("recovery", begin, exclusive=False)).fired
        *before, last = seen
        assert before in ([], [(False, 1, "{}", 0)]), "a storage may run every decision exclusively"
        assert last == (True, 1 + len(before), "{}", 0)
        assert [firing.number for firing in fired] == [2 + len(before)]
        assert len(steps.instances()) == steps.head.firings == 2 + len(before)
        assert steps.head.metadata == "{}"

    def test_asking_for_the_session_in_an_exclusive_run_is_an_error(self, steps: Steps) -> None:
        """Promise 2: the error names the decision. Nothing is changed, and the storage can still be used."""
        steps.configure(SURVEY)
        before = shown(steps)

        def begin(session: Session) -> DecisionRun:
            yield Need(waiting=("first",))
            session.firings += 1
            raise NeedsSession

        for exclusive in (True, False):
            with pytest.raises(RuntimeError, match=r"decision 'greedy' raised NeedsSession"):
                steps.commit(Decision("greedy", begin, exclusive=exclusive))
        assert shown(steps) == before
        assert steps.fire("first").fired[0].number == 1

    @pytest.mark.parametrize("asks", [True, False])
    def test_no_firing_of_a_run_that_needs_the_session_is_lost(
        self,
        place: StorageSandbox,
        asks: bool,  # noqa: FBT001 - a parameter of a test
    ) -> None:
        """Promise 2: firings of eight threads at once all count, whether their runs ask for the session or just change it."""
        hands = [Steps(place.open(), "hot") for _ in range(8)]
        hands[0].configure({"t_page": {"andEvery": "page", "run": "page"}})
        fire = decisions.fire(hands[0].policy, Firing(0, "page", "{}", 0))

        def begin(session: Session) -> DecisionRun:
            found = fire(session)
            if asks and not session.exclusive:
                raise NeedsSession
            return found

        decision = Decision("recovery", begin, exclusive=False)

        def many(hand: Steps) -> Callable[[], list[int]]:
            return lambda: [hand.commit(decision).fired[0].number for _ in range(20)]

        numbers = at_once([many(hand) for hand in hands])
        assert sorted(number for own in numbers for number in own) == list(range(1, 161))
        assert hands[0].head.firings == 160
        assert [instance.number for instance in hands[0].instances()] == list(range(160))

    def test_a_decision_that_needs_nothing_is_stored(self, steps: Steps, storage: Storage) -> None:
        """Promise 1: the changes of a decision without needs are stored, with and without a prefetch."""

        def begin(session: Session) -> DecisionRun:
            yield from ()
            session.metadata = '{"n":1}'
            return Changes(session)

        for prefetch in (None, Need(waiting=("page",))):
            steps.commit(Decision("describe", begin, prefetch=prefetch))
            assert steps.head.metadata == '{"n":1}'
        assert [session.uid for session in storage.reader.sessions()] == [steps.uid]

    # -- guards --------------------------------------------------------------------------------------------

    def test_a_decision_whose_guard_does_not_hold_is_repeated(self, steps: Steps) -> None:
        """Promise 4: changes with an old fence are not applied. The decision runs again with the stored session."""
        steps.fire("page")
        steps.configure({"t_page": {"andEvery": "page", "run": "page"}})
        steps.fire("page")
        attempt = steps.start("t_page#0")
        tries: list[int] = []

        def begin(session: Session) -> DecisionRun:
            tries.append(session.firings)
            changes = yield from decisions.finish(Policy(), attempt, "{}")(session)
            if len(tries) == 1:
                ((instance, guard),) = changes.transitioned
                changes.transitioned[0] = (instance, replace(guard, fence=guard.fence + 1))
            return changes

        steps.commit(Decision("test", begin))
        assert tries == [2, 2], "the second run gets the stored session, not the changes of the first one"
        assert steps.statuses() == {"t_page#0": "finished"}
        assert [firing.trigger for firing in steps.firings()] == ["page", "page", "t_page"]

    def test_a_decision_whose_guard_never_holds_is_an_error(self, steps: Steps) -> None:
        """Promise 8: after many runs an error is raised, and nothing has changed."""
        steps.configure({"t_page": {"andEvery": "page", "run": "page"}})
        steps.fire("page")
        before = steps["t_page#0"]
        tries = []

        def begin(session: Session) -> DecisionRun:
            found = yield Need(instances=(("t_page", 0),))
            tries.append(session.firings)
            return Changes(session, transitioned=[(found.instances[0], Guard(Status.RUNNING, 99))])

        with pytest.raises(StorageError, match=r"session 'session' changed \d+ times in a row"):
            steps.commit(Decision("test", begin))
        assert len(tries) > 1
        assert steps["t_page#0"] == before

    @pytest.mark.parametrize(
        "wrong", [Guard(Status.SCHEDULED, 1), Guard(Status.RUNNING, 0), Guard(Status.RUNNING, 1, 5)]
    )
    def test_status_fence_and_lease_are_all_guarded(self, steps: Steps, wrong: Guard) -> None:
        """Promise 4: a guard with another status, fence or lease than the stored one does not hold."""
        steps.configure({"t_page": {"andEvery": "page", "run": "page"}})
        steps.fire("page")
        steps.start("t_page#0")
        tries = []

        def begin(session: Session) -> DecisionRun:
            found = yield Need(instances=(("t_page", 0),))
            tries.append(found.instances[0].status)
            if len(tries) > 1:
                return Changes(session, writes_head=False)
            return Changes(session, transitioned=[(replace(found.instances[0], owner="a thief"), wrong)])

        steps.commit(Decision("test", begin))
        assert tries == [Status.RUNNING, Status.RUNNING]
        assert steps["t_page#0"].owner == "worker"

    def test_an_instance_takes_triggers_only_while_it_is_unstarted(self, steps: Steps) -> None:
        """Promise 4: if an instance has started in the meantime, the decision that gives it a trigger is repeated."""
        steps.configure({"t_page": {"after": ["page"], "run": "page"}})
        steps.fire("page")
        tries = []

        def begin(session: Session) -> DecisionRun:
            found = yield Need(instances=(("t_page", 0),))
            tries.append(found.instances[0].status)
            if len(tries) > 1:
                return Changes(session, writes_head=False)
            return Changes(session, triggered=[replace(found.instances[0], vetoes=("late",))])

        steps.commit(Decision("test", begin))
        assert tries == [Status.SCHEDULED, Status.SCHEDULED]
        assert steps["t_page#0"].vetoes == ()

    # -- idempotency keys ----------------------------------------------------------------------------------

    def test_a_repeated_firing_with_its_key_changes_nothing(self, steps: Steps) -> None:
        """Promise 2: a firing with the trigger and key of an earlier one returns the earlier firing, and changes nothing."""
        steps.configure(SURVEY)
        first = steps.fire("first", {"b": 1, "a": [2]}, key="k")
        before = shown(steps)
        again = steps.fire("first", {"a": [2], "b": 1}, key="k")
        assert (again.duplicate_of, again.fired) == (first.fired[0], [])
        assert shown(steps) == before

    def test_a_key_with_other_kwargs_is_a_conflict(self, steps: Steps) -> None:
        """Promise 8: a key that was used with other kwargs is an error, and nothing changes."""
        steps.fire("first", {"a": 1}, key="k")
        before = shown(steps)
        for other in ({"a": 2}, {"a": True}, {"a": 1.0}, {}):
            with pytest.raises(IdempotencyConflictError, match=r"'k'.*firing 1"):
                steps.fire("first", other, key="k")
        assert shown(steps) == before

    def test_a_key_belongs_to_one_session_and_trigger(self, storage: Storage) -> None:
        """Promise 2: another trigger or another session may use the same key."""
        for uid in ("one", "two"):
            for trigger in ("a", "b"):
                assert (
                    Steps(storage, uid).fire(trigger, {"u": uid, "t": trigger}, key="k").duplicate_of is None
                )
        assert [firing.key for firing in Steps(storage, "one").firings()] == ["k", "k"]

    def test_concurrent_firings_with_one_key_are_recorded_once(self, place: StorageSandbox) -> None:
        """Promise 2: of eight concurrent firings with one key, one is recorded, and all return its number."""
        hands = [Steps(place.open(), "session") for _ in range(8)]
        answers = at_once([_firing(hand, "paid", key="order 7") for hand in hands])
        assert sum(answer.duplicate_of is None for answer in answers) == 1
        assert {(answer.duplicate_of or answer.fired[0]).number for answer in answers} == {1}
        assert hands[0].head.firings == 1

    # -- rules ---------------------------------------------------------------------------------------------

    def test_sessions_that_share_rules_are_independent(self, storage: Storage) -> None:
        """Promise 6: if two sessions have the same rule set and one of them changes it, the other keeps it."""
        one, two = Steps(storage, "one"), Steps(storage, "two")
        one.configure(SURVEY)
        two.configure(SURVEY)
        assert one.head.rules.digest == two.head.rules.digest
        one.configure({"t_other": {"after": ["first"], "run": "other"}})
        assert two.head.rules.rules.keys() == SURVEY.keys()
        two.fire("first")
        one.fire("first")
        assert one.statuses() == {"t_other#0": "scheduled"}
        assert two.statuses() == {"t_browser#0": "scheduled", "t_subject#0": "unstarted"}

    def test_rules_are_read_as_they_were_stored(self, steps: Steps) -> None:
        """Promise 6: conditions, parameters, runners and custom directives are read as they were stored."""
        written = {
            "t": {
                "after": {"any": ["a", {"all": ["b", "c"]}]},
                "unless": {"atLeast": 2, "of": ["x", "y", "z"]},
                "andEvery": "a",
                "run": "run",
                "using": "threads",
                "withParams": {"api": {"timeout": 5, "nested": {"list": [1, None]}}},
                "color": {"deep": [1.5, None, "\N{PILE OF POO}"]},
            }
        }
        stored = steps.configure(written).session.rules
        rule = steps.head.rules.rules["t"]
        assert rule == stored.rules["t"]
        assert (rule.run, rule.using, rule.and_every) == ("run", "threads", "a")
        assert rule.with_params == written["t"]["withParams"]
        assert rule.extras == {"color": written["t"]["color"]}
        assert steps.head.rules.digest == stored.digest

    def test_new_rules_apply_to_unstarted_instances(self, steps: Steps) -> None:
        """Promise 1: the rules, the instances that they schedule, and the index change in one commit."""
        steps.configure(SURVEY)
        steps.fire("first")
        assert steps.waiting("complete") == {"t_subject#0"}
        steps.configure({**SURVEY, "t_subject": {"after": ["first"], "run": "survey.Subject"}})
        assert steps.statuses()["t_subject#0"] == "scheduled"
        assert steps.waiting("complete") == set()

    def test_instances_of_a_removed_task_wait_for_nothing(self, steps: Steps) -> None:
        """Promise 1: no firing changes the instances of a removed task. If the task is added again, later firings do."""
        steps.configure(SURVEY)
        steps.fire("first")
        steps.configure({"t_browser": SURVEY["t_browser"]})
        assert steps.waiting("complete") == set()
        steps.fire("complete")
        assert steps.statuses()["t_subject#0"] == "unstarted"
        steps.configure(SURVEY)
        assert steps.waiting("complete") == {"t_subject#0"}
        steps.fire("complete")
        assert steps.statuses()["t_subject#0"] == "scheduled"

    def test_added_tasks_catch_up_on_request(self, steps: Steps) -> None:
        """Promise 2: a catch-up applies every past firing to the added task, in order, each with its own kwargs."""
        for n in range(3):
            steps.fire("page", {"n": n})
        steps.configure({"t_page": {"andEvery": "page", "run": "page"}}, catch_up=True)
        assert [kwargs["page"]["n"] for kwargs in steps.kwargs_of(steps.instances())] == [0, 1, 2]
        assert set(steps.statuses().values()) == {"scheduled"}

    # -- what a session keeps --------------------------------------------------------------------------------

    def test_another_handle_sees_everything(
        self, place: StorageSandbox, steps: Steps, storage: Storage
    ) -> None:
        """Promise 3: a handle that is opened later shows everything that another one has stored, and can continue from there."""
        steps.configure(SURVEY)
        steps.fire("first", {"page": 1}, key="k")
        steps.fire("complete")
        attempt = steps.start("t_subject#0")
        steps.keep_logs(attempt, batch(entry("Half done.")))
        steps.finish(attempt, {"subject": 17})
        steps.describe({"customer": "c"})
        other = Steps(place.open(), steps.uid)
        assert shown(other) == shown(steps)
        assert other.head == steps.head
        assert other.instances() == steps.instances()
        assert other.storage.reader.logs(steps.uid) == storage.reader.logs(steps.uid)
        other.fire("page", {"page": 2})
        assert steps.statuses()["t_page#0"] == "scheduled"
        assert steps.kwargs("t_page#0") == {"t_subject": {"subject": 17}, "page": {"page": 2}}

    def test_a_session_belongs_to_the_manager_that_created_it(self, storage: Storage) -> None:
        """Promise 8: a change by another manager is an error, and the session does not change."""
        mine = Steps(storage, "session", Policy(manager="mine"))
        mine.fire("first")
        other = Steps(storage, "session", Policy(manager="another"))
        with pytest.raises(ManagerMismatchError, match="mine"):
            other.fire("first")
        assert (mine.head.manager, mine.head.firings) == ("mine", 1)

    def test_times_are_those_of_the_storage(
        self, place: StorageSandbox, steps: Steps, storage: Storage
    ) -> None:
        """Promise 7: the times of firings, instances and sessions are those of the storage's clock."""
        steps.configure(SURVEY)
        made = storage.now()
        place.advance(timedelta(hours=1))
        steps.fire("first")
        now = storage.now()
        assert now == made + 3600 * SECOND
        head, instance = steps.head, steps["t_browser#0"]
        assert (head.created_at, head.modified_at, head.now) == (made, now, now)
        assert (instance.created_at, instance.modified_at, instance.run_at) == (now, now, now)
        assert instance.dispatch_after == now + steps.policy.grace
        assert steps.firings()[0].at == now

    def test_metadata_is_merged(self, steps: Steps) -> None:
        """Promise 6: keys are added to the metadata of sessions and instances, and read as they were stored."""
        steps.configure(SURVEY)
        steps.fire("first")
        steps.describe({"a": 1, "b": timedelta(days=1)})
        steps.describe({"a": [2]})
        steps.add_metadata("t_subject#0", {"note": "\N{PILE OF POO}"})
        assert decode(steps.head.metadata) == {"a": [2], "b": timedelta(days=1)}
        assert decode(steps["t_subject#0"].metadata) == {"note": "\N{PILE OF POO}"}
        assert steps.waiting("complete") == {"t_subject#0"}, "the instance still waits"

    def test_sessions_are_independent(self, storage: Storage) -> None:
        """Promise 2: triggers, tasks and instances of another session are different, even with the same names."""
        one, two = Steps(storage, "one"), Steps(storage, "two")
        for steps in (one, two):
            steps.configure(SURVEY)
            steps.fire("first", {"uid": steps.uid})
        one.fire("complete")
        one.run("t_subject#0")
        assert two.statuses() == {"t_browser#0": "scheduled", "t_subject#0": "unstarted"}
        assert two.kwargs("t_subject#0") == {"first": {"uid": "two"}}
        assert (one.head.firings, two.head.firings) == (3, 1)

    # -- finalizing ------------------------------------------------------------------------------------------

    def test_a_session_is_finalized_by_the_end_of_its_last_task_and_once(self, storage: Storage) -> None:
        """Promise 1: the finalizing trigger is fired in the commit that completes the session, and only once."""
        steps = Steps(storage, "session", Policy(finalizing=Finalizing("over")))
        steps.configure({"t_a": {"after": ["a"], "run": "a"}, "t_mail": {"after": ["over"], "run": "mail"}})
        assert steps.fire("a").session.finalized is None
        ended = steps.run("t_a#0")
        assert [firing.trigger for firing in ended.fired] == ["t_a", "over"]
        assert [instance.name for instance in ended.scheduled()] == ["t_mail#0"]
        steps.run("t_mail#0")
        steps.fire("a")
        assert steps.head.finalized == 3
        assert [firing.trigger for firing in steps.firings()].count("over") == 1

    def test_concurrent_last_ends_finalize_a_session_once(self, place: StorageSandbox) -> None:
        """Promise 2: four concurrent ends of the last tasks complete the session exactly once."""
        policy = Policy(finalizing=Finalizing("over"))
        hands = [Steps(place.open(), "session", policy) for _ in range(4)]
        hands[0].configure({f"t_{n}": {"after": ["a"], "run": "a"} for n in range(4)})
        hands[0].fire("a")
        attempts = [hands[0].start(f"t_{n}#0") for n in range(4)]
        at_once([_ending(hand, attempt) for hand, attempt in zip(hands, attempts, strict=True)])
        assert [firing.trigger for firing in hands[0].firings()].count("over") == 1
        assert hands[0].head.pending == 0

    def test_unresolved_records_delay_finalizing(self, storage: Storage) -> None:
        """Promise 1: with `max_level`, a session is finalized only after a person has reviewed the records at or above it."""
        steps = Steps(storage, "session", Policy(finalizing=Finalizing("over", max_level=40)))
        steps.configure({"t_a": {"after": ["a"], "run": "a"}, "t_b": {"after": ["a"], "run": "b"}})
        steps.fire("a")
        attempt = steps.start("t_a#0")
        steps.finish(replace(attempt, logs=batch(entry("Odd.", level=40))))
        steps.run("t_b#0")
        assert (steps.head.pending, steps.head.finalized) == (0, None)
        changes = steps.resolve_logs("t_a#0", {"by": "a person"})
        assert [firing.trigger for firing in changes.fired] == ["over"]
        assert steps.head.finalized == 4

    def test_records_of_the_last_attempt_delay_finalizing(self, storage: Storage) -> None:
        """Promise 1: records that come with the last end count, and records below the level do not."""
        steps = Steps(storage, "session", Policy(finalizing=Finalizing("over", max_level=40)))
        steps.configure({"t_a": {"andEvery": "a", "run": "a"}})
        steps.fire("a")
        steps.finish(replace(steps.start("t_a#0"), logs=batch(entry(level=40))))
        assert steps.head.finalized is None
        steps.fire("a")
        steps.finish(replace(steps.start("t_a#1"), logs=batch(entry(level=30))))
        assert steps.head.finalized is None, "the records of the first one are still unresolved"
        steps.resolve_logs("t_a#0", {"by": "a person"})
        assert steps.head.finalized is not None


def _firing(hand: Steps, trigger: str, key: str | None = None) -> Callable[[], Changes]:
    return lambda: hand.fire(trigger, {}, key)


def _ending(hand: Steps, attempt: AttemptReport) -> Callable[[], Changes]:
    return lambda: hand.finish(attempt)
