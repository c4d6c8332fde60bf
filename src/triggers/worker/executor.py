"""What happens around the user's code, the same for every runner: claim, heartbeat, run, end.

An executor is given the name of an instance, by a message, a hint, or a sweep; whether it runs is
decided by the claim alone. Only the process's monotonic clock tells it when to stop trusting a claim;
only the storage's clock tells whether the claim has run out.
"""

from __future__ import annotations

import contextvars
import copy
import inspect
import itertools
import logging
import os
import socket
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from triggers.core import decisions
from triggers.core.values import Limits, decode, encode, encode_mapping
from triggers.exceptions import (
    CascadeDepthError,
    InvalidValueError,
    MaxRetriesExceeded,
    Retry,
    Skip,
    StorageCorruptError,
    StorageError,
    TaskTimeoutError,
    TriggersError,
    UnknownTaskError,
    WorkerLost,
)
from triggers.fired_by import FiredBy, firing_as
from triggers.fork import reset_after_fork
from triggers.health import DAMAGE, Problems, place_of
from triggers.logs import InstanceLog, LogIdentity, LogSettings, detached, exception_record
from triggers.options import duration
from triggers.runners.base import BY_ITSELF
from triggers.session import TaskInstance
from triggers.storages.base import Lease, ReadyInstance
from triggers.task import TaskContext
from triggers.worker.heartbeat import Heartbeat, HeldClaim
from triggers.worker.isolation import isolation

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triggers.core.exchange import Changes, Decision
    from triggers.core.records import LogBatch
    from triggers.core.rules import Rule
    from triggers.core.state import Instance
    from triggers.manager import TriggerManager
    from triggers.runners.base import Delivery
    from triggers.storages.base import Storage
    from triggers.task import Registry, TriggerTask
    from triggers.worker.isolation import Ticket

_log = logging.getLogger(__name__)

#: Pauses between tries to store the end of a run while the storage is away, in seconds.
END_BACKOFF = (0.05, 0.1, 0.2, 0.5, 1.0)

#: An error with its whole tree is bounded by the log's own limits, and may be larger than a payload.
ROOMY = Limits(payload=16 * 1024 * 1024)

#: How long writing a log may keep a task waiting, in seconds.
LOG_PATIENCE = 2.0


class ClaimIds:
    """Names claims, one prefix for each life of a process, so that a forked child is not its parent."""

    def __init__(self) -> None:
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Take another prefix than the parent's."""
        self._prefix = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
        self._claims = itertools.count()

    def next(self) -> str:
        """A name for one claim."""
        return f"{self._prefix}:{next(self._claims)}"


@dataclass(slots=True)
class Executor:
    """Claims instances and runs them.

    Attributes:
        storage: where they are.
        tasks: what can be run here.
        manager_of: makes the manager of a session that an instance uses, from the manager's name, the UID and
            the instance; raises ManagerMismatchError if this process lacks that manager.
        policy_of: name of a manager → its policy, None where this process lacks it.
        lease: how long a claim lasts without a heartbeat, in seconds.
        max_crashes: at so many crashes of its own an instance is failed.
        offer: dispatches instances.
        closed: whether nothing more is to begin.
        problems: where it is noted what does not work.
    """

    storage: Storage
    tasks: Registry
    manager_of: Callable[[str, str, FiredBy], TriggerManager]
    policy_of: decisions.PolicyOf
    lease: float
    max_crashes: int
    problems: Problems = field(default_factory=Problems)
    offer: Callable[[Sequence[ReadyInstance]], None] = lambda _: None
    closed: bool = False
    heartbeat: Heartbeat = field(init=False)
    _owner: ClaimIds = field(init=False, default_factory=ClaimIds)

    def __post_init__(self) -> None:
        self.heartbeat = Heartbeat(self.storage, self.problems)

    def run(self, uid: str, task: str, number: int, delivery: Delivery = BY_ITSELF) -> bool:
        """Run an instance, if it can be claimed; returns whether it was.

        What the task raises ends up in the instance, never here, but for KeyboardInterrupt, and for what the
        delivery calls a stop: those are raised again once what they come to is stored.
        """
        if not self.heartbeat.is_ready():  # a claim that nothing renews would run out: the sweep tries again
            return False
        try:
            return self._claim_and_run(uid, task, number, delivery)
        except _UnreadableError as error:
            what = "it is skipped, and tried again later; all others go on"
            self.problems.report("unreadable", place_of(uid, task, number), error.cause, what)
            return False

    def _claim_and_run(self, uid: str, task: str, number: int, delivery: Delivery) -> bool:
        with isolation.together(self._is_closed) as ticket:
            if ticket is None:
                return False
            name = self._owner.next()
            claimed = self._run(ticket, (uid, task, number), name, delivery)
        if claimed.refused != decisions.MUST_RUN_ALONE:
            if claimed.claimed is None:
                isolation.bring_next()
            return claimed.claimed is not None
        due = ReadyInstance.by(claimed.session.rules, uid, task, number)
        with isolation.alone(due[:3], lambda: self.offer([due]), self._is_closed) as ticket:
            if ticket is None:
                return False
            alone = self._run(ticket, (uid, task, number), decisions.alone(name), delivery)
            return alone.claimed is not None

    def _run(self, ticket: Ticket, where: tuple[str, str, int], name: str, delivery: Delivery) -> Changes:
        """Claim an instance under a name, and run it if that succeeded."""
        before = time.monotonic()
        try:
            changes = self._claim(*where, decisions.labelled(name, delivery.label))
        except (*DAMAGE, StorageCorruptError) as error:
            raise _UnreadableError(error) from error
        if self.problems:
            self.problems.resolve(place_of(*where))
        if changes.claimed is not None:
            run = RunningAttempt(self, changes, changes.claimed, before, delivery)
            ticket.is_over = run.held.is_over
            run.perform()
        elif changes.transitioned:
            self._warn_if_missing(changes.session.rules.rules.get(where[1]))
        return changes

    def _warn_if_missing(self, rule: Rule | None) -> None:
        """Tell that an instance was returned because this process does not have its task."""
        if rule is not None and rule.run not in self.tasks:
            self.tasks.warn_missing(rule.run)

    def _is_closed(self) -> bool:
        return self.closed

    def abort(
        self,
        uid: str,
        task: str,
        number: int,
        label: str,
        error: BaseException,
        *,
        timeout: float | None = None,
    ) -> bool:
        """Fail what a message was to run, see :func:`triggers.core.decisions.abort`; returns whether it did.

        Raises:
            StorageError: the storage is away; nothing was changed.
        """
        decision = decisions.abort(self.policy_of, task, number, label, error_payload(error))
        return not self.storage.commit(uid, decision, timeout=timeout).refused

    def lose(self, uid: str, task: str, number: int, label: str) -> bool:
        """Rescue what a worker that is dead was running, see :func:`triggers.core.decisions.lose`.

        Raises:
            StorageError: the storage is away; nothing was changed.
        """
        decision = decisions.lose(self.policy_of, task, number, label, worker_lost)
        return not self.storage.commit(uid, decision).refused

    def release_all(self) -> None:
        """Let every running instance of this process go, so that others can run it at once.

        What cannot be let go because the storage is away is found once its lease has run out.
        """
        for held in self.heartbeat.held:
            held.lost = True
            self.heartbeat.drop(held)
            lease = held.lease
            attempt = decisions.AttemptReport(lease.task, lease.number, lease.fence)
            try:
                self.storage.commit(lease.uid, decisions.release(self.policy_of, attempt))
            except Exception:  # noqa: BLE001 - whatever the error is, the other instances must be released
                _log.warning(
                    "%s#%d of session %r was not let go", lease.task, lease.number, lease.uid, exc_info=True
                )

    def _claim(self, uid: str, task: str, number: int, owner: str = "") -> Changes:
        owner = owner or self._owner.next()
        return self.storage.commit(uid, decisions.claim(self.policy_of, task, number, owner, self._terms))

    def _terms(self, manager: str, rule: Rule | None) -> decisions.Terms | None:
        if self.policy_of(manager) is None:
            return None
        if rule is None:  # removed from the configuration: claimed, and then failed by name
            return decisions.Terms(round(self.lease * 1e6))
        task = self.tasks.get(rule.run)
        if task is None:
            return None
        budget = 0 if task.on_lost == "fail" else task.max_crashes or self.max_crashes
        return decisions.Terms(round(self.lease_of(task) * 1e6), budget)

    def lease_of(self, task: TriggerTask | None) -> float:
        """How long a claim of the task lasts, in seconds."""
        return self.lease if task is None or task.lease is None else duration(task.lease).total_seconds()


class _UnreadableError(Exception):
    """An instance could not be claimed, since it, or its session, cannot be read."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How a run ended: the decision to make about the attempt, and what is added to the metadata."""

    decide: Callable[[decisions.AttemptReport], Decision]
    metadata: Mapping[str, Any] = field(default_factory=dict)


class RunningAttempt:
    """One run of one claimed instance."""

    def __init__(
        self,
        executor: Executor,
        changes: Changes,
        claimed: Instance,
        claimed_at: float,
        delivery: Delivery = BY_ITSELF,
    ) -> None:
        self.executor = executor
        self.delivery = delivery
        self.claimed = claimed
        self.payloads = changes.payloads
        self.uid = changes.session.uid
        self.rules = changes.session.rules
        self.rule = self.rules.rules.get(claimed.task)
        self.task = executor.tasks.get(self.rule.run) if self.rule else None
        self.fired_by = FiredBy(self.uid, claimed.name, claimed.cascade_depth + 1)
        self.manager = executor.manager_of(changes.session.manager, self.uid, self.fired_by)
        with firing_as(self.fired_by):
            self.policy = self.manager.policy
        lasts = executor.lease_of(self.task)
        lease = Lease(self.uid, claimed.task, claimed.number, claimed.fence)
        self.held = HeldClaim.since(claimed_at, lease, lasts)
        if self.task is not None and self.task.timeout is not None:
            self.held.deadline = time.monotonic() + duration(self.task.timeout).total_seconds()
            self.held.expire = self._time_out
        self.log = self._open_log()
        self.interrupted: BaseException | None = None

    def perform(self) -> None:
        """Run the task and store how it ended."""
        renewed = self.executor.heartbeat.hold(self.held)
        try:
            self._end(self._outcome() if renewed else AttemptEnd(partial(decisions.release, self.policy)))
        finally:
            self.executor.heartbeat.drop(self.held)
            self.log.close()
        if self.interrupted is not None:
            raise self.interrupted

    # -- the user's code --------------------------------------------------------------------------------

    def _outcome(self) -> AttemptEnd:
        """Run the task and say how it ended."""
        try:
            result = self._result(self._call())
            return AttemptEnd(partial(decisions.finish, self.policy, result=result, rules=self.rules))
        except (Skip, Retry) as signal:
            return self._signalled(signal)
        except BaseException as error:  # noqa: BLE001 - whatever a task raises ends up in its instance
            stop = self.delivery.is_stop(error)
            if stop or issubclass(type(error), KeyboardInterrupt):
                self.interrupted = error
            again = self.task is None or self.task.on_lost == "retry"
            return (
                AttemptEnd(partial(decisions.release, self.policy)) if stop and again else self._failed(error)
            )

    def _call(self) -> object:
        limit = self.policy.limits.cascade_depth
        if self.rule is None or self.task is None:
            raise UnknownTaskError([(self.claimed.task, "is no longer in the configuration")])
        if self.claimed.cascade_depth > limit:
            message = (
                f"{self.claimed.cascade_depth} firings led to one another, more than the limit of {limit}"
            )
            raise CascadeDepthError(message)
        # Detached: where one task runs within another's block, as the inline runner can have it.
        with detached(), firing_as(self.fired_by), self.delivery.around():
            returned = self.task.run(self._context(self.rule))
            return self._await(returned) if inspect.isawaitable(returned) else returned

    def _result(self, returned: object) -> str:
        return encode_mapping(returned, "result", self.policy.limits)

    def _await(self, coroutine: Any) -> Any:
        """Run a coroutine; past its timeout it fails with that, whatever it does when it is canceled."""
        import asyncio  # noqa: PLC0415 - most tasks are not coroutines, and it takes long to import

        timeout = self.task.timeout if self.task else None

        returned: Any = None
        ended: BaseException | None = None

        # Neither passes through asyncio, which asks a task for the text of its result, and sets attributes of
        # exceptions: both may be anybody's code.
        async def bounded() -> None:
            nonlocal returned, ended
            limit = asyncio.timeout(None if timeout is None else duration(timeout).total_seconds())
            try:
                async with limit:
                    returned = await coroutine
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - raised again below
                ended = error
            if limit.expired() or time.monotonic() >= self.held.deadline:
                late = TaskTimeoutError(self._too_long())
                late.__cause__, ended = ended, late
            elif ended is not None and issubclass(type(ended), asyncio.CancelledError):
                raise ended  # for asyncio, which may make a KeyboardInterrupt of it

        _run_anywhere(bounded)
        if ended is not None:
            raise ended
        return returned

    def _context(self, rule: Rule) -> TaskContext:
        claimed = self.claimed
        instance = TaskInstance(self.manager.storage, claimed)
        return TaskContext(
            manager=self.manager,
            task_instance=instance,
            trigger_kwargs=merged(copy.deepcopy(rule.with_params), self._kwargs()),
            idempotency_key=idempotency_key(self.uid, f"{claimed.task}#{claimed.root}"),
            fencing_token=claimed.fence,
            attempt=claimed.attempt,
            log=self.log,
            is_lease_lost=self.held.is_over,
        )

    def _kwargs(self) -> dict[str, Any]:
        if self.claimed.kwargs is not None:
            replaced: dict[str, Any] = decode(self.claimed.kwargs)
            return replaced
        return {trigger: decode(self.payloads[number]) for trigger, number in self.claimed.taken.items()}

    def _open_log(self) -> InstanceLog:
        claimed, manager = self.claimed, self.manager
        return InstanceLog(
            LogIdentity(self.uid, claimed.task, claimed.name, claimed.attempt, claimed.fence),
            write=self._write_log,
            now=self.executor.storage.now,
            settings=manager.log_settings,
            context=manager.log_context,
            task_context=self.task.log_context if self.task else None,
            logger_name=type(self.task).__module__ if self.task else "triggers.tasks",
        )

    def _write_log(self, batch: LogBatch) -> None:
        attempt = self._attempt(logs=batch)
        self.executor.storage.commit(
            self.uid, decisions.keep_logs(self.policy, attempt), timeout=LOG_PATIENCE
        )

    # -- how it ended -----------------------------------------------------------------------------------

    def _attempt(
        self, metadata: Mapping[str, Any] | None = None, logs: LogBatch | None = None
    ) -> decisions.AttemptReport:
        claimed = self.claimed
        return decisions.AttemptReport(
            claimed.task, claimed.number, claimed.fence, claimed.attempt, logs, metadata or {}
        )

    def _error(self, error: BaseException) -> str:
        return error_payload(error, self.manager.log_settings, self.log.secrets())

    def _failed(self, error: BaseException) -> AttemptEnd:
        return AttemptEnd(partial(decisions.fail, self.policy, error=self._error(error)))

    def _signalled(self, signal: Skip | Retry) -> AttemptEnd:
        """The end that a task asked for, or a failure if what it gave cannot be stored."""
        try:
            metadata = decode(encode_mapping(signal.metadata, "metadata", self.policy.limits))
            if isinstance(signal, Skip):
                return AttemptEnd(partial(decisions.skip_running, self.policy), metadata)
            error, retry = (
                self._error(signal if signal.cause is None else signal.cause),
                self._retry_terms(signal),
            )
            return AttemptEnd(partial(decisions.fail, self.policy, error=error, retry=retry), metadata)
        except InvalidValueError as invalid:
            return self._failed(invalid)

    def _retry_terms(self, signal: Retry) -> decisions.RetryTerms:
        limit, limits = self.task.max_retries if self.task else 0, self.policy.limits
        exhausted = MaxRetriesExceeded(f"{self.claimed.name} asked to run again after {limit} retries")
        exhausted.__cause__ = signal.cause
        kwargs = signal.replacement_kwargs
        payload = None if kwargs is None else encode_mapping(kwargs, "replacement_kwargs", limits)
        return decisions.RetryTerms(
            round(signal.cooldown.total_seconds() * 1e6), limit, self._error(exhausted), payload
        )

    def _too_long(self) -> str:
        timeout = duration(self.task.timeout) if self.task and self.task.timeout else None
        return f"{self.claimed.name} ran longer than its timeout of {timeout}"

    def _time_out(self) -> None:
        """From a thread of its own: fail a task that is still running at its deadline."""
        _log.error("%s of session %r; its thread is busy until it returns", self._too_long(), self.uid)
        self._end(self._failed(TaskTimeoutError(self._too_long())))

    def _end(self, ending: AttemptEnd) -> None:
        """Store the end, with the log, trying again while the storage is away and the claim still is ours."""
        name, attempt = self.claimed.name, self._attempt(ending.metadata, self.log.drain())
        for pause in itertools.chain((0.0,), END_BACKOFF, itertools.repeat(END_BACKOFF[-1])):
            try:
                if pause:
                    time.sleep(pause)
                changes = self.manager.store(ending.decide(attempt))
            except InvalidValueError as error:  # what it adds to the metadata makes that too large
                ending, attempt = self._failed(error), self._attempt(logs=attempt.logs)
            except BaseException as error:
                if not self._is_passing(error):
                    raise
                if self.held.is_lost():
                    _log.exception("the end of %s was not stored before its lease ran out", name)
                    return
                _log.warning("the end of %s could not be stored; it is tried again", name, exc_info=True)
            else:
                self._follow_up(changes)
                return

    def _is_passing(self, error: BaseException) -> bool:
        """Whether the end can be stored after this: the storage was away, or something struck meanwhile.

        A time limit of the runner can strike anywhere. What tells the process to go is raised again later.
        """
        if isinstance(error, Exception):
            return isinstance(error, StorageError) or not isinstance(error, TriggersError)
        if isinstance(error, KeyboardInterrupt | SystemExit) or self.delivery.is_stop(error):
            self.interrupted = error
            return True
        return False

    def _follow_up(self, changes: Changes) -> None:
        """Hand over what the end released, and call the hooks; whatever they raise, the end is stored."""
        if changes.refused:
            _log.warning("session %r: %s", self.uid, changes.refused)
        try:
            with firing_as(self.fired_by):
                self.manager.publish(changes)
        except Exception:  # noqa: BLE001 - a hook's
            _log.exception("a hook of session %r raised after %s had ended", self.uid, self.claimed.name)


def worker_lost(what: str) -> str:
    """The error, as a payload, of an instance that has lost too many workers."""
    return error_payload(WorkerLost(what))


def error_payload(
    error: BaseException, settings: LogSettings | None = None, secrets: tuple[str, ...] = ()
) -> str:
    """Encode an exception, with its whole tree, as the error of an instance.

    Args:
        error: the exception.
        settings: how it is recorded; the defaults if None.
        secrets: values that are masked in it.
    """
    return encode(dict(exception_record(error, settings or LogSettings(), secrets)), "the error", ROOMY)


def idempotency_key(uid: str, root: str) -> str:
    """The UID and the root's name as one string that no other pair has."""
    return f"{uid.replace('%', '%25').replace('/', '%2F')}/{root}"


def merged(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """What is given over the defaults, mapping by mapping; anything else, lists too, is replaced."""
    both = dict(defaults)
    for key, value in given.items():
        under = both.get(key)
        both[key] = (
            merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
        )
    return both


def _run_anywhere(make: Callable[[], Any]) -> Any:
    """Run a coroutine to its end, on a thread of its own where this one already runs an event loop."""
    import asyncio  # noqa: PLC0415 - as above

    if asyncio._get_running_loop() is None:  # noqa: SLF001 - the public function raises, and the task would see that
        return asyncio.run(make())
    with ThreadPoolExecutor(1, thread_name_prefix="triggers-async") as pool:
        return pool.submit(contextvars.copy_context().run, asyncio.run, make()).result()
