"""A whole application for a test: one thread, a clock that stands still, nothing left behind."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from triggers import plugins
from triggers.app import Triggers
from triggers.core.status import Status
from triggers.manager import TriggerManager
from triggers.runners.inline import InlineRunner
from triggers.storages.memory import MemoryStorage
from triggers.task import registry as default_registry
from triggers.testing.assertions import SessionAssertions
from triggers.testing.clock import VirtualClock
from triggers.testing.faults import FaultyStorage
from triggers.testing.tasks import StandIn, ready_made

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from typing import Self

    from triggers.session import SessionView
    from triggers.storages.base import Storage
    from triggers.task import Registry
    from triggers.testing.faults import Faults

#: How far :meth:`TriggersHarness.run_until_idle` looks, unless told otherwise.
HORIZON: Final = timedelta(days=30)

_MICROSECOND: Final = timedelta(microseconds=1)


class TriggersHarness:
    """An application that runs everything inside of the call that fires, on a virtual clock.

    Every runner is inline, whatever `using` says, and sweeps happen where :meth:`advance` says so, never in
    the background. A context manager; :meth:`close` ends it, too.

    Args:
        registry: the application's tasks; the ready-made ones are known besides.
        manager: the class of its managers.
        managers: further classes that sessions may belong to.
        runners: names of runners that `using` may give and that are not installed.
        storage: makes the storage, given the clock; in memory by default.
        clock: the clock; a new one by default.
        faults: where the process is to die; nowhere by default.
        strict_logs: whether what goes wrong in logging, in a handler of the application say, is raised into
            the task instead of being reported and passed over.
        settings: further settings of :class:`~triggers.Triggers`. An unknown `run` is refused when it is
            configured, unless ``complete_registry=False`` is among them.

    Attributes:
        clock: the clock; moving it by itself lets time pass without anybody looking.
        triggers: the application, another one after a :meth:`restart`.
        faults: where the process is to die, or None.
    """

    def __init__(
        self,
        *,
        registry: Registry = default_registry,
        manager: type[TriggerManager] = TriggerManager,
        managers: Sequence[type[TriggerManager]] = (),
        runners: Collection[str] = (),
        storage: Callable[[VirtualClock], Storage] | None = None,
        clock: VirtualClock | None = None,
        faults: Faults | None = None,
        strict_logs: bool = True,
        **settings: Any,
    ) -> None:
        self.clock = clock or VirtualClock()
        self.faults = faults
        self._tasks = ready_made(registry)
        made: Storage = storage(self.clock) if storage else MemoryStorage(clock=self.clock)
        self._storage = FaultyStorage(made, faults) if faults else made
        strictly = _strict if strict_logs else lambda kind: kind
        self._settings = {
            "complete_registry": True,
            "manager": strictly(manager),
            "managers": [strictly(kind) for kind in managers],
            **settings,
        }
        self._runners = sorted({*runners, *plugins.names(plugins.RUNNERS)})
        self.triggers = self._start()

    def _start(self) -> Triggers:
        inline = InlineRunner()
        everywhere = dict.fromkeys(self._runners, inline)
        return Triggers(
            self._storage, runner=inline, runners=everywhere, registry=self._tasks, **self._settings
        )

    def __repr__(self) -> str:
        return f"<TriggersHarness at {self.clock.time.isoformat()} on {self._storage!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- what a test does -------------------------------------------------------------------------------

    def session(self, uid: str) -> TriggerManager:
        """The manager of a session, see :meth:`triggers.Triggers.session`."""
        return self.triggers.session(uid)

    def check(self, session: TriggerManager | SessionView | str) -> SessionAssertions:
        """Assertions about a session, given its manager, its view or its UID."""
        return SessionAssertions(self.session(session) if isinstance(session, str) else session)

    def stand_in(
        self, run: str, *, result: Mapping[str, Any] | None = None, error: BaseException | None = None
    ) -> None:
        """Let something else run in the place of a task, from now on; the given registry stays as it is.

        Args:
            run: name of the task, as a configuration's `run` has it; it need not exist.
            result: what is returned.
            error: what is raised instead.
        """
        self._tasks.replace(StandIn(run, result, error))

    def advance(self, duration: timedelta) -> None:
        """Let time pass, stopping at each moment at which something is due: retries, lost leases, lost hints.

        Inside of a task it is as if the process had been paused for so long: its claims run out, others take
        them, and `lease_lost` tells.

        Raises:
            ValueError: the duration is negative.
        """
        if duration < timedelta():
            message = f"time passes forwards, not by {duration}; to set the clock back, use clock.advance"
            raise ValueError(message)
        until = self.clock() + duration // _MICROSECOND
        self.triggers.sweep()
        self._sweep_until(until)
        self._move_to(until)
        self.triggers.sweep()
        self._beat()

    def run_until_idle(self, horizon: timedelta = HORIZON) -> timedelta:
        """Let time pass until nothing is scheduled or running any more.

        Args:
            horizon: how much time at most.

        Returns:
            How much time has passed.

        Raises:
            AssertionError: something is still to be done beyond the horizon; the message says what.
        """
        begin = self.clock()
        self.triggers.sweep()
        self._sweep_until(begin + horizon // _MICROSECOND)
        self._beat()
        if left := self._unfinished():
            raise AssertionError("\n".join([f"after {horizon} there is still to be done:", *left]))
        return (self.clock() - begin) * _MICROSECOND

    def restart(self) -> None:
        """Start the application anew on what is stored, as after a crash; get managers anew, too."""
        self.triggers.close()
        if self.faults is not None:
            self.faults.revive()
        self.triggers = self._start()

    def close(self) -> None:
        """End the application; a second call does nothing."""
        self.triggers.close()

    # -- time -------------------------------------------------------------------------------------------

    def _sweep_until(self, until: int) -> None:
        """Sweep at each moment, from now on, at which something is due."""
        due, stuck = self._next_at(), None
        while due is not None and due <= until and due != stuck:
            # A lease that ends at a moment has run out one microsecond later.
            for moment in (due, min(due + 1, until)):
                self._move_to(moment)
                self.triggers.sweep()
                stuck, due = due, self._next_at()
                if due != stuck:
                    break

    def _next_at(self) -> int | None:
        return self._storage.reader.next_at()

    def _move_to(self, moment: int) -> None:
        self.clock.advance(max(moment - self.clock(), 0) * _MICROSECOND)

    def _beat(self) -> None:
        """Inside of a task: a heartbeat, as when a process goes on after a pause."""
        heart = self.triggers._executor.heartbeat  # noqa: SLF001 - its thread goes by the system's clock
        heart.beat(heart.held)

    def _unfinished(self) -> list[str]:
        busy = {Status.SCHEDULED, Status.RUNNING}
        return [
            f"session {view.uid!r}: {view.explain(instance.name).sentence}"
            for view in self.triggers.sessions()
            for instance in view.find(statuses=busy)
        ]


def _strict(kind: type[TriggerManager]) -> type[TriggerManager]:
    """The same manager, under the same name, with strict logs."""
    body = {
        "__doc__": kind.__doc__,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "name": kind.name,
        "log_settings": replace(kind.log_settings, strict=True),
    }
    return type(kind.__name__, (kind,), body)
