"""A task that no worker has: the log, the explanation and `join` name it, and the name that was probably meant.

The same cause, an instance that waits for something that never comes, was looked for in: a trigger that no task
listens to (test_unheard.py), a `using` that is not installed (refused when it is configured), a manager that a process
lacks (test_managers.py), tasks that wait for each other (tests/core/test_configuration.py).
"""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from triggers import Registry, Triggers, task
from triggers.testing import TriggersHarness

MISSING = "instances that run {!r} wait for another worker: this process has no such task"
CONFIGURATION = {"t_import": {"after": ["go"], "run": "survey.Imprt"}}


@pytest.fixture
def tasks():
    found = Registry()
    task(name="survey.Import", registry=found)(lambda _: None)
    return found


@pytest.fixture
def url(storage_kind, tmp_path):
    return "memory://" if storage_kind == "memory" else f"sqlite:///{tmp_path}/s.db?synchronous=normal"


@pytest.fixture(params=["memory", "sqlite"])
def storage_kind(request):
    return request.param


def test_a_missing_task_is_logged_once(tasks, caplog):
    """One WARNING for a name, however many instances and attempts there are; another name is logged as well."""
    with TriggersHarness(registry=tasks, complete_registry=False) as harness:
        session = harness.session("s")
        session.update_configuration(
            {"t_import": {"andEvery": "go", "run": "survey.Imprt"}, "t_mail": {"after": ["go"], "run": "zzz"}}
        )
        for _ in range(3):
            session.fire("go")
        harness.advance(timedelta(hours=1))
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == [
        f"{MISSING.format('survey.Imprt')}; did you mean 'survey.Import'?",
        MISSING.format("zzz"),
    ]


def test_an_explanation_names_the_missing_task(tasks):
    """It has the name that was probably meant, for a manager and for the sessions of the application."""
    with TriggersHarness(registry=tasks, complete_registry=False) as other:
        session = other.session("s")
        session.update_configuration(CONFIGURATION)
        session.fire("go")
        for view in (session.storage, *other.triggers.sessions()):
            sentence = view.explain("t_import").sentence
            assert "is waiting for a worker that has the task `survey.Imprt`" in sentence
            assert "did you mean 'survey.Import'?" in sentence
        task(name="survey.Imprt", registry=other.triggers.registry)(lambda _: None)
        assert "did you mean" not in session.storage.explain("t_import").sentence


def test_join_says_what_it_waits_for(url, tasks, caplog):
    """When its timeout ends, a WARNING has the number of instances and explains the first ones."""
    with Triggers(url, registry=tasks, runner="inline") as app:
        session = app.session("s")
        session.update_configuration(CONFIGURATION)
        session.fire("go")
        caplog.clear()
        assert app.join(0) is False
        (warning,) = [record for record in caplog.records if record.levelno == logging.WARNING]
        assert warning.getMessage().startswith("join ended after 0 s with ")
        assert "session 's': t_import has 1 scheduled instance" in warning.getMessage()
        assert "did you mean 'survey.Import'?" in warning.getMessage()
        caplog.clear()
        assert app.join(0, delayed=False) is True
        assert caplog.records == []
