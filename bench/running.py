"""Fire, run and finish instances of a task that does nothing, through the threads runner."""

from __future__ import annotations

import tempfile
import threading
import time
from typing import TYPE_CHECKING, Any

from triggers import Registry, Triggers, task

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    yield f"synchronous={setting}: part of the time that some commit was under way", commits() / seconds, ""


def _timed_commits(triggers: Triggers) -> Any:
    """Add up the time under the file's write lock: fire, claim and finish, from BEGIN to COMMIT."""
    storage: Any = triggers.storage
    original, lock, spent = storage._decide, threading.Lock(), [0.0]

    def decide(*given: Any) -> Any:
        before = time.perf_counter()
        try:
            return original(*given)
        finally:
            with lock:
                spent[0] += time.perf_counter() - before

    storage._decide = decide
    return lambda: spent[0]
