"""Tasks that take their process with them, processes that stop or are stopped: who runs what again, and how often."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from tests.crash.healing import Ticking
from tests.crash.processes import KILLED, begin, end, in_child
from tests.crash.world import World, wait_for, wall_clock
from triggers.core.exchange import Changes, Decision, Need
from triggers.core.names import split_instance_name
from triggers.core.status import Status
from triggers.exceptions import StorageBusyError
from triggers.runners.threads import ThreadsRunner
from triggers.storages.sqlite.url import load_driver
from triggers.task import task
from triggers.testing.clock import VirtualClock
from triggers.worker import executor

LEASE = timedelta(seconds=60)


def configure(world: World, **runs: str) -> None:
    """A session in which each of these tasks is released by one firing."""
    app = world.app(None, clock=Ticking())
    manager = app.session("s-0")
    manager.update_configuration({task: {"after": ["go"], "run": run} for task, run in runs.items()})
    manager.fire("go", {"id": "go"}, key="go")
    app.close()


def instance(world: World, name: str):
    """The instance as it is stored."""
    return world.app(None).session("s-0").storage[name]


def stop(pid: int, world: World) -> None:
    """Stop a process at a moment at which it does not hold the file's lock."""
    storage = world.storage()

    def is_stopped() -> bool:
        os.kill(pid, signal.SIGSTOP)
        os.waitpid(pid, os.WUNTRACED)
        try:
            storage.commit("nobody", Decision("nothing", _nothing), timeout=0.05)
        except StorageBusyError:
            os.kill(pid, signal.SIGCONT)
            return False
        return True

    wait_for("a moment without a lock", is_stopped)
    storage.close()


def _nothing(session):
    yield Need()
    return Changes(session, writes_head=False)


def is_refused(world: World, name: str) -> bool:
    """Whether it is recorded that a late end was refused."""
    return any("refused a late end" in remark for _, _, remark in instance(world, name).history)


@pytest.mark.parametrize(
    ("options", "expected"),
    [({}, 2 + 3), ({"max_crashes": 1}, 2 + 1), ({"max_crashes": 5}, 2 + 5), ({"on_lost": "fail"}, 1)],
    ids=["the application's budget", "a budget of one", "a budget of five", "at once"],
)
def test_poison_runs_as_often_as_its_crash_budget_allows_and_then_is_failed(world, options, expected):
    """A task that kills its process is failed with WorkerLost after so many runs, and harms no other task.

    The first two deaths may be a neighbour's; what it does alone is charged.
    """

    @task(name="poison", registry=world.registry, **options)
    def poison(context):
        world.begin(context)
        os.kill(os.getpid(), signal.SIGKILL)

    in_child(lambda: configure(world, t_poison="poison", t_good="plain"))
    clock = Ticking()
    ends = []
    for _ in range(
        3 * expected + 3
    ):  # a life to run it, one to miss it, one to find it lost, and the same again
        clock.advance(120)
        ends.append(in_child(lambda: world.app("inline", clock=clock).sweep()))
    assert ends.count(KILLED) == expected
    assert len(world.starts("t_poison#0")) == expected
    assert len(world.starts("t_good#0")) == 1
    lost = instance(world, "t_poison#0")
    assert (lost.status, lost.crashes, lost.attempt) == ("failed", expected, expected)
    assert lost.error["type"] == "WorkerLost"
    assert instance(world, "t_good#0").status == "finished"


def test_poison_can_be_replayed_with_a_new_budget(world):
    """What was failed because of its crashes is a failed instance like any other: it can be replayed."""

    @task(name="poison", registry=world.registry, on_lost="fail")
    def poison(context):
        world.begin(context)
        if context.task_instance.depth == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    in_child(lambda: configure(world, t_poison="poison"))
    clock = Ticking()

    def live() -> None:
        app = world.app("inline", clock=clock)
        app.sweep()
        for failed in app.session("s-0").storage.find(statuses={Status.FAILED}):
            app.session("s-0").replay_failed_instance(failed)

    for expected in (KILLED, 0, 0):  # dead, on trial, failed and replayed
        clock.advance(120)
        assert in_child(live) == expected
    assert instance(world, "t_poison#0").status == "replayed"
    assert instance(world, "t_poison#1").status == "finished"
    assert instance(world, "t_poison#1").crashes == 0


@pytest.mark.parametrize("times", [5])
def test_a_process_that_is_told_to_stop_lets_its_work_go(world, times):
    """After SIGTERM and close, what ran there is due at once for others, and no crash is counted."""

    @task(name="long", registry=world.registry)
    def long(context):
        world.begin(context)
        if context.attempt <= times:
            threading.Event().wait()

    def work() -> None:
        told = threading.Event()
        signal.signal(signal.SIGTERM, lambda *_: told.set())
        app = world.app(ThreadsRunner(1))
        app.start()
        told.wait()
        app.close(timeout=0)

    in_child(lambda: configure(world, t_long="long"))
    for attempt in range(1, times + 1):
        worker = begin(work)
        wait_for(f"run {attempt}", lambda expected=attempt: len(world.starts("t_long#0")) == expected)
        os.kill(worker, signal.SIGTERM)
        assert end(worker) == 0
        let_go = instance(world, "t_long#0")
        assert (let_go.status, let_go.crashes) == ("scheduled", 0)
        assert let_go.is_claimable
    assert in_child(lambda: world.app("inline").sweep(include_recent=True)) == 0
    done = instance(world, "t_long#0")
    assert (done.status, done.crashes, done.attempt) == ("finished", 0, times + 1)
    assert len({run["key"] for run in world.starts("t_long#0")}) == 1


def test_the_end_of_work_that_was_let_go_is_refused(world):
    """A thread that outlives the close of its application cannot end what others run by then."""
    go_on = threading.Event()

    @task(name="long", registry=world.registry)
    def long(context):
        world.begin(context)
        if context.attempt == 1:
            go_on.wait()
        return {"by": context.attempt}

    def live() -> None:
        configure(world, t_long="long")
        app = world.app(ThreadsRunner(1))
        app.start()
        wait_for("the first run", lambda: world.starts("t_long#0"))
        app.close(timeout=0)
        world.app("inline").sweep(include_recent=True)
        go_on.set()
        wait_for("the refusal", lambda: is_refused(world, "t_long#0"))
        assert instance(world, "t_long#0").status == "finished"
        assert instance(world, "t_long#0").result == {"by": 2}

    assert in_child(live) == 0


def test_a_task_that_outlasts_its_lease_runs_once_while_its_heart_beats(world):
    """Heartbeats keep the claim of a task that runs for six leases; sweeps all the while find nothing lost."""
    clock, lease = VirtualClock(), timedelta(seconds=0.4)
    length = round(lease.total_seconds() * 1e6)

    @task(name="hang", registry=world.registry)
    def hang(context):
        world.begin(context)
        others = world.app(None, clock=clock)
        where = ("s-0", *split_instance_name(context.task_instance.name))
        for _ in range(12):
            clock.advance(lease / 2)  # by the storage's clock alone, so that a slow machine fails nothing
            wait_for(
                "a heartbeat", lambda: others.storage.reader.instance(*where).lease_until >= clock() + length
            )
            assert others.sweep().recovered == 0

    def live() -> None:
        configure(world, t_hang="hang")
        clock.advance(timedelta(hours=1))
        world.app("inline", clock=clock, lease=lease).sweep()

    assert in_child(live) == 0
    done = instance(world, "t_hang#0")
    assert (done.status, done.attempt, done.crashes) == ("finished", 1, 0), done.error
    assert len(world.starts("t_hang#0")) == 1


@pytest.mark.parametrize(("own", "recovered"), [(None, 1), (timedelta(hours=1), 0)], ids=["60 s", "an hour"])
def test_without_a_heartbeat_a_task_has_as_long_as_its_lease(world, own, recovered):
    """A task that blocks everything, its heartbeat too, is rescued after its lease, its own one if it has one."""
    clock = Ticking()

    @task(name="block", registry=world.registry, lease=own)
    def block(context):
        world.begin(context)
        if context.attempt == 1:
            clock.advance(61)
            assert world.app(None, clock=clock).sweep().recovered == recovered

    def live() -> None:
        configure(world, t_block="block")
        app = world.app("inline", clock=clock)
        clock.advance(60)
        app.sweep()
        clock.advance(60)
        app.sweep()

    assert in_child(live) == 0
    done = instance(world, "t_block#0")
    assert (done.status, done.attempt, done.crashes) == ("finished", 1 + recovered, recovered), done.error


def test_a_ghost_that_wakes_after_its_lease_is_refused_and_that_is_recorded(world):
    """A process is stopped, another one runs its work, it wakes: its end is refused, what it said is kept as late."""
    go_on = world.folder / "go on"

    @task(name="slow", registry=world.registry)
    def slow(context):
        world.begin(context)
        with context.get_logger_context({}, logger=logging.getLogger("tests.slow")) as logger:
            if context.attempt == 1:
                wait_for("the end of the pause", go_on.exists)
                logger.warning("awake again")
        return {"by": context.attempt}

    def work() -> None:
        logging.getLogger("tests.slow").addHandler(logging.NullHandler())
        app = world.app(ThreadsRunner(1), lease=LEASE)
        app.start()
        wait_for("the refusal", lambda: is_refused(world, "t_slow#0"))
        app.close()

    def take_over() -> None:
        clock = Ticking(wall_clock())
        app = world.app("inline", clock=clock)
        clock.advance(3600)
        assert app.sweep().recovered == 1
        clock.advance(2)
        assert app.sweep().dispatched == 1

    in_child(lambda: configure(world, t_slow="slow"))
    worker = begin(work)
    try:
        wait_for("the first run", lambda: world.starts("t_slow#0"))
        stop(worker, world)
        assert in_child(take_over) == 0
        assert instance(world, "t_slow#0").result == {"by": 2}
        go_on.touch()
        os.kill(worker, signal.SIGCONT)
    except BaseException:
        os.kill(worker, signal.SIGKILL)
        raise
    finally:
        code = end(worker)
    assert code == 0
    done = instance(world, "t_slow#0")
    assert (done.status, done.attempt, done.crashes, done.result) == ("finished", 2, 1, {"by": 2})
    assert [run["fence"] for run in world.starts("t_slow#0")] == [1, 3]
    late = world.app(None).session("s-0").storage.logs("t_slow#0", text="awake")
    assert [(record.fence, record.attempt, record.entry.late) for record in late] == [(1, 1, True)]


def test_what_a_task_has_logged_is_kept_though_its_process_is_killed(world):
    """A record below WARNING waits for a second at most while the task goes on, and then no kill can undo it."""

    @task(name="say", registry=world.registry)
    def say(context):
        with context.get_logger_context({"page": 3}, logger=logging.getLogger("tests.say")) as logger:
            logger.info("half done")
            threading.Event().wait(60)

    configure(world, t_say="say")
    worker = begin(lambda: world.app("inline", clock=wall_clock).sweep())
    try:
        wait_for("the record", lambda: instance(world, "t_say#0").current_log_level == logging.INFO)
    finally:
        os.kill(worker, signal.SIGKILL)
        assert end(worker) == KILLED
    assert instance(world, "t_say#0").status == "running"
    (record,) = world.app(None).session("s-0").storage.logs("t_say#0")
    assert (record.entry.message, record.entry.context["page"]) == ("half done", 3)


def test_a_warning_is_kept_though_the_process_dies_right_after_it(world):
    """What asks for attention is written through: it is there, with its level, when the task takes its process down."""

    @task(name="warn", registry=world.registry)
    def warn(context):
        with context.get_logger_context({"page": 3}, logger=logging.getLogger("tests.warn")) as logger:
            logger.info("before")
            logger.warning("something is wrong")
            os.kill(os.getpid(), signal.SIGKILL)

    clock = Ticking()
    in_child(lambda: configure(world, t_warn="warn"))
    clock.advance(60)
    assert in_child(lambda: world.app("inline", clock=clock).sweep()) == KILLED
    died = instance(world, "t_warn#0")
    assert (died.status, died.current_log_level) == ("running", logging.WARNING)
    records = world.app(None).session("s-0").storage.logs("t_warn#0", min_level=logging.WARNING)
    assert [(record.entry.message, record.entry.context["page"]) for record in records] == [
        ("something is wrong", 3)
    ]


class _Bound:
    """A SQLite module whose connections may be used only in the process that opened them, not even to be closed."""

    def __init__(self, module):
        self._module = module

    def __getattr__(self, name):
        return getattr(self._module, name)

    def connect(self, *args, **kwargs):
        return _BoundConnection(self._module.connect(*args, **kwargs))


class _BoundConnection:
    def __init__(self, connection):
        self._connection = connection
        self._pid = os.getpid()

    def __getattr__(self, name):
        if self._pid != os.getpid():
            os.abort()
        return getattr(self._connection, name)


@pytest.mark.parametrize("act", ["close", "schedule_sweep", "run"])
def test_a_fork_in_the_middle_of_anything_leaves_no_lock_behind(world, act):
    """Whatever lock a thread of the parent holds at the moment of a fork, the child does not wait for it."""

    def parent() -> None:
        app = world.app(ThreadsRunner(1))
        app.start()
        manager = app.session("s-0")
        manager.update_configuration({"t_each": {"after": ["go"], "andEvery": "go", "run": "flaky"}})
        manager.fire("go", {"id": "1"})
        assert app.join(60)
        acts = {
            "close": lambda: app.close(timeout=5),
            "schedule_sweep": app._schedule_sweep,
            "run": lambda: (manager.fire("go", {"id": "2"}), app.start(), app.join(60), app.close()),
        }
        pool = app._dispatcher.runners[0]
        locks = (
            app._executor.heartbeat._wake,
            app._executor.log_writer._wake,
            app._sweeper._look._cond,
            pool._changed,
        )
        held, forked = threading.Event(), threading.Event()

        def hold() -> None:
            with contextlib.ExitStack() as stack:
                for lock in locks:
                    stack.enter_context(lock)
                held.set()
                forked.wait()

        threading.Thread(target=hold).start()
        held.wait()
        child = begin(acts[act])
        forked.set()
        ended: list[tuple[int, int]] = []
        try:
            wait_for(
                "the end of the child",
                lambda: ended.append(os.waitpid(child, os.WNOHANG)) or ended[-1][0],
                20,
            )
        except AssertionError:
            os.kill(child, signal.SIGKILL)
            raise
        assert ended[-1][1] == 0
        app.close()

    assert in_child(parent) == 0


def test_a_claim_of_a_forked_child_never_has_its_parents_name():
    """Not in any of its threads, from the first claim on, and no two of them have the same name."""
    owner = executor.ClaimIds()
    parents = owner.next().rpartition(":")[0]

    def child() -> None:
        with ThreadPoolExecutor(8) as pool:
            names = list(pool.map(lambda _: owner.next(), range(200)))
        assert len(set(names)) == len(names)
        assert parents not in {name.rpartition(":")[0] for name in names}

    for _ in range(5):
        assert in_child(child) == 0


def test_a_forked_child_is_somebody_else(world):
    """A child of a process with live threads and connections has its own claims, connections and threads."""
    storage_driver = _Bound(load_driver("auto"))

    def claimants() -> set[str]:
        view = world.app(None).session("s-0").storage
        remarks = [remark for each in view for _, _, remark in each.history]
        return {remark.split()[-1].rpartition(":")[0] for remark in remarks if remark.startswith("claimed")}

    def parent() -> None:
        app = world.app(ThreadsRunner(2), storage=world.storage(driver=storage_driver))
        app.start()
        manager = app.session("s-0")
        manager.update_configuration({"t_each": {"after": ["go"], "andEvery": "go", "run": "plain"}})
        manager.fire("go", {"id": "1"})
        assert app.join(60)
        assert (
            in_child(lambda: (manager.fire("go", {"id": "2"}), app.start(), app.join(60), app.close())) == 0
        )
        manager.fire("go", {"id": "3"})
        assert app.join(60)
        app.close()

    assert in_child(parent) == 0
    starts = [run for run in world.runs.read() if run["what"] == "start"]
    assert len(starts) == 3
    assert len({(run["instance"], run["fence"]) for run in starts}) == 3
    assert len(claimants()) == len({run["pid"] for run in starts})
