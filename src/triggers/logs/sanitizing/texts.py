"""Sanitizes texts: without secrets, of bounded length, with characters that every database accepts."""

from __future__ import annotations

from triggers.redaction import hide, may_have_secret, reach

#: Marks what was cut.
ELLIPSIS = "…"


def fit_text(text: str, limit: int, secrets: tuple[str, ...] = ()) -> tuple[str, bool]:
    """Sanitize an exact str; also return whether it was cut.

    Args:
        text: a text of any length.
        limit: characters that are kept; the mark of the cut is added to them.
        secrets: values to hide.
    """
    length = len(text)
    if length <= limit:
        if text.isprintable() and not secrets and not may_have_secret(text):
            return text, False
        return storable(hide(text, secrets)), False
    beyond = reach(secrets)
    seen = hide(text[: limit + beyond], secrets)
    # The last characters may be the first part of a secret.
    kept = storable(seen[: max(len(seen) - beyond, 0) if length > limit + beyond else None][:limit])
    return f"{kept}{ELLIPSIS}[truncated {max(length - limit, 1)} chars]", True


def storable(text: str) -> str:
    """Return the text with escapes for what a database refuses: NUL, and lone surrogates."""
    if "\0" in text:
        text = text.replace("\0", "\\x00")
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-8", "backslashreplace").decode()
    return text
