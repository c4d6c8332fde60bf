"""Sessions in a PostgreSQL database."""

from triggers.storages.postgres.storage import PostgresStorage

__all__ = ["PostgresStorage"]
