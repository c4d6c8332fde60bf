"""Timers: what happens in a session at a time, and not because of a firing.

The head of a session knows the time of the first one, so a session without timers pays nothing for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

#: The time of a timer that could not elapse and was put aside, in microseconds. It never comes.
AWAY: Final = 2**62

#: A time and number before those of every timer.
BEFORE_ALL: Final = (-1, -1)

#: A firing by a timer that waited at least this long starts a new chain of firings, in microseconds.
NEW_CHAIN: Final = 1_000_000

#: Kinds of timers. A timer fires a trigger, ends the delay of an instance, or is the deadline of an instance.
FIRES: Final = "fires"
DELAY: Final = "delay"
DEADLINE: Final = "deadline"

#: The beginning of the name of a timer that belongs to an instance. Other names cannot contain it.
_OF_INSTANCE: Final = "\x1f"


class Timer(NamedTuple):
    """One timer of a session. Times are microseconds since the Unix epoch.

    Attributes:
        name: its name. A session has at most one timer with a name at a time.
        at: when it is due, :data:`AWAY` if it was put aside.
        number: its position in the order in which the timers of the session were set, from 1.
        kind: :data:`FIRES`, :data:`DELAY` or :data:`DEADLINE`.
        since: the time from which it counts. For a delay that begins again, it is the last time.
        depth: how many firings led to what it does.
        trigger: the trigger that it fires, "" for a timer of an instance.
        kwargs: the encoded kwargs of that firing.
        key: the idempotency key of that firing, or None.
        fingerprint: the fingerprint of that firing, if it has a key.
        source: the name of the instance that set it, "" if none did.
        problem: why it was put aside, "" if it was not.
        was_at: when it was due before it was put aside.
    """

    name: str
    at: int
    number: int
    kind: str
    since: int
    depth: int = 0
    trigger: str = ""
    kwargs: str = "{}"
    key: str | None = None
    fingerprint: str | None = None
    source: str = ""
    problem: str = ""
    was_at: int = 0

    @property
    def order(self) -> tuple[int, int]:
        """Its place among the timers of its session, which elapse in this order: its time and its number."""
        return self.at, self.number

    @property
    def starts_chain(self) -> bool:
        """Whether what it does begins a new chain of firings, instead of continuing that which set it."""
        return self.at - self.since >= NEW_CHAIN

    @property
    def body(self) -> list[Any]:
        """Everything but the name, the time and the number, for a storage that keeps it in one value."""
        return list(self[3:])

    def is_like(self, other: Timer) -> bool:
        """Return whether it does the same at the same time as another timer with its name."""
        return self._replace(number=other.number) == other

    @classmethod
    def stored(cls, name: str, at: int, number: int, body: Sequence[Any]) -> Timer:
        """Return the timer with these stored values."""
        return cls(name, at, number, *body)

    @property
    def instance(self) -> tuple[str, int] | None:
        """The (task, number) of its instance; None for a timer that fires a trigger."""
        if not self.name.startswith(_OF_INSTANCE):
            return None
        task, _, number = self.name[len(_OF_INSTANCE) :].rpartition("#")
        return task, int(number)


def timer_of(instance: str) -> str:
    """Return the name of the timer of an instance. It has at most one."""
    return _OF_INSTANCE + instance
