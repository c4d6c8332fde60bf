"""The conformance suite for runners. Subclass :class:`RunnerConformance` and supply the runner.

::

    class TestMyRunner(RunnerConformance):
        @pytest.fixture
        def runner(self):
            return MyRunner(workers=WORKERS)

The tests use a SQLite file, so that a runner may run tasks in other processes. Some tests only work for
runners in the process of the test; see :attr:`RunnerConformance.in_process`.
"""

from __future__ import annotations

import os
import threading
import warnings
from collections import Counter
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, ClassVar, Final
from uuid import UUID

import pytest

from triggers.app import Triggers
from triggers.core.status import Status
from triggers.storages.base import ReadyInstance
from triggers.storages.sqlite import SqliteStorage
from triggers.task import Registry, TaskContext, task
from triggers.testing.assertions import SessionAssertions
from triggers.testing.conformance.model import same
from triggers.testing.faults import FaultyRunner

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from triggers.manager import TriggerManager
    from triggers.runners.base import Runner
    from triggers.storages.base import Storage
    from triggers.testing.faults import Delivery

#: How many tasks the runner under test may run at the same time, at most.
WORKERS: Final = 3

#: After so many seconds a test fails because something hangs.
TIMEOUT: Final = 60.0


#: What kwargs and results may hold: one of each type that JSON lacks.
VALUES: Final[dict[Any, Any]] = {
    "times": [datetime(2026, 11, 22, tzinfo=UTC), date(2026, 11, 22), time(1, 2), timedelta(1, 2, 3)],
    "others": [Decimal("1.10"), UUID(int=1), b"\x00\xff", "\N{PILE OF POO}", None, 2.0, True],
    "containers": ((), {1, (2, "a")}, frozenset({b""}), [{1: {None: {"$tuple": [1]}}}]),
    (1, "a"): {date(2026, 11, 22): 2.5},
}


class Stage:
    """The tasks of these tests, and what they share with the test if they run in its process.

    Attributes:
        registry: the tasks ``count``, ``echo``, ``block``, ``fire``, ``raise`` and ``exit``.
        runs: how often each instance ran.
        blocked: is released once for each task that waits for the gate.
        gate: an event for which the task ``block`` waits, and which the test sets.
    """

    def __init__(self) -> None:
        self.registry: Registry = Registry()
        self.runs: Counter[str] = Counter()
        self.blocked: threading.Semaphore = threading.Semaphore(0)
        self.gate: threading.Event = threading.Event()
        for name, function in (
            ("count", self.count),
            ("echo", self.echo),
            ("block", self.block),
            ("fire", self.fire),
            ("raise", self.raise_),
            ("exit", self.exit),
        ):
            task(name=name, registry=self.registry)(function)

    def count(self, context: TaskContext) -> dict[str, Any]:
        """Count the run, and return the number of the attempt."""
        self.runs[context.task_instance.name] += 1
        return {"attempt": context.attempt}

    def echo(self, context: TaskContext) -> Any:
        """Return the kwargs of its trigger as the result, so that a test can compare them."""
        return context.trigger_kwargs["echo"]

    def block(self, context: TaskContext) -> dict[str, Any]:
        """Wait until the test opens the gate, then count the run."""
        self.blocked.release()
        if not self.gate.wait(TIMEOUT):
            raise TimeoutError("the test did not open the gate in time")
        return self.count(context)

    def fire(self, context: TaskContext) -> dict[str, Any]:
        """Fire the trigger ``inner`` from within the task, then count the run."""
        context.manager.fire("inner", {"by": context.task_instance.name})
        return self.count(context)

    def raise_(self, context: TaskContext) -> None:
        """Raise an error, so that the instance fails."""
        raise ValueError(context.task_instance.name)

    def exit(self, context: TaskContext) -> None:
        """Try to end the process with SystemExit."""
        raise SystemExit(context.task_instance.name)


class RunnerConformance:
    """The promises of :mod:`triggers.runners.base`, with a test for each way to break one."""

    #: Whether `submit` runs the instance before it returns.
    synchronous: ClassVar[bool] = False
    #: Whether tasks run in the process of the test, so that they can share objects with it. If not, override
    #: `storage` and `stage` so that the other processes use the same storage and the same tasks.
    in_process: ClassVar[bool] = True
    #: The time after which the sweep repeats a hint. Set a longer one if messages take a while.
    grace: ClassVar[timedelta] = timedelta(microseconds=1)
    #: More instances than the runner keeps hints for.
    many: ClassVar[int] = 300

    # -- fixtures to override ---------------------------------------------------------------------------

    @pytest.fixture
    def runner(self) -> Runner:
        """A new runner that is not started, and runs at most :data:`WORKERS` tasks at the same time."""
        raise NotImplementedError

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        """A new, empty storage that the workers of the runner can reach."""
        return SqliteStorage(f"sqlite:///{tmp_path}/runner.db?synchronous=normal")

    @pytest.fixture
    def stage(self) -> Iterator[Stage]:
        """The tasks. The processes of a runner must have them as well."""
        stage = Stage()
        yield stage
        stage.gate.set()

    # -- the tests --------------------------------------------------------------------------------------

    @pytest.fixture
    def deliveries(self) -> list[Delivery]:
        """How the first hints are delivered, in order. All later ones are delivered once."""
        return []

    @pytest.fixture
    def unreliable(self, runner: Runner, deliveries: list[Delivery]) -> FaultyRunner:
        """The runner, with hints that are delivered as `deliveries` says."""
        left = iter(deliveries)
        return FaultyRunner(runner, lambda _: next(left, "deliver"))

    @pytest.fixture
    def triggers(self, unreliable: FaultyRunner, storage: Storage, stage: Stage) -> Iterator[Triggers]:
        """An application with the runner. It sweeps only when a test calls `sweep`."""
        triggers = Triggers(storage, runner=unreliable, registry=stage.registry, grace=self.grace)
        yield triggers
        stage.gate.set()
        triggers.close(TIMEOUT)

    @pytest.fixture
    def session(self, triggers: Triggers) -> TriggerManager:
        """A session in which the trigger ``<task>`` runs the task of that name."""
        session = triggers.session("s")
        session.update_configuration(
            {
                f"t_{name}": {"andEvery": name, "run": name}
                for name in ("count", "echo", "block", "raise", "exit", "fire")
            }
            | {"t_inner": {"andEvery": "inner", "run": "count"}}
            | {f"t_chain_{n}": {"after": [f"t_chain_{n - 1}"], "run": "count"} for n in range(1, 6)}
            | {"t_chain_0": {"after": ["chain"], "run": "count"}}
        )
        return session

    def settle(self, triggers: Triggers) -> None:
        """Wait until no instance is scheduled or running."""
        if not triggers.join(TIMEOUT):
            pytest.fail(
                f"after {TIMEOUT} s, instances are still scheduled or running: "
                f"{triggers.storage.reader.backlog()}"
            )

    def require_in_process(self) -> None:
        """Skip a test whose tasks share objects with the test, if this runner does not allow that."""
        if self.synchronous:
            pytest.skip("submit runs the instance before it returns")
        if not self.in_process:
            pytest.skip("tasks run in other processes")

    def test_a_submitted_instance_runs(self, triggers: Triggers, session: TriggerManager) -> None:
        """A scheduled instance runs once."""
        session.fire("count")
        self.settle(triggers)
        SessionAssertions(session).assert_instance_finished("t_count#0", {"attempt": 1})

    def test_values_come_back_as_they_went_in(self, triggers: Triggers, session: TriggerManager) -> None:
        """A task is given the kwargs that were fired, of every type, and what it returns is kept as it is."""
        session.fire("echo", VALUES)
        self.settle(triggers)
        result = SessionAssertions(session).assert_instance_finished("t_echo#0").result
        if not same(result, VALUES):
            pytest.fail(f"the values came back as {result!r}")

    def test_cascades_run_to_their_end(self, triggers: Triggers, session: TriggerManager) -> None:
        """An instance that is scheduled by the end of another one runs too, and so on."""
        session.fire("chain")
        self.settle(triggers)
        for number in range(6):
            SessionAssertions(session).assert_instance_finished(f"t_chain_{number}#0", {"attempt": 1})

    def test_a_task_may_fire(self, triggers: Triggers, session: TriggerManager) -> None:
        """Instances that a task schedules through its manager run, although the task keeps a worker busy."""
        session.fire("fire")
        self.settle(triggers)
        inner = SessionAssertions(session).assert_instance_finished("t_inner#0", {"attempt": 1})
        if inner.kwargs != {"inner": {"by": "t_fire#0"}}:
            pytest.fail(f"the inner instance has other kwargs: {inner.kwargs}")

    def test_submit_returns_at_once(self, triggers: Triggers, session: TriggerManager, stage: Stage) -> None:
        """If all workers are busy and it keeps no more hints, `submit` does not wait.

        All instances run later.
        """
        self.require_in_process()
        for _ in range(self.many):
            session.fire("block")
        if stage.runs:
            pytest.fail("an instance ended before the gate was opened")
        stage.gate.set()
        self.settle(triggers)
        if stage.runs != Counter(f"t_block#{number}" for number in range(self.many)):
            pytest.fail(f"each of {self.many} instances should have run once: {stage.runs}")

    def test_more_instances_than_hints_run(self, triggers: Triggers) -> None:
        """If one firing schedules more instances than the runner keeps hints for, all of them run."""
        rules = {f"t_{number}": {"after": ["all"], "run": "count"} for number in range(self.many)}
        crowd = triggers.session("crowd")
        crowd.update_configuration(rules)
        crowd.fire("all")
        self.settle(triggers)
        SessionAssertions(crowd).assert_unresolved_tasks([])
        again = [instance.name for instance in crowd.storage if instance.attempt != 1]
        if again:
            pytest.fail(f"claimed more than once: {again}")

    @pytest.mark.parametrize("deliveries", [["drop"] * 3])
    def test_a_lost_hint_is_found_by_the_sweep(self, triggers: Triggers, session: TriggerManager) -> None:
        """Instances whose hints were lost run after the sweep."""
        for _ in range(3):
            session.fire("count")
        SessionAssertions(session).assert_instance_scheduled("t_count#0")
        triggers.sweep()
        self.settle(triggers)
        SessionAssertions(session).assert_unresolved_instances([])

    @pytest.mark.parametrize("deliveries", [["twice"] * 20])
    def test_a_repeated_hint_is_harmless(self, triggers: Triggers, session: TriggerManager) -> None:
        """An instance that is submitted twice runs once."""
        for _ in range(20):
            session.fire("count")
        self.settle(triggers)
        for instance in session.storage.instances_of_task("t_count"):
            SessionAssertions(session).assert_instance_finished(instance.name, {"attempt": 1})

    @pytest.mark.parametrize("deliveries", [["late"] * 2])
    def test_a_late_hint_is_harmless(
        self, triggers: Triggers, session: TriggerManager, unreliable: FaultyRunner
    ) -> None:
        """A hint that arrives after its instance has run, or after a person skipped it, does nothing."""
        session.fire("count")
        session.fire("raise")
        triggers.sweep()
        self.settle(triggers)
        session.skip_failed_instance("t_raise#0")
        unreliable.deliver_late()
        session.fire("count")
        self.settle(triggers)
        SessionAssertions(session).assert_instance_finished("t_count#0", {"attempt": 1})
        SessionAssertions(session).assert_instance_skipped("t_raise#0")
        SessionAssertions(session).assert_instance_finished("t_count#1", {"attempt": 1})

    @pytest.mark.parametrize(
        "nonsense",
        [
            ReadyInstance("s", "t_count", 99, None),
            ReadyInstance("s", "nobody", 0, None),
            ReadyInstance("nobody", "t", 0, None),
        ],
    )
    def test_a_hint_for_an_unknown_instance_is_harmless(
        self, triggers: Triggers, session: TriggerManager, unreliable: FaultyRunner, nonsense: ReadyInstance
    ) -> None:
        """A hint for an instance that does not exist does nothing, and later hints still work."""
        session.fire("count")
        unreliable.submit(nonsense)
        session.fire("count")
        self.settle(triggers)
        SessionAssertions(session).assert_unresolved_instances([])

    @pytest.mark.parametrize("way", ["raise", "exit"])
    def test_no_task_ends_the_runner(self, triggers: Triggers, session: TriggerManager, way: str) -> None:
        """Tasks that raise, or try to end the process, fail, and all other tasks run."""
        for _ in range(3 * WORKERS):
            session.fire(way)
        session.fire("count")
        self.settle(triggers)
        check = SessionAssertions(session)
        for number in range(3 * WORKERS):
            check.assert_instance_failed(f"t_{way}#{number}", {"raise": ValueError, "exit": SystemExit}[way])
        check.assert_instance_finished("t_count#0")

    def test_a_runner_is_idle_when_nothing_runs(
        self, triggers: Triggers, session: TriggerManager, unreliable: FaultyRunner, stage: Stage
    ) -> None:
        """A runner is not idle while a task runs, and is idle soon after the last task has ended."""
        self.require_in_process()
        session.fire("block")
        stage.blocked.acquire(timeout=TIMEOUT)
        busy = unreliable.is_idle()
        stage.gate.set()
        self.settle(triggers)
        if busy:
            pytest.fail("idle although a task runs")
        unreliable.close(TIMEOUT)
        if not unreliable.is_idle():
            pytest.fail("not idle although no task runs")

    def test_nothing_runs_after_close(
        self, triggers: Triggers, session: TriggerManager, unreliable: FaultyRunner, storage: Storage
    ) -> None:
        """A hint that arrives after `close` is ignored. Its instance stays scheduled in the storage."""
        session.fire("count")
        self.settle(triggers)
        triggers.close()
        session.fire("count")
        unreliable.submit(ReadyInstance("s", "t_count", 1, None))
        if not unreliable.close(TIMEOUT):
            pytest.fail("a second close did not return true in time")
        SessionAssertions(session).assert_instance_scheduled("t_count#1")
        storage.close()

    def test_after_a_close_a_start_begins_again(self, triggers: Triggers, session: TriggerManager) -> None:
        """What was released while it was closed runs after `start`, and what comes later; more than once."""
        for number in range(3):
            session.fire("count")
            self.settle(triggers)
            triggers.close(TIMEOUT)
            session.fire("count")
            SessionAssertions(session).assert_instance_scheduled(f"t_count#{2 * number + 1}")
            triggers.start()
            self.settle(triggers)
        session.fire("chain")
        self.settle(triggers)
        statuses = Counter(instance.status for instance in session.storage)
        if statuses != {Status.FINISHED: 3 * 2 + 6}:
            pytest.fail(f"after three closes and starts: {dict(statuses)}")

    def test_close_waits_for_what_runs(
        self, triggers: Triggers, session: TriggerManager, stage: Stage
    ) -> None:
        """Tasks that run at `close` end before it returns. Waiting instances are left to other workers."""
        self.require_in_process()
        for _ in range(self.many):
            session.fire("block")
        stage.blocked.acquire(timeout=TIMEOUT)
        closing = threading.Thread(target=triggers.close)
        closing.start()
        closing.join(0.05)
        if not closing.is_alive():
            pytest.fail("close returned although a task runs")
        stage.gate.set()
        closing.join(TIMEOUT)
        statuses = Counter(instance.status for instance in session.storage)
        if closing.is_alive() or not stage.runs or statuses[Status.RUNNING]:
            pytest.fail(
                f"after close, with {sum(stage.runs.values())} ended, the statuses are: {dict(statuses)}"
            )
        if statuses[Status.FINISHED] != sum(stage.runs.values()):
            pytest.fail(f"{sum(stage.runs.values())} ended, but the stored statuses are {dict(statuses)}")

    def test_close_returns_after_its_timeout(
        self, triggers: Triggers, session: TriggerManager, stage: Stage
    ) -> None:
        """A task that does not end within the timeout of `close` is released, and no crash is counted."""
        self.require_in_process()
        session.fire("block")
        stage.blocked.acquire(timeout=TIMEOUT)
        triggers.close(0.01)
        instance = SessionAssertions(session).assert_instance_scheduled("t_block#0")
        if instance.crashes:
            pytest.fail("the release was counted as a crash")
        stage.gate.set()

    def test_a_forked_process_has_a_runner(self, triggers: Triggers, session: TriggerManager) -> None:
        """After a fork, the child runs the instances that it schedules, and the parent continues."""
        if not hasattr(os, "fork"):
            pytest.skip("this system has no fork")
        session.fire("count")
        self.settle(triggers)
        code = _in_child(lambda: self._fire_in_child(triggers))
        session.fire("count")
        self.settle(triggers)
        SessionAssertions(session).assert_unresolved_instances([])
        if code:
            pytest.fail(f"the child ended with {code}")
        for number in range(3):
            SessionAssertions(session).assert_instance_finished(f"t_count#{number}", {"attempt": 1})

    def _fire_in_child(self, triggers: Triggers) -> bool:
        session = triggers.session("s")
        session.fire("count")
        return triggers.join(TIMEOUT) and session.storage["t_count#1"].status is Status.FINISHED


def _in_child(work: Any) -> int:
    """Call `work` in a forked process. Return its exit code: 0 if `work` returned a true value."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # this tests a fork with threads
        pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
