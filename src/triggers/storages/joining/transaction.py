"""An open transaction of the application, as the rest of the package sees it."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

Call = Callable[[], None]


def _always_open() -> None:
    """Check nothing: only the driver knows whether the transaction is still open."""


@dataclass(frozen=True, slots=True)
class AsyncConnection:
    """A driver's asynchronous connection that synchronous code uses.

    Attributes:
        connection: the driver's connection.
        wait: runs a coroutine to its end. Other tasks run in the meantime.
    """

    connection: Any
    wait: Callable[[Coroutine[Any, Any, None]], None]


@dataclass(frozen=True, slots=True)
class OpenTransaction:
    """A transaction that the application has begun and will end.

    Attributes:
        connection: the driver's connection, or an :class:`AsyncConnection`.
        check: raises a :class:`~triggers.exceptions.StorageError` if the transaction has ended.
        after_commit: registers a function to be called after the outermost commit. It is not called if what
            was done before the registration is rolled back. None if nothing tells when the commit happens.
    """

    connection: Any
    check: Call = _always_open
    after_commit: Callable[[Call], None] | None = None
