"""The world of the crash tests: one configuration in which a session does all that it can do, and who lives in it.

Whatever is done to a storage here is also written down outside of it, line by line and with one system call each,
so that a process that is killed leaves a true account of what it had done: what was going to be fired, what was
acknowledged, which runs of tasks began and which came to their end.
"""

from __future__ import annotations

import json
import logging
import os
import time
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from tests.invariants import FINALIZING, Fire
from triggers import FinalizingTriggerManager, Triggers, plugins
from triggers.core.status import Status
from triggers.exceptions import InvalidStatusError, StorageError, UnknownInstanceError, with_context
from triggers.storages.sqlite import SqliteStorage
from triggers.task import Registry, TaskContext, task

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from triggers.runners.base import Runner
    from triggers.storages.base import Storage

logging.getLogger(__name__).addHandler(logging.NullHandler())

#: Joins, a cascade, one instance for every firing, a veto, self-retry, a failure to be replayed, an end.
CONFIGURATION: dict[str, dict[str, Any]] = {
    "t_subject": {"after": ["first", "complete"], "run": "subject"},
    "t_responses": {"after": ["t_subject"], "andEvery": "page", "run": "plain"},
    "t_browser": {"after": ["t_subject", "first"], "unless": ["embedded"], "run": "plain"},
    "t_flaky": {"after": ["first", "complete"], "run": "flaky"},
    "t_failing": {"after": ["complete"], "run": "failing"},
    "t_score": {"after": ["t_subject", "t_flaky", "t_failing"], "run": "plain"},
    "t_notes": {"after": ["note"], "andEvery": "note", "run": "plain"},
    "t_known": {"after": ["subjectKnown"], "run": "plain"},
    "t_last": {"after": [FINALIZING], "run": "plain"},
}

PAGES = 3

#: A flaky task asks for so many retries.
RETRIES = 2

#: How long it waits in between.
COOLDOWN = timedelta(milliseconds=20)


class Journal:
    """Lines of JSON in a file, each written by one call, whole or not at all."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, **line: Any) -> None:
        """Add a line."""
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        try:
            os.write(handle, json.dumps(line).encode() + b"\n")
        finally:
            os.close(handle)

    def read(self) -> list[dict[str, Any]]:
        """All lines."""
        if not self._path.exists():
            return []
        return [json.loads(line) for line in self._path.read_text("utf-8").splitlines()]


def plan(uid: str, *, notes: int = 1) -> list[Fire]:
    """All that happens in a session; of the notes only the first has a key."""
    names = ["first", "complete", *(["embedded"] if is_embedded(uid) else []), *["page"] * PAGES]
    fires = [Fire(uid, name, f"{name}-{place}", f"k{place}") for place, name in enumerate(names)]
    fires.append(Fire(uid, "note", "note-0", "n0"))
    return fires + [Fire(uid, "note", f"note-{place}", None) for place in range(1, notes)]


def is_embedded(uid: str) -> bool:
    """Whether the veto fires in this session."""
    return _digit(uid) % 3 == 0


def is_stubborn(uid: str) -> bool:
    """Whether the task that fails does so again when it is replayed, so that somebody skips it."""
    return _digit(uid) % 2 == 1


def _digit(uid: str) -> int:
    return int(uid.rpartition("-")[2])


def wall_clock() -> int:
    """A clock that all processes of a machine share and nobody sets back, in microseconds."""
    return 1_800_000_000_000_000 + time.monotonic_ns() // 1000


class World:
    """One storage of sessions, the tasks that run there, and what was written down outside of it.

    Args:
        folder: where everything is.
        busy: how long a run of a task takes, in seconds, given (instance, fence); nothing at all by default.
        url: of the storage; a SQLite file in the folder by default.
        synchronous: when SQLite waits for the disk; what a killed process wrote is there either way.
    """

    def __init__(
        self,
        folder: Path,
        busy: Callable[[str, int], float] | None = None,
        *,
        url: str = "",
        synchronous: str = "normal",
    ) -> None:
        self.folder = folder
        self.path = folder / "sessions.db"
        self.url = url or f"sqlite:///{self.path}?synchronous={synchronous}"
        self.intents = Journal(folder / "intents")
        self.acks = Journal(folder / "acks")
        self.refusals = Journal(folder / "refusals")
        self.runs = Journal(folder / "runs")
        self.busy = busy
        self.registry = _tasks(self)

    @property
    def is_file(self) -> bool:
        """Whether it is a SQLite file, which goes by the clock of its reader; a server has its own."""
        return self.url.startswith("sqlite:")

    def storage(self, clock: Callable[[], int] = wall_clock, driver: Any = None) -> Storage:
        """A handle on it."""
        if self.is_file:
            return SqliteStorage(self.url, clock=clock, driver=driver)
        return plugins.storage_from_url(self.url)

    def app(
        self,
        runner: str | Runner | None = "inline",
        *,
        storage: Storage | None = None,
        clock: Callable[[], int] = wall_clock,
        **settings: Any,
    ) -> Triggers:
        """An application on it, as another process would have it."""
        return Triggers(
            storage or self.storage(clock),
            runner=runner,
            manager=FinalizingTriggerManager,
            registry=settings.pop("registry", self.registry),
            **settings,
        )

    def fire(self, app: Triggers, fire: Fire) -> None:
        """Fire, having written down the intention, and write down whether it was acknowledged or refused.

        Raises:
            StorageError: it was refused.
        """
        said = {"uid": fire.uid, "id": fire.identity, "key": fire.key}
        self.intents.write(**said)
        try:
            result = app.session(fire.uid).fire(fire.trigger, fire.kwargs, key=fire.key)
        except StorageError as error:
            self.refusals.write(**said, error=f"{type(error).__name__}: {error}")
            raise
        self.acks.write(**said, number=result.number, duplicate=result.duplicate)

    def run(self, context: TaskContext) -> dict[str, Any]:
        """What each task does: write down that a run began, be busy, write down that it came to its end."""
        self.begin(context)
        if self.busy is not None:
            time.sleep(self.busy(context.task_instance.name, context.fencing_token))
        self.runs.write(what="end", **_said(context))
        return {"fence": context.fencing_token}

    def begin(self, context: TaskContext) -> None:
        """Write down that a run began."""
        self.runs.write(what="start", **_said(context))

    def starts(self, instance: str) -> list[dict[str, Any]]:
        """The runs of an instance that began."""
        return [run for run in self.runs.read() if run["what"] == "start" and run["instance"] == instance]


def _said(context: TaskContext) -> dict[str, Any]:
    return {
        "uid": context.manager.uid,
        "instance": context.task_instance.name,
        "attempt": context.attempt,
        "fence": context.fencing_token,
        "key": context.idempotency_key,
        "pid": os.getpid(),
    }


def review(app: Triggers, uid: str, *, crashes: bool = False) -> int:
    """What a person does about failed instances; safe to be interrupted and done again.

    Args:
        app: where.
        uid: the session.
        crashes: replay also what failed because its workers were lost.

    Returns:
        How many there were.
    """
    manager = app.session(uid)
    failed = list(manager.storage.find(statuses={Status.FAILED}))
    for instance in failed:
        lost = (instance.error or {}).get("type") == "WorkerLost"
        try:
            if instance.depth == 0 or (lost and crashes):
                manager.replay_failed_instance(instance)
            else:
                manager.skip_failed_instance(instance, cascade=True, result={"fence": -1})
        except (InvalidStatusError, UnknownInstanceError):
            continue  # somebody else was faster
    return len(failed)


def expected_statuses(
    uid: str, *, notes: int = 1, embedded_first: bool | None = None
) -> dict[str, list[str]]:
    """Task → the statuses of its instances, sorted, once all has happened and everything has run.

    Whether the veto came before or after the instance was scheduled is for the firings' order to say; None leaves
    that task out.
    """
    found = {
        "t_subject": ["finished"],
        "t_responses": ["finished"] * PAGES,
        "t_flaky": ["finished", *["replayed"] * RETRIES],
        "t_failing": ["replayed", "skipped"] if is_stubborn(uid) else ["finished", "replayed"],
        "t_score": ["finished"],
        "t_notes": ["finished"] * notes,
        "t_known": ["finished"],
        "t_last": ["finished"],
    }
    if embedded_first is not None:
        found["t_browser"] = ["abandoned" if embedded_first else "finished"]
    return found


def _tasks(world: World) -> Registry:
    """The tasks of this world."""
    registry = Registry()

    @task(name="plain", registry=registry)
    def plain(context: TaskContext) -> dict[str, Any]:
        return world.run(context)

    @task(name="subject", registry=registry)
    def subject(context: TaskContext) -> dict[str, Any]:
        with context.get_logger_context({"kind": "subject"}, logger=logging.getLogger(__name__)) as logger:
            logger.warning("no given name", extra={"context": {"page": context.trigger_kwargs["first"]}})
            result = world.run(context)
            _insist(context, "subjectKnown")
        return result

    @task(name="flaky", registry=registry)
    def flaky(context: TaskContext) -> dict[str, Any]:
        result = world.run(context)
        if context.task_instance.depth < RETRIES:
            raise context.retry(ValueError("not yet"), cooldown=COOLDOWN)
        return result

    @task(name="failing", registry=registry)
    def failing(context: TaskContext) -> dict[str, Any]:
        result = world.run(context)
        uid, depth = context.manager.uid, context.task_instance.depth
        if depth == 0 or is_stubborn(uid):
            raise with_context(LookupError("no such subject"), {"depth": depth})
        return result

    return registry


def _insist(context: TaskContext, trigger: str) -> None:
    """Fire from within a task; while the storage is away, and the claim is ours, again."""
    while True:
        try:
            context.manager.fire(trigger, {"id": trigger}, key=context.idempotency_key)
        except StorageError:
            if context.lease_lost:
                raise
            time.sleep(0.05)
        else:
            return


def wait_for(what: str, condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until the condition holds, in real time.

    Raises:
        AssertionError: it did not happen for so long that it never will.
    """
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"{what} did not happen within {seconds} s"
        time.sleep(0.005)
