"""PostgreSQL: the storage where sessions are shared by many machines.

Every commit is one transaction, READ COMMITTED, that first locks the session's row (a claim: its instance's).
What is sent together is one exchange with the server, a round trip:

=================================================  ==============================================
fire, finish                                       2 if their caller knew the session's rules, else 3
claim, logs, fail, release, recovery               2
what people decide                                 2; with a cascade or a new configuration 3
the first firing into a session                    2
heartbeats of any number of claims, due, expired   1
every read                                         1
=================================================  ==============================================

What a decision has to see beyond that costs one more, each time that it asks, and so does, once, a rule set
that a process has never seen.
"""

from __future__ import annotations

import copy
import time
from typing import TYPE_CHECKING, Any, Final

from triggers.core.exchange import NeedsSession
from triggers.core.state import Counter
from triggers.exceptions import StorageError
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
)
from triggers.storages.postgres import schema as postgres_schema
from triggers.storages.postgres.connection import LostError
from triggers.storages.postgres.decide import DecisionRunner
from triggers.storages.postgres.in_doubt import InDoubtError, commit_outcome
from triggers.storages.postgres.joined import JoinedPool
from triggers.storages.postgres.pool import Pool
from triggers.storages.postgres.records import escaped, record_from_row
from triggers.storages.postgres.statements import texts
from triggers.storages.postgres.url import PostgresUrl
from triggers.storages.rule_cache import RuleCache
from triggers.storages.sql import rows

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from triggers.core.exchange import Changes, Decision
    from triggers.core.state import Firing, Instance, Session
    from triggers.core.status import Status
    from triggers.storages.base import StoredRecord
    from triggers.storages.postgres.connection import PipelineConnection
    from triggers.storages.postgres.decide import PlannedCommit, Run, Step
    from triggers.storages.sql.rows import Row

#: How long a server may not be there at first, in seconds; later it may for as long as the URL says.
FIRST_PATIENCE: Final = 5.0

#: After this part of the timeout the server ends a transaction whose process is silent: it holds others up.
SILENCE: Final = 1 / 3

#: Neither that nor what ends a statement is ever shorter than this, in seconds.
SHORTEST: Final = 1.0

#: Settings for what goes along an index and stops early, and for what may have to go a long way.
WALK: Final[tuple[Step, ...]] = (("walk", ()),)
SEARCH: Final[tuple[Step, ...]] = (("walk", ()), ("unhurried", ()))


class PostgresStorage:
    """Sessions in one schema of a PostgreSQL database, shared by threads, processes and machines.

    Args:
        url: ``postgresql://user:password@host:port/database`` with the options ``schema=`` (triggers),
            ``pool_size=`` (10 connections of a process), ``timeout=`` (30 seconds) and
            ``prepare=auto|on|off``; all others, such as ``sslmode=``, go to libpq.

    Raises:
        StorageError: the server cannot be reached or used, or its schema was written by a newer version.
    """

    def __init__(self, url: str) -> None:
        self._url = PostgresUrl.parse(url)
        self._texts = {name: text.encode() for name, text in texts(self._url.schema).items()}
        self._pool: Pool | JoinedPool = Pool(self._url, self._texts, self._initialize)
        self._mark = ""
        self._rules: RuleCache[int] = RuleCache()
        self._decisions = DecisionRunner(self._rules)
        self._is_prepared = False
        self._pool.with_retries(lambda *_: None, min(self._url.timeout, FIRST_PATIENCE))

    @classmethod
    def from_url(cls, url: str) -> PostgresStorage:
        """Open the database that the URL names."""
        return cls(url)

    def __repr__(self) -> str:
        return f"PostgresStorage({self._url.shown!r})"

    @property
    def reader(self) -> PostgresStorage:
        """Itself: it reads, too."""
        return self

    def now(self) -> int:
        """The server's time."""
        ((now,),) = self._ask("clock")
        return int(now)

    def close(self) -> None:
        """Close every connection, those in use when they no longer are; a later call opens new ones."""
        self._pool.forget()

    def joined(self, connection: Any) -> PostgresStorage:
        """A view that takes part in the transaction that is open on a connection to the same database."""
        pool = JoinedPool(self._url, connection, self._texts)
        there = pool.mark()
        if there and there != self._mark:  # also after the server was restored
            self._mark = self._ask("incarnation")[0][0]
        if not there or there != self._mark:
            message = (
                f"the connection leads to another database than {self._url.shown}: a commit is for one "
                f"database, so keep both in the same one"
            )
            raise StorageError(message)
        view = copy.copy(self)
        view._pool, view._decisions = pool, DecisionRunner(self._rules.read_only())  # noqa: SLF001 - of this class
        return view

    # -- writing ----------------------------------------------------------------------------------------

    def commit(self, uid: str, decision: Decision, timeout: float | None = None) -> Changes:
        """Let a decision be made about a session and apply it, in one transaction."""
        exclusive = decision.exclusive

        def once(wire: PipelineConnection, until: float) -> Changes:
            begin = [("begin", ()), *self._session_settings(wire, timeout)]
            run: Run = lambda steps: wire(steps, until)  # noqa: E731 - typed
            decided = self._decisions.decide(run, uid, decision, exclusive=exclusive, before=begin)
            return self._commit(wire, until, decided)

        for _ in range(MAX_CONFLICTS):
            try:
                return self._pool.with_retries(once, timeout)
            except NeedsSession:  # everything of this run was rolled back
                exclusive = True
            except ConflictError:
                continue
            except InDoubtError as in_doubt:
                if self._was_committed(in_doubt, timeout):
                    return in_doubt.decided.changes
        raise ConflictError.too_often(uid)

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
        return decided.changes

    def _was_committed(self, in_doubt: InDoubtError, timeout: float | None) -> bool:
        """Whether a commit was made whose answer was lost.

        Raises:
            StorageError: nobody can tell.
        """
        decided = in_doubt.decided
        wait = None if timeout is None else max(timeout, FIRST_PATIENCE)
        try:
            stands = self._pool.with_retries(lambda wire, until: commit_outcome(wire, until, in_doubt), wait)
        except StorageError as error:
            stands, why = None, str(error).replace("; nothing was changed", "")
        else:
            why = "the server has forgotten, or was restored"
        if stands is None:
            message = (
                f"the connection to {self._url.shown} was lost while session {decided.changes.session.uid!r} "
                f"was committed (transaction {decided.transaction}), and whether it was cannot be told "
                f"({why}): look at the session before you try again"
            )
            raise StorageError(message)
        return stands

    # -- claims and records -------------------------------------------------------------------------------

    def renew(self, leases: Collection[Lease], lease: int) -> set[Lease]:
        """Extend the claims that still hold."""
        if not leases:
            return set()
        held = self._ask("renew", *map(list, zip(*leases, strict=True)), lease)
        return set(leases) - {Lease(*row) for row in held}

    def due(self, limit: int, *, grace: int, include_recent: bool = False) -> list[ReadyInstance]:
        """Take what is to be handed over."""
        horizon = MAX_PAUSE * grace if include_recent else 0
        found = self._ask("due", horizon, limit, grace, MAX_PAUSE, before=WALK)
        every = self._decisions.rules(self._run, [row[0] for row in found])
        return [ReadyInstance.by(rules, *row[1:]) for rules, row in zip(every, found, strict=True)]

    def expired(self, limit: int) -> list[Expired]:
        """The claims that ran out."""
        return [Expired(*row) for row in self._ask("expired", limit, before=WALK)]

    def purge_logs(self, purge: Purge, *, after: int = 0, limit: int = 500) -> Purged:
        """Remove a batch of old records, or their contexts.

        Looking for them, which may take a while, holds nobody up: only what was found is looked at again with
        its instances locked, since a person may have opened a review again.
        """
        rule = (purge.before, purge.max_level, purge.threshold, purge.contexts_only)
        found = [row[0] for row in self._ask("purge_find", *rule, after, limit, before=SEARCH)]
        following = found[-1] if len(found) == limit else None
        if purge.dry_run or not found:
            return Purged(len(found), following)
        return Purged(
            self._pool.with_retries(lambda wire, until: _purge(wire, until, rule, found)), following
        )

    # -- reading ----------------------------------------------------------------------------------------

    def sessions(self, after: str = "", limit: int = 100) -> list[Session]:
        """Sessions in the order of their UIDs."""
        return self._decisions.sessions(self._run, self._ask("sessions", after, limit))

    def session(self, uid: str) -> Session | None:
        """The head of a session."""
        found = self._decisions.sessions(self._run, [(*row, uid) for row in self._ask("session", uid)])
        return found[0] if found else None

    def counters(self, uid: str) -> dict[str, Counter]:
        """Task → counter."""
        return {row[0]: Counter(*row[1:]) for row in self._ask("counters", uid)}

    def instance(self, uid: str, task: str, number: int) -> Instance | None:
        """One instance."""
        found = self._ask("instance", uid, task, number)
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
        """A page of instances."""
        wanted = None if statuses is None else [status.value for status in statuses]
        given: tuple[Any, ...] = (uid, *after, task, wanted, limit)
        query = "instances"
        if flagged is not None:
            query, given = "instances_flagged", (*given, flagged)
        return [rows.instance_from_row(row) for row in self._ask(query, *given)]

    def firings(
        self, uid: str, *, numbers: Collection[int] | None = None, after: int = 0, limit: int = 100
    ) -> list[Firing]:
        """Firings in their order."""
        if numbers is None:
            found = self._ask("firings", uid, after, limit)
        else:
            found = self._ask("firings_numbered", uid, list(numbers))
        return [rows.firing_from_row(row) for row in found]

    def latest(self, uid: str, triggers: Collection[str]) -> dict[str, Firing]:
        """Trigger → its latest firing."""
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
        """A page of records."""
        name = "logs" if instance is None else "logs_of_instance"
        given = (after, min_level, escaped(text), unresolved, fingerprint, limit, *(instance or ()))
        found = self._ask(f"{name}_latest" if latest else name, uid, *given)
        return [record_from_row(row) for row in (found[::-1] if latest else found)]

    def backlog(self) -> Backlog:
        """What is still to do."""
        return Backlog(*self._ask("backlog")[0])

    def next_at(self) -> int | None:
        """When the next one wants attention."""
        ((at,),) = self._ask("next_at")
        return None if at is None else int(at)

    # -- connections --------------------------------------------------------------------------------------

    def _ask(self, name: str, *given: Any, before: tuple[Step, ...] = ()) -> list[Row]:
        """Run one statement, which is a transaction of its own, with these settings."""

        def once(wire: PipelineConnection, until: float) -> list[Row]:
            steps = [*self._session_settings(wire), *before, (name, given)]
            return wire(steps, None if before is SEARCH else until)[-1]

        return self._pool.with_retries(once)

    def _run(self, steps: Sequence[Step]) -> list[list[Row]]:
        return [self._ask(name, *given) for name, given in steps]

    def _initialize(self, wire: PipelineConnection, until: float) -> None:
        """Once for every connection; the first one of all finds out whether the database can be used."""
        if not wire.is_pooled:
            wire([self._all_manners(for_good=True)], until)
        if not self._is_prepared:
            postgres_schema.prepare(wire, self._url, time.monotonic() + self._url.timeout)
            self._is_prepared = True
        while not (found := wire([("incarnation", ())], until)[0]):
            wire([("incarnate", ())], until)
        wire.incarnation = found[0][0]

    def _session_settings(self, wire: PipelineConnection, timeout: float | None = None) -> list[Step]:
        """What a transaction begins with: its settings, where the connection's own are not right."""
        if wire.is_pooled:
            return [self._all_manners(timeout)]
        return [] if timeout is None else [("patience", (_milliseconds(timeout),))]

    def _all_manners(self, timeout: float | None = None, *, for_good: bool = False) -> Step:
        wait = self._url.timeout
        times = (
            wait if timeout is None else timeout,
            max(2 * wait, SHORTEST),
            max(SILENCE * wait, SHORTEST),
        )
        plans = "force_generic_plan" if for_good else "auto"
        return "manners", (*map(_milliseconds, times), plans, not for_good)


def _milliseconds(seconds: float) -> str:
    return str(max(1, round(seconds * 1000)))


def _purge(wire: PipelineConnection, until: float, rule: tuple[int, int, int, bool], found: list[int]) -> int:
    still = wire([("begin", ()), ("purge_check", (*rule, found))], until)[-1]
    steps: list[Step] = [("purge_context", (ref, rows.without_context(tree))) for ref, tree in still]
    if not rule[-1]:
        steps = [("purge_records", ([ref for ref, _ in still],))]
    wire([*steps, ("commit", ())], until)
    return len(still)
