"""Forwards a recorded call to the application's logger, its filters and its handlers."""

from __future__ import annotations

import logging
import sys
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from triggers.exceptions import StatusChange
from triggers.logs.extra import set_renamed
from triggers.logs.report import report_once
from triggers.logs.sanitizing.exceptions import traceback_of

if TYPE_CHECKING:
    from triggers.logs.sanitizing.exceptions import Described
    from triggers.logs.sanitizing.plain import SanitizedContext
    from triggers.logs.sink import Sink


def is_signal(exc: BaseException | None) -> bool:
    """Whether it ends a task without a failure: a retry, a skip, or the cancellation of an asyncio task."""
    # Importing asyncio takes long. If no module has imported it, nothing was cancelled.
    cancelled = getattr(sys.modules.get("asyncio"), "CancelledError", ())
    return issubclass(type(exc), (StatusChange, cancelled))


class _Forwarding(threading.local):
    """Whether this thread is inside a handler of the application."""

    active = False


FORWARDING = _Forwarding()


@dataclass(slots=True)
class Details:
    """What only some records have: an exception, and further attributes of the LogRecord."""

    exc: BaseException | None = None
    described: Described | None = None
    attributes: dict[str, Any] | None = None

    def is_signal(self, level: int) -> bool:
        """Whether the exception is a signal that is logged below WARNING, without its traceback."""
        return level < logging.WARNING and is_signal(self.exc)

    def triple(self, level: int) -> Any:
        """Return the exception as handlers expect it; None for a signal, or if its text has a secret."""
        if self.exc is None or self.described is None or self.described.hidden or self.is_signal(level):
            return None
        return type(self.exc), self.exc, traceback_of(self.exc)

    def cuts(self, truncated: tuple[str, ...], *, was_cut: bool) -> tuple[str, ...]:
        """Return the paths of all cuts: those of the context, the message and the exception."""
        message = ("message",) if was_cut else ()
        return (*truncated, *message, *(self.described.truncated if self.described is not None else ()))


NO_DETAILS = Details()


def forward(  # noqa: PLR0917 - called for every record
    logger: logging.Logger,
    application: logging.Logger,
    sink: Sink,
    level: int,
    send: str,
    args: tuple[Any, ...],
    place: tuple[str, int, str],
    number: int,
    plain: SanitizedContext,
    truncated: tuple[str, ...],
    details: Details,
    stack: str | None,
) -> None:
    """Make a LogRecord and pass it to the application's logger.

    The LogRecord shares no container with what is stored. What a handler raises is reported once, and raised
    only if the log is strict.
    """
    FORWARDING.active = True
    try:
        path, line, function = place
        record = logging.getLogRecordFactory()(
            logger.name, level, path, line, send, args, details.triple(level), function, stack
        )
        state = record.__dict__
        ours = sink.attributes.copy()
        ours["triggers.seq"] = number
        ours["context"] = plain.data.copy() if plain.flat else plain.copy()
        ours["truncated"] = truncated
        # All at once: the dict of a LogRecord is full, and growing it several times is slow.
        state.update(ours)
        if details.described is not None and not details.is_signal(level):
            state["exc_text"] = details.described.record["traceback"].rstrip("\n")
        if details.attributes:
            set_renamed(state, details.attributes)
        if logger.filters or logger.handlers or not logger.propagate:
            _dispatch(logger, application, record)
        else:
            application.handle(record)
    except Exception as problem:
        if sink.strict:
            raise
        report_once(f"a handler of logger {logger.name!r} failed; the record is stored", problem)
    finally:
        FORWARDING.active = False


def _dispatch(logger: logging.Logger, application: logging.Logger, record: logging.LogRecord) -> None:
    if logger.filters and not logger.filter(record):
        return
    for handler in logger.handlers:
        if record.levelno >= handler.level:
            handler.handle(record)
    if logger.propagate:
        application.handle(record)
