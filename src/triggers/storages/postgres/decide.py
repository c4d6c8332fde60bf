"""Run decisions in a PostgreSQL transaction: load what they ask for, and turn their changes into statements.

Nothing here knows connections: a :data:`Run` sends several statements together and returns their rows. The
transaction is begun and ended elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from triggers.core.exchange import Changes, Need, Slice
from triggers.core.state import Counter, Latest, Session
from triggers.core.timers import BEFORE_ALL
from triggers.storages.base import run_decision
from triggers.storages.postgres.records import record_to_row
from triggers.storages.postgres.statements import WRITERS
from triggers.storages.sql import rows
from triggers.storages.sql.rows import Row

if TYPE_CHECKING:
    from triggers.core.exchange import Decision
    from triggers.core.rules import RuleSet
    from triggers.storages.rule_cache import RuleCache


#: A statement's name and its parameters: None, bool, int, str, or a list of one of them.
Step = tuple[str, Sequence[Any]]

#: Runs statements together, in this order, and returns the rows of each.
Run = Callable[[Sequence[Step]], list[list[Row]]]

_firing_values: Final = WRITERS["firing_insert"].write
_created_values: Final = WRITERS["instance_insert"].write
_triggered_values: Final = WRITERS["instance_take"].write
_transitioned_values: Final = WRITERS["instance_move"].write


class PlannedCommit(NamedTuple):
    """Changes that are not stored yet.

    Attributes:
        changes: the changes.
        steps: the statements that store them, to be sent together with the end of the transaction.
        transaction: the number of the transaction.
        before: when the session was last changed before, 0 for a new one.
    """

    changes: Changes
    steps: list[Step]
    transaction: str
    before: int


class _Decided(NamedTuple):
    """A decision that has been run.

    Attributes:
        changes: its changes.
        ref: the id of the session, None if it is not stored.
        fresh: the id for a new session, if one was taken.
        transaction: the number of the transaction, "" if it has none.
        before: the latest time of the session before it, in microseconds.
    """

    changes: Changes
    ref: int | None
    fresh: int | None
    transaction: str
    before: int


#: Statement that locks rows → the statement that reads the same without locks.
_UNLOCKED: Final = {
    "head_locked": "head_unlocked",
    "instance_locked": "instance",
    "instance_locked_of": "instance_of",
}


class DecisionRunner:
    """Runs decisions in transactions that are begun and ended elsewhere. Any thread may use it.

    Args:
        cache: the rule sets that were read before.
    """

    def __init__(self, cache: RuleCache[int]) -> None:
        self._cache = cache

    def decide(
        self, run: Run, uid: str, decision: Decision, *, exclusive: bool, before: Sequence[Step] = ()
    ) -> PlannedCommit:
        """Load the session, run the decision, and return what must be stored.

        Args:
            run: runs statements in an open transaction, or in one that `before` begins.
            uid: the session.
            decision: the decision. Its `prefetch` is loaded together with the head.
            exclusive: lock the session first.
            before: statements to send together with the first one.

        Raises:
            NeedsSession: the decision must be run again exclusively.
        """
        decided = self._decide(run, uid, decision, before, exclusive=exclusive)
        steps = list(self._steps(decided.changes, decided.ref, decided.fresh))
        return PlannedCommit(decided.changes, steps, decided.transaction, decided.before)

    def preview(self, run: Run, uid: str, decision: Decision, *, before: Sequence[Step]) -> Changes:
        """Load the session and run the decision, without any lock, in a transaction that may only read.

        Args:
            run: runs statements in the transaction that `before` begins.
            uid: the session.
            decision: the decision.
            before: statements to send together with the first one.
        """

        def read(steps: Sequence[Step]) -> list[list[Row]]:
            return run([(_UNLOCKED.get(name, name), given) for name, given in steps])

        return self._decide(read, uid, decision, before, exclusive=True).changes

    def _decide(
        self, run: Run, uid: str, decision: Decision, before: Sequence[Step], *, exclusive: bool
    ) -> _Decided:
        guess = () if decision.prefetch is None else tuple(_questions(uid, decision.prefetch))
        head_name = "head_locked" if exclusive else "head"
        first = [(head_name, (uid,)), *((f"{name}_of", given) for name, given in guess)]
        head, *prefetched = run([*before, *first])[len(before) :]
        now, transaction, fresh, ref, *rest = head[0]
        if ref is None:
            session = Session(uid, now)
        else:
            (rules,) = self.rules(run, [rest[0]])
            session = Session(uid, now, ref, rules, *rest[1:])
        earlier = session.modified_at

        def load(need: Need) -> Slice:
            if ref is None:
                return Slice()
            if need == decision.prefetch:
                return _slice(need, guess, prefetched)
            steps = tuple(_questions(ref, need))
            return _slice(need, steps, run(steps) if steps else ())

        changes = run_decision(decision, session, load, exclusive=exclusive)
        return _Decided(changes, ref, fresh, transaction, earlier)

    def sessions(self, run: Run, found: list[Row]) -> list[Session]:
        """The heads in these rows, as `session` and `sessions` select them."""
        every = self.rules(run, [rules for _, _, rules, *_ in found])
        return [
            Session(uid, now, ref, rules, *rest)
            for (now, ref, _, *rest, uid), rules in zip(found, every, strict=True)
        ]

    def rules(self, run: Run, refs: Sequence[int]) -> list[RuleSet]:
        """The rule sets of these numbers; those that are not in the cache are read in one round trip."""
        return self._cache.many(refs, lambda missing: dict(run([("rules", (missing,))])[0]))

    def readable_rules(self, run: Run, refs: Sequence[int]) -> dict[int, RuleSet]:
        """As `rules`, by number. Those that cannot be read are left out and reported."""
        return self._cache.readable(refs, lambda missing: dict(run([("rules", (missing,))])[0]))

    def _steps(self, changes: Changes, ref: int | None, fresh: int | None) -> Iterator[Step]:
        head = changes.session
        if (
            changes.writes_head
            and (head.ref is None or changes.new_rules)
            and not self._cache.has_digest(head.rules.digest)
        ):
            yield "rules_insert", (head.rules.digest, head.rules.body)
        if changes.writes_head:
            yield from _head(changes, fresh)
        if head.ref is None:
            head.ref = fresh if changes.writes_head else None
            ref = head.ref
        if ref is not None:
            yield from _body(changes, ref)


def _head(changes: Changes, fresh: int | None) -> Iterator[Step]:
    head = changes.session
    numbers = (head.manager, head.firings, head.pending, head.finalized, head.metadata)
    timers = (head.modified_at, head.next_timer_at, head.timer_count)
    if head.ref is None:
        made = (head.uid, *numbers, head.created_at, *timers, fresh, head.rules.digest)
        yield "session_insert", made
        return
    yield "session_update", (*numbers, *timers, head.ref)
    if changes.new_rules:
        yield "session_rules", (head.rules.digest, head.ref)


def _body(changes: Changes, ref: int) -> Iterator[Step]:
    for firing in changes.fired:
        yield "firing_insert", _firing_values(firing, ref)
        yield "latest_upsert", (ref, firing.trigger, firing.number, firing.depth)
    for made in changes.created:
        made.ref = ref
        yield "instance_insert", _created_values(made)
    for taken in changes.triggered:
        yield "instance_take", _triggered_values(taken)
    for moved, guard in changes.transitioned:
        yield "instance_move", _transitioned_values(moved, guard.status.value, guard.fence, guard.lease_until)
    yield from _waiting(changes, ref)
    for task, counter in changes.counters.items():
        yield "counter_upsert", (ref, task, counter.created, counter.unresolved)
    for name, timer in changes.timers.items():
        if timer is None:
            yield "timer_delete", (ref, name)
        else:
            yield "timer_upsert", (ref, *rows.timer_to_row(timer))
    # Last, so that others wait for this lock only until the end of the transaction.
    if changes.logs:
        yield "log_lock", (ref,)
    for record in changes.logs:
        yield "log_insert", record_to_row(ref, record)


def _waiting(changes: Changes, ref: int) -> Iterator[Step]:
    for instance, triggers in changes.gained:
        for trigger in sorted(triggers):
            yield "waiting_delete", (ref, instance.task, instance.number, trigger)
    for instance, triggers in changes.lacks:
        yield "waiting_insert", (ref, instance.task, instance.number, sorted(triggers))


# -- a slice ---------------------------------------------------------------------------------------------


def _questions(session: int | str, need: Need) -> Iterator[Step]:
    """The statements that load a need, by the session's id or, with `_of` after their names, its UID."""
    yield from _usual_questions(session, need)
    yield from _rare_questions(session, need)


def _slice(need: Need, steps: Sequence[Step], answers: Sequence[list[Row]]) -> Slice:
    found = Slice()
    for (name, _), answered in zip(steps, answers, strict=True):
        _KEEP[name](found, need, answered)
    return found


def _usual_questions(session: int | str, need: Need) -> Iterator[Step]:
    if need.key:
        yield "keyed", (session, *need.key)
    if need.tasks is None:
        yield "counters_all", (session,)
    if need.tasks or need.latest:
        yield "names", (session, [*(need.tasks or ()), *need.latest])
    for trigger in need.waiting:
        yield "waiting", (session, trigger)
    for where in need.instances:
        yield "instance_locked", (session, *where)
        if need.payloads:
            yield "payloads", (session, *where)


def _rare_questions(session: int | str, need: Need) -> Iterator[Step]:
    if need.unstarted:
        yield "unstarted", (session, [*need.unstarted])
    if need.history:
        yield "history", (session, [*need.history])
    if need.flagged is not None:
        yield "flagged", (session, need.flagged, need.flagged_limit)
    if need.levels:
        beyond, threshold, chosen = need.levels
        yield "log_level", (session, *need.instances[0], beyond, threshold, chosen)
    if need.timers:
        yield "timers", (session, *BEFORE_ALL, need.timers)
    if need.timer_names:
        yield "timers_named", (session, need.timer_names)


def _keep_keyed(found: Slice, _: Need, answered: list[Row]) -> None:
    for row in answered:
        found.keyed = rows.firing_from_row(row)


def _keep_names(found: Slice, need: Need, answered: list[Row]) -> None:
    tasks = need.tasks or ()
    for name, created, unresolved, latest, depth in answered:
        if created and name in tasks:
            found.counters[name] = Counter(created, unresolved)
        if latest and name in need.latest:
            found.latest[name] = Latest(latest, depth)


def _keep_counters(found: Slice, _: Need, answered: list[Row]) -> None:
    found.counters = {name: Counter(*counted) for name, *counted in answered}


def _keep_instances(found: Slice, _: Need, answered: list[Row]) -> None:
    found.instances += map(rows.instance_from_row, answered)


def _keep_payloads(found: Slice, _: Need, answered: list[Row]) -> None:
    found.payloads.update({number: kwargs for number, kwargs in answered})  # noqa: C416 - rows are of any type


def _keep_history(found: Slice, _: Need, answered: list[Row]) -> None:
    found.history = [rows.firing_from_row(row) for row in answered]


def _keep_flagged(found: Slice, _: Need, answered: list[Row]) -> None:
    found.flagged = [(task, number) for task, number in answered]


def _keep_level(found: Slice, _: Need, answered: list[Row]) -> None:
    ((found.level,),) = answered


def _keep_timers(found: Slice, _: Need, answered: list[Row]) -> None:
    found.timers = list(map(rows.timer_from_row, answered))


def _keep_named_timers(found: Slice, _: Need, answered: list[Row]) -> None:
    found.named_timers = {timer.name: timer for timer in map(rows.timer_from_row, answered)}


_KEEP: Final[dict[str, Callable[[Slice, Need, list[Row]], None]]] = {
    "keyed": _keep_keyed,
    "counters_all": _keep_counters,
    "names": _keep_names,
    "waiting": _keep_instances,
    "instance_locked": _keep_instances,
    "payloads": _keep_payloads,
    "unstarted": _keep_instances,
    "history": _keep_history,
    "flagged": _keep_flagged,
    "log_level": _keep_level,
    "timers": _keep_timers,
    "timers_named": _keep_named_timers,
}
