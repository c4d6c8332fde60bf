"""What is stored of a session: its head, its firings, its instances and their counters.

Times are microseconds since the Unix epoch, UTC; payloads are encoded text.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from operator import attrgetter
from typing import NamedTuple

from triggers.core.columns import INSTANCE, codecs_of, names_of
from triggers.core.names import check_name, instance_name
from triggers.core.rules import NO_RULES, RuleSet
from triggers.core.status import RESOLVED, SETTLED, Status
from triggers.core.timing import missed_in
from triggers.core.values import DEFAULT_LIMITS, Limits, canonical, encode_mapping


@dataclass(slots=True)
class Session:
    """The head of a session: what every decision needs to know about it.

    Its size does not grow with the session.

    Attributes:
        uid: the UID that the application chose.
        now: the storage's time when the head was loaded.
        ref: the storage's own reference, None until the session is stored.
        rules: the current configuration.
        manager: the name of the manager that the session belongs to, "" before the first write.
        firings: the number of the latest firing; firings count from 1.
        pending: how many configured tasks are not resolved yet. Tasks that wait for the finalizing trigger do
            not count.
        finalized: the number of the finalizing firing, or None.
        metadata: the application's metadata, encoded.
        created_at: when the session was first written.
        modified_at: when the session was last written. It is also the latest time of the session, which never
            goes back.
        next_timer_at: when the first timer is due, None without timers. It can be too early, and never too
            late.
        timer_count: how many timers were ever set. It is also the number of the latest one.
        exclusive: whether no other decision about the session can be made during this run. It is not stored.
        time: as of when the decision is made, 0 for now. It is not stored.
    """

    uid: str
    now: int
    ref: int | None = None
    rules: RuleSet = NO_RULES
    manager: str = ""
    firings: int = 0
    pending: int = 0
    finalized: int | None = None
    metadata: str = "{}"
    created_at: int = 0
    modified_at: int = 0
    next_timer_at: int | None = None
    timer_count: int = 0
    exclusive: bool = field(default=False, compare=False)
    time: int = field(default=0, compare=False)


class Firing(NamedTuple):
    """One occurrence of a trigger.

    Attributes:
        number: counts from 1 in its session, without gaps.
        trigger: the name of the trigger.
        kwargs: the encoded kwargs.
        at: when it was fired.
        depth: how many firings led to it, 0 if the application fired it.
        source: the name of the instance that fired it, by its result or from its task; "" if the application
            or a task of another session did.
        key: the idempotency key, or None.
        fingerprint: a hash of the kwargs, which a repeat with the same key must have, too.
    """

    number: int
    trigger: str
    kwargs: str
    at: int
    depth: int = 0
    source: str = ""
    key: str | None = None
    fingerprint: str | None = None


def new_firing(
    trigger: str,
    kwargs: object = None,
    key: str | None = None,
    *,
    depth: int = 0,
    source: str = "",
    limits: Limits = DEFAULT_LIMITS,
) -> Firing:
    """Check and encode a firing. Its number and time are set when it is recorded.

    Args:
        trigger: the name of the trigger.
        kwargs: the kwargs, a mapping, or None for an empty one.
        key: the idempotency key. The kwargs of a repeat must be equal; the order of their keys does not
            matter.
        depth: how many firings led to it.
        source: the name of the instance that fires it.
        limits: the limits for the kwargs.

    Raises:
        InvalidNameError: the trigger or the key is not a valid name.
        InvalidValueError: the kwargs are not a mapping, or cannot be stored.
    """
    trigger = check_name(trigger, "trigger")
    payload = encode_mapping(kwargs, "kwargs", limits)
    if key is None:
        return Firing(0, trigger, payload, 0, depth, source)
    key = check_name(key, "key")
    fingerprint = hashlib.sha256(canonical(payload).encode()).hexdigest()
    return Firing(0, trigger, payload, 0, depth, source, key, fingerprint)


@dataclass(slots=True)
class Instance:
    """One run of a task, with everything that a storage keeps about it.

    :data:`triggers.core.columns.INSTANCE` describes how each field is stored.

    Attributes:
        task: the name of the task.
        number: counts from 0 for each task.
        status: its status.
        created_at: when it was created.
        modified_at: when it last changed.
        ref: the storage's own reference, None until stored.
        fence: the fencing token. It grows with every claim and whenever a claim is lost; a writer must know
            the current one.
        attempt: how often it was claimed.
        crashes: how often its worker was lost.
        crash_budget: its `budget`, set by the claim, plus :data:`SPARED` for each crash that is not charged.
        given_back: how often a worker without its task returned it.
        run_at: the earliest time at which it may run. Of an unstarted instance, it is when its condition was
            first met, 0 before that.
        dispatch_after: the earliest time at which the sweep dispatches it again.
        handovers: how often the sweep dispatched it.
        lease_until: when the claim expires, None without a claim.
        owner: the name of the claim, "" without one.
        parent: the number of the instance that this one replays, or None.
        root: the number of the first ancestor with the same kwargs.
        depth: how many ancestors it has.
        retries: how many of the latest ancestors ended with a retry by the task itself.
        cascade_depth: the greatest depth of the firings that it received.
        taken: trigger → the number of the first firing that it received.
        vetoes: the triggers of `unless` that have fired for it.
        kwargs: encoded kwargs that replace those of the firings, or None.
        result: the number of the firing that carries its result, or None.
        error: the encoded error, or None.
        metadata: the encoded metadata that was added to it.
        history: one line for each change: time, status, remark.
        log_count: how many log records it has, stored or not.
        log_level: the highest level of its records.
        log_unresolved: the highest level, at or above the threshold, of an unresolved record; otherwise 0.
        log_counts: level → number of records.
        log_dropped: how many records were counted but not stored.
        log_resolved: the number up to which its records are resolved.
        log_chosen: the numbers of the resolved records beyond that.
        log_audit: who resolved its records, when and why, encoded.
    """

    task: str
    number: int
    status: Status
    created_at: int
    modified_at: int
    ref: int | None = None
    fence: int = 0
    attempt: int = 0
    crashes: int = 0
    crash_budget: int = 3
    given_back: int = 0
    run_at: int = 0
    dispatch_after: int = 0
    handovers: int = 0
    lease_until: int | None = None
    owner: str = ""
    parent: int | None = None
    root: int = 0
    depth: int = 0
    retries: int = 0
    cascade_depth: int = 0
    taken: dict[str, int] = field(default_factory=dict)
    vetoes: tuple[str, ...] = ()
    kwargs: str | None = None
    result: int | None = None
    error: str | None = None
    metadata: str = "{}"
    history: str = ""
    log_count: int = 0
    log_level: int = 0
    log_unresolved: int = 0
    log_counts: dict[int, int] = field(default_factory=dict)
    log_dropped: int = 0
    log_resolved: int = 0
    log_chosen: tuple[int, ...] = ()
    log_audit: str = "[]"

    @property
    def name(self) -> str:
        """Its name: the task, ``#`` and the number."""
        return instance_name(self.task, self.number)

    @property
    def is_resolved(self) -> bool:
        """Whether it will not change any more."""
        return self.status in RESOLVED

    @property
    def unreviewed_level(self) -> int:
        """The highest level of its records that need a review, 0 if none does.

        A replayed, skipped or abandoned instance needs no review.
        """
        return 0 if self.status in SETTLED else self.log_unresolved

    @property
    def budget(self) -> int:
        """How many charged crashes make it failed; 0 if any crash does, charged or not."""
        return self.crash_budget % SPARED

    @property
    def charged(self) -> int:
        """How many of its crashes no other instance can have caused."""
        return self.crashes - self.crash_budget // SPARED

    @property
    def has_missed(self) -> bool:
        """Whether its deadline has passed while it was unstarted."""
        return missed_in(self.history) is not None

    def note(self, at: int, what: str, remark: str = "") -> None:
        """Add a line to its history, unless that has reached its maximum length."""
        if len(self.history) < MAX_HISTORY:
            self.history += f"{at} {what} {remark}".rstrip() + "\n"


#: What is added to `crash_budget` for each crash that is not charged. It is greater than any budget.
SPARED = 1_000_000

#: Maximum length of a history, in characters: far more than all attempts within a crash budget can write.
MAX_HISTORY = 16_384


@dataclass(slots=True)
class Counter:
    """How many instances a task has in a session.

    Attributes:
        created: how many were ever created. It is also the number of the next one.
        unresolved: how many of them are not resolved.
    """

    created: int = 0
    unresolved: int = 0

    @property
    def is_resolved(self) -> bool:
        """Whether the task has an instance, and all its instances are resolved."""
        return self.created > 0 and self.unresolved == 0


class Latest(NamedTuple):
    """The latest firing of a trigger: its number and its depth."""

    number: int
    depth: int


_VALUES = attrgetter(*names_of(INSTANCE))
_DICTS = tuple(place for place, codec in codecs_of(INSTANCE) if codec.empty is dict)


def copy_of(instance: Instance) -> Instance:
    """Return a copy of an instance that shares nothing that can change."""
    values = list(_VALUES(instance))
    for place in _DICTS:
        values[place] = dict(values[place])
    return Instance(*values)


def keeps_open(rules: RuleSet, instance: Instance) -> bool:
    """Return whether an instance keeps its session from being finalized.

    An unresolved instance does. One of an exceptional task does not before it has received an outcome.
    """
    if instance.status in RESOLVED:
        return False
    rare = rules.rare(instance.task) if instance.status is Status.UNSTARTED else None
    return rare is None or not rare.isdisjoint(instance.taken)


def is_done(rules: RuleSet, task: str, counter: Counter) -> bool:
    """Return whether a task no longer keeps its session from being finalized."""
    return counter.is_resolved or (task in rules.exceptional and not counter.unresolved)
