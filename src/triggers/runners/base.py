"""The contract of a runner.

A runner receives hints: the names of instances that may be ready. Only the claim decides whether an instance
runs. So a runner may lose a hint, repeat it or deliver it late; nothing is lost or done twice. It must

1. return from `submit` at once, and never raise because it has too much to do;
2. call the host's `run` for each hint that it keeps, from any number of threads or processes;
3. run nothing after `close`, until it is started again.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from triggers.storages.base import ReadyInstance


def _never(_: BaseException) -> bool:
    return False


def _ignored(_: Mapping[str, Any]) -> None:
    """Do nothing: this runner does not need the error of an instance."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a hint came here, for runners that can abort it.

    Attributes:
        label: the label of the message that contained the hint, or "". The name of the claim contains it, so
            that :meth:`RunnerHost.abort` finds the claim.
        around: makes a context manager around the user's code.
        is_stop: returns whether an exception from the user's code only tells the process or thread to stop.
            The instance is then released, due at once, and the exception is raised again.
        on_failure: called with the stored error after the instance has failed, from any thread.
        hostname: the name of the worker that received the message, or "".
    """

    label: str = ""
    around: Callable[[], AbstractContextManager[object]] = nullcontext
    is_stop: Callable[[BaseException], bool] = _never
    on_failure: Callable[[Mapping[str, Any]], object] = _ignored
    hostname: str = ""


#: The delivery of a hint without a message.
BY_ITSELF = Delivery()


class RunnerHost(Protocol):
    """What runners call: the application, as they see it."""

    def run(self, uid: str, task: str, number: int, delivery: Delivery = BY_ITSELF) -> bool:
        """Run an instance if it can be claimed; return whether it was claimed."""
        ...

    def abort(
        self,
        uid: str,
        task: str,
        number: int,
        label: str,
        error: BaseException,
        *,
        timeout: float | None = None,
    ) -> bool:
        """Fail the instance of a message, if it is scheduled or runs because of this message.

        Returns:
            Whether it was failed. False if it runs because of another message, or has ended.

        Raises:
            StorageError: the storage is unavailable; nothing was changed.
        """
        ...

    def lose(self, uid: str, task: str, number: int, label: str) -> bool:
        """Recover the instance of a worker that is known to be dead. The crash is charged.

        Returns:
            Whether the instance was running because of the message with this label.

        Raises:
            StorageError: the storage is unavailable; the sweep recovers the instance after its lease.
        """
        ...

    def watch_tasks(self, learn: Callable[[str], None]) -> None:
        """Call `learn` with the name of every registered task, and of each task that is registered later.

        Args:
            learn: a bound method. It is no longer called when its object is deleted. Its exceptions are
                raised where the task is registered.
        """
        ...

    def task_options(self, run: str) -> Mapping[str, Any] | None:
        """Return Celery's options that a task sets, by name; None if this process does not have the task."""
        ...

    def join(self, timeout: float | None = None) -> bool:
        """Wait until no instance in the storage is scheduled or running; return whether none is left."""
        ...

    def start(self) -> None:
        """Start to sweep in the background, also again after :meth:`pause_sweeping`."""
        ...

    def pause_sweeping(self) -> None:
        """Stop sweeping in the background, until the next :meth:`start`."""
        ...

    def sweep(self) -> object:
        """Sweep once in this thread, now.

        Raises:
            StorageError: the storage is unavailable.
        """
        ...

    def pull(self, limit: int) -> list[ReadyInstance]:
        """Take up to this many due instances from the storage."""
        ...


class Runner(Protocol):
    """Runs instances, or sends them to workers. Plugins implement this."""

    def start(self, host: RunnerHost) -> None:
        """Accept hints from now on, and call this host. Called once, and again after a `close`.

        Threads can start later. A runner can also have a method `tend`, which is called after each sweep and
        starts threads again that have died, an attribute `threads`, the number of its threads in this
        process, an attribute `applies_task_options`, whether it applies Celery's options of a task, and a
        method `has_room`, which returns whether it would run another instance at once.
        """
        ...

    def submit(self, due: ReadyInstance) -> None:
        """Accept the hint that this instance may be ready."""
        ...

    def is_idle(self) -> bool:
        """Return whether nothing runs in this process and no hint is waiting."""
        ...

    def close(self, timeout: float | None) -> bool:
        """Accept no more hints until the next `start`, and wait for running instances.

        Args:
            timeout: how long to wait, in seconds; None for no limit.

        Returns:
            Whether all of them have ended.
        """
        ...
