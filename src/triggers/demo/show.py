"""Shows the survey on a terminal: a bar while it goes on, a table at the end, and how to look into it."""

from __future__ import annotations

import json
import logging
import shlex
import shutil
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from triggers.core.status import Status
from triggers.demo import main
from triggers.demo.assessment import is_plausible
from triggers.demo.results import results_in
from triggers.demo.study import RESPONDENTS, is_embedded, is_incomplete, read_answers, uid_of
from triggers.exceptions import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Where the files go unless told otherwise, below the current folder.
FOLDER = "triggers-demo"


def show(
    folder: Path,
    *,
    storage_url: str | None = None,
    seed: int = main.SEED,
    workers: int = main.WORKERS,
    respondents: int = RESPONDENTS,
    as_json: bool = False,
) -> main.DemoCounts:
    """Play the survey before somebody's eyes; see :func:`triggers.demo.main.run`.

    The last line on standard output is one JSON object with the counts. The bars go to standard error.

    Args:
        folder: gets ``results.db`` and, unless a storage is named, ``survey.db``; made if it is not there.
        storage_url: where the sessions are kept.
        seed: of everything that is made up.
        workers: threads that run tasks.
        respondents: how many of them, from the first.
        as_json: print that one line and nothing else.

    Raises:
        OtherSurveyError: the folder holds the results of another seed.
        StorageError: the folder or the storage cannot be used.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        message = f"{folder} cannot be made a folder: {error.strerror}"
        raise StorageError(message) from error
    url = storage_url or f"sqlite:///{quote((folder / 'survey.db').as_posix())}"
    results_path = folder / "results.db"
    out, err = Console(quiet=as_json, highlight=False), Console(stderr=True, quiet=as_json)
    out.print(
        f"{respondents} respondents of the American National Election Study of 1996, each a session in "
        f"{url}\n"
        "Their pages arrive in any order, some twice, some never. Stop this, kill -9 it, start it again: "
        "the counts will be the same.",
        soft_wrap=True,
        markup=False,
    )
    with _quiet_tasks(), _bars(err) as progress:
        counts = main.run(
            url,
            results_path=results_path,
            seed=seed,
            workers=workers,
            respondents=respondents,
            progress=progress,
        )
    out.print(_table(counts))
    for text in (_finding(results_path, counts), _ways_in(url, folder, seed, respondents)):
        out.print(text, soft_wrap=True, markup=False)
    print(json.dumps(counts.to_json()))  # noqa: T201 - the line for programs, which no terminal's width may break
    return counts


@contextmanager
def _quiet_tasks() -> Iterator[None]:
    """Keep what the tasks say off the terminal; it is recorded with their instances all the same."""
    logger = logging.getLogger("triggers.demo.tasks")
    silent = logging.NullHandler()
    before, logger.propagate = logger.propagate, False
    logger.addHandler(silent)
    try:
        yield
    finally:
        logger.removeHandler(silent)
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


def _ways_in(url: str, folder: Path, seed: int, respondents: int) -> str:
    """Commands worth a try, about respondents of whom there is something to tell."""
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
    commands = "\n".join(f"  {program} {line} --storage {shlex.quote(url)}" for line in lines)
    kept = f"What the tasks found is in {folder / 'results.db'}. To begin anew, remove {folder}."
    return f"Look into it:\n{commands}\n{kept}"
