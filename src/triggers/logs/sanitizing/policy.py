"""Context policies: which parts of a context may be stored and forwarded."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from triggers.logs.sanitizing.shapes import marker
from triggers.logs.sanitizing.texts import ELLIPSIS
from triggers.redaction import REDACTED

if TYPE_CHECKING:
    from collections.abc import Callable

#: See :attr:`triggers.logs.LogSettings.context_policy`.
ContextPolicy = Literal["all", "allowed", "keys"]
#: The value of the key ``…`` in a mapping from which the policy removed something.
LEFT_OUT = "[keys left out]"


def policy(name: ContextPolicy, allowed: frozenset[str]) -> Callable[[Any], Any] | None:
    """Return the function that applies a policy to a copy of plain data; None if it changes nothing."""
    if name == "all":
        return None
    return _types if name == "keys" else lambda data: _chosen(data, allowed)


def _types(data: Any) -> Any:
    """Keep keys and nesting; replace each value by its type."""
    if type(data) is dict:
        return {key: _types(item) for key, item in data.items()}
    if type(data) is list:
        return [_types(item) for item in data]
    return REDACTED if data == REDACTED else marker(data)


def _chosen(data: Any, allowed: frozenset[str]) -> Any:
    """Keep only allowed keys in mappings at any depth."""
    if type(data) is list:
        return [_chosen(item, allowed) for item in data]
    if type(data) is not dict:
        return data
    kept = {key: _chosen(item, allowed) for key, item in data.items() if key in allowed}
    if len(kept) < len(data):
        kept[ELLIPSIS] = LEFT_OUT
    return kept
