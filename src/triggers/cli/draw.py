"""The command that draws rules and sessions."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any, Final

import click

from triggers.cli.options import Target, common, existing, pass_where
from triggers.cli.values import NotJsonError, parse
from triggers.exceptions import ConfigurationError, ManagerMismatchError

if TYPE_CHECKING:
    from typing import IO

    from triggers.app import Triggers
    from triggers.graph import Graph
    from triggers.manager import TriggerManager

#: The formats of a drawing.
FORMATS: Final = ("mermaid", "svg")


@click.command()
@click.argument("uid", required=False)
@click.option("--config", type=click.File("rb"), help="Draw this JSON file of rules; - is standard input.")
@click.option("--task", help="Only this task, and what is next to it.")
@click.option("--format", "form", type=click.Choice(FORMATS), help="The format.  [default: mermaid]")
@click.option(
    "--output",
    type=click.File("wb", lazy=True),
    help="Write to this file instead of standard output.",
)
@common
@pass_where
def graph(
    where: Target,
    /,
    uid: str | None,
    config: IO[bytes] | None,
    *,
    task: str | None,
    form: str | None,
    output: IO[bytes] | None,
) -> None:
    """Draw the rules of a session, and what has happened in it.

    With --config, only rules are drawn, and no session is opened.
    """
    if (uid is None) == (config is None):
        message = "say what to draw: the UID of a session, or --config FILE, but not both"
        raise click.UsageError(message)
    if where.json and form:
        message = "--json and --format exclude each other: --json prints the nodes and edges"
        raise click.UsageError(message)
    found = _of_rules(where, config) if config is not None else _of_session(where, uid or "")
    if task is not None:
        found = found.around(task)
    text = json.dumps(_document(found)) + "\n" if where.json else _drawn(found, form or FORMATS[0])
    click.echo(text.encode(), file=output, nl=False)


def _of_rules(where: Target, config: IO[bytes]) -> Graph:
    from triggers.graph import rules_graph  # noqa: PLC0415 - only this command needs it

    try:
        read = parse(config.read())
    except NotJsonError as error:
        raise ConfigurationError([("$", str(error))]) from None
    if not where.names_app:
        return rules_graph(read)
    with where.opened() as app:
        return rules_graph(app.check(read), finalize_trigger=app.session("graph").finalize_trigger)


def _of_session(where: Target, uid: str) -> Graph:
    from triggers.graph import session_graph  # noqa: PLC0415 - only this command needs it

    with where.opened() as app:
        existing(app, uid)
        return session_graph(_manager(app, uid))


def _manager(app: Triggers, uid: str) -> TriggerManager:
    """Return the manager that the session belongs to, or one that can read it if this process lacks that."""
    try:
        return app.existing_session(uid)
    except ManagerMismatchError:
        return app.session(uid)


def _drawn(found: Graph, form: str) -> str:
    from triggers.graph import to_mermaid, to_svg  # noqa: PLC0415 - only this command needs it

    return to_svg(found) if form == "svg" else to_mermaid(found)


def _document(found: Graph) -> dict[str, Any]:
    return {
        "title": found.title or None,
        "nodes": [{**asdict(node), "run": node.run or None} for node in found.nodes],
        "edges": [{**asdict(edge), "outcome": edge.outcome or None} for edge in found.edges],
    }


COMMANDS: Final = (graph,)
