"""Which Redis, and how it is to be used: the URL taken apart."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

from triggers.exceptions import StorageError

#: How long an operation goes on trying while the server is away or others are faster, in seconds.
TIMEOUT: Final = 30.0

#: How long one answer may take before the connection is given up and another one tried, in seconds.
SOCKET_TIMEOUT: Final = 5.0

#: How many partitions a storage gets at its first use; it cannot be changed afterwards.
PARTITIONS: Final = 64

#: A cluster has so many slots, so more partitions would be no use.
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
_KNOWN: Final = (
    "prefix=trg; partitions=64; timeout=seconds; socket_timeout=seconds; expire_finalized=30d; unsafe=1; "
    f"db=number (redis+unix); {'=, '.join(_TLS)}= (rediss)"
)


@dataclass(frozen=True, slots=True)
class RedisUrl:
    """The parts of a URL.

    Attributes:
        shown: the URL as messages have it, without the password.
        hosts: (host, port) of the server, or of some nodes of the cluster.
        socket: path of the server's Unix socket, "" for TCP.
        db: number of the database.
        username: who to say that we are, None for nobody.
        password: never shown.
        tls: whether the connection is encrypted.
        cluster: whether it is a cluster.
        files: redis-py's settings that name files for TLS.
        prefix: what every key begins with.
        partitions: how many there are, if this is the first use.
        timeout: how long an operation goes on trying, in seconds.
        socket_timeout: how long one answer may take, in seconds.
        expire_finalized: how long a finalised session is kept, in microseconds, None for ever.
        unsafe: whether a server is used, with a warning, that may forget.
    """

    shown: str
    hosts: tuple[tuple[str, int], ...] = ()
    socket: str = ""
    db: int = 0
    username: str | None = None
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
        """Read ``redis://host:port/db?option=value`` and its relatives.

        Raises:
            StorageError: it cannot be read; the message has no password in it.
        """
        shown = without_password(url)
        try:
            parts = urlsplit(url)
            scheme, options = parts.scheme, dict(parse_qsl(parts.query, keep_blank_values=True))
            tls, cluster = _SCHEMES[scheme]
            unix = scheme == "redis+unix"
            user, _, hosts = parts.netloc.rpartition("@")
            username, _, password = user.partition(":")
            found: dict[str, Any] = {"shown": shown, "tls": tls, "cluster": cluster}
            found["username"], found["password"] = unquote(username) or None, unquote(password) or None
            found |= _unix(parts.path, options) if unix else _tcp(hosts, parts.path, cluster=cluster)
            return cls(**found, **_options(options, tls=tls))
        except (KeyError, ValueError) as error:
            message = (
                f"{shown!r} names no Redis ({error}): write redis://host:port/db, rediss:// for TLS, "
                f"redis+unix:///path/to/socket?db=0, or redis+cluster://host:port; options are {_KNOWN}"
            )
            raise StorageError(message) from None

    @property
    def is_exposed(self) -> bool:
        """Whether it leads over a network without a password."""
        return not self.password and not self.socket and not all(_is_loopback(host) for host, _ in self.hosts)


def without_password(url: str) -> str:
    """The URL as it may be shown."""
    hidden = re.sub(r"(?<=://)([^/?#]*):[^/?#]*@", r"\1:***@", url)
    return re.sub(r"(?i)([?&][^=&]*pass[^=&]*=)[^&#]*", r"\1***", hidden)


def _tcp(hosts: str, path: str, *, cluster: bool) -> dict[str, Any]:
    names = [urlsplit(f"//{host}") for host in hosts.split(",")]
    found = tuple((name.hostname or "localhost", name.port or _PORT) for name in names)
    if len(found) > 1 and not cluster:
        raise ValueError("one host, unless it is a cluster")
    db = path.strip("/")
    if cluster and db not in {"", "0"}:
        raise ValueError("a cluster has no numbered databases")
    return {"hosts": found, "db": _number("the database", db or "0", 0, 2**31)}


def _unix(path: str, options: dict[str, str]) -> dict[str, Any]:
    if not path.strip("/"):
        raise ValueError("the path of the socket is missing")
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
            raise ValueError(f"there is no such option as {name} with such a value")
    return {**found, "files": tuple(files)}


def _number(name: str, text: str, least: int, most: int) -> int:
    if not text.isascii() or not text.isdigit() or not least <= int(text) <= most:
        raise ValueError(f"{name} is a number from {least} to {most}, not {text[:20]!r}")
    return int(text)


def _seconds(name: str, text: str) -> float:
    found = re.fullmatch(r"(\d{1,9}(?:\.\d{1,6})?)([smhd]?)", text)
    if not found or not float(found[1]):
        raise ValueError(f"{name} is a number of seconds, or 90m, 12h, 30d, not {text[:20]!r}")
    return float(found[1]) * _UNITS[found[2]]


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost" or host.endswith(".localhost")
