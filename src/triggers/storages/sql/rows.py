"""Convert instances, firings and records to rows of a table and back, for all SQL storages.

The columns are those of :mod:`triggers.core.columns`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_json

from triggers.core.columns import ENTRY, INSTANCE, Column, Write, names_of
from triggers.core.records import LogEntry, without_contexts
from triggers.core.state import Firing, Instance
from triggers.core.status import SETTLED
from triggers.core.timers import Timer
from triggers.core.values import decode, encode, from_json_text, to_json_text
from triggers.storages.base import StoredRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Row = tuple[Any, ...]

#: A named parameter in the text of a statement; `::` is a cast.
_PARAMETER: Final = re.compile(r"(?<!:):(\w+)")


class Writer:
    """The parameters of a statement that writes columns, and their places in its text.

    Args:
        columns: the columns to write.
        keys: attributes of the written object that identify its row.
        given: names of the parameters that are passed in addition to the object.

    Attributes:
        write: takes the object and the additional parameters; returns the parameters of the statement, in
            order.
    """

    def __init__(
        self, columns: Iterable[Column], keys: Iterable[str] = (), given: Iterable[str] = ()
    ) -> None:
        self._columns = tuple(columns)
        read = (*self._columns, *map(Column, keys))
        self._parameters = (*names_of(read), *given)
        self.write: Callable[..., Row] = _writer(read, tuple(given))

    def filled_in(self, text: str, mark: str) -> str:
        """The statement with its columns filled in and its parameters numbered.

        Args:
            text: contains `{columns}`, `{values}` or `{assignments}` for the columns, and `:name` for a
                parameter.
            mark: the character before the number of a parameter in this dialect.

        Raises:
            ValueError: the text contains a parameter that the writer does not have.
        """
        names = names_of(self._columns)
        numbers = {name: number for number, name in enumerate(self._parameters, 1)}

        def number_of(found: re.Match[str]) -> str:
            if found[1] not in numbers:
                message = (
                    f"the statement has an unknown parameter :{found[1]}; known are {', '.join(numbers)}"
                )
                raise ValueError(message)
            return f"{mark}{numbers[found[1]]}"

        text = text.replace("{columns}", ", ".join(names))
        text = text.replace("{values}", ", ".join(f":{name}" for name in names))
        text = text.replace("{assignments}", ", ".join(f"{name} = :{name}" for name in names))
        return _PARAMETER.sub(number_of, text)


# Both functions are compiled once, like the methods of a dataclass, because every firing writes and reads
# rows.


def _writer(columns: Iterable[Column], given: tuple[str, ...]) -> Callable[..., Row]:
    """A function that returns the stored values of an object, followed by the given values."""
    used: dict[str, Any] = {}
    parts: dict[str, str] = {}  # such as the entry of a record, which contains most of its columns
    values = []
    for column in columns:
        part, _, name = column.attribute.rpartition(".")
        if part:
            parts[part] = f"{part} = source.{part}"
        value = f"{part or 'source'}.{name}"
        if column.codec is not None:
            used[f"encode_{name}"], used[f"blank_{name}"] = column.codec.encode, column.codec.blank
            value = f"encode_{name}(value) if (value := {value}) else blank_{name}"
        values.append(value)
    returned = f"return ({', '.join((*values, *given))},)"
    return _compiled(("source", *given), [*parts.values(), returned], used)


def _reader(columns: Iterable[Column], kind: type) -> Callable[[Iterable[Any]], Any]:
    """A function that creates an object of that class from stored values."""
    lines = ["made = kind(*row)"]
    used: dict[str, Any] = {"kind": kind}
    for column, codec in ((column, column.codec) for column in columns if column.codec is not None):
        name = column.name
        used |= {f"blank_{name}": codec.blank, f"empty_{name}": codec.empty, f"decode_{name}": codec.decode}
        value = f"empty_{name}() if made.{name} == blank_{name} else decode_{name}(made.{name})"
        lines.append(f"made.{name} = {value}")
    return _compiled(("row",), [*lines, "return made"], used)


def _compiled(parameters: Iterable[str], lines: Iterable[str], used: dict[str, Any]) -> Callable[..., Any]:
    source = "\n    ".join((f"def made({', '.join(parameters)}):", *lines))
    exec(source, used)  # noqa: S102 - it consists of the names in the description and nothing else
    made: Callable[..., Any] = used["made"]
    return made


#: The columns that each statement for instances writes.
CREATED: Final = tuple(column for column in INSTANCE if Write.CREATED in column.written)
TRIGGERED: Final = tuple(column for column in INSTANCE if Write.TRIGGERED in column.written)
TRANSITIONED: Final = tuple(column for column in INSTANCE if Write.TRANSITIONED in column.written)

#: The columns of a firing.
FIRING: Final = tuple(map(Column, Firing._fields))

#: The columns of a session that are fields of :class:`triggers.core.state.Session`, in their order.
HEAD: Final = (
    "rules",
    "manager",
    "firings",
    "pending",
    "finalized",
    "metadata",
    "created_at",
    "modified_at",
    "next_timer_at",
    "timer_count",
)

#: The columns that :func:`timer_from_row` reads and :func:`timer_to_row` returns.
TIMER: Final = ("name", "at", "number", "body")

#: The parameters with what a guard compares.
GUARD: Final = ("guard_status", "guard_fence", "guard_lease_until")

#: The columns that :func:`record_from_row` reads.
LOG: Final = ("cursor", "task", "instance", "number", "fence", "attempt", "resolved", *names_of(ENTRY))

#: The statuses of :data:`triggers.core.status.SETTLED`, as SQL values.
SETTLED_VALUES: Final = ", ".join(f"'{status}'" for status in SETTLED)

#: A record that no review covers.
OPEN = (
    "(logs.counts AND logs.number > instances.log_resolved"
    " AND logs.number NOT IN (SELECT value FROM json_each(instances.log_chosen)))"
)

#: A record that was logged before ?1, has at most the level ?2, and does not need a review by the threshold
#: ?3 or that of its instance. With ?4, only a record that has a context, or whose exception has one, in its
#: causes and members, too. As a key in the JSON text, "context" never has a backslash before its closing
#: quotation mark.
PURGEABLE = (
    "logs.at < ?1 AND logs.level <= ?2"
    f" AND NOT (instances.log_unresolved > 0 AND logs.level >= min(?3, instances.log_unresolved) AND {OPEN}"
    f" AND instances.status NOT IN ({SETTLED_VALUES}))"
    " AND (?4 = 0 OR logs.context <> '{}'"
    """ OR instr(replace(coalesce(logs.exception, ''), '"context":{}', ''), '"context":') > 0)"""
)


def placeholders(*, ref: str, is_open: str) -> Mapping[str, str]:
    """Placeholder → the columns that it stands for in the texts of queries.

    Args:
        ref: the column of `instances` that contains an instance's reference.
        is_open: the condition for a record that no review covers.
    """
    other = {"cursor": "logs.id", "task": "instances.task", "instance": "instances.number"}
    other["resolved"] = f"NOT {is_open}"
    instance = (ref if name == "ref" else name for name in names_of(INSTANCE))
    return {
        "{settled}": SETTLED_VALUES,
        "{head_columns}": ", ".join(HEAD),
        "{timer_columns}": ", ".join(TIMER),
        "{instance_columns}": ", ".join(f"instances.{name}" for name in instance),
        "{firing_columns}": ", ".join(f"firings.{name}" for name in names_of(FIRING)),
        "{firing_columns_without_kwargs}": ", ".join(
            "''" if name == "kwargs" else f"firings.{name}" for name in names_of(FIRING)
        ),
        "{log_columns}": ", ".join(other.get(name, f"logs.{name}") for name in LOG),
    }


def dump(names: Any) -> str:
    """Encode a list or mapping of names and numbers as JSON."""
    return to_json(names).decode()


#: Creates an instance from the columns of `{instance_columns}`.
instance_from_row: Final[Callable[[Iterable[Any]], Instance]] = _reader(INSTANCE, Instance)

_entry_from: Final[Callable[[Iterable[Any]], LogEntry]] = _reader(ENTRY, LogEntry)


def firing_from_row(row: Iterable[Any]) -> Firing:
    """Create a firing from the columns of `{firing_columns}`."""
    return Firing(*row)


def timer_from_row(row: Iterable[Any]) -> Timer:
    """Create a timer from the columns of `{timer_columns}`."""
    name, at, number, body = row
    return Timer.stored(name, at, number, from_json_text(body))


def timer_to_row(timer: Timer) -> Row:
    """The stored values of a timer, for `{timer_columns}`."""
    return (timer.name, timer.at, timer.number, to_json_text(timer.body))


def record_from_row(row: Iterable[Any]) -> StoredRecord:
    """Create a record from the columns of `{log_columns}`."""
    cursor, task, instance, number, fence, attempt, resolved, *said = row
    entry = _entry_from(said)
    return StoredRecord(cursor, task, instance, number, fence, attempt, bool(resolved), entry)


def without_context(tree: str | None) -> str | None:
    """A stored exception without the contexts of it, its causes and its members."""
    return None if tree is None else encode(without_contexts(decode(tree)), "exception")
