"""A preview with due timers: they elapse in a picture of the session, and nothing is stored."""

from __future__ import annotations

from dataclasses import replace
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from triggers.core.decisions.timing import AT_ONCE, elapse
from triggers.core.exchange import Decision, Slice, TimersDue
from triggers.core.state import Latest, copy_of
from triggers.core.status import Status

if TYPE_CHECKING:
    from collections.abc import Generator, Iterator

    from triggers.core.exchange import Changes, DecisionRun, Need
    from triggers.core.state import Counter, Firing, Instance, Session
    from triggers.core.terms import Policy, PolicyOf
    from triggers.core.timers import Timer

#: How many timers elapse in a picture at most.
MAX_TIMERS: Final = 10_000

#: The reference of an instance that is only in the picture.
_PICTURED: Final = -1


def in_picture(decision: Decision, policy: Policy | PolicyOf) -> Decision:
    """Return a decision for a preview: if timers are due, they elapse in a picture before it.

    At most :data:`MAX_TIMERS` elapse. If more are due, the preview is that of a moment between them.

    Args:
        decision: the decision. The changes are its own, without those of the timers.
        policy: the policy of the session's manager.
    """

    def begin(session: Session) -> DecisionRun:
        picture = _Picture()
        first = replace(session)
        try:
            return (yield from picture.run(decision, first))
        except TimersDue as due:
            at = due.at
        for _ in range(MAX_TIMERS // AT_ONCE):
            elapsed = yield from picture.run(elapse(policy, at), session)
            if elapsed.refused:
                return elapsed
            picture.add(elapsed)
            try:
                return (yield from picture.run(decision.as_of(at), replace(session)))
            except TimersDue:
                continue
        session.next_timer_at = None
        return (yield from picture.run(decision.as_of(at), session))

    return replace(decision, begin=begin)


class _Picture:
    """What has changed in the picture, over what is stored."""

    def __init__(self) -> None:
        self._instances: dict[tuple[str, int], Instance] = {}
        self._counters: dict[str, Counter] = {}
        self._firings: list[Firing] = []
        self._timers: dict[str, Timer | None] = {}

    def add(self, changes: Changes) -> None:
        """Add what has elapsed."""
        moved = (instance for instance, _ in changes.transitioned)
        for instance in (*changes.created, *changes.triggered, *moved):
            instance.ref = instance.ref or _PICTURED
            self._instances[instance.task, instance.number] = instance
        self._counters |= changes.counters
        self._firings += changes.fired
        self._timers |= changes.timers

    def run(self, decision: Decision, session: Session) -> Generator[Need, Slice, Changes]:
        """Run a decision on the picture."""
        run = decision(session)
        found: Slice | None = None
        while True:
            try:
                need = run.send(found)  # type: ignore[arg-type]  # a generator is started by sending None
            except StopIteration as end:
                changes: Changes = end.value
                return changes
            more = len(self._timers) if need.timers else 0
            found = yield need._replace(timers=need.timers + more)
            if self._firings or self._timers:
                self._correct(need, found, session)

    def _correct(self, need: Need, found: Slice, session: Session) -> None:
        """Replace what was found by what the picture has instead."""
        tasks = self._counters.keys() if need.tasks is None else self._counters.keys() & need.tasks
        found.counters |= {task: replace(self._counters[task]) for task in tasks}
        for firing in self._firings:
            if firing.trigger in need.latest:
                found.latest[firing.trigger] = Latest(firing.number, firing.depth)
            if firing.key is not None and (firing.trigger, firing.key) == need.key:
                found.keyed = firing
            if firing.trigger in need.history:
                found.history.append(firing)
        known = {(instance.task, instance.number): instance for instance in found.instances}
        for where, instance in self._instances.items():
            if self._is_wanted(instance, need, session):
                known[where] = copy_of(instance)
            else:
                known.pop(where, None)
        found.instances = list(known.values())
        found.timers = self._first_timers(found.timers, need.timers)
        named = {
            **found.named_timers,
            **{name: self._timers[name] for name in self._timers.keys() & need.timer_names},
        }
        found.named_timers = {name: timer for name, timer in named.items() if timer is not None}

    def _is_wanted(self, instance: Instance, need: Need, session: Session) -> bool:
        if (instance.task, instance.number) in need.instances:
            return True
        if instance.status is not Status.UNSTARTED:
            return False
        rule = session.rules.rules.get(instance.task)
        lacks = rule.lacks(instance.taken, instance.vetoes) if rule else set[str]()
        return instance.task in need.unstarted or not lacks.isdisjoint(need.waiting)

    def _first_timers(self, stored: list[Timer], count: int) -> list[Timer]:
        def every() -> Iterator[Timer]:
            yield from (timer for timer in stored if timer.name not in self._timers)
            yield from (timer for timer in self._timers.values() if timer is not None)

        return sorted(every(), key=attrgetter("order"))[:count]
