"""Why a task has run, or has not: in a sentence, and as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from triggers.core.status import Status
from triggers.core.values import decode, to_datetime

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

    from triggers.core.rules import Rule
    from triggers.core.state import Instance


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why one unstarted instance, or a task without any, waits.

    Attributes:
        name: the instance, or the task.
        lacks: the triggers that could still meet its condition; none for a task that was configured after
            all that it needs had been fired, which starts as soon as any of that is fired again.
        needs: its condition in words.
        upstream: lacked trigger → the instances of the task of that name, as (name, status): those whose end
            would fire it, or, where there are none, the resolved ones, which did not. A failed one is what a
            person has to replay or skip.
    """

    name: str
    lacks: tuple[str, ...]
    needs: str
    upstream: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)

    def sentence(self) -> str:
        """It in words."""
        if not self.lacks:
            return (
                f"{self.name} was configured after what it needs had been fired ({self.needs}): "
                "it starts when any of that is fired again"
            )
        sentence = f"{self.name} waits for {_listed(self.lacks)} (it needs {self.needs})"
        for trigger, instances in self.upstream.items():
            states = ", ".join(f"{name} is {status}" for name, status in instances)
            sentence += f"; {trigger} comes from a task: {states or 'it has no instance yet'}"
        return sentence


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a task has run, or has not.

    Attributes:
        task: its name.
        known: whether it is configured.
        counts: status → how many of its instances are in it.
        waiting: why its unstarted instances wait, or it has none; the first few.
        vetoed_by: instance → the triggers of `unless` that abandoned it.
        waits_for: the failed instances, of this task or before it, that hold it up.
        remarks: instance → what else there is to say: why it failed, when it will run, who runs it.
        sentence: all of it in words.
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
    """Whether triggers are missing: an instance is unstarted, or a configured task has no instance."""
    unstarted = not instances or any(instance.status is Status.UNSTARTED for instance in instances)
    return rule is not None and unstarted


def explain(
    task: str,
    rule: Rule | None,
    instances: Sequence[Instance],
    happened: Collection[str],
    upstream: Mapping[str, Sequence[Instance]],
) -> Explanation:
    """Explain a task.

    Args:
        task: its name.
        rule: its rule, None where it is not configured.
        instances: its instances.
        happened: the triggers that it names and that have fired; only used where it has no instances.
        upstream: task that it waits for, directly or through others → that task's unresolved instances, or
            the resolved ones where there are no others; only used where it :func:`is_waiting`.
    """
    counts: dict[str, int] = {}
    for instance in instances:
        counts[instance.status.value] = counts.get(instance.status.value, 0) + 1
    waiting = tuple(_waiting(rule, instances, happened, upstream)) if rule else ()
    vetoed = {i.name: i.vetoes for i in instances if i.status is Status.ABANDONED}
    own = [i.name for i in instances if i.status is Status.FAILED]
    before = [i.name for found in upstream.values() for i in found if i.status is Status.FAILED]
    waits_for = (*own, *(before if waiting else ()))
    remarks = dict(_remarks(instances))
    sentence = _sentence(task, rule, counts, waiting, vetoed, waits_for, remarks)
    return Explanation(task, rule is not None, counts, waiting, vetoed, waits_for, remarks, sentence)


def _waiting(
    rule: Rule,
    instances: Sequence[Instance],
    happened: Collection[str],
    upstream: Mapping[str, Sequence[Instance]],
) -> list[Waiting]:
    unstarted = [i for i in instances if i.status is Status.UNSTARTED]
    if not instances:
        return [_wait(rule, rule.task, happened, upstream)]
    return [_wait(rule, instance.name, instance.taken, upstream) for instance in unstarted]


def _wait(
    rule: Rule, name: str, taken: Collection[str], upstream: Mapping[str, Sequence[Instance]]
) -> Waiting:
    lacks = rule.after.lacking(taken)
    sources = {trigger: _states(upstream[trigger]) for trigger in lacks if trigger in upstream}
    return Waiting(name, lacks, rule.after.sentence(), sources)


def _states(instances: Sequence[Instance]) -> tuple[tuple[str, str], ...]:
    return tuple((instance.name, instance.status.value) for instance in instances)


def _remarks(instances: Iterable[Instance]) -> Iterator[tuple[str, str]]:
    for instance in instances:
        if instance.status is Status.FAILED and instance.error:
            error = decode(instance.error)
            yield instance.name, f"failed with {error.get('type')}: {error.get('message')}"
        elif instance.status is Status.SCHEDULED and instance.given_back:
            yield instance.name, f"was given back by workers without its task, {instance.given_back} in all"
        elif instance.status is Status.SCHEDULED:
            yield instance.name, f"is to run at {to_datetime(instance.run_at).isoformat()}"
        elif instance.status is Status.RUNNING:
            yield instance.name, f"is run by {instance.owner}, attempt {instance.attempt}"


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
        listed = [f"{count} {status}" for status, count in counts.items()]
        parts.append(f"{task} has {_listed(listed)}")
    elif rule is not None:
        parts.append(f"{task} has no instance yet")
    parts += [wait.sentence() for wait in waiting]
    parts += [f"{name} was abandoned {_because(vetoes)}" for name, vetoes in vetoed.items()]
    parts += [f"{name} {remark}" for name, remark in remarks.items()]
    if waits_for:
        deed = "replay or skip" if rule else "skip"  # what is no longer configured cannot be replayed
        parts.append(f"{deed} {_listed(waits_for)} to go on")
    return ". ".join(part.removesuffix(".") for part in parts) + "."


def _because(vetoes: Sequence[str]) -> str:
    return f"because of {_listed(vetoes)}" if vetoes else "by hand"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), *words[-1:])))
