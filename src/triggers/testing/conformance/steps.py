"""Every decision of the law as one step on one session, for tests of storages.

What :class:`Steps` does is what a manager and a worker do, without hooks, runners and threads: it encodes,
decides through the storage, and returns the changes.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from triggers.core import decisions
from triggers.core.configuration import check_configuration
from triggers.core.exchange import Changes, Decision, Need, Slice
from triggers.core.names import split_instance_name
from triggers.core.state import Instance, Session, new_firing
from triggers.core.terms import AttemptReport, Policy, RetryTerms, Terms
from triggers.core.values import decode, encode
from triggers.storages.base import Lease

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping

    from triggers.core.exchange import DecisionRun
    from triggers.core.records import LogBatch
    from triggers.core.state import Firing
    from triggers.core.status import Status
    from triggers.storages.base import Storage

#: One second, in the unit of every time in a storage.
SECOND: Final = 1_000_000

#: How long a claim of these steps lasts.
LEASE: Final = 60 * SECOND


@dataclass(frozen=True, slots=True)
class Steps:
    """Steps on one session of one storage.

    Attributes:
        storage: where the session is kept.
        uid: the session.
        policy: its manager's.
    """

    storage: Storage
    uid: str = "session"
    policy: Policy = field(default_factory=Policy)

    def commit(self, decision: Decision) -> Changes:
        """Let any decision be made about the session."""
        return self.storage.commit(self.uid, decision)

    # -- the application ---------------------------------------------------------------------------------

    def configure(self, configuration: Mapping[str, Any], *, catch_up: bool = False) -> Changes:
        """Give the session rules."""
        rules = check_configuration(dict(configuration), limits=self.policy.limits)
        return self.commit(decisions.configure(self.policy, rules, catch_up=catch_up))

    def fire(self, trigger: str, kwargs: Mapping[str, Any] | None = None, key: str | None = None) -> Changes:
        """Fire a trigger."""
        firing = new_firing(trigger, kwargs, key, limits=self.policy.limits)
        return self.commit(decisions.fire(self.policy, firing))

    def replay(self, name: str, kwargs: Mapping[str, Any] | None = None) -> Instance:
        """Replay a failed instance; returns the new one."""
        payload = None if kwargs is None else encode(dict(kwargs), "kwargs")
        task, number = split_instance_name(name)
        return self.commit(decisions.replay(self.policy, task, number, payload)).created[0]

    def skip(self, name: str, result: Mapping[str, Any] | None = None) -> Changes:
        """Skip a failed instance; with a result, cascade."""
        payload = None if result is None else encode(dict(result), "result")
        task, number = split_instance_name(name)
        return self.commit(decisions.skip(self.policy, task, number, result=payload))

    def set_status(self, name: str, status: Status) -> Changes:
        """Move an instance by hand."""
        task, number = split_instance_name(name)
        return self.commit(decisions.set_status(self.policy, task, number, status))

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
        """Record that a person has reviewed the records of an instance: all, up to one, or chosen ones."""
        task, number = split_instance_name(name)
        return self.commit(decisions.resolve_logs(self.policy, task, number, audit, through, records))

    def reopen_logs(self, name: str, audit: Mapping[str, Any]) -> Changes:
        """Record that a person has taken every review of an instance's records back."""
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
        """Claim an instance; with `able` false, as a worker that lacks its task."""
        task, number = split_instance_name(name)
        terms = Terms(lease, crash_budget) if able else None
        return self.commit(decisions.claim(self.policy, task, number, owner, lambda *_: terms))

    def start(
        self, name: str, owner: str = "worker", *, lease: int = LEASE, crash_budget: int = 3
    ) -> AttemptReport:
        """Claim an instance that is due, and return the attempt that holds it."""
        changes = self.claim(name, owner, lease=lease, crash_budget=crash_budget)
        if changes.claimed is None:
            message = f"{name} was not claimed: {changes.refused}"
            raise AssertionError(message)
        return attempt_at(changes.claimed)

    def finish(self, attempt: AttemptReport, result: Mapping[str, Any] | None = None) -> Changes:
        """Let an attempt return."""
        payload = encode(dict(result or {}), "result")
        return self.commit(decisions.finish(self.policy, attempt, payload))

    def run(self, name: str, result: Mapping[str, Any] | None = None) -> Changes:
        """Claim and finish."""
        return self.finish(self.start(name), result)

    def fail(
        self, attempt: AttemptReport, error: object = "failed", retry: RetryTerms | None = None
    ) -> Changes:
        """Let an attempt raise."""
        payload = encode(error, "error")
        return self.commit(decisions.fail(self.policy, attempt, payload, retry))

    def skip_running(self, attempt: AttemptReport) -> Changes:
        """Let an attempt ask to be skipped."""
        return self.commit(decisions.skip_running(self.policy, attempt))

    def release(self, attempt: AttemptReport) -> Changes:
        """Let an attempt go."""
        return self.commit(decisions.release(self.policy, attempt))

    def keep_logs(self, attempt: AttemptReport, logs: LogBatch) -> Changes:
        """Store what an attempt has said so far."""
        said = AttemptReport(attempt.task, attempt.number, attempt.fence, attempt.attempt, logs)
        return self.commit(decisions.keep_logs(self.policy, said))

    def recover(self, name: str, fence: int) -> Changes:
        """Take an instance from whoever lost its lease."""
        task, number = split_instance_name(name)
        return self.commit(decisions.recover(self.policy, task, number, fence, lambda _: encode("lost", "")))

    def renew(self, *attempts: AttemptReport, lease: int = LEASE) -> set[Lease]:
        """Send a heartbeat for these attempts; returns those that are lost."""
        return self.storage.renew([self.held(attempt) for attempt in attempts], lease)

    def held(self, attempt: AttemptReport) -> Lease:
        """The claim of an attempt, as a heartbeat names it."""
        return Lease(self.uid, attempt.task, attempt.number, attempt.fence)

    # -- what can be seen --------------------------------------------------------------------------------

    @property
    def head(self) -> Session:
        """The head of the session, which must exist."""
        session = self.storage.reader.session(self.uid)
        assert session is not None, f"there is no session {self.uid!r}"  # noqa: S101 - this is a test
        return session

    def __getitem__(self, name: str) -> Instance:
        """The instance of that name, which must exist."""
        instance = self.storage.reader.instance(self.uid, *split_instance_name(name))
        assert instance is not None, f"session {self.uid!r} has no {name}"  # noqa: S101 - this is a test
        return instance

    def instances(self, page: int = 100) -> list[Instance]:
        """All instances, page by page."""
        found: list[Instance] = []
        after = ("", -1)
        while more := self.storage.reader.instances(self.uid, after=after, limit=page):
            found += more
            after = (more[-1].task, more[-1].number)
        return found

    def statuses(self) -> dict[str, str]:
        """Name → status of every instance."""
        return {instance.name: instance.status.value for instance in self.instances()}

    def firings(self, page: int = 100) -> list[Firing]:
        """All firings, page by page."""
        found: list[Firing] = []
        while more := self.storage.reader.firings(
            self.uid, after=found[-1].number if found else 0, limit=page
        ):
            found += more
        return found

    def kwargs(self, name: str) -> dict[str, Any]:
        """What the instance is given: trigger → kwargs, or exactly its replacement."""
        return next(self.kwargs_of([self[name]]))

    def kwargs_of(self, instances: Collection[Instance]) -> Iterator[dict[str, Any]]:
        """The same of several."""
        numbers = {number for instance in instances for number in instance.taken.values()}
        fired = self.storage.reader.firings(self.uid, numbers=numbers)
        payloads = {firing.number: firing.kwargs for firing in fired}
        for instance in instances:
            if instance.kwargs is not None:
                yield decode(instance.kwargs)
            else:
                yield {trigger: decode(payloads[number]) for trigger, number in instance.taken.items()}

    def look(self, need: Need) -> Slice:
        """What the storage shows a decision that needs this; nothing is changed."""
        seen: list[Slice] = []

        def begin(session: Session) -> DecisionRun:
            seen.append((yield need))
            return Changes(session, writes_head=False)

        self.commit(Decision("look", begin))
        return seen[-1]

    def waiting(self, trigger: str) -> set[str]:
        """The names of the unstarted instances that a firing of the trigger would touch."""
        return {instance.name for instance in self.look(Need(waiting=(trigger,))).instances}


def attempt_at(instance: Instance) -> AttemptReport:
    """The attempt that holds an instance now."""
    return AttemptReport(instance.task, instance.number, instance.fence, instance.attempt)
