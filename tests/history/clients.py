"""Clients of one storage, in several threads of several processes, each of which writes down what it asked and got.

There is one clock for all of them: it says when a client asked, when it was answered, and, as the clock of the storage,
when in between the commit was made. For a file it is the system's monotonic one; a server on this machine shows the time
of the day.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from tests.crash.processes import begin, end
from triggers import plugins
from triggers.core.status import Status
from triggers.core.terms import AttemptReport, Policy
from triggers.storages.sqlite import SqliteStorage
from triggers.testing.conformance.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from triggers.storages.base import Storage

SESSIONS = ("one", "two")
TRIGGERS = ("a", "b", "c", "d")

#: Idempotency keys; few, so that several clients use the same at the same time.
KEYS = (None, None, "k1", "k2", "k3")

CONFIGURATION = {
    "t_join": {"after": ["a", "b"], "run": "x"},
    "t_every": {"andEvery": "c", "run": "x"},
    "t_unless": {"after": ["b", "c"], "unless": ["d"], "run": "x"},
    "t_any": {"after": [{"any": ["t_join", "d"]}], "andEvery": "t_every", "run": "x"},
}


def now() -> int:
    """The time that all clients of a file share, in microseconds."""
    return time.monotonic_ns() // 1_000


def time_of_day() -> int:
    """The time that a server on this machine shows, in microseconds."""
    return time.time_ns() // 1_000


def clock_of(url: str) -> Callable[[], int]:
    """The clock that all clients of a storage share, and the storage goes by."""
    return now if url.startswith("sqlite:") else time_of_day


@dataclass(slots=True)
class Call:
    """One call of one client.

    Attributes:
        client: who asked.
        op: what for: fire, claim, finish, fail, release, read or count.
        uid: in which session.
        given: the arguments.
        invoked: when it asked.
        returned: when it was answered.
        at: when the commit was made, 0 for a read.
        result: the answer.
        error: what was raised instead, "" if nothing.
    """

    client: str
    op: str
    uid: str
    given: dict[str, Any] = field(default_factory=dict)
    invoked: int = 0
    returned: int = 0
    at: int = 0
    result: Any = None
    error: str = ""


class Client:
    """A client with a mind of its own.

    Args:
        name: who it is.
        storage: what it asks.
        seed: decides what it does.
        clock: the storage's.
        sessions: in which of them.
    """

    def __init__(
        self,
        name: str,
        storage: Storage,
        seed: int,
        clock: Callable[[], int] = now,
        sessions: Sequence[str] = SESSIONS,
    ) -> None:
        self.name = name
        self.calls: list[Call] = []
        self._storage = storage
        self._clock = clock
        self._sessions = sessions
        self._dice = random.Random(seed)
        self._held: list[tuple[str, AttemptReport]] = []

    def act(self) -> None:
        """Do one thing."""
        uid = self._dice.choice(self._sessions)
        steps = Steps(self._storage, uid, Policy())
        name = self._dice.choices(("fire", "claim", "end", "read", "count"), (6, 8, 7, 4, 2))[0]
        getattr(self, f"_{name}")(steps)

    @contextmanager
    def _call(self, op: str, steps: Steps, **given: Any) -> Iterator[Call]:
        call = Call(self.name, op, steps.uid, given, invoked=self._clock())
        try:
            yield call
        except Exception as error:  # noqa: BLE001 - whatever it is, the checker is to see it
            call.error = f"{type(error).__name__}: {error}"
        call.returned = self._clock()
        self.calls.append(call)

    def _fire(self, steps: Steps) -> None:
        trigger, key = self._dice.choice(TRIGGERS), self._dice.choice(KEYS)
        kwargs = {"id": key or f"{self.name}-{len(self.calls)}"}
        with self._call("fire", steps, trigger=trigger, kwargs=kwargs, key=key) as call:
            changes = steps.fire(trigger, kwargs, key)
            call.at = changes.session.now
            number = (changes.duplicate_of or changes.fired[0]).number
            scheduled = sorted(instance.name for instance in changes.scheduled())
            call.result = {
                "number": number,
                "duplicate": changes.duplicate_of is not None,
                "scheduled": scheduled,
            }

    def _claim(self, steps: Steps) -> None:
        found = steps.storage.reader.instances(steps.uid, statuses={Status.SCHEDULED}, limit=5)
        found = found or steps.storage.reader.instances(steps.uid, statuses={Status.RUNNING}, limit=5)
        if not found:
            return
        name = self._dice.choice(found).name
        with self._call("claim", steps, name=name) as call:
            changes = steps.claim(name, f"{self.name}-{len(self.calls)}")
            call.at = changes.session.now
            claimed = changes.claimed
            call.result = None if claimed is None else claimed.fence
            if claimed is not None:
                attempt = AttemptReport(claimed.task, claimed.number, claimed.fence, claimed.attempt)
                self._held.append((steps.uid, attempt))

    def _end(self, steps: Steps) -> None:
        """End an attempt, or end again what has ended: that must be refused."""
        held = [attempt for uid, attempt in self._held if uid == steps.uid]
        if not held:
            return
        attempt = self._dice.choice(held)
        op = self._dice.choices(("finish", "fail", "release"), (5, 1, 2))[0]
        with self._call(op, steps, name=f"{attempt.task}#{attempt.number}", fence=attempt.fence) as call:
            end_of = {"finish": steps.finish, "fail": steps.fail, "release": steps.release}
            changes = end_of[op](attempt)
            call.at = changes.session.now
            number = changes.fired[0].number if changes.fired else None
            scheduled = sorted(instance.name for instance in changes.scheduled())
            call.result = {"accepted": not changes.refused, "number": number, "scheduled": scheduled}

    def _read(self, steps: Steps) -> None:
        """Look at an instance that somebody holds or held."""
        held = [attempt for uid, attempt in self._held if uid == steps.uid]
        if not held:
            return
        attempt = self._dice.choice(held)
        with self._call("read", steps, name=f"{attempt.task}#{attempt.number}") as call:
            instance = steps.storage.reader.instance(steps.uid, attempt.task, attempt.number)
            call.result = None if instance is None else [instance.status.value, instance.fence]

    def _count(self, steps: Steps) -> None:
        """Look how many firings there are."""
        with self._call("count", steps) as call:
            call.result = steps.head.firings


def url_of(path: Path) -> str:
    """The URL of a file, as these clients open it."""
    return f"sqlite:///{path}?synchronous=normal&busy_timeout=60"


def open_storage(where: Path | str, driver: Any = None) -> Storage:
    """A handle on a file or, by its URL, a server, by the clock that all clients share."""
    url = where if isinstance(where, str) else url_of(where)
    if url.startswith("sqlite:"):
        return SqliteStorage(url, clock=now, driver=driver)
    return plugins.storage_from_url(url)


def play(
    path: Path,
    seed: int,
    *,
    url: str = "",
    processes: int = 2,
    threads: int = 3,
    acts: int = 80,
    sessions: Sequence[str] = SESSIONS,
    until: Path | None = None,
) -> list[Call]:
    """Let clients loose on a storage; returns what all of them wrote down.

    Args:
        path: of the file, which is made; for another storage, beside which its clients take notes.
        seed: decides what each client does, not when.
        url: of a storage that is no such file.
        processes: how many processes.
        threads: how many clients in each of them.
        acts: how many things each client does.
        sessions: where they do it.
        until: they go on until this file is there.
    """
    url = url or url_of(path)
    storage = open_storage(url)
    for uid in sessions:
        Steps(storage, uid).configure(CONFIGURATION)
    storage.close()
    notes = [path.with_suffix(f".{number}.json") for number in range(processes)]
    first = seed * 1_000
    gate = os.pipe()
    alike = partial(_play_here, url, gate, threads=threads, acts=acts, sessions=sessions, until=until)
    children = [begin(partial(alike, note, seed=first + number * 100)) for number, note in enumerate(notes)]
    for side in gate:
        os.close(side)
    assert [end(child) for child in children] == [0] * processes
    return [Call(**call) for note in notes for call in json.loads(note.read_text("utf-8"))]


def _play_here(
    url: str,
    gate: tuple[int, int],
    note: Path,
    *,
    seed: int,
    threads: int,
    acts: int,
    sessions: Sequence[str],
    until: Path | None,
) -> None:
    """What one process does, once all of them are there."""
    storage, clock = open_storage(url), clock_of(url)
    clients = [
        Client(f"{note.stem}-{number}", storage, seed + number, clock, sessions) for number in range(threads)
    ]
    waiting, starting = gate
    os.close(starting)
    os.read(waiting, 1)  # ends when nobody holds the other end any more
    together = threading.Barrier(threads)

    def run(client: Client) -> None:
        together.wait()
        done = 0
        while done < acts or (until is not None and not until.exists()):
            client.act()
            done += 1

    running = [threading.Thread(target=run, args=(client,)) for client in clients]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join()
    storage.close()
    note.write_text(json.dumps([asdict(call) for client in clients for call in client.calls]), "utf-8")
