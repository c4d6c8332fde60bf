"""The timers of unstarted instances when the rules of a session change."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from triggers.core.exchange import Need
from triggers.core.status import Status
from triggers.core.timers import DELAY, timer_of

if TYPE_CHECKING:
    from collections.abc import Collection, Generator, Mapping

    from triggers.core.decisions.unit_of_work import UnitOfWork
    from triggers.core.exchange import Slice
    from triggers.core.rules import Rule, RuleSet
    from triggers.core.state import Instance
    from triggers.core.timers import Timer


class Earlier(NamedTuple):
    """What was before the rules changed.

    Attributes:
        rules: the earlier rules.
        timers: name → timer, of the unstarted instances whose rule changes.
        times: number of a firing → its time, for the firings from which a new deadline counts.
    """

    rules: RuleSet
    timers: Mapping[str, Timer]
    times: Mapping[int, int]


def load_earlier(
    work: UnitOfWork, before: RuleSet, changed: Collection[str]
) -> Generator[Need, Slice, Earlier]:
    """Load what the timers of the unstarted instances of these tasks depend on."""
    rules = work.session.rules
    known = [one for task in sorted(changed) for one in work.by_task.get(task, ())]
    names = tuple(timer_of(one.name) for one in known if one.task in before.timed)
    deadlines = [rules.rules[one.task].deadline for one in known if one.task in rules.timed]
    starts = frozenset(deadline.start for deadline in deadlines if deadline and deadline.start)
    if not names and not starts:
        return Earlier(before, {}, {})
    found = yield Need(timer_names=names, history=starts)
    return Earlier(before, found.named_timers, {firing.number: firing.at for firing in found.history})


def set_again(work: UnitOfWork, instance: Instance, earlier: Earlier) -> None:
    """Set the timer of an instance about which the new rules have decided.

    It counts from the same time as before, so it can be due already. A timer that does not change keeps its
    place in the order of the timers.
    """
    name = timer_of(instance.name)
    timer = earlier.timers.get(name)
    if timer is not None:
        work.remove_timer(instance)
    if instance.status is not Status.UNSTARTED:
        return
    rule = work.session.rules.rules.get(instance.task)
    delay = rule.delay if rule is not None and rule.after.is_met(instance.taken) else None
    if delay is not None:
        work.set_delay(instance, delay, timer.since if timer and timer.kind == DELAY else work.at)
    else:
        instance.run_at = 0
        since = _deadline_since(instance, rule, earlier.times)
        if rule is not None and since is not None:
            work.set_deadline(instance, rule, since)
    again = work.changes.timers.get(name)
    if timer and again and again.is_like(timer):
        del work.changes.timers[name]


def _deadline_since(instance: Instance, rule: Rule | None, times: Mapping[int, int]) -> int | None:
    """Return from when the deadline of a new rule counts; None if that moment has not come."""
    start = rule.deadline.start if rule is not None and rule.deadline is not None else None
    if start is None:
        return instance.created_at
    # An instance receives earlier firings when it is created.
    taken = instance.taken.get(start)
    return None if taken is None else max(instance.created_at, times.get(taken, 0))
