"""The shape of a session of version 2.

The first problem is reported and ends the check: a list of all problems of a hostile session could be larger
than any memory.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

from triggers.core.names import is_name
from triggers.core.status import Status
from triggers.core.values import shown, type_name
from triggers.version2.refused import RefusedError, joined

#: How many keys all tasks may have together. Each is compared with the words that are reserved.
MAX_KEYS: Final = 100_000

#: The greatest depth, log level and so on.
_MOST: Final = 2**31

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

_KINDS: Final = {
    dict: "a mapping",
    list: "a list",
    str: "a text",
    int: "a whole number",
    bool: "true or false",
}


@dataclass(frozen=True, slots=True)
class OldMetadata:
    """The metadata of an instance.

    Attributes:
        times: the names of its timestamps, with the times in microseconds since the Unix epoch.
        result: its result.
        parent: the name of the instance that it replays, or None.
        depth: how many replays led to it.
        cascade: whether a skip has cascaded, None if it was not skipped.
        error_type: the qualified type of the exception that failed it, or None.
        error_text: the traceback of the exception.
        error_context: the context of the exception.
        log_level: the highest level of its log records.
        logs_resolved: whether a person has reviewed them.
        rest: everything else, such as what the application added.
    """

    times: dict[str, int]
    result: dict[Any, Any]
    parent: str | None
    depth: int
    cascade: bool | None
    error_type: str | None
    error_text: str
    error_context: Any
    log_level: int
    logs_resolved: bool
    rest: dict[str, Any]


@dataclass(frozen=True, slots=True)
class OldInstance:
    """One run of a task.

    Attributes:
        task: the name of its task.
        status: its status. The names are the same in both versions.
        kwargs: trigger → the kwargs that it received.
        vetoes: the triggers of `unless` that have fired for it.
        metadata: its metadata.
    """

    task: str
    status: Status
    kwargs: dict[str, dict[Any, Any]]
    vetoes: list[str]
    metadata: OldMetadata


@dataclass(frozen=True, slots=True)
class OldSession:
    """Everything that version 2 stores of a session.

    Attributes:
        tasks: task → its directives.
        instances: name → instance.
        latest_kwargs: trigger → the latest kwargs.
        metas: what the application added.
    """

    tasks: dict[str, dict[str, Any]]
    instances: dict[str, OldInstance]
    latest_kwargs: dict[str, dict[Any, Any]]
    metas: dict[str, Any]


def check_shape(found: dict[str, Any]) -> OldSession:
    """Return the session in plain data.

    Raises:
        RefusedError: it does not have the shape of a session of version 2.
    """
    part = _Part(found, "")
    tasks = _Part(part.take("tasks", dict), "tasks")
    metas = _Part(part.take("metas", dict, {}), "metas")
    instances = _Part(part.take("instances", dict, {}), "instances")
    part.end()
    return OldSession(
        tasks=_tasks(tasks),
        instances={name: _instance(value, f"instances.{name}") for name, value in instances.left.items()},
        latest_kwargs=metas.kwargs("latest_kwargs"),
        metas=metas.left,
    )


class _Part:
    """A mapping of which each key is taken once.

    Attributes:
        left: what was not taken yet.
        path: its path.
    """

    def __init__(self, value: Any, path: str) -> None:
        if type(value) is not dict:
            _refuse(path, dict, value)
        self.left: dict[str, Any] = dict(value)
        self.path = path
        for key in value:
            if type(key) is not str:
                raise RefusedError((path, f"a key must be a text, not {shown(key)}"))

    def take(self, key: str, kind: type, default: Any = None) -> Any:
        """Return the value of a key; the default if it is missing or None."""
        value = self.left.pop(key, None)
        if value is None:
            return default
        if type(value) is not kind:
            _refuse(joined(self.path, key), kind, value)
        return value

    def number(self, key: str) -> int:
        """Return a number that is not negative; 0 if the key is missing."""
        value: int = self.take(key, int, 0)
        if not 0 <= value < _MOST:
            raise RefusedError((f"{self.path}.{key}", f"{value} is not from 0 to {_MOST - 1:,}"))
        return value

    def kwargs(self, key: str) -> dict[str, dict[Any, Any]]:
        """Return the kwargs of each trigger."""
        path = f"{self.path}.{key}"
        found = _Part(self.take(key, dict, {}), path).left
        for trigger, kwargs in found.items():
            if type(kwargs) is not dict:
                _refuse(f"{path}.{trigger}", dict, kwargs)
        return found

    def end(self) -> None:
        """Check that nothing is left."""
        for key in self.left:
            raise RefusedError((joined(self.path, key), "version 2 has no such key"))


def _refuse(path: str, kind: type, value: Any) -> NoReturn:
    raise RefusedError((path, f"it must be {_KINDS[kind]}, not a {type_name(type(value))}"))


def _tasks(part: _Part) -> dict[str, dict[str, Any]]:
    """Return the tasks, whose directives have the types that they had in version 2."""
    tasks = {task: _Part(rule, f"tasks.{task}") for task, rule in part.left.items()}
    keys = sum(len(rule.left) for rule in tasks.values())
    if keys > MAX_KEYS:
        raise RefusedError(("tasks", f"all tasks together have {keys:,} keys, more than {MAX_KEYS:,}"))
    for rule in tasks.values():
        for key in ("after", "unless"):
            _check_names(rule.left.get(key), f"{rule.path}.{key}")
        _Part(dict(rule.left), rule.path).kwargs("withParams")
    return {task: rule.left for task, rule in tasks.items()}


def _check_names(names: Any, path: str) -> None:
    if names is not None and type(names) is not list:
        _refuse(path, list, names)
    for index, name in enumerate(names or ()):
        if not is_name(name):
            raise RefusedError((f"{path}[{index}]", f"{shown(name)} is not the name of a trigger"))


def _instance(value: Any, path: str) -> OldInstance:
    part = _Part(value, path)
    status = part.take("status", str)
    if status not in set(Status):
        raise RefusedError((f"{path}.status", f"{shown(status)} is not a status"))
    vetoes = part.take("abandonState", list, [])
    _check_names(vetoes, f"{path}.abandonState")
    found = OldInstance(
        task=part.take("task", str, ""),
        status=Status(status),
        kwargs=part.kwargs("kwargs"),
        vetoes=vetoes,
        metadata=_metadata(_Part(part.take("metadata", dict, {}), f"{path}.metadata")),
    )
    part.end()
    return found


def _metadata(part: _Part) -> OldMetadata:
    times = _Part(part.take("timestamps", dict, {}), f"{part.path}.timestamps")
    return OldMetadata(
        times={name: _microseconds(at, f"{times.path}.{name}") for name, at in times.left.items()},
        result=part.take("result", dict, {}),
        parent=part.take("parent", str),
        depth=part.number("depth"),
        cascade=part.take("cascade", bool),
        error_type=part.take("exceptionType", str),
        error_text=part.take("exceptionInfo", str, ""),
        error_context=part.left.pop("exceptionContext", None) or {},
        log_level=part.number("logLevel"),
        logs_resolved=part.take("logsResolved", bool, default=False),
        rest=part.left,
    )


def _microseconds(at: Any, path: str) -> int:
    """Return a time in microseconds: in version 2 it is naive UTC, and text if the cache holds JSON."""
    try:
        found = datetime.fromisoformat(at) if type(at) is str else at
    except ValueError:
        found = None
    if type(found) is not datetime:
        raise RefusedError((path, f"{shown(at)} is not a time"))
    aware = found.replace(tzinfo=UTC) if found.tzinfo is None else found
    return (aware - _EPOCH) // timedelta(microseconds=1)
