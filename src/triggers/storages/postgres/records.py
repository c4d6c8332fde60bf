"""Log records as rows in PostgreSQL, whose texts cannot contain NUL characters."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from triggers.core.columns import RECORD, names_of
from triggers.storages.postgres.statements import WRITERS
from triggers.storages.sql import rows

if TYPE_CHECKING:
    from triggers.core.exchange import Record
    from triggers.storages.base import StoredRecord
    from triggers.storages.sql.rows import Row

# NUL is written with two characters that hardly any text contains, and these two are then escaped as well. No
# escape sequence begins within another one or across two, so a search in the stored text finds what it
# should.
_E, _F = "\ufdd0", "\ufdd1"
_ESCAPES: Final = {"\0": _E + _E + _E + _F, _E: _E + _E + _F + _F, _F: _E + _F + _F + _F}
_UNESCAPED: Final = {sequence: character for character, sequence in _ESCAPES.items()}
_TABLE: Final = str.maketrans(_ESCAPES)
_SEQUENCE: Final = re.compile(f"[{_E}{_F}]{{4}}")

#: Columns with text from the application: their places among what is written, and in `{log_columns}`.
_ESCAPED: Final = ("logger", "message", "template", "pathname", "function")
_WRITTEN: Final = tuple(map(names_of(RECORD).index, _ESCAPED))
_READ: Final = tuple(map(rows.LOG.index, _ESCAPED))

_values: Final = WRITERS["log_insert"].write


def escaped(text: str) -> str:
    """A text with its NUL characters escaped."""
    return text.translate(_TABLE)


def unescaped(text: str) -> str:
    """The original of a text that was escaped."""
    return _SEQUENCE.sub(lambda found: _UNESCAPED[found[0]], text) if _E in text else text


def record_to_row(session: int, record: Record) -> list[Any]:
    """The parameters of `log_insert`."""
    values = list(_values(record, session, record.instance.task, record.instance.number))
    for place in _WRITTEN:
        text = values[place]
        if not text.isascii() or "\0" in text:
            values[place] = escaped(text)
    return values


def record_from_row(row: Row) -> StoredRecord:
    """A record from a row of `logs`, with its texts unescaped."""
    values = list(row)
    for place in _READ:
        values[place] = unescaped(values[place])
    return rows.record_from_row(values)
