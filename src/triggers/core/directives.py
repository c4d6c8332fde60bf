"""The pydantic models of a configuration, its directives, and the forms of a condition.

Importing pydantic and building these models takes as long as the rest of ``import triggers``. Therefore this
module is only imported inside functions, when there is a configuration to check.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    TypeAdapter,
    ValidationError,
    WithJsonSchema,
    model_validator,
)
from pydantic_core import PydanticCustomError

from triggers.core.conditions import condition_from_json, listed
from triggers.core.durations import PATTERN, read_duration
from triggers.core.names import MAX_NAME, check_name
from triggers.exceptions import InvalidNameError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Maximum number of terms in one list of a condition, equal to the maximum number of tasks.
MAX_TERMS = 10_000


def _checked_name(value: object) -> object:
    try:
        return check_name(value, "name")
    except InvalidNameError as error:
        raise PydanticCustomError("name", "{reason}", {"reason": str(error)}) from None


def _is_a(value: object, *kinds: type) -> bool:
    """Check the real type of a value. An object can pretend another class to isinstance()."""
    return issubclass(type(value), kinds)


def _as_list(value: Any) -> Any:
    if _is_a(value, list, tuple, set, frozenset) and len(value) > MAX_TERMS:
        template = "{count} terms are more than the limit of {limit}"
        raise PydanticCustomError("terms", template, {"count": len(value), "limit": MAX_TERMS})
    return listed(value)


def _form(value: object) -> str | None:
    """Return the tag for the form of a condition; :func:`shape_problems` removes the tags from paths."""
    if isinstance(value, (list, tuple, set, frozenset, AllOf, AnyOf, AtLeast)):
        return "<list>" if not isinstance(value, BaseModel) else f"<{type(value).__name__}>"
    if isinstance(value, str):
        return "<name>"
    if _is_a(value, dict):
        assert isinstance(value, dict)  # noqa: S101 - for the type checker
        return next((tag for key, tag in _FORMS.items() if key in value), None)
    return None


_FORMS = {"all": "<AllOf>", "any": "<AnyOf>", "atLeast": "<AtLeast>", "of": "<AtLeast>"}

#: Parts of pydantic's paths that are not in the configuration.
_TAGS = frozenset({"<list>", "<name>", "<mapping>", "<duration>", "[key]", *_FORMS.values()})

Name = Annotated[str, BeforeValidator(_checked_name), Field(min_length=1, max_length=MAX_NAME)]

_OPTIONS: dict[str, Any] = {
    "custom_error_type": "condition",
    "custom_error_message": (
        'must be a list of names, such as ["pageReceived"], or one of {"all": […]}, {"any": […]}, '
        '{"atLeast": 2, "of": […]}'
    ),
}


class _Form(BaseModel):
    model_config: ClassVar[ConfigDict] = ConfigDict(extra="forbid", strict=True)


class AllOf(_Form):
    """The form of a condition of which every term must be met."""

    all: Terms


class AnyOf(_Form):
    """The form of a condition of which at least one term must be met."""

    any: Annotated[Terms, Field(min_length=1)]


class AtLeast(_Form):
    """The form of a condition of which at least a certain number of terms must be met."""

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


def _checked_duration(value: object) -> object:
    try:
        read_duration(value)
    except ValueError as error:
        raise PydanticCustomError("duration", "{reason}", {"reason": str(error)}) from None
    return value


Duration = Annotated[
    Any,
    BeforeValidator(_checked_duration),
    WithJsonSchema({"type": "string", "pattern": PATTERN, "examples": ["PT30S", "PT10M", "P3D"]}),
]


class RetryForm(_Form):
    """The form of `retry`: how often, after which pauses, and after which exceptions."""

    max: Annotated[int, Field(ge=1, le=1_000_000, description="How many retries in a row are allowed.")] = 3
    first: Duration = Field(default="PT1S", description="The pause before the first retry.")
    factor: Annotated[
        int | float, Field(ge=1, le=1_000, allow_inf_nan=False, description="The growth of the pauses.")
    ] = 2
    atMost: Duration = Field(default="PT15M", description="The longest pause.")  # noqa: N815 - a word of the rule language
    jitter: bool = Field(default=True, description="Whether pauses vary, between a half and all of them.")
    on: Annotated[list[Name], BeforeValidator(listed), Field(description="Only after these exceptions.")] = []
    never: Annotated[
        list[Name], BeforeValidator(listed), Field(alias="not", description="Not after these exceptions.")
    ] = []


def _timing_form(value: object) -> str:
    return "<mapping>" if _is_a(value, dict) or isinstance(value, BaseModel) else "<duration>"


class DelayForm(_Form):
    """The form of `delay` with more than the duration."""

    pause: Duration = Field(alias="for", description="How long the instance waits.")
    since: Literal["first", "last"] = Field(
        default="first",
        description="Whether it waits from when the condition was met, or from the last firing in after.",
    )
    atMost: Duration = Field(  # noqa: N815 - a word of the rule language
        default=None, description="The longest time from when the condition was first met."
    )

    @model_validator(mode="after")
    def _fits(self) -> DelayForm:
        if self.atMost is not None and self.since == "first":
            template = 'has atMost, which is only useful with "since": "last"'
            raise PydanticCustomError("delay", template)
        if self.atMost is not None and read_duration(self.atMost) < read_duration(self.pause):
            raise PydanticCustomError("delay", "has an atMost that is shorter than its for")
        return self


class DeadlineForm(_Form):
    """The form of `deadline` with more than the duration."""

    within: Duration = Field(alias="in", description="How long it takes at most until the condition is met.")
    start: Name | None = Field(
        default=None,
        alias="from",
        description="From the arrival of which trigger the time counts; by default, from the creation.",
    )
    late: Literal["wait", "abandon"] = Field(
        default="wait", description="What happens to an instance that misses the deadline."
    )


DelayDirective = Annotated[
    Annotated[Duration, Tag("<duration>")] | Annotated[DelayForm, Tag("<mapping>")],
    Discriminator(_timing_form),
]
DeadlineDirective = Annotated[
    Annotated[Duration, Tag("<duration>")] | Annotated[DeadlineForm, Tag("<mapping>")],
    Discriminator(_timing_form),
]


class TaskDirectives(BaseModel):
    """The directives of one task, which say what to run and when. Other keys are custom directives."""

    model_config: ClassVar[ConfigDict] = ConfigDict(extra="allow", strict=True)

    after: ConditionForm | None = Field(
        default=None, description="What must have fired before the task runs."
    )
    run: Name = Field(description="The name of the registered task to run.")
    andEvery: Name | None = Field(  # noqa: N815 - the word of the rule language
        default=None,
        description="A trigger that creates an instance each time it fires. It is also part of after.",
    )
    unless: ConditionForm | None = Field(
        default=None, description="What prevents the task from running if it fires first."
    )
    withParams: dict[str, dict[str, Any]] = Field(  # noqa: N815 - the word of the rule language
        default_factory=dict, description="Default kwargs for each trigger."
    )
    using: Name | None = Field(default=None, description="The name of the runner that executes the task.")
    retry: RetryForm | None = Field(
        default=None, description="When an instance that raised an exception runs again by itself."
    )

    delay: DelayDirective | None = Field(
        default=None, description="How long an instance waits after its condition is met."
    )
    deadline: DeadlineDirective | None = Field(
        default=None, description="Until when the condition of an instance should be met."
    )

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

CONFIGURATION: TypeAdapter[dict[str, TaskDirectives]] = TypeAdapter(dict[Name, TaskDirectives])


def shape_problems(configuration: dict[Any, Any]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yield each part of a configuration that does not match the models: its path, and the problem."""
    try:
        CONFIGURATION.validate_python(configuration)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            task, parts = problem["loc"][:1], problem["loc"][1:]
            location = (*task, *(part for part in parts if part not in _TAGS))
            yield location, _message(problem["type"], problem["msg"], location)


def _message(kind: str, given: str, location: tuple[Any, ...]) -> str:
    if kind == "extra_forbidden":
        keys = next((keys for directive, keys in _KEYS.items() if directive in location[1:2]), None)
        return f"is not allowed here: {keys}" if keys else _MESSAGES[kind]
    if kind == "literal_error":
        return given.replace("Input should be", "must be")
    return _MESSAGES.get(kind, given)


#: Directive → the keys of its form, for messages.
_KEYS = {
    "retry": "retry has the keys max, first, factor, atMost, jitter, on and not",
    "delay": "delay has the keys for, since and atMost",
    "deadline": "deadline has the keys in, from and late",
}


_MESSAGES = {
    "dict_type": "must be a mapping",
    "extra_forbidden": "is not allowed here: a condition has the key all or any, or the keys atLeast and of",
    "int_type": "must be a whole number",
    "list_type": "must be a list of names",
    "missing": "is missing",
    "model_type": "must be a mapping of directives",
    "too_short": "needs at least one term",
}


def retry_problems(written: object) -> list[str]:
    """Return what is wrong with a `retry`, as paths with messages; nothing if it is valid."""
    try:
        RetryForm.model_validate(written)
    except ValidationError as error:
        return [
            f"{'.'.join(map(str, problem['loc']))} {_message(problem['type'], problem['msg'], ('', 'retry'))}"
            for problem in error.errors(include_url=False)
        ]
    return []


def _is_empty(condition: Any) -> bool:
    """Return whether a condition contains no name at any depth."""
    match condition:
        case AllOf(all=terms) | AnyOf(any=terms) | AtLeast(of=terms) | list(terms):
            return all(map(_is_empty, terms))
        case _:
            return False
