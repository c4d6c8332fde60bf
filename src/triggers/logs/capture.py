"""Captures the records that other loggers of the application log within a block."""

from __future__ import annotations

import logging
import threading
import weakref
from collections import Counter
from typing import TYPE_CHECKING

from triggers.fork import reset_after_fork
from triggers.logs.current import CURRENT

if TYPE_CHECKING:
    from collections.abc import Iterable


class _Capturer(logging.Handler):
    """Passes each record to the block in which it was logged, if that block captures its logger.

    All blocks of the process share one. It is a handler of a logger while a block captures that logger. It
    takes no lock, so that a record that is logged while another is captured cannot wait for itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self._wanted: Counter[str] = Counter()
        self._changing = threading.Lock()
        # A record comes several times if a logger and its parent are both captured.
        self._seen: weakref.WeakSet[logging.LogRecord] = weakref.WeakSet()
        self._busy = threading.local()

    def createLock(self) -> None:  # noqa: N802 - the standard library's name
        """Have no lock, as the class explains."""
        self.lock: None = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Capture a record, unless capturing another one has logged it; always return True."""
        if getattr(self._busy, "yes", False):
            return True
        self._busy.yes = True
        try:
            self._take(record)
        finally:
            self._busy.yes = False
        return True

    def _take(self, record: logging.LogRecord) -> None:
        logger = CURRENT.get()
        if logger is not None and self._is_new(record):
            logger.capture(record)

    def _is_new(self, record: logging.LogRecord) -> bool:
        try:
            if record in self._seen:
                return False
            self._seen.add(record)
        except TypeError:
            # A record class of the application without weak references; such a record may be stored twice.
            return True
        return True

    def begin(self, names: Iterable[str]) -> None:
        """Capture these loggers until `end` was called as often as `begin`."""
        with self._changing:
            for name in names:
                self._wanted[name] += 1
                logging.getLogger(name).addHandler(self)

    def end(self, names: Iterable[str]) -> None:
        """Stop capturing these loggers, unless another block captures them."""
        with self._changing:
            for name in names:
                self._wanted[name] -= 1
                if self._wanted[name] <= 0:
                    del self._wanted[name]
                    logging.getLogger(name).removeHandler(self)

    def after_fork(self) -> None:
        """Replace the lock, which the parent process may have held."""
        self._changing = threading.Lock()


CAPTURER = _Capturer()
reset_after_fork(CAPTURER)
