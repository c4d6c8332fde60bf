"""End to end through a Celery worker on Redis: instances that do nothing, against bare Celery tasks.

Both on the same worker, in turns, from the first call to the last end; `celery -A bench.celery_bench worker`.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import redis
from celery import Celery

from triggers import Registry, Triggers, task
from triggers.runners.celery import CeleryRunner
from triggers.testing.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggers import TaskContext

TASKS = 400
ROUNDS = 2
SESSIONS = 30
CONFIGURATION = {"t_import": {"after": ["ready"], "andEvery": "pageReceived", "run": "bench.NoOp"}}

#: Which broker and storage a worker is for.
BROKER, STORAGE = "TRIGGERS_BENCH_BROKER", "TRIGGERS_BENCH_STORAGE"

registry = Registry()


@task(name="bench.NoOp", registry=registry)
def no_op(context: TaskContext) -> None:
    """Do nothing."""
    del context


def make(broker: str, storage: str) -> tuple[Celery, Triggers]:
    """The two applications, on both sides; the raw task is `bench.raw`."""
    app = Celery("bench", broker=broker, set_as_current=False)
    app.conf.update(worker_log_color=False, broker_connection_retry_on_startup=True)
    app.task(name="bench.raw", ignore_result=True, shared=False)(raw)
    return app, Triggers(storage, runner=CeleryRunner(app), registry=registry)


def raw() -> None:
    """Do nothing."""


if BROKER in os.environ:
    app, triggers = make(os.environ[BROKER], os.environ[STORAGE])


def run() -> Iterator[tuple[str, float, str]]:
    """Measure in turns, and give the best of each."""
    with RedisServer(private=True) as server, tempfile.TemporaryDirectory() as folder:
        broker, storage = server.url, f"{server.url.rpartition('/')[0]}/1"
        with _worker(broker, storage, Path(folder)):
            client, here = make(broker, storage)
            queue = redis.Redis.from_url(broker)
            found: dict[str, list[float]] = {"raw": [], "one": [], "many": []}
            _ours(here, "warm", 1, 200)
            for number in range(ROUNDS):
                found["raw"].append(_raw(client, queue))
                found["one"].append(_ours(here, f"one{number}", 1, TASKS))
                found["many"].append(_ours(here, f"many{number}", SESSIONS, TASKS))
            here.close(1)
    best = {name: max(rates) for name, rates in found.items()}
    yield "raw Celery tasks", best["raw"], "1/s"
    yield "fired, run and finished, one session", best["one"], "1/s"
    yield f"fired, run and finished, {SESSIONS} sessions", best["many"], "1/s"
    yield "one session to raw", best["one"] / best["raw"], "asked: at least 0.6"
    yield f"one session to {SESSIONS} sessions", best["one"] / best["many"], "asked: about 1"


def _raw(client: Celery, queue: redis.Redis) -> float:
    sent = client.tasks["bench.raw"]
    before = time.perf_counter()
    for _ in range(TASKS):
        sent.apply_async()
    while queue.llen("celery") or queue.hlen("unacked"):
        time.sleep(0.005)
    return TASKS / (time.perf_counter() - before)


def _ours(here: Triggers, name: str, sessions: int, count: int) -> float:
    managers = [here.session(f"{name}-{number}") for number in range(sessions)]
    for manager in managers:
        manager.update_configuration(CONFIGURATION)
        manager.fire("ready")
    before = time.perf_counter()
    for number in range(count):
        managers[number % sessions].fire("pageReceived", {"page": number})
    while any(here.storage.reader.counters(one.uid)["t_import"].unresolved for one in managers):
        time.sleep(0.005)
    return count / (time.perf_counter() - before)


@contextmanager
def _worker(broker: str, storage: str, folder: Path) -> Iterator[None]:
    command = [sys.executable, "-m", "celery", "-A", "bench.celery_bench", "worker", "--loglevel=WARNING"]
    command += [
        f"--concurrency={os.cpu_count()}",
        "--without-gossip",
        "--without-mingle",
        "--without-heartbeat",
    ]
    environment = {**os.environ, BROKER: broker, STORAGE: storage}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        yield
    finally:
        process.terminate()
        process.wait(30)
