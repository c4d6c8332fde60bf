"""Processes that die at a point of the protocol which fate has chosen for each of them."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING, Final, NoReturn

from triggers.testing.faults import Faults, kill_process

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tests.crash.world import Journal


def _around(*steps: str) -> tuple[str, ...]:
    return tuple(f"{when} {step}" for step in steps for when in ("before", "after"))


_FIRING: Final = _around("commit of configure", "commit of fire")
_SWEEPING: Final = _around("expired", "commit of recover", "due")
_RUNNING: Final = _around(
    "commit of claim", "renew", "commit of keep_logs", "commit of finish", "commit of fail"
)
_REVIEWING: Final = _around("commit of replay", "commit of skip")

#: Role → the points at which its processes die.
POINTS: Final[Mapping[str, tuple[str, ...]]] = {
    "producer": _FIRING,
    "worker": _RUNNING + _SWEEPING,
    "sweep": _SWEEPING,
    "reviewer": _REVIEWING,
}

#: At the first, second, … time that the point is reached, one of them.
HITS: Final = 3

#: This part of the processes is doomed; the others live until somebody kills them.
DOOMED: Final = 0.6


class Doom(Faults):
    """Where a process kills itself, drawn anew in every process that is forked.

    What is about to happen is written down first, so that the dead can be counted.

    Args:
        deaths: where it is written down.
        role: what the process does, see :data:`POINTS`.
        seed: decides, with the process id.
    """

    def __init__(self, deaths: Journal, role: str, seed: int) -> None:
        super().__init__(self._fall)
        self._deaths = deaths
        self._role = role
        self._seed = seed
        self._drawn_by = 0

    def reach(self, point: str) -> None:
        """Pass a point, or die there."""
        if os.getpid() != self._drawn_by:
            self._draw()
        super().reach(point)
        self.reached.clear()  # nobody asks; a worker that lives long passes many

    def _draw(self) -> None:
        self._drawn_by = os.getpid()
        self.revive()
        dice = random.Random(f"{self._seed} {self._drawn_by}")
        if dice.random() < DOOMED:
            self.die_at(dice.choice(POINTS[self._role]), dice.randint(1, HITS))

    def _fall(self, point: str) -> NoReturn:
        self._deaths.write(role=self._role, point=point, pid=os.getpid())
        kill_process(point)
