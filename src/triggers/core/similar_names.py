"""Names that people confuse: equal but for the spelling, or for one letter."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

#: Names with fewer letters and digits are not similar because of one letter.
SHORTEST = 4

_BETWEEN_WORDS = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|[\W_]+")


def flat(name: str) -> str:
    """Return the name in lower case without separators, which is the same for all its spellings."""
    return name.lower().replace("_", "").replace("-", "").replace(" ", "")


def nearest(name: str, known: Collection[str]) -> str | None:
    """Return the known name that was probably meant, None if none is like it."""
    found = (other for other in known if other != name and flat(other) == flat(name))
    return next(found, None) or next(iter(difflib.get_close_matches(name, known, n=1)), None)


def did_you_mean(name: str, known: Collection[str]) -> str:
    """Return a hint for the end of a message, with the name that was probably meant; "" without one."""
    meant = nearest(name, known)
    return f"; did you mean {meant!r}?" if meant is not None else ""


def spellings(name: str) -> frozenset[str]:
    """Return the usual other spellings of a name: `pageReceived` → `page_received`, `PageReceived`, ..."""
    words = [word.lower() for word in _BETWEEN_WORDS.split(name) if word]
    if not words:
        return frozenset()
    pascal = "".join(map(str.capitalize, words))
    camel = words[0] + "".join(map(str.capitalize, words[1:]))
    joined = [separator.join(words) for separator in ("", "_", "-", " ", ".")]
    found = {pascal, camel, *joined, *(other.upper() for other in joined), f"{name}s", name.removesuffix("s")}
    return frozenset(found - {name, ""})


def are_similar(one: str, other: str) -> bool:
    """Return whether two different names differ only in spelling or in one letter, but not in a digit."""
    return one != other and _digits(one) == _digits(other) and not _keys(one).isdisjoint(_keys(other))


def similar_pairs(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield each pair of similar names once. The time is linear in the number of names."""
    by_key: dict[str, list[str]] = {}
    for name in names:
        keys = _keys(name)
        before = dict.fromkeys(other for key in sorted(keys) for other in by_key.get(key, ()))
        yield from ((other, name) for other in before if are_similar(other, name))
        for key in keys:
            by_key.setdefault(key, []).append(name)


def _keys(name: str) -> set[str]:
    """Return the name without separators, and all that remains of it without one letter."""
    letters = flat(name)
    if len(letters) < SHORTEST:
        return {letters}
    return {letters, *(letters[:place] + letters[place + 1 :] for place in range(len(letters)))}


def _digits(name: str) -> str:
    return "".join(filter(str.isdigit, name))
