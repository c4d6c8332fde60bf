"""The inline runner keeps the promises of every runner, and runs everything before the call returns."""

from __future__ import annotations

import sys
import threading

import pytest

from triggers import Registry, Triggers
from triggers.runners.inline import InlineRunner
from triggers.task import task
from triggers.testing.conformance.runners import RunnerConformance


class TestInlineRunner(RunnerConformance):
    synchronous = True
    many = 30

    @pytest.fixture
    def runner(self):
        return InlineRunner()


@pytest.fixture
def tasks():
    return Registry()


def test_a_cascade_nests_no_calls(tasks):
    """A chain longer than Python's stack runs, since each instance starts when the one before it has ended."""
    depths = []

    @task(name="deep", registry=tasks)
    def deep(context):
        depths.append(len(_frames()))

    length = 60
    with Triggers("memory://", runner="inline", registry=tasks) as triggers:
        session = triggers.session("s")
        session.update_configuration(
            {f"t_{n + 1}": {"after": [f"t_{n}"], "run": "deep"} for n in range(length)}
        )
        session.fire("t_0")
    assert len(depths) == length
    assert depths[-1] == depths[1]


def _frames():
    frame, found = sys._getframe(), []
    while frame:
        found.append(frame)
        frame = frame.f_back
    return found


def test_each_thread_runs_its_own(tasks):
    """What a thread fires runs in that thread, while another thread is in the midst of a task."""
    ran_in = {}
    inside, leave = threading.Event(), threading.Event()

    @task(name="who", registry=tasks)
    def who(context):
        name = context.task_instance.task
        if name == "t_slow":
            inside.set()
            assert leave.wait(60)
        ran_in[name] = threading.current_thread()

    with Triggers("memory://", runner="inline", registry=tasks) as triggers:
        session = triggers.session("s")
        session.update_configuration(
            {f"t_{name}": {"after": [name], "run": "who"} for name in ("slow", "quick")}
        )
        other = threading.Thread(target=session.fire, args=("slow",))
        other.start()
        assert inside.wait(60)
        session.fire("quick")
        assert ran_in == {"t_quick": threading.current_thread()}
        leave.set()
        other.join(60)
    assert ran_in["t_slow"] is other


def test_an_interrupt_reaches_the_caller(tasks):
    """KeyboardInterrupt in a task fails its instance and is raised to whoever fired; the rest waits for the sweep."""

    @task(name="interrupt", registry=tasks)
    def interrupt(context):
        raise KeyboardInterrupt

    task(name="next", registry=tasks)(lambda context: None)
    with Triggers("memory://", runner="inline", registry=tasks) as triggers:
        session = triggers.session("s")
        session.update_configuration(
            {"t_a": {"after": ["go"], "run": "interrupt"}, "t_b": {"after": ["go"], "run": "next"}}
        )
        with pytest.raises(KeyboardInterrupt):
            session.fire("go")
        assert session.storage["t_a#0"].error["type"] == "KeyboardInterrupt"
        assert session.storage["t_b#0"].status == "scheduled"
        session.fire("unrelated")
        assert session.storage["t_b#0"].status == "scheduled"
