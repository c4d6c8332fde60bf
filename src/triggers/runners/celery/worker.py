"""What a Celery worker does with a message: the task, the request around it, and the step that sweeps.

Imported by :mod:`triggers.runners.celery` alone.
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

from triggers.core.values import type_name
from triggers.runners.base import Delivery
from triggers.runners.celery.message import Hint, understood

if TYPE_CHECKING:
    from types import FrameType
    from typing import Self

_log = logging.getLogger(__name__)

#: Modules that call the user's code, and modules with tasks.
_AROUND = ("triggers.worker", "triggers.task", "triggers.demo", "triggers.testing")

#: The pause until a soft limit that interrupts a call of the library is tried again, in seconds.
AGAIN = 0.005

#: What the task of an instance is unless an application binds it otherwise. The claim is what acknowledges,
#: the storage keeps results and repeats what is lost, so the broker need not do any of it.
SAFE: dict[str, Any] = {
    "acks_late": False,
    "reject_on_worker_lost": False,
    "ignore_result": True,
    "store_errors_even_if_ignored": False,
    "track_started": False,
    "max_retries": 0,
    "serializer": "json",
    "typing": False,
}


class Carrier(Protocol):
    """What these need of the runner."""

    def follow(self, hint: Hint, delivery: Delivery) -> None:
        """Run what a message is about."""
        ...

    def take_back(
        self, hint: Hint, label: str, error: BaseException | None, *, at_once: bool = False
    ) -> None:
        """Fail what a message is about; without an error, its worker is dead. Never raises."""
        ...

    def sweep(self) -> None:
        """Sweep once."""
        ...

    def work_begins(self) -> None:
        """A worker is about to take messages."""
        ...

    def work_ends(self) -> None:
        """A worker takes no more messages."""
        ...


class InstanceTask:
    """The Celery task that runs instances of one task; mixed into the application's own task class.

    Attributes:
        carrier: the runner.
    """

    carrier: ClassVar[Carrier]
    request: Any
    name: str

    def run(self, *args: object, **kwargs: object) -> None:
        """Run what the message is about, if it can be claimed. What makes no sense is logged and dropped."""
        hint = understood(args, kwargs)
        if hint is None:
            _log.error("a message of task %s names no instance, and is dropped: %.200r", self.name, args)
            return
        self.carrier.follow(hint, Delivery(self.request.id or "", _limit.inside, _is_stop))


class SweepTask:
    """The Celery task that sweeps once; for a schedule.

    Attributes:
        carrier: the runner.
    """

    carrier: ClassVar[Carrier]

    def run(self, *_: object, **__: object) -> None:
        """Sweep once; whatever the message says."""
        self.carrier.sweep()


class _Request(Protocol):
    """What is used of Celery's request, which stands for a message in the worker's main process."""

    id: str
    args: Any
    kwargs: Any
    task: Any


class InstanceRequest:
    """Fails the instance where the main process ends its message; mixed into Celery's request."""

    def on_timeout(self: Any, soft: bool, timeout: float) -> None:  # noqa: FBT001 - Celery's
        """After the hard limit the child is killed: nobody else can say so."""
        try:
            super().on_timeout(soft, timeout)  # type: ignore[misc]
        finally:
            if not soft:
                _take_back(self, TimeLimitExceeded(timeout))

    def on_failure(self: Any, exc_info: Any, *how: Any, **named: Any) -> None:
        """Where the child has died, the instance need not wait until its lease runs out."""
        try:
            super().on_failure(exc_info, *how, **named)  # type: ignore[misc]
        finally:
            error = getattr(exc_info.exception, "exc", exc_info.exception)
            if isinstance(error, WorkerLostError):
                _take_back(self, None)

    def terminate(self: Any, pool: Any, signal: Any = None) -> None:
        """Shut the child out before it is killed, so that it does not let the instance go to others."""
        _take_back(self, TaskRevokedError("revoked, and terminated"), at_once=True)
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
    """Celery's class of requests, or the application's, that fails instances."""
    return type("InstanceRequest", (InstanceRequest, base), {})


class SoftLimit:
    """Lets a soft time limit strike in the user's code alone, and never in the middle of a commit.

    It comes as a signal to a child of the pool, where Celery raises an exception at whatever line runs then.
    While the user's code calls the library, to fire, read or log, the signal is sent again until the call
    has returned.
    """

    def __init__(self) -> None:
        self._inside = False
        self._struck = False
        self._depth = 0

    def inside(self) -> Self:
        """Around the user's code. A limit that has passed before strikes at the beginning."""
        return self

    # Not by contextlib, which sets attributes of the exceptions that pass: some of them refuse that.
    def __enter__(self) -> None:
        if self._struck:
            raise SoftTimeLimitExceeded
        self._depth = len(_modules(sys._getframe(1)))  # noqa: SLF001 - a documented function
        self._inside = True

    def __exit__(self, *_: object) -> None:
        self._inside = False

    def begin(self) -> None:
        """A message begins: take Celery's place, if this is a child of a pool and its handler is there."""
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
            again = threading.Timer(AGAIN, signal.raise_signal, (number,))
            again.daemon = True
            again.start()
        else:
            raise SoftTimeLimitExceeded


def _modules(frame: FrameType | None) -> list[str]:
    """The names of the modules whose functions are running, the innermost first."""
    names = []
    while frame is not None:
        names.append(frame.f_globals.get("__name__", ""))
        frame = frame.f_back
    return names


def _is_ours(module: str) -> bool:
    """Whether a module belongs to the library, and neither calls the user's code nor has tasks."""
    return module.startswith("triggers.") and not module.startswith(_AROUND)


_limit = SoftLimit()


def begin() -> None:
    """A message begins in this process."""
    _limit.begin()


def _is_stop(error: BaseException) -> bool:
    """Whether an exception only means that this process, or greenlet, is told to go."""
    kind = type(error)  # an exception may be anybody's, and isinstance would ask it for its class
    if issubclass(kind, WorkerShutdown | WorkerTerminate) or type_name(kind).endswith(".GreenletExit"):
        return True
    # Billiard's handler of SIGTERM notes that it was called, and exits: not the user's own SystemExit.
    return issubclass(kind, SystemExit) and billiard_common._should_have_exited[0]  # noqa: SLF001


def sweep_step(carrier: Carrier) -> type:
    """A step of the worker, in its main process: check the names of the tasks, and sweep."""

    class TriggersStep(bootsteps.StartStopStep):  # type: ignore[misc]  # Celery has no types
        """Sweeps as long as the worker runs; begins after its pool."""

        requires = ("celery.worker.components:Pool",)
        name = "Triggers"

        def start(self, _: object) -> None:
            carrier.work_begins()

        def stop(self, _: object) -> None:
            carrier.work_ends()

        def terminate(self, _: object) -> None:
            carrier.work_ends()

    return TriggersStep
