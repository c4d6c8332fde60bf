"""Points at which a process can die: before and after each statement and each row that a storage sends to SQLite."""

from __future__ import annotations

import os
import signal
import traceback
import warnings
from typing import TYPE_CHECKING, Any

from triggers.storages import sqlite_file
from triggers.storages.sqlite import SQL

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_NAMES = {text: name for name, text in SQL.items()}

KILLED = -signal.SIGKILL


def name_of(statement: str) -> str:
    """The name under which a statement stands in the library, or its first two words."""
    return _NAMES.get(statement) or " ".join(statement.split()[:2])


class Probe:
    """Is told each point, and at one of them has the process killed.

    Args:
        die_at: which point, counted from 1; None for none of them.
        last_words: is given the name of that point, just before.
        after_commit: called whenever a commit has returned.
    """

    def __init__(
        self,
        die_at: int | None = None,
        last_words: Callable[[str], object] = lambda _: None,
        after_commit: Callable[[], object] = lambda: None,
    ) -> None:
        self.seen: list[str] = []
        self.armed = False
        self._die_at = die_at
        self._last_words = last_words
        self._after_commit = after_commit

    def __call__(self, when: str, statement: str) -> None:
        """The process is at this point."""
        if not self.armed:
            return
        point = f"{when} {name_of(statement)}"
        self.seen.append(point)
        if point == "after COMMIT":
            self._after_commit()
        if len(self.seen) == self._die_at:
            self._last_words(point)
            os.kill(os.getpid(), signal.SIGKILL)

    def install(self) -> None:
        """Have every storage that this process opens from now on tell its points; for children of a test only."""
        load = sqlite_file.load_driver
        sqlite_file.load_driver = lambda name: _Driver(load(name), self)  # type: ignore[assignment,return-value]


class _Driver:
    """A SQLite module whose connections tell what they do."""

    def __init__(self, module: Any, probe: Probe) -> None:
        self._module = module
        self._probe = probe

    def __getattr__(self, name: str) -> Any:
        return getattr(self._module, name)

    def connect(self, *args: Any, **kwargs: Any) -> _Connection:
        """Connect as the module does."""
        return _Connection(self._module.connect(*args, **kwargs), self._probe)


class _Connection:
    """A connection that tells what it does."""

    def __init__(self, connection: Any, probe: Probe) -> None:
        self._connection = connection
        self._probe = probe
        self._pid = os.getpid()

    def __getattr__(self, name: str) -> Any:
        assert self._pid == os.getpid(), "a connection is used in a process that did not open it"
        return getattr(self._connection, name)

    def execute(self, statement: str, given: tuple[Any, ...] = ()) -> Any:
        """Run a statement."""
        assert self._pid == os.getpid(), "a connection is used in a process that did not open it"
        self._probe("before", statement)
        cursor = self._connection.execute(statement, given)
        self._probe("after", statement)
        return cursor

    def executemany(self, statement: str, given: Iterable[tuple[Any, ...]]) -> Any:
        """Run a statement for each row."""

        def told() -> Iterator[tuple[Any, ...]]:
            for row in given:
                self._probe("before a row of", statement)
                yield row

        cursor = self._connection.executemany(statement, told())
        self._probe("after all rows of", statement)
        return cursor


def fork() -> int:
    """Fork; threads that other tests left waiting in this process take no part and hold no lock of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def begin(act: Callable[[], object]) -> int:
    """Do it in a child of its own, and return its process id."""
    pid = fork()
    if pid:
        return pid
    code = 1
    try:
        act()
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the child ends here
        traceback.print_exc()
    finally:
        os._exit(code)


def end(pid: int) -> int:
    """Wait for a child: its exit code, or the negative number of the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_child(act: Callable[[], object]) -> int:
    """Do it in a child of its own and wait for its end."""
    return end(begin(act))
