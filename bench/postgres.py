"""Firing on PostgreSQL beside a bare transaction, and what a session costs that holds many instances.

*The bare transaction* is ``BEGIN; SELECT … FOR UPDATE; INSERT; UPDATE; COMMIT`` on two small tables through
plain psycopg, with prepared statements: the least that any durable log could do. Both run in turns against
one private server, which waits for the disk.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psycopg

from bench.rounds import in_turns
from triggers import Triggers
from triggers.testing.servers import PostgresServer

if TYPE_CHECKING:
    from collections.abc import Callable

CONFIGURATION = {
    "t_import": {"after": ["ready"], "andEvery": "pageReceived", "run": "bench.NoOp"},
    "t_check": {"after": ["never", "checked"], "andEvery": "checkReceived", "run": "bench.NoOp"},
}
KWARGS = {"responses": {"age": 36, "educ": 3, "income": 1}}

#: Firings of one round, and rounds.
FIRINGS, ROUNDS = 5, 400

#: Instances in the session before it is measured.
SIZES = (10, 1_000, 100_000)

#: Unstarted instances of one task, all waiting for a trigger that does not fire.
WAITING = 10_000


def run() -> list[tuple[str, float, str]]:
    """Measure on a private server."""
    with PostgresServer(fsync=True) as server:
        return [*_firing(server.url), *_growth(server.url)]


def _firing(url: str) -> list[tuple[str, float, str]]:
    parts = {"library": _library(url, "firing", 0), "bare": _bare(url)}
    times = in_turns(parts, ROUNDS)
    return [
        ("firings per second", FIRINGS / times["library"], "1/s"),
        ("bare transactions per second", FIRINGS / times["bare"], "1/s"),
        ("rate to the bare transaction", times["bare"] / times["library"], "at least 0.6"),
    ]


def _growth(url: str) -> list[tuple[str, float, str]]:
    parts = {str(size): _library(url, f"size{size}", size) for size in SIZES}
    parts["waiting"] = _library(url, "waiting", 10, WAITING)
    times = in_turns(parts, ROUNDS)
    figures = [(f"{size:,} instances: one firing", times[str(size)] / FIRINGS * 1e6, "µs") for size in SIZES]
    figures.append((f"{WAITING:,} waiting: one firing", times["waiting"] / FIRINGS * 1e6, "µs"))
    first, last = (times[str(size)] for size in (SIZES[0], SIZES[-1]))
    figures.append((f"{SIZES[-1]:,} instances to {SIZES[0]}", last / first, "at most 1.2"))
    figures.append((f"{WAITING:,} waiting instances to none", times["waiting"] / first, "at most 1.2"))
    return figures


def _library(url: str, schema: str, size: int, waiting: int = 0) -> Callable[[], None]:
    triggers = Triggers(f"{url}&schema={schema}", runner=None)
    manager = triggers.session("respondent-17")
    manager.update_configuration(CONFIGURATION)
    manager.fire("ready")
    _fire(manager, "pageReceived", size)
    _fire(manager, "checkReceived", waiting)
    return lambda: _fire(manager, "pageReceived", FIRINGS)


def _fire(manager: Any, trigger: str, times: int) -> None:
    for _ in range(times):
        manager.fire(trigger, KWARGS)


def _bare(url: str) -> Callable[[], None]:
    connection = psycopg.connect(url, prepare_threshold=0)
    connection.execute("CREATE TABLE head (id integer PRIMARY KEY, count bigint NOT NULL)")
    connection.execute(
        "CREATE TABLE log (id bigserial PRIMARY KEY, number bigint NOT NULL, payload text NOT NULL)"
    )
    connection.execute("INSERT INTO head VALUES (1, 0)")
    connection.commit()

    def loop() -> None:
        execute = connection.execute
        for _ in range(FIRINGS):
            found = execute("SELECT count FROM head WHERE id = %s FOR UPDATE", (1,)).fetchone()
            count = found[0] + 1 if found else 0
            execute("INSERT INTO log (number, payload) VALUES (%s, %s)", (count, '{"responses":{"age":36}}'))
            execute("UPDATE head SET count = %s WHERE id = %s", (count, 1))
            connection.commit()

    return loop
