"""Every final failure of an instance is logged exactly once, and is a record of it that needs a review.

Every place where an instance becomes failed was looked at: what a task raises (with and without blocks, sync and
async), a result that cannot be stored, an unknown task, a cascade that is too deep, retries that are used up or no
longer possible, a timeout; in test_failures_of_workers.py, a lost worker and a message that was taken back. What a
person fails by hand is not logged.
"""

from __future__ import annotations

import asyncio
import logging
import threading

import pytest

from tests.scenarios import failing
from tests.scenarios.failing import PATIENCE, assert_seen_once, celery_runner, errors, failing_tasks, run
from triggers import FinalizingTriggerManager, Triggers, mask_secret, task
from triggers.core.values import Limits
from triggers.logs import InstanceLog, LogSettings
from triggers.storages.memory import MemoryStorage
from triggers.testing import TriggersHarness


@pytest.fixture
def tasks():
    return failing_tasks()


@pytest.fixture(params=["memory and inline", "sqlite and threads", "celery"])
def app(request, tasks, tmp_path):
    """An application; each kind of runner runs the tasks in its own way."""
    url = f"sqlite:///{tmp_path}/s.db?synchronous=normal" if "sqlite" in request.param else "memory://"
    runner = {"memory and inline": "inline", "sqlite and threads": "threads"}.get(request.param)
    with Triggers(
        url, runner=runner or celery_runner(), registry=tasks, manager=FinalizingTriggerManager
    ) as app:
        yield app


@pytest.fixture
def inline(tasks):
    """An application whose tasks run within the call that fires."""
    with Triggers("memory://", runner="inline", registry=tasks) as app:
        yield app


# -- what a task raises --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "block", "nested", "async", "async block"])
def test_what_a_task_raises_is_logged_once(app, caplog, kind):
    """With traceback and context, on the task's own logger, whatever blocks it has passed."""
    view = run(app, kind)
    record, stored = assert_seen_once(caplog, view, f"t_{kind}#0", function="plain")
    assert record.name == failing.__name__
    assert stored.entry.context["score"] == record.context["score"] == 3
    assert stored.entry.function != "_outcome"


def test_without_it_the_check_fails(inline, caplog, monkeypatch):
    """The library without the mechanism: neither the application nor the instance says anything."""
    monkeypatch.setattr(InstanceLog, "log_failure", lambda *_: None)
    view = run(inline, "plain")
    with pytest.raises(ValueError, match="not enough values"):
        assert_seen_once(caplog, view, "t_plain#0")
    assert view["t_plain#0"].log_level_name == "NOTSET"


def test_a_retry_is_a_warning_and_the_last_attempt_an_error(app, caplog):
    """Each retry says which attempt it was and why, and is a record of the attempt that ended with it."""
    view = run(app, "again")
    warnings = [
        record
        for record in caplog.records
        if record.levelno == logging.WARNING and record.name == failing.__name__
    ]
    assert [record.getMessage() for record in warnings] == [
        f"Attempt {attempt} of 3 is repeated in 0:00:00 because of ValueError: no answer"
        for attempt in (1, 2)
    ]
    assert [record.context for record in warnings] == [{"score": 3}] * 2
    assert [view[f"t_again#{number}"].log_level_name for number in range(3)] == [
        "WARNING",
        "WARNING",
        "ERROR",
    ]
    record, _ = assert_seen_once(caplog, view, "t_again#2", "MaxRetriesExceeded", "again")
    assert "ValueError: no answer" in record.exc_text


def test_a_retry_that_is_no_longer_possible_is_a_failure(inline, caplog):
    """The task was removed from the configuration meanwhile, so that what was to be repeated has failed."""
    view = run(inline, "removed")
    (record,) = errors(caplog)
    assert record.getMessage() == "ValueError: no answer"
    assert (view["t_removed#0"].status, view["t_removed#0"].log_level_name) == ("failed", "ERROR")


def test_what_a_block_logged_as_a_signal_is_logged_as_a_failure(inline, caplog):
    """A block logs a cancellation at INFO. That the instance has failed because of it is one ERROR more."""
    view = run(inline, "cancelled")
    assert_seen_once(caplog, view, "t_cancelled#0", "CancelledError", "cancelled")


def test_a_task_that_exits_is_logged(inline, caplog):
    """SystemExit fails the instance, and not the process."""
    assert_seen_once(caplog, run(inline, "exit"), "t_exit#0", "SystemExit", "exit_")


# -- failures without user code ----------------------------------------------------------------------------


def test_a_result_that_cannot_be_stored_is_logged(app, caplog):
    """The message has the path of the value."""
    assert_seen_once(caplog, run(app, "odd"), "t_odd#0", "InvalidValueError")


def test_an_unknown_task_is_logged(tasks, caplog):
    """It goes to a general logger, because nobody knows its module."""
    storage = MemoryStorage()
    session = Triggers(storage, runner=None, registry=tasks).session("s")
    session.update_configuration({"t_plain": {"after": ["plain"], "run": "plain"}})
    session.fire("plain")
    session.replace_configuration({})
    with Triggers(storage, runner="inline", registry=tasks) as app:
        assert app.join(PATIENCE)
    record, _ = assert_seen_once(caplog, session.storage, "t_plain#0", "UnknownTaskError")
    assert record.name == "triggers.tasks"


def test_a_cascade_that_is_too_deep_is_logged(tasks, caplog):
    """The instance that would be one too many fails before its code runs."""
    limits = Limits(cascade_depth=0)
    with Triggers("memory://", runner="inline", registry=tasks, limits=limits) as app:
        session = app.session("s")
        session.update_configuration({
            "t_fire": {"after": ["go"], "run": "fire"},
            "t_fine": {"after": ["plain"], "run": "fine"},
        })  # fmt: skip
        session.fire("go")
        assert_seen_once(caplog, session.storage, "t_fine#0", "CascadeDepthError")


def test_a_timeout_is_logged_once(tasks, tmp_path, caplog):
    """By the heartbeat, while the task still runs. What it raises afterwards changes nothing: a WARNING."""
    release, ended = threading.Event(), threading.Event()

    @task(name="slow", registry=tasks, timeout=0.05)
    def slow(context):
        release.wait(PATIENCE)
        raise ValueError("too late")

    class Watching(logging.Handler):
        def emit(self, record):
            if "too late" in record.getMessage():
                ended.set()

    watching = Watching()
    logging.getLogger(__name__).addHandler(watching)
    try:
        with Triggers(f"sqlite:///{tmp_path}/s.db?synchronous=normal", registry=tasks) as app:
            view = run(app, "slow")
            record, _ = assert_seen_once(caplog, view, "t_slow#0", "TaskTimeoutError")
            assert "longer than its timeout" in record.getMessage()
            release.set()
            assert ended.wait(PATIENCE)
        assert errors(caplog) == [record]
        (late,) = (record for record in caplog.records if "too late" in record.getMessage())
        assert late.levelname == "WARNING"
    finally:
        release.set()
        logging.getLogger(__name__).removeHandler(watching)


def test_a_timeout_of_a_coroutine_is_logged_once(tasks, tmp_path, caplog):
    """By the coroutine itself, which is canceled: the heartbeat does not fail it, too, while it cleans up."""

    @task(name="slow", registry=tasks, timeout=0.05)
    async def slow(context):
        try:
            await asyncio.sleep(PATIENCE)
        finally:
            await asyncio.sleep(0.3)  # longer than the heartbeat takes to notice a timeout

    with Triggers(f"sqlite:///{tmp_path}/s.db?synchronous=normal", registry=tasks) as app:
        view = run(app, "slow")
        record, _ = assert_seen_once(caplog, view, "t_slow#0", "TaskTimeoutError")
        assert "longer than its timeout" in record.getMessage()
    assert errors(caplog) == [record]
    said = [record.getMessage() for record in caplog.records]
    assert not [message for message in said if "stays busy" in message or "is old" in message]
    assert len(view.logs("t_slow#0")) == 1


# -- what it costs, and what may go wrong ---------------------------------------------------------------------


@pytest.mark.parametrize(("name", "end"), [("plain", "fail"), ("again", "fail"), ("fine", "finish")])
def test_it_rides_in_the_commit_of_the_failure(tasks, name, end):
    """There is no commit more than for a task that finishes, and nothing is stored of one that does."""
    said = []

    class Counting(MemoryStorage):
        def commit(self, uid, decision, **given):
            said.append(decision.name)
            return super().commit(uid, decision, **given)

    with Triggers(Counting(), runner="inline", registry=tasks) as app:
        session = app.session("s")
        session.update_configuration({"t": {"after": ["go"], "run": name}})
        session.fire("go")
    assert said[:4] == ["configure", "fire", "claim", end]
    assert (len(session.storage.logs("t#0")) > 0) == (name != "fine")


@pytest.mark.usefixtures("disabled")
def test_no_configuration_hides_a_failure(tasks):
    """Where the application's logging is off, and the manager records nothing below CRITICAL."""

    class Quiet(FinalizingTriggerManager):
        name = "quiet"
        log_settings = LogSettings(record_level="CRITICAL")

    with Triggers("memory://", runner="inline", registry=tasks, manager=Quiet) as app:
        for name in ("plain", "block"):
            view = run(app, name)
            assert view[f"t_{name}#0"].log_level_name == "ERROR"
            assert len(view.logs(f"t_{name}#0")) == 1


@pytest.fixture
def disabled():
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("problem", [RuntimeError("a handler"), KeyboardInterrupt()])
def test_a_handler_that_raises_does_not_lose_the_end(tasks, problem):
    """The failure is stored with its record, though logs are strict; only an interrupt is raised, afterwards."""

    class Raising(logging.Handler):
        def emit(self, record):
            raise problem

    handler, logger = Raising(), logging.getLogger(failing.__name__)
    logger.addHandler(handler)
    try:
        with TriggersHarness(registry=tasks, allow_failures=True) as harness:
            session = harness.session("s")
            session.update_configuration({"t": {"after": ["go"], "run": "plain"}})
            if isinstance(problem, KeyboardInterrupt):
                with pytest.raises(KeyboardInterrupt):
                    session.fire("go")
            else:
                session.fire("go")
            instance = session.storage["t#0"]
            assert (instance.status, instance.log_level_name) == ("failed", "ERROR")
    finally:
        logger.removeHandler(handler)


def test_metadata_that_cannot_be_stored_makes_a_failure_that_is_logged(tasks, caplog):
    """What a task adds as it ends is refused by the commit; its records and the failure's ride in the next one."""
    limits = Limits(payload=2_000)

    @task(name="large", registry=tasks)
    def large(context):
        context.manager.update_instance_metadata(context.task_instance, {"a": "x" * 1_500})
        with context.get_logger_context() as logger:
            logger.info("before")
        raise context.skip({"b": "x" * 1_500})

    with Triggers("memory://", runner="inline", registry=tasks, limits=limits) as app:
        view = run(app, "large")
    assert_seen_once(caplog, view, "t_large#0", "InvalidValueError")
    assert view.logs()[0].entry.message == "before"


def test_a_secret_is_hidden(tasks, caplog):
    """In the record and in what Celery is told: a masked value is in no text, and no exception is forwarded."""

    @task(name="secret", registry=tasks)
    def secret(context):
        mask_secret("open-sesame")
        with context.get_logger_context():
            mask_secret("open-sesame")
        raise ValueError("wrong: open-sesame")

    with Triggers("memory://", runner=celery_runner(), registry=tasks) as app:
        from celery.signals import task_failure

        told = []
        with_signal = lambda **given: told.append(given)  # noqa: E731 - connected by identity
        task_failure.connect(with_signal)
        try:
            view = run(app, "secret")
        finally:
            task_failure.disconnect(with_signal)
    (record,) = errors(caplog)
    assert "sesame" not in record.getMessage() + record.exc_text
    assert record.exc_info is None
    assert "sesame" not in f"{told} {view.logs()}"
    assert len(told) == 1


# -- the harness, Sentry ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["plain", "block", "async"])
def test_the_harness_sees_it(tasks, caplog, kind):
    """As an application does."""
    with TriggersHarness(registry=tasks, allow_failures=True) as harness:
        session = harness.session("s")
        session.update_configuration({f"t_{kind}": {"after": [kind], "run": kind}})
        session.fire(kind)
        assert_seen_once(caplog, session.storage, f"t_{kind}#0", function="plain")


@pytest.fixture
def events():
    """Sentry with its integrations for logging and Celery, and a transport that keeps what would be sent."""
    sentry = pytest.importorskip("sentry_sdk")
    pytest.importorskip("celery")
    from sentry_sdk.integrations.celery import CeleryIntegration  # noqa: PLC0415 - where it is installed
    from sentry_sdk.integrations.dedupe import DedupeIntegration  # noqa: PLC0415 - as above
    from sentry_sdk.integrations.logging import LoggingIntegration  # noqa: PLC0415 - as above
    from sentry_sdk.transport import Transport  # noqa: PLC0415 - as above

    sent = []

    class Kept(Transport):
        def capture_envelope(self, envelope):
            sent.extend(item.payload.json for item in envelope.items if item.type == "event")

    sentry.init(
        dsn="https://public@sentry.invalid/1",
        transport=Kept,
        default_integrations=False,
        integrations=[LoggingIntegration(), CeleryIntegration(), DedupeIntegration()],
        include_local_variables=False,
    )
    yield sent
    sentry.get_global_scope().set_client(None)


@pytest.mark.parametrize("kind", ["plain", "block", "async", "odd"])
def test_sentry_gets_one_event(app, events, kind):
    """With the exception, its traceback and the identifiers of the instance; the same on Celery."""
    run(app, kind)
    (event,) = events
    (exception,) = event["exception"]["values"]
    assert exception["type"] == ("InvalidValueError" if kind == "odd" else "ValueError")
    assert exception["stacktrace"]["frames"]
    assert event["extra"]["triggers.instance"] == f"t_{kind}#0"
    assert event["level"] == "error"
