"""Real Celery workers: pools, limits, revoking, dying, garbage, and a broker that comes and goes."""

from __future__ import annotations

import os
import random
import signal
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from celery.signals import after_task_publish
from celery.utils.nodenames import gethostname, nodename

from tests.runners.celery_app import LEASE, make_runner, registry, url_of
from tests.runners.conftest import PATIENCE, Worker, until
from triggers import Triggers
from triggers.testing.servers import RedisServer

#: The rules of every session here: each task runs when its name is fired.
RULES = {
    **{f"t_{run}": {"andEvery": run, "run": run} for run in registry},
    "t_inner": {"andEvery": "inner", "run": "count"},
    "t_chain_0": {"after": ["chain"], "run": "chain.link"},
    **{f"t_chain_{n}": {"after": [f"t_chain_{n - 1}"], "run": "chain.link"} for n in range(1, 4)},
}


class Desk:
    """What a test has: a process that fires, a session, and the worker that serves it."""

    def __init__(self, worker, path, *, fires_only=False):
        self.worker, self.path = worker, path
        worker.point_to(path)
        self.app = worker.app()
        runner = None if fires_only else make_runner(self.app)
        self.triggers = Triggers(url_of(path), runner=runner, registry=registry, grace=timedelta(seconds=5))
        self.session = self.triggers.session("s")
        self.session.update_configuration(RULES)

    def __getitem__(self, name):
        return self.session.storage[name]

    def fire(self, trigger, **kwargs):
        """Fire, and name the instance that this released."""
        (name,) = self.session.fire(trigger, kwargs).scheduled
        return name

    def send(self, run, *args, **options):
        """A message by hand; returns its id."""
        return self.app.send_task(run, args, ignore_result=True, **options).id

    def revoke(self, message):
        """Revoke a message that does not run yet; the worker knows of that when this returns."""
        name = nodename(self.worker.prefix, gethostname())
        (answer,) = self.app.control.revoke(message, destination=[name], reply=True, timeout=PATIENCE)
        assert "ok" in answer[name]

    def until_in(self, status, *names):
        """Wait until these instances are in that status, and return them."""
        until(lambda: all(self[name].status == status for name in names))
        return [self[name] for name in names]

    def settle(self):
        """Wait until nothing is left to be done."""
        until(lambda: not any(self.triggers.backlog()[:3]))

    def pid_of(self, path):
        """Which process a sleeping task said that it runs in; waited for."""
        return int(until(lambda: path.exists() and path.read_text().split())[-1])

    def message_of(self, name):
        """The id of the message under whose label an instance runs; waited for."""
        task, _, number = name.rpartition("#")
        find = self.triggers.storage.reader.instance
        return until(lambda: find("s", task, int(number)).owner).rpartition("@")[2]


@pytest.fixture
def open_desk(tmp_path):
    """Opens desks at workers; closes them."""
    opened = []

    def open_desk(worker, **settings):
        opened.append(Desk(worker, tmp_path / f"desk{len(opened)}.db", **settings))
        return opened[-1]

    yield open_desk
    for desk in opened:
        desk.triggers.close(0)


@pytest.fixture
def worker(make_worker, redis_server):
    """Two processes, which sweep."""
    return make_worker(redis_server.url)


@pytest.fixture
def still_worker(make_worker, redis_server):
    """Two processes, which do not sweep: they run what a test sends them, and nothing else."""
    return make_worker(redis_server.url, sweep=False)


@pytest.fixture
def desk(open_desk, worker):
    """A desk at that worker."""
    return open_desk(worker)


@pytest.fixture
def messages():
    """The ids of the messages that this process sends, by the name of the instance."""
    sent = {}

    def note(headers=None, body=None, **_):
        sent[body[0][1]] = headers["id"]

    after_task_publish.connect(note)
    yield sent
    after_task_publish.disconnect(note)


# -- pools ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pool", "options"),
    [("prefork", ("--max-tasks-per-child=7",)), ("threads", ()), ("gevent", ()), ("solo", ())],
)
def test_every_pool_runs_everything(make_worker, open_desk, redis_server, pool, options):
    """Cascades, failures, tasks that fire; children of a pool come and go; what takes longer than a lease runs once."""
    desk = open_desk(make_worker(redis_server.url, pool=pool, options=options))
    # A greenlet that does not wait lets nothing else run, the heartbeat neither.
    busy = desk.fire("sleep" if pool == "gevent" else "spin", seconds=1.4 * LEASE)
    ran = [desk.fire("count") for _ in range(20)]
    desk.session.fire("chain")
    failed = [desk.fire("raise"), desk.fire("exit")]
    fired = desk.fire("fire")
    desk.settle()
    for name in (*ran, *(f"t_chain_{n}#0" for n in range(4)), fired, "t_inner#0", busy):
        assert (name, desk[name].status, desk[name].result) == (name, "finished", {"attempt": 1})
    assert [desk[name].status for name in failed] == ["failed", "failed"]
    assert [desk[name].error["type"] for name in failed] == ["ValueError", "SystemExit"]


def test_children_have_identities_of_their_own(desk):
    """Instances run in several processes, none of which is the worker's main process."""
    names = [desk.fire("sleep", seconds=1, path=str(desk.path) + ".who") for _ in range(2)]
    desk.until_in("finished", *names)
    pids = {int(pid) for pid in (desk.path.parent / f"{desk.path.name}.who").read_text().split()}
    assert len(pids) == 2
    assert desk.worker.process.pid not in pids


# -- messages -------------------------------------------------------------------------------------------------


def test_messages_twice_and_in_any_order_run_everything_once(still_worker, open_desk):
    """A copy finds nothing to claim."""
    desk = open_desk(still_worker, fires_only=True)
    names = [desk.fire("count") for _ in range(40)]
    copies = [*names, *names, *names]
    random.Random(7).shuffle(copies)
    for name in copies:
        desk.send("count", "s", name)
    assert [instance.result for instance in desk.until_in("finished", *names)] == [{"attempt": 1}] * 40


def test_messages_of_other_versions_are_understood(still_worker, open_desk):
    """With more arguments, without a header, with names instead of places, and under the name of no task."""
    desk = open_desk(still_worker, fires_only=True)
    names = [desk.fire("count") for _ in range(4)]
    desk.send("count", "s", names[0], kwargs={"v": 99, "more": [1]}, headers={"triggers": 99})
    desk.send("count", "s", names[1], "something new")
    desk.send("count", kwargs={"uid": "s", "instance": names[2]})
    desk.send("triggers.run", "s", names[3])
    desk.until_in("finished", *names)


def test_garbage_in_the_queue_holds_nobody_up(desk):
    """Messages for sessions, instances and tasks that are not there, and what is no message at all."""
    for args in (
        (),
        ("s",),
        ("s", None),
        ("nobody", "t#0"),
        ("s", "t_count#99"),
        ("s", "nobody#0"),
        ({}, []),
    ):
        desk.send("count", *args)
        desk.send("triggers.run", *args)
    desk.send("count", kwargs={"uid": 5})
    desk.send("a task that nobody has", "s", "t_count#0")
    with desk.app.connection_for_write() as connection, connection.Producer() as producer:
        for body, kind in (
            (b"\xff\x00", "application/json"),
            (b"{}", "application/json"),
            (b"x", "text/plain"),
        ):
            producer.publish(
                body, routing_key=f"{desk.worker.prefix}.default", content_type=kind, content_encoding="utf-8"
            )
    name = desk.fire("count")
    desk.until_in("finished", name)
    assert until(lambda: desk.worker.says("does not name an instance; it is dropped"))
    assert desk.worker.process.poll() is None


def test_messages_of_version_2_are_answered_once_for_each_task(desk):
    """One line says what to do, whether the task is known or not, and the messages are dropped."""
    for number in range(3):
        old = {
            "instance_name": f"t_count#{number}",
            "manager_type": "default",
            "storage_type": "cache",
            "storage_uid": "respondent-17",
            "trigger_kwargs": {"count": {}},
        }
        for name in ("count", "echo", "version2.NobodyHasIt"):
            desk.send(name, kwargs=old)
    said = [
        f"dropped a message of version 2 for task {name} ('t_count#0' of session 'respondent-17')"
        for name in ("count", "echo", "version2.NobodyHasIt")
    ]
    until(lambda: all(map(desk.worker.says, said)))
    desk.until_in("finished", *[desk.fire("count") for _ in range(3)])
    log = desk.worker.log.read_text("utf-8", "replace")
    assert [log.count(line) for line in said] == [1, 1, 1]
    assert log.count("a message of version 2") == 3
    assert log.count("import the sessions with `triggers import-v2`") == 3


def test_what_was_never_sent_is_found_by_the_worker(worker, open_desk):
    """A process without a runner only fires; the sweep in the worker's main process hands over."""
    desk = open_desk(worker, fires_only=True)
    desk.until_in("finished", *[desk.fire("count") for _ in range(5)])


# -- time limits ----------------------------------------------------------------------------------------------


def test_a_soft_limit_fails_the_instance(desk):
    """With Celery's exception as the reason; a task that catches it may still return. The child lives on."""
    failed, returned = desk.fire("sleep.soft"), desk.fire("stubborn.soft")
    (instance,) = desk.until_in("failed", failed)
    assert instance.error["type"] == "SoftTimeLimitExceeded"
    (instance,) = desk.until_in("finished", returned)
    assert instance.result == {"attempt": 1}


def test_a_failure_is_logged_once_and_reported(desk):
    """The worker prints it once, with its traceback; Celery says in one line that it was expected, and goes on."""
    name = desk.fire("raise")
    desk.until_in("failed", name)
    reported = f"raised expected: InstanceFailedError('s', '{name}', 'ValueError', '{name}')"
    until(lambda: desk.worker.says(reported))
    desk.until_in("finished", desk.fire("count"))
    log = desk.worker.link.with_name("log").read_text()
    assert log.count(f"ValueError: {name}\nTraceback") == 1
    assert log.count(f"    raise ValueError(context.task_instance.name)\nValueError: {name}\n") == 1
    assert log.count(reported) == 1
    assert (desk[name].stored.attempt, desk[name].log_level_name) == (1, "ERROR")


def test_a_hard_limit_fails_the_instance(desk):
    """The worker's main process kills the child and says why; no crash is counted, and the next one runs."""
    (instance,) = desk.until_in("failed", desk.fire("sleep.hard"))
    assert (instance.error["type"], instance.error["message"]) == (
        "TimeLimitExceeded",
        "TimeLimitExceeded(1,)",
    )
    assert instance.crashes == 0
    desk.until_in("finished", desk.fire("count"))


# -- revoking -------------------------------------------------------------------------------------------------


def test_revoked_while_it_runs(desk, tmp_path):
    """`terminate` kills the child; the instance is failed with that reason, and stays so."""
    name = desk.fire("sleep", path=str(tmp_path / "pid"))
    pid = desk.pid_of(tmp_path / "pid")
    desk.app.control.revoke(desk.message_of(name), terminate=True)
    (instance,) = desk.until_in("failed", name)
    assert (instance.error["type"], instance.error["message"]) == (
        "TaskRevokedError",
        "revoked and terminated",
    )
    assert (instance.attempt, instance.crashes) == (1, 0)
    until(lambda: not Path(f"/proc/{pid}").exists())
    desk.until_in("finished", desk.fire("count"))
    assert desk[name].status == "failed"


def test_revoked_before_it_runs(still_worker, open_desk):
    """A message whose id was revoked fails its instance when it comes."""
    desk = open_desk(still_worker, fires_only=True)
    desk.revoke("to-be-revoked")
    name = desk.fire("count")
    desk.send("count", "s", name, task_id="to-be-revoked")
    (instance,) = desk.until_in("failed", name)
    assert (instance.error["type"], instance.error["message"]) == ("TaskRevokedError", "revoked")


def test_an_expired_message_fails_its_instance(still_worker, open_desk):
    """That is what an application asks for that lets its messages expire."""
    desk = open_desk(still_worker, fires_only=True)
    name = desk.fire("count")
    desk.send("count", "s", name, expires=datetime(2020, 1, 1, tzinfo=UTC))
    (instance,) = desk.until_in("failed", name)
    assert instance.error["message"] == "revoked: its message has expired"


def test_a_revoked_copy_does_not_touch_what_another_message_runs(desk, tmp_path):
    """Only the claim that a message led to is its own."""
    name = desk.fire("sleep", path=str(tmp_path / "pid"), seconds=2)
    desk.pid_of(tmp_path / "pid")
    desk.revoke("a-copy")
    desk.send("sleep", "s", name, task_id="a-copy")
    until(lambda: desk.worker.says("Discarding revoked task: sleep[a-copy]"))
    desk.until_in("finished", name)


# -- dying ----------------------------------------------------------------------------------------------------


def test_a_child_that_is_killed_loses_nothing(desk):
    """Its parent sees it, or its lease runs out; one crash is counted, and another child runs the instance."""
    names = [desk.fire("die") for _ in range(4)]
    for instance in desk.until_in("finished", *names):
        assert (instance.result, instance.crashes) == ({"attempt": 2}, 1)


def test_a_child_that_is_told_to_go_lets_its_instance_go(desk, tmp_path):
    """It is run again at once, and no crash is counted."""
    name = desk.fire("sleep", path=str(tmp_path / "pid"), seconds=2)
    os.kill(desk.pid_of(tmp_path / "pid"), signal.SIGTERM)
    (instance,) = desk.until_in("finished", name)
    assert (instance.result, instance.crashes) == ({"attempt": 2}, 0)


def test_a_worker_that_is_killed_loses_nothing(redis_server, open_desk, tmp_path):
    """With its children and its messages; another one does what it left."""
    worker = Worker(tmp_path, redis_server.url)
    try:
        desk = open_desk(worker)
        names = [desk.fire("sleep", path=str(tmp_path / "pid"), seconds=1) for _ in range(2)]
        desk.pid_of(tmp_path / "pid")
        names += [desk.fire("count") for _ in range(20)]
        worker.kill()
        names.append(desk.fire("count"))
        worker.start()
        desk.until_in("finished", *names)
        assert max(desk[name].attempt for name in names) <= 2
    finally:
        worker.stop()


def test_a_worker_that_is_told_to_stop_finishes_what_it_runs(redis_server, open_desk, tmp_path):
    """It takes nothing more; what it released is sent, and runs in the next one."""
    worker = Worker(tmp_path, redis_server.url, sweep=False, concurrency=1)
    try:
        desk = open_desk(worker)
        name = desk.fire("sleep", path=str(tmp_path / "pid"), seconds=1)
        desk.pid_of(tmp_path / "pid")
        worker.process.terminate()
        assert worker.process.wait(PATIENCE) == 0
        assert desk[name].status == "finished"
    finally:
        worker.stop()


def test_a_broker_that_comes_back_finds_its_worker(open_desk, tmp_path):
    """Firing goes on without it, and all runs once it is there again, though it has forgotten everything."""
    with RedisServer(kind="valkey", private=True) as server:
        worker = Worker(tmp_path, server.url)
        try:
            desk = open_desk(worker)
            desk.until_in("finished", desk.fire("count"))
            server.stop(immediate=True)
            names = [desk.fire("count") for _ in range(20)]
            server.start()
            server.ask("FLUSHALL")
            desk.until_in("finished", *names)
        finally:
            worker.stop()


def test_a_timer_elapses_in_the_worker(open_desk, worker):
    """A process that only fires sets it; the worker's sweep lets it elapse, and its pool runs the task."""
    desk = open_desk(worker, fires_only=True)
    desk.session.fire_later("count", after=0.2)
    until(lambda: desk.triggers.storage.reader.instance("s", "t_count", 0))
    [done] = desk.until_in("finished", "t_count#0")
    assert done.task == "t_count"
    assert list(desk.session.timers()) == []
