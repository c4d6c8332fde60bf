"""Names: UIDs, triggers, tasks, keys, and the names of instances, ``task#number``.

A name is any string of 1 to 255 characters that can be displayed completely on one line. It has no control
characters, line separators, surrogates or marks that reverse the reading direction.
"""

from __future__ import annotations

import re
import unicodedata

from triggers.core.values import shown, type_name
from triggers.exceptions import InvalidNameError, UnknownInstanceError

#: Maximum length of a name, in characters.
MAX_NAME = 255

#: The number in an instance's name; every storage can store 18 digits.
_NUMBER = re.compile(r"0|[1-9][0-9]{0,17}")

_HIDDEN = frozenset({"Cc", "Cs", "Zl", "Zp"})
_BIDI = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def check_name(name: object, what: str) -> str:
    """Return the name, as an exact string, if it is valid.

    Args:
        name: the value to check.
        what: what it names, such as "trigger" or "UID", for the message.

    Raises:
        InvalidNameError: it is not a string, is empty, is too long, or has a character that cannot be
            displayed.
    """
    # An object can pretend another class to isinstance() alone.
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
    """Return whether a value is valid as a name."""
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
    """Return the name of the instance with this number, counted from 0."""
    return f"{task}#{number}"


def split_instance_name(name: object) -> tuple[str, int]:
    """Split the name of an instance into its task and its number.

    Raises:
        UnknownInstanceError: it does not have the form ``task#number``.
    """
    if issubclass(type(name), str) and isinstance(name, str):
        task, _, number = name.rpartition("#")
        if _NUMBER.fullmatch(number) and _is_name(task):
            return task, int(number)
    message = (
        f"{shown(name)} is not the name of an instance; a valid name is, for example, 't_importSubject#0'"
    )
    raise UnknownInstanceError(message)


def _is_name(task: str) -> bool:
    """Return whether a storage can search for a task with this name."""
    return 0 < len(task) <= MAX_NAME and "Cs" not in map(unicodedata.category, task)


def idempotency_key(uid: str, root: str) -> str:
    """Combine the UID and the name of the root instance into one string that no other pair has."""
    return f"{uid.replace('%', '%25').replace('/', '%2F')}/{root}"


def visible(text: str) -> str:
    """Return the text with control characters, and those that reverse the reading direction, as escapes."""
    return text if text.isprintable() else "".join(map(_escaped, text))


def _escaped(character: str) -> str:
    if character not in _BIDI and unicodedata.category(character) not in _HIDDEN:
        return character
    return character.encode("unicode_escape").decode("ascii")
