"""`retry` as data: what a configuration may say, which exceptions match, and how long the pauses are."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggers.core.configuration import check_configuration
from triggers.core.durations import read_duration
from triggers.core.retries import RetryPolicy, names_of
from triggers.core.rules import read_rules
from triggers.core.values import encode
from triggers.exceptions import ConfigurationError

FULL = {
    "max": 5,
    "first": "PT10S",
    "factor": 3,
    "atMost": "PT1H",
    "jitter": False,
    "on": ["TimeoutError"],
    "not": ["ValueError"],
}


def checked(retry):
    return check_configuration({"t_x": {"after": ["go"], "run": "r", "retry": retry}}).rules["t_x"].retry


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("PT30S", 30),
        ("PT0.5S", 0.5),
        ("PT10M", 600),
        ("PT1H30M", 5400),
        ("P3D", 259_200),
        ("P1DT1S", 86_401),
        ("P2W", 1_209_600),
        (timedelta(minutes=1), 60),
    ],
)
def test_durations(text, seconds):
    """Weeks, days of 24 hours, hours, minutes and seconds, and timedeltas."""
    assert read_duration(text) == timedelta(seconds=seconds)


NO_DURATIONS = [
    "",
    "P",
    "PT",
    "P1Y",
    "P1M",
    "1 day",
    "PT5",
    "P1H",
    "PT1D",
    "-PT1S",
    "P\u0661D",
    5,
    None,
    "PT1.2345678S",
]


@pytest.mark.parametrize("text", NO_DURATIONS)
def test_what_is_no_duration(text):
    """Years and months have no fixed length."""
    with pytest.raises(ValueError, match="ISO 8601 duration without years and months, such as 'PT30S'"):
        read_duration(text)


@pytest.mark.parametrize(
    "text", ["PT0S", timedelta(0), timedelta(-1), "P36526D", "P9999999999W", f"PT{10**400}S"]
)
def test_durations_have_bounds(text):
    """Longer than zero, at most 100 years."""
    with pytest.raises(ValueError, match="must be longer than zero and at most 100 years"):
        read_duration(text)


def test_every_key():
    """Each has its field; what is left out has its default."""
    assert checked(FULL) == RetryPolicy(
        limit=5,
        first=timedelta(seconds=10),
        factor=3.0,
        at_most=timedelta(hours=1),
        jitter=False,
        on=("TimeoutError",),
        never=("ValueError",),
    )
    assert checked({}) == RetryPolicy()
    assert checked({"on": {"B", "A"}}).on == ("A", "B")
    assert checked(None) is None


def test_a_policy_is_written_as_it_was_read():
    """As part of the rule, with timedeltas."""
    rule = check_configuration({"t_x": {"after": ["go"], "run": "r", "retry": FULL}}).rules["t_x"]
    assert check_configuration({"t_x": rule.serialize()}).rules["t_x"].retry == rule.retry
    assert "retry" not in check_configuration({"t_x": {"after": ["go"], "run": "r"}}).rules["t_x"].serialize()


@pytest.mark.parametrize(
    ("retry", "path", "problem"),
    [
        ({"max": 0}, "t_x.retry.max", "greater than or equal to 1"),
        ({"first": "10s"}, "t_x.retry.first", "must be a timedelta, or an ISO 8601 duration"),
        ({"atMost": "P1Y"}, "t_x.retry.atMost", "without years and months"),
        ({"factor": 0.5}, "t_x.retry.factor", "greater than or equal to 1"),
        ({"on": "ValueError"}, "t_x.retry.on", "must be a list of names"),
        (
            {"attempts": 3},
            "t_x.retry.attempts",
            "retry has the keys max, first, factor, atMost, jitter, on and not",
        ),
        (3, "t_x.retry", "must be a mapping"),
    ],
)
def test_what_is_refused(retry, path, problem):
    """With the path and the right form."""
    with pytest.raises(ConfigurationError) as error:
        checked(retry)
    ((where, said),) = error.value.problems
    assert where == path
    assert problem in said


@pytest.mark.parametrize("retry", [{"budget": 1}, {"max": []}, {"first": "P1Y"}, 7])
def test_a_retry_of_a_newer_version_is_not_understood(retry):
    """An unknown key, or a value of another form: the rules can be read, and decide nothing."""
    body = encode({"t_x": {"after": ["go"], "run": "r", "retry": retry}}, "")
    assert read_rules(body).unsupported == ("t_x.retry",)


class Refusing(type):
    """A metaclass that refuses to say anything."""

    def __getattribute__(cls, name):
        raise RuntimeError(name)


def test_names_of_exceptions():
    """Plain and qualified, of the class and its ancestors, whatever its metaclass does."""
    names = names_of(ConnectionResetError)
    assert {"ConnectionResetError", "builtins.OSError", "ConnectionError", "Exception"} <= names
    assert "ValueError" not in names
    assert "Odd" in names_of(Refusing("Odd", (ValueError,), {}))
    assert names_of(type("Nowhere", (Exception,), {"__module__": 7})) >= {"Nowhere", "builtins.Exception"}


def test_matching():
    """`not` wins over `on`; without `on`, every exception matches."""
    assert RetryPolicy().matches({"A"})
    assert RetryPolicy(on=("A", "B")).matches({"B"})
    assert not RetryPolicy(on=("A",)).matches({"B"})
    assert not RetryPolicy(on=("A",), never=("B",)).matches({"A", "B"})


def test_pauses_grow_up_to_the_longest():
    """By the factor, without an overflow."""
    policy = RetryPolicy(first=timedelta(seconds=1), factor=10, at_most=timedelta(minutes=5), jitter=False)
    seconds = [policy.pause("s", "t#0", number) / 1e6 for number in (1, 2, 3, 4, 5, 1_000_000)]
    assert seconds == [1, 10, 100, 300, 300, 300]


@given(st.text(), st.integers(1, 50), st.floats(1, 1_000))
def test_jitter_is_repeatable_and_at_most_a_half(uid, number, factor):
    """The pause is the same each time that it is computed."""
    plain = RetryPolicy(factor=factor, jitter=False).pause(uid, "t#0", number)
    pause = RetryPolicy(factor=factor).pause(uid, "t#0", number)
    assert pause == RetryPolicy(factor=factor).pause(uid, "t#0", number)
    assert plain // 2 <= pause <= plain


def test_jitter_spreads():
    """Sessions, roots and retries have different pauses."""
    policy = RetryPolicy(factor=1)
    cases = [("a", "t#0", 1), ("b", "t#0", 1), ("a", "t#1", 1), ("a", "t#0", 2)]
    assert len({policy.pause(*case) for case in cases}) == len(cases)
