"""The commands that only read sessions: sessions, show and explain."""

from __future__ import annotations

import shlex
from contextlib import suppress
from dataclasses import asdict
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

import click

from triggers.cli import documents, render
from triggers.cli.options import Target, common, did_you_mean, existing, instance_of, pass_where
from triggers.cli.records import exception_lines
from triggers.core.status import RESOLVED, Status
from triggers.core.values import decode
from triggers.exceptions import ManagerMismatchError, UnknownInstanceError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from triggers.app import Triggers
    from triggers.core.explain import Explanation
    from triggers.core.rules import Rule
    from triggers.core.state import Counter, Instance, Session
    from triggers.session import SessionView, TaskInstance
    from triggers.storages.base import Reader

_T = TypeVar("_T")
_Command = TypeVar("_Command", bound="Callable[..., Any]")

#: Rows that one query reads, unless the limit is lower.
PAGE: Final = 500

#: Statuses in the order in which instances are listed; those with a resolved status follow.
ORDER: Final = (Status.FAILED, Status.RUNNING, Status.SCHEDULED, Status.UNSTARTED)


def limit_option(default: int) -> Callable[[_Command], _Command]:
    """Return a decorator that gives a command ``--limit``."""
    return click.option(
        "--limit",
        type=click.IntRange(0),
        default=default,
        show_default=True,
        help="How many to print; 0 prints all.",
    )


def cut(found: Iterator[_T], limit: int) -> tuple[list[_T], bool]:
    """Return the first items, and whether more follow."""
    shown = list(islice(found, limit or None))
    return shown, bool(limit) and next(found, None) is not None


# -- sessions -------------------------------------------------------------------------------------------


@click.command()
@limit_option(50)
@click.option("--after", default="", metavar="UID", help="Begin after this session.")
@common
@pass_where
def sessions(where: Target, limit: int, after: str) -> None:
    """List sessions in the order of their UIDs."""
    with where.opened() as app:
        found = _heads(app.storage.reader, after, min(limit + 1, PAGE) if limit else PAGE)
        if where.json:
            for head in islice(found, limit or None):
                documents.emit(documents.session_document(head))
        else:
            shown, more = cut(found, limit)
            _list_sessions(shown, more=more)


def _heads(reader: Reader, after: str, page_size: int) -> Iterator[Session]:
    while page := reader.sessions(after, page_size):
        yield from page
        after = page[-1].uid


def _list_sessions(shown: list[Session], *, more: bool) -> None:
    if not shown:
        render.say("There are no sessions.")
        return
    render.console().print(render.sessions_table(shown))
    if more:
        render.say(f"There are more sessions: triggers sessions --after {shlex.quote(shown[-1].uid)}")


# -- show -----------------------------------------------------------------------------------------------


@click.command()
@click.argument("uid")
@click.argument("instance", required=False)
@click.option("--task", help="Only instances of this task.")
@click.option(
    "--status",
    "statuses",
    multiple=True,
    type=click.Choice([str(status) for status in Status]),
    metavar="STATUS",
    help=f"Only instances with this status: {', '.join(Status)}. May be given several times.",
)
@click.option("--unresolved-logs", is_flag=True, help="Only instances with records that need a review.")
@limit_option(50)
@common
@pass_where
def show(where: Target, /, uid: str, instance: str | None, limit: int, **narrow: Any) -> None:
    """Show a session, or everything about one INSTANCE."""
    with where.opened() as app:
        view = existing(app, uid)
        if instance is not None:
            _show_instance(where, view, instance_of(app, view, instance))
        else:
            _show_session(where, app.storage.reader, view, limit, narrow)


def _instances(
    reader: Reader,
    uid: str,
    limit: int,
    *,
    task: str | None,
    statuses: tuple[str, ...],
    unresolved_logs: bool,
) -> Iterator[Instance]:
    """Yield the selected instances, those that need a person first."""
    wanted = frozenset(map(Status, statuses)) or frozenset(Status)
    page_size = min(limit + 1, PAGE) if limit else PAGE
    for group in (*({status} for status in ORDER), RESOLVED):
        after = ("", -1)
        flagged = 1 if unresolved_logs else None
        while group & wanted:
            page = reader.instances(
                uid, task=task, statuses=group & wanted, flagged=flagged, after=after, limit=page_size
            )
            yield from page
            if len(page) < page_size:
                break
            after = (page[-1].task, page[-1].number)


def _without_instance(reader: Reader, head: Session) -> list[tuple[Rule, tuple[str, ...]]]:
    """Return the tasks without an instance, each with the triggers that it waits for.

    A task that was configured after its triggers had fired waits for none.
    """
    counters = reader.counters(head.uid)
    rules = [rule for task, rule in head.rules.rules.items() if task not in counters]
    fired = reader.latest(head.uid, {name for rule in rules for name in rule.after.names}) if rules else {}
    return [(rule, rule.after.lacking(fired)) for rule in rules]


def _show_session(
    where: Target, reader: Reader, view: SessionView, limit: int, narrow: dict[str, Any]
) -> None:
    head = view.head
    shown, more = cut(_instances(reader, head.uid, limit, **narrow), limit)
    bare = [] if any(narrow.values()) else _without_instance(reader, head)
    if where.json:
        documents.emit(_whole_session(head, shown, bare, more=more))
        return
    _print_head(head)
    if shown:
        render.console().print(render.instances_table(shown, head.rules.rules, head.now))
    else:
        counters = reader.counters(head.uid)
        render.say(_none_shown(view, head, counters, narrow["task"]))
    if more:
        render.say("There are more instances: --limit 0 shows all; --task and --status select some.")
    if bare:
        render.say("")
        render.console().print(render.bare_table(bare))
    if any(instance.unreviewed_level for instance in shown):
        command = f"triggers logs {shlex.quote(head.uid)} INSTANCE --unresolved"
        render.say("", f"* has records that need a review: {command}")


def _whole_session(
    head: Session, shown: list[Instance], bare: list[tuple[Rule, tuple[str, ...]]], *, more: bool
) -> dict[str, Any]:
    return {
        **documents.session_document(head),
        "instances": [documents.instance_document(instance, head.rules.rules) for instance in shown],
        "more": more,
        "tasks_without_instance": [
            {"task": rule.task, "waits_for": list(lacks), "needs": rule.after.sentence()}
            for rule, lacks in bare
        ],
    }


def _print_head(head: Session) -> None:
    facts = [_open_tasks(head), render.plural(head.firings, "firing")]
    facts += [f"manager {render.visible(head.manager)}", f"changed {render.when(head.modified_at)} UTC"]
    render.say(f"Session {render.visible(head.uid)}", ", ".join(facts))
    if head.metadata != "{}":
        render.say(f"metadata {render.pairs(decode(head.metadata))}")
    render.say("")


def _open_tasks(head: Session) -> str:
    if head.finalized is not None or not head.rules.rules:
        return render.openness(head)
    return f"{render.openness(head)} tasks open"


def _none_shown(view: SessionView, head: Session, counters: Mapping[str, Counter], task: str | None) -> str:
    """Return why no instance is listed: the options select none, or the session has none."""
    if task is not None and task not in {*head.rules.rules, *counters}:
        return render.visible(f"The session has no task {task!r}{did_you_mean(view, task)}")
    total = sum(counter.created for counter in counters.values())
    if total:
        return f"No instance matches these options; the session has {render.plural(total, 'instance')}."
    if head.rules.rules:
        return "No task has an instance yet."
    return "The session has no configuration yet, so it has no instances."


def _show_instance(where: Target, view: SessionView, instance: TaskInstance) -> None:
    rules = view.head.rules.rules
    if where.json:
        documents.emit(documents.whole_document(instance, rules))
        return
    render.say(f"{render.visible(instance.name)} of session {render.visible(view.uid)}", "")
    render.console().print(render.details(instance, rules, view.head.now))
    if instance.error:
        render.say("", *exception_lines(instance.error, traceback=True))


# -- explain --------------------------------------------------------------------------------------------


@click.command()
@click.argument("uid")
@click.argument("task")
@common
@pass_where
def explain(where: Target, uid: str, task: str) -> None:
    """Explain why a TASK has run or has not.

    TASK is the name of a task or of an instance.
    """
    with where.opened() as app:
        view = existing(app, uid)
        if "#" in task and task not in view.tasks:
            instance_of(app, view, task)
        found = view.explain(task)
        if not (found.known or found.counts):
            raise UnknownInstanceError(_unknown_task(view, task))
        unfinished = _why_not_finalized(app, view, found)
    if where.json:
        documents.emit(documents.tagged(_plain(asdict(found))))
    else:
        _print_explanation(uid, found)
        if unfinished:
            render.say(unfinished)


def _why_not_finalized(app: Triggers, view: SessionView, found: Explanation) -> str:
    """Return why the finalizing trigger has not fired yet; "" if the task does not wait for it."""
    trigger, head = None, view.head
    with suppress(ManagerMismatchError):
        trigger = app.existing_session(view.uid).finalize_trigger
    if trigger is None or not head.pending or not any(trigger in one.lacks for one in found.waiting):
        return ""
    todo = f"{render.openness(head)} tasks are open (triggers show {shlex.quote(view.uid)})"
    return f"{render.visible(trigger)} is fired when the session is complete; {todo}"


def _unknown_task(view: SessionView, task: str) -> str:
    return f"session {view.uid!r} has no task {task!r}{did_you_mean(view, task)}"


def _plain(value: Any) -> Any:
    """Return the same value with lists instead of tuples, and with times as they are printed."""
    if isinstance(value, datetime):
        return documents.moment(value)
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _print_explanation(uid: str, found: Explanation) -> None:
    render.console().print(render.visible(found.sentence))
    for name in found.waits_for:
        where = f"{shlex.quote(uid)} {shlex.quote(name)}"
        render.say(f"  triggers replay {where}", f"  triggers skip {where} --cascade")


COMMANDS: Final = (sessions, show, explain)
