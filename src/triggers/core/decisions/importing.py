"""The decision that stores a session which another system has begun."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from triggers.core.decisions.firing import count_pending
from triggers.core.decisions.unit_of_work import UnitOfWork
from triggers.core.exchange import Decision, Need
from triggers.core.state import copy_of
from triggers.core.status import Status

if TYPE_CHECKING:
    from collections.abc import Sequence

    from triggers.core.exchange import DecisionRun
    from triggers.core.rules import RuleSet
    from triggers.core.state import Firing, Instance, Session
    from triggers.core.terms import Policy, PolicyOf


@dataclass(frozen=True, slots=True)
class ImportedSession:
    """A session to store, with everything that has happened in it.

    Attributes:
        rules: its rules.
        firings: its firings. Their numbers count from 1, in this order.
        instances: its instances. None is running.
        metadata: its metadata, encoded.
        created_at: when it was created, in microseconds.
    """

    rules: RuleSet
    firings: Sequence[Firing]
    instances: Sequence[Instance]
    metadata: str
    created_at: int


def import_session(policy: Policy | PolicyOf, imported: ImportedSession) -> Decision:
    """Store a session that does not exist yet. If it exists, nothing is changed, and the import is refused.

    Nothing is fired. Instances that are scheduled are dispatched by the next sweep. An unstarted instance
    whose condition or veto is met already is scheduled or abandoned.

    Args:
        policy: the manager's policy.
        imported: the session.
    """

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        yield Need()
        if session.ref is not None:
            work.changes.writes_head = False
            return work.refuse(f"there is a session {session.uid!r} already")
        session.rules, session.metadata = imported.rules, imported.metadata
        session.created_at = imported.created_at
        work.changes.new_rules = True
        count_pending(work)
        for instance in imported.instances:
            _add(work, copy_of(instance))
        _record(work, imported.firings)
        return work.done()

    return Decision("import_session", begin, prefetch=Need())


def _add(work: UnitOfWork, instance: Instance) -> None:
    """Add an instance in whatever status it is, and decide about it if it waits."""
    work.add(instance)
    counter = work.counter(instance.task)
    counter.created = max(counter.created, instance.number + 1)
    rule = work.session.rules.rules.get(instance.task)
    if rule is not None and instance.status is Status.UNSTARTED:
        work.decide(instance, rule)
    if instance.status is Status.SCHEDULED:
        instance.dispatch_after = work.session.now


def _record(work: UnitOfWork, firings: Sequence[Firing]) -> None:
    work.session.firings = len(firings)
    work.changes.fired = list(firings)
    work.changes.scheduled_by = [[] for _ in firings]
    end = work.policy.finalizing
    finalizing = [firing.number for firing in firings if end is not None and firing.trigger == end.trigger]
    work.session.finalized = next(iter(finalizing), None)
