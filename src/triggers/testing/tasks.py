"""Ready-made tasks, for tests of configurations and managers.

They have a registry of their own, so the registry of the application does not change. :func:`ready_made`
combines the two; a harness does this for you.
"""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from triggers.task import Registry, TriggerTask
from triggers.task import registry as default_registry

if TYPE_CHECKING:
    from triggers.task import TaskContext

#: The registry of the ready-made tasks.
READY_MADE: Final = Registry()


class FailingError(Exception):
    """The error that :class:`Failing` raises."""


class PassThrough(TriggerTask):
    """Return the trigger kwargs as the result."""

    name = "triggers.testing.PassThrough"
    registry = READY_MADE

    def _run(self, context: TaskContext) -> Mapping[str, Any]:
        return context.trigger_kwargs


class Failing(TriggerTask):
    """Raise :class:`FailingError`, with the ``message`` that ``withParams`` has for ``failing``."""

    name = "triggers.testing.Failing"
    registry = READY_MADE

    def _run(self, context: TaskContext) -> None:
        raise FailingError(_given(context, "failing").get("message", "This task always fails."))


class SelfRetrying(TriggerTask):
    """Request a retry.

    ``withParams`` may have for ``retrying``: ``times``, the number of retries after which the task returns
    its trigger kwargs, and ``cooldown`` in seconds. Without ``times`` it requests retries until `max_retries`
    is reached.
    """

    name = "triggers.testing.SelfRetrying"
    registry = READY_MADE

    def _run(self, context: TaskContext) -> Mapping[str, Any]:
        given = _given(context, "retrying")
        if context.task_instance.depth >= given.get("times", float("inf")):
            return context.trigger_kwargs
        raise self.retry(cooldown=timedelta(seconds=given.get("cooldown", 0)))


class SelfSkipping(TriggerTask):
    """Request to be skipped, with what ``withParams`` has for ``skipping`` as metadata."""

    name = "triggers.testing.SelfSkipping"
    registry = READY_MADE

    def _run(self, context: TaskContext) -> None:
        raise self.skip(_given(context, "skipping"))


def _given(context: TaskContext, name: str) -> Mapping[str, Any]:
    given = context.trigger_kwargs.get(name)
    return given if isinstance(given, Mapping) else {}


class StandIn(TriggerTask):
    """A replacement for another task, which returns a result or raises an error.

    Args:
        name: the name of the task that it replaces.
        result: the result that it returns.
        error: the error that it raises instead.
    """

    def __init__(self, name: str, result: Mapping[str, Any] | None, error: BaseException | None) -> None:
        self.name = name
        self._result = result
        self._error = error

    def run(self, context: TaskContext) -> Mapping[str, Any] | None:  # noqa: ARG002 - it does not depend on its context
        """Return the given result or raise the given error."""
        if self._error is not None:
            raise self._error
        return self._result


class LayeredRegistry(Registry):
    """A registry on top of others. It has all their tasks; tasks that are added to it are not added to them.

    Args:
        below: the other registries. If several have a task of the same name, the first one counts.
    """

    def __init__(self, *below: Registry) -> None:
        super().__init__()
        layers = (other._tasks for other in below)  # noqa: SLF001 - a registry may read other registries
        self._tasks = ChainMap({}, *layers)  # type: ignore[assignment]  # a view, where the others have a dict
        for other in below:
            other.watch(self._notify)

    def replace(self, task: TriggerTask) -> None:
        """Register a task, and replace the one that has the same name."""
        self._tasks[task.name] = task


def ready_made(registry: Registry = default_registry) -> LayeredRegistry:
    """Return a registry with all tasks of the given registry and the ready-made tasks."""
    return LayeredRegistry(registry, READY_MADE)
