"""A chain of tasks that fire one another ends at `Limits.cascade_depth`, whatever way they fire.

The depth counts across sessions, for a firing, a replay, a skip, a configuration that catches up, and the
trigger that finalizes a session. It reaches managers from `Triggers.session`, coroutines, `afire`, hooks, threads with
`propagate` or with a copy of the context. For tasks that Celery runs, tests/runners/test_celery_runner.py shows the same.
"""

from __future__ import annotations

import asyncio
import contextvars
import threading
from contextvars import ContextVar

import pytest

from tests.scenarios.steps import runs
from triggers import FinalizingTriggerManager, Limits, Status, TriggerManager, deciding, propagate, task
from triggers.exceptions import CascadeDepthError
from triggers.testing import TriggersHarness

LIMIT = 10
#: A chain that nothing stops ends here, so that a test of a mutant ends.
BRAKE = 3 * LIMIT
OTHER = {"one": "two", "two": "one"}


def in_thread(function, *args):
    thread = threading.Thread(target=function, args=args)
    thread.start()
    thread.join()


def fire_here(triggers, context):
    context.manager.fire("go")


def fire_by_uid(triggers, context):
    triggers.session(context.manager.uid).fire("go")


def fire_there(triggers, context):
    triggers.session(OTHER[context.manager.uid]).fire("go")


async def fire_from_coroutine(triggers, context):
    fire_there(triggers, context)


async def fire_from_asyncio_task(triggers, context):
    other = triggers.session(OTHER[context.manager.uid])
    await asyncio.create_task(other.afire("go"))


def fire_from_thread(triggers, context):
    in_thread(context.manager.fire, "go")


def fire_from_propagated_thread(triggers, context):
    in_thread(propagate(triggers.session(OTHER[context.manager.uid]).fire), "go")


async def fire_from_propagated_coroutine(triggers, context):
    async def fire():
        triggers.session(OTHER[context.manager.uid]).fire("go")

    carried = propagate(fire)
    in_thread(lambda: asyncio.run(carried()))


def fire_from_copied_context(triggers, context):
    in_thread(contextvars.copy_context().run, triggers.session(OTHER[context.manager.uid]).fire, "go")


WAYS = [
    fire_here,
    fire_by_uid,
    fire_there,
    fire_from_coroutine,
    fire_from_asyncio_task,
    fire_from_thread,
    fire_from_propagated_thread,
    fire_from_propagated_coroutine,
    fire_from_copied_context,
]


def braked(tasks, fire, triggers):
    """Register a task that fires on, and return the list of its runs."""
    runs = []

    if asyncio.iscoroutinefunction(fire):

        @task(name="again", registry=tasks)
        async def again_async(context):
            runs.append(context.task_instance.name)
            if len(runs) < BRAKE:
                await fire(triggers(), context)

    else:

        @task(name="again", registry=tasks)
        def again(context):
            runs.append(context.task_instance.name)
            if len(runs) < BRAKE:
                fire(triggers(), context)

    return runs


def errors(triggers, *uids):
    """The types of the errors of all failed instances."""
    found = [instance.error for uid in uids for instance in triggers.session(uid).storage]
    return [error["type"] for error in found if error is not None]


def chain(tasks, fire, **settings):
    """Start two sessions whose tasks fire; return how many of them ran, and the errors of those that did not."""
    with TriggersHarness(
        registry=tasks, allow_failures=True, limits=Limits(cascade_depth=LIMIT), **settings
    ) as harness:
        ran = braked(tasks, fire, lambda: harness.triggers)
        for uid in OTHER:
            harness.session(uid).update_configuration({"t_again": {"andEvery": "go", "run": "again"}})
        harness.session("one").fire("go")
        harness.run_until_idle()
        return len(ran), errors(harness.triggers, *OTHER)


@pytest.mark.parametrize("fire", WAYS)
def test_an_endless_chain_is_stopped(tasks, fire):
    """The application's own firing has depth 0, so `cascade_depth` firings follow it, and the next one fails."""
    assert chain(tasks, fire) == (LIMIT + 1, [CascadeDepthError.__name__])


@pytest.mark.parametrize("fire", [fire_by_uid, fire_there, fire_from_asyncio_task])
def test_a_chain_is_stopped_on_every_storage(tasks, everywhere, fire):
    """A storage keeps the depth of each firing and instance, in its own session and in another one."""
    assert chain(tasks, fire, **everywhere) == (LIMIT + 1, [CascadeDepthError.__name__])


def test_hooks_are_part_of_the_task_whose_end_calls_them(tasks):
    """A hook that fires in another session when a task has ended continues the chain of that task."""

    class Relay(TriggerManager):
        def _post_fire(self, name, tasks_scheduled):
            if name == "t_again":
                harness.session(OTHER[self.uid]).fire("go")

    ran = []

    @task(name="again", registry=tasks)
    def again(context):
        ran.append(context.task_instance.name)
        assert len(ran) < BRAKE

    with TriggersHarness(
        registry=tasks, allow_failures=True, limits=Limits(cascade_depth=LIMIT), manager=Relay
    ) as harness:
        for uid in OTHER:
            harness.session(uid).update_configuration({"t_again": {"andEvery": "go", "run": "again"}})
        harness.session("one").fire("go")
        assert (len(ran), errors(harness.triggers, *OTHER)) == (LIMIT + 1, ["CascadeDepthError"])


def test_a_replay_continues_the_chain_of_the_task_that_makes_it(tasks):
    """A task that replays another session's failed instance, which fires it again, is stopped."""
    ran = []

    @task(name="fail", registry=tasks)
    def fail(context):
        ran.append(context.task_instance.name)
        if len(ran) < BRAKE:
            harness.session("two").fire("go")
        raise ValueError(context.task_instance.name)

    @task(name="replay", registry=tasks)
    def replay(_context):
        other = harness.session("one")
        other.replay_failed_instance(next(other.storage.find(statuses=[Status.FAILED])))

    with TriggersHarness(registry=tasks, allow_failures=True, limits=Limits(cascade_depth=LIMIT)) as harness:
        harness.session("one").update_configuration({"t_fail": {"after": ["go"], "run": "fail"}})
        harness.session("two").update_configuration({"t_replay": {"andEvery": "go", "run": "replay"}})
        harness.session("one").fire("go")
        assert len(ran) <= LIMIT
        assert "CascadeDepthError" in errors(harness.triggers, "one", "two")


def test_a_skip_continues_the_chain_of_the_task_that_makes_it(tasks, harness):
    """What a skip cascades has at least the depth of the task that skips."""

    @task(name="skip", registry=tasks)
    def skip(_context):
        harness.session("two").skip_failed_instance("t_fail#0", cascade=True)

    task(name="fail", registry=tasks)(lambda _context: 1 / 0)
    harness.session("two").update_configuration(runs("fail"))
    harness.session("two").fire("go")
    harness.session("one").update_configuration(
        {"t_pass": {"after": ["go"], "run": "triggers.testing.PassThrough"}, **runs("skip", "t_pass")}
    )
    harness.session("one").fire("go")
    (fired,) = harness.session("two").storage._reader.latest("two", ["t_fail"]).values()
    assert fired.depth == 2


def test_a_configuration_that_catches_up_continues_the_chain(tasks):
    """A task that adds a task, which receives an earlier firing and adds the next one, is stopped."""

    @task(name="add", registry=tasks)
    def add(context):
        number = int(context.task_instance.task.removeprefix("t_")) + 1
        if number < BRAKE:
            rules = {f"t_{n}": {"after": ["go"], "run": "add"} for n in range(number + 1)}
            context.manager.update_configuration(rules, catch_up=True)

    with TriggersHarness(registry=tasks, allow_failures=True, limits=Limits(cascade_depth=LIMIT)) as harness:
        session = harness.session("one")
        session.update_configuration({"t_0": {"after": ["go"], "run": "add"}})
        session.fire("go")
        assert len(list(session.storage)) == LIMIT + 2
        assert errors(harness.triggers, "one") == ["CascadeDepthError"]


def test_the_end_of_a_session_continues_the_chain(tasks):
    """Sessions each of which begins the next one when it is finalized are stopped."""
    begun = ["s0"]
    rules = {"t_next": {"after": ["sessionFinalized"], "run": "next"}, **runs("triggers.testing.PassThrough")}

    def begin(uid):
        harness.session(uid).update_configuration(rules)
        harness.session(uid).fire("go")

    @task(name="next", registry=tasks)
    def begin_next(_context):
        if len(begun) < BRAKE:
            begun.append(f"s{len(begun)}")
            begin(begun[-1])

    limits = Limits(cascade_depth=LIMIT)
    with TriggersHarness(
        registry=tasks, allow_failures=True, limits=limits, manager=FinalizingTriggerManager
    ) as harness:
        begin("s0")
        assert len(begun) < LIMIT
        assert errors(harness.triggers, *begun) == ["CascadeDepthError"]


def test_a_firing_from_outside_begins_a_new_chain(tasks, harness):
    """A thread that has run a task fires with depth 0 afterwards, also if the task raised."""
    task(name="fail", registry=tasks)(lambda context: context.manager.fire("inner") and 1 / 0)
    session = harness.session("one")
    session.update_configuration(runs("fail"))
    session.fire("go")
    session.fire("later")
    latest = session.storage._reader.latest("one", ["inner", "later"])
    assert {name: (firing.depth, firing.source) for name, firing in latest.items()} == {
        "inner": (1, "t_fail#0"),
        "later": (0, ""),
    }
    harness.check("one").assert_instance_failed("t_fail#0", ZeroDivisionError)


def test_a_firing_in_another_session_has_a_depth_but_no_source(tasks, harness):
    """The source of a firing is an instance of its own session."""
    task(name="work", registry=tasks)(lambda _context: harness.session("two").fire("go") and None)
    harness.session("one").update_configuration(runs("work"))
    harness.session("one").fire("go")
    (firing,) = harness.session("two").storage._reader.latest("two", ["go"]).values()
    assert (firing.depth, firing.source) == (1, "")


def test_retries_do_not_make_a_chain_longer(tasks):
    """A task may ask for more retries than a chain may be long."""

    @task(name="retry", registry=tasks, max_retries=BRAKE)
    def retry(context):
        if context.task_instance.depth < BRAKE:
            raise context.retry(cooldown=0)

    with TriggersHarness(registry=tasks, allow_failures=True, limits=Limits(cascade_depth=LIMIT)) as harness:
        harness.session("one").update_configuration(runs("retry"))
        harness.session("one").fire("go")
        harness.run_until_idle()
        harness.check("one").assert_instance_finished(f"t_retry#{BRAKE}")


@pytest.mark.parametrize("fire", [fire_by_uid, fire_there, fire_from_asyncio_task])
def test_without_the_context_variable_nothing_stops_a_chain(tasks, fire, monkeypatch):
    """A mutant: a manager that does not ask which task it is called from runs until the brake."""
    monkeypatch.setattr(deciding, "FIRED_BY", ContextVar("nobody sets it", default=None))
    assert chain(tasks, fire) == (BRAKE, [])
