"""What one PostgreSQL and one Redis carry: firings and work a second, the server's part of it, and bytes.

Not one of the figures that ``make bench`` compares: these are of one machine, and its clients and its server
share it. ``python -m bench carry`` takes some minutes. The servers wait for their disk: PostgreSQL for every
commit; Redis writes its append-only file once a second (``appendfsync everysec``), or for every commit
(``always``).
"""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections import Counter
from functools import partial
from typing import TYPE_CHECKING, Any

import psycopg
import redis

from bench.server_time import seconds_of
from triggers import Registry, TaskContext, Triggers, task
from triggers.testing.servers import PostgresServer, RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.synchronize import Barrier

    from triggers.testing.servers import Server

CONFIGURATION = {
    "t_import": {"after": ["ready"], "andEvery": "pageReceived", "run": "bench.NoOp"},
    "t_review": {"after": ["ready"], "andEvery": "noteReceived", "run": "bench.Say"},
}

#: 200 bytes of JSON.
PAGE = {"agent": "x" * 48, "responses": {f"answer_{number:02}": number for number in range(9)}}

#: Processes that fire, each into sessions of its own.
PROCESSES = (1, 2, 4)

#: They fire for so many windows of a second, of which the best one counts: other work only takes away.
WINDOWS = 6

#: Sessions that one process fires into in turn.
SESSIONS = 50

#: For the sizes: sessions, and what each of them gets of everything.
SIZED, EACH = 300, 10

registry = Registry()


@task(name="bench.NoOp", registry=registry)
def no_op(context: TaskContext) -> dict[str, int]:
    """Do next to nothing."""
    return {"pages": len(context.trigger_kwargs)}


@task(name="bench.Say", registry=registry)
def say(context: TaskContext) -> dict[str, int]:
    """Log some records, each with a context."""
    with context.get_logger_context({"agent": "x" * 28}) as logger:
        for number in range(EACH):
            logger.info("Answer %d is one that the questionnaire allows.", number)
    return {"pages": 1}


def run() -> Iterator[tuple[str, float, str]]:
    """Start one server after the other, and measure."""
    print(f"   {os.cpu_count()} cores, shared by the processes that fire and the server")
    with PostgresServer(fsync=True, private=True, settings={"shared_buffers": "512MB"}) as server:
        yield from _rates("postgresql", server, _wal)
    with PostgresServer(private=True) as server:
        yield from _sizes("postgresql", server.url, _table_bytes)
    for setting in ("everysec", "always"):
        settings = {"appendonly": "yes", "appendfsync": setting, "auto-aof-rewrite-percentage": 0}
        with RedisServer(private=True, settings=settings) as server:
            yield from _rates(f"redis {setting}", server, _appended)
    with RedisServer(private=True) as server:
        yield from _sizes("redis", server.url, _memory)


# -- rates -------------------------------------------------------------------------------------------------


def _rates(kind: str, server: Server, written: Callable[[str], int]) -> Iterator[tuple[str, float, str]]:
    Triggers(server.url, runner=None).close()  # the schema
    for what, runner in (("fired", None), ("fired, claimed, run, finished", "inline")):
        for processes in PROCESSES:
            look = lambda: (seconds_of(server), written(server.url))  # noqa: E731 - typed
            windows, spent, log = _together(f"{runner}{processes}", server.url, runner, processes, look)
            count = sum(windows.values())
            figure = f"{kind}: {what}, {processes} processes"
            yield figure, max(windows.values()), "1/s"
            yield f"{figure}: the server's processors", spent / count * 1e6, "µs each"
            yield f"{figure}: the server's log", log / count, "bytes each"


def _together(
    name: str, url: str, runner: str | None, processes: int, look: Callable[[], tuple[float, int]]
) -> tuple[Counter[int], float, int]:
    """Let processes begin at once; returns what they did in each second, and how what `look` tells grew."""
    context = multiprocessing.get_context("spawn")
    barrier, done = context.Barrier(processes + 1), context.SimpleQueue()
    started = [
        context.Process(target=_process, args=(f"{name} {number}", url, runner, barrier, done))
        for number in range(processes)
    ]
    for process in started:
        process.start()
    barrier.wait()  # all are ready
    before = look()
    barrier.wait()
    windows: Counter[int] = sum((done.get() for _ in started), Counter())
    for process in started:
        process.join()
    after = look()
    return windows, after[0] - before[0], after[1] - before[1]


def _process(name: str, url: str, runner: str | None, barrier: Barrier, done: Any) -> None:
    """Fire: each firing makes an instance; with the inline runner it returns when that has finished."""
    triggers = Triggers(url, runner=runner, registry=registry)
    managers = [triggers.session(f"{name}: {number}") for number in range(SESSIONS)]
    for manager in managers:
        manager.update_configuration(CONFIGURATION)
        manager.fire("ready")
    for _ in range(2):
        barrier.wait()
    windows: Counter[int] = Counter()
    until = time.monotonic() + WINDOWS
    for manager in itertools.cycle(managers):
        manager.fire("pageReceived", PAGE)
        windows[int(now := time.monotonic())] += 1
        if now > until:
            break
    done.put(windows)
    triggers.close()


# -- bytes -------------------------------------------------------------------------------------------------


def _sizes(kind: str, url: str, size: Callable[[str], int]) -> Iterator[tuple[str, float, str]]:
    with Triggers(url, runner="inline", registry=registry) as triggers:
        managers = [triggers.session(f"sized: {number}") for number in range(SIZED)]
        grows = partial(_grows, lambda: size(url), managers)
        session = grows(lambda manager: manager.update_configuration(CONFIGURATION))
        firing = grows(lambda manager: _times(manager, "seen", PAGE)) / EACH
        grows(lambda manager: manager.fire("ready"))
        large = grows(lambda manager: _times(manager, "pageReceived", PAGE)) / EACH
        small = grows(lambda manager: _times(manager, "pageReceived", {"page": 1})) / EACH
        said = grows(lambda manager: manager.fire("noteReceived", {"page": 1}))
    yield f"{kind}: a session, with a configuration that many share", session, "bytes"
    yield f"{kind}: a firing with 200 bytes of kwargs", firing, "bytes"
    yield f"{kind}: a finished instance, with the firing that it ended with", large - firing, "bytes"
    yield f"{kind}: a record of a log, with a context of 40 bytes", (said - small) / EACH, "bytes"


def _times(manager: Any, trigger: str, kwargs: dict[str, Any]) -> None:
    for _ in range(EACH):
        manager.fire(trigger, kwargs)


def _grows(size: Callable[[], int], managers: list[Any], do: Callable[[Any], object]) -> float:
    """By how many bytes it grows for each session when that is done in each."""
    before = size()
    for manager in managers:
        do(manager)
    return (size() - before) / len(managers)


def _table_bytes(url: str) -> int:
    """Tables with their indexes, written anew so that nothing dead is among it."""
    named = "SELECT 'triggers.' || relname FROM pg_stat_all_tables WHERE schemaname = 'triggers'"
    with psycopg.connect(url, autocommit=True) as connection:
        size = 0
        for (table,) in connection.execute(named).fetchall():
            connection.execute(f"VACUUM FULL {table}")
            size += connection.execute(f"SELECT pg_total_relation_size('{table}')").fetchall()[0][0]
        return size


def _wal(url: str) -> int:
    with psycopg.connect(url, autocommit=True) as connection:
        ((place,),) = connection.execute("SELECT pg_current_wal_lsn() - '0/0'::pg_lsn").fetchall()
        return int(place)


def _memory(url: str) -> int:
    return int(_info(url, "memory")["used_memory"])


def _appended(url: str) -> int:
    return int(_info(url, "persistence")["aof_current_size"])


def _info(url: str, section: str) -> dict[str, Any]:
    with redis.Redis.from_url(url) as client:
        found: dict[str, Any] = client.info(section)
        return found
