"""What tests of PostgreSQL share: a schema with a clock that stands still, plain connections, forked processes."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import psycopg
from psycopg import sql

from triggers.storages.postgres import PostgresStorage
from triggers.testing.conformance.sandbox import StorageSandbox

MICROSECOND = timedelta(microseconds=1)


def connect(url: str, **options: Any) -> psycopg.Connection:
    """A plain connection to the same database, with autocommit."""
    parts = urlsplit(url)
    kept = [
        pair
        for pair in parse_qsl(parts.query)
        if pair[0] not in {"schema", "pool_size", "timeout", "prepare"}
    ]
    return psycopg.connect(parts._replace(query=urlencode(kept)).geturl(), autocommit=True, **options)


def in_schema(url: str, text: str) -> sql.Composed:
    """SQL with the URL's schema in the place of `{schema}`."""
    name = dict(parse_qsl(urlsplit(url).query)).get("schema", "triggers")
    return sql.SQL(text).format(schema=sql.Identifier(name))


class PostgresPlace(StorageSandbox):
    """A schema that is made with the first handle and removed at the end.

    Its own function for the time is replaced by one that shows what a table says.
    """

    def __init__(self, url: str, direct_url: str = "") -> None:
        super().__init__(lambda _: PostgresStorage(url))
        self._url = url
        self._connection = connect(direct_url or url)
        PostgresStorage(url).close()
        self._run("CREATE TABLE {schema}.test_clock (now bigint NOT NULL)")
        self._run("INSERT INTO {schema}.test_clock VALUES (%s)", self.clock())
        self._run(
            "CREATE OR REPLACE FUNCTION {schema}.clock() RETURNS bigint LANGUAGE sql VOLATILE"
            " AS $clock$ SELECT now FROM {schema}.test_clock $clock$"
        )

    def advance(self, duration: timedelta) -> None:
        """Let so much time pass for every handle."""
        super().advance(duration)
        self._run("UPDATE {schema}.test_clock SET now = %s", self.clock())

    def close(self) -> None:
        """Close the handles, and remove the schema."""
        super().close()
        if not self._connection.closed:
            self._run("DROP SCHEMA {schema} CASCADE")
            self._connection.close()

    def _run(self, text: str, *given: int) -> None:
        self._connection.execute(in_schema(self._url, text), given)


def forked(*jobs):
    """Do each job in a forked process of its own, all begun at the same moment; returns what each said."""
    begin, go = os.pipe()
    pipes = []
    for job in jobs:
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.close(go)
            os.read(begin, 1)
            try:
                said = str(job())
            except BaseException as error:  # noqa: BLE001 - it is told to the parent
                said = repr(error)
            with os.fdopen(writing, "w") as pipe:
                pipe.write(said)
            os._exit(0)
        os.close(writing)
        pipes.append(reading)
    os.close(begin)
    os.close(go)
    told = []
    for reading in pipes:
        with os.fdopen(reading) as pipe:
            told.append(pipe.read())
    for _ in jobs:
        os.wait()
    return told
