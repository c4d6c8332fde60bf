"""Explains why a task has run or not, in words and as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from triggers.core.outcomes import MISSED, misnamed_outcome, outcome_of
from triggers.core.similar_names import are_similar, did_you_mean
from triggers.core.status import Status
from triggers.core.timing import MISSED_IT, missed_in
from triggers.core.timing_in_words import Due, Times, late, moment, upstream_due
from triggers.core.values import decode, to_datetime

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
    from datetime import datetime

    from triggers.core.rules import Rule
    from triggers.core.state import Instance
    from triggers.core.timers import Timer


class Source(NamedTuple):
    """The task whose end fires a trigger, and the word of the outcome, "" if that is the task's name."""

    task: str
    word: str = ""

    def event(self) -> str:
        """Return in words what fires the trigger."""
        return f"the task {self.task} {_EVENTS.get(self.word, f'is {self.word}')}"


#: The word of an outcome → what happens then to the task, if that is not "is", followed by the word.
_EVENTS = {"": "finishes", "failed": "fails", "ended": "ends, in whatever way", MISSED: "misses its deadline"}


@dataclass(frozen=True, slots=True)
class Waiting:
    """What an unstarted instance, or a task without instances, waits for.

    Attributes:
        name: the name of the instance, or of the task.
        lacks: the triggers that could still meet the condition. It is empty for a task that was configured
            after its triggers had fired; such a task starts when one of them fires again.
        needs: the condition in words.
        upstream: lacked trigger → the instances of the task with that name, as (name, status). These are the
            unresolved instances, which can still fire it. If there are none, they are the resolved ones,
            which did not fire it.
        similar: lacked trigger → a trigger with a similar name that has fired and that no task listens to.
        sources: lacked trigger → the task whose end fires it, and which end.
        misnamed: lacked triggers that begin like an outcome of a task and are none → why, in words.
        timers: what has a timer → what happens then, and when. These are the instance itself, the instances
            in `upstream`, and the lacked triggers.
        late_since: the deadline that the instance has missed, or None.
        timing: until when it waits, and what happens then, in sentences without full stops at the end.
    """

    name: str
    lacks: tuple[str, ...]
    needs: str
    upstream: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    similar: Mapping[str, str] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    misnamed: Mapping[str, str] = field(default_factory=dict)
    timers: Mapping[str, Due] = field(default_factory=dict)
    late_since: datetime | None = None
    timing: tuple[str, ...] = ()

    def sentence(self) -> str:
        """Return the explanation in words, without a full stop at the end."""
        if not self.lacks:
            return ". ".join(self.timing) or (
                f"{self.name} was configured after its triggers had fired (it needs {self.needs}). "
                "It starts when one of them fires again"
            )
        sentence = f"{self.name} waits for {_listed(self.lacks)}"
        if self.lacks != (self.needs,):
            sentence += f" (it needs {self.needs})"
        for trigger, instances in self.upstream.items():
            states = [
                f"{name} is {status}{upstream_due(self.timers.get(name))}" for name, status in instances
            ]
            known = _listed(states) or f"{self.sources[trigger].task} has no instance yet"
            sentence += f". The trigger {trigger} fires when {self.sources[trigger].event()}; {known}"
        for trigger, other in self.similar.items():
            sentence += (
                f". {other} has fired, but no task listens to it: perhaps it should have been {trigger}"
            )
        return ". ".join((sentence, *self.timing, *self.misnamed.values()))


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a task has run or not.

    Attributes:
        task: the name of the task.
        known: whether the task is configured.
        counts: status → number of its instances.
        waiting: what its first unstarted instances wait for, or the task itself if it has no instance.
        vetoed_by: instance → the triggers of `unless` that abandoned it, none if it was abandoned by hand.
        waits_for: the failed instances, of this task or of tasks that it waits for, that someone has to
            replay or skip.
        remarks: instance → why it failed, which deadline abandoned it, when it will run, or which worker runs
            it.
        sentence: the explanation in words.
    """

    task: str
    known: bool
    counts: Mapping[str, int]
    waiting: tuple[Waiting, ...]
    vetoed_by: Mapping[str, tuple[str, ...]]
    waits_for: tuple[str, ...]
    remarks: Mapping[str, str]
    sentence: str


def is_waiting(rule: Rule | None, instances: Collection[Instance]) -> bool:
    """Return whether a configured task has an unstarted instance, or no instance at all."""
    unstarted = not instances or any(instance.status is Status.UNSTARTED for instance in instances)
    return rule is not None and unstarted


def explain(
    task: str,
    rule: Rule | None,
    instances: Sequence[Instance],
    happened: Collection[str],
    upstream: Mapping[str, Sequence[Instance]],
    *,
    unheard: Collection[str] = (),
    tasks: Collection[str] = (),
    registered: Collection[str] = (),
    now: int = 0,
    timers: Iterable[Timer] = (),
    outcomes: Collection[str] = (),
) -> Explanation:
    """Explain why a task has run or not.

    Args:
        task: the name of the task.
        rule: the rule of the task, None if the task is not configured.
        instances: the instances of the task.
        happened: triggers that have fired, among them all of the task that have. Only used if it has no
            instances.
        upstream: task that it waits for, directly or through others → the unresolved instances of that task,
            or the resolved ones if there are no others. Only used if the task :func:`is_waiting`.
        unheard: triggers that have fired and that no task listens to. Only used if the task is waiting.
        tasks: all tasks of the session, to recognize misspelled outcomes. Only used if the task is waiting.
        registered: the tasks of this process, to suggest another name for one that is missing.
        now: the time, in microseconds, by which a scheduled instance may be due.
        timers: the timers of these instances, and the next ones that fire triggers. Only used if the task is
            waiting.
        outcomes: the outcomes that rules name, because no others are fired.
    """
    counts: dict[str, int] = {}
    for instance in instances:
        counts[instance.status.value] = counts.get(instance.status.value, 0) + 1
    facts = _Facts(upstream, unheard, tasks, Times(timers, now, outcomes))
    waiting = tuple(_waiting(rule, instances, happened, facts)) if rule else ()
    vetoed = {i.name: i.vetoes for i in instances if i.status is Status.ABANDONED and not _was_late(i)}
    own = [i.name for i in instances if i.status is Status.FAILED]
    before = [i.name for found in upstream.values() for i in found if i.status is Status.FAILED]
    waits_for = (*own, *(before if waiting else ()))
    remarks = dict(_remarks(instances, rule, registered, now))
    sentence = _sentence(task, rule, counts, waiting, vetoed, waits_for, remarks)
    return Explanation(task, rule is not None, counts, waiting, vetoed, waits_for, remarks, sentence)


class _Facts(NamedTuple):
    """What is known about all that waits: arguments of :func:`explain`."""

    upstream: Mapping[str, Sequence[Instance]]
    unheard: Collection[str]
    tasks: Collection[str]
    times: Times


def _waiting(
    rule: Rule, instances: Sequence[Instance], happened: Collection[str], facts: _Facts
) -> list[Waiting]:
    if not instances:
        return [_wait(rule, None, happened, facts)]
    unstarted = [i for i in instances if i.status is Status.UNSTARTED]
    return [_wait(rule, instance, instance.taken, facts) for instance in unstarted]


def _wait(rule: Rule, instance: Instance | None, taken: Collection[str], facts: _Facts) -> Waiting:
    lacks = rule.after.lacking(taken)
    sources = {trigger: found for trigger in lacks if (found := source_of(trigger, facts.upstream))}
    causes = {trigger: facts.upstream[source.task] for trigger, source in sources.items()}
    fired = ((lacked, other) for lacked in lacks for other in facts.unheard if are_similar(lacked, other))
    misnamed = {trigger: why for trigger in lacks if (why := misnamed_outcome(trigger, facts.tasks))}
    concerned = [*([instance] if instance else []), *(one for found in causes.values() for one in found)]
    since = missed_in(instance.history) if instance else None
    timing = (late(since), *facts.times.sentences(rule, instance, lacks))
    return Waiting(
        instance.name if instance else rule.task,
        lacks,
        rule.after.sentence(),
        {trigger: _states(found) for trigger, found in causes.items()},
        dict(fired),
        sources,
        misnamed,
        facts.times.matter_to(concerned, lacks),
        since,
        tuple(filter(None, timing)),
    )


def source_of(trigger: str, upstream: Collection[str]) -> Source | None:
    """Return which end of which of these tasks fires the trigger; None if none does."""
    if trigger in upstream:
        return Source(trigger)
    outcome = outcome_of(trigger, upstream)
    return Source(*outcome) if outcome else None


def _states(instances: Sequence[Instance]) -> tuple[tuple[str, str], ...]:
    return tuple((instance.name, instance.status.value) for instance in instances)


def _remarks(
    instances: Iterable[Instance], rule: Rule | None, registered: Collection[str], now: int
) -> Iterator[tuple[str, str]]:
    for instance in instances:
        if instance.status is Status.FAILED and instance.error:
            error = decode(instance.error)
            retries = f" after {_times(instance.retries, 'retry', 'retries')}" if instance.retries else ""
            yield instance.name, f"failed{retries} with {error.get('type')}: {error.get('message')}"
        elif _was_late(instance):
            missed = missed_in(instance.history)
            deadline = f"its deadline of {moment(missed)}" if missed else "its deadline"
            yield instance.name, f"was abandoned because it missed {deadline}"
        elif instance.status is Status.SCHEDULED and instance.given_back and rule is not None:
            yield instance.name, _unrunnable(instance, rule, registered)
        elif instance.status is Status.SCHEDULED and instance.run_at <= now:
            yield instance.name, "is due and waits for a worker"
        elif instance.status is Status.SCHEDULED:
            yield instance.name, f"is scheduled to run at {to_datetime(instance.run_at).isoformat()}"
        elif instance.status is Status.RUNNING:
            yield instance.name, f"is running on worker {instance.owner}, attempt {instance.attempt}"


def _was_late(instance: Instance) -> bool:
    """Return whether an instance was abandoned because it missed its deadline."""
    return instance.status is Status.ABANDONED and instance.history.endswith(f" {MISSED_IT}\n")


def _times(count: int, one: str, many: str) -> str:
    return f"{count} {one if count == 1 else many}"


def _unrunnable(instance: Instance, rule: Rule, registered: Collection[str]) -> str:
    times = "once" if instance.given_back == 1 else f"{instance.given_back} times"
    return (
        f"is waiting for a worker that has the task `{rule.run}`. Workers without it returned it {times}"
        + ("" if rule.run in registered else did_you_mean(rule.run, list(registered)))
    )


def _sentence(  # noqa: PLR0917 - the parts of one sentence, in their order
    task: str,
    rule: Rule | None,
    counts: Mapping[str, int],
    waiting: Sequence[Waiting],
    vetoed: Mapping[str, tuple[str, ...]],
    waits_for: Sequence[str],
    remarks: Mapping[str, str],
) -> str:
    parts = []
    if rule is None:
        parts.append(f"{task} is not configured in this session")
    if counts:
        parts.append(f"{task} has {_counted(counts)}")
    elif rule is not None:
        parts.append(f"{task} has no instance yet")
    parts += [wait.sentence() for wait in waiting]
    parts += [f"{name} was abandoned {_because(vetoes)}" for name, vetoes in vetoed.items()]
    parts += [f"{name} {remark}" for name, remark in remarks.items()]
    if waits_for:
        action = "Replay or skip" if rule else "Skip"  # only an instance of a configured task can be replayed
        parts.append(f"{action} {_listed(waits_for)} to continue")
    return " ".join(part if part.endswith((".", "?")) else f"{part}." for part in parts)


def _counted(counts: Mapping[str, int]) -> str:
    total = sum(counts.values())
    noun = "instance" if total == 1 else "instances"
    if len(counts) == 1:
        return f"{total} {next(iter(counts))} {noun}"
    return f"{total} {noun}: {_listed([f'{count} {status}' for status, count in counts.items()])}"


def _because(vetoes: Sequence[str]) -> str:
    return f"because {_listed(vetoes)} fired" if vetoes else "by hand"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
