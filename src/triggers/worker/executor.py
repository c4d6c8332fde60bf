"""Claim instances and run them, in the same way for every runner.

A runner gives an executor the name of an instance. Only the claim decides whether the instance runs here. The
process's monotonic clock says when to stop relying on a claim; the storage's clock says when it expires.
"""

from __future__ import annotations

import itertools
import logging
import os
import socket
import time
import uuid
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from triggers.core import decisions
from triggers.exceptions import StorageCorruptError, UnsupportedRulesError
from triggers.fork import reset_after_fork
from triggers.health import DAMAGE, Problems, place_of
from triggers.logs import RemoteFailure
from triggers.runners.base import BY_ITSELF
from triggers.storages.announcements import announce
from triggers.storages.base import ReadyInstance
from triggers.storages.in_time import commit_in_time
from triggers.worker.attempt import AttemptContext, RunningAttempt
from triggers.worker.failures import (
    error_payload,
    forward_failure,
    lost_failure,
    publish_failure,
    worker_lost,
)
from triggers.worker.heartbeat import Heartbeat, lease_of
from triggers.worker.isolation import isolation
from triggers.worker.log_writer import LogWriter
from triggers.worker.timers import publish_elapsed

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from triggers.core.exchange import Changes, Decision
    from triggers.core.rules import Rule
    from triggers.fired_by import FiredBy
    from triggers.manager import TriggerManager
    from triggers.runners.base import Delivery
    from triggers.storages.base import Storage
    from triggers.task import Registry
    from triggers.worker.isolation import Ticket

_log = logging.getLogger(__name__)


class ClaimIds:
    """Makes the names of claims. Each process has its own prefix, also a forked child."""

    def __init__(self) -> None:
        self.after_fork()
        reset_after_fork(self)

    def after_fork(self) -> None:
        """Choose another prefix than the parent process."""
        self._prefix = f"{socket.gethostname()}:{os.getpid()}:{uuid.uuid4().hex[:12]}"
        self._claims = itertools.count()

    def next(self) -> str:
        """Return a name that no other claim has."""
        return f"{self._prefix}:{next(self._claims)}"


@dataclass(slots=True)
class Executor:
    """Claims instances, runs them, and releases them when the process stops.

    Attributes:
        storage: the storage of the instances.
        tasks: the tasks that run in this process.
        manager_of: makes the manager of a session for an instance that uses it, from the manager's name, the
            UID and the instance; raises ManagerMismatchError if this process does not have that manager.
        policy_of: name of a manager → its policy, or None if this process does not have the manager.
        lease: how long a claim lasts without a heartbeat, in seconds, unless its task has its own lease.
        max_crashes: how many charged crashes make an instance failed.
        problems: where problems are reported.
        offer: dispatches instances.
        closed: whether no further instance may start.
        heartbeat: renews the claims of the running instances.
        log_writer: stores what the running instances have logged.
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
    log_writer: LogWriter = field(init=False)
    _owner: ClaimIds = field(init=False, default_factory=ClaimIds)

    def __post_init__(self) -> None:
        self.heartbeat = Heartbeat(self.storage, self.problems)
        self.log_writer = LogWriter(self.problems)

    @property
    def context(self) -> AttemptContext:
        """What a running attempt needs of this executor."""
        return AttemptContext(
            self.storage,
            self.tasks,
            self.manager_of,
            self.lease,
            self.heartbeat,
            self.log_writer,
            self._is_closed,
        )

    @property
    def threads(self) -> tuple[Heartbeat, LogWriter]:
        """The threads that run beside the instances."""
        return self.heartbeat, self.log_writer

    def run(self, uid: str, task: str, number: int, delivery: Delivery = BY_ITSELF) -> bool:
        """Run an instance if it can be claimed; return whether it was claimed.

        An exception of the task is stored in the instance and not raised. KeyboardInterrupt, and an exception
        for which `delivery.is_stop` holds, are raised after the outcome is stored.
        """
        if not self.heartbeat.is_ready():  # nothing would renew the claim; the sweep dispatches it again
            return False
        try:
            return self._claim_and_run(uid, task, number, delivery)
        except _UnreadableError as error:
            what = "it is skipped and tried again later; the others run"
            self.problems.report("unreadable", place_of(uid, task, number), error.cause, what)
            return False

    def _claim_and_run(self, uid: str, task: str, number: int, delivery: Delivery) -> bool:
        with isolation.together(self._is_closed) as ticket:
            if ticket is None:
                return False
            name = self._owner.next()
            changes = self._run(ticket, (uid, task, number), name, delivery)
        if changes.refused == decisions.MUST_RUN_ALONE:
            due = ReadyInstance.by(changes.session.rules, uid, task, number)
            return self._run_alone(due, decisions.alone(name), delivery)
        if changes.claimed is None:
            isolation.bring_next()
        return changes.claimed is not None

    def _run_alone(self, due: ReadyInstance, name: str, delivery: Delivery) -> bool:
        """Run a suspect while nothing else runs in this process; return whether it was claimed."""
        with isolation.alone(due[:3], lambda: self.offer([due]), self._is_closed) as ticket:
            return ticket is not None and self._run(ticket, due[:3], name, delivery).claimed is not None

    def _run(self, ticket: Ticket, where: tuple[str, str, int], name: str, delivery: Delivery) -> Changes:
        """Claim an instance under a name, and run it if that succeeded; return the changes of the claim."""
        before = time.monotonic()
        try:
            changes = self._claim(*where, decisions.labelled(name, delivery.label))
        except (*DAMAGE, StorageCorruptError, UnsupportedRulesError) as error:
            raise _UnreadableError(error) from error
        if self.problems:
            self.problems.resolve(place_of(*where))
        if changes.claimed is not None:
            run = RunningAttempt(self.context, changes, changes.claimed, before, delivery)
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
        """Fail the instance of a message, as :func:`triggers.core.decisions.abort` says.

        Returns:
            Whether it was failed.

        Raises:
            StorageError: the storage is unavailable; nothing was changed.
        """
        failure = RemoteFailure(lambda _: error, self.tasks.logger_of)
        payload = error_payload(error)
        decision = decisions.abort(self.policy_of, task, number, label, payload, log=failure.record)
        return self._end_remotely(uid, decision, failure, timeout)

    def lose(self, uid: str, task: str, number: int, label: str) -> bool:
        """Recover the instance of a dead worker, as :func:`triggers.core.decisions.lose` says.

        Returns:
            Whether that worker was running it.

        Raises:
            StorageError: the storage is unavailable; nothing was changed.
        """
        failure = lost_failure(self.tasks)
        decision = decisions.lose(self.policy_of, task, number, label, worker_lost, log=failure.record)
        return self._end_remotely(uid, decision, failure, None)

    def _end_remotely(
        self, uid: str, decision: Decision, failure: RemoteFailure, timeout: float | None
    ) -> bool:
        """Commit the end of an instance that another process runs; return whether it was not refused."""
        elapsed: list[Changes] = []
        try:
            changes = commit_in_time(self.storage, uid, decision, self.policy_of, elapsed, timeout)
        finally:
            publish_elapsed(elapsed, self.manager_of)
        forward_failure(failure, changes)
        publish_failure(changes, self.manager_of)
        return not changes.refused

    def release_all(self) -> None:
        """Return every running instance of this process to the queue, so that others can run it at once.

        If one cannot be released, the sweep finds it after its lease.
        """
        for held in self.heartbeat.held:
            held.lost = True
            self.heartbeat.drop(held)
            lease = held.lease
            attempt = decisions.AttemptReport(lease.task, lease.number, lease.fence)
            try:
                self.storage.commit(lease.uid, decisions.release(self.policy_of, attempt))
            except Exception:  # noqa: BLE001 - whatever the error is, the other instances must be released
                what = "%s#%d of session %r could not be released; it runs again after its lease"
                _log.warning(what, lease.task, lease.number, lease.uid, exc_info=True)
            else:
                announce(self.storage)

    def _claim(self, uid: str, task: str, number: int, owner: str = "") -> Changes:
        owner = owner or self._owner.next()
        return self.storage.commit(uid, decisions.claim(self.policy_of, task, number, owner, self._terms))

    def _terms(self, manager: str, rule: Rule | None) -> decisions.Terms | None:
        if self.policy_of(manager) is None:
            return None
        if rule is None:  # removed from the configuration: it is claimed, and then failed with the reason
            return decisions.Terms(round(self.lease * 1e6))
        task = self.tasks.get(rule.run)
        if task is None:
            return None
        budget = 0 if task.on_lost == "fail" else task.max_crashes or self.max_crashes
        return decisions.Terms(round(lease_of(task, self.lease) * 1e6), budget)


class _UnreadableError(Exception):
    """An instance could not be claimed because the instance or its session cannot be read."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause
