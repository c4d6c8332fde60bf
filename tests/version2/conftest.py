"""The cache of version 2 in a private server, and the command that imports it."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest
from click.testing import CliRunner
from redis import Redis

from tests.conftest import with_empty_database
from triggers.cli import main

PREFIX = ":1:triggers.storages.cache:"


@dataclass
class OldCache:
    """The cache of version 2.

    Attributes:
        url: its URL.
        redis: a connection to it.
    """

    url: str
    redis: Redis

    def put(self, uid, value, **options):
        """Store a session as version 2 does."""
        self.redis.set(f"{PREFIX}{uid}", value, **options)

    def run(self, storage, *args, code=0):
        """Import into a storage; returns the result of the command."""
        given = ["import-v2", "--redis", self.url, "--storage", storage, *args]
        result = CliRunner().invoke(main, given, prog_name="triggers")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    def report(self, storage, *args, code=0):
        """Import into a storage; returns the report for programs."""
        (line,) = self.run(storage, "--json", *args, code=code).stdout.splitlines()
        return json.loads(line)


@pytest.fixture
def cache(valkey_server):
    """An empty cache."""
    url = with_empty_database(valkey_server)
    with Redis.from_url(url) as redis:
        yield OldCache(url, redis)


@pytest.fixture
def sqlite_url(tmp_path):
    """The URL of a SQLite file that does not exist yet."""
    return f"sqlite:///{tmp_path / 'new.db'}?synchronous=normal"
