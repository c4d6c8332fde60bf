"""The suite for runners sees what it is there to see: each way to break a promise makes a named test fail."""

from __future__ import annotations

import pytest

pytest_plugins = ["pytester"]

SUITE = """
import os
import time
import pytest
from triggers.runners.threads import ThreadsRunner
from triggers.testing.conformance import runners as runner_conformance

runner_conformance.TIMEOUT = TIMEOUT_OF_TEST


class Sound(ThreadsRunner):
    pass


class Blocking(ThreadsRunner):
    def submit(self, due):
        while len(self._hints) > 5:
            time.sleep(0.01)
        super().submit(due)


class Forgetful(ThreadsRunner):
    def submit(self, due):
        due.task != "t_3" and super().submit(due)

    def start(self, work):
        super().start(work)
        pull = work.pull
        work.pull = lambda limit: [due for due in pull(limit) if due.task != "t_3"]


class Hasty(ThreadsRunner):
    def close(self, timeout):
        return super().close(0) or True


class Undead(ThreadsRunner):
    def submit(self, due):
        self._work.run(due.uid, due.task, due.number) if self._closed else super().submit(due)


class Childless(ThreadsRunner):
    def after_fork(self):
        if hasattr(self, "_threads"):
            self._closed = True
        else:
            super().after_fork()


class Stubborn(ThreadsRunner):
    def close(self, timeout):
        return super().close(None)


class TestRunner(runner_conformance.RunnerConformance):
    many = 24

    @pytest.fixture
    def runner(self):
        return KIND(workers=2, hints=8)
"""


@pytest.fixture
def failing(pytester):
    """Runs the suite on a runner of that kind and returns the names of the tests that fail."""

    def failing(kind, wanted, timeout):
        pytester.makepyfile(SUITE.replace("KIND", kind).replace("TIMEOUT_OF_TEST", str(timeout)))
        result = pytester.runpytest("-p", "no:cacheprovider", "-p", "no:xdist", "-rf", "-q", "-k", wanted)
        outcomes = result.parseoutcomes()
        assert outcomes.get("errors", 0) == 0
        assert outcomes.get("passed", 0) + outcomes.get("failed", 0) > 0
        found = [line.split("::")[2].split()[0] for line in result.outlines if line.startswith("FAILED")]
        return {name.partition("[")[0] for name in found}

    return failing


@pytest.mark.parametrize(
    ("kind", "broken"),
    [
        ("Blocking", "test_submit_returns_at_once"),
        ("Forgetful", "test_more_instances_than_hints_run"),
        ("Hasty", "test_close_waits_for_what_runs"),
        ("Undead", "test_nothing_runs_after_close"),
        ("Childless", "test_a_forked_process_has_a_runner"),
        ("Stubborn", "test_close_returns_after_its_timeout"),
    ],
)
def test_a_broken_promise_is_seen(failing, kind, broken):
    """The test of the promise that a runner breaks fails for it."""
    assert failing(kind, broken, timeout=0.3) == {broken}


def test_a_sound_runner_passes(failing):
    """The same suite, on the same terms, passes for a runner that breaks nothing."""
    assert failing("Sound", "test_", timeout=60) == set()
