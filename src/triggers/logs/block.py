"""Blocks of a task that have a logger, and the logger of the block that the running code is in."""

from __future__ import annotations

import functools
import inspect
import logging
import sys
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar, cast

from triggers.logs.capture import CAPTURER
from triggers.logs.logger import SIGNALS, TriggersLogger
from triggers.logs.redact import Secrets
from triggers.logs.sanitize import sanitizer
from triggers.logs.sensitive import Sensitive
from triggers.logs.settings import LogSettings
from triggers.logs.sink import Scope, Sink

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable, Iterator
    from types import FrameType, TracebackType

    from triggers.logs.log import InstanceLog

P = ParamSpec("P")
R = TypeVar("R")

#: The logger of the innermost block; each thread and each asyncio task has its own.
CURRENT: ContextVar[TriggersLogger | None] = ContextVar("triggers_current_logger", default=None)
#: Values that are hidden in every log of this process.
PROCESS_SECRETS = Secrets()


class LogBlock(AbstractContextManager[TriggersLogger]):
    """A part of a task whose log has a context of its own; :meth:`InstanceLog.block` makes it.

    Entering gives the logger; inside another block of the same instance it has that one's context too. An
    exception that leaves is logged, once however many blocks it leaves, and goes on unchanged: at ERROR, but
    the framework's own signals (retry, skip) and the cancellation of an asyncio task at INFO.
    """

    def __init__(
        self,
        log: InstanceLog,
        application: logging.Logger,
        layers: Iterable[Any],
        record_level: int,
        captures: tuple[str, ...] = (),
        *,
        capture_counts: bool = False,
    ) -> None:
        self._log = log
        self._application = application
        self._layers = tuple(layers)
        self._record_level = record_level
        self._captures = captures
        self._capture_counts = capture_counts
        self._entered: list[tuple[TriggersLogger, Scope, Token[TriggersLogger | None]]] = []

    def __enter__(self) -> TriggersLogger:
        log, outer = self._log, CURRENT.get()
        inside = outer if outer is not None and outer.belongs_to(log) else None
        base, around = (log.base, None) if inside is None else (inside.bound, inside.scope)
        scope = Scope(around, self._captures, capture_counts=self._capture_counts)
        logger = TriggersLogger(self._application, log, base, scope, self._record_level)
        logger.bound = logger.with_layers(base, self._layers)
        self._entered.append((logger, scope, CURRENT.set(logger)))
        CAPTURER.begin(self._captures)
        return logger

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        logger, scope, token = self._entered.pop()
        _restore(token)
        CAPTURER.end(self._captures)
        if exc is not None and not isinstance(exc, GeneratorExit) and self._log.first_sight(exc):
            logger.leave(exc, level_of(exc))
        scope.ended = True


def level_of(exc: BaseException) -> int:
    """Return the level at which an exception is logged when it leaves a block."""
    return logging.INFO if isinstance(exc, SIGNALS) else logging.ERROR


def _restore(token: Token[TriggersLogger | None]) -> None:
    try:
        CURRENT.reset(token)
    except ValueError:
        # An asynchronous generator may be closed in another context than it was begun in.
        CURRENT.set(None if token.old_value is Token.MISSING else token.old_value)


@contextmanager
def detached() -> Iterator[None]:
    """Run what follows outside of any block: a task run inside another's must not write to its log."""
    token = CURRENT.set(None)
    try:
        yield
    finally:
        _restore(token)


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
                _restore(token)

        return cast("Callable[P, R]", carried_coroutine)

    @functools.wraps(function)
    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        token = CURRENT.set(logger)
        try:
            return function(*args, **kwargs)
        finally:
            _restore(token)

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
