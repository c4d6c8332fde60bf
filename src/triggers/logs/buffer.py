"""Which records of an attempt are stored: the first, the latest, and the important ones."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from triggers.core.records import LogBatch, LogEntry
from triggers.logs.settings import ATTENTION

if TYPE_CHECKING:
    from triggers.logs.settings import LogSettings

#: A waiting record: its size in bytes, and the record.
Row = tuple[int, LogEntry]
#: Records after the end of an attempt that are stored, however many were stored before.
MAX_LATE = 100


class RecordBuffer:
    """Waiting records of one attempt, and their counts by level; the owner holds a lock around every call.

    Half of the capacity is for important records, those at WARNING or above. A quarter is for the first of
    the other records, a quarter for the latest. Important and first records can be written at once; the
    latest ones are only known at the end.
    """

    __slots__ = (
        "_bytes",
        "_first_left",
        "_important_left",
        "_late_left",
        "_latest",
        "_latest_bytes",
        "_latest_capacity",
        "counts",
        "dropped",
        "ready",
        "ready_bytes",
        "ready_since",
    )

    def __init__(self, settings: LogSettings) -> None:
        important = min(settings.max_important, settings.max_records)
        others = settings.max_records - important
        # Each share is [records, bytes] that are left.
        self._important_left = [important, settings.max_bytes // 2]
        self._first_left = [others - others // 2, settings.max_bytes // 4]
        self._latest_capacity = (others // 2, settings.max_bytes // 4)
        self._late_left = [MAX_LATE, settings.max_bytes // 4]
        self._latest: deque[Row] = deque()
        self._latest_bytes = 0
        #: Rows that may be written now.
        self.ready: list[Row] = []
        self.ready_bytes: int = 0
        self.ready_since: int = 0
        self.counts: dict[int, int] = {}
        self.dropped: int = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be written."""
        return not (self.ready or self._latest or self.counts or self.dropped)

    @property
    def is_counting(self) -> bool:
        """Whether records have come since the last batch. The latest ones may wait longer than that."""
        return bool(self.counts)

    def add(self, entry: LogEntry, size: int, *, late: bool) -> None:
        """Count a record, and store it if its share has capacity; `late` means after the end of the attempt.

        A record that does not count towards the level is counted under level 0, and never as an important
        one.
        """
        level = entry.level if entry.counts else 0
        self.counts[level] = self.counts.get(level, 0) + 1
        left = self._late_left if late else self._important_left if level >= ATTENTION else self._first_left
        if left[0] > 0 and left[1] >= size:
            left[0] -= 1
            left[1] -= size
            if not self.ready:
                self.ready_since = entry.at
            self.ready.append((size, entry))
            self.ready_bytes += size
        elif late:
            self.dropped += 1
        else:
            if left is self._first_left:
                # A smaller record that comes later is not among the first.
                left[0] = 0
            self._add_latest((size, entry))

    def _add_latest(self, row: Row) -> None:
        most, most_bytes = self._latest_capacity
        self._latest.append(row)
        self._latest_bytes += row[0]
        while len(self._latest) > most or self._latest_bytes > most_bytes:
            self._latest_bytes -= self._latest.popleft()[0]
            self.dropped += 1

    def take(self, *, everything: bool) -> tuple[LogBatch, list[Row]]:
        """Remove and return what must be written; the second part is for :meth:`put_back`."""
        rows = self.ready
        if everything and self._latest:
            rows = sorted([*rows, *self._latest], key=_number)
            self._latest.clear()
            self._latest_bytes = 0
        batch = LogBatch([entry for _, entry in rows], self.counts, self.dropped)
        self.ready, self.ready_bytes, self.counts, self.dropped = [], 0, {}, 0
        return batch, rows

    def put_back(self, batch: LogBatch, rows: list[Row]) -> None:
        """Put back what could not be written, before the records that came since."""
        self.ready = [*rows, *self.ready]
        self.ready_bytes += sum(row[0] for row in rows)
        self.ready_since = self.ready[0][1].at if self.ready else 0
        self.dropped += batch.dropped
        for level, count in batch.counts.items():
            self.counts[level] = self.counts.get(level, 0) + count


def _number(row: Row) -> int:
    return row[1].seq
