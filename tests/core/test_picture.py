"""Previews of sessions with due timers: what they see is what the timers would leave behind."""

from __future__ import annotations

from datetime import timedelta

from triggers.core import decisions, picture
from triggers.core.configuration import check_configuration
from triggers.core.picture import in_picture
from triggers.core.state import new_firing
from triggers.core.status import Status
from triggers.testing.conformance.outcomes import rules
from triggers.testing.conformance.timing import changes_without_times

BEFORE = rules(
    t_remind={"after": ["a"], "delay": "P3D"},
    t_x={"after": ["b", "c"], "deadline": "PT5S"},
    t_removed={"after": ["a", "z"]},
)
AFTER = rules(
    t_remind={"after": ["a"], "delay": "P9D"},
    t_x={"after": ["b", "c"], "deadline": "PT9S"},
    t_new={"andEvery": "a"},
)


def test_new_rules_see_what_has_elapsed(steps, clock):
    """A delay that has begun, a deadline that has passed, a firing that a new task catches up with."""
    steps.configure(BEFORE)
    steps.fire("b")
    steps.fire_later("a", timedelta(seconds=10))
    clock.advance(timedelta(seconds=60))
    decision = decisions.configure(steps.policy, check_configuration(AFTER), catch_up=True)
    preview = steps.preview(decision)
    changes = steps.commit(decision)
    assert changes_without_times(preview) == changes_without_times(changes)
    assert preview.timers == changes.timers
    assert [instance.name for instance in preview.created] == ["t_new#0"]
    assert set(preview.timers) == {"\x1ft_remind#0"}, "the deadline has been missed"


def test_a_new_instance_gets_what_a_timer_would_have_fired(steps, clock):
    """As with the call itself."""
    steps.configure(rules(t_x={"after": ["a"], "andEvery": "b"}))
    steps.fire_later("a", timedelta(seconds=10))
    clock.advance(timedelta(seconds=60))
    for _ in range(2):
        decision = decisions.fire(steps.policy, new_firing("b"))
        preview = steps.preview(decision)
        assert changes_without_times(preview) == changes_without_times(steps.commit(decision))
        assert [instance.status for instance in preview.scheduled()] == ["scheduled"]
        steps.fire_later("a", timedelta(seconds=10))
        clock.advance(timedelta(seconds=60))


def test_new_rules_leave_what_a_timer_would_have_scheduled(steps, clock):
    """It does not wait any more, so it is not decided again."""
    steps.configure(rules(t_x={"after": ["a"], "delay": "PT5S"}))
    steps.fire("a")
    clock.advance(timedelta(seconds=60))
    decision = decisions.configure(steps.policy, check_configuration(rules(t_x=["b"])))
    preview = steps.preview(decision)
    assert changes_without_times(preview) == changes_without_times(steps.commit(decision))
    assert preview.triggered == []


def test_an_instance_that_only_a_timer_would_create(steps, clock):
    """A decision about it can be previewed."""
    steps.configure(rules(t_x=["a", "b"]))
    steps.fire_later("a", timedelta(seconds=10))
    clock.advance(timedelta(seconds=60))
    decision = decisions.set_status(steps.policy, "t_x", 0, Status.ABANDONED)
    preview = steps.preview(decision)
    assert [(instance.name, instance.status) for instance, _ in preview.transitioned] == [
        ("t_x#0", "abandoned")
    ]
    assert steps.storage.reader.instance(steps.uid, "t_x", 0) is None


def test_only_some_timers_elapse_in_a_picture(steps, clock, monkeypatch):
    """If more are due, the preview is that of a moment between them."""
    monkeypatch.setattr(picture, "MAX_TIMERS", decisions.AT_ONCE)
    steps.configure({})
    for number in range(decisions.AT_ONCE + 1):
        steps.fire_later("a", timedelta(seconds=10), name=str(number))
    clock.advance(timedelta(seconds=60))
    own = decisions.fire(steps.policy, new_firing("own"))
    assert steps.preview(own).fired[0].number == decisions.AT_ONCE + 1
    assert steps.commit(own).fired[0].number == decisions.AT_ONCE + 2


def test_a_process_without_the_manager_cannot_let_them_elapse(steps, clock):
    """The preview is refused, as the call would be."""
    steps.configure({})
    steps.fire_later("a", timedelta(seconds=10))
    clock.advance(timedelta(seconds=60))
    own = decisions.fire(steps.policy, new_firing("own"))
    assert steps.storage.reader.preview(steps.uid, in_picture(own, lambda _: None)).refused
