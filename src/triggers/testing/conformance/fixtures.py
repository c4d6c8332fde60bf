"""What the parts of the suite share: fixtures, hostile names, and threads that start at the same moment."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final, TypeVar

import pytest

from triggers.core.records import LogBatch, LogEntry
from triggers.core.terms import AttemptReport
from triggers.testing.conformance.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from triggers.storages.base import Storage
    from triggers.testing.conformance.sandbox import StorageSandbox

T = TypeVar("T")

#: Names that look like code, patterns or one another. A storage must treat each of them as a name of its own.
NAMES: Final = (
    "uid",
    "UID",
    "Uid",
    "uid ",
    " uid",
    "uid  ",
    "a}",
    "{a}",
    "{",
    "*",
    "?",
    "[a-z]",
    "a%",
    "a_",
    "ab",
    "'",
    "''",
    '"',
    "`",
    "\\",
    "\\\\",
    "%s",
    "%(a)s",
    ":a",
    "::",
    "$1",
    "?1",
    "../a",
    "/etc/passwd",
    "a/b",
    "a.b",
    "a:b",
    "a|b",
    "a#0",
    "a#0#0",
    "#",
    "#0",
    "; DROP TABLE sessions;--",
    "' OR 1=1 --",
    "NULL",
    "null",
    "None",
    "0",
    "00",
    "0.0",
    "1e3",
    "true",
    "[]",
    "{}",
    '["a"]',
    "$date",
    "$$date",
    "constructor",
    "__proto__",
    "\N{PILE OF POO}",
    "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}",
    "\N{MAN}\N{WOMAN}",
    "\N{HEBREW LETTER ALEF}\N{HEBREW LETTER BET}",
    "\N{ARABIC LETTER ALEF}\N{ARABIC LETTER BEH}",
    "caf\N{LATIN SMALL LETTER E WITH ACUTE}",
    "cafe\N{COMBINING ACUTE ACCENT}",
    "\N{LATIN SMALL LETTER SHARP S}",
    "ss",
    "\N{LATIN SMALL LIGATURE FI}",
    "fi",
    "\N{KELVIN SIGN}",
    "K",
    "k",
    "\N{LATIN CAPITAL LETTER I WITH DOT ABOVE}",
    "i",
    "I",
    "a\N{NO-BREAK SPACE}b",
    "a b",
    "a\N{ZERO WIDTH SPACE}b",
    "\N{LATIN SMALL LETTER Y WITH DIAERESIS}",
    "\uffff",
    "\U00010000",
    "\U0010ffff",
    "x" * 255,
    "x" * 254,
    "x" * 254 + "y",
    "\N{LATIN SMALL LETTER E WITH ACUTE}" * 255,
    "\N{PILE OF POO}" * 255,
)

#: A small rule set that uses most of the rule language.
SURVEY: Final[dict[str, Any]] = {
    "t_subject": {"after": ["first", "complete"], "run": "survey.Subject"},
    "t_page": {"after": ["t_subject"], "andEvery": "page", "run": "survey.Page"},
    "t_browser": {"after": ["first"], "unless": ["embedded"], "run": "survey.Browser", "using": "others"},
}


class StorageFixtures:
    """The fixture that a subclass supplies, and the fixtures that are made from it."""

    @pytest.fixture
    def make_place(self) -> Iterator[Callable[[], StorageSandbox]]:
        """Return a function that makes empty sandboxes. A subclass overrides this fixture."""
        raise NotImplementedError

    @pytest.fixture
    def place(self, make_place: Callable[[], StorageSandbox]) -> Iterator[StorageSandbox]:
        """An empty sandbox for one test, which is closed after it."""
        place = make_place()
        yield place
        place.close()

    @pytest.fixture
    def storage(self, place: StorageSandbox) -> Storage:
        """A handle on the storage in the sandbox."""
        return place.open()

    @pytest.fixture
    def steps(self, storage: Storage) -> Steps:
        """Steps on a session that does not exist yet."""
        return Steps(storage)


def at_once(jobs: Sequence[Callable[[], T]]) -> list[T]:
    """Run each job in a thread of its own, all started at the same moment. Return their results in order.

    Raises:
        Exception: the first exception that a job raised.
    """
    barrier = threading.Barrier(len(jobs))

    def begin(job: Callable[[], T]) -> T:
        barrier.wait(timeout=60)
        return job()

    with ThreadPoolExecutor(len(jobs)) as pool:
        return list(pool.map(begin, jobs))


def entry(message: str = "Said.", *, level: int = 30, seq: int = 1, **context: Any) -> LogEntry:
    """Make a log record with these fields and plausible others."""
    return LogEntry(
        seq, 1_700_000_000_000_000, level, "survey", message, "Said.", context, None, "survey.py", 7, "f"
    )


def batch(*entries: LogEntry, dropped: int = 0, counts: dict[int, int] | None = None) -> LogBatch:
    """Make a batch of these records, with the counts of their levels unless others are given."""
    levels = [each.level for each in entries]
    counted = {level: levels.count(level) for level in levels} if counts is None else counts
    return LogBatch(list(entries), counted, dropped)


def start_pages(steps: Steps, count: int) -> None:
    """Configure the session and start `count` instances: t_page#0, t_page#1 and so on."""
    steps.configure({"t_page": {"andEvery": "page", "run": "page"}})
    for n in range(count):
        steps.fire("page")
        steps.start(f"t_page#{n}")


def page_attempt(number: int) -> AttemptReport:
    """Return the first attempt of instance `number`, as :func:`start_pages` starts it."""
    return AttemptReport("t_page", number, fence=1, attempt=1)


def entries(storage: Storage, steps: Steps) -> list[LogEntry]:
    """Return the entries of the session's log, in their order."""
    return [record.entry for record in storage.reader.logs(steps.uid)]
