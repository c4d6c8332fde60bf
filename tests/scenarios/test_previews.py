"""`manager.preview`: what a call would do, on every storage, and that nothing happens."""

from __future__ import annotations

import json
import logging
from datetime import date
from typing import ClassVar

import pytest

from triggers import FinalizingTriggerManager, Limits, Preview, PreviewedFiring, TriggerManager, Triggers
from triggers.exceptions import (
    ConfigurationError,
    IdempotencyConflictError,
    InvalidNameError,
    InvalidStatusError,
    InvalidValueError,
    ManagerMismatchError,
    StorageError,
    UnknownInstanceError,
    UnknownSessionError,
    UnknownTaskError,
)
from triggers.storages.memory import MemoryStorage
from triggers.testing import VirtualClock
from triggers.testing.conformance.fixtures import batch, entry
from triggers.testing.conformance.previews import everything
from triggers.testing.conformance.steps import Steps

pytestmark = pytest.mark.filterwarnings("ignore:SQLite .* can corrupt:RuntimeWarning")

RULES = {
    "t_ship": {"after": ["paid", "packed"], "unless": ["cancelled"], "run": "shop.Ship"},
    "t_tell": {"after": ["t_ship"], "run": "shop.Tell"},
    "t_sorry": {"after": ["t_ship:failed"], "run": "shop.Tell"},
    "t_close": {"after": ["sessionFinalized"], "run": "shop.Close"},
}


class Watched(FinalizingTriggerManager):
    """A manager that notes which of its hooks are called."""

    name = "watched"
    finalize_max_level = logging.WARNING
    called: ClassVar[list[str]] = []

    def _post_fire(self, trigger_name, tasks_scheduled):
        self.called.append("fire")

    def _post_replay(self, task_instance):
        self.called.append("replay")

    def _post_skip(self, task_instance, cascade):
        self.called.append("skip")

    def _post_resolve_logs(self, task_instance):
        self.called.append("resolve")


@pytest.fixture
def app(everywhere):
    """An application that dispatches nothing by itself."""
    storage = everywhere["storage"](everywhere.get("clock") or VirtualClock())
    with Triggers(storage, runner=None, manager=Watched) as app:
        yield app


@pytest.fixture
def steps(app):
    """The same session as a worker would change it."""
    return Steps(app.storage, "order", Watched.policy_for(0, app.session("x").policy.limits))


@pytest.fixture
def order(app):
    Watched.called.clear()
    order = app.session("order")
    order.update_configuration(RULES)
    order.fire("packed")
    Watched.called.clear()
    return order


def failed(order, steps):
    """Let t_ship#0 fail."""
    order.fire("paid", {"amount": 12})
    steps.fail(steps.start("t_ship#0"), {"type": "builtins.OSError", "message": "no"})
    Watched.called.clear()


def test_a_firing_is_tried(order, steps, caplog):
    """It names what would happen; nothing is stored, called, dispatched or logged."""
    before = everything(steps)
    with caplog.at_level(logging.DEBUG):
        caplog.clear()
        tried = order.preview.fire("paid", {"on": date(2026, 11, 30)}, key="k")
    assert tried == Preview(
        uid="order",
        fired=(PreviewedFiring(2, "paid", '{"on":{"$date":"2026-11-30"}}', "", ("t_ship",)),),
        scheduled=("t_ship#0",),
    )
    assert tried.fired[0].kwargs == {"on": date(2026, 11, 30)}
    assert everything(steps) == before
    assert (Watched.called, caplog.records) == ([], [])
    assert order.fire("paid", {"on": date(2026, 11, 30)}, key="k").scheduled == tried.scheduled


def test_what_nobody_listens_to_is_unheard(order):
    """The firing would be recorded, and reach no task."""
    tried = order.preview.fire("payed")
    assert (tried.unheard, tried.is_empty) == (("payed",), False)
    assert str(tried) == "would fire 'payed' (firing 2), which reaches no task"


def test_what_too_many_firings_led_to_is_unheard():
    """A firing that is too deep in its chain is recorded, and reaches no task although one listens."""
    rules = {
        "t_x": {"after": ["go", "never"], "unless": ["stop"], "run": "r"},
        "t_y": {"after": ["go", "never"], "unless": ["t_x:abandoned"], "run": "r"},
        "t_z": {"after": ["t_y:abandoned"], "run": "r"},
    }
    for depth, unheard in ((1, ("t_y:abandoned",)), (2, ())):
        with Triggers("memory://", runner=None, limits=Limits(cascade_depth=depth)) as app:
            session = app.session("s")
            session.update_configuration(rules)
            session.fire("go")
            tried = session.preview.fire("stop")
        assert [firing.trigger for firing in tried.fired] == ["stop", "t_x:abandoned", "t_y:abandoned"]
        assert (tried.abandoned, tried.unheard) == (("t_x#0", "t_y#0"), unheard)


def test_a_veto_and_the_end_of_the_session_are_tried(order):
    """What follows in the same commit is in the preview, in its order."""
    order.replace_configuration({task: RULES[task] for task in ("t_ship", "t_close")})
    tried = order.preview.fire("cancelled")
    assert [firing.trigger for firing in tried.fired] == ["cancelled", "sessionFinalized"]
    assert (tried.abandoned, tried.created, tried.scheduled) == (
        ("t_ship#0",),
        ("t_close#0",),
        ("t_close#0",),
    )
    assert tried.finalized == "sessionFinalized"
    assert not order.storage.finalized
    assert str(tried).splitlines() == [
        "would fire 'cancelled' (firing 2)",
        "would fire 'sessionFinalized' (firing 3)",
        "would create t_close#0",
        "would schedule t_close#0",
        "would abandon t_ship#0",
        "would finalize the session",
    ]


def test_a_key_is_not_used_up(order):
    """A repeat is previewed as one, and with other kwargs it is refused."""
    assert order.preview.fire("paid", {"n": 1}, key="k").repeats is None
    order.fire("paid", {"n": 1}, key="k")
    tried = order.preview.fire("paid", {"n": 1}, key="k")
    assert (tried.repeats, tried.is_empty, tried.fired) == (2, True, ())
    assert str(tried) == "would change nothing: firing 2 has the same key"
    with pytest.raises(IdempotencyConflictError):
        order.preview.fire("paid", {"n": 2}, key="k")


def test_a_replay_and_a_skip_are_tried(order, steps):
    """Neither happens; then the replay does what was shown."""
    failed(order, steps)
    before = everything(steps)
    replay = order.preview.replay("t_ship#0", {"paid": {"amount": 13}})
    assert (replay.replayed, replay.created, replay.scheduled) == (
        ("t_ship#0",),
        ("t_ship#1",),
        ("t_ship#1",),
    )
    assert str(replay) == "would replay t_ship#0\nwould create t_ship#1\nwould schedule t_ship#1"
    skip = order.preview.skip(order.storage["t_ship#0"], cascade=True, result={"parcel": 4})
    assert (skip.skipped, skip.scheduled) == (("t_ship#0",), ("t_tell#0",))
    assert str(skip.fired[0]) == "'t_ship' with {'parcel': 4} (firing 4), from t_ship#0"
    assert order.preview.skip("t_ship#0") == Preview(uid="order", skipped=("t_ship#0",))
    assert everything(steps) == before
    assert Watched.called == []
    assert order.replay_failed_instance("t_ship#0").name == replay.created[0]


def test_a_status_by_hand_is_tried(order, steps):
    """An attempt that would lose its claim is named, and still holds it."""
    order.fire("paid")
    attempt = steps.start("t_ship#0")
    tried = order.preview.update_instance_status("t_ship#0", "failed", {"by": "me"})
    assert (tried.failed, tried.interrupted) == (("t_ship#0",), ("t_ship#0",))
    assert [firing.trigger for firing in tried.fired] == ["t_ship:failed"]
    assert tried.scheduled == ("t_sorry#0",)
    assert str(tried).splitlines()[1:3] == ["would interrupt t_ship#0", "would fail t_ship#0"]
    done = order.preview.update_instance_status(
        "t_ship#0", "finished", cascade=True, cascade_kwargs={"parcel": 4}
    )
    assert (done.finished, done.scheduled, done.unheard) == (("t_ship#0",), ("t_tell#0",), ())
    assert not steps.finish(attempt).refused


def test_new_rules_are_tried(order):
    """What they would create and release is named, and the rules stay as they are."""
    more = {"t_more": {"after": ["packed"], "run": "shop.Tell"}}
    tried = order.preview.update_configuration(more, catch_up=True)
    assert (tried.configured, tried.created, tried.scheduled) == (True, ("t_more#0",), ("t_more#0",))
    less = order.preview.replace_configuration({"t_ship": {"after": ["packed"], "run": "shop.Ship"}})
    assert (less.configured, less.scheduled) == (True, ("t_ship#0",))
    later = order.preview.replace_configuration({"t_ship": {"after": ["never"], "run": "shop.Ship"}})
    assert later.waiting == ("t_ship#0",)
    assert str(later) == "would change the configuration\nwould leave t_ship#0 unstarted"
    assert set(order.storage.tasks) == set(RULES)
    same = order.preview.replace_configuration(RULES)
    assert (same, str(same)) == (Preview(uid="order", is_empty=True), "would change nothing")
    assert order.preview.fire("paid").scheduled == ("t_ship#0",), "previewed rules are not used"
    assert order.fire("paid").scheduled == ("t_ship#0",)


def test_a_review_that_finalizes_is_tried(order, steps):
    """A review is one of the acts that can complete a session."""
    order.replace_configuration({task: RULES[task] for task in ("t_ship", "t_close")})
    order.fire("paid")
    attempt = steps.start("t_ship#0")
    steps.keep_logs(attempt, batch(entry()))
    steps.finish(attempt)
    Watched.called.clear()
    tried = order.preview.mark_instance_logs_resolved("t_ship#0", by="me")
    assert (tried.finalized, tried.scheduled) == ("sessionFinalized", ("t_close#0",))
    partly = order.preview.mark_instance_logs_resolved("t_ship#0", records=[])
    assert (partly.is_empty, partly.finalized, str(partly)) == (False, None, "would change no status")
    assert (order.storage["t_ship#0"].log_reviews, Watched.called) == ([], [])


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (lambda one: one.fire("t_ship:failed"), InvalidNameError),
        (lambda one: one.fire("x" * 300), InvalidNameError),
        (lambda one: one.fire("paid", {"a": float("nan")}), InvalidValueError),
        (lambda one: one.update_configuration({"t": {"run": "r"}}), ConfigurationError),
        (lambda one: one.replace_configuration([]), ConfigurationError),
        (lambda one: one.mark_instance_logs_resolved("t_ship#0", through=1, records=[1]), ValueError),
        (lambda one: one.update_instance_status("t_ship#0", "done"), InvalidStatusError),
        (lambda one: one.update_instance_status("t_ship#0", "running"), InvalidStatusError),
        (lambda one: one.update_instance_status("t_ship#0", "failed", cascade=True), ValueError),
        (lambda one: one.update_instance_status("t_ship#7", "scheduled"), UnknownInstanceError),
    ],
)
def test_what_is_refused_is_refused_in_the_same_words(app, act, error):
    """Arguments and decisions: the preview raises what the method raises."""
    order = app.session("order")
    order.update_configuration(RULES)
    order.fire("packed")
    texts = []
    for one in (order.preview, order):
        with pytest.raises(error) as raised:
            act(one)
        texts.append(str(raised.value))
    assert texts[0] == texts[1]


def test_replays_and_skips_are_refused_in_the_same_words(app, order, steps):
    """Their methods have other names, and the same errors."""
    for preview, real in (
        (order.preview.replay, order.replay_failed_instance),
        (order.preview.skip, order.skip_failed_instance),
    ):
        texts = []
        for one in (preview, real):
            with pytest.raises(InvalidStatusError) as raised:
                one("t_ship#0")
            texts.append(str(raised.value))
        assert texts[0] == texts[1]
    with pytest.raises(ValueError, match="a result has no effect without cascade=True"):
        order.preview.skip("t_ship#0", result={})
    with pytest.raises(InvalidValueError):
        order.preview.replay("t_ship#0", {"paid": object()})
    with pytest.raises(UnknownSessionError):
        app.session("another").preview.skip("t_ship#0")
    failed(order, steps)
    order.replace_configuration({"t_tell": RULES["t_tell"]})
    with pytest.raises(UnknownTaskError):
        order.preview.replay("t_ship#0")


def test_a_session_is_not_created(app):
    """Its first firing and its first configuration can be tried."""
    new = app.session("new")
    tried = new.preview.fire("paid")
    assert (tried.new_session, tried.unheard) == (True, ("paid",))
    assert str(tried).startswith("would create the session\nwould fire 'paid'")
    assert new.preview.update_configuration(RULES).new_session
    assert not new.storage.exists


def test_only_the_own_manager_can_try(app, order):
    """A preview with another policy would show something else."""

    class Other(TriggerManager):
        """Another manager of the same storage."""

    with Triggers(app.storage, runner=None, manager=Other) as other, pytest.raises(ManagerMismatchError):
        other.session("order").preview.fire("paid")


def test_a_preview_can_be_sent(order, steps):
    """It is JSON, has every attribute, and is frozen."""
    failed(order, steps)
    tried = order.preview.skip("t_ship#0", cascade=True, result={"on": date(2026, 11, 30)})
    document = tried.to_json()
    assert json.loads(json.dumps(document)) == document
    assert (document["fired"][0], document["skipped"], document["unheard"]) == (
        {
            "number": 4,
            "trigger": "t_ship",
            "kwargs": {"on": {"$date": "2026-11-30"}},
            "source": "t_ship#0",
            "listeners": ["t_tell"],
        },
        ["t_ship#0"],
        [],
    )
    with pytest.raises(AttributeError):
        tried.skipped = ()


def test_a_storage_without_previews_says_so():
    """A reader of somebody else's that is older than previews: the error names the method."""

    class OldReader:
        """It can read sessions."""

    class OldStorage(MemoryStorage):
        """It works as before."""

        @property
        def reader(self):
            return OldReader()

    with (
        Triggers(OldStorage(), runner=None) as app,
        pytest.raises(StorageError, match=r"OldReader has no method preview\(uid, decision\).*add it"),
    ):
        app.session("s").preview.fire("paid")
