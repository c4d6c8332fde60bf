"""Assertions about sessions: they pass when it is so, and say why when it is not."""

from __future__ import annotations

from datetime import timedelta

import pytest

from triggers import FinalizingTriggerManager, Registry, Triggers, with_context
from triggers.task import task
from triggers.testing import Faults, InjectedCrash, SessionAssertions, TriggersHarness
from triggers.testing.clock import START

tasks = Registry()


@task(name="spam.Check", registry=tasks)
def check_spam(context):
    with context.get_logger_context({"app": 3}) as logger:
        logger.warning("Odd %s", "words", context={"words": ["viagra"]})
        raise with_context(ValueError("Response data failed spam check."), {"spam_score": 9.5})


@task(name="warn", registry=tasks)
def warn(context):
    with context.get_logger_context() as logger:
        logger.warning("Something is odd.")
    return {"n": 1, "pair": [1, 2]}


CONFIGURATION = {
    "t_fail": {"after": ["begun"], "run": "spam.Check"},
    "t_warn": {"after": ["begun"], "run": "warn"},
    "t_wait": {"after": ["begun", "never"], "run": "warn"},
    "t_after_fail": {"after": ["t_fail"], "run": "warn"},
    "t_veto": {"after": ["begun", "never"], "unless": ["begun"], "run": "warn"},
    "t_retry": {
        "after": ["begun"],
        "run": "triggers.testing.SelfRetrying",
        "withParams": {"retrying": {"cooldown": 60}},
    },
    "t_skip": {"after": ["begun"], "run": "triggers.testing.SelfSkipping"},
}


@pytest.fixture
def session():
    options = {"manager": FinalizingTriggerManager, "allow_failures": True}
    with TriggersHarness(registry=tasks, **options) as harness:
        session = harness.session("respondent-17")
        session.update_configuration(CONFIGURATION)
        session.fire("begun", {"page": 1})
        yield session


@pytest.fixture
def check(session):
    return SessionAssertions(session)


STATUSES = {
    "finished": "t_warn#0",
    "failed": "t_fail#0",
    "unstarted": "t_wait#0",
    "abandoned": "t_veto#0",
    "replayed": "t_retry#0",
    "scheduled": "t_retry#1",
    "skipped": "t_skip#0",
}


@pytest.mark.parametrize("status", [*STATUSES, "running"])
def test_each_status_has_its_assertion(check, status):
    """The assertion of a status returns an instance in it, and fails for every other one and names both statuses."""
    holds = getattr(check, f"assert_instance_{status}")
    for there, name in STATUSES.items():
        if there == status:
            assert holds(name).name == name
            continue
        with pytest.raises(AssertionError) as failed:
            holds(name)
        assert f"{name} of session 'respondent-17' is {there}, but should be {status}" in str(failed.value)


def test_a_running_instance_is_running():
    """An instance is seen as running from within itself."""
    seen = []
    own = Registry()
    task(name="look", registry=own)(
        lambda context: seen.append(
            SessionAssertions(context.manager).assert_instance_running("t_look#0").name
        )
    )
    with TriggersHarness(registry=own) as harness:
        session = harness.session("s")
        session.update_configuration({"t_look": {"after": ["begun"], "run": "look"}})
        session.fire("begun")
        harness.check(session).assert_instance_finished("t_look#0")
    assert seen == ["t_look#0"]


def test_results_are_compared_as_they_come_back(check):
    """A result is compared as a whole, whatever the order of its keys; another one is shown beside the expected one."""
    check.assert_instance_finished("t_warn#0", {"n": 1, "pair": [1, 2]})
    check.assert_instance_finished("t_warn#0", expected_result={"pair": [1, 2], "n": 1})
    with pytest.raises(
        AssertionError, match=r"(?s)has finished with\n.*'n': 1.*should have finished with\n.*'n': 2"
    ):
        check.assert_instance_finished("t_warn#0", {"n": 2})
    with pytest.raises(AssertionError, match="should have finished with"):
        check.assert_instance_finished("t_warn#0", None)


def test_no_result_is_an_empty_one():
    """A task that returns nothing has finished with None, and with {}."""
    own = Registry()
    task(name="nothing", registry=own)(lambda context: None)
    with TriggersHarness(registry=own) as harness:
        session = harness.session("s")
        session.update_configuration({"t_x": {"after": ["begun"], "run": "nothing"}})
        session.fire("begun")
        harness.check(session).assert_instance_finished("t_x#0", None)
        harness.check(session).assert_instance_finished("t_x#0", {})


@pytest.mark.parametrize("kind", [ValueError, "ValueError", "builtins.ValueError", None])
def test_a_failure_has_a_type(check, kind):
    """The type is given as itself, by name, by qualified name, or not at all."""
    assert check.assert_instance_failed("t_fail#0", kind, match="spam .heck").error["type"] == "ValueError"


def test_a_failure_of_another_type_is_another_failure(check):
    """Another type, a base class, too, or another message is an error that says what was found."""
    with pytest.raises(
        AssertionError,
        match=r"failed with builtins.ValueError, but should have failed with builtins.Exception",
    ):
        check.assert_instance_failed("t_fail#0", Exception)
    with pytest.raises(
        AssertionError, match=r"failed with builtins.ValueError, but should have failed with LookupError"
    ):
        check.assert_instance_failed("t_fail#0", "LookupError")
    with pytest.raises(
        AssertionError, match=r"(?s)'Response data failed spam check.'.*does not match\n  'ham'"
    ):
        check.assert_instance_failed("t_fail#0", match="ham")


def test_a_message_tells_the_story_of_the_instance(check):
    """It has status, history, kwargs, the error with context and traceback, why it is so, and the log with contexts."""
    with pytest.raises(AssertionError) as failed:
        check.assert_instance_finished("t_fail#0")
    message = str(failed.value)
    for told in (
        "status: failed, attempt 1",
        "2026-01-01 00:00:00+00:00 running claimed by ",
        "{'begun': {'page': 1}}",
        "why: t_fail has 1 failed instance",
        "Replay or skip t_fail#0 to continue",
        "error: ValueError: Response data failed spam check.",
        "{'spam_score': 9.5}",
        "Traceback (most recent call last):",
        "in check_spam",
        "log: 2 records",
        f"WARNING {__name__}: Odd words",
        "'words': ['viagra']",
        "'app': 3",
    ):
        assert told in message


def test_a_message_says_why_an_instance_waits(check):
    """For an unstarted instance it says which triggers it lacks; for one without records, that there are none."""
    with pytest.raises(AssertionError) as failed:
        check.assert_instance_finished("t_wait#0")
    assert "why: t_wait has 1 unstarted instance. t_wait#0 waits for never" in str(failed.value)
    assert "log: nothing" in str(failed.value)


def test_long_logs_are_cut():
    """Of very many records the latest ones are shown, and all are counted."""
    own = Registry()

    @task(name="chat", registry=own)
    def chat(context):
        with context.get_logger_context() as logger:
            for number in range(230):
                logger.info("word %d.", number)

    with TriggersHarness(registry=own) as harness:
        session = harness.session("s")
        session.update_configuration({"t_x": {"after": ["begun"], "run": "chat"}})
        session.fire("begun")
        story = harness.check("s").describe("t_x#0")
    assert "log: 230 records, of which the last 50 are shown" in story
    assert "word 229." in story
    assert "word 180." in story
    assert "word 179." not in story


def test_an_instance_that_is_not_there(check):
    """A missing instance is found missing; where it should be there, the message explains its task and lists the rest."""
    check.assert_instance_missing("t_after_fail#0")
    with pytest.raises(
        AssertionError, match="t_fail#0 of session 'respondent-17' is failed, but should not exist"
    ):
        check.assert_instance_missing("t_fail#0")
    with pytest.raises(AssertionError) as failed:
        check.assert_instance_finished("t_after_fail#0")
    message = str(failed.value)
    assert "has no instance 't_after_fail#0', which should be finished" in message
    assert "t_after_fail has no instance yet" in message
    assert "t_fail#0 is failed" in message
    with pytest.raises(AssertionError, match="has no instance 't_nobody#0', which should be skipped"):
        check.assert_instance_skipped("t_nobody#0")


def test_an_empty_session_is_said_to_be_empty():
    """In a session without instances the message says that there are none."""
    with TriggersHarness() as harness, pytest.raises(AssertionError, match="the session has no instances"):
        harness.check("nobody").assert_instance_finished("t_x#0")


def test_unresolved_tasks(check):
    """The unresolved tasks are compared in any order; a difference is shown with the reason why each is open."""
    check.assert_unresolved_tasks(["t_retry", "t_wait", "t_fail", "t_after_fail"])
    with pytest.raises(AssertionError) as failed:
        check.assert_unresolved_tasks(["t_wait", "t_skip", "t_nobody"])
    message = str(failed.value)
    assert (
        "unresolved tasks of session 'respondent-17' are\n  t_after_fail, t_fail, t_retry, t_wait\nbut should be"
        in message
    )
    assert "why: t_fail has 1 failed instance" in message
    assert "why: t_skip has 1 skipped instance" in message
    assert "t_nobody is not a task of this session" in message
    assert "t_wait#0 waits" not in message


def test_unresolved_instances(check):
    """The unresolved instances are compared in any order; a difference is shown with the description of each."""
    check.assert_unresolved_instances(["t_wait#0", "t_fail#0", "t_retry#1"])
    with pytest.raises(AssertionError) as failed:
        check.assert_unresolved_instances(["t_wait#0", "t_warn#0", "t_warn#7"])
    message = str(failed.value)
    assert "t_fail#0:\n  status: failed" in message
    assert "t_warn#0:\n  status: finished" in message
    assert "t_warn#7 does not exist" in message
    assert "t_wait#0:" not in message


def test_unresolved_logs(check, session):
    """Instances with records that ask for a review are compared; a difference is shown with their logs."""
    check.assert_unresolved_logs(["t_fail#0", "t_warn#0"])
    check.assert_unresolved_logs(["t_fail#0"], min_level=40)
    with pytest.raises(AssertionError, match=r"(?s)at WARNING or above of .*but should be\n  none") as failed:
        check.assert_no_unresolved_logs()
    assert "Something is odd." in str(failed.value)
    session.mark_instance_logs_resolved("t_warn#0")
    session.mark_instance_logs_resolved("t_fail#0")
    check.assert_no_unresolved_logs()


def test_finalising(check, session):
    """A failure says that the session is not finalized and why, or that it is."""
    check.assert_not_finalized()
    with pytest.raises(
        AssertionError, match=r"(?s)is not finalized, but should be\n.*t_wait#0 waits for never"
    ):
        check.assert_finalized()
    with TriggersHarness(manager=FinalizingTriggerManager) as harness:
        done = harness.session("done")
        done.update_configuration({"t_x": {"after": ["begun"], "run": "triggers.testing.PassThrough"}})
        done.fire("begun")
        harness.check(done).assert_finalized()
        with pytest.raises(AssertionError, match="is finalized, but should not be"):
            harness.check(done).assert_not_finalized()


def test_any_session_of_any_storage_will_do(tmp_path):
    """Assertions take a manager or a view of a session in a file that threads work on."""
    own = Registry()
    task(name="do", registry=own)(lambda context: {"done": True})
    with Triggers(f"sqlite:///{tmp_path}/s.db", registry=own) as triggers:
        session = triggers.session("s")
        session.update_configuration({"t_x": {"after": ["begun"], "run": "do"}})
        session.fire("begun")
        assert triggers.join(10)
        SessionAssertions(session).assert_instance_finished("t_x#0", {"done": True})
        SessionAssertions(session.storage).assert_instance_finished("t_x#0", {"done": True})


def test_crashes_are_told():
    """The story of an instance counts its crashes."""
    faults = Faults()
    with TriggersHarness(faults=faults) as harness:
        session = harness.session("s")
        session.update_configuration({"t_x": {"after": ["begun"], "run": "triggers.testing.PassThrough"}})
        faults.die_at("after commit of claim")
        with pytest.raises(InjectedCrash):
            session.fire("begun")
        harness.restart()
        harness.run_until_idle()
        assert "status: finished, attempt 2, 1 crash\n" in harness.check("s").describe("t_x#0")


def test_timers():
    """The message lists the timers that are set, and tells the story of an instance that should have one."""
    with TriggersHarness() as harness:
        session = harness.session("s")
        check = harness.check(session)
        check.assert_no_timers()
        with pytest.raises(
            AssertionError, match=r"session 's' has no timer 'x', but should have one; its timers:\n  none$"
        ):
            check.assert_timer("x")
        session.update_configuration(
            {"t_x": {"after": ["a"], "delay": "PT1H", "run": "triggers.testing.PassThrough"}}
        )
        session.fire("a")
        session.fire_later("b", {"n": 1}, after=60, name="soon")
        assert check.assert_timer("soon", at=START + timedelta(minutes=1)).kwargs == {"n": 1}
        assert check.assert_timer("t_x#0").kind == "delay"
        with pytest.raises(
            AssertionError, match=r"'t_x#0', which should be due at 2026-01-01 00:00:00\+00:00"
        ):
            check.assert_timer("t_x#0", at=START)
        with pytest.raises(AssertionError) as found:
            check.assert_no_timers()
        assert str(found.value).splitlines() == [
            "session 's' should have no timers; its timers:",
            "  2026-01-01 00:01:00+00:00 'soon' fires 'b'",
            "  2026-01-01 01:00:00+00:00 delay of t_x#0",
        ]
        harness.advance(timedelta(hours=1))
        with pytest.raises(
            AssertionError, match=r"no timer 't_x#0'[\s\S]*its timers:\n  none\n  status: finished"
        ):
            check.assert_timer("t_x#0")


def test_a_timer_that_was_put_aside():
    """It will not elapse, so the assertion fails, and says why."""
    with TriggersHarness() as harness:
        session = harness.session("s")
        session.fire_later("t_x:failed", after=60, name="bad")
        passing = "triggers.testing.PassThrough"
        session.update_configuration(
            {"t_x": {"after": ["a"], "run": passing}, "t_y": {"after": ["t_x:failed"], "run": passing}}
        )
        harness.advance(timedelta(minutes=2))
        with pytest.raises(
            AssertionError, match=r"'bad', which should elapse[\s\S]*put aside: 't_x:failed' is an outcome"
        ):
            harness.check(session).assert_timer("bad")
