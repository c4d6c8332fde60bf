"""Redacts secrets: values under a secret key, known secret values, and the passwords of URLs.

:func:`shown_url` is what messages show of a URL. :func:`hide` removes secrets from any text.
"""

from __future__ import annotations

import re
import threading
from itertools import accumulate
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

#: Replaces a secret.
REDACTED = "[redacted]"

#: Whose password `pass` is, after one of these words. ``pass_rate`` and ``boarding_pass`` name no secret.
_OWNERS = (
    *("db", "database", "sql", "mysql", "postgres", "pg", "redis", "mongo", "rabbit", "amqp", "ldap", "ftp"),
    *("smtp", "imap", "mail", "email", "user", "admin", "root", "login", "my", "old", "new"),
)

#: Kinds of tokens that are secrets. ``next_page_token`` and ``eos_token`` are not.
_TOKENS = (
    *("access", "refresh", "auth", "oauth", "api", "app", "bearer", "csrf", "xsrf", "csrf middleware"),
    *("id", "identity", "security", "session", "jwt"),
)

#: Words of a key that name a secret, also in the plural. ``=`` means: only if it is the whole key, because
#: ``token_count`` and ``auth_method`` do not name secrets.
SECRET_WORDS = (
    "password",
    "pass word",
    "passwd",
    "pwd",
    "passphrase",
    "passcode",
    "=pass",
    *(f"{owner} pass" for owner in _OWNERS),
    "secret",
    "authorization",
    "=auth",
    "basic auth",
    "redis auth",
    "redis cli auth",
    "=bearer",
    "cookie",
    "credential",
    "api key",
    "apikey",
    "access key",
    "secret key",
    "private key",
    "encryption key",
    "signing key",
    "=token",
    *(f"{kind} token" for kind in _TOKENS),
    "=jwt",
    *(f"{kind} jwt" for kind in ("access", "auth", "id", "session", "user")),
    "dsn",
    "sentry dsn",
    "conninfo",
    "connection string",
    "database url",
    "db url",
)

#: Characters of the shortest secret. Hiding a shorter value would only damage ordinary words.
MIN_SECRET = 4

#: Characters of the longest secret in a URL; a text is searched so far beyond a cut before it is cut.
URL_REACH = 1_400

#: Characters at each end of a key in which its words are looked for.
KEY_ENDS = 1_024

#: Letters of the shortest word, and of the shortest phrase without its spaces, that is also found at the end
#: of a longer word: ``PGPASSWORD``, ``DJANGOSECRETKEY``.
LONG_WORD = 6
LONG_PHRASE = 9

#: Characters of the longest user that is shown beside a hidden password; a longer one may be a token.
LONGEST_USER = 24

#: What may separate two words of a key; an s is a plural.
_GAP = r"s?[\W_]{0,9}"
_WORD = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|[^\W\d_A-Za-z]+")

_LETTERS = re.compile(r"[^\W\d_]+")

#: The user and the password of a URL in a text, or a token instead of both. A password may contain anything
#: but spaces, and ends at the last @ that can be meant. What looks like a port is not a password.
_CREDENTIALS = re.compile(
    r"""(?<!file)://(?!\[[0-9A-Fa-f:.]{2,64}\])
    (?:
      (?P<user>[^\s/:@?\#]{0,256}):(?!\d{1,5}(?![\w@%$!~+*=.-]))
      (?P<password>(?:(?!://)\S){0,1024}(?=@)|[^\s/?\#]{0,1024})
    | (?P<token>[^\s/:@?\#]{1,1024})
    )(?=@)""",
    re.VERBOSE,
)

#: A key and its value in a text. A value in quotes may contain anything.
_PAIR = re.compile(
    r"""(?<![\w.-])([\w.-]++)
    (={1,2}|[ \t]{0,3}=[ \t]{0,3}(?=['"]))
    (
      '(?:\\.|[^'\\])*+(?:'|\Z)
    | "(?:\\.|[^"\\])*+(?:"|\Z)
    | (?:\\.|[^\s&'"\\])(?:\\.|[^\s&\\])*+
    )""",
    re.VERBOSE | re.DOTALL,
)

#: What :func:`shown_url` shows of a user and a password.
_HIDDEN = "***"

#: What can follow the value of a key without belonging to it.
_CLOSING = ")]}>,;.'\""


class SecretKeys:
    """Decides by its words whether a key names a secret.

    The words of a key may be joined in any way: ``db_pass``, ``dbPass``, ``DB-PASS``, ``dbpass``. A word of
    six letters or more is also found at the end of a longer one: ``PGPASSWORD``.

    Args:
        words: as :attr:`triggers.logs.LogSettings.redact` describes them.
    """

    __slots__ = ("_candidate", "_endings", "_exact", "_phrases")

    def __init__(self, words: Iterable[str] = SECRET_WORDS) -> None:
        whole = [word[1:] for word in words if word.startswith("=")]
        parts = [word for word in words if not word.startswith("=")]
        self._exact = frozenset("".join(_words(word)) for word in whole)
        self._phrases = tuple({"".join(_words(word)) for word in parts} - {""})
        single = {word.casefold() for word in parts if " " not in word and len(word) >= LONG_WORD}
        self._endings = tuple(single | {phrase for phrase in self._phrases if len(phrase) >= LONG_PHRASE})
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
        words = _words(key)
        joined = "".join(words)
        if joined in self._exact or joined.removesuffix("s") in self._exact:
            return True
        limits = {0, *accumulate(map(len, words))}
        return any(_has(joined, limits, phrase) for phrase in self._phrases) or self._has_ending(key)

    def _has_ending(self, key: str) -> bool:
        """Whether a word between separators, in any case, ends with a long word: ``PGpassWORD``."""
        words = _LETTERS.findall(key.casefold())
        return any(word.removesuffix("s").endswith(self._endings) for word in words)


def _has(joined: str, limits: set[int], phrase: str) -> bool:
    """Whether whole words, joined, make the phrase."""
    start = joined.find(phrase)
    while start >= 0:
        end = start + len(phrase)
        if start in limits and (end in limits or (joined[end] == "s" and end + 1 in limits)):
            return True
        start = joined.find(phrase, start + 1)
    return False


def _stems(words: Iterable[str]) -> list[str]:
    """Return patterns that match in every secret key, and in few others, so that new keys are cheap."""
    single = {word.strip().casefold() for word in words} - {""}
    least = [word for word in single if not any(other != word and other in word for other in single)]
    return sorted(_GAP.join(map(re.escape, word.split())) for word in least)


def _words(key: str) -> list[str]:
    return [word.casefold() for word in _WORD.findall(key)]


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


def may_have_secret(text: str) -> bool:
    """Whether :func:`hide` could change the text even if no value is known; False is certain."""
    return "=" in text or "://" in text


def hide(text: str, secrets: tuple[str, ...]) -> str:
    """Return the text without the given values, the credentials of URLs, and the values of secret keys.

    Such values are those of a URL's query (``?password=…``), of a connection string (``host=… password=…``)
    and of an environment (``PGPASSWORD=…``).
    """
    hidden = hide_in_code(text, secrets)
    if "=" in hidden and _keys.may_be(hidden):
        changed = _PAIR.sub(_hidden_pair, hidden)
        hidden = hidden if changed == hidden else changed
    return hidden


def hide_in_code(text: str, secrets: tuple[str, ...]) -> str:
    """Return the text without the given values and the credentials of URLs.

    It is for tracebacks, which have lines of code: ``token=token`` passes a variable on.
    """
    for secret in secrets:
        text = text.replace(secret, REDACTED)
    return _CREDENTIALS.sub(_hidden_credentials, text) if "://" in text else text


def _hidden_credentials(found: re.Match[str]) -> str:
    user, password = found["user"], found["password"]
    hidden = {found["token"], password} & {_HIDDEN, REDACTED}
    if hidden or (password or "").startswith(f"{REDACTED}@"):
        return found[0]
    return f"://{user}:{REDACTED}" if password and len(user) <= LONGEST_USER else f"://{REDACTED}"


def _hidden_pair(found: re.Match[str]) -> str:
    key, sign, value = found.groups()
    if value.startswith(REDACTED) or not _keys(key):
        return found[0]
    end = value[len(value.rstrip(_CLOSING)) :] if value[0] not in "'\"" else ""
    return f"{key}{sign}{REDACTED}{end}"


def reach(secrets: tuple[str, ...]) -> int:
    """Return how many characters beyond a cut must be searched, so that no cut leaves a part of a secret."""
    return max(URL_REACH, len(secrets[0]) if secrets else 0)


# -- URLs --


_HOST = r"(?:(?:[\w.-]|%[0-9A-Fa-f]{2})*|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?"
#: A URL of which no part can be taken for another one: its only @ ends the user and the password.
_URL = re.compile(
    rf"""(?P<scheme>[A-Za-z][A-Za-z0-9+.-]{{0,31}}://)
    (?:(?P<user>[^\s@/?\#]+)@)?
    (?P<where>{_HOST}(?:,{_HOST})*(?:/(?:[\w./~+-]|%[0-9A-Fa-f]{{2}})*)?)
    (?:\?(?P<query>[^\s@\#]*))?""",
    re.VERBOSE,
)
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,31}(?=://)")

#: What to do about a URL that is not :func:`is_well_formed`.
ENCODE = (
    "if the user or the password has special characters, write %40 for @, %3A for :, %2F for /, %3F for ?, "
    "%23 for # and %5B for ["
)


def is_well_formed(url: str) -> bool:
    """Whether no character of a password can have been taken for the end of the user and the password."""
    return _URL.fullmatch(url) is not None


def shown_url(url: str, options: Collection[str] = ()) -> str:
    """Return what messages show of a URL. No form of it shows a password.

    Args:
        url: a URL, or any other text that was given as one.
        options: names of options in its query that are shown; the others are left out.

    Returns:
        The URL with ``***`` for its user and password. If it is not well-formed, what :func:`shown_scheme`
        returns, because then any part of it can be the password.
    """
    found = _URL.fullmatch(url)
    if found is None:
        return shown_scheme(url)
    pairs = [pair for pair in (found["query"] or "").split("&") if pair.partition("=")[0] in options]
    query = f"?{'&'.join(pairs)}" if pairs else ""
    # The user is hidden, too: it can be a token, or the first part of a password.
    return f"{found['scheme']}{f'{_HIDDEN}@' if found['user'] else ''}{found['where']}{query}"


def shown_scheme(url: str) -> str:
    """Return what messages show of a URL that is refused: ``scheme://…``, or ``…`` if it has no scheme.

    Any other part of it can be a part of the password.
    """
    scheme = _SCHEME.match(url)
    return f"{scheme[0]}://…" if scheme else "…"


_keys = SecretKeys()
