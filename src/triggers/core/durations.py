"""Durations in a configuration: a timedelta, or text in the notation of ISO 8601, such as ``PT10M``."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Final

#: The notation. A day is 24 hours. Years and months have no fixed length, so they are not accepted.
_NOTATION: Final = re.compile(
    r"P(?=.)(?:(?P<weeks>\d+)W)?(?:(?P<days>\d+)D)?"
    r"(?:T(?=.)(?:(?P<hours>\d+)H)?(?:(?P<minutes>\d+)M)?(?:(?P<seconds>\d+(?:\.\d{1,6})?)S)?)?",
    re.ASCII,
)

#: The longest duration. A time plus a longer one could exceed what a storage can hold.
LONGEST: Final = timedelta(days=36_500)

#: What a duration looks like, for messages.
EXAMPLE: Final = "'PT30S', 'PT10M', 'PT1H30M', 'P3D' or 'P2W'"


def read_duration(value: object) -> timedelta:
    """Return the duration that a configuration contains.

    Raises:
        ValueError: it is not a duration longer than zero and at most :data:`LONGEST`. The message says why.
    """
    found = value if isinstance(value, timedelta) else _parsed(value)
    if not timedelta(0) < found <= LONGEST:
        message = "must be longer than zero and at most 100 years"
        raise ValueError(message)
    return found


def _parsed(value: object) -> timedelta:
    match = _NOTATION.fullmatch(value) if isinstance(value, str) else None
    if match is None:
        message = f"must be a timedelta, or an ISO 8601 duration without years and months, such as {EXAMPLE}"
        raise ValueError(message)
    try:
        return timedelta(**{unit: float(number) for unit, number in match.groupdict("0").items()})
    except OverflowError:
        return timedelta.max


def micros(duration: timedelta) -> int:
    """Return how many whole microseconds the duration has, as all stored times are counted."""
    return duration // timedelta(microseconds=1)
