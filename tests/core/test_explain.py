"""Why a task has run, or has not: each reason there is, in words and as data."""

from __future__ import annotations

from datetime import timedelta

import pytest

from triggers import Registry, Status, Triggers
from triggers.core.explain import Waiting
from triggers.task import task
from triggers.testing import TriggersHarness

tasks = Registry()


@task(name="look", registry=tasks)
def look(context):
    """Say how the session looks from inside of a run."""
    view = context.manager.storage
    return {name: view.explain(name).sentence for name in ("t_now", "t_next")}


FAILING = "triggers.testing.Failing"
SKIPPING = "triggers.testing.SelfSkipping"
PASSING = "triggers.testing.PassThrough"


@pytest.fixture
def session():
    """A session of an application whose tasks run inside of the call that fires."""
    with TriggersHarness(registry=tasks, allow_failures=True) as harness:
        yield harness.session("respondent-17")


def after(*names, run=PASSING, **written):
    return {"after": list(names), "run": run, **written}


def said(session, name):
    return session.storage.explain(name).sentence


# -- what a task waits for ------------------------------------------------------------------------------


def test_a_task_without_an_instance_waits_for_all_that_it_needs():
    """In an application with no worker and nothing fired, it has no instance, and lacks every trigger."""
    with Triggers("memory://", runner="inline", complete_registry=False) as app:
        session = app.session("s")
        session.update_configuration({"t": {"after": ["a", "b", "c"], "run": "r"}})
        found = session.storage.explain("t")
    assert found.sentence == "t has no instance yet. t waits for a, b and c (it needs a and b and c)."
    assert found.waiting == (Waiting("t", ("a", "b", "c"), "a and b and c"),)
    assert (found.task, found.known, found.counts, found.waits_for) == ("t", True, {}, ())


def test_a_task_without_an_instance_lacks_nothing_that_was_fired_before_it(session):
    """What was fired before the task was configured counts, though it made no instance."""
    session.fire("a")
    session.update_configuration({"t": after("a", "b")})
    assert said(session, "t") == "t has no instance yet. t waits for b (it needs a and b)."
    session.fire("b")
    assert session.storage["t#0"].status == "finished"


@pytest.mark.parametrize("again", ["a", "b"])
def test_a_task_that_was_configured_too_late_waits_for_any_of_it_again(session, again):
    """It lacks nothing, and says so; whichever trigger is fired again starts it."""
    session.fire("a")
    session.fire("b")
    session.update_configuration({"t": after("a", "b")})
    found = session.storage.explain("t")
    assert found.waiting == (Waiting("t", (), "a and b"),)
    assert found.sentence == (
        "t has no instance yet. t was configured after its triggers had fired (it needs a and b). "
        "It starts when one of them fires again."
    )
    session.fire(again)
    assert said(session, "t") == "t has 1 finished instance."


def test_an_instance_lacks_what_could_still_meet_its_condition(session):
    """Of a part of the condition that is met, nothing is lacking any more, however many triggers it names."""
    two = {"atLeast": 2, "of": ["d", "e", "f"]}
    session.update_configuration({"t": after("a", {"any": ["b", "c"]}, two)})
    needs = "(it needs a and (b or c) and (at least 2 of d, e, f))"
    for trigger, lacks in [("d", "a, b, c, e and f"), ("c", "a, e and f"), ("f", "a")]:
        session.fire(trigger)
        assert said(session, "t") == f"t has 1 unstarted instance. t#0 waits for {lacks} {needs}."
    session.fire("a")
    assert said(session, "t") == "t has 1 finished instance."


def test_a_choice_between_parts_lists_the_triggers_of_each(session):
    """As long as neither part is met, the triggers of both could meet the condition."""
    session.update_configuration({"t": {**after(), "after": {"any": [{"all": ["a", "b"]}, "c"]}}})
    session.fire("a")
    assert (
        said(session, "t") == "t has 1 unstarted instance. t#0 waits for b and c (it needs (a and b) or c)."
    )


def test_each_instance_waits_for_itself(session):
    """What one of them took, another one may lack; what is resolved waits for nothing and is only counted."""
    session.update_configuration({"t": after({"any": ["a", "b"]}, andEvery="p")})
    session.fire("a")
    session.fire("p")
    session.fire("p")
    found = session.storage.explain("t")
    assert (found.sentence, found.waiting) == ("t has 2 finished instances.", ())
    session.update_configuration({"t": after("never", andEvery="p")})
    session.fire("p", {"n": 1})
    session.fire("p", {"n": 2})
    found = session.storage.explain("t")
    assert [(wait.name, wait.lacks) for wait in found.waiting] == [("t#2", ("never",)), ("t#3", ("never",))]
    assert found.sentence == (
        "t has 4 instances: 2 finished and 2 unstarted. t#2 waits for never (it needs never and p). "
        "t#3 waits for never (it needs never and p)."
    )


def test_one_instance_can_be_asked_about_alone(session):
    """By its name: nothing is said about the others of its task."""
    session.update_configuration({"t": after("never", andEvery="p")})
    session.fire("p")
    session.fire("p")
    found = session.storage.explain("t#1")
    assert (found.task, found.counts) == ("t", {"unstarted": 1})
    assert found.sentence == "t has 1 unstarted instance. t#1 waits for never (it needs never and p)."


# -- tasks before it ------------------------------------------------------------------------------------


def test_a_trigger_that_comes_from_a_task_is_traced_to_its_instances(session):
    """Each task that is waited for is told with the status of its instances, or that it has none."""
    session.update_configuration(
        {"u": after("a", "never"), "v": after("z"), "t": after("u", "v", "x"), "w": after("u", "a")}
    )
    session.fire("a")
    found = session.storage.explain("t")
    assert found.waiting[0].upstream == {"u": (("u#0", "unstarted"),), "v": ()}
    assert found.sentence == (
        "t has no instance yet. t waits for u, v and x (it needs u and v and x). "
        "The trigger u fires when the task u finishes; u#0 is unstarted. "
        "The trigger v fires when the task v finishes; v has no instance yet."
    )
    assert said(session, "w") == (
        "w has 1 unstarted instance. w#0 waits for u (it needs u and a). "
        "The trigger u fires when the task u finishes; u#0 is unstarted."
    )


def test_a_failed_instance_before_it_is_what_to_replay_or_skip(session):
    """Wherever upstream it is; the task waits for it, and so do all that come after."""
    session.update_configuration(
        {
            "t_first": after(andEvery="page", run=FAILING),
            "t_second": after("t_first"),
            "t_third": after("t_second"),
        }
    )
    session.fire("page")
    session.fire("page")
    second, third = session.storage.explain("t_second"), session.storage.explain("t_third")
    assert second.waits_for == third.waits_for == ("t_first#0", "t_first#1")
    assert second.sentence == (
        "t_second has no instance yet. t_second waits for t_first. The trigger "
        "t_first fires when the task t_first finishes; t_first#0 is failed and t_first#1 is failed. "
        "Replay or skip t_first#0 and t_first#1 to continue."
    )
    assert third.sentence.endswith(
        "t_second has no instance yet. Replay or skip t_first#0 and t_first#1 to continue."
    )


def test_a_trigger_that_is_nearly_an_outcome_is_pointed_out(session):
    """A rule may name it, because any name can be a trigger; but no end of the task fires it."""
    session.update_configuration({"u": after("a", run=FAILING), "t": after("u:fail"), "w": after("v:fail")})
    session.fire("a")
    assert said(session, "t") == (
        "t has no instance yet. t waits for u:fail. u:fail is not an outcome of u: its outcomes are "
        "u:abandoned, u:ended, u:failed, u:missed and u:skipped."
    )
    assert said(session, "w") == "w has no instance yet. w waits for v:fail."


def test_what_failed_before_it_does_not_hold_up_what_has_run(session):
    """A later failure upstream is no reason to act for a task that waits for nothing."""
    session.update_configuration({"u": after(andEvery="page"), "t": after("u")})
    session.fire("page")
    session.update_configuration({"u": after(andEvery="page", run=FAILING), "t": after("u")})
    session.fire("page")
    assert session.storage["u#1"].status == "failed"
    assert session.storage.explain("t").waits_for == ()
    assert said(session, "t") == "t has 1 finished instance."


def test_tasks_that_wait_for_each_other_are_each_before_the_other(session):
    """In a circle, too, every failed instance is told just once."""
    session.update_configuration(
        {
            "t": {"after": {"any": ["a", "u"]}, "run": FAILING},
            "u": {"after": {"any": ["b", "t"]}, "run": PASSING},
        }
    )
    session.fire("a")
    assert session.storage.explain("t").waits_for == ("t#0",)
    assert said(session, "u") == (
        "u has no instance yet. u waits for b and t (it needs b or t). "
        "The trigger t fires when the task t finishes; t#0 is failed. Replay or skip t#0 to continue."
    )


def test_a_task_that_was_skipped_is_shown_as_what_did_not_fire(session):
    """Where nothing before it is unresolved any more, the resolved instances say why nothing comes."""
    session.update_configuration({"u": after("a", run=SKIPPING), "t": after("u", "b")})
    session.fire("a")
    session.fire("b")
    assert said(session, "t") == (
        "t has 1 unstarted instance. t#0 waits for u (it needs u and b). "
        "The trigger u fires when the task u finishes; u#0 is skipped."
    )


def test_a_replayed_instance_gives_way_to_the_one_that_replays_it(session):
    """As long as there are unresolved instances before it, only they are told."""
    session.update_configuration({"u": after("a", run=FAILING), "t": after("u")})
    session.fire("a")
    session.replay_failed_instance("u#0")
    found = session.storage.explain("t")
    assert found.waiting[0].upstream == {"u": (("u#1", "failed"),)}
    assert found.waits_for == ("u#1",)


def test_a_run_that_is_under_way_is_named(session):
    """From inside of it, its task is running, and what comes after waits for it."""
    session.update_configuration({"t_now": after("a", run="look"), "t_next": after("t_now", "b")})
    session.fire("b")
    session.fire("a")
    seen = session.storage["t_now#0"].result
    owner = seen["t_now"].partition("is running on worker ")[2].partition(",")[0]
    assert owner
    assert seen == {
        "t_now": f"t_now has 1 running instance. t_now#0 is running on worker {owner}, attempt 1.",
        "t_next": "t_next has 1 unstarted instance. t_next#0 waits for t_now (it needs t_now and b). "
        "The trigger t_now fires when the task t_now finishes; t_now#0 is running.",
    }


# -- what stopped it ------------------------------------------------------------------------------------


def test_a_veto_is_named(session):
    """With each trigger of `unless` that abandoned the instance; it waits for nothing."""
    session.update_configuration({"t": after("a", "b", unless=["stop", "quit"])})
    session.fire("a")
    session.fire("stop")
    assert said(session, "t").startswith("t has 1 unstarted instance. t#0 waits for b")
    session.fire("quit")
    found = session.storage.explain("t")
    assert found.vetoed_by == {"t#0": ("stop", "quit")}
    assert found.sentence == "t has 1 abandoned instance. t#0 was abandoned because stop and quit fired."
    assert found.waiting == ()


def test_what_a_person_abandoned_has_no_veto(session):
    """It was abandoned by hand, and the sentence says so."""
    session.update_configuration({"t": after("a", "b")})
    session.fire("a")
    session.update_instance_status("t#0", Status.ABANDONED)
    found = session.storage.explain("t")
    assert found.vetoed_by == {"t#0": ()}
    assert found.sentence == "t has 1 abandoned instance. t#0 was abandoned by hand."


@pytest.mark.parametrize("stop", ["", "."])
def test_a_failed_instance_says_why_and_what_to_do(session, stop):
    """With the error's own words, and one full stop after them, whether they end in one or not."""
    session.update_configuration(
        {"t": after("a", run=FAILING, withParams={"failing": {"message": f"No name{stop}"}})}
    )
    session.fire("a")
    found = session.storage.explain("t")
    assert found.waits_for == ("t#0",)
    assert found.sentence == (
        f"t has 1 failed instance. t#0 {found.remarks['t#0'].removesuffix('.')}. Replay or skip t#0 to continue."
    )
    assert found.remarks["t#0"].endswith(f"FailingError: No name{stop}")


def test_what_no_worker_takes_says_how_often_it_was_returned():
    """Workers of the application lack the task: nothing is missing but one that has it."""
    with TriggersHarness(registry=Registry(), complete_registry=False) as harness:
        session = harness.session("s")
        session.update_configuration({"t": after("a", run="elsewhere")})
        session.fire("a")
        assert said(session, "t") == (
            "t has 1 scheduled instance. t#0 is waiting for a worker that has the task `elsewhere`. "
            "Workers without it returned it once."
        )
        harness.advance(timedelta(seconds=10))
        assert said(session, "t").endswith("Workers without it returned it 4 times.")
        session.replace_configuration({})
        assert "t#0 is scheduled to run at 2026-01-01T00:00:" in said(session, "t")


def test_what_is_due_waits_for_a_worker(session):
    """Its time is over, so that is not what it waits for."""
    with Triggers("memory://", runner=None) as app:
        session = app.session("s")
        session.update_configuration({"t": after("a")})
        session.fire("a")
        assert said(session, "t") == "t has 1 scheduled instance. t#0 is due and waits for a worker."


def test_what_is_due_later_says_when(session):
    """A retry after a cooldown is scheduled; the sentence has the time from which it may run."""
    params = {"retrying": {"times": 1, "cooldown": 60}}
    session.update_configuration({"t": after("a", run="triggers.testing.SelfRetrying", withParams=params)})
    session.fire("a")
    found = session.storage.explain("t")
    assert found.remarks["t#1"] == "is scheduled to run at 2026-01-01T00:01:00+00:00"


# -- what is not configured -----------------------------------------------------------------------------


def test_a_name_that_nothing_has_is_not_configured(session):
    """It is said of the name as it was given, though nothing is known of it, not even instances."""
    session.update_configuration({"t": after("a")})
    found = session.storage.explain("t_nobody")
    assert (found.known, found.counts, found.waiting) == (False, {}, ())
    assert found.sentence == "t_nobody is not configured in this session."


def test_a_task_that_was_removed_waits_for_nothing(session):
    """Its instances are counted; no firing can touch them, so nothing is lacking."""
    session.update_configuration({"t": after("a", "b")})
    session.fire("a")
    session.replace_configuration({})
    found = session.storage.explain("t")
    assert (found.known, found.counts, found.waiting) == (False, {"unstarted": 1}, ())
    assert found.sentence == "t is not configured in this session. t has 1 unstarted instance."


def test_a_failed_instance_of_a_removed_task_can_only_be_skipped(session):
    """To replay it is refused, so it is not what the sentence tells to do."""
    session.update_configuration({"t": after("a", run=FAILING)})
    session.fire("a")
    session.replace_configuration({})
    assert said(session, "t").endswith(". Skip t#0 to continue.")
    assert not session.storage["t#0"].can_replay
    session.skip_failed_instance("t#0")
    assert said(session, "t") == "t is not configured in this session. t has 1 skipped instance."
