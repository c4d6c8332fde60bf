"""The timers of unstarted instances when the rules of a session change."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from triggers.core.durations import micros
from triggers.core.exchange import Need
from triggers.core.status import Status
from triggers.core.timers import DEADLINE, DELAY, timer_of
from triggers.core.timing import missed_in

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

    It counts from the same time as before, so it can be due already.
    """
    old, new = earlier.rules.rules.get(instance.task), work.session.rules.rules.get(instance.task)
    timer = earlier.timers.get(timer_of(instance.name))
    if timer is not None:
        work.remove_timer(instance)
    if new is None or instance.status is not Status.UNSTARTED:
        return
    if new.after.is_met(instance.taken):
        if new.delay is not None:
            begun = work.at
            if timer is not None and timer.kind == DELAY and old is not None and old.delay is not None:
                begun = timer.at - micros(old.delay.pause)
            work.set_delay(instance, new.delay, begun)
        return
    instance.run_at = 0
    if new.deadline is not None and missed_in(instance.history) is None:
        since = _deadline_since(instance, new, old, timer, earlier.times)
        if since is not None:
            work.set_deadline(instance, new, since)


def _deadline_since(
    instance: Instance, new: Rule, old: Rule | None, timer: Timer | None, times: Mapping[int, int]
) -> int | None:
    """Return from when the deadline of a new rule counts; None if that moment has not come."""
    assert new.deadline is not None  # noqa: S101 - for the type checker
    start = new.deadline.start
    if start is None:
        return instance.created_at
    if start not in instance.taken:
        return None
    is_same = old is not None and old.deadline is not None and old.deadline.start == start
    if timer is not None and timer.kind == DEADLINE and is_same:
        return timer.since
    return times.get(instance.taken[start], instance.created_at)
