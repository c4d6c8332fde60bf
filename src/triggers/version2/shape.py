"""The shape of a session of version 2, as pydantic models.

Importing pydantic takes long, so this module is only imported for an import.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError

from triggers.version2.refused import RefusedError, joined

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _time(value: Any) -> Any:
    """Return a time as an aware datetime: in version 2 it is naive UTC, and text if the cache holds JSON."""
    found = datetime.fromisoformat(value) if type(value) is str else value
    naive = type(found) is datetime and found.tzinfo is None
    return found.replace(tzinfo=UTC) if naive else found


def microseconds(at: datetime) -> int:
    """Return a time in microseconds since the Unix epoch."""
    return (at - _EPOCH) // timedelta(microseconds=1)


_Time = Annotated[datetime, BeforeValidator(_time)]

#: The kwargs of each trigger.
Kwargs = dict[str, dict[Any, Any]]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class OldMetadata(_Part):
    """The metadata of an instance: what version 2 wrote, and what the application added."""

    model_config = ConfigDict(extra="allow", strict=True)

    timestamps: dict[str, _Time] = Field(default_factory=dict)
    result: dict[Any, Any] | None = None
    parent: str | None = None
    depth: Annotated[int, Field(ge=0, lt=2**31)] = 0
    exceptionType: str | None = None  # noqa: N815 - the name in version 2
    exceptionInfo: str | None = None  # noqa: N815 - as above
    exceptionContext: Any = None  # noqa: N815 - as above
    logLevel: Annotated[int, Field(ge=0, lt=2**31)] = 0  # noqa: N815 - as above
    logsResolved: bool = False  # noqa: N815 - as above
    cascade: bool | None = None


class OldInstance(_Part):
    """One run of a task, with its status and kwargs."""

    task: str
    status: Literal[
        "unstarted", "scheduled", "running", "finished", "failed", "skipped", "replayed", "abandoned"
    ]
    kwargs: Kwargs = Field(default_factory=dict)
    abandonState: list[str] = Field(default_factory=list)  # noqa: N815 - the name in version 2
    metadata: OldMetadata = Field(default_factory=OldMetadata)


class OldMetas(_Part):
    """The latest kwargs of each trigger, and what the application added."""

    model_config = ConfigDict(extra="allow", strict=True)

    latest_kwargs: Kwargs = Field(default_factory=dict)


class OldSession(_Part):
    """Everything that version 2 stores of a session."""

    tasks: dict[str, dict[str, Any]]
    instances: dict[str, OldInstance] = Field(default_factory=dict)
    metas: OldMetas = Field(default_factory=OldMetas)


_SESSION: Final = TypeAdapter(OldSession)


def check_shape(found: dict[str, Any]) -> OldSession:
    """Return the session in plain data.

    Raises:
        RefusedError: it does not have the shape of a session of version 2.
    """
    try:
        return _SESSION.validate_python(found)
    except ValidationError as error:
        problems = error.errors(include_url=False, include_input=False)
        raise RefusedError(*((_path(each["loc"]), each["msg"]) for each in problems)) from None


def _path(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in reversed(location):
        path = joined(f"[{part}]" if type(part) is int else str(part), path)
    return path
