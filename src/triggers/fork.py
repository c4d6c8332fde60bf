"""What a forked process must not go on with: locks that another thread held, threads that are not there.

Before a fork, whatever a child must not inherit is closed (:func:`close_before_fork`). After it, in the
child, before that has a second thread, whatever has locks and threads begins anew
(:func:`reset_after_fork`).
"""

from __future__ import annotations

import os
import threading
import time
from contextlib import suppress
from typing import Protocol
from weakref import WeakSet


class ForkAware(Protocol):
    """Something that begins anew in a forked process."""

    def after_fork(self) -> None:
        """Forget what belongs to the parent; called in the child, in its only thread."""
        ...


class Closing(ForkAware, Protocol):
    """Something that is closed before a fork."""

    def before_fork(self, until: float) -> None:
        """Close what a child must not inherit; wait for other threads until that monotonic time."""
        ...

    def after_fork_in_parent(self) -> None:
        """Open again what is needed."""
        ...


_things: WeakSet[ForkAware] = WeakSet()
_closing: WeakSet[Closing] = WeakSet()


def reset_after_fork(thing: ForkAware) -> None:
    """Call the thing's `after_fork` in every child that this process forks, as long as the thing lives."""
    _things.add(thing)


def close_before_fork(thing: Closing) -> None:
    """Call the thing's `before_fork` before every fork, too."""
    reset_after_fork(thing)
    _closing.add(thing)


#: A fork waits at most so long for what is going on in other threads, in seconds.
WAIT = 10.0

#: How often it looks, in seconds.
LOOK = 0.001


class ForkGuard:
    """The moment of a fork: one at a time in a process.

    Whether everything was closed is not concluded from this: the child looks. So a hook that an exception
    ends, as Python lets happen, costs the child its use of the file, and never loses anything.
    """

    def __init__(self) -> None:
        self._pid = os.getpid()
        self._turn: dict[str, int] = {}
        self._until = 0.0

    def before_fork(self) -> None:
        """Close what is to be closed, and wait for what is in use, though not for ever."""
        me = threading.get_ident()
        while self._turn.setdefault("", me) != me and time.monotonic() < self._until:
            time.sleep(LOOK)
        self._turn[""] = me
        self._until = time.monotonic() + WAIT
        for _ in range(
            2
        ):  # once more, to look: what one of them has found open, another may have closed later
            for thing in _all(_closing):
                thing.before_fork(self._until)

    def after_in_parent(self) -> None:
        """Go on."""
        for thing in _all(_closing):
            thing.after_fork_in_parent()
        self._turn.pop("", None)

    def look(self) -> None:
        """Begin anew in a child that nobody has told that it is one."""
        if os.getpid() != self._pid:
            renew()


#: What holds for the whole process.
unforked = ForkGuard()


def renew() -> None:
    """Begin anew in a child."""
    unforked.__init__()  # type: ignore[misc]  # everybody has a reference to this very one
    for thing in _all(_things):
        thing.after_fork()


def _all(things: WeakSet[ForkAware] | WeakSet[Closing]) -> list[Closing]:
    while True:
        with suppress(RuntimeError):  # another thread has added one meanwhile
            return list(things)  # type: ignore[arg-type]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=unforked.before_fork, after_in_parent=unforked.after_in_parent, after_in_child=renew
    )
