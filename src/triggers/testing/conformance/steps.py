"""Every decision of the core as one step on one session, for tests of storages.

:class:`Steps` does what a manager and a worker do, without hooks, runners and threads. Each step encodes its
values, commits a decision through the storage, and returns the changes that were stored.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import TYPE_CHECKING, Any, Final

from triggers.core import decisions
from triggers.core.configuration import check_configuration
from triggers.core.durations import micros
from triggers.core.exchange import Changes, Decision, Need, Slice
from triggers.core.names import split_instance_name
from triggers.core.picture import in_picture
from triggers.core.state import Instance, Session, new_firing
from triggers.core.terms import AttemptReport, Policy, RetryTerms, Terms
from triggers.core.timers import FIRES, Timer
from triggers.core.values import decode, encode
from triggers.storages.base import Lease
from triggers.storages.in_time import commit_in_time

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Mapping
    from datetime import timedelta

    from triggers.core.exchange import DecisionRun
    from triggers.core.records import LogBatch
    from triggers.core.state import Firing
    from triggers.core.status import Status
    from triggers.storages.base import Storage

#: One second, in microseconds.
SECOND: Final = 1_000_000

#: The lease of the claims in these steps, in microseconds.
LEASE: Final = 60 * SECOND


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps on one session of one storage.

    Attributes:
        storage: the storage of the session.
        uid: the UID of the session.
        policy: the policy of its manager.
    """

    storage: Storage
    uid: str = "session"
    policy: Policy = field(default_factory=Policy)

    def commit(self, decision: Decision) -> Changes:
        """Commit any decision about the session, after the timers that are due."""
        return commit_in_time(self.storage, self.uid, decision, self.policy, [])

    def preview(self, decision: Decision) -> Changes:
        """Preview any decision about the session."""
        return self.storage.reader.preview(self.uid, in_picture(decision, self.policy))

    # -- the application ---------------------------------------------------------------------------------

    def configure(
        self, configuration: Mapping[str, Any], *, catch_up: bool = False, merge: bool = False
    ) -> Changes:
        """Replace the rules of the session; with `merge`, only those of the same tasks."""
        rules = check_configuration(dict(configuration), limits=self.policy.limits)
        return self.commit(decisions.configure(self.policy, rules, catch_up=catch_up, merge=merge))

    def fire(self, trigger: str, kwargs: Mapping[str, Any] | None = None, key: str | None = None) -> Changes:
        """Fire a trigger in the session."""
        firing = new_firing(trigger, kwargs, key, limits=self.policy.limits)
        return self.commit(decisions.fire(self.policy, firing))

    def fire_later(
        self,
        trigger: str,
        after: timedelta,
        kwargs: Mapping[str, Any] | None = None,
        name: str = "timer",
        key: str | None = None,
    ) -> Changes:
        """Set a timer that fires a trigger."""
        firing = new_firing(trigger, kwargs, key, limits=self.policy.limits)
        fired = (firing.trigger, firing.kwargs, firing.key, firing.fingerprint)
        return self.commit(
            decisions.set_timer(self.policy, Timer(name, 0, 0, FIRES, 0, 0, *fired), micros(after))
        )

    def cancel(self, name: str) -> bool:
        """Remove a timer that fires a trigger, and return whether there was one."""
        return not self.commit(decisions.cancel_timer(self.policy, name)).refused

    def elapse(self) -> Changes:
        """Let due timers elapse, as a sweep does."""
        return self.storage.commit(self.uid, decisions.elapse(self.policy))

    def timers(self) -> list[Timer]:
        """Return the timers of the session, in their order."""
        return self.storage.reader.timers(self.uid, limit=1_000)

    def replay(
        self, name: str, kwargs: Mapping[str, Any] | None = None, metadata: Mapping[str, Any] | None = None
    ) -> Instance:
        """Replay a failed instance, and return the new one."""
        payload = None if kwargs is None else encode(dict(kwargs), "kwargs")
        task, number = split_instance_name(name)
        return self.commit(decisions.replay(self.policy, task, number, payload, metadata)).created[0]

    def skip(self, name: str, result: Mapping[str, Any] | None = None) -> Changes:
        """Skip a failed instance. With a result, cascade."""
        payload = None if result is None else encode(dict(result), "result")
        task, number = split_instance_name(name)
        return self.commit(decisions.skip(self.policy, task, number, result=payload))

    def set_status(
        self,
        name: str,
        status: Status,
        metadata: Mapping[str, Any] | None = None,
        result: Mapping[str, Any] | None = None,
    ) -> Changes:
        """Set the status of an instance, as a person does. With a result, cascade."""
        payload = None if result is None else encode(dict(result), "result")
        task, number = split_instance_name(name)
        return self.commit(decisions.set_status(self.policy, task, number, status, metadata, payload))

    def add_metadata(self, name: str, metadata: Mapping[str, Any]) -> Changes:
        """Add keys to the metadata of an instance."""
        task, number = split_instance_name(name)
        return self.commit(decisions.add_metadata(self.policy, task, number, metadata))

    def describe(self, metadata: Mapping[str, Any]) -> Changes:
        """Add keys to the metadata of the session."""
        return self.commit(decisions.add_session_metadata(self.policy, metadata))

    def resolve_logs(
        self,
        name: str,
        audit: Mapping[str, Any],
        through: int | None = None,
        records: Collection[int] | None = None,
    ) -> Changes:
        """Record that a person has reviewed records: all, those up to a number, or chosen ones."""
        task, number = split_instance_name(name)
        return self.commit(decisions.resolve_logs(self.policy, task, number, audit, through, records))

    def reopen_logs(self, name: str, audit: Mapping[str, Any]) -> Changes:
        """Record that a person has undone every review of an instance's records."""
        task, number = split_instance_name(name)
        return self.commit(decisions.reopen_logs(self.policy, task, number, audit))

    # -- the worker --------------------------------------------------------------------------------------

    def claim(
        self,
        name: str,
        owner: str = "worker",
        *,
        lease: int = LEASE,
        crash_budget: int = 3,
        able: bool = True,
    ) -> Changes:
        """Claim an instance, alone if it must be; if `able` is false, as a worker without its task."""
        task, number = split_instance_name(name)
        terms = Terms(lease, crash_budget) if able else None

        def claim(owner: str) -> Changes:
            return self.commit(decisions.claim(self.policy, task, number, owner, lambda *_: terms))

        changes = claim(owner)
        return claim(decisions.alone(owner)) if able and changes.refused else changes

    def start(
        self, name: str, owner: str = "worker", *, lease: int = LEASE, crash_budget: int = 3
    ) -> AttemptReport:
        """Claim an instance that is due, and return the attempt that holds it.

        Raises:
            AssertionError: the instance could not be claimed.
        """
        changes = self.claim(name, owner, lease=lease, crash_budget=crash_budget)
        if changes.claimed is None:
            message = f"{name} was not claimed: {changes.refused}"
            raise AssertionError(message)
        return attempt_at(changes.claimed)

    def finish(self, attempt: AttemptReport, result: Mapping[str, Any] | None = None) -> Changes:
        """End an attempt with a result."""
        payload = encode(dict(result or {}), "result")
        return self.commit(decisions.finish(self.policy, attempt, payload))

    def run(self, name: str, result: Mapping[str, Any] | None = None) -> Changes:
        """Claim an instance and finish it with a result."""
        return self.finish(self.start(name), result)

    def fail(
        self, attempt: AttemptReport, error: object = "failed", retry: RetryTerms | None = None
    ) -> Changes:
        """End an attempt with an error, and a retry if there are terms for it."""
        payload = encode(error, "error")
        return self.commit(decisions.fail(self.policy, attempt, payload, retry))

    def skip_running(self, attempt: AttemptReport) -> Changes:
        """End an attempt because its task requests to be skipped."""
        return self.commit(decisions.skip_running(self.policy, attempt))

    def release(self, attempt: AttemptReport) -> Changes:
        """Release an attempt, as a worker does that stops."""
        return self.commit(decisions.release(self.policy, attempt))

    def keep_logs(self, attempt: AttemptReport, logs: LogBatch) -> Changes:
        """Store log records of an attempt before its end."""
        said = AttemptReport(attempt.task, attempt.number, attempt.fence, attempt.attempt, logs)
        return self.commit(decisions.keep_logs(self.policy, said))

    def recover(self, name: str, fence: int) -> Changes:
        """Recover an instance whose lease has expired."""
        task, number = split_instance_name(name)
        return self.commit(decisions.recover(self.policy, task, number, fence, lambda _: encode("lost", "")))

    def renew(self, *attempts: AttemptReport, lease: int = LEASE) -> set[Lease]:
        """Send a heartbeat for these attempts, and return the claims that are lost."""
        return self.storage.renew([self.held(attempt) for attempt in attempts], lease)

    def held(self, attempt: AttemptReport) -> Lease:
        """Return the claim of an attempt, as a heartbeat names it."""
        return Lease(self.uid, attempt.task, attempt.number, attempt.fence)

    # -- reading -----------------------------------------------------------------------------------------

    @property
    def head(self) -> Session:
        """The head of the session. The session must exist."""
        session = self.storage.reader.session(self.uid)
        assert session is not None, f"session {self.uid!r} does not exist"  # noqa: S101 - a step of a test
        return session

    def __getitem__(self, name: str) -> Instance:
        """Return the instance of that name. It must exist."""
        instance = self.storage.reader.instance(self.uid, *split_instance_name(name))
        assert instance is not None, f"session {self.uid!r} has no {name}"  # noqa: S101 - a step of a test
        return instance

    def instances(self, page: int = 100) -> list[Instance]:
        """Return all instances, which are read in pages of this size."""
        found: list[Instance] = []
        after = ("", -1)
        while more := self.storage.reader.instances(self.uid, after=after, limit=page):
            found += more
            after = (more[-1].task, more[-1].number)
        return found

    def statuses(self) -> dict[str, str]:
        """Return the name of every instance → its status."""
        return {instance.name: instance.status.value for instance in self.instances()}

    def firings(self, page: int = 100) -> list[Firing]:
        """Return all firings, which are read in pages of this size."""
        found: list[Firing] = []
        while more := self.storage.reader.firings(
            self.uid, after=found[-1].number if found else 0, limit=page
        ):
            found += more
        return found

    def kwargs(self, name: str) -> dict[str, Any]:
        """Return the kwargs of an instance: trigger → kwargs, or exactly its replacement kwargs."""
        return next(self.kwargs_of([self[name]]))

    def kwargs_of(self, instances: Collection[Instance]) -> Iterator[dict[str, Any]]:
        """Yield the kwargs of each instance, as :meth:`kwargs` returns them."""
        numbers = {number for instance in instances for number in instance.taken.values()}
        fired = self.storage.reader.firings(self.uid, numbers=numbers)
        payloads = {firing.number: firing.kwargs for firing in fired}
        for instance in instances:
            if instance.kwargs is not None:
                yield decode(instance.kwargs)
            else:
                yield {trigger: decode(payloads[number]) for trigger, number in instance.taken.items()}

    def look(self, need: Need) -> Slice:
        """Return the slice that the storage loads for this need. Nothing is changed."""
        seen: list[Slice] = []

        def begin(session: Session) -> DecisionRun:
            seen.append((yield need))
            return Changes(session, writes_head=False)

        self.commit(Decision("look", begin))
        return seen[-1]

    def waiting(self, trigger: str) -> set[str]:
        """Return the names of the unstarted instances that a firing of the trigger would change."""
        return {instance.name for instance in self.look(Need(waiting=(trigger,))).instances}


class PreviewedSteps(Steps):
    """The same steps. Each decision is previewed first, and the commit must do what the preview has shown.

    Time must not pass by itself.
    """

    def commit(self, decision: Decision) -> Changes:
        """Preview and commit any decision about the session.

        Raises:
            AssertionError: the commit has other changes, or raises another exception.
        """
        expected, found = _result(self.preview, decision), _result(super().commit, decision)
        pairs = zip(_comparable(found), _comparable(expected), strict=True)
        different = [pair for pair in pairs if pair[0] != pair[1]]
        assert not different, f"{decision.name}: {different}"  # noqa: S101 - a step of a test
        if isinstance(found, Exception):
            raise found
        return found


def _result(run: Callable[[Decision], Changes], decision: Decision) -> Changes | Exception:
    try:
        return run(decision)
    except Exception as error:  # noqa: BLE001 - it is compared, and raised again
        return error


def _comparable(result: Changes | Exception) -> list[Any]:
    return [repr(result)] if isinstance(result, Exception) else without_refs(result)


def without_refs(changes: Changes) -> list[Any]:
    """Return the values of changes without the references that a storage adds when it stores them."""
    return [_without_refs(getattr(changes, part.name)) for part in fields(changes)]


def _without_refs(value: Any) -> Any:
    if isinstance(value, (Instance, Session)):
        return replace(value, ref=None)
    if isinstance(value, (list, tuple)):
        return [_without_refs(each) for each in value]
    return value


def attempt_at(instance: Instance) -> AttemptReport:
    """Return the attempt that holds an instance now."""
    return AttemptReport(instance.task, instance.number, instance.fence, instance.attempt)
