"""The survey's own table, in a file of its own: what the tasks found, one row for each piece of work."""

from __future__ import annotations

import json
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from triggers.storages.sqlite_file import is_safe, load_driver

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

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


class OtherSurveyError(ValueError):
    """The files hold a survey that was made up from another seed."""


class Results:
    """The table, to be used from any thread or process.

    Args:
        file: where it is; it must have been made by :meth:`prepare` before anything else is done with it.
    """

    def __init__(self, file: str | Path) -> None:
        self._file = file

    def prepare(self, seed: int) -> None:
        """Make the table if there is none.

        Raises:
            OtherSurveyError: it holds the results of another seed.
        """
        with self._connection() as connection:
            # WAL is only for versions of SQLite that cannot damage such a file.
            connection.execute(f"PRAGMA journal_mode = {'WAL' if is_safe(_driver.sqlite_version_info) else 'DELETE'}")
            for statement in _TABLES.split(";"):
                connection.execute(statement)
            connection.execute("INSERT INTO survey VALUES (1, ?) ON CONFLICT DO NOTHING", (seed,))
            (known,) = connection.execute("SELECT seed FROM survey").fetchone()
        if known != seed:
            message = f"{self._file} holds the survey of seed {known}, not {seed}: use that seed, or another folder"
            raise OtherSurveyError(message)

    def put(self, key: str, respondent: str, task: str, found: Mapping[str, Any]) -> None:
        """Keep what was found; what was kept under the same key is replaced."""
        row = (key, respondent, task, json.dumps(found, sort_keys=True))
        with self._connection() as connection:
            connection.execute("INSERT OR REPLACE INTO result VALUES (?, ?, ?, ?)", row)

    def rows(self, task: str | None = None) -> list[tuple[str, str, str, dict[str, Any]]]:
        """Key, respondent, task and what was found, in the order of the keys; of one task or of all."""
        query = "SELECT key, respondent, task, found FROM result WHERE ?1 IS NULL OR task = ?1 ORDER BY key"
        with self._connection() as connection:
            found = connection.execute(query, (task,)).fetchall()
        return [(key, respondent, of, json.loads(text)) for key, respondent, of, text in found]

    @contextmanager
    def _connection(self) -> Iterator[Any]:
        """A connection for one moment, each statement a transaction of its own: safe in any thread."""
        opened = _driver.connect(str(self._file), timeout=BUSY_TIMEOUT, isolation_level=None)
        with closing(opened) as connection:
            connection.execute("PRAGMA synchronous = NORMAL")
            yield connection
