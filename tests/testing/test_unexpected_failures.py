"""A test in which a task fails does not pass unless it expects that.

The same cause, a test that passes although something went wrong, was looked for in: errors of logging
(`strict_logs`, test_harness.py), a `run` that is not registered (`complete_registry`, test_harness.py), the fixture
for pytest (test_plugin.py), and `play`, which compares errors itself (test_play.py).
"""

from __future__ import annotations

import pytest

from triggers.storages.sqlite import SqliteStorage
from triggers.testing import Faults, InjectedCrash, TriggersHarness

FAILING = "triggers.testing.Failing"


@pytest.fixture(params=["memory", "sqlite"])
def storage(request, tmp_path):
    """A function that makes a storage for a harness; None for the one in memory."""
    url = f"sqlite:///{tmp_path}/s.db?synchronous=normal"
    return None if request.param == "memory" else lambda clock: SqliteStorage(url, clock=clock)


def block(*steps, **options):
    """A block of a harness, in which each step is called with the harness."""
    with TriggersHarness(**options) as harness:
        for step in steps:
            step(harness)


def fail_in(*uids):
    """The step in which an instance fails in each of these sessions."""

    def step(harness):
        for uid in uids:
            session = harness.session(uid)
            session.update_configuration({"t_fail": {"after": ["begun"], "run": FAILING}})
            session.fire("begun", {"n": 1})

    return step


def test_a_failure_that_nobody_expects_fails_the_test(storage):
    """The end of the block raises, with the whole story of each failed instance of every session."""
    with pytest.raises(AssertionError) as told:
        block(fail_in("one", "two"), storage=storage)
    message = str(told.value)
    assert message.startswith("2 failed, which the test does not expect")
    for uid in ("one", "two"):
        assert f"t_fail#0 of session '{uid}':" in message
    assert message.count("error: FailingError: This task always fails.") == 2
    assert "{'begun': {'n': 1}}" in message


def test_an_asserted_failure_is_expected(storage):
    """Only the instance that was asserted, in that session, is expected."""

    def expect(harness):
        harness.check("one").assert_instance_failed("t_fail#0", "FailingError")

    block(fail_in("one"), expect, storage=storage)
    with pytest.raises(AssertionError, match=r"^1 failed") as told:
        block(
            fail_in("three", "two"),
            fail_in("one"),
            expect,
            lambda h: h.session("three").skip_failed_instance("t_fail#0"),
        )
    assert "session 'two'" in str(told.value)


def test_a_failure_with_another_error_is_not_expected():
    """An assertion that does not hold does not make the failure an expected one."""

    def expect_another(harness):
        with pytest.raises(AssertionError, match="should have failed with"):
            harness.check("one").assert_instance_failed("t_fail#0", KeyError)

    with pytest.raises(AssertionError, match=r"^1 failed"):
        block(fail_in("one"), expect_another)


def test_failures_can_be_allowed():
    """A call during the block and an option have the same effect."""
    block(fail_in("one"), TriggersHarness.allow_failures)
    block(fail_in("one"), allow_failures=True)


def test_a_failure_that_was_handled_is_no_failure(storage):
    """An instance that was skipped is not failed any more."""
    block(
        fail_in("one"),
        lambda harness: harness.session("one").skip_failed_instance("t_fail#0"),
        storage=storage,
    )


def test_an_error_of_the_test_itself_comes_first():
    """If the block ends with an exception, that exception is raised, and failures are not checked."""
    with pytest.raises(ZeroDivisionError):
        block(fail_in("one"), lambda _: 1 / 0)


def test_many_failures_are_listed():
    """The first ones are described; the others are named."""
    with pytest.raises(AssertionError) as told:
        block(fail_in(*(f"s{number:02}" for number in range(12))))
    assert str(told.value).count("error: FailingError") == 10
    assert str(told.value).endswith("t_fail#0 of session 's10'\nt_fail#0 of session 's11'")


def test_a_crash_hides_no_failure(storage):
    """A process that died before the end of the block, and was not restarted, is no excuse."""
    faults = Faults()

    def die(harness):
        faults.die_at("before commit of fire")
        with pytest.raises(InjectedCrash):
            harness.session("one").fire("begun")

    with pytest.raises(AssertionError, match=r"^1 failed"):
        block(fail_in("one"), TriggersHarness.restart, die, storage=storage, faults=faults)
