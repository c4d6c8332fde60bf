"""When a task starts besides its condition: the delay after it is met, and the deadline for meeting it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from triggers.core.durations import micros, read_duration
from triggers.core.outcomes import MISSED

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import timedelta

#: The remark in the history of an instance that is abandoned because of its deadline.
MISSED_IT: Final = "missed its deadline"


@dataclass(frozen=True, slots=True)
class Delay:
    """How long an instance waits after its condition is met.

    Attributes:
        pause: how long.
        since_last: whether each further firing of a trigger in `after` starts the pause again, and replaces
            what the instance has received.
        at_most: the longest time from when the condition was first met, or None for no limit.
    """

    pause: timedelta
    since_last: bool = False
    at_most: timedelta | None = None

    def to_json(self) -> Any:
        """Return the delay in the rule language. Durations are timedeltas."""
        if not self.since_last:
            return self.pause
        longest = {"atMost": self.at_most} if self.at_most else {}
        return {"for": self.pause, "since": "last", **longest}

    def ends(self, first: int, last: int) -> int:
        """Return when the delay ends, in microseconds.

        Args:
            first: when the condition was first met.
            last: when the pause began, the last time.
        """
        end = last + micros(self.pause)
        return end if self.at_most is None else min(end, first + micros(self.at_most))


@dataclass(frozen=True, slots=True)
class Deadline:
    """Until when the condition of an instance should be met.

    Attributes:
        within: how long that takes at most.
        start: the trigger from whose arrival the time counts, or None for the creation of the instance.
        abandons: whether the instance is abandoned if the deadline is missed. Otherwise, it continues to
            wait.
    """

    within: timedelta
    start: str | None = None
    abandons: bool = False

    def to_json(self) -> Any:
        """Return the deadline in the rule language. Durations are timedeltas."""
        more = {
            **({"from": self.start} if self.start else {}),
            **({"late": "abandon"} if self.abandons else {}),
        }
        return {"in": self.within, **more} if more else self.within

    def ends(self, since: int) -> int:
        """Return when it is missed, in microseconds, if it counts from that time."""
        return since + micros(self.within)


def read_delay(written: Any) -> Delay | None:
    """Return a stored `delay`; None if only a newer version understands it."""
    try:
        if not isinstance(written, dict):
            return Delay(read_duration(written))
        longest = read_duration(written["atMost"]) if "atMost" in written else None
        _check_keys(written, {"for", "since", "atMost"})
        return Delay(read_duration(written["for"]), _SINCE[written.get("since", "first")], longest)
    except (KeyError, TypeError, ValueError):
        return None


def read_deadline(written: Any) -> Deadline | None:
    """Return a stored `deadline`; None if only a newer version understands it."""
    try:
        if not isinstance(written, dict):
            return Deadline(read_duration(written))
        _check_keys(written, {"in", "from", "late"})
        late = _LATE[written.get("late", "wait")]
        return Deadline(read_duration(written["in"]), written.get("from"), late)
    except (KeyError, TypeError, ValueError):
        return None


#: The words of `since` → whether each further firing starts the pause again.
_SINCE: Final = {"first": False, "last": True}

#: The words of `late` → whether the instance is abandoned.
_LATE: Final = {"wait": False, "abandon": True}


def missed_note(due: datetime) -> str:
    """Return the remark in the history of an instance that misses its deadline."""
    return f"its deadline of {due.isoformat()}"


def missed_in(history: str) -> datetime | None:
    """Return the deadline that an instance with this history has missed; None if it has missed none."""
    lines = (line.split(" ") for line in history.splitlines())
    return next((datetime.fromisoformat(words[-1]) for words in lines if words[1] == MISSED), None)


def _check_keys(written: Mapping[str, Any], known: set[str]) -> None:
    if unknown := written.keys() - known:
        raise KeyError(*unknown)
