"""Every error of Triggers, and the context that an exception may carry.

The tree::

    TriggersError
    ├── ConfigurationError (ValueError)        every problem of a configuration at once
    │   └── UnknownTaskError (LookupError)     `run`, or a task, that nobody knows
    ├── InvalidNameError (ValueError)          a UID or a name that cannot be kept
    ├── InvalidValueError (ValueError)         kwargs or a result that cannot come back as they went in
    ├── InvalidKwargsError (ValueError)        kwargs that a task's filters refuse
    ├── InvalidOptionError (ValueError)        an option of a task, or of Triggers, that is not valid
    ├── IdempotencyConflictError (ValueError)  one key, two different firings
    ├── InvalidStatusError (ValueError)        a move that the table of moves does not have
    ├── UnknownInstanceError (LookupError)
    ├── UnknownSessionError (LookupError)
    ├── ManagerMismatchError                   the session belongs to another manager
    ├── PluginError (LookupError)              no storage, runner or manager of that name
    ├── DuplicateTaskError (ValueError)        two different tasks want one name
    ├── StorageError
    │   ├── StorageBusyError                   locked for longer than the busy timeout
    │   ├── StorageFullError                   no space left; nothing was changed
    │   ├── StorageCorruptError                not a database, or a damaged one
    │   └── SchemaVersionError                 written by a newer version of Triggers
    └── (written to a failed instance)
        ├── WorkerLost                         the process died or its lease ran out, too often
        ├── MaxRetriesExceeded
        ├── TaskTimeoutError
        └── CascadeDepthError                  tasks that fire each other without end

    StatusChange                               not errors: a task's own word on how it ends
    ├── Retry
    └── Skip
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta


class TriggersError(Exception):
    """Base of every error that Triggers raises on purpose."""


class ConfigurationError(TriggersError, ValueError):
    """The configuration has problems; nothing of it was written.

    Attributes:
        problems: every problem, as (path, message); the path is the place in the configuration
            (``t_importSubject.after[1]``).
    """

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        self.problems = tuple(problems)
        lines = "\n".join(f"  {path}: {message}" for path, message in self.problems)
        count = len(self.problems)
        super().__init__(f"{count} problem{'s'[: count != 1]} in the configuration:\n{lines}")

    def __reduce__(self) -> tuple[type[ConfigurationError], tuple[Sequence[tuple[str, str]]]]:
        return type(self), (self.problems,)


class UnknownTaskError(ConfigurationError, LookupError):
    """No task of that name is registered, or configured, here."""


class InvalidNameError(TriggersError, ValueError):
    """A UID, trigger, task or key is not a printable string of 1 to 255 characters."""


class InvalidValueError(TriggersError, ValueError):
    """A value cannot be stored so that it comes back as it went in; the message has its path."""


class InvalidKwargsError(TriggersError, ValueError):
    """The kwargs are not what the task's filters ask for; the context has every problem by path."""


class InvalidOptionError(TriggersError, ValueError):
    """An option of a task, or of an application, is unknown or not valid; the message says what is."""


class IdempotencyConflictError(TriggersError, ValueError):
    """The key was used before in this session and trigger, with other kwargs; nothing changed."""


class InvalidStatusError(TriggersError, ValueError):
    """The instance is in a status from which that move does not exist; the message names it."""


class UnknownInstanceError(TriggersError, LookupError):
    """The session has no instance of that name."""


class UnknownSessionError(TriggersError, LookupError):
    """No session of that UID was ever fired into or configured."""


class ManagerMismatchError(TriggersError):
    """The session belongs to a manager that this process lacks: it may be read, not changed."""


class PluginError(TriggersError, LookupError):
    """No storage, runner or manager of that name is installed; the message lists what is."""


class DuplicateTaskError(TriggersError, ValueError):
    """Two different tasks were registered under one name."""


class StorageError(TriggersError):
    """The storage could not do what it was asked; the session is as it was before the call."""


class StorageBusyError(StorageError):
    """The storage stayed locked for longer than the busy timeout."""


class StorageFullError(StorageError):
    """There is no space left to write."""


class StorageCorruptError(StorageError):
    """The file is not a database of Triggers, or it is damaged."""


class SchemaVersionError(StorageError):
    """The storage was written by a newer version of Triggers than this one."""


class WorkerLost(TriggersError):  # noqa: N818 - the field's word for it
    """Too many processes died, or lost their lease, while they ran this instance."""


class MaxRetriesExceeded(TriggersError):  # noqa: N818 - the field's word for it
    """The task asked for one retry more than its `max_retries` allows."""


class TaskTimeoutError(TriggersError, TimeoutError):
    """The task ran longer than its `timeout`."""


class CascadeDepthError(TriggersError):
    """The chain of firings that led to this instance is longer than the limit allows."""


class StatusChange(Exception):  # noqa: N818 - a signal, not an error
    """A task's own word on how its instance ends; raised by the task, never logged as an error."""


class Retry(StatusChange):
    """Made by :meth:`triggers.task.TriggerTask.retry`: run this again later.

    Attributes:
        cause: the exception that made the task give up this time, or None.
        cooldown: how long to wait.
        replacement_kwargs: kwargs of the next run in place of the present ones, or None.
        metadata: added to the metadata of the instance that ends here.
    """

    def __init__(
        self,
        cause: BaseException | None,
        cooldown: timedelta,
        replacement_kwargs: Mapping[str, Any] | None = None,
        metadata: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(
            f"retry in {cooldown}" + (f" because of {_shown(cause)}" if cause is not None else "")
        )
        self.cause = cause
        self.cooldown = cooldown
        self.replacement_kwargs = replacement_kwargs
        self.metadata = metadata


def _shown(exc: BaseException) -> str:
    try:
        return repr(exc)
    except Exception:  # noqa: BLE001 - the class's own code; what it raises must not take the place of a retry
        return object.__repr__(exc)


class Skip(StatusChange):
    """Made by :meth:`triggers.task.TriggerTask.skip`: end as skipped, fire nothing.

    Attributes:
        metadata: added to the metadata of the instance.
    """

    def __init__(self, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__("skipped by the task")
        self.metadata = metadata


# -- context on exceptions --

_E = TypeVar("_E", bound=BaseException)

#: Where an exception keeps its context. Not `context`: some exceptions, jsonschema's, have one of their own.
_CONTEXT = "__triggers_context__"
#: The state of an exception, past whatever its class puts in the place of `__dict__`.
_STATE = vars(BaseException)["__dict__"]
#: Types that every process can unpickle.
_PORTABLE = frozenset({"str", "int", "float", "bool", "NoneType", "bytes", "date", "datetime", "timedelta"})
#: Containers within containers that are copied, or taken along when an exception is pickled.
_DEPTH = 20
#: Dicts of one context that are copied.
_COPIES = 1_000


def with_context(exc: _E, context: Mapping[str, Any]) -> _E:
    """Attach context to an exception: what a reader of the log must know to understand it.

    ``raise with_context(ValueError("Spam."), {"spam_score": score})``

    Args:
        exc: any exception, whatever its class makes of attributes.
        context: merged over the context that the exception already has, objects within objects too; it is
            copied, never changed. Whatever can be logged may stand in it.

    Returns:
        The very same exception. Its own attributes, arguments and text are as before, and it can be pickled
        if it could before.
    """
    given: Any = context
    try:
        given = dict(given)
    except Exception:  # noqa: BLE001 - on the way to raise an error, whatever was given is better than another error
        given = {"context": given}
    state: dict[str, Any] = _STATE.__get__(exc)
    if type(state) is dict and _restores_itself(type(exc)):
        state = _OwnState(state)
        _STATE.__set__(exc, state)
    state[_CONTEXT] = _Context(_merged(state.get(_CONTEXT) or {}, given))
    return exc


def context_of(exc: BaseException) -> dict[str, Any]:
    """Return a copy of the context that :func:`with_context` gave an exception; ``{}`` if none."""
    return _merged({}, _STATE.__get__(exc).get(_CONTEXT) or {})


def _merged(
    under: dict[str, Any], over: Mapping[Any, Any], room: int = _DEPTH, copied: list[int] | None = None
) -> dict[str, Any]:
    """Merge down to a depth that no endless nesting gets past, and so many times that no cycle branches out.

    What is beyond is shared.
    """
    copied = [_COPIES] if copied is None else copied
    out = dict(under)
    for key, item in over.items():
        before = out.get(key)
        out[key] = item
        if type(item) is dict and room and copied[0] > 0:
            copied[0] -= 1
            out[key] = _merged(before if type(before) is dict else {}, item, room - 1, copied)
    return out


class _Context(dict[str, Any]):
    """Context in an exception's state; pickled, objects in it are replaced by the names of their types."""

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[Any]]:
        return dict, (_portable(dict(self), _DEPTH),)


class _OwnState(dict[str, Any]):
    """State of an exception whose class sets attributes in its own way: pickled without the context."""

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[Any]]:
        return dict, ({key: item for key, item in self.items() if key != _CONTEXT},)


def _restores_itself(kind: type[BaseException]) -> bool:
    # Past the metaclass, which may be anybody's code.
    ways = ("__setattr__", "__setstate__")
    return any(type.__getattribute__(kind, way) is not getattr(BaseException, way) for way in ways)


def _portable(value: Any, room: int) -> Any:
    kind = type(value)
    name, module = _name(kind, "__qualname__"), _name(kind, "__module__")
    if name in _PORTABLE and module in {"builtins", "datetime"}:
        return value
    if kind is dict and room:
        return {_portable(key, 0): _portable(item, room - 1) for key, item in value.items()}
    if (kind is list or kind is tuple) and room:
        return [_portable(item, room - 1) for item in value]
    return f"<{module}.{name}>"


def _name(kind: type, attribute: str) -> str:
    try:
        return str(type.__getattribute__(kind, attribute))
    except Exception:  # noqa: BLE001 - a property in the place of the name may do anything
        return "?"
