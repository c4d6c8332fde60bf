"""The URL of a Redis server or cluster, and its options."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from triggers.core.similar_names import did_you_mean
from triggers.exceptions import StorageError
from triggers.redaction import ENCODE, is_well_formed, shown_scheme, shown_url

#: How long an operation is retried while the server is unavailable or other commits come first, in seconds.
TIMEOUT: Final = 30.0

#: How long one answer may take before the connection is closed and another one tried, in seconds.
SOCKET_TIMEOUT: Final = 5.0

#: The number of partitions of a new storage; it cannot be changed afterwards.
PARTITIONS: Final = 64

#: The number of slots of a cluster; more partitions would have no effect.
MOST_PARTITIONS: Final = 16_384

_PORT: Final = 6379
_SCHEMES: Final = {
    "redis": (False, False),
    "rediss": (True, False),
    "redis+unix": (False, False),
    "redis+cluster": (False, True),
    "rediss+cluster": (True, True),
}
_PREFIX: Final = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
_UNITS: Final = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400}
_TLS: Final = ("ssl_ca_certs", "ssl_certfile", "ssl_keyfile")
_OPTIONS: Final = (
    *("prefix", "partitions", "timeout", "socket_timeout", "expire_finalized", "unsafe", "db"),
    *_TLS,
)
#: The options that messages show: where the data is.
_SHOWN: Final = ("prefix", "db")
_KNOWN: Final = (
    "prefix=trg; partitions=64; timeout=seconds; socket_timeout=seconds; expire_finalized=30d; unsafe=1; "
    f"db=number (redis+unix); {'=, '.join(_TLS)}= (rediss)"
)


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """The parts of a URL.

    Attributes:
        shown: the URL for messages, as :func:`triggers.redaction.shown_url` returns it.
        hosts: (host, port) of the server, or of some nodes of the cluster.
        socket: the path of the server's Unix socket, "" for TCP.
        db: the number of the database.
        username: the name of the user, None for the default user.
        password: the password, which no message contains.
        tls: whether the connection is encrypted.
        cluster: whether the URL is that of a cluster.
        files: redis-py's settings that name files for TLS.
        prefix: the prefix of every key.
        partitions: the number of partitions, used only when the keyspace is created.
        timeout: how long an operation is retried, in seconds.
        socket_timeout: how long one answer may take, in seconds.
        expire_finalized: how long a finalized session is kept, in microseconds; None to keep all.
        unsafe: whether a server that can lose acknowledged data is used, with a warning.
    """

    shown: str
    hosts: tuple[tuple[str, int], ...] = ()
    socket: str = ""
    db: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)
    tls: bool = False
    cluster: bool = False
    files: tuple[tuple[str, str], ...] = ()
    prefix: str = "trg"
    partitions: int = PARTITIONS
    timeout: float = TIMEOUT
    socket_timeout: float = SOCKET_TIMEOUT
    expire_finalized: int | None = None
    unsafe: bool = False

    @classmethod
    def parse(cls, url: str) -> RedisUrl:
        """Read ``redis://host:port/db?option=value``, or a URL with one of the other schemes.

        Raises:
            StorageError: the URL is not valid. The message has neither the password nor any value.
        """
        try:
            return cls._parse(url)
        except _UrlError as error:
            problem = str(error)
        except (KeyError, ValueError):  # its text may have any part of the URL
            problem = "the scheme, the host or the port is not valid"
        # Outside of the handler, so that the other exception is not in the chain.
        message = (
            f"{shown_scheme(url)!r} is not a valid Redis URL ({problem}): write redis://host:port/db, "
            f"rediss:// for TLS, redis+unix:///path/to/socket?db=0, or redis+cluster://host:port; options "
            f"are {_KNOWN}"
        )
        raise StorageError(message)

    @classmethod
    def _parse(cls, url: str) -> RedisUrl:
        if not is_well_formed(url):
            raise _UrlError(f"the host, the port or another part is not valid; {ENCODE}")
        parts = urlsplit(url)
        scheme, options = parts.scheme, dict(parse_qsl(parts.query, keep_blank_values=True))
        tls, cluster = _SCHEMES[scheme]
        user, _, hosts = parts.netloc.rpartition("@")
        username, _, password = user.partition(":")
        found: dict[str, Any] = {"shown": shown_url(url, _SHOWN), "tls": tls, "cluster": cluster}
        found["username"], found["password"] = unquote(username) or None, unquote(password) or None
        unix = scheme == "redis+unix"
        found |= _unix(parts.path, options) if unix else _tcp(hosts, parts.path, cluster=cluster)
        return cls(**found, **_options(options, tls=tls))

    @property
    def is_exposed(self) -> bool:
        """Whether the server is used over a network without a password."""
        return not self.password and not self.socket and not all(_is_loopback(host) for host, _ in self.hosts)


class _UrlError(ValueError):
    """What is wrong with the URL, without any part of it."""


def _tcp(hosts: str, path: str, *, cluster: bool) -> dict[str, Any]:
    names = [urlsplit(f"//{host}") for host in hosts.split(",")]
    found = tuple((name.hostname or "localhost", name.port or _PORT) for name in names)
    if len(found) > 1 and not cluster:
        raise _UrlError("several hosts are possible only for a cluster")
    db = path.strip("/")
    if cluster and db not in {"", "0"}:
        raise _UrlError("a cluster has no numbered databases")
    return {"hosts": found, "db": _number("the database", db or "0", 0, 2**31)}


def _unix(path: str, options: dict[str, str]) -> dict[str, Any]:
    if not path.strip("/"):
        raise _UrlError("the path of the socket is missing")
    return {"socket": unquote(path), "db": _number("db", options.pop("db", "0"), 0, 2**31)}


def _options(options: dict[str, str], *, tls: bool) -> dict[str, Any]:
    found: dict[str, Any] = {}
    files = []
    for name, value in options.items():
        if name in {"timeout", "socket_timeout"}:
            found[name] = _seconds(name, value)
        elif name == "expire_finalized":
            found[name] = round(_seconds(name, value) * 1e6)
        elif name == "partitions":
            found[name] = _number(name, value, 1, MOST_PARTITIONS)
        elif name == "unsafe" and value in {"0", "1"}:
            found[name] = value == "1"
        elif name == "prefix" and _PREFIX.fullmatch(value):
            found[name] = value
        elif name in _TLS and tls and value:
            files.append((name, value))
        else:
            hint = did_you_mean(name, _OPTIONS)
            raise _UrlError(
                f"{name} has an invalid value" if name in _OPTIONS else f"an option is unknown{hint}"
            )
    return {**found, "files": tuple(files)}


def _number(name: str, text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise _UrlError(f"{name} is a number from {least} to {most}")
    return int(text)


def _seconds(name: str, text: str) -> float:
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([smhd]?)", text)
    if not found or not float(found[1]):
        raise _UrlError(f"{name} is a number of seconds, or 90m, 12h, 30d")
    return float(found[1]) * _UNITS[found[2]]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
