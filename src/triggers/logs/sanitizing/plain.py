"""Sanitized contexts: records share them, and readers that may change one get a copy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(slots=True)
class SanitizedContext:
    """Bounded plain data that never changes, so that it can be shared.

    Attributes:
        data: the context.
        size: an upper bound of its size as JSON, in bytes.
        weight: an estimate of its size, in bytes.
        nodes: how many values it has.
        flat: whether none of its values is a container.
        truncated: the paths of what was cut.
    """

    data: dict[str, Any]
    size: int
    weight: int
    nodes: int
    flat: bool
    truncated: tuple[str, ...] = ()

    def copy(self) -> dict[str, Any]:
        """Return a copy of the data, for a reader that may change it."""
        return self.data.copy() if self.flat else copied(self.data)


#: The empty context.
NOTHING = SanitizedContext({}, 2, 2, 0, flat=True)


def copied(value: Any) -> Any:
    """Return a deep copy of plain data."""
    if type(value) is dict:
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if type(value) is list else value


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return one mapping merged over another: mappings are merged at every level, other values replaced."""
    out = dict(under)
    for key, item in over.items():
        before = out.get(key)
        out[key] = merged(before, item) if type(before) is dict and type(item) is dict else item
    return out
