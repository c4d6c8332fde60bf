"""What a programmer writes: tasks, and the context that each run of one is given."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Mapping
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypedDict, TypeVar, overload
from weakref import WeakMethod

from triggers.core.names import check_name
from triggers.core.similar_names import did_you_mean
from triggers.core.values import shown
from triggers.exceptions import DuplicateTaskError, InvalidOptionError, Retry, Skip, StatusChange
from triggers.options import CELERY, COOLDOWN, check_class, check_instance, check_known, duration

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator, KeysView
    from typing import Unpack

    from triggers.logs import InstanceLog, LogBlock
    from triggers.manager import TriggerManager
    from triggers.session import TaskInstance

__all__ = ["Registry", "StatusChange", "TaskContext", "TriggerTask", "registry", "task"]

_log = logging.getLogger(__name__)

Result = Mapping[str, Any] | None

_Function = TypeVar("_Function", bound="Callable[[TaskContext], Result | Awaitable[Result]]")


class Registry:
    """The tasks that a process can run, by name.

    A configuration names tasks and never imports any: only what was registered here runs.
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
        """Every name, as it is at any time."""
        return self._tasks.keys()

    def get(self, name: str) -> TriggerTask | None:
        """The task of that name, or None."""
        return self._tasks.get(name)

    def warn_missing(self, name: str) -> None:
        """Log that an instance cannot run here, because no task has this name; once for each name."""
        if name not in self._missed:
            self._missed.add(name)
            hint = did_you_mean(name, list(self.names))
            what = "instances that run %r wait for another worker: this process has no such task%s"
            _log.warning(what, name, hint)

    def register(self, task: TriggerTask) -> None:
        """Make the task known under its name. The same definition again, as after a reload, replaces it.

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
        self._tell(task.name)

    def watch(self, learn: Callable[[str], None]) -> None:
        """Call `learn` with every name there is, and with each that comes, after it has come.

        Args:
            learn: a bound method; it is forgotten with its object. What it raises reaches whoever registers.
        """
        self._watchers = [*self._living(), WeakMethod(learn)]
        for name in list(self.names):
            learn(name)

    def _tell(self, name: str) -> None:
        for watcher in self._living():
            learn = watcher()
            if learn is not None:
                learn(name)

    def _living(self) -> list[WeakMethod[Callable[[str], None]]]:
        return [watcher for watcher in self._watchers if watcher() is not None]


#: Where classes and functions of a process are registered unless they name another registry.
registry = Registry()


class TriggerTask:
    """A task: subclass it and write `_run`. A subclass with a `_run` is registered when it is defined.

    Options are checked when the class is defined. A duration is a timedelta or a number of seconds. Besides
    those below, a task may set options of Celery's, such as `queue`, `rate_limit` and `time_limit`.

    Attributes:
        name: under which a configuration's `run` finds it; ``module.ClassName`` unless given.
        max_retries: how often in a row it may ask to run again.
        timeout: after this it is failed with :class:`~triggers.exceptions.TaskTimeoutError`; None for never.
            A coroutine is cancelled; a plain function goes on until it returns, which is then refused.
        lease: how long its claim lasts without a heartbeat, None for the application's setting.
        max_crashes: at so many crashes that it alone can have caused it is failed, None for the application's
            setting.
        on_lost: ``"fail"`` fails it at the first lost worker, for work that must not be begun twice.
        log_context: what every record of it has in its context.
        registry: where it is registered.
    """

    name: str
    max_retries: int = 3
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
        """The options of Celery's that the task sets, by name; durations are as they were given."""
        set_here = {name: getattr(self, name, None) for name in CELERY}
        return {name: value for name, value in set_here.items() if value is not None}

    def _run(self, context: TaskContext) -> Result | Awaitable[Result]:
        """Do the work; may be ``async``.

        Args:
            context: of this run.

        Returns:
            A mapping that the cascade fires with, or None for an empty one.
        """
        raise NotImplementedError

    def run(self, context: TaskContext) -> Result | Awaitable[Result]:
        """Call `_run`; what surrounds every run of a family of tasks goes into an override of this."""
        return self._run(context)

    def retry(
        self,
        exc: BaseException | None = None,
        cooldown: timedelta | float | None = 0,
        replacement_kwargs: Mapping[str, Mapping[str, Any]] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Retry:
        """Make the signal to end this run as failed and to run again; ``raise`` it.

        Args:
            exc: why; None for no exception.
            cooldown: how long to wait, as a timedelta or in seconds; None for not at all.
            replacement_kwargs: trigger → kwargs, in place of the present ones.
            metadata: added to the metadata of the instance that ends.

        Raises:
            InvalidOptionError: the cooldown is something else, or too long.
        """
        COOLDOWN.check("retry", "cooldown", cooldown)
        return Retry(exc, max(duration(cooldown or 0), timedelta()), replacement_kwargs, metadata)

    def skip(self, metadata: Mapping[str, Any] | None = None) -> Skip:
        """Make the signal to end this run as skipped, so that nothing cascades; ``raise`` it."""
        return Skip(metadata)


class TaskOptions(TypedDict, total=False):
    """The options of `@task`: the attributes of :class:`TriggerTask`, and Celery's."""

    name: str | None
    max_retries: int
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

    The function is returned unchanged, so it can be called, and tested, like any other.

    Args:
        function: takes the :class:`TaskContext`; what it returns is the task's result. Any callable will do;
            one without a name of its own, such as a :class:`functools.partial`, needs the option `name`.
        options: the attributes of :class:`TriggerTask`; the name is ``module.function`` unless given.

    Raises:
        DuplicateTaskError: another task has that name.
        InvalidOptionError: an option is unknown, or not valid.
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
    """The function or class that a callable comes from: what has a name and a module."""
    while isinstance(function, partial):
        function = function.func
    return function if isinstance(getattr(function, "__qualname__", None), str) else type(function)


def _name_of(function: Any) -> str:
    name = getattr(function, "__name__", None)
    if callable(function) and isinstance(name, str):
        return f"{function.__module__}.{name}"
    if callable(function):
        message = f"{shown(function)} has no name of its own: write @task(name=…)"
    else:
        message = (
            f"@task is for functions, not for {shown(function)}; options are given by name: @task(name=…)"
        )
    raise InvalidOptionError(message)


def _where(known: TriggerTask) -> str:
    """Where a task was written; local definitions of one name count as the same, written again."""
    kind = type(known)
    local = "<locals>" in kind.__qualname__
    return f"{kind.__module__}.{kind.__name__ if local else kind.__qualname__}"


class TaskContext:
    """One run of a task: what it was given, and what it may ask.

    Attributes:
        manager: of the session; a task may fire further triggers through it.
        task_instance: the instance, as it was when it was claimed.
        trigger_kwargs: trigger → the kwargs that it fired with, over the task's ``withParams``.
        idempotency_key: the same for every attempt, retry and replay of the same work, another one where the
            kwargs were replaced; give it to outside systems that must do a thing once.
        fencing_token: grows with every claim of the instance; outside systems should refuse a lower one.
        attempt: how often the instance was claimed, from 1.
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
        log: InstanceLog,
        is_lease_lost: Callable[[], bool],
    ) -> None:
        self.manager = manager
        self.task_instance = task_instance
        self.trigger_kwargs = trigger_kwargs
        self.idempotency_key = idempotency_key
        self.fencing_token = fencing_token
        self.attempt = attempt
        self._log = log
        self._is_lease_lost = is_lease_lost

    @property
    def lease_lost(self) -> bool:
        """Whether this run can no longer count on its claim; what it returns would then be refused."""
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
        """Make a block with a logger: ``with context.get_logger_context({"page": 1}) as logger:``.

        What the logger is told goes to the application's logger of that name and is kept with the instance;
        an exception that leaves the block is logged on its way.

        Args:
            args: the context of the block, or an application's logger, or both.
            context: the context of the block: every record in it has it.
            logger: the application's logger; the one named after the task's module by default.
            name: name of the application's logger.
            record_level: records below it are kept only if the application's logger takes them.
            capture: names of other loggers (``sqlalchemy.engine``): what they and those below them say within
                this block is kept with the instance as well.
            capture_counts: whether that counts towards the level of the instance; it does not by default.
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
        """Check the kwargs, and take what the filters make of them.

        Args:
            filters: trigger → a pydantic model or a TypedDict (before Python 3.12 that of typing_extensions),
                or, where the Filters library is installed, a mapping of key → filter.

        Returns:
            Trigger → the model, the dict, or the filtered kwargs.

        Raises:
            InvalidKwargsError: with every problem; the context of the exception has them by path.
        """
        from triggers.kwargs import filter_kwargs  # noqa: PLC0415 - most tasks need no filters

        return filter_kwargs(self.trigger_kwargs, filters)

    def retry(
        self,
        exc: BaseException | None = None,
        cooldown: timedelta | float | None = 0,
        replacement_kwargs: Mapping[str, Mapping[str, Any]] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> Retry:
        """As :meth:`TriggerTask.retry`, for tasks that are functions."""
        return TriggerTask.retry(_ANY, exc, cooldown, replacement_kwargs, metadata)

    def skip(self, metadata: Mapping[str, Any] | None = None) -> Skip:
        """As :meth:`TriggerTask.skip`, for tasks that are functions."""
        return Skip(metadata)


_ANY = TriggerTask()
