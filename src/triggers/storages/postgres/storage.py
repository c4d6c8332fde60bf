"""PostgreSQL: the storage for sessions that are shared by many machines.

Every commit is one transaction at the level READ COMMITTED. It first locks the row of the session; a claim
locks the row of its instance. Statements that are sent together need one round trip to the server:

=================================================  ==============================================
fire, finish                                       2 if the caller knew the session's rules, else 3
claim, logs, fail, release, recovery               2
replay, skip, review and other manual changes      2; with a cascade or a new configuration 3
the first firing into a session                    2
heartbeats of any number of claims, due, expired   1
a preview                                          as the commit
every other read                                   1
=================================================  ==============================================

Each time that a decision asks for more, it needs one more round trip. A rule set that the process has not
read before needs one more, too.
"""

from __future__ import annotations

import copy
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from triggers.core.exchange import NeedsSession
from triggers.core.state import Counter
from triggers.core.timers import BEFORE_ALL
from triggers.exceptions import StorageError, TriggersError
from triggers.health import Problems
from triggers.storages.announcements import Announcer, ConnectedListener
from triggers.storages.base import (
    MAX_CONFLICTS,
    MAX_PAUSE,
    Backlog,
    ConflictError,
    Expired,
    Lease,
    Purge,
    Purged,
    ReadyInstance,
    TimedSession,
    commit_each,
)
from triggers.storages.postgres import announcing
from triggers.storages.postgres import schema as postgres_schema
from triggers.storages.postgres.connection import LostError, ServerError
from triggers.storages.postgres.decide import DecisionRunner
from triggers.storages.postgres.in_doubt import InDoubtError, add_outcome, commit_outcome
from triggers.storages.postgres.joined import JoinedPool
from triggers.storages.postgres.pool import Pool
from triggers.storages.postgres.records import escaped, record_from_row
from triggers.storages.postgres.schema import VERSION_CHECK, run_checked
from triggers.storages.postgres.statements import texts
from triggers.storages.postgres.url import PostgresUrl
from triggers.storages.rule_cache import RuleCache
from triggers.storages.sql import rows

if TYPE_CHECKING:
    import threading
    from collections.abc import Collection, Sequence

    from triggers.core.exchange import Changes, Decision
    from triggers.core.state import Firing, Instance, Session
    from triggers.core.status import Status
    from triggers.core.timers import Timer
    from triggers.storages.base import StoredRecord
    from triggers.storages.postgres.connection import PipelineConnection
    from triggers.storages.postgres.decide import PlannedCommit, Run, Step
    from triggers.storages.sql.rows import Row

#: How long to wait for a server that is unavailable when the storage is opened, in seconds. Later calls wait
#: for the timeout of the URL.
FIRST_TIMEOUT: Final = 5.0

#: The server ends a transaction whose process sends nothing for this part of the timeout, because others wait
#: for it.
IDLE_PART: Final = 1 / 3

#: The shortest time after which the server ends a statement or an idle transaction, in seconds.
SHORTEST: Final = 1.0

#: The mark of a replica, and the SQLSTATE with which it refuses to read the table of marks.
REPLICA: Final = "replica"
CLOSED: Final = "0A000"

#: The statement that can read a whole table.
SEARCH: Final = "purge_find"

_IN_INDEX_ORDER: Final = (
    "sessions",
    "instances",
    "instances_flagged",
    "firings",
    "logs",
    "logs_latest",
    "logs_of_instance",
    "logs_of_instance_latest",
    "renew",
    "due",
    "expired",
    "next_at",
    "timed_sessions",
    "timers_of",
)

#: Statement → its settings: for a statement that reads an index in its order and stops early, and for one
#: that can read a whole table.
SETTINGS: Final[dict[str, tuple[Step, ...]]] = {
    **dict.fromkeys(_IN_INDEX_ORDER, (("index_order", ()),)),
    SEARCH: (("index_order", ()), ("no_statement_timeout", ())),
}


class PostgresStorage:
    """Sessions in one schema of a PostgreSQL database, shared by threads, processes and machines.

    Args:
        url: ``postgresql://user:password@host:port/database`` with the options ``schema=`` (triggers),
            ``pool_size=`` (10 connections of a process), ``timeout=`` (30 seconds) and
            ``prepare=auto|on|off``. All other options, such as ``sslmode=``, are passed to libpq.

    Raises:
        StorageError: the server cannot be reached or used, or a newer version of Triggers wrote the schema.
    """

    def __init__(self, url: str) -> None:
        self._url = PostgresUrl.parse(url)
        self._texts = {name: text.encode() for name, text in texts(self._url.schema).items()}
        self._pool: Pool | JoinedPool = Pool(self._url, self._texts, self._initialize)
        self._mark = ""
        self.problems: Problems = Problems()
        self._rules: RuleCache[int] = RuleCache(self.problems)
        self._decisions = DecisionRunner(self._rules)
        self._is_prepared = False
        self._root = self._pool
        self._announcer = Announcer(self._url.shown, partial(announcing.announce, self._root))
        self._pool.with_retries(lambda *_: None, min(self._url.timeout, FIRST_TIMEOUT))

    @classmethod
    def from_url(cls, url: str) -> PostgresStorage:
        """Open the database at this URL."""
        return cls(url)

    def __repr__(self) -> str:
        return f"PostgresStorage({self._url.shown!r})"

    @property
    def reader(self) -> PostgresStorage:
        """The storage itself, which is also the plug for reading."""
        return self

    def now(self) -> int:
        """The time by the server's clock, in microseconds."""
        ((now,),) = self._ask("clock")
        return int(now)

    def close(self) -> None:
        """Close all connections; those in use, when they are returned. A later call opens new ones."""
        self._pool.forget()

    def announce(self) -> None:
        """Notify the processes that listen that work is due."""
        self._announcer.announce()

    def listen(self, woken: threading.Event) -> ConnectedListener:
        """Listen on a connection that does not belong to the pool."""
        return ConnectedListener(self._url.shown, partial(announcing.subscribe, self._root), woken)

    def joined(self, connection: Any) -> PostgresStorage:
        """A view that takes part in the transaction that is open on a connection to the same database."""
        pool = JoinedPool(self._url, connection, self._texts)
        mark = pool.mark()
        if mark and mark != self._mark:  # a restored server has another mark
            self._mark = self._ask("incarnation")[0][0]
        if not mark or mark != self._mark:
            message = (
                f"the connection is to another database than {self._url.shown}: one commit cannot "
                f"change two databases, so keep both in the same one"
            )
            raise StorageError(message)
        view = copy.copy(self)
        view._pool, view._decisions = pool, DecisionRunner(self._rules.read_only())  # noqa: SLF001 - of this class
        return view

    # -- writing ----------------------------------------------------------------------------------------

    def commit(self, uid: str, decision: Decision, timeout: float | None = None) -> Changes:
        """Run a decision about a session and apply its changes, in one transaction."""
        exclusive = decision.exclusive

        def once(wire: PipelineConnection, until: float) -> Changes:
            begin = [("begin", ()), *self._session_settings(wire, timeout), VERSION_CHECK]
            run: Run = lambda steps: run_checked(wire, self._url, steps, until)  # noqa: E731 - typed
            decided = self._decisions.decide(run, uid, decision, exclusive=exclusive, before=begin)
            return self._commit(wire, until, decided)

        for _ in range(MAX_CONFLICTS):
            try:
                return self._pool.with_retries(once, timeout)
            except NeedsSession:  # this run was rolled back
                exclusive = True
            except ConflictError:
                continue
            except InDoubtError as in_doubt:
                if self._was_committed(in_doubt, timeout):
                    return in_doubt.decided.changes
        raise ConflictError.too_often(uid)

    def commit_many(
        self, decisions: Sequence[tuple[str, Decision]], timeout: float | None = None
    ) -> list[Changes | Exception]:
        """Commit decisions about several sessions, each in a transaction of its own."""
        # Without a limit, each of them would wait for a server that is unavailable.
        return commit_each(self, decisions, self._url.timeout if timeout is None else timeout)

    def _commit(self, wire: PipelineConnection, until: float, decided: PlannedCommit) -> Changes:
        if not decided.steps:
            wire([("rollback", ())], until)
            return decided.changes
        steps = [*decided.steps, ("commit", ())]
        try:
            wire(steps, until)
        except LostError as lost:
            if lost.answered < len(steps):
                raise InDoubtError(wire.incarnation, decided) from None
        except (ServerError, TriggersError):
            raise
        except BaseException as error:  # an interrupt: the server can have committed, or still commit
            add_outcome(error, self._was_committed, InDoubtError(wire.incarnation, decided))
            raise
        return decided.changes

    def _was_committed(self, in_doubt: InDoubtError, timeout: float | None) -> bool:
        """Whether a commit whose answer was lost has happened.

        Raises:
            StorageError: this cannot be found out.
        """
        decided = in_doubt.decided
        wait = None if timeout is None else max(timeout, FIRST_TIMEOUT)
        try:
            outcome = self._pool.with_retries(lambda wire, until: commit_outcome(wire, until, in_doubt), wait)
        except StorageError as error:
            outcome, why = None, str(error).replace("; nothing was changed", "")
        else:
            why = "the server no longer knows, or was restored"
        if outcome is None:
            message = (
                f"the connection to {self._url.shown} was lost during a commit of session "
                f"{decided.changes.session.uid!r} (transaction {decided.transaction}), and it cannot be "
                f"told whether the commit was made ({why}): look at the session before you try again"
            )
            raise StorageError(message)
        return outcome

    # -- claims and records -------------------------------------------------------------------------------

    def renew(self, leases: Collection[Lease], lease: int) -> set[Lease]:
        """Extend the leases of claims that still hold; returns the others."""
        if not leases:
            return set()
        held = self._ask("renew", *map(list, zip(*leases, strict=True)), lease)
        return set(leases) - {Lease(*row) for row in held}

    def due(self, limit: int, *, grace: int, include_recent: bool = False) -> list[ReadyInstance]:
        """Take instances to dispatch, those that have waited longest first."""
        horizon = MAX_PAUSE * grace if include_recent else 0
        found = self._ask("due", horizon, limit, grace, MAX_PAUSE)
        known = self._decisions.readable_rules(self._run, [row[0] for row in found])
        return [ReadyInstance.by(known[row[0]], *row[1:]) for row in found if row[0] in known]

    def expired(self, limit: int) -> list[Expired]:
        """Running instances whose lease has expired."""
        return [Expired(*row) for row in self._ask("expired", limit)]

    def timed_sessions(self, limit: int, managers: Collection[str]) -> list[TimedSession]:
        """Sessions that have timers, the first to elapse first."""
        return [TimedSession(*row) for row in self._ask("timed_sessions", sorted(set(managers)), limit)]

    def purge_logs(self, purge: Purge, *, after: int = 0, limit: int = 500) -> Purged:
        """Delete a batch of old records, or only their contexts.

        The search can take long and locks nothing. What it finds is checked again with the instances locked,
        because a review can have been reopened meanwhile.
        """
        rule = (purge.before, purge.max_level, purge.threshold, purge.contexts_only)
        found = [row[0] for row in self._ask("purge_find", *rule, after, limit)]
        following = found[-1] if len(found) == limit else None
        if purge.dry_run or not found:
            return Purged(len(found), following)
        return Purged(
            self._pool.with_retries(lambda wire, until: self._purge(wire, until, rule, found)), following
        )

    def _purge(
        self, wire: PipelineConnection, until: float, rule: tuple[int, int, int, bool], found: list[int]
    ) -> int:
        begin: list[Step] = [("begin", ()), *self._session_settings(wire), VERSION_CHECK]
        still = run_checked(wire, self._url, [*begin, ("purge_check", (*rule, found))], until)[-1]
        steps: list[Step] = [("purge_context", (ref, rows.without_context(tree))) for ref, tree in still]
        if not rule[-1]:
            steps = [("purge_records", ([ref for ref, _ in still],))]
        wire([*steps, ("commit", ())], until)
        return len(still)

    # -- reading ----------------------------------------------------------------------------------------

    def preview(self, uid: str, decision: Decision) -> Changes:
        """Run a decision about a session and store nothing, in a transaction that reads a snapshot."""

        def once(wire: PipelineConnection, until: float) -> Changes:
            begin = [("begin_reading", ()), *self._session_settings(wire), VERSION_CHECK]
            run: Run = lambda steps: run_checked(wire, self._url, steps, until)  # noqa: E731 - typed
            changes = self._decisions.preview(run, uid, decision, before=begin)
            wire([("rollback", ())], until)
            return changes

        return self._pool.with_retries(once)

    def sessions(self, after: str = "", limit: int = 100) -> list[Session]:
        """A page of heads in the order of their UIDs."""
        return self._decisions.sessions(self._run, self._ask("sessions", after, limit))

    def session(self, uid: str) -> Session | None:
        """The head of a session; None if it is not stored."""
        found = self._decisions.sessions(self._run, [(*row, uid) for row in self._ask("session", uid)])
        return found[0] if found else None

    def counters(self, uid: str) -> dict[str, Counter]:
        """How many instances each task has."""
        return {row[0]: Counter(*row[1:]) for row in self._ask("counters", uid)}

    def instance(self, uid: str, task: str, number: int) -> Instance | None:
        """One instance by task and number; None if it is not stored."""
        found = self._ask("instance_of", uid, task, number)
        return rows.instance_from_row(found[0]) if found else None

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
        """A page of instances in the order of task and number."""
        wanted = None if statuses is None else [status.value for status in statuses]
        given: tuple[Any, ...] = (uid, *after, task, wanted, limit)
        query = "instances"
        if flagged is not None:
            query, given = "instances_flagged", (*given, flagged)
        return [rows.instance_from_row(row) for row in self._ask(query, *given)]

    def firings(
        self, uid: str, *, numbers: Collection[int] | None = None, after: int = 0, limit: int = 100
    ) -> list[Firing]:
        """A page of firings in their order, or those with the given numbers."""
        if numbers is None:
            found = self._ask("firings", uid, after, limit)
        else:
            found = self._ask("firings_numbered", uid, list(set(numbers)))
        return [rows.firing_from_row(row) for row in found]

    def timers(
        self,
        uid: str,
        *,
        names: Collection[str] | None = None,
        after: tuple[int, int] = BEFORE_ALL,
        limit: int = 100,
    ) -> list[Timer]:
        """A page of timers by their time and number, or those with the given names."""
        if names is None:
            found = self._ask("timers_of", uid, *after, limit)
        else:
            found = self._ask("timers_named_of", uid, list(names))
        return [rows.timer_from_row(row) for row in found]

    def latest(self, uid: str, triggers: Collection[str]) -> dict[str, Firing]:
        """The latest firing of each of these triggers that has ever fired."""
        found = map(rows.firing_from_row, self._ask("latest", uid, list(triggers)))
        return {firing.trigger: firing for firing in found}

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
        """A page of records in the order in which they were stored."""
        name = "logs" if instance is None else "logs_of_instance"
        given = (after, min_level, escaped(text), unresolved, fingerprint, limit, *(instance or ()))
        found = self._ask(f"{name}_latest" if latest else name, uid, *given)
        return [record_from_row(row) for row in (found[::-1] if latest else found)]

    def backlog(self) -> Backlog:
        """Count the instances that are scheduled or running."""
        return Backlog(*self._ask("backlog")[0])

    def next_at(self) -> int | None:
        """When the next instance has to be dispatched or rescued; None if there is none."""
        ((at,),) = self._ask("next_at")
        return None if at is None else int(at)

    # -- connections --------------------------------------------------------------------------------------

    def _ask(self, name: str, *given: Any) -> list[Row]:
        """Run one statement, which is a transaction of its own, with its settings."""
        settings = SETTINGS.get(name, ())

        def once(wire: PipelineConnection, until: float) -> list[Row]:
            begin = [*self._session_settings(wire), VERSION_CHECK]
            if name == SEARCH:  # checked in a separate transaction, so that no migration waits for it
                run_checked(wire, self._url, begin, until)
                return wire([*begin[:-1], *settings, (name, given)])[-1]
            return run_checked(wire, self._url, [*begin, *settings, (name, given)], until)[-1]

        return self._pool.with_retries(once)

    def _run(self, steps: Sequence[Step]) -> list[list[Row]]:
        return [self._ask(name, *given) for name, given in steps]

    def _initialize(self, wire: PipelineConnection, until: float) -> None:
        """Prepare a new connection; the first one also checks the server and its schema."""
        if not wire.is_pooled:
            wire([self._settings(transaction_only=False)], until)
        if not self._is_prepared:
            postgres_schema.prepare(wire, self._url, time.monotonic() + self._url.timeout)
            self._is_prepared = True
        wire.incarnation = _incarnation(wire, until)

    def _session_settings(self, wire: PipelineConnection, timeout: float | None = None) -> list[Step]:
        """The settings with which a transaction begins, if those of the connection are not enough."""
        if wire.is_pooled:
            return [self._settings(timeout)]
        return [] if timeout is None else [("lock_timeout", (_milliseconds(timeout),))]

    def _settings(self, timeout: float | None = None, *, transaction_only: bool = True) -> Step:
        wait = self._url.timeout
        times = (
            wait if timeout is None else timeout,
            max(2 * wait, SHORTEST),
            max(IDLE_PART * wait, SHORTEST),
        )
        plans = "auto" if transaction_only else "force_generic_plan"
        return "session_settings", (*map(_milliseconds, times), plans, transaction_only)


def _incarnation(wire: PipelineConnection, until: float) -> str:
    """The mark of the server. On a replica, the unlogged table that has it cannot be read."""
    try:
        while not (found := wire([("incarnation", ())], until)[0]):
            wire([("incarnate", ())], until)
    except ServerError as error:
        if error.code == CLOSED:
            return REPLICA
        raise
    mark: str = found[0][0]
    return mark


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))
