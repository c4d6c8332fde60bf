"""A whole application for a test, in one thread, with a virtual clock."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from triggers import plugins
from triggers.app import Triggers
from triggers.core.status import Status
from triggers.manager import TriggerManager
from triggers.runners.inline import InlineRunner
from triggers.session import SessionView, unfinished
from triggers.storages.memory import MemoryStorage
from triggers.task import registry as default_registry
from triggers.testing.assertions import SessionAssertions
from triggers.testing.clock import VirtualClock
from triggers.testing.faults import FaultyStorage
from triggers.testing.tasks import StandIn, ready_made
from triggers.worker.log_writer import ManualLogWriter

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from typing import Self

    from triggers.storages.base import Storage
    from triggers.task import Registry
    from triggers.testing.faults import Faults

#: How much time :meth:`TriggersHarness.run_until_idle` lets pass by default, at most.
HORIZON: Final = timedelta(days=30)

#: How many failed instances are described in full at the end of a block; the others are listed.
SHOWN_FAILURES: Final = 10

_MICROSECOND: Final = timedelta(microseconds=1)


class TriggersHarness:
    """An application that runs every task within the call that fires its trigger, on a virtual clock.

    Every runner is inline, whatever `using` says. Sweeps happen in :meth:`advance` and
    :meth:`run_until_idle`, never in the background. Use the harness as a context manager, or call
    :meth:`close`.

    At the end of the `with` block, an instance that has failed is an error, unless the test asserted that it
    failed (:meth:`~triggers.testing.SessionAssertions.assert_instance_failed`), or allows failures.

    Args:
        registry: the application's tasks. The ready-made tasks are available as well.
        manager: the class of its managers, or the name of an installed one.
        managers: more manager classes, or names, that sessions may belong to.
        runners: more names that `using` may contain, of runners that are not installed here.
        storage: makes the storage, given the clock; in memory by default.
        clock: the clock; a new one by default.
        faults: decides at which point the process dies; by default it does not.
        strict_logs: whether an error in logging, for example in a handler of the application, is raised in
            the task. An application reports such an error and continues.
        allow_failures: whether instances may fail without an assertion.
        settings: more settings of :class:`~triggers.Triggers`. A configuration with an unknown `run` is an
            error, unless ``complete_registry=False`` is one of the settings.

    Attributes:
        clock: the clock. If you move it directly, time passes without a sweep.
        triggers: the application; a new one after :meth:`restart`.
        faults: decides at which point the process dies, or None.
    """

    def __init__(
        self,
        *,
        registry: Registry = default_registry,
        manager: type[TriggerManager] | str = TriggerManager,
        managers: Sequence[type[TriggerManager] | str] = (),
        runners: Collection[str] = (),
        storage: Callable[[VirtualClock], Storage] | None = None,
        clock: VirtualClock | None = None,
        faults: Faults | None = None,
        strict_logs: bool = True,
        allow_failures: bool = False,
        **settings: Any,
    ) -> None:
        self.clock: VirtualClock = clock or VirtualClock()
        self.faults = faults
        self._tasks = ready_made(registry)
        made: Storage = storage(self.clock) if storage else MemoryStorage(clock=self.clock)
        self._made = made
        self._storage = FaultyStorage(made, faults) if faults else made
        self._failures_allowed = allow_failures
        self._asserted: set[tuple[str, str]] = set()
        strictly = _strict if strict_logs else lambda kind: kind
        self._settings = {
            "complete_registry": True,
            "manager": strictly(plugins.manager_class(manager)),
            "managers": [strictly(plugins.manager_class(kind)) for kind in managers],
            **settings,
        }
        self._runners = sorted({*runners, *plugins.names(plugins.RUNNERS)})
        self.triggers: Triggers = self._start()

    def _start(self) -> Triggers:
        inline = InlineRunner()
        everywhere = dict.fromkeys(self._runners, inline)
        triggers = Triggers(
            self._storage, runner=inline, runners=everywhere, registry=self._tasks, **self._settings
        )
        triggers._executor.log_writer = ManualLogWriter()  # noqa: SLF001 - its thread uses the system's clock
        return triggers

    def __repr__(self) -> str:
        return f"<TriggersHarness at {self.clock.time.isoformat()} on {self._storage!r}>"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            if kind is None:
                self.check_failures()
        finally:
            self.close()

    # -- steps of a test --------------------------------------------------------------------------------

    def session(self, uid: str) -> TriggerManager:
        """Return the manager of a session; see :meth:`triggers.Triggers.session`."""
        return self.triggers.session(uid)

    def check(self, session: TriggerManager | SessionView | str) -> SessionAssertions:
        """Return assertions about a session, given its manager, its view or its UID."""
        return SessionAssertions(
            self.session(session) if isinstance(session, str) else session, asserted=self._asserted
        )

    def allow_failures(self) -> None:
        """Let instances fail in this test without an assertion."""
        self._failures_allowed = True

    def check_failures(self) -> None:
        """Check that no instance has failed, except those that were asserted to have failed.

        The end of the `with` block does this, unless an exception ends it. Call it yourself if you do not use
        the harness as a context manager. After :meth:`allow_failures`, it does nothing.

        Raises:
            AssertionError: with everything that is stored about the failed instances.
        """
        __tracebackhide__ = True
        if self._failures_allowed:
            return
        if self.faults is not None and self.faults.dead:
            self.restart()
        failed = [
            (view, instance.name)
            for view in self._views()
            for instance in view.find(statuses={Status.FAILED})
            if (view.uid, instance.name) not in self._asserted
        ]
        if failed:
            raise AssertionError("\n".join(_unexpected(failed)))

    def _views(self) -> Iterator[SessionView]:
        """Yield every session, past the faults: reading them is not a step of the test."""
        after = ""
        while page := self._made.reader.sessions(after):
            yield from (SessionView(head.uid, self._made) for head in page)
            after = page[-1].uid

    def stand_in(
        self, run: str, *, result: Mapping[str, Any] | None = None, error: BaseException | None = None
    ) -> None:
        """Replace a task in this harness from now on. The registry of the application does not change.

        Args:
            run: the name of the task, as in the `run` of a configuration. The task does not have to exist.
            result: the result that the replacement returns.
            error: an error that it raises instead.
        """
        self._tasks.replace(StandIn(run, result, error))

    def advance(self, duration: timedelta) -> None:
        """Let time pass, and sweep at each moment at which something is due.

        That is a timer, a retry, an expired lease or a lost hint.

        Within a task, the effect is that of a process that was paused for this duration: its claims expire,
        others claim the instances, and `lease_lost` becomes true.

        Raises:
            ValueError: the duration is negative.
        """
        if duration < timedelta():
            message = (
                f"the duration must not be negative: {duration}; to set the clock back, use clock.advance"
            )
            raise ValueError(message)
        until = self.clock() + duration // _MICROSECOND
        self.triggers.sweep()
        self._sweep_until(until, timers=True)
        self._move_to(until)
        self.triggers.sweep()
        self._beat()

    def run_until_idle(self, horizon: timedelta = HORIZON, *, timers: bool = False) -> timedelta:
        """Let time pass until no instance is scheduled or running.

        Args:
            horizon: how much time may pass at most.
            timers: also let time pass until no timer is set.

        Returns:
            How much time has passed.

        Raises:
            AssertionError: an instance is still scheduled or running after the horizon; the message says
                which.
        """
        begin = self.clock()
        self.triggers.sweep()
        self._sweep_until(begin + horizon // _MICROSECOND, timers=timers)
        self._beat()
        if left := list(unfinished(self.triggers.sessions())):
            raise AssertionError(
                "\n".join([f"after {horizon} these instances are still scheduled or running:", *left])
            )
        return (self.clock() - begin) * _MICROSECOND

    def restart(self) -> None:
        """Close the application and start a new one on the same storage, as after a crash.

        Get new managers from :meth:`session`: the old ones belong to the application that was closed.
        """
        self.triggers.close()
        if self.faults is not None:
            self.faults.revive()
        self.triggers = self._start()

    def close(self) -> None:
        """Close the application. A second call does nothing."""
        self.triggers.close()

    # -- time -------------------------------------------------------------------------------------------

    def _sweep_until(self, until: int, *, timers: bool) -> None:
        """Sweep at each moment until then at which something is due.

        It ends early if no instance is scheduled or running, unless it also waits for timers.
        """
        due, stuck = self._next_at(timers=timers), None
        while due is not None and due <= until and due != stuck:
            # A lease that ends at a moment is expired one microsecond later.
            for moment in (due, min(due + 1, until)):
                self._move_to(moment)
                self.triggers.sweep()
                stuck, due = due, self._next_at(timers=timers)
                if due != stuck:
                    break

    def _next_at(self, *, timers: bool) -> int | None:
        instance_at = self._storage.reader.next_at()
        if instance_at is None and not timers:
            return None
        # It knows the managers of the application. Past the faults: this is not a step of the application.
        keeper = replace(self.triggers._sweep.timekeeper, storage=self._made)  # noqa: SLF001
        return min((at for at in (instance_at, keeper.next_at()) if at is not None), default=None)

    def _move_to(self, moment: int) -> None:
        self.clock.advance(max(moment - self.clock(), 0) * _MICROSECOND)

    def _beat(self) -> None:
        """Do for the running tasks what a process does that continues after a pause.

        That is a heartbeat, and storing what they have logged.
        """
        executor = self.triggers._executor  # noqa: SLF001 - its threads use the system's clock
        executor.heartbeat.beat(executor.heartbeat.held)
        executor.log_writer.act(executor.log_writer.items)


def _unexpected(failed: Sequence[tuple[SessionView, str]]) -> Iterator[str]:
    yield (
        f"{len(failed)} failed, which the test does not expect: fix the cause, assert it with "
        "assert_instance_failed, or call harness.allow_failures()"
    )
    for view, name in failed[:SHOWN_FAILURES]:
        yield f"{name} of session {view.uid!r}:"
        yield SessionAssertions(view).describe(name)
    yield from (f"{name} of session {view.uid!r}" for view, name in failed[SHOWN_FAILURES:])


def _strict(kind: type[TriggerManager]) -> type[TriggerManager]:
    """A subclass of the manager with the same name and strict logs."""
    body = {
        "__doc__": kind.__doc__,
        "__module__": kind.__module__,
        "__qualname__": kind.__qualname__,
        "name": kind.name,
        "log_settings": replace(kind.log_settings, strict=True),
    }
    return type(kind.__name__, (kind,), body)
