"""Announce work through PostgreSQL's NOTIFY, and hear of it through LISTEN.

All schemas of a database share one channel. The payload names the schema.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from triggers.storages.postgres.connection import PipelineConnection
    from triggers.storages.postgres.pool import Pool

#: How long opening the connection that listens may take, in seconds.
CONNECT_TIMEOUT: Final = 5.0

_LISTEN: Final = "LISTEN triggers"


def announce(pool: Pool, until: float) -> None:
    """Notify the listeners of the schema, in a transaction of its own.

    Within the transaction of a firing it would cost more: commits that notify wait for one another.
    """
    with pool.wire(until) as wire:
        wire([("announce", (pool.url.schema,))], until)


class ListeningConnection:
    """A connection that receives the notifications of one schema.

    Args:
        wire: a connection that nothing else uses.
        schema: the schema.
    """

    def __init__(self, wire: PipelineConnection, schema: str) -> None:
        self._wire = wire
        self._schema = schema

    def heard(self, seconds: float) -> bool:
        """Wait up to that time; return whether work in the schema was announced."""
        return self._schema in self._wire.notifications(seconds)

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        self._wire.close()


def subscribe(pool: Pool) -> ListeningConnection | None:
    """Open a connection that listens; None behind a pooler, which does not forward notifications."""
    until = time.monotonic() + CONNECT_TIMEOUT
    wire = pool.open(until)
    try:
        if not wire.is_pooled:
            wire.ask(_LISTEN, until=until)
            return ListeningConnection(wire, pool.url.schema)
    except BaseException:
        wire.close()
        raise
    wire.close()
    return None
