"""The problems of this process. Each is kept once, with its place, until it is resolved.

A problem is logged when it begins and when it is resolved, however often it happens in between.
"""

from __future__ import annotations

import logging
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Literal

from triggers.exceptions import StorageCorruptError
from triggers.fork import reset_after_fork

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_log = logging.getLogger(__name__)

#: ``unreadable``: a row, or a rule set, of the storage; ``plugin``: a runner or manager that cannot be
#: loaded; ``thread``: a thread that cannot start or has died; ``storage``: a call that failed.
Kind = Literal["unreadable", "plugin", "thread", "storage"]

#: Whether a background thread runs: ``idle`` for one that starts when it has something to do.
Vital = Literal["alive", "idle", "stopped", "dead"]

#: What reading a damaged value raises. An error of a driver is none of these: the storage may be unavailable.
DAMAGE = (ValueError, LookupError, TypeError, AttributeError, RecursionError)

#: The pause before a problem's place is tried again, in seconds: at first, and at most, doubling in between.
FIRST_PAUSE = 5.0
LONGEST_PAUSE = 900.0

#: So many problems are kept; of further ones only the last error is.
KEPT = 10_000

#: Longest error text that is kept, in characters.
MAX_ERROR = 500


@dataclass(frozen=True, slots=True)
class Problem:
    """Something that does not work, and has not worked since.

    Attributes:
        kind: what kind of problem it is.
        place: where it is, such as ``session 'r1', instance t_score#0``.
        error: the latest error, as text.
        since: when it happened first; aware, UTC.
        latest: when it happened last.
        count: how often it happened.
        retry_at: when it is tried again at the earliest.
    """

    kind: Kind
    place: str
    error: str
    since: datetime
    latest: datetime
    count: int
    retry_at: datetime


@dataclass(frozen=True, slots=True)
class Health:
    """How one application object is, in this process, at one moment. Nothing is asked of the storage.

    Attributes:
        sweep: ``alive``, ``stopped`` (never started, or closed), or ``dead`` (it cannot be started again).
        heartbeat: ``alive``, ``idle`` (nothing runs here), or ``dead`` (nothing renews what runs here).
        pool_threads: runner → how many threads it has now, for runners that have a pool in this process.
        problems: what does not work, the oldest first.
        last_error: the latest error of all, None if there was none; it may be over.
    """

    sweep: Vital
    heartbeat: Vital
    pool_threads: Mapping[str, int] = field(default_factory=dict)
    problems: tuple[Problem, ...] = ()
    last_error: str | None = None

    @property
    def unreadable(self) -> tuple[Problem, ...]:
        """The problems that are damaged rows and rule sets."""
        return tuple(problem for problem in self.problems if problem.kind == "unreadable")

    @property
    def is_ok(self) -> bool:
        """Whether nothing is dead and there is no problem."""
        return "dead" not in {self.sweep, self.heartbeat} and not self.problems


@contextmanager
def readable(problems: Problems, place: str) -> Iterator[None]:
    """Report the place and skip the rest of the block if it reads damaged data; else resolve the place."""
    try:
        yield
    except (*DAMAGE, StorageCorruptError) as error:
        problems.report("unreadable", place, error, "what needs it is skipped, and tried again later")
    else:
        problems.resolve(place)


def place_of(uid: str, task: str, number: int) -> str:
    """How a problem names an instance."""
    return f"session {uid!r}, instance {task}#{number}"


class Problems:
    """The problems of one storage in this process."""

    def __init__(self) -> None:
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Know of none: they are the parent's."""
        self._lock = threading.Lock()
        self._found: dict[str, tuple[Problem, float]] = {}
        self.last_error: str | None = None

    def report(
        self, kind: Kind, place: str, error: BaseException, what: str, level: int = logging.ERROR
    ) -> None:
        """Note that something failed; it is logged, with its traceback, if it did not fail before.

        Args:
            kind: what kind of problem it is.
            place: where; the same place is the same problem.
            error: what went wrong.
            what: what is done about it, as the end of a sentence.
            level: the level of the log record; at most WARNING for a call of a storage that failed.
        """
        now, text = datetime.now(UTC), f"{type(error).__name__}: {error}"[:MAX_ERROR]
        with self._lock:
            self.last_error = f"{place}: {text}"
            before = self._found[place][0] if place in self._found else None
            count = before.count + 1 if before else 1
            pause = min(FIRST_PAUSE * 2 ** min(count - 1, 16), LONGEST_PAUSE)
            since, retry_at = before.since if before else now, now + timedelta(seconds=pause)
            if before or len(self._found) < KEPT:
                problem = Problem(kind, place, text, since, now, count, retry_at)
                self._found[place] = problem, time.monotonic() + pause
        level = logging.DEBUG if before else logging.WARNING if kind == "storage" else level
        _log.log(level, "%s: %s; %s", place, text, what, exc_info=error)

    def is_paused(self, place: str) -> bool:
        """Whether the place has failed, and is not to be tried again yet."""
        found = self._found.get(place)
        return found is not None and time.monotonic() < found[1]

    def resolve(self, place: str) -> None:
        """Note that the place works; that is logged if it did not."""
        if place not in self._found:
            return
        with self._lock:
            over = self._found.pop(place, None)
        if over is not None:
            _log.info("%s: works again, after %d failures", place, over[0].count)

    def __len__(self) -> int:
        """How many problems there are."""
        return len(self._found)

    def list(self) -> tuple[Problem, ...]:
        """The problems, the oldest first."""
        with self._lock:
            return tuple(sorted((found for found, _ in self._found.values()), key=lambda one: one.since))
