"""The URL of a PostgreSQL database: server, schema, and options."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final
from urllib.parse import unquote

from triggers.exceptions import StorageError
from triggers.redaction import ENCODE, is_well_formed, shown_scheme, shown_url
from triggers.storages.postgres.connection import read_conninfo, write_conninfo

#: How long a call waits for the server, for locks and for a connection, in seconds, by default.
TIMEOUT: Final = 30.0

#: The longest timeout in seconds; PostgreSQL counts milliseconds in 31 bits.
LONGEST_TIMEOUT: Final = 1_000_000.0

#: The default for the greatest number of connections of one process.
POOL_SIZE: Final = 10

#: The longest name in PostgreSQL, in bytes.
MAX_IDENTIFIER: Final = 63

#: A lost peer is noticed after half a minute. Seconds, except for `tcp_user_timeout`, which is in
#: milliseconds.
_KEEPALIVE: Final = {
    "keepalives": "1",
    "keepalives_idle": "15",
    "keepalives_interval": "5",
    "keepalives_count": "3",
    "tcp_user_timeout": "30000",
    "connect_timeout": "10",
    "fallback_application_name": "triggers",
}

_SCHEMES: Final = ("postgresql://", "postgres://")
_PORTS: Final = re.compile(r"[\d,]*", re.ASCII)
_WRITE: Final = "write postgresql://user:password@host:5432/database"

_PREPARE: Final = {"auto": None, "on": True, "off": False}

_OPTIONS: Final = (
    "schema=name; pool_size=connections; timeout=seconds; prepare=auto|on|off; all others are passed to libpq"
)


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """The parts of a URL.

    Attributes:
        conninfo: the connection string for libpq, which can contain a password.
        shown: the URL for messages, as :func:`triggers.redaction.shown_url` returns it.
        schema: the schema that contains the tables.
        pool_size: the greatest number of connections of one process.
        timeout: how long a call waits, in seconds.
        prepare: whether statements are prepared; None to find out whether the server supports it.
    """

    conninfo: str = field(repr=False)
    shown: str
    schema: str = "triggers"
    pool_size: int = POOL_SIZE
    timeout: float = TIMEOUT
    prepare: bool | None = None

    @classmethod
    def parse(cls, url: str) -> PostgresUrl:
        """Read ``postgresql://user:password@host:port/database?option=value``.

        Raises:
            StorageError: the URL does not have this form, or an option has an invalid value. The message has
                neither the password nor the value.
        """
        if not url.startswith(_SCHEMES) or not is_well_formed(url):
            raise StorageError(f"{shown_scheme(url)!r} is not a valid PostgreSQL URL: {_WRITE}; {ENCODE}")
        location, _, query = url.partition("?")
        pairs = [pair.partition("=") for pair in query.split("&") if pair]
        own = {key: unquote(value) for key, _, value in pairs if key in _READ}
        rest = "&".join(f"{key}{sign}{value}" for key, sign, value in pairs if key not in _READ)
        given = read_conninfo(f"{location}?{rest}" if rest else location)
        if given is None or not _PORTS.fullmatch(given.get("port", "")):
            message = (
                f"{shown_scheme(location)!r} is not a valid PostgreSQL URL, or has an option that libpq does "
                f"not know: {_WRITE}; {ENCODE}; options are: {_OPTIONS}"
            )
            raise StorageError(message)
        read = {key: _READ[key](value) for key, value in own.items()}
        return cls(write_conninfo({**_KEEPALIVE, **given}), shown_url(url, _SHOWN), **read)


def _schema(text: str) -> str:
    size = len(text.encode("utf-8", "replace"))
    if not 0 < size <= MAX_IDENTIFIER or "\0" in text or text.startswith("pg_"):
        message = (
            f"schema is not a valid name of a PostgreSQL schema: use 1 to {MAX_IDENTIFIER} bytes that do not "
            f"begin with pg_"
        )
        raise StorageError(message)
    return text


def _pool_size(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 1_000:  # noqa: PLR2004 - a server has hundreds
        message = "pool_size is not a number of connections from 1 to 1000"
        raise StorageError(message)
    return int(text)


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= LONGEST_TIMEOUT:
        message = f"timeout is not a time in seconds, more than 0 and at most {LONGEST_TIMEOUT:,.0f}"
        raise StorageError(message)
    return seconds


def _prepare(text: str) -> bool | None:
    if text not in _PREPARE:
        message = f"prepare is not one of: {', '.join(_PREPARE)}"
        raise StorageError(message)
    return _PREPARE[text]


_READ: Final[dict[str, Any]] = {
    "schema": _schema,
    "pool_size": _pool_size,
    "timeout": _timeout,
    "prepare": _prepare,
}

#: The options that messages show: where the data is.
_SHOWN: Final = (*_READ, "host", "port", "dbname")
