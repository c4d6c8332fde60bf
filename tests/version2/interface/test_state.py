"""What a session's state shows, read as version 2 documents it."""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta

import pytest

from triggers import Status, types
from triggers.exceptions import with_context
from triggers.task import task
from triggers.testing import TriggersHarness

IMPORT = {
    "after": ["firstPageReceived"],
    "andEvery": "pageReceived",
    "unless": ["isEmbeddedApplication"],
    "run": "app.Import",
    "withParams": {"pageReceived": {"timeout": 5}},
    "title": "Import the subject",
}


@pytest.fixture
def config(trigger_manager):
    trigger_manager.update_configuration(
        {"t_importSubject": IMPORT, "t_score": {"after": ["b", "a"], "run": "x"}}
    )
    return trigger_manager.storage.tasks["t_importSubject"]


# -- the configuration of a task -------------------------------------------------------------------------


def test_a_task_configuration_is_called_by_its_name(config):
    """`name`, `str()` and the type under its old name."""
    assert config.name == str(config) == "t_importSubject"
    assert isinstance(config, types.TaskConfig)


def test_the_conditions_of_a_task_are_collections(config, trigger_manager):
    """`in`, iteration and sorted lists; `after` includes the trigger of `andEvery`."""
    assert "firstPageReceived" in config.after
    assert "isEmbeddedApplication" not in config.after
    assert set(config.after) == {"firstPageReceived", "pageReceived"}
    assert list(config.unless) == ["isEmbeddedApplication"]
    assert trigger_manager.storage.tasks["t_score"].after_sorted == ["a", "b"]
    assert config.unless_sorted == ["isEmbeddedApplication"]


def test_an_unless_that_is_left_out_is_empty(config, trigger_manager):
    """It is never None."""
    unless = trigger_manager.storage.tasks["t_score"].unless
    assert (list(unless), bool(unless), "a" in unless) == ([], False, False)


def test_a_task_configuration_says_whether_it_uses_a_trigger(config):
    """A trigger of `after`, `andEvery` or `unless`."""
    used = [
        name
        for name in ("firstPageReceived", "pageReceived", "isEmbeddedApplication", "x")
        if config.uses_trigger(name)
    ]
    assert used == ["firstPageReceived", "pageReceived", "isEmbeddedApplication"]


def test_a_task_configuration_serializes(config):
    """All directives, with the custom ones beside them, in a form that configures the same task."""
    assert config.serialize() == {
        "after": ["firstPageReceived", "pageReceived"],
        "andEvery": "pageReceived",
        "unless": ["isEmbeddedApplication"],
        "run": "app.Import",
        "using": None,
        "withParams": {"pageReceived": {"timeout": 5}},
        "title": "Import the subject",
    }


# -- finding instances -----------------------------------------------------------------------------------


def test_instances_of_a_task_by_name_or_configuration(config, trigger_manager):
    """Both give the same list; a task without instances gives none; anything else is an error."""
    trigger_manager.fire("firstPageReceived")
    storage = trigger_manager.storage
    for given in ("t_importSubject", config):
        assert [instance.name for instance in storage.instances_of_task(given)] == ["t_importSubject#0"]
    assert storage.instances_of_task("t_score") == []
    for wrong in (None, storage["t_importSubject#0"], 7):
        with pytest.raises(TypeError, match="needs the name or the configuration of a task, not a"):
            storage.instances_of_task(wrong)


def test_the_latest_kwargs_are_a_mapping(trigger_manager):
    """Trigger → kwargs: `in`, a look-up, and iteration over everything that has fired."""
    for number in range(120):
        trigger_manager.fire("pageReceived", {"page": number})
    trigger_manager.fire("done")
    latest_kwargs = trigger_manager.storage.latest_kwargs
    assert "sessionFinalized" not in latest_kwargs
    assert latest_kwargs["pageReceived"] == {"page": 119}
    assert dict(latest_kwargs) == {"pageReceived": {"page": 119}, "done": {}}
    assert (len(latest_kwargs), latest_kwargs.get("other")) == (2, None)


# -- an instance -----------------------------------------------------------------------------------------


@pytest.fixture
def harness(tasks):
    with TriggersHarness(registry=tasks, allow_failures=True) as harness:
        yield harness


def import_subject(context):
    with context.get_logger_context() as logger:
        logger.warning("no name")
        raise with_context(ValueError("spam"), {"spam_score": 3})


@pytest.fixture
def session(harness, tasks):
    task(name="app.Import", registry=tasks)(import_subject)
    rule = {**IMPORT, "after": [], "withParams": {"pageReceived": {"api": {"timeout": 5}}}}
    session = harness.session("s")
    session.update_configuration({"t_importSubject": rule})
    session.fire("pageReceived", {"page": 1})
    return session


def test_the_metadata_of_a_failure(session):
    """The type with its module, the traceback, the context, the level of the log, and the kwargs that were used."""
    metadata = session.storage["t_importSubject#0"].metadata
    assert metadata["exceptionType"] == "builtins.ValueError"
    assert metadata["exceptionInfo"].startswith("Traceback (most recent call last):")
    assert metadata["exceptionInfo"].endswith("ValueError: spam\n")
    assert metadata["exceptionContext"] == {"spam_score": 3}
    assert metadata["logLevel"] == logging.ERROR
    assert metadata["actualKwargs"] == {"pageReceived": {"api": {"timeout": 5}, "page": 1}}
    assert metadata["depth"] == 0
    assert metadata.keys().isdisjoint({"result", "parent", "cascade", "cooldown", "logsResolved"})


def test_the_metadata_has_timestamps(session, harness):
    """`created`, `lastModified`, and one for each status, in UTC."""
    begun = harness.clock.time
    harness.advance(timedelta(minutes=1))
    session.update_instance_metadata("t_importSubject#0", {"ticket": 7})
    timestamps = session.storage["t_importSubject#0"].metadata["timestamps"]
    assert (
        timestamps["created"]
        == timestamps["scheduled"]
        == timestamps["running"]
        == timestamps["failed"]
        == begun
    )
    assert timestamps["lastModified"] == begun + timedelta(minutes=1)
    assert isinstance(begun, datetime)
    assert begun.tzinfo is UTC


def test_the_metadata_says_whether_logs_are_resolved(session):
    """The key is there once they are, and not after a later record or a revoked review."""
    session.mark_instance_logs_resolved("t_importSubject#0")
    instance = session.storage["t_importSubject#0"]
    assert instance.metadata["logsResolved"] is True
    assert instance.logs_resolved
    session.reopen_instance_logs("t_importSubject#0")
    assert "logsResolved" not in session.storage["t_importSubject#0"].metadata
    session.update_configuration({"t_quiet": {"after": ["go"], "run": "triggers.testing.PassThrough"}})
    session.fire("go")
    session.mark_instance_logs_resolved("t_quiet#0")
    assert session.storage["t_quiet#0"].metadata["logsResolved"] is True
    session.reopen_instance_logs("t_quiet#0")
    assert "logsResolved" not in session.storage["t_quiet#0"].metadata


@pytest.mark.parametrize("cascade", [True, False])
def test_the_metadata_of_a_skip_says_whether_it_cascaded(session, cascade):
    """With the simulated result; the exception stays."""
    session.skip_failed_instance("t_importSubject#0", cascade, {"subjectId": 42} if cascade else None)
    metadata = session.storage["t_importSubject#0"].metadata
    assert metadata["cascade"] is cascade
    assert metadata.get("result") == ({"subjectId": 42} if cascade else None)
    assert metadata["exceptionType"] == "builtins.ValueError"


def test_the_metadata_of_a_retry_has_its_cooldown_in_seconds(harness):
    """The instance that waits has the cooldown, and names its parent."""
    session = harness.session("s")
    params = {"retrying": {"cooldown": 90, "times": 1}}
    session.update_configuration(
        {"t_call": {"after": ["go"], "run": "triggers.testing.SelfRetrying", "withParams": params}}
    )
    session.fire("go")
    metadata = session.storage["t_call#1"].metadata
    assert (metadata["cooldown"], metadata["parent"], metadata["depth"]) == (90, "t_call#0", 1)
    assert "actualKwargs" not in metadata
    harness.run_until_idle()
    assert session.storage["t_call#1"].metadata["result"] == {"retrying": params["retrying"], "go": {}}


def test_the_flags_of_an_instance_have_their_old_meanings(harness):
    """`can_schedule`: is unstarted; `can_run`: and its condition is met. Ours have names of their own."""
    harness.triggers.close()
    session = harness.session("s")
    session.update_configuration({"t": {"after": ["a", "b"], "run": "triggers.testing.PassThrough"}})

    def flags():
        instance = session.storage["t#0"]
        return instance.can_schedule, instance.can_run, instance.is_ready, instance.is_claimable

    session.fire("a")
    assert flags() == (True, False, False, False)
    seen = session.storage["t#0"]
    session.fire("b")
    assert flags() == (False, False, False, True)
    assert (seen.can_schedule, seen.can_run) == (True, False)  # a snapshot


def test_constants_have_their_old_names(session):
    """In `triggers.types`, and on the class."""
    instance = session.storage["t_importSubject#0"]
    assert isinstance(instance, types.TaskInstance)
    assert instance.status == types.STATUS_FAILED == types.TaskInstance.STATUS_FAILED == "failed"
    for status in Status:
        assert getattr(types, f"STATUS_{status.upper()}") == status
    assert instance.metadata[types.META_EXCEPTION_TYPE] == "builtins.ValueError"
    assert instance.metadata[types.TaskInstance.META_TIMESTAMPS][types.TaskInstance.TIMESTAMP_CREATED]
    assert instance.metadata.keys() <= {
        getattr(types, name) for name in types.__all__ if name.startswith("META_")
    }


def test_records_at_warning_and_above_must_be_resolved(harness, tasks):
    """As documented: WARNING, where version 2's code had ERROR."""

    @task(name="app.Warn", registry=tasks)
    def warn(context):
        with context.get_logger_context() as logger:
            logger.log(context.trigger_kwargs["go"]["level"], "odd")

    session = harness.session("s")
    session.update_configuration({"t": {"andEvery": "go", "run": "app.Warn"}})
    for level in (logging.INFO, logging.WARNING):
        session.fire("go", {"level": level})
    assert [instance.name for instance in session.storage.get_instances_with_unresolved_logs()] == ["t#1"]
    instance = session.storage["t#1"]
    assert (instance.log_level, instance.log_level_name, instance.logs_resolved) == (30, "WARNING", False)
