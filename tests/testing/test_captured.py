from __future__ import annotations

import logging

import pytest

from triggers import Registry, Triggers, with_context
from triggers.task import task
from triggers.testing import TriggersHarness, captured_logs


@pytest.fixture
def tasks():
    """A task that says two things and one that fails."""
    registry = Registry()

    @task(name="talk", registry=registry)
    def talk(context):
        with context.get_logger_context({"page": 3}) as logger:
            logger.info("Read")
            logger.warning("Missing %s", "age")

    @task(name="fail", registry=registry)
    def fail(context):
        with context.get_logger_context():
            raise with_context(ValueError("spam"), {"score": 0.9})

    return registry


CONFIGURATION = {"t_talk": {"after": ["go"], "run": "talk"}, "t_fail": {"after": ["go"], "run": "fail"}}


def test_what_tasks_say_is_collected(tasks):
    """Every record of every instance, with context and exception, and nothing from before or after."""
    with TriggersHarness(registry=tasks) as harness:
        session = harness.session("s")
        session.update_configuration(CONFIGURATION)
        with captured_logs() as outer:
            with captured_logs() as logs:
                session.fire("go")
            session.replay_failed_instance("t_fail#0")
        session.replay_failed_instance("t_fail#1")
        harness.check(session).assert_instance_failed("t_fail#2")
    assert sorted(logs.messages) == ["Missing age", "Read", "ValueError: spam"]
    assert [entry.context for entry in logs.of("t_talk#0")] == [{"page": 3}] * 2
    assert [entry.message for entry in logs.at_least(logging.ERROR)] == ["ValueError: spam"]
    assert logs.of("t_fail#0", "s")[0].exception["context"] == {"score": 0.9}
    assert logs.of("t_fail#0", "other") == []
    assert (len(logs), len(outer)) == (3, 4)
    assert outer[-1].message == outer[3:][0].message == "ValueError: spam"
    assert "s t_talk#0: 30 Missing age" in repr(logs)


def test_records_of_other_threads_are_collected(tasks):
    """A runner with threads makes no difference."""
    with Triggers("memory://", runner="threads", registry=tasks) as triggers, captured_logs() as logs:
        session = triggers.session("s")
        session.update_configuration(CONFIGURATION)
        session.fire("go")
        assert triggers.join(10)
    assert len(logs) == 3
