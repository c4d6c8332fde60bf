"""What one instance costs from its firing to its end, in sessions of 10 to 100,000, on every storage.

*The cycle* is to fire, claim, run and finish. On PostgreSQL it is measured twice: on tables of which the
planner knows nothing, by plans that were made while they were empty, and on tables that were analyzed.
"""

from __future__ import annotations

import tempfile
import warnings
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING

import psycopg

from bench.rounds import in_turns
from triggers import Registry, Triggers, task
from triggers.core.decisions.unit_of_work import UnitOfWork
from triggers.core.exchange import Decision
from triggers.core.state import Firing
from triggers.testing.servers import PostgresServer, RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from triggers import TaskContext, TriggerManager
    from triggers.core.exchange import DecisionRun
    from triggers.core.state import Session

CONFIGURATION = {"t_import": {"after": ["ready"], "andEvery": "pageReceived", "run": "bench.NoOp"}}

#: Firings and instances in the session before it is measured.
SIZES = (10, 1_000, 100_000)

#: So many firings make a session grow by one decision, which no manager would do, and is the same in the end.
BATCH = 250

#: Cycles of one round, and rounds. No server waits for its disk, which would hide what the rest costs.
CYCLES, ROUNDS = 1, 1_000

registry = Registry()


@task(name="bench.NoOp", registry=registry)
def no_op(context: TaskContext) -> None:
    """Do nothing."""
    del context


def run() -> Iterator[tuple[str, float, str]]:
    """Measure the sessions of each storage in turns."""
    with ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", ".*fsync=off", RuntimeWarning)
        folder = stack.enter_context(tempfile.TemporaryDirectory())
        yield from _growth("memory", lambda _: "memory://")
        yield from _growth("sqlite", lambda size: f"sqlite:///{folder}/{size}.db?synchronous=normal")
        redis = stack.enter_context(RedisServer(private=True))
        yield from _growth(redis.name, lambda _: redis.url)
        postgres = stack.enter_context(PostgresServer())
        for name, is_analyzed in (("without statistics", False), ("with statistics", True)):
            yield from _growth(
                f"PostgreSQL {name}",
                partial(_schema_url, postgres.url, name),
                is_analyzed=is_analyzed,
            )


def _schema_url(url: str, name: str, size: int) -> str:
    return f"{url}&schema={size}_{name.replace(' ', '_')}"


def _growth(
    name: str, url_of: Callable[[int], str], *, is_analyzed: bool | None = None
) -> Iterator[tuple[str, float, str]]:
    parts = {str(size): _session(url_of(size), size, is_analyzed=is_analyzed) for size in SIZES}
    times = in_turns(parts, ROUNDS)
    for size in SIZES:
        yield f"{name}, {size:,} instances: one cycle", times[str(size)] / CYCLES * 1e6, "µs"
    yield (
        f"{name}, {SIZES[-1]:,} instances to {SIZES[0]}",
        times[str(SIZES[-1])] / times[str(SIZES[0])],
        "at most 1.2",
    )


def _session(url: str, size: int, *, is_analyzed: bool | None) -> Callable[[], None]:
    triggers = Triggers(url, runner=None, registry=registry)
    uid = f"session of {size}"
    manager = triggers.session(uid)
    manager.update_configuration(CONFIGURATION)
    manager.fire("ready")
    if is_analyzed is not None:
        _forget_statistics(url)

    def cycle() -> None:
        for _ in range(CYCLES):
            (name,) = manager.fire("pageReceived", {"page": 3}).scheduled
            if not triggers.run(uid, "t_import", int(name.partition("#")[2])):
                message = f"{name} was not run"
                raise AssertionError(message)

    cycle()  # so that plans are made while there is nothing
    _grow(triggers, manager, size)
    if is_analyzed:
        _analyze(url)
    return cycle


def _grow(triggers: Triggers, manager: TriggerManager, size: int) -> None:
    def many(session: Session) -> DecisionRun:
        work = UnitOfWork(session, manager.policy)
        work.absorb((yield work.need_for("pageReceived")))
        for _ in range(BATCH):
            work.fire(Firing(0, "pageReceived", '{"page":0}', 0))
        return work.done()

    for _ in range(size // BATCH):
        triggers.storage.commit(manager.uid, Decision("fire many", many))
    for _ in range(size % BATCH):
        manager.fire("pageReceived", {"page": 0})


def _forget_statistics(url: str) -> None:
    """Let the server never gather any by itself."""
    _for_each_table(url, "ALTER TABLE {} SET (autovacuum_enabled = false)")


def _analyze(url: str) -> None:
    _for_each_table(url, "ANALYZE {}")


def _for_each_table(url: str, statement: str) -> None:
    location, _, schema = url.partition("&schema=")
    with psycopg.connect(location, autocommit=True) as connection:
        asked = "SELECT format('%%I.%%I', schemaname, tablename) FROM pg_tables WHERE schemaname = %s"
        for (table,) in connection.execute(asked, (schema,)).fetchall():
            connection.execute(statement.format(table))
