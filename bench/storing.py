"""Storing records in batches of 64, as a running task does: time and bytes for each, on every storage."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from bench.rounds import in_turns
from triggers.core import decisions
from triggers.core.configuration import check_configuration
from triggers.core.records import LogBatch, LogEntry
from triggers.core.state import Firing
from triggers.storages.memory import MemoryStorage
from triggers.storages.sqlite import SqliteStorage

if TYPE_CHECKING:
    from collections.abc import Callable

    from triggers.storages.base import Storage

CONFIGURATION = {"t_import": {"after": ["ready"], "run": "bench.NoOp"}}
CONTEXT = {"app_version": "3.1.4", "survey": 96, "page": 3, "field": "givenNames"}
POLICY = decisions.Policy()

BATCH, BATCHES, ROUNDS = 64, 5, 40


def run() -> list[tuple[str, float, str]]:
    """Measure the storages in turns, then the size of the file."""
    with tempfile.TemporaryDirectory() as folder:
        normal, full = f"sqlite:///{folder}/normal.db?synchronous=normal", f"sqlite:///{folder}/full.db"
        storages: dict[str, Storage] = {
            "memory": MemoryStorage(),
            "sqlite, synchronous=normal": SqliteStorage(normal),
            "sqlite, synchronous=full": SqliteStorage(full),
        }
        times = in_turns({name: _write(storage) for name, storage in storages.items()}, ROUNDS)
        for storage in storages.values():
            storage.close()
        stored = ROUNDS * BATCHES * BATCH
        size = Path(folder, "normal.db").stat().st_size / stored
    target = {"sqlite, synchronous=normal": "µs, at most 5"}
    figures = [
        (f"{name}: one record", seconds / BATCHES / BATCH * 1e6, target.get(name, "µs"))
        for name, seconds in times.items()
    ]
    figures += [(f"{name}: records", BATCHES * BATCH / seconds, "1/s") for name, seconds in times.items()]
    return [*figures, ("sqlite: one record takes", size, "bytes, its indexes included")]


def _write(storage: Storage) -> Callable[[], None]:
    rules = check_configuration(CONFIGURATION)
    firing = Firing(0, "ready", "{}", 0)
    storage.commit("respondent-17", decisions.configure(POLICY, rules))
    storage.commit("respondent-17", decisions.fire(POLICY, firing))
    terms = decisions.Terms(3_600_000_000)
    storage.commit("respondent-17", decisions.claim(POLICY, "t_import", 0, "bench", lambda *_: terms))
    entries = [_entry(number) for number in range(BATCH)]
    attempt = decisions.AttemptReport("t_import", 0, 1, logs=LogBatch(entries, {20: BATCH}, 0))

    def write() -> None:
        for _ in range(BATCHES):
            storage.commit("respondent-17", decisions.keep_logs(POLICY, attempt))

    return write


def _entry(number: int) -> LogEntry:
    place = ("/srv/survey/tasks.py", 42, "_run")
    message = "Missing givenNames in response data."
    return LogEntry(
        number, 1_790_000_000_000_000, 20, "survey.tasks", message, "Missing %s", CONTEXT, None, *place
    )
