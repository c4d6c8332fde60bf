"""What tests of tasks do from end to end, besides what the harness does."""

from __future__ import annotations

import threading

import pytest

from triggers.testing import InjectedCrash


def runs(name, after="go", **more):
    """A configuration of one task, ``t_<name>``, that runs the task of that name."""
    return {f"t_{name}": {"after": [after], "run": name, **more}}


def crash_at_work(faults, step, harness):
    """Let the process die in the midst of a task."""
    faults.die_at("before commit of finish")
    with pytest.raises(InjectedCrash):
        step()
    harness.restart()


def until(holds):
    """Wait for what another thread does and tells nobody about."""
    waiting = threading.Event()
    for _ in range(3_000):
        if holds():
            return True
        waiting.wait(0.01)
    return False


def raise_(error):
    """Raise an error where only an expression can be written, as in a lambda."""
    raise error
