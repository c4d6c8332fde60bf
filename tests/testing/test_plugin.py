"""The plugin for pytest: installed with the library, cheap to load, and its fixtures work as the how-to page says."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

pytest_plugins = ["pytester"]

ROOT = Path(__file__).parents[2]

#: What only some tests need, and `triggers.testing` must not load for all of them.
HEAVY = (
    "hypothesis",
    "sqlite3",
    "pysqlite3",
    "triggers.storages.sqlite",
    "triggers.testing.conformance.strategies",
    "triggers.testing.conformance.machine",
    "triggers.testing.conformance",
    "triggers.testing.conformance.runners",
)


@pytest.fixture
def run(pytester):
    """Runs pytest on a test module, in this process; the plugin is found as it is installed."""

    def run(text, *args):
        pytester.makepyfile(text)
        return pytester.runpytest("-p", "no:cacheprovider", "-p", "no:xdist", *args)

    return run


def test_the_harness_is_a_fixture(run):
    """A test gets a harness; the next test gets another one, and the first is closed."""
    run(
        """
        seen = []

        def test_one(triggers_harness):
            seen.append(triggers_harness)
            session = triggers_harness.session("s")
            session.update_configuration({"t_x": {"after": ["a"], "run": "triggers.testing.PassThrough"}})
            session.fire("a")
            triggers_harness.check("s").assert_instance_finished("t_x#0")

        def test_two(triggers_harness):
            assert triggers_harness is not seen[0]
            assert not triggers_harness.session("s").storage.exists
            session = seen[0].session("s")
            session.fire("a", key="after the end")
            session.update_configuration({"t_y": {"after": ["b"], "run": "triggers.testing.PassThrough"}})
            session.fire("b")
            seen[0].check("s").assert_instance_scheduled("t_y#0")
        """
    ).assert_outcomes(passed=2)


def test_clock_and_faults_are_those_of_the_harness(run):
    """The fixtures that are named after its parts are its parts."""
    run(
        """
        from datetime import timedelta
        import pytest
        from triggers.testing import InjectedCrash

        def test_parts(triggers_clock, triggers_faults, triggers_harness):
            before = triggers_clock.time
            triggers_harness.advance(timedelta(days=1))
            assert triggers_clock.time - before == timedelta(days=1)
            triggers_faults.die_at("after commit of fire")
            with pytest.raises(InjectedCrash):
                triggers_harness.session("s").fire("a")
            triggers_harness.restart()
            assert triggers_harness.session("s").storage.exists

        def test_a_clock_alone(triggers_clock):
            triggers_clock.advance(timedelta(seconds=1))
        """
    ).assert_outcomes(passed=2)


def test_options_are_a_fixture(run):
    """A module says which registry and which manager its harness has."""
    run(
        """
        import pytest
        from triggers import FinalizingTriggerManager, Registry
        from triggers.task import task

        tasks = Registry()
        task(name="mine", registry=tasks)(lambda context: {"n": 1})

        @pytest.fixture
        def triggers_harness_options():
            return {"registry": tasks, "manager": FinalizingTriggerManager}

        def test_mine(triggers_harness):
            session = triggers_harness.session("s")
            session.update_configuration({"t_x": {"after": ["a"], "run": "mine"}})
            session.fire("a")
            triggers_harness.check("s").assert_instance_finished("t_x#0", {"n": 1})
            triggers_harness.check("s").assert_finalized()
        """
    ).assert_outcomes(passed=1)


def test_an_unexpected_failure_fails_the_test(run):
    """The test itself fails, not its teardown; an asserted or allowed failure, or one of a failed test, adds nothing."""
    result = run(
        """
        import pytest

        @pytest.fixture
        def session(triggers_harness):
            session = triggers_harness.session("s")
            session.update_configuration({"t_x": {"after": ["a"], "run": "triggers.testing.Failing"}})
            session.fire("a")
            return session

        def test_unexpected(session):
            pass

        def test_asserted(session, triggers_harness):
            triggers_harness.check(session).assert_instance_failed("t_x#0")

        def test_allowed(session, triggers_harness):
            triggers_harness.allow_failures()

        def test_failed(session):
            assert session is None

        def test_none():
            pass
        """
    )
    result.assert_outcomes(passed=3, failed=2)
    result.stdout.fnmatch_lines(
        ["*1 failed, which the test does not expect*", "*error: FailingError: This task*"]
    )


def test_a_failure_points_at_the_test(run):
    """The traceback of a failed assertion ends in the test that made it, and the story follows."""
    result = run(
        """
        def test_it(triggers_harness):
            session = triggers_harness.session("s")
            session.update_configuration({"t_x": {"after": ["a"], "run": "triggers.testing.Failing"}})
            session.fire("a")
            triggers_harness.check("s").assert_instance_finished("t_x#0")
        """
    )
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        [
            '>       triggers_harness.check("s").assert_instance_finished("t_x#0")',
            "E       AssertionError: t_x#0 of session 's' is failed, but should be finished",
            "E         error: FailingError: This task always fails.",
            "test_a_failure_points_at_the_test.py:5: AssertionError",
        ]
    )
    result.stdout.no_fnmatch_line("*def assert_instance_status*")


def test_the_fixtures_are_listed(pytester):
    """`pytest --fixtures` tells what each is."""
    result = pytester.runpytest("--fixtures", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines_random(
        [
            f"{name} -- *"
            for name in ("triggers_clock", "triggers_faults", "triggers_harness", "triggers_harness_options")
        ]
    )


def test_what_tests_import_is_cheap_to_load():
    """A test module that imports `triggers.testing` loads nothing that only some tests need."""
    code = f"import sys, triggers.testing; print([m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "[]"


def test_the_tests_on_the_how_to_page_pass(run):
    """The page's blocks are a test module: the tests in it, which the page only defines, pass."""
    text = (ROOT / "docs" / "how-to" / "test-your-tasks.md").read_text("utf-8")
    blocks = [block.split("\n```", 1)[0] for block in text.split("```python\n")[1:]]
    some = "test_the_subject or test_a_submitted_instance_runs or test_a_decision_that_raises_changes_nothing"
    outcomes = run("\n\n".join(blocks), "-k", some).parseoutcomes()
    assert outcomes.keys() == {"passed", "deselected"}
    assert outcomes["passed"] == 3
