"""What becomes of a session of version 2, part by part, and which parts are refused with their path."""

from __future__ import annotations

import copy
import pickle
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.version2.played import dump_of, lines
from triggers import FinalizingTriggerManager, Triggers
from triggers.core.decisions import import_session
from triggers.core.status import Status
from triggers.core.terms import Policy
from triggers.core.values import Limits, decode
from triggers.storages.memory import MemoryStorage
from triggers.version2.refused import RefusedError
from triggers.version2.shape import check_shape
from triggers.version2.translate import translate

KEY = ":1:triggers.storages.cache:s"
BEGIN = datetime(2017, 5, 1, 12)
NOW = 1_500_000_000_000_000


def at(seconds):
    """A time of version 2: naive, in UTC."""
    return BEGIN + timedelta(seconds=seconds)


def aware(seconds):
    return at(seconds).replace(tzinfo=UTC)


def rule(after, **directives):
    return {
        "after": after,
        "unless": [],
        "andEvery": None,
        "run": "r",
        "using": None,
        "withParams": {},
        **directives,
    }


def run(task, status, kwargs=None, *, veto=(), **metadata):
    """An instance as version 2 stores it."""
    if "times" in metadata:
        metadata["timestamps"] = {name: at(second) for name, second in metadata.pop("times").items()}
    return {
        "task": task,
        "status": status,
        "kwargs": kwargs or {},
        "abandonState": list(veto),
        "metadata": metadata,
    }


def session(tasks, instances=None, **metas):
    return {"tasks": tasks, "instances": instances or {}, "metas": metas}


def translated(old, policy=None):
    return translate(check_shape(old), KEY, NOW, policy or Policy())


@pytest.fixture
def stored():
    """Stores a session in memory, and returns the view of it."""

    def store(old, **options):
        app = Triggers("memory://", runner=None, **options)
        manager = app.session("s")
        manager.store(import_session(manager.policy, translated(old, manager.policy).session))
        return manager.storage

    return store


def test_what_was_queued_is_scheduled_again(stored):
    """Scheduled and running instances are due at once, with the history that they had."""
    times = {"created": 1, "scheduled": 2, "running": 3, "lastModified": 3}
    view = stored(
        session(
            {"t": rule(["a"])},
            {
                "t#0": run("t", "running", {"a": {"x": 1}}, times=times),
                "t#1": run("t", "scheduled", {"a": {}}),
            },
        )
    )
    first, second = view
    assert (first.status, first.is_resolved, first.attempt, first.stored.fence) == ("scheduled", False, 1, 1)
    assert (second.status, second.attempt, second.stored.fence) == ("scheduled", 0, 0)
    assert [(when, status) for when, status, _ in first.history][:3] == [
        (aware(1), "unstarted"),
        (aware(2), "scheduled"),
        (aware(3), "running"),
    ]
    assert [remark for _, _, remark in first.history] == [
        "imported from version 2",
        "",
        "",
        "imported from version 2",
    ]
    assert first.stored.run_at == NOW
    assert first.stored.dispatch_after <= view.head.modified_at


def test_times_errors_and_metadata_come_over(stored):
    """Timestamps are aware, the exception is the error, and what this version has no place for stays metadata."""
    failed = run(
        "t",
        "failed",
        {"a": {"x": 1}},
        times={"created": 1, "scheduled": 1, "running": 2, "failed": 3, "lastModified": 9},
        exceptionType="survey.errors.BadPage",
        exceptionInfo="Traceback (most recent call last):\n  File x\nsurvey.errors.BadPage: no: page\n\n",
        exceptionContext={"page": 3, "password": "secret"},
        logLevel=40,
        actualKwargs={"a": {"x": 1, "y": 2}},
        cooldown=None,
        mine={"k": [1]},
    )
    (instance,) = stored(session({"t": rule(["a"])}, {"t#0": failed}))
    assert instance.timestamps[Status.FAILED] == aware(3)
    assert instance.last_modified == aware(9)
    error = instance.error
    assert (error["qualified_type"], error["type"], error["message"]) == (
        "survey.errors.BadPage",
        "BadPage",
        "no: page",
    )
    assert error["traceback"] == failed["metadata"]["exceptionInfo"]
    assert error["context"]["page"] == 3
    assert "secret" not in repr(error)
    assert decode(instance.stored.metadata) == {"actualKwargs": {"a": {"x": 1, "y": 2}}, "mine": {"k": [1]}}
    assert (instance.log_level, instance.unresolved_log_level) == (40, 40)


@pytest.mark.parametrize(
    ("level", "resolved", "unresolved"), [(40, True, 0), (30, False, 30), (29, False, 0), (0, False, 0)]
)
def test_levels_that_need_a_review_still_do(stored, level, resolved, unresolved):
    """By the threshold of the manager, unless version 2 has it that a person has reviewed the log."""
    finished = run("t", "finished", {"a": {}}, logLevel=level, logsResolved=resolved)
    (instance,) = stored(session({"t": rule(["a"])}, {"t#0": finished}))
    assert (instance.log_level, instance.unresolved_log_level) == (level, unresolved)


def test_firings_are_made_up_and_marked():
    """From what instances received, in the order of their times; the latest kwargs are the last of their trigger."""
    old = session(
        {"t": rule(["a"], andEvery="a"), "u": rule(["t", "b"]), "v": rule(["c"], unless=["b"])},
        {
            "t#0": run(
                "t", "finished", {"a": {"n": 1}}, times={"created": 1, "finished": 2}, result={"r": 1}
            ),
            "t#1": run(
                "t", "finished", {"a": {"n": 1}}, times={"created": 3, "finished": 4}, result={"r": 1}
            ),
            "t#2": run(
                "t", "skipped", {"a": {"n": 2}}, times={"created": 5, "skipped": 6}, cascade=True, result={}
            ),
            "t#3": run(
                "t", "skipped", {"a": {"n": 4}}, times={"created": 6, "skipped": 7}, cascade=False, result={}
            ),
            "u#0": run("u", "unstarted", {"t": {"r": 1}}),
            "v#0": run("v", "unstarted", {"c": {"old": True}}, veto=()),
        },
        latest_kwargs={"a": {"n": 1}, "t": {}, "b": {"n": 9}, "c": {"old": False}},
        mine=[1],
    )
    found = translated(old).session
    assert [(each.number, each.trigger, decode(each.kwargs), each.source) for each in found.firings] == [
        (1, "a", {"n": 1}, ""),
        (2, "c", {"old": True}, ""),
        (3, "t", {"r": 1}, "t#0"),
        (4, "t", {"r": 1}, "t#1"),
        (5, "a", {"n": 2}, ""),
        (6, "a", {"n": 4}, ""),
        (7, "t", {}, "t#2"),
        (8, "a", {"n": 1}, ""),
        (9, "b", {"n": 9}, ""),
        (10, "c", {"old": False}, ""),
    ]
    taken = {each.name: each.taken for each in found.instances}
    assert (taken["t#0"], taken["t#1"]) == ({"a": 1}, {"a": 8})
    assert taken["u#0"] == {"t": 3}
    assert {each.name: each.result for each in found.instances}["t#2"] == 7
    metadata = decode(found.metadata)
    assert metadata["mine"] == [1]
    imported = datetime.fromtimestamp(NOW / 1e6, UTC)
    assert metadata["imported"] == {"from": "version 2", "key": KEY, "at": imported, "firings": 10}
    assert found.created_at == int(aware(1).timestamp() * 1e6)


def test_replays_have_what_their_parents_have():
    """The same firings, or kwargs of their own; a retry by the task itself counts, a replay by hand does not."""
    instances = translated(
        session(
            {"t": rule(["a"])},
            {
                "t#0": run("t", "replayed", {"a": {"n": 1}}, times={"created": 1}, cooldown=None),
                "t#1": run(
                    "t", "replayed", {"a": {"n": 1}}, times={"created": 2}, parent="t#0", depth=1, cooldown=5
                ),
                "t#2": run("t", "replayed", {"a": {"n": 2}}, times={"created": 3}, parent="t#1", depth=2),
                "t#3": run("t", "failed", {"a": {"n": 2}}, times={"created": 4}, parent="t#2", depth=3),
            },
        )
    ).session.instances
    assert [(each.parent, each.root, each.depth, each.retries) for each in instances] == [
        (None, 0, 0, 0),
        (0, 0, 1, 1),
        (1, 2, 2, 2),
        (2, 2, 3, 0),
    ]
    assert [each.kwargs for each in instances] == [None, None, '{"a":{"n":2}}', '{"a":{"n":2}}']
    assert {tuple(each.taken.items()) for each in instances} == {(("a", 1),)}


def test_errors_show_no_secrets(stored):
    """Version 2 stored them as they were; here they are hidden, as in any error of this version."""
    text = "Traceback\n  connect(url)\nx.Refused: redis://u:hunter2@host, password=hunter2"
    failed = run("t", "failed", {"a": {}}, exceptionType="x.Refused", exceptionInfo=text)
    error = stored(session({"t": rule(["a"])}, {"t#0": failed}))["t#0"].error
    assert error["message"] == "redis://u:[redacted]@host, password=[redacted]"
    assert error["traceback"].splitlines()[:2] == text.splitlines()[:2]
    assert "hunter2" not in str(error)


def test_custom_keys_that_are_reserved_now_are_renamed():
    """They are reported, others stay, and equal rules in another order are the same rule set."""
    tasks = {"t": rule(["b", "a"], retry=3, colour="red", with_params={"x": 1})}
    found = translated(session(tasks))
    assert found.renamed == (("t.retry", "x-retry"), ("t.with_params", "x-with_params"))
    assert found.session.rules.rules["t"].extras == {"x-retry": 3, "colour": "red", "x-with_params": {"x": 1}}
    other = {"t": rule(["a", "b"], with_params={"x": 1}, colour="red", retry=3)}
    assert translated(session(other)).session.rules.digest == found.session.rules.digest


def test_a_finalized_session_stays_finalized(stored):
    """The latest firing of the finalizing trigger is the finalizing one."""
    old = session(
        {"t": rule(["a"])}, {"t#0": run("t", "finished", {"a": {}})}, latest_kwargs={"sessionFinalized": {}}
    )
    assert stored(old, manager=FinalizingTriggerManager).finalized
    assert not stored(old).finalized


GOOD = session(
    {"t": rule(["a"])},
    {"t#0": run("t", "failed", {"a": {"x": 1}}, times={"created": 1})},
    latest_kwargs={"a": {}},
)

WRONG = [
    (["tasks"], None, "tasks"),
    (["tasks", "t"], 1, "tasks.t"),
    (["tasks", "t", "after"], "a", "tasks.t.after"),
    (["tasks", "t", "after"], [], "tasks.t"),
    (["tasks", "t", "after"], ["t"], "tasks.t.after"),
    (["tasks", "t", "after"], [1], "tasks.t.after[0]"),
    (["tasks", "t"], rule(["a"]) | {f"key {number}": 1 for number in range(100_001)}, "tasks"),
    (["tasks", "t", 1], 1, "tasks.t"),
    (["tasks", "t", "withParams"], {"a": 1}, "tasks.t.withParams.a"),
    (["tasks", "t", "colour"], float("nan"), "tasks.t.colour"),
    (["tasks", "t"], rule(["a"], retry=1) | {"x-retry": 2}, "tasks.t.retry"),
    (["tasks", "t\n"], rule(["a"]), "tasks.'t\\n'"),
    (["more"], {}, "more"),
    (["instances"], [], "instances"),
    (["instances", "t"], run("t", "failed"), "instances.t"),
    (["instances", "t#-1"], run("t", "failed"), "instances.t#-1"),
    (["instances", "t#0", "task"], "u", "instances.t#0.task"),
    (["instances", "t#0", "status"], "gone", "instances.t#0.status"),
    (["instances", "t#0", "more"], 1, "instances.t#0.more"),
    (["instances", "t#0", "kwargs"], {"a": 1}, "instances.t#0.kwargs.a"),
    (["instances", "t#0", "kwargs"], {"a\n": {}}, "instances.t#0"),
    (["instances", "t#0", "kwargs", "a", "x"], [1, {"y": float("inf")}], "instances.t#0.kwargs.a.x[1].y"),
    (["instances", "t#0", "kwargs", "a", "x"], "x" * 2_000_000, "instances.t#0.kwargs.a"),
    (["instances", "t#0", "abandonState"], [1], "instances.t#0.abandonState[0]"),
    (["instances", "t#0", "metadata", "parent"], "t#1", "instances.t#0.metadata.parent"),
    (["instances", "t#0", "metadata", "parent"], "t#0", "instances.t#0.metadata.parent"),
    (["instances", "t#0", "metadata", "depth"], 2**31, "instances.t#0.metadata.depth"),
    (["instances", "t#0", "metadata", "depth"], -1, "instances.t#0.metadata.depth"),
    (
        ["instances", "t#0", "metadata", "timestamps"],
        {"created": 5},
        "instances.t#0.metadata.timestamps.created",
    ),
    (
        ["instances", "t#0", "metadata", "timestamps"],
        {"created": "x"},
        "instances.t#0.metadata.timestamps.created",
    ),
    (["instances", "t#0", "metadata", "mine"], float("nan"), "instances.t#0.metadata.mine"),
    (["metas", "latest_kwargs", "a"], None, "metas.latest_kwargs.a"),
    (["metas", "latest_kwargs", "a\n"], {}, "metas.latest_kwargs.a\n"),
    (["metas", "latest_kwargs", "a"], {"x": float("nan")}, "metas.latest_kwargs.a.x"),
    (["metas", "mine"], float("nan"), "metas.mine"),
]


@pytest.mark.parametrize(
    ("place", "value", "path"), WRONG, ids=[".".join(map(str, place)) for place, _, _ in WRONG]
)
def test_what_cannot_be_stored_is_refused_with_its_path(place, value, path):
    """So that a person can find it in the cache."""
    old = copy.deepcopy(GOOD)
    part = old
    for key in place[:-1]:
        part = part[key]
    part[place[-1]] = value
    translated(GOOD)
    with pytest.raises(RefusedError) as error:
        translated(old)
    assert error.value.problems[0][0] == path


def test_limits_are_those_of_the_manager():
    """An application that accepts larger kwargs can import them."""
    old = session({"t": rule(["a"])}, {"t#0": run("t", "unstarted", {"a": {"x": "x" * 2_000_000}})})
    assert translated(old, Policy(limits=Limits(payload=3_000_000))).session.firings


_REAL = [pickle.loads(dump_of(each)) for each in lines("version2_sessions.jsonl")[:20]]
_JUNK = st.sampled_from(
    [
        None,
        True,
        -1,
        2**63,
        1.5,
        "",
        "x",
        "t_0#0",
        b"x",
        [],
        {},
        (),
        [1],
        {"a": 1},
        {"a": {}},
        {1: 2},
        BEGIN,
        datetime(9999, 12, 31),
    ]
)


def places(value):
    """Every container and key in a session."""
    for key in list(value) if type(value) is dict else range(len(value)):
        yield value, key
        if type(value[key]) in {dict, list}:
            yield from places(value[key])


@given(
    st.integers(0, len(_REAL) - 1), st.lists(st.tuples(st.integers(0, 10_000), _JUNK), min_size=1, max_size=4)
)
def test_a_damaged_session_is_stored_or_refused(number, damages):
    """Whatever is changed in a real session, nothing else is raised, and what is accepted can be stored and shown."""
    old = copy.deepcopy(_REAL[number])
    for place, junk in damages:
        found = list(places(old))
        if found:
            part, key = found[place % len(found)]
            part[key] = copy.deepcopy(junk)
    try:
        session_to_store = translated(old).session
    except RefusedError:
        return
    storage = MemoryStorage()
    assert not storage.commit("s", import_session(Policy(), session_to_store)).refused
    assert len(storage.reader.instances("s", limit=1_000)) == len(old.get("instances") or {})
