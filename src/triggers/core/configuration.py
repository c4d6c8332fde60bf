"""Validation of a configuration. The result is its rules, or a list of all its problems.

:mod:`triggers.core.directives` contains the models that check the types of the directives and make the JSON
Schema. This module checks what a schema cannot express: misspelled directives, unknown names, and tasks that
wait for each other forever.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Any, Literal

from triggers.core.circles import LISTED, endless, never_starting
from triggers.core.conditions import listed
from triggers.core.names import MAX_NAME
from triggers.core.outcomes import MISSED, outcome_of
from triggers.core.rules import DIRECTIVES, RESERVED, RuleSet, rule_set
from triggers.core.similar_names import did_you_mean, flat
from triggers.core.values import DEFAULT_LIMITS, MAX_PATH, Limits, encode, shown, type_name
from triggers.exceptions import ConfigurationError, InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

#: Words that people know from other systems → where that is set, or what to do instead.
ELSEWHERE = {
    "timeout": "is an option of the task: @task(timeout=...); 'deadline' limits how long a task waits",
    "max_retries": "is an option of the task: @task(max_retries=...); in a rule, write 'retry': {'max': 5}",
    "retries": "is not a directive: write 'retry': {'max': 5}",
    "on_failure": "is not a directive: write a task with 'after': ['NAME:failed'], where NAME is this task",
    "finally": "is not a directive: write a task with 'after': ['NAME:ended'], where NAME is this task",
    "if": "is not available: a task reads its kwargs and can end with raise context.skip()",
    "when": "is not available: a task reads its kwargs and can end with raise context.skip()",
    "debounce": "is not a directive: write 'delay': {'for': 'PT5M', 'since': 'last'}",
    "wait": "is not a directive: write 'delay': 'PT5M'",
    "countdown": "is not a directive: write 'delay': 'PT5M'",
    "due_in": "is not a directive: write 'deadline': 'P3D'",
    "eta": "is not available: fire the trigger at that time, with manager.fire_later(..., at=...)",
    "schedule": "is not available: fire the trigger from a scheduler, such as cron or Celery beat",
    "cron": "is not available: fire the trigger from a scheduler, such as cron or Celery beat",
    "queue": "is an option of the task: @task(queue=...)",
    "concurrency": "is an option of the runner: ThreadsRunner(workers=...), or celery worker --concurrency",
    "depends_on": "is not a directive: list the names of those tasks in 'after'",
    "needs": "is not a directive: list the names of those tasks in 'after'",
    "rate_limit": "is an option of the task: @task(rate_limit=...)",
}

#: How similar to a directive a key must be to count as a typo: difflib's ratio, from 0 to 1.
NEAR_MISS = 0.8


def check_configuration(
    configuration: object,
    *,
    tasks: Collection[str] | None = None,
    runners: Collection[str] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> RuleSet:
    """Validate a configuration and return its rules.

    Args:
        configuration: task name → directives, as in the rule language.
        tasks: the names of all registered tasks, None to accept any `run`.
        runners: the names of all runners, None to accept any `using`.
        limits: the limits for its size.

    Raises:
        ConfigurationError: it has problems. The exception lists all of them, each with its path.
    """
    try:
        written = _opened(configuration)
        problems = list(_problems(written, tasks, runners, limits))
    except ConfigurationError:
        raise
    except Exception as error:
        raise ConfigurationError([("$", f"the configuration cannot be read: {shown(error)}")]) from error
    if problems:
        raise ConfigurationError(problems)
    return _rules(written)


def merged(before: RuleSet, given: RuleSet, limits: Limits) -> RuleSet:
    """Return the given rules, together with those that a session has for other tasks.

    Args:
        before: the session's rules.
        given: the new rules, which were validated alone.
        limits: the limits for all of them.

    Raises:
        ConfigurationError: together they have problems, such as tasks that wait for each other.
    """
    if before.rules.keys() <= given.rules.keys():
        return given
    both = {**before.configuration, **given.configuration}
    problems = list(_problems_together(both, limits))
    if problems:
        raise ConfigurationError(problems)
    return rule_set(both)


def json_schema() -> dict[str, Any]:
    """Return the JSON Schema, draft 2020-12, that every valid configuration satisfies."""
    from triggers.core.directives import CONFIGURATION  # noqa: PLC0415 - see that module

    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Triggers configuration",
        **CONFIGURATION.json_schema(),
    }


def _opened(configuration: object) -> dict[Any, Any]:
    """Return the configuration and its tasks as plain dicts, also if they are instances of subclasses.

    Raises:
        ConfigurationError: it is not a dict.
    """
    if not issubclass(type(configuration), dict):
        kind = type_name(type(configuration))
        problem = f"a configuration must be a mapping of task names to directives, not a {kind}"
        raise ConfigurationError([("$", problem)])
    found: dict[Any, Any] = dict(configuration)  # type: ignore[call-overload]  # it is a dict
    return {task: dict(written) if isinstance(written, dict) else written for task, written in found.items()}


def _rules(configuration: dict[str, Any]) -> RuleSet:
    return rule_set({task: dict(_directives(written)) for task, written in configuration.items()})


def _directives(written: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in written.items():
        if key in {"after", "unless"}:
            yield key, _lists(value)
        elif key == "retry" and isinstance(value, dict):
            yield key, {name: listed(given) for name, given in value.items()}
        elif value is not None or key not in DIRECTIVES:
            yield key, value


def _lists(condition: Any) -> Any:
    """Return the same condition, with lists instead of sets and tuples."""
    if isinstance(condition, dict):
        return {key: _lists(terms) for key, terms in dict.items(condition)}
    if isinstance(condition, (list, tuple, set, frozenset)):
        return [_lists(term) for term in listed(condition)]
    return condition if condition is not None else []


def _problems(
    configuration: dict[Any, Any],
    tasks: Collection[str] | None,
    runners: Collection[str] | None,
    limits: Limits,
) -> Iterator[tuple[str, str]]:
    if len(configuration) > limits.tasks:
        yield _too_many(configuration, limits)
        return
    found = [
        *_wrong_keys(configuration),
        *_wrong_shapes(configuration),
        *_unstorable(configuration),
    ]
    yield from found
    yield from _unknown(configuration, "run", "task", tasks)
    yield from _unknown(configuration, "using", "runner", runners)
    if not found:
        yield from _problems_together(configuration, limits)


def _problems_together(configuration: dict[Any, Any], limits: Limits) -> Iterator[tuple[str, str]]:
    """Find the problems of tasks that are valid one by one."""
    if len(configuration) > limits.tasks:
        yield _too_many(configuration, limits)
        return
    yield from _wrong_names(configuration)
    try:
        rules = _rules(configuration)
    except InvalidValueError as error:  # it is nested too deep or too large as a whole
        path, _, message = str(error).partition(": ")
        yield path.removeprefix("the configuration.").replace("the configuration", "$"), message
    else:
        yield from _wrong_timing(rules)
        yield from never_starting(rules)
        yield from endless(rules)


def _too_many(configuration: dict[Any, Any], limits: Limits) -> tuple[str, str]:
    return "$", f"{len(configuration):,} tasks are more than the limit of {limits.tasks:,}"


def _wrong_names(configuration: dict[Any, Any]) -> Iterator[tuple[str, str]]:
    for name in configuration:
        outcome = outcome_of(name, configuration) if isinstance(name, str) else None
        if outcome:
            problem = f"is the name of an outcome of the task {outcome.task!r}: give this task another name"
            yield _path((name,)), problem


def _wrong_keys(configuration: dict[Any, Any]) -> Iterator[tuple[str, str]]:
    for task, written in configuration.items():
        for key in written if isinstance(written, dict) else ():
            if (word := _word(key)) is not None:
                yield _path((task, key)), f"{key!r} {_REFUSED[word]}"
            elif key not in DIRECTIVES and (meant := near_miss(key)):
                yield _path((task, key)), f"unknown directive {key!r}: did you mean {meant!r}?"


def _word(key: object) -> str | None:
    """Return the reserved word that a key is, in any spelling: `max_retries`, `maxRetries`, `max-retries`."""
    found = flat(key) if isinstance(key, str) and len(key) <= MAX_NAME else None
    return found if found in _REFUSED else None


#: Word without separators, in lower case → why it is refused. Such a word is never a custom directive, so
#: that nobody expects it to do what it does elsewhere, and a new version can define it.
_REFUSED = {
    **{flat(word): "is reserved for a later version" for word in RESERVED},
    **{flat(word): reason for word, reason in ELSEWHERE.items()},
}


#: A key with this prefix is always a custom directive.
CUSTOM = "x-"


def is_custom(key: object) -> bool:
    """Return whether a key is accepted as a custom directive: it is neither reserved nor like a directive."""
    return key not in DIRECTIVES and _word(key) is None and near_miss(key) is None


def near_miss(key: object) -> str | None:
    """Return the directive that a misspelled key probably means, or None for a custom directive."""
    if not isinstance(key, str) or len(key) > MAX_NAME or key.startswith(CUSTOM):
        return None
    spelled = {name.lower(): name for name in DIRECTIVES}
    found = difflib.get_close_matches(flat(key), spelled, n=1, cutoff=NEAR_MISS)
    return spelled[found[0]] if found else None


def _wrong_shapes(configuration: dict[Any, Any]) -> Iterator[tuple[str, str]]:
    from triggers.core.directives import shape_problems  # noqa: PLC0415 - see that module

    for location, message in shape_problems(configuration):
        yield _path(location), message


def _path(location: tuple[Any, ...]) -> str:
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:
            path += f".{_part(part)}" if path else _part(part)
    return path


def _part(key: object) -> str:
    plain = type(key) is str and len(key) <= MAX_PATH and key.isprintable()
    return str(key) if plain else shown(key)


def _unstorable(configuration: dict[Any, Any]) -> Iterator[tuple[str, str]]:
    for task, written in configuration.items():
        for key, value in written.items() if isinstance(written, dict) else ():
            if key not in DIRECTIVES or key == "withParams":
                try:
                    encode(value, _path((task, key)))
                except InvalidValueError as error:
                    path, _, message = str(error).partition(": ")
                    yield path, message


def _unknown(
    configuration: dict[Any, Any],
    directive: Literal["run", "using"],
    what: str,
    known: Collection[str] | None,
) -> Iterator[tuple[str, str]]:
    for task, written in configuration.items():
        name = written.get(directive) if isinstance(written, dict) else None
        if known is not None and type(name) is str and len(name) <= MAX_NAME and name not in known:
            close = difflib.get_close_matches(name, known, n=1)
            hint = (
                f"did you mean {close[0]!r}?"
                if close
                else f"the known {what}s are: {', '.join(sorted(known)[:LISTED]) or 'none'}"
            )
            yield _path((task, directive)), f"unknown {what} {name!r}; {hint}"


def _wrong_timing(rules: RuleSet) -> Iterator[tuple[str, str]]:
    """Find deadlines that never begin, and vetoes by a deadline that would stop every later instance."""
    for rule in rules.rules.values():
        start = rule.deadline.start if rule.deadline else None
        if start is not None and start not in rule.after.names:
            problem = f"must be one of the triggers that the task waits for, and {start!r} is not in after"
            yield f"{rule.task}.deadline.from", problem + did_you_mean(start, rule.after.names)
        if f"{rule.task}:{MISSED}" in rule.unless.names:
            problem = (
                f"{rule.task}:{MISSED} would also stop every later instance: write "
                f"'deadline': {{'in': ..., 'late': 'abandon'}} instead"
            )
            yield f"{rule.task}.unless", problem
