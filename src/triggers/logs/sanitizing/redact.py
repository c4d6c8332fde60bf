"""Redacts secrets: values under a secret key, known secret values, and passwords in URLs."""

from __future__ import annotations

import re
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

#: Replaces a secret.
REDACTED = "[redacted]"

#: Words of a key that name a secret, also in the plural. ``=`` means: only if it is the whole key, because
#: ``token_count`` and ``auth_method`` do not name secrets.
SECRET_WORDS = (
    "password",
    "pass word",
    "passwd",
    "pwd",
    "passphrase",
    "passcode",
    "secret",
    "authorization",
    "=auth",
    "basic auth",
    "=bearer",
    "cookie",
    "credential",
    "api key",
    "apikey",
    "access key",
    "private key",
    "privatekey",
    "encryption key",
    "signing key",
    "=token",
    "access token",
    "accesstoken",
    "refresh token",
    "auth token",
    "api token",
    "bearer token",
    "csrf token",
    "identity token",
    "security token",
    "session token",
)

#: Characters of the shortest secret. Hiding a shorter value would only damage ordinary words.
MIN_SECRET = 4

#: Characters of the longest secret in a URL; a text is searched so far beyond a cut before it is cut.
URL_REACH = 1_400

#: Characters at each end of a key in which its words are looked for.
KEY_ENDS = 1_024

#: What may separate two words of a key; an s is a plural.
_GAP = r"s?[\W_]{0,9}"
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[^\W\d_A-Za-z]+")
# A password that is already redacted is not matched, so that redacting twice changes nothing.
_URL_PASSWORD = re.compile(rf"(://[^\s/:@]{{0,256}}:)(?!{re.escape(REDACTED)}@)[^\s/]{{1,1024}}(?=@)")


class SecretKeys:
    """Decides by its words whether a key names a secret.

    Args:
        words: as :attr:`triggers.logs.LogSettings.redact` describes them.
    """

    __slots__ = ("_candidate", "_exact", "_phrases")

    def __init__(self, words: Iterable[str] = SECRET_WORDS) -> None:
        whole = [word[1:] for word in words if word.startswith("=")]
        parts = [word for word in words if not word.startswith("=")]
        self._exact = frozenset(_joined(word) for word in whole)
        self._phrases = tuple(_joined(word) for word in parts)
        self._candidate = re.compile("|".join(_stems([*whole, *parts])) or "(?!)").search

    def may_be(self, text: str) -> bool:
        """Whether a key in this text, which may have many keys, could name a secret; False is certain."""
        return self._candidate(text.casefold()) is not None

    def __call__(self, key: str) -> bool:
        """Whether the value of this key is hidden."""
        if len(key) > 2 * KEY_ENDS:
            # In a key of more than 2,000 characters, only the ends are searched.
            key = f"{key[:KEY_ENDS]} {key[-KEY_ENDS:]}"
        if not self.may_be(key):
            return False
        words = _joined(key)
        return words in self._exact or any(phrase in words for phrase in self._phrases)


def _stems(words: Iterable[str]) -> list[str]:
    """Return patterns that match in every secret key, and in few others, so that new keys are cheap."""
    single = {word.strip().casefold() for word in words} - {""}
    least = [word for word in single if not any(other != word and other in word for other in single)]
    return sorted(_GAP.join(map(re.escape, word.split())) for word in least)


def _joined(key: str) -> str:
    """Return the words of a key, lower case and singular, between spaces, so that `in` finds whole words."""
    return f" {' '.join(_singular(word.casefold()) for word in _WORD.findall(key))} "


def _singular(word: str) -> str:
    return word[:-1] if word.endswith("s") and not word.endswith("ss") else word


class Secrets:
    """Known secret values, which must not appear in any text.

    Args:
        inherited: secrets that are hidden, too, also those that are added to them later.
    """

    __slots__ = ("_inherited", "_lock", "_merged", "_own")

    def __init__(self, inherited: Secrets | None = None) -> None:
        self._inherited = inherited
        self._own: tuple[str, ...] = ()
        self._merged: tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]] = ((), (), ())
        self._lock = threading.Lock()

    def add(self, value: str | bytes) -> None:
        """Hide this value from now on; a value of fewer than 4 characters is ignored."""
        text = value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)
        if len(text) < MIN_SECRET or text in REDACTED:
            return
        with self._lock:
            self._own = _longest_first({*self._own, text})

    def values(self) -> tuple[str, ...]:
        """Return every value to hide, the longest first; the same tuple until a value is added."""
        if self._inherited is None:
            return self._own
        others = self._inherited._own  # noqa: SLF001 - the same class
        if not others:
            return self._own
        own, before, merged = self._merged
        if own is not self._own or before is not others:
            merged = _longest_first({*self._own, *others})
            self._merged = (self._own, others, merged)
        return merged


def _longest_first(values: Iterable[str]) -> tuple[str, ...]:
    """Sort values so that a secret which contains another is replaced first, as a whole."""
    return tuple(sorted(values, key=lambda value: (-len(value), value)))


def hide(text: str, secrets: tuple[str, ...]) -> str:
    """Return the text without the given values and without passwords in URLs."""
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    return _URL_PASSWORD.sub(rf"\1{REDACTED}", text) if "://" in text else text


def reach(secrets: tuple[str, ...]) -> int:
    """Return how many characters beyond a cut must be searched, so that no cut leaves a part of a secret."""
    return max(URL_REACH, len(secrets[0]) if secrets else 0)
