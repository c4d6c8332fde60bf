"""What passes between the core and a storage: questions, answers and changes.

A decision asks with a :class:`Need`. A storage answers with a :class:`Slice`, which is never a whole session.
The decision ends with :class:`Changes`, which the storage applies in the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

from triggers.core.records import LogEntry, fingerprint
from triggers.core.status import Status
from triggers.exceptions import UnsupportedRulesError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from triggers.core.state import Counter, Firing, Instance, Latest, Session
    from triggers.core.timers import Timer


class Need(NamedTuple):
    """What a decision needs to know. A storage loads all of it and nothing else.

    Attributes:
        key: the firing with this (trigger, idempotency key), if it exists.
        tasks: the counters of these tasks, None for those of all tasks.
        waiting: the unstarted instances that lack one of these triggers.
        latest: the latest firing of each of these triggers.
        instances: these instances, as (task, number).
        unstarted: all unstarted instances of these tasks.
        history: every firing of these triggers, in order.
        payloads: the kwargs of the firings that `instances` received.
        flagged: finished instances whose unresolved log level is at least this.
        flagged_limit: the maximum number of those.
        levels: (number, threshold, chosen): the highest level of the log records of the single instance in
            `instances` that are at or above the threshold, have a greater number, and are not among the
            chosen.
        timers: the first so many timers, by their time and number.
        timer_names: the timers with these names.
    """

    key: tuple[str, str] | None = None
    tasks: frozenset[str] | None = frozenset()
    waiting: tuple[str, ...] = ()
    latest: frozenset[str] = frozenset()
    instances: tuple[tuple[str, int], ...] = ()
    unstarted: frozenset[str] = frozenset()
    history: frozenset[str] = frozenset()
    payloads: bool = False
    flagged: int | None = None
    flagged_limit: int = 0
    levels: tuple[int, int, tuple[int, ...]] | None = None
    timers: int = 0
    timer_names: tuple[str, ...] = ()


@dataclass(slots=True)
class Slice:
    """What a storage found for a :class:`Need`. What does not exist is not in it."""

    keyed: Firing | None = None
    counters: dict[str, Counter] = field(default_factory=dict)
    instances: list[Instance] = field(default_factory=list)
    latest: dict[str, Latest] = field(default_factory=dict)
    history: list[Firing] = field(default_factory=list)
    payloads: dict[int, str] = field(default_factory=dict)
    flagged: list[tuple[str, int]] = field(default_factory=list)
    level: int = 0
    timers: list[Timer] = field(default_factory=list)
    named_timers: dict[str, Timer] = field(default_factory=dict)


class GuardedState(Protocol):
    """The part of an instance's stored state that a :class:`Guard` compares."""

    @property
    def status(self) -> Status:
        """The status that is stored now."""

    @property
    def fence(self) -> int:
        """The stored fencing token."""

    @property
    def lease_until(self) -> int | None:
        """The end of the stored lease, None without a claim."""


@dataclass(frozen=True, slots=True)
class Guard:
    """The state that an instance must still have for its change to be applied.

    A storage checks it in the same statement that writes the change.

    Attributes:
        status: the status when it was loaded.
        fence: the fencing token when it was loaded.
        lease_until: the lease when it was loaded, if the change ends an expired lease. None is not checked.
    """

    status: Status
    fence: int
    lease_until: int | None = None

    def holds(self, stored: GuardedState) -> bool:
        """Return whether the change may be applied to an instance that is stored in this state."""
        lease = stored.lease_until if self.lease_until is None else self.lease_until
        return (stored.status, stored.fence, stored.lease_until) == (self.status, self.fence, lease)


class Record(NamedTuple):
    """A log record to store: its instance, its number in the instance's log, from 1, and its attempt."""

    instance: Instance
    number: int
    fence: int
    attempt: int
    entry: LogEntry

    @property
    def fingerprint(self) -> str:
        """The fingerprint of its kind; records of the same kind share it."""
        return fingerprint(self.entry)


@dataclass(slots=True)
class Changes:
    """The result of a decision. A storage applies all of it in one transaction, or none of it.

    Attributes:
        session: the new head.
        fired: new firings, in order.
        scheduled_by: for each new firing, the instances that it scheduled.
        created: new instances. They are stored as a whole.
        triggered: unstarted instances that received triggers. Their `taken`, `vetoes`, status and times are
            stored.
        transitioned: other changed instances, each with its guard. They are stored as a whole.
        lacks: instances, with the triggers that they lack from now on.
        gained: instances, with the triggers that they no longer lack.
        counters: task → the new counter.
        logs: new log records.
        timers: name → the timer that is set from now on, None if there is none with that name any more.
        unfired: timers that have elapsed without firing, each with its problem.
        too_deep: new firings that reached no task, because too many firings led to them.
        new_rules: whether the session's rules are stored, too.
        writes_head: whether the session's head is stored.
        duplicate_of: the earlier firing with the same key, if the firing is a repeat.
        claimed: the instance that was claimed, or None.
        payloads: number of a firing → its kwargs, for the firings that the claimed instance received.
        refused: why the decision was refused, "" if it was not.
    """

    session: Session
    fired: list[Firing] = field(default_factory=list)
    scheduled_by: list[list[Instance]] = field(default_factory=list)
    created: list[Instance] = field(default_factory=list)
    triggered: list[Instance] = field(default_factory=list)
    transitioned: list[tuple[Instance, Guard]] = field(default_factory=list)
    lacks: list[tuple[Instance, frozenset[str]]] = field(default_factory=list)
    gained: list[tuple[Instance, frozenset[str]]] = field(default_factory=list)
    counters: dict[str, Counter] = field(default_factory=dict)
    logs: list[Record] = field(default_factory=list)
    timers: dict[str, Timer | None] = field(default_factory=dict)
    unfired: list[Timer] = field(default_factory=list)
    too_deep: list[Firing] = field(default_factory=list)
    new_rules: bool = False
    writes_head: bool = True
    duplicate_of: Firing | None = None
    claimed: Instance | None = None
    payloads: Mapping[int, str] = field(default_factory=dict)
    refused: str = ""

    @property
    def needs_session(self) -> bool:
        """Whether they concern more than single instances. Only an exclusive run may make such changes."""
        written = self.fired or self.created or self.counters or self.timers
        return bool(self.writes_head or self.new_rules or written)

    def scheduled(self) -> list[Instance]:
        """Return the instances that become scheduled."""
        moved = [instance for instance, guard in self.transitioned if guard.status is not Status.SCHEDULED]
        touched = (*self.triggered, *self.created, *moved)
        return [instance for instance in touched if instance.status is Status.SCHEDULED]


#: One run of a decision. It yields needs, gets slices, and returns the changes, without input or output.
DecisionRun = Generator[Need, Slice, Changes]


@dataclass(frozen=True, slots=True)
class Decision:
    """A change of a session that a storage can commit.

    The functions in :mod:`triggers.core.decisions` make decisions.

    Attributes:
        name: its name in messages and logs.
        begin: starts a run from the head of the session. A storage can start any number of runs, each with a
            newly loaded head. Only the changes of the last run are stored.
        exclusive: whether no other decision about the session may be made between loading and storing. A
            decision that is not exclusive changes one instance and nothing else.
        prefetch: what a run will most likely need first, None if that is unknown. A storage can load it
            together with the head. It is only a guess: the run gets what it asks for.
        by_rules: whether a run decides by the session's rules. Such a run is refused if a newer version wrote
            them.
    """

    name: str
    begin: Callable[[Session], DecisionRun]
    exclusive: bool = True
    prefetch: Need | None = None
    by_rules: bool = True

    def as_of(self, at: int) -> Decision:
        """Return the same decision, made as of a time in the past, but not before the session's latest time.

        Args:
            at: the time, in microseconds.
        """

        def begin(session: Session) -> DecisionRun:
            session.time = max(at, session.modified_at)
            return self.begin(session)

        return replace(self, begin=begin)

    def __call__(self, session: Session) -> DecisionRun:
        """Start a run, from a newly loaded head.

        Raises:
            UnsupportedRulesError: only a newer version understands the session's rules.
        """
        unsupported = session.rules.unsupported
        if self.by_rules and unsupported:
            message = (
                f"session {session.uid!r} has rules of a newer version of Triggers, which this one does not "
                f"understand: {', '.join(unsupported[:10])}; nothing was changed: update Triggers in this "
                f"process, or replace the configuration of the session"
            )
            raise UnsupportedRulesError(message)
        return self.begin(session)


class TimersDue(Exception):  # noqa: N818 - a request to the caller, not an error
    """Raised by a run before which timers of the session must elapse.

    Attributes:
        at: the time of the decision, in microseconds. Timers that are due later do not concern it.
    """

    def __init__(self, at: int) -> None:
        super().__init__(at)
        self.at = at


class NeedsSession(Exception):  # noqa: N818 - a request to the storage, not an error
    """Raised by a run that is not exclusive but must be.

    A decision can raise it at any point of a run whose :attr:`Session.exclusive` is false. In the same
    commit, the storage discards that run and starts an exclusive one.
    """
