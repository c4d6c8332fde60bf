"""Which records of an attempt are kept: the first, the latest, and all that somebody should look at."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from triggers.core.records import LogBatch, LogEntry
from triggers.logs.settings import ATTENTION

if TYPE_CHECKING:
    from triggers.logs.settings import LogSettings

#: A record as it waits: its size, in bytes, and itself.
Row = tuple[int, LogEntry]
#: Records after the end of an attempt that are kept, whatever was kept before.
MAX_LATE = 100


class RecordBuffer:
    """Waiting records of one attempt and what they count up to; its owner holds a lock around every call.

    Of the room, a half belongs to records at WARNING or above. Of the other half, the first half is for the
    first records, the other for the latest. A record of the first or the important ones can be written as
    soon as it came; which ones are the latest is only known at the end.
    """

    __slots__ = (
        "_bytes",
        "_first_room",
        "_important_room",
        "_late_room",
        "_latest",
        "_latest_bytes",
        "_latest_room",
        "counts",
        "dropped",
        "ready",
        "ready_bytes",
        "ready_since",
    )

    def __init__(self, settings: LogSettings) -> None:
        important = min(settings.max_important, settings.max_records)
        others = settings.max_records - important
        # Each share is [records, bytes] that may still come.
        self._important_room = [important, settings.max_bytes // 2]
        self._first_room = [others - others // 2, settings.max_bytes // 4]
        self._latest_room = (others // 2, settings.max_bytes // 4)
        self._late_room = [MAX_LATE, settings.max_bytes // 4]
        self._latest: deque[Row] = deque()
        self._latest_bytes = 0
        #: Rows that may be written now.
        self.ready: list[Row] = []
        self.ready_bytes = 0
        self.ready_since = 0
        self.counts: dict[int, int] = {}
        self.dropped = 0

    @property
    def is_empty(self) -> bool:
        """Whether nothing waits to be written."""
        return not (self.ready or self._latest or self.counts or self.dropped)

    def add(self, entry: LogEntry, size: int, *, late: bool) -> None:
        """Count a record, and keep it if there is room; `late` means after the end of the attempt.

        One that does not count towards the level is counted under 0, and takes no room from those that
        somebody should look at.
        """
        level = entry.level if entry.counts else 0
        self.counts[level] = self.counts.get(level, 0) + 1
        room = self._late_room if late else self._important_room if level >= ATTENTION else self._first_room
        if room[0] > 0 and room[1] >= size:
            room[0] -= 1
            room[1] -= size
            if not self.ready:
                self.ready_since = entry.at
            self.ready.append((size, entry))
            self.ready_bytes += size
        elif late:
            self.dropped += 1
        else:
            if room is self._first_room:
                # A smaller one that comes later is not one of the first.
                room[0] = 0
            self._add_latest((size, entry))

    def _add_latest(self, row: Row) -> None:
        most, most_bytes = self._latest_room
        self._latest.append(row)
        self._latest_bytes += row[0]
        while len(self._latest) > most or self._latest_bytes > most_bytes:
            self._latest_bytes -= self._latest.popleft()[0]
            self.dropped += 1

    def take(self, *, everything: bool) -> tuple[LogBatch, list[Row]]:
        """Give what is to be written, and forget it; the second part is for :meth:`put_back`."""
        rows = self.ready
        if everything and self._latest:
            rows = sorted([*rows, *self._latest], key=_number)
            self._latest.clear()
            self._latest_bytes = 0
        batch = LogBatch([entry for _, entry in rows], self.counts, self.dropped)
        self.ready, self.ready_bytes, self.counts, self.dropped = [], 0, {}, 0
        return batch, rows

    def put_back(self, batch: LogBatch, rows: list[Row]) -> None:
        """Take back what could not be written, in its old place."""
        self.ready = [*rows, *self.ready]
        self.ready_bytes += sum(row[0] for row in rows)
        self.ready_since = self.ready[0][1].at if self.ready else 0
        self.dropped += batch.dropped
        for level, count in batch.counts.items():
            self.counts[level] = self.counts.get(level, 0) + count


def _number(row: Row) -> int:
    return row[1].seq
