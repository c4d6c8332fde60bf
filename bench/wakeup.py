"""How long it takes from a firing in a process without a runner until its task starts in another process.

A worker process sweeps once an hour, so each start is due to an announcement. Both processes read the same
clock. More figures say what that costs: how much more time of the processor a firing takes, in a process that
fires all the time and in one that fires now and then; and what an idle worker takes that listens, compared
with one that only sweeps.
"""

from __future__ import annotations

import multiprocessing
import statistics
import tempfile
import time
import warnings
from contextlib import contextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from triggers import Registry, Triggers
from triggers.storages.announcements import SILENCE
from triggers.storages.memory import MemoryStorage
from triggers.task import task
from triggers.testing.servers import PostgresServer, RedisCluster, RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from triggers import TaskContext, TriggerManager
    from triggers.storages.base import Storage

CONFIGURATION = {"t_note": {"andEvery": "go", "run": "bench.Note"}}

#: The goal for the median, in milliseconds.
GOAL = 50

#: Single firings, and bursts of so many firings.
SINGLES, BURSTS, BURST = 100, 20, 10

#: The pause before each of them, in seconds.
PAUSE = 0.1

#: Firings of one round, and rounds, for the price of a firing.
FIRINGS, ROUNDS = 50, 60

#: How long an idle worker is observed, in seconds.
IDLE = 10.0

registry = Registry()
starts: Any = None


@task(name="bench.Note", registry=registry)
def note(context: TaskContext) -> None:
    """Tell when it started, and for which firing."""
    now = time.time()
    starts.put((context.trigger_kwargs["go"]["n"], now))


def run() -> Iterator[tuple[str, float, str]]:
    """Measure on every storage."""
    warnings.filterwarnings("ignore", ".*(fsync=off|can lose data).*")
    yield from _memory()
    with tempfile.TemporaryDirectory() as folder:
        yield from _shared("SQLite", f"sqlite:///{folder}/a.db")
    for name, server in (
        ("PostgreSQL", PostgresServer(private=True)),
        ("Valkey", RedisServer(kind="valkey", private=True)),
        ("Valkey cluster", RedisCluster(kind="valkey")),
    ):
        with server:
            yield from _shared(name, server.url)


def _memory() -> Iterator[tuple[str, float, str]]:
    """One process has both applications: nothing else can share its memory."""
    global starts  # noqa: PLW0603 - what a task of this process tells
    starts = multiprocessing.get_context("spawn").Queue()
    storage = MemoryStorage()
    with Triggers(storage, registry=registry, sweep_interval=timedelta(hours=1)):
        yield from _latencies("memory", storage)


def _shared(name: str, url: str) -> Iterator[tuple[str, float, str]]:
    with _worker(url, listens=True) as seconds:
        yield from _latencies(name, url)
        listening = seconds(IDLE)
    with _worker(url, listens=False) as seconds:
        only_sweeping = seconds(IDLE)
    yield f"{name}: an idle worker that listens", 100 * listening / IDLE, "% of a processor"
    yield f"{name}: an idle worker that only sweeps", 100 * only_sweeping / IDLE, "% of a processor"
    yield from _price(name, url)


def _latencies(name: str, storage: str | Storage) -> Iterator[tuple[str, float, str]]:
    web = Triggers(storage, runner=None)
    manager = web.session("respondent")
    manager.update_configuration(CONFIGURATION)
    _fire(manager, 5)  # the worker has begun to listen
    singles = [_fire(manager, 1)[0] for _ in range(SINGLES)]
    bursts = [each for _ in range(BURSTS) for each in _fire(manager, BURST)]
    for what, found in ((f"{SINGLES} single firings", singles), (f"{BURSTS} bursts of {BURST}", bursts)):
        found.sort()
        yield f"{name}: {what}, median until the start", statistics.median(found), f"ms, at most {GOAL}"
        yield f"{name}: {what}, of 20 the slowest", found[len(found) * 19 // 20], "ms"
    web.close()


def _fire(manager: TriggerManager, count: int) -> list[float]:
    """Fire that often in a row; return the times until the tasks have started, in milliseconds."""
    time.sleep(PAUSE)
    fired = {}
    for n in range(count):
        fired[n] = time.time()
        manager.fire("go", {"n": n})
    started = dict(starts.get(timeout=60) for _ in range(count))
    return [1000 * (started[n] - fired[n]) for n in range(count)]


@contextmanager
def _worker(url: str, *, listens: bool) -> Iterator[Callable[[float], float]]:
    """A worker process. The function tells how much of the processor it takes in that time, in seconds."""
    global starts
    context = multiprocessing.get_context("spawn")
    starts, asked, told = context.Queue(), context.SimpleQueue(), context.SimpleQueue()
    process = context.Process(target=_work, args=(url, starts, asked, told, listens))
    process.start()
    told.get()

    def seconds(length: float) -> float:
        asked.put(length)
        found: float = told.get()
        return found

    try:
        yield seconds
    finally:
        asked.put(None)
        process.join()


def _work(url: str, queue: Any, asked: Any, told: Any, listens: bool) -> None:  # noqa: FBT001 - of a process
    global starts  # noqa: PLW0603 - what its tasks tell
    starts = queue
    warnings.simplefilter("ignore")
    triggers = Triggers(url, registry=registry)
    storage = triggers.storage if listens else _without_announcements(triggers.storage)
    hour = timedelta(hours=1) if listens else timedelta(seconds=5)
    with Triggers(storage, registry=registry, sweep_interval=hour):
        told.put(None)
        while (length := asked.get()) is not None:
            time.sleep(1)
            before = time.process_time()
            time.sleep(length)
            told.put(time.process_time() - before)


class _Silent:
    """A storage without its announcements."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage

    def __getattr__(self, name: str) -> Any:
        if name in {"announce", "listen"}:
            raise AttributeError(name)
        return getattr(self._storage, name)


def _without_announcements(storage: Storage) -> Storage:
    silent: Any = _Silent(storage)
    return silent  # type: ignore[no-any-return]


def _price(name: str, url: str) -> Iterator[tuple[str, float, str]]:
    """The processor's time of a firing, with announcements and without, in turns."""
    storage = Triggers(url, runner=None).storage
    managers = {}
    for kind, used in (("with", storage), ("without", _without_announcements(storage))):
        managers[kind] = Triggers(used, runner=None).session(f"priced {kind}")
        managers[kind].update_configuration(CONFIGURATION)
        managers[kind].fire("go", {"n": 0})
    yield f"{name}: firing all the time, with announcements", _rise(managers, FIRINGS), "% more, at most 3"
    yield f"{name}: firing now and then, with announcements", _rise(managers, 1), "% more"
    storage.close()


def _rise(managers: dict[str, TriggerManager], firings: int) -> float:
    """How much more time of the processor so many firings in a row take with announcements, in percent."""
    times: dict[str, list[float]] = {kind: [] for kind in managers}
    for _ in range(ROUNDS):
        for kind, manager in managers.items():
            time.sleep(SILENCE)
            before = time.process_time()
            for n in range(firings):
                manager.fire("go", {"n": n})
            times[kind].append(time.process_time() - before)
    medians = {kind: statistics.median(found) for kind, found in times.items()}
    return 100 * (medians["with"] / medians["without"] - 1)


if __name__ == "__main__":
    for row in run():
        print(*row)
