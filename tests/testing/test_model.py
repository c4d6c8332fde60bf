"""The reference model, rule by rule, with expected values worked out by hand."""

from __future__ import annotations

import ast
import copy
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest

from triggers.testing.conformance import model as model_module
from triggers.testing.conformance.model import (
    SECOND,
    Model,
    ModelConflict,
    ModelStatusError,
    ModelUnknownTask,
    holds,
    names_in,
    same,
)
from triggers.testing.orders import orders

SURVEY = {
    "t_importSubject": {
        "after": ["firstPageReceived", "questionnaireComplete"],
        "run": "survey.ImportSubject",
    },
    "t_importResponses": {
        "after": ["t_importSubject"],
        "andEvery": "pageReceived",
        "run": "survey.ImportResponses",
    },
    "t_importBrowser": {
        "after": ["t_importSubject", "pageReceived"],
        "unless": ["isEmbedded"],
        "run": "survey.ImportBrowser",
    },
}


def session(configuration, **settings):
    model = Model(**settings)
    model.configure(configuration)
    return model


def task(*after, **more):
    return {"after": list(after), "run": "tests.Task", **more}


def statuses(model):
    return {name: instance.status for name, instance in model.instances.items()}


def fire_all(model, *triggers):
    for trigger in triggers:
        model.fire(trigger)


def run(model, name, result=None):
    assert model.finish(name, model.claim(name), result)


def crash(model, name):
    model.advance(60 * SECOND)
    assert model.claim(name)
    assert model.expire(name)


def failed(model, name):
    assert model.fail(name, model.claim(name), "boom")


def retried(model, name, **more):
    return model.retry(name, model.claim(name), **{"cooldown": 5, "max_retries": 2, **more})


# -- the questionnaire -------------------------------------------------------------------------------------------


def test_the_questionnaire_from_the_first_page_to_the_last():
    """Subject first, then one import of responses per page, with the pages that came before the subject waiting."""
    model = session(SURVEY)
    fire_all(model, "firstPageReceived", "pageReceived", "pageReceived")
    assert statuses(model) == {
        "t_importSubject#0": "unstarted",
        "t_importResponses#0": "unstarted",
        "t_importBrowser#0": "unstarted",
        "t_importResponses#1": "unstarted",
    }
    model.fire("questionnaireComplete")
    run(model, "t_importSubject#0", {"subjectId": 7})
    model.fire("pageReceived", {"page": 3})
    assert statuses(model) == {
        "t_importSubject#0": "finished",
        "t_importResponses#0": "scheduled",
        "t_importBrowser#0": "scheduled",
        "t_importResponses#1": "scheduled",
        "t_importResponses#2": "scheduled",
    }
    assert model.instances["t_importResponses#2"].kwargs == {
        "t_importSubject": {"subjectId": 7},
        "pageReceived": {"page": 3},
    }
    assert [f.number for f in model.firings] == [1, 2, 3, 4, 5, 6]
    assert model.instances["t_importBrowser#0"].taken == {"pageReceived": 2, "t_importSubject": 5}


def test_every_order_of_the_same_firings_schedules_the_same():
    """Whatever order the application's four firings come in, two pages give two imports of responses."""
    for order in orders(["firstPageReceived", "questionnaireComplete", "pageReceived", "pageReceived"]):
        model = session(SURVEY)
        fire_all(model, *order)
        run(model, "t_importSubject#0")
        assert statuses(model) == {
            "t_importSubject#0": "finished",
            "t_importResponses#0": "scheduled",
            "t_importResponses#1": "scheduled",
            "t_importBrowser#0": "scheduled",
        }


def test_an_embedded_questionnaire_has_no_browser_when_it_says_so_first():
    """`unless` abandons what is unstarted, and has no effect on what was scheduled before."""
    early, late = session(SURVEY), session(SURVEY)
    assert early.fire("isEmbedded").abandoned == ("t_importBrowser#0",)
    for model in early, late:
        fire_all(model, "firstPageReceived", "questionnaireComplete")
        run(model, "t_importSubject#0")
        model.fire("pageReceived")
    late.fire("isEmbedded")
    assert statuses(early)["t_importBrowser#0"] == "abandoned"
    assert statuses(late)["t_importBrowser#0"] == "scheduled"


# -- conditions --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("condition", "met", "unmet"),
    [
        (["a", "b"], ["ab", "abc"], ["", "a", "b", "c"]),
        ({"all": ["a", "b"]}, ["ab"], ["a", "b"]),
        ({"any": ["a", "b"]}, ["a", "b", "ab"], ["", "c"]),
        ({"atLeast": 2, "of": ["a", "b", "c"]}, ["ab", "bc", "abc"], ["", "a", "c"]),
        ({"atLeast": 2, "of": ["a", "a", "b"]}, ["ab"], ["a", "b"]),
        (["any", "b"], [["any", "b"]], ["b", ["any"]]),
        (["atLeast", "b"], [["atLeast", "b"]], ["b", ["atLeast"]]),
        ({"any": [{"all": ["a", "b"]}, "c"]}, ["ab", "c"], ["a", "b"]),
        ({"all": [{"any": ["a", "b"]}, {"atLeast": 1, "of": ["c"]}]}, ["ac", "bc"], ["ab", "c"]),
        (
            {"atLeast": 2, "of": ["a", {"all": ["b", "c"]}, {"any": ["c", "d"]}]},
            ["bc", "ad", "ac"],
            ["a", "b", "cd"],
        ),
    ],
)
def test_conditions_hold_as_they_read(condition, met, unmet):
    """Each form of a condition is met by exactly the sets of triggers that its words say."""
    assert [holds(condition, set(seen)) for seen in met] == [True] * len(met)
    assert [holds(condition, set(seen)) for seen in unmet] == [False] * len(unmet)


def test_the_names_of_a_condition_are_found_at_every_depth():
    """A trigger is heard wherever in a condition it stands."""
    assert names_in({"any": [{"all": ["a", {"atLeast": 1, "of": ["b"]}]}, "c"]}) == {"a", "b", "c"}


def test_a_nested_condition_schedules_when_it_is_met():
    """`any` starts at its first branch; what comes later neither changes nor creates anything."""
    model = session({"t": {"after": {"any": [{"all": ["a", "b"]}, "c"]}, "run": "r"}})
    model.fire("a")
    assert statuses(model) == {"t#0": "unstarted"}
    assert model.fire("c").scheduled == ("t#0",)
    assert model.fire("b").created == ()
    assert model.instances["t#0"].kwargs == {"a": {}, "c": {}}


# -- what a firing gives -----------------------------------------------------------------------------------------


def test_the_first_firing_that_an_instance_saw_stays_with_it():
    """An unstarted instance keeps the kwargs of the first firing of each trigger."""
    model = session({"t": task("a", "b")})
    model.fire("a", {"n": 1})
    model.fire("a", {"n": 2})
    model.fire("b")
    assert model.instances["t#0"].kwargs == {"a": {"n": 1}, "b": {}}
    assert model.instances["t#0"].taken == {"a": 1, "b": 3}


def test_a_new_instance_starts_with_the_latest_of_the_other_triggers():
    """Where several firings of a trigger came before the instance, it gets the last of them."""
    model = session({"t": task("a", andEvery="b")})
    for n in (1, 2, 3):
        model.fire("a", {"n": n})
    model.fire("b", {"n": 4})
    model.fire("a", {"n": 5})
    model.fire("b", {"n": 6})
    assert model.instances["t#0"].kwargs == {"a": {"n": 1}, "b": {"n": 4}}
    assert model.instances["t#1"].kwargs == {"a": {"n": 5}, "b": {"n": 6}}


def test_every_branch_of_an_any_is_lacking_until_it_came():
    """An unstarted instance takes what it lacks even where its branch of an `any` is met already."""
    model = session({"t": {"after": {"all": [{"any": ["a", "b"]}, "c"]}, "run": "r"}})
    fire_all(model, "a", "b", "c")
    assert model.instances["t#0"].taken == {"a": 1, "b": 2, "c": 3}


def test_a_started_instance_takes_nothing_more():
    """A trigger that comes after the instance was scheduled is not given to it."""
    model = session({"t": {"after": {"any": ["a", "b"]}, "unless": ["c"], "run": "r"}})
    fire_all(model, "a", "b", "c")
    instance = model.instances["t#0"]
    assert (instance.status, instance.taken, instance.vetoes) == ("scheduled", {"a": 1}, set())


def test_without_and_every_a_task_has_one_instance():
    """After the first instance of a task, its triggers make no other."""
    model = session({"t": task("a", "b")})
    fire_all(model, "a", "b", "a", "b")
    assert statuses(model) == {"t#0": "scheduled"}


def test_a_trigger_that_no_task_names_is_only_recorded():
    """A firing that nobody waits for gets its number and does nothing."""
    model = session({"t": task("a")})
    result = model.fire("z", {"n": 1})
    assert (result.number, result.created, model.instances) == (1, (), {})
    assert [(f.trigger, f.kwargs) for f in model.firings] == [("z", {"n": 1})]


def test_what_was_fired_before_there_was_a_configuration_is_kept():
    """A later instance starts with firings that came before its task was configured."""
    model = Model()
    model.fire("a", {"n": 1})
    model.configure({"t": task("a", "b")})
    assert model.instances == {}
    model.fire("b")
    assert model.instances["t#0"].kwargs == {"a": {"n": 1}, "b": {}}
    assert model.instances["t#0"].status == "scheduled"


def test_results_name_instances_by_task_and_number():
    """The order in which tasks are configured is not seen, and ten comes after nine."""
    model = session({"u": task("a"), "t": task("a", andEvery="b")})
    for _ in range(11):
        model.fire("b")
    assert model.fire("a").created == ("u#0",)
    assert session({"u": task("a"), "t": task("a")}).fire("a").created == ("t#0", "u#0")
    assert model.last_step[0].scheduled == (*(f"t#{n}" for n in range(11)), "u#0")


def test_the_last_step_has_a_result_for_each_of_its_firings():
    """It is empty after a step that fired nothing, where one might have."""
    model = session({"t": {"andEvery": "a", "run": "r"}})
    steps = [
        lambda: model.fire("a", {}, "k"),
        lambda: model.fire("a", {}, "k"),
        lambda: model.fire("a"),
        lambda: model.configure(model.configuration),
        lambda: run(model, "t#0"),
        lambda: model.skip_running("t#1", model.claim("t#1")),
        lambda: model.fire("a"),
        lambda: failed(model, "t#2"),
        lambda: model.skip("t#2"),
    ]
    fired = []
    for step in steps:
        step()
        fired.append([result.number for result in model.last_step])
    assert fired == [[1], [], [2], [], [3], [], [4], [4], []]


def test_kwargs_belong_to_the_session():
    """Neither the caller's dictionary nor a snapshot is connected to what the session holds."""
    model = session({"t": task("a")})
    given = {"list": [1]}
    model.fire("a", given)
    given["list"].append(2)
    before = model.snapshot()
    before["instances"]["t#0"]["kwargs"]["a"]["list"].append(3)
    before["firings"][0][2]["list"].append(4)
    assert model.firings[0].kwargs == {"list": [1]}
    assert model.snapshot()["instances"]["t#0"]["kwargs"] == {"a": {"list": [1]}}
    failed(model, "t#0")
    model.replay("t#0", given)
    given["list"].append(5)
    assert model.instances["t#1"].kwargs == {"list": [1, 2]}
    run(model, "t#1", given)
    given["list"].append(6)
    assert model.instances["t#1"].result == model.firings[1].kwargs == {"list": [1, 2, 5]}


# -- andEvery ----------------------------------------------------------------------------------------------------


def test_a_storm_makes_one_instance_per_firing():
    """Each firing of `andEvery` is seen by exactly one instance, waiting or not."""
    model = session({"t": task("a", andEvery="b")})
    for n in range(5):
        model.fire("b", {"n": n})
    assert [i.kwargs for i in model.instances_of("t")] == [{"b": {"n": n}} for n in range(5)]
    assert model.fire("a").scheduled == ("t#0", "t#1", "t#2", "t#3", "t#4")
    assert model.fire("b", {"n": 5}).created == ("t#5",)


def test_and_every_goes_to_the_instance_that_lacks_it():
    """The instance made by another trigger takes the first firing of `andEvery`; the next makes a new one."""
    model = session({"t": task("a", andEvery="b")})
    model.fire("a")
    assert model.fire("b").created == ()
    assert model.fire("b").created == ("t#1",)
    assert model.fire("a").created == ()


def test_and_every_is_implied_in_after():
    """A task with nothing but `andEvery` starts at each of its firings, and with them alone."""
    model = session({"t": {"andEvery": "b", "run": "r"}, "u": {"after": [], "andEvery": "b", "run": "r"}})
    assert model.fire("b").scheduled == ("t#0", "u#0")
    assert model.fire("b").scheduled == ("t#1", "u#1")


def test_and_every_is_needed_beside_an_any():
    """A met `after` does not start an instance that lacks its `andEvery`."""
    model = session({"t": {"after": {"any": ["a", "b"]}, "andEvery": "c", "run": "r"}})
    fire_all(model, "a", "b")
    assert statuses(model) == {"t#0": "unstarted"}
    model.fire("c")
    assert statuses(model) == {"t#0": "scheduled"}


def test_and_every_that_also_stands_in_after_is_one_trigger():
    """Naming `andEvery` in `after` too changes nothing."""
    model = session({"t": task("b", "a", andEvery="b")})
    fire_all(model, "b", "b", "a")
    assert statuses(model) == {"t#0": "scheduled", "t#1": "scheduled"}


# -- unless ------------------------------------------------------------------------------------------------------


def test_only_all_of_unless_abandons():
    """A part of a list of vetoes stops nothing."""
    model = session({"t": task("a", unless=["x", "y"])})
    model.fire("x")
    assert statuses(model) == {"t#0": "unstarted"}
    assert model.fire("y").abandoned == ("t#0",)
    assert model.fire("a").scheduled == ()
    assert model.instances["t#0"].kwargs == {}


@pytest.mark.parametrize(
    "unless", [{"any": ["x", "y"]}, {"atLeast": 1, "of": ["x", "y"]}, {"any": [{"all": ["y"]}]}]
)
def test_unless_is_a_condition_like_after(unless):
    """A veto may be nested, and abandons once it is met."""
    model = session({"t": task("a", unless=unless)})
    assert model.fire("y").abandoned == ("t#0",)


@pytest.mark.parametrize("unless", [[], {"all": []}])
def test_an_empty_unless_never_vetoes(unless):
    """Nothing is not a reason to abandon."""
    model = session({"t": task("a", "b", unless=unless)})
    fire_all(model, "a", "b")
    assert statuses(model) == {"t#0": "scheduled"}


def test_a_veto_gives_no_kwargs():
    """What stands only in `unless` is kept as a veto, and not shown to the task."""
    model = session({"t": task("a", unless=["x", "y"])})
    model.fire("x", {"n": 1})
    model.fire("a")
    instance = model.instances["t#0"]
    assert (instance.kwargs, instance.taken, instance.vetoes) == ({"a": {}}, {"a": 2}, {"x"})


def test_abandoning_wins_over_scheduling():
    """A firing that meets `after` and `unless` at once abandons."""
    model = session({"t": task("a", unless=["a"]), "u": task("a", "b", unless=["a", "b"])})
    result = model.fire("a")
    assert (result.created, result.abandoned, result.scheduled) == (("t#0", "u#0"), ("t#0",), ())
    assert model.instances["t#0"].run_at is None
    assert model.fire("b").abandoned == ("u#0",)
    assert model.instances["u#0"].kwargs == {"a": {}, "b": {}}


def test_a_past_veto_holds_for_every_new_instance():
    """A new instance starts with the vetoes that were fired, and with a met `unless` is abandoned at once."""
    model = session({"t": task("a", andEvery="b", unless=["x"])})
    fire_all(model, "a", "b", "x")
    assert statuses(model) == {"t#0": "scheduled"}
    result = model.fire("b")
    assert (result.created, result.abandoned) == (("t#1",), ("t#1",))


def test_a_veto_stops_every_waiting_instance():
    """One firing abandons all unstarted instances of a task."""
    model = session({"t": task("a", andEvery="b", unless=["x"])})
    fire_all(model, "b", "b", "b")
    assert model.fire("x").abandoned == ("t#0", "t#1", "t#2")
    assert model.fire("a").scheduled == ()


# -- idempotency keys --------------------------------------------------------------------------------------------


def test_a_repeat_with_its_key_is_a_no_op():
    """The second firing under a key returns the first's number and changes nothing."""
    model = session({"t": {"andEvery": "a", "run": "r"}})
    first = model.fire("a", {"x": 1, "y": 2}, key="k")
    before = model.snapshot()
    again = model.fire("a", {"y": 2, "x": 1}, key="k")
    assert (first.number, first.duplicate, first.created) == (1, False, ("t#0",))
    assert (again.number, again.duplicate, again.created, again.scheduled) == (1, True, (), ())
    assert model.snapshot() == before


def test_no_kwargs_are_empty_kwargs_under_a_key_too():
    """None and an empty dictionary are the same data to fire."""
    model = session({})
    model.fire("a", None, key="k")
    assert model.fire("a", None, key="k").duplicate
    assert model.fire("a", {}, key="k").duplicate


def test_a_key_belongs_to_one_trigger():
    """Another trigger, another key, or no key is another firing."""
    model = session({})
    assert [
        model.fire("a", {}, "k").number,
        model.fire("b", {}, "k").number,
        model.fire("a", {}, "l").number,
    ] == [1, 2, 3]
    assert [model.fire("a").number, model.fire("a").number] == [4, 5]


@pytest.mark.parametrize(
    "other", [{"n": 2}, {"n": True}, {"n": 1.0}, {"n": "1"}, {"n": Decimal(1)}, {"n": [1]}, {}, None]
)
def test_a_key_with_other_kwargs_is_a_conflict(other):
    """A key stands for its kwargs too, and their types; a conflict changes nothing."""
    model = session({"t": task("a")})
    model.fire("a", {"n": 1}, key="k")
    before = model.snapshot()
    with pytest.raises(ModelConflict):
        model.fire("a", other, key="k")
    assert model.snapshot() == before


def test_sameness_is_of_data():
    """Equal data is the same whatever the order of its keys; equal numbers of other types are not."""
    at = datetime(2026, 5, 4, tzinfo=UTC)
    assert same({"a": [1, {"b": at, "d": 2}], "c": None}, {"c": None, "a": [1, {"d": 2, "b": at}]})
    assert same(at, at.replace(tzinfo=timezone(timedelta(0), "Greenwich")))
    assert not same(at, at.astimezone(timezone(timedelta(hours=1))))
    assert not same({"a": Decimal("1.0")}, {"a": Decimal("1.00")})
    assert not same([1, 2], [2, 1])
    assert not same(at, at.isoformat())


# -- running -----------------------------------------------------------------------------------------------------


def test_a_claim_needs_a_scheduled_instance_that_is_due():
    """Only what is scheduled and due can be claimed, and only once."""
    model = session({"t": task("a", "b")}, now=100)
    model.fire("a")
    assert model.claim("t#0") is None
    model.advance(11)
    model.fire("b")
    assert model.instances["t#0"].run_at == 111
    assert model.claim("t#0") == 1
    assert model.claim("t#0") is None
    assert (model.instances["t#0"].status, model.instances["t#0"].attempt) == ("running", 1)


def test_finishing_cascades_in_the_same_step():
    """A finished instance fires its task's name, with its result as kwargs."""
    model = session({"t": task("a"), "u": task("t")})
    model.fire("a")
    run(model, "t#0", {"id": 7})
    assert (model.instances["t#0"].status, model.instances["t#0"].result) == ("finished", {"id": 7})
    assert model.instances["u#0"].kwargs == {"t": {"id": 7}}
    assert [(f.trigger, f.cause) for f in model.firings] == [("a", None), ("t", "t#0")]
    assert model.last_step[0].scheduled == ("u#0",)


def test_no_result_cascades_as_empty_kwargs():
    """None is recorded as the result, and the cascade carries nothing."""
    model = session({"t": task("a"), "u": task("t")})
    model.fire("a")
    run(model, "t#0")
    assert (model.instances["t#0"].result, model.instances["u#0"].kwargs) == (None, {"t": {}})


def test_a_task_can_listen_to_each_finish_of_another():
    """A cascade is a firing like any other, also for `andEvery` and `unless`."""
    model = session(
        {"t": {"andEvery": "a", "run": "r"}, "u": {"andEvery": "t", "run": "r"}, "v": task("z", unless=["t"])}
    )
    fire_all(model, "a", "a")
    run(model, "t#0")
    run(model, "t#1")
    assert statuses(model) == {
        "t#0": "finished",
        "t#1": "finished",
        "u#0": "scheduled",
        "u#1": "scheduled",
        "v#0": "abandoned",
    }


@pytest.mark.parametrize("end", [Model.fail, Model.skip_running])
def test_failing_and_skipping_do_not_cascade(end):
    """Only a finish fires the task's name by itself."""
    model = session({"t": task("a"), "u": task("t")})
    model.fire("a")
    fence = model.claim("t#0")
    assert end(model, "t#0", fence, "boom") if end is Model.fail else end(model, "t#0", fence)
    assert len(model.firings) == 1
    assert statuses(model) == {"t#0": "failed" if end is Model.fail else "skipped"}
    assert model.instances["t#0"].error == ("boom" if end is Model.fail else None)


GHOSTS = {
    "finish": lambda model, fence: model.finish("t#0", fence, {}),
    "fail": lambda model, fence: model.fail("t#0", fence, "boom"),
    "retry": lambda model, fence: model.retry("t#0", fence, 0, 9),
    "skip": lambda model, fence: model.skip_running("t#0", fence),
    "release": lambda model, fence: model.release("t#0", fence),
}


@pytest.mark.parametrize("step", GHOSTS.values(), ids=GHOSTS)
def test_a_ghost_is_refused(step):
    """Whoever lost the lease changes nothing: not while the instance waits, runs elsewhere, or is done."""
    model = session({"t": task("a"), "u": task("t")})
    model.fire("a")
    stale = model.claim("t#0")
    model.expire("t#0")
    waiting = model.snapshot()
    assert not step(model, stale)
    assert not step(model, stale + 1)
    assert model.snapshot() == waiting
    model.advance(SECOND)
    fence = model.claim("t#0")
    assert fence == 3
    running = model.snapshot()
    assert not step(model, stale)
    assert not step(model, fence + 1)
    assert model.snapshot() == running
    assert model.finish("t#0", fence)
    done = model.snapshot()
    assert not step(model, fence)
    assert model.snapshot() == done


def test_a_release_counts_no_crash():
    """A given back instance is due at once, or after the delay asked for, under a new fence."""
    model = session({"t": task("a")}, now=10)
    model.fire("a")
    model.advance(5)
    assert model.release("t#0", model.claim("t#0"))
    instance = model.instances["t#0"]
    assert (instance.status, instance.fence, instance.attempt, instance.crashes, instance.run_at) == (
        "scheduled",
        2,
        1,
        0,
        15,
    )
    model.release("t#0", model.claim("t#0"), delay=7)
    assert (instance.fence, instance.attempt, instance.run_at) == (4, 2, 22)
    assert model.claim("t#0") is None
    model.advance(7)
    assert model.claim("t#0") == 5


def test_crashes_back_off_and_then_fail():
    """Each crash waits longer; the one that uses up the budget fails the instance as lost."""
    model = session({"t": task("a")})
    model.fire("a")
    instance = model.instances["t#0"]
    for crashes, backoff in ((1, 1_000_000), (2, 10_000_000)):
        crash(model, "t#0")
        assert (instance.status, instance.crashes, instance.run_at) == (
            "scheduled",
            crashes,
            model.now + backoff,
        )
        assert instance.fence == 2 * crashes
    crash(model, "t#0")
    assert (instance.status, instance.crashes, instance.attempt, instance.fence) == ("failed", 3, 3, 6)
    assert instance.error == "WorkerLost"
    assert not model.expire("t#0")


def test_the_last_back_off_holds_for_all_later_crashes():
    """Where the budget is larger than the list of back-offs, its last entry is used again."""
    short, usual = (
        session({"t": task("a")}, max_crashes=9, crash_backoff=(1, 2)),
        session({"t": task("a")}, max_crashes=9),
    )
    for model, backoffs in (short, (1, 2, 2, 2)), (usual, (1_000_000, 10_000_000, 60_000_000, 60_000_000)):
        model.fire("a")
        for backoff in backoffs:
            crash(model, "t#0")
            assert model.instances["t#0"].run_at == model.now + backoff


def test_a_task_may_fail_at_its_first_crash():
    """Where a lost run must not be repeated, the first crash fails it."""
    model = session({"t": task("a")})
    model.fire("a")
    model.claim("t#0")
    assert model.expire("t#0", fail_at_once=True)
    assert (model.instances["t#0"].status, model.instances["t#0"].fence) == ("failed", 2)


def test_the_clock_does_not_go_back():
    """Time only moves forward."""
    model = Model(now=5)
    with pytest.raises(ValueError, match="back by 1"):
        model.advance(-1)
    model.advance(0)
    assert model.now == 5


# -- replay, skip, retry -----------------------------------------------------------------------------------------


def test_a_replay_is_a_new_instance_with_the_same_kwargs():
    """The old instance is replayed; the new one has the next number and knows where it comes from."""
    model = session({"t": {"andEvery": "a", "run": "r"}, "u": task("t")}, now=10)
    model.fire("a", {"n": 1})
    model.fire("a", {"n": 2})
    failed(model, "t#0")
    model.advance(5)
    assert model.replay("t#0") == "t#2"
    new = model.instances["t#2"]
    assert statuses(model) == {"t#0": "replayed", "t#1": "scheduled", "t#2": "scheduled"}
    assert (new.kwargs, new.taken, new.run_at) == ({"a": {"n": 1}}, {"a": 1}, 15)
    assert (new.parent, new.root, new.depth, new.retries, new.fence, new.attempt) == (
        "t#0",
        "t#0",
        1,
        0,
        0,
        0,
    )
    failed(model, "t#2")
    assert model.replay("t#2") == "t#3"
    again = model.instances["t#3"]
    assert (again.parent, again.root, again.depth) == ("t#2", "t#0", 2)
    run(model, "t#3", {"ok": True})
    assert model.instances["u#0"].kwargs == {"t": {"ok": True}}


@pytest.mark.parametrize("replacement", [{"a": {"n": 2}}, {"other": {}}, {}])
def test_replacement_kwargs_are_exactly_the_kwargs(replacement):
    """A replay with other kwargs is another piece of work: it becomes the root of those that follow."""
    model = session({"t": task("a", "b")})
    model.fire("a", {"n": 1})
    model.fire("b")
    failed(model, "t#0")
    model.replay("t#0", replacement)
    new = model.instances["t#1"]
    assert (new.kwargs, new.taken) == (replacement, {"a": 1, "b": 2})
    assert (new.parent, new.root, new.depth) == ("t#0", "t#1", 1)
    failed(model, "t#1")
    model.replay("t#1")
    assert (model.instances["t#2"].kwargs, model.instances["t#2"].root) == (replacement, "t#1")


def test_a_replay_counts_as_an_instance_of_its_task():
    """After a replay, the task's other triggers make no first instance again, and `andEvery` the next number."""
    model = session({"t": task("a"), "u": {"andEvery": "a", "run": "r"}})
    model.fire("a")
    for name in ("t#0", "u#0"):
        failed(model, name)
        model.replay(name)
    assert model.fire("a").created == ("u#2",)


@pytest.mark.parametrize("step", [Model.replay, Model.skip])
def test_only_what_failed_can_be_replayed_or_skipped(step):
    """In every other status it is an error that names the status, and changes nothing."""
    model = session({"t": {"andEvery": "a", "run": "r"}, "u": task("a", "z"), "v": task("z", unless=["a"])})
    fire_all(model, "a", "a", "a", "a", "a", "a")
    run(model, "t#0")
    model.claim("t#1")
    model.skip_running("t#2", model.claim("t#2"))
    failed(model, "t#3")
    model.replay("t#3")
    seen = set()
    for name, status in statuses(model).items():
        before = model.snapshot()
        with pytest.raises(ModelStatusError, match=status):
            step(model, name)
        assert model.snapshot() == before
        seen.add(status)
    assert seen == {"finished", "running", "skipped", "replayed", "scheduled", "unstarted", "abandoned"}


def test_a_skip_cascades_only_on_request():
    """Without it nothing is fired; with it the task's name is, with the simulated result."""
    model = session({"t": {"andEvery": "a", "run": "r"}, "u": {"andEvery": "t", "run": "r"}})
    fire_all(model, "a", "a", "a")
    for name in ("t#0", "t#1", "t#2"):
        failed(model, name)
    model.skip("t#0", result={"id": 1})
    assert len(model.firings) == 3
    model.skip("t#1", cascade=True, result={"id": 2})
    model.skip("t#2", cascade=True)
    assert [(f.trigger, f.kwargs, f.cause) for f in model.firings[3:]] == [
        ("t", {"id": 2}, "t#1"),
        ("t", {}, "t#2"),
    ]
    assert {status for name, status in statuses(model).items() if name[0] == "t"} == {"skipped"}
    assert [model.instances[f"u#{n}"].kwargs for n in (0, 1)] == [{"t": {"id": 2}}, {"t": {}}]


def test_self_retries_wait_and_end():
    """Each retry is due after its cooldown; the task fails when it has used up its retries."""
    model = session({"t": task("a")}, now=10)
    model.fire("a")
    assert retried(model, "t#0") == "t#1"
    first = model.instances["t#1"]
    assert (first.status, first.run_at, first.retries, first.depth, first.root) == (
        "scheduled",
        15,
        1,
        1,
        "t#0",
    )
    assert model.claim("t#1") is None
    model.advance(5)
    assert retried(model, "t#1", replacement_kwargs={"n": 1}) == "t#2"
    assert (model.instances["t#2"].kwargs, model.instances["t#2"].root) == ({"n": 1}, "t#2")
    model.advance(5)
    assert retried(model, "t#2") == "t#2"
    assert statuses(model) == {"t#0": "replayed", "t#1": "replayed", "t#2": "failed"}
    assert model.instances["t#2"].error == "MaxRetriesExceeded"
    assert model.instances["t#2"].retries == 2


def test_a_replay_by_hand_starts_the_retries_anew():
    """`retries` counts retries in a row, `depth` all ancestors."""
    model = session({"t": task("a")})
    model.fire("a")
    assert retried(model, "t#0", cooldown=0, max_retries=1) == "t#1"
    assert retried(model, "t#1", cooldown=0, max_retries=1) == "t#1"
    assert model.replay("t#1") == "t#2"
    assert (model.instances["t#2"].retries, model.instances["t#2"].depth) == (0, 2)
    assert retried(model, "t#2", cooldown=0, max_retries=1) == "t#3"
    assert (model.instances["t#3"].retries, model.instances["t#3"].depth) == (1, 3)


def test_without_retries_a_retry_fails():
    """A task that allows no retries fails at the first."""
    model = session({"t": task("a")})
    model.fire("a")
    assert retried(model, "t#0", max_retries=0) == "t#0"
    assert statuses(model) == {"t#0": "failed"}


# -- reconfiguration ---------------------------------------------------------------------------------------------


def test_rules_are_read_when_deciding():
    """A changed rule decides its unstarted instances at once, with what they have."""
    model = session({"t": task("a", "b"), "u": task("a", "b"), "v": task("a", "b", unless=["a", "x"])})
    fire_all(model, "a")
    model.advance(3)
    model.configure({"t": task("a"), "u": task("a", "c"), "v": task("a", unless=["a"])})
    assert statuses(model) == {"t#0": "scheduled", "u#0": "unstarted", "v#0": "abandoned"}
    assert model.instances["t#0"].run_at == 3
    model.fire("b")
    assert model.instances["u#0"].taken == {"a": 1}
    model.fire("c")
    assert statuses(model)["u#0"] == "scheduled"


def test_a_changed_rule_gives_nothing_of_the_past():
    """What a rule newly names is lacking until it is fired again."""
    model = session({"t": task("a", "b")})
    fire_all(model, "a", "c", "x")
    model.configure({"t": task("a", "c", unless=["x"])})
    assert statuses(model) == {"t#0": "unstarted"}
    assert (model.instances["t#0"].taken, model.instances["t#0"].vetoes) == ({"a": 1}, set())
    model.fire("c", {"n": 2})
    assert model.instances["t#0"].kwargs == {"a": {}, "c": {"n": 2}}
    assert model.instances["t#0"].status == "scheduled"


def test_a_trigger_is_lacking_for_each_of_its_roles():
    """A trigger taken as a veto is not yet taken for `after`, and the other way round."""
    model = session({"t": task("a", unless=["x", "y"]), "u": task("a", "b")})
    fire_all(model, "x", "b")
    model.configure({"t": task("a", "x", unless=["y"]), "u": task("a", "b", unless=["b"])})
    assert statuses(model) == {"t#0": "unstarted", "u#0": "unstarted"}
    assert model.fire("b", {"n": 2}).abandoned == ("u#0",)
    assert model.instances["u#0"].kwargs == {"b": {}}
    model.fire("x", {"n": 3})
    assert model.instances["t#0"].taken == {"x": 4}


def test_a_firing_of_and_every_that_only_counts_as_a_veto_makes_an_instance():
    """Whoever has its `andEvery` already does not take another; the firing gets an instance of its own."""
    model = session({"t": task("a", andEvery="b")})
    model.fire("b", {"n": 1})
    model.configure({"t": task("a", andEvery="b", unless=["b", "x"])})
    assert model.fire("b", {"n": 2}).created == ("t#1",)
    assert [i.kwargs for i in model.instances_of("t")] == [{"b": {"n": 1}}, {"b": {"n": 2}}]
    assert [i.vetoes for i in model.instances_of("t")] == [{"b"}, {"b"}]


def test_started_instances_are_not_decided_anew():
    """A new rule changes nothing about what is scheduled, running or failed."""
    model = session({"t": {"andEvery": "a", "run": "r"}})
    fire_all(model, "a", "a", "a")
    model.claim("t#1")
    failed(model, "t#2")
    model.configure({"t": {"after": ["z"], "andEvery": "a", "unless": ["a"], "run": "r"}})
    assert statuses(model) == {"t#0": "scheduled", "t#1": "running", "t#2": "failed"}


def test_an_added_task_sees_the_past_when_one_of_its_triggers_fires():
    """Adding a task makes no instance; its first one starts with the latest of what was fired before."""
    model = session({"t": task("a")})
    model.fire("b", {"n": 1})
    model.fire("b", {"n": 2})
    model.configure({"t": task("a"), "u": task("b", "c")})
    assert model.instances == {}
    model.fire("c")
    assert model.instances["u#0"].kwargs == {"b": {"n": 2}, "c": {}}


def test_catching_up_plays_the_past_to_added_tasks_only():
    """Added tasks end as if they had been there from the start; the others see nothing twice."""
    added = {"u": task("a", andEvery="b"), "v": task("c", unless=["x"]), "w": task("b", unless=["x"])}
    late, early = (
        session({"t": {"andEvery": "b", "run": "r"}}),
        session({"t": {"andEvery": "b", "run": "r"}, **added}),
    )
    for model in (late, early):
        for n, trigger in enumerate("bababxbc"):
            model.fire(trigger, {"n": n})
    late.configure({"t": {"andEvery": "b", "run": "r"}, **added}, catch_up=True)
    assert statuses(early) == {
        **{f"{name}#{n}": "scheduled" for name in "tu" for n in range(4)},
        "v#0": "abandoned",
        "w#0": "scheduled",
    }
    assert late.snapshot() == early.snapshot()
    assert len(late.firings) == 8


def test_catching_up_gives_what_was_latest_at_the_time():
    """An instance caught up with starts with what came before its own first trigger, not with what came later."""
    model = session({})
    model.fire("a", {"n": 1})
    model.fire("b")
    model.fire("a", {"n": 2})
    model.configure(
        {"t": {"after": {"any": ["b", "z"]}, "unless": ["y"], "run": "r"}, "u": task("a", andEvery="b")},
        catch_up=True,
    )
    assert model.instances["u#0"].kwargs == {"a": {"n": 1}, "b": {}}


def test_a_removed_task_stands_still():
    """Its instances stay and never start; what already runs may end; its failed ones can be skipped, not replayed."""
    model = session({"t": {"andEvery": "a", "run": "r"}, "u": task("a", "b", unless=["x"])})
    fire_all(model, "a", "a", "a")
    failed(model, "t#0")
    fence = model.claim("t#1")
    retrying = model.claim("t#2")
    model.configure({"v": task("t")})
    fire_all(model, "b", "x", "a")
    assert statuses(model) == {"t#0": "failed", "t#1": "running", "t#2": "running", "u#0": "unstarted"}
    before = model.snapshot()
    with pytest.raises(ModelUnknownTask):
        model.replay("t#0")
    assert model.snapshot() == before
    assert model.finish("t#1", fence)
    assert model.retry("t#2", retrying, 0, 9) == "t#2"
    model.skip("t#0")
    assert statuses(model) == {
        "t#0": "skipped",
        "t#1": "finished",
        "t#2": "failed",
        "u#0": "unstarted",
        "v#0": "scheduled",
    }


def test_a_task_that_comes_back_has_its_instances_again():
    """They are decided by the new rule, and new ones are numbered after them."""
    model = session({"t": task("a", andEvery="b")})
    model.fire("b")
    model.configure({})
    fire_all(model, "a", "b")
    assert statuses(model) == {"t#0": "unstarted"}
    model.configure({"t": task("a", andEvery="b")})
    assert statuses(model) == {"t#0": "unstarted"}
    model.configure({"t": {"andEvery": "b", "run": "r"}})
    assert statuses(model) == {"t#0": "scheduled"}
    assert model.fire("b").created == ("t#1",)


def test_a_configuration_belongs_to_the_session():
    """Changing the dictionary that was given changes no rule."""
    given = {"t": task("a")}
    model = session(given)
    given["t"]["after"].append("b")
    assert model.fire("a").scheduled == ("t#0",)


# -- resolution and finalising -----------------------------------------------------------------------------------


def test_a_task_is_unresolved_until_all_its_instances_are_resolved():
    """A task without instances is unresolved, and so is one with an instance that somebody must still look at."""
    model = session({"t": {"andEvery": "a", "run": "r"}, "u": task("z"), "v": task("a", unless=["a"])})
    assert model.unresolved_tasks() == ["t", "u", "v"]
    fire_all(model, "a", "a")
    assert model.unresolved_tasks() == ["t", "u"]
    run(model, "t#0")
    failed(model, "t#1")
    assert (model.unresolved_tasks(), model.unresolved_instances()) == (["t", "u"], ["t#1"])
    model.replay("t#1")
    assert (model.unresolved_tasks(), model.unresolved_instances()) == (["t", "u"], ["t#2"])
    model.skip_running("t#2", model.claim("t#2"))
    assert (model.unresolved_tasks(), model.unresolved_instances()) == (["u"], [])


def finalizing(*rules, **more):
    return session({f"t{n}": rule for n, rule in enumerate(rules)} | more, finalizing_trigger="end")


def fired_ends(model):
    return [f.number for f in model.firings if f.trigger == "end"]


def test_the_last_finish_finalises_in_the_same_step():
    """The finalizing trigger follows the cascade that resolves the session, and starts the task that waits for it."""
    model = finalizing(task("a"), task("t0"), report=task("end"))
    assert not model.fire("a").finalized
    run(model, "t0#0")
    assert fired_ends(model) == []
    run(model, "t1#0")
    assert [(f.number, f.trigger, f.cause) for f in model.firings[2:]] == [
        (3, "t1", "t1#0"),
        (4, "end", "finalizing"),
    ]
    assert model.finalized
    assert [result.number for result in model.last_step] == [3, 4]
    assert model.last_step[1].scheduled == ("report#0",)
    assert statuses(model)["report#0"] == "scheduled"


def test_finalising_happens_once():
    """Later firings work, say that the session is finalised, and do not finalise it again."""
    model = finalizing({"andEvery": "a", "run": "r"})
    first = model.fire("a", {}, "k")
    run(model, "t0#0")
    second = model.fire("a")
    assert (first.finalized, second.finalized, second.created) == (False, True, ("t0#1",))
    assert model.fire("a", {}, "k").finalized
    run(model, "t0#1")
    assert fired_ends(model) == [3]


@pytest.mark.parametrize("way", ["skip", "skip with cascade", "self-skip", "abandon", "abandon a new one"])
def test_every_way_to_resolve_the_last_instance_finalises(way):
    """Skipping and abandoning complete a session as finishing does, in their own step."""
    model = finalizing(task("a", "b", unless=["x"]))
    if way.startswith("abandon"):
        if way == "abandon":
            model.fire("a")
        assert model.fire("x").finalized
    else:
        fire_all(model, "a", "b")
        if way == "self-skip":
            model.skip_running("t0#0", model.claim("t0#0"))
        else:
            failed(model, "t0#0")
            model.skip("t0#0", cascade=way == "skip with cascade")
    assert fired_ends(model) == [len(model.firings)]
    assert model.finalized


def test_nothing_is_complete_while_a_task_is_open():
    """A task that never ran, a failed or a replaced instance, each keep a session open."""
    model = finalizing(task("a"), task("b"))
    model.fire("a")
    run(model, "t0#0")
    assert not model.finalized
    model.fire("b")
    failed(model, "t1#0")
    model.replay("t1#0")
    assert retried(model, "t1#1") == "t1#2"
    model.advance(5)
    assert not model.finalized
    run(model, "t1#2")
    assert model.finalized


def test_tasks_that_wait_for_the_end_are_exempt():
    """Whoever awaits the finalizing trigger, at any depth or through others, is not waited for."""
    model = finalizing(
        task("a"),
        report={"after": {"any": ["z", {"all": ["end", "b"]}]}, "run": "r"},
        mail=task("report", "b"),
        each={"andEvery": "mail", "run": "r"},
    )
    assert model.waiting_for_finalizing() == {"report", "mail", "each"}
    model.fire("a")
    run(model, "t0#0")
    assert model.finalized


def test_a_veto_by_the_end_does_not_exempt():
    """A task that only names the finalizing trigger in `unless` is waited for."""
    model = finalizing(task("a"), task("b", unless=["end"]))
    assert model.waiting_for_finalizing() == set()
    model.fire("a")
    run(model, "t0#0")
    assert not model.finalized


def test_a_session_without_other_tasks_never_finalises():
    """Where every task waits for the end, or there is none, nothing ends."""
    model = finalizing(report=task("end"), other=task("report", unless=["x"]))
    model.fire("x")
    empty = finalizing()
    empty.fire("a")
    empty.configure({})
    assert not model.finalized
    assert not empty.finalized
    assert len(model.firings) == len(empty.firings) == 1


def test_the_end_fired_by_hand_is_no_end():
    """Firing the finalizing trigger oneself runs what waits for it; the session still finalises later."""
    model = finalizing(task("a"), report={"andEvery": "end", "run": "r"})
    assert not model.fire("end").finalized
    assert statuses(model) == {"report#0": "scheduled"}
    model.fire("a")
    run(model, "t0#0")
    assert (fired_ends(model), statuses(model)["report#1"]) == ([1, 4], "scheduled")


def test_a_configuration_can_complete_a_session():
    """Removing the only open task finalises in the step that removes it."""
    model = finalizing(task("a"), task("never"))
    model.fire("a")
    run(model, "t0#0")
    assert not model.finalized
    model.configure({"t0": task("a"), "report": task("end")})
    assert model.finalized
    assert statuses(model) == {"t0#0": "finished", "report#0": "scheduled"}


def test_without_a_finalizing_trigger_nothing_is_finalised():
    """A plain session goes on for ever."""
    model = session({"t": task("a")})
    model.fire("a")
    run(model, "t#0")
    assert not model.finalized
    assert len(model.firings) == 2


# -- the model itself --------------------------------------------------------------------------------------------


def test_a_snapshot_shows_all_that_can_be_compared():
    """It is plain data: firings in order, instances with every field, open tasks, and whether it is finalised."""
    model = session({"t": task("a", "b", unless=["y", "x", "z"])}, now=4)
    model.fire("y", key="k")
    model.fire("x", {"n": 1})
    assert model.snapshot() == {
        "firings": [(1, "y", {}, "k"), (2, "x", {"n": 1}, None)],
        "instances": {
            "t#0": {
                "name": "t#0",
                "task": "t",
                "number": 0,
                "root": "t#0",
                "status": "unstarted",
                "kwargs": {},
                "taken": {},
                "vetoes": ["x", "y"],
                "parent": None,
                "depth": 0,
                "retries": 0,
                "fence": 0,
                "attempt": 0,
                "crashes": 0,
                "result": None,
                "error": None,
                "run_at": None,
            }
        },
        "unresolved": ["t"],
        "finalized": False,
    }


def test_a_copy_goes_its_own_way():
    """A model can be copied to try a step without taking it."""
    model = session(SURVEY)
    model.fire("pageReceived")
    before = model.snapshot()
    other = copy.deepcopy(model)
    other.fire("isEmbedded")
    other.fire("pageReceived")
    assert model.snapshot() == before != other.snapshot()


def test_the_model_imports_the_standard_library_alone():
    """Its worth is that it shares no code with what it judges."""
    tree = ast.parse(Path(model_module.__file__).read_text("utf-8"))
    imported = {name.name for node in ast.walk(tree) if isinstance(node, ast.Import) for name in node.names}
    imported |= {node.module for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    assert imported
    assert {name.partition(".")[0] for name in imported} <= sys.stdlib_module_names
