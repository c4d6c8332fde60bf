"""How often a view reads its storage: a bounded number of times for a page, however many instances it lists."""

from __future__ import annotations

from collections import Counter

import pytest

from triggers import Registry, TriggerManager, task
from triggers.session import PAGE
from triggers.storages.memory import MemoryStorage
from triggers.storages.sqlite import SqliteStorage
from triggers.testing import SessionAssertions, TriggersHarness

RULES = {
    "t_page": {"after": [], "andEvery": "page", "run": "triggers.testing.PassThrough"},
    "t_wait": {"after": ["t_page", "never"], "unless": ["stop"], "run": "triggers.testing.PassThrough"},
    "t_fail": {"after": ["fail"], "run": "triggers.testing.Failing"},
}

FLAGS = ("is_claimable", "can_run", "can_schedule", "can_abandon", "can_replay", "can_skip")


tasks = Registry()


@task(name="say.much", registry=tasks)
def say_much(context):
    with context.get_logger_context() as logger:
        for number in range(300):
            logger.info("record %s", number)


class CountingReader:
    """A reader that counts the calls of each of its methods.

    Attributes:
        reads: method → how often it was called.
    """

    def __init__(self, reader):
        self._reader = reader
        self.reads = Counter()

    def __getattr__(self, name):
        method = getattr(self._reader, name)

        def counted(*args, **kwargs):
            self.reads[name] += 1
            return method(*args, **kwargs)

        return counted


class CountingStorage:
    """A storage whose reader counts; all else is done by the storage that it was given."""

    def __init__(self, storage):
        self._storage = storage
        self.reader = CountingReader(storage.reader)

    def __getattr__(self, name):
        return getattr(self._storage, name)


class Hooked(TriggerManager):
    """A manager whose hook reads the kwargs and the flags of every instance that was released."""

    seen: list[tuple[object, bool]]

    def _post_fire(self, name, tasks_scheduled):
        self.seen = [(each.kwargs, each.is_claimable) for each in tasks_scheduled]


@pytest.fixture(params=["memory", "sqlite"])
def harness(request, tmp_path):
    def storage(clock):
        if request.param == "memory":
            return CountingStorage(MemoryStorage(clock=clock))
        return CountingStorage(SqliteStorage(f"sqlite:///{tmp_path}/s.db?synchronous=normal", clock=clock))

    with TriggersHarness(storage=storage, manager=Hooked, registry=tasks) as harness:
        yield harness


@pytest.fixture
def reads(harness):
    """Method of the reader → how often it was called."""
    return harness.triggers._backend.reader.reads


@pytest.fixture
def view(harness):
    return harness.session("s").storage


def played(harness, pages):
    """A session with so many finished instances, and one that waits; nothing was read of it yet."""
    session = harness.session("s")
    session.update_configuration(RULES)
    for number in range(pages):
        session.fire("page", {"number": number})
    harness.triggers._backend.reader.reads.clear()
    return session


def everything(instance):
    flags = [getattr(instance, flag) for flag in FLAGS]
    return (instance.config.task, instance.kwargs, instance.result, instance.metadata, flags)


def test_a_page_is_listed_with_one_read(harness, reads, view):
    """Names, statuses and errors are stored with the instance: nothing else is read for them."""
    played(harness, 98)
    listed = [(instance.name, instance.status, instance.error) for instance in view]
    assert len(listed) == 99
    assert reads == {"instances": 1}


def test_flags_and_payloads_are_read_once_for_a_page(harness, reads, view):
    """All flags, kwargs and results of 99 instances cost one read of the head and one of the firings."""
    played(harness, 98)
    found = {instance.name: everything(instance) for instance in view}
    assert found["t_page#97"][1] == {"page": {"number": 97}}
    assert found["t_wait#0"][1].keys() == {"t_page"}
    assert reads == {"instances": 1, "session": 1, "firings": 1}


def test_a_long_session_costs_as_many_reads_as_it_has_pages(harness, reads, view):
    """Each page reads its instances, its head and its payloads, and nothing for a single instance."""
    played(harness, PAGE + 5)
    assert len([everything(instance) for instance in view.find()]) == PAGE + 6
    assert reads == {"instances": 2, "session": 2, "firings": 2}


def test_one_instance_reads_what_it_needs_once(harness, reads, view):
    """An instance that was read alone shares with nothing, and repeats no read."""
    played(harness, 1)
    instance = view["t_page#0"]
    assert everything(instance) == everything(instance)
    assert reads == {"instance": 1, "session": 1, "firings": 1}


def test_no_payload_is_read_where_there_is_none(harness, reads, view):
    """A replay with other kwargs, which failed again, took no payload and has no result."""
    harness.allow_failures()
    session = harness.session("s")
    session.update_configuration({"t": {"after": ["a"], "run": "triggers.testing.Failing"}})
    session.fire("a")
    session.replay_failed_instance("t#0", {"a": {"n": 2}})
    reads.clear()
    instance = view["t#1"]
    assert (instance.kwargs, instance.result) == ({"a": {"n": 2}}, None)
    assert reads == {"instance": 1}


def test_what_one_instance_returns_is_its_own(harness, view):
    """Two instances of a page that took the same firing share no object: to change one changes no other."""
    session = harness.session("s")
    rule = {"after": ["a"], "run": "triggers.testing.PassThrough"}
    session.update_configuration({"t": rule, "u": rule})
    session.fire("a", {"list": [1]})
    first, second = view.find()
    first.kwargs["a"]["list"].append(2)
    assert second.kwargs == {"a": {"list": [1]}}


def test_an_instance_is_a_snapshot(harness, view):
    """What was read of it stays; what is read anew shows the session as it is now."""
    harness.allow_failures()
    session = played(harness, 0)
    session.fire("fail")
    before = view["t_fail#0"]
    assert (before.status, before.can_replay) == ("failed", True)
    session.replace_configuration({})
    assert (before.status, before.can_replay) == ("failed", True)
    assert before.config is not None
    after = view["t_fail#0"]
    assert (after.status, after.can_replay, after.config) == ("failed", False, None)


def test_a_hook_reads_once_for_all_that_a_firing_released(harness, reads):
    """Fifty tasks released by one firing cost the hook one read of the head and one of the firings."""
    session = harness.session("s")
    rule = {"after": ["a"], "run": "triggers.testing.PassThrough"}
    session.update_configuration({f"t_{number}": rule for number in range(50)})
    reads.clear()
    session.fire("a", {"n": 1})
    assert session.seen == [({"a": {"n": 1}}, True)] * 50
    assert reads == {"session": 1, "firings": 1}


# -- what reads views -----------------------------------------------------------------------------------


def test_the_text_for_a_prompt_reads_each_page_once(harness, reads, view):
    """It names every instance with the firings that it took."""
    played(harness, 98)
    assert "t_page#97: finished" in view.debug_repr()
    assert reads == {"session": 1, "instances": 1}


def test_an_explanation_of_what_has_run_reads_nothing_upstream(harness, reads, view):
    """Nothing is missing, so only the task's rule and its instances are read."""
    played(harness, 1)
    assert view.explain("t_page").sentence == "t_page has 1 finished instance."
    assert reads == {"session": 1, "instances": 1}
    reads.clear()
    assert view.explain("t_page#0").sentence == "t_page has 1 finished instance."
    assert reads == {"session": 1, "instance": 1}


def test_an_explanation_reads_the_upstream_tasks_that_have_something_to_say(harness, reads, view):
    """Of 51 tasks before it two are read: one has failed, and one, which it names, did not fire."""
    harness.allow_failures()
    session = harness.session("s")
    chain = {f"t_{n + 1}": {"after": [f"t_{n}"], "run": "triggers.testing.PassThrough"} for n in range(49)}
    session.update_configuration(
        {
            "t_0": {"after": ["a"], "run": "triggers.testing.Failing"},
            **chain,
            "t_skip": {"after": ["a"], "run": "triggers.testing.SelfSkipping"},
            "t_end": {"after": ["t_49", "t_skip"], "run": "triggers.testing.PassThrough"},
        }
    )
    session.fire("a")
    reads.clear()
    found = view.explain("t_end")
    assert found.waits_for == ("t_0#0",)
    assert found.waiting[0].upstream == {"t_49": (), "t_skip": (("t_skip#0", "skipped"),)}
    assert reads == {"session": 1, "instances": 1 + 2, "latest": 1, "firings": 1, "counters": 1}


def test_a_kind_is_reviewed_without_a_read_for_each_session(harness, reads):
    """The page of sessions says whose manager each is; only the records are looked for in each of them."""
    for number in range(20):
        harness.session(f"s{number}").fire("a")
    reads.clear()
    assert harness.triggers.mark_logs_resolved("0" * 16) == 0
    assert reads == {"sessions": 2, "logs": 20}


def test_a_failed_assertion_reads_the_tasks_once(harness, reads, view):
    """It explains each of thirty tasks, which reads the head for each; that they exist is read once."""
    session = harness.session("s")
    rule = {"after": ["never"], "run": "triggers.testing.PassThrough"}
    session.update_configuration({f"t_{number}": rule for number in range(30)})
    reads.clear()
    check = SessionAssertions(view)
    with pytest.raises(AssertionError) as told:
        check.assert_unresolved_tasks([])
    assert str(told.value).count(" has no instance yet") == 30
    assert reads["session"] == 30 + 2


def test_a_failed_assertion_shows_the_instances_that_it_compared(harness, reads, view):
    """They are not read again: one that was not found is looked for by its name, and one is explained."""
    harness.allow_failures()
    session = played(harness, 0)
    session.fire("fail")
    session.fire("page")
    reads.clear()
    check = SessionAssertions(view)
    with pytest.raises(AssertionError, match=r"(?s)t_fail#0:.*status: failed.*t_none#0 does not exist"):
        check.assert_unresolved_instances(["t_wait#0", "t_none#0"])
    assert reads["instance"] == 2


def test_a_failed_assertion_reads_only_the_records_that_it_shows(harness, reads, view):
    """Of hundreds of records the last fifty are read, at once."""
    session = harness.session("s")
    session.update_configuration({"t": {"after": ["a"], "run": "say.much"}})
    session.fire("a")
    reads.clear()
    check = SessionAssertions(view)
    with pytest.raises(
        AssertionError, match=r"(?s)300 records, of which the last 50 are shown.*record 250\n.*record 299"
    ) as told:
        check.assert_instance_failed("t#0")
    assert "record 249\n" not in str(told.value)
    assert reads["logs"] == 1
