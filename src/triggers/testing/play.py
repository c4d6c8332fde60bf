"""Play the same events in every order, with a crash at every point, and compare the final states."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
from datetime import timedelta
from difflib import ndiff
from functools import partial
from pprint import pformat
from typing import TYPE_CHECKING, Any, Final

from triggers.manager import TriggerManager
from triggers.storages.memory import MemoryStorage
from triggers.task import registry as default_registry
from triggers.testing.faults import Faults, InjectedCrash
from triggers.testing.harness import TriggersHarness
from triggers.testing.orders import orders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from triggers.storages.base import Storage
    from triggers.task import Registry
    from triggers.testing.clock import VirtualClock

    Firing = str | tuple[str, Mapping[str, Any]] | tuple[str, Mapping[str, Any], str] | timedelta
    Event = tuple[str, Mapping[str, Any], str] | timedelta

#: The UID of the session that is played.
UID: Final = "play"


class PlayDifference(AssertionError):  # noqa: N818 - a finding
    """Two final states that should be the same differ.

    Attributes:
        order: the triggers, in the order in which they were fired, and the times that passed.
        crash: the point at which the process died, or None if only the order was different.
        number: the number of that point in the run, from 1; 0 without a crash.
        expected: the final state of the first run.
        found: the final state of this run.
    """

    def __init__(
        self, order: Sequence[str], crash: str | None, number: int, expected: Any, found: Any
    ) -> None:
        self.order: tuple[str, ...] = tuple(order)
        self.crash = crash
        self.number = number
        self.expected = expected
        self.found = found
        when = f"with a crash at point {number}, {crash!r}," if crash is not None else "without a crash"
        lines = ndiff(pformat(expected, width=100).splitlines(), pformat(found, width=100).splitlines())
        listed = "\n".join(line for line in lines if not line.startswith("?"))
        super().__init__(
            f"the order {', '.join(order)}, {when} ends in another state (- expected, + found):\n{listed}"
        )


@dataclass(slots=True)
class PlayReport:
    """The number of runs that were played.

    Attributes:
        orders: the number of orders.
        crashes: the number of runs with a crash.
        points: each point at which the process died → how often it died there.
    """

    orders: int = 0
    crashes: int = 0
    points: Counter[str] = field(default_factory=Counter)


def end_state(manager: TriggerManager) -> dict[str, Any]:
    """Return the final state that :func:`play` compares by default.

    It contains the status, result and error of the instances of each task, without their numbers; which tasks
    are not resolved; and whether the session is finalized.
    """
    view = manager.storage
    tasks: dict[str, list[Any]] = {task: [] for task in view.tasks}
    for instance in view:
        error = instance.error["type"] if instance.error else None
        tasks.setdefault(instance.task, []).append((str(instance.status), instance.result, error))
    return {
        "instances": {task: sorted(ends, key=repr) for task, ends in tasks.items()},
        "unresolved tasks": sorted(rule.task for rule in view.get_unresolved_tasks()),
        "finalized": view.finalized,
    }


def play(
    configuration: Mapping[str, Mapping[str, Any]],
    firings: Iterable[Firing],
    *,
    registry: Registry = default_registry,
    manager: type[TriggerManager] | str = TriggerManager,
    sample: int | None = None,
    crashes: int | None = None,
    seed: int = 0,
    orders_differ: bool = False,
    snapshot: Callable[[TriggerManager], Any] = end_state,
    same: Callable[[Any, Any], bool] | None = None,
    storage: Callable[[VirtualClock, Faults], Storage] | None = None,
) -> PlayReport:
    """Fire the triggers in every order, each with a crash at every point, and compare the final states.

    Each run has a new session. Each firing has an idempotency key: its own, or one made from its position in
    `firings`. After a crash the application is restarted, and the firing that the crash interrupted is
    repeated with the same key. Then time passes until no instance is scheduled or running, and no timer is
    set.

    Time is an event, too: where `firings` contains a timedelta, so much time passes, and the timers that are
    due elapse. So each order of the firings and of the ends of delays and deadlines is played, with a crash
    at each point of the commits in which timers elapse. A crash costs time: an instance whose worker is lost
    runs again when its lease has ended, and timers that are due by then elapse. Delays and deadlines of hours
    make no difference there; shorter ones can.

    Args:
        configuration: the rules of the session. No crash happens while they are stored.
        firings: each is the name of a trigger, (name, kwargs), or (name, kwargs, key); or a timedelta, for
            time that passes.
        registry: the tasks. The ready-made tasks are available as well.
        manager: the class of the session's manager.
        sample: the number of orders at most, including the given one; None for all.
        crashes: the number of crash points in each order at most; None for all, 0 for none.
        seed: the seed for the choice of orders and crash points.
        orders_differ: whether different orders may lead to different final states, as with `unless`. Then
            only runs of the same order are compared, and after a crash all instances run before the next
            firing, so that the order does not change.
        snapshot: returns the state that is compared, at the end of each run.
        same: compares two snapshots; equality by default.
        storage: makes an empty storage for one run, given its clock and its faults, in case it has points of
            its own; in memory by default. The points of commits exist with every storage.

    Raises:
        PlayDifference: the first difference between two final states.
        AssertionError: a run did not end; a note says in which order, and after which crash.
    """
    given = [_keyed(place, firing) for place, firing in enumerate(firings)]
    made = storage or (lambda clock, _: MemoryStorage(clock=clock))
    stage = _Stage(configuration, registry, manager, snapshot, made, rests=orders_differ)
    dice = random.Random(seed)  # noqa: S311 - a sample for a test, not a secret
    alike = same or (lambda one, other: bool(one == other))
    report = PlayReport()
    expected = None
    for order in orders(given, sample, seed):
        names = [_name_of(event) for event in order]
        found, passed, _ = stage.run(order, 0)
        if report.orders and not orders_differ and not alike(expected, found):
            raise PlayDifference(names, None, 0, expected, found)
        expected = found if orders_differ or not report.orders else expected
        report.orders += 1
        for number in _chosen(len(passed), crashes, dice):
            end, _, point = stage.run(order, number)
            report.crashes += 1
            report.points[point] += 1
            if not alike(expected, end):
                raise PlayDifference(names, point, number, expected, end)
    return report


def _keyed(place: int, firing: Firing) -> Event:
    if isinstance(firing, timedelta):
        return firing
    if isinstance(firing, str):
        return firing, {}, f"play-{place}"
    trigger, kwargs, *key = firing
    return trigger, kwargs, *(key or [f"play-{place}"])  # type: ignore[return-value]  # one key, either way


def _name_of(event: Event) -> str:
    return f"+{event}" if isinstance(event, timedelta) else event[0]


def _chosen(points: int, at_most: int | None, dice: random.Random) -> list[int]:
    numbers = range(1, points + 1)
    if at_most is None or at_most >= points:
        return list(numbers)
    return sorted(dice.sample(numbers, at_most))


@dataclass(frozen=True, slots=True)
class _Stage:
    """The settings that are the same in every run."""

    configuration: Mapping[str, Mapping[str, Any]]
    registry: Registry
    manager: type[TriggerManager] | str
    snapshot: Callable[[TriggerManager], Any]
    storage: Callable[[VirtualClock, Faults], Storage]
    rests: bool

    def run(self, order: Sequence[Event], crash_at: int) -> tuple[Any, list[str], str]:
        """Play one run, with a crash at the point of that number; 0 for none.

        Returns:
            The final state, the points that were reached, and the point of the crash or "".
        """
        faults, crashed = Faults(), ""
        with TriggersHarness(
            registry=self.registry,
            manager=self.manager,
            storage=lambda clock: self.storage(clock, faults),
            faults=faults,
            allow_failures=True,
        ) as harness:
            harness.session(UID).update_configuration(self.configuration)
            faults.reached.clear()
            if crash_at:
                faults.die_at(crash_at)
            for event in order:
                crashed = self.survive(harness, _step_of(harness, event)) or crashed
            try:
                crashed = self.survive(harness, partial(harness.run_until_idle, timers=True)) or crashed
            except AssertionError as error:
                error.add_note(f"in the order {', '.join(map(_name_of, order))}, crashed at {crashed!r}")
                raise
            reached = faults.reached.copy()
            faults.revive()
            return self.snapshot(harness.session(UID)), reached, crashed

    def survive(self, harness: TriggersHarness, step: Callable[[], object]) -> str:
        """Do a step, and repeat it if the process crashes. Return the point of the crash, or ""."""
        try:
            step()
        except InjectedCrash as crash:
            harness.restart()
            step()
            if self.rests:
                harness.run_until_idle()
            return str(crash)
        return ""


def _step_of(harness: TriggersHarness, event: Event) -> Callable[[], object]:
    """Return the step of an event. Time that has passed before a crash does not pass again."""
    if not isinstance(event, timedelta):
        return partial(_fire, harness, *event)
    until = harness.clock.time + event
    return lambda: harness.advance(max(until - harness.clock.time, timedelta()))


def _fire(harness: TriggersHarness, trigger: str, kwargs: Mapping[str, Any], key: str) -> None:
    harness.session(UID).fire(trigger, kwargs, key=key)
