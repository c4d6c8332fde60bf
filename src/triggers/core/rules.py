"""Rules: a validated configuration, in the form that decisions use.

A rule set is immutable. The SHA-256 of its canonical text identifies it, so that a storage keeps one copy for
all sessions that share it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from triggers.core.conditions import EMPTY, Condition, all_of, condition_from_json, is_form, mentioned
from triggers.core.values import Limits, decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

#: The directives of the rule language. Any other key of a task is a custom directive.
DIRECTIVES = ("after", "run", "andEvery", "unless", "withParams", "using")

#: Names of future directives. A configuration must not use them, and stored rules that do were written by a
#: newer version. This version reads such rules but does not run them.
RESERVED = (
    "forEach",
    "delay",
    "deadline",
    "within",
    "retry",
    "limit",
    "priority",
    "where",
    "debounce",
    "throttle",
    "as",
    "ifImpossible",
    "forward",
)


@dataclass(frozen=True, slots=True)
class Rule:
    """One task of a configuration: what to run, and when.

    Attributes:
        task: the name of the task, by convention ``t_…``.
        run: the name of the registered task to run.
        after: the condition, including `and_every`.
        and_every: the trigger that creates a new instance each time it fires, or None.
        unless: the veto; an empty one is never met.
        with_params: default kwargs for each trigger.
        using: the name of the runner, or None for the application's default.
        extras: the custom directives.
        named: every trigger that the rule names.
    """

    task: str
    run: str
    after: Condition
    and_every: str | None = None
    unless: Condition = EMPTY
    with_params: Mapping[str, Any] = field(default_factory=dict)
    using: str | None = None
    extras: Mapping[str, Any] = field(default_factory=dict)
    named: frozenset[str] = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "named", self.after.names | self.unless.names)

    def __str__(self) -> str:
        return self.task

    @property
    def name(self) -> str:
        """The name of the task, the same as `task`."""
        return self.task

    @property
    def after_sorted(self) -> list[str]:
        """The names in `after`, in alphabetical order."""
        return list(self.after)

    @property
    def unless_sorted(self) -> list[str]:
        """The names in `unless`, in alphabetical order."""
        return list(self.unless)

    def uses_trigger(self, trigger_name: str) -> bool:
        """Return whether the rule names the trigger, in `after` or in `unless`."""
        return trigger_name in self.named

    def serialize(self) -> dict[str, Any]:
        """Return the rule in the rule language: every directive, and the custom directives beside them.

        `after` includes the trigger of `andEvery`.
        """
        return {
            **deepcopy(dict(self.extras)),
            "after": self.after.to_json(),
            "unless": self.unless.to_json(),
            "andEvery": self.and_every,
            "run": self.run,
            "using": self.using,
            "withParams": deepcopy(dict(self.with_params)),
        }

    def with_defaults(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the kwargs that the task gets: the given ones, merged into a copy of `with_params`."""
        return _merged(deepcopy(dict(self.with_params)), kwargs)

    def lacks(self, taken: Mapping[str, int], vetoes: tuple[str, ...]) -> set[str]:
        """Return the triggers that an instance with these triggers and vetoes still lacks."""
        lacking = {name for name in self.after.names if name not in taken}
        lacking.update(name for name in self.unless.names if name not in vetoes)
        return lacking


def _merged(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Merge given values into defaults, mapping by mapping. Other values are replaced, lists, too."""
    both = dict(defaults)
    for key, value in given.items():
        under = both.get(key)
        both[key] = (
            _merged(under, value) if isinstance(under, Mapping) and isinstance(value, Mapping) else value
        )
    return both


class Reach(NamedTuple):
    """What a firing of a trigger can change: the rules that name it, their tasks and other triggers."""

    rules: tuple[Rule, ...]
    tasks: frozenset[str]
    others: frozenset[str]


#: What a firing can change to which no task listens.
_NO_REACH = Reach((), frozenset(), frozenset())


class RuleSet:
    """All rules of a session, with an index by trigger.

    Attributes:
        rules: task name → rule, in the order of the configuration.
        listeners: trigger → the rules that name it.
        digest: the SHA-256 of the canonical text, in hexadecimal.
        body: the text that a storage keeps.
        unsupported: the paths of what only a newer version understands. Rules that have any can be read and
            replaced, but nothing can be decided by them.
    """

    __slots__ = ("_exempt", "_reach", "body", "digest", "listeners", "rules", "unsupported")

    def __init__(self, rules: Mapping[str, Rule], body: str, unsupported: tuple[str, ...] = ()) -> None:
        self.unsupported: tuple[str, ...] = unsupported
        self.rules: dict[str, Rule] = dict(rules)
        self.body: str = body
        canonical = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"))
        self.digest: str = hashlib.sha256(canonical.encode()).hexdigest()
        self.listeners: dict[str, tuple[Rule, ...]] = {}
        listening: dict[str, list[Rule]] = {}
        for rule in self.rules.values():
            for name in sorted(rule.named):
                listening.setdefault(name, []).append(rule)
        self.listeners = {name: tuple(found) for name, found in listening.items()}
        self._exempt: dict[str, frozenset[str]] = {}
        self._reach: dict[str, Reach] = {}

    def reach(self, trigger: str) -> Reach:
        """Return what a firing of the trigger can change."""
        found = self._reach.get(trigger)
        if found is None:
            rules = self.listeners.get(trigger)
            if rules is None:  # there is no limit to the triggers without rules, so they are not cached
                return _NO_REACH
            others = frozenset[str]().union(*[rule.named for rule in rules]) - {trigger}
            found = Reach(rules, frozenset(rule.task for rule in rules), others)
            self._reach[trigger] = found
        return found

    @property
    def external(self) -> tuple[str, ...]:
        """The triggers that no task of this configuration fires by finishing, in alphabetical order."""
        return tuple(sorted(self.listeners.keys() - self.rules.keys()))

    def waiting_for(self, trigger: str) -> frozenset[str]:
        """Return the tasks that wait for the trigger, directly or through other tasks."""
        if trigger not in self._exempt:
            found: set[str] = set()
            heads = [trigger]
            while heads:
                head = heads.pop()
                after = [rule.task for rule in self.listeners.get(head, ()) if head in rule.after.names]
                heads.extend(task for task in after if task not in found)
                found.update(after)
            self._exempt[trigger] = frozenset(found)
        return self._exempt[trigger]

    def upstream(self, task: str) -> tuple[str, ...]:
        """Return the other tasks that a task waits for, directly or through others; none if it is unknown."""
        found: dict[str, None] = {}
        heads = [task]
        while heads:
            rule = self.rules.get(heads.pop())
            names = sorted(rule.after.names & self.rules.keys()) if rule else []
            fresh = [name for name in names if name not in found and name != task]
            found.update(dict.fromkeys(fresh))
            heads += fresh
        return tuple(found)


def rule_from_json(task: str, written: Mapping[str, Any]) -> Rule:
    """Return the rule of a task whose directives were validated, by this version or by a newer one."""
    after = _condition(written.get("after", []))
    and_every = next(iter(mentioned(written.get("andEvery"))), None)
    if and_every is not None and not (and_every in after.of and after.at_least == len(after.of)):
        terms = after.of if after.at_least == len(after.of) else (after,)
        after = all_of((*terms, and_every))
    return Rule(
        task=task,
        run=written.get("run", ""),
        after=after,
        and_every=and_every,
        unless=_condition(written.get("unless", [])),
        with_params=written.get("withParams", {}),
        using=written.get("using"),
        extras={key: value for key, value in written.items() if key not in DIRECTIVES},
    )


def _condition(written: Any) -> Condition:
    """Return a stored condition; one that only a newer version understands is read as a list of its names."""
    return condition_from_json(written) if is_form(written) else all_of(mentioned(written))


def _unsupported(task: str, written: Mapping[str, Any]) -> Iterator[str]:
    yield from (f"{task}.{word}" for word in RESERVED if word in written)
    yield from (f"{task}.{key}" for key in ("after", "unless") if not is_form(written.get(key, [])))
    if not isinstance(written.get("andEvery", ""), str):
        yield f"{task}.andEvery"


#: A configuration is stored once for all sessions that share it, so it can be larger than a payload.
_LIMITS = Limits(payload=64 * 1024 * 1024)


def rule_set(configuration: Mapping[str, Mapping[str, Any]]) -> RuleSet:
    """Return the rule set of a validated configuration."""
    return read_rules(encode(configuration, "the configuration", _LIMITS))


@lru_cache(maxsize=512)
def read_rules(body: str) -> RuleSet:
    """Return the rule set for the text that a storage keeps. The latest results are cached."""
    written = decode(body)
    rules = {task: rule_from_json(task, rule) for task, rule in written.items()}
    unsupported = tuple(path for task, rule in written.items() for path in _unsupported(task, rule))
    return RuleSet(rules, body, unsupported)


#: The rules of a session that is not configured yet.
NO_RULES = RuleSet({}, "{}")
