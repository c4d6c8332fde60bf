"""The decisions about timers: set and cancel one, and let those elapse that are due."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from triggers.core.decisions.needs import need_for
from triggers.core.decisions.settling import fire_outcome, settle
from triggers.core.decisions.unit_of_work import UnitOfWork
from triggers.core.exchange import Decision, Need, TimersDue
from triggers.core.outcomes import ENDED, MISSED, OF_STATUS, outcome_of
from triggers.core.state import Firing
from triggers.core.status import Status
from triggers.core.timers import AWAY, DEADLINE, FIRES, Timer
from triggers.core.timing import MISSED_IT, missed_note
from triggers.core.values import encode, to_datetime
from triggers.exceptions import UnknownSessionError

if TYPE_CHECKING:
    from collections.abc import Collection, Generator

    from triggers.core.exchange import DecisionRun, Slice
    from triggers.core.rules import Rule
    from triggers.core.state import Instance, Session
    from triggers.core.terms import Policy, PolicyOf

#: How many timers elapse in one commit at most, so that nobody waits long for it.
AT_ONCE = 100

#: Why a process does not let timers elapse.
NO_MANAGER = "its manager lets its timers elapse, and this process does not have that manager"


def set_timer(policy: Policy | PolicyOf, timer: Timer, after: int | None = None) -> Decision:
    """Set a timer that fires a trigger. One with the same name is replaced.

    Args:
        policy: the manager's policy.
        timer: the timer. Its number and the time from which it counts are set when it is stored.
        after: how long after now it is due, in microseconds; None to keep its time.
    """

    def begin(session: Session) -> DecisionRun:
        work = UnitOfWork(session, policy)
        work.look_at_timers()
        yield Need()
        at = timer.at if after is None else work.at + after
        work.set_timer(
            timer._replace(at=at, since=work.at, depth=max(timer.depth, work.policy.cascade_depth))
        )
        return work.done()

    return Decision("set_timer", begin, prefetch=Need(), by_rules=False)


def cancel_timer(policy: Policy | PolicyOf, name: str) -> Decision:
    """Remove the timer with that name. Refused if there is none.

    Args:
        policy: the manager's policy.
        name: its name.

    Raises:
        UnknownSessionError: the session does not exist.
    """
    need = Need(timer_names=(name,))

    def begin(session: Session) -> DecisionRun:
        if session.ref is None:
            message = f"there is no session {session.uid!r}"
            raise UnknownSessionError(message)
        work = UnitOfWork(session, policy)
        work.look_at_timers()
        found = yield need
        if name not in found.named_timers:
            work.changes.writes_head = False
            return work.refuse("there is no such timer")
        work.changes.timers[name] = None
        return work.done()

    return Decision("cancel_timer", begin, prefetch=need, by_rules=False)


def elapse(policy: Policy | PolicyOf, until: int | None = None, *, only_all: bool = False) -> Decision:
    """Let due timers elapse, in the order of their times, at most :data:`AT_ONCE`.

    Each one is decided as of its own time, or as of the session's latest time if that is later. So it does
    not matter when this decision is made.

    Args:
        policy: the manager's policy.
        until: timers that are due later do not elapse; None for now.
        only_all: change nothing if more of them are due than can elapse at once.

    Raises:
        TimersDue: more are due, and `only_all` is true.
    """

    def begin(session: Session) -> DecisionRun:
        end = max(session.now, session.modified_at) if until is None else until
        found = (yield Need(timers=AT_ONCE + 1)).timers
        first = found[0].at if found else end
        session.time = max(session.modified_at, min(first, end))
        work = UnitOfWork(session, policy)
        if session.ref is None or not work.knows_manager:
            return work.refuse(NO_MANAGER)
        loaded = {timer for timer in found if timer.at <= end}
        work.absorb((yield _need_of(work, loaded)))
        queue = _Queue(work, found)
        for _ in range(AT_ONCE):
            timer = queue.next()
            if timer is None or timer.at > end:
                break
            work.at = session.modified_at = max(work.at, timer.at)
            work.changes.timers[timer.name] = None
            if timer not in loaded:  # another one has set it meanwhile
                work.absorb((yield _need_of(work, {timer})))
            yield from _elapse(work, timer)
            yield from settle(work)
        following = session.next_timer_at = queue.next_at()
        if only_all and following is not None and following <= end:
            raise TimersDue(end)
        return work.done()

    return Decision("elapse", begin, prefetch=Need(timers=AT_ONCE + 1))


class _Queue:
    """The timers of a session in their order: the first of the stored ones, and those set meanwhile.

    Args:
        work: the unit of work in which they elapse.
        found: the first stored timers, in order. If they are as many as were requested, there may be more.
    """

    def __init__(self, work: UnitOfWork, found: list[Timer]) -> None:
        self._changed = work.changes.timers
        self._found = found
        self._place = 0
        self._has_more = len(found) > AT_ONCE

    def next(self) -> Timer | None:
        """Return the first timer that has not elapsed; None if there is none, or if it was not loaded."""
        while self._place < len(self._found) and self._found[self._place].name in self._changed:
            self._place += 1
        loaded = self._found[self._place : self._place + 1]
        if self._has_more and not loaded:
            return None
        fresh = (timer for timer in self._changed.values() if timer is not None)
        return min((*loaded, *fresh), key=attrgetter("order"), default=None)

    def next_at(self) -> int | None:
        """Return when the next timer is due, or a time before that; None if there is none."""
        following = self.next()
        if following is None and self._has_more:
            following = self._found[-1]
        return None if following is None or following.at == AWAY else following.at


def _need_of(work: UnitOfWork, due: Collection[Timer]) -> Need:
    """Return the need for all that these timers can change."""
    triggers: set[str] = set()
    instances: set[tuple[str, int]] = set()
    for timer in due:
        if timer.instance is None:
            triggers.add(timer.trigger)
        else:
            instances.add(timer.instance)
            triggers |= _outcomes_of(work, timer.instance[0]) if timer.kind == DEADLINE else set()
    return need_for(work.session.rules, *sorted(triggers), instances=tuple(sorted(instances)))


def _outcomes_of(work: UnitOfWork, task: str) -> set[str]:
    """Return the outcomes that the deadline of a task's instance can fire and that rules name."""
    words = (MISSED, OF_STATUS[Status.ABANDONED], ENDED)
    return {f"{task}:{word}" for word in words} & work.session.rules.outcomes


def _elapse(work: UnitOfWork, timer: Timer) -> Generator[Need, Slice, None]:
    """Do what a timer is set for."""
    if timer.kind == FIRES:
        yield from _fire(work, timer)
        return
    where = timer.instance
    instance = work.instances.get(where) if where else None
    rule = work.session.rules.rules.get(instance.task) if instance else None
    if instance is None or rule is None or instance.status is not Status.UNSTARTED:
        return
    work.led_by = 0
    work.save_triggers(instance, rule.lacks(instance.taken, instance.vetoes))
    if timer.kind == DEADLINE:
        _miss(work, instance, rule, timer)
    elif rule.after.is_met(instance.taken):
        if timer.starts_chain:
            instance.cascade_depth = 0
        work.schedule(instance)


def _fire(work: UnitOfWork, timer: Timer) -> Generator[Need, Slice, None]:
    """Fire the trigger of a timer. If that is impossible, the timer is put aside, with the reason."""
    outcome = outcome_of(timer.trigger, work.session.rules.outcomes and work.session.rules.rules)
    if outcome is not None:
        problem = f"{timer.trigger!r} is an outcome of the task {outcome.task!r} now"
        aside = timer._replace(at=AWAY, was_at=timer.at, problem=problem)
        work.changes.timers[timer.name] = aside
        work.changes.unfired.append(aside)
        return
    if timer.key is not None:
        found = yield need_for(work.session.rules, timer.trigger, key=(timer.trigger, timer.key))
        work.absorb(found)
        if found.keyed is not None or any(
            (fired.trigger, fired.key) == (timer.trigger, timer.key) for fired in work.changes.fired
        ):
            problem = f"its key {timer.key!r} was used by another firing"
            work.changes.unfired.append(timer._replace(problem=problem))
            return
    depth = 0 if timer.starts_chain else timer.depth
    work.fire(Firing(0, timer.trigger, timer.kwargs, 0, depth, timer.source, timer.key, timer.fingerprint))


def _miss(work: UnitOfWork, instance: Instance, rule: Rule, timer: Timer) -> None:
    """Fire that an instance has missed its deadline, and abandon it if its rule says so."""
    due = to_datetime(timer.at)
    instance.note(work.session.now, MISSED, missed_note(due))
    name = f"{instance.task}:{MISSED}"
    if name in work.session.rules.outcomes:
        lacks = [trigger for trigger in rule.after if trigger not in instance.taken]
        kwargs = encode({"instance": instance.name, "due": due, "lacks": lacks}, "kwargs")
        led_by = 0 if timer.starts_chain else instance.cascade_depth
        depth = max(led_by, work.policy.cascade_depth) + 1
        fire_outcome(work, Firing(0, name, kwargs, 0, depth, instance.name))
    late = rule.deadline is not None and rule.deadline.abandons
    if late and instance.status is Status.UNSTARTED and not rule.after.is_met(instance.taken):
        work.set_status(instance, Status.ABANDONED, MISSED_IT)
