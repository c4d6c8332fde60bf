"""Opens the storage and the broker of the demo: at a URL, or on a private server that it starts."""

from __future__ import annotations

import importlib.util
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

from triggers import plugins
from triggers.exceptions import PluginError
from triggers.redaction import shown_url
from triggers.testing.servers import (
    MissingServerError,
    PostgresServer,
    RabbitServer,
    RedisServer,
    Server,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

#: The private servers that can be named instead of a URL. A storage must survive a crash, hence `fsync`.
STORAGES: Final[Mapping[str, Callable[[], Server]]] = {
    "postgresql": lambda: PostgresServer(fsync=True, private=True),
    "redis": lambda: RedisServer(private=True),
}
BROKERS: Final[Mapping[str, Callable[[], Server]]] = {
    "redis": lambda: RedisServer(private=True),
    "rabbitmq": lambda: RabbitServer(private=True),
}

#: The beginning of a URL or a name → the package that it needs.
_PACKAGES: Final = {"postgres": "psycopg", "redis": "redis"}


@dataclass(frozen=True, slots=True)
class RunLocation:
    """The storage and the files of a run.

    Attributes:
        url: the URL of the storage.
        results: the file with the results of the tasks.
        shown: the storage as it is shown, without a password.
        private: whether everything is deleted at the end.
    """

    url: str
    results: Path
    shown: str
    private: bool = False


@contextmanager
def storage_at(where: str | None, folder: Path) -> Iterator[RunLocation]:
    """Open a storage until the end of the context.

    Args:
        where: a URL; or ``postgresql`` or ``redis`` for a private server; or None, or ``sqlite``, for a file.
        folder: the folder for the files; a private server has a folder of its own, which is deleted with it.

    Raises:
        PluginError: no storage has that name, or its package is not installed.
        MissingServerError: this machine does not have the programs of such a server.
    """
    if where is None or where == "sqlite":
        url = f"sqlite:///{quote((folder / 'survey.db').as_posix())}"
        yield RunLocation(url, folder / "results.db", url)
    elif ":" in where:
        _require_package("--storage", where)
        yield RunLocation(where, folder / "results.db", shown_url(where))
    else:
        with _private("--storage", where, STORAGES, "sqlite") as server:
            shown = f"a private {server.name} server of this run"
            yield RunLocation(server.url, server.folder / "results.db", shown, private=True)


@contextmanager
def broker_at(where: str) -> Iterator[str]:
    """Open a broker for Celery until the end of the context, and return its URL.

    Args:
        where: a URL; or ``redis`` or ``rabbitmq`` for a private server.

    Raises:
        PluginError: no broker has that name, or Celery or the broker's package is not installed.
        MissingServerError: this machine does not have the programs of such a server.
    """
    _require("--runner celery", "celery")
    if ":" in where:
        _require_package("--broker", where)
        yield where
    else:
        with _private("--broker", where, BROKERS) as server:
            yield server.url


@contextmanager
def _private(
    option: str, name: str, known: Mapping[str, Callable[[], Server]], *more: str
) -> Iterator[Server]:
    if name not in known:
        names = ", ".join([*more, *known])
        raise PluginError(f"{option} {name} is neither a URL nor one of {names}")
    _require_package(option, name)
    server = known[name]()
    try:
        server.start()
    except MissingServerError as error:
        server.close()
        raise MissingServerError(f"{error}; or name a running server: {option} URL") from None
    with server:
        yield server


def _require_package(option: str, where: str) -> None:
    for begin, package in _PACKAGES.items():
        if where.startswith(begin):
            _require(f"{option} {where.partition(':')[0]}", package)


def _require(what: str, package: str) -> None:
    if importlib.util.find_spec(package) is None:
        raise PluginError(plugins.missing(what, package))
