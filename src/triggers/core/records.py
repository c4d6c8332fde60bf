"""Log records as plain data, which passes between the log of a running instance and a storage."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(slots=True)
class LogEntry:
    """A log record as it is stored. It does not change after it has its number.

    It is not frozen because a frozen one takes seven times as long to create, on every logging call.
    `context` and `exception` contain bounded plain data that :func:`triggers.core.values.encode` accepts.

    Attributes:
        seq: the number of the record within its attempt, from 1. A gap is a record that was not stored.
        at: when it was logged, in microseconds since the Unix epoch, UTC.
        level: the level, as in the standard library; WARNING is 30.
        logger: the name of the application's logger.
        message: the text, with its arguments.
        template: the text without its arguments, which is the same for all records of one kind.
        context: the merged contexts of the manager, the task, the block, the call and the exception.
        exception: None, or the tree of an exception: `type`, `qualified_type`, `message`, `context`,
            `notes`, `pathname`, `lineno`, `function`, `cause`, `context_exception` (the one during whose
            handling it was raised) and `members` (of a group); the root has the `traceback` as text.
        pathname: the source file of the call.
        lineno: the line of the call.
        function: the name of the calling function.
        truncated: the paths of values that were shortened to fit (``context.page_data``).
        late: whether it was logged after its block or its attempt had ended.
        counts: whether it counts towards the level of its instance, and needs a review if its level is high.
    """

    seq: int
    at: int
    level: int
    logger: str
    message: str
    template: str
    context: Mapping[str, Any]
    exception: Mapping[str, Any] | None
    pathname: str
    lineno: int
    function: str
    truncated: tuple[str, ...] = ()
    late: bool = False
    counts: bool = True


@dataclass(slots=True)
class LogBatch:
    """The log records of one commit. Every record is counted in exactly one batch.

    Attributes:
        entries: the records to store, in the order of their numbers.
        counts: level → number of records since the previous batch, including dropped ones. Records that do
            not count towards the level are counted under 0.
        dropped: how many of them are not stored because there were too many.
    """

    entries: list[LogEntry]
    counts: dict[int, int]
    dropped: int

    def __bool__(self) -> bool:
        """Return whether there is anything to commit."""
        return bool(self.entries or self.counts or self.dropped)

    def __add__(self, later: LogBatch) -> LogBatch:
        """Return one batch with the records of this one and then those of a later one."""
        levels = self.counts.keys() | later.counts.keys()
        counts = {level: self.counts.get(level, 0) + later.counts.get(level, 0) for level in levels}
        return LogBatch([*self.entries, *later.entries], counts, self.dropped + later.dropped)


def fingerprint(entry: LogEntry) -> str:
    """Return the fingerprint of a record's kind.

    It is the first 16 digits of the SHA-256 of the logger, the level, the template and the exception type.
    """
    kind = (entry.exception or {}).get("qualified_type", "")
    return _fingerprint(entry.logger, entry.level, entry.template, str(kind))


@lru_cache(maxsize=1_024)
def _fingerprint(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "replace")).hexdigest()[:16]


def without_contexts(tree: Any) -> Any:
    """Return the tree of an exception, or a part of one, without any context."""
    if isinstance(tree, dict):
        return {key: {} if key == "context" else without_contexts(value) for key, value in tree.items()}
    return [without_contexts(member) for member in tree] if isinstance(tree, list) else tree
