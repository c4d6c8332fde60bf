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
from triggers.core.outcomes import (
    OUTCOMES,
    WITHOUT_RUN,
    exceptional_names,
    exceptional_tasks,
    outcome_of,
    outcomes_named,
)
from triggers.core.retries import RetryPolicy, retry_policy
from triggers.core.timing import Deadline, Delay, read_deadline, read_delay
from triggers.core.values import Limits, decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: The directives of the rule language. Any other key of a task is a custom directive.
DIRECTIVES = ("after", "run", "andEvery", "unless", "withParams", "using", "retry", "delay", "deadline")

#: Names of future directives. A configuration must not use them, and stored rules that do were written by a
#: newer version. This version reads such rules but does not run them.
RESERVED = (
    "forEach",
    "within",
    "limit",
    "priority",
    "where",
    "throttle",
    "as",
    "ifImpossible",
    "forward",
)


#: The version of the rule language. Stored rules have a version if version 1 would read them in another way.
LANGUAGE = 2

#: For how many triggers at a time a rule set remembers what they can change. A firing or an end has fewer.
MAX_CACHED = 4

#: The key under which stored rules have the version of their language. No task can have this name.
_LANGUAGE_KEY = ""


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
        retry: when an instance that raised an exception runs again, or None for the task's own policy.
        delay: how long an instance waits after its condition is met, or None.
        deadline: until when the condition of an instance should be met, or None.
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
    retry: RetryPolicy | None = None
    delay: Delay | None = None
    deadline: Deadline | None = None
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

        `after` includes the trigger of `andEvery`. `retry`, `delay` and `deadline` are left out if the rule
        has none.
        """
        return {
            **deepcopy(dict(self.extras)),
            "after": self.after.to_json(),
            "unless": self.unless.to_json(),
            "andEvery": self.and_every,
            "run": self.run,
            "using": self.using,
            "withParams": deepcopy(dict(self.with_params)),
            **{
                name: part.to_json()
                for name, part in (("retry", self.retry), ("delay", self.delay), ("deadline", self.deadline))
                if part
            },
        }

    def with_defaults(self, kwargs: Mapping[str, Any]) -> dict[str, Any]:
        """Return the kwargs that the task gets: the given ones, merged into a copy of `with_params`."""
        return _merged(deepcopy(dict(self.with_params)), kwargs)

    @property
    def is_timed(self) -> bool:
        """Whether its unstarted instances can have timers."""
        return self.delay is not None or self.deadline is not None

    @property
    def is_debounced(self) -> bool:
        """Whether an unstarted instance receives every further firing of its triggers."""
        return self.delay is not None and self.delay.since_last

    def lacks(self, taken: Mapping[str, int], vetoes: tuple[str, ...]) -> set[str]:
        """Return the triggers that an unstarted instance with these triggers and vetoes can still receive."""
        if self.is_debounced:
            taken = {}
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
    """What the firings of some triggers can change, with all that they fire in the same commit.

    Attributes:
        heard: the triggers that can fire and that a rule names.
        tasks: the tasks whose rules name one of them.
        others: the triggers of these rules whose latest firing can be needed.
    """

    heard: tuple[str, ...]
    tasks: frozenset[str]
    others: frozenset[str]


#: What a firing can change to which no task listens.
_NO_REACH = Reach((), frozenset(), frozenset())


class RuleSet:
    """All rules of a session, with an index by trigger.

    Attributes:
        rules: task name → rule, in the order of the configuration.
        listeners: trigger → the rules that name it. If there are timers, they are ordered by their tasks, so
            that timers of the same time elapse in the same order with equal rule sets.
        outcomes: the outcomes of its tasks that rules name. No others are fired.
        timed: the tasks whose unstarted instances can have timers.
        exceptional: the tasks that run only after an outcome, directly or through others.
        exceptional_names: the triggers that fire only in exceptional cases.
        digest: the SHA-256 of the canonical text, in hexadecimal.
        body: the text that a storage keeps.
        unsupported: the paths of what only a newer version understands. Rules that have any can be read and
            replaced, but nothing can be decided by them.
    """

    __slots__ = (
        "_exempt",
        "_reach",
        "body",
        "digest",
        "exceptional",
        "exceptional_names",
        "listeners",
        "outcomes",
        "rules",
        "timed",
        "unsupported",
    )

    def __init__(
        self, rules: Mapping[str, Rule], body: str, unsupported: tuple[str, ...] = (), *, language: int = 1
    ) -> None:
        self.unsupported: tuple[str, ...] = unsupported
        self.rules: dict[str, Rule] = dict(rules)
        self.body: str = body
        canonical = json.dumps(json.loads(body), sort_keys=True, separators=(",", ":"))
        self.digest: str = hashlib.sha256(canonical.encode()).hexdigest()
        self.timed: frozenset[str] = frozenset(rule.task for rule in self.rules.values() if rule.is_timed)
        self.listeners: dict[str, tuple[Rule, ...]] = {}
        listening: dict[str, list[Rule]] = {}
        for rule in sorted(self.rules.values(), key=str) if self.timed else self.rules.values():
            for name in sorted(rule.named):
                listening.setdefault(name, []).append(rule)
        self.listeners = {name: tuple(found) for name, found in listening.items()}
        self.outcomes: frozenset[str] = frozenset()
        self.exceptional: frozenset[str] = frozenset()
        self.exceptional_names: frozenset[str] = frozenset()
        if language > 1:
            self.outcomes = outcomes_named(self.listeners, self.rules)
        if self.outcomes:
            conditions = {task: rule.after for task, rule in self.rules.items()}
            self.exceptional = exceptional_tasks(conditions, self.outcomes)
            self.exceptional_names = exceptional_names(self.exceptional, self.outcomes)
        self._exempt: dict[str, frozenset[str]] = {}
        self._reach: dict[tuple[str, ...], Reach] = {}

    def reach(self, *triggers: str) -> Reach:
        """Return what firings of these triggers can change."""
        found = self._reach.get(triggers)
        if found is None:
            heard = tuple(
                self._following(triggers) if self.outcomes else filter(self.listeners.get, triggers)
            )
            if not heard:  # there is no limit to the triggers without rules, so they are not cached
                return _NO_REACH
            rules = [rule for trigger in heard for rule in self.listeners[trigger]]
            named = frozenset[str]().union(*[rule.named for rule in rules])
            others = named - {*heard} if len(heard) == 1 else named
            found = Reach(heard, frozenset(rule.task for rule in rules), others)
            if len(triggers) <= MAX_CACHED:
                self._reach[triggers] = found
        return found

    def _following(self, triggers: Iterable[str]) -> Iterator[str]:
        """Yield the triggers, and the outcomes that they can fire in the same commit, that rules name.

        Besides the end of a run, only a veto ends an instance.
        """
        heads = list(triggers)
        known = set(heads)
        while heads:
            rules = self.listeners.get(trigger := heads.pop(), ())
            if rules:
                yield trigger
            names = {f"{rule.task}:{word}" for rule in rules if rule.unless for word in WITHOUT_RUN}
            fresh = (names & self.outcomes) - known
            known |= fresh
            heads += sorted(fresh)

    def rare(self, task: str) -> frozenset[str] | None:
        """Return the triggers with which an unstarted instance keeps a session open; None: it always does."""
        return self.rules[task].after.names & self.exceptional_names if task in self.exceptional else None

    @property
    def external(self) -> tuple[str, ...]:
        """The triggers that no task of this configuration fires by ending, in alphabetical order."""
        return tuple(sorted(self.listeners.keys() - self.rules.keys() - self.outcomes))

    def waiting_for(self, trigger: str) -> frozenset[str]:
        """Return the tasks that wait for the trigger, directly or through other tasks."""
        if trigger not in self._exempt:
            found: set[str] = set()
            heads = [trigger]
            while heads:
                head = heads.pop()
                after = [rule.task for rule in self.listeners.get(head, ()) if head in rule.after.names]
                for task in after:
                    if task not in found:
                        heads += [task, *(f"{task}:{word}" for word in sorted(OUTCOMES))]
                found.update(after)
            self._exempt[trigger] = frozenset(found)
        return self._exempt[trigger]

    @property
    def configuration(self) -> dict[str, Any]:
        """The directives of each task, as they are stored."""
        written: dict[str, Any] = decode(self.body)
        written.pop(_LANGUAGE_KEY, None)
        return written

    def source(self, trigger: str) -> str:
        """Return the task that fires the trigger by finishing, or by another end; "" if no task does."""
        if trigger in self.rules:
            return trigger
        outcome = outcome_of(trigger, self.rules) if trigger in self.outcomes else None
        return outcome.task if outcome else ""

    def upstream(self, task: str) -> tuple[str, ...]:
        """Return the other tasks that a task waits for, directly or through others; none if it is unknown."""
        found: dict[str, None] = {}
        heads = [task]
        while heads:
            rule = self.rules.get(heads.pop())
            names = sorted({self.source(name) for name in rule.after.names} - {""}) if rule else []
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
        retry=retry_policy(written["retry"]) if "retry" in written else None,
        delay=read_delay(written["delay"]) if "delay" in written else None,
        deadline=read_deadline(written["deadline"]) if "deadline" in written else None,
        extras={key: value for key, value in written.items() if key not in DIRECTIVES},
    )


def _condition(written: Any) -> Condition:
    """Return a stored condition; one that only a newer version understands is read as a list of its names."""
    return condition_from_json(written) if is_form(written) else all_of(mentioned(written))


def _unsupported(rule: Rule, written: Mapping[str, Any]) -> Iterator[str]:
    task = rule.task
    yield from (f"{task}.{word}" for word in RESERVED if word in written)
    yield from (f"{task}.{key}" for key in ("after", "unless") if not is_form(written.get(key, [])))
    if not isinstance(written.get("andEvery", ""), str):
        yield f"{task}.andEvery"
    yield from (f"{task}.{key}" for key in _READ if key in written and getattr(rule, key) is None)


#: The directives of which a newer version can have more forms.
_READ = ("retry", "delay", "deadline")

#: The directives that name triggers.
_NAMING = ("after", "andEvery", "unless")

#: A configuration is stored once for all sessions that share it, so it can be larger than a payload.
_LIMITS = Limits(payload=64 * 1024 * 1024)


def rule_set(configuration: Mapping[str, Mapping[str, Any]]) -> RuleSet:
    """Return the rule set of a validated configuration.

    The version of its language is only stored if it matters, so that the same rules keep the same text.
    """
    names = {name for rule in configuration.values() for key in _NAMING for name in mentioned(rule.get(key))}
    is_new = any(outcome_of(name, configuration) for name in names)
    version = {_LANGUAGE_KEY: {"language": LANGUAGE}} if is_new else {}
    return read_rules(encode({**version, **configuration}, "the configuration", _LIMITS))


@lru_cache(maxsize=512)
def read_rules(body: str) -> RuleSet:
    """Return the rule set for the text that a storage keeps. The latest results are cached."""
    written = decode(body)
    language = written.pop(_LANGUAGE_KEY, {}).get("language", 1)
    rules = {task: rule_from_json(task, rule) for task, rule in written.items()}
    unsupported = tuple(path for task, rule in rules.items() for path in _unsupported(rule, written[task]))
    if language > LANGUAGE:
        unsupported = (f"version {language} of the rule language", *unsupported)
    return RuleSet(rules, body, unsupported, language=language)


#: The rules of a session that is not configured yet.
NO_RULES = RuleSet({}, "{}")
