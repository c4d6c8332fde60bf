"""What the sweep's question costs where a million sessions are stored and 100,000 of them have something due.

Rows are copied from one session that the library has made, since a million firings would take an hour. Then
sweepers take what is due, 200 at a time, with ``PostgresStorage.due``, until nothing is left.
``python -m bench due`` takes some minutes.
"""

from __future__ import annotations

import multiprocessing
import statistics
import time
from typing import TYPE_CHECKING, Any

import psycopg

from bench.server_time import seconds_of
from triggers import Triggers
from triggers.testing.servers import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from multiprocessing.synchronize import Barrier

    from triggers.testing.servers import Server

CONFIGURATION = {"t_import": {"after": ["pageReceived"], "run": "bench.NoOp"}}
KWARGS = {"responses": {"age": 36, "educ": 3, "income": 1}}

#: Sessions, and how many of them have an instance that is due.
SESSIONS, DUE = 1_000_000, 100_000

#: Sweepers at the same time, and what one takes at once.
SWEEPERS, BATCH = (1, 2, 4), 200

#: The first pause before an instance is handed over again, in microseconds: none comes back while this runs.
GRACE = 3_600_000_000

SETTINGS = {"shared_buffers": "512MB", "max_wal_size": "4GB"}


def run() -> Iterator[tuple[str, float, str]]:
    """Fill a private server, and sweep it again and again."""
    with PostgresServer(fsync=True, private=True, settings=SETTINGS) as server:
        with Triggers(server.url, runner=None) as triggers:
            manager = triggers.session("respondent")
            manager.update_configuration(CONFIGURATION)
            manager.fire("pageReceived", KWARGS)
            yield from _small(triggers.storage)
        with psycopg.connect(server.url, autocommit=True) as connection:
            connection.execute("SET search_path TO triggers")
            _fill(connection)
            ((size,),) = connection.execute("SELECT pg_relation_size('instances_due')").fetchall()
            yield f"the index of {DUE:,} that are due", size / 2**20, "MiB"
            for sweepers in SWEEPERS:
                _make_due(connection)
                yield from _sweep(server, sweepers)
        yield from _after(server.url)


def _small(storage: Any) -> Iterator[tuple[str, float, str]]:
    yield "nothing due, one session: one call", _median(lambda: storage.due(BATCH, grace=GRACE)), "ms"


def _fill(connection: Any) -> None:
    """Copy every row of the one session; every tenth copy is left due, the others have finished."""
    for table, own in (
        ("sessions", "id"),
        ("firings", "session"),
        ("names", "session"),
        ("instances", "session"),
    ):
        found = connection.execute(f"SELECT * FROM {table} LIMIT 0").description
        names = [column.name for column in found]
        values = {name: f"one.{name}" for name in names}
        values[own] = f"one.{own} + n"
        if table == "sessions":
            values["uid"] = "one.uid || n"
        if table == "instances":
            values["status"] = f"CASE WHEN n % {SESSIONS // DUE} = 0 THEN 'scheduled' ELSE 'finished' END"
        connection.execute(
            f"INSERT INTO {table} ({', '.join(names)}) SELECT {', '.join(values[name] for name in names)}"
            f" FROM {table} AS one, generate_series(1, {SESSIONS}) AS n"
        )
        connection.execute(f"VACUUM ANALYZE {table}")


def _make_due(connection: Any) -> None:
    """As when they had come in within an hour, in no order of their sessions."""
    connection.execute(
        "UPDATE instances SET handovers = 0, run_at = 0,"
        " dispatch_after = clock() - (random() * 3600000000)::bigint WHERE status = 'scheduled'"
    )
    connection.execute("VACUUM instances")
    connection.execute("CHECKPOINT")


def _sweep(server: Server, sweepers: int) -> Iterator[tuple[str, float, str]]:
    context = multiprocessing.get_context("spawn")
    barrier, done = context.Barrier(sweepers + 1), context.SimpleQueue()
    started = [context.Process(target=_sweeper, args=(server.url, barrier, done)) for _ in range(sweepers)]
    for process in started:
        process.start()
    barrier.wait()
    before, began = seconds_of(server), time.perf_counter()
    found = [done.get() for _ in started]
    seconds = time.perf_counter() - began
    for process in started:
        process.join()
    spent = seconds_of(server) - before
    taken = sum(count for count, _ in found)
    if not DUE <= taken <= DUE + 1:
        message = f"{taken:,} were taken of {DUE:,} that are due"
        raise AssertionError(message)
    times = sorted(one for _, calls in found for one in calls)
    figure = f"{DUE:,} due of {SESSIONS:,}, {sweepers} sweepers"
    yield f"{figure}: taken", taken / seconds, "1/s"
    yield f"{figure}: one call for {BATCH}, median", statistics.median(times) * 1000, "ms"
    yield f"{figure}: one call for {BATCH}, of 100 the slowest", times[len(times) * 99 // 100] * 1000, "ms"
    yield f"{figure}: the server's processors", spent / taken * 1e6, "µs each"


def _sweeper(url: str, barrier: Barrier, done: Any) -> None:
    with Triggers(url, runner=None) as triggers:
        storage = triggers.storage
        storage.now()
        barrier.wait()
        count, times = 0, []
        while True:
            before = time.perf_counter()
            due = storage.due(BATCH, grace=GRACE)
            times.append(time.perf_counter() - before)
            count += len(due)
            if not due:
                break
        done.put((count, times))


def _after(url: str) -> Iterator[tuple[str, float, str]]:
    """When all of it was taken, and nothing was vacuumed yet."""
    with Triggers(url, runner=None) as triggers:
        storage = triggers.storage
        for what, ask in (
            ("nothing due any more: one call", lambda: storage.due(BATCH, grace=GRACE)),
            ("when the next is due (next_at)", storage.reader.next_at),
            ("claims that ran out, none (expired)", lambda: storage.expired(BATCH)),
            (f"what is still to do, {DUE:,} (backlog)", storage.reader.backlog),
        ):
            yield what, _median(ask), "ms"


def _median(ask: Callable[[], object], times: int = 50) -> float:
    found = []
    for _ in range(times):
        before = time.perf_counter()
        ask()
        found.append(time.perf_counter() - before)
    return statistics.median(found) * 1000
