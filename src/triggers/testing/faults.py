"""Let a process die at a chosen point, or lose its hints.

The library has no switches for this. Instead, its storage, SQLite driver or runner is wrapped in a
:class:`FaultyStorage`, :class:`FaultyDriver` or :class:`FaultyRunner`. The wrappers tell a :class:`Faults`
each point that the process passes, and the process dies at the point that a test has chosen.
"""

from __future__ import annotations

import os
import random
import signal
import threading
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, TypeVar

from triggers.storages.announcements import announce, listen

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from triggers.core.exchange import Changes, Decision, DecisionRun
    from triggers.core.state import Session
    from triggers.runners.base import Runner, RunnerHost
    from triggers.storages.base import (
        Expired,
        Lease,
        Listener,
        Purge,
        Purged,
        Reader,
        ReadyInstance,
        Storage,
        TimedSession,
    )

    Delivery = Literal["deliver", "drop", "twice", "late"]

_T = TypeVar("_T")

#: How many characters of a statement the names of its points have.
STATEMENT: Final = 60


class InjectedCrash(BaseException):
    """The simulated death of the process. It is not an `Exception`, so no handler of errors catches it."""


def crash(point: str) -> NoReturn:
    """Simulate the death of the process: raise :class:`InjectedCrash`."""
    raise InjectedCrash(point)


def kill_process(point: str) -> NoReturn:  # noqa: ARG001 - a process that is killed cannot report where
    """Kill the process with SIGKILL, so that nothing in it can clean up."""
    os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))
    threading.Event().wait()  # another thread may take the signal first
    raise AssertionError  # pragma: no cover


class Faults:
    """The points that a process passes, and the one at which it dies. Safe to use from any thread.

    Points have names such as ``before commit of finish`` and ``after commit of claim``. After the process has
    died, every use of a wrapped object raises :class:`InjectedCrash`, until :meth:`revive` is called.

    Args:
        die: how the process dies: :func:`crash` or :func:`kill_process`.

    Attributes:
        reached: the points that were passed, in order, including the one at which the process died.
        dead: the point at which the process died, or "" if it is alive.
    """

    def __init__(self, die: Callable[[str], NoReturn] = crash) -> None:
        self.reached: list[str] = []
        self.dead: str = ""
        self._die = die
        self._wanted: str | None = None
        self._left = 0
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        state = f"dead at {self.dead!r}" if self.dead else "alive"
        return f"<Faults: {len(self.reached)} points reached, {state}>"

    def die_at(self, point: str | int, hit: int = 1) -> None:
        """Let the process die at a future point. A second call replaces the first.

        Args:
            point: the beginning of the name of the point, or its number, where 1 is the next point.
            hit: if `point` is a name, which of the points with this name; 1 is the next one.
        """
        with self._lock:
            self._wanted = "" if isinstance(point, int) else point
            self._left = point if isinstance(point, int) else hit

    def revive(self) -> None:
        """Make the process alive again, as after a restart.

        It does not die again unless :meth:`die_at` is called.
        """
        with self._lock:
            self.dead, self._wanted = "", None

    def check(self) -> None:
        """Raise :class:`InjectedCrash` if the process has died."""
        if self.dead:
            raise InjectedCrash(f"the process died at {self.dead!r}")

    def reach(self, point: str) -> None:
        """Record that the process has reached a point, or let it die there.

        A wrapper of your own may call this with points of its own.
        """
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
    """A storage whose process may die before and after each call that writes.

    Args:
        storage: the storage that is wrapped; any storage.
        faults: decides at which point the process dies.
    """

    def __init__(self, storage: Storage, faults: Faults) -> None:
        self._storage = storage
        self._faults = faults

    def __repr__(self) -> str:
        return f"FaultyStorage({self._storage!r})"

    @property
    def reader(self) -> Reader:
        """The reader of the wrapped storage. It raises :class:`InjectedCrash` after the process has died."""
        self._faults.check()
        return self._storage.reader

    def now(self) -> int:
        """Return the time of the wrapped storage, in microseconds."""
        return self._storage.now()

    def commit(self, uid: str, decision: Decision, timeout: float | None = None) -> Changes:
        """Commit a decision.

        The points are named after it: ``fire``, ``claim``, ``finish``, ``fail`` and so on.
        """
        self._faults.check()
        changes = self._storage.commit(uid, self._watched(decision), timeout)
        self._faults.reach(f"after commit of {decision.name}")
        return changes

    def commit_many(
        self, decisions: Sequence[tuple[str, Decision]], timeout: float | None = None
    ) -> list[Changes | Exception]:
        """Commit decisions, with a point before each of them and one after all: ``after commit of many``."""
        self._faults.check()
        watched = [(uid, self._watched(decision)) for uid, decision in decisions]
        done = self._storage.commit_many(watched, timeout)
        self._faults.reach("after commit of many")
        return done

    def _watched(self, decision: Decision) -> Decision:
        def begin(session: Session) -> DecisionRun:
            self._faults.reach(f"before commit of {decision.name}")
            return decision(session)

        return replace(decision, begin=begin)

    def timed_sessions(self, limit: int, managers: Collection[str]) -> list[TimedSession]:
        """Return the sessions that have timers."""
        return self._around("timed_sessions", lambda: self._storage.timed_sessions(limit, managers))

    def renew(self, leases: Collection[Lease], lease: int) -> set[Lease]:
        """Renew claims, with a point before and after."""
        return self._around("renew", lambda: self._storage.renew(leases, lease))

    def due(self, limit: int, *, grace: int, include_recent: bool = False) -> list[ReadyInstance]:
        """Take due instances. If the process dies after that, their hints are lost."""
        return self._around(
            "due", lambda: self._storage.due(limit, grace=grace, include_recent=include_recent)
        )

    def expired(self, limit: int) -> list[Expired]:
        """Return the claims whose lease has expired."""
        return self._around("expired", lambda: self._storage.expired(limit))

    def purge_logs(self, purge: Purge, *, after: int = 0, limit: int = 500) -> Purged:
        """Remove old records. If the process dies after that, the answer is lost."""
        return self._around("purge_logs", lambda: self._storage.purge_logs(purge, after=after, limit=limit))

    def joined(self, connection: Any) -> FaultyStorage:
        """Return a storage that joins an open transaction, with the same points."""
        self._faults.check()
        return FaultyStorage(self._storage.joined(connection), self._faults)

    def announce(self) -> None:
        """Announce work, if the wrapped storage can."""
        self._faults.check()
        announce(self._storage)

    def listen(self, woken: threading.Event) -> Listener:
        """Return a listener of the wrapped storage."""
        return listen(self._storage, woken)

    def close(self) -> None:
        """Close the wrapped storage, also after the process has died."""
        self._storage.close()

    def _around(self, what: str, call: Callable[[], _T]) -> _T:
        self._faults.reach(f"before {what}")
        answer = call()
        self._faults.reach(f"after {what}")
        return answer


class FaultyDriver:
    """A SQLite module whose process may die before and after every statement, including commits.

    Give it to a :class:`~triggers.storages.sqlite.SqliteStorage` as its `driver`. When the process dies, its
    connection is closed and uncommitted changes are lost, as the operating system would do it.

    Args:
        driver: a module with the interface of :mod:`sqlite3`.
        faults: decides at which point the process dies.
    """

    def __init__(self, driver: Any, faults: Faults) -> None:
        self._driver = driver
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._driver, name)

    def connect(self, *args: Any, **kwargs: Any) -> FaultyConnection:
        """Open a connection whose statements are points."""
        self._faults.check()
        return FaultyConnection(self._driver.connect(*args, **kwargs), self._faults)


class FaultyConnection:
    """A connection of a :class:`FaultyDriver`, which its `connect` returns."""

    def __init__(self, connection: Any, faults: Faults) -> None:
        self._connection = connection
        self._faults = faults

    def execute(self, statement: str, given: Any = ()) -> Any:
        """Run a statement, with a point before and after."""
        return self._around(statement, lambda: self._connection.execute(statement, given))

    def executemany(self, statement: str, given: Iterable[Any]) -> Any:
        """Run a statement for each row, with a point before each row as well."""
        rows = self._watched(statement, given)
        return self._around(statement, lambda: self._connection.executemany(statement, rows))

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is open. It ends when the process dies."""
        return not self._faults.dead and bool(self._connection.in_transaction)

    def close(self) -> None:
        """Close the connection, also after the process has died."""
        self._connection.close()

    def _watched(self, statement: str, given: Iterable[Any]) -> Iterator[Any]:
        for row in given:
            self._faults.reach(f"before a row of {_short(statement)}")
            yield row

    def _around(self, statement: str, call: Callable[[], Any]) -> Any:
        try:
            self._faults.reach(f"before {_short(statement)}")
            answer = call()
            self._faults.reach(f"after {_short(statement)}")
        except InjectedCrash:
            self._connection.close()
            raise
        return answer


class FaultyRunner:
    """A runner whose hints get lost, arrive twice, or arrive late.

    Args:
        runner: the runner that is wrapped.
        delivery: decides how each hint is delivered; see :func:`by_chance`.
        faults: decides at which point the process dies: before or after a hint.
    """

    def __init__(
        self,
        runner: Runner,
        delivery: Callable[[ReadyInstance], Delivery] = lambda _: "deliver",
        faults: Faults | None = None,
    ) -> None:
        self._runner = runner
        self._delivery = delivery
        self._faults = faults or Faults()
        self._late: deque[ReadyInstance] = deque()

    def start(self, work: RunnerHost) -> None:
        """Start the wrapped runner, which may then claim and run instances."""
        self._runner.start(work)

    def submit(self, due: ReadyInstance) -> None:
        """Submit the hint to the wrapped runner as often as its delivery says."""
        self._faults.reach("before submit")
        delivery = self._delivery(due)
        if delivery == "late":
            self._late.append(due)
        for _ in range({"deliver": 1, "twice": 2}.get(delivery, 0)):
            self._runner.submit(due)
        self._faults.reach("after submit")

    def deliver_late(self) -> int:
        """Submit the hints that are held back, the latest first. Return how many they were."""
        held = len(self._late)
        for _ in range(held):
            self._runner.submit(self._late.pop())
        return held

    def is_idle(self) -> bool:
        """Return whether the wrapped runner is idle. Hints that are held back do not count."""
        return self._runner.is_idle()

    def close(self, timeout: float | None) -> bool:
        """Close the wrapped runner. Hints that are held back are lost."""
        self._late.clear()
        return self._runner.close(timeout)


def by_chance(
    seed: int, *, drop: float = 0, twice: float = 0, late: float = 0
) -> Callable[[ReadyInstance], Delivery]:
    """Choose how each hint is delivered at random. The same seed makes the same choices in the same order.

    Args:
        seed: the seed of the random choices.
        drop: the fraction of hints that get lost, from 0 to 1.
        twice: the fraction that arrive twice.
        late: the fraction that are held back until :meth:`FaultyRunner.deliver_late`.

    Raises:
        ValueError: a fraction is negative, or their sum is greater than 1.
    """
    if min(drop, twice, late) < 0 or drop + twice + late > 1:
        message = (
            f"drop={drop}, twice={twice} and late={late} must be fractions from 0 to 1 whose sum is at most 1"
        )
        raise ValueError(message)
    dice = random.Random(seed)  # noqa: S311 - random choices of a test, not a secret
    weights = (drop, twice, late, 1 - drop - twice - late)
    deliveries: tuple[Delivery, ...] = ("drop", "twice", "late", "deliver")
    return lambda _: dice.choices(deliveries, weights)[0]


def _short(statement: str) -> str:
    return " ".join(statement.split())[:STATEMENT]
