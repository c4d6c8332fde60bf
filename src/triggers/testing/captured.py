"""Capture the log records of tasks in a test."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, overload

from triggers.logs.listeners import listen, unlisten

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggers.core.records import LogEntry
    from triggers.logs import LogIdentity


class CapturedLogs(Sequence["LogEntry"]):
    """The records of every task of this process, in the order in which they were logged.

    The sequence grows until its block ends. It also has the records that a storage would drop because an
    instance has too many.
    """

    def __init__(self) -> None:
        self._records: list[tuple[LogIdentity, LogEntry]] = []

    def add(self, identity: LogIdentity, entry: LogEntry) -> None:
        """Append a record of this instance."""
        self._records.append((identity, entry))

    @overload
    def __getitem__(self, index: int) -> LogEntry: ...
    @overload
    def __getitem__(self, index: slice) -> list[LogEntry]: ...
    def __getitem__(self, index: int | slice) -> LogEntry | list[LogEntry]:
        entries = [entry for _, entry in self._records]
        return entries[index]

    def __len__(self) -> int:
        return len(self._records)

    def __repr__(self) -> str:
        lines = [f"  {who.uid} {who.instance}: {entry.level} {entry.message}" for who, entry in self._records]
        return "\n".join([f"<{len(lines)} records", *lines, ">"])

    def of(self, instance: str, uid: str | None = None) -> list[LogEntry]:
        """Return the records of one instance, in every session or in the one with this UID."""
        return [
            entry
            for who, entry in self._records
            if who.instance == instance and (uid is None or who.uid == uid)
        ]

    @property
    def messages(self) -> list[str]:
        """The formatted messages of all records, in their order."""
        return [entry.message for entry in self]

    def at_least(self, level: int) -> list[LogEntry]:
        """Return the records at or above the level."""
        return [entry for entry in self if entry.level >= level]


@contextmanager
def captured_logs() -> Iterator[CapturedLogs]:
    """Collect the records that tasks of this process log within the block, on any thread.

    ``with captured_logs() as logs: manager.fire("begun")``, then ``logs.messages``. The records are also
    stored and handled as usual. Blocks may be nested; each collects all records.
    """
    captured = CapturedLogs()
    listen(captured.add)
    try:
        yield captured
    finally:
        unlisten(captured.add)
