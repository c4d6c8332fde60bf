"""The manager of a session commits decisions and dispatches the instances that they schedule.

Each method that changes a session is one atomic step. When it returns, the change is stored, and the
instances that it scheduled are dispatched. When it raises, nothing has changed, unless a hook raised the
exception; in that case, the change is stored and the instances are dispatched.
"""

from __future__ import annotations

import logging
import uuid
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar

from triggers.core import decisions
from triggers.core.names import check_name
from triggers.core.similar_names import did_you_mean
from triggers.core.status import Status
from triggers.deciding import ManagerDecisions, ManagerServices
from triggers.fired_by import FiredBy
from triggers.logs import LogSettings
from triggers.previews import Previews
from triggers.session import SessionView, TaskInstance
from triggers.storages.base import ReadyInstance
from triggers.storages.in_time import commit_in_time
from triggers.storages.joining.scope import ManagerScopes
from triggers.timers import timers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from datetime import datetime, timedelta
    from typing import Self

    from triggers.core.exchange import Changes, Decision
    from triggers.core.values import Limits
    from triggers.storages.joining.scope import Scope
    from triggers.timers import Timer

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FireResult:
    """The effects of one firing.

    Attributes:
        number: the number of the firing in its session, from 1; for a repeat, the number of the first firing.
        duplicate: whether the firing was a repeat, which changes nothing.
        created: the names of the instances that it created.
        scheduled: the names of the instances that it scheduled.
        abandoned: the names of the instances that it abandoned.
        finalized: whether the session is finalized, by this firing or an earlier one.
        listeners: the names of the tasks whose rules name the trigger. If there are none, the firing is
            recorded and has no other effect.
    """

    number: int
    duplicate: bool = False
    created: tuple[str, ...] = ()
    scheduled: tuple[str, ...] = ()
    abandoned: tuple[str, ...] = ()
    finalized: bool = False
    listeners: tuple[str, ...] = ()


#: How many records of one kind are marked as resolved at a time.
REVIEWED = 500

#: The hooks that are called after a commit if a subclass overrides one of them.
_HOOKS = ("_post_fire", "_post_replay", "_post_skip")


class TriggerManager:
    """Controls one session: fires, configures, replays, skips, reviews.

    :meth:`triggers.Triggers.session` returns one. To add hooks or to change the settings below, write a
    subclass and pass it to :class:`triggers.Triggers`.

    Attributes:
        name: the name that a session stores with its first change. A process that has no manager with this
            name can read the session but not change it. By default it is ``module.ClassName``.
        review_level: log records at or above this level need a review.
        log_settings: what is recorded, and its limits.
        log_context: what is added to the context of every log record of every task.
        finalize_trigger: fired once when the session is complete; None for never.
        finalize_max_level: see :class:`FinalizingTriggerManager`.
        default_task_runner_name: the runner of the tasks of its sessions whose rule has no `using`; None for
            the application's.
        uid: the UID of the session.
        storage: a view of the session as it is stored.
    """

    name: ClassVar[str] = "default"
    review_level: ClassVar[int] = logging.WARNING
    log_settings: ClassVar[LogSettings] = LogSettings()
    log_context: ClassVar[Mapping[str, Any]] = {}
    finalize_trigger: ClassVar[str | None] = None
    finalize_max_level: ClassVar[int | None] = None
    default_task_runner_name: ClassVar[str | None] = None
    _hooked: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = f"{cls.__module__}.{cls.__qualname__}"
        cls._hooked = any(getattr(cls, hook) is not getattr(TriggerManager, hook) for hook in _HOOKS)

    def __init__(self, uid: str, services: ManagerServices, fired_by: FiredBy | None = None) -> None:
        self.uid: str = check_name(uid, "UID")
        self._services = services
        self._scopes = ManagerScopes(services.storage)
        self.storage: SessionView = SessionView(uid, self._scopes, services.registered)
        policy = self.policy_for(services.grace, services.limits)
        self._decisions = ManagerDecisions(uid, services, self._scopes, policy, fired_by or FiredBy())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.uid!r}>"

    @property
    def policy(self) -> decisions.Policy:
        """The settings as decisions use them, by :attr:`.ManagerDecisions.policy`."""
        return self._decisions.policy

    @property
    def preview(self) -> Previews:
        """Tries what would happen: its methods make the same decisions, and nothing is stored."""
        return Previews(self.uid, self._scopes, self._decisions)

    @classmethod
    def policy_for(cls, grace: int, limits: Limits) -> decisions.Policy:
        """Return the settings of this class for its sessions, as decisions use them."""
        finalizing = None
        if cls.finalize_trigger is not None:
            finalizing = decisions.Finalizing(cls.finalize_trigger, cls.finalize_max_level)
        return decisions.Policy(cls.name, grace, finalizing, cls.review_level, limits)

    @contextmanager
    def joined(self, connection: object) -> Iterator[Self]:
        """Join the application's own transaction.

        Its changes and the manager's are committed together or not at all.

        The block yields this manager. It never commits or rolls back the transaction, and it reads what the
        transaction sees. Each call is a savepoint, so a call that raises leaves the transaction unchanged.
        After the outermost commit, as SQLAlchemy or Django report it, hooks are called and instances are
        dispatched. With a driver's own connection, hooks are not called, and the next sweep dispatches.

        The block applies to the thread and the asyncio task that opened it, and to one transaction. After the
        transaction has ended, the manager raises StorageError until the end of the block. Of nested blocks,
        the innermost applies.

        Args:
            connection: a connection to the storage's database: a driver's (sqlite3, psycopg), SQLAlchemy's
                `Connection` or `Session`, or Django's, inside `atomic()`.

        Raises:
            StorageError: the connection cannot be joined; the message says why. The transaction is unchanged.
        """
        with self._scopes.join(connection):
            yield self

    # -- what an application does -----------------------------------------------------------------------

    def update_configuration(
        self, configuration: Mapping[str, Mapping[str, Any]], *, catch_up: bool = False
    ) -> None:
        """Add tasks to the configuration of the session, and replace those that it has by the same names.

        Its other tasks stay. Unstarted instances of replaced tasks are decided again, at once. A new task
        receives earlier firings only when one of its triggers fires again, unless `catch_up` is true.

        Args:
            configuration: task → directives.
            catch_up: apply the recorded firings, in order, to the new tasks.

        Raises:
            ConfigurationError: the configuration has problems, alone or together with the other tasks. The
                exception lists all of them, each with its path. Nothing has changed.
        """
        self._configure(configuration, catch_up=catch_up, merge=True)

    def replace_configuration(
        self, configuration: Mapping[str, Mapping[str, Any]], *, catch_up: bool = False
    ) -> None:
        """Set the whole configuration of the session. Tasks that are not in it are removed.

        The instances of a removed task stay visible; an unstarted one never starts. Everything else is as
        with :meth:`update_configuration`.

        Args:
            configuration: task → directives.
            catch_up: apply the recorded firings, in order, to the new tasks.

        Raises:
            ConfigurationError: the configuration has problems. Nothing has changed.
        """
        self._configure(configuration, catch_up=catch_up, merge=False)

    def _configure(self, configuration: object, *, catch_up: bool, merge: bool) -> None:
        self.apply(self._decisions.configure(configuration, catch_up=catch_up, merge=merge))

    def fire(
        self, trigger_name: str, trigger_kwargs: Mapping[str, Any] | None = None, *, key: str | None = None
    ) -> FireResult:
        """Fire a trigger: record that something has happened.

        Args:
            trigger_name: the name of what has happened.
            trigger_kwargs: the data that tasks get with it.
            key: an idempotency key for this occurrence. Firing the trigger again with the same key changes
                nothing.

        Returns:
            The effects of the firing, which are stored.

        Raises:
            InvalidNameError: the trigger or the key is not printable, or is longer than 255 characters.
            InvalidValueError: the kwargs cannot be stored.
            IdempotencyConflictError: the key was used with other kwargs.
            StorageError: the firing could not be stored.
        """
        changes = self.apply(self._decisions.fire(trigger_name, trigger_kwargs, key))
        rules = changes.session.rules
        listeners = tuple([rule.task for rule in rules.listeners.get(trigger_name, ())])
        if not listeners and rules.rules and _log.isEnabledFor(logging.DEBUG):
            hint = did_you_mean(trigger_name, rules.listeners)
            _log.debug("session %r: no task listens to %r%s", self.uid, trigger_name, hint)
        return _fire_result(changes, listeners)

    def fire_later(
        self,
        trigger_name: str,
        trigger_kwargs: Mapping[str, Any] | None = None,
        *,
        after: timedelta | str | float | None = None,
        at: datetime | None = None,
        name: str | None = None,
        key: str | None = None,
    ) -> str:
        """Set a timer that fires a trigger.

        The timer is stored and survives restarts. It fires once, as of the time for which it is set, even if
        no process runs at that time.

        Args:
            trigger_name: the name of what will have happened.
            trigger_kwargs: the data that tasks get with it.
            after: how long from now, as a timedelta, in seconds, or as an ISO 8601 duration such as
                ``"P3D"``.
            at: when, as an aware datetime; instead of `after`.
            name: the name of the timer. Setting a timer with the same name again replaces it. By default, the
                name is unique.
            key: the idempotency key of the firing. If another firing has used it by then, nothing fires.

        Returns:
            The name of the timer, for :meth:`cancel_timer`.

        Raises:
            InvalidNameError: the trigger, the name or the key is not printable or too long.
            InvalidValueError: the kwargs cannot be stored, or the time is not valid.
            TypeError: not exactly one of `after` and `at` is given.
            StorageError: the timer could not be stored.
        """
        name = str(uuid.uuid4()) if name is None else name
        self.apply(self._decisions.set_timer(name, trigger_name, trigger_kwargs, key, after=after, at=at))
        return name

    def cancel_timer(self, name: str) -> bool:
        """Remove a timer that :meth:`fire_later` has set.

        Returns:
            Whether there was one that had not fired.

        Raises:
            UnknownSessionError: the session does not exist.
        """
        return not self.apply(self._decisions.cancel_timer(name)).refused

    def timers(self) -> Iterator[Timer]:
        """Yield the timers of the session, those that are due first."""
        return timers_of(self._scopes.current.reader, self.uid)

    def replay_failed_instance(
        self,
        failed_instance: TaskInstance | str,
        replacement_kwargs: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> TaskInstance:
        """Run a failed instance again, as a new instance, with the current rules.

        Args:
            failed_instance: the instance or its name.
            replacement_kwargs: trigger → kwargs that replace those of the failed instance.

        Returns:
            The new instance.

        Raises:
            InvalidStatusError: the instance is not failed.
            UnknownTaskError: its task is no longer configured.
        """
        changes = self.apply(self._decisions.replay(failed_instance, replacement_kwargs))
        return TaskInstance(self.storage, changes.created[0])

    def skip_failed_instance(
        self,
        failed_instance: TaskInstance | str,
        cascade: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        result: Mapping[str, Any] | None = None,
    ) -> TaskInstance:
        """Skip a failed instance: it will not run again.

        Args:
            failed_instance: the instance or its name.
            cascade: whether to fire the name of the task, as if the instance had finished.
            result: the result to fire it with.

        Returns:
            The skipped instance.

        Raises:
            InvalidStatusError: the instance is not failed.
            ValueError: a result was given without `cascade`.
        """
        changes = self.apply(self._decisions.skip(failed_instance, result, cascade=cascade))
        return TaskInstance(self.storage, changes.transitioned[0][0])

    def update_instance_status(
        self,
        task_instance: TaskInstance | str,
        status: Status | str,
        metadata: Mapping[str, Any] | None = None,
        cascade: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        cascade_kwargs: Mapping[str, Any] | None = None,
    ) -> TaskInstance:
        """Change the status of an instance by hand. A running attempt loses its claim.

        A failure by hand stores no error. To make a failed instance replayed creates its replay.

        Args:
            task_instance: the instance or its name.
            status: the new status.
            metadata: keys that are added to the metadata of the instance.
            cascade: whether to fire the name of the task, if the new status is finished or skipped.
            cascade_kwargs: the kwargs to fire it with.

        Returns:
            The instance with its new status.

        Raises:
            InvalidStatusError: the change is not allowed, or only a worker can make it.
            ValueError: `cascade` is true for another status, or kwargs were given without it.
        """
        make = self._decisions.set_status
        changes = self.apply(make(task_instance, status, metadata, cascade_kwargs, cascade=cascade))
        return self.storage[changes.transitioned[0][0].name]

    def update_instance_metadata(
        self, task_instance: TaskInstance | str, metadata: Mapping[str, Any]
    ) -> None:
        """Add keys to the metadata of an instance. The new value of an existing key replaces the old one."""
        self.apply(self._decisions.add_metadata(task_instance, metadata))

    def update_session_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Add keys to the metadata of the session. The new value of an existing key replaces the old one."""
        self.apply(self._decisions.add_session_metadata(metadata))

    def mark_instance_logs_resolved(
        self,
        task_instance: TaskInstance | str,
        *,
        by: str | None = None,
        reason: str | None = None,
        through: int | None = None,
        records: Collection[int] | None = None,
    ) -> None:
        """Mark log records of an instance as resolved, because a person has reviewed them.

        The review does not cover records that are logged later.

        Args:
            task_instance: the instance or its name.
            by: who reviewed the records.
            reason: the conclusion of the review.
            through: the number of the last reviewed record; None for all records.
            records: the numbers of the reviewed records, if they are chosen one by one.

        Raises:
            ValueError: both `through` and `records` were given.
        """
        audit = {"by": by, "reason": reason}
        self._reviewed(self._decisions.resolve_logs(task_instance, audit, through, records))

    def reopen_instance_logs(
        self, task_instance: TaskInstance | str, *, by: str | None = None, reason: str | None = None
    ) -> None:
        """Revoke all reviews of an instance's log records. A finalized session stays finalized."""
        audit = {"by": by, "reason": reason}
        self._reviewed(self._decisions.reopen_logs(task_instance, audit))

    def mark_logs_resolved(
        self, fingerprint: str, *, by: str | None = None, reason: str | None = None
    ) -> int:
        """Mark all log records of one kind in the session as resolved.

        Each instance is a step of its own. After an interruption, a second call completes the rest.

        Args:
            fingerprint: the fingerprint of the kind, see :attr:`StoredRecord.fingerprint`.
            by: who reviewed the records.
            reason: the conclusion of the review.

        Returns:
            The number of records that became resolved.
        """
        count = 0
        while page := self.storage.logs(unresolved=True, fingerprint=fingerprint, limit=REVIEWED):
            numbers: dict[str, list[int]] = {}
            for record in page:
                numbers.setdefault(record.name, []).append(record.number)
            for name, records in numbers.items():
                self.mark_instance_logs_resolved(name, by=by, reason=reason, records=records)
            count += len(page)
        return count

    def _reviewed(self, decision: Decision) -> None:
        changes = self.apply(decision)
        instance = TaskInstance(self.storage, changes.transitioned[0][0])
        self._scopes.current.after_commit(partial(self._post_resolve_logs, instance))

    # -- the same for async applications ----------------------------------------------------------------

    async def afire(
        self, trigger_name: str, trigger_kwargs: Mapping[str, Any] | None = None, *, key: str | None = None
    ) -> FireResult:
        """:meth:`fire` on a worker thread."""
        return await self._on_thread(self.fire, trigger_name, trigger_kwargs, key=key)

    async def afire_later(
        self,
        trigger_name: str,
        trigger_kwargs: Mapping[str, Any] | None = None,
        *,
        after: timedelta | str | float | None = None,
        at: datetime | None = None,
        name: str | None = None,
        key: str | None = None,
    ) -> str:
        """Call :meth:`fire_later` on a thread."""
        return await self._on_thread(
            self.fire_later, trigger_name, trigger_kwargs, after=after, at=at, name=name, key=key
        )

    async def acancel_timer(self, name: str) -> bool:
        """Call :meth:`cancel_timer` on a thread."""
        return await self._on_thread(self.cancel_timer, name)

    async def aupdate_configuration(
        self, configuration: Mapping[str, Mapping[str, Any]], *, catch_up: bool = False
    ) -> None:
        """:meth:`update_configuration` on a worker thread."""
        await self._on_thread(self.update_configuration, configuration, catch_up=catch_up)

    async def areplace_configuration(
        self, configuration: Mapping[str, Mapping[str, Any]], *, catch_up: bool = False
    ) -> None:
        """:meth:`replace_configuration` on a worker thread."""
        await self._on_thread(self.replace_configuration, configuration, catch_up=catch_up)

    async def areplay_failed_instance(
        self,
        failed_instance: TaskInstance | str,
        replacement_kwargs: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> TaskInstance:
        """:meth:`replay_failed_instance` on a worker thread."""
        return await self._on_thread(self.replay_failed_instance, failed_instance, replacement_kwargs)

    async def askip_failed_instance(
        self,
        failed_instance: TaskInstance | str,
        cascade: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        result: Mapping[str, Any] | None = None,
    ) -> TaskInstance:
        """:meth:`skip_failed_instance` on a worker thread."""
        return await self._on_thread(self.skip_failed_instance, failed_instance, cascade, result)

    async def aupdate_instance_status(
        self,
        task_instance: TaskInstance | str,
        status: Status | str,
        metadata: Mapping[str, Any] | None = None,
        cascade: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        cascade_kwargs: Mapping[str, Any] | None = None,
    ) -> TaskInstance:
        """:meth:`update_instance_status` on a worker thread."""
        update = self.update_instance_status
        return await self._on_thread(update, task_instance, status, metadata, cascade, cascade_kwargs)

    async def aupdate_instance_metadata(
        self, task_instance: TaskInstance | str, metadata: Mapping[str, Any]
    ) -> None:
        """:meth:`update_instance_metadata` on a worker thread."""
        await self._on_thread(self.update_instance_metadata, task_instance, metadata)

    async def aupdate_session_metadata(self, metadata: Mapping[str, Any]) -> None:
        """:meth:`update_session_metadata` on a worker thread."""
        await self._on_thread(self.update_session_metadata, metadata)

    async def amark_instance_logs_resolved(
        self,
        task_instance: TaskInstance | str,
        *,
        by: str | None = None,
        reason: str | None = None,
        through: int | None = None,
        records: Collection[int] | None = None,
    ) -> None:
        """:meth:`mark_instance_logs_resolved` on a worker thread."""
        mark = self.mark_instance_logs_resolved
        await self._on_thread(mark, task_instance, by=by, reason=reason, through=through, records=records)

    async def areopen_instance_logs(
        self, task_instance: TaskInstance | str, *, by: str | None = None, reason: str | None = None
    ) -> None:
        """:meth:`reopen_instance_logs` on a worker thread."""
        await self._on_thread(self.reopen_instance_logs, task_instance, by=by, reason=reason)

    async def amark_logs_resolved(
        self, fingerprint: str, *, by: str | None = None, reason: str | None = None
    ) -> int:
        """:meth:`mark_logs_resolved` on a worker thread."""
        return await self._on_thread(self.mark_logs_resolved, fingerprint, by=by, reason=reason)

    async def _on_thread(self, method: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        what = f"{method.__name__} on session {self.uid!r}"
        return await self._services.calls.run(what, partial(method, *args, **kwargs))

    # -- hooks ------------------------------------------------------------------------------------------

    def _post_fire(self, trigger_name: str, tasks_scheduled: list[TaskInstance]) -> None:
        """Called after a firing was stored, including the firings of cascades.

        A hook runs at most once, in the process that stored the change. What must happen belongs in a task.

        Args:
            trigger_name: the trigger.
            tasks_scheduled: the instances that the firing scheduled.
        """

    def _post_replay(self, task_instance: TaskInstance) -> None:
        """Called with the new instance after a replay, or a retry by the task itself, was stored."""

    def _post_skip(self, task_instance: TaskInstance, cascade: bool) -> None:  # noqa: FBT001 - the documented signature
        """Called after a skip was stored, and after `_post_fire` for its cascade."""

    def _post_resolve_logs(self, task_instance: TaskInstance) -> None:
        """Called after a review of an instance's log records was stored or revoked."""

    # -- for the library itself -------------------------------------------------------------------------

    def apply(self, decision: Decision) -> Changes:
        """Commit a decision about the session, call the hooks, and dispatch the scheduled instances."""
        scope = self._scopes.current
        changes = self._store(scope, decision)
        scope.after_commit(partial(self.publish, changes))
        return changes

    def store(self, decision: Decision) -> Changes:
        """Commit a decision, which is the first half of :meth:`apply`, without hooks and dispatching."""
        return self._store(self._scopes.current, decision)

    def _store(self, scope: Scope, decision: Decision) -> Changes:
        """Commit a decision after the timers that are due. Their hooks are called after it."""
        elapsed: list[Changes] = []
        try:
            changes = commit_in_time(
                scope.storage, self.uid, decision, self._own_policy, elapsed, joined=scope.is_joined
            )
        finally:
            for each in elapsed:
                scope.after_commit(partial(self._publish_elapsed, each))
        self._decisions.rules = changes.session.rules
        return changes

    def _own_policy(self, _: str) -> decisions.Policy:
        """Return the settings for timers. They are only needed if some are due."""
        return self._decisions.own_policy

    def _publish_elapsed(self, changes: Changes) -> None:
        """Publish what elapsed timers have changed. An error of a hook concerns that, and is logged."""
        try:
            self.publish(changes)
        except Exception:  # noqa: BLE001 - a hook can raise anything
            _log.exception("a hook of session %r raised an exception after its timers had elapsed", self.uid)

    def publish(self, changes: Changes) -> None:
        """Call the hooks and dispatch the scheduled instances, which is the second half of :meth:`apply`."""
        for timer in changes.unfired:
            what = "session %r: the timer %r did not fire %s: %s"
            _log.warning(what, self.uid, timer.name, timer.trigger, timer.problem)
        for firing in changes.too_deep:
            limit = self._services.limits.cascade_depth
            _log.error(
                "session %r: %s was recorded as firing %d and reached no task, because %d firings led to it, "
                "more than the limit of %d",
                *(self.uid, firing.trigger, firing.number, firing.depth, limit),
            )
        try:
            self._call_hooks(changes)
        finally:
            self._dispatch(changes)

    def _dispatch(self, changes: Changes) -> None:
        if self._services.dispatch is None:
            return
        uid, now, rules = self.uid, changes.session.now, changes.session.rules
        scheduled = changes.scheduled()
        ready = [
            ReadyInstance.by(rules, uid, instance.task, instance.number)
            for instance in scheduled
            if instance.run_at <= now
        ]
        if ready:
            self._services.dispatch(ready)
        if len(ready) < len(scheduled) or any(changes.timers.values()):
            self._services.schedule_sweep()

    def _call_hooks(self, changes: Changes) -> None:
        if not self._hooked:
            return
        for firing, released in zip(changes.fired, changes.scheduled_by, strict=True):
            self._post_fire(firing.trigger, self.storage.page(released))
        for instance in changes.created:
            if instance.parent is not None:
                self._post_replay(TaskInstance(self.storage, instance))
        for instance, guard in changes.transitioned:
            if instance.status is Status.SKIPPED and guard.status is not Status.SKIPPED:
                self._post_skip(TaskInstance(self.storage, instance), instance.result is not None)


class FinalizingTriggerManager(TriggerManager):
    """Fires ``sessionFinalized`` once, in the commit that resolves the last task of a session.

    Tasks that wait for that trigger, directly or through others, do not count. If `finalize_max_level` is
    set, the trigger is not fired while a finished instance has unresolved log records at or above that level.
    Resolving the last of them then finalizes the session.
    """

    name: ClassVar[str] = "finalizing"
    finalize_trigger: ClassVar[str | None] = "sessionFinalized"
    finalize_max_level: ClassVar[int | None] = None


def _fire_result(changes: Changes, listeners: tuple[str, ...]) -> FireResult:
    finalized = changes.session.finalized is not None
    if changes.duplicate_of is not None:
        number = changes.duplicate_of.number
        return FireResult(number, duplicate=True, finalized=finalized, listeners=listeners)
    created = [(instance.name, instance.status) for instance in changes.created]
    touched = [(instance.name, instance.status) for instance in changes.triggered] + created
    return FireResult(
        number=changes.fired[0].number,
        created=tuple([name for name, _ in created]),
        scheduled=tuple([name for name, status in touched if status is Status.SCHEDULED]),
        abandoned=tuple([name for name, status in touched if status is Status.ABANDONED]),
        finalized=finalized,
        listeners=listeners,
    )
