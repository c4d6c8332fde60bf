"""Timers on the command line: `fire --after` and `--at`, `timers`, `cancel-timer`, and what `explain` says."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import pytest

from triggers.storages.sqlite import SqliteStorage
from triggers.testing import TriggersHarness

FUTURE = "2100-01-31T12:00:00Z"
SHOWN = "2100-01-31T12:00:00.000000Z"
AT = datetime(2100, 1, 31, 12, tzinfo=UTC)


def set_timers(place, count=3):
    """A session with so many timers, a minute apart."""
    with place.open(runner=None) as app:
        for number in range(count):
            at = AT + timedelta(minutes=number)
            app.session("s").fire_later("x", {"n": number}, at=at, name=f"number {number}")


# -- fire ---------------------------------------------------------------------------------------------------


def test_a_trigger_can_be_fired_at_a_time(place):
    """The timer is stored, with its kwargs, its key and its name; a second one with the name replaces it."""
    given = ["fire", "s", "x", "-p", "page=3", "--key", "k", "--at", FUTURE, "--name", "later"]
    document = {"uid": "s", "trigger": "x", "timer": "later", "at": SHOWN}
    assert place.json(*given) == {**document, "new_session": True}
    assert place.json(*given) == {**document, "new_session": False}
    assert place.lines("timers", "s") == [
        {
            "name": "later",
            "at": SHOWN,
            "kind": "fires",
            "trigger": "x",
            "kwargs": {"page": 3},
            "key": "k",
            "instance": None,
            "problem": None,
        }
    ]
    assert place.json("show", "s")["firings"] == 0


@pytest.mark.parametrize(
    ("written", "length"),
    [
        ("P3D", timedelta(days=3)),
        ("PT1H30M", timedelta(minutes=90)),
        ("3d", timedelta(days=3)),
        ("1h30m", timedelta(minutes=90)),
    ],
)
def test_a_trigger_can_be_fired_later(place, written, length):
    """The time counts from when the timer is stored."""
    before = datetime.now(UTC)
    found = place.json("fire", "s", "x", "--after", written)
    after = datetime.now(UTC)
    assert before + length <= datetime.fromisoformat(found["at"]) <= after + length
    assert [timer["name"] for timer in place.lines("timers", "s")] == [found["timer"]]


def test_people_see_when_it_fires(place):
    """In words, with the name of the timer, for a new session with its manager."""
    text = place.run(
        "fire", "s", "x", "--at", "2100-01-31T13:00+01:00", "--name", "a\u202eb" + "x", code=2
    ).stderr
    assert "\\u202e" in text
    text = place.run("fire", "s", "x", "--at", "2100-01-31T13:00+01:00", "--name", "later").stdout
    assert text == (
        "x fires at 2100-01-31 12:00:00 UTC (timer later)\ncreated the session, with the manager default\n"
    )


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--after", "P1Y"], "years and months have no fixed length"),
        (["--after", "P1"], "must be a timedelta, or an ISO 8601 duration"),
        (["--after", "0s"], "must be longer than zero"),
        (["--after", "soon"], "write numbers with units, such as 30d"),
        (["--after", "99999999999w"], "too long a duration"),
        (["--at", "2100-01-31T12:00:00"], "is not a time with an offset"),
        (["--at", "tomorrow"], "is not a time with an offset"),
        (["--at", FUTURE, "--after", "3d"], "--after and --at exclude each other"),
        (["--name", "later"], "--name is the name of a timer: it needs --after or --at"),
    ],
)
def test_a_wrong_time_is_wrong_use(place, given, words):
    """Exit code 2 and one line that says what to write; no session is made."""
    place.open().close()
    result = place.run("fire", "s", "x", *given, code=2)
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert place.lines("sessions") == []


def test_a_sweep_lets_a_timer_elapse(place):
    """With --app, what it fires runs in this process."""
    app = ["--app", "survey_app:inline"]
    rules = json.dumps({"t_one": {"after": ["x"], "run": "survey.ok"}})
    place.run("configure", "s", "-", *app, stdin=rules, storage=False)
    place.run("fire", "s", "x", "--at", "2020-01-31T12:00Z", *app, storage=False)
    assert place.json("show", "s")["instances"] == []
    place.run("sweep", *app, storage=False)
    assert [one["status"] for one in place.json("show", "s")["instances"]] == ["finished"]
    assert place.lines("timers", "s") == []


# -- timers -------------------------------------------------------------------------------------------------


def test_timers_are_listed_in_their_order(place):
    """All of them, or as many as were asked for, with a hint that there are more."""
    set_timers(place, 120)
    assert [one["kwargs"]["n"] for one in place.lines("timers", "s", "--limit", "0")] == [*range(120)]
    assert len(place.lines("timers", "s")) == 50
    text = place.run("timers", "s", "--limit", "2").stdout
    assert "2100-01-31 12:00:00  fires x n=0" in text
    assert text.endswith("There are more timers: --limit 0 shows all.\n")
    assert "more timers" not in place.run("timers", "s", "--limit", "120").stdout


def test_timers_of_instances_say_what_happens(place):
    """They have no name; those that were put aside have a problem."""
    rules = {
        "t_slow": {"after": ["x"], "delay": "P3D", "run": "survey.ok"},
        "t_two": {"after": ["x", "y"], "deadline": "P7D", "run": "survey.ok"},
    }
    with TriggersHarness(storage=lambda clock: SqliteStorage(place.url, clock=clock)) as harness:
        session = harness.session("s")
        harness.stand_in("survey.ok", result={})
        session.fire_later("t_two:missed", after="P1D", name="wrong")
        session.update_configuration({**rules, "t_chase": {"after": ["t_two:missed"], "run": "survey.ok"}})
        harness.advance(timedelta(days=1))
        session.fire("x")
    found = place.lines("timers", "s")
    assert [(one["kind"], one["instance"], one["name"]) for one in found] == [
        ("delay", "t_slow#0", None),
        ("deadline", "t_two#0", None),
        ("fires", None, "wrong"),
    ]
    assert "is an outcome of the task 't_two' now" in found[-1]["problem"]
    assert found[-1]["at"] == "2026-01-02T00:00:00.000000Z"
    text = place.run("timers", "s").stdout
    assert "t_slow#0 starts" in text
    assert "t_two#0 is late" in text
    assert "put aside" in text


def test_a_session_without_timers_says_so(place):
    """An unknown session is an error, for people and for programs."""
    place.run("fire", "s", "x")
    assert place.run("timers", "s").stdout == "The session has no timers.\n"
    assert place.lines("timers", "s") == []
    assert place.error("timers", "nobody", code=1)["type"] == "UnknownSessionError"


# -- cancel-timer -------------------------------------------------------------------------------------------


def test_a_timer_is_canceled_once(place):
    """The second time, there is none: exit code 1, with the name that was probably meant."""
    set_timers(place)
    assert place.run("cancel-timer", "s", "number 1").stdout == "number 1 was canceled\n"
    text = place.run("cancel-timer", "s", "number_2", code=1).stdout
    assert text == "s has no timer number_2; did you mean 'number 2'?\n"
    document = {"uid": "s", "timer": "number 0", "canceled": True}
    assert place.json("cancel-timer", "s", "number 0") == document
    assert place.json("cancel-timer", "s", "number 0", code=1) == {**document, "canceled": False}
    assert [one["name"] for one in place.lines("timers", "s")] == ["number 2"]
    assert place.error("cancel-timer", "nobody", "x", code=1)["type"] == "UnknownSessionError"


# -- show and explain ---------------------------------------------------------------------------------------


def test_explain_has_times_as_text(place):
    """For people in the sentence; for programs in ISO 8601, like all times."""
    rules = {"t_slow": {"after": ["x", "y"], "delay": "P3D", "unless": ["z"], "run": "survey.ok"}}
    place.run("configure", "s", "-", stdin=json.dumps(rules))
    place.run("fire", "s", "x")
    place.run("fire", "s", "y", "--at", FUTURE)
    (waiting,) = place.json("explain", "s", "t_slow")["waiting"]
    assert waiting["timers"] == {"y": ["fires", SHOWN]}
    assert waiting["timing"][0] == "It starts 3 d after its condition is met"
    assert waiting["late_since"] is None
    place.run("fire", "s", "y")
    text = " ".join(place.run("explain", "s", "t_slow").stdout.split())
    assert "t_slow#0 starts at " in text
    assert text.endswith("unless z fires before.")
    (instance,) = place.json("show", "s")["instances"]
    assert (instance["status"], instance["run_at"]) == ("unstarted", None)
    assert "its delay has not ended" in place.run("show", "s").stdout


def test_show_says_that_a_deadline_abandoned_an_instance(place):
    """With the deadline that it missed."""
    rules = {"t_two": {"after": ["x", "y"], "deadline": {"in": "PT0.001S", "late": "abandon"}, "run": "r"}}
    place.run("configure", "s", "-", stdin=json.dumps(rules))
    place.run("fire", "s", "x")
    place.run("fire", "s", "z")
    text = place.run("show", "s").stdout
    assert "abandoned" in text
    assert "missed its deadline of " in text
