"""What is kept of a task's log: pure data that passes between the log of a running instance and a storage."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(slots=True)
class LogEntry:
    """One record, as it is stored; not changed any more once it has its number.

    It is not frozen because that makes it seven times as slow to make, which every logging call would feel.
    Whatever stands in `context` and `exception` is bounded plain data that the codec of values accepts.

    Attributes:
        seq: number of the record within its attempt, from 1; a gap is a record that was left out.
        at: when it was logged, in microseconds since the Unix epoch, UTC.
        level: as the standard library counts levels; WARNING is 30.
        logger: name of the application's logger that it went to.
        message: the text, arguments filled in.
        template: the text before that, which is the same for all records of one kind.
        context: everything that was known: of the manager, the task, the block, the call and the exception.
        exception: None, or the tree of an exception: `type`, `qualified_type`, `message`, `context`,
            `notes`, `pathname`, `lineno`, `function`, `cause`, `context_exception` (the one during whose
            handling it was raised) and `members` (of a group); the root has the `traceback` as text.
        pathname: source file of the call.
        lineno: line of the call.
        function: name of the calling function.
        truncated: paths of what was cut to fit (``context.page_data``).
        late: logged after its block, or its attempt, had ended.
        counts: whether it counts towards the level of its instance, and asks for a review if that is high.
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
    """What one commit takes to the storage; every record is counted in exactly one batch.

    Attributes:
        entries: records to store, in the order of their numbers.
        counts: how many records of each level there were since the batch before, those left out too; those
            that do not count towards the level are under 0.
        dropped: how many of them were left out for want of room.
    """

    entries: list[LogEntry]
    counts: dict[int, int]
    dropped: int

    def __bool__(self) -> bool:
        """Whether there is anything to commit."""
        return bool(self.entries or self.counts or self.dropped)


def fingerprint(entry: LogEntry) -> str:
    """What records of one kind share: 16 digits of SHA-256, of logger, level, template, type of exception."""
    kind = (entry.exception or {}).get("qualified_type", "")
    return _fingerprint(entry.logger, entry.level, entry.template, str(kind))


@lru_cache(maxsize=1_024)
def _fingerprint(*parts: object) -> str:
    return hashlib.sha256("\0".join(map(str, parts)).encode("utf-8", "replace")).hexdigest()[:16]


def without_contexts(tree: Any) -> Any:
    """The same tree of an exception, or a part of one, without any context."""
    if isinstance(tree, dict):
        return {key: {} if key == "context" else without_contexts(value) for key, value in tree.items()}
    return [without_contexts(member) for member in tree] if isinstance(tree, list) else tree
