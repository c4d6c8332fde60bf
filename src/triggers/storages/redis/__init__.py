"""Sessions in Redis, Valkey and their clusters."""

from triggers.storages.redis.storage import RedisStorage

__all__ = ["RedisStorage"]
