# ruff: noqa: S101 - a test uses assert
"""Compare a storage with the reference model after each step of any sequence.

:class:`SessionMachine` is a Hypothesis state machine. Each of its rules takes one step on a session in a
storage, through the decisions of the core, and the same step on a
:class:`~triggers.testing.conformance.model.Model`. After each step both must show the same state, including
which instances the next firing would change.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from triggers.core.decisions import TRIAL
from triggers.core.decisions.attempt import RETURN_PAUSES
from triggers.core.names import instance_name
from triggers.core.state import Counter, is_done
from triggers.core.status import Status
from triggers.core.terms import AttemptReport, Finalizing, Policy, RetryTerms
from triggers.core.values import decode, encode
from triggers.exceptions import IdempotencyConflictError, InvalidStatusError, UnknownTaskError
from triggers.testing.conformance import strategies
from triggers.testing.conformance.model import (
    FAILED,
    FINISHED,
    MISSED,
    NOT_CHARGED,
    RUNNING,
    SCHEDULED,
    UNSTARTED,
    Model,
    ModelConflict,
    ModelInstance,
    ModelStatusError,
    ModelUnknownTask,
    awaited,
    is_debounced,
    outcomes_in,
    vetoing,
)
from triggers.testing.conformance.steps import LEASE, SECOND, PreviewedSteps, Steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from triggers.core.exchange import Changes
    from triggers.core.state import Firing, Instance, Session
    from triggers.testing.conformance.sandbox import StorageSandbox

#: Idempotency keys. There are only a few, so that they are used again.
KEYS: Final = ("k1", "k2")

#: Names of timers that fire a trigger.
TIMERS: Final = ("x", "y")

#: The pause before the sweep dispatches an instance again.
GRACE: Final = 30 * SECOND

#: Error of the model → the error of the library that means the same.
REFUSALS: Final = {
    ModelConflict: IdempotencyConflictError,
    ModelStatusError: InvalidStatusError,
    ModelUnknownTask: UnknownTaskError,
}

#: After so many steps, the waiting instances of every trigger have been checked.
LOOKS: Final = 4

_SECONDS: Final = st.integers(1, 12).map(lambda count: count * SECOND)
_PAUSES: Final = st.one_of(
    _SECONDS, st.sampled_from([0, 1, SECOND, 10 * SECOND, LEASE, LEASE + 1, 3600 * SECOND])
)
_RESULTS: Final = st.fixed_dictionaries({"r": st.integers(0, 1)})
_WHICH: Final = st.integers(0, 1_000)


class SessionMachine(RuleBasedStateMachine):
    """A state machine that takes the same steps on a storage and on the model.

    A subclass supplies the storage with :meth:`make_place`.
    """

    def make_place(self) -> StorageSandbox:
        """Return an empty sandbox for one run of the machine."""
        raise NotImplementedError

    def __init__(self) -> None:
        super().__init__()
        self.place: StorageSandbox = self.make_place()
        self.steps: Steps = Steps(self.place.open())
        self.model: Model = Model()
        self.attempts: list[AttemptReport] = []
        self.leases: dict[str, int] = {}
        self.trials: dict[str, int] = {}
        self.owners: dict[str, str] = {}
        self.given_back: dict[str, int] = {}
        self.looks = 0

    def teardown(self) -> None:
        """Close the sandbox after the last step of a run."""
        self.place.close()

    @initialize(
        finalizing=st.sampled_from([None, None, "d"]),
        configuration=strategies.configurations(times=True),
        keyed=st.booleans(),
        previewed=st.booleans(),
    )
    def begin(
        self, finalizing: str | None, configuration: dict[str, Any], *, keyed: bool, previewed: bool
    ) -> None:
        """A session begins with its configuration or with a firing. Every step may be previewed."""
        policy = Policy(grace=GRACE, finalizing=Finalizing(finalizing) if finalizing else None)
        kind = PreviewedSteps if previewed else Steps
        self.steps = kind(self.steps.storage, "session", policy)
        self.model = Model(finalizing, now=self.steps.storage.now())
        if keyed:
            self.fire(("a", {}, "k1"))
        self.configure(configuration, catch_up=False)

    # -- the application ---------------------------------------------------------------------------------

    @rule(firing=strategies.firings(keys=KEYS))
    def fire(self, firing: tuple[str, dict[str, Any], str | None]) -> None:
        """A trigger fires, sometimes with a key that was used before."""
        trigger, kwargs, key = firing
        expected, changes = self.both(
            lambda: self.model.fire(trigger, kwargs, key), lambda: self.steps.fire(trigger, kwargs, key)
        )
        if changes is None:
            return
        first = changes.duplicate_of or changes.fired[0]
        assert (first.number, changes.duplicate_of is not None) == (expected.number, expected.duplicate)
        assert (changes.session.finalized is not None) == expected.finalized
        self.check_effects(changes)

    @rule(
        configuration=strategies.configurations(min_tasks=0, times=True),
        catch_up=st.booleans(),
        keep=st.booleans(),
    )
    def configure(self, configuration: dict[str, Any], *, catch_up: bool, keep: bool = False) -> None:
        """The rules of all tasks are replaced, or those of some tasks while the others stay."""
        if keep:
            configuration = _with_deadlines({**self.model.configuration, **configuration})
        self.model.configure(configuration, catch_up=catch_up)
        self.steps.configure(configuration, catch_up=catch_up)

    @precondition(lambda self: self.model.configuration)
    @rule(which=_WHICH)
    def remove_task(self, which: int) -> None:
        """A task is no longer part of the configuration."""
        tasks = sorted(self.model.configuration)
        removed = tasks[which % len(tasks)]
        self.configure(
            {task: rule for task, rule in self.model.configuration.items() if task != removed}, catch_up=False
        )

    @precondition(lambda self: self.model.instances)
    @rule(
        which=_WHICH,
        kwargs=st.none() | st.fixed_dictionaries({"a": st.fixed_dictionaries({"n": st.just(9)})}),
    )
    def replay(self, which: int, kwargs: dict[str, Any] | None) -> None:
        """A person replays an instance, failed or not."""
        name = self.pick(which, FAILED).name
        self.both(lambda: self.model.replay(name, kwargs), lambda: self.steps.replay(name, kwargs))

    @precondition(lambda self: self.model.instances)
    @rule(which=_WHICH, result=st.none() | _RESULTS)
    def skip(self, which: int, result: dict[str, Any] | None) -> None:
        """A person skips an instance, failed or not, with or without a cascade."""
        name = self.pick(which, FAILED).name
        _, changes = self.both(
            lambda: self.model.skip(name, cascade=result is not None, result=result),
            lambda: self.steps.skip(name, result),
        )
        if changes is not None:
            self.check_effects(changes)

    @precondition(lambda self: self.model.instances)
    @rule(which=_WHICH)
    def schedule_by_hand(self, which: int) -> None:
        """A person schedules an instance. If it was running, its worker loses the claim."""
        name = self.pick(which, UNSTARTED).name
        self.both(lambda: self.model.schedule(name), lambda: self.steps.set_status(name, Status.SCHEDULED))

    @rule(
        firing=strategies.firings(keys=KEYS),
        after=st.one_of(_SECONDS, st.sampled_from([-SECOND, 3600 * SECOND])),
        name=st.sampled_from(TIMERS),
    )
    def fire_later(self, firing: tuple[str, dict[str, Any], str | None], after: int, name: str) -> None:
        """The application sets a timer, sometimes in the past, or instead of another one."""
        trigger, kwargs, key = firing
        self.model.fire_later(trigger, after, name, kwargs, key)
        self.steps.fire_later(trigger, timedelta(microseconds=after), kwargs, name, key)

    @precondition(lambda self: self.model.timers)
    @rule(name=st.sampled_from(TIMERS))
    def cancel(self, name: str) -> None:
        """The application cancels a timer that may be set."""
        expected = self.model.cancel(name)
        assert self.steps.cancel(name) == expected

    # -- the worker --------------------------------------------------------------------------------------

    @precondition(lambda self: self.model.instances)
    @rule(which=_WHICH)
    def claim(self, which: int) -> None:
        """A worker tries to claim an instance that may be due."""
        self.claim_named(self.pick(which, SCHEDULED).name)

    def claim_named(self, name: str) -> None:
        """A worker tries to claim the instance with this name."""
        fence = self.model.claim(name)
        owner = f"worker {len(self.attempts)}"
        claimed = self.steps.claim(name, owner).claimed
        assert (None if claimed is None else claimed.fence) == fence
        if claimed is not None:
            self.attempts.append(AttemptReport(claimed.task, claimed.number, claimed.fence, claimed.attempt))
            self.leases[name] = self.model.now + LEASE
            self.owners[name] = owner

    @precondition(lambda self: self.due())
    @rule(which=_WHICH, end=st.sampled_from(["finish", "fail", "skip_running"]))
    def run(self, which: int, end: str) -> None:
        """A worker claims an instance that is due, and ends it."""
        due = self.due()
        name = due[which % len(due)].name
        self.claim_named(name)
        last = len(self.attempts) - 1
        {"finish": lambda: self.finish(last, {"r": 0}), "fail": lambda: self.fail(last)}.get(
            end, lambda: self.skip_running(last)
        )()

    @precondition(lambda self: self.running())
    @rule(which=_WHICH, own=st.booleans())
    def claim_again(self, which: int, *, own: bool) -> None:
        """A claim whose answer was lost is repeated, or another worker tries to claim. Nothing changes."""
        running = self.running()
        instance = running[which % len(running)]
        changes = self.steps.claim(instance.name, self.owners[instance.name] if own else "another")
        assert (changes.claimed is not None) == own

    @precondition(lambda self: self.model.instances)
    @rule(which=_WHICH)
    def give_back(self, which: int) -> None:
        """A worker without the task returns the instance, which pauses longer each time."""
        instance = self.pick(which, SCHEDULED)
        changes = self.steps.claim(instance.name, able=False)
        assert changes.claimed is None
        if instance.status == SCHEDULED and instance.run_at is not None and instance.run_at <= self.model.now:
            times = self.given_back.get(instance.name, 0)
            self.given_back[instance.name] = times + 1
            instance.run_at = self.model.now + RETURN_PAUSES[min(times, len(RETURN_PAUSES) - 1)]

    @precondition(lambda self: self.attempts)
    @rule()
    def renew(self) -> None:
        """A heartbeat for all attempts so far returns those that have lost their claim."""
        lost = self.steps.renew(*self.attempts)
        held = {attempt for attempt in map(_frozen, self.attempts) if self.holds(attempt)}
        assert lost == {self.steps.held(attempt) for attempt in self.attempts if _frozen(attempt) not in held}
        for task, number, _ in held:
            self.leases[f"{task}#{number}"] = self.model.now + LEASE

    @precondition(lambda self: self.attempts)
    @rule(which=_WHICH, result=_RESULTS)
    def finish(self, which: int, result: dict[str, Any]) -> None:
        """An attempt returns a result, even if it is stale."""
        attempt, name = self.attempt(which)
        done = self.model.finish(name, attempt.fence, result)
        changes = self.steps.finish(attempt, result)
        assert bool(changes.refused) != done
        if done:
            self.check_effects(changes)

    @precondition(lambda self: self.attempts)
    @rule(which=_WHICH)
    def fail(self, which: int) -> None:
        """An attempt raises an error, even if it is stale."""
        attempt, name = self.attempt(which)
        done = self.model.fail(name, attempt.fence, "boom")
        assert bool(self.steps.fail(attempt, "boom").refused) != done

    @precondition(lambda self: self.attempts)
    @rule(
        which=_WHICH,
        cooldown=st.sampled_from([0, 5 * SECOND]),
        limit=st.integers(0, 2),
        kwargs=st.none() | st.fixed_dictionaries({"a": st.just({"n": 8})}),
    )
    def retry(self, which: int, cooldown: int, limit: int, kwargs: dict[str, Any] | None) -> None:
        """An attempt requests a retry, sometimes beyond its limit."""
        attempt, name = self.attempt(which)
        successor = self.model.retry(name, attempt.fence, cooldown, limit, kwargs)
        payload = None if kwargs is None else encode(kwargs, "kwargs")
        terms = RetryTerms(cooldown, limit, encode("MaxRetriesExceeded", "error"), payload)
        changes = self.steps.fail(attempt, None, terms)
        assert bool(changes.refused) == (successor is None)
        replays = [made.name for made in changes.created if made.parent is not None]
        assert replays == ([] if successor in (None, name) else [successor])

    @precondition(lambda self: self.attempts)
    @rule(which=_WHICH)
    def skip_running(self, which: int) -> None:
        """An attempt requests to be skipped."""
        attempt, name = self.attempt(which)
        done = self.model.skip_running(name, attempt.fence)
        assert bool(self.steps.skip_running(attempt).refused) != done

    @precondition(lambda self: self.attempts)
    @rule(which=_WHICH)
    def release(self, which: int) -> None:
        """A worker that stops releases an attempt."""
        attempt, name = self.attempt(which)
        done = self.model.release(name, attempt.fence)
        assert bool(self.steps.release(attempt).refused) != done

    # -- time and the sweep ------------------------------------------------------------------------------

    @rule(pause=_PAUSES)
    def advance(self, pause: int) -> None:
        """The clocks of the storage and the model advance."""
        self.place.advance(timedelta(microseconds=pause))
        self.model.advance(pause)

    @precondition(lambda self: self.model.timers)
    @rule()
    def elapse(self) -> None:
        """The sweep finds the session if a timer is due, and lets the due ones elapse."""
        storage = self.steps.storage
        due = any(timer.at <= self.model.now for timer in self.model.timers.values())
        found = {
            one.uid
            for one in storage.timed_sessions(9, [self.steps.policy.manager])
            if one.at <= storage.now()
        }
        assert found == {self.steps.uid} if due else found <= {self.steps.uid}
        elapsed = self.steps.elapse()
        before = len(self.model.firings)
        self.model.elapse()
        assert [each.number for each in elapsed.fired] == [
            each.number for each in self.model.firings[before:]
        ]

    @rule()
    def recover(self) -> None:
        """The sweep finds exactly the claims that have expired, and recovers them."""
        found = self.steps.storage.expired(1_000)
        running = {instance.name: instance for instance in self.running()}
        late = {name for name in running if self.leases[name] < self.model.now}
        assert {f"{each.task}#{each.number}" for each in found} == late
        for each in found:
            name = f"{each.task}#{each.number}"
            changes = self.steps.recover(name, each.fence)
            assert not changes.refused
            if (
                changes.transitioned[0][0].status is Status.RUNNING
            ):  # it ran alone: first its worker gets a trial
                assert self.model.instances[name].crashes >= NOT_CHARGED
                assert self.leases[name] != self.trials.get(name)
                self.leases[name] = self.trials[name] = self.model.now + TRIAL
            else:
                assert self.model.expire(name)
            assert self.steps.recover(name, each.fence).refused, (
                "a second sweep that found the same claim is too late"
            )

    @precondition(lambda self: self.model.instances)
    @rule(which=_WHICH)
    def recover_too_early(self, which: int) -> None:
        """A claim that has not expired cannot be recovered."""
        instance = self.pick(which, RUNNING)
        if instance.status != RUNNING or self.leases[instance.name] >= self.model.now:
            assert self.steps.recover(instance.name, instance.fence).refused

    @rule()
    def dispatch(self) -> None:
        """The sweep returns all due instances, including those that were just dispatched."""
        found = self.steps.storage.due(1_000, grace=GRACE, include_recent=True)
        due = [each for each in self.model.instances.values() if each.status == SCHEDULED]
        assert {f"{each.task}#{each.number}" for each in found} == {
            each.name for each in due if each.run_at is not None and each.run_at <= self.model.now
        }
        assert self.steps.storage.due(1_000, grace=GRACE) == []

    @rule()
    def reopen(self) -> None:
        """A new handle is opened, and the old one is closed."""
        storage = self.place.open()
        self.steps.storage.close()
        self.steps = replace(self.steps, storage=storage)

    # -- comparisons -------------------------------------------------------------------------------------

    @invariant()
    def storage_and_model_agree(self) -> None:
        """The storage shows the same session as the model, and its head is not late for a timer."""
        head = self.steps.storage.reader.session(self.steps.uid)
        if head is None:
            return
        instances, firings = self.steps.instances(page=7), self.steps.firings(page=7)
        assert _shown(self.steps, head, instances, firings) == _comparable(self.model)
        expected = self.model.timeline()
        assert _timeline(self.steps, instances, firings) == expected
        if expected["timers"]:
            assert head.next_timer_at is not None
            assert head.next_timer_at <= expected["timers"][0][2]

    @invariant()
    def the_index_is_exact(self) -> None:
        """A firing would change exactly the unstarted instances that lack its trigger.

        Each look is a commit, so a few triggers are checked after each step, the others after the next ones.
        """
        names = (*strategies.TRIGGERS, *strategies.TASKS, *sorted(outcomes_in(self.model.configuration)))
        self.looks += 1
        for trigger in names[self.looks % LOOKS :: LOOKS]:
            lacking = {each.name for each in self.model.instances.values() if self.lacks(each, trigger)}
            assert self.steps.waiting(trigger) == lacking, f"the instances that wait for {trigger}"

    @invariant()
    def the_counts_are_exact(self) -> None:
        """The counters and the backlog agree with the instances."""
        counters = self.steps.storage.reader.counters(self.steps.uid)
        instances = self.model.instances.values()
        tasks = {each.task for each in instances}
        expected = {
            task: (len(self.model.instances_of(task)), len(self.model.keeping_open(task))) for task in tasks
        }
        assert {task: (each.created, each.unresolved) for task, each in counters.items()} == expected
        ready = self.due()
        scheduled = sum(each.status == SCHEDULED for each in instances)
        backlog = self.steps.storage.reader.backlog()
        assert backlog[:3] == (len(ready), scheduled - len(ready), len(self.running()))

    # -- choices -------------------------------------------------------------------------------------------

    def both(self, model: Callable[[], Any], storage: Callable[[], Any]) -> tuple[Any, Any]:
        """Take a step on both. If the model refuses it, the storage must too; then return (None, None)."""
        try:
            expected = model()
        except tuple(REFUSALS) as error:
            with pytest.raises(REFUSALS[type(error)]):
                storage()
            return None, None
        return expected, storage()

    def check_effects(self, changes: Changes) -> None:
        """Assert that the step created, scheduled and abandoned the same instances as the model."""
        step = self.model.last_step
        assert [made.name for made in changes.created] == [
            name for each in step for name in each.created
        ] or {made.name for made in changes.created} == {name for each in step for name in each.created}
        assert {each.name for each in changes.scheduled()} == {
            name for each in step for name in each.scheduled
        }
        touched = [*changes.created, *changes.triggered]
        abandoned = {each.name for each in touched if each.status is Status.ABANDONED}
        assert abandoned == {name for each in step for name in each.abandoned}

    def pick(self, which: int, status: str) -> ModelInstance:
        """Choose an instance; in three of four cases one in that status, if there is one."""
        every = list(self.model.instances.values())
        preferred = [instance for instance in every if instance.status == status]
        chosen = preferred if preferred and which % 4 else every
        return chosen[which // 4 % len(chosen)]

    def attempt(self, which: int) -> tuple[AttemptReport, str]:
        """Choose an attempt and the name of its instance; in three of four cases it still holds the claim."""
        holding = [attempt for attempt in self.attempts if self.holds(_frozen(attempt))]
        chosen = holding if holding and which % 4 else self.attempts
        attempt = chosen[which // 4 % len(chosen)]
        return attempt, f"{attempt.task}#{attempt.number}"

    def due(self) -> list[ModelInstance]:
        """Return the instances of the model that can be claimed now."""
        return [
            instance
            for instance in self.model.instances.values()
            if instance.status == SCHEDULED and (instance.run_at or 0) <= self.model.now
        ]

    def running(self) -> list[ModelInstance]:
        """Return the running instances of the model."""
        return [instance for instance in self.model.instances.values() if instance.status == RUNNING]

    def holds(self, attempt: tuple[str, int, int]) -> bool:
        """Return whether the attempt still holds its instance."""
        task, number, fence = attempt
        instance = self.model.instances[f"{task}#{number}"]
        return instance.status == RUNNING and instance.fence == fence

    def lacks(self, instance: ModelInstance, trigger: str) -> bool:
        """Return whether the instance would take the trigger."""
        wanted = self.model.configuration.get(instance.task)
        if instance.status != UNSTARTED or wanted is None:
            return False
        takes_again = is_debounced(wanted)
        return (trigger in awaited(wanted) and (takes_again or trigger not in instance.taken)) or (
            trigger in vetoing(wanted) and trigger not in instance.vetoes
        )


def _with_deadlines(configuration: dict[str, Any]) -> dict[str, Any]:
    """Add a deadline to each task whose missed deadline a rule waits for."""
    heard = {name.removesuffix(f":{MISSED}") for name in outcomes_in(configuration) if name.endswith(MISSED)}
    return {
        task: {"deadline": "PT5S", **rule} if task in heard else rule for task, rule in configuration.items()
    }


def shown(steps: Steps) -> dict[str, Any]:
    """Return what a storage shows of a session, in the form of :meth:`.Model.snapshot`."""
    return _shown(steps, steps.head, steps.instances(page=7), steps.firings(page=7))


def _shown(steps: Steps, head: Session, instances: list[Instance], fired: list[Firing]) -> dict[str, Any]:
    firings = {firing.number: firing for firing in fired}
    counters = steps.storage.reader.counters(steps.uid)
    rules, none = head.rules, Counter()
    unresolved = sorted(task for task in rules.rules if not is_done(rules, task, counters.get(task, none)))
    assert head.firings == len(firings), "the head counts the firings"
    return {
        "firings": [(each.number, each.trigger, decode(each.kwargs), each.key) for each in firings.values()],
        "instances": {
            each.name: _as_dict(
                each, kwargs, {number: decode(fired.kwargs) for number, fired in firings.items()}
            )
            for each, kwargs in zip(instances, steps.kwargs_of(instances), strict=True)
        },
        "unresolved": unresolved,
        "finalized": head.finalized is not None,
    }


def timeline(steps: Steps) -> dict[str, Any]:
    """Return the times that a storage shows of a session, in the form of :meth:`.Model.timeline`."""
    return _timeline(steps, steps.instances(), steps.firings())


def _timeline(steps: Steps, instances: list[Instance], firings: list[Firing]) -> dict[str, Any]:
    waiting = [each for each in instances if each.status is Status.UNSTARTED]
    return {
        "firings": [each.at for each in firings],
        "created": {each.name: each.created_at for each in instances},
        "met": {each.name: each.run_at for each in waiting if each.run_at},
        "timers": [
            (
                instance_name(*timer.instance) if timer.instance else timer.name,
                *(timer.kind, timer.at, timer.trigger, decode(timer.kwargs), timer.key),
            )
            for timer in steps.timers()
        ],
    }


def _as_dict(instance: Instance, kwargs: dict[str, Any], fired: dict[int, Any]) -> dict[str, Any]:
    task = instance.task
    finished = instance.status is Status.FINISHED and instance.result is not None
    return {
        "name": instance.name,
        "task": task,
        "number": instance.number,
        "root": f"{task}#{instance.root}",
        "status": instance.status.value,
        "kwargs": kwargs,
        "taken": instance.taken,
        "vetoes": sorted(instance.vetoes),
        "parent": None if instance.parent is None else f"{task}#{instance.parent}",
        "depth": instance.depth,
        "retries": instance.retries,
        "fence": instance.fence,
        "attempt": instance.attempt,
        "crashes": instance.crashes,
        "charged": instance.charged,
        "result": fired[instance.result or 0] if finished else None,
        "error": None if instance.error is None else decode(instance.error),
        "run_at": (instance.run_at or None) if instance.status is not Status.UNSTARTED else None,
    }


def _comparable(model: Model) -> dict[str, Any]:
    """The snapshot of the model, with the error that the machine stores for a lost worker."""
    snapshot = model.snapshot()
    for instance in snapshot["instances"].values():
        if instance["error"] == "WorkerLost":
            instance["error"] = "lost"
        assert instance["status"] == FINISHED or instance["result"] is None
    return snapshot


def _frozen(attempt: AttemptReport) -> tuple[str, int, int]:
    return attempt.task, attempt.number, attempt.fence
