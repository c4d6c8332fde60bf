"""All exceptions of Triggers, and the context that can be attached to any exception.

The tree::

    TriggersError
    ├── ConfigurationError (ValueError)        every problem of a configuration at once
    │   └── UnknownTaskError (LookupError)     a `run`, or a task, that is unknown
    ├── InvalidNameError (ValueError)          a UID or a name that is not valid
    ├── InvalidValueError (ValueError)         kwargs or a result that cannot be stored without change
    ├── InvalidKwargsError (ValueError)        kwargs that a task's filters reject
    ├── InvalidOptionError (ValueError)        an option of a task, or of Triggers, that is not valid
    ├── IdempotencyConflictError (ValueError)  one key for two different firings
    ├── InvalidStatusError (ValueError)        a change of status that is not allowed
    ├── UnknownInstanceError (KeyError)
    ├── UnknownSessionError (KeyError)
    ├── ManagerMismatchError                   the session belongs to another manager
    ├── UnsupportedRulesError                  a newer version wrote the session's rules
    ├── PluginError (LookupError)              an unknown storage, runner or manager
    ├── GraphTooLargeError (ValueError)        a graph with too many nodes or edges for a drawing
    ├── DuplicateTaskError (ValueError)        one name for two different tasks
    ├── StorageError
    │   ├── StorageBusyError                   locked for longer than the busy timeout
    │   ├── StorageFullError                   no space left; nothing was changed
    │   ├── StorageCorruptError                not a database, or a damaged one
    │   └── SchemaVersionError                 written by a newer version of Triggers
    └── (stored as the error of a failed instance)
        ├── WorkerLost                         too many workers died or lost their lease
        ├── MaxRetriesExceeded
        ├── TaskTimeoutError
        └── CascadeDepthError                  tasks that fire each other forever

    StatusChange                               not errors: raised by a task to end its instance
    ├── Retry
    └── Skip
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from datetime import timedelta


#: How many problems the text of one error has.
SHOWN_PROBLEMS = 20


def first_problems(problems: Sequence[tuple[str, str]]) -> list[str]:
    """Return the first problems, given as (path, message), as texts, and how many more there are."""
    lines = [f"{path}: {message}" for path, message in problems[:SHOWN_PROBLEMS]]
    more = len(problems) - SHOWN_PROBLEMS
    return [*lines, f"and {more:,} more"] if more > 0 else lines


class TriggersError(Exception):
    """The base class of all errors that Triggers raises."""


class ConfigurationError(TriggersError, ValueError):
    """The configuration has problems; nothing was stored.

    Attributes:
        problems: all problems, as (path, message). A path is a place in the configuration, such as
            ``t_importSubject.after[1]``. The text of the exception has the first 20 and the count.
    """

    def __init__(self, problems: Sequence[tuple[str, str]]) -> None:
        self.problems: tuple[tuple[str, str], ...] = tuple(problems)
        count = len(self.problems)
        lines = "\n".join(f"  {line}" for line in first_problems(self.problems))
        super().__init__(f"{count:,} problem{'s'[: count != 1]} in the configuration:\n{lines}")

    def __reduce__(self) -> tuple[type[ConfigurationError], tuple[Sequence[tuple[str, str]]]]:
        return type(self), (self.problems,)


class UnknownTaskError(ConfigurationError, LookupError):
    """No task with this name is registered in this process, or configured in this session."""


class InvalidNameError(TriggersError, ValueError):
    """A UID, trigger, task or key is not a printable string of 1 to 255 characters."""


class InvalidValueError(TriggersError, ValueError):
    """A value cannot be stored without change; the message has its path."""


class InvalidKwargsError(TriggersError, ValueError):
    """The task's filters reject the kwargs; the context of the exception has all problems by path."""


class InvalidOptionError(TriggersError, ValueError):
    """An option of a task, or of an application, is unknown or not valid; the message says what is."""


class IdempotencyConflictError(TriggersError, ValueError):
    """The key was used for an earlier firing of this trigger, with other kwargs; nothing has changed."""


class InvalidStatusError(TriggersError, ValueError):
    """An instance cannot change to this status; the message names its current status."""


class UnknownInstanceError(TriggersError, KeyError):
    """The session does not have an instance with this name."""

    __str__ = Exception.__str__  # that of KeyError quotes the message


class UnknownSessionError(TriggersError, KeyError):
    """No session with this UID is stored: nothing was fired in it or configured."""

    __str__ = Exception.__str__  # as above


class ManagerMismatchError(TriggersError):
    """The session belongs to another manager, so that it can be read but not changed here."""


class UnsupportedRulesError(TriggersError):
    """A newer version of Triggers wrote the session's rules, so that it can be read but not changed here.

    Its configuration can be replaced by one that this version understands.
    """


class PluginError(TriggersError, LookupError):
    """No storage, runner or manager with this name is installed; the message lists the installed ones."""


class GraphTooLargeError(TriggersError, ValueError):
    """The graph has too many nodes or edges for a drawing."""


class DuplicateTaskError(TriggersError, ValueError):
    """Two different tasks were registered with the same name."""


class StorageError(TriggersError):
    """The storage could not do what was requested; the session is unchanged."""


class StorageBusyError(StorageError):
    """The storage stayed locked for longer than the busy timeout."""


class StorageFullError(StorageError):
    """The storage has no space left; nothing was changed."""


class StorageCorruptError(StorageError):
    """The file is not a database of Triggers, or it is damaged."""


class SchemaVersionError(StorageError):
    """The storage was written by a newer version of Triggers than this one."""


class WorkerLost(TriggersError):  # noqa: N818 - the usual term
    """Too many workers died, or lost their lease, while they ran this instance."""


class MaxRetriesExceeded(TriggersError):  # noqa: N818 - the usual term
    """The task requested more retries than its `max_retries` allows."""


class TaskTimeoutError(TriggersError, TimeoutError):
    """The task ran longer than its `timeout`."""


class CascadeDepthError(TriggersError):
    """More firings led to one another, and to this instance, than the limit allows."""


class InstanceFailedError(TriggersError):
    """An instance has failed, which is stored and logged. Celery gets it as the outcome of the Celery task.

    It has texts only, so that every process can unpickle it. Secrets are hidden in them as in the stored
    error.

    Attributes:
        uid: the session.
        instance: the name of the instance.
        kind: the name of the exception's type.
        text: the exception's message.
    """

    def __init__(self, uid: str, instance: str, kind: str, text: str) -> None:
        super().__init__(uid, instance, kind, text)
        self.uid: str = uid
        self.instance: str = instance
        self.kind: str = kind
        self.text: str = text

    def __str__(self) -> str:
        reason = f"{self.kind}: {self.text}" if self.text else self.kind
        return f"{self.instance} of session {self.uid!r} failed: {reason}"


class StatusChange(Exception):  # noqa: N818 - a signal, not an error
    """Raised by a task to say how its instance ends. It is never logged as an error."""


class Retry(StatusChange):
    """Run the instance again later; :meth:`triggers.task.TriggerTask.retry` makes it.

    Attributes:
        cause: the exception because of which the task retries, or None.
        cooldown: how long to wait.
        replacement_kwargs: kwargs that replace those of the instance in the next run, or None.
        metadata: added to the metadata of the instance that ends.
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
    """End the instance as skipped, without a cascade; :meth:`triggers.task.TriggerTask.skip` makes it.

    Attributes:
        metadata: added to the metadata of the instance.
    """

    def __init__(self, metadata: Mapping[str, Any] | None = None) -> None:
        super().__init__("skipped by the task")
        self.metadata = metadata


# -- context on exceptions --

_E = TypeVar("_E", bound=BaseException)

#: The attribute with the context of an exception, which is also its `context`, unless its class defines that
#: itself, as jsonschema's does.
_CONTEXT = "__triggers_context__"
#: The attributes of a class, and its base classes, past its metaclass, which may be anybody's code.
_ATTRIBUTES, _BASES = vars(type)["__dict__"], vars(type)["__mro__"]
#: The state of an exception, even if its class replaces `__dict__`.
_STATE = vars(BaseException)["__dict__"]
#: Types that any process can unpickle.
_PORTABLE = frozenset({"str", "int", "float", "bool", "NoneType", "bytes", "date", "datetime", "timedelta"})
#: How many levels of nested containers are copied, and pickled with an exception.
_DEPTH = 20
#: How many dicts of one context are copied.
_COPIES = 1_000


def with_context(exc: _E, context: Mapping[str, Any]) -> _E:
    """Attach context to an exception: the data that a reader of the log needs to understand it.

    ``raise with_context(ValueError("Spam."), {"spam_score": score})``

    Args:
        exc: any exception.
        context: merged into the context that the exception already has, including nested objects. It is
            copied, never changed. It can contain anything that can be logged.

    Returns:
        The same exception. Its attribute `context` is the whole context, unless the exception defines such
        an attribute itself. Its other attributes, arguments and text do not change. If it could be pickled
        before, it still can.
    """
    given: Any = context
    try:
        given = dict(given)
    except Exception:  # noqa: BLE001 - the caller is raising an error, which another error must not replace
        given = {"context": given}
    state: dict[str, Any] = _STATE.__get__(exc)
    if type(state) is dict and _restores_itself(type(exc)):
        state = _OwnState(state)
        _STATE.__set__(exc, state)
    merged = _Context(_merged(state.get(_CONTEXT) or {}, given))
    if not _defines_context(type(exc), state):
        state["context"] = merged
    state[_CONTEXT] = merged
    return exc


def _defines_context(kind: type[BaseException], state: Mapping[str, Any]) -> bool:
    """Return whether an exception has an attribute `context` that is not ours."""
    if "context" in state:
        return _CONTEXT not in state or state["context"] is not state[_CONTEXT]
    return any("context" in _ATTRIBUTES.__get__(base) for base in _BASES.__get__(kind))


def context_of(exc: BaseException) -> dict[str, Any]:
    """Return a copy of the context that :func:`with_context` attached; ``{}`` if there is none."""
    return _merged({}, _STATE.__get__(exc).get(_CONTEXT) or {})


def _merged(
    under: dict[str, Any], over: Mapping[Any, Any], room: int = _DEPTH, copied: list[int] | None = None
) -> dict[str, Any]:
    """Merge two contexts, down to a maximum depth and a maximum number of dicts, so that cycles end.

    Dicts beyond these limits are not copied but shared.
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
    """The context in an exception's state. Pickling it replaces objects by the names of their types."""

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[Any]]:
        return dict, (_portable(dict(self), _DEPTH),)


class _OwnState(dict[str, Any]):
    """The state of an exception whose class sets attributes itself. It is pickled without the context."""

    def __reduce__(self) -> tuple[type[dict[str, Any]], tuple[Any]]:
        return dict, ({key: item for key, item in self.items() if type(item) is not _Context},)


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
    except Exception:  # noqa: BLE001 - a property instead of the name may do anything
        return "?"
