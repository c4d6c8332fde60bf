"""Play the same firings in every order, with a crash at every point, and compare the ends."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field
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

    Firing = str | tuple[str, Mapping[str, Any]] | tuple[str, Mapping[str, Any], str]

#: The session that is played.
UID: Final = "play"


class PlayDifference(AssertionError):  # noqa: N818 - a finding
    """Two ends that should be the same differ.

    Attributes:
        order: the triggers, in the order in which they were fired.
        crash: the point at which the process died, None where only the order was another.
        number: which of the points of that run it was, from 1; 0 without a crash.
        expected: the end that it was compared with.
        found: the end.
    """

    def __init__(
        self, order: Sequence[str], crash: str | None, number: int, expected: Any, found: Any
    ) -> None:
        self.order = tuple(order)
        self.crash = crash
        self.number = number
        self.expected = expected
        self.found = found
        when = f"with a crash at point {number}, {crash!r}," if crash is not None else "without a crash"
        lines = ndiff(pformat(expected, width=100).splitlines(), pformat(found, width=100).splitlines())
        listed = "\n".join(line for line in lines if not line.startswith("?"))
        super().__init__(
            f"the order {', '.join(order)}, {when} ends otherwise (- expected, + found):\n{listed}"
        )


@dataclass(slots=True)
class PlayReport:
    """What was played.

    Attributes:
        orders: how many orders.
        crashes: how many runs with a crash.
        points: the points at which the process died → how often.
    """

    orders: int = 0
    crashes: int = 0
    points: Counter[str] = field(default_factory=Counter)


def end_state(manager: TriggerManager) -> dict[str, Any]:
    """What a play compares by default: status, result and error of each task's instances, however numbered.

    Also which tasks are not resolved, and whether the session is finalised.
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
    manager: type[TriggerManager] = TriggerManager,
    sample: int | None = None,
    crashes: int | None = None,
    seed: int = 0,
    orders_differ: bool = False,
    snapshot: Callable[[TriggerManager], Any] = end_state,
    same: Callable[[Any, Any], bool] | None = None,
    storage: Callable[[VirtualClock, Faults], Storage] | None = None,
) -> PlayReport:
    """Fire in every order into a new session, and in each with a crash at every point; compare the ends.

    Each firing has an idempotency key, its own or one by its place in `firings`; after a crash the
    application is started again, and the firing that it interrupted is fired once more with the same key.
    Then time passes until nothing is left to be done.

    Args:
        configuration: of the session; it is configured before the first firing, and no crash hits that.
        firings: a trigger's name, or (name, kwargs), or (name, kwargs, key).
        registry: the tasks; the ready-made ones are known besides.
        manager: the session's manager.
        sample: at most so many orders, the given one among them; None for all.
        crashes: at most so many crash points of each order; None for all, 0 for none.
        seed: decides which orders and crash points.
        orders_differ: whether different orders may end differently, as with `unless`; then only runs of the
            same order are compared, and after a crash everything comes to rest before the next firing, so
            that nothing overtakes anything.
        snapshot: gives what is compared, at the end of each run.
        same: compares two snapshots; equality by default.
        storage: makes an empty storage for one run, given its clock and its faults, which it may use for
            points of its own; in memory by default. The points of every commit are there in any case.

    Raises:
        PlayDifference: at the first difference.
        AssertionError: a run did not come to an end; a note says in which order and after which crash.
    """
    given = [_keyed(place, firing) for place, firing in enumerate(firings)]
    made = storage or (lambda clock, _: MemoryStorage(clock=clock))
    stage = _Stage(configuration, registry, manager, snapshot, made, rests=orders_differ)
    dice = random.Random(seed)  # noqa: S311 - a sample to test with, no secret
    alike = same or (lambda one, other: bool(one == other))
    report = PlayReport()
    expected = None
    for order in orders(given, sample, seed):
        names = [trigger for trigger, _, _ in order]
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


def _keyed(place: int, firing: Firing) -> tuple[str, Mapping[str, Any], str]:
    if isinstance(firing, str):
        return firing, {}, f"play-{place}"
    trigger, kwargs, *key = firing
    return trigger, kwargs, *(key or [f"play-{place}"])  # type: ignore[return-value]  # one key, either way


def _chosen(points: int, at_most: int | None, dice: random.Random) -> list[int]:
    numbers = range(1, points + 1)
    if at_most is None or at_most >= points:
        return list(numbers)
    return sorted(dice.sample(numbers, at_most))


@dataclass(frozen=True, slots=True)
class _Stage:
    """What is the same in every run."""

    configuration: Mapping[str, Mapping[str, Any]]
    registry: Registry
    manager: type[TriggerManager]
    snapshot: Callable[[TriggerManager], Any]
    storage: Callable[[VirtualClock, Faults], Storage]
    rests: bool

    def run(
        self, order: Sequence[tuple[str, Mapping[str, Any], str]], crash_at: int
    ) -> tuple[Any, list[str], str]:
        """One run, with a crash at the point of that number, 0 for none.

        Returns:
            The end, the points reached, and the point at which it crashed.
        """
        faults, crashed = Faults(), ""
        with TriggersHarness(
            registry=self.registry,
            manager=self.manager,
            storage=lambda clock: self.storage(clock, faults),
            faults=faults,
        ) as harness:
            harness.session(UID).update_configuration(self.configuration)
            faults.reached.clear()
            if crash_at:
                faults.die_at(crash_at)
            for trigger, kwargs, key in order:
                fire = partial(_fire, harness, trigger, kwargs, key)
                crashed = self.survive(harness, fire) or crashed
            try:
                crashed = self.survive(harness, harness.run_until_idle) or crashed
            except AssertionError as error:
                error.add_note(
                    f"in the order {', '.join(name for name, _, _ in order)}, crashed at {crashed!r}"
                )
                raise
            reached = faults.reached.copy()
            faults.revive()
            return self.snapshot(harness.session(UID)), reached, crashed

    def survive(self, harness: TriggersHarness, step: Callable[[], object]) -> str:
        """Do a step; after a crash, of which a run has one, do it again. Returns where it crashed, or ""."""
        try:
            step()
        except InjectedCrash as crash:
            harness.restart()
            step()
            if self.rests:
                harness.run_until_idle()
            return str(crash)
        return ""


def _fire(harness: TriggersHarness, trigger: str, kwargs: Mapping[str, Any], key: str) -> None:
    harness.session(UID).fire(trigger, kwargs, key=key)
