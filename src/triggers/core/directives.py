"""The shapes that pydantic checks: a configuration, its directives, and the forms of a condition.

Loading pydantic and building these models takes as long as all the rest of ``import triggers``. So only
functions import this module, when there is a configuration to check.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

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

from triggers.core.conditions import condition_from_json, listed
from triggers.core.names import MAX_NAME, check_name
from triggers.exceptions import InvalidNameError

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    return listed(value)


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

CONFIGURATION: TypeAdapter[dict[str, TaskDirectives]] = TypeAdapter(dict[Name, TaskDirectives])


def shape_problems(configuration: dict[Any, Any]) -> Iterator[tuple[tuple[Any, ...], str]]:
    """Yield what in a configuration has the wrong shape: the keys and indexes that lead to it, and why."""
    try:
        CONFIGURATION.validate_python(configuration)
    except ValidationError as error:
        for problem in error.errors(include_url=False):
            task, parts = problem["loc"][:1], problem["loc"][1:]
            location = (*task, *(part for part in parts if part not in _TAGS))
            yield location, _MESSAGES.get(problem["type"], problem["msg"])


_MESSAGES = {
    "dict_type": "a mapping belongs here",
    "extra_forbidden": "does not belong here: a condition is one of all, any, and atLeast with of",
    "int_type": "a whole number belongs here",
    "list_type": "a list of names belongs here",
    "missing": "is missing",
    "model_type": "a mapping of directives belongs here",
    "too_short": "needs at least one term",
}


def _is_empty(condition: Any) -> bool:
    """Whether no name stands in it, at any depth."""
    match condition:
        case AllOf(all=terms) | AnyOf(any=terms) | AtLeast(of=terms) | list(terms):
            return all(map(_is_empty, terms))
        case _:
            return False
