"""Blocks of a task, each with a logger and a context of its own."""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from triggers.logs.capture import CAPTURER
from triggers.logs.current import CURRENT, restore
from triggers.logs.forwarding import is_signal
from triggers.logs.logger import TriggersLogger
from triggers.logs.sink import Scope

if TYPE_CHECKING:
    from collections.abc import Iterable
    from contextvars import Token
    from types import TracebackType

    from triggers.logs.sink import Sink


#: What an application may pass as its logger.
LOGGERS = (logging.Logger, logging.LoggerAdapter)


class LogBlock(AbstractContextManager[TriggersLogger]):
    """A part of a task whose log has a context of its own; :meth:`InstanceLog.block` creates it.

    Entering it returns the logger. Inside another block of the same instance, the logger also has that
    block's context. An exception that leaves the block is logged, once for all the blocks that it leaves, and
    is raised unchanged. It is logged at ERROR; the signals of the library (retry, skip) and the cancellation
    of an asyncio task are logged at INFO.
    """

    def __init__(
        self,
        log: Sink,
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
        restore(token)
        CAPTURER.end(self._captures)
        if exc is not None and not issubclass(type(exc), GeneratorExit):
            level = level_of(exc)
            if logger.isEnabledFor(level) and self._log.first_sight(exc, level):
                logger.leave(exc, level)
        scope.ended = True


def level_of(exc: BaseException) -> int:
    """Return the level at which an exception is logged when it leaves a block."""
    return logging.INFO if is_signal(exc) else logging.ERROR


def application_of(logger: Any) -> tuple[logging.Logger | None, list[Any]]:
    """Return the application's own logger inside adapters and blocks, and the contexts of the adapters."""
    layers: list[Any] = []
    while isinstance(logger, logging.LoggerAdapter):
        layers.insert(0, logger.extra)
        logger = logger.logger
    return (logger.application if isinstance(logger, TriggersLogger) else logger), layers
