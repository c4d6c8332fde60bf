"""Sessions in one SQLite file."""

from triggers.storages.sqlite.storage import SqliteStorage

__all__ = ["SqliteStorage"]
