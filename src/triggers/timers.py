"""Timers as users see them: when something will happen in a session without a firing."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal

from triggers.core.durations import micros, read_duration
from triggers.core.names import instance_name
from triggers.core.timers import BEFORE_ALL
from triggers.core.values import decode, shown
from triggers.exceptions import InvalidValueError
from triggers.options import duration

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from triggers.core import timers as core
    from triggers.storages.base import Reader

#: How many timers are read at a time.
PAGE = 100

#: The Unix epoch.
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Timer:
    """A timer that is set.

    Attributes:
        name: its name, None for a timer of an instance.
        at: when it is due. It can be due already, because timers elapse with the next change or sweep.
        kind: ``"fires"`` if it fires a trigger, ``"delay"`` if an instance starts then, ``"deadline"`` if an
            instance is late then.
        trigger: the trigger that it fires, None for a timer of an instance.
        kwargs: the kwargs with which it fires.
        key: the idempotency key with which it fires, or None.
        instance: the name of the instance that it belongs to, None if it fires a trigger.
        problem: why it could not elapse, "" if it has no problem. Such a timer stays until it is set again
            or canceled.
    """

    name: str | None
    at: datetime
    kind: Literal["fires", "delay", "deadline"]
    trigger: str | None
    kwargs: Mapping[str, Any]
    key: str | None
    instance: str | None
    problem: str

    @classmethod
    def of(cls, stored: core.Timer) -> Timer:
        """Return the stored timer as users see it."""
        at = _EPOCH + timedelta(microseconds=stored.was_at or stored.at)
        owner = None if stored.instance is None else instance_name(*stored.instance)
        kind: Any = stored.kind
        return cls(
            None if owner else stored.name,
            at,
            kind,
            stored.trigger or None,
            decode(stored.kwargs),
            stored.key,
            owner,
            stored.problem,
        )


def timers_of(reader: Reader, uid: str) -> Iterator[Timer]:
    """Yield the timers of a session in their order, page by page."""
    after = BEFORE_ALL
    while page := reader.timers(uid, after=after, limit=PAGE):
        yield from map(Timer.of, page)
        after = page[-1].order


def pause_before(after: timedelta | str | float) -> int:
    """Return how long after now a timer is due, in microseconds.

    Raises:
        InvalidValueError: it is neither a timedelta, nor an ISO 8601 duration, nor a number of seconds.
    """
    try:
        if isinstance(after, int | float) and not isinstance(after, bool):
            after = duration(after)
        return micros(read_duration(after))
    except (ValueError, OverflowError):
        message = (
            f"after must be a timedelta, an ISO 8601 duration such as 'P3D', or a number of seconds, longer "
            f"than zero and at most 100 years, not {shown(after)}"
        )
        raise InvalidValueError(message) from None


def moment(at: object) -> int:
    """Return the time at which a timer is due, in microseconds since the Unix epoch, 0 for times before it.

    Raises:
        InvalidValueError: it is not an aware datetime.
    """
    if not isinstance(at, datetime) or at.utcoffset() is None:
        message = (
            f"at must be an aware datetime, such as datetime(2030, 1, 31, 12, 0, tzinfo=UTC), not {shown(at)}"
        )
        raise InvalidValueError(message)
    return max(micros(at - _EPOCH), 0)
