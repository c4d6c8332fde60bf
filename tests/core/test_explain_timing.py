"""What an explanation says about timers: until when an instance waits, and what happens then."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest

from triggers.core.durations import micros
from triggers.core.timing_in_words import Due, length
from triggers.session import PAGE
from triggers.storages.memory import MemoryStorage
from triggers.testing import TriggersHarness

if TYPE_CHECKING:
    from triggers.core.explain import Waiting

RUN = {"run": "triggers.testing.PassThrough"}
START = datetime(2026, 1, 1, tzinfo=UTC)
SOON = "with the next sweep, or the next change of the session"


def hours(number: float) -> timedelta:
    return timedelta(hours=number)


@pytest.fixture
def harness():
    """An application whose clock stands at the beginning of 2026."""
    with TriggersHarness() as made:
        assert made.clock.time == START
        yield made


def configured(harness, **rules):
    """A session with these rules."""
    session = harness.session("s")
    session.update_configuration({task: {**RUN, **rule} for task, rule in rules.items()})
    return session


def waiting(session, task="t") -> Waiting:
    (found,) = session.storage.explain(task).waiting
    return found


def said(session, task="t") -> str:
    """What is said about the instance, after the counts."""
    return session.storage.explain(task).sentence.partition("unstarted instance. ")[2]


@pytest.mark.parametrize(
    ("duration", "words"),
    [
        (timedelta(0), "less than 1 s"),
        (timedelta(milliseconds=999), "less than 1 s"),
        (timedelta(seconds=59), "59 s"),
        (timedelta(seconds=60), "1 min"),
        (timedelta(hours=2, minutes=5, seconds=59), "2 h 5 min"),
        (timedelta(hours=2, seconds=59), "2 h"),
        (timedelta(days=3, minutes=59), "3 d"),
        (timedelta(days=400, hours=1), "400 d 1 h"),
    ],
)
def test_lengths_have_two_units_at_most(duration, words):
    """The two greatest units, and none that is zero."""
    assert length(micros(duration)) == words


# -- delays -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("unless", "words"),
    [
        ([], ""),
        (["done"], ", unless done fires before"),
        (["done", "left"], ", unless done and left have fired before"),
        ({"any": ["done", "left"]}, ", unless done or left fires before"),
    ],
)
def test_a_delay_says_when_the_instance_starts(harness, unless, words):
    """The end of the delay, how long that takes, and which veto can still stop it."""
    session = configured(harness, t={"after": ["go"], "delay": "P3D", "unless": unless})
    session.fire("go")
    harness.advance(timedelta(days=2, hours=21, minutes=55))
    assert said(session) == f"t#0 starts at 2026-01-04 00:00:00 UTC, in 2 h 5 min{words}."
    found = waiting(session)
    assert found.timers == {"t#0": Due("delay", START + timedelta(days=3))}
    assert (found.lacks, found.late_since) == ((), None)
    harness.advance(hours(3))
    assert session.storage.explain("t").sentence == "t has 1 finished instance."


def test_a_delay_that_is_over_waits_for_a_sweep(harness):
    """The instance does not wait for its triggers again."""
    session = configured(harness, t={"after": ["go"], "delay": "PT1H", "unless": ["done"]})
    session.fire("go")
    harness.clock.advance(hours(2))
    assert said(session) == f"t#0 starts {SOON}, as of 2026-01-01 01:00:00 UTC."


def test_a_delay_follows_the_condition(harness):
    """As long as triggers are missing, the delay has no end."""
    session = configured(harness, t={"after": ["go", "more"], "delay": "PT90M"})
    sentence = (
        "t has no instance yet. t waits for go and more. It starts 1 h 30 min after its condition is met."
    )
    assert session.storage.explain("t").sentence.replace(" (it needs go and more)", "") == sentence
    session.fire("go")
    assert said(session) == (
        "t#0 waits for more (it needs go and more). It starts 1 h 30 min after its condition is met."
    )


@pytest.mark.parametrize(
    ("longest", "words"), [({}, ""), ({"atMost": "PT5M"}, ", until 2026-01-01 00:05:00 UTC at the latest")]
)
def test_a_delay_that_starts_again_says_so(harness, longest, words):
    """And until when, if there is a limit."""
    session = configured(
        harness, t={"andEvery": "page", "delay": {"for": "PT1M", "since": "last", **longest}}
    )
    session.fire("page")
    harness.advance(timedelta(seconds=30))
    session.fire("page")
    harness.advance(timedelta(seconds=30))
    assert said(session) == (
        "t#0 starts at 2026-01-01 00:01:30 UTC, in 30 s. "
        f"Each further firing of its triggers starts the delay again{words}."
    )
    harness.clock.advance(hours(1))
    assert said(session) == f"t#0 starts {SOON}, as of 2026-01-01 00:01:30 UTC."


# -- deadlines --------------------------------------------------------------------------------------------


def test_a_deadline_says_when_the_instance_is_late(harness):
    """And what fires then, if a rule names it."""
    session = configured(harness, t={"after": ["a", "b"], "deadline": "PT4H"})
    session.fire("a")
    begin = "t#0 waits for b (it needs a and b). It is late at 2026-01-01 04:00:00 UTC, in 4 h"
    assert said(session) == f"{begin}."
    session.update_configuration({"t_chase": {**RUN, "after": ["t:missed"]}})
    assert said(session) == f"{begin}; then t:missed fires."
    assert waiting(session).timers == {"t#0": Due("deadline", START + hours(4))}
    chased = session.storage.explain("t_chase")
    assert chased.sentence.endswith(
        "The trigger t:missed fires when the task t misses its deadline; "
        "t#0 is unstarted and is late at 2026-01-01 04:00:00 UTC."
    )
    assert chased.waiting[0].timers == {"t#0": Due("deadline", START + hours(4))}


def test_an_instance_that_is_late_says_since_when(harness):
    """Whether the sweep has seen it or not; it continues to wait."""
    session = configured(harness, t={"after": ["a", "b"], "deadline": "PT4H"})
    session.fire("a")
    harness.clock.advance(hours(5))
    begin = "t#0 waits for b (it needs a and b)."
    assert said(session) == f"{begin} Its deadline was 2026-01-01 04:00:00 UTC; {SOON}, it is late."
    session.update_configuration({"t_chase": {**RUN, "after": ["t:missed"]}})
    assert said(session) == f"{begin} It has been late since 2026-01-01 04:00:00 UTC."
    found = waiting(session)
    assert (found.late_since, found.timers) == (START + hours(4), {})
    assert "missed" not in session.storage["t#0"].timestamps


@pytest.mark.parametrize("heard", [False, True])
def test_a_deadline_that_abandons_says_how_much_time_is_left(harness, heard):
    """Before it, when it is due, and after it."""
    chase = {"t_chase": {"after": ["t:missed"]}} if heard else {}
    late = {"in": "PT4H", "late": "abandon"}
    session = configured(harness, t={"after": ["a", "b", "c"], "deadline": late}, **chase)
    session.fire("a")
    harness.advance(hours(2))
    then = " If it is late, t:missed fires, too." if heard else ""
    assert said(session).partition("). ")[2] == (
        f"It is abandoned unless its condition is met by 2026-01-01 04:00:00 UTC; 2 h left.{then}"
    )
    session.fire("b")
    assert said(session).partition("). ")[2] == (
        f"It is abandoned unless c fires by 2026-01-01 04:00:00 UTC; 2 h left.{then}"
    )
    harness.clock.advance(hours(2))
    fires = "t:missed fires and " if heard else ""
    assert said(session).partition("). ")[2] == (
        f"Its deadline was 2026-01-01 04:00:00 UTC; {SOON}, {fires}it is abandoned."
    )
    harness.advance(hours(1))
    found = session.storage.explain("t")
    assert found.sentence == (
        "t has 1 abandoned instance. "
        "t#0 was abandoned because it missed its deadline of 2026-01-01 04:00:00 UTC."
    )
    assert found.vetoed_by == {}


def test_a_late_instance_that_is_abandoned_by_hand_says_that(harness):
    """The deadline has not abandoned it."""
    session = configured(harness, t={"after": ["a", "b"], "deadline": "PT4H"})
    session.fire("a")
    harness.advance(hours(5))
    session.update_instance_status("t#0", "abandoned")
    assert session.storage.explain("t").sentence == "t has 1 abandoned instance. t#0 was abandoned by hand."


def test_a_deadline_that_has_not_begun_says_what_begins_it(harness):
    """As long as the trigger from which it counts has not fired."""
    session = configured(harness, t={"after": ["a", "b", "c"], "deadline": {"in": "P1D", "from": "b"}})
    begins = "Its deadline is 1 d after b fires."
    assert session.storage.explain("t").sentence.endswith(begins)
    session.fire("a")
    assert said(session).endswith(begins)
    session.fire("b")
    assert said(session).endswith("It is late at 2026-01-02 00:00:00 UTC, in 1 d.")


# -- timers that fire -------------------------------------------------------------------------------------


def test_a_timer_that_will_fire_a_trigger_is_named(harness):
    """The first one for each trigger that is lacking, and no other."""
    session = configured(harness, t={"after": ["a", "b", "c"]})
    session.fire("a")
    for trigger, after in (("b", 5), ("b", 3), ("a", 1), ("other", 2)):
        session.fire_later(trigger, after=hours(after))
    assert said(session).endswith(
        "t#0 waits for b and c (it needs a and b and c). A timer fires b at 2026-01-01 03:00:00 UTC, in 3 h."
    )
    assert waiting(session).timers == {"b": Due("fires", START + hours(3))}
    harness.clock.advance(hours(4))
    assert said(session).endswith(f"A timer fires b {SOON}, as of 2026-01-01 03:00:00 UTC.")


def test_a_timer_that_was_put_aside_fires_nothing(harness):
    """It is not named, because it does not elapse."""
    session = configured(harness, t={"after": ["x"]})
    session.fire_later("t:failed", after=hours(1))
    session.fire_later("late", after=hours(9))
    session.update_configuration({"t_clean": {**RUN, "after": ["t:failed"]}})
    harness.advance(hours(2))
    assert waiting(session, "t_clean").timers == {}


def test_an_instance_finds_its_timer_among_many(harness):
    """Its own is read by name, so the number of earlier timers makes no difference."""
    session = configured(harness, t={"after": ["a", "b"], "deadline": "PT4H"})
    session.fire("a")
    for number in range(PAGE + 1):
        session.fire_later(f"x{number}", after=hours(1))
    assert waiting(session).timers == {"t#0": Due("deadline", START + hours(4))}


def test_timers_cost_a_session_without_timers_nothing(harness, monkeypatch):
    """A session that has timers reads two pages of them."""
    reads = []
    read = MemoryStorage.timers

    def counted(self, *given, **named):
        reads.append([*named])
        return read(self, *given, **named)

    monkeypatch.setattr(MemoryStorage, "timers", counted)
    session = configured(harness, t={"after": ["a", "b"], "deadline": "PT4H"})
    session.storage.explain("t")
    assert reads == []
    session.fire("a")
    session.storage.explain("t")
    assert reads == [["names"], ["limit"]]
