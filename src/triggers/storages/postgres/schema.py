"""Check a PostgreSQL server, and create or migrate the schema."""

from __future__ import annotations

import time
import warnings
from typing import TYPE_CHECKING, Final

from triggers.exceptions import SchemaVersionError, StorageError
from triggers.storages.postgres.connection import ServerError
from triggers.storages.postgres.statements import in_schema
from triggers.storages.sql import migrations

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triggers.storages.postgres.connection import PipelineConnection
    from triggers.storages.postgres.decide import Step
    from triggers.storages.postgres.url import PostgresUrl
    from triggers.storages.sql.rows import Row

#: The first statement of every transaction of the storage.
VERSION_CHECK: Final[Step] = ("version_check", (len(migrations("postgres")),))

#: The SQLSTATE with which `guard` fails.
GUARD: Final = "TR001"

#: The SQLSTATE of a lock that was not acquired in time.
_LOCKED: Final = "55P03"

#: How long a migration waits for locks at a time, and pauses after that, in seconds. While it waits, the
#: commits of other processes wait for it. A backup or a purge can hold a lock for hours.
SLICE: Final = 2.0

#: The oldest version of PostgreSQL that reports the status of a transaction by its 64-bit number.
OLDEST: Final = 13


def prepare(wire: PipelineConnection, url: PostgresUrl, until: float) -> None:
    """Check the server, and create or migrate the schema. Many processes can do this at the same time.

    Raises:
        StorageError: the server or the schema cannot be used; nothing was changed.
        SchemaVersionError: a newer version of Triggers wrote the schema.
        ServerError: the server refused a statement.
        LostError: the connection was lost.
    """
    _check_server(wire, url, until)
    if _version(wire, url, until) == len(migrations("postgres")):
        return
    try:
        _migrate(wire, url, until)
    except ServerError as error:
        if error.code != "42501":
            raise
        message = (
            f"{url.shown}: {error.text}; schema {url.schema!r} must be created or migrated, and this role "
            f"lacks the privilege: open the storage once with a role that has it; nothing was changed"
        )
        raise StorageError(message) from None


def run_checked(
    wire: PipelineConnection, url: PostgresUrl, steps: Sequence[Step], until: float | None
) -> list[list[Row]]:
    """Run statements, and report a failed :data:`VERSION_CHECK` among them. No other one may have a guard.

    Raises:
        SchemaVersionError: another version of Triggers has migrated the schema; the transaction has failed.
        ServerError: the server refused a statement.
        LostError: the connection was lost.
    """
    try:
        return wire(steps, until)
    except ServerError as error:
        if error.code != GUARD:
            raise
        message = (
            f"schema {url.schema!r} of {url.shown} no longer has version {VERSION_CHECK[1][0]}, which this "
            f"process requires: another version of Triggers has migrated it; upgrade Triggers and restart "
            f"this process; nothing was changed"
        )
        raise SchemaVersionError(message) from None


def _check_server(wire: PipelineConnection, url: PostgresUrl, until: float) -> None:
    ((major, encoding, fsync, synchronous),) = wire([("server", ())], until)[0]
    if major < OLDEST:
        message = f"{url.shown} is PostgreSQL {major}: Triggers needs {OLDEST} or newer"
        raise StorageError(message)
    if encoding != "UTF8":
        message = (
            f"{url.shown} is a database in {encoding}, which cannot store every text: create one with "
            f"ENCODING 'UTF8' TEMPLATE template0"
        )
        raise StorageError(message)
    for name, value in (("fsync", fsync), ("synchronous_commit", synchronous)):
        if value == "off":
            warnings.warn(
                f"{url.shown} has {name}=off: confirmed commits can be lost when the server or its machine "
                f"crashes: set {name}=on",
                RuntimeWarning,
                stacklevel=2,
            )


def _version(wire: PipelineConnection, url: PostgresUrl, until: float) -> int | None:
    """The version of the schema; None if there is no schema."""
    ((exists,),) = wire([("has_version", (url.schema,))], until)[0]
    if not exists:
        return None
    ((version,),) = wire([("version", ())], until)[0]
    known = len(migrations("postgres"))
    if version > known:
        message = (
            f"schema {url.schema!r} of {url.shown} has version {version}, and this version of Triggers knows "
            f"{known}: upgrade Triggers; nothing was changed"
        )
        raise SchemaVersionError(message)
    return int(version)


def _migrate(wire: PipelineConnection, url: PostgresUrl, until: float) -> None:
    """Migrate to the newest version. In the pauses between two tries, other processes continue."""
    while True:
        try:
            return _try_to_migrate(wire, url, min(until, time.monotonic() + SLICE))
        except ServerError as error:
            if error.code != _LOCKED or time.monotonic() >= until:
                raise
        wire([("rollback", ())], until)
        time.sleep(SLICE)


def _try_to_migrate(wire: PipelineConnection, url: PostgresUrl, until: float) -> None:
    """Migrate to the newest version in one transaction. Other processes wait for its end."""
    wait = str(max(1, round((until - time.monotonic()) * 1000)))
    wire(
        [("begin", ()), ("lock_timeout", (wait,)), ("no_statement_timeout", ()), ("migration_lock", ())],
        until,
    )
    version = _version(wire, url, until)
    if version is not None and version < len(migrations("postgres")):
        wire([("version_lock", ())], until)
    steps = [statement for step in migrations("postgres")[version or 0 :] for statement in step]
    if version is None and not wire([("has_schema", (url.schema,))], until)[0][0][0]:
        steps.insert(0, "CREATE SCHEMA {schema}")
    wire.ask(*(in_schema(step, url.schema) for step in steps))
    wire([("version_set", (len(migrations("postgres")),)), ("commit", ())])
