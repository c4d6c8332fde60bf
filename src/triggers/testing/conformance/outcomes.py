# ruff: noqa: E501, S101 - as in tests: docstrings have one line, assert is used
"""Outcomes: what follows, in the same commit, from the end of an instance."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

from triggers.core import decisions
from triggers.core.rules import LANGUAGE, read_rules, rule_set
from triggers.core.status import Status
from triggers.core.terms import Finalizing, Policy, RetryTerms, Terms
from triggers.core.values import Limits, decode, encode
from triggers.exceptions import InvalidNameError, UnsupportedRulesError
from triggers.testing.conformance.fixtures import StorageFixtures
from triggers.testing.conformance.steps import LEASE, SECOND, Steps, attempt_at

if TYPE_CHECKING:
    from triggers.storages.base import Storage
    from triggers.testing.conformance.sandbox import StorageSandbox


def rules(**tasks: Any) -> dict[str, Any]:
    """Return a configuration: task → its `after`, or its directives without `run`."""
    return {
        task: {"run": "r", **(given if isinstance(given, dict) else {"after": given})}
        for task, given in tasks.items()
    }


def fired(steps: Steps) -> list[str]:
    """Return the triggers that have fired, in order."""
    return [firing.trigger for firing in steps.firings()]


#: A task with a clean-up after its failure, and one that waits for its end, whatever it is.
CLEANUP = rules(t_x=["go"], t_clean=["t_x:failed"], t_after=["t_x:ended"])


class Outcomes(StorageFixtures):
    """Tests of promise 15: the end of an instance fires the outcomes that rules name, in its own commit."""

    def test_a_failure_fires_its_outcome_and_then_the_end(self, storage: Storage) -> None:
        """Promise 15: both have kwargs, a depth and a source, and what waits for them is scheduled at once."""
        steps = Steps(storage)
        steps.configure(CLEANUP)
        steps.fire("go")
        changes = steps.fail(steps.start("t_x#0"), {"type": "ValueError", "message": "no", "traceback": "…"})
        assert sorted(instance.name for instance in changes.scheduled()) == ["t_after#0", "t_clean#0"]
        assert steps.statuses() == {"t_x#0": "failed", "t_clean#0": "scheduled", "t_after#0": "scheduled"}
        failed, ended = steps.firings()[1:]
        assert (failed.trigger, failed.depth, failed.source) == ("t_x:failed", 1, "t_x#0")
        assert decode(failed.kwargs) == {
            "instance": "t_x#0",
            "error": {"type": "ValueError", "message": "no"},
            "exhausted": False,
            "lost": False,
        }
        assert (ended.trigger, ended.depth, ended.source) == ("t_x:ended", 1, "t_x#0")
        assert decode(ended.kwargs) == {"instance": "t_x#0", "outcome": "failed"}

    def test_a_finished_instance_fires_its_name_and_then_the_end(self, storage: Storage) -> None:
        """Promise 15: no outcome but `ended`."""
        steps = Steps(storage)
        steps.configure(CLEANUP)
        steps.fire("go")
        steps.run("t_x#0", {"a": 1})
        assert fired(steps) == ["go", "t_x", "t_x:ended"]
        assert decode(steps.firings()[-1].kwargs)["outcome"] == "finished"
        assert steps.statuses() == {"t_x#0": "finished", "t_after#0": "scheduled"}

    def test_what_no_rule_names_is_not_fired(self, storage: Storage) -> None:
        """Promise 15: without such rules, a session is stored as before."""
        steps = Steps(storage)
        steps.configure(rules(t_x=["go"]))
        steps.fire("go")
        steps.fail(steps.start("t_x#0"))
        assert fired(steps) == ["go"]
        assert decode(steps.head.rules.body) == rules(t_x=["go"])

    def test_a_retry_is_no_end(self, storage: Storage) -> None:
        """Promise 15: only the last failure of a chain of retries is an outcome, and it is exhausted."""
        steps = Steps(storage)
        steps.configure(CLEANUP)
        steps.fire("go")
        terms = RetryTerms(0, 1, encode({"type": "MaxRetriesExceeded", "message": "no more"}, ""))
        steps.fail(steps.start("t_x#0"), retry=terms)
        assert fired(steps) == ["go"]
        steps.fail(steps.start("t_x#1"), retry=terms)
        assert fired(steps) == ["go", "t_x:failed", "t_x:ended"]
        kwargs = decode(steps.firings()[1].kwargs)
        assert (kwargs["instance"], kwargs["exhausted"], kwargs["lost"]) == ("t_x#1", True, False)

    def test_an_instance_ends_once(self, storage: Storage) -> None:
        """Promise 15: skipping a failed instance fires its outcome and no second end; replaying fires neither."""
        steps = Steps(storage)
        steps.configure({**CLEANUP, **rules(t_skipped={"andEvery": "t_x:skipped"})})
        steps.fire("go")
        steps.fail(steps.start("t_x#0"))
        steps.replay("t_x#0")
        assert fired(steps) == ["go", "t_x:failed", "t_x:ended"]
        steps.fail(steps.start("t_x#1"))
        steps.skip("t_x#1")
        assert fired(steps)[3:] == ["t_x:failed", "t_x:ended", "t_x:skipped"]
        assert steps.statuses()["t_skipped#0"] == "scheduled"

    def test_a_skip_with_a_cascade_fires_the_name_first(self, storage: Storage) -> None:
        """Promise 15: the order is the name, then the outcome."""
        steps = Steps(storage)
        steps.configure(rules(t_x=["go"], t_skipped=["t_x:skipped"], t_y=["t_x"]))
        steps.fire("go")
        steps.fail(steps.start("t_x#0"))
        steps.skip("t_x#0", {"r": 1})
        assert fired(steps) == ["go", "t_x", "t_x:skipped"]
        assert steps.statuses()["t_y#0"] == steps.statuses()["t_skipped#0"] == "scheduled"

    def test_a_task_that_skips_itself_ends(self, storage: Storage) -> None:
        """Promise 15: it fires `skipped` and `ended`."""
        steps = Steps(storage)
        steps.configure(rules(t_x=["go"], t_a=["t_x:skipped"], t_b=["t_x:ended"]))
        steps.fire("go")
        steps.skip_running(steps.start("t_x#0"))
        assert fired(steps) == ["go", "t_x:skipped", "t_x:ended"]

    def test_vetoes_lead_from_one_abandoned_instance_to_the_next(self, storage: Storage) -> None:
        """Promise 15: in one commit, with one more in the depth each time, and by task and number."""
        steps = Steps(storage)
        steps.configure(
            rules(
                t_b={"after": ["never"], "andEvery": "make", "unless": ["stop"]},
                t_a={"after": ["never"], "andEvery": "make", "unless": ["t_b:abandoned"]},
                t_c=["t_a:ended"],
                t_d={"andEvery": "t_b:ended"},
            )
        )
        steps.fire("make")
        steps.fire("make")
        changes = steps.fire("stop")
        assert [instance.name for instance in changes.scheduled()] == ["t_d#0", "t_d#1", "t_c#0"]
        assert [(firing.trigger, firing.source, firing.depth) for firing in steps.firings()[2:]] == [
            ("stop", "", 0),
            ("t_b:abandoned", "t_b#0", 1),
            ("t_b:ended", "t_b#0", 1),
            ("t_b:abandoned", "t_b#1", 1),
            ("t_b:ended", "t_b#1", 1),
            ("t_a:ended", "t_a#0", 2),
            ("t_a:ended", "t_a#1", 2),
        ]

    def test_new_rules_that_abandon_fire_outcomes(self, storage: Storage) -> None:
        """Promise 15: in the commit that stores the rules."""
        steps = Steps(storage)
        others = rules(t_y=["a", "t_x:abandoned"], t_z=["t_x:abandoned"])
        steps.configure({**others, **rules(t_x={"after": ["a", "b"], "unless": ["c", "d"]})})
        steps.fire("a")
        steps.fire("c")
        assert steps.statuses() == {"t_x#0": "unstarted", "t_y#0": "unstarted"}
        steps.configure({**others, **rules(t_x={"after": ["a", "b"], "unless": ["c"]})})
        assert fired(steps) == ["a", "c", "t_x:abandoned"]
        assert steps.statuses() == {"t_x#0": "abandoned", "t_y#0": "scheduled", "t_z#0": "scheduled"}

    def test_an_outcome_of_new_rules_meets_earlier_firings(self, storage: Storage) -> None:
        """Promise 15: an instance that it creates receives the latest firings of its other triggers."""
        steps = Steps(storage)
        steps.configure(rules(t_x={"after": ["a", "b"], "unless": ["c", "d"]}))
        steps.fire("a")
        steps.fire("c")
        steps.configure(rules(t_x={"after": ["a", "b"], "unless": ["c"]}, t_y=["a", "t_x:abandoned"]))
        assert steps.statuses() == {"t_x#0": "abandoned", "t_y#0": "scheduled"}

    def test_a_status_set_by_hand_is_an_end(self, storage: Storage) -> None:
        """Promise 15: a failure by hand has no error."""
        steps = Steps(storage)
        steps.configure(CLEANUP)
        steps.fire("go")
        steps.start("t_x#0")
        steps.set_status("t_x#0", Status.FAILED)
        assert fired(steps) == ["go", "t_x:failed", "t_x:ended"]
        assert decode(steps.firings()[1].kwargs)["error"] is None

    def test_a_lost_worker_leads_to_the_clean_up(self, storage: Storage, place: StorageSandbox) -> None:
        """Promise 15: the recovery that fails the instance schedules the clean-up, and a late end is refused."""
        steps = Steps(storage)
        steps.configure(CLEANUP)
        steps.fire("go")
        attempt = attempt_at(steps.claim("t_x#0", crash_budget=0).claimed)  # type: ignore[arg-type]  # it was granted
        for _ in range(2):  # the first time, its worker gets time to send a heartbeat
            place.advance(timedelta(microseconds=LEASE + decisions.TRIAL + SECOND))
            steps.recover("t_x#0", attempt.fence)
        assert steps.statuses() == {"t_x#0": "failed", "t_clean#0": "scheduled", "t_after#0": "scheduled"}
        assert fired(steps) == ["go", "t_x:failed", "t_x:ended"]
        assert decode(steps.firings()[1].kwargs)["lost"] is True
        assert steps.finish(attempt).refused
        assert fired(steps) == ["go", "t_x:failed", "t_x:ended"]

    def test_a_process_without_the_manager_leaves_such_a_failure_to_others(
        self, storage: Storage, place: StorageSandbox
    ) -> None:
        """Promise 15: it cannot know how the session is finalized, so the instance leaves its page for a while."""
        steps = Steps(storage)
        steps.configure(CLEANUP)
        steps.fire("go")
        fence = steps.claim("t_x#0", crash_budget=0).claimed.fence  # type: ignore[union-attr]  # it was granted
        stranger = decisions.recover(lambda _: None, "t_x", 0, fence, lambda _: encode("lost", ""))
        place.advance(timedelta(microseconds=LEASE + SECOND))
        assert not steps.commit(stranger).refused, "the trial needs no manager"
        place.advance(timedelta(microseconds=decisions.TRIAL + SECOND))
        assert steps.commit(stranger).refused == decisions.NO_MANAGER
        assert storage.expired(10) == []
        assert steps.statuses() == {"t_x#0": "running"}
        place.advance(timedelta(seconds=2))
        assert len(storage.expired(10)) == 1
        assert not steps.recover("t_x#0", fence).refused
        assert steps.statuses()["t_clean#0"] == "scheduled"

    def test_a_message_that_fails_its_instance_leads_to_the_clean_up(self, storage: Storage) -> None:
        """Promise 15: whether its worker died or it cannot be run; a process without the manager leaves both alone."""
        steps = Steps(storage)
        steps.configure({**CLEANUP, **rules(t_x={"andEvery": "go"}, t_clean={"andEvery": "t_x:failed"})})
        steps.fire("go")
        steps.fire("go")
        owner = decisions.labelled("worker", "message")
        assert steps.claim("t_x#0", owner, crash_budget=0).claimed
        error = encode({"type": "Rejected", "message": "no"}, "")

        def stranger(_: str) -> None:
            return None

        for policy in (stranger, steps.policy):
            lost = steps.commit(decisions.lose(policy, "t_x", 0, "message", lambda _: error))
            aborted = steps.commit(decisions.abort(policy, "t_x", 1, "another", error))
            refusal = "" if isinstance(policy, Policy) else decisions.NO_MANAGER
            assert (lost.refused, aborted.refused) == (refusal, refusal)
        failures = [decode(firing.kwargs) for firing in steps.firings() if firing.trigger == "t_x:failed"]
        assert [(kwargs["instance"], kwargs["lost"]) for kwargs in failures] == [
            ("t_x#0", True),
            ("t_x#1", False),
        ]
        assert failures[1]["error"] == {"type": "Rejected", "message": "no"}
        assert steps.statuses()["t_clean#0"] == steps.statuses()["t_clean#1"] == "scheduled"

    def test_a_healthy_session_is_finalized_without_its_clean_up(self, storage: Storage) -> None:
        """Promise 15: a task that only runs after a failure keeps no session open, nor does what waits for it."""
        steps = Steps(storage, policy=Policy(finalizing=Finalizing("end")))
        steps.configure(rules(t_x=["go"], t_clean=["go", "t_x:failed"], t_told=["t_clean"]))
        steps.fire("go")
        assert steps.statuses() == {"t_x#0": "scheduled", "t_clean#0": "unstarted"}
        changes = steps.run("t_x#0")
        assert fired(steps) == ["go", "t_x", "end"]
        assert changes.session.finalized == changes.fired[-1].number

    def test_a_clean_up_that_has_begun_keeps_the_session_open(self, storage: Storage) -> None:
        """Promise 15: also one that has received an outcome and waits for more."""
        steps = Steps(storage, policy=Policy(finalizing=Finalizing("end")))
        steps.configure(rules(t_x=["go"], t_clean=["ready", "t_x:failed"]))
        steps.fire("go")
        steps.fail(steps.start("t_x#0"))
        steps.skip("t_x#0")
        assert steps.statuses() == {"t_x#0": "skipped", "t_clean#0": "unstarted"}
        assert steps.head.finalized is None
        steps.fire("ready")
        assert steps.head.finalized is None
        steps.run("t_clean#0")
        assert fired(steps)[-1] == "end"

    def test_exceptional_tasks_alone_do_not_finalize(self, storage: Storage) -> None:
        """Promise 15: a session in which nothing usual was configured is not complete."""
        steps = Steps(storage, policy=Policy(finalizing=Finalizing("end")))
        steps.configure(rules(t_x=["end"], t_clean=["t_x:failed"]))
        steps.fire("go")
        assert fired(steps) == ["go"]

    def test_rules_that_change_what_is_exceptional_count_again(self, storage: Storage) -> None:
        """Promise 15: instances that did not keep the session open do so by the new rules, and the other way."""
        steps = Steps(storage, policy=Policy(finalizing=Finalizing("end")))
        clean = rules(t_x=["go"], t_clean=["go", "t_x:failed"], t_last=["t_clean", "go"])
        steps.configure(clean)
        steps.fire("go")
        assert steps.head.pending == 1
        steps.configure({**clean, **rules(t_clean=["go", "more"])})
        assert steps.head.pending == len(clean)
        steps.configure(clean)
        assert steps.head.pending == 1
        steps.run("t_x#0")
        assert fired(steps)[-1] == "end"

    def test_a_task_that_becomes_exceptional_changes_what_others_wait_for(self, storage: Storage) -> None:
        """Promise 15: instances count again whose own rule is the same, but which have received its name."""
        steps = Steps(storage, policy=Policy(finalizing=Finalizing("end")))
        before = rules(t_a=["go"], t_x=["go"], t_clean=["go", "t_a", "t_x:failed"])
        steps.configure(before)
        steps.fire("go")
        steps.run("t_a#0")
        assert steps.head.pending == 1, "the clean-up does not count"
        after = {**before, **rules(t_a=["go", "t_x:abandoned"])}
        for configuration, pending in ((after, 2), (before, 1), (after, 2)):
            steps.configure(configuration)
            assert steps.head.pending == pending
        steps.fail(steps.start("t_x#0"))
        steps.skip("t_x#0")
        steps.run("t_clean#0")
        assert (steps.head.pending, fired(steps)[-1]) == (0, "end")

    def test_what_an_exceptional_task_no_longer_waits_for_does_not_count(self, storage: Storage) -> None:
        """Promise 15: what an instance took under former rules keeps no session open, even if it is exceptional now."""
        steps = Steps(storage, policy=Policy(finalizing=Finalizing("end")))
        before = rules(t_a=["go"], t_x=["go"], t_clean=["never", "t_a"])
        steps.configure(before)
        steps.fire("go")
        steps.run("t_a#0")
        assert steps.head.pending == len(before) - 1
        steps.configure({**before, **rules(t_a=["t_clean"], t_clean=["t_x:failed"])})
        assert steps.head.pending == 1, "the clean-up does not count"
        steps.run("t_x#0")
        assert fired(steps)[-1] == "end"

    def test_a_chain_of_outcomes_has_an_end(self, storage: Storage) -> None:
        """Promise 15: beyond the limit, an outcome is recorded and reaches no task. The check refuses such rules."""
        steps = Steps(storage, policy=Policy(limits=Limits(cascade_depth=5)))
        loop = rules(t_x={"andEvery": "t_x:abandoned", "unless": ["stop"]}, t_y=["t_x:abandoned"])
        steps.commit(decisions.configure(steps.policy, rule_set(loop)))
        first = rules(t_x={"after": ["go", "never"], "unless": ["stop"]})
        steps.commit(decisions.configure(steps.policy, rule_set({**loop, **first})))
        steps.fire("go")
        steps.commit(decisions.configure(steps.policy, rule_set(loop)))
        changes = steps.fire("stop")
        assert [firing.depth for firing in changes.fired] == [0, 1, 2, 3, 4, 5, 6]
        assert [firing.number for firing in changes.too_deep] == [changes.fired[-1].number]
        assert set(steps.statuses().values()) == {"abandoned", "scheduled"}
        assert steps.statuses()["t_x#5"] == "abandoned", "the last one that a delivered outcome has created"

    def test_an_outcome_cannot_be_fired_from_outside(self, storage: Storage) -> None:
        """Promise 15: neither one that a rule names, nor another one of a configured task; nothing is stored."""
        steps = Steps(storage)
        steps.configure(CLEANUP)
        for name in ("t_x:failed", "t_clean:abandoned"):
            with pytest.raises(InvalidNameError, match=f"'{name}' is an outcome of the task"):
                steps.fire(name)
        steps.fire("t_other:failed")
        assert fired(steps) == ["t_other:failed"]

    def test_rules_that_were_stored_before_keep_their_meaning(self, storage: Storage) -> None:
        """Promise 15: without a version of the language, such a name is an ordinary trigger."""
        steps = Steps(storage)
        before = read_rules(encode(CLEANUP, ""))
        steps.commit(decisions.configure(steps.policy, before))
        steps.fire("go")
        steps.fail(steps.start("t_x#0"))
        assert fired(steps) == ["go"]
        steps.fire("t_x:failed")
        assert steps.statuses()["t_clean#0"] == "scheduled"

    def test_a_newer_language_is_refused(self, storage: Storage) -> None:
        """Promise 13: rules with a later version of the language decide nothing."""
        steps = Steps(storage)
        newer = read_rules(encode({"": {"language": LANGUAGE + 1}, **rules(t_x=["go"])}, ""))
        steps.commit(decisions.configure(steps.policy, newer))
        with pytest.raises(UnsupportedRulesError, match=f"version {LANGUAGE + 1} of the rule language"):
            steps.fire("go")
        terms = Terms(LEASE)
        with pytest.raises(UnsupportedRulesError):
            steps.commit(decisions.claim(steps.policy, "t_x", 0, "worker", lambda *_: terms))
        steps.configure(rules(t_x=["go"]))
        steps.fire("go")
        assert steps.statuses() == {"t_x#0": "scheduled"}
