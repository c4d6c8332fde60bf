"""Functions that are told of every record of this process, such as those of `captured_logs`."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

    from triggers.core.records import LogEntry
    from triggers.logs.settings import LogIdentity

_listeners: tuple[Callable[[LogIdentity, LogEntry], None], ...] = ()


def listen(told: Callable[[LogIdentity, LogEntry], None]) -> None:
    """Call a function for every record of this process from now on, in the thread that logs it."""
    global _listeners  # noqa: PLW0603 - replaced as a whole, so that no lock is needed to read it
    _listeners = (*_listeners, told)


def unlisten(told: Callable[[LogIdentity, LogEntry], None]) -> None:
    """Stop calling a function that was passed to :func:`listen`."""
    global _listeners  # noqa: PLW0603 - as above
    _listeners = tuple(other for other in _listeners if other != told)


def tell(identity: LogIdentity, entry: LogEntry) -> None:
    """Call all functions that were passed to :func:`listen`."""
    for told in _listeners:
        told(identity, entry)
