"""The URL of a PostgreSQL: its options, and the password that nobody sees."""

from __future__ import annotations

import traceback

import pytest

from triggers.exceptions import StorageError
from triggers.plugins import storage_from_url
from triggers.storages.postgres import PostgresStorage
from triggers.storages.postgres.url import POOL_SIZE, TIMEOUT, PostgresUrl

#: Passwords that could be shown by mistake: plain, and with characters that mean something in a URL.
PASSWORDS = ("hunter2", "s%40fe%2Fty%3F", "p%25w%26x%3Dy")


def test_what_is_not_ours_goes_to_libpq():
    """Options of ours are taken out, all others stay, and keepalives are set unless the URL sets them."""
    url = PostgresUrl.parse(
        "postgresql://me@db.example:6432/app?schema=my%20schema&pool_size=3&timeout=2.5&prepare=off"
        "&sslmode=require&keepalives_idle=99"
    )
    assert (url.schema, url.pool_size, url.timeout, url.prepare) == ("my schema", 3, 2.5, False)
    given = dict(part.split("=", 1) for part in url.conninfo.split())
    assert (given["host"], given["port"], given["user"], given["dbname"]) == (
        "db.example",
        "6432",
        "me",
        "app",
    )
    assert (given["sslmode"], given["keepalives_idle"]) == ("require", "99")
    assert (given["keepalives"], given["tcp_user_timeout"]) == ("1", "30000")


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_what_is_not_said_has_its_default(scheme):
    """Without options: the schema `triggers`, and whether statements are prepared is found out."""
    url = PostgresUrl.parse(f"{scheme}://db.example/app")
    assert (url.schema, url.pool_size, url.timeout, url.prepare) == ("triggers", POOL_SIZE, TIMEOUT, None)


@pytest.mark.parametrize("password", PASSWORDS)
def test_a_password_is_never_shown(password):
    """Neither in what a storage calls itself, nor in any error, nor in the chain of errors behind it."""
    plain = {"hunter2", "s@fe/ty?", "p%w&x=y"} | set(PASSWORDS)
    assert not any(text in PostgresUrl.parse(f"postgresql://me:{password}@h/app").shown for text in plain)
    assert not any(
        text in PostgresUrl.parse(f"postgresql://me@h/app?password={password}").shown for text in plain
    )
    for url in (
        f"postgresql://me:{password}@[::1/app",
        f"postgresql://me:{password}@h:port/app",
        f"postgresql://me:{password}@127.0.0.1:9/app?timeout=0.1&connect_timeout=2",
        f"postgresql://me@h/app?password={password}&colour=red",
    ):
        with pytest.raises(StorageError) as caught:
            PostgresStorage(url)
        whole = "".join(traceback.format_exception(caught.value))
        assert not any(text in whole.replace(url, "") for text in plain), "in the error itself"
        assert not any(text in str(caught.value) for text in plain)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("schema=", "is not a valid name of a PostgreSQL schema"),
        (f"schema={'ü' * 32}", "is not a valid name of a PostgreSQL schema"),
        ("schema=pg_ours", "is not a valid name of a PostgreSQL schema"),
        ("schema=a%00b", "is not a valid name of a PostgreSQL schema"),
        ("pool_size=0", "pool_size is not a number of connections"),
        ("pool_size=many", "pool_size is not"),
        ("timeout=-1", "timeout is not a time"),
        ("timeout=soon", "timeout is not a time"),
        ("timeout=nan", "timeout is not a time"),
        ("prepare=maybe", "prepare is not one of: auto, on, off"),
        ("colour=red", "options are: schema=name"),
    ],
)
def test_an_option_that_cannot_be_is_refused(option, message):
    """The message says which, and what there is."""
    with pytest.raises(StorageError, match=message):
        PostgresUrl.parse(f"postgresql://db.example/app?{option}")


def test_a_server_that_is_not_there_is_an_error_that_says_so():
    """After trying for a while, since it may be about to start: which server, how long, and that nothing happened."""
    with pytest.raises(
        StorageError, match=r"postgresql://\*\*\*@127.0.0.1:9/app.* could not be used for 0.1 s .*refused"
    ):
        PostgresStorage("postgresql://me:secret@127.0.0.1:9/app?timeout=0.1")


def test_what_another_try_does_not_cure_is_said_at_once(postgres_server):
    """A database that does not exist is no reason to wait."""
    url = postgres_server.url.replace("/postgres?", "/nowhere?")
    with pytest.raises(StorageError, match=r'could not be used .*database "nowhere" does not exist'):
        PostgresStorage(url)


@pytest.mark.parametrize("scheme", ["postgresql", "postgres"])
def test_both_schemes_lead_to_it(postgres_url, scheme):
    """postgresql:// and postgres:// are the same."""
    storage = storage_from_url(postgres_url.replace("postgresql", scheme, 1))
    assert isinstance(storage, PostgresStorage)
    assert storage.now() > 0
    storage.close()
