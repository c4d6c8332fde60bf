"""The commands about timers: timers and cancel-timer. `triggers fire --after` sets one."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING, Final

import click

from triggers.cli import documents, render
from triggers.cli.options import Target, changing, common, existing, pass_where, wait
from triggers.cli.read import cut, limit_option
from triggers.core.similar_names import did_you_mean
from triggers.timers import timers_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from triggers.timers import Timer

#: How many names of timers are looked at to find the one that was meant.
LOOKED_AT: Final = 1_000


@click.command()
@click.argument("uid")
@limit_option(50)
@common
@pass_where
def timers(where: Target, uid: str, limit: int) -> None:
    """List the timers of a session, those that are due first.

    A timer fires a trigger, ends the delay of an instance, or is the deadline of an instance.
    """
    with where.opened() as app:
        existing(app, uid)
        found = timers_of(app.storage.reader, uid)
        if where.json:
            for timer in islice(found, limit or None):
                documents.emit(documents.timer_document(timer))
            return
        shown, more = cut(found, limit)
        if shown:
            render.console().print(render.timers_table(shown))
        else:
            render.say("The session has no timers.")
        if more:
            render.say("There are more timers: --limit 0 shows all.")


@click.command("cancel-timer")
@click.argument("uid")
@click.argument("name")
@common
@pass_where
@click.pass_context
def cancel_timer(context: click.Context, where: Target, uid: str, name: str) -> None:
    """Cancel the timer with this NAME.

    A timer of an instance has no name. It is removed when the instance no longer needs it.
    """
    with changing(where, uid) as (app, manager):
        canceled = manager.cancel_timer(name)
        hint = "" if canceled else _hint(name, manager.timers())
        wait(where, app)
    if where.json:
        documents.emit({"uid": uid, "timer": name, "canceled": canceled})
    elif canceled:
        render.say(f"{render.visible(name)} was canceled")
    else:
        render.say(f"{render.visible(uid)} has no timer {render.visible(name)}{render.visible(hint)}")
    context.exit(0 if canceled else 1)


def _hint(name: str, found: Iterable[Timer]) -> str:
    names = [timer.name for timer in islice(found, LOOKED_AT) if timer.name]
    return did_you_mean(name, names)


COMMANDS: Final = (timers, cancel_timer)
