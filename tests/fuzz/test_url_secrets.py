"""Malformed URLs with a password in them: no message, repr, warning, log record or chained exception has it."""

from __future__ import annotations

import logging
import random
import re
import traceback
import warnings
from typing import TYPE_CHECKING, Any

import pytest

from triggers import Triggers
from triggers.exceptions import PluginError, StorageError, TriggersError
from triggers.plugins import storage_from_url
from triggers.redaction import shown_url
from triggers.storages.postgres.url import PostgresUrl
from triggers.storages.redis.url import RedisUrl
from triggers.storages.sqlite.url import SqliteUrl

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Where a secret stands, in what people type.
FORMS = (
    "{scheme}://{user}:{secret}@{host}/{rest}",
    "{scheme}://:{secret}@{host}",
    "{scheme}://{secret}@{host}/{rest}",
    "{scheme}://{secret}:@{host}",
    "{scheme}://{user}{secret}@{host}",
    "{scheme}:/{user}:{secret}@{host}",
    "{scheme}:/:{secret}@{host}",
    "{scheme}:{user}:{secret}@{host}",
    "{scheme}:///{user}:{secret}@{host}/{rest}",
    "{scheme}:////{user}:{secret}@{host}/{rest}",
    "{scheme}//{user}:{secret}@{host}",
    "{scheme}{user}:{secret}@{host}",
    "{scheme}://{user}:{secret}@[::1/{rest}",
    "{scheme}://{user}:{secret}@{host}:port/{rest}",
    "{scheme}://{user}:{secret}@{host}:70000",
    "{scheme}://{user}:{secret}@{host}?colour=red",
    "{scheme}://{user}:{secret}@{host}?timeout={secret}&schema=pg_{secret}",
    "{scheme}://{user}:{secret}@{host},{user}:{secret}@{host}",
    "{scheme}://{user}@{host}/{rest}?password={secret}&colour=red",
    "{scheme}://{user}@{host}/{rest}?{secret}",
    "{scheme}://{user}:1?application_name={secret}@{host}",
    "{scheme}://{user}:1/{secret}@{host}",
    "{scheme}://{user}:1#{secret}@{host}",
    "{scheme}+tls://{user}:{secret}@{host}",
    "x{scheme}://{user}:{secret}@{host}",
    " {scheme}://{user}:{secret}@{host}",
    "{user}:{secret}@{host}/{rest}",
    "{secret}@{host}",
    "//{user}:{secret}@{host}",
    "host={host} user={user} password={secret}",
    "password='{secret}' host={host} dbname={rest}",
    "{scheme}://host={host} password={secret}",
)
SCHEMES = ("postgresql", "postgres", "redis", "rediss", "redis+cluster", "redis+unix", "sqlite", "memory")
PARSERS = {"postgres": PostgresUrl, "postgresql": PostgresUrl, "sqlite": SqliteUrl}
#: Characters that mean something in a URL or a connection string.
MARKS = ":/@?#[]%=&;, '\"\\\n"
LETTERS = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"


def urls(count: int, seed: int) -> Iterator[tuple[str, str, list[str]]]:
    """Yield scheme, URL and the parts of the secret, none of which may be shown."""
    chance = random.Random(seed)
    for _ in range(count):
        parts = ["".join(chance.choices(LETTERS, k=9)) for _ in range(chance.randint(1, 3))]
        secret = parts[0]
        for part in parts[1:]:
            secret += "".join(chance.choices(MARKS, k=chance.randint(1, 2))) + part
        scheme = chance.choice(SCHEMES)
        url = chance.choice(FORMS).format(
            scheme=scheme, user=chance.choice(("u", "", "ada")), secret=secret, host="127.0.0.1:1", rest="db"
        )
        if chance.random() < 0.3:  # one more slip
            place = chance.randrange(len(url))
            slipped = url[:place] + chance.choice(MARKS) + url[place + chance.randint(0, 1) :]
            url = slipped if slipped.count("?") >= url.count("?") else url  # a path is no secret
        yield scheme, url, parts


def said_by(error: BaseException) -> str:
    """Everything that an exception and those behind it say."""
    told: list[str] = []
    behind: list[BaseException | None] = [error]
    while behind:
        one = behind.pop()
        if one is not None:
            told += [str(one), repr(one), str(one.args), *getattr(one, "__notes__", ())]
            behind += [one.__cause__, one.__context__]
    return "\n".join(told)


def assert_untold(text: str, parts: list[str], url: str) -> None:
    """No part of the secret is in the text, in any case: hosts are made lower case."""
    shown = [part for part in parts if part.lower() in text.lower()]
    assert not shown, f"{url!r} shows {shown} in {text!r}"


def is_plain(url: str) -> bool:
    """Whether it is a URL that has no place for a password, so that its parts are what they seem."""
    return "@" not in url and "=" not in url


def check(scheme: str, url: str, parts: list[str], *, opening: bool) -> bool:
    """Look for the secret in what is told about the URL; returns whether it was refused.

    Args:
        scheme: what the URL begins with, unless something is wrong there.
        url: the URL.
        parts: the parts of the secret.
        opening: whether also to open a storage, which searches the entry points of all distributions.
    """
    parts = [] if is_plain(url) else parts
    assert_untold(shown_url(url), parts, url)
    parser = PARSERS.get(scheme, RedisUrl if scheme.startswith("redis") else None)
    if parser is not None and url.startswith(f"{scheme}:"):
        try:
            parsed: Any = parser.parse(url)
        except StorageError as error:
            assert_untold(said_by(error), parts, url)
        else:
            assert_untold("" if scheme == "sqlite" else f"{parsed!r} {parsed.shown}", parts, url)
            return False
    if not opening and "://" in url:
        return True
    try:
        storage = storage_from_url(url)
    except (PluginError, StorageError) as error:
        assert_untold(said_by(error), parts, url)
        return True
    assert_untold(repr(storage), parts, url)
    return False


@pytest.mark.parametrize("seed", [1, *(pytest.param(seed, marks=pytest.mark.slow) for seed in range(2, 12))])
def test_ten_thousand_malformed_urls_show_no_part_of_a_password(seed, caplog):
    """Whatever is wrong with a URL: the error, all exceptions behind it, the logs and warnings have no secret."""
    caplog.set_level(logging.DEBUG)
    refused = 0
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        for number, (scheme, url, parts) in enumerate(urls(10_000, seed)):
            refused += check(scheme, url, parts, opening=number % 100 == 0)
    assert refused > 5_000
    assert not warned
    assert not caplog.records


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("scheme", ["postgresql", "redis", "sqlite", "mysql"])
def test_no_part_of_a_password_is_in_a_traceback(form, scheme):
    """What an uncaught exception prints has the source of the caller, and no value."""
    url = form.format(scheme=scheme, user="ada", secret="hunter2/correct@horse", host="[", rest="db")  # noqa: S106
    with pytest.raises((PluginError, StorageError)) as caught:
        Triggers(url, runner=None)
    text = "".join(traceback.format_exception(caught.value))
    assert not re.search(r"hunter2|correct|horse", text.replace('secret="hunter2/correct@horse"', ""))


def test_a_url_for_another_option_is_not_shown():
    """It is taken for a name, and the message does not show what is secret in it."""
    with pytest.raises(PluginError, match="there is no manager") as caught:
        Triggers("memory://", manager="redis://ada:hunter2@h")
    assert "hunter2" not in said_by(caught.value)


@pytest.mark.parametrize(
    "options", [{"runner": "redis://ada:hunter2@h"}, {"runner": "host=h password=hunter2"}]
)
def test_a_url_in_the_place_of_a_runner_is_not_shown(options):
    """It is taken for a name, which the message would show."""
    with pytest.raises(PluginError, match="there is no runner") as caught:
        Triggers("memory://", **options)
    assert "hunter2" not in said_by(caught.value)


def wrong(url: str, user: str, password: str) -> str:
    """The URL of a running server with other credentials."""
    credentials = f"{user}:{password}" if password else user
    found = re.sub(r"//[^@]*@", f"//{credentials}@", url)
    return f"{found}{'&' if '?' in found else '?'}timeout=0.2"


@pytest.mark.parametrize(
    ("user", "password"), [("postgres", "hunter2hunter2"), ("hunter2hunter2", ""), ("hunter2", "hunter22")]
)
def test_what_servers_answer_has_no_password(postgres_server, redis_server, user, password):
    """The server refuses the password, or the user that is one; neither is in the chain of exceptions."""
    if not (postgres_server.private and redis_server.private):
        pytest.skip("the URLs of these servers may have other credentials")
    socket = [postgres_server.url] if user != "postgres" else []  # it accepts this user with any password
    for url in (*socket, postgres_server.tcp_url, redis_server.url):
        with pytest.raises(TriggersError) as caught:
            Triggers(wrong(url, user, password), runner=None)
        assert "hunter2" not in said_by(caught.value)
        assert "***@" in str(caught.value)
