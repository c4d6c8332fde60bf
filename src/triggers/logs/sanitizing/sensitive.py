"""A wrapper for secret values, which only `reveal` returns."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from triggers.redaction import REDACTED

T = TypeVar("T")
_PICKLED: Any = object()


class Sensitive(Generic[T]):
    """Holds a value that no log may show: ``Sensitive(token)`` is written as ``[redacted]``.

    This holds for arguments of messages, contexts, exceptions, keys, ``repr``, ``str`` and every format. A
    pickle does not contain the value: an unpickled Sensitive is written as ``[redacted]``, too, and cannot
    reveal anything. A copy is the same object, and a Sensitive is equal only to itself.

    The value is not searched for in other texts. To hide it there, pass it to
    :func:`triggers.logs.mask_secret`.
    """

    __slots__ = ("_value",)

    def __init__(self, value: T) -> None:
        self._value = value

    def reveal(self) -> T:
        """Return the wrapped value.

        Raises:
            LookupError: this Sensitive was unpickled, and a pickle does not contain the value.
        """
        if self._value is _PICKLED:
            message = (
                "a pickled Sensitive does not contain its value; read the value again where it is needed"
            )
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
        return _without_value, ()


def _without_value() -> Sensitive[Any]:
    return Sensitive(_PICKLED)
