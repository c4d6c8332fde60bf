"""What a decision says of itself, and how it is run."""

from __future__ import annotations

import inspect
from contextlib import suppress
from dataclasses import FrozenInstanceError

import pytest

from triggers.core import decisions
from triggers.core.exchange import Changes, Decision, Need, NeedsSession, Slice, TimersDue
from triggers.core.rules import NO_RULES, rule_set
from triggers.core.state import Firing, Instance, Session
from triggers.core.status import Status
from triggers.core.terms import AttemptReport, Policy, Terms
from triggers.core.timers import FIRES, Timer
from triggers.exceptions import ManagerMismatchError, UnknownInstanceError
from triggers.storages.base import run_decision

RULES = rule_set(
    {
        "t": {"after": ["a", "b"], "run": "r"},
        "u": {"after": ["t"], "unless": ["c"], "run": "r"},
    }
)
POLICY = Policy()
ATTEMPT = AttemptReport("t", 0, 1)

#: Those that change one instance and nothing else of the session.
SHARED = {"claim", "release", "keep_logs", "recover", "lose", "abort"}

DECISIONS = {
    "fire": decisions.fire(POLICY, Firing(0, "a", "{}", 0), RULES),
    "fire, with a key": decisions.fire(POLICY, Firing(0, "a", "{}", 0, key="k"), RULES),
    "configure": decisions.configure(POLICY, RULES),
    "import_session": decisions.import_session(POLICY, decisions.ImportedSession(RULES, (), (), "{}", 0)),
    "configure, merging": decisions.configure(POLICY, RULES, merge=True),
    "set_timer": decisions.set_timer(POLICY, Timer("a", 0, 0, FIRES, 0, trigger="a"), 1),
    "cancel_timer": decisions.cancel_timer(POLICY, "a"),
    "elapse": decisions.elapse(POLICY),
    "replay": decisions.replay(POLICY, "t", 0),
    "skip": decisions.skip(POLICY, "t", 0),
    "skip, with a result": decisions.skip(POLICY, "t", 0, result="{}"),
    "set_status": decisions.set_status(POLICY, "t", 0, Status.SCHEDULED),
    "set_status, with a result": decisions.set_status(POLICY, "t", 0, Status.FINISHED, result="{}"),
    "add_metadata": decisions.add_metadata(POLICY, "t", 0, {}),
    "add_session_metadata": decisions.add_session_metadata(POLICY, {}),
    "resolve_logs": decisions.resolve_logs(POLICY, "t", 0, {}),
    "reopen_logs": decisions.reopen_logs(POLICY, "t", 0, {}),
    "claim": decisions.claim(POLICY, "t", 0, "worker", lambda *_: Terms(1)),
    "finish": decisions.finish(POLICY, ATTEMPT, "{}", RULES),
    "fail": decisions.fail(POLICY, ATTEMPT, "{}"),
    "skip_running": decisions.skip_running(POLICY, ATTEMPT),
    "release": decisions.release(POLICY, ATTEMPT),
    "keep_logs": decisions.keep_logs(POLICY, ATTEMPT),
    "recover": decisions.recover(POLICY, "t", 0, 1, str),
    "lose": decisions.lose(POLICY, "t", 0, "m", str),
    "abort": decisions.abort(POLICY, "t", 0, "m", "{}"),
}

#: The caller's rules are not given, or of no use, or it needs nothing.
UNKNOWN = {
    "configure",
    "configure, merging",
    "skip, with a result",
    "set_status, with a result",
    "add_session_metadata",
}


def head(**given):
    return Session("s", 5, 1, RULES, **given)


@pytest.mark.parametrize("called", DECISIONS)
def test_a_decision_knows_its_name_and_whether_it_is_exclusive(called):
    """The name is the function's, and only what concerns one instance is not exclusive."""
    decision = DECISIONS[called]
    assert decision.name == called.partition(",")[0]
    assert decision.exclusive == (decision.name not in SHARED)
    with pytest.raises(FrozenInstanceError):
        decision.exclusive = not decision.exclusive


def test_every_decision_is_looked_at_here():
    """There are no other decisions than these tests know."""
    functions = {name for name in decisions.__all__ if inspect.isfunction(getattr(decisions, name))}
    names_of_claims = {"labelled", "is_labelled", "alone", "is_alone"}
    assert functions - names_of_claims == {decision.name for decision in DECISIONS.values()}


@pytest.mark.parametrize("called", DECISIONS)
def test_timers_elapse_before_whatever_concerns_the_session(called):
    """Only a session that begins, and the decision that lets them elapse, do not ask for that."""
    decision = DECISIONS[called]
    if decision.name in {*SHARED, "import_session", "elapse"}:
        with suppress(UnknownInstanceError):
            run_decision(decision, head(next_timer_at=5), nothing, exclusive=True)
        return
    with pytest.raises(TimersDue):
        run_decision(decision, head(next_timer_at=5), nothing, exclusive=True)
    with suppress(UnknownInstanceError):
        run_decision(decision, head(next_timer_at=6), nothing, exclusive=True)


@pytest.mark.parametrize("called", DECISIONS)
def test_what_a_decision_foresees_is_what_it_asks_for_first(called):
    """With the rules that its caller knew; with others it asks for what it needs by those."""
    decision = DECISIONS[called]
    first = next(decision(head()))
    assert decision.prefetch == (None if called in UNKNOWN else first)
    if "fire" in called:
        other = next(decision(Session("s", 5, 1, NO_RULES)))
        assert other == Need(key=decision.prefetch.key)


def test_without_rules_nothing_is_foreseen_that_depends_on_them():
    """A firing and a finish touch what the rules say."""
    assert decisions.fire(POLICY, Firing(0, "a", "{}", 0)).prefetch is None
    assert decisions.finish(POLICY, ATTEMPT, "{}").prefetch is None


def test_a_policy_can_be_found_by_the_managers_name():
    """It is asked for when the session is known; where it is not there, the default one of that name counts."""
    asked = []

    def policy_of(manager):
        asked.append(manager)
        return Policy("mine", grace=7) if manager == "mine" else None

    move = decisions.set_status(policy_of, "t", 0, Status.SCHEDULED)
    for manager, grace in (("mine", 7), ("other", Policy().grace)):
        found = Slice(instances=[Instance("t", 0, Status.UNSTARTED, 0, 0)])
        changes = run_decision(move, head(manager=manager), lambda _, found=found: found, exclusive=True)
        assert changes.transitioned[0][0].dispatch_after == 5 + grace
    assert asked == ["mine", "other"]
    with pytest.raises(ManagerMismatchError):
        next(decisions.set_status(Policy("mine"), "t", 0, Status.SCHEDULED)(head(manager="other")))


# -- how it is run ------------------------------------------------------------------------------------------------


def nothing(_):
    return Slice()


def test_a_decision_that_asks_for_nothing_is_run_to_its_end():
    """Its changes come back, and not the StopIteration that carries them."""

    def begin(session):
        yield from ()
        return Changes(session)

    session = head()
    assert run_decision(Decision("test", begin), session, nothing, exclusive=True).session is session


def test_a_run_is_told_whether_it_is_exclusive():
    """Whatever the head had said before, and whatever the decision would need."""
    seen = []

    def begin(session):
        yield Need()
        seen.append(session.exclusive)
        return Changes(session, writes_head=False)

    for exclusive in (True, False):
        run_decision(Decision("test", begin), head(exclusive=not exclusive), nothing, exclusive=exclusive)
    assert seen == [True, False]


def test_only_a_run_that_is_not_exclusive_may_ask_for_the_session():
    """In an exclusive one that is a mistake of the decision, and the error names it."""

    def begin(_):
        yield Need()
        raise NeedsSession

    with pytest.raises(NeedsSession):
        run_decision(Decision("greedy", begin), head(), nothing, exclusive=False)
    with pytest.raises(
        RuntimeError, match=r"decision 'greedy' raised NeedsSession .* check session\.exclusive"
    ):
        run_decision(Decision("greedy", begin, exclusive=False), head(), nothing, exclusive=True)


@pytest.mark.parametrize(
    "changed",
    [
        {"writes_head": True},
        {"new_rules": True},
        {"fired": [Firing(1, "a", "{}", 5)]},
        {"created": [Instance("t", 0, Status.SCHEDULED, 5, 5)]},
        {"counters": {"t": None}},
    ],
    ids=str,
)
def test_what_changes_the_session_is_decided_exclusively(changed):
    """A run that is not exclusive and changes more than single instances is as one that asks for the session."""

    def begin(session):
        yield Need()
        return Changes(session, **{"writes_head": False} | changed)

    with pytest.raises(NeedsSession):
        run_decision(Decision("test", begin, exclusive=False), head(), nothing, exclusive=False)
    assert run_decision(Decision("test", begin, exclusive=False), head(), nothing, exclusive=True)


def test_a_stop_iteration_of_the_storage_is_not_the_end_of_the_decision():
    """It is an error of the storage's, and gets out as such."""
    with pytest.raises(StopIteration):
        run_decision(DECISIONS["claim"], head(), lambda _: next(iter(())), exclusive=False)
