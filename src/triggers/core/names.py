"""Names: UIDs, triggers, tasks, keys, and the name of an instance, ``task#number``.

Names are data. Any string of 1 to 255 characters is one as long as a person can see all of it in a
line: no control characters, line separators, surrogates or marks that reverse the reading direction.
"""

from __future__ import annotations

import re
import unicodedata

from triggers.core.values import shown, type_name
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
    # isinstance() would ask an object for its class, and believe it.
    if not (issubclass(type(name), str) and isinstance(name, str)):
        message = f"a {what} must be a string, not {type_name(type(name))}"
        raise InvalidNameError(message)
    if not 0 < len(name) <= MAX_NAME:
        message = f"a {what} must have 1 to {MAX_NAME} characters; this one has {len(name)}"
        raise InvalidNameError(message)
    if not name.isprintable():
        _check_characters(name, what)
    return name if type(name) is str else str.__str__(name)


def is_name(name: object) -> bool:
    """Whether anything can have this name."""
    try:
        check_name(name, "name")
    except InvalidNameError:
        return False
    return True


def _check_characters(name: str, what: str) -> None:
    for position, character in enumerate(name):
        if unicodedata.category(character) in _HIDDEN or character in _BIDI:
            message = f"a {what} must be printable; {name!r} has {character!r} at position {position}"
            raise InvalidNameError(message)


def instance_name(task: str, number: int) -> str:
    """The name of the task's instance of that number, counted from 0."""
    return f"{task}#{number}"


def split_instance_name(name: object) -> tuple[str, int]:
    """Take an instance's name apart into task and number.

    Raises:
        UnknownInstanceError: it is not of the form ``task#number``.
    """
    if issubclass(type(name), str) and isinstance(name, str):
        task, _, number = name.rpartition("#")
        if _NUMBER.fullmatch(number) and _is_name(task):
            return task, int(number)
    message = f"{shown(name)} is not the name of an instance; those look like 't_importSubject#0'"
    raise UnknownInstanceError(message)


def _is_name(task: str) -> bool:
    """Whether a storage can be asked for a task of that name at all."""
    return 0 < len(task) <= MAX_NAME and "Cs" not in map(unicodedata.category, task)
