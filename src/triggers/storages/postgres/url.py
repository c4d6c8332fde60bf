"""The URL of a PostgreSQL database: server, schema, and options."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import quote, unquote

from triggers.exceptions import StorageError
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

_PREPARE: Final = {"auto": None, "on": True, "off": False}

_OPTIONS: Final = (
    "schema=name; pool_size=connections; timeout=seconds; prepare=auto|on|off; all others are passed to libpq"
)


@dataclass(frozen=True, slots=True)
class PostgresUrl:
    """The parts of a URL.

    Attributes:
        conninfo: the connection string for libpq, which can contain a password.
        shown: the URL without the password, for messages.
        schema: the schema that contains the tables.
        pool_size: the greatest number of connections of one process.
        timeout: how long a call waits, in seconds.
        prepare: whether statements are prepared; None to find out whether the server supports it.
    """

    conninfo: str
    shown: str
    schema: str = "triggers"
    pool_size: int = POOL_SIZE
    timeout: float = TIMEOUT
    prepare: bool | None = None

    @classmethod
    def parse(cls, url: str) -> PostgresUrl:
        """Read ``postgresql://user:password@host:port/database?option=value``.

        Raises:
            StorageError: the URL does not have this form, or an option has an invalid value. The message does
                not contain the password.
        """
        location, _, query = url.partition("?")
        pairs = [pair.partition("=") for pair in query.split("&") if pair]
        own = {key: unquote(value) for key, _, value in pairs if key in _READ}
        rest = "&".join(f"{key}{sign}{value}" for key, sign, value in pairs if key not in _READ)
        given = read_conninfo(f"{location}?{rest}" if rest else location)
        if given is None:
            message = (
                f"{_without_password(location)!r} is not a valid PostgreSQL URL, or has an option that libpq "
                f"does not know: write postgresql://user:password@host:5432/database; options are: {_OPTIONS}"
            )
            raise StorageError(message)
        read = {key: _READ[key](value) for key, value in own.items()}
        return cls(write_conninfo({**_KEEPALIVE, **given}), _shown(given, own), **read)


def _shown(given: dict[str, str], own: dict[str, str]) -> str:
    def part(key: str) -> str:
        return quote(given.get(key, ""), safe="/,.:[]")

    user = f"{part('user')}@" if "user" in given else ""
    port = f":{part('port')}" if "port" in given else ""
    options = "&".join(f"{key}={quote(value, safe='')}" for key, value in own.items())
    host = part("host")
    if host.startswith("/"):
        options = "&".join(filter(None, (f"host={host}", options)))
        host = ""
    return f"postgresql://{user}{host}{port}/{part('dbname')}" + (f"?{options}" if options else "")


def _without_password(location: str) -> str:
    return re.sub(r"//.*@", "//…@", location, flags=re.DOTALL)


def _schema(text: str) -> str:
    size = len(text.encode("utf-8", "replace"))
    if not 0 < size <= MAX_IDENTIFIER or "\0" in text or text.startswith("pg_"):
        message = (
            f"{text!r} is not a valid name of a PostgreSQL schema: use 1 to {MAX_IDENTIFIER} bytes that "
            f"do not begin with pg_"
        )
        raise StorageError(message)
    return text


def _pool_size(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 1_000:  # noqa: PLR2004 - a server has hundreds
        message = f"pool_size={text} is not a number of connections from 1 to 1000"
        raise StorageError(message)
    return int(text)


def _timeout(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 < seconds <= LONGEST_TIMEOUT:
        message = f"timeout={text} is not a time in seconds"
        raise StorageError(message)
    return seconds


def _prepare(text: str) -> bool | None:
    if text not in _PREPARE:
        message = f"prepare={text} is not one of: {', '.join(_PREPARE)}"
        raise StorageError(message)
    return _PREPARE[text]


_READ: Final[dict[str, Any]] = {
    "schema": _schema,
    "pool_size": _pool_size,
    "timeout": _timeout,
    "prepare": _prepare,
}
