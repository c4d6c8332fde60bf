"""The Celery runner in one process: what it registers, what it sends, and what it does where Celery is eager."""

from __future__ import annotations

import itertools
import logging
import secrets
import signal
import threading
from datetime import timedelta
from types import SimpleNamespace

import pytest
from billiard import common as billiard_common
from billiard import pool as billiard_pool
from celery.exceptions import SoftTimeLimitExceeded, WorkerLostError, WorkerShutdown

from tests.runners.celery_app import make_app, queues
from tests.runners.conftest import PATIENCE
from triggers import Limits, Registry, Triggers, TriggerTask, task
from triggers.core import decisions
from triggers.core.values import decode
from triggers.exceptions import DuplicateTaskError, PluginError, StorageBusyError
from triggers.runners.base import Delivery
from triggers.runners.celery import CeleryRunner
from triggers.runners.celery import worker as celery_worker
from triggers.runners.celery.runner import RUN, SWEEP
from triggers.storages.base import ReadyInstance
from triggers.storages.memory import MemoryStorage
from triggers.testing.conformance.steps import Steps
from triggers.testing.servers import RedisServer

EVERY = {"t": {"andEvery": "a", "run": "survey.Import"}}


@pytest.fixture
def registry():
    registry = Registry()

    @task(name="survey.Import", registry=registry)
    def import_(context):
        return {"attempt": context.attempt}

    return registry


@pytest.fixture
def app():
    app = make_app("memory://", f"t{secrets.token_hex(4)}")
    app.conf.task_routes = {"survey.*": {"queue": queues(app.conf.task_default_queue.partition(".")[0])[1]}}
    return app


@pytest.fixture
def make(app, registry):
    """Makes applications with a runner; all are closed in the end."""
    made = []

    def make(runner=None, storage=None, **settings):
        given = {"registry": registry, **settings}
        triggers = Triggers(storage or MemoryStorage(), runner=runner or CeleryRunner(app), **given)
        made.append(triggers)
        return triggers

    yield make
    for triggers in made:
        triggers.close(0)


@pytest.fixture
def sent(app):
    """What is in the queues: (queue, task, arguments, headers, properties) of each message."""

    def sent():
        found = []
        with app.connection_for_read() as connection:
            for queue in queues(app.conf.task_default_queue.partition(".")[0]):
                simple = connection.SimpleQueue(queue)
                while simple.qsize():
                    message = simple.get_nowait()
                    message.ack()
                    found.append(
                        (
                            queue.partition(".")[2],
                            message.headers["task"],
                            message.payload[0],
                            message.headers,
                            message.properties,
                        )
                    )
        return found

    return sent


def flushed(triggers):
    """The runner, once it has sent everything."""
    runner = triggers._dispatcher._default
    assert runner._hints.flush(PATIENCE)
    return runner


# -- tasks ------------------------------------------------------------------------------------------------


def test_each_task_is_a_celery_task_under_its_own_name(app, make, registry):
    """Also those that are registered later; two more run what has no task here, and sweep."""
    make()
    assert {"survey.Import", RUN, SWEEP} <= set(app.tasks)

    @task(name="survey.Export", registry=registry)
    def export(context): ...

    assert app.tasks["survey.Export"].name == "survey.Export"


def test_a_task_is_safe_by_default(app, make):
    """What the storage does is not asked of the broker, whatever the application's own settings are."""
    app.conf.update(
        task_acks_late=True, task_ignore_result=False, task_track_started=True, task_serializer="yaml"
    )
    make()
    celery_task = app.tasks["survey.Import"]
    found = {name: getattr(celery_task, name) for name in celery_worker.SAFE}
    assert found == celery_worker.SAFE
    assert not celery_task.acks_late


def test_options_are_bound_over_the_safe_ones(app, make, registry):
    """By class or by name, before and after the task is there; several calls add up."""
    known = registry

    class Upload(TriggerTask):
        name = "survey.Upload"
        registry = known

        def _run(self, context): ...

    runner = (
        CeleryRunner(app).bind(Upload, rate_limit="5/s", time_limit=30).bind("survey.Import", acks_late=True)
    )
    make(runner)
    app.finalize()
    assert (app.tasks["survey.Upload"].rate_limit, app.tasks["survey.Upload"].time_limit) == ("5/s", 30)
    assert app.tasks["survey.Import"].acks_late
    runner.bind(Upload, soft_time_limit=20)
    late = app.tasks["survey.Upload"]
    assert (late.rate_limit, late.time_limit, late.soft_time_limit) == ("5/s", 30, 20)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("ratelimit", "no option 'ratelimit'; did you mean 'rate_limit'"),
        ("zzzzz", "no option 'zzzzz'$"),
        ("run", "'run' cannot be set"),
        ("name", "'name' cannot be set"),
    ],
)
def test_an_option_that_is_none_is_refused(app, option, message):
    """A slip would be ignored by Celery."""
    with pytest.raises(TypeError, match=message):
        CeleryRunner(app).bind("survey.Import", **{option: 1})


def test_only_tasks_can_be_bound(app):
    """A function has no name of its own: say the one under which it is registered."""
    with pytest.raises(TypeError, match="a task class or the name of a task"):
        CeleryRunner(app).bind(lambda context: None, queue="x")


def test_annotations_apply_by_name(app, make):
    """Celery's own way to set attributes of tasks."""
    app.conf.task_annotations = {"survey.Import": {"rate_limit": "7/m"}}
    make()
    assert app.tasks["survey.Import"].rate_limit == "7/m"


def test_the_applications_own_kind_of_task_is_kept(app, make):
    """What it does around each task is done around these, too."""
    around = []

    class Wrapped(app.Task):
        abstract = True

        def __call__(self, *args, **kwargs):
            around.append(self.name)
            return super().__call__(*args, **kwargs)

    app.Task = Wrapped
    app.conf.task_always_eager = True
    session = make().session("s")
    session.update_configuration(EVERY)
    session.fire("a")
    assert around == ["survey.Import"]
    assert session.storage["t#0"].status == "finished"


def own():
    """A task of the application's own."""
    return "own"


# -- names --------------------------------------------------------------------------------------------------


def test_a_name_that_the_application_has_is_refused(app, make):
    """At once where its tasks are known."""
    app.task(name="survey.Import", shared=False)(own)
    app.finalize()
    with pytest.raises(DuplicateTaskError, match=r"another task named 'survey\.Import': rename"):
        make()


def test_a_name_that_the_application_turns_out_to_have_stops_its_workers(app, make, caplog):
    """Celery evaluates tasks late; nothing of either is overwritten, and no worker starts."""
    mine = app.task(name="survey.Import", shared=False)(own)
    runner = make()._dispatcher._default
    app.finalize()
    assert "another task named 'survey.Import'" in caplog.text
    assert mine.run() == "own"
    with pytest.raises(DuplicateTaskError, match=r"another task named 'survey\.Import'"):
        runner.work_begins()


def test_a_hint_is_never_given_to_a_task_of_the_applications_own(app, make, sent):
    """Where names clash, what is released goes to the task for everything."""
    app.task(name="survey.Import", shared=False)(own)
    triggers = make()
    app.finalize()
    triggers.session("s").update_configuration(EVERY)
    triggers.session("s").fire("a")
    flushed(triggers)
    assert [name for _, name, *_ in sent()] == [RUN]


def test_one_application_has_one_runner(app, make):
    """A message does not say which storage it is about. Once a runner is closed there may be another one."""
    app.finalize()
    first = make()
    with pytest.raises(DuplicateTaskError, match="use one for each"):
        make()
    with pytest.raises(ValueError, match="belongs to one Triggers object"):
        make(first._dispatcher._default)
    first.close()
    make()


def test_the_name_alone_is_not_enough():
    """The error says what to write; it comes when the object is made."""
    with pytest.raises(PluginError, match=r"runner=CeleryRunner\(app\)"):
        Triggers("memory://", runner="celery")


# -- messages -----------------------------------------------------------------------------------------------


def test_a_message_carries_ids_only(make, sent):
    """UID and name of the instance, and the version of the form in a header, to the queue of the task's route."""
    triggers = make()
    session = triggers.session("respondent-17")
    session.update_configuration(EVERY)
    session.fire("a", {"secret": "not in here"})
    flushed(triggers)
    ((queue, name, args, headers, _),) = sent()
    assert (queue, name, args) == ("chain", "survey.Import", ["respondent-17", "t#0"])
    assert headers["triggers"] == 1
    assert "not in here" not in repr(headers)


def test_a_process_without_tasks_sends_by_name(app, make, sent):
    """Routes by name apply, and options bound by name as far as a message can have them."""
    runner = CeleryRunner(app).bind("survey.Import", priority=3, rate_limit="1/s", time_limit=9)
    triggers = make(runner, registry=Registry())
    session = triggers.session("s")
    session.update_configuration(EVERY)
    session.fire("a")
    flushed(triggers)
    ((queue, name, args, headers, properties),) = sent()
    assert (queue, name, args) == ("chain", "survey.Import", ["s", "t#0"])
    assert (properties["priority"], headers["timelimit"], headers["ignore_result"]) == (3, [9, None], True)


def test_bound_options_go_with_the_message(app, make, sent):
    """Queue and priority, for example."""
    triggers = make(CeleryRunner(app).bind("survey.Import", queue=app.conf.task_default_queue, priority=5))
    triggers._dispatcher._default.submit(ReadyInstance("s", "t", 0, None, "survey.Import"))
    flushed(triggers)
    ((queue, _, _, _, properties),) = sent()
    assert (queue, properties["priority"]) == ("default", 5)


def test_a_rule_that_is_gone_has_a_task_to_go_to(make, sent):
    """The claim then fails it by name; any worker can do that."""
    triggers = make()
    triggers._dispatcher._default.submit(ReadyInstance("s", "t", 0))
    flushed(triggers)
    assert [(queue, name, args) for queue, name, args, *_ in sent()] == [("default", RUN, ["s", "t#0"])]


def test_a_hint_that_cannot_be_sent_holds_nobody_up(app, make, sent, caplog):
    """It is dropped with a line in the log, and the next one is sent."""
    triggers = make(CeleryRunner(app).bind("bad", compression="nonsense"))
    triggers._dispatcher._default.submit(ReadyInstance("s", "t", 0, None, "bad"))
    triggers._dispatcher._default.submit(ReadyInstance("s", "t", 1, None, "survey.Import"))
    flushed(triggers)
    assert [args for _, _, args, *_ in sent()] == [["s", "t#1"]]
    assert "the message for t#0 of session 's' could not be created" in caplog.text


def test_using_celery_is_the_default_runner(make, sent):
    """The name that a rule gives, and no name, are the same runner; another name is another one."""
    triggers = make()
    session = triggers.session("s")
    session.update_configuration(
        {
            "t": {"andEvery": "a", "run": "survey.Import", "using": "celery"},
            "u": {"andEvery": "a", "run": "survey.Import"},
            "v": {"andEvery": "a", "run": "survey.Import", "using": "inline"},
        }
    )
    session.fire("a")
    flushed(triggers)
    assert sorted(args[1] for _, _, args, *_ in sent()) == ["t#0", "u#0"]
    assert session.storage["v#0"].status == "finished"


def test_it_can_be_one_of_several_runners(app, make, sent):
    """By the name that `runners` gives it; it is started when the application is made."""
    triggers = make("inline", runners={"queue": CeleryRunner(app)})
    app.finalize()
    assert "survey.Import" in app.tasks
    session = triggers.session("s")
    session.update_configuration({"t": {"andEvery": "a", "run": "survey.Import", "using": "queue"}})
    session.fire("a")
    assert triggers._dispatcher._given["queue"]._hints.flush(PATIENCE)
    assert [args for _, _, args, *_ in sent()] == [["s", "t#0"]]


# -- a broker that is away, or hangs --------------------------------------------------------------------------


def test_firing_does_not_need_a_broker(registry):
    """It is stored, and the message is sent once there is a broker."""
    with RedisServer(kind="valkey", private=True) as server:
        app = make_app(server.url, "t")
        with Triggers(MemoryStorage(), runner=CeleryRunner(app), registry=registry) as triggers:
            server.stop(immediate=True)
            session = triggers.session("s")
            session.update_configuration(EVERY)
            for _ in range(50):
                session.fire("a")
            assert not triggers.is_idle()
            server.start()
            assert flushed(triggers).is_idle()
            with app.connection_for_read() as connection:
                assert connection.default_channel._size("t.default") == 50


def test_a_broker_that_hangs_is_noticed(registry):
    """Firing goes on; the connection is given up at its deadline, and nothing keeps `close` for long."""
    with RedisServer(kind="valkey", private=True) as server:
        app = make_app(server.url, "t")
        triggers = Triggers(MemoryStorage(), runner=CeleryRunner(app, deadline=0.3), registry=registry)
        session = triggers.session("s")
        session.update_configuration(EVERY)
        session.fire("a")
        flushed(triggers)
        server.pause()
        for _ in range(50):
            session.fire("a")
        assert not triggers._dispatcher._default._hints.flush(0.5)
        server.resume()
        flushed(triggers)
        server.pause()
        session.fire("a")
        triggers.close(0.1)
        server.resume()


# -- eager ----------------------------------------------------------------------------------------------------


def test_eager_runs_everything_before_fire_returns(app, make, registry):
    """Cascades, too, without nesting and without a lock that waits for itself."""
    depth, deepest = itertools.count(), []

    @task(name="survey.Deep", registry=registry)
    def deep(context):
        deepest.append(len(__import__("inspect").stack()))
        next(depth)

    app.conf.task_always_eager = True
    session = make().session("s")
    rules = {f"t{n}": {"after": [f"t{n - 1}"], "run": "survey.Deep"} for n in range(1, 60)}
    session.update_configuration({"t0": {"after": ["a"], "run": "survey.Deep"}, **rules})
    session.fire("a")
    assert next(depth) == 60
    assert len(set(deepest)) == 1
    assert not list(session.storage.get_unresolved_tasks())


def test_an_endless_chain_across_sessions_is_stopped(app, make):
    """Two tasks that fire each other through `Triggers.session` end at `Limits.cascade_depth`."""
    app.conf.task_always_eager = True
    registry, ran = Registry(), []

    @task(name="survey.Import", registry=registry)
    def import_(context):
        ran.append(context.task_instance.name)
        if len(ran) < 30:
            triggers.session({"one": "two", "two": "one"}[context.manager.uid]).fire("a")

    triggers = make(registry=registry, limits=Limits(cascade_depth=10))
    for uid in ("one", "two"):
        triggers.session(uid).update_configuration(EVERY)
    triggers.session("one").fire("a")
    failed = [instance.error for instance in triggers.session("two").storage if instance.error]
    assert (len(ran), [error["type"] for error in failed]) == (11, ["CascadeDepthError"])


def test_eager_runs_what_this_process_has_no_name_for(app, make):
    """A rule whose task is not registered here is given back, and nothing is sent."""
    app.conf.task_always_eager = True
    session = make(registry=Registry()).session("s")
    session.update_configuration(EVERY)
    session.fire("a")
    assert session.storage["t#0"].status == "scheduled"


# -- what a worker does -------------------------------------------------------------------------------------------


def test_the_sweep_is_a_task_for_a_schedule(app, make):
    """Whatever arguments it is sent with."""
    triggers = make(grace=timedelta(microseconds=1))
    session = triggers.session("s")
    session.update_configuration(EVERY)
    triggers._dispatcher._default._hints.close(0)
    session.fire("a")
    app.conf.task_always_eager = True
    app.tasks[SWEEP].apply_async(("x",), {"y": 1})
    assert session.storage["t#0"].status == "finished"


@pytest.mark.parametrize("sweeps", [True, False])
def test_the_sweep_in_a_worker_is_one_switch(app, make, sweeps):
    """It begins and ends with the worker."""
    triggers = make(CeleryRunner(app, sweep=sweeps))
    (step,) = app.steps["worker"]
    one = object.__new__(step)
    one.start(None)
    for thread in threading.enumerate():
        if thread.name == "triggers-start":
            thread.join()
    assert (triggers._sweeper._thread is not None) == sweeps
    one.stop(None)
    assert triggers._sweeper._thread is None
    one.terminate(None)


def test_what_is_no_hint_is_logged_and_dropped(app, make, caplog):
    """By the task of any name."""
    make()
    app.finalize()
    for args in ((), ("s",), ("s", 5), (None, "t#0")):
        app.tasks["survey.Import"].apply(args)
        app.tasks[RUN].apply(args)
    assert caplog.text.count("does not name an instance; it is dropped") == 8


def test_after_close_nothing_runs(app, make):
    """A message that comes then is dropped; the instance waits in the storage."""
    triggers = make()
    session = triggers.session("s")
    session.update_configuration(EVERY)
    triggers.close()
    session.fire("a")
    app.tasks["survey.Import"].apply(("s", "t#0"))
    assert session.storage["t#0"].status == "scheduled"


def test_a_message_is_found_by_its_id(app, make):
    """The claim is named after it, so that it can be taken back."""
    owners = []

    @task(name="survey.Look", registry=(registry := Registry()))
    def look(context):
        owners.append(triggers.storage.reader.instance("s", "t", 0).owner)

    triggers = make(registry=registry)
    session = triggers.session("s")
    session.update_configuration({"t": {"andEvery": "a", "run": "survey.Look"}})
    session.fire("a")
    app.tasks["survey.Look"].apply(("s", "t#0"), task_id="message-1")
    assert owners[0].endswith("@message-1")


# -- time limits and stops ------------------------------------------------------------------------------------------


@pytest.fixture
def limit():
    """A soft limit in the place of Celery's handler, as in a child of a pool."""
    number = billiard_pool.SIG_SOFT_TIMEOUT
    before = signal.signal(number, billiard_pool.soft_timeout_sighandler)
    limit = celery_worker.SoftLimit()
    limit.begin()
    yield limit
    signal.signal(number, before)


def test_a_soft_limit_strikes_in_the_users_code_alone(limit):
    """Outside of it, it waits for the next time that the user's code begins; never for the next message."""
    number = billiard_pool.SIG_SOFT_TIMEOUT
    with pytest.raises(SoftTimeLimitExceeded), limit.inside():
        signal.raise_signal(number)
    signal.raise_signal(number)
    with pytest.raises(SoftTimeLimitExceeded), limit.inside():
        pytest.fail("the limit has passed")
    limit.begin()
    with limit.inside():
        pass


def test_a_soft_limit_waits_while_a_task_fires(limit, tmp_path):
    """A limit that comes amid a commit strikes when the call has returned, and the firing is stored."""
    triggers = Triggers(f"sqlite:///{tmp_path}/a.db", runner=None)
    manager, storage = triggers.session("s"), triggers.storage
    begin, struck_in = storage._file._commit, []

    def commit(link, until):
        signal.raise_signal(billiard_pool.SIG_SOFT_TIMEOUT)
        begin(link, until)

    storage._file._commit = commit

    def task():
        with limit.inside():
            try:
                manager.fire("a")
                struck_in.append("the task")
                waited.append(threading.Event().wait(60))
            except SoftTimeLimitExceeded as error:
                struck_in.append(type(error).__name__)

    waited = []
    task()
    assert struck_in == ["the task", "SoftTimeLimitExceeded"]
    assert not waited, "it interrupts a call of the system that waits"
    assert storage.session("s").firings == 1
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(celery_worker, "_is_ours", lambda _: False)
        task()
    assert struck_in[2:] == ["SoftTimeLimitExceeded"], "without the check it strikes amid the commit"


def test_a_process_without_celerys_handler_is_left_alone():
    """Only the children of a pool have limits by signals."""
    number = billiard_pool.SIG_SOFT_TIMEOUT
    before = signal.getsignal(number)
    celery_worker.SoftLimit().begin()
    assert signal.getsignal(number) is before


def run_with(storage_error, outcome, delivery=None):
    """Run one instance; the first time that its end is stored, that is raised. Returns its steps."""
    struck = []

    class Struck(MemoryStorage):
        def commit(self, uid, decision, **given):
            if struck == [False]:
                struck[0] = True
                raise storage_error
            return super().commit(uid, decision, **given)

    registry = Registry()

    @task(name="survey.Import", registry=registry)
    def import_(context):
        struck.append(False)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome

    storage = Struck()
    triggers = Triggers(storage, runner=None, registry=registry)
    session = triggers.session("s")
    session.update_configuration(EVERY)
    session.fire("a")
    try:
        triggers.run("s", "t", 0, delivery or Delivery("m1", is_stop=celery_worker._is_stop))
    finally:
        triggers.close()
    return Steps(storage, "s")


@pytest.mark.parametrize(
    "error", [SoftTimeLimitExceeded(), StorageBusyError("busy"), RuntimeError("lost"), OSError("cut")]
)
def test_an_end_is_stored_whatever_strikes_meanwhile(error):
    """A time limit in the middle of the commit costs a second try, not the result."""
    steps = run_with(error, {"n": 1})
    assert steps.statuses() == {"t#0": "finished"}


def test_a_stop_in_the_middle_of_storing_the_end_comes_after_it():
    """The result is stored, and then the process goes."""
    storage = []
    with pytest.raises(WorkerShutdown):
        storage.append(run_with(WorkerShutdown(0), {"n": 1}))


def stopped(error, monkeypatch, *, fired=False):
    """An instance out of whose task that came, and what came out of the run."""
    monkeypatch.setattr(billiard_common, "_should_have_exited", [fired])
    registry = Registry()

    @task(name="survey.Import", registry=registry)
    def import_(context):
        raise error

    triggers = Triggers("memory://", runner=None, registry=registry)
    session = triggers.session("s")
    session.update_configuration(EVERY)
    session.fire("a")
    raised = None
    try:
        triggers.run("s", "t", 0, Delivery("m1", is_stop=celery_worker._is_stop))
    except BaseException as caught:  # noqa: BLE001 - that is what is asked
        raised = caught
    return session.storage["t#0"], raised


@pytest.mark.parametrize(
    ("error", "fired"),
    [(SystemExit(-241), True), (WorkerShutdown(0), False)],
    ids=["terminated", "shut down"],
)
def test_a_stop_lets_the_instance_go(error, fired, monkeypatch):
    """It is due at once, no crash is counted, and the process goes."""
    instance, raised = stopped(error, monkeypatch, fired=fired)
    assert raised is error
    assert (instance.status, instance.crashes) == ("scheduled", 0)


def test_a_tasks_own_exit_is_a_failure(monkeypatch):
    """And the worker goes on."""
    instance, raised = stopped(SystemExit(3), monkeypatch)
    assert raised is None
    assert (instance.status, instance.error["type"]) == ("failed", "SystemExit")


class Message:
    """What Celery's request does on its own, for those messages of which the main process learns something."""

    def __init__(self, task, id_="m1", args=("s", "t#0")):
        self.task, self.id, self.args, self.kwargs = task, id_, args, {}

    def on_failure(self, exc_info, *how, **named):
        pass

    def on_timeout(self, soft, timeout):
        pass

    def _announce_revoked(self, reason, *how):
        pass

    def terminate(self, pool, signal):
        pass


@pytest.fixture
def running(app, make):
    """An instance that runs under the label of message m1: its steps, a request for it, and the runner."""
    triggers = make()
    triggers.session("s").update_configuration(EVERY)
    triggers.session("s").fire("a")
    steps = Steps(triggers.storage, "s")
    steps.start("t#0", owner=decisions.labelled("worker", "m1"))
    message = celery_worker.request_class(Message)(app.tasks["survey.Import"])
    return steps, message, triggers._dispatcher._default


def test_where_the_child_has_died_the_lease_is_not_waited_for(running):
    """A crash is counted; any other failure that Celery sees changes nothing."""
    steps, message, runner = running
    message.on_failure(SimpleNamespace(exception=ValueError("a hook's")))
    message.on_failure(SimpleNamespace(exception=WorkerLostError("signal 9")))
    assert runner._aborts.flush(PATIENCE)
    assert (steps["t#0"].status, steps["t#0"].crashes) == ("scheduled", 1)


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda message: message.on_timeout(False, 5), "TimeLimitExceeded(5,)"),
        (lambda message: message.terminate(None), "revoked and terminated"),
        (lambda message: message._announce_revoked("revoked", False, None, False), "revoked"),
        (
            lambda message: message._announce_revoked("expired", False, None, True),
            "revoked: its message has expired",
        ),
    ],
)
def test_the_main_process_fails_what_it_ends(running, act, error):
    """With the reason, and the fence raised."""
    steps, message, runner = running
    act(message)
    assert runner._aborts.flush(PATIENCE)
    instance = steps["t#0"]
    assert (instance.status, decode(instance.error)["message"], instance.fence) == ("failed", error, 2)


def test_a_soft_limit_is_the_childs_own_affair(running):
    """The main process has nothing to say; nor about messages that make no sense."""
    steps, message, runner = running
    message.on_timeout(True, 5)
    message.args = ("nonsense",)
    message.on_timeout(False, 5)
    assert runner._aborts.is_idle()
    assert steps["t#0"].status == "running"


def test_failing_for_a_worker_waits_for_the_storage(app, make, caplog):
    """At once where that is asked for and possible; else again and again, without keeping the worker."""
    away = [True]

    class Away(MemoryStorage):
        def commit(self, uid, decision, **given):
            if away[0] and "timeout" in given:
                raise StorageBusyError("away")
            return super().commit(uid, decision, **given)

    triggers = make(storage=Away())
    session = triggers.session("s")
    runner = triggers._dispatcher._default
    away[0] = False
    session.update_configuration(EVERY)
    session.fire("a")
    away[0] = True
    with caplog.at_level(logging.WARNING):
        runner.take_back(("s", "t", 0), "m1", TimeoutError("too long"), at_once=True)
    assert "will be failed later" in caplog.text
    away[0] = False
    assert runner._aborts.flush(PATIENCE)
    instance = session.storage["t#0"]
    assert (instance.status, instance.error["message"]) == ("failed", "too long")
