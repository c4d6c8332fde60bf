"""How tasks are defined and found."""

from __future__ import annotations

import abc
from datetime import timedelta

import pytest

from tests.scenarios.steps import runs
from triggers import TriggerTask
from triggers.exceptions import DuplicateTaskError
from triggers.task import task

MINUTE = timedelta(minutes=1)


# -- how tasks are written -----------------------------------------------------------------------------------


def test_tasks_are_found_by_name(tasks):
    """A task is named after its module and class or function unless it has a name of its own."""

    class Plain(TriggerTask):
        registry = tasks

        def _run(self, context):
            return None

    @task(registry=tasks)
    def function(context):
        return None

    @task(name="a name", registry=tasks)
    def other(context):
        return {"n": 1}

    assert set(tasks) == {f"{__name__}.Plain", f"{__name__}.function", "a name"}
    assert other(None) == {"n": 1}


def test_abstract_bases_are_not_tasks(tasks):
    """A class without a body, or an abstract one, is not registered; those made from it are."""

    class Base(TriggerTask):
        registry = tasks
        max_retries = 7

    class Abstract(Base, abc.ABC):
        @abc.abstractmethod
        def _run(self, context): ...

    class Real(Abstract):
        def _run(self, context):
            return None

    assert set(tasks) == {f"{__name__}.Real"}
    assert tasks.get(f"{__name__}.Real").max_retries == 7


def test_a_family_of_tasks_has_something_around_every_run(tasks, session, check):
    """What overrides `run` lies around the `_run` of every task of the family."""

    class Around(TriggerTask):
        registry = tasks

        def run(self, context):
            return {**super().run(context), "around": True}

    class Inside(Around):
        name = "inside"

        def _run(self, context):
            return {"inside": True}

    session.update_configuration(runs("inside"))
    session.fire("go")
    check.assert_instance_finished("t_inside#0", {"inside": True, "around": True})


def test_two_tasks_of_one_name_are_an_error(tasks):
    """A second task under a name that is taken is refused, and the first one stays."""

    class First(TriggerTask):
        name = "same"
        registry = tasks

        def _run(self, context):
            return None

    with pytest.raises(DuplicateTaskError, match="'same'"):

        class Second(TriggerTask):
            name = "same"
            registry = tasks

            def _run(self, context):
                return None

    assert type(tasks.get("same")) is First
