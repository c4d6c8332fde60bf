"""Tasks that fail, each in its own way, and what is to be seen of a failure."""

from __future__ import annotations

import asyncio
import logging
import secrets

import pytest

from triggers import Registry, task, with_context

#: Nothing here takes so long, in seconds, unless it hangs.
PATIENCE = 60.0

FAILING = Registry()


@task(name="plain", registry=FAILING)
def plain(context):
    raise with_context(ValueError("spam"), {"score": 3})


@task(name="block", registry=FAILING)
def block(context):
    with context.get_logger_context({"page": 1}):
        plain(context)


@task(name="nested", registry=FAILING)
def nested(context):
    with context.get_logger_context({"page": 1}), context.get_logger_context({"part": 2}):
        plain(context)


@task(name="async", registry=FAILING)
async def asynchronous(context):
    await asyncio.sleep(0)
    plain(context)


@task(name="async block", registry=FAILING)
async def asynchronous_block(context):
    with context.get_logger_context({"page": 1}):
        await asyncio.sleep(0)
        plain(context)


@task(name="fine", registry=FAILING)
def fine(context):
    return {}


@task(name="odd", registry=FAILING)
def odd(context):
    return {"result": object()}


@task(name="exit", registry=FAILING)
def exit_(context):
    raise SystemExit(3)


@task(name="cancelled", registry=FAILING)
def cancelled(context):
    with context.get_logger_context():
        raise asyncio.CancelledError


@task(name="again", registry=FAILING, max_retries=2)
def again(context):
    raise context.retry(with_context(ValueError("no answer"), {"score": 3}))


@task(name="removed", registry=FAILING)
def removed(context):
    context.manager.replace_configuration({})
    raise context.retry(ValueError("no answer"))


@task(name="fire", registry=FAILING)
def fire(context):
    context.manager.fire("plain")


def failing_tasks():
    """A registry with these tasks, to which a test may add its own."""
    registry = Registry()
    for name in FAILING:
        registry.register(FAILING.get(name))
    return registry


def celery_runner(**settings):
    """A runner that runs everything through Celery, in the calling thread."""
    celery = pytest.importorskip("celery")
    from triggers.runners.celery import CeleryRunner  # noqa: PLC0415 - where it is installed

    app = celery.Celery(f"t{secrets.token_hex(4)}", broker="memory://", set_as_current=False)
    app.conf.task_always_eager = True
    return CeleryRunner(app, **settings)


def run(app, *runs, **rule):
    """Run these tasks in a session, one after the other, and return its view."""
    session = app.session("s")
    session.update_configuration({f"t_{run}": {"after": [run], "run": run, **rule} for run in runs})
    for name in runs:
        session.fire(name)
        assert app.join(PATIENCE)
    return session.storage


def errors(caplog):
    """What the application's logging got at ERROR, of any logger."""
    return [record for record in caplog.records if record.levelno >= logging.ERROR]


def assert_seen_once(caplog, view, name, kind="ValueError", function=None):
    """The failure is in the application's logging and in the log of its instance, once each, and to be reviewed."""
    (record,) = errors(caplog)
    assert (record.__dict__["triggers.instance"], record.__dict__["triggers.uid"]) == (name, view.uid)
    assert kind in record.getMessage()
    instance = view[name]
    assert (instance.status, instance.log_level_name) == ("failed", "ERROR")
    assert instance.error["type"] == kind
    assert [found.name for found in view.get_instances_with_unresolved_logs()] == [name]
    (stored,) = view.logs(name, min_level=logging.ERROR)
    assert stored.entry.exception["type"] == kind
    assert not stored.entry.late
    if function is not None:
        assert record.exc_info
        assert f"in {function}" in record.exc_text
        assert f"in {function}" in stored.entry.exception["traceback"]
        assert stored.entry.pathname == record.pathname == __file__
    return record, stored
