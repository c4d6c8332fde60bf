"""What is kept of a session: its head, its firings, its instances and their counters.

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
from triggers.core.status import RESOLVED, Status
from triggers.core.values import DEFAULT_LIMITS, Limits, canonical, encode_mapping


@dataclass(slots=True)
class Session:
    """The head of a session: all that a firing must know of it, of a size that never grows.

    Attributes:
        uid: the name that the application gave it.
        now: the storage's time when it was loaded.
        ref: the storage's own reference, None as long as the session is not stored.
        rules: its current configuration.
        manager: name of the manager that it belongs to, "" before the first write.
        firings: number of the latest firing; they count from 1.
        pending: how many configured tasks are not resolved yet, tasks exempt from finalising aside.
        finalized: number of the finalising firing, or None.
        metadata: the application's own, encoded.
        created_at: when it was first written.
        modified_at: when it was last written.
        exclusive: whether no other decision about it can be made during this run; not stored.
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
    exclusive: bool = field(default=False, compare=False)


class Firing(NamedTuple):
    """One occurrence of a trigger.

    Attributes:
        number: counts from 1 in its session, without gaps.
        trigger: its name.
        kwargs: payload.
        at: when it was fired.
        depth: how many firings led to it, 0 for one from outside.
        source: name of the instance whose end, or whose task, fired it; "" for one from outside.
        key: idempotency key, None without.
        fingerprint: what a repeat with the same key must agree in.
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
    """A firing that was checked and encoded; its number and time are given when it is decided about.

    Args:
        trigger: its name.
        kwargs: its payload, a mapping, or None for an empty one.
        key: its idempotency key. A repeat agrees with it if the payloads are equal, in whatever order their
            keys are.
        depth: how many firings led to it.
        source: name of the instance that fires it.
        limits: sizes that the payload must keep to.

    Raises:
        InvalidNameError: the trigger or the key is not a valid name.
        InvalidValueError: the payload is not a mapping, or cannot be stored.
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
    """One run of a task, with all that a storage keeps of it.

    How each field is stored is described in :data:`triggers.core.columns.INSTANCE`.

    Attributes:
        task: the task's name.
        number: counts from 0 in its task.
        status: where it stands.
        created_at: when it was made.
        modified_at: when it last changed.
        ref: the storage's own reference, None until stored.
        fence: raised by every claim and whenever a claim is taken away; a writer must hold the present one.
        attempt: how often it was claimed.
        crashes: how often its lease ran out.
        crash_budget: at so many crashes it is failed; set by the claim.
        given_back: how often a worker that lacks the task gave it back.
        run_at: not to be started before.
        dispatch_after: to be handed over (again) after.
        handovers: how often the sweep handed it over.
        lease_until: when the claim runs out, None without a claim.
        owner: who claimed it, "" for nobody.
        parent: number of the instance that this one replays, or None.
        root: number of the first ancestor with the same kwargs.
        depth: how many ancestors it has.
        retries: how many of the latest ancestors ended by their own retry.
        cascade_depth: greatest depth of the firings that it took.
        taken: trigger → number of the firing that it saw first.
        vetoes: the triggers of `unless` that it saw.
        kwargs: payload that replaces those of the firings, or None.
        result: number of the firing that carries its result, or None.
        error: payload with what went wrong, or None.
        metadata: payload with what was added to it.
        history: one line for each change: time, status, remark.
        log_count: how many records it has been given, stored or not.
        log_level: highest level of its records.
        log_unresolved: highest level at or above the threshold of a record that nobody resolved yet, else 0.
        log_counts: level → how many records.
        log_dropped: how many records were counted and left out.
        log_resolved: number up to which its records are resolved.
        log_chosen: numbers beyond that of records that are resolved, too.
        log_audit: payload with who resolved them, when and why.
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
        """``task#number``."""
        return instance_name(self.task, self.number)

    @property
    def is_resolved(self) -> bool:
        """Whether nothing more will come of it."""
        return self.status in RESOLVED

    def note(self, at: int, what: str, remark: str = "") -> None:
        """Add a line to its history, which is bounded: a remark too many is left out."""
        if len(self.history) < MAX_HISTORY:
            self.history += f"{at} {what} {remark}".rstrip() + "\n"


#: Longest history, in characters; far more than the attempts that the crash budget allows can write.
MAX_HISTORY = 16_384


@dataclass(slots=True)
class Counter:
    """How many instances a task has in a session.

    Attributes:
        created: so many were ever made; the next one gets this number.
        unresolved: so many of them are not resolved.
    """

    created: int = 0
    unresolved: int = 0

    @property
    def is_resolved(self) -> bool:
        """Whether the task has run and nothing of it is open."""
        return self.created > 0 and self.unresolved == 0


class Latest(NamedTuple):
    """The latest firing of a trigger: its number and its depth."""

    number: int
    depth: int


_VALUES = attrgetter(*names_of(INSTANCE))
_DICTS = tuple(place for place, codec in codecs_of(INSTANCE) if codec.empty is dict)


def copy_of(instance: Instance) -> Instance:
    """An instance that can be changed without changing the given one."""
    values = list(_VALUES(instance))
    for place in _DICTS:
        values[place] = dict(values[place])
    return Instance(*values)
