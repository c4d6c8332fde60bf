"""A value that shows itself only to who asks for it by name."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from triggers.logs.sanitizing.redact import REDACTED

T = TypeVar("T")
_GONE: Any = object()


class Sensitive(Generic[T]):
    """Holds a value that no log may show: ``Sensitive(token)`` is ``[redacted]`` wherever it is written.

    As an argument of a message, anywhere in a context, in an exception, as a key, in ``repr``, ``str`` and
    every format. A pickle does not have the value either: what comes out of one shows ``[redacted]`` too and
    cannot reveal anything. A copy is the very same object, and two are equal if they are the same.

    The value itself is not searched for elsewhere; for that, give it to :func:`triggers.logs.mask_secret`.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        """Return the value.

        Raises:
            LookupError: this one came out of a pickle, which does not have the value.
        """
        if self._value is _GONE:
            message = "a Sensitive leaves its value behind when pickled; fetch it anew where it is needed"
            raise LookupError(message)
        return self._value

    def __repr__(self) -> str:
        return REDACTED

    __str__ = __repr__

    def __format__(self, _spec: str) -> str:
        return REDACTED

    def __copy__(self) -> Sensitive[T]:
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> Sensitive[T]:
        return self

    def __reduce_ex__(self, _protocol: Any) -> tuple[Any, ...]:
        return _left_behind, ()


def _left_behind() -> Sensitive[Any]:
    return Sensitive(_GONE)
