"""The test kit of version 2: its assertions for :class:`unittest.TestCase`, and its ready-made tasks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from triggers.task import TriggerTask
from triggers.testing.assertions import SessionAssertions
from triggers.testing.tasks import READY_MADE

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from triggers.manager import TriggerManager
    from triggers.session import TaskInstance
    from triggers.task import TaskContext


#: pytest shows the line of the test, not these.
__tracebackhide__ = True


class TriggerManagerTestCaseMixin:
    """Assertions about the session of `manager`, for a :class:`unittest.TestCase`.

    Each is one of :class:`~triggers.testing.SessionAssertions`, which other test frameworks can use directly.

    Attributes:
        manager: the manager of the session; the test sets it, usually in `setUp`.
    """

    manager: TriggerManager

    @property
    def _check(self) -> SessionAssertions:
        return SessionAssertions(self.manager)

    # ruff: noqa: N802 - the documented names, which are those of unittest's kind

    def assertInstanceStatus(self, instance_name: str, expected_status: str) -> TaskInstance:
        """Assert that the instance exists and has this one of the eight statuses."""
        return self._check.assert_instance_status(instance_name, expected_status)

    def assertInstanceAbandoned(self, instance_name: str) -> TaskInstance:
        """Assert that the `unless` of its task stopped the instance before it started."""
        return self._check.assert_instance_abandoned(instance_name)

    def assertInstanceFailed(self, instance_name: str, exc_type: type[BaseException]) -> TaskInstance:
        """Assert that the instance has failed with exactly this type of exception."""
        return self._check.assert_instance_failed(instance_name, exc_type)

    def assertInstanceFinished(
        self, instance_name: str, expected_result: Mapping[str, Any] | None = None
    ) -> TaskInstance:
        """Assert that the instance has finished, with this result unless it is None."""
        if expected_result is None:
            return self._check.assert_instance_finished(instance_name)
        return self._check.assert_instance_finished(instance_name, expected_result)

    def assertInstanceMissing(self, instance_name: str) -> None:
        """Assert that the session has no instance of that name."""
        self._check.assert_instance_missing(instance_name)

    def assertInstanceReplayed(self, instance_name: str) -> TaskInstance:
        """Assert that the instance failed and was replaced by a new one."""
        return self._check.assert_instance_replayed(instance_name)

    def assertInstanceSkipped(self, instance_name: str) -> TaskInstance:
        """Assert that the instance was skipped, by its task or by a person."""
        return self._check.assert_instance_skipped(instance_name)

    def assertInstanceUnstarted(self, instance_name: str) -> TaskInstance:
        """Assert that the instance still waits for triggers."""
        return self._check.assert_instance_unstarted(instance_name)

    def assertUnresolvedTasks(self, task_names: Iterable[str]) -> None:
        """Assert that exactly these tasks have no instance yet or one that is not resolved."""
        self._check.assert_unresolved_tasks(task_names)

    def assertUnresolvedInstances(self, instance_names: Iterable[str]) -> None:
        """Assert that exactly these instances are unstarted, scheduled, running or failed."""
        self._check.assert_unresolved_instances(instance_names)


class PassThruTask(TriggerTask):
    """Return the trigger kwargs, under the key ``kwargs``."""

    name = "triggers.testing.PassThruTask"
    registry = READY_MADE

    def _run(self, context: TaskContext) -> Mapping[str, Any]:
        return {"kwargs": context.trigger_kwargs}


class DevNullTask(TriggerTask):
    """Return an empty result, so that a cascade has no kwargs."""

    name = "triggers.testing.DevNullTask"
    registry = READY_MADE

    def _run(self, context: TaskContext) -> Mapping[str, Any]:  # noqa: ARG002 - it does not depend on its context
        return {}


class FailingTask(TriggerTask):
    """Raise a :class:`RuntimeError`."""

    name = "triggers.testing.FailingTask"
    registry = READY_MADE

    def _run(self, context: TaskContext) -> None:
        message = f"{context.task_instance.name} always fails"
        raise RuntimeError(message)


class SelfSkippingTask(TriggerTask):
    """Request to be skipped, with the trigger kwargs as the metadata ``kwargs``."""

    name = "triggers.testing.SelfSkippingTask"
    registry = READY_MADE

    def _run(self, context: TaskContext) -> None:
        raise self.skip({"kwargs": context.trigger_kwargs})


class SelfRetryingTask(TriggerTask):
    """Request retries, and return their ``count``.

    ``withParams`` may have for ``retries``: ``max``, their number; `max_retries` by default.
    """

    name = "triggers.testing.SelfRetryingTask"
    registry = READY_MADE

    def _run(self, context: TaskContext) -> Mapping[str, Any]:
        wanted = context.trigger_kwargs.get("retries", {}).get("max", self.max_retries)
        if self.request.retries < wanted:
            raise self.retry()
        return {"count": self.request.retries}
