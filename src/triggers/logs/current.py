"""The current logger, that of the block in which code runs, and the functions that use it."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from triggers.fired_by import FIRED_BY, firing_as
from triggers.logs.logger import TriggersLogger
from triggers.logs.sanitizing.sanitizer import sanitizer
from triggers.logs.sanitizing.sensitive import Sensitive
from triggers.logs.settings import LogSettings
from triggers.logs.sink import Sink
from triggers.redaction import Secrets

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from types import FrameType

P = ParamSpec("P")
R = TypeVar("R")

#: The logger of the innermost block; each thread and each asyncio task has its own.
CURRENT: ContextVar[TriggersLogger | None] = ContextVar("triggers_current_logger", default=None)
#: Secret values that are hidden in every log of this process.
PROCESS_SECRETS = Secrets()


def restore(token: Token[TriggersLogger | None]) -> None:
    """Restore the logger that was current before the token was made, even in another context."""
    try:
        CURRENT.reset(token)
    except ValueError:
        # An asynchronous generator may be closed in another context than the one that started it.
        CURRENT.set(None if token.old_value is Token.MISSING else token.old_value)


class detached:  # noqa: N801 - used like a function
    """Run code outside of any block, so that a task that another task runs has a log of its own.

    This is a class because contextlib sets attributes of the exceptions that pass, which some classes refuse.
    """

    def __enter__(self) -> None:
        self._token = CURRENT.set(None)

    def __exit__(self, *_: object) -> None:
        restore(self._token)


def current_logger(name: str | None = None) -> TriggersLogger:
    """Return the logger of the block in which the calling code runs, at any depth of calls.

    Args:
        name: forward the records to the application's logger of this name instead of the block's; usually
            ``__name__``.

    Returns:
        Outside of any block, a logger that stores nothing and forwards everything to the application's logger
        of that name, by default the name of the calling module.
    """
    logger = CURRENT.get()
    if logger is not None:
        return logger if name is None or name == logger.name else logger.named(name)
    if name is None:
        name = _module(sys._getframe(1))  # noqa: SLF001 - the calling module
    return TriggersLogger(logging.getLogger(name), _outside())


@functools.cache
def _outside() -> Sink:
    return _Outside(sanitizer(LogSettings()))


class _Outside(Sink):
    __slots__ = ()

    def secrets(self) -> tuple[str, ...]:
        return PROCESS_SECRETS.values()


def bind(**context: Any) -> TriggersLogger:
    """Return the current logger with more context; the logger of the block does not change."""
    logger = CURRENT.get() or current_logger(_module(sys._getframe(1)))  # noqa: SLF001 - the calling module
    return logger.bind(context)


def _module(frame: FrameType) -> str:
    return str(frame.f_globals.get("__name__", "triggers"))


def propagate(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that runs with the current logger in any thread.

    What it fires counts as fired by the task that called `propagate`.

    Use it as in ``pool.submit(propagate(work), item)``. The function may run many times at once. If it runs
    after the block has ended, its records are marked late. A coroutine function stays a coroutine function.
    """
    logger, fired_by = CURRENT.get(), FIRED_BY.get()

    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def carried_coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
            token = CURRENT.set(logger)
            try:
                with firing_as(fired_by):
                    return await cast("Callable[P, Awaitable[Any]]", function)(*args, **kwargs)
            finally:
                restore(token)

        return cast("Callable[P, R]", carried_coroutine)

    @functools.wraps(function)
    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        token = CURRENT.set(logger)
        try:
            with firing_as(fired_by):
                return function(*args, **kwargs)
        finally:
            restore(token)

    return carried


def mask_secret(value: str | bytes | Sensitive[str] | Sensitive[bytes]) -> None:
    """Hide this value in every message, context and traceback from now on.

    Inside a block, it is hidden in the log of that instance. Outside, it is hidden in every log of this
    process until the process ends. Values shorter than 4 characters are ignored.

    Args:
        value: a password or token; bytes are decoded as UTF-8; of a Sensitive, its value is hidden.
    """
    logger = CURRENT.get()
    secrets = logger.own_secrets() if logger is not None else None
    (secrets or PROCESS_SECRETS).add(value.reveal() if isinstance(value, Sensitive) else value)
