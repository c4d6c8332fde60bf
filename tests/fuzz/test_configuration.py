"""Whatever is given as a configuration: it is taken, or refused with a ConfigurationError, and nothing else."""

from __future__ import annotations

import tracemalloc
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.fuzz import junk
from triggers import Triggers
from triggers.core.configuration import check_configuration
from triggers.exceptions import ConfigurationError

DIRECTIVES = (
    *("after", "run", "andEvery", "unless", "withParams", "using", "retry", "delay", "deadline"),
    *("custom", "all", "priority"),
)


#: Durations, some of them right.
DURATIONS = st.sampled_from(["PT1S", "P3D", "P1Y"]) | st.timedeltas() | junk.anything(2)


def checked(configuration: Any) -> bool:
    """Whether it is taken; whatever else happens but a refusal is a failure of the test."""
    problems: tuple[tuple[str, str], ...] = ()
    try:
        check_configuration(configuration, tasks={"work"}, runners={"threads"})
    except ConfigurationError as refusal:
        problems = refusal.problems
        taken = False
    else:
        taken = True
    assert taken != bool(problems)
    assert all(type(part) is str for problem in problems for part in problem)
    assert sum(len(part) for problem in problems for part in problem) < 2_000 * (len(problems) + 1)
    return taken


def directives() -> st.SearchStrategy[dict[Any, Any]]:
    """The directives of one task, some of them right."""
    names = st.sampled_from(["a", "b", "t_a", "t_b"])
    condition = st.recursive(
        st.lists(names | junk.anything(2), max_size=3),
        lambda inner: (
            st.fixed_dictionaries({"any": st.lists(names | inner, max_size=3)})
            | st.fixed_dictionaries(
                {"atLeast": st.integers(-1, 4) | junk.scalars(), "of": st.lists(inner, max_size=3)}
            )
        ),
        max_leaves=4,
    )
    right = {
        "after": condition,
        "run": st.just("work") | junk.anything(2),
        "andEvery": names | junk.anything(2),
        "unless": condition,
        "withParams": st.dictionaries(
            names, st.dictionaries(names, junk.anything(3), max_size=2), max_size=2
        ),
        "using": st.just("threads") | junk.anything(2),
        "delay": DURATIONS | st.fixed_dictionaries({"for": DURATIONS, "since": st.just("last")}),
        "deadline": DURATIONS | st.fixed_dictionaries({"in": DURATIONS, "from": names}),
    }
    return st.fixed_dictionaries({}, optional=right) | st.dictionaries(
        st.sampled_from(DIRECTIVES) | junk.keys(), junk.anything(4), max_size=5
    )


@given(junk.anything())
def test_anything_at_all_is_refused_by_name(configuration):
    """Whatever the configuration is, only a ConfigurationError comes out."""
    checked(configuration)


@given(
    st.dictionaries(
        st.sampled_from(["t_a", "t_b"]) | junk.keys(), directives() | junk.anything(3), max_size=3
    )
)
def test_anything_in_the_form_of_a_configuration_is_refused_by_name(configuration):
    """Whatever the tasks and directives are, only a ConfigurationError comes out."""
    checked(configuration)


PLACES: dict[str, Any] = {
    "as the configuration": lambda value: value,
    "as a task": lambda value: {"t_a": value},
    "as after": lambda value: {"t_a": {"run": "work", "after": value}},
    "in after": lambda value: {"t_a": {"run": "work", "after": ["a", value]}},
    "in any": lambda value: {"t_a": {"run": "work", "after": {"any": ["a", value]}}},
    "as any": lambda value: {"t_a": {"run": "work", "after": {"any": value}}},
    "as atLeast": lambda value: {"t_a": {"run": "work", "after": {"atLeast": value, "of": ["a"]}}},
    "as run": lambda value: {"t_a": {"run": value, "after": ["a"]}},
    "as andEvery": lambda value: {"t_a": {"run": "work", "andEvery": value}},
    "as unless": lambda value: {"t_a": {"run": "work", "after": ["a"], "unless": value}},
    "as using": lambda value: {"t_a": {"run": "work", "after": ["a"], "using": value}},
    "as withParams": lambda value: {"t_a": {"run": "work", "after": ["a"], "withParams": value}},
    "in withParams": lambda value: {"t_a": {"run": "work", "after": ["a"], "withParams": {"a": value}}},
    "deep in withParams": lambda value: {
        "t_a": {"run": "work", "after": ["a"], "withParams": {"a": {"b": [value]}}}
    },
    "as delay": lambda value: {"t_a": {"run": "work", "after": ["a"], "delay": value}},
    "in delay": lambda value: {"t_a": {"run": "work", "after": ["a"], "delay": {"for": value}}},
    "as since": lambda value: {
        "t_a": {"run": "work", "after": ["a"], "delay": {"for": "PT1S", "since": value}}
    },
    "as deadline": lambda value: {"t_a": {"run": "work", "after": ["a"], "deadline": value}},
    "in deadline": lambda value: {"t_a": {"run": "work", "after": ["a"], "deadline": {"in": value}}},
    "as from": lambda value: {
        "t_a": {"run": "work", "after": ["a"], "deadline": {"in": "PT1S", "from": value}}
    },
    "as a custom directive": lambda value: {"t_a": {"run": "work", "after": ["a"], "custom": value}},
}


@pytest.mark.parametrize("what", junk.REFUSED)
@pytest.mark.parametrize("place", PLACES)
def test_what_cannot_be_kept_is_refused_everywhere(place, what):
    """Whatever JSON does not have is refused in each directive, by a ConfigurationError."""
    assert checked(PLACES[place](junk.REFUSED[what]())) == ((place, what) in TAKEN)


#: Kinds of dict and list that say the same as none at all.
TAKEN = {("as the configuration", "a defaultdict"), ("as unless", "an empty tuple")}


@given(st.integers(1, 400))
@example(98)
@example(99)
@example(100)
@example(100_000)
def test_conditions_nested_to_any_depth_never_overflow(depth):
    """Conditions, parameters and custom directives within each other are taken, or refused with a path."""
    condition: Any = ["a"]
    for _ in range(depth):
        condition = {"any": [condition if isinstance(condition, dict) else {"all": condition}, "b"]}
    taken = checked({"t_a": {"run": "work", "after": condition}})
    assert taken or depth > 40
    assert not (taken and depth > 50)
    assert checked({"t_a": {"run": "work", "after": ["a"], "custom": junk.nested(depth)}}) == (depth <= 98)


def test_a_refused_configuration_writes_nothing(tmp_path):
    """After a refusal the session does not exist; or has the rules that it had."""
    for url in ("memory://", f"sqlite:///{tmp_path}/a.db"):
        with Triggers(url, runner=None) as triggers:
            manager = triggers.session("one")
            for place in PLACES.values():
                with pytest.raises(ConfigurationError):
                    manager.update_configuration(place(junk.Hostile()))
            assert not manager.storage.exists
            manager.update_configuration({"t_a": {"run": "work", "after": ["a"]}})
            with pytest.raises(ConfigurationError):
                manager.update_configuration(
                    {"t_b": {"run": "work", "after": ["b"]}, "t_c": {"run": float("nan")}}
                )
            assert list(manager.storage.tasks) == ["t_a"]


def test_memory_stays_bounded():
    """Refusing a configuration with large values takes little more than the values themselves."""
    configuration = {
        f"t_{number}": {"run": "work", "after": ["a"], "custom": "x" * 2_000_000} for number in range(5)
    }
    tracemalloc.start()
    with suppress(ConfigurationError):
        check_configuration(configuration)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 40_000_000


def test_ten_thousand_tasks_are_taken_and_one_more_is_refused():
    """The limit is a number, and is said."""
    tasks = {f"t_{number}": {"run": "work", "after": ["a"]} for number in range(10_001)}
    assert not checked(tasks)
    tasks.popitem()
    assert checked(tasks)


@pytest.mark.parametrize("value", [datetime(2026, 1, 1, tzinfo=UTC), b"a", 1.5, True, None])
def test_values_that_are_kept_come_back_from_a_configuration(value):
    """What a custom directive or a parameter holds is what the task finds."""
    rules = check_configuration(
        {"t_a": {"run": "work", "after": ["a"], "custom": {"in": [value]}, "withParams": {"a": {"b": value}}}}
    )
    rule = rules.rules["t_a"]
    assert rule.extras == {"custom": {"in": [value]}}
    assert rule.with_params == {"a": {"b": value}}
