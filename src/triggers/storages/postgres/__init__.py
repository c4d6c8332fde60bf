"""Sessions in PostgreSQL."""

from triggers.storages.postgres.storage import PostgresStorage

__all__ = ["PostgresStorage"]
