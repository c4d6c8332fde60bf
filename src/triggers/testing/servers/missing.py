"""Find out which servers cannot be started on this machine."""

from __future__ import annotations

from typing import TYPE_CHECKING

from triggers.testing.servers.base import MissingServerError
from triggers.testing.servers.pgbouncer import PgBouncer
from triggers.testing.servers.postgres import PostgresServer
from triggers.testing.servers.rabbit import RabbitServer
from triggers.testing.servers.redis import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def missing_servers() -> dict[str, str]:
    """Return the name of each server that cannot be started here, with what to install."""
    start: dict[str, Callable[[], Path]] = {
        "PostgreSQL": PostgresServer()._program,  # noqa: SLF001 - within one package
        "Redis": RedisServer(kind="redis")._program,  # noqa: SLF001 - within one package
        "Valkey": RedisServer(kind="valkey")._program,  # noqa: SLF001 - within one package
        "RabbitMQ": RabbitServer()._program,  # noqa: SLF001 - within one package
        "PgBouncer": PgBouncer(PostgresServer())._program,  # noqa: SLF001 - within one package
    }
    missing = {}
    for name, program in start.items():
        try:
            program()
        except MissingServerError as error:
            missing[name] = str(error)
    return missing
