"""The commands about configurations: check and schema."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import click

from triggers.cli import documents, render
from triggers.cli.options import Target, common
from triggers.cli.values import NotJsonError, parse
from triggers.core.configuration import check_configuration, json_schema
from triggers.core.outcomes import OUTCOMES
from triggers.core.rule_warnings import rule_warnings
from triggers.core.rules import NO_RULES
from triggers.core.similar_names import similar_pairs
from triggers.exceptions import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import IO

    from triggers.core.rules import RuleSet


@click.command()
@click.argument("config", type=click.File("rb"))
@common
@click.pass_context
def check(context: click.Context, config: IO[bytes]) -> None:
    """Print every problem of a configuration, and the triggers that it expects.

    It expects the triggers that none of its tasks fires. Warnings and similar names, of which one may be a
    typo, do not make a configuration invalid.

    CONFIG is a JSON file; - is standard input.
    """
    where = context.ensure_object(Target)
    tasks = 0
    rules = NO_RULES
    external: tuple[str, ...] = ()
    problems: tuple[tuple[str, str], ...] = ()
    try:
        read = parse(config.read())
        tasks = len(read) if isinstance(read, dict) else 0
        rules, external = _check(where, read)
    except NotJsonError as error:
        problems = (("$", str(error)),)
    except ConfigurationError as error:
        problems = error.problems
    if where.json:
        similar = _similar_names(rules)
        documents.emit(documents.problems_document(tasks, problems, external, similar, rule_warnings(rules)))
    elif problems:
        render.say(*(f"{render.visible(path)}: {render.visible(message)}" for path, message in problems))
        render.say(f"{render.plural(len(problems), 'problem')} in {render.visible(config.name)}")
    else:
        render.say(f"{render.plural(tasks, 'task')}, no problems", *_expectations(rules, external))
    context.exit(int(bool(problems)))


def _check(where: Target, read: Any) -> tuple[RuleSet, tuple[str, ...]]:
    """Return the rules, and the triggers that neither they nor the application's manager fire."""
    if where.names_app:
        with where.opened() as app:
            rules, own = app.check(read), app.session("check").finalize_trigger
            return rules, tuple(name for name in rules.external if name != own)
    rules = check_configuration(read)
    return rules, rules.external


def _similar_names(rules: RuleSet) -> list[tuple[str, str]]:
    """Return the pairs of similar names of which at least one is a trigger from outside."""
    external = frozenset(rules.external)
    words = {name.rpartition(":")[2] for name in external} & OUTCOMES
    outcomes = [f"{task}:{word}" for task in rules.rules for word in sorted(words)]
    pairs = similar_pairs((*rules.rules, *rules.external, *outcomes))
    return [pair for pair in pairs if not external.isdisjoint(pair)]


def _expectations(rules: RuleSet, external: Sequence[str]) -> Iterator[str]:
    if external:
        yield f"expects these triggers from outside: {render.listed(external)}"
    for path, message in rule_warnings(rules):
        yield f"warning: {render.visible(path)}: {render.visible(message)}"
    for one, other in _similar_names(rules):
        yield f"similar names: {render.visible(one)} and {render.visible(other)}; is one of them a typo?"


@click.command()
@common
def schema() -> None:
    """Print the JSON Schema of configurations."""
    click.echo(json.dumps(json_schema(), indent=2))


COMMANDS: Final = (check, schema)
