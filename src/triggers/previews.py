"""Previews: what a call of a manager would do, decided on what is stored now. Nothing is stored."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Final

from triggers.core.picture import in_picture
from triggers.core.status import Status
from triggers.core.values import decode, shown, type_name
from triggers.exceptions import StorageError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping

    from triggers.core.exchange import Changes, Decision
    from triggers.core.state import Firing, Instance
    from triggers.deciding import ManagerDecisions
    from triggers.session import TaskInstance
    from triggers.storages.joining.scope import ManagerScopes


@dataclass(frozen=True, slots=True)
class PreviewedFiring:
    """A firing that would be recorded.

    Attributes:
        number: its number in the session.
        trigger: the name of the trigger.
        payload: the kwargs as they would be stored, as JSON.
        source: the name of the instance that would fire it, "" if none would.
        listeners: the names of the tasks that it would reach. If there are none, it would only be recorded.
    """

    number: int
    trigger: str
    payload: str = "{}"
    source: str = ""
    listeners: tuple[str, ...] = ()

    @property
    def kwargs(self) -> dict[str, Any]:
        """The kwargs that tasks would get."""
        kwargs: dict[str, Any] = decode(self.payload)
        return kwargs

    def to_json(self) -> dict[str, Any]:
        """Return it as values of JSON. Kwargs of other types are objects with one key, such as ``$date``."""
        return {
            "number": self.number,
            "trigger": self.trigger,
            "kwargs": json.loads(self.payload),
            "source": self.source or None,
            "listeners": list(self.listeners),
        }

    def __str__(self) -> str:
        kwargs = f" with {shown(self.kwargs)}" if self.payload != "{}" else ""
        source = f", from {self.source}" if self.source else ""
        return f"{self.trigger!r}{kwargs} (firing {self.number}){source}"


@dataclass(frozen=True, slots=True)
class Preview:
    """What a call would do if it was made now. Instances are in it by name.

    An instance that would be created is in `created` and also where it would then belong.

    Attributes:
        uid: the session.
        new_session: whether the session would be created.
        repeats: the number of the earlier firing with the same key, None if there is none. If there is
            one, nothing would change.
        configured: whether another configuration would be stored.
        fired: the firings that would be recorded, in order: that of the call, and those that follow from it.
        created: instances that would be created.
        waiting: unstarted instances that would be created, get triggers, or be decided again, and would
            still wait.
        scheduled: instances that would be scheduled.
        abandoned: instances that would be abandoned.
        finished: instances that would become finished.
        failed: instances that would become failed.
        skipped: instances that would be skipped.
        replayed: failed instances that would be replayed.
        interrupted: running instances whose attempt would lose its claim.
        finalized: the trigger that would be fired to finalize the session, None if it would not be finalized.
        is_empty: whether nothing would be stored.
    """

    uid: str
    new_session: bool = False
    repeats: int | None = None
    configured: bool = False
    fired: tuple[PreviewedFiring, ...] = ()
    created: tuple[str, ...] = ()
    waiting: tuple[str, ...] = ()
    scheduled: tuple[str, ...] = ()
    abandoned: tuple[str, ...] = ()
    finished: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()
    skipped: tuple[str, ...] = ()
    replayed: tuple[str, ...] = ()
    interrupted: tuple[str, ...] = ()
    finalized: str | None = None
    is_empty: bool = False

    @property
    def unheard(self) -> tuple[str, ...]:
        """The triggers that would be fired and reach no task."""
        return tuple(firing.trigger for firing in self.fired if not firing.listeners)

    def to_json(self) -> dict[str, Any]:
        """Return every attribute, under its name, as a value of JSON."""
        found = {part.name: getattr(self, part.name) for part in fields(self)}
        lists = {name: list(value) for name, value in found.items() if isinstance(value, tuple)}
        fired = [firing.to_json() for firing in self.fired]
        return {**found, **lists, "fired": fired, "unheard": list(self.unheard)}

    def __str__(self) -> str:
        return "\n".join(self._lines()) or "would change no status"

    def _lines(self) -> Iterator[str]:
        if self.repeats is not None:
            yield f"would change nothing: firing {self.repeats} has the same key"
        elif self.is_empty:
            yield "would change nothing"
        if self.new_session:
            yield "would create the session"
        if self.configured:
            yield "would change the configuration"
        for firing in self.fired:
            yield f"would fire {firing}" + ("" if firing.listeners else ", which reaches no task")
        for name, effect in _EFFECTS.items():
            if names := getattr(self, name):
                yield f"would {effect.format(', '.join(names))}"
        if self.finalized is not None:
            yield "would finalize the session"


#: Field of a preview → what would happen to the instances in it, in the order of the lines of the text.
_EFFECTS: Final = {
    "interrupted": "interrupt {}",
    "finished": "finish {}",
    "failed": "fail {}",
    "skipped": "skip {}",
    "replayed": "replay {}",
    "created": "create {}",
    "scheduled": "schedule {}",
    "abandoned": "abandon {}",
    "waiting": "leave {} unstarted",
}

#: Field of a preview → the status of the instances in it.
_STATUSES: Final = {
    "waiting": Status.UNSTARTED,
    "scheduled": Status.SCHEDULED,
    "abandoned": Status.ABANDONED,
    "finished": Status.FINISHED,
    "failed": Status.FAILED,
    "skipped": Status.SKIPPED,
    "replayed": Status.REPLAYED,
}


def preview_of(changes: Changes) -> Preview:
    """Return what the changes of a decision would do."""
    session, earlier = changes.session, changes.duplicate_of
    moved = [(instance, guard) for instance, guard in changes.transitioned if instance.status != guard.status]
    touched = [*changes.triggered, *(instance for instance, _ in moved), *changes.created]
    final = [firing.trigger for firing in changes.fired if firing.number == session.finalized]
    return Preview(
        uid=session.uid,
        new_session=session.ref is None and changes.writes_head,
        repeats=None if earlier is None else earlier.number,
        configured=changes.new_rules,
        fired=tuple([_firing_of(changes, firing) for firing in changes.fired]),
        created=_names(changes.created),
        **{
            name: _names(each for each in touched if each.status is status)
            for name, status in _STATUSES.items()
        },
        interrupted=_names(instance for instance, guard in moved if guard.status is Status.RUNNING),
        finalized=final[0] if final else None,
        is_empty=not (changes.needs_session or changes.triggered or changes.transitioned),
    )


def _firing_of(changes: Changes, firing: Firing) -> PreviewedFiring:
    is_too_deep = any(each.number == firing.number for each in changes.too_deep)
    rules = () if is_too_deep else changes.session.rules.listeners.get(firing.trigger, ())
    listeners = tuple([rule.task for rule in rules])
    return PreviewedFiring(firing.number, firing.trigger, firing.kwargs, firing.source, listeners)


def _names(instances: Iterable[Instance]) -> tuple[str, ...]:
    return tuple([instance.name for instance in instances])


class Previews:
    """Tries what the methods of a manager would do: `manager.preview`.

    Each method makes the same decision as the manager's, on what is stored now, and stores nothing. No lock
    is taken, no hook is called, and nothing is dispatched. In a joined transaction, a preview sees what the
    transaction sees.

    Each method raises what the manager's method would raise, and a StorageError if the session cannot be
    read, has changed too often while it was read, or is in a storage that cannot preview.

    Args:
        uid: the UID of the session.
        scopes: where the manager works.
        decisions: makes the decisions of the manager.
    """

    __slots__ = ("_decisions", "_scopes", "_uid")

    def __init__(self, uid: str, scopes: ManagerScopes, decisions: ManagerDecisions) -> None:
        self._uid = uid
        self._scopes = scopes
        self._decisions = decisions

    def update_configuration(
        self, configuration: Mapping[str, Mapping[str, Any]], *, catch_up: bool = False
    ) -> Preview:
        """Preview :meth:`.TriggerManager.update_configuration`."""
        return self._try(self._decisions.configure(configuration, catch_up=catch_up, merge=True))

    def replace_configuration(
        self, configuration: Mapping[str, Mapping[str, Any]], *, catch_up: bool = False
    ) -> Preview:
        """Preview :meth:`.TriggerManager.replace_configuration`."""
        return self._try(self._decisions.configure(configuration, catch_up=catch_up, merge=False))

    def fire(
        self, trigger_name: str, trigger_kwargs: Mapping[str, Any] | None = None, *, key: str | None = None
    ) -> Preview:
        """Preview :meth:`.TriggerManager.fire`. The key is not used up."""
        return self._try(self._decisions.fire(trigger_name, trigger_kwargs, key))

    def replay(
        self,
        failed_instance: TaskInstance | str,
        replacement_kwargs: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> Preview:
        """Preview :meth:`.TriggerManager.replay_failed_instance`."""
        return self._try(self._decisions.replay(failed_instance, replacement_kwargs))

    def skip(
        self,
        failed_instance: TaskInstance | str,
        cascade: bool = False,  # noqa: FBT001, FBT002 - as the manager's
        result: Mapping[str, Any] | None = None,
    ) -> Preview:
        """Preview :meth:`.TriggerManager.skip_failed_instance`."""
        return self._try(self._decisions.skip(failed_instance, result, cascade=cascade))

    def update_instance_status(
        self,
        task_instance: TaskInstance | str,
        status: Status | str,
        metadata: Mapping[str, Any] | None = None,
        cascade: bool = False,  # noqa: FBT001, FBT002 - as the manager's
        cascade_kwargs: Mapping[str, Any] | None = None,
    ) -> Preview:
        """Preview :meth:`.TriggerManager.update_instance_status`."""
        make = self._decisions.set_status
        return self._try(make(task_instance, status, metadata, cascade_kwargs, cascade=cascade))

    def mark_instance_logs_resolved(
        self,
        task_instance: TaskInstance | str,
        *,
        by: str | None = None,
        reason: str | None = None,
        through: int | None = None,
        records: Collection[int] | None = None,
    ) -> Preview:
        """Preview :meth:`.TriggerManager.mark_instance_logs_resolved`, which can finalize the session."""
        audit = {"by": by, "reason": reason}
        return self._try(self._decisions.resolve_logs(task_instance, audit, through, records))

    def _try(self, decision: Decision) -> Preview:
        reader = self._scopes.reader
        preview = getattr(reader, "preview", None)
        if preview is None:
            message = (
                f"{type_name(type(reader))} has no method preview(uid, decision), so its sessions cannot be "
                f"previewed: add it, as triggers.storages.base.Reader describes it"
            )
            raise StorageError(message)
        return preview_of(preview(self._uid, in_picture(decision, self._decisions.own_policy)))
