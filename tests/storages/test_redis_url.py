"""URLs of Redis: what they say, and what they must not say aloud."""

from __future__ import annotations

import pytest

from triggers.exceptions import StorageError
from triggers.storages.redis.url import RedisUrl


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://", {"hosts": (("localhost", 6379),), "db": 0, "prefix": "trg", "partitions": 64}),
        ("redis://h", {"hosts": (("h", 6379),)}),
        ("redis://h:7000/3", {"hosts": (("h", 7000),), "db": 3, "tls": False}),
        ("redis://[::1]:7000/", {"hosts": (("::1", 7000),)}),
        ("redis://u:p%40ss@h", {"username": "u", "password": "p@ss"}),
        ("redis://:p@h", {"username": None, "password": "p"}),
        ("rediss://h?ssl_ca_certs=/ca.pem", {"tls": True, "files": (("ssl_ca_certs", "/ca.pem"),)}),
        ("redis+unix:///run/redis.sock?db=2", {"socket": "/run/redis.sock", "db": 2, "hosts": ()}),
        ("redis+unix://:p@/run/re%20dis.sock", {"socket": "/run/re dis.sock", "password": "p"}),
        ("redis+cluster://a:1,b:2", {"cluster": True, "hosts": (("a", 1), ("b", 2))}),
        ("rediss+cluster://:p@a", {"cluster": True, "tls": True, "password": "p"}),
        ("redis://h?prefix=my.app-1&partitions=8", {"prefix": "my.app-1", "partitions": 8}),
        ("redis://h?timeout=1.5&socket_timeout=2m", {"timeout": 1.5, "socket_timeout": 120.0}),
        ("redis://h?expire_finalized=30d", {"expire_finalized": 30 * 86_400 * 1_000_000}),
        ("redis://h?expire_finalized=90", {"expire_finalized": 90 * 1_000_000}),
        ("redis://h?unsafe=1", {"unsafe": True}),
        ("redis://h", {"expire_finalized": None, "unsafe": False}),
    ],
)
def test_a_url_says_where_and_how(url, expected):
    """Each part is read, and what is not said has its default."""
    parsed = RedisUrl.parse(url)
    assert {name: getattr(parsed, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("redis://h/x", "the database is a number from 0"),
        ("redis://h/-1", "the database is a number from 0"),
        ("redis://h:port/", "is not a valid Redis URL"),
        ("redis://h:99999/", "is not a valid Redis URL"),
        ("redis://[h/", "is not a valid Redis URL"),
        ("redis://a,b/0", "several hosts are possible only for a cluster"),
        ("redis+cluster://a/1", "a cluster has no numbered databases"),
        ("redis+unix://", "the path of the socket is missing"),
        ("redis+udp://h", "is not a valid Redis URL"),
        ("redis://h?prefx=a", "an option is unknown; did you mean 'prefix'?"),
        ("redis://h?prefix={a}", "prefix has an invalid value"),
        ("redis://h?prefix=", "prefix has an invalid value"),
        ("redis://h?partitions=0", "partitions is a number from 1 to 16384"),
        ("redis://h?partitions=99999", "partitions is a number from 1 to 16384"),
        ("redis://h?partitions=many", "partitions is a number from 1 to 16384"),
        ("redis://h?timeout=soon", "timeout is a number of seconds, or 90m, 12h, 30d"),
        ("redis://h?timeout=0", "timeout is a number of seconds"),
        ("redis://h?expire_finalized=-3", "expire_finalized is a number of seconds"),
        ("redis://h?unsafe=yes", "unsafe has an invalid value"),
        ("redis://h?ssl_ca_certs=/ca.pem", "ssl_ca_certs has an invalid value"),
    ],
)
def test_a_url_that_cannot_be_read_is_an_error(url, said):
    """The message says what is wrong, how to write it, and which options there are."""
    with pytest.raises(
        StorageError, match=r"write redis://host:port/db.*prefix=trg; partitions=64"
    ) as caught:
        RedisUrl.parse(url)
    assert said in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "redis://user:secret@host:6379/0",
        "redis://:secret@host/x",
        "redis://u:se@cret@host/x",
        "rediss+cluster://:secret@a,b?what=1",
        "redis+unix://:secret@/run/redis.sock?db=z",
        "nothing://u:secret@h",
        "redis://:secret@h?Password=secret&db=1",
    ],
)
def test_a_password_is_shown_nowhere(url):
    """Neither in what is shown, nor in a repr, nor in an error."""
    try:
        parsed = RedisUrl.parse(url)
    except StorageError as error:
        said = str(error)
    else:
        said = repr(parsed) + parsed.shown
    assert "cret" not in said


@pytest.mark.parametrize(
    ("url", "exposed"),
    [
        ("redis://localhost", False),
        ("redis://127.0.0.3:1", False),
        ("redis://[::1]", False),
        ("redis+unix:///run/redis.sock", False),
        ("redis://10.0.0.1", True),
        ("redis://db.example", True),
        ("redis+cluster://localhost,db.example", True),
        ("redis://:p@db.example", False),
    ],
)
def test_a_server_on_a_network_wants_a_password(url, exposed):
    """Whoever can reach it could do anything with it."""
    assert RedisUrl.parse(url).is_exposed is exposed
