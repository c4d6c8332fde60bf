"""The commands that run tasks, or schedule lost ones for other processes."""

from __future__ import annotations

import signal
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from triggers.cli import documents, render
from triggers.cli.options import PAUSE, Target, common, pass_where, settle
from triggers.exceptions import TriggersError
from triggers.worker.sweep import SweepReport

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import FrameType

    from rich.progress import Progress

    from triggers import Triggers

#: Seconds that a stopping worker waits for running instances.
STOP_WITHIN: Final = 30.0


@click.command()
@common
@pass_where
def sweep(where: Target) -> None:
    """Recover instances that lost their worker.

    With --app, it also runs due instances, and ends when nothing is due.
    """
    with where.opened() as app:
        with render.progress(quiet=where.json) as bar:
            report = _sweep(app, bar)
        backlog = app.storage.reader.backlog()
    if where.json:
        left = {"ready": backlog.ready, "later": backlog.later, "running": backlog.running}
        counts = {"recovered": report.recovered, "failed": report.failed, "dispatched": report.dispatched}
        documents.emit({**counts, **left})
        return
    render.say(*_sweep_lines(report, runs=app.has_runner))
    render.say(f"left: {backlog.ready:,} ready, {backlog.later:,} due later, {backlog.running:,} running")
    if backlog.ready and not app.has_runner:
        render.say(
            "This command ran no task. Run the tasks in a process that has them: triggers work --app ..."
        )


def _sweep_lines(report: SweepReport, *, runs: bool) -> Iterator[str]:
    lost = report.recovered + report.failed
    if lost:
        ends = f"{report.recovered:,} scheduled again, {report.failed:,} failed after too many losses"
        yield f"{render.plural(lost, 'instance')} had lost the worker: {ends}"
    else:
        yield "no instance had lost its worker"
    if runs:
        yield (
            f"dispatched {render.plural(report.dispatched, 'due instance')}"
            if report.dispatched
            else "nothing was due"
        )


def _sweep(app: Triggers, bar: Progress) -> SweepReport:
    """Sweep until nothing is due; each time, the runners of this process run what was dispatched."""
    job = bar.add_task("sweeping", total=None, left="")
    most = 0

    def look() -> None:
        nonlocal most
        backlog = app.storage.reader.backlog()
        left = backlog.ready + backlog.running
        most = max(most, left)
        bar.update(job, description="running", total=most, completed=most - left, left=f"{left:,} left")

    total = SweepReport()
    include_recent = True  # also what a process scheduled just before it died
    while True:
        report = app.sweep(include_recent=include_recent)
        include_recent = False
        total = SweepReport(
            total.recovered + report.recovered,
            total.failed + report.failed,
            total.dispatched + report.dispatched,
        )
        settle(app, (lambda: None) if bar.disable else look)
        if not report.dispatched:
            return total


class _StopError(BaseException):
    """A signal to stop was received; its number is the argument."""


@contextmanager
def _signals() -> Iterator[None]:
    """Raise :class:`_StopError` in the main thread when SIGTERM or SIGINT is received."""

    def stop(number: int, _: FrameType | None) -> None:
        raise _StopError(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@click.command()
@click.option(
    "--stop-within",
    type=click.FloatRange(0),
    default=STOP_WITHIN,
    show_default=True,
    metavar="SECONDS",
    help="How long running instances may take to end after the signal.",
)
@common
@pass_where
def work(where: Target, stop_within: float) -> None:
    """Run due instances until SIGTERM or Ctrl-C."""
    if not where.names_app:
        message = "work needs the tasks: pass --app module:attribute"
        raise click.UsageError(message)
    app = where.open()
    if not app.has_runner:
        app.close()
        message = "the application has runner=None, so it cannot run tasks; give it a runner in this process"
        raise click.UsageError(message)
    with _signals():
        if not where.json:
            click.echo("Working. Stop it with Ctrl-C or SIGTERM.", err=True)
        name = signal.Signals(_until_stopped(app, stop_within)).name
    if where.json:
        documents.emit({"signal": name})
    else:
        click.echo(f"Stopped by {name}.", err=True)


def _until_stopped(app: Triggers, stop_within: float) -> int:
    """Work until a signal is received, and stop; return the signal."""
    try:
        app.start()
        while True:
            time.sleep(3600)
    except _StopError as signalled:
        number = int(signalled.args[0])
    _close(app, stop_within)
    return number


def _close(app: Triggers, timeout: float) -> None:
    """Close the application; a second signal closes it without waiting.

    A separate thread closes it. Before Python 3.13, a thread counts as ended if an exception, such as that of
    a signal, is raised while it is joined; then its running instance would not be released.
    """
    failed: list[TriggersError] = []

    def close() -> None:
        try:
            app.close(timeout)
        except TriggersError as error:
            failed.append(error)

    closing = threading.Thread(target=close, name="triggers-close", daemon=True)
    closing.start()
    try:
        while closing.is_alive():
            time.sleep(PAUSE)
    except _StopError:
        app.close(0)
    if failed:
        raise failed[0]


@click.command()
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder for the files of the demo.  [default: triggers-demo]",
)
@click.option("--seed", type=int, default=1996, show_default=True, help="The seed of all random choices.")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="How many threads run tasks, or how many processes in two Celery workers.",
)
@click.option(
    "--respondents", type=click.IntRange(1, 944), default=944, show_default=True, help="How many respondents."
)
@click.option(
    "--runner",
    type=click.Choice(["threads", "celery"]),
    default="threads",
    show_default=True,
    help="What runs the tasks.",
)
@click.option(
    "--broker",
    default="redis",
    show_default=True,
    metavar="URL",
    help="The broker of Celery; redis or rabbitmq starts a private one.",
)
@click.option("--kill-workers", is_flag=True, help="Kill a random process of the workers every second.")
@common
@pass_where
def demo(where: Target, /, **options: Any) -> None:
    """Run a demo: a real questionnaire, from pages to scores.

    The pages arrive in random order. You can kill it and start it again: the counts are the same. With
    --storage, the sessions are stored there. Instead of a URL, postgresql or redis starts a private server,
    which is deleted at the end.
    """
    from triggers.demo.results import OtherSurveyError  # noqa: PLC0415 - nothing else needs the survey
    from triggers.demo.show import show  # noqa: PLC0415

    if where.app:
        message = "the demo is an application itself: omit --app"
        raise click.UsageError(message)
    try:
        show(storage=where.storage, as_json=where.json, **options)
    except OtherSurveyError as error:
        raise click.UsageError(str(error)) from error


COMMANDS: Final = (demo, sweep, work)
