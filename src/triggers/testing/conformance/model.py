"""The reference model: a session in plain dicts and lists, to compare the library with.

The model decides what a firing does by reading the whole session, which is slow. It shares no code with the
rest of the library, so a mistake goes unnoticed only if it is made twice, in two ways. It does not wait,
store, lock or run anything. A test takes the same steps on a :class:`Model` and on a storage, and compares
the two after each step.

A configuration is the JSON-able dictionary that an application gives to a session. It must be valid. Times
are integers: microseconds since the Unix epoch, UTC. The clock changes only by :meth:`Model.advance`.

A timer counts as of its own time. So a step that concerns the whole session first lets the due timers elapse,
one after the other, each as if the step had been taken at that time.

This module imports only the standard library; a test checks that.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, date, datetime, time, timedelta
from typing import Any

UNSTARTED, SCHEDULED, RUNNING = "unstarted", "scheduled", "running"
FINISHED, FAILED, SKIPPED = "finished", "failed", "skipped"
REPLAYED, ABANDONED = "replayed", "abandoned"

#: The statuses of resolved instances, which no step changes any more.
RESOLVED = frozenset({FINISHED, SKIPPED, REPLAYED, ABANDONED})

#: Status of an instance that ended → the word of the outcome for it, which follows the name of its task.
OUTCOMES = {FAILED: "failed", SKIPPED: "skipped", ABANDONED: "abandoned"}

#: The word of the outcome that is fired at every end.
ENDED = "ended"

#: The word of the outcome that is fired when a deadline passes. The instance does not end.
MISSED = "missed"

#: The words of all outcomes.
WORDS = (*OUTCOMES.values(), ENDED, MISSED)

#: What a timer is: one that fires a trigger, the delay of an instance, or the deadline of an instance.
FIRES, DELAY, DEADLINE = "fires", "delay", "deadline"

#: The fields of an instance that are about the time of the session.
TIMES = frozenset({"created_at", "taken_at", "met_at", "missed"})

#: One second, in microseconds.
SECOND = 1_000_000

#: So many crashes may be a neighbour's; an instance that had them runs alone, and further ones are its own.
NOT_CHARGED = 2


class ModelConflict(ValueError):  # noqa: N818 - the usual word
    """A firing was repeated with its idempotency key and other kwargs. Nothing changed."""


class ModelStatusError(ValueError):
    """The step needs a failed instance, and this one has another status. Nothing changed."""


class ModelUnknownTask(ValueError):  # noqa: N818 - the usual word
    """The task is no longer configured, so the instance can't be replayed. Nothing changed."""


@dataclass(slots=True)
class ModelFiring:
    """One occurrence of a trigger.

    ``number`` counts from 1 in the session. ``cause`` is the name of the instance whose finish or skip
    cascaded, ``"finalizing"`` for the trigger that completes a session, or None if the application fired.
    """

    number: int
    trigger: str
    kwargs: dict[str, Any]
    key: str | None
    at: int
    cause: str | None


@dataclass(slots=True)
class ModelInstance:
    """One run of a task.

    Attributes:
        name: ``task#number``; numbers count from 0 in each task.
        kwargs: trigger → the kwargs that the instance received, or exactly the replacement kwargs of a
            replay.
        taken: trigger → the number of the firing that the instance received, for triggers in ``after``.
        vetoes: the triggers in ``unless`` that the instance received.
        parent: the name of the instance that this one replays.
        root: the name of the oldest ancestor with the same kwargs: the instance itself if it replays none, or
            if its kwargs were replaced.
        depth: the number of ancestors.
        retries: the number of retries, requested by the task, since the last replay by a person.
        fence: a number that increases whenever a claim begins or is lost.
        attempt: how often the instance was claimed.
        crashes: how often its worker was lost.
        charged: how many of these crashes no other instance can have caused.
        run_at: the time from which the instance can be claimed; None if it was never scheduled.
        created_at: the time of the session at which it was created.
        taken_at: trigger → the time of the session at which the instance received it.
        met_at: the time of the session at which its condition was met, if a delay has begun then.
        missed: whether it has missed its deadline.
    """

    name: str
    task: str
    number: int
    root: str
    status: str = UNSTARTED
    kwargs: dict[str, Any] = field(default_factory=dict)
    taken: dict[str, int] = field(default_factory=dict)
    vetoes: set[str] = field(default_factory=set)
    parent: str | None = None
    depth: int = 0
    retries: int = 0
    fence: int = 0
    attempt: int = 0
    crashes: int = 0
    charged: int = 0
    result: Any = None
    error: Any = None
    run_at: int | None = None
    created_at: int = 0
    taken_at: dict[str, int] = field(default_factory=dict)
    met_at: int | None = None
    missed: bool = False


@dataclass(frozen=True, slots=True)
class ModelTimer:
    """What happens in a session at a time.

    Attributes:
        name: its name, or that of its instance. An instance has at most one timer.
        kind: :data:`FIRES`, :data:`DELAY` or :data:`DEADLINE`.
        at: when it is due.
        since: the time from which it counts.
        order: the number of timers that were set before it. Of those that are due at the same time, the one
            that was set first elapses first.
        trigger: what it fires.
        kwargs: the kwargs of the firing.
        key: its idempotency key.
    """

    name: str
    kind: str
    at: int
    since: int
    order: int = 0
    trigger: str = ""
    kwargs: dict[str, Any] = field(default_factory=dict)
    key: str | None = None


@dataclass(frozen=True, slots=True)
class ModelFireResult:
    """What one firing did, without the firings that follow from it in the same step.

    Names are sorted by task and number. ``finalized`` is true if the session is finalized at the end of the
    step.
    """

    number: int
    duplicate: bool = False
    created: tuple[str, ...] = ()
    scheduled: tuple[str, ...] = ()
    abandoned: tuple[str, ...] = ()
    finalized: bool = False


def names_in(condition: Any) -> set[str]:
    """Return the names of all triggers in a condition, at any depth."""
    if isinstance(condition, str):
        return {condition}
    return {name for part in parts_of(condition) for name in names_in(part)}


def parts_of(condition: Any) -> list[Any]:
    """Return the members of a condition, each once: a trigger that is named twice counts once."""
    if isinstance(condition, Mapping):
        members = next(condition[word] for word in ("all", "any", "of") if word in condition)
    else:
        members = condition
    different: list[Any] = []
    for member in members:
        if member not in different:
            different.append(member)
    return different


def holds(condition: Any, seen: Collection[str]) -> bool:
    """Return whether these triggers meet a condition. A list is short for ``{"all": list}``."""
    if isinstance(condition, str):
        return condition in seen
    met = [holds(part, seen) for part in parts_of(condition)]
    if isinstance(condition, Mapping) and "any" in condition:
        return any(met)
    if isinstance(condition, Mapping) and "atLeast" in condition:
        return met.count(True) >= int(condition["atLeast"])
    return all(met)


def awaited(rule: Mapping[str, Any]) -> set[str]:
    """Return the triggers whose kwargs instances of a rule collect: ``after`` and ``andEvery``."""
    every = rule.get("andEvery")
    return names_in(rule.get("after", [])) | ({every} if every is not None else set())


def vetoing(rule: Mapping[str, Any]) -> set[str]:
    """Return the triggers in ``unless``."""
    return names_in(rule.get("unless", []))


def can_schedule(rule: Mapping[str, Any], seen: Collection[str]) -> bool:
    """Return whether ``after`` and ``andEvery`` are both met."""
    every = rule.get("andEvery")
    return holds(rule.get("after", []), seen) and (every is None or every in seen)


def can_abandon(rule: Mapping[str, Any], seen: Collection[str]) -> bool:
    """Return whether ``unless`` is met. An empty one never is."""
    return bool(vetoing(rule)) and holds(rule["unless"], seen)


def duration(written: str) -> int:
    """Return how many microseconds a duration has, such as ``PT1H30M``. A day has 24 hours."""
    days, _, seconds = written.removeprefix("P").partition("T")
    units = {"W": 7 * 86_400, "D": 86_400}, {"H": 3_600, "M": 60, "S": 1}
    counted = [
        round(float(count) * 1_000_000) * names[unit]
        for part, names in zip((days, seconds), units, strict=True)
        for count, unit in re.findall(r"([0-9.]+)([A-Z])", part)
    ]
    return sum(counted)


def is_debounced(rule: Mapping[str, Any]) -> bool:
    """Return whether every further firing starts the delay again."""
    delay = rule.get("delay")
    return isinstance(delay, Mapping) and delay.get("since") == "last"


def deadline_of(rule: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the long form of the deadline, None if the rule has none."""
    deadline = rule.get("deadline")
    return {"in": deadline} if isinstance(deadline, str) else deadline


def outcomes_in(configuration: Mapping[str, Any]) -> set[str]:
    """Return the outcomes of configured tasks, such as ``t_1:failed``, that rules name."""
    possible = {f"{task}:{word}" for task in configuration for word in WORDS}
    return {name for rule in configuration.values() for name in awaited(rule) | vetoing(rule)} & possible


def exceptional_in(configuration: Mapping[str, Any]) -> set[str]:
    """Return the tasks that cannot run if everything happens except outcomes, and what needs these tasks.

    ``ended`` happens to every instance, so it does not count as an outcome here.
    """
    rare = {name for name in outcomes_in(configuration) if not name.endswith(f":{ENDED}")}
    while True:
        found = {task for task, rule in configuration.items() if not can_schedule(rule, awaited(rule) - rare)}
        more = rare | found | {f"{task}:{ENDED}" for task in found}
        if more == rare:
            return found
        rare = more


def canonical(value: Any) -> Any:
    """Return a form of a value that is equal only for the same data; in Python, ``1 == True == 1.0``."""
    if isinstance(value, Mapping):
        return "mapping", {canonical(key): canonical(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value).__name__, tuple(canonical(item) for item in value)
    if isinstance(value, (set, frozenset)):
        return type(value).__name__, frozenset(canonical(item) for item in value)
    if isinstance(value, (datetime, date, time)):
        return type(value).__name__, value.isoformat()
    return type(value).__name__, repr(value)


def same(one: Any, other: Any) -> bool:
    """Return whether two values are the same data. The order of the keys of a mapping does not matter."""
    return bool(canonical(one) == canonical(other))


class Model:
    """One session in memory.

    Every public method is one atomic step: it either completes, or raises and changes nothing. A step of a
    worker takes the fence that its claim returned. With another fence, or if the instance isn't running, the
    step changes nothing and returns a falsy result. Due timers elapse before most steps, also before one that
    then raises or returns a falsy result.

    Attributes:
        now: the clock of the storage, in microseconds.
        at: the latest time of the session: as of when its latest step was taken. It never goes back.
        called_at: when the next steps were called, if that was before now; None for now. What becomes due
            after that does not concern them.
        timers: the timers that are set. The key is whether it is the timer of an instance, and its name.
        configuration: task name → rule, as last given to :meth:`configure`.
        firings: all firings, in order.
        instances: name → instance, in the order in which they were created.
        finalized: whether the session itself has fired the finalizing trigger.
        last_step: one result for each firing of the last step that could fire a trigger, in order.
    """

    def __init__(
        self,
        finalizing_trigger: str | None = None,
        max_crashes: int = 3,
        crash_backoff: Iterable[int] = (SECOND, 10 * SECOND, 60 * SECOND),
        now: int = 0,
    ) -> None:
        """Create an empty session without a configuration.

        Args:
            finalizing_trigger: a trigger that is fired once, when the last task that doesn't wait for it is
                resolved.
            max_crashes: at this number of crashes an instance fails.
            crash_backoff: microseconds to wait after the first, second, … crash; the last value also applies
                to later crashes.
            now: the clock at the beginning, in microseconds.
        """
        self.finalizing_trigger = finalizing_trigger
        self.max_crashes = max_crashes
        self.crash_backoff: list[int] = list(crash_backoff)
        self.now: int = now
        self.at: int = now
        self.called_at: int | None = None
        self.timers: dict[tuple[bool, str], ModelTimer] = {}
        self.configuration: dict[str, Any] = {}
        self.firings: list[ModelFiring] = []
        self.instances: dict[str, ModelInstance] = {}
        self.finalized: bool = False
        self.last_step: list[ModelFireResult] = []
        self._ends: list[tuple[ModelInstance, str, dict[str, Any]]] = []
        self._timers_set: int = 0

    # -- steps of the application ----------------------------------------------------------------------------

    def configure(
        self, configuration: Mapping[str, Any], *, catch_up: bool = False, merge: bool = False
    ) -> None:
        """Replace the configuration; with ``merge``, keep its other tasks.

        The new rules apply to unstarted instances, with the triggers that they have. Past firings are not
        given to them. Instances of removed tasks do not change. Added tasks receive no past firing, or with
        ``catch_up`` all of them in order, as if the tasks had been configured from the start. An added task
        that has instances from an earlier configuration is excluded, because it would receive the same
        firings twice. Delays and deadlines count from the same moments as before, so they can be due at once.
        """
        self.elapse()
        self._begin()
        added = [task for task in configuration if task not in self.configuration]
        fresh = [task for task in added if not self.instances_of(task)]
        kept = self.configuration if merge else {}
        self.configuration = {**kept, **deepcopy(dict(configuration))}
        for instance in _sorted(self.instances.values()):
            self._decide(instance, delays=False)
            self._set_again(instance)
        if catch_up:
            for firing in list(self.firings):
                self._apply(firing, fresh)
        self._complete()

    def fire(
        self, trigger: str, kwargs: Mapping[str, Any] | None = None, key: str | None = None
    ) -> ModelFireResult:
        """Fire a trigger. If it was fired with this key before, only return the number of that firing.

        A repeat does not look at timers. One of them can fire with this key.

        Raises:
            ModelConflict: the earlier firing with this key had other kwargs.
        """
        if self._keyed(trigger, key) is None:
            self.elapse()
        firing = self._keyed(trigger, key)
        if firing is not None:
            if not same(firing.kwargs, kwargs or {}):
                raise ModelConflict(f"{trigger!r} was fired with key {key!r} and other kwargs")
            self.last_step = []
            return ModelFireResult(firing.number, duplicate=True, finalized=self.finalized)
        self._begin()
        self._record(trigger, kwargs, key=key)
        self._complete()
        return self.last_step[0]

    def replay(self, name: str, replacement_kwargs: Mapping[str, Any] | None = None) -> str:
        """Run a failed instance again, as a new instance that is due now. Return its name.

        Raises:
            ModelStatusError: the instance isn't failed.
            ModelUnknownTask: its task is no longer configured.
        """
        self.elapse()
        old = self._failed(name)
        self._begin()
        if old.task not in self.configuration:
            raise ModelUnknownTask(f"{name!r} can't be replayed: its task is not configured")
        return self._replay(old, replacement_kwargs, retries=0, run_at=self.now)

    def skip(self, name: str, *, cascade: bool = False, result: Mapping[str, Any] | None = None) -> None:
        """Skip a failed instance. With ``cascade``, fire the name of its task with the result as kwargs.

        Raises:
            ModelStatusError: the instance isn't failed.
        """
        self.elapse()
        instance = self._failed(name)
        self._begin()
        instance.status = SKIPPED
        self._ends.append((instance, SKIPPED, {"again": True}))
        if cascade:
            self._record(instance.task, result, cause=name)
        self._complete()

    def schedule(self, name: str) -> None:
        """Schedule an instance by hand. If it was running, its worker loses the claim.

        Raises:
            ModelStatusError: the instance is neither unstarted nor running.
        """
        self.elapse()
        instance = self.instances[name]
        if instance.status not in {UNSTARTED, RUNNING}:
            raise ModelStatusError(f"{name!r} is {instance.status}")
        self._begin()
        instance.fence += instance.status == RUNNING
        self._leave(instance, SCHEDULED)
        instance.run_at = self.now
        self._complete()

    # -- timers of the application ---------------------------------------------------------------------------

    def fire_later(
        self,
        trigger: str,
        after: int,
        name: str,
        kwargs: Mapping[str, Any] | None = None,
        key: str | None = None,
    ) -> None:
        """Set a timer that fires a trigger after so many microseconds, which can be negative.

        It replaces one with the same name. The trigger must not be an outcome of a configured task.
        """
        self.elapse()
        self._begin()
        due = self.at + after
        self._set(ModelTimer(name, FIRES, due, self.at, 0, trigger, deepcopy(dict(kwargs or {})), key))

    def cancel(self, name: str) -> bool:
        """Remove a timer that fires a trigger. Return whether there was one."""
        self.elapse()
        self._begin()
        return self.timers.pop((False, name), None) is not None

    def elapse(self) -> int:
        """Let all due timers elapse, in order, each as of its own time. Return how many there were.

        A timer is due at its time. If the session is ahead of that, it elapses as of the session's time.
        """
        until, count = self._called(), 0
        while timer := self._next_timer():
            if timer.at > until:
                break
            self.at = max(self.at, timer.at)
            self._remove(timer)
            self._elapse(timer)
            self._complete()
            count += 1
        self.last_step = []
        return count

    # -- steps of a worker ----------------------------------------------------------------------------------

    def claim(self, name: str) -> int | None:
        """Start a scheduled instance that is due. Return its new fence, or None if it can't be claimed."""
        instance = self.instances[name]
        if instance.status != SCHEDULED or instance.run_at is None or instance.run_at > self.now:
            return None
        instance.status = RUNNING
        instance.fence += 1
        instance.attempt += 1
        return instance.fence

    def finish(self, name: str, fence: int, result: Mapping[str, Any] | None = None) -> bool:
        """Record success and, in the same step, fire the name of the task with the result as kwargs."""
        instance = self._ending(name, fence)
        if instance is None:
            return False
        instance.status = FINISHED
        instance.result = deepcopy(result)
        self._ends.append((instance, FINISHED, {}))
        self._record(instance.task, result, cause=name)
        self._complete()
        return True

    def fail(self, name: str, fence: int, error: Any) -> bool:
        """Record that the attempt failed. Only outcomes follow."""
        instance = self._ending(name, fence)
        if instance is None:
            return False
        self._fail(instance, error)
        return True

    def retry(
        self,
        name: str,
        fence: int,
        cooldown: int,
        max_retries: int,
        replacement_kwargs: Mapping[str, Any] | None = None,
    ) -> str | None:
        """Fail, and run again as a new instance after a cooldown in microseconds, as the task requests.

        Returns:
            The name of the new instance, or None if the fence is stale. If the instance stays failed, its own
            name: this was the last of ``max_retries`` retries in a row (its error is then
            ``"MaxRetriesExceeded"``), or its task is no longer configured.
        """
        instance = self._ending(name, fence)
        if instance is None:
            return None
        if instance.retries >= max_retries:
            self._fail(instance, "MaxRetriesExceeded", exhausted=True)
            return name
        if instance.task not in self.configuration:
            self._fail(instance, instance.error)
            return name
        run_at = self.now + cooldown
        return self._replay(instance, replacement_kwargs, retries=instance.retries + 1, run_at=run_at)

    def skip_running(self, name: str, fence: int) -> bool:
        """Record that the task requested to be skipped. Only outcomes follow."""
        instance = self._ending(name, fence)
        if instance is None:
            return False
        instance.status = SKIPPED
        self._ends.append((instance, SKIPPED, {}))
        self._complete()
        return True

    def release(self, name: str, fence: int, delay: int = 0) -> bool:
        """Release a running instance, which is due again after a delay in microseconds.

        No crash is counted.
        """
        instance = self._running(name, fence)
        if instance is None:
            return False
        instance.status = SCHEDULED
        instance.fence += 1
        instance.run_at = self.now + delay
        return True

    # -- time ------------------------------------------------------------------------------------------------

    def advance(self, microseconds: int) -> None:
        """Move the clock forward by this number of microseconds.

        Raises:
            ValueError: the number is negative.
        """
        if microseconds < 0:
            raise ValueError(f"the clock can't go back by {-microseconds} µs")
        self.now += microseconds

    def expire(self, name: str, *, fail_at_once: bool = False, known: bool = False) -> bool:
        """Count a crash of a running instance whose lease has expired, and schedule it again after a pause.

        The first crashes are not charged, unless it is ``known`` that the instance caused them. Later ones
        are, because the instance then runs alone. At ``max_crashes`` charged crashes, or at the first crash
        with ``fail_at_once``, the instance fails instead.

        Returns:
            False if the instance isn't running; then nothing has changed.
        """
        instance = self.instances[name]
        if instance.status != RUNNING:
            return False
        self.last_step = []
        instance.fence += 1
        instance.charged += known or instance.crashes >= NOT_CHARGED
        instance.crashes += 1
        if fail_at_once or instance.charged >= self.max_crashes:
            if {f"{instance.task}:{OUTCOMES[FAILED]}", f"{instance.task}:{ENDED}"} & outcomes_in(
                self.configuration
            ):
                self.elapse()  # the failure of one instance concerns the session only if it fires something
                self._begin()
            self._fail(instance, "WorkerLost", lost=True)
        else:
            instance.status = SCHEDULED
            backoff = self.crash_backoff[min(instance.crashes, len(self.crash_backoff)) - 1]
            instance.run_at = self.now + backoff
        return True

    # -- reading ---------------------------------------------------------------------------------------------

    def instances_of(self, task: str) -> list[ModelInstance]:
        """Return the instances of a task in the order of their numbers, whether or not it is configured."""
        return [instance for instance in self.instances.values() if instance.task == task]

    def unresolved_tasks(self) -> list[str]:
        """Return the configured tasks that have no instance yet or one that isn't resolved, sorted."""
        return sorted(task for task in self.configuration if not self._is_resolved(task))

    def unresolved_instances(self) -> list[str]:
        """Return the names of the instances that aren't resolved, sorted by task and number."""
        return _sorted_names(each for each in self.instances.values() if each.status not in RESOLVED)

    def waiting_for_finalizing(self) -> set[str]:
        """Return the configured tasks that wait for the finalizing trigger, directly or through others."""
        exempt: set[str] = set()
        while True:
            late = (
                exempt | {self.finalizing_trigger} | {f"{task}:{word}" for task in exempt for word in WORDS}
            )
            found = {task for task, rule in self.configuration.items() if awaited(rule) & late}
            if found == exempt:
                return exempt
            exempt = found

    def snapshot(self) -> dict[str, Any]:
        """Return everything that can be compared, as plain data that later steps do not change.

        Returns:
            ``firings``: ``(number, trigger, kwargs, key)`` in order; ``instances``: name → the fields of
            :class:`ModelInstance` without times of the session, ``vetoes`` as a sorted list; ``unresolved``:
            names of tasks, sorted; ``finalized``.
        """
        return {
            "firings": [(f.number, f.trigger, deepcopy(f.kwargs), f.key) for f in self.firings],
            "instances": {name: _as_dict(instance) for name, instance in self.instances.items()},
            "unresolved": self.unresolved_tasks(),
            "finalized": self.finalized,
        }

    def timeline(self) -> dict[str, Any]:
        """Return the times of the session, as plain data.

        Returns:
            ``firings``: the time of each, in order; ``created``: name of an instance → when it was created;
            ``met``: name of an instance whose delay has begun → when its condition was met; ``timers``:
            (name, kind, time, trigger, kwargs, key) in the order in which they elapse.
        """
        waiting = [each for each in self.instances.values() if each.status == UNSTARTED]
        return {
            "firings": [firing.at for firing in self.firings],
            "created": {each.name: each.created_at for each in self.instances.values()},
            "met": {each.name: each.met_at for each in waiting if each.met_at is not None},
            "timers": [
                (timer.name, timer.kind, timer.at, timer.trigger, timer.kwargs, timer.key)
                for timer in self._timers()
            ],
        }

    # -- time of the session ---------------------------------------------------------------------------------

    def _begin(self) -> None:
        """Begin a step of the session, as of its call. A session's time never goes back."""
        self.at = self._called()
        self.last_step = []

    def _called(self) -> int:
        return max(self.at, self.now if self.called_at is None else self.called_at)

    def _timers(self) -> list[ModelTimer]:
        return sorted(self.timers.values(), key=lambda timer: (timer.at, timer.order))

    def _next_timer(self) -> ModelTimer | None:
        return next(iter(self._timers()), None)

    def _set(self, timer: ModelTimer) -> None:
        """Set a timer. One with the same name is replaced; timers of instances have their own names."""
        self.timers[timer.kind != FIRES, timer.name] = replace(timer, order=self._timers_set)
        self._timers_set += 1

    def _remove(self, timer: ModelTimer) -> None:
        del self.timers[timer.kind != FIRES, timer.name]

    def _leave(self, instance: ModelInstance, status: str) -> None:
        """Give an instance another status than unstarted. It no longer has a timer."""
        instance.status = status
        self.timers.pop((True, instance.name), None)

    def _elapse(self, timer: ModelTimer) -> None:
        """Do what a timer is set for. The session's time is the timer's."""
        if timer.kind == FIRES:
            if self._keyed(timer.trigger, timer.key) is None:
                self._record(timer.trigger, timer.kwargs, timer.key)
        elif timer.kind == DELAY:
            self._schedule(self.instances[timer.name])
        else:
            self._miss(self.instances[timer.name], timer.at)

    def _miss(self, instance: ModelInstance, due: int) -> None:
        """Fire that an instance has missed its deadline, and then abandon it if its rule says so."""
        rule = self.configuration[instance.task]
        instance.missed = True
        if f"{instance.task}:{MISSED}" in outcomes_in(self.configuration):
            lacks = sorted(awaited(rule) - instance.taken.keys())
            moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=due)
            kwargs = {"instance": instance.name, "due": moment, "lacks": lacks}
            self._record(f"{instance.task}:{MISSED}", kwargs, cause=instance.name)
        late = (deadline_of(rule) or {}).get("late") == "abandon"
        if late and instance.status == UNSTARTED and not can_schedule(rule, instance.taken):
            self._abandon(instance)

    def _delay(self, instance: ModelInstance, since: int) -> None:
        """Begin the delay of an instance whose condition is met, or begin it again."""
        delay = self.configuration[instance.task]["delay"]
        pause = delay if isinstance(delay, str) else delay["for"]
        instance.met_at = since if instance.met_at is None else instance.met_at
        ends = since + duration(pause)
        if is_debounced(self.configuration[instance.task]) and "atMost" in delay:
            ends = min(ends, instance.met_at + duration(delay["atMost"]))
        self._set(ModelTimer(instance.name, DELAY, ends, since))

    def _set_deadline(self, instance: ModelInstance) -> None:
        """Set the deadline of an instance, which is missed once at most.

        It counts from the creation of the instance, or from when it received a trigger.
        """
        rule = self.configuration[instance.task]
        deadline = deadline_of(rule)
        if deadline is None or instance.missed or can_schedule(rule, instance.taken):
            return
        start = deadline.get("from")
        since = instance.created_at if start is None else instance.taken_at.get(start)
        if instance.status == UNSTARTED and since is not None:
            self._set(ModelTimer(instance.name, DEADLINE, since + duration(deadline["in"]), since))

    def _set_again(self, instance: ModelInstance) -> None:
        """Set the timer of an instance again, after the rules have changed.

        It counts from the same moment as before. A timer that does not change keeps its place in the order.
        """
        before = self.timers.pop((True, instance.name), None)
        rule = self.configuration.get(instance.task)
        if instance.status != UNSTARTED:
            return
        if rule is None or "delay" not in rule or not can_schedule(rule, instance.taken):
            instance.met_at = None
        if rule is not None and can_schedule(rule, instance.taken):
            self._delay(instance, before.since if before and before.kind == DELAY else self.at)
        elif rule is not None:
            self._set_deadline(instance)
        again = self.timers.get((True, instance.name))
        if before and again and (before.kind, before.at) == (again.kind, again.at):
            self.timers[True, instance.name] = before

    # -- deciding --------------------------------------------------------------------------------------------

    def _keyed(self, trigger: str, key: str | None) -> ModelFiring | None:
        """Return the firing of a trigger with a key."""
        found = (each for each in self.firings if (each.trigger, each.key) == (trigger, key))
        return None if key is None else next(found, None)

    def _record(
        self, trigger: str, kwargs: Mapping[str, Any] | None, key: str | None = None, cause: str | None = None
    ) -> None:
        number = len(self.firings) + 1
        firing = ModelFiring(number, trigger, deepcopy(dict(kwargs or {})), key, self.at, cause)
        self.firings.append(firing)
        self.last_step.append(self._apply(firing, list(self.configuration)))

    def _apply(self, firing: ModelFiring, tasks: Iterable[str]) -> ModelFireResult:
        """Give a firing to these tasks, and decide every instance that receives it."""
        created: list[ModelInstance] = []
        touched: list[ModelInstance] = []
        waits = [each for each in self.instances.values() if (True, each.name) in self.timers]
        delayed = {each.name for each in waits if self.timers[True, each.name].kind == DELAY}
        for task in sorted(tasks):
            rule = self.configuration[task]
            if firing.trigger not in awaited(rule) | vetoing(rule):
                continue
            existing = self.instances_of(task)
            given = [each for each in existing if self._give_kwargs(each, firing)]
            vetoed = [each for each in existing if self._give_veto(each, firing)]
            touched += given + [each for each in vetoed if each not in given]
            if not existing or (firing.trigger == rule.get("andEvery") and not given):
                created.append(self._create(task, firing))
        for instance in _sorted(touched + created):
            rule = self.configuration[instance.task]
            took = instance.taken.get(firing.trigger) == firing.number
            self._decide(instance, delays=instance.name not in delayed or (took and is_debounced(rule)))
            deadline = deadline_of(rule) or {}
            if instance in created or (took and deadline.get("from") == firing.trigger):
                self._set_deadline(instance)
        return ModelFireResult(
            firing.number,
            created=tuple(_sorted_names(created)),
            scheduled=tuple(_sorted_names(each for each in touched + created if each.status == SCHEDULED)),
            abandoned=tuple(_sorted_names(each for each in touched + created if each.status == ABANDONED)),
        )

    def _give_kwargs(self, instance: ModelInstance, firing: ModelFiring) -> bool:
        """An unstarted instance keeps the first firing of each trigger; if it is debounced, the last."""
        rule = self.configuration[instance.task]
        if instance.status != UNSTARTED or firing.trigger not in awaited(rule):
            return False
        if firing.trigger in instance.taken and not is_debounced(rule):
            return False
        instance.taken[firing.trigger] = firing.number
        instance.taken_at[firing.trigger] = self.at
        instance.kwargs[firing.trigger] = firing.kwargs
        return True

    def _give_veto(self, instance: ModelInstance, firing: ModelFiring) -> bool:
        if instance.status != UNSTARTED or firing.trigger in instance.vetoes:
            return False
        if firing.trigger not in vetoing(self.configuration[instance.task]):
            return False
        instance.vetoes.add(firing.trigger)
        return True

    def _create(self, task: str, firing: ModelFiring) -> ModelInstance:
        """A new instance begins with the latest firing, up to this one, of each trigger in its rule.

        During a catch-up there are firings after this one, which the instance receives later.
        """
        number = len(self.instances_of(task))
        name = f"{task}#{number}"
        instance = ModelInstance(name, task, number, root=name, created_at=self.at)
        self.instances[name] = instance
        latest = {earlier.trigger: earlier for earlier in self.firings[: firing.number]}
        for earlier in latest.values():
            self._give_kwargs(instance, earlier)
            self._give_veto(instance, earlier)
        return instance

    def _decide(self, instance: ModelInstance, *, delays: bool = True) -> None:
        """Decide whether an instance is scheduled or abandoned; if both are possible, it is abandoned.

        Only unstarted instances of configured tasks are decided. If the rule has a delay, it begins instead,
        unless ``delays`` is false.
        """
        rule = self.configuration.get(instance.task)
        if instance.status != UNSTARTED or rule is None:
            return
        if can_abandon(rule, instance.vetoes):
            self._abandon(instance)
        elif can_schedule(rule, instance.taken) and "delay" not in rule:
            self._schedule(instance)
        elif can_schedule(rule, instance.taken) and delays:
            self._delay(instance, self.at)

    def _abandon(self, instance: ModelInstance) -> None:
        self._leave(instance, ABANDONED)
        self._ends.append((instance, ABANDONED, {}))

    def _schedule(self, instance: ModelInstance) -> None:
        """Schedule an instance. When its work can start is a time of the storage, not of the session."""
        self._leave(instance, SCHEDULED)
        instance.run_at = self.now

    def _replay(
        self, old: ModelInstance, replacement_kwargs: Mapping[str, Any] | None, *, retries: int, run_at: int
    ) -> str:
        number = len(self.instances_of(old.task))
        name = f"{old.task}#{number}"
        new = ModelInstance(name, old.task, number, root=old.root, status=SCHEDULED, run_at=run_at)
        new.created_at = self.at
        new.kwargs, new.taken, new.vetoes = dict(old.kwargs), dict(old.taken), set(old.vetoes)
        new.parent, new.depth, new.retries = old.name, old.depth + 1, retries
        if replacement_kwargs is not None:
            new.kwargs = deepcopy(dict(replacement_kwargs))
            new.root = name
        self.instances[name] = new
        old.status = REPLAYED
        return name

    def _failed(self, name: str) -> ModelInstance:
        instance = self.instances[name]
        if instance.status != FAILED:
            raise ModelStatusError(f"{name!r} is {instance.status}, not {FAILED}")
        return instance

    def _running(self, name: str, fence: int) -> ModelInstance | None:
        instance = self.instances[name]
        return instance if instance.status == RUNNING and instance.fence == fence else None

    def _ending(self, name: str, fence: int) -> ModelInstance | None:
        """Begin a step that ends an attempt. Return its instance, or None if the fence is stale."""
        self.elapse()
        instance = self._running(name, fence)
        if instance is not None:
            self._begin()
        return instance

    def keeping_open(self, task: str) -> list[ModelInstance]:
        """Return the instances of a task that keep the session from being finalized.

        These are the unresolved ones. An exceptional task waits for something that may never happen, so its
        unstarted instances do not count before they have received an outcome that it still waits for.
        """
        unresolved = [each for each in self.instances_of(task) if each.status not in RESOLVED]
        exceptional = exceptional_in(self.configuration)
        if task not in exceptional:
            return unresolved
        names = {name for name in outcomes_in(self.configuration) if not name.endswith(f":{ENDED}")}
        names |= exceptional | {f"{other}:{ENDED}" for other in exceptional}
        names &= awaited(self.configuration[task])
        return [each for each in unresolved if each.status != UNSTARTED or set(each.taken) & names]

    def _is_resolved(self, task: str) -> bool:
        if task not in exceptional_in(self.configuration) and not self.instances_of(task):
            return False
        return not self.keeping_open(task)

    def _fail(
        self, instance: ModelInstance, error: Any, *, exhausted: bool = False, lost: bool = False
    ) -> None:
        """Fail an instance for good. Its error, as data, is None unless it has a type and a message."""
        instance.status = FAILED
        instance.error = error
        shown = {key: error[key] for key in ("type", "message")} if isinstance(error, Mapping) else None
        self._ends.append((instance, FAILED, {"error": shown, "exhausted": exhausted, "lost": lost}))
        self._complete()

    def _complete(self) -> None:
        """Fire what follows from a step: the outcomes of what ended, then the finalizing trigger.

        It is the end of each step that can end an instance.
        """
        self._fire_outcomes()
        if self.finalizing_trigger is not None and not self.finalized:
            needed = set(self.configuration) - self.waiting_for_finalizing()
            usual = needed - exceptional_in(self.configuration)
            if usual and all(self._is_resolved(task) for task in needed):
                self.finalized = True
                self._record(self.finalizing_trigger, {}, cause="finalizing")
                self._fire_outcomes()
        self.last_step = [replace(result, finalized=self.finalized) for result in self.last_step]

    def _fire_outcomes(self) -> None:
        """Fire the outcomes that rules name: those of what ended, then those of what this has ended.

        Each time, they are in the order of task and number.
        """
        named = outcomes_in(self.configuration)
        while self._ends:
            ends, self._ends = sorted(self._ends, key=lambda end: (end[0].task, end[0].number)), []
            for instance, status, details in ends:
                again = details.pop("again", False)
                kwargs = {"instance": instance.name, **details}
                if status in OUTCOMES and f"{instance.task}:{OUTCOMES[status]}" in named:
                    self._record(f"{instance.task}:{OUTCOMES[status]}", kwargs, cause=instance.name)
                if not again and f"{instance.task}:{ENDED}" in named:
                    ended = {"instance": instance.name, "outcome": status}
                    self._record(f"{instance.task}:{ENDED}", ended, cause=instance.name)


def _sorted(instances: Iterable[ModelInstance]) -> list[ModelInstance]:
    return sorted(instances, key=lambda each: (each.task, each.number))


def _sorted_names(instances: Iterable[ModelInstance]) -> list[str]:
    return [each.name for each in _sorted(instances)]


def _as_dict(instance: ModelInstance) -> dict[str, Any]:
    shown = [each.name for each in fields(instance) if each.name not in TIMES]
    state = {name: deepcopy(getattr(instance, name)) for name in shown}
    state["vetoes"] = sorted(state["vetoes"])
    return state
