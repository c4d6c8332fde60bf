"""What a forked process must not go on with: locks that another thread held, threads that are not there.

Whatever has such things is renewed in the child, before the child has a second thread that could see it.
"""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet


class Renewable(Protocol):
    """Something that begins anew in a forked process."""

    def after_fork(self) -> None:
        """Forget what belongs to the parent; called in the child, in its only thread."""
        ...


_things: WeakSet[Renewable] = WeakSet()


def renew_after_fork(thing: Renewable) -> None:
    """Call the thing's `after_fork` in every child that this process forks, as long as the thing lives."""
    _things.add(thing)


def _renew() -> None:
    for thing in list(_things):
        thing.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
