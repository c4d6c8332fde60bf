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

#: The notation as a JSON Schema writes it. At least one number is greater than zero.
PATTERN: Final = r"^P(?=.*[1-9])([0-9]+W)?([0-9]+D)?(T(?=.)([0-9]+H)?([0-9]+M)?([0-9]+(\.[0-9]{1,6})?S)?)?$"

#: A duration in ISO 8601 that has years or months.
_CALENDAR: Final = re.compile(r"P(?=\d+[YM])(?:\d+Y)?(?:\d+M)?(?:\d+W)?(?:\d+D)?(?:T[\dHMS.]+)?", re.ASCII)

#: Texts that are longer are not suggested in another spelling.
_SHORT: Final = 40

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
        raise ValueError(message + _hint(value))
    try:
        return timedelta(**{unit: float(number) for unit, number in match.groupdict("0").items()})
    except OverflowError:
        return timedelta.max


def _hint(value: object) -> str:
    """Return what to write instead of a value that is nearly a duration."""
    if type(value) in {int, float}:
        return "; a number has no unit: 60 seconds are 'PT60S'"
    if isinstance(value, str) and _CALENDAR.fullmatch(value):
        return "; years and months have no fixed length: write days, such as 'P30D' or 'P365D'"
    # An instance of a subclass of str could do anything in its own methods.
    meant = str.strip(value).upper() if isinstance(value, str) else ""
    is_meant = len(meant) <= _SHORT and _NOTATION.fullmatch(meant)
    return f"; did you mean {meant!r}?" if is_meant else ""


def micros(duration: timedelta) -> int:
    """Return how many whole microseconds the duration has, as all stored times are counted."""
    return duration // timedelta(microseconds=1)
