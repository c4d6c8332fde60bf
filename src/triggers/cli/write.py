"""The commands that change a session. Each calls one method of the session's own manager."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import click

from triggers.cli import documents, render
from triggers.cli.options import Target, changing, common, instance_of, own_manager, pass_where, wait
from triggers.cli.values import (
    NotJsonError,
    json_object,
    kwargs_of,
    kwargs_options,
    moment,
    pair,
    parse,
    pause,
)
from triggers.core.similar_names import did_you_mean
from triggers.core.status import Status
from triggers.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from datetime import datetime, timedelta
    from typing import IO

    from triggers.app import Triggers
    from triggers.manager import FireResult, TriggerManager
    from triggers.previews import Preview
    from triggers.session import SessionView

manager_option = click.option(
    "--manager", metavar="NAME", help="The manager of a new session; needs --storage."
)

dry_run_option = click.option(
    "--dry-run", is_flag=True, help="Change nothing; print what would happen if it was done now."
)


def _show(where: Target, preview: Preview) -> None:
    """Print what would happen."""
    if where.json:
        documents.emit({"dry_run": True, **preview.to_json()})
    else:
        render.say(*(render.visible(line) for line in str(preview).splitlines()), "nothing was changed")


@click.command()
@click.argument("uid")
@click.argument("config", type=click.File("rb"))
@click.option("--catch-up", is_flag=True, help="New tasks see the firings of the past.")
@dry_run_option
@manager_option
@common
@pass_where
def configure(
    where: Target, uid: str, config: IO[bytes], *, catch_up: bool, dry_run: bool, manager: str | None
) -> None:
    """Replace the configuration of a session.

    CONFIG is a JSON file; - is standard input.
    """
    try:
        read = parse(config.read())
    except NotJsonError as error:
        raise ConfigurationError([("$", str(error))]) from None
    with where.opened(creating=not dry_run, manager=manager) as app:
        controller = own_manager(app, uid, manager)
        if dry_run:
            _show(where, controller.preview.replace_configuration(read, catch_up=catch_up))
            return
        controller.replace_configuration(read, catch_up=catch_up)
        wait(where, app)
    if where.json:
        documents.emit({"uid": uid, "tasks": len(read)})
    else:
        render.say(f"{render.visible(uid)} has {render.plural(len(read), 'task')}")


@click.command()
@click.argument("uid")
@click.argument("trigger")
@kwargs_options
@click.option(
    "-p",
    "pairs",
    type=pair,
    metavar="KEY=VALUE",
    multiple=True,
    help="One of the kwargs; JSON, or else text.",
)
@click.option("--key", help="Idempotency key: firing again with it changes nothing.")
@dry_run_option
@click.option(
    "--after", type=pause, metavar="DURATION", help="Fire so much later, such as P3D, PT1H30M, 3d or 90m."
)
@click.option("--at", type=moment, metavar="TIME", help="Fire at this time, such as 2030-01-31T12:00:00Z.")
@click.option("--name", help="The name of the timer; needs --after or --at. It replaces one with this name.")
@manager_option
@common
@pass_where
def fire(
    where: Target,
    uid: str,
    trigger: str,
    *,
    kwargs: dict[str, Any] | None,
    kwargs_file: IO[bytes] | None,
    pairs: tuple[tuple[str, Any], ...],
    key: str | None,
    dry_run: bool,
    after: timedelta | None,
    at: datetime | None,
    name: str | None,
    manager: str | None,
) -> None:
    """Fire a TRIGGER in a session, now or later.

    A session that does not exist is created. With --after or --at, a timer is set, which fires the trigger.
    """
    payload = {**(kwargs_of(kwargs, kwargs_file) or {}), **dict(pairs)}
    is_later = _is_later(after, at, name)
    if is_later and dry_run:
        message = "--dry-run tries a firing now, so it excludes --after and --at"
        raise click.UsageError(message)
    with where.opened(creating=not dry_run, manager=manager) as app:
        controller = own_manager(app, uid, manager)
        if dry_run:
            _show(where, controller.preview.fire(trigger, payload, key=key))
            return
        fresh = not controller.storage.exists
        if is_later:
            timer = controller.fire_later(trigger, payload, after=after, at=at, name=name, key=key)
            _show_timer(where, app, controller, trigger, timer, fresh=fresh)
            return
        result = controller.fire(trigger, payload, key=key)
        wait(where, app)
        if where.json:
            documents.emit(_fire_document(uid, trigger, result, fresh=fresh))
        else:
            render.say(*_fire_lines(controller, trigger, result, fresh=fresh))


def _is_later(after: timedelta | None, at: datetime | None, name: str | None) -> bool:
    if after is not None and at is not None:
        message = "--after and --at exclude each other"
        raise click.UsageError(message)
    is_later = after is not None or at is not None
    if name is not None and not is_later:
        message = "--name is the name of a timer: it needs --after or --at"
        raise click.UsageError(message)
    return is_later


def _show_timer(
    where: Target, app: Triggers, controller: TriggerManager, trigger: str, name: str, *, fresh: bool
) -> None:
    uid = controller.uid
    found = app.storage.reader.timers(uid, names=[name])
    at = found[0].at if found else None
    wait(where, app)
    if where.json:
        document = {"uid": uid, "trigger": trigger, "timer": name, "at": documents.moment(at)}
        documents.emit({**document, "new_session": fresh})
        return
    when = f"fires at {render.when(at)} UTC" if at else "has fired"
    render.say(f"{render.visible(trigger)} {when} (timer {render.visible(name)})")
    if fresh:
        render.say(_created(controller))


def _created(controller: TriggerManager) -> str:
    return f"created the session, with the manager {render.visible(controller.name)}"


def _fire_document(uid: str, trigger: str, result: FireResult, *, fresh: bool) -> dict[str, Any]:
    return {
        "uid": uid,
        "trigger": trigger,
        "number": result.number,
        "duplicate": result.duplicate,
        "created": list(result.created),
        "scheduled": list(result.scheduled),
        "abandoned": list(result.abandoned),
        "finalized": result.finalized,
        "listeners": list(result.listeners),
        "new_session": fresh,
    }


def _fire_lines(
    controller: TriggerManager, trigger: str, result: FireResult, *, fresh: bool
) -> Iterator[str]:
    name = render.visible(trigger)
    if result.duplicate:
        yield f"{name} was fired with this key before (firing {result.number}); nothing was changed"
        return
    yield f"{name} was fired (firing {result.number})"
    view = controller.storage
    if fresh:
        yield _created(controller)
    if not view.tasks:
        yield "the session has no configuration yet; the firing is stored and nothing runs"
    elif not result.listeners:
        hint = did_you_mean(trigger, view.head.rules.listeners)
        yield f"no task listens to {name}{render.visible(hint)}"
    yield from (f"scheduled {line}" for line in _states(view, result.scheduled))
    others = [
        instance for instance in result.created if instance not in {*result.scheduled, *result.abandoned}
    ]
    yield from (f"created {render.visible(instance)}, which waits for more triggers" for instance in others)
    yield from (f"abandoned {render.visible(instance)}" for instance in result.abandoned)


def _states(view: SessionView, names: Iterable[str]) -> Iterator[str]:
    """Yield each instance with its present status."""
    for name in names:
        status = view[name].status
        waits = status is Status.SCHEDULED
        yield render.visible(name) + (", which waits for a worker" if waits else f" (now {status})")


@click.command()
@click.argument("uid")
@click.argument("instance")
@kwargs_options
@dry_run_option
@common
@pass_where
def replay(
    where: Target,
    uid: str,
    instance: str,
    *,
    kwargs: dict[str, Any] | None,
    kwargs_file: IO[bytes] | None,
    dry_run: bool,
) -> None:
    """Run a failed INSTANCE again, as a new instance.

    New kwargs are an object with the kwargs of each trigger. They replace all kwargs of the instance.
    """
    replacement = kwargs_of(kwargs, kwargs_file)
    if replacement is not None and not all(isinstance(value, dict) for value in replacement.values()):
        message = 'a replay needs an object with the kwargs of each trigger: {"pageReceived": {"page": 3}}'
        raise click.UsageError(message)
    with changing(where, uid) as (app, manager):
        instance_of(app, manager.storage, instance)
        if dry_run:
            _show(where, manager.preview.replay(instance, replacement))
            return
        new = manager.replay_failed_instance(instance, replacement)
        wait(where, app)
        if where.json:
            status = new.status.value
            documents.emit({"uid": uid, "replayed": instance, "instance": new.name, "status": status})
        else:
            states = ", ".join(_states(manager.storage, [new.name]))
            render.say(f"{render.visible(instance)} was replayed as {states}")


@click.command()
@click.argument("uid")
@click.argument("instance")
@click.option("--cascade", is_flag=True, help="Fire its task, so that the tasks that wait for it continue.")
@click.option(
    "--result",
    type=json_object,
    metavar="JSON",
    help="The result of the task; needs --cascade.",
)
@dry_run_option
@common
@pass_where
def skip(
    where: Target, uid: str, instance: str, *, cascade: bool, result: dict[str, Any] | None, dry_run: bool
) -> None:
    """Skip a failed INSTANCE.

    It is resolved without running again.
    """
    if result is not None and not cascade:
        message = "--result needs --cascade: without it, nothing receives the result"
        raise click.UsageError(message)
    with changing(where, uid) as (app, manager):
        instance_of(app, manager.storage, instance)
        if dry_run:
            _show(where, manager.preview.skip(instance, cascade, result))
            return
        skipped = manager.skip_failed_instance(instance, cascade, result)
        wait(where, app)
    if where.json:
        status = skipped.status.value
        documents.emit({"uid": uid, "instance": instance, "status": status, "cascaded": cascade})
    else:
        on = f"; {render.visible(skipped.task)} was fired" if cascade else ""
        render.say(f"{render.visible(instance)} was skipped{on}")


COMMANDS: Final = (configure, fire, replay, skip)
