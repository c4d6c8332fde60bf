"""The application of these tests, on both sides: `celery -A tests.runners.celery_app worker` builds it.

A worker serves many tests, and each test has a storage of its own: the workers ask a link in the file system which
one it is.
"""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from celery import Celery

from triggers import Registry, Triggers, TriggerTask, task
from triggers.runners.celery import CeleryRunner
from triggers.storages.sqlite import SqliteStorage

#: What a worker is told in the environment begins with this.
TOLD = "TRIGGERS_TEST_WORKER_"

#: How long a claim of these workers lasts, in seconds.
LEASE = 3.0

registry = Registry()


def given(context, key, default=None):
    """What any of the triggers says under that key."""
    return next((kwargs[key] for kwargs in context.trigger_kwargs.values() if key in kwargs), default)


@task(name="count", registry=registry)
@task(name="chain.link", registry=registry)
def count(context):
    """Return at once, and say who ran it."""
    return {"attempt": context.attempt}


@task(name="echo", registry=registry)
def echo(context):
    """Return what it was fired with."""
    return context.trigger_kwargs["echo"]


@task(name="who", registry=registry)
def who(context):
    """Say which process it runs in."""
    return {"pid": os.getpid()}


@task(name="raise", registry=registry)
def raise_(context):
    """Raise an error."""
    raise ValueError(context.task_instance.name)


@task(name="exit", registry=registry)
def exit_(context):
    """Try to end the process."""
    raise SystemExit(context.task_instance.name)


@task(name="fire", registry=registry)
def fire(context):
    """Fire into the session from within."""
    context.manager.fire("inner", {"by": context.task_instance.name})
    return {"attempt": context.attempt}


@task(name="sleep", registry=registry)
@task(name="sleep.soft", registry=registry)
@task(name="sleep.hard", registry=registry)
@task(name="block", registry=registry)
def sleep(context):
    """Say in a file which process it runs in, and sleep."""
    if path := given(context, "path"):
        with Path(path).open("a") as file:
            file.write(f"{os.getpid()}\n")
    until = time.monotonic() + given(context, "seconds", 60)
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.05))
    return {"attempt": context.attempt}


@task(name="stubborn.soft", registry=registry)
def stubborn(context):
    """Sleep, and return as if nothing had been when the time is up."""
    with suppress(Exception):
        sleep(context)
    return {"attempt": context.attempt}


@task(name="spin", registry=registry)
def spin(context):
    """Keep the processor busy, without ever waiting."""
    until = time.monotonic() + given(context, "seconds")
    while time.monotonic() < until:
        sum(range(1000))
    return {"attempt": context.attempt}


class Die(TriggerTask):
    """Kill the process that it runs in, the first time."""

    name = "die"
    registry = registry

    def _run(self, context):
        if context.attempt == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return {"attempt": context.attempt}


class CurrentStorage:
    """Whichever storage the link leads to now."""

    def __init__(self, link: Path) -> None:
        self._link = link
        self._storages: dict[str, SqliteStorage] = {}

    def __getattr__(self, name):
        return getattr(self._current(), name)

    def _current(self) -> SqliteStorage:
        path = str(self._link.readlink())
        if path not in self._storages:
            self._storages[path] = SqliteStorage(url_of(path))
        return self._storages[path]

    def commit(self, *args, **kwargs):
        """Of the current one."""
        return self._current().commit(*args, **kwargs)


def url_of(path: str | Path) -> str:
    """The URL of a SQLite file for tests: nothing here has to survive a power cut."""
    return f"sqlite:///{path}?synchronous=normal"


def queues(prefix: str) -> list[str]:
    """The queues of an application."""
    return [f"{prefix}.default", f"{prefix}.chain"]


def make_app(broker: str, prefix: str) -> Celery:
    """A Celery application with queues of its own."""
    app = Celery("tests", broker=broker, set_as_current=False)
    rabbit = broker.startswith("amqp")
    kind = "quorum" if rabbit else "classic"
    app.conf.update(
        task_default_queue=f"{prefix}.default",
        task_default_exchange=f"{prefix}.default",
        task_routes={"chain.*": {"queue": f"{prefix}.chain"}},
        task_default_queue_type=kind,
        task_create_missing_queue_type=kind,
        task_default_exchange_type="topic" if rabbit else "direct",
        task_create_missing_queue_exchange_type="topic" if rabbit else "direct",
        broker_connection_retry_on_startup=True,
        worker_cancel_long_running_tasks_on_connection_loss=False,
    )
    return app


def make_runner(app: Celery, **settings: object) -> CeleryRunner:
    """The runner, with the limits of those tasks that have one."""
    runner = CeleryRunner(app, **settings)
    runner.bind("sleep.soft", soft_time_limit=0.5)
    runner.bind("stubborn.soft", soft_time_limit=0.5)
    return runner.bind("sleep.hard", time_limit=1)


def _as_told() -> tuple[Celery, Triggers]:
    told = {key.removeprefix(TOLD): value for key, value in os.environ.items() if key.startswith(TOLD)}
    app = make_app(told["BROKER"], told["PREFIX"])
    triggers = Triggers(
        CurrentStorage(Path(told["LINK"])),
        runner=make_runner(app, sweep=bool(told.get("SWEEP"))),
        registry=registry,
        lease=timedelta(seconds=LEASE),
        sweep_interval=timedelta(seconds=0.3),
        grace=timedelta(seconds=5),
    )
    return app, triggers


if f"{TOLD}BROKER" in os.environ:
    app, triggers = _as_told()
