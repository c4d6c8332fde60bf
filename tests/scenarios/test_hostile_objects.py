"""Objects of the application's that raise whatever is asked of them never take the place of what happened."""

from __future__ import annotations

import logging
import pickle  # noqa: TID251 - of this test's own making

import pytest

from tests.scenarios.hostile import HOSTILE, PRINTABLE, undisturbed
from triggers import Registry, TriggerManager, Triggers, with_context
from triggers.exceptions import (
    ConfigurationError,
    InvalidNameError,
    InvalidValueError,
    context_of,
)
from triggers.runners.inline import InlineRunner
from triggers.storages.memory import MemoryStorage
from triggers.task import task
from triggers.testing import TriggersHarness


def raised_in_a_block(context, make):
    with context.get_logger_context({"a": 1}):
        raise make


def raised_in_blocks(context, make):
    with context.get_logger_context({"a": 1}), context.get_logger_context({"b": 1}):
        raise make


def raised_outside(context, make):
    raise make


def raised_with_context(context, make):
    with context.get_logger_context():
        raise with_context(make(), {"score": 1})


async def raised_in_a_coroutine(context, make):
    raise make


WAYS = [raised_in_a_block, raised_in_blocks, raised_outside, raised_with_context, raised_in_a_coroutine]


@pytest.fixture
def tasks():
    return Registry()


@pytest.fixture
def session(tasks):
    with TriggersHarness(registry=tasks, allow_failures=True) as harness:
        yield harness.session("s")


def run(session, tasks, function):
    task(name="bad", registry=tasks)(function)
    session.update_configuration({"t": {"after": ["go"], "run": "bad"}})
    undisturbed(lambda: session.fire("go"))
    return session.storage["t#0"]


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("way", WAYS)
def test_a_hostile_exception_is_the_error_of_its_instance(session, tasks, name, way):
    """However it leaves the task: its type is recorded, and nothing else is raised in its place.

    Looked at, in all of the package: `type(x).__name__`, `__qualname__` and `__module__`; `x.__class__`, and
    `isinstance` of exceptions, which asks for it; `str`, `repr`, `bool`, `len` and formatting of values, exceptions
    and connections that are the application's; `hash` of types; the state, traceback, cause and notes of exceptions.
    Guarded by this: the logger of a block and the block itself, `with_context`, `Retry`, how a run ends, Celery's
    question for a stop, the codec of values, and the messages about names, configurations, connections and
    results. Left as they are: a connection or a URL is asked for its class, since proxies of connections answer for
    what they stand for; and the standard library's logging, which cannot print all of these.
    """
    failed = run(session, tasks, lambda context: way(context, HOSTILE[name]))
    assert (failed.status, failed.error["type"]) == ("failed", name)


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_exception_may_be_a_cause(session, tasks, name):
    """Of an error, and of a retry, which is made all the same."""

    def bad(context):
        if not context.task_instance.depth:
            raise context.retry(HOSTILE[name]())
        message = "because"
        raise ValueError(message) from HOSTILE[name]()

    run(session, tasks, bad)
    assert session.storage["t#0"].status == "replayed"
    assert session.storage["t#0"].error["type"] == name
    assert session.storage["t#1"].error["type"] == "ValueError"
    assert session.storage["t#1"].error["cause"]["type"] == name


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_exception_can_be_logged(session, tasks, name):
    """As the exception of a record, as its message, and as an argument; the task goes on."""

    def bad(context):
        with context.get_logger_context() as logger:
            logger.error("as exc_info", exc_info=HOSTILE[name]())
            logger.error(HOSTILE[name]())
            logger.error(
                "as argument: %s", HOSTILE[name](), context={"value": HOSTILE[name](), "kind": HOSTILE[name]}
            )
        return {"said": 3}

    finished = run(session, tasks, bad)
    assert (finished.status, finished.result) == ("finished", {"said": 3})


@pytest.mark.parametrize("levelno", ["high", None, 10**30, [1]])
def test_a_record_with_a_wrong_level_is_taken(session, tasks, levelno):
    """A LogRecord that the application made, or one of a logger that is captured, never raises into the task."""

    def bad(context):
        record = logging.makeLogRecord({"name": "other", "msg": "hello", "levelno": levelno})
        with context.get_logger_context(capture=["other"]) as logger:
            logger.handle(record)
            logger.capture(record)
        return {}

    assert run(session, tasks, bad).status == "finished"


@pytest.mark.parametrize("name", HOSTILE)
def test_context_is_given_to_any_exception(name):
    """The very same exception comes back, with its context."""
    exc = HOSTILE[name]()
    given = undisturbed(lambda: with_context(exc, {"score": 1}))
    assert (given is exc, undisturbed(lambda: context_of(exc))) == (True, {"score": 1})


def test_a_context_of_hostile_types_can_be_pickled():
    """The name of a type that answers nothing stands in the place of its instances."""
    exc = with_context(
        ValueError("spam"), {"what": HOSTILE["ByKindError"](), "how": [HOSTILE["ByTextError"]()]}
    )
    again = context_of(pickle.loads(pickle.dumps(exc)))  # noqa: S301 - as above
    assert again == {
        "what": "<tests.scenarios.hostile.ByKindError>",
        "how": ["<tests.scenarios.hostile.ByTextError>"],
    }


def refused(call, error):
    try:
        call()
    except error:
        return True
    return False


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_object_is_refused_in_words_of_ours(name):
    """Wherever an application may give one by mistake; nothing that it raises comes through."""
    given = HOSTILE[name]()
    with Triggers(MemoryStorage(), runner=InlineRunner(), registry=Registry()) as triggers:
        session = triggers.session("s")
        for call, error in (
            (lambda: triggers.session(given), InvalidNameError),
            (lambda: session.fire(given), InvalidNameError),
            (lambda: session.fire("go", given), InvalidValueError),
            (lambda: session.fire("go", {"a": [given]}), InvalidValueError),
            (lambda: session.fire("go", {"a": [HOSTILE[name]]}), InvalidValueError),
            (
                lambda: session.fire("go", {"a": {given}} if name != "ByTextError" else {"a": given}),
                InvalidValueError,
            ),
            (lambda: session.fire("go", {"a": 1}, key=given), InvalidNameError),
            (lambda: session.update_configuration(given), ConfigurationError),
            (lambda: session.update_configuration({"t": given}), ConfigurationError),
            (lambda: session.update_configuration({"t": {"after": ["a"], "run": given}}), ConfigurationError),
            (lambda: session.update_session_metadata(given), InvalidValueError),
            (lambda: Triggers("memory://", lease=given), ValueError),
            (lambda: task(given), Exception),
        ):
            assert undisturbed(lambda call=call, error=error: refused(call, error))


@pytest.mark.parametrize("name", PRINTABLE)
def test_a_hook_that_raises_a_hostile_exception_harms_nothing(tasks, name):
    """What the hook was told of is stored, and the task that fired ends as it would."""

    class Manager(TriggerManager):
        def _post_fire(self, trigger, tasks_scheduled):
            if trigger == "t":
                raise HOSTILE[name]

    task(name="bad", registry=tasks)(lambda context: {"done": True})
    with Triggers(MemoryStorage(), runner=InlineRunner(), registry=tasks, manager=Manager) as triggers:
        session = triggers.session("s")
        session.update_configuration({"t": {"after": ["go"], "run": "bad"}})
        undisturbed(lambda: session.fire("go"))
        assert session.storage["t#0"].result == {"done": True}
