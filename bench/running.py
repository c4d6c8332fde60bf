"""Fire, run and finish instances of a task that does nothing, through the threads runner."""

from __future__ import annotations

import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any

from triggers import Registry, Triggers, task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from triggers import TaskContext

CONFIGURATION = {"t_import": {"after": ["ready"], "andEvery": "pageReceived", "run": "bench.NoOp"}}
INSTANCES = 3_000

registry = Registry()


@task(name="bench.NoOp", registry=registry)
def no_op(context: TaskContext) -> None:
    """Do nothing."""
    del context


def run() -> list[tuple[str, float, str]]:
    """Measure with both settings of synchronous."""
    return [figure for setting in ("normal", "full") for figure in _measure(setting)]


def _measure(setting: str) -> Iterator[tuple[str, float, str]]:
    with tempfile.TemporaryDirectory() as folder:
        url = f"sqlite:///{folder}/running.db?synchronous={setting}"
        with Triggers(url, registry=registry) as triggers:
            commits = _timed_commits(triggers)
            manager = triggers.session("respondent-17")
            manager.update_configuration(CONFIGURATION)
            manager.fire("ready")
            before = time.perf_counter()
            for number in range(INSTANCES):
                manager.fire("pageReceived", {"page": number})
            triggers.join()
            seconds = time.perf_counter() - before
            finished = triggers.storage.reader.counters("respondent-17")["t_import"]
    if finished.created != INSTANCES or finished.unresolved:
        message = f"not all have finished: {finished}"
        raise AssertionError(message)
    yield f"synchronous={setting}: fired, run and finished", INSTANCES / seconds, "1/s"
    yield f"synchronous={setting}: part of the time spent in the three commits", commits() / seconds, ""


def _timed_commits(triggers: Triggers) -> Callable[[], float]:
    """Add up the time from each BEGIN IMMEDIATE to the end of its COMMIT: fire, claim and finish."""
    file: Any = triggers.storage._file  # type: ignore[attr-defined]
    lock, spent, open_connection = threading.Lock(), [0.0], file._open

    def add(seconds: float) -> None:
        with lock:
            spent[0] += seconds

    def open_timed(until: float, keep: Callable[[Any], None]) -> None:
        opened: list[Any] = []

        def keep_both(link: Any) -> None:
            opened.append(link)
            keep(link)

        open_connection(until, keep_both)
        opened[0].connection = _Timed(opened[0].connection, add)

    file._open = open_timed
    file.close()  # so that every connection is a timed one
    return lambda: spent[0]


class _Timed:
    """A connection that tells how long each transaction took."""

    def __init__(self, connection: Any, add: Callable[[float], None]) -> None:
        self._connection = connection
        self._add = add
        self._began = 0.0

    def execute(self, statement: str, given: tuple[Any, ...] = ()) -> Any:
        cursor = self._connection.execute(statement, given)
        if statement == "BEGIN IMMEDIATE":
            self._began = time.perf_counter()
        elif statement == "COMMIT":
            self._add(time.perf_counter() - self._began)
        return cursor

    def __getattr__(self, name: str) -> Any:
        return getattr(self._connection, name)
