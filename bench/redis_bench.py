"""One firing that schedules one instance on Redis: beside its own scripts called bare, and as sessions grow.

*Its own scripts*: firings are recorded from a world that has a twin, and the very same commands, their
arguments ready, are sent to the twin: by redis-py, as anybody would call a script, and as bytes over a bare
socket, which is the least that any client could do. *A script that does nothing* is one round trip to the
same server.

The server is a private one on the loopback, of Valkey or, where there is none, Redis, with an append-only
file that is written once a second.
"""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

import redis

from bench.rounds import in_turns
from triggers import Triggers
from triggers.core.decisions.unit_of_work import UnitOfWork
from triggers.core.exchange import Decision
from triggers.core.state import Firing
from triggers.storages.redis.nodes import packed
from triggers.testing.servers import RedisServer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from triggers.core.exchange import DecisionRun
    from triggers.core.state import Session
    from triggers.storages.redis.nodes import Command

CONFIGURATION = {"t_import": {"after": ["ready"], "andEvery": "pageReceived", "run": "bench.NoOp"}}
KWARGS = {"responses": {"age": 36, "educ": 3, "income": 1}}

#: The second task is only there for the instances that wait.
GROWTH = {
    **CONFIGURATION,
    "t_check": {"after": ["never", "checked"], "andEvery": "checkReceived", "run": "bench.NoOp"},
}

#: Firings of one round, and rounds.
FIRINGS = 1
ROUNDS = int(os.environ.get("BENCH_ROUNDS", "1500"))

#: Instances in the session before it is measured, and unstarted ones that all wait for the same trigger.
SIZES = (10, 1_000, 100_000)
WAITING = 10_000

#: How the answer of slice.lua ends here: nothing flagged, and no level.
END = b"*0\r\n:0\r\n"

#: So many firings make a session grow by one decision, which no manager would do, and is the same in the end.
BATCH = 250


def run() -> list[tuple[str, float, str]]:
    """Measure both."""
    with RedisServer(private=True) as server:
        return [*_firing(server), *_growth(server)]


# -- against bare scripts -------------------------------------------------------------------------------


def _firing(server: RedisServer) -> list[tuple[str, float, str]]:
    recorded = _recorded(server, ROUNDS * FIRINGS)
    manager = _session(_database(server, 3), CONFIGURATION)[1]
    client = redis.Redis.from_url(server.url)
    nothing = client.script_load("#!lua flags=no-writes\nreturn 1")

    def library() -> None:
        for _ in range(FIRINGS):
            manager.fire("pageReceived", KWARGS)

    def trivial() -> None:
        for _ in range(FIRINGS):
            client.evalsha(nothing, 0)

    parts = {
        "library": library,
        "bare": _by_client(_database(server, 2), recorded),
        "bytes": _by_socket(server, 4, recorded),
        "trivial": trivial,
    }
    times = {name: seconds / FIRINGS for name, seconds in in_turns(parts, ROUNDS).items()}
    library_time = times["library"]
    return [
        ("firings per second", 1 / library_time, "1/s"),
        ("its scripts called bare, by redis-py: firings per second", 1 / times["bare"], "1/s"),
        ("its scripts as bytes over a socket: firings per second", 1 / times["bytes"], "1/s"),
        ("a script that does nothing, by redis-py: calls per second", 1 / times["trivial"], "1/s"),
        ("rate to its scripts called bare", times["bare"] / library_time, "at least 0.5"),
        ("rate to its scripts as bytes over a socket", times["bytes"] / library_time, ""),
        ("rate to one script that does nothing", times["trivial"] / library_time, ""),
    ]


def _database(server: RedisServer, number: int) -> str:
    return f"{server.url.rpartition('/')[0]}/{number}"


def _session(url: str, configuration: dict[str, Any], uid: str = "respondent-17") -> tuple[Triggers, Any]:
    triggers = Triggers(url, runner=None)
    manager = triggers.session(uid)
    manager.update_configuration(configuration)
    manager.fire("ready")
    manager.fire("pageReceived", KWARGS)
    return triggers, manager


def _recorded(server: RedisServer, count: int) -> list[list[list[Command]]]:
    """The commands of so many firings in database 1, those sent together in one list.

    Databases 2 and 4 are as database 1 was before them.
    """
    triggers, manager = _session(_database(server, 1), CONFIGURATION)
    client: Any = redis.Redis.from_url(_database(server, 1))
    for key in client.keys("*"):
        client.copy(key, key, destination_db=2)
        client.copy(key, key, destination_db=4)
    store = triggers.storage._store  # type: ignore[attr-defined]
    ask_all, recorded = store.server.ask_all, []

    def ask(commands: list[Command], until: float, **options: Any) -> Any:
        recorded.append(list(commands))
        return ask_all(commands, until, **options)

    store.server.ask_all = ask
    each = []
    for _ in range(count):
        manager.fire("pageReceived", KWARGS)
        each.append(recorded[:])
        recorded.clear()
    return each


def _by_client(url: str, recorded: list[list[list[Command]]]) -> Callable[[], None]:
    client: Any = redis.Redis.from_url(url)
    calls = iter([[[one.words[1:] for one in together] for together in each] for each in recorded])

    def loop() -> None:
        for _ in range(FIRINGS):
            for together in next(calls):
                if len(together) == 1:
                    answer = client.evalsha(*together[0])
                else:
                    pipeline = client.pipeline(transaction=False)
                    for words in together:
                        pipeline.evalsha(*words)
                    pipeline.execute()
        _check(answer)

    return loop


def _by_socket(server: RedisServer, database: int, recorded: list[list[list[Command]]]) -> Callable[[], None]:
    connection = socket.create_connection(("127.0.0.1", server.port))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for words in (("AUTH", server.password), ("SELECT", database)):
        connection.sendall(packed(words))
        connection.recv(64)
    calls: Iterator[list[tuple[bytes, bool]]] = iter(
        [[(b"".join(packed(one.words) for one in sent), len(sent) > 1) for sent in each] for each in recorded]
    )

    def loop() -> None:
        for _ in range(FIRINGS):
            for words, several in next(calls):
                connection.sendall(words)
                answer = connection.recv(65_536)
                while several and not answer.endswith(END):
                    answer += connection.recv(65_536)
        _check(answer)

    return loop


def _check(answer: bytes) -> None:
    """The twin has done what the recorded world did."""
    if b"OK" not in answer:
        message = f"the twin answers {answer!r}"
        raise AssertionError(message)


# -- growth ---------------------------------------------------------------------------------------------


def _growth(server: RedisServer) -> list[tuple[str, float, str]]:
    """Sessions of all sizes in one storage, in turns."""
    url = _database(server, 5)
    parts = {str(size): _grown(url, f"session of {size}", "pageReceived", size) for size in SIZES}
    parts["waiting"] = _grown(url, "session that waits", "checkReceived", WAITING)
    times = in_turns(parts, ROUNDS)
    figures = [(f"{size:,} instances: one firing", times[str(size)] / FIRINGS * 1e6, "µs") for size in SIZES]
    figures.append((f"{WAITING:,} waiting: one firing", times["waiting"] / FIRINGS * 1e6, "µs"))
    first, last = (times[str(size)] for size in (SIZES[0], SIZES[-1]))
    figures.append((f"{SIZES[-1]:,} instances to {SIZES[0]}", last / first, "at most 1.2"))
    figures.append((f"{WAITING:,} waiting instances to none", times["waiting"] / first, "at most 1.2"))
    return figures


def _grown(url: str, uid: str, trigger: str, size: int) -> Callable[[], None]:
    triggers, manager = _session(url, GROWTH, uid)

    def many(session: Session) -> DecisionRun:
        work = UnitOfWork(session, manager.policy)
        work.absorb((yield work.need_for(trigger)))
        for _ in range(BATCH):
            work.fire(Firing(0, trigger, '{"page":0}', 0))
        return work.done()

    for _ in range(size // BATCH):
        triggers.storage.commit(uid, Decision("fire many", many))
    for _ in range(size % BATCH):
        manager.fire(trigger, {"page": 0})

    def fire() -> None:
        for number in range(FIRINGS):
            manager.fire("pageReceived", {"page": number})

    return fire
