"""Output for people: as wide as the terminal, colored only on a terminal, with control characters escaped.

rich is imported only by the functions that use it: it takes long, and completion in a shell does not need it.
"""

from __future__ import annotations

import json
import sys
from functools import cache
from itertools import chain, groupby, repeat
from operator import itemgetter
from typing import TYPE_CHECKING, Any, Final

from triggers.cli.documents import error_of, parent_of, tagged
from triggers.core.names import visible as visible  # noqa: PLC0414 - the commands find it here
from triggers.core.status import Status
from triggers.core.timing import missed_in
from triggers.core.timing_in_words import EVENTS, moment
from triggers.core.values import to_datetime
from triggers.session import level_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

    from triggers.core.rules import Rule
    from triggers.core.state import Instance, Session
    from triggers.session import TaskInstance
    from triggers.timers import Timer

#: Characters of a value that are shown; --json shows all of it.
LONGEST: Final = 300

STYLES: Final = {
    Status.FAILED: "bold red",
    Status.RUNNING: "cyan",
    Status.SCHEDULED: "blue",
    Status.UNSTARTED: "yellow",
    Status.FINISHED: "green",
}

#: Lowest level → its style, the highest first.
_LEVEL_STYLES: Final = ((40, "bold red"), (30, "yellow"), (0, ""))


@cache
def _console_class() -> type[Console]:
    from rich.console import Console  # noqa: PLC0415 - as the module says

    class OurConsole(Console):
        """A console that leaves it to the program how to end when the reader of its output has ended."""

        def on_broken_pipe(self) -> None:
            """Raise the error for which the program has an exit code."""
            raise BrokenPipeError

    return OurConsole


def console(*, err: bool = False) -> Console:
    """Return a console on standard output, or on standard error, that never takes text for markup."""
    file = sys.stderr if err else sys.stdout
    return _console_class()(file=file, markup=False, emoji=False, highlight=False)


def say(*lines: str | Text) -> None:
    """Print lines; the caller has escaped all texts of the application with :func:`visible`."""
    out = console()
    for line in lines:
        out.print(line, soft_wrap=True)


def progress(*, quiet: bool) -> Progress:
    """Return a progress bar on standard error, which is erased at its end.

    Nothing is shown if `quiet`, or if standard error is not a terminal.
    """
    from rich.progress import BarColumn, Progress, SpinnerColumn, TextColumn  # noqa: PLC0415 - as the module says

    shown = console(err=True)
    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[left]}"),
    )
    return Progress(*columns, console=shown, transient=True, disable=quiet or not shown.is_terminal)


# -- words ----------------------------------------------------------------------------------------------


def listed(words: Iterable[str]) -> str:
    """Return the words, escaped and separated by commas."""
    return ", ".join(visible(word) for word in words)


def plural(count: int, noun: str) -> str:
    """Return a count with its noun, such as ``1 firing`` or ``1,200 firings``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def when(at: int) -> str:
    """Format a time in UTC, to the second; return an empty string if there is none (0)."""
    return to_datetime(at).strftime("%Y-%m-%d %H:%M:%S") if at else ""


def value(anything: Any) -> str:
    """Return a value in one line, cut after 300 characters."""
    plain = tagged(anything)
    text = visible(plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text) - LONGEST:,} more characters)"


def pairs(mapping: Mapping[str, Any]) -> str:
    """Return a mapping as ``key=value key=value``."""
    return " ".join(f"{value(key)}={value(item)}" for key, item in mapping.items())


def status_text(status: Status) -> Text:
    """Return a status in its color on terminals."""
    from rich.text import Text  # noqa: PLC0415 - as the module says

    return Text(status.value, STYLES.get(status, "dim"))


def level_text(number: int, *, unresolved: int = 0) -> Text:
    """Return a level in its color, with a star if a record at `unresolved` needs a review."""
    from rich.text import Text  # noqa: PLC0415 - as the module says

    if not number:
        return Text()
    style = next(style for least, style in _LEVEL_STYLES if number >= least)
    return Text(level_name(number) + "*"[: bool(unresolved)], style)


def waiting(rule: Rule, lacks: Sequence[str]) -> str:
    """Return the triggers that are missing, with the condition if not all of them are needed."""
    needs = f" (needs {visible(rule.after.sentence())})" if isinstance(rule.after.to_json(), dict) else ""
    return f"waits for {listed(lacks)}{needs}"


def why(instance: Instance, rules: Mapping[str, Rule], now: int) -> str:
    """Return the reason for the status of an instance; empty if the status says it all."""
    parent = parent_of(instance)
    tell = _REASONS.get(instance.status)
    reason = tell(instance, rules.get(instance.task), now) if tell else ""
    return "; ".join(filter(None, (reason, f"replays {visible(parent)}" if parent else "")))


def _unstarted(instance: Instance, rule: Rule | None, _now: int) -> str:
    if rule is None:
        return "its task is no longer configured"
    lacks = rule.after.lacking(instance.taken)
    return waiting(rule, lacks) if lacks or rule.delay is None else "its delay has not ended"


def _scheduled(instance: Instance, _rule: Rule | None, now: int) -> str:
    if instance.given_back:
        return f"no worker has its task; workers returned it {plural(instance.given_back, 'time')}"
    return f"due at {when(instance.run_at)} UTC" if instance.run_at > now else "due; waits for a worker"


def _running(instance: Instance, _rule: Rule | None, now: int) -> str:
    owner = visible(instance.owner)
    if (instance.lease_until or 0) < now:
        return f"its worker {owner} was lost; the next sweep recovers it"
    return f"run by {owner}"


def _failed(instance: Instance, _rule: Rule | None, _now: int) -> str:
    error = error_of(instance)
    return f"{error.get('type')}: {value(str(error.get('message') or ''))}" if error else "failed by hand"


def _abandoned(instance: Instance, _rule: Rule | None, _now: int) -> str:
    if instance.vetoes:
        return f"stopped by {listed(instance.vetoes)}"
    late = missed_in(instance.history)
    return f"missed its deadline of {moment(late)}" if late else ""


_REASONS: Final = {
    Status.UNSTARTED: _unstarted,
    Status.SCHEDULED: _scheduled,
    Status.RUNNING: _running,
    Status.FAILED: _failed,
    Status.ABANDONED: _abandoned,
}


# -- tables ---------------------------------------------------------------------------------------------


def table(*columns: str, right: Sequence[str] = (), folding: Sequence[str] = ()) -> Table:
    """Return an empty table.

    Args:
        columns: the headers.
        right: the columns of numbers, which are aligned to the right.
        folding: the columns whose cells continue on the next line if the terminal is too narrow.
    """
    from rich import box  # noqa: PLC0415 - as the module says
    from rich.table import Table  # noqa: PLC0415 - as the module says

    made = Table(
        box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold", show_edge=False
    )
    for column in columns:
        made.add_column(
            column,
            justify="right" if column in right else "left",
            overflow="fold",
            no_wrap=column not in folding,
        )
    return made


def sessions_table(heads: Iterable[Session]) -> Table:
    """Return a table with a row for each session."""
    made = table(
        "session",
        "open tasks",
        "firings",
        "manager",
        "changed (UTC)",
        right=["firings"],
        folding=["session", "manager"],
    )
    for head in heads:
        cells = (
            visible(head.uid),
            openness(head),
            f"{head.firings:,}",
            visible(head.manager),
            when(head.modified_at),
        )
        made.add_row(*cells)
    return made


def openness(head: Session) -> str:
    """Return how many tasks of the session still have something to do, or that it is finalized."""
    if head.finalized is not None:
        return "finalized"
    return f"{head.pending:,} of {len(head.rules.rules):,}" if head.rules.rules else "no tasks"


def timers_table(timers: Iterable[Timer]) -> Table:
    """Return a table with a row for each timer: when it is due, what it does then, and its name."""
    made = table("at (UTC)", "what happens", "name", folding=["what happens", "name"])
    for timer in timers:
        problem = f"; put aside: {visible(timer.problem)}" if timer.problem else ""
        made.add_row(f"{timer.at:%Y-%m-%d %H:%M:%S}", _happens(timer) + problem, visible(timer.name or ""))
    return made


def _happens(timer: Timer) -> str:
    if timer.kind == "fires":
        kwargs = f" {pairs(timer.kwargs)}" if timer.kwargs else ""
        return f"fires {visible(timer.trigger or '')}{kwargs}"
    return f"{visible(timer.instance or '')} {EVENTS[timer.kind]}"


def instances_table(instances: Iterable[Instance], rules: Mapping[str, Rule], now: int) -> Table:
    """Return a table with a row for each instance: status, attempts, log level and reason."""
    made = table(
        "instance", "status", "attempts", "log", "reason", right=["attempts"], folding=["instance", "reason"]
    )
    for instance in instances:
        made.add_row(
            visible(instance.name),
            status_text(instance.status),
            str(instance.attempt),
            level_text(instance.log_level, unresolved=instance.unreviewed_level),
            why(instance, rules, now),
        )
    return made


def bare_table(bare: Iterable[tuple[Rule, tuple[str, ...]]]) -> Table:
    """Return a table of the tasks that have no instance, with what each waits for."""
    made = table("task without instance", "reason", folding=["task without instance", "reason"])
    for rule, lacks in bare:
        reason = (
            waiting(rule, lacks)
            if lacks
            else "was configured after its triggers had fired; starts at the next one"
        )
        made.add_row(visible(rule.task), reason)
    return made


def details(instance: TaskInstance, rules: Mapping[str, Rule], now: int) -> Table:
    """Return a table of one instance without its error; the first of several rows of a kind has the label."""
    from rich.table import Table  # noqa: PLC0415 - as the module says

    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for label, group in groupby(_details(instance, rules, now), key=itemgetter(0)):
        for shown, (_, text) in zip(chain([label], repeat("")), group, strict=False):
            made.add_row(shown, text)
    return made


def _details(instance: TaskInstance, rules: Mapping[str, Rule], now: int) -> Iterator[tuple[str, str | Text]]:
    stored = instance.stored
    rule = rules.get(stored.task)
    yield "status", status_text(stored.status)
    if reason := why(stored, rules, now):
        yield "reason", reason
    yield "run", visible(rule.run) if rule else "the task is no longer configured"
    yield "attempts", _attempts(stored)
    for trigger, kwargs in instance.kwargs.items():
        yield "kwargs", f"{visible(trigger)}: {value(kwargs)}"
    if instance.result is not None:
        yield "result", value(dict(instance.result))
    if stored.metadata != "{}":
        yield "metadata", visible(stored.metadata)
    yield "log", _log(stored)
    for review in instance.log_reviews:
        yield "reviews", _review(review)
    for at, status, remark in instance.history:
        time = at.isoformat(" ", "milliseconds").removesuffix("+00:00")
        yield "history", f"{time} {status:9} {visible(remark)}".rstrip()


def _attempts(stored: Instance) -> str:
    lost = f", {stored.crashes} lost" if stored.crashes else ""
    return f"{stored.attempt}{lost}" + (f", after {plural(stored.depth, 'replay')}" if stored.depth else "")


def _log(stored: Instance) -> str:
    if not stored.log_counts:
        return "no records"
    counts = ", ".join(
        f"{count:,} {level_name(number)}" for number, count in sorted(stored.log_counts.items())
    )
    dropped = f", {stored.log_dropped:,} of them not stored" if stored.log_dropped else ""
    return counts + dropped + ("; needs a review" if stored.unreviewed_level else "")


def _review(review: Mapping[str, Any]) -> str:
    by = f" by {visible(str(review['by']))}" if review.get("by") else ""
    reason = f": {visible(str(review['reason']))}" if review.get("reason") else ""
    return f"{review['at']:%Y-%m-%d %H:%M:%S}{by}, {reviewed(review)}{reason}"


def reviewed(review: Mapping[str, Any]) -> str:
    """Return what a review covered, or that it was reopened."""
    if review.get("outcome") == "reopened":
        return "reopened"
    numbers = review.get("records")
    if numbers is None:
        return f"reviewed through record {review['through']}"
    return f"reviewed in {'record' if len(numbers) == 1 else 'records'} {value(numbers).strip('[]')}"
