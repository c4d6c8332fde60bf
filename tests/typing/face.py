"""The programmer's face as a type checker sees it: mypy reads this file, nothing runs it."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any, assert_type

from triggers import Preview, Status, TaskInstance, TriggerManager, Triggers
from triggers.exceptions import with_context
from triggers.task import TaskContext, TriggerTask, task

if TYPE_CHECKING:
    from collections.abc import Mapping


class ImportSubject(TriggerTask):
    """A task as the README writes it."""

    max_retries = 3

    def _run(self, context: TaskContext) -> dict[str, Any]:
        assert_type(context.manager, TriggerManager)
        assert_type(context.idempotency_key, str)
        with context.get_logger_context({"page": 1}) as logger:
            logger.warning("Missing %s", "name", context={"page": 1})
            logger.warning("Missing name", extra={"context": {"page": 1}})
        if not context.trigger_kwargs["pageReceived"]:
            assert_type(self.request.retries, int)
            raise self.retry(ValueError("No page."), {"page": 1}, {"pageReceived": {}}, timedelta(seconds=5))
        if context.lease_lost:
            raise self.skip({"reason": "a ghost"})
        raise with_context(exc=ValueError("Spam."), context={"score": 1})


class ImportLater(TriggerTask):
    """A task may be a coroutine; a duration may be a number of seconds."""

    timeout = 5
    lease = timedelta(minutes=2)

    async def _run(self, context: TaskContext) -> Mapping[str, Any] | None:
        return {"attempt": context.attempt}


@task(name="survey.Score", timeout=0.5, lease=timedelta(minutes=2), queue="scores", rate_limit="10/s")
def score(context: TaskContext) -> dict[str, Any]:
    """A function may be a task, with the same options."""
    return {"tuple": (1, {2}), "kwargs": context.trigger_kwargs}


def the_whole_face() -> None:
    """What a caller gets from each call is known without a cast."""
    with Triggers("sqlite:///survey.db", lease=timedelta(seconds=30), grace=5) as triggers:
        manager = triggers.session("respondent-17")
        assert_type(manager, TriggerManager)
        manager.update_configuration(
            {"t_importSubject": {"after": ["pageReceived"], "run": "survey.ImportSubject"}}
        )
        assert_type(manager.fire("pageReceived", {"page": 1}, key="page-1").duplicate, bool)
        instance = manager.storage["t_importSubject#0"]
        assert_type(instance.name, str)
        assert_type(list(manager.storage.find(statuses=["failed", Status.SKIPPED])), list[TaskInstance])
        assert_type(instance.is_resolved, bool)
        assert_type(instance.log_level_name, str)
        manager.skip_failed_instance(instance, cascade=True, result={"subjectId": 17})
        manager.replay_failed_instance(
            failed_instance="t_importSubject#1", replacement_kwargs={"pageReceived": {}}
        )
        manager.fire(trigger_name="pageReceived", trigger_kwargs={"page": 2})
        changed = manager.update_instance_status(
            "t_importSubject#1", "skipped", {"by": "Ada"}, True, {"subjectId": 1}
        )
        assert_type(changed, TaskInstance)
        assert_type([name for config in manager.storage.tasks.values() for name in config.unless], list[str])
        assert_type(manager.storage.latest_kwargs["pageReceived"], "Mapping[str, Any]")
        assert_type(manager.preview.fire("pageReceived", {"page": 3}, key="page-3"), Preview)
        assert_type(manager.preview.skip(instance, cascade=True).fired[0].kwargs, dict[str, Any])
        assert_type(manager.preview.replay("t_importSubject#0").to_json(), dict[str, Any])
        with manager.joined(object()) as joined:
            assert_type(joined, TriggerManager)
        assert_type(triggers.join(timeout=timedelta(seconds=10)), bool)
