"""The firings of an imported session, made up from what its instances received: version 2 stored none.

An instance keeps the kwargs that it received from each trigger, and the session the latest kwargs of each.
Equal kwargs of a trigger are one firing, unless a task has one instance for each (`andEvery`), or instances
with equal results have fired them.
"""

from __future__ import annotations

from dataclasses import dataclass
from operator import attrgetter

from triggers.core.state import Firing
from triggers.core.values import canonical


@dataclass(slots=True, eq=False)
class Entry:
    """A firing whose number is not known yet.

    Attributes:
        trigger: the trigger.
        kwargs: its kwargs, encoded.
        at: when it was fired, in microseconds; about, unless an instance fired it.
        source: the name of the instance that fired it, "" if the application did.
        is_latest: whether it is the latest firing of the trigger.
        number: its number, 0 until all entries are known.
    """

    trigger: str
    kwargs: str
    at: int
    source: str = ""
    is_latest: bool = False
    number: int = 0

    @property
    def depth(self) -> int:
        """How many firings led to it, as far as that is known."""
        return int(self.source != "")


class Ledger:
    """All firings of one session."""

    def __init__(self) -> None:
        self._entries: list[Entry] = []
        self._equal: dict[tuple[str, str], list[Entry]] = {}
        self._last: dict[str, int] = {}

    def add(self, trigger: str, kwargs: str, at: int, source: str = "") -> Entry:
        """Add a firing and return it. Its number is not known yet."""
        entry = Entry(trigger, kwargs, at, source)
        self._entries.append(entry)
        self._last[trigger] = max(at, self._last.get(trigger, at))
        self._equals(trigger, kwargs).append(entry)
        return entry

    def received(self, trigger: str, kwargs: str, at: int, earlier: int) -> Entry:
        """Return the firing that an instance received; add it if none is like it.

        Args:
            trigger: the trigger.
            kwargs: the kwargs that the instance has from it.
            at: when the instance was created.
            earlier: how many equal firings other instances of its task have received, each one of its own.
        """
        equal = self._equals(trigger, kwargs)
        if len(equal) <= earlier:
            return self.add(trigger, kwargs, at)
        return equal[earlier]

    def set_latest(self, trigger: str, kwargs: str, at: int) -> None:
        """Make the last of the firings with these kwargs the latest one of its trigger; add it if needed."""
        equal = self._equals(trigger, kwargs)
        latest = equal[-1] if equal else self.add(trigger, kwargs, at)
        latest.is_latest = True
        latest.at = self._last[trigger]

    def firings(self) -> tuple[Firing, ...]:
        """Number all firings by their times, and return them."""
        self._entries.sort(key=attrgetter("at", "is_latest"))
        for number, entry in enumerate(self._entries, 1):
            entry.number = number
        return tuple(
            Firing(entry.number, entry.trigger, entry.kwargs, entry.at, entry.depth, entry.source)
            for entry in self._entries
        )

    def _equals(self, trigger: str, kwargs: str) -> list[Entry]:
        return self._equal.setdefault((trigger, canonical(kwargs)), [])
