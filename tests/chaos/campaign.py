"""The storm: whoever fires, runs, sweeps and reviews is killed, and what they stand on fails, until enough have died.

As a program: ``python -m tests.chaos.campaign --help``. One process, which has no thread and no connection, starts
the servers and forks all others; it prints what it did, and what another process then found, as a line of JSON.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import faulthandler
import importlib
import json
import logging
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from tests.chaos.members import BACKOFF, LEASE, NOTES, PRODUCERS, Members, shorten_backoff
from tests.chaos.network import Network
from tests.crash.processes import KILLED, begin, end, in_child
from triggers import plugins
from triggers.testing.servers import MissingServerError, PostgresServer, RabbitServer, RedisServer, Server
from triggers.testing.servers.watchdog import family

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT: Final = Path(__file__).parents[2]

#: More sessions are begun, so many at a time, as long as processes are still to be killed.
STRIDE: Final = 16

#: Everyone who lives here; each is born again when he has died.
ROLES: Final = (
    *(f"producer {place}" for place in range(PRODUCERS)),
    "worker 0",
    "worker 1",
    "sweep 0",
    "sweep 1",
    "reviewer",
)

#: The pause between two strikes, in seconds: Celery workers need a while to come to life.
STRIKES: Final = (0.01, 0.08)
CELERY_STRIKES: Final = (0.02, 0.25)

#: Who is killed, and how often.
WEIGHTS: Final = {"producer": 6, "worker": 1, "child of a worker": 4, "sweep": 3, "reviewer": 2}

#: At this signal, which nobody else uses, a process writes down where its threads are.
TELL: Final = signal.SIGPWR if sys.platform == "linux" else signal.SIGUSR2

_PR_SET_CHILD_SUBREAPER: Final = 36

_log = logging.getLogger(__name__)


def storage_server(kind: str) -> Server | None:
    """A server of one's own for the sessions; None for a SQLite file."""
    if kind == "postgresql":
        return PostgresServer(private=True, fsync=True, settings={"max_connections": 300})
    if kind in {"redis", "valkey"}:
        # What was acknowledged is in the kernel's hands, at the latest: a server that is killed loses nothing.
        return RedisServer(kind=kind, private=True, settings={"appendfsync": "always"})  # type: ignore[arg-type]
    return None


def broker_server(kind: str) -> Server | None:
    """A broker of one's own; None for workers that are threads."""
    if kind == "rabbitmq":
        return RabbitServer(private=True)
    return RedisServer(kind="valkey", private=True) if kind == "redis" else None


class Campaign:
    """All of it.

    Args:
        folder: for the files.
        storage: the server for the sessions, None for a SQLite file.
        broker: the broker, None for workers that are threads.
        seed: decides who is killed and when.
    """

    def __init__(self, folder: Path, storage: Server | None, broker: Server | None, seed: int) -> None:
        self.folder = folder
        self.storage = storage
        self.broker = broker
        self.dice = random.Random(seed)
        self.network = Network(_over_tcp(storage)) if storage else None
        self.members = Members(
            folder,
            storage.url if storage else "",
            self.network.url if self.network else "",
            broker.url if broker else "",
            seed,
        )
        self.opened = STRIDE
        self.lives = 0
        self.living: dict[int, str] = {}
        self.idle: set[str] = set()
        self.paused: dict[int, float] = {}
        self.kills: Counter[str] = Counter()
        self.events: Counter[str] = Counter()
        self.pauses = 0
        self.stops = 0

    # -- who lives here -------------------------------------------------------------------------------------

    def bear(self, role: str) -> None:
        """Let a process of that role begin to live."""
        self.lives += 1
        kind, _, place = role.partition(" ")
        members, life = self.members, self.lives
        lives: dict[str, Callable[[], None]] = {
            "producer": partial(members.produce, int(place or 0), self.opened, life),
            "worker": partial(members.work, life),
            "sweep": partial(members.sweep, life),
            "reviewer": partial(members.review, life),
        }
        self.living[begin(lives[kind])] = role

    def bury(self) -> None:
        """A producer that has fired everything ends by itself, as does who is told to; others are killed, or die by fate."""
        with contextlib.suppress(ChildProcessError):
            while found := os.waitpid(-1, os.WNOHANG)[0:2]:
                pid, status = found
                if not pid:
                    return
                self.paused.pop(pid, None)
                role = self.living.pop(pid, "")
                code = os.waitstatus_to_exitcode(status)
                if role.startswith("producer") and code == 0:
                    self.idle.add(role)
                elif role and code not in {0, KILLED}:
                    self.events[f"{role.partition(' ')[0]} ended with {code}"] += 1

    def people(self) -> dict[int, str]:
        """Everyone who can be killed now: the children of workers, too."""
        found = {pid: role.partition(" ")[0] for pid, role in self.living.items()}
        for pid, kind in list(found.items()):
            if kind == "worker" and self.broker:
                found |= dict.fromkeys(family(pid)[1:], "child of a worker")
        return found

    # -- who kills them -------------------------------------------------------------------------------------

    def strike(self) -> None:
        """Kill or pause somebody, or tell him to stop."""
        people = self.people()
        kinds = sorted(set(people.values()))
        (kind,) = self.dice.choices(kinds, [WEIGHTS[kind] for kind in kinds])
        pid = self.dice.choice([pid for pid, its in people.items() if its == kind])
        if pid in self.paused:
            return
        if kind == "worker" and self.dice.random() < 0.1:
            self.stops += 1
            os.kill(pid, signal.SIGTERM)
        elif _is_alive(pid):
            os.kill(pid, signal.SIGKILL)
            self.kills[kind] += 1

    def pause_someone(self) -> None:
        """Pause somebody with a run in hand for longer than its lease, if there is such a one; wake others."""
        now = time.monotonic()
        for pid in [pid for pid, until in self.paused.items() if until <= now]:
            del self.paused[pid]
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)
        if len(self.paused) < 2 and self.dice.random() < 0.2:
            victims = [pid for pid in self.at_work() if pid not in self.paused and _is_alive(pid)]
            if victims:
                pid = self.dice.choice(sorted(victims))
                os.kill(pid, signal.SIGSTOP)
                self.paused[pid] = now + LEASE * self.dice.uniform(1.4, 2.2)
                self.pauses += 1

    def at_work(self) -> set[int]:
        """Those who have a run in hand."""
        own = self.people()
        runs: Counter[int] = Counter()
        for run in self.members.world.runs.read()[-500:]:
            runs[run["pid"]] += 1 if run["what"] == "start" else -1
        return {pid for pid, count in runs.items() if count > 0 and pid in own}

    def deaths(self) -> int:
        """How many have died so far."""
        return self.kills.total() + len(self.members.deaths.read())

    # -- what they stand on ---------------------------------------------------------------------------------

    def misfortunes(self) -> list[Callable[[], None]]:
        """What can happen to the servers and the network."""
        found: list[Callable[[], None]] = []
        if self.storage:
            found += [self.restart_storage, self.lose_network, self.pause_storage, self.cut_network]
        if self.broker:
            found += [self.restart_broker, self.send_garbage, self.pause_broker]
        return found

    def restart_storage(self) -> None:
        """The storage falls, and is up again a moment later."""
        assert self.storage
        self.storage.stop(immediate=True)
        time.sleep(self.dice.uniform(0, 0.5))
        self.storage.start()

    def pause_storage(self) -> None:
        """The storage does not answer for a while."""
        assert self.storage
        self.storage.pause()
        time.sleep(LEASE * self.dice.uniform(0.3, 1.5))
        self.storage.resume()

    def lose_network(self) -> None:
        """Nothing passes between the workers and the storage, for longer than a lease."""
        assert self.network
        self.network.hold()
        time.sleep(LEASE * self.dice.uniform(1.3, 2))
        if self.dice.random() < 0.5:
            self.network.cut()
        self.network.release()

    def cut_network(self) -> None:
        """Every connection between the workers and the storage breaks."""
        assert self.network
        self.network.cut()

    def restart_broker(self) -> None:
        """The broker falls, and is up again a moment later."""
        assert self.broker
        self.broker.stop(immediate=True)
        time.sleep(self.dice.uniform(0, 0.5))
        self.broker.start()

    def pause_broker(self) -> None:
        """The broker does not answer for a while."""
        assert self.broker
        self.broker.pause()
        time.sleep(self.dice.uniform(0.5, 1.5))
        self.broker.resume()

    def send_garbage(self) -> None:
        """The queue gets what nobody can use."""
        queue = self.members.queue()
        assert queue
        assert in_child(queue.send_garbage) == 0

    # -- a whole storm --------------------------------------------------------------------------------------

    def run(self, kills: int, sessions: int, misfortunes: int) -> dict[str, object]:
        """Kill as many as wanted, let the others finish; what was done, in numbers."""
        began = time.monotonic()
        if self.broker:
            importlib.import_module("tests.chaos.queue")  # once here, not in each of a thousand children
        plugins.load(plugins.STORAGES, urlsplit(self.members.world.url).scheme)
        assert in_child(self.members.prepare) == 0
        waiting = self.misfortunes()
        happened, every = 0, kills / (misfortunes + 1)
        wanted = misfortunes if waiting else 0
        while (dead := self.deaths()) < kills or self.opened < sessions or happened < wanted:
            self.bury()
            if len(self.idle) == PRODUCERS and self.opened < max(sessions, STRIDE) * dead / kills + STRIDE:
                self.opened += STRIDE
                self.idle.clear()
            for role in ROLES:
                if role not in self.living.values() and role not in self.idle:
                    self.bear(role)
            time.sleep(self.dice.uniform(*(CELERY_STRIKES if self.broker else STRIKES)))
            self.pause_someone()
            self.strike()
            if happened < wanted and dead > every * (happened + 1):
                misfortune = waiting[happened % len(waiting)]
                _log.info("%s", misfortune.__name__)
                misfortune()
                happened += 1
                self.events[misfortune.__name__.replace("_", " ")] += 1
        self.end_all()
        seconds = time.monotonic() - began
        runs = sum(run["what"] == "end" for run in self.members.world.runs.read())
        self.finish()
        return {
            "kills": self.deaths(),
            "by role": dict(self.kills),
            "at a point": dict(sorted(Counter(each["point"] for each in self.members.deaths.read()).items())),
            "refused": len(self.members.world.refusals.read()),
            "runs in the storm": runs,
            "pauses": self.pauses,
            "stops": self.stops,
            "events": dict(self.events),
            "opened": self.opened,
            "lives": self.lives,
            "seconds": round(seconds, 1),
            "with the rest": round(time.monotonic() - began, 1),
        }

    def end_all(self) -> None:
        """Kill all that live, their children and orphans, too."""
        for pid in self.living:
            for each in reversed(family(pid)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
        self.kills.update(role.partition(" ")[0] for role in self.living.values())
        for pid in list(self.living):
            end(pid)
        self.living.clear()
        self.paused.clear()
        for pid in self.orphans():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def orphans(self) -> list[int]:
        """Children of dead workers; on Linux they come to this process."""
        own = {os.getpid(), *self.servers()}
        return [pid for pid in family(os.getpid()) if pid not in own]

    def servers(self) -> Iterator[int]:
        """Processes that are not to be killed."""
        for server in (self.storage, self.broker):
            if server:
                yield from server.processes
        if self.network:
            yield self.network.pid

    def finish(self) -> None:
        """Let all be done that is left."""
        worker = begin(partial(self.members.work, 0, doomed=False)) if self.broker else 0
        try:
            done = in_child(partial(self.members.finish, self.opened)) == 0
            assert done, f"what was left is not finished; where the worker stands: {self._stacks(worker)}"
        finally:
            if worker:
                for pid in reversed(family(worker)):
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                end(worker)

    def _stacks(self, worker: int) -> Path:
        """Where each thread of a worker and its children is now, in a file."""
        for pid in family(worker) if worker else ():
            os.kill(pid, TELL)
        time.sleep(1)
        return self.folder / "stacks"

    def check(self) -> dict[str, Any]:
        """What another process finds, through a connection of its own."""
        command = [
            sys.executable,
            "-m",
            "tests.crash.checker",
            str(self.folder),
            str(NOTES),
            "",
            str(BACKOFF),
        ]
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [*command, self.members.url],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr[-4000:]
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found


def _over_tcp(server: Server) -> str:
    return server.tcp_url if isinstance(server, PostgresServer) else server.url


def _is_alive(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat", "rb") as stat:  # noqa: PTH123 - many times a second
            return stat.read().rpartition(b")")[2].split()[0] not in {b"Z", b"X"}
    except OSError:
        return False


def campaign(
    folder: Path, storage: str, broker: str, *, kills: int, sessions: int, misfortunes: int, seed: int
) -> dict[str, Any]:
    """Go through a whole campaign in this process, which has no threads; what was done, and found."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    logging.basicConfig(
        filename=folder / "errors.log",
        level=logging.INFO,
        format="%(asctime)s %(process)d %(levelname)s %(name)s %(message)s",
    )
    shorten_backoff()
    stacks = (folder / "stacks").open("w")
    faulthandler.register(TELL, file=stacks, all_threads=True)
    with contextlib.ExitStack() as stack:
        servers = [
            server and stack.enter_context(server)
            for server in (storage_server(storage), broker_server(broker))
        ]
        storm = Campaign(folder, *servers, seed)
        if storm.network:
            stack.enter_context(storm.network)
        stack.callback(storm.end_all)
        done = storm.run(kills, sessions, misfortunes)
        return {"storage": storage, "broker": broker or "threads", **done, "found": storm.check()}


def main() -> None:
    """Print what was done and found, as a line of JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--storage", choices=["sqlite", "postgresql", "redis", "valkey"], default="sqlite")
    parser.add_argument(
        "--broker", choices=["", "redis", "rabbitmq"], default="", help="of the Celery workers; none: threads"
    )
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--sessions", type=int, default=500)
    parser.add_argument("--misfortunes", type=int, default=0, help="of servers and network")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="for the files; a temporary one by default")
    options = vars(parser.parse_args())
    with contextlib.ExitStack() as stack:
        folder = options.pop("folder") or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        try:
            print(json.dumps(campaign(folder, options.pop("storage"), options.pop("broker"), **options)))  # noqa: T201
        except MissingServerError as error:
            print(json.dumps({"missing": str(error)}))  # noqa: T201


if __name__ == "__main__":
    main()
