"""Let a process die, and its hints get lost, at a chosen point.

Nothing in the library is switched for that: what lies around it is wrapped. :class:`Faults` counts the
points that a process passes on its way through :class:`FaultyStorage`, :class:`FaultyDriver` and
:class:`FaultyRunner`, and dies at the one that a test has chosen.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from triggers.core.exchange import Changes, Decision, DecisionRun
    from triggers.core.state import Session
    from triggers.runners.base import Runner, RunnerHost
    from triggers.storages.base import Expired, Lease, Purge, Purged, Reader, ReadyInstance, Storage

    Fate = Literal["deliver", "drop", "twice", "late"]

_T = TypeVar("_T")

#: So much of a statement names its points.
STATEMENT: Final = 60


class InjectedCrash(BaseException):
    """The process is dead, as far as the code under test can tell; no error, so nothing handles it as one."""


def crash(point: str) -> NoReturn:
    """Die in this process: raise :class:`InjectedCrash`."""
    raise InjectedCrash(point)


def kill_process(point: str) -> NoReturn:  # noqa: ARG001 - whoever is killed does not say where
    """Die for real: the process gets SIGKILL, so that nothing of it can clean up."""
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    threading.Event().wait()  # another thread may take the signal first
    raise AssertionError  # pragma: no cover


class Faults:
    """The points that a process passes, and where it dies. Safe for threads.

    Points have names such as ``before commit of finish`` and ``after commit of claim``. Once dead, whatever
    touches something wrapped raises :class:`InjectedCrash`, until :meth:`revive`.

    Args:
        die: what dying is; :func:`crash` or :func:`kill_process`.

    Attributes:
        reached: the points that were passed, in order, the one at which it died included.
        dead: the point at which it died, or "".
    """

    def __init__(self, die: Callable[[str], NoReturn] = crash) -> None:
        self.reached: list[str] = []
        self.dead = ""
        self._die = die
        self._wanted: str | None = None
        self._left = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        state = f"dead at {self.dead!r}" if self.dead else "alive"
        return f"<Faults: {len(self.reached)} points reached, {state}>"

    def die_at(self, point: str | int, hit: int = 1) -> None:
        """Die at a point that is still to come; a second call replaces the first.

        Args:
            point: the beginning of its name; or its number, 1 being the next one to be reached.
            hit: for a name, at which of the points with it, 1 being the next.
        """
        with self._lock:
            self._wanted = "" if isinstance(point, int) else point
            self._left = point if isinstance(point, int) else hit

    def revive(self) -> None:
        """Live again, as after a restart; nothing is to be died at until :meth:`die_at`."""
        with self._lock:
            self.dead, self._wanted = "", None

    def check(self) -> None:
        """Raise :class:`InjectedCrash` if dead."""
        if self.dead:
            raise InjectedCrash(f"dead since {self.dead!r}")

    def reach(self, point: str) -> None:
        """Pass a point, or die there; a wrapper of your own may call this for points of its own."""
        with self._lock:
            self.check()
            self.reached.append(point)
            if self._wanted is None or not point.startswith(self._wanted):
                return
            self._left -= 1
            if self._left > 0:
                return
            self.dead, self._wanted = point, None
        self._die(point)


class FaultyStorage:
    """A storage whose process may die before and after everything that writes.

    Args:
        storage: any storage.
        faults: where to die.
    """

    def __init__(self, storage: Storage, faults: Faults) -> None:
        self._storage = storage
        self._faults = faults

    def __repr__(self) -> str:
        return f"FaultyStorage({self._storage!r})"

    @property
    def reader(self) -> Reader:
        """The storage's own."""
        self._faults.check()
        return self._storage.reader

    def now(self) -> int:
        """The storage's time."""
        return self._storage.now()

    def commit(self, uid: str, decision: Decision, timeout: float | None = None) -> Changes:
        """Commit; the points are named after the decision: fire, claim, finish, fail, and so on."""
        self._faults.check()

        def watched(session: Session) -> DecisionRun:
            self._faults.reach(f"before commit of {decision.name}")
            return decision(session)

        changes = self._storage.commit(uid, replace(decision, begin=watched), timeout)
        self._faults.reach(f"after commit of {decision.name}")
        return changes

    def renew(self, leases: Collection[Lease], lease: int) -> set[Lease]:
        """Renew claims."""
        return self._services("renew", lambda: self._storage.renew(leases, lease))

    def due(self, limit: int, *, grace: int, include_recent: bool = False) -> list[ReadyInstance]:
        """Take what is due; dying after it loses the hints."""
        return self._services(
            "due", lambda: self._storage.due(limit, grace=grace, include_recent=include_recent)
        )

    def expired(self, limit: int) -> list[Expired]:
        """The claims that ran out."""
        return self._services("expired", lambda: self._storage.expired(limit))

    def purge_logs(self, purge: Purge, *, after: int = 0, limit: int = 500) -> Purged:
        """Remove old records; dying after it loses the answer."""
        return self._services("purge_logs", lambda: self._storage.purge_logs(purge, after=after, limit=limit))

    def joined(self, connection: Any) -> FaultyStorage:
        """A view that takes part in an open transaction, and dies at the same points."""
        self._faults.check()
        return FaultyStorage(self._storage.joined(connection), self._faults)

    def close(self) -> None:
        """Let go of the connections; the dead do that, too."""
        self._storage.close()

    def _services(self, what: str, call: Callable[[], _T]) -> _T:
        self._faults.reach(f"before {what}")
        answer = call()
        self._faults.reach(f"after {what}")
        return answer


class FaultyDriver:
    """A SQLite module whose process may die before and after every statement, commits among them.

    Give it to a :class:`~triggers.storages.sqlite.SqliteStorage` as its `driver`. A process that dies has its
    connection closed, and what was not committed is gone, as the system would have it.

    Args:
        driver: a module of the form of :mod:`sqlite3`.
        faults: where to die.
    """

    def __init__(self, driver: Any, faults: Faults) -> None:
        self._driver = driver
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def connect(self, *args: Any, **kwargs: Any) -> FaultyConnection:
        """Open a connection."""
        self._faults.check()
        return FaultyConnection(self._driver.connect(*args, **kwargs), self._faults)


class FaultyConnection:
    """A connection of a :class:`FaultyDriver`; made by its `connect`."""

    def __init__(self, connection: Any, faults: Faults) -> None:
        self._connection = connection
        self._faults = faults

    def execute(self, statement: str, given: Any = ()) -> Any:
        """Run a statement."""
        return self._services(statement, lambda: self._connection.execute(statement, given))

    def executemany(self, statement: str, given: Iterable[Any]) -> Any:
        """Run a statement for each row; before each row is a point, too."""
        rows = self._watched(statement, given)
        return self._services(statement, lambda: self._connection.executemany(statement, rows))

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open; with the process, it has ended."""
        return not self._faults.dead and bool(self._connection.in_transaction)

    def close(self) -> None:
        """Close it; the dead do that, too."""
        self._connection.close()

    def _watched(self, statement: str, given: Iterable[Any]) -> Iterator[Any]:
        for row in given:
            self._faults.reach(f"before a row of {_short(statement)}")
            yield row

    def _services(self, statement: str, call: Callable[[], Any]) -> Any:
        try:
            self._faults.reach(f"before {_short(statement)}")
            answer = call()
            self._faults.reach(f"after {_short(statement)}")
        except InjectedCrash:
            self._connection.close()
            raise
        return answer


class FaultyRunner:
    """A runner whose hints get lost, come twice, or come late.

    Args:
        runner: the runner that gets the hints that are left.
        fate: decides for each hint; see :func:`by_chance`.
        faults: where to die: before and after each hint.
    """

    def __init__(
        self,
        runner: Runner,
        commit_outcome: Callable[[ReadyInstance], Fate] = lambda _: "deliver",
        faults: Faults | None = None,
    ) -> None:
        self._runner = runner
        self._fate = commit_outcome
        self._faults = faults or Faults()
        self._late: deque[ReadyInstance] = deque()

    def start(self, work: RunnerHost) -> None:
        """Learn what to call."""
        self._runner.start(work)

    def submit(self, due: ReadyInstance) -> None:
        """Do with the hint what its fate is."""
        self._faults.reach("before submit")
        commit_outcome = self._fate(due)
        if commit_outcome == "late":
            self._late.append(due)
        for _ in range({"deliver": 1, "twice": 2}.get(commit_outcome, 0)):
            self._runner.submit(due)
        self._faults.reach("after submit")

    def deliver_late(self) -> int:
        """Deliver the hints that were held back, the latest first; returns how many."""
        held = len(self._late)
        for _ in range(held):
            self._runner.submit(self._late.pop())
        return held

    def is_idle(self) -> bool:
        """Whether the runner is; hints that are held back do not count."""
        return self._runner.is_idle()

    def close(self, timeout: float | None) -> bool:
        """Close the runner; hints that are held back are lost."""
        self._late.clear()
        return self._runner.close(timeout)


def by_chance(
    seed: int, *, drop: float = 0, twice: float = 0, late: float = 0
) -> Callable[[ReadyInstance], Fate]:
    """Give each hint a fate by chance, the same for the same seed and order of hints.

    Args:
        seed: decides.
        drop: the part of the hints that get lost, 0 to 1.
        twice: the part that come twice.
        late: the part that are held back.
    """
    if min(drop, twice, late) < 0 or drop + twice + late > 1:
        message = f"drop={drop}, twice={twice} and late={late} are parts of one whole"
        raise ValueError(message)
    dice = random.Random(seed)  # noqa: S311 - a test's dice, no secret
    weights = (drop, twice, late, 1 - drop - twice - late)
    fates: tuple[Fate, ...] = ("drop", "twice", "late", "deliver")
    return lambda _: dice.choices(fates, weights)[0]


def _short(statement: str) -> str:
    return " ".join(statement.split())[:STATEMENT]
