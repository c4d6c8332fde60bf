"""Hypothesis strategies for configurations, firings and values that the library accepts.

They draw small examples on purpose. With few triggers and tasks, the cases that break a wrong implementation
are likely: the same trigger in ``after`` and ``unless``, a task that waits for another, a repeated firing.
This module needs Hypothesis.
"""

from __future__ import annotations

import functools
from datetime import timedelta, timezone
from typing import TYPE_CHECKING, Any

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The triggers that an application fires, by default.
TRIGGERS = ("a", "b", "c", "d")

#: The tasks that can be configured, by default.
TASKS = ("t_1", "t_2", "t_3")

#: The words of outcomes, which follow the name of a task.
WORDS = ("failed", "skipped", "abandoned", "ended")

#: The outcomes of these tasks, by default.
OUTCOMES = tuple(f"{task}:{word}" for task in TASKS for word in WORDS)

#: The `run` of every generated task, by default. The task must exist only if instances are executed.
RUN = "tests.Generated"

#: Durations. Most are so short that several of them pass during a test; some end at the same time.
DURATIONS = (*(f"PT{seconds}S" for seconds in (1, 2, 3, 5, 8, 10, 20)), "PT1H", "P1D")

#: The maximum number of members of a condition.
MEMBERS = 3

#: The smallest and the largest integer that are drawn: signed, with 64 bits.
INTEGERS = (-(2**63), 2**63 - 1)


# -- conditions and rules ------------------------------------------------------------


def conditions(names: Sequence[str], depth: int = 2) -> st.SearchStrategy[Any]:
    """Conditions for ``after`` and ``unless``. They are never empty, and are met when all `names` have fired.

    Args:
        names: the triggers that the conditions may name; at least one.
        depth: 0 for lists of names, 1 for ``all``, ``any`` and ``atLeast`` of names, 2 for the same with
            members of depth 1, and so on.
    """
    return _conditions(tuple(names), depth)


# Strategies are cached for each set of arguments: creating them takes much longer than drawing from them.
@functools.cache
def _conditions(names: tuple[str, ...], depth: int) -> st.SearchStrategy[Any]:
    plain = st.lists(st.sampled_from(names), min_size=1, max_size=MEMBERS, unique=True)
    return st.one_of(plain, _forms(names, depth, min_size=1)) if depth else plain


def _forms(names: tuple[str, ...], depth: int, min_size: int) -> st.SearchStrategy[dict[str, Any]]:
    member: st.SearchStrategy[Any] = st.sampled_from(names)
    if depth > 1 and len(names) > 1:
        # A nested condition has at least two members: with one member it would mean the same as that member.
        member = st.one_of(member, _forms(names, depth - 1, min_size=2))
    members = st.lists(member, min_size=min_size, max_size=MEMBERS, unique_by=_meaning)
    return st.one_of(
        members.map(lambda chosen: {"all": chosen}),
        members.map(lambda chosen: {"any": chosen}),
        st.tuples(members, st.integers(0, MEMBERS - 1)).map(_at_least),
    )


def _at_least(drawn: tuple[list[Any], int]) -> dict[str, Any]:
    members, chance = drawn
    return {"atLeast": 1 + chance % len(members), "of": members}


def _meaning(condition: Any) -> Any:
    """How many of which members a condition needs. Conditions that need the same mean the same."""
    if isinstance(condition, str):
        return condition
    members = next(condition[word] for word in ("all", "any", "of") if word in condition)
    needed = 1 if "any" in condition else condition.get("atLeast", len(members))
    return needed, frozenset(_meaning(member) for member in members)


def rules(
    after: Sequence[str],
    *,
    unless: Sequence[str] = (),
    loops: Sequence[str] = (),
    and_every: bool = True,
    depth: int = 2,
    run: str = RUN,
) -> st.SearchStrategy[dict[str, Any]]:
    """The rule of one task in a configuration.

    Args:
        after: the names that ``after`` and ``andEvery`` may contain.
        unless: the names that ``unless`` may contain; if empty, the rule has no ``unless``.
        loops: more names for ``after``, which are only one of several ways to start: they are members of an
            ``any``.
        and_every: whether the rule may have ``andEvery``.
        depth: how deeply conditions may be nested; see :func:`conditions`.
        run: the name of the task to run.
    """
    return _rules(tuple(after), tuple(unless), tuple(loops), and_every=and_every, depth=depth, run=run)


@functools.cache
def _rules(
    after: tuple[str, ...],
    unless: tuple[str, ...],
    loops: tuple[str, ...],
    *,
    and_every: bool,
    depth: int,
    run: str,
) -> st.SearchStrategy[dict[str, Any]]:
    condition = conditions(after, depth)
    if loops:
        looped = st.tuples(st.sampled_from(after), st.sampled_from(loops)).map(
            lambda both: {"any": list(both)}
        )
        condition = st.one_of(condition, condition, looped)
    waiting: st.SearchStrategy[dict[str, Any]] = st.fixed_dictionaries({"after": condition})
    if and_every:
        every = {"andEvery": st.sampled_from(after)}
        # With `andEvery`, `after` may be missing or empty.
        waiting |= st.fixed_dictionaries(every, optional={"after": st.one_of(st.just([]), condition)})
    running: dict[str, st.SearchStrategy[Any]] = {"run": st.just(run)}
    vetoing: dict[str, st.SearchStrategy[Any]] = {}
    if unless:
        vetoing["unless"] = st.one_of(st.just([]), conditions(unless, depth))
    rest = st.fixed_dictionaries(running, optional=vetoing)
    return st.builds(lambda one, other: {**one, **other}, waiting, rest)


@st.composite
def configurations(
    draw: st.DrawFn,
    *,
    triggers: Sequence[str] = TRIGGERS,
    tasks: Sequence[str] = TASKS,
    and_every: bool = True,
    unless: bool = True,
    listening: bool = True,
    outcomes: bool = True,
    times: bool = False,
    depth: int = 2,
    run: str = RUN,
    min_tasks: int = 1,
) -> dict[str, Any]:
    """Draw a valid configuration in which every task can start.

    Args:
        draw: is passed by Hypothesis.
        triggers: the triggers that the application fires.
        tasks: the names of tasks to choose from. Their order in the configuration is random.
        and_every: whether rules may have ``andEvery``.
        unless: whether rules may have ``unless``, with any trigger or task, including their own.
        listening: whether tasks may wait for each other. A task *requires* only earlier tasks; a loop is
            always only one of several ways to start.
        outcomes: whether tasks that may wait for each other may also wait for outcomes of earlier tasks.
        times: whether rules may have delays and deadlines.
        depth: how deeply conditions may be nested; see :func:`conditions`.
        run: the `run` of every rule.
        min_tasks: the minimum number of tasks.
    """
    chosen = draw(st.lists(st.sampled_from(tasks), min_size=min_tasks, unique=True))
    hears_outcomes = listening and outcomes and draw(st.booleans())
    is_timed = times and draw(st.booleans())
    ends: list[str] = []
    if hears_outcomes:
        # With fewer triggers, it is likely that a rule names an outcome, and that the tasks before it run.
        triggers = triggers[:2]
    made = {}
    for place, task in enumerate(chosen):
        rule = draw(
            rules(
                [*triggers, *chosen[:place], *ends] if listening else triggers,
                unless=[*triggers, *(chosen if listening else ()), *ends] if unless else (),
                loops=chosen[place:] if listening else (),
                and_every=and_every,
                depth=depth,
                run=run,
            )
        )
        made[task] = draw(timed(rule)) if is_timed else rule
        if hears_outcomes:
            words = (*WORDS, "missed") if _can_miss(made[task], chosen[place:]) else WORDS
            ends += [f"{task}:{word}" for word in words]
    return made


def _can_miss(rule: dict[str, Any], later: Sequence[str]) -> bool:
    """Whether the deadline of a rule can begin before any of the later tasks has run."""
    deadline = rule.get("deadline")
    start = deadline.get("from") if isinstance(deadline, dict) else None
    return deadline is not None and start not in later


# -- time ------------------------------------------------------------


def durations() -> st.SearchStrategy[str]:
    """Durations in a configuration, most of them of a few seconds."""
    return st.sampled_from(DURATIONS)


def delays() -> st.SearchStrategy[Any]:
    """The ``delay`` of a rule; some delays begin again with each firing, up to a limit or without one."""
    last = st.fixed_dictionaries({"for": durations(), "since": st.just("last")})
    longest = st.tuples(last, durations()).map(_at_most)
    return st.one_of(durations(), last, longest)


def _at_most(drawn: tuple[dict[str, Any], str]) -> dict[str, Any]:
    delay, longest = drawn
    shorter, longer = sorted((delay["for"], longest), key=DURATIONS.index)
    return {**delay, "for": shorter, "atMost": longer}


def deadlines(names: Sequence[str]) -> st.SearchStrategy[Any]:
    """The ``deadline`` of a rule.

    Args:
        names: the triggers from which it may count.
    """
    more = {"from": st.sampled_from(sorted(names)), "late": st.sampled_from(["wait", "abandon"])}
    return st.one_of(durations(), st.fixed_dictionaries({"in": durations()}, optional=more))


@st.composite
def timed(draw: st.DrawFn, rule: dict[str, Any]) -> dict[str, Any]:
    """The same rule with a delay, a deadline, both or neither.

    Args:
        draw: is passed by Hypothesis.
        rule: the rule.
    """
    every = rule.get("andEvery")
    names = names_of(rule.get("after", [])) | ({every} if every else set())
    timing = {"delay": delays(), "deadline": deadlines(sorted(names))}
    return {**rule, **draw(st.fixed_dictionaries({}, optional=timing))}


def names_of(condition: Any) -> set[str]:
    """Return the triggers in a condition."""
    if isinstance(condition, str):
        return {condition}
    members = condition
    if isinstance(condition, dict):
        members = next(condition[word] for word in ("all", "any", "of") if word in condition)
    return {name for member in members for name in names_of(member)}


# -- values and firings ------------------------------------------------------------


def _texts() -> st.SearchStrategy[str]:
    """Any text without lone surrogates, often one that looks like the marks in the library's own JSON."""
    text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    return st.one_of(text, st.sampled_from(["", "$", "$date", "$$bytes", "a", "a#0", "null"]))


def _zones() -> st.SearchStrategy[timezone | None]:
    return st.none() | st.integers(-23 * 60 - 59, 23 * 60 + 59).map(lambda n: timezone(timedelta(minutes=n)))


def scalars() -> st.SearchStrategy[Any]:
    """Scalar values: those of JSON, and dates, times, durations, decimals, UUIDs and bytes.

    Times are naive or have a fixed offset. Their ``fold`` is 0, because it is not stored.
    """
    return st.one_of(
        st.none(),
        st.booleans(),
        st.integers(*INTEGERS),
        st.floats(allow_nan=False, allow_infinity=False),
        _texts(),
        st.datetimes(timezones=_zones()).map(lambda value: value.replace(fold=0)),
        st.dates(),
        st.times(timezones=_zones()).map(lambda value: value.replace(fold=0)),
        st.timedeltas(),
        st.decimals(allow_nan=False, allow_infinity=False),
        st.uuids(),
        st.binary(max_size=20),
    )


def keys() -> st.SearchStrategy[Any]:
    """Values that can be keys of mappings or items of sets: scalars, tuples and frozensets of them."""
    return st.recursive(
        scalars(),
        lambda inner: st.lists(inner, max_size=2).map(tuple) | st.frozensets(inner, max_size=2),
        max_leaves=3,
    )


def values(max_leaves: int = 8) -> st.SearchStrategy[Any]:
    """Whatever kwargs and results may hold and comes back of the same type: scalars, containers, nested."""
    return st.recursive(
        scalars(),
        lambda inner: st.one_of(
            st.lists(inner, max_size=3),
            st.dictionaries(_texts(), inner, max_size=3),
            st.lists(inner, max_size=3).map(tuple),
            st.dictionaries(keys(), inner, max_size=3),
            st.sets(keys(), max_size=3),
            st.frozensets(keys(), max_size=3),
        ),
        max_leaves=max_leaves,
    )


def kwargs(max_leaves: int = 8) -> st.SearchStrategy[dict[str, Any]]:
    """Dictionaries for the kwargs of a firing or the result of a task."""
    return st.dictionaries(_texts(), values(max_leaves), max_size=3)


def firings(
    triggers: Sequence[str] = TRIGGERS,
    *,
    payload: st.SearchStrategy[dict[str, Any]] | None = None,
    keys: Sequence[str] = (),
) -> st.SearchStrategy[tuple[str, dict[str, Any], str | None]]:
    """Single firings: trigger, kwargs, and idempotency key or None.

    Args:
        triggers: the triggers to choose from.
        payload: a strategy for the kwargs. By default they have a small number under the key ``n``, so that
            repeats are likely.
        keys: the idempotency keys to choose from; if empty, no firing has a key.
    """
    small = st.fixed_dictionaries({"n": st.integers(0, 2)})
    key = st.none() | st.sampled_from(keys) if keys else st.none()
    return st.tuples(st.sampled_from(triggers), small if payload is None else payload, key)


def sequences(
    triggers: Sequence[str] = TRIGGERS, *, max_size: int = 8, keys: Sequence[str] = ()
) -> st.SearchStrategy[list[tuple[str, dict[str, Any], str | None]]]:
    """Sequences of firings with small kwargs: lists of :func:`firings`."""
    return st.lists(firings(triggers, keys=keys), max_size=max_size)
