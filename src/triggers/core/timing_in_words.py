"""What the timers of waiting instances will do, and when, in words. Times are UTC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from triggers.core.durations import micros
from triggers.core.outcomes import MISSED
from triggers.core.timers import DEADLINE, DELAY, timer_of
from triggers.core.values import to_datetime

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from datetime import datetime, timedelta

    from triggers.core.conditions import Condition
    from triggers.core.rules import Rule
    from triggers.core.state import Instance
    from triggers.core.timers import Timer


class Due(NamedTuple):
    """What a timer does, and when.

    Attributes:
        kind: ``"fires"`` if it fires a trigger, ``"delay"`` if an instance starts then, ``"deadline"`` if an
            instance is late then.
        at: when it is due.
    """

    kind: str
    at: datetime


#: When something happens that is due already. It is done as of its time.
_SOON: Final = "with the next sweep, or the next change of the session"

#: Units of a duration, each with its length in seconds.
_UNITS: Final = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))

#: Kind of a timer → what its instance does when it is due.
EVENTS: Final = {DELAY: "starts", DEADLINE: "is late"}


def length(duration: int) -> str:
    """Return a duration in microseconds in words, with its two greatest units, such as ``2 h 5 min``."""
    left, parts = duration // 1_000_000, list[str]()
    for unit, size in _UNITS:
        count, left = divmod(left, size)
        if count or parts:
            parts.append(f"{count} {unit}" if count else "")
    return " ".join(filter(None, parts[:2])) or "less than 1 s"


def moment(at: datetime) -> str:
    """Return how explanations show a time, such as ``2026-01-31 12:00:00 UTC``."""
    return f"{at:%Y-%m-%d %H:%M:%S} UTC"


class Times:
    """The timers that an explanation needs.

    Args:
        timers: the timers, in order. Timers of other instances and triggers make no difference.
        now: the time, in microseconds.
        outcomes: the outcomes that rules name. No others are fired.
    """

    def __init__(self, timers: Iterable[Timer] = (), now: int = 0, outcomes: Collection[str] = ()) -> None:
        self._now = now
        self._outcomes = outcomes
        self._timers: dict[str, Timer] = {}
        for timer in timers:
            if not timer.problem:
                self._timers.setdefault(timer.name if timer.instance else timer.trigger, timer)

    def matter_to(self, instances: Iterable[Instance], triggers: Iterable[str]) -> dict[str, Due]:
        """Return instance or trigger → what its timer does, for those of these that have one."""
        keys = {instance.name: timer_of(instance.name) for instance in instances}
        keys |= {trigger: trigger for trigger in triggers}
        found = {name: self._timers[key] for name, key in keys.items() if key in self._timers}
        return {name: Due(timer.kind, to_datetime(timer.at)) for name, timer in found.items()}

    def sentences(self, rule: Rule, instance: Instance | None, lacks: Sequence[str]) -> Iterator[str]:
        """Yield until when an instance waits, and what happens then, without full stops at the end.

        Args:
            rule: the rule of the task.
            instance: the unstarted instance, None if the task has none.
            lacks: the triggers that it lacks.
        """
        timer = self._timers.get(timer_of(instance.name)) if instance else None
        if instance and timer and timer.kind == DELAY:
            yield from self._delay(rule, instance, timer)
        elif timer:
            yield from self._deadline(rule, timer, lacks)
        elif rule.deadline and rule.deadline.start in lacks:
            yield f"Its deadline is {_words(rule.deadline.within)} after {rule.deadline.start} fires"
        if lacks and rule.delay:
            yield f"It starts {_words(rule.delay.pause)} after its condition is met"
        for trigger in lacks:
            if trigger in self._timers:
                yield f"A timer fires {trigger} {self._when(self._timers[trigger])}"

    def _delay(self, rule: Rule, instance: Instance, timer: Timer) -> Iterator[str]:
        is_over = timer.at <= self._now
        yield f"{instance.name} starts {self._when(timer)}" + ("" if is_over else _unless(rule.unless))
        if rule.is_debounced and rule.delay and not is_over:
            again = "Each further firing of its triggers starts the delay again"
            if rule.delay.at_most:
                latest = to_datetime(instance.run_at) + rule.delay.at_most
                again += f", until {moment(latest)} at the latest"
            yield again

    def _deadline(self, rule: Rule, timer: Timer, lacks: Sequence[str]) -> Iterator[str]:
        missed = f"{rule.task}:{MISSED}"
        fires = f"{missed} fires" if missed in self._outcomes else ""
        abandons = rule.deadline is not None and rule.deadline.abandons
        at = moment(to_datetime(timer.at))
        if timer.at <= self._now:
            events = " and ".join(filter(None, (fires, "it is abandoned" if abandons else "")))
            yield f"Its deadline was {at}; {_SOON}, {events or 'it is late'}"
        elif not abandons:
            yield f"It is late {self._when(timer)}" + (f"; then {fires}" if fires else "")
        else:
            met = f"{lacks[0]} fires" if len(lacks) == 1 else "its condition is met"
            yield f"It is abandoned unless {met} by {at}; {length(timer.at - self._now)} left"
            if fires:
                yield f"If it is late, {fires}, too"

    def _when(self, timer: Timer) -> str:
        at = moment(to_datetime(timer.at))
        return (
            f"{_SOON}, as of {at}" if timer.at <= self._now else f"at {at}, in {length(timer.at - self._now)}"
        )


def upstream_due(due: Due | None) -> str:
    """Return what the timer of an upstream instance adds to its status; "" without a timer."""
    return f" and {EVENTS[due.kind]} at {moment(due.at)}" if due else ""


def late(at: datetime | None) -> str:
    """Return that an instance has missed a deadline; "" if it has not."""
    return f"It has been late since {moment(at)}" if at else ""


def _words(duration: timedelta) -> str:
    return length(micros(duration))


def _unless(veto: Condition) -> str:
    """Return which veto can still stop an instance."""
    verb = "fires" if veto.at_least == 1 else "have fired"
    return f", unless {veto.sentence()} {verb} before" if veto.names else ""
