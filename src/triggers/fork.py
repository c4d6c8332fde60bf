"""Make forks safe: a child process inherits locks that other threads hold, but not the threads.

Before a fork, objects that a child must not inherit are closed (:func:`close_before_fork`). After the fork,
while the child has only one thread, objects with locks and threads are reset (:func:`reset_after_fork`).
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet


class ForkAware(Protocol):
    """An object that must be reset in a forked process."""

    def after_fork(self) -> None:
        """Drop what belongs to the parent. Called in the child, in its only thread."""
        ...


class Closing(ForkAware, Protocol):
    """An object that must be closed before a fork."""

    def before_fork(self, until: float) -> None:
        """Close what a child must not inherit. Wait for other threads until that monotonic time."""
        ...

    def after_fork_in_parent(self) -> None:
        """Open what is needed again, in the parent."""
        ...


_things: WeakSet[ForkAware] = WeakSet()
_closing: WeakSet[Closing] = WeakSet()


def reset_after_fork(thing: ForkAware) -> None:
    """Call the object's `after_fork` in every child process, as long as the object exists."""
    _things.add(thing)


def close_before_fork(thing: Closing) -> None:
    """Also call the object's `before_fork` before every fork."""
    reset_after_fork(thing)
    _closing.add(thing)


#: How long a fork waits for other threads at most, in seconds.
WAIT = 10.0

#: How often a fork checks whether another one has ended, in seconds.
LOOK = 0.001


class ForkGuard:
    """Lets one thread of a process fork at a time, after what must be closed has been closed.

    Python forks even if a hook before the fork raises an exception. So a child checks by itself whether
    everything was closed. If not, it cannot use the file, but nothing is lost.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._turn: dict[str, int] = {}
        self._until = 0.0

    def before_fork(self) -> None:
        """Close what a child must not inherit. Wait for what is in use, up to :data:`WAIT`."""
        me = threading.get_ident()
        while self._turn.setdefault("", me) != me and time.monotonic() < self._until:
            time.sleep(LOOK)
        self._turn[""] = me
        self._until = time.monotonic() + WAIT
        for _ in range(2):  # twice, because one object can hold open what another one closes later
            for thing in _all(_closing):
                thing.before_fork(self._until)

    def after_in_parent(self) -> None:
        """Open what is needed again, and let the next thread fork."""
        for thing in _all(_closing):
            thing.after_fork_in_parent()
        self._turn.pop("", None)

    def look(self) -> None:
        """Reset everything in a child process whose hooks did not run."""
        if os.getpid() != self._pid:
            renew()


#: The only instance: a fork concerns the whole process.
unforked: ForkGuard = ForkGuard()


def renew() -> None:
    """Reset all registered objects in a child process."""
    unforked.__init__()  # type: ignore[misc]  # other modules refer to this object
    for thing in _all(_things):
        thing.after_fork()


def _all(things: WeakSet[ForkAware] | WeakSet[Closing]) -> list[Closing]:
    while True:
        with suppress(RuntimeError):  # another thread added one during the iteration
            return list(things)  # type: ignore[arg-type]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=unforked.before_fork, after_in_parent=unforked.after_in_parent, after_in_child=renew
    )
