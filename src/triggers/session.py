"""What a session looks like from outside: its view, its instances, its log. Nothing here changes anything."""

from __future__ import annotations

import logging
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from triggers.core.explain import Explanation, explain, is_waiting
from triggers.core.names import is_name, split_instance_name
from triggers.core.state import Counter, Session
from triggers.core.status import RESOLVED, Status, can_move
from triggers.core.values import decode, to_datetime
from triggers.exceptions import UnknownInstanceError

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping
    from datetime import datetime

    from triggers.core.rules import Rule, RuleSet
    from triggers.core.state import Instance
    from triggers.storages.base import Reader, StoredRecord

#: How many instances a view reads at a time. The payloads of a page are in memory together.
PAGE = 100

#: How many instances of a task an explanation looks at.
EXPLAINED = 20

UNRESOLVED = frozenset(Status) - RESOLVED

_LEVELS = {0: "NOTSET", 10: "DEBUG", 20: "INFO", 30: "WARNING", 40: "ERROR", 50: "CRITICAL"}


def level_name(level: int) -> str:
    """The name of a level: the standard library's, else the one that the application gave it."""
    return _LEVELS.get(level) or logging.getLevelName(level)


class TaskInstance:
    """One run of a task: a snapshot, taken when it was read.

    It never changes; read the instance again to see what happened since. Two things are not stored with it:
    the payloads of its firings, which never change, and the session's rules and time, on which `config` and
    the `can_*` flags depend. Each is read at its first use, once for all instances of a page, and kept.

    Args:
        view: its session.
        stored: what is kept of it.
        page: what it shares with the instances that were read together with it; by default it was read alone.
    """

    def __init__(self, view: SessionView, stored: Instance, page: _Page | None = None) -> None:
        self._view = view
        self._stored = stored
        self._page = page or _Page(view, [stored])

    def __repr__(self) -> str:
        return f"<TaskInstance {self.name} {self.status}>"

    @property
    def stored(self) -> Instance:
        """All that is kept of it, as it is kept."""
        return self._stored

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, TaskInstance) and other.name == self.name and other._view.uid == self._view.uid
        )

    def __hash__(self) -> int:
        return hash((self._view.uid, self.name))

    @property
    def name(self) -> str:
        """``task#number``."""
        return self._stored.name

    @property
    def task(self) -> str:
        """Name of its task."""
        return self._stored.task

    @property
    def number(self) -> int:
        """Which of its task's instances it is, from 0."""
        return self._stored.number

    @property
    def status(self) -> Status:
        """Where it stands; a :class:`Status` is a string, so it compares with ``"finished"``."""
        return self._stored.status

    @property
    def config(self) -> Rule | None:
        """Its task's rule, None if the task was removed."""
        return self._page.head.rules.rules.get(self._stored.task)

    @cached_property
    def kwargs(self) -> Mapping[str, Any]:
        """Trigger → the kwargs that it fired with, or what replaced them."""
        if self._stored.kwargs is not None:
            replaced: dict[str, Any] = decode(self._stored.kwargs)
            return replaced
        payloads = self._page.payloads
        return {trigger: decode(payloads[number]) for trigger, number in self._stored.taken.items()}

    @cached_property
    def result(self) -> Mapping[str, Any] | None:
        """What the task returned, or what a skip cascaded with; None if there is nothing."""
        number = self._stored.result
        return None if number is None else decode(self._page.payloads[number])

    @cached_property
    def error(self) -> Mapping[str, Any] | None:
        """What went wrong: type, message, context, traceback, and the whole tree of causes."""
        return None if self._stored.error is None else decode(self._stored.error)

    @cached_property
    def metadata(self) -> Mapping[str, Any]:
        """What was added to it, with result, parent, depth, timestamps and exception under their old keys."""
        error = self.error or {}
        known = {
            "result": self.result,
            "parent": self.parent,
            "depth": self.depth,
            "timestamps": self.timestamps,
            "exceptionType": error.get("type"),
            "exceptionInfo": error.get("message"),
            "exceptionContext": error.get("context"),
        }
        return {
            **{key: value for key, value in known.items() if value is not None},
            **decode(self._stored.metadata),
        }

    @property
    def history(self) -> list[tuple[datetime, str, str]]:
        """What became of it, in order, as (time, status, remark)."""
        lines = (line.split(" ", 2) for line in self._stored.history.splitlines())
        return [(to_datetime(int(line[0])), line[1], line[2] if line[2:] else "") for line in lines]

    @property
    def timestamps(self) -> dict[str, datetime]:
        """Status → when it last came into it."""
        return {status: at for at, status, _ in self.history}

    @property
    def parent(self) -> str | None:
        """Name of the instance that this one replays."""
        return None if self._stored.parent is None else f"{self.task}#{self._stored.parent}"

    @property
    def depth(self) -> int:
        """How many instances were replayed before it in its line."""
        return self._stored.depth

    @property
    def attempt(self) -> int:
        """How often it was claimed."""
        return self._stored.attempt

    @property
    def crashes(self) -> int:
        """How often its worker was lost."""
        return self._stored.crashes

    @property
    def given_back(self) -> int:
        """How often a worker that lacks its task gave it back."""
        return self._stored.given_back

    @property
    def run_at(self) -> datetime | None:
        """When it is to run, or was; None before it is scheduled."""
        return to_datetime(self._stored.run_at) if self._stored.run_at else None

    @property
    def cooldown(self) -> timedelta | None:
        """How long it had to wait, or has to, from when it was scheduled."""
        scheduled = self.timestamps.get(Status.SCHEDULED)
        return None if scheduled is None or self.run_at is None else max(self.run_at - scheduled, timedelta())

    @property
    def last_modified(self) -> datetime:
        """When it last changed."""
        return to_datetime(self._stored.modified_at)

    @property
    def current_log_level(self) -> int:
        """Highest level of what it has said so far."""
        return self._stored.log_level

    @property
    def log_level(self) -> int:
        """Highest level of what it said over all attempts; NOTSET until it has ended."""
        ended = self.status not in {Status.UNSTARTED, Status.SCHEDULED, Status.RUNNING}
        return self._stored.log_level if ended else logging.NOTSET

    @property
    def log_level_name(self) -> str:
        """The name of :attr:`log_level`."""
        return level_name(self.log_level)

    @property
    def log_counts(self) -> Mapping[int, int]:
        """Level → how many records."""
        return dict(self._stored.log_counts)

    @property
    def log_dropped(self) -> int:
        """How many records were counted and left out, because there were too many."""
        return self._stored.log_dropped

    @property
    def unresolved_log_level(self) -> int:
        """Highest level, from the threshold of the manager on, of what no review covers; 0 for nothing."""
        return self._stored.log_unresolved

    @property
    def logs_resolved(self) -> bool:
        """Whether nothing of what it said asks for a review."""
        return self._stored.log_unresolved == 0

    @property
    def log_reviews(self) -> list[dict[str, Any]]:
        """Who resolved or reopened its records, when and why, which of them, and from which level."""
        reviews: list[dict[str, Any]] = decode(self._stored.log_audit)
        return [{**review, "at": to_datetime(review["at"])} for review in reviews]

    @property
    def is_resolved(self) -> bool:
        """Whether nothing more will come of it."""
        return self._stored.is_resolved

    @property
    def can_run(self) -> bool:
        """Whether it is scheduled and due, so that a worker may claim it."""
        return self.status is Status.SCHEDULED and self._stored.run_at <= self._page.head.now

    @property
    def can_schedule(self) -> bool:
        """Whether it is unstarted and its condition is met."""
        rule = self.config
        return self.status is Status.UNSTARTED and rule is not None and rule.after.is_met(self._stored.taken)

    @property
    def can_abandon(self) -> bool:
        """Whether it is unstarted and its veto is met."""
        unless = self.config.unless if self.config else None
        return self.status is Status.UNSTARTED and unless is not None and unless.is_met(self._stored.vetoes)

    @property
    def can_replay(self) -> bool:
        """Whether it is failed and its task is configured."""
        return can_move(self.status, Status.REPLAYED) and self.config is not None

    @property
    def can_skip(self) -> bool:
        """Whether it is failed."""
        return self.status is Status.FAILED


class _Page:
    """What instances that were read together share; each part is read at its first use, and kept.

    Args:
        view: their session.
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
        """Number of a firing → its payload, for all firings that they took and all that carry a result."""
        return self._view.payloads(self._numbers)


def _payloads_of(instance: Instance) -> Iterator[int]:
    """The firings whose payloads are its kwargs and its result."""
    if instance.kwargs is None:
        yield from instance.taken.values()
    if instance.result is not None:
        yield instance.result


class SessionView:
    """A session as it is stored.

    Each call sees what is stored then, and the view keeps nothing: two calls may see different states. An
    instance that it returns is a snapshot. What instances of one page need besides is read for all of them
    together, so that listing them costs a number of reads that depends on the pages alone.

    Args:
        uid: the session.
        reader: where it is stored.
    """

    def __init__(self, uid: str, reader: Reader) -> None:
        self.uid = uid
        self._reader = reader

    def __repr__(self) -> str:
        return f"<SessionView {self.uid!r}>"

    def __getitem__(self, name: str) -> TaskInstance:
        """The instance of that name.

        Raises:
            UnknownInstanceError: there is none.
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
        """Every instance, by task and number."""
        return self.find()

    @property
    def exists(self) -> bool:
        """Whether anything was ever fired into it or configured."""
        return self._reader.session(self.uid) is not None

    @property
    def head(self) -> Session:
        """Its head, a blank one if it does not exist."""
        return self._reader.session(self.uid) or Session(self.uid, 0)

    @property
    def tasks(self) -> Mapping[str, Rule]:
        """Task → rule, as configured now."""
        return dict(self.head.rules.rules)

    @property
    def instances(self) -> Mapping[str, TaskInstance]:
        """Every instance by name; of a long session, iterate instead."""
        return {instance.name: instance for instance in self}

    @property
    def metadata(self) -> Mapping[str, Any]:
        """What the application added to the session."""
        found: dict[str, Any] = decode(self.head.metadata)
        return found

    @property
    def finalized(self) -> bool:
        """Whether its finalising trigger has fired."""
        return self.head.finalized is not None

    def instances_of_task(self, task: str) -> list[TaskInstance]:
        """The task's instances by number; none for a task that is not known."""
        return list(self.find(task=task))

    def latest_kwargs(self, trigger: str) -> Mapping[str, Any] | None:
        """The kwargs of the trigger's latest firing; None if it never fired."""
        found = self._reader.latest(self.uid, [trigger] if is_name(trigger) else [])
        return decode(found[trigger].kwargs) if trigger in found else None

    def get_unresolved_tasks(self) -> list[Rule]:
        """The configured tasks that have no instance yet, or one that is not resolved."""
        counters = self._reader.counters(self.uid)
        rules = self.head.rules.rules.values()
        return [rule for rule in rules if rule.task not in counters or not counters[rule.task].is_resolved]

    def get_unresolved_instances(self) -> list[TaskInstance]:
        """The instances of which more is to come: unstarted, scheduled, running, failed."""
        return list(self.find(statuses=UNRESOLVED))

    def get_instances_with_unresolved_logs(self, min_level: int = logging.WARNING) -> list[TaskInstance]:
        """The instances with records at or above the level that no review covers."""
        return list(self.find(flagged=min_level))

    def find(
        self,
        *,
        task: str | None = None,
        statuses: Collection[Status] | None = None,
        flagged: int | None = None,
    ) -> Iterator[TaskInstance]:
        """Instances by task and number, read page by page.

        Args:
            task: only of this task.
            statuses: only in one of these.
            flagged: only with unresolved records at or above this level.
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
        """The stored instances as one page: what they need besides is read once for all of them."""
        page = _Page(self, stored)
        return [TaskInstance(self, instance, page) for instance in stored]

    def payloads(self, numbers: Collection[int]) -> dict[int, str]:
        """Number of a firing → its payload, encoded; nothing is read where no number is given."""
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
        """A page of the session's records, in the order in which they were stored.

        Args:
            instance: only of this one.
            min_level: only at or above this level.
            text: only with this in the message.
            unresolved: True for those that no review covers, False for those that one does.
            fingerprint: only of this kind.
            after: the `cursor` of the last record of the page before.
            limit: how many at most.
            latest: the last ones instead of the first ones, in the same order.
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
        """Why the task, or the task of that instance, has run, or has not."""
        rules = self.head.rules
        name = split_instance_name(task)[0] if task not in rules.rules and "#" in task else task
        rule = rules.rules.get(name)
        instances = self._first_of(name) if name == task else [self[task].stored]
        if rule is None or not is_waiting(rule, instances):
            return explain(name, rule, instances, (), {})
        happened = () if instances else self._reader.latest(self.uid, rule.after.names)
        return explain(name, rule, instances, happened, self._upstream(rules, rule))

    def _first_of(self, task: str) -> list[Instance]:
        """The first instances of a task, and its first unresolved ones."""
        found = self._reader.instances(self.uid, task=task, limit=EXPLAINED)
        if len(found) < EXPLAINED:
            return found
        unresolved = self._reader.instances(self.uid, task=task, statuses=UNRESOLVED, limit=EXPLAINED)
        return found + [instance for instance in unresolved if instance not in found]

    def _upstream(self, rules: RuleSet, rule: Rule) -> dict[str, list[Instance]]:
        """Task that the rule waits for → its unresolved instances, or else the resolved ones.

        The counters tell which tasks have any, so that the others cost no read. Resolved instances only
        matter of a task that the rule itself names.
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
            if not found[task] and counter.created and task in rule.after.names:
                found[task] = self._reader.instances(self.uid, task=task, limit=EXPLAINED)
        return found

    def debug_repr(self) -> str:
        """The session in a few lines, for a person at a prompt."""
        head = self.head
        lines = [f"session {self.uid!r}: {head.firings} firings, manager {head.manager or 'none'!r}"]
        for instance in self:
            took = ", ".join(f"{trigger}={number}" for trigger, number in instance.stored.taken.items())
            lines.append(f"  {instance.name}: {instance.status} ({took}) log {instance.current_log_level}")
        return "\n".join(lines)
