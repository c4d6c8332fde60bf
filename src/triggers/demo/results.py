"""The table of results, in a SQLite file of its own: one row for each instance, over all its attempts."""

from __future__ import annotations

import json
import threading
from functools import cache
from typing import TYPE_CHECKING, Any

from triggers.exceptions import StorageError, TriggersError
from triggers.storages.sqlite.url import is_safe, load_driver

if TYPE_CHECKING:
    from collections.abc import Mapping

#: How long a writer waits for others, in seconds.
BUSY_TIMEOUT = 30.0

_driver = load_driver("auto")

_TABLES = """
CREATE TABLE IF NOT EXISTS result (
    key        TEXT PRIMARY KEY, -- the idempotency key of the instance
    respondent TEXT NOT NULL,
    task       TEXT NOT NULL,
    found      TEXT NOT NULL     -- JSON
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS survey (
    only INTEGER PRIMARY KEY CHECK (only = 1),
    seed INTEGER NOT NULL
)
"""


class OtherSurveyError(TriggersError, ValueError):
    """The files contain a survey with another seed."""


class Results:
    """The table of results, on one connection that the threads of a process share.

    Args:
        file: the path of the file; call :meth:`prepare` before any other method.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._connection: Any = None

    def prepare(self, seed: int) -> None:
        """Create the table if it does not exist.

        Raises:
            OtherSurveyError: it has the results of another seed.
        """
        for statement in _TABLES.split(";"):
            self._run(statement)
        self._run("INSERT INTO survey VALUES (1, ?) ON CONFLICT DO NOTHING", seed)
        ((known,),) = self._run("SELECT seed FROM survey")
        if known != seed:
            message = (
                f"{self._file} has the survey with seed {known}, not {seed}: use that seed, or other files"
            )
            raise OtherSurveyError(message)

    def put(self, key: str, respondent: str, task: str, found: Mapping[str, Any]) -> None:
        """Store the result of a task; a result with the same key is replaced."""
        row = (key, respondent, task, json.dumps(found, sort_keys=True))
        self._run("INSERT OR REPLACE INTO result VALUES (?, ?, ?, ?)", *row)

    def rows(self, task: str | None = None) -> list[tuple[str, str, str, dict[str, Any]]]:
        """Return key, respondent, task and result of each row, ordered by key; of one task or of all."""
        query = "SELECT key, respondent, task, found FROM result WHERE ?1 IS NULL OR task = ?1 ORDER BY key"
        return [(*names, json.loads(found)) for *names, found in self._run(query, task)]

    def count(self) -> int:
        """Return the number of results in the table."""
        ((rows,),) = self._run("SELECT count(*) FROM result")
        return int(rows)

    def close(self) -> None:
        """Close the connection; a later call opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _run(self, statement: str, *given: Any) -> list[tuple[Any, ...]]:
        """Run one statement in a transaction of its own.

        Raises:
            StorageError: it failed; nothing was changed.
        """
        with self._lock:
            try:
                if self._connection is None:
                    self._connection = _connect(self._file)
                rows: list[tuple[Any, ...]] = self._connection.execute(statement, given).fetchall()
            except _driver.Error as error:
                message = f"{self._file}: {error}"
                raise StorageError(message) from error
            return rows


@cache
def results_in(file: str) -> Results:
    """Return the table in that file; a process has one object for each file."""
    return Results(file)


def _connect(file: str) -> Any:
    connection = _driver.connect(file, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    if is_safe(_driver.sqlite_version_info):  # other versions can damage a file in this mode
        connection.execute("PRAGMA journal_mode = WAL")
    return connection
