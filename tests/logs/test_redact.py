from __future__ import annotations

import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggers.exceptions import with_context
from triggers.logs import REDACTED, LogSettings, mask_secret
from triggers.logs.current import PROCESS_SECRETS
from triggers.logs.sanitizing.sanitizer import Sanitizer
from triggers.logs.sanitizing.texts import fit_text
from triggers.redaction import SecretKeys, Secrets

is_secret = SecretKeys()
SECRET = "hunter22-correct-horse"  # noqa: S105 - what must not be kept


@pytest.mark.parametrize(
    "key",
    [
        "password",
        "Password",
        "PASSWORD",
        "db_password",
        "dbPassword",
        "DBPassword",
        "password2",
        "passwords",
        "user.password",
        "passWord",
        "passwd",
        "PWD",
        "secret",
        "client_secret",
        "clientSecrets",
        "SECRET_KEY",
        "Authorization",
        "Proxy-Authorization",
        "cookie",
        "Set-Cookie",
        "cookies",
        "credentials",
        "awsCredential",
        "api_key",
        "apiKey",
        "APIKey",
        "X-Api-Key",
        "apikeys",
        "api keys",
        "access_token",
        "accessToken",
        "private-key",
        "privateKey",
        "refreshToken",
        "csrf_token",
        "token",
        "Token",
        "auth",
        "passphrase",
    ],
)
def test_keys_that_name_a_secret(key):
    """Whole words decide, however they are written together."""
    assert is_secret(key)
    assert Sanitizer(LogSettings()).context({key: SECRET}).data == {key: REDACTED}


@pytest.mark.parametrize(
    "key",
    [
        "session",
        "session_id",
        "token_count",
        "tokens_used",
        "tokenize",
        "author",
        "authors",
        "auth_method",
        "key",
        "primary_key",
        "keyboard",
        "compass",
        "passenger",
        "secretary",
        "monkey",
        "access",
        "cookiecutter",
        "api",
        "private",
        "",
        "…",
    ],
)
def test_keys_that_only_look_like_it(key):
    """A word within a word, and half of a phrase, hide nothing."""
    assert not is_secret(key)


def test_words_can_be_set():
    """An application hides its own keys by adding words."""
    settings = LogSettings(redact=("social security", "=ssn"))
    assert Sanitizer(settings).context(
        {"socialSecurityNumber": 1, "ssn": 2, "ssn_count": 3, "password": 4}
    ).data == {
        "socialSecurityNumber": REDACTED,
        "ssn": REDACTED,
        "ssn_count": 3,
        "password": 4,
    }


@given(
    st.lists(st.sampled_from(["page", 0, ()]), max_size=6),
    st.sampled_from(["password", "apiKey", "Set-Cookie"]),
)
def test_a_secret_is_hidden_at_any_depth(path, key):
    """Whatever a secret stands in, and whatever it is itself, nothing of it is kept."""
    value = {key: {"deep": [SECRET]}, "beside": 1}
    for step in path:
        value = {step: value} if step == "page" else [value] if step == 0 else (value, value)
    assert SECRET not in str(Sanitizer(LogSettings()).context({"value": value}).data)


def forwarded(application):
    return str([vars(record) for record in application.collector.records])


def test_a_masked_value_is_nowhere(kit, application):
    """A value that was declared secret is missing from messages, contexts, tracebacks, and what handlers get."""
    with (  # noqa: PT012 - all of it is the task
        pytest.raises(ValueError, match=SECRET),
        kit.log.block({"url": f"x {SECRET}", "deep": [SECRET]}) as logger,
    ):
        mask_secret(SECRET)
        logger.info("f-string %s" % SECRET)  # noqa: G002, UP031 - the value is part of the template
        logger.info("argument %s", SECRET)
        logger.info("object %s", [SECRET])
        logger.info("wrong %s %s", SECRET)  # noqa: PLE1206 - it is wrong
        logger.info(
            "context", context={"a": SECRET, SECRET: 1, "bytes": SECRET.encode()}, extra={"more": SECRET}
        )
        error = ValueError(SECRET)
        error.add_note(SECRET)
        raise with_context(error, {"score": SECRET}) from KeyError(SECRET)
    entries = kit.finish()
    assert len(entries) == 6
    assert SECRET not in str(entries)
    assert str(entries).count(REDACTED) > 10
    assert SECRET not in forwarded(application)
    assert application.collector.records[-1].exc_info is None
    assert REDACTED in logging.Formatter().format(application.collector.records[-1])


def test_a_mask_is_forgotten_with_its_instance(make):
    """A value masked inside a block is hidden in that instance's log only."""
    one, other = make(), make()
    with one.log.block() as logger:
        mask_secret(SECRET)
        logger.info(SECRET)
    with other.log.block() as logger:
        logger.info(SECRET)
    assert [entry.message for entry in (*one.finish(), *other.finish())] == [REDACTED, SECRET]


def test_a_mask_outside_of_a_block_holds_everywhere(kit, monkeypatch):
    """A value masked outside is hidden in every log, also in contexts that were bound before."""
    monkeypatch.setattr(PROCESS_SECRETS, "_own", ())
    block = kit.log.block({"bound": SECRET})
    with block as logger:
        logger.info("before")
        PROCESS_SECRETS.add(SECRET.encode())
        logger.info("after %s", SECRET)
    before, after = kit.finish()
    assert (before.context, after.context) == ({"bound": SECRET}, {"bound": REDACTED})
    assert after.message == f"after {REDACTED}"


def test_no_cut_leaves_half_a_secret():
    """A secret that a cut would part, in a value or in a URL, is hidden before the cut."""
    for shift in range(-30, 30):
        for text in (f"{SECRET} ", f"postgresql://user:{SECRET}@host/db "):
            long = "x" * (4_096 - len(text) + shift) + text * 3 + "y" * 9_000
            kept = fit_text(long, 4_096, (SECRET,))[0] if "@" not in text else fit_text(long, 4_096, ())[0]
            assert not any(SECRET[:size] in kept for size in (5, 10, len(SECRET)))


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("postgresql://user:p4ss@host/db", "postgresql://user:[redacted]@host/db"),
        ("redis://:p4ss@host:6379/0", "redis://:[redacted]@host:6379/0"),
        ("redis://***@host:6379/0", "redis://***@host:6379/0"),
        ("https://u:p@ss@host/path?x=1", "https://u:[redacted]@host/path?x=1"),
        ("see http://host:80/path and mail a@b.c", "see http://host:80/path and mail a@b.c"),
        ("http://host/a:b@c", "http://host/a:b@c"),
    ],
)
def test_passwords_in_urls(kit, text, kept):
    """The password of a URL is hidden wherever the URL stands, and nothing else of it."""
    with kit.log.block() as logger:
        logger.info("connecting to %s", text, context={"url": text, "urls": [text]})
        logger.info(text)
    first, second = kit.finish()
    assert first.context == {"url": kept, "urls": [kept]}
    assert (first.message, second.message, second.template) == (f"connecting to {kept}", kept, kept)


def test_short_and_nested_secrets():
    """A value too short to hide is ignored; of two secrets in each other no rest stays."""
    secrets = Secrets()
    for value in ("abc", "", "hunter", "hunter22", "redacted", 12345):
        secrets.add(value)
    assert secrets.values() == ("hunter22", "hunter", "12345")
    assert Sanitizer(LogSettings()).context({"a": "hunter22 hunter abc 12345"}, secrets.values()).data == {
        "a": "[redacted] [redacted] abc [redacted]"
    }


@given(st.text(min_size=4, max_size=40), st.text(max_size=100), st.text(max_size=100))
def test_a_masked_value_never_survives(secret, before, after):
    """Whatever surrounds it, a masked value is not in the text that is kept."""
    secrets = Secrets()
    secrets.add(secret)
    kept = fit_text(before + secret + after, 4_096, secrets.values())[0]
    if secrets.values() and secret not in before + REDACTED + after:
        assert secret not in kept


def test_secrets_in_the_arguments_of_a_message(kit, application):
    """A container that is filled into a message is shown without what its keys hide, by `%s`, `%r` and by name."""
    with kit.log.block() as logger:
        logger.info("got %s and %r", {"page": 1, "password": SECRET}, [("Cookie", SECRET)])
        logger.info("got %(user)s, %(password)s", {"user": "Ann", "password": SECRET})
        logger.info("got %s", {"page": (1, 2)})
    assert [entry.message for entry in kit.finish()] == [
        "got {'page': 1, 'password': '[redacted]'} and [['Cookie', '[redacted]']]",
        "got Ann, [redacted]",
        "got {'page': (1, 2)}",
    ]
    assert SECRET not in forwarded(application)
