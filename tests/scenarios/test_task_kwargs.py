"""What a task receives, what it may fire, and what happens when its configuration changes."""

from __future__ import annotations

from datetime import timedelta

import pytest
from pydantic import BaseModel
from typing_extensions import TypedDict

from tests.scenarios.steps import raise_, runs
from triggers import Limits
from triggers.exceptions import (
    InvalidKwargsError,
    InvalidStatusError,
    UnknownTaskError,
)
from triggers.task import task
from triggers.testing import TriggersHarness

MINUTE = timedelta(minutes=1)


# -- what a task is given ------------------------------------------------------------------------------------


def test_params_lie_under_the_kwargs(tasks, session):
    """`withParams` are merged mapping by mapping under what was fired; the firing wins, and lists are replaced."""
    seen = []
    task(name="work", registry=tasks)(lambda context: seen.append(context.trigger_kwargs))
    params = {"go": {"a": {"x": 1, "y": 2}, "list": [1, 2, 3], "only": True}, "api": {"timeout": 5}}
    session.update_configuration(runs("work", withParams=params))
    session.fire("go", {"a": {"y": 3, "z": 4}, "list": [9], "other": None})
    assert seen == [
        {
            "go": {"a": {"x": 1, "y": 3, "z": 4}, "list": [9], "only": True, "other": None},
            "api": {"timeout": 5},
        }
    ]
    assert session.storage["t_work#0"].kwargs == {"go": {"a": {"y": 3, "z": 4}, "list": [9], "other": None}}


def test_what_a_task_changes_stays_its_own(tasks, session, check):
    """Kwargs and parameters are a run's own copies: what it does to them no other run sees."""

    @task(name="work", registry=tasks)
    def work(context):
        found = [len(context.trigger_kwargs["go"]["list"]), len(context.trigger_kwargs["api"]["list"])]
        context.trigger_kwargs["go"]["list"].append(1)
        context.trigger_kwargs["api"]["list"].append(1)
        return {"found": found}

    session.update_configuration(
        {"t_work": {"andEvery": "go", "run": "work", "withParams": {"api": {"list": []}}}}
    )
    for number in range(2):
        session.fire("go", {"list": []})
        check.assert_instance_finished(f"t_work#{number}", {"found": [0, 0]})
    assert check.assert_instance_finished("t_work#0").kwargs == {"go": {"list": []}}


class Page(BaseModel):
    number: int
    title: str = "untitled"


class Address(TypedDict):
    city: str


def test_kwargs_are_checked(tasks, session, check):
    """A pydantic model, a TypedDict and filters make of the kwargs of each trigger what they say."""
    import filters as f

    made = {}

    @task(name="work", registry=tasks)
    def work(context):
        made.update(
            context.filter_kwargs(
                {"page": Page, "place": Address, "person": {"name": f.Required | f.Unicode | f.Strip}}
            )
        )

    session.update_configuration({"t_work": {"after": ["page", "place", "person"], "run": "work"}})
    session.fire("page", {"number": "7"})
    session.fire("place", {"city": "Oslo"})
    session.fire("person", {"name": " Ann "})
    check.assert_instance_finished("t_work#0")
    assert made == {"page": Page(number=7), "place": {"city": "Oslo"}, "person": {"name": "Ann"}}


def test_every_problem_of_the_kwargs_is_told(tasks, session, check):
    """Kwargs that are refused fail with InvalidKwargsError, whose context has each problem by its path."""
    import filters as f

    @task(name="work", registry=tasks)
    def work(context):
        context.filter_kwargs({"page": Page, "person": {"name": f.Required}, "never": Address})

    session.update_configuration({"t_work": {"after": ["page", "person"], "run": "work"}})
    session.fire("page", {"number": "seven", "title": 1})
    session.fire("person", {"name": ""})
    failed = check.assert_instance_failed("t_work#0", InvalidKwargsError)
    assert set(failed.error["context"]["problems"]) == {
        "page.number",
        "page.title",
        "person.name",
        "never.city",
    }


def test_the_text_of_invalid_kwargs_has_the_first_problems(tasks, session, check):
    """However many problems there are, the text has 20 of them and the count."""

    class Pages(BaseModel):
        pages: list[int]

    task(name="work", registry=tasks)(lambda context: context.filter_kwargs({"go": Pages}))
    session.update_configuration(runs("work"))
    session.fire("go", {"pages": ["wrong"] * 500})
    failed = check.assert_instance_failed("t_work#0", InvalidKwargsError)
    assert failed.error["message"].endswith("; and 480 more")
    assert failed.error["message"].count("go.pages.") == 20


# -- firing from within --------------------------------------------------------------------------------------


def test_a_task_fires_through_its_own_manager(tasks, session, check):
    """What a task fires is stored at once, counts as fired by its instance, and runs when the task has ended."""
    seen = []

    @task(name="outer", registry=tasks)
    def outer(context):
        result = context.manager.fire("inner", {"n": 1}, key="once")
        seen.append((result.scheduled, context.manager.storage["t_inner#0"].status, context.manager.uid))
        return {}

    task(name="inner", registry=tasks)(lambda context: dict(context.trigger_kwargs))
    session.update_configuration({**runs("outer"), **runs("inner", "inner")})
    session.fire("go")
    assert seen == [(("t_inner#0",), "scheduled", "s")]
    check.assert_instance_finished("t_inner#0", {"inner": {"n": 1}})
    (firing,) = session.storage._reader.latest("s", ["inner"]).values()
    assert (firing.source, firing.depth) == ("t_outer#0", 1)


def test_tasks_that_fire_each_other_without_end_are_stopped(tasks):
    """A chain of firings longer than the limit fails with CascadeDepthError; it does not go on for ever."""
    task(name="again", registry=tasks)(lambda context: context.manager.fire("go") and None)
    with TriggersHarness(registry=tasks, limits=Limits(cascade_depth=10)) as harness:
        session = harness.session("s")
        session.update_configuration({"t_again": {"andEvery": "go", "run": "again"}})
        session.fire("go")
        harness.check("s").assert_instance_finished("t_again#10")
        harness.check("s").assert_instance_failed("t_again#11", "CascadeDepthError", match="limit of 10")
        harness.check("s").assert_instance_missing("t_again#12")


# -- the configuration changes -------------------------------------------------------------------------------


def test_a_removed_task(tasks, session, check):
    """A failed instance of a removed task can be skipped, not replayed; its finished ones stay to be seen."""
    task(name="work", registry=tasks)(lambda context: raise_(ValueError()))
    session.update_configuration(runs("work"))
    session.fire("go")
    session.replace_configuration({})
    with pytest.raises(UnknownTaskError, match="t_work: is no longer in the configuration"):
        session.replay_failed_instance("t_work#0")
    assert not check.assert_instance_failed("t_work#0").can_replay
    session.skip_failed_instance("t_work#0")
    check.assert_instance_skipped("t_work#0")


def test_a_scheduled_instance_of_a_removed_task_fails(tasks, harness, session, check):
    """An instance that waits for its time when its task is removed fails by name."""
    task(name="work", registry=tasks)(lambda context: raise_(context.retry(cooldown=60)))
    session.update_configuration(runs("work"))
    session.fire("go")
    session.replace_configuration({})
    harness.advance(MINUTE)
    check.assert_instance_failed(
        "t_work#1", UnknownTaskError, match="t_work: is no longer in the configuration"
    )


def test_a_replay_runs_what_is_configured_now(tasks, session, check):
    """Rules are not copied into instances: fix the configuration, then replay."""
    task(name="broken", registry=tasks)(lambda context: raise_(ValueError()))
    task(name="fixed", registry=tasks)(lambda context: dict(context.trigger_kwargs))
    session.update_configuration({"t_x": {"after": ["go"], "run": "broken"}})
    session.fire("go", {"n": 1})
    session.update_configuration({"t_x": {"after": ["go"], "run": "fixed", "withParams": {"go": {"m": 2}}}})
    new = session.replay_failed_instance("t_x#0")
    assert (new.name, new.parent) == ("t_x#1", "t_x#0")
    check.assert_instance_finished("t_x#1", {"go": {"n": 1, "m": 2}})
    with pytest.raises(InvalidStatusError, match="t_x#0 is replayed"):
        session.replay_failed_instance("t_x#0")


def test_a_replay_may_replace_the_kwargs(tasks, session, check):
    """The new instance gets exactly the replacement."""
    task(name="work", registry=tasks)(lambda context: {}[context.trigger_kwargs["go"]["key"]])
    session.update_configuration(runs("work"))
    session.fire("go", {"key": 1, "more": 2})
    session.replay_failed_instance("t_work#0", {"go": {"key": 3}})
    assert check.assert_instance_failed("t_work#1", KeyError, match="3").kwargs == {"go": {"key": 3}}


def test_a_skip_may_cascade(tasks, session, check):
    """A person gives an instance up, and may fire its task's name with a result, as if it had finished."""
    task(name="work", registry=tasks)(lambda context: raise_(ValueError()))
    session.update_configuration(
        {**runs("work"), "t_next": {"after": ["t_work"], "run": "triggers.testing.PassThrough"}}
    )
    session.fire("go")
    with pytest.raises(ValueError, match="has no effect without cascade=True"):
        session.skip_failed_instance("t_work#0", result={"n": 1})
    session.skip_failed_instance("t_work#0", cascade=True, result={"n": 1})
    check.assert_instance_skipped("t_work#0")
    check.assert_instance_finished("t_next#0", {"t_work": {"n": 1}})
