"""The logger of the block that the running code is in, and what applications do with it wherever they are."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from triggers.logs.logger import TriggersLogger
from triggers.logs.sanitizing.redact import Secrets
from triggers.logs.sanitizing.sanitizer import sanitizer
from triggers.logs.sanitizing.sensitive import Sensitive
from triggers.logs.settings import LogSettings
from triggers.logs.sink import Sink

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

P = ParamSpec("P")
R = TypeVar("R")

#: The logger of the innermost block; each thread and each asyncio task has its own.
CURRENT: ContextVar[TriggersLogger | None] = ContextVar("triggers_current_logger", default=None)
#: Values that are hidden in every log of this process.
PROCESS_SECRETS = Secrets()


def restore(token: Token[TriggersLogger | None]) -> None:
    """Make the logger current again that was so before the token was made, in whatever context this runs."""
    try:
        CURRENT.reset(token)
    except ValueError:
        # An asynchronous generator may be closed in another context than it was begun in.
        CURRENT.set(None if token.old_value is Token.MISSING else token.old_value)


class detached:  # noqa: N801 - used like a function
    """Run the block outside any logger block: a task that runs inside another must not write to its log.

    A class, because contextlib sets attributes of the exceptions that pass, which some exceptions refuse.
    """

    def __enter__(self) -> None:
        self._token = CURRENT.set(None)

    def __exit__(self, *_: object) -> None:
        restore(self._token)


def current_logger(name: str | None = None) -> TriggersLogger:
    """Return the logger of the block that the calling code runs in, however far below.

    Args:
        name: hand the records to this logger of the application instead of the block's; ``__name__`` is what
            a module of its own would use.

    Returns:
        Outside of any block, a logger that records nothing and hands everything to the application's logger
        of that name, of the calling module if none is given.
    """
    logger = CURRENT.get()
    if logger is not None:
        return logger if name is None or name == logger.name else logger.named(name)
    if name is None:
        name = _module(sys._getframe(1))  # noqa: SLF001 - who calls
    return TriggersLogger(logging.getLogger(name), _outside())


@functools.cache
def _outside() -> Sink:
    return _Outside(sanitizer(LogSettings()))


class _Outside(Sink):
    __slots__ = ()

    def secrets(self) -> tuple[str, ...]:
        return PROCESS_SECRETS.values()


def bind(**context: Any) -> TriggersLogger:
    """Return the current logger with more context, as its own `bind` does; the block's stays as it is."""
    logger = CURRENT.get() or current_logger(_module(sys._getframe(1)))  # noqa: SLF001 - who calls
    return logger.bind(context)


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "triggers"))


def propagate(function: Callable[P, R]) -> Callable[P, R]:
    """Return the function such that the current logger is current inside of it, in whichever thread it runs.

    ``pool.submit(propagate(work), item)``. It may run many times at once, and after the block has ended: its
    records are then marked late. Coroutine functions stay coroutine functions.
    """
    logger = CURRENT.get()

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def carried_coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
            token = CURRENT.set(logger)
            try:
                return await cast("Callable[P, Awaitable[Any]]", function)(*args, **kwargs)
            finally:
                restore(token)

        return cast("Callable[P, R]", carried_coroutine)

    @functools.wraps(function)
    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        token = CURRENT.set(logger)
        try:
            return function(*args, **kwargs)
        finally:
            restore(token)

    return carried


def mask_secret(value: str | bytes | Sensitive[str] | Sensitive[bytes]) -> None:
    """Hide this value in every message, context and traceback from now on.

    Inside a block it is hidden in the log of that instance, and forgotten with it; outside, in every log of
    this process as long as it lives. Values shorter than 4 characters are ignored.

    Args:
        value: a password, a token; bytes are taken as UTF-8. A Sensitive is asked for its own.
    """
    logger = CURRENT.get()
    secrets = logger.own_secrets() if logger is not None else None
    (secrets or PROCESS_SECRETS).add(value.reveal() if isinstance(value, Sensitive) else value)
