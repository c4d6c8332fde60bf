"""How a session of the reference model changes its rules, and when it is finalized."""

from __future__ import annotations

import pytest

from tests.testing.modeling import failed, fire_all, retried, run, session, statuses, task
from triggers.testing.conformance.model import (
    ModelUnknownTask,
)

# -- reconfiguration -----------------------------------------------------------------------------------------


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


# -- resolution and finalising -------------------------------------------------------------------------------


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
