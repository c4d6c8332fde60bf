"""The command that brings sessions over from version 2."""

from __future__ import annotations

from collections import Counter
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import click

from triggers.cli import documents, render
from triggers.cli.options import Target, common, pass_where
from triggers.cli.write import manager_option
from triggers.exceptions import PluginError
from triggers.plugins import missing

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggers.version2.cache import Version2Cache
    from triggers.version2.importer import Outcome


@dataclass(slots=True)
class _Report:
    """What became of the sessions.

    Attributes:
        counts: result → number of sessions.
        refused: the sessions that were refused.
        renamed: (path, new name) of a custom key → number of sessions.
    """

    counts: Counter[str] = field(default_factory=Counter)
    refused: list[Outcome] = field(default_factory=list)
    renamed: Counter[tuple[str, str]] = field(default_factory=Counter)

    def add(self, outcome: Outcome) -> None:
        self.counts[outcome.result] += 1
        self.renamed.update(outcome.renamed)
        if outcome.result == "refused":
            self.refused.append(outcome)


@click.command("import-v2")
@click.option("--redis", metavar="URL", required=True, help="The Redis server of version 2's cache.")
@click.option("--prefix", default="", help="The KEY_PREFIX of that cache in Django's settings.")
@click.option("--dry-run", is_flag=True, help="Check every session, and store nothing.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Import at most this many sessions.")
@manager_option
@common
@click.pass_context
@pass_where
def import_v2(
    where: Target,
    /,
    context: click.Context,
    redis: str,
    prefix: str,
    limit: int | None,
    *,
    dry_run: bool,
    manager: str | None,
) -> None:
    """Import the sessions that version 2 has in its cache.

    Stop the workers of version 2 first. The command can be interrupted and repeated: each session is stored
    as a whole, and one that is there already stays as it is. The exit code is 1 if a session was refused.
    """
    report = _Report()
    with closing(_cache(redis, prefix)) as cache, where.opened(creating=True, manager=manager) as app:
        from triggers.version2.importer import import_all  # noqa: PLC0415 - only this command needs it

        with render.progress(quiet=where.json) as bar:
            job = bar.add_task("importing sessions", total=None, left="")
            for outcome in import_all(app, cache, limit=limit, dry_run=dry_run):
                report.add(outcome)
                bar.update(job, left=f"{report.counts.total():,}")
    if where.json:
        documents.emit(_document(report, dry_run=dry_run))
    else:
        render.say(*_lines(report, cache.pattern.decode(), dry_run=dry_run))
    context.exit(int(bool(report.refused)))


def _cache(url: str, prefix: str) -> Version2Cache:
    try:
        from triggers.version2.cache import Version2Cache  # noqa: PLC0415 - it needs an extra
    except ModuleNotFoundError as error:
        raise PluginError(missing("import-v2", error.name or str(error))) from error
    return Version2Cache(url, prefix)


def _document(report: _Report, *, dry_run: bool) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "imported": report.counts["imported"],
        "present": report.counts["present"],
        "refused": [
            {
                "uid": outcome.uid,
                "key": outcome.key,
                "problems": [{"path": path or "$", "message": message} for path, message in outcome.problems],
            }
            for outcome in report.refused
        ],
        "renamed": [
            {"path": path, "name": name, "sessions": count}
            for (path, name), count in sorted(report.renamed.items())
        ],
    }


def _lines(report: _Report, pattern: str, *, dry_run: bool) -> Iterator[str]:
    for outcome in report.refused:
        for path, message in outcome.problems:
            yield render.visible(f"refused {outcome.uid}: {path or '$'}: {message}")
    for (path, name), count in sorted(report.renamed.items()):
        yield render.visible(f"renamed {path} to {name} in {render.plural(count, 'session')}")
    if not report.counts:
        yield render.visible(f"no key matches {pattern}; is --prefix the KEY_PREFIX of the cache?")
    did = "would import" if dry_run else "imported"
    counts = report.counts
    yield (
        f"{did} {render.plural(counts['imported'], 'session')}; "
        f"{counts['present']:,} were there already, {counts['refused']:,} were refused"
    )


COMMANDS: Final = (import_v2,)
