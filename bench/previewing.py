"""What a preview of one firing takes on each storage, also while another connection holds a lock of a writer.

It is the median, because a person waits for one. *Locked* is the same with the write lock of the SQLite file,
or the row of the session on PostgreSQL, held by another connection all the time: a preview that took a lock
would not return.
"""

from __future__ import annotations

import gc
import importlib
import statistics
import tempfile
import time
import warnings
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg

from triggers import Triggers
from triggers.testing.servers import PostgresServer, RedisCluster, RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

CONFIGURATION = {
    "t_import": {"after": ["ready"], "andEvery": "pageReceived", "run": "bench.NoOp"},
    "t_score": {"after": ["t_import", "complete"], "unless": ["cancelled"], "run": "bench.NoOp"},
}
KWARGS = {"responses": {"age": 36, "educ": 3, "income": 1}}

#: Previews of each kind.
TIMES = 200

#: The goal for SQLite, in microseconds.
GOAL = "at most 2,000 µs"


def run() -> list[tuple[str, float, str]]:
    """Measure every storage; the servers are private."""
    warnings.filterwarnings("ignore", "SQLite .* can corrupt a file in WAL mode", RuntimeWarning)
    figures = list(_measured("memory", "memory://"))
    for driver in ("pysqlite3", "sqlite3"):
        with tempfile.TemporaryDirectory() as folder:
            url = f"sqlite:///{folder}/s.db?driver={driver}"
            figures += _measured(driver, url, partial(_sqlite_lock, driver, f"{folder}/s.db"), GOAL)
    with PostgresServer(fsync=True) as server:
        figures += _measured("postgresql", server.url, partial(_postgres_lock, server.url))
    for name, servers in (("redis or valkey", RedisServer()), ("cluster", RedisCluster())):
        with servers:
            figures += _measured(name, servers.url)
    return figures


def _measured(
    name: str, url: str, lock: Callable[[], AbstractContextManager[None]] | None = None, goal: str = "µs"
) -> Iterator[tuple[str, float, str]]:
    with Triggers(url, runner=None) as triggers:
        manager = triggers.session("respondent-17")
        manager.update_configuration(CONFIGURATION)
        manager.fire("ready")
        for _ in range(10):
            manager.fire("pageReceived", KWARGS)
        yield f"{name}: a firing", _median(lambda: manager.fire("pageReceived", KWARGS)), "µs"
        yield f"{name}: a preview of it", _median(lambda: _preview(manager)), goal
        fresh = lambda: _preview(triggers.session("respondent-17"))  # noqa: E731 - the parts of one table
        yield f"{name}: the same by a new manager", _median(fresh), goal
        if lock is not None:
            with lock():
                yield f"{name}: the same, locked", _median(fresh), goal


def _preview(manager: Any) -> None:
    if len(manager.preview.fire("pageReceived", KWARGS).scheduled) != 1:
        message = "the preview shows something else than what was to be measured"
        raise AssertionError(message)


def _median(act: Callable[[], object]) -> float:
    """The median of a number of calls, in microseconds."""
    times = []
    gc.collect()
    for _ in range(TIMES):
        before = time.perf_counter()
        act()
        times.append(time.perf_counter() - before)
    return statistics.median(times) * 1e6


@contextmanager
def _sqlite_lock(driver: str, path: str) -> Iterator[None]:
    connection = importlib.import_module(driver).connect(path, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    yield
    connection.rollback()
    connection.close()


@contextmanager
def _postgres_lock(url: str) -> Iterator[None]:
    with psycopg.connect(url) as connection:
        connection.execute("SELECT FROM triggers.sessions FOR UPDATE")
        connection.execute("SELECT FROM triggers.instances FOR UPDATE")
        yield
        connection.rollback()
