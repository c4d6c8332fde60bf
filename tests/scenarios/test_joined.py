"""The application's transaction and ours are one: on every kind of connection that can be joined."""

from __future__ import annotations

import random
from contextlib import suppress
from typing import ClassVar

import pytest

from tests.scenarios.applications import KINDS, ON_A_FILE, RolledBackError, application_of
from triggers import Registry, TriggerManager, Triggers
from triggers.core import decisions
from triggers.core.exchange import Decision, NeedsSession
from triggers.core.state import Firing
from triggers.exceptions import (
    ConfigurationError,
    IdempotencyConflictError,
    InvalidStatusError,
    StorageError,
)
from triggers.task import task

RULES = {
    "t_page": {"andEvery": "pageReceived", "run": "page"},
    "t_after": {"andEvery": "t_page", "run": "page"},
    "t_fail": {"andEvery": "fail", "run": "fail"},
}


class Told(TriggerManager):
    name = "tests.told"
    heard: ClassVar = []

    def _post_fire(self, name, tasks_scheduled):
        self.heard.append((name, [instance.name for instance in tasks_scheduled]))

    def _post_replay(self, instance):
        self.heard.append(("replay", instance.name, instance.metadata["parent"]))

    def _post_skip(self, instance, cascade):
        self.heard.append(("skip", instance.name, self.storage[instance.name].status))

    def _post_resolve_logs(self, instance):
        self.heard.append(("reviewed", instance.name))


@pytest.fixture(autouse=True)
def heard(monkeypatch):
    """What the hooks were told."""
    found = []
    monkeypatch.setattr(Told, "heard", found)
    return found


@pytest.fixture(params=KINDS)
def application(request, tmp_path):
    with application_of(request.param, request, tmp_path) as made:
        yield made


@pytest.fixture
def ran():
    """The tasks that ran, in order."""
    return []


@pytest.fixture
def registry(ran):
    found = Registry()

    @task(name="page", registry=found)
    def page(context):
        ran.append(context.task_instance.name)

    @task(name="fail", registry=found)
    def fail(context):
        raise ValueError("failed")

    return found


@pytest.fixture
def triggers(application, registry):
    """Only fires."""
    made = Triggers(application.url, runner=None, registry=registry, manager=Told)
    yield made
    made.close()


@pytest.fixture
def manager(triggers, heard):
    made = triggers.session("respondent-17")
    made.update_configuration(RULES)
    heard.clear()
    return made


@pytest.fixture
def inline(application, registry, heard):
    """Runs at once what it is handed."""
    made = Triggers(application.url, runner="inline", registry=registry, manager=Told)
    made.session("respondent-17").update_configuration(RULES)
    heard.clear()
    yield made
    made.close()


def names(manager):
    return [instance.name for instance in manager.storage]


def test_a_preview_sees_the_transaction(application, manager, heard):
    """It is decided on what is not committed yet, and nothing of it is committed; outside, it sees nothing of that."""
    with application.transaction() as connection:
        application.write(1)
        with manager.joined(connection):
            manager.fire("pageReceived", {"number": 1}, key="k")
            heard.clear()
            tried = manager.preview.fire("pageReceived", {"number": 2})
            assert (tried.fired[0].number, tried.created) == (2, ("t_page#1",))
            assert manager.preview.fire("pageReceived", {"number": 1}, key="k").repeats == 1
            with pytest.raises(InvalidStatusError):
                manager.preview.skip("t_page#0")
            assert names(manager) == ["t_page#0"]
        assert manager.preview.fire("pageReceived").created == ("t_page#0",)
        application.write(2)
    assert (names(manager), application.pages()) == (["t_page#0"], [1, 2])


def test_a_commit_keeps_both(application, manager):
    """What the application wrote and what it fired are there after its commit."""
    with application.transaction() as connection:
        application.write(1)
        with manager.joined(connection) as joined:
            assert joined is manager
            assert manager.fire("pageReceived", {"number": 1}).created == ("t_page#0",)
        application.write(2)
    assert application.pages() == [1, 2]
    assert names(manager) == ["t_page#0"]
    assert manager.storage.latest_kwargs["pageReceived"] == {"number": 1}


def test_a_rollback_takes_both_back(application, manager):
    """Neither what the application wrote nor what it fired has ever been."""
    with suppress(RolledBackError), application.transaction() as connection:
        application.write(1)
        with manager.joined(connection):
            manager.fire("pageReceived", {"number": 1})
        raise RolledBackError
    assert application.pages() == []
    assert names(manager) == []
    assert manager.storage.head.firings == 0


def test_a_firing_is_seen_inside_and_not_outside(application, triggers, manager):
    """Before the commit the joined manager reads what it has fired, and others do not."""
    with application.transaction() as connection, manager.joined(connection):
        manager.fire("pageReceived")
        instance = manager.storage["t_page#0"]
        assert instance.status == "scheduled"
        assert instance.kwargs == {"pageReceived": {}}
        assert names(triggers.session("respondent-17")) == []
    assert names(triggers.session("respondent-17")) == ["t_page#0"]
    assert instance.config.task == "t_page"  # read now, from what is stored


def test_a_savepoint_takes_back_what_was_fired_in_it(application, manager, heard):
    """A savepoint of the application's that is rolled back takes its firings along, and no others."""
    with application.transaction() as connection, manager.joined(connection):
        manager.fire("pageReceived", {"number": 1})
        with suppress(RolledBackError), application.savepoint():
            manager.fire("pageReceived", {"number": 2})
            application.write(2)
            raise RolledBackError
        with application.savepoint():
            manager.fire("pageReceived", {"number": 3})
    assert application.pages() == []
    firings = manager.storage.find(task="t_page")
    assert [instance.kwargs["pageReceived"]["number"] for instance in firings] == [1, 3]
    if application.is_told:
        assert heard == [("pageReceived", ["t_page#0"]), ("pageReceived", ["t_page#1"])]


def test_a_block_within_a_savepoint_ends_with_it(application, manager, heard):
    """Joined within savepoints, one of which is rolled back, only what the others did is kept and told."""
    with application.transaction() as connection:
        application.write(0)
        with application.savepoint(), manager.joined(connection):
            manager.fire("pageReceived", {"number": 1})
        with suppress(RolledBackError), application.savepoint():
            with application.savepoint(), manager.joined(connection):
                manager.fire("pageReceived", {"number": 2})
            raise RolledBackError
        with manager.joined(connection):
            assert len(names(manager)) == 1
    assert names(manager) == ["t_page#0"]
    assert heard == ([("pageReceived", ["t_page#0"])] if application.is_told else [])


def test_a_call_that_raises_leaves_the_transaction_usable(application, manager):
    """After an error of any kind the transaction goes on, without what the call that raised would have done."""
    with application.transaction() as connection, manager.joined(connection):
        application.write(1)
        manager.fire("pageReceived", {"number": 1}, key="k")
        with pytest.raises(IdempotencyConflictError):
            manager.fire("pageReceived", {"number": 2}, key="k")
        with pytest.raises(ConfigurationError):
            manager.update_configuration({"t_page": {"afer": []}})
        with pytest.raises(InvalidStatusError):
            manager.skip_failed_instance("t_page#0")
        assert manager.fire("pageReceived", {"number": 1}, key="k").duplicate
        manager.fire("pageReceived", {"number": 3})
        application.write(3)
    assert application.pages() == [1, 3]
    assert names(manager) == ["t_page#0", "t_page#1"]


def fire_as_before(session):
    """A decision that no storage can apply: a firing with the number of another."""
    changes = yield from decisions.fire(decisions.Policy("tests.told"), Firing(0, "pageReceived", "{}", 0))(
        session
    )
    changes.fired[0] = changes.fired[0]._replace(number=1)
    return changes


def test_a_decision_that_needs_the_session_is_run_again_in_the_block(application, manager):
    """What its first run has done is undone, and what the application has written stays."""
    fire = decisions.fire(decisions.Policy("tests.told"), Firing(0, "pageReceived", '{"number":1}', 0))

    def begin(session):
        changes = yield from fire(session)
        if not session.exclusive:
            raise NeedsSession
        return changes

    with application.transaction() as connection, manager.joined(connection):
        application.write(1)
        changes = manager.apply(Decision("test", begin, exclusive=False))
        assert changes.fired[0].number == 1
        application.write(2)
    assert application.pages() == [1, 2]
    assert names(manager) == ["t_page#0"]


def test_a_commit_that_fails_half_way_is_undone_alone(application, manager):
    """What the database refuses in the middle of our changes is undone, and nothing else."""
    with application.transaction() as connection, manager.joined(connection):
        application.write(1)
        manager.fire("pageReceived", {"number": 1})
        with pytest.raises(StorageError):
            manager.apply(Decision("fire", fire_as_before))
        assert names(manager) == ["t_page#0"]
        application.write(2)
        manager.fire("pageReceived", {"number": 2})
    assert application.pages() == [1, 2]
    assert manager.storage.head.firings == 2


def test_hooks_come_once_and_after_the_commit(application, manager, heard):
    """Hooks hear of what was committed, once, after it; with a driver's own connection they hear nothing."""
    with application.transaction() as connection:
        with manager.joined(connection):
            manager.fire("pageReceived")
            manager.fire("other")
        assert heard == []
    expected = [("pageReceived", ["t_page#0"]), ("other", [])] if application.is_told else []
    assert heard == expected
    assert application.pages() == []
    assert heard == expected


def test_hooks_do_not_hear_of_what_was_rolled_back(application, manager, heard):
    """After a rollback no hook is called, then or later."""
    with suppress(RolledBackError), application.transaction() as connection:
        with manager.joined(connection):
            manager.fire("pageReceived")
        raise RolledBackError
    with application.transaction() as connection, manager.joined(connection):
        manager.fire("other")
    assert application.pages() == []
    assert heard == ([("other", [])] if application.is_told else [])


def test_a_hook_that_raises_harms_nobody(application, inline, ran, monkeypatch, caplog):
    """Its error is logged; the commit stands, and the other hooks and hand-overs come as always."""

    def raises(self, name, tasks_scheduled):
        self.heard.append(name)
        raise ValueError("from the hook")

    monkeypatch.setattr(Told, "_post_fire", raises)
    manager = inline.session("respondent-17")
    with application.transaction() as connection, manager.joined(connection):
        manager.fire("pageReceived")
        manager.fire("pageReceived")
    assert len(names(manager)) >= 2
    if application.is_told:
        assert Told.heard.count("pageReceived") == 2
        assert ran.count("t_page#0") == ran.count("t_page#1") == 1
        assert any("from the hook" in str(record.exc_info[1]) for record in caplog.records if record.exc_info)


def test_what_was_released_is_handed_over_after_the_commit(application, inline, ran):
    """With SQLAlchemy and Django at once; with a driver's own connection by the next sweep, without any pause."""
    manager = inline.session("respondent-17")
    with application.transaction() as connection:
        with manager.joined(connection):
            manager.fire("pageReceived")
        assert ran == []
    if not application.is_told:
        assert ran == []
        assert inline.sweep().dispatched == 1
    assert ran == ["t_page#0", "t_after#0"]
    assert manager.storage["t_page#0"].status == "finished"


def test_what_was_rolled_back_is_not_handed_over(application, inline, ran):
    """Nothing of it runs, whoever sweeps."""
    manager = inline.session("respondent-17")
    with suppress(RolledBackError), application.transaction() as connection:
        with manager.joined(connection):
            manager.fire("pageReceived")
        raise RolledBackError
    inline.sweep(include_recent=True)
    assert ran == []


def test_everything_that_changes_a_session_can_be_joined(application, inline, heard):
    """Replays, skips, metadata, reviews and configurations are committed, and told, with the transaction."""
    manager = inline.session("respondent-17")
    for _ in range(3):
        manager.fire("fail")
    heard.clear()
    with application.transaction() as connection, manager.joined(connection):
        assert manager.replay_failed_instance("t_fail#0").name == "t_fail#3"
        assert manager.skip_failed_instance("t_fail#1", cascade=True, result={"a": 1}).status == "skipped"
        manager.update_instance_metadata("t_fail#2", {"b": 2})
        manager.update_session_metadata({"c": 3})
        manager.mark_instance_logs_resolved("t_fail#2", by="Eve")
        manager.update_configuration({**RULES, "t_more": {"after": ["more"], "run": "page"}})
        assert manager.update_instance_status("t_fail#2", "skipped").status == "skipped"
        assert heard == []
    if not application.is_told:
        inline.sweep()
    assert manager.storage["t_fail#2"].metadata["b"] == 2
    assert manager.storage["t_fail#2"].log_reviews[0]["by"] == "Eve"
    assert manager.storage.metadata == {"c": 3}
    assert "t_more" in manager.storage.tasks
    assert manager.storage["t_fail#3"].status == "failed"
    if application.is_told:
        assert heard == [
            ("replay", "t_fail#3", "t_fail#0"),
            ("t_fail", []),
            ("skip", "t_fail#1", "skipped"),
            ("reviewed", "t_fail#2"),
            ("skip", "t_fail#2", "skipped"),
        ]


def test_rules_that_were_rolled_back_are_forgotten(application, triggers, manager):
    """A configuration that never came to be is not taken for the next one, though it may have had its number."""
    other = {"t_other": {"andEvery": "pageReceived", "run": "page"}}
    third = {"t_third": {"andEvery": "pageReceived", "run": "page"}}
    for _ in range(2):
        with suppress(RolledBackError), application.transaction() as connection:
            with manager.joined(connection):
                manager.replace_configuration(other)
                assert manager.fire("pageReceived").created == ("t_other#0",)
            raise RolledBackError
    with application.transaction() as connection, manager.joined(connection):
        with suppress(RolledBackError), application.savepoint():
            manager.replace_configuration(other)
            assert manager.fire("pageReceived").created == ("t_other#0",)
            raise RolledBackError
        manager.replace_configuration(third)
        assert manager.fire("pageReceived").created == ("t_third#0",)
    assert manager.fire("pageReceived").created == ("t_third#1",)
    assert triggers.session("respondent-17").fire("pageReceived").created == ("t_third#2",)


def test_a_session_may_begin_in_the_transaction(application, triggers):
    """A session that was not there before is there with the commit, and not without it."""
    made = triggers.session("respondent-18")
    with suppress(RolledBackError), application.transaction() as connection, made.joined(connection):
        made.update_configuration(RULES)
        assert made.fire("pageReceived").created == ("t_page#0",)
        raise RolledBackError
    assert not made.storage.exists
    with application.transaction() as connection, made.joined(connection):
        made.update_configuration(RULES)
        made.fire("pageReceived")
    assert names(made) == ["t_page#0"]


def test_several_sessions_take_part_in_one_transaction(application, triggers, manager):
    """Two managers that have joined are committed together."""
    other = triggers.session("respondent-18")
    with (
        application.transaction() as connection,
        manager.joined(connection),
        other.joined(connection),
    ):
        manager.fire("pageReceived")
        other.fire("pageReceived")
        manager.fire("pageReceived")
    assert manager.storage.head.firings == 2
    assert other.storage.head.firings == 1


def test_blocks_may_be_nested(application, manager):
    """A block within a block on the same connection ends without ending the outer one."""
    with application.transaction() as connection, manager.joined(connection):
        with manager.joined(connection):
            manager.fire("pageReceived")
        manager.fire("pageReceived")
    assert len(names(manager)) == 2
    manager.fire("pageReceived")
    assert len(names(manager)) == 3


def test_an_exception_that_leaves_the_block_undoes_nothing_by_itself(application, manager):
    """Whoever catches it outside of the block and commits has what was done in it."""
    with application.transaction() as connection:
        with suppress(RolledBackError), manager.joined(connection):
            manager.fire("pageReceived")
            raise RolledBackError
        application.write(1)
    assert application.pages() == [1]
    assert names(manager) == ["t_page#0"]


def test_after_the_block_the_manager_is_as_before(application, manager):
    """It commits by itself again."""
    with application.transaction() as connection, manager.joined(connection):
        manager.fire("pageReceived")
    manager.fire("pageReceived")
    assert names(manager) == ["t_page#0", "t_page#1"]


def play(application, manager, seed, rounds):
    """Random transactions, some rolled back, some with savepoints; returns the numbers of the pages that are to be."""
    dice = random.Random(seed)
    kept = []
    for number in range(rounds):
        mine = []
        with suppress(RolledBackError), application.transaction() as connection:
            application.write(number)
            with manager.joined(connection):
                manager.fire("pageReceived", {"number": number}, key=str(number))
                mine.append(number)
                if dice.random() < 0.3:
                    inner = rounds + number
                    with suppress(RolledBackError), application.savepoint():
                        application.write(inner)
                        manager.fire("pageReceived", {"number": inner})
                        if dice.random() < 0.5:
                            raise RolledBackError
                        mine.append(inner)
                if dice.random() < 0.2:
                    with suppress(IdempotencyConflictError):
                        manager.fire("pageReceived", {"number": -1}, key=str(number))
            if dice.random() < 0.5:
                raise RolledBackError
            kept += mine
    return kept


def test_a_thousand_random_transactions_leave_as_many_instances_as_commits(application, manager, heard):
    """Instances, firings, pages and what hooks heard are exactly those of the transactions that were committed."""
    rounds = 1_000 if isinstance(application, tuple(ON_A_FILE.values())) else 300
    kept = play(application, manager, seed=17, rounds=rounds)
    assert 0.3 * rounds < len(kept) < 0.8 * rounds
    assert application.pages() == sorted(kept)
    numbers = [instance.kwargs["pageReceived"]["number"] for instance in manager.storage.find(task="t_page")]
    assert numbers == kept
    assert manager.storage.head.firings == len(kept)
    assert len(heard) == (len(kept) if application.is_told else 0)


def test_the_memory_cannot_be_joined(application, registry):
    """It says that, and what to use."""
    manager = Triggers("memory://", registry=registry).session("respondent-17")
    with (
        application.transaction() as connection,
        pytest.raises(StorageError, match=r"use sqlite:/// or postgresql://"),
        manager.joined(connection),
    ):
        raise AssertionError
