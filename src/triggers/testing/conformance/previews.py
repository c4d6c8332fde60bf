# ruff: noqa: E501, S101 - as in tests: docstrings have one line, assert is used
"""Previews: a decision is made on what is stored now, and nothing is stored."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triggers.core import decisions
from triggers.core.configuration import check_configuration
from triggers.core.exchange import Changes, Decision, Need, NeedsSession
from triggers.core.state import new_firing
from triggers.core.status import Status
from triggers.core.terms import Finalizing, Policy
from triggers.exceptions import (
    IdempotencyConflictError,
    InvalidStatusError,
    ManagerMismatchError,
    UnknownInstanceError,
    UnknownSessionError,
)
from triggers.testing.conformance import strategies
from triggers.testing.conformance.fixtures import SURVEY, StorageFixtures, batch, entry
from triggers.testing.conformance.steps import PreviewedSteps, Steps, without_refs

if TYPE_CHECKING:
    from triggers.core.exchange import DecisionRun
    from triggers.core.state import Session
    from triggers.storages.base import Storage
    from triggers.testing.conformance.sandbox import StorageSandbox

#: How many times fewer histories are generated than other examples: each has many steps.
FEWER: Final = 5

#: How each instance of a generated history ends, and what a person does after a failure.
_ENDS: Final = st.lists(st.sampled_from(["finish", "replay", "skip", "cascade", "run"]), max_size=6)


class UnchangedSteps(PreviewedSteps):
    """Steps whose previews must leave everything that is stored as it was."""

    def preview(self, decision: Decision) -> Changes:
        """Preview any decision, and compare what is stored before and after."""
        before = everything(self)
        try:
            return super().preview(decision)
        finally:
            assert everything(self) == before


def everything(steps: Steps) -> dict[str, Any]:
    """Return all that a storage shows of a session, and of itself."""
    reader = steps.storage.reader
    head = reader.session(steps.uid)
    triggers = tuple(sorted(head.rules.listeners)) if head else ()
    return {
        "head": head,
        "sessions": [(each.uid, each.firings) for each in reader.sessions()],
        "instances": steps.instances(),
        "firings": steps.firings(),
        "counters": reader.counters(steps.uid),
        "logs": reader.logs(steps.uid),
        "waiting": Steps(steps.storage, steps.uid).look(Need(None, None, triggers, frozenset(triggers))),
        "storage": (reader.backlog(), reader.next_at()),
    }


def firing(steps: Steps, trigger: str, kwargs: Any = None, key: str | None = None) -> Decision:
    """Return the decision that fires a trigger."""
    return decisions.fire(steps.policy, new_firing(trigger, kwargs, key))


class Previews(StorageFixtures):
    """Tests of promise 16: previews."""

    @pytest.fixture
    def committing(self, place: StorageSandbox) -> Storage:
        """A handle whose commits may be in progress during a preview. Skip if one lock excludes that."""
        return place.open()

    @pytest.fixture
    def overtaking(self, place: StorageSandbox) -> Storage:
        """A handle that can commit during a preview. Skip if a lock excludes that."""
        return place.open()

    def test_a_preview_equals_the_commit_that_follows(self, storage: Storage) -> None:
        """Promise 16: the commit has the same changes as the preview before it, which changes nothing."""
        uids = itertools.count()

        @settings(max_examples=max(settings().max_examples // FEWER, 1))
        @given(
            configuration=strategies.configurations(),
            firings=strategies.sequences(max_size=4, keys=("k",)),
            ends=_ENDS,
            finalizing=st.booleans(),
        )
        def check(configuration: Any, firings: Any, ends: list[str], *, finalizing: bool) -> None:
            policy = Policy(finalizing=Finalizing("d") if finalizing else None)
            steps = UnchangedSteps(storage, f"session {next(uids)}", policy)
            steps.configure(configuration)
            left = iter(ends)
            for trigger, kwargs, key in firings:
                with suppress(IdempotencyConflictError):
                    steps.fire(trigger, kwargs, key)
                scheduled = [each for each in steps.instances() if each.status is Status.SCHEDULED]
                for instance, end in zip(scheduled, left, strict=False):
                    _end(steps, instance.name, end)

        check()

    def test_a_firing_is_previewed_with_all_that_follows(self, storage: Storage) -> None:
        """Promise 16: a veto, its outcome, and the instance that this creates are in the changes; nothing is stored."""
        steps = Steps(storage, policy=Policy(finalizing=Finalizing("end")))
        steps.configure(
            {
                "t_x": {"after": ["go", "never"], "unless": ["stop"], "run": "r"},
                "t_y": {"after": ["t_x:abandoned"], "run": "r"},
                "t_z": {"after": ["end"], "run": "r"},
            }
        )
        steps.fire("go")
        before = everything(steps)
        changes = steps.preview(firing(steps, "stop", {"n": 1}))
        assert [fired.trigger for fired in changes.fired] == ["stop", "t_x:abandoned"]
        assert [(each.name, each.status) for each in changes.triggered] == [("t_x#0", Status.ABANDONED)]
        assert [instance.name for instance in changes.scheduled()] == ["t_y#0"]
        assert everything(steps) == before
        assert without_refs(steps.fire("stop", {"n": 1})) == without_refs(changes)

    def test_every_decision_about_an_instance_can_be_previewed(self, storage: Storage) -> None:
        """Promise 16: a worker's and a person's, with log records, reviews and new rules."""
        steps = UnchangedSteps(storage, policy=Policy(finalizing=Finalizing("end", 30)))
        steps.configure(SURVEY)
        for trigger in ("first", "complete", "page"):
            steps.fire(trigger, {"n": 1})
        attempt = steps.start("t_subject#0")
        steps.keep_logs(attempt, batch(entry(level=30), entry(level=40)))
        steps.fail(attempt)
        steps.replay("t_subject#0", {"first": {"n": 2}})
        steps.run("t_subject#1", {"id": 7})
        steps.run("t_browser#0")
        steps.release(steps.start("t_page#0"))
        steps.fail(steps.start("t_page#0"))
        steps.skip("t_page#0", {"page": 1})
        steps.resolve_logs("t_subject#0", {"by": "me"}, through=1)
        steps.reopen_logs("t_subject#0", {"by": "me"})
        steps.add_metadata("t_page#0", {"why": "tried"})
        steps.describe({"why": "tried"})
        steps.configure({"t_late": {"after": ["first", "page"], "run": "r"}}, catch_up=True, merge=True)
        steps.start("t_late#0")
        steps.set_status("t_late#0", Status.FINISHED, {"why": "done"}, {"late": 1})
        assert steps.statuses()["t_late#0"] == "finished"

    def test_a_decision_that_raises_is_refused_in_a_preview(self, steps: Steps) -> None:
        """Promise 16: with the exception of the commit; nothing is stored."""
        with pytest.raises(UnknownSessionError, match="there is no session 'session'"):
            steps.preview(decisions.replay(steps.policy, "t", 0))
        steps.configure(SURVEY)
        steps.fire("first", {"n": 1}, "k")
        before = everything(steps)
        policy = steps.policy
        for decision, error in (
            (firing(steps, "first", {"n": 2}, "k"), IdempotencyConflictError),
            (decisions.skip(policy, "t_browser", 0), InvalidStatusError),
            (decisions.replay(policy, "t_browser", 7), UnknownInstanceError),
            (decisions.add_session_metadata(Policy("another"), {}), ManagerMismatchError),
        ):
            with pytest.raises(error):
                steps.preview(decision)
        assert everything(steps) == before

    def test_a_preview_uses_up_no_key(self, steps: Steps) -> None:
        """Promise 16: the first firing with a key is not a repeat of its preview; the second one is previewed as a repeat."""
        decision = firing(steps, "first", {"n": 1}, "k")
        assert steps.preview(decision).duplicate_of is None
        assert steps.fire("first", {"n": 1}, "k").duplicate_of is None
        repeat = steps.preview(decision)
        assert repeat.duplicate_of is not None
        assert (repeat.duplicate_of.number, repeat.fired) == (1, [])

    def test_a_session_that_does_not_exist_is_not_created(self, steps: Steps) -> None:
        """Promise 16: its first firing and its first configuration can be previewed."""
        assert [fired.number for fired in steps.preview(firing(steps, "first")).fired] == [1]
        rules = check_configuration(SURVEY)
        for _ in range(2):
            changes = steps.preview(decisions.configure(steps.policy, rules))
            assert (changes.new_rules, changes.writes_head) == (True, True)
        assert steps.storage.reader.session(steps.uid) is None
        assert steps.storage.reader.sessions() == []

    def test_rules_that_were_only_previewed_are_not_used(self, steps: Steps) -> None:
        """Promise 16: a firing after the preview of new rules is decided by the stored ones."""
        steps.configure({"t_x": {"after": ["go"], "run": "r"}})
        rules = check_configuration({"t_other": {"after": ["go"], "run": "r"}})
        steps.preview(decisions.configure(steps.policy, rules))
        assert [made.name for made in steps.preview(firing(steps, "go")).created] == ["t_x#0"]
        assert [made.name for made in steps.fire("go").created] == ["t_x#0"]
        steps.commit(decisions.configure(steps.policy, rules))
        assert list(steps.head.rules.rules) == ["t_other"]

    def test_what_a_decision_changes_is_a_copy(self, steps: Steps) -> None:
        """Promise 16: a run that changes what it has loaded, and then raises, leaves nothing behind."""
        steps.configure(SURVEY)
        steps.fire("first", {"n": 1}, "k")
        before = everything(steps)

        def change(session: Session) -> DecisionRun:
            found = yield Need(
                ("first", "k"), None, ("complete",), frozenset({"first"}), (("t_browser", 0),), payloads=True
            )
            session.firings, session.metadata = 99, "[]"
            for instance in found.instances:
                instance.status = Status.FAILED
                instance.taken["more"] = 9
                instance.log_counts[10] = 9
            for counter in found.counters.values():
                counter.created = 99
            found.latest.clear()
            found.payloads.clear()
            raise RuntimeError

        for _ in range(2):
            with pytest.raises(RuntimeError):
                steps.preview(Decision("change", change))
            assert everything(steps) == before

    def test_a_preview_is_exclusive(self, steps: Steps) -> None:
        """Promise 16: a decision that can do without the session gets it, because what it sees is one state."""
        seen = []

        def begin(session: Session) -> DecisionRun:
            seen.append(session.exclusive)
            yield Need()
            if not session.exclusive:
                raise NeedsSession
            return Changes(session)

        steps.preview(Decision("needs", begin, exclusive=False))
        assert seen[-1] is True

    def test_a_preview_waits_for_no_commit(self, steps: Steps, committing: Storage) -> None:
        """Promise 16: it returns while another commit has the session's lock, and sees nothing of that commit."""
        steps.configure(SURVEY)
        inside, leave = threading.Event(), threading.Event()

        def hold(session: Session) -> DecisionRun:
            yield Need(tasks=None, instances=(("t_browser", 0),))
            inside.set()
            leave.wait(60)
            session.metadata = '{"held":true}'
            return Changes(session)

        with ThreadPoolExecutor(1) as pool:
            holding = pool.submit(committing.commit, steps.uid, Decision("hold", hold))
            try:
                assert inside.wait(60)
                changes = steps.preview(firing(steps, "first"))
                assert [made.name for made in changes.created] == ["t_subject#0", "t_browser#0"]
                assert not holding.done()
            finally:
                leave.set()
            holding.result()
        assert steps.head.metadata == '{"held":true}'

    def test_no_commit_waits_for_a_preview(self, steps: Steps, overtaking: Storage) -> None:
        """Promise 16: a firing is stored while a preview of the session is in progress."""
        steps.configure(SURVEY)
        other = Steps(overtaking)
        fired = []

        def look(session: Session) -> DecisionRun:
            yield Need(tasks=None)
            fired.append(other.fire("first"))
            return Changes(session, writes_head=False)

        steps.preview(Decision("look", look))
        assert [changes.fired[0].number for changes in fired] == [1]
        assert steps.head.firings == 1

    def test_a_preview_sees_one_state(self, steps: Steps, overtaking: Storage) -> None:
        """Promise 16: a firing between two of its loads is in all of them, or in none."""
        steps.configure({"t_page": {"andEvery": "page", "run": "page"}})
        other = Steps(overtaking)
        need = Need(tasks=None, latest=frozenset({"page"}))
        to_fire = ["page"]
        seen: set[int] = set()

        def look(session: Session) -> DecisionRun:
            first = yield need
            if to_fire:
                other.fire(to_fire.pop())
            second = yield need
            seen.clear()
            seen.update((session.firings, _pages(first), _pages(second)))
            return Changes(session, writes_head=False)

        steps.preview(Decision("look", look))
        assert seen in ({0}, {1})
        assert not to_fire


def _pages(found: Any) -> int:
    """The number of firings that a slice shows, which are as many as the instances."""
    counter, latest = found.counters.get("t_page"), found.latest.get("page")
    created, number = (counter.created if counter else 0), (latest.number if latest else 0)
    return created if created == number else -1


def _end(steps: Steps, name: str, end: str) -> None:
    """Run a scheduled instance, and end it in one of several ways."""
    if end == "run":
        steps.start(name)
    elif end == "finish":
        steps.run(name, {"r": 1})
    else:
        steps.fail(steps.start(name))
        if end == "replay":
            steps.replay(name)
        else:
            steps.skip(name, {"r": 2} if end == "cascade" else None)
