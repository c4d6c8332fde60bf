"""Shows the survey on a terminal: progress bars, a table at the end, and commands to inspect it."""

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

#: The default folder of the files, in the current folder.
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
    """Run the survey and show it on the terminal; see :func:`triggers.demo.main.run`.

    The last line on standard output is a JSON object with the counts. The progress bars go to standard error.

    Args:
        folder: the folder for ``results.db``, for ``survey.db`` unless another storage is named, and for the
            logs of Celery's workers; it is created if necessary. None means ``triggers-demo`` in the current
            folder; if storage or runner is not the default, the name of the folder contains it.
        storage: see :func:`triggers.demo.locations.storage_at`.
        runner: threads of this process, or Celery workers that the demo starts.
        broker: the broker of Celery; see :func:`triggers.demo.locations.broker_at`.
        kill_workers: whether to kill a random process of the workers about every second.
        seed: the seed of all random choices.
        workers: how many threads, or processes of the Celery workers, run tasks.
        respondents: how many respondents, beginning with the first.
        as_json: whether to print only the JSON object.

    Raises:
        OtherSurveyError: the folder has the results of another seed.
        StorageError: the folder or the storage cannot be used.
        PluginError: a storage or broker is unknown or not installed, or the options contradict each other.
        MissingServerError: this machine does not have the programs of such a server.
        WorkersError: the Celery workers end by themselves.
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
        say(f"{crew.killed} worker processes were killed during the run.")
    print(json.dumps(counts.to_json() | killed))  # noqa: T201 - a line for programs, which rich would wrap
    return counts


def _folder(storage: str | None, runner: str) -> Path:
    """Return the default folder: runs that cannot continue each other have different folders."""
    kinds = [(storage or "sqlite").partition(":")[0], runner]
    return Path("-".join([FOLDER, *(kind for kind in kinds if kind not in {"sqlite", "threads"})]))


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"cannot create the folder {folder}: {error.strerror}"
        raise StorageError(message) from error
    return folder


def _beginning(place: RunLocation, respondents: int) -> str:
    promise = (
        "You can kill the processes that run the tasks: the counts will be the same."
        if place.private
        else "You can kill -9 this program and start it again: the counts will be the same."
    )
    return (
        f"{respondents} respondents of the American National Election Study of 1996, each a session in "
        f"{place.shown}\nTheir pages arrive in any order, some twice, some never. {promise}"
    )


@contextmanager
def _crew(
    place: RunLocation, runner: str, broker: str, folder: Path, *, processes: int, kill: bool
) -> Iterator[Workers | None]:
    """Start the Celery workers, with logs in files; return None if threads run the tasks."""
    if runner == "threads":
        if kill:
            raise PluginError("--kill-workers needs --runner celery: threads cannot be killed")
        with _logging_to(logging.NullHandler(), "triggers.demo.tasks"):
            yield None
        return
    if place.url.startswith("memory:"):
        raise PluginError("memory:// exists only within one process: --runner celery needs another storage")
    with broker_at(broker) as broker_url:
        from triggers.demo.workers import Workers  # noqa: PLC0415 - only this needs Celery

        log = logging.FileHandler(folder / "demo.log", delay=True)
        crew = Workers(place.url, broker_url, folder / "workers.log", processes=processes, kill=kill)
        with _logging_to(log, "triggers"), crew:
            yield crew


@contextmanager
def _logging_to(handler: logging.Handler, name: str) -> Iterator[None]:
    """Keep the records of a logger off the terminal; they are still stored with their instances."""
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
    """Show a progress bar for each step, in the order in which the steps begin."""
    columns = (TextColumn("{task.description:>9}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    bars: dict[str, TaskID] = {}
    with Progress(*columns, console=console) as shown:

        def progress(what: str, done: int, total: int) -> None:
            if what not in bars:
                bars[what] = shown.add_task(what, total=total)
            shown.update(bars[what], completed=done, total=total)

        yield progress


def _table(counts: main.DemoCounts) -> Table:
    """Return a table of tasks by status, without the statuses that no instance has."""
    statuses = [status.value for status in Status if counts.instances[status.value]]
    caption = f"{counts.sessions} sessions, {counts.finalized} of them finalized"
    table = Table("task", *statuses, caption=caption)
    for column in table.columns[1:]:
        column.justify = "right"
    for task, of in sorted(counts.tasks.items()):
        table.add_row(task, *(str(of.get(status, "")) for status in statuses))
    table.add_section()
    table.add_row("all", *(str(counts.instances[status]) for status in statuses))
    return table


def _finding(results_path: Path, counts: main.DemoCounts) -> str:
    """Return a summary of the scores in one sentence."""
    if counts.results != counts.instances["finished"]:
        return f"{results_path} does not belong to these sessions: delete both and start again."
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
    """Return the name of the program, or its path if it was called by a path that is not on PATH."""
    called = Path(sys.argv[0])
    if called.name != "triggers" or shutil.which("triggers") is not None:
        return "triggers"
    here = Path.cwd()
    return str(called.relative_to(here) if called.is_relative_to(here) else called)


def _ways_in(place: RunLocation, folder: Path, seed: int, respondents: int) -> str:
    """Return commands to try, about respondents whose sessions are interesting."""
    if place.private:
        return (
            f"The storage was {place.shown} and has been deleted with all its sessions. To inspect "
            "the sessions afterwards, use a storage of your own: --storage URL"
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
        *(f"timers {uid_of(number)}" for number in stopped[:1]),
        *(f"explain {uid_of(number)} t_importBrowser" for number in embedded[:1]),
    ]
    program = shlex.quote(_program())
    commands = "\n".join(f"  {program} {line} --storage {shlex.quote(place.shown)}" for line in lines)
    kept = f"The results of the tasks are in {place.results}. To start again, delete {folder}."
    return f"To inspect the sessions:\n{commands}\n{kept}"
