"""Whatever is given as the URL of a storage: it opens one, or is refused in words."""

from __future__ import annotations

import warnings
from contextlib import chdir, suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from triggers import Triggers
from triggers.exceptions import PluginError, StorageError

# fmt: off
JUNK = (
    "", " ", ":", "://", "//", "/", "sqlite", "sqlite:", "sqlite:/", "sqlite://", "sqlite:///",
    "sqlite:////", "SQLITE:///a.db", "sqlite://host/a.db", "sqlite:///:memory:",
    "sqlite:///file::memory:?cache=shared", "sqlite:///.", "sqlite:///..", "sqlite:////",
    "sqlite:///no/such/folder/a.db", "sqlite:////dev/null", "sqlite:////dev/full",
    "sqlite:////proc/self/mem", "sqlite:////etc", "sqlite:///a.db?", "sqlite:///a.db?x",
    "sqlite:///a.db?driver", "sqlite:///a.db?driver=", "sqlite:///a.db?driver=os",
    "sqlite:///a.db?synchronous=off", "sqlite:///a.db?synchronous=FULL;DROP",
    "sqlite:///a.db?busy_timeout=nan", "sqlite:///a.db?busy_timeout=inf", "sqlite:///a.db?busy_timeout=-1",
    "sqlite:///a.db?busy_timeout=1e400", "sqlite:///a.db?busy_timeout=1e300",
    "sqlite:///a.db?busy_timeout=10000000000", "sqlite:///a.db?busy_timeout=0",
    "sqlite:///a.db?busy_timeout=1_0", "sqlite:///a.db?busy_timeout=\u0661", "sqlite:///a.db?path=b.db",
    "sqlite:///a.db?driver=auto&driver=sqlite3", "sqlite:///%00.db", "sqlite:///a\0b.db",
    "sqlite:///%ff.db", "sqlite:///\ud800.db", "sqlite:///%ed%a0%80.db", "sqlite:///" + "x" * 300,
    "sqlite:///" + "x/" * 5_000, "sqlite:///a.db#b", "sqlite:///a b.db", "sqlite:///%2e%2e%2f",
    "sqlite:///a.db\n", "memory", "memory:", "memory://x", "memory:///?a=b", "mysql://a",
    "postgresql://u:secret@h/db", "redis://:secret@h?timeout=0.1", "memroy://", "http://[", "http://[::1",
    "sqlite://[", "sqlite://[::1]/a", "a b://c", "é://a", "\0://a", "\ud800://", "-://a", "1://a",
    "x" * 100_000 + "://a",
)
# fmt: on


def opened(url: str) -> bool:
    """Whether a storage was opened, and can be used; whatever else happens but a refusal fails the test."""
    with warnings.catch_warnings(), suppress(PluginError, StorageError):
        warnings.simplefilter(
            "ignore", RuntimeWarning
        )  # of a SQLite that is not safe, where one is asked for
        with Triggers(url, runner=None) as triggers:
            triggers.session("one").fire("a")
            return True
    return False


@pytest.fixture
def elsewhere(tmp_path, monkeypatch):
    """Files that the URLs name are made in a folder of the test's."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("url", JUNK, ids=range(len(JUNK)))
def test_an_odd_url_opens_a_storage_or_is_refused(url, elsewhere):
    """Only PluginError and StorageError come out, and what is refused leaves no file behind."""
    if not opened(url):
        assert {path.name for path in elsewhere.iterdir()} <= {"a.db", "a.db-wal", "a.db-shm"}


@given(st.text(max_size=20), st.text(max_size=20))
@settings(max_examples=100)
def test_any_url_at_all_opens_a_storage_or_is_refused(tmp_path_factory, path, query):
    """The same for any text as the path, the options or the whole of a URL."""
    with chdir(tmp_path_factory.getbasetemp()):
        opened(path)
        opened(f"{path}://{query}")
        if "/" not in path and "%2f" not in path.lower():
            opened(f"sqlite:///{path}?{query}")


@pytest.mark.parametrize("url", ["postgresql://user:hunter2@host/db", "redis://:hunter2@host?timeout=0.1"])
def test_a_refusal_tells_no_password(url):
    """What stands before the @ of a URL stays out of messages and logs."""
    with pytest.raises((PluginError, StorageError)) as caught:
        Triggers(url, runner=None)
    assert "hunter2" not in str(caught.value)
