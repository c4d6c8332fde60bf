"""What runs in a Celery worker: the task of a message, the request around it, and the step that sweeps.

Only :mod:`triggers.runners.celery` imports this module.
"""

from __future__ import annotations

import logging
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from billiard import common as billiard_common
from billiard import pool as billiard_pool
from celery import bootsteps
from celery.exceptions import (
    SoftTimeLimitExceeded,
    TaskRevokedError,
    TimeLimitExceeded,
    WorkerLostError,
    WorkerShutdown,
    WorkerTerminate,
)

from triggers.core.names import instance_name
from triggers.core.values import type_name
from triggers.exceptions import InstanceFailedError
from triggers.runners.base import Delivery
from triggers.runners.celery.message import Hint, understood
from triggers.runners.celery.version2 import is_of_version2

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import FrameType
    from typing import Self

_log = logging.getLogger(__name__)

#: Modules that call the user's code, and modules with tasks.
_AROUND = ("triggers.worker", "triggers.task", "triggers.demo", "triggers.testing")

#: The pause until a soft limit that interrupts a call of the library is tried again, in seconds.
AGAIN = 0.005

#: The default options of the Celery tasks. The claim acknowledges a message, and the storage keeps results
#: and repeats lost work, so the broker does not have to.
SAFE: dict[str, Any] = {
    "acks_late": False,
    "reject_on_worker_lost": False,
    "ignore_result": True,
    "store_errors_even_if_ignored": False,
    "track_started": False,
    "max_retries": 0,
    "serializer": "json",
    "typing": False,
    # A failed instance is reported to Celery, which must not act on it. Because it is expected, Celery does
    # not log it as a second error.
    "throws": (InstanceFailedError,),
    "acks_on_failure_or_timeout": True,
}


class Carrier(Protocol):
    """What the classes of this module need from the runner.

    Attributes:
        report_failures: whether Celery reports the message of a failed instance as failed.
    """

    report_failures: bool

    def follow(self, hint: Hint, delivery: Delivery) -> None:
        """Run the instance of a message."""
        ...

    def take_back(
        self, hint: Hint, label: str, error: BaseException | None, *, at_once: bool = False
    ) -> None:
        """Fail the instance of a message. Without an error its worker is dead. Never raise."""
        ...

    def sweep(self) -> None:
        """Sweep once in this thread."""
        ...

    def work_begins(self) -> None:
        """Prepare for messages. Called when a worker starts."""
        ...

    def work_ends(self) -> None:
        """Stop sweeping. Called when a worker stops."""
        ...


class InstanceTask:
    """The Celery task that runs the instances of one task. A mixin for the application's task class.

    Attributes:
        carrier: the runner.
    """

    carrier: ClassVar[Carrier]
    request: Any
    name: str

    def run(self, *args: object, **kwargs: object) -> None:
        """Run the instance of the message if it can be claimed. A message that names none is logged.

        Raises:
            InstanceFailedError: the instance has failed, which is stored, and failures are reported.
        """
        hint = understood(args, kwargs)
        if hint is None:
            if is_of_version2(kwargs):  # the main process has logged it
                return
            what = "a message of task %s does not name an instance; it is dropped: %.200r"
            _log.error(what, self.name, args)
            return
        errors: list[Mapping[str, Any]] = []
        label, hostname = self.request.id or "", self.request.hostname or ""
        self.carrier.follow(hint, Delivery(label, _limit.inside, _is_stop, errors.append, hostname))
        if errors and self.carrier.report_failures:
            uid, task, number = hint
            raise InstanceFailedError(
                uid, instance_name(task, number), errors[0]["type"], errors[0]["message"]
            )


class SweepTask:
    """The Celery task that sweeps once, for use in a schedule.

    Attributes:
        carrier: the runner.
    """

    carrier: ClassVar[Carrier]

    def run(self, *_: object, **__: object) -> None:
        """Sweep once, whatever the arguments of the message are."""
        self.carrier.sweep()


class _Request(Protocol):
    """The used part of Celery's request, which represents a message in the worker's main process."""

    id: str
    args: Any
    kwargs: Any
    task: Any


class InstanceRequest:
    """Fails the instance of a message that the main process ends. A mixin for Celery's request class."""

    def on_timeout(self: Any, soft: bool, timeout: float) -> None:  # noqa: FBT001 - Celery's
        """Fail the instance after the hard limit. The child is killed, so it cannot do that itself."""
        try:
            super().on_timeout(soft, timeout)  # type: ignore[misc]
        finally:
            if not soft:
                _take_back(self, TimeLimitExceeded(timeout))

    def on_failure(self: Any, exc_info: Any, *how: Any, **named: Any) -> None:
        """Recover the instance of a dead child at once, without waiting for its lease."""
        try:
            super().on_failure(exc_info, *how, **named)  # type: ignore[misc]
        finally:
            error = getattr(exc_info.exception, "exc", exc_info.exception)
            if isinstance(error, WorkerLostError):
                _take_back(self, None)

    def terminate(self: Any, pool: Any, signal: Any = None) -> None:
        """Fail the instance before the child is killed, so that the child cannot release it to others."""
        _take_back(self, TaskRevokedError("revoked and terminated"), at_once=True)
        super().terminate(pool, signal)  # type: ignore[misc]

    def _announce_revoked(self: Any, reason: str, *how: Any) -> None:
        try:
            super()._announce_revoked(reason, *how)  # type: ignore[misc]
        finally:
            why = "revoked: its message has expired" if reason == "expired" else "revoked"
            _take_back(self, TaskRevokedError(why))


def _take_back(request: _Request, error: BaseException | None, *, at_once: bool = False) -> None:
    hint = understood(request.args, request.kwargs)
    if hint is not None:
        request.task.carrier.take_back(hint, request.id, error, at_once=at_once)


def request_class(base: type) -> type:
    """Derive a request class that fails instances from that of Celery or of the application."""
    return type("InstanceRequest", (InstanceRequest, base), {})


class SoftLimit:
    """Lets a soft time limit interrupt only the user's code, and never a commit.

    The limit is a signal to a child of the pool. Celery raises an exception in the line that runs at that
    moment. While the user's code calls this library, to fire, read or log, the signal is sent again until the
    call has returned.
    """

    def __init__(self) -> None:
        self._inside = False
        self._struck = False
        self._depth = 0

    def inside(self) -> Self:
        """Return the context manager around the user's code. It raises if the limit has passed before."""
        return self

    # Without contextlib, because that sets attributes of exceptions, which some of them do not allow.
    def __enter__(self) -> None:
        if self._struck:
            raise SoftTimeLimitExceeded
        self._depth = len(_modules(sys._getframe(1)))  # noqa: SLF001 - a documented function
        self._inside = True

    def __exit__(self, *_: object) -> None:
        self._inside = False

    def begin(self) -> None:
        """Prepare for a message: in a child of a pool, replace Celery's handler of the signal."""
        self._struck = False
        number = billiard_pool.SIG_SOFT_TIMEOUT
        if number is None or threading.current_thread() is not threading.main_thread():
            return
        if signal.getsignal(number) is billiard_pool.soft_timeout_sighandler:
            signal.signal(number, self._strike)

    def _strike(self, number: int, frame: FrameType | None) -> None:
        if not self._inside:
            self._struck = True
        elif any(map(_is_ours, _modules(frame)[: -self._depth])):
            # To this thread, so that it also interrupts a call of the system that waits.
            again = threading.Timer(AGAIN, signal.pthread_kill, (threading.get_ident(), number))
            again.daemon = True
            again.start()
        else:
            raise SoftTimeLimitExceeded


def _modules(frame: FrameType | None) -> list[str]:
    """Return the names of the modules whose functions are running, the innermost first."""
    names = []
    while frame is not None:
        names.append(frame.f_globals.get("__name__", ""))
        frame = frame.f_back
    return names


def _is_ours(module: str) -> bool:
    """Return whether a module belongs to this library, and neither calls the user's code nor has tasks."""
    return module.startswith("triggers.") and not module.startswith(_AROUND)


_limit = SoftLimit()


def begin() -> None:
    """Prepare this process for the next message."""
    _limit.begin()


def _is_stop(error: BaseException) -> bool:
    """Return whether an exception only tells this process or greenlet to stop."""
    kind = type(error)  # isinstance would call code of the exception's class
    if issubclass(kind, WorkerShutdown | WorkerTerminate) or type_name(kind).endswith(".GreenletExit"):
        return True
    # Billiard's handler of SIGTERM sets this flag and exits, unlike the user's own SystemExit.
    return issubclass(kind, SystemExit) and billiard_common._should_have_exited[0]  # noqa: SLF001


def sweep_step(carrier: Carrier) -> type:
    """Make the step of the worker's main process that checks the names of the tasks, and sweeps."""

    class TriggersStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
        """Sweeps while the worker runs. It starts after the pool."""

        requires = ("celery.worker.components:Pool",)
        name = "Triggers"

        def start(self, _: object) -> None:
            carrier.work_begins()

        def stop(self, _: object) -> None:
            carrier.work_ends()

        def terminate(self, _: object) -> None:
            carrier.work_ends()

    return TriggersStep
