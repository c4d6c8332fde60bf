"""What the processes that come after a crash do: fire again what was not acknowledged, sweep, run, review."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tests.crash.world import CONFIGURATION, review

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.crash.world import World
    from tests.invariants import Fire
    from triggers import Triggers

#: When the virtual time of these tests begins, in microseconds.
BEGIN = 1_767_225_600_000_000

SECOND = 1_000_000

#: In seconds.
MONTH = 30 * 86_400


class Ticking:
    """A clock of which every look is later than the one before, and that goes on only by being looked at.

    Args:
        at: when it begins, in microseconds.
    """

    def __init__(self, at: int = BEGIN) -> None:
        self.at = at

    def __call__(self) -> int:
        """The time."""
        self.at += 1
        return self.at

    def advance(self, seconds: float) -> None:
        """Let so much time pass."""
        self.at += round(seconds * SECOND)


def heal(world: World, clock: Ticking, fires: Iterable[Fire], **settings: Any) -> None:
    """Finish everything: the work of fresh processes after a crash, all in this one, in virtual time.

    Args:
        world: where.
        clock: shows the time before the crash, or earlier.
        fires: all that has happened or was about to.
        settings: of the application.
    """
    clock.advance(3600)
    app = world.app("inline", clock=clock, **settings)
    fires = list(fires)
    uids = sorted({fire.uid for fire in fires})
    for uid in uids:
        app.session(uid).update_configuration(CONFIGURATION, catch_up=True)
    for fire in fires:
        world.fire(app, fire)
    rest(app, clock, uids)
    app.close()


def rest(app: Triggers, clock: Ticking, uids: Iterable[str], *, rounds: int = 40) -> None:
    """Sweep, run and review until there is nothing left to do, or something does not come to rest."""
    for _ in range(rounds):
        app.sweep()
        failed = sum(review(app, uid, crashes=True) for uid in uids)
        backlog = app.storage.reader.backlog()
        if not (failed or backlog.ready or backlog.later or backlog.running):
            return
        # To where something is due, but for what never will be.
        gap = ((app.storage.reader.next_at() or 0) - clock.at) / SECOND + 1
        clock.advance(min(max(gap, 61), MONTH))
