"""What the tests that kill, stall and reorder processes share: an occurrence that is fired, and what must hold at the end.

They differ in how they know what was done from outside (journals of processes that are killed, the ledger of a
simulation, the calls of clients). What they must find in the storage is the same, and is checked here.
"""

from __future__ import annotations

from collections import defaultdict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from triggers.core.status import Status
from triggers.core.values import decode
from triggers.testing.conformance.machine import shown
from triggers.testing.conformance.model import Model
from triggers.testing.conformance.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator

    from triggers.core.state import Firing, Instance, Session
    from triggers.storages.base import Storage, StoredRecord

#: The finalizing trigger of the sessions in these tests.
FINALIZING = "sessionFinalized"


@dataclass(frozen=True, slots=True)
class Fire:
    """Something that happens once in the outside world, and is fired until the firing is acknowledged.

    Attributes:
        identity: tells it from everything else that happens in the session, with or without a key.
    """

    uid: str
    trigger: str
    identity: str | int
    key: str | None

    @property
    def kwargs(self) -> dict[str, Any]:
        """The kwargs of the firing. They contain the identity, so that the firing can be found in the storage."""
        return {"id": self.identity}


@dataclass(slots=True)
class StoredSession:
    """Everything that a storage shows of one session."""

    steps: Steps
    head: Session
    instances: list[Instance]
    firings: list[Firing]

    @property
    def uid(self) -> str:
        """The UID of the session."""
        return self.head.uid

    @property
    def configuration(self) -> dict[str, Any]:
        """The rules of the session as they are stored."""
        return self.head.rules.configuration

    def records(self, page: int = 500) -> Iterator[StoredRecord]:
        """All records of the session's log, in the order of their cursors."""
        cursor = 0
        while found := self.steps.storage.reader.logs(self.uid, after=cursor, limit=page):
            yield from found
            cursor = found[-1].cursor


def stored_sessions(storage: Storage) -> Iterator[StoredSession]:
    """Everything that a storage shows, session by session."""
    after = ""
    while page := storage.reader.sessions(after):
        for head in page:
            steps = Steps(storage, head.uid)
            yield StoredSession(steps, head, steps.instances(), steps.firings())
        after = page[-1].uid


def snapshot(source: Steps | Model) -> dict[str, Any]:
    """What a storage or a model shows of a session, without the texts of errors, which only the storage has."""
    found = source.snapshot() if isinstance(source, Model) else shown(source)
    for instance in found["instances"].values():
        instance["error"] = instance["status"] == Status.FAILED
    return found


def differences(found: dict[str, Any], expected: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Part of a snapshot → what was found and what was expected, for each part in which they differ."""
    return {part: (found[part], wanted) for part, wanted in expected.items() if found[part] != wanted}


def problems_of_firings(
    sessions: Iterable[StoredSession],
    acknowledged: Iterable[tuple[str, str | int, int]],
    intended: Collection[tuple[str, str | int]],
) -> Iterator[str]:
    """What was acknowledged is stored under that number; nothing is stored twice, or was never fired.

    Args:
        sessions: all sessions of the storage.
        acknowledged: UID, identity and number of each acknowledgment.
        intended: UID and identity of everything that somebody began to fire.
    """
    numbers = fired_numbers(sessions)
    for uid, identity, number in acknowledged:
        stored = numbers.get((uid, identity), [])
        if stored != [number]:
            yield f"{uid}: {identity} was acknowledged as {number}, stored as {stored}"
    for occurrence, stored in numbers.items():
        if len(stored) > 1:
            yield f"{occurrence} was fired {len(stored)} times"
        if occurrence not in intended:
            yield f"{occurrence} is stored, and nobody fired it"


def fired_numbers(sessions: Iterable[StoredSession]) -> dict[tuple[str, str | int], list[int]]:
    """UID and identity of each occurrence → the numbers of the firings that are stored for it."""
    numbers: dict[tuple[str, str | int], list[int]] = defaultdict(list)
    for session in sessions:
        for firing in session.firings:
            if firing.source == "" and firing.trigger != FINALIZING:
                numbers[session.uid, decode(firing.kwargs).get("id")].append(firing.number)
    return numbers


def problems_of_numbers(session: StoredSession) -> Iterator[str]:
    """Firings are numbered without gaps, and so are the records of each instance; counts and levels agree."""
    numbers = [firing.number for firing in session.firings]
    if numbers != [*range(1, session.head.firings + 1)]:
        yield f"{session.uid}: firings {numbers}, head says {session.head.firings}"
    records: dict[str, list[StoredRecord]] = defaultdict(list)
    for record in session.records():
        records[record.name].append(record)
    for each in session.instances:
        own, where = records[each.name], f"{session.uid}: {each.name}"
        if [record.number for record in own] != [*range(1, len(own) + 1)]:
            yield f"{where}: records are numbered {[record.number for record in own]}"
        if len(own) + each.log_dropped != each.log_count:
            yield f"{where}: {len(own)} records of {each.log_count}"
        if each.log_level != max((record.level for record in own), default=0):
            yield f"{where}: log level {each.log_level}"


def problems_of_ends(session: StoredSession, ran: Callable[[str, int], object]) -> Iterator[str]:
    """Nothing is left to run, and each instance that finished, or was skipped with a result, cascaded once.

    Args:
        session: the session, at rest.
        ran: whether a run began under this claim, given the name of the instance and its fence.
    """
    cascades: dict[str, list[Firing]] = defaultdict(list)
    for firing in session.firings:
        if firing.trigger == firing.source.rpartition("#")[0]:
            cascades[firing.source].append(firing)
    for each in session.instances:
        where, own = f"{session.uid}: {each.name}", cascades.pop(each.name, [])
        if each.status in {Status.SCHEDULED, Status.RUNNING}:
            yield f"{where} is still {each.status}"
        finished = each.status is Status.FINISHED
        cascaded = finished or (each.status is Status.SKIPPED and each.result is not None)
        if len(own) != cascaded:
            yield f"{where} is {each.status} and cascaded {len(own)} times"
        if finished and own:
            yield from _problems_of_result(where, each, own[0])
        if finished and not ran(each.name, each.fence):
            yield f"{where} finished and never ran"
    if cascades:
        yield f"{session.uid}: cascades of instances that never finished: {[*cascades]}"


def _problems_of_result(where: str, instance: Instance, cascade: Firing) -> Iterator[str]:
    """The result is that of the accepted end: tasks of these tests return the fence of their claim."""
    fence = decode(cascade.kwargs).get("fence")
    if instance.result != cascade.number:
        yield f"{where} has another result than its cascade"
    if fence != instance.fence:
        yield f"{where} has fence {instance.fence}, the accepted end was of {fence}"
