"""The columns of instances and records, described once for every storage.

Storages derive their statements, writers and readers from this description. To add a column to instances, add
the field with a default at the end of :class:`triggers.core.state.Instance`, a line at the end of
:data:`INSTANCE`, and a migration for each SQL dialect. Values are stored in the order of the description, so
existing lines are never moved.
"""

from __future__ import annotations

from enum import Flag, auto
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from triggers.core.status import Status
from triggers.core.values import decode, encode, from_json_text, to_json_text

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator


class Write(Flag):
    """Which statements write a column of an instance.

    They concern SQL. Redis and memory always write the whole instance.

    Attributes:
        NEVER: none.
        CREATED: the one that inserts an instance.
        TRIGGERED: the one for an unstarted instance that got triggers.
        TRANSITIONED: the one for every other change.
    """

    NEVER = 0
    CREATED = auto()
    TRIGGERED = auto()
    TRANSITIONED = auto()


class Codec(NamedTuple):
    """How a value is stored that is not itself a number, a text or None.

    Neither `encode` nor `decode` is called for an empty value, as most of them are: that is faster.

    Attributes:
        empty: makes the empty value; usually its type.
        blank: how the empty value is stored.
        encode: what is stored for any other value.
        decode: the value that was stored.
        restore: the value as plain JSON data brings it, for storages that keep many values as one document.
    """

    empty: Callable[[], Any]
    blank: str | bool | None
    encode: Callable[[Any], Any]
    decode: Callable[[Any], Any]
    restore: Callable[[Any], Any]


class Column(NamedTuple):
    """One column.

    Attributes:
        attribute: where its value is, as :func:`operator.attrgetter` takes it.
        written: which statements write it, for instances.
        codec: how the value is stored, None for as it is.
    """

    attribute: str
    written: Write = Write.NEVER
    codec: Codec | None = None

    @property
    def name(self) -> str:
        """Name of the column: the last part of the attribute."""
        return self.attribute.rpartition(".")[2]


def names_of(columns: Iterable[Column]) -> tuple[str, ...]:
    """The names of the columns, in their order."""
    return tuple(column.name for column in columns)


def codecs_of(columns: Iterable[Column]) -> Iterator[tuple[int, Codec]]:
    """The columns with a codec: place among the given ones, codec."""
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
_TRANSITIONED: Final = Write.TRANSITIONED
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

#: What is stored of a :class:`triggers.core.exchange.Record`; its entry's fields are in their order.
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

#: Those of its entry.
ENTRY: Final = tuple(column for column in RECORD if column.attribute.startswith("entry."))
