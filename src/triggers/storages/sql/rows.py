"""Instances, firings and records as rows of a table, and back: the same for every SQL storage.

What is written and read is derived from :mod:`triggers.core.columns`.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from pydantic_core import to_json

from triggers.core.columns import ENTRY, INSTANCE, Column, Write, names_of
from triggers.core.records import LogEntry, without_contexts
from triggers.core.state import Firing, Instance
from triggers.core.status import SETTLED
from triggers.core.values import decode, encode
from triggers.storages.base import StoredRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

Row = tuple[Any, ...]

#: A parameter in the text of a statement; `::` is a cast.
_PARAMETER: Final = re.compile(r"(?<!:):(\w+)")


class Writer:
    """The parameters of a statement that writes columns, and their places in its text.

    Args:
        columns: what it writes.
        keys: attributes of the written object that say which row it is.
        given: names of the parameters that are passed beside the object.

    Attributes:
        write: takes the object and the given parameters; returns the parameters of the statement, in order.
    """

    def __init__(
        self, columns: Iterable[Column], keys: Iterable[str] = (), given: Iterable[str] = ()
    ) -> None:
        self._columns = tuple(columns)
        read = (*self._columns, *map(Column, keys))
        self._parameters = (*names_of(read), *given)
        self.write = _writer(read, tuple(given))

    def filled_in(self, text: str, mark: str) -> str:
        """The statement with its columns, and its parameters by number.

        Args:
            text: has `{columns}`, `{values}` or `{assignments}` for the columns, and `:name` for a parameter.
            mark: what numbers follow in this dialect.

        Raises:
            ValueError: it names a parameter that the writer does not have.
        """
        names = names_of(self._columns)
        numbers = {name: number for number, name in enumerate(self._parameters, 1)}

        def number_of(found: re.Match[str]) -> str:
            if found[1] not in numbers:
                message = f"the statement has a parameter :{found[1]}; there are {', '.join(numbers)}"
                raise ValueError(message)
            return f"{mark}{numbers[found[1]]}"

        text = text.replace("{columns}", ", ".join(names))
        text = text.replace("{values}", ", ".join(f":{name}" for name in names))
        text = text.replace("{assignments}", ", ".join(f"{name} = :{name}" for name in names))
        return _PARAMETER.sub(number_of, text)


# Both are compiled once, as the methods of a dataclass are: every firing writes and reads rows.


def _writer(columns: Iterable[Column], given: tuple[str, ...]) -> Callable[..., Row]:
    """A function that takes an object and the given values, and returns all of them as they are stored."""
    used: dict[str, Any] = {}
    parts: dict[str, str] = {}  # such as the entry of a record, which has most of its columns
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
    """A function that makes an object of that class of stored values."""
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
    exec(source, used)  # noqa: S102 - it is made of the names in the description, and of nothing else
    made: Callable[..., Any] = used["made"]
    return made


#: The columns that each statement about instances writes.
CREATED: Final = tuple(column for column in INSTANCE if Write.CREATED in column.written)
TRIGGERED: Final = tuple(column for column in INSTANCE if Write.TRIGGERED in column.written)
TRANSITIONED: Final = tuple(column for column in INSTANCE if Write.TRANSITIONED in column.written)

#: The columns of a firing.
FIRING: Final = tuple(map(Column, Firing._fields))

#: The parameters for what a guard compares.
GUARD: Final = ("guard_status", "guard_fence", "guard_lease_until")

#: What :func:`record_from_row` reads.
LOG: Final = ("cursor", "task", "instance", "number", "fence", "attempt", "resolved", *names_of(ENTRY))

#: The statuses of :data:`triggers.core.status.SETTLED`, as SQL values.
SETTLED_VALUES: Final = ", ".join(f"'{status}'" for status in SETTLED)

#: A record that no review covers.
OPEN = (
    "(logs.counts AND logs.number > instances.log_resolved"
    " AND logs.number NOT IN (SELECT value FROM json_each(instances.log_chosen)))"
)

#: A record said before ?1, at most at level ?2, that does not ask for a review by the threshold ?3 or by that
#: of its instance; with ?4 only one that has a context, or whose exception, its causes and members among it,
#: has one: as a key, "context" never has a backslash before its end.
PURGEABLE = (
    "logs.at < ?1 AND logs.level <= ?2"
    f" AND NOT (instances.log_unresolved > 0 AND logs.level >= min(?3, instances.log_unresolved) AND {OPEN}"
    f" AND instances.status NOT IN ({SETTLED_VALUES}))"
    " AND (?4 = 0 OR logs.context <> '{}'"
    """ OR instr(replace(coalesce(logs.exception, ''), '"context":{}', ''), '"context":') > 0)"""
)


def placeholders(*, ref: str, is_open: str) -> Mapping[str, str]:
    """What queries select, by the name that stands for it in their texts.

    Args:
        ref: the column of `instances` that is an instance's reference.
        is_open: tells a record that no review covers.
    """
    other = {"cursor": "logs.id", "task": "instances.task", "instance": "instances.number"}
    other["resolved"] = f"NOT {is_open}"
    instance = (ref if name == "ref" else name for name in names_of(INSTANCE))
    return {
        "{settled}": SETTLED_VALUES,
        "{instance_columns}": ", ".join(f"instances.{name}" for name in instance),
        "{firing_columns}": ", ".join(f"firings.{name}" for name in names_of(FIRING)),
        "{firing_columns_without_kwargs}": ", ".join(
            "''" if name == "kwargs" else f"firings.{name}" for name in names_of(FIRING)
        ),
        "{log_columns}": ", ".join(other.get(name, f"logs.{name}") for name in LOG),
    }


def dump(names: Any) -> str:
    """A list or mapping of names and numbers as JSON."""
    return to_json(names).decode()


#: Reads what `{instance_columns}` selects.
instance_from_row: Final[Callable[[Iterable[Any]], Instance]] = _reader(INSTANCE, Instance)

_entry_from: Final[Callable[[Iterable[Any]], LogEntry]] = _reader(ENTRY, LogEntry)


def firing_from_row(row: Iterable[Any]) -> Firing:
    """Read what `{firing_columns}` selects."""
    return Firing(*row)


def record_from_row(row: Iterable[Any]) -> StoredRecord:
    """Read what `{log_columns}` selects."""
    cursor, task, instance, number, fence, attempt, resolved, *said = row
    entry = _entry_from(said)
    return StoredRecord(cursor, task, instance, number, fence, attempt, bool(resolved), entry)


def without_context(tree: str | None) -> str | None:
    """The stored tree of an exception without any context."""
    return None if tree is None else encode(without_contexts(decode(tree)), "exception")
