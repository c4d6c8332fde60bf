"""End to end through a Celery worker on Redis: instances that do nothing, against bare Celery tasks.

Both on the same worker, in turns, from the first call to the last end; `celery -A bench.celery_bench worker`.
Besides the rates, which hang on the number of processors and on what else the machine does, the time that all
processes together (this one, the worker, the server) spend on one: what the rates of a busy machine come to.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import redis
from celery import Celery

from triggers import Registry, Triggers, task
from triggers.runners.celery import CeleryRunner
from triggers.testing.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from triggers import TaskContext

TASKS = 1_000
ROUNDS = 3
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
        with _worker(broker, storage, Path(folder)) as worker:
            client, here = make(broker, storage)
            queue = redis.Redis.from_url(broker)
            processes = [os.getpid(), int(queue.info("server")["process_id"]), worker]
            _ours(here, "warm", 1, 200)
            found: dict[str, list[tuple[float, float]]] = {"raw": [], "one": [], "many": []}
            for number in range(ROUNDS):
                parts = {
                    "raw": partial(_raw, client, queue),
                    "one": partial(_ours, here, f"one{number}", 1, TASKS),
                    "many": partial(_ours, here, f"many{number}", SESSIONS, TASKS),
                }
                for name, part in parts.items():
                    found[name].append(_with_effort(part, processes))
            here.close(1)
    yield from _figures(
        {name: max(rate for rate, _ in each) for name, each in found.items()},
        {name: min(effort for _, effort in each) for name, each in found.items()},
    )


def _figures(rates: dict[str, float], efforts: dict[str, float]) -> Iterator[tuple[str, float, str]]:
    names = {"raw": "raw Celery tasks", "one": "one session", "many": f"{SESSIONS} sessions"}
    for key, name in names.items():
        yield name, rates[key], "1/s"
    yield "one session to raw", rates["one"] / rates["raw"], "at least 0.6"
    yield f"{SESSIONS} sessions to raw", rates["many"] / rates["raw"], "at least 0.6"
    yield f"one session to {SESSIONS} sessions", rates["one"] / rates["many"], "about 1"
    for key, name in names.items():
        yield f"processor time, all processes: {name}", efforts[key] * 1e6, "µs"
    yield "processor time of raw to that of one session", efforts["raw"] / efforts["one"], ""


def _with_effort(part: Callable[[], float], processes: list[int]) -> tuple[float, float]:
    """The rate of a part, and the processor time that one of it takes, in seconds."""
    before = sum(map(_processor_time, processes))
    rate = part()
    return rate, (sum(map(_processor_time, processes)) - before) / TASKS


def _processor_time(process: int) -> float:
    """What a process and its children have used so far, in seconds; 0 where this cannot be found out."""
    try:
        threads = list(Path(f"/proc/{process}/task").iterdir())
        own = sum(int((thread / "schedstat").read_text().split()[0]) for thread in threads) / 1e9
        children = [int(child) for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return 0.0
    return own + (0.0 if process == os.getpid() else sum(map(_processor_time, children)))


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
def _worker(broker: str, storage: str, folder: Path) -> Iterator[int]:
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
        yield process.pid
    finally:
        process.terminate()
        process.wait(30)
