"""Secrets by their keys, in every spelling, and in texts; and what is as innocent as it looks."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggers.logs import REDACTED, LogSettings
from triggers.logs.sanitizing.sanitizer import Sanitizer
from triggers.logs.sanitizing.texts import fit_text
from triggers.redaction import SecretKeys

is_secret = SecretKeys()
SECRET = "hunter22-correct-horse"  # noqa: S105 - what must not be kept

#: Keys that name a secret, as words that can be joined in any way.
SECRETS = (
    *(
        "password",
        "pg password",
        "db password",
        "old password",
        "db pass",
        "pass",
        "user pass",
        "passwd",
        "pwd",
    ),
    *("client secret", "secret key", "secret access key", "django secret key", "api key", "private key"),
    *(
        "csrf token",
        "csrf middleware token",
        "id token",
        "access token",
        "session token",
        "token",
        "auth token",
    ),
    *("redis cli auth", "auth", "jwt", "id jwt", "dsn", "sentry dsn", "database url", "passphrase", "cookie"),
)

#: Keys that name no secret, although they look like one.
INNOCENT = (
    *(
        "session",
        "session id",
        "token count",
        "max tokens",
        "tokens used",
        "valid token count",
        "next page token",
    ),
    *(
        "passenger",
        "compass",
        "bypass",
        "trespass",
        "passage",
        "passport",
        "pass rate",
        "boarding pass",
        "proxy pass",
        "prompt tokens",
        "valid token",
        "passed",
    ),
    *("author", "author name", "authority", "auth method", "secretary", "secretariat", "monkey", "monkey id"),
    *(
        "primary key",
        "public key",
        "keyboard",
        "key",
        "database",
        "database name",
        "url",
        "base url",
        "redis",
    ),
    *("jwt algorithm", "cookiecutter", "tokenizer", "eos token", "pad token", "user tokens"),
)


def spellings(key):
    """A key in the ways that programs write it: separators and cases."""
    words = key.split()
    camel = words[0] + "".join(map(str.capitalize, words[1:]))
    joined = [separator.join(words) for separator in ("_", "-", ".", " ", "", "__")]
    upper = [one.upper() for one in joined]
    return sorted({camel, "".join(map(str.capitalize, words)), *joined, *upper, *map(str.title, joined)})


@given(st.sampled_from(SECRETS), st.sampled_from(["_", "-", ".", ""]), st.randoms())
def test_a_secret_is_hidden_in_any_case(key, separator, chance):
    """Also if every letter has a case of its own."""
    written = separator.join(key.split())
    assert is_secret("".join(chance.choice((letter.upper(), letter.lower())) for letter in written))


def nested(key, depth):
    """The key with a secret value, so deep in dicts and lists."""
    value = {key: SECRET}
    for level in range(depth):
        value = [value] if level % 2 else {"inner": value}
    return {"outer": value}


@pytest.mark.parametrize("key", SECRETS)
def test_a_secret_is_hidden_in_every_spelling_at_every_depth(key):
    """Snake, camel, kebab, dots or no separator; lower, upper and title case; alone, and in other data."""
    for spelling in spellings(key):
        for depth in (0, 1, 5):
            assert SECRET not in str(Sanitizer(LogSettings()).context(nested(spelling, depth)).data), spelling


@pytest.mark.parametrize("key", INNOCENT)
def test_no_innocent_key_is_hidden_in_any_spelling(key):
    """A word that only contains a secret word, and a word that is secret only in other company, hide nothing."""
    for spelling in spellings(key):
        assert not is_secret(spelling), spelling
        assert SECRET in str(Sanitizer(LogSettings()).context(nested(spelling, 1)).data), spelling


@given(
    st.sampled_from(SECRETS).flatmap(lambda key: st.sampled_from(spellings(key))),
    st.sampled_from(["{}={}", "?a=1&{}={}&b=2", "host=h {}={} dbname=d", "{}='{}' x", '{}="{}"', "({}={})"]),
    st.sampled_from(["", "https://h/p ", "GET /p ", "export ", "x=1 "]),
)
def test_a_secret_is_hidden_in_texts(key, form, before):
    """The value of such a key in a query, a connection string, or an environment; what is around it stays."""
    key = key.replace(" ", "_")
    text = before + form.format(key, SECRET)
    shown = fit_text(text, 4_096)[0]
    assert shown == text.replace(SECRET, REDACTED).replace(f"'{REDACTED}'", REDACTED).replace(
        f'"{REDACTED}"', REDACTED
    )
    assert fit_text(shown, 4_096)[0] == shown


@given(
    st.sampled_from(INNOCENT).flatmap(lambda key: st.sampled_from(spellings(key))),
    st.sampled_from(["{}={}", "?a=1&{}={}&b=2", "{}='{}' x"]),
)
def test_an_innocent_text_stays_as_it_is(key, form):
    """Also with the sign of equality in it."""
    text = form.format(key.replace(" ", "_"), "value")
    assert fit_text(text, 4_096) == (text, False)


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("clone https://ghp_0123456789@github.com/a/b", "clone https://[redacted]@github.com/a/b"),
        ("https://ghp_0123456789:@github.com/a", "https://[redacted]@github.com/a"),
        (f"https://{'t' * 40}:x-oauth-basic@github.com", "https://[redacted]@github.com"),
        ("redis://u:pa/ss@h:1/0", "redis://u:[redacted]@h:1/0"),
        ("redis://u:pa?ss#[x@h:1/0", "redis://u:[redacted]@h:1/0"),
        ("redis://u:p@ss/w@h", "redis://u:[redacted]@h"),
        ('{"url": "postgres://u:p"w@h/d"}', '{"url": "postgres://u:[redacted]@h/d"}'),
        ("password='it\\'s a secret' host=h", "password=[redacted] host=h"),
        ("password = 'a b' host=h", "password = [redacted] host=h"),
        ("password=a\\ b host=h", "password=[redacted] host=h"),
        ("DATABASE_URL=postgres://u:p@h/d", "DATABASE_URL=[redacted]"),
        ("dsn='host=h password=p'", "dsn=[redacted]"),
        ("Login(password=abc, name=Ann)", "Login(password=[redacted], name=Ann)"),
        ("password=", "password="),
        ("http://localhost:4873/@scope/package", "http://localhost:4873/@scope/package"),
        ("http://[::1]:80/a@b", "http://[::1]:80/a@b"),
        ('{"a": "http://h:80", "b": "me@h"}', '{"a": "http://h:80", "b": "me@h"}'),
        ('["http://h:80","me@h"]', '["http://h:80","me@h"]'),
        ("file://C:/Users/me@corp", "file://C:/Users/me@corp"),
        ("page=3 of=5, token_count=7", "page=3 of=5, token_count=7"),
    ],
)
def test_secrets_in_texts(text, kept):
    """Tokens of URLs, passwords with any character, connection strings; and texts that only look like them."""
    assert fit_text(text, 4_096)[0] == kept
    assert fit_text(kept, 4_096)[0] == kept


def test_a_long_value_is_hidden_before_a_cut():
    """A value that a cut would part, in quotes or not, leaves no part of it."""
    for value in (SECRET * 90, f"'{SECRET * 90}", f"'{'secret words ' * 200}'"):
        for shift in (0, 5, 30):
            kept = fit_text("x" * (4_000 - shift) + f" password={value}", 4_096)[0]
            assert "correct" not in kept
            assert "secret words" not in kept


def test_the_source_of_a_traceback_is_not_changed(kit, application):
    """A line of code that passes a password on has no secret, so the exception itself is forwarded."""

    def connect(password):
        raise ValueError("refused")

    password = "hunter2"  # noqa: S105 - it is only passed on
    with pytest.raises(ValueError, match="refused"), kit.log.block():
        connect(password=password)
    (entry,) = kit.finish()
    assert "connect(password=password)" in entry.exception["traceback"]
    assert application.collector.records[-1].exc_info


def test_arguments_are_kept_if_nothing_is_hidden(kit, application):
    """A message with an innocent sign of equality goes to the application's handlers with its arguments."""
    with kit.log.block() as logger:
        logger.info("page=%s", 3)
        logger.info("password=%s", SECRET)
    assert [entry.message for entry in kit.finish()] == ["page=3", f"password={REDACTED}"]
    first, second = application.collector.records
    assert (first.msg, first.args) == ("page=%s", (3,))
    assert (second.msg, second.args) == (f"password={REDACTED}", ())
