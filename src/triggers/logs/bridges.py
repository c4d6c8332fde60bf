"""Bridges for applications that log with structlog or loguru: their records are stored with the instance.

A bridge only copies a record into the log of the instance, where it counts like a record of the block's own
logger. The configuration of the other library decides where else it goes. Outside of a block, a bridge does
nothing. This module imports neither library.
"""

from __future__ import annotations

import logging
import sys
from typing import TYPE_CHECKING, Any

from triggers.logs.current import CURRENT
from triggers.logs.sanitizing.messages import text_of

if TYPE_CHECKING:
    from collections.abc import Mapping, MutableMapping

#: Keys that structlog's own processors add to an event; they are not context.
_STRUCTLOG_OWN = frozenset(
    {"event", "exc_info", "stack_info", "stack", "exception", "level", "level_number", "log_level"}
    | {"logger", "timestamp", "_record", "_from_structlog", "positional_args"}
)
_METHODS = {"exception": logging.ERROR, "fatal": logging.CRITICAL, "warn": logging.WARNING}


def structlog_processor(
    logger: Any, method_name: str, event_dict: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Store an event of structlog in the log of the instance; a processor for the place before the renderer.

    ``structlog.configure(processors=[merge_contextvars, structlog_processor, JSONRenderer()])``. The event is
    the message, its bound values are the context, ``exc_info`` is the exception. Events that structlog
    filters out by level never reach its processors, and are not stored.

    Args:
        logger: the logger that structlog wraps.
        method_name: the name of the called method: ``warning``, ``exception``.
        event_dict: the event.

    Returns:
        The event, unchanged.
    """
    current = CURRENT.get()
    if current is not None:
        level = _METHODS.get(method_name) or logging.getLevelNamesMapping().get(method_name.upper())
        name = event_dict.get("logger") or getattr(logger, "name", None) or current.name
        fields = {key: item for key, item in event_dict.items() if key not in _STRUCTLOG_OWN}
        exc_info = event_dict.get("exc_info")
        if exc_info is True:
            exc_info = sys.exc_info()
        place = _caller("structlog")
        event = event_dict.get("event")
        current.keep(_record(name, level or logging.INFO, place, event, exc_info=exc_info, fields=fields))
    return event_dict


def loguru_sink(message: Any) -> None:
    """Store a message of loguru in the log of the instance: ``logger.add(loguru_sink, format="{message}")``.

    Its bound values are the context. It must run in the thread of the code: do not use ``enqueue=True``.

    Args:
        message: as loguru passes it to a sink, with its ``record``.
    """
    current = CURRENT.get()
    if current is not None:
        said = message.record
        place = (said["file"].path, said["line"], said["function"])
        name, level = said["name"] or current.name, said["level"].no
        exc_info = None if said["exception"] is None else tuple(said["exception"])
        fields = said["extra"]
        current.keep(_record(name, level, place, said["message"], exc_info=exc_info, fields=fields))


def _record(
    name: object,
    level: int,
    place: tuple[str, int, str],
    message: object,
    *,
    exc_info: Any,
    fields: Mapping[str, Any],
) -> logging.LogRecord:
    path, line, function = place
    # Without arguments: an event of another library is not a template.
    record = logging.LogRecord(text_of(name), level, path, line, message, (), None, function)
    record.exc_info = exc_info
    record.context = fields
    return record


def _caller(package: str) -> tuple[str, int, str]:
    """Return where the code called the package that called this module."""
    frame = sys._getframe(2)  # noqa: SLF001 - as `logging` finds the caller
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).partition(".")[0] == package:
        frame = frame.f_back
    return frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name
