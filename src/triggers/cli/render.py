"""Output for people: as wide as the terminal, in colour only on one, with nothing that could take it over.

Only the functions that draw import rich: it takes long, and completion in a shell does not need it.
"""

from __future__ import annotations

import json
import logging
import sys
import unicodedata
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from triggers.cli.documents import asks_for_review, error_of, parent_of, tagged
from triggers.core.status import Status
from triggers.core.values import to_datetime
from triggers.session import level_name

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from rich.console import Console
    from rich.progress import Progress
    from rich.table import Table
    from rich.text import Text

    from triggers.core.rules import Rule
    from triggers.core.state import Instance, Session
    from triggers.session import TaskInstance
    from triggers.storages.base import StoredRecord

_HIDDEN: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
_REVERSING: Final = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")

#: Longest value that is shown whole, in characters; --json shows all of it.
LONGEST: Final = 300

STYLES: Final = {
    Status.FAILED: "bold red",
    Status.RUNNING: "cyan",
    Status.SCHEDULED: "blue",
    Status.UNSTARTED: "yellow",
    Status.FINISHED: "green",
}

#: Behind a record's level of at least this: its style.
_LEVEL_STYLES: Final = ((40, "bold red"), (30, "yellow"), (0, ""))


@cache
def _console_class() -> type[Console]:
    from rich.console import Console  # noqa: PLC0415 - as the module says

    class OurConsole(Console):
        """Leaves it to the program how to end when nobody reads its output."""

        def on_broken_pipe(self) -> None:
            """Raise what the program ends with."""
            raise BrokenPipeError

    return OurConsole


def console(*, err: bool = False) -> Console:
    """Standard output, or standard error, which takes what it is given for text, never for markup."""
    file = sys.stderr if err else sys.stdout
    return _console_class()(file=file, markup=False, emoji=False, highlight=False)


def say(*lines: str | Text) -> None:
    """Print lines; what a program wrote is escaped by whoever put it in."""
    out = console()
    for line in lines:
        out.print(line, soft_wrap=True)


def progress(*, quiet: bool) -> Progress:
    """A bar on standard error, gone at its end; nothing where that is no terminal, or if `quiet`."""
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


def visible(text: str) -> str:
    """The text with escapes in place of characters that a terminal would obey, or that nobody could see."""
    if text.isprintable():
        return text
    return "".join(_escaped(character) for character in text)


def _escaped(character: str) -> str:
    if character not in _REVERSING and unicodedata.category(character) not in _HIDDEN:
        return character
    return character.encode("unicode_escape").decode("ascii")


def listed(words: Iterable[str]) -> str:
    """Words behind each other."""
    return ", ".join(visible(word) for word in words)


def plural(count: int, noun: str) -> str:
    """Such as ``1 firing`` or ``1,200 firings``."""
    return f"{count:,} {noun}" + ("" if count == 1 else "s")


def when(at: int) -> str:
    """A time for people, in UTC, to the second; nothing for none."""
    return to_datetime(at).strftime("%Y-%m-%d %H:%M:%S") if at else ""


def value(anything: Any) -> str:
    """A value in one line, cut if it is long."""
    plain = tagged(anything)
    text = visible(plain if isinstance(plain, str) else json.dumps(plain, ensure_ascii=False))
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}... ({len(text) - LONGEST:,} more characters)"


def pairs(mapping: Mapping[str, Any]) -> str:
    """A mapping as ``key=value key=value``."""
    return " ".join(f"{value(key)}={value(item)}" for key, item in mapping.items())


def headline(error: Mapping[str, Any]) -> str:
    """An exception in one line: type, message, context, place."""
    message = visible(str(error.get("message") or ""))
    context = f" ({pairs(error['context'])})" if error.get("context") else ""
    place = f" at {visible(error['pathname'])}:{error['lineno']}" if error.get("pathname") else ""
    return f"{error.get('type')}: {message}{context}{place}"


def status_text(status: Status) -> Text:
    """A status in its colour."""
    from rich.text import Text  # noqa: PLC0415 - as the module says

    return Text(status.value, STYLES.get(status, "dim"))


def level_text(number: int, *, unresolved: int = 0) -> Text:
    """A level in its colour; a star marks records that ask for a review."""
    from rich.text import Text  # noqa: PLC0415 - as the module says

    if not number:
        return Text()
    style = next(style for least, style in _LEVEL_STYLES if number >= least)
    return Text(level_name(number) + "*"[: bool(unresolved)], style)


def waiting(rule: Rule, lacks: Sequence[str]) -> str:
    """What lacks, and where not all of that is needed, what is."""
    needs = f" (needs {visible(rule.after.sentence())})" if isinstance(rule.after.to_json(), dict) else ""
    return f"waits for {listed(lacks)}{needs}"


def why(instance: Instance, rules: Mapping[str, Rule], now: int) -> str:
    """Why an instance is where it is."""
    parent = parent_of(instance)
    tell = _REASONS.get(instance.status)
    reason = tell(instance, rules.get(instance.task), now) if tell else ""
    return "; ".join(filter(None, (reason, f"replays {visible(parent)}" if parent else "")))


def _unstarted(instance: Instance, rule: Rule | None, _now: int) -> str:
    if rule is None:
        return "its task is no longer configured"
    return waiting(rule, rule.after.lacking(instance.taken))


def _scheduled(instance: Instance, _rule: Rule | None, now: int) -> str:
    if instance.given_back:
        return f"given back {plural(instance.given_back, 'time')} by workers that lack its task"
    return f"due at {when(instance.run_at)}" if instance.run_at > now else "due, waits for a worker"


def _running(instance: Instance, _rule: Rule | None, now: int) -> str:
    owner = visible(instance.owner)
    if (instance.lease_until or 0) < now:
        return f"has lost its worker {owner}; the next sweep rescues it"
    return f"run by {owner}"


def _failed(instance: Instance, _rule: Rule | None, _now: int) -> str:
    error = error_of(instance)
    return f"{error.get('type')}: {value(str(error.get('message') or ''))}" if error else "by hand"


def _abandoned(instance: Instance, _rule: Rule | None, _now: int) -> str:
    return f"stopped by {listed(instance.vetoes)}" if instance.vetoes else ""


_REASONS: Final = {
    Status.UNSTARTED: _unstarted,
    Status.SCHEDULED: _scheduled,
    Status.RUNNING: _running,
    Status.FAILED: _failed,
    Status.ABANDONED: _abandoned,
}


# -- tables ---------------------------------------------------------------------------------------------


def table(*columns: str, right: Sequence[str] = (), folding: Sequence[str] = ()) -> Table:
    """An empty table.

    Args:
        columns: the heads.
        right: those of numbers.
        folding: those whose cells go on in the next line where there is no room; the others keep theirs.
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
    """Sessions, one in a row."""
    made = table(
        "session",
        "open",
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
    """How many of its tasks still have something to do."""
    if head.finalized is not None:
        return "finalized"
    return f"{head.pending:,} of {len(head.rules.rules):,}" if head.rules.rules else "no tasks"


def instances_table(instances: Iterable[Instance], rules: Mapping[str, Rule], now: int) -> Table:
    """Instances, one in a row."""
    made = table("instance", "status", "tries", "log", "why", right=["tries"], folding=["instance", "why"])
    for instance in instances:
        made.add_row(
            visible(instance.name),
            status_text(instance.status),
            str(instance.attempt),
            level_text(instance.log_level, unresolved=asks_for_review(instance)),
            why(instance, rules, now),
        )
    return made


def bare_table(bare: Iterable[tuple[Rule, tuple[str, ...]]]) -> Table:
    """Tasks that have no instance, with what they wait for."""
    made = table("no instance yet", "why", folding=["no instance yet", "why"])
    for rule, lacks in bare:
        reason = waiting(rule, lacks) if lacks else "configured after all that it waits for was fired"
        made.add_row(visible(rule.task), reason)
    return made


def details(instance: TaskInstance, rules: Mapping[str, Rule], now: int) -> Table:
    """Everything about one instance that a person asks first."""
    from rich.table import Table  # noqa: PLC0415 - as the module says

    stored = instance.stored
    rule = rules.get(stored.task)
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    made.add_row("status", status_text(stored.status))
    made.add_row("because", why(stored, rules, now))
    made.add_row("runs", visible(rule.run) if rule else "its task is no longer configured")
    made.add_row("tries", _tries(stored))
    for trigger, kwargs in instance.kwargs.items():
        made.add_row("kwargs", f"{visible(trigger)}: {value(kwargs)}")
    if instance.result is not None:
        made.add_row("result", value(dict(instance.result)))
    if stored.metadata != "{}":
        made.add_row("metadata", visible(stored.metadata))
    made.add_row("log", _log(stored))
    for review in instance.log_reviews:
        made.add_row("review", _review(review))
    for at, status, remark in instance.history:
        made.add_row("history", f"{at:%Y-%m-%d %H:%M:%S.%f} {status} {visible(remark)}".rstrip())
    return made


def _tries(stored: Instance) -> str:
    lost = f", {stored.crashes} lost" if stored.crashes else ""
    return f"{stored.attempt}{lost}" + (f", behind {plural(stored.depth, 'replay')}" if stored.depth else "")


def _log(stored: Instance) -> str:
    if not stored.log_counts:
        return "nothing was said"
    counts = ", ".join(
        f"{count:,} {level_name(number)}" for number, count in sorted(stored.log_counts.items())
    )
    dropped = f", {stored.log_dropped:,} of them not kept" if stored.log_dropped else ""
    return counts + dropped + ("; asks for a review" if asks_for_review(stored) else "")


def _review(review: Mapping[str, Any]) -> str:
    by = f" by {visible(str(review['by']))}" if review.get("by") else ""
    reason = f": {visible(str(review['reason']))}" if review.get("reason") else ""
    return f"{review['at']:%Y-%m-%d %H:%M:%S}{by}, {reviewed(review)}{reason}"


def reviewed(review: Mapping[str, Any]) -> str:
    """What a review covered, or that it was taken back."""
    if review.get("outcome") == "reopened":
        return "reopened"
    numbers = review.get("records")
    if numbers is None:
        return f"reviewed through record {review['through']}"
    return f"reviewed in {'record' if len(numbers) == 1 else 'records'} {value(numbers).strip('[]')}"


# -- logs -----------------------------------------------------------------------------------------------


def record_lines(record: StoredRecord, *, traceback: bool) -> Iterable[Text]:
    """A record: a line, then its context and its exception, each line behind a margin."""
    from rich.text import Text  # noqa: PLC0415 - as the module says

    entry = record.entry
    first, *more = entry.message.split("\n")
    marks = "" if entry.counts else " (captured)"
    marks += " (reviewed)" if record.resolved and entry.counts else ""
    marks += " (late)" if entry.late else ""
    marks += f" kind {record.fingerprint}" if entry.level >= logging.WARNING and not record.resolved else ""
    line = Text(to_datetime(entry.at).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + " ", "dim")
    line.append_text(level_text(entry.level))
    line.append(f" {visible(record.task)}#{record.instance} [{record.number}] ", "bold")
    yield line.append(visible(first)).append(marks, "dim")
    yield from (Text(f"  | {visible(rest)}") for rest in more)
    if entry.context:
        yield Text(f"    {pairs(entry.context)}")
    if entry.exception:
        yield from (
            Text(f"    {line}", "red") for line in exception_lines(entry.exception, traceback=traceback)
        )


def exception_lines(error: Mapping[str, Any], *, traceback: bool) -> Iterable[str]:
    """An exception and what stands behind it, each in a line; or its whole traceback."""
    if traceback and error.get("traceback"):
        yield from (visible(line) for line in str(error["traceback"]).rstrip("\n").split("\n"))
        return
    yield headline(error)
    for note in error.get("notes") or ():
        yield f"  {visible(note)}"
    for word, behind in (
        ("caused by", error.get("cause")),
        ("while handling", error.get("context_exception")),
    ):
        if behind:
            first, *rest = exception_lines(behind, traceback=False)
            yield from (f"  {word} {first}", *(f"  {line}" for line in rest))
    for member in error.get("members") or ():
        yield from (f"  {line}" for line in exception_lines(member, traceback=False))
