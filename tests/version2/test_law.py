"""The law of version 2 is kept: random sessions end alike, step by step, on every storage."""

from __future__ import annotations

import pytest

from tests.version2.played import do, expected, lines, shown, version2_tasks
from triggers import Triggers

SESSIONS = lines("version2_law.jsonl")

#: Every so many sessions are played on servers in the normal suite; `make soak` plays all.
EVERY = 10


def play_all(url, sessions):
    with Triggers(url, runner="inline", registry=version2_tasks()) as app:
        for number, session in enumerate(sessions):
            manager = app.session(f"session {number}")
            for step, operation in enumerate(session["ops"]):
                do(manager, operation)
                assert shown(manager.storage) == expected(session["after_each"][step]), (
                    number,
                    step,
                    operation,
                )


@pytest.fixture
def url(request, tmp_path):
    """The URL of an empty storage of that kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'law.db'}?synchronous=normal"
    return "memory://" if request.param == "memory" else request.getfixturevalue(f"{request.param}_url")


@pytest.mark.parametrize("url", ["memory", "sqlite"], indirect=True)
def test_every_session_goes_on_as_in_version_2(url):
    """After each operation, statuses, kwargs, results, parents and what is unresolved are those of version 2."""
    assert len(SESSIONS) == 200
    play_all(url, SESSIONS)


@pytest.mark.parametrize("url", ["postgres", "valkey"], indirect=True)
def test_sessions_on_servers_go_on_as_in_version_2(url):
    """The same for a sample of them on servers."""
    play_all(url, SESSIONS[::EVERY])


@pytest.mark.slow
@pytest.mark.parametrize("url", ["postgres", "valkey", "redis"], indirect=True)
def test_every_session_on_servers_goes_on_as_in_version_2(url):
    """The same for all of them."""
    play_all(url, SESSIONS)
