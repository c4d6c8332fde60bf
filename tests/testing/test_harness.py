"""The harness: a whole application in one thread, on a virtual clock."""

from __future__ import annotations

import logging
import threading
from datetime import timedelta

import pytest

from triggers import FinalizingTriggerManager, LogSettings, Registry, TriggerManager
from triggers.exceptions import ConfigurationError
from triggers.storages.sqlite import SqliteStorage
from triggers.task import task
from triggers.testing import Faults, InjectedCrash, TriggersHarness, VirtualClock, ready_made
from triggers.testing.clock import START

PASSING = "triggers.testing.PassThrough"
MINUTE = timedelta(minutes=1)


@pytest.fixture
def tasks():
    return Registry()


def run(name, after="begun", **more):
    return {f"t_{name}": {"after": [after], "run": name, **more}}


def test_everything_has_run_when_fire_returns():
    """Cascades run in the thread of the call that fires, before it returns."""
    with TriggersHarness() as harness:
        session = harness.session("s")
        session.update_configuration(
            {"t_one": {"after": ["begun"], "run": PASSING}, "t_two": {"after": ["t_one"], "run": PASSING}}
        )
        session.fire("begun", {"n": 1})
        check = harness.check(session)
        check.assert_instance_finished("t_one#0", {"begun": {"n": 1}})
        check.assert_instance_finished("t_two#0", {"t_one": {"begun": {"n": 1}}})


def test_using_makes_no_difference(tasks):
    """A task that wants another runner, one that is not installed, too, runs inline all the same."""
    threads = []
    task(name="where", registry=tasks)(lambda context: threads.append(threading.current_thread()))
    with TriggersHarness(registry=tasks, runners=["celery"]) as harness:
        session = harness.session("s")
        session.update_configuration(
            {
                "t_a": {"after": ["begun"], "run": "where", "using": "threads"},
                "t_b": {"after": ["begun"], "run": "where", "using": "celery"},
            }
        )
        session.fire("begun")
    assert threads == [threading.current_thread()] * 2


def test_an_unknown_task_is_refused_at_once(tasks):
    """A `run` that nobody registered is an error when it is configured, unless it was asked for."""
    with TriggersHarness(registry=tasks) as harness, pytest.raises(ConfigurationError):
        harness.session("s").update_configuration(run("nobody"))
    with TriggersHarness(registry=tasks, complete_registry=False) as harness:
        harness.session("s").update_configuration(run("nobody"))


def test_time_stands_still():
    """The clock shows what it showed until it is moved, and then exactly so much more."""
    with TriggersHarness() as harness:
        harness.session("s").fire("begun")
        assert harness.clock.time == START
        harness.advance(timedelta(hours=5, microseconds=1))
        assert harness.clock.time == START + timedelta(hours=5, microseconds=1)
        harness.advance(timedelta())
        with pytest.raises(ValueError, match="must not be negative"):
            harness.advance(-MINUTE)


def test_retries_run_each_at_its_own_time(tasks):
    """One step over several cooldowns runs each retry at the moment at which it is due."""
    times = []

    @task(name="retry", registry=tasks)
    def retry(context):
        times.append(harness.clock.time - START)
        raise context.retry(cooldown=MINUTE)

    with TriggersHarness(registry=tasks) as harness:
        session = harness.session("s")
        session.update_configuration(run("retry"))
        session.fire("begun")
        harness.advance(timedelta(seconds=59))
        assert times == [timedelta()]
        harness.advance(timedelta(minutes=10))
        assert times == [timedelta(), MINUTE, 2 * MINUTE, 3 * MINUTE]
        assert harness.clock.time == START + timedelta(minutes=10, seconds=59)
        harness.check("s").assert_instance_failed("t_retry#3", "MaxRetriesExceeded")


def test_running_until_idle_takes_as_long_as_it_must():
    """It returns how much time has passed, and nothing is left to be done."""
    with TriggersHarness() as harness:
        session = harness.session("s")
        retrying = {"withParams": {"retrying": {"times": 3, "cooldown": 60}}}
        session.update_configuration(run("triggers.testing.SelfRetrying", **retrying))
        session.fire("begun")
        assert harness.run_until_idle() == 3 * MINUTE
        harness.check("s").assert_instance_finished("t_triggers.testing.SelfRetrying#3")
        assert harness.run_until_idle() == timedelta()


def test_running_until_idle_says_what_is_left():
    """What is to be done beyond the horizon is an error that names it."""
    with TriggersHarness() as harness:
        session = harness.session("s")
        retrying = {"withParams": {"retrying": {"cooldown": 7200}}}
        session.update_configuration(run("triggers.testing.SelfRetrying", **retrying))
        session.fire("begun")
        with pytest.raises(
            AssertionError, match=r"session 's': .*#1.* is scheduled to run at 2026-01-01T02:00:00"
        ):
            harness.run_until_idle(timedelta(hours=1))


def test_timers_elapse_each_at_its_own_time(tasks):
    """The tasks that they start run then, not at the end of the time that passes."""
    ran = []
    task(name="look", registry=tasks)(lambda context: ran.append(harness.clock.time - START))
    with TriggersHarness(registry=tasks) as harness:
        session = harness.session("s")
        session.update_configuration({"t_slow": {"after": ["begun"], "delay": "PT5M", "run": "look"}})
        session.update_configuration(run("look", after="due"))
        session.fire("begun")
        session.fire_later("due", after=2 * MINUTE)
        harness.advance(10 * MINUTE)
        assert ran == [2 * MINUTE, 5 * MINUTE]
        assert harness.clock.time == START + 10 * MINUTE


def test_running_until_idle_waits_for_timers_on_request():
    """Otherwise, only those elapse that are due before the last instance has ended."""
    with TriggersHarness() as harness:
        session = harness.session("s")
        retrying = {"retrying": {"times": 1, "cooldown": 60}}
        session.update_configuration(
            run("a", run="triggers.testing.SelfRetrying", withParams=retrying) | run("b", "due", run=PASSING)
        )
        session.fire("begun")
        session.fire_later("due", after=MINUTE / 2)
        session.fire_later("later", after=3 * MINUTE)
        assert harness.run_until_idle() == MINUTE
        assert session.storage["t_b#0"].timestamps["finished"] == START + MINUTE / 2
        assert [timer.trigger for timer in session.timers()] == ["later"]
        assert harness.run_until_idle() == timedelta()
        assert harness.run_until_idle(timers=True) == 2 * MINUTE
        assert list(session.timers()) == []


def test_a_lost_worker_is_noticed_when_its_lease_is_over(tasks):
    """A claim whose process died is taken away the moment after its lease has run out, not before."""
    runs = []
    task(name="work", registry=tasks)(lambda context: runs.append(context.attempt))
    faults = Faults()
    with TriggersHarness(registry=tasks, faults=faults, lease=timedelta(seconds=30)) as harness:
        session = harness.session("s")
        session.update_configuration(run("work"))
        faults.die_at("after commit of claim")
        with pytest.raises(InjectedCrash):
            session.fire("begun")
        harness.restart()
        harness.advance(timedelta(seconds=30))
        harness.check("s").assert_instance_running("t_work#0")
        harness.advance(timedelta(microseconds=1))
        harness.check("s").assert_instance_scheduled("t_work#0")
        harness.advance(timedelta(seconds=1))
        instance = harness.check("s").assert_instance_finished("t_work#0")
    assert (runs, instance.crashes) == ([2], 1)


def test_a_paused_process_loses_its_claims(tasks):
    """A task in which more time passes than its lease learns that it lost it, and its result is refused."""
    lost = []

    @task(name="pause", registry=tasks)
    def pause(context):
        if context.attempt == 1:
            harness.advance(timedelta(minutes=5))
        lost.append(context.lease_lost)
        return {"attempt": context.attempt}

    with TriggersHarness(registry=tasks) as harness:
        session = harness.session("s")
        session.update_configuration(run("pause"))
        session.fire("begun")
        harness.run_until_idle()
        check = harness.check("s")
        check.assert_instance_finished("t_pause#0", {"attempt": 2})
        assert lost == [True, False]
        refused = [remark for _, _, remark in session.storage["t_pause#0"].history if "refused" in remark]
        assert len(refused) == 1


def test_a_slow_task_keeps_its_claim(tasks):
    """A task that moves the clock by itself just takes that long."""

    @task(name="slow", registry=tasks)
    def slow(context):
        harness.clock.advance(timedelta(hours=1))

    with TriggersHarness(registry=tasks) as harness:
        session = harness.session("s")
        session.update_configuration(run("slow"))
        session.fire("begun")
        instance = harness.check("s").assert_instance_finished("t_slow#0")
        assert instance.timestamps["finished"] - instance.timestamps["running"] == timedelta(hours=1)
        assert instance.attempt == 1


def test_a_stand_in_takes_the_place_of_a_task(tasks):
    """It returns or raises what it was told, and the registry that was given stays as it is."""
    real = task(name="work", registry=tasks)(lambda context: {"real": True})
    with TriggersHarness(registry=tasks) as harness:
        session = harness.session("s")
        harness.stand_in("work", result={"real": False})
        harness.stand_in("other", error=LookupError("no such thing"))
        session.update_configuration({**run("work"), **run("other")})
        session.fire("begun")
        check = harness.check("s")
        check.assert_instance_finished("t_work#0", {"real": False})
        check.assert_instance_failed("t_other#0", LookupError, match="no such")
    assert tasks.get("work")._run(None) == real(None) == {"real": True}
    assert "other" not in tasks


def test_ready_made_tasks_do_what_they_say():
    """Passing through, failing, retrying and skipping tasks are known to every harness."""
    with TriggersHarness() as harness:
        session = harness.session("s")
        names = ("PassThrough", "Failing", "SelfRetrying", "SelfSkipping")
        session.update_configuration(
            {f"t_{name}": {"after": ["begun"], "run": f"triggers.testing.{name}"} for name in names}
        )
        session.fire("begun", {"n": 1})
        check = harness.check("s")
        check.assert_instance_finished("t_PassThrough#0", {"begun": {"n": 1}})
        check.assert_instance_failed("t_Failing#0", "FailingError", match="always fails")
        check.assert_instance_failed("t_SelfRetrying#3", "MaxRetriesExceeded")
        check.assert_instance_skipped("t_SelfSkipping#0")


def test_ready_made_tasks_take_parameters():
    """`withParams` changes the message, the number of retries, and the reason for a skip."""
    with TriggersHarness() as harness:
        session = harness.session("s")
        session.update_configuration(
            {
                **run("triggers.testing.Failing", withParams={"failing": {"message": "Not today."}}),
                **run("triggers.testing.SelfRetrying", withParams={"retrying": {"times": 1}}),
                **run("triggers.testing.SelfSkipping", withParams={"skipping": {"reason": "no need"}}),
            }
        )
        session.fire("begun")
        check = harness.check("s")
        check.assert_instance_failed("t_triggers.testing.Failing#0", match="^Not today.$")
        check.assert_instance_replayed("t_triggers.testing.SelfRetrying#0")
        check.assert_instance_finished("t_triggers.testing.SelfRetrying#1")
        assert (
            check.assert_instance_skipped("t_triggers.testing.SelfSkipping#0").metadata["reason"] == "no need"
        )


def test_ready_made_tasks_are_in_no_application(tasks):
    """They are in a registry of their own; one made from both sees what either learns later."""
    both = ready_made(tasks)
    task(name="later", registry=tasks)(lambda context: None)
    assert {"later", PASSING} <= set(both.names)
    assert set(tasks) == {"later"}


class Logging(TriggerManager):
    name = "a.manager"
    log_settings = LogSettings(max_depth=3)


class BrokenHandler(logging.Handler):
    def emit(self, record):
        raise RuntimeError("no disk")


@pytest.mark.parametrize("strict", [True, False])
def test_logs_are_strict_unless_told_otherwise(tasks, strict, capsys):
    """A handler that raises fails the task, or is reported and passed over; the manager's own settings are kept."""

    @task(name="says", registry=tasks)
    def says(context):
        assert context.manager.log_settings.max_depth == 3
        with context.get_logger_context(name="tests.broken") as logger:
            logger.warning("A word.")

    application = logging.getLogger("tests.broken")
    application.addHandler(handler := BrokenHandler())
    try:
        with TriggersHarness(registry=tasks, manager=Logging, strict_logs=strict) as harness:
            session = harness.session("s")
            assert isinstance(session, Logging)
            session.update_configuration(run("says"))
            session.fire("begun")
            check = harness.check(session)
            ended = check.assert_instance_failed if strict else check.assert_instance_finished
            ended("t_says#0")
            assert session.storage.head.manager == "a.manager"
    finally:
        application.removeHandler(handler)


def test_the_manager_is_chosen():
    """A finalising manager finalises."""
    with TriggersHarness(manager=FinalizingTriggerManager) as harness:
        session = harness.session("s")
        session.update_configuration(run(PASSING))
        harness.check("s").assert_not_finalized()
        session.fire("begun")
        harness.check("s").assert_finalized()


def test_the_storage_is_chosen(tmp_path):
    """Any storage that takes a clock goes by the harness's."""
    clock = VirtualClock()
    with TriggersHarness(
        clock=clock, storage=lambda clock: SqliteStorage(f"sqlite:///{tmp_path}/s.db", clock=clock)
    ) as harness:
        assert harness.clock is clock
        session = harness.session("s")
        session.update_configuration(
            run("triggers.testing.SelfRetrying", withParams={"retrying": {"times": 1, "cooldown": 3600}})
        )
        session.fire("begun")
        harness.advance(timedelta(hours=1))
        harness.check("s").assert_instance_finished("t_triggers.testing.SelfRetrying#1")


def test_a_restart_finds_what_was_stored():
    """After a restart sessions are as they were, and a lost hint is found by the sweep."""
    faults = Faults()
    with TriggersHarness(faults=faults) as harness:
        session = harness.session("s")
        session.update_configuration(run(PASSING))
        faults.die_at("after commit of fire")
        with pytest.raises(InjectedCrash):
            session.fire("begun")
        with pytest.raises(InjectedCrash, match="the process died at 'after commit of fire'"):
            session.fire("begun")
        harness.restart()
        harness.check("s").assert_instance_scheduled(f"t_{PASSING}#0")
        harness.run_until_idle()
        harness.check("s").assert_instance_finished(f"t_{PASSING}#0")


def test_timers_elapse_on_the_way():
    """Each at its own time, and what they schedule runs. Idle does not wait for them unless it is asked to."""
    with TriggersHarness() as harness:
        session = harness.session("s")
        session.update_configuration(
            {
                "t_x": {"after": ["begun"], "delay": "PT10M", "run": PASSING},
                "t_y": {"after": ["t_x", "never"], "deadline": "PT5M", "run": PASSING},
                "t_z": {"after": ["t_y:missed"], "run": PASSING},
            }
        )
        session.fire("begun")
        session.fire_later("end", after=timedelta(hours=2))
        assert harness.run_until_idle() == timedelta()
        harness.advance(MINUTE * 60)
        started = [
            at
            for name in ("t_x#0", "t_z#0")
            for at, status, _ in session.storage[name].history
            if status == "running"
        ]
        assert [at - START for at in started] == [MINUTE * 10, MINUTE * 15]
        assert harness.run_until_idle(timers=True) == MINUTE * 60
        harness.check(session).assert_no_timers()
