"""The commands that only read."""

from __future__ import annotations

import logging
import shlex
from dataclasses import asdict
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import click

from triggers.cli import documents, render
from triggers.cli.options import Where, common, existing, pass_where
from triggers.cli.values import NotJsonError, parse
from triggers.core.configuration import check_configuration, json_schema
from triggers.core.status import RESOLVED, Status
from triggers.exceptions import ConfigurationError, UnknownInstanceError
from triggers.session import TaskInstance

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO

    from triggers.core.explain import Explanation
    from triggers.core.state import Instance, Session
    from triggers.session import SessionView
    from triggers.storages.base import Reader, StoredRecord

#: Rows read at a time.
PAGE: Final = 500

#: Statuses in the order in which a person looks at them.
_ORDER: Final = (Status.FAILED, Status.RUNNING, Status.SCHEDULED, Status.UNSTARTED)

limit_option = click.option(
    "--limit", type=click.IntRange(0), default=50, show_default=True, help="How many at most; 0 is all."
)


@click.command()
@limit_option
@click.option("--after", default="", metavar="UID", help="Go on behind this one.")
@common
@pass_where
def sessions(where: Where, limit: int, after: str) -> None:
    """List sessions, in the order of their UIDs."""
    with where.opened() as app:
        found = _heads(app.storage.reader, after)
        if where.json:
            for head in _first(found, limit):
                documents.emit(documents.session_document(head))
            return
        shown, more = _cut(found, limit)
        if not shown:
            render.say("no sessions")
            return
        render.console().print(render.sessions_table(shown))
        if more:
            render.say(f"there are more: triggers sessions --after {shlex.quote(shown[-1].uid)}")


def _heads(reader: Reader, after: str) -> Iterator[Session]:
    while page := reader.sessions(after, PAGE):
        yield from page
        after = page[-1].uid


def _first[T](found: Iterator[T], limit: int) -> Iterator[T]:
    return islice(found, limit or None)


@click.command()
@click.argument("uid")
@click.argument("instance", required=False)
@click.option("--task", help="Only instances of this task.")
@click.option(
    "--status", "statuses", multiple=True, type=click.Choice([status.value for status in Status]), help="Only in it."
)
@click.option("--unresolved-logs", is_flag=True, help="Only instances whose records ask for a review.")
@limit_option
@common
@pass_where
def show(  # noqa: PLR0917 - what the command line has
    where: Where,
    uid: str,
    instance: str | None,
    task: str | None,
    statuses: tuple[str, ...],
    unresolved_logs: bool,  # noqa: FBT001 - click gives it
    limit: int,
) -> None:
    """Show a session, or everything about one instance of it."""
    with where.opened() as app:
        view = existing(app, uid)
        if instance is not None:
            _show_one(where, view, instance)
            return
        wanted = [Status(status) for status in statuses] or list(Status)
        found = _instances(view, app.storage.reader, task, wanted, flagged=1 if unresolved_logs else None)
        narrowed = bool(task or statuses or unresolved_logs)
        _show_session(where, view, app.storage.reader, *_cut(found, limit), narrowed=narrowed)
