"""What a subclass of a manager decides: hooks, finalizing, and the sessions that it owns."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from tests.scenarios.steps import raise_, runs
from triggers import (
    FinalizingTriggerManager,
    TriggerManager,
    Triggers,
)
from triggers.exceptions import ManagerMismatchError
from triggers.storages.memory import MemoryStorage
from triggers.task import task
from triggers.testing import TriggersHarness

MINUTE = timedelta(minutes=1)


# -- managers ------------------------------------------------------------------------------------------------


class Other(TriggerManager):
    name = "other"


def test_a_session_belongs_to_its_manager(tasks):
    """A process with another manager may read the session; changing it is an error that names both."""
    storage = MemoryStorage()
    with Triggers(storage, runner="inline", manager=Other, registry=tasks) as triggers:
        triggers.session("s").fire("go")
    with Triggers(storage, runner="inline", registry=tasks) as triggers:
        session = triggers.session("s")
        assert session.storage.latest_kwargs["go"] == {}
        for change in (
            lambda: session.fire("go"),
            lambda: session.update_configuration({}),
            lambda: session.update_session_metadata({}),
        ):
            with pytest.raises(
                ManagerMismatchError, match="belongs to manager 'other', and this is 'default'"
            ):
                change()
        with pytest.raises(ManagerMismatchError, match="which this process does not have"):
            triggers.existing_session("s")
    with Triggers(storage, runner="inline", managers=[Other], registry=tasks) as triggers:
        assert type(triggers.existing_session("s")) is Other


# -- hooks ---------------------------------------------------------------------------------------------------


class Hooked(TriggerManager):
    name = "hooked"
    calls: list = []  # noqa: RUF012 - shared by the managers of one test
    raises = ""

    def _post_fire(self, name, tasks_scheduled):
        self.calls.append(("fire", name, [instance.name for instance in tasks_scheduled]))
        if self.raises == name:
            raise LookupError("a hook")

    def _post_replay(self, instance):
        self.calls.append(("replay", instance.name, instance.metadata["parent"]))

    def _post_skip(self, instance, cascade):
        self.calls.append(("skip", instance.name, cascade))
        if self.raises == "skip":
            raise LookupError("a hook")


@pytest.fixture
def hooked(tasks, monkeypatch):
    monkeypatch.setattr(Hooked, "calls", [])
    with TriggersHarness(registry=tasks, manager=Hooked) as harness:
        yield harness


def test_hooks_are_called_in_order(tasks, hooked):
    """After each firing, cascades too, with what it released; after a replay with the new one; after a skip."""
    task(name="bad", registry=tasks)(lambda context: raise_(ValueError()))
    task(name="good", registry=tasks)(lambda context: None)
    session = hooked.session("s")
    session.update_configuration(
        {
            **runs("good"),
            **runs("bad"),
            "t_next": {"after": ["t_good"], "run": "good"},
            "t_last": {"after": ["t_bad"], "run": "good"},
        }
    )
    session.fire("go")
    assert Hooked.calls == [
        ("fire", "go", ["t_good#0", "t_bad#0"]),
        ("fire", "t_good", ["t_next#0"]),
        ("fire", "t_next", []),
    ]
    Hooked.calls.clear()
    session.replay_failed_instance("t_bad#0")
    assert Hooked.calls == [("replay", "t_bad#1", "t_bad#0")]
    Hooked.calls.clear()
    session.skip_failed_instance("t_bad#1", cascade=True)
    assert Hooked.calls == [
        ("fire", "t_bad", ["t_last#0"]),
        ("skip", "t_bad#1", True),
        ("fire", "t_last", []),
    ]


def test_a_repeat_calls_no_hook(tasks, hooked):
    """A firing that was a repeat did nothing, so no hook hears of it."""
    session = hooked.session("s")
    session.fire("go", key="k")
    session.fire("go", key="k")
    assert Hooked.calls == [("fire", "go", [])]


def test_a_hook_that_raises_harms_nothing(tasks, hooked, monkeypatch, caplog):
    """Its exception reaches the caller, or the log where a worker called it; what was committed is committed and runs."""
    task(name="good", registry=tasks)(lambda context: None)
    session = hooked.session("s")
    session.update_configuration({**runs("good"), "t_next": {"after": ["t_good"], "run": "good"}})
    monkeypatch.setattr(Hooked, "raises", "go")
    with pytest.raises(LookupError, match="a hook"):
        session.fire("go")
    hooked.check("s").assert_instance_finished("t_next#0")
    monkeypatch.setattr(Hooked, "raises", "t_good")
    session = hooked.session("other")
    session.update_configuration({**runs("good"), "t_next": {"after": ["t_good"], "run": "good"}})
    session.fire("go")
    hooked.check("other").assert_instance_finished("t_good#0")
    hooked.check("other").assert_instance_finished("t_next#0")
    assert "a hook of session 'other' raised an exception after t_good#0 had ended" in caplog.text


# -- finalising ----------------------------------------------------------------------------------------------


class Careful(FinalizingTriggerManager):
    name = "careful"
    finalize_max_level = 30


def test_a_session_is_finalised_once(tasks):
    """The last task's end fires `sessionFinalized`, which releases the tasks that wait for it, once."""
    task(name="work", registry=tasks)(lambda context: None)
    with TriggersHarness(registry=tasks, manager=FinalizingTriggerManager) as harness:
        session, check = harness.session("s"), harness.check("s")
        session.update_configuration(
            {
                **runs("work", "a"),
                "t_b": {"andEvery": "b", "run": "work"},
                "t_end": {"after": ["sessionFinalized"], "run": "work"},
            }
        )
        assert not session.fire("a").finalized
        check.assert_not_finalized()
        check.assert_instance_missing("t_end#0")
        session.fire("b")
        check.assert_finalized()
        check.assert_instance_finished("t_end#0")
        assert session.fire("b").finalized
        check.assert_instance_finished("t_b#1")
        check.assert_instance_missing("t_end#1")


def test_warnings_hold_a_session_open_until_they_are_resolved(tasks):
    """With `finalize_max_level` a finished instance with a warning holds the session; resolving it lets it go."""

    @task(name="warn", registry=tasks)
    def warn(context):
        with context.get_logger_context() as logger:
            logger.warning("odd")

    task(name="work", registry=tasks)(lambda context: None)
    with TriggersHarness(registry=tasks, manager=Careful) as harness:
        session, check = harness.session("s"), harness.check("s")
        session.update_configuration(
            {**runs("warn"), **runs("work"), "t_end": {"after": ["sessionFinalized"], "run": "work"}}
        )
        session.fire("go")
        check.assert_unresolved_tasks(["t_end"])
        check.assert_unresolved_logs(["t_warn#0"])
        check.assert_not_finalized()
        session.mark_instance_logs_resolved("t_warn#0", by="Ann")
        check.assert_no_unresolved_logs()
        check.assert_finalized()
        check.assert_instance_finished("t_end#0")


# -- async applications --------------------------------------------------------------------------------------


def test_async_applications_await_the_same(tasks):
    """Each method that changes a session has a sibling to be awaited, which does the same."""
    fail = [True]
    task(name="work", registry=tasks)(lambda context: raise_(ValueError()) if fail else None)

    async def application(session):
        await session.aupdate_configuration({"t_work": {"andEvery": "go", "run": "work"}})
        fired = await asyncio.gather(*(session.afire("go", {"n": 1}, key="once") for _ in range(5)))
        assert sorted(result.duplicate for result in fired) == [False, True, True, True, True]
        new = await session.areplay_failed_instance("t_work#0", {"go": {"n": 2}})
        await session.askip_failed_instance(new)
        await session.amark_instance_logs_resolved("t_work#0", by="Ann")
        return new

    with TriggersHarness(registry=tasks) as harness:
        new = asyncio.run(application(harness.session("s")))
        skipped = harness.check("s").assert_instance_skipped(new.name)
        assert skipped.kwargs == {"go": {"n": 2}}
        assert harness.check("s").assert_instance_replayed("t_work#0").log_reviews[0]["by"] == "Ann"
