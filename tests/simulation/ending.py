"""How a simulated world must end: what was acknowledged is there, once, and nothing is left to be done."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from tests.simulation.ledger import FINALIZING
from triggers.core.status import Status
from triggers.core.values import decode

if TYPE_CHECKING:
    from tests.simulation.world import World


@dataclass(slots=True, eq=False)
class Fire:
    """Something that happens once in the outside world, and is fired until that is acknowledged.

    Attributes:
        what: an identity of its own, in the kwargs.
        numbers: what was acknowledged.
        tries: how often it was tried.
    """

    uid: str
    trigger: str
    what: int
    key: str | None
    numbers: list[int] = field(default_factory=list)
    tries: int = 0

    @property
    def kwargs(self) -> dict[str, Any]:
        """What is fired."""
        return {"id": self.what}


def check(world: World) -> None:
    """What must be true at the end of every simulation."""
    base = world.lives[0].base
    for uid, model in world.ledger.models.items():
        stored = base.reader.firings(uid, limit=10_000)
        assert [firing.number for firing in stored] == [*range(1, len(stored) + 1)]
        fired = Counter(decode(firing.kwargs).get("id") for firing in stored if firing.source == "")
        for fire in (fire for fire in world.fires if fire.uid == uid):
            _check_fire(fire, fired[fire.what], {f.number: f for f in stored})
        cascades = Counter(
            firing.source for firing in stored if firing.source.rpartition("#")[0] == firing.trigger
        )
        instances = base.reader.instances(uid, limit=10_000)
        for instance in instances:
            where = f"{uid}: {instance.name}"
            cascaded = instance.status is Status.FINISHED or instance.result is not None
            assert cascades.pop(instance.name, 0) == cascaded, f"{where} is {instance.status}"
            assert instance.status not in {Status.SCHEDULED, Status.RUNNING}, f"{where} is stuck"
            if instance.status is Status.FINISHED:
                assert world.starts[uid, instance.name, instance.fence], f"{where} finished and never ran"
            records = base.reader.logs(uid, instance=(instance.task, instance.number), limit=10_000)
            assert [record.number for record in records] == [*range(1, instance.log_count + 1)], where
        assert not cascades, f"{uid}: cascades of nobody: {cascades}"
        ended = [firing for firing in stored if firing.trigger == FINALIZING]
        assert len(ended) == model.finalized, f"{uid}: finalised {len(ended)} times"
    assert set(world.ledger.ends.values()) <= {1}, "one end for each claim"


def _check_fire(fire: Fire, times: int, stored: dict[int, Any]) -> None:
    assert times == 1 or (times == 0 and not fire.numbers), f"{fire} was stored {times} times"
    assert len(set(fire.numbers)) <= 1, f"{fire} was acknowledged with several numbers"
    for number in fire.numbers:
        assert decode(stored[number].kwargs) == fire.kwargs
