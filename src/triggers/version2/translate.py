"""Translate a session of version 2 into what this version stores."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from triggers.core.configuration import CUSTOM, check_configuration, is_custom
from triggers.core.decisions import ImportedSession
from triggers.core.names import check_name, split_instance_name
from triggers.core.state import Instance
from triggers.core.status import Status
from triggers.core.values import encode, encode_mapping, to_datetime
from triggers.exceptions import (
    ConfigurationError,
    InvalidNameError,
    InvalidValueError,
    UnknownInstanceError,
)
from triggers.logs import LogSettings
from triggers.logs.sanitizing.exceptions import bare
from triggers.logs.sanitizing.sanitizer import sanitizer
from triggers.redaction import hide
from triggers.version2.ledger import Entry, Ledger
from triggers.version2.refused import RefusedError, joined
from triggers.worker.failures import ERROR_LIMITS

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from triggers.core.rules import RuleSet
    from triggers.core.terms import Policy
    from triggers.core.values import Limits
    from triggers.version2.shape import OldInstance, OldMetadata, OldSession

#: The key of a session's metadata that says that the session, and which of its firings, are imported.
MARK: Final = "imported"

#: The directives of version 2. Any other key was a custom one, also if it is a directive now.
_DIRECTIVES: Final = frozenset({"after", "andEvery", "run", "unless", "using", "withParams"})

#: The remark in the history of an imported instance.
REMARK: Final = "imported from version 2"


class Translation(NamedTuple):
    """A session to store, and the custom keys that were renamed, as (path, new name)."""

    session: ImportedSession
    renamed: tuple[tuple[str, str], ...]


def translate(old: OldSession, key: str, now: int, policy: Policy) -> Translation:
    """Translate a session.

    Args:
        old: the session.
        key: its key in the cache, which is stored with it.
        now: the time of the storage, in microseconds. It replaces times that version 2 did not store.
        policy: the manager's policy.

    Raises:
        RefusedError: this version cannot store a part of it.
    """
    limits = policy.limits
    tasks, renamed = _renamed(old.tasks)
    rules = _rules(tasks, limits)
    runs = _runs(old.instances, limits)
    times = [at for run in runs for at in run.times.values()] or [now]
    ledger = Ledger()
    _fire_results(runs, ledger, limits)
    _receive(runs, ledger, rules, min(times))
    _follow_parents(runs)
    for trigger, kwargs in old.latest_kwargs.items():
        path = f"metas.latest_kwargs.{trigger}"
        ledger.set_latest(_name(trigger, path), _encoded(kwargs, path, limits), max(times))
    firings = ledger.firings()
    mark = {"from": "version 2", "key": key, "at": to_datetime(now), "firings": len(firings)}
    metadata = _encoded({**old.metas, MARK: mark}, "metas", limits)
    instances = tuple(_instance(run, now, policy) for run in runs)
    return Translation(ImportedSession(rules, firings, instances, metadata, min(times)), renamed)


def _encoded(value: object, path: str, limits: Limits) -> str:
    try:
        return encode_mapping(value, path, limits)
    except InvalidValueError as error:
        where, _, why = str(error).partition(": ")
        raise RefusedError((where, why)) from None


def _name(name: str, path: str) -> str:
    try:
        return check_name(name, "name")
    except InvalidNameError as error:
        raise RefusedError((path, str(error))) from None


# -- the configuration ----------------------------------------------------------------------------------


def _renamed(
    tasks: Mapping[str, Mapping[str, Any]],
) -> tuple[dict[str, dict[str, Any]], tuple[tuple[str, str], ...]]:
    """Rename the custom keys that are reserved now; return the tasks, and each key with its new name."""
    found: dict[str, dict[str, Any]] = {}
    renamed: list[tuple[str, str]] = []
    for task, written in tasks.items():
        found[task] = {}
        for key, value in written.items():
            known = key in _DIRECTIVES or is_custom(key)
            name = key if known else CUSTOM + key
            if not known:
                renamed.append((f"{task}.{key}", name))
            if not known and name in written:
                raise RefusedError((f"tasks.{task}.{key}", f"it must be renamed, and there is {name!r}, too"))
            found[task][name] = value
    return found, tuple(renamed)


def _rules(tasks: dict[str, dict[str, Any]], limits: Limits) -> RuleSet:
    try:
        written = {task: _directives(rule) for task, rule in tasks.items()}
        rules = check_configuration(written, limits=limits)
    except ConfigurationError as error:
        problems = ((joined("tasks", path.removeprefix("$")), text) for path, text in error.problems)
        raise RefusedError(*problems) from None
    for name in sorted(rules.outcomes):
        why = "version 2 let the application fire it; in this version, only the end of an instance does"
        raise RefusedError((f"tasks.{rules.listeners[name][0].task}", f"{name!r}: {why}"))
    return rules


def _directives(rule: dict[str, Any]) -> dict[str, Any]:
    """Return a rule without empty directives, and with its names in order, so that equal rules are equal."""
    kept = {
        key: value for key, value in rule.items() if key not in _DIRECTIVES or value not in (None, {}, [])
    }
    for key in ("after", "unless"):
        if isinstance(kept.get(key), list) and all(type(name) is str for name in kept[key]):
            kept[key] = sorted(kept[key])
    return kept


# -- what instances received ----------------------------------------------------------------------------


@dataclass(slots=True)
class _Run:
    """An instance that is being translated.

    Attributes:
        task: its task.
        number: its number.
        old: what version 2 has stored of it.
        payloads: trigger → the kwargs that it has, encoded.
        parent: the instance that it replays.
        root: the number of its first ancestor with the same kwargs.
        retries: how many of its latest ancestors ended with a retry by the task itself.
        taken: trigger → the firing that it received.
        kwargs: its encoded kwargs if they replace those of the firings.
        result: the firing that carries its result.
    """

    task: str
    number: int
    old: OldInstance
    payloads: dict[str, str]
    parent: _Run | None = None
    root: int = 0
    retries: int = 0
    taken: dict[str, Entry] = field(default_factory=dict)
    kwargs: str | None = None
    result: Entry | None = None

    @property
    def name(self) -> str:
        return f"{self.task}#{self.number}"

    @property
    def times(self) -> dict[str, int]:
        return self.old.metadata.times

    @property
    def metadata(self) -> OldMetadata:
        return self.old.metadata

    @property
    def path(self) -> str:
        return f"instances.{self.name}"


def _runs(instances: Mapping[str, OldInstance], limits: Limits) -> list[_Run]:
    """Return all instances in the order of their creation; those without a time are the last."""
    runs = {name: _run(name, old, limits) for name, old in instances.items()}
    for run in runs.values():
        parent = run.metadata.parent
        if parent is not None:
            run.parent = runs.get(parent)
            if run.parent is None or run.parent.task != run.task or run.parent.number >= run.number:
                message = f"{parent!r} is not an earlier instance of the task"
                raise RefusedError((f"{run.path}.metadata.parent", message))
    return sorted(runs.values(), key=lambda run: (run.times.get("created", 2**63), run.task, run.number))


def _run(name: str, old: OldInstance, limits: Limits) -> _Run:
    try:
        task, number = split_instance_name(name)
    except UnknownInstanceError as error:
        raise RefusedError((f"instances.{name}", str(error))) from None
    path = f"instances.{name}"
    if task != old.task:
        raise RefusedError((f"{path}.task", f"it is {old.task!r}, and the name is {name!r}"))
    _name(task, path)
    for trigger in (*old.kwargs, *old.vetoes):
        _name(trigger, path)
    payloads = {
        trigger: _encoded(kwargs, f"{path}.kwargs.{trigger}", limits)
        for trigger, kwargs in old.kwargs.items()
    }
    return _Run(task, number, old, payloads, root=number)


def _fire_results(runs: Iterable[_Run], ledger: Ledger, limits: Limits) -> None:
    """Add the firings of instances that have cascaded: those that finished, or were skipped with a result."""
    cascaded = [run for run in runs if run.old.status is Status.FINISHED or _cascaded_by_skip(run)]
    for run in sorted(cascaded, key=_ended_at):
        payload = _encoded(run.metadata.result, f"{run.path}.metadata.result", limits)
        run.result = ledger.add(run.task, payload, _ended_at(run), run.name)


def _cascaded_by_skip(run: _Run) -> bool:
    return run.old.status is Status.SKIPPED and run.metadata.cascade is True


def _ended_at(run: _Run) -> int:
    return run.times.get(run.old.status, max(run.times.values(), default=0))


def _receive(runs: Iterable[_Run], ledger: Ledger, rules: RuleSet, start: int) -> None:
    """Find the firings that instances received which replay no other."""
    own: Counter[tuple[str, str, str]] = Counter()
    for run in runs:
        if run.parent is not None:
            continue
        rule = rules.rules.get(run.task)
        for trigger, payload in run.payloads.items():
            earlier = 0
            if rule is not None and trigger == rule.and_every:
                earlier = own[run.task, trigger, payload]
                own[run.task, trigger, payload] += 1
            at = run.times.get("created", start)
            run.taken[trigger] = ledger.received(trigger, payload, at, earlier)


def _follow_parents(runs: Iterable[_Run]) -> None:
    """Give each replay what it has from the instance that it replays. Parents have lower numbers."""
    for run in sorted(runs, key=lambda run: run.number):
        parent = run.parent
        if parent is None:
            continue
        run.taken = parent.taken
        if run.old.kwargs == parent.old.kwargs:
            run.kwargs, run.root = parent.kwargs, parent.root
        else:
            parts = (f"{encode(trigger, 'trigger')}:{kwargs}" for trigger, kwargs in run.payloads.items())
            run.kwargs = "{" + ",".join(parts) + "}"
        retried = "cooldown" in parent.metadata.rest
        run.retries = parent.retries + 1 if retried else 0


# -- instances ------------------------------------------------------------------------------------------


def _instance(run: _Run, now: int, policy: Policy) -> Instance:
    status = Status.SCHEDULED if run.old.status is Status.RUNNING else run.old.status
    ran = int("running" in run.times)
    level = run.metadata.log_level
    unresolved = level if level >= policy.threshold and not run.metadata.logs_resolved else 0
    created = run.times.get("created", now)
    return Instance(
        task=run.task,
        number=run.number,
        status=status,
        created_at=created,
        modified_at=run.times.get("lastModified", created),
        fence=ran,
        attempt=ran,
        run_at=now if status is Status.SCHEDULED else run.times.get("scheduled", 0),
        parent=None if run.parent is None else run.parent.number,
        root=run.root,
        depth=run.metadata.depth,
        retries=run.retries,
        cascade_depth=max((entry.depth for entry in run.taken.values()), default=0),
        taken={trigger: entry.number for trigger, entry in run.taken.items()},
        vetoes=tuple(dict.fromkeys(run.old.vetoes)),
        kwargs=run.kwargs,
        result=None if run.result is None else run.result.number,
        error=_error(run),
        metadata=_encoded(_kept(run), f"{run.path}.metadata", policy.limits),
        history=_history(run, status, created, now),
        log_level=level,
        log_unresolved=unresolved,
    )


def _kept(run: _Run) -> dict[str, Any]:
    """Return the metadata for which this version has no place of its own."""
    kept = {**run.metadata.rest, "cascade": run.metadata.cascade}
    return {key: value for key, value in kept.items() if value is not None}


def _history(run: _Run, status: Status, created: int, now: int) -> str:
    lines = [f"{created} unstarted {REMARK}"]
    known = [(at, name) for name, at in run.times.items() if name in set(Status) - {Status.UNSTARTED}]
    lines += [f"{at} {name}" for at, name in sorted(known, key=lambda line: line[0])]
    if status is Status.SCHEDULED:
        lines.append(f"{now} {status} {REMARK}")
    return "\n".join(lines) + "\n"


def _error(run: _Run) -> str | None:
    """Return the encoded error of an instance whose exception version 2 has stored."""
    name, text = run.metadata.error_type, hide(run.metadata.error_text, ())
    if name is None:
        return None
    last = next((line for line in reversed(text.splitlines()) if line.strip()), "")
    error = {
        **bare(name, last.partition(": ")[2] or last),
        "context": sanitizer(LogSettings()).context(run.metadata.error_context).data,
        "traceback": text,
    }
    try:
        return encode(error, f"{run.path}.metadata.exceptionInfo", ERROR_LIMITS)
    except InvalidValueError as refused:
        where, _, why = str(refused).partition(": ")
        raise RefusedError((where, why)) from None
