"""A failure that another process than its worker decides is logged once, too, by the process that decides.

The others with the same cause are in test_failures_are_seen.py.
"""

from __future__ import annotations

import logging
from datetime import timedelta

import pytest

from tests.scenarios import failing
from tests.scenarios.failing import assert_seen_once, errors, failing_tasks
from triggers import Triggers
from triggers.core import decisions
from triggers.storages.memory import MemoryStorage
from triggers.testing import VirtualClock

#: The worker has less time than this to renew its expired claim.
TRIAL = timedelta(microseconds=decisions.TRIAL, seconds=1)


@pytest.fixture
def tasks():
    return failing_tasks()


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def two(tasks, clock):
    """Two processes with one storage: neither runs anything by itself."""
    storage = MemoryStorage(clock=clock)
    return [Triggers(storage, runner=None, registry=tasks) for _ in range(2)]


def claimed(app, label=""):
    """A session whose instance was claimed by a process that then died; its first crash is the last."""
    session = app.session("s")
    session.update_configuration({"t_plain": {"after": ["plain"], "run": "plain"}})
    session.fire("plain")
    terms = decisions.Terms(lease=1, crash_budget=1)
    owner = decisions.labelled(decisions.alone("gone"), label)
    app.storage.commit("s", decisions.claim(session.policy, "t_plain", 0, owner, lambda *_: terms))
    return session.storage


def test_a_lost_worker_is_logged_by_the_process_that_finds_it(two, clock, caplog):
    """On the task's own logger, and in the commit that fails the instance; other sweeps find nothing to say."""
    view = claimed(two[0])
    for pause in (timedelta(seconds=1), TRIAL):
        clock.advance(pause)
        for app in two:
            app.sweep()
    record, _ = assert_seen_once(caplog, view, "t_plain#0", "WorkerLost")
    assert record.name == failing.__name__


def test_a_worker_that_is_known_to_be_dead_is_logged(two, caplog):
    """A runner that is told so, by its label, does not wait for the sweep."""
    view = claimed(two[0], "m1")
    assert [app.lose("s", "t_plain", 0, "m1") for app in two] == [True, False]
    assert_seen_once(caplog, view, "t_plain#0", "WorkerLost")


@pytest.mark.parametrize("label", ["m1", "m2"])
def test_what_a_runner_takes_back_is_logged(two, caplog, label):
    """With the error that the runner gives; nothing where the message is of another claim."""
    view = claimed(two[0], "m1")
    aborted = [app.abort("s", "t_plain", 0, label, TimeoutError("too long")) for app in two]
    if label == "m2":
        assert aborted == [False, False]
        assert errors(caplog) == []
        return
    assert aborted == [True, False]
    assert_seen_once(caplog, view, "t_plain#0", "TimeoutError")


def test_a_crash_that_is_not_the_last_is_no_error(two, clock, caplog):
    """The instance runs again: a warning of the sweep, and no record of the instance."""
    session = two[0].session("s")
    session.update_configuration({"t_plain": {"after": ["plain"], "run": "plain"}})
    session.fire("plain")
    two[0].storage.commit(
        "s", decisions.claim(session.policy, "t_plain", 0, "gone", lambda *_: decisions.Terms(lease=1))
    )
    clock.advance(timedelta(seconds=1))
    two[0].sweep()
    assert session.storage["t_plain#0"].status == "scheduled"
    assert (errors(caplog), session.storage["t_plain#0"].current_log_level) == ([], logging.NOTSET)
