"""Runs instances on Celery workers.

A message only says that an instance may be ready; whether it runs is decided by the claim in the storage.
So nothing that a broker can do to a message does harm: what is lost is sent again by the sweep, what comes
twice, late or in another order finds nothing to claim.
"""

from __future__ import annotations

import difflib
import logging
import threading
import time
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, NoReturn

from celery import signals
from celery.utils.imports import symbol_by_name
from kombu.exceptions import OperationalError

from triggers.core.values import shown
from triggers.exceptions import DuplicateTaskError, PluginError, StorageError
from triggers.fork import reset_after_fork
from triggers.runners.celery import worker as celery_worker
from triggers.runners.celery.message import HEADERS, Hint, arguments
from triggers.runners.inline import InlineRunner
from triggers.runners.sender import DEADLINE, ROOM, BackgroundSender

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Self

    from celery import Celery

    from triggers.runners.base import Delivery, RunnerHost
    from triggers.storages.base import ReadyInstance

_log = logging.getLogger(__name__)

#: What a worker's main process has to tell the storage: of which instance, by which message, and why.
_Loss = tuple[Hint, str, BaseException | None]

#: The Celery task that runs what has no task of its own in the application.
RUN = "triggers.run"

#: The Celery task that sweeps once.
SWEEP = "triggers.sweep"

#: At `close`, hints are waited for at most so long, in seconds.
FLUSH = 2.0

#: How long a worker's main process, which has messages to take, may wait for the storage, in seconds.
PATIENCE = 1.0

#: How long failing an instance for a worker may take before it is tried on another thread, in seconds.
ABORT_DEADLINE = 120.0

#: What lets a broker that hangs be noticed, by kind of driver; an application's own options go first.
TIMEOUTS = {"redis": ("socket_timeout", "socket_connect_timeout"), "amqp": ("read_timeout", "write_timeout")}

#: Options with which a message is sent, as far as Celery takes them from a task.
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

#: Options that would take the place of what makes it run an instance.
TAKEN = frozenset({"name", "run", "bind", "base", "app", "carrier", "Request"})


class CeleryRunner:
    """Sends instances to the workers of a Celery application, and runs them there.

    ``Triggers(url, runner=CeleryRunner(app))``, in a module that the workers import, too. Each task is a
    Celery task under its own name: routes, queues, priorities, limits and annotations apply by name.

    Args:
        app: the Celery application; one runner for each.
        sweep: whether each worker of it sweeps, in its main process.
        room: how many hints are kept while the broker is slow or away; the sweep repeats further ones.
        deadline: how long sending one message may take, in seconds.
    """

    #: What `using` calls it.
    name = "celery"

    def __init__(
        self, app: Celery, *, sweep: bool = True, room: int = ROOM, deadline: float = DEADLINE
    ) -> None:
        self._app = app
        self._sweeps = sweep
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
        self.after_fork()
        reset_after_fork(self)

    def __repr__(self) -> str:
        return f"<CeleryRunner of {self._app!r}>"

    def after_fork(self) -> None:
        """Run nothing."""
        self._changed = threading.Condition()
        self._active = 0

    # -- what an application says -------------------------------------------------------------------------

    def bind(self, task: type | str, **options: Any) -> Self:
        """Give a task options of Celery's: ``queue``, ``priority``, ``rate_limit``, ``time_limit`` and so on.

        They are put over the safe ones, which may be overridden. Call it before the workers start; for a task
        that is defined elsewhere, by its name. Another call adds to the options of the first.

        Args:
            task: the class, or the name under which a configuration's `run` has it.
            options: attributes of :class:`celery.Task`.

        Returns:
            The runner.

        Raises:
            TypeError: there is no such option, or it is not for an application to say.
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
            message = f"{option!r} cannot be bound: it is what makes the Celery task run an instance"
            raise TypeError(message)
        if option not in known:
            close = difflib.get_close_matches(option, known, n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            message = f"a Celery task has no option {option!r}{hint}"
            raise TypeError(message)

    # -- the plug -----------------------------------------------------------------------------------------

    def start(self, host: RunnerHost) -> None:
        """Make every task known to Celery, and those to come; after a `close`, send again.

        Nothing is connected yet.

        Raises:
            DuplicateTaskError: the application has a task of its own of that name. Where that is not known
                yet, since the application has not been finalised, the workers refuse to start.
            ValueError: it was started by another application object.
        """
        if self._host not in {None, host}:
            message = (
                "a CeleryRunner belongs to one Triggers object: make another one, with another Celery app"
            )
            raise ValueError(message)
        self._closed = False
        self._eager.start(host)
        for courier in (self._hints, self._aborts):
            courier.problems = getattr(host, "problems", courier.problems)
            courier.open()
        if self._host is host:
            return
        self._host = host
        self._app.steps["worker"].add(celery_worker.sweep_step(self))
        signals.worker_process_shutdown.connect(self._leave_process)
        self._learn(RUN)
        self._learn(SWEEP)
        host.watch_tasks(self._learn)
        if not self._app.finalized:
            self._app.on_after_finalize.connect(self._register_all)

    def submit(self, due: ReadyInstance) -> None:
        """Keep the hint for the thread that sends it; with ``task_always_eager``, run it here and now."""
        if self._closed:
            return
        if self._app.conf.task_always_eager:
            self._eager.submit(due)
        else:
            self._hints.submit(due)

    def is_idle(self) -> bool:
        """Whether every hint was sent, and nothing runs in this process."""
        return self._hints.is_idle() and not self._active

    def close(self, timeout: float | None) -> bool:
        """Send what there is to send, for a moment, and wait for what runs in this process."""
        began = time.monotonic()
        self._closed = True
        self._hints.close(FLUSH if timeout is None else min(timeout, FLUSH))
        left = None if timeout is None else max(timeout - (time.monotonic() - began), 0)
        with self._changed:
            ended = self._changed.wait_for(lambda: not self._active, left)
        self._aborts.close(PATIENCE)
        return ended

    # -- tasks --------------------------------------------------------------------------------------------

    def _learn(self, name: str) -> None:
        self._names.add(name)
        if self._app.finalized:
            self._register(name)

    def _register_all(self, **_: object) -> None:
        """The application has evaluated its own tasks."""
        for name in sorted(self._names):
            try:
                self._register(name)
            except DuplicateTaskError as error:  # a signal's receiver cannot raise; the worker does
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
            message = f"{self._app!r} has a task of its own named {name!r}: rename one of them"
            raise DuplicateTaskError(message)
        if not carrier._closed:  # noqa: SLF001 - one of ours
            message = (
                f"{self._app!r} belongs to another Triggers object: one CeleryRunner for each application"
            )
            raise DuplicateTaskError(message)

    def _make(self, name: str) -> Any:
        """The Celery task of that name: the application's own kind of task, which runs instances."""
        base = self._app.Task
        mixin = celery_worker.SweepTask if name == SWEEP else celery_worker.InstanceTask
        body = {
            "__module__": mixin.__module__,
            "__doc__": mixin.__doc__,
            "name": name,
            "carrier": self,
            **celery_worker.SAFE,
            **self._bound.get(name, {}),
        }
        if name != SWEEP:
            body["Request"] = celery_worker.request_class(symbol_by_name(base.Request))
        return type(mixin.__name__, (mixin, base), body)()

    # -- sending ------------------------------------------------------------------------------------------

    @contextmanager
    def _connect(self) -> Iterator[Callable[[ReadyInstance], None]]:
        """A connection of its own: neither waits for the application's, nor keeps one of them."""
        with self._app.connection_for_write() as connection:
            for option in TIMEOUTS.get(connection.transport.driver_type, ()):
                connection.transport_options.setdefault(option, self._deadline)
            connection.connect()
            producer = self._app.amqp.Producer(connection)
            yield partial(self._send, producer, (OperationalError, *connection.connection_errors))

    def _send(self, producer: Any, away: tuple[type[BaseException], ...], due: ReadyInstance) -> None:
        """Send one hint; raises one of `away` if the broker is to blame, and drops a hint that never goes."""
        try:
            self._publish(due, producer=producer, retry=False, add_to_parent=False)
        except away:
            raise
        except Exception:  # noqa: BLE001 - an option of a task, say: the next hint may do
            what = "no message could be made for %s#%d of session %r; the sweep tries again"
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
        """Run a hint here and now, the way Celery does it where it is told to be eager."""
        self._publish(due)

    # -- in a worker --------------------------------------------------------------------------------------

    def follow(self, hint: Hint, delivery: Delivery) -> None:
        """Run what a message is about, unless this process runs nothing more."""
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
        """Fail what a message is about, or rescue it if there is no error but the death of its worker.

        In the background, as long as it takes, where that is not asked for at once or the storage is away.
        """
        if at_once and error is not None and self._host is not None:
            try:
                self._host.abort(*hint, label, error, timeout=PATIENCE)
            except StorageError:
                _log.warning("session %r: %s#%d is failed later: the storage is away", *hint, exc_info=True)
            else:
                return
        self._aborts.submit((hint, label, error))

    @contextmanager
    def _reach_storage(self) -> Iterator[Callable[[_Loss], None]]:
        host = self._host

        def abort(thing: _Loss) -> None:
            hint, label, error = thing
            if host is None:
                return
            if error is None and host.lose(*hint, label):
                _log.warning("session %r: %s#%d has lost its worker", *hint)
            elif error is not None and host.abort(*hint, label, error):
                _log.warning("session %r: %s#%d is failed: %s", *hint, error)

        yield abort

    def sweep(self) -> None:
        """Sweep once."""
        if self._host is not None:
            self._host.sweep()

    def work_begins(self) -> None:
        """A worker starts, in its main process.

        Raises:
            DuplicateTaskError: the application has tasks of its own under names of tasks of ours.
        """
        tasks = self._app.tasks
        for name in sorted(self._names):
            if name not in tasks:
                self._register(name)
            self._check_ours(name, tasks[name])
        if self._conflicts:
            raise DuplicateTaskError("; ".join(self._conflicts))
        if self._sweeps and self._host is not None:
            # Not here: a storage that is away would keep the worker from starting.
            threading.Thread(target=self._host.start, name="triggers-start", daemon=True).start()

    def work_ends(self) -> None:
        """A worker stops, in its main process: sweep no more."""
        if self._sweeps and self._host is not None:
            rest = threading.Thread(target=self._host.pause_sweeping, name="triggers-rest", daemon=True)
            rest.start()
            rest.join(FLUSH)

    def _leave_process(self, **_: object) -> None:
        """A child of the pool ends, without the interpreter's own ceremony."""
        self._hints.flush(PATIENCE)


class _Eager(InlineRunner):
    """Runs hints in the calling thread, one after the other."""

    def __init__(self, apply: Callable[[ReadyInstance], None]) -> None:
        super().__init__()
        self._apply = apply

    def _follow(self, due: ReadyInstance) -> None:
        self._apply(due)


def by_name() -> NoReturn:
    """What the name ``celery`` leads to where no runner was given for it.

    Raises:
        PluginError: always.
    """
    message = (
        "the runner 'celery' needs your Celery application: write runner=CeleryRunner(app), with "
        "`from triggers.runners.celery import CeleryRunner`"
    )
    raise PluginError(message)
