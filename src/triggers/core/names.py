"""Names: UIDs, triggers, tasks, keys, and the name of an instance, ``task#number``.

Names are data. Any string of 1 to 255 characters is one as long as a person can see all of it in a
line: no control characters, line separators, surrogates or marks that reverse the reading direction.
"""

from __future__ import annotations

import re
import unicodedata

from triggers.exceptions import InvalidNameError, UnknownInstanceError

#: Longest name, in characters.
MAX_NAME = 255

#: A number of an instance as it is written, no larger than any storage can count.
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")

_HIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def check_name(name: object, what: str) -> str:
    """Return the name if it is one.

    Args:
        name: what the caller gave.
        what: what it names ("trigger", "UID"), for the message.

    Raises:
        InvalidNameError: it is not a string, is empty, too long, or has a character nobody can see.
    """
    if not issubclass(type(name), str):  # isinstance() would believe an object that lies about its class
        message = f"a {what} must be a string, not {type(name).__name__}"
        raise InvalidNameError(message)
    if not 0 < len(name) <= MAX_NAME:
        message = f"a {what} must have 1 to {MAX_NAME} characters; this one has {len(name)}"
        raise InvalidNameError(message)
    if not name.isprintable():
        _check_characters(name, what)
    return name


def _check_characters(name: str, what: str) -> None:
    for position, character in enumerate(name):
        if unicodedata.category(character) in _HIDDEN or character in _BIDI:
            message = f"a {what} must be printable; {name!r} has {character!r} at position {position}"
            raise InvalidNameError(message)


def instance_name(task: str, number: int) -> str:
    """The name of the task's instance of that number, counted from 0."""
    return f"{task}#{number}"


def split_instance_name(name: str) -> tuple[str, int]:
    """Take an instance's name apart into task and number.

    Raises:
        UnknownInstanceError: it is not of the form ``task#number``.
    """
    task, mark, number = name.rpartition("#")
    if not (mark and task and _NUMBER.fullmatch(number)):
        message = f"{name!r} is not the name of an instance; those look like 't_importSubject#0'"
        raise UnknownInstanceError(message)
    return task, int(number)
