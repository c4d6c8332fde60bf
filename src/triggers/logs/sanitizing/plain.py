"""Context that has been made plain: shared by records, copied for whoever may change it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(slots=True)
class SanitizedContext:
    """Bounded plain data that is never changed again, and so can be shared.

    Attributes:
        data: the context.
        size: of it as JSON, in bytes; at most, not exactly.
        weight: its size as it probably is, in bytes.
        nodes: how many values stand in it.
        flat: whether no value of it is a container.
        truncated: paths of what was cut.
    """

    data: dict[str, Any]
    size: int
    weight: int
    nodes: int
    flat: bool
    truncated: tuple[str, ...] = ()

    def copy(self) -> dict[str, Any]:
        """Return the data in containers of its own, for a reader who may change them."""
        return self.data.copy() if self.flat else copied(self.data)


#: The context of who has none.
NOTHING = SanitizedContext({}, 2, 2, 0, flat=True)


def copied(value: Any) -> Any:
    """Return plain data in containers of its own."""
    if type(value) is dict:
        return {key: copied(item) for key, item in value.items()}
    return [copied(item) for item in value] if type(value) is list else value


def merged(under: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return one mapping over another: objects are merged at every level, all else is replaced."""
    out = dict(under)
    for key, item in over.items():
        before = out.get(key)
        out[key] = merged(before, item) if type(before) is dict and type(item) is dict else item
    return out
