"""What a forked process must not go on with: locks that another thread held, threads that are not there.

Whatever has such things is renewed in the child, before the child has a second thread that could see it.
"""

from __future__ import annotations

import os
import threading
from typing import Protocol
from weakref import WeakSet


class ForkAware(Protocol):
    """Something that begins anew in a forked process."""

    def after_fork(self) -> None:
        """Forget what belongs to the parent; called in the child, in its only thread."""
        ...


_things: WeakSet[ForkAware] = WeakSet()


def reset_after_fork(thing: ForkAware) -> None:
    """Call the thing's `after_fork` in every child that this process forks, as long as the thing lives."""
    _things.add(thing)


#: A fork waits at most so long for what is going on in other threads, in seconds.
WAIT = 1.0


class ForkGuard:
    """Work in the middle of which the process is not forked: ``with unforked:``.

    A library in C may keep in memory which locks its connections have. A child that inherits that
    from the middle of another thread's transaction believes for ever that it holds those locks itself.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._active = 0
        self._forking = False

    def __enter__(self) -> None:
        with self._changed:
            if self._forking:
                self._changed.wait_for(lambda: not self._forking, WAIT)
            self._active += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._active -= 1
            if self._forking:
                self._changed.notify_all()

    def before_fork(self) -> None:
        """Let nothing begin, and wait for what has begun, though not for ever."""
        with self._changed:
            self._forking = True
            self._changed.wait_for(lambda: not self._active, WAIT)

    def after_in_parent(self) -> None:
        """Go on."""
        with self._changed:
            self._forking = False
            self._changed.notify_all()


#: What holds for the whole process.
unforked = ForkGuard()


def _renew() -> None:
    unforked.__init__()  # type: ignore[misc]  # its lock may be another thread's, which is not here
    for thing in list(_things):
        thing.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=unforked.before_fork, after_in_parent=unforked.after_in_parent, after_in_child=_renew
    )
