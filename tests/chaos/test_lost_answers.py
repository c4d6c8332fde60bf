"""The connection breaks while the storage is told to commit: what was answered is true, and nothing is done twice."""

from __future__ import annotations

import json
import time
from collections import Counter
from contextlib import closing
from dataclasses import asdict
from typing import TYPE_CHECKING

import pytest

from tests.chaos.campaign import storage_server
from tests.chaos.network import Network
from tests.conftest import running
from tests.crash.processes import begin, end
from tests.crash.world import wait_for
from tests.history.checker import check
from tests.history.clients import Call, open_storage, play
from triggers import plugins
from triggers.core import decisions
from triggers.core.state import Firing
from triggers.core.terms import Policy
from triggers.exceptions import StorageError
from triggers.storages.redis import store as redis_store
from triggers.storages.redis.lua import SERVER_CLOCK
from triggers.testing.conformance.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

#: How a connection is cut: the bytes, who sends them, and whether they still arrive.
Cut = tuple[str, str, bool]


#: Between two cuts, so that not the same commit is cut off each time that it is tried again, in seconds.
PAUSE = 0.03


def cuts_of(url: str) -> list[Cut]:
    """The order to commit is cut off, after it has arrived or before; and, where it can be told, its confirmation."""
    if url.startswith("redis:"):
        commit = redis_store.script("commit", SERVER_CLOCK).sha
        return [(commit, "client", True), (commit, "client", False)]
    return [("COMMIT\0", "server", False), ("COMMIT\0", "client", True), ("COMMIT\0", "client", False)]


def readable(url: str) -> str:
    """The URL, so that each statement is sent with its whole text."""
    return url if url.startswith("redis:") else f"{url}&prepare=off"


@pytest.fixture
def cuts(url) -> list[Cut]:
    """The ways in which a commit's answer gets lost."""
    return cuts_of(url)


@pytest.fixture
def network(url) -> Iterator[Network]:
    """A network before that place."""
    with Network(readable(url)) as found:
        yield found


def clients(url: str, note: Path, until: Path) -> int:
    """Let clients loose in a process of its own, until the file is there; its id. In the end the note has what they were told."""

    def run() -> None:
        calls = play(note.with_suffix(".notes"), 3, url=url, processes=2, threads=2, acts=30, until=until)
        note.write_text(json.dumps([asdict(call) for call in calls]), "utf-8")

    return begin(run)


@pytest.mark.parametrize("wanted", [20, pytest.param(200, marks=pytest.mark.slow)])
def test_whatever_answer_is_lost_clients_are_told_what_can_be_true(network, cuts, url, tmp_path, wanted):
    """Commits of several clients lose their answers, one after the other: each was made once, and says so."""
    note, enough = tmp_path / "calls.json", tmp_path / "enough"
    playing = clients(network.url, note, enough)
    for number in range(wanted):
        pattern, who, arrives = cuts[number % len(cuts)]
        network.cut_after(pattern, who, deliver=arrives)
        wait_for("a commit", lambda number=number: network.made() > number)
        time.sleep(PAUSE)
    enough.touch()
    assert end(playing) == 0
    calls = [Call(**call) for call in json.loads(note.read_text("utf-8"))]
    with closing(open_storage(url)) as storage:
        assert check(calls, storage, one_lock=False) == []
    kinds = Counter(call.op for call in calls)
    print(f"{network.made()} commits cut off, {dict(kinds)}")  # noqa: T201
    assert network.made() == wanted
    assert min(kinds[kind] for kind in ("fire", "claim", "finish")) > 0


def test_a_firing_whose_answer_is_lost_is_stored_once_or_was_refused(network, cuts, url):
    """One firing after the other, without a key, loses its answer, in each of the ways: it returned, and is there once."""
    with closing(plugins.storage_from_url(network.url)) as storage, closing(open_storage(url)) as beside:
        steps, told = Steps(storage, "one"), []
        steps.fire("begin")
        for n in range(4 * len(cuts)):
            pattern, who, arrives = cuts[n % len(cuts)]
            before = network.made()
            network.cut_after(pattern, who, deliver=arrives)
            told.append((steps.fire("go", {"n": n}).fired[0].number, {"n": n}))
            assert network.made() == before + 1
        stored = [firing for firing in Steps(beside, "one").firings() if firing.trigger == "go"]
        assert [(firing.number, json.loads(firing.kwargs)) for firing in stored] == told


def test_where_nobody_can_tell_the_error_says_so(network, cuts, url):
    """The answer is lost and the server stays away: the error does not claim that nothing was changed."""
    pattern, who, arrives = cuts[0]
    greeting = "AUTH" if url.startswith("redis:") else "user\0"
    with closing(plugins.storage_from_url(network.url)) as storage, closing(open_storage(url)) as beside:
        Steps(storage, "one").fire("begin")
        network.cut_after(greeting, "client", 10_000, deliver=False)  # nobody comes in any more
        network.cut_after(pattern, who, deliver=arrives)
        firing = Firing(0, "go", "{}", 0)
        with pytest.raises(StorageError) as error:
            storage.commit("one", decisions.fire(Policy(), firing), timeout=1.5)
        said = str(error.value)
        assert "nothing was changed" not in said
        assert "look at the session before" in said
        assert [each.trigger for each in Steps(beside, "one").firings()] == ["begin", "go"]


@pytest.fixture(params=["postgresql", "valkey"])
def own_server(request):
    """A server that may fall."""
    server = storage_server(request.param)
    assert server
    yield from running(server)


@pytest.mark.parametrize("falls", [2, pytest.param(40, marks=pytest.mark.slow)])
def test_whenever_the_server_falls_clients_are_told_what_can_be_true(own_server, tmp_path, falls):
    """The server falls under its clients and is up again, several times: what they are told is true all the same."""
    note, enough = tmp_path / "calls.json", tmp_path / "enough"
    playing = clients(own_server.url, note, enough)
    for _ in range(falls):
        time.sleep(PAUSE)
        own_server.stop(immediate=True)
        own_server.start()
        with closing(open_storage(own_server.url)) as storage:
            before = Steps(storage, "one").firings()
            wait_for("a firing", lambda before=before: len(Steps(storage, "one").firings()) > len(before))
    enough.touch()
    assert end(playing) == 0
    calls = [Call(**call) for call in json.loads(note.read_text("utf-8"))]
    with closing(open_storage(own_server.url)) as storage:
        assert check(calls, storage, one_lock=False) == []
    print(f"{falls} falls, {len(calls)} calls")  # noqa: T201
