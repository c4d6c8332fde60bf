"""The SQL statements of this storage, for one schema.

Their texts are in `statements.sql`. Here their placeholders are replaced: columns, conditions, and the
schema.
"""

from __future__ import annotations

from typing import Final

from triggers.core.columns import RECORD
from triggers.storages.sql import rows
from triggers.storages.sql import statements as texts_of

#: A record that no review covers.
OPEN: Final = (
    "(logs.counts AND logs.number > instances.log_resolved"
    " AND NOT instances.log_chosen::jsonb @> to_jsonb(logs.number))"
)

#: The same condition as :data:`triggers.storages.sql.rows.PURGEABLE`.
PURGEABLE: Final = (
    "logs.at < $1 AND logs.level <= $2"
    f" AND NOT (instances.log_unresolved > 0 AND logs.level >= least($3, instances.log_unresolved) AND {OPEN}"
    f" AND instances.status NOT IN ({rows.SETTLED_VALUES}))"
    " AND (NOT $4::boolean OR logs.context <> '{}'"
    """ OR position('"context":' IN replace(coalesce(logs.exception, ''), '"context":{}', '')) > 0)"""
)

#: The id of the session with the UID $1.
_SESSION: Final = "(SELECT id FROM {schema}.sessions WHERE uid = $1)"

_PLACEHOLDERS: Final = {
    **rows.placeholders(ref="session", is_open=OPEN),
    "{open}": OPEN,
    "{purgeable}": PURGEABLE,
    "{session}": _SESSION,
}

_KEY: Final = ("ref", "task", "number")

#: The parameters of the statements that write columns, by name of the statement.
WRITERS: Final = {
    "firing_insert": rows.Writer(rows.FIRING, given=("session",)),
    "instance_insert": rows.Writer(rows.CREATED, ("ref",)),
    "instance_take": rows.Writer(rows.TRIGGERED, _KEY),
    "instance_move": rows.Writer(rows.TRANSITIONED, _KEY, rows.GUARD),
    "log_insert": rows.Writer(RECORD, given=("session", "task", "instance")),
}


def quoted(name: str) -> str:
    """The name as an identifier in SQL."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """The text as a string in SQL, whatever the server's setting for backslashes is."""
    return " E'" + text.replace("\\", "\\\\").replace("'", "''") + "'"


def in_schema(text: str, schema: str) -> str:
    """Fill the name of a schema into SQL."""
    text = text.replace("{session_numbers}", literal(f"{quoted(schema)}.session_numbers"))
    text = text.replace("{log_lock}", literal(f"triggers {schema} logs"))
    text = text.replace("{migration_lock}", literal(f"triggers {schema} schema"))
    return text.replace("{schema}", quoted(schema))


def texts(schema: str) -> dict[str, str]:
    """Name → statement, for tables in that schema; parameters are $1, $2 and so on.

    A statement with `{order}` sorts in ascending order, and under its name followed by `_latest` in
    descending order. In a statement with `{session_ref}`, $1 is the id of the session, and under its name
    followed by `_of` the UID of the session.
    """
    found = {}
    for name, text in texts_of("postgres").items():
        filled = _filled_in(name, text)
        found[name] = filled.replace("{order}", "ASC").replace("{session_ref}", "$1")
        if "{order}" in filled:
            found[f"{name}_latest"] = filled.replace("{order}", "DESC")
        if "{session_ref}" in filled:
            found[f"{name}_of"] = filled.replace("{session_ref}", _SESSION)
    return {name: in_schema(text, schema) for name, text in found.items()}


def _filled_in(name: str, text: str) -> str:
    for placeholder, meaning in _PLACEHOLDERS.items():
        text = text.replace(placeholder, meaning)
    return WRITERS[name].filled_in(text, "$") if name in WRITERS else text
