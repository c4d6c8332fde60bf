"""Break what keeps time, and the check that passes without the break fails."""

from __future__ import annotations

import pytest

from tests.storages.test_memory import memory_place
from tests.storages.test_timed_histories import CHAIN, on_each_schedule
from triggers.core import rules
from triggers.core.decisions import rescue, timing
from triggers.core.decisions.unit_of_work import UnitOfWork
from triggers.core.rules import read_rules
from triggers.core.state import Instance
from triggers.testing.conformance.outcomes import Outcomes
from triggers.testing.conformance.timing import Timing


def any_schedule():
    """No schedule of sweeps changes anything, and the head is never late."""
    on_each_schedule(memory_place, CHAIN, 1)


def promise(test):
    """Return a check that is a test of the conformance suite, on memory."""

    def check():
        place = memory_place()
        getattr(Timing(), test)(place=place, storage=place.open())

    return check


def forgetful(patch):
    """A decision does not look at timers first."""
    patch.setattr(UnitOfWork, "look_at_timers", lambda work: None)


def late(patch):
    """A timer elapses as of the sweep's time instead of its own."""
    elapse = timing._elapse

    def elapse_now(work, timer):
        work.at = work.session.modified_at = work.session.now
        yield from elapse(work, timer)

    patch.setattr(timing, "_elapse", elapse_now)


def in_one_settling(patch):
    """What follows at the end of a decision does not happen after each timer, but after a firing only."""
    patch.setattr(timing, "settle", lambda work: iter(()))


def alone(patch):
    """A recovery whose failure fires an outcome does not ask for the session."""
    patch.setattr(rescue, "_is_heard", lambda work, task: False)


def late_head(patch):
    """The time in the head stays that of the timer that was set first."""
    set_timer = UnitOfWork.set_timer

    def set_later(work, timer):
        before = work.session.next_timer_at
        set_timer(work, timer)
        work.session.next_timer_at = before if before is not None else work.session.next_timer_at

    patch.setattr(UnitOfWork, "set_timer", set_later)


def careless_with_keys(patch):
    """A timer fires, although another firing has used its key."""
    fire = timing._fire
    patch.setattr(timing, "_fire", lambda work, timer: fire(work, timer._replace(key=None)))


def keeps_the_first(patch):
    """An instance whose delay begins again keeps the first firing that it has received."""
    record = UnitOfWork.record_trigger

    def keep(work, instance, rule, trigger):
        before = dict(instance.taken)
        record(work, instance, rule, trigger)
        instance.taken.update(before)

    patch.setattr(UnitOfWork, "record_trigger", keep)


def twice(patch):
    """A timer that has elapsed is still stored."""
    elapse = timing._elapse

    def keep(work, timer):
        del work.changes.timers[timer.name]
        yield from elapse(work, timer)

    patch.setattr(timing, "_elapse", keep)


def loads_once(patch):
    """A timer that another one has set elapses without what it needs."""
    need_of = timing._need_of
    asked = []

    def first_only(work, due):
        asked.append(work)
        return need_of(work, due if asked.count(work) == 1 else ())

    patch.setattr(timing, "_need_of", first_only)


def misses_again(patch):
    """A deadline that was missed can begin again."""
    patch.setattr(Instance, "has_missed", False)


def healthy():
    """A session in which nothing fails is finalized without its task for failures."""
    Outcomes().test_a_healthy_session_is_finalized_without_its_clean_up(memory_place().open())


def counts_all(patch):
    """Exceptional tasks count like all others."""
    patch.setattr(rules, "exceptional_tasks", lambda conditions, names: frozenset())


@pytest.mark.parametrize(
    ("mutant", "check"),
    [
        (forgetful, any_schedule),
        (forgetful, promise("test_a_decision_lets_timers_elapse_first")),
        (late, any_schedule),
        (late, promise("test_a_missed_deadline_fires_as_of_its_time")),
        (in_one_settling, promise("test_what_comes_after_its_deadline_can_be_abandoned")),
        (alone, promise("test_a_recovery_lets_timers_elapse_first")),
        (late_head, any_schedule),
        (counts_all, healthy),
        (careless_with_keys, promise("test_a_used_key_fires_nothing")),
        (keeps_the_first, promise("test_a_burst_of_firings_leads_to_one_run")),
        (twice, promise("test_a_timer_fires_as_of_its_time")),
        (loads_once, promise("test_a_deadline_can_begin_and_pass_before_anybody_looks")),
        (misses_again, promise("test_a_deadline_that_begins_again_is_missed_once")),
    ],
)
def test_a_mutant_is_killed(mutant, check, monkeypatch):
    """The check passes, and fails with the mutant."""
    check()
    read_rules.cache_clear()
    mutant(monkeypatch)
    with pytest.raises(AssertionError):
        check()
    read_rules.cache_clear()
