"""Triggers: the one place where a storage, runners, a manager class and settings meet."""

from __future__ import annotations

import logging
import time
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

from triggers import plugins
from triggers.core.configuration import check_configuration
from triggers.core.names import is_name
from triggers.core.values import DEFAULT_LIMITS, Limits, type_name
from triggers.exceptions import ManagerMismatchError, UnknownSessionError
from triggers.health import Health, Problems, place_of
from triggers.manager import FinalizingTriggerManager, ManagerServices, TriggerManager
from triggers.options import check_application, duration
from triggers.runners.base import BY_ITSELF
from triggers.session import SessionView, unfinished
from triggers.storages.base import Purge
from triggers.task import registry as default_registry
from triggers.worker.executor import Executor
from triggers.worker.sweep import Sweep, Sweeper, SweepReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
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

#: How long a hand-over has until the sweep repeats it.
GRACE = timedelta(seconds=30)

#: The pause between two sweeps.
SWEEP_INTERVAL = timedelta(seconds=5)

#: At so many crashes that it alone can have caused an instance is failed.
MAX_CRASHES = 3

#: How many instances the warning of `join` names, of how many sessions.
TOLD, LOOKED_AT = 10, 200

#: How often `join` looks, in seconds.
JOIN_PAUSE = 0.02


class Triggers:
    """An application's access to its sessions.

    The threads of the runner start with the first instance that is released, that of the sweep with
    :meth:`start`, both once for each process, so the object may be made before a fork. As a context manager
    it starts and closes itself.

    Args:
        url: of the storage, such as ``sqlite:///survey.db``, or a storage.
        runner: the default runner, by name or itself; None for a process that only fires.
        runners: further runners by the names that `using` gives them.
        manager: the class of its managers; one of another process is used only by that name.
        managers: further classes that sessions of this application may belong to.
        registry: the tasks that run here.
        complete_registry: whether that is every task there is, so that an unknown `run` is refused at once.
        lease: how long a claim lasts without a heartbeat.
        grace: how long a hand-over has until the sweep repeats it.
        sweep_interval: the pause between two sweeps.
        max_crashes: at so many crashes that it alone can have caused an instance is failed.
        limits: sizes of what is accepted.

    Durations are timedeltas or numbers of seconds.

    Raises:
        InvalidOptionError: an option is not valid.
        PluginError: no storage, or runner, of that name.
        StorageError: the storage cannot be opened.
    """

    def __init__(
        self,
        url: str | Storage,
        *,
        runner: str | Runner | None = "threads",
        runners: Mapping[str, Runner] | None = None,
        manager: type[TriggerManager] = TriggerManager,
        managers: Sequence[type[TriggerManager]] = (),
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
        self._backend = plugins.storage_from_url(url) if isinstance(url, str) else url
        if not hasattr(self._backend, "commit"):
            message = f"a URL or a storage is needed, not a {type_name(type(url))}"
            raise TypeError(message)
        self._manager = manager
        kinds: tuple[type[TriggerManager], ...] = (
            TriggerManager,
            FinalizingTriggerManager,
            *managers,
            manager,
        )
        self._managers = {kind.name: kind for kind in kinds}
        self._default = runner
        self._runners: dict[str, Runner] = {}
        self._given = dict(runners or {})
        if runner is not None and not isinstance(runner, str) and hasattr(runner, "name"):
            self._given.setdefault(runner.name, runner)
        self._registry = registry
        self._closed = self._said_closed = False
        problems = getattr(self._backend, "problems", None)
        self._problems = Problems() if problems is None else problems
        # Nobody hands over what is released here, so it is due for the sweeps of others at once.
        micros = 0 if runner is None else round(grace.total_seconds() * 1e6)
        self._services = ManagerServices(
            storage=self._backend,
            dispatch=None if runner is None else self._dispatch,
            schedule_sweep=self._schedule_sweep,
            tasks=registry.names if complete_registry else None,
            registered=registry.names,
            runners=plugins.names(plugins.RUNNERS) | self._given.keys(),
            grace=0 if runner is None else micros,  # nobody here hands over: the next sweep elsewhere may
            limits=limits,
        )
        self._policies: dict[str, Policy] = {}
        self._executor = Executor(
            self._backend,
            registry,
            self._manager_of,
            self._policy_of,
            lease.total_seconds(),
            max_crashes,
            self._problems,
            self._dispatch,
        )
        trial = round(lease.total_seconds() * 1e6)
        self._sweep = Sweep(
            self._backend, self._services.dispatch, self._policy_of, micros, self._problems, trial
        )
        self._sweeper = Sweeper(self._sweep, sweep_interval.total_seconds(), self._tend)
        if runner is not None:
            self._runner(None)
        for name in self._given:
            self._runner(name)

    def __repr__(self) -> str:
        return f"<Triggers on {self._backend!r}>"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- sessions ---------------------------------------------------------------------------------------

    def session(self, uid: str) -> TriggerManager:
        """The manager of a session, of this application's class; nothing is read or stored yet.

        The session comes into being with the first thing that is stored in it.

        Args:
            uid: any printable string of 1 to 255 characters.

        Raises:
            InvalidNameError: it is something else.
        """
        return self._manager(uid, self._services)

    def existing_session(self, uid: str) -> TriggerManager:
        """The manager that a stored session belongs to, whichever class of this process that is.

        Args:
            uid: the session.

        Raises:
            UnknownSessionError: nothing is stored under that UID.
            ManagerMismatchError: this process lacks its manager; the session may be read through
                ``session(uid).storage``.
        """
        head = self._backend.reader.session(uid) if is_name(uid) else None
        if head is None:
            message = f"there is no session {uid!r}"
            raise UnknownSessionError(message)
        return self._manager_of(head.manager, uid)

    def sessions(self, after: str = "") -> Iterator[SessionView]:
        """Every session, in the order of the UIDs beyond `after`, read page by page."""
        return (SessionView(head.uid, self._backend, self._registry.names) for head in self._heads(after))

    def _heads(self, after: str = "") -> Iterator[Session]:
        after = after.encode("utf-8", "replace").decode()
        while page := self._backend.reader.sessions(after):
            yield from page
            after = page[-1].uid

    def check(self, configuration: object) -> RuleSet:
        """Check a configuration against the tasks and runners of this application; nothing is stored.

        Raises:
            ConfigurationError: with every problem, each with its path.
        """
        around = self._services
        return check_configuration(
            configuration, tasks=self._registry.names, runners=around.runners, limits=around.limits
        )

    @property
    def storage(self) -> Storage:
        """Where everything is kept."""
        return self._backend

    @property
    def registry(self) -> Registry:
        """The tasks that run here."""
        return self._registry

    # -- running ----------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to sweep, first of all for what an earlier process left; without a runner do nothing.

        After a :meth:`close` everything begins again, the runners too. Otherwise a second call in the same
        process does nothing, unless the sweep's thread has died: then it is started again.
        """
        if self._closed:
            self._closed = self._said_closed = self._executor.closed = False
            self._executor.heartbeat.open()
            for runner in list(self._runners.values()):
                runner.start(self)
        if self._default is not None:
            self._sweeper.start()

    def pause_sweeping(self) -> None:
        """Sweep no more in the background, until the next :meth:`start`; a second call does nothing."""
        self._sweeper.close()

    def sweep(self, *, include_recent: bool = False) -> SweepReport:
        """Sweep once, now: rescue lost claims and, if there is a runner, hand over what is due.

        Args:
            include_recent: dispatch a batch also of what another process may just have dispatched before it
                died.

        Raises:
            StorageError: the storage is away.
        """
        return self._sweep.once(include_recent=include_recent)

    @property
    def has_runner(self) -> bool:
        """Whether tasks run here, or are sent to where they run; False if `runner` is None."""
        return self._default is not None

    def is_idle(self) -> bool:
        """Whether the runners of this process run nothing and have no hint to follow."""
        return all(runner.is_idle() for runner in list(self._runners.values()))

    def run(self, uid: str, task: str, number: int, delivery: Delivery = BY_ITSELF) -> bool:
        """Run an instance here, now, if it can be claimed; what a worker calls for each message.

        Args:
            uid: its session.
            task: its task.
            number: its number.
            delivery: how the message came, for runners that must be able to take it back.

        Returns:
            Whether it was claimed.

        Raises:
            StorageError: the storage is away; nothing was claimed, or the sweep finds what was.
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
        """Fail an instance for a worker that cannot: killed at a time limit, say, or its message was revoked.

        That is, if it runs under a claim that the message of this label led to, or is still scheduled.
        Anything else is left alone. A worker that goes on regardless is refused in the end.

        Args:
            uid: its session.
            task: its task.
            number: its number.
            label: of the message, as :class:`~triggers.runners.base.Delivery` had it.
            error: what the instance is failed with.
            timeout: how long to wait for the storage, in seconds; None for the storage's setting.

        Returns:
            Whether it was failed.

        Raises:
            StorageError: the storage is away; nothing was changed.
        """
        return self._executor.abort(uid, task, number, label, error, timeout=timeout)

    def lose(self, uid: str, task: str, number: int, label: str) -> bool:
        """Rescue what a worker was running that is known to be dead, without waiting for its lease.

        A crash is counted; the instance is scheduled again after a pause, or failed if that was one too many.

        Args:
            uid: its session.
            task: its task.
            number: its number.
            label: of the message that led to the claim.

        Returns:
            Whether it was running under that claim.

        Raises:
            StorageError: the storage is away; the sweep finds it once its lease has run out.
        """
        lost = self._executor.lose(uid, task, number, label)
        if lost:
            self._schedule_sweep()
        return lost

    def watch_tasks(self, learn: Callable[[str], None]) -> None:
        """Call `learn`, a bound method, with the name of every task here, and with each that comes."""
        self._registry.watch(learn)

    def pull(self, limit: int) -> list[ReadyInstance]:
        """Take instances that are ready from the storage, for the default runner; others go to theirs."""
        due = self._backend.due(limit, grace=self._services.grace, include_recent=True)
        self._dispatch([other for other in due if not self._is_default(other)])
        return [own for own in due if self._is_default(own)]

    def join(self, timeout: float | timedelta | None = None, *, delayed: bool = True) -> bool:
        """Wait until nothing in the storage is scheduled or running, whoever runs it, cascades included.

        Meanwhile it sweeps for what is due, also where :meth:`start` was never called.

        Args:
            timeout: how long to wait, as a timedelta or in seconds; None for as long as it takes.
            delayed: wait also for what is not due yet.

        Returns:
            Whether there is nothing left; False if the time was up. Then a WARNING says what is left.
        """
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        until = None if seconds is None else time.monotonic() + seconds
        while True:
            asked = time.monotonic()
            backlog = self.backlog()
            if not (backlog.running or backlog.ready or (delayed and backlog.later)):
                return True
            next_at = self._backend.reader.next_at()
            if next_at is not None and next_at <= self._backend.now():
                self._sweeper.run_once()
            now = time.monotonic()
            if until is not None and now >= until:
                left = "\n".join(islice(unfinished(islice(self.sessions(), LOOKED_AT)), TOLD))
                _log.warning("join ended after %s s with %s left:\n%s", seconds, backlog, left)
                return False
            # Counting a long backlog takes a while: never do it for more than a part of the time.
            pause = max(JOIN_PAUSE, 4 * (now - asked))
            time.sleep(pause if until is None else min(pause, until - now))

    def mark_logs_resolved(
        self, fingerprint: str, *, by: str | None = None, reason: str | None = None
    ) -> int:
        """Say that a person has reviewed every record of one kind, in every session whose manager is here.

        Args:
            fingerprint: of the kind, as :attr:`StoredRecord.fingerprint` has it.
            by: who reviewed them.
            reason: what came of it.

        Returns:
            How many records that no review had covered before.
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
        """Remove old records from every session; never one that asks for a review and has none.

        Args:
            older_than: only those said longer ago than this.
            max_level: only those at or below this level.
            contexts_only: let messages stay, and remove their contexts and those of exceptions.
            dry_run: change nothing.
            progress: is told, after each batch, how many it was so far.

        Returns:
            How many records it was, or would have been.
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
        """How this object is, in this process: its threads, and what it cannot read or do.

        Nothing is asked of the storage. Other processes have a health of their own.
        """
        runners = list(self._runners.items())
        threads = {label or "default": getattr(runner, "threads", None) for label, runner in runners}
        pools = {label: count for label, count in threads.items() if count is not None}
        return Health(
            sweep=self._sweeper.vital,
            heartbeat=self._executor.heartbeat.vital,
            pool_threads=pools,
            problems=self._problems.list(),
            last_error=self._problems.last_error,
        )

    @property
    def problems(self) -> Problems:
        """What does not work here, for runners that have something to add."""
        return self._problems

    def backlog(self) -> Backlog:
        """How many instances in the storage are ready, scheduled for later, and running."""
        return self._backend.reader.backlog()

    def close(self, timeout: float | timedelta | None = None) -> None:
        """Stop until the next :meth:`start`: nothing is dispatched or swept; what runs here is waited for.

        Firing goes on to work; what it releases is stored, for other processes and later ones to run.

        Args:
            timeout: how long to wait for what runs, as a timedelta or in seconds; None until it has ended.
                What has not ended by then is scheduled again, and its end, should it come, refused.
        """
        seconds = timeout.total_seconds() if isinstance(timeout, timedelta) else timeout
        until = None if seconds is None else time.monotonic() + seconds
        self._closed = self._executor.closed = True
        self._sweeper.close(seconds)
        ended = [runner.close(_left(until)) for runner in list(self._runners.values())]
        if not all(ended):
            self._executor.release_all()
        self._executor.heartbeat.close()
        self._backend.close()

    # -- what holds it together -------------------------------------------------------------------------

    def _dispatch(self, ready: Sequence[ReadyInstance]) -> None:
        """Offer instances to their runners. A hint that gets lost is repeated by the sweep."""
        if self._closed:
            if ready and not self._said_closed:
                self._said_closed = True
                _log.warning(
                    "%r is closed: what is released is stored, and runs after start() or elsewhere", self
                )
            return
        failing: set[str] = set()
        for due in ready:
            place = f"runner {due.using or self._default!r}"
            if place in failing:
                continue
            try:
                self._runner(due.using).submit(due)
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a firing that is stored must not fail
                failing.add(place)
                where = place_of(due.uid, due.task, due.number)
                what = f"{where}, and what else wants it, could not be dispatched; the sweep tries again"
                self._problems.report("plugin", place, error, what)
            else:
                self._problems.resolve(place)

    def _tend(self) -> None:
        """Start again the threads that have died, or could not start."""
        self._executor.heartbeat.tend()
        for runner in list(self._runners.values()):
            tend = getattr(runner, "tend", None)
            if tend is not None:
                tend()

    def _schedule_sweep(self) -> None:
        """Something will be due: the sweep of this process is to look when."""
        self._sweeper.wake()

    def _is_default(self, due: ReadyInstance) -> bool:
        return due.using is None or due.using == self._default

    def _runner(self, name: str | None) -> Runner:
        wanted: Any = self._default if name is None else self._given.get(name, name)
        label = name or (self._default if isinstance(self._default, str) else "")
        if label not in self._runners:
            made = plugins.load(plugins.RUNNERS, wanted)() if isinstance(wanted, str) else wanted
            if made not in self._runners.values():
                made.start(self)
            self._runners[label] = made
        return self._runners[label]

    def _kind(self, name: str) -> type[TriggerManager] | None:
        """The manager class of that name, or None: this application's, or an installed one."""
        if not name:
            return self._manager
        if name not in self._managers and name in plugins.names(plugins.MANAGERS):
            self._load_manager(name)
        return self._managers.get(name)

    def _load_manager(self, name: str) -> None:
        """Load an installed manager; one that cannot be loaded is lacking here, and tried again later."""
        place = f"manager {name!r}"
        if self._problems.is_paused(place):
            return
        try:
            self._managers[name] = plugins.manager_named(name)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's module may do anything
            what = "until it can be loaded, its sessions are rescued, and run by processes that have it"
            self._problems.report("plugin", place, error, what)
        else:
            self._problems.resolve(place)

    def _manager_of(self, name: str, uid: str, fired_by: FiredBy | None = None) -> TriggerManager:
        kind = self._kind(name)
        if kind is None:
            message = f"session {uid!r} belongs to manager {name!r}, which this process lacks"
            raise ManagerMismatchError(message)
        return kind(uid, self._services, fired_by)

    def _policy_of(self, name: str) -> Policy | None:
        if name not in self._policies:
            kind = self._kind(name)
            if kind is None:
                return None
            self._policies[name] = kind.policy_for(self._services.grace, self._services.limits)
        return self._policies[name]


def _left(until: float | None) -> float | None:
    """How long it is until that monotonic time, in seconds."""
    return None if until is None else max(until - time.monotonic(), 0.0)
