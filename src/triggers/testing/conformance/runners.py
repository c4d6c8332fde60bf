"""What every runner promises, as tests: subclass :class:`RunnerConformance` and supply the runner.

::

    class TestMyRunner(RunnerConformance):
        @pytest.fixture
        def runner(self):
            return MyRunner(workers=WORKERS)

The tests run on a SQLite file, so that a runner may use other processes; those whose tasks have to meet the
test itself are for runners in this process, see :attr:`RunnerConformance.in_process`.
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
    from triggers.testing.faults import Fate

#: So many tasks at a time the runner under test must be able to run, or fewer.
WORKERS: Final = 3

#: So many instances are more than any runner keeps hints for.
MANY: Final = 300

#: Nothing here takes so long, in seconds, unless it hangs.
PATIENCE: Final = 60.0


#: What kwargs and results may hold: one of each type that JSON lacks.
VALUES: Final[dict[Any, Any]] = {
    "times": [datetime(2026, 11, 22, tzinfo=UTC), date(2026, 11, 22), time(1, 2), timedelta(1, 2, 3)],
    "others": [Decimal("1.10"), UUID(int=1), b"\x00\xff", "\N{PILE OF POO}", None, 2.0, True],
    "containers": ((), {1, (2, "a")}, frozenset({b""}), [{1: {None: {"$tuple": [1]}}}]),
    (1, "a"): {date(2026, 11, 22): 2.5},
}


class Stage:
    """The tasks of these tests, and what they and the test tell each other; for runners in this process.

    Attributes:
        registry: the tasks ``count``, ``echo``, ``block``, ``fire``, ``raise`` and ``exit``.
        runs: how often each instance ran.
        blocked: one for each task that waits for the gate.
        gate: opened by the test.
    """

    def __init__(self) -> None:
        self.registry = Registry()
        self.runs: Counter[str] = Counter()
        self.blocked = threading.Semaphore(0)
        self.gate = threading.Event()
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
        """Count the run."""
        self.runs[context.task_instance.name] += 1
        return {"attempt": context.attempt}

    def echo(self, context: TaskContext) -> Any:
        """Return what it was fired with."""
        return context.trigger_kwargs["echo"]

    def block(self, context: TaskContext) -> dict[str, Any]:
        """Wait for the gate."""
        self.blocked.release()
        if not self.gate.wait(PATIENCE):
            raise TimeoutError("nobody opened the gate")
        return self.count(context)

    def fire(self, context: TaskContext) -> dict[str, Any]:
        """Fire into the session from within."""
        context.manager.fire("inner", {"by": context.task_instance.name})
        return self.count(context)

    def raise_(self, context: TaskContext) -> None:
        """Raise an error."""
        raise ValueError(context.task_instance.name)

    def exit(self, context: TaskContext) -> None:
        """Try to end the process."""
        raise SystemExit(context.task_instance.name)


class RunnerConformance:
    """The promises of :mod:`triggers.runners.base`, one test for each way to break them."""

    #: Whether `submit` runs the instance itself, before it returns.
    synchronous: ClassVar[bool] = False
    #: Whether tasks run in the process of the test, so that they can meet it there. Where not, `storage`
    #: and the registry of `stage` must be those of the processes where they run.
    in_process: ClassVar[bool] = True
    #: How long a hint has before the sweep repeats it; longer where a message takes a while.
    grace: ClassVar[timedelta] = timedelta(microseconds=1)

    # -- what a subclass supplies -----------------------------------------------------------------------

    @pytest.fixture
    def runner(self) -> Runner:
        """A new runner, not started, that runs at most :data:`WORKERS` tasks at a time."""
        raise NotImplementedError

    @pytest.fixture
    def storage(self, tmp_path: Path) -> Storage:
        """A new, empty storage that the runner's workers can reach."""
        return SqliteStorage(f"sqlite:///{tmp_path}/runner.db?synchronous=normal")

    @pytest.fixture
    def stage(self) -> Iterator[Stage]:
        """The tasks; a runner with processes of its own must know them there, too."""
        stage = Stage()
        yield stage
        stage.gate.set()

    # -- the rest ---------------------------------------------------------------------------------------

    @pytest.fixture
    def fates(self) -> list[Fate]:
        """What becomes of the hints, one after the other; then all are delivered."""
        return []

    @pytest.fixture
    def unreliable(self, runner: Runner, fates: list[Fate]) -> FaultyRunner:
        """The runner, whose hints have their fates."""
        left = iter(fates)
        return FaultyRunner(runner, lambda _: next(left, "deliver"))

    @pytest.fixture
    def triggers(self, unreliable: FaultyRunner, storage: Storage, stage: Stage) -> Iterator[Triggers]:
        """An application with the runner, which sweeps only when it is told to."""
        triggers = Triggers(storage, runner=unreliable, registry=stage.registry, grace=self.grace)
        yield triggers
        stage.gate.set()
        triggers.close(PATIENCE)

    @pytest.fixture
    def session(self, triggers: Triggers) -> TriggerManager:
        """A session in which every ``<task>`` that is fired runs the task of that name."""
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
        """Wait until nothing is left to be done."""
        if not triggers.join(PATIENCE):
            pytest.fail(
                f"something is still to be done after {PATIENCE} s: {triggers.storage.reader.backlog()}"
            )

    def meet(self) -> None:
        """Skip a test in which tasks have to meet the test itself, where they cannot, or must not, do so."""
        if self.synchronous:
            pytest.skip("submit runs the instance itself")
        if not self.in_process:
            pytest.skip("tasks run in other processes")

    def test_what_is_handed_over_runs(self, triggers: Triggers, session: TriggerManager) -> None:
        """An instance that was released runs, once."""
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
        """What the end of an instance releases runs, too, and what that releases."""
        session.fire("chain")
        self.settle(triggers)
        for number in range(6):
            SessionAssertions(session).assert_instance_finished(f"t_chain_{number}#0", {"attempt": 1})

    def test_a_task_may_fire(self, triggers: Triggers, session: TriggerManager) -> None:
        """What a task fires through its manager runs, although a worker is busy with the task."""
        session.fire("fire")
        self.settle(triggers)
        inner = SessionAssertions(session).assert_instance_finished("t_inner#0", {"attempt": 1})
        if inner.kwargs != {"inner": {"by": "t_fire#0"}}:
            pytest.fail(f"the inner firing came with {inner.kwargs}")

    def test_submit_returns_at_once(self, triggers: Triggers, session: TriggerManager, stage: Stage) -> None:
        """With all workers busy, and more to do than it keeps hints for, it does not wait; all runs later."""
        self.meet()
        for _ in range(MANY):
            session.fire("block")
        if stage.runs:
            pytest.fail("an instance ended although it has to wait for the gate")
        stage.gate.set()
        self.settle(triggers)
        if stage.runs != Counter(f"t_block#{number}" for number in range(MANY)):
            pytest.fail(f"{MANY} instances ran so often: {stage.runs}")

    def test_everything_runs_in_the_end(self, triggers: Triggers) -> None:
        """One firing that releases more than the runner keeps is run to its end."""
        rules = {f"t_{number}": {"after": ["all"], "run": "count"} for number in range(MANY)}
        crowd = triggers.session("crowd")
        crowd.update_configuration(rules)
        crowd.fire("all")
        self.settle(triggers)
        SessionAssertions(crowd).assert_unresolved_tasks([])
        again = [instance.name for instance in crowd.storage if instance.attempt != 1]
        if again:
            pytest.fail(f"claimed more than once: {again}")

    @pytest.mark.parametrize("fates", [["drop"] * 3])
    def test_a_lost_hint_is_found_by_the_sweep(self, triggers: Triggers, session: TriggerManager) -> None:
        """Instances of whose release the runner never heard run after the sweep."""
        for _ in range(3):
            session.fire("count")
        SessionAssertions(session).assert_instance_scheduled("t_count#0")
        triggers.sweep()
        self.settle(triggers)
        SessionAssertions(session).assert_unresolved_instances([])

    @pytest.mark.parametrize("fates", [["twice"] * 20])
    def test_a_repeated_hint_is_harmless(self, triggers: Triggers, session: TriggerManager) -> None:
        """An instance that is handed over twice is run once."""
        for _ in range(20):
            session.fire("count")
        self.settle(triggers)
        for instance in session.storage.instances_of_task("t_count"):
            SessionAssertions(session).assert_instance_finished(instance.name, {"attempt": 1})

    @pytest.mark.parametrize("fates", [["late"] * 2])
    def test_a_late_hint_is_harmless(
        self, triggers: Triggers, session: TriggerManager, unreliable: FaultyRunner
    ) -> None:
        """A hint that comes when its instance has long been run, or was moved by hand, does nothing."""
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
    def test_a_hint_of_what_is_not_there_is_harmless(
        self, triggers: Triggers, session: TriggerManager, unreliable: FaultyRunner, nonsense: ReadyInstance
    ) -> None:
        """A hint that names nothing does nothing, and the next one is followed."""
        session.fire("count")
        unreliable.submit(nonsense)
        session.fire("count")
        self.settle(triggers)
        SessionAssertions(session).assert_unresolved_instances([])

    @pytest.mark.parametrize("way", ["raise", "exit"])
    def test_no_task_ends_the_runner(self, triggers: Triggers, session: TriggerManager, way: str) -> None:
        """However many tasks raise, or try to end the process, they are failed and the others run."""
        for _ in range(3 * WORKERS):
            session.fire(way)
        session.fire("count")
        self.settle(triggers)
        check = SessionAssertions(session)
        for number in range(3 * WORKERS):
            check.assert_instance_failed(f"t_{way}#{number}", {"raise": ValueError, "exit": SystemExit}[way])
        check.assert_instance_finished("t_count#0")

    def test_it_is_idle_in_the_end(
        self, triggers: Triggers, session: TriggerManager, unreliable: FaultyRunner, stage: Stage
    ) -> None:
        """While something runs it is not idle, and when all has run it soon is."""
        self.meet()
        session.fire("block")
        stage.blocked.acquire(timeout=PATIENCE)
        busy = unreliable.is_idle()
        stage.gate.set()
        self.settle(triggers)
        if busy:
            pytest.fail("idle although something runs")
        unreliable.close(PATIENCE)
        if not unreliable.is_idle():
            pytest.fail("not idle although nothing runs")

    def test_nothing_runs_after_close(
        self, triggers: Triggers, session: TriggerManager, unreliable: FaultyRunner, storage: Storage
    ) -> None:
        """A hint that comes after `close` is not followed; what was released then waits in the storage."""
        session.fire("count")
        self.settle(triggers)
        triggers.close()
        session.fire("count")
        unreliable.submit(ReadyInstance("s", "t_count", 1, None))
        if not unreliable.close(PATIENCE):
            pytest.fail("a second close does not end")
        SessionAssertions(session).assert_instance_scheduled("t_count#1")
        storage.close()

    def test_close_waits_for_what_runs(
        self, triggers: Triggers, session: TriggerManager, stage: Stage
    ) -> None:
        """What runs at `close` is finished before it returns; what waits is left to others."""
        self.meet()
        for _ in range(MANY):
            session.fire("block")
        stage.blocked.acquire(timeout=PATIENCE)
        closing = threading.Thread(target=triggers.close)
        closing.start()
        closing.join(0.05)
        if not closing.is_alive():
            pytest.fail("close returned although something runs")
        stage.gate.set()
        closing.join(PATIENCE)
        statuses = Counter(instance.status for instance in session.storage)
        if closing.is_alive() or not stage.runs or statuses[Status.RUNNING]:
            pytest.fail(f"after close, with {sum(stage.runs.values())} ended: {dict(statuses)}")
        if statuses[Status.FINISHED] != sum(stage.runs.values()):
            pytest.fail(f"{sum(stage.runs.values())} ended, and stored are {dict(statuses)}")

    def test_close_gives_up_in_time(self, triggers: Triggers, session: TriggerManager, stage: Stage) -> None:
        """What does not end within the timeout of `close` is let go: scheduled again, no crash counted."""
        self.meet()
        session.fire("block")
        stage.blocked.acquire(timeout=PATIENCE)
        triggers.close(0.01)
        instance = SessionAssertions(session).assert_instance_scheduled("t_block#0")
        if instance.crashes:
            pytest.fail("a stop was counted as a crash")
        stage.gate.set()

    def test_a_forked_process_has_a_runner(self, triggers: Triggers, session: TriggerManager) -> None:
        """After a fork the child runs what it fires, and the parent goes on."""
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
        return triggers.join(PATIENCE) and session.storage["t_count#1"].status is Status.FINISHED


def _in_child(work: Any) -> int:
    """Do something in a forked process; returns its exit code: 0 where the work returned something true."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # forking with threads is what is tested
        pid = os.fork()
    if pid == 0:
        code = 2
        try:
            code = 0 if work() else 1
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
