"""The survey's own table, in a file of its own: what the tasks found, one row for each piece of work."""

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
    key        TEXT PRIMARY KEY, -- names the piece of work, over all attempts
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
    """The files hold a survey that was made up from another seed."""


class Results:
    """The table, on one connection that the threads of a process take turns to use.

    Args:
        file: where it is; it must have been made by :meth:`prepare` before anything else is done with it.
    """

    def __init__(self, file: str) -> None:
        self._file = file
        self._lock = threading.Lock()
        self._connection: Any = None

    def prepare(self, seed: int) -> None:
        """Make the table if there is none.

        Raises:
            OtherSurveyError: it holds the results of another seed.
        """
        for statement in _TABLES.split(";"):
            self._run(statement)
        self._run("INSERT INTO survey VALUES (1, ?) ON CONFLICT DO NOTHING", seed)
        ((known,),) = self._run("SELECT seed FROM survey")
        if known != seed:
            message = (
                f"{self._file} holds the survey of seed {known}, not {seed}: use that one, or other files"
            )
            raise OtherSurveyError(message)

    def put(self, key: str, respondent: str, task: str, found: Mapping[str, Any]) -> None:
        """Keep what was found; what was kept under the same key is replaced."""
        row = (key, respondent, task, json.dumps(found, sort_keys=True))
        self._run("INSERT OR REPLACE INTO result VALUES (?, ?, ?, ?)", *row)

    def rows(self, task: str | None = None) -> list[tuple[str, str, str, dict[str, Any]]]:
        """Key, respondent, task and what was found, in the order of the keys; of one task or of all."""
        query = "SELECT key, respondent, task, found FROM result WHERE ?1 IS NULL OR task = ?1 ORDER BY key"
        return [(*names, json.loads(found)) for *names, found in self._run(query, task)]

    def count(self) -> int:
        """How many rows there are."""
        ((rows,),) = self._run("SELECT count(*) FROM result")
        return int(rows)

    def close(self) -> None:
        """Close the connection; a later call opens it again."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
            self._connection = None

    def _run(self, statement: str, *given: Any) -> list[tuple[Any, ...]]:
        """Run one statement, which is a transaction of its own.

        Raises:
            StorageError: it could not be run; nothing was changed.
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
    """The table in that file, always the same object in one process."""
    return Results(file)


def _connect(file: str) -> Any:
    connection = _driver.connect(file, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False)
    if is_safe(_driver.sqlite_version_info):  # others can damage a file in this mode
        connection.execute("PRAGMA journal_mode = WAL")
    return connection
