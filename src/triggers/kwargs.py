"""Validates the kwargs of a task with pydantic models, TypedDicts, or the filters of the Filters library."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from triggers.exceptions import InvalidKwargsError, first_problems, with_context
from triggers.plugins import missing


def filter_kwargs(kwargs: Mapping[str, Any], filters: Mapping[str, Any]) -> dict[str, Any]:
    """Validate the kwargs of each trigger in `filters`; see :meth:`triggers.task.TaskContext.filter_kwargs`.

    Raises:
        InvalidKwargsError: the kwargs have problems. The context of the exception contains all of them by
            path.
    """
    filtered: dict[str, Any] = {}
    problems: dict[str, str] = {}
    for trigger, wanted in filters.items():
        apply = _by_filters if isinstance(wanted, Mapping) else _by_type
        filtered[trigger] = apply(trigger, kwargs.get(trigger, {}), wanted, problems)
    if problems:
        listed = "; ".join(first_problems([*problems.items()]))
        raise with_context(
            exc=InvalidKwargsError(f"invalid kwargs: {listed}"), context={"problems": problems}
        )
    return filtered


def _by_type(trigger: str, value: Any, wanted: Any, problems: dict[str, str]) -> Any:
    try:
        return TypeAdapter(wanted).validate_python(value)
    except ValidationError as error:
        for problem in error.errors(include_url=False, include_input=False):
            problems[".".join(map(str, (trigger, *problem["loc"])))] = problem["msg"]
        return None


def _by_filters(trigger: str, value: Any, wanted: Mapping[str, Any], problems: dict[str, str]) -> Any:
    try:
        import filters
    except ImportError as error:
        raise ImportError(missing("a mapping of filters", "filters")) from error
    runner = filters.FilterRunner(filters.FilterMapper(dict(wanted)), value)
    if not runner.is_valid():
        for path, found in runner.get_errors().items():
            problems[f"{trigger}.{path}" if path else trigger] = "; ".join(
                problem["message"] for problem in found
            )
    return runner.cleaned_data
