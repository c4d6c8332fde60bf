"""Tasks, as you write them, and the context that each run of a task receives."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from contextvars import ContextVar
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict, TypeVar, overload
from weakref import WeakMethod

from triggers.core.names import check_name
from triggers.core.retries import RetryPolicy, retry_policy
from triggers.core.similar_names import did_you_mean
from triggers.core.values import shown
from triggers.exceptions import (
    DuplicateTaskError,
    InvalidOptionError,
    MaxRetriesExceeded,
    Retry,
    Skip,
    StatusChange,
    with_context,
)
from triggers.options import CELERY, COOLDOWN, check_class, check_instance, check_known, duration

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, KeysView
    from typing import Unpack

    from triggers.logs import InstanceLog, LogBlock
    from triggers.manager import TriggerManager
    from triggers.session import TaskInstance

__all__ = [
    "MaxRetriesExceeded",
    "Registry",
    "Retry",
    "StatusChange",
    "TaskContext",
    "TaskRequest",
    "TriggerTask",
    "registry",
    "running_in",
    "task",
]

_log = logging.getLogger(__name__)

Result = Mapping[str, Any] | None

_Function = TypeVar("_Function", bound="Callable[[TaskContext], Result | Awaitable[Result]]")


class Registry:
    """The tasks that a process can run, by name.

    A configuration names tasks but never imports them. Only registered tasks can run.
    """

    def __init__(self) -> None:
        self._tasks: dict[str, TriggerTask] = {}
        self._watchers: list[WeakMethod[Callable[[str], None]]] = []
        self._missed: set[str] = set()

    def __contains__(self, name: object) -> bool:
        return name in self._tasks

    def __iter__(self) -> Iterator[str]:
        return iter(self._tasks)

    @property
    def names(self) -> KeysView[str]:
        """A view of the names of all registered tasks, which follows later changes."""
        return self._tasks.keys()

    def get(self, name: str) -> TriggerTask | None:
        """Return the task of that name, or None."""
        return self._tasks.get(name)

    def logger_of(self, name: str) -> str:
        """Return the name of the logger of a task: its module, or a general name if it is not registered."""
        task = self._tasks.get(name)
        return "triggers.tasks" if task is None else type(task).__module__

    def warn_missing(self, name: str) -> None:
        """Log that an instance cannot run here, because no task has this name; once for each name."""
        if name not in self._missed:
            self._missed.add(name)
            hint = did_you_mean(name, list(self.names))
            what = "instances that run %r wait for another worker: this process has no such task%s"
            _log.warning(what, name, hint)

    def register(self, task: TriggerTask) -> None:
        """Register a task under its name. The same definition again, as after a reload, replaces it.

        Raises:
            DuplicateTaskError: another task has that name.
            InvalidOptionError: one of its options is not valid.
        """
        check_instance(task)
        known = self._tasks.get(task.name)
        if known is not None and _where(known) != _where(task):
            message = (
                f"two tasks are named {task.name!r}, {_where(known)} and {_where(task)}: rename one of them"
            )
            raise DuplicateTaskError(message)
        self._tasks[task.name] = task
        self._notify(task.name)

    def watch(self, learn: Callable[[str], None]) -> None:
        """Call `learn` with the name of every registered task, and of each task that is registered later.

        Args:
            learn: a bound method. It is no longer called when its object is deleted. Its exceptions are
                raised where the task is registered.
        """
        self._watchers = [*self._living(), WeakMethod(learn)]
        for name in list(self.names):
            learn(name)

    def _notify(self, name: str) -> None:
        for watcher in self._living():
            learn = watcher()
            if learn is not None:
                learn(name)

    def _living(self) -> list[WeakMethod[Callable[[str], None]]]:
        return [watcher for watcher in self._watchers if watcher() is not None]


#: The default registry of a process.
registry: Registry = Registry()


@dataclass(frozen=True, slots=True)
class TaskRequest:
    """One run of a task, as a Celery task describes it in ``self.request``.

    Attributes:
        retries: how many retries in a row, by the task itself, led to this run.
        id: the id of the Celery task, or the name of the claim if another runner runs it.
        hostname: the name of the Celery worker, or of the machine.
    """

    retries: int = 0
    id: str | None = None
    hostname: str | None = None


class TriggerTask:
    """A task. Write a subclass with a method `_run`; it is registered when it is defined.

    Options are checked when the class is defined. A duration is a timedelta or a number of seconds. Besides
    the options below, a task can set Celery's options, such as `queue`, `rate_limit` and `time_limit`.

    Attributes:
        name: the name for a configuration's `run`; ``module.ClassName`` by default.
        max_retries: how often in a row an instance may request a retry.
        retry_policy: when an instance that raised an exception runs again by itself, in the form of a rule's
            `retry`; None for never. A `retry` in the configuration wins.
        timeout: after this time the instance is failed with :class:`~triggers.exceptions.TaskTimeoutError`;
            None for never. A coroutine is canceled. A plain function continues until it returns, and its
            result is refused.
        lease: how long a claim lasts without a heartbeat; None for the application's setting.
        max_crashes: how many crashes that no other instance can have caused make an instance failed; None for
            the application's setting.
        on_lost: with ``"fail"``, the first lost worker makes the instance failed, for work that must not
            start twice.
        log_context: the context of every log record of the task.
        registry: where the task is registered.
    """

    name: str
    max_retries: int = 3
    retry_policy: Mapping[str, Any] | None = None
    timeout: timedelta | float | None = None
    lease: timedelta | float | None = None
    max_crashes: int | None = None
    on_lost: Literal["retry", "fail"] = "retry"
    log_context: Mapping[str, Any] | None = None
    registry: ClassVar[Registry] = registry

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        check_class(cls, TriggerTask)
        if "name" not in cls.__dict__:
            cls.name = f"{cls.__module__}.{cls.__name__}"
        check_name(cls.name, "task")
        if cls._run is not TriggerTask._run and not inspect.isabstract(cls):
            cls.registry.register(cls())

    @property
    def celery_options(self) -> dict[str, Any]:
        """Celery's options that the task sets, by name. Durations are as they were given."""
        set_here = {name: getattr(self, name, None) for name in CELERY}
        return {name: value for name, value in set_here.items() if value is not None}

    @property
    def own_retries(self) -> RetryPolicy | None:
        """The policy of `retry_policy`; None if the task has none."""
        return retry_policy(self.retry_policy) if self.retry_policy is not None else None

    def _run(self, context: TaskContext) -> Result | Awaitable[Result]:
        """Do the work. This method may be ``async``.

        Args:
            context: the context of this run.

        Returns:
            The result, a mapping, or None for an empty one. The cascade fires with it.
        """
        raise NotImplementedError

    def run(self, context: TaskContext) -> Result | Awaitable[Result]:
        """Call `_run`. Override this method to surround every run of a family of tasks."""
        return self._run(context)

    @property
    def request(self) -> TaskRequest:
        """What the current run of a task is. Outside of a run, it is an empty one."""
        running = _RUNNING.get()
        return TaskRequest() if running is None else running.request

    def retry(
        self,
        exc: BaseException | None = None,
        metadata: Mapping[str, Any] | None = None,
        replacement_kwargs: Mapping[str, Mapping[str, Any]] | None = None,
        cooldown: timedelta | float | None = None,
    ) -> Retry:
        """Create the exception that ends this run as failed and requests a retry. ``raise`` it.

        Args:
            exc: the reason, or None.
            metadata: added to the metadata of the instance that ends.
            replacement_kwargs: trigger → kwargs, which replace the current ones.
            cooldown: how long to wait, as a timedelta or in seconds; None for no pause.

        Raises:
            MaxRetriesExceeded: this run is the last of those that `max_retries` allows. If you do not catch
                it, the instance fails with it.
            InvalidOptionError: the cooldown is not a duration, or too long.
        """
        COOLDOWN.check("retry", "cooldown", cooldown)
        _check_retries(self.request.retries, self.max_retries, exc, metadata)
        return Retry(exc, max(duration(cooldown or 0), timedelta()), replacement_kwargs, metadata)

    def skip(self, metadata: Mapping[str, Any] | None = None) -> Skip:
        """Create the exception that ends this run as skipped. ``raise`` it. Nothing cascades."""
        return Skip(metadata)


class TaskOptions(TypedDict, total=False):
    """The options of `@task`: the attributes of :class:`TriggerTask`, and Celery's options."""

    name: str | None
    max_retries: int
    retry_policy: Mapping[str, Any] | None
    timeout: timedelta | float | None
    lease: timedelta | float | None
    max_crashes: int | None
    on_lost: Literal["retry", "fail"]
    log_context: Mapping[str, Any] | None
    registry: Registry
    queue: str | None
    exchange: str | None
    routing_key: str | None
    priority: int | None
    rate_limit: str | float | None
    time_limit: timedelta | float | None
    soft_time_limit: timedelta | float | None
    expires: datetime | timedelta | float | None
    ignore_result: bool | None
    track_started: bool | None
    acks_late: bool | None
    acks_on_failure_or_timeout: bool | None
    reject_on_worker_lost: bool | None
    store_errors_even_if_ignored: bool | None
    serializer: str | None
    compression: str | None
    delivery_mode: Literal[1, 2, "transient", "persistent"] | None


@overload
def task(function: _Function, /) -> _Function: ...
@overload
def task(**options: Unpack[TaskOptions]) -> Callable[[_Function], _Function]: ...
def task(
    function: _Function | None = None, /, **options: Any
) -> _Function | Callable[[_Function], _Function]:
    """Register a function, or a coroutine function, as a task.

    The function is returned unchanged, so you can call and test it like any other function.

    Args:
        function: receives the :class:`TaskContext` and returns the task's result. It can be any callable. One
            without a name, such as a :class:`functools.partial`, needs the option `name`.
        options: the attributes of :class:`TriggerTask`; the default name is ``module.function``.

    Raises:
        DuplicateTaskError: another task has that name.
        InvalidOptionError: an option does not exist, or is not valid.
    """
    check_known(options)

    def register(function: _Function) -> _Function:
        _check_callable(function)
        origin = _origin(function)
        named = options.get("name")
        given = {**options, "name": _name_of(function) if named is None else named}
        body = {**given, "_run": staticmethod(function), "__module__": origin.__module__ or "builtins"}
        type(origin.__name__, (TriggerTask,), {**body, "__qualname__": origin.__qualname__})
        return function

    return register if function is None else register(function)


def _check_callable(function: object) -> None:
    if not callable(function):
        message = (
            f"@task is for functions, not for {shown(function)}; options are given by name: @task(name=…)"
        )
        raise InvalidOptionError(message)


def _origin(function: Any) -> Any:
    """Return the function or class of a callable, which has a name and a module."""
    while isinstance(function, partial):
        function = function.func
    return function if isinstance(getattr(function, "__qualname__", None), str) else type(function)


def _name_of(function: Any) -> str:
    name = getattr(function, "__name__", None)
    if callable(function) and isinstance(name, str):
        return f"{function.__module__}.{name}"
    if callable(function):
        message = f"{shown(function)} does not have a name: write @task(name=…)"
    else:
        message = (
            f"@task is for functions, not for {shown(function)}; options are given by name: @task(name=…)"
        )
    raise InvalidOptionError(message)


def _where(known: TriggerTask) -> str:
    """Return where a task was defined. Local definitions with the same name count as one definition."""
    kind = type(known)
    local = "<locals>" in kind.__qualname__
    return f"{kind.__module__}.{kind.__name__ if local else kind.__qualname__}"


class TaskContext:
    """What one run of a task receives, and what it can do.

    Attributes:
        manager: the manager of the session; a task can fire further triggers with it.
        task_instance: the instance, as it was when it was claimed.
        trigger_kwargs: trigger → the kwargs of its firing, merged into the task's ``withParams``.
        idempotency_key: identifies the work. It is the same for every attempt, retry and replay, unless the
            kwargs were replaced. Pass it to other systems that must do something only once.
        fencing_token: grows with every claim of the instance. Other systems should refuse a lower one.
        attempt: how often the instance was claimed, this time included.
        request: how often it has retried itself, and where it runs.
    """

    def __init__(
        self,
        *,
        manager: TriggerManager,
        task_instance: TaskInstance,
        trigger_kwargs: Mapping[str, Any],
        idempotency_key: str,
        fencing_token: int,
        attempt: int,
        task: TriggerTask,
        request: TaskRequest,
        log: InstanceLog,
        is_lease_lost: Callable[[], bool],
    ) -> None:
        self.manager = manager
        self.task_instance = task_instance
        self.trigger_kwargs = trigger_kwargs
        self.idempotency_key = idempotency_key
        self.fencing_token = fencing_token
        self.attempt = attempt
        self.request = request
        self._task = task
        self._log = log
        self._is_lease_lost = is_lease_lost

    @property
    def lease_lost(self) -> bool:
        """Whether this run may have lost its claim. Its outcome would then be refused."""
        return self._is_lease_lost()

    def get_logger_context(
        self,
        *args: Mapping[str, Any] | logging.Logger | None,
        context: Mapping[str, Any] | None = None,
        logger: logging.Logger | None = None,
        name: str | None = None,
        record_level: int | str | None = None,
        capture: Iterable[str] = (),
        capture_counts: bool | None = None,
    ) -> LogBlock:
        """Create a block with a logger: ``with context.get_logger_context({"page": 1}) as logger:``.

        Records of the logger go to the application's logger of the same name, and are stored with the
        instance. An exception that leaves the block is logged.

        Args:
            args: the context of the block, or a logger of the application, or both.
            context: the context of the block. Every record in the block has it.
            logger: the application's logger; the one of the task's module by default.
            name: the name of the application's logger.
            record_level: records below this level are stored only if the application's logger is enabled for
                them.
            capture: names of other loggers, such as ``sqlalchemy.engine``. Their records in this block, and
                those of their child loggers, are stored with the instance, too.
            capture_counts: whether captured records count for the level of the instance. By default they do
                not.
        """
        return self._log.block(
            *args,
            context=context,
            logger=logger,
            name=name,
            record_level=record_level,
            capture=capture,
            capture_counts=capture_counts,
        )

    def filter_kwargs(self, filters: Mapping[str, Any]) -> dict[str, Any]:
        """Check the kwargs with filters, and return the filtered kwargs.

        Args:
            filters: trigger → a pydantic model, a TypedDict (before Python 3.12 that of typing_extensions),
                or, with the Filters library, a mapping of key → filter.

        Returns:
            Trigger → the instance of the model, the dict, or the filtered kwargs.

        Raises:
            InvalidKwargsError: the kwargs have problems. The context of the exception has all, by path.
        """
        from triggers.kwargs import filter_kwargs  # noqa: PLC0415 - most tasks need no filters

        return filter_kwargs(self.trigger_kwargs, filters)

    def retry(
        self,
        exc: BaseException | None = None,
        metadata: Mapping[str, Any] | None = None,
        replacement_kwargs: Mapping[str, Mapping[str, Any]] | None = None,
        cooldown: timedelta | float | None = None,
    ) -> Retry:
        """Do the same as :meth:`TriggerTask.retry`, for tasks that are functions."""
        return self._task.retry(exc, metadata, replacement_kwargs, cooldown)

    def skip(self, metadata: Mapping[str, Any] | None = None) -> Skip:
        """Do the same as :meth:`TriggerTask.skip`, for tasks that are functions."""
        return Skip(metadata)


#: The context of the task that the calling code is part of; None outside of any task.
_RUNNING: ContextVar[TaskContext | None] = ContextVar("triggers_running", default=None)


class running_in:  # noqa: N801 - used like a function
    """Run code as a run of a task; afterwards, the thread is as before.

    This is a class because contextlib sets attributes of the exceptions that pass, which some classes refuse.

    Args:
        context: the context of the run.
    """

    def __init__(self, context: TaskContext) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token = _RUNNING.set(self._context)

    def __exit__(self, *_: object) -> None:
        _RUNNING.reset(self._token)


def _check_retries(
    retries: int, limit: int, exc: BaseException | None, metadata: Mapping[str, Any] | None
) -> None:
    """Refuse another retry after the last one that is allowed."""
    if retries >= limit:
        message = f"another retry was requested after {retries} retries; max_retries is {limit}"
        raise with_context(MaxRetriesExceeded(message), {"replay_metadata": metadata or {}}) from exc
