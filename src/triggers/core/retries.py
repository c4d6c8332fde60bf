"""Retries as data: after which exceptions an instance runs again by itself, how often and when."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from triggers.core.durations import micros, read_duration

if TYPE_CHECKING:
    from collections.abc import Callable, Collection


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """When an instance that raised an exception runs again.

    Attributes:
        limit: how many retries in a row are allowed.
        first: the pause before the first retry.
        factor: by how much each further pause is longer.
        at_most: the longest pause.
        jitter: whether each pause is shortened by up to a half, so that many retries do not come at once.
        on: the names of exceptions after which it is retried; empty for every exception.
        never: the names of exceptions after which it is not retried.
    """

    limit: int = 3
    first: timedelta = timedelta(seconds=1)
    factor: float = 2.0
    at_most: timedelta = timedelta(minutes=15)
    jitter: bool = True
    on: tuple[str, ...] = ()
    never: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return the policy in the rule language. Durations are timedeltas."""
        return {key: getattr(self, name) for key, name in KEYS.items() if getattr(self, name) != ()}

    def matches(self, names: Collection[str]) -> bool:
        """Return whether it applies to an exception.

        Args:
            names: the names of the exception's class and of the classes that it is derived from.
        """
        return not (self.on and not any(name in names for name in self.on)) and not any(
            name in names for name in self.never
        )

    def pause(self, uid: str, root: str, number: int) -> int:
        """Return the pause before a retry, in microseconds.

        It is always the same for the same retry, because the jitter comes from a hash.

        Args:
            uid: the UID of the session.
            root: the name of the instance's root.
            number: the number of the retry, from 1.
        """
        longest = micros(self.at_most)
        # The power can be too large for a float, and then the longest pause applies.
        growth = self.factor ** min(number - 1, _LONGEST_GROWTH)
        pause = longest if micros(self.first) * growth >= longest else round(micros(self.first) * growth)
        if not self.jitter:
            return pause
        digest = hashlib.sha256(f"{uid}\n{root}\n{number}".encode("utf-8", "surrogatepass")).digest()
        part = int.from_bytes(digest[:8], "big") / 2**64
        return round(pause * (0.5 + part / 2))


#: After so many retries, no pause grows any more, whatever the factor.
_LONGEST_GROWTH: Final = 100

#: The key in a configuration → the field.
KEYS: Final = {
    "max": "limit",
    "first": "first",
    "factor": "factor",
    "atMost": "at_most",
    "jitter": "jitter",
    "on": "on",
    "not": "never",
}

#: Key → what makes the value of the field from the stored one.
_READ: Final[dict[str, Callable[[Any], Any]]] = {
    "max": int,
    "first": read_duration,
    "factor": float,
    "atMost": read_duration,
    "jitter": bool,
    "on": tuple,
    "not": tuple,
}


def retry_policy(written: Any) -> RetryPolicy | None:
    """Return the policy of a stored ``retry``; None if only a newer version understands it."""
    try:
        return RetryPolicy(**{KEYS[key]: _READ[key](value) for key, value in written.items()})
    except (AttributeError, KeyError, TypeError, ValueError):
        return None


def names_of(exception: type[BaseException]) -> frozenset[str]:
    """Return the names by which a ``retry`` can refer to an exception.

    They are the plain and qualified names of its class and of all classes that it is derived from.
    """
    found: set[str] = set()
    for kind in _MRO(exception):
        module, name = _MODULE(kind), _QUALNAME(kind)
        found |= {_NAME(kind), name}
        if type(module) is str:  # a class can define anything as its module
            found.add(f"{module}.{name}")
    return frozenset(found)


# The attributes of the type itself: those that a metaclass defines can raise.
_MRO: Final = type.__dict__["__mro__"].__get__
_NAME: Final = type.__dict__["__name__"].__get__
_QUALNAME: Final = type.__dict__["__qualname__"].__get__
_MODULE: Final = type.__dict__["__module__"].__get__
