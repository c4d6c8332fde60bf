"""The decisions that a manager makes about its session: what the arguments of its methods ask for.

The methods of a manager commit these decisions, and those of its previews only make them. Because both get
them here, they check the same and mean the same.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from triggers.async_calls import AsyncCalls
from triggers.core import decisions
from triggers.core.configuration import check_configuration
from triggers.core.names import check_name, split_instance_name
from triggers.core.state import new_firing
from triggers.core.status import Status
from triggers.core.timers import FIRES, Timer
from triggers.core.values import DEFAULT_LIMITS, Limits, decode, encode_mapping, shown
from triggers.exceptions import InvalidStatusError
from triggers.fired_by import FIRED_BY, FiredBy
from triggers.session import TaskInstance
from triggers.timers import moment, pause_before

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping, Sequence
    from datetime import datetime, timedelta

    from triggers.core.exchange import Decision
    from triggers.core.rules import RuleSet
    from triggers.core.state import Firing
    from triggers.storages.base import ReadyInstance, Storage
    from triggers.storages.joining.scope import ManagerScopes


@dataclass(frozen=True, slots=True)
class ManagerServices:
    """What the managers of an application share.

    Attributes:
        storage: stores the sessions.
        dispatch: dispatches scheduled instances to their runners, or announces them to other processes, and
            must not raise; None to do neither.
        schedule_sweep: is called after an instance was scheduled for a later time.
        tasks: the tasks that a `run` may name, None to accept any name.
        registered: the tasks of this process, from which an explanation of a missing one suggests a name.
        runners: the runners that a `using` may name, None to accept any name.
        grace: how long the sweep waits before it dispatches an unclaimed instance again, in microseconds.
        limits: the limits for configurations, kwargs, results and metadata.
        calls: runs methods for coroutines.
    """

    storage: Storage
    dispatch: Callable[[Sequence[ReadyInstance]], None] | None = None
    schedule_sweep: Callable[[], None] = lambda: None
    tasks: Collection[str] | None = None
    registered: Collection[str] = ()
    runners: Collection[str] | None = None
    grace: int = 30_000_000
    limits: Limits = DEFAULT_LIMITS
    calls: AsyncCalls = field(default_factory=AsyncCalls)


class ManagerDecisions:
    """Makes the decisions of one manager. Each method raises an error for arguments that are not valid.

    Args:
        uid: the session.
        services: what the managers of the application share.
        scopes: where the manager works.
        policy: the settings of the manager.
        made_for: the task that got the manager.

    Attributes:
        rules: the rules of the session at the last commit, None before the first one.
    """

    def __init__(
        self,
        uid: str,
        services: ManagerServices,
        scopes: ManagerScopes,
        policy: decisions.Policy,
        made_for: FiredBy,
    ) -> None:
        self.rules: RuleSet | None = None
        self._uid = uid
        self._services = services
        self._scopes = scopes
        self._policy = policy
        self._made_for = made_for

    @property
    def policy(self) -> decisions.Policy:
        """The settings as decisions use them.

        In a joined block after which nothing is dispatched, the grace is 0, so that the next sweep dispatches
        at once. Inside a task, the depth is that of the task's firings.
        """
        depth = self._fired_by.depth
        return replace(self.own_policy, cascade_depth=depth) if depth else self.own_policy

    @property
    def own_policy(self) -> decisions.Policy:
        """The same settings for what the calling task has not caused, such as timers that are due."""
        if self._policy.grace == 0 or self._scopes.current.notifies_commit:
            return self._policy
        return replace(self._policy, grace=0)

    @property
    def _fired_by(self) -> FiredBy:
        """The task that the calling code is part of; in an unrelated thread, that which got the manager."""
        return FIRED_BY.get() or self._made_for

    def configure(self, configuration: object, *, catch_up: bool, merge: bool) -> Decision:
        """Return the decision that changes the configuration of the session."""
        services = self._services
        rules = check_configuration(
            configuration, tasks=services.tasks, runners=services.runners, limits=services.limits
        )
        return decisions.configure(self.policy, rules, catch_up=catch_up, merge=merge)

    def fire(self, trigger_name: str, trigger_kwargs: Mapping[str, Any] | None, key: str | None) -> Decision:
        """Return the decision that records a firing, and what follows from it."""
        return decisions.fire(self.policy, self._firing(trigger_name, trigger_kwargs, key), self.rules)

    def set_timer(
        self,
        name: str,
        trigger_name: str,
        trigger_kwargs: Mapping[str, Any] | None,
        key: str | None,
        *,
        after: timedelta | str | float | None,
        at: datetime | None,
    ) -> Decision:
        """Return the decision that sets a timer, which fires a trigger."""
        if (after is None) == (at is None):
            message = "fire_later() needs a time: give either after= or at="
            raise TypeError(message)
        firing = self._firing(trigger_name, trigger_kwargs, key)
        timer = Timer(
            check_name(name, "name of a timer"),
            0 if at is None else moment(at),
            number=0,
            kind=FIRES,
            since=0,
            depth=firing.depth,
            trigger=firing.trigger,
            kwargs=firing.kwargs,
            key=firing.key,
            fingerprint=firing.fingerprint,
            source=firing.source,
        )
        return decisions.set_timer(self.policy, timer, None if after is None else pause_before(after))

    def _firing(self, trigger_name: str, trigger_kwargs: Mapping[str, Any] | None, key: str | None) -> Firing:
        """Return a firing of the calling task, or of the application."""
        fired_by, limits = self._fired_by, self._services.limits
        source = fired_by.name if fired_by.uid == self._uid else ""
        return new_firing(
            trigger_name, trigger_kwargs, key, depth=fired_by.depth, source=source, limits=limits
        )

    def cancel_timer(self, name: str) -> Decision:
        """Return the decision that removes one that has not elapsed."""
        return decisions.cancel_timer(self.policy, check_name(name, "name of a timer"))

    def replay(
        self,
        failed_instance: TaskInstance | str,
        replacement_kwargs: Mapping[str, Mapping[str, Any]] | None,
    ) -> Decision:
        """Return the decision that replays a failed instance."""
        where = _where(failed_instance)
        payload = None
        if replacement_kwargs is not None:
            payload = encode_mapping(replacement_kwargs, "replacement_kwargs", self._services.limits)
        return decisions.replay(self.policy, *where, payload)

    def skip(
        self, failed_instance: TaskInstance | str, result: Mapping[str, Any] | None, *, cascade: bool
    ) -> Decision:
        """Return the decision that skips a failed instance."""
        if result is not None and not cascade:
            message = "a result has no effect without cascade=True"
            raise ValueError(message)
        where = _where(failed_instance)
        payload = encode_mapping(result, "result", self._services.limits) if cascade else None
        return decisions.skip(self.policy, *where, result=payload)

    def set_status(
        self,
        task_instance: TaskInstance | str,
        status: Status | str,
        metadata: Mapping[str, Any] | None,
        cascade_kwargs: Mapping[str, Any] | None,
        *,
        cascade: bool,
    ) -> Decision:
        """Return the decision that changes the status of an instance by hand."""
        (task, number), wanted = _where(task_instance), _status(status)
        _check_cascade(wanted, cascade=cascade, cascade_kwargs=cascade_kwargs)
        added = _mapping(metadata, "metadata")
        result = None
        if cascade:
            result = encode_mapping(cascade_kwargs, "cascade_kwargs", self._services.limits)
        if wanted is Status.REPLAYED:
            return decisions.replay(self.policy, task, number, metadata=added)
        return decisions.set_status(self.policy, task, number, wanted, added, result)

    def add_metadata(self, task_instance: TaskInstance | str, metadata: Mapping[str, Any]) -> Decision:
        """Return the decision that adds keys to the metadata of an instance."""
        where, added = _where(task_instance), _mapping(metadata, "metadata")
        return decisions.add_metadata(self.policy, *where, added)

    def add_session_metadata(self, metadata: Mapping[str, Any]) -> Decision:
        """Return the decision that stores more of the application's own data, by key."""
        added = _mapping(metadata, "metadata")
        return decisions.add_session_metadata(self.policy, added)

    def resolve_logs(
        self,
        task_instance: TaskInstance | str,
        audit: Mapping[str, Any],
        through: int | None,
        records: Collection[int] | None,
    ) -> Decision:
        """Return the decision that marks log records of an instance as resolved."""
        if through is not None and records is not None:
            message = "pass either through or records, but not both"
            raise ValueError(message)
        return decisions.resolve_logs(self.policy, *_where(task_instance), audit, through, records)

    def reopen_logs(self, task_instance: TaskInstance | str, audit: Mapping[str, Any]) -> Decision:
        """Return the decision that revokes all reviews of an instance's log records."""
        return decisions.reopen_logs(self.policy, *_where(task_instance), audit)


def _where(instance: TaskInstance | str) -> tuple[str, int]:
    return (
        (instance.task, instance.number)
        if isinstance(instance, TaskInstance)
        else split_instance_name(instance)
    )


def _mapping(value: object, what: str) -> dict[str, Any]:
    given: dict[str, Any] = decode(encode_mapping(value, what, DEFAULT_LIMITS))
    return given


def _check_cascade(status: Status, *, cascade: bool, cascade_kwargs: object) -> None:
    if cascade and status not in {Status.FINISHED, Status.SKIPPED}:
        message = f"an instance that becomes {status} cannot cascade, only one that is finished or skipped"
        raise ValueError(message)
    if cascade_kwargs is not None and not cascade:
        message = "cascade_kwargs have no effect without cascade=True"
        raise ValueError(message)


def _status(value: Status | str) -> Status:
    try:
        return Status(value)
    except ValueError:
        message = f"{shown(value)} is not a valid status; the statuses are: {', '.join(Status)}"
        raise InvalidStatusError(message) from None
