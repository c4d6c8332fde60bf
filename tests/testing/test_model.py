"""What a firing does in the reference model, and what the model itself promises, with expected values worked out by hand."""

from __future__ import annotations

import ast
import copy
import sys
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path

import pytest

from tests.testing.modeling import failed, fire_all, run, session, statuses, task
from triggers.testing.conformance import model as model_module
from triggers.testing.conformance.model import (
    Model,
    ModelConflict,
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


# -- the questionnaire ---------------------------------------------------------------------------------------


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


# -- what a firing gives -------------------------------------------------------------------------------------


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
    assert fired == [[1], [], [2], [], [3], [], [4], [], []]


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


# -- idempotency keys ----------------------------------------------------------------------------------------


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


# -- the model itself ----------------------------------------------------------------------------------------


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
                "charged": 0,
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
