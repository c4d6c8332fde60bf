"""The rules about time: what is accepted, every problem of what is not, and the warnings."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggers.core.configuration import check_configuration, json_schema
from triggers.core.durations import EXAMPLE, read_duration
from triggers.core.rule_warnings import rule_warnings
from triggers.core.timing import read_deadline, read_delay
from triggers.exceptions import ConfigurationError
from triggers.testing.conformance import strategies
from triggers.testing.conformance.outcomes import rules

NOTATION = f"must be a timedelta, or an ISO 8601 duration without years and months, such as {EXAMPLE}"
CALENDAR = f"{NOTATION}; years and months have no fixed length: write days, such as 'P30D' or 'P365D'"
NUMBER = f"{NOTATION}; a number has no unit: 60 seconds are 'PT60S'"
LENGTH = "must be longer than zero and at most 100 years"
CIRCLE = "outcomes lead from this task back to itself without a run between them"

#: Durations that are valid, in the notation.
DURATIONS = ["PT0.000001S", "PT30S", "PT10M", "PT1H30M", "P3D", "P2W", "P1W2DT3H4M5.5S"]

SCHEMA = jsonschema.Draft202012Validator(json_schema())


def problems(configuration) -> list[tuple[str, str]]:
    with pytest.raises(ConfigurationError) as error:
        check_configuration(configuration)
    return list(error.value.problems)


def task(**written):
    return rules(t={"after": ["a", "b"], **written})


def warnings(**written) -> dict[str, str]:
    return dict(rule_warnings(check_configuration(rules(**written))))


# -- what is accepted -------------------------------------------------------------------------------------


DELAYS: list[Any] = [
    *DURATIONS,
    {"for": "P3D"},
    {"for": "P3D", "since": "first"},
    {"for": "PT30S", "since": "last"},
    {"for": "PT30S", "since": "last", "atMost": "PT30S"},
]

DEADLINES: list[Any] = [
    *DURATIONS[1:],
    {"in": "P3D"},
    {"in": "PT1H", "from": None, "late": "wait"},
    {"in": "PT1H", "late": "abandon"},
]


@given(
    strategies.configurations(),
    st.lists(st.sampled_from([None, *DELAYS])),
    st.lists(st.sampled_from([None, *DEADLINES])),
)
def test_every_form_is_accepted_by_the_check_and_by_the_schema(configuration, delays, deadlines):
    """It is left as it was written, and is stored so that it is read as it was written."""
    for key, values in (("delay", delays), ("deadline", deadlines)):
        for rule, value in zip(configuration.values(), values, strict=False):
            rule.update({key: value} if value else {})
    before = json.dumps(configuration)
    found = check_configuration(configuration)
    SCHEMA.validate(configuration)
    assert json.dumps(configuration) == before
    assert found.unsupported == ()
    for name, rule in found.rules.items():
        written = configuration[name]
        assert (rule.delay is not None, rule.deadline is not None) == (
            "delay" in written,
            "deadline" in written,
        )
        again = rule.serialize()
        assert "delay" not in again or read_delay(again["delay"]) == rule.delay
        assert "deadline" not in again or read_deadline(again["deadline"]) == rule.deadline


@given(st.timedeltas(timedelta(microseconds=1), timedelta(days=36_500)))
def test_every_timedelta_is_a_duration(duration):
    """From a microsecond to 100 years, as it is."""
    assert read_duration(duration) == duration
    assert check_configuration(task(delay=duration)).rules["t"].delay.pause == duration


# -- what is refused --------------------------------------------------------------------------------------


@pytest.mark.parametrize("directive", ["delay", "deadline"])
@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("P1Y", CALENDAR),
        ("P6M", CALENDAR),
        ("P1Y2M3DT4H", CALENDAR),
        (60, NUMBER),
        (0.5, NUMBER),
        (True, NOTATION),
        ([], NOTATION),
        ("P", NOTATION),
        ("PT", NOTATION),
        ("P1DT", NOTATION),
        ("P1D2H", NOTATION),
        ("PT1.5H", NOTATION),
        ("3 days", NOTATION),
        ("p3d", f"{NOTATION}; did you mean 'P3D'?"),
        (" PT5M\n", f"{NOTATION}; did you mean 'PT5M'?"),
        (f" P{'9' * 1000}D", NOTATION),
        ("PT0S", LENGTH),
        ("P0D", LENGTH),
        (timedelta(0), LENGTH),
        (timedelta(days=-1), LENGTH),
        ("P36501D", LENGTH),
        ("P9999999999999D", LENGTH),
    ],
)
def test_a_duration_can_be_wrong_in_each_way(directive, written, message):
    """The path leads to it, alone or within the longer form, and the message says what to write."""
    assert problems(task(**{directive: written})) == [(f"t.{directive}", message)]
    key = {"delay": "for", "deadline": "in"}[directive]
    assert problems(task(**{directive: {key: written}})) == [(f"t.{directive}.{key}", message)]


KEYS_OF_DELAY = "is not allowed here: delay has the keys for, since and atMost"
KEYS_OF_DEADLINE = "is not allowed here: deadline has the keys in, from and late"


@pytest.mark.parametrize(
    ("directive", "written", "path", "message"),
    [
        ("delay", {}, "for", "is missing"),
        ("delay", {"since": "last"}, "for", "is missing"),
        ("delay", {"for": "PT1M", "since": "latest"}, "since", "must be 'first' or 'last'"),
        ("delay", {"for": "PT1M", "since": None}, "since", "must be 'first' or 'last'"),
        ("delay", {"for": "PT1M", "until": "PT2M"}, "until", KEYS_OF_DELAY),
        ("delay", {"for": "PT1M", "since": "last", "atMost": None}, "atMost", NOTATION),
        (
            "delay",
            {"for": "PT1M", "atMost": "PT2M"},
            "",
            'has atMost, which is only useful with "since": "last"',
        ),
        (
            "delay",
            {"for": "PT1M", "since": "last", "atMost": "PT2S"},
            "",
            "has an atMost that is shorter than its for",
        ),
        ("deadline", {}, "in", "is missing"),
        ("deadline", {"in": "PT1M", "late": "fail"}, "late", "must be 'wait' or 'abandon'"),
        ("deadline", {"in": "PT1M", "late": True}, "late", "must be 'wait' or 'abandon'"),
        ("deadline", {"in": "PT1M", "within": "PT1M"}, "within", KEYS_OF_DEADLINE),
        ("deadline", {"in": "PT1M", "Late": "wait"}, "Late", KEYS_OF_DEADLINE),
        ("deadline", {"in": "PT1M", "from": ["a"]}, "from", "a name must be a string, not list"),
    ],
)
def test_the_longer_forms_can_be_wrong_in_each_way(directive, written, path, message):
    """One problem, one path, one message; what has the wrong shape is refused by the schema, too."""
    wrong = task(**{directive: written})
    assert problems(wrong) == [(".".join(filter(None, ("t", directive, path))), message)]
    if path:  # what depends on two keys is not a matter of shape
        with pytest.raises(jsonschema.ValidationError):
            SCHEMA.validate(wrong)


@pytest.mark.parametrize(
    "written", ["P1Y", "P1M", "PT0S", "P", "PT", "P1DT", "p3d", "PT1.5H", 60, [], True, {}]
)
def test_the_schema_refuses_what_is_not_a_duration(written):
    """An editor marks it while somebody writes it."""
    with pytest.raises(jsonschema.ValidationError):
        SCHEMA.validate(task(delay=written))


def test_a_deadline_begins_with_a_trigger_of_its_task():
    """Otherwise it would never begin. `andEvery` is one, and a veto is not."""
    begins = {"in": "PT1M", "from": "page_received"}
    assert problems(
        rules(t={"after": ["pageReceived"], "unless": ["page_received"], "deadline": begins})
    ) == [
        (
            "t.deadline.from",
            (
                "must be one of the triggers that the task waits for, and 'page_received' is not in after; "
                "did you mean 'pageReceived'?"
            ),
        )
    ]
    assert check_configuration(rules(t={"andEvery": "page_received", "deadline": begins})).rules


@pytest.mark.parametrize("unless", [["t:missed"], {"any": ["x", {"all": ["y", "t:missed"]}]}])
def test_a_task_is_not_vetoed_by_its_own_deadline(unless):
    """With andEvery, that would stop every later instance."""
    ((path, message),) = problems(task(deadline="PT1M", unless=unless))
    assert path == "t.unless"
    assert message.startswith("t:missed would also stop every later instance: write 'deadline'")
    other = {"t_y": {"after": ["a"], "unless": ["t:missed"]}}
    assert check_configuration(task(deadline="PT1M") | rules(**other)).outcomes == {"t:missed"}


def test_a_task_cannot_wait_for_a_deadline_that_does_not_exist():
    """The message says that the other task has none."""
    both = rules(t_x=["go"], t_chase=["t_x:missed"])
    message = "can never start: it waits for t_x:missed, but t_x has no deadline that it could miss"
    assert problems(both) == [("t_chase.after", message)]
    both["t_x"]["deadline"] = "PT1H"
    assert check_configuration(both).outcomes == {"t_x:missed"}


def test_a_task_without_instances_misses_no_deadline():
    """Two tasks that wait for each other's deadlines never have an instance. One event from outside is enough."""
    both = rules(
        t_x={"after": ["t_y:missed"], "deadline": "PT1H"}, t_y={"after": ["t_x:missed"], "deadline": "PT1H"}
    )
    assert [path for path, _ in problems(both)] == ["t_x.after", "t_y.after"]
    both["t_y"]["after"].append("go")
    assert check_configuration(both).outcomes == {"t_x:missed", "t_y:missed"}
    both["t_y"]["deadline"] = {"in": "PT1H", "from": "t_x:missed"}
    assert [path for path, _ in problems(both)] == ["t_x.after", "t_y.after"]
    veto = {"after": ["t_z"], "unless": ["go", "stop"], "deadline": "PT1H"}
    assert check_configuration(rules(t_x=veto, t_y=["t_x:missed"], t_z={"after": {"any": ["t_y"]}})).rules


@pytest.mark.parametrize("late", ["wait", "abandon"])
@pytest.mark.parametrize(("within", "circle"), [("PT0.999999S", True), ("PT1S", False)])
def test_deadlines_that_lead_back_are_refused_if_they_are_short(within, circle, late):
    """Two tasks that make instances of each other, again and again, need a second for it at least."""
    deadline = {"in": "PT0.5S", "late": late}
    pair = rules(
        t_x={"andEvery": "t_y:missed", "after": ["go"], "deadline": {**deadline, "in": within}},
        t_y={"andEvery": "t_x:missed", "after": ["go"], "deadline": deadline},
    )
    if circle:
        found = problems(pair)
        assert [path for path, _ in found] == ["t_x", "t_y"]
        assert all(message.startswith(CIRCLE) for _, message in found)
    else:
        assert check_configuration(pair).outcomes == {"t_x:missed", "t_y:missed"}


# -- warnings ---------------------------------------------------------------------------------------------


def test_a_debounced_rule_without_and_every_is_a_warning():
    """It would run after the first burst, and never again."""
    delay = {"for": "PT1M", "since": "last"}
    found = warnings(t_x={"after": ["a"], "delay": delay}, t_y={"andEvery": "a", "delay": delay})
    assert list(found) == ["t_x.delay.since"]
    assert "once in the life of the session" in found["t_x.delay.since"]
    assert warnings(t_x={"after": ["a"], "delay": "PT1M"}) == {}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("t_check:fail", "t_check:fail is not an outcome of t_check: its outcomes are t_check:abandoned, "),
        (
            "t_chek:failed",
            (
                "t_chek:failed is not an outcome, because there is no task 't_chek', so only the application can "
                "fire it; did you mean 't_check:failed'?"
            ),
        ),
        (
            "payment:failed",
            (
                "payment:failed is not an outcome, because there is no task 'payment', so only the application can "
                "fire it"
            ),
        ),
        ("t_check:missed", "t_check:missed never fires, but t_check has no deadline that it could miss"),
    ],
)
@pytest.mark.parametrize("directive", ["after", "andEvery", "unless"])
def test_what_looks_like_an_outcome_and_is_none_is_a_warning(directive, name, message):
    """The path leads to the directive that names it."""
    rule = {"after": {"any": ["a", name]}} if directive == "after" else {"after": ["a"], directive: name}
    if directive == "unless":
        rule["unless"] = [name]
    written = rules(t_check=["go"], t_next=rule)
    if (directive, name) == ("andEvery", "t_check:missed"):
        assert [path for path, _ in problems(written)] == ["t_next.after"]
        return
    ((path, warning),) = rule_warnings(check_configuration(written))
    assert path == f"t_next.{directive}"
    assert warning.startswith(message)


def test_usual_names_are_no_warning():
    """A colon alone does not make an outcome, nor does an outcome without a task."""
    usual = ["a", "order:paid", ":failed", "t_check", "t_check:failed", "t_check:ended"]
    assert warnings(t_check={"after": ["go"], "deadline": "PT1M"}, t_next=[*usual, "t_check:missed"]) == {}
