"""Make a text fit to be kept: without secrets, of bounded length, of characters that every database takes."""

from __future__ import annotations

from triggers.logs.sanitizing.redact import hide, reach

#: Stands for whatever was left out.
ELLIPSIS = "…"


def fit_text(text: str, limit: int, secrets: tuple[str, ...] = ()) -> tuple[str, bool]:
    """Make an exact str fit to be kept; tell whether it was cut.

    Args:
        text: of any length.
        limit: characters that may stay; the mark of the cut comes on top.
        secrets: values to hide.
    """
    length = len(text)
    if length <= limit:
        if text.isprintable() and "://" not in text and not secrets:
            return text, False
        return storable(hide(text, secrets)), False
    beyond = reach(secrets)
    seen = hide(text[: limit + beyond], secrets)
    # The last characters seen may be the first half of a secret.
    kept = storable(seen[: max(len(seen) - beyond, 0) if length > limit + beyond else None][:limit])
    return f"{kept}{ELLIPSIS}[truncated {max(length - limit, 1)} chars]", True


def storable(text: str) -> str:
    """Return the text with whatever a database refuses written out: NUL, and surrogates without a partner."""
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-8", "backslashreplace").decode()
    return text
