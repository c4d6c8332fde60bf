"""`Triggers` combines a storage, runners, a manager class and settings."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from triggers.core.configuration import check_configuration
from triggers.core.names import is_name
from triggers.core.values import DEFAULT_LIMITS, Limits, type_name
from triggers.deciding import ManagerServices
from triggers.exceptions import ManagerMismatchError, PluginError, UnknownSessionError
from triggers.health import Health, Problems
from triggers.manager import FinalizingTriggerManager, TriggerManager
from triggers.options import check_application, duration
from triggers.plugins import (
    MANAGERS,
    RUNNERS,
    check_chosen,
    is_refused,
    load_stored,
    manager_class,
    manager_named,
    permit,
    runner_names,
    runner_of_alias,
    storage_from_url,
)
from triggers.plugins import names as installed
from triggers.runners.base import BY_ITSELF
from triggers.runners.dispatcher import Dispatcher
from triggers.session import SessionView, unfinished
from triggers.storages.announcements import announce
from triggers.storages.base import Purge
from triggers.task import registry as default_registry
from triggers.worker.executor import Executor
from triggers.worker.sweep import Sweep, Sweeper, SweepReport

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
    from typing import Self

    from triggers.core.decisions import Policy
    from triggers.core.rules import RuleSet
    from triggers.core.state import Session
    from triggers.fired_by import FiredBy
    from triggers.runners.base import Delivery, Runner
    from triggers.storages.base import Backlog, ReadyInstance, Storage
    from triggers.task import Registry

_log = logging.getLogger(__name__)

#: How long a claim lasts without a heartbeat.
LEASE = timedelta(seconds=60)

#: The pause before the sweep dispatches an instance again.
GRACE = timedelta(seconds=30)

#: The pause between two sweeps.
SWEEP_INTERVAL = timedelta(seconds=5)

#: How many crashes that no other instance can have caused make an instance failed.
MAX_CRASHES = 3

#: How many instances the warning of `join` names, and in how many sessions it looks for them.
TOLD, LOOKED_AT = 10, 200

#: The shortest pause between two checks of `join`, in seconds.
JOIN_PAUSE = 0.02


class Triggers:
    """An application's access to its sessions.

    The threads of the runner start with the first released instance, the thread of the sweep with
    :meth:`start`. Each process starts its own, so you can create the object before a fork. As a context
    manager, the object starts and closes itself.

    Args:
        url: the URL of the storage, such as ``sqlite:///survey.db``, or a storage.
        runner: the default runner, or its name; None for a process that only fires. Workers hear of what it
            releases, and run it.
        runners: further runners, by the names that `using` gives them.
        manager: the manager class of this application, or the name of an installed one.
        managers: further manager classes, or names, that sessions of this application can belong to.
        plugins: names of installed runners and managers that stored data may import: a `using`, and the
            manager of a session. Those of this distribution, and those given here as objects, need not be
            listed.
        registry: the tasks that run in this process.
        complete_registry: whether the registry has every task, so that an unknown `run` is refused at once.
        lease: how long a claim lasts without a heartbeat.
        grace: the pause before the sweep dispatches an instance again.
        sweep_interval: the pause between two sweeps.
        max_crashes: how many crashes that no other instance can have caused make an instance failed.
        limits: the limits for values.

    Durations are timedeltas or numbers of seconds.

    Raises:
        InvalidOptionError: an option is not valid.
        PluginError: there is no storage, runner or plugin of that name.
        StorageError: the storage cannot be opened.
    """

    def __init__(
        self,
        url: str | Storage,
        *,
        runner: str | Runner | None = "threads",
        runners: Mapping[str, Runner] | None = None,
        manager: type[TriggerManager] | str = TriggerManager,
        managers: Sequence[type[TriggerManager] | str] = (),
        plugins: Collection[str] = (),
        registry: Registry = default_registry,
        complete_registry: bool = False,
        lease: timedelta | float = LEASE,
        grace: timedelta | float = GRACE,
        sweep_interval: timedelta | float = SWEEP_INTERVAL,
        max_crashes: int = MAX_CRASHES,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        check_application(locals())
        lease, grace, sweep_interval = duration(lease), duration(grace), duration(sweep_interval)
        check_chosen(plugins)
        self._plugins = frozenset(plugins) | ({runner} if isinstance(runner, str) else set())
        self._backend = storage_from_url(url) if isinstance(url, str) else url
        if not hasattr(self._backend, "commit"):
            message = f"the first argument must be a URL or a storage, not a {type_name(type(url))}"
            raise TypeError(message)
        self._manager: type[TriggerManager] = manager_class(manager)
        kinds: tuple[type[TriggerManager], ...] = (
            TriggerManager,
            FinalizingTriggerManager,
            *map(manager_class, managers),
            self._manager,
        )
        self._managers = {kind.name: kind for kind in kinds}
        named = (kind.default_task_runner_name for kind in kinds)
        self._plugins |= {name for name in named if isinstance(name, str)}
        self._registry = registry
        problems = getattr(self._backend, "problems", None)
        self._problems = Problems() if problems is None else problems
        self._has_runner = runner is not None
        default = runner_of_alias(runner, runners or ()) if isinstance(runner, str) else runner
        self._dispatcher = Dispatcher(
            self, default, runners or {}, self._load_runner, self._problems, name_of=self._runner_name
        )
        # Without a runner nothing is dispatched here, so the sweep of another process must find it at once.
        micros = round(grace.total_seconds() * 1e6) if self._has_runner else 0
        self._services = ManagerServices(
            storage=self._backend,
            dispatch=self._dispatcher.dispatch if self._has_runner else self._announce,
            schedule_sweep=self._schedule_sweep,
            tasks=registry.names if complete_registry else None,
            registered=registry.names,
            runners=runner_names() | self._dispatcher.names,
            grace=micros,
            limits=limits,
        )
        self._check_default_runners()
        self._policies: dict[str, Policy] = {}
        self._executor = Executor(
            self._backend,
            registry,
            self._manager_of,
            self._policy_of,
            lease.total_seconds(),
            max_crashes,
            self._problems,
            self._dispatcher.dispatch,
        )
        trial = round(lease.total_seconds() * 1e6)
        self._sweep = Sweep(
            self._backend,
            self._dispatcher.dispatch if self._has_runner else None,
            self._policy_of,
            self._manager_of,
            micros,
            self._problems,
            trial,
            registry,
            self._manager_names,
        )
        self._sweeper = Sweeper(
            self._sweep, sweep_interval.total_seconds(), self._tend, self._dispatcher.has_room
        )
        self._dispatcher.start()

    def __repr__(self) -> str:
        return f"<Triggers on {self._backend!r}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # sessions

    def session(self, uid: str) -> TriggerManager:
        """Return the manager of a session, of this application's class. Nothing is read or stored yet.

        The first change that is stored creates the session.

        Args:
            uid: any printable string of 1 to 255 characters.

        Raises:
            InvalidNameError: the UID is not such a string.
        """
        return self._manager(uid, self._services)

    def existing_session(self, uid: str) -> TriggerManager:
        """Return the manager of a stored session, of the class that the session belongs to.

        Args:
            uid: the session.

        Raises:
            UnknownSessionError: the session does not exist.
            ManagerMismatchError: this process does not have its manager. You can read the session through
                ``session(uid).storage``.
        """
        head = self._backend.reader.session(uid) if is_name(uid) else None
        if head is None:
            message = f"there is no session {uid!r}"
            raise UnknownSessionError(message)
        return self._manager_of(head.manager, uid)

    def sessions(self, after: str = "") -> Iterator[SessionView]:
        """Iterate over the sessions with UIDs after `after`, in the order of their UIDs, page by page."""
        return (SessionView(head.uid, self._backend, self._registry.names) for head in self._heads(after))

    def _heads(self, after: str = "") -> Iterator[Session]:
        after = after.encode("utf-8", "replace").decode()
        while page := self._backend.reader.sessions(after):
            yield from page
            after = page[-1].uid

    def check(self, configuration: object) -> RuleSet:
        """Check a configuration against the tasks and runners of this application. Nothing is stored.

        Raises:
            ConfigurationError: the configuration has problems; the error has all of them, with their paths.
        """
        services = self._services
        return check_configuration(
            configuration, tasks=self._registry.names, runners=services.runners, limits=services.limits
        )

    @property
    def storage(self) -> Storage:
        """The storage that this application uses: the one that was given, or the one of the URL."""
        return self._backend

    @property
    def registry(self) -> Registry:
        """The tasks that run in this process."""
        return self._registry

    # running

    def start(self) -> None:
        """Start to sweep; the first sweep runs at once. Without a runner, do nothing.

        After a :meth:`close`, the runners start again, too. Otherwise a second call in the same process does
        nothing, unless the sweep's thread has died: then it is started again.
        """
        if self._dispatcher.is_stopped:
            self._executor.closed = False
            for thread in self._executor.threads:
                thread.open()
            self._dispatcher.start()
        if self._has_runner:
            self._sweeper.start()

    def pause_sweeping(self) -> None:
        """Stop sweeping in the background, until the next :meth:`start`. A second call does nothing."""
        self._sweeper.close()

    def sweep(self, *, include_recent: bool = False) -> SweepReport:
        """Sweep once, now: recover lost claims and, with a runner, dispatch due instances.

        Args:
            include_recent: also dispatch a batch of instances that another process dispatched recently; it
                may have died.

        Raises:
            StorageError: the storage is unavailable.
        """
        return self._sweep.once(include_recent=include_recent)

    @property
    def has_runner(self) -> bool:
        """Whether this process runs tasks or sends them to workers. False if `runner` is None."""
        return self._has_runner

    def is_idle(self) -> bool:
        """Return whether the runners of this process run nothing and have no instance waiting."""
        return self._dispatcher.is_idle()

    def run(self, uid: str, task: str, number: int, delivery: Delivery = BY_ITSELF) -> bool:
        """Run an instance in this thread, now, if it can be claimed. A worker calls this for each message.

        Args:
            uid: the instance's session.
            task: the instance's task.
            number: the instance's number.
            delivery: how the instance came here, for runners that can abort it.

        Returns:
            Whether it was claimed.

        Raises:
            StorageError: the storage is unavailable. Nothing was claimed, or the sweep recovers the claim.
        """
        return self._executor.run(uid, task, number, delivery)

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
        """Fail the instance of a message whose worker was killed at a time limit, or that was revoked.

        The instance fails if it is scheduled, or if it runs because of this message. Otherwise nothing
        changes. If its worker continues, its outcome is refused.

        Args:
            uid: the instance's session.
            task: the instance's task.
            number: the instance's number.
            label: the label of the message, as in its :class:`~triggers.runners.base.Delivery`.
            error: the error of the instance.
            timeout: how long to wait for the storage, in seconds; None for the storage's setting.

        Returns:
            Whether it was failed.

        Raises:
            StorageError: the storage is unavailable; nothing was changed.
        """
        return self._executor.abort(uid, task, number, label, error, timeout=timeout)

    def lose(self, uid: str, task: str, number: int, label: str) -> bool:
        """Recover the instance of a message whose worker is dead, without waiting until its lease expires.

        The crash is charged. The instance is scheduled again after a pause, or failed if its crash budget is
        used up.

        Args:
            uid: the instance's session.
            task: the instance's task.
            number: the instance's number.
            label: the label of the message that the worker received.

        Returns:
            Whether the instance was running because of this message.

        Raises:
            StorageError: the storage is unavailable; the sweep recovers the instance after its lease.
        """
        lost = self._executor.lose(uid, task, number, label)
        if lost:
            self._schedule_sweep()
        return lost

    def watch_tasks(self, learn: Callable[[str], None]) -> None:
        """Call `learn`, a bound method, with the name of every registered task, now and later."""
        self._registry.watch(learn)

    def task_options(self, run: str) -> Mapping[str, Any] | None:
        """Return Celery's options that a task sets, by name; None if this process does not have the task."""
        task = self._registry.get(run)
        return None if task is None else task.celery_options

    def pull(self, limit: int) -> list[ReadyInstance]:
        """Take due instances of the default runner from the storage. Dispatch those of other runners."""
        due = self._backend.due(limit, grace=self._services.grace, include_recent=True)
        self._dispatcher.dispatch([other for other in due if not self._dispatcher.is_default(other)])
        return [own for own in due if self._dispatcher.is_default(own)]

    def join(
        self, timeout: float | timedelta | None = None, *, delayed: bool = True, timers: bool = False
    ) -> bool:
        """Wait until no instance in the storage is scheduled or running, in this process or another one.

        While it waits, it sweeps when something is due, also without a :meth:`start`.

        Args:
            timeout: how long to wait, as a timedelta or in seconds; None for no limit.
            delayed: also wait for instances that are not due yet.
            timers: also wait until no timer is set in any session whose manager this process has.

        Returns:
            Whether no instance is left. False after the timeout; then a WARNING says what is left.
        """
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            asked = time.monotonic()
            # Timers are asked for before the instances, because one can elapse meanwhile, and again after
            # them, because a task can have set one and ended.
            timer_at = self._next_timer_at() if timers else None
            backlog = self.backlog()
            is_busy = backlog.running or backlog.ready or (delayed and backlog.later) or timer_at is not None
            if not is_busy and not (timers and self._next_timer_at() is not None):
                return True
            times = (self._backend.reader.next_at(), timer_at)
            next_at = min((at for at in times if at is not None), default=None)
            if next_at is not None and next_at <= self._backend.now():
                self._sweeper.run_once()
            now = time.monotonic()
            if until is not None and now >= until:
                left = "\n".join(islice(unfinished(islice(self.sessions(), LOOKED_AT)), TOLD))
                _log.warning("join ended after %s s with %s left:\n%s", seconds, backlog, left)
                return False
            # Counting a long backlog takes time. It must not take more than a fifth of the time.
            pause = max(JOIN_PAUSE, 4 * (now - asked))
            time.sleep(pause if until is None else min(pause, until - now))

    def mark_logs_resolved(
        self, fingerprint: str, *, by: str | None = None, reason: str | None = None
    ) -> int:
        """Mark every record of one kind as reviewed, in all sessions whose manager this process has.

        Args:
            fingerprint: the kind, see :attr:`StoredRecord.fingerprint`.
            by: who reviewed them.
            reason: the result of the review.

        Returns:
            How many records were not marked before.
        """
        managers = (
            self._manager_of(head.manager, head.uid) for head in self._heads() if self._kind(head.manager)
        )
        return sum(manager.mark_logs_resolved(fingerprint, by=by, reason=reason) for manager in managers)

    def purge_logs(
        self,
        older_than: timedelta,
        *,
        max_level: int = logging.CRITICAL,
        contexts_only: bool = False,
        dry_run: bool = False,
        progress: Callable[[int], None] | None = None,
    ) -> int:
        """Delete old records from every session, except those that still need a review.

        Args:
            older_than: the minimum age of a record.
            max_level: the highest level of a record.
            contexts_only: keep the messages; delete only the contexts of records and exceptions.
            dry_run: change nothing.
            progress: called after each batch with the number of records so far.

        Returns:
            How many records were deleted, or would be.
        """
        before = self._backend.now() - round(older_than.total_seconds() * 1e6)
        threshold = min(kind.review_level for kind in self._managers.values())
        purge = Purge(before, max_level, threshold, contexts_only, dry_run)
        count, after = 0, 0
        while True:
            purged = self._backend.purge_logs(purge, after=after)
            count += purged.taken
            if progress is not None:
                progress(count)
            if purged.after is None:
                return count
            after = purged.after

    def health(self) -> Health:
        """Return the state of this object in this process: its threads, and its problems.

        The storage is not asked. Each process has its own health.
        """
        return Health(
            sweep=self._sweeper.vital,
            heartbeat=self._executor.heartbeat.vital,
            pool_threads=self._dispatcher.threads(),
            problems=self._problems.list(),
            last_error=self._problems.last_error,
        )

    @property
    def problems(self) -> Problems:
        """The problems in this process. A runner can report its own."""
        return self._problems

    def backlog(self) -> Backlog:
        """Count the instances in the storage that are ready, scheduled for later, and running."""
        return self._backend.reader.backlog()

    def close(self, timeout: float | timedelta | None = None) -> None:
        """Stop dispatching and sweeping until the next :meth:`start`, and wait for running instances.

        Firing still works. What it releases is stored, and runs in another process or later.

        Args:
            timeout: how long to wait for running instances, as a timedelta or in seconds; None for no limit.
                Instances that still run then are released, and scheduled again. Their outcome is refused.
        """
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        until = None if seconds is None else time.monotonic() + seconds
        self._dispatcher.stop()
        self._executor.closed = True
        self._sweeper.close(seconds)
        if not self._dispatcher.close(until):
            self._executor.release_all()
        for thread in self._executor.threads:
            thread.close()
        self._services.calls.close()
        self._backend.close()

    # private

    def _next_timer_at(self) -> int | None:
        return self._sweep.timekeeper.next_at()

    def _tend(self) -> None:
        """Start the threads again that have died or could not start."""
        for thread in self._executor.threads:
            thread.tend()
        self._dispatcher.tend()

    def _schedule_sweep(self) -> None:
        """Make the sweeps check when the next instance is due. It can be earlier than before."""
        if not self._sweeper.wake():
            announce(self._backend)

    def _announce(self, _: object) -> None:
        """Leave released instances to other processes."""
        announce(self._backend)

    def _check_default_runners(self) -> None:
        """Refuse a manager whose `default_task_runner_name` is not the name of a runner of this process.

        Raises:
            PluginError: there is such a manager.
        """
        known = self._services.runners or ()
        for kind in self._managers.values() if self._has_runner else ():
            name = kind.default_task_runner_name
            if isinstance(name, str) and name not in known:
                message = (
                    f"manager {kind.name!r}: there is no runner {name!r} for its default_task_runner_name; "
                    f"the runners are: {', '.join(sorted(known))}"
                )
                raise PluginError(message)

    def _runner_name(self, due: ReadyInstance) -> str | None:
        """Return the name of the runner that an instance needs, None for the default runner."""
        name = due.using or self._default_runner_of(due.uid)
        return None if name is None else runner_of_alias(name, self._dispatcher.names)

    def _default_runner_of(self, uid: str) -> str | None:
        """Return the runner that the manager of a session names, or None."""
        others = installed(MANAGERS) - self._managers.keys()
        named = any(kind.default_task_runner_name is not None for kind in self._managers.values())
        if not (others or named):
            return None
        head = self._backend.reader.session(uid)
        kind = self._kind(head.manager) if head is not None else None
        return None if kind is None else kind(uid, self._services).default_task_runner_name

    def _kind(self, name: str) -> type[TriggerManager] | None:
        """Return the manager class of that name, of this application or installed, or None."""
        if not name:
            return self._manager
        if name not in self._managers and name in installed(MANAGERS):
            self._load_manager(name)
        return self._managers.get(name)

    def _load_manager(self, name: str) -> None:
        """Load an installed manager. If it cannot be loaded, or may not, report it, and try again later."""
        place = f"manager {name!r}"
        if self._problems.is_paused(place):
            return
        try:
            self._managers[name] = manager_named(name, self._plugins)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - an installed module can raise anything
            what = "until it can be loaded, only processes that have it run its sessions"
            self._problems.report("plugin", place, error, what)
        else:
            self._problems.resolve(place)

    def _manager_names(self) -> Collection[str]:
        """Return the names of the managers that this process has."""
        permitted = {name for name in installed(MANAGERS) if not is_refused(MANAGERS, name, self._plugins)}
        return self._managers.keys() | {self._manager.name} | permitted

    def _manager_of(self, name: str, uid: str, fired_by: FiredBy | None = None) -> TriggerManager:
        kind = self._kind(name)
        if kind is None:
            hint = f": {permit(name)}" if is_refused(MANAGERS, name, self._plugins) else ""
            message = f"session {uid!r} belongs to manager {name!r}, which this process does not have{hint}"
            raise ManagerMismatchError(message)
        return kind(uid, self._services, fired_by)

    def _policy_of(self, name: str) -> Policy | None:
        if name not in self._policies:
            kind = self._kind(name)
            if kind is None:
                return None
            self._policies[name] = kind.policy_for(self._services.grace, self._services.limits)
        return self._policies[name]

    def _load_runner(self, name: str) -> Runner:
        runner: Runner = load_stored(RUNNERS, name, self._plugins)()
        return runner
