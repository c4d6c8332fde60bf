"""Ready-made tasks, for tests of what surrounds tasks.

They are in a registry of their own, so an application's registry stays as it is; :func:`ready_made` puts both
together, which is what a harness does.
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

#: Where the ready-made tasks are registered.
READY_MADE: Final = Registry()


class FailingError(Exception):
    """What :class:`Failing` raises."""


class PassThrough(TriggerTask):
    """Returns its trigger kwargs."""

    name = "triggers.testing.PassThrough"
    registry = READY_MADE

    def _run(self, context: TaskContext) -> Mapping[str, Any]:
        return context.trigger_kwargs


class Failing(TriggerTask):
    """Raises :class:`FailingError`, with the ``message`` that ``withParams`` gives for ``failing``."""

    name = "triggers.testing.Failing"
    registry = READY_MADE

    def _run(self, context: TaskContext) -> None:
        raise FailingError(_given(context, "failing").get("message", "This task always fails."))


class SelfRetrying(TriggerTask):
    """Asks to run again.

    ``withParams`` may give for ``retrying``: ``times``, after which it returns its trigger kwargs, and
    ``cooldown`` in seconds. Without ``times`` it asks until its `max_retries` are used up.
    """

    name = "triggers.testing.SelfRetrying"
    registry = READY_MADE

    def _run(self, context: TaskContext) -> Mapping[str, Any]:
        given = _given(context, "retrying")
        if context.task_instance.depth >= given.get("times", float("inf")):
            return context.trigger_kwargs
        raise self.retry(cooldown=timedelta(seconds=given.get("cooldown", 0)))


class SelfSkipping(TriggerTask):
    """Asks to be skipped, with what ``withParams`` gives for ``skipping`` as metadata."""

    name = "triggers.testing.SelfSkipping"
    registry = READY_MADE

    def _run(self, context: TaskContext) -> None:
        raise self.skip(_given(context, "skipping"))


def _given(context: TaskContext, name: str) -> Mapping[str, Any]:
    given = context.trigger_kwargs.get(name)
    return given if isinstance(given, Mapping) else {}


class StandIn(TriggerTask):
    """Returns a result, or raises an error, in the place of another task.

    Args:
        name: whose place it takes.
        result: what it returns.
        error: what it raises instead.
    """

    def __init__(self, name: str, result: Mapping[str, Any] | None, error: BaseException | None) -> None:
        self.name = name
        self._result = result
        self._error = error

    def run(self, context: TaskContext) -> Mapping[str, Any] | None:  # noqa: ARG002 - it does not look at it
        """Return the result or raise the error."""
        if self._error is not None:
            raise self._error
        return self._result


class LayeredRegistry(Registry):
    """A registry on top of others: it knows all that they know, and they do not know what it gets.

    Args:
        below: the others; the first of them that knows a name counts.
    """

    def __init__(self, *below: Registry) -> None:
        super().__init__()
        layers = (other._tasks for other in below)  # noqa: SLF001 - a registry looks into others of its kind
        self._tasks = ChainMap({}, *layers)  # type: ignore[assignment]  # a view, where the others have a dict
        for other in below:
            other.watch(self._tell)

    def replace(self, task: TriggerTask) -> None:
        """Put a task in the place of whichever has its name."""
        self._tasks[task.name] = task


def ready_made(registry: Registry = default_registry) -> LayeredRegistry:
    """A registry with all tasks of the given one and the ready-made ones."""
    return LayeredRegistry(registry, READY_MADE)
