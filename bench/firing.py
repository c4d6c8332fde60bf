"""One firing that schedules one instance on SQLite, beside the same statements alone and beside a bare loop.

*The very same statements* are recorded from a firing of the library and run again, with the numbers that
change, on a connection of their own. *The bare loop* is ``BEGIN IMMEDIATE; SELECT; INSERT; UPDATE;
COMMIT`` on two small tables: the least that any durable log could do.
"""

from __future__ import annotations

import itertools
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.rounds import in_turns
from triggers import Triggers
from triggers.storages.sqlite.file import SqliteFile
from triggers.storages.sqlite.url import SqliteUrl, load_driver

if TYPE_CHECKING:
    from collections.abc import Callable

    from triggers.storages.sqlite.transaction import Link

CONFIGURATION = {"t_import": {"after": ["ready"], "andEvery": "pageReceived", "run": "bench.NoOp"}}
KWARGS = {"responses": {"age": 36, "educ": 3, "income": 1}}

#: Firings of one round, and rounds.
FIRINGS, ROUNDS = 5, 600


def run() -> list[tuple[str, float, str]]:
    """Measure with both settings of synchronous."""
    return [figure for setting in ("normal", "full") for figure in _measure(setting)]


def _measure(setting: str) -> list[tuple[str, float, str]]:
    with tempfile.TemporaryDirectory() as folder:
        parts = {
            "library": _library(folder, setting),
            "same statements": _same_statements(folder, setting),
            "bare": _bare(folder, setting),
        }
        times = in_turns(parts, ROUNDS)
    library = times["library"]
    target = {"normal": 0.15, "full": 0.45}[setting]
    return [
        (f"synchronous={setting}: firings per second", FIRINGS / library, "1/s"),
        (f"synchronous={setting}: bare transactions per second", FIRINGS / times["bare"], "1/s"),
        (
            f"synchronous={setting}: rate to the same statements",
            times["same statements"] / library,
            "at least 0.6",
        ),
        (f"synchronous={setting}: rate to the bare loop", times["bare"] / library, f"at least {target}"),
    ]


def _session(folder: str, name: str, setting: str) -> tuple[Triggers, Any]:
    triggers = Triggers(f"sqlite:///{folder}/{name}.db?synchronous={setting}", runner=None)
    manager = triggers.session("respondent-17")
    manager.update_configuration(CONFIGURATION)
    manager.fire("ready")
    manager.fire("pageReceived", KWARGS)
    return triggers, manager


def _library(folder: str, setting: str) -> Callable[[], None]:
    _, manager = _session(folder, "library", setting)

    def fire() -> None:
        for _ in range(FIRINGS):
            manager.fire("pageReceived", KWARGS)

    return fire


def _same_statements(folder: str, setting: str) -> Callable[[], None]:
    """Two firings are recorded: what differs between them grows by one each time, what does not stays."""
    triggers, manager = _session(folder, "same", setting)
    recorded = []
    for _ in range(2):
        trace: list[tuple[str, tuple[Any, ...]]] = []
        _record(triggers, trace)
        manager.fire("pageReceived", KWARGS)
        recorded.append(trace)
    connection = _connect(f"{folder}/same.db", setting)
    steps = [(one[0], _growing(one[1], two[1])) for one, two in zip(*recorded, strict=True)]
    count = itertools.count(3)

    def loop() -> None:
        execute = connection.execute
        for _ in range(FIRINGS):
            number = next(count)
            for statement, given in steps:
                cursor = execute(statement, given(number))
                if statement.startswith("SELECT"):
                    cursor.fetchall()

    return loop


def _record(triggers: Triggers, trace: list[tuple[str, tuple[Any, ...]]]) -> None:
    """Let the connection write down what it runs."""
    file: SqliteFile = triggers.storage._file  # type: ignore[attr-defined]
    (link,) = file._pool.connections
    while isinstance(link.connection, _Recorder):
        link.connection = link.connection.connection
    link.connection = _Recorder(link.connection, trace)


class _Recorder:
    def __init__(self, connection: Any, trace: list[tuple[str, tuple[Any, ...]]]) -> None:
        self.connection = connection
        self.trace = trace

    def execute(self, statement: str, given: tuple[Any, ...] = ()) -> Any:
        self.trace.append((statement, given))
        return self.connection.execute(statement, given)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.connection, name)


def _growing(one: tuple[Any, ...], two: tuple[Any, ...]) -> Callable[[int], tuple[Any, ...]]:
    places = [place for place, (first, second) in enumerate(zip(one, two, strict=True)) if first != second]
    numbers = [place for place in places if isinstance(one[place], int)]

    def given(number: int) -> tuple[Any, ...]:
        values = list(two)
        for place in numbers:
            values[place] = two[place] + number
        return tuple(values)

    return given if numbers else lambda _: two


def _bare(folder: str, setting: str) -> Callable[[], None]:
    connection = _connect(f"{folder}/bare.db", setting)
    connection.execute("CREATE TABLE head (id INTEGER PRIMARY KEY, count INTEGER NOT NULL)")
    connection.execute(
        "CREATE TABLE log (id INTEGER PRIMARY KEY, number INTEGER NOT NULL, payload TEXT NOT NULL)"
    )
    connection.execute("INSERT INTO head VALUES (1, 0)")

    def loop() -> None:
        execute = connection.execute
        for _ in range(FIRINGS):
            execute("BEGIN IMMEDIATE")
            count = execute("SELECT count FROM head WHERE id = ?", (1,)).fetchone()[0] + 1
            execute("INSERT INTO log (number, payload) VALUES (?, ?)", (count, '{"responses":{"age":36}}'))
            execute("UPDATE head SET count = ? WHERE id = ?", (count, 1))
            execute("COMMIT")

    return loop


def _connect(path: str, setting: str) -> Any:
    file = SqliteFile("", SqliteUrl(path, synchronous=setting), load_driver("auto"))
    Path(path).touch()
    opened: list[Link] = []
    file._open(time.monotonic() + 5, opened.append)
    return opened[0].connection
