"""What a storage promises.

Two small plugs: :class:`Storage` writes, :class:`Reader` shows. A storage has no opinion: what
changes is decided in :mod:`triggers.core.decisions`, and the storage applies it. Every storage, ours or a
stranger's, keeps these promises, and the suite in :mod:`triggers.testing.conformance` proves them:

 1. A commit is atomic: all changes of a decision are stored, or none, whenever the process dies.
 2. Exclusive decisions about one session are made one after the other: each sees all that came before it. One
    that is not exclusive sees its one instance as it is when the change is applied. If it raises
    :class:`~triggers.core.exchange.NeedsSession`, or changes more than single instances, it is made again
    exclusively, in the same commit, and nothing of its first run is kept.
 3. A commit that returned is kept, as durably as the storage is configured to keep anything.
 4. A change of an instance is applied only while its guard (status, fence, lease) still holds; else the
    whole decision is made again from what is stored now.
 5. The cost of a commit depends on what it touches, never on how much the session holds.
 6. Values come back as they went in, for any UID, name and payload that the core accepts.
 7. There is one clock, the storage's; whatever compares times uses it.
 8. A commit that failed changed nothing, and says why by a :class:`~triggers.exceptions.StorageError`.
 9. A scheduled instance is found by `due` from the moment it is due until it is claimed.
10. A running instance is found by `expired` from the moment its lease ran out until its claim is gone.
11. A commit is never made twice, even where the answer to it was lost.
12. What is committed through a view that has `joined` a transaction of the application's is kept if that is
    committed and gone if it is rolled back; one that failed leaves that transaction as it found it.

Times are microseconds since the Unix epoch, UTC; durations are microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from triggers.core.exchange import NeedsSession
from triggers.core.names import instance_name
from triggers.core.records import fingerprint
from triggers.exceptions import StorageError

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from triggers.core.exchange import Changes, Decision, DecisionRun, Need, Slice
    from triggers.core.records import LogEntry
    from triggers.core.rules import RuleSet
    from triggers.core.state import Counter, Firing, Instance, Session
    from triggers.core.status import Status

#: How often a decision is made anew because a guard no longer held, before that counts as an error.
MAX_CONFLICTS = 20

#: The pause before an instance is handed over again doubles up to so many times the grace. A queue that takes
#: longer than that gets ever more repeats of what it has not come to.
MAX_PAUSE = 64


class ConflictError(StorageError):
    """A guard no longer held: the decision is to be made anew."""

    @classmethod
    def too_often(cls, uid: str, times: int = MAX_CONFLICTS) -> ConflictError:
        """It did not hold so many times in a row, which is given up."""
        return cls(f"session {uid!r} changed {times} times in a row under a decision about it")


class Lease(NamedTuple):
    """A claim that is held: which instance, with which fence."""

    uid: str
    task: str
    number: int
    fence: int


class ReadyInstance(NamedTuple):
    """A scheduled instance that is to be handed over.

    Attributes:
        uid: its session.
        task: its task.
        number: its number.
        using: name of the runner that its task wants now, None for the default.
        run: name of what its task runs now, None where the task is no longer configured.
    """

    uid: str
    task: str
    number: int
    using: str | None = None
    run: str | None = None

    @classmethod
    def by(cls, rules: RuleSet, uid: str, task: str, number: int) -> ReadyInstance:
        """An instance that is to be handed over as these rules want it."""
        rule = rules.rules.get(task)
        return cls(uid, task, number, rule.using, rule.run) if rule else cls(uid, task, number)


class Expired(NamedTuple):
    """A running instance whose lease ran out, and the session's manager, which decides what follows."""

    uid: str
    task: str
    number: int
    fence: int
    manager: str


class Backlog(NamedTuple):
    """What is still to do in the whole storage.

    Attributes:
        ready: scheduled instances that are due.
        later: scheduled instances that are not due yet.
        running: running instances.
    """

    ready: int
    later: int
    running: int


@dataclass(frozen=True, slots=True)
class StoredRecord:
    """A record as it is kept.

    Attributes:
        cursor: its place in the session's log; pass it as `after` to go on.
        task: whose record it is.
        instance: number of the instance.
        number: its place in that instance's log, from 1.
        fence: which claim said it.
        attempt: which attempt said it, from 1.
        resolved: whether a review covers it.
        entry: what was said.
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
        """Name of the instance."""
        return instance_name(self.task, self.instance)

    @property
    def fingerprint(self) -> str:
        """What it shares with every record of its kind."""
        return fingerprint(self.entry)

    @property
    def at(self) -> datetime:
        """When it was said; aware, UTC."""
        return datetime.fromtimestamp(self.entry.at // 1_000_000, UTC).replace(
            microsecond=self.entry.at % 1_000_000
        )

    @property
    def level(self) -> int:
        """Its level."""
        return self.entry.level

    @property
    def message(self) -> str:
        """Its message, filled in."""
        return self.entry.message

    @property
    def context(self) -> Mapping[str, Any]:
        """Its context."""
        return self.entry.context


class Purge(NamedTuple):
    """Which records are to go. Those that ask for a review, and have none, never do.

    Attributes:
        before: only those said before this time.
        max_level: only those at or below this level.
        threshold: a record at or above this level asks for a review, where its instance still asks for one.
        contexts_only: let the record stay, without its context.
        dry_run: change nothing, and count.
    """

    before: int
    max_level: int
    threshold: int
    contexts_only: bool
    dry_run: bool


class Purged(NamedTuple):
    """How many records a batch took, and where the next one begins, None after the last."""

    taken: int
    after: int | None


class HasReader(Protocol):
    """Anything that reads sessions through a reader, such as a storage."""

    @property
    def reader(self) -> Reader:
        """The plug for reading; ask for it each time, because it can change."""
        ...


class Storage(HasReader, Protocol):
    """The plug for writing. All methods may be called from any thread and after a fork."""

    def now(self) -> int:
        """The storage's time."""
        ...

    def commit(self, uid: str, decision: Decision, timeout: float | None = None) -> Changes:
        """Let a decision be made about a session and apply it, in one transaction.

        The decision says whether it must be made exclusively. One that need not may be run without the
        session's lock, so that claims and logs do not wait for firings. If :func:`run_decision` then raises
        :class:`~triggers.core.exchange.NeedsSession`, undo everything and run the decision again exclusively,
        within the same call. A storage that runs every decision exclusively never gets that exception.

        Args:
            uid: the session; it need not exist.
            decision: run once for each try with a head loaded for that try; what it will most likely ask for,
                its `prefetch`, may be loaded together with the head.
            timeout: how long to wait for the storage, in seconds; None for its own setting.

        Returns:
            The changes, as stored.

        Raises:
            StorageError: nothing was changed.
            Exception: what the decision raised; nothing was changed.
        """
        ...

    def renew(self, leases: Collection[Lease], lease: int) -> set[Lease]:
        """Extend each of these claims that still holds to `lease` from now; returns those that are lost."""
        ...

    def due(self, limit: int, *, grace: int, include_recent: bool = False) -> list[ReadyInstance]:
        """Take up to `limit` scheduled instances to be handed over, those that waited longest first.

        Each is marked, so that it is not due again before a pause, which begins at `grace` and doubles with
        each hand-over up to :data:`MAX_PAUSE` times that.

        Args:
            limit: how many at most.
            grace: the first pause.
            include_recent: take also those that another process may just have dispatched.
        """
        ...

    def expired(self, limit: int) -> list[Expired]:
        """Up to `limit` running instances whose lease ran out."""
        ...

    def purge_logs(self, purge: Purge, *, after: int = 0, limit: int = 500) -> Purged:
        """Remove up to `limit` records, or their contexts, in one transaction.

        Args:
            purge: which.
            after: where the batch before has ended.
            limit: how many at most.
        """
        ...

    def joined(self, connection: Any) -> Storage:
        """A view of the storage that takes part in the transaction that is open on a connection.

        Each commit through it is a savepoint in that transaction, which is never committed or rolled back
        here; its reader sees what the transaction sees. It is for the thread that calls this, and until its
        `close`, which leaves the connection open.

        Args:
            connection: the driver's own, to the database of this storage.

        Raises:
            StorageError: it cannot be joined, and why; the transaction is as it was. Some storages have no
                transactions that could be joined.
        """
        ...

    def close(self) -> None:
        """Let go of every connection; a second call does nothing."""
        ...


class Reader(Protocol):
    """The plug for reading. Each call sees one moment; whatever can be long is paged."""

    def sessions(self, after: str = "", limit: int = 100) -> list[Session]:
        """Sessions in the order of their UIDs, those beyond `after`."""
        ...

    def session(self, uid: str) -> Session | None:
        """The head of a session."""
        ...

    def counters(self, uid: str) -> dict[str, Counter]:
        """Task → how many instances it has, for the tasks that have any."""
        ...

    def instance(self, uid: str, task: str, number: int) -> Instance | None:
        """One instance."""
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
        """Instances in the order of their tasks' names and their numbers.

        Args:
            uid: the session.
            task: only of this task.
            statuses: only in one of these.
            flagged: only with unresolved records at or above this level, unless settled without a finish.
            after: (task, number) of the last one of the page before.
            limit: how many at most.
        """
        ...

    def firings(
        self, uid: str, *, numbers: Collection[int] | None = None, after: int = 0, limit: int = 100
    ) -> list[Firing]:
        """Firings in their order, those beyond number `after`, or just those of the given numbers."""
        ...

    def latest(self, uid: str, triggers: Collection[str]) -> dict[str, Firing]:
        """Trigger → its latest firing, for those that have fired."""
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
        """Records in the order in which they were stored.

        Args:
            uid: the session.
            instance: only of this (task, number).
            min_level: only at or above this level.
            text: only with this in the message, whatever the case of ASCII letters.
            unresolved: True for those that no review covers, False for those that one does, None for both.
            fingerprint: only of this kind.
            after: the cursor of the last one of the page before.
            limit: how many at most.
            latest: the last ones instead of the first ones, in the same order.
        """
        ...

    def backlog(self) -> Backlog:
        """What is still to do in the whole storage, counted."""
        ...

    def next_at(self) -> int | None:
        """When the next instance is to be handed over, or the next lease runs out; None without any.

        It costs the same however much there is to do: a sweep asks it each time.
        """
        ...


def run_decision(
    decision: Decision, session: Session, load: Callable[[Need], Slice], *, exclusive: bool
) -> Changes:
    """Run a decision to its end.

    Args:
        decision: the decision.
        session: the head, loaded for this run.
        load: gives the decision what it asks to see.
        exclusive: whether no other decision about the session can be made until the changes are stored.

    Returns:
        The changes, to be stored.

    Raises:
        NeedsSession: the decision must be run again exclusively; never raised by an exclusive run.
        RuntimeError: the decision asked for that in an exclusive run.
    """
    session.exclusive = exclusive
    try:
        changes = _run(decision(session), load)
    except NeedsSession:
        if not exclusive:
            raise
        message = (
            f"decision {decision.name!r} raised NeedsSession in a run that is exclusive already: let it look "
            f"at session.exclusive first"
        )
        raise RuntimeError(message) from None
    if not exclusive and changes.needs_session:
        raise NeedsSession
    return changes


def _run(run: DecisionRun, load: Callable[[Need], Slice]) -> Changes:
    found: Any = None  # what starts a generator
    while True:
        try:
            need = run.send(found)
        except StopIteration as end:
            changes: Changes = end.value
            return changes
        found = load(need)


class StorageFactory(Protocol):
    """What a name in the entry-point group ``triggers.storages`` leads to."""

    def from_url(self, url: str) -> Storage:
        """Open the storage that the URL names."""
        ...
