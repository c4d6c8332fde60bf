"""Configuration: from what a user wrote to rules, or to every problem of it at once.

pydantic checks the shape and gives the JSON Schema; this page adds what a schema cannot say: near
misses of directives, tasks that wait for each other for ever, names that nobody knows here.
"""

from __future__ import annotations

import difflib
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    model_validator,
)
from pydantic_core import PydanticCustomError

from triggers.core.conditions import condition_from_json
from triggers.core.names import MAX_NAME, check_name
from triggers.core.rules import DIRECTIVES, RuleSet, rule_set
from triggers.core.values import DEFAULT_LIMITS, MAX_PATH, Limits, encode, shown
from triggers.exceptions import ConfigurationError, InvalidNameError, InvalidValueError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

#: Directives of versions to come; refused until then, so that no configuration gives them another meaning.
RESERVED = ("deadline", "within", "retry", "limit", "priority", "where")

#: How like a directive (0 to 1, difflib's ratio) a key must be to count as a slip of the pen.
NEAR_MISS = 0.8


#: How many terms may stand side by side in a condition: as many as there may be tasks to wait for.
MAX_TERMS = 10_000


def _checked_name(value: object) -> object:
    try:
        return check_name(value, "name")
    except InvalidNameError as error:
        raise PydanticCustomError("name", "{reason}", {"reason": str(error)}) from None


def _is_a(value: object, *kinds: type) -> bool:
    """Whether it really is one; isinstance() believes an object that lies about its class."""
    return issubclass(type(value), kinds)


def _as_list(value: Any) -> Any:
    if _is_a(value, list, tuple, set, frozenset) and len(value) > MAX_TERMS:
        template = "{count} terms are more than the limit of {limit}"
        raise PydanticCustomError("terms", template, {"count": len(value), "limit": MAX_TERMS})
    return (
        sorted(value, key=str)
        if _is_a(value, set, frozenset)
        else list(value)
        if _is_a(value, tuple)
        else value
    )


def _form(value: object) -> str | None:
    """Which form of a condition a value has; the tags are stripped from paths again."""
    if isinstance(value, (list, tuple, set, frozenset, AllOf, AnyOf, AtLeast)):
        return "<list>" if not isinstance(value, BaseModel) else f"<{type(value).__name__}>"
    if isinstance(value, str):
        return "<name>"
    if _is_a(value, dict):
        assert isinstance(value, dict)  # noqa: S101 - for the type checker
        return next((tag for key, tag in _FORMS.items() if key in value), None)
    return None


_FORMS = {"all": "<AllOf>", "any": "<AnyOf>", "atLeast": "<AtLeast>", "of": "<AtLeast>"}

#: What pydantic puts into paths besides what a user wrote.
_TAGS = frozenset({"<list>", "<name>", "[key]", *_FORMS.values()})

Name = Annotated[str, BeforeValidator(_checked_name), Field(min_length=1, max_length=MAX_NAME)]

_OPTIONS: dict[str, Any] = {
    "custom_error_type": "condition",
    "custom_error_message": (
        'a list of names belongs here, like ["pageReceived"], or one of {"all": […]}, {"any": […]}, '
        '{"atLeast": 2, "of": […]}'
    ),
}


class _Form(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class AllOf(_Form):
    """Every term must hold."""

    all: Terms


class AnyOf(_Form):
    """At least one term must hold."""

    any: Annotated[Terms, Field(min_length=1)]


class AtLeast(_Form):
    """At least so many of the terms must hold."""

    atLeast: Annotated[int, Field(ge=1)]  # noqa: N815 - the word of the rule language
    of: Terms

    @model_validator(mode="after")
    def _enough_terms(self) -> AtLeast:
        distinct = len(condition_from_json(self.model_dump()).of)
        if self.atLeast > distinct:
            template = "atLeast {wanted} can never be met by {distinct} distinct terms"
            raise PydanticCustomError("at_least", template, {"wanted": self.atLeast, "distinct": distinct})
        return self


_Nested = (
    Annotated[AllOf, Tag("<AllOf>")] | Annotated[AnyOf, Tag("<AnyOf>")] | Annotated[AtLeast, Tag("<AtLeast>")]
)
Term = Annotated[Annotated[Name, Tag("<name>")] | _Nested, Discriminator(_form, **_OPTIONS)]
Terms = Annotated[list[Term], BeforeValidator(_as_list)]
ConditionForm = Annotated[Annotated[Terms, Tag("<list>")] | _Nested, Discriminator(_form, **_OPTIONS)]


class TaskDirectives(BaseModel):
    """When to run what: the directives of one task. Other keys are custom directives."""

    model_config = ConfigDict(extra="allow", strict=True)

    after: ConditionForm | None = Field(default=None, description="What must have happened.")
    run: Name = Field(description="Name of the registered task to run.")
    andEvery: Name | None = Field(  # noqa: N815 - the word of the rule language
        default=None, description="A trigger of which every firing makes an instance; implied in after."
    )
    unless: ConditionForm | None = Field(default=None, description="What stops it if it happened before.")
    withParams: dict[str, dict[str, Any]] = Field(  # noqa: N815 - the word of the rule language
        default_factory=dict, description="Defaults under the kwargs of the triggers, by trigger."
    )
    using: Name | None = Field(default=None, description="Name of the runner.")

    @model_validator(mode="after")
    def _can_be_met(self) -> TaskDirectives:
        if self.andEvery is None and (self.after is None or _is_empty(self.after)):
            template = "after is empty and there is no andEvery, so nothing would ever start this task"
            raise PydanticCustomError("after", template)
        return self


AllOf.model_rebuild()
AnyOf.model_rebuild()
AtLeast.model_rebuild()
TaskDirectives.model_rebuild()

_CONFIGURATION: TypeAdapter[dict[str, TaskDirectives]] = TypeAdapter(dict[Name, TaskDirectives])


def check_configuration(
    configuration: object,
    *,
    tasks: Collection[str] | None = None,
    runners: Collection[str] | None = None,
    limits: Limits = DEFAULT_LIMITS,
) -> RuleSet:
    """Turn a configuration into rules.

    Args:
        configuration: task name → directives, as in the rule language.
        tasks: every task that is registered, where the registry is complete; None lets any `run` pass.
        runners: every runner that may be named; None lets any `using` pass.
        limits: how large it may be.

    Raises:
        ConfigurationError: with every problem, each with its path.
    """
    written = _opened(configuration)
    problems = list(_problems(written, tasks, runners, limits))
    if problems:
        raise ConfigurationError(problems)
    return _rules(written)


def json_schema() -> dict[str, Any]:
    """The JSON Schema (draft 2020-12) of a configuration."""
    schema = _CONFIGURATION.json_schema()
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Triggers configuration",
        **schema,
    }


def _opened(configuration: object) -> dict[Any, Any]:
    """The configuration and its tasks as plain dicts, whatever kinds of dict they were.

    Raises:
        ConfigurationError: it is none, or cannot be read.
    """
    if not isinstance(configuration, dict):
        kind = type(configuration).__name__
        problem = f"a configuration is a mapping of task names to directives, not a {kind}"
        raise ConfigurationError([("$", problem)])
    try:
        return {
            task: dict(written) if isinstance(written, dict) else written
            for task, written in dict(configuration).items()
        }
    except Exception as error:
        raise ConfigurationError([("$", f"the configuration cannot be read: {shown(error)}")]) from error


def _rules(configuration: dict[str, Any]) -> RuleSet:
    return rule_set({task: dict(_directives(written)) for task, written in configuration.items()})


def _directives(written: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for key, value in written.items():
        if key in {"after", "unless"}:
            yield key, _lists(value)
        elif value is not None or key not in DIRECTIVES:
            yield key, value


def _lists(condition: Any) -> Any:
    """The same condition with lists where a user wrote sets or tuples of names."""
    if isinstance(condition, dict):
        return {key: _lists(terms) for key, terms in dict.items(condition)}
    if isinstance(condition, (list, tuple, set, frozenset)):
        return [_lists(term) for term in _as_list(condition)]
    return condition if condition is not None else []


def _problems(
    configuration: dict[Any, Any],
    tasks: Collection[str] | None,
    runners: Collection[str] | None,
    limits: Limits,
) -> Iterator[tuple[str, str]]:
    if len(configuration) > limits.tasks:
        yield "$", f"{len(configuration):,} tasks are more than the limit of {limits.tasks:,}"
        return
    found = [*_wrong_keys(configuration), *_wrong_shapes(configuration), *_unstorable(configuration)]
    yield from found
    yield from _unknown(configuration, "run", "task", tasks)
    yield from _unknown(configuration, "using", "runner", runners)
    if not found:
        try:
            rules = _rules(configuration)
        except InvalidValueError as error:  # too deep, or too large, as a whole
            path, _, message = str(error).partition(": ")
            yield path.removeprefix("the configuration.").replace("the configuration", "$"), message
        else:
            yield from _never(rules)


def _wrong_keys(configuration: dict[Any, Any]) -> Iterator[tuple[str, str]]:
    for task, written in configuration.items():
        for key in written if isinstance(written, dict) else ():
            if key in RESERVED:
                yield _path((task, key)), f"{key!r} is reserved for a later version"
            elif key not in DIRECTIVES and (meant := near_miss(key)):
                yield _path((task, key)), f"unknown directive {key!r}: did you mean {meant!r}?"


def near_miss(key: object) -> str | None:
    """The directive that a key was probably meant to be, or None for a custom directive."""
    if not isinstance(key, str) or len(key) > MAX_NAME:
        return None
    spelled = {name.lower(): name for name in DIRECTIVES}
    flat = key.lower().replace("_", "").replace("-", "").replace(" ", "")
    found = difflib.get_close_matches(flat, spelled, n=1, cutoff=NEAR_MISS)
    return spelled[found[0]] if found else None


def _wrong_shapes(configuration: dict[Any, Any]) -> Iterator[tuple[str, str]]:
    try:
        _CONFIGURATION.validate_python(configuration)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            yield _path(problem["loc"]), _message(problem["type"], problem["msg"])


def _path(location: tuple[Any, ...]) -> str:
    path = ""
    for place, part in enumerate(location):
        if isinstance(part, int):
            path += f"[{part}]"
        elif place == 0 or part not in _TAGS:
            path += f".{_part(part)}" if path else _part(part)
    return path


def _part(key: object) -> str:
    plain = type(key) is str and len(key) <= MAX_PATH and key.isprintable()
    return str(key) if plain else shown(key)


_MESSAGES = {
    "dict_type": "a mapping belongs here",
    "extra_forbidden": "does not belong here: a condition is one of all, any, and atLeast with of",
    "int_type": "a whole number belongs here",
    "list_type": "a list of names belongs here",
    "missing": "is missing",
    "model_type": "a mapping of directives belongs here",
    "too_short": "needs at least one term",
}


def _message(kind: str, text: str) -> str:
    return _MESSAGES.get(kind, text)


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
                else f"known are: {', '.join(sorted(known)[:10]) or 'none'}"
            )
            yield _path((task, directive)), f"unknown {what} {name!r}; {hint}"


def _never(rules: RuleSet) -> Iterator[tuple[str, str]]:
    """Tasks that can never start, whatever the application fires, because they wait for each other.

    Everything that is no task's name may happen; then, whatever can start may fire its name.
    """
    possible = {name for rule in rules.rules.values() for name in rule.after.names} - rules.rules.keys()
    heads = list(rules.rules)
    while heads:
        rule = rules.rules[heads.pop()]
        if rule.task not in possible and rule.after.is_met(possible):
            possible.add(rule.task)
            heads += [listener.task for listener in rules.listeners.get(rule.task, ())]
    for rule in rules.rules.values():
        if rule.task not in possible:
            missing = ", ".join(rule.after.lacking(possible))
            yield (
                f"{rule.task}.after",
                f"can never start: it waits for {missing}, which can never start before it",
            )


def _is_empty(condition: Any) -> bool:
    """Whether no name stands in it, at any depth."""
    match condition:
        case AllOf(all=terms) | AnyOf(any=terms) | AtLeast(of=terms) | list(terms):
            return all(map(_is_empty, terms))
        case _:
            return False
