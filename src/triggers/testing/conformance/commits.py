# ruff: noqa: E501, S101, PLR2004 - as in tests: sentences stand on one line, tests assert, numbers are what the test says
"""Commits: atomic, one after the other, guarded; and what a session keeps from one to the next."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import pytest

from triggers.core import decisions
from triggers.core.decisions.unit_of_work import need_for
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
    """Promises 1 to 4 and 8."""

    def test_what_a_decision_is_expected_to_need_is_only_a_guess(self, steps: Steps) -> None:
        """Promise 2: whether the guess is right, wrong, empty or none, a decision sees what it asks for."""
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
        """Promises 1 and 8: a decision that raises after it has seen its slice leaves everything as it was."""
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

    def test_a_decision_that_raises_makes_no_session(self, steps: Steps, storage: Storage) -> None:
        """Promise 1: a session whose first decision raised does not exist."""

        def begin(_: Session) -> DecisionRun:
            yield Need()
            raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            steps.commit(Decision("test", begin))
        assert storage.reader.session(steps.uid) is None
        assert storage.reader.sessions() == []

    def test_changes_are_stored_whole_or_not_at_all(self, steps: Steps, storage: Storage) -> None:
        """Promise 1: where the last of many changes cannot be stored, none of them is."""
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

    def test_a_decision_that_stores_no_head_makes_no_session(self, steps: Steps, storage: Storage) -> None:
        """Promise 1: a claim in a session that does not exist finds nothing and makes nothing."""
        assert steps.claim("t_subject#0").claimed is None
        assert steps.look(Need(tasks=None, waiting=("a",), instances=(("a", 0),))).instances == []
        assert storage.reader.session(steps.uid) is None

    def test_ends_in_a_session_that_does_not_exist_are_refused(self, steps: Steps) -> None:
        """Promise 8: what needs a session says so where there is none."""
        with pytest.raises(UnknownSessionError, match="no session 'session'"):
            steps.skip("t_subject#0")

    # -- one after the other -------------------------------------------------------------------------------

    @pytest.mark.parametrize("firers", [2, 3, 8])
    def test_a_join_is_made_exactly_once(self, place: StorageSandbox, firers: int) -> None:
        """Promise 2: when all triggers of a task fire at once, from different handles, one instance is made."""
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
        """Promise 2: firings of eight threads over three handles get the numbers 1, 2, 3 … each once."""
        handles = [place.open() for _ in range(3)]
        hands = [Steps(handles[thread % 3], "hot") for thread in range(8)]

        def many(hand: Steps, thread: int) -> Callable[[], list[int]]:
            return lambda: [hand.fire("page", {"thread": thread, "n": n}).fired[0].number for n in range(15)]

        numbers = at_once([many(hand, thread) for thread, hand in enumerate(hands)])
        assert sorted(number for own in numbers for number in own) == list(range(1, 121))
        assert all(own == sorted(own) for own in numbers), "what one thread fires stays in its order"
        assert [firing.number for firing in hands[0].firings()] == list(range(1, 121))
        said = {
            (decode(firing.kwargs)["thread"], decode(firing.kwargs)["n"]) for firing in hands[0].firings()
        }
        assert len(said) == 120

    def test_every_firing_of_andevery_makes_one_instance_whoever_fires(self, place: StorageSandbox) -> None:
        """Promise 2: firings at once make as many instances, numbered without gaps, each with its own kwargs."""
        hands = [Steps(place.open(), "hot") for _ in range(4)]
        hands[0].configure({"t_page": {"andEvery": "page", "run": "page"}})

        def many(hand: Steps, thread: int) -> Callable[[], list[Changes]]:
            return lambda: [hand.fire("page", {"which": 10 * thread + n}) for n in range(10)]

        at_once([many(hand, thread) for thread, hand in enumerate(hands)])
        instances = hands[0].instances()
        assert [instance.number for instance in instances] == list(range(40))
        seen = {kwargs["page"]["which"] for kwargs in hands[0].kwargs_of(instances)}
        assert seen == set(range(40))

    def test_one_session_is_made_whoever_fires_first(self, place: StorageSandbox, storage: Storage) -> None:
        """Promise 2: eight first firings at once make one session with eight firings."""
        hands = [Steps(place.open(), "new") for _ in range(8)]
        at_once([_firing(hand, "page") for hand in hands])
        assert [session.uid for session in storage.reader.sessions()] == ["new"]
        assert hands[0].head.firings == 8

    # -- exclusive or not ----------------------------------------------------------------------------------

    def test_a_run_that_needs_the_session_is_made_again_exclusively(
        self, steps: Steps, place: StorageSandbox
    ) -> None:
        """Promise 2: the second run gets a head and a slice of its own, and sees what came before it."""
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
        """Promise 2: it names the decision, changes nothing, and leaves the storage usable."""
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
    def test_runs_that_turn_out_to_need_the_session_lose_nothing(
        self,
        place: StorageSandbox,
        asks: bool,  # noqa: FBT001 - a test's parameter
    ) -> None:
        """Promise 2: whether they ask for it or just change it, firings of eight threads at once all count."""
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

    def test_a_decision_that_asks_for_nothing_is_made_all_the_same(
        self, steps: Steps, storage: Storage
    ) -> None:
        """Promise 1: its changes are stored, also where something was loaded for it in vain."""

        def begin(session: Session) -> DecisionRun:
            yield from ()
            session.metadata = '{"n":1}'
            return Changes(session)

        for prefetch in (None, Need(waiting=("page",))):
            steps.commit(Decision("describe", begin, prefetch=prefetch))
            assert steps.head.metadata == '{"n":1}'
        assert [session.uid for session in storage.reader.sessions()] == [steps.uid]

    # -- guards --------------------------------------------------------------------------------------------

    def test_a_decision_is_made_anew_where_its_guard_no_longer_holds(self, steps: Steps) -> None:
        """Promise 4: changes under an old fence are not applied; the decision sees the session again."""
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
        assert tries == [2, 2], (
            "the second try saw what was stored, not what the first one had meant to store"
        )
        assert steps.statuses() == {"t_page#0": "finished"}
        assert [firing.trigger for firing in steps.firings()] == ["page", "page", "t_page"]

    def test_a_decision_whose_guard_never_holds_comes_to_an_end(self, steps: Steps) -> None:
        """Promise 8: after many tries in vain it is an error, and nothing has changed."""
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
        """Promise 4: a guard with another status, fence or lease than is stored does not hold."""
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
        """Promise 4: a trigger given to an instance that has started in the meantime is decided anew."""
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

    def test_a_repeat_with_its_key_is_a_no_op(self, steps: Steps) -> None:
        """Promise 2: the same trigger and key again is told the first firing, and changes nothing."""
        steps.configure(SURVEY)
        first = steps.fire("first", {"b": 1, "a": [2]}, key="k")
        before = shown(steps)
        again = steps.fire("first", {"a": [2], "b": 1}, key="k")
        assert (again.duplicate_of, again.fired) == (first.fired[0], [])
        assert shown(steps) == before

    def test_a_key_with_other_kwargs_is_a_conflict(self, steps: Steps) -> None:
        """Promise 8: a key that was used with other kwargs is refused, and nothing changes."""
        steps.fire("first", {"a": 1}, key="k")
        before = shown(steps)
        for other in ({"a": 2}, {"a": True}, {"a": 1.0}, {}):
            with pytest.raises(IdempotencyConflictError, match=r"'k'.*firing 1"):
                steps.fire("first", other, key="k")
        assert shown(steps) == before

    def test_a_key_counts_for_its_session_and_trigger_alone(self, storage: Storage) -> None:
        """Promise 2: another trigger, and another session, may use the same key."""
        for uid in ("one", "two"):
            for trigger in ("a", "b"):
                assert (
                    Steps(storage, uid).fire(trigger, {"u": uid, "t": trigger}, key="k").duplicate_of is None
                )
        assert [firing.key for firing in Steps(storage, "one").firings()] == ["k", "k"]

    def test_one_key_is_recorded_once_whoever_fires_it(self, place: StorageSandbox) -> None:
        """Promise 2: of eight firings at once with one key, one is recorded, and all are told its number."""
        hands = [Steps(place.open(), "session") for _ in range(8)]
        answers = at_once([_firing(hand, "paid", key="order 7") for hand in hands])
        assert sum(answer.duplicate_of is None for answer in answers) == 1
        assert {(answer.duplicate_of or answer.fired[0]).number for answer in answers} == {1}
        assert hands[0].head.firings == 1

    # -- rules ---------------------------------------------------------------------------------------------

    def test_sessions_that_share_rules_do_not_share_anything_else(self, storage: Storage) -> None:
        """Promise 6: a rule set that two sessions have in common stays as it is when one of them gets another."""
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

    def test_rules_come_back_as_they_went_in(self, steps: Steps) -> None:
        """Promise 6: conditions, parameters, runners and custom directives are read back from any handle."""
        written = {
            "t": {
                "after": {"any": ["a", {"all": ["b", "c"]}]},
                "unless": {"atLeast": 2, "of": ["x", "y", "z"]},
                "andEvery": "a",
                "run": "run",
                "using": "threads",
                "withParams": {"api": {"timeout": 5, "nested": {"list": [1, None]}}},
                "colour": {"deep": [1.5, None, "\N{PILE OF POO}"]},
            }
        }
        stored = steps.configure(written).session.rules
        rule = steps.head.rules.rules["t"]
        assert rule == stored.rules["t"]
        assert (rule.run, rule.using, rule.and_every) == ("run", "threads", "a")
        assert rule.with_params == written["t"]["withParams"]
        assert rule.extras == {"colour": written["t"]["colour"]}
        assert steps.head.rules.digest == stored.digest

    def test_new_rules_decide_the_unstarted_instances_again(self, steps: Steps) -> None:
        """Promise 1: a change of rules, the instances that it starts and the index change together."""
        steps.configure(SURVEY)
        steps.fire("first")
        assert steps.waiting("complete") == {"t_subject#0"}
        steps.configure({**SURVEY, "t_subject": {"after": ["first"], "run": "survey.Subject"}})
        assert steps.statuses()["t_subject#0"] == "scheduled"
        assert steps.waiting("complete") == set()

    def test_removed_tasks_wait_for_nothing_until_they_are_back(self, steps: Steps) -> None:
        """Promise 1: the instances of a removed task are touched by no firing, and by those after its return."""
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
        """Promise 2: a catch-up decides from every firing there was, in their order, each with its own kwargs."""
        for n in range(3):
            steps.fire("page", {"n": n})
        steps.configure({"t_page": {"andEvery": "page", "run": "page"}}, catch_up=True)
        assert [kwargs["page"]["n"] for kwargs in steps.kwargs_of(steps.instances())] == [0, 1, 2]
        assert set(steps.statuses().values()) == {"scheduled"}

    # -- what a session keeps --------------------------------------------------------------------------------

    def test_another_handle_sees_everything(
        self, place: StorageSandbox, steps: Steps, storage: Storage
    ) -> None:
        """Promise 3: what one handle has stored, another one opened later shows, and goes on from there."""
        steps.configure(SURVEY)
        steps.fire("first", {"page": 1}, key="k")
        steps.fire("complete")
        attempt = steps.start("t_subject#0")
        steps.keep_logs(attempt, batch(entry("Half way.")))
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

    def test_a_session_belongs_to_the_manager_that_made_it(self, storage: Storage) -> None:
        """Promise 8: another manager may not change it, and it is as it was."""
        mine = Steps(storage, "session", Policy(manager="mine"))
        mine.fire("first")
        other = Steps(storage, "session", Policy(manager="another"))
        with pytest.raises(ManagerMismatchError, match="mine"):
            other.fire("first")
        assert (mine.head.manager, mine.head.firings) == ("mine", 1)

    def test_times_are_those_of_the_storage(
        self, place: StorageSandbox, steps: Steps, storage: Storage
    ) -> None:
        """Promise 7: firings, instances and the session carry the storage's time."""
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

    def test_metadata_is_added_to(self, steps: Steps) -> None:
        """Promise 6: keys are added to the metadata of sessions and instances, and come back as they went in."""
        steps.configure(SURVEY)
        steps.fire("first")
        steps.describe({"a": 1, "b": timedelta(days=1)})
        steps.describe({"a": [2]})
        steps.add_metadata("t_subject#0", {"note": "\N{PILE OF POO}"})
        assert decode(steps.head.metadata) == {"a": [2], "b": timedelta(days=1)}
        assert decode(steps["t_subject#0"].metadata) == {"note": "\N{PILE OF POO}"}
        assert steps.waiting("complete") == {"t_subject#0"}, "who waits still waits"

    def test_sessions_do_not_touch_each_other(self, storage: Storage) -> None:
        """Promise 2: the same names in another session are other triggers, tasks and instances."""
        one, two = Steps(storage, "one"), Steps(storage, "two")
        for steps in (one, two):
            steps.configure(SURVEY)
            steps.fire("first", {"uid": steps.uid})
        one.fire("complete")
        one.run("t_subject#0")
        assert two.statuses() == {"t_browser#0": "scheduled", "t_subject#0": "unstarted"}
        assert two.kwargs("t_subject#0") == {"first": {"uid": "two"}}
        assert (one.head.firings, two.head.firings) == (3, 1)

    # -- finalising ------------------------------------------------------------------------------------------

    def test_a_session_finalises_with_the_end_of_its_last_task_and_once(self, storage: Storage) -> None:
        """Promise 1: the finalising trigger is fired in the commit that completes the session, once."""
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

    def test_it_finalises_once_whichever_end_is_last(self, place: StorageSandbox) -> None:
        """Promise 2: four last ends at once complete the session exactly once."""
        policy = Policy(finalizing=Finalizing("over"))
        hands = [Steps(place.open(), "session", policy) for _ in range(4)]
        hands[0].configure({f"t_{n}": {"after": ["a"], "run": "a"} for n in range(4)})
        hands[0].fire("a")
        attempts = [hands[0].start(f"t_{n}#0") for n in range(4)]
        at_once([_ending(hand, attempt) for hand, attempt in zip(hands, attempts, strict=True)])
        assert [firing.trigger for firing in hands[0].firings()].count("over") == 1
        assert hands[0].head.pending == 0

    def test_unresolved_records_hold_the_end_back(self, storage: Storage) -> None:
        """Promise 1: with a highest level, a session ends only once a person has reviewed what is above it."""
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

    def test_records_of_the_last_end_hold_it_back_too(self, storage: Storage) -> None:
        """Promise 1: what the completing attempt itself has said counts, and what is below the level does not."""
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
