"""Read access to a session: the view of a session, its instances and its log."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from datetime import timedelta
from functools import cached_property
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar

from triggers.core.explain import Explanation, explain, is_waiting
from triggers.core.names import is_name, split_instance_name
from triggers.core.outcomes import MISSED
from triggers.core.rules import Rule
from triggers.core.similar_names import spellings
from triggers.core.state import Counter, Session, is_done
from triggers.core.status import RESOLVED, Status, can_move
from triggers.core.timers import timer_of
from triggers.core.values import decode, to_datetime, type_name
from triggers.exceptions import UnknownInstanceError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Sequence
    from datetime import datetime

    from triggers.core.rules import RuleSet
    from triggers.core.state import Instance
    from triggers.core.timers import Timer
    from triggers.storages.base import HasReader, Reader, StoredRecord

#: How many instances a view reads at a time. The payloads of a page are in memory together.
PAGE = 100

#: How many instances of a task, and how many of the last firings, an explanation reads.
EXPLAINED = 20

UNRESOLVED = frozenset(Status) - RESOLVED

_LEVELS = {0: "NOTSET", 10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


def level_name(level: int) -> str:
    """Return the name of a log level in the standard library, or the one that the application registered."""
    return _LEVELS.get(level) or logging.getLevelName(level)


class TaskInstance:
    """One run of a task, as a snapshot of when it was read.

    The snapshot never changes. To see later changes, read the instance again. The payloads of its firings,
    and the session's rules and time, on which `config` and the `can_*` flags depend, are read at their first
    use and kept. One read serves all instances of a page.

    Args:
        view: the view of its session.
        stored: the instance as it is stored.
        page: what it shares with the instances that were read together with it; None if it was read alone.
    """

    STATUS_ABANDONED: ClassVar[Status] = Status.ABANDONED
    STATUS_FAILED: ClassVar[Status] = Status.FAILED
    STATUS_FINISHED: ClassVar[Status] = Status.FINISHED
    STATUS_REPLAYED: ClassVar[Status] = Status.REPLAYED
    STATUS_RUNNING: ClassVar[Status] = Status.RUNNING
    STATUS_SCHEDULED: ClassVar[Status] = Status.SCHEDULED
    STATUS_SKIPPED: ClassVar[Status] = Status.SKIPPED
    STATUS_UNSTARTED: ClassVar[Status] = Status.UNSTARTED

    # The keys of `metadata`.
    META_ACTUAL_KWARGS: ClassVar[str] = "actualKwargs"
    META_CASCADE: ClassVar[str] = "cascade"
    META_COOLDOWN: ClassVar[str] = "cooldown"
    META_DEPTH: ClassVar[str] = "depth"
    META_EXCEPTION_CONTEXT: ClassVar[str] = "exceptionContext"
    META_EXCEPTION_INFO: ClassVar[str] = "exceptionInfo"
    META_EXCEPTION_TYPE: ClassVar[str] = "exceptionType"
    META_LOG_LEVEL: ClassVar[str] = "logLevel"
    META_LOGS_RESOLVED: ClassVar[str] = "logsResolved"
    META_PARENT: ClassVar[str] = "parent"
    META_RESULT: ClassVar[str] = "result"
    META_TIMESTAMPS: ClassVar[str] = "timestamps"

    # Two keys of the timestamps in `metadata`; the others are statuses.
    TIMESTAMP_CREATED: ClassVar[str] = "created"
    TIMESTAMP_LAST_MODIFIED: ClassVar[str] = "lastModified"

    def __init__(self, view: SessionView, stored: Instance, page: _Page | None = None) -> None:
        self._view = view
        self._stored = stored
        self._page = page or _Page(view, [stored])

    def __repr__(self) -> str:
        return f"<TaskInstance {self.name} {self.status}>"

    @property
    def stored(self) -> Instance:
        """The instance as storages load it, with encoded payloads."""
        return self._stored

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, TaskInstance) and other.name == self.name and other._view.uid == self._view.uid
        )

    def __hash__(self) -> int:
        return hash((self._view.uid, self.name))

    @property
    def name(self) -> str:
        """Its unique name in the session, ``task#number``."""
        return self._stored.name

    @property
    def task(self) -> str:
        """The name of the configured task that it runs."""
        return self._stored.task

    @property
    def number(self) -> int:
        """Its position among the instances of its task, from 0."""
        return self._stored.number

    @property
    def status(self) -> Status:
        """One of the eight statuses. A :class:`Status` is a string, so ``"finished"`` equals it."""
        return self._stored.status

    @property
    def config(self) -> Rule | None:
        """The current rule of its task, None if the task is no longer configured."""
        return self._page.head.rules.rules.get(self._stored.task)

    @cached_property
    def kwargs(self) -> Mapping[str, Any]:
        """Trigger → the kwargs that it was fired with, or those that a replay replaced them with."""
        if self._stored.kwargs is not None:
            replaced: dict[str, Any] = decode(self._stored.kwargs)
            return replaced
        payloads = self._page.payloads
        return {trigger: decode(payloads[number]) for trigger, number in self._stored.taken.items()}

    @cached_property
    def result(self) -> Mapping[str, Any] | None:
        """The mapping that the task returned, or that a skip cascaded with; None if there is none."""
        number = self._stored.result
        return None if number is None else decode(self._page.payloads[number])

    @cached_property
    def error(self) -> Mapping[str, Any] | None:
        """The error: type, message, context, traceback, and the tree of causes; None if there is none."""
        return None if self._stored.error is None else decode(self._stored.error)

    @cached_property
    def metadata(self) -> Mapping[str, Any]:
        """The metadata that was added to it, and what version 2 kept there, under the same keys.

        These are `actualKwargs` (with the current `withParams` of its task), `cascade`, `cooldown` in
        seconds, `depth`, `exceptionContext`, `exceptionInfo` (the traceback), `exceptionType` (such as
        ``builtins.ValueError``), `logLevel`, `logsResolved`, `parent`, `result` and `timestamps`. A key that
        does not apply is missing.
        """
        known = {
            self.META_RESULT: self.result,
            self.META_PARENT: self.parent,
            self.META_DEPTH: self.depth,
            self.META_TIMESTAMPS: self._stamps(),
            self.META_COOLDOWN: self.cooldown.total_seconds() if self.cooldown else None,
            **self._outcome(),
            **self._failure(),
        }
        added: dict[str, Any] = decode(self._stored.metadata)
        return {**{key: value for key, value in known.items() if value is not None}, **added}

    def _stamps(self) -> dict[str, datetime]:
        return {
            self.TIMESTAMP_CREATED: to_datetime(self._stored.created_at),
            self.TIMESTAMP_LAST_MODIFIED: self.last_modified,
            **self.timestamps,
        }

    def _outcome(self) -> dict[str, Any]:
        if not self.attempt:
            return {}
        reviews = self.log_reviews
        reviewed = bool(reviews) and reviews[-1]["outcome"] == "resolved" and self.logs_resolved
        skipped_by_hand = self.status is Status.SKIPPED and Status.FAILED in self.timestamps
        return {
            self.META_ACTUAL_KWARGS: self.config.with_defaults(self.kwargs) if self.config else self.kwargs,
            self.META_CASCADE: self._stored.result is not None if skipped_by_hand else None,
            self.META_LOG_LEVEL: self.log_level if self.has_ended else None,
            self.META_LOGS_RESOLVED: reviewed or None,
        }

    def _failure(self) -> dict[str, Any]:
        if self.error is None:
            return {}
        return {
            self.META_EXCEPTION_TYPE: self.error.get("qualified_type"),
            self.META_EXCEPTION_INFO: self.error.get("traceback"),
            self.META_EXCEPTION_CONTEXT: self.error.get("context"),
        }

    @property
    def history(self) -> list[tuple[datetime, str, str]]:
        """Its changes of status, in order, as (time, status, remark). A missed deadline is one, too."""
        lines = (line.split(" ", 2) for line in self._stored.history.splitlines())
        return [(to_datetime(int(line[0])), line[1], line[2] if line[2:] else "") for line in lines]

    @property
    def timestamps(self) -> dict[str, datetime]:
        """Status → the last time at which it entered that status."""
        return {status: at for at, status, _ in self.history if status != MISSED}

    @property
    def parent(self) -> str | None:
        """The name of the instance that this one replays, or None."""
        return None if self._stored.parent is None else f"{self.task}#{self._stored.parent}"

    @property
    def depth(self) -> int:
        """How many replays led to it, one after the other."""
        return self._stored.depth

    @property
    def attempt(self) -> int:
        """How many times a worker has claimed it."""
        return self._stored.attempt

    @property
    def crashes(self) -> int:
        """How many times its worker was lost."""
        return self._stored.crashes

    @property
    def given_back(self) -> int:
        """How many times a worker that does not have its task returned it to the queue."""
        return self._stored.given_back

    @property
    def run_at(self) -> datetime | None:
        """The earliest time at which it may run; None until it is scheduled."""
        is_set = self._stored.run_at and self.status is not Status.UNSTARTED
        return to_datetime(self._stored.run_at) if is_set else None

    @property
    def cooldown(self) -> timedelta | None:
        """The time from when it was scheduled until it may run, or None."""
        scheduled = self.timestamps.get(Status.SCHEDULED)
        return None if scheduled is None or self.run_at is None else max(self.run_at - scheduled, timedelta())

    @property
    def last_modified(self) -> datetime:
        """The time of its last change."""
        return to_datetime(self._stored.modified_at)

    @property
    def current_log_level(self) -> int:
        """The highest level of its log records so far, or until about a second ago while it runs."""
        return self._stored.log_level

    @property
    def has_ended(self) -> bool:
        """Whether it is neither unstarted, nor scheduled, nor running."""
        return self.status not in {Status.UNSTARTED, Status.SCHEDULED, Status.RUNNING}

    @property
    def log_level(self) -> int:
        """The highest level of its log records in all attempts; NOTSET until it has ended."""
        return self._stored.log_level if self.has_ended else logging.NOTSET

    @property
    def log_level_name(self) -> str:
        """The name of :attr:`log_level`, such as ``"WARNING"``."""
        return level_name(self.log_level)

    @property
    def log_counts(self) -> Mapping[int, int]:
        """Level → the number of its log records."""
        return dict(self._stored.log_counts)

    @property
    def log_dropped(self) -> int:
        """How many log records were counted but not stored, because there were too many."""
        return self._stored.log_dropped

    @property
    def unresolved_log_level(self) -> int:
        """The highest level of its records that need a review and have none; 0 if there are none.

        A replayed, skipped or abandoned instance needs no review.
        """
        return self._stored.unreviewed_level

    @property
    def logs_resolved(self) -> bool:
        """Whether none of its log records needs a review."""
        return self._stored.unreviewed_level == 0

    @property
    def log_reviews(self) -> list[dict[str, Any]]:
        """The reviews of its records: who resolved or reopened which ones, when, why, and at which level."""
        reviews: list[dict[str, Any]] = decode(self._stored.log_audit)
        return [{**review, "at": to_datetime(review["at"])} for review in reviews]

    @property
    def is_resolved(self) -> bool:
        """Whether it is finished, skipped, replayed or abandoned, and so will not change any more."""
        return self._stored.is_resolved

    @property
    def is_ready(self) -> bool:
        """Whether it is unstarted and its condition is met."""
        rule = self.config
        return self.can_schedule and rule is not None and rule.after.is_met(self._stored.taken)

    @property
    def is_claimable(self) -> bool:
        """Whether it is scheduled and due, so that a worker can claim it."""
        return self.status is Status.SCHEDULED and self._stored.run_at <= self._page.head.now

    @property
    def can_schedule(self) -> bool:
        """Whether it is unstarted, so that it can still be scheduled."""
        return self.status is Status.UNSTARTED

    @property
    def can_run(self) -> bool:
        """Whether it is unstarted and its condition is met, the same as `is_ready`."""
        return self.is_ready

    @property
    def can_abandon(self) -> bool:
        """Whether it is unstarted and its veto is met."""
        rule = self.config
        return self.can_schedule and bool(rule and rule.unless and rule.unless.is_met(self._stored.vetoes))

    @property
    def can_replay(self) -> bool:
        """Whether it is failed and its task is still configured."""
        return can_move(self.status, Status.REPLAYED) and self.config is not None

    @property
    def can_skip(self) -> bool:
        """Whether it is failed, so that a person can skip it."""
        return self.status is Status.FAILED


class _Page:
    """What instances that were read together share. Each part is read at its first use, and kept.

    Args:
        view: the view of their session.
        stored: the instances.
    """

    def __init__(self, view: SessionView, stored: Iterable[Instance]) -> None:
        self._view = view
        self._numbers = {number for instance in stored for number in _payloads_of(instance)}

    @cached_property
    def head(self) -> Session:
        """The head of their session."""
        return self._view.head

    @cached_property
    def payloads(self) -> Mapping[int, str]:
        """Number of a firing → its payload, for the firings with their kwargs and their results."""
        return self._view.payloads(self._numbers)


def _payloads_of(instance: Instance) -> Iterator[int]:
    """Yield the numbers of the firings with the instance's kwargs and its result."""
    if instance.kwargs is None:
        yield from instance.taken.values()
    if instance.result is not None:
        yield instance.result


class SessionView:
    """A session as it is stored.

    The view keeps nothing. Each call reads the current state, so two calls can see different states. An
    instance that it returns is a snapshot. Instances are read in pages, and what they share is read once for
    each page.

    Args:
        uid: the UID of the session.
        source: a storage, or the scopes of a manager. Each call asks it for its reader.
        registered: the tasks of this process, from which an explanation of a missing one suggests a name.
    """

    def __init__(self, uid: str, source: HasReader, registered: Collection[str] = ()) -> None:
        self.uid = uid
        self._registered = registered
        self._source = source

    @property
    def _reader(self) -> Reader:
        return self._source.reader

    def __repr__(self) -> str:
        return f"<SessionView {self.uid!r}>"

    def __getitem__(self, name: str) -> TaskInstance:
        """Return the instance with this name.

        Raises:
            UnknownInstanceError: the session does not have the instance.
        """
        stored = self._reader.instance(self.uid, *split_instance_name(name))
        if stored is None:
            message = f"session {self.uid!r} has no instance {name!r}"
            raise UnknownInstanceError(message)
        return TaskInstance(self, stored)

    def __contains__(self, name: object) -> bool:
        try:
            return isinstance(name, str) and bool(self[name])
        except UnknownInstanceError:
            return False

    def __iter__(self) -> Iterator[TaskInstance]:
        """Iterate over all instances, ordered by task and number."""
        return self.find()

    @property
    def exists(self) -> bool:
        """Whether the session is stored: a trigger was fired in it, or it was configured."""
        return self._reader.session(self.uid) is not None

    @property
    def head(self) -> Session:
        """The head of the session; it is empty if the session does not exist."""
        return self._reader.session(self.uid) or Session(self.uid, 0)

    @property
    def tasks(self) -> Mapping[str, Rule]:
        """Task → rule, of the current configuration."""
        return dict(self.head.rules.rules)

    @property
    def instances(self) -> Mapping[str, TaskInstance]:
        """Name → instance, for all instances. Iterate over a large session instead."""
        return {instance.name: instance for instance in self}

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the application stored with :meth:`TriggerManager.update_session_metadata`."""
        found: dict[str, Any] = decode(self.head.metadata)
        return found

    @property
    def finalized(self) -> bool:
        """Whether the finalizing trigger has fired."""
        return self.head.finalized is not None

    def instances_of_task(self, task: str | Rule) -> list[TaskInstance]:
        """Return the instances of a task, ordered by number; none if it has none.

        Args:
            task: the name of the task, or its configuration.

        Raises:
            TypeError: it is neither.
        """
        name = task.name if isinstance(task, Rule) else task
        if not issubclass(type(name), str):
            kind = type_name(type(task))
            message = f"instances_of_task needs the name or the configuration of a task, not a {kind}"
            raise TypeError(message)
        return list(self.find(task=name))

    @property
    def latest_kwargs(self) -> LatestKwargs:
        """Trigger → the kwargs of its latest firing, for the triggers that have fired."""
        return LatestKwargs(self.uid, self._source)

    def firing_counts(self) -> dict[str, int]:
        """Return trigger → how often it has fired. All firings are read, page by page."""
        counts: dict[str, int] = {}
        after = 0
        while page := self._reader.firings(self.uid, after=after):
            for firing in page:
                counts[firing.trigger] = counts.get(firing.trigger, 0) + 1
            after = page[-1].number
        return counts

    def get_unresolved_tasks(self) -> list[Rule]:
        """Return the configured tasks that have no instance yet, or one that is not resolved."""
        counters = self._reader.counters(self.uid)
        rules = self.head.rules
        none = Counter()
        return [
            rule
            for rule in rules.rules.values()
            if not is_done(rules, rule.task, counters.get(rule.task, none))
        ]

    def get_unresolved_instances(self) -> list[TaskInstance]:
        """Return the instances that are not resolved: unstarted, scheduled, running or failed."""
        return list(self.find(statuses=UNRESOLVED))

    def get_instances_with_unresolved_logs(self, min_level: int = logging.WARNING) -> list[TaskInstance]:
        """Return the instances with log records at or above the level that need a review and have none."""
        return list(self.find(flagged=min_level))

    def find(
        self,
        *,
        task: str | None = None,
        statuses: Collection[Status | str] | None = None,
        flagged: int | None = None,
    ) -> Iterator[TaskInstance]:
        """Iterate over instances, ordered by task and number. They are read page by page.

        Args:
            task: only instances of this task.
            statuses: only instances in one of these statuses.
            flagged: only instances with unresolved log records at or above this level.
        """
        after = ("", -1)
        wanted = None if statuses is None else {Status(status) for status in statuses}
        while task is None or is_name(task):
            page = self._reader.instances(
                self.uid, task=task, statuses=wanted, flagged=flagged, after=after, limit=PAGE
            )
            yield from self.page(page)
            if len(page) < PAGE:
                return
            after = (page[-1].task, page[-1].number)

    def page(self, stored: Collection[Instance]) -> list[TaskInstance]:
        """Return stored instances as one page, so that what they share is read once for all of them."""
        page = _Page(self, stored)
        return [TaskInstance(self, instance, page) for instance in stored]

    def payloads(self, numbers: Collection[int]) -> dict[int, str]:
        """Return number → encoded kwargs of these firings. Without numbers, nothing is read."""
        found = self._reader.firings(self.uid, numbers=numbers) if numbers else ()
        return {firing.number: firing.kwargs for firing in found}

    def logs(
        self,
        instance: TaskInstance | str | None = None,
        *,
        min_level: int | None = None,
        text: str | None = None,
        unresolved: bool | None = None,
        fingerprint: str | None = None,
        after: int | None = None,
        limit: int = 100,
        latest: bool = False,
    ) -> list[StoredRecord]:
        """Return a page of the session's log records, in the order in which they were stored.

        Args:
            instance: only records of this instance, or of the instance with this name.
            min_level: only records at or above this level.
            text: only records whose message contains this text.
            unresolved: True for records that no review covers, False for those that one covers.
            fingerprint: only records of this kind.
            after: the `cursor` of the last record of the previous page.
            limit: the maximum number of records.
            latest: return the last records instead of the first ones, in the same order.
        """
        name = instance.name if isinstance(instance, TaskInstance) else instance
        return self._reader.logs(
            self.uid,
            instance=split_instance_name(name) if name is not None else None,
            min_level=min_level or 0,
            text=(text or "").encode("utf-8", "replace").decode(),
            unresolved=unresolved,
            fingerprint=fingerprint,
            after=after or 0,
            limit=limit,
            latest=latest,
        )

    def explain(self, task: str) -> Explanation:
        """Explain why a task, or the instance with this name, has run or not."""
        head = self.head
        rules = head.rules
        name = split_instance_name(task)[0] if task not in rules.rules and "#" in task else task
        rule = rules.rules.get(name)
        instances = self._first_of(name) if name == task else [self[task].stored]
        if rule is None or not is_waiting(rule, instances):
            return explain(name, rule, instances, (), {}, registered=self._registered, now=head.now)
        fired = self._fired(head, rule)
        unheard = fired - rules.listeners.keys()
        upstream = self._upstream(rules, rule)
        return explain(
            name,
            rule,
            instances,
            fired,
            upstream,
            unheard=unheard,
            tasks=rules.rules,
            registered=self._registered,
            now=head.now,
            timers=self._timers(head, [*instances, *chain.from_iterable(upstream.values())]),
            outcomes=rules.outcomes,
        )

    def _timers(self, head: Session, instances: Sequence[Instance]) -> list[Timer]:
        """Return the timers of these instances, and the next timers of the session."""
        if head.next_timer_at is None:
            return []
        timed = head.rules.timed
        waiting = [one for one in instances if one.task in timed and one.status is Status.UNSTARTED]
        names = [timer_of(instance.name) for instance in waiting[: 2 * PAGE]]
        own = self._reader.timers(self.uid, names=names) if names else []
        return own + self._reader.timers(self.uid, limit=PAGE)

    def _fired(self, head: Session, rule: Rule) -> set[str]:
        """Return the last triggers, and those of the rule, in any spelling, that have ever fired."""
        asked = rule.after.names.union(*map(spellings, rule.after.names))
        last = self._reader.firings(self.uid, after=max(head.firings - EXPLAINED, 0), limit=EXPLAINED)
        return {firing.trigger for firing in last} | self._reader.latest(self.uid, asked).keys()

    def _first_of(self, task: str) -> list[Instance]:
        """Return the first instances of a task, and its first unresolved ones."""
        found = self._reader.instances(self.uid, task=task, limit=EXPLAINED)
        if len(found) < EXPLAINED:
            return found
        unresolved = self._reader.instances(self.uid, task=task, statuses=UNRESOLVED, limit=EXPLAINED)
        return found + [instance for instance in unresolved if instance not in found]

    def _upstream(self, rules: RuleSet, rule: Rule) -> dict[str, list[Instance]]:
        """Return task that the rule waits for → its unresolved instances, or else its resolved ones.

        The counters show which tasks have instances, so that the others cost no read. Resolved instances only
        matter for tasks that the rule itself names.
        """
        counters = self._reader.counters(self.uid)
        found: dict[str, list[Instance]] = {}
        for task in rules.upstream(rule.task):
            counter = counters.get(task, Counter())
            found[task] = []
            if counter.unresolved:
                found[task] = self._reader.instances(
                    self.uid, task=task, statuses=UNRESOLVED, limit=EXPLAINED
                )
            if (
                not found[task]
                and counter.created
                and any(rules.source(name) == task for name in rule.after.names)
            ):
                found[task] = self._reader.instances(self.uid, task=task, limit=EXPLAINED)
        return found

    def debug_repr(self) -> str:
        """Return the session in a few lines of text, for interactive use."""
        head = self.head
        lines = [f"session {self.uid!r}: {head.firings} firings, manager {head.manager or 'none'!r}"]
        for instance in self:
            took = ", ".join(f"{trigger}={number}" for trigger, number in instance.stored.taken.items())
            lines.append(f"  {instance.name}: {instance.status} ({took}) log {instance.current_log_level}")
        return "\n".join(lines)


class LatestKwargs(Mapping[str, Mapping[str, Any]]):
    """The kwargs of the latest firing of each trigger of a session.

    A look-up reads one firing. An iteration reads all firings of the session, page by page.

    Args:
        uid: the UID of the session.
        source: has the reader of its storage.
    """

    def __init__(self, uid: str, source: HasReader) -> None:
        self._uid = uid
        self._source = source

    def __repr__(self) -> str:
        return f"<LatestKwargs of {self._uid!r}>"

    def __getitem__(self, trigger: str) -> Mapping[str, Any]:
        found = self._source.reader.latest(self._uid, [trigger] if is_name(trigger) else [])
        kwargs: dict[str, Any] = decode(found[trigger].kwargs)
        return kwargs

    def __iter__(self) -> Iterator[str]:
        return iter(SessionView(self._uid, self._source).firing_counts())

    def __len__(self) -> int:
        return sum(1 for _ in self)


def unfinished(views: Iterable[SessionView]) -> Iterator[str]:
    """Yield an explanation for each instance of these sessions that is scheduled or running."""
    for view in views:
        for instance in view.find(statuses={Status.SCHEDULED, Status.RUNNING}):
            yield f"session {view.uid!r}: {view.explain(instance.name).sentence}"
