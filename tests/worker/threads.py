"""Threads that cannot start, as on a system that has no more of them."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Shortage:
    """While it lasts, threads that `fails` says so of cannot start.

    Args:
        monkeypatch: pytest's.
        fails: given the thread and which start it is, counted from 1.
    """

    def __init__(self, monkeypatch, fails: Callable[[threading.Thread, int], bool]) -> None:
        self.fails = fails
        self.over = False
        self.starts = self.failures = 0
        start = threading.Thread.start

        def start_or_fail(thread):
            self.starts += 1
            if not self.over and self.fails(thread, self.starts):
                self.failures += 1
                message = "can't start new thread"
                raise RuntimeError(message)
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", start_or_fail)


def named(prefix: str) -> Callable[[threading.Thread, int], bool]:
    """Says of threads whose name begins so that they cannot start."""
    return lambda thread, _: thread.name.startswith(prefix)
