"""The columns of instances and log records, described once for every storage.

Storages derive their statements, writers and readers from this description. To add a column to instances, add
the field with a default at the end of :class:`triggers.core.state.Instance`, a line at the end of
:data:`INSTANCE`, and a migration for each SQL dialect. Values are stored in the order of the description, so
never move existing lines.
"""

from __future__ import annotations

from enum import Flag, auto
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from triggers.core.status import Status
from triggers.core.values import decode, encode, from_json_text, to_json_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class Write(Flag):
    """The SQL statements that write a column of an instance.

    Redis and memory always write the whole instance.

    Attributes:
        NEVER: no statement.
        CREATED: the statement that inserts an instance; an imported one can have any values.
        TRIGGERED: the statement for an unstarted instance that received triggers.
        TRANSITIONED: the statement for every other change.
    """

    NEVER = 0
    CREATED = auto()
    TRIGGERED = auto()
    TRANSITIONED = auto()


class Codec(NamedTuple):
    """How a value is stored that is not a number, a text or None.

    Most values are empty. For speed, `encode` and `decode` are not called for those.

    Attributes:
        empty: makes the empty value; usually it is the type.
        blank: how the empty value is stored.
        encode: returns how any other value is stored.
        decode: returns the value from what is stored.
        restore: returns the value from plain JSON data, for storages that keep many values in one document.
    """

    empty: Callable[[], Any]
    blank: str | bool | None
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    restore: Callable[[Any], Any]


class Column(NamedTuple):
    """One column of a table, or one value of a stored document.

    Attributes:
        attribute: the attribute with the value, in the form that :func:`operator.attrgetter` accepts.
        written: the statements that write it, for a column of instances.
        codec: how the value is stored, None if it is stored unchanged.
    """

    attribute: str
    written: Write = Write.NEVER
    codec: Codec | None = None

    @property
    def name(self) -> str:
        """The name of the column, which is the last part of the attribute."""
        return self.attribute.rpartition(".")[2]


def names_of(columns: Iterable[Column]) -> tuple[str, ...]:
    """Return the names of columns, in the order in which their values are stored."""
    return tuple(column.name for column in columns)


def codecs_of(columns: Iterable[Column]) -> Iterator[tuple[int, Codec]]:
    """Return the codecs of the columns that have one, each with the index of its column."""
    return ((place, column.codec) for place, column in enumerate(columns) if column.codec is not None)


def _tuple(text: str) -> tuple[Any, ...]:
    return tuple(from_json_text(text))


def _counts(data: dict[str, int]) -> dict[int, int]:
    return {int(level): count for level, count in data.items()}


def _counts_of(text: str) -> dict[int, int]:
    return _counts(from_json_text(text))


_STATUS: Final = {str(status): status for status in Status}.__getitem__

STATUS: Final = Codec(str, "", str, _STATUS, _STATUS)
MAPPING: Final = Codec(dict, "{}", to_json_text, from_json_text, dict)
COUNTS: Final = Codec(dict, "{}", to_json_text, _counts_of, _counts)
SEQUENCE: Final = Codec(tuple, "[]", to_json_text, _tuple, tuple)
CONTEXT: Final = Codec(dict, "{}", lambda value: encode(value, "context"), decode, decode)
EXCEPTION: Final = Codec(type(None), None, lambda value: encode(value, "exception"), decode, decode)
FLAG: Final = Codec(bool, False, bool, bool, bool)  # noqa: FBT003 - how the empty value is stored

_CREATED: Final = Write.CREATED
_TRIGGERED: Final = Write.CREATED | Write.TRIGGERED
_TRANSITIONED: Final = Write.CREATED | Write.TRANSITIONED
_ALWAYS: Final = Write.CREATED | Write.TRIGGERED | Write.TRANSITIONED

#: The fields of :class:`triggers.core.state.Instance`, in their order.
INSTANCE: Final = (
    Column("task", _CREATED),
    Column("number", _CREATED),
    Column("status", _ALWAYS, STATUS),
    Column("created_at", _CREATED),
    Column("modified_at", _ALWAYS),
    Column("ref"),
    Column("fence", _TRANSITIONED),
    Column("attempt", _TRANSITIONED),
    Column("crashes", _TRANSITIONED),
    Column("crash_budget", _TRANSITIONED),
    Column("given_back", _TRANSITIONED),
    Column("run_at", _ALWAYS),
    Column("dispatch_after", _ALWAYS),
    Column("handovers", _TRANSITIONED),
    Column("lease_until", _TRANSITIONED),
    Column("owner", _TRANSITIONED),
    Column("parent", _CREATED),
    Column("root", _CREATED),
    Column("depth", _CREATED),
    Column("retries", _CREATED),
    Column("cascade_depth", _TRIGGERED),
    Column("taken", _TRIGGERED, MAPPING),
    Column("vetoes", _TRIGGERED, SEQUENCE),
    Column("kwargs", _CREATED),
    Column("result", _TRANSITIONED),
    Column("error", _TRANSITIONED),
    Column("metadata", _TRANSITIONED),
    Column("history", _ALWAYS),
    Column("log_count", _TRANSITIONED),
    Column("log_level", _TRANSITIONED),
    Column("log_unresolved", _TRANSITIONED),
    Column("log_counts", _TRANSITIONED, COUNTS),
    Column("log_dropped", _TRANSITIONED),
    Column("log_resolved", _TRANSITIONED),
    Column("log_chosen", _TRANSITIONED, SEQUENCE),
    Column("log_audit", _TRANSITIONED),
)

#: The stored values of a :class:`triggers.core.exchange.Record`. The fields of its entry are in their order.
RECORD: Final = (
    Column("number"),
    Column("fence"),
    Column("attempt"),
    Column("entry.seq"),
    Column("entry.at"),
    Column("entry.level"),
    Column("entry.logger"),
    Column("entry.message"),
    Column("entry.template"),
    Column("entry.context", codec=CONTEXT),
    Column("entry.exception", codec=EXCEPTION),
    Column("entry.pathname"),
    Column("entry.lineno"),
    Column("entry.function"),
    Column("entry.truncated", codec=SEQUENCE),
    Column("fingerprint"),
    Column("entry.late", codec=FLAG),
    Column("entry.counts", codec=FLAG),
)

#: The columns of the entry of a record.
ENTRY: Final = tuple(column for column in RECORD if column.attribute.startswith("entry."))
