"""Route instances to their runners.

A runner is loaded when the first instance needs it. A hint that a runner loses is repeated by the sweep, so
dispatching never raises: whatever released the instance is stored.
"""

from __future__ import annotations

import logging
import time
from operator import attrgetter
from typing import TYPE_CHECKING, Any

from triggers.health import Problems, place_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from triggers.runners.base import Runner, RunnerHost
    from triggers.storages.base import ReadyInstance

_log = logging.getLogger(__name__)


class Dispatcher:
    """The runners of one application in this process.

    Args:
        host: what the runners call.
        default: the runner of instances whose rule names none, or its name; None if the process has none.
        given: further runners, by the names that `using` gives them.
        load: makes the installed runner of a name.
        problems: where problems are reported.
        name_of: returns the name of the runner of an instance, None for the default runner.
    """

    def __init__(
        self,
        host: RunnerHost,
        default: str | Runner | None,
        given: Mapping[str, Runner],
        load: Callable[[str], Runner],
        problems: Problems,
        *,
        name_of: Callable[[ReadyInstance], str | None] = attrgetter("using"),
    ) -> None:
        self._host = host
        self._default = default
        self._given = dict(given)
        if default is not None and not isinstance(default, str) and hasattr(default, "name"):
            self._given.setdefault(default.name, default)
        self._load = load
        self._problems = problems
        self._name_of = name_of
        self._told: set[tuple[str, str]] = set()
        self._runners: dict[str, Runner] = {}
        self._has_warned = False
        self.is_stopped: bool = False

    @property
    def names(self) -> frozenset[str]:
        """The names of the runners that the application has set."""
        return frozenset(self._given)

    @property
    def _label(self) -> str:
        """The name of the default runner, "" if it has none."""
        return self._default if isinstance(self._default, str) else ""

    @property
    def runners(self) -> list[Runner]:
        """The runners that were started, each once."""
        return list({id(runner): runner for runner in list(self._runners.values())}.values())

    def start(self) -> None:
        """Start the default runner and those that the application has set, also again after a `stop`."""
        if self.is_stopped:
            self.is_stopped = self._has_warned = False
            for runner in self.runners:
                runner.start(self._host)
        if self._default is not None:
            self._runner(None)
        for name in self._given:
            self._runner(name)

    def is_default(self, due: ReadyInstance) -> bool:
        """Return whether the default runner runs this instance."""
        return self._name_of(due) in {None, self._default}

    def dispatch(self, ready: Sequence[ReadyInstance]) -> None:
        """Give instances to their runners. If a runner fails, the sweep tries its instances again later."""
        if self.is_stopped:
            self._warn_once(ready)
            return
        failing: set[str] = set()
        for due in ready:
            place = f"runner {due.using or self._default!r}"
            if place in failing:
                continue
            try:
                self._submit(due)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - what was released is stored, so nothing raises
                failing.add(place)
                where = place_of(due.uid, due.task, due.number)
                what = f"{where}, and all others for this runner, were not dispatched; the sweep tries again"
                self._problems.report("plugin", place, error, what)
            else:
                self._problems.resolve(place)

    def _submit(self, due: ReadyInstance) -> None:
        name = self._name_of(due)
        runner = self._runner(name)
        self._tell_unused(runner, name or self._label, due.run or "")
        runner.submit(due)

    def _tell_unused(self, runner: Runner, label: str, run: str) -> None:
        """Log which options of a task a runner does not use, once for each task."""
        if (label, run) in self._told or (options := self._host.task_options(run)) is None:
            return
        self._told.add((label, run))
        if options and not getattr(runner, "applies_task_options", False):
            what = "the runner %s does not use these options of the task %r: %s"
            _log.warning(what, label or runner, run, ", ".join(options))

    def _warn_once(self, ready: Sequence[ReadyInstance]) -> None:
        if ready and not self._has_warned:
            self._has_warned = True
            what = "%r is closed: released instances are stored, and run after start() or in another process"
            _log.warning(what, self._host)

    def _runner(self, name: str | None) -> Runner:
        wanted: Any = self._default if name is None else self._given.get(name, name)
        label = name or self._label
        if label not in self._runners:
            made = self._load(wanted) if isinstance(wanted, str) else wanted
            if made not in self._runners.values():
                made.start(self._host)
            self._runners[label] = made
        return self._runners[label]

    def is_idle(self) -> bool:
        """Return whether no runner of this process runs an instance or has a hint."""
        return all(runner.is_idle() for runner in self.runners)

    def has_room(self) -> bool:
        """Return whether the runners of this process would run another instance at once."""
        asked = [getattr(runner, "has_room", None) for runner in self.runners]
        return all(ask() for ask in asked if ask is not None)

    def tend(self) -> None:
        """Start the threads of runners again that have died or could not start."""
        for runner in self.runners:
            tend = getattr(runner, "tend", None)
            if tend is not None:
                tend()

    def threads(self) -> dict[str, int]:
        """Name of a runner → how many threads it has now, for runners that have threads in this process."""
        counts = {
            label or "default": getattr(runner, "threads", None)
            for label, runner in list(self._runners.items())
        }
        return {label: count for label, count in counts.items() if count is not None}

    def stop(self) -> None:
        """Dispatch nothing more, until the next `start`. The runners continue."""
        self.is_stopped = True

    def close(self, until: float | None) -> bool:
        """Close all runners; return whether everything that they ran has ended.

        Args:
            until: the monotonic time until which it waits for running instances; None for no limit.
        """
        self.stop()
        have_ended = [runner.close(_left(until)) for runner in self.runners]
        return all(have_ended)


def _left(until: float | None) -> float | None:
    """Return the time until that monotonic time, in seconds."""
    return None if until is None else max(until - time.monotonic(), 0.0)
