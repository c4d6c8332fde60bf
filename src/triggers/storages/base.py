"""What a storage must do.

A storage has two plugs: :class:`Storage` writes and :class:`Reader` reads. A storage decides nothing:
:mod:`triggers.core.decisions` decides what changes, and the storage applies it. Every storage, built in or
not, keeps the promises below. The test suite in :mod:`triggers.testing.conformance` checks them.

1.  A commit is atomic. All changes of a decision are stored or none, even if the process dies at any moment.
2.  Exclusive decisions about one session run one after another, and each sees the changes of all earlier
    ones. A decision that is not exclusive sees its one instance as it is when the change is applied. If it
    raises :class:`~triggers.core.exchange.NeedsSession`, or changes more than single instances, it is run
    again exclusively within the same commit, and nothing of its first run is kept.
3.  A commit that has returned is durable, as far as the storage is configured to be durable.
4.  A change of an instance is applied only if its guard (status, fence, lease) still holds. Otherwise the
    whole decision is run again on what is stored now.
5.  The cost of a commit depends on what it touches, not on how much the session holds.
6.  Values are read exactly as they were written, for every UID, name and payload that the core accepts.
7.  There is one clock, the storage's own. Everything that compares times uses it.
8.  A commit that failed has changed nothing and raises a :class:`~triggers.exceptions.StorageError` that says
    why.
9.  `due` finds a scheduled instance from the moment it is due until it is claimed.
10. `expired` finds a running instance from the moment its lease expires until its claim ends.
11. A commit is never applied twice, even if the answer to it was lost.
12. What is committed through a view that has `joined` a transaction of the application is kept if the
    application commits that transaction, and discarded if it is rolled back. A failed commit leaves the
    transaction unchanged.
13. Rules that only a newer version understands can be read and replaced. Every other decision by them is
    refused, and nothing is changed.
14. A storage can have the methods of :class:`Announces` in addition. If it has, a listener hears what any
    handle announces after a commit, also between two waits. An announcement never raises an exception.
15. A decision can fire several triggers, one because of the other. It gets what it needs for all of them,
    and all of them are stored in its commit.
16. A preview reads one consistent state and changes nothing. No commit waits for it, and it waits for no
    commit. If nothing is stored in between, a commit of the same decision has the same changes except times.
17. A timer is stored, moved and removed in the commit of the decision that says so. It stays until a decision
    removes it.

Times are microseconds since the Unix epoch in UTC. Durations are microseconds, too.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from triggers.core.exchange import NeedsSession
from triggers.core.names import instance_name
from triggers.core.records import fingerprint
from triggers.core.timers import BEFORE_ALL
from triggers.exceptions import StorageError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Mapping, Sequence

    from triggers.core.exchange import Changes, Decision, DecisionRun, Need, Slice
    from triggers.core.records import LogEntry
    from triggers.core.rules import RuleSet
    from triggers.core.state import Counter, Firing, Instance, Session
    from triggers.core.status import Status
    from triggers.core.timers import Timer

#: How many times a decision is run because a guard no longer held, before that is an error.
MAX_CONFLICTS = 20

#: The pause before an instance is dispatched again doubles each time, up to this many times the grace period.
#: A queue with a longer delay receives more and more repeats of instances that it has not processed yet.
MAX_PAUSE = 64


class ConflictError(StorageError):
    """A guard no longer held, so the decision must be run again."""

    @classmethod
    def too_often(cls, uid: str, times: int = MAX_CONFLICTS) -> ConflictError:
        """The error after too many conflicts in a row; nothing was changed."""
        message = (
            f"session {uid!r} changed {times} times in a row while a decision about it was made; nothing was "
            f"stored: try again"
        )
        return cls(message)


class Lease(NamedTuple):
    """A claim on an instance: the instance, and the fence that the claim was granted with."""

    uid: str
    task: str
    number: int
    fence: int


class ReadyInstance(NamedTuple):
    """A scheduled instance to dispatch to a runner.

    Attributes:
        uid: its session.
        task: its task.
        number: its number.
        using: the name of the runner in the session's current rules, None for the default.
        run: the name of what the task runs by the current rules, None if the task is no longer configured.
    """

    uid: str
    task: str
    number: int
    using: str | None = None
    run: str | None = None

    @classmethod
    def by(cls, rules: RuleSet, uid: str, task: str, number: int) -> ReadyInstance:
        """An instance to dispatch, with the runner that these rules name for its task."""
        rule = rules.rules.get(task)
        return cls(uid, task, number, rule.using, rule.run) if rule else cls(uid, task, number)


class Expired(NamedTuple):
    """A running instance whose lease has expired, and the session's manager, which decides what to do."""

    uid: str
    task: str
    number: int
    fence: int
    manager: str


class TimedSession(NamedTuple):
    """A session with timers, and when the first one is due. That time can be too early."""

    uid: str
    at: int


class Backlog(NamedTuple):
    """How many instances of the whole storage have to run or are running.

    Attributes:
        ready: scheduled instances that may start now.
        later: scheduled instances that may not start yet.
        running: running instances.
    """

    ready: int
    later: int
    running: int


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A log record as it is stored.

    Attributes:
        cursor: its position in the session's log; pass it as `after` to read the following records.
        task: the task of the instance that logged it.
        instance: the number of that instance.
        number: its position in the log of that instance, from 1.
        fence: the fence of the claim under which it was logged.
        attempt: the attempt that logged it, from 1.
        resolved: whether a review covers it.
        entry: what was logged.
    """

    cursor: int
    task: str
    instance: int
    number: int
    fence: int
    attempt: int
    resolved: bool
    entry: LogEntry

    @property
    def name(self) -> str:
        """The name of the instance that logged it."""
        return instance_name(self.task, self.instance)

    @property
    def fingerprint(self) -> str:
        """A hash that all records of the same kind share."""
        return fingerprint(self.entry)

    @property
    def at(self) -> datetime:
        """When it was logged, as an aware UTC datetime."""
        return datetime.fromtimestamp(self.entry.at // 1_000_000, UTC).replace(
            microsecond=self.entry.at % 1_000_000
        )

    @property
    def level(self) -> int:
        """The numeric level, as in the module `logging`."""
        return self.entry.level

    @property
    def message(self) -> str:
        """The text, with its arguments filled in."""
        return self.entry.message

    @property
    def context(self) -> Mapping[str, Any]:
        """The values that were logged with the message, by name."""
        return self.entry.context


class Purge(NamedTuple):
    """Which records to delete. Records that still need a review are never deleted.

    Attributes:
        before: only records that were logged before this time.
        max_level: only records at or below this level.
        threshold: a record at or above this level needs a review, if its instance still needs one.
        contexts_only: keep the records and delete only their contexts.
        dry_run: change nothing and return the counts.
    """

    before: int
    max_level: int
    threshold: int
    contexts_only: bool
    dry_run: bool


class Purged(NamedTuple):
    """How many records a batch deleted, and where the next batch begins; None after the last one."""

    taken: int
    after: int | None


class Listener(Protocol):
    """Waits for announcements of work. One thread uses it."""

    def wait(self, timeout: float) -> bool:
        """Wait for an announcement, or until the listener is woken, up to that time in seconds.

        What was announced between two calls is not missed. The first call returns true at once, because
        something can have been announced before the listener was there. An error of the connection is not
        raised: nothing is heard until it works again.

        Returns:
            Whether work may have been announced.
        """
        ...

    def close(self) -> None:
        """Close the connection, if there is one. A second call does nothing."""
        ...


class Announces(Protocol):
    """What a storage can do in addition, so that workers in other processes need not wait for their sweep.

    A storage with these two methods lets a worker start an instance within milliseconds after another process
    has scheduled it. Without them, workers find it in their next sweep. An announcement is only a hint, and
    may be lost.
    """

    def announce(self) -> None:
        """Tell all listeners, in every process, that work is due, or is due earlier than before.

        Called after the commit. It raises no exception, and does not wait for a storage that is unavailable.
        It may do nothing within :data:`triggers.storages.announcements.SILENCE` after another announcement of
        this process.
        """
        ...

    def listen(self, woken: threading.Event) -> Listener:
        """Start to listen.

        Args:
            woken: ends every wait as soon as it is set. An announcement may set it.
        """
        ...


class HasReader(Protocol):
    """Anything that reads sessions through a reader, such as a storage."""

    @property
    def reader(self) -> Reader:
        """The plug for reading. Ask for it each time, because it can change."""
        ...


class Storage(HasReader, Protocol):
    """The plug for writing. All methods can be called from any thread, and in a forked process.

    A storage can also have the methods of :class:`Announces`.
    """

    def now(self) -> int:
        """The current time by the storage's clock."""
        ...

    def commit(self, uid: str, decision: Decision, timeout: float | None = None) -> Changes:
        """Run a decision about a session and apply its changes, in one transaction.

        The decision says whether it must run exclusively. If not, it can run without the session's lock, so
        that claims and logs do not wait for firings. If :func:`run_decision` then raises
        :class:`~triggers.core.exchange.NeedsSession`, undo everything and run the decision again exclusively
        within the same call. A storage that runs every decision exclusively never gets that exception.

        Args:
            uid: the session, which does not have to exist.
            decision: is run for each try, with a head that was loaded for this try. What it will most likely
                ask for, its `prefetch`, can be loaded together with the head.
            timeout: how long to wait for the storage, in seconds; None for the storage's own setting.

        Returns:
            The changes, as stored.

        Raises:
            StorageError: nothing was changed.
            Exception: the exception that the decision raised; nothing was changed.
        """
        ...

    def commit_many(
        self, decisions: Sequence[tuple[str, Decision]], timeout: float | None = None
    ) -> list[Changes | Exception]:
        """Commit decisions about several sessions, each as by :meth:`commit`.

        A storage may apply them in one transaction, because that is faster. One that fails changes nothing,
        and does not keep the others from being stored.

        Args:
            decisions: (UID of the session, decision).
            timeout: how long to wait for the storage, in seconds, for all of them together.

        Returns:
            For each decision, its changes, or the exception that :meth:`commit` would have raised.

        Raises:
            StorageError: the storage is unavailable. Nothing was changed.
        """
        ...

    def timed_sessions(self, limit: int, managers: Collection[str]) -> list[TimedSession]:
        """Up to `limit` sessions that have timers, those whose first timer is due earliest first.

        Timers that were put aside do not count. The cost does not depend on the number of sessions.

        Args:
            limit: the greatest number of sessions.
            managers: only sessions of managers with one of these names.
        """
        ...

    def renew(self, leases: Collection[Lease], lease: int) -> set[Lease]:
        """Extend each of these claims that still holds, to `lease` from now; returns the lost claims.

        It waits for no other transaction. The next call extends a claim whose row is locked.
        """
        ...

    def due(self, limit: int, *, grace: int, include_recent: bool = False) -> list[ReadyInstance]:
        """Take up to `limit` scheduled instances to dispatch, those that have waited longest first.

        Each is marked as dispatched, and is not due again before a pause. The pause is `grace` at first and
        doubles with each dispatch, up to :data:`MAX_PAUSE` times `grace`.

        Args:
            limit: the greatest number of instances.
            grace: the first pause.
            include_recent: also take instances in such a pause, which another process may just have
                dispatched.
        """
        ...

    def expired(self, limit: int) -> list[Expired]:
        """Up to `limit` running instances whose lease has expired; nothing is changed."""
        ...

    def purge_logs(self, purge: Purge, *, after: int = 0, limit: int = 500) -> Purged:
        """Delete up to `limit` records, or their contexts, in one transaction.

        Args:
            purge: which records.
            after: where the previous batch ended, 0 for the first batch.
            limit: the greatest number of records.
        """
        ...

    def joined(self, connection: Any) -> Storage:
        """A view of the storage that takes part in the transaction that is open on a connection.

        Each commit through the view is a savepoint in that transaction. The view never commits the
        transaction or rolls it back, and its reader sees what the transaction sees. Only the thread that
        calls this can use the view, until its `close`, which leaves the connection open.

        Args:
            connection: a connection of the storage's driver, to the storage's database.

        Raises:
            StorageError: the transaction cannot be joined; the message says why, and the transaction is
                unchanged. Some storages have no transactions to join.
        """
        ...

    def close(self) -> None:
        """Close all connections. A second call does nothing."""
        ...


class Reader(Protocol):
    """The plug for reading. Each call reads one consistent state; long results are read in pages."""

    def sessions(self, after: str = "", limit: int = 100) -> list[Session]:
        """A page of sessions in the order of their UIDs, from the first one after `after`."""
        ...

    def session(self, uid: str) -> Session | None:
        """The head of a session; None if the session is not stored."""
        ...

    def counters(self, uid: str) -> dict[str, Counter]:
        """Task → how many instances it has, for each task that has any."""
        ...

    def instance(self, uid: str, task: str, number: int) -> Instance | None:
        """One instance by task and number; None if it is not stored."""
        ...

    def instances(
        self,
        uid: str,
        *,
        task: str | None = None,
        statuses: Collection[Status] | None = None,
        flagged: int | None = None,
        after: tuple[str, int] = ("", -1),
        limit: int = 100,
    ) -> list[Instance]:
        """A page of instances, ordered by the task's name and the number.

        Args:
            uid: the session.
            task: only instances of this task.
            statuses: only instances with one of these statuses.
            flagged: only instances with unresolved records at or above this level, except replayed, skipped
                and abandoned ones.
            after: (task, number) of the last instance of the previous page.
            limit: the greatest number of instances.
        """
        ...

    def firings(
        self, uid: str, *, numbers: Collection[int] | None = None, after: int = 0, limit: int = 100
    ) -> list[Firing]:
        """A page of firings in their order, those after number `after`, or those with the given numbers."""
        ...

    def timers(
        self,
        uid: str,
        *,
        names: Collection[str] | None = None,
        after: tuple[int, int] = BEFORE_ALL,
        limit: int = 100,
    ) -> list[Timer]:
        """A page of timers by their time and number, those after this (time, number), or those with names."""
        ...

    def latest(self, uid: str, triggers: Collection[str]) -> dict[str, Firing]:
        """Trigger → its latest firing, for those of these triggers that have been fired."""
        ...

    def logs(
        self,
        uid: str,
        *,
        instance: tuple[str, int] | None = None,
        min_level: int = 0,
        text: str = "",
        unresolved: bool | None = None,
        fingerprint: str | None = None,
        after: int = 0,
        limit: int = 100,
        latest: bool = False,
    ) -> list[StoredRecord]:
        """A page of records in the order in which they were stored.

        Args:
            uid: the session.
            instance: only records of this (task, number).
            min_level: only records at or above this level.
            text: only records whose message contains this. The case of ASCII letters is ignored.
            unresolved: True for records that no review covers, False for those that a review covers, None for
                both.
            fingerprint: only records with this fingerprint.
            after: the cursor of the last record of the previous page.
            limit: the greatest number of records.
            latest: return the last records instead of the first ones, in the same order.
        """
        ...

    def preview(self, uid: str, decision: Decision) -> Changes:
        """Run a decision about a session as it is stored now, and store nothing.

        It works wherever reading works, and takes no lock that a commit could wait for. All that the decision
        sees is one consistent state, so the run is exclusive, whatever the decision says.

        Args:
            uid: the session, which does not have to exist.
            decision: may be run several times.

        Returns:
            The changes that a commit would store now.

        Raises:
            StorageError: the session could not be read, or changed too often while it was read.
            Exception: the exception that the decision raised.
        """
        ...

    def backlog(self) -> Backlog:
        """Count the scheduled and running instances of the whole storage."""
        ...

    def next_at(self) -> int | None:
        """When the next instance has to be dispatched or the next lease expires; None if there is neither.

        The cost does not depend on the number of instances, because every sweep asks.
        """
        ...


def run_decision(
    decision: Decision, session: Session, load: Callable[[Need], Slice], *, exclusive: bool
) -> Changes:
    """Run a decision to its end.

    Args:
        decision: the decision.
        session: the head, loaded for this run.
        load: loads what the decision asks for.
        exclusive: whether no other decision about the session can run until the changes are stored.

    Returns:
        The changes to store.

    Raises:
        NeedsSession: the decision must be run again exclusively; never raised by an exclusive run.
        RuntimeError: the decision raised NeedsSession in an exclusive run.
    """
    session.exclusive = exclusive
    try:
        changes = _run(decision(session), load)
    except NeedsSession:
        if not exclusive:
            raise
        message = (
            f"decision {decision.name!r} raised NeedsSession in a run that is exclusive already: check "
            f"session.exclusive first"
        )
        raise RuntimeError(message) from None
    if not exclusive and changes.needs_session:
        raise NeedsSession
    return changes


def _run(run: DecisionRun, load: Callable[[Need], Slice]) -> Changes:
    found: Any = None  # a generator is started by sending None
    while True:
        try:
            need = run.send(found)
        except StopIteration as end:
            changes: Changes = end.value
            return changes
        found = load(need)


def commit_each(
    storage: Storage, decisions: Sequence[tuple[str, Decision]], timeout: float | None = None
) -> list[Changes | Exception]:
    """Commit decisions one after another, as :meth:`Storage.commit_many` says."""
    until = None if timeout is None else time.monotonic() + timeout
    done: list[Changes | Exception] = []
    for uid, decision in decisions:
        left = None if until is None else max(until - time.monotonic(), 0.0)
        try:
            done.append(storage.commit(uid, decision, timeout=left))
        except Exception as error:  # noqa: BLE001 - the error of one is part of the answer
            done.append(error)
    return done


class StorageFactory(Protocol):
    """The object that an entry point in the group ``triggers.storages`` refers to."""

    def from_url(self, url: str) -> Storage:
        """Open the storage at this URL, or create it if it does not exist."""
        ...
