"""Run instances on Celery workers.

A message only says that an instance may be ready. Only the claim in the storage decides whether it runs. So
a broker may do anything with messages: the sweep replaces lost ones, and a repeated or late one finds nothing
to claim.
"""

from __future__ import annotations

import difflib
import logging
import threading
import time
from contextlib import contextmanager, suppress
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from celery import signals
from celery.utils.imports import symbol_by_name
from kombu.exceptions import OperationalError

from triggers.core.values import shown
from triggers.exceptions import DuplicateTaskError, InstanceFailedError, PluginError, StorageError
from triggers.fork import reset_after_fork
from triggers.runners.celery import worker as celery_worker
from triggers.runners.celery.message import HEADERS, Hint, arguments
from triggers.runners.celery.version2 import Version2Messages
from triggers.runners.inline import InlineRunner
from triggers.runners.sender import DEADLINE, ROOM, BackgroundSender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from celery import Celery

    from triggers.runners.base import Delivery, RunnerHost
    from triggers.storages.base import ReadyInstance

_log = logging.getLogger(__name__)

#: What a worker's main process reports to the storage: the instance, the label of its message, and the error.
_Loss = tuple[Hint, str, BaseException | None]

#: The Celery task for instances whose task is not registered in the application.
RUN = "triggers.run"

#: The Celery task that sweeps once.
SWEEP = "triggers.sweep"

#: How long `close` waits until hints are sent at most, in seconds.
FLUSH = 2.0

#: How long a worker's main process waits for the storage at most, in seconds. It must receive messages.
STORAGE_TIMEOUT = 1.0

#: The time after which another thread takes over from one that fails an instance, in seconds.
ABORT_DEADLINE = 120.0

#: Transport options that detect a hanging broker, by kind of driver. The application's own options win.
TIMEOUTS = {"redis": ("socket_timeout", "socket_connect_timeout"), "amqp": ("read_timeout", "write_timeout")}

#: The options of a task that apply when its messages are sent.
SENDING = frozenset(
    {
        "queue",
        "routing_key",
        "exchange",
        "priority",
        "expires",
        "serializer",
        "delivery_mode",
        "compression",
        "time_limit",
        "soft_time_limit",
        "ignore_result",
    }
)

#: Options that would replace what makes a Celery task run an instance.
TAKEN = frozenset({"name", "run", "bind", "base", "app", "carrier", "Request"})


class CeleryRunner:
    """Sends instances to the workers of a Celery application, and runs them there.

    Write ``Triggers(url, runner=CeleryRunner(app))`` in a module that the workers import, too. Each task is a
    Celery task with its own name, so routes, queues, priorities, limits and annotations apply by name.

    Args:
        app: the Celery application. Each one has one runner.
        sweep: whether each worker sweeps in its main process.
        report_failures: whether the Celery task of a failed instance is also reported as failed to Celery's
            signals, events and monitors. Celery never retries or redelivers it because of that.
        room: how many hints are kept while the broker is slow or unavailable. The sweep repeats further ones.
        deadline: how long sending one message may take, in seconds.
    """

    #: The name of this runner for `using`.
    name = "celery"

    #: This runner gives the options of a task to Celery.
    applies_task_options = True

    def __init__(
        self,
        app: Celery,
        *,
        sweep: bool = True,
        report_failures: bool = True,
        room: int = ROOM,
        deadline: float = DEADLINE,
    ) -> None:
        self._app = app
        self._sweeps = sweep
        self.report_failures = report_failures
        self._deadline = deadline
        self._host: RunnerHost | None = None
        self._bound: dict[str, dict[str, Any]] = {}
        self._names: set[str] = set()
        self._conflicts: list[str] = []
        self._closed = False
        self._hints: BackgroundSender[ReadyInstance] = BackgroundSender(
            "hints to the broker", self._connect, room, deadline
        )
        self._aborts: BackgroundSender[_Loss] = BackgroundSender(
            "aborts to the storage", self._reach_storage, room, ABORT_DEADLINE
        )
        self._eager = _Eager(self._apply)
        self._version2 = Version2Messages(app)
        self.after_fork()
        reset_after_fork(self)

    def __repr__(self) -> str:
        return f"<CeleryRunner of {self._app!r}>"

    def after_fork(self) -> None:
        """Forget what the parent process runs."""
        self._changed = threading.Condition()
        self._active = 0

    # options

    def bind(self, task: type | str, **options: Any) -> Self:
        """Set Celery's options of a task: ``queue``, ``priority``, ``rate_limit``, ``time_limit`` and so on.

        They override those that the task sets itself, and the defaults of this runner. Call this before the
        workers start. Another call adds to the options of earlier calls.

        Args:
            task: the task class, or its name, for example if it is defined elsewhere.
            options: attributes of :class:`celery.Task`.

        Returns:
            This runner.

        Raises:
            TypeError: an option does not exist, or an application cannot set it.
        """
        name = task if isinstance(task, str) else getattr(task, "name", None)
        if not isinstance(name, str):
            message = f"bind needs a task class or the name of a task, not {shown(task)}"
            raise TypeError(message)
        for option in options:
            self._check_option(option)
        self._bound[name] = {**self._bound.get(name, {}), **options}
        if name in self._names and self._app.finalized:
            self._register(name)
        return self

    def _check_option(self, option: str) -> None:
        known = SENDING | {name for name in dir(self._app.Task) if not name.startswith("_")}
        known |= {"autoretry_for", "retry_kwargs", "retry_backoff", "retry_backoff_max", "retry_jitter"}
        if option in TAKEN:
            message = f"the option {option!r} cannot be set: the runner needs it"
            raise TypeError(message)
        if option not in known:
            close = difflib.get_close_matches(option, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            message = f"a Celery task has no option {option!r}{hint}"
            raise TypeError(message)

    # the contract of a runner

    def start(self, host: RunnerHost) -> None:
        """Register every task with Celery, now and later, and send hints, also again after a `close`.

        Nothing connects to the broker yet.

        Raises:
            DuplicateTaskError: the application has a task of its own with the name of one of the tasks. If
                the application is not finalized yet, the workers raise this when they start.
            ValueError: another application object has started this runner.
        """
        if self._host not in {None, host}:
            message = (
                "a CeleryRunner belongs to one Triggers object: create another one, with another Celery app"
            )
            raise ValueError(message)
        self._closed = False
        self._eager.start(host)
        for sender in (self._hints, self._aborts):
            sender.problems = getattr(host, "problems", sender.problems)
            sender.open()
        if self._host is host:
            return
        self._host = host
        self._app.steps["worker"].add(celery_worker.sweep_step(self))
        signals.worker_process_shutdown.connect(self._leave_process)
        self._version2.watch()
        self._learn(RUN)
        self._learn(SWEEP)
        host.watch_tasks(self._learn)
        if not self._app.finalized:
            self._app.on_after_finalize.connect(self._register_all)

    def submit(self, due: ReadyInstance) -> None:
        """Send the hint in the background. With ``task_always_eager``, run the instance in this thread."""
        if self._closed:
            return
        if self._app.conf.task_always_eager:
            self._eager.submit(due)
        else:
            self._hints.submit(due)

    def is_idle(self) -> bool:
        """Return whether every hint was sent and nothing runs in this process."""
        return self._hints.is_idle() and not self._active

    def close(self, timeout: float | None) -> bool:
        """Send the waiting hints, for 2 seconds at most, and wait for what runs in this process."""
        began = time.monotonic()
        self._closed = True
        self._hints.close(FLUSH if timeout is None else min(timeout, FLUSH))
        left = None if timeout is None else max(timeout - (time.monotonic() - began), 0)
        with self._changed:
            ended = self._changed.wait_for(lambda: not self._active, left)
        self._aborts.close(STORAGE_TIMEOUT)
        return ended

    # tasks

    def _learn(self, name: str) -> None:
        self._names.add(name)
        if self._app.finalized:
            self._register(name)

    def _register_all(self, **_: object) -> None:
        """Register all tasks when the application is finalized and has its own tasks."""
        for name in sorted(self._names):
            try:
                self._register(name)
            except DuplicateTaskError as error:  # a receiver of a signal cannot raise; the worker raises it
                _log.error("%s", error)
                self._conflicts.append(str(error))

    def _register(self, name: str) -> None:
        known = self._app.tasks.get(name)
        if known is not None:
            self._check_ours(name, known)
            self._app.tasks.unregister(name)
        self._app.register_task(self._make(name))

    def _check_ours(self, name: str, known: Any) -> None:
        carrier = getattr(known, "carrier", None)
        if carrier is self:
            return
        if not isinstance(carrier, CeleryRunner):
            message = f"{self._app!r} has another task named {name!r}: rename one of them"
            raise DuplicateTaskError(message)
        if not carrier._closed:  # noqa: SLF001 - of this class
            message = (
                f"{self._app!r} already has the CeleryRunner of another Triggers object: use one for each"
            )
            raise DuplicateTaskError(message)

    def _make(self, name: str) -> Any:
        """Make the Celery task of that name, from the application's own task class."""
        base = self._app.Task
        mixin = celery_worker.SweepTask if name == SWEEP else celery_worker.InstanceTask
        # In a base class, because Celery warns of a queue or a priority in the class of a task itself.
        options = {**celery_worker.SAFE, **self._own_options(name), **self._bound.get(name, {})}
        configured = type("ConfiguredTask", (base,), {"__module__": mixin.__module__, **options})
        body: dict[str, Any] = {
            "__module__": mixin.__module__,
            "__doc__": mixin.__doc__,
            "name": name,
            "carrier": self,
        }
        if name != SWEEP:
            own = tuple(getattr(configured, "dont_autoretry_for", ()))
            body["dont_autoretry_for"] = (*own, InstanceFailedError)
            body["Request"] = celery_worker.request_class(symbol_by_name(base.Request))
        return type(mixin.__name__, (mixin, configured), body)()

    def _own_options(self, name: str) -> dict[str, Any]:
        """Return the options that a task sets itself, with durations in seconds, as Celery takes them."""
        options = (self._host.task_options(name) if self._host is not None else None) or {}
        return {
            option: value.total_seconds() if isinstance(value, timedelta) else value
            for option, value in options.items()
        }

    # sending

    @contextmanager
    def _connect(self) -> Iterator[Callable[[ReadyInstance], None]]:
        """Open a connection outside the application's pool, so that neither waits for the other."""
        with self._app.connection_for_write() as connection:
            for option in TIMEOUTS.get(connection.transport.driver_type, ()):
                connection.transport_options.setdefault(option, self._deadline)
            connection.connect()
            producer = self._app.amqp.Producer(connection)
            yield partial(self._send, producer, (OperationalError, *connection.connection_errors))

    def _send(self, producer: Any, away: tuple[type[BaseException], ...], due: ReadyInstance) -> None:
        """Send one hint. Raise an error of the broker (`away`), and drop a hint that can never be sent."""
        try:
            self._publish(due, producer=producer, retry=False, add_to_parent=False)
        except away:
            raise
        except Exception:  # noqa: BLE001 - for example a wrong option of a task; the next hint can succeed
            what = "the message for %s#%d of session %r could not be created; the sweep tries again"
            _log.exception(what, due.task, due.number, due.uid)

    def _publish(self, due: ReadyInstance, **options: Any) -> None:
        name = due.run or RUN
        task = self._app.tasks.get(name)
        if task is None and not self._app.conf.task_always_eager:
            bound = {key: value for key, value in self._bound.get(name, {}).items() if key in SENDING}
            given = {"serializer": "json", "ignore_result": True, **bound, **options}
            self._app.send_task(name, arguments(due), headers=HEADERS, **given)
            return
        if task is None or getattr(task, "carrier", None) is not self:
            task = self._app.tasks[RUN]
        task.apply_async(arguments(due), headers=HEADERS, **options)

    def _apply(self, due: ReadyInstance) -> None:
        """Run a hint in this thread, as Celery does it when it is eager."""
        with suppress(InstanceFailedError):  # with `task_eager_propagates`; `fire` does not fail with a task
            self._publish(due)

    # in a worker

    def follow(self, hint: Hint, delivery: Delivery) -> None:
        """Run the instance of a message, unless this runner is closed."""
        host = self._host
        if self._closed or host is None:
            return
        with self._changed:
            self._active += 1
        try:
            celery_worker.begin()
            host.run(*hint, delivery)
        finally:
            with self._changed:
                self._active -= 1
                self._changed.notify_all()

    def take_back(
        self, hint: Hint, label: str, error: BaseException | None, *, at_once: bool = False
    ) -> None:
        """Fail the instance of a message, or recover it if `error` is None, because its worker is dead.

        This happens in the background, with retries. With `at_once` it is first tried in this thread.
        """
        if at_once and error is not None and self._host is not None:
            try:
                self._host.abort(*hint, label, error, timeout=STORAGE_TIMEOUT)
            except StorageError:
                what = "session %r: %s#%d will be failed later: the storage is unavailable"
                _log.warning(what, *hint, exc_info=True)
            else:
                return
        self._aborts.submit((hint, label, error))

    @contextmanager
    def _reach_storage(self) -> Iterator[Callable[[_Loss], None]]:
        host = self._host

        def abort(loss: _Loss) -> None:
            hint, label, error = loss
            if host is None:
                return
            if error is None and host.lose(*hint, label):
                _log.warning("session %r: %s#%d has lost its worker", *hint)
            elif error is not None and host.abort(*hint, label, error):
                _log.warning("session %r: %s#%d was failed: %s", *hint, error)

        yield abort

    def sweep(self) -> None:
        """Sweep once, in this thread; do nothing if the runner was never started."""
        if self._host is not None:
            self._host.sweep()

    def work_begins(self) -> None:
        """Check the names of the tasks and start to sweep. Called in a worker's main process at its start.

        Raises:
            DuplicateTaskError: the application has tasks of its own with the names of tasks of this runner.
        """
        tasks = self._app.tasks
        for name in sorted(self._names):
            if name not in tasks:
                self._register(name)
            self._check_ours(name, tasks[name])
        if self._conflicts:
            raise DuplicateTaskError("; ".join(self._conflicts))
        if self._sweeps and self._host is not None:
            # In another thread, so that the worker starts even if the storage is unavailable.
            threading.Thread(target=self._host.start, name="triggers-start", daemon=True).start()

    def work_ends(self) -> None:
        """Stop sweeping. Called in a worker's main process at its end."""
        if self._sweeps and self._host is not None:
            rest = threading.Thread(target=self._host.pause_sweeping, name="triggers-rest", daemon=True)
            rest.start()
            rest.join(FLUSH)

    def _leave_process(self, **_: object) -> None:
        """Send the last hints of a pool's child process, which ends without its `atexit` handlers."""
        self._hints.flush(STORAGE_TIMEOUT)


class _Eager(InlineRunner):
    """Runs hints in the calling thread, one after another."""

    def __init__(self, apply: Callable[[ReadyInstance], None]) -> None:
        super().__init__()
        self._apply = apply

    def _follow(self, due: ReadyInstance) -> None:
        self._apply(due)


def by_name() -> NoReturn:
    """Explain that the runner ``celery`` cannot be made by its name alone.

    Raises:
        PluginError: always.
    """
    message = (
        "the runner 'celery' needs your Celery application: write runner=CeleryRunner(app), with "
        "`from triggers.runners.celery import CeleryRunner`"
    )
    raise PluginError(message)
