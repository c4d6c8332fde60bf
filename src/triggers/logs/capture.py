"""Take what other loggers of the application say within a block into the log of the instance, too."""

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
    """Hands each record to the block that the code which logged it runs in, if that block asked for it.

    There is one for all blocks of the process. It stands at a logger while some block captures that one, and
    takes no lock, so that a record which is captured while another one is cannot wait for itself.
    """

    def __init__(self) -> None:
        super().__init__()
        self._wanted: Counter[str] = Counter()
        self._changing = threading.Lock()
        # A record passes by several times where a logger and one above it are both captured.
        self._seen: weakref.WeakSet[logging.LogRecord] = weakref.WeakSet()
        self._busy = threading.local()

    def createLock(self) -> None:  # noqa: N802 - the standard library's name
        """Have none."""
        self.lock = None

    def handle(self, record: logging.LogRecord) -> bool:
        """Record it, unless it came from recording."""
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
            # A class of the application's own whose records cannot be remembered; then one may be kept twice.
            return True
        return True

    def begin(self, names: Iterable[str]) -> None:
        """Listen to these loggers; as often as this was asked for, `end` ends it."""
        with self._changing:
            for name in names:
                self._wanted[name] += 1
                logging.getLogger(name).addHandler(self)

    def end(self, names: Iterable[str]) -> None:
        """Listen to these loggers no longer, unless somebody else wants to."""
        with self._changing:
            for name in names:
                self._wanted[name] -= 1
                if self._wanted[name] <= 0:
                    del self._wanted[name]
                    logging.getLogger(name).removeHandler(self)

    def after_fork(self) -> None:
        """Have a lock of its own."""
        self._changing = threading.Lock()


CAPTURER = _Capturer()
reset_after_fork(CAPTURER)
