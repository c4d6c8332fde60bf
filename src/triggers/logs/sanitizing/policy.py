"""Which parts of a context may be kept and handed on at all: all of it, chosen keys, or no values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from triggers.logs.sanitizing.redact import REDACTED
from triggers.logs.sanitizing.shapes import marker
from triggers.logs.sanitizing.texts import ELLIPSIS

if TYPE_CHECKING:
    from collections.abc import Callable

#: See :attr:`triggers.logs.LogSettings.context_policy`.
ContextPolicy = Literal["all", "allowed", "keys"]
#: Stands under the key ``…`` of a mapping of which the policy left something out.
LEFT_OUT = "[keys left out]"


def policy(name: ContextPolicy, allowed: frozenset[str]) -> Callable[[Any], Any] | None:
    """Return what a policy makes of plain data, in containers of its own; None if it leaves it as it is."""
    if name == "all":
        return None
    return _types if name == "keys" else lambda data: _chosen(data, allowed)


def _types(data: Any) -> Any:
    """Keep what the keys are and how they are nested; of each value, only its type."""
    if type(data) is dict:
        return {key: _types(item) for key, item in data.items()}
    if type(data) is list:
        return [_types(item) for item in data]
    return REDACTED if data == REDACTED else marker(data)


def _chosen(data: Any, allowed: frozenset[str]) -> Any:
    """Keep only allowed keys, of every mapping at any depth."""
    if type(data) is list:
        return [_chosen(item, allowed) for item in data]
    if type(data) is not dict:
        return data
    kept = {key: _chosen(item, allowed) for key, item in data.items() if key in allowed}
    if len(kept) < len(data):
        kept[ELLIPSIS] = LEFT_OUT
    return kept
