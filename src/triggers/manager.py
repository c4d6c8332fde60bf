"""The controller of one session: load, decide, commit, hand over.

Each method here is one atomic step. When it returns, what it did is stored, and what it released has
been offered to a runner; when it raises, nothing has changed, unless a hook raised: then everything
has been done and the exception is the hook's.
"""

from __future__ import annotations

import logging
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, ParamSpec, TypeVar, cast

from triggers.core import decisions
from triggers.core.configuration import check_configuration
from triggers.core.names import check_name, split_instance_name
from triggers.core.state import new_firing
from triggers.core.status import Status
from triggers.core.values import DEFAULT_LIMITS, Limits, decode, encode_mapping, shown
from triggers.exceptions import InvalidStatusError
from triggers.logs import LogSettings
from triggers.session import SessionView, TaskInstance
from triggers.storages.base import ReadyInstance
from triggers.storages.joining.transaction import TransactionScope

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from typing import Self

    from triggers.core.exchange import Changes, Decision
    from triggers.core.rules import RuleSet
    from triggers.storages.base import Reader, Storage

P = ParamSpec("P")
R = TypeVar("R")

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class FireResult:
    """What one firing did.

    Attributes:
        number: of the firing in its session, from 1; for a repeat, that of the first one.
        duplicate: whether it was a repeat, which does nothing.
        created: names of the instances that it made.
        scheduled: names of the instances that it released.
        abandoned: names of the instances that it stopped.
        finalized: whether the session is finalised, by this firing or before it.
    """

    number: int
    duplicate: bool = False
    created: tuple[str, ...] = ()
    scheduled: tuple[str, ...] = ()
    abandoned: tuple[str, ...] = ()
    finalized: bool = False


@dataclass(frozen=True, slots=True)
class ManagerServices:
    """What the managers of an application share.

    Attributes:
        storage: where sessions are kept.
        dispatch: offers released instances to their runners, and must not raise; None where there are none.
        expect: is told that something will be due later.
        tasks: every task that a `run` may name, or None where other processes may have more.
        runners: every runner that a `using` may name, or None for any.
        grace: how long a hand-over has until the sweep repeats it, in microseconds.
        limits: sizes of what is accepted.
    """

    storage: Storage
    dispatch: Callable[[Sequence[ReadyInstance]], None] | None = None
    schedule_sweep: Callable[[], None] = lambda: None
    tasks: Collection[str] | None = None
    runners: Collection[str] | None = None
    grace: int = 30_000_000
    limits: Limits = DEFAULT_LIMITS


@dataclass(frozen=True, slots=True)
class FiredBy:
    """Which running instance fires, where a task fires; it counts against endless cascades."""

    name: str = ""
    depth: int = 0


#: So many records of one kind are marked as resolved at a time.
REVIEWED = 500

#: What a subclass may override to be told of a commit.
_HOOKS = ("_post_fire", "_post_replay", "_post_skip")


class TriggerManager:
    """The controller of one session.

    An application gets one from :meth:`triggers.Triggers.session`; subclass it to add hooks or to change the
    settings below, and give the subclass to :class:`triggers.Triggers`.

    Attributes:
        name: what a session remembers of its manager: a process that has no manager of that name may look at
            the session but not change it. ``module.ClassName`` unless given.
        review_level: records from this level on ask for a review.
        log_settings: what is recorded, and its limits.
        log_context: what every record of every task has in its context.
        finalize_trigger: fired once when the session is complete; None for never.
        finalize_max_level: see :class:`FinalizingTriggerManager`.
        uid: the session.
        storage: the session as it is stored.
    """

    name: ClassVar[str] = "default"
    review_level: ClassVar[int] = logging.WARNING
    log_settings: ClassVar[LogSettings] = LogSettings()
    log_context: ClassVar[Mapping[str, Any]] = {}
    finalize_trigger: ClassVar[str | None] = None
    finalize_max_level: ClassVar[int | None] = None
    _hooked: ClassVar[bool] = False

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = f"{cls.__module__}.{cls.__qualname__}"
        cls._hooked = any(getattr(cls, hook) is not getattr(TriggerManager, hook) for hook in _HOOKS)

    def __init__(self, uid: str, services: ManagerServices, fired_by: FiredBy | None = None) -> None:
        self.uid = check_name(uid, "UID")
        self._services = services
        self._fired_by = fired_by or FiredBy()
        self._rules: RuleSet | None = None  # those that the session had last
        self._scope = TransactionScope(services.storage)
        self.storage = SessionView(uid, cast("Reader", self._scope))
        self._policy = self.policy_for(services.grace, services.limits)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.uid!r}>"

    @property
    def policy(self) -> decisions.Policy:
        """What its settings come to; where nobody here will hand over, what it releases is due at once."""
        block = self._scope.block
        return self._policy if block is None or block.is_told else replace(self._policy, grace=0)

    @classmethod
    def policy_for(cls, grace: int, limits: Limits) -> decisions.Policy:
        """What this class lays down for its sessions."""
        finalizing = None
        if cls.finalize_trigger is not None:
            finalizing = decisions.Finalizing(cls.finalize_trigger, cls.finalize_max_level)
        return decisions.Policy(cls.name, grace, finalizing, cls.review_level, limits)

    @contextmanager
    def joined(self, connection: object) -> Iterator[Self]:
        """Work within the application's own transaction: both are committed together, or rolled back.

        The manager, this very object, never commits and never rolls back there. Each of its calls is a
        savepoint, so that one that raises leaves the transaction as it was. It reads what the transaction
        sees. Hooks are called, and instances handed over, after the outermost commit, as SQLAlchemy or Django
        tell it; with a driver's own connection hooks are not called, and the next sweep hands over.

        The block counts for the thread and the asyncio task that opened it, and for one transaction: once
        that has ended the manager raises StorageError until the end of the block. Of blocks within one
        another the innermost counts.

        Args:
            connection: to the storage's own database: a driver's (sqlite3, psycopg), SQLAlchemy's
                `Connection` or `Session`, or Django's, inside of `atomic()`.

        Raises:
            StorageError: it cannot be joined, and why; the transaction is as it was.
        """
        with self._scope.joined(connection):
            yield self

    # -- what an application does -----------------------------------------------------------------------

    def update_configuration(
        self, configuration: Mapping[str, Mapping[str, Any]], *, catch_up: bool = False
    ) -> None:
        """Give the session a configuration, in place of the one that it has.

        Unstarted instances of tasks that changed are decided again. A task that is new sees earlier firings
        only once another of its triggers fires, unless `catch_up` is true.

        Args:
            configuration: task → directives.
            catch_up: apply the recorded firings, in their order, to the tasks that are new.

        Raises:
            ConfigurationError: with every problem, each with its path; nothing was changed.
        """
        services = self._services
        rules = check_configuration(
            configuration, tasks=services.tasks, runners=services.runners, limits=services.limits
        )
        self.apply(decisions.configure(self.policy, rules, catch_up=catch_up))

    def fire(
        self, trigger: str, kwargs: Mapping[str, Any] | None = None, *, key: str | None = None
    ) -> FireResult:
        """Say that something has happened.

        Args:
            trigger: what has happened.
            kwargs: what there is to say about it.
            key: names this very occurrence; firing the trigger with the key again does nothing.

        Returns:
            What came of it; it is stored by then.

        Raises:
            InvalidNameError: the trigger or the key is not printable, or longer than 255 characters.
            InvalidValueError: the kwargs cannot be stored.
            IdempotencyConflictError: the key was used with other kwargs.
            StorageError: it could not be stored.
        """
        depth, name, limits = self._fired_by.depth, self._fired_by.name, self._services.limits
        firing = new_firing(trigger, kwargs, key, depth=depth, source=name, limits=limits)
        return _fire_result(self.apply(decisions.fire(self.policy, firing, self._rules)))

    def replay_failed_instance(
        self, instance: TaskInstance | str, replacement_kwargs: Mapping[str, Mapping[str, Any]] | None = None
    ) -> TaskInstance:
        """Let a failed instance run again, as a new instance, with the rules as they are now.

        Args:
            instance: which, or its name.
            replacement_kwargs: trigger → kwargs, in place of those that it had.

        Returns:
            The new instance.

        Raises:
            InvalidStatusError: it is not failed.
            UnknownTaskError: its task is no longer configured.
        """
        where = _where(instance)
        payload = None
        if replacement_kwargs is not None:
            payload = encode_mapping(replacement_kwargs, "replacement_kwargs", self._services.limits)
        changes = self.apply(decisions.replay(self.policy, *where, payload))
        return TaskInstance(self.storage, changes.created[0])

    def skip_failed_instance(
        self,
        instance: TaskInstance | str,
        cascade: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        result: Mapping[str, Any] | None = None,
    ) -> TaskInstance:
        """Give a failed instance up.

        Args:
            instance: which, or its name.
            cascade: fire the task's name, as if it had finished.
            result: with which result.

        Returns:
            The instance, skipped.

        Raises:
            InvalidStatusError: it is not failed.
            ValueError: a result without a cascade would go nowhere.
        """
        if result is not None and not cascade:
            message = "a result goes nowhere without cascade=True"
            raise ValueError(message)
        where = _where(instance)
        payload = encode_mapping(result, "result", self._services.limits) if cascade else None
        changes = self.apply(decisions.skip(self.policy, *where, result=payload))
        return TaskInstance(self.storage, changes.transitioned[0][0])

    def update_instance_status(self, instance: TaskInstance | str, status: Status | str) -> TaskInstance:
        """Move an instance by hand, as far as the table of moves allows; a running attempt is shut out.

        A finish by hand cascades with an empty result; a failure by hand is a plain one.

        Args:
            instance: which, or its name.
            status: where to.

        Raises:
            InvalidStatusError: the table does not have the move, or only a worker can make it.
        """
        task, number = _where(instance)
        wanted = _status(status)
        if wanted is Status.REPLAYED:
            self.replay_failed_instance(instance)
        elif wanted is Status.SKIPPED and self.storage[f"{task}#{number}"].status is not Status.RUNNING:
            self.skip_failed_instance(instance)
        else:
            self.apply(decisions.set_status(self.policy, task, number, wanted))
        return self.storage[f"{task}#{number}"]

    def update_instance_metadata(self, instance: TaskInstance | str, metadata: Mapping[str, Any]) -> None:
        """Add keys to the metadata of an instance; a key that is there gets the new value."""
        where, added = _where(instance), _mapping(metadata, "metadata")
        self.apply(decisions.add_metadata(self.policy, *where, added))

    def update_session_metadata(self, metadata: Mapping[str, Any]) -> None:
        """Add keys to the metadata of the session; a key that is there gets the new value."""
        added = _mapping(metadata, "metadata")
        self.apply(decisions.add_session_metadata(self.policy, added))

    def mark_instance_logs_resolved(
        self,
        instance: TaskInstance | str,
        *,
        by: str | None = None,
        reason: str | None = None,
        through: int | None = None,
        records: Collection[int] | None = None,
    ) -> None:
        """Say that a person has reviewed what an instance said. A record that comes later opens it again.

        Args:
            instance: which, or its name.
            by: who reviewed it.
            reason: what came of it.
            through: number of the last record that was reviewed; None for all that there are.
            records: numbers of just those that were reviewed.
        """
        if through is not None and records is not None:
            message = "say either through which record, or which records, but not both"
            raise ValueError(message)
        where = _where(instance)
        audit = {"by": by, "reason": reason}
        self._reviewed(decisions.resolve_logs(self.policy, *where, audit, through, records))

    def reopen_instance_logs(
        self, instance: TaskInstance | str, *, by: str | None = None, reason: str | None = None
    ) -> None:
        """Take every review of an instance's records back. A session that was finalised stays so."""
        where = _where(instance)
        audit = {"by": by, "reason": reason}
        self._reviewed(decisions.reopen_logs(self.policy, *where, audit))

    def mark_logs_resolved(
        self, fingerprint: str, *, by: str | None = None, reason: str | None = None
    ) -> int:
        """Say that a person has reviewed every record of one kind in the session.

        Each instance is a step of its own; after an interruption a second call does the rest.

        Args:
            fingerprint: of the kind, as :attr:`StoredRecord.fingerprint` has it.
            by: who reviewed them.
            reason: what came of it.

        Returns:
            How many records that no review had covered before.
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
        self._after_commit(partial(self._post_resolve_logs, instance))

    # -- the same for async applications ----------------------------------------------------------------

    async def afire(
        self, trigger: str, kwargs: Mapping[str, Any] | None = None, *, key: str | None = None
    ) -> FireResult:
        """:meth:`fire` on a worker thread."""
        return await _to_thread(self.fire, trigger, kwargs, key=key)

    async def aupdate_configuration(
        self, configuration: Mapping[str, Mapping[str, Any]], *, catch_up: bool = False
    ) -> None:
        """:meth:`update_configuration` on a worker thread."""
        await _to_thread(self.update_configuration, configuration, catch_up=catch_up)

    async def areplay_failed_instance(
        self, instance: TaskInstance | str, replacement_kwargs: Mapping[str, Mapping[str, Any]] | None = None
    ) -> TaskInstance:
        """:meth:`replay_failed_instance` on a worker thread."""
        return await _to_thread(self.replay_failed_instance, instance, replacement_kwargs)

    async def askip_failed_instance(
        self,
        instance: TaskInstance | str,
        cascade: bool = False,  # noqa: FBT001, FBT002 - the documented signature
        result: Mapping[str, Any] | None = None,
    ) -> TaskInstance:
        """:meth:`skip_failed_instance` on a worker thread."""
        return await _to_thread(self.skip_failed_instance, instance, cascade, result)

    async def aupdate_instance_status(
        self, instance: TaskInstance | str, status: Status | str
    ) -> TaskInstance:
        """:meth:`update_instance_status` on a worker thread."""
        return await _to_thread(self.update_instance_status, instance, status)

    async def aupdate_instance_metadata(
        self, instance: TaskInstance | str, metadata: Mapping[str, Any]
    ) -> None:
        """:meth:`update_instance_metadata` on a worker thread."""
        await _to_thread(self.update_instance_metadata, instance, metadata)

    async def aupdate_session_metadata(self, metadata: Mapping[str, Any]) -> None:
        """:meth:`update_session_metadata` on a worker thread."""
        await _to_thread(self.update_session_metadata, metadata)

    async def amark_instance_logs_resolved(
        self,
        instance: TaskInstance | str,
        *,
        by: str | None = None,
        reason: str | None = None,
        through: int | None = None,
        records: Collection[int] | None = None,
    ) -> None:
        """:meth:`mark_instance_logs_resolved` on a worker thread."""
        mark = self.mark_instance_logs_resolved
        await _to_thread(mark, instance, by=by, reason=reason, through=through, records=records)

    async def areopen_instance_logs(
        self, instance: TaskInstance | str, *, by: str | None = None, reason: str | None = None
    ) -> None:
        """:meth:`reopen_instance_logs` on a worker thread."""
        await _to_thread(self.reopen_instance_logs, instance, by=by, reason=reason)

    async def amark_logs_resolved(
        self, fingerprint: str, *, by: str | None = None, reason: str | None = None
    ) -> int:
        """:meth:`mark_logs_resolved` on a worker thread."""
        return await _to_thread(self.mark_logs_resolved, fingerprint, by=by, reason=reason)

    # -- hooks ------------------------------------------------------------------------------------------

    def _post_fire(self, name: str, tasks_scheduled: list[TaskInstance]) -> None:
        """After each firing, a cascade's, too, was stored.

        Hooks run in the process that stored the change, at most once: what must happen belongs in a task.

        Args:
            name: the trigger.
            tasks_scheduled: the instances that it released.
        """

    def _post_replay(self, instance: TaskInstance) -> None:
        """After a replay, a task's own retry, too, was stored; gets the new instance."""

    def _post_skip(self, instance: TaskInstance, cascade: bool) -> None:  # noqa: FBT001 - the documented signature
        """After a skip was stored, and after the `_post_fire` of its cascade."""

    def _post_resolve_logs(self, instance: TaskInstance) -> None:
        """After a review of an instance's records, or its being taken back, was stored."""

    # -- how it is done ---------------------------------------------------------------------------------

    def apply(self, decision: Decision) -> Changes:
        """Commit a decision about the session, hand over what it released, and call the hooks."""
        changes = self.store(decision)
        self._after_commit(partial(self.publish, changes))
        return changes

    def store(self, decision: Decision) -> Changes:
        """The first half of :meth:`apply`: commit a decision, and tell nobody yet."""
        changes = self._scope.storage.commit(self.uid, decision)
        self._rules = changes.session.rules
        return changes

    def _after_commit(self, call: Callable[[], None]) -> None:
        """Call it now, or when the transaction that was joined is committed."""
        block = self._scope.block
        if block is None:
            call()
        else:
            block.after_commit(call)

    def publish(self, changes: Changes) -> None:
        """The second half of :meth:`apply`: call the hooks and hand over what was released."""
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
        if len(ready) < len(scheduled):
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
    """Fires ``sessionFinalized`` once, in the very commit that resolves the last task of a session.

    Tasks that wait for that trigger themselves, directly or through others, do not count. Set
    `finalize_max_level` to hold it back while a finished instance has unresolved records at or above that
    level; resolving the last of them then finalises the session.
    """

    name: ClassVar[str] = "finalizing"
    finalize_trigger: ClassVar[str | None] = "sessionFinalized"
    finalize_max_level: ClassVar[int | None] = None


def _where(instance: TaskInstance | str) -> tuple[str, int]:
    return (
        (instance.task, instance.number)
        if isinstance(instance, TaskInstance)
        else split_instance_name(instance)
    )


def _mapping(value: object, what: str) -> dict[str, Any]:
    given: dict[str, Any] = decode(encode_mapping(value, what, DEFAULT_LIMITS))
    return given


def _status(value: Status | str) -> Status:
    try:
        return Status(value)
    except ValueError:
        message = f"{shown(value)} is no status; there are: {', '.join(Status)}"
        raise InvalidStatusError(message) from None


def _fire_result(changes: Changes) -> FireResult:
    finalized = changes.session.finalized is not None
    if changes.duplicate_of is not None:
        return FireResult(changes.duplicate_of.number, duplicate=True, finalized=finalized)
    created = [(instance.name, instance.status) for instance in changes.created]
    touched = [(instance.name, instance.status) for instance in changes.triggered] + created
    return FireResult(
        number=changes.fired[0].number,
        created=tuple([name for name, _ in created]),
        scheduled=tuple([name for name, status in touched if status is Status.SCHEDULED]),
        abandoned=tuple([name for name, status in touched if status is Status.ABANDONED]),
        finalized=finalized,
    )


async def _to_thread(function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
    import asyncio  # noqa: PLC0415 - it takes long to import, and who has an event loop has imported it

    return await asyncio.to_thread(function, *args, **kwargs)
