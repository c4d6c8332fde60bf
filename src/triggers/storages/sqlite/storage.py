"""One SQLite file: the storage that needs no server.

Every commit is one ``BEGIN IMMEDIATE`` transaction, so the commits of all threads and processes into one file
happen one after another. Reads see a snapshot and wait for nothing.
"""

from __future__ import annotations

import copy
from contextlib import contextmanager
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from triggers.core.columns import RECORD
from triggers.core.exchange import Changes, Need, Slice
from triggers.core.state import Counter, Latest, Session
from triggers.core.timers import BEFORE_ALL
from triggers.health import Problems, readable
from triggers.storages.announcements import Announcer
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
    run_decision,
)
from triggers.storages.clock import wall_clock
from triggers.storages.rule_cache import RuleCache, place_of_rules
from triggers.storages.sql import rows, statements
from triggers.storages.sqlite.file import SqliteFile
from triggers.storages.sqlite.joined import JoinedFile
from triggers.storages.sqlite.listener import FileListener, announce

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Iterable, Iterator, Sequence

    from triggers.core.exchange import Decision
    from triggers.core.rules import RuleSet
    from triggers.core.state import Firing, Instance
    from triggers.core.status import Status
    from triggers.core.timers import Timer
    from triggers.storages.base import StoredRecord
    from triggers.storages.sqlite.transaction import Run

_PARTS: Final = {
    **rows.placeholders(ref="id", is_open=rows.OPEN),
    "{open}": rows.OPEN,
    "{purgeable}": rows.PURGEABLE,
}

#: The parameters of the statements that write columns.
_FIRING: Final = rows.Writer(rows.FIRING, given=("session",))
_CREATED: Final = rows.Writer(rows.CREATED, given=("session",))
_TRIGGERED: Final = rows.Writer(rows.TRIGGERED, ("ref",))
_TRANSITIONED: Final = rows.Writer(rows.TRANSITIONED, ("ref",), rows.GUARD)
_RECORD: Final = rows.Writer(RECORD, given=("session", "instance"))
_WRITERS: Final = {
    "firing_insert": _FIRING,
    "instance_insert": _CREATED,
    "instance_take": _TRIGGERED,
    "instance_move": _TRANSITIONED,
    "log_insert": _RECORD,
}


def _filled_in(name: str, text: str) -> str:
    for part, meaning in _PARTS.items():
        text = text.replace(part, meaning)
    return _WRITERS[name].filled_in(text, "?") if name in _WRITERS else text


SQL: Final = {name: _filled_in(name, text) for name, text in statements("sqlite").items()}
SQL["logs_latest"] = SQL["logs"].replace("{order}", "DESC")
SQL["logs"] = SQL["logs"].replace("{order}", "ASC")


class SqliteStorage:
    """Sessions in one SQLite file, shared by threads and processes.

    Args:
        url: ``sqlite:///relative.db`` or ``sqlite:////absolute.db``, with the options
            ``driver=auto|pysqlite3|sqlite3``, ``synchronous=full|normal``, ``busy_timeout=`` (seconds),
            ``shared=yes`` if the file contains tables of the application, and ``mode=ro`` to read it only.
        clock: returns the time in microseconds since the Unix epoch; the system's time by default.
        driver: a module with the interface of :mod:`sqlite3`, to be used instead of the one that the URL
            names.

    Raises:
        StorageError: the file cannot be opened, belongs to another program, or was written by a newer version
            of Triggers.
    """

    def __init__(self, url: str, *, clock: Callable[[], int] = wall_clock, driver: Any = None) -> None:
        file = SqliteFile.from_url(url, driver)
        self._file: SqliteFile | JoinedFile = file
        self._clock = clock
        self.problems: Problems = Problems()
        self._rules: RuleCache[int] = RuleCache(self.problems)
        self._announcer = Announcer(file.path, lambda _: announce(file.path))
        file.prepare()

    @classmethod
    def from_url(cls, url: str) -> SqliteStorage:
        """Open the file at this URL."""
        return cls(url)

    def __repr__(self) -> str:
        return f"SqliteStorage({self._file.url!r})"

    @property
    def reader(self) -> SqliteStorage:
        """The storage itself, which is also the plug for reading."""
        return self

    def now(self) -> int:
        """The time by the clock of this storage, in microseconds."""
        return self._clock()

    def close(self) -> None:
        """Close all connections. A later call opens new ones."""
        self._file.close()

    def announce(self) -> None:
        """Touch the file, which workers notice."""
        self._announcer.announce()

    def listen(self, woken: threading.Event) -> FileListener:
        """Watch the file for announcements and commits of any process."""
        return FileListener(self._file.root.path, woken)

    def joined(self, connection: Any) -> SqliteStorage:
        """A view that takes part in the transaction that is open on a connection to the same file."""
        view = copy.copy(self)
        view._file = JoinedFile(self._file.root, connection)  # noqa: SLF001 - an object of this class
        view._rules = self._rules.read_only()  # noqa: SLF001 - as above
        return view

    # -- writing ----------------------------------------------------------------------------------------

    def commit(self, uid: str, decision: Decision, timeout: float | None = None) -> Changes:
        """Run a decision about a session and apply its changes, in one transaction.

        A file has one write lock, so every run is exclusive.
        """
        for _ in range(MAX_CONFLICTS):
            try:
                with self._file.transaction(timeout) as run:
                    changes = self._decide(run, uid, decision)
                    self._apply(run, changes)
                    return changes
            except ConflictError:
                continue
        raise ConflictError.too_often(uid)

    def commit_many(
        self, decisions: Sequence[tuple[str, Decision]], timeout: float | None = None
    ) -> list[Changes | Exception]:
        """Commit decisions about several sessions in one transaction, each in a savepoint."""
        if not decisions:
            return []
        view = copy.copy(self)
        with self._rules.transaction() as view._rules, self._file.transaction(timeout) as run:  # noqa: SLF001 - of this class
            return [view._decide_apart(run, uid, decision) for uid, decision in decisions]  # noqa: SLF001 - as above

    def _decide_apart(self, run: Run, uid: str, decision: Decision) -> Changes | Exception:
        """Decide in a savepoint; returns the exception of a decision whose changes were undone.

        An error after which SQLite has rolled back the whole transaction is raised.
        """
        run("SAVEPOINT decision")
        try:
            changes = self._decide(run, uid, decision)
            self._apply(run, changes)
        except Exception as error:
            if not run.connection.in_transaction:
                raise
            run("ROLLBACK TO decision")
            run("RELEASE decision")
            return self._told(uid, error)
        run("RELEASE decision")
        return changes

    def _told(self, uid: str, error: Exception) -> Exception:
        """The exception that :meth:`commit` raises for this one."""
        file = self._file.root
        if isinstance(error, file.driver.Error):
            return file.translated(error)
        # The transaction holds the write lock, so another run would find the same.
        return ConflictError.too_often(uid) if isinstance(error, ConflictError) else error

    def _decide(self, run: Run, uid: str, decision: Decision) -> Changes:
        session = self._load_session(run, uid)
        return run_decision(decision, session, partial(self._load, run, session), exclusive=True)

    def renew(self, leases: Collection[Lease], lease: int) -> set[Lease]:
        """Extend the leases of claims that still hold; returns the others."""
        lost = set()
        with self._file.transaction() as run:
            until = self._clock() + lease
            for held in leases:
                if run(SQL["renew"], (until, *held)).rowcount != 1:
                    lost.add(held)
        return lost

    def due(self, limit: int, *, grace: int, include_recent: bool = False) -> list[ReadyInstance]:
        """Take instances to dispatch, those that have waited longest first."""
        now = self._clock()
        horizon = (now + MAX_PAUSE * grace if include_recent else now, now, limit)
        with self._file.reading() as run:
            if run(SQL["due"], horizon).fetchone() is None:
                return []
        with self._file.transaction() as run:
            found = run(SQL["due"], horizon).fetchall()
            for ref, *_, handovers in found:
                times = handovers if isinstance(handovers, int) else 0  # it may be damaged
                pause = grace * min(2**times, MAX_PAUSE)
                run(SQL["dispatched"], (now + pause, times + 1, ref))
            return [due for _, *where, rules, _ in found for due in self._due(run, rules, where)]

    def _due(self, run: Run, rules: int, where: Sequence[Any]) -> list[ReadyInstance]:
        """An instance to dispatch; none if the rules that name its runner cannot be read."""
        found: list[ReadyInstance] = []
        with readable(self.problems, place_of_rules(rules)):
            found.append(ReadyInstance.by(self._read_rules(run, rules), *where))
        return found

    def purge_logs(self, purge: Purge, *, after: int = 0, limit: int = 500) -> Purged:
        """Delete a batch of old records, or only their contexts.

        The search can take long and needs no lock. What it finds is checked again with the write lock,
        because a review can have been reopened meanwhile.
        """
        rule = (purge.before, purge.max_level, purge.threshold, purge.contexts_only)
        with self._file.reading() as run:
            found = [row[0] for row in run(SQL["purge_find"], (*rule, after, limit))]
        following = found[-1] if len(found) == limit else None
        if purge.dry_run or not found:
            return Purged(len(found), following)
        with self._file.transaction() as run:
            still = [row[0] for row in run(SQL["purge_check"], (*rule, rows.dump(found)))]
            for ref in still:
                if purge.contexts_only:
                    tree = run(SQL["log_exception"], (ref,)).fetchone()[0]
                    run(SQL["purge_context"], (rows.without_context(tree), ref))
                else:
                    run(SQL["purge_record"], (ref,))
        return Purged(len(still), following)

    def expired(self, limit: int) -> list[Expired]:
        """Running instances whose lease has expired."""
        with self._file.reading() as run:
            return [Expired(*row) for row in run(SQL["expired"], (self._clock(), limit))]

    def timed_sessions(self, limit: int, managers: Collection[str]) -> list[TimedSession]:
        """Sessions that have timers, the first to elapse first."""
        with self._file.reading() as run:
            found = [
                TimedSession(*row)
                for manager in set(managers)
                for row in run(SQL["timed_sessions"], (manager, limit))
            ]
        found.sort(key=lambda timed: (timed.at, timed.uid))
        return found[:limit]

    # -- a slice ----------------------------------------------------------------------------------------

    def _load_session(self, run: Run, uid: str) -> Session:
        row = run(SQL["session"], (uid,)).fetchone()
        return self._session(run, uid, *row) if row else Session(uid, self._clock())

    def _session(self, run: Run, uid: str, ref: int, rules: int, *rest: Any) -> Session:
        return Session(uid, self._clock(), ref, self._read_rules(run, rules), *rest)

    def _read_rules(self, run: Run, ref: int) -> RuleSet:
        return self._rules.one(ref, lambda ref: run(SQL["rules"], (ref,)).fetchone()[0])

    def _load(self, run: Run, session: Session, need: Need) -> Slice:
        found = Slice()
        if session.ref is None:
            return found
        ref = session.ref
        if need.key:
            row = run(SQL["keyed"], (ref, *need.key)).fetchone()
            found.keyed = rows.firing_from_row(row) if row else None
        self._load_names(run, ref, need, found)
        for trigger in need.waiting:
            found.instances += map(rows.instance_from_row, run(SQL["waiting"], (ref, trigger)))
        for where in need.instances:
            found.instances += map(rows.instance_from_row, run(SQL["instance"], (ref, *where)))
        if need.unstarted or need.history or need.payloads or need.flagged is not None or need.levels:
            self._load_rare(run, ref, need, found)
        if need.timers or need.timer_names:
            self._load_timers(run, ref, need, found)
        return found

    def _load_names(self, run: Run, ref: int, need: Need, found: Slice) -> None:
        if need.tasks is None:
            found.counters = {row[0]: Counter(*row[1:]) for row in run(SQL["counters_all"], (ref,))}
        tasks = need.tasks or ()
        if wanted := [*tasks, *need.latest]:
            statement, given = ("name", wanted[0]) if len(wanted) == 1 else ("names", rows.dump(wanted))
            for name, created, unresolved, latest, depth in run(SQL[statement], (ref, given)):
                if created and name in tasks:
                    found.counters[name] = Counter(created, unresolved)
                if latest and name in need.latest:
                    found.latest[name] = Latest(latest, depth)

    def _load_rare(self, run: Run, ref: int, need: Need, found: Slice) -> None:
        if need.unstarted:
            unstarted = run(SQL["unstarted"], (ref, rows.dump([*need.unstarted])))
            found.instances += map(rows.instance_from_row, unstarted)
        if need.history:
            history = run(SQL["history"], (ref, rows.dump([*need.history])))
            found.history = [rows.firing_from_row(row) for row in history]
        if need.payloads:
            numbers = {number for instance in found.instances for number in instance.taken.values()}
            found.payloads = dict(run(SQL["payloads"], (ref, rows.dump([*numbers]))).fetchall())
        if need.flagged is not None:
            found.flagged = run(SQL["flagged"], (ref, need.flagged, need.flagged_limit)).fetchall()
        if need.levels and found.instances:
            beyond, threshold, chosen = need.levels
            given = (found.instances[0].ref, beyond, threshold, rows.dump(chosen))
            found.level = run(SQL["log_level"], given).fetchone()[0]

    def _load_timers(self, run: Run, ref: int, need: Need, found: Slice) -> None:
        if need.timers:
            found.timers = _timers(run(SQL["timers"], (ref, *BEFORE_ALL, need.timers)))
        if need.timer_names:
            named = _timers(run(SQL["timers_named"], (ref, rows.dump(need.timer_names))))
            found.named_timers = {timer.name: timer for timer in named}

    # -- changes ----------------------------------------------------------------------------------------

    def _apply(self, run: Run, changes: Changes) -> None:
        session = changes.session
        if changes.writes_head:
            self._apply_head(run, changes)
        for firing in changes.fired:
            run(SQL["firing_insert"], _FIRING.write(firing, _ref(session)))
            run(SQL["latest_upsert"], (session.ref, firing.trigger, firing.number, firing.depth))
        for made in changes.created:
            made.ref = run(SQL["instance_insert"], _CREATED.write(made, _ref(session))).lastrowid
        if changes.triggered:
            run.many(SQL["instance_take"], map(_TRIGGERED.write, changes.triggered), len(changes.triggered))
        for moved, guard in changes.transitioned:
            run.one(
                SQL["instance_move"],
                _TRANSITIONED.write(moved, guard.status.value, guard.fence, guard.lease_until),
            )
        self._apply_waiting(run, changes)
        for task, counter in changes.counters.items():
            run(SQL["counter_upsert"], (session.ref, task, counter.created, counter.unresolved))
        if changes.timers:
            self._apply_timers(run, changes)
        if changes.logs:
            ref = _ref(session)
            said = (_RECORD.write(record, ref, record.instance.ref) for record in changes.logs)
            run.many(SQL["log_insert"], said)

    def _apply_head(self, run: Run, changes: Changes) -> None:
        head = changes.session
        numbers = (head.manager, head.firings, head.pending, head.finalized, head.metadata)
        timers = (head.modified_at, head.next_timer_at, head.timer_count)
        if head.ref is None:
            rules = self._store_rules(run, head.rules)
            new = (head.uid, rules, *numbers, head.created_at, *timers)
            head.ref = run(SQL["session_insert"], new).lastrowid
            return
        run(SQL["session_update"], (*numbers, *timers, head.ref))
        if changes.new_rules:
            run(SQL["session_rules"], (self._store_rules(run, head.rules), head.ref))

    def _apply_waiting(self, run: Run, changes: Changes) -> None:
        session = changes.session
        if changes.gained:
            run.many(SQL["waiting_delete"], _index(session, changes.gained))
        if changes.lacks:
            run.many(SQL["waiting_insert"], _index(session, changes.lacks))

    def _apply_timers(self, run: Run, changes: Changes) -> None:
        ref = _ref(changes.session)
        for name, timer in changes.timers.items():
            if timer is None:
                run(SQL["timer_delete"], (ref, name))
            else:
                run(SQL["timer_upsert"], (ref, *rows.timer_to_row(timer)))

    def _store_rules(self, run: Run, rules: RuleSet) -> int:
        run(SQL["rules_insert"], (rules.digest, rules.body))
        ref: int = run(SQL["rules_id"], (rules.digest,)).fetchone()[0]
        return ref

    # -- reading ----------------------------------------------------------------------------------------

    def preview(self, uid: str, decision: Decision) -> Changes:
        """Run a decision about a session and store nothing, in a transaction that reads a snapshot."""
        with self._file.reading() as run:
            return self._decide(run, uid, decision)

    def sessions(self, after: str = "", limit: int = 100) -> list[Session]:
        """A page of heads in the order of their UIDs."""
        with self._file.reading() as run:
            found = run(SQL["sessions"], (after, limit)).fetchall()
            return [self._session(run, *row) for row in found]

    def session(self, uid: str) -> Session | None:
        """The head of a session; None if it is not stored."""
        with self._file.reading() as run:
            session = self._load_session(run, uid)
        return session if session.ref is not None else None

    def counters(self, uid: str) -> dict[str, Counter]:
        """How many instances each task has."""
        with self._session_of(uid) as (run, ref):
            return {row[0]: Counter(*row[1:]) for row in run(SQL["counters_all"], (ref,))}

    def instance(self, uid: str, task: str, number: int) -> Instance | None:
        """One instance by task and number; None if it is not stored."""
        with self._session_of(uid) as (run, ref):
            row = run(SQL["instance"], (ref, task, number)).fetchone()
            return rows.instance_from_row(row) if row else None

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
        wanted = None if statuses is None else rows.dump([status.value for status in statuses])
        given: tuple[Any, ...] = (*after, task, wanted, limit)
        query = "instances"
        if flagged is not None:
            query, given = "instances_flagged", (*given, flagged)
        with self._session_of(uid) as (run, ref):
            return [rows.instance_from_row(row) for row in run(SQL[query], (ref, *given))]

    def firings(
        self, uid: str, *, numbers: Collection[int] | None = None, after: int = 0, limit: int = 100
    ) -> list[Firing]:
        """A page of firings in their order, or those with the given numbers."""
        with self._session_of(uid) as (run, ref):
            if numbers is None:
                found = run(SQL["firings"], (ref, after, limit))
            else:
                found = run(SQL["firings_numbered"], (ref, rows.dump([*numbers])))
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
        with self._session_of(uid) as (run, ref):
            if names is None:
                return _timers(run(SQL["timers"], (ref, *after, limit)))
            return _timers(run(SQL["timers_named"], (ref, rows.dump([*names]))))

    def latest(self, uid: str, triggers: Collection[str]) -> dict[str, Firing]:
        """The latest firing of each of these triggers that has ever fired."""
        with self._session_of(uid) as (run, ref):
            found = map(rows.firing_from_row, run(SQL["latest"], (ref, rows.dump([*triggers]))))
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
        given = (after, *(instance or (None, None)), min_level, text, unresolved, fingerprint, limit)
        with self._session_of(uid) as (run, ref):
            found = [
                rows.record_from_row(row)
                for row in run(SQL["logs_latest" if latest else "logs"], (ref, *given))
            ]
        return found[::-1] if latest else found

    def backlog(self) -> Backlog:
        """Count the instances that are scheduled or running."""
        with self._file.reading() as run:
            return Backlog(*run(SQL["backlog"], (self._clock(),)).fetchone())

    def next_at(self) -> int | None:
        """When the next instance has to be dispatched or rescued; None if there is none."""
        with self._file.reading() as run:
            times = run(SQL["next_at"]).fetchone()
        return min(filter(None, times), default=None)

    @contextmanager
    def _session_of(self, uid: str) -> Iterator[tuple[Run, int]]:
        """A connection and the reference of the session; -1, which no row has, if it is not stored."""
        with self._file.reading() as run:
            row = run(SQL["session"], (uid,)).fetchone()
            yield run, row[0] if row else -1


def _ref(session: Session) -> int:
    assert session.ref is not None  # noqa: S101 - the head of a new session was stored just before
    return session.ref


def _timers(found: Iterable[Sequence[Any]]) -> list[Timer]:
    return [rows.timer_from_row(row) for row in found]


def _index(session: Session, entries: list[tuple[Instance, frozenset[str]]]) -> Iterator[tuple[Any, ...]]:
    return ((session.ref, trigger, instance.ref) for instance, triggers in entries for trigger in triggers)
