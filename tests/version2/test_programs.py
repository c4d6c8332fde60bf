"""The most typical programs of version 2's documentation: only their imports and the making of the manager are new.

Each program is a function that gets a trigger manager, or makes it with `Triggers(url, …).session(uid)`.
"""

from __future__ import annotations

import logging
import unittest
from pprint import pformat
from weakref import WeakSet

import filters as f  # noqa: TID253 - a program imports what it uses
import pytest

from triggers import TriggerManager, Triggers
from triggers.exceptions import with_context
from triggers.runners import threads
from triggers.task import MaxRetriesExceeded, TaskContext, TriggerTask
from triggers.testing import ThreadingTaskRunner, TriggerManagerTestCaseMixin
from triggers.types import TaskConfig, TaskInstance

__version__ = "1.2.3"

#: What the tasks below have stored.
SUBJECTS: list[dict] = []
RESPONSES: list[tuple[int, dict]] = []


class HttpError(Exception):
    """What a client of a web service raises."""


class ApiClient:
    """A web service that is away for some time."""

    failures = 0

    def post(self, agent):
        """Return metadata about the agent."""
        if self.failures:
            self.failures -= 1
            raise HttpError("503")
        return {"browser": agent}


api_client = ApiClient()


class ImportSubject(TriggerTask):
    def _run(self, context: TaskContext) -> dict:
        with context.get_logger_context({"app_version": __version__}) as logger:
            page_data = context.trigger_kwargs["firstPageReceived"]["responses"]
            if not page_data.get("givenNames"):
                logger.warning(
                    "Missing givenNames in response data.", extras={"context": {"page_data": page_data}}
                )
            if page_data.get("spam_score", 9) < 5:
                raise with_context(
                    exc=ValueError("Response data failed spam check."),
                    context={"spam_score": page_data["spam_score"], "threshold": 5},
                )
            SUBJECTS.append(page_data)
            return {"subjectId": len(SUBJECTS)}


class ImportResponses(TriggerTask):
    def _run(self, context: TaskContext) -> None:
        subject = context.trigger_kwargs["t_importSubject"]["subjectId"]
        RESPONSES.append((subject, context.trigger_kwargs["pageReceived"]["responses"]))


class ImportBrowserMetadata(TriggerTask):
    max_retries = 2

    def _run(self, context: TaskContext) -> dict:
        filtered_kwargs = context.filter_kwargs(
            {
                "pageReceived": {"agent": f.Required | f.Unicode},
                "config": {"cooldown": f.Type(int) | f.Optional(default=0)},
            }
        )
        try:
            metadata = api_client.post(filtered_kwargs["pageReceived"]["agent"])
        except HttpError as e:
            raise self.retry(exc=e, cooldown=filtered_kwargs["config"]["cooldown"]) from e
        return {"metadata": metadata, "retries": self.request.retries}


class SetStatusFlag(TriggerTask):
    def _run(self, context: TaskContext) -> dict:
        return {"complete": True}


CONFIGURATION = {
    "t_importSubject": {
        "after": ["firstPageReceived", "questionnaireComplete"],
        "run": ImportSubject.name,
    },
    "t_importResponses": {
        "after": ["t_importSubject"],
        "andEvery": "pageReceived",
        "run": ImportResponses.name,
    },
    "t_importBrowserMetadata": {
        "after": ["t_importSubject", "pageReceived"],
        "unless": ["isEmbeddedApplication"],
        "run": ImportBrowserMetadata.name,
        "withParams": {"config": {"cooldown": 0}},
    },
}

MARCUS = {"givenNames": "Marcus", "birthday": "1879-03-14"}


@pytest.fixture(autouse=True)
def _empty(monkeypatch):
    """No subject is stored yet, the web service works, and no other test's pool is open."""
    monkeypatch.setattr(threads, "_OPEN", WeakSet())
    monkeypatch.setattr(api_client, "failures", 0)
    SUBJECTS.clear()
    RESPONSES.clear()


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/s.db?synchronous=normal"
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def opened(url):
    """Make the application."""
    made = []

    def open_(**settings):
        made.append(Triggers(url, **settings))
        made[-1].start()
        return made[-1]

    yield open_
    for triggers in made:
        triggers.close()


@pytest.fixture
def triggers(opened):
    return opened()


@pytest.fixture
def trigger_manager(triggers):
    return triggers.session("questionnaire-17")


def statuses(trigger_manager):
    return {instance.name: instance.status for instance in trigger_manager.storage}


# -- 1. configuration, 2. firing -------------------------------------------------------------------------


def start_questionnaire(trigger_manager):
    """The view that starts a questionnaire, and one that receives its pages."""
    trigger_manager.update_configuration(CONFIGURATION)


def receive_pages(trigger_manager, first_page=MARCUS):
    """The views that receive pages of responses."""
    trigger_manager.fire(trigger_name="firstPageReceived", trigger_kwargs={"responses": first_page})
    for page in (first_page, {"income": 17}):
        trigger_manager.fire("pageReceived", {"responses": page, "agent": "Firefox"})
    trigger_manager.fire("questionnaireComplete")


def test_a_questionnaire_is_configured(trigger_manager):
    """Before anything has happened, every task is unresolved and none has an instance."""
    start_questionnaire(trigger_manager)
    assert {task.name for task in trigger_manager.storage.get_unresolved_tasks()} == CONFIGURATION.keys()
    assert trigger_manager.storage.get_unresolved_instances() == []
    task = trigger_manager.storage.tasks["t_importSubject"]
    assert isinstance(task, TaskConfig)
    assert "firstPageReceived" in task.after


def test_a_questionnaire_is_filled_in(triggers, trigger_manager):
    """Firings run the tasks; the subject's id arrives in the tasks that wait for it."""
    start_questionnaire(trigger_manager)
    receive_pages(trigger_manager)
    assert triggers.join(60)
    assert SUBJECTS == [MARCUS]
    assert sorted(RESPONSES, key=str) == sorted([(1, MARCUS), (1, {"income": 17})], key=str)
    instances = trigger_manager.storage.instances_of_task("t_importResponses")
    assert [instance.name for instance in instances] == ["t_importResponses#0", "t_importResponses#1"]
    assert trigger_manager.storage.get_unresolved_tasks() == []
    assert {
        key: trigger_manager.storage.latest_kwargs[key]
        for key in ("t_importSubject", "questionnaireComplete")
    } == {
        "t_importSubject": {"subjectId": 1},
        "questionnaireComplete": {},
    }


def test_an_embedded_questionnaire_abandons_a_task(triggers, trigger_manager):
    """A trigger of `unless` came first."""
    start_questionnaire(trigger_manager)
    trigger_manager.fire("isEmbeddedApplication")
    receive_pages(trigger_manager)
    assert triggers.join(60)
    assert statuses(trigger_manager)["t_importBrowserMetadata#0"] == TaskInstance.STATUS_ABANDONED


# -- 3. replay, 4. skip ----------------------------------------------------------------------------------


def test_a_failed_instance_is_replayed_with_other_kwargs(triggers, trigger_manager):
    """Its kwargs are merged by hand, and the replay cascades."""
    start_questionnaire(trigger_manager)
    receive_pages(trigger_manager, {**MARCUS, "spam_score": 1})
    assert triggers.join(60)
    failed_instance = trigger_manager.storage.instances["t_importSubject#0"]
    assert "Response data failed spam check." in pformat(failed_instance.metadata)
    with pytest.raises(KeyError):
        trigger_manager.storage.instances["t_importSubject"]

    replacement_kwargs = failed_instance.kwargs
    replacement_kwargs["firstPageReceived"] = {"responses": MARCUS}
    trigger_manager.replay_failed_instance(failed_instance, replacement_kwargs)
    assert triggers.join(60)
    assert statuses(trigger_manager)["t_importSubject#0"] == TaskInstance.STATUS_REPLAYED
    assert trigger_manager.storage["t_importSubject#1"].metadata["parent"] == "t_importSubject#0"
    assert {subject for subject, _ in RESPONSES} == {1}
    with pytest.raises(ValueError, match="t_importSubject#1 is finished"):
        trigger_manager.replay_failed_instance("t_importSubject#1")


def test_a_failed_instance_is_skipped_with_a_result(triggers, trigger_manager):
    """The simulated cascade runs what waits for it."""
    start_questionnaire(trigger_manager)
    receive_pages(trigger_manager, {**MARCUS, "spam_score": 1})
    assert triggers.join(60)
    trigger_manager.skip_failed_instance(
        failed_instance="t_importSubject#0",
        cascade=True,
        result={"subjectId": 42},
    )
    assert triggers.join(60)
    assert statuses(trigger_manager)["t_importSubject#0"] == TaskInstance.STATUS_SKIPPED
    assert {subject for subject, _ in RESPONSES} == {42}
    assert SUBJECTS == []


# -- 5. logger -------------------------------------------------------------------------------------------


def test_a_task_logs_with_context(triggers, trigger_manager):
    """The level is in the instance; the context of the log, of the message and of the exception is stored."""
    start_questionnaire(trigger_manager)
    receive_pages(trigger_manager, {"spam_score": 1})
    assert triggers.join(60)
    task_instance = trigger_manager.storage["t_importSubject#0"]
    assert (task_instance.log_level, task_instance.log_level_name) == (logging.ERROR, "ERROR")
    assert task_instance.metadata["exceptionContext"] == {"spam_score": 1, "threshold": 5}
    warning = trigger_manager.storage.logs(task_instance)[0]
    assert warning.entry.message == "Missing givenNames in response data."
    assert warning.entry.context == {"app_version": __version__, "page_data": {"spam_score": 1}}

    assert trigger_manager.storage.get_instances_with_unresolved_logs() == [task_instance]
    trigger_manager.mark_instance_logs_resolved("t_importSubject#0")
    assert trigger_manager.storage.get_instances_with_unresolved_logs() == []


# -- 6. finalizing manager -------------------------------------------------------------------------------


class FinalizingTriggerManager(TriggerManager):
    TRIGGER_SESSION_FINALIZED = "sessionFinalized"

    def _post_fire(self, trigger_name, tasks_scheduled):
        # Prevent infinite recursion.
        if trigger_name == self.TRIGGER_SESSION_FINALIZED:
            return

        # A session can only be finalized once.
        if self.TRIGGER_SESSION_FINALIZED in self.storage.latest_kwargs:
            return

        # Check for any unresolved tasks, ignoring those that wait for the session to be finalized.
        for config in self.storage.get_unresolved_tasks():
            if self.TRIGGER_SESSION_FINALIZED not in config.after:
                return

        self.fire(self.TRIGGER_SESSION_FINALIZED)


FINALIZED = {
    "t_importSubject": CONFIGURATION["t_importSubject"],
    "t_setStatusFlag": {"after": ["sessionFinalized"], "run": SetStatusFlag.name},
}


@pytest.mark.parametrize("manager", [FinalizingTriggerManager, "finalizing"])
def test_a_session_is_finalized(opened, manager):
    """By the recipe of the cookbook, and by the manager that replaces it, which is chosen by its name."""
    triggers = opened(manager=manager)
    trigger_manager = triggers.session("questionnaire-17")
    trigger_manager.update_configuration(FINALIZED)
    trigger_manager.fire("firstPageReceived", {"responses": MARCUS})
    assert "sessionFinalized" not in trigger_manager.storage.latest_kwargs
    trigger_manager.fire("questionnaireComplete")
    assert ThreadingTaskRunner.join_all(timeout=60)
    assert "sessionFinalized" in trigger_manager.storage.latest_kwargs
    assert statuses(trigger_manager) == {"t_importSubject#0": "finished", "t_setStatusFlag#0": "finished"}


# -- 7. custom manager -----------------------------------------------------------------------------------


class AuditedTriggerManager(TriggerManager):
    name = "audited"
    default_task_runner_name = "threading"
    audit: list = []  # noqa: RUF012 - shared by the managers of one test

    def _post_fire(self, trigger_name, tasks_scheduled):
        self.audit.append(f"{trigger_name} scheduled {[instance.name for instance in tasks_scheduled]}")

    def _post_replay(self, task_instance):
        parent_name = task_instance.metadata["parent"]
        parent_instance = self.storage[parent_name]
        self.audit.append(f"{task_instance.name} replays {parent_name}: {parent_instance.status}")

    def _post_skip(self, task_instance, cascade):
        self.audit.append(f"{task_instance.name} was skipped, cascade: {cascade}")


def test_a_custom_manager_hears_what_happens(opened, monkeypatch):
    """Its hooks get what the documentation says, in the documented order; it chooses its default runner."""
    monkeypatch.setattr(AuditedTriggerManager, "audit", [])
    triggers = opened(manager=AuditedTriggerManager, runner="inline")
    trigger_manager = triggers.session("questionnaire-17")
    trigger_manager.update_configuration({"t_importSubject": CONFIGURATION["t_importSubject"]})
    trigger_manager.fire("questionnaireComplete")
    trigger_manager.fire("firstPageReceived", {"responses": {**MARCUS, "spam_score": 1}})
    assert triggers.join(60)
    trigger_manager.replay_failed_instance("t_importSubject#0")
    assert triggers.join(60)
    trigger_manager.skip_failed_instance("t_importSubject#1", cascade=True, result={"subjectId": 42})
    assert trigger_manager.audit == [
        "questionnaireComplete scheduled []",
        "firstPageReceived scheduled ['t_importSubject#0']",
        "t_importSubject#1 replays t_importSubject#0: replayed",
        "t_importSubject scheduled []",
        "t_importSubject#1 was skipped, cascade: True",
    ]


# -- 8. retry --------------------------------------------------------------------------------------------


def browser(trigger_manager, failures):
    api_client.failures = failures
    trigger_manager.update_configuration(
        {"t_importBrowserMetadata": {"after": ["pageReceived"], "run": ImportBrowserMetadata.name}}
    )
    trigger_manager.fire("pageReceived", {"agent": "Firefox"})


def test_a_task_retries_itself(triggers, trigger_manager):
    """Each retry is a new instance; the last one has the result."""
    browser(trigger_manager, failures=2)
    assert triggers.join(60)
    assert statuses(trigger_manager) == {
        "t_importBrowserMetadata#0": "replayed",
        "t_importBrowserMetadata#1": "replayed",
        "t_importBrowserMetadata#2": "finished",
    }
    result = trigger_manager.storage["t_importBrowserMetadata#2"].metadata["result"]
    assert result == {"metadata": {"browser": "Firefox"}, "retries": 2}


def test_a_task_gives_up(triggers, trigger_manager):
    """After `max_retries`, with MaxRetriesExceeded."""
    browser(trigger_manager, failures=3)
    assert triggers.join(60)
    failed = trigger_manager.storage["t_importBrowserMetadata#2"]
    assert failed.status == TaskInstance.STATUS_FAILED
    kind = MaxRetriesExceeded
    assert failed.metadata["exceptionType"] == f"{kind.__module__}.{kind.__name__}"
    assert "HttpError: 503" in failed.metadata["exceptionInfo"]


# -- 9. metadata -----------------------------------------------------------------------------------------


def test_an_instance_is_described_and_settled_by_hand(triggers, trigger_manager):
    """Metadata is added, the status is changed with a cascade, and the metadata tells what was there before."""
    start_questionnaire(trigger_manager)
    receive_pages(trigger_manager, {**MARCUS, "spam_score": 1})
    assert triggers.join(60)
    failed = trigger_manager.storage["t_importSubject#0"]
    trigger_manager.update_instance_metadata(task_instance=failed, metadata={"ticket": "T-17"})
    trigger_manager.update_instance_status(
        task_instance="t_importSubject#0",
        status=TaskInstance.STATUS_SKIPPED,
        metadata={"skippedBy": "Ada"},
        cascade=True,
        cascade_kwargs={"subjectId": 42},
    )
    assert triggers.join(60)
    metadata = trigger_manager.storage["t_importSubject#0"].metadata
    assert (metadata["ticket"], metadata["skippedBy"]) == ("T-17", "Ada")
    assert metadata[TaskInstance.META_EXCEPTION_TYPE] == "builtins.ValueError"
    assert metadata[TaskInstance.META_ACTUAL_KWARGS].keys() == {"firstPageReceived", "questionnaireComplete"}
    assert (
        metadata["timestamps"]["created"]
        <= metadata["timestamps"]["failed"]
        <= metadata["timestamps"]["skipped"]
    )
    assert {subject for subject, _ in RESPONSES} == {42}


# -- 10. testing kit -------------------------------------------------------------------------------------


class ImportSubjectTestCase(TriggerManagerTestCaseMixin, unittest.TestCase):
    def setUp(self):
        super().setUp()
        triggers = Triggers("memory://")
        self.addCleanup(triggers.close)
        self.manager = triggers.session(self._testMethodName)

    def test_successful_import(self):
        """Successfully importing a new subject record."""
        # Configure trigger tasks.
        self.manager.update_configuration({"t_importSubject": CONFIGURATION["t_importSubject"]})

        # Fire triggers (in this case, simulating successful questionnaire completion).
        self.manager.fire(trigger_name="firstPageReceived", trigger_kwargs={"responses": MARCUS})
        self.assertInstanceUnstarted("t_importSubject#0")
        self.manager.fire("questionnaireComplete")

        # Wait for tasks to complete.
        ThreadingTaskRunner.join_all(timeout=60)

        # Perform assertions.
        self.assertInstanceFinished("t_importSubject#0", {"subjectId": 1})
        self.assertInstanceMissing("t_importSubject#1")
        self.assertUnresolvedTasks([])
        assert SUBJECTS == [MARCUS]

    def test_spam(self):
        """A subject that fails the spam check."""
        self.manager.update_configuration({"t_importSubject": CONFIGURATION["t_importSubject"]})
        self.manager.fire("firstPageReceived", {"responses": {"spam_score": 1}})
        self.manager.fire("questionnaireComplete")
        ThreadingTaskRunner.join_all(timeout=60)
        self.assertInstanceFailed(instance_name="t_importSubject#0", exc_type=ValueError)
        self.assertUnresolvedInstances(["t_importSubject#0"])


# -- 11. Celery ------------------------------------------------------------------------------------------


class SendReport(TriggerTask):
    queue = "reports"
    rate_limit = "10/m"
    time_limit = 60
    soft_time_limit = 30
    ignore_result = False

    def _run(self, context: TaskContext) -> dict:
        return {"sentTo": context.trigger_kwargs["done"]["to"], "id": self.request.id}


def test_a_task_has_options_of_celery(opened):
    """They are set on its class, as on any Celery task, and it runs as a Celery task under its own name."""
    from celery import Celery
    from celery.signals import task_prerun

    from triggers.runners.celery import CeleryRunner  # noqa: PLC0415 - needs Celery

    app = Celery(set_as_current=False, broker="memory://")
    app.conf.task_always_eager = True
    triggers = opened(runner=CeleryRunner(app))
    app.finalize()
    celery_task = app.tasks[SendReport.name]
    assert (celery_task.queue, celery_task.rate_limit) == ("reports", "10/m")
    assert (celery_task.time_limit, celery_task.soft_time_limit, celery_task.ignore_result) == (60, 30, False)

    begun = []
    note = lambda task_id, task, **_: begun.append((task.name, task_id))  # noqa: E731 - a receiver
    task_prerun.connect(note, weak=False)
    try:
        trigger_manager = triggers.session("questionnaire-17")
        trigger_manager.update_configuration({"t_send": {"after": ["done"], "run": SendReport.name}})
        trigger_manager.fire("done", {"to": "ada@example.org"})
    finally:
        task_prerun.disconnect(note)
    result = trigger_manager.storage["t_send#0"].metadata["result"]
    assert result["sentTo"] == "ada@example.org"
    assert begun == [(SendReport.name, result["id"])]
