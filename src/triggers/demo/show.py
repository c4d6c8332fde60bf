"""Shows the survey on a terminal: a bar while it goes on, a table at the end, and how to look into it."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import sys
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from triggers.core.status import Status
from triggers.demo import main
from triggers.demo.assessment import is_plausible
from triggers.demo.locations import broker_at, storage_at
from triggers.demo.results import results_in
from triggers.demo.study import RESPONDENTS, is_embedded, is_incomplete, read_answers, uid_of
from triggers.exceptions import PluginError, StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggers.demo.locations import RunLocation
    from triggers.demo.workers import Workers

#: Where the files go unless told otherwise, below the current folder.
FOLDER = "triggers-demo"


def show(
    folder: Path | None = None,
    *,
    storage: str | None = None,
    runner: Literal["threads", "celery"] = "threads",
    broker: str = "redis",
    kill_workers: bool = False,
    seed: int = main.SEED,
    workers: int = main.WORKERS,
    respondents: int = RESPONDENTS,
    as_json: bool = False,
) -> main.DemoCounts:
    """Play the survey before somebody's eyes; see :func:`triggers.demo.main.run`.

    The last line on standard output is one JSON object with the counts. The bars go to standard error.

    Args:
        folder: gets ``results.db``, ``survey.db`` unless another storage is named, and the logs of Celery's
            workers; made if it is not there. None for ``triggers-demo``, with the names of a storage and of a
            runner that are not the usual ones, below the current folder.
        storage: see :func:`triggers.demo.locations.storage_at`.
        runner: threads of this process, or Celery's workers, which are started for that.
        broker: Celery's; see :func:`triggers.demo.locations.broker_at`.
        kill_workers: whether a random process of the workers is killed, again and again.
        seed: of everything that is made up.
        workers: threads, or processes of Celery's workers, that run tasks.
        respondents: how many of them, from the first.
        as_json: print that one line and nothing else.

    Raises:
        OtherSurveyError: the folder holds the results of another seed.
        StorageError: the folder or the storage cannot be used.
        PluginError: something is named that is not there, or not installed, or that does not go together.
        MissingServerError: this machine has no such server.
        WorkersError: Celery's workers cannot work.
    """
    folder = _made(folder or _folder(storage, runner))
    out, err = Console(quiet=as_json, highlight=False), Console(stderr=True, quiet=as_json)
    say = partial(out.print, soft_wrap=True, markup=False)
    with storage_at(storage, folder) as place:
        say(_beginning(place, respondents))
        crewed = _crew(place, runner, broker, folder, processes=workers, kill=kill_workers)
        with crewed as crew, _bars(err) as progress:
            counts = main.run(
                place.url,
                results_path=place.results,
                seed=seed,
                workers=workers,
                runner=crew.runner if crew else None,
                respondents=respondents,
                progress=crew.watched(progress) if crew else progress,
                grace=crew.grace if crew else main.GRACE,
            )
        out.print(_table(counts))
        say(_finding(place.results, counts))
    say(_ways_in(place, folder, seed, respondents))
    killed = {}
    if crew and kill_workers:
        killed = {"killed": crew.killed}
        say(f"{crew.killed} processes of the workers were killed meanwhile.")
    print(json.dumps(counts.to_json() | killed))  # noqa: T201 - the line for programs, which no terminal's width may break
    return counts


def _folder(storage: str | None, runner: str) -> Path:
    """Where the files go unless told otherwise: runs that cannot go on with one another do not meet."""
    kinds = [(storage or "sqlite").partition(":")[0], runner]
    return Path("-".join([FOLDER, *(kind for kind in kinds if kind not in {"sqlite", "threads"})]))


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{folder} cannot be made a folder: {error.strerror}"
        raise StorageError(message) from error
    return folder


def _beginning(place: RunLocation, respondents: int) -> str:
    promise = (
        "Whoever runs the tasks may be killed: the counts will be the same."
        if place.private
        else "Stop this, kill -9 it, start it again: the counts will be the same."
    )
    return (
        f"{respondents} respondents of the American National Election Study of 1996, each a session in "
        f"{place.shown}\nTheir pages arrive in any order, some twice, some never. {promise}"
    )


@contextmanager
def _crew(
    place: RunLocation, runner: str, broker: str, folder: Path, *, processes: int, kill: bool
) -> Iterator[Workers | None]:
    """Celery's workers, and logs in files; None, and only the tasks quiet, where threads run the tasks."""
    if runner == "threads":
        if kill:
            raise PluginError("there are no workers to be killed: --kill-workers goes with --runner celery")
        with _logging_to(logging.NullHandler(), "triggers.demo.tasks"):
            yield None
        return
    if place.url.startswith("memory:"):
        raise PluginError("memory:// is there for one process alone: --runner celery needs another storage")
    with broker_at(broker) as broker_url:
        from triggers.demo.workers import Workers  # noqa: PLC0415 - Celery may be missing, but for this

        log = logging.FileHandler(folder / "demo.log", delay=True)
        crew = Workers(place.url, broker_url, folder / "workers.log", processes=processes, kill=kill)
        with _logging_to(log, "triggers"), crew:
            yield crew


@contextmanager
def _logging_to(handler: logging.Handler, name: str) -> Iterator[None]:
    """Keep a logger off the terminal; what the tasks say is recorded with their instances all the same."""
    logger = logging.getLogger(name)
    before, logger.propagate = logger.propagate, False
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()
        logger.propagate = before


@contextmanager
def _bars(console: Console) -> Iterator[main.Progress]:
    """One bar for each thing that is done, in the order in which they begin."""
    columns = (TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as shown:

        def progress(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = shown.add_task(what, total=total)
            shown.update(bars[what], completed=done, total=total)

        yield progress


def _table(counts: main.DemoCounts) -> Table:
    """Tasks by status; statuses that none is in are left out."""
    statuses = [status.value for status in Status if counts.instances[status.value]]
    caption = f"{counts.sessions} sessions, {counts.finalized} of them finalised"
    table = Table("task", *statuses, caption=caption)
    for column in table.columns[1:]:
        column.justify = "right"
    for task, of in sorted(counts.tasks.items()):
        table.add_row(task, *(str(of.get(status, "")) for status in statuses))
    table.add_section()
    table.add_row("all", *(str(counts.instances[status]) for status in statuses))
    return table


def _finding(results_path: Path, counts: main.DemoCounts) -> str:
    """What the scores say."""
    if counts.results != counts.instances["finished"]:
        return f"{results_path} does not belong to these sessions: remove both and begin anew."
    results = results_in(str(results_path.resolve()))
    try:
        verdicts = [found["agrees"] for *_, found in results.rows("t_score")]
    finally:
        results.close()
    told, right = len(verdicts) - verdicts.count(None), verdicts.count(True)
    share = f" ({right / told:.0%})" if told else ""
    return (
        f"Of the {len(verdicts)} who were scored, {told} see one candidate nearer to themselves on the "
        f"left-right scale; {right}{share} of them vote for that one."
    )


def _program() -> str:
    """What to type for the command line: its path, where it was called so and its name alone is not found."""
    called = Path(sys.argv[0])
    if called.name != "triggers" or shutil.which("triggers") is not None:
        return "triggers"
    here = Path.cwd()
    return str(called.relative_to(here) if called.is_relative_to(here) else called)


def _ways_in(place: RunLocation, folder: Path, seed: int, respondents: int) -> str:
    """Commands worth a try, about respondents of whom there is something to tell."""
    if place.private:
        return (
            f"It was {place.shown}, and is gone with all that was in it. To look into the sessions "
            "afterwards, name a storage that stays: --storage URL"
        )
    subjects = dict(enumerate(read_answers()[:respondents], start=1))
    complete = [number for number in subjects if not is_incomplete(number, seed)]
    stopped = [number for number in subjects if is_incomplete(number, seed)]
    embedded = [number for number in complete if is_embedded(number, seed)]
    doubtful = [
        number
        for number in complete
        if not is_plausible(subjects[number]["age"], subjects[number]["educ"], main.TOLERANCE)
    ]
    lines = [
        *(f"show {uid_of(number)}" for number in (doubtful or complete)[:1]),
        *(f"logs {uid_of(number)} --level WARNING" for number in doubtful[:1]),
        *(f"explain {uid_of(number)} t_importSubject" for number in stopped[:1]),
        *(f"explain {uid_of(number)} t_importBrowser" for number in embedded[:1]),
    ]
    program = shlex.quote(_program())
    commands = "\n".join(f"  {program} {line} --storage {shlex.quote(place.shown)}" for line in lines)
    kept = f"What the tasks found is in {place.results}. To begin anew, remove {folder}."
    return f"Look into it:\n{commands}\n{kept}"
