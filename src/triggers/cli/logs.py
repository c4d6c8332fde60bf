"""The commands about logs: reading, following, reviewing and purging them."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NoReturn

import click

from triggers.cli import documents, render
from triggers.cli.options import Target, changing, common, existing, instance_of, pass_where, wait
from triggers.cli.read import PAGE, limit_option
from triggers.cli.records import record_lines
from triggers.cli.values import duration

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import timedelta

    from triggers import Triggers
    from triggers.manager import TriggerManager
    from triggers.session import SessionView
    from triggers.storages.base import StoredRecord


def level_number(text: str) -> int:
    """Return the number of a level that is given by name or number.

    Raises:
        click.BadParameter: it is not a level.
    """
    known = logging.getLevelNamesMapping()
    if text.upper() in known:
        return known[text.upper()]
    try:
        return int(text)
    except ValueError:
        message = f"{text!r} is not a level: use a number, or one of {', '.join(known)}"
        raise click.BadParameter(message) from None


# -- logs -----------------------------------------------------------------------------------------------


@click.command()
@click.argument("uid")
@click.argument("instance", required=False)
@click.option(
    "--level",
    "min_level",
    type=level_number,
    default="0",
    metavar="LEVEL",
    help="Only records from this level up.",
)
@click.option("--text", help="Only records whose message contains this text.")
@click.option("--unresolved", is_flag=True, help="Only records that no review covers.")
@click.option("--fingerprint", metavar="KIND", help="Only records of this kind, as `logs` prints it.")
@click.option("--traceback", is_flag=True, help="Print the traceback of each exception.")
@click.option("--latest", is_flag=True, help="The last records instead of the first ones.")
@click.option("--follow", is_flag=True, help="Begin like --latest, then print new records until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    metavar="SECONDS",
    help="How often --follow checks for new records.",
)
@limit_option(100)
@click.option("--after", type=int, default=0, metavar="CURSOR", help="Begin after this record.")
@common
@pass_where
def logs(
    where: Target,
    /,
    uid: str,
    instance: str | None,
    limit: int,
    after: int,
    *,
    traceback: bool,
    latest: bool,
    follow: bool,
    interval: float,
    **query: Any,
) -> None:
    """Print the log of a session, or of one INSTANCE.

    Each record has its context and its exception.
    """
    query["unresolved"] = query["unresolved"] or None
    show = _show_json if where.json else _show_lines(traceback=traceback)
    with where.opened() as app:
        view = existing(app, uid)
        if instance is not None:
            instance_of(app, view, instance)  # an unknown instance is an error, not an empty log
        log = _Log(view, show, {**query, "instance": instance})
        if follow:
            log.follow(log.catch_up(after) if after else log.catch_up(0, limit), interval)
        last, more = log.page(limit, after, latest=latest)
        if last is None and not where.json:
            render.say(_none_found(query, instance))
        elif last is not None and more and not where.json:
            render.say(f"There are more: --after {last.cursor}")


def _none_found(query: dict[str, Any], instance: str | None) -> str:
    """Return a sentence that says which records were not found."""
    if any(query.values()):
        return "No record matches these options."
    return f"{render.visible(instance)} has no records." if instance else "The session has no records."


def _show_json(record: StoredRecord) -> None:
    documents.emit(documents.record_document(record))


def _show_lines(*, traceback: bool) -> Callable[[StoredRecord], None]:
    return lambda record: render.say(*record_lines(record, traceback=traceback))


@dataclass(frozen=True, slots=True)
class _Log:
    """The records of a session that a command selects.

    Attributes:
        view: the session.
        show: prints a record.
        query: the filters.
    """

    view: SessionView
    show: Callable[[StoredRecord], None]
    query: dict[str, Any]

    def page(self, limit: int, after: int, *, latest: bool = False) -> tuple[StoredRecord | None, bool]:
        """Print at most `limit` records, 0 for all; return the last one, and whether more follow it."""
        found = self._latest(limit, after) if latest and limit else self._all(limit, after)
        last = None
        for last in islice(found, limit or None):
            self.show(last)
        return last, bool(limit) and next(found, None) is not None

    def _latest(self, limit: int, after: int) -> Iterator[StoredRecord]:
        return iter(self.view.logs(**self.query, after=after, limit=limit, latest=True))

    def _all(self, limit: int, after: int) -> Iterator[StoredRecord]:
        page_size = min(limit + 1, PAGE) if limit else PAGE
        while page := self.view.logs(**self.query, after=after, limit=page_size):
            yield from page
            after = page[-1].cursor

    def catch_up(self, after: int, limit: int = 0) -> int:
        """Print the records that are stored by now, at most `limit` of the latest; return the last cursor.

        The cursor also skips records that the filters leave out. It is read before the records, so that a
        record that is stored in between is never skipped.
        """
        ahead = self.view.logs(after=after, limit=1, latest=True)
        last, _ = self.page(limit, after, latest=True)
        return max([after, *(record.cursor for record in (*ahead, last) if record is not None)])

    def follow(self, seen: int, interval: float) -> NoReturn:
        """Print each new record until the process is interrupted."""
        while True:
            time.sleep(interval)
            seen = self.catch_up(seen)


# -- resolve-logs ---------------------------------------------------------------------------------------


@click.command("resolve-logs")
@click.argument("uid", required=False)
@click.argument("instance", required=False)
@click.option("--by", metavar="WHO", help="Who made the review.")
@click.option("--reason", metavar="TEXT", help="The result of the review.")
@click.option(
    "--through",
    type=click.IntRange(0),
    metavar="NUMBER",
    help="Review the records up to this one; by default, all.",
)
@click.option(
    "--record",
    "records",
    type=click.IntRange(1),
    multiple=True,
    metavar="NUMBER",
    help="Review only this record; may be given several times.",
)
@click.option("--reopen", is_flag=True, help="Take back every review of the instance.")
@click.option("--fingerprint", metavar="KIND", help="Review every record of this kind in the session.")
@click.option("--all-sessions", is_flag=True, help="With --fingerprint: review it in every session.")
@common
@pass_where
def resolve_logs(
    where: Target,
    /,
    uid: str | None,
    instance: str | None,
    fingerprint: str | None,
    *,
    all_sessions: bool,
    by: str | None,
    reason: str | None,
    **chosen: Any,
) -> None:
    """Record that a person has reviewed a log.

    Either that of an INSTANCE, or every record of a kind (--fingerprint).
    """
    audit = {"by": by, "reason": reason}
    _check_scope(uid, instance, fingerprint, all_sessions=all_sessions, **chosen)
    if fingerprint is not None and uid is None:
        with where.opened() as app:
            with render.progress(quiet=where.json) as bar:
                bar.add_task("recording reviews", total=None, left="")
                count = app.mark_logs_resolved(fingerprint, **audit)
            wait(where, app)
        _say_kind(where, None, fingerprint, count)
        return
    with changing(where, str(uid)) as (app, manager):
        if instance is not None:
            instance_of(app, manager.storage, instance)
        if fingerprint is not None:
            count = manager.mark_logs_resolved(fingerprint, **audit)
            wait(where, app)
            _say_kind(where, uid, fingerprint, count)
        else:
            _review(manager, str(instance), audit, **chosen)
            wait(where, app)
            _say_review(where, manager, str(instance))


def _check_scope(
    uid: str | None,
    instance: str | None,
    fingerprint: str | None,
    *,
    all_sessions: bool,
    through: int | None,
    records: tuple[int, ...],
    reopen: bool,
) -> None:
    """Refuse options that contradict each other."""
    ways = (through is not None) + bool(records) + reopen
    if all_sessions and (uid is not None or fingerprint is None):
        message = "--all-sessions needs --fingerprint, and excludes UID"
    elif uid is None and not all_sessions:
        message = "name the session: UID, or --all-sessions with --fingerprint"
    elif fingerprint is not None and (instance is not None or ways):
        message = (
            "--fingerprint reviews every record of the kind: omit INSTANCE, --through, --record and --reopen"
        )
    elif fingerprint is None and instance is None:
        message = "name what was reviewed: INSTANCE, or --fingerprint KIND"
    elif ways > 1:
        message = "--through, --record and --reopen exclude each other"
    else:
        return
    raise click.UsageError(message)


def _review(
    manager: TriggerManager,
    instance: str,
    audit: dict[str, str | None],
    *,
    through: int | None,
    records: tuple[int, ...],
    reopen: bool,
) -> None:
    stored = manager.storage[instance].stored
    strange = [number for number in records if number > stored.log_count]
    if strange:
        message = f"{instance} has no record {strange[0]}; its last record is {stored.log_count}"
        raise click.UsageError(message)
    if reopen:
        manager.reopen_instance_logs(instance, **audit)
    else:
        manager.mark_instance_logs_resolved(instance, **audit, through=through, records=records or None)


def _say_kind(where: Target, uid: str | None, fingerprint: str, count: int) -> None:
    if where.json:
        documents.emit({"uid": uid, "fingerprint": fingerprint, "resolved": count})
    else:
        render.say(f"reviewed {render.plural(count, 'record')} of kind {render.visible(fingerprint)}")


def _say_review(where: Target, manager: TriggerManager, instance: str) -> None:
    reviewed = manager.storage[instance]
    review, left = reviewed.log_reviews[-1], documents.level(reviewed.unresolved_log_level)
    if where.json:
        told = {key: review.get(key) for key in ("outcome", "through", "records")}
        finalized = manager.storage.finalized
        documents.emit(
            {"uid": manager.uid, "instance": instance, **told, "unresolved": left, "finalized": finalized}
        )
        return
    render.say(f"{render.visible(instance)} was {render.reviewed(review)}")
    if left:
        render.say(f"a record of level {left} still needs a review")


# -- purge ----------------------------------------------------------------------------------------------


@click.command()
@click.option(
    "--logs-older-than",
    type=duration,
    metavar="AGE",
    help="Delete older records; AGE is 30d or 12h.",
)
@click.option(
    "--contexts-older-than",
    type=duration,
    metavar="AGE",
    help="Delete older contexts; messages stay.",
)
@click.option(
    "--level",
    "max_level",
    type=level_number,
    default="CRITICAL",
    metavar="LEVEL",
    help="Only records up to this level; by default, any level.",
)
@click.option("--dry-run", is_flag=True, help="Delete nothing; print how many would be deleted.")
@common
@pass_where
def purge(
    where: Target,
    *,
    logs_older_than: timedelta | None,
    contexts_older_than: timedelta | None,
    max_level: int,
    dry_run: bool,
) -> None:
    """Delete old records of every session.

    A record that needs a review and has none is never deleted.
    """
    if logs_older_than is None and contexts_older_than is None:
        message = "name what to delete: --logs-older-than AGE, --contexts-older-than AGE, or both"
        raise click.UsageError(message)
    if None not in {logs_older_than, contexts_older_than} and contexts_older_than >= logs_older_than:  # type: ignore[operator]
        message = (
            "--contexts-older-than must be shorter than --logs-older-than: a deleted record has no context"
        )
        raise click.UsageError(message)
    with where.opened() as app:
        # The contexts first, so that a dry run, which deletes nothing, counts the same as the purge itself.
        contexts = _purge(where, app, contexts_older_than, max_level, dry_run=dry_run, contexts_only=True)
        records = _purge(where, app, logs_older_than, max_level, dry_run=dry_run, contexts_only=False)
    if where.json:
        documents.emit({"dry_run": dry_run, "contexts": contexts, "records": records})
        return
    deleted = "would delete" if dry_run else "deleted"
    if contexts is not None:
        render.say(f"{deleted} the contexts of {render.plural(contexts, 'record')}")
    if records is not None:
        render.say(f"{deleted} {render.plural(records, 'record')}")


def _purge(
    where: Target,
    app: Triggers,
    older_than: timedelta | None,
    max_level: int,
    *,
    dry_run: bool,
    contexts_only: bool,
) -> int | None:
    """Delete, or count, the records of that age; return their number, None without an age."""
    if older_than is None:
        return None
    with render.progress(quiet=where.json) as bar:
        what = "contexts" if contexts_only else "records"
        job = bar.add_task(f"{'counting' if dry_run else 'deleting'} {what}", total=None, left="")
        return app.purge_logs(
            older_than,
            max_level=max_level,
            contexts_only=contexts_only,
            dry_run=dry_run,
            progress=lambda count: bar.update(job, left=f"{count:,}"),
        )


COMMANDS: Final = (logs, resolve_logs, purge)
