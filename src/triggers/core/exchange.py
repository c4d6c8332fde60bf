"""What passes between the core and a storage: questions, answers and changes.

A decision asks with a :class:`Need`. A storage answers with a :class:`Slice`, which is never a whole session.
The decision ends with :class:`Changes`, which the storage applies in the same transaction.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, Protocol

from triggers.core.records import LogEntry, fingerprint
from triggers.core.status import Status

if TYPE_CHECKING:
    from collections.abc import Mapping

    from triggers.core.state import Counter, Firing, Instance, Latest, Session


class Need(NamedTuple):
    """What the law must see; a storage loads all of it and nothing else.

    Attributes:
        key: the firing of this (trigger, idempotency key), if there is one.
        tasks: counters of these tasks; None for all that have one.
        waiting: the unstarted instances that lack one of these triggers.
        latest: the latest firing of each of these triggers.
        instances: these, as (task, number).
        unstarted: all unstarted instances of these tasks.
        history: every firing of these triggers, in order.
        payloads: the payloads of the firings that `instances` took.
        flagged: finished instances whose unresolved level is at least this, at most `flagged_limit` of them.
        flagged_limit: how many of those.
        levels: highest level, at or above its second part, among the stored records of the only one of
            `instances` with a number beyond its first part that is not in its third.
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


@dataclass(slots=True)
class Slice:
    """What a storage found of a :class:`Need`; what is not there is left out."""

    keyed: Firing | None = None
    counters: dict[str, Counter] = field(default_factory=dict)
    instances: list[Instance] = field(default_factory=list)
    latest: dict[str, Latest] = field(default_factory=dict)
    history: list[Firing] = field(default_factory=list)
    payloads: dict[int, str] = field(default_factory=dict)
    flagged: list[tuple[str, int]] = field(default_factory=list)
    level: int = 0


class GuardedState(Protocol):
    """The part of an instance's stored state that a :class:`Guard` compares."""

    @property
    def status(self) -> Status:
        """The stored status."""

    @property
    def fence(self) -> int:
        """The stored fencing token."""

    @property
    def lease_until(self) -> int | None:
        """The end of the stored lease, None without a claim."""


@dataclass(frozen=True, slots=True)
class Guard:
    """What must still be stored of an instance for its change to be applied; part of the statement.

    Attributes:
        status: the status it had.
        fence: the fence it had.
        lease_until: the lease it had, where the change takes the lease away; None leaves it unchecked.
    """

    status: Status
    fence: int
    lease_until: int | None = None

    def holds(self, stored: GuardedState) -> bool:
        """Return whether the change may be applied to an instance that is stored in this state."""
        lease = stored.lease_until if self.lease_until is None else self.lease_until
        return (stored.status, stored.fence, stored.lease_until) == (self.status, self.fence, lease)


class Record(NamedTuple):
    """One record to store: whose, its number in that instance's log, from 1, and which attempt said it."""

    instance: Instance
    number: int
    fence: int
    attempt: int
    entry: LogEntry

    @property
    def fingerprint(self) -> str:
        """What it shares with every record of its kind."""
        return fingerprint(self.entry)


@dataclass(slots=True)
class Changes:
    """What the law decided; a storage applies all of it in one transaction, or nothing.

    Attributes:
        session: the head as it is to be stored.
        fired: new firings, in order.
        scheduled_by: for each of them, the instances that it scheduled.
        created: new instances.
        triggered: unstarted instances that got triggers: their taken, vetoes, status and times are to be
            stored.
        transitioned: instances with the guard under which everything that is theirs is to be stored.
        lacks: instances, with the triggers that they lack from now on.
        gained: instances, with the triggers that they lacked and no longer lack.
        counters: task → its counter from now on.
        logs: the records to store.
        new_rules: whether the session's rules are to be stored too.
        writes_head: whether the session's head is to be stored.
        duplicate_of: the earlier firing with the same key, where the firing was a repeat.
        claimed: the instance that was claimed, with its payloads, by number of firing.
        refused: why nothing was done, where a writer was late.
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
    new_rules: bool = False
    writes_head: bool = True
    duplicate_of: Firing | None = None
    claimed: Instance | None = None
    payloads: Mapping[int, str] = field(default_factory=dict)
    refused: str = ""

    @property
    def needs_session(self) -> bool:
        """Whether it changes more than single instances, so that only an exclusive run may decide it."""
        return bool(self.writes_head or self.new_rules or self.fired or self.created or self.counters)

    def scheduled(self) -> list[Instance]:
        """The instances that it makes scheduled, as many as there are."""
        moved = [instance for instance, guard in self.transitioned if guard.status is not Status.SCHEDULED]
        touched = (*self.triggered, *self.created, *moved)
        return [instance for instance in touched if instance.status is Status.SCHEDULED]


#: One run of a decision: asks for slices until it can say what changes. It does no input or output.
DecisionRun = Generator[Need, Slice, Changes]


@dataclass(frozen=True, slots=True)
class Decision:
    """Something to decide about a session: what a storage is given to commit.

    The functions in :mod:`triggers.core.decisions` make them.

    Attributes:
        name: what it is called in messages and logs.
        begin: starts a run from the head of the session. A storage may start any number of runs, each with a
            head loaded for it; only the changes of the last one are stored.
        exclusive: whether no other decision about the session may be made between loading and storing. One
            that is not exclusive changes one instance and nothing else of the session.
        prefetch: what a run will most likely ask for first, None if that is not known. A storage may load it
            together with the head. It is a guess: a run gets what it asks for.
    """

    name: str
    begin: Callable[[Session], DecisionRun]
    exclusive: bool = True
    prefetch: Need | None = None

    def __call__(self, session: Session) -> DecisionRun:
        """Start a run."""
        return self.begin(session)


class NeedsSession(Exception):  # noqa: N818 - a request to the storage, not an error
    """A run that is not exclusive finds that it must be.

    A decision may raise it at any point of a run whose :attr:`Session.exclusive` is false. The storage starts
    the decision again exclusively, in the same commit, and keeps nothing of the first run.
    """
