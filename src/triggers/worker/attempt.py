"""One running attempt: it calls the user's code, keeps its log, and stores how it ended."""

from __future__ import annotations

import inspect
import itertools
import logging
import math
import socket
import time
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

from triggers.core import decisions
from triggers.core.names import idempotency_key
from triggers.core.values import decode, encode_mapping
from triggers.exceptions import (
    CascadeDepthError,
    InvalidValueError,
    MaxRetriesExceeded,
    Retry,
    Skip,
    StorageError,
    TaskTimeoutError,
    TriggersError,
    UnknownTaskError,
)
from triggers.fired_by import FiredBy, firing_as
from triggers.logs import InstanceLog, LogIdentity, detached
from triggers.options import duration
from triggers.runners.base import BY_ITSELF
from triggers.session import TaskInstance
from triggers.storages.base import Lease
from triggers.task import TaskContext, TaskRequest, running_in
from triggers.worker.coroutines import run_anywhere
from triggers.worker.failures import error_payload, failed_in
from triggers.worker.heartbeat import HeldClaim, lease_of
from triggers.worker.retrying import terms_after

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from triggers.core.exchange import Changes, Decision
    from triggers.core.records import LogBatch
    from triggers.core.rules import Rule, RuleSet
    from triggers.core.state import Instance
    from triggers.manager import TriggerManager
    from triggers.runners.base import Delivery
    from triggers.storages.base import Storage
    from triggers.task import Registry, TriggerTask
    from triggers.worker.heartbeat import Heartbeat
    from triggers.worker.log_writer import LogWriter

_log = logging.getLogger(__name__)

#: The pauses before the outcome is stored again while the storage is unavailable, in seconds.
END_BACKOFF = (0.05, 0.1, 0.2, 0.5, 1.0)

#: How long after its timeout a coroutine that was canceled may take to end before it is failed, in seconds.
CANCELLATION = 1.0

#: How long a task waits at most while its log is stored, in seconds.
LOG_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class AttemptContext:
    """What all attempts of an executor share.

    Attributes:
        storage: the storage of the instances.
        tasks: the tasks that run in this process.
        manager_of: makes the manager of a session for the instance that uses it, from the manager's name, the
            UID and the instance.
        lease: how long a claim lasts without a heartbeat, in seconds, unless its task has its own lease.
        heartbeat: renews the claim while the task runs.
        log_writer: stores what the task has logged while it runs.
        is_closed: returns whether no further task may begin.
    """

    storage: Storage
    tasks: Registry
    manager_of: Callable[[str, str, FiredBy], TriggerManager]
    lease: float
    heartbeat: Heartbeat
    log_writer: LogWriter
    is_closed: Callable[[], bool]


@dataclass(frozen=True, slots=True)
class AttemptEnd:
    """How an attempt ended.

    Attributes:
        decide: makes the decision that stores the outcome, from the report of the attempt.
        metadata: what is added to the metadata of the instance.
        error: what the instance fails with, if the decision is that it fails.
    """

    decide: Callable[[decisions.AttemptReport], Decision]
    metadata: Mapping[str, Any] = field(default_factory=dict)
    error: BaseException | None = None


class RunningAttempt:
    """One run of one claimed instance.

    Args:
        context: what the attempts share.
        changes: the changes of the claim.
        claimed: the instance.
        claimed_at: the monotonic time before the claim was requested.
        delivery: how the instance came here.
    """

    def __init__(
        self,
        context: AttemptContext,
        changes: Changes,
        claimed: Instance,
        claimed_at: float,
        delivery: Delivery = BY_ITSELF,
    ) -> None:
        self.context = context
        self.delivery = delivery
        self.claimed = claimed
        self.payloads: Mapping[int, str] = changes.payloads
        self.uid: str = changes.session.uid
        self.rules: RuleSet = changes.session.rules
        self.rule: Rule | None = self.rules.rules.get(claimed.task)
        self.task: TriggerTask | None = context.tasks.get(self.rule.run) if self.rule else None
        self.fired_by: FiredBy = FiredBy(self.uid, claimed.name, claimed.cascade_depth + 1)
        self.manager: TriggerManager = context.manager_of(changes.session.manager, self.uid, self.fired_by)
        with firing_as(self.fired_by):
            self.policy: decisions.Policy = self.manager.policy
        lease = Lease(self.uid, claimed.task, claimed.number, claimed.fence)
        self.held: HeldClaim = HeldClaim.since(claimed_at, lease, lease_of(self.task, context.lease))
        if self.task is not None and self.task.timeout is not None:
            self.held.deadline = time.monotonic() + duration(self.task.timeout).total_seconds()
            self.held.expire = self._time_out
        self.log: InstanceLog = self._open_log()
        self.interrupted: BaseException | None = None

    def perform(self) -> None:
        """Run the task and store the outcome. Raise again what told the process to stop."""
        renewed = self.context.heartbeat.hold(self.held)
        # Asked after `hold`: a process that closes releases what is held by then.
        may_begin = renewed and not self.context.is_closed()
        try:
            ending = self._outcome() if may_begin else AttemptEnd(partial(decisions.release, self.policy))
            self.held.deadline = math.inf  # it has ended in time, however long it takes to store that
            self._end(ending)
        finally:
            self.context.heartbeat.drop(self.held)
            self.log.close()
        if self.interrupted is not None:
            raise self.interrupted

    # the user's code

    def _outcome(self) -> AttemptEnd:
        """Run the task and return how it ended."""
        try:
            result = self._result(self._call())
            return AttemptEnd(partial(decisions.finish, self.policy, result=result, rules=self.rules))
        except (Skip, Retry) as signal:
            return self._signalled(signal)
        except BaseException as error:  # noqa: BLE001 - whatever a task raises is stored in its instance
            stop = self.delivery.is_stop(error)
            if stop or issubclass(type(error), KeyboardInterrupt):
                self.interrupted = error
            if stop and (self.task is None or self.task.on_lost == "retry"):
                return AttemptEnd(partial(decisions.release, self.policy))
            return self._failed(error)

    def _call(self) -> object:
        limit = self.policy.limits.cascade_depth
        if self.rule is None or self.task is None:
            raise UnknownTaskError([(self.claimed.task, "is no longer in the configuration")])
        if self.claimed.cascade_depth > limit:
            message = (
                f"{self.claimed.cascade_depth} firings led to one another, more than the limit of {limit}"
            )
            raise CascadeDepthError(message)
        # Detached, because the inline runner can run a task inside the log block of another one.
        context = self._context(self.rule, self.task)
        with detached(), firing_as(self.fired_by), running_in(context), self.delivery.around():
            returned = self.task.run(context)
            return self._await(returned) if inspect.isawaitable(returned) else returned

    def _result(self, returned: object) -> str:
        return encode_mapping(returned, "result", self.policy.limits)

    def _await(self, coroutine: Any) -> Any:
        """Run a coroutine. After its timeout it fails, whatever it does when it is canceled."""
        import asyncio  # noqa: PLC0415 - its import is slow, and most tasks are not coroutines

        timeout = self.task.timeout if self.task else None
        returned: Any = None
        ended: BaseException | None = None
        deadline = self.held.deadline
        self.held.deadline += CANCELLATION

        # Neither the result nor an exception passes through asyncio. It prints results and sets attributes of
        # exceptions, and both can call the user's code.
        async def bounded() -> None:
            nonlocal returned, ended
            limit = asyncio.timeout(None if timeout is None else duration(timeout).total_seconds())
            try:
                async with limit:
                    returned = await coroutine
            except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - raised again below
                ended = error
            if limit.expired() or time.monotonic() >= deadline:
                late = TaskTimeoutError(self._too_long())
                late.__cause__, ended = ended, late
            elif ended is not None and issubclass(type(ended), asyncio.CancelledError):
                raise ended  # asyncio can turn this into a KeyboardInterrupt

        run_anywhere(bounded)
        if ended is not None:
            raise ended
        return returned

    def _context(self, rule: Rule, task: TriggerTask) -> TaskContext:
        claimed, delivery = self.claimed, self.delivery
        instance = TaskInstance(self.manager.storage, claimed)
        return TaskContext(
            manager=self.manager,
            task_instance=instance,
            trigger_kwargs=rule.with_defaults(self._kwargs()),
            idempotency_key=idempotency_key(self.uid, f"{claimed.task}#{claimed.root}"),
            fencing_token=claimed.fence,
            attempt=claimed.attempt,
            task=task,
            request=TaskRequest(
                claimed.retries, delivery.label or claimed.owner, delivery.hostname or socket.gethostname()
            ),
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
            now=self.context.storage.now,
            settings=manager.log_settings,
            context=manager.log_context,
            task_context=self.task.log_context if self.task else None,
            logger_name=self.context.tasks.logger_of(self.rule.run if self.rule else ""),
            writer=self.context.log_writer,
        )

    def _write_log(self, batch: LogBatch) -> None:
        attempt = self._attempt(logs=batch)
        decision = decisions.keep_logs(self.policy, attempt)
        self.context.storage.commit(self.uid, decision, timeout=LOG_TIMEOUT)

    # the outcome

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
        """The outcome of an exception: a failure, or a retry if a policy of the rule or the task says so."""
        encoded = self._error(error)
        terms = terms_after(error, self.uid, self.claimed, self.rule, self.task, encoded)
        if terms is None or self.claimed.retries >= terms.limit:
            self._log_last(partial(self.log.log_failure, error))
        else:
            signal = Retry(error, cooldown=timedelta(microseconds=terms.cooldown))
            signal.__traceback__ = error.__traceback__
            number = self.claimed.retries + 1
            self._log_last(partial(self.log.log_retry, signal, number, terms.limit + 1))
        fail = partial(decisions.fail, self.policy, error=encoded, retry=terms, rules=self.rules)
        return AttemptEnd(fail, error=error)

    def _log_last(self, log: Callable[[], None]) -> None:
        """Log how the attempt ended. An interrupt is raised again after the outcome is stored."""
        try:
            log()
        except BaseException as stop:  # noqa: BLE001 - an interrupt, in a handler of the application
            self.interrupted = stop

    def _signalled(self, signal: Skip | Retry) -> AttemptEnd:
        """The outcome that the task requested, or a failure if its arguments cannot be stored."""
        try:
            metadata = decode(encode_mapping(signal.metadata, "metadata", self.policy.limits))
            if isinstance(signal, Skip):
                return AttemptEnd(partial(decisions.skip_running, self.policy, rules=self.rules), metadata)
            return self._retried(signal, metadata)
        except InvalidValueError as invalid:
            return self._failed(invalid)

    def _retried(self, signal: Retry, metadata: Mapping[str, Any]) -> AttemptEnd:
        limit, retries = self.task.max_retries if self.task else 0, self.claimed.retries
        exhausted = MaxRetriesExceeded(f"{self.claimed.name} requested another retry after {limit} retries")
        exhausted = exhausted.with_traceback(signal.__traceback__)
        exhausted.__cause__ = signal.cause
        terms = self._retry_terms(signal, limit, exhausted)
        cause = signal if signal.cause is None else signal.cause
        if retries >= limit:
            self._log_last(partial(self.log.log_failure, exhausted))
        else:
            self._log_last(partial(self.log.log_retry, signal, retries + 1, limit + 1))
        fail = partial(decisions.fail, self.policy, error=self._error(cause), retry=terms, rules=self.rules)
        return AttemptEnd(fail, metadata, exhausted if retries >= limit else cause)

    def _retry_terms(self, signal: Retry, limit: int, exhausted: MaxRetriesExceeded) -> decisions.RetryTerms:
        kwargs, limits = signal.replacement_kwargs, self.policy.limits
        payload = None if kwargs is None else encode_mapping(kwargs, "replacement_kwargs", limits)
        return decisions.RetryTerms(
            round(signal.cooldown.total_seconds() * 1e6), limit, self._error(exhausted), payload
        )

    def _too_long(self) -> str:
        timeout = duration(self.task.timeout) if self.task and self.task.timeout else None
        return f"{self.claimed.name} ran longer than its timeout of {timeout}"

    def _time_out(self) -> None:
        """Fail a task that is still running at its deadline. The heartbeat calls this in another thread."""
        _log.warning("session %r: the thread of %s stays busy until it returns", self.uid, self.claimed.name)
        try:
            self._end(self._failed(TaskTimeoutError(self._too_long())))
        finally:
            self.log.resume()

    def _end(self, ending: AttemptEnd) -> None:
        """Store the outcome with the log. Retry while the storage is unavailable and the claim holds."""
        name, attempt = self.claimed.name, self._attempt(ending.metadata, self.log.drain())
        for pause in itertools.chain((0.0,), END_BACKOFF, itertools.repeat(END_BACKOFF[-1])):
            try:
                if pause:
                    time.sleep(pause)
                changes = self.manager.store(ending.decide(attempt))
            except InvalidValueError as error:  # with its additions, the metadata is too large
                logged = attempt.logs
                ending = self._failed(error)
                drained = self.log.drain()
                attempt = self._attempt(logs=drained if logged is None else logged + drained)
            except BaseException as error:
                if not self._is_passing(error):
                    raise
                if self.held.is_lost():
                    _log.exception(
                        "the outcome of %s was not stored before its lease expired; it runs again", name
                    )
                    return
                _log.warning("the outcome of %s could not be stored; trying again", name, exc_info=True)
            else:
                self._follow_up(changes, ending)
                return

    def _is_passing(self, error: BaseException) -> bool:
        """Return whether the outcome can still be stored after this error.

        It can if the storage is unavailable, or if a time limit of the runner interrupted the commit. An
        exception that tells the process to stop is kept, and raised after the outcome is stored.
        """
        if isinstance(error, Exception):
            return isinstance(error, StorageError) or not isinstance(error, TriggersError)
        if isinstance(error, KeyboardInterrupt | SystemExit) or self.delivery.is_stop(error):
            self.interrupted = error
            return True
        return False

    def _follow_up(self, changes: Changes, ending: AttemptEnd) -> None:
        """Dispatch what the outcome released, and call the hooks. Their errors do not change the outcome."""
        if changes.refused:
            _log.warning("session %r: %s", self.uid, changes.refused)
        elif ending.error is not None and (failed := failed_in(changes)) is not None:
            # An instance that requested a retry has failed if no retry is possible any more.
            self._log_last(partial(self.log.log_failure, ending.error))
            self.delivery.on_failure(decode(failed.error or "{}"))
        try:
            with firing_as(self.fired_by):
                self.manager.publish(changes)
        except Exception:  # noqa: BLE001 - a hook can raise anything
            _log.exception(
                "a hook of session %r raised an exception after %s had ended", self.uid, self.claimed.name
            )
