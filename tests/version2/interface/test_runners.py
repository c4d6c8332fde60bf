"""Which runner runs a task, and what it makes of the task's options, as version 2 documents it."""

from __future__ import annotations

import logging
import secrets
from datetime import timedelta

import pytest

from triggers import FinalizingTriggerManager, TriggerManager, Triggers
from triggers.exceptions import InvalidOptionError, PluginError
from triggers.runners.inline import InlineRunner
from triggers.runners.threads import ThreadsRunner
from triggers.storages.memory import MemoryStorage
from triggers.task import TriggerTask, task
from triggers.testing import TriggersHarness, play

RULE = {"after": ["go"], "run": "triggers.testing.PassThrough"}

OPTIONS = {
    "queue": "imports",
    "rate_limit": "10/s",
    "time_limit": 60,
    "soft_time_limit": timedelta(seconds=30),
    "priority": 3,
    "ignore_result": False,
}


@pytest.fixture
def app():
    """A Celery application with a broker in this process."""
    from celery import Celery

    prefix = secrets.token_hex(4)
    app = Celery(set_as_current=False, broker="memory://", backend="cache+memory://")
    app.conf.update(task_default_queue=prefix, broker_transport_options={"polling_interval": 0})
    return app


@pytest.fixture
def import_subject(tasks):
    """A task with options of Celery's on its class."""
    body = {
        **OPTIONS,
        "name": "app.Import",
        "registry": tasks,
        "max_retries": 5,
        "_run": lambda self, context: None,
    }
    return type("ImportSubject", (TriggerTask,), body)


# -- options of Celery's ---------------------------------------------------------------------------------


def test_options_on_the_class_reach_celery(app, tasks, import_subject):
    """Durations in seconds; what the class leaves out stays as it is safe."""
    from triggers.runners.celery import CeleryRunner  # noqa: PLC0415 - as above

    triggers = Triggers("memory://", runner=CeleryRunner(app), registry=tasks)
    app.finalize()
    made = app.tasks["app.Import"]
    assert {name: getattr(made, name) for name in OPTIONS} == {**OPTIONS, "soft_time_limit": 30}
    assert (made.acks_late, made.track_started) == (False, False)
    triggers.close(0)


def test_options_of_a_function_reach_celery(app, tasks):
    """`@task(queue=…)` is the same as an attribute; an option that is bound wins."""
    from triggers.runners.celery import CeleryRunner  # noqa: PLC0415 - as above

    runner = CeleryRunner(app).bind("app.Score", priority=7)
    triggers = Triggers("memory://", runner=runner, registry=tasks)
    task(name="app.Score", registry=tasks, queue="scores", priority=1)(lambda context: None)
    app.finalize()
    assert (app.tasks["app.Score"].queue, app.tasks["app.Score"].priority) == ("scores", 7)
    triggers.close(0)


def test_messages_go_to_the_queue_of_the_class(app, tasks, import_subject):
    """With its priority and its time limits."""
    from triggers.runners.celery import CeleryRunner  # noqa: PLC0415 - as above

    import_subject.queue = f"imports-{app.conf.task_default_queue}"
    runner = CeleryRunner(app)
    triggers = Triggers("memory://", runner=runner, registry=tasks)
    session = triggers.session("s")
    session.update_configuration({"t": {**RULE, "run": "app.Import"}})
    session.fire("go")
    assert runner._hints.flush(60)
    with app.connection_for_read() as connection:
        message = connection.SimpleQueue(import_subject.queue).get_nowait()
        message.ack()
    assert (message.headers["task"], message.payload[0]) == ("app.Import", ["s", "t#0"])
    assert (message.properties["priority"], message.headers["timelimit"]) == (3, [60, 30])
    triggers.close(0)


def test_another_runner_says_once_what_it_does_not_use(tasks, import_subject, caplog):
    """One WARNING for each task, however often it runs, and none for a task without such options."""
    with Triggers("memory://", runner="inline", registry=tasks) as triggers:
        session = triggers.session("s")
        session.update_configuration(
            {"t": {"andEvery": "go", "run": "app.Import"}, "u": {**RULE, "after": ["go"]}}
        )
        with caplog.at_level(logging.WARNING, "triggers"):
            for _ in range(3):
                session.fire("go")
    (said,) = caplog.messages
    assert said == (
        "the runner inline does not use these options of the task 'app.Import': "
        "queue, priority, rate_limit, time_limit, soft_time_limit, ignore_result"
    )


# -- names of runners ------------------------------------------------------------------------------------


@pytest.mark.parametrize("runner", ["threads", "threading", "inline"])
def test_threading_is_an_alias_of_threads(tasks, runner):
    """In `using` and as the default; both names lead to the same pool."""
    with Triggers("memory://", runner=runner, registry=tasks) as triggers:
        session = triggers.session("s")
        session.update_configuration(
            {"t_new": {**RULE, "using": "threads"}, "t_old": {**RULE, "using": "threading"}}
        )
        session.fire("go")
        assert triggers.join(60)
        assert {instance.status for instance in session.storage} == {"finished"}
        pools = [each for each in triggers._dispatcher.runners if isinstance(each, ThreadsRunner)]
        assert len(pools) == 1


def test_a_runner_of_the_application_wins_over_an_alias(tasks):
    """An application may call its own runner `threading`."""
    own = Noting()
    with Triggers("memory://", runner="inline", runners={"threading": own}, registry=tasks) as triggers:
        session = triggers.session("s")
        session.update_configuration({"t": {**RULE, "using": "threading"}})
        session.fire("go")
        assert own.ran == ["t#0"]


class Noting(InlineRunner):
    """Notes what it runs."""

    def __init__(self):
        super().__init__()
        self.ran = []

    def submit(self, due):
        self.ran.append(f"{due.task}#{due.number}")
        super().submit(due)


class CustomTriggerManager(TriggerManager):
    name = "custom"
    default_task_runner_name = "custom_runner"


class Computed(TriggerManager):
    """A manager that computes the name, as version 2 also allows."""

    name = "computed"

    @property
    def default_task_runner_name(self):
        return "custom_runner" if self.uid == "s" else None


@pytest.mark.parametrize("manager", [CustomTriggerManager, Computed])
def test_a_manager_names_its_default_runner(url, tasks, manager):
    """It runs what has no `using`, cascades too; `using` wins."""
    custom, default = Noting(), Noting()
    runners = {"custom_runner": custom, "other": default}
    with Triggers(url, runner=default, runners=runners, manager=manager, registry=tasks) as triggers:
        session = triggers.session("s")
        cascade = {**RULE, "after": ["t_plain"]}
        session.update_configuration(
            {"t_plain": RULE, "t_cascade": cascade, "t_using": {**RULE, "using": "other"}}
        )
        session.fire("go")
    assert (sorted(custom.ran), default.ran) == (["t_cascade#0", "t_plain#0"], ["t_using#0"])


def test_the_sweep_asks_the_manager_of_the_session(tasks):
    """What a process without runner has released goes to the runner that the session's manager names."""
    storage = MemoryStorage()
    for manager in (CustomTriggerManager, TriggerManager):
        app = Triggers(storage, runner=None, runners={"other": Noting()}, registry=tasks, manager=manager)
        session = app.session(manager.name)
        session.update_configuration({"t": RULE, "u": {**RULE, "using": "other"}})
        session.fire("go")
    custom, default, other = Noting(), Noting(), Noting()
    runners = {"custom_runner": custom, "other": other}
    with Triggers(
        storage, runner=default, runners=runners, managers=[CustomTriggerManager], registry=tasks
    ) as triggers:
        assert triggers.join(60)
    assert (custom.ran, default.ran, other.ran) == (["t#0"], ["t#0"], ["u#0"] * 2)


def test_a_default_runner_that_does_not_exist_is_refused(tasks):
    """Where the application is made, with the runners that there are; a process without runner needs none."""
    with pytest.raises(PluginError, match=r"manager 'custom': there is no runner 'custom_runner' .* threads"):
        Triggers("memory://", manager=CustomTriggerManager, registry=tasks)
    Triggers("memory://", manager=CustomTriggerManager, runner=None, registry=tasks)


# -- names of managers -----------------------------------------------------------------------------------


def test_a_manager_is_chosen_by_its_name(tasks):
    """Wherever a class is accepted: in an application, in a harness, and in `play`."""
    with Triggers("memory://", manager="finalizing", registry=tasks) as triggers:
        assert type(triggers.session("s")) is FinalizingTriggerManager
    with Triggers("memory://", managers=["finalizing"], registry=tasks) as triggers:
        assert type(triggers.session("s")) is TriggerManager
    with TriggersHarness(manager="finalizing", managers=["default"], registry=tasks) as harness:
        session = harness.session("s")
        session.update_configuration({"t": RULE})
        assert session.fire("go").finalized is False
        assert session.storage.finalized
    seen = play({"t": RULE}, ["go"], registry=tasks, manager="finalizing", snapshot=lambda m: m.name)
    assert seen.orders == 1


def test_an_unknown_manager_is_refused():
    """With the name that was probably meant, or what a manager is."""
    with pytest.raises(PluginError, match="there is no manager 'finalising'; did you mean 'finalizing'"):
        Triggers("memory://", manager="finalising")
    for wrong in (7, InlineRunner, None):
        with pytest.raises(
            InvalidOptionError, match="manager must be a subclass of TriggerManager or the name"
        ):
            Triggers("memory://", manager=wrong)
    with pytest.raises(InvalidOptionError, match="managers must be a sequence"):
        Triggers("memory://", managers="finalizing")
